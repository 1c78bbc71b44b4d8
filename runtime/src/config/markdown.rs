//! The table of settings as Markdown, for the README; a test there compares.

use std::fmt::Write;

use super::table::SETTINGS;

/// A Markdown table with one row per setting, ending in a line break.
pub fn markdown_table() -> String {
    let mut text = String::from(
        "| option | type | default | environment | flag | what it does, costs, and when to change it |\n\
         |---|---|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | `{}` | `--{}` | {} *Cost:* {} *Change:* {} |",
            setting.name,
            setting.kind,
            setting.default_value(),
            setting.variable(),
            setting.flag,
            setting.what,
            setting.cost,
            setting.change,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_its_row() {
        let text = markdown_table();
        assert_eq!(text.lines().count(), SETTINGS.len() + 2);
        assert!(
            text.lines().all(|line| line.matches('|').count() == 7),
            "{text}"
        );
        assert!(text.contains(
            "| `worker.memory` | bytes | auto | `TRANSLOAD_WORKER_MEMORY` | `--memory` |"
        ));
    }
}
