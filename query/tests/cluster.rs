//! SQL on a real cluster of workers in threads: sockets, scheduling, partitions that move, limits that cancel, memory that is
//! short.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use futures::{StreamExt, TryStreamExt};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow,
    SupplierArrow,
};
use transload_query::{FileOptions, QueryError, SqlOptions, SqlSession, operators};
use transload_runtime::{Config, LocalCluster, LocalClusterOptions, WorkerMode};

const TABLES: [&str; 8] = [
    "lineitem", "orders", "customer", "part", "partsupp", "supplier", "nation", "region",
];

fn block_on<T: Send + 'static>(test: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { tokio::spawn(test).await.expect("the test ends") })
}

fn write(folder: &Path, name: &str, batches: impl IntoIterator<Item = RecordBatch>) {
    let mut batches = batches.into_iter().peekable();
    let schema = batches.peek().expect("a batch").schema();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(5_000))
        .build();
    let file = File::create(folder.join(format!("{name}.parquet"))).expect("a file");
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

fn write_tpch(folder: &Path, scale: f64) {
    write(
        folder,
        "lineitem",
        made(LineItemArrow::new(LineItemGenerator::new(scale, 1, 1))),
    );
    write(
        folder,
        "orders",
        made(OrderArrow::new(OrderGenerator::new(scale, 1, 1))),
    );
    write(
        folder,
        "customer",
        made(CustomerArrow::new(CustomerGenerator::new(scale, 1, 1))),
    );
    write(
        folder,
        "part",
        made(PartArrow::new(PartGenerator::new(scale, 1, 1))),
    );
    write(
        folder,
        "partsupp",
        made(PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1))),
    );
    write(
        folder,
        "supplier",
        made(SupplierArrow::new(SupplierGenerator::new(scale, 1, 1))),
    );
    write(
        folder,
        "nation",
        made(NationArrow::new(NationGenerator::new(scale, 1, 1))),
    );
    write(
        folder,
        "region",
        made(RegionArrow::new(RegionGenerator::new(scale, 1, 1))),
    );
}

struct Setting {
    folder: tempfile::TempDir,
    cluster: LocalCluster,
    session: SqlSession,
}

async fn setting(memory_per_worker_bytes: Option<u64>, scale: f64) -> Setting {
    let folder = tempfile::tempdir().expect("a folder");
    write_tpch(folder.path(), scale);
    let options = LocalClusterOptions {
        workers: 3,
        slots_per_worker: Some(1),
        memory_per_worker_bytes,
        spill_dir: Some(folder.path().to_owned()),
        mode: WorkerMode::Threads {
            operators: operators(),
        },
        config: Config::default(),
    };
    let cluster = LocalCluster::start(options).await.expect("starts");
    let client = cluster.client().await.expect("connects");
    let options = SqlOptions {
        partitions: Some(4),
        ..SqlOptions::default()
    };
    let session = SqlSession::new(client, options).expect("a session");
    answer(
        &session,
        "SET datafusion.optimizer.repartition_file_min_size = 1000",
    )
    .await
    .expect("sets");
    for name in TABLES {
        let path = folder.path().join(format!("{name}.parquet"));
        let path = path.to_str().expect("UTF-8").to_owned();
        session
            .register_table(name, &path, FileOptions::default())
            .await
            .expect("registers");
    }
    Setting {
        folder,
        cluster,
        session,
    }
}

async fn answer(session: &SqlSession, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
    session.execute(sql).await?.stream().try_collect().await
}

fn query(number: usize) -> String {
    let path = format!("{}/tests/tpch/q{number:02}.sql", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("a query")
}

fn shown(batches: &[RecordBatch]) -> String {
    let Some(first) = batches.first() else {
        return String::new();
    };
    let whole = concat_batches(&first.schema(), batches).expect("one schema");
    pretty_format_batches(&[whole])
        .expect("printable")
        .to_string()
}

#[test]
fn every_tpch_query_gives_datafusions_answer_on_three_workers() {
    block_on(async {
        let setting = setting(None, 0.01).await;
        let context = SessionContext::new();
        for name in TABLES {
            let path = setting.folder.path().join(format!("{name}.parquet"));
            let path = path.to_str().expect("UTF-8").to_owned();
            context
                .register_parquet(name, path, ParquetReadOptions::default())
                .await
                .expect("registers");
        }
        for number in 1..=22 {
            let sql = query(number);
            let want = context
                .sql(&sql)
                .await
                .expect("plans")
                .collect()
                .await
                .expect("runs");
            let got = answer(&setting.session, &sql).await.expect("runs");
            let (want, got) = (shown(&want), shown(&got));
            // Averages and quotients may differ in the last digits; everything else is decimal.
            if want != got {
                assert_eq!(rounded(&want), rounded(&got), "query {number}");
            }
        }
        setting.cluster.shutdown().await;
    });
}

/// Numbers with at most nine significant digits.
fn rounded(text: &str) -> String {
    let word = |word: &str| match word.parse::<f64>() {
        Ok(number) if word.contains('.') => format!("{number:.8e}"),
        _ => word.to_owned(),
    };
    text.split_whitespace()
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn a_limit_ends_a_query_that_would_run_for_ever() {
    block_on(async {
        let setting = setting(None, 0.01).await;
        let sql = "SELECT a.l_orderkey FROM lineitem a CROSS JOIN lineitem b CROSS JOIN lineitem c LIMIT 10";
        let rows = tokio::time::timeout(Duration::from_secs(120), answer(&setting.session, sql));
        let rows: usize = rows
            .await
            .expect("ends")
            .expect("runs")
            .iter()
            .map(RecordBatch::num_rows)
            .sum();
        assert_eq!(rows, 10);
        setting.cluster.shutdown().await;
    });
}

#[test]
fn what_is_dropped_or_cancelled_stops_and_the_next_query_runs() {
    block_on(async {
        let setting = setting(None, 0.01).await;
        let endless = "SELECT sum(a.l_tax * b.l_tax * c.l_tax) FROM lineitem a CROSS JOIN lineitem b CROSS JOIN lineitem c";
        let execution = setting.session.execute(endless).await.expect("starts");
        assert!(execution.progress().is_some());
        execution.cancel();
        let error = execution
            .stream()
            .next()
            .await
            .expect("an end")
            .expect_err("cancelled");
        assert!(matches!(error, QueryError::Cancelled), "{error}");
        let mut stream = setting
            .session
            .execute(endless)
            .await
            .expect("starts")
            .stream();
        assert!(
            tokio::time::timeout(Duration::from_millis(500), stream.next())
                .await
                .is_err()
        );
        drop(stream);
        let next = answer(&setting.session, "SELECT count(*) FROM lineitem");
        let rows = tokio::time::timeout(Duration::from_secs(60), next)
            .await
            .expect("is served")
            .expect("runs");
        assert!(shown(&rows).contains("60175"), "{}", shown(&rows));
        setting.cluster.shutdown().await;
    });
}

#[test]
fn a_failing_query_is_one_clear_error_and_the_next_runs() {
    block_on(async {
        let setting = setting(None, 0.01).await;
        let error = answer(
            &setting.session,
            "SELECT sum(CAST(l_comment AS INT)) FROM lineitem",
        )
        .await;
        let error = error.expect_err("no numbers");
        assert!(matches!(error, QueryError::Task(_)), "{error:?}");
        assert!(error.to_string().contains("Cannot cast"), "{error}");
        std::fs::remove_file(setting.folder.path().join("region.parquet")).expect("removes");
        let error = answer(&setting.session, "SELECT * FROM region")
            .await
            .expect_err("it is gone");
        assert!(error.to_string().contains("region.parquet"), "{error}");
        answer(&setting.session, "SELECT count(*) FROM nation")
            .await
            .expect("runs");
        setting.cluster.shutdown().await;
    });
}

#[test]
fn queries_larger_than_memory_spill_and_end_right() {
    block_on(async {
        let setting = setting(Some(24 << 20), 0.05).await;
        let sql = "SELECT l_orderkey, l_comment FROM lineitem ORDER BY l_comment, l_orderkey, l_linenumber";
        let rows = answer(&setting.session, sql).await.expect("runs");
        let rows: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let want = answer(&setting.session, "SELECT count(*) FROM lineitem")
            .await
            .expect("runs");
        assert!(
            shown(&want).contains(&rows.to_string()),
            "{rows} rows of {}",
            shown(&want)
        );
        setting.cluster.shutdown().await;
    });
}
