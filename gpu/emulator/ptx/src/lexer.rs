//! PTX text to words with their lines. Called by `parser`; knows no grammar.

use crate::error::PtxError;

/// A word of the text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token<'a> {
    /// A name, directive, register or opcode, with its dots: `ld.global.u32`, `%tid.x`, `.reg`.
    Word(&'a str),
    Number(Number),
    Text(&'a str),
    /// One of `{}[]()<>,;:=+-|!@*/`.
    Mark(char),
    End,
}

/// A literal, as precise as it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    /// In two's complement; the flag says that it was written with a minus.
    Integer(u64),
    /// `0f3F800000`.
    Single(u32),
    /// `0d3FF0000000000000`.
    Double(u64),
    /// `1.5`.
    Decimal(f64),
}

/// Splits `text` up to its end or its first zero byte.
pub(crate) fn tokens(text: &str) -> Result<Vec<(u32, Token<'_>)>, PtxError> {
    let text = text.split('\0').next().unwrap_or_default();
    let mut lexer = Lexer {
        text,
        at: 0,
        line: 1,
    };
    let mut tokens = Vec::new();
    loop {
        let (line, token) = lexer.next()?;
        let end = token == Token::End;
        tokens.push((line, token));
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn next(&mut self) -> Result<(u32, Token<'a>), PtxError> {
        self.skip_space()?;
        let line = self.line;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok((line, Token::End));
        };
        let token = if first.is_ascii_digit() {
            let len = rest.bytes().take_while(|b| in_word(*b)).count();
            self.number(rest, len)?
        } else if first.is_ascii() && in_word(first as u8) {
            Token::Word(self.take(word_len(rest)))
        } else if first == '"' {
            let len = rest
                .get(1..)
                .and_then(|inner| inner.find('"'))
                .ok_or_else(|| PtxError::syntax(line, "a string has no end"))?;
            let quoted = self.take(len + 2);
            self.line += quoted.matches('\n').count() as u32;
            Token::Text(quoted.get(1..len + 1).unwrap_or_default())
        } else if "{}[]()<>,;:=+-|!@*/".contains(first) {
            self.take(1);
            Token::Mark(first)
        } else {
            return Err(PtxError::syntax(
                line,
                format!("Parsing error near '{first}': syntax error"),
            ));
        };
        Ok((line, token))
    }

    fn take(&mut self, len: usize) -> &'a str {
        let taken = self.rest().get(..len).unwrap_or_default();
        self.at += len;
        taken
    }

    fn skip_space(&mut self) -> Result<(), PtxError> {
        loop {
            let rest = self.rest();
            if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                let len = rest
                    .find("*/")
                    .ok_or_else(|| PtxError::syntax(self.line, "a comment has no end"))?;
                self.line += self.take(len + 2).matches('\n').count() as u32;
            } else if let Some(first) = rest.chars().next().filter(|c| c.is_whitespace()) {
                self.line += u32::from(first == '\n');
                self.at += first.len_utf8();
            } else {
                return Ok(());
            }
        }
    }

    fn number(&mut self, rest: &'a str, mut len: usize) -> Result<Token<'a>, PtxError> {
        let line = self.line;
        let bytes = rest.as_bytes();
        let is_hex = bytes.len() > 1 && matches!(bytes[1], b'x' | b'X' | b'f' | b'F' | b'd' | b'D');
        // The sign of an exponent belongs to the number.
        if !is_hex
            && matches!(bytes.get(len - 1), Some(b'e' | b'E'))
            && matches!(bytes.get(len), Some(b'+' | b'-'))
        {
            len += 1 + bytes
                .iter()
                .skip(len + 1)
                .take_while(|b| b.is_ascii_digit())
                .count();
        }
        let text = self.take(len);
        number(text).map(Token::Number).ok_or_else(|| {
            PtxError::syntax(line, format!("Parsing error near '{text}': syntax error"))
        })
    }
}

/// The length of the word that `rest` begins with. Two colons join words, as in `shared::cta`; one ends a label.
fn word_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut len = 0;
    loop {
        match bytes.get(len) {
            Some(b) if in_word(*b) => len += 1,
            Some(b':')
                if bytes.get(len + 1) == Some(&b':')
                    && bytes.get(len + 2).is_some_and(|b| in_word(*b)) =>
            {
                len += 2;
            }
            _ => return len,
        }
    }
}

fn number(text: &str) -> Option<Number> {
    let lower = text.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0f").filter(|hex| hex.len() == 8) {
        return u32::from_str_radix(hex, 16).ok().map(Number::Single);
    }
    if let Some(hex) = lower.strip_prefix("0d").filter(|hex| hex.len() == 16) {
        return u64::from_str_radix(hex, 16).ok().map(Number::Double);
    }
    if lower.starts_with("0f") || lower.starts_with("0d") {
        return None;
    }
    let whole = lower.trim_end_matches('u');
    if let Some(hex) = whole.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Number::Integer);
    }
    if let Some(bits) = whole.strip_prefix("0b") {
        return u64::from_str_radix(bits, 2).ok().map(Number::Integer);
    }
    if whole.contains(['.', 'e']) {
        return whole.parse().ok().map(Number::Decimal);
    }
    if whole.len() > 1 && whole.starts_with('0') {
        return u64::from_str_radix(whole, 8).ok().map(Number::Integer);
    }
    whole.parse().ok().map(Number::Integer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Token<'_>> {
        tokens(text)
            .expect("good text")
            .into_iter()
            .map(|(_, token)| token)
            .collect()
    }

    #[test]
    fn literals_are_read_in_all_their_forms() {
        let literals =
            "0x10 0b11 017 10U 0f3F800000 0d3ff0000000000000 1.5 2e-3 18446744073709551615";
        assert_eq!(
            words(literals),
            [
                Number::Integer(16),
                Number::Integer(3),
                Number::Integer(15),
                Number::Integer(10),
                Number::Single(0x3f80_0000),
                Number::Double(0x3ff0_0000_0000_0000),
                Number::Decimal(1.5),
                Number::Decimal(0.002),
                Number::Integer(u64::MAX),
            ]
            .map(Token::Number)
            .into_iter()
            .chain([Token::End])
            .collect::<Vec<_>>()
        );
    }

    #[test]
    fn comments_count_lines_and_a_zero_ends_the_text() {
        let all = tokens("a /* 1\n2 */ b // c\nd\0 ! no").expect("good text");
        assert_eq!(
            all,
            [
                (1, Token::Word("a")),
                (2, Token::Word("b")),
                (3, Token::Word("d")),
                (3, Token::End)
            ]
        );
    }

    #[test]
    fn one_colon_ends_a_label_and_two_join_words() {
        assert_eq!(
            words("l: ld.shared::cta.u32"),
            [
                Token::Word("l"),
                Token::Mark(':'),
                Token::Word("ld.shared::cta.u32"),
                Token::End
            ]
        );
    }
}
