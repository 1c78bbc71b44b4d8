//! Device memory for tests: every buffer apart from every other, with bounds to the byte, and no byte read that nobody wrote.

use std::sync::{Mutex, MutexGuard, PoisonError};

use transload_gpu::kernels::Address;
use transload_ptx::{AccessError, FaultKind, Memory};

/// Buffers begin here and at its multiples, with an alignment of 64 and no more.
const SPACING: u64 = 1 << 40;
const ALIGNMENT: u64 = 64;

#[derive(Default)]
pub(crate) struct Arena {
    buffers: Mutex<Vec<Buffer>>,
}

struct Buffer {
    bytes: Vec<u8>,
    written: Vec<bool>,
    read_only: bool,
}

impl Arena {
    /// A buffer that kernels may only read.
    pub(crate) fn input(&self, bytes: &[u8]) -> Address {
        self.add(Buffer {
            bytes: bytes.to_vec(),
            written: vec![true; bytes.len()],
            read_only: true,
        })
    }

    /// A buffer to be written.
    pub(crate) fn room(&self, bytes: u64) -> Address {
        self.add(Buffer {
            bytes: vec![0xa5; bytes as usize],
            written: vec![false; bytes as usize],
            read_only: false,
        })
    }

    /// What lies there. Fails where nobody wrote.
    pub(crate) fn bytes(&self, at: Address, count: u64) -> Vec<u8> {
        let mut bytes = vec![0; count as usize];
        self.access(at.0, count, false, |buffer, range| {
            bytes.copy_from_slice(&buffer.bytes[range]);
        })
        .expect("a test reads what was written");
        bytes
    }

    /// As a copy or a memset writes it.
    pub(crate) fn put(&self, at: Address, bytes: &[u8]) {
        self.write(at.0, bytes)
            .expect("steps copy and clear what is there");
    }

    /// No buffer is left.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn add(&self, buffer: Buffer) -> Address {
        let mut buffers = self.lock();
        buffers.push(buffer);
        Address(buffers.len() as u64 * SPACING + ALIGNMENT)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Buffer>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn access(
        &self,
        address: u64,
        count: u64,
        writes: bool,
        act: impl FnOnce(&mut Buffer, std::ops::Range<usize>),
    ) -> Result<(), AccessError> {
        let refused = |kind, detail: String| AccessError { kind, detail };
        let mut buffers = self.lock();
        let buffer = (address / SPACING)
            .checked_sub(1)
            .and_then(|index| buffers.get_mut(index as usize));
        let offset = (address % SPACING).checked_sub(ALIGNMENT);
        let (Some(buffer), Some(offset)) = (buffer, offset) else {
            return Err(refused(FaultKind::IllegalAddress, "no buffer".to_owned()));
        };
        let length = buffer.bytes.len();
        if offset + count > length as u64 {
            let detail = format!("{count} bytes at {offset} of a buffer of {length}");
            return Err(refused(FaultKind::IllegalAddress, detail));
        }
        let range = offset as usize..(offset + count) as usize;
        if writes && buffer.read_only {
            return Err(refused(
                FaultKind::IllegalAddress,
                "an input is written".to_owned(),
            ));
        }
        if !writes && !buffer.written[range.clone()].iter().all(|byte| *byte) {
            let detail = format!("{count} bytes at {offset}, which nobody wrote");
            return Err(refused(FaultKind::Uninitialised, detail));
        }
        act(buffer, range);
        Ok(())
    }
}

impl Memory for Arena {
    fn read(&self, address: u64, to: &mut [u8]) -> Result<(), AccessError> {
        self.access(address, to.len() as u64, false, |buffer, range| {
            to.copy_from_slice(&buffer.bytes[range]);
        })
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), AccessError> {
        self.access(address, from.len() as u64, true, |buffer, range| {
            buffer.bytes[range.clone()].copy_from_slice(from);
            buffer.written[range].fill(true);
        })
    }

    fn update(
        &self,
        address: u64,
        bytes: u32,
        change: &mut dyn FnMut(u64) -> u64,
    ) -> Result<u64, AccessError> {
        let mut word = [0; 8];
        let part = &mut word[..bytes as usize];
        self.read(address, part)?;
        let before = u64::from_le_bytes(word);
        let after = change(before).to_le_bytes();
        self.write(address, &after[..bytes as usize])?;
        Ok(before)
    }
}
