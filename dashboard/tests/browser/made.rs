//! Made-up clusters for browser tests: what they answer, and what happens in them. Knows no browser.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use transload_dashboard::{AssignedTasks, Batch, Dashboard, Feed, Gone, Options, RanTask, Source};
use transload_protocol::{
    ClientId, ClusterInfo, Event, EventRecord, Explanation, GraphId, GraphInfo, LayerIndex,
    LayerInfo, LayerProgress, PartitionId, Resources, RunningTask, TaskId, Tier, TierUsage, Time,
    Transfer, WorkerHello, WorkerId, WorkerInfo, WorkerLoad,
};

/// The only graph there is.
pub(crate) const GRAPH: GraphId = GraphId {
    client: ClientId(1),
    sequence: 0,
};
/// Tasks of its first layer; its second has one.
pub(crate) const TASKS: u32 = 10_000;
const SLOTS: u32 = 2;

pub(crate) fn task(index: u32) -> TaskId {
    TaskId {
        graph: GRAPH,
        index,
    }
}

/// A cluster as it is now. Its clock is this machine's.
pub(crate) struct Made {
    info: Mutex<ClusterInfo>,
    began: Instant,
    /// Stands in all that it is asked.
    word: String,
}

impl Source for Made {
    fn look(&self) -> BoxFuture<'_, Result<(Time, ClusterInfo), Gone>> {
        let answer = (self.now(), self.info.lock().unwrap().clone());
        async { Ok(answer) }.boxed()
    }

    fn explain(&self, task: TaskId) -> BoxFuture<'_, Result<Explanation, Gone>> {
        self.told(format!("task {task} waits for {}", self.word))
    }

    fn explain_layer(
        &self,
        graph: GraphId,
        layer: LayerIndex,
    ) -> BoxFuture<'_, Result<Explanation, Gone>> {
        self.told(format!("layer {layer} of {graph} waits for {}", self.word))
    }
}

impl Made {
    fn now(&self) -> Time {
        let elapsed = u64::try_from(self.began.elapsed().as_micros()).unwrap();
        Time::from_micros(1_000_000 + elapsed)
    }

    fn told(&self, summary: String) -> BoxFuture<'_, Result<Explanation, Gone>> {
        let details = vec![format!("as does {}", self.word)];
        async { Ok(Explanation { summary, details }) }.boxed()
    }
}

/// A made-up cluster and its dashboard.
pub(crate) struct Cluster {
    made: Arc<Made>,
    feed: Feed,
    dashboard: Dashboard,
    word: String,
}

impl Cluster {
    /// `word` is part of every name and every text. Has a graph, of which no task has run.
    pub(crate) async fn start(workers: u32, word: &str) -> Self {
        let info = ClusterInfo {
            workers: (1..=workers).map(|it| worker(it, word)).collect(),
            clients: 1,
            graphs_running: 1,
            tasks_ready: TASKS,
            graphs: vec![graph(word)],
            ..ClusterInfo::default()
        };
        let made = Arc::new(Made {
            info: Mutex::new(info),
            began: Instant::now(),
            word: word.to_owned(),
        });
        let options = Options {
            host: "127.0.0.1".to_owned(),
            port: 0,
            any_port: false,
            token: None,
            scheduler: format!("127.0.0.1:8790{word}"),
        };
        let dashboard = Dashboard::start(&options, Arc::clone(&made) as _).await;
        let dashboard = dashboard.expect("starts");
        let cluster = Self {
            made,
            feed: dashboard.feed(),
            dashboard,
            word: word.to_owned(),
        };
        cluster.feed.push(Batch {
            now: cluster.made.now(),
            graphs: vec![graph(word)],
            ..Batch::default()
        });
        let joined = (1..=workers).map(|it| Event::WorkerJoined {
            worker: WorkerId(it),
        });
        cluster.happens(joined.collect());
        cluster
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.dashboard.address()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address())
    }

    /// These things have happened just now.
    pub(crate) fn happens(&self, events: Vec<Event>) {
        let at = self.made.now();
        self.feed.push(Batch {
            now: at,
            events: recorded(at, events),
            ..Batch::default()
        });
    }

    /// `tasks` of the first layer run, from `first` on, and each hands its partition to another worker; a few spill, and one fails.
    pub(crate) fn works(&self, first: u32, tasks: u32) {
        let workers = u32::try_from(self.made.info.lock().unwrap().workers.len()).unwrap();
        let (mut assigned, mut ran, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for index in first..first + tasks {
            let (worker, next) = (index % workers + 1, (index + 1) % workers + 1);
            let (worker, task) = (WorkerId(worker), task(index % TASKS));
            assigned.push(AssignedTasks {
                worker,
                graph: GRAPH,
                layer: LayerIndex(0),
                count: 1,
            });
            events.push(Event::PartitionFetched {
                partition: PartitionId { task, output: 0 },
                from: WorkerId(next),
                to: worker,
                bytes: 1 << 20,
                transport: format!("tcp {}", self.word),
                micros: 3_000,
            });
            ran.push(RanTask {
                task,
                worker,
                bytes: 1 << 20,
                run_micros: 20_000,
                rows: 0,
            });
        }
        events.push(Event::TaskFailed {
            task: task(first % TASKS),
            worker: WorkerId(1),
            message: format!("no luck with {}", self.word),
            run_micros: 15_000,
        });
        events.push(Event::PartitionMoved {
            partition: PartitionId {
                task: task(first % TASKS),
                output: 0,
            },
            worker: WorkerId(1),
            from: Tier::Host,
            to: Tier::Disk,
            bytes: 1 << 20,
            micros: 2_000,
        });
        let mut info = self.made.info.lock().unwrap();
        info.transfers = vec![Transfer {
            from: WorkerId(1),
            to: WorkerId(2),
            partitions: 3,
            bytes: 3 << 20,
            transport: format!("tcp {}", self.word),
            bytes_per_s: 1 << 30,
            demotion: None,
        }];
        drop(info);
        let now = self.made.now();
        self.feed.push(Batch {
            now,
            events: recorded(now, events),
            assigned,
            ran,
            ..Batch::default()
        });
    }

    /// A worker is gone.
    pub(crate) fn loses(&self, worker: u32) {
        let worker = WorkerId(worker);
        let mut info = self.made.info.lock().unwrap();
        info.workers.retain(|it| it.worker != worker);
        drop(info);
        self.happens(vec![Event::WorkerLost {
            worker,
            reason: format!("it was hit by {}", self.word),
        }]);
    }
}

fn recorded(at: Time, events: Vec<Event>) -> Vec<EventRecord> {
    let events = events.into_iter();
    events.map(|event| EventRecord { at, event }).collect()
}

fn worker(number: u32, word: &str) -> WorkerInfo {
    WorkerInfo {
        worker: WorkerId(number),
        hello: WorkerHello {
            name: format!("worker-{number}{word}"),
            host: format!("host-{}{word}", number.div_ceil(8)),
            process: 100 + number,
            resources: Resources::slots(SLOTS),
            memory_bytes: 1 << 30,
            addresses: Vec::new(),
            labels: [word.to_owned()].into(),
            shared: [].into(),
            gpu: None,
        },
        load: WorkerLoad {
            running: vec![RunningTask {
                task: task(number),
                running_ms: 5,
            }],
            queued: 1,
            tiers: vec![TierUsage {
                tier: Tier::Host,
                used_bytes: u64::from(number % 16) << 25,
                limit_bytes: 1 << 30,
            }],
            resident_bytes: 200 << 20,
        },
        assigned: 2,
        finished: 7,
        spilled_bytes: 1 << 20,
        stragglers: Vec::new(),
        apart_from: Vec::new(),
        aside: false,
    }
}

fn graph(word: &str) -> GraphInfo {
    let layer = |name: &str, first_task, total, reads| LayerInfo {
        name: format!("{name}{word}"),
        operator: format!("op-{name}{word}"),
        first_task,
        reads,
        progress: LayerProgress {
            total,
            done: 0,
            running: 2,
        },
    };
    GraphInfo {
        graph: GRAPH,
        name: format!("query {word}"),
        description: format!("SELECT '{word}'"),
        client: format!("a test{word}"),
        layers: vec![
            layer("scan", 0, TASKS, Vec::new()),
            layer("sum", TASKS, 1, vec![LayerIndex(0)]),
        ],
    }
}
