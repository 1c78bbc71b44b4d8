//! The prompt on a real terminal.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Sandbox, wait_until};

const PROMPT: &str = "transload> ";

#[test]
fn a_person_types_statements_commands_and_mistakes_and_stops_a_query() {
    let sandbox = Sandbox::new();
    let numbers: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    let table = sandbox.file("t.csv", &format!("n\n{numbers}"));
    let mut shell = sandbox.on_terminal(&format!("sql --workers 1 --table t={table}"));
    shell.until(PROMPT);

    shell.type_in("SELECT 40 +\r2 AS answer;\r");
    let shown = shell.until(" s\r\n");
    assert!(
        shown.contains("|     42 |") && shown.contains("1 row in"),
        "{shown}"
    );
    shell.until(PROMPT);

    shell.type_in("\\d\r");
    assert!(shell.until(" s\r\n").contains("| t "));
    shell.until(PROMPT);
    shell.type_in("\\d t\r");
    assert!(shell.until(" s\r\n").contains("| n "));
    shell.until(PROMPT);

    shell.type_in("SELECT nonsense;\r");
    shell.until("error: ");
    shell.until(PROMPT);

    shell.type_in("SELECT count(*) FROM t a JOIN t b ON (a.n * b.n) % 7 = 3;\r");
    shell.until("running");
    shell.type_in("\u{3}");
    shell.until("the statement was stopped");
    shell.until(PROMPT);

    shell.type_in("\\timing\r");
    shell.until("times are not shown");
    shell.until(PROMPT);
    shell.type_in("SELECT 'still here' AS word;\r");
    shell.until("| still here |");
    shell.until(PROMPT);
    shell.type_in("\\q\r");
    assert_eq!(shell.finish().code, 0);
    wait_until("the history is kept", || {
        std::fs::read_to_string(sandbox.path("history"))
            .is_ok_and(|text| text.contains("still here"))
    });
    sandbox.assert_clean();
}
