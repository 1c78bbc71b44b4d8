//! The one codec: messages to bytes and back, with a limit on every frame.
//!
//! bincode 2 (serde) behind two functions, so that another codec can take its place here alone. Whatever bytes arrive, decoding
//! ends with a value or an error: it never panics, and never allocates more than a small multiple of the frame.
//! Frames on a socket are a little-endian `u32` length and that many bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest frame in bytes that is written or accepted: a graph of a million tasks with arguments fits, garbage does not.
pub const MAX_FRAME_BYTES: usize = 256 << 20;

/// Why a message could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The frame is larger than [`MAX_FRAME_BYTES`].
    #[error("a frame of {bytes} B exceeds the limit of {MAX_FRAME_BYTES} B")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The bytes are not a message of this protocol.
    #[error("malformed frame: {0}")]
    Malformed(String),
    /// The value cannot be written.
    #[error("message cannot be encoded: {0}")]
    Unencodable(String),
}

fn config() -> bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<MAX_FRAME_BYTES>,
> {
    bincode::config::standard().with_limit::<MAX_FRAME_BYTES>()
}

/// Bytes of one message, without the length prefix.
///
/// # Errors
/// [`CodecError::TooLarge`] above [`MAX_FRAME_BYTES`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec(message, config())
        .map_err(|error| CodecError::Unencodable(error.to_string()))?;
    if bytes.len() > MAX_FRAME_BYTES {
        Err(CodecError::TooLarge { bytes: bytes.len() })
    } else {
        Ok(bytes)
    }
}

/// Appends one message to `buffer` as a whole frame: length prefix, then bytes. On an error `buffer` is as it was.
///
/// # Errors
/// As [`encode`].
pub fn encode_frame<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = buffer.len();
    let written = write_frame(message, buffer);
    if written.is_err() {
        buffer.truncate(start);
    }
    written
}

/// Straight into the buffer: a buffer of its own for each message would cost more than the encoding.
fn write_frame<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; size_of::<u32>()]);
    bincode::serde::encode_into_std_write(message, buffer, config())
        .map_err(|error| CodecError::Unencodable(error.to_string()))?;
    let bytes = buffer.len() - start - size_of::<u32>();
    let length = u32::try_from(bytes)
        .ok()
        .filter(|_| bytes <= MAX_FRAME_BYTES)
        .ok_or(CodecError::TooLarge { bytes })?;
    if let Some(prefix) = buffer.get_mut(start..start + size_of::<u32>()) {
        prefix.copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}

/// The message in `bytes`, all of them.
///
/// # Errors
/// [`CodecError::Malformed`] when the bytes end early, go on after the message, or make no sense.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(CodecError::TooLarge { bytes: bytes.len() });
    }
    let (message, used) = bincode::serde::decode_from_slice(bytes, config())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if used == bytes.len() {
        Ok(message)
    } else {
        Err(CodecError::Malformed(format!(
            "{} B left over after a message of {used} B",
            bytes.len() - used
        )))
    }
}

/// The value at the start of `bytes`, whatever follows it.
///
/// # Errors
/// [`CodecError::Malformed`] when the bytes end early or make no sense.
pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    bincode::serde::decode_from_slice(bytes, config())
        .map(|(value, _)| value)
        .map_err(|error| CodecError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        Address, Arguments, Blob, ClientHello, ClientId, ClientMessage, Edges, ExplicitEdges,
        Fused, GraphId, Hello, Layer, PROTOCOL_VERSION, Resources, Role, SchedulerToClient,
        SchedulerToWorker, Share, Step, StepInput, TaskGraph, Welcome, WorkerHello, WorkerMessage,
    };
    use proptest::prelude::*;

    fn submit() -> ClientMessage {
        let mut tasks = TaskGraph::new("g");
        let source = tasks.push(
            Layer::new("a", "op", 2)
                .with_outputs(3)
                .with_common(vec![1, 2, 3])
                .with_resources(Resources::slots(1).with("gpu", 1).with_memory(1 << 20))
                .on_host("a")
                .on_worker("b")
                .with_label("c"),
        );
        let lists: [&[(u32, u32)]; 1] = [&[(1, 2), (0, 0)]];
        let mut last = Layer::new("b", "op", 1)
            .reading(source, Edges::Explicit(ExplicitEdges::from_lists(lists)));
        last.fused = Some(Box::new(Fused {
            steps: vec![Step {
                layer: "c".to_owned(),
                operator: "op".to_owned(),
                arguments: Arguments::default(),
                tasks: 1,
                outputs: 1,
                times: 1,
                reads: vec![StepInput::Layer {
                    input: 0,
                    share: Share::All,
                }],
            }],
            reads: vec![StepInput::Step { step: 0, each: 1 }],
        }));
        tasks.push(last);
        ClientMessage::Submit {
            graph: GraphId {
                client: ClientId(7),
                sequence: 9,
            },
            tasks,
        }
    }

    #[test]
    fn a_message_reads_back_as_it_was_written() {
        let bytes = encode(&submit()).expect("encodes");
        assert_eq!(decode::<ClientMessage>(&bytes).expect("decodes"), submit());
    }

    #[test]
    fn a_frame_that_ends_early_or_goes_on_is_an_error() {
        let bytes = encode(&submit()).expect("encodes");
        for end in 0..bytes.len() {
            assert!(
                decode::<ClientMessage>(&bytes[..end]).is_err(),
                "cut at {end}"
            );
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(
            decode::<ClientMessage>(&longer)
                .expect_err("one byte more")
                .to_string()
                .contains("left over")
        );
    }

    #[test]
    fn a_claimed_length_is_no_reason_to_allocate() {
        // A blob that claims 200 MB in a frame of ten bytes: refused before anything of that size is allocated.
        let mut bytes = vec![252];
        bytes.extend_from_slice(&200_000_000_u32.to_le_bytes());
        bytes.extend_from_slice(&[0; 5]);
        assert!(decode::<Blob>(&bytes).is_err());
        assert!(decode::<Vec<Address>>(&bytes).is_err());
        assert!(decode::<String>(&bytes).is_err());
    }

    #[test]
    fn the_version_is_the_first_thing_in_a_hello() {
        let client = Hello {
            version: PROTOCOL_VERSION,
            role: Role::Client(ClientHello {
                name: "c".to_owned(),
            }),
        };
        assert_eq!(
            encode(&client).expect("encodes").first(),
            Some(&u8::try_from(PROTOCOL_VERSION).expect("small"))
        );
    }

    fn any_worker_hello() -> impl Strategy<Value = WorkerHello> {
        (
            ".*",
            ".*",
            any::<u32>(),
            any::<u64>(),
            proptest::collection::vec((".+", ".+"), 0..3),
        )
            .prop_map(
                |(name, host, process, memory_bytes, addresses)| WorkerHello {
                    name,
                    host,
                    process,
                    resources: Resources::slots(process),
                    memory_bytes,
                    addresses: addresses
                        .into_iter()
                        .map(|(scheme, endpoint)| Address::new(scheme, endpoint))
                        .collect(),
                    labels: [memory_bytes.to_string()].into(),
                    shared: BTreeSet::new(),
                    gpu: None,
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<Hello>(&bytes);
            let _ = decode::<Welcome>(&bytes);
            let _ = decode::<ClientMessage>(&bytes).map(|message| {
                if let ClientMessage::Submit { tasks, .. } = message {
                    let _ = tasks.compile();
                }
            });
            let _ = decode::<WorkerMessage>(&bytes);
            let _ = decode::<SchedulerToClient>(&bytes);
            let _ = decode::<SchedulerToWorker>(&bytes);
        }

        #[test]
        fn one_flipped_byte_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>()) {
            let mut bytes = encode(&submit()).expect("encodes");
            let at = at.index(bytes.len());
            bytes[at] = value;
            if let Ok(ClientMessage::Submit { tasks, .. }) = decode::<ClientMessage>(&bytes) {
                let _ = tasks.compile();
            }
        }

        #[test]
        fn every_hello_reads_back(hello in any_worker_hello()) {
            let hello = Hello { version: 3, role: Role::Worker(hello) };
            prop_assert_eq!(decode::<Hello>(&encode(&hello).expect("encodes")).expect("decodes"), hello);
        }
    }
}
