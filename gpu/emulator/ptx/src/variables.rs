//! Declarations of variables with what they hold at first: a part of `parser`.

use crate::ast::{Initial, Variable};
use crate::error::PtxError;
use crate::lexer::{Number, Token};
use crate::parser::Parser;
use crate::types::{Space, Type};

/// More than any kernel has, so that a damaged text cannot make us allocate without end.
const MOST_VARIABLE_BYTES: u64 = 1 << 30;

impl Parser<'_> {
    /// What follows the space: `.align 4 .b8 numbers[16], other;`.
    pub(crate) fn variables(
        &mut self,
        space: Space,
        is_extern: bool,
        to: &mut Vec<Variable>,
    ) -> Result<(), PtxError> {
        loop {
            let mut variable = self.variable(space, is_extern)?;
            if self.take('=') {
                self.initialiser(&mut variable)?;
            }
            to.push(variable);
            if !self.take(',') {
                return self.expect(';');
            }
        }
    }

    pub(crate) fn variable(&mut self, space: Space, is_extern: bool) -> Result<Variable, PtxError> {
        let line = self.line();
        let (mut align, mut vector) = (None, 1);
        let element = loop {
            let word = self.word()?;
            match word {
                ".align" => align = Some(self.small()?),
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                // What a pointer points to is a promise to the compiler and no rule.
                ".ptr" | ".global" | ".shared" | ".const" | ".local" => {}
                ".attribute" => return Err(PtxError::not_emulated(line, word)),
                _ => match word.strip_prefix('.').and_then(Type::named) {
                    Some(element) => break element,
                    None if word.starts_with('.') && crate::module::is_other_type(word) => {
                        return Err(PtxError::not_emulated(line, word));
                    }
                    None => {
                        self.at -= 1;
                        return Err(self.unexpected());
                    }
                },
            }
        };
        let name = self.name()?;
        let size = element.bytes() * vector;
        let align = align.unwrap_or(size);
        if !align.is_power_of_two() || align > 4096 {
            return Err(PtxError::syntax(
                line,
                format!("`{name}` has an alignment of {align}, which is no power of two"),
            ));
        }
        let mut bytes = u64::from(size);
        while self.take('[') {
            let elements = if *self.peek() == Token::Mark(']') {
                0
            } else {
                self.integer()?
            };
            self.expect(']')?;
            bytes = bytes.saturating_mul(elements);
        }
        if bytes > MOST_VARIABLE_BYTES {
            return Err(PtxError::syntax(line, format!("`{name}` is too large")));
        }
        Ok(Variable {
            line,
            name,
            space,
            element,
            align,
            bytes,
            is_extern,
            initial: Vec::new(),
        })
    }

    fn initialiser(&mut self, variable: &mut Variable) -> Result<(), PtxError> {
        let mut depth = 0;
        loop {
            match self.peek() {
                Token::Mark('{') => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                Token::Mark('-') => {
                    self.at += 1;
                    let number = match self.next() {
                        Token::Number(Number::Integer(value)) => {
                            Number::Integer(value.wrapping_neg())
                        }
                        Token::Number(Number::Decimal(value)) => Number::Decimal(-value),
                        _ => {
                            self.at -= 1;
                            return Err(self.unexpected());
                        }
                    };
                    variable.initial.push(Initial::Number(number));
                }
                Token::Number(number) => {
                    variable.initial.push(Initial::Number(*number));
                    self.at += 1;
                }
                Token::Word("generic") => {
                    self.at += 1;
                    self.expect('(')?;
                    let name = self.name()?;
                    self.expect(')')?;
                    let offset = self.added()?;
                    variable.initial.push(Initial::Symbol(name, offset));
                }
                Token::Word(_) => {
                    let name = self.name()?;
                    let offset = self.added()?;
                    variable.initial.push(Initial::Symbol(name, offset));
                }
                _ => return Err(self.unexpected()),
            }
            while depth > 0 && self.take('}') {
                depth -= 1;
            }
            if depth == 0 {
                break;
            }
            self.expect(',')?;
        }
        let room = variable.bytes / u64::from(variable.element.bytes());
        if variable.initial.len() as u64 > room {
            return Err(PtxError::syntax(
                variable.line,
                format!("`{}` has more initial values than elements", variable.name),
            ));
        }
        Ok(())
    }

    /// `+8` or nothing.
    pub(crate) fn added(&mut self) -> Result<i64, PtxError> {
        let mut sum = 0_i64;
        loop {
            let negative = if self.take('+') {
                self.take('-')
            } else if self.take('-') {
                true
            } else {
                return Ok(sum);
            };
            let value = self.integer()? as i64;
            sum = sum.wrapping_add(if negative {
                value.wrapping_neg()
            } else {
                value
            });
        }
    }
}
