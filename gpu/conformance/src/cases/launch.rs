//! Cases about launches that the driver refuses, and what it says of a kernel.

use super::cases;
use crate::driver::*;
use crate::facts::Facts;
use crate::tools::{device, kernel, launch, pinned, read, ready};

cases! { CASES;
    "launch/shape", "grids and blocks of no, wrong and too large size", shape;
    "launch/shared", "dynamic shared memory below, above and after raising the limit", shared;
    "launch/parameters", "as a list, as a buffer, as neither", parameters;
    "launch/null-parameters", "no parameters for a kernel that has some", null_parameters;
    "launch/attributes", "what the driver says of a kernel", attributes;
}

fn shaped(function: u64, grid: [u32; 3], block: [u32; 3]) -> Code {
    let ([x, y, z], [a, b, c]) = (grid, block);
    // SAFETY: the kernels launched this way have no parameters.
    unsafe {
        cuLaunchKernel(
            function,
            x,
            y,
            z,
            a,
            b,
            c,
            0,
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    }
}

fn shape(facts: &Facts) {
    ready();
    let (empty, few) = (kernel("empty\0"), kernel("few\0"));
    facts.code("right", shaped(empty, [1; 3], [1; 3]));
    facts.code("grid_0", shaped(empty, [0, 1, 1], [1; 3]));
    facts.code("block_0", shaped(empty, [1; 3], [1, 0, 1]));
    facts.code("block_1024", shaped(empty, [1; 3], [1024, 1, 1]));
    facts.code("block_1025", shaped(empty, [1; 3], [1025, 1, 1]));
    facts.code("block_32_32_2", shaped(empty, [1; 3], [32, 32, 2]));
    facts.code("block_z_65", shaped(empty, [1; 3], [1, 1, 65]));
    facts.code("grid_x_2_31", shaped(empty, [1 << 31, 1, 1], [1; 3]));
    facts.code("grid_y_65535", shaped(empty, [1, 65535, 1], [1; 3]));
    facts.code("grid_y_65536", shaped(empty, [1, 65536, 1], [1; 3]));
    facts.code("at_maxntid", shaped(few, [1; 3], [64, 1, 1]));
    facts.code("above_maxntid", shaped(few, [1; 3], [65, 1, 1]));
    facts.code("null_function", shaped(0, [1; 3], [1; 3]));
    // SAFETY: waits.
    unsafe { facts.code("synchronize_after_all", cuCtxSynchronize()) };
    facts.code("right_after_all", shaped(empty, [1; 3], [1; 3]));
}

fn shared(facts: &Facts) {
    ready();
    let (function, out, host) = (kernel("shared\0"), device(4), pinned(4096));
    let launch_with = |bytes| launch(function, 1, 1, bytes, 0, &mut [out]);
    facts.code("bytes_4", launch_with(4));
    facts.code("bytes_49152", launch_with(49152));
    facts.code("bytes_49153", launch_with(49153));
    let mut most = 0;
    // SAFETY: pointers are of locals.
    unsafe {
        cuDeviceGetAttribute(&mut most, 97, 0);
        facts.environment("most_with_opt_in", most);
        facts.code("raise_to_most", cuFuncSetAttribute(function, 8, most));
        facts.code(
            "raise_above_most",
            cuFuncSetAttribute(function, 8, most + 1),
        );
        facts.code("raise_to_negative", cuFuncSetAttribute(function, 8, -1));
        facts.code("bytes_most", launch_with(most as u32));
        facts.code("bytes_above_most", launch_with(most as u32 + 1));
        facts.code("synchronize", cuCtxSynchronize());
        cuMemcpyDtoH_v2(host, out, 4);
        facts.fact("kernel_wrote", read(host));
    }
}

fn parameters(facts: &Facts) {
    ready();
    let (function, out, host) = (kernel("store\0"), device(4), pinned(4096));
    let mut buffer = [out, 21];
    let mut size = 12_usize;
    // CU_LAUNCH_PARAM_BUFFER_POINTER, _BUFFER_SIZE, _END.
    let mut extra = [
        std::ptr::without_provenance_mut(1),
        buffer.as_mut_ptr().cast(),
        std::ptr::without_provenance_mut(2),
        std::ptr::from_mut(&mut size).cast(),
        std::ptr::null_mut(),
    ];
    // SAFETY: the buffer holds both parameters at their offsets; the driver copies it before it returns.
    unsafe {
        let none = std::ptr::null_mut();
        facts.code(
            "buffer",
            cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, none, extra.as_mut_ptr()),
        );
        cuMemcpyDtoH_v2(host, out, 4);
        facts.fact("buffer_arrives", read(host));
        let mut list = [buffer.as_mut_ptr().cast(), buffer.as_mut_ptr().cast()];
        facts.code(
            "both",
            cuLaunchKernel(
                function,
                1,
                1,
                1,
                1,
                1,
                1,
                0,
                0,
                list.as_mut_ptr(),
                extra.as_mut_ptr(),
            ),
        );
        size = 8;
        extra[3] = std::ptr::from_mut(&mut size).cast();
        let code = cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, none, extra.as_mut_ptr());
        facts.environment("buffer_too_short", code.to_string());
        facts.code("synchronize", cuCtxSynchronize());
        cuCtxSetCurrent(0);
        facts.code(
            "without_context",
            launch(function, 1, 1, 0, 0, &mut [out, 1]),
        );
    }
}

fn null_parameters(facts: &Facts) {
    ready();
    let function = kernel("store\0");
    // SAFETY: null parameters are the driver's to judge; the process is of this case alone.
    unsafe {
        let none = std::ptr::null_mut();
        facts.code(
            "launch",
            cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, none, none.cast()),
        );
        facts.code("synchronize", cuCtxSynchronize());
    }
}

fn attributes(facts: &Facts) {
    ready();
    let names = [
        ("max_threads_per_block", 0),
        ("shared_bytes", 1),
        ("const_bytes", 2),
        ("local_bytes", 3),
        ("registers", 4),
        ("ptx_version", 5),
        ("binary_version", 6),
        ("max_dynamic_shared_bytes", 8),
    ];
    for kernel_name in ["empty\0", "store\0", "few\0", "shared\0"] {
        let function = kernel(kernel_name);
        for (name, number) in names {
            let mut value = -1;
            // SAFETY: the pointer is of a local.
            let code = unsafe { cuFuncGetAttribute(&mut value, number, function) };
            let name = format!("{}.{name}", kernel_name.trim_end_matches('\0'));
            if matches!(number, 4 | 6 | 2) {
                facts.environment(&name, value);
            } else {
                facts.fact(&name, value);
            }
            if !code.is_ok() {
                facts.code(&format!("{name}.code"), code);
            }
        }
    }
    // SAFETY: the pointer is of a local.
    unsafe {
        facts.code(
            "unknown",
            cuFuncGetAttribute(&mut 0, 999, kernel("empty\0")),
        )
    };
}
