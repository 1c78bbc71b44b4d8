//! A loaded PTX text: its kernels, its variables, and what is asked of both. Called by whoever loads and launches.

mod link;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ast::Tree;
use crate::code::Code;
use crate::error::{PtxError, PtxErrorKind};
use crate::parser::parse;

/// The `.version` up to which texts are read: what driver 580 reads.
const NEWEST_VERSION: (u32, u32) = (9, 0);

/// Architectures with the first `.version` that knows them. Newer ones are refused, as a device of capability 9.0 does.
const TARGETS: &[(&str, (u32, u32))] = &[
    ("sm_20", (2, 0)),
    ("sm_21", (2, 0)),
    ("sm_30", (3, 0)),
    ("sm_32", (4, 0)),
    ("sm_35", (3, 1)),
    ("sm_37", (4, 1)),
    ("sm_50", (4, 0)),
    ("sm_52", (4, 1)),
    ("sm_53", (4, 2)),
    ("sm_60", (5, 0)),
    ("sm_61", (5, 0)),
    ("sm_62", (5, 0)),
    ("sm_70", (6, 0)),
    ("sm_72", (6, 1)),
    ("sm_75", (6, 3)),
    ("sm_80", (7, 0)),
    ("sm_86", (7, 1)),
    ("sm_87", (7, 4)),
    ("sm_89", (7, 8)),
    ("sm_90", (7, 8)),
    ("sm_90a", (8, 0)),
];

/// A PTX text, understood.
#[derive(Debug)]
pub struct Module {
    version: (u32, u32),
    target: String,
    globals: Vec<Global>,
    kernels: BTreeMap<String, Kernel>,
}

/// In which memory a variable of a module lies. Addresses of both are addresses of global memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobalSpace {
    /// `.global`
    Global,
    /// `.const`: kernels cannot write it.
    Constant,
}

/// A variable of a module, for whoever places it in memory before a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// As it is written in the text.
    pub name: String,
    /// Global or constant memory.
    pub space: GlobalSpace,
    /// Its size; 0 for a declaration without a length.
    pub bytes: u64,
    /// A power of two.
    pub align: u32,
    /// Its first bytes; the others are zero.
    pub initial: Vec<u8>,
    /// Where addresses of other variables belong in it.
    pub relocations: Vec<Relocation>,
}

/// Eight bytes of a variable that hold the address of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relocation {
    /// Where they begin.
    pub offset: u64,
    /// Whose address it is.
    pub name: String,
    /// What is added to it.
    pub addend: i64,
}

/// A parameter of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// As it is written in the text.
    pub name: String,
    /// Its size.
    pub bytes: u32,
    /// A power of two.
    pub align: u32,
    /// Where it begins in the bytes of all parameters.
    pub offset: u32,
}

/// An entry of a module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kernel {
    pub(crate) code: Arc<Code>,
    /// Its number in `Code::functions`.
    pub(crate) function: usize,
    pub(crate) name: String,
    parameters: Arc<[Parameter]>,
    parameter_bytes: u32,
    pub(crate) static_shared_bytes: u32,
    /// Where in shared memory each shared variable of the module lies, as far as this kernel reaches it.
    pub(crate) shared_offsets: Arc<[u32]>,
    max_threads: Option<u32>,
    /// The functions that it reaches, itself included.
    pub(crate) reaches: Arc<BTreeSet<usize>>,
}

impl Module {
    /// Reads a text up to its end or its first zero byte. Errors: see [`PtxErrorKind`]; an opcode or modifier that is
    /// not emulated is an error here and not at its launch.
    pub fn parse(text: &str) -> Result<Self, PtxError> {
        let tree = parse(text)?;
        check_version(&tree)?;
        link::build(text, tree)
    }

    /// `.version`, as (9, 0).
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// `.target`, as `sm_80`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// All kernels by name.
    pub fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.kernels.values()
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.get(name)
    }

    /// The variables in global and constant memory, in the order of the text.
    pub fn globals(&self) -> &[Global] {
        &self.globals
    }
}

impl Kernel {
    /// As it is written in the text.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// In their order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// How many bytes all parameters take.
    pub fn parameter_bytes(&self) -> u32 {
        self.parameter_bytes
    }

    /// Shared memory that it takes besides what a launch asks for.
    pub fn static_shared_bytes(&self) -> u32 {
        self.static_shared_bytes
    }

    /// Local memory of a thread in the kernel itself, without functions that it calls.
    pub fn local_bytes(&self) -> u32 {
        self.code
            .functions
            .get(self.function)
            .map_or(0, |function| function.local_bytes)
    }

    /// A line of the text, counted from 1, as faults and coverage name it.
    pub fn text_of(&self, line: u32) -> &str {
        self.code.text(line)
    }

    /// `.maxntid`, all dimensions multiplied.
    pub fn max_threads(&self) -> Option<u32> {
        self.max_threads
    }
}

fn check_version(tree: &Tree) -> Result<(), PtxError> {
    let (major, minor) = tree.version;
    if tree.version > NEWEST_VERSION {
        return Err(PtxError {
            line: 1,
            kind: PtxErrorKind::UnsupportedVersion,
            message: format!("Unsupported .version {major}.{minor}; current version is '9.0'"),
        });
    }
    let target = &tree.target;
    let known = TARGETS.iter().find(|(name, _)| name == target);
    let message = match known {
        Some((_, since)) if *since <= tree.version => return Ok(()),
        Some((_, since)) => format!(
            "PTX .version {}.{} does not support .target {target}: it wants {}.{}",
            major, minor, since.0, since.1
        ),
        None => format!("'{target}' is no architecture up to sm_90: compile for compute_80"),
    };
    Err(PtxError {
        line: 2,
        kind: PtxErrorKind::UnsupportedTarget,
        message,
    })
}

/// Types that PTX has and we do not.
pub(crate) fn is_other_type(word: &str) -> bool {
    let name = word.trim_start_matches('.');
    name.starts_with("f16")
        || name.starts_with("bf16")
        || name.ends_with("ref")
        || name == "b128"
        || name.contains("x2")
}
