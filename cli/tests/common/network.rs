//! Hosts of one machine: network namespaces with a cable each to one switch, and a cluster on them.
//!
//! The hosts share a kernel, but no memory over which UCX would go on when a cable is pulled: each process has its own namespace
//! for that, too. Needs root, `ip`, `unshare`, and a kernel that has veth and bridges.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::{Background, Sandbox, finish, slow_query, wait_until};

/// How many there are.
pub(crate) const HOSTS: usize = 3;
/// Where the system keeps the names of network namespaces.
const NAMES: &str = "/run/netns";
const PREFIX: &str = "transload";

fn run(line: &str) -> Result<(), String> {
    output_of(line).map(drop)
}

/// Runs a command to its end; what it said, on standard error where it failed.
fn output_of(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    let output = output.map_err(|error| format!("{line}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{line}: {said}"))
}

/// Hosts with a cable each to one switch. Host `n` is 10.77.0.`n`.
pub(crate) struct Network {
    name: String,
}

impl Network {
    /// `None`, and a printed reason, where this machine has none.
    pub(crate) fn lay() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let network = Self {
            name: format!("{PREFIX}-{}-{number}", std::process::id()),
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
        run("unshare --ipc true")?;
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

    pub(crate) fn pull_cable(&self, number: usize) {
        self.set_port(number, "down");
    }

    pub(crate) fn plug_cable_in(&self, number: usize) {
        self.set_port(number, "up");
    }

    /// From now on, these reach all hosts but each other.
    pub(crate) fn part(&self, hosts: [usize; 2]) {
        for number in hosts {
            self.set_port(number, "type bridge_slave isolated on");
        }
    }

    fn set_port(&self, number: usize, how: &str) {
        let switch = self.host(0);
        run(&format!("ip -n {switch} link set port{number} {how}")).unwrap();
    }

    /// Makes the cable delay and lose packets, as `netem` describes it.
    pub(crate) fn spoil_cable(&self, number: usize, netem: &str) -> Result<(), String> {
        let host = self.host(number);
        run(&format!(
            "ip netns exec {host} tc qdisc add dev cable root netem {netem}"
        ))
    }

    /// What has come over the cable to this host so far, in bytes.
    pub(crate) fn received_bytes(&self, number: usize) -> u64 {
        let host = self.host(number);
        let counter = "cat /sys/class/net/cable/statistics/rx_bytes";
        let said = output_of(&format!("ip netns exec {host} {counter}")).unwrap();
        said.trim().parse().unwrap()
    }

    /// The program on a host.
    pub(crate) fn command(&self, sandbox: &Sandbox, host: usize, arguments: &[&str]) -> Command {
        let inner = sandbox.command(arguments);
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.host(host), "unshare", "--ipc"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .current_dir(sandbox.path(""))
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
}

impl Drop for Network {
    fn drop(&mut self) {
        for number in 0..=HOSTS {
            // Some are not there where laying them failed.
            let _ = run(&format!("ip netns delete {}", self.host(number)));
        }
    }
}

/// Removes the hosts of tests that were killed, whose process ids may come again.
fn remove_leftovers() {
    for entry in fs::read_dir(NAMES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.split('-');
        let is_ours = parts.next() == Some(PREFIX);
        let owner = parts.next().and_then(|it| it.parse::<u32>().ok());
        if is_ours && owner.is_some_and(|it| !Path::new(&format!("/proc/{it}")).exists()) {
            // Another test may have been faster.
            let _ = run(&format!("ip netns delete {name}"));
        }
    }
}

/// A scheduler on host 1 and a worker on each.
pub(crate) struct Cluster {
    address: String,
    _scheduler: Background,
    workers: Vec<Option<Background>>,
    sandbox: Sandbox,
    /// Last, so that nothing runs in it when it is removed.
    pub(crate) network: Network,
}

impl Cluster {
    pub(crate) fn start(network: Network, scheduler: &[&str], worker: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let listen = ["scheduler", "--host", "10.77.0.1", "--port", "0"];
        let listen = [&listen[..], scheduler].concat();
        let mut scheduler = Background::new(network.command(&sandbox, 1, &listen));
        let line = scheduler.line();
        let address = line.rsplit(' ').next().unwrap().to_owned();
        assert!(address.starts_with("10.77.0.1:"), "{line}");
        let workers = (1..=HOSTS).map(|host| {
            let name = format!("host-{host}");
            let named = ["worker", &address, "--name", &name];
            let arguments = [&named[..], worker].concat();
            Some(Background::new(network.command(&sandbox, host, &arguments)))
        });
        let workers = workers.collect();
        let cluster = Self {
            address,
            _scheduler: scheduler,
            workers,
            sandbox,
            network,
        };
        wait_until("all workers joined", || cluster.names().len() == HOSTS);
        cluster
    }

    pub(crate) fn info(&self) -> Value {
        let arguments = ["cluster", "info", &self.address, "--json"];
        let mut info = self.network.command(&self.sandbox, 1, &arguments);
        let said = finish(info.spawn().unwrap());
        assert_eq!(said.code, 0, "{}", said.err);
        serde_json::from_str(&said.out).unwrap()
    }

    /// Of the workers, in the order of their hosts.
    pub(crate) fn names(&self) -> Vec<String> {
        let info = self.info();
        let workers = info["workers"].as_array().unwrap();
        let names = workers.iter().map(|it| it["name"].as_str().unwrap());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort_unstable();
        names
    }

    /// Whether the worker of this host runs a task, and holds results of others.
    pub(crate) fn is_amid_work(&self, host: usize) -> bool {
        let name = format!("host-{host}");
        let info = self.info();
        let mut workers = info["workers"].as_array().unwrap().iter();
        workers.any(|worker| {
            let running = worker["running"].as_array().unwrap();
            worker["name"] == name.as_str() && worker["finished"] != 0 && !running.is_empty()
        })
    }

    /// What carried partitions between the workers.
    pub(crate) fn links(&self) -> Vec<String> {
        let info = self.info();
        let transfers = info["transfers"].as_array().unwrap();
        let links = transfers.iter().map(|it| it["transport"].as_str().unwrap());
        links.map(str::to_owned).collect()
    }

    /// Of each pair that does without a better transport: why, and whether for good.
    pub(crate) fn demotions(&self) -> Vec<(String, bool)> {
        let info = self.info();
        let transfers = info["transfers"].as_array().unwrap().iter();
        let demotions = transfers.filter_map(|it| it["instead_of"].as_object());
        let told = |it: &serde_json::Map<String, serde_json::Value>| {
            let reason = it["reason"].as_str().unwrap().to_owned();
            (reason, it["lasting"].as_bool().unwrap())
        };
        demotions.map(told).collect()
    }

    /// The worker of a host, which is then the test's to wait for.
    pub(crate) fn take_worker(&mut self, host: usize) -> Background {
        self.workers[host - 1].take().unwrap()
    }

    /// Begins a query that takes some seconds, with its client on this host; its answer comes back too.
    pub(crate) fn begin_on(&self, host: usize) -> (Background, String) {
        let (arguments, answer) = slow_query(&self.sandbox);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let connect = ["sql", "--connect", &self.address];
        let arguments = [&connect[..], &arguments].concat();
        let client = self.network.command(&self.sandbox, host, &arguments);
        (Background::new(client), answer)
    }
}
