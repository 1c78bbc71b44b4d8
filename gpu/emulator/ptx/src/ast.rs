//! A module as it was written: names are not resolved, opcodes not understood. Made by `parser`, read by `assemble`.

use crate::lexer::Number;
use crate::types::{Space, Type};

#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) version: (u32, u32),
    pub(crate) target: String,
    pub(crate) variables: Vec<Variable>,
    pub(crate) functions: Vec<Function>,
}

/// A variable of any space, or a parameter.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) line: u32,
    pub(crate) name: String,
    pub(crate) space: Space,
    pub(crate) element: Type,
    pub(crate) align: u32,
    /// All elements together; 0 for arrays without a length.
    pub(crate) bytes: u64,
    pub(crate) is_extern: bool,
    pub(crate) initial: Vec<Initial>,
}

/// One element of an initialiser.
#[derive(Debug, Clone)]
pub(crate) enum Initial {
    Number(Number),
    /// The address of a variable, with something added.
    Symbol(String, i64),
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) line: u32,
    pub(crate) name: String,
    pub(crate) is_entry: bool,
    pub(crate) returns: Vec<Variable>,
    pub(crate) parameters: Vec<Variable>,
    pub(crate) max_threads: Option<u32>,
    /// None for a declaration.
    pub(crate) body: Option<Vec<Statement>>,
}

#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) line: u32,
    pub(crate) kind: StatementKind,
}

#[derive(Debug)]
pub(crate) enum StatementKind {
    Open,
    Close,
    Label(String),
    /// `.branchtargets` behind its label.
    Targets(String, Vec<String>),
    Registers {
        kind: Type,
        name: String,
        /// For `name<count>`.
        count: Option<u32>,
    },
    Variable(Variable),
    Instruction(Instruction),
}

#[derive(Debug)]
pub(crate) struct Instruction {
    /// The predicate, and whether it is negated.
    pub(crate) guard: Option<(String, bool)>,
    pub(crate) opcode: String,
    pub(crate) operands: Vec<Operand>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    /// A register, special register, symbol or label; something may be added to a symbol.
    Name(String, i64),
    /// `!%p1`.
    Not(String),
    Number(Number),
    Vector(Vec<Operand>),
    /// `[base+offset]`; the base is missing in `[16]`.
    Address(Option<String>, i64),
    /// `(a, b)` of a call.
    List(Vec<Operand>),
    /// `%r1|%p1`.
    Pair(Box<Operand>, Box<Operand>),
}
