//! What was shown, as a trace in Chrome's JSON format, which Perfetto and `chrome://tracing` open: a process for each worker, a track for each of
//! its slots, for what it fetches, serves and moves between tiers, an arrow for each transfer, and one more process for queries. Knows no HTTP.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use transload_protocol::WorkerId;

use crate::lanes::Lanes;
use crate::view::{Frame, Graph, Message, Move, Note, Sample, Span, Transfer, Worker};

/// Numbers of the first track of each kind within a worker.
const SLOTS: u64 = 1;
const FETCHES: u64 = 10_000;
const SERVES: u64 = 20_000;
const MOVES: u64 = 30_000;
/// The process of queries. Those of workers are one more than their ids, as 0 is the idle process to Perfetto.
const QUERIES: u64 = 2_000_000_000;

/// A process and one of its tracks.
type Track = (u64, u64);

/// The trace of these messages, as text.
pub fn chrome(messages: &[Message]) -> String {
    let mut trace = Trace::default();
    // What is known in the end is true of the beginning: tasks are told before anybody has said what their layers are called.
    for message in messages {
        match message {
            Message::About(about) => {
                trace.about = json!({
                    "transload": about.version,
                    "scheduler": about.scheduler,
                    "unix_ms_at_0": about.unix_ms.saturating_sub(about.now_us / 1_000),
                });
            }
            Message::Frame(frame) => trace.learn(frame),
        }
    }
    trace.queries();
    for message in messages {
        if let Message::Frame(frame) = message {
            trace.add(frame);
        }
    }
    trace.text()
}

#[derive(Default)]
struct Trace<'a> {
    about: Value,
    /// Each as JSON.
    events: Vec<String>,
    graphs: BTreeMap<&'a str, &'a Graph>,
    last_us: u64,
    /// Tracks that have their names; of track 0, processes.
    named: BTreeSet<Track>,
    /// What has been told: a viewer that was too slow hears everything anew, and so does its recording.
    told: BTreeSet<(&'static str, &'a str, &'a str, u64, u64)>,
    /// The last slice of each track.
    last: BTreeMap<Track, (u64, u64)>,
    fetches: Lanes,
    serves: Lanes,
    moves: Lanes,
    flows: u64,
}

impl<'a> Trace<'a> {
    fn learn(&mut self, frame: &'a Frame) {
        self.last_us = self.last_us.max(frame.now_us);
        for worker in frame.workers.iter().flatten() {
            self.name_worker(worker);
        }
        for graph in &frame.graphs {
            self.graphs.insert(&graph.id, graph);
        }
    }

    fn add(&mut self, frame: &'a Frame) {
        for span in &frame.spans {
            if self.is_new(("span", &span.task, &span.worker, span.start_us, span.end_us)) {
                self.span(span);
            }
        }
        for one in &frame.transfers {
            if self.is_new((
                "transfer",
                &one.partition,
                &one.to,
                one.start_us,
                one.end_us,
            )) {
                self.transfer(one);
            }
        }
        for one in &frame.moves {
            if self.is_new(("move", &one.to, &one.worker, one.start_us, one.end_us)) {
                self.shift(one);
            }
        }
        for note in &frame.notes {
            let worker = note.worker.as_deref().unwrap_or_default();
            if self.is_new(("note", &note.text, worker, note.at_us, note.at_us)) {
                self.note(note);
            }
        }
        for sample in &frame.memory {
            if self.is_new(("sample", "", &sample.worker, sample.at_us, sample.at_us)) {
                self.sample(sample);
            }
        }
    }

    fn is_new(&mut self, what: (&'static str, &'a str, &'a str, u64, u64)) -> bool {
        self.told.insert(what)
    }

    fn event(&mut self, event: &Value) {
        self.events.push(event.to_string());
    }

    fn name_worker(&mut self, worker: &Worker) {
        let name = format!("{} {} on {}", worker.id, worker.name, worker.host);
        self.name_process(process(&worker.id), &name);
    }

    fn name_process(&mut self, pid: u64, name: &str) {
        if self.named.insert((pid, 0)) {
            let order = if pid == QUERIES { 0 } else { pid };
            self.event(&json!({"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}));
            self.event(&json!({"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": order}}));
        }
    }

    /// The track of a worker, which has its name.
    fn track(&mut self, worker: &str, first: u64, lane: u32) -> Track {
        let pid = process(worker);
        self.name_process(pid, worker);
        let what = match first {
            SLOTS => "slot",
            FETCHES => "fetches",
            SERVES => "serves",
            _ => "moves",
        };
        self.name_track((pid, first + u64::from(lane)), &format!("{what} {lane}"))
    }

    fn name_track(&mut self, (pid, tid): Track, name: &str) -> Track {
        if self.named.insert((pid, tid)) {
            self.event(&json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}));
            self.event(&json!({"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid}}));
        }
        (pid, tid)
    }

    /// Something that took its time, and when it is said to have begun and ended: slices of one track may lie in each other, and else have to
    /// be apart, which clocks of several processes are not to be relied on for.
    fn slice(
        &mut self,
        track: Track,
        start_us: u64,
        end_us: u64,
        (name, category): (&str, &str),
        args: &Value,
    ) -> (u64, u64) {
        // Shorter ones are not drawn.
        let own = (start_us, end_us.max(start_us.saturating_add(1)));
        let (start, end) = match self.last.get(&track) {
            Some(&(_, to)) if own.0 < to && to < own.1 => (to, own.1),
            Some(&(from, to)) if own.0 < from && from < own.1 && own.1 <= to => (own.0, from),
            Some(_) | None => own,
        };
        self.last.insert(track, (start, end));
        self.event(&json!({
            "ph": "X", "name": name, "cat": category, "pid": track.0, "tid": track.1,
            "ts": start, "dur": end - start, "args": args,
        }));
        (start, end)
    }

    fn queries(&mut self) {
        let mut graphs: Vec<&Graph> = self.graphs.values().copied().collect();
        let end_us = |graph: &Graph| graph.end_us.unwrap_or(self.last_us).max(graph.start_us);
        graphs.sort_by_key(|graph| end_us(graph));
        let placed: Vec<_> = graphs.iter().map(|it| (*it, end_us(it))).collect();
        let mut lanes = Lanes::default();
        for (graph, end_us) in placed {
            self.name_process(QUERIES, "queries");
            let lane = place(&mut lanes, WorkerId(0), graph.start_us, end_us);
            let track = self.name_track(
                (QUERIES, SLOTS + u64::from(lane)),
                &format!("queries {lane}"),
            );
            let args = json!({"graph": graph.id, "client": graph.client, "state": graph.state, "reason": graph.reason});
            self.slice(track, graph.start_us, end_us, (&graph.name, "graph"), &args);
        }
    }

    fn span(&mut self, span: &Span) {
        let track = self.track(&span.worker, SLOTS, span.lane);
        let graph = self.graphs.get(span.graph.as_str());
        let layer = graph.and_then(|it| it.layers.get(span.layer as usize));
        let name = layer.map_or_else(|| format!("layer {}", span.layer), |it| it.name.clone());
        let category = if span.failed.is_some() {
            "failed"
        } else {
            "task"
        };
        let args = json!({
            "task": span.task, "tasks": span.count, "bytes": span.bytes,
            "operator": layer.map(|it| it.operator.as_str()), "failed": span.failed,
        });
        self.slice(track, span.start_us, span.end_us, (&name, category), &args);
    }

    fn transfer(&mut self, transfer: &Transfer) {
        let Transfer {
            from, to, start_us, ..
        } = transfer;
        // As long as it will be drawn.
        let end_us = transfer.end_us.max(start_us.saturating_add(1));
        let serve = place(&mut self.serves, number(from), *start_us, end_us);
        let fetch = place(&mut self.fetches, number(to), *start_us, end_us);
        let ends = [("s", from, SERVES, serve), ("f", to, FETCHES, fetch)];
        let args = json!({
            "partition": transfer.partition, "partitions": transfer.count, "bytes": transfer.bytes,
            "from": from, "to": to,
        });
        self.flows += 1;
        for (phase, worker, first, lane) in ends {
            let track = self.track(worker, first, lane);
            let what = (transfer.transport.as_str(), "transfer");
            let (start, end) = self.slice(track, *start_us, end_us, what, &args);
            // An arrow is tied to the slice around its end; that a slice ends at a moment means that it is over then.
            let at = if phase == "s" { start } else { end - 1 };
            self.event(&json!({
                "ph": phase, "bp": "e", "name": "transfer", "cat": "transfer", "id": self.flows,
                "pid": track.0, "tid": track.1, "ts": at,
            }));
        }
    }

    fn shift(&mut self, shift: &Move) {
        let end_us = shift.end_us.max(shift.start_us.saturating_add(1));
        let lane = place(
            &mut self.moves,
            number(&shift.worker),
            shift.start_us,
            end_us,
        );
        let track = self.track(&shift.worker, MOVES, lane);
        let name = format!("{} to {}", shift.from, shift.to);
        let args = json!({"bytes": shift.bytes, "partitions": shift.count});
        self.slice(track, shift.start_us, end_us, (&name, "move"), &args);
    }

    fn note(&mut self, note: &Note) {
        let (pid, scope) = match &note.worker {
            Some(worker) => (process(worker), "p"),
            None => (QUERIES, "g"),
        };
        self.event(&json!({
            "ph": "i", "s": scope, "name": note.text, "cat": "note", "pid": pid, "tid": 0, "ts": note.at_us,
        }));
    }

    fn sample(&mut self, sample: &Sample) {
        let [host, disk, device, pinned] = sample.used_bytes;
        self.event(&json!({
            "ph": "C", "name": "memory", "pid": process(&sample.worker), "tid": 0, "ts": sample.at_us,
            "args": {"host": host, "disk": disk, "device": device, "pinned": pinned},
        }));
    }

    fn text(self) -> String {
        format!(
            "{{\"displayTimeUnit\":\"ms\",\"otherData\":{},\"traceEvents\":[\n{}\n]}}\n",
            self.about,
            self.events.join(",\n")
        )
    }
}

/// The track for what went on at that time, of which there are as many as went on at once.
fn place(lanes: &mut Lanes, worker: WorkerId, start_us: u64, end_us: u64) -> u32 {
    lanes.place(worker, usize::MAX, (start_us, end_us)).0
}

fn process(worker: &str) -> u64 {
    u64::from(number(worker).0) + 1
}

/// The number of a worker, whose id is written `w3`.
fn number(id: &str) -> WorkerId {
    WorkerId(id.trim_start_matches('w').parse().unwrap_or_default())
}

#[cfg(test)]
mod tests;
