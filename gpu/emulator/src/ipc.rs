//! Memory and events of other processes.
//!
//! Rules: CUDA Driver API, 6.13 (`cuIpc...`), and docs/gpu-facts.md, IPC and surprise 5. A handle names a file in the machine's
//! folder; the file goes when the memory is freed, and whoever has it open keeps the blocks.

use crate::call::{Out, functions, lock, say};
use crate::code::Code;
use crate::context::{current, current_even_if_faulted};
use crate::driver::Driver;
use crate::event::Event;
use crate::export::Description;
use crate::places::{Kind, Place};

/// `CUipcMemHandle` and `CUipcEventHandle`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Handle([u8; 64]);

const MEMORY: u64 = 0x3159_524d_454d_5543;
const EVENT: u64 = 0x3154_4e56_4556_5543;

/// What is in a handle: which kind, whose, and which of theirs.
struct Content {
    kind: u64,
    process: u64,
    slot: u64,
    id: u64,
}

impl Content {
    fn mine(driver: &Driver, kind: u64, id: u64) -> Self {
        Self {
            kind,
            process: u64::from(std::process::id()),
            slot: driver.machine.slot() as u64,
            id,
        }
    }

    fn pack(&self) -> Handle {
        let mut bytes = [0; 64];
        let words = [self.kind, self.process, self.slot, self.id];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Handle(bytes)
    }

    fn of(handle: &Handle) -> Self {
        let mut words = handle
            .0
            .chunks_exact(8)
            .filter_map(|word| word.try_into().ok())
            .map(u64::from_le_bytes);
        let mut next = || words.next().unwrap_or(0);
        Self {
            kind: next(),
            process: next(),
            slot: next(),
            id: next(),
        }
    }

    fn is_mine(&self) -> bool {
        self.process == u64::from(std::process::id())
    }

    fn owner_lives(&self, driver: &Driver) -> bool {
        usize::try_from(self.slot).is_ok_and(|slot| driver.machine.lives(slot, self.process))
    }

    fn path(&self, driver: &Driver) -> std::path::PathBuf {
        driver
            .machine
            .folder()
            .join(format!("memory-{}-{}", self.process, self.id))
    }
}

/// Memory is freed: nobody can open it any more.
pub(crate) fn forget_export(driver: &Driver, place: &Place) {
    let _ = std::fs::remove_file(Content::mine(driver, MEMORY, place.id).path(driver));
}

fn export(driver: &Driver, address: u64) -> Result<Handle, Code> {
    let place = lock(&driver.places)
        .find(address)
        .cloned()
        .ok_or(Code::INVALID_VALUE)?;
    let Kind::Legacy {
        view,
        is_variable: false,
    } = &place.kind
    else {
        return Err(Code::INVALID_VALUE);
    };
    let content = Content::mine(driver, MEMORY, place.id);
    let path = content.path(driver);
    if !path.exists() {
        let size = crate::machine::BLOCK_BYTES;
        let first = (place.start - view.address()) / size;
        let last = (place.start + place.bytes - 1 - view.address()) / size;
        let blocks = view
            .blocks()
            .list()
            .get(first as usize..=last as usize)
            .ok_or(Code::UNKNOWN)?
            .to_vec();
        let offset = (place.start - view.address()) % size;
        let memory = Description {
            device: place.device.memory.index(),
            offset,
            bytes: place.bytes,
            blocks,
        };
        let written = crate::mapped::open(&path).and_then(|mut file| memory.write(&mut file));
        written.map_err(|error| {
            say!("{} cannot be written: {error}", path.display());
            Code::OPERATING_SYSTEM
        })?;
    }
    Ok(content.pack())
}

fn open(driver: &Driver, handle: Handle, flags: u32) -> Result<u64, Code> {
    let context = current()?;
    let content = Content::of(&handle);
    // CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS is the only flag, and required.
    if content.kind != MEMORY || flags != 1 {
        return Err(Code::INVALID_VALUE);
    }
    if content.is_mine() {
        return Err(Code::INVALID_CONTEXT);
    }
    let mut places = lock(&driver.places);
    let known = places
        .iter()
        .find(|place| matches!(&place.kind, Kind::Opened { handle: of, .. } if *of == handle.0))
        .map(|place| place.start);
    if let Some(place) = known.and_then(|start| places.find_mut(start))
        && let Kind::Opened { times, .. } = &mut place.kind
    {
        *times += 1;
        return Ok(place.start);
    }
    if driver.machine.is_private() {
        say!(
            "an IPC handle is opened by a process that shares no device: give both processes the same {}",
            crate::settings::STATE
        );
    }
    if !content.owner_lives(driver) {
        return Err(Code::INVALID_HANDLE);
    }
    let file = std::fs::File::open(content.path(driver));
    let memory = file
        .ok()
        .and_then(|mut file| Description::read(&mut file))
        .ok_or(Code::INVALID_VALUE)?;
    let (device, blocks) = memory.hold(driver)?;
    let view = blocks.view()?;
    let start = view.address() + memory.offset;
    places.add(
        start,
        memory.bytes,
        context.handle(),
        &device,
        Kind::Opened {
            view,
            times: 1,
            handle: handle.0,
        },
    );
    Ok(start)
}

functions! { driver;
    /// `cuIpcGetMemHandle`: of `cuMemAlloc` memory alone, and of any address in it the handle of its start.
    fn cuIpcGetMemHandle(handle: Out<Handle>, address: u64) {
        current()?;
        handle.put(export(driver, address)?)
    }

    /// `cuIpcOpenMemHandle`: not in the process that made the handle; again gives the same address.
    fn cuIpcOpenMemHandle_v2(address: Out<u64>, handle: Handle, flags: u32) {
        address.put(open(driver, handle, flags)?)
    }

    /// `cuIpcCloseMemHandle`: waits for the device; as often as it was opened.
    fn cuIpcCloseMemHandle(address: u64) {
        let context = current_even_if_faulted()?;
        if !lock(&driver.places).starting_at(address).is_some_and(|place| matches!(place.kind, Kind::Opened { .. })) {
            return Err(Code::INVALID_VALUE);
        }
        crate::context::drain_device(driver, context.device());
        context.device().fault.tell()?;
        let mut places = lock(&driver.places);
        match places.find_mut(address).map(|place| &mut place.kind) {
            Some(Kind::Opened { times, .. }) if *times > 1 => *times -= 1,
            _ => drop(places.remove(address)),
        }
        Ok(())
    }

    /// `cuIpcGetEventHandle`: of an interprocess event that this process made.
    fn cuIpcGetEventHandle(handle: Out<Handle>, event: u64) {
        current()?;
        let index = driver.handles.event(event)?.shared_index()?;
        handle.put(Content::mine(driver, EVENT, index as u64).pack())
    }

    /// `cuIpcOpenEventHandle`.
    fn cuIpcOpenEventHandle(event: Out<u64>, handle: Handle) {
        current()?;
        let content = Content::of(&handle);
        if content.kind != EVENT {
            return Err(Code::MAP_FAILED);
        }
        if content.is_mine() {
            return Err(Code::INVALID_CONTEXT);
        }
        let index = usize::try_from(content.id).map_err(|_| Code::MAP_FAILED)?;
        if !driver.machine.join_event(index) {
            return Err(Code::MAP_FAILED);
        }
        event.put(Event::opened(driver, index)?)
    }
}
