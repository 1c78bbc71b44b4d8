//! Tables made of files: one path, a folder or a pattern; the format by its ending. Called when tables are registered; knows
//! files, never queries.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::execution::session_state::SessionState;
use datafusion::functions::core::expr_fn::nullif;
use datafusion::logical_expr::{LogicalPlanBuilder, cast, lit};
use datafusion::prelude::Expr;

use crate::QueryError;

/// Rows of a CSV or JSON file that its types are inferred from.
const INFERRED_ROWS: usize = 50_000;

/// How the files of a table are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// Format of the files; by their ending where it is not given.
    pub format: Option<FileKind>,
    /// CSV: the character between values, as a byte.
    pub delimiter: u8,
    /// CSV: whether the first line of each file holds the columns' names.
    pub header: bool,
    /// CSV: a text that stands for NULL in every column, as `NA`. An empty value is NULL in any case.
    pub null: Option<String>,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            format: None,
            delimiter: b',',
            header: true,
            null: None,
        }
    }
}

/// Formats that tables are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values, or with another delimiter.
    Csv,
    /// JSON, one object per line.
    Json,
}

impl FileKind {
    /// The format of files with this ending.
    fn of_ending(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "parquet" | "pq" => Some(Self::Parquet),
            "csv" | "tsv" | "tbl" | "txt" => Some(Self::Csv),
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            _ => None,
        }
    }

    /// The format of this name in `STORED AS`.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "PARQUET" => Some(Self::Parquet),
            "CSV" => Some(Self::Csv),
            "JSON" | "NDJSON" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A place where files are: made absolute, as workers have working folders of their own.
#[derive(Debug, Clone)]
pub(super) struct Location {
    shown: String,
    path: PathBuf,
    is_pattern: bool,
}

impl Location {
    /// # Errors
    /// [`QueryError::File`] when a plain path does not exist.
    pub(super) fn new(text: &str) -> Result<Self, QueryError> {
        let path = text.strip_prefix("file://").unwrap_or(text);
        let fails = |message: String| QueryError::File {
            path: text.to_owned(),
            message,
        };
        let path = std::path::absolute(path).map_err(|error| fails(error.to_string()))?;
        let exists = path
            .try_exists()
            .map_err(|error| fails(error.to_string()))?;
        let is_pattern = !exists && text.contains(['*', '?', '[']);
        if !exists && !is_pattern {
            return Err(fails("no such file or folder".to_owned()));
        }
        Ok(Self {
            shown: text.to_owned(),
            path,
            is_pattern,
        })
    }

    fn fails(&self, message: impl Into<String>) -> QueryError {
        QueryError::File {
            path: self.shown.clone(),
            message: message.into(),
        }
    }

    pub(super) fn url(&self) -> Result<ListingTableUrl, QueryError> {
        let mut text = self.path.to_string_lossy().into_owned();
        if !self.is_pattern && self.path.is_dir() && !text.ends_with('/') {
            text.push('/');
        }
        ListingTableUrl::parse(&text).map_err(|error| self.fails(error.strip_backtrace()))
    }

    /// The format of the files, from the ending of the path or, in a folder, of its files.
    fn kind(&self) -> Result<(FileKind, String), QueryError> {
        let ending = |path: &Path| {
            path.extension()
                .map(|ending| ending.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        if self.is_pattern || !self.path.is_dir() {
            let kind = FileKind::of_ending(&self.path).ok_or_else(|| self.unknown_ending())?;
            return Ok((kind, String::new()));
        }
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.path)
            .map_err(|error| self.fails(error.to_string()))?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        files
            .iter()
            .find_map(|file| Some((FileKind::of_ending(file)?, ending(file))))
            .ok_or_else(|| self.unknown_ending())
    }

    fn unknown_ending(&self) -> QueryError {
        self.fails(
            "cannot tell the format from the name; name files .parquet, .csv or .json, or use \
             CREATE EXTERNAL TABLE … STORED AS CSV",
        )
    }
}

/// The table of these files.
///
/// # Errors
/// [`QueryError::File`] when there are none, or their schema cannot be inferred.
pub(super) async fn table(
    state: &SessionState,
    location: &str,
    options: &FileOptions,
    declared: Option<SchemaRef>,
) -> Result<Arc<dyn TableProvider>, QueryError> {
    let location = Location::new(location)?;
    let (kind, ending) = match options.format {
        Some(kind) => (kind, String::new()),
        None => location.kind()?,
    };
    let options = FileOptions {
        // A file of tab-separated values has tabs, whatever the default is.
        delimiter: match location.path.extension() {
            Some(ending) if ending.eq_ignore_ascii_case("tsv") && options.delimiter == b',' => {
                b'\t'
            }
            _ => options.delimiter,
        },
        ..options.clone()
    };
    let url = location.url()?;
    let listing = ListingOptions::new(format(kind, &options, state)).with_file_extension(ending);
    let schema = match declared {
        Some(schema) => schema,
        None => listing
            .infer_schema(state, &url)
            .await
            .map(|schema| without_null_type(&schema))
            .map_err(|error| {
                location.fails(inference_failure(&error.strip_backtrace(), kind, &location))
            })?,
    };
    match (&options.null, kind) {
        (Some(marker), FileKind::Csv) => marked(state, url, listing, &schema, marker),
        _ => listed(state, url, listing, schema),
    }
    .map_err(|error| location.fails(error.strip_backtrace()))
}

fn format(kind: FileKind, options: &FileOptions, state: &SessionState) -> Arc<dyn FileFormat> {
    match kind {
        FileKind::Parquet => {
            Arc::new(ParquetFormat::default().with_options(state.table_options().parquet.clone()))
        }
        FileKind::Csv => Arc::new(
            CsvFormat::default()
                .with_delimiter(options.delimiter)
                .with_has_header(options.header)
                .with_schema_infer_max_rec(INFERRED_ROWS)
                .with_null_regex(options.null.as_deref().map(null_pattern)),
        ),
        FileKind::Json => Arc::new(JsonFormat::default().with_schema_infer_max_rec(INFERRED_ROWS)),
    }
}

/// A regular expression that matches the marker and the empty text, and nothing else.
fn null_pattern(marker: &str) -> String {
    let escaped: String = marker
        .chars()
        .flat_map(|character| {
            let special = !character.is_alphanumeric() && character.is_ascii() && character != ' ';
            special.then_some('\\').into_iter().chain([character])
        })
        .collect();
    format!("^(?:{escaped})?$")
}

/// A column with no values at all is text: it may have values in another file or tomorrow.
fn without_null_type(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Null => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
            _ => Arc::clone(field),
        })
        .collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn inference_failure(cause: &str, kind: FileKind, location: &Location) -> String {
    if cause.contains("No files found") {
        let what = if location.is_pattern {
            "no file matches this pattern"
        } else {
            "no files in this folder"
        };
        return what.to_owned();
    }
    let cause = cause.lines().next().unwrap_or_default();
    let remedy = match kind {
        FileKind::Parquet => "is it a whole Parquet file?",
        FileKind::Csv => {
            "check the delimiter, the header and quotes, or declare the columns with CREATE EXTERNAL TABLE name (column type, …)"
        }
        FileKind::Json => "JSON files hold one object per line",
    };
    format!("cannot infer the columns: {cause}; {remedy}")
}

fn listed(
    state: &SessionState,
    url: ListingTableUrl,
    listing: ListingOptions,
    schema: SchemaRef,
) -> datafusion::common::Result<Arc<dyn TableProvider>> {
    let config = ListingTableConfig::new(url)
        .with_listing_options(listing)
        .with_schema(schema);
    let cache = state.runtime_env().cache_manager.get_file_statistic_cache();
    Ok(Arc::new(ListingTable::try_new(config)?.with_cache(cache)))
}

/// A CSV table whose marker means NULL. DataFusion heeds a marker when it infers types, but not when it reads, so values
/// are read as text, compared with the marker, and only then given their types.
fn marked(
    state: &SessionState,
    url: ListingTableUrl,
    listing: ListingOptions,
    schema: &SchemaRef,
    marker: &str,
) -> datafusion::common::Result<Arc<dyn TableProvider>> {
    let texts: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), DataType::Utf8, true))
        .collect();
    let text_table = listed(state, url, listing, Arc::new(Schema::new(texts)))?;
    let typed = schema.fields().iter().map(|field| {
        let text = Expr::Column(Column::from_name(field.name()));
        let value = nullif(text, lit(marker));
        let value = match field.data_type() {
            DataType::Utf8 => value,
            other => cast(value, other.clone()),
        };
        value.alias(field.name())
    });
    let plan = LogicalPlanBuilder::scan("csv", provider_as_source(text_table), None)?
        .project(typed)?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_marker_is_taken_literally() {
        assert_eq!(null_pattern("NA"), "^(?:NA)?$");
        assert_eq!(null_pattern("\\N"), "^(?:\\\\N)?$");
        assert_eq!(null_pattern("n.a."), "^(?:n\\.a\\.)?$");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Location::new("/nowhere/at/all.csv")
            .expect_err("it is not there")
            .to_string();
        assert_eq!(error, "/nowhere/at/all.csv: no such file or folder");
    }
}
