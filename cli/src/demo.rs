//! `transload demo`: makes data, starts three workers, answers a query with them, and shows how. Leaves nothing behind.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use transload_protocol::{ClusterInfo, WorkerId};
use transload_query::{SqlOptions, SqlSession};

use crate::cluster::{self, Cluster, Place, client_failure};
use crate::data::{DataFormat, MadeTable, Table, TpchRequest};
use crate::failure::{Failure, io_failure};
use crate::make;
use crate::output::{Destination, Format};
use crate::progress;
use crate::show;
use crate::signals::Signals;
use crate::sql::{Runner, query_failure};

const WORKERS: u32 = 3;
/// Enough to see something move; less where nothing is optimized, to stay well under a minute there too.
const SCALE: f64 = if cfg!(debug_assertions) { 0.02 } else { 0.1 };
const TABLES: [Table; 4] = [
    Table::LineItem,
    Table::Orders,
    Table::Customer,
    Table::Nation,
];
/// Small, so that there are enough pieces for three workers.
const ROW_GROUP_ROWS: u64 = 20_000;
/// So small that the large tables are shuffled, as they would be at full size.
const BROADCAST_BYTES: usize = 256 << 10;
/// Longer lines of the plan are cut.
const LINE_CHARACTERS: usize = 117;
const QUERY: &str = "\
SELECT n_name AS nation, count(DISTINCT o_orderkey) AS orders, count(*) AS items,
       sum(l_extendedprice * (1 - l_discount)) AS revenue
FROM lineitem
  JOIN orders ON l_orderkey = o_orderkey
  JOIN customer ON o_custkey = c_custkey
  JOIN nation ON c_nationkey = n_nationkey
WHERE o_orderdate >= DATE '1995-01-01'
GROUP BY n_name
ORDER BY revenue DESC
LIMIT 5";
/// Name of the file that tells a demo folder in use from one whose demo was killed.
const LOCK: &str = "lock";
const PREFIX: &str = "transload-demo-";
/// Workers report what moved a moment after it has.
const REPORT_DELAY: Duration = Duration::from_millis(600);

/// Runs `transload demo`.
pub(crate) async fn run(signals: &Signals) -> Result<(), Failure> {
    sweep();
    let folder = DemoFolder::new()?;
    let shown = show_all(&folder, signals).await;
    let closed = folder.close();
    shown.and(closed)?;
    say(
        "\nThe workers have ended and the temporary files are gone. Three commands to try next:\n\n",
    )?;
    say(&next_commands())
}

async fn show_all(folder: &DemoFolder, signals: &Signals) -> Result<(), Failure> {
    let started = Instant::now();
    let tables = make_data(folder.path(), signals).await?;
    let rows: u64 = tables.iter().map(|table| table.rows).sum();
    let bytes: u64 = tables.iter().map(|table| table.bytes).sum();
    say(&format!(
        "1. Made a TPC-H data set in a temporary folder: {} in {} tables, {} of Parquet ({}).\n",
        show::count(rows, "row"),
        tables.len(),
        show::bytes(bytes),
        show::time(started.elapsed())
    ))?;

    let mut config = cluster::config()?;
    config.worker.spill_dir = Some(folder.path().join("spill"));
    let place = Place::Local {
        workers: Some(WORKERS),
    };
    let started = Instant::now();
    let cluster = tokio::select! {
        opened = Cluster::open(&place, &config) => opened?,
        _ = signals.stop() => return Err(Failure::interrupted()),
    };
    let answered = tokio::select! {
        answered = answer(&cluster, &tables, started) => answered,
        _ = signals.stop() => Err(Failure::interrupted()),
    };
    cluster.close().await;
    answered
}

/// Generates the tables on threads of their own; a signal stops them.
async fn make_data(folder: &Path, signals: &Signals) -> Result<Vec<MadeTable>, Failure> {
    let request = TpchRequest {
        scale: SCALE,
        out: folder.join("data"),
        format: DataFormat::Parquet,
        parts: 1,
        row_group_rows: ROW_GROUP_ROWS,
        tables: TABLES.to_vec(),
        force: false,
    };
    make::with_progress(request, progress::is_shown(false), signals).await
}

async fn answer(cluster: &Cluster, tables: &[MadeTable], started: Instant) -> Result<(), Failure> {
    let processes = cluster.worker_processes();
    say(&format!(
        "2. Started a scheduler and {WORKERS} workers, each a process of its own (pids {}; {}).\n\n",
        processes
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        show::time(started.elapsed())
    ))?;
    let options = SqlOptions {
        broadcast_bytes: BROADCAST_BYTES,
        ..SqlOptions::default()
    };
    let session =
        SqlSession::new(cluster.client.clone(), options).map_err(|error| query_failure(&error))?;
    for table in tables {
        session
            .register_table(
                table.table.name(),
                &table.path.display().to_string(),
                transload_query::FileOptions::default(),
            )
            .await
            .map_err(|error| query_failure(&error))?;
    }

    say(&format!(
        "3. Which nations bought most since 1995?\n\n{}\n\n",
        indented(QUERY)
    ))?;
    let mut destination = Destination::stdout();
    let mut runner = Runner {
        session: &session,
        format: Format::Table,
        destination: &mut destination,
        max_rows: None,
        quiet: false,
        timing: true,
        results: 0,
    };
    runner.run(QUERY).await?;

    let plan = session
        .plan(QUERY)
        .await
        .map_err(|error| query_failure(&error))?;
    say(&format!(
        "\n4. How it was cut into stages; each stage runs as tasks on all workers:\n\n{}\n",
        indented(&plan.to_string())
    ))?;
    let info = moved(cluster).await?;
    say(&format!(
        "5. What moved between which workers, straight from one to the other:\n\n{}",
        indented(&matrix(&info))
    ))
}

/// The cluster once its workers have told what they moved.
async fn moved(cluster: &Cluster) -> Result<ClusterInfo, Failure> {
    tokio::time::sleep(REPORT_DELAY).await;
    cluster
        .client
        .info()
        .await
        .map_err(|error| client_failure(&error))
}

fn matrix(info: &ClusterInfo) -> String {
    let name = |id: WorkerId| {
        let worker = info.workers.iter().find(|worker| worker.worker == id);
        worker.map_or_else(
            || id.to_string(),
            |worker| format!("{id} (pid {})", worker.hello.process),
        )
    };
    let transports: std::collections::BTreeSet<&str> = info
        .transfers
        .iter()
        .map(|transfer| transfer.transport.as_str())
        .collect();
    let partitions: u64 = info
        .transfers
        .iter()
        .map(|transfer| transfer.partitions)
        .sum();
    let bytes: u64 = info.transfers.iter().map(|transfer| transfer.bytes).sum();
    format!(
        "{}in all {} ({}) by {}\n",
        show::transfers(&info.transfers, name),
        show::bytes(bytes),
        show::count(partitions, "partition"),
        Vec::from_iter(transports).join(" and ")
    )
}

/// Commands that work as they stand, typed where the demo was.
fn next_commands() -> String {
    // As it was typed: `target/release/transload` under cargo, `transload` where it is installed.
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "transload".to_owned());
    format!(
        "  {program} data tpch --scale 0.1 --out tpch\n  \
           {program} sql --tables tpch --workers 3 -c 'SELECT l_shipmode, count(*) AS items FROM lineitem GROUP BY l_shipmode ORDER BY items DESC'\n  \
           {program} sql --tables tpch\n"
    )
}

/// Set in, with lines that are longer than a terminal is wide cut off.
fn indented(text: &str) -> String {
    let mut shown = String::new();
    for line in text.lines() {
        let line = line.trim_end();
        let cut = line.char_indices().nth(LINE_CHARACTERS);
        if !line.is_empty() {
            shown.push_str("   ");
        }
        shown.push_str(cut.map_or(line, |(end, _)| line.get(..end).unwrap_or(line)));
        shown.push_str(if cut.is_some() { "…\n" } else { "\n" });
    }
    shown
}

fn say(text: &str) -> Result<(), Failure> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| io_failure("cannot write to standard output", &error))
}

/// The demo's temporary folder, locked while the demo runs.
struct DemoFolder {
    folder: TempDir,
    _lock: File,
}

impl DemoFolder {
    fn new() -> Result<Self, Failure> {
        let cannot = |error: io::Error| {
            Failure::failed(format!(
                "cannot make a temporary folder in {}: {error}",
                std::env::temp_dir().display()
            ))
            .hint("TMPDIR names another place")
        };
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir()
            .map_err(cannot)?;
        let lock = File::create(folder.path().join(LOCK)).map_err(cannot)?;
        lock.lock().map_err(cannot)?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn close(self) -> Result<(), Failure> {
        let path = self.folder.path().to_owned();
        self.folder
            .close()
            .map_err(|error| Failure::failed(format!("cannot remove {}: {error}", path.display())))
    }
}

/// Removes folders of demos that were killed: nobody holds their locks.
fn sweep() {
    let Ok(entries) = std::env::temp_dir().read_dir() else {
        return;
    };
    let demos = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for path in demos.map(|entry| entry.path()) {
        let unused = File::open(path.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if unused {
            // Somebody else's folder; they may remove it themselves.
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}
