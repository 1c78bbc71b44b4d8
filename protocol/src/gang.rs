//! Who is in a gang: the tasks of one layer that run at the same time and know each other.
//!
//! Made by the scheduler when it starts a gang, read by the operators that are its members. Knows nothing of how they talk.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::{Address, Blob, WorkerId};

/// Where one task of a gang runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GangMember {
    /// The worker that runs it.
    pub worker: WorkerId,
    /// Name of that worker's machine.
    pub host: String,
    /// Its process id there.
    pub process: u32,
    /// Where its partitions are fetched, one address per transport, best first.
    pub addresses: Vec<Address>,
}

/// All members of a gang by rank, packed once so that the same table can go to a thousand workers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GangTable(Blob);

impl GangTable {
    /// A table of these members.
    ///
    /// # Errors
    /// [`CodecError`] when they are too many for one message.
    pub fn new(members: &[GangMember]) -> Result<Self, CodecError> {
        Ok(Self(codec::encode(&members)?.into()))
    }

    /// The members, by rank.
    ///
    /// # Errors
    /// [`CodecError`] when a peer sent something else.
    pub fn members(&self) -> Result<Vec<GangMember>, CodecError> {
        codec::decode(&self.0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gives_back_its_members_and_refuses_what_is_none() {
        let member = |worker| GangMember {
            worker: WorkerId(worker),
            host: "here".to_owned(),
            process: 7,
            addresses: vec![Address::new("tcp", "127.0.0.1:1")],
        };
        let members = [member(3), member(3), member(0)];
        let table = GangTable::new(&members).expect("small");
        assert_eq!(table.members().expect("just packed"), members);
        assert!(GangTable(vec![9; 3].into()).members().is_err());
    }
}
