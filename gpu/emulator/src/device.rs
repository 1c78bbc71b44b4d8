//! Devices: which are visible, and what they say of themselves.
//!
//! Exports the functions about devices. Attributes are those recorded of an H100 where the emulator can keep what they promise,
//! else what is true of it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::arena::Arena;
use crate::backing::DeviceMemory;
use crate::call::{Out, functions, put_text};
use crate::code::Code;
use crate::fault::FaultState;
use crate::machine::Machine;
use crate::settings::Settings;
use crate::space::Space;

/// A visible device.
#[derive(Debug)]
pub(crate) struct Device {
    /// Its number in this process.
    pub(crate) ordinal: usize,
    pub(crate) memory: Arc<DeviceMemory>,
    /// Where `cuMemAlloc` allocates.
    pub(crate) legacy: Arena,
    /// The pool of `cuMemAllocAsync`, once it was asked for.
    pub(crate) default_pool: Mutex<Option<Arc<crate::pool::Pool>>>,
    pub(crate) fault: FaultState,
    /// Bit n: this process has allowed kernels of this device to use memory of device n.
    pub(crate) peers: AtomicU32,
}

impl Device {
    pub(crate) fn new(
        ordinal: usize,
        index: usize,
        settings: &Settings,
        machine: Arc<Machine>,
        space: Arc<Space>,
    ) -> Self {
        let memory = Arc::new(DeviceMemory::new(
            machine,
            space,
            index,
            settings.memory_bytes,
        ));
        Self {
            ordinal,
            legacy: Arena::new(Arc::clone(&memory), settings.poison),
            memory,
            default_pool: Mutex::default(),
            fault: FaultState::default(),
            peers: AtomicU32::new(0),
        }
    }

    /// Its place on the bus, in twelve characters.
    pub(crate) fn bus_id(&self) -> String {
        format!("0000:{:02x}:00.0", self.memory.index() + 1)
    }

    /// Its identifier, the same in all processes of the machine, and that of no other machine's.
    pub(crate) fn uuid(&self) -> [u8; 16] {
        uuid(self.memory.index())
    }
}

fn uuid(index: usize) -> [u8; 16] {
    let mut bytes = *b"emulate\0\0\0\0\0\0\0\0\0";
    bytes[7..15].copy_from_slice(&machine_number().to_le_bytes());
    if let Some(last) = bytes.last_mut() {
        *last = index as u8;
    }
    bytes
}

/// Tells machines apart: what is made of the folder that its processes share, or of the process that is alone on it.
fn machine_number() -> u64 {
    let state = std::env::var_os(crate::settings::STATE);
    let state = state.unwrap_or_else(|| std::process::id().to_string().into());
    // FNV-1a, the same in all processes.
    let bytes = state.as_encoded_bytes().iter();
    bytes.fold(0xcbf2_9ce4_8422_2325, |number, byte| {
        (number ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// `GPU-` and the identifier as `CUDA_VISIBLE_DEVICES` takes it.
fn uuid_text(index: usize) -> String {
    let digits: String = uuid(index)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let parts: Vec<&str> = [0..8, 8..12, 12..16, 16..20, 20..32]
        .into_iter()
        .filter_map(|range| digits.get(range))
        .collect();
    format!("GPU-{}", parts.join("-"))
}

/// The devices of `count` that `CUDA_VISIBLE_DEVICES` leaves: cut at the first unknown entry; `NO_DEVICE` when none is left,
/// `INVALID_DEVICE` when one is named twice (docs/gpu-facts.md, surprise 12).
pub(crate) fn visible(count: usize) -> Result<Vec<usize>, Code> {
    visible_of(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(), count)
}

fn visible_of(value: Option<&str>, count: usize) -> Result<Vec<usize>, Code> {
    let mut devices = Vec::new();
    match value {
        None => devices.extend(0..count),
        Some(text) => {
            for entry in text.split(',').map(str::trim) {
                let by_number = entry.parse::<usize>().ok().filter(|index| *index < count);
                let by_name = || {
                    (0..count).find(|index| entry.len() > 4 && uuid_text(*index).starts_with(entry))
                };
                match by_number.or_else(by_name) {
                    Some(index) if devices.contains(&index) => return Err(Code::INVALID_DEVICE),
                    Some(index) => devices.push(index),
                    None => break,
                }
            }
        }
    }
    if devices.is_empty() {
        Err(Code::NO_DEVICE)
    } else {
        Ok(devices)
    }
}

/// Few, as every block costs time here.
pub(crate) const MULTIPROCESSORS: i32 = 16;

/// Attributes by their number (`CUdevice_attribute`). 0: the device cannot do it, or has none of it.
fn attribute(device: &Device, number: u32) -> Result<i32, Code> {
    let value = match number {
        // Threads in a block: all, x, y, z. Blocks in a grid: x, y, z.
        1..=3 => 1024,
        4 => 64,
        5 => i32::MAX,
        6 | 7 => 65_535,
        // Shared memory of a block, without asking for more; constant memory; lanes; largest pitch; registers of a block.
        8 => 48 << 10,
        9 => 64 << 10,
        10 => 32,
        11 => i32::MAX,
        12 => 65_536,
        // Clock in kHz; alignment of textures; copies overlap with kernels.
        13 => 1_980_000,
        14 => 512,
        15 => 1,
        16 => MULTIPROCESSORS,
        // Maps host memory, runs kernels at once, unified addresses.
        19 | 31 | 41 => 1,
        33 => device.memory.index() as i32 + 1,
        36 => 2_619_000,
        37 => 5_120,
        38 => 50 << 20,
        39 => 2_048,
        // Engines for copies.
        40 => 3,
        // Compute capability 9.0.
        75 => 9,
        76 => 0,
        // Stream priorities; shared memory and registers of a multiprocessor; managed memory.
        78 | 83 => 1,
        81 => 233_472,
        82 => 65_536,
        // Host pointers of registered memory, cooperative launches, registration of host memory, read-only too.
        91 | 95 | 99 | 113 => 1,
        97 => 232_448,
        // Virtual memory and its export as a file, pools and their export, events between processes.
        102 | 103 | 115 | 119 | 125 => 1,
        111 => 1_024,
        // What the emulator has no counterpart for: managed pages that migrate, RDMA, fabric, multicast, NUMA and the like.
        17..=150 => 0,
        _ => return Err(Code::INVALID_VALUE),
    };
    Ok(value)
}

functions! { driver;
    /// `cuDeviceGetName`, cut to the room there is.
    fn cuDeviceGetName(name: Out<u8>, room: i32, device: i32) {
        let index = driver.device(device)?.memory.index();
        put_text(name, room.into(), &format!("CUDA emulator {index} (no GPU)"))
    }

    /// `cuDeviceGetUuid`.
    fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, device: i32) {
        uuid.put(driver.device(device)?.uuid())
    }

    /// `cuDeviceGetUuid` of CUDA 11.4 and later.
    fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: i32) {
        uuid.put(driver.device(device)?.uuid())
    }

    /// `cuDeviceTotalMem`.
    fn cuDeviceTotalMem_v2(bytes: Out<u64>, device: i32) {
        bytes.put(driver.device(device)?.memory.bytes())
    }

    /// `cuDeviceGetAttribute`. The device is judged before the attribute.
    fn cuDeviceGetAttribute(value: Out<i32>, number: u32, device: i32) {
        let device = driver.device(device)?;
        value.put(attribute(device, number)?)
    }

    /// `cuDeviceGetPCIBusId`. Fails with `INVALID_VALUE` where there is too little room.
    fn cuDeviceGetPCIBusId(text: Out<u8>, room: i32, device: i32) {
        let id = driver.device(device)?.bus_id();
        if usize::try_from(room).map_err(|_| Code::INVALID_VALUE)? <= id.len() {
            return Err(Code::INVALID_VALUE);
        }
        put_text(text, room.into(), &id)
    }

    /// `cuDeviceGetByPCIBusId`.
    fn cuDeviceGetByPCIBusId(device: Out<i32>, text: crate::call::Text) {
        let wanted = text.get()?;
        let found = driver.devices.iter().find(|device| device.bus_id() == wanted).ok_or(Code::INVALID_DEVICE)?;
        device.put(found.ordinal as i32)
    }

    /// `cuDeviceComputeCapability`.
    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: i32) {
        driver.device(device)?;
        major.put(9)?;
        minor.put(0)
    }

    /// `cuDeviceCanAccessPeer`: a device is no peer of itself.
    fn cuDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) {
        let (device, peer) = (driver.device(device)?, driver.device(peer)?);
        can.put(i32::from(driver.settings.peers && device.ordinal != peer.ordinal))
    }

    /// `cuCtxEnablePeerAccess`: one way, from the current context's device (CUDA Driver API, 6.30 Peer Context Memory Access).
    fn cuCtxEnablePeerAccess(peer: u64, flags: u32) {
        let context = crate::context::current()?;
        let peer = driver.handles.context(peer)?;
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        if !driver.settings.peers || peer.device().ordinal == context.device().ordinal {
            return Err(Code::PEER_ACCESS_UNSUPPORTED);
        }
        let bit = 1 << peer.device().ordinal;
        if context.device().peers.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
            return Err(Code::PEER_ACCESS_ALREADY_ENABLED);
        }
        Ok(())
    }

    /// `cuCtxDisablePeerAccess`.
    fn cuCtxDisablePeerAccess(peer: u64) {
        let context = crate::context::current()?;
        let bit = 1 << driver.handles.context(peer)?.device().ordinal;
        if context.device().peers.fetch_and(!bit, Ordering::SeqCst) & bit == 0 {
            return Err(Code::PEER_ACCESS_NOT_ENABLED);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_visible_devices_is_cut_at_its_first_unknown_entry() {
        assert_eq!(visible_of(None, 2), Ok(vec![0, 1]));
        assert_eq!(visible_of(Some("1,0"), 2), Ok(vec![1, 0]));
        assert_eq!(visible_of(Some("0,7,1"), 2), Ok(vec![0]));
        assert_eq!(visible_of(Some(&uuid_text(1)), 2), Ok(vec![1]));
        assert_eq!(visible_of(Some("7,0"), 2), Err(Code::NO_DEVICE));
        assert_eq!(visible_of(Some(""), 2), Err(Code::NO_DEVICE));
        assert_eq!(visible_of(Some("0,0"), 2), Err(Code::INVALID_DEVICE));
    }
}
