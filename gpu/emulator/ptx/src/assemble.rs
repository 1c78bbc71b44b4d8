//! Functions of a tree to code: names become rows and offsets. Called by `module`; what opcodes mean is in `opcode`.

mod operands;

use std::collections::BTreeMap;

use crate::ast::{Function, Instruction, StatementKind, Variable};
use crate::code::{Constant, FunctionCode, Ins, Op, Pred, PredUse, Reg};
use crate::error::PtxError;
use crate::names::{ModuleNames, SharedVariable, Signature};
use crate::opcode;
use crate::types::{Space, Type};

/// Registers of one kind in one function: as many as a `u16` numbers, less some room.
const MOST_REGISTERS: u32 = 60_000;
/// Local memory of one frame.
const MOST_LOCAL_BYTES: u64 = 512 << 10;

#[derive(Debug, Clone)]
enum Symbol {
    Register(Type, Reg),
    Predicate(Pred),
    Variable(Space, Constant),
    /// A parameter variable of a call, with its offset in the frame.
    Argument {
        offset: u32,
        bytes: u32,
    },
    Targets(Vec<String>),
}

/// A branch whose label is not placed yet.
struct Fixup {
    at: usize,
    line: u32,
    labels: Vec<String>,
    scopes: Vec<u32>,
}

pub(crate) struct Assembler<'a> {
    pub(crate) names: &'a mut ModuleNames,
    is_entry: bool,
    pub(crate) line: u32,
    scopes: Vec<(u32, BTreeMap<String, Symbol>)>,
    scopes_made: u32,
    labels: BTreeMap<(u32, String), u32>,
    fixups: Vec<Fixup>,
    code: &'a mut Vec<Ins>,
    registers: u32,
    predicates: u32,
    constants: BTreeMap<Constant, Reg>,
    local_bytes: u32,
    /// Whether the instruction may have special registers among its sources.
    takes_special: bool,
    /// The predicate that holds everywhere, if one is wanted.
    truth: Option<Pred>,
}

/// Appends the code of `function` to `code`.
pub(crate) fn assemble(
    names: &mut ModuleNames,
    function: &Function,
    signature: &Signature,
    code: &mut Vec<Ins>,
) -> Result<FunctionCode, PtxError> {
    let entry = code.len() as u32;
    let mut assembler = Assembler {
        names,
        is_entry: function.is_entry,
        line: function.line,
        scopes: vec![(0, BTreeMap::new())],
        scopes_made: 1,
        labels: BTreeMap::new(),
        fixups: Vec::new(),
        code,
        registers: 1,
        predicates: 0,
        constants: BTreeMap::from([(Constant::Value(0), 0)]),
        local_bytes: if function.is_entry {
            0
        } else {
            signature.bytes
        },
        takes_special: false,
        truth: None,
    };
    assembler.declare_parameters(function, signature)?;
    for statement in function.body.iter().flatten() {
        assembler.line = statement.line;
        assembler.statement(&statement.kind)?;
    }
    assembler.emit(None, Op::Return);
    assembler.resolve_labels()?;
    Ok(FunctionCode {
        entry,
        end: assembler.code.len() as u32,
        registers: assembler.registers as u16,
        predicates: assembler.predicates as u16,
        constants: assembler
            .constants
            .iter()
            .map(|(constant, reg)| (*reg, *constant))
            .collect(),
        truth: assembler.truth,
        local_bytes: assembler.local_bytes.next_multiple_of(16),
    })
}

impl Assembler<'_> {
    pub(crate) fn error(&self, message: impl Into<String>) -> PtxError {
        PtxError::syntax(self.line, message)
    }

    fn declare(&mut self, name: &str, symbol: Symbol) -> Result<(), PtxError> {
        let duplicate = match self.scopes.last_mut() {
            Some((_, scope)) => scope.insert(name.to_owned(), symbol).is_some(),
            None => false,
        };
        if duplicate {
            return Err(self.error(format!("Duplicate definition of variable '{name}'")));
        }
        Ok(())
    }

    fn declare_parameters(
        &mut self,
        function: &Function,
        signature: &Signature,
    ) -> Result<(), PtxError> {
        let all = function.parameters.iter().zip(&signature.parameters);
        let all = all.chain(function.returns.iter().zip(&signature.returns));
        for (variable, (offset, bytes)) in all {
            let symbol = if function.is_entry {
                Symbol::Variable(Space::Param, Constant::Value(u64::from(*offset)))
            } else {
                Symbol::Argument {
                    offset: *offset,
                    bytes: *bytes,
                }
            };
            self.declare(&variable.name, symbol)?;
        }
        Ok(())
    }

    /// A register that no text names.
    pub(crate) fn scratch(&mut self) -> Result<Reg, PtxError> {
        self.new_register()
    }

    /// An instruction in front of the one that is being assembled.
    pub(crate) fn emit_before(&mut self, op: Op) {
        self.emit(None, op);
    }

    /// A predicate that is always so.
    pub(crate) fn constant_predicate(&mut self, value: bool) -> Result<PredUse, PtxError> {
        let pred = match self.truth {
            Some(pred) => pred,
            None => {
                if self.predicates >= MOST_REGISTERS {
                    return Err(self.error("the function has too many registers"));
                }
                self.predicates += 1;
                let pred = (self.predicates - 1) as Pred;
                self.truth = Some(pred);
                pred
            }
        };
        Ok(PredUse {
            pred,
            negated: !value,
        })
    }

    fn emit(&mut self, guard: Option<PredUse>, op: Op) {
        self.code.push(Ins {
            line: self.line,
            guard,
            op,
        });
    }

    fn statement(&mut self, kind: &StatementKind) -> Result<(), PtxError> {
        match kind {
            StatementKind::Open => {
                self.scopes.push((self.scopes_made, BTreeMap::new()));
                self.scopes_made += 1;
            }
            StatementKind::Close => {
                self.scopes.pop();
            }
            StatementKind::Label(name) => {
                let scope = self.scopes.last().map_or(0, |(id, _)| *id);
                let at = self.code.len() as u32;
                if self.labels.insert((scope, name.clone()), at).is_some() {
                    return Err(self.error(format!("Duplicate definition of label '{name}'")));
                }
            }
            StatementKind::Targets(name, targets) => {
                self.declare(name, Symbol::Targets(targets.clone()))?;
            }
            StatementKind::Registers { kind, name, count } => {
                self.declare_registers(*kind, name, *count)?;
            }
            StatementKind::Variable(variable) => self.declare_variable(variable)?,
            StatementKind::Instruction(instruction) => self.instruction(instruction)?,
        }
        Ok(())
    }

    fn declare_registers(
        &mut self,
        kind: Type,
        name: &str,
        count: Option<u32>,
    ) -> Result<(), PtxError> {
        let so_far = self.registers + self.predicates;
        if count.unwrap_or(1) > MOST_REGISTERS - so_far.min(MOST_REGISTERS) {
            return Err(self.error("the function has too many registers"));
        }
        let Some(count) = count else {
            return self.declare_register(kind, name);
        };
        for number in 0..count {
            self.declare_register(kind, &format!("{name}{number}"))?;
        }
        Ok(())
    }

    fn declare_register(&mut self, kind: Type, name: &str) -> Result<(), PtxError> {
        let symbol = if kind == Type::Pred {
            self.predicates += 1;
            Symbol::Predicate((self.predicates - 1) as Pred)
        } else {
            Symbol::Register(kind, self.new_register()?)
        };
        self.declare(name, symbol)
    }

    fn new_register(&mut self) -> Result<Reg, PtxError> {
        if self.registers >= MOST_REGISTERS {
            return Err(self.error("the function has too many registers"));
        }
        self.registers += 1;
        Ok((self.registers - 1) as Reg)
    }

    fn declare_variable(&mut self, variable: &Variable) -> Result<(), PtxError> {
        let symbol = match variable.space {
            Space::Shared => {
                self.names.shared.push(SharedVariable {
                    bytes: variable.bytes,
                    align: variable.align,
                    owner: Some(self.names.current),
                });
                let number = self.names.shared.len() - 1;
                Symbol::Variable(Space::Shared, Constant::Shared(number, 0))
            }
            Space::Local | Space::Param => {
                let offset = u64::from(self.local_bytes.next_multiple_of(variable.align));
                let end = offset + variable.bytes;
                if end > MOST_LOCAL_BYTES {
                    return Err(
                        self.error(format!("`{}` is too large for local memory", variable.name))
                    );
                }
                self.local_bytes = end as u32;
                if variable.space == Space::Local {
                    Symbol::Variable(Space::Local, Constant::Local(offset as i64))
                } else {
                    Symbol::Argument {
                        offset: offset as u32,
                        bytes: variable.bytes as u32,
                    }
                }
            }
            _ => {
                return Err(PtxError::not_emulated(
                    self.line,
                    "a global variable within a function",
                ));
            }
        };
        self.declare(&variable.name, symbol)
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<(), PtxError> {
        let guard = match &instruction.guard {
            Some((name, negated)) => Some(PredUse {
                pred: self.pred(name)?,
                negated: *negated,
            }),
            None => None,
        };
        self.takes_special = matches!(instruction.opcode.split('.').next(), Some("mov" | "cvt"));
        if let Some(op) = opcode::assemble(self, instruction)? {
            self.emit(guard, op);
        }
        Ok(())
    }

    fn lookup(&self, name: &str) -> Option<&Symbol> {
        let mut scopes = self.scopes.iter().rev();
        scopes.find_map(|(_, scope)| scope.get(name))
    }

    /// A branch to come: its labels are placed at the end.
    pub(crate) fn fix_later(&mut self, labels: Vec<String>) {
        let at = self.code.len();
        let scopes = self.scopes.iter().rev().map(|(id, _)| *id).collect();
        self.fixups.push(Fixup {
            at,
            line: self.line,
            labels,
            scopes,
        });
    }

    pub(crate) fn targets(&self, name: &str) -> Result<Vec<String>, PtxError> {
        match self.lookup(name) {
            Some(Symbol::Targets(targets)) => Ok(targets.clone()),
            _ => Err(self.unknown(name)),
        }
    }

    fn resolve_labels(&mut self) -> Result<(), PtxError> {
        for fixup in std::mem::take(&mut self.fixups) {
            let mut places = Vec::new();
            for label in &fixup.labels {
                let mut scopes = fixup.scopes.iter();
                let place = scopes.find_map(|id| self.labels.get(&(*id, label.clone())));
                places.push(*place.ok_or_else(|| {
                    PtxError::syntax(fixup.line, format!("Unknown symbol '{label}'"))
                })?);
            }
            match self.code.get_mut(fixup.at).map(|ins| &mut ins.op) {
                Some(Op::Branch { to }) => *to = places.first().copied().unwrap_or(0),
                Some(Op::BranchIndexed { to, .. }) => *to = places.into(),
                _ => {}
            }
        }
        Ok(())
    }
}
