//! Which of our crates may depend on which, and who may use which outside crate: the picture in ARCHITECTURE.md, as data.
//!
//! Called by `main`. Knows names only, and judges dependencies of tests and build scripts like all others.

use std::collections::BTreeMap;

use crate::workspace::Workspace;

/// What one of our crates may depend on, among ours.
struct Arrows {
    from: &'static str,
    to: &'static [&'static str],
    /// Why this much and no more; part of the message when the rule is broken.
    reason: &'static str,
}

/// Anything that is not listed is forbidden.
const ARROWS: &[Arrows] = &[
    Arrows {
        from: "protocol",
        to: &[],
        reason: "protocol names things for everyone and so knows no one",
    },
    Arrows {
        from: "scheduler",
        to: &["protocol"],
        reason: "the scheduler decides and neither holds bytes nor moves them",
    },
    Arrows {
        from: "worker",
        to: &["protocol"],
        reason: "the worker machine decides and neither holds bytes nor moves them",
    },
    Arrows {
        from: "gpu",
        to: &["cuda-driver", "cuda-emulator", "ptx", "protocol"],
        reason: "gpu holds bytes and knows neither tasks nor the network; its tests alone know the emulator and its interpreter",
    },
    Arrows {
        from: "cuda-driver",
        to: &[],
        reason: "it names what the driver has and knows nothing of ours",
    },
    Arrows {
        from: "cuda-emulator",
        to: &["cuda-driver", "ptx"],
        reason: "it stands where the driver stands and knows nothing of ours but what runs kernels; its tests call it as a driver is called",
    },
    Arrows {
        from: "gpu-conformance",
        to: &["cuda-driver", "cuda-emulator"],
        reason: "it asks the driver alone, so that it judges the emulator and hardware by the same words; its tests run it under the emulator",
    },
    Arrows {
        from: "ptx",
        to: &[],
        reason: "it runs PTX texts and knows neither a driver nor us; the product does not contain it",
    },
    Arrows {
        from: "transport",
        to: &["gpu", "protocol", "cuda-emulator"],
        reason: "transport moves what gpu holds and knows no backend; its tests alone run on the emulator",
    },
    Arrows {
        from: "transport-tcp",
        to: &["transport", "gpu", "protocol", "cuda-emulator"],
        reason: "a backend knows the trait it implements and no other backend; its tests alone run on the emulator",
    },
    Arrows {
        from: "transport-ucx",
        to: &["transport", "gpu", "protocol", "ucx-sys", "cuda-emulator"],
        reason: "a backend knows the trait it implements and no other backend, and this one alone speaks to UCX; its tests alone run on the emulator",
    },
    Arrows {
        from: "ucx-sys",
        to: &[],
        reason: "bindings name what UCX has and know nothing of ours",
    },
    Arrows {
        from: "dashboard",
        to: &["protocol"],
        reason: "the dashboard shows what it is told and knows neither machines nor how processes speak",
    },
    Arrows {
        from: "runtime",
        to: &[
            "dashboard",
            "scheduler",
            "worker",
            "transport-tcp",
            "transport-ucx",
            "transport",
            "gpu",
            "cuda-emulator",
            "protocol",
        ],
        reason: "the runtime drives both machines, starts the transports that are wanted, and knows no SQL; its tests alone run on the emulator",
    },
    Arrows {
        from: "query",
        to: &["runtime", "gpu", "protocol", "cuda-emulator"],
        reason: "query sees the cluster through the runtime's client alone; its tests alone know the emulator",
    },
    Arrows {
        from: "cli",
        to: &["query", "runtime", "dashboard", "protocol", "cuda-emulator"],
        reason: "the program joins SQL, runtime and what is shown of clusters, and adds nothing of its own; its tests alone run on the emulator",
    },
    Arrows {
        from: "sim",
        to: &["scheduler", "worker", "protocol"],
        reason: "the simulation runs the pure machines and nothing real",
    },
    Arrows {
        from: "benches",
        to: &[
            "cli",
            "query",
            "runtime",
            "scheduler",
            "worker",
            "transport-tcp",
            "transport",
            "gpu",
            "protocol",
            "sim",
        ],
        reason: "measurements may look at everything, and nothing depends on them",
    },
    Arrows {
        from: "machines",
        to: &["scheduler", "worker", "protocol"],
        reason: "its instructions are counted in every CI run, so it must build in seconds, and holds the pure machines alone",
    },
    Arrows {
        from: "ci",
        to: &[],
        reason: "the judge of all crates depends on none of them and builds in seconds",
    },
];

/// Who may use an outside crate directly.
struct Outside {
    /// The crate, and every crate whose name starts with it and a dash.
    name: &'static str,
    users: &'static [&'static str],
    reason: &'static str,
}

const OUTSIDE: &[Outside] = &[
    Outside {
        name: "datafusion",
        users: &["query", "cli", "benches"],
        reason: "it costs minutes of every build that it is part of, and SQL is query's business",
    },
    Outside {
        name: "bincode",
        users: &["protocol"],
        reason: "the codec is one module (protocol::codec), so that another can take its place",
    },
    Outside {
        name: "cudarc",
        users: &["cuda-driver", "gpu", "gpu-conformance"],
        reason: "CUDA is reached through gpu alone, and asked by its conformance suite",
    },
];

/// One sentence for each forbidden arrow, unknown crate, and outside crate that we use in two incompatible versions.
pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    let mut violations = Vec::new();
    for member in workspace.members() {
        let from = member.short_name();
        let rule = ARROWS.iter().find(|arrows| arrows.from == from);
        if rule.is_none() {
            violations.push(format!(
                "crate `{}` has no entry in ci/xtask/src/arrows.rs: add one that says what it may depend on and why",
                member.name
            ));
        }
        for (other, _) in workspace.direct(member) {
            let to = other.short_name();
            if !other.is_member {
                violations.extend(forbidden_outside(&from, &other.name));
            } else if let Some(arrows) = rule.filter(|arrows| !arrows.to.contains(&to.as_str())) {
                violations.push(format!(
                    "`{from}` must not depend on `{to}`: remove the dependency from {}/Cargo.toml and move the code that \
                     needs it to a crate that may have it ({})",
                    member.folder, arrows.reason
                ));
            }
        }
    }
    violations.extend(duplicates(workspace));
    violations
}

fn forbidden_outside(from: &str, name: &str) -> Option<String> {
    let outside = OUTSIDE.iter().find(|outside| {
        name == outside.name
            || name
                .strip_prefix(outside.name)
                .is_some_and(|rest| rest.starts_with('-'))
    })?;
    (!outside.users.contains(&from)).then(|| {
        format!(
            "`{from}` must not depend on `{name}`, only {} may: use what those crates offer ({})",
            outside.users.join(", "),
            outside.reason
        )
    })
}

fn duplicates(workspace: &Workspace) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for member in workspace.members() {
        for (other, _) in workspace
            .direct(member)
            .filter(|(other, _)| !other.is_member)
        {
            versions
                .entry(&other.name)
                .or_default()
                .insert(other.compatible_version(), member.short_name());
        }
    }
    versions
        .into_iter()
        .filter(|(_, by_version)| by_version.len() > 1)
        .map(|(name, by_version)| {
            let users: Vec<String> = by_version
                .iter()
                .map(|(version, member)| format!("{version} by `{member}`"))
                .collect();
            format!(
                "`{name}` is used in {} incompatible versions ({}): choose one in [workspace.dependencies] and write \
                 `{name}.workspace = true` everywhere",
                by_version.len(),
                users.join(", ")
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::crafted::workspace;

    fn the_one(violations: Vec<String>) -> String {
        assert_eq!(violations.len(), 1, "{violations:?}");
        violations.into_iter().next().expect("one")
    }

    #[test]
    fn the_designed_arrows_pass() {
        let good = workspace(&[
            ("transload-protocol", "0.1.0", &[]),
            ("transload-scheduler", "0.1.0", &["transload-protocol"]),
            (
                "transload-runtime",
                "0.1.0",
                &["transload-scheduler", "transload-protocol"],
            ),
            (
                "transload-query",
                "0.1.0",
                &["transload-runtime", "datafusion"],
            ),
            (
                "transload",
                "0.1.0",
                &["transload-query", "transload-runtime"],
            ),
            ("datafusion", "55.2.0", &[]),
        ]);
        assert_eq!(check(&good), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_that_is_not_listed_is_named_with_its_remedy() {
        let text = the_one(check(&workspace(&[
            ("transload-gpu", "0.1.0", &[]),
            ("transload-scheduler", "0.1.0", &["transload-gpu"]),
        ])));
        assert!(
            text.contains("`scheduler` must not depend on `gpu`: remove"),
            "{text}"
        );
    }

    #[test]
    fn an_arrow_of_tests_counts_like_any_other() {
        let text = the_one(check(&workspace(&[
            ("transload-sim", "0.1.0", &[]),
            ("transload-worker", "0.1.0", &["dev:transload-sim"]),
        ])));
        assert!(text.contains("`worker` must not depend on `sim`"), "{text}");
    }

    #[test]
    fn a_crate_without_an_entry_is_asked_for_one() {
        let text = the_one(check(&workspace(&[("transload-python", "0.1.0", &[])])));
        assert!(text.contains("`transload-python` has no entry"), "{text}");
    }

    #[test]
    fn only_query_and_the_program_see_datafusion() {
        let text = the_one(check(&workspace(&[
            ("datafusion-proto", "55.2.0", &[]),
            ("transload-runtime", "0.1.0", &["datafusion-proto"]),
        ])));
        assert!(
            text.contains("`runtime` must not depend on `datafusion-proto`, only query, cli"),
            "{text}"
        );
    }

    #[test]
    fn two_majors_of_one_crate_among_our_own_dependencies_are_refused() {
        let text = the_one(check(&workspace(&[
            ("rand", "0.8.5", &[]),
            ("rand", "0.9.1", &[]),
            ("rand", "0.9.2", &[]),
            ("transload-sim", "0.1.0", &["rand@0.9.1"]),
            ("transload-benches", "0.1.0", &["rand@0.8.5"]),
            ("transload-gpu", "0.1.0", &["rand@0.9.2"]),
        ])));
        assert!(
            text.contains("`rand` is used in 2 incompatible versions"),
            "{text}"
        );
    }
}
