//! Branches, calls and ends.

use super::{Mods, operands};
use crate::assemble::Assembler;
use crate::ast::{Instruction, Operand};
use crate::code::{Op, Passed};
use crate::error::PtxError;
use crate::names::ModuleSymbol;
use crate::types::Type;

pub(super) fn assemble(
    a: &mut Assembler<'_>,
    instruction: &Instruction,
    name: &str,
    mut mods: Mods<'_>,
) -> Result<Option<Op>, PtxError> {
    mods.take("uni");
    if name == "brx" && !mods.take("idx") || name == "nanosleep" && mods.ty()? != Type::U32 {
        return Err(mods.not_emulated());
    }
    mods.done()?;
    Ok(Some(match name {
        "bra" => {
            let [Operand::Name(label, 0)] = operands(a, instruction)? else {
                return Err(a.mismatch());
            };
            a.fix_later(vec![label.clone()]);
            Op::Branch { to: 0 }
        }
        "brx" => {
            let [index, Operand::Name(list, 0)] = operands(a, instruction)? else {
                return Err(a.mismatch());
            };
            let index = a.src(index, Type::U32)?;
            let targets = a.targets(list)?;
            a.fix_later(targets);
            Op::BranchIndexed {
                index,
                to: Box::new([]),
            }
        }
        "call" => call(a, instruction)?,
        "ret" => Op::Return,
        "exit" => Op::Exit,
        "trap" => Op::Trap,
        "brkpt" => Op::Breakpoint,
        "nanosleep" => {
            let [duration] = operands(a, instruction)?;
            a.src(duration, Type::U32)?;
            Op::Sleep
        }
        // Counts an event for a profiler.
        _ => return Ok(None),
    }))
}

/// `call (results), name, (arguments);` where results and arguments may be missing.
fn call(a: &mut Assembler<'_>, instruction: &Instruction) -> Result<Op, PtxError> {
    let none: &[Operand] = &[];
    let (results, name, arguments) = match instruction.operands.as_slice() {
        [Operand::Name(name, 0)] => (none, name, none),
        [Operand::Name(name, 0), Operand::List(arguments)] => (none, name, arguments.as_slice()),
        [Operand::List(results), Operand::Name(name, 0)] => (results.as_slice(), name, none),
        [
            Operand::List(results),
            Operand::Name(name, 0),
            Operand::List(arguments),
        ] => (results.as_slice(), name, arguments.as_slice()),
        _ => return Err(PtxError::not_emulated(a.line, "a call through a register")),
    };
    let function = match a.names.symbols.get(name) {
        Some(ModuleSymbol::Function(function)) => *function,
        Some(ModuleSymbol::Missing) if name == "__assertfail" => return Ok(Op::AssertionFailed),
        Some(ModuleSymbol::Missing) if matches!(name.as_str(), "vprintf" | "malloc" | "free") => {
            return Err(PtxError::not_emulated(a.line, format!("call {name}")));
        }
        Some(ModuleSymbol::Missing) => {
            return Err(a.error(format!("Unresolved extern function '{name}'")));
        }
        Some(_) => return Err(a.mismatch()),
        None if name.starts_with('%') => {
            return Err(PtxError::not_emulated(a.line, "a call through a register"));
        }
        None => {
            return Err(a.error(format!(
                "Call target not recognized: unknown symbol '{name}'"
            )));
        }
    };
    let signature = a
        .names
        .signatures
        .get(function)
        .cloned()
        .unwrap_or_default();
    if signature.is_entry {
        return Err(a.error(format!("'{name}' is a kernel and cannot be called")));
    }
    Ok(Op::Call {
        function,
        arguments: passed(a, arguments, &signature.parameters)?,
        results: passed(a, results, &signature.returns)?,
    })
}

fn passed(
    a: &Assembler<'_>,
    operands: &[Operand],
    formal: &[(u32, u32)],
) -> Result<Box<[Passed]>, PtxError> {
    if operands.len() != formal.len() {
        return Err(a.mismatch());
    }
    let mut all = Vec::new();
    for (operand, (callee, bytes)) in operands.iter().zip(formal) {
        let (caller, given) = a.argument(operand)?;
        if given != *bytes {
            return Err(a.mismatch());
        }
        all.push(Passed {
            caller,
            callee: *callee,
            bytes: *bytes,
        });
    }
    Ok(all.into())
}
