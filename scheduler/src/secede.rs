//! Tasks that run without their resources while they wait for graphs that they submitted, so that those can run in their place.
//!
//! Called by `members` for what workers say, and by `lineage`. Knows nothing of what a task waits for. A task that comes back
//! may make its worker fuller than it offers for a moment: the worker lets it go on before it starts anything else.

use transload_protocol::{Attempt, Resources, TaskId};

use crate::attempts::Standing;
use crate::machine::Scheduler;
use crate::slab::{TaskAt, WorkerSlot};

impl Scheduler {
    pub(crate) fn on_seceded(&mut self, worker: WorkerSlot, task: TaskId, attempt: Attempt) {
        if let Standing::Current { at, .. } = self.standing(worker, task, attempt) {
            self.set_seceded(at, worker, true);
        }
    }

    pub(crate) fn on_rejoined(&mut self, worker: WorkerSlot, task: TaskId, attempt: Attempt) {
        if let Standing::Current { at, .. } = self.standing(worker, task, attempt) {
            self.set_seceded(at, worker, false);
        }
    }

    /// What an assigned task occupies of its worker now.
    pub(crate) fn occupied_by(&self, at: TaskAt, worker: WorkerSlot) -> Resources {
        if self.workers.slab[worker].seceded.contains(&at) {
            Resources::slots(0)
        } else {
            self.graphs.slab[at.graph]
                .layer_of(at.index)
                .resources
                .clone()
        }
    }

    /// Said twice, it counts once.
    fn set_seceded(&mut self, at: TaskAt, worker: WorkerSlot, seceded: bool) {
        let layer = self.graphs.slab[at.graph].layer_of(at.index);
        let (resources, share) = (&layer.resources, layer.rank.share);
        let record = &mut self.workers.slab[worker];
        if seceded && record.seceded.insert(at) {
            let freed = record.used.take(resources);
            debug_assert!(freed, "what was given is there to be taken back");
            self.ready.shares.refund(share, resources);
        } else if !seceded && record.seceded.remove(&at) {
            record.used.give_back(resources);
            self.ready.shares.charge(share, resources);
        }
        self.workers.change(worker);
    }
}
