//! Operands of instructions: registers, literals, addresses, and whether they may stand where they stand.

use super::{Assembler, Symbol};
use crate::ast::Operand;
use crate::code::{Address, Constant, Pred, PredUse, Reg};
use crate::error::PtxError;
use crate::lexer::Number;
use crate::names::ModuleSymbol;
use crate::special;
use crate::types::{Space, Type};

impl Assembler<'_> {
    pub(super) fn unknown(&self, name: &str) -> PtxError {
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

    pub(super) fn register(&self, operand: &Operand) -> Result<(Type, Reg), PtxError> {
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
