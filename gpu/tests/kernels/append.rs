//! Columns put behind each other.

use transload_gpu::kernels::{
    ConcatBits, ConcatFixed, ConcatKeys, ConcatOffsets, KeyWidth, OffsetWidth, OffsetsPart,
};

use crate::chance::{Chance, LENGTHS, narrow, offsets_and_bytes};
use crate::machine::{Machine, Number};

pub(crate) fn cases(machine: &mut Machine) {
    case(machine, &[], 0);
    for (seed, rows) in LENGTHS.iter().copied().enumerate() {
        case(machine, &[rows], seed as u64);
        case(machine, &[1, rows, 0, rows + 30, 31, 33], seed as u64);
    }
    case(machine, &[0, 0], 1);
    case(machine, &[3, 100_000, 7], 1);
    // With and without a bitmap, and more words than threads.
    for seed in 2..8 {
        case(machine, &[3, 20_000], seed);
    }
}

/// Columns of so many rows each.
pub(crate) fn case(machine: &mut Machine, rows: &[usize], seed: u64) {
    let mut chance = Chance::new(seed);
    fixed(machine, rows, &mut chance);
    bits(machine, rows, &mut chance);
    for width in [OffsetWidth::Bits32, OffsetWidth::Bits64] {
        offsets(machine, rows, width, &mut chance);
    }
    keys::<u8>(machine, rows, KeyWidth::One, &mut chance);
    keys::<u16>(machine, rows, KeyWidth::Two, &mut chance);
    keys::<u32>(machine, rows, KeyWidth::Four, &mut chance);
    keys::<u64>(machine, rows, KeyWidth::Eight, &mut chance);
    machine.arena.clear();
}

fn fixed(machine: &mut Machine, rows: &[usize], chance: &mut Chance) {
    let columns: Vec<Vec<u128>> = rows.iter().map(|rows| chance.numbers(*rows)).collect();
    let expected = columns.concat();
    let output = machine.arena.room(expected.len() as u64 * 16);
    let input = |column: &Vec<u128>| (machine.input(column), column.len() as u64 * 16);
    let inputs = columns.iter().map(input).collect();
    machine.run(&ConcatFixed { inputs, output });
    assert_eq!(machine.read::<u128>(output, expected.len()), expected);
}

fn bits(machine: &mut Machine, rows: &[usize], chance: &mut Chance) {
    let columns: Vec<(Option<Vec<bool>>, usize)> = rows
        .iter()
        .map(|rows| (chance.validity(*rows), *rows))
        .collect();
    let expected: Vec<bool> = columns
        .iter()
        .flat_map(|(bits, rows)| bits.clone().unwrap_or(vec![true; *rows]))
        .collect();
    let output = machine.bitmap_room(expected.len());
    let inputs = columns
        .iter()
        .map(|(bits, rows)| (machine.validity(bits.as_deref()), *rows as u64))
        .collect();
    machine.run(&ConcatBits { inputs, output });
    assert_eq!(machine.read_bits(output, expected.len()), expected);
}

fn offsets(machine: &mut Machine, rows: &[usize], width: OffsetWidth, chance: &mut Chance) {
    let columns: Vec<Vec<Vec<u8>>> = rows.iter().map(|rows| chance.strings(*rows)).collect();
    let (expected, _) = offsets_and_bytes(&columns.concat(), 0);
    let mut part = |strings: &Vec<Vec<u8>>| {
        let first = chance.below(5);
        let (offsets, bytes) = offsets_and_bytes(strings, first);
        OffsetsPart {
            offsets: match width {
                OffsetWidth::Bits32 => machine.input(&narrow(&offsets)),
                OffsetWidth::Bits64 => machine.input(&offsets),
            },
            rows: strings.len() as u64,
            first: first as u64,
            bytes: (bytes.len() - first) as u64,
        }
    };
    let inputs = columns.iter().map(&mut part).collect();
    let output = machine.arena.room(expected.len() as u64 * width.bytes());
    machine.run(&ConcatOffsets {
        width,
        inputs,
        output,
    });
    match width {
        OffsetWidth::Bits32 => assert_eq!(
            machine.read::<u32>(output, expected.len()),
            narrow(&expected)
        ),
        OffsetWidth::Bits64 => assert_eq!(machine.read::<u64>(output, expected.len()), expected),
    }
}

fn keys<T: Number + Into<u128>>(
    machine: &mut Machine,
    rows: &[usize],
    width: KeyWidth,
    chance: &mut Chance,
) {
    let columns: Vec<(Vec<T>, u64)> = rows
        .iter()
        .map(|rows| (chance.numbers(*rows), chance.next() % 200))
        .collect();
    let moved = |(keys, added): &(Vec<T>, u64)| {
        let added = u128::from(*added);
        let keys = keys.iter();
        keys.map(|key| T::from_bits((*key).into().wrapping_add(added)))
            .collect::<Vec<T>>()
    };
    let expected: Vec<T> = columns.iter().flat_map(moved).collect();
    let output = machine.arena.room((expected.len() * size_of::<T>()) as u64);
    let input = |(keys, added): &(Vec<T>, u64)| (machine.input(keys), keys.len() as u64, *added);
    let inputs = columns.iter().map(input).collect();
    machine.run(&ConcatKeys {
        width,
        inputs,
        output,
    });
    assert_eq!(machine.read::<T>(output, expected.len()), expected);
}
