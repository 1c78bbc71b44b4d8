//! Races on shared memory: accesses of two threads to one byte, one of them a write, that nothing orders.
//!
//! Time of a warp goes on with each operation that orders it: barriers, `bar.warp.sync`, fences. A warp knows up to which
//! time of every other it has been ordered. Lanes of one warp are ordered by `bar.warp.sync` (and barriers and fences),
//! not by shuffles and votes, which promise nothing about memory.

use super::warp::lanes;

/// An access, as later ones are compared with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Access {
    /// The thread plus one; 0 for none.
    thread: u16,
    /// Volatile, relaxed or atomic.
    strong: bool,
    time: u32,
    line: u32,
    /// Lanes that access together have the same number here.
    instance: u32,
}

/// What is remembered of a byte.
#[derive(Debug, Clone, Copy, Default)]
struct Byte {
    write: Access,
    read: Access,
    /// A list of further reads that nothing orders, by index plus one.
    more: u32,
    /// The block that this was noted for; what was noted for another is nothing.
    generation: u32,
}

#[derive(Default)]
pub(crate) struct Races {
    on: bool,
    bytes: Vec<Byte>,
    generation: u32,
    /// The further reads of some byte.
    readers: Vec<Vec<Access>>,
    /// `known[a][b]`: up to which time of warp `b` warp `a` is ordered behind it.
    known: Vec<[u32; 32]>,
    /// What all who fenced knew.
    fenced: [u32; 32],
    time: Vec<u32>,
    /// Per warp: when two of its lanes were last ordered, by pairs, and all of them.
    pairs: Vec<Box<[[u32; 32]; 32]>>,
    all: Vec<u32>,
}

/// Who accesses, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct By {
    pub(crate) warp: usize,
    pub(crate) lane: usize,
    pub(crate) writes: bool,
    pub(crate) strong: bool,
    pub(crate) line: u32,
    /// The number of the instruction, counted over the run.
    pub(crate) instance: u32,
    /// What it writes is there already: no matter which of two lanes comes last.
    pub(crate) same: bool,
}

/// The other side of a race.
pub(crate) struct Conflict {
    pub(crate) thread: u32,
    pub(crate) line: u32,
    pub(crate) writes: bool,
}

impl Races {
    pub(crate) fn begin(&mut self, warps: usize, bytes: usize, on: bool) {
        self.on = on && bytes != 0;
        if !self.on {
            return;
        }
        self.bytes.resize(bytes, Byte::default());
        self.generation += 1;
        self.readers.clear();
        self.known.clear();
        self.known.resize(warps, [0; 32]);
        self.fenced = [0; 32];
        self.time.clear();
        self.time.resize(warps, 1);
        self.all.clear();
        self.all.resize(warps, 0);
        self.pairs.resize_with(warps, || Box::new([[0; 32]; 32]));
        for pairs in &mut self.pairs {
            **pairs = [[0; 32]; 32];
        }
    }

    /// Notes an access and finds an earlier one that races with it.
    pub(crate) fn access(&mut self, offset: usize, bytes: usize, by: By) -> Option<Conflict> {
        if !self.on {
            return None;
        }
        let now = Access {
            thread: (by.warp * 32 + by.lane + 1) as u16,
            strong: by.strong,
            time: self.time[by.warp],
            line: by.line,
            instance: by.instance,
        };
        for index in offset..offset + bytes {
            let Some(mut byte) = self.bytes.get(index).copied() else {
                continue;
            };
            if byte.generation != self.generation {
                byte = Byte {
                    generation: self.generation,
                    ..Byte::default()
                };
                self.bytes[index] = byte;
            }
            if self.conflicts(byte.write, by) {
                return Some(conflict(byte.write, true));
            }
            if by.writes {
                if self.conflicts(byte.read, by) {
                    return Some(conflict(byte.read, false));
                }
                let more = self
                    .readers
                    .get((byte.more as usize).wrapping_sub(1))
                    .into_iter()
                    .flatten();
                if let Some(read) = more.copied().find(|read| self.conflicts(*read, by)) {
                    return Some(conflict(read, false));
                }
                self.bytes[index] = Byte {
                    write: now,
                    generation: self.generation,
                    ..Byte::default()
                };
            } else {
                self.note_read(index, byte, now, by);
            }
        }
        None
    }

    fn note_read(&mut self, index: usize, byte: Byte, now: Access, by: By) {
        let follows =
            byte.read.thread == 0 || byte.read.thread == now.thread || self.ordered(byte.read, by);
        if follows && byte.more == 0 {
            self.bytes[index].read = now;
            return;
        }
        if byte.more == 0 {
            self.readers.push(vec![byte.read]);
            self.bytes[index].more = self.readers.len() as u32;
        }
        let list = self.bytes[index].more as usize - 1;
        if let Some(readers) = self.readers.get_mut(list) {
            match readers.iter_mut().find(|read| read.thread == now.thread) {
                Some(read) => *read = now,
                None => readers.push(now),
            }
        }
    }

    fn conflicts(&self, earlier: Access, by: By) -> bool {
        let together = earlier.instance == by.instance && by.same;
        let both_strong = earlier.strong && by.strong;
        let harmless = earlier.thread == 0 || together || both_strong;
        !harmless && !self.ordered(earlier, by)
    }

    fn ordered(&self, earlier: Access, by: By) -> bool {
        let thread = usize::from(earlier.thread) - 1;
        let (warp, lane) = (thread / 32, thread % 32);
        if warp != by.warp {
            return self.known[by.warp][warp] >= earlier.time;
        }
        lane == by.lane || self.all[warp].max(self.pairs[warp][lane][by.lane]) >= earlier.time
    }

    /// All lanes of `mask` are ordered with each other.
    pub(crate) fn warp_barrier(&mut self, warp: usize, mask: u32, alive: u32) {
        if !self.on {
            return;
        }
        let time = self.time[warp];
        if mask & alive == alive {
            self.all[warp] = time;
        } else {
            for lane in lanes(mask) {
                for other in lanes(mask) {
                    self.pairs[warp][lane][other] = time;
                }
            }
        }
        self.time[warp] += 1;
    }

    /// The warp arrives at a barrier without waiting: what it did is known to whoever completes it.
    pub(crate) fn publish(&mut self, warp: usize, to: &mut [u32; 32]) {
        if !self.on {
            return;
        }
        self.known[warp][warp] = self.time[warp];
        self.time[warp] += 1;
        for (all, mine) in to.iter_mut().zip(self.known[warp]) {
            *all = (*all).max(mine);
        }
    }

    /// The warps of `mask` have all waited at a barrier, where others had published `joined`.
    pub(crate) fn barrier(&mut self, mask: u32, mut joined: [u32; 32]) {
        if !self.on {
            return;
        }
        for warp in lanes(mask) {
            self.known[warp][warp] = self.time[warp];
            for (all, mine) in joined.iter_mut().zip(self.known[warp]) {
                *all = (*all).max(mine);
            }
        }
        for warp in lanes(mask) {
            self.known[warp] = joined;
            self.all[warp] = self.time[warp];
            self.time[warp] += 1;
        }
    }

    /// A fence: orders what came before fences of others with what comes behind this one. More than the memory model
    /// says, where values must tell that the one fence came first: a race may be missed, none is made up.
    pub(crate) fn fence(&mut self, warp: usize) {
        if !self.on {
            return;
        }
        self.known[warp][warp] = self.time[warp];
        for (all, mine) in self.fenced.iter_mut().zip(&mut self.known[warp]) {
            *all = (*all).max(*mine);
            *mine = *all;
        }
        self.all[warp] = self.time[warp];
        self.time[warp] += 1;
    }
}

fn conflict(access: Access, writes: bool) -> Conflict {
    Conflict {
        thread: u32::from(access.thread) - 1,
        line: access.line,
        writes,
    }
}
