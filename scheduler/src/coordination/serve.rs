//! Whose turn it is, and what is left when a call ends. Part of `coordination`.

use transload_protocol::{CoordinationAnswer, Time};

use super::thing::{Call, CallState, Key, Owner, State, Thing, Wants};
use super::{Coordination, Step};

/// What to do next for a thing.
enum Turn {
    /// The first in line gets a permit.
    Grant(Owner),
    /// The first in line gets what all get: an event, or a value.
    Tell(Owner, CoordinationAnswer),
    /// The first in line gets the oldest item.
    Deliver(Owner),
    /// The first in line for room puts its item.
    Store(Owner),
    Nothing,
}

impl Coordination {
    /// Answers the calls whose turn has come, and forgets a lock or semaphore that is over.
    pub(super) fn serve(&mut self, key: &Key, step: &mut Step<'_>) {
        loop {
            match self.turn(key) {
                Turn::Grant(owner) => self.grant(owner, step),
                Turn::Tell(owner, answer) => {
                    step.answer(owner, answer);
                    self.detach(owner);
                }
                Turn::Deliver(owner) => self.deliver(owner, step),
                Turn::Store(owner) => {
                    step.answer(owner, CoordinationAnswer::Done);
                    self.store(owner);
                }
                Turn::Nothing => break,
            }
        }
        if self.things.get(key).is_some_and(Thing::is_over) {
            self.drop_thing(key);
        }
    }

    /// Ends a call, if there is one, and serves those behind it.
    pub(super) fn end(&mut self, owner: Owner, step: &mut Step<'_>) {
        if let Some(key) = self.detach(owner) {
            self.serve(&key, step);
        }
    }

    /// Takes a call out; what it had goes back to its thing, which is to be served then.
    pub(super) fn detach(&mut self, owner: Owner) -> Option<Key> {
        let call = self.forget_call(owner)?;
        let Call { key, state, .. } = call;
        self.bytes -= state.bytes();
        let thing = self.things.get_mut(&key)?;
        match (state, &mut thing.state) {
            (
                CallState::Waiting {
                    ticket,
                    wants: Wants::Room { .. },
                },
                State::Queue { putting, .. },
            ) => {
                putting.remove(&ticket);
            }
            (CallState::Waiting { ticket, .. }, _) => {
                thing.waiting.remove(&ticket);
            }
            (CallState::Holding { .. }, State::Permits { held, .. }) => {
                held.remove(&owner);
            }
            (
                CallState::Delivered { number, item },
                State::Queue {
                    items, delivered, ..
                },
            ) => {
                self.bytes += super::length(&item);
                items.insert(number, item);
                *delivered -= 1;
            }
            // A call is of the kind of its thing.
            (CallState::Holding { .. } | CallState::Delivered { .. }, _) => {}
        }
        Some(key)
    }

    /// The item that a call got has arrived: it is nobody else's any more.
    pub(super) fn on_taken(&mut self, owner: Owner) {
        let was_delivered = self
            .calls
            .get(&owner)
            .is_some_and(|call| matches!(call.state, CallState::Delivered { .. }));
        if !was_delivered {
            return;
        }
        let Some(call) = self.forget_call(owner) else {
            return;
        };
        self.bytes -= call.state.bytes();
        if let Some(thing) = self.things.get_mut(&call.key)
            && let State::Queue { delivered, .. } = &mut thing.state
        {
            *delivered -= 1;
        }
    }

    pub(super) fn set_deadline(&mut self, owner: Owner, deadline: Option<Time>) {
        if let Some(call) = self.calls.get_mut(&owner) {
            if let Some(old) = std::mem::replace(&mut call.deadline, deadline) {
                self.deadlines.remove(&(old, owner));
            }
            if let Some(new) = deadline {
                self.deadlines.insert((new, owner));
            }
        }
    }

    /// Forgets a thing that no call is about, and all that it has.
    pub(super) fn drop_thing(&mut self, key: &Key) {
        if let Some(thing) = self.things.remove(key) {
            self.bytes -= thing.bytes();
            for user in &thing.users {
                if let Some(client) = self.clients.get_mut(user) {
                    client.uses.remove(key);
                    if client.uses.is_empty() {
                        // A call is about a thing that its client uses, so there is none either.
                        self.clients.remove(user);
                    }
                }
            }
        }
    }

    fn turn(&self, key: &Key) -> Turn {
        let Some(thing) = self.things.get(key) else {
            return Turn::Nothing;
        };
        let first = thing.waiting.values().next().copied();
        match (&thing.state, first) {
            (State::Permits { total, held }, Some(first)) if held.len() < *total as usize => {
                Turn::Grant(first)
            }
            (State::Event { is_set: true }, Some(first)) => {
                Turn::Tell(first, CoordinationAnswer::Done)
            }
            (State::Variable { value: Some(value) }, Some(first)) => {
                Turn::Tell(first, CoordinationAnswer::Value(value.clone()))
            }
            (State::Queue { items, .. }, Some(first)) if !items.is_empty() => Turn::Deliver(first),
            (State::Queue { items, putting, .. }, _) => match putting.values().next() {
                Some(first) if self.has_room(*first, items.len()) => Turn::Store(*first),
                Some(_) | None => Turn::Nothing,
            },
            (State::Permits { .. } | State::Event { .. } | State::Variable { .. }, _) => {
                Turn::Nothing
            }
        }
    }

    fn has_room(&self, owner: Owner, items: usize) -> bool {
        match self.calls.get(&owner).map(|call| &call.state) {
            Some(CallState::Waiting {
                wants: Wants::Room { max_items, .. },
                ..
            }) => max_items.is_none_or(|most| items < most as usize),
            Some(
                CallState::Waiting { .. } | CallState::Holding { .. } | CallState::Delivered { .. },
            )
            | None => false,
        }
    }

    fn grant(&mut self, owner: Owner, step: &mut Step<'_>) {
        let Some(call) = self.calls.get_mut(&owner) else {
            return;
        };
        let CallState::Waiting {
            ticket,
            wants: Wants::Permit { lease_micros },
        } = call.state
        else {
            return;
        };
        call.state = CallState::Holding { lease_micros };
        if let Some(thing) = self.things.get_mut(&call.key) {
            thing.waiting.remove(&ticket);
            if let State::Permits { held, .. } = &mut thing.state {
                held.insert(owner);
            }
        }
        self.set_deadline(owner, Some(step.now.after_micros(lease_micros)));
        step.answer(owner, CoordinationAnswer::Granted);
    }

    fn deliver(&mut self, owner: Owner, step: &mut Step<'_>) {
        let Some(call) = self.calls.get_mut(&owner) else {
            return;
        };
        let (CallState::Waiting { ticket, .. }, Some(thing)) =
            (&call.state, self.things.get_mut(&call.key))
        else {
            return;
        };
        thing.waiting.remove(ticket);
        if let State::Queue {
            items, delivered, ..
        } = &mut thing.state
            && let Some((number, item)) = items.pop_first()
        {
            *delivered += 1;
            step.answer(owner, CoordinationAnswer::Value(item.clone()));
            call.state = CallState::Delivered { number, item };
        }
        self.set_deadline(owner, None);
    }

    fn store(&mut self, owner: Owner) {
        let Some(Call { key, state, .. }) = self.forget_call(owner) else {
            return;
        };
        let Some(thing) = self.things.get_mut(&key) else {
            return;
        };
        if let (
            CallState::Waiting {
                ticket,
                wants: Wants::Room { item, .. },
            },
            State::Queue {
                items,
                next_number,
                putting,
                ..
            },
        ) = (state, &mut thing.state)
        {
            putting.remove(&ticket);
            items.insert(*next_number, item);
            *next_number += 1;
        }
    }

    fn forget_call(&mut self, owner: Owner) -> Option<Call> {
        self.set_deadline(owner, None);
        if let Some(client) = self.clients.get_mut(&owner.client) {
            client.calls.remove(&owner.request);
        }
        self.calls.remove(&owner)
    }
}
