//! PTX text to a tree: directives, variables, functions and their statements. Called by `module`; knows no opcode.

use crate::ast::{Function, Tree, Variable};
use crate::error::{PtxError, PtxErrorKind};
use crate::lexer::{Number, Token, tokens};
use crate::types::Space;

pub(crate) fn parse(text: &str) -> Result<Tree, PtxError> {
    let tokens = tokens(text);
    // Drivers look at the first directive before anything else.
    let first = tokens
        .as_ref()
        .ok()
        .and_then(|tokens| tokens.first())
        .map(|(_, token)| token.clone());
    let starts = first == Some(Token::Word(".version"));
    let damaged_later = tokens.is_err() && text.contains(".version");
    if !starts && !damaged_later {
        return Err(PtxError {
            line: 1,
            kind: PtxErrorKind::NotPtx,
            message: "Missing .version directive at start of file".to_owned(),
        });
    }
    let mut parser = Parser {
        tokens: tokens?,
        at: 0,
    };
    parser.module()
}

pub(crate) struct Parser<'a> {
    tokens: Vec<(u32, Token<'a>)>,
    pub(crate) at: usize,
}

/// What stands before a variable or function.
#[derive(Default)]
struct Linkage {
    is_extern: bool,
}

impl<'a> Parser<'a> {
    pub(crate) fn peek(&self) -> &Token<'a> {
        self.tokens
            .get(self.at)
            .map_or(&Token::End, |(_, token)| token)
    }

    pub(crate) fn peek_second(&self) -> &Token<'a> {
        self.tokens
            .get(self.at + 1)
            .map_or(&Token::End, |(_, token)| token)
    }

    pub(crate) fn line(&self) -> u32 {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens
            .get(self.at.min(last))
            .map_or(1, |(line, _)| *line)
    }

    pub(crate) fn next(&mut self) -> Token<'a> {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    /// What ptxas says of a word that cannot stand here.
    pub(crate) fn unexpected(&self) -> PtxError {
        let near = match self.peek() {
            Token::Word(word) | Token::Text(word) => (*word).to_owned(),
            Token::Number(Number::Integer(number)) => number.to_string(),
            Token::Number(number) => format!("{number:?}"),
            Token::Mark(mark) => mark.to_string(),
            Token::End => "end of file".to_owned(),
        };
        PtxError::syntax(
            self.line(),
            format!("Parsing error near '{near}': syntax error"),
        )
    }

    pub(crate) fn take(&mut self, mark: char) -> bool {
        let is = *self.peek() == Token::Mark(mark);
        self.at += usize::from(is);
        is
    }

    pub(crate) fn take_word(&mut self, word: &str) -> bool {
        let is = *self.peek() == Token::Word(word);
        self.at += usize::from(is);
        is
    }

    pub(crate) fn expect(&mut self, mark: char) -> Result<(), PtxError> {
        if self.take(mark) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    pub(crate) fn word(&mut self) -> Result<&'a str, PtxError> {
        match *self.peek() {
            Token::Word(word) => {
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.unexpected()),
        }
    }

    pub(crate) fn name(&mut self) -> Result<String, PtxError> {
        match *self.peek() {
            Token::Word(word) if !word.starts_with('.') => {
                self.at += 1;
                Ok(word.to_owned())
            }
            _ => Err(self.unexpected()),
        }
    }

    pub(crate) fn integer(&mut self) -> Result<u64, PtxError> {
        match *self.peek() {
            Token::Number(Number::Integer(value)) => {
                self.at += 1;
                Ok(value)
            }
            _ => Err(self.unexpected()),
        }
    }

    pub(crate) fn small(&mut self) -> Result<u32, PtxError> {
        let line = self.line();
        u32::try_from(self.integer()?)
            .map_err(|_| PtxError::syntax(line, "a number is too large for its place"))
    }

    fn module(&mut self) -> Result<Tree, PtxError> {
        let mut tree = Tree {
            version: self.version()?,
            ..Tree::default()
        };
        if !self.take_word(".target") {
            return Err(PtxError::syntax(self.line(), "Missing .target directive"));
        }
        tree.target = self.name()?;
        while self.take(',') {
            self.name()?;
        }
        while *self.peek() != Token::End {
            self.item(&mut tree)?;
        }
        Ok(tree)
    }

    fn version(&mut self) -> Result<(u32, u32), PtxError> {
        self.at += 1;
        let line = self.line();
        let bad = || PtxError::syntax(line, "`.version` wants two numbers, as in 8.0");
        let Token::Number(Number::Decimal(version)) = self.next() else {
            return Err(bad());
        };
        // One digit behind the point is what versions have.
        let tenths = (version * 10.0).round();
        if !(0.0..1e6).contains(&tenths) {
            return Err(bad());
        }
        Ok((tenths as u32 / 10, tenths as u32 % 10))
    }

    fn item(&mut self, tree: &mut Tree) -> Result<(), PtxError> {
        let mut linkage = Linkage::default();
        loop {
            let line = self.line();
            let word = self.word()?;
            match word {
                ".extern" => linkage.is_extern = true,
                ".visible" | ".weak" | ".common" => {}
                ".address_size" => {
                    if self.integer()? != 64 {
                        return Err(PtxError::syntax(line, "`.address_size` must be 64"));
                    }
                    return Ok(());
                }
                ".pragma" => return self.pragma(),
                ".file" | ".loc" => return self.skip_numbers(),
                ".section" => return self.skip_section(),
                ".entry" | ".func" => {
                    tree.functions.push(self.function(line, word == ".entry")?);
                    return Ok(());
                }
                ".global" | ".const" | ".shared" => {
                    let space = Space::named(word.trim_start_matches('.'))
                        .ok_or_else(|| self.unexpected())?;
                    self.variables(space, linkage.is_extern, &mut tree.variables)?;
                    return Ok(());
                }
                ".alias" | ".tex" | ".surf" | ".managed" => {
                    return Err(PtxError::not_emulated(line, word));
                }
                _ => {
                    self.at -= 1;
                    return Err(self.unexpected());
                }
            }
        }
    }

    pub(crate) fn pragma(&mut self) -> Result<(), PtxError> {
        loop {
            let Token::Text(_) = self.next() else {
                self.at -= 1;
                return Err(self.unexpected());
            };
            if !self.take(',') {
                return self.expect(';');
            }
        }
    }

    /// `.file` and `.loc`, which have no end of their own.
    pub(crate) fn skip_numbers(&mut self) -> Result<(), PtxError> {
        loop {
            match self.peek() {
                Token::Number(_) | Token::Text(_) | Token::Mark(',' | '+') => self.at += 1,
                Token::Word("function_name" | "inlined_at") => self.at += 1,
                Token::Word(word) if word.starts_with("$L__info") => self.at += 1,
                _ => return Ok(()),
            }
        }
    }

    fn skip_section(&mut self) -> Result<(), PtxError> {
        self.word()?;
        self.expect('{')?;
        while !self.take('}') {
            if self.next() == Token::End {
                return Err(self.unexpected());
            }
        }
        Ok(())
    }

    fn function(&mut self, line: u32, is_entry: bool) -> Result<Function, PtxError> {
        let returns = if !is_entry && self.take('(') {
            self.parameters()?
        } else {
            Vec::new()
        };
        let name = self.name()?;
        let parameters = if self.take('(') {
            self.parameters()?
        } else {
            Vec::new()
        };
        let mut function = Function {
            line,
            name,
            is_entry,
            returns,
            parameters,
            max_threads: None,
            body: None,
        };
        self.tuning(&mut function)?;
        if !self.take(';') {
            function.body = Some(self.body()?);
        }
        Ok(function)
    }

    fn parameters(&mut self) -> Result<Vec<Variable>, PtxError> {
        let mut parameters = Vec::new();
        while !self.take(')') {
            if !parameters.is_empty() {
                self.expect(',')?;
            }
            match self.word()? {
                ".param" => parameters.push(self.variable(Space::Param, false)?),
                word @ ".reg" => return Err(PtxError::not_emulated(self.line(), word)),
                _ => {
                    self.at -= 1;
                    return Err(self.unexpected());
                }
            }
        }
        Ok(parameters)
    }

    fn tuning(&mut self, function: &mut Function) -> Result<(), PtxError> {
        while let Token::Word(word) = *self.peek() {
            let line = self.line();
            self.at += 1;
            match word {
                ".maxntid" | ".reqntid" => {
                    let mut product = self.small()?;
                    while self.take(',') {
                        product = product.saturating_mul(self.small()?);
                    }
                    function.max_threads = Some(product);
                }
                ".minnctapersm" | ".maxnreg" => {
                    self.integer()?;
                }
                ".noreturn" => {}
                ".pragma" => self.pragma()?,
                _ if word.starts_with('.') => return Err(PtxError::not_emulated(line, word)),
                _ => {
                    self.at -= 1;
                    return Err(self.unexpected());
                }
            }
        }
        Ok(())
    }
}
