//! The gate on instruction counts: how many instructions the pure machines take for each task of fixed scenarios, counted by
//! valgrind, stored with every commit in [`FILE`], and held to it.
//!
//! Called by `main`. Counts do not depend on how busy a machine is, so a small loss is seen at once. They are no times: what
//! the code waits for is not in them. Knows the scenarios by name only; they are in `benches/machines`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::MetadataCommand;
use serde::{Deserialize, Serialize};

/// Where counts are stored, relative to the workspace.
const FILE: &str = "benches/instructions.json";
/// How much more than stored a scenario may take, in percent.
const TOLERANCE_PERCENT: f64 = 5.0;
const PACKAGE: &str = "transload-machines";
const BINARY: &str = "transload-machines";
const PROFILE: &str = "instructions";

/// What was counted, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// `rustc --version`.
    rustc: String,
    /// `valgrind --version`.
    valgrind: String,
    /// By name of the scenario.
    instructions_per_task: BTreeMap<String, f64>,
}

/// One scenario, as the measuring program lists it.
#[derive(Debug, PartialEq)]
struct Scenario {
    name: String,
    sizes: [u32; 2],
}

/// Counts and writes the counts down.
pub(crate) fn record(root: &Path) -> Result<(), String> {
    let counts = count(root)?;
    let path = root.join(FILE);
    let before = read(&path).ok();
    let mut text = serde_json::to_string_pretty(&counts)
        .map_err(|error| format!("counts cannot be written as JSON: {error}"))?;
    text.push('\n');
    std::fs::write(&path, text).map_err(|error| format!("{FILE} cannot be written: {error}"))?;
    match before {
        Some(before) => print!("{}", table("stored before", &before, "now", &counts)),
        None => print!("{}", table("now", &counts, "now", &counts)),
    }
    Ok(())
}

/// Counts and compares with what is stored. One sentence for each scenario that takes more than it may.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let stored = read(&root.join(FILE))?;
    let now = count(root)?;
    print!("{}", table("stored", &stored, "now", &now));
    Ok(judge(&stored, &now))
}

/// Prints what two commits have stored.
pub(crate) fn compare(root: &Path, old: &str, new: &str) -> Result<(), String> {
    let (before, after) = (at(root, old)?, at(root, new)?);
    print!("{}", table(old, &before, new, &after));
    Ok(())
}

fn judge(stored: &Counts, now: &Counts) -> Vec<String> {
    let remedy = "find out what costs that (valgrind --tool=callgrind) and mend it, or, where it buys something that is worth it, \
                  store the new count with `cargo run -p transload-ci -- instructions record` and say what it buys in the commit";
    let mut violations = Vec::new();
    if stored.rustc != now.rustc {
        violations.push(format!(
            "{FILE} was recorded with {}, and this is {}: counts of two compilers cannot be compared; record it anew \
             with `cargo run -p transload-ci -- instructions record` in the commit that changes the compiler",
            stored.rustc, now.rustc
        ));
        return violations;
    }
    for (name, count) in &now.instructions_per_task {
        match stored.instructions_per_task.get(name) {
            None => violations.push(format!(
                "scenario `{name}` has no count in {FILE}: add it with `cargo run -p transload-ci -- instructions record`"
            )),
            Some(before) if percent(*before, *count) > TOLERANCE_PERCENT => {
                violations.push(format!(
                    "scenario `{name}` takes {count:.0} instructions per task, {:.1} % more than the {before:.0} stored in {FILE} \
                     ({TOLERANCE_PERCENT} % are allowed): {remedy}",
                    percent(*before, *count)
                ));
            }
            Some(_) => {}
        }
    }
    for name in stored.instructions_per_task.keys() {
        if !now.instructions_per_task.contains_key(name) {
            violations.push(format!(
                "{FILE} has a count for `{name}`, which is no scenario: `cargo run -p transload-ci -- instructions record` removes it"
            ));
        }
    }
    violations
}

/// How much larger `after` is.
fn percent(before: f64, after: f64) -> f64 {
    (after - before) / before.max(1.0) * 100.0
}

fn table(old: &str, before: &Counts, new: &str, after: &Counts) -> String {
    let mut text = format!(
        "{:24} {old:>16} {new:>16} {:>9}\n",
        "instructions per task", "change"
    );
    let mut names: Vec<&String> = before.instructions_per_task.keys().collect();
    names.extend(after.instructions_per_task.keys());
    names.sort();
    names.dedup();
    for name in names {
        let of = |counts: &Counts| counts.instructions_per_task.get(name).copied();
        let shown =
            |count: Option<f64>| count.map_or("-".to_owned(), |count| format!("{count:.0}"));
        let change = match (of(before), of(after)) {
            (Some(before), Some(after)) => format!("{:+.1} %", percent(before, after)),
            (None, _) | (_, None) => "-".to_owned(),
        };
        let (one, other) = (shown(of(before)), shown(of(after)));
        text.push_str(&format!("{name:24} {one:>16} {other:>16} {change:>9}\n"));
    }
    for (what, one, other) in [
        ("compiler", &before.rustc, &after.rustc),
        ("valgrind", &before.valgrind, &after.valgrind),
    ] {
        if one == other {
            text.push_str(&format!("{what}: {one}\n"));
        } else {
            text.push_str(&format!("{what}: {one}, then {other}\n"));
        }
    }
    text
}

fn read(path: &Path) -> Result<Counts, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!(
            "{FILE} cannot be read: {error}; make it with `cargo run -p transload-ci -- instructions record`"
        )
    })?;
    parse(&text)
}

fn parse(text: &str) -> Result<Counts, String> {
    serde_json::from_str(text).map_err(|error| format!("{FILE} makes no sense: {error}"))
}

/// What a commit has stored.
fn at(root: &Path, revision: &str) -> Result<Counts, String> {
    let text = output(
        Command::new("git")
            .current_dir(root)
            .args(["show", &format!("{revision}:{FILE}")]),
    )?;
    parse(&text.out)
}

/// Builds the measuring program and counts every scenario with it.
fn count(root: &Path) -> Result<Counts, String> {
    let valgrind = output(Command::new("valgrind").arg("--version"))
        .map_err(|error| format!("{error}; counting needs valgrind: `apt-get install valgrind`"))?;
    let rustc = output(Command::new("rustc").current_dir(root).arg("--version"))?;
    let program = build(root)?;
    let mut counts = Counts {
        rustc: rustc.out.trim().to_owned(),
        valgrind: valgrind.out.trim().to_owned(),
        instructions_per_task: BTreeMap::new(),
    };
    for Scenario { name, sizes } in parse_list(&output(&mut Command::new(&program))?.out)? {
        let small = instructions(&program, &name, sizes[0])?;
        let large = instructions(&program, &name, sizes[1])?;
        let tasks = sizes[1].saturating_sub(sizes[0]).max(1);
        let per_task = large.saturating_sub(small) as f64 / f64::from(tasks);
        // More digits than this mean nothing and make every record a change.
        counts
            .instructions_per_task
            .insert(name, (per_task * 10.0).round() / 10.0);
    }
    Ok(counts)
}

fn build(root: &Path) -> Result<PathBuf, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    output(Command::new(cargo).current_dir(root).args([
        "build",
        "--quiet",
        "--locked",
        "--profile",
        PROFILE,
        "--package",
        PACKAGE,
    ]))?;
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .map_err(|error| format!("`cargo metadata` failed: {error}"))?;
    let folder = metadata.target_directory.into_std_path_buf();
    Ok(folder.join(PROFILE).join(BINARY))
}

/// Instructions of one whole run.
fn instructions(program: &Path, scenario: &str, size: u32) -> Result<u64, String> {
    let said = output(
        Command::new("valgrind")
            .args([
                "--tool=cachegrind",
                "--cache-sim=no",
                "--cachegrind-out-file=/dev/null",
            ])
            .arg(program)
            .arg(scenario)
            .arg(size.to_string())
            // Nothing of the caller's may change what is counted.
            .env_clear(),
    )?;
    parse_count(&said.err).ok_or_else(|| format!("valgrind told no count: {}", said.err))
}

fn parse_list(text: &str) -> Result<Vec<Scenario>, String> {
    text.lines()
        .map(|line| {
            let mut words = line.split(' ');
            let name = words.next()?.to_owned();
            let mut size = || words.next()?.parse().ok();
            let sizes = [size()?, size()?];
            Some(Scenario { name, sizes })
        })
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{BINARY} lists its scenarios in an unknown way: {text}"))
}

/// The number in `==123== I   refs:      1,234,567`.
fn parse_count(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("refs:"))?;
    let (_, number) = line.split_once("refs:")?;
    number.trim().replace(',', "").parse().ok()
}

struct Said {
    out: String,
    err: String,
}

fn output(command: &mut Command) -> Result<Said, String> {
    let name = format!("{command:?}");
    let output = command
        .output()
        .map_err(|error| format!("{name} cannot be started: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    if output.status.success() {
        Ok(Said { out, err })
    } else {
        Err(format!("{name} failed with {}: {err}", output.status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(scenarios: &[(&str, f64)]) -> Counts {
        Counts {
            rustc: "rustc 1".to_owned(),
            valgrind: "valgrind 1".to_owned(),
            instructions_per_task: scenarios
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
        }
    }

    #[test]
    fn a_scenario_that_takes_more_is_named_with_both_counts_and_the_remedy() {
        let stored = counts(&[("merge", 1_000.0), ("tree", 1_000.0)]);
        let violations = judge(&stored, &counts(&[("merge", 1_049.0), ("tree", 1_051.0)]));
        assert_eq!(violations.len(), 1, "{violations:?}");
        for part in ["`tree`", "1051", "1000", "5.1 %", "instructions record"] {
            assert!(violations[0].contains(part), "{part}: {violations:?}");
        }
    }

    #[test]
    fn fewer_instructions_are_welcome() {
        let stored = counts(&[("merge", 1_000.0)]);
        assert_eq!(
            judge(&stored, &counts(&[("merge", 10.0)])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_scenario_without_a_count_and_a_count_without_a_scenario_are_violations() {
        let violations = judge(&counts(&[("gone", 1.0)]), &counts(&[("new", 1.0)]));
        assert_eq!(violations.len(), 2, "{violations:?}");
        assert!(violations[0].contains("`new` has no count"));
        assert!(violations[1].contains("`gone`, which is no scenario"));
    }

    #[test]
    fn counts_of_two_compilers_are_not_compared() {
        let mut now = counts(&[("merge", 9_000.0)]);
        now.rustc = "rustc 2".to_owned();
        let violations = judge(&counts(&[("merge", 1_000.0)]), &now);
        assert_eq!(violations.len(), 1);
        assert!(violations[0].contains("rustc 1, and this is rustc 2"));
    }

    #[test]
    fn a_count_and_a_list_are_read_as_they_are_printed() {
        let text = "==7== Cachegrind\n==7== \n==7== I   refs:      1,234,567\n";
        assert_eq!(parse_count(text), Some(1_234_567));
        assert_eq!(parse_count("==7== nothing"), None);
        let list = parse_list("merge 10 20\ntree 1 2\n").expect("a list");
        assert_eq!(list[1].sizes, [1, 2]);
        assert!(parse_list("merge ten\n").is_err());
    }

    #[test]
    fn the_table_shows_what_changed_and_what_is_only_on_one_side() {
        let text = table(
            "v1",
            &counts(&[("merge", 100.0)]),
            "v2",
            &counts(&[("merge", 150.0), ("tree", 7.0)]),
        );
        assert!(text.contains("+50.0 %"), "{text}");
        assert!(
            text.lines()
                .any(|line| line.starts_with("tree") && line.contains('-'))
        );
    }
}
