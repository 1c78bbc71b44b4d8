//! A tree to a module: names get their meaning, functions their code, kernels their layout of shared memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Global, GlobalSpace, Kernel, Module, Parameter, Relocation};
use crate::assemble::assemble;
use crate::ast::{Function, Initial, Tree, Variable};
use crate::code::{Code, Constant, Op};
use crate::error::PtxError;
use crate::lexer::Number;
use crate::names::{ModuleNames, ModuleSymbol, SharedVariable, Signature};
use crate::types::Space;

/// Shared memory of fixed size that a kernel may have.
const MOST_STATIC_SHARED_BYTES: u32 = 48 << 10;

pub(super) fn build(text: &str, tree: Tree) -> Result<Module, PtxError> {
    let mut names = ModuleNames::default();
    let globals = name_variables(&tree.variables, &mut names)?;
    let bodies = tree.functions.iter();
    let functions: Vec<&Function> = bodies.filter(|function| function.body.is_some()).collect();
    name_functions(&tree.functions, &functions, &mut names)?;
    let until_zero = text.split('\0').next().unwrap_or_default();
    let mut code = Code {
        ins: Vec::new(),
        functions: Vec::new(),
        global_names: globals.iter().map(|global| global.name.clone()).collect(),
        lines: until_zero.lines().map(str::to_owned).collect(),
    };
    for (number, function) in functions.iter().enumerate() {
        let signature = names.signatures.get(number).cloned().unwrap_or_default();
        names.current = number;
        let assembled = assemble(&mut names, function, &signature, &mut code.ins)?;
        code.functions.push(assembled);
    }
    let code = Arc::new(code);
    let mut kernels = BTreeMap::new();
    for (number, function) in functions.iter().enumerate() {
        if function.is_entry {
            let kernel = kernel(&code, &names, number, function)?;
            kernels.insert(function.name.clone(), kernel);
        }
    }
    Ok(Module {
        version: tree.version,
        target: tree.target,
        globals,
        kernels,
    })
}

fn name_variables(
    variables: &[Variable],
    names: &mut ModuleNames,
) -> Result<Vec<Global>, PtxError> {
    let mut globals = Vec::new();
    for variable in variables {
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
        let old = names.symbols.insert(variable.name.clone(), symbol);
        if old.is_some() && !variable.is_extern {
            let message = format!("Duplicate definition of variable '{}'", variable.name);
            return Err(PtxError::syntax(variable.line, message));
        }
    }
    Ok(globals)
}

/// Functions that have bodies are numbered; those that are only declared may be called by nobody.
fn name_functions(
    declared: &[Function],
    functions: &[&Function],
    names: &mut ModuleNames,
) -> Result<(), PtxError> {
    for function in declared {
        let symbol = names.symbols.entry(function.name.clone());
        symbol.or_insert(ModuleSymbol::Missing);
    }
    for (number, function) in functions.iter().enumerate() {
        let symbol = ModuleSymbol::Function(number);
        let old = names.symbols.insert(function.name.clone(), symbol);
        if !matches!(old, None | Some(ModuleSymbol::Missing)) {
            let message = format!("Duplicate definition of function '{}'", function.name);
            return Err(PtxError::syntax(function.line, message));
        }
        names.signatures.push(Signature::of(function)?);
    }
    Ok(())
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
