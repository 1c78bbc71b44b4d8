//! Where bytes are and when things happen: memory tiers, addresses, opaque bytes, and time as a number.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since an origin that the driver chose (its start, or zero in simulation).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Time {
    /// Microseconds since the origin.
    pub micros: u64,
}

impl Time {
    /// The time `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self { micros }
    }

    /// The time `millis` milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self {
            micros: millis * 1_000,
        }
    }

    /// This time plus `micros` microseconds.
    #[must_use]
    pub const fn after_micros(self, micros: u64) -> Self {
        Self {
            micros: self.micros.saturating_add(micros),
        }
    }

    /// Microseconds from `earlier` to this time, 0 when `earlier` is later.
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.micros.saturating_sub(earlier.micros)
    }
}

/// A kind of memory, fastest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// Memory of a GPU.
    Device,
    /// Page-locked host memory that a GPU copies from and to directly.
    PinnedHost,
    /// Pageable host memory.
    Host,
    /// Files in the worker's spill directory.
    Disk,
}

/// Memory that tasks read and make partitions in. What leaves it for want of room is brought back before it is read.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Memory {
    /// Ordinary memory of the host.
    #[default]
    Host,
    /// Memory of the worker's GPU.
    Device,
}

impl Memory {
    /// The tier that it is.
    pub const fn tier(self) -> Tier {
        match self {
            Self::Host => Tier::Host,
            Self::Device => Tier::Device,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::PinnedHost => "pinned host",
            Self::Host => "host",
            Self::Disk => "disk",
        })
    }
}

/// Where a transport listens: `scheme://endpoint`, as in `tcp://10.0.0.3:40123`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The transport's name: `tcp`, `ucx`, `memory`.
    pub scheme: String,
    /// What that transport needs to connect; opaque to everyone else.
    pub endpoint: String,
}

impl Address {
    /// An address from its two parts.
    pub fn new(scheme: impl Into<String>, endpoint: impl Into<String>) -> Self {
        Self {
            scheme: scheme.into(),
            endpoint: endpoint.into(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.endpoint)
    }
}

/// A text that is not `scheme://endpoint`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address; write SCHEME://ENDPOINT, as in tcp://10.0.0.3:40123")]
pub struct AddressError(pub String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once("://") {
            Some((scheme, endpoint)) if !scheme.is_empty() && !endpoint.is_empty() => {
                Ok(Self::new(scheme, endpoint))
            }
            _ => Err(AddressError(text.to_owned())),
        }
    }
}

/// Opaque bytes in a message, cheap to clone.
///
/// Decoding never allocates more than the bytes that are really there, whatever length the frame claims.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Blob(pub Bytes);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} B)", self.0.len())
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Borrowed first, then copied: the decoder has checked that the bytes exist before anything is allocated.
        let bytes: &[u8] = Deserialize::deserialize(deserializer)?;
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_what_it_prints() {
        let address = Address::new("tcp", "[::1]:80");
        assert_eq!(address.to_string().parse(), Ok(address));
        for bad in ["", "tcp", "tcp://", "://x", "localhost:80"] {
            assert_eq!(bad.parse::<Address>(), Err(AddressError(bad.to_owned())));
        }
    }
}
