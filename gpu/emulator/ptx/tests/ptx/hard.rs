//! What NVRTC makes of ordinary CUDA (`data/hard.cu`), against plain Rust.

use transload_ptx::{Counters, Fault, FaultKind, Module};

use crate::rig::{Device, Start, Word, launch, start};

struct Rig {
    module: Module,
    device: Device,
    start: Start,
}

fn rig(threads: u32) -> Rig {
    let module =
        Module::parse(include_str!("data/hard.ptx")).unwrap_or_else(|error| panic!("{error}"));
    let device = Device::default();
    let mut start = start(1, threads);
    for global in module.globals() {
        let mut bytes = global.initial.clone();
        bytes.resize(global.bytes as usize, 0);
        for relocation in &global.relocations {
            let at = relocation.offset as usize;
            let address = start.globals[&relocation.name].wrapping_add_signed(relocation.addend);
            bytes[at..at + 8].copy_from_slice(&address.to_le_bytes());
        }
        start
            .globals
            .insert(global.name.clone(), device.allocate(&bytes));
    }
    Rig {
        module,
        device,
        start,
    }
}

impl Rig {
    fn try_go(&self, name: &str, parameters: &[u64]) -> Result<Counters, Fault> {
        launch(
            self.module.kernel(name).expect("it is there"),
            &self.start,
            &self.device,
            parameters,
        )
    }

    fn go(&self, name: &str, parameters: &[u64]) {
        self.try_go(name, parameters)
            .unwrap_or_else(|fault| panic!("{fault}"));
    }

    fn zeros<T: Word + Default>(&self, count: usize) -> u64 {
        self.device.of(&vec![T::default(); count])
    }
}

fn near(found: f64, expected: f64, tolerance: f64, what: &str) {
    let close = (found - expected).abs() <= tolerance * expected.abs().max(1e-300);
    assert!(
        close || found == expected || found.is_nan() && expected.is_nan(),
        "{what}: {found:e}, not {expected:e}"
    );
}

fn mix(mut k: u64) -> u64 {
    k = (k ^ k >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    k = (k ^ k >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ k >> 33
}

#[test]
fn vectors_are_loaded_and_stored_in_all_widths() {
    let rig = rig(32);
    let ints: Vec<i32> = (0..128).collect();
    let doubles: Vec<f64> = (0..64).map(f64::from).collect();
    let shorts: Vec<i16> = (0..128).collect();
    let bytes: Vec<u8> = (0..128).collect();
    let (out, d, s, b) = (
        rig.zeros::<i32>(128),
        rig.device.of(&doubles),
        rig.device.of(&shorts),
        rig.device.of(&bytes),
    );
    rig.go("copy_vectors", &[out, rig.device.of(&ints), d, s, b, 32]);
    let (out, d, s, b) = (
        rig.device.read::<i32>(out),
        rig.device.read::<f64>(d),
        rig.device.read::<i16>(s),
        rig.device.read::<u8>(b),
    );
    for t in 0..32 {
        let (i, j) = (4 * t as i32, 4 * t as i16);
        assert_eq!(out[4 * t..4 * t + 4], [i + i + 3, i + 1, i + 2, i + 3]);
        assert_eq!(d[2 * t..2 * t + 2], [2.0 * t as f64 + 1.0, 2.0 * t as f64]);
        assert_eq!(s[4 * t..4 * t + 4], [-(j + 1), j + 1, j + 2, j + 3]);
        assert_eq!(b[4 * t], (4 * t as u8) ^ (4 * t as u8 + 3));
    }
}

#[test]
fn functions_of_doubles_are_those_of_the_host() {
    let rig = rig(64);
    let xs: Vec<f64> = (0..64)
        .map(|i| f64::from(i) * 0.37 + 0.01)
        .chain([1e5, 1e-5])
        .take(64)
        .collect();
    let out = rig.zeros::<f64>(64 * 16);
    rig.go("math", &[out, rig.device.of(&xs), 64]);
    for (x, found) in xs
        .iter()
        .copied()
        .zip(rig.device.read::<f64>(out).chunks(16))
    {
        let expected = [
            x.sqrt(),
            x.exp(),
            x.ln(),
            x.powf(1.5),
            x.sin(),
            x.cos(),
            x / 3.0,
            1.0 / x,
            x.floor() + x.ceil() + x.trunc() + x.round_ties_even(),
            x % 0.7,
            x.cbrt(),
            (x - 2.0).abs(),
            x.min(1.5) + x.max(2.5),
            x.tanh(),
            1.0 / x.sqrt(),
            x.round(),
        ];
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            let exact = matches!(index, 0 | 6..=9 | 11 | 12 | 15);
            near(
                *found,
                expected,
                if exact { 0.0 } else { 1e-14 },
                &format!("function {index} of {x}"),
            );
        }
    }
}

#[test]
fn functions_of_singles_are_those_of_the_host() {
    let rig = rig(64);
    let xs: Vec<f32> = (0..64).map(|i| i as f32 * 0.37 + 0.01).collect();
    let out = rig.zeros::<f32>(64 * 16);
    rig.go("math_single", &[out, rig.device.of(&xs), 64]);
    for (x, found) in xs
        .iter()
        .copied()
        .zip(rig.device.read::<f32>(out).chunks(16))
    {
        let expected = [
            x.sqrt(),
            x.exp(),
            x.ln(),
            x.powf(1.5),
            x.sin(),
            x.cos(),
            x / 3.0,
            1.0 / x,
            x.floor() + x.ceil() + x.trunc() + x.round_ties_even(),
            x % 0.7,
            x.cbrt(),
            (x - 2.0).abs(),
            x.min(1.5) + x.max(2.5),
            x.tanh(),
            1.0 / x.sqrt(),
            x.round(),
        ];
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            let exact = matches!(index, 0 | 6..=9 | 11 | 12 | 15);
            near(
                f64::from(*found),
                f64::from(expected),
                if exact { 0.0 } else { 1e-6 },
                &format!("function {index} of {x}"),
            );
        }
    }
}

#[test]
fn decimals_of_128_bits_are_those_of_rust() {
    let rig = rig(64);
    let wide = |i: u64| (i128::from(mix(i) as i64) << 64 | i128::from(mix(i + 1000))) >> (i % 90);
    let (a, b): (Vec<i128>, Vec<i128>) = (0..64)
        .map(|i| (wide(i), wide(i + 500) >> (i % 50)))
        .unzip();
    let halves = |all: &[i128]| {
        all.iter()
            .flat_map(|x| [*x as u64, (*x >> 64) as u64])
            .collect::<Vec<_>>()
    };
    let out = rig.zeros::<u64>(64 * 16);
    rig.go(
        "decimals",
        &[
            out,
            rig.device.of(&halves(&a)),
            rig.device.of(&halves(&b)),
            64,
        ],
    );
    let found: Vec<u128> = rig
        .device
        .read::<u64>(out)
        .chunks(2)
        .map(|half| u128::from(half[1]) << 64 | u128::from(half[0]))
        .collect();
    for (t, found) in found.chunks(8).enumerate() {
        let (x, y) = (a[t], b[t]);
        let expected = [
            x.wrapping_add(y) as u128,
            x.wrapping_sub(y) as u128,
            x.wrapping_mul(y) as u128,
            x.checked_div(y).unwrap_or(0) as u128,
            x.checked_rem(y).unwrap_or(0) as u128,
            u128::from(x < y),
            (x >> (t & 127)) as u128,
            (x as u128) << (t & 127),
        ];
        assert_eq!(found, expected, "{x} and {y}");
    }
}

#[test]
fn local_arrays_constants_and_variables_hold_what_they_should() {
    let rig = rig(64);
    let out = rig.zeros::<i32>(64);
    let only: Vec<i32> = (0..32).collect();
    let mut first = rig;
    first.start.block = 32;
    let n = 5;
    first.go("local_array", &[out, n]);
    let found = first.device.read::<i32>(out);
    let mut places = [0; 32];
    for i in 0..32 {
        places[(i * n as usize) & 31] = i as i32 * 3;
    }
    for t in only {
        let factor = (t % 16 + 1) * if t % 2 == 0 { 1 } else { -1 };
        assert_eq!(found[t as usize], places[(t as usize * 7) & 31] + factor);
    }
    assert_eq!(found[32..36], [1, 20, 300, 4000]);
    assert_eq!(found[36..39], [b'n', b'w', b'h'].map(i32::from));
    assert_eq!(
        first.device.read::<i32>(first.start.globals["launches"]),
        [3 + 32]
    );
}

#[test]
fn places_of_a_local_array_that_were_never_written_are_found() {
    let mut rig = rig(32);
    rig.start.block = 32;
    let out = rig.zeros::<i32>(64);
    // Only even places are written.
    let fault = rig
        .try_go("local_array", &[out, 2])
        .expect_err("odd places hold nothing");
    assert_eq!(fault.kind, FaultKind::Uninitialised);
}

#[test]
fn functions_are_called_with_their_own_locals_and_arguments() {
    for seed in [None, Some(1), Some(2)] {
        let mut rig = rig(64);
        rig.start.seed = seed;
        let out = rig.zeros::<i64>(64 * 4);
        let n = 7_i64;
        rig.go("calls", &[out, n as u64]);
        for (t, found) in rig.device.read::<i64>(out).chunks(4).enumerate() {
            let t = t as i64;
            let factorial = (1..=(t + n) % 12).map(|i| i as i32).product::<i32>();
            let by = n + t;
            assert_eq!(
                found,
                [
                    i64::from(factorial),
                    2 * t * by + t + by,
                    n ^ by,
                    t + (n & 7)
                ],
                "seed {seed:?}"
            );
        }
    }
}

#[test]
fn a_switch_goes_where_it_should() {
    let rig = rig(32);
    let out = rig.zeros::<i32>(64);
    let n = 11_i32;
    rig.go("choose", &[out, n as u64]);
    let mut expected = [
        n,
        n * n,
        0,
        n - 7,
        99 % (n + 1),
        n << 3,
        !n,
        n.count_ones() as i32,
    ]
    .to_vec();
    expected.extend((8..32).map(|t| -t));
    assert_eq!(rig.device.read::<i32>(out)[..32], expected);
}

#[test]
fn intrinsics_of_bits_are_those_of_rust() {
    let rig = rig(64);
    let xs: Vec<u64> = (0..65).map(|i| mix(i) >> (i % 60)).collect();
    let out = rig.zeros::<u64>(64 * 20);
    rig.go("bits", &[out, rig.device.of(&xs), 64]);
    for (t, found) in rig.device.read::<u64>(out).chunks(20).enumerate() {
        let (x, y) = (xs[t], xs[t + 1]);
        let (a, b, c) = (x as u32, (x >> 32) as u32, y as u32);
        let bytes = x.to_le_bytes();
        let permuted = (0..4).fold(0_u32, |all, i| {
            all | u32::from(bytes[(c >> (4 * i) & 7) as usize]) << (8 * i)
        });
        let signed = |value: i32| value as i64 as u64;
        let first_set = |zeros: u32, width: u32| {
            if zeros == width {
                0
            } else {
                u64::from(zeros) + 1
            }
        };
        let expected = [
            u64::from(x.count_ones()),
            u64::from(x.leading_zeros()),
            x.reverse_bits(),
            first_set(x.trailing_zeros(), 64),
            u64::from(a.reverse_bits()),
            u64::from(a.leading_zeros()),
            first_set(a.trailing_zeros(), 32),
            u64::from(permuted),
            (x << (c & 31)) >> 32 & 0xffff_ffff,
            if c >= 32 {
                u64::from(b)
            } else {
                x >> c & 0xffff_ffff
            },
            (u64::from(a) * u64::from(b)) >> 32,
            ((u128::from(x) * u128::from(y)) >> 64) as u64,
            ((i128::from(x as i64) * i128::from(y as i64)) >> 64) as u64,
            signed(((i64::from(a as i32) * i64::from(b as i32)) >> 32) as i32),
            u64::from((a as i32).abs_diff(b as i32).wrapping_add(c)),
            u64::from((a & b) ^ (c | !a)),
            signed(((i64::from(a as i32) + i64::from(b as i32)) >> 1) as i32),
            ((x as i64) >> (c & 63)) as u64,
            x << (c & 63),
            u64::from(a.abs_diff(b).wrapping_add(c)),
        ];
        assert_eq!(found, expected, "{x:#x} {y:#x}");
    }
}

#[test]
fn narrow_integers_are_widened_by_their_sign() {
    let rig = rig(64);
    let s8: Vec<i8> = (0..64).map(|i| mix(i) as i8).collect();
    let b8: Vec<u8> = (0..64).map(|i| mix(i + 100) as u8).collect();
    let s16: Vec<i16> = (0..64).map(|i| mix(i + 200) as i16).collect();
    let b16: Vec<u16> = (0..64).map(|i| mix(i + 300) as u16).collect();
    let out = rig.zeros::<i32>(256);
    let d = &rig.device;
    rig.go(
        "narrow",
        &[out, d.of(&s8), d.of(&b8), d.of(&s16), d.of(&b16), 64],
    );
    for (t, found) in d.read::<i32>(out).chunks(4).enumerate() {
        let [a, b, c, e] = [
            i32::from(s8[t]),
            i32::from(b8[t]),
            i32::from(s16[t]),
            i32::from(b16[t]),
        ];
        assert_eq!(
            found,
            [
                a * b,
                c / (e | 1),
                a % (c | 1),
                i32::from((b + a) as u8) + i32::from(c.wrapping_mul(e) as i16)
            ]
        );
    }
}

#[test]
fn atomic_operations_add_up_whatever_the_order() {
    for seed in [None, Some(1), Some(2)] {
        let mut rig = rig(64);
        (rig.start.grid, rig.start.seed) = (4, seed);
        let n = 256;
        let d = &rig.device;
        let w = d.of(&[0_u32, 1000, 77, 0, u32::MAX, 0, 0, 0, 5, 0, 0]);
        let i = d.of(&[0_i32, i32::MIN]);
        let l = d.of(&[0_u64, 55, 0, u64::MAX, 0, 0, 0, 0]);
        let (f, g, s) = (d.of(&[0_f32]), d.of(&[0_f64]), d.of(&[0_i64, i64::MIN]));
        rig.go("atomics", &[w, i, l, f, g, s]);
        let dec = (0..n).fold(
            5_u32,
            |old, _| if old == 0 || old > 9 { 9 } else { old - 1 },
        );
        assert_eq!(
            d.read::<u32>(w),
            [
                n,
                1000_u32.wrapping_sub(2 * n),
                0,
                n - 1,
                0,
                u32::MAX,
                0,
                n % 10,
                dec,
                7,
                5
            ]
        );
        assert_eq!(d.read::<i32>(i), [-(n as i32 - 1), n as i32 - 6]);
        assert_eq!(
            d.read::<u64>(l),
            [
                u64::from(n) << 33,
                0,
                u64::from(n - 1) << 40,
                0,
                u64::MAX,
                0,
                3,
                5
            ]
        );
        assert_eq!((d.read::<f32>(f)[0], d.read::<f64>(g)[0]), (128.0, 64.0));
        assert_eq!(d.read::<i64>(s), [-255, 252]);
    }
}

#[test]
fn lanes_vote_match_shuffle_and_reduce() {
    let rig = rig(32);
    let out = rig.zeros::<u32>(32 * 16);
    rig.go("together", &[out, 9]);
    for (t, found) in rig.device.read::<u32>(out).chunks(16).enumerate() {
        let t = t as u32;
        let alike = |of: u32| {
            (0..32)
                .filter(|u| u / of == t / of)
                .fold(0, |mask, u| mask | 1 << u)
        };
        let expected = [
            0xaaaa_aaaa,
            1,
            1,
            alike(5),
            0,
            496,
            31,
            255,
            (-9_i32) as u32,
            (t ^ 5) * 3,
            if t % 8 >= 2 { t - 2 } else { t },
            if t % 16 + 3 < 16 { t + 3 } else { t },
            t / 16 * 16 + 9,
            alike(7),
            u32::MAX,
            t.saturating_sub(4),
        ];
        assert_eq!(found, expected, "lane {t}");
    }
}

#[test]
fn blocks_vote_at_barriers() {
    let rig = rig(96);
    let out = rig.zeros::<i32>(96 * 3);
    rig.go("block_votes", &[out]);
    assert!(
        rig.device
            .read::<i32>(out)
            .chunks(3)
            .all(|found| found == [32, 0, 1])
    );
}

#[test]
fn clocks_go_on_and_fences_do_no_harm() {
    let rig = rig(32);
    let mut rig = rig;
    rig.start.block = 1;
    let out = rig.zeros::<u64>(4);
    rig.go("clocks", &[out]);
    assert_eq!(rig.device.read::<u64>(out), [1, 1, 1, 0]);
}

#[test]
fn generic_addresses_lead_into_all_spaces() {
    for (which, expected) in [(0, (9, 1000)), (4, (5, 10_000)), (8, (1, 100))] {
        let rig = rig(32);
        let out = rig.device.of(&[9_i32; 64]);
        rig.go("generic", &[out, which]);
        assert_eq!(
            rig.device.read::<i32>(out)[0],
            expected.0 + expected.1,
            "{which}"
        );
    }
}

#[test]
fn conversions_saturate_and_round_as_they_say() {
    let rig = rig(16);
    let ds = [
        0.0, 1.5, -1.5, 2.5, 1e10, -1e10, 1e20, -1e20, 0.999, 65535.0, 4e9, 9.3e18, -0.0, 32768.0,
        1e300, 123.456,
    ];
    let fs = ds.map(|d: f64| d as f32);
    let out = rig.zeros::<i64>(16 * 16);
    rig.go(
        "conversions",
        &[out, rig.device.of(&ds), rig.device.of(&fs), 16],
    );
    for (t, found) in rig.device.read::<i64>(out).chunks(16).enumerate() {
        let (x, y) = (ds[t], fs[t]);
        let expected = [
            x as i64,
            x as u64 as i64,
            i64::from(x as i32),
            i64::from(x as u32),
            i64::from(x as i32 as i16),
            y as i64,
            y as u64 as i64,
            i64::from(y as i32),
            i64::from(y.round_ties_even() as i32),
            x.floor() as i64,
            f64::from(y).to_bits() as i64,
            i64::from((x as f32).to_bits() as i32),
            (x as i64 as f64).to_bits() as i64,
            i64::from((x as u64 as f32).to_bits() as i32),
            i64::from((x as i64 as f32).to_bits() as i32),
            i64::from(y.ceil() as u32),
        ];
        assert_eq!(found, expected, "{x}");
    }
}

#[test]
fn rounding_goes_where_it_is_told() {
    let rig = rig(32);
    let xs: Vec<f64> = (0..33).map(|i| mix(i) as f64 / 1e18 + 0.1).collect();
    let fs: Vec<f32> = xs.iter().map(|x| *x as f32).collect();
    let (out, outf) = (rig.zeros::<f64>(32 * 12), rig.zeros::<f32>(32 * 12));
    rig.go(
        "rounded",
        &[out, outf, rig.device.of(&xs), rig.device.of(&fs)],
    );
    let (out, outf) = (rig.device.read::<f64>(out), rig.device.read::<f32>(outf));
    for t in 0..32 {
        let (x, y, o) = (xs[t], xs[t + 1], &out[t * 12..]);
        let (u, v, p) = (f64::from(fs[t]), f64::from(fs[t + 1]), &outf[t * 12..]);
        // One step below or above the nearest, on the side that is asked for.
        let within = |found: f64, nearest: f64| {
            found == nearest || found == nearest.next_up() || found == nearest.next_down()
        };
        for (found, nearest) in [
            (o[0], x + y),
            (o[1], x + y),
            (o[2], x * y),
            (o[3], x.mul_add(y, x)),
            (o[4], x / y),
            (o[5], x.sqrt()),
            (o[6], 1.0 / x),
        ] {
            assert!(within(found, nearest), "{found:e} {nearest:e}");
        }
        assert!(o[0] <= o[1] && o[1].next_down() <= o[0]);
        // Doubles hold the exact results of singles, or more of them than the rounding needs.
        assert!(f64::from(p[0]) <= u + v && f64::from(p[0].next_up()) > u + v);
        assert!(f64::from(p[1]) >= u + v && f64::from(p[1].next_down()) < u + v);
        assert!(f64::from(p[2]) <= u * v && f64::from(p[2].next_up()) > u * v);
        assert!(f64::from(p[3]) <= u * v + u && f64::from(p[3].next_up()) > u * v + u);
        assert!(f64::from(p[4]) >= u / v && f64::from(p[4].next_down()) < u / v);
        assert!(f64::from(p[5]) <= u.sqrt() && f64::from(p[5].next_up()) > u.sqrt());
        assert!(f64::from(p[6]) <= 1.0 / u && f64::from(p[6].next_up()) > 1.0 / u);
        assert!(f64::from(p[7]) >= x && f64::from(p[7].next_down()) < x);
        assert_eq!(p[8], x as u64 as f32);
        assert_eq!(f64::from(p[9]), u.clamp(0.0, 1.0));
        assert_eq!(p[10], (x as i64 * 3) as f32);
        near(f64::from(p[11]), 1.0 / u.sqrt(), 1e-7, "reciprocal root");
    }
}

#[test]
fn traps_are_faults_with_their_line() {
    let rig = rig(32);
    rig.go("asserted", &[0]);
    for (n, text) in [(u64::from(u32::MAX), "trap;"), (6, "brkpt;")] {
        let fault = rig.try_go("asserted", &[n]).expect_err("it gives up");
        assert_eq!(fault.kind, FaultKind::Trap);
        assert!(fault.text.contains(text), "{fault}");
    }
}
