//! What can go wrong with a statement, for a person who typed it. Made at the crate's boundary; knows DataFusion's errors.

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::object_store;
use datafusion::sql::sqlparser::parser::ParserError;
use transload_protocol::TaskError;
use transload_runtime::ClientError;

use crate::execute::Shared;

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is not SQL. The message names line and column where the parser knows them.
    #[error("cannot parse the statement: {message}")]
    Parse {
        /// What the parser expected and found.
        message: String,
        /// Line, from 1, and column, from 1.
        position: Option<(u64, u64)>,
    },
    /// No table of this name is registered.
    #[error("there is no table `{table}`{}", suggestion(similar))]
    UnknownTable {
        /// The name in the statement.
        table: String,
        /// The registered table most like it.
        similar: Option<String>,
    },
    /// No table in the query has this column.
    #[error(
        "there is no column `{column}`{}{}",
        suggestion(similar),
        listed(known)
    )]
    UnknownColumn {
        /// The name in the statement.
        column: String,
        /// The column most like it.
        similar: Option<String>,
        /// All columns there are.
        known: Vec<String>,
    },
    /// The statement is SQL, but has no meaning here: types do not match, a function does not exist.
    #[error("{0}")]
    Plan(String),
    /// A file cannot be listed or read, or does not hold what it should.
    #[error("{path}: {message}")]
    File {
        /// The file, or the pattern that names files.
        path: String,
        /// What is wrong and what can be done.
        message: String,
    },
    /// A task failed on a worker.
    #[error("{}", task_message(.0))]
    Task(Box<TaskError>),
    /// The query was cancelled.
    #[error("the query was cancelled")]
    Cancelled,
    /// The cluster cannot be reached, or gave up the query.
    #[error(transparent)]
    Client(ClientError),
    /// The statement failed while running.
    #[error("{0}")]
    Execution(String),
    /// A fault of this program.
    #[error("internal error: {0}; please report it with the query")]
    Internal(String),
}

fn suggestion(similar: &Option<String>) -> String {
    similar
        .as_ref()
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

fn listed(known: &[String]) -> String {
    const MOST: usize = 20;
    let shown: Vec<_> = known.iter().take(MOST).map(String::as_str).collect();
    let more = if known.len() > MOST { ", …" } else { "" };
    if shown.is_empty() {
        String::new()
    } else {
        format!(" (there are: {}{more})", shown.join(", "))
    }
}

fn task_message(error: &TaskError) -> String {
    // People asked a query; which task of it failed matters less than why.
    format!("{} (in {})", error.message, error.layer)
}

impl From<ClientError> for QueryError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Task(error) => Self::Task(error),
            ClientError::Cancelled => Self::Cancelled,
            error => Self::Client(error),
        }
    }
}

impl QueryError {
    /// The error of planning or running a statement where `tables` are registered.
    pub(crate) fn from_datafusion(error: DataFusionError, tables: &[String]) -> Self {
        let text = error.strip_backtrace();
        let root = root_of(&error);
        match root {
            DataFusionError::SQL(error, _) => parse_error(error),
            DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
                SchemaError::FieldNotFound {
                    field,
                    valid_fields,
                } => {
                    let known: Vec<String> =
                        valid_fields.iter().map(|field| field.flat_name()).collect();
                    Self::UnknownColumn {
                        column: field.flat_name(),
                        similar: most_like(
                            &field.name,
                            valid_fields.iter().map(|field| field.name.as_str()),
                        ),
                        known,
                    }
                }
                _ => Self::Plan(text),
            },
            DataFusionError::Plan(message) => match missing_table(message) {
                Some(table) => Self::UnknownTable {
                    similar: most_like(last_part(table), tables.iter().map(String::as_str)),
                    table: last_part(table).to_owned(),
                },
                None => Self::Plan(without_prefix(message)),
            },
            DataFusionError::ObjectStore(error) => file_error(error),
            DataFusionError::NotImplemented(message)
                if message.contains("single SQL statement") =>
            {
                Self::Parse {
                    message: "one statement at a time".to_owned(),
                    position: None,
                }
            }
            DataFusionError::NotImplemented(message) => {
                Self::Plan(format!("not supported: {message}"))
            }
            DataFusionError::Configuration(message) => Self::Plan(message.clone()),
            DataFusionError::Internal(message) => Self::Internal(without_prefix(message)),
            DataFusionError::External(inner) => match inner.downcast_ref::<Shared>() {
                Some(Shared(error)) => match error.as_ref() {
                    ClientError::Task(error) => Self::Task(error.clone()),
                    ClientError::Cancelled => Self::Cancelled,
                    other => Self::Execution(other.to_string()),
                },
                None => Self::Execution(inner.to_string()),
            },
            _ => Self::Execution(text),
        }
    }
}

/// The error below contexts and collections.
fn root_of(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            root_of(inner)
        }
        DataFusionError::Shared(inner) => root_of(inner),
        DataFusionError::Collection(errors) => errors.first().map_or(error, root_of),
        _ => error,
    }
}

fn without_prefix(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

fn parse_error(error: &ParserError) -> QueryError {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message.clone(),
        ParserError::RecursionLimitExceeded => {
            "the statement is nested too deeply; SET datafusion.sql_parser.recursion_limit to a larger number".to_owned()
        }
    };
    QueryError::Parse {
        position: position_in(&message),
        message,
    }
}

/// The parser writes positions as `at Line: 1, Column: 5` at the end of its messages.
fn position_in(message: &str) -> Option<(u64, u64)> {
    let (_, place) = message.rsplit_once("Line: ")?;
    let (line, rest) = place.split_once(", Column: ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((line.parse().ok()?, digits.parse().ok()?))
}

fn missing_table(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("table '")?;
    let (name, _) = rest.split_once("' not found")?;
    Some(name)
}

fn last_part(table: &str) -> &str {
    table.rsplit_once('.').map_or(table, |(_, last)| last)
}

fn file_error(error: &object_store::Error) -> QueryError {
    let (path, message) = match error {
        object_store::Error::NotFound { path, .. } => (
            path.clone(),
            "no such file; every worker must see it under this path".to_owned(),
        ),
        object_store::Error::PermissionDenied { path, .. } => {
            (path.clone(), "permission denied".to_owned())
        }
        other => ("file".to_owned(), other.to_string()),
    };
    QueryError::File { path, message }
}

/// The name that differs from `wanted` least, if that is little.
pub(crate) fn most_like<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let wanted = wanted.to_lowercase();
    names
        .map(|name| (distance(&wanted, &name.to_lowercase()), name))
        .min()
        .filter(|(distance, name)| *distance * 2 <= name.len().max(wanted.len()) + 1)
        .map(|(_, name)| name.to_owned())
}

/// Characters to insert, delete or replace to make one text of the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, character) in left.chars().enumerate() {
        let mut diagonal = index;
        let mut previous = index + 1;
        let mut next = vec![previous];
        for (other, above) in right.iter().zip(row.iter().skip(1)) {
            previous = (previous + 1)
                .min(above + 1)
                .min(diagonal + usize::from(*other != character));
            diagonal = *above;
            next.push(previous);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_nothing_far_off() {
        let names = ["lineitem", "orders", "nation"];
        assert_eq!(
            most_like("lineitems", names.into_iter()),
            Some("lineitem".to_owned())
        );
        assert_eq!(
            most_like("ORDER", names.into_iter()),
            Some("orders".to_owned())
        );
        assert_eq!(most_like("xyz", names.into_iter()), None);
    }

    #[test]
    fn the_parsers_position_is_found() {
        let message = "Expected: an expression, found: FROM at Line: 2, Column: 17";
        assert_eq!(position_in(message), Some((2, 17)));
        assert_eq!(position_in("no position"), None);
    }

    #[test]
    fn a_missing_table_is_named_without_its_catalog() {
        let error = DataFusionError::Plan("table 'datafusion.public.flight' not found".to_owned());
        let error = QueryError::from_datafusion(error, &["flights".to_owned()]);
        assert_eq!(
            error.to_string(),
            "there is no table `flight`; did you mean `flights`?"
        );
    }
}
