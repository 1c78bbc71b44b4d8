//! Several hosts, whose cables are pulled. What this machine lacks for that ([`common::network`]) is said, and the test skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::thread;
use std::time::Duration;

use common::network::{Cluster, HOSTS, Network};
use common::{Background, Sandbox, wait_until};

const TCP: &[&str] = &["--transport", "tcp"];
const UCX: &[&str] = &["--transport", "ucx"];
/// When a silent worker counts as lost.
const GIVEN_UP: &str = "4s";
/// Workers that notice early that another is not reached.
const IMPATIENT: &[&str] = &[
    "--tcp-connect-timeout",
    "1s",
    "--tcp-stall-timeout",
    "2s",
    "--ucx-connect-timeout",
    "1s",
    "--ucx-stall-timeout",
    "2s",
];

fn assert_answered(client: Background, answer: &str) {
    let said = client.finish();
    assert_eq!((said.code, said.out.as_str()), (0, answer), "{}", said.err);
}

/// Whether UCX can be used, and has nothing but our cables; prints a reason where not.
fn has_ucx() -> bool {
    if has_rdma() {
        println!("skipped: UCX would not need our cables, but use this machine's RDMA");
        return false;
    }
    let bench = ["bench", "transport", "--transport", "ucx", "--sizes", "8"];
    let said = Sandbox::new().run(&[&bench[..], &["--fetches", "3"]].concat());
    if said.code != 0 {
        println!("skipped: no UCX on this machine: {}", said.err.trim());
    }
    said.code == 0
}

fn has_rdma() -> bool {
    let devices = fs::read_dir("/sys/class/infiniband");
    devices.is_ok_and(|mut devices| devices.next().is_some())
}

fn assert_links(cluster: &Cluster, expected: &str) {
    // It is told with the next heartbeat.
    wait_until("what crossed a cable is told", || {
        let links = cluster.links();
        !links.is_empty() && links.iter().all(|it| it.starts_with(expected))
    });
}

fn pull_for_ten_seconds(worker: &[&str]) {
    let Some(network) = Network::lay() else {
        return;
    };
    // Longer than the cable is out: nothing is given up.
    let cluster = Cluster::start(network, &["--worker-timeout", "60s"], worker);
    let (mut client, answer) = cluster.begin_on(1);
    wait_until("host 3 is amid work", || cluster.is_amid_work(3));
    cluster.network.pull_cable(3);
    thread::sleep(Duration::from_secs(10));
    assert!(!client.has_ended(), "nobody else has what host 3 made");
    cluster.network.plug_cable_in(3);
    assert_answered(client, &answer);
    assert_eq!(cluster.names().len(), HOSTS);
}

fn pull_for_ever(worker: &[&str]) {
    let Some(network) = Network::lay() else {
        return;
    };
    let cluster = Cluster::start(network, &["--worker-timeout", GIVEN_UP], worker);
    let (client, answer) = cluster.begin_on(1);
    wait_until("host 3 is amid work", || cluster.is_amid_work(3));
    cluster.network.pull_cable(3);
    assert_answered(client, &answer);
    assert_eq!(cluster.names(), ["host-1", "host-2"]);
}

/// Hosts 2 and 3 reach the scheduler, but not each other.
fn part_two(worker: &[&str]) {
    let Some(network) = Network::lay() else {
        return;
    };
    let cluster = Cluster::start(network, &[], &[worker, IMPATIENT].concat());
    cluster.network.part([2, 3]);
    let (client, answer) = cluster.begin_on(1);
    assert_answered(client, &answer);
    assert_eq!(cluster.names().len(), HOSTS);
    // One of the two may stand aside, and nobody else.
    let info = cluster.info();
    let workers = info["workers"].as_array().unwrap().iter();
    let aside: Vec<_> = workers.filter(|it| it["aside"] == true).collect();
    assert!(aside.len() <= 1, "{aside:?}");
    assert!(aside.iter().all(|it| it["name"] != "host-1"), "{aside:?}");
}

/// Fetches from host 3 to host 1 without end, so that the cable is pulled in the middle of a partition.
fn pull_amid_a_transfer(transport: &str) {
    let Some(network) = Network::lay() else {
        return;
    };
    let sandbox = Sandbox::new();
    let bench = ["bench", "transport", "--transport", transport];
    let serve = [&bench[..], &["--serve", "10.77.0.3:8475"]].concat();
    let mut server = Background::new(network.command(&sandbox, 3, &serve));
    server.line();
    let endless = [
        "--sizes",
        "64MiB",
        "--fetches",
        "1000000",
        "--bytes",
        "1024TiB",
    ];
    let peer = ["--peer", "10.77.0.3:8475"];
    let mut fetch = network.command(&sandbox, 1, &[&bench[..], &endless, &peer].concat());
    for scheme in ["TCP", "UCX"] {
        // Longer than it takes to go on, with the system's pauses between attempts.
        fetch.env(format!("TRANSLOAD_{scheme}_STALL_TIMEOUT"), "6s");
        fetch.env(format!("TRANSLOAD_{scheme}_CONNECT_TIMEOUT"), "2s");
    }
    let fetch = Background::new(fetch);
    let flows = || {
        let some = network.received_bytes(1) + (256 << 20);
        wait_until("partitions come", || network.received_bytes(1) > some);
    };
    flows();
    network.pull_cable(3);
    thread::sleep(Duration::from_secs(1));
    network.plug_cable_in(3);
    flows();
    network.pull_cable(3);
    let said = fetch.finish();
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("10.77.0.3:8475"), "{}", said.err);
}

#[test]
fn hosts_answer_together_and_what_crossed_a_cable_is_told() {
    let Some(network) = Network::lay() else {
        return;
    };
    let cluster = Cluster::start(network, &[], &[]);
    let (client, answer) = cluster.begin_on(1);
    assert_answered(client, &answer);
    if !has_rdma() {
        // UCX would only put its own protocol over the same cable.
        assert_links(&cluster, "tcp");
        for (reason, lasting) in cluster.demotions() {
            assert!(reason.contains("is all that leads to"), "{reason}");
            assert!(lasting, "{reason}");
        }
    }
}

#[test]
fn ucx_carries_partitions_between_hosts_where_it_is_named() {
    if !has_ucx() {
        return;
    }
    let Some(network) = Network::lay() else {
        return;
    };
    let cluster = Cluster::start(network, &[], UCX);
    let (client, answer) = cluster.begin_on(2);
    assert_answered(client, &answer);
    assert_links(&cluster, "ucx");
}

#[test]
fn a_cable_pulled_for_ten_seconds_changes_no_answer() {
    pull_for_ten_seconds(TCP);
}

#[test]
fn a_cable_pulled_for_ten_seconds_changes_no_answer_over_ucx() {
    if has_ucx() {
        pull_for_ten_seconds(UCX);
    }
}

#[test]
fn a_cable_pulled_for_ever_leaves_the_work_to_the_others() {
    pull_for_ever(TCP);
}

#[test]
fn a_cable_pulled_for_ever_leaves_the_work_to_the_others_over_ucx() {
    if has_ucx() {
        pull_for_ever(UCX);
    }
}

#[test]
fn a_worker_that_comes_back_after_it_was_given_up_ends_and_changes_no_answer() {
    let Some(network) = Network::lay() else {
        return;
    };
    let mut cluster = Cluster::start(network, &["--worker-timeout", GIVEN_UP], TCP);
    let (client, answer) = cluster.begin_on(1);
    wait_until("host 3 is amid work", || cluster.is_amid_work(3));
    cluster.network.pull_cable(3);
    wait_until("host 3 is given up", || cluster.names().len() < HOSTS);
    cluster.network.plug_cable_in(3);
    let worker = cluster.take_worker(3).finish();
    assert!(worker.err.contains("this worker ends"), "{}", worker.err);
    assert_answered(client, &answer);
}

#[test]
fn what_is_on_a_host_cut_off_for_ever_ends_and_the_rest_is_free() {
    let Some(network) = Network::lay() else {
        return;
    };
    let mut cluster = Cluster::start(network, &["--worker-timeout", GIVEN_UP], TCP);
    let (client, _) = cluster.begin_on(3);
    wait_until("host 3 is amid work", || cluster.is_amid_work(3));
    cluster.network.pull_cable(3);
    let client = client.finish();
    assert_ne!(client.code, 0);
    assert!(
        client.err.contains("connection to the scheduler lost"),
        "{}",
        client.err
    );
    let worker = cluster.take_worker(3).finish();
    assert_ne!(worker.code, 0);
    assert!(worker.err.contains("this worker ends"), "{}", worker.err);
    wait_until("its work stopped", || cluster.info()["graphs_running"] == 0);
}

#[test]
fn two_hosts_that_only_others_reach_change_no_answer() {
    part_two(TCP);
}

#[test]
fn two_hosts_that_only_others_reach_change_no_answer_over_ucx() {
    if has_ucx() {
        part_two(UCX);
    }
}

#[test]
fn a_transfer_goes_on_after_a_moment_without_a_cable_and_does_not_hang_without_one() {
    pull_amid_a_transfer("tcp");
}

#[test]
fn a_transfer_over_ucx_goes_on_after_a_moment_without_a_cable_and_does_not_hang_without_one() {
    if has_ucx() {
        pull_amid_a_transfer("ucx");
    }
}

#[test]
fn cables_that_delay_and_lose_packets_change_no_answer() {
    let Some(network) = Network::lay() else {
        return;
    };
    for host in 1..=HOSTS {
        if let Err(reason) = network.spoil_cable(host, "delay 5ms loss 2%") {
            return println!("skipped: this kernel makes no bad cables: {reason}");
        }
    }
    let cluster = Cluster::start(network, &[], &[]);
    let (client, answer) = cluster.begin_on(1);
    assert_answered(client, &answer);
}
