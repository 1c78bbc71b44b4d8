//! What lanes of a warp do together: they wait until all that the mask names have come, and then get their results.

use super::Grid;
use super::block::Shared;
use super::warp::{Warp, lanes};
use crate::code::{Meeting, Op, Reduction, Row, Shuffle, Together};

/// What a lane brings to a meeting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) what: Together,
    pub(crate) members: u32,
    values: [u64; 3],
    vote: bool,
    /// Whether all that it brings has been written.
    defined: bool,
}

impl Default for Arrival {
    fn default() -> Self {
        Self {
            what: Together::Barrier,
            members: 0,
            values: [0; 3],
            vote: false,
            defined: false,
        }
    }
}

/// What lanes get.
struct Outcome {
    values: Row,
    truth: u32,
    defined: u32,
}

impl Warp {
    /// The lanes of `mask` bring what `meeting` takes.
    pub(crate) fn arrive(&mut self, meeting: &Meeting, rows: usize, preds: usize, mask: u32) {
        let row = |reg: u16| rows + usize::from(reg);
        let mut defined = meeting
            .sources
            .iter()
            .fold(u32::MAX, |all, reg| all & self.defined[row(*reg)]);
        let vote = match meeting.vote {
            Some(vote) => {
                let index = preds + usize::from(vote.pred);
                defined &= self.preds_defined[index];
                self.preds[index] ^ if vote.negated { u32::MAX } else { 0 }
            }
            None => 0,
        };
        for lane in lanes(mask) {
            self.arrivals[lane] = Arrival {
                what: meeting.what,
                members: self.rows[row(meeting.members)][lane] as u32,
                values: meeting.sources.map(|reg| self.rows[row(reg)][lane]),
                vote: vote >> lane & 1 == 1,
                defined: defined >> lane & 1 == 1,
            };
        }
        self.meeting |= mask;
    }

    /// The waiting lanes that came to the same meeting as `lane`.
    pub(crate) fn same_meeting(&self, lane: usize) -> u32 {
        let Arrival { what, members, .. } = self.arrivals[lane];
        lanes(self.meeting)
            .filter(|other| {
                self.arrivals[*other].what == what && self.arrivals[*other].members == members
            })
            .fold(0, |mask, other| mask | 1 << other)
    }

    /// Completes the meeting of `lane` if all its members that have not ended are there. Returns those that met.
    pub(crate) fn try_meet(&mut self, grid: &Grid<'_>, shared: &mut Shared, lane: usize) -> u32 {
        let code = &grid.kernel.code.ins;
        let here = self.same_meeting(lane);
        let needed = self.arrivals[lane].members & self.alive;
        if here & needed != needed {
            return 0;
        }
        if self.arrivals[lane].what == Together::Barrier {
            let warp = self.number as usize;
            shared.races.warp_barrier(warp, here, self.alive);
        }
        let outcome = outcome(self.arrivals[lane].what, &self.arrivals, here);
        // Mostly all of them are at the same instruction of the same frame.
        let mut rest = here;
        while let Some(first) = lanes(rest).next() {
            let (pc, frame) = (self.pcs[first], self.frames[first]);
            let mut mask = 0;
            for other in lanes(rest) {
                if self.pcs[other] == pc && self.frames[other] == frame {
                    mask |= 1 << other;
                }
            }
            rest &= !mask;
            if let Some(Op::Meet(meeting)) = code.get(pc as usize).map(|ins| &ins.op) {
                if let Some(d) = meeting.d {
                    self.write(
                        frame.rows as usize + usize::from(d),
                        mask,
                        &outcome.values,
                        outcome.defined,
                    );
                }
                if let Some(p) = meeting.p {
                    let defined = if meeting.vote.is_some() {
                        outcome.defined
                    } else {
                        u32::MAX
                    };
                    self.write_pred(
                        frame.preds as usize + usize::from(p),
                        mask,
                        outcome.truth,
                        defined,
                    );
                }
            }
            self.set_pcs(mask, pc + 1);
        }
        self.meeting &= !here;
        here
    }

    #[inline(always)]
    pub(crate) fn write_pred(&mut self, index: usize, mask: u32, values: u32, defined: u32) {
        self.preds[index] = self.preds[index] & !mask | values & mask;
        self.preds_defined[index] = self.preds_defined[index] & !mask | defined & mask;
    }
}

fn outcome(what: Together, arrivals: &[Arrival; 32], here: u32) -> Outcome {
    let all_defined = if lanes(here).all(|lane| arrivals[lane].defined) {
        u32::MAX
    } else {
        0
    };
    let votes = lanes(here)
        .filter(|lane| arrivals[*lane].vote)
        .fold(0, |mask, lane| mask | 1 << lane);
    let mut outcome = Outcome {
        values: [0; 32],
        truth: 0,
        defined: all_defined,
    };
    let yes = |condition: bool| if condition { u32::MAX } else { 0 };
    match what {
        Together::Barrier => {}
        Together::Shuffle(how) => shuffle(how, arrivals, here, &mut outcome),
        Together::Ballot => outcome.values = [u64::from(votes); 32],
        Together::Any => outcome.truth = yes(votes != 0),
        Together::All => outcome.truth = yes(votes == here),
        Together::Uniform => outcome.truth = yes(votes == here || votes == 0),
        Together::MatchAny { .. } => {
            for lane in lanes(here) {
                let value = arrivals[lane].values[0];
                let alike = lanes(here).filter(|other| arrivals[*other].values[0] == value);
                outcome.values[lane] = alike.fold(0, |mask, other| mask | 1 << other);
            }
        }
        Together::MatchAll { .. } => {
            let mut values = lanes(here).map(|lane| arrivals[lane].values[0]);
            let first = values.next();
            if values.all(|value| Some(value) == first) {
                outcome.values = [u64::from(here); 32];
                outcome.truth = u32::MAX;
            }
        }
        Together::Reduce(reduction) => {
            let values = lanes(here).map(|lane| arrivals[lane].values[0] as u32);
            let reduced = values.reduce(|a, b| reduce(reduction, a, b)).unwrap_or(0);
            outcome.values = [u64::from(reduced); 32];
        }
    }
    outcome
}

/// As the PTX manual computes it: the clamp row has the last lane in its low bits and the mask of segments above.
fn shuffle(how: Shuffle, arrivals: &[Arrival; 32], here: u32, outcome: &mut Outcome) {
    outcome.defined = 0;
    for lane in lanes(here) {
        let [_, distance, clamp] = arrivals[lane].values.map(|value| value as u32);
        let distance = distance & 31;
        let (last, segments) = (clamp & 31, clamp >> 8 & 31);
        let own = lane as u32;
        let most = own & segments | last & !segments;
        let least = own & segments;
        let (source, inside) = match how {
            Shuffle::Up => (
                own.wrapping_sub(distance),
                own as i32 - distance as i32 >= most as i32,
            ),
            Shuffle::Down => (own + distance, own + distance <= most),
            Shuffle::Butterfly => (own ^ distance, own ^ distance <= most),
            Shuffle::Index => {
                let source = least | distance & !segments;
                (source, source <= most)
            }
        };
        let source = if inside { source as usize & 31 } else { lane };
        outcome.values[lane] = arrivals[source].values[0];
        outcome.truth |= u32::from(inside) << lane;
        // Of a lane that takes no part comes no value.
        let given = here >> source & 1 == 1 && arrivals[source].defined;
        outcome.defined |= u32::from(given) << lane;
    }
}

fn reduce(reduction: Reduction, a: u32, b: u32) -> u32 {
    match reduction {
        Reduction::Add => a.wrapping_add(b),
        Reduction::Min => a.min(b),
        Reduction::Max => a.max(b),
        Reduction::SignedMin => (a as i32).min(b as i32) as u32,
        Reduction::SignedMax => (a as i32).max(b as i32) as u32,
        Reduction::And => a & b,
        Reduction::Or => a | b,
        Reduction::Xor => a ^ b,
    }
}
