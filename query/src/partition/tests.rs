//! Round trips of every type, slices and damaged bytes. Run by `cargo test`; knows the encoding through its two functions.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BinaryViewArray, BooleanArray, Decimal128Array, DictionaryArray,
    FixedSizeBinaryArray, FixedSizeListArray, Float64Array, Int32Array, Int32Builder, Int64Array,
    Int64RunArray, LargeStringArray, ListArray, MapBuilder, NullArray, RecordBatch, StringArray,
    StringBuilder, StringViewArray, StructArray, UInt8Array, UnionArray,
};
use datafusion::arrow::buffer::ScalarBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, UnionFields};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use transload_gpu::Partition;

use super::{decode, encode};

/// One column of every kind that DataFusion makes, `rows` long.
fn columns(rows: usize) -> Vec<(&'static str, ArrayRef)> {
    let some = |index: usize| (index % 3 != 1).then_some(index);
    let text = |index: usize| some(index).map(|i| format!("{}-{i}", "long ".repeat(i % 7)));
    let texts: Vec<Option<String>> = (0..rows).map(text).collect();
    let ints: Vec<Option<i32>> = (0..rows).map(|i| some(i).map(|i| i as i32)).collect();
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..rows).map(|i| some(i).map(|i| (0..i % 5).map(|v| Some(v as i32)).collect::<Vec<_>>())),
    );
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..rows).map(|i| some(i).map(|i| vec![Some(i as i32), None])),
        2,
    );
    let dictionary: DictionaryArray<Int32Type> = (0..rows)
        .map(|i| some(i).map(|i| ["red", "green", "blue"][i % 3]))
        .collect();
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for row in 0..rows {
        for key in 0..row % 3 {
            map.keys().append_value(format!("k{key}"));
            map.values().append_value(row as i32);
        }
        map.append(row % 4 != 3).expect("even");
    }
    let int_column: ArrayRef = Arc::new(Int32Array::from(ints.clone()));
    let view_column: ArrayRef = Arc::new(StringViewArray::from_iter(
        texts.iter().map(|t| t.as_deref()),
    ));
    let structure = StructArray::from(vec![
        (
            Arc::new(Field::new("a", DataType::Int32, true)),
            Arc::clone(&int_column),
        ),
        (
            Arc::new(Field::new("b", DataType::Utf8View, true)),
            Arc::clone(&view_column),
        ),
    ]);
    let union_fields = UnionFields::try_new(
        [0, 1],
        [
            Field::new("i", DataType::Int32, true),
            Field::new("s", DataType::Utf8View, true),
        ],
    )
    .expect("fields");
    let union = UnionArray::try_new(
        union_fields,
        (0..rows)
            .map(|i| (i % 2) as i8)
            .collect::<ScalarBuffer<i8>>(),
        Some((0..rows).map(|i| i as i32).collect::<ScalarBuffer<i32>>()),
        vec![Arc::clone(&int_column), Arc::clone(&view_column)],
    )
    .expect("union");
    let run_ends: Vec<i64> = (1..=rows as i64)
        .filter(|end| end % 3 == 0 || *end == rows as i64)
        .collect();
    let run_values: Vec<i64> = (0..run_ends.len() as i64).collect();
    let mut all: Vec<(&'static str, ArrayRef)> = vec![
        ("null", Arc::new(NullArray::new(rows))),
        (
            "bool",
            Arc::new(BooleanArray::from_iter(
                (0..rows).map(|i| some(i).map(|i| i % 2 == 0)),
            )),
        ),
        (
            "u8",
            Arc::new(UInt8Array::from_iter_values((0..rows).map(|i| i as u8))),
        ),
        ("i32", int_column),
        (
            "f64",
            Arc::new(Float64Array::from_iter(
                (0..rows).map(|i| some(i).map(|i| i as f64 / 3.0)),
            )),
        ),
        (
            "decimal",
            Arc::new(
                Decimal128Array::from_iter((0..rows).map(|i| some(i).map(|i| i as i128)))
                    .with_precision_and_scale(20, 2)
                    .expect("fits"),
            ),
        ),
        (
            "text",
            Arc::new(StringArray::from_iter(texts.iter().map(|t| t.as_deref()))),
        ),
        (
            "large text",
            Arc::new(LargeStringArray::from_iter(
                texts.iter().map(|t| t.as_deref()),
            )),
        ),
        ("view", view_column),
        (
            "binary view",
            Arc::new(BinaryViewArray::from_iter(
                texts.iter().map(|t| t.as_ref().map(|t| t.as_bytes())),
            )),
        ),
        (
            "fixed binary",
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                    (0..rows).map(|i| some(i).map(|i| [i as u8, 1, 2])),
                    3,
                )
                .expect("fits"),
            ),
        ),
        ("list", Arc::new(list)),
        ("fixed list", Arc::new(fixed)),
        ("map", Arc::new(map.finish())),
        ("dictionary", Arc::new(dictionary)),
        ("struct", Arc::new(structure)),
        ("union", Arc::new(union)),
    ];
    if rows > 0 {
        let runs =
            Int64RunArray::try_new(&Int64Array::from(run_ends), &Int64Array::from(run_values))
                .expect("runs");
        all.push(("runs", Arc::new(runs)));
    }
    all
}

fn batch(rows: usize) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns(rows).into_iter().map(|(n, a)| (n, a, true)))
        .expect("a batch")
}

/// Values as text: arrays that print alike are alike, whatever their buffers look like.
fn shown(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).expect("printable"))
            .collect();
        for row in 0..batch.num_rows() {
            rows.push(
                columns
                    .iter()
                    .map(|column| column.value(row).to_string())
                    .collect(),
            );
        }
    }
    rows
}

/// The partition as it arrives in another process: every buffer a slice of one aligned payload, no decoded form.
fn received(partition: &Partition) -> Partition {
    let mut payload = Vec::new();
    for buffer in partition.buffers() {
        payload.extend_from_slice(buffer);
        payload.resize(payload.len().next_multiple_of(64), 0);
    }
    let aligned = datafusion::arrow::buffer::MutableBuffer::from(payload);
    let payload =
        bytes::Bytes::from_owner(datafusion::arrow::buffer::Buffer::from(aligned).to_vec());
    partition.header().assemble(payload).expect("belongs")
}

#[test]
fn every_type_reads_back_in_this_process_and_in_another() {
    for rows in [1, 2, 7, 100, 1000] {
        let batches = [batch(rows), batch(rows).slice(rows / 3, rows / 2)];
        let partition = encode(&batches).expect("encodes");
        let want = shown(&batches);
        assert_eq!(shown(&decode(&partition).expect("decodes")), want);
        assert_eq!(
            shown(&decode(&received(&partition)).expect("decodes")),
            want
        );
    }
}

#[test]
fn no_rows_make_an_empty_partition() {
    for batches in [vec![], vec![batch(0)], vec![batch(5).slice(5, 0)]] {
        let partition = encode(&batches).expect("encodes");
        assert!(partition.buffers().is_empty());
        assert!(decode(&received(&partition)).expect("decodes").is_empty());
    }
}

#[test]
fn a_batch_without_columns_keeps_its_row_count() {
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(17));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)
        .expect("a batch");
    let partition = encode(&[batch]).expect("encodes");
    assert_eq!(
        decode(&received(&partition)).expect("decodes")[0].num_rows(),
        17
    );
}

#[test]
fn a_small_slice_never_drags_a_large_buffer_along() {
    let rows = 100_000;
    for (name, column) in columns(rows) {
        let whole =
            RecordBatch::try_from_iter_with_nullable([(name, column, true)]).expect("a batch");
        for start in [0, 1, 50_001] {
            let partition = encode(&[whole.slice(start, 100)]).expect("encodes");
            assert!(
                partition.bytes() < 40_000,
                "{name} from {start}: {} B on the wire",
                partition.bytes()
            );
            let held: usize =
                decode(&partition).expect("decodes")[0].columns()[0].get_buffer_memory_size();
            assert!(
                held < 60_000,
                "{name} from {start}: {held} B held in memory"
            );
        }
    }
}

#[test]
fn full_buffers_are_shared_not_copied() {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
    let at = column.to_data().buffers()[0].as_ptr();
    let partition =
        encode(&[RecordBatch::try_from_iter([("a", column)]).expect("a batch")]).expect("encodes");
    assert_eq!(partition.buffers()[0].as_ptr(), at, "encoded in place");
    let partition = received(&partition);
    let decoded = decode(&partition).expect("decodes");
    let at = decoded[0].column(0).to_data().buffers()[0].as_ptr();
    assert_eq!(partition.buffers()[0].as_ptr(), at, "decoded in place");
}

#[test]
fn batches_of_two_schemas_are_refused() {
    let one = RecordBatch::try_from_iter([("a", Arc::new(Int32Array::from(vec![1])) as ArrayRef)])
        .expect("a batch");
    let two = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)])
        .expect("a batch");
    assert!(
        encode(&[one, two])
            .expect_err("two schemas")
            .to_string()
            .contains("several schemas")
    );
}

/// Numbers that look random and follow from a seed.
struct Random(u64);

impl Random {
    /// The next number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit.max(1) as u64).expect("small")
    }
}

#[test]
fn every_slice_reads_back() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let rows = 1 + random.below(200);
        let whole = batch(rows);
        let batches: Vec<_> = (0..1 + random.below(3))
            .map(|_| {
                let start = random.below(rows);
                let inner = whole.slice(start, random.below(rows - start + 1));
                let again = random.below(inner.num_rows() + 1);
                inner.slice(again, inner.num_rows() - again)
            })
            .collect();
        let partition = encode(&batches).expect("encodes");
        let want = shown(&batches);
        assert_eq!(
            shown(&decode(&partition).expect("decodes")),
            want,
            "seed {seed}"
        );
        let partition = received(&partition);
        assert_eq!(
            shown(&decode(&partition).expect("decodes")),
            want,
            "seed {seed}"
        );
    }
}

#[test]
fn arbitrary_metadata_never_panics() {
    for seed in 0..2_000 {
        let mut random = Random(seed);
        let metadata: Vec<u8> = (0..random.below(200))
            .map(|_| u8::try_from(random.below(256)).expect("a byte"))
            .collect();
        let buffers = vec![bytes::Bytes::from_static(&[0; 64])];
        let _ = decode(&Partition::new(metadata.into(), buffers));
    }
}

#[test]
fn damaged_partitions_never_panic() {
    let whole = received(&encode(&[batch(50)]).expect("encodes"));
    for seed in 0..4_000 {
        let mut random = Random(seed);
        let mut metadata = whole.metadata().to_vec();
        let mut buffers = whole.buffers().to_vec();
        let value = u8::try_from(random.below(256)).expect("a byte");
        if seed % 2 == 0 {
            let at = random.below(metadata.len());
            metadata[at] = value;
        } else {
            let which = random.below(buffers.len());
            let mut bytes = buffers[which].to_vec();
            let at = random.below(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            buffers[which] = bytes.into();
        }
        if let Ok(batches) = decode(&Partition::new(metadata.into(), buffers)) {
            let _ = shown(&batches);
        }
    }
}

#[test]
fn missing_buffers_are_an_error() {
    let partition = received(&encode(&[batch(50)]).expect("encodes"));
    for keep in 0..partition.buffers().len() {
        let buffers = partition.buffers()[..keep].to_vec();
        assert!(decode(&Partition::new(partition.metadata().clone(), buffers)).is_err());
    }
}

#[test]
fn int64_dictionaries_lose_values_nobody_uses() {
    let values = StringArray::from_iter_values((0..10_000).map(|i| format!("value {i}")));
    let keys = datafusion::arrow::array::PrimitiveArray::<Int64Type>::from(vec![3, 9_999]);
    let column: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::new(values)));
    let batch = RecordBatch::try_from_iter([("d", column)]).expect("a batch");
    let partition = encode(std::slice::from_ref(&batch)).expect("encodes");
    assert!(partition.bytes() < 1_000);
    assert_eq!(
        shown(&decode(&received(&partition)).expect("decodes")),
        shown(&[batch])
    );
}
