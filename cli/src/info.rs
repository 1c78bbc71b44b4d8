//! `transload cluster`: shows a running cluster, or stops it.

use std::io::{self, Write};

use serde_json::{Number, Value, json};
use transload_protocol::{
    Amount, ClusterInfo, GraphInfo, Resources, Tier, TierUsage, Transfer, WorkerId, WorkerInfo,
    words,
};

use crate::args::{ClusterAddress, ClusterCommand};
use crate::cluster::{self, Cluster, Place, client_failure};
use crate::failure::{Failure, io_failure};
use crate::show;
use crate::signals::Signals;

/// Runs `transload cluster …`.
pub(crate) async fn run(command: ClusterCommand, signals: &Signals) -> Result<(), Failure> {
    tokio::select! {
        done = async {
            match command {
                ClusterCommand::Info { cluster, json } => info(&cluster, json).await,
                ClusterCommand::Shutdown { cluster } => shutdown(&cluster).await,
            }
        } => done,
        _ = signals.stop() => Err(Failure::interrupted()),
    }
}

async fn info(address: &ClusterAddress, as_json: bool) -> Result<(), Failure> {
    let cluster = open(address).await?;
    let info = cluster
        .client
        .info()
        .await
        .map_err(|error| client_failure(&error))?;
    let text = if as_json {
        format!("{:#}\n", as_value(&info))
    } else {
        as_text(&info)
    };
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| io_failure("cannot write to standard output", &error))
}

async fn shutdown(address: &ClusterAddress) -> Result<(), Failure> {
    let cluster = open(address).await?;
    cluster
        .client
        .shutdown_cluster()
        .await
        .map_err(|error| client_failure(&error))
}

/// Connects to the cluster that was named.
pub(crate) async fn open(address: &ClusterAddress) -> Result<Cluster, Failure> {
    let config = cluster::config()?;
    let place = match (&address.address, &address.scheduler_file) {
        (Some(address), _) => Place::Address(address.clone()),
        (None, Some(file)) => Place::File(file.clone()),
        (None, None) => return Err(Failure::usage("no cluster named")),
    };
    Cluster::open(&place, &config).await
}

/// The cluster in words and columns.
fn as_text(info: &ClusterInfo) -> String {
    let slots: u64 = info
        .workers
        .iter()
        .map(|worker| u64::from(worker.hello.resources.slots))
        .sum();
    let mut text = format!(
        "{}, {}, {}; {} running, {} waiting for a worker\n",
        show::count(info.workers.len() as u64, "worker"),
        show::count(slots, "slot"),
        show::count(info.clients.into(), "client"),
        show::count(info.graphs_running.into(), "graph"),
        show::count(info.tasks_ready.into(), "task"),
    );
    if !info.dashboard.is_empty() {
        text.push_str(&format!("dashboard at http://{}/\n", info.dashboard));
    }
    if info.workers.is_empty() {
        return text;
    }
    let head = [
        "worker", "name", "machine", "pid", "slots", "running", "queued", "finished", "spilled",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(info.workers.iter().map(|worker| {
        vec![
            worker.worker.to_string(),
            worker.hello.name.clone(),
            worker.hello.host.clone(),
            worker.hello.process.to_string(),
            worker.hello.resources.to_string(),
            worker.load.running.len().to_string(),
            worker.load.queued.to_string(),
            show::grouped(worker.finished),
            show::bytes(worker.spilled_bytes),
        ]
    }));
    text.push_str(&format!("\n{}", show::columns(&rows)));

    let mut rows = vec![
        ["memory", "tier", "used", "limit", "whole process"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for worker in &info.workers {
        rows.extend(
            worker
                .load
                .tiers
                .iter()
                .map(|usage| tier_row(worker, usage)),
        );
    }
    text.push_str(&format!("\n{}", show::columns(&rows)));

    let gpus: Vec<_> = info.workers.iter().filter_map(gpu_row).collect();
    if !gpus.is_empty() {
        let head = ["gpu", "number", "name", "memory"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head.to_vec()).chain(gpus).collect();
        text.push_str(&format!("\n{}", show::columns(&rows)));
    }

    let mut rows = vec![["transports", "address"].map(str::to_owned).to_vec()];
    for worker in &info.workers {
        rows.extend(
            worker
                .hello
                .addresses
                .iter()
                .map(|address| vec![worker.worker.to_string(), address.to_string()]),
        );
    }
    text.push_str(&format!("\n{}", show::columns(&rows)));

    for worker in &info.workers {
        let running = &worker.load.running;
        if !running.is_empty() {
            let tasks: Vec<String> = running.iter().map(|it| it.task.to_string()).collect();
            text.push_str(&format!("\n{} runs {}", worker.worker, tasks.join(" ")));
        }
    }
    for worker in &info.workers {
        for straggler in &worker.stragglers {
            text.push_str(&format!(
                "\n{} has run {} for {}; tasks of its layer take {}",
                worker.worker,
                straggler.task,
                words::duration(straggler.running_ms.saturating_mul(1_000)),
                words::duration(straggler.typical_ms.saturating_mul(1_000)),
            ));
        }
    }
    for worker in info.workers.iter().filter(|worker| worker.aside) {
        text.push_str(&format!(
            "\n{} gets nothing that others can take: fetching between it and {} failed",
            worker.worker,
            texts(&worker.apart_from).join(", ")
        ));
    }
    if !info.transfers.is_empty() {
        let matrix = show::transfers(&info.transfers, |worker: WorkerId| worker.to_string());
        text.push_str(&format!("\nmoved between workers so far\n{matrix}"));
        text.push_str(&format!("\n{}", links(&info.transfers)));
    }
    text
}

/// What carries the partitions of each pair, how fast, and why not something better.
fn links(transfers: &[Transfer]) -> String {
    let head = ["from", "to", "link", "measured", "instead of"];
    let head = std::iter::once(head.map(str::to_owned).to_vec());
    let rows = transfers.iter().map(|transfer| {
        let measured = match transfer.bytes_per_s {
            0 => "-".to_owned(),
            bytes_per_s => format!("{}/s", show::bytes(bytes_per_s)),
        };
        let demotion = transfer.demotion.as_ref();
        vec![
            transfer.from.to_string(),
            transfer.to.to_string(),
            transfer.transport.clone(),
            measured,
            demotion.map_or(String::new(), |it| format!("{}: {}", it.wanted, it.reason)),
        ]
    });
    show::columns(&head.chain(rows).collect::<Vec<_>>())
}

fn gpu_row(worker: &WorkerInfo) -> Option<Vec<String>> {
    let gpu = worker.hello.gpu.as_ref()?;
    Some(vec![
        worker.worker.to_string(),
        gpu.ordinal.to_string(),
        gpu.name.clone(),
        show::bytes(gpu.memory_bytes),
    ])
}

fn tier_row(worker: &WorkerInfo, usage: &TierUsage) -> Vec<String> {
    vec![
        worker.worker.to_string(),
        usage.tier.to_string(),
        show::bytes(usage.used_bytes),
        if usage.limit_bytes == u64::MAX {
            "no limit".to_owned()
        } else {
            show::bytes(usage.limit_bytes)
        },
        if usage.tier == Tier::Host && worker.load.resident_bytes > 0 {
            show::bytes(worker.load.resident_bytes)
        } else {
            String::new()
        },
    ]
}

/// The cluster for programs. Ids are texts as logs and errors print them; a limit of null is none.
fn as_value(info: &ClusterInfo) -> Value {
    let workers = info.workers.iter().map(|worker| {
        let tiers = worker.load.tiers.iter().map(|usage| {
            let limit = (usage.limit_bytes != u64::MAX).then_some(usage.limit_bytes);
            json!({
                "tier": usage.tier.to_string(),
                "used_bytes": usage.used_bytes,
                "limit_bytes": limit,
            })
        });
        let running = worker.load.running.iter();
        let stragglers = worker.stragglers.iter().map(|straggler| {
            json!({
                "task": straggler.task.to_string(),
                "running_ms": straggler.running_ms,
                "typical_ms": straggler.typical_ms,
            })
        });
        json!({
            "id": worker.worker.to_string(),
            "name": worker.hello.name,
            "host": worker.hello.host,
            "pid": worker.hello.process,
            "slots": worker.hello.resources.slots,
            "resources": amounts(&worker.hello.resources),
            "shared_resources": worker.hello.shared,
            "labels": worker.hello.labels,
            "gpu": worker.hello.gpu.as_ref().map(|gpu| json!({
                "ordinal": gpu.ordinal,
                "name": gpu.name,
                "memory_bytes": gpu.memory_bytes,
            })),
            "operator_memory_bytes": worker.hello.resources.memory_bytes,
            "addresses": texts(&worker.hello.addresses),
            "memory": tiers.collect::<Vec<_>>(),
            "resident_bytes": worker.load.resident_bytes,
            "running": running.map(|it| it.task.to_string()).collect::<Vec<_>>(),
            "queued": worker.load.queued,
            "assigned": worker.assigned,
            "finished": worker.finished,
            "spilled_bytes": worker.spilled_bytes,
            "stragglers": stragglers.collect::<Vec<_>>(),
            "apart_from": texts(&worker.apart_from),
            "aside": worker.aside,
        })
    });
    let transfers = info.transfers.iter().map(|transfer| {
        json!({
            "from": transfer.from.to_string(),
            "to": transfer.to.to_string(),
            "partitions": transfer.partitions,
            "bytes": transfer.bytes,
            "transport": transfer.transport,
            "bytes_per_s": (transfer.bytes_per_s > 0).then_some(transfer.bytes_per_s),
            "instead_of": transfer.demotion.as_ref().map(|demotion| json!({
                "transport": demotion.wanted,
                "reason": demotion.reason,
                "lasting": demotion.lasting,
            })),
        })
    });
    json!({
        "workers": workers.collect::<Vec<_>>(),
        "clients": info.clients,
        "graphs_running": info.graphs_running,
        "tasks_ready": info.tasks_ready,
        "dashboard": (!info.dashboard.is_empty()).then(|| format!("http://{}/", info.dashboard)),
        "graphs": info.graphs.iter().map(graph).collect::<Vec<_>>(),
        "transfers": transfers.collect::<Vec<_>>(),
    })
}

fn graph(graph: &GraphInfo) -> Value {
    let layers = graph.layers.iter().map(|layer| {
        json!({
            "name": layer.name,
            "operator": layer.operator,
            "tasks": layer.progress.total,
            "done": layer.progress.done,
            "running": layer.progress.running,
        })
    });
    json!({
        "id": graph.graph.to_string(),
        "name": graph.name,
        "client": graph.client,
        "layers": layers.collect::<Vec<_>>(),
    })
}

/// Amounts as numbers, which may have decimal places.
fn amounts(resources: &Resources) -> Value {
    let number = |amount: &Amount| amount.to_string().parse::<Number>().ok();
    let named = resources.named.iter();
    named
        .map(|(name, amount)| (name.clone(), json!(number(amount))))
        .collect()
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

#[cfg(test)]
mod tests {
    use transload_protocol::{Demotion, WorkerHello};

    use super::*;

    #[test]
    fn who_stands_aside_is_named_and_nobodys_name_moves_the_cursor() {
        let worker = |number: u32, name: &str| WorkerInfo {
            worker: WorkerId(number),
            hello: WorkerHello {
                name: name.to_owned(),
                host: "node\u{1b}[2J".to_owned(),
                process: 1,
                resources: Resources::slots(1),
                memory_bytes: 1 << 30,
                addresses: Vec::new(),
                labels: Default::default(),
                shared: Default::default(),
                gpu: None,
            },
            load: Default::default(),
            assigned: 0,
            finished: 0,
            spilled_bytes: 0,
            stragglers: Vec::new(),
            apart_from: Vec::new(),
            aside: false,
        };
        let aside = WorkerInfo {
            apart_from: vec![WorkerId(0), WorkerId(2)],
            aside: true,
            ..worker(1, "b\nc")
        };
        let info = ClusterInfo {
            workers: vec![worker(0, "a\u{1b}[31m"), aside],
            ..ClusterInfo::default()
        };
        let text = as_text(&info);
        let line = "w1 gets nothing that others can take: fetching between it and w0, w2 failed";
        assert!(text.lines().any(|it| it == line), "{text}");
        assert!(!text.contains('\u{1b}') && text.contains("b c"), "{text}");
        let value = as_value(&info);
        assert_eq!(value["workers"][1]["apart_from"], json!(["w0", "w2"]));
        assert_eq!(value["workers"][1]["aside"], true);
    }

    #[test]
    fn every_pair_says_what_carries_it_how_fast_and_why_not_something_better() {
        let transfer = Transfer {
            from: WorkerId(0),
            to: WorkerId(1),
            partitions: 3,
            bytes: 4096,
            transport: "ucx posix/memory".to_owned(),
            bytes_per_s: 3 << 30,
            demotion: None,
        };
        let demoted = Transfer {
            from: WorkerId(1),
            to: WorkerId(0),
            transport: "tcp".to_owned(),
            bytes_per_s: 0,
            demotion: Some(Demotion {
                wanted: "ucx".to_owned(),
                reason: "UCX 1.13.1 here, 1.22.0 there".to_owned(),
                lasting: false,
            }),
            ..transfer.clone()
        };
        let info = ClusterInfo {
            transfers: vec![transfer, demoted],
            ..ClusterInfo::default()
        };
        assert_eq!(
            links(&info.transfers),
            "from  to  link              measured   instead of\n\
             w0    w1  ucx posix/memory  3.0 GiB/s\n\
             w1    w0  tcp               -          ucx: UCX 1.13.1 here, 1.22.0 there\n"
        );
        let value = as_value(&info);
        assert_eq!(value["transfers"][0]["bytes_per_s"], 3_u64 << 30);
        assert_eq!(value["transfers"][0]["instead_of"], Value::Null);
        assert_eq!(value["transfers"][1]["bytes_per_s"], Value::Null);
        assert_eq!(value["transfers"][1]["instead_of"]["transport"], "ucx");
    }
}
