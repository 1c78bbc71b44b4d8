//! `transload sql` as people use it: formats, files, scripts, and one clear error for everything that is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;

use common::{ByHand, Sandbox, finish, kill, tpch, wait_until};
use transload_protocol::Welcome;
use transload_protocol::codec::encode_frame;

const PEOPLE: &str = "name,age,city\nAda,36,London\nAlan,41,NA\n\"Grace, H.\",85,Arlington\n";

fn local(sandbox: &Sandbox, arguments: &[&str]) -> String {
    sandbox.out(&[&["sql", "--workers", "1"], arguments].concat())
}

#[test]
fn a_query_over_csv_is_answered_in_every_format() {
    let sandbox = Sandbox::new();
    let table = format!("people={}", sandbox.file("people.csv", PEOPLE));
    let query = "SELECT name, age, city FROM people ORDER BY age";
    let run = |format: &[&str]| {
        let arguments = [&["--table", &table, "--null", "NA", "-c", query], format].concat();
        local(&sandbox, &arguments)
    };
    assert_eq!(
        run(&["--format", "csv"]),
        "name,age,city\nAda,36,London\nAlan,41,\n\"Grace, H.\",85,Arlington\n"
    );
    assert_eq!(
        run(&["--format", "json"]).lines().nth(1).unwrap(),
        r#"{"name":"Alan","age":41,"city":null}"#
    );
    let shown = run(&[]);
    assert!(shown.contains("| Alan      |  41 | NULL      |"), "{shown}");
    let file = sandbox.path("out.parquet");
    assert_eq!(run(&["-o", file.to_str().unwrap()]), "");
    let again = format!("again={}", file.display());
    assert_eq!(
        local(
            &sandbox,
            &[
                "--table",
                &again,
                "--format",
                "csv",
                "-c",
                query.replace("people", "again").as_str()
            ]
        ),
        run(&["--format", "csv"])
    );
    sandbox.assert_clean();
}

#[test]
fn a_script_may_hold_several_statements_and_make_its_own_tables() {
    let sandbox = Sandbox::new();
    sandbox.file("people.csv", PEOPLE);
    let script = sandbox.file(
        "script.sql",
        "-- two; statements\nCREATE EXTERNAL TABLE p STORED AS CSV LOCATION 'people.csv' OPTIONS ('format.has_header' 'true');\n\
         SELECT count(*) AS n FROM p;\nSELECT ';' AS semicolon",
    );
    assert_eq!(
        local(&sandbox, &["--format", "csv", &script]),
        "n\n3\nsemicolon\n;\n"
    );
    let mut command = sandbox.command(&["sql", "--workers", "1", "--format", "csv", "-"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"SELECT 1 + 1 AS two").unwrap();
    drop(stdin);
    assert_eq!(finish(child).out, "two\n2\n");
}

#[test]
fn delimiters_and_missing_headers_are_understood() {
    let sandbox = Sandbox::new();
    let table = format!("t={}", sandbox.file("t.csv", "1|a\n2|b\n"));
    let out = local(
        &sandbox,
        &[
            "--table",
            &table,
            "--delimiter",
            "|",
            "--no-header",
            "--format",
            "csv",
            "-c",
            "SELECT max(column_1) AS top FROM t",
        ],
    );
    assert_eq!(out, "top\n2\n");
}

#[test]
fn a_limit_gives_that_many_rows_and_explain_shows_stages() {
    let sandbox = Sandbox::new();
    let tables = tpch().to_str().unwrap();
    let out = local(
        &sandbox,
        &[
            "--tables",
            tables,
            "--format",
            "csv",
            "-c",
            "SELECT l_orderkey FROM lineitem LIMIT 7",
        ],
    );
    assert_eq!(out.lines().count(), 8, "{out}");
    let out = local(
        &sandbox,
        &[
            "--tables",
            tables,
            "-c",
            "EXPLAIN SELECT o_orderpriority, count(*) FROM orders GROUP BY 1",
        ],
    );
    assert!(out.to_lowercase().contains("stage"), "{out}");
    let out = local(
        &sandbox,
        &[
            "--tables",
            tables,
            "--max-rows",
            "3",
            "--format",
            "csv",
            "-c",
            "SELECT o_orderkey FROM orders",
        ],
    );
    assert_eq!(out.lines().count(), 4, "{out}");
}

#[test]
fn no_progress_is_drawn_into_a_pipe() {
    let sandbox = Sandbox::new();
    let tables = tpch().to_str().unwrap();
    let said = sandbox.run(&[
        "sql",
        "--workers",
        "2",
        "--tables",
        tables,
        "-c",
        "SELECT l_shipmode, count(*) FROM lineitem GROUP BY l_shipmode",
    ]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        !said.err.contains('\u{1b}') && !said.err.contains("stages"),
        "{}",
        said.err
    );
    assert_eq!(
        said.err.lines().count(),
        1,
        "row count and time alone: {}",
        said.err
    );
    assert!(said.err.starts_with("7 rows in "), "{}", said.err);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sandbox = Sandbox::new();
    let tables = tpch().to_str().unwrap();
    let mut child = sandbox.start(&[
        "sql",
        "--workers",
        "1",
        "--tables",
        tables,
        "--format",
        "csv",
        "-c",
        "SELECT * FROM lineitem",
    ]);
    assert!(child.close_out_after(1)[0].starts_with("l_orderkey,"));
    let said = child.finish();
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    sandbox.assert_clean();
}

#[test]
fn an_output_file_is_untouched_when_the_query_fails() {
    let sandbox = Sandbox::new();
    let out = sandbox.file("out.csv", "old");
    let said = sandbox.run(&[
        "sql",
        "--workers",
        "1",
        "-o",
        &out,
        "-c",
        "SELECT 1; SELECT nonsense",
    ]);
    assert_eq!(said.code, 1);
    assert_eq!(fs::read_to_string(&out).unwrap(), "old");
    let said = sandbox.run(&[
        "sql",
        "--workers",
        "1",
        "-o",
        "/no/such/folder/out.csv",
        "-c",
        "SELECT 1",
    ]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("/no/such/folder"), "{}", said.err);
}

#[test]
fn what_is_wrong_is_said_once_and_the_cluster_serves_the_next_query() {
    let cluster = ByHand::new(1);
    let people = format!("people={}", cluster.sandbox.file("people.csv", PEOPLE));
    let torn = format!(
        "torn={}",
        cluster
            .sandbox
            .file("torn.parquet", "PAR1 this is no parquet file")
    );
    let cases: [(&[&str], &str); 7] = [
        (&["-c", "SELEC 1"], "SELEC"),
        (&["-c", "SELECT 'open"], "nterminated"),
        (
            &["--table", &people, "-c", "SELECT height FROM people"],
            "height",
        ),
        (&["-c", "SELECT * FROM nowhere"], "nowhere"),
        (
            &["--table", "gone=no/such.csv", "-c", "SELECT 1"],
            "no/such.csv",
        ),
        (
            &["--table", &torn, "-c", "SELECT * FROM torn"],
            "torn.parquet",
        ),
        (
            &["-c", "SELECT 1 / (1 - column1) FROM (VALUES (1)) AS v"],
            "ivide by zero",
        ),
    ];
    for (arguments, expected) in cases {
        let said = cluster.sql(arguments);
        assert_eq!(said.code, 1, "{arguments:?}: {said:?}");
        assert!(
            said.err.starts_with("error: ") && said.err.contains(expected),
            "{arguments:?}: {said:?}"
        );
        assert_eq!(
            said.err
                .lines()
                .filter(|line| line.starts_with("error: "))
                .count(),
            1,
            "{arguments:?}: {}",
            said.err
        );
        assert_eq!(said.out, "", "{arguments:?}");
        let next = cluster.sql(&["--format", "csv", "-c", "SELECT 40 + 2 AS answer"]);
        assert_eq!(
            (next.code, next.out.as_str()),
            (0, "answer\n42\n"),
            "after {arguments:?}: {}",
            next.err
        );
    }
}

#[test]
fn wrong_usage_ends_with_code_2_and_says_what_is_right() {
    let sandbox = Sandbox::new();
    let cases: [(&[&str], &str); 6] = [
        (&["sql", "--bogus"], "--bogus"),
        (&["sql", "--workers", "0", "-c", "SELECT 1"], "--workers"),
        (
            &["sql", "--table", "people.csv", "-c", "SELECT 1"],
            "NAME=PATH",
        ),
        (&["sql", "-c", " ; "], "no statement"),
        (&["worker"], "--scheduler-file"),
        (&["worker", "--memory", "2G"], "512MiB"),
    ];
    for (arguments, expected) in cases {
        let said = sandbox.run(arguments);
        assert_eq!(said.code, 2, "{arguments:?}: {said:?}");
        assert!(said.err.contains(expected), "{arguments:?}: {}", said.err);
    }
    sandbox.assert_clean();
}

#[test]
fn a_cluster_that_is_not_there_ends_with_code_3() {
    let sandbox = Sandbox::new();
    // Bound and dropped: nobody listens there now.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let nobody = format!("127.0.0.1:{port}");
    for arguments in [
        &["sql", "--connect", &nobody, "-c", "SELECT 1"][..],
        &["cluster", "info", &nobody],
        &["cluster", "shutdown", &nobody],
    ] {
        let said = sandbox.run(arguments);
        assert_eq!(said.code, 3, "{arguments:?}: {said:?}");
        assert!(
            said.err.contains(&nobody) && said.err.contains("hint: "),
            "{}",
            said.err
        );
    }
}

#[test]
fn another_version_is_refused_with_both_versions_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut frame = Vec::new();
            let refused = Welcome::Refused {
                version: 99,
                reason: "protocol version mismatch: this process speaks version 99, its peer speaks version 1".to_owned(),
            };
            encode_frame(&refused, &mut frame).unwrap();
            stream.unwrap().write_all(&frame).unwrap();
        }
    });
    let said = Sandbox::new().run(&["sql", "--connect", &address, "-c", "SELECT 1"]);
    assert_eq!(said.code, 3, "{said:?}");
    let ours = format!("version {}", transload_protocol::PROTOCOL_VERSION);
    assert!(
        said.err.contains("version 99") && said.err.contains(&ours),
        "{}",
        said.err
    );
}

#[test]
fn ctrl_c_stops_the_query_and_everything_that_was_started_for_it() {
    let sandbox = Sandbox::new();
    let numbers: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    let table = format!("t={}", sandbox.file("t.csv", &format!("n\n{numbers}")));
    let child = sandbox.start(&[
        "sql",
        "--workers",
        "2",
        "--table",
        &table,
        "-c",
        "SELECT count(*) FROM t a JOIN t b ON (a.n * b.n) % 7 = 3",
    ]);
    wait_until("both workers run", || {
        sandbox.processes("--local").len() == 2
    });
    kill("-INT", child.pid());
    let said = child.finish();
    assert_eq!(said.code, 130, "{said:?}");
    assert_eq!(said.out, "");
    sandbox.assert_clean();
}

#[test]
fn the_configuration_in_effect_is_printed() {
    let sandbox = Sandbox::new();
    sandbox.file("transload.toml", "[worker]\nspill_above_percent = 55\n");
    let out = sandbox.out(&["config"]);
    assert!(
        out.contains("spill_above_percent = \"55\"") && out.contains("memory = \"1GiB\""),
        "{out}"
    );
    let version = sandbox.out(&["--version"]);
    assert!(
        version.starts_with("transload ") && version.contains("protocol"),
        "{version}"
    );
}
