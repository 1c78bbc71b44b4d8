//! What breaks and when: a plan made at the start, whose victims are chosen when the time comes.

use transload_protocol::Time;

use crate::network::{Agenda, Happening};
use crate::random::Random;
use crate::scenario::Scenario;

/// One thing that breaks, or is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A process dies; its machine closes its connections.
    Kill,
    /// A machine loses power: nobody is told.
    PowerCut,
    /// The connection between a worker and the scheduler breaks.
    CutConnection,
    /// A process does nothing for a while.
    Stall,
    /// The scheduler does nothing for a while.
    SchedulerStall,
    /// The scheduler dies, and another one takes its place at once.
    SchedulerCrash,
    /// A worker says goodbye and ends.
    Departure,
    /// A new worker process starts.
    Arrival,
    /// Nothing fails by chance from now on, and there is at least one worker.
    Calm,
}

/// Puts all faults of a scenario at random times before it becomes calm.
pub(crate) fn plan(scenario: &Scenario, random: &mut Random, agenda: &mut Agenda) {
    let kinds = [
        (Fault::Kill, scenario.kills),
        (Fault::PowerCut, scenario.power_cuts),
        (Fault::CutConnection, scenario.cut_connections),
        (Fault::Stall, scenario.stalls),
        (Fault::SchedulerStall, scenario.scheduler_stalls),
        (Fault::SchedulerCrash, scenario.scheduler_crashes),
        (Fault::Departure, scenario.departures),
        (Fault::Arrival, scenario.arrivals),
    ];
    for (fault, count) in kinds {
        for _ in 0..count {
            let at = Time::from_micros(random.below(scenario.calm_after_micros));
            agenda.push(at, Happening::Fault(fault));
        }
    }
    let calm = Time::from_micros(scenario.calm_after_micros);
    agenda.push(calm, Happening::Fault(Fault::Calm));
}
