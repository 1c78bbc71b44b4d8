//! Reads of a PTX text what a launch must agree with: the kernels, their parameters, and the threads they are made for. Called by
//! [`check`](super::check). Knows no instruction.

/// A kernel, as its PTX declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Where each parameter begins and how long it is, in bytes.
    pub(super) parameters: Vec<(u32, u32)>,
    /// `.maxntid`, in one dimension.
    pub(super) most_threads: Option<u32>,
}

/// All kernels of a text.
///
/// # Errors
/// A sentence that begins with the line, for what is not PTX as NVRTC writes it.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut words = Words::of(text);
    while let Some(word) = words.next() {
        if word == ".entry" {
            entries.push(entry(&mut words).ok_or_else(|| {
                format!(
                    "line {}: a kernel is declared in an unknown way",
                    words.line()
                )
            })?);
        }
    }
    Ok(entries)
}

fn entry(words: &mut Words<'_>) -> Option<Entry> {
    let name = words.next()?.to_owned();
    let mut parameters = Vec::new();
    let mut end = 0u32;
    let mut word = words.next()?;
    if word == "(" {
        while word != ")" {
            match words.next()? {
                ".param" => {
                    let (align, bytes) = parameter(words)?;
                    let offset = end.checked_next_multiple_of(align)?;
                    end = offset.checked_add(bytes)?;
                    parameters.push((offset, bytes));
                    word = words.next()?;
                    if word != "," && word != ")" {
                        return None;
                    }
                }
                ")" => break,
                _ => return None,
            }
        }
        word = words.next()?;
    }
    let mut most_threads = None;
    while word != "{" {
        if word == ".maxntid" {
            most_threads = Some(words.next()?.parse().ok()?);
        }
        word = words.next()?;
    }
    Some(Entry {
        name,
        parameters,
        most_threads,
    })
}

/// Alignment and bytes of `.u64 name`, or of `.align 8 .b8 name[16]`.
fn parameter(words: &mut Words<'_>) -> Option<(u32, u32)> {
    let mut align = None;
    let mut each = None;
    loop {
        let word = words.next()?;
        match word {
            ".align" => align = Some(words.next()?.parse().ok()?),
            // `.ptr` and what it points to.
            ".ptr" | ".global" | ".const" | ".shared" => {}
            _ if word.starts_with('.') => {
                let bits: u32 = word.get(2..)?.parse().ok()?;
                each = Some(bits / 8);
            }
            _ => break,
        }
    }
    let each = each?;
    let mut count = 1;
    if words.peek() == Some("[") {
        words.next();
        count = words.next()?.parse().ok()?;
        words.next().filter(|word| *word == "]")?;
    }
    Some((align.unwrap_or(each).max(1), each.checked_mul(count)?))
}

/// A text, word by word, without comments. Signs are words of their own.
struct Words<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, rest: text }
    }

    fn next(&mut self) -> Option<&'a str> {
        loop {
            self.rest = self.rest.trim_start();
            self.rest = if self.rest.starts_with("//") {
                self.rest.split_once('\n')?.1
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                comment.split_once("*/")?.1
            } else {
                break;
            };
        }
        let first = self.rest.chars().next()?;
        let length = if is_of_word(first) {
            self.rest
                .find(|c| !is_of_word(c))
                .unwrap_or(self.rest.len())
        } else {
            first.len_utf8()
        };
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(word)
    }

    fn peek(&self) -> Option<&'a str> {
        Self {
            text: self.text,
            rest: self.rest,
        }
        .next()
    }

    fn line(&self) -> usize {
        let read = self.text.len() - self.rest.len();
        self.text.get(..read).map_or(0, |read| read.lines().count())
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '$' | '%' | '@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_lie_at_multiples_of_their_alignment() {
        let text = ".version 8.7\n// .entry no(\n.visible .entry k( /* one */ .param .u32 k_0,\n\t.param .u64 k_1,\n\
                    .param .align 16 .b8 k_2[24], .param .u8 k_3)\n.maxntid 256, 1, 1\n{ ret; }\n.entry bare { ret; }\n\
                    .entry none() {}";
        let [k, bare, none] = &entries(text).expect("PTX")[..] else {
            panic!("three kernels");
        };
        assert_eq!(k.parameters, [(0, 4), (8, 8), (16, 24), (40, 1)]);
        assert_eq!((k.name.as_str(), k.most_threads), ("k", Some(256)));
        assert!(bare.parameters.is_empty() && none.parameters.is_empty());
    }

    #[test]
    fn what_is_not_ptx_is_named_by_its_line() {
        for text in [
            ".entry k(\n.param .u32 a;",
            ".entry k(\n.param",
            ".entry k(\n.param .align 0 .b8 a[4])",
            ".entry k(\n.param .pred a) {",
            ".entry k(\n.param .align 1 .b64 a[4294967295]) {",
        ] {
            let error = entries(text).expect_err(text);
            assert!(error.starts_with("line 2: "), "{text}: {error}");
        }
    }
}
