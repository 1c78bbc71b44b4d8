//! Offsets that can be followed, and ones that cannot.

use transload_gpu::kernels::{CheckOffsets, OffsetWidth, OffsetsOf};

use crate::chance::{Chance, LENGTHS, narrow, offsets_and_bytes};
use crate::machine::Machine;

pub(crate) fn cases(machine: &mut Machine) {
    for (seed, rows) in (0..).zip(LENGTHS) {
        case(machine, *rows, seed);
    }
}

pub(crate) fn case(machine: &mut Machine, rows: usize, seed: u64) {
    let mut chance = Chance::new(seed);
    let strings = chance.strings(rows);
    let (offsets, bytes) = offsets_and_bytes(&strings, 0);
    let bytes = bytes.len() as u64;
    assert!(are_right(machine, &[(&offsets, bytes)]));
    assert!(are_right(machine, &[]));
    let mut wrong = vec![(offsets.clone(), bytes + 1)];
    let mut changed = |at: usize, to: u64| {
        let mut changed = offsets.clone();
        changed[at] = to;
        wrong.push((changed, bytes));
    };
    changed(0, 1);
    changed(rows, bytes + 1);
    changed(chance.below(rows + 1), u64::from(u32::MAX));
    if let Some(at) = (1..=rows).find(|at| offsets[at - 1] > 0) {
        changed(at, offsets[at - 1] - 1);
    }
    for (offsets, bytes) in &wrong {
        assert!(!are_right(machine, &[(offsets, *bytes)]), "{offsets:?}");
    }
    // One among others.
    if let Some((other, other_bytes)) = wrong.last() {
        let columns = [(&offsets, bytes), (other, *other_bytes), (&offsets, bytes)];
        assert!(!are_right(machine, &columns));
    }
}

fn are_right(machine: &mut Machine, columns: &[(&Vec<u64>, u64)]) -> bool {
    let answers = [OffsetWidth::Bits32, OffsetWidth::Bits64].map(|width| {
        let column = |(offsets, bytes): &(&Vec<u64>, u64)| OffsetsOf {
            width,
            offsets: match width {
                OffsetWidth::Bits32 => machine.input(&narrow(offsets)),
                OffsetWidth::Bits64 => machine.input(offsets),
            },
            rows: offsets.len() as u64 - 1,
            bytes: *bytes,
        };
        let columns = columns.iter().map(column).collect();
        let wrong = machine.arena.room(4);
        machine.run(&CheckOffsets { columns, wrong });
        machine.read::<u32>(wrong, 1) == [0]
    });
    machine.arena.clear();
    assert_eq!(answers[0], answers[1], "the widths disagree");
    answers[0]
}
