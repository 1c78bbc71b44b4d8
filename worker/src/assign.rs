//! Tasks that come to the queue and leave it without running: assigned, cancelled, given back. Part of `machine`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use transload_protocol::{
    Attempt, InputLocation, InputSpec, LayerIndex, MissingCause, PartitionId, TaskAssignment,
    TaskErrorKind, TaskId, WorkerId, WorkerMessage,
};

use crate::Action;
use crate::machine::{Turn, Worker};
use crate::store::{Claim, Need, State};
use crate::tasks::{Help, Layer, Phase, Place, Queued, has_bytes};

/// Queued tasks, and which of their inputs cannot be had from whom.
pub(crate) type Readers = BTreeMap<Place, Vec<(PartitionId, WorkerId)>>;

impl Worker {
    pub(crate) fn on_assign(&mut self, assignment: TaskAssignment, turn: &mut Turn<'_>) {
        let TaskAssignment {
            task,
            attempt,
            layer: layer_index,
            order,
            inputs,
        } = assignment;
        let known = self.running.get(&task).map(|running| running.attempt);
        let queued = self.queued(task).map(|(_, queued)| queued.attempt);
        match known.max(queued).map(|newest| attempt.cmp(&newest)) {
            // Said twice: its one answer is still to come.
            Some(Ordering::Equal) => return,
            Some(Ordering::Less) => {
                self.tell(WorkerMessage::Cancelled { task, attempt }, turn);
                return;
            }
            Some(Ordering::Greater) => self.abandon(task, Phase::Disowned, turn),
            None => {}
        }

        let Some(layer) = self.layers.get(&(task.graph, layer_index)).map(Arc::clone) else {
            let text = format!(
                "layer {layer_index} of graph {} is unknown here",
                task.graph
            );
            let error = (TaskErrorKind::UnknownOperator, text);
            self.tell_failed((task, attempt), None, error, turn);
            return;
        };
        if !self.config.resources.covers(&layer.resources) {
            let text = format!(
                "it needs {}, this worker has {}",
                layer.resources, self.config.resources
            );
            let error = (TaskErrorKind::Unschedulable, text);
            self.tell_failed((task, attempt), Some(layer.names(None)), error, turn);
            return;
        }

        let inputs = match self.wanted(task, (layer_index, &layer), inputs) {
            Ok(inputs) => inputs,
            Err(text) => {
                let error = (TaskErrorKind::UnknownOperator, text);
                self.tell_failed((task, attempt), Some(layer.names(None)), error, turn);
                return;
            }
        };
        self.replace_outputs(task, turn);
        let missing: BTreeSet<_> = inputs
            .iter()
            .filter(|input| has_bytes(input) && !self.is_obtainable(input, task))
            .map(|input| (input.partition, input.worker))
            .collect();
        if !missing.is_empty() {
            let missing = missing.into_iter().collect();
            let message = WorkerMessage::MissingInputs {
                task,
                attempt,
                missing,
                cause: MissingCause::Gone,
            };
            self.tell(message, turn);
            return;
        }

        let place = Place { order, task };
        for input in inputs.iter().filter(|input| has_bytes(input)) {
            let need = Need {
                from: input.worker,
                shared: input.shared,
            };
            let memory = self.limits.memory_here(layer.memory_of(input));
            self.store
                .add_need(input.partition, place, need, (input.bytes, memory));
        }
        self.places.insert(task, place);
        let is_reserved = layer.gang && self.reserve(&layer.resources);
        let queued = Queued {
            attempt,
            layer_index,
            layer,
            inputs,
            is_reserved,
            help: Help::None,
        };
        self.members_queued += usize::from(queued.layer.gang);
        self.slotless += usize::from(queued.is_slotless());
        self.queue.insert(place, queued);
    }

    /// Every partition that a task reads: by input, then by producing task.
    fn wanted(
        &self,
        task: TaskId,
        (index, layer): (LayerIndex, &Layer),
        listed: Vec<InputLocation>,
    ) -> Result<Vec<InputLocation>, String> {
        if layer.inputs.iter().all(|spec| *spec == InputSpec::Listed) {
            return Ok(listed);
        }
        let mut wanted = Vec::with_capacity(listed.len());
        let tables = self.sources.get(&(task.graph, index));
        for (input, spec) in (0_u32..).zip(&layer.inputs) {
            let (first_task, output, shared) = match spec {
                InputSpec::Listed => {
                    wanted.extend(listed.iter().filter(|next| next.input == input).cloned());
                    continue;
                }
                InputSpec::Column { first_task } => {
                    let position = task.index.saturating_sub(layer.first_task);
                    (*first_task, position, false)
                }
                InputSpec::All { first_task, shared } => (*first_task, 0, *shared),
            };
            let Some(table) = tables.and_then(|tables| tables.get(&input)) else {
                return Err(format!("the sources of its input {input} are unknown here"));
            };
            wanted.extend(
                (first_task..)
                    .zip(table.iter())
                    .map(|(index, (worker, bytes))| {
                        let task = TaskId { index, ..task };
                        InputLocation {
                            input,
                            partition: PartitionId { task, output },
                            worker,
                            bytes,
                            shared,
                        }
                    }),
            );
        }
        Ok(wanted)
    }

    /// It is here, or on its way, or a peer that we can reach is said to have it.
    fn is_obtainable(&self, input: &InputLocation, reader: TaskId) -> bool {
        let maker = input.partition.task;
        // What is still to be made here cannot be anywhere.
        if maker == reader || self.places.contains_key(&maker) {
            return false;
        }
        let is_here = self.store.get(input.partition).is_some_and(|record| {
            let is_kept = record.claim != Claim::Released;
            let is_coming = match record.state {
                State::Absent { .. } | State::Paused { .. } => false,
                State::Fetching { .. }
                | State::Ready { .. }
                | State::Spilling { .. }
                | State::Pinned
                | State::Sinking
                | State::Disk { .. }
                | State::Loading { .. }
                | State::Rising => true,
            };
            is_kept && is_coming
        });
        is_here || self.peers.contains(&input.worker)
    }

    pub(crate) fn on_cancel(&mut self, task: TaskId, attempt: Attempt, turn: &mut Turn<'_>) {
        let is_running = self
            .running
            .get(&task)
            .is_some_and(|running| running.attempt == attempt);
        let is_queued = self
            .queued(task)
            .is_some_and(|(_, queued)| queued.attempt == attempt);
        // An attempt that is neither has been answered already: the two messages crossed.
        if is_running {
            self.stop(task, Phase::Cancelled, turn);
        } else if is_queued {
            self.cancel_queued(task, turn);
        }
    }

    /// Another worker idles: an attempt that has not begun is given back.
    pub(crate) fn on_recall(&mut self, task: TaskId, attempt: Attempt, turn: &mut Turn<'_>) {
        if self
            .queued(task)
            .is_some_and(|(_, queued)| queued.attempt == attempt)
        {
            self.cancel_queued(task, turn);
        }
    }

    /// Ends whatever is under way for a task: the queued attempt at once, the running one as soon as it can be stopped.
    pub(crate) fn abandon(&mut self, task: TaskId, phase: Phase, turn: &mut Turn<'_>) {
        self.stop(task, phase, turn);
        self.cancel_queued(task, turn);
    }

    pub(crate) fn stop(&mut self, task: TaskId, phase: Phase, turn: &mut Turn<'_>) {
        if let Some(running) = self.running.get_mut(&task)
            && running.abandon(phase)
        {
            let attempt = running.attempt;
            turn.out.push(Action::Stop { task, attempt });
            self.wait_no_more(task);
        }
    }

    pub(crate) fn cancel_queued(&mut self, task: TaskId, turn: &mut Turn<'_>) {
        if let Some(place) = self.places.get(&task).copied()
            && let Some(queued) = self.unqueue(place, turn)
        {
            let attempt = queued.attempt;
            self.tell(WorkerMessage::Cancelled { task, attempt }, turn);
        }
    }

    /// Takes a task out of the queue; what only it needed goes with it.
    pub(crate) fn unqueue(&mut self, place: Place, turn: &mut Turn<'_>) -> Option<Queued> {
        let queued = self.queue.remove(&place)?;
        self.slotless -= usize::from(queued.is_slotless());
        self.helped -= usize::from(queued.help > Help::None);
        self.places.remove(&place.task);
        self.unreserve(&queued, turn.now);
        for partition in queued.distinct_inputs() {
            self.store.remove_need(partition, place);
            self.settle(partition, turn);
        }
        Some(queued)
    }

    /// The queued tasks that read one of `partitions` from a holder that satisfies `is_affected`, and what they miss.
    pub(crate) fn readers(
        &self,
        partitions: &[PartitionId],
        is_affected: impl Fn(WorkerId) -> bool,
    ) -> Readers {
        let mut readers = Readers::new();
        for partition in partitions {
            let needs = self.store.get(*partition).map(|record| &record.needs);
            for (place, need) in needs.into_iter().flatten() {
                if is_affected(need.from) {
                    let missing = readers.entry(*place).or_default();
                    missing.push((*partition, need.from));
                }
            }
        }
        readers
    }

    /// Gives queued tasks back to the scheduler.
    pub(crate) fn give_back(
        &mut self,
        readers: Readers,
        cause: &MissingCause,
        turn: &mut Turn<'_>,
    ) {
        for (place, missing) in readers {
            if let Some(queued) = self.queue.get(&place) {
                let message = WorkerMessage::MissingInputs {
                    task: place.task,
                    attempt: queued.attempt,
                    missing,
                    cause: cause.clone(),
                };
                self.tell(message, turn);
                self.unqueue(place, turn);
            }
        }
    }

    /// Gives back the queued tasks that would have to fetch one of `partitions` from a worker that is not a peer.
    pub(crate) fn give_back_unreachable(
        &mut self,
        partitions: &[PartitionId],
        turn: &mut Turn<'_>,
    ) {
        let mut unstored = partitions.to_vec();
        unstored.retain(|partition| {
            self.store.get(*partition).is_some_and(|record| {
                record.claim == Claim::Released
                    || matches!(record.state, State::Absent { .. } | State::Paused { .. })
            })
        });
        let readers = self.readers(&unstored, |from| !self.peers.contains(&from));
        self.give_back(readers, &MissingCause::Gone, turn);
    }

    pub(crate) fn queued(&self, task: TaskId) -> Option<(Place, &Queued)> {
        let place = *self.places.get(&task)?;
        Some((place, self.queue.get(&place)?))
    }
}
