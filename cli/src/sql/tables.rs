//! Registers the tables that the command line names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use transload_query::{FileOptions, SqlSession};

use super::query_failure;
use crate::args::TableArgs;
use crate::failure::Failure;

/// Endings of files that are tables.
const ENDINGS: [&str; 2] = ["parquet", "csv"];

/// Registers every table of `--table` and `--tables`.
///
/// # Errors
/// A file that is missing or cannot be read, or two tables of one name.
pub(crate) async fn register(session: &SqlSession, args: &TableArgs) -> Result<(), Failure> {
    let mut tables = BTreeMap::new();
    let given = args
        .tables
        .iter()
        .map(|table| (table.name.clone(), table.location.clone()));
    let mut all: Vec<(String, String)> = given.collect();
    for folder in &args.folders {
        all.extend(tables_in(folder)?);
    }
    for (name, location) in all {
        if let Some(other) = tables.insert(name.clone(), location.clone()) {
            return Err(Failure::usage(format!(
                "two tables are named {name}: {other} and {location}"
            ))
            .hint("give each table a name of its own with --table NAME=PATH"));
        }
    }
    for (name, location) in &tables {
        session
            .register_table(name, location, file_options(args))
            .await
            .map_err(|error| query_failure(&error))?;
    }
    Ok(())
}

fn file_options(args: &TableArgs) -> FileOptions {
    FileOptions {
        delimiter: args.delimiter,
        header: !args.no_header,
        null: args.null.clone(),
        ..FileOptions::default()
    }
}

/// Name and location of every table in a folder: files by their stem, folders of files by their name.
fn tables_in(folder: &Path) -> Result<Vec<(String, String)>, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::failed(format!(
            "cannot list tables in {}: {error}",
            folder.display()
        ))
    };
    let mut tables = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let hidden = |path: &Path| {
            path.file_name()
                .is_none_or(|name| name.to_string_lossy().starts_with('.'))
        };
        if hidden(&path) {
            continue;
        }
        if path.is_dir() {
            let files: Vec<_> = fs::read_dir(&path).map_err(cannot)?.flatten().collect();
            let ending = ENDINGS.into_iter().find(|ending| {
                files
                    .iter()
                    .any(|file| !hidden(&file.path()) && has_ending(&file.path(), ending))
            });
            if let (Some(ending), Some(name)) = (ending, path.file_name()) {
                let location = path.join(format!("*.{ending}")).display().to_string();
                tables.push((name.to_string_lossy().into_owned(), location));
            }
        } else if ENDINGS.iter().any(|ending| has_ending(&path, ending))
            && let Some(name) = path.file_stem()
        {
            tables.push((
                name.to_string_lossy().into_owned(),
                path.display().to_string(),
            ));
        }
    }
    if tables.is_empty() {
        return Err(
            Failure::failed(format!("no tables in {}", folder.display())).hint(
                "it has neither a .csv or .parquet file nor a folder of such; `transload data tpch` makes some",
            ),
        );
    }
    Ok(tables)
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found == ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_of_files_are_tables() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| folder.path().join(path);
        fs::create_dir(at("orders")).expect("makes");
        fs::create_dir(at("empty")).expect("makes");
        for file in [
            "a.csv",
            "b.parquet",
            "c.txt",
            ".d.csv",
            "orders/part-1.parquet",
        ] {
            fs::write(at(file), "").expect("writes");
        }
        let mut tables = tables_in(folder.path()).expect("lists");
        tables.sort();
        let names: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "orders"]);
        assert!(tables[2].1.ends_with("orders/*.parquet"));
        assert!(tables_in(&at("empty")).is_err());
        assert!(tables_in(&at("missing")).is_err());
    }
}
