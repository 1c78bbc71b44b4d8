//! Workers that cannot fetch from each other: graphs end all the same, and what works is used.

use transload_protocol::{
    ClientMessage, Edges, Event, EventRecord, GraphId, GraphOutcome, Layer, TaskErrorKind,
    TaskGraph, WorkerId, WorkerMessage,
};

use crate::Input;
use crate::testing::graphs::{gang, independent};
use crate::testing::{CLIENT, Cluster, partition, task};

/// A link that has broken for the first time is tried again sooner than this.
const PAUSE_MICROS: u64 = 16_000_000;

/// Twice everything is read by everyone, which takes all that one task made to all the workers.
fn shuffles(tasks: u32) -> TaskGraph {
    let mut graph = TaskGraph::new("shuffles");
    let first = graph.push(Layer::new("first", "op", tasks).with_outputs(tasks));
    let second = Layer::new("second", "op", tasks).with_outputs(tasks);
    let second = graph.push(second.reading(first, Edges::Shuffle));
    let last = graph.push(Layer::new("last", "op", tasks).reading(second, Edges::Shuffle));
    graph.keep(last);
    graph
}

impl Cluster {
    /// Runs a graph to its end where such pairs of workers cannot fetch from each other. How many tasks were tried in vain.
    fn run_apart(&mut self, graph: GraphId, is_apart: impl Fn(WorkerId, WorkerId) -> bool) -> u32 {
        let mut vain = 0;
        while self.outcome(graph).is_none() {
            if self.assigned().is_empty() {
                self.ask_those_aside();
            }
            let id = *self.assigned().first().expect("somebody works");
            let worker = self.worker_of(id).expect("assigned");
            let reads = &self.workers[&worker].assigned[&id].reads;
            let out_of_reach = reads.iter().find(|(_, holder)| is_apart(worker, *holder));
            match out_of_reach.copied() {
                Some(missing) => {
                    self.not_reach(id, missing);
                    vain += 1;
                }
                None => {
                    self.finish(id);
                }
            }
            assert!(vain < 1_000, "it goes round and round");
        }
        assert_eq!(self.outcome(graph), Some(&GraphOutcome::Finished));
        vain
    }

    fn aside(&mut self) -> Vec<WorkerId> {
        let info = self.scheduler.info();
        let aside = info.workers.iter().filter(|it| it.aside);
        aside.map(|it| it.worker).collect()
    }

    /// For how long the link that broke first since then is not relied on, in milliseconds.
    fn paused(&self) -> Option<u64> {
        self.events.iter().find_map(|event| match event {
            Event::WorkersApart { pause_ms, .. } => Some(*pause_ms),
            _ => None,
        })
    }

    /// A link breaks, whatever was to come over it.
    fn part(&mut self, reader: WorkerId, holder: WorkerId) {
        let slot = |id| self.scheduler.workers.by_id[&id];
        let (reader, holder) = (slot(reader), slot(holder));
        let mut actions = Vec::new();
        self.scheduler
            .on_unreached(reader, holder, "no route to host", &mut actions);
        for action in actions {
            self.carry_out(action);
        }
        self.feed(Input::Tick);
    }

    /// Time passes until those aside are asked again.
    fn ask_those_aside(&mut self) {
        self.now = self.now.after_micros(30_000);
        self.feed(Input::Tick);
    }

    /// What was told of links that broke: reader, holder, who stands aside.
    fn told_apart(&self) -> Vec<(WorkerId, WorkerId, Vec<WorkerId>)> {
        let told = self.events.iter().filter_map(|event| match event {
            Event::WorkersApart {
                reader,
                holder,
                aside,
                ..
            } => Some((*reader, *holder, aside.clone())),
            _ => None,
        });
        told.collect()
    }
}

fn pair(one: u32, other: u32) -> impl Fn(WorkerId, WorkerId) -> bool {
    move |a, b| {
        let ends = (a.0.min(b.0), a.0.max(b.0));
        ends == (one, other)
    }
}

#[test]
fn a_graph_ends_where_two_of_three_workers_are_apart() {
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let mut cluster = Cluster::of(3, 2);
        let graph = cluster.submit(shuffles(12));
        let vain = cluster.run_apart(graph, pair(one, other));
        // What was at work when the link broke, and what the one that stands aside had made.
        assert!(vain <= 24, "{vain} tasks were tried in vain");
        let told = cluster.told_apart();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].2.len(), 1, "one is enough: {told:?}");
    }
}

#[test]
fn a_graph_ends_where_every_worker_is_on_its_own() {
    let mut cluster = Cluster::of(4, 2);
    let graph = cluster.submit(shuffles(12));
    let vain = cluster.run_apart(graph, |one, other| one != other);
    assert!(vain <= 100, "{vain} tasks were tried in vain");
    // Of two that have nothing to ask of each other it is not known.
    assert!(cluster.aside().len() >= 2);
}

#[test]
fn a_worker_that_reads_from_nobody_stands_aside_and_not_those_that_it_asks() {
    for lonely in 0..4 {
        let mut cluster = Cluster::of(4, 2);
        let graph = cluster.submit(shuffles(12));
        cluster.run_apart(graph, |reader, holder| {
            reader.0 == lonely && holder != reader
        });
        // One that it could not read from is no worse, as far as anyone can know; of two, it is.
        assert_eq!(cluster.aside().len(), 1);
        let others = (0..4).filter(|other| *other != lonely);
        for other in others {
            cluster.part(WorkerId(lonely), WorkerId(other));
        }
        assert_eq!(cluster.aside(), [WorkerId(lonely)]);
    }
}

/// Three workers of which the last two are apart, and the graph that found out.
fn two_apart() -> (Cluster, GraphId) {
    let mut cluster = Cluster::of(3, 1);
    let graph = cluster.submit(shuffles(3));
    cluster.run_apart(graph, pair(1, 2));
    assert_eq!(cluster.aside().len(), 1);
    (cluster, graph)
}

#[test]
fn after_a_while_the_link_is_tried_again_and_after_a_longer_one_if_it_is_still_broken() {
    let (mut cluster, graph) = two_apart();
    let deadline = cluster.scheduler.next_deadline().expect("it waits");
    assert!(deadline <= cluster.now.after_micros(PAUSE_MICROS));
    let first = cluster.told_apart()[0].clone();
    let ids = (0..9).map(|index| task(graph, index));
    cluster.release(ids.collect());
    for expected in [30_000, 60_000, 120_000, 240_000, 480_000, 960_000, 960_000] {
        cluster.now = cluster.now.after_micros(1_000_000_000);
        cluster.say_alive();
        cluster.feed(Input::Tick);
        assert_eq!(cluster.aside(), []);
        cluster.events.clear();
        let (reader, holder, _) = first.clone();
        cluster.part(reader, holder);
        assert_eq!(cluster.paused(), Some(expected));
    }
    // Something comes over it the other way, and says nothing of this one; then the same way, and it is as good as any other.
    let (reader, holder, _) = cluster.told_apart()[0];
    for ((from, to), expected) in [((reader, holder), 960_000), ((holder, reader), 15_000)] {
        cluster.now = cluster.now.after_micros(1_000_000_000);
        cluster.say_alive();
        cluster.feed(Input::Tick);
        let event = Event::PartitionFetched {
            partition: partition(graph, 0),
            from,
            to,
            bytes: 1,
            transport: "tcp".to_owned(),
            micros: 1,
        };
        let at = cluster.now;
        let events = vec![EventRecord { at, event }];
        cluster.say(to, WorkerMessage::Events { events });
        cluster.events.clear();
        cluster.part(reader, holder);
        assert_eq!(cluster.paused(), Some(expected));
    }
}

#[test]
fn who_stands_aside_works_where_nobody_else_can_and_is_free_when_the_other_is_gone() {
    let (mut cluster, _) = two_apart();
    let aside = cluster.aside()[0];
    let others = [WorkerId(0), WorkerId(1), WorkerId(2)];
    let others: Vec<WorkerId> = others.into_iter().filter(|it| *it != aside).collect();
    let waiting = cluster.submit(independent(6));
    assert!(cluster.workers[&aside].assigned.is_empty());
    cluster.tell(ClientMessage::Explain {
        task: task(waiting, 5),
    });
    let explained = cluster.clients[&CLIENT].explained.last();
    let explained = explained.expect("answered").details.join("; ");
    let said = format!("worker {aside} (`worker {}`) gets nothing", aside.0);
    assert!(explained.contains(&said), "{explained}");
    cluster.kill(others[0]);
    cluster.kill(others[1]);
    assert_eq!(cluster.aside(), []);
    cluster.run();
    assert_eq!(cluster.outcome(waiting), Some(&GraphOutcome::Finished));
}

#[test]
fn a_gang_is_not_put_on_both_ends_of_a_broken_link_unless_it_must() {
    let (mut cluster, _) = two_apart();
    let aside = cluster.aside()[0];
    let small = cluster.submit(gang(2));
    assert!(cluster.workers[&aside].assigned.is_empty());
    for index in 0..2 {
        cluster.finish(task(small, index));
    }
    let large = cluster.submit(gang(3));
    assert_eq!(cluster.workers[&aside].assigned.len(), 1);
    cluster.run();
    assert_eq!(cluster.outcome(large), Some(&GraphOutcome::Finished));
}

#[test]
fn of_those_aside_a_gang_gets_no_more_than_it_needs() {
    let mut cluster = Cluster::of(6, 1);
    cluster.part(WorkerId(0), WorkerId(1));
    cluster.part(WorkerId(2), WorkerId(3));
    assert_eq!(cluster.aside(), [WorkerId(1), WorkerId(3)]);
    let graph = cluster.submit(gang(5));
    let works = |worker| !cluster.workers[&WorkerId(worker)].assigned.is_empty();
    assert!([0, 2, 4, 5].into_iter().all(works));
    assert!(works(1) != works(3));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn what_only_the_one_aside_can_run_reads_what_is_made_there() {
    for tied in [0, 1] {
        let mut cluster = Cluster::of(2, 2);
        let mut graph = TaskGraph::new("tied");
        let made = graph.push(Layer::new("made", "op", 6));
        let used = Layer::new("used", "op", 6).on_worker(WorkerId(tied));
        let used = graph.push(used.reading(made, Edges::OneToOne));
        graph.keep(used);
        let graph = cluster.submit(graph);
        let vain = cluster.run_apart(graph, pair(0, 1));
        assert!(vain <= 6, "{vain} tasks were tried in vain");
    }
}

#[test]
fn what_failed_on_the_other_and_what_is_held_up_there_goes_to_the_one_aside() {
    let mut cluster = Cluster::of(2, 1);
    cluster.part(WorkerId(0), WorkerId(1));
    assert_eq!(cluster.aside(), [WorkerId(1)]);
    let mut tasks = independent(1);
    tasks.layers[0].retries = 1;
    let graph = cluster.submit(tasks);
    assert_eq!(cluster.worker_of(task(graph, 0)), Some(WorkerId(0)));
    cluster.fail(task(graph, 0), TaskErrorKind::OutOfMemory);
    cluster.now = cluster.now.after_micros(2_000_000);
    cluster.feed(Input::Tick);
    cluster.ask_those_aside();
    assert_eq!(cluster.worker_of(task(graph, 0)), Some(WorkerId(1)));
    cluster.finish(task(graph, 0));

    let waits = cluster.submit(independent(1));
    cluster.start(task(waits, 0));
    let attempt = cluster.workers[&WorkerId(0)].assigned[&task(waits, 0)]
        .task
        .attempt;
    let seceded = WorkerMessage::Seceded {
        task: task(waits, 0),
        attempt,
    };
    cluster.say(WorkerId(0), seceded);
    let held_up = cluster.submit(independent(1));
    cluster.hold_up(task(held_up, 0), task(waits, 0));
    cluster.ask_those_aside();
    assert_eq!(cluster.worker_of(task(held_up, 0)), Some(WorkerId(1)));
    cluster.run();
    assert_eq!(cluster.outcome(held_up), Some(&GraphOutcome::Finished));
}

#[test]
fn what_waits_for_a_worker_that_now_stands_aside_goes_elsewhere() {
    let mut cluster = Cluster::of(3, 1);
    let mut graph = TaskGraph::new("kept close");
    let made = graph.push(Layer::new("made", "op", 30));
    let gate = graph.push(Layer::new("gate", "op", 1));
    let used = Layer::new("used", "op", 30).reading(made, Edges::OneToOne);
    let used = graph.push(used.reading(gate, Edges::Broadcast));
    graph.keep(used);
    let graph = cluster.submit(graph);
    let gate = task(graph, 30);
    while let Some(id) = cluster.assigned().into_iter().find(|id| *id != gate) {
        cluster.finish_with(id, &[1 << 20]);
    }
    cluster.finish(gate);
    let queued = |cluster: &Cluster, id| {
        let workers = &cluster.scheduler.workers;
        workers.slab[workers.by_id[&WorkerId(id)]].preferred.len()
    };
    assert!(queued(&cluster, 2) > 3);
    cluster.part(WorkerId(0), WorkerId(2));
    assert_eq!(cluster.aside(), [WorkerId(2)]);
    assert_eq!(queued(&cluster, 2), 0);
    let mut of_aside = 0;
    while cluster.outcome(graph).is_none() {
        let id = cluster.assigned()[0];
        let worker = cluster.finish(id);
        of_aside += u32::from(worker == WorkerId(2));
    }
    // What it had been handed before.
    assert!(of_aside <= 2, "{of_aside}");
}

#[test]
fn what_was_read_in_vain_by_the_one_aside_is_not_made_again() {
    let mut cluster = Cluster::of(2, 1);
    let mut graph = TaskGraph::new("read");
    let made = graph.push(Layer::new("made", "op", 2).with_outputs(2));
    let used = graph.push(Layer::new("used", "op", 2).reading(made, Edges::Shuffle));
    graph.keep(used);
    let graph = cluster.submit(graph);
    cluster.finish(task(graph, 0));
    cluster.finish(task(graph, 1));
    let reader = [task(graph, 2), task(graph, 3)]
        .into_iter()
        .find(|it| cluster.worker_of(*it) == Some(WorkerId(1)))
        .expect("one on each");
    let missing = cluster.workers[&WorkerId(1)].assigned[&reader]
        .reads
        .clone();
    let missing = missing
        .into_iter()
        .find(|(_, holder)| *holder == WorkerId(0));
    cluster.not_reach(reader, missing.expect("it reads from both"));
    assert_eq!(cluster.aside(), [WorkerId(1)]);
    assert_eq!(cluster.recomputed(), Vec::<u32>::new());
}

#[test]
fn a_holder_that_is_gone_breaks_no_link() {
    let mut cluster = Cluster::of(3, 1);
    let graph = cluster.submit(shuffles(3));
    for index in 0..3 {
        cluster.finish(task(graph, index));
    }
    let reader = task(graph, 3);
    let worker = cluster.worker_of(reader).expect("assigned");
    let reads = &cluster.workers[&worker].assigned[&reader].reads;
    let missing = reads.iter().find(|(_, holder)| *holder != worker);
    cluster.miss(reader, vec![*missing.expect("it reads from all")]);
    assert_eq!(cluster.aside(), []);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}
