//! Several hosts: network namespaces with a cable each, which can be pulled. Needs root, `ip`, and a kernel that has veth and bridges; what
//! is missing is said, and the test skipped.
//!
//! Workers use TCP here: the hosts share a kernel, over whose memory UCX would go on when the cable is pulled.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use common::{Background, Sandbox, finish, slow_query, wait_until};
use serde_json::Value;

const HOSTS: usize = 3;

/// Runs a command to its end; what it said where it failed.
fn run(line: &str) -> Result<(), String> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    let output = output.map_err(|error| format!("{line}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{line}: {said}"))
}

/// Hosts with a cable each to one switch. Host `n` is 10.77.0.`n`.
struct Network {
    name: String,
}

impl Network {
    /// `None`, and a printed reason, where this machine has none.
    fn lay() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let network = Self {
            name: format!("transload-{}-{number}", std::process::id()),
        };
        match network.lay_cables() {
            Ok(()) => Some(network),
            Err(reason) => {
                println!("skipped: no network of our own on this machine: {reason}");
                None
            }
        }
    }

    fn lay_cables(&self) -> Result<(), String> {
        let switch = self.host(0);
        run(&format!("ip netns add {switch}"))?;
        run(&format!("ip -n {switch} link add switch type bridge"))?;
        run(&format!("ip -n {switch} link set switch up"))?;
        for number in 1..=HOSTS {
            let host = self.host(number);
            run(&format!("ip netns add {host}"))?;
            run(&format!(
                "ip link add cable netns {host} type veth peer name port{number} netns {switch}"
            ))?;
            run(&format!(
                "ip -n {switch} link set port{number} master switch up"
            ))?;
            run(&format!(
                "ip -n {host} address add 10.77.0.{number}/24 dev cable"
            ))?;
            run(&format!("ip -n {host} link set cable up"))?;
            run(&format!("ip -n {host} link set lo up"))?;
        }
        Ok(())
    }

    /// The namespace of a host; 0 is the switch.
    fn host(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    fn set_cable(&self, number: usize, state: &str) {
        let switch = self.host(0);
        run(&format!("ip -n {switch} link set port{number} {state}")).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for number in 0..=HOSTS {
            // Some are not there where laying them failed.
            let _ = run(&format!("ip netns delete {}", self.host(number)));
        }
    }
}

/// A scheduler on host 1 and a worker on each.
struct Cluster {
    network: Network,
    sandbox: Sandbox,
    address: String,
    _processes: Vec<Background>,
}

impl Cluster {
    fn start(network: Network, scheduler: &[&str]) -> Self {
        let mut cluster = Self {
            network,
            sandbox: Sandbox::new(),
            address: String::new(),
            _processes: Vec::new(),
        };
        let listen = ["scheduler", "--host", "10.77.0.1", "--port", "0"];
        let mut scheduler = Background::new(cluster.command(1, &[&listen[..], scheduler].concat()));
        let line = scheduler.line();
        cluster.address = line.rsplit(' ').next().unwrap().to_owned();
        assert!(cluster.address.starts_with("10.77.0.1:"), "{line}");
        cluster._processes.push(scheduler);
        for host in 1..=HOSTS {
            let name = format!("host-{host}");
            let worker = [
                "worker",
                &cluster.address,
                "--transport",
                "tcp",
                "--name",
                &name,
            ];
            let worker = Background::new(cluster.command(host, &worker));
            cluster._processes.push(worker);
        }
        wait_until("all workers joined", || {
            cluster.info()["workers"].as_array().unwrap().len() == HOSTS
        });
        cluster
    }

    /// The program on a host.
    fn command(&self, host: usize, arguments: &[&str]) -> Command {
        let inner = self.sandbox.command(arguments);
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.network.host(host)])
            .arg(inner.get_program())
            .args(inner.get_args())
            .current_dir(self.sandbox.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    fn info(&self) -> Value {
        let info = self.command(1, &["cluster", "info", &self.address, "--json"]);
        let said = finish({ info }.spawn().unwrap());
        assert_eq!(said.code, 0, "{}", said.err);
        serde_json::from_str(&said.out).unwrap()
    }

    fn is_busy(&self, host: usize) -> bool {
        let name = format!("host-{host}");
        let info = self.info();
        let workers = info["workers"].as_array().unwrap();
        workers.iter().any(|worker| {
            worker["name"] == name.as_str() && !worker["running"].as_array().unwrap().is_empty()
        })
    }

    /// Begins a query that takes some seconds; its answer comes back too.
    fn begin(&self) -> (Background, String) {
        let (arguments, answer) = slow_query(&self.sandbox);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let client = self.command(
            1,
            &[&["sql", "--connect", &self.address], &arguments[..]].concat(),
        );
        (Background::new(client), answer)
    }
}

fn assert_answered(client: Background, answer: &str) {
    let said = client.finish();
    assert_eq!((said.code, said.out.as_str()), (0, answer), "{}", said.err);
}

#[test]
fn hosts_answer_together_and_what_crossed_a_cable_is_told() {
    let Some(network) = Network::lay() else {
        return;
    };
    let cluster = Cluster::start(network, &[]);
    let (client, answer) = cluster.begin();
    assert_answered(client, &answer);
    wait_until("what crossed is told", || {
        let info = cluster.info();
        let transfers = info["transfers"].as_array().unwrap();
        !transfers.is_empty() && transfers.iter().all(|it| it["transport"] == "tcp")
    });
}

#[test]
fn a_cable_pulled_for_ten_seconds_changes_no_answer() {
    let Some(network) = Network::lay() else {
        return;
    };
    // Longer than the cable is out: nothing is given up.
    let cluster = Cluster::start(network, &["--worker-timeout", "40s"]);
    let (client, answer) = cluster.begin();
    wait_until("host 3 works", || cluster.is_busy(3));
    cluster.network.set_cable(3, "down");
    thread::sleep(Duration::from_secs(10));
    cluster.network.set_cable(3, "up");
    assert_answered(client, &answer);
    assert_eq!(cluster.info()["workers"].as_array().unwrap().len(), HOSTS);
}

#[test]
fn a_cable_pulled_for_ever_leaves_the_work_to_the_others() {
    let Some(network) = Network::lay() else {
        return;
    };
    let cluster = Cluster::start(network, &["--worker-timeout", "3s"]);
    let (client, answer) = cluster.begin();
    wait_until("host 3 works", || cluster.is_busy(3));
    cluster.network.set_cable(3, "down");
    assert_answered(client, &answer);
    assert_eq!(
        cluster.info()["workers"].as_array().unwrap().len(),
        HOSTS - 1
    );
}

#[test]
fn cables_that_delay_and_lose_packets_change_no_answer() {
    let Some(network) = Network::lay() else {
        return;
    };
    for host in 1..=HOSTS {
        let host = network.host(host);
        let bad = "tc qdisc add dev cable root netem delay 5ms loss 2%";
        if let Err(reason) = run(&format!("ip netns exec {host} {bad}")) {
            return println!("skipped: this kernel makes no bad cables: {reason}");
        }
    }
    let cluster = Cluster::start(network, &[]);
    let (client, answer) = cluster.begin();
    assert_answered(client, &answer);
}
