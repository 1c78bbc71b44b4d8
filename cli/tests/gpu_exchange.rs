//! Exchanges that stay on GPUs, by the whole program: workers with emulated GPUs answer as they do without them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Background, ByHand, Said, wait_until};
use cuda_emulator::{Emulator, Movement};

/// Joins, groups, strings, decimals, dates and nulls; each answer has one order.
const QUERIES: &[&str] = &[
    "SELECT l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice * (1 - l_discount)), avg(l_discount), count(*) \
     FROM lineitem GROUP BY l_returnflag, l_linestatus ORDER BY 1, 2",
    "SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate, o_shippriority \
     FROM customer JOIN orders ON c_custkey = o_custkey JOIN lineitem ON l_orderkey = o_orderkey \
     WHERE c_mktsegment = 'BUILDING' AND o_orderdate < DATE '1995-03-15' \
     GROUP BY l_orderkey, o_orderdate, o_shippriority ORDER BY revenue DESC, l_orderkey LIMIT 10",
    "SELECT c_name, count(o_orderkey), max(o_orderpriority), min(o_totalprice) \
     FROM customer LEFT JOIN orders ON c_custkey = o_custkey AND o_orderpriority LIKE '1%' \
     GROUP BY c_name ORDER BY c_name",
    "SELECT o_orderpriority, count(DISTINCT o_custkey) FROM orders \
     WHERE EXISTS (SELECT 1 FROM lineitem WHERE l_orderkey = o_orderkey AND l_commitdate < l_receiptdate) \
     GROUP BY o_orderpriority ORDER BY 1",
];

/// What makes a small query have many exchanges.
const FINE: [&str; 4] = [
    "SET datafusion.execution.target_partitions = 3",
    "SET datafusion.optimizer.repartition_file_min_size = 1000",
    "SET datafusion.optimizer.hash_join_single_partition_threshold = 0",
    "SET datafusion.optimizer.hash_join_single_partition_threshold_rows = 0",
];

struct Setting {
    cluster: ByHand,
    emulator: Emulator,
    workers: Vec<Background>,
    tables: String,
}

impl Setting {
    /// Two workers with a GPU each, whose streams pause at random, and a small TPC-H.
    fn new() -> Self {
        let emulator = Emulator::new()
            .unwrap()
            .devices(2)
            .memory_bytes(64 << 20)
            .chaos(6);
        let cluster = ByHand::new(0);
        let start = || {
            let mut worker = cluster.sandbox.command(&[
                "worker",
                &cluster.address,
                "--gpu-memory",
                "32MiB",
                "--pinned-memory",
                "16MiB",
            ]);
            worker.envs(emulator.environment());
            Background::new(worker)
        };
        let workers = vec![start(), start()];
        wait_until("both have joined", || cluster.worker_infos().len() == 2);
        let tables = cluster.sandbox.path("tpch").display().to_string();
        let data = [
            "data", "tpch", "--scale", "0.005", "--parts", "3", "--out", &tables,
        ];
        cluster.sandbox.out(&data);
        Self {
            cluster,
            emulator,
            workers,
            tables,
        }
    }

    fn sql(&self, arguments: &[&str]) -> Said {
        sql(&self.cluster, &self.tables, arguments)
    }

    fn start_sql(&self, arguments: &[&str]) -> Background {
        self.cluster.start_sql(&fine(&self.tables, arguments))
    }

    /// The answers to all queries.
    fn answers(&self, gpu_exchange: &str) -> String {
        let mut arguments = vec!["--gpu-exchange", gpu_exchange];
        for query in QUERIES {
            arguments.extend(["-c", query]);
        }
        let said = self.sql(&arguments);
        assert_eq!(said.code, 0, "{}", said.err);
        said.out
    }

    fn kernels(&self) -> u64 {
        self.emulator.report().unwrap().launches
    }
}

fn sql(cluster: &ByHand, tables: &str, arguments: &[&str]) -> Said {
    cluster.sql(&fine(tables, arguments))
}

/// Arguments of `sql`, after those that name the tables and make many exchanges.
fn fine<'a>(tables: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["--tables", tables, "--format", "csv"];
    all.extend(FINE.iter().flat_map(|statement| ["-c", statement]));
    all.extend(arguments);
    all
}

#[test]
fn queries_have_the_same_rows_whether_exchanges_are_on_gpus_or_not() {
    let setting = Setting::new();
    let off = setting.answers("off");
    assert_eq!(setting.kernels(), 0);
    let on = setting.answers("on");
    assert_eq!(on, off);
    assert!(off.lines().count() > 150, "{off}");
    // Every worker had its part.
    for worker in &setting.workers {
        let report = &setting.emulator.processes().unwrap()[&worker.pid()];
        assert!(report.launches > 0);
        assert!(report.moved(Movement::UploadPageable).bytes > 0);
    }
    wait_until("nothing is left on GPUs", || {
        let infos = setting.cluster.worker_infos();
        let tiers = infos.iter().flat_map(|it| it["memory"].as_array().unwrap());
        let mut on_device = tiers.filter(|it| it["tier"] != "host");
        on_device.all(|it| it["used_bytes"] == 0)
    });
}

#[test]
fn partitions_are_seen_on_gpus_while_a_query_runs_and_explain_says_that_they_will_be() {
    let setting = Setting::new();
    let join = "SELECT count(*), sum(l_quantity), min(o_comment) FROM lineitem JOIN orders ON l_orderkey = o_orderkey";
    let explained = setting.sql(&["--gpu-exchange", "on", "-c", &format!("EXPLAIN {join}")]);
    for part in [
        "exchanges on GPUs",
        "hash on GPU",
        "keys=[l_orderkey@",
        "concat on GPU",
    ] {
        assert!(explained.out.contains(part), "{part}: {explained:?}");
    }
    let on = setting.sql(&["-c", "SET transload.gpu_exchange = on", "-c", join]);
    assert_eq!((on.code, setting.kernels() > 0), (0, true), "{}", on.err);
    assert_eq!(on.out, setting.sql(&["-c", join]).out);
    // Often enough that somebody who looks now and then sees it.
    let many = ["-c", join].repeat(200);
    let mut running = setting.start_sql(&[&["--gpu-exchange", "on"][..], &many].concat());
    wait_until("partitions are on a GPU", || {
        assert!(!running.has_ended(), "nobody saw them");
        let infos = setting.cluster.worker_infos();
        let mut tiers = infos.iter().flat_map(|it| it["memory"].as_array().unwrap());
        tiers.any(|it| it["tier"] == "device" && it["used_bytes"] != 0)
    });
}

#[test]
fn what_cannot_be_on_gpus_is_told_and_answered_all_the_same() {
    let setting = Setting::new();
    let lists =
        "SELECT c_mktsegment, median(c_acctbal) FROM customer GROUP BY c_mktsegment ORDER BY 1";
    let explained = setting.sql(&["--gpu-exchange", "on", "-c", &format!("EXPLAIN {lists}")]);
    assert!(
        explained.out.contains("exchanges on the host: column "),
        "{explained:?}"
    );
    let on = setting.sql(&["--gpu-exchange", "on", "-c", lists]);
    assert_eq!((on.code, setting.kernels()), (0, 0), "{}", on.err);
    assert_eq!(on.out, setting.sql(&["-c", lists]).out);
}

#[test]
fn without_a_gpu_the_query_ends_at_once_and_with_a_wrong_word_nothing_begins() {
    let cluster = ByHand::with(1, &["--gpu", "none"]);
    let tables = cluster.sandbox.path("tpch").display().to_string();
    cluster.sandbox.out(&[
        "data", "tpch", "--scale", "0.005", "--parts", "3", "--out", &tables,
    ]);
    let said = sql(
        &cluster,
        &tables,
        &["--gpu-exchange", "on", "-c", QUERIES[0]],
    );
    assert_eq!(said.code, 1, "{}", said.err);
    for part in [
        "none of the 1 workers has one",
        "SET transload.gpu_exchange = off",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    let no_exchange = [
        "--gpu-exchange",
        "on",
        "-c",
        "SELECT count(*) AS n FROM nation",
    ];
    let said = sql(&cluster, &tables, &no_exchange);
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "n\n25\n"),
        "{}",
        said.err
    );
    let said = cluster.sql(&["--gpu-exchange", "maybe", "-c", "SELECT 1"]);
    assert_eq!(said.code, 2, "{}", said.err);
    let said = cluster.sql(&["-c", "SET transload.gpu_exchange = maybe"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(
        said.err.contains("is on or off, and not `maybe`"),
        "{}",
        said.err
    );
}
