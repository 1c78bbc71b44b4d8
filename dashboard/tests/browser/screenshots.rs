//! Makes the screenshots of `docs/dashboard` again, of a real cluster of four workers that answers the queries derived from TPC-H:
//!
//!     cargo build && cargo test -p transload-dashboard --test browser -- --ignored screenshots
//!
//! Uses the program beside this test's folder, or the one that TRANSLOAD_PROGRAM names, and pngquant where it is installed.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::chromium::{Browser, Page};
use crate::{is_content, open};

/// Workers, of two slots each, with so little memory that they spill.
const WORKERS: u32 = 4;
/// Scale of the data.
const SCALE: &str = "0.1";
/// One after the other, until all photographs are taken.
const QUERIES: [u32; 7] = [3, 5, 21, 9, 18, 7, 10];

/// Processes that end with this.
struct Cluster {
    program: PathBuf,
    folder: TempDir,
    address: String,
    scheduler: Child,
    workers: Vec<Child>,
    client: Option<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let others = self.workers.iter_mut().chain(&mut self.client);
        for process in others.chain([&mut self.scheduler]) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Cluster {
    fn start() -> Self {
        let program = program();
        let folder = tempfile::tempdir().expect("a folder");
        let made = call(&program, &folder, "data tpch --quiet --out data --scale")
            .arg(SCALE)
            .status();
        assert!(made.expect("it runs").success(), "there is no data");
        let words = "scheduler --port 0 --scheduler-file s.json --dashboard 127.0.0.1:0";
        let mut scheduler = call(&program, &folder, words)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(scheduler.stdout.take().expect("a pipe")).lines();
        let address = lines
            .find_map(|line| line.ok()?.strip_prefix("dashboard at ").map(str::to_owned))
            .expect("an address");
        // What else it says has to go somewhere.
        thread::spawn(move || lines.count());
        let workers = (0..WORKERS).map(|index| {
            let words =
                "worker --scheduler-file s.json --slots 2 --memory 100MiB --spill-dir . --name";
            let mut worker = call(&program, &folder, words);
            worker
                .arg(format!("worker-{index}"))
                .spawn()
                .expect("it starts")
        });
        let workers = workers.collect();
        Self {
            program,
            folder,
            address,
            scheduler,
            workers,
            client: None,
        }
    }

    /// Answers queries, again and again, as long as this lives.
    fn answer(&mut self) {
        let queries = Path::new(env!("CARGO_MANIFEST_DIR")).join("../query/tests/tpch");
        let script: String = QUERIES
            .iter()
            .map(|number| {
                fs::read_to_string(queries.join(format!("q{number:02}.sql"))).expect("SQL")
            })
            .map(|text| format!("{};\n", text.trim_end().trim_end_matches(';')))
            .collect();
        let path = self.folder.path().join("script.sql");
        fs::write(&path, script.repeat(100)).expect("written");
        let words = "sql --quiet --scheduler-file s.json --tables data script.sql";
        let client = call(&self.program, &self.folder, words).spawn();
        self.client = Some(client.expect("it starts"));
    }
}

fn program() -> PathBuf {
    if let Some(named) = env::var_os("TRANSLOAD_PROGRAM") {
        return named.into();
    }
    let test = env::current_exe().expect("this test");
    test.ancestors().nth(2).expect("a folder").join("transload")
}

fn call(program: &Path, folder: &TempDir, words: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(words.split(' '))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn photograph(page: &Page, name: &str) {
    // Until what is new has been drawn.
    thread::sleep(Duration::from_millis(900));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/dashboard");
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(format!("{name}.png"));
    page.photograph(&path);
    // A third of the size, and looks the same.
    let _ = Command::new("pngquant")
        .args(["--force", "--strip", "--speed=1", "--ext=.png"])
        .arg(&path)
        .status();
}

#[test]
#[ignore = "makes files of the repository, with a program that has to be built before"]
fn screenshots() {
    let browser = Browser::start().expect("a browser");
    let mut cluster = Cluster::start();
    let page = browser.page();
    page.prefer("dark");
    page.go(&cluster.address);
    page.until(&format!("transload.probe().workers === {WORKERS}"));
    cluster.answer();
    // Some queries are done.
    page.until("[...transload.store.graphs.values()].filter((graph) => graph.state === 'finished').length >= 4");
    for view in crate::views(&page) {
        open(&page, &view);
        is_busy(&page);
        photograph(&page, &view);
    }
    page.prefer("light");
    open(&page, "tasks");
    is_busy(&page);
    photograph(&page, "tasks-light");
    page.prefer("dark");

    open(&page, "queries");
    explain(&page);
    photograph(&page, "explain");
    page.press("Escape");

    open(&page, "map");
    is_busy(&page);
    cluster.workers[1].kill().expect("it can be killed");
    page.until("transload.probe().lost === 1");
    photograph(&page, "map-worker-killed");
    is_content(&page);
}

/// Opens the last layer of what runs, as long as that waits.
fn explain(page: &Page) {
    for _ in 0..50 {
        is_busy(page);
        page.ask("document.querySelector('#panel-queries .query-list button').click()");
        page.ask(
            "[...document.querySelectorAll('#panel-queries tbody button.link')].at(-1).click()",
        );
        page.until("document.querySelector('#details .explain .summary') !== null");
        if page.ask("document.querySelector('#details .explain').innerText.includes('waits for')")
            == true
        {
            return;
        }
        page.press("Escape");
    }
    panic!("nothing waits");
}

/// Waits until most slots are at work.
fn is_busy(page: &Page) {
    page.until(
        "[...transload.store.workers.values()].reduce((sum, worker) => sum + worker.running.length, 0) >= 5",
    );
}
