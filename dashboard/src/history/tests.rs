//! Tests of the history: what is told, what is remembered, and how much of it.

use transload_protocol::{
    Demotion, Event, EventRecord, GraphOutcome, LayerIndex, LayerProgress, PartitionId,
    RunningTask, Tier, TierUsage, Time, WorkerId,
};

use super::*;
use crate::fakes::{self, GRAPH, task};
use crate::view::{NoteKind, Way};

const W1: WorkerId = WorkerId(1);
const W2: WorkerId = WorkerId(2);

fn at(micros: u64, events: Vec<Event>) -> Batch {
    let record = |event| EventRecord {
        at: Time::from_micros(micros),
        event,
    };
    Batch {
        now: Time::from_micros(micros),
        events: events.into_iter().map(record).collect(),
        ..Batch::default()
    }
}

fn accepted(micros: u64) -> Batch {
    Batch {
        graphs: vec![fakes::graph()],
        ..at(
            micros,
            vec![Event::GraphAccepted {
                graph: GRAPH,
                tasks: 4,
            }],
        )
    }
}

fn ran(micros: u64, all: &[(u32, WorkerId, u64)]) -> Batch {
    let ran = |(index, worker, run_micros): &(u32, WorkerId, u64)| RanTask {
        task: task(*index),
        worker: *worker,
        bytes: 10,
        rows: 3,
        run_micros: *run_micros,
    };
    Batch {
        ran: all.iter().map(ran).collect(),
        ..at(micros, Vec::new())
    }
}

fn cluster(workers: Vec<transload_protocol::WorkerInfo>) -> ClusterInfo {
    ClusterInfo {
        workers,
        ..ClusterInfo::default()
    }
}

#[test]
fn a_task_that_ran_is_a_span_of_its_layer_and_slot() {
    let mut history = History::default();
    history.take(accepted(1_000));
    let assigned = AssignedTasks {
        worker: W1,
        graph: GRAPH,
        layer: LayerIndex(1),
        count: 1,
    };
    let batch = at(2_000, Vec::new());
    history.take(Batch {
        assigned: vec![assigned; 2],
        ..batch
    });
    history.take(ran(90_000, &[(2, W1, 80_000), (3, W1, 70_000)]));
    let frame = history.news(100_000, false);
    let spans: Vec<_> = frame
        .spans
        .iter()
        .map(|it| (it.task.as_str(), it.layer, it.lane, it.start_us, it.end_us))
        .collect();
    assert_eq!(
        spans,
        [
            ("1.0.2", 0, 0, 10_000, 90_000),
            ("1.0.3", 1, 1, 20_000, 90_000)
        ]
    );
    let assignment = &frame.assignments[0];
    assert_eq!(
        (
            assignment.worker.as_str(),
            assignment.layer,
            assignment.count
        ),
        ("w1", 1, 2)
    );
    let graph = &frame.graphs[0];
    assert_eq!((graph.name.as_str(), graph.start_us), ("SELECT 1", 1_000));
    let sum = &graph.layers[1];
    assert_eq!((sum.run_us, sum.bytes, sum.rows), (70_000, 10, 3));
    let next = history.news(200_000, false);
    assert_eq!(
        (next.spans.len(), next.graphs.len(), next.assignments.len()),
        (0, 0, 0),
        "nothing is told twice"
    );
    let whole = history.whole(200_000);
    assert_eq!((whole.spans, whole.graphs), (frame.spans, frame.graphs));
}

#[test]
fn what_workers_tell_is_put_on_the_schedulers_clock() {
    let mut history = History::default();
    let fetched = |at_theirs, micros| EventRecord {
        at: Time::from_micros(at_theirs),
        event: Event::PartitionFetched {
            partition: PartitionId {
                task: task(0),
                output: 2,
            },
            from: W1,
            to: W2,
            bytes: 64,
            transport: "ucx posix/memory".to_owned(),
            micros,
        },
    };
    // Its clock is 1,000,000 behind, and messages take 500 or 20.
    for (now, theirs) in [(1_000_500, 0), (1_003_020, 3_000), (1_009_500, 9_000)] {
        history.take(Batch {
            now: Time::from_micros(now),
            events: vec![fetched(theirs, 10)],
            ..Batch::default()
        });
    }
    let frame = history.news(2_000_000, false);
    let times: Vec<_> = frame
        .transfers
        .iter()
        .map(|it| (it.start_us, it.end_us))
        .collect();
    assert_eq!(
        times,
        [
            (1_000_490, 1_000_500),
            (1_003_010, 1_003_020),
            (1_009_010, 1_009_020)
        ]
    );
    let first = &frame.transfers[0];
    assert_eq!(
        (first.from.as_str(), first.to.as_str(), first.way),
        ("w1", "w2", Way::UcxShm)
    );
    assert_eq!(first.partition, "1.0.0/2");
}

#[test]
fn a_lost_worker_is_remembered_with_its_reason_and_its_sums() {
    let mut history = History::default();
    let mut gone = fakes::worker(1);
    gone.finished = 5;
    gone.load.running = vec![RunningTask {
        task: task(0),
        running_ms: 7,
    }];
    history.see(&cluster(vec![gone, fakes::worker(2)]), 1_000, 0);
    let lost = Event::WorkerLost {
        worker: W1,
        reason: "it died".to_owned(),
    };
    history.take(at(2_000, vec![lost]));
    history.see(&cluster(vec![fakes::worker(2)]), 3_000, 0);
    let frame = history.news(3_000, true);
    let workers = frame.workers.expect("asked for");
    let states: Vec<_> = workers
        .iter()
        .map(|it| (it.id.as_str(), it.lost.as_deref()))
        .collect();
    assert_eq!(states, [("w2", None), ("w1", Some("it died"))]);
    assert!(workers[1].running.is_empty());
    assert_eq!(frame.totals.tasks_finished, 5);
    assert_eq!(frame.notes[0].kind, NoteKind::WorkerLost);
}

#[test]
fn a_graph_whose_end_nobody_heard_of_has_ended_when_it_is_missing_twice() {
    let mut history = History::default();
    history.take(accepted(1));
    history.see(&ClusterInfo::default(), 2, 0);
    assert_eq!(
        history.news(2, false).graphs[0].state,
        "running",
        "it may be newer than that"
    );
    history.see(&ClusterInfo::default(), 3, 0);
    assert_eq!(history.news(3, false).graphs[0].state, "ended");
}

#[test]
fn progress_and_the_end_of_a_graph_are_told() {
    let mut history = History::default();
    history.take(accepted(1));
    history.news(1, false);
    let mut info = fakes::graph();
    info.layers[0].progress = LayerProgress {
        total: 3,
        done: 1,
        running: 2,
    };
    let info = ClusterInfo {
        graphs: vec![info],
        ..ClusterInfo::default()
    };
    history.see(&info, 5, 0);
    let told = history.news(5, false).graphs;
    assert_eq!((told[0].layers[0].done, told[0].layers[0].running), (1, 2));
    history.see(&info, 6, 0);
    assert!(
        history.news(6, false).graphs.is_empty(),
        "nothing has changed"
    );
    let outcome = Box::new(GraphOutcome::Finished);
    history.take(at(
        9,
        vec![Event::GraphEnded {
            graph: GRAPH,
            outcome,
        }],
    ));
    let told = history.news(9, false).graphs;
    assert_eq!(
        (told[0].state.as_str(), told[0].end_us),
        ("finished", Some(9))
    );
    assert_eq!((told[0].layers[1].done, told[0].layers[0].running), (1, 0));
}

#[test]
fn memory_is_sampled_once_a_second() {
    let mut history = History::default();
    let mut worker = fakes::worker(1);
    worker.load.tiers = vec![TierUsage {
        tier: Tier::Device,
        used_bytes: 3,
        limit_bytes: 9,
    }];
    for now_us in [0, 400_000, 999_999, 1_000_000, 2_500_000] {
        history.see(&cluster(vec![worker.clone()]), now_us, 0);
    }
    let frame = history.news(2_500_000, false);
    let samples: Vec<_> = frame
        .memory
        .iter()
        .map(|it| (it.at_us, it.used_bytes))
        .collect();
    assert_eq!(
        samples,
        [0, 1_000_000, 2_500_000].map(|at| (at, [0, 0, 3, 0]))
    );
}

#[test]
fn much_at_once_is_put_together_and_loses_no_count() {
    let mut history = History::default();
    history.take(accepted(0));
    let many = 30_000;
    for round in 0..many {
        let now = 1_000 + round * 10;
        history.take(ran(now, &[(0, W1, 10), (1, W2, 10)]));
    }
    let frame = history.news(1_000_000, false);
    assert!(frame.spans.len() <= 100, "{}", frame.spans.len());
    let count: u32 = frame.spans.iter().map(|it| it.count).sum();
    assert_eq!(u64::from(count), 2 * many);
    let bytes: u64 = frame.spans.iter().map(|it| it.bytes).sum();
    assert_eq!(bytes, 2 * many * 10);
}

#[test]
fn what_is_remembered_is_bounded_whatever_comes() {
    let mut history = History::default();
    for number in 0..3_000 {
        let mut graph = fakes::graph();
        graph.graph.sequence = number;
        let outcome = Box::new(GraphOutcome::Cancelled);
        let ended = Event::GraphEnded {
            graph: graph.graph,
            outcome,
        };
        let lost = Event::WorkerLost {
            worker: WorkerId(number),
            reason: String::new(),
        };
        history.see(
            &cluster(vec![fakes::worker(number)]),
            u64::from(number) * 1_000_000,
            0,
        );
        let shifted = Event::PartitionMoved {
            partition: PartitionId {
                task: task(0),
                output: 0,
            },
            worker: WorkerId(number),
            from: Tier::Host,
            to: Tier::Disk,
            bytes: 1,
            micros: 1,
        };
        let mut events = vec![shifted; 20];
        if number % 2 == 0 {
            events.push(ended);
        }
        events.push(lost);
        let batch = at(u64::from(number), events);
        history.take(Batch {
            graphs: vec![graph],
            ..batch
        });
        history.news(u64::from(number), false);
    }
    let whole = history.whole(0);
    assert_eq!(whole.workers.map(|it| it.len()), Some(MOST_LOST));
    assert_eq!(whole.notes.len(), MOST_NOTES);
    assert_eq!(whole.moves.len(), MOST_MOVES);
    let running = whole.graphs.iter().filter(|it| it.end_us.is_none());
    assert_eq!((whole.graphs.len(), running.count()), (301, 1));
}

#[test]
fn a_task_that_failed_is_a_span_as_long_as_it_ran_and_a_note() {
    let mut history = History::default();
    history.take(accepted(1_000));
    let failed = Event::TaskFailed {
        task: task(2),
        worker: W1,
        message: "boom".to_owned(),
        run_micros: 80_000,
    };
    history.take(at(90_000, vec![failed]));
    let frame = history.news(100_000, false);
    let [span] = frame.spans.as_slice() else {
        panic!("{frame:?}");
    };
    assert_eq!((span.start_us, span.end_us), (10_000, 90_000));
    assert_eq!(span.failed.as_deref(), Some("boom"));
    let note = frame.notes.last().expect("a note");
    assert_eq!(note.kind, NoteKind::TaskFailed);
    assert_eq!(note.text, "task 1.0.2 failed on w1: boom");
}

#[test]
fn who_stands_aside_and_why_is_a_note() {
    let mut history = History::default();
    let apart = Event::WorkersApart {
        reader: W2,
        holder: W1,
        reason: "no route".to_owned(),
        aside: vec![W1],
        pause_ms: 15_000,
    };
    history.take(at(5, vec![apart]));
    let frame = history.news(10, false);
    assert_eq!(frame.notes[0].kind, NoteKind::Apart);
    assert_eq!(
        frame.notes[0].text,
        "w2 cannot fetch from w1: no route; w1 gets nothing that others can take for 15 s"
    );
}

#[test]
fn what_others_say_of_links_is_a_note() {
    let mut history = History::default();
    let demotion = Demotion {
        wanted: "ucx".to_owned(),
        reason: "no".to_owned(),
        lasting: false,
    };
    history.take(at(
        1,
        vec![Event::LinkDemoted {
            from: W1,
            to: W2,
            demotion,
            used: "tcp".to_owned(),
        }],
    ));
    let note = &history.news(1, false).notes[0];
    assert_eq!(
        note.text,
        "w2 fetches from w1 over tcp and not over ucx: no"
    );
}
