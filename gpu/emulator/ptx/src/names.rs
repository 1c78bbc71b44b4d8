//! What the names of a module mean to its functions. Filled by `link`, read by `assemble`.

use std::collections::BTreeMap;

use crate::ast::{Function, Variable};
use crate::error::PtxError;
use crate::types::Space;

/// What a name of the module means.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ModuleSymbol {
    /// In global or constant memory, by its number.
    Global(usize, Space),
    Shared(usize),
    DynamicShared,
    Function(usize),
    /// Declared without a body.
    Missing,
}

/// What a function takes and gives, with offsets in its frame of local memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signature {
    pub(crate) parameters: Vec<(u32, u32)>,
    pub(crate) returns: Vec<(u32, u32)>,
    /// Where both end.
    pub(crate) bytes: u32,
    pub(crate) is_entry: bool,
}

/// What all parameters of one function take at most, in PTX 8.1 and later.
const MOST_PARAMETER_BYTES: u64 = 32_764;

impl Signature {
    pub(crate) fn of(function: &Function) -> Result<Self, PtxError> {
        let mut bytes = 0_u64;
        let mut place = |variable: &Variable| {
            let offset = bytes.next_multiple_of(u64::from(variable.align));
            bytes = offset + variable.bytes;
            (offset as u32, variable.bytes as u32)
        };
        let parameters = function.parameters.iter().map(&mut place).collect();
        let returns = function.returns.iter().map(&mut place).collect();
        if bytes > MOST_PARAMETER_BYTES {
            return Err(PtxError::syntax(
                function.line,
                format!(
                    "the parameters of '{}' take more than {MOST_PARAMETER_BYTES} bytes",
                    function.name
                ),
            ));
        }
        Ok(Self {
            parameters,
            returns,
            bytes: bytes as u32,
            is_entry: function.is_entry,
        })
    }
}

/// A variable in shared memory of fixed size.
pub(crate) struct SharedVariable {
    pub(crate) bytes: u64,
    pub(crate) align: u32,
    /// The function that declares it, and so has it whether it is used or not.
    pub(crate) owner: Option<usize>,
}

/// What all functions see.
#[derive(Default)]
pub(crate) struct ModuleNames {
    pub(crate) symbols: BTreeMap<String, ModuleSymbol>,
    pub(crate) signatures: Vec<Signature>,
    pub(crate) shared: Vec<SharedVariable>,
    /// The function that is being assembled.
    pub(crate) current: usize,
}
