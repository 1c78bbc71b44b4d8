//! One rule of named things per test.

use transload_protocol::CoordinationAnswer::{Done, Expired, Granted, TimedOut};
use transload_protocol::{CoordinationCall, CoordinationRefusal, DeletableKind, Patience};

use super::{Desk, acquire, blob, delete, get, lock, put, refusal, value};
use crate::api::CoordinationLimits;

const FOREVER: Patience = Patience::Forever;

fn named(name: &str) -> String {
    name.to_owned()
}

#[test]
fn a_lock_goes_from_one_to_the_next_in_the_order_of_their_calls() {
    let mut desk = Desk::new();
    assert_eq!(desk.call((1, 0), lock("a", FOREVER)), [((1, 0), Granted)]);
    assert_eq!(desk.call((2, 0), lock("a", FOREVER)), []);
    assert_eq!(desk.call((1, 1), lock("a", FOREVER)), []);
    assert_eq!(desk.call((3, 0), lock("b", FOREVER)), [((3, 0), Granted)]);
    assert_eq!(
        desk.call((1, 0), CoordinationCall::End),
        [((2, 0), Granted)]
    );
    assert_eq!(
        desk.call((2, 0), CoordinationCall::End),
        [((1, 1), Granted)]
    );
    // Said again, or by a stranger, it changes nothing.
    assert_eq!(desk.call((2, 0), CoordinationCall::End), []);
    assert_eq!(desk.call((2, 1), CoordinationCall::End), []);
    desk.call((1, 1), CoordinationCall::End);
    desk.call((3, 0), CoordinationCall::End);
    desk.assert_empty();
}

#[test]
fn a_semaphore_has_as_many_holders_as_permits_and_all_must_agree_on_them() {
    let mut desk = Desk::new();
    assert_eq!(desk.call((1, 0), acquire("s", 2)), [((1, 0), Granted)]);
    assert_eq!(desk.call((1, 1), acquire("s", 2)), [((1, 1), Granted)]);
    assert_eq!(desk.call((2, 0), acquire("s", 2)), []);
    let refused = desk.call((2, 1), acquire("s", 3));
    assert_eq!(
        *refusal(&refused),
        CoordinationRefusal::OtherPermits {
            permits: 2,
            asked: 3
        }
    );
    assert_eq!(
        desk.call((1, 1), CoordinationCall::End),
        [((2, 0), Granted)]
    );
    for (client, request) in [(1, 0), (2, 0)] {
        desk.call((client, request), CoordinationCall::End);
    }
    // Nobody uses it any more, so that its permits can be others.
    assert_eq!(desk.call((2, 1), acquire("s", 3)), [((2, 1), Granted)]);
    let refused = desk.call((2, 2), acquire("t", 0));
    assert!(refusal(&refused).to_string().contains("at least 1"));
}

#[test]
fn a_lease_ends_what_is_not_renewed_and_the_next_is_served() {
    let mut desk = Desk::new();
    desk.call((1, 0), lock("a", FOREVER));
    desk.call((2, 0), lock("a", FOREVER));
    for _ in 0..5 {
        desk.pass(900);
        assert_eq!(desk.call((1, 0), CoordinationCall::Renew), []);
    }
    assert_eq!(desk.tick(), [((1, 0), Expired), ((2, 0), Granted)]);
    // What was taken away cannot be renewed or given back.
    assert_eq!(desk.call((1, 0), CoordinationCall::Renew), []);
    assert_eq!(desk.call((1, 0), CoordinationCall::End), []);
    assert_eq!(
        desk.call((1, 1), lock("a", Patience::Millis(0))),
        [((1, 1), TimedOut)]
    );
}

#[test]
fn a_scheduler_that_was_away_itself_takes_nothing_from_anyone() {
    let mut desk = Desk::new();
    desk.call((1, 0), lock("a", FOREVER));
    desk.pass(60_000);
    assert_eq!(desk.tick(), []);
    assert_eq!(desk.tick(), [((1, 0), Expired)]);
    desk.assert_empty();
}

#[test]
fn who_loses_patience_or_gives_up_gets_nothing_later() {
    let mut desk = Desk::new();
    desk.call((1, 0), lock("a", FOREVER));
    assert_eq!(desk.call((2, 0), lock("a", Patience::Millis(10))), []);
    assert_eq!(desk.call((3, 0), lock("a", FOREVER)), []);
    assert_eq!(desk.call((4, 0), lock("a", FOREVER)), []);
    assert_eq!(desk.tick(), [((2, 0), TimedOut)]);
    desk.call((3, 0), CoordinationCall::End);
    assert_eq!(
        desk.call((1, 0), CoordinationCall::End),
        [((4, 0), Granted)]
    );
    // Granted and given up at the same time: the two messages crossed.
    desk.call((1, 1), lock("a", FOREVER));
    assert_eq!(
        desk.call((4, 0), CoordinationCall::End),
        [((1, 1), Granted)]
    );
    desk.call((1, 1), CoordinationCall::End);
    desk.assert_empty();
}

#[test]
fn a_lost_client_leaves_its_locks_to_others_and_not_to_itself() {
    let mut desk = Desk::new();
    desk.call((1, 0), lock("a", FOREVER));
    desk.call((1, 1), lock("a", FOREVER));
    desk.call((2, 0), lock("a", FOREVER));
    assert_eq!(desk.lose(1), [((2, 0), Granted)]);
    assert_eq!(desk.lose(2), []);
    desk.assert_empty();
}

#[test]
fn an_event_lets_all_pass_until_it_is_cleared() {
    let mut desk = Desk::new();
    let wait = || CoordinationCall::WaitEvent {
        name: named("e"),
        patience: Patience::Millis(0),
    };
    let wait_long = || CoordinationCall::WaitEvent {
        name: named("e"),
        patience: FOREVER,
    };
    desk.call((1, 0), wait_long());
    desk.call((2, 0), wait_long());
    assert_eq!(
        desk.call((3, 0), CoordinationCall::SetEvent { name: named("e") }),
        [((3, 0), Done), ((1, 0), Done), ((2, 0), Done)]
    );
    assert_eq!(desk.call((2, 1), wait()), [((2, 1), Done)]);
    desk.call((1, 1), CoordinationCall::ClearEvent { name: named("e") });
    assert_eq!(desk.call((2, 2), wait()), [((2, 2), TimedOut)]);
    for client in 1..=3 {
        desk.lose(client);
    }
    desk.assert_empty();
}

#[test]
fn a_queue_gives_items_in_order_and_makes_those_wait_for_whom_there_is_no_room() {
    let mut desk = Desk::new();
    assert_eq!(
        desk.call((1, 0), put("q", b"one", Some(2))),
        [((1, 0), Done)]
    );
    assert_eq!(
        desk.call((1, 1), put("q", b"two", Some(2))),
        [((1, 1), Done)]
    );
    assert_eq!(desk.call((1, 2), put("q", b"three", Some(2))), []);
    // Who could put more does not overtake.
    assert_eq!(desk.call((1, 3), put("q", b"four", None)), []);
    assert_eq!(
        desk.call((2, 0), get("q")),
        [((2, 0), value(b"one")), ((1, 2), Done), ((1, 3), Done)]
    );
    assert_eq!(desk.call((2, 1), get("q")), [((2, 1), value(b"two"))]);
    desk.call((2, 0), CoordinationCall::Taken);
    desk.call((2, 1), CoordinationCall::Taken);
    assert_eq!(desk.call((2, 2), get("q")), [((2, 2), value(b"three"))]);
    assert_eq!(desk.call((2, 3), get("q")), [((2, 3), value(b"four"))]);
    assert_eq!(desk.call((3, 0), get("q")), []);
    // Given up after it was sent: it is another's, in its old place.
    assert_eq!(
        desk.call((2, 2), CoordinationCall::End),
        [((3, 0), value(b"three"))]
    );
    desk.call((3, 0), CoordinationCall::Taken);
    desk.call((3, 0), CoordinationCall::End);
    desk.call((2, 3), CoordinationCall::Taken);
    // The consumers are gone; the queue is still the producer's.
    desk.lose(2);
    desk.lose(3);
    desk.call((4, 0), put("q", b"five", None));
    desk.lose(4);
    assert_eq!(desk.call((1, 4), get("q")), [((1, 4), value(b"five"))]);
    desk.lose(1);
    desk.assert_empty();
}

#[test]
fn an_item_on_its_way_to_a_client_that_is_lost_goes_back_to_its_place() {
    let mut desk = Desk::new();
    for (request, item) in [(0, b"a"), (1, b"b"), (2, b"c")] {
        desk.call((1, request), put("q", item, None));
    }
    for request in 0..2 {
        desk.call((2, request), get("q"));
    }
    desk.call((2, 1), CoordinationCall::Taken);
    assert_eq!(desk.lose(2), []);
    assert_eq!(desk.call((3, 0), get("q")), [((3, 0), value(b"a"))]);
    assert_eq!(desk.call((3, 1), get("q")), [((3, 1), value(b"c"))]);
    desk.lose(3);
    desk.lose(1);
    desk.assert_empty();
}

#[test]
fn a_variable_makes_its_readers_wait_until_it_has_a_value() {
    let mut desk = Desk::new();
    let set = |value: &[u8]| CoordinationCall::SetVariable {
        name: named("v"),
        value: blob(value),
    };
    let read = || CoordinationCall::GetVariable {
        name: named("v"),
        patience: FOREVER,
    };
    assert_eq!(desk.call((1, 0), read()), []);
    assert_eq!(
        desk.call((2, 0), set(b"x")),
        [((2, 0), Done), ((1, 0), value(b"x"))]
    );
    assert_eq!(desk.call((2, 1), set(b"yy")), [((2, 1), Done)]);
    assert_eq!(desk.call((1, 1), read()), [((1, 1), value(b"yy"))]);
    // The setter is gone, a reader is still there.
    desk.lose(2);
    assert_eq!(desk.call((1, 2), read()), [((1, 2), value(b"yy"))]);
    desk.call((1, 3), delete(DeletableKind::Variable, "v"));
    assert_eq!(desk.call((1, 4), read()), []);
    desk.lose(1);
    desk.assert_empty();
}

#[test]
fn what_is_deleted_is_as_if_never_used_except_for_those_who_wait() {
    let mut desk = Desk::new();
    for name in ["a", "b"] {
        desk.call((1, 0), CoordinationCall::SetEvent { name: named(name) });
        desk.call((1, 1), put(name, b"1", Some(1)));
    }
    assert_eq!(desk.call((1, 2), put("b", b"2", Some(1))), []);
    for name in ["a", "b"] {
        desk.call((2, 0), delete(DeletableKind::Event, name));
    }
    assert_eq!(
        desk.call((2, 1), delete(DeletableKind::Queue, "b")),
        [((2, 1), Done), ((1, 2), Done)]
    );
    assert_eq!(desk.call((2, 2), get("b")), [((2, 2), value(b"2"))]);
    assert_eq!(
        desk.call((2, 3), delete(DeletableKind::Queue, "b")),
        [((2, 3), Done)]
    );
    // The item on its way comes back when it is given up.
    desk.call((2, 2), CoordinationCall::End);
    assert_eq!(desk.call((1, 3), get("b")), [((1, 3), value(b"2"))]);
    desk.call((1, 3), CoordinationCall::Taken);
    for name in ["a", "b"] {
        desk.call((2, 4), delete(DeletableKind::Queue, name));
    }
    desk.assert_empty();
}

#[test]
fn whatever_goes_beyond_a_limit_is_refused_with_the_limit_named() {
    let mut desk = Desk::with(CoordinationLimits {
        names: 2,
        calls: 2,
        item_bytes: 4,
        memory_bytes: 6,
    });
    let set = |bytes: &[u8]| CoordinationCall::SetVariable {
        name: named("v"),
        value: blob(bytes),
    };
    let told = |answers| refusal(&answers).to_string();
    assert!(told(desk.call((1, 0), set(b"12345"))).contains("coordination_item"));
    desk.call((1, 1), set(b"1234"));
    assert!(told(desk.call((1, 2), put("q", b"123", None))).contains("coordination_memory"));
    // The old value makes room for the new one.
    desk.call((1, 3), set(b"4321"));
    desk.call((1, 4), put("q", b"12", None));
    assert!(told(desk.call((1, 5), lock("a", FOREVER))).contains("coordination_names"));
    desk.call((1, 6), get("q"));
    desk.call((1, 7), get("q"));
    assert!(told(desk.call((1, 8), get("q"))).contains("coordination_calls"));
    desk.call((1, 6), CoordinationCall::End);
    assert!(told(desk.call((1, 7), get("q"))).contains("count up"));
    assert!(told(desk.call((1, 9), lock("", FOREVER))).contains("name"));
    assert!(told(desk.call((1, 9), put("q", b"", Some(0)))).contains("at least 1"));
    desk.lose(1);
    desk.assert_empty();
}
