//! Small tables in files.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow,
    SupplierArrow,
};

use crate::session::{FileOptions, Planner};

/// Rows of a row group: few, so that small files have several.
const ROW_GROUP_ROWS: usize = 5_000;

pub(super) fn write_parquet(path: &Path, batches: impl IntoIterator<Item = RecordBatch>) {
    let mut batches = batches.into_iter().peekable();
    let schema = batches.peek().expect("at least one batch").schema();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    let file = File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).expect("a writer");
    for batch in batches {
        writer.write(&batch).expect("writes");
    }
    writer.close().expect("closes");
}

fn made(
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> impl Iterator<Item = RecordBatch> {
    batches.map(|batch| batch.expect("a batch"))
}

/// The eight tables of TPC-H in `folder`, registered.
pub(super) async fn tpch(planner: &Planner, folder: &Path, scale: f64) {
    let path = |name: &str| folder.join(format!("{name}.parquet"));
    write_parquet(
        &path("lineitem"),
        made(LineItemArrow::new(LineItemGenerator::new(scale, 1, 1))),
    );
    write_parquet(
        &path("orders"),
        made(OrderArrow::new(OrderGenerator::new(scale, 1, 1))),
    );
    write_parquet(
        &path("customer"),
        made(CustomerArrow::new(CustomerGenerator::new(scale, 1, 1))),
    );
    write_parquet(
        &path("part"),
        made(PartArrow::new(PartGenerator::new(scale, 1, 1))),
    );
    write_parquet(
        &path("partsupp"),
        made(PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1))),
    );
    write_parquet(
        &path("supplier"),
        made(SupplierArrow::new(SupplierGenerator::new(scale, 1, 1))),
    );
    write_parquet(
        &path("nation"),
        made(NationArrow::new(NationGenerator::new(scale, 1, 1))),
    );
    write_parquet(
        &path("region"),
        made(RegionArrow::new(RegionGenerator::new(scale, 1, 1))),
    );
    for name in [
        "lineitem", "orders", "customer", "part", "partsupp", "supplier", "nation", "region",
    ] {
        register(planner, name, &path(name)).await;
    }
}

pub(super) async fn register(planner: &Planner, name: &str, path: &Path) {
    let path = path.to_str().expect("UTF-8");
    planner
        .register_table(name, path, &FileOptions::default())
        .await
        .expect(name);
}

/// Three tables with nulls, strings and keys without partners: `a` and `b` of some thousand rows, and an empty one.
pub(super) async fn small(planner: &Planner, folder: &Path) {
    let table = |name: &str, rows: i64, step: i64| {
        let some = |i: i64| (i % 7 != 3).then_some(i);
        let ids: ArrayRef = Arc::new(Int64Array::from_iter(
            (0..rows).map(|i| some(i * step % 5_003)),
        ));
        let groups: ArrayRef = Arc::new(StringArray::from_iter(
            (0..rows).map(|i| (i % 11 != 5).then(|| format!("group {}", i % 13))),
        ));
        let values: ArrayRef = Arc::new(Float64Array::from_iter(
            (0..rows).map(|i| some(i).map(|i| i as f64 / 4.0)),
        ));
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("id", ids, true),
            ("grp", groups, true),
            ("val", values, true),
        ])
        .expect("a batch");
        write_parquet(&folder.join(format!("{name}.parquet")), [batch]);
    };
    table("a", 12_000, 3);
    table("b", 9_000, 5);
    table("nothing", 0, 1);
    for name in ["a", "b", "nothing"] {
        register(planner, name, &folder.join(format!("{name}.parquet"))).await;
    }
}
