//! How fast kernels run. Not a test of anything: `cargo test --release -p transload-ptx -- --ignored --nocapture speed`.

use std::time::Instant;

use transload_ptx::Module;

use crate::rig::{Device, launch, start};

#[test]
#[ignore = "measures, and asserts nothing"]
fn speed() {
    let module =
        Module::parse(include_str!("data/query.ptx")).unwrap_or_else(|error| panic!("{error}"));
    let device = Device::default();
    let keys: Vec<u64> = (0..1_000_000).collect();
    let from = device.of(&keys);
    let histogram = device.of(&vec![0_u32; 64 * 16]);
    let values: Vec<f64> = (0..1_000_000).map(f64::from).collect();
    let (doubles, sum) = (device.of(&values), device.of(&[0_f64]));
    let mut start = start(64, 256);
    start.shared = 64;
    for (name, parameters) in [
        ("part_hist", vec![from, 1_000_000, 16, histogram]),
        ("reduce_sum", vec![doubles, 1_000_000, sum]),
    ] {
        let mut rates: Vec<f64> = (0..5)
            .map(|_| {
                let begin = Instant::now();
                let counters = launch(
                    module.kernel(name).expect("it is there"),
                    &start,
                    &device,
                    &parameters,
                )
                .unwrap_or_else(|fault| panic!("{fault}"));
                counters.thread_instructions as f64 / begin.elapsed().as_secs_f64() / 1e6
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        println!(
            "{name}: {:.0} million thread instructions per second (median of 5: {rates:.0?})",
            rates[2]
        );
    }
}
