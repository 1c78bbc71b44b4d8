//! What a run needs of global memory. Implemented by the emulator and by tests.

use crate::fault::FaultKind;

/// Global memory, as kernels see it. All calls come with addresses that are aligned to their length, up to 16 bytes.
pub trait Memory: Sync {
    /// Fills `to` with what lies at `address`.
    fn read(&self, address: u64, to: &mut [u8]) -> Result<(), AccessError>;

    /// Writes `from` to `address`.
    fn write(&self, address: u64, from: &[u8]) -> Result<(), AccessError>;

    /// Replaces the 2, 4 or 8 `bytes` at `address` by what `change` makes of them, which may be called several times, and
    /// returns what was there. Nobody comes in between.
    fn update(
        &self,
        address: u64,
        bytes: u32,
        change: &mut dyn FnMut(u64) -> u64,
    ) -> Result<u64, AccessError>;
}

/// Why an access is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessError {
    /// What the fault will be; mostly [`FaultKind::IllegalAddress`].
    pub kind: FaultKind,
    /// What is known of the address, as "4 bytes past the end of an allocation of 1000 bytes".
    pub detail: String,
}
