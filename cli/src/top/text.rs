//! Texts in a fixed room: names that others have chosen, and bars. Knows no layout.

use unicode_width::UnicodeWidthStr;

use crate::show;

/// A name that somebody else has chosen, in at most so many columns.
pub(super) fn name(text: &str, columns: usize) -> String {
    let text = show::plain(text);
    if text.width() <= columns {
        return text;
    }
    let mut cut = String::new();
    for character in text.chars() {
        cut.push(character);
        // Together: what follows a character may change its width.
        if cut.width() + 1 > columns {
            cut.pop();
            break;
        }
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// A bar so many columns wide, of which `part` in `whole` is full. Full and empty differ without colours, too.
pub(super) fn bar(part: u64, whole: u64, columns: usize) -> String {
    let part = part.min(whole);
    let filled = match u64::try_from(columns) {
        Ok(columns) if whole > 0 => u128::from(part) * u128::from(columns) / u128::from(whole),
        _ => 0,
    };
    let filled = usize::try_from(filled).unwrap_or(0);
    // Some is not none, and not all is not all.
    let filled = match (part, filled) {
        (1.., 0) => columns.min(1),
        (_, filled) => filled,
    };
    format!(
        "{}{}",
        "█".repeat(filled),
        "░".repeat(columns.saturating_sub(filled))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_long_says_so() {
        assert_eq!(name("worker", 6), "worker");
        assert_eq!(name("workers", 6), "worke…");
        assert_eq!(name("ワーカー", 8), "ワーカー");
        assert_eq!(name("ワーカー", 6), "ワー…");
        assert_eq!(name("x", 0), "");
    }

    #[test]
    fn a_bar_is_full_where_all_is_used_and_never_empty_where_some_is() {
        assert_eq!(bar(0, 10, 4), "░░░░");
        assert_eq!(bar(1, 1_000, 4), "█░░░");
        assert_eq!(bar(999, 1_000, 4), "███░");
        assert_eq!(bar(11, 10, 4), "████");
        assert_eq!(bar(u64::MAX, u64::MAX, 4), "████");
        assert_eq!(bar(1, 0, 4), "░░░░");
    }
}
