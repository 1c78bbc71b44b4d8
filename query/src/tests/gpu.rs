//! Exchanges on GPUs, as plans see them: the host stands in for the GPU, and hashes in another way than DataFusion does, as a GPU would.
//! What a real one makes of rows is tested where its operators are.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use transload_gpu::Partition;
use transload_protocol::{Layer, codec};

use super::data;
use super::oracle::{block_on, compare, planned, planner, run, try_run};
use super::tpch::query;
use crate::device::PartitionSpec;
use crate::partition::{decode, encode};
use crate::session::Planner;

fn all(partitions: &[Partition]) -> Option<RecordBatch> {
    let batches = partitions.iter().map(|it| decode(it).expect("decodes"));
    let batches: Vec<RecordBatch> = batches.flat_map(|it| it.to_vec()).collect();
    let first = batches.first()?;
    Some(concat_batches(&first.schema(), &batches).expect("one"))
}

/// What `sql-partition` makes.
pub(super) fn hash(layer: &Layer, partitions: &[Partition]) -> Vec<Partition> {
    let spec: PartitionSpec = codec::decode(&layer.arguments.common.0).expect("keys");
    let Some(batch) = all(partitions) else {
        let nothing = encode(&[]).expect("encodes");
        return vec![nothing; layer.outputs as usize];
    };
    let keys = spec.keys.iter().map(|key| batch.column(*key as usize));
    let keys: Vec<ArrayRef> = keys.map(Arc::clone).collect();
    let mut hashes = vec![0; batch.num_rows()];
    create_hashes(&keys, &RandomState::with_seed(77), &mut hashes).expect("hashes");
    let part = |part: u32| {
        let rows = (0_u32..).zip(&hashes);
        let own = rows.filter(|(_, hash)| *hash % u64::from(layer.outputs) == u64::from(part));
        let own = UInt32Array::from_iter_values(own.map(|(row, _)| row));
        encode(&[take_record_batch(&batch, &own).expect("rows")]).expect("encodes")
    };
    (0..layer.outputs).map(part).collect()
}

/// What `sql-concat` makes.
pub(super) fn concat(partitions: &[Partition]) -> Vec<Partition> {
    let batches: Vec<RecordBatch> = all(partitions).into_iter().collect();
    vec![encode(&batches).expect("encodes")]
}

async fn turn_on(planner: &Planner) {
    run(planner, "SET transload.gpu_exchange = on").await;
}

async fn shuffle_everything(planner: &Planner) {
    let threshold = "SET datafusion.optimizer.hash_join_single_partition_threshold";
    run(planner, &format!("{threshold} = 0")).await;
    run(planner, &format!("{threshold}_rows = 0")).await;
}

#[test]
fn every_tpch_query_gives_datafusions_answer_when_everything_is_shuffled_on_gpus() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::tpch(&planner, folder.path(), 0.005).await;
        turn_on(&planner).await;
        shuffle_everything(&planner).await;
        for number in 1..=22 {
            let plan = planned(&planner, &query(number)).await.to_string();
            let hashed = plan.contains("hashed into");
            assert_eq!(hashed, plan.contains("exchanges on GPUs"), "{plan}");
            compare(&planner, &query(number)).await;
        }
    });
}

#[test]
fn everything_else_gives_datafusions_answer_with_exchanges_on_gpus_where_they_can_be() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::small(&planner, folder.path()).await;
        turn_on(&planner).await;
        shuffle_everything(&planner).await;
        for sql in super::features::QUERIES {
            compare(&planner, sql).await;
        }
        run(
            &planner,
            "SET datafusion.optimizer.prefer_existing_sort = true",
        )
        .await;
        run(
            &planner,
            "SET datafusion.optimizer.prefer_hash_join = false",
        )
        .await;
        let sound = |sql: &&&str| !sql.contains("FULL JOIN b ON a.id = b.id");
        for sql in super::features::QUERIES.iter().filter(sound) {
            compare(&planner, sql).await;
        }
    });
}

#[test]
fn views_and_dictionaries_are_what_they_were_after_the_exchange() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::small(&planner, folder.path()).await;
        turn_on(&planner).await;
        shuffle_everything(&planner).await;
        run(
            &planner,
            "CREATE VIEW typed AS SELECT arrow_cast(grp, 'Utf8View') AS v, \
             arrow_cast(grp, 'Dictionary(Int32, Utf8)') AS d, arrow_cast(grp, 'BinaryView') AS b, id FROM a",
        )
        .await;
        for sql in [
            "SELECT v, d, b, arrow_typeof(v), arrow_typeof(d), arrow_typeof(b), count(*) FROM typed GROUP BY v, d, b",
            "SELECT count(*), min(x.v), max(y.d) FROM typed x JOIN typed y ON x.v = y.v AND x.id = y.id",
            "SELECT d, v, count(*) FROM typed x JOIN b ON x.id = b.id GROUP BY d, v",
            "SELECT count(*) FROM typed x JOIN b ON x.d = b.grp AND x.id = b.id",
        ] {
            let plan = planned(&planner, sql).await.to_string();
            assert!(plan.contains("exchanges on GPUs"), "{plan}");
            compare(&planner, sql).await;
        }
    });
}

#[test]
fn where_one_exchange_cannot_be_on_a_gpu_all_are_on_the_host_and_it_is_told_why() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::small(&planner, folder.path()).await;
        let lists = "SELECT x.grp, l FROM (SELECT grp, array_agg(id) AS l FROM a GROUP BY grp) x \
                     JOIN (SELECT grp, count(*) FROM b GROUP BY grp) y ON x.grp = y.grp";
        let plan = planned(&planner, lists).await.to_string();
        assert!(!plan.contains("exchanges on"), "nobody asked: {plan}");
        turn_on(&planner).await;
        let plan = planned(&planner, lists).await.to_string();
        for part in [
            "exchanges on the host: column ",
            "List(",
            "kernels do not know",
        ] {
            assert!(plan.contains(part), "{part}: {plan}");
        }
        assert!(!plan.contains("GPU"), "{plan}");
        let file = folder.path().join("a.parquet");
        let sorted = format!(
            "CREATE EXTERNAL TABLE sorted (id BIGINT, grp VARCHAR, val DOUBLE) STORED AS PARQUET WITH ORDER (id) \
             LOCATION '{}'",
            file.display()
        );
        run(&planner, &sorted).await;
        run(
            &planner,
            "SET datafusion.optimizer.prefer_existing_sort = true",
        )
        .await;
        let in_order = "SELECT id, count(*) FROM sorted GROUP BY id ORDER BY id";
        let plan = planned(&planner, in_order).await.to_string();
        assert!(
            plan.contains("host: an exchange keeps rows in order"),
            "{plan}"
        );
        let none = "SELECT count(*) FROM a";
        let plan = planned(&planner, none).await.to_string();
        assert!(!plan.contains("exchanges on"), "there is none: {plan}");
    });
}

#[test]
fn the_setting_is_on_or_off_and_nothing_else() {
    block_on(async {
        let planner = planner().await;
        for (set, value) in [
            ("on", "on"),
            ("FALSE", "off"),
            ("'true'", "on"),
            ("off", "off"),
        ] {
            run(&planner, &format!("SET transload.gpu_exchange = {set}")).await;
            let shown = run(&planner, "SHOW transload.gpu_exchange").await;
            assert_eq!(super::oracle::shown(&shown)[0][1], value);
        }
        for (sql, told) in [
            (
                "SET transload.gpu_exchange = 3",
                "is on or off, and not `3`",
            ),
            ("SET transload.gpu = on", "there is transload.gpu_exchange"),
        ] {
            let error = try_run(&planner, sql).await.expect_err(sql).to_string();
            assert!(error.contains(told), "{error}");
        }
    });
}
