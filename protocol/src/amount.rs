//! How much of a named resource: a decimal number with up to four places, exact when added and taken away.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Parts of one unit that an amount counts.
const PARTS: u64 = 10_000;

/// An amount of a named resource, in ten-thousandths of one unit. Never rounded.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Amount(u64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Whole units.
    pub const fn whole(units: u32) -> Self {
        // Cannot overflow: 32 bits of units and 14 of parts.
        Self(units as u64 * PARTS)
    }

    /// So many ten-thousandths of a unit: 5,000 for a half.
    pub const fn ten_thousandths(parts: u64) -> Self {
        Self(parts)
    }

    /// Whether it is a number of whole units.
    pub const fn is_whole(self) -> bool {
        self.0.is_multiple_of(PARTS)
    }

    /// Both together; the largest amount where that is too large.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left without `other`; nothing where that is more.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// As a number to calculate with.
    pub const fn parts(self) -> u64 {
        self.0
    }
}

impl From<u32> for Amount {
    fn from(units: u32) -> Self {
        Self::whole(units)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, parts) = (self.0 / PARTS, self.0 % PARTS);
        if parts == 0 {
            return write!(f, "{whole}");
        }
        let places = format!("{parts:04}");
        write!(f, "{whole}.{}", places.trim_end_matches('0'))
    }
}

/// A text that is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount; write a number with up to four decimal places, as in 2 or 0.25")]
pub struct ParseAmountError(pub String);

impl FromStr for Amount {
    type Err = ParseAmountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseAmountError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Amount> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(places) || places.len() > 4 {
        return None;
    }
    let whole = Amount::whole(whole.parse().ok()?);
    let parts: u64 = format!("{places:0<4}").parse().ok()?;
    Some(whole.saturating_add(Amount(parts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_and_print_as_decimals() {
        for (text, parts) in [
            ("0", 0),
            ("2", 20_000),
            ("0.5", 5_000),
            ("0.25", 2_500),
            ("1.0001", 10_001),
            ("4294967295", 4_294_967_295 * PARTS),
        ] {
            let amount: Amount = text.parse().expect(text);
            assert_eq!(amount, Amount::ten_thousandths(parts));
            assert_eq!(amount.to_string(), text);
        }
        assert_eq!("1.50".parse(), Ok(Amount::ten_thousandths(15_000)));
        for text in [
            "",
            ".5",
            "1.",
            "-1",
            "+1",
            "0.00001",
            "1e3",
            "4294967296",
            "1.2.3",
            "½",
        ] {
            let error = text.parse::<Amount>().expect_err(text).to_string();
            assert!(error.contains("four decimal places"), "{error}");
        }
    }

    #[test]
    fn ten_tenths_are_one() {
        let tenth: Amount = "0.1".parse().expect("an amount");
        let sum = (0..10).fold(Amount::ZERO, |sum, _| sum.saturating_add(tenth));
        assert_eq!(sum, Amount::whole(1));
    }
}
