//! Each rule of the sanitizer: a kernel that breaks it, and one beside it that does not.

use transload_ptx::{Fault, FaultKind};

use crate::rig::{BODY_LINE, Start, fault_of, start, try_run};

/// Runs `body` and expects no fault.
fn passes(body: &str, start: &Start) -> Vec<u32> {
    try_run::<u32, u32>(body, start, &[0; 64], 1024).unwrap_or_else(|fault| panic!("{fault}"))
}

/// The fault of `body`, which must be of that kind, at a line with that text.
fn faults(body: &str, start: &Start, kind: FaultKind, text: &str) -> Fault {
    let fault = fault_of(body, start);
    assert_eq!((fault.kind, fault.text.as_str()), (kind, text), "{fault}");
    fault
}

/// Each thread's own word of `%out` is at `%rd1`; its number is in `%r1`.
const OWN_WORD: &str = "mov.u32 %r1, %tid.x; mul.wide.u32 %rd1, %r1, 4; add.s64 %rd1, %out, %rd1;";

#[test]
fn a_store_behind_an_allocation_is_found_to_the_byte() {
    passes("st.global.u32 [%out+4092], 1;", &start(1, 1));
    let fault = faults(
        "st.global.u32 [%out+4096], 1;",
        &start(1, 1),
        FaultKind::IllegalAddress,
        "st.global.u32 [%out+4096], 1;",
    );
    assert_eq!((fault.line, fault.kernel.as_str()), (BODY_LINE, "k"));
    assert!(fault.address.is_some());
}

#[test]
fn a_fault_names_the_block_and_the_thread() {
    let body = "mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 37; mov.u32 %r2, %ctaid.x; setp.eq.and.u32 %p2, %r2, 2, %p1;\n @%p2 trap;";
    let fault = faults(body, &start(4, 64), FaultKind::Trap, "@%p2 trap;");
    assert_eq!(
        (fault.block, fault.thread, fault.line),
        ([2, 0, 0], [37, 0, 0], BODY_LINE + 1)
    );
}

#[test]
fn vectors_must_be_aligned_as_a_whole() {
    passes(
        "ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%in+16];",
        &start(1, 1),
    );
    let load = "ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%in+8];";
    faults(load, &start(1, 1), FaultKind::Misaligned, load);
}

#[test]
fn a_register_that_was_never_written_must_not_be_stored() {
    faults(
        "st.global.u32 [%out], %r1;",
        &start(1, 1),
        FaultKind::Uninitialised,
        "st.global.u32 [%out], %r1;",
    );
    // Nor what is computed from it,
    faults(
        "add.s32 %r2, %r1, 1; mov.u32 %r3, %r2;\n st.global.u32 [%out], %r3;",
        &start(1, 1),
        FaultKind::Uninitialised,
        "st.global.u32 [%out], %r3;",
    );
    // nor decide where to go,
    faults(
        "setp.eq.s32 %p1, %r1, 0;\n @%p1 bra L;\n L:",
        &start(1, 1),
        FaultKind::Uninitialised,
        "@%p1 bra L;",
    );
    // nor be an address.
    faults(
        "\nld.shared.u32 %r2, [%r1];",
        &start(1, 1),
        FaultKind::Uninitialised,
        "ld.shared.u32 %r2, [%r1];",
    );
    // What compilers do with values that nobody uses is no fault.
    passes(
        "mov.u32 %r2, %r1; setp.eq.u32 %p1, 1, 2; selp.b32 %r3, %r2, 7, %p1; st.global.u32 [%out], %r3;",
        &start(1, 1),
    );
}

#[test]
fn registers_are_written_lane_by_lane() {
    let body = |condition: &str| {
        format!(
            "{OWN_WORD} setp.lt.u32 %p1, %r1, 16;\n @%p1 mov.u32 %r2, 5;\n {condition} st.global.u32 [%rd1], %r2;"
        )
    };
    passes(&body("@%p1"), &start(1, 32));
    let fault = faults(
        &body(""),
        &start(1, 32),
        FaultKind::Uninitialised,
        "st.global.u32 [%rd1], %r2;",
    );
    assert_eq!(fault.thread, [16, 0, 0]);
}

#[test]
fn shared_memory_is_written_before_it_is_read_byte_by_byte() {
    let body = |first: &str| {
        format!(
            ".shared .align 4 .b8 room[16]; {first} st.shared.u8 [room+3], 1;\n ld.shared.u32 %r1, [room];\n st.global.u32 [%out], %r1;"
        )
    };
    assert_eq!(
        passes(&body("st.shared.u32 [room], 5;"), &start(1, 1))[0],
        0x0100_0005
    );
    let fault = faults(
        &body("st.shared.u16 [room], 5;"),
        &start(1, 1),
        FaultKind::Uninitialised,
        "st.global.u32 [%out], %r1;",
    );
    assert!(
        fault
            .detail
            .contains("in line 16 `ld.shared.u32 %r1, [room];`, at 0x0"),
        "{fault}"
    );
}

#[test]
fn local_memory_is_written_before_it_is_read() {
    let body = |first: &str| {
        format!(
            ".local .align 4 .b8 room[16]; {first}\n ld.local.u32 %r1, [room+8];\n st.global.u32 [%out], %r1;"
        )
    };
    assert_eq!(
        passes(&body("st.local.u32 [room+8], 5;"), &start(1, 1))[0],
        5
    );
    faults(
        &body("st.local.u32 [room+4], 5;"),
        &start(1, 1),
        FaultKind::Uninitialised,
        "st.global.u32 [%out], %r1;",
    );
    let behind = ".local .align 4 .b8 room[16];\n st.local.u32 [room+16], 5;";
    faults(
        behind,
        &start(1, 1),
        FaultKind::IllegalAddress,
        "st.local.u32 [room+16], 5;",
    );
}

#[test]
fn an_atomic_operation_on_shared_memory_that_nobody_set_is_found() {
    let body = |first: &str| {
        format!(".shared .align 4 .b8 room[16]; {first}\n red.shared.add.u32 [room], 1;")
    };
    passes(&body("st.shared.u32 [room], 0;"), &start(1, 1));
    faults(
        &body(""),
        &start(1, 1),
        FaultKind::Uninitialised,
        "red.shared.add.u32 [room], 1;",
    );
}

/// Each thread writes its word of shared memory and reads that of the thread `distance` on.
fn neighbour(distance: u32, between: &str) -> String {
    format!(
        ".shared .align 4 .b8 room[512]; {OWN_WORD} mov.u32 %r2, room; shl.b32 %r3, %r1, 2; add.s32 %r4, %r2, %r3;
        add.s32 %r5, %r1, {distance}; and.b32 %r5, %r5, 127; shl.b32 %r5, %r5, 2; add.s32 %r5, %r2, %r5;
        st.shared.u32 [%r4], %r1;
        {between}
        ld.shared.u32 %r6, [%r5];
        st.global.u32 [%rd1], %r6;"
    )
}

#[test]
fn warps_that_share_memory_without_a_barrier_race() {
    let out = passes(&neighbour(32, "bar.sync 0;"), &start(1, 128));
    assert_eq!(out[..3], [32, 33, 34]);
    // Without a barrier, what a warp reads is not there yet, or was written just now, as chance has it.
    let mut kinds = Vec::new();
    for seed in 0..40 {
        let fault = fault_of(
            &neighbour(32, ""),
            &Start {
                seed: Some(seed),
                ..start(1, 128)
            },
        );
        match fault.kind {
            FaultKind::Race => assert!(fault.detail.contains("thread"), "{fault}"),
            kind => assert_eq!(kind, FaultKind::Uninitialised),
        }
        kinds.push(fault.kind);
    }
    assert!(kinds.contains(&FaultKind::Race) && kinds.contains(&FaultKind::Uninitialised));
}

#[test]
fn lanes_of_a_warp_that_share_memory_need_a_warp_barrier() {
    passes(&neighbour(0, ""), &start(1, 32));
    let fault = faults(
        &neighbour(128 - 1, "").replace("and.b32 %r5, %r5, 127", "and.b32 %r5, %r5, 31"),
        &start(1, 32),
        FaultKind::Race,
        "ld.shared.u32 %r6, [%r5];",
    );
    assert!(fault.detail.contains("thread 31"), "{fault}");
    passes(
        &neighbour(1, "bar.warp.sync -1;").replace("127", "31"),
        &start(1, 32),
    );
}

#[test]
fn reading_together_is_no_race_and_writing_after_it_is() {
    let body = |between: &str| {
        format!(
            ".shared .align 4 .b8 room[4]; mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [room], 9;
            bar.sync 0; ld.shared.u32 %r2, [room]; {between}
            setp.eq.u32 %p2, %r1, 33;
            @%p2 st.shared.u32 [room], 8;"
        )
    };
    passes(&body("bar.sync 0;"), &start(1, 64));
    faults(
        &body(""),
        &start(1, 64),
        FaultKind::Race,
        "@%p2 st.shared.u32 [room], 8;",
    );
}

#[test]
fn atomic_operations_do_not_race_with_each_other_but_with_plain_ones() {
    let body = |then: &str| {
        format!(
            ".shared .align 4 .b8 room[4]; mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [room], 0;
            bar.sync 0; red.shared.add.u32 [room], 1; {then}
            ld.shared.u32 %r2, [room];
            @%p1 st.global.u32 [%out], %r2;"
        )
    };
    assert_eq!(passes(&body("bar.sync 0;"), &start(1, 64))[0], 64);
    faults(
        &body(""),
        &start(1, 64),
        FaultKind::Race,
        "ld.shared.u32 %r2, [room];",
    );
}

#[test]
fn lanes_may_write_one_value_to_one_place_and_not_two() {
    let body = |value: &str| {
        format!(
            ".shared .align 4 .b8 room[4]; mov.u32 %r1, %tid.x;\n st.shared.u32 [room], {value};"
        )
    };
    passes(&body("7"), &start(1, 32));
    faults(
        &body("%r1"),
        &start(1, 32),
        FaultKind::Race,
        "st.shared.u32 [room], %r1;",
    );
}

#[test]
fn named_barriers_order_only_those_who_come() {
    // Warp 0 writes and arrives at barrier 1, warp 1 waits there and reads.
    let body = |reader: u32| {
        format!(
            ".shared .align 4 .b8 room[4]; mov.u32 %r1, %tid.x; shr.u32 %r2, %r1, 5;
            setp.eq.u32 %p1, %r2, 0; setp.eq.u32 %p2, %r2, 1; setp.eq.u32 %p3, %r2, {reader};
            @%p1 st.shared.u32 [room], 4;
            @%p1 bra ARRIVE; @%p2 bra WAIT; bra READ;
            ARRIVE: bar.arrive 1, 64; bra END;
            WAIT: bar.sync 1, 64;
            READ: @!%p3 bra END;
            ld.shared.u32 %r3, [room];
            END:"
        )
    };
    passes(&body(1), &start(1, 96));
    faults(
        &body(2),
        &start(1, 96),
        FaultKind::Race,
        "ld.shared.u32 %r3, [room];",
    );
}

#[test]
fn a_lock_with_fences_is_no_race() {
    let body = "
        .shared .align 4 .b8 lock[4]; .shared .align 4 .b8 sum[4];
        mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 0;
        @%p1 st.shared.u32 [lock], 0; @%p1 st.shared.u32 [sum], 0;
        bar.sync 0;
        TRY: atom.shared.cas.b32 %r2, [lock], 0, 1; setp.ne.u32 %p2, %r2, 0; @%p2 bra TRY;
        membar.cta;
        ld.shared.u32 %r3, [sum]; add.s32 %r3, %r3, %r1; st.shared.u32 [sum], %r3;
        membar.cta;
        atom.shared.exch.b32 %r2, [lock], 0;
        bar.sync 0;
        ld.shared.u32 %r3, [sum]; @%p1 st.global.u32 [%out], %r3;";
    for seed in [None, Some(5), Some(6)] {
        assert_eq!(
            passes(
                body,
                &Start {
                    seed,
                    ..start(1, 96)
                }
            )[0],
            95 * 96 / 2
        );
    }
}

#[test]
fn lanes_that_are_not_in_their_own_mask_are_found() {
    let body = |mask: &str| {
        format!(
            "{OWN_WORD}\n shfl.sync.idx.b32 %r2, %r1, 3, 31, {mask};\n st.global.u32 [%rd1], %r2;"
        )
    };
    assert_eq!(passes(&body("-1"), &start(1, 32))[..32], [3; 32]);
    let fault = faults(
        &body("0xfffffffe"),
        &start(1, 32),
        FaultKind::BadShuffle,
        "shfl.sync.idx.b32 %r2, %r1, 3, 31, 0xfffffffe;",
    );
    assert_eq!(fault.thread, [0, 0, 0]);
}

#[test]
fn lanes_that_have_ended_are_not_waited_for_but_give_no_value() {
    let body = |source: u32| {
        format!(
            "{OWN_WORD} setp.ge.u32 %p1, %r1, 16; @%p1 exit;\n shfl.sync.idx.b32 %r2, %r1, {source}, 31, -1;\n st.global.u32 [%rd1], %r2;"
        )
    };
    assert_eq!(passes(&body(5), &start(1, 32))[..16], [5; 16]);
    faults(
        &body(20),
        &start(1, 32),
        FaultKind::Uninitialised,
        "st.global.u32 [%rd1], %r2;",
    );
}

#[test]
fn lanes_that_end_late_hold_nobody_up_and_order_memory() {
    // The upper half ends at any time before or after the lower half has come to its barrier.
    let body = "
        .shared .align 4 .b8 room[128]; mov.u32 %r1, %tid.x; mov.u32 %r2, room; shl.b32 %r3, %r1, 2; add.s32 %r4, %r2, %r3; st.shared.u32 [%r4], %r1;
        setp.lt.u32 %p1, %r1, 16; @!%p1 bra HIGH;
        bar.warp.sync -1;
        xor.b32 %r3, %r3, 4; add.s32 %r4, %r2, %r3; ld.shared.u32 %r5, [%r4]; mul.wide.u32 %rd1, %r1, 4; add.s64 %rd1, %out, %rd1; st.global.u32 [%rd1], %r5;
        bra END;
        HIGH: add.s32 %r6, %r1, 1; add.s32 %r6, %r6, 1; add.s32 %r6, %r6, 1; add.s32 %r6, %r6, 1;
        END:";
    for seed in 0..100 {
        let out = passes(
            body,
            &Start {
                seed: Some(seed),
                ..start(1, 32)
            },
        );
        assert_eq!(out[..4], [1, 0, 3, 2], "seed {seed}");
    }
}

#[test]
fn masks_that_contradict_each_other_are_found_and_do_not_hang() {
    let body = "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 16; @%p1 bra LOW;\n vote.sync.ballot.b32 %r2, %p1, 0xffffffff; bra END;\n LOW: vote.sync.ballot.b32 %r2, %p1, 0x0000ffff; bar.warp.sync 0x0000ffff;\n END:";
    passes(&body.replace("0xffffffff", "0xffff0000"), &start(1, 32));
    let body = body.replace("bar.warp.sync 0x0000ffff;", "bar.warp.sync 0x0001ffff;");
    assert_eq!(fault_of(&body, &start(1, 32)).kind, FaultKind::BadShuffle);
}

#[test]
fn a_lane_that_waits_at_a_barrier_while_others_wait_for_it_is_a_deadlock() {
    let body = "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 16; @%p1 bra LOW;\n barrier.sync 0; bra END;\n LOW:\n bar.warp.sync -1;\n barrier.sync 0; END:";
    faults(
        body,
        &start(1, 32),
        FaultKind::Deadlock,
        "bar.warp.sync -1;",
    );
}

#[test]
fn a_barrier_that_not_all_threads_reach_is_a_deadlock_unless_they_end() {
    let body = |otherwise: &str| {
        format!(
            "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 32; @%p1 bra LOW;\n {otherwise}\n bra END; LOW:\n bar.sync 0;\n END:"
        )
    };
    passes(&body("exit;"), &start(1, 64));
    passes(&body("bar.sync 0;"), &start(1, 64));
    faults(
        &body("bar.sync 1;"),
        &start(1, 64),
        FaultKind::Deadlock,
        "bar.sync 0;",
    );
}

#[test]
fn lanes_of_a_warp_must_come_to_the_same_aligned_barrier() {
    let body = |barrier: &str| {
        format!(
            "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 16; @%p1 bra LOW;\n {barrier} 0;\n bra END; LOW:\n {barrier} 0;\n END:"
        )
    };
    passes(&body("barrier.sync"), &start(1, 32));
    faults(
        &body("bar.sync"),
        &start(1, 32),
        FaultKind::BadBarrier,
        "bar.sync 0;",
    );
}

#[test]
fn barriers_have_numbers_and_whole_warps() {
    passes("bar.sync 15, 64;", &start(1, 64));
    for bad in ["bar.sync 16;", "bar.sync 1, 33;", "bar.sync 1, 128;"] {
        faults(bad, &start(1, 64), FaultKind::BadBarrier, bad);
    }
}

#[test]
fn recursion_without_end_is_a_fault() {
    let text = ".version 8.0
.target sm_80
.address_size 64
.func deep() {
    .local .align 8 .b8 room[1024];
    call deep;
    ret;
}
.visible .entry k() {
    call deep;
    ret;
}";
    let module = transload_ptx::Module::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let device = crate::rig::Device::default();
    let fault = crate::rig::launch(
        module.kernel("k").expect("it is there"),
        &start(1, 32),
        &device,
        &[],
    )
    .expect_err("it is endless");
    assert_eq!(
        (fault.kind, fault.text.as_str()),
        (FaultKind::StackOverflow, "call deep;")
    );
}

#[test]
fn results_that_depend_on_the_order_of_warps_differ_from_seed_to_seed() {
    // The last warp to store wins.
    let body = "mov.u32 %r1, %tid.x; st.global.u32 [%out], %r1;";
    let winners: std::collections::BTreeSet<u32> = (0..20)
        .map(|seed| {
            passes(
                body,
                &Start {
                    seed: Some(seed),
                    ..start(1, 256)
                },
            )[0]
        })
        .collect();
    assert!(winners.len() > 2, "{winners:?}");
    // Also within one warp,
    let one_warp = |body: &str, seed| {
        passes(
            body,
            &Start {
                seed: Some(seed),
                ..start(1, 32)
            },
        )[0]
    };
    let winners: std::collections::BTreeSet<u32> =
        (0..20).map(|seed| one_warp(body, seed)).collect();
    assert!(winners.len() > 2, "{winners:?}");
    // and for what atomic operations return.
    let tickets = "mov.u32 %r1, %tid.x; atom.global.add.u32 %r2, [%in], 1; setp.eq.u32 %p1, %r2, 0; @%p1 st.global.u32 [%out], %r1;";
    let first: std::collections::BTreeSet<u32> =
        (0..20).map(|seed| one_warp(tickets, seed)).collect();
    assert!(first.len() > 2, "{first:?}");
    let again = |seed| {
        passes(
            body,
            &Start {
                seed: Some(seed),
                ..start(1, 256)
            },
        )[0]
    };
    assert_eq!(again(7), again(7));
}

#[test]
fn checks_can_be_turned_off() {
    let module = crate::rig::module(
        "st.global.u32 [%out], %r1; .shared .b32 s; mov.u32 %r2, %tid.x; st.shared.u32 [s], %r2;",
    )
    .unwrap_or_else(|error| panic!("{error}"));
    let (device, cancelled) = (
        crate::rig::Device::default(),
        std::sync::atomic::AtomicBool::new(false),
    );
    let out = device.of(&[0_u32]);
    let with = |find_uninitialised, find_races| {
        let launch = transload_ptx::Launch {
            grid: [1; 3],
            block: [32, 1, 1],
            dynamic_shared_bytes: 0,
            parameters: &[out, out].map(u64::to_le_bytes).concat(),
            globals: &|_| None,
        };
        let options = transload_ptx::Options {
            find_uninitialised,
            find_races,
            ..transload_ptx::Options::new(&cancelled)
        };
        transload_ptx::run(
            module.kernel("k").expect("it is there"),
            &launch,
            &device.memory(),
            &options,
        )
        .map(|_| ())
        .map_err(|fault| fault.kind)
    };
    assert_eq!(with(true, true), Err(FaultKind::Uninitialised));
    assert_eq!(with(false, true), Err(FaultKind::Race));
    assert_eq!(with(false, false), Ok(()));
}
