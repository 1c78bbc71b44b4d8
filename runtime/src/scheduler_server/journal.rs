//! The journal of a scheduler: the machine's records in files, so that another process can go on with them.
//!
//! Written by the scheduler's thread before it sends what follows from a record; read once at the start. Knows entries only as
//! something that can be encoded. One folder belongs to one scheduler at a time.
//!
//! The folder holds `lock` and segments `NUMBER.journal`, of which the highest counts: it begins with everything that still mattered
//! when it was made. A segment is a header of 8 bytes (`TLJ1` and the protocol's version, little-endian like all numbers here)
//! and frames: `FRAM`, length of the body, checksum of the length, checksum of the body, all `u32`; then the body, which
//! is entries, each behind its length. All that is written at once is one frame, so that after a crash of the machine at most the
//! last frame is torn.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tokio::time::Instant;
use transload_protocol::{JournalEntry, PROTOCOL_VERSION, codec};
use transload_scheduler::Facts;

use super::journal_error::JournalError;
use crate::config::{Fsync, JournalConfig};

const MAGIC: &[u8; 4] = b"TLJ1";
const MARK: &[u8; 4] = b"FRAM";
const HEADER_BYTES: usize = 8;
const FRAME_HEADER_BYTES: usize = 16;
const EXTENSION: &str = "journal";
/// A segment that is not whole yet.
const UNFINISHED: &str = "new";

/// An open journal. Entries wait in memory until [`Journal::commit`].
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    fsync: Fsync,
    limit_bytes: u64,
    number: u64,
    /// The current segment; none before the first [`Journal::compact`].
    segment: Option<File>,
    bytes: u64,
    /// Size of the current segment when it was made.
    least_bytes: u64,
    /// Encoded entries that were not written yet.
    pending: Vec<u8>,
    /// One of them is something that others are told.
    is_urgent: bool,
    /// When what was written must be on the disk.
    sync_due: Option<Instant>,
    /// Held as long as the journal is open.
    _lock: File,
}

impl Journal {
    /// Opens the journal in a folder, which is made where it does not exist, and reads what it says.
    pub(super) fn open(
        config: &JournalConfig,
        folder: &Path,
    ) -> Result<(Self, Facts), JournalError> {
        let io = |what| move |source| JournalError::io(what, folder, source);
        fs::create_dir_all(folder).map_err(io("make folder"))?;
        let lock = lock(folder)?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(folder).map_err(io("read folder"))? {
            let path = entry.map_err(io("read folder"))?.path();
            let extension = path.extension().and_then(|text| text.to_str());
            let number = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            match (extension, number) {
                (Some(EXTENSION), Some(number)) => numbers.push(number),
                // A scheduler ended while it made it; the one before is whole.
                (Some(UNFINISHED), Some(_)) => {
                    fs::remove_file(&path)
                        .map_err(|source| JournalError::io("remove", &path, source))?;
                }
                _ => {}
            }
        }
        let number: u64 = numbers.into_iter().max().unwrap_or(0);
        let mut facts = Facts::default();
        if number > 0 {
            read_segment(&segment_path(folder, number), &mut facts)?;
        }
        let journal = Self {
            folder: folder.to_owned(),
            fsync: config.fsync,
            limit_bytes: config.limit_bytes,
            number,
            segment: None,
            bytes: 0,
            least_bytes: 0,
            pending: Vec::new(),
            is_urgent: false,
            sync_due: None,
            _lock: lock,
        };
        Ok((journal, facts))
    }

    /// Adds an entry to what the next [`Journal::commit`] writes.
    pub(super) fn append(&mut self, entry: &JournalEntry) -> Result<(), JournalError> {
        self.is_urgent |= match entry {
            // What a client or worker says again when it comes back.
            JournalEntry::Released { .. }
            | JournalEntry::WorkerLeft { .. }
            | JournalEntry::Orphaned { .. }
            | JournalEntry::LetGo { outcome: None, .. } => false,
            JournalEntry::Begin { .. }
            | JournalEntry::ClientJoined { .. }
            | JournalEntry::ClientLeft { .. }
            | JournalEntry::WorkerJoined { .. }
            | JournalEntry::Accepted { .. }
            | JournalEntry::Ended { .. }
            | JournalEntry::Held { .. }
            | JournalEntry::LetGo {
                outcome: Some(_), ..
            }
            | JournalEntry::Published { .. }
            | JournalEntry::Unpublished { .. }
            | JournalEntry::InTime { .. }
            | JournalEntry::Shutdown => true,
        };
        encode(entry, &mut self.pending)
    }

    /// Writes all entries that wait, and sees that they are on the disk as the configuration says. After an error nothing that
    /// follows from them may be told to anybody.
    pub(super) fn commit(&mut self) -> Result<(), JournalError> {
        if !self.pending.is_empty() {
            let frame = frame(&self.pending)?;
            let path = segment_path(&self.folder, self.number);
            let Some(segment) = &mut self.segment else {
                return Ok(());
            };
            segment
                .write_all(&frame)
                .map_err(|source| JournalError::io("write", &path, source))?;
            self.pending.clear();
            self.bytes += frame.len() as u64;
            if std::mem::take(&mut self.is_urgent) && self.sync_due.is_none() {
                self.sync_due = match self.fsync {
                    Fsync::Always => Some(Instant::now()),
                    Fsync::Within(delay) => Some(Instant::now() + delay),
                    Fsync::Never => None,
                };
            }
        }
        if self.sync_due.is_some_and(|due| due <= Instant::now()) {
            self.sync_due = None;
            if let Some(segment) = &self.segment {
                let path = segment_path(&self.folder, self.number);
                segment
                    .sync_data()
                    .map_err(|source| JournalError::io("write", &path, source))?;
            }
        }
        Ok(())
    }

    /// When [`Journal::commit`] is to be called, if nothing is appended before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sync_due
    }

    /// Whether so much of it is out of date that [`Journal::compact`] is worth its time.
    pub(super) fn is_long(&self) -> bool {
        self.bytes > self.limit_bytes && self.bytes / 2 > self.least_bytes
    }

    /// Replaces everything that was written, and everything that waits, by these entries.
    pub(super) fn compact(&mut self, entries: &[JournalEntry]) -> Result<(), JournalError> {
        let number = self.number + 1;
        let unfinished = segment_path(&self.folder, number).with_extension(UNFINISHED);
        let path = segment_path(&self.folder, number);
        let io = |what| {
            let path = path.clone();
            move |source| JournalError::io(what, &path, source)
        };
        let mut segment = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&unfinished)
            .map_err(io("write"))?;
        let mut bytes = HEADER_BYTES as u64;
        segment.write_all(MAGIC).map_err(io("write"))?;
        segment
            .write_all(&PROTOCOL_VERSION.to_le_bytes())
            .map_err(io("write"))?;
        for entry in entries {
            let mut body = Vec::new();
            encode(entry, &mut body)?;
            let frame = frame(&body)?;
            segment.write_all(&frame).map_err(io("write"))?;
            bytes += frame.len() as u64;
        }
        segment.sync_all().map_err(io("write"))?;
        fs::rename(&unfinished, &path).map_err(io("write"))?;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io("write"))?;
        if self.number > 0 {
            let old = segment_path(&self.folder, self.number);
            fs::remove_file(&old).map_err(|source| JournalError::io("remove", &old, source))?;
        }
        self.segment = Some(segment);
        self.number = number;
        (self.bytes, self.least_bytes) = (bytes, bytes);
        self.pending.clear();
        (self.is_urgent, self.sync_due) = (false, None);
        Ok(())
    }
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:012}.{EXTENSION}"))
}

fn lock(folder: &Path) -> Result<File, JournalError> {
    let path = folder.join("lock");
    let io = |source| JournalError::io("lock", &path, source);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked {
            folder: folder.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

fn encode(entry: &JournalEntry, body: &mut Vec<u8>) -> Result<(), JournalError> {
    codec::encode_frame(entry, body).map_err(|error| JournalError::TooLarge {
        reason: error.to_string(),
    })
}

fn frame(body: &[u8]) -> Result<Vec<u8>, JournalError> {
    let too_large = || JournalError::TooLarge {
        reason: format!("{} B at once", body.len()),
    };
    let length = u32::try_from(body.len()).map_err(|_| too_large())?;
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
    frame.extend_from_slice(MARK);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(&length.to_le_bytes()).to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    frame.extend_from_slice(body);
    Ok(frame)
}

/// The body of the frame at the beginning of `bytes`, if there is a whole and sound one.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?))
    };
    let length = number(4)?;
    if !header.starts_with(MARK) || number(8)? != crc32fast::hash(&length.to_le_bytes()) {
        return None;
    }
    let body = rest.get(..length as usize)?;
    (number(12)? == crc32fast::hash(body)).then_some(body)
}

fn read_segment(path: &Path, facts: &mut Facts) -> Result<(), JournalError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|source| JournalError::io("read", path, source))?;
    let damaged = |offset: usize, reason: String| JournalError::Damaged {
        path: path.to_owned(),
        offset: offset as u64,
        reason,
    };
    let header = bytes.first_chunk::<HEADER_BYTES>();
    let version = header.filter(|header| header.starts_with(MAGIC));
    let version = version.and_then(|header| header.last_chunk::<4>());
    let Some(version) = version.map(|version| u32::from_le_bytes(*version)) else {
        return Err(damaged(0, "it does not begin as a journal does".to_owned()));
    };
    if version != PROTOCOL_VERSION {
        return Err(JournalError::Version {
            path: path.to_owned(),
            version,
        });
    }
    let mut offset = HEADER_BYTES;
    while offset < bytes.len() {
        let rest = bytes.get(offset..).unwrap_or_default();
        let Some(body) = body(rest) else {
            let is_followed = (1..rest.len())
                .filter_map(|skipped| rest.get(skipped..))
                .any(|rest| rest.starts_with(MARK) && self::body(rest).is_some());
            if is_followed {
                let reason = "its checksum is wrong, and sound entries follow".to_owned();
                return Err(damaged(offset, reason));
            }
            tracing::warn!(
                path = %path.display(), offset, bytes = rest.len(),
                "the end of the journal is torn, as a crash of the machine may leave it; what was not written whole was never acknowledged and is dropped"
            );
            return Ok(());
        };
        read_body(body, facts).map_err(|reason| damaged(offset, reason))?;
        offset += FRAME_HEADER_BYTES + body.len();
    }
    Ok(())
}

fn read_body(mut body: &[u8], facts: &mut Facts) -> Result<(), String> {
    while let Some((length, rest)) = body.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (entry, rest) = rest
            .split_at_checked(length)
            .ok_or("an entry is longer than its frame")?;
        facts.add(codec::decode(entry).map_err(|error| error.to_string())?);
        body = rest;
    }
    Ok(())
}

/// Whether a journal's error is that the disk is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests;
