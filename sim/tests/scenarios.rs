//! One kind of trouble at a time, in many seeds, with what must come of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use transload_protocol::Time;
use transload_sim::{Failure, Scenario, Simulation};

const SEEDS: u64 = 25;

/// Counts over many seeds of one kind of scenario.
struct Outcome(BTreeMap<&'static str, u64>);

impl Outcome {
    fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

fn run(change: impl Fn(&mut Scenario)) -> Outcome {
    let mut counts = BTreeMap::new();
    for seed in 0..SEEDS {
        let mut scenario = Scenario::calm(seed);
        change(&mut scenario);
        match Simulation::play(scenario) {
            Ok(report) => {
                for (name, count) in report.counts {
                    *counts.entry(name).or_insert(0) += count;
                }
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    Outcome(counts)
}

#[test]
fn a_calm_cluster_finishes_every_graph_at_once() {
    let outcome = run(|_| {});
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
    assert_eq!(outcome.of("outputs lost") + outcome.of("missing inputs"), 0);
}

#[test]
fn workers_that_die_cost_time_but_no_graph() {
    let outcome = run(|scenario| {
        scenario.kills = 5;
        scenario.cut_connections = 2;
        scenario.worker_deaths_per_task = 100;
        scenario.calm_after_micros = 300_000;
    });
    assert!(outcome.of("workers lost") > 2 * SEEDS);
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

#[test]
fn silent_workers_are_found_by_their_heartbeat() {
    let outcome = run(|scenario| {
        scenario.power_cuts = 2;
        scenario.worker_deaths_per_task = 100;
        scenario.calm_after_micros = 300_000;
    });
    assert!(outcome.of("workers dropped") >= SEEDS);
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

#[test]
fn workers_that_leave_in_good_order_are_no_deaths() {
    let outcome = run(|scenario| {
        scenario.departures = 3;
        scenario.worker_deaths_per_task = 1;
        scenario.calm_after_micros = 300_000;
    });
    assert!(outcome.of("departures") > SEEDS);
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

#[test]
fn outputs_lost_after_the_end_are_made_again() {
    let outcome = run(|scenario| {
        scenario.kills = 3;
        scenario.hold_micros = 2_000_000;
        scenario.stream_per_mille = 0;
        scenario.worker_deaths_per_task = 100;
    });
    assert!(outcome.of("outputs lost") > SEEDS);
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

#[test]
fn a_task_that_kills_its_workers_is_given_up() {
    let outcome = run(|scenario| {
        scenario.task_deadly_per_mille = 1_000;
        scenario.worker_deaths_per_task = 1;
    });
    assert!(outcome.of("workers killed by a task") >= SEEDS);
    assert_eq!(outcome.of("graphs failed"), outcome.of("graphs submitted"));
}

#[test]
fn failures_that_time_may_cure_are_retried() {
    let outcome = run(|scenario| {
        scenario.task_flaky_per_mille = 300;
        scenario.retries = 3;
    });
    assert!(outcome.of("task failures") > outcome.of("graphs failed"));
    assert!(outcome.of("graphs finished") > 0 && outcome.of("graphs failed") > 0);
}

#[test]
fn memory_for_two_partitions_is_enough_for_any_graph() {
    let outcome = run(|scenario| {
        scenario.memory_bytes = 2 * scenario.partition_bytes;
        scenario.tasks_per_layer = 12;
    });
    assert!(outcome.of("spills") > 10 * SEEDS);
    assert!(outcome.of("loads") > SEEDS);
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

/// Layers of which some work on devices that hold the inputs of one task, beside page-locked memory for one partition.
fn on_devices(scenario: &mut Scenario) {
    scenario.gpus = true;
    scenario.device_per_mille = 700;
    // No task reads more than three layers, and none has more tasks or outputs than six.
    scenario.device_bytes = 3 * 6 * scenario.partition_bytes;
    scenario.pinned_bytes = scenario.partition_bytes;
    scenario.clients = 2;
}

#[test]
fn a_device_for_the_inputs_of_one_task_is_enough_for_any_graph() {
    let outcome = run(|scenario| {
        on_devices(scenario);
        scenario.workers = 1;
        scenario.layers = 8;
        scenario.layer_kept_per_mille = 1_000;
        scenario.hold_micros = 2_000_000;
    });
    assert!(outcome.of("copies from devices") > SEEDS, "{:?}", outcome.0);
    assert!(outcome.of("copies to devices") > 0, "{:?}", outcome.0);
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

#[test]
fn with_direct_storage_a_device_needs_no_page_locked_memory() {
    let outcome = run(|scenario| {
        on_devices(scenario);
        scenario.direct_storage = true;
        scenario.pinned_bytes = 0;
        scenario.layers = 8;
        scenario.layer_kept_per_mille = 1_000;
        scenario.hold_micros = 2_000_000;
    });
    let moved = outcome.of("moves between devices and disk");
    assert!(moved > SEEDS, "{:?}", outcome.0);
    assert_eq!(outcome.of("copies from devices"), 0, "{:?}", outcome.0);
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

#[test]
fn workers_without_a_gpu_work_beside_those_that_have_one_and_read_what_these_make() {
    let outcome = run(|scenario| {
        on_devices(scenario);
        scenario.device_per_mille = 300;
        scenario.workers = 5;
        scenario.worker_has_gpu_per_mille = 300;
    });
    let (all, with) = (
        outcome.of("workers started"),
        outcome.of("workers with devices"),
    );
    assert!(SEEDS < with && with < all / 2, "{with} of {all}");
    assert!(outcome.of("tasks started on devices") > SEEDS);
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

#[test]
fn devices_that_refuse_partitions_cost_time_but_no_graph() {
    let outcome = run(|scenario| {
        on_devices(scenario);
        scenario.workers = 2;
        scenario.layers = 8;
        scenario.copy_fails_per_mille = 100;
        scenario.fetch_strays_per_mille = 300;
        scenario.layer_kept_per_mille = 1_000;
    });
    assert!(outcome.of("failed copies") > 0, "{:?}", outcome.0);
    assert!(outcome.of("fetches that strayed") > SEEDS);
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

#[test]
fn tasks_that_run_out_of_device_memory_pass_on_an_emptied_device_or_in_halves_or_fail() {
    let outcome = run(|scenario| {
        on_devices(scenario);
        scenario.task_hungry_per_mille = 50;
    });
    let (emptied, halved) = (
        outcome.of("tasks started on emptied devices"),
        outcome.of("tasks started in halves"),
    );
    assert!(0 < halved && halved < emptied, "{halved} of {emptied}");
    assert!(outcome.of("graphs finished") > 0 && outcome.of("graphs failed") > 0);
}

#[test]
fn a_full_disk_is_the_end_of_tasks_but_not_of_workers() {
    let outcome = run(|scenario| {
        scenario.memory_bytes = 2 * scenario.partition_bytes;
        scenario.disk_capacity_bytes = 3 * scenario.partition_bytes;
        scenario.tasks_per_layer = 12;
    });
    assert!(outcome.of("graphs failed") > 0);
    assert_eq!(
        outcome.of("workers dropped") + outcome.of("workers lost"),
        0
    );
}

#[test]
fn a_disk_that_forgets_costs_time_but_no_graph() {
    let outcome = run(|scenario| {
        scenario.memory_bytes = 2 * scenario.partition_bytes;
        scenario.load_fails_per_mille = 30;
        scenario.spill_fails_per_mille = 30;
        scenario.tasks_per_layer = 10;
    });
    assert!(outcome.of("failed loads") > 0 && outcome.of("failed spills") > 0);
    assert!(outcome.of("graphs finished") > 0);
}

#[test]
fn fetches_that_fail_are_tried_again_or_their_source_is_made_again() {
    let outcome = run(|scenario| {
        scenario.workers = 5;
        scenario.fetch_fails_per_mille = 300;
        scenario.tasks_per_layer = 12;
    });
    assert!(outcome.of("missing inputs") > 0);
    assert!(outcome.of("graphs finished") > 0);
}

#[test]
fn workers_that_never_reach_each_other_cost_time_but_no_graph() {
    for apart_per_mille in [100, 300, 1_000] {
        let outcome = run(|scenario| {
            scenario.workers = 5;
            scenario.apart_per_mille = apart_per_mille;
            scenario.tasks_per_layer = 12;
        });
        assert!(outcome.of("inputs out of reach") > 0);
        assert_eq!(
            outcome.of("graphs finished"),
            outcome.of("graphs submitted")
        );
    }
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let outcome = run(|scenario| {
        scenario.clients = 3;
        scenario.vanish_per_mille = 1_000;
        scenario.calm_after_micros = 200_000;
    });
    assert!(outcome.of("clients vanished") > SEEDS);
}

#[test]
fn cancelled_graphs_leave_nothing_behind() {
    let outcome = run(|scenario| {
        scenario.cancel_per_mille = 1_000;
        scenario.calm_after_micros = 100_000;
        scenario.tasks_per_layer = 16;
    });
    assert!(outcome.of("graphs cancelled") > SEEDS / 2);
    assert!(outcome.of("tasks stopped") > 0);
}

#[test]
fn what_is_released_early_need_not_be_made() {
    let outcome = run(|scenario| {
        scenario.release_early_per_mille = 1_000;
        scenario.stream_per_mille = 0;
        scenario.calm_after_micros = 100_000;
    });
    assert!(outcome.of("early releases") > 0);
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

#[test]
fn a_scheduler_that_stalls_may_lose_workers_but_no_graph() {
    let outcome = run(|scenario| {
        scenario.scheduler_stalls = 2;
        scenario.stall_micros = 6_000_000;
        scenario.worker_deaths_per_task = 100;
    });
    assert!(outcome.of("scheduler stalls") == 2 * SEEDS);
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

#[test]
fn a_worker_that_is_cut_off_again_and_again_comes_back_once_each_time() {
    let outcome = run(|scenario| {
        scenario.workers = 1;
        scenario.cut_connections = 12;
        scenario.scheduler_crashes = 2;
        scenario.scheduler_stalls = 2;
        scenario.stall_micros = 300_000;
        scenario.worker_deaths_per_task = 100;
    });
    assert!(outcome.of("workers cut off") > SEEDS);
    assert!(outcome.of("workers that came back") <= outcome.of("workers cut off"));
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

#[test]
fn tasks_that_fit_no_worker_are_named() {
    let outcome = run(|scenario| {
        scenario.slots_per_worker = (1, 1);
        scenario.slots_per_task = 4;
    });
    assert!(outcome.of("graphs failed") > SEEDS / 2);
}

#[test]
fn a_shutdown_ends_every_worker() {
    let outcome = run(|scenario| {
        scenario.clients = 2;
        scenario.shutdown_per_mille = 1_000;
    });
    assert_eq!(outcome.of("shutdowns"), SEEDS);
}

#[test]
fn a_failure_says_how_to_see_it_again() {
    let failure = Failure {
        seed: 4_711,
        step: 12,
        at: Time::from_micros(34),
        reason: "something is wrong".to_owned(),
        tail: vec!["the last event".to_owned()],
    };
    let text = failure.to_string();
    assert!(text.starts_with("the last event"), "{text}");
    assert!(text.contains("seed 4711 failed at step 12"), "{text}");
    assert!(text.contains("--seed 4711 --trace"), "{text}");
}

#[test]
fn graphs_within_graphs_end_on_one_slot_with_memory_for_hardly_one_task() {
    let outcome = run(|scenario| {
        scenario.workers = 1;
        scenario.slots_per_worker = (1, 1);
        scenario.queue_per_slot = 0;
        scenario.memory_bytes = 2_500;
        scenario.clients = 2;
        scenario.layers = 2;
        scenario.tasks_per_layer = 3;
        scenario.task_waits_per_mille = 1_000;
        scenario.task_submits_per_mille = 1_000;
        scenario.graphs_within_tasks = 20;
    });
    assert!(outcome.of("graphs within tasks") > 10 * SEEDS);
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

#[test]
fn what_a_waiting_task_holds_up_makes_room_for_what_it_waits_for() {
    let outcome = run(|scenario| {
        scenario.workers = 2;
        scenario.slots_per_worker = (1, 1);
        scenario.fetch_fails_per_mille = 400;
        scenario.fetch_attempts = 1;
        scenario.task_waits_per_mille = 700;
        scenario.task_submits_per_mille = 700;
        scenario.graphs_within_tasks = 4;
        scenario.gang_per_mille = 200;
        scenario.layer_kept_per_mille = 1_000;
    });
    assert!(outcome.of("tasks held up") > 0, "{:?}", outcome.0);
    assert!(outcome.of("graphs finished") > 2 * SEEDS);
}

#[test]
fn workers_that_die_with_waiting_tasks_take_their_graphs_with_them_and_no_other() {
    let outcome = run(|scenario| {
        scenario.kills = 4;
        scenario.calm_after_micros = 300_000;
        scenario.worker_deaths_per_task = 100;
        scenario.task_waits_per_mille = 500;
        scenario.task_submits_per_mille = 1_000;
        scenario.graphs_within_tasks = 30;
    });
    let cut_short = outcome.of("graphs within tasks cut short");
    assert!(cut_short > 0);
    let unfinished = outcome.of("graphs submitted") - outcome.of("graphs finished");
    assert!(unfinished <= cut_short, "{unfinished} of {cut_short}");
}

#[test]
fn tasks_that_take_longer_than_their_siblings_are_told_of_while_workers_die() {
    let outcome = run(|scenario| {
        scenario.heartbeat_ms = 100;
        scenario.task_micros = 500_000;
        scenario.tasks_per_layer = 12;
        scenario.kills = 2;
        scenario.worker_deaths_per_task = 100;
        scenario.calm_after_micros = 300_000;
    });
    let (told, started) = (outcome.of("stragglers told"), outcome.of("tasks started"));
    assert!(told > SEEDS && told < started, "{told} of {started}");
    assert_eq!(
        outcome.of("graphs finished"),
        outcome.of("graphs submitted")
    );
}

#[test]
fn what_others_hold_of_a_graph_outlives_its_owner_and_nothing_is_left_in_the_end() {
    let outcome = run(|scenario| {
        scenario.clients = 3;
        scenario.graphs_per_client = 3;
        scenario.share_per_mille = 1_000;
        scenario.import_per_mille = 300;
        scenario.vanish_per_mille = 300;
        scenario.layer_kept_per_mille = 1_000;
        scenario.hold_micros = 300_000;
        scenario.kills = 2;
        scenario.worker_deaths_per_task = 100;
    });
    assert!(
        outcome.of("outputs of others read") > SEEDS,
        "{:?}",
        outcome.0
    );
    assert!(outcome.of("graphs left") > SEEDS / 2, "{:?}", outcome.0);
    assert_eq!(outcome.of("graphs failed"), 0);
}

#[test]
fn names_and_holds_outlive_their_scheduler() {
    let outcome = run(|scenario| {
        scenario.clients = 3;
        scenario.share_per_mille = 1_000;
        scenario.scheduler_crashes = 3;
        scenario.layer_kept_per_mille = 1_000;
    });
    assert!(outcome.of("scheduler crashes") > SEEDS);
    assert!(outcome.of("names given") > SEEDS);
    assert!(outcome.of("outputs of others read") > SEEDS / 2);
}

#[test]
fn what_was_scattered_is_lost_with_its_worker_once_its_client_keeps_no_copy() {
    let outcome = run(|scenario| {
        scenario.clients = 3;
        scenario.share_per_mille = 1_000;
        scenario.scatter_per_mille = 1_000;
        scenario.kills = 4;
        scenario.hold_micros = 1_000_000;
        scenario.worker_deaths_per_task = 100;
    });
    assert!(outcome.of("graphs scattered") > SEEDS);
    assert!(outcome.of("copies given up") > 0);
    assert!(outcome.of("graphs failed") + outcome.of("holds ended") > 0);
}
