//! Clients that call and a clock, around the machine of named things. It is checked after each step.

mod cases;
mod random;

use transload_protocol::{
    Blob, ClientId, CoordinationAnswer, CoordinationCall, CoordinationRefusal, DeletableKind,
    Patience, RequestId, SchedulerToClient, Time,
};

use super::{Coordination, Step};
use crate::api::{Action, CoordinationLimits};

/// Answers of one step, in order.
pub(crate) type Answers = Vec<((u32, u64), CoordinationAnswer)>;

pub(crate) struct Desk {
    pub(crate) machine: Coordination,
    pub(crate) now: Time,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::with(CoordinationLimits::default())
    }

    pub(crate) fn with(limits: CoordinationLimits) -> Self {
        Self {
            machine: Coordination::new(limits),
            now: Time::default(),
        }
    }

    /// A client's call, by client and number.
    pub(crate) fn call(
        &mut self,
        (client, request): (u32, u64),
        call: CoordinationCall,
    ) -> Answers {
        let label = format!("{client}.{request} {call:?}");
        self.step(&label, |machine, step| {
            machine.on_call(ClientId(client), RequestId(request), call, step);
        })
    }

    pub(crate) fn lose(&mut self, client: u32) -> Answers {
        self.step("client lost", |machine, step| {
            machine.on_client_lost(ClientId(client), step);
        })
    }

    /// Lets time pass up to the next deadline and handles it.
    pub(crate) fn tick(&mut self) -> Answers {
        if let Some(due) = self.machine.next_deadline() {
            self.now = self.now.max(due);
        }
        self.step("tick", |machine, step| machine.on_tick(step))
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        self.now = self.now.after_micros(millis * 1_000);
    }

    fn step(&mut self, label: &str, act: impl FnOnce(&mut Coordination, &mut Step<'_>)) -> Answers {
        let mut out = Vec::new();
        act(
            &mut self.machine,
            &mut Step {
                now: self.now,
                out: &mut out,
            },
        );
        if let Err(error) = self.machine.check() {
            panic!("after {label}: {error}");
        }
        let answers = out.into_iter().map(|action| match action {
            Action::ToClient {
                client,
                message: SchedulerToClient::Coordinated { request, answer },
            } => ((client.0, request.0), answer),
            other => panic!("after {label}: {other:?}"),
        });
        answers.collect()
    }

    /// Nothing is left of anyone.
    pub(crate) fn assert_empty(&self) {
        assert!(self.machine.things.is_empty(), "{:?}", self.machine.things);
        assert!(self.machine.calls.is_empty(), "{:?}", self.machine.calls);
        assert!(
            self.machine.clients.is_empty(),
            "{:?}",
            self.machine.clients
        );
        assert_eq!(self.machine.next_deadline(), None);
        assert_eq!(self.machine.bytes, 0);
    }
}

pub(crate) fn lock(name: &str, patience: Patience) -> CoordinationCall {
    CoordinationCall::Lock {
        name: name.to_owned(),
        patience,
        lease_ms: 1_000,
    }
}

pub(crate) fn acquire(name: &str, permits: u32) -> CoordinationCall {
    CoordinationCall::Acquire {
        name: name.to_owned(),
        permits,
        patience: Patience::Forever,
        lease_ms: 1_000,
    }
}

pub(crate) fn put(name: &str, item: &[u8], max_items: Option<u32>) -> CoordinationCall {
    CoordinationCall::Put {
        name: name.to_owned(),
        item: blob(item),
        max_items,
        patience: Patience::Forever,
    }
}

pub(crate) fn get(name: &str) -> CoordinationCall {
    CoordinationCall::Get {
        name: name.to_owned(),
        patience: Patience::Forever,
    }
}

pub(crate) fn delete(kind: DeletableKind, name: &str) -> CoordinationCall {
    CoordinationCall::Delete {
        kind,
        name: name.to_owned(),
    }
}

pub(crate) fn blob(bytes: &[u8]) -> Blob {
    Blob::from(bytes.to_vec())
}

pub(crate) fn value(bytes: &[u8]) -> CoordinationAnswer {
    CoordinationAnswer::Value(blob(bytes))
}

pub(crate) fn refusal(answers: &Answers) -> &CoordinationRefusal {
    match answers.as_slice() {
        [(_, CoordinationAnswer::Refused(refusal))] => refusal,
        other => panic!("one refusal was expected, not {other:?}"),
    }
}
