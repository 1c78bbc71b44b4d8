//! What was weighed for a ready task, in words: where its inputs are, how long it waits there, what moving it would take.
//!
//! Called by `explain`. Reads everything, changes nothing.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use transload_protocol::words;

use crate::explain::NAMED;
use crate::machine::Scheduler;
use crate::place::FETCH_COST_BYTES;
use crate::slab::{TaskAt, WorkerSlot};
use crate::task::TaskState;
use crate::worker::FULL;

impl Scheduler {
    /// Where a task's inputs are, most first; and if it queues for a worker, why no idle one takes it.
    pub(crate) fn explain_weights(
        &self,
        at: TaskAt,
        queues_for: Option<WorkerSlot>,
    ) -> Vec<String> {
        let mut details: Vec<String> = self.explain_inputs(at).into_iter().collect();
        let Some(worker) = queues_for else {
            return details;
        };
        let queue = &self.workers.slab[worker].preferred;
        let own = (self.graphs.slab[at.graph].layer_of(at.index).rank, at.index);
        let before = queue.iter().take_while(|entry| **entry < own).count();
        let name = self.worker_name(worker);
        details.push(format!(
            "{name} comes to it in about {}, and to the last task of its queue in about {}",
            words::duration(self.wait_micros(worker, before)),
            words::duration(self.wait_micros(worker, queue.len().saturating_sub(1)))
        ));
        let idle = self.workers.open.below(FULL);
        let idle = idle.filter(|slot| *slot != worker);
        details.extend(idle.take(NAMED).map(|slot| {
            let other = self.worker_name(slot);
            if self.may_take(at, slot) {
                let longer = words::duration(self.extra_micros(at, worker, slot));
                format!("{other} has a free slot, but would get its inputs {longer} later")
            } else {
                format!("{other} has a free slot, but not for this task")
            }
        }));
        details
    }

    fn explain_inputs(&self, at: TaskAt) -> Option<String> {
        let graph = &self.graphs.slab[at.graph];
        let (layer, position) = graph.locate(at.index);
        let mut bytes: BTreeMap<WorkerSlot, u64> = BTreeMap::new();
        let mut total = 0_u64;
        let mut add = |holder: WorkerSlot, more: u64| {
            let sum = bytes.entry(holder).or_default();
            *sum = sum.saturating_add(more);
        };
        let compiled = &graph.compiled;
        compiled.for_each_direct_input(layer, position, |input| {
            let state = &graph.tasks[input.task as usize].state;
            if let TaskState::Done {
                worker, largest, ..
            } = state
            {
                let read = u64::from(*largest).saturating_add(FETCH_COST_BYTES);
                total = total.saturating_add(read);
                add(*worker, read);
            }
        });
        let barriers = &graph.layers[layer.0 as usize].barriers;
        for summary in barriers
            .iter()
            .filter_map(|barrier| barrier.summary.as_ref())
        {
            total = total.saturating_add(summary.total);
            for (holder, weight) in &summary.largest {
                add(*holder, *weight);
            }
        }
        let mut holders: Vec<_> = bytes.into_iter().collect();
        holders.sort_unstable_by_key(|(slot, bytes)| (Reverse(*bytes), *slot));
        let named: Vec<String> = holders
            .iter()
            .take(NAMED)
            .map(|(slot, bytes)| {
                format!("{} B on {}", words::count(*bytes), self.worker_name(*slot))
            })
            .collect();
        (!named.is_empty()).then(|| {
            format!(
                "what it reads weighs {} B, {} B for each fetch included: {}",
                words::count(total),
                words::count(FETCH_COST_BYTES),
                named.join(", ")
            )
        })
    }
}
