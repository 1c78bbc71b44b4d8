//! The state of 32 lanes, and which of them run next.

use crate::code::Row;

use super::frame::{Frame, LaneStack};
use super::meet::Arrival;

/// Lanes by number.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros();
        rest &= rest.wrapping_sub(1);
        (lane < 32).then_some(lane as usize)
    })
}

/// The same lanes, beginning with one in the middle.
pub(crate) fn lanes_from(mask: u32, first: u32) -> impl Iterator<Item = usize> {
    let first = first % 32;
    lanes(mask.rotate_right(first)).map(move |lane| (lane + first as usize) % 32)
}

/// Lanes that are at the same instruction of the same frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) mask: u32,
    pub(crate) pc: u32,
    pub(crate) frame: Frame,
    /// The next instruction where other lanes of the same depth are: there it is time to look who joins.
    pub(crate) stop: u32,
}

#[derive(Default)]
pub(crate) struct Warp {
    pub(crate) number: u32,
    /// Registers of all frames.
    pub(crate) rows: Vec<Row>,
    /// Which lanes of each row have been written with written values.
    pub(crate) defined: Vec<u32>,
    pub(crate) preds: Vec<u32>,
    pub(crate) preds_defined: Vec<u32>,
    pub(crate) carries: u32,
    pub(crate) carries_defined: u32,
    pub(crate) pcs: [u32; 32],
    pub(crate) frames: [Frame; 32],
    pub(crate) stacks: [LaneStack; 32],
    /// Lanes that have not ended.
    pub(crate) alive: u32,
    /// Lanes that wait for others of the warp, with what they bring.
    pub(crate) meeting: u32,
    pub(crate) arrivals: [Arrival; 32],
    /// Lanes that wait at a barrier of the block.
    pub(crate) at_barrier: u32,
    /// The last group was put aside unfinished: others come first.
    pub(crate) put_aside: u32,
    /// Where each lane last loaded bytes that were never written: the line, and the offset in its memory.
    pub(crate) unwritten: [Option<(u32, u64)>; 32],
    /// With which lane stores and atomic operations begin: hardware promises no order.
    pub(crate) first_lane: u32,
    /// Counts accesses to memory, so that lanes that access together are known.
    pub(crate) instance: u32,
}

impl Warp {
    pub(crate) fn runnable(&self) -> u32 {
        self.alive & !self.meeting & !self.at_barrier
    }

    /// The group at the smallest instruction of the deepest frames, so that lanes that parted come together again.
    pub(crate) fn pick(&self) -> Option<Group> {
        let mut candidates = self.runnable();
        if candidates & !self.put_aside != 0 {
            candidates &= !self.put_aside;
        }
        let key = |lane: usize| {
            (
                std::cmp::Reverse(self.frames[lane].depth),
                self.pcs[lane],
                self.frames[lane],
            )
        };
        let first = lanes(candidates).min_by_key(|lane| key(*lane))?;
        let (pc, frame) = (self.pcs[first], self.frames[first]);
        let mut group = Group {
            mask: 0,
            pc,
            frame,
            stop: u32::MAX,
        };
        for lane in lanes(self.runnable()) {
            if self.pcs[lane] == pc && self.frames[lane] == frame {
                group.mask |= 1 << lane;
            } else if self.frames[lane].depth == frame.depth && self.pcs[lane] > pc {
                group.stop = group.stop.min(self.pcs[lane]);
            }
        }
        Some(group)
    }

    pub(crate) fn set_pcs(&mut self, mask: u32, pc: u32) {
        for lane in lanes(mask) {
            self.pcs[lane] = pc;
        }
    }

    /// The number of a lane's thread in its block.
    pub(crate) fn thread(&self, lane: usize) -> u32 {
        self.number * 32 + lane as u32
    }
}
