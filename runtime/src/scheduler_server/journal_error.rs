//! Why a journal cannot be read or written, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use transload_protocol::{GraphError, PROTOCOL_VERSION};

use super::journal::is_full;

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("cannot {what} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// What was tried, as in "write".
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another scheduler uses it.
    #[error("another scheduler keeps its journal in {}; end it, or choose another folder with --journal", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// Something in the middle is not what was written.
    #[error(
        "{} is damaged at byte {offset}: {reason}. To go on with what stands before, cut it there: truncate -s {offset} {}",
        path.display(), path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Another version of transload wrote it.
    #[error(
        "{} was written by a version of transload that speaks version {version} of the protocol, and this one speaks version {PROTOCOL_VERSION}; \
         finish its work with that version, or begin with an empty folder",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it names.
        version: u32,
    },
    /// An entry does not fit.
    #[error("an entry is too large for the journal: {reason}")]
    TooLarge {
        /// How large.
        reason: String,
    },
    /// A graph in it breaks a rule.
    #[error("the journal holds a graph that cannot be run: {0}")]
    Graph(GraphError),
}

impl JournalError {
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    if is_full(error) {
        "; make room and start the scheduler again: it goes on where it stopped"
    } else {
        ""
    }
}
