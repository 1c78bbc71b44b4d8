//! Every format over the same awkward values.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn awkward() -> RecordBatch {
    let decimals = Decimal128Array::from(vec![Some(1_234_567), Some(-5), None])
        .with_precision_and_scale(15, 2)
        .expect("fits");
    let columns: [(&str, ArrayRef); 5] = [
        (
            "n",
            Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(-1), None])),
        ),
        (
            "f",
            Arc::new(Float64Array::from(vec![Some(0.1 + 0.2), Some(1e300), None])),
        ),
        ("d", Arc::new(decimals)),
        (
            "t",
            Arc::new(StringArray::from(vec![
                Some("a,\"b\"\nc\u{1b}"),
                Some(""),
                None,
            ])),
        ),
        (
            "day",
            Arc::new(Date32Array::from(vec![Some(0), Some(20_000), None])),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))
        .expect("a batch")
}

fn written(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
    let mut destination = Destination::Memory(Vec::new());
    let schema = batches[0].schema();
    let mut out = writer(format, &schema, &mut destination).expect("a writer");
    for batch in batches {
        out.write(batch).expect("writes");
    }
    out.finish().expect("finishes");
    match destination {
        Destination::Memory(bytes) => bytes,
        Destination::Stdout(_) | Destination::File { .. } | Destination::Special(_) => {
            panic!("was memory")
        }
    }
}

fn text(format: Format, batches: &[RecordBatch]) -> String {
    String::from_utf8(written(format, batches)).expect("text")
}

#[test]
fn a_table_shows_exact_numbers_and_no_raw_control_characters() {
    assert_eq!(
        text(Format::Table, &[awkward()]),
        "\
+---------------------+---------------------+----------+---------+------------+
| n                   | f                   | d        | t       | day        |
+---------------------+---------------------+----------+---------+------------+
| 9223372036854775807 | 0.30000000000000004 | 12345.67 | a,\"b\"   | 1970-01-01 |
|                     |                     |          | c\\u{1b} |            |
|                  -1 |               1e300 |    -0.05 |         | 2024-10-04 |
|                NULL |                NULL |     NULL | NULL    | NULL       |
+---------------------+---------------------+----------+---------+------------+
"
    );
}

#[test]
fn csv_tells_no_value_from_an_empty_text() {
    assert_eq!(
        text(Format::Csv, &[awkward()]),
        "n,f,d,t,day\n\
         9223372036854775807,0.30000000000000004,12345.67,\"a,\"\"b\"\"\nc\u{1b}\",1970-01-01\n\
         -1,1e300,-0.05,\"\",2024-10-04\n\
         ,,,,\n"
    );
}

#[test]
fn json_is_one_object_per_line_with_every_column() {
    let text = text(Format::Json, &[awkward()]);
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["n"], serde_json::json!(i64::MAX));
    assert_eq!(lines[0]["t"], "a,\"b\"\nc\u{1b}");
    assert!(text.contains("12345.67") && text.contains("0.30000000000000004"));
    assert_eq!(lines[2].as_object().expect("an object").len(), 5);
    assert!(lines[2]["day"].is_null());
}

#[test]
fn parquet_reads_back_as_it_was() {
    let bytes = written(Format::Parquet, &[awkward(), awkward()]);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))
        .and_then(|builder| builder.build())
        .expect("a parquet file");
    let batches: Vec<RecordBatch> = reader.map(|batch| batch.expect("a batch")).collect();
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].slice(3, 3), awkward());
}

#[test]
fn an_empty_result_still_has_its_header() {
    let empty = awkward().slice(0, 0);
    assert_eq!(
        text(Format::Csv, std::slice::from_ref(&empty)),
        "n,f,d,t,day\n"
    );
    assert!(text(Format::Table, std::slice::from_ref(&empty)).contains("| n | f | d | t | day |"));
}

#[test]
fn a_column_name_that_comes_twice_is_kept_twice() {
    let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let two: ArrayRef = Arc::new(Int64Array::from(vec![2]));
    let batch = RecordBatch::try_from_iter([("x", one), ("x", two)]).expect("a batch");
    assert_eq!(text(Format::Json, &[batch]), "{\"x\":1,\"x_2\":2}\n");
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out.txt");
    let mut dropped = Destination::file(&path).expect("a destination");
    io::Write::write_all(&mut dropped, b"half").expect("writes");
    assert!(!path.exists());
    drop(dropped);
    assert_eq!(folder.path().read_dir().expect("lists").count(), 0);
    let mut kept = Destination::file(&path).expect("a destination");
    io::Write::write_all(&mut kept, b"whole").expect("writes");
    kept.commit().expect("commits");
    assert_eq!(std::fs::read(&path).expect("reads"), b"whole");
    assert!(Destination::file(folder.path()).is_err());
    assert!(Destination::file(&folder.path().join("no/such")).is_err());
}
