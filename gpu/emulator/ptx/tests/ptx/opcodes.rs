//! Opcodes one by one against plain Rust, with values by chance and values at the edges.

use proptest::prelude::*;

use crate::rig::{module, start, try_run};

/// What each lane has: three values of 64 bits, whose low parts are the narrower registers.
type Lane = [u64; 3];

/// Runs `op` in 32 lanes. The sources are `%rd1` to `%rd3`, `%r1`, `%h1`, `%f1`, `%d1` and so on; the result is in
/// `%rd9`, `%r9`, `%h9`, `%f9`, `%d9` or `%p9`, as the letter says.
fn run(op: &str, result: char, lanes: &[Lane]) -> Vec<u64> {
    let end = match result {
        'D' => "",
        'r' => "cvt.u64.u32 %rd9, %r9;",
        'h' => "cvt.u64.u16 %rd9, %h9;",
        'f' => "mov.b32 %r9, %f9; cvt.u64.u32 %rd9, %r9;",
        'd' => "mov.b64 %rd9, %d9;",
        _ => "selp.b64 %rd9, 1, 0, %p9;",
    };
    let mut body = String::from(
        "mov.u32 %r20, %tid.x; mad.wide.u32 %rd20, %r20, 24, %in; mad.wide.u32 %rd21, %r20, 8, %out;",
    );
    for n in 1..=3 {
        let at = 8 * (n - 1);
        for (load, register) in [
            ("u64", "rd"),
            ("u32", "r"),
            ("u16", "h"),
            ("f32", "f"),
            ("f64", "d"),
        ] {
            body += &format!("ld.global.{load} %{register}{n}, [%rd20+{at}];");
        }
    }
    body += &format!("setp.lt.u32 %p1, %r1, %r2;\n{op}\n{end} st.global.u64 [%rd21], %rd9;");
    let input: Vec<u64> = lanes.concat();
    try_run(&body, &start(1, lanes.len() as u32), &input, lanes.len())
        .unwrap_or_else(|fault| panic!("{fault}"))
}

/// Numbers that break things, of all widths.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    31,
    32,
    63,
    64,
    0x7f,
    0x80,
    0x7fff,
    0x8000,
    0x7fff_ffff,
    0x8000_0000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// 32 lanes of which some have edges.
fn lanes() -> impl Strategy<Value = Vec<Lane>> {
    let value = prop_oneof![2 => any::<u64>(), 1 => (0..EDGES.len()).prop_map(|i| EDGES[i]), 1 => 0..200_u64, 1 => any::<u32>().prop_map(u64::from)];
    prop::collection::vec([value.clone(), value.clone(), value], 32)
}

/// Checks each `(op, result, oracle)` on the same lanes.
macro_rules! check {
    ($lanes:expr, $(($op:expr, $result:expr, |$a:ident, $b:ident, $c:ident| $oracle:expr)),* $(,)?) => {$(
        let found = run($op, $result, &$lanes);
        for (lane, found) in $lanes.iter().zip(found) {
            #[allow(unused_variables, reason = "not every opcode has three sources")]
            let [$a, $b, $c] = *lane;
            let expected: u64 = $oracle;
            prop_assert_eq!(found, expected, "{} of {:#x} {:#x} {:#x}", $op, lane[0], lane[1], lane[2]);
        }
    )*};
}

fn w(x: u32) -> u64 {
    u64::from(x)
}

fn h(x: u16) -> u64 {
    u64::from(x)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn integers_of_32_bits(lanes in lanes()) {
        check!(lanes,
            ("add.s32 %r9, %r1, %r2;", 'r', |a, b, c| w((a as u32).wrapping_add(b as u32))),
            ("add.sat.s32 %r9, %r1, %r2;", 'r', |a, b, c| w((a as i32).saturating_add(b as i32) as u32)),
            ("sub.sat.s32 %r9, %r1, %r2;", 'r', |a, b, c| w((a as i32).saturating_sub(b as i32) as u32)),
            ("sub.u32 %r9, %r1, %r2;", 'r', |a, b, c| w((a as u32).wrapping_sub(b as u32))),
            ("mul.lo.s32 %r9, %r1, %r2;", 'r', |a, b, c| w((a as u32).wrapping_mul(b as u32))),
            ("mul.hi.u32 %r9, %r1, %r2;", 'r', |a, b, c| w(((w(a as u32) * w(b as u32)) >> 32) as u32)),
            ("mul.hi.s32 %r9, %r1, %r2;", 'r', |a, b, c| w(((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32)),
            ("mul.wide.u32 %rd9, %r1, %r2;", 'D', |a, b, c| w(a as u32) * w(b as u32)),
            ("mul.wide.s32 %rd9, %r1, %r2;", 'D', |a, b, c| (i64::from(a as i32) * i64::from(b as i32)) as u64),
            ("mad.lo.u32 %r9, %r1, %r2, %r3;", 'r', |a, b, c| w((a as u32).wrapping_mul(b as u32).wrapping_add(c as u32))),
            ("mad.hi.s32 %r9, %r1, %r2, %r3;", 'r', |a, b, c| w((((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32).wrapping_add(c as u32))),
            ("mad.wide.s32 %rd9, %r1, %r2, %rd3;", 'D', |a, b, c| ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c)),
            ("mul24.lo.u32 %r9, %r1, %r2;", 'r', |a, b, c| w((a as u32 & 0xff_ffff).wrapping_mul(b as u32 & 0xff_ffff))),
            ("div.u32 %r9, %r1, %r2;", 'r', |a, b, c| w((a as u32).checked_div(b as u32).unwrap_or(u32::MAX))),
            ("div.s32 %r9, %r1, %r2;", 'r', |a, b, c| w(if b as u32 == 0 { u32::MAX } else { (a as i32).wrapping_div(b as i32) as u32 })),
            ("rem.u32 %r9, %r1, %r2;", 'r', |a, b, c| w((a as u32).checked_rem(b as u32).unwrap_or(a as u32))),
            ("rem.s32 %r9, %r1, %r2;", 'r', |a, b, c| w(if b as u32 == 0 { a as u32 } else { (a as i32).wrapping_rem(b as i32) as u32 })),
            ("min.s32 %r9, %r1, %r2;", 'r', |a, b, c| w((a as i32).min(b as i32) as u32)),
            ("max.u32 %r9, %r1, %r2;", 'r', |a, b, c| w((a as u32).max(b as u32))),
            ("abs.s32 %r9, %r1;", 'r', |a, b, c| w((a as i32).unsigned_abs())),
            ("neg.s32 %r9, %r1;", 'r', |a, b, c| w((a as u32).wrapping_neg())),
            ("sad.s32 %r9, %r1, %r2, %r3;", 'r', |a, b, c| w((a as i32).abs_diff(b as i32).wrapping_add(c as u32))),
        );
    }

    #[test]
    fn integers_of_64_bits(lanes in lanes()) {
        check!(lanes,
            ("add.s64 %rd9, %rd1, %rd2;", 'D', |a, b, c| a.wrapping_add(b)),
            ("sub.s64 %rd9, %rd1, %rd2;", 'D', |a, b, c| a.wrapping_sub(b)),
            ("mul.lo.s64 %rd9, %rd1, %rd2;", 'D', |a, b, c| a.wrapping_mul(b)),
            ("mul.hi.u64 %rd9, %rd1, %rd2;", 'D', |a, b, c| ((u128::from(a) * u128::from(b)) >> 64) as u64),
            ("mul.hi.s64 %rd9, %rd1, %rd2;", 'D', |a, b, c| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64),
            ("mad.lo.s64 %rd9, %rd1, %rd2, %rd3;", 'D', |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
            ("div.u64 %rd9, %rd1, %rd2;", 'D', |a, b, c| a.checked_div(b).unwrap_or(u64::MAX)),
            ("div.s64 %rd9, %rd1, %rd2;", 'D', |a, b, c| if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 }),
            ("rem.u64 %rd9, %rd1, %rd2;", 'D', |a, b, c| a.checked_rem(b).unwrap_or(a)),
            ("rem.s64 %rd9, %rd1, %rd2;", 'D', |a, b, c| if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 }),
            ("min.u64 %rd9, %rd1, %rd2;", 'D', |a, b, c| a.min(b)),
            ("max.s64 %rd9, %rd1, %rd2;", 'D', |a, b, c| (a as i64).max(b as i64) as u64),
            ("abs.s64 %rd9, %rd1;", 'D', |a, b, c| (a as i64).unsigned_abs()),
            ("neg.s64 %rd9, %rd1;", 'D', |a, b, c| a.wrapping_neg()),
        );
    }

    #[test]
    fn integers_of_16_bits(lanes in lanes()) {
        check!(lanes,
            ("add.s16 %h9, %h1, %h2;", 'h', |a, b, c| h((a as u16).wrapping_add(b as u16))),
            ("sub.u16 %h9, %h1, %h2;", 'h', |a, b, c| h((a as u16).wrapping_sub(b as u16))),
            ("mul.lo.s16 %h9, %h1, %h2;", 'h', |a, b, c| h((a as u16).wrapping_mul(b as u16))),
            ("mul.hi.u16 %h9, %h1, %h2;", 'h', |a, b, c| h(((u32::from(a as u16) * u32::from(b as u16)) >> 16) as u16)),
            ("mul.wide.s16 %r9, %h1, %h2;", 'r', |a, b, c| w((i32::from(a as i16) * i32::from(b as i16)) as u32)),
            ("mul.wide.u16 %r9, %h1, %h2;", 'r', |a, b, c| w(u32::from(a as u16) * u32::from(b as u16))),
            ("min.s16 %h9, %h1, %h2;", 'h', |a, b, c| h((a as i16).min(b as i16) as u16)),
            ("div.s16 %h9, %h1, %h2;", 'h', |a, b, c| h(if b as u16 == 0 { u16::MAX } else { (a as i16).wrapping_div(b as i16) as u16 })),
            ("shr.s16 %h9, %h1, %r2;", 'h', |a, b, c| h((a as i16 >> (b as u32).min(15)) as u16)),
            ("shl.b16 %h9, %h1, %r2;", 'h', |a, b, c| h((a as u16).checked_shl(b as u32).unwrap_or(0))),
            ("not.b16 %h9, %h1;", 'h', |a, b, c| h(!(a as u16))),
        );
    }

    #[test]
    fn shifts_and_bits(lanes in lanes()) {
        check!(lanes,
            ("shl.b32 %r9, %r1, %r2;", 'r', |a, b, c| w((a as u32).checked_shl(b as u32).unwrap_or(0))),
            ("shr.u32 %r9, %r1, %r2;", 'r', |a, b, c| w((a as u32).checked_shr(b as u32).unwrap_or(0))),
            ("shr.s32 %r9, %r1, %r2;", 'r', |a, b, c| w((a as i32 >> (b as u32).min(31)) as u32)),
            ("shl.b64 %rd9, %rd1, %r2;", 'D', |a, b, c| a.checked_shl(b as u32).unwrap_or(0)),
            ("shr.u64 %rd9, %rd1, %r2;", 'D', |a, b, c| a.checked_shr(b as u32).unwrap_or(0)),
            ("shr.s64 %rd9, %rd1, %r2;", 'D', |a, b, c| (a as i64 >> (b as u32).min(63)) as u64),
            ("and.b64 %rd9, %rd1, %rd2;", 'D', |a, b, c| a & b),
            ("or.b32 %r9, %r1, %r2;", 'r', |a, b, c| w((a | b) as u32)),
            ("xor.b64 %rd9, %rd1, %rd2;", 'D', |a, b, c| a ^ b),
            ("not.b64 %rd9, %rd1;", 'D', |a, b, c| !a),
            ("cnot.b32 %r9, %r1;", 'r', |a, b, c| u64::from(a as u32 == 0)),
            ("popc.b64 %r9, %rd1;", 'r', |a, b, c| w(a.count_ones())),
            ("clz.b32 %r9, %r1;", 'r', |a, b, c| w((a as u32).leading_zeros())),
            ("clz.b64 %r9, %rd1;", 'r', |a, b, c| w(a.leading_zeros())),
            ("brev.b32 %r9, %r1;", 'r', |a, b, c| w((a as u32).reverse_bits())),
            ("brev.b64 %rd9, %rd1;", 'D', |a, b, c| a.reverse_bits()),
            ("bfind.u32 %r9, %r1;", 'r', |a, b, c| w((a as u32).checked_ilog2().unwrap_or(u32::MAX))),
            ("bfind.u64 %r9, %rd1;", 'r', |a, b, c| w(a.checked_ilog2().unwrap_or(u32::MAX))),
            ("bfind.s32 %r9, %r1;", 'r', |a, b, c| w((if (a as i32) < 0 { !(a as u32) } else { a as u32 }).checked_ilog2().unwrap_or(u32::MAX))),
            ("bfind.shiftamt.s64 %r9, %rd1;", 'r', |a, b, c| w((if (a as i64) < 0 { !a } else { a }).checked_ilog2().map_or(u32::MAX, |bit| 63 - bit))),
            ("shf.l.wrap.b32 %r9, %r1, %r2, %r3;", 'r', |a, b, c| w(((w(b as u32) << 32 | w(a as u32)) << (c & 31) >> 32) as u32)),
            ("shf.r.clamp.b32 %r9, %r1, %r2, %r3;", 'r', |a, b, c| w(((w(b as u32) << 32 | w(a as u32)) >> (c as u32).min(32)) as u32)),
            ("shf.l.clamp.b32 %r9, %r1, %r2, %r3;", 'r', |a, b, c| w(((u128::from(b as u32) << 32 | u128::from(a as u32)) << (c as u32).min(32) >> 32) as u32)),
            ("lop3.b32 %r9, %r1, %r2, %r3, 0xe8;", 'r', |a, b, c| w((a & b | b & c | a & c) as u32)),
            ("lop3.b32 %r9, %r1, %r2, %r3, 0x2d;", 'r', |a, b, c| {
                w((0..32).fold(0, |all, i| {
                    let row = (a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1);
                    all | (0x2d >> row & 1) << i
                }))
            }),
        );
    }

    #[test]
    fn fields_of_bits_are_those_that_a_loop_copies(lanes in lanes()) {
        /// As the manual writes it.
        fn extract(a: u64, b: u64, c: u64, msb: u64, signed: bool) -> u64 {
            let (pos, len) = (b & 255, c & 255);
            let sign = if signed && len != 0 { a >> (pos + len - 1).min(msb) & 1 } else { 0 };
            (0..=msb).fold(0, |all, i| all | if i < len && pos + i <= msb { a >> (pos + i) & 1 } else { sign } << i)
        }
        fn insert(a: u64, b: u64, c: u64, d: u64, msb: u64) -> u64 {
            let (pos, len) = (c & 255, d & 255);
            (0..len).take_while(|i| pos + i <= msb).fold(b, |all, i| all & !(1 << (pos + i)) | (a >> i & 1) << (pos + i))
        }
        check!(lanes,
            ("bfe.u32 %r9, %r1, %r2, %r3;", 'r', |a, b, c| extract(w(a as u32), b, c, 31, false)),
            ("bfe.s32 %r9, %r1, %r2, %r3;", 'r', |a, b, c| extract(w(a as u32), b, c, 31, true)),
            ("bfe.u64 %rd9, %rd1, %r2, %r3;", 'D', |a, b, c| extract(a, b, c, 63, false)),
            ("bfe.s64 %rd9, %rd1, %r2, %r3;", 'D', |a, b, c| extract(a, b, c, 63, true)),
            ("bfi.b32 %r9, %r1, %r2, %r3, 7;", 'r', |a, b, c| insert(a, w(b as u32), c, 7, 31)),
            ("bfi.b64 %rd9, %rd1, %rd2, 12, 40;", 'D', |a, b, c| insert(a, b, 12, 40, 63)),
            ("bfi.b64 %rd9, %rd1, %rd2, %r3, %r1;", 'D', |a, b, c| insert(a, b, c, a, 63)),
            ("prmt.b32 %r9, %r1, %r2, %r3;", 'r', |a, b, c| {
                let bytes = [(a as u32).to_le_bytes(), (b as u32).to_le_bytes()].concat();
                let pick = |i: usize| {
                    let nibble = (c >> (4 * i)) as usize & 15;
                    let byte = bytes[nibble & 7];
                    if nibble < 8 { byte } else { (byte as i8 >> 7) as u8 }
                };
                w(u32::from_le_bytes([pick(0), pick(1), pick(2), pick(3)]))
            }),
            ("prmt.b32.rc16 %r9, %r1, %r2, %r3;", 'r', |a, b, c| w((if c & 1 == 0 { a & 0xffff } else { a >> 16 & 0xffff } * 0x1_0001) as u32)),
        );
    }

    #[test]
    fn carries_go_from_word_to_word(lanes in lanes()) {
        check!(lanes,
            ("mov.b64 {%r1, %r4}, %rd1; mov.b64 {%r2, %r5}, %rd2; add.cc.u32 %r6, %r1, %r2; addc.u32 %r7, %r4, %r5; mov.b64 %rd9, {%r6, %r7};", 'D', |a, b, c| a.wrapping_add(b)),
            ("mov.b64 {%r1, %r4}, %rd1; mov.b64 {%r2, %r5}, %rd2; sub.cc.u32 %r6, %r1, %r2; subc.u32 %r7, %r4, %r5; mov.b64 %rd9, {%r6, %r7};", 'D', |a, b, c| a.wrapping_sub(b)),
            ("add.cc.u64 %rd8, %rd1, %rd2; addc.u64 %rd9, 0, 0;", 'D', |a, b, c| u64::from(a.overflowing_add(b).1)),
            ("sub.cc.u64 %rd8, %rd1, %rd2; subc.u64 %rd9, 0, 0;", 'D', |a, b, c| if b > a { u64::MAX } else { 0 }),
            ("mad.lo.cc.u32 %r8, %r1, %r2, %r3; madc.hi.u32 %r9, %r1, %r2, 0;", 'r', |a, b, c| (w(a as u32) * w(b as u32) + w(c as u32)) >> 32),
            ("mad.lo.cc.u64 %rd8, %rd1, %rd2, %rd3; madc.hi.u64 %rd9, %rd1, %rd2, 0;", 'D', |a, b, c| ((u128::from(a) * u128::from(b) + u128::from(c)) >> 64) as u64),
        );
    }

    #[test]
    fn comparisons_and_choices(lanes in lanes()) {
        let (f, d) = (|x: u64| f32::from_bits(x as u32), f64::from_bits);
        check!(lanes,
            ("setp.lt.s32 %p9, %r1, %r2;", 'p', |a, b, c| u64::from((a as i32) < b as i32)),
            ("setp.lo.u32 %p9, %r1, %r2;", 'p', |a, b, c| u64::from((a as u32) < b as u32)),
            ("setp.ge.u64 %p9, %rd1, %rd2;", 'p', |a, b, c| u64::from(a >= b)),
            ("setp.gt.s64 %p9, %rd1, %rd2;", 'p', |a, b, c| u64::from(a as i64 > b as i64)),
            ("setp.ne.b16 %p9, %h1, %h2;", 'p', |a, b, c| u64::from(a as u16 != b as u16)),
            ("setp.le.s16 %p9, %h1, %h2;", 'p', |a, b, c| u64::from(a as i16 <= b as i16)),
            ("setp.lt.f32 %p9, %f1, %f2;", 'p', |a, b, c| u64::from(f(a) < f(b))),
            ("setp.ltu.f32 %p9, %f1, %f2;", 'p', |a, b, c| u64::from(f(a) < f(b) || f(a).is_nan() || f(b).is_nan())),
            ("setp.ne.f64 %p9, %d1, %d2;", 'p', |a, b, c| u64::from(d(a) < d(b) || d(a) > d(b))),
            ("setp.neu.f64 %p9, %d1, %d2;", 'p', |a, b, c| u64::from(d(a) != d(b))),
            ("setp.num.f64 %p9, %d1, %d2;", 'p', |a, b, c| u64::from(!d(a).is_nan() && !d(b).is_nan())),
            ("setp.nan.f32 %p9, %f1, %f2;", 'p', |a, b, c| u64::from(f(a).is_nan() || f(b).is_nan())),
            ("setp.eq.and.s32 %p9, %r2, %r3, %p1;", 'p', |a, b, c| u64::from(b as u32 == c as u32 && (a as u32) < b as u32)),
            ("setp.eq.or.s32 %p9|%p8, %r2, %r3, !%p1;", 'p', |a, b, c| u64::from(b as u32 == c as u32 || (a as u32) >= b as u32)),
            ("setp.eq.xor.s32 %p8|%p9, %r2, %r3, %p1;", 'p', |a, b, c| u64::from((b as u32 != c as u32) ^ ((a as u32) < b as u32))),
            ("set.gt.u32.s32 %r9, %r1, %r2;", 'r', |a, b, c| if a as i32 > b as i32 { 0xffff_ffff } else { 0 }),
            ("set.gt.f32.s32 %f9, %r1, %r2;", 'f', |a, b, c| if a as i32 > b as i32 { w(1_f32.to_bits()) } else { 0 }),
            ("selp.b64 %rd9, %rd2, %rd3, %p1;", 'D', |a, b, c| if (a as u32) < b as u32 { b } else { c }),
            ("selp.b32 %r9, %r2, 7, !%p1;", 'r', |a, b, c| if (a as u32) < b as u32 { 7 } else { w(b as u32) }),
            ("setp.lt.u32 %p2, %r2, %r3; and.pred %p9, %p1, !%p2;", 'p', |a, b, c| u64::from((a as u32) < b as u32 && (b as u32) >= c as u32)),
            ("setp.lt.u32 %p2, %r2, %r3; xor.pred %p3, %p1, %p2; not.pred %p9, %p3;", 'p', |a, b, c| u64::from(((a as u32) < b as u32) == ((b as u32) < c as u32))),
        );
    }

    #[test]
    fn conversions_between_integers(lanes in lanes()) {
        check!(lanes,
            ("cvt.s64.s32 %rd9, %r1;", 'D', |a, b, c| i64::from(a as i32) as u64),
            ("cvt.u64.u32 %rd9, %r1;", 'D', |a, b, c| w(a as u32)),
            ("cvt.u32.u64 %r9, %rd1;", 'r', |a, b, c| w(a as u32)),
            ("cvt.s32.s8 %r9, %r1;", 'r', |a, b, c| w(i32::from(a as i8) as u32)),
            ("cvt.u32.u8 %r9, %h1;", 'r', |a, b, c| a & 255),
            ("cvt.s8.s32 %r9, %r1;", 'r', |a, b, c| w(i32::from(a as i8) as u32)),
            ("cvt.u16.u64 %h9, %rd1;", 'h', |a, b, c| a & 0xffff),
            ("cvt.sat.s16.s32 %h9, %r1;", 'h', |a, b, c| h((a as i32).clamp(-32768, 32767) as u16)),
            ("cvt.sat.u8.s64 %h9, %rd1;", 'h', |a, b, c| (a as i64).clamp(0, 255) as u64),
            ("cvt.sat.u32.s32 %r9, %r1;", 'r', |a, b, c| w((a as i32).max(0) as u32)),
            ("cvt.sat.s64.u64 %rd9, %rd1;", 'D', |a, b, c| a.min(i64::MAX as u64)),
        );
    }

    #[test]
    fn conversions_of_floats(lanes in lanes()) {
        let (f, d) = (|x: u64| f32::from_bits(x as u32), f64::from_bits);
        let bits = |x: f32| if x.is_nan() { 0x7fff_ffff } else { w(x.to_bits()) };
        check!(lanes,
            ("cvt.rn.f32.s32 %f9, %r1;", 'f', |a, b, c| bits(a as i32 as f32)),
            ("cvt.rn.f32.u64 %f9, %rd1;", 'f', |a, b, c| bits(a as f32)),
            ("cvt.rn.f64.s64 %d9, %rd1;", 'd', |a, b, c| (a as i64 as f64).to_bits()),
            ("cvt.rn.f64.u16 %d9, %h1;", 'd', |a, b, c| f64::from(a as u16).to_bits()),
            ("cvt.rzi.s32.f32 %r9, %f1;", 'r', |a, b, c| w(f(a) as i32 as u32)),
            ("cvt.rni.u32.f32 %r9, %f1;", 'r', |a, b, c| w(f(a).round_ties_even() as u32)),
            ("cvt.rmi.s32.f64 %r9, %d1;", 'r', |a, b, c| if d(a).is_nan() { 1 << 31 } else { w(d(a).floor() as i32 as u32) }),
            ("cvt.rpi.s64.f64 %rd9, %d1;", 'D', |a, b, c| if d(a).is_nan() { 1 << 63 } else { d(a).ceil() as i64 as u64 }),
            ("cvt.rzi.u64.f32 %rd9, %f1;", 'D', |a, b, c| if f(a).is_nan() { 1 << 63 } else { f(a) as u64 }),
            ("cvt.rzi.s16.f32 %h9, %f1;", 'h', |a, b, c| h(f(a) as i16 as u16)),
            ("cvt.rn.f32.f64 %f9, %d1;", 'f', |a, b, c| bits(d(a) as f32)),
            ("cvt.rni.f32.f32 %f9, %f1;", 'f', |a, b, c| bits(f(a).round_ties_even())),
            ("cvt.ftz.f32.f32 %f9, %f1;", 'f', |a, b, c| bits(if f(a).is_subnormal() { 0_f32.copysign(f(a)) } else { f(a) })),
            ("cvt.sat.f32.f32 %f9, %f1;", 'f', |a, b, c| bits(if f(a) > 0.0 { f(a).min(1.0) } else { 0.0 })),
        );
    }

    #[test]
    fn arithmetic_of_floats(lanes in lanes(), pick in 0..4_u32) {
        // Of doubles by chance most are far apart: numbers of one size show more.
        let lanes: Vec<Lane> = lanes.iter().map(|lane| lane.map(|x| match pick {
            0 => x,
            1 => (x as i32 as f64 / 1000.0).to_bits(),
            2 => w((x as i16 as f32 / 16.0).to_bits()),
            _ => x & 0x800f_ffff_ffff_ffff,
        })).collect();
        let f = |x: u64| f32::from_bits(x as u32);
        let bits = |x: f32| if x.is_nan() { 0x7fff_ffff } else { w(x.to_bits()) };
        let flush = |x: f32| if x.is_subnormal() { 0_f32.copysign(x) } else { x };
        check!(lanes,
            ("add.f32 %f9, %f1, %f2;", 'f', |a, b, c| bits(f(a) + f(b))),
            ("sub.rn.f32 %f9, %f1, %f2;", 'f', |a, b, c| bits(f(a) - f(b))),
            ("mul.ftz.f32 %f9, %f1, %f2;", 'f', |a, b, c| bits(flush(flush(f(a)) * flush(f(b))))),
            ("add.sat.f32 %f9, %f1, %f2;", 'f', |a, b, c| bits(if f(a) + f(b) > 0.0 { (f(a) + f(b)).min(1.0) } else { 0.0 })),
            ("fma.rn.f32 %f9, %f1, %f2, %f3;", 'f', |a, b, c| bits(f(a).mul_add(f(b), f(c)))),
            ("div.rn.f32 %f9, %f1, %f2;", 'f', |a, b, c| bits(f(a) / f(b))),
            ("sqrt.rn.f32 %f9, %f1;", 'f', |a, b, c| bits(f(a).sqrt())),
            ("neg.f32 %f9, %f1;", 'f', |a, b, c| bits(-f(a))),
            ("abs.f64 %d9, %d1;", 'd', |a, b, c| a & i64::MAX as u64),
        );
        // Of doubles, NaN is NaN whatever its bits.
        let nan = |x: f64| if x.is_nan() { u64::MAX } else { x.to_bits() };
        for (op, oracle) in [
            ("add.f64 %d9, %d1, %d2;", (|a, b, _| a + b) as fn(f64, f64, f64) -> f64),
            ("sub.f64 %d9, %d1, %d2;", |a, b, _| a - b),
            ("mul.rn.f64 %d9, %d1, %d2;", |a, b, _| a * b),
            ("fma.rn.f64 %d9, %d1, %d2, %d3;", |a, b, c| a.mul_add(b, c)),
            ("div.rn.f64 %d9, %d1, %d2;", |a, b, _| a / b),
            ("sqrt.rn.f64 %d9, %d1;", |a, _, _| a.sqrt()),
            ("rcp.rn.f64 %d9, %d1;", |a, _, _| 1.0 / a),
            ("min.f64 %d9, %d1, %d2;", |a, b, _| if a == b && a.is_sign_positive() { b } else { a.min(b) }),
            ("max.f64 %d9, %d1, %d2;", |a, b, _| if a == b && a.is_sign_negative() { b } else { a.max(b) }),
        ] {
            for (lane, found) in lanes.iter().zip(run(op, 'd', &lanes)) {
                let [a, b, c] = lane.map(f64::from_bits);
                prop_assert_eq!(nan(f64::from_bits(found)), nan(oracle(a, b, c)), "{} of {:e} {:e} {:e}", op, a, b, c);
            }
        }
    }
}

#[test]
fn minima_of_numbers_and_nans_are_numbers_unless_nan_is_asked_for() {
    let lane = |a: f32, b: f32| [w(a.to_bits()), w(b.to_bits()), 0];
    let nan = 0x7fff_ffff_u64;
    let lanes = [
        lane(1.0, 2.0),
        lane(f32::NAN, 2.0),
        lane(1.0, f32::NAN),
        lane(-0.0, 0.0),
        lane(f32::NAN, f32::NAN),
    ];
    let bits = |x: f32| w(x.to_bits());
    assert_eq!(
        run("min.f32 %f9, %f1, %f2;", 'f', &lanes),
        [bits(1.0), bits(2.0), bits(1.0), bits(-0.0), nan]
    );
    assert_eq!(
        run("max.f32 %f9, %f1, %f2;", 'f', &lanes),
        [bits(2.0), bits(2.0), bits(1.0), 0, nan]
    );
    assert_eq!(
        run("min.NaN.f32 %f9, %f1, %f2;", 'f', &lanes),
        [bits(1.0), nan, nan, bits(-0.0), nan]
    );
}

#[test]
fn approximations_are_as_near_as_hardware_promises() {
    let xs: Vec<f32> = (1..=32).map(|i| i as f32 * 0.31).collect();
    let lanes: Vec<Lane> = xs
        .iter()
        .map(|x| {
            [
                w(x.to_bits()),
                w(1.7_f32.to_bits()),
                f64::from(*x).to_bits(),
            ]
        })
        .collect();
    for (op, oracle) in [
        ("rcp.approx.f32 %f9, %f1;", (|x| 1.0 / x) as fn(f64) -> f64),
        ("rsqrt.approx.ftz.f32 %f9, %f1;", |x| 1.0 / x.sqrt()),
        ("sqrt.approx.f32 %f9, %f1;", f64::sqrt),
        ("ex2.approx.ftz.f32 %f9, %f1;", f64::exp2),
        ("lg2.approx.f32 %f9, %f1;", f64::log2),
        ("sin.approx.f32 %f9, %f1;", f64::sin),
        ("cos.approx.f32 %f9, %f1;", f64::cos),
        ("tanh.approx.f32 %f9, %f1;", f64::tanh),
        ("div.full.f32 %f9, %f1, %f2;", |x| x / f64::from(1.7_f32)),
    ] {
        for (x, found) in xs.iter().zip(run(op, 'f', &lanes)) {
            let (found, expected) = (
                f64::from(f32::from_bits(found as u32)),
                oracle(f64::from(*x)),
            );
            assert!(
                (found - expected).abs() <= 1.2e-7 * expected.abs().max(1e-2),
                "{op} of {x}: {found}, not {expected}"
            );
        }
    }
    for found in run("rcp.approx.ftz.f64 %d9, %d3;", 'd', &lanes) {
        assert_eq!(
            found as u32, 0,
            "doubles are approximated in their upper half"
        );
    }
}

#[test]
fn values_are_taken_apart_and_put_together() {
    let lanes = [[0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00, 0]];
    let one = |op, result| run(op, result, &lanes)[0];
    assert_eq!(
        one("mov.b64 {%r4, %r5}, %rd1; mov.b64 %rd9, {%r5, %r4};", 'D'),
        0x5566_7788_1122_3344
    );
    assert_eq!(
        one(
            "mov.b64 {%h4, %h5, %h6, %h7}, %rd1; mov.b64 %rd9, {%h7, %h6, %h5, %h4};",
            'D'
        ),
        0x7788_5566_3344_1122
    );
    assert_eq!(
        one("mov.b32 {%h4, _}, %r1; mov.b32 %r9, {%h4, %h2};", 'r'),
        0xff00_7788
    );
    assert_eq!(one("mov.f32 %f9, 0f3F800000;", 'f'), 0x3f80_0000);
    assert_eq!(one("mov.f64 %d9, 1.5;", 'd'), 1.5_f64.to_bits());
    assert_eq!(one("mov.b32 %r9, 0f40000000;", 'r'), 0x4000_0000);
    assert_eq!(one("mov.pred %p9, 1;", 'p'), 1);
    assert_eq!(one("mov.u32 %r9, -1;", 'r'), 0xffff_ffff);
    assert_eq!(one("mov.u32 %r9, WARP_SZ;", 'r'), 32);
}

#[test]
fn special_registers_say_where_a_thread_is() {
    let lanes = vec![[0; 3]; 96];
    let all = |register: &str| run(&format!("mov.u32 %r9, {register};"), 'r', &lanes);
    for (register, expected) in [
        ("%tid.x", (|t| t) as fn(u64) -> u64),
        ("%tid.y", |_| 0),
        ("%ntid.x", |_| 96),
        ("%nctaid.x", |_| 1),
        ("%ctaid.z", |_| 0),
        ("%laneid", |t| t % 32),
        ("%warpid", |t| t / 32),
        ("%nwarpid", |_| 3),
        ("%lanemask_eq", |t| 1 << (t % 32)),
        ("%lanemask_lt", |t| (1 << (t % 32)) - 1),
        ("%lanemask_le", |t| (2 << (t % 32)) - 1),
        ("%lanemask_gt", |t| 0xffff_ffff & !((2 << (t % 32)) - 1)),
        ("%lanemask_ge", |t| 0xffff_ffff & !((1 << (t % 32)) - 1)),
    ] {
        assert_eq!(
            all(register),
            (0..96).map(expected).collect::<Vec<_>>(),
            "{register}"
        );
    }
}

#[test]
fn opcodes_and_modifiers_that_are_not_emulated_are_named_when_the_module_is_loaded() {
    for (op, named) in [
        (
            "wmma.load.a.sync.aligned.row.m16n16k16.f16 {%r1}, [%rd1];",
            "wmma",
        ),
        ("add.rn.ftz.f16 %h1, %h2, %h3;", "add.rn.ftz.f16"),
        (
            "cvt.rn.satfinite.f32.s32 %f1, %r1;",
            "cvt.rn.satfinite.f32.s32",
        ),
        ("ld.global.mmio.u32 %r1, [%rd1];", "ld.global.mmio.u32"),
        ("shfl.up.b32 %r1, %r2, 1, 0;", "shfl.up.b32"),
        ("cp.async.wait_all;", "cp.async.wait_all"),
        ("call vprintf;", "vprintf"),
    ] {
        let error = module(op).map(|_| ()).expect_err("it is not emulated");
        assert!(error.message.contains(named), "{op}: {error}");
        assert_eq!(error.line, crate::rig::BODY_LINE);
    }
}

#[test]
fn types_that_an_opcode_does_not_have_are_refused_as_ptxas_refuses_them() {
    for op in [
        "and.s32 %r1, %r2, %r3;",
        "shl.u32 %r1, %r2, 1;",
        "not.u32 %r1, %r2;",
        "popc.u32 %r1, %r2;",
        "bfind.b32 %r1, %r2;",
        "bfe.b32 %r1, %r2, 1, 2;",
        "add.b32 %r1, %r2, %r3;",
        "min.b32 %r1, %r2, %r3;",
        "div.b32 %r1, %r2, %r3;",
        "cvt.u32.b32 %r1, %r2;",
        "setp.lt.b32 %p1, %r1, %r2;",
        "setp.lo.s32 %p1, %r1, %r2;",
        "add.s32 %r1, %tid.x, 1;",
        "add.s32 %r1, %f1, 1;",
        "mov.u32 %r1, 0f3F800000;",
        "st.global.u32 [%rd1], 0f3F800000;",
        "mov.f32 %f1, 1;",
        "mad.wide.u32 %rd1, %r1, %r2, %r3;",
        "ld.param.nc.u64 %rd1, [out];",
        "ld.global.u32 %r1, [%r2];",
        "@%r1 mov.u32 %r2, 1;",
        "mov.u32 %r1, %r2, %r3;",
        "bra %r1;",
    ] {
        let error = module(op).map(|_| ()).expect_err(op);
        assert_eq!(
            error.kind,
            transload_ptx::PtxErrorKind::Syntax,
            "{op}: {error}"
        );
    }
    for op in [
        "cvt.u64.u32 %rd1, %tid.x;",
        "and.b32 %r1, %r2, 0f3F800000;",
        "mov.b64 %rd1, 1.5;",
        "add.f32 %r1, %r2, %r3;",
        "shr.b32 %r1, %r2, 1;",
        "mov.f32 %f1, 0d3FF0000000000000;",
        ".shared .u32 s; ld.u32 %r1, [s];",
    ] {
        module(op).unwrap_or_else(|error| panic!("{op}: {error}"));
    }
}
