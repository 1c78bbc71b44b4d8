//! What the measuring programs share: tables in a folder, queries read from standard input, times written as JSON lines.
//!
//! Called by the programs in `src/bin`; the scripts in `benches/` drive those side by side. Knows no engine.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

/// The error of a measuring program: a sentence for its standard error.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The stack of threads that plan or compute in a dev build, whose frames are large.
pub const STACK_BYTES: usize = 16 << 20;

/// The tables in a folder, by name: each `NAME.parquet`, file or folder, and each folder `NAME` of Parquet files.
///
/// # Errors
/// When the folder cannot be listed or holds no table.
pub fn tables(folder: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_table = path.is_dir() || path.extension().is_some_and(|name| name == "parquet");
        if let Some(name) = path.file_stem().filter(|_| is_table) {
            found.push((name.to_string_lossy().into_owned(), path));
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(format!(
            "{} holds no Parquet files; make some with `transload data tpch --out {0}`",
            folder.display()
        )
        .into());
    }
    Ok(found)
}

/// Answers each line of standard input, the path of a file with one query, with a JSON line: `seconds` from text to last
/// row and `rows`, or `error`. The first line out, `{"ready": true}`, says that tables are registered.
///
/// # Errors
/// When standard input or output fails; a query's failure is an answer, not an error.
pub async fn serve<F>(mut run: impl FnMut(String) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<usize, Failure>>,
{
    let mut out = io::stdout();
    writeln!(out, "{}", json!({ "ready": true }))?;
    out.flush()?;
    for line in io::stdin().lock().lines() {
        let path = line?;
        let answer = match std::fs::read_to_string(&path) {
            Err(error) => json!({ "query": path, "error": error.to_string() }),
            Ok(text) => {
                let started = Instant::now();
                match run(text.trim().trim_end_matches(';').to_owned()).await {
                    Ok(rows) => {
                        json!({ "query": path, "seconds": started.elapsed().as_secs_f64(), "rows": rows })
                    }
                    Err(error) => json!({ "query": path, "error": error.to_string() }),
                }
            }
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}
