//! What lanes do together, by chance, against what the CUDA programming guide says of the intrinsics.

use proptest::prelude::*;

use crate::rig::{start, try_run};

/// Runs `op` in one warp: `%r1` is the lane's value, `%r2` its number; the result is `%r9`, and `%p9` in bit 32.
fn run(op: &str, values: &[u32]) -> Vec<u64> {
    let body = format!(
        "mov.u32 %r2, %laneid; mul.wide.u32 %rd1, %r2, 4; add.s64 %rd1, %in, %rd1; ld.global.u32 %r1, [%rd1];
        mul.wide.u32 %rd2, %r2, 8; add.s64 %rd2, %out, %rd2; mov.pred %p9, 0; mov.u32 %r9, 0;
        {op}
        cvt.u64.u32 %rd3, %r9; selp.b64 %rd4, 1, 0, %p9; shl.b64 %rd4, %rd4, 32; or.b64 %rd3, %rd3, %rd4; st.global.u64 [%rd2], %rd3;"
    );
    try_run(&body, &start(1, 32), values, 32).unwrap_or_else(|fault| panic!("{fault}"))
}

fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |lane| mask >> lane & 1 == 1)
}

fn warp() -> impl Strategy<Value = Vec<u32>> {
    let value = prop_oneof![any::<u32>(), 0..4_u32];
    prop::collection::vec(value, 32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn shuffles_go_where_the_guide_says(values in warp(), mode in 0..4_usize, log_width in 1..6_u32, by in 0..40_u32) {
        let width = 1 << log_width;
        let (name, last) = [("up", 0), ("down", 31), ("bfly", 31), ("idx", 31)][mode];
        let clamp = (32 - width) << 8 | last;
        let found = run(&format!("shfl.sync.{name}.b32 %r9|%p9, %r1, {by}, {clamp}, -1;"), &values);
        let by = by % 32;
        for lane in 0..32_u32 {
            let (place, segment) = (lane % width, lane / width * width);
            let source = match mode {
                0 => (place >= by).then(|| lane - by),
                1 => (place + by < width).then(|| lane + by),
                2 => (lane ^ by < segment + width).then_some(lane ^ by),
                _ => (by < width || width < 32).then_some(segment + by % width),
            };
            let expected = u64::from(values[source.unwrap_or(lane) as usize]) | u64::from(source.is_some()) << 32;
            prop_assert_eq!(found[lane as usize], expected, "{} by {} in {} at lane {}", name, by, width, lane);
        }
    }

    #[test]
    fn masks_take_some_lanes_and_leave_the_others_alone(values in warp(), mask in 1_u32..) {
        // Those outside of the mask go another way.
        let within = |op: &str| {
            run(&format!("mov.u32 %r3, 1; shl.b32 %r3, %r3, %r2; and.b32 %r3, %r3, {mask}; setp.eq.u32 %p1, %r3, 0; @%p1 bra END;\n{op}\nEND:"), &values)
        };
        let of = |lane: usize| values[lane];
        let all = |f: fn(u32, u32) -> u32| u64::from(lanes(mask).map(of).reduce(f).unwrap_or(0));
        for (op, expected) in [
            ("redux.sync.add.u32 %r9, %r1, M;", all(u32::wrapping_add)),
            ("redux.sync.min.u32 %r9, %r1, M;", all(u32::min)),
            ("redux.sync.max.s32 %r9, %r1, M;", all(|a, b| (a as i32).max(b as i32) as u32)),
            ("redux.sync.and.b32 %r9, %r1, M;", all(|a, b| a & b)),
            ("redux.sync.or.b32 %r9, %r1, M;", all(|a, b| a | b)),
            ("redux.sync.xor.b32 %r9, %r1, M;", all(|a, b| a ^ b)),
            ("activemask.b32 %r9;", u64::from(mask)),
        ] {
            let found = within(&op.replace('M', &mask.to_string()));
            for (lane, found) in found.into_iter().enumerate() {
                let taken = if mask >> lane & 1 == 1 { expected } else { 0 };
                prop_assert_eq!(found, taken, "{} at lane {}", op, lane);
            }
        }
        let alike = within(&format!("match.any.sync.b32 %r9, %r1, {mask};"));
        let all_alike = within(&format!("match.all.sync.b32 %r9|%p9, %r1, {mask};"));
        let odd = within(&format!("and.b32 %r4, %r1, 1; setp.eq.u32 %p2, %r4, 1; vote.sync.ballot.b32 %r9, %p2, {mask}; vote.sync.any.pred %p9, !%p2, {mask};"));
        let same = lanes(mask).all(|lane| lanes(mask).all(|other| of(lane) == of(other)));
        for lane in lanes(mask) {
            let picked = |keep: &dyn Fn(usize) -> bool| lanes(mask).filter(|other| keep(*other)).fold(0_u64, |all, other| all | 1 << other);
            prop_assert_eq!(alike[lane], picked(&|other| of(other) == of(lane)));
            prop_assert_eq!(all_alike[lane], if same { u64::from(mask) | 1 << 32 } else { 0 });
            let any_even = lanes(mask).any(|other| of(other) & 1 == 0);
            prop_assert_eq!(odd[lane], picked(&|other| of(other) & 1 == 1) | u64::from(any_even) << 32);
        }
    }
}
