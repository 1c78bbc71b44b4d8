//! Made-up clusters for tests.

use std::collections::BTreeSet;

use transload_protocol::{
    GraphId, GraphInfo, LayerIndex, LayerInfo, LayerProgress, Resources, TaskId, WorkerHello,
    WorkerId, WorkerInfo, WorkerLoad,
};

use crate::view::{About, Frame, Message, Note, NoteKind, Span, Transfer, Way, Worker};

pub(crate) const GRAPH: GraphId = GraphId {
    client: transload_protocol::ClientId(1),
    sequence: 0,
};

pub(crate) fn task(index: u32) -> TaskId {
    TaskId {
        graph: GRAPH,
        index,
    }
}

pub(crate) fn worker(number: u32) -> WorkerInfo {
    WorkerInfo {
        worker: WorkerId(number),
        hello: WorkerHello {
            name: format!("worker-{number}"),
            host: "host".to_owned(),
            process: 100 + number,
            resources: Resources::slots(2),
            memory_bytes: 1 << 30,
            addresses: Vec::new(),
            labels: BTreeSet::new(),
            shared: BTreeSet::new(),
            gpu: None,
        },
        load: WorkerLoad::default(),
        assigned: 0,
        finished: 0,
        spilled_bytes: 0,
        stragglers: Vec::new(),
        apart_from: Vec::new(),
        aside: false,
    }
}

/// Two layers: of three tasks, and of one that reads them.
pub(crate) fn graph() -> GraphInfo {
    let layer = |name: &str, first_task, total, reads| LayerInfo {
        name: name.to_owned(),
        operator: format!("op-{name}"),
        first_task,
        reads,
        progress: LayerProgress {
            total,
            done: 0,
            running: 0,
        },
    };
    GraphInfo {
        graph: GRAPH,
        name: "SELECT".to_owned(),
        description: "SELECT 1".to_owned(),
        client: "a test".to_owned(),
        layers: vec![
            layer("scan", 0, 3, Vec::new()),
            layer("sum", 3, 1, vec![LayerIndex(0)]),
        ],
    }
}

pub(crate) fn about() -> Message {
    Message::About(About {
        version: "0.1.0".to_owned(),
        protocol: 1,
        scheduler: "127.0.0.1:8790".to_owned(),
        now_us: 5_000,
        unix_ms: 1_000,
        started_unix_ms: 995,
    })
}

pub(crate) fn frame() -> Frame {
    Frame {
        whole: true,
        now_us: 9_000,
        workers: Some(vec![Worker {
            id: "w1".to_owned(),
            name: "one".to_owned(),
            host: "host".to_owned(),
            ..Worker::default()
        }]),
        graphs: vec![crate::words::graph(&graph(), 0)],
        spans: vec![Span {
            task: "1.0.2".to_owned(),
            graph: "1.0".to_owned(),
            layer: 0,
            worker: "w1".to_owned(),
            lane: 1,
            start_us: 10,
            end_us: 30,
            bytes: 7,
            count: 1,
            failed: None,
        }],
        transfers: vec![Transfer {
            partition: "1.0.2/0".to_owned(),
            from: "w1".to_owned(),
            to: "w2".to_owned(),
            start_us: 40,
            end_us: 55,
            bytes: 7,
            count: 1,
            transport: "tcp".to_owned(),
            way: Way::Tcp,
        }],
        notes: vec![Note {
            at_us: 60,
            kind: NoteKind::WorkerJoined,
            text: "w1 has joined".to_owned(),
            worker: Some("w1".to_owned()),
            graph: None,
            task: None,
        }],
        ..Frame::default()
    }
}
