//! `transload sql --report`: a page of the run, however it ended.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::net::TcpListener;

use common::{ByHand, Sandbox, kill, tpch, wait_until};
use serde_json::Value;

/// What a report shows.
struct Report {
    page: String,
    messages: Vec<Value>,
}

impl Report {
    fn read(sandbox: &Sandbox) -> Self {
        let page = fs::read_to_string(sandbox.path("out.html")).unwrap();
        let mark = "id=\"recording\">";
        let start = page.find(mark).unwrap() + mark.len();
        let end = start + page[start..].find("</script>").unwrap();
        let messages = serde_json::from_str(&page[start..end]).unwrap();
        Self { page, messages }
    }

    /// All that its frames have under this name.
    fn all(&self, name: &str) -> Vec<&Value> {
        let lists = self.messages.iter().filter_map(|it| it[name].as_array());
        lists.flatten().collect()
    }

    /// How the query that was shown last stands in the end.
    fn last_state(&self) -> &str {
        self.all("graphs").last().unwrap()["state"]
            .as_str()
            .unwrap()
    }
}

#[test]
fn a_report_shows_the_run_and_asks_nobody_for_anything() {
    let sandbox = Sandbox::new();
    let tables = tpch().to_str().unwrap();
    let query = "SELECT l_returnflag, count(*) AS n FROM lineitem GROUP BY l_returnflag ORDER BY n";
    let arguments = [
        "sql",
        "--workers",
        "2",
        "--tables",
        tables,
        "--report",
        "out.html",
        "--format",
        "csv",
        "-c",
        query,
    ];
    let said = sandbox.run(&arguments);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.starts_with("l_returnflag,n\n"));
    assert!(said.err.contains("report in out.html"), "{}", said.err);
    let report = Report::read(&sandbox);
    assert_eq!(report.messages[0]["type"], "about");
    assert_eq!(report.last_state(), "finished");
    assert!(report.all("graphs").iter().any(|it| it["name"] == query));
    let tasks = report
        .all("spans")
        .iter()
        .map(|it| it["count"].as_u64().unwrap())
        .sum::<u64>();
    let layers = report.all("graphs").last().unwrap()["layers"]
        .as_array()
        .unwrap()
        .clone();
    let wanted = layers
        .iter()
        .map(|it| it["total"].as_u64().unwrap())
        .sum::<u64>();
    assert_eq!(tasks, wanted, "every task is shown once");
    let workers = report.all("workers");
    assert!(
        workers
            .iter()
            .any(|it| it["finished"].as_u64().unwrap() > 0)
    );
    assert!(report.all("memory").len() >= 4, "two looks at two workers");
    for elsewhere in ["src=\"http", "href=\"http", "app.js", "style.css\""] {
        assert!(!report.page.contains(elsewhere), "{elsewhere}");
    }
    sandbox.assert_clean();
}

#[test]
fn a_report_is_written_also_where_a_statement_fails_or_is_stopped() {
    let cluster = ByHand::new(1);
    let sandbox = &cluster.sandbox;
    let earlier = "SELECT count(*) AS n FROM nation WHERE n_nationkey > 3";
    let said = cluster.sql(&[
        "--report",
        "out.html",
        "--tables",
        tpch().to_str().unwrap(),
        "-c",
        earlier,
        "-c",
        "SELECT nonsense",
    ]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("error: "), "{}", said.err);
    assert_eq!(Report::read(sandbox).last_state(), "finished");

    let (slow, _) = cluster.slow();
    let slow: Vec<&str> = slow.iter().map(String::as_str).collect();
    let client = cluster.start_sql(&[&["--report", "out.html"], slow.as_slice()].concat());
    wait_until("it runs", || cluster.is_busy(cluster.workers[0].pid()));
    kill("-INT", client.pid());
    let said = client.finish();
    assert_eq!(said.code, 130, "{}", said.err);
    let report = Report::read(sandbox);
    assert_eq!(report.last_state(), "cancelled");
    // What ran before was another run.
    assert!(report.all("graphs").iter().all(|it| it["name"] != earlier));
}

#[test]
fn where_no_report_can_be_had_nothing_is_started() {
    let sandbox = Sandbox::new();
    let arguments = ["sql", "--workers", "1", "-c", "SELECT 1", "--report"];
    let said = sandbox.run(&[&arguments[..], &["nowhere/out.html"]].concat());
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(
        said.err.contains("cannot write nowhere/out.html"),
        "{}",
        said.err
    );
    let said = sandbox.run(&[&arguments[..], &["out.html", "--dashboard", "off"]].concat());
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(
        said.err.contains("the cluster has no dashboard"),
        "{}",
        said.err
    );
    assert!(!sandbox.path("out.html").exists());
    // A port that is taken is no reason to do without.
    let _taken = TcpListener::bind("127.0.0.1:8787");
    sandbox.out(&[&arguments[..], &["out.html"]].concat());
    assert!(sandbox.path("out.html").exists());
    sandbox.assert_clean();
}
