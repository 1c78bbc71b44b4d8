//! Hashes of rows, against those that the host computes.

use transload_gpu::kernels::{
    Address, FloatWidth, HashRows, Key, KeyValues, KeyWidth, NULL_HASH, OffsetWidth, Width,
    canonical_f16, canonical_f32, canonical_f64, combined, hash_of, hash_of_bytes, hash_of_wide,
};

use crate::chance::{Chance, LENGTHS, narrow, offsets_and_bytes};
use crate::machine::{Machine, Number};

pub(crate) fn cases(machine: &mut Machine) {
    for rows in LENGTHS.iter().copied() {
        for seed in 0..3 {
            case(machine, rows, seed);
        }
    }
    // With and without nulls in each column, and more rows than threads.
    for seed in 3..12 {
        case(machine, 1_025, seed);
    }
    case(machine, 30_000, 1);
}

/// One key of every kind, each also by itself, and all together.
pub(crate) fn case(machine: &mut Machine, rows: usize, seed: u64) {
    let mut chance = Chance::new(seed);
    let mut columns = vec![
        booleans(machine, &mut chance, rows),
        fixed::<u8>(machine, &mut chance, rows, Width::One),
        fixed::<u16>(machine, &mut chance, rows, Width::Two),
        fixed::<u32>(machine, &mut chance, rows, Width::Four),
        fixed::<u64>(machine, &mut chance, rows, Width::Eight),
        fixed::<u128>(machine, &mut chance, rows, Width::Sixteen),
    ];
    columns.extend(floats(machine, &mut chance, rows));
    columns.push(strings(machine, &mut chance, rows, OffsetWidth::Bits32));
    columns.push(strings(machine, &mut chance, rows, OffsetWidth::Bits64));
    columns.push(dictionary::<u8>(machine, &mut chance, rows, KeyWidth::One));
    columns.push(dictionary::<u16>(machine, &mut chance, rows, KeyWidth::Two));
    columns.push(dictionary::<u32>(
        machine,
        &mut chance,
        rows,
        KeyWidth::Four,
    ));
    columns.push(dictionary::<u64>(
        machine,
        &mut chance,
        rows,
        KeyWidth::Eight,
    ));
    for column in &columns {
        compare(machine, rows, std::slice::from_ref(column));
    }
    compare(machine, rows, &columns);
    compare(machine, rows, &[]);
    machine.arena.clear();
}

/// A key column, and what the host says of each row's value.
struct Column {
    key: Key,
    hashes: Vec<u64>,
}

impl Column {
    fn new(
        machine: &Machine,
        chance: &mut Chance,
        values: KeyValues,
        mut hashes: Vec<u64>,
    ) -> Self {
        let validity = chance.validity(hashes.len());
        for (row, hash) in hashes.iter_mut().enumerate() {
            if validity.as_ref().is_some_and(|bits| !bits[row]) {
                *hash = NULL_HASH;
            }
        }
        let validity = machine.validity(validity.as_deref());
        Self {
            key: Key { values, validity },
            hashes,
        }
    }
}

fn compare(machine: &mut Machine, rows: usize, columns: &[Column]) {
    let of_row = |row: usize| {
        let column = |hash, column: &Column| combined(hash, column.hashes[row]);
        columns.iter().fold(0, column)
    };
    let expected: Vec<u64> = (0..rows).map(of_row).collect();
    let keys = columns.iter().map(|column| column.key).collect();
    let hashes = hashes_on(machine, rows, keys);
    assert_eq!(machine.read::<u64>(hashes, rows), expected);
}

fn hashes_on(machine: &mut Machine, rows: usize, keys: Vec<Key>) -> Address {
    let hashes = machine.arena.room(rows as u64 * 8);
    machine.run(&HashRows {
        keys,
        rows: rows as u64,
        hashes,
    });
    hashes
}

fn booleans(machine: &Machine, chance: &mut Chance, rows: usize) -> Column {
    let bits = chance.booleans(rows, 4);
    let hashes = bits.iter().map(|bit| hash_of(u64::from(*bit))).collect();
    let values = KeyValues::Booleans(machine.bits(&bits));
    Column::new(machine, chance, values, hashes)
}

fn fixed<T: Number + Into<u128>>(
    machine: &Machine,
    chance: &mut Chance,
    rows: usize,
    width: Width,
) -> Column {
    let values: Vec<T> = chance.numbers(rows);
    let hash = |value: &T| match width {
        Width::Sixteen => hash_of_wide((*value).into()),
        _ => hash_of((*value).into() as u64),
    };
    let hashes = values.iter().map(hash).collect();
    let values = KeyValues::Fixed(width, machine.input(&values));
    Column::new(machine, chance, values, hashes)
}

fn floats(machine: &Machine, chance: &mut Chance, rows: usize) -> [Column; 3] {
    let bits: Vec<u64> = (0..rows).map(|row| float(chance, row)).collect();
    // The sign, the exponent's end and the quiet bit lie at the upper end of every width.
    let half: Vec<u16> = bits.iter().map(|bits| (bits >> 48) as u16).collect();
    let single: Vec<u32> = bits.iter().map(|bits| (bits >> 32) as u32).collect();
    let hashes = [
        half.iter()
            .map(|bits| hash_of(canonical_f16(*bits).into()))
            .collect(),
        single
            .iter()
            .map(|bits| hash_of(canonical_f32(f32::from_bits(*bits)).into()))
            .collect(),
        bits.iter()
            .map(|bits| hash_of(canonical_f64(f64::from_bits(*bits))))
            .collect(),
    ];
    let inputs = [
        (FloatWidth::Bits16, machine.input(&half)),
        (FloatWidth::Bits32, machine.input(&single)),
        (FloatWidth::Bits64, machine.input(&bits)),
    ];
    let mut hashes = hashes.into_iter();
    inputs.map(|(width, input)| {
        let hashes = hashes.next().expect("three");
        Column::new(machine, chance, KeyValues::Floats(width, input), hashes)
    })
}

/// Zeros, infinities and NaNs of both signs for all widths, and anything.
fn float(chance: &mut Chance, row: usize) -> u64 {
    let special = [
        0x0000_0000_0000_0000, // zero
        0x0000_0000_0000_0001, // the least above it
        0x7c00_0000_0000_0000, // infinity as a half
        0x7c01_0000_0000_0000, // NaN as a half
        0x7f80_0000_0000_0000, // infinity as a single
        0x7f80_0001_0000_0000, // NaN as a single
        0x7ff0_0000_0000_0000, // infinity
        0x7ff0_0000_0000_0001, // a signalling NaN
        0x7fff_ffff_ffff_ffff, // another NaN
        0x3ff0_0000_0000_0000, // one
    ];
    let sign = (chance.next() & 1) << 63;
    match special.get(row % 20) {
        Some(bits) => bits | sign,
        None => chance.next(),
    }
}

fn strings(machine: &Machine, chance: &mut Chance, rows: usize, width: OffsetWidth) -> Column {
    let strings = chance.strings(rows);
    let first = chance.below(9);
    let (offsets, bytes) = offsets_and_bytes(&strings, first);
    let values = KeyValues::Strings {
        width,
        offsets: match width {
            OffsetWidth::Bits32 => machine.input(&narrow(&offsets)),
            OffsetWidth::Bits64 => machine.input(&offsets),
        },
        bytes: machine.input(&bytes),
    };
    let hashes = strings.iter().map(|string| hash_of_bytes(string)).collect();
    Column::new(machine, chance, values, hashes)
}

/// Of strings, some of which are null; hashed as the same column without a dictionary would be.
fn dictionary<T: Number>(
    machine: &mut Machine,
    chance: &mut Chance,
    rows: usize,
    width: KeyWidth,
) -> Column {
    let count = 1 + chance.below(200);
    let entries = strings(machine, chance, count, OffsetWidth::Bits32);
    let keys: Vec<usize> = (0..rows).map(|_| chance.below(count)).collect();
    let hashes = keys.iter().map(|key| entries.hashes[*key]).collect();
    let keys: Vec<T> = keys.iter().map(|key| T::from_bits(*key as u128)).collect();
    let values = KeyValues::Dictionary {
        width,
        keys: machine.input(&keys),
        entries: hashes_on(machine, count, vec![entries.key]),
    };
    Column::new(machine, chance, values, hashes)
}
