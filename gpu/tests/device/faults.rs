//! Devices that fail: what was told to fail, by the emulated driver's plan, in a process of its own for each plan.

use std::sync::Arc;

use futures::executor::block_on;
use futures::future::join_all;
use transload_gpu::device::{
    Column, Copies, Device, DeviceError, DeviceMemory, Kernels, Path, Region, Values,
};
use transload_protocol::Tier;

use crate::common::{self, Bench, in_a_process_of_its_own};

const MIB: u64 = 1 << 20;

#[test]
fn a_device_that_fails_in_a_copy_is_lost_and_nothing_hangs_or_panics() {
    let plan = "copy@2=CUDA_ERROR_ECC_UNCORRECTABLE";
    in_a_process_of_its_own(plan, || {
        let bench = Bench::new(8 * MIB, 8 * MIB);
        let buffer = bench.filled(MIB, 1);
        let error = block_on(bench.tiers.to_pinned(&buffer)).unwrap_err();
        assert!(error.is_lost(), "{error}");
        assert!(error.to_string().contains("ECC_UNCORRECTABLE"), "{error}");
        assert!(error.to_string().contains("started anew"), "{error}");
        // It is of no use from now on, and says so.
        for _ in 0..3 {
            let error = block_on(bench.tiers.to_pinned(&buffer)).unwrap_err();
            assert!(error.is_lost(), "{error}");
        }
        assert!(Copies::new(&bench.device).unwrap_err().is_lost());
        bench.wait_until_idle();
        assert_eq!(bench.tiers.pinned().budget().used_bytes(), 0);
        drop(buffer);
        assert_eq!(bench.tiers.memory().budget().used_bytes(), 0);
    });
}

#[test]
fn memory_that_the_driver_has_not_in_one_piece_is_taken_in_several() {
    let plan = "cuMemAlloc_v2@1=CUDA_ERROR_OUT_OF_MEMORY";
    in_a_process_of_its_own(plan, || {
        let (device, _alone) = common::device();
        let memory = DeviceMemory::take(&device, 64 * MIB).unwrap();
        let slabs: Vec<_> = memory.slabs().map(|(_, bytes)| bytes).collect();
        assert_eq!(slabs, [32 * MIB, 32 * MIB]);
        assert!(memory.try_allocate(32 * MIB + 1).is_err());
        let halves = [(); 2].map(|()| memory.try_allocate(32 * MIB).unwrap());
        drop(halves);
        drop(memory);
    });
}

#[test]
fn page_locked_memory_that_the_system_refuses_leaves_the_buffer_on_the_device() {
    let plan = "cuMemHostRegister_v2@1=CUDA_ERROR_OUT_OF_MEMORY";
    in_a_process_of_its_own(plan, || {
        let bench = Bench::new(8 * MIB, 8 * MIB);
        let buffer = bench.filled(MIB, 2);
        let error = block_on(bench.tiers.to_pinned(&buffer)).unwrap_err();
        assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
        assert_eq!(buffer.tier(), Tier::Device);
        assert_eq!(bench.tiers.pinned().budget().used_bytes(), 0);
        // The next attempt finds some.
        block_on(bench.tiers.to_pinned(&buffer)).unwrap();
        assert_eq!(bench.contents(&buffer), common::pattern(MIB, 2));
    });
}

#[test]
fn a_wait_that_fails_is_made_again_before_anything_is_freed() {
    // The second wait is for the download; the stream is asked instead.
    let plan = "cuEventSynchronize@2=CUDA_ERROR_OUT_OF_MEMORY";
    in_a_process_of_its_own(plan, || {
        let bench = Bench::new(8 * MIB, 8 * MIB);
        let buffer = bench.filled(MIB, 1);
        block_on(bench.tiers.to_pinned(&buffer)).unwrap();
        assert_eq!(bench.contents(&buffer), common::pattern(MIB, 1));
    });
}

#[test]
fn memory_of_what_nobody_says_has_ended_is_never_freed() {
    let plan = "cuEventSynchronize@2=CUDA_ERROR_OUT_OF_MEMORY, cuStreamSynchronize@1=CUDA_ERROR_OUT_OF_MEMORY";
    in_a_process_of_its_own(plan, || {
        let bench = Bench::new(8 * MIB, 8 * MIB);
        let buffer = bench.filled(MIB, 1);
        assert!(block_on(bench.tiers.to_pinned(&buffer)).is_err());
        bench.wait_until_idle();
        assert_eq!(buffer.tier(), Tier::Device);
        // What the device may still write to is nobody else's for ever.
        assert_eq!(bench.tiers.pinned().budget().used_bytes(), MIB);
        assert_eq!(bench.contents(&buffer), common::pattern(MIB, 1));
    });
}

#[test]
fn streams_that_cannot_be_made_are_an_error() {
    in_a_process_of_its_own("cuStreamCreate@2=CUDA_ERROR_OUT_OF_MEMORY", || {
        let (device, _alone) = common::device();
        let error = Copies::new(&device).unwrap_err();
        assert!(error.to_string().contains("cuStreamCreate"), "{error}");
        assert!(Copies::new(&device).is_ok());
    });
}

#[test]
fn memory_that_the_driver_lacks_for_a_call_is_about_memory_and_names_the_call() {
    let calls = [
        "cuModuleLoadDataEx",
        "cuModuleGetFunction",
        "cuStreamCreate",
        "cuEventCreate",
        "cuEventRecord",
        "cuMemcpyHtoDAsync",
        "cuLaunchKernel",
    ];
    let plan = "cuModuleLoadDataEx@1=CUDA_ERROR_OUT_OF_MEMORY, cuModuleGetFunction@1=CUDA_ERROR_OUT_OF_MEMORY, \
        cuStreamCreate@4=CUDA_ERROR_OUT_OF_MEMORY, cuEventCreate@1=CUDA_ERROR_OUT_OF_MEMORY, \
        cuEventRecord@1=CUDA_ERROR_OUT_OF_MEMORY, cuMemcpyHtoDAsync_v2@3=CUDA_ERROR_OUT_OF_MEMORY, \
        cuLaunchKernel@1=CUDA_ERROR_OUT_OF_MEMORY";
    in_a_process_of_its_own(plan, || {
        let bench = Bench::new(8 * MIB, 8 * MIB);
        let load = || Kernels::load(bench.tiers.memory(), bench.tiers.pinned());
        let mut errors: Vec<DeviceError> = (0..3).map(|_| load().unwrap_err()).collect();
        errors.extend((0..3).map(|_| bench.try_filled(MIB, 1).unwrap_err()));
        let kernels = load().unwrap();
        let ones = bench.filled(64, 1);
        let ones = block_on(bench.tiers.to_device(&ones)).unwrap();
        let mask = Values::Bits(Region::new(&ones, 0, 64).unwrap());
        let mask = Column::new(512, None, mask).unwrap();
        errors.push(block_on(kernels.filter(&[], &mask)).unwrap_err());
        for (error, call) in errors.into_iter().zip(calls) {
            assert!(error.is_about_memory(), "{error}");
            let told = error.to_string();
            assert!(told.contains(call) && told.contains("take less"), "{told}");
        }
        assert!(block_on(kernels.filter(&[], &mask)).is_ok());
    });
}

#[test]
fn a_kernel_that_cannot_be_asked_for_is_not_said_to_be_missing() {
    let plan = "cuModuleGetFunction@1=CUDA_ERROR_INVALID_VALUE";
    in_a_process_of_its_own(plan, || {
        let bench = Bench::new(8 * MIB, 8 * MIB);
        let error = Kernels::load(bench.tiers.memory(), bench.tiers.pinned()).unwrap_err();
        assert!(matches!(error, DeviceError::Call { .. }), "{error}");
        assert!(error.to_string().contains("tried again"), "{error}");
    });
}

#[test]
fn a_copy_that_the_driver_refuses_is_not_counted() {
    let plan = "cuMemcpyDtoHAsync_v2@1=CUDA_ERROR_INVALID_VALUE";
    in_a_process_of_its_own(plan, || {
        let bench = Bench::new(8 * MIB, 8 * MIB);
        let buffer = bench.filled(MIB, 1);
        assert!(block_on(bench.tiers.to_pinned(&buffer)).is_err());
        let traffic = bench.device.traffic();
        assert_eq!(traffic.over(Path::DeviceToPinned), (0, 0));
        block_on(bench.tiers.to_pinned(&buffer)).unwrap();
        assert_eq!(traffic.over(Path::DeviceToPinned), (1, MIB));
    });
}

#[test]
fn moves_that_fail_now_and_then_lose_no_byte() {
    // Not of the copies that fill and read the buffers.
    let plan = "seed=5, cuMemcpyDtoHAsync_v2%20=CUDA_ERROR_OUT_OF_MEMORY, cuEventRecord%10=CUDA_ERROR_OUT_OF_MEMORY, \
        cuMemHostRegister_v2%30=CUDA_ERROR_OUT_OF_MEMORY";
    in_a_process_of_its_own(plan, || {
        let bench = Bench::new(16 * MIB, 8 * MIB);
        let mut buffers = Vec::new();
        while buffers.len() < 12 {
            let number = buffers.len() as u64;
            buffers.extend(bench.try_filled(MIB, number).map(Arc::new));
        }
        let moves = buffers.iter().enumerate().map(|(number, buffer)| {
            let bench = &bench;
            async move {
                let mut failed = 0;
                for step in 0..12 {
                    let moved = match (number + step * 5) % 3 {
                        0 => bench.tiers.to_device(buffer).await.map(drop),
                        1 => bench.tiers.to_pinned(buffer).await.map(drop),
                        _ => bench.tiers.to_disk(buffer).await,
                    };
                    failed += usize::from(moved.is_err());
                }
                failed
            }
        });
        let failed: usize = block_on(join_all(moves)).into_iter().sum();
        assert!(failed > 0, "the plan failed nothing");
        bench.wait_until_idle();
        for (number, buffer) in buffers.into_iter().enumerate() {
            let expected = common::pattern(MIB, number as u64);
            assert_eq!(bench.contents(&buffer), expected, "buffer {number}");
        }
        for budget in [bench.tiers.memory().budget(), bench.tiers.pinned().budget()] {
            assert!(budget.peak_bytes() <= budget.limit_bytes());
        }
    });
}

#[test]
fn without_a_driver_that_is_told_with_the_remedy() {
    // The driver of this machine, where it has one, is none of this test's.
    if Device::count() == Err(DeviceError::NoDriver) {
        let error = Device::open(0).unwrap_err();
        assert!(error.to_string().contains("libcuda.so.1 was not found"));
        assert!(Device::list().is_err());
    } else {
        println!("skipped: this machine has a driver");
    }
}
