//! Why some of DataFusion's defaults are off: with them on, partitions that run alone give wrong answers or none.

use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use futures::TryStreamExt;

use super::data;
use super::oracle::{block_on, planner, run, shown};
use crate::settings::make_safe;

async fn context(change: impl FnOnce(&mut SessionConfig)) -> (tempfile::TempDir, SessionContext) {
    let folder = tempfile::tempdir().expect("a folder");
    data::small(&planner().await, folder.path()).await;
    let mut config = SessionConfig::new().with_target_partitions(4);
    config.options_mut().optimizer.repartition_file_min_size = 1_000;
    make_safe(config.options_mut());
    change(&mut config);
    let context = SessionContext::new_with_config(config);
    for name in ["a", "b"] {
        let path = folder.path().join(format!("{name}.parquet"));
        let path = path.to_str().expect("UTF-8").to_owned();
        context
            .register_parquet(name, path, ParquetReadOptions::default())
            .await
            .expect("registers");
    }
    (folder, context)
}

/// Rows of each partition, every one executed alone on a plan of its own, as tasks do.
async fn rows_alone(context: &SessionContext, sql: &str) -> Vec<usize> {
    let count = plan(context, sql)
        .await
        .output_partitioning()
        .partition_count();
    let mut rows = Vec::new();
    for partition in 0..count {
        let task: Arc<TaskContext> = context.task_ctx();
        let stream = plan(context, sql)
            .await
            .execute(partition, task)
            .expect("starts");
        let batches: Vec<_> = stream.try_collect().await.expect("runs");
        rows.push(batches.iter().map(|batch| batch.num_rows()).sum());
    }
    rows
}

async fn plan(context: &SessionContext, sql: &str) -> Arc<dyn ExecutionPlan> {
    context
        .sql(sql)
        .await
        .expect("plans")
        .create_physical_plan()
        .await
        .expect("plans")
}

#[test]
fn with_work_stealing_a_partition_alone_would_read_every_file() {
    block_on(async {
        let (_folder, context) = context(|_| ()).await;
        let rows = rows_alone(&context, "SELECT id FROM a").await;
        assert!(rows.len() > 1, "the file is split");
        assert_eq!(rows.iter().sum::<usize>(), 12_000);

        let (_folder, context) = self::context(|config| {
            config
                .options_mut()
                .execution
                .enable_file_stream_work_stealing = true;
        })
        .await;
        let rows = rows_alone(&context, "SELECT id FROM a").await;
        assert!(
            rows.iter().sum::<usize>() > 12_000,
            "it is safe now; DataFusion has changed: {rows:?}"
        );
    });
}

#[test]
fn with_dynamic_filters_a_partition_alone_would_wait_for_ever() {
    const JOIN: &str = "SELECT a.id FROM a JOIN (SELECT * FROM b WHERE val < 10) b ON a.id = b.id";
    block_on(async {
        let (_folder, context) = context(|_| ()).await;
        let alone = tokio::time::timeout(Duration::from_secs(60), rows_alone(&context, JOIN));
        assert!(alone.await.expect("ends").len() > 1);

        let (_folder, context) = self::context(|config| {
            let optimizer = &mut config.options_mut().optimizer;
            optimizer.enable_dynamic_filter_pushdown = true;
            optimizer.enable_join_dynamic_filter_pushdown = true;
        })
        .await;
        let alone = tokio::time::timeout(Duration::from_secs(3), rows_alone(&context, JOIN));
        assert!(
            alone.await.is_err(),
            "it is safe now; DataFusion has changed"
        );
    });
}

#[test]
fn unsafe_settings_are_ignored_whoever_sets_them() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::small(&planner, folder.path()).await;
        run(
            &planner,
            "SET datafusion.execution.enable_file_stream_work_stealing = true",
        )
        .await;
        run(
            &planner,
            "SET datafusion.optimizer.enable_dynamic_filter_pushdown = true",
        )
        .await;
        run(
            &planner,
            "SET datafusion.optimizer.enable_join_dynamic_filter_pushdown = true",
        )
        .await;
        assert_eq!(
            shown(&run(&planner, "SELECT count(*), count(DISTINCT id) FROM a").await)[0][0],
            "12000"
        );
        run(
            &planner,
            "SELECT a.id FROM a JOIN (SELECT * FROM b WHERE val < 10) b ON a.id = b.id",
        )
        .await;
    });
}
