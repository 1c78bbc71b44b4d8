//! What has come from one worker to another: how much, over what, how fast, and why not over something better.
//!
//! Told by `reports`; asked by `cost` for what moving takes, and by `info` for people. Knows nothing of messages.

use transload_protocol::{Demotion, Time, Transfer, WorkerId};

use crate::cost::{Link, SMALL_BYTES};

/// What has come from one worker to another.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    transfer: Transfer,
    pub(crate) link: Link,
    flow: Flow,
}

/// Large partitions since the link is what it is. Several come at once, and what each takes alone says little.
#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    bytes: u64,
    /// For how long at least one was under way.
    busy_micros: u64,
    /// The last such time without a break.
    last: Option<(Time, Time)>,
}

impl Flow {
    /// One has come that was under way from `start` to `end`. They are told in the order in which they came.
    fn add(&mut self, bytes: u64, start: Time, end: Time) {
        let micros = |from: Time, to: Time| to.micros.saturating_sub(from.micros);
        let (more, last) = match self.last {
            Some((began, until)) if start <= until => {
                let more = micros(until, end).saturating_add(micros(start, began));
                (more, (began.min(start), until.max(end)))
            }
            Some(_) | None => (micros(start, end), (start, end)),
        };
        self.bytes = self.bytes.saturating_add(bytes);
        self.busy_micros = self.busy_micros.saturating_add(more);
        self.last = Some(last);
    }

    fn bytes_per_s(&self) -> u64 {
        let per_s = u128::from(self.bytes) * 1_000_000 / u128::from(self.busy_micros.max(1));
        u64::try_from(per_s).unwrap_or(u64::MAX)
    }
}

impl Traffic {
    /// Nothing yet, over a link that is expected to be like this one.
    pub(crate) fn new((from, to): (WorkerId, WorkerId), link: Link) -> Self {
        Self {
            transfer: Transfer {
                from,
                to,
                partitions: 0,
                bytes: 0,
                transport: String::new(),
                bytes_per_s: 0,
                demotion: None,
            },
            link,
            flow: Flow::default(),
        }
    }

    /// A partition has come, at this time on the reader's clock.
    pub(crate) fn on_fetched(&mut self, bytes: u64, transport: &str, at: Time, micros: u64) {
        self.link.learn(bytes, micros);
        self.go_over(transport);
        let transfer = &mut self.transfer;
        transfer.partitions = transfer.partitions.saturating_add(1);
        transfer.bytes = transfer.bytes.saturating_add(bytes);
        if bytes >= SMALL_BYTES {
            let start = Time::from_micros(at.micros.saturating_sub(micros));
            self.flow.add(bytes, start, at);
        }
    }

    /// A transport has failed, and another is used.
    pub(crate) fn on_demoted(&mut self, demotion: &Demotion, used: &str) {
        self.transfer.demotion = Some(demotion.clone());
        self.go_over(used);
    }

    /// What carries partitions now. What was measured of another link is not of this one, and a transport that is back in use is
    /// not demoted.
    fn go_over(&mut self, transport: &str) {
        let transfer = &mut self.transfer;
        if transfer.transport != transport {
            transfer.transport = transport.to_owned();
            self.flow = Flow::default();
        }
        if self.is_of_demoted() {
            self.transfer.demotion = None;
        }
    }

    fn is_of_demoted(&self) -> bool {
        let name = self.transfer.transport.split(' ').next();
        let demotion = self.transfer.demotion.as_ref();
        demotion.is_some_and(|demotion| name == Some(demotion.wanted.as_str()))
    }

    /// For people.
    pub(crate) fn transfer(&self) -> Transfer {
        Transfer {
            bytes_per_s: self.flow.bytes_per_s(),
            ..self.transfer.clone()
        }
    }

    /// Whether this is of that pair, its measure counts no more than what came, and no transport is both in use and demoted.
    pub(crate) fn is_sound(&self, pair: (WorkerId, WorkerId)) -> bool {
        let transfer = &self.transfer;
        (transfer.from, transfer.to) == pair
            && self.flow.bytes <= transfer.bytes
            && self.flow.last.is_none_or(|(began, until)| began <= until)
            && !self.is_of_demoted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn traffic() -> Traffic {
        Traffic::new((WorkerId(0), WorkerId(1)), Link::NEAR)
    }

    #[test]
    fn bandwidth_is_of_the_time_in_which_something_large_was_under_way() {
        let mut traffic = traffic();
        // Four at once, for a second in all; then a pause; then one for another second.
        for end in [700_000, 800_000, 900_000, 1_000_000] {
            traffic.on_fetched(MIB, "tcp", Time::from_micros(end), end);
        }
        traffic.on_fetched(1, "tcp", Time::from_micros(5_000_000), 4_000_000);
        traffic.on_fetched(4 * MIB, "tcp", Time::from_micros(9_000_000), 1_000_000);
        assert_eq!(traffic.transfer().bytes_per_s, 4 * MIB);
        // One that began before others which came before it.
        traffic.on_fetched(4 * MIB, "tcp", Time::from_micros(9_500_000), 2_000_000);
        assert_eq!(traffic.transfer().bytes_per_s, 12 * MIB / 3);
        assert!(traffic.is_sound((WorkerId(0), WorkerId(1))));
    }

    #[test]
    fn what_was_measured_of_one_link_is_not_told_of_another() {
        let mut traffic = traffic();
        traffic.on_fetched(MIB, "ucx posix/memory", Time::from_micros(1_000), 1_000);
        traffic.on_fetched(1, "tcp", Time::from_micros(2_000), 1_000);
        assert_eq!(traffic.transfer().bytes_per_s, 0);
        assert_eq!(traffic.transfer().bytes, MIB + 1);
    }

    #[test]
    fn the_reason_stays_until_the_transport_is_used_again() {
        let mut traffic = traffic();
        let demotion = Demotion {
            wanted: "ucx".to_owned(),
            reason: "it died".to_owned(),
            lasting: false,
        };
        traffic.on_demoted(&demotion, "tcp");
        traffic.on_fetched(MIB, "tcp", Time::from_micros(1_000), 1_000);
        assert_eq!(traffic.transfer().demotion, Some(demotion.clone()));
        traffic.on_fetched(MIB, "ucx posix/memory", Time::from_micros(2_000), 1_000);
        assert_eq!(traffic.transfer().demotion, None);
        // A worker that says both at once is not believed the one.
        traffic.on_demoted(&demotion, "ucx posix/memory");
        assert!(traffic.is_sound((WorkerId(0), WorkerId(1))));
    }

    #[test]
    fn no_number_is_too_large() {
        let mut traffic = traffic();
        for (bytes, at, micros) in [
            (u64::MAX, u64::MAX, 0),
            (u64::MAX, 0, u64::MAX),
            (MIB, 5, 9),
        ] {
            traffic.on_fetched(bytes, "tcp", Time::from_micros(at), micros);
        }
        assert!(traffic.transfer().bytes_per_s > 0);
        assert!(traffic.is_sound((WorkerId(0), WorkerId(1))));
    }
}
