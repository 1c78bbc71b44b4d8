//! NVML, as far as UCX and the conformance suite ask it: which devices there are, and that no links join them.
//!
//! Reached as `libnvidia-ml.so.1`. Needs no `cuInit` and knows nothing of `CUDA_VISIBLE_DEVICES`. Rules: NVML API Reference Guide.

use std::ffi::{CStr, c_char};
use std::sync::Mutex;

use crate::call::{Out, lock, put_text};
use crate::settings::Settings;

const SUCCESS: u32 = 0;
const UNINITIALIZED: u32 = 1;
const INVALID_ARGUMENT: u32 = 2;
const NOT_SUPPORTED: u32 = 3;

/// How often it was initialized and not shut down.
static STARTED: Mutex<u32> = Mutex::new(0);

/// `nvmlPciInfo_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct PciInfo {
    legacy_id: [u8; 16],
    domain: u32,
    bus: u32,
    device: u32,
    pci_device: u32,
    pci_subsystem: u32,
    id: [u8; 32],
}

/// `nvmlFieldValue_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct FieldValue {
    field: u32,
    scope: u32,
    timestamp: i64,
    latency_us: i64,
    kind: u32,
    code: u32,
    value: u64,
}

fn enter(name: &'static str, body: impl FnOnce() -> Result<(), u32>) -> u32 {
    let mut answer = SUCCESS;
    crate::call::guarded(name, || {
        if *lock(&STARTED) == 0 {
            answer = UNINITIALIZED;
        } else if let Err(code) = body() {
            answer = code;
        }
        Ok(())
    });
    answer
}

fn devices() -> u64 {
    Settings::of_environment().devices as u64
}

/// Handles are indices from 1 on, so that null is none.
fn index(device: u64) -> Result<u64, u32> {
    device
        .checked_sub(1)
        .filter(|index| *index < devices())
        .ok_or(INVALID_ARGUMENT)
}

fn put<T>(out: Out<T>, value: T) -> Result<(), u32> {
    out.put(value).map_err(|_| INVALID_ARGUMENT)
}

fn padded<const LENGTH: usize>(text: &str) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes
        .iter_mut()
        .zip(text.bytes())
        .for_each(|(place, byte)| *place = byte);
    bytes
}

/// `nvmlInit`: counts.
#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> u32 {
    *lock(&STARTED) += 1;
    SUCCESS
}

/// `nvmlShutdown`: counts down.
#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> u32 {
    enter("nvmlShutdown", || {
        *lock(&STARTED) -= 1;
        Ok(())
    })
}

/// `nvmlErrorString`.
#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: u32) -> *const c_char {
    let text: &CStr = match code {
        SUCCESS => c"Success",
        UNINITIALIZED => c"Uninitialized",
        INVALID_ARGUMENT => c"Invalid Argument",
        NOT_SUPPORTED => c"Not Supported",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

/// `nvmlSystemGetDriverVersion`.
#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetDriverVersion(text: Out<u8>, room: u32) -> u32 {
    enter("nvmlSystemGetDriverVersion", || {
        put_text(text, room.into(), "0.emulated").map_err(|_| INVALID_ARGUMENT)
    })
}

/// `nvmlDeviceGetCount`.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCount_v2(count: Out<u32>) -> u32 {
    enter("nvmlDeviceGetCount_v2", || put(count, devices() as u32))
}

/// `nvmlDeviceGetHandleByIndex`.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByIndex_v2(number: u32, device: Out<u64>) -> u32 {
    enter("nvmlDeviceGetHandleByIndex_v2", || {
        let handle = u64::from(number) + 1;
        index(handle)?;
        put(device, handle)
    })
}

/// `nvmlDeviceGetPciInfo`: the place that `cuDeviceGetPCIBusId` gives too.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetPciInfo_v3(device: u64, info: Out<PciInfo>) -> u32 {
    enter("nvmlDeviceGetPciInfo_v3", || {
        let bus = index(device)? as u32 + 1;
        put(
            info,
            PciInfo {
                legacy_id: padded(&format!("0000:{bus:02x}:00.0")),
                domain: 0,
                bus,
                device: 0,
                pci_device: 0,
                pci_subsystem: 0,
                id: padded(&format!("00000000:{bus:02x}:00.0")),
            },
        )
    })
}

/// `nvmlDeviceGetFieldValues`: success, and each field says for itself that it is not supported (recorded).
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetFieldValues(device: u64, count: i32, values: Out<FieldValue>) -> u32 {
    enter("nvmlDeviceGetFieldValues", || {
        index(device)?;
        for number in 0..usize::try_from(count).map_err(|_| INVALID_ARGUMENT)? {
            let place = values.at(number);
            let asked = place.get().map_err(|_| INVALID_ARGUMENT)?;
            put(
                place,
                FieldValue {
                    code: NOT_SUPPORTED,
                    value: 0,
                    ..asked
                },
            )?;
        }
        Ok(())
    })
}

/// `nvmlDeviceGetNvLinkRemotePciInfo`: there are no links.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    device: u64,
    _link: u32,
    _info: Out<PciInfo>,
) -> u32 {
    enter("nvmlDeviceGetNvLinkRemotePciInfo_v2", || {
        index(device).and(Err(NOT_SUPPORTED))
    })
}

/// `nvmlDeviceGetGpuFabricInfo`: there is no fabric.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuFabricInfo(device: u64, _info: Out<u8>) -> u32 {
    enter("nvmlDeviceGetGpuFabricInfo", || {
        index(device).and(Err(NOT_SUPPORTED))
    })
}

/// `nvmlDeviceGetGpuFabricInfoV`.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuFabricInfoV(device: u64, _info: Out<u8>) -> u32 {
    enter("nvmlDeviceGetGpuFabricInfoV", || {
        index(device).and(Err(NOT_SUPPORTED))
    })
}
