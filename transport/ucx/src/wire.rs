//! The headers of messages over UCX. Pure; knows no sockets and no UCX. All numbers are little-endian.
//!
//! Every header is as long: who it is for, which request, what it is, and two numbers of that kind. What follows is the message's body.

use transload_protocol::{ClientId, GraphId, PartitionId, TaskId};

pub(crate) const HEADER_BYTES: usize = 48;

/// What a message is. Those with a body say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From client to server: are you there? Answered by a probe whose body has a known content.
    Probe,
    /// From client to server: send this partition.
    Fetch {
        /// Which.
        partition: PartitionId,
        /// From a device's memory, if it is there.
        in_place: bool,
    },
    /// From client to server: send no more of it.
    Cancel,
    /// The partition's header is the first so many bytes of the body; the rest is the payload, where it is not empty.
    Header {
        /// Bytes of the header.
        bytes: u64,
        /// The payload is sent from a device's memory, as bodies that wait until the receiver has said where they go.
        from_device: bool,
    },
    /// The body is the payload's bytes from this offset on.
    Chunk {
        /// Where they begin.
        offset: u64,
    },
    /// The partition is not here.
    NotFound,
    /// The body says in UTF-8 why the partition cannot be read.
    Failed,
    /// The request was cancelled, and nothing more comes of it.
    Ended,
}

/// The header of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The receiver's number of the connection.
    pub(crate) to: u64,
    /// The client's number of the request.
    pub(crate) request: u64,
    pub(crate) kind: Kind,
}

/// The peer sent what makes no sense; the text says what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Nonsense(pub(crate) String);

impl Header {
    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let (kind, on_device, number) = match self.kind {
            Kind::Probe => (1, false, 0),
            Kind::Fetch { in_place, .. } => (2, in_place, 0),
            Kind::Cancel => (3, false, 0),
            Kind::Header { bytes, from_device } => (4, from_device, bytes),
            Kind::Chunk { offset } => (5, false, offset),
            Kind::NotFound => (6, false, 0),
            Kind::Failed => (7, false, 0),
            Kind::Ended => (8, false, 0),
        };
        bytes[0] = kind;
        bytes[1] = on_device.into();
        bytes[8..16].copy_from_slice(&self.to.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.request.to_le_bytes());
        if let Kind::Fetch { partition, .. } = self.kind {
            let words = [
                partition.task.graph.client.0,
                partition.task.graph.sequence,
                partition.task.index,
                partition.output,
            ];
            for (target, word) in bytes[24..].chunks_exact_mut(4).zip(words) {
                target.copy_from_slice(&word.to_le_bytes());
            }
        } else {
            bytes[24..32].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Nonsense> {
        let Ok(bytes) = <&[u8; HEADER_BYTES]>::try_from(bytes) else {
            return Err(Nonsense(format!(
                "a message with a header of {} B",
                bytes.len()
            )));
        };
        let (number, on_device) = (long(bytes, 24), bytes[1] == 1);
        let kind = match bytes[0] {
            1 => Kind::Probe,
            2 => Kind::Fetch {
                partition: PartitionId {
                    task: TaskId {
                        graph: GraphId {
                            client: ClientId(short(bytes, 24)),
                            sequence: short(bytes, 28),
                        },
                        index: short(bytes, 32),
                    },
                    output: short(bytes, 36),
                },
                in_place: on_device,
            },
            3 => Kind::Cancel,
            4 => Kind::Header {
                bytes: number,
                from_device: on_device,
            },
            5 => Kind::Chunk { offset: number },
            6 => Kind::NotFound,
            7 => Kind::Failed,
            8 => Kind::Ended,
            kind => return Err(Nonsense(format!("a message of unknown kind {kind}"))),
        };
        let may_be_on_device = matches!(kind, Kind::Fetch { .. } | Kind::Header { .. });
        if bytes[1] > u8::from(may_be_on_device) || bytes[2..8] != [0; 6] {
            return Err(Nonsense(format!("a malformed header ({kind:?})")));
        }
        Ok(Self {
            to: long(bytes, 8),
            request: long(bytes, 16),
            kind,
        })
    }
}

/// The `u64` at `at`, which is a constant within a header everywhere above.
fn long(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}

/// The `u32` at `at`, likewise.
fn short(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Probe),
            any::<([u32; 4], bool)>().prop_map(|(words, in_place)| Kind::Fetch {
                partition: PartitionId {
                    task: TaskId {
                        graph: GraphId {
                            client: ClientId(words[0]),
                            sequence: words[1]
                        },
                        index: words[2]
                    },
                    output: words[3],
                },
                in_place,
            }),
            Just(Kind::Cancel),
            any::<(u64, bool)>()
                .prop_map(|(bytes, from_device)| Kind::Header { bytes, from_device }),
            any::<u64>().prop_map(|offset| Kind::Chunk { offset }),
            Just(Kind::NotFound),
            Just(Kind::Failed),
            Just(Kind::Ended),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn headers_read_back(to in any::<u64>(), request in any::<u64>(), kind in any_kind()) {
            let header = Header { to, request, kind };
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Header::decode(&bytes);
        }

        #[test]
        fn arbitrary_headers_never_panic(bytes in any::<[u8; 32]>(), kind in 0..10_u8) {
            let mut header = [0; HEADER_BYTES];
            header[..32].copy_from_slice(&bytes);
            header[0] = kind;
            let _ = Header::decode(&header);
        }
    }
}
