//! What a run is besides results: counters, coverage, progress of all threads, and its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use transload_ptx::{Coverage, FaultKind, Launch, Module, Options, Outcome, run};

use crate::rig::{BODY_LINE, Device, Start, launch, module, start, try_run};

fn passes(body: &str, start: &Start) -> Vec<u32> {
    try_run::<u32, u32>(body, start, &[0; 64], 1024).unwrap_or_else(|fault| panic!("{fault}"))
}

#[test]
fn sectors_are_counted_as_lanes_spread() {
    // 32 lanes of 4 bytes: side by side, a sector apart, all at one place, and from the middle of a sector.
    for (stride, offset, sectors) in [(4, 0, 4), (32, 0, 32), (0, 0, 1), (4, 16, 5)] {
        let module = module(&format!(
            "mov.u32 %r1, %tid.x; mul.wide.u32 %rd1, %r1, {stride}; add.s64 %rd2, %in, %rd1; ld.global.u32 %r2, [%rd2+{offset}];
            mul.wide.u32 %rd1, %r1, 4; add.s64 %rd3, %out, %rd1; st.global.u32 [%rd3], %r2; bar.sync 0;"
        ))
        .unwrap_or_else(|error| panic!("{error}"));
        let device = Device::default();
        let (out, input) = (device.of(&[0_u32; 64]), device.of(&[0_u32; 600]));
        let kernel = module.kernel("k").expect("it is there");
        let counters = launch(kernel, &start(1, 64), &device, &[out, input])
            .unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(counters.global_loads, 2);
        // The second warp begins 32 strides on, where alignment is the same.
        assert_eq!(
            counters.global_load_sectors,
            2 * sectors,
            "{stride} {offset}"
        );
        assert_eq!(
            (
                counters.global_stores,
                counters.global_store_sectors,
                counters.barriers
            ),
            (2, 8, 1)
        );
        // Eleven in the kernel, with its two loads of parameters and its end.
        assert_eq!(
            (counters.warp_instructions, counters.thread_instructions),
            (2 * 11, 64 * 11)
        );
    }
}

#[test]
fn instructions_that_a_predicate_suppresses_count_for_warps_alone() {
    let module = module("mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 8; @%p1 mov.u32 %r2, 1;")
        .unwrap_or_else(|error| panic!("{error}"));
    let counters = launch(
        module.kernel("k").expect("it is there"),
        &start(1, 32),
        &Device::default(),
        &[0, 0],
    )
    .unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(
        (counters.warp_instructions, counters.thread_instructions),
        (6, 5 * 32 + 8)
    );
}

#[test]
fn outcomes_that_no_run_saw_are_told_by_line_and_runs_add_up() {
    let body = "ld.global.u32 %r1, [%in]; setp.eq.s32 %p1, %r1, 0;
        @%p1 bra ZERO;
        st.global.u32 [%out], 1;
        bra END;
        ZERO: st.global.u32 [%out], 2;
        END:";
    let module = module(body).unwrap_or_else(|error| panic!("{error}"));
    let kernel = module.kernel("k").expect("it is there");
    let seen = |value: u32| {
        let device = Device::default();
        let (out, input) = (device.of(&[0_u32]), device.of(&[value]));
        launch(kernel, &start(1, 1), &device, &[out, input])
            .unwrap_or_else(|fault| panic!("{fault}"))
            .coverage
    };
    let lines = |coverage: &Coverage| {
        coverage
            .uncovered(kernel)
            .iter()
            .map(|miss| (miss.line - BODY_LINE, miss.outcome))
            .collect::<Vec<_>>()
    };
    let mut coverage = seen(0);
    assert_eq!(
        lines(&coverage),
        [
            (1, Outcome::NotTaken),
            (2, Outcome::Reached),
            (3, Outcome::Reached)
        ]
    );
    assert_eq!(
        lines(&seen(1)),
        [(1, Outcome::Taken), (4, Outcome::Reached)]
    );
    assert_eq!(kernel.text_of(BODY_LINE + 2), "st.global.u32 [%out], 1;");
    coverage.merge(&seen(1));
    assert_eq!(lines(&coverage), []);
    assert_eq!(Coverage::default().uncovered(kernel).len(), 8);
}

/// The lanes of `mask` wait until another has stored to `room`.
const SPIN: &str = "
    .shared .align 4 .b8 room[4];
    mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [room], 0; bar.sync 0;
    setp.eq.u32 %p2, %r1, LAST; @%p2 bra SET;
    WAIT: ld.volatile.shared.u32 %r2, [room]; setp.eq.u32 %p3, %r2, 0; @%p3 bra WAIT;
    bra END;
    SET: st.volatile.shared.u32 [room], 1;
    END:
    st.global.u32 [%out], 1;";

#[test]
fn lanes_that_spin_let_others_of_their_warp_go_on() {
    for last in ["31", "0", "95"] {
        for seed in [None, Some(1), Some(2)] {
            assert_eq!(
                passes(
                    &SPIN.replace("LAST", last),
                    &Start {
                        seed,
                        ..start(1, 96)
                    }
                )[0],
                1
            );
        }
    }
}

#[test]
fn blocks_that_wait_for_later_ones_are_joined_by_them() {
    // Block 0 waits for block 7, as one that scans looks back, but against the order.
    let body = "
        mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 0; setp.eq.u32 %p2, %r1, 7;
        @%p2 st.global.u32 [%out], 1; @!%p1 bra END;
        WAIT: ld.volatile.global.u32 %r2, [%out]; setp.eq.u32 %p3, %r2, 0; @%p3 bra WAIT;
        st.global.u32 [%out+4], 1;
        END:";
    for seed in [None, Some(1), Some(2)] {
        assert_eq!(
            passes(
                body,
                &Start {
                    seed,
                    ..start(8, 32)
                }
            )[..2],
            [1, 1]
        );
    }
}

#[test]
fn a_run_without_end_is_cancelled_or_ends_at_its_limit() {
    let module = module("L: bra L;").unwrap_or_else(|error| panic!("{error}"));
    let kernel = module.kernel("k").expect("it is there");
    let (device, cancelled) = (Device::default(), AtomicBool::new(false));
    let launch = Launch {
        grid: [1; 3],
        block: [64, 1, 1],
        dynamic_shared_bytes: 0,
        parameters: &[0; 16],
        globals: &|_| None,
    };
    let options = Options::new(&cancelled);
    let limited = Options {
        most_instructions: Some(1000),
        ..options
    };
    let fault = run(kernel, &launch, &device.memory(), &limited).expect_err("it has no end");
    assert_eq!(fault.kind, FaultKind::Endless);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            cancelled.store(true, Ordering::Relaxed);
        });
        let fault = run(kernel, &launch, &device.memory(), &options).expect_err("it has no end");
        assert_eq!(fault.kind, FaultKind::Cancelled);
    });
}

#[test]
fn launches_that_do_not_fit_the_kernel_are_refused() {
    let text = "
.version 7.0
.target sm_80
.address_size 64
.visible .global .align 4 .u32 number = 5;
.visible .entry few(.param .u64 a) .maxntid 64, 1, 1
{
    .reg .b64 %a;
    mov.u64 %a, number;
    ret;
}";
    let text = text.trim_start();
    let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(module.globals()[0].initial, [5, 0, 0, 0]);
    let kernel = module.kernel("few").expect("it is there");
    let (device, cancelled) = (Device::default(), AtomicBool::new(false));
    let with =
        |grid: [u32; 3], block: [u32; 3], shared: u32, parameters: &[u8], address: Option<u64>| {
            let launch = Launch {
                grid,
                block,
                dynamic_shared_bytes: shared,
                parameters,
                globals: &|_| address,
            };
            run(kernel, &launch, &device.memory(), &Options::new(&cancelled))
                .map(|_| ())
                .map_err(|fault| fault.kind)
        };
    assert_eq!(with([1; 3], [8, 8, 1], 0, &[0; 8], Some(4)), Ok(()));
    for bad in [
        with([1; 3], [8, 8, 2], 0, &[0; 8], Some(4)),
        with([1, 0, 1], [8, 8, 1], 0, &[0; 8], Some(4)),
        with([1; 3], [8, 0, 1], 0, &[0; 8], Some(4)),
        with([1; 3], [1 << 20, 1 << 20, 1], 0, &[0; 8], Some(4)),
        with([1; 3], [8, 8, 1], 1 << 20, &[0; 8], Some(4)),
        with([1; 3], [8, 8, 1], 0, &[0; 7], Some(4)),
        with([1; 3], [8, 8, 1], 0, &[0; 8], None),
    ] {
        assert_eq!(bad, Err(FaultKind::BadLaunch));
    }
}

#[test]
fn variables_have_their_initial_bytes_and_the_addresses_of_others() {
    let text = ".version 7.0\n.target sm_80\n.address_size 64
.global .align 1 .b8 text[4] = {72, 105, 33};
.const .align 8 .f64 half = 0.5;
.global .align 4 .s32 below[2] = {-1, 0x10};
.global .align 8 .u64 places[3] = {0, generic(text), below+4};
.extern .global .align 4 .u32 elsewhere;
";
    let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let all = module.globals();
    assert_eq!(all[0].initial, b"Hi!");
    assert_eq!(
        (all[1].initial.as_slice(), all[1].space),
        (
            0.5_f64.to_le_bytes().as_slice(),
            transload_ptx::GlobalSpace::Constant
        )
    );
    assert_eq!(all[2].initial, [255, 255, 255, 255, 16, 0, 0, 0]);
    let places: Vec<_> = all[3]
        .relocations
        .iter()
        .map(|place| (place.offset, place.name.as_str(), place.addend))
        .collect();
    assert_eq!(places, [(8, "text", 0), (16, "below", 4)]);
}

#[test]
fn threads_and_blocks_of_three_dimensions_have_their_places() {
    let body = "
        mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z; mov.u32 %r4, %ctaid.x; mov.u32 %r5, %ctaid.y; mov.u32 %r6, %ctaid.z;
        mad.lo.u32 %r7, %r3, 4, %r2; mad.lo.u32 %r7, %r7, 5, %r1; mad.lo.u32 %r8, %r6, 3, %r5; mad.lo.u32 %r8, %r8, 2, %r4;
        mad.lo.u32 %r9, %r8, 60, %r7; mul.wide.u32 %rd1, %r9, 4; add.s64 %rd1, %out, %rd1; red.global.add.u32 [%rd1], 1;";
    let module = module(body).unwrap_or_else(|error| panic!("{error}"));
    let (device, cancelled) = (Device::default(), AtomicBool::new(false));
    let out = device.of(&[0_u32; 60 * 12]);
    let launch = Launch {
        grid: [2, 3, 2],
        block: [5, 4, 3],
        dynamic_shared_bytes: 0,
        parameters: &[out, 0].map(u64::to_le_bytes).concat(),
        globals: &|_| None,
    };
    run(
        module.kernel("k").expect("it is there"),
        &launch,
        &device.memory(),
        &Options::new(&cancelled),
    )
    .unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(device.read::<u32>(out), [1; 60 * 12]);
}

#[test]
fn names_in_braces_are_their_own() {
    let body = "mov.u32 %r1, 1; { .reg .b32 %r1; mov.u32 %r1, 2; { .reg .b32 t; mov.u32 t, %r1; st.global.u32 [%out], t; } bra L; L: }
        { bra L; L: st.global.u32 [%out+4], %r1; }";
    assert_eq!(passes(body, &start(1, 1))[..2], [2, 1]);
}

#[test]
fn branches_by_index_go_to_their_targets_and_nowhere_else() {
    let body = |last: u32| {
        format!(
            "mov.u32 %r1, %tid.x; mul.wide.u32 %rd1, %r1, 4; add.s64 %rd1, %out, %rd1; min.u32 %r2, %r1, {last};
            T: .branchtargets A, B, C;
            brx.idx %r2, T;
            A: mov.u32 %r3, 10; bra END;
            B: mov.u32 %r3, 20; bra END;
            C: mov.u32 %r3, 30;
            END: st.global.u32 [%rd1], %r3;"
        )
    };
    let mut expected = vec![30; 32];
    expected[..2].copy_from_slice(&[10, 20]);
    assert_eq!(passes(&body(2), &start(1, 32))[..32], expected);
    assert_eq!(
        crate::rig::fault_of(&body(3), &start(1, 32)).kind,
        FaultKind::IllegalAddress
    );
}

#[test]
fn parameters_are_read_at_places_that_are_computed() {
    let text = ".version 8.0
.target sm_80
.address_size 64
.visible .entry k(.param .align 8 .b8 table[32], .param .u64 out)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<6>;
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd1, %r1, 8;
    mov.b64 %rd2, table;
    add.s64 %rd3, %rd2, %rd1;
    ld.param.u64 %rd4, [%rd3];
    ld.param.u64 %rd5, [out];
    add.s64 %rd5, %rd5, %rd1;
    st.global.u64 [%rd5], %rd4;
    ret;
}";
    let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let (device, cancelled) = (Device::default(), AtomicBool::new(false));
    let out = device.of(&[0_u64; 4]);
    let with = |threads: u32| {
        let launch = Launch {
            grid: [1; 3],
            block: [threads, 1, 1],
            dynamic_shared_bytes: 0,
            parameters: &[5, 6, 7, 8, out].map(u64::to_le_bytes).concat(),
            globals: &|_| None,
        };
        run(
            module.kernel("k").expect("it is there"),
            &launch,
            &device.memory(),
            &Options::new(&cancelled),
        )
        .map(|_| device.read::<u64>(out))
    };
    assert_eq!(with(4), Ok(vec![5, 6, 7, 8]));
    // The fifth is the address itself, and there is no sixth.
    assert_eq!(
        with(6).expect_err("too far").kind,
        FaultKind::IllegalAddress
    );
}

#[test]
fn threads_that_end_within_a_function_do_not_come_back() {
    let text = ".version 8.0
.target sm_80
.address_size 64
.func (.param .b32 result) odd(.param .b32 number)
{
    .reg .pred %p<2>;
    .reg .b32 %r<3>;
    ld.param.u32 %r1, [number];
    and.b32 %r2, %r1, 1;
    setp.eq.u32 %p1, %r2, 0;
    @%p1 exit;
    st.param.b32 [result+0], %r1;
    ret;
}
.visible .entry k(.param .u64 out)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<4>;
    mov.u32 %r1, %tid.x;
    { .param .b32 a; st.param.b32 [a], %r1; .param .b32 b; call.uni (b), odd, (a); ld.param.b32 %r2, [b]; }
    ld.param.u64 %rd1, [out];
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
    st.global.u32 [%rd3], %r2;
    ret;
}";
    let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let device = Device::default();
    let out = device.of(&[0_u32; 8]);
    launch(
        module.kernel("k").expect("it is there"),
        &start(1, 8),
        &device,
        &[out],
    )
    .unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(device.read::<u32>(out), [0, 1, 0, 3, 0, 5, 0, 7]);
    let without = text.replace("st.param.b32 [result+0], %r1;", "");
    let module = Module::parse(&without).unwrap_or_else(|error| panic!("{error}"));
    let fault = launch(
        module.kernel("k").expect("it is there"),
        &start(1, 8),
        &device,
        &[out],
    )
    .expect_err("no result");
    assert_eq!(
        (fault.kind, fault.text.as_str()),
        (FaultKind::Uninitialised, "st.global.u32 [%rd3], %r2;")
    );
}

#[test]
fn a_failed_assertion_is_a_fault_of_its_own() {
    let text = ".version 8.0
.target sm_80
.address_size 64
.extern .func __assertfail(.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e) .noreturn;
.visible .entry k()
{
    .reg .b64 %rd<2>;
    mov.b64 %rd1, 0;
    { .param .b64 a; st.param.b64 [a], %rd1; .param .b64 b; st.param.b64 [b], %rd1; .param .b32 c; st.param.b32 [c], 7;
    .param .b64 d; st.param.b64 [d], %rd1; .param .b64 e; st.param.b64 [e], %rd1;
    call.uni __assertfail, (a, b, c, d, e);
    }
    ret;
}";
    let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let fault = launch(
        module.kernel("k").expect("it is there"),
        &start(1, 1),
        &Device::default(),
        &[],
    )
    .expect_err("it asserts");
    assert_eq!((fault.kind, fault.line), (FaultKind::Assertion, 11));
}
