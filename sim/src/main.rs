//! Runs simulations by hand: one seed with its trace, or many seeds in a row. Knows no more than the library.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use transload_sim::{Scenario, Simulation, Tracing};

const USAGE: &str =
    "usage: transload-sim [--seed N] [--count N] [--threads N] [--trace | --scenario]
  --seed N      the first seed (default 0)
  --count N     how many seeds to run (default 1)
  --threads N   threads to run them on (default 2)
  --trace       print every event and action of the one seed
  --scenario    print the knobs of the one seed";

struct Arguments {
    seed: u64,
    count: u64,
    threads: u64,
    trace: bool,
    scenario: bool,
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments {
        seed: 0,
        count: 1,
        threads: 2,
        trace: false,
        scenario: false,
    };
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|word| word.parse().ok());
        match word.as_str() {
            "--seed" => arguments.seed = number()?,
            "--count" => arguments.count = number()?,
            "--threads" => arguments.threads = number()?,
            "--trace" => arguments.trace = true,
            "--scenario" => arguments.scenario = true,
            _ => return None,
        }
    }
    Some(arguments)
}

fn main() -> ExitCode {
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if arguments.scenario {
        println!("{:#?}", Scenario::from_seed(arguments.seed));
        return ExitCode::SUCCESS;
    }
    if arguments.trace {
        return match Simulation::trace(Scenario::from_seed(arguments.seed), Tracing::Print) {
            Ok(report) => {
                println!("{report:#?}");
                ExitCode::SUCCESS
            }
            Err(failure) => {
                println!("{} at step {}", failure.reason, failure.step);
                ExitCode::FAILURE
            }
        };
    }
    run_many(&arguments)
}

fn run_many(arguments: &Arguments) -> ExitCode {
    let next = AtomicU64::new(arguments.seed);
    let end = arguments.seed + arguments.count;
    let (sender, results) = mpsc::channel();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut failed = 0;
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || sender.send(Simulation::run(seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for result in results {
            match result {
                Ok(report) => {
                    for (name, count) in report.counts {
                        *counts.entry(name).or_insert(0) += count;
                    }
                }
                Err(failure) => {
                    failed += 1;
                    println!("{failure}\n");
                }
            }
        }
    });
    println!("{counts:#?}");
    println!(
        "{} seeds from {}: {failed} failed",
        arguments.count, arguments.seed
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
