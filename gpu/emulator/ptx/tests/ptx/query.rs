//! Kernels of a query engine as NVRTC compiles them (`data/query.ptx`), against plain Rust.

use transload_ptx::Module;

use crate::rig::{Device, launch, start};

fn module() -> Module {
    Module::parse(include_str!("data/query.ptx")).unwrap_or_else(|error| panic!("{error}"))
}

fn mix(mut k: u64) -> u64 {
    k ^= k >> 33;
    k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
    k ^= k >> 33;
    k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ k >> 33
}

fn keys(count: usize) -> Vec<i64> {
    (0..count as u64)
        .map(|i| (mix(i) % 1000) as i64 - 500)
        .collect()
}

#[test]
fn rows_are_partitioned_by_hash_whatever_the_order_of_blocks() {
    let module = module();
    let (keys, parts, grid) = (keys(5000), 7_u64, 6);
    for seed in [None, Some(1), Some(2), Some(3)] {
        let device = Device::default();
        let from = device.of(&keys);
        let histogram = device.of(&[0_u32; 42]);
        let offsets = device.of(&[0_u64; 43]);
        let (out, rows) = (device.of(&vec![0_i64; 5000]), device.of(&vec![0_u32; 5000]));
        let mut start = start(grid, 128);
        (start.shared, start.seed) = (8 * parts as u32, seed);
        let go = |name: &str, start: &_, parameters: &[u64]| {
            let kernel = module.kernel(name).expect("it is there");
            launch(kernel, start, &device, parameters)
                .unwrap_or_else(|fault| panic!("seed {seed:?}: {fault}"));
        };
        go("part_hist", &start, &[from, 5000, parts, histogram]);
        start.grid = 1;
        go(
            "excl_scan",
            &start,
            &[histogram, offsets, parts * u64::from(grid)],
        );
        start.grid = grid;
        go(
            "part_scatter",
            &start,
            &[from, 5000, parts, offsets, out, rows],
        );
        let (out, rows) = (device.read::<i64>(out), device.read::<u32>(rows));
        let mut seen = vec![false; 5000];
        for (key, row) in out.iter().zip(&rows) {
            assert_eq!(keys[*row as usize], *key);
            assert!(!std::mem::replace(&mut seen[*row as usize], true));
        }
        assert!(out.is_sorted_by_key(|key| mix(*key as u64) % parts));
    }
}

#[test]
fn a_filter_keeps_what_is_greater() {
    let module = module();
    let device = Device::default();
    let values: Vec<f64> = (0..1000).map(|i| (mix(i) % 1000) as f64 / 10.0).collect();
    let from = device.of(&values);
    let (selected, count) = (device.of(&[0_u32; 1000]), device.of(&[0_u32]));
    let threshold = 50_f64.to_bits();
    launch(
        module.kernel("filter_gt").expect("it is there"),
        &start(8, 128),
        &device,
        &[from, 1000, threshold, selected, count],
    )
    .unwrap_or_else(|fault| panic!("{fault}"));
    let count = device.read::<u32>(count)[0] as usize;
    let mut selected = device.read::<u32>(selected);
    selected.truncate(count);
    selected.sort_unstable();
    let expected: Vec<u32> = (0..1000).filter(|i| values[*i as usize] > 50.0).collect();
    assert_eq!(selected, expected);
}

#[test]
fn sums_and_counts_by_key_are_those_of_a_map() {
    let module = module();
    let device = Device::default();
    let keys = keys(3000);
    let values: Vec<f64> = (0..3000).map(|i| (mix(i) % 64) as f64).collect();
    let slots = 2048;
    let [from, value] = [device.of(&keys), device.of(&values)];
    let table = [u64::MAX, 0, 0, i64::MIN as u64].map(|empty| device.of(&vec![empty; slots]));
    let parameters = [
        from,
        value,
        3000,
        table[0],
        table[1],
        table[2],
        table[3],
        slots as u64 - 1,
    ];
    launch(
        module.kernel("hash_agg").expect("it is there"),
        &start(24, 128),
        &device,
        &parameters,
    )
    .unwrap_or_else(|fault| panic!("{fault}"));
    let mut expected = std::collections::BTreeMap::new();
    for (key, value) in keys.iter().zip(&values) {
        let (sum, count) = expected.entry(*key).or_insert((0.0, 0_u64));
        *sum += value;
        *count += 1;
    }
    // The kernel takes -1 for an empty slot.
    expected.remove(&-1);
    let (found, sums, counts) = (
        device.read::<i64>(table[0]),
        device.read::<f64>(table[1]),
        device.read::<u64>(table[2]),
    );
    let mut all: Vec<_> = (0..slots)
        .filter(|slot| found[*slot] != -1)
        .map(|slot| (found[slot], (sums[slot], counts[slot])))
        .collect();
    all.sort_unstable_by_key(|(key, _)| *key);
    assert_eq!(all, expected.into_iter().collect::<Vec<_>>());
}

#[test]
fn ranks_hashes_and_sums_are_those_of_plain_loops() {
    let module = module();
    let device = Device::default();
    let go = |name: &str, start: &_, parameters: &[u64]| {
        launch(
            module.kernel(name).expect("it is there"),
            start,
            &device,
            parameters,
        )
        .unwrap_or_else(|fault| panic!("{fault}"))
    };
    let keys: Vec<u64> = (0..512).map(mix).collect();
    let (digits, ranks) = (device.of(&[0_u32; 512]), device.of(&[0_u32; 512]));
    go(
        "radix_rank",
        &start(4, 128),
        &[device.of(&keys), 512, 4, digits, ranks],
    );
    let (digits, ranks) = (device.read::<u32>(digits), device.read::<u32>(ranks));
    for i in 0..512 {
        let digit = |i: usize| (keys[i] >> 4 & 15) as u32;
        assert_eq!(digits[i], digit(i));
        assert_eq!(
            ranks[i] as usize,
            (i / 32 * 32..i).filter(|j| digit(*j) == digit(i)).count()
        );
    }
    let words = [
        "",
        "a",
        "transload",
        "some longer words, of several lengths",
    ];
    let offsets: Vec<i32> = (0..=4).map(|n| words[..n].concat().len() as i32).collect();
    let (bytes, hashes) = (
        device.allocate(words.concat().as_bytes()),
        device.of(&[0_u64; 4]),
    );
    go(
        "str_hash",
        &start(1, 32),
        &[device.of(&offsets), bytes, 4, hashes],
    );
    let expected = words.map(|word| {
        word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
        })
    });
    assert_eq!(device.read::<u64>(hashes), expected);
    let values: Vec<f64> = (0..10_000).map(f64::from).collect();
    let sum = device.of(&[0_f64]);
    go(
        "reduce_sum",
        &start(4, 256),
        &[device.of(&values), 10_000, sum],
    );
    assert_eq!(device.read::<f64>(sum), [49_995_000.0]);
}
