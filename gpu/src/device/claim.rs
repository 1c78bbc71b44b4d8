//! Which GPU of a machine is some worker's own, so that workers that start together choose different ones. Called before a device is opened.
//!
//! A claim is a socket with a name that the kernel gives to one process only, and frees when that ends, however it ends. It leaves no file, and
//! belongs to a network namespace: containers with networks of their own do not see each other's claims.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::context::DeviceInfo;

/// A GPU is this worker's as long as this lives.
#[derive(Debug)]
pub struct Claim {
    _socket: UnixDatagram,
}

impl DeviceInfo {
    /// Claims it; `None` where another worker of this machine has.
    ///
    /// # Errors
    /// The system's, where it has no socket to give.
    pub fn claim(&self) -> io::Result<Option<Claim>> {
        let uuid: String = self.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = SocketAddr::from_abstract_name(format!("transload-gpu-{uuid}"))?;
        match UnixDatagram::bind_addr(&name) {
            Ok(socket) => Ok(Some(Claim { _socket: socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_claimed_once_and_again_when_the_claim_is_gone() {
        let mut uuid = [7; 16];
        uuid[..4].copy_from_slice(&std::process::id().to_le_bytes());
        let info = DeviceInfo {
            ordinal: 0,
            name: "one".to_owned(),
            uuid,
            total_bytes: 0,
        };
        let claim = info.claim().expect("a socket").expect("free");
        assert!(info.claim().expect("a socket").is_none());
        drop(claim);
        assert!(info.claim().expect("a socket").is_some());
    }
}
