//! Checksums of memory of any length.

use transload_gpu::kernels::{Checksum, checksum_of};

use crate::chance::{Chance, LENGTHS};
use crate::machine::Machine;

pub(crate) fn cases(machine: &mut Machine) {
    for (seed, bytes) in (0..).zip(LENGTHS) {
        case(machine, *bytes, seed);
        case(machine, *bytes * 8, seed);
    }
}

pub(crate) fn case(machine: &mut Machine, count: usize, seed: u64) {
    let bytes: Vec<u8> = Chance::new(seed).numbers(count);
    let operator = Checksum {
        input: machine.input(&bytes),
        bytes: bytes.len() as u64,
        sum: machine.arena.room(8),
    };
    machine.run(&operator);
    assert_eq!(
        machine.read::<u64>(operator.sum, 1),
        [checksum_of([&bytes[..]])]
    );
    machine.arena.clear();
}
