//! The hashes by which rows are partitioned, as the host computes them: the very numbers that gpu/kernels/hash.cu computes. Called by
//! whoever partitions in host memory what devices partition elsewhere, and by tests.
//!
//! Not DataFusion's hashes, which are its own affair and change with its versions: all who take part in one exchange use these, or
//! none does.

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// What stands for the hash of a null. A value may well have the same: hashes decide nothing but the partition.
pub const NULL_HASH: u64 = 0xd1b5_4a32_d192_ed03;

/// Every bit of the result depends on every bit of `x`; 0 becomes 0.
fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// The hash of a row so far, and of its value in the next key column. Begins with 0, and `combined(0, value)` is `value`.
pub fn combined(hash: u64, value: u64) -> u64 {
    value ^ mixed(hash)
}

/// The hash of a value of up to 64 bits: its bits, filled up with zeros whatever the type. Floats by their canonical bits; a boolean is 0
/// or 1.
pub fn hash_of(bits: u64) -> u64 {
    mixed(bits ^ SEED)
}

/// The hash of a value of 128 bits.
pub fn hash_of_wide(bits: u128) -> u64 {
    let (low, high) = (bits as u64, (bits >> 64) as u64);
    mixed(high ^ mixed(low ^ SEED))
}

/// The hash of a string or binary.
pub fn hash_of_bytes(bytes: &[u8]) -> u64 {
    let start = SEED ^ bytes.len() as u64;
    let hash = bytes.chunks(8).fold(start, |hash, chunk| {
        let word = chunk
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
        mixed(hash ^ word)
    });
    mixed(hash)
}

/// The bits of a half float, such that equal keys have equal bits: one zero, and one NaN.
pub fn canonical_f16(bits: u16) -> u16 {
    match bits & 0x7fff {
        0 => 0,
        magnitude if magnitude > 0x7c00 => 0x7e00,
        _ => bits,
    }
}

/// The same of a float.
pub fn canonical_f32(value: f32) -> u32 {
    match value {
        0.0 => 0,
        value if value.is_nan() => 0x7fc0_0000,
        value => value.to_bits(),
    }
}

/// The same of a double.
pub fn canonical_f64(value: f64) -> u64 {
    match value {
        0.0 => 0,
        value if value.is_nan() => 0x7ff8_0000_0000_0000,
        value => value.to_bits(),
    }
}

/// The partition of a row, below `partitions`.
pub fn partition_of(hash: u64, partitions: u32) -> u32 {
    // Below `partitions`, as the upper half is below 2^32.
    (((hash >> 32) * u64::from(partitions)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_of_sql_have_equal_bits() {
        assert_eq!(canonical_f64(-0.0), canonical_f64(0.0));
        assert_eq!(canonical_f32(-0.0), canonical_f32(0.0));
        assert_eq!(canonical_f16(0x8000), canonical_f16(0));
        assert_eq!(
            canonical_f64(f64::from_bits(0xffff_ffff_ffff_ffff)),
            canonical_f64(f64::NAN)
        );
        assert_eq!(canonical_f32(-f32::NAN), canonical_f32(f32::NAN));
        assert_eq!(canonical_f16(0xfc01), canonical_f16(0x7e00));
        assert_eq!(
            canonical_f64(f64::NEG_INFINITY),
            f64::NEG_INFINITY.to_bits()
        );
        assert_eq!(canonical_f16(0xfc00), 0xfc00);
    }

    #[test]
    fn zeros_at_the_end_of_a_key_count() {
        let keys: [&[u8]; 5] = [b"", b"\0", b"\0\0", b"a", b"a\0"];
        let hashes: std::collections::BTreeSet<u64> =
            keys.iter().map(|key| hash_of_bytes(key)).collect();
        assert_eq!(hashes.len(), keys.len());
    }

    #[test]
    fn partitions_get_about_equal_shares_of_numbers_in_a_row() {
        for partitions in [3, 16, 1000] {
            let mut counts = vec![0u32; partitions as usize];
            for key in 0..100 * u64::from(partitions) {
                counts[partition_of(hash_of(key), partitions) as usize] += 1;
            }
            let (least, most) = (counts.iter().min(), counts.iter().max());
            assert!(least > Some(&50) && most < Some(&160), "{least:?} {most:?}");
        }
    }

    /// Partitions outlive the program that made them, so the numbers never change.
    #[test]
    fn hashes_are_what_they_were() {
        assert_eq!(hash_of(0), HASHES[0]);
        assert_eq!(hash_of_wide(1), HASHES[1]);
        assert_eq!(hash_of_bytes(b"transload"), HASHES[2]);
        assert_eq!(combined(hash_of(1), NULL_HASH), HASHES[3]);
        assert_eq!(combined(0, 7), 7);
    }

    const HASHES: [u64; 4] = [
        0x9ca0_66f1_a4ab_2eea,
        0x3a3c_7f8a_d167_625a,
        0x3381_15b9_83d2_c5ae,
        0xeb89_35b8_00f5_8f59,
    ];
}
