//! Cases about the device and what stands beside the driver: attributes, peers, NVML, cuFile.

use super::cases;
use crate::child::Process;
use crate::driver::*;
use crate::facts::Facts;
use crate::other_libraries::{cufile, nvml};
use crate::tools::{MIB, device, ready};

cases! { CASES;
    "device/identity", "name, version, identifiers", identity;
    "device/attributes", "the attributes that a runtime reads", attributes;
    "device/peer", "a device as a peer of itself", peer;
    "device/visible", "what CUDA_VISIBLE_DEVICES does, by its value", visible;
    "device/nvml", "the functions of NVML that UCX calls", nvml::ask;
    "device/cufile", "cuFile, where it is installed", cufile::ask;
}

/// Attributes that every device of ours must answer alike.
const RULES: &[(&str, u32)] = &[
    ("max_threads_per_block", 1),
    ("max_block_dim_z", 4),
    ("max_grid_dim_x", 5),
    ("max_grid_dim_y", 6),
    ("max_shared_memory_per_block", 8),
    ("warp_size", 10),
    ("can_map_host_memory", 19),
    ("concurrent_kernels", 31),
    ("unified_addressing", 41),
    ("stream_priorities_supported", 78),
    ("managed_memory", 83),
    ("can_use_host_pointer_for_registered_mem", 91),
    ("host_register_supported", 99),
    ("virtual_memory_management_supported", 102),
    ("handle_type_posix_file_descriptor_supported", 103),
    ("memory_pools_supported", 115),
    ("ipc_event_supported", 125),
];

/// Attributes that differ between devices and machines.
const OF_DEVICE: &[(&str, u32)] = &[
    ("max_registers_per_block", 12),
    ("clock_rate_khz", 13),
    ("gpu_overlap", 15),
    ("multiprocessor_count", 16),
    ("kernel_exec_timeout", 17),
    ("integrated", 18),
    ("compute_mode", 20),
    ("pci_bus_id", 33),
    ("tcc_driver", 35),
    ("memory_clock_rate_khz", 36),
    ("memory_bus_width", 37),
    ("l2_cache_bytes", 38),
    ("max_threads_per_multiprocessor", 39),
    ("async_engine_count", 40),
    ("compute_capability_major", 75),
    ("compute_capability_minor", 76),
    ("max_shared_memory_per_multiprocessor", 81),
    ("multi_gpu_board", 84),
    ("host_native_atomic_supported", 86),
    ("pageable_memory_access", 88),
    ("concurrent_managed_access", 89),
    ("compute_preemption_supported", 90),
    ("can_use_stream_mem_ops", 92),
    ("cooperative_launch", 95),
    ("max_shared_memory_per_block_optin", 97),
    ("can_flush_remote_writes", 98),
    ("pageable_memory_access_uses_host_page_tables", 100),
    ("direct_managed_mem_access_from_host", 101),
    ("generic_compression_supported", 107),
    ("gpu_direct_rdma_with_vmm_supported", 110),
    ("reserved_shared_memory_per_block", 111),
    ("read_only_host_register_supported", 113),
    ("gpu_direct_rdma_supported", 116),
    ("gpu_direct_rdma_flush_writes_options", 117),
    ("gpu_direct_rdma_writes_ordering", 118),
    ("mempool_supported_handle_types", 119),
    ("dma_buf_supported", 124),
    ("handle_type_fabric_supported", 128),
    ("numa_config", 130),
    ("multicast_supported", 132),
    ("mps_enabled", 133),
    ("host_numa_id", 134),
];

fn identity(facts: &Facts) {
    ready();
    let (mut version, mut count, mut total) = (0, 0, 0);
    let (mut name, mut bus, mut uuid) = ([0_u8; 100], [0_u8; 32], [0_u8; 16]);
    let text = |bytes: &[u8]| {
        let until_zero = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(until_zero).into_owned()
    };
    // SAFETY: the texts have the lengths that are told.
    unsafe {
        facts.code("cuDriverGetVersion", cuDriverGetVersion(&mut version));
        facts.environment("driver_supports_cuda", version);
        facts.code("cuDeviceGetCount", cuDeviceGetCount(&mut count));
        facts.environment("devices", count);
        facts.code(
            "cuDeviceGetName",
            cuDeviceGetName(name.as_mut_ptr(), 100, 0),
        );
        facts.environment("name", text(&name));
        facts.code("name_in_4_bytes", cuDeviceGetName(name.as_mut_ptr(), 4, 0));
        facts.environment("name_in_4_bytes_is", text(&name));
        facts.code("cuDeviceGetUuid", cuDeviceGetUuid_v2(&mut uuid, 0));
        facts.code("cuDeviceTotalMem", cuDeviceTotalMem_v2(&mut total, 0));
        facts.environment("total_bytes", total);
        facts.code(
            "cuDeviceGetPCIBusId",
            cuDeviceGetPCIBusId(bus.as_mut_ptr(), 32, 0),
        );
        facts.fact("bus_id_length", text(&bus).len());
        facts.code(
            "bus_id_in_4_bytes",
            cuDeviceGetPCIBusId(bus.as_mut_ptr(), 4, 0),
        );
    }
}

fn attributes(facts: &Facts) {
    ready();
    let get = |number| {
        let mut value = -1;
        // SAFETY: the pointer is of a local.
        let code = unsafe { cuDeviceGetAttribute(&mut value, number, 0) };
        if code.is_ok() {
            serde_json::Value::from(value)
        } else {
            code.to_string().into()
        }
    };
    for (name, number) in RULES {
        facts.fact(name, get(*number));
    }
    for (name, number) in OF_DEVICE {
        facts.environment(name, get(*number));
    }
}

fn visible(facts: &Facts) {
    let values = [
        ("0", "0"),
        ("empty", ""),
        ("minus_one", "-1"),
        ("absent_one", "99"),
        ("0_then_absent", "0,99"),
        ("absent_then_0", "99,0"),
        ("twice", "0,0"),
        ("words", "abc"),
        ("unknown_uuid", "GPU-00000000-0000-0000-0000-000000000000"),
        ("no_dev_files", "NoDevFiles"),
    ];
    for (name, value) in values {
        // SAFETY: this process has one thread.
        unsafe { std::env::set_var("CUDA_VISIBLE_DEVICES", value) };
        if let Ok(other) = Process::helper("visible", &[]) {
            other.finish(&facts.within(name));
        }
    }
}

/// The helper of [`visible`].
pub(super) fn count_visible(facts: &Facts, _: &[String]) {
    let mut count = -1;
    // SAFETY: the pointer is of a local.
    unsafe {
        facts.code("cuInit", cuInit(0));
        facts.code("cuDeviceGetCount", cuDeviceGetCount(&mut count));
    }
    facts.fact("devices", count);
}

fn peer(facts: &Facts) {
    let context = ready();
    let mut can = 77;
    let (from, to) = (device(MIB), device(MIB));
    // SAFETY: pointers are of locals; memory has the copied size.
    unsafe {
        facts.code("can_access_itself", cuDeviceCanAccessPeer(&mut can, 0, 0));
        facts.fact("can_access_itself_is", can);
        facts.code("can_access_none", cuDeviceCanAccessPeer(&mut can, 0, 99));
        facts.code("enable_itself", cuCtxEnablePeerAccess(context, 0));
        facts.code("enable_null", cuCtxEnablePeerAccess(0, 0));
        facts.code("disable_itself", cuCtxDisablePeerAccess(context));
        facts.code(
            "peer_copy_to_itself",
            cuMemcpyPeer(to, context, from, context, MIB),
        );
        facts.code("synchronize", cuCtxSynchronize());
    }
}
