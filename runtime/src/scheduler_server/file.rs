//! The scheduler file: where a scheduler listens, for workers and clients that cannot know it beforehand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use transload_protocol::PROTOCOL_VERSION;

use crate::RuntimeError;

/// How often a scheduler file that is not there yet is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What a scheduler file says, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerFile {
    /// `HOST:PORT`.
    pub address: String,
    /// Process id of the scheduler on its machine.
    pub pid: u32,
    /// Version of the protocol it speaks.
    pub protocol_version: u32,
}

impl SchedulerFile {
    /// Reads a scheduler file.
    ///
    /// # Errors
    /// [`RuntimeError::File`] when it is not there or is none.
    pub fn read(path: &Path) -> Result<Self, RuntimeError> {
        let file = |source| RuntimeError::File {
            what: "cannot read scheduler file",
            path: path.to_owned(),
            source,
        };
        let text = fs::read(path).map_err(file)?;
        serde_json::from_slice(&text).map_err(|error| file(error.into()))
    }

    /// Reads a scheduler file that may still be on its way, trying again for `patience`.
    ///
    /// # Errors
    /// As [`SchedulerFile::read`], when the patience is used up.
    pub async fn wait(path: &Path, patience: Duration) -> Result<Self, RuntimeError> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::read(path) {
                Err(_) if Instant::now() < deadline => sleep(POLL_INTERVAL).await,
                read => return read,
            }
        }
    }

    /// Writes it whole or not at all: readers never see half of it.
    fn write(&self, path: &Path) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", self.pid));
        let beside = path.with_file_name(name);
        let written = fs::write(&beside, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

/// A scheduler file that is removed when its scheduler ends.
#[derive(Debug)]
pub(super) struct Written {
    path: PathBuf,
    content: SchedulerFile,
}

impl Written {
    pub(super) fn new(path: &Path, address: &str) -> Result<Self, RuntimeError> {
        let content = SchedulerFile {
            address: address.to_owned(),
            pid: std::process::id(),
            protocol_version: PROTOCOL_VERSION,
        };
        content.write(path).map_err(|source| RuntimeError::File {
            what: "cannot write scheduler file",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            content,
        })
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // A later scheduler may have put its own in place.
        if SchedulerFile::read(&self.path).is_ok_and(|content| content == self.content) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_file_lives_as_long_as_its_scheduler() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("scheduler.json");
        let written = Written::new(&path, "127.0.0.1:1").expect("written");
        assert_eq!(
            SchedulerFile::read(&path).expect("read").address,
            "127.0.0.1:1"
        );
        let later = Written::new(&path, "127.0.0.1:2").expect("written");
        drop(written);
        assert_eq!(
            SchedulerFile::read(&path).expect("read").address,
            "127.0.0.1:2"
        );
        drop(later);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 0);
    }

    #[test]
    fn a_file_of_another_kind_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("scheduler.json");
        fs::write(&path, "not json").expect("written");
        let error = SchedulerFile::read(&path)
            .expect_err("not json")
            .to_string();
        assert!(error.contains("scheduler.json"), "{error}");
    }
}
