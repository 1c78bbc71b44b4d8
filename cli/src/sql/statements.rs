//! Cuts a script into statements at semicolons, with the tokenizer of the SQL parser itself, so that a semicolon in a
//! string, a quoted name or a comment never cuts. Called by the `sql` command and its prompt; knows no grammar.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

/// The statements of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Script {
    /// Statements in order, trimmed, without their semicolon; empty ones are left out.
    pub(crate) statements: Vec<String>,
    /// Whether something other than blanks and comments follows the last semicolon.
    pub(crate) ends_open: bool,
}

/// Cuts `text` at its semicolons.
///
/// # Errors
/// What cannot be cut into tokens, in words with its line and column: an unterminated string, for example.
pub(crate) fn split(text: &str) -> Result<Script, String> {
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .tokenize_with_location()
        .map_err(|error| error.to_string())?;
    let lines = LineStarts::of(text);
    let mut statements = Vec::new();
    let mut start = 0;
    let mut has_words = false;
    for token in &tokens {
        match &token.token {
            Token::SemiColon => {
                let end = lines.offset(text, token.span.start);
                if has_words {
                    statements.push(text.get(start..end).unwrap_or_default().trim().to_owned());
                }
                start = (end + 1).min(text.len());
                has_words = false;
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ => has_words = true,
        }
    }
    if has_words {
        statements.push(text.get(start..).unwrap_or_default().trim().to_owned());
    }
    Ok(Script {
        statements,
        ends_open: has_words,
    })
}

/// Byte offset of the first character of each line.
struct LineStarts(Vec<usize>);

impl LineStarts {
    fn of(text: &str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(after_breaks).collect())
    }

    /// Byte offset of a location, whose line and column count from 1 in characters.
    fn offset(&self, text: &str, at: Location) -> usize {
        let line = usize::try_from(at.line).unwrap_or(1).saturating_sub(1);
        let column = usize::try_from(at.column).unwrap_or(1).saturating_sub(1);
        let start = self.0.get(line).copied().unwrap_or(text.len());
        let rest = text.get(start..).unwrap_or_default();
        start
            + rest
                .char_indices()
                .nth(column)
                .map_or(rest.len(), |(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(text: &str) -> Vec<String> {
        split(text).expect(text).statements
    }

    #[test]
    fn a_script_is_cut_at_semicolons_and_nowhere_else() {
        assert_eq!(
            statements(
                "select 1; select ';' as \"a;b\" -- no; cut\n /* nor; here */;\n\n;select 'ä;ö', 2 ;"
            ),
            [
                "select 1",
                "select ';' as \"a;b\" -- no; cut\n /* nor; here */",
                "select 'ä;ö', 2"
            ]
        );
    }

    #[test]
    fn characters_of_several_bytes_do_not_move_the_cut() {
        assert_eq!(
            statements("select 'ééé€𝄞';\nselect 'ü'; select 3"),
            ["select 'ééé€𝄞'", "select 'ü'", "select 3"]
        );
    }

    #[test]
    fn comments_alone_are_no_statement() {
        let script = split("-- nothing\n/* at all */").expect("tokens");
        assert!(script.statements.is_empty() && !script.ends_open);
    }

    #[test]
    fn the_last_statement_may_lack_its_semicolon() {
        assert!(split("select 1; select 2").expect("tokens").ends_open);
        assert!(
            !split("select 1; select 2; -- done")
                .expect("tokens")
                .ends_open
        );
    }

    #[test]
    fn an_unterminated_string_is_an_error_with_its_place() {
        let error = split("select 1;\nselect 'abc").expect_err("unterminated");
        assert!(error.contains("Line: 2"), "{error}");
    }
}
