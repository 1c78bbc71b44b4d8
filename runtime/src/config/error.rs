//! What can be wrong with a configuration, always with the place it came from.

use std::io;
use std::path::PathBuf;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {} is not valid TOML: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what, in words.
        reason: String,
    },
    /// A key that means nothing.
    #[error("unknown option `{key}` in {origin}{}", hint(nearest))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it was found.
        origin: String,
        /// The known option that looks most like it, written as it should be there.
        nearest: Option<String>,
    },
    /// A value that cannot be used.
    #[error("option `{name}` in {origin}: `{value}` is not {reason}")]
    BadValue {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// Where it was found.
        origin: String,
        /// What it should be, as in "a number of bytes; write ...".
        reason: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None => "; the README lists all options".to_owned(),
    }
}
