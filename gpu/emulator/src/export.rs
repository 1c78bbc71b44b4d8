//! Descriptions of memory for other processes: a small file that says which blocks of which device.
//!
//! Used by `ipc` and `virtual_memory`. A file is gone, or empty, when its memory is; whoever reads it then gets nothing.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use crate::backing::Blocks;
use crate::code::Code;
use crate::driver::Driver;

/// What marks such a file.
const MAGIC: u64 = 0x3146_5f55_4d45_5543;

/// Memory, as another process is told of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Description {
    /// The device's number in the machine.
    pub(crate) device: usize,
    /// Where in the first block it starts, and how long it is.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) blocks: Vec<usize>,
}

impl Description {
    /// Writes it to the start of a file.
    pub(crate) fn write(&self, file: &mut File) -> std::io::Result<()> {
        let head = [MAGIC, self.device as u64, self.offset, self.bytes];
        let words = head
            .into_iter()
            .chain(self.blocks.iter().map(|block| *block as u64));
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)
    }

    /// Reads one; `None` for any other file.
    pub(crate) fn read(file: &mut File) -> Option<Self> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).ok()?;
        // Files of a program may be endless; ours are not.
        file.take(64 << 20).read_to_end(&mut bytes).ok()?;
        let mut words = bytes
            .chunks_exact(8)
            .filter_map(|word| word.try_into().ok())
            .map(u64::from_le_bytes);
        if words.next() != Some(MAGIC) {
            return None;
        }
        let (device, offset, bytes) = (words.next()?, words.next()?, words.next()?);
        Some(Self {
            device: usize::try_from(device).ok()?,
            offset,
            bytes,
            blocks: words.map(|block| block as usize).collect(),
        })
    }

    /// Holds the memory, in this process, on the visible device that it is of.
    pub(crate) fn hold(
        &self,
        driver: &Driver,
    ) -> Result<
        (
            std::sync::Arc<crate::device::Device>,
            std::sync::Arc<Blocks>,
        ),
        Code,
    > {
        let device = driver
            .devices
            .iter()
            .find(|device| device.memory.index() == self.device)
            .ok_or(Code::INVALID_DEVICE)?;
        let blocks = device.memory.share(self.blocks.clone())?;
        Ok((std::sync::Arc::clone(device), blocks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_as_it_was_written_and_nothing_else_is_one() {
        let mut file = tempfile::tempfile().expect("a file");
        let memory = Description {
            device: 1,
            offset: 512,
            bytes: 1000,
            blocks: vec![7, 9],
        };
        memory.write(&mut file).expect("written");
        assert_eq!(Description::read(&mut file), Some(memory));
        file.set_len(0).expect("emptied");
        assert_eq!(Description::read(&mut file), None);
        file.write_all(&[1; 100]).expect("written");
        assert_eq!(Description::read(&mut file), None);
    }
}
