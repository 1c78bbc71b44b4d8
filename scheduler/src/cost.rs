//! What it takes to move a task's inputs to a worker, and how long a task waits where it is: estimates, in microseconds.
//!
//! Learns from what workers tell of their fetches (`reports`) and of the ends of tasks (`pace`). Asked by `place` and `explain`.
//! Knows nothing of messages.

use crate::machine::Scheduler;
use crate::slab::{TaskAt, WorkerSlot};
use crate::task::TaskState;

/// Fetches of fewer bytes tell how long a request takes, larger ones how fast bytes flow.
pub(crate) const SMALL_BYTES: u64 = 64 << 10;
/// What is known counts for so many times what is told anew, once that much has been told.
const MOST_KNOWN: u8 = 7;
/// A disk is taken to read so many bytes in a microsecond.
const DISK_BYTES_PER_MICRO: u64 = 500;

/// How fast partitions come from one worker to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// From a request to its first byte.
    pub(crate) request_micros: u64,
    /// Bytes in a millisecond after that, at least 1.
    pub(crate) bytes_per_milli: u64,
    /// How often the one was told, and the other: the first times count for more.
    told: [u8; 2],
}

impl Link {
    /// Between two processes of one machine, before anything was fetched.
    pub(crate) const NEAR: Self = Self {
        request_micros: 100,
        bytes_per_milli: 2_000_000,
        told: [1, 1],
    };
    /// Between two machines, before anything was fetched.
    pub(crate) const FAR: Self = Self {
        request_micros: 300,
        bytes_per_milli: 1_000_000,
        told: [1, 1],
    };

    /// What so many partitions of so many bytes together take.
    pub(crate) const fn micros(self, partitions: u64, bytes: u64) -> u64 {
        let flow = bytes.saturating_mul(1_000) / self.bytes_per_milli;
        flow.saturating_add(partitions.saturating_mul(self.request_micros))
    }

    /// A partition has come.
    pub(crate) fn learn(&mut self, bytes: u64, micros: u64) {
        let mix = |old: u64, new: u64, told: &mut u8| {
            let known = u64::from(*told);
            *told = (*told + 1).min(MOST_KNOWN);
            (old.saturating_mul(known).saturating_add(new)) / (known + 1)
        };
        let [requests, flows] = &mut self.told;
        if bytes < SMALL_BYTES {
            self.request_micros = mix(self.request_micros, micros, requests);
        } else {
            let flow = micros.saturating_sub(self.request_micros).max(1);
            let rate = bytes.saturating_mul(1_000) / flow;
            self.bytes_per_milli = mix(self.bytes_per_milli, rate, flows).max(1);
        }
    }
}

/// Links between pairs of workers that have not fetched from each other yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Links {
    pub(crate) near: Link,
    pub(crate) far: Link,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            near: Link::NEAR,
            far: Link::FAR,
        }
    }
}

impl Links {
    /// The one that pairs on one host, or on two, have in common.
    pub(crate) fn between(&mut self, is_near: bool) -> &mut Link {
        if is_near {
            &mut self.near
        } else {
            &mut self.far
        }
    }
}

impl Scheduler {
    /// How partitions come from one worker to another.
    fn link(&self, from: WorkerSlot, to: WorkerSlot) -> Link {
        let (from, to) = (&self.workers.slab[from], &self.workers.slab[to]);
        match self.transfers.get(&(from.id, to.id)) {
            Some(traffic) => traffic.link,
            None if from.host == to.host => self.links.near,
            None => self.links.far,
        }
    }

    /// How long it takes a worker to get everything that a task reads: from others over their links, and from disk where the
    /// holder has moved it there.
    pub(crate) fn fetch_micros(&self, at: TaskAt, reader: WorkerSlot) -> u64 {
        let graph = &self.graphs.slab[at.graph];
        let (layer, position) = graph.locate(at.index);
        let mut sum = 0_u64;
        let mut rest = 0_u64;
        let mut last = None;
        let mut add = |holder: WorkerSlot, partitions: u64, bytes: u64| {
            let link = match last {
                Some((of, link)) if of == holder => link,
                Some(_) | None => (holder != reader).then(|| self.link(holder, reader)),
            };
            last = Some((holder, link));
            let moved = link.map_or(0, |link| link.micros(partitions, bytes));
            sum = sum.saturating_add(moved.saturating_add(self.disk_micros(holder, bytes)));
        };
        let compiled = &graph.compiled;
        compiled.for_each_direct_input(layer, position, |input| {
            if let TaskState::Done {
                worker, largest, ..
            } = graph.tasks[input.task as usize].state
            {
                add(worker, 1, largest.into());
            }
        });
        if let Some((holder, sizes)) = self.imported_from(at) {
            add(holder, u64::from(sizes.outputs), sizes.total_bytes);
        }
        for barrier in &graph.layers[layer.0 as usize].barriers {
            let Some(summary) = &barrier.summary else {
                continue;
            };
            let mut others = summary.total;
            for (holder, weight) in &summary.largest {
                others = others.saturating_sub(*weight);
                add(*holder, 1, *weight);
            }
            rest = rest.saturating_add(others);
        }
        // Of the many small holders of a whole layer none is looked at by itself.
        let common = if self.workers.are_apart() {
            self.links.far
        } else {
            self.links.near
        };
        sum.saturating_add(common.micros(0, rest))
    }

    /// What reading so many bytes from a worker's disk takes, as far as it keeps what it stores there.
    fn disk_micros(&self, holder: WorkerSlot, bytes: u64) -> u64 {
        let per_mille = u64::from(self.workers.slab[holder].on_disk_per_mille);
        if per_mille == 0 {
            return 0;
        }
        bytes.saturating_mul(per_mille) / (1_000 * DISK_BYTES_PER_MICRO)
    }

    /// How long it takes until a worker comes to a task behind so many others that wait there and are not handed out.
    pub(crate) fn wait_micros(&self, worker: WorkerSlot, behind: usize) -> u64 {
        let worker = &self.workers.slab[worker];
        let behind = u64::try_from(behind).unwrap_or(u64::MAX);
        let before = worker.queued().saturating_add(behind);
        worker.pace.micros_per_task(self.now).saturating_mul(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_as_fast_as_what_came_over_it() {
        let mut link = Link::FAR;
        for _ in 0..100 {
            link.learn(1_000, 50);
            link.learn(10_000_000, 100_050);
        }
        assert!(link.request_micros.abs_diff(50) <= 8, "{link:?}");
        assert!(link.bytes_per_milli.abs_diff(100_000) < 2_000, "{link:?}");
        assert!(link.micros(2, 1_000_000).abs_diff(10_100) < 300, "{link:?}");
        link.learn(u64::MAX, 0);
        link.learn(0, u64::MAX);
        assert!(link.micros(u64::MAX, u64::MAX) > 0);
    }
}
