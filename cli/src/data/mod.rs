//! Makes TPC-H data files with all cores. Called by `transload data tpch` and the demo; knows no cluster.

mod file;
mod tables;

use std::fs;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

pub(crate) use file::DataFormat;
use file::OutputFile;
pub(crate) use tables::Table;

use crate::failure::Failure;

/// What to make.
#[derive(Debug, Clone)]
pub(crate) struct TpchRequest {
    /// TPC-H scale factor: 1 is about 1 GB as CSV.
    pub(crate) scale: f64,
    /// The folder for the files; made when missing.
    pub(crate) out: PathBuf,
    /// Their format.
    pub(crate) format: DataFormat,
    /// Files per table. One: `DIR/orders.parquet`; more: `DIR/orders/part-1.parquet` and so on.
    pub(crate) parts: u32,
    /// About how many rows a Parquet row group has, which is the smallest piece that a scan is split into.
    pub(crate) row_group_rows: u64,
    /// Which tables.
    pub(crate) tables: Vec<Table>,
    /// Whether existing files may be replaced.
    pub(crate) force: bool,
}

/// A table that was made.
#[derive(Debug, Clone)]
pub(crate) struct MadeTable {
    /// Which table.
    pub(crate) table: Table,
    /// Rows in all its files.
    pub(crate) rows: u64,
    /// Bytes of all its files.
    pub(crate) bytes: u64,
    /// Its file, or the folder with its files.
    pub(crate) path: PathBuf,
}

/// How far it is. Read by the thread that shows it.
#[derive(Debug, Default)]
pub(crate) struct MakeProgress {
    /// Chunks in all.
    pub(crate) chunks: AtomicU64,
    /// Chunks done.
    pub(crate) done: AtomicU64,
    /// Set by whoever wants the work to stop; files not yet complete are removed.
    pub(crate) stop: AtomicBool,
}

/// One table's share of the work.
struct TablePlan {
    table: Table,
    path: PathBuf,
    /// Target of each file.
    targets: Vec<PathBuf>,
    chunks_per_file: u32,
    rows: AtomicU64,
}

/// A file, and where its chunks are among those of its table.
struct PlannedFile<'a> {
    plan: &'a TablePlan,
    first_chunk: u32,
    file: OutputFile,
}

/// Makes the files. Blocks; uses every core.
///
/// # Errors
/// Files are in the way and `force` is not set, a file cannot be written, or `progress.stop` was set.
pub(crate) fn make_tpch(
    request: &TpchRequest,
    progress: &MakeProgress,
) -> Result<Vec<MadeTable>, Failure> {
    let plans: Vec<TablePlan> = request
        .tables
        .iter()
        .map(|table| plan(*table, request))
        .collect();
    clear_the_way(&plans, request)?;
    let mut files = Vec::new();
    for plan in &plans {
        let mut first_chunk = 0;
        for target in &plan.targets {
            let (schema, chunks) = (plan.table.schema(), plan.chunks_per_file);
            let file = OutputFile::new(target.clone(), chunks, schema, request.format);
            files.push(PlannedFile {
                plan,
                first_chunk,
                file,
            });
            first_chunk += chunks;
        }
    }
    write_all(&files, request, progress)?;
    plans.iter().map(made).collect()
}

fn plan(table: Table, request: &TpchRequest) -> TablePlan {
    let extension = request.format.extension();
    let rows = table.rows(request.scale);
    let parts = if table.is_scaled() { request.parts } else { 1 };
    let per_file = rows.div_ceil(u64::from(parts)).max(1);
    let chunks = per_file.div_ceil(request.row_group_rows).max(1);
    let single = request.out.join(format!("{}.{extension}", table.name()));
    let folder = request.out.join(table.name());
    let (path, targets) = if parts == 1 {
        (single.clone(), vec![single])
    } else {
        let digits = parts.to_string().len();
        let parts = (1..=parts)
            .map(|part| folder.join(format!("part-{part:0digits$}.{extension}")))
            .collect();
        (folder, parts)
    };
    TablePlan {
        table,
        path,
        targets,
        chunks_per_file: if table.is_scaled() {
            u32::try_from(chunks).unwrap_or(u32::MAX)
        } else {
            1
        },
        rows: AtomicU64::new(0),
    }
}

/// Makes the folders. With `force` removes what an earlier run left under the tables' names, else refuses to touch it.
fn clear_the_way(plans: &[TablePlan], request: &TpchRequest) -> Result<(), Failure> {
    for plan in plans {
        for old in earlier_files(plan.table, &request.out) {
            if !request.force {
                return Err(Failure::failed(format!("{} exists", old.display()))
                    .hint("--force replaces it; --out names another folder"));
            }
            fs::remove_file(&old).map_err(|error| cannot("remove", &old, &error))?;
        }
        for folder in plan.targets.iter().filter_map(|target| target.parent()) {
            fs::create_dir_all(folder)
                .map_err(|error| cannot("make the folder", folder, &error))?;
        }
        let folder = request.out.join(plan.table.name());
        if plan.path != folder {
            // Left empty by the removal above; a folder with anything else in it stays.
            let _ = fs::remove_dir(folder);
        }
    }
    Ok(())
}

/// Files of this table that an earlier run may have made in `out`, in either format and layout.
fn earlier_files(table: Table, out: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for extension in ["parquet", "csv"] {
        let single = out.join(format!("{}.{extension}", table.name()));
        if single.exists() {
            found.push(single);
        }
    }
    if let Ok(entries) = fs::read_dir(out.join(table.name())) {
        let ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("part-") && (name.ends_with(".parquet") || name.ends_with(".csv"))
        };
        found.extend(
            entries
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(ours),
        );
    }
    found.sort();
    found
}

fn write_all(
    files: &[PlannedFile<'_>],
    request: &TpchRequest,
    progress: &MakeProgress,
) -> Result<(), Failure> {
    let units: Vec<(&PlannedFile<'_>, u32)> = files
        .iter()
        .flat_map(|file| (0..file.plan.chunks_per_file).map(move |chunk| (file, chunk)))
        .collect();
    progress.chunks.store(units.len() as u64, Ordering::Relaxed);
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let ahead = u32::try_from(2 * threads).unwrap_or(u32::MAX);
    let queue = Mutex::new(units.into_iter());
    let first_failure = Mutex::new(None);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let abandon = || files.iter().for_each(|file| file.file.abandon());
    let work = || {
        while let Some((file, chunk)) = next() {
            if progress.stop.load(Ordering::Relaxed) {
                return abandon();
            }
            if !file.file.wait_for_turn(chunk, ahead) {
                return;
            }
            match write_chunk(file, chunk, request.scale) {
                Ok(()) => {
                    progress.done.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    first_failure
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert((file.plan.path.clone(), error));
                    return abandon();
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let failure = first_failure
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if progress.stop.load(Ordering::Relaxed) {
        return Err(Failure::interrupted());
    }
    failure.map_or(Ok(()), |(path, error)| Err(cannot("write", &path, &error)))
}

/// Generates, encodes and appends one chunk.
fn write_chunk(file: &PlannedFile<'_>, chunk: u32, scale: f64) -> io::Result<()> {
    let plan = file.plan;
    let count = |chunks: usize| i32::try_from(chunks).map_err(io::Error::other);
    let position = count((file.first_chunk + chunk) as usize)?;
    let chunks = count(plan.targets.len() * plan.chunks_per_file as usize)?;
    let (encoded, rows) = file
        .file
        .encode(plan.table.batches(scale, position, chunks))?;
    plan.rows.fetch_add(rows, Ordering::Relaxed);
    file.file.append(chunk, encoded, rows)
}

fn made(plan: &TablePlan) -> Result<MadeTable, Failure> {
    let mut bytes = 0;
    for target in &plan.targets {
        bytes += fs::metadata(target)
            .map_err(|error| cannot("read back", target, &error))?
            .len();
    }
    Ok(MadeTable {
        table: plan.table,
        rows: plan.rows.load(Ordering::Relaxed),
        bytes,
        path: plan.path.clone(),
    })
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
