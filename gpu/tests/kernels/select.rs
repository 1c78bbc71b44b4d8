//! Filters.

use transload_gpu::kernels::SelectRows;

use crate::chance::{Chance, LENGTHS};
use crate::machine::Machine;

pub(crate) fn cases(machine: &mut Machine) {
    for rows in LENGTHS.iter().copied().chain([100_000]) {
        for seed in 0..4 {
            case(machine, rows, seed);
        }
    }
}

pub(crate) fn case(machine: &mut Machine, rows: usize, seed: u64) {
    let mut chance = Chance::new(seed);
    let share = chance.below(9);
    let mask = chance.booleans(rows, share);
    let validity = chance.validity(rows);
    let is_kept = |row: &usize| mask[*row] && validity.as_ref().is_none_or(|bits| bits[*row]);
    let expected: Vec<u32> = (0..rows).filter(is_kept).map(|row| row as u32).collect();
    let indices = machine.arena.room(rows as u64 * 4);
    let selected = machine.arena.room(4);
    machine.run(&SelectRows {
        mask: machine.bits(&mask),
        mask_validity: machine.validity(validity.as_deref()),
        rows: rows as u32,
        indices,
        selected,
    });
    assert_eq!(machine.read::<u32>(selected, 1), [expected.len() as u32]);
    assert_eq!(machine.read::<u32>(indices, expected.len()), expected);
    machine.arena.clear();
}
