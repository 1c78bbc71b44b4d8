//! What was shown, as spans of OpenTelemetry, in the JSON that its protocol (OTLP 1) defines: a trace for each graph, with a span for the graph, below
//! it one for each task that ran and each partition that moved between workers. Knows no HTTP.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use crate::view::{About, Frame, Graph, Message, Note, Span, Transfer, Worker};

/// Marks of a graph's span, as many as OpenTelemetry's own libraries allow.
const MOST_MARKS: usize = 128;
/// So many graphs that have ended keep their names, for what is told of them later.
const MOST_ENDED: usize = 256;
/// More than this do not run.
const MOST_GRAPHS: usize = 4_096;
/// What belongs to a graph that nobody has described yet waits for so many frames.
const PATIENCE: u32 = 30;
/// And so many of these at most.
const MOST_WAITING: usize = 100_000;
/// So many spans are remembered to have been told: a viewer that was too slow hears everything anew.
const MOST_TOLD: usize = 500_000;

/// So many spans are some 2 MB; collectors refuse requests of 20.
const MOST_PER_REQUEST: usize = 2_000;
/// Characters of a span's name.
const MOST_NAME: usize = 80;

/// Kinds of spans, as OTLP numbers them.
const INTERNAL: u8 = 1;
const CLIENT: u8 = 3;
/// How a span ended, as OTLP numbers it.
const OK: u8 = 1;
const ERROR: u8 = 2;

/// All spans of a recording: requests as an OTLP collector takes them, one to a line.
pub fn otlp(messages: &[Message]) -> String {
    let mut spans = OtlpSpans::default();
    // What is known in the end is true of the beginning: tasks are told before anybody has said what their layers are called.
    for message in messages {
        spans.learn(message);
    }
    let mut text = String::new();
    for message in messages {
        if let Message::Frame(frame) = message {
            spans.add(frame);
        }
        spans.request_into(&mut text);
    }
    spans.end();
    spans.request_into(&mut text);
    text
}

/// Makes spans of what a dashboard says, as it comes.
#[derive(Debug, Default)]
pub struct OtlpSpans {
    about: Option<About>,
    workers: BTreeMap<String, Worker>,
    graphs: BTreeMap<String, Known>,
    /// Graphs that have ended, in that order.
    ended: VecDeque<String>,
    waiting: VecDeque<(u32, Waiting)>,
    /// Counts frames.
    frames: u32,
    now_us: u64,
    told: Told,
    /// Spans that were not taken yet, by the worker that they are of; those of graphs are of nobody.
    ready: BTreeMap<Option<String>, Vec<Value>>,
}

#[derive(Debug)]
struct Known {
    graph: Graph,
    marks: Vec<Value>,
    /// It was heard of, and not only of what comes later in a recording: when last, on the scheduler's clock.
    heard_us: Option<u64>,
    is_told: bool,
}

#[derive(Debug)]
enum Waiting {
    Task(Span),
    Fetch(Transfer),
}

/// The last spans that were told.
#[derive(Debug, Default)]
struct Told {
    all: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Told {
    /// False where it was told before.
    fn insert(&mut self, id: u64) -> bool {
        if !self.all.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > MOST_TOLD
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
        true
    }
}

impl OtlpSpans {
    /// Takes in what was said. What comes of it is had by [`OtlpSpans::request`].
    pub fn take(&mut self, message: &Message) {
        self.learn(message);
        if let Message::Frame(frame) = message {
            self.add(frame);
            self.forget_some();
        }
    }

    /// What has happened, when names are learnt.
    fn add(&mut self, frame: &Frame) {
        self.frames += 1;
        self.now_us = self.now_us.max(frame.now_us);
        if frame.whole {
            self.give_up_all_but(&frame.graphs);
        }
        for graph in &frame.graphs {
            if let Some(known) = self.graphs.get_mut(&graph.id) {
                known.heard_us = Some(frame.now_us);
            }
        }
        for note in &frame.notes {
            self.mark(note);
        }
        let tasks = frame.spans.iter().cloned().map(Waiting::Task);
        let fetches = frame.transfers.iter().cloned().map(Waiting::Fetch);
        for one in tasks.chain(fetches) {
            self.waiting.push_back((self.frames, one));
        }
        let waiting = std::mem::take(&mut self.waiting);
        for (since, one) in waiting {
            let is_known = self.graphs.contains_key(one.graph());
            let is_given_up = self.frames - since > PATIENCE || self.waiting.len() >= MOST_WAITING;
            if is_known || is_given_up {
                self.tell(&one);
            } else {
                self.waiting.push_back((since, one));
            }
        }
        for graph in &frame.graphs {
            if graph.end_us.is_some() {
                self.tell_graph(&graph.id);
            }
        }
    }

    /// Whoever looks on for days does not remember them.
    fn forget_some(&mut self) {
        let surplus = self.ended.len().saturating_sub(MOST_ENDED);
        for oldest in self.ended.drain(..surplus) {
            self.graphs.remove(&oldest);
        }
        while self.graphs.len() > MOST_GRAPHS && self.give_up_oldest() {}
    }

    /// Where very many graphs are said to run, the end of some was never told. False where there is none.
    fn give_up_oldest(&mut self) -> bool {
        let heard = self.graphs.iter();
        let heard = heard.filter_map(|(id, known)| Some((known.heard_us?, id)));
        let Some(oldest) = heard.min().map(|(_, id)| id.clone()) else {
            return false;
        };
        self.tell_graph(&oldest);
        self.graphs.remove(&oldest);
        true
    }

    /// A viewer that was too slow is told all that is remembered: other graphs ended unheard.
    fn give_up_all_but(&mut self, graphs: &[Graph]) {
        let named: HashSet<&str> = graphs.iter().map(|graph| graph.id.as_str()).collect();
        let over = self.graphs.iter().filter(|(id, known)| {
            !known.is_told && known.heard_us.is_some() && !named.contains(id.as_str())
        });
        let over: Vec<String> = over.map(|(id, _)| id.clone()).collect();
        for id in over {
            self.tell_graph(&id);
            self.graphs.remove(&id);
        }
    }

    /// Nothing more comes: what still runs is told as far as it is.
    pub fn end(&mut self) {
        for (_, one) in std::mem::take(&mut self.waiting) {
            self.tell(&one);
        }
        let running: Vec<String> = self.graphs.keys().cloned().collect();
        for graph in running {
            self.tell_graph(&graph);
        }
    }

    /// How many spans are to be had.
    pub fn len(&self) -> usize {
        self.ready.values().map(Vec::len).sum()
    }

    /// Whether there is nothing to be sent.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Spans that were not had before, as many as one request to a collector should have, as its body; `None` where there are none.
    pub fn request(&mut self) -> Option<Value> {
        if self.is_empty() {
            return None;
        }
        let ready = self.some_ready();
        let version = self.about.as_ref().map_or("", |it| it.version.as_str());
        let groups = ready.into_iter().map(|(worker, spans)| {
            json!({
                "resource": {"attributes": self.resource(worker.as_deref(), version)},
                "scopeSpans": [{"scope": {"name": "transload", "version": version}, "spans": spans}],
            })
        });
        let groups: Vec<Value> = groups.collect();
        Some(json!({ "resourceSpans": groups }))
    }

    fn some_ready(&mut self) -> BTreeMap<Option<String>, Vec<Value>> {
        let mut some = BTreeMap::new();
        let mut room = MOST_PER_REQUEST;
        while room > 0
            && let Some(mut of) = self.ready.first_entry()
        {
            let spans = of.get_mut();
            let first: Vec<Value> = spans.drain(..room.min(spans.len())).collect();
            room -= first.len();
            some.insert(of.key().clone(), first);
            if of.get().is_empty() {
                of.remove();
            }
        }
        some
    }

    fn request_into(&mut self, text: &mut String) {
        while let Some(request) = self.request() {
            text.push_str(&request.to_string());
            text.push('\n');
        }
    }

    /// Who a span is of, in OpenTelemetry's words.
    fn resource(&self, worker: Option<&str>, version: &str) -> Vec<Value> {
        let mut attributes = vec![
            text_of("service.name", "transload"),
            text_of("service.version", version),
        ];
        if let Some(about) = &self.about {
            attributes.push(text_of("transload.scheduler", &about.scheduler));
        }
        attributes.push(text_of(
            "service.instance.id",
            worker.unwrap_or("scheduler"),
        ));
        if let Some(worker) = worker.and_then(|it| self.workers.get(it)) {
            attributes.push(text_of("host.name", &worker.host));
            attributes.push(number_of("process.pid", worker.pid.into()));
            attributes.push(text_of("transload.worker.name", &worker.name));
        }
        attributes
    }

    fn learn(&mut self, message: &Message) {
        match message {
            Message::About(about) => {
                // A later one says the same, and another moment of a clock that is none too exact.
                self.about.get_or_insert_with(|| about.clone());
            }
            Message::Frame(frame) => self.learn_names(frame),
        }
    }

    fn learn_names(&mut self, frame: &Frame) {
        for worker in frame.workers.iter().flatten() {
            if !self.workers.contains_key(&worker.id) {
                self.workers.insert(worker.id.clone(), worker.clone());
            }
        }
        for graph in &frame.graphs {
            match self.graphs.get_mut(&graph.id) {
                Some(known) => known.graph = graph.clone(),
                None => {
                    let known = Known {
                        graph: graph.clone(),
                        marks: Vec::new(),
                        heard_us: None,
                        is_told: false,
                    };
                    self.graphs.insert(graph.id.clone(), known);
                }
            }
        }
    }

    /// What somebody should know of a graph is a mark on its span.
    fn mark(&mut self, note: &Note) {
        let at = self.unix_nanos(note.at_us);
        let known = note.graph.as_ref().and_then(|it| self.graphs.get_mut(it));
        let Some(known) = known.filter(|it| it.marks.len() < MOST_MARKS && !it.is_told) else {
            return;
        };
        let mut attributes = Vec::new();
        for (key, value) in [
            ("transload.task", &note.task),
            ("transload.worker", &note.worker),
        ] {
            attributes.extend(value.as_ref().map(|value| text_of(key, value)));
        }
        let mark = json!({"timeUnixNano": at, "name": note.text, "attributes": attributes});
        if !known.marks.contains(&mark) {
            known.marks.push(mark);
        }
    }

    fn tell(&mut self, one: &Waiting) {
        match one {
            Waiting::Task(span) => self.tell_task(span),
            Waiting::Fetch(transfer) => self.tell_fetch(transfer),
        }
    }

    fn tell_task(&mut self, span: &Span) {
        let id = id_of((
            self.scheduler(),
            "task",
            &span.task,
            &span.worker,
            span.start_us,
        ));
        if !self.told.insert(id) {
            return;
        }
        let known = self.graphs.get(&span.graph);
        let layer = known.and_then(|it| it.graph.layers.get(span.layer as usize));
        let name = layer.map_or_else(|| format!("layer {}", span.layer), |it| it.name.clone());
        let mut attributes = vec![
            text_of("transload.graph", &span.graph),
            text_of("transload.task", &span.task),
            number_of("transload.tasks", span.count.into()),
            number_of("transload.slot", span.lane.into()),
            number_of("transload.output.bytes", span.bytes),
        ];
        attributes.extend(layer.map(|it| text_of("transload.operator", &it.operator)));
        let status = span.failed.as_deref().map_or_else(
            || json!({"code": OK}),
            |reason| json!({"code": ERROR, "message": reason}),
        );
        let times = (span.start_us, span.end_us);
        let told = self.child(
            &span.graph,
            (id, INTERNAL, &name),
            times,
            attributes,
            status,
        );
        self.push(Some(&span.worker), told);
    }

    fn tell_fetch(&mut self, transfer: &Transfer) {
        let Transfer {
            partition,
            to,
            from,
            ..
        } = transfer;
        let id = id_of((self.scheduler(), "fetch", partition, to, transfer.start_us));
        if !self.told.insert(id) {
            return;
        }
        let attributes = vec![
            text_of("transload.partition", partition),
            number_of("transload.partitions", transfer.count.into()),
            text_of("transload.from", from),
            text_of("transload.transport", &transfer.transport),
            number_of("transload.bytes", transfer.bytes),
        ];
        let name = format!("fetch from {from}");
        let times = (transfer.start_us, transfer.end_us);
        let graph = graph_of_partition(partition);
        let told = self.child(graph, (id, CLIENT, &name), times, attributes, json!({}));
        self.push(Some(to), told);
    }

    /// Once.
    fn tell_graph(&mut self, id: &str) {
        let (trace, root) = self.trace(id);
        let Some(known) = self.graphs.get_mut(id).filter(|known| !known.is_told) else {
            return;
        };
        known.is_told = true;
        if known.graph.end_us.is_some() {
            self.ended.push_back(id.to_owned());
        }
        if self.told.insert(root) {
            self.tell_graph_now(id, (trace, root));
        }
    }

    fn tell_graph_now(&mut self, id: &str, (trace, root): (String, u64)) {
        let Some(known) = self.graphs.get_mut(id) else {
            return;
        };
        let marks = std::mem::take(&mut known.marks);
        let graph = &known.graph;
        let status = match (graph.state.as_str(), &graph.reason) {
            // How it ended nobody has heard.
            ("running" | "ended", _) => json!({}),
            ("finished", _) => json!({"code": OK}),
            (_, Some(reason)) => json!({"code": ERROR, "message": reason}),
            (state, None) => json!({"code": ERROR, "message": state}),
        };
        let layers = graph.layers.iter();
        let tasks: u64 = layers.map(|layer| u64::from(layer.total)).sum();
        let attributes = vec![
            text_of("transload.graph", &graph.id),
            text_of("transload.name", &graph.name),
            text_of("transload.client", &graph.client),
            text_of("transload.state", &graph.state),
            number_of("transload.tasks", tasks),
        ];
        let times = (
            graph.start_us,
            graph
                .end_us
                .or(known.heard_us)
                .unwrap_or(self.now_us)
                .max(graph.start_us),
        );
        let name = short(&graph.name);
        let span = json!({
            "traceId": trace, "spanId": hex(root), "name": name, "kind": INTERNAL,
            "startTimeUnixNano": self.unix_nanos(times.0), "endTimeUnixNano": self.unix_nanos(times.1),
            "attributes": attributes, "events": marks, "status": status,
        });
        self.push(None, span);
    }

    /// A span below that of a graph.
    fn child(
        &self,
        graph: &str,
        (id, kind, name): (u64, u8, &str),
        (start_us, end_us): (u64, u64),
        attributes: Vec<Value>,
        status: Value,
    ) -> Value {
        let (trace, root) = self.trace(graph);
        json!({
            "traceId": trace, "spanId": hex(id), "parentSpanId": hex(root), "name": name, "kind": kind,
            "startTimeUnixNano": self.unix_nanos(start_us),
            "endTimeUnixNano": self.unix_nanos(end_us.max(start_us)),
            "attributes": attributes, "status": status,
        })
    }

    fn push(&mut self, worker: Option<&str>, span: Value) {
        let of = self.ready.entry(worker.map(str::to_owned));
        of.or_default().push(span);
    }

    /// The trace of a graph, and its first span: the same whoever looks.
    fn trace(&self, graph: &str) -> (String, u64) {
        let of = (self.scheduler(), graph);
        let (high, low) = (id_of(("trace", &of)), id_of(("trace, second half", &of)));
        (format!("{}{}", hex(high), hex(low)), id_of(("graph", &of)))
    }

    /// Which scheduler: one that is started anew at the same address begins to count again.
    fn scheduler(&self) -> (&str, u64) {
        let about = self.about.as_ref();
        about.map_or(("", 0), |it| (it.scheduler.as_str(), it.started_unix_ms))
    }

    /// A moment of the scheduler's clock, as OTLP writes 64 bits.
    fn unix_nanos(&self, at_us: u64) -> String {
        let about = self.about.as_ref();
        let start_us = about.map_or(0, |about| {
            about
                .unix_ms
                .saturating_mul(1_000)
                .saturating_sub(about.now_us)
        });
        start_us
            .saturating_add(at_us)
            .saturating_mul(1_000)
            .to_string()
    }
}

impl Waiting {
    fn graph(&self) -> &str {
        match self {
            Self::Task(span) => &span.graph,
            Self::Fetch(transfer) => graph_of_partition(&transfer.partition),
        }
    }
}

/// `1.0` of `1.0.17/2`.
fn graph_of_partition(partition: &str) -> &str {
    partition
        .rsplit_once('.')
        .map_or(partition, |(graph, _)| graph)
}

/// An id that OpenTelemetry takes: any number but 0.
fn id_of(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish().max(1)
}

fn hex(id: u64) -> String {
    format!("{id:016x}")
}

/// Backends list spans by name: of a query, the beginning will do.
fn short(name: &str) -> String {
    let words: Vec<&str> = name.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(MOST_NAME) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn text_of(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number_of(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

#[cfg(test)]
mod tests;
