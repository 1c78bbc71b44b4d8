//! The 22 queries of TPC-H at a tiny scale.

use super::data;
use super::oracle::{block_on, compare, planned, planner, run};

pub(super) fn query(number: usize) -> String {
    let path = format!("{}/tests/tpch/q{number:02}.sql", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("a query")
}

#[test]
fn every_tpch_query_gives_datafusions_answer() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::tpch(&planner, folder.path(), 0.01).await;
        for number in 1..=22 {
            let rows = compare(&planner, &query(number)).await;
            let plan = planned(&planner, &query(number)).await;
            println!(
                "q{number}: {} rows, {} stages",
                rows.len(),
                plan.stage_names().len()
            );
        }
    });
}

#[test]
fn every_tpch_query_gives_datafusions_answer_when_everything_is_shuffled() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::tpch(&planner, folder.path(), 0.005).await;
        run(
            &planner,
            "SET datafusion.optimizer.hash_join_single_partition_threshold = 0",
        )
        .await;
        run(
            &planner,
            "SET datafusion.optimizer.hash_join_single_partition_threshold_rows = 0",
        )
        .await;
        for number in 1..=22 {
            compare(&planner, &query(number)).await;
        }
    });
}

#[test]
fn every_tpch_query_gives_datafusions_answer_with_sort_merge_joins() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::tpch(&planner, folder.path(), 0.005).await;
        run(
            &planner,
            "SET datafusion.optimizer.prefer_hash_join = false",
        )
        .await;
        run(
            &planner,
            "SET datafusion.optimizer.prefer_existing_sort = true",
        )
        .await;
        for number in 1..=22 {
            compare(&planner, &query(number)).await;
        }
    });
}
