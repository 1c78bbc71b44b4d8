//! The table of configuration in README.md is the one that the program prints, word for word.
//!
//! Called by `main` with the program's output. Knows the two markers in README.md, never what an option means.

use std::path::Path;

const BEGIN: &str = "<!-- config-table -->";
const END: &str = "<!-- /config-table -->";

/// A sentence where README.md holds another table than `table`.
///
/// # Errors
/// One sentence, where README.md cannot be read or has no markers.
pub(crate) fn check(root: &Path, table: &str) -> Result<Vec<String>, String> {
    let readme = read(root)?;
    let (_, inside, _) = split(&readme)?;
    Ok(compare(inside, table))
}

/// Puts `table` between the markers.
///
/// # Errors
/// As [`check`], and where README.md cannot be written.
pub(crate) fn write(root: &Path, table: &str) -> Result<Vec<String>, String> {
    let readme = read(root)?;
    let (before, _, after) = split(&readme)?;
    let text = format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table.trim());
    std::fs::write(root.join("README.md"), text)
        .map_err(|error| format!("README.md cannot be written: {error}"))?;
    Ok(Vec::new())
}

fn read(root: &Path) -> Result<String, String> {
    std::fs::read_to_string(root.join("README.md"))
        .map_err(|error| format!("README.md cannot be read: {error}"))
}

fn split(readme: &str) -> Result<(&str, &str, &str), String> {
    readme
        .split_once(BEGIN)
        .and_then(|(before, rest)| {
            let (inside, after) = rest.split_once(END)?;
            Some((before, inside, after))
        })
        .ok_or_else(|| {
            format!(
                "README.md has no table of configuration: put {BEGIN} and {END} where it belongs"
            )
        })
}

fn compare(inside: &str, table: &str) -> Vec<String> {
    const REMEDY: &str =
        "pipe the program's table into `cargo run -p transload-ci -- config-table --write`";
    if table.trim().is_empty() {
        return vec![
            "no table came on standard input: pipe the program's into this command".into(),
        ];
    }
    let difference = inside
        .trim()
        .lines()
        .map(Some)
        .chain(std::iter::repeat(None))
        .zip(
            table
                .trim()
                .lines()
                .map(Some)
                .chain(std::iter::repeat(None)),
        )
        .take_while(|pair| *pair != (None, None))
        .find(|(ours, theirs)| ours != theirs);
    difference
        .map(|(readme, program)| {
            format!(
                "README.md's table of configuration says `{}` where the program says `{}`: {REMEDY}",
                readme.unwrap_or("nothing"),
                program.unwrap_or("nothing")
            )
        })
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_table_passes_and_another_is_shown_with_its_remedy() {
        let readme = format!("# x\n{BEGIN}\n\n| a |\n| b |\n\n{END}\n");
        let (_, inside, after) = split(&readme).expect("has markers");
        assert_eq!(after, "\n");
        assert_eq!(compare(inside, "| a |\n| b |\n"), Vec::<String>::new());
        let violations = compare(inside, "| a |\n| c |\n| d |\n");
        assert!(
            violations[0].contains("says `| b |` where the program says `| c |`: pipe"),
            "{violations:?}"
        );
        assert_eq!(compare(inside, "| a |").len(), 1);
        assert_eq!(compare(inside, "").len(), 1);
    }

    #[test]
    fn a_readme_without_markers_is_told_to_have_them() {
        assert!(split("# x").expect_err("no markers").contains(BEGIN));
    }
}
