//! What the machine wants done, and how it is done. Part of the driver; every function here starts something and returns at once.

use std::sync::Arc;

use tokio::time::Instant;
use transload_protocol::{
    Attempt, LayerIndex, Memory, PartitionId, TaskErrorKind, TaskId, Tier, WorkerId,
};
use transload_transport::Destination;
use transload_worker::{Action, FetchFault, Given, Input};

use super::completions::Completion;
use super::disk;
use super::driver::{Driver, InFlight};
use super::executor::Inputs;
use super::on_device::DeviceJob;
use super::store::{Held, ToDevice};
use crate::gang::Gang;
use crate::gpu::LazyGpu;

impl Driver {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::ToScheduler(message) => self.outgoing.push(message),
            Action::AddPeer { worker, addresses } => {
                self.peers.insert(worker, addresses.into());
            }
            Action::RemovePeer { worker } => self.remove_peer(worker),
            Action::Fetch {
                partition,
                from,
                bytes,
                memory,
            } => self.fetch(partition, from, bytes, memory),
            Action::CancelFetch { partition } => {
                if let Some(fetch) = self.fetches.remove(&partition) {
                    fetch.task.abort();
                }
            }
            Action::Start {
                task,
                attempt,
                layer,
                inputs,
                halved,
            } => self.start((task, attempt), layer, &inputs, halved),
            Action::Stop { task, attempt } => self.parts.executor.cancel(task, attempt),
            Action::Spill { partition, to } => self.spill(partition, to),
            Action::Load { partition, to } => self.load(partition, to),
            Action::Drop { partition } => self.discard(partition),
            Action::Exit => self.exiting = true,
            Action::Resume { task, attempt } => {
                self.parts.executor.return_slot(task, attempt);
                for waiting in self.resuming.remove(&(task, attempt)).unwrap_or_default() {
                    // An operator that no longer waits for it has it all the same.
                    let _ = waiting.send(());
                }
            }
        }
    }

    fn remove_peer(&mut self, worker: WorkerId) {
        if let Some(addresses) = self.peers.remove(&worker) {
            self.parts.fetcher.forget(&addresses);
        }
        let mut over: Vec<PartitionId> = self
            .fetches
            .iter()
            .filter(|(_, fetch)| fetch.from == worker)
            .map(|(id, _)| *id)
            .collect();
        over.sort_unstable();
        for partition in over {
            if let Some(fetch) = self.fetches.remove(&partition) {
                fetch.task.abort();
            }
            self.pending.push_back(Input::FetchFailed {
                partition,
                from: worker,
                fault: FetchFault::Other,
                reason: format!("worker {worker} is gone"),
            });
        }
    }

    fn fetch(&mut self, id: PartitionId, from: WorkerId, bytes: u64, memory: Memory) {
        let Some(addresses) = self.peers.get(&from).cloned() else {
            self.pending.push_back(Input::FetchFailed {
                partition: id,
                from,
                fault: FetchFault::Other,
                reason: format!("worker {from} is unknown here"),
            });
            return;
        };
        let number = self.next_fetch;
        self.next_fetch += 1;
        let fetcher = Arc::clone(&self.parts.fetcher);
        let destination = self.parts.store.destination(bytes);
        let completions = Arc::clone(&self.completions);
        let gpu = self.parts.gpu.clone().filter(|_| memory == Memory::Device);
        let task = self.parts.data_runtime.spawn(async move {
            let start = Instant::now();
            let result = match to_device(gpu, &destination, bytes).await {
                None => fetcher.fetch(&addresses, id, &destination).await,
                Some(to_device) => {
                    let destination = Arc::clone(&to_device) as Arc<dyn Destination>;
                    let fetched = fetcher.fetch(&addresses, id, &destination).await;
                    fetched.map(|fetched| to_device.adopted(fetched))
                }
            };
            let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
            completions.push(Completion::Fetch {
                id,
                number,
                from,
                micros,
                result,
            });
        });
        let fetch = InFlight {
            number,
            from,
            task: task.abort_handle(),
        };
        if let Some(old) = self.fetches.insert(id, fetch) {
            old.task.abort();
        }
    }

    fn start(
        &mut self,
        (task, attempt): (TaskId, Attempt),
        layer: LayerIndex,
        inputs: &[Vec<Given>],
        halved: bool,
    ) {
        let prepared = self
            .layers
            .get(&task.graph)
            .and_then(|layers| layers.get(&layer))
            .cloned();
        let gang = prepared
            .as_ref()
            .filter(|prepared| prepared.own().gang)
            .map(|prepared| self.gang_of(task, attempt, layer, prepared.own().first_task));
        let own = prepared.as_ref().map(|prepared| prepared.own());
        let works_on_host = own.is_none_or(|own| own.memory == Memory::Host);
        let on_host = || {
            let held = |id| self.parts.store.in_memory(id);
            gathered(inputs, &self.empty, held).map(Inputs::Host)
        };
        // Also for one on the host: what it reads or imports may have been made on the device.
        let on_device = || {
            let held = |id| self.parts.store.ready(id);
            let empty = self.empty.clone().into();
            gathered(inputs, &empty, held).map(|inputs| {
                Inputs::Device(Box::new(DeviceJob {
                    inputs,
                    gpu: self.parts.gpu.clone(),
                    halved,
                }))
            })
        };
        let partitions = works_on_host.then(on_host).flatten().or_else(on_device);
        match (prepared, partitions, gang) {
            (Some(prepared), Some(partitions), gang @ (None | Some(Some(_)))) => {
                self.parts.executor.run(
                    (task, attempt),
                    prepared,
                    gang.flatten(),
                    partitions,
                    &self.completions,
                );
            }
            (prepared, _, gang) => {
                let what = match (prepared, gang) {
                    (None, _) => "layer",
                    (Some(_), Some(None)) => "gang",
                    (Some(_), None | Some(Some(_))) => "inputs",
                };
                debug_assert!(false, "task {task} was started without its {what}");
                tracing::error!(%task, %layer, what, "a task was started without what it needs");
                self.pending.push_back(Input::TaskFailed {
                    task,
                    attempt,
                    kind: TaskErrorKind::CorruptPartition,
                    message: format!("its {what} are not on this worker"),
                    step: None,
                });
            }
        }
    }

    /// The gang that a member is started with.
    fn gang_of(
        &self,
        task: TaskId,
        attempt: Attempt,
        layer: LayerIndex,
        first_task: u32,
    ) -> Option<Arc<Gang>> {
        let (incarnation, members) = self.gangs.get(&task.graph)?.get(&layer)?;
        let rank = task.index.checked_sub(first_task)?;
        (*incarnation == attempt).then(|| Arc::new(Gang::new(rank, attempt, Arc::clone(members))))
    }

    fn spill(&mut self, id: PartitionId, to: Tier) {
        if let Some(partition) = self.parts.store.of_device(id) {
            let gpu = self.parts.gpu.clone();
            self.on_device(async move {
                let result = disk::shift(partition, to, gpu).await;
                Completion::Sunk { id, result }
            });
            return;
        }
        let (spill, store) = (Arc::clone(&self.parts.spill), Arc::clone(&self.parts.store));
        self.on_disk(move || disk::spill(&spill, &store, id));
    }

    fn load(&mut self, id: PartitionId, to: Tier) {
        if let Some(partition) = self.parts.store.of_device(id) {
            let gpu = self.parts.gpu.clone();
            self.on_device(async move {
                let result = disk::shift(partition, to, gpu).await;
                Completion::Risen { id, result }
            });
            return;
        }
        let store = Arc::clone(&self.parts.store);
        self.on_disk(move || disk::load(&store, id));
    }

    fn on_device(&mut self, operation: impl Future<Output = Completion> + Send + 'static) {
        while self.disk.try_join_next().is_some() {}
        let completions = Arc::clone(&self.completions);
        let moving = async move { completions.push(operation.await) };
        self.disk.spawn_on(moving, &self.parts.data_runtime);
    }

    fn on_disk(&mut self, operation: impl FnOnce() -> Completion + Send + 'static) {
        while self.disk.try_join_next().is_some() {}
        let completions = Arc::clone(&self.completions);
        self.disk
            .spawn_blocking(move || completions.push(operation()));
    }

    pub(super) fn discard(&mut self, id: PartitionId) {
        // A device's files are removed by the thread that writes them.
        if let Some(Held::Disk(spilled)) = self.parts.store.remove(id) {
            // Removing a large file takes its time.
            tokio::task::spawn_blocking(move || drop(spilled));
        }
    }
}

/// A destination on the GPU, whose memory is taken where that has not happened yet. `None` without a GPU, or where it gives no memory.
async fn to_device(
    gpu: Option<Arc<LazyGpu>>,
    otherwise: &Arc<dyn Destination>,
    bytes: u64,
) -> Option<Arc<ToDevice>> {
    let gpu = gpu?;
    let opened = match gpu.opened() {
        Some(opened) => opened,
        None => tokio::task::spawn_blocking(move || gpu.open())
            .await
            .ok()?
            .inspect_err(
                |error| tracing::warn!(%error, "a partition for the GPU stays in host memory"),
            )
            .ok()?,
    };
    let (tiers, otherwise) = (opened.tiers().clone(), Arc::clone(otherwise));
    Some(Arc::new(ToDevice::new(tiers, otherwise, bytes).await))
}

/// What a task is given, input by input; `None` where something is not as the machine believes.
fn gathered<T: Clone>(
    inputs: &[Vec<Given>],
    empty: &T,
    held: impl Fn(PartitionId) -> Option<T>,
) -> Option<Vec<Vec<T>>> {
    let given = |given: &Given| match given {
        Given::Held(id) => held(*id),
        Given::Empty(_) => Some(empty.clone()),
    };
    let inputs = inputs.iter();
    inputs
        .map(|input| input.iter().map(given).collect())
        .collect()
}
