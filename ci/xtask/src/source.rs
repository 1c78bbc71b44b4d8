//! Rust source with everything blanked out that is not code: comments, strings and characters.
//!
//! Called by the rules that look for words. Not a parser: it knows only where literals and comments begin and end.

/// `text` with comments and the contents of literals replaced by spaces. Lines keep their numbers.
pub(crate) fn code_only(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < characters.len() {
        let end = end_of_non_code(&characters, at);
        if end > at {
            for character in &characters[at..end.min(characters.len())] {
                out.push(if *character == '\n' { '\n' } else { ' ' });
            }
            at = end;
        } else {
            out.push(characters[at]);
            at += 1;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` where none begins.
fn end_of_non_code(text: &[char], at: usize) -> usize {
    let next = text.get(at + 1).copied();
    let inside_word = at > 0 && text.get(at - 1).copied().is_some_and(is_word);
    match text.get(at).copied() {
        Some('/') if next == Some('/') => find(text, at, |rest| rest.starts_with(&['\n'])),
        Some('/') if next == Some('*') => end_of_block_comment(text, at),
        Some('"') => end_of_string(text, at + 1),
        Some('\'') => end_of_character(text, at),
        Some('r' | 'b' | 'c') if !inside_word => end_of_raw_string(text, at),
        _ => at,
    }
}

fn find(text: &[char], from: usize, stops: impl Fn(&[char]) -> bool) -> usize {
    (from..text.len())
        .find(|at| stops(&text[*at..]))
        .unwrap_or(text.len())
}

fn end_of_block_comment(text: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < text.len() {
        match (text.get(at), text.get(at + 1)) {
            (Some('/'), Some('*')) => {
                depth += 1;
                at += 2;
            }
            (Some('*'), Some('/')) => {
                depth = depth.saturating_sub(1);
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

fn end_of_string(text: &[char], mut at: usize) -> usize {
    while at < text.len() {
        match text.get(at) {
            Some('\\') => at += 2,
            Some('"') => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// A lifetime (`'a`) is code; `'a'` and `'\n'` are not.
fn end_of_character(text: &[char], at: usize) -> usize {
    match (text.get(at + 1), text.get(at + 2)) {
        (Some('\\'), Some(_)) => find(text, at + 3, |rest| rest.starts_with(&['\''])) + 1,
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

/// `r"..."`, `r#"..."#`, `b"..."`, `br"..."`, `c"..."`; `at` where none of these begins.
fn end_of_raw_string(text: &[char], start: usize) -> usize {
    let mut at = start;
    let mut raw = false;
    while let Some(letter @ ('r' | 'b' | 'c')) = text.get(at) {
        raw |= *letter == 'r';
        at += 1;
    }
    let hashes = find(text, at, |rest| !rest.starts_with(&['#'])) - at;
    if at - start > 2 || text.get(at + hashes) != Some(&'"') || (hashes > 0 && !raw) {
        return start;
    }
    let content = at + hashes + 1;
    if !raw {
        return end_of_string(text, content);
    }
    let mut closing = vec!['"'];
    closing.resize(hashes + 1, '#');
    find(text, content, |rest| rest.starts_with(&closing)) + closing.len()
}

/// Whether a character can be part of a name.
pub(crate) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The number of the first line on which `word` stands as a whole word, from 1. `word` may hold `::` and brackets.
pub(crate) fn line_of(code: &str, word: &str) -> Option<usize> {
    (1..).zip(code.lines()).find_map(|(number, line)| {
        line.match_indices(word)
            .any(|(at, _)| {
                let before = line[..at].chars().next_back();
                let after = line[at + word.len()..].chars().next();
                !before.is_some_and(is_word) && !after.is_some_and(is_word)
            })
            .then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_comments_and_literals_are_not_code() {
        let text = r####"
// unsafe in a comment
/* unsafe /* nested unsafe */ still unsafe */
/// unsafe in a doc
let a = "unsafe \" unsafe"; let b = r#"unsafe " unsafe"#; let c = b"unsafe"; let d = '\''; let e = '"';
fn f<'a>(x: &'a str) {}
"####;
        assert_eq!(line_of(&code_only(text), "unsafe"), None);
        assert_eq!(line_of(&code_only(text), "fn f"), Some(6));
    }

    #[test]
    fn words_in_code_are_found_whole_and_with_their_line() {
        let code = code_only("let x = 'u';\n#![forbid(unsafe_code)]\nunsafe { f() }\n");
        assert_eq!(line_of(&code, "unsafe"), Some(3));
        assert_eq!(line_of("unsafely", "unsafe"), None);
        assert_eq!(line_of("a(rand::rng())", "rand::rng"), Some(1));
    }
}
