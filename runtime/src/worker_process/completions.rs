//! What has ended in this process, and what the machine is told of it. Part of the driver.

use std::sync::Arc;

use transload_gpu::device::DeviceError;
use transload_gpu::{Partition, SpilledPartition, Stored};
use transload_protocol::{Attempt, PartitionId, TaskId, WorkerId};
use transload_worker::{FetchFault, Input};

use super::driver::Driver;
use super::fused::Failure;
use super::on_device::Made;
use super::store::Held;
use crate::fetcher::{FetchError, Fetched};
use crate::inside::SlotRequest;

/// Something that this process has finished.
pub(super) enum Completion {
    /// An operator has ended.
    Task {
        task: TaskId,
        attempt: Attempt,
        result: Result<Made, Failure>,
        /// Rows that it counted.
        rows: u64,
    },
    /// A running operator gives up its slot or wants it back.
    Slot {
        task: TaskId,
        attempt: Attempt,
        request: SlotRequest,
    },
    /// A fetch has ended.
    Fetch {
        id: PartitionId,
        number: u64,
        from: WorkerId,
        micros: u64,
        result: Result<Fetched, FetchError>,
    },
    /// A partition was written, or could not be.
    Spill {
        id: PartitionId,
        result: Result<Arc<SpilledPartition>, String>,
    },
    /// A partition was read back, or could not be.
    Load {
        id: PartitionId,
        result: Result<Partition, String>,
    },
    /// A device partition has moved down, and takes so many bytes there, or could not.
    Sunk {
        id: PartitionId,
        result: Result<u64, DeviceFailure>,
    },
    /// A device partition has moved up, or could not.
    Risen {
        id: PartitionId,
        result: Result<u64, DeviceFailure>,
    },
    /// Nothing works on the GPU any more, for this reason.
    LostGpu { reason: String },
}

/// Why a device partition was not moved.
pub(super) struct DeviceFailure {
    pub(super) error: DeviceError,
    /// It is on disk and cannot be read.
    pub(super) is_unreadable: bool,
    /// Why nothing works on the GPU any more, if that is so.
    pub(super) lost_gpu: Option<String>,
}

/// The size that is told of an output. Buffers of no length are something nevertheless.
fn told_bytes(partition: &Stored) -> u64 {
    let bytes = partition.occupied_bytes();
    bytes.max(u64::from(!partition.is_empty()))
}

impl Driver {
    pub(super) fn complete(&mut self, completion: Completion) {
        let input = match completion {
            Completion::Task {
                task,
                attempt,
                result,
                rows,
            } => self.task_ended(task, attempt, result, rows),
            Completion::Slot {
                task,
                attempt,
                request,
            } => self.slot_request(task, attempt, request),
            Completion::Fetch {
                id,
                number,
                from,
                micros,
                result,
            } => {
                self.hear_of_link(from, &result);
                match self.fetch_ended(id, number, micros, result) {
                    Some(input) => input,
                    None => return,
                }
            }
            Completion::Spill { id, result } => self.spill_ended(id, result),
            Completion::Load { id, result } => self.load_ended(id, result),
            Completion::Sunk { id, result } => self.sunk(id, result),
            Completion::Risen { id, result } => self.risen(id, result),
            Completion::LostGpu { reason } => return self.hear_of_gpu(Some(reason)),
        };
        self.get_to_know_gpu();
        self.take_in(input);
    }

    /// Tells the machine what the GPU can do, once it is open: before that nothing is there to be moved.
    fn get_to_know_gpu(&mut self) {
        if self.knows_gpu {
            return;
        }
        let Some(opened) = self.parts.gpu.as_ref().and_then(|gpu| gpu.opened()) else {
            return;
        };
        self.knows_gpu = true;
        if opened.tiers().has_direct_storage() {
            self.take_in(Input::HasDirectStorage);
        }
    }

    fn task_ended(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        result: Result<Made, Failure>,
        rows: u64,
    ) -> Input {
        self.parts.executor.forget(task, attempt);
        if !self.resuming.is_empty() {
            self.resuming.remove(&(task, attempt));
        }
        match result {
            Ok(made) => {
                let bytes = match made {
                    Made::Host(partitions) => self.keep(task, partitions),
                    Made::Device(partitions) => self.keep(task, partitions),
                };
                Input::TaskDone {
                    task,
                    attempt,
                    bytes,
                    rows,
                }
            }
            Err(Failure {
                error,
                step,
                lost_gpu,
            }) => {
                if lost_gpu.is_some() {
                    self.hear_of_gpu(lost_gpu);
                    // Not the task's failure: it runs again on another worker.
                    return Input::Tick;
                }
                tracing::debug!(%task, kind = ?error.kind, message = %error.message, "task failed");
                Input::TaskFailed {
                    task,
                    attempt,
                    kind: error.kind,
                    message: error.message,
                    step,
                }
            }
        }
    }

    /// Keeps what a task has made, and says how large each is.
    fn keep(&self, task: TaskId, partitions: Vec<impl Into<Stored>>) -> Vec<u64> {
        let outputs = (0..).zip(partitions);
        outputs
            .map(|(output, partition)| {
                let partition = partition.into();
                let bytes = told_bytes(&partition);
                self.parts
                    .store
                    .insert_output(PartitionId { task, output }, partition);
                bytes
            })
            .collect()
    }

    /// Nothing on the GPU can be saved, and nothing works on it in this process: the worker ends, and what was here is made anew.
    fn hear_of_gpu(&mut self, lost: Option<String>) {
        if lost.is_some() && self.lost_gpu.is_none() {
            self.lost_gpu = lost;
        }
    }

    /// Whether it still works, also where nobody but other workers reads what is on it.
    pub(super) fn look_at_gpu(&self) {
        let Some(gpu) = self.parts.gpu.clone() else {
            return;
        };
        let completions = Arc::clone(&self.completions);
        // The driver may be busy.
        self.parts.data_runtime.spawn_blocking(move || {
            if let Some(reason) = gpu.is_lost() {
                completions.push(Completion::LostGpu { reason });
            }
        });
    }

    fn sunk(&mut self, id: PartitionId, result: Result<u64, DeviceFailure>) -> Input {
        match result {
            Ok(bytes) => Input::Spilled {
                partition: id,
                bytes,
            },
            Err(failure) => {
                self.hear_of_gpu(failure.lost_gpu);
                Input::SpillFailed {
                    partition: id,
                    reason: failure.error.to_string(),
                }
            }
        }
    }

    fn risen(&mut self, id: PartitionId, result: Result<u64, DeviceFailure>) -> Input {
        match result {
            Ok(_) => Input::Loaded { partition: id },
            Err(failure) => {
                self.hear_of_gpu(failure.lost_gpu);
                Input::LoadFailed {
                    partition: id,
                    is_lost: failure.is_unreadable,
                    reason: failure.error.to_string(),
                }
            }
        }
    }

    fn slot_request(&mut self, task: TaskId, attempt: Attempt, request: SlotRequest) -> Input {
        match request {
            SlotRequest::Secede => {
                self.parts.executor.lend_slot(task, attempt);
                Input::Secede { task, attempt }
            }
            SlotRequest::Rejoin(resumed) => {
                if self.parts.executor.runs(task, attempt) {
                    let waiting = self.resuming.entry((task, attempt)).or_default();
                    waiting.push(resumed);
                }
                Input::Rejoin { task, attempt }
            }
        }
    }

    /// Whether or not anybody still wants what has come.
    fn hear_of_link(&mut self, from: WorkerId, result: &Result<Fetched, FetchError>) {
        let Ok(fetched) = result else { return };
        if let Some(demotion) = fetched.demotion.clone() {
            let used = fetched.transport.clone();
            self.take_in(Input::LinkDemoted {
                from,
                demotion,
                used,
            });
        }
    }

    fn fetch_ended(
        &mut self,
        id: PartitionId,
        number: u64,
        micros: u64,
        result: Result<Fetched, FetchError>,
    ) -> Option<Input> {
        // A fetch that was cancelled meanwhile: what it brought is dropped here.
        self.fetches
            .get(&id)
            .filter(|fetch| fetch.number == number)?;
        let from = self.fetches.remove(&id)?.from;
        Some(match result {
            Ok(fetched) => {
                let bytes = fetched.partition.occupied_bytes();
                let tier = fetched.partition.tier();
                self.parts.store.insert(id, fetched.partition);
                Input::Fetched {
                    partition: id,
                    from,
                    bytes,
                    micros,
                    transport: fetched.transport,
                    tier,
                }
            }
            Err(error) => Input::FetchFailed {
                partition: id,
                from,
                fault: fault_of(&error),
                reason: error.to_string(),
            },
        })
    }

    fn spill_ended(
        &mut self,
        id: PartitionId,
        result: Result<Arc<SpilledPartition>, String>,
    ) -> Input {
        let kept = result.and_then(|spilled| {
            let bytes = spilled.bytes();
            match self.parts.store.replace(id, Held::Disk(spilled)) {
                Ok(()) => Ok(bytes),
                Err(_) => Err("it was dropped meanwhile".to_owned()),
            }
        });
        match kept {
            Ok(bytes) => Input::Spilled {
                partition: id,
                bytes,
            },
            Err(reason) => Input::SpillFailed {
                partition: id,
                reason,
            },
        }
    }

    fn load_ended(&mut self, id: PartitionId, result: Result<Partition, String>) -> Input {
        let kept = result.and_then(|partition| {
            self.parts
                .store
                .replace(id, Held::Host(partition))
                .map_err(|_| "it was dropped meanwhile".to_owned())
        });
        match kept {
            Ok(()) => Input::Loaded { partition: id },
            Err(reason) => {
                self.discard(id);
                Input::LoadFailed {
                    partition: id,
                    is_lost: true,
                    reason,
                }
            }
        }
    }
}

/// What is at fault where a fetch failed.
fn fault_of(error: &FetchError) -> FetchFault {
    if error.is_gone() {
        FetchFault::Gone
    } else if error.is_about_the_link() {
        FetchFault::Link
    } else {
        FetchFault::Other
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn only_what_is_like_any_other_without_bytes_is_told_as_empty() {
        let size = |metadata: &'static [u8], buffers| {
            told_bytes(&Partition::new(Bytes::from_static(metadata), buffers).into())
        };
        assert_eq!(size(b"", vec![]), 0);
        assert_eq!(size(b"", vec![Bytes::new(), Bytes::new()]), 1);
        assert_eq!(size(b"schema", vec![Bytes::new()]), 6);
    }
}
