//! Cuts views into allocations: large ones have blocks of their own, small ones share a block.
//!
//! Used by `memory` for `cuMemAlloc` and by `pool`. Between small allocations lies room that belongs to none, so that a store past
//! one of them is seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::backing::{DeviceMemory, View};
use crate::call::lock;
use crate::code::Code;
use crate::machine::BLOCK_BYTES;

/// Every allocation starts at a multiple of this (docs/gpu-facts.md, Device memory).
const ALIGNMENT: u64 = 512;

/// Allocations from the memory of one device.
#[derive(Debug)]
pub(crate) struct Arena {
    memory: Arc<DeviceMemory>,
    /// What fresh memory is filled with.
    poison: Option<u8>,
    chunks: Mutex<BTreeMap<u64, Chunk>>,
}

#[derive(Debug)]
struct Chunk {
    view: Arc<View>,
    /// Start and length of what is free.
    free: BTreeMap<u64, u64>,
    live: usize,
}

impl Arena {
    /// An arena that holds nothing.
    pub(crate) fn new(memory: Arc<DeviceMemory>, poison: Option<u8>) -> Self {
        Self {
            memory,
            poison,
            chunks: Mutex::default(),
        }
    }

    /// `bytes`, more than 0, and the view in which they are. Fails with `OUT_OF_MEMORY`.
    pub(crate) fn take(&self, bytes: u64) -> Result<(u64, Arc<View>), Code> {
        if bytes > self.memory.bytes() {
            return Err(Code::OUT_OF_MEMORY);
        }
        let room = room_for(bytes);
        let mut chunks = lock(&self.chunks);
        let fitting = chunks
            .iter_mut()
            .find_map(|(_, chunk)| Some((chunk.take(room)?, Arc::clone(&chunk.view))));
        let (address, view) = match fitting {
            Some(found) => found,
            None => {
                let view = self.memory.take(room)?.view()?;
                let mut chunk = Chunk {
                    free: BTreeMap::from([(view.address(), view.bytes())]),
                    view,
                    live: 0,
                };
                let address = chunk.take(room).ok_or(Code::OUT_OF_MEMORY)?;
                let view = Arc::clone(&chunk.view);
                chunks.insert(view.address(), chunk);
                (address, view)
            }
        };
        view.freshen(address, bytes, self.poison);
        Ok((address, view))
    }

    /// Gives back what `take` gave. Empty blocks stay until `trim`.
    pub(crate) fn give_back(&self, address: u64, bytes: u64) {
        let mut chunks = lock(&self.chunks);
        if let Some((_, chunk)) = chunks.range_mut(..=address).next_back() {
            if chunk.live > 1
                && let Some(poison) = self.poison
            {
                chunk.view.fill(address, bytes, !poison);
            }
            chunk.give_back(address, room_for(bytes));
        }
    }

    /// Gives empty blocks back until no more than `keep` bytes are held.
    pub(crate) fn trim(&self, keep: u64) {
        let mut chunks = lock(&self.chunks);
        let mut held: u64 = chunks.values().map(|chunk| chunk.view.bytes()).sum();
        chunks.retain(|_, chunk| {
            let goes = chunk.live == 0 && held > keep;
            if goes {
                held -= chunk.view.bytes();
            }
            !goes
        });
    }

    /// Bytes of all blocks that are held.
    pub(crate) fn held_bytes(&self) -> u64 {
        lock(&self.chunks)
            .values()
            .map(|chunk| chunk.view.bytes())
            .sum()
    }
}

/// What an allocation of `bytes` takes: whole blocks for large ones, else its size and a gap.
fn room_for(bytes: u64) -> u64 {
    if bytes >= BLOCK_BYTES {
        bytes.next_multiple_of(BLOCK_BYTES)
    } else {
        (bytes.next_multiple_of(ALIGNMENT) + ALIGNMENT).min(BLOCK_BYTES)
    }
}

impl Chunk {
    fn take(&mut self, room: u64) -> Option<u64> {
        // A block of its own may be reused for the same size alone: cut up, it would never be empty again.
        if room >= BLOCK_BYTES && (self.live > 0 || self.view.bytes() != room) {
            return None;
        }
        if room < BLOCK_BYTES && self.view.bytes() > BLOCK_BYTES {
            return None;
        }
        let (start, length) = self
            .free
            .iter()
            .map(|(start, length)| (*start, *length))
            .find(|(_, length)| *length >= room)?;
        self.free.remove(&start);
        if length > room {
            self.free.insert(start + room, length - room);
        }
        self.live += 1;
        Some(start)
    }

    fn give_back(&mut self, address: u64, room: u64) {
        let (mut start, mut length) = (address, room);
        if let Some((before, size)) = self
            .free
            .range(..address)
            .next_back()
            .map(|(start, length)| (*start, *length))
            && before + size == start
        {
            self.free.remove(&before);
            (start, length) = (before, size + length);
        }
        if let Some(size) = self.free.remove(&(start + length)) {
            length += size;
        }
        self.free.insert(start, length);
        self.live = self.live.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::space::Space;

    fn arena(blocks: u64) -> Arena {
        let bytes = blocks * BLOCK_BYTES;
        let machine = Machine::join(None, 1, bytes, false).expect("a machine");
        let space = Arc::new(Space::new(false).expect("addresses"));
        Arena::new(
            Arc::new(DeviceMemory::new(Arc::new(machine), space, 0, bytes)),
            Some(0xcd),
        )
    }

    #[test]
    fn small_allocations_share_a_block_with_gaps_between_them() {
        let arena = arena(2);
        let (first, _) = arena.take(1000).expect("first");
        let (second, _) = arena.take(1000).expect("second");
        assert_eq!(second - first, 1536);
        assert_eq!(arena.memory.free_bytes(), BLOCK_BYTES);
        assert_eq!(arena.take(2 * BLOCK_BYTES).err(), Some(Code::OUT_OF_MEMORY));
    }

    #[test]
    fn an_empty_block_goes_back_when_trimmed_and_no_sooner() {
        let arena = arena(2);
        let (address, view) = arena.take(5).expect("memory");
        arena.trim(0);
        assert_eq!(arena.held_bytes(), BLOCK_BYTES);
        arena.give_back(address, 5);
        assert_eq!(arena.memory.free_bytes(), BLOCK_BYTES);
        arena.trim(0);
        assert_eq!(
            arena.memory.free_bytes(),
            BLOCK_BYTES,
            "whoever works on it still has it"
        );
        drop(view);
        assert_eq!(arena.memory.free_bytes(), 2 * BLOCK_BYTES);
    }
}
