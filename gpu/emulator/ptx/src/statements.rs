//! The bodies of functions: the second half of `parser`.

use crate::ast::{Instruction, Operand, Statement, StatementKind};
use crate::error::PtxError;
use crate::lexer::{Number, Token};
use crate::parser::Parser;
use crate::types::{Space, Type};

impl Parser<'_> {
    /// From the opening brace to the closing one.
    pub(crate) fn body(&mut self) -> Result<Vec<Statement>, PtxError> {
        self.expect('{')?;
        let mut statements = Vec::new();
        let mut depth = 0_u32;
        loop {
            let line = self.line();
            let kind = match *self.peek() {
                Token::Mark('{') => {
                    self.next();
                    depth += 1;
                    StatementKind::Open
                }
                Token::Mark('}') => {
                    self.next();
                    if depth == 0 {
                        return Ok(statements);
                    }
                    depth -= 1;
                    StatementKind::Close
                }
                Token::Mark(';') => {
                    self.next();
                    continue;
                }
                Token::Word(word) if word.starts_with('.') => {
                    self.next();
                    self.directive(line, word, &mut statements)?;
                    continue;
                }
                Token::Word(word) if *self.peek_second() == Token::Mark(':') => {
                    self.next();
                    self.next();
                    self.label(word)?
                }
                Token::Word(_) | Token::Mark('@') => {
                    StatementKind::Instruction(self.instruction()?)
                }
                _ => return Err(self.unexpected()),
            };
            statements.push(Statement { line, kind });
        }
    }

    fn label(&mut self, name: &str) -> Result<StatementKind, PtxError> {
        let line = self.line();
        if self.take_word(".callprototype") || self.take_word(".calltargets") {
            return Err(PtxError::not_emulated(line, "a call through a register"));
        }
        if !self.take_word(".branchtargets") {
            return Ok(StatementKind::Label(name.to_owned()));
        }
        let mut targets = vec![self.name()?];
        while self.take(',') {
            targets.push(self.name()?);
        }
        self.expect(';')?;
        Ok(StatementKind::Targets(name.to_owned(), targets))
    }

    fn directive(
        &mut self,
        line: u32,
        word: &str,
        to: &mut Vec<Statement>,
    ) -> Result<(), PtxError> {
        match word {
            ".reg" => self.registers(line, to),
            ".pragma" => self.pragma(),
            ".loc" | ".file" => self.skip_numbers(),
            ".local" | ".shared" | ".param" | ".const" | ".global" => {
                let space = Space::named(word.trim_start_matches('.'));
                let space = space.ok_or_else(|| self.unexpected())?;
                let mut variables = Vec::new();
                self.variables(space, false, &mut variables)?;
                to.extend(variables.into_iter().map(|variable| Statement {
                    line,
                    kind: StatementKind::Variable(variable),
                }));
                Ok(())
            }
            _ => Err(PtxError::not_emulated(line, word)),
        }
    }

    fn registers(&mut self, line: u32, to: &mut Vec<Statement>) -> Result<(), PtxError> {
        let word = self.word()?;
        let Some(kind) = word.strip_prefix('.').and_then(Type::named) else {
            return Err(PtxError::not_emulated(line, format!(".reg {word}")));
        };
        loop {
            let name = self.name()?;
            let count = if self.take('<') {
                let count = self.small()?;
                self.expect('>')?;
                Some(count)
            } else {
                None
            };
            to.push(Statement {
                line,
                kind: StatementKind::Registers { kind, name, count },
            });
            if !self.take(',') {
                return self.expect(';');
            }
        }
    }

    fn instruction(&mut self) -> Result<Instruction, PtxError> {
        let guard = if self.take('@') {
            let negated = self.take('!');
            Some((self.name()?, negated))
        } else {
            None
        };
        let opcode = self.name()?;
        let mut operands = Vec::new();
        while !self.take(';') {
            if !operands.is_empty() {
                self.expect(',')?;
            }
            operands.push(self.operand(0)?);
        }
        Ok(Instruction {
            guard,
            opcode,
            operands,
        })
    }

    /// `depth` bounds the recursion, whatever the text holds.
    fn operand(&mut self, depth: u32) -> Result<Operand, PtxError> {
        let first = self.single(depth)?;
        if self.take('|') {
            let second = self.single(depth)?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    fn single(&mut self, depth: u32) -> Result<Operand, PtxError> {
        if depth > 2 {
            return Err(self.unexpected());
        }
        match *self.peek() {
            Token::Mark('{') => {
                self.next();
                Ok(Operand::Vector(self.operands_until('}', depth)?))
            }
            Token::Mark('(') => {
                self.next();
                Ok(Operand::List(self.operands_until(')', depth)?))
            }
            Token::Mark('[') => {
                self.next();
                let address = self.address()?;
                self.expect(']')?;
                Ok(address)
            }
            Token::Mark('!') => {
                self.next();
                Ok(Operand::Not(self.name()?))
            }
            Token::Mark('-') => {
                self.next();
                match self.next() {
                    Token::Number(Number::Integer(value)) => {
                        Ok(Operand::Number(Number::Integer(value.wrapping_neg())))
                    }
                    Token::Number(Number::Decimal(value)) => {
                        Ok(Operand::Number(Number::Decimal(-value)))
                    }
                    _ => Err(self.unexpected()),
                }
            }
            Token::Number(number) => {
                self.next();
                Ok(Operand::Number(number))
            }
            _ => {
                let name = self.name()?;
                Ok(Operand::Name(name, self.added()?))
            }
        }
    }

    fn operands_until(&mut self, end: char, depth: u32) -> Result<Vec<Operand>, PtxError> {
        let mut operands = Vec::new();
        while !self.take(end) {
            if !operands.is_empty() {
                self.expect(',')?;
            }
            operands.push(self.operand(depth + 1)?);
        }
        Ok(operands)
    }

    fn address(&mut self) -> Result<Operand, PtxError> {
        if let Token::Number(Number::Integer(number)) = *self.peek() {
            self.next();
            return Ok(Operand::Address(None, number as i64));
        }
        let base = self.name()?;
        Ok(Operand::Address(Some(base), self.added()?))
    }
}
