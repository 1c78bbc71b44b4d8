//! Memory of a device: blocks that hold bytes, and views that give them addresses.
//!
//! Used by `arena`, `ipc` and `virtual_memory`. Whoever works on bytes keeps their view, so that a free in the meantime does
//! not pull them away.

use std::sync::{Arc, Mutex};

use crate::call::{lock, say};
use crate::code::Code;
use crate::machine::{BLOCK_BYTES, Machine};
use crate::space::Space;

/// The memory of one device, as this process sees it.
#[derive(Debug)]
pub(crate) struct DeviceMemory {
    machine: Arc<Machine>,
    space: Arc<Space>,
    /// The device's number in the machine, whatever is visible to this process.
    index: usize,
    bytes: u64,
    /// How often this process holds each block.
    holds: Mutex<Vec<u32>>,
}

/// Blocks that this process holds.
#[derive(Debug)]
pub(crate) struct Blocks {
    memory: Arc<DeviceMemory>,
    list: Vec<usize>,
}

/// Blocks at an address.
#[derive(Debug)]
pub(crate) struct View {
    blocks: Arc<Blocks>,
    address: u64,
    /// The addresses go back with the view; else they belong to a reservation.
    owns_addresses: bool,
}

impl DeviceMemory {
    /// The memory of device `index`.
    pub(crate) fn new(machine: Arc<Machine>, space: Arc<Space>, index: usize, bytes: u64) -> Self {
        let holds = Mutex::new(vec![0; (bytes / BLOCK_BYTES) as usize]);
        Self {
            machine,
            space,
            index,
            bytes,
            holds,
        }
    }

    /// The device's number in the machine.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// All bytes of the device.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that no process holds.
    pub(crate) fn free_bytes(&self) -> u64 {
        let held = self.machine.hold();
        held.reap();
        held.free_bytes(self.index)
    }

    /// New blocks for `bytes`, full of zeros. Fails with `OUT_OF_MEMORY`.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> Result<Arc<Blocks>, Code> {
        if bytes > self.bytes {
            return Err(Code::OUT_OF_MEMORY);
        }
        let count = bytes.div_ceil(BLOCK_BYTES) as usize;
        let mut holds = lock(&self.holds);
        let held = self.machine.hold();
        let taken = held.take(self.index, count).or_else(|| {
            held.reap();
            held.take(self.index, count)
        });
        let list = taken.ok_or(Code::OUT_OF_MEMORY)?;
        count_up(&mut holds, &list);
        Ok(Arc::new(Blocks {
            memory: Arc::clone(self),
            list,
        }))
    }

    /// Blocks that another process holds, or this one. Fails with `INVALID_VALUE` where nobody holds one of them.
    pub(crate) fn share(self: &Arc<Self>, list: Vec<usize>) -> Result<Arc<Blocks>, Code> {
        let mut holds = lock(&self.holds);
        let held = self.machine.hold();
        if !held.are_held(self.index, &list) {
            return Err(Code::INVALID_VALUE);
        }
        held.hold_blocks(self.index, &list);
        count_up(&mut holds, &list);
        Ok(Arc::new(Blocks {
            memory: Arc::clone(self),
            list,
        }))
    }
}

fn count_up(holds: &mut [u32], list: &[usize]) {
    for block in list {
        if let Some(count) = holds.get_mut(*block) {
            *count += 1;
        }
    }
}

impl Blocks {
    /// Their numbers.
    pub(crate) fn list(&self) -> &[usize] {
        &self.list
    }

    /// Their size.
    pub(crate) fn bytes(&self) -> u64 {
        self.list.len() as u64 * BLOCK_BYTES
    }

    /// Gives them new addresses.
    pub(crate) fn view(self: &Arc<Self>) -> Result<Arc<View>, Code> {
        let address = self
            .memory
            .space
            .take(self.bytes())
            .ok_or(Code::OUT_OF_MEMORY)?;
        self.view_there(address, true)
    }

    /// Gives them the reserved addresses from `address` on.
    pub(crate) fn view_at(self: &Arc<Self>, address: u64) -> Result<Arc<View>, Code> {
        self.view_there(address, false)
    }

    fn view_there(self: &Arc<Self>, address: u64, owns_addresses: bool) -> Result<Arc<View>, Code> {
        let view = Arc::new(View {
            blocks: Arc::clone(self),
            address,
            owns_addresses,
        });
        let file = self
            .memory
            .machine
            .memory_file(self.memory.index)
            .ok_or(Code::UNKNOWN)?;
        self.memory
            .space
            .map(address, file, &self.list, self.memory.bytes)
            .map_err(|error| {
                say!("device memory cannot be mapped: {error}");
                Code::OUT_OF_MEMORY
            })?;
        Ok(view)
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        let mut holds = lock(&self.memory.holds);
        let mut left = Vec::new();
        for block in &self.list {
            if let Some(count) = holds.get_mut(*block) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    left.push(*block);
                }
            }
        }
        self.memory
            .machine
            .hold()
            .leave_blocks(self.memory.index, &left);
    }
}

impl View {
    /// Its first address.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.bytes()
    }

    /// What it shows.
    pub(crate) fn blocks(&self) -> &Arc<Blocks> {
        &self.blocks
    }

    /// Makes `bytes` from `address` on fresh: full of poison, if there is any, and not written.
    pub(crate) fn freshen(&self, address: u64, bytes: u64, poison: Option<u8>) {
        if let Some(poison) = poison {
            self.fill(address, bytes, poison);
        }
        crate::written::mark(&self.blocks.memory.space, address, bytes, false);
    }

    /// Fills `bytes` from `address` on, which the view has.
    pub(crate) fn fill(&self, address: u64, bytes: u64, value: u8) {
        debug_assert!(address >= self.address && address + bytes <= self.address + self.bytes());
        let host = std::ptr::with_exposed_provenance_mut::<u8>(
            self.blocks.memory.space.host(address) as usize,
        );
        // SAFETY: the range lies in the view, which is mapped for as long as `self` lives.
        unsafe { std::ptr::write_bytes(host, value, bytes as usize) };
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let space = &self.blocks.memory.space;
        space.unmap(self.address, self.blocks.bytes());
        if self.owns_addresses {
            space.give_back(self.address);
        }
    }
}
