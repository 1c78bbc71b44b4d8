//! Every invariant of `coordination`, recomputed from scratch. Called after each step by tests and by `sim`.

use std::collections::{BTreeMap, BTreeSet};

use super::thing::{CallState, Key, Kind, Owner, State, Thing, Wants};
use super::{Client, Coordination};

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl Coordination {
    /// Whether everything that is kept agrees with everything else.
    ///
    /// # Errors
    /// The first thing that does not, in words. Always a bug of ours.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (key, thing) in &self.things {
            self.check_thing(key, thing)
                .map_err(|error| format!("{key:?}: {error}"))?;
        }
        self.check_calls()?;
        self.check_clients()?;
        let things = self.things.values().map(Thing::bytes);
        let calls = self.calls.values().map(|call| call.state.bytes());
        let bytes: u64 = things.chain(calls).sum();
        ensure(bytes == self.bytes, || {
            format!("{} B are counted, {bytes} B are there", self.bytes)
        })?;
        ensure(
            self.bytes <= self.limits.memory_bytes
                && self.things.len() <= self.limits.names as usize
                && self.calls.len() <= self.limits.calls as usize,
            || "a limit is exceeded".to_owned(),
        )
    }

    fn check_thing(&self, key: &Key, thing: &Thing) -> Result<(), String> {
        ensure(!thing.is_over(), || "over and remembered".to_owned())?;
        ensure(!thing.users.is_empty(), || {
            "remembered for nobody".to_owned()
        })?;
        let first = thing.waiting.values().next();
        match (key.kind, &thing.state) {
            (Kind::Lock | Kind::Semaphore, State::Permits { total, held }) => {
                ensure(key.kind == Kind::Semaphore || *total == 1, || {
                    "a lock for several".to_owned()
                })?;
                ensure(held.len() <= *total as usize, || {
                    format!("{} hold {total} permits", held.len())
                })?;
                ensure(first.is_none() || held.len() == *total as usize, || {
                    "a permit is free while a call waits".to_owned()
                })
            }
            (Kind::Event, State::Event { is_set }) => ensure(!is_set || first.is_none(), || {
                "set while a call waits".to_owned()
            }),
            (Kind::Variable, State::Variable { value }) => {
                ensure(value.is_none() || first.is_none(), || {
                    "has a value while a call waits".to_owned()
                })
            }
            (
                Kind::Queue,
                State::Queue {
                    items,
                    putting,
                    next_number,
                    ..
                },
            ) => {
                ensure(items.is_empty() || first.is_none(), || {
                    "has items while a call waits".to_owned()
                })?;
                ensure(
                    items.keys().next_back().is_none_or(|it| it < next_number),
                    || "an item of the future".to_owned(),
                )?;
                let roomy = putting.values().next().is_some_and(|first| {
                    self.calls.get(first).is_some_and(|call| {
                        matches!(&call.state, CallState::Waiting { wants: Wants::Room { max_items, .. }, .. }
                            if max_items.is_none_or(|most| items.len() < most as usize))
                    })
                });
                ensure(!roomy, || "has room while a call waits for it".to_owned())
            }
            (
                Kind::Lock | Kind::Semaphore | Kind::Event | Kind::Queue | Kind::Variable,
                State::Permits { .. }
                | State::Event { .. }
                | State::Queue { .. }
                | State::Variable { .. },
            ) => Err("of another kind than its name".to_owned()),
        }
    }

    fn check_calls(&self) -> Result<(), String> {
        let mut waiting: BTreeMap<(&Key, u64), Owner> = BTreeMap::new();
        let mut putting: BTreeMap<(&Key, u64), Owner> = BTreeMap::new();
        let mut held: BTreeSet<(&Key, Owner)> = BTreeSet::new();
        let mut delivered: BTreeMap<&Key, u32> = BTreeMap::new();
        for (owner, call) in &self.calls {
            match &call.state {
                CallState::Waiting {
                    ticket,
                    wants: Wants::Room { .. },
                } => drop(putting.insert((&call.key, *ticket), *owner)),
                CallState::Waiting { ticket, .. } => {
                    waiting.insert((&call.key, *ticket), *owner);
                }
                CallState::Holding { .. } => {
                    held.insert((&call.key, *owner));
                    ensure(call.deadline.is_some(), || {
                        format!("{owner:?} holds without a lease")
                    })?;
                }
                CallState::Delivered { .. } => *delivered.entry(&call.key).or_default() += 1,
            }
        }
        let mut of_things = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for (key, thing) in &self.things {
            let line = thing.waiting.iter();
            of_things
                .0
                .extend(line.map(|(ticket, owner)| ((key, *ticket), *owner)));
            match &thing.state {
                State::Permits { held, .. } => {
                    of_things.2.extend(held.iter().map(|owner| (key, *owner)));
                }
                State::Queue {
                    putting,
                    delivered: count,
                    ..
                } => {
                    let line = putting.iter();
                    of_things
                        .1
                        .extend(line.map(|(ticket, owner)| ((key, *ticket), *owner)));
                    ensure(delivered.get(key).copied().unwrap_or(0) == *count, || {
                        format!("{key:?} has delivered {count}, not {delivered:?}")
                    })?;
                }
                State::Event { .. } | State::Variable { .. } => {}
            }
        }
        ensure(of_things == (waiting, putting, held), || {
            format!(
                "things and calls do not agree: {of_things:?} and {:?}",
                self.calls
            )
        })?;
        let deadlines: BTreeSet<_> = self
            .calls
            .iter()
            .filter_map(|(owner, call)| Some((call.deadline?, *owner)))
            .collect();
        ensure(deadlines == self.deadlines, || {
            format!("deadlines are {:?}, not {deadlines:?}", self.deadlines)
        })
    }

    fn check_clients(&self) -> Result<(), String> {
        let mut clients: BTreeMap<_, Client> = BTreeMap::new();
        for (key, thing) in &self.things {
            for user in &thing.users {
                clients.entry(*user).or_default().uses.insert(key.clone());
            }
        }
        for owner in self.calls.keys() {
            let client = clients.entry(owner.client).or_default();
            client.calls.insert(owner.request);
        }
        ensure(
            clients.len() == self.clients.len()
                && clients.iter().zip(&self.clients).all(|(one, other)| {
                    one.0 == other.0 && one.1.uses == other.1.uses && one.1.calls == other.1.calls
                }),
            || format!("clients are {:?}, not {clients:?}", self.clients),
        )
    }
}
