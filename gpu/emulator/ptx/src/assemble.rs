//! Functions of a tree to code: names become rows and offsets. Called by `module`; what opcodes mean is in `opcode`.

use std::collections::BTreeMap;

use crate::ast::{Function, Instruction, Operand, StatementKind, Variable};
use crate::code::{Address, Constant, FunctionCode, Ins, Op, Pred, PredUse, Reg};
use crate::error::PtxError;
use crate::lexer::Number;
use crate::opcode;
use crate::special;
use crate::types::{Space, Type};

/// Registers of one kind in one function: as many as a `u16` numbers, less some room.
const MOST_REGISTERS: u32 = 60_000;
/// Local memory of one frame.
const MOST_LOCAL_BYTES: u64 = 512 << 10;

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
pub(crate) struct ModuleNames {
    pub(crate) symbols: BTreeMap<String, ModuleSymbol>,
    pub(crate) signatures: Vec<Signature>,
    pub(crate) shared: Vec<SharedVariable>,
    /// The function that is being assembled.
    pub(crate) current: usize,
}

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

    fn unknown(&self, name: &str) -> PtxError {
        self.error(format!("Unknown symbol '{name}'"))
    }

    pub(crate) fn mismatch(&self) -> PtxError {
        self.error("Arguments mismatch for instruction: an operand has not the type that it must have here")
    }

    pub(crate) fn pred(&self, name: &str) -> Result<Pred, PtxError> {
        match self.lookup(name) {
            Some(Symbol::Predicate(pred)) => Ok(*pred),
            Some(_) => Err(self.mismatch()),
            None => Err(self.unknown(name)),
        }
    }

    pub(crate) fn pred_use(&self, operand: &Operand) -> Result<PredUse, PtxError> {
        let (name, negated) = match operand {
            Operand::Name(name, 0) => (name, false),
            Operand::Not(name) => (name, true),
            _ => return Err(self.mismatch()),
        };
        Ok(PredUse {
            pred: self.pred(name)?,
            negated,
        })
    }

    /// A predicate that is written; `_` throws the result away.
    pub(crate) fn pred_or_sink(&self, operand: &Operand) -> Result<Option<Pred>, PtxError> {
        match operand {
            Operand::Name(name, 0) if name == "_" => Ok(None),
            Operand::Name(name, 0) => self.pred(name).map(Some),
            _ => Err(self.mismatch()),
        }
    }

    pub(crate) fn constant(&mut self, constant: Constant) -> Result<Reg, PtxError> {
        if let Some(reg) = self.constants.get(&constant) {
            return Ok(*reg);
        }
        let reg = self.new_register()?;
        self.constants.insert(constant, reg);
        Ok(reg)
    }

    fn immediate(&self, number: Number, ty: Type) -> Result<u64, PtxError> {
        Ok(match (number, ty) {
            (Number::Integer(_), Type::F32 | Type::F64) | (_, Type::Pred) => {
                return Err(self.mismatch());
            }
            (Number::Integer(value), _) => value & ty.mask(),
            // Floats stand where floats are wanted, or bits.
            (Number::Single(_) | Number::Double(_) | Number::Decimal(_), _)
                if !ty.is_float() && !ty.is_bits() =>
            {
                return Err(self.mismatch());
            }
            (Number::Single(bits), Type::F64) => f64::from(f32::from_bits(bits)).to_bits(),
            (Number::Single(bits), _) if ty.bytes() == 4 => u64::from(bits),
            (Number::Double(bits), Type::F32) => u64::from((f64::from_bits(bits) as f32).to_bits()),
            (Number::Double(bits), _) if ty.bytes() == 8 => bits,
            (Number::Decimal(value), Type::F32 | Type::B32) => u64::from((value as f32).to_bits()),
            (Number::Decimal(value), Type::F64 | Type::B64) => value.to_bits(),
            _ => return Err(self.mismatch()),
        })
    }

    /// The row of a source whose type is `ty`.
    pub(crate) fn src(&mut self, operand: &Operand, ty: Type) -> Result<Reg, PtxError> {
        self.source(operand, ty, false)
    }

    /// The same, but the register may be wider than `ty`, as for stores and conversions.
    pub(crate) fn wide_src(&mut self, operand: &Operand, ty: Type) -> Result<Reg, PtxError> {
        self.source(operand, ty, true)
    }

    fn source(&mut self, operand: &Operand, ty: Type, wider: bool) -> Result<Reg, PtxError> {
        let (name, added) = match operand {
            Operand::Number(number) => {
                let value = self.immediate(*number, ty)?;
                return self.constant(Constant::Value(value));
            }
            Operand::Name(name, added) => (name, *added),
            _ => return Err(self.mismatch()),
        };
        if let Some(Symbol::Register(register, reg)) = self.lookup(name) {
            let fits = ty.takes(*register) || wider && wide_enough(ty, *register);
            return if fits && added == 0 {
                Ok(*reg)
            } else {
                Err(self.mismatch())
            };
        }
        if name == "WARP_SZ" {
            return self.constant(Constant::Value(32));
        }
        if let Some((special, register)) = special::named(name) {
            if !self.takes_special {
                return Err(self.error(format!(
                    "Special register argument '{name}' not allowed for this instruction"
                )));
            }
            let narrow = register.bytes() == 4 && ty.bytes() == 2;
            let fits = ty.takes(register) || wider && wide_enough(ty, register) || narrow;
            return if fits {
                self.constant(Constant::Special(special))
            } else {
                Err(self.mismatch())
            };
        }
        let (_, constant) = self.symbol_address(name, added)?;
        let wanted = match constant {
            Constant::Global(..) => ty.bytes() == 8,
            _ => ty.bytes() >= 4,
        };
        if !wanted || ty.is_float() {
            return Err(self.mismatch());
        }
        self.constant(constant)
    }

    /// A register that is written.
    pub(crate) fn dst(&self, operand: &Operand, ty: Type) -> Result<Reg, PtxError> {
        let (register, reg) = self.register(operand)?;
        if !ty.takes(register) {
            return Err(self.mismatch());
        }
        Ok(reg)
    }

    /// A register that is written and may be wider than `ty`.
    pub(crate) fn wide_dst(&self, operand: &Operand, ty: Type) -> Result<(Type, Reg), PtxError> {
        let (register, reg) = self.register(operand)?;
        if !ty.takes(register) && !wide_enough(ty, register) {
            return Err(self.mismatch());
        }
        Ok((register, reg))
    }

    fn register(&self, operand: &Operand) -> Result<(Type, Reg), PtxError> {
        let Operand::Name(name, 0) = operand else {
            return Err(self.mismatch());
        };
        match self.lookup(name) {
            Some(Symbol::Register(ty, reg)) => Ok((*ty, *reg)),
            Some(_) => Err(self.mismatch()),
            None => Err(self.unknown(name)),
        }
    }

    /// The space and address of a variable.
    fn symbol_address(&self, name: &str, added: i64) -> Result<(Space, Constant), PtxError> {
        match self.lookup(name) {
            Some(Symbol::Variable(space, constant)) => {
                return Ok((*space, constant.plus(added)));
            }
            Some(Symbol::Argument { offset, .. }) => {
                return Ok((Space::Local, Constant::Local(i64::from(*offset) + added)));
            }
            Some(_) => return Err(self.mismatch()),
            None => {}
        }
        match self.names.symbols.get(name) {
            Some(ModuleSymbol::Global(number, space)) => {
                Ok((*space, Constant::Global(*number, added)))
            }
            Some(ModuleSymbol::Shared(number)) => {
                Ok((Space::Shared, Constant::Shared(*number, added)))
            }
            Some(ModuleSymbol::DynamicShared) => {
                Ok((Space::Shared, Constant::DynamicShared(added)))
            }
            Some(ModuleSymbol::Function(_) | ModuleSymbol::Missing) => Err(PtxError::not_emulated(
                self.line,
                "the address of a function",
            )),
            None => Err(self.unknown(name)),
        }
    }

    /// An address operand of an instruction for `space`.
    pub(crate) fn address(&mut self, operand: &Operand, space: Space) -> Result<Address, PtxError> {
        let Operand::Address(base, offset) = operand else {
            return Err(self.mismatch());
        };
        let Some(base) = base else {
            if space != Space::Local {
                return Err(self.error("Immediate addresses allowed only for .local state space"));
            }
            return Ok(Address {
                space,
                base: 0,
                offset: *offset,
            });
        };
        if let Some(Symbol::Register(register, reg)) = self.lookup(base) {
            let fits = register.bytes() == 8
                || register.bytes() == 4 && space != Space::Generic && space != Space::Global;
            if !fits || register.is_float() {
                return Err(self.mismatch());
            }
            let base = *reg;
            return Ok(Address {
                space: self.parameter_space(space),
                base,
                offset: *offset,
            });
        }
        let (lies_in, constant) = self.symbol_address(base, *offset)?;
        let right = match space {
            // A name says where it lies.
            Space::Generic => lies_in != Space::Param,
            Space::Param => matches!(lies_in, Space::Param | Space::Local),
            other => other == lies_in,
        };
        if !right {
            return Err(self.error(format!(
                "`{base}` does not lie in the state space of the instruction"
            )));
        }
        let base = self.constant(constant)?;
        Ok(Address {
            space: lies_in,
            base,
            offset: 0,
        })
    }

    /// Parameters of functions lie in local memory, those of kernels by themselves.
    fn parameter_space(&self, space: Space) -> Space {
        match space {
            Space::Param if !self.is_entry => Space::Local,
            other => other,
        }
    }

    /// The offset and size in the frame of an argument or result of a call.
    pub(crate) fn argument(&self, operand: &Operand) -> Result<(u32, u32), PtxError> {
        let Operand::Name(name, 0) = operand else {
            return Err(PtxError::not_emulated(
                self.line,
                "a call with operands that are no .param variables",
            ));
        };
        match self.lookup(name) {
            Some(Symbol::Argument { offset, bytes }) => Ok((*offset, *bytes)),
            Some(_) => Err(PtxError::not_emulated(
                self.line,
                "a call with operands that are no .param variables",
            )),
            None => Err(self.unknown(name)),
        }
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

impl Constant {
    fn plus(self, added: i64) -> Self {
        match self {
            Self::Value(value) => Self::Value(value.wrapping_add(added as u64)),
            Self::Global(number, so_far) => Self::Global(number, so_far.wrapping_add(added)),
            Self::Shared(number, so_far) => Self::Shared(number, so_far.wrapping_add(added)),
            Self::Local(offset) => Self::Local(offset.wrapping_add(added)),
            Self::DynamicShared(so_far) => Self::DynamicShared(so_far.wrapping_add(added)),
            Self::Special(special) => Self::Special(special),
        }
    }
}

fn wide_enough(ty: Type, register: Type) -> bool {
    register != Type::Pred
        && ty != Type::Pred
        && register.bytes() > ty.bytes()
        && !(ty.is_float() && register.is_float())
        && !(!ty.is_float() && !ty.is_bits() && register.is_float())
}
