//! What lies beneath the pure crates: no runtime, no socket, no device, no clock, and no chance that a seed does not control.
//!
//! Called by `main`. Looks at whole dependency trees; what the crates' own sources may say is `source_rules`' business.

use std::collections::{BTreeMap, VecDeque};

use crate::workspace::Workspace;

/// The crates that are functions of their inputs.
pub(crate) const PURE: &[&str] = &["protocol", "scheduler", "worker", "sim"];

/// The pure crates that must not know chance at all. The simulation draws from a generator that a seed starts.
const WITHOUT_CHANCE: &[&str] = &["protocol", "scheduler", "worker"];

/// What must not lie beneath any pure crate, and what to do instead.
const BANNED: &[(&str, &str)] = &[
    (
        "tokio",
        "take what it would deliver as an `Input`, and let the runtime's driver await it",
    ),
    ("mio", "sockets belong to transport and runtime"),
    ("socket2", "sockets belong to transport and runtime"),
    ("cudarc", "devices belong to gpu"),
    ("datafusion", "SQL belongs to query"),
    ("arrow", "what bytes mean belongs to query"),
    ("chrono", "time is an argument (transload_protocol::Time)"),
];

/// What must not lie beneath the crates that know no chance.
const BANNED_CHANCE: &[(&str, &str)] = &[
    ("rand", "take a random number as an argument"),
    ("rand_core", "take a random number as an argument"),
    ("fastrand", "take a random number as an argument"),
    (
        "getrandom",
        "entropy of the operating system makes a run unrepeatable",
    ),
];

/// One sentence for each banned package beneath a pure crate, with the path that leads to it.
pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    let mut violations = Vec::new();
    for member in workspace.members() {
        let name = member.short_name();
        if !PURE.contains(&name.as_str()) {
            continue;
        }
        let paths = paths_beneath(workspace, &member.name);
        let chance = WITHOUT_CHANCE
            .contains(&name.as_str())
            .then_some(BANNED_CHANCE);
        for (banned, remedy) in BANNED.iter().chain(chance.unwrap_or_default()) {
            if let Some(path) = paths.get(banned) {
                violations.push(format!(
                    "pure crate `{name}` must not have `{banned}` beneath it (it comes by {path}): drop that dependency; \
                     {remedy}"
                ));
            }
        }
    }
    violations
}

/// For each package that `from` needs in the product, the shortest path to it, written `a -> b -> c`.
fn paths_beneath<'a>(workspace: &'a Workspace, from: &str) -> BTreeMap<&'a str, String> {
    let mut paths = BTreeMap::new();
    let mut waiting: VecDeque<_> = workspace
        .packages
        .values()
        .filter(|package| package.name == from)
        .map(|package| (package, package.name.clone()))
        .collect();
    while let Some((package, path)) = waiting.pop_front() {
        for (below, _) in workspace
            .direct(package)
            .filter(|(_, dependency)| dependency.is_normal)
        {
            if !paths.contains_key(below.name.as_str()) {
                let longer = format!("{path} -> {}", below.name);
                paths.insert(below.name.as_str(), longer.clone());
                waiting.push_back((below, longer));
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::crafted::workspace;

    #[test]
    fn a_runtime_deep_beneath_a_pure_crate_is_found_with_its_path() {
        let violations = check(&workspace(&[
            ("tokio", "1.0.0", &[]),
            ("helper", "1.0.0", &["tokio"]),
            ("transload-scheduler", "0.1.0", &["helper"]),
        ]));
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert!(
            violations[0].contains("transload-scheduler -> helper -> tokio"),
            "{violations:?}"
        );
    }

    #[test]
    fn what_only_tests_need_is_no_impurity() {
        let fine = workspace(&[
            ("getrandom", "0.3.0", &[]),
            ("proptest", "1.0.0", &["getrandom"]),
            ("transload-protocol", "0.1.0", &["dev:proptest"]),
        ]);
        assert_eq!(check(&fine), Vec::<String>::new());
    }

    #[test]
    fn chance_is_banned_from_the_machines_and_not_from_the_simulation() {
        let violations = check(&workspace(&[
            ("rand", "0.9.0", &[]),
            ("transload-worker", "0.1.0", &["rand"]),
            ("transload-sim", "0.1.0", &["rand"]),
        ]));
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert!(
            violations[0].contains("`worker` must not have `rand`"),
            "{violations:?}"
        );
    }

    #[test]
    fn crates_that_are_not_pure_may_have_what_they_need() {
        let fine = workspace(&[
            ("tokio", "1.0.0", &[]),
            ("transload-runtime", "0.1.0", &["tokio"]),
        ]);
        assert_eq!(check(&fine), Vec::<String>::new());
    }
}
