//! Results that clients share: holds on each other's tasks, names for them, graphs that outlive their owners.
//!
//! Called by `clients`, `session`, `restore` and `ending`. A task is held as long as anyone holds it; who that is matters only
//! here. What a graph imports from another is the business of `imports`.

use std::collections::BTreeSet;

use transload_protocol::{
    ClientId, GraphId, GraphOutcome, Holding, JournalEntry, MAX_NAME_BYTES, OutputLocation,
    Publication, RequestId, SchedulerToClient, SharingAnswer, SharingCall, SharingRefusal, TaskId,
    TaskRange,
};

use crate::api::Action;
use crate::machine::Scheduler;
use crate::record::remember;
use crate::sharing::Holder;
use crate::slab::{GraphSlot, TaskAt};
use crate::task::TaskState;

impl Scheduler {
    pub(crate) fn on_share(
        &mut self,
        client: ClientId,
        request: RequestId,
        call: SharingCall,
        out: &mut Vec<Action>,
    ) {
        let answer = match call {
            SharingCall::Hold { tasks } => self.hold(client, request, Ok(tasks), out),
            SharingCall::Lookup { name } => {
                let tasks = self.names.get(&name).copied();
                let tasks = tasks.ok_or(SharingRefusal::UnknownName { name });
                self.hold(client, request, tasks, out)
            }
            SharingCall::LetGo => {
                self.let_go_of_hold(client, request, out);
                return;
            }
            SharingCall::Publish {
                name,
                tasks,
                replace,
            } => match self.publish(name, tasks, replace, out) {
                Ok(()) => SharingAnswer::Done,
                Err(refusal) => SharingAnswer::Refused(refusal),
            },
            SharingCall::Unpublish { name } => {
                self.unpublish(&name, out);
                SharingAnswer::Done
            }
            SharingCall::Published => SharingAnswer::Names(self.publications()),
            SharingCall::WhoHas { tasks } => match self.shareable(tasks) {
                Ok((slot, _)) => SharingAnswer::Holders(self.holdings(slot, tasks)),
                Err(refusal) => SharingAnswer::Refused(refusal),
            },
        };
        let held = match &answer {
            SharingAnswer::Held { tasks, .. } => Some(*tasks),
            SharingAnswer::Over { .. }
            | SharingAnswer::Done
            | SharingAnswer::Names(_)
            | SharingAnswer::Holders(_)
            | SharingAnswer::Refused(_) => None,
        };
        let message = SchedulerToClient::Shared { request, answer };
        out.push(Action::ToClient { client, message });
        // It may have missed what was said before.
        for task in held.into_iter().flat_map(|held| held.tasks()) {
            if let Some(at) = self.graphs.find(task) {
                self.tell_output(client, at, out);
            }
        }
    }

    /// Asked again about a hold that it has, or had, the client is told how that one is.
    fn hold(
        &mut self,
        client: ClientId,
        request: RequestId,
        tasks: Result<TaskRange, SharingRefusal>,
        out: &mut Vec<Action>,
    ) -> SharingAnswer {
        let record = self.clients.get(&client);
        if let Some(outcome) = record.and_then(|record| record.over.get(&request)) {
            let outcome = outcome.clone();
            return SharingAnswer::Over { outcome };
        }
        let known = record.and_then(|record| record.holds.get(&request).copied());
        let wanted = known.map_or(tasks, Ok);
        let found = wanted.and_then(|tasks| Ok((tasks, self.shareable(tasks)?)));
        let (tasks, (slot, outputs)) = match found {
            Ok(found) => found,
            Err(refusal) => return SharingAnswer::Refused(refusal),
        };
        if known.is_none() {
            let entry = || JournalEntry::Held {
                client,
                hold: request,
                tasks,
            };
            self.record(entry, out);
            self.add_hold(client, request, slot, tasks);
        }
        SharingAnswer::Held { tasks, outputs }
    }

    /// The graph of tasks that can be held, and how many partitions each of them makes.
    pub(crate) fn shareable(&self, tasks: TaskRange) -> Result<(GraphSlot, u32), SharingRefusal> {
        let not_kept = SharingRefusal::NotKept { tasks };
        let Some(slot) = self.graphs.by_id.get(&tasks.graph).copied() else {
            let graph = tasks.graph;
            return Err(SharingRefusal::UnknownGraph { graph });
        };
        let graph = &self.graphs.slab[slot];
        let Some((layer, _)) = graph.compiled.locate(tasks.first) else {
            return Err(not_kept);
        };
        let last = tasks.first.checked_add(tasks.count);
        let fits = last.is_some_and(|end| end <= graph.compiled.tasks_of(layer).end);
        if tasks.count == 0 || !fits || !graph.compiled.is_kept(layer) {
            return Err(not_kept);
        }
        let is_released = |index: &u32| graph.tasks[*index as usize].state == TaskState::Released;
        match tasks.indices().find(is_released) {
            Some(index) => Err(SharingRefusal::Released {
                task: graph.task_id(index),
            }),
            None => Ok((slot, graph.submitted_layer_of(tasks.first).outputs)),
        }
    }

    pub(crate) fn add_hold(
        &mut self,
        client: ClientId,
        hold: RequestId,
        slot: GraphSlot,
        tasks: TaskRange,
    ) {
        if let Some(record) = self.clients.get_mut(&client) {
            record.holds.insert(hold, tasks);
            let holder = Holder::Client(client, hold);
            self.graphs.slab[slot].add_holder(holder, tasks.indices());
        }
    }

    /// A client's hold is over, because it says so.
    pub(crate) fn let_go_of_hold(
        &mut self,
        client: ClientId,
        hold: RequestId,
        out: &mut Vec<Action>,
    ) {
        let record = self.clients.get_mut(&client);
        let held = record.and_then(|record| record.holds.remove(&hold));
        if let Some(tasks) = held {
            let entry = || JournalEntry::LetGo {
                client,
                hold,
                outcome: None,
            };
            self.record(entry, out);
            self.let_go_of(&Holder::Client(client, hold), tasks.graph, out);
        }
    }

    /// Somebody needs tasks of a graph no longer. What nobody needs now is freed, or called off.
    pub(crate) fn let_go_of(&mut self, holder: &Holder, graph: GraphId, out: &mut Vec<Action>) {
        if let Some(slot) = self.graphs.by_id.get(&graph).copied() {
            let mut unneeded = std::mem::take(&mut self.unneeded);
            self.graphs.slab[slot].remove_holder(holder, &mut unneeded);
            self.unneeded = unneeded;
            self.drop_unneeded(slot, out);
            self.end_if_done(slot, out);
        }
    }

    fn publish(
        &mut self,
        name: String,
        tasks: TaskRange,
        replace: bool,
        out: &mut Vec<Action>,
    ) -> Result<(), SharingRefusal> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            let (bytes, limit) = (name.len() as u64, MAX_NAME_BYTES as u64);
            return Err(SharingRefusal::BadName { bytes, limit });
        }
        let (slot, _) = self.shareable(tasks)?;
        let limit = self.config.published_names;
        match self.names.get(&name) {
            // Said twice, or twice the same.
            Some(old) if *old == tasks => return Ok(()),
            Some(_) if !replace => return Err(SharingRefusal::NameTaken { name }),
            None if self.names.len() >= limit as usize => {
                let setting = "scheduler.published_names".to_owned();
                return Err(SharingRefusal::TooManyNames { limit, setting });
            }
            Some(_) | None => {}
        }
        let old = self.names.get(&name).copied();
        let entry = || JournalEntry::Published {
            name: name.clone(),
            tasks,
        };
        self.record(entry, out);
        let holder = Holder::Name(name.clone());
        if let Some(old) = old.filter(|old| old.graph != tasks.graph) {
            self.let_go_of(&holder, old.graph, out);
        } else if old.is_some() {
            self.rename(&holder, slot, tasks, out);
        }
        self.add_name(name, slot, tasks);
        Ok(())
    }

    /// A name moves to other tasks of the same graph, which must not end in between.
    fn rename(
        &mut self,
        holder: &Holder,
        slot: GraphSlot,
        tasks: TaskRange,
        out: &mut Vec<Action>,
    ) {
        let mut unneeded = std::mem::take(&mut self.unneeded);
        let graph = &mut self.graphs.slab[slot];
        graph.remove_holder(holder, &mut unneeded);
        graph.add_holder(holder.clone(), tasks.indices());
        self.unneeded = unneeded;
        self.drop_unneeded(slot, out);
        self.end_if_done(slot, out);
    }

    pub(crate) fn add_name(&mut self, name: String, slot: GraphSlot, tasks: TaskRange) {
        let holder = Holder::Name(name.clone());
        self.graphs.slab[slot].add_holder(holder, tasks.indices());
        self.names.insert(name, tasks);
    }

    fn unpublish(&mut self, name: &str, out: &mut Vec<Action>) {
        if let Some(tasks) = self.names.remove(name) {
            let name = name.to_owned();
            self.record(|| JournalEntry::Unpublished { name: name.clone() }, out);
            self.let_go_of(&Holder::Name(name), tasks.graph, out);
        }
    }

    fn publications(&self) -> Vec<Publication> {
        let publication = |(name, tasks): (&String, &TaskRange)| {
            let slot = *self.graphs.by_id.get(&tasks.graph)?;
            let sizes = self.holdings(slot, *tasks).into_iter().flatten();
            let (done, bytes) = sizes.fold((0, 0_u64), |(done, bytes), holding| {
                (done + 1, bytes.saturating_add(holding.sizes.total_bytes))
            });
            Some(Publication {
                name: name.clone(),
                tasks: *tasks,
                done,
                bytes,
            })
        };
        self.names.iter().filter_map(publication).collect()
    }

    fn holdings(&self, slot: GraphSlot, tasks: TaskRange) -> Vec<Option<Holding>> {
        let graph = &self.graphs.slab[slot];
        let holding = |index: u32| match &graph.tasks[index as usize].state {
            TaskState::Done {
                worker, largest, ..
            } => {
                let worker = &self.workers.slab[*worker];
                Some(Holding {
                    worker: worker.id,
                    name: worker.hello.name.clone(),
                    sizes: graph.sizes(index, *largest),
                })
            }
            TaskState::Culled
            | TaskState::Waiting { .. }
            | TaskState::Ready { .. }
            | TaskState::Assigned { .. }
            | TaskState::Ended { .. }
            | TaskState::Released => None,
        };
        tasks.indices().map(holding).collect()
    }

    /// Tells a client where the partitions of a task are, if they are stored.
    pub(crate) fn tell_output(&mut self, client: ClientId, at: TaskAt, out: &mut Vec<Action>) {
        let graph = &self.graphs.slab[at.graph];
        let TaskState::Done {
            worker, largest, ..
        } = graph.tasks[at.index as usize].state
        else {
            return;
        };
        let holder = &self.workers.slab[worker];
        if let Some(record) = self.clients.get_mut(&client)
            && record.told.insert(worker.0)
        {
            let (worker, addresses) = (holder.id, holder.hello.addresses.clone());
            let message = SchedulerToClient::Peer { worker, addresses };
            out.push(Action::ToClient { client, message });
        }
        let output = OutputLocation {
            task: graph.task_id(at.index),
            worker: holder.id,
            sizes: graph.sizes(at.index, largest),
        };
        let message = SchedulerToClient::OutputReady { output };
        out.push(Action::ToClient { client, message });
    }

    /// Whether a client hears of a task, as its owner or as one of those who hold it.
    pub(crate) fn hears_of(&self, client: ClientId, id: TaskId) -> Option<TaskAt> {
        let at = self.graphs.find(id)?;
        let graph = &self.graphs.slab[at.graph];
        let is_heard = graph.layer_of(at.index).kept && graph.audience(at.index).contains(&client);
        is_heard.then_some(at)
    }

    /// The owner needs nothing of a graph any more. It goes on as far as others do, and ends here where nobody does.
    pub(crate) fn leave(&mut self, slot: GraphSlot, out: &mut Vec<Action>) {
        let graph = &mut self.graphs.slab[slot];
        let id = graph.id;
        if !graph.shared.is_wanted() {
            self.end_early(slot, None, out);
            return;
        }
        graph.shared.is_orphan = true;
        if let Some(owner) = self.clients.get_mut(&id.client) {
            owner.graphs.remove(&id);
        }
        let graph = &mut self.graphs.slab[slot];
        for index in 0..graph.compiled.task_count() {
            if graph.owner_holds(index) && graph.disown(index) {
                self.unneeded.push(index);
            }
        }
        self.record(|| JournalEntry::Orphaned { graph: id }, out);
        self.drop_unneeded(slot, out);
        self.end_if_done(slot, out);
    }

    /// A graph has failed or was cancelled, and so all others who hold something of it have nothing.
    pub(crate) fn end_holds_on(
        &mut self,
        slot: GraphSlot,
        outcome: &GraphOutcome,
        out: &mut Vec<Action>,
    ) {
        let holders = std::mem::take(&mut self.graphs.slab[slot].shared.holders);
        for holder in holders.into_keys() {
            match holder {
                Holder::Client(client, hold) => self.end_hold(client, hold, outcome, out),
                Holder::Name(name) => {
                    self.names.remove(&name);
                    self.record(|| JournalEntry::Unpublished { name }, out);
                }
            }
        }
    }

    fn end_hold(
        &mut self,
        client: ClientId,
        hold: RequestId,
        outcome: &GraphOutcome,
        out: &mut Vec<Action>,
    ) {
        let entry = || JournalEntry::LetGo {
            client,
            hold,
            outcome: Some(outcome.clone()),
        };
        self.record(entry, out);
        if let Some(record) = self.clients.get_mut(&client) {
            record.holds.remove(&hold);
            if record.session.is_some() {
                remember(&mut record.over, hold, outcome.clone());
            }
        }
        let outcome = outcome.clone();
        let message = SchedulerToClient::Shared {
            request: hold,
            answer: SharingAnswer::Over { outcome },
        };
        out.push(Action::ToClient { client, message });
    }

    /// A client that came back names the holds that it still wants.
    pub(crate) fn keep_holds(
        &mut self,
        client: ClientId,
        wanted: &[RequestId],
        out: &mut Vec<Action>,
    ) {
        let wanted: BTreeSet<RequestId> = wanted.iter().copied().collect();
        let Some(record) = self.clients.get_mut(&client) else {
            return;
        };
        let holds = record.holds.keys().copied();
        let dropped: Vec<RequestId> = holds.filter(|hold| !wanted.contains(hold)).collect();
        for hold in dropped {
            self.let_go_of_hold(client, hold, out);
        }
    }

    /// Who needs a task beside its owner, in words.
    pub(crate) fn holders_of(&self, at: TaskAt) -> Vec<String> {
        let shared = &self.graphs.slab[at.graph].shared;
        let holders = shared.holders.iter();
        let held = holders.filter(|(_, held)| held.contains(&at.index));
        let mut words: Vec<String> = held
            .map(|(holder, _)| match holder {
                Holder::Client(client, _) => {
                    let record = self.clients.get(client);
                    let name = record.map_or("?", |record| record.name.as_str());
                    format!("client {client} (`{name}`) holds it")
                }
                Holder::Name(name) => format!("it is published as `{name}`"),
            })
            .collect();
        let importers = shared.importers_of(at.index);
        words.extend(importers.map(|importer| format!("task {importer} imports it")));
        words
    }
}
