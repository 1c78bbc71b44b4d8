//! The first operators on device columns, run on the PTX interpreter: against plain Rust, in several orders of blocks and warps, with
//! bounds, alignment, races and unwritten memory watched; and the proof that these cases run every branch of every kernel.
#![expect(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod append;
mod arena;
mod chance;
mod check;
mod checksum;
mod coverage;
mod gather;
mod hash;
mod machine;
mod partition;
mod scan;
mod select;

use machine::Machine;
use proptest::prelude::*;

/// All cases in the order of numbers, and in several orders by chance, with grids that cover the rows and ones that do not.
fn in_several_orders(cases: fn(&mut Machine)) {
    for (seed, most_blocks) in [(None, 1000), (Some(1), 3), (Some(2), 1000)] {
        cases(&mut Machine::new(seed, most_blocks));
    }
}

#[test]
fn prefix_sums_and_counts_of_ones_are_right() {
    in_several_orders(scan::cases);
}

#[test]
fn filters_keep_the_rows_where_the_mask_is_true() {
    in_several_orders(select::cases);
}

#[test]
fn gathers_pick_rows_and_make_nulls_of_null_indices() {
    in_several_orders(gather::cases);
}

#[test]
fn columns_are_put_behind_each_other() {
    in_several_orders(append::cases);
}

#[test]
fn offsets_that_cannot_be_followed_are_found() {
    in_several_orders(check::cases);
}

#[test]
fn checksums_on_the_device_are_those_of_the_host() {
    in_several_orders(checksum::cases);
}

#[test]
fn hashes_on_the_device_are_those_of_the_host() {
    in_several_orders(hash::cases);
}

#[test]
fn rows_are_ordered_by_partition_and_else_stay_in_order() {
    in_several_orders(partition::cases);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_columns_are_scanned_filtered_and_hashed(rows in 0usize..3000, seed: u64, order: u64, most_blocks in 1u32..9) {
        let machine = &mut Machine::new(Some(order), most_blocks);
        scan::case(machine, rows, seed);
        select::case(machine, rows, seed);
        hash::case(machine, rows % 700, seed);
    }

    #[test]
    fn any_rows_are_gathered_and_partitioned(
        rows in 0usize..3000, of in 0usize..500, partitions in 1u32..300, seed: u64, order: u64, most_blocks in 1u32..9
    ) {
        let machine = &mut Machine::new(Some(order), most_blocks);
        gather::case(machine, rows, of, seed);
        partition::case(machine, rows, partitions, seed);
    }

    #[test]
    fn any_columns_are_put_behind_each_other(
        rows in proptest::collection::vec(0usize..300, 0..8), seed: u64, order: u64, most_blocks in 1u32..9
    ) {
        append::case(&mut Machine::new(Some(order), most_blocks), &rows, seed);
        check::case(&mut Machine::new(Some(order), most_blocks), rows.len() * 40, seed);
        checksum::case(&mut Machine::new(Some(order), most_blocks), rows.iter().sum(), seed);
    }
}
