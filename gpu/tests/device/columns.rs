//! Operators on columns, against plain Rust: what a table becomes on the device and what the same rows are on the host.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use proptest::prelude::*;
use transload_gpu::device::{
    Column, Device, DeviceError, DeviceMemory, Dictionary, Kernels, Packed, Region, Strings,
    TieredBuffer, Values,
};
use transload_gpu::kernels::{
    FloatWidth, KeyWidth, NULL_HASH, OffsetWidth, Width, canonical_f64, combined, hash_of,
    hash_of_bytes, hash_of_wide, partition_of,
};
use transload_gpu::{Budget, HostBuffer, Partition};

use crate::common::Bench;

const MIB: u64 = 1 << 20;

/// A column of a table in host memory: each row's value, null or not, and whether it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HostColumn {
    pub(crate) kind: Kind,
    /// Little-endian bytes of each value; one byte of a boolean.
    pub(crate) values: Vec<Vec<u8>>,
    pub(crate) validity: Option<Vec<bool>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Bits,
    Fixed(Width),
    Double,
    Strings(OffsetWidth),
    /// Strings, each once in a dictionary.
    Dictionary(KeyWidth),
}

const KINDS: [Kind; 11] = [
    Kind::Bits,
    Kind::Fixed(Width::One),
    Kind::Fixed(Width::Two),
    Kind::Fixed(Width::Four),
    Kind::Fixed(Width::Eight),
    Kind::Fixed(Width::Sixteen),
    Kind::Double,
    Kind::Strings(OffsetWidth::Bits32),
    Kind::Strings(OffsetWidth::Bits64),
    Kind::Dictionary(KeyWidth::Two),
    Kind::Dictionary(KeyWidth::Four),
];

impl HostColumn {
    fn rows(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn pick(&self, rows: &[usize]) -> Self {
        Self {
            kind: self.kind,
            values: rows.iter().map(|at| self.values[*at].clone()).collect(),
            validity: self
                .validity
                .as_ref()
                .map(|it| rows.iter().map(|at| it[*at]).collect()),
        }
    }

    fn is_valid(&self, row: usize) -> bool {
        self.validity.as_ref().is_none_or(|it| it[row])
    }

    /// The entries of a dictionary of its values, which is a column of strings, each at the first place it has here.
    fn entries(&self) -> Self {
        let mut values: Vec<Vec<u8>> = Vec::new();
        for value in &self.values {
            if !values.contains(value) {
                values.push(value.clone());
            }
        }
        Self {
            kind: Kind::Strings(OffsetWidth::Bits32),
            values,
            validity: None,
        }
    }

    /// As Arrow lays it out.
    pub(crate) fn buffers(&self) -> Vec<Bytes> {
        let validity = self.validity.as_ref().map(|it| bitmap(it));
        let values = match self.kind {
            Kind::Bits => vec![bitmap(
                &self.values.iter().map(|it| it[0] == 1).collect::<Vec<_>>(),
            )],
            Kind::Fixed(_) | Kind::Double => vec![self.values.concat().into()],
            Kind::Dictionary(width) => {
                let entries = self.entries().values;
                let key = |value| entries.iter().position(|it| it == value).unwrap() as u64;
                let key = |value| key(value).to_le_bytes()[..key_bytes(width)].to_vec();
                vec![self.values.iter().flat_map(key).collect()]
            }
            Kind::Strings(width) => {
                let mut end = 0_u64;
                let mut offsets = offset(width, 0);
                for value in &self.values {
                    end += value.len() as u64;
                    offsets.extend(offset(width, end));
                }
                vec![offsets.into(), self.values.concat().into()]
            }
        };
        validity.into_iter().chain(values).collect()
    }

    /// From a column's buffers, which are used up. `entries` are those of its dictionary.
    fn read(
        like: &Self,
        rows: usize,
        has_validity: bool,
        entries: &[Vec<u8>],
        buffers: &mut impl Iterator<Item = Bytes>,
    ) -> Self {
        let validity = has_validity.then(|| bits(&buffers.next().unwrap(), rows));
        let bytes = buffers.next().unwrap();
        let values = match like.kind {
            Kind::Bits => bits(&bytes, rows)
                .into_iter()
                .map(|it| vec![u8::from(it)])
                .collect(),
            Kind::Fixed(_) | Kind::Double if rows == 0 => Vec::new(),
            Kind::Fixed(_) | Kind::Double => bytes
                .chunks(bytes.len() / rows)
                .map(<[u8]>::to_vec)
                .collect(),
            Kind::Dictionary(width) => {
                let keys = bytes.chunks(key_bytes(width)).map(number);
                keys.map(|key| entries[key].clone()).collect()
            }
            Kind::Strings(width) => {
                let data = buffers.next().unwrap();
                let offsets = bytes.chunks(width.bytes() as usize).map(number);
                let offsets: Vec<usize> = offsets.collect();
                assert_eq!((offsets.len(), offsets[0]), (rows + 1, 0));
                assert_eq!(offsets[rows], data.len());
                offsets
                    .windows(2)
                    .map(|ends| data[ends[0]..ends[1]].to_vec())
                    .collect()
            }
        };
        Self {
            kind: like.kind,
            values,
            validity,
        }
    }
}

fn number(bytes: &[u8]) -> usize {
    let bytes = bytes.iter().rev();
    bytes.fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

fn key_bytes(width: KeyWidth) -> usize {
    Width::from(width).bytes() as usize
}

fn offset(width: OffsetWidth, value: u64) -> Vec<u8> {
    value.to_le_bytes()[..width.bytes() as usize].to_vec()
}

fn bitmap(bits: &[bool]) -> Bytes {
    let byte = |bits: &[bool]| {
        (0..)
            .zip(bits)
            .fold(0_u8, |byte, (at, bit)| byte | u8::from(*bit) << at)
    };
    bits.chunks(8).map(byte).collect()
}

fn bits(bitmap: &[u8], count: usize) -> Vec<bool> {
    (0..count)
        .map(|at| bitmap[at / 8] >> (at % 8) & 1 == 1)
        .collect()
}

pub(crate) fn uploaded(bench: &Bench, table: &[HostColumn]) -> Vec<Column> {
    let buffers: Vec<Bytes> = table.iter().flat_map(HostColumn::buffers).collect();
    let partition = Partition::new(Bytes::new(), buffers);
    let on_device = block_on(bench.tiers.upload(&partition)).unwrap();
    let buffer = block_on(bench.tiers.to_device(on_device.payload())).unwrap();
    let mut regions = on_device
        .buffers()
        .map(|(at, bytes)| Region::new(&buffer, at, bytes).unwrap());
    let mut columns = Vec::new();
    for column in table {
        let validity = column.validity.as_ref().map(|_| regions.next().unwrap());
        let first = regions.next().unwrap();
        let values = match column.kind {
            Kind::Bits => Values::Bits(first),
            Kind::Fixed(width) => Values::Fixed(width, first),
            Kind::Double => Values::Floats(FloatWidth::Bits64, first),
            Kind::Strings(width) => {
                let bytes = regions.next().unwrap();
                // SAFETY: `buffers` made the offsets.
                Values::Strings(unsafe { Strings::new(width, first, bytes) })
            }
            Kind::Dictionary(width) => {
                let entries = uploaded(bench, &[column.entries()]).remove(0);
                // SAFETY: `buffers` made the keys, of the same entries.
                let made = unsafe { Dictionary::new(width, first, Arc::new(entries)) };
                Values::Dictionary(made.unwrap())
            }
        };
        columns.push(Column::new(column.rows() as u32, validity, values).unwrap());
    }
    columns
}

/// The entries of a column's dictionary, if it has one.
fn entries_of(bench: &Bench, column: &Column) -> Vec<Vec<u8>> {
    let Values::Dictionary(dictionary) = column.values() else {
        return Vec::new();
    };
    let entries = Column::clone(dictionary.entries());
    let rows = entries.rows() as usize;
    // Put behind nothing, they are in a piece of memory of their own.
    let entries = block_on(kernels(bench).concat(&[vec![entries]])).unwrap();
    let like = HostColumn {
        kind: Kind::Strings(OffsetWidth::Bits32),
        values: vec![Vec::new(); rows],
        validity: None,
    };
    downloaded(bench, &entries, &[like]).remove(0).values
}

/// A table like that one, from the device.
pub(crate) fn downloaded(bench: &Bench, packed: &Packed, like: &[HostColumn]) -> Vec<HostColumn> {
    let budget = Budget::new("host", u64::MAX);
    let bytes = packed.buffer.bytes();
    let to = HostBuffer::uncleared(bytes as usize, budget.try_reserve(bytes).unwrap());
    let downloading = bench
        .tiers
        .copies()
        .download_host(Arc::clone(&packed.buffer), to);
    let payload = downloading.wait().unwrap().1.freeze();
    let mut at = 0;
    let mut buffers = packed.buffer_bytes.iter().map(|bytes| {
        let bytes = *bytes as usize;
        let buffer = payload.slice(at..at + bytes);
        at += bytes.next_multiple_of(64);
        buffer
    });
    let columns = packed.columns.iter().zip(like);
    columns
        .map(|(column, like)| {
            HostColumn::read(
                like,
                column.rows() as usize,
                column.validity().is_some(),
                &entries_of(bench, column),
                &mut buffers,
            )
        })
        .collect()
}

/// The hash of a row, as the host computes it.
fn hash(table: &[HostColumn], keys: &[usize], row: usize) -> u64 {
    keys.iter().fold(0, |hash, key| {
        let column = &table[*key];
        let value = &column.values[row];
        let number = || {
            value
                .iter()
                .rev()
                .fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte))
        };
        let own = match column.kind {
            _ if !column.is_valid(row) => NULL_HASH,
            Kind::Strings(_) | Kind::Dictionary(_) => hash_of_bytes(value),
            Kind::Fixed(Width::Sixteen) => hash_of_wide(number()),
            Kind::Double => hash_of(canonical_f64(f64::from_bits(number() as u64))),
            Kind::Bits | Kind::Fixed(_) => hash_of(number() as u64),
        };
        combined(hash, own)
    })
}

fn value(kind: Kind) -> BoxedStrategy<Vec<u8>> {
    let bytes = |count: u64| {
        let any = proptest::collection::vec(any::<u8>(), count as usize);
        // Few different ones, and those that programs like to take for markers.
        prop_oneof![
            any,
            Just(vec![0; count as usize]),
            Just(vec![0xff; count as usize]),
            (0_u8..4).prop_map(move |it| vec![it; count as usize])
        ]
    };
    match kind {
        Kind::Bits => (0_u8..2).prop_map(|it| vec![it]).boxed(),
        Kind::Fixed(width) => bytes(width.bytes()).boxed(),
        Kind::Double => prop_oneof![
            Just(0.0),
            Just(-0.0),
            Just(f64::NAN),
            Just(-f64::NAN),
            Just(f64::INFINITY),
            any::<f64>()
        ]
        .prop_map(|it: f64| it.to_le_bytes().to_vec())
        .boxed(),
        Kind::Strings(_) | Kind::Dictionary(_) => prop_oneof![
            Just(Vec::new()),
            proptest::collection::vec(any::<u8>(), 0..20),
            proptest::collection::vec(any::<u8>(), 0..300),
        ]
        .boxed(),
    }
}

fn column(kind: Kind, rows: usize) -> impl Strategy<Value = HostColumn> {
    let values = proptest::collection::vec(value(kind), rows);
    let validity = proptest::option::of(proptest::collection::vec(
        proptest::bool::weighted(0.8),
        rows,
    ));
    (values, validity).prop_map(move |(values, validity)| HostColumn {
        kind,
        values,
        validity,
    })
}

fn rows() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0_usize),
        Just(1),
        2..70_usize,
        Just(1_023),
        Just(1_025)
    ]
}

/// A table of some kinds of columns, and a mask.
fn table() -> impl Strategy<Value = (Vec<HostColumn>, HostColumn)> {
    let kinds = proptest::sample::subsequence(KINDS.to_vec(), 1..=4);
    (rows(), kinds).prop_flat_map(|(rows, kinds)| {
        let columns: Vec<_> = kinds
            .into_iter()
            .map(|kind| column(kind, rows).boxed())
            .collect();
        (columns, column(Kind::Bits, rows))
    })
}

pub(crate) fn kernels(bench: &Bench) -> Kernels {
    Kernels::load(bench.tiers.memory(), bench.tiers.pinned()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_filter_keeps_the_rows_whose_mask_is_true((table, mask) in table()) {
        let bench = Bench::new(32 * MIB, MIB);
        let kernels = kernels(&bench);
        let (columns, on_device) = (uploaded(&bench, &table), uploaded(&bench, std::slice::from_ref(&mask)));
        let filtered = block_on(kernels.filter(&columns, &on_device[0])).unwrap();
        let kept: Vec<usize> = (0..mask.rows()).filter(|row| mask.is_valid(*row) && mask.values[*row] == [1]).collect();
        let expected: Vec<HostColumn> = table.iter().map(|column| column.pick(&kept)).collect();
        prop_assert_eq!(downloaded(&bench, &filtered, &table), expected);
    }

    #[test]
    fn a_partition_has_its_rows_in_their_order((table, _) in table(), partitions in 1..9_u32, key in any::<prop::sample::Index>()) {
        let bench = Bench::new(32 * MIB, MIB);
        let kernels = kernels(&bench);
        let keys: Vec<usize> = (key.index(table.len())..table.len()).collect();
        let partitions = NonZeroU32::new(partitions).unwrap();
        let columns = uploaded(&bench, &table);
        let parts = block_on(kernels.partition(&columns, &keys, partitions)).unwrap();
        prop_assert_eq!(parts.len(), partitions.get() as usize);
        for (number, part) in (0..).zip(&parts) {
            let is_of = |row: &usize| partition_of(hash(&table, &keys, *row), partitions.get()) == number;
            let kept: Vec<usize> = (0..table[0].rows()).filter(is_of).collect();
            let expected: Vec<HostColumn> = table.iter().map(|column| column.pick(&kept)).collect();
            prop_assert_eq!(downloaded(&bench, part, &table), expected);
        }
    }

    #[test]
    fn tables_behind_each_other_are_one_table((table, mask) in table(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..3)) {
        let bench = Bench::new(32 * MIB, MIB);
        let kernels = kernels(&bench);
        // The mask is a column, too; and one part has no validity where it has no nulls.
        let table: Vec<HostColumn> = table.into_iter().chain([mask]).collect();
        let rows = table[0].rows();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(rows + 1)).chain([0, rows]).collect();
        ends.sort_unstable();
        let part = |ends: &[usize]| {
            let rows: Vec<usize> = (ends[0]..ends[1]).collect();
            let cut = |column: &HostColumn| {
                let mut column = column.pick(&rows);
                if column.validity.as_ref().is_some_and(|it| it.iter().all(|is_valid| *is_valid)) {
                    column.validity = None;
                }
                column
            };
            table.iter().map(cut).collect::<Vec<_>>()
        };
        let parts: Vec<Vec<HostColumn>> = ends.windows(2).map(part).collect();
        let on_device: Vec<Vec<Column>> = parts.iter().map(|part| uploaded(&bench, part)).collect();
        let whole = block_on(kernels.concat(&on_device)).unwrap();
        let mut whole = downloaded(&bench, &whole, &table);
        for (column, expected) in whole.iter_mut().zip(&table) {
            let parts_have = |part: &Vec<HostColumn>| part.iter().zip(&table).any(|(it, of)| std::ptr::eq(of, expected) && it.validity.is_some());
            // Where no part has a null, nobody says so.
            if !parts.iter().any(parts_have) {
                prop_assert!(column.validity.is_none());
                column.validity = expected.validity.clone();
            }
        }
        prop_assert_eq!(whole, table);
    }
}

#[test]
fn what_does_not_belong_together_is_an_error() {
    let bench = Bench::new(32 * MIB, MIB);
    let kernels = kernels(&bench);
    let column = |kind, rows: usize| HostColumn {
        kind,
        values: vec![vec![1]; rows],
        validity: None,
    };
    let bytes = Kind::Fixed(Width::One);
    let table = uploaded(&bench, &[column(bytes, 10), column(Kind::Bits, 10)]);
    let other = uploaded(&bench, &[column(Kind::Bits, 9), column(Kind::Bits, 9)]);
    let partitions = NonZeroU32::new(2).unwrap();
    let errors = [
        block_on(kernels.filter(&table, &other[0])).unwrap_err(),
        block_on(kernels.filter(&table, &table[0])).unwrap_err(),
        block_on(kernels.partition(&table, &[2], partitions)).unwrap_err(),
        block_on(kernels.concat(&[table.clone(), other.clone()])).unwrap_err(),
        block_on(kernels.concat(&[table.clone(), table[..1].to_vec()])).unwrap_err(),
        block_on(kernels.concat(&[Vec::new()])).unwrap_err(),
        block_on(kernels.concat(&[])).unwrap_err(),
        block_on(kernels.partition(&[], &[], partitions)).unwrap_err(),
        Column::new(1_000, None, table[0].values().clone()).unwrap_err(),
    ];
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let expected = [
        "different lengths",
        "booleans",
        "no column",
        "different kinds",
        "different columns",
        "without columns",
        "no table",
        "without columns",
        "too few",
    ];
    for (told, part) in told.iter().zip(expected) {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn filtering_moves_no_column_over_the_bus() {
    let bench = Bench::new(32 * MIB, MIB);
    let kernels = kernels(&bench);
    let column = |kind| HostColumn {
        kind,
        values: (0..5_000_u32).map(|row| vec![(row % 2) as u8]).collect(),
        validity: None,
    };
    let columns = uploaded(
        &bench,
        &[column(Kind::Fixed(Width::One)), column(Kind::Bits)],
    );
    let before = bench.counts();
    let filtered = block_on(kernels.filter(&columns, &columns[1])).unwrap();
    assert_eq!(filtered.columns[0].rows(), 2_500);
    let counts = bench.counts().since(&before);
    // The number of rows is all that the host learns.
    assert_eq!((counts.to_pinned, counts.over_the_bus()), (1, 1));
}

#[test]
fn a_partition_learns_what_it_must_in_two_copies_however_many_parts_and_columns_there_are() {
    let bench = Bench::new(32 * MIB, MIB);
    let kernels = kernels(&bench);
    let column = |kind| HostColumn {
        kind,
        values: (0..500_u32)
            .map(|row| row.to_string().into_bytes())
            .collect(),
        validity: None,
    };
    let kinds = [
        OffsetWidth::Bits32,
        OffsetWidth::Bits64,
        OffsetWidth::Bits32,
    ];
    let table = kinds.map(|width| column(Kind::Strings(width)));
    let columns = uploaded(&bench, &table);
    let before = bench.counts();
    let partitions = NonZeroU32::new(64).unwrap();
    block_on(kernels.partition(&columns, &[0], partitions)).unwrap();
    let counts = bench.counts().since(&before);
    assert_eq!(
        (counts.to_pinned, counts.over_the_bus(), counts.within),
        (2, 2, 0)
    );
}

#[test]
fn operators_and_moves_can_be_awaited_on_any_thread() {
    fn on_any_thread<T: Send>(_: &T) {}
    let bench = Bench::new(32 * MIB, MIB);
    let kernels = kernels(&bench);
    let column = HostColumn {
        kind: Kind::Bits,
        values: vec![vec![1]; 10],
        validity: None,
    };
    let table = uploaded(&bench, &[column]);
    let partitions = NonZeroU32::new(2).unwrap();
    let tables = [table.clone()];
    on_any_thread(&kernels.filter(&table, &table[0]));
    on_any_thread(&kernels.partition(&table, &[0], partitions));
    on_any_thread(&kernels.concat(&tables));
    let buffer = bench.filled(MIB, 1);
    on_any_thread(&bench.tiers.to_device(&buffer));
    on_any_thread(&bench.tiers.to_pinned(&buffer));
    on_any_thread(&bench.tiers.to_disk(&buffer));
}

#[test]
fn a_filter_of_no_columns_says_how_many_rows_are_left() {
    let bench = Bench::new(32 * MIB, MIB);
    let mask = HostColumn {
        kind: Kind::Bits,
        values: (0..1_000).map(|row| vec![u8::from(row % 3 == 0)]).collect(),
        validity: None,
    };
    let mask = uploaded(&bench, &[mask]).remove(0);
    let filtered = block_on(kernels(&bench).filter(&[], &mask)).unwrap();
    assert_eq!((filtered.rows, filtered.columns.len()), (334, 0));
}

#[test]
fn columns_and_buffers_of_another_device_are_refused_with_both_numbers() {
    let bench = Bench::new(32 * MIB, 2 * MIB);
    if Device::count().unwrap() < 2 {
        return println!("skipped: there is one device");
    }
    let there = Device::open(1).unwrap();
    let there = DeviceMemory::take(&there, 4 * MIB).unwrap();
    let elsewhere = |bytes| there.try_allocate(bytes).unwrap();
    let own = |bytes| bench.tiers.memory().try_allocate(bytes).unwrap();
    let bits = Region::new(&Arc::new(elsewhere(64)), 0, 64).unwrap();
    let mask = Column::new(512, None, Values::Bits(bits)).unwrap();
    let (copies, pinned) = (bench.tiers.copies(), bench.tiers.pinned());
    let page = || pinned.try_allocate(64).unwrap();
    let errors = [
        block_on(kernels(&bench).filter(&[], &mask)).unwrap_err(),
        block_on(kernels(&bench).concat(&[vec![mask]])).unwrap_err(),
        copies
            .upload(Arc::new(page()), elsewhere(64))
            .wait()
            .unwrap_err(),
        copies
            .download(Arc::new(elsewhere(64)), page())
            .wait()
            .unwrap_err(),
        copies
            .copy(Arc::new(elsewhere(64)), own(64))
            .wait()
            .unwrap_err(),
        copies
            .copy(Arc::new(own(64)), elsewhere(64))
            .wait()
            .unwrap_err(),
        block_on(
            bench
                .tiers
                .to_device(&TieredBuffer::on_device(elsewhere(64))),
        )
        .unwrap_err(),
        block_on(
            bench
                .tiers
                .to_pinned(&TieredBuffer::on_device(elsewhere(64))),
        )
        .unwrap_err(),
    ];
    let expected = DeviceError::OtherDevice {
        expected: 0,
        actual: 1,
    };
    for error in errors {
        assert_eq!(error, expected);
    }
}
