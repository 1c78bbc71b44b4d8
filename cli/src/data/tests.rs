//! Data files are complete, in order, and never half there.

use std::fs::File;

use datafusion::arrow::array::{Int64Array, RecordBatch};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn request(out: &Path) -> TpchRequest {
    TpchRequest {
        scale: 0.01,
        out: out.to_owned(),
        format: DataFormat::Parquet,
        parts: 1,
        row_group_rows: 4_000,
        tables: Table::ALL.to_vec(),
        force: false,
    }
}

fn make(request: &TpchRequest) -> Result<Vec<MadeTable>, Failure> {
    make_tpch(request, &MakeProgress::default())
}

fn first_column(paths: &[PathBuf]) -> (Vec<i64>, usize) {
    let (mut keys, mut row_groups) = (Vec::new(), 0);
    for path in paths {
        let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("opens"))
            .expect("a parquet file");
        row_groups += builder.metadata().num_row_groups();
        for batch in builder.build().expect("reads") {
            let batch: RecordBatch = batch.expect("a batch");
            let column = batch.column(0).as_any().downcast_ref::<Int64Array>();
            keys.extend(column.expect("keys").values());
        }
    }
    (keys, row_groups)
}

#[test]
fn the_tables_are_complete_in_order_and_cut_into_row_groups() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = make(&request(folder.path())).expect("makes");
    let rows: Vec<u64> = made.iter().map(|table| table.rows).collect();
    assert_eq!(rows, [60_175, 15_000, 8_000, 2_000, 1_500, 100, 25, 5]);
    let (keys, row_groups) = first_column(&[folder.path().join("orders.parquet")]);
    assert!(keys.is_sorted() && keys.len() == 15_000);
    assert_eq!(row_groups, 4);
    let files = folder.path().read_dir().expect("lists").count();
    assert_eq!(files, 8, "no partial file is left");
}

#[test]
fn parts_hold_the_same_rows_as_one_file() {
    let (one, three) = (tempfile::tempdir(), tempfile::tempdir());
    let (one, three) = (one.expect("a folder"), three.expect("a folder"));
    make(&request(one.path())).expect("makes");
    let parts = TpchRequest {
        parts: 3,
        ..request(three.path())
    };
    make(&parts).expect("makes");
    let paths: Vec<PathBuf> = (1..=3)
        .map(|part| three.path().join(format!("lineitem/part-{part}.parquet")))
        .collect();
    assert_eq!(
        first_column(&paths).0,
        first_column(&[one.path().join("lineitem.parquet")]).0
    );
    assert!(three.path().join("nation.parquet").exists());
}

#[test]
fn existing_files_are_only_replaced_by_force() {
    let folder = tempfile::tempdir().expect("a folder");
    let parquet = TpchRequest {
        tables: vec![Table::Supplier],
        ..request(folder.path())
    };
    make(&parquet).expect("makes");
    let error = make(&parquet).expect_err("files are in the way");
    assert!(error.message.contains("supplier.parquet exists"));
    let csv = TpchRequest {
        format: DataFormat::Csv,
        force: true,
        ..parquet
    };
    make(&csv).expect("replaces");
    let text = fs::read_to_string(folder.path().join("supplier.csv")).expect("reads");
    assert!(text.starts_with("s_suppkey,s_name,") && text.lines().count() == 101);
    assert!(!folder.path().join("supplier.parquet").exists());
}

#[test]
fn what_is_stopped_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let progress = MakeProgress::default();
    progress.stop.store(true, Ordering::Relaxed);
    let error = make_tpch(&request(folder.path()), &progress).expect_err("stopped");
    assert_eq!(error.exit.code(), 130);
    assert_eq!(folder.path().read_dir().expect("lists").count(), 0);
}
