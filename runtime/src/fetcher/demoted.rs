//! Addresses that are not used for a while, because what they lead to has failed. Part of the fetcher.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use transload_protocol::{Address, Demotion};
use transload_transport::TransportError;

/// The time grows no further after so many failures: to an hour, of a minute.
const MOST_DOUBLINGS: u32 = 6;

/// Which addresses have failed, why, and until when they are left alone.
pub(super) struct Demoted {
    time: Duration,
    failures: Mutex<HashMap<Address, Failure>>,
}

struct Failure {
    at: Instant,
    /// `None` where trying again is pointless.
    until: Option<Instant>,
    /// How often in a row.
    times: u32,
    error: TransportError,
    told: bool,
}

impl Demoted {
    pub(super) fn new(time: Duration) -> Self {
        Self {
            time,
            failures: Mutex::default(),
        }
    }

    /// Whether this address may be used now. When its time is over, the first who asks may try, and the others wait for what comes
    /// of it, so that not all of them run into the same silence.
    pub(super) fn may_try(&self, address: &Address) -> bool {
        let now = Instant::now();
        match self.failures().get_mut(address) {
            None => true,
            Some(failure) => {
                let over = failure.until.is_some_and(|until| until <= now);
                if over {
                    failure.until = Some(now + self.time_after(failure.times));
                }
                over
            }
        }
    }

    /// What fails again and again, as versions that differ do, is tried more and more rarely.
    fn time_after(&self, times: u32) -> Duration {
        self.time * (1 << (times.saturating_sub(1)).min(MOST_DOUBLINGS))
    }

    /// This address has failed.
    pub(super) fn demote(&self, address: &Address, error: TransportError) {
        let now = Instant::now();
        let mut failures = self.failures();
        // Many fetches fail together, of one cause.
        let before = failures.get(address);
        if before.is_some_and(|failure| failure.at + self.time > now) {
            return;
        }
        let times = before.map_or(1, |failure| failure.times.saturating_add(1));
        let failure = Failure {
            at: now,
            until: (!is_lasting(&error)).then(|| now + self.time_after(times)),
            times,
            error,
            told: false,
        };
        failures.insert(address.clone(), failure);
    }

    /// How this address has failed after that time, if it has.
    pub(super) fn since(&self, address: &Address, time: Instant) -> Option<TransportError> {
        let failures = self.failures();
        let failure = failures.get(address).filter(|failure| failure.at >= time)?;
        Some(failure.error.clone())
    }

    /// A fetch that was begun at `time` found that this address works.
    pub(super) fn restore(&self, address: &Address, time: Instant) {
        let mut failures = self.failures();
        // What had begun before it failed proves nothing.
        if failures
            .get(address)
            .is_some_and(|failure| failure.at < time)
        {
            failures.remove(address);
        }
    }

    /// This address may lead somewhere else from now on.
    pub(super) fn forget(&self, address: &Address) {
        self.failures().remove(address);
    }

    /// Something has come over `used` although there are these better addresses: why, if that was not told yet.
    pub(super) fn tell<'a>(
        &self,
        better: impl Iterator<Item = &'a Address>,
        used: &str,
    ) -> Option<Demotion> {
        let mut failures = self.failures();
        for address in better {
            let Some(failure) = failures.get_mut(address).filter(|failure| !failure.told) else {
                continue;
            };
            failure.told = true;
            let reason = failure.error.to_string();
            let lasting = is_lasting(&failure.error);
            if lasting {
                tracing::info!(%address, %used, %reason, "a transport has nothing to offer to a peer; its partitions come over another");
            } else {
                tracing::warn!(%address, %used, %reason, again_after = ?self.time_after(failure.times), "a better transport to a peer has failed; its partitions come over another");
            }
            return Some(Demotion {
                wanted: address.scheme.clone(),
                reason,
                lasting,
            });
        }
        None
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<Address, Failure>> {
        // Nothing that holds this lock can leave the map half-changed.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_lasting(error: &TransportError) -> bool {
    matches!(error, TransportError::NothingBetter { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_nothing_to_offer_is_told_once_and_not_tried_again() {
        let demoted = Demoted::new(Duration::ZERO);
        let [lasting, failed] = ["a:1", "b:1"].map(|endpoint| Address::new("ucx", endpoint));
        let error = |peer: &Address| TransportError::NothingBetter {
            peer: peer.clone(),
            what: "tcp/eth0".to_owned(),
        };
        demoted.demote(&lasting, error(&lasting));
        demoted.demote(
            &failed,
            TransportError::Refused {
                peer: failed.clone(),
                reason: "full".to_owned(),
            },
        );
        for _ in 0..3 {
            assert!(!demoted.may_try(&lasting));
            assert!(demoted.may_try(&failed));
        }
        let told = |address| demoted.tell([address].into_iter(), "tcp");
        assert!(told(&lasting).is_some_and(|it| it.lasting));
        assert_eq!(told(&lasting), None);
        assert!(told(&failed).is_some_and(|it| !it.lasting));
        demoted.forget(&lasting);
        assert!(demoted.may_try(&lasting));
    }
}
