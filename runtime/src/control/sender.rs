//! Sends messages from a queue: encodes eagerly, writes everything that waits in one go, and gives up on a peer that does not
//! read.

use std::time::Duration;

use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use transload_protocol::codec;

use super::{ControlError, FrameWriter};

const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// When a peer counts as one that does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendLimits {
    /// Most encoded bytes that wait for one peer.
    pub backlog_bytes: usize,
    /// Longest time in which a peer with bytes waiting reads nothing.
    pub stall: Duration,
}

impl FrameWriter {
    /// Sends batches of messages from `queue`, in order, until every sender of it is gone and everything is sent; then tells the
    /// peer that nothing more follows. Whoever fills the queue never waits for the peer.
    ///
    /// # Errors
    /// [`ControlError::Backlog`] and [`ControlError::Stalled`] for a peer that does not read; [`ControlError::Frame`] for a message that is
    /// too large; [`ControlError::Io`].
    pub async fn send_all<T: Serialize>(
        mut self,
        mut queue: mpsc::UnboundedReceiver<Vec<T>>,
        limits: SendLimits,
    ) -> Result<(), ControlError> {
        let mut waiting = self.take_buffer();
        let mut writing: Vec<u8> = Vec::new();
        let mut written = 0;
        let mut open = true;
        let mut progress = Instant::now();
        loop {
            if written == writing.len() {
                writing.clear();
                writing.shrink_to(KEPT_BUFFER_BYTES);
                written = 0;
                std::mem::swap(&mut writing, &mut waiting);
                progress = Instant::now();
            }
            let idle = writing.is_empty();
            if idle && !open {
                let _ = self.half.shutdown().await;
                return Ok(());
            }
            let rest = writing.get(written..).unwrap_or_default();
            tokio::select! {
                biased;
                batch = queue.recv(), if open => match batch {
                    None => open = false,
                    Some(batch) => {
                        self.encode(&batch, &mut waiting)?;
                        while let Ok(batch) = queue.try_recv() {
                            self.encode(&batch, &mut waiting)?;
                        }
                        let bytes = waiting.len() + writing.len() - written;
                        if bytes > limits.backlog_bytes {
                            return Err(ControlError::Backlog {
                                peer: self.peer.to_string(),
                                bytes,
                                limit: limits.backlog_bytes,
                            });
                        }
                    }
                },
                sent = self.half.write(rest), if !idle => {
                    match sent {
                        Ok(0) => return Err(ControlError::Closed { peer: self.peer.to_string() }),
                        Ok(count) => written += count,
                        Err(source) => {
                            return Err(ControlError::Io { peer: self.peer.to_string(), source });
                        }
                    }
                    progress = Instant::now();
                },
                () = tokio::time::sleep_until(progress + limits.stall), if !idle => {
                    return Err(ControlError::Stalled { peer: self.peer.to_string(), waited: limits.stall });
                }
            }
        }
    }

    fn encode<T: Serialize>(&self, batch: &[T], buffer: &mut Vec<u8>) -> Result<(), ControlError> {
        batch.iter().try_for_each(|message| {
            codec::encode_frame(message, buffer).map_err(|source| ControlError::Frame {
                peer: self.peer.to_string(),
                source,
            })
        })
    }
}
