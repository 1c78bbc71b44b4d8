//! Where results go: standard output, or a file that appears whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Stdout, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::{Failure, io_failure};

/// Where results go.
pub(crate) enum Destination {
    /// Standard output.
    Stdout(BufWriter<Stdout>),
    /// A new or replaced file, which takes its name when everything is written.
    File {
        /// The bytes so far, next to the target; removed when dropped.
        partial: BufWriter<NamedTempFile>,
        /// The name it gets.
        target: PathBuf,
    },
    /// Something that cannot be replaced by renaming, such as a named pipe or /dev/null.
    Special(BufWriter<File>),
    /// Memory.
    #[cfg(test)]
    Memory(Vec<u8>),
}

impl Destination {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self::Stdout(BufWriter::with_capacity(64 << 10, io::stdout()))
    }

    /// The file `path`. Nothing is seen there before [`Destination::commit`].
    ///
    /// # Errors
    /// The folder is missing or cannot be written, or `path` is a folder.
    pub(crate) fn file(path: &Path) -> Result<Self, Failure> {
        let failed = |error: &io::Error| {
            Failure::failed(format!("cannot write {}: {error}", path.display()))
                .hint("name a file in an existing folder that you may write to")
        };
        // A link stays a link: the file that it points to is replaced.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&target) {
            Ok(found) if found.is_dir() => {
                return Err(failed(&io::Error::from(io::ErrorKind::IsADirectory)));
            }
            Ok(found) if !found.is_file() => {
                let file = OpenOptions::new().write(true).open(&target);
                return file
                    .map(|file| Self::Special(BufWriter::new(file)))
                    .map_err(|error| failed(&error));
            }
            Ok(_) | Err(_) => {}
        }
        partial_file(&target)
            .map(|partial| Self::File {
                partial: BufWriter::with_capacity(256 << 10, partial),
                target,
            })
            .map_err(|error| failed(&error))
    }

    /// Makes everything written so far visible: flushes, and gives a file its name.
    ///
    /// # Errors
    /// The last bytes or the rename failed; then the target is as it was before.
    pub(crate) fn commit(self) -> Result<(), Failure> {
        match self {
            Self::Stdout(mut stdout) => stdout
                .flush()
                .map_err(|error| io_failure("cannot write the result", &error)),
            Self::Special(mut file) => file
                .flush()
                .map_err(|error| io_failure("cannot write the result", &error)),
            Self::File { partial, target } => partial
                .into_inner()
                .map_err(io::IntoInnerError::into_error)
                .and_then(|partial| persist(partial, &target))
                .map_err(|error| io_failure(format!("cannot write {}", target.display()), &error)),
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        }
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::File { partial, .. } => partial.write(bytes),
            Self::Special(file) => file.write(bytes),
            #[cfg(test)]
            Self::Memory(memory) => memory.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File { partial, .. } => partial.flush(),
            Self::Special(file) => file.flush(),
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        }
    }
}

/// An empty file next to `target` that removes itself unless it is persisted. Its permissions follow the umask.
pub(crate) fn partial_file(target: &Path) -> io::Result<NamedTempFile> {
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    tempfile::Builder::new()
        .prefix(&format!(".{}.", name.to_string_lossy()))
        .suffix(".partial")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
}

/// Gives a partial file its final name, replacing what was there.
pub(crate) fn persist(partial: NamedTempFile, target: &Path) -> io::Result<()> {
    partial
        .persist(target)
        .map(drop)
        .map_err(|error| error.error)
}
