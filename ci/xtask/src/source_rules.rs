//! What the sources of our crates must and must not say.
//!
//! Called by `main` with the files of one crate at a time. Looks for words in code, not in comments and strings.

use crate::purity::PURE;
use crate::source::{code_only, line_of};

/// A file and where it is, relative to the workspace.
#[derive(Debug)]
pub(crate) struct File {
    /// `scheduler/src/lib.rs`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

/// Crates in which `unsafe` may stand, each block with its proof.
const MAY_BE_UNSAFE: &[&str] = &[
    "cuda-driver",
    "cuda-emulator",
    "gpu",
    "gpu-conformance",
    "transport-ucx",
    "ucx-sys",
];

/// What a pure crate's `clippy.toml` must ban.
const CLIPPY_BANS: &[&str] = &[
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::collections::HashMap",
    "std::collections::HashSet",
];

/// What a pure crate must not say, and what to do instead.
const PURE_BANS: &[(&str, &str)] = &[
    (
        "rand::rng",
        "start the generator from a seed that the test prints",
    ),
    (
        "thread_rng",
        "start the generator from a seed that the test prints",
    ),
    (
        "from_os_rng",
        "start the generator from a seed that the test prints",
    ),
    (
        "OsRng",
        "start the generator from a seed that the test prints",
    ),
];

/// What the library of a pure crate must not say either. Its tests, examples and programs may
/// measure time and run many seeds on many threads.
const PURE_LIBRARY_BANS: &[(&str, &str)] = &[
    (
        "clippy::disallowed_methods",
        "take the time as an argument instead of switching the lint off",
    ),
    (
        "clippy::disallowed_types",
        "use BTreeMap, IndexMap or a slab instead of switching the lint off",
    ),
    ("std::net", "sockets belong to transport and runtime"),
    (
        "std::thread",
        "threads belong to runtime; a pure crate is called by one",
    ),
];

/// One sentence for each rule that the crate `name` breaks. `files`: its Rust files, `Cargo.toml` and `clippy.toml`.
pub(crate) fn check_member(name: &str, files: &[File]) -> Vec<String> {
    let mut violations = Vec::new();
    let folder = files
        .iter()
        .find_map(|file| file.path.strip_suffix("/Cargo.toml"))
        .unwrap_or(name);
    let pure = PURE.contains(&name);
    for file in files {
        if file.path.ends_with(".rs") {
            violations.extend(module_doc(file));
            let code = code_only(&file.text);
            if !MAY_BE_UNSAFE.contains(&name)
                && let Some(line) = line_of(&code, "unsafe")
            {
                violations.push(format!(
                    "{}:{line} says `unsafe`: do it in safe code, or move it to gpu or transport/ucx, the only crates that may",
                    file.path
                ));
            }
            let in_library = file.path.starts_with(&format!("{folder}/src/"))
                && !file.path.ends_with("/main.rs")
                && !file.path.contains("/src/bin/");
            let of_library = PURE_LIBRARY_BANS.iter().filter(|_| in_library);
            for (word, remedy) in PURE_BANS.iter().chain(of_library).filter(|_| pure) {
                if let Some(line) = line_of(&code, word) {
                    violations.push(format!(
                        "{}:{line} says `{word}` in a pure crate: {remedy}",
                        file.path
                    ));
                }
            }
        } else if file.path.ends_with("Cargo.toml") && !inherits_lints(&file.text) {
            violations.push(format!(
                "{} does not inherit the workspace's lints: add `[lints]` and `workspace = true`",
                file.path
            ));
        }
    }
    if pure {
        violations.extend(pure_files(folder, files));
    }
    violations
}

fn pure_files(folder: &str, files: &[File]) -> Vec<String> {
    let text_of = |name: &str| {
        files
            .iter()
            .find(|file| file.path == format!("{folder}/{name}"))
            .map(|file| file.text.as_str())
    };
    let mut violations = Vec::new();
    let forbids = text_of("src/lib.rs")
        .is_some_and(|text| code_only(text).contains("#![forbid(unsafe_code)]"));
    if !forbids {
        violations.push(format!(
            "{folder}/src/lib.rs is the root of a pure crate: write `#![forbid(unsafe_code)]` below its first doc comment"
        ));
    }
    match text_of("clippy.toml") {
        None => violations.push(format!(
            "{folder}/clippy.toml is missing: copy protocol/clippy.toml, which bans clocks and random order"
        )),
        Some(text) => {
            for ban in CLIPPY_BANS {
                if !text.contains(&format!("\"{ban}\"")) {
                    violations.push(format!(
                        "{folder}/clippy.toml does not ban `{ban}`: copy the line from protocol/clippy.toml"
                    ));
                }
            }
        }
    }
    violations
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim);
    lines.any(|line| line == "[lints]")
        && lines
            .take_while(|line| !line.starts_with('['))
            .any(|line| line == "workspace = true")
}

/// The first line that is neither empty nor an inner attribute must be a `//!` that says something.
fn module_doc(file: &File) -> Option<String> {
    let mut rest = file.text.trim_start();
    while rest.starts_with("#![") {
        // An attribute ends at the bracket that closes it; its strings hold no brackets that matter here.
        let mut depth = 0_i32;
        let end = rest.char_indices().find_map(|(at, character)| {
            depth += match character {
                '[' => 1,
                ']' => -1,
                _ => 0,
            };
            (depth == 0 && character == ']').then_some(at + 1)
        });
        rest = rest.get(end?..)?.trim_start();
    }
    let first = rest.lines().next().unwrap_or("");
    let says = first.strip_prefix("//!").map(str::trim);
    says.is_none_or(str::is_empty).then(|| {
        format!(
            "{} does not begin with a `//!` line: say there what it is, who calls it and what it does not know",
            file.path
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"x\"\n[lints]\nworkspace = true\n";
    const CLIPPY: &str = include_str!("../../../protocol/clippy.toml");

    fn crate_with(lib: &str, clippy: &str) -> Vec<File> {
        [
            ("Cargo.toml", MANIFEST),
            ("clippy.toml", clippy),
            ("src/lib.rs", lib),
        ]
        .map(|(name, text)| File {
            path: format!("x/{name}"),
            text: text.to_owned(),
        })
        .into()
    }

    fn the_one(violations: Vec<String>) -> String {
        assert_eq!(violations.len(), 1, "{violations:?}");
        violations.into_iter().next().expect("one")
    }

    #[test]
    fn a_pure_crate_in_good_order_passes() {
        let files = crate_with("//! What it is.\n#![forbid(unsafe_code)]\n", CLIPPY);
        assert_eq!(check_member("worker", &files), Vec::<String>::new());
    }

    #[test]
    fn a_pure_crate_that_does_not_forbid_unsafe_is_told_where_to_write_it() {
        let text = the_one(check_member(
            "worker",
            &crate_with("//! What it is.\n// #![forbid(unsafe_code)]\n", CLIPPY),
        ));
        assert!(
            text.contains("x/src/lib.rs is the root of a pure crate"),
            "{text}"
        );
    }

    #[test]
    fn a_pure_crate_whose_clippy_file_lacks_a_ban_is_told_which() {
        let shorter = CLIPPY.replace("std::time::Instant::now", "std::time::Instant::elapsed");
        let lib = "//! What it is.\n#![forbid(unsafe_code)]\n";
        let text = the_one(check_member("sim", &crate_with(lib, &shorter)));
        assert!(
            text.contains("does not ban `std::time::Instant::now`"),
            "{text}"
        );
        let mut without = crate_with(lib, CLIPPY);
        without.remove(1);
        assert!(the_one(check_member("sim", &without)).contains("clippy.toml is missing"));
    }

    #[test]
    fn a_pure_crate_must_not_switch_the_bans_off_or_draw_from_the_system() {
        let lib = "//! What it is.\n#![forbid(unsafe_code)]\n\
                   #[allow(clippy::disallowed_methods, reason = \"\")]\nfn f() { rand::rng(); }\n";
        let violations = check_member("sim", &crate_with(lib, CLIPPY));
        assert_eq!(violations.len(), 2, "{violations:?}");
        assert_eq!(
            check_member("query", &crate_with(lib, "")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn only_the_programs_and_tests_of_a_pure_crate_may_use_threads() {
        let lib = "//! What it is.\n#![forbid(unsafe_code)]\nuse std::thread;\n";
        let mut files = crate_with(lib, CLIPPY);
        assert!(the_one(check_member("sim", &files)).contains("says `std::thread`"));
        files.push(File {
            path: "x/src/main.rs".to_owned(),
            text: lib.to_owned(),
        });
        assert_eq!(check_member("sim", &files).len(), 1);
    }

    #[test]
    fn unsafe_outside_its_crates_is_named_by_line() {
        let files = crate_with("//! What it is.\n\nfn f() { unsafe { g() } }\n", "");
        assert!(the_one(check_member("runtime", &files)).contains("x/src/lib.rs:3 says `unsafe`"));
        assert_eq!(check_member("gpu", &files), Vec::<String>::new());
    }

    #[test]
    fn a_file_must_begin_by_saying_what_it_is() {
        for bad in ["", "use a::b;\n", "//!\n", "// What it is.\n"] {
            let text = the_one(check_member("runtime", &crate_with(bad, "")));
            assert!(
                text.contains("does not begin with a `//!` line"),
                "{bad:?}: {text}"
            );
        }
        let after_attribute =
            "#![allow(\n    clippy::panic,\n    reason = \"a test\"\n)]\n//! What it is.\n";
        assert_eq!(
            check_member("runtime", &crate_with(after_attribute, "")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_crate_must_inherit_the_workspace_lints() {
        let mut files = crate_with("//! What it is.\n", "");
        files[0].text = "[package]\n[lints]\n[dependencies]\nworkspace = true\n".to_owned();
        assert!(the_one(check_member("runtime", &files)).contains("does not inherit"));
    }
}
