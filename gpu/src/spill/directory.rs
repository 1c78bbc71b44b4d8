//! A directory that belongs to one living process: made with a lock file, removed on drop, swept by others once its process
//! has died. Called by `SpillDirectory` alone; knows no partitions.
//!
//! The operating system frees a lock when its process ends, however it ends, so a directory whose lock can be taken has no
//! owner. Taking the lock file out is the last step of removal: a sweep that is cut short is finished by the next one.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

const PREFIX: &str = "transload-spill-";
const LOCK_FILE: &str = "lock";
const ATTEMPTS: u32 = 16;

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    // Locked while this process lives.
    _lock: File,
}

impl Directory {
    pub(super) fn create(parent: &Path) -> io::Result<Self> {
        fs::create_dir_all(parent).map_err(|error| with_path("make", parent, &error))?;
        sweep(parent);
        for _ in 0..ATTEMPTS {
            let path = parent.join(unique_name());
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(with_path("make", &path, &error)),
            }
            match take(&path) {
                Ok(Some(lock)) => return Ok(Self { path, _lock: lock }),
                // A sweep of another process came between the making and the locking, and took it for a dead one.
                Ok(None) => {}
                Err(error) => {
                    let _ = remove(&path);
                    return Err(with_path("lock", &path, &error));
                }
            }
        }
        Err(io::Error::other(format!(
            "cannot make a spill directory in {}: {ATTEMPTS} of them were swept by other processes",
            parent.display()
        )))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the spill directory");
        }
    }
}

fn unique_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Process ids repeat across containers that share a disk; the time of creation tells those apart.
    let nanos = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    format!(
        "{PREFIX}{}-{nanos:x}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Locks a directory just made. `None` when a sweep was faster.
fn take(path: &Path) -> io::Result<Option<File>> {
    let lock_path = path.join(LOCK_FILE);
    let lock = match File::create_new(&lock_path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => Ok(lock_path.exists().then_some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
            // Then nobody else can lock there either, and no sweep will ever take it for a dead one.
            tracing::warn!(
                path = %path.display(),
                "the file system has no locks: spill directories of processes that die are not removed"
            );
            Ok(Some(lock))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes the directories of dead processes. Whatever cannot be removed is left and told to the log.
pub(super) fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && let Err(error) = sweep_one(&entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove the spill directory of a dead process");
        }
    }
}

fn sweep_one(path: &Path) -> io::Result<()> {
    let lock = match File::options()
        .read(true)
        .write(true)
        .open(path.join(LOCK_FILE))
    {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Made or removed this moment, or left by a process that died right then. Goes only if it is empty; who is
            // making it notices and makes another.
            let _ = fs::remove_dir(path);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => {
            tracing::info!(path = %path.display(), "removing the spill directory of a dead process");
            remove(path)
        }
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes a directory, its lock file last.
fn remove(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == LOCK_FILE {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path()).or_else(ignore_missing)?;
        }
    }
    fs::remove_file(path.join(LOCK_FILE)).or_else(ignore_missing)?;
    fs::remove_dir(path).or_else(ignore_missing)
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

fn with_path(verb: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "cannot {verb} the spill directory {}: {error}; choose one that this user may write",
            path.display()
        ),
    )
}
