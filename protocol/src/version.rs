//! The version handshake: the first frame of every connection names the protocol version of its sender.

use crate::Hello;
use crate::codec::{self, CodecError};

/// Version of everything in this crate that crosses a socket. Raised by every change of a message's shape.
pub const PROTOCOL_VERSION: u32 = 11;

/// Two peers speak different versions of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "protocol version mismatch: this process speaks version {ours}, its peer speaks version {theirs}; \
     run the same release of transload on every machine"
)]
pub struct VersionMismatch {
    /// The version of the process that reports the error.
    pub ours: u32,
    /// The version its peer named.
    pub theirs: u32,
}

/// Accepts a peer of our own version and refuses every other.
///
/// # Errors
/// [`VersionMismatch`] names both versions.
pub fn check_version(theirs: u32) -> Result<(), VersionMismatch> {
    if theirs == PROTOCOL_VERSION {
        Ok(())
    } else {
        Err(VersionMismatch {
            ours: PROTOCOL_VERSION,
            theirs,
        })
    }
}

/// Why the first frame of a connection was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The peer speaks another version.
    #[error(transparent)]
    Version(#[from] VersionMismatch),
    /// The peer does not speak this protocol at all.
    #[error("the peer does not speak transload's protocol: {0}")]
    Malformed(#[from] CodecError),
}

/// Reads the first frame of a connection. The version is looked at before anything else, so that a peer whose other
/// fields have another shape is still told its version.
///
/// # Errors
/// [`HelloError`].
pub fn read_hello(frame: &[u8]) -> Result<Hello, HelloError> {
    check_version(codec::decode_prefix::<u32>(frame)?)?;
    Ok(codec::decode(frame)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_of_another_shape_still_gets_its_version_named() {
        let frame = codec::encode(&(42_u32, "whatever version 42 has here")).expect("encodes");
        let text = read_hello(&frame).expect_err("another version").to_string();
        assert!(text.contains("version 42"), "{text}");
        assert!(matches!(read_hello(&[]), Err(HelloError::Malformed(_))));
    }

    #[test]
    fn a_peer_of_another_version_is_refused_with_both_versions_named() {
        assert_eq!(check_version(PROTOCOL_VERSION), Ok(()));
        let text = check_version(77).expect_err("another version").to_string();
        assert!(
            text.contains(&format!("version {PROTOCOL_VERSION},")) && text.contains("version 77;"),
            "{text}"
        );
    }
}
