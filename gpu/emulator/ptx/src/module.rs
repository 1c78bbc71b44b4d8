//! A loaded PTX text: its kernels, its variables, and what is asked of both. Called by whoever loads and launches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::assemble::{ModuleNames, ModuleSymbol, SharedVariable, Signature, assemble};
use crate::ast::{Function, Initial, Tree, Variable};
use crate::code::{Code, Constant, Op};
use crate::error::{PtxError, PtxErrorKind};
use crate::lexer::Number;
use crate::parser::parse;
use crate::types::Space;

/// The `.version` up to which texts are read: what driver 580 reads.
const NEWEST_VERSION: (u32, u32) = (9, 0);
/// Shared memory of fixed size that a kernel may have.
const MOST_STATIC_SHARED_BYTES: u32 = 48 << 10;

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
        build(text, tree)
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

fn build(text: &str, tree: Tree) -> Result<Module, PtxError> {
    let mut names = ModuleNames {
        symbols: BTreeMap::new(),
        signatures: Vec::new(),
        shared: Vec::new(),
        current: 0,
    };
    let mut globals = Vec::new();
    for variable in &tree.variables {
        let symbol = match variable.space {
            Space::Shared if variable.is_extern || variable.bytes == 0 => {
                ModuleSymbol::DynamicShared
            }
            Space::Shared => {
                names.shared.push(SharedVariable {
                    bytes: variable.bytes,
                    align: variable.align,
                    owner: None,
                });
                ModuleSymbol::Shared(names.shared.len() - 1)
            }
            space => {
                globals.push(global(variable, space)?);
                ModuleSymbol::Global(globals.len() - 1, space)
            }
        };
        if names
            .symbols
            .insert(variable.name.clone(), symbol)
            .is_some()
            && !variable.is_extern
        {
            return Err(PtxError::syntax(
                variable.line,
                format!("Duplicate definition of variable '{}'", variable.name),
            ));
        }
    }
    let functions: Vec<&Function> = tree
        .functions
        .iter()
        .filter(|function| function.body.is_some())
        .collect();
    for function in &tree.functions {
        names
            .symbols
            .entry(function.name.clone())
            .or_insert(ModuleSymbol::Missing);
    }
    for (number, function) in functions.iter().enumerate() {
        let old = names
            .symbols
            .insert(function.name.clone(), ModuleSymbol::Function(number));
        if !matches!(old, None | Some(ModuleSymbol::Missing)) {
            return Err(PtxError::syntax(
                function.line,
                format!("Duplicate definition of function '{}'", function.name),
            ));
        }
        names.signatures.push(Signature::of(function)?);
    }
    let mut code = Code {
        ins: Vec::new(),
        functions: Vec::new(),
        global_names: globals
            .iter()
            .map(|global: &Global| global.name.clone())
            .collect(),
        lines: text
            .split('\0')
            .next()
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect(),
    };
    for (number, function) in functions.iter().enumerate() {
        let signature = names.signatures.get(number).cloned().unwrap_or_default();
        names.current = number;
        let assembled = assemble(&mut names, function, &signature, &mut code.ins)?;
        code.functions.push(assembled);
    }
    let code = Arc::new(code);
    let mut kernels = BTreeMap::new();
    for (number, function) in functions
        .iter()
        .enumerate()
        .filter(|(_, function)| function.is_entry)
    {
        let kernel = kernel(&code, &names, number, function)?;
        kernels.insert(function.name.clone(), kernel);
    }
    Ok(Module {
        version: tree.version,
        target: tree.target,
        globals,
        kernels,
    })
}

fn kernel(
    code: &Arc<Code>,
    names: &ModuleNames,
    number: usize,
    function: &Function,
) -> Result<Kernel, PtxError> {
    let reaches = reaches(code, number);
    let (shared_offsets, static_shared_bytes) = shared_layout(code, names, &reaches);
    if static_shared_bytes > MOST_STATIC_SHARED_BYTES {
        return Err(PtxError::syntax(
            function.line,
            format!(
                "Entry function '{}' uses too much shared data ({static_shared_bytes:#x} bytes, 0xc000 max)",
                function.name
            ),
        ));
    }
    let signature = names.signatures.get(number).cloned().unwrap_or_default();
    let parameters = function.parameters.iter().zip(&signature.parameters);
    Ok(Kernel {
        code: Arc::clone(code),
        function: number,
        name: function.name.clone(),
        parameters: parameters
            .map(|(variable, (offset, bytes))| Parameter {
                name: variable.name.clone(),
                bytes: *bytes,
                align: variable.align,
                offset: *offset,
            })
            .collect(),
        parameter_bytes: signature.bytes,
        static_shared_bytes,
        shared_offsets: shared_offsets.into(),
        max_threads: function.max_threads,
        reaches: Arc::new(reaches),
    })
}

fn reaches(code: &Code, number: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::from([number]);
    let mut open = vec![number];
    while let Some(function) = open.pop().and_then(|number| code.functions.get(number)) {
        let body = code.ins.get(function.entry as usize..function.end as usize);
        for ins in body.into_iter().flatten() {
            if let Op::Call { function, .. } = ins.op
                && reached.insert(function)
            {
                open.push(function);
            }
        }
    }
    reached
}

/// Offsets of the shared variables that the functions use, and where the last ends.
fn shared_layout(code: &Code, names: &ModuleNames, reached: &BTreeSet<usize>) -> (Vec<u32>, u32) {
    let mut used = BTreeSet::new();
    for function in reached
        .iter()
        .filter_map(|number| code.functions.get(*number))
    {
        used.extend(
            function
                .constants
                .iter()
                .filter_map(|(_, constant)| match constant {
                    Constant::Shared(number, _) => Some(*number),
                    _ => None,
                }),
        );
    }
    for (number, variable) in names.shared.iter().enumerate() {
        if variable.owner.is_some_and(|owner| reached.contains(&owner)) {
            used.insert(number);
        }
    }
    let mut offsets = vec![0; names.shared.len()];
    let mut end = 0_u32;
    for number in used {
        let (Some(offset), Some(variable)) = (offsets.get_mut(number), names.shared.get(number))
        else {
            continue;
        };
        *offset = end
            .checked_next_multiple_of(variable.align)
            .unwrap_or(u32::MAX);
        end = offset.saturating_add(u32::try_from(variable.bytes).unwrap_or(u32::MAX / 2));
    }
    (offsets, end)
}

fn global(variable: &Variable, space: Space) -> Result<Global, PtxError> {
    let mut initial = Vec::new();
    let mut relocations = Vec::new();
    let width = variable.element.bytes() as usize;
    for value in &variable.initial {
        let bits = match value {
            Initial::Number(number) => initial_bits(*number, width).ok_or_else(|| {
                PtxError::syntax(
                    variable.line,
                    format!("`{}` has an initial value of another type", variable.name),
                )
            })?,
            Initial::Symbol(name, addend) if width == 8 => {
                relocations.push(Relocation {
                    offset: initial.len() as u64,
                    name: name.clone(),
                    addend: *addend,
                });
                0
            }
            Initial::Symbol(..) => {
                return Err(PtxError::not_emulated(
                    variable.line,
                    "a part of an address as an initial value",
                ));
            }
        };
        initial.extend(bits.to_le_bytes().iter().take(width));
    }
    Ok(Global {
        name: variable.name.clone(),
        space: if space == Space::Const {
            GlobalSpace::Constant
        } else {
            GlobalSpace::Global
        },
        bytes: variable.bytes,
        align: variable.align,
        initial,
        relocations,
    })
}

fn initial_bits(number: Number, width: usize) -> Option<u64> {
    match (number, width) {
        (Number::Integer(value), _) => Some(value),
        (Number::Single(bits), 4) => Some(u64::from(bits)),
        (Number::Double(bits), 8) => Some(bits),
        (Number::Decimal(value), 4) => Some(u64::from((value as f32).to_bits())),
        (Number::Decimal(value), 8) => Some(value.to_bits()),
        _ => None,
    }
}
