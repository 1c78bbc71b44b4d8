//! Counters and gauges in Prometheus's text format: base units, `_total` behind what only grows, workers as labels and tasks never.
//! Knows no HTTP.

use std::fmt::{Display, Write};

use transload_protocol::{ClusterInfo, Transfer, WorkerInfo};

use crate::words;

/// Most pairs of workers of which traffic is told.
const MOST_PAIRS: usize = 4_096;

/// What a scraper reads.
pub(crate) fn text(info: &ClusterInfo, viewers: u32, dropped_events: u64) -> String {
    let mut out = Out(String::new());
    let mut single = |name, kind, help, value: u64| {
        out.family(name, kind, help);
        out.value(name, &[], value);
    };
    let count = |number: usize| number as u64;
    single(
        "transload_workers",
        "gauge",
        "Workers in the cluster.",
        count(info.workers.len()),
    );
    single(
        "transload_clients",
        "gauge",
        "Clients that are connected.",
        info.clients.into(),
    );
    single(
        "transload_graphs_running",
        "gauge",
        "Graphs accepted and not ended.",
        info.graphs_running.into(),
    );
    single(
        "transload_tasks_ready",
        "gauge",
        "Tasks that are ready and wait for a worker.",
        info.tasks_ready.into(),
    );
    single(
        "transload_dashboard_viewers",
        "gauge",
        "Who looks at the dashboard.",
        viewers.into(),
    );
    single(
        "transload_dashboard_dropped_events_total",
        "counter",
        "Events that the dashboard could not take in.",
        dropped_events,
    );
    of_workers(&mut out, &info.workers);
    between_workers(&mut out, &info.transfers);
    out.0
}

fn of_workers(out: &mut Out, workers: &[WorkerInfo]) {
    type Value = fn(&WorkerInfo) -> u64;
    let families: [(&str, &str, &str, Value); 7] = [
        (
            "transload_worker_slots",
            "gauge",
            "Tasks that a worker runs at once.",
            |it| it.hello.resources.slots.into(),
        ),
        (
            "transload_worker_tasks_running",
            "gauge",
            "Tasks that run on a worker.",
            |it| it.load.running.len() as u64,
        ),
        (
            "transload_worker_tasks_queued",
            "gauge",
            "Tasks that wait on a worker.",
            |it| it.load.queued.into(),
        ),
        (
            "transload_worker_tasks_finished_total",
            "counter",
            "Tasks that a worker has finished.",
            |it| it.finished,
        ),
        (
            "transload_worker_stragglers",
            "gauge",
            "Tasks of a worker that take much longer than others of their layers.",
            |it| it.stragglers.len() as u64,
        ),
        (
            "transload_worker_spilled_bytes_total",
            "counter",
            "Bytes that a worker has written to disk for want of memory.",
            |it| it.spilled_bytes,
        ),
        (
            "transload_worker_resident_bytes",
            "gauge",
            "Resident memory of a worker's process.",
            |it| it.load.resident_bytes,
        ),
    ];
    for (name, kind, help, value) in families {
        out.family(name, kind, help);
        for worker in workers {
            out.value(name, &labels(worker), value(worker));
        }
    }
    let tiers = [
        (
            "transload_worker_tier_used_bytes",
            "Bytes in use of a tier of a worker's memory, or its disk.",
        ),
        (
            "transload_worker_tier_limit_bytes",
            "Bytes that a worker may use of a tier.",
        ),
    ];
    for (name, help) in tiers {
        let is_limit = name.contains("limit");
        out.family(name, "gauge", help);
        for worker in workers {
            for usage in &worker.load.tiers {
                let bytes = if is_limit {
                    usage.limit_bytes
                } else {
                    usage.used_bytes
                };
                if bytes < u64::MAX {
                    let tier = ("tier", words::tier(usage.tier).to_owned());
                    let all: Vec<_> = labels(worker).into_iter().chain([tier]).collect();
                    out.value(name, &all, bytes);
                }
            }
        }
    }
}

fn between_workers(out: &mut Out, transfers: &[Transfer]) {
    type Value = fn(&Transfer) -> u64;
    let families: [(&str, &str, Value); 2] = [
        (
            "transload_transfer_bytes_total",
            "Bytes of partitions that one worker has fetched from another.",
            |it| it.bytes,
        ),
        (
            "transload_transfer_partitions_total",
            "Partitions that one worker has fetched from another.",
            |it| it.partitions,
        ),
    ];
    for (name, help, value) in families {
        out.family(name, "counter", help);
        for transfer in transfers.iter().take(MOST_PAIRS) {
            let labels = [
                ("from", transfer.from.to_string()),
                ("to", transfer.to.to_string()),
            ];
            out.value(name, &labels, value(transfer));
        }
    }
}

type Label = (&'static str, String);

fn labels(worker: &WorkerInfo) -> Vec<Label> {
    let hello = &worker.hello;
    vec![
        ("worker", worker.worker.to_string()),
        ("name", hello.name.clone()),
        ("host", hello.host.clone()),
    ]
}

struct Out(String);

impl Out {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[Label], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let _ = match labels.as_slice() {
            [] => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use transload_protocol::{Tier, TierUsage, WorkerId};

    use super::*;
    use crate::fakes;

    #[test]
    fn a_scraper_reads_names_units_and_labels_whatever_workers_call_themselves() {
        let mut worker = fakes::worker(1);
        worker.hello.name = "a \"b\"\\\nc".to_owned();
        worker.finished = 7;
        worker.load.tiers = vec![
            TierUsage {
                tier: Tier::Host,
                used_bytes: 5,
                limit_bytes: 9,
            },
            TierUsage {
                tier: Tier::Disk,
                used_bytes: 3,
                limit_bytes: u64::MAX,
            },
        ];
        let transfer = Transfer {
            from: WorkerId(1),
            to: WorkerId(2),
            partitions: 2,
            bytes: 11,
            transport: "tcp".to_owned(),
            bytes_per_s: 0,
            demotion: None,
        };
        let info = ClusterInfo {
            workers: vec![worker],
            transfers: vec![transfer],
            ..ClusterInfo::default()
        };
        let text = text(&info, 1, 4);
        for line in [
            "# TYPE transload_worker_tasks_finished_total counter",
            r#"transload_worker_tasks_finished_total{worker="w1",name="a \"b\"\\\nc",host="host"} 7"#,
            r#"transload_worker_tier_used_bytes{worker="w1",name="a \"b\"\\\nc",host="host",tier="disk"} 3"#,
            r#"transload_transfer_bytes_total{from="w1",to="w2"} 11"#,
            "transload_dashboard_dropped_events_total 4",
            "transload_workers 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert!(
            !text.contains(&u64::MAX.to_string()),
            "no limit is no number"
        );
        let families = text.lines().filter(|it| it.starts_with("# TYPE")).count();
        let helps = text.lines().filter(|it| it.starts_with("# HELP")).count();
        assert_eq!(families, helps);
    }
}
