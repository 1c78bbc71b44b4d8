//! Locks, semaphores, events, queues and variables that clients share by name: a machine of its own within the scheduler.
//!
//! Called by `machine` and `clients`. Knows no graphs, tasks or workers: whoever calls is a client, also from inside a task.
//!
//! Every call that may wait goes to the end of its thing's line and [`Coordination::serve`] answers those whose turn has come, so
//! nobody overtakes. A call that is over, however it ended, gives back what it had, and the next is served. A lock or semaphore is
//! forgotten when no call is about it, any other thing with the last client that used it.

mod check;
mod serve;
#[cfg(test)]
mod tests;
mod thing;

use std::collections::{BTreeMap, BTreeSet};

use transload_protocol::{
    Blob, ClientId, CoordinationAnswer, CoordinationCall, CoordinationRefusal, DeletableKind,
    MAX_NAME_BYTES, Patience, RequestId, SchedulerToClient, Time,
};

use crate::api::{Action, CoordinationLimits};
use thing::{Call, CallState, Key, Kind, Owner, State, Thing, Wants, length};

/// All named things and all calls that are not over.
#[derive(Debug)]
pub(crate) struct Coordination {
    limits: CoordinationLimits,
    things: BTreeMap<Key, Thing>,
    calls: BTreeMap<Owner, Call>,
    /// What each client has, so that its end is cheap.
    clients: BTreeMap<ClientId, Client>,
    deadlines: BTreeSet<(Time, Owner)>,
    /// Bytes of all items and values, wherever they are.
    bytes: u64,
    next_ticket: u64,
}

#[derive(Debug, Default)]
struct Client {
    calls: BTreeSet<RequestId>,
    uses: BTreeSet<Key>,
}

/// One input: when, and where answers go.
pub(crate) struct Step<'a> {
    pub(crate) now: Time,
    pub(crate) out: &'a mut Vec<Action>,
}

impl Step<'_> {
    fn answer(&mut self, owner: Owner, answer: CoordinationAnswer) {
        self.out.push(Action::ToClient {
            client: owner.client,
            message: SchedulerToClient::Coordinated {
                request: owner.request,
                answer,
            },
        });
    }
}

impl Coordination {
    pub(crate) const fn new(limits: CoordinationLimits) -> Self {
        Self {
            limits,
            things: BTreeMap::new(),
            calls: BTreeMap::new(),
            clients: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            bytes: 0,
            next_ticket: 0,
        }
    }

    /// A client calls.
    pub(crate) fn on_call(
        &mut self,
        client: ClientId,
        request: RequestId,
        call: CoordinationCall,
        step: &mut Step<'_>,
    ) {
        let owner = Owner { client, request };
        match self.begin(owner, call, step) {
            Ok(()) => {}
            Err(refusal) => step.answer(owner, CoordinationAnswer::Refused(refusal)),
        }
    }

    /// A client is gone: what it held is free, what was on its way to it goes back, it waits no more.
    pub(crate) fn on_client_lost(&mut self, client: ClientId, step: &mut Step<'_>) {
        let Some(record) = self.clients.remove(&client) else {
            return;
        };
        // All of its calls go before anyone is served, or one of them might be.
        for request in record.calls {
            self.detach(Owner { client, request });
        }
        for key in record.uses {
            if let Some(thing) = self.things.get_mut(&key) {
                thing.users.remove(&client);
                if thing.users.is_empty() {
                    self.drop_thing(&key);
                } else {
                    self.serve(&key, step);
                }
            }
        }
    }

    /// Ends the patience and the leases that are over.
    pub(crate) fn on_tick(&mut self, step: &mut Step<'_>) {
        while let Some((due, owner)) = self.deadlines.first().copied()
            && due <= step.now
        {
            let lease = match self.calls.get(&owner).map(|call| &call.state) {
                Some(CallState::Holding { lease_micros }) => Some(*lease_micros),
                Some(CallState::Waiting { .. } | CallState::Delivered { .. }) | None => None,
            };
            match lease {
                // We were the silent one, and renewals are still to be read.
                Some(lease) if step.now.micros_since(due) > lease / 2 => {
                    self.set_deadline(owner, Some(step.now.after_micros(lease)));
                }
                Some(_) => {
                    step.answer(owner, CoordinationAnswer::Expired);
                    self.end(owner, step);
                }
                None => {
                    step.answer(owner, CoordinationAnswer::TimedOut);
                    self.end(owner, step);
                }
            }
        }
    }

    /// When [`Coordination::on_tick`] is wanted.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    fn begin(
        &mut self,
        owner: Owner,
        call: CoordinationCall,
        step: &mut Step<'_>,
    ) -> Result<(), CoordinationRefusal> {
        match call {
            CoordinationCall::Lock {
                name,
                patience,
                lease_ms,
            } => {
                let wants = permit(lease_ms)?;
                let key = key(Kind::Lock, &name)?;
                self.wait(owner, key, State::permits(1), (wants, patience), step)
            }
            CoordinationCall::Acquire {
                name,
                permits,
                patience,
                lease_ms,
            } => {
                let wants = permit(lease_ms)?;
                let key = key(Kind::Semaphore, &name)?;
                self.same_permits(&key, permits)?;
                self.wait(owner, key, State::permits(permits), (wants, patience), step)
            }
            CoordinationCall::SetEvent { name } => self.set_event(owner, &name, true, step),
            CoordinationCall::ClearEvent { name } => self.set_event(owner, &name, false, step),
            CoordinationCall::WaitEvent { name, patience } => {
                let key = key(Kind::Event, &name)?;
                let state = State::Event { is_set: false };
                self.wait(owner, key, state, (Wants::Event, patience), step)
            }
            CoordinationCall::Put {
                name,
                item,
                max_items,
                patience,
            } => {
                at_least_one("the most items of a queue", max_items.unwrap_or(1))?;
                let key = key(Kind::Queue, &name)?;
                self.room_for(&item, 0)?;
                let wants = Wants::Room { item, max_items };
                self.wait(owner, key, State::queue(), (wants, patience), step)
            }
            CoordinationCall::Get { name, patience } => {
                let key = key(Kind::Queue, &name)?;
                self.wait(owner, key, State::queue(), (Wants::Item, patience), step)
            }
            CoordinationCall::SetVariable { name, value } => {
                self.set_variable(owner, &name, value, step)
            }
            CoordinationCall::GetVariable { name, patience } => {
                let key = key(Kind::Variable, &name)?;
                let state = State::Variable { value: None };
                self.wait(owner, key, state, (Wants::Value, patience), step)
            }
            CoordinationCall::Delete { kind, name } => self.delete(owner, kind, &name, step),
            CoordinationCall::Renew => {
                self.renew(owner, step.now);
                Ok(())
            }
            CoordinationCall::Taken => {
                self.on_taken(owner);
                Ok(())
            }
            CoordinationCall::End => {
                self.end(owner, step);
                Ok(())
            }
        }
    }

    /// Puts a call at the end of a line, and answers it at once where it can be.
    fn wait(
        &mut self,
        owner: Owner,
        key: Key,
        new: State,
        (wants, patience): (Wants, Patience),
        step: &mut Step<'_>,
    ) -> Result<(), CoordinationRefusal> {
        if self.calls.contains_key(&owner) {
            return Err(CoordinationRefusal::RequestInUse(owner.request));
        }
        if self.calls.len() >= self.limits.calls as usize {
            let limit = self.limits.calls;
            return Err(CoordinationRefusal::TooManyCalls { limit });
        }
        let ticket = self.next_ticket;
        let thing = self.thing(&key, owner.client, new)?;
        match (&wants, &mut thing.state) {
            (Wants::Room { .. }, State::Queue { putting, .. }) => putting.insert(ticket, owner),
            (
                Wants::Room { .. }
                | Wants::Permit { .. }
                | Wants::Event
                | Wants::Item
                | Wants::Value,
                _,
            ) => thing.waiting.insert(ticket, owner),
        };
        self.next_ticket += 1;
        let state = CallState::Waiting { ticket, wants };
        self.bytes += state.bytes();
        let call = Call {
            key: key.clone(),
            state,
            deadline: None,
        };
        self.calls.insert(owner, call);
        let client = self.clients.entry(owner.client).or_default();
        client.calls.insert(owner.request);
        self.serve(&key, step);

        let waits = self
            .calls
            .get(&owner)
            .is_some_and(|call| matches!(call.state, CallState::Waiting { .. }));
        match patience {
            Patience::Millis(0) if waits => {
                step.answer(owner, CoordinationAnswer::TimedOut);
                self.end(owner, step);
            }
            Patience::Millis(millis) if waits => {
                let due = step.now.after_micros(millis.saturating_mul(1_000));
                self.set_deadline(owner, Some(due));
            }
            Patience::Millis(_) | Patience::Forever => {}
        }
        Ok(())
    }

    fn set_event(
        &mut self,
        owner: Owner,
        name: &str,
        value: bool,
        step: &mut Step<'_>,
    ) -> Result<(), CoordinationRefusal> {
        let key = key(Kind::Event, name)?;
        let thing = self.thing(&key, owner.client, State::Event { is_set: false })?;
        if let State::Event { is_set } = &mut thing.state {
            *is_set = value;
        }
        step.answer(owner, CoordinationAnswer::Done);
        self.serve(&key, step);
        Ok(())
    }

    fn set_variable(
        &mut self,
        owner: Owner,
        name: &str,
        new: Blob,
        step: &mut Step<'_>,
    ) -> Result<(), CoordinationRefusal> {
        let key = key(Kind::Variable, name)?;
        let freed = self.things.get(&key).map_or(0, Thing::bytes);
        self.room_for(&new, freed)?;
        let added = length(&new);
        let thing = self.thing(&key, owner.client, State::Variable { value: None })?;
        if let State::Variable { value } = &mut thing.state {
            *value = Some(new);
        }
        self.bytes = self.bytes + added - freed;
        step.answer(owner, CoordinationAnswer::Done);
        self.serve(&key, step);
        Ok(())
    }

    fn delete(
        &mut self,
        owner: Owner,
        kind: DeletableKind,
        name: &str,
        step: &mut Step<'_>,
    ) -> Result<(), CoordinationRefusal> {
        let key = key(
            match kind {
                DeletableKind::Event => Kind::Event,
                DeletableKind::Queue => Kind::Queue,
                DeletableKind::Variable => Kind::Variable,
            },
            name,
        )?;
        step.answer(owner, CoordinationAnswer::Done);
        if let Some(thing) = self.things.get_mut(&key) {
            self.bytes -= thing.bytes();
            thing.clear();
            // Those who wait for room in a queue have it now.
            self.serve(&key, step);
            if self.things.get(&key).is_some_and(Thing::is_blank) {
                self.drop_thing(&key);
            }
        }
        Ok(())
    }

    fn renew(&mut self, owner: Owner, now: Time) {
        if let Some(Call {
            state: CallState::Holding { lease_micros },
            ..
        }) = self.calls.get(&owner)
        {
            let due = now.after_micros(*lease_micros);
            self.set_deadline(owner, Some(due));
        }
    }

    /// The thing of this name, made where there is none, which the client uses from now on.
    fn thing(
        &mut self,
        key: &Key,
        client: ClientId,
        new: State,
    ) -> Result<&mut Thing, CoordinationRefusal> {
        let limit = self.limits.names;
        if !self.things.contains_key(key) && self.things.len() >= limit as usize {
            return Err(CoordinationRefusal::TooManyNames { limit });
        }
        let thing = self.things.entry(key.clone()).or_insert(Thing::new(new));
        if thing.users.insert(client) {
            let client = self.clients.entry(client).or_default();
            client.uses.insert(key.clone());
        }
        Ok(thing)
    }

    fn same_permits(&self, key: &Key, asked: u32) -> Result<(), CoordinationRefusal> {
        at_least_one("the permits of a semaphore", asked)?;
        match self.things.get(key).map(|thing| &thing.state) {
            Some(State::Permits { total, .. }) if *total != asked => {
                let permits = *total;
                Err(CoordinationRefusal::OtherPermits { permits, asked })
            }
            Some(
                State::Permits { .. }
                | State::Event { .. }
                | State::Queue { .. }
                | State::Variable { .. },
            )
            | None => Ok(()),
        }
    }

    fn room_for(&self, blob: &Blob, freed: u64) -> Result<(), CoordinationRefusal> {
        let (bytes, limit) = (length(blob), self.limits.item_bytes);
        if bytes > limit {
            return Err(CoordinationRefusal::TooLarge { bytes, limit });
        }
        let (used, limit) = (self.bytes, self.limits.memory_bytes);
        if used - freed + bytes > limit {
            return Err(CoordinationRefusal::Full { used, limit });
        }
        Ok(())
    }
}

fn key(kind: Kind, name: &str) -> Result<Key, CoordinationRefusal> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        let bytes = name.len() as u64;
        return Err(CoordinationRefusal::BadName { bytes });
    }
    let name = name.into();
    Ok(Key { kind, name })
}

fn permit(lease_ms: u32) -> Result<Wants, CoordinationRefusal> {
    at_least_one("a lease, in milliseconds,", lease_ms)?;
    Ok(Wants::Permit {
        lease_micros: u64::from(lease_ms) * 1_000,
    })
}

fn at_least_one(what: &str, amount: u32) -> Result<(), CoordinationRefusal> {
    if amount == 0 {
        let what = what.to_owned();
        Err(CoordinationRefusal::Zero { what })
    } else {
        Ok(())
    }
}
