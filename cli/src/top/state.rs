//! What is shown: the cluster as it was seen last and before, and what keys have changed. Knows no terminal and no clock.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use transload_protocol::{ClusterInfo, Tier, WorkerId, WorkerInfo};

/// A scheduler that answers within this is not called silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Leave,
    /// Closes what is open, or leaves.
    Back,
    Sort,
    Pause,
    Help,
    Up(usize),
    Down(usize),
    PageUp,
    PageDown,
}

/// In which order workers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    #[default]
    Id,
    Running,
    Memory,
    Finished,
    Name,
}

impl Sort {
    const fn next(self) -> Self {
        match self {
            Self::Id => Self::Running,
            Self::Running => Self::Memory,
            Self::Memory => Self::Finished,
            Self::Finished => Self::Name,
            Self::Name => Self::Id,
        }
    }

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Running => "running tasks",
            Self::Memory => "memory",
            Self::Finished => "finished tasks",
            Self::Name => "name",
        }
    }
}

/// A look at the cluster.
#[derive(Debug, Clone)]
struct Look {
    info: ClusterInfo,
    at: Duration,
}

/// What moves from one worker to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flow<'a> {
    pub(super) from: WorkerId,
    pub(super) to: WorkerId,
    pub(super) bytes: u64,
    /// Between the last two looks.
    pub(super) bytes_per_s: u64,
    pub(super) transport: &'a str,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct State {
    cluster: String,
    interval: Duration,
    now: Option<Look>,
    before: Option<Look>,
    waits: Duration,
    is_paused: bool,
    pub(super) is_helping: bool,
    pub(super) sort: Sort,
    /// Workers above the first that is shown.
    pub(super) scroll: usize,
    /// Workers that have room; known once it was drawn.
    pub(super) page: usize,
}

impl State {
    pub(super) fn new(cluster: String, interval: Duration) -> Self {
        Self {
            cluster,
            interval,
            now: None,
            before: None,
            waits: Duration::ZERO,
            is_paused: false,
            is_helping: false,
            sort: Sort::default(),
            scroll: 0,
            page: 1,
        }
    }

    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The cluster as it is at that moment, on any clock that only goes forward.
    pub(super) fn see(&mut self, info: ClusterInfo, at: Duration) {
        self.waits = Duration::ZERO;
        if self.is_paused {
            return;
        }
        self.before = self.now.replace(Look { info, at });
        self.scroll = self.scroll.min(self.most_scrolled());
    }

    /// The scheduler was asked so long ago, and has not answered.
    pub(super) const fn wait(&mut self, waits: Duration) {
        self.waits = waits;
    }

    /// For how long the scheduler has said nothing, where that is worth a word.
    pub(super) fn silence(&self) -> Option<Duration> {
        (self.waits >= PATIENCE).then_some(self.waits)
    }

    /// Does what a key asks for; breaks off to leave.
    pub(super) fn obey(&mut self, command: Command) -> ControlFlow<()> {
        match command {
            Command::Leave => return ControlFlow::Break(()),
            Command::Back if !self.is_helping => return ControlFlow::Break(()),
            Command::Back => self.is_helping = false,
            Command::Help => self.is_helping = !self.is_helping,
            Command::Pause => self.is_paused = !self.is_paused,
            Command::Sort => self.sort = self.sort.next(),
            Command::Up(rows) => self.scroll = self.scroll.saturating_sub(rows),
            Command::Down(rows) => {
                self.scroll = self.scroll.saturating_add(rows).min(self.most_scrolled());
            }
            Command::PageUp => return self.obey(Command::Up(self.page)),
            Command::PageDown => return self.obey(Command::Down(self.page)),
        }
        ControlFlow::Continue(())
    }

    pub(super) fn most_scrolled(&self) -> usize {
        let workers = self.info().map_or(0, |info| info.workers.len());
        workers.saturating_sub(self.page)
    }

    /// The cluster as it was seen last.
    pub(super) fn info(&self) -> Option<&ClusterInfo> {
        self.now.as_ref().map(|look| &look.info)
    }

    /// The workers in the order in which they are shown.
    pub(super) fn workers(&self) -> Vec<&WorkerInfo> {
        let mut workers: Vec<&WorkerInfo> = self
            .info()
            .map_or_else(Vec::new, |it| it.workers.iter().collect());
        // All of them keep the order of ids among equals.
        match self.sort {
            Sort::Id => {}
            Sort::Running => workers.sort_by_key(|it| Reverse(it.load.running.len())),
            Sort::Memory => workers.sort_by_key(|it| Reverse(used_bytes(it))),
            Sort::Finished => workers.sort_by_key(|it| Reverse(it.finished)),
            Sort::Name => workers.sort_by(|one, other| one.hello.name.cmp(&other.hello.name)),
        }
        workers
    }

    /// What moves between workers, the fastest first.
    pub(super) fn flows(&self) -> Vec<Flow<'_>> {
        let Some(now) = &self.now else {
            return Vec::new();
        };
        let earlier = self.before.iter().flat_map(|it| &it.info.transfers);
        let earlier: BTreeMap<_, _> = earlier.map(|it| ((it.from, it.to), it.bytes)).collect();
        let mut flows: Vec<_> = now
            .info
            .transfers
            .iter()
            .map(|it| {
                let earlier = earlier.get(&(it.from, it.to)).copied().unwrap_or(0);
                Flow {
                    from: it.from,
                    to: it.to,
                    bytes: it.bytes,
                    bytes_per_s: self.per_s(it.bytes.saturating_sub(earlier)),
                    transport: &it.transport,
                }
            })
            .collect();
        flows.sort_by_key(|it| Reverse((it.bytes_per_s, it.bytes)));
        flows
    }

    /// Tasks that ended in each second between the last two looks. Those of workers that have left meanwhile are not among them.
    pub(super) fn tasks_per_s(&self) -> u64 {
        let (Some(now), Some(before)) = (&self.now, &self.before) else {
            return 0;
        };
        let earlier: BTreeMap<_, _> = before
            .info
            .workers
            .iter()
            .map(|it| (it.worker, it.finished))
            .collect();
        let ended = now.info.workers.iter().map(|it| {
            let earlier = earlier.get(&it.worker).copied().unwrap_or(0);
            it.finished.saturating_sub(earlier)
        });
        self.per_s(ended.sum())
    }

    /// So many between the last two looks, in each second; none where there was one look alone.
    fn per_s(&self, many: u64) -> u64 {
        let (Some(now), Some(before)) = (&self.now, &self.before) else {
            return 0;
        };
        let millis = now.at.saturating_sub(before.at).as_millis().max(1);
        u64::try_from(u128::from(many) * 1_000 / millis).unwrap_or(u64::MAX)
    }
}

/// Bytes of partitions in memory, whichever.
fn used_bytes(worker: &WorkerInfo) -> u64 {
    let in_memory = worker.load.tiers.iter().filter(|it| it.tier != Tier::Disk);
    in_memory
        .map(|it| it.used_bytes)
        .fold(0, u64::saturating_add)
}
