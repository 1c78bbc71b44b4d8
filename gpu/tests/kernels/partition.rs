//! The order of rows by partition.

use std::num::NonZeroU32;

use transload_gpu::kernels::{PartitionOrder, partition_of};

use crate::chance::{Chance, LENGTHS};
use crate::machine::Machine;

pub(crate) fn cases(machine: &mut Machine) {
    for rows in LENGTHS {
        for partitions in [1, 2, 7, 33] {
            case(machine, *rows, partitions, 1);
        }
    }
    case(machine, 5000, 3000, 1);
    case(machine, 0, 5000, 1);
    case(machine, 100_000, 64, 1);
}

pub(crate) fn case(machine: &mut Machine, rows: usize, partitions: u32, seed: u64) {
    // Zeros, ones and other extremes are common among them, so that many rows have one partition.
    let hashes: Vec<u64> = Chance::new(seed).numbers(rows);
    let mut expected: Vec<u32> = (0..rows as u32).collect();
    let partition = |row: &u32| partition_of(hashes[*row as usize], partitions);
    expected.sort_by_key(partition);
    let first = |wanted: u32| expected.partition_point(|row| partition(row) < wanted) as u32;
    let expected_firsts: Vec<u32> = (0..=partitions).map(first).collect();
    let firsts = machine.arena.room((u64::from(partitions) + 1) * 4);
    let indices = machine.arena.room(rows as u64 * 4);
    machine.run(&PartitionOrder {
        hashes: machine.input(&hashes),
        rows: rows as u32,
        partitions: NonZeroU32::new(partitions).expect("at least one"),
        firsts,
        indices,
    });
    assert_eq!(
        machine.read::<u32>(firsts, expected_firsts.len()),
        expected_firsts
    );
    assert_eq!(machine.read::<u32>(indices, rows), expected);
    machine.arena.clear();
}
