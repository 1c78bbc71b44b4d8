//! What was shown, as a trace in Chrome's JSON format, which Perfetto and `chrome://tracing` open: a process for each worker, a track for each of
//! its slots, for what it fetches, serves and moves between tiers, and an arrow for each transfer. Knows no HTTP.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use transload_protocol::WorkerId;

use crate::lanes::Lanes;
use crate::view::{Frame, Graph, Message, Move, Span, Transfer, Worker};

/// Numbers of the first track of each kind within a worker.
const SLOTS: u64 = 1;
const FETCHES: u64 = 10_000;
const SERVES: u64 = 20_000;
const MOVES: u64 = 30_000;

/// The trace of these messages, as text.
pub fn chrome(messages: &[Message]) -> String {
    let mut trace = Trace::default();
    for message in messages {
        match message {
            Message::About(about) => {
                trace.about = json!({
                    "transload": about.version,
                    "scheduler": about.scheduler,
                    "unix_ms_at_0": about.unix_ms.saturating_sub(about.now_us / 1_000),
                });
            }
            Message::Frame(frame) => trace.add(frame),
        }
    }
    let whole = json!({
        "displayTimeUnit": "ms",
        "otherData": trace.about,
        "traceEvents": trace.events,
    });
    whole.to_string()
}

#[derive(Default)]
struct Trace {
    about: Value,
    events: Vec<Value>,
    graphs: BTreeMap<String, Graph>,
    /// Tracks that have their names.
    named: BTreeMap<(u64, u64), ()>,
    fetches: Lanes,
    serves: Lanes,
    moves: Lanes,
    flows: u64,
}

impl Trace {
    fn add(&mut self, frame: &Frame) {
        for worker in frame.workers.iter().flatten() {
            self.name_worker(worker);
        }
        for graph in &frame.graphs {
            self.graphs.insert(graph.id.clone(), graph.clone());
        }
        for span in &frame.spans {
            self.span(span);
        }
        for transfer in &frame.transfers {
            self.transfer(transfer);
        }
        for one in &frame.moves {
            self.shift(one);
        }
    }

    fn name_worker(&mut self, worker: &Worker) {
        let pid = number(&worker.id).0.into();
        if self.named.insert((pid, 0), ()).is_none() {
            let name = format!("{} {} on {}", worker.id, worker.name, worker.host);
            self.events.push(json!({
                "ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name},
            }));
        }
    }

    /// The track, which has its name.
    fn track(&mut self, worker: &str, first: u64, lane: u32) -> (u64, u64) {
        let (pid, tid) = (u64::from(number(worker).0), first + u64::from(lane));
        if self.named.insert((pid, tid), ()).is_none() {
            let what = match first {
                SLOTS => "slot",
                FETCHES => "fetches",
                SERVES => "serves",
                _ => "moves",
            };
            self.events.push(json!({
                "ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": format!("{what} {lane}")},
            }));
            self.events.push(json!({
                "ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid},
            }));
        }
        (pid, tid)
    }

    fn span(&mut self, span: &Span) {
        let (pid, tid) = self.track(&span.worker, SLOTS, span.lane);
        let layer = self
            .graphs
            .get(&span.graph)
            .and_then(|it| it.layers.get(span.layer as usize));
        let name = layer.map_or_else(|| format!("layer {}", span.layer), |it| it.name.clone());
        self.events.push(json!({
            "ph": "X", "name": name, "cat": if span.failed.is_some() { "failed" } else { "task" },
            "pid": pid, "tid": tid, "ts": span.start_us, "dur": span.end_us - span.start_us.min(span.end_us),
            "args": {
                "task": span.task, "tasks": span.count, "bytes": span.bytes,
                "operator": layer.map(|it| it.operator.as_str()), "failed": span.failed,
            },
        }));
    }

    fn transfer(&mut self, transfer: &Transfer) {
        let Transfer {
            from,
            to,
            start_us,
            end_us,
            ..
        } = transfer;
        let lanes = [
            (
                self.serves
                    .place(number(from), usize::MAX, (*start_us, *end_us))
                    .0,
                from,
                SERVES,
            ),
            (
                self.fetches
                    .place(number(to), usize::MAX, (*start_us, *end_us))
                    .0,
                to,
                FETCHES,
            ),
        ];
        self.flows += 1;
        for (phase, (lane, worker, first)) in ["s", "f"].into_iter().zip(lanes) {
            let (pid, tid) = self.track(worker, first, lane);
            self.events.push(json!({
                "ph": "X", "name": transfer.transport, "cat": "transfer",
                "pid": pid, "tid": tid, "ts": start_us, "dur": end_us - start_us.min(end_us),
                "args": {
                    "partition": transfer.partition, "partitions": transfer.count, "bytes": transfer.bytes,
                    "from": from, "to": to,
                },
            }));
            self.events.push(json!({
                "ph": phase, "bp": "e", "name": "transfer", "cat": "transfer", "id": self.flows,
                "pid": pid, "tid": tid, "ts": if phase == "s" { start_us } else { end_us },
            }));
        }
    }

    fn shift(&mut self, shift: &Move) {
        let worker = number(&shift.worker);
        let lane = self
            .moves
            .place(worker, usize::MAX, (shift.start_us, shift.end_us))
            .0;
        let (pid, tid) = self.track(&shift.worker, MOVES, lane);
        self.events.push(json!({
            "ph": "X", "name": format!("{} to {}", shift.from, shift.to), "cat": "move",
            "pid": pid, "tid": tid, "ts": shift.start_us, "dur": shift.end_us - shift.start_us.min(shift.end_us),
            "args": {"bytes": shift.bytes, "partitions": shift.count},
        }));
    }
}

/// The number of a worker, whose id is written `w3`.
fn number(id: &str) -> WorkerId {
    WorkerId(id.trim_start_matches('w').parse().unwrap_or_default())
}
