//! What every backend and every wrapper must do, as tests that they run. A backend's tests name a function that makes a
//! [`Backend`] and call [`crate::conformance_suite!`], and [`crate::device_conformance_suite!`] for what devices hold; each case fails by
//! panicking.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a conformance case is a test and fails by panicking"
)]

mod cases;
mod devices;
mod fixture;
mod pressure;

pub use cases::*;
pub use devices::*;
pub use fixture::{Backend, Count, Gate, Store, partition_id, random_partition};
pub use pressure::*;

/// Makes one test of each conformance case. The argument is the path of a function that makes a fresh [`Backend`], or an `Option`
/// of one where a machine may lack it; `tokio` is needed among the dev-dependencies.
#[macro_export]
macro_rules! conformance_suite {
    ($backend:path) => {
        $crate::conformance_suite!(@tests $backend;
            every_size_and_layout_arrives_whole_and_aligned,
            tens_of_mebibytes_arrive_whole,
            thousands_of_small_requests_are_in_flight_at_once,
            a_small_fetch_passes_a_large_one,
            many_peers_are_served_at_once,
            a_missing_partition_is_not_found_and_harms_nothing,
            a_source_that_fails_says_why_and_harms_nothing,
            a_source_that_panics_fails_that_fetch_alone,
            a_destination_that_refuses_harms_nothing,
            a_destination_that_gives_a_wrong_buffer_is_told_so,
            dropped_fetches_return_their_memory_and_leave_the_connection_usable,
            a_fetch_dropped_while_the_source_is_slow_frees_the_source,
            a_dropped_listener_closes_its_connections,
            a_listener_that_goes_away_in_a_payload_is_an_error,
            a_dropped_connection_leaves_the_listener_usable,
            an_address_where_nobody_listens_is_an_error,
            an_address_of_another_transport_is_an_error,
            a_listener_cannot_take_an_address_that_is_taken,
            answers_come_in_any_order_and_each_reaches_its_own_fetch,
            more_than_four_gibibytes_arrive_whole,
            a_source_that_never_answers_holds_up_no_other_fetch,
            a_fetch_that_nobody_polls_holds_up_no_other,
            a_fetch_dropped_after_any_poll_leaves_nothing_behind,
            a_fetch_aborted_while_it_gets_its_memory_returns_it,
            a_connection_cut_in_a_payload_ends_every_fetch_and_returns_the_memory,
            fetches_that_wait_for_their_turn_may_be_dropped,
            no_more_partitions_are_opened_at_once_than_the_limit_allows,
            a_sender_holds_no_more_partitions_than_the_limit_allows,
        );
    };
    (@tests $backend:path; $($case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                // A backend that this machine lacks has said so.
                if let Some(backend) = Option::from($backend()) {
                    $crate::conformance::$case(backend).await;
                }
            }
        )*
    };
}
