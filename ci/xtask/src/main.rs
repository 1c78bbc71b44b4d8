//! `cargo run -p transload-ci -- COMMAND`: checks that the workspace keeps its own rules. Called by `ci/test` and by people.
//!
//! Knows the names of crates, files and functions, never what they compute. Depends on no other crate of the workspace, so
//! that it builds in seconds and can judge all of them.
//!
//! Every violation is one sentence that says what to do.

mod arrows;
mod config_table;
mod docs_links;
mod instructions;
mod purity;
mod source;
mod source_rules;
mod workspace;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use workspace::Workspace;

const USAGE: &str = "usage: cargo run -p transload-ci -- COMMAND

  arrows                  dependencies between our crates, and who may use which outside crate
  purity                  pure crates stay pure, unsafe stays where it may be, every file says what it is
  docs-links              links in the Markdown files lead to files and functions that exist
  all                     the three above
  config-table [--write]  compares the table on standard input with the one in README.md, or writes it there
  instructions record     counts the instructions of the pure machines and stores them in benches/instructions.json
  instructions check      counts them, and fails when a scenario takes over 5 % more than is stored
  instructions compare OLD NEW
                          what two commits have stored";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(violations) if violations.is_empty() => {
            println!("{}: no violation", words.join(" "));
            ExitCode::SUCCESS
        }
        Ok(violations) => {
            for violation in &violations {
                println!("error: {violation}");
            }
            println!("{}: {} violations", words.join(" "), violations.len());
            ExitCode::FAILURE
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

/// The violations that a command found, or why it could not look.
fn run(words: &[&str]) -> Result<Vec<String>, String> {
    match words {
        ["arrows"] => Ok(arrows::check(&Workspace::load()?)),
        ["purity"] => purity_and_sources(&Workspace::load()?),
        ["docs-links"] => docs_links::check(&Workspace::load()?.root),
        ["all"] => {
            let workspace = Workspace::load()?;
            let mut violations = arrows::check(&workspace);
            violations.extend(purity_and_sources(&workspace)?);
            violations.extend(docs_links::check(&workspace.root)?);
            Ok(violations)
        }
        ["config-table"] => config_table::check(&Workspace::load()?.root, &standard_input()?),
        ["config-table", "--write"] => {
            config_table::write(&Workspace::load()?.root, &standard_input()?)
        }
        ["instructions", "record"] => {
            instructions::record(&Workspace::load()?.root).map(|()| Vec::new())
        }
        ["instructions", "check"] => instructions::check(&Workspace::load()?.root),
        ["instructions", "compare", old, new] => {
            instructions::compare(&Workspace::load()?.root, old, new).map(|()| Vec::new())
        }
        _ => Err(USAGE.to_owned()),
    }
}

fn purity_and_sources(workspace: &Workspace) -> Result<Vec<String>, String> {
    let mut violations = purity::check(workspace);
    for member in workspace.members() {
        violations.extend(source_rules::check_member(
            &member.short_name(),
            &read_member(&workspace.root, &member.folder)?,
        ));
    }
    Ok(violations)
}

/// The files of one member that its rules are about: its Rust sources, `Cargo.toml` and `clippy.toml`.
fn read_member(root: &Path, folder: &str) -> Result<Vec<source_rules::File>, String> {
    let base = root.join(folder);
    let mut files = Vec::new();
    for name in ["Cargo.toml", "clippy.toml", "build.rs"] {
        if base.join(name).is_file() {
            files.push(read(root, &base.join(name))?);
        }
    }
    for part in ["src", "tests", "benches", "examples"] {
        let mut paths = Vec::new();
        if base.join(part).is_dir() {
            rust_files(&base.join(part), &mut paths)?;
        }
        paths.sort();
        for path in paths {
            files.push(read(root, &path)?);
        }
    }
    Ok(files)
}

fn read(root: &Path, path: &Path) -> Result<source_rules::File, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let shown = path.strip_prefix(root).unwrap_or(path);
    Ok(source_rules::File {
        path: shown.to_string_lossy().into_owned(),
        text,
    })
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| format!("{} cannot be listed: {error}", folder.display()))?;
    for entry in entries {
        let path = entry
            .map_err(|error| format!("{} cannot be listed: {error}", folder.display()))?
            .path();
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn standard_input() -> Result<String, String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| format!("standard input cannot be read: {error}"))?;
    Ok(text)
}
