//! What a running member of a gang knows of the others.
//!
//! Made by the worker process when the member starts, read by operators through [`TaskContext::gang`]. Opens no connection itself.

use std::sync::Arc;

use transload_protocol::{Attempt, GangMember};

use crate::TaskContext;

/// The gang of a task: all of its members run at the same time, or will in a moment.
#[derive(Debug, Clone)]
pub struct Gang {
    rank: u32,
    incarnation: Attempt,
    members: Arc<[GangMember]>,
}

impl Gang {
    pub(crate) fn new(rank: u32, incarnation: Attempt, members: Arc<[GangMember]>) -> Self {
        Self {
            rank,
            incarnation,
            members,
        }
    }

    /// This task's place among the members, from 0: its position in its layer.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// How many members there are.
    pub fn size(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// Which start of the gang this is: the same number for all members, and higher each time that the gang has to run again. A part
    /// of every name that members agree on, so that those of an earlier start are not taken for them.
    pub fn incarnation(&self) -> Attempt {
        self.incarnation
    }

    /// Where each member runs, by rank.
    pub fn members(&self) -> &[GangMember] {
        &self.members
    }
}

impl TaskContext {
    /// The others of this task's gang; `None` when its layer is none.
    pub fn gang(&self) -> Option<&Gang> {
        self.gang.as_deref()
    }
}
