//! Rows picked by number.

use transload_gpu::kernels::{
    Address, GatherBits, GatherFixed, GatherOffsets, GatherStrings, OffsetWidth, Width,
};

use crate::chance::{Chance, LENGTHS, narrow, offsets_and_bytes};
use crate::machine::{Machine, Number};

pub(crate) fn cases(machine: &mut Machine) {
    for rows in LENGTHS.iter().copied() {
        for seed in 0..3 {
            let of = [0, 1, 33, 1000][(rows + seed) % 4];
            case(machine, rows, of, seed as u64);
        }
    }
    // With and without nulls among the indices, and more rows than threads.
    for seed in 3..12 {
        case(machine, 1_025, 33, seed);
    }
    case(machine, 100_000, 70_000, 1);
}

/// Picks `rows` of columns of `of` rows.
pub(crate) fn case(machine: &mut Machine, rows: usize, of: usize, seed: u64) {
    let mut chance = Chance::new(seed);
    let picks = Picks::new(machine, chance.indices(rows, of));
    fixed::<u8>(machine, &picks, Width::One, &mut chance, of);
    fixed::<u16>(machine, &picks, Width::Two, &mut chance, of);
    fixed::<u32>(machine, &picks, Width::Four, &mut chance, of);
    fixed::<u64>(machine, &picks, Width::Eight, &mut chance, of);
    fixed::<u128>(machine, &picks, Width::Sixteen, &mut chance, of);
    bits(machine, &picks, &chance.validity(of));
    for width in [OffsetWidth::Bits32, OffsetWidth::Bits64] {
        // The bytes of a slice do not begin at the first.
        let first = chance.below(3);
        strings(machine, &picks, width, &chance.strings(of), first);
    }
    machine.arena.clear();
}

struct Picks {
    /// None where the index is null.
    rows: Vec<Option<usize>>,
    indices: Address,
    validity: Option<Address>,
}

impl Picks {
    fn new(machine: &Machine, (indices, validity): (Vec<u32>, Option<Vec<bool>>)) -> Self {
        let is_valid = |at: usize| validity.as_ref().is_none_or(|validity| validity[at]);
        let pick = |(at, index): (usize, &u32)| is_valid(at).then_some(*index as usize);
        Self {
            rows: indices.iter().enumerate().map(pick).collect(),
            indices: machine.input(&indices),
            validity: machine.validity(validity.as_deref()),
        }
    }
}

fn fixed<T: Number>(
    machine: &mut Machine,
    picks: &Picks,
    width: Width,
    chance: &mut Chance,
    of: usize,
) {
    let values: Vec<T> = chance.numbers(of);
    let rows = picks.rows.len();
    let output = machine.arena.room(rows as u64 * width.bytes());
    machine.run(&GatherFixed {
        width,
        input: machine.input(&values),
        indices: picks.indices,
        indices_validity: picks.validity,
        rows: rows as u64,
        output,
    });
    let value = |pick: &Option<usize>| pick.map_or(T::default(), |row| values[row]);
    let expected: Vec<T> = picks.rows.iter().map(value).collect();
    assert_eq!(machine.read::<T>(output, rows), expected);
}

fn bits(machine: &mut Machine, picks: &Picks, input: &Option<Vec<bool>>) {
    let rows = picks.rows.len();
    let output = machine.bitmap_room(rows);
    machine.run(&GatherBits {
        input: machine.validity(input.as_deref()),
        indices: picks.indices,
        indices_validity: picks.validity,
        rows: rows as u64,
        output,
    });
    let bit = |row| input.as_ref().is_none_or(|bits| bits[row]);
    let expected: Vec<bool> = picks
        .rows
        .iter()
        .map(|pick| pick.is_some_and(bit))
        .collect();
    assert_eq!(machine.read_bits(output, rows), expected);
}

fn strings(
    machine: &mut Machine,
    picks: &Picks,
    width: OffsetWidth,
    strings: &[Vec<u8>],
    first: usize,
) {
    let (offsets, bytes) = offsets_and_bytes(strings, first);
    let offsets = match width {
        OffsetWidth::Bits32 => machine.input(&narrow(&offsets)),
        OffsetWidth::Bits64 => machine.input(&offsets),
    };
    let rows = picks.rows.len();
    let starts = machine.arena.room((rows as u64 + 1) * 8);
    machine.run(&GatherOffsets {
        width,
        offsets,
        indices: picks.indices,
        indices_validity: picks.validity,
        rows: rows as u64,
        starts,
    });
    let string = |pick: &Option<usize>| pick.map_or(Vec::new(), |row| strings[row].clone());
    let picked: Vec<Vec<u8>> = picks.rows.iter().map(string).collect();
    let (expected_starts, _) = offsets_and_bytes(&picked, 0);
    assert_eq!(machine.read::<u64>(starts, rows + 1), expected_starts);
    // Of all rows, and of those that follow some.
    for skipped in [0, rows.min(3)] {
        let rows = rows - skipped;
        let (expected_offsets, expected) = offsets_and_bytes(&picked[skipped..], 0);
        let output = machine.arena.room(expected.len() as u64);
        let output_offsets = machine.arena.room((rows as u64 + 1) * width.bytes());
        machine.run(&GatherStrings {
            width,
            offsets,
            bytes: machine.input(&bytes),
            indices: picks.indices.plus(skipped as u64 * 4),
            rows: rows as u64,
            starts: starts.plus(skipped as u64 * 8),
            output,
            output_offsets,
        });
        assert_eq!(machine.read::<u8>(output, expected.len()), expected);
        match width {
            OffsetWidth::Bits32 => {
                let made = machine.read::<u32>(output_offsets, rows + 1);
                assert_eq!(made, narrow(&expected_offsets));
            }
            OffsetWidth::Bits64 => {
                let made = machine.read::<u64>(output_offsets, rows + 1);
                assert_eq!(made, expected_offsets);
            }
        }
    }
}
