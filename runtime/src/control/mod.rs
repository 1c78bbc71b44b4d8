//! Framed control connections between client, scheduler and worker: one TCP connection each, length-prefixed frames of
//! [`transload_protocol::codec`], a version handshake first.
//!
//! Called by the scheduler server, the worker process and the client. Knows messages only as something that can be encoded,
//! and never what they mean.

mod connect;
mod error;
mod frames;
mod sender;

pub(crate) use connect::answer;
pub use connect::{
    Connected, Dialed, HANDSHAKE_FRAME_BYTES, connect, dial, greet, scheduler_address,
};
pub use error::ControlError;
pub use frames::{FrameReader, FrameWriter};
pub use sender::SendLimits;
