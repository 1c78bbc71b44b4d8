//! What `EXPLAIN` says.

use super::data;
use super::oracle::{block_on, planned, planner, run, shown};

async fn explained(sql: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let planner = planner().await;
    data::small(&planner, folder.path()).await;
    let rows = shown(&run(&planner, &format!("EXPLAIN {sql}")).await);
    let text: Vec<String> = rows.into_iter().map(|row| row.join("")).collect();
    text.join("\n")
}

/// The lines that speak of stages and exchanges, without the operators.
fn outline(text: &str) -> String {
    text.lines()
        .filter(|line| !line.starts_with("    "))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn stages_tasks_and_exchanges_are_shown() {
    let text = block_on(explained(
        "SELECT grp, sum(val) AS s FROM a GROUP BY grp ORDER BY s DESC LIMIT 3",
    ));
    assert_eq!(
        outline(&text),
        "2 stages, 8 tasks\n\
         \n\
         stage 1. scan a, aggregate: 4 tasks, hashed into 4 partitions\n\
         \n\
         stage 2. aggregate, sort: 4 tasks\n  \
           input 0: stage 1, shuffle 4 x 4\n\
         \n\
         client\n  \
           input 0: stage 2, fetched as its tasks complete",
        "{text}"
    );
    assert!(text.contains("SortPreservingMergeExec"), "{text}");
}

#[test]
fn exchanges_on_gpus_are_stages_of_their_own() {
    let text = block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::small(&planner, folder.path()).await;
        run(&planner, "SET transload.gpu_exchange = on").await;
        let sql = "EXPLAIN SELECT grp, sum(val) AS s FROM a GROUP BY grp";
        let rows = shown(&run(&planner, sql).await);
        let text: Vec<String> = rows.into_iter().map(|row| row.join("")).collect();
        text.join("\n")
    });
    assert_eq!(
        outline(&text),
        "4 stages, 16 tasks\n\
         exchanges on GPUs\n\
         \n\
         stage 1. scan a, aggregate: 4 tasks, as GPUs read it\n\
         \n\
         stage 2. hash on GPU: 4 tasks, hashed into 4 partitions\n  \
           input 0: stage 1, one to one\n\
         \n\
         stage 3. concat on GPU: 4 tasks\n  \
           input 0: stage 2, shuffle 4 x 4\n\
         \n\
         stage 4. aggregate: 4 tasks\n  \
           input 0: stage 3, one to one\n\
         \n\
         client\n  \
           input 0: stage 4, fetched as its tasks complete",
        "{text}"
    );
    assert!(text.contains("HashOnDevice: keys=[grp@0]"), "{text}");
}

#[test]
fn small_build_sides_are_broadcast() {
    let text = block_on(explained(
        "SELECT count(*) FROM a JOIN (SELECT * FROM b WHERE val < 10) b ON a.id = b.id",
    ));
    assert!(text.contains("broadcast to 4 tasks"), "{text}");
}

#[test]
fn what_runs_as_one_task_says_why() {
    let text = block_on(explained(
        "SELECT count(*) FROM a WHERE id NOT IN (SELECT id FROM b)",
    ));
    assert!(
        text.contains("runs as one task: HashJoinExec (LeftAnti, null aware)"),
        "{text}"
    );
    let text = block_on(explained(
        "SELECT count(*) FROM a FULL JOIN b ON a.val < b.val",
    ));
    assert!(
        text.contains("runs as one task: NestedLoopJoinExec (Full)"),
        "{text}"
    );
}

#[test]
fn a_limit_is_applied_in_every_task() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::small(&planner, folder.path()).await;
        let text = planned(&planner, "SELECT a.id FROM a JOIN b ON a.id = b.id LIMIT 5")
            .await
            .to_string();
        let last = text
            .split("\nstage ")
            .last()
            .expect("a stage")
            .split("\nclient")
            .next()
            .expect("its plan");
        assert!(
            last.contains("fetch=5") || last.contains("limit=5"),
            "{text}"
        );
    });
}

#[test]
fn verbose_adds_the_logical_plan() {
    let text = block_on(explained("VERBOSE SELECT count(*) FROM a"));
    assert!(
        text.contains("logical plan") && text.contains("TableScan: a"),
        "{text}"
    );
}
