//! Holds the bytes of partitions in memory tiers.
