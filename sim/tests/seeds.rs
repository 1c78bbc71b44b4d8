//! Thousands of random runs: every graph ends right, nothing leaks, and every kind of trouble is really met.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use transload_sim::{Failure, Report, Scenario, Simulation, Tracing};

const SEEDS: u64 = 2_000;

fn run_all(seeds: std::ops::Range<u64>) -> Vec<Result<Report, Failure>> {
    let next = AtomicU64::new(seeds.start);
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut results = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end {
                            return results;
                        }
                        results.push(Simulation::run(seed));
                    }
                })
            })
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().expect("no machine panics"))
            .collect()
    })
}

#[test]
fn two_thousand_seeds_end_right() {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut failed = Vec::new();
    for result in run_all(0..SEEDS) {
        match result {
            Ok(report) => {
                for (name, count) in report.counts {
                    *counts.entry(name).or_insert(0) += count;
                }
            }
            Err(failure) => failed.push(failure),
        }
    }
    if let Some(first) = failed.iter().min_by_key(|failure| failure.seed) {
        let seeds: Vec<u64> = failed.iter().map(|failure| failure.seed).collect();
        panic!("{first}\n{} seeds failed: {seeds:?}", seeds.len());
    }
    println!("{counts:#?}");
    for name in [
        "clients vanished",
        "clients that came back",
        "connections cut",
        "copies from devices",
        "copies to devices",
        "departures",
        "early releases",
        "failed copies",
        "failed loads",
        "failed spills",
        "fetches",
        "fetches cancelled",
        "fetches that strayed",
        "gangs run again",
        "gangs started",
        "graphs cancelled",
        "graphs failed",
        "graphs finished",
        "graphs within tasks",
        "graphs within tasks cut short",
        "loads",
        "missing inputs",
        "moves between devices and disk",
        "outputs lost",
        "outputs read",
        "outputs unreachable",
        "peers lost",
        "power cuts",
        "scheduler crashes",
        "shutdowns",
        "spills",
        "stalls",
        "task failures",
        "tasks asked back",
        "tasks held to workers",
        "tasks started in halves",
        "tasks started on devices",
        "tasks started on emptied devices",
        "tasks stopped",
        "waits without a slot",
        "workers dropped",
        "workers cut off",
        "workers killed",
        "workers killed by a task",
        "workers lost",
        "workers that came back",
        "workers with devices",
    ] {
        let count = counts.get(name).copied().unwrap_or(0);
        assert!(
            count >= 10,
            "{name}: met only {count} times in {SEEDS} seeds"
        );
    }
}

#[test]
fn a_seed_is_one_run_and_no_other() {
    for seed in 0..20 {
        let scenario = Scenario::from_seed(seed);
        let first = Simulation::trace(scenario.clone(), Tracing::Tail).unwrap();
        let second = Simulation::trace(scenario.clone(), Tracing::Tail).unwrap();
        assert_eq!(first, second, "seed {seed}");
        let silent = Simulation::trace(scenario, Tracing::Off).unwrap();
        assert_eq!(first.hash, silent.hash, "seed {seed} without its trace");
        assert_ne!(first.text_hash, 0);
    }
}
