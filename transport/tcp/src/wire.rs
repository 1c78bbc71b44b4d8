//! The bytes on the wire: greetings, requests and heads of answers. Pure; knows no sockets. All numbers are little-endian.
//!
//! Each side greets first: magic, then the protocol version, whose places never change. Then the client sends requests of a
//! fixed size, and the server sends answers: a head, and as many bytes as it says. Every request gets answers until one that
//! is marked as its last.

use transload_protocol::{
    ClientId, GraphId, PROTOCOL_VERSION, PartitionId, TaskId, VersionMismatch, check_version,
};
use transload_transport::backend::{MAX_HEADER_BYTES, MAX_REASON_BYTES};

pub(crate) const GREETING_BYTES: usize = 20;
pub(crate) const REQUEST_BYTES: usize = 24;
pub(crate) const HEAD_BYTES: usize = 12;
pub(crate) const MIN_CHUNK_BYTES: u32 = 4 << 10;
pub(crate) const MAX_CHUNK_BYTES: u32 = 16 << 20;

const MAGIC: [u8; 8] = *b"TRANSLOD";

/// The first bytes from each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// The server has no place for this connection.
    pub(crate) full: bool,
    /// Requests that the client may have in flight; 0 from a client.
    pub(crate) max_requests: u32,
}

/// Why a greeting is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GreetingError {
    #[error("it does not greet as a transload data port does")]
    NotTransload,
    #[error(transparent)]
    Version(#[from] VersionMismatch),
}

impl Greeting {
    pub(crate) fn encode(self) -> [u8; GREETING_BYTES] {
        let mut bytes = [0; GREETING_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(self.full).to_le_bytes());
        bytes[16..].copy_from_slice(&self.max_requests.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; GREETING_BYTES]) -> Result<Self, GreetingError> {
        if bytes[..8] != MAGIC {
            return Err(GreetingError::NotTransload);
        }
        check_version(number(bytes, 8))?;
        Ok(Self {
            full: number(bytes, 12) != 0,
            max_requests: number(bytes, 16),
        })
    }
}

/// From client to server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Send this partition.
    Fetch {
        request: u32,
        partition: PartitionId,
    },
    /// Send no more of it. Answered by `Ended`, unless the last answer is on its way already.
    Cancel { request: u32 },
}

/// The peer sent what makes no sense; the text says what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Nonsense(pub(crate) String);

impl Request {
    pub(crate) fn encode(self) -> [u8; REQUEST_BYTES] {
        let words = match self {
            Self::Fetch { request, partition } => [
                1,
                request,
                partition.task.graph.client.0,
                partition.task.graph.sequence,
                partition.task.index,
                partition.output,
            ],
            Self::Cancel { request } => [2, request, 0, 0, 0, 0],
        };
        let mut bytes = [0; REQUEST_BYTES];
        for (target, word) in bytes.chunks_exact_mut(4).zip(words) {
            target.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; REQUEST_BYTES]) -> Result<Self, Nonsense> {
        let request = number(bytes, 4);
        match number(bytes, 0) {
            1 => Ok(Self::Fetch {
                request,
                partition: PartitionId {
                    task: TaskId {
                        graph: GraphId {
                            client: ClientId(number(bytes, 8)),
                            sequence: number(bytes, 12),
                        },
                        index: number(bytes, 16),
                    },
                    output: number(bytes, 20),
                },
            }),
            2 => Ok(Self::Cancel { request }),
            kind => Err(Nonsense(format!("request of unknown kind {kind}"))),
        }
    }
}

/// What the bytes after a head are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The partition's header. The last answer where there is no payload.
    Header,
    /// The next bytes of the payload.
    Chunk,
    /// Nothing: the partition is not here.
    NotFound,
    /// The reason why the partition cannot be read, in UTF-8.
    Failed,
    /// Nothing: the request was cancelled.
    Ended,
}

/// Precedes every piece of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    /// Nothing more comes for this request.
    pub(crate) last: bool,
    pub(crate) request: u32,
    /// Bytes that follow.
    pub(crate) bytes: u32,
}

impl Head {
    pub(crate) fn encode(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[0] = match self.kind {
            Kind::Header => 1,
            Kind::Chunk => 2,
            Kind::NotFound => 3,
            Kind::Failed => 4,
            Kind::Ended => 5,
        };
        bytes[1] = u8::from(self.last);
        bytes[4..8].copy_from_slice(&self.request.to_le_bytes());
        bytes[8..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    /// A head whose length is within the limit of its kind.
    pub(crate) fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Self, Nonsense> {
        let (kind, most, must_be_last) = match bytes[0] {
            1 => (Kind::Header, MAX_HEADER_BYTES, false),
            2 => (Kind::Chunk, MAX_CHUNK_BYTES, false),
            3 => (Kind::NotFound, 0, true),
            4 => (Kind::Failed, MAX_REASON_BYTES, true),
            5 => (Kind::Ended, 0, true),
            kind => return Err(Nonsense(format!("answer of unknown kind {kind}"))),
        };
        let head = Self {
            kind,
            last: bytes[1] == 1,
            request: number(bytes, 4),
            bytes: number(bytes, 8),
        };
        if head.bytes > most {
            Err(Nonsense(format!(
                "an answer ({kind:?}) of {} B exceeds its limit of {most} B",
                head.bytes
            )))
        } else if bytes[1] > 1 || bytes[2..4] != [0, 0] || (must_be_last && !head.last) {
            Err(Nonsense(format!("malformed head of an answer ({kind:?})")))
        } else {
            Ok(head)
        }
    }
}

/// The `u32` at `at`, which is a constant within `bytes` everywhere above.
fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn another_version_is_named_whatever_follows_it() {
        let mut bytes = Greeting {
            full: false,
            max_requests: 3,
        }
        .encode();
        bytes[8..12].copy_from_slice(&77_u32.to_le_bytes());
        bytes[12..].fill(0xff);
        let text = Greeting::decode(&bytes)
            .expect_err("another version")
            .to_string();
        assert!(
            text.contains("version 77")
                && text.contains(&format!("speaks version {PROTOCOL_VERSION}")),
            "{text}"
        );
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Header),
            Just(Kind::Chunk),
            Just(Kind::NotFound),
            Just(Kind::Failed),
            Just(Kind::Ended)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<[u8; 24]>()) {
            let head: [u8; HEAD_BYTES] = std::array::from_fn(|index| bytes[index]);
            if let Ok(head) = Head::decode(&head) {
                prop_assert!(head.bytes <= MAX_HEADER_BYTES);
            }
            let _ = Request::decode(&bytes);
            let greeting: [u8; GREETING_BYTES] = std::array::from_fn(|index| bytes[index]);
            prop_assert_eq!(Greeting::decode(&greeting), Err(GreetingError::NotTransload));
        }

        #[test]
        fn a_greeting_with_our_magic_never_panics(rest in any::<[u8; 12]>()) {
            let mut bytes = [0; GREETING_BYTES];
            bytes[..8].copy_from_slice(&MAGIC);
            bytes[8..].copy_from_slice(&rest);
            let _ = Greeting::decode(&bytes);
        }

        #[test]
        fn requests_read_back(kind in any::<bool>(), words in any::<[u32; 5]>()) {
            let request = if kind {
                let partition = PartitionId {
                    task: TaskId {
                        graph: GraphId { client: ClientId(words[1]), sequence: words[2] },
                        index: words[3],
                    },
                    output: words[4],
                };
                Request::Fetch { request: words[0], partition }
            } else {
                Request::Cancel { request: words[0] }
            };
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }

        #[test]
        fn heads_within_their_limits_read_back(kind in any_kind(), last in any::<bool>(), request in any::<u32>(), bytes in any::<u32>()) {
            let head = Head { kind, last, request, bytes };
            if let Ok(decoded) = Head::decode(&head.encode()) {
                prop_assert_eq!(decoded, head);
            }
        }
    }
}
