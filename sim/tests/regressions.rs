//! Seeds that once failed, each a test for ever.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use transload_sim::Simulation;

/// A seed, and what was wrong when it failed. A change of the simulation gives old seeds new meanings: where one no longer
/// shows its bug, a test of the machine keeps it.
const SEEDS: &[(u64, &str)] = &[
    (
        176,
        "a worker whose next task another one took did not look at its own queue again and idled",
    ),
    (
        31_076,
        "shared copies outlived a task that was lost, and then needed no more before it was made again",
    ),
    (
        84,
        "a queued task that needed anew what a task without its slot still read counted as stuck, and stood in others' way",
    ),
    (
        4_595,
        "a queued member of a gang occupied the slot of the task that it waited for",
    ),
    (
        14_722,
        "a queued member of a gang occupied what a graph needed for which the task that held it up waited",
    ),
    (
        3_122,
        "what was to be imported of a graph cancelled while workers came back counted as there",
    ),
    (
        5_313,
        "a gang waited for room that had been kept for another one until then",
    ),
    (
        13_326,
        "room counted as kept on a worker that had taken the place of another",
    ),
    (
        25_053,
        "a gang that had a verdict and lost a worker did not wait before it was tried again",
    ),
    (
        5_745,
        "room kept for a gang was the last for a graph that a task without its slot waited for, and it for the gang",
    ),
    (
        31_789,
        "a worker was lost between getting a task that was asked back for it and being told",
    ),
    (
        12_953,
        "the simulated end of a connection that was cut during a stall ended the next one",
    ),
    (
        28_988,
        "an inventory that was sent over a broken connection arrived after the hello of the next one, and counted",
    ),
    (
        38_293,
        "a worker that was cut off before it was back said hello over two connections, and its second inventory hid what it was \
         given after the first",
    ),
    (
        47_098,
        "a worker that was cut off twice was counted in twice, with an inventory from before it was given anything",
    ),
    (
        65_399,
        "a worker lost its outputs with a connection that it had already replaced",
    ),
    (
        68_938,
        "a worker that came back was taken for lost with its old connection, and was not told what to forget",
    ),
    (
        47_825,
        "a cut of no connection at all made a worker come back twice, and it was told of the shutdown once",
    ),
    (
        50_333,
        "a worker said hello for the second time after the scheduler had shut down, and counted as in the cluster",
    ),
    (
        49_451,
        "a client that was away for too long was taken back, where the real scheduler refuses it",
    ),
    (
        40_084,
        "what a worker that was back held of a gang was missed as needless while others were still waited for",
    ),
    (
        53_022,
        "a queued task that a task without its slot held up occupied the room that this one waited for (as in seeds 58,748, 72,590, \
         80,613, 98,215, 104,911 and 134,678)",
    ),
    (
        58_748,
        "members of a gang kept their slots while one of them was held up by a task without its slot, which waited for these slots",
    ),
    (
        72_590,
        "five queued tasks that two without their slots held up filled a worker's queue, and nothing else got in",
    ),
    (
        208_865,
        "the slot of a queued member that failed for lack of disk went to nobody, though a task waited to have its own back",
    ),
    (
        1_036_286,
        "a task took the last slot in the step in which a member of a gang had begun on less than it asks for",
    ),
    (
        1_131_166,
        "the end of a disowned attempt hid from the simulation that its worker had the next one when it died",
    ),
    (
        3_071_537,
        "a task that got the turn of one that was stopped on the way to its slot could not wait without it",
    ),
    (
        203,
        "a device was emptied for a task of what came for one before it, which was fetched back each time, for ever",
    ),
    (
        11,
        "a device that had been emptied for a task was filled again as soon as it ran",
    ),
    (
        233,
        "a task that ran out of device memory behind a broken connection was started again without its layer",
    ),
    (
        321_765,
        "what a task needed went back to disk each time that it came to page-locked memory, for what was too much on the device",
    ),
    (
        1_728,
        "a device counted as emptied for a task while a partition was on its way there straight from disk",
    ),
    (
        118_088,
        "a task that was held up by one that waits for it had failed, which the simulation did not know",
    ),
];

#[test]
fn seeds_that_failed_once_end_right() {
    for (seed, bug) in SEEDS {
        if let Err(failure) = Simulation::run(*seed) {
            panic!("{failure}\nit failed before: {bug}");
        }
    }
}
