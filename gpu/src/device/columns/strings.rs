//! Strings whose offsets came from elsewhere, and are looked at before a kernel follows them. Part of `columns`.

use std::sync::Arc;

use super::{Region, Strings, column};
use crate::device::compute::{Kernels, Learn};
use crate::device::error::DeviceError;
use crate::kernels::{Address, CheckOffsets, OffsetWidth, OffsetsOf};

/// Strings or binaries of a column whose offsets may be anything.
#[derive(Debug, Clone)]
pub struct UncheckedStrings {
    strings: Strings,
    rows: u64,
}

impl UncheckedStrings {
    /// Of so many rows.
    ///
    /// # Errors
    /// [`DeviceError::Column`] where these are not as many offsets as they need, or more bytes than offsets of that width reach.
    pub fn new(
        rows: u32,
        width: OffsetWidth,
        offsets: Region,
        bytes: Region,
    ) -> Result<Self, DeviceError> {
        let rows = u64::from(rows);
        if offsets.bytes != (rows + 1) * width.bytes() {
            return Err(column(format!(
                "{} B of offsets are not those of {rows} rows",
                offsets.bytes
            )));
        }
        if width == OffsetWidth::Bits32 && bytes.bytes > i32::MAX as u64 {
            return Err(column(format!(
                "{} B of strings are more than offsets of 32 bits reach",
                bytes.bytes
            )));
        }
        let strings = Strings {
            width,
            offsets,
            bytes,
        };
        Ok(Self { strings, rows })
    }

    fn offsets(&self) -> OffsetsOf {
        OffsetsOf {
            width: self.strings.width,
            offsets: self.strings.offsets.address(),
            rows: self.rows,
            bytes: self.strings.bytes.bytes,
        }
    }
}

impl Kernels {
    /// The same columns, in their order, after a kernel has looked at all offsets: they begin with 0, rise, and end with the length of the
    /// bytes.
    ///
    /// # Errors
    /// [`DeviceError::Column`] where those of one of them do not; any other where they could not be looked at.
    pub async fn checked(
        &self,
        unchecked: Vec<UncheckedStrings>,
    ) -> Result<Vec<Strings>, DeviceError> {
        if unchecked.is_empty() {
            return Ok(Vec::new());
        }
        for it in &unchecked {
            for region in [&it.strings.offsets, &it.strings.bytes] {
                let device = self.memory().device();
                device.check_same(region.buffer.device())?;
            }
        }
        let wrong = Arc::new(self.memory().try_allocate(4)?);
        let check = CheckOffsets {
            columns: unchecked.iter().map(UncheckedStrings::offsets).collect(),
            wrong: Address(wrong.address()),
        };
        let learn = Learn {
            from: check.wrong,
            bytes: 4,
        };
        // SAFETY: the offsets, as many as there are rows and one more, and new memory for the answer, are kept.
        let checked = unsafe { self.run((unchecked, wrong), vec![Box::new(check)], Some(learn)) };
        let ((unchecked, _), learnt) = checked.await?;
        if learnt.iter().any(|byte| *byte != 0) {
            return Err(column(
                "offsets of strings do not rise from 0 to the length of their bytes".to_owned(),
            ));
        }
        Ok(unchecked.into_iter().map(|it| it.strings).collect())
    }
}
