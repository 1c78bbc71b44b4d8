//! NVML: the nine functions that UCX's CUDA modules import, and what they answer.

#![allow(non_snake_case, reason = "the functions carry the library's names")]

use std::ffi::{CStr, c_char, c_void};

use crate::driver::{Code, functions};
use crate::facts::Facts;

fn locate(symbol: &str) -> Option<usize> {
    super::find(c"libnvidia-ml.so.1", symbol)
}

functions! { locate;
    nvmlInit_v2();
    nvmlShutdown();
    nvmlDeviceGetCount_v2(count: &mut u32);
    nvmlDeviceGetHandleByIndex_v2(index: u32, device: &mut u64);
    nvmlDeviceGetPciInfo_v3(device: u64, info: &mut PciInfo);
    nvmlDeviceGetFieldValues(device: u64, count: i32, values: *mut FieldValue);
    nvmlDeviceGetNvLinkRemotePciInfo_v2(device: u64, link: u32, info: &mut PciInfo);
    nvmlDeviceGetGpuFabricInfo(device: u64, info: *mut c_void);
    nvmlDeviceGetGpuFabricInfoV(device: u64, info: *mut c_void);
    nvmlSystemGetDriverVersion(text: *mut u8, len: u32);
}

/// `nvmlPciInfo_t`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct PciInfo {
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
#[derive(Default)]
pub(crate) struct FieldValue {
    field: u32,
    scope: u32,
    timestamp: i64,
    latency_us: i64,
    kind: u32,
    code: u32,
    value: u64,
}

/// NVML's text for a code.
fn words(code: Code) -> String {
    let Some(address) = locate("nvmlErrorString\0").filter(|_| code != Code::ABSENT) else {
        return "no such function".to_owned();
    };
    // SAFETY: the function takes a code and returns a text that lives as long as the library.
    unsafe {
        let function = std::mem::transmute::<
            *const c_void,
            unsafe extern "C" fn(u32) -> *const c_char,
        >(std::ptr::with_exposed_provenance(address));
        CStr::from_ptr(function(code.0))
            .to_string_lossy()
            .into_owned()
    }
}

/// The case `device/nvml`.
pub(crate) fn ask(facts: &Facts) {
    let (mut count, mut device) = (0, 0);
    let mut info = PciInfo::default();
    let mut version = [0_u8; 80];
    // SAFETY: pointers are of locals with the library's layouts; devices are handles of its own.
    unsafe {
        facts.fact(
            "count_before_init",
            words(nvmlDeviceGetCount_v2(&mut count)),
        );
        facts.fact("init", words(nvmlInit_v2()));
        facts.fact("init_again", words(nvmlInit_v2()));
        facts.fact(
            "version",
            words(nvmlSystemGetDriverVersion(version.as_mut_ptr(), 80)),
        );
        let text = version.split(|byte| *byte == 0).next().unwrap_or_default();
        facts.environment("driver_version", String::from_utf8_lossy(text));
        facts.fact("count", words(nvmlDeviceGetCount_v2(&mut count)));
        facts.environment("devices", count);
        facts.fact(
            "handle",
            words(nvmlDeviceGetHandleByIndex_v2(0, &mut device)),
        );
        facts.fact(
            "handle_of_none",
            words(nvmlDeviceGetHandleByIndex_v2(99, &mut 0)),
        );
        facts.fact(
            "pci_info",
            words(nvmlDeviceGetPciInfo_v3(device, &mut info)),
        );
        facts.environment(
            "pci_id",
            String::from_utf8_lossy(info.id.split(|byte| *byte == 0).next().unwrap_or_default()),
        );
        facts.environment(
            "pci_id_legacy",
            String::from_utf8_lossy(
                info.legacy_id
                    .split(|byte| *byte == 0)
                    .next()
                    .unwrap_or_default(),
            ),
        );
        facts.environment(
            "nvlink_0_remote",
            words(nvmlDeviceGetNvLinkRemotePciInfo_v2(device, 0, &mut info)),
        );
        facts.fact(
            "nvlink_99_remote",
            words(nvmlDeviceGetNvLinkRemotePciInfo_v2(device, 99, &mut info)),
        );
    }
    fields(facts, device);
    // SAFETY: the room is larger than every version of the structure; its first word says which.
    unsafe {
        let mut room = [0_u32; 64];
        facts.environment(
            "fabric",
            words(nvmlDeviceGetGpuFabricInfo(device, room.as_mut_ptr().cast())),
        );
        let mut room = [0_u32; 64];
        room[0] = 36 | 2 << 24;
        facts.environment(
            "fabric_v2",
            words(nvmlDeviceGetGpuFabricInfoV(
                device,
                room.as_mut_ptr().cast(),
            )),
        );
        let mut room = [0_u32; 64];
        facts.environment(
            "fabric_of_version_0",
            words(nvmlDeviceGetGpuFabricInfoV(
                device,
                room.as_mut_ptr().cast(),
            )),
        );
        facts.fact("shutdown", words(nvmlShutdown()));
        facts.fact(
            "count_while_one_init_is_left",
            words(nvmlDeviceGetCount_v2(&mut count)),
        );
        facts.fact("shutdown_again", words(nvmlShutdown()));
        facts.fact(
            "count_after_shutdown",
            words(nvmlDeviceGetCount_v2(&mut count)),
        );
        facts.fact("shutdown_once_more", words(nvmlShutdown()));
    }
}

/// The fields that UCX asks for: how many NVLinks there are, and how fast.
fn fields(facts: &Facts, device: u64) {
    for (name, field) in [
        ("nvlink_speed_common", 90),
        ("nvlink_link_count", 91),
        ("c2c_link_count", 170),
        ("no_such_field", 9999),
    ] {
        let mut value = FieldValue {
            field,
            ..FieldValue::default()
        };
        // SAFETY: one value is told and one is there.
        let code = unsafe { nvmlDeviceGetFieldValues(device, 1, &mut value) };
        facts.fact(&format!("{name}.call"), words(code));
        facts.environment(&format!("{name}.code"), words(Code(value.code)));
        facts.environment(&format!("{name}.value"), value.value);
    }
}
