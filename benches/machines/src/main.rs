//! Runs one scenario of the pure machines, so that a tool can count its instructions: `machines SCENARIO SIZE`, or `machines` for
//! the list of scenarios with two sizes each.
//!
//! Called by `cargo run -p transload-ci -- instructions`. Every run of a scenario does the same, to the instruction: no clock, no
//! chance, no threads. Start-up and tear-down cancel out in the difference between the two sizes. A package of its own, so that
//! it builds in seconds.
#![forbid(unsafe_code)]

mod graphs;
mod scheduler;
mod worker;

use std::process::ExitCode;

/// One scenario.
struct Scenario {
    name: &'static str,
    /// The two sizes, in tasks.
    sizes: [u32; 2],
    run: fn(u32) -> Result<(), String>,
}

const SCENARIOS: [Scenario; 9] = [
    Scenario {
        name: "scheduler-merge",
        sizes: [2_000, 12_000],
        run: |tasks| scheduler::one_graph(graphs::merge(tasks)),
    },
    Scenario {
        name: "scheduler-tree",
        sizes: [2_000, 12_000],
        run: |tasks| scheduler::one_graph(graphs::tree(tasks)),
    },
    Scenario {
        name: "scheduler-map",
        sizes: [2_000, 12_000],
        run: |tasks| scheduler::one_graph(graphs::map(tasks)),
    },
    Scenario {
        name: "scheduler-shuffle",
        sizes: [1_000, 4_000],
        run: |tasks| scheduler::one_graph(graphs::shuffle(tasks)),
    },
    Scenario {
        name: "scheduler-random",
        sizes: [2_000, 12_000],
        run: |tasks| scheduler::one_graph(graphs::random(tasks)),
    },
    Scenario {
        name: "scheduler-lost-worker",
        sizes: [2_000, 12_000],
        run: |tasks| scheduler::lost_worker(graphs::map(tasks), tasks / 2),
    },
    Scenario {
        name: "scheduler-small-graphs",
        sizes: [2_000, 12_000],
        run: scheduler::small_graphs,
    },
    Scenario {
        name: "worker-run",
        sizes: [2_000, 12_000],
        run: worker::run,
    },
    Scenario {
        name: "worker-spill",
        sizes: [1_000, 4_000],
        run: worker::spill,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), String> {
    match words {
        [] => {
            for Scenario { name, sizes, .. } in SCENARIOS {
                println!("{name} {} {}", sizes[0], sizes[1]);
            }
            Ok(())
        }
        [name, size] => {
            let scenario = SCENARIOS.iter().find(|scenario| scenario.name == *name);
            let scenario = scenario.ok_or_else(|| format!("there is no scenario `{name}`"))?;
            let size = size
                .parse()
                .map_err(|_| format!("`{size}` is not a number of tasks"))?;
            (scenario.run)(size).map_err(|error| format!("{name}: {error}"))
        }
        _ => Err("usage: machines [SCENARIO SIZE]".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_comes_to_its_end() {
        for Scenario { name, run, .. } in SCENARIOS {
            run(200).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
