//! The file of one spilled partition: a fixed prefix, the header, the payload. Called by `SpillDirectory` alone.
//!
//! Whatever the file holds when it is read, the answer is a partition equal to the written one or an error.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::path::Path;

use transload_protocol::codec;

use crate::{ALIGNMENT_BYTES, HostBuffer, OutOfBudget, Partition, PartitionHeader};

/// Magic, then little-endian: header length `u64`, payload length `u64`, header checksum `u32`, payload checksum `u32`.
const PREFIX_BYTES: usize = 32;
const MAGIC: [u8; 8] = *b"TLSPILL1";
static PADDING: [u8; ALIGNMENT_BYTES] = [0; ALIGNMENT_BYTES];

/// Why a file could not be read.
#[derive(Debug)]
pub(super) enum ReadFailure {
    Io(io::Error),
    Corrupt(String),
    NoMemory(OutOfBudget),
}

/// Writes `partition` to a new file and returns the file's length. On an error the file may exist in part.
pub(super) fn write(path: &Path, partition: &Partition) -> io::Result<u64> {
    let header = codec::encode(&partition.header()).map_err(io::Error::other)?;
    let payload = payload_slices(partition);
    let mut checksum = crc32fast::Hasher::new();
    let mut payload_bytes = 0_u64;
    for slice in &payload {
        checksum.update(slice);
        payload_bytes += slice.len() as u64;
    }
    let prefix = Prefix {
        header_bytes: header.len() as u64,
        payload_bytes,
        header_checksum: crc32fast::hash(&header),
        payload_checksum: checksum.finalize(),
    }
    .to_bytes();
    let mut slices = Vec::with_capacity(payload.len() + 2);
    slices.push(IoSlice::new(&prefix));
    slices.push(IoSlice::new(&header));
    slices.extend(payload);
    write_all_vectored(&mut File::create_new(path)?, &mut slices)?;
    Ok((PREFIX_BYTES + header.len()) as u64 + payload_bytes)
}

/// The buffers, each followed by its padding; empty slices left out.
fn payload_slices(partition: &Partition) -> Vec<IoSlice<'_>> {
    let mut slices = Vec::with_capacity(partition.buffers().len() * 2);
    for buffer in partition.buffers() {
        let padding = buffer.len().next_multiple_of(ALIGNMENT_BYTES) - buffer.len();
        if !buffer.is_empty() {
            slices.push(IoSlice::new(buffer));
        }
        if padding > 0 {
            slices.push(IoSlice::new(&PADDING[..padding]));
        }
    }
    slices
}

fn write_all_vectored(file: &mut impl Write, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    let mut left = slices;
    // Also steps over empty slices at the front.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads the file back. `allocate` is asked only once header and lengths have been checked.
pub(super) fn read(
    path: &Path,
    allocate: impl FnOnce(&PartitionHeader) -> Result<HostBuffer, OutOfBudget>,
) -> Result<Partition, ReadFailure> {
    let mut file = File::open(path).map_err(ReadFailure::Io)?;
    let file_bytes = file.metadata().map_err(ReadFailure::Io)?.len();
    let mut prefix = [0; PREFIX_BYTES];
    fill(&mut file, &mut prefix)?;
    let prefix = Prefix::from_bytes(&prefix)?;
    // The lengths are only claims until they agree with the file's own.
    let claimed = (PREFIX_BYTES as u64)
        .checked_add(prefix.header_bytes)
        .and_then(|sum| sum.checked_add(prefix.payload_bytes));
    if claimed != Some(file_bytes) {
        return Err(ReadFailure::Corrupt(format!(
            "it is {file_bytes} B long, but claims {} B of header and {} B of payload",
            prefix.header_bytes, prefix.payload_bytes
        )));
    }
    let mut header = vec![0; prefix.header_bytes as usize];
    fill(&mut file, &mut header)?;
    check("header", prefix.header_checksum, &header)?;
    let header: PartitionHeader =
        codec::decode(&header).map_err(|error| ReadFailure::Corrupt(error.to_string()))?;
    if header.payload_bytes() != prefix.payload_bytes {
        return Err(ReadFailure::Corrupt(format!(
            "its header describes {} B of payload, and {} B are there",
            header.payload_bytes(),
            prefix.payload_bytes
        )));
    }
    let mut buffer = allocate(&header).map_err(ReadFailure::NoMemory)?;
    fill(&mut file, buffer.as_mut_slice())?;
    check("payload", prefix.payload_checksum, buffer.as_slice())?;
    Ok(header.assemble(buffer.freeze())?)
}

fn fill(file: &mut File, bytes: &mut [u8]) -> Result<(), ReadFailure> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadFailure::Corrupt("it ends early".to_owned()),
        _ => ReadFailure::Io(error),
    })
}

fn check(what: &str, expected: u32, bytes: &[u8]) -> Result<(), ReadFailure> {
    let actual = crc32fast::hash(bytes);
    if actual == expected {
        Ok(())
    } else {
        Err(ReadFailure::Corrupt(format!(
            "the checksum of its {what} is {actual:08x}, and was {expected:08x} when it was written"
        )))
    }
}

struct Prefix {
    header_bytes: u64,
    payload_bytes: u64,
    header_checksum: u32,
    payload_checksum: u32,
}

impl Prefix {
    fn to_bytes(&self) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.header_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.header_checksum.to_le_bytes());
        bytes[28..].copy_from_slice(&self.payload_checksum.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; PREFIX_BYTES]) -> Result<Self, ReadFailure> {
        fn part<const N: usize>(bytes: &[u8; PREFIX_BYTES], at: usize) -> [u8; N] {
            std::array::from_fn(|index| bytes[at + index])
        }
        if part::<8>(bytes, 0) != MAGIC {
            return Err(ReadFailure::Corrupt(
                "it does not start as a spilled partition does".to_owned(),
            ));
        }
        Ok(Self {
            header_bytes: u64::from_le_bytes(part(bytes, 8)),
            payload_bytes: u64::from_le_bytes(part(bytes, 16)),
            header_checksum: u32::from_le_bytes(part(bytes, 24)),
            payload_checksum: u32::from_le_bytes(part(bytes, 28)),
        })
    }
}
