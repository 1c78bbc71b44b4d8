//! Runs the built program as people do, and finds out what it leaves behind. Every sandbox has a temporary folder of its
//! own, so that tests see only their own files and processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "no test file uses every helper")]

pub(crate) mod network;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest that anything in a test may take, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A folder for one test: its current folder, its temporary folder, and everything in it.
pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
}

/// What a finished program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and returns its path as text.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// The program with these arguments, here, in an environment without settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_transload"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TRANSLOAD_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TMPDIR", self.path("tmp"))
            .env("TRANSLOAD_WORKER_MEMORY", "1GiB")
            .env("TRANSLOAD_WORKER_SLOTS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        finish(self.command(arguments).spawn().unwrap())
    }

    /// Runs the program, which must succeed, and returns what it printed.
    pub(crate) fn out(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
        said.out
    }

    /// Starts the program on a terminal of its own, made by `script`; what it prints comes out, what is typed in goes there.
    pub(crate) fn on_terminal(&self, arguments: &str) -> Background {
        self.in_shell(&format!(
            "exec {} {arguments}",
            env!("CARGO_BIN_EXE_transload")
        ))
    }

    /// The same on a terminal of that size.
    pub(crate) fn on_sized_terminal(&self, columns: u16, rows: u16, arguments: &str) -> Background {
        let program = env!("CARGO_BIN_EXE_transload");
        self.in_shell(&format!(
            "stty cols {columns} rows {rows}; exec {program} {arguments}"
        ))
    }

    fn in_shell(&self, line: &str) -> Background {
        let inner = self.command(&[]);
        let mut command = Command::new("script");
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
            .args(["-qefc", line, "/dev/null"])
            .current_dir(self.path(""))
            .env("TERM", "xterm")
            .env("TRANSLOAD_HISTORY", self.path("history"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Background::new(command)
    }

    /// Starts the program and goes on.
    pub(crate) fn start(&self, arguments: &[&str]) -> Background {
        Background::new(self.command(arguments))
    }

    /// Ids of running processes of this sandbox whose command line contains `word`.
    pub(crate) fn processes(&self, word: &str) -> Vec<u32> {
        let mark = format!("TMPDIR={}\0", self.path("tmp").display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
                continue;
            };
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let environment = String::from_utf8_lossy(&read("environ")).into_owned() + "\0";
            let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            if environment.contains(&mark) && line.contains(word) {
                found.push(pid);
            }
        }
        found
    }

    /// Everything in the temporary folder but empty folders.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        files_below(&self.path("tmp"))
    }

    /// Waits until nothing of this sandbox runs and its temporary folder holds no file.
    pub(crate) fn assert_clean(&self) {
        wait_until("no process is left", || self.processes("").is_empty());
        wait_until("no temporary file is left", || self.leftovers().is_empty());
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// Waits for a program whose output is piped. One that hangs is killed and fails the test.
pub(crate) fn finish(mut child: Child) -> Said {
    let pid = child.id();
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let guard = thread::spawn(move || {
        if ended.recv_timeout(PATIENCE).is_err() {
            kill("-9", pid);
        }
    });
    drop(child.stdin.take());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    done.send(()).ok();
    guard.join().unwrap();
    Said {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// A program that runs beside the test. Killed when dropped.
pub(crate) struct Background {
    child: Option<Child>,
}

impl Background {
    pub(crate) fn new(mut command: Command) -> Self {
        Self {
            child: Some(command.spawn().unwrap()),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// The next line on its standard output.
    pub(crate) fn line(&mut self) -> String {
        let out = self.child.as_mut().unwrap().stdout.as_mut().unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while out.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Everything on its standard output up to and including `end`.
    pub(crate) fn until(&mut self, end: &str) -> String {
        let out = self.child.as_mut().unwrap().stdout.as_mut().unwrap();
        let mut text = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&text).ends_with(end) {
            assert_eq!(
                out.read(&mut byte).unwrap(),
                1,
                "it ended after {}",
                String::from_utf8_lossy(&text)
            );
            text.push(byte[0]);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Types into its standard input.
    pub(crate) fn type_in(&mut self, text: &str) {
        let stdin = self.child.as_mut().unwrap().stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    pub(crate) fn finish(mut self) -> Said {
        finish(self.child.take().unwrap())
    }

    /// Takes the first lines of its standard output and closes the pipe.
    pub(crate) fn close_out_after(&mut self, lines: usize) -> Vec<String> {
        let out = self.child.as_mut().unwrap().stdout.take().unwrap();
        BufReader::new(out)
            .lines()
            .take(lines)
            .map(Result::unwrap)
            .collect()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Sends a signal: `-9`, `-TERM`, `-INT`.
pub(crate) fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill")
        .arg(signal)
        .arg(pid.to_string())
        .stderr(Stdio::null())
        .status();
    assert!(status.is_ok(), "kill is there");
}

/// Asks again and again until `condition` holds.
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    within(PATIENCE, what, condition);
}

/// Asks again and again until `condition` holds, at most for `limit`.
pub(crate) fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain: {what}"
        );
        thread::sleep(POLL_INTERVAL);
    }
}

/// A cluster started by hand: a scheduler and workers, each a process.
pub(crate) struct ByHand {
    pub(crate) sandbox: Sandbox,
    pub(crate) address: String,
    pub(crate) scheduler: Background,
    pub(crate) workers: Vec<Background>,
}

impl ByHand {
    pub(crate) fn new(workers: usize) -> Self {
        Self::with(workers, &[])
    }

    /// With these arguments for each worker.
    pub(crate) fn with(workers: usize, arguments: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let mut scheduler = sandbox.start(&["scheduler", "--port", "0"]);
        let line = scheduler.line();
        let address = line.rsplit(' ').next().unwrap().to_owned();
        assert!(address.contains(':'), "the first line says where: {line}");
        let workers = (0..workers)
            .map(|_| sandbox.start(&[&["worker", &address][..], arguments].concat()))
            .collect::<Vec<_>>();
        let cluster = Self {
            sandbox,
            address,
            scheduler,
            workers,
        };
        let count = cluster.workers.len();
        wait_until("all workers joined", || {
            cluster.worker_infos().len() == count
        });
        cluster
    }

    pub(crate) fn info(&self) -> Value {
        let text = self
            .sandbox
            .out(&["cluster", "info", &self.address, "--json"]);
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn worker_infos(&self) -> Vec<Value> {
        self.info()["workers"].as_array().unwrap().clone()
    }

    /// Whether the worker with this process id runs a task now.
    pub(crate) fn is_busy(&self, pid: u32) -> bool {
        self.worker_infos()
            .iter()
            .any(|worker| worker["pid"] == pid && !worker["running"].as_array().unwrap().is_empty())
    }

    /// `sql --connect` with further arguments.
    pub(crate) fn sql(&self, arguments: &[&str]) -> Said {
        self.sandbox.run(&self.sql_arguments(arguments))
    }

    pub(crate) fn start_sql(&self, arguments: &[&str]) -> Background {
        self.sandbox.start(&self.sql_arguments(arguments))
    }

    fn sql_arguments<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        [&["sql", "--connect", &self.address], arguments].concat()
    }

    /// [`slow_query`] with files of this cluster's sandbox.
    pub(crate) fn slow(&self) -> (Vec<String>, String) {
        slow_query(&self.sandbox)
    }
}

/// A query whose work takes some seconds and is spread over the workers, as arguments of `sql`, and its answer.
pub(crate) fn slow_query(sandbox: &Sandbox) -> (Vec<String>, String) {
    const FILES: u64 = 11;
    const ROWS_PER_FILE: u64 = 2_000;
    const OTHER_ROWS: u64 = 3_000;
    const KEYS: u64 = 4;
    let left = |row: u64| row * 31 % 9_973;
    let right = |row: u64| row * 57 % 9_973;
    let lines = |rows: std::ops::Range<u64>, number: &dyn Fn(u64) -> u64| {
        let lines = rows.map(|row| format!("{},{}\n", row % KEYS, number(row)));
        format!("k,n\n{}", lines.collect::<String>())
    };
    let folder = sandbox.path("left");
    fs::create_dir_all(&folder).unwrap();
    for file in 0..FILES {
        let rows = file * ROWS_PER_FILE..(file + 1) * ROWS_PER_FILE;
        fs::write(folder.join(format!("{file}.csv")), lines(rows, &left)).unwrap();
    }
    let other = sandbox.file("right.csv", &lines(0..OTHER_ROWS, &right));
    let mut answer = 0_u64;
    for a in 0..FILES * ROWS_PER_FILE {
        let x = left(a);
        for b in (a % KEYS..OTHER_ROWS).step_by(4) {
            answer += u64::from((x * right(b) + x) % 7 == 3);
        }
    }
    let arguments = [
        "--table",
        &format!("l={}/*.csv", folder.display()),
        "--table",
        &format!("r={other}"),
        "--format",
        "csv",
        "-c",
        // So little data would be one task by itself.
        &format!("SET datafusion.execution.target_partitions = {FILES}"),
        "-c",
        "SELECT count(*) AS pairs FROM l JOIN r ON l.k = r.k AND (l.n * r.n + l.n) % 7 = 3",
    ];
    (
        arguments.map(str::to_owned).to_vec(),
        format!("pairs\n{answer}\n"),
    )
}

/// TPC-H at scale 0.01, made once for all tests of a file.
pub(crate) fn tpch() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tpch-{}", std::process::id()));
        let sandbox = Sandbox::new();
        sandbox.out(&[
            "data",
            "tpch",
            "--scale",
            "0.01",
            "--row-group-rows",
            "5000",
            "--force",
            "--out",
            folder.to_str().unwrap(),
        ]);
        folder
    })
}
