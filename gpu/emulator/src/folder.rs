//! Folders in which machines lie: made in memory, and removed when nobody is left in them.
//!
//! Used by `harness` and by processes that share with nobody. Devices' memory lies there, so what killed tests leave behind must not
//! pile up: whoever makes a folder removes those that were abandoned.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};
use std::time::Duration;

use crate::call::lock;
use crate::file_lock::{self, Bytes};

/// How all of them begin.
const PREFIX: &str = "cuda-emulator-";
/// The file that whoever made a folder keeps locked, and those that processes in it keep locked.
const OWNER: &str = "owner";
const LOCKS: [&str; 3] = [OWNER, "lock", "state/lock"];
/// A younger folder may be one that is just being made.
const YOUNG: Duration = Duration::from_secs(60);

/// A folder of its own, gone when this is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: tempfile::TempDir,
    /// Locked for as long as it is open.
    _owner: File,
}

/// Folders that this process has made, and which process that is: they are removed at its end, as values of statics are not dropped.
static MADE: Mutex<(u32, Vec<PathBuf>)> = Mutex::new((0, Vec::new()));

extern "C" fn remove_at_exit() {
    let (process, folders) = &*lock(&MADE);
    if *process == std::process::id() {
        for folder in folders {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Folder {
    /// Makes one, on a file system in memory where there is one.
    pub(crate) fn new() -> io::Result<Self> {
        static ONCE: Once = Once::new();
        let root = PathBuf::from("/dev/shm");
        let root = if root.is_dir() {
            root
        } else {
            std::env::temp_dir()
        };
        ONCE.call_once(|| {
            remove_abandoned(&root);
            // SAFETY: the function is of this library, which is never unloaded.
            unsafe { libc::atexit(remove_at_exit) };
        });
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(root)?;
        let owner = crate::mapped::open(&folder.path().join(OWNER))?;
        file_lock::take(&owner, 0)?;
        let mut made = lock(&MADE);
        made.0 = std::process::id();
        made.1.push(folder.path().to_path_buf());
        Ok(Self {
            folder,
            _owner: owner,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes the folders of those who were killed.
fn remove_abandoned(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX));
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|time| time.elapsed().ok());
        if is_ours && age.is_some_and(|age| age > YOUNG) && is_abandoned(&entry.path()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether no process has one of its files locked. One that has none is not ours to judge.
fn is_abandoned(folder: &Path) -> bool {
    let files: Vec<File> = LOCKS
        .iter()
        .filter_map(|name| crate::mapped::open_existing(&folder.join(name)).ok())
        .collect();
    !files.is_empty()
        && files
            .iter()
            .all(|file| !file_lock::is_taken(file, Bytes::All))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_abandoned_when_nobody_has_it_locked() {
        let folder = Folder::new().expect("a folder");
        assert!(!is_abandoned(folder.path()));
        let other = tempfile::tempdir().expect("a folder");
        assert!(!is_abandoned(other.path()), "nothing of ours is in it");
        std::fs::write(other.path().join(OWNER), "").expect("written");
        assert!(is_abandoned(other.path()));
    }
}
