//! Exchanges on an emulated GPU, against the rows that went in.

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use cuda_emulator::Emulator;
use datafusion::arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit};
use futures::executor::block_on;
use transload_gpu::device::{Device, DeviceMemory, DevicePartition, Kernels, PinnedPool, Tiers};
use transload_gpu::{Budget, HostBuffer, Partition, SpillDirectory, Stored};
use transload_protocol::{Blob, TaskErrorKind};
use transload_runtime::OperatorError;

use super::columns::{Description, tables};
use super::concat::joined;
use super::partition::partitioned;
use super::{Gpu, carried, carried_schema, restored};
use crate::partition::{Metadata, Node, decode, encode};

const MIB: u64 = 1 << 20;

/// A GPU of the emulated machine, which all tests of the process share.
struct Bench {
    tiers: Tiers,
    kernels: Kernels,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::of(32 * MIB)
    }

    /// With so much memory on the device.
    fn of(device_bytes: u64) -> Self {
        static EMULATOR: OnceLock<Emulator> = OnceLock::new();
        EMULATOR.get_or_init(|| {
            let emulator = Emulator::new().expect("a machine").chaos(5);
            emulator.load().expect("its driver");
            emulator
        });
        let device = Device::open(0).expect("its device");
        let folder = tempfile::tempdir().expect("a folder");
        let directory = Arc::new(SpillDirectory::create(folder.path()).expect("a folder in it"));
        let memory = DeviceMemory::take(&device, device_bytes).expect("memory");
        let pinned = PinnedPool::new(&device, 4 * MIB);
        Self {
            kernels: Kernels::load(&memory, &pinned).expect("kernels"),
            tiers: Tiers::new(memory, pinned, directory).expect("tiers"),
            _folder: folder,
        }
    }

    fn gpu(&self) -> Gpu<'_> {
        Gpu {
            tiers: &self.tiers,
            kernels: &self.kernels,
        }
    }

    fn hashed(&self, partition: Partition, keys: &[usize], halved: bool) -> Made {
        let (stored, parts) = (Stored::Host(partition), NonZeroU32::new(3).expect("some"));
        block_on(partitioned(self.gpu(), &stored, keys, parts, halved))
    }

    /// Its batches, read as the host reads them.
    fn read(&self, partition: &DevicePartition) -> Vec<RecordBatch> {
        let bytes = partition.header().payload_bytes();
        let budget = Budget::new("host", u64::MAX);
        let reservation = budget.try_reserve(bytes).expect("fits");
        let to = HostBuffer::uncleared(usize::try_from(bytes).expect("small"), reservation);
        let there = block_on(self.tiers.download(partition, to)).expect("downloads");
        decode(&there).expect("batches").to_vec()
    }
}

type Made = Result<Vec<DevicePartition>, OperatorError>;

/// Types that numbers can be cast to.
fn types() -> Vec<DataType> {
    use DataType::*;
    let strings = [Utf8, LargeUtf8, Binary, LargeBinary, Utf8View, BinaryView];
    let keyed = |keys, values| Dictionary(Box::new(keys), Box::new(values));
    let others = [
        Boolean,
        Int8,
        UInt8,
        Int16,
        UInt16,
        Int32,
        UInt32,
        Int64,
        UInt64,
        Float16,
        Float32,
        Float64,
        Date32,
        Date64,
        Time32(TimeUnit::Second),
        Time64(TimeUnit::Microsecond),
        Timestamp(TimeUnit::Nanosecond, None),
        Timestamp(TimeUnit::Millisecond, Some("+02:00".into())),
        Duration(TimeUnit::Second),
        Interval(IntervalUnit::YearMonth),
        Interval(IntervalUnit::MonthDayNano),
        Decimal32(9, 2),
        Decimal64(18, 2),
        Decimal128(38, 4),
        FixedSizeBinary(4),
        keyed(Int32, Utf8),
        keyed(UInt64, LargeUtf8),
    ];
    strings.into_iter().chain(others).collect()
}

/// By way of whatever can be cast to it.
fn column(rows: std::ops::Range<i64>, data_type: &DataType) -> ArrayRef {
    let number = |row: i64| (row % 5 != 2).then_some(row * 7 % 100);
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter(rows.clone().map(number)));
    let via = |middle: DataType| {
        let middle = cast(&numbers, &middle).expect("casts");
        cast(&middle, data_type).unwrap_or_else(|error| panic!("{data_type}: {error}"))
    };
    match data_type {
        DataType::Date32 | DataType::Time32(_) | DataType::Interval(IntervalUnit::YearMonth) => {
            via(DataType::Int32)
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::Utf8View
        | DataType::Dictionary(_, _) => via(DataType::Utf8),
        DataType::Float16 => via(DataType::Float32),
        DataType::Interval(_) => via(DataType::Duration(TimeUnit::Nanosecond)),
        DataType::FixedSizeBinary(_) => {
            let text = |row| number(row).map(|number| format!("{number:04}"));
            let texts: ArrayRef = Arc::new(StringArray::from_iter(rows.map(text)));
            cast(&cast(&texts, &DataType::Binary).expect("casts"), data_type).expect("casts")
        }
        _ => via(DataType::Int64),
    }
}

/// A column of every type, and before them the number of each row.
fn batch(rows: std::ops::Range<i64>) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone()));
    let others = types().into_iter().enumerate().map(|(at, data_type)| {
        let values = column(rows.clone(), &data_type);
        (format!("c{at}"), values, true)
    });
    let first = ("id".to_owned(), ids, false);
    RecordBatch::try_from_iter_with_nullable([first].into_iter().chain(others)).expect("a batch")
}

/// As a stage before an exchange makes it.
fn as_carried(batches: &[RecordBatch]) -> Partition {
    let schema = carried_schema(&batches[0].schema()).expect("can be carried");
    let carried: Result<Vec<_>, _> = batches.iter().map(|it| carried(it, &schema)).collect();
    encode(&carried.expect("casts")).expect("encodes")
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    let ids = batch.column(0).as_any().downcast_ref::<Int64Array>();
    ids.expect("numbers").values().to_vec()
}

/// What the host reads after an exchange of `sources` into three partitions.
fn exchanged(
    bench: &Bench,
    sources: &[Vec<RecordBatch>],
    keys: &[usize],
    halved: bool,
) -> Vec<Vec<RecordBatch>> {
    let split: Vec<Vec<DevicePartition>> = sources
        .iter()
        .map(|batches| as_carried(batches))
        .map(|partition| bench.hashed(partition, keys, halved).expect("hashes"))
        .collect();
    let concat = |part: usize| {
        let inputs = split.iter().map(|made| Stored::Device(made[part].clone()));
        let whole = block_on(joined(bench.gpu(), inputs.collect())).expect("concatenates");
        let schema = sources[0][0].schema();
        let rows = bench.read(&whole);
        let restored = rows.iter().map(|it| restored(it, &schema).expect("casts"));
        restored.collect()
    };
    (0..3).map(concat).collect()
}

#[test]
fn every_row_arrives_once_with_all_its_columns_in_the_partition_of_its_key() {
    let bench = Bench::new();
    let sources = [
        vec![batch(0..40), batch(40..41), batch(41..90)],
        vec![batch(90..97)],
        vec![batch(97..130), batch(130..150)],
    ];
    let all = concat_batches(&sources[0][0].schema(), sources.iter().flatten()).expect("one");
    let strings = 1;
    let all_rows: Vec<i64> = (0..150).collect();
    for (keys, halved) in [
        (&[strings][..], false),
        (&[strings], true),
        (&[strings, 0], true),
        (&[10, 25, 29], false),
    ] {
        let parts = exchanged(&bench, &sources, keys, halved);
        let mut seen = Vec::new();
        let mut hashed = Vec::new();
        for part in &parts {
            assert!(part.len() <= 1, "one batch");
            for batch in part {
                let ids = ids(batch);
                assert!(ids.is_sorted(), "in order: {ids:?}");
                for (row, id) in ids.iter().enumerate() {
                    let at = usize::try_from(*id).expect("a row");
                    assert_eq!(batch.slice(row, 1), all.slice(at, 1), "{keys:?}");
                }
                seen.extend(ids);
                hashed.push(batch.clone());
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, all_rows);
        if keys == [strings] {
            assert_no_key_is_in_two(&hashed, strings);
        }
    }
}

fn assert_no_key_is_in_two(parts: &[RecordBatch], key: usize) {
    let keys_of = |part: &RecordBatch| {
        let column = part.column(key).as_any().downcast_ref::<StringArray>();
        let texts = column.expect("strings").iter();
        let texts = texts.map(|text| text.map(str::to_owned));
        texts.collect::<std::collections::BTreeSet<_>>()
    };
    let sets: Vec<_> = parts.iter().map(keys_of).collect();
    for (at, set) in sets.iter().enumerate() {
        for other in &sets[at + 1..] {
            assert!(set.is_disjoint(other));
        }
    }
}

#[test]
fn columns_without_nulls_and_with_nothing_else_stay_what_they_are() {
    let bench = Bench::new();
    let flags = |rows: std::ops::Range<i64>, is_null: bool| -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone()));
        let flag = |row: i64| (!is_null).then_some(row % 3 == 0);
        let flags: ArrayRef = Arc::new(BooleanArray::from_iter(rows.map(flag)));
        RecordBatch::try_from_iter_with_nullable([("id", ids, false), ("flag", flags, true)])
            .expect("a batch")
    };
    let sources = [vec![flags(0..40, false)], vec![flags(40..90, true)]];
    let parts = exchanged(&bench, &sources, &[0], false);
    let rows: usize = parts.iter().flatten().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 90);
    for batch in parts.iter().flatten() {
        let flags = batch.column(1).as_any().downcast_ref::<BooleanArray>();
        for (id, flag) in ids(batch).into_iter().zip(flags.expect("booleans")) {
            assert_eq!(flag, (id < 40).then_some(id % 3 == 0), "row {id}");
        }
    }
}

#[test]
fn in_halves_what_is_too_large_for_the_device_in_one_go_fits() {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..240_000));
    let batch = RecordBatch::try_from_iter([("id", ids)]).expect("a batch");
    let whole = as_carried(&[batch]);
    let bench = Bench::of(4 * MIB);
    let error = bench.hashed(whole.clone(), &[0], false);
    let error = error.expect_err("the rows twice, their hashes and order");
    assert_eq!(error.kind, TaskErrorKind::OutOfMemory, "{error}");
    let made = bench.hashed(whole, &[0], true).expect("fits");
    let mut seen: Vec<i64> = made.iter().flat_map(|it| ids_of(&bench, it)).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..240_000).collect::<Vec<i64>>());
    // One row has no halves.
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(7..8));
    let one = as_carried(&[RecordBatch::try_from_iter([("id", ids)]).expect("a batch")]);
    let made = bench.hashed(one, &[0], true).expect("fits");
    let seen: Vec<i64> = made.iter().flat_map(|it| ids_of(&bench, it)).collect();
    assert_eq!(seen, [7]);
}

fn ids_of(bench: &Bench, partition: &DevicePartition) -> Vec<i64> {
    bench.read(partition).iter().flat_map(ids).collect()
}

#[test]
fn no_rows_make_partitions_that_the_host_reads_as_no_rows() {
    let bench = Bench::new();
    let nothing = encode(&[]).expect("encodes");
    for halved in [false, true] {
        let made = bench.hashed(nothing.clone(), &[0], halved).expect("hashes");
        assert_eq!(made.len(), 3);
        assert!(made.iter().all(|it| bench.read(it).is_empty()));
    }
    // One row: the other partitions get none.
    let made = bench
        .hashed(as_carried(&[batch(4..5)]), &[0], false)
        .expect("hashes");
    let rows: Vec<usize> = made.iter().map(|it| bench.read(it).len()).collect();
    assert_eq!(rows.iter().sum::<usize>(), 1, "{rows:?}");
    let mut inputs: Vec<Stored> = made.into_iter().map(Stored::Device).collect();
    inputs.push(Stored::Host(nothing.clone()));
    let whole = block_on(joined(bench.gpu(), inputs)).expect("concatenates");
    assert_eq!(ids(&bench.read(&whole)[0]), [4]);
    for inputs in [vec![], vec![Stored::Host(nothing)]] {
        let whole = block_on(joined(bench.gpu(), inputs)).expect("concatenates");
        assert!(bench.read(&whole).is_empty());
    }
}

#[test]
fn rows_without_columns_are_counted_and_cannot_be_hashed() {
    let bench = Bench::new();
    let bare = |rows| {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::new(Schema::empty());
        let batch = RecordBatch::try_new_with_options(schema, vec![], &options);
        encode(&[batch.expect("a batch")]).expect("encodes")
    };
    let inputs = [bare(3), bare(4)].map(Stored::Host).to_vec();
    let whole = block_on(joined(bench.gpu(), inputs)).expect("counts");
    assert_eq!(bench.read(&whole)[0].num_rows(), 7);
    for keys in [&[][..], &[0]] {
        let error = bench.hashed(bare(3), keys, false).expect_err("no key");
        assert!(error.message.contains("is no column"), "{error}");
    }
}

#[test]
fn types_that_kernels_do_not_know_are_named_with_their_column() {
    let keyed = |keys, values| DataType::Dictionary(Box::new(keys), Box::new(values));
    let list = Field::new_list_field(DataType::Int32, true);
    for refused in [
        DataType::Null,
        DataType::Decimal256(50, 2),
        DataType::FixedSizeBinary(20),
        DataType::List(Arc::new(list)),
        keyed(DataType::Int8, DataType::Utf8),
        keyed(DataType::Int32, DataType::Int64),
    ] {
        let schema = Schema::new(vec![
            Field::new("fine", DataType::Utf8View, true),
            Field::new("bad", refused.clone(), true),
        ]);
        let reason = carried_schema(&schema).expect_err("refused");
        let named = reason.contains("column bad") && reason.contains(&refused.to_string());
        assert!(named, "{reason}");
    }
}

/// The partition with other metadata.
fn with_metadata(partition: &Partition, change: impl FnOnce(&mut Metadata)) -> Partition {
    let mut metadata = Metadata::decode(partition.metadata()).expect("ours");
    change(&mut metadata);
    let metadata = metadata.encode().expect("encodes").0;
    Partition::new(metadata, partition.buffers().to_vec())
}

#[test]
fn partitions_that_contradict_themselves_are_errors_before_and_on_the_device() {
    let bench = Bench::new();
    let right = as_carried(&[batch(0..9), batch(9..20)]);
    let node = |rows, has_validity, buffers| Node {
        rows,
        has_validity,
        buffers,
    };
    let lies: [fn(&mut Metadata); 8] = [
        |it| it.rows[0] += 1,
        |it| it.rows[1] = u64::MAX,
        |it| it.rows.push(0),
        |it| it.nodes.truncate(3),
        |it| it.schema = b"nonsense".to_vec().into(),
        |it| it.schema = Blob::default(),
        |it| it.nodes.swap(0, 1),
        |it| it.nodes.iter_mut().for_each(|node| node.buffers = u32::MAX),
    ];
    for lie in lies {
        let error = bench.hashed(with_metadata(&right, lie), &[0], false);
        let error = error.expect_err("a lie").message;
        assert!(error.contains("malformed partition"), "{error}");
    }
    let fewer = Partition::new(right.metadata().clone(), right.buffers()[1..].to_vec());
    assert!(bench.hashed(fewer, &[0], false).is_err());
    // More rows than the buffers have, said everywhere.
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..9));
    let narrow = RecordBatch::try_from_iter([("id", ids)]).expect("a batch");
    let longer = with_metadata(&as_carried(&[narrow]), |it| {
        it.rows[0] = 10;
        it.nodes[0] = node(10, false, 1);
    });
    let error = bench.hashed(longer, &[0], false).expect_err("too short");
    assert!(error.message.contains("too few"), "{error}");
}

#[test]
fn offsets_that_point_elsewhere_are_found_before_they_are_followed() {
    let bench = Bench::new();
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["one", "two", "three"]));
    let texts = RecordBatch::try_from_iter([("text", texts)]).expect("a batch");
    let right = as_carried(&[texts]);
    let mut buffers = right.buffers().to_vec();
    buffers[0] = [0_i32, 3, 1_000_000, 11]
        .iter()
        .flat_map(|it| it.to_le_bytes())
        .collect();
    let wrong = Partition::new(right.metadata().clone(), buffers);
    let error = bench.hashed(wrong, &[0], false).expect_err("wrong offsets");
    assert!(error.message.contains("do not rise"), "{error}");
}

#[test]
fn damaged_metadata_never_ends_in_more_than_an_error() {
    let bench = Bench::new();
    let right = as_carried(&[batch(0..9), batch(9..12)]);
    let metadata = right.metadata();
    for at in 0..metadata.len() {
        let mut damaged = metadata.to_vec();
        damaged[at] ^= 1 << (at % 8);
        let damaged = Partition::new(damaged.into(), right.buffers().to_vec());
        let Ok(described) = Description::of(&damaged.header()) else {
            continue;
        };
        // An upload of each would take a minute.
        if at % 16 != 0 {
            continue;
        }
        // Either way is right: some bits say nothing that the buffers contradict.
        let _ = block_on(tables(bench.gpu(), &described, &Stored::Host(damaged)));
    }
}

#[test]
fn columns_of_other_types_are_not_put_behind_each_other() {
    let bench = Bench::new();
    let one = |data_type| {
        let values = column(0..5, &data_type);
        let batch = RecordBatch::try_from_iter([("c", values)]).expect("a batch");
        Stored::Host(as_carried(&[batch]))
    };
    // Of the same width.
    let inputs = vec![one(DataType::Int64), one(DataType::Date64)];
    let error = block_on(joined(bench.gpu(), inputs)).expect_err("refused");
    assert!(error.message.contains("Date64"), "{error}");
}
