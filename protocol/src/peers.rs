//! How to reach workers, packed: the scheduler tells a thousand workers of each other, and writes each one's addresses down once.

use serde::{Deserialize, Serialize};

use crate::{Address, Blob, WorkerId};

/// Workers and their addresses. Packed, and cheap to clone, so that the same table can go to a thousand workers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PeerTable(Blob);

impl PeerTable {
    /// One worker.
    pub fn of(worker: WorkerId, addresses: &[Address]) -> Self {
        let mut bytes = Vec::new();
        push_number(&mut bytes, worker.0);
        push_number(
            &mut bytes,
            u32::try_from(addresses.len()).unwrap_or(u32::MAX),
        );
        for address in addresses {
            push_text(&mut bytes, &address.scheme);
            push_text(&mut bytes, &address.endpoint);
        }
        Self(bytes.into())
    }

    /// The workers and their addresses. What a peer may have sent beyond the last whole entry does not count.
    pub fn iter(&self) -> impl Iterator<Item = (WorkerId, Vec<Address>)> {
        let mut rest: &[u8] = &self.0.0;
        std::iter::from_fn(move || take_entry(&mut rest))
    }
}

impl<'a> FromIterator<&'a PeerTable> for PeerTable {
    fn from_iter<I: IntoIterator<Item = &'a Self>>(tables: I) -> Self {
        let mut tables = tables.into_iter().peekable();
        let Some(first) = tables.next() else {
            return Self::default();
        };
        if tables.peek().is_none() {
            return first.clone();
        }
        let mut bytes = first.0.0.to_vec();
        tables.for_each(|table| bytes.extend_from_slice(&table.0.0));
        Self(bytes.into())
    }
}

fn push_number(bytes: &mut Vec<u8>, number: u32) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    push_number(bytes, u32::try_from(text.len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(text.as_bytes());
}

fn take_entry(rest: &mut &[u8]) -> Option<(WorkerId, Vec<Address>)> {
    let worker = WorkerId(take_number(rest)?);
    let count = take_number(rest)?;
    let addresses: Option<Vec<Address>> = (0..count)
        .map(|_| Some(Address::new(take_text(rest)?, take_text(rest)?)))
        .collect();
    Some((worker, addresses?))
}

fn take_number(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_le_bytes(*number))
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = take_number(rest)? as usize;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(std::str::from_utf8(text).ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_table_gives_back_what_was_put_in() {
        let ucx = Address::new("ucx", "");
        let tcp = Address::new("tcp", "10.0.0.3:40123");
        let entries = [
            (WorkerId(7), vec![ucx, tcp]),
            (WorkerId(u32::MAX), Vec::new()),
        ];
        let single = entries.each_ref().map(|(id, all)| PeerTable::of(*id, all));
        let table: PeerTable = single.iter().collect();
        assert_eq!(table.iter().collect::<Vec<_>>(), entries);
        assert_eq!(single[..1].iter().collect::<PeerTable>(), single[0]);
        assert_eq!(PeerTable::default().iter().count(), 0);
    }

    proptest! {
        #[test]
        fn whatever_a_peer_sends_is_read_without_panic(bytes in proptest::collection::vec(0_u8..4, 0..100)) {
            let length = bytes.len();
            let table = PeerTable(bytes.into());
            prop_assert!(table.iter().count() <= length / 8);
        }
    }
}
