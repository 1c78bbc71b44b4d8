//! What each opcode with its modifiers means. Called by `assemble` for each instruction.
//!
//! A modifier that nothing here takes is not emulated, and says so when the module is loaded.

mod arithmetic;
mod bits;
mod compare;
mod control;
mod convert;
mod fields;
mod float;
mod lanes;
mod memory;
mod moves;
mod rounding;
mod together;

use crate::assemble::Assembler;
use crate::ast::{Instruction, Operand};
use crate::code::{Op, RowFn};
use crate::error::PtxError;
use crate::types::Type;

/// An opcode in its parts.
pub(crate) struct Mods<'a> {
    line: u32,
    opcode: &'a str,
    parts: Vec<&'a str>,
}

impl<'a> Mods<'a> {
    fn of(line: u32, opcode: &'a str) -> (&'a str, Self) {
        let mut parts = opcode.split('.');
        let name = parts.next().unwrap_or_default();
        let mods = Self {
            line,
            opcode,
            parts: parts.collect(),
        };
        (name, mods)
    }

    pub(crate) fn not_emulated(&self) -> PtxError {
        PtxError::not_emulated(self.line, self.opcode)
    }

    pub(crate) fn take(&mut self, modifier: &str) -> bool {
        let found = self.parts.iter().position(|part| *part == modifier);
        if let Some(index) = found {
            self.parts.remove(index);
        }
        found.is_some()
    }

    /// Whether the opcode was written with `modifier`, taken or not.
    pub(crate) fn opcode_has(&self, modifier: &str) -> bool {
        self.opcode.split('.').any(|part| part == modifier)
    }

    /// The first of `choices` that is there.
    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<T> {
        let found = choices.iter().find(|(name, _)| self.parts.contains(name));
        found.map(|(name, value)| {
            self.take(name);
            *value
        })
    }

    /// The first type that is there.
    pub(crate) fn ty(&mut self) -> Result<Type, PtxError> {
        let found = self
            .parts
            .iter()
            .position(|part| Type::named(part).is_some());
        match found
            .map(|index| self.parts.remove(index))
            .and_then(Type::named)
        {
            Some(ty) => Ok(ty),
            None => Err(self.not_emulated()),
        }
    }

    /// What ptxas says of an opcode that exists, but not for this type.
    pub(crate) fn unexpected_type(&self) -> PtxError {
        PtxError::syntax(
            self.line,
            format!(
                "Unexpected instruction types specified for '{}'",
                self.opcode
            ),
        )
    }

    /// Everything must have been taken.
    pub(crate) fn done(&self) -> Result<(), PtxError> {
        if self.parts.is_empty() {
            Ok(())
        } else {
            Err(self.not_emulated())
        }
    }
}

/// The operands, if there are as many as there must be.
pub(crate) fn operands<'a, const N: usize>(
    a: &Assembler<'_>,
    instruction: &'a Instruction,
) -> Result<&'a [Operand; N], PtxError> {
    <&[Operand; N]>::try_from(instruction.operands.as_slice()).map_err(|_| {
        a.error(format!(
            "Arguments mismatch for instruction '{}': it wants {N} of them",
            instruction.opcode
        ))
    })
}

/// An instruction of one result and up to three sources, all of one type.
pub(crate) fn row(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    f: RowFn,
    d: Type,
    sources: &[Type],
    imm: u64,
) -> Result<Op, PtxError> {
    let Some((first, rest)) = instruction.operands.split_first() else {
        return Err(a.mismatch());
    };
    if rest.len() != sources.len() {
        return Err(a.mismatch());
    }
    let mut s = [0; 3];
    for ((place, operand), ty) in s.iter_mut().zip(rest).zip(sources) {
        *place = a.src(operand, *ty)?;
    }
    let d = a.dst(first, d)?;
    Ok(Op::Row { f, d, s, imm })
}

/// What `instruction` does; nothing for those that only speak to the compiler.
pub(crate) fn assemble(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
) -> Result<Option<Op>, PtxError> {
    let (name, mods) = Mods::of(a.line, &instruction.opcode);
    let op = match name {
        "add" | "sub" | "mul" | "mul24" | "mad" | "mad24" | "div" | "rem" | "abs" | "neg"
        | "min" | "max" | "addc" | "subc" | "madc" | "sad" | "fma" | "sqrt" | "rsqrt" | "rcp"
        | "ex2" | "lg2" | "sin" | "cos" | "tanh" | "copysign" | "testp" => {
            arithmetic::assemble(a, instruction, name, mods)?
        }
        "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "popc" | "clz"
        | "bfind" | "brev" | "bfe" | "bfi" | "lop3" | "prmt" | "fns" | "szext" | "bmsk"
        | "dp4a" | "dp2a" => bits::assemble(a, instruction, name, mods)?,
        "mov" | "cvt" | "cvta" | "isspacep" => moves::assemble(a, instruction, name, mods)?,
        "setp" | "set" | "selp" | "slct" => compare::assemble(a, instruction, name, mods)?,
        "ld" | "ldu" | "st" | "atom" | "red" | "membar" | "fence" | "prefetch" | "prefetchu" => {
            memory::assemble(a, instruction, name, mods)?
        }
        "shfl" | "vote" | "match" | "redux" | "activemask" | "bar" | "barrier" | "elect" => {
            together::assemble(a, instruction, name, mods)?
        }
        "bra" | "brx" | "call" | "ret" | "exit" | "trap" | "brkpt" | "nanosleep" | "pmevent" => {
            return control::assemble(a, instruction, name, mods);
        }
        _ if is_known(name) => return Err(mods.not_emulated()),
        _ => {
            return Err(PtxError {
                line: a.line,
                kind: crate::error::PtxErrorKind::NotEmulated,
                message: format!("Not a name of any known instruction: '{name}'"),
            });
        }
    };
    Ok(Some(op))
}

/// Opcodes that PTX has and we do not, so that the message is right.
fn is_known(name: &str) -> bool {
    matches!(
        name,
        "alloca"
            | "applypriority"
            | "clusterlaunchcontrol"
            | "cp"
            | "createpolicy"
            | "discard"
            | "getctarank"
            | "griddepcontrol"
            | "istypep"
            | "ldmatrix"
            | "mapa"
            | "mbarrier"
            | "mma"
            | "movmatrix"
            | "multimem"
            | "setmaxnreg"
            | "stackrestore"
            | "stacksave"
            | "stmatrix"
            | "suld"
            | "sured"
            | "sust"
            | "suq"
            | "tcgen05"
            | "tensormap"
            | "tex"
            | "tld4"
            | "txq"
            | "vadd"
            | "vsub"
            | "vmin"
            | "vmax"
            | "vabsdiff"
            | "vshl"
            | "vshr"
            | "vmad"
            | "vset"
            | "vadd2"
            | "vadd4"
            | "wgmma"
            | "wmma"
            | "st_async"
    )
}
