//! Which branches of the kernels the cases run: all.

use crate::machine::Machine;
use crate::{append, check, checksum, gather, hash, partition, scan, select};

/// Outcomes that cannot happen, each as the kernel, the text of the line, and the reason.
const EXCUSED: &[(&str, &str, &str)] = &[
    ("partition_counts", "@%p2 bra $L__BB0_10;", TILES),
    ("partition_indices", "@%p2 bra $L__BB1_12;", TILES),
    ("hash_bytes_32", "@%p5 bra $L__BB9_9;", WORDS),
    ("hash_bytes_32", "@%p12 bra $L__BB9_17;", WORDS),
    ("hash_bytes_64", "@%p5 bra $L__BB10_9;", WORDS),
    ("hash_bytes_64", "@%p12 bra $L__BB10_17;", WORDS),
];
const TILES: &str =
    "the compiler asks whether a tile has rows; those that are launched all have some";
const WORDS: &str = "the compiler asks again whether a word of a string begins before its end, for which it has just been entered";

#[test]
fn every_branch_of_every_kernel_is_run_both_ways() {
    let machine = &mut Machine::new(Some(3), 2);
    for cases in [
        append::cases,
        check::cases,
        checksum::cases,
        gather::cases,
        hash::cases,
        partition::cases,
        scan::cases,
        select::cases,
    ] {
        cases(machine);
    }
    let mut missed = Vec::new();
    for (name, text, module) in &machine.modules {
        let coverage = machine.coverage.get(name).cloned().unwrap_or_default();
        for kernel in module.kernels() {
            for place in coverage.uncovered(kernel) {
                let line = text
                    .lines()
                    .nth(place.line as usize - 1)
                    .unwrap_or("")
                    .trim();
                let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
                let excused = |(k, l, _): &(&str, &str, &str)| *k == kernel.name() && *l == line;
                if !EXCUSED.iter().any(excused) {
                    missed.push(format!(
                        "{name}.ptx:{}: {}: {:?}: {line}",
                        place.line,
                        kernel.name(),
                        place.outcome
                    ));
                }
            }
        }
    }
    assert!(missed.is_empty(), "never happened:\n{}", missed.join("\n"));
}
