//! From what the cluster calls things to what is shown. Knows no history.

use transload_protocol::words::duration;
use transload_protocol::{Event, GraphInfo, GraphOutcome, Tier, TierUsage, WorkerId, WorkerInfo};

use crate::view::{Gpu, Graph, Layer, Note, NoteKind, Pair, Running, Usage, Way, Worker};

/// Longest text that is shown of a name, an SQL text or a reason, in bytes.
const MOST_TEXT_BYTES: usize = 4 << 10;

/// The text, or as much of it as is shown.
pub(crate) fn cut(text: &str) -> String {
    if text.len() <= MOST_TEXT_BYTES {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MOST_TEXT_BYTES);
    format!("{} …", &text[..end])
}

pub(crate) const fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Host => "host",
        Tier::Disk => "disk",
        Tier::Device => "device",
        Tier::PinnedHost => "pinned",
    }
}

/// Which kind of way a connection's name stands for.
pub(crate) fn way(transport: &str) -> Way {
    let mut words =
        transport.split(|it: char| !it.is_ascii_alphanumeric() && it != '_' && it != '-');
    let scheme = words.next().unwrap_or_default();
    let has = |prefixes: &[&str]| {
        words
            .clone()
            .any(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)))
    };
    if has(&["cuda_ipc", "device"]) {
        return Way::Device;
    }
    match scheme {
        "tcp" => Way::Tcp,
        "process" => Way::Process,
        "ucx" if has(&["posix", "sysv", "cma", "knem", "xpmem", "memory", "self"]) => Way::UcxShm,
        "ucx" if has(&["tcp"]) => Way::Tcp,
        "ucx" if has(&["rc", "ud", "dc", "ib", "mlx", "srd", "gga"]) => Way::UcxRdma,
        _ => Way::Other,
    }
}

pub(crate) fn worker(
    info: &WorkerInfo,
    layer_of: impl Fn(transload_protocol::TaskId) -> Option<u32>,
) -> Worker {
    let (hello, load) = (&info.hello, &info.load);
    let running = load.running.iter().map(|it| Running {
        task: it.task.to_string(),
        layer: layer_of(it.task),
        running_ms: it.running_ms,
    });
    Worker {
        id: info.worker.to_string(),
        name: cut(&hello.name),
        host: cut(&hello.host),
        pid: hello.process,
        slots: hello.resources.slots,
        gpu: hello.gpu.as_ref().map(|gpu| Gpu {
            ordinal: gpu.ordinal,
            name: cut(&gpu.name),
            memory_bytes: gpu.memory_bytes,
        }),
        tiers: load.tiers.iter().map(usage).collect(),
        resident_bytes: load.resident_bytes,
        running: running.collect(),
        queued: load.queued,
        assigned: info.assigned,
        finished: info.finished,
        spilled_bytes: info.spilled_bytes,
        stragglers: info
            .stragglers
            .iter()
            .map(|it| it.task.to_string())
            .collect(),
        addresses: hello.addresses.iter().map(ToString::to_string).collect(),
        lost: None,
    }
}

fn usage(usage: &TierUsage) -> Usage {
    Usage {
        tier: tier(usage.tier).to_owned(),
        used_bytes: usage.used_bytes,
        limit_bytes: Some(usage.limit_bytes).filter(|limit| *limit < u64::MAX),
    }
}

/// A graph that was accepted at that moment.
pub(crate) fn graph(info: &GraphInfo, start_us: u64) -> Graph {
    let layer = |layer: &transload_protocol::LayerInfo| Layer {
        name: cut(&layer.name),
        operator: cut(&layer.operator),
        first_task: layer.first_task,
        reads: layer.reads.iter().map(|it| it.0).collect(),
        total: layer.progress.total,
        done: layer.progress.done,
        running: layer.progress.running,
        run_us: 0,
        bytes: 0,
        rows: 0,
    };
    Graph {
        id: info.graph.to_string(),
        name: cut(match info.description.as_str() {
            "" => &info.name,
            description => description,
        }),
        client: cut(&info.client),
        state: "running".to_owned(),
        reason: None,
        start_us,
        end_us: None,
        layers: info.layers.iter().map(layer).collect(),
    }
}

/// How a graph ended, and why.
pub(crate) fn ending(outcome: &GraphOutcome) -> (&'static str, Option<String>) {
    match outcome {
        GraphOutcome::Finished => ("finished", None),
        GraphOutcome::Failed(error) => ("failed", Some(cut(&error.to_string()))),
        GraphOutcome::Cancelled => ("cancelled", None),
        GraphOutcome::TimedOut {
            after_ms,
            done,
            total,
        } => {
            let reason = format!("{done} of {total} tasks were done after {after_ms} ms");
            ("timed_out", Some(reason))
        }
    }
}

pub(crate) fn pair(transfer: &transload_protocol::Transfer) -> Pair {
    Pair {
        from: transfer.from.to_string(),
        to: transfer.to.to_string(),
        partitions: transfer.partitions,
        bytes: transfer.bytes,
        bytes_per_s: transfer.bytes_per_s,
        transport: cut(&transfer.transport),
        demoted: transfer
            .demotion
            .as_ref()
            .map(|it| cut(&format!("{}: {}", it.wanted, it.reason))),
    }
}

/// What people want to know of an event, if it is something.
pub(crate) fn note(event: &Event, at_us: u64) -> Option<Note> {
    let note = |kind, text: String| Note {
        at_us,
        kind,
        text: cut(&text),
        worker: None,
        graph: None,
        task: None,
    };
    let noted = match event {
        Event::WorkerJoined { worker } => Note {
            worker: Some(worker.to_string()),
            ..note(NoteKind::WorkerJoined, format!("{worker} has joined"))
        },
        Event::WorkerLost { worker, reason } => Note {
            worker: Some(worker.to_string()),
            ..note(NoteKind::WorkerLost, format!("{worker} is lost: {reason}"))
        },
        Event::GraphAccepted { graph, tasks } => Note {
            graph: Some(graph.to_string()),
            ..note(
                NoteKind::GraphAccepted,
                format!("graph {graph} of {tasks} tasks"),
            )
        },
        Event::GraphEnded { graph, outcome } => {
            let (state, reason) = ending(outcome);
            let reason = reason.map(|it| format!(": {it}")).unwrap_or_default();
            Note {
                graph: Some(graph.to_string()),
                ..note(
                    NoteKind::GraphEnded,
                    format!("graph {graph} {}{reason}", state.replace('_', " ")),
                )
            }
        }
        Event::TaskFailed {
            task,
            worker,
            message,
            ..
        } => Note {
            task: Some(task.to_string()),
            worker: Some(worker.to_string()),
            graph: Some(task.graph.to_string()),
            ..note(
                NoteKind::TaskFailed,
                format!("task {task} failed on {worker}: {message}"),
            )
        },
        Event::TaskRecomputed { task } => Note {
            task: Some(task.to_string()),
            graph: Some(task.graph.to_string()),
            ..note(
                NoteKind::TaskRecomputed,
                format!("task {task} runs again: its partitions were lost"),
            )
        },
        Event::TaskUnschedulable { task, message } => Note {
            task: Some(task.to_string()),
            graph: Some(task.graph.to_string()),
            ..note(
                NoteKind::Unschedulable,
                format!("no worker can run task {task}: {message}"),
            )
        },
        Event::TaskStraggles {
            task,
            worker,
            running_ms,
            typical_ms,
        } => Note {
            task: Some(task.to_string()),
            worker: Some(worker.to_string()),
            graph: Some(task.graph.to_string()),
            ..note(
                NoteKind::Straggler,
                format!(
                    "task {task} has run for {running_ms} ms on {worker}; those of its layer took {typical_ms} ms"
                ),
            )
        },
        Event::LinkDemoted {
            from,
            to,
            demotion,
            used,
        } => Note {
            worker: Some(to.to_string()),
            ..note(
                NoteKind::Link,
                format!(
                    "{to} fetches from {from} over {used} and not over {}: {}",
                    demotion.wanted, demotion.reason
                ),
            )
        },
        Event::WorkersApart {
            reader,
            holder,
            reason,
            aside,
            pause_ms,
        } => {
            let aside: Vec<String> = aside.iter().map(WorkerId::to_string).collect();
            Note {
                worker: Some(reader.to_string()),
                ..note(
                    NoteKind::Apart,
                    format!(
                        "{reader} cannot fetch from {holder}: {reason}; {} gets nothing that others can take for {}",
                        aside.join(" and "),
                        duration(pause_ms.saturating_mul(1_000)),
                    ),
                )
            }
        }
        Event::TaskAssigned { .. }
        | Event::TaskFinished { .. }
        | Event::PartitionFetched { .. }
        | Event::PartitionMoved { .. } => return None,
    };
    Some(noted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_told_apart_by_what_carries_them() {
        for (transport, expected) in [
            ("tcp", Way::Tcp),
            ("tcp page-locked", Way::Tcp),
            ("ucx posix/memory", Way::UcxShm),
            ("ucx cma,posix/memory page-locked", Way::UcxShm),
            ("ucx rc_mlx5/mlx5_0:1", Way::UcxRdma),
            ("ucx tcp/eth0", Way::Tcp),
            ("ucx cuda_ipc/cuda,posix/memory device", Way::Device),
            ("process device", Way::Device),
            ("process", Way::Process),
            ("", Way::Other),
            ("carrier pigeon", Way::Other),
        ] {
            assert_eq!(way(transport), expected, "{transport}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_two_characters() {
        let text = "é".repeat(MOST_TEXT_BYTES);
        assert!(cut(&text).len() <= MOST_TEXT_BYTES + 4);
        assert_eq!(cut("short"), "short");
    }
}
