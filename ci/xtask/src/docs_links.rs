//! Links in our Markdown files lead somewhere: to files that exist, and in Rust files to items that exist.
//!
//! Called by `main`. The two lives in `docs/` are held to more: each of their steps links to a function, so that a step
//! whose code has moved or gone fails here before it misleads a reader.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::source::{code_only, is_word, line_of};

/// Documents whose numbered steps must each link to at least one item in a Rust file.
const LIVES: &[&str] = &["docs/life-of-a-task.md", "docs/life-of-a-partition.md"];
/// Documents that must exist.
const REQUIRED: &[&str] = &["README.md", "ARCHITECTURE.md", "benches/README.md"];
/// Folders whose Markdown files are checked, beside those at the top.
const FOLDERS: &[&str] = &["docs", "benches", "ci"];

/// One sentence for each link that leads nowhere and each step without a link.
///
/// # Errors
/// One sentence, where a folder or file cannot be read.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut documents = BTreeMap::new();
    for folder in std::iter::once(".").chain(FOLDERS.iter().copied()) {
        for name in markdown_files(&root.join(folder))? {
            let path = normal(&Path::new(folder).join(name));
            let text = std::fs::read_to_string(root.join(&path))
                .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
            documents.insert(path.to_string_lossy().into_owned(), text);
        }
    }
    let mut violations: Vec<String> = REQUIRED
        .iter()
        .chain(LIVES)
        .filter(|name| !documents.contains_key(**name))
        .map(|name| {
            format!("{name} is missing: write it, or take it out of ci/xtask/src/docs_links.rs")
        })
        .collect();
    let read = |path: &Path| std::fs::read_to_string(root.join(path)).ok();
    let exists = |path: &Path| root.join(path).exists();
    for (name, text) in &documents {
        violations.extend(check_links(name, text, &exists, &read));
        if LIVES.contains(&name.as_str()) {
            violations.extend(check_steps(name, text));
        }
    }
    Ok(violations)
}

fn markdown_files(folder: &Path) -> Result<Vec<String>, String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry =
            entry.map_err(|error| format!("{} cannot be listed: {error}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            names.push(name);
        }
    }
    Ok(names)
}

fn check_links(
    name: &str,
    text: &str,
    exists: &dyn Fn(&Path) -> bool,
    read: &dyn Fn(&Path) -> Option<String>,
) -> Vec<String> {
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    let mut violations = Vec::new();
    for (line, target) in links(text) {
        if target.contains("://") || target.starts_with('#') || target.starts_with("mailto:") {
            continue;
        }
        let (path, item) = target.split_once('#').unwrap_or((target, ""));
        let path = normal(&folder.join(path));
        if !exists(&path) {
            violations.push(format!(
                "{name}:{line} links to {}, which does not exist: correct the link",
                path.display()
            ));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !item.is_empty() {
            let found = read(&path).is_some_and(|source| has_item(&source, item));
            if !found {
                violations.push(format!(
                    "{name}:{line} links to `{item}` in {}, which has no such function: tell the step as it is now",
                    path.display()
                ));
            }
        }
    }
    violations
}

/// Whether Rust source declares an item of this name.
fn has_item(source: &str, item: &str) -> bool {
    let code = code_only(source);
    item.chars().all(is_word)
        && ["fn", "struct", "enum", "trait", "const", "type", "mod"]
            .iter()
            .any(|kind| line_of(&code, &format!("{kind} {item}")).is_some())
}

/// Targets of all inline links outside code blocks, with their lines.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            if let Some(end) = rest.find(')') {
                found.push((number, rest[..end].trim()));
            }
        }
    }
    found
}

/// A sentence for each numbered step without a link into a Rust file, and one where there is no step at all.
fn check_steps(name: &str, text: &str) -> Vec<String> {
    let mut steps: Vec<(usize, String)> = Vec::new();
    let mut in_step = false;
    for (number, line) in (1..).zip(text.lines()) {
        let digits = line.chars().take_while(char::is_ascii_digit).count();
        if digits > 0 && line[digits..].starts_with(". ") {
            steps.push((number, line.to_owned()));
            in_step = true;
        } else if line.starts_with('#') {
            in_step = false;
        } else if in_step && let Some((_, step)) = steps.last_mut() {
            step.push('\n');
            step.push_str(line);
        }
    }
    if steps.is_empty() {
        return vec![format!(
            "{name} has no numbered step: tell the life as a numbered list whose steps link to functions"
        )];
    }
    steps
        .iter()
        .filter(|(_, step)| !links(step).iter().any(|(_, target)| target.contains(".rs#")))
        .map(|(line, _)| {
            format!("{name}:{line} is a step without a function: link it as [name](../crate/src/file.rs#name)")
        })
        .collect()
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str) -> Vec<String> {
        let exists = |path: &Path| path == Path::new("runtime/src/client.rs");
        let read = |_: &Path| {
            Some("impl Client {\n    pub async fn submit(&self) {}\n}\n// fn gone() {}\n".into())
        };
        check_links("docs/life-of-a-task.md", text, &exists, &read)
    }

    #[test]
    fn a_link_to_a_function_that_exists_passes() {
        let good = "1. The client [submits](../runtime/src/client.rs#submit) it. See [this](https://x.y/z) and [that](#top).";
        assert_eq!(check_text(good), Vec::<String>::new());
        assert_eq!(check_steps("docs/x.md", good), Vec::<String>::new());
    }

    #[test]
    fn a_link_to_a_function_or_file_that_is_gone_is_named_by_line() {
        let violations = check_text(
            "\n[a](../runtime/src/client.rs#gone)\n[b](../runtime/src/other.rs#submit)\n",
        );
        assert_eq!(violations.len(), 2, "{violations:?}");
        assert!(
            violations[0].contains(":2 links to `gone` in runtime/src/client.rs"),
            "{violations:?}"
        );
        assert!(
            violations[1].contains(":3 links to runtime/src/other.rs, which does not exist"),
            "{violations:?}"
        );
    }

    #[test]
    fn a_step_without_a_function_is_named() {
        let text = "# Life\n\n1. First [a](../a.rs#f)\n2. Second,\n   with [b](../b.md)\n3. Third,\n   with [c](../c.rs#g)\n";
        let violations = check_steps("docs/x.md", text);
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert!(
            violations[0].contains("docs/x.md:4 is a step without"),
            "{violations:?}"
        );
        assert_eq!(check_steps("docs/x.md", "# Nothing\n").len(), 1);
    }

    #[test]
    fn what_looks_like_a_link_in_a_code_block_is_none() {
        assert_eq!(links("```\n[a](b)\n```\n[c](d)\n"), [(4, "d")]);
    }
}
