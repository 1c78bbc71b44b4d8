//! Random clients that call, give up, die and let their leases end. Whatever they do: nobody overtakes, never are there more
//! holders than permits, no item is lost or given twice, and nothing is left when all are gone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use transload_protocol::{CoordinationAnswer, CoordinationCall, DeletableKind, Patience};

use super::{Answers, Desk, blob};

const NAMES: [&str; 2] = ["a", "b"];
const PERMITS: [u32; 2] = [2, 3];

type Caller = (u32, u64);

/// What the clients believe.
#[derive(Default)]
struct Model {
    /// Calls that were sent and not answered, and their lines: kind, name.
    waiting: BTreeMap<Caller, (char, usize)>,
    lines: BTreeMap<(char, usize), VecDeque<Caller>>,
    /// Locks and permits held.
    held: BTreeMap<Caller, (char, usize)>,
    /// Items that were given and not acknowledged.
    given: BTreeMap<Caller, (usize, u32)>,
    /// Items that calls which wait for room bring.
    brought: BTreeMap<Caller, u32>,
    /// Items by queue, in the order in which they went in.
    items: [BTreeMap<u64, u32>; 2],
    places: BTreeMap<u32, u64>,
    next_place: u64,
    taken: BTreeSet<u32>,
    counts: BTreeMap<&'static str, u32>,
}

impl Model {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn forget(&mut self, caller: Caller) {
        if let Some(line) = self.waiting.remove(&caller) {
            let line = self.lines.get_mut(&line).expect("a line");
            line.retain(|it| *it != caller);
        }
        self.held.remove(&caller);
        self.brought.remove(&caller);
        if let Some((queue, item)) = self.given.remove(&caller) {
            self.items[queue].insert(self.places[&item], item);
        }
    }

    fn hear(&mut self, answers: Answers) {
        for (caller, answer) in answers {
            if answer == CoordinationAnswer::Expired {
                self.held.remove(&caller).expect("it held something");
                self.count("expired");
                continue;
            }
            let Some(line) = self.waiting.get(&caller).copied() else {
                assert_eq!(answer, CoordinationAnswer::Done, "{caller:?}");
                continue;
            };
            if answer == CoordinationAnswer::TimedOut {
                self.forget(caller);
                self.count("timed out");
                continue;
            }
            self.waiting.remove(&caller);
            let first = self.lines.get_mut(&line).expect("a line").pop_front();
            assert_eq!(first, Some(caller), "somebody overtook in {line:?}");
            let (kind, name) = line;
            match (kind, answer) {
                ('l' | 's', CoordinationAnswer::Granted) => {
                    self.held.insert(caller, line);
                    let holders = self.held.values().filter(|it| **it == line).count();
                    let most = if kind == 'l' { 1 } else { PERMITS[name] };
                    assert!(holders <= most as usize, "{holders} hold {line:?}");
                    self.count("granted");
                }
                ('p', CoordinationAnswer::Done) => {
                    let item = self.brought.remove(&caller).expect("it brought one");
                    self.places.insert(item, self.next_place);
                    self.items[name].insert(self.next_place, item);
                    self.next_place += 1;
                    self.count("put");
                }
                ('g', CoordinationAnswer::Value(value)) => {
                    let item = u32::from_le_bytes(value.0.as_ref().try_into().expect("4 bytes"));
                    let (_, oldest) = self.items[name].pop_first().expect("it has items");
                    assert_eq!(item, oldest, "not the oldest item of queue {name}");
                    self.given.insert(caller, (name, item));
                    self.count("got");
                }
                ('e', CoordinationAnswer::Done) | ('v', CoordinationAnswer::Value(_)) => {
                    self.count("told");
                }
                (kind, answer) => panic!("{caller:?} of kind {kind} was answered {answer:?}"),
            }
        }
    }
}

fn patience(rng: &mut SmallRng) -> Patience {
    match rng.random_range(0..4) {
        0 => Patience::Millis(rng.random_range(0..50)),
        _ => Patience::Forever,
    }
}

/// A call that may wait, and the line that it joins.
fn any_call(rng: &mut SmallRng, item: u32) -> (CoordinationCall, char, usize) {
    let index = rng.random_range(0..2);
    let name = NAMES[index].to_owned();
    let patience = patience(rng);
    let lease_ms = rng.random_range(5..200);
    match rng.random_range(0..6) {
        0 => (
            CoordinationCall::Lock {
                name,
                patience,
                lease_ms,
            },
            'l',
            index,
        ),
        1 => (
            CoordinationCall::Acquire {
                name,
                permits: PERMITS[index],
                patience,
                lease_ms,
            },
            's',
            index,
        ),
        2 => (CoordinationCall::WaitEvent { name, patience }, 'e', index),
        3 => (CoordinationCall::GetVariable { name, patience }, 'v', index),
        4 => (CoordinationCall::Get { name, patience }, 'g', index),
        _ => {
            let max_items = rng.random_bool(0.7).then(|| rng.random_range(1..4));
            let item = blob(&item.to_le_bytes());
            (
                CoordinationCall::Put {
                    name,
                    item,
                    max_items,
                    patience,
                },
                'p',
                index,
            )
        }
    }
}

fn one_time(rng: &mut SmallRng) -> CoordinationCall {
    let name = NAMES[rng.random_range(0..2)].to_owned();
    match rng.random_range(0..4) {
        0 => CoordinationCall::SetEvent { name },
        1 => CoordinationCall::ClearEvent { name },
        2 => CoordinationCall::SetVariable {
            name,
            value: blob(b"value"),
        },
        _ => CoordinationCall::Delete {
            kind: [DeletableKind::Event, DeletableKind::Variable][rng.random_range(0..2)],
            name,
        },
    }
}

fn run(seed: u64, totals: &mut BTreeMap<&'static str, u32>) {
    let rng = &mut SmallRng::seed_from_u64(seed);
    let mut desk = Desk::new();
    let mut model = Model::default();
    let mut next = 0;
    // One client stays, so that queues outlive the others.
    let mut clients: Vec<u32> = vec![0];
    for name in NAMES {
        desk.call(
            (0, u64::MAX),
            CoordinationCall::SetEvent {
                name: name.to_owned(),
            },
        );
        // The stayer's put makes it a user of the queue; the item counts as any other.
        let item = next;
        next += 1;
        let index = usize::from(name == "b");
        model.waiting.insert((0, u64::from(item)), ('p', index));
        let line = model.lines.entry(('p', index)).or_default();
        line.push_back((0, u64::from(item)));
        model.brought.insert((0, u64::from(item)), item);
        let call = CoordinationCall::Put {
            name: name.to_owned(),
            item: blob(&item.to_le_bytes()),
            max_items: None,
            patience: Patience::Forever,
        };
        model.hear(desk.call((0, u64::from(item)), call));
    }
    for _ in 0..400 {
        desk.pass(rng.random_range(0..4));
        let client = *clients.iter().choose(rng).expect("the stayer");
        match rng.random_range(0..100) {
            0..35 => {
                let caller = (client, u64::from(next));
                let (call, kind, index) = any_call(rng, next);
                if kind == 'p' {
                    model.brought.insert(caller, next);
                }
                next += 1;
                model.waiting.insert(caller, (kind, index));
                let line = model.lines.entry((kind, index)).or_default();
                line.push_back(caller);
                model.hear(desk.call(caller, call));
            }
            35..45 => {
                next += 1;
                model.hear(desk.call((client, u64::from(next)), one_time(rng)));
            }
            45..60 => {
                let held = model.held.keys().choose(rng).copied();
                if let Some(caller) = held {
                    model.held.remove(&caller);
                    model.hear(desk.call(caller, CoordinationCall::End));
                }
            }
            60..68 => {
                if let Some(caller) = model.waiting.keys().choose(rng).copied() {
                    model.forget(caller);
                    model.count("gave up");
                    model.hear(desk.call(caller, CoordinationCall::End));
                }
            }
            68..80 => {
                let given = model.given.iter().choose(rng);
                if let Some((caller, (_, item))) = given.map(|(caller, it)| (*caller, *it)) {
                    if rng.random_bool(0.8) {
                        model.given.remove(&caller);
                        assert!(model.taken.insert(item), "item {item} was given twice");
                        model.hear(desk.call(caller, CoordinationCall::Taken));
                    } else {
                        model.forget(caller);
                        model.count("given back");
                        model.hear(desk.call(caller, CoordinationCall::End));
                    }
                }
            }
            80..90 => {
                if let Some(caller) = model.held.keys().choose(rng).copied() {
                    model.hear(desk.call(caller, CoordinationCall::Renew));
                }
            }
            90..95 => model.hear(desk.tick()),
            95..98 if clients.len() > 1 => {
                let gone = clients.remove(rng.random_range(1..clients.len()));
                let calls: Vec<Caller> = model
                    .waiting
                    .keys()
                    .chain(model.held.keys())
                    .chain(model.given.keys())
                    .filter(|(client, _)| *client == gone)
                    .copied()
                    .collect();
                for caller in calls {
                    model.forget(caller);
                }
                model.count("clients lost");
                model.hear(desk.lose(gone));
            }
            _ => {
                next += 1;
                clients.push(next);
            }
        }
    }
    // What has been put and not taken is still there.
    let here: Vec<u32> = model
        .items
        .iter()
        .flat_map(BTreeMap::values)
        .copied()
        .collect();
    let on_the_way = model.given.len();
    assert_eq!(
        here.len() + on_the_way + model.taken.len(),
        model.places.len(),
        "items are missing"
    );
    for client in clients {
        desk.lose(client);
    }
    desk.assert_empty();
    for (name, count) in model.counts {
        *totals.entry(name).or_default() += count;
    }
}

#[test]
fn random_clients_overtake_nobody_and_leave_nothing() {
    let mut totals = BTreeMap::new();
    for seed in 0..150 {
        let ran = std::panic::catch_unwind(|| {
            let mut counts = BTreeMap::new();
            run(seed, &mut counts);
            counts
        });
        match ran {
            Ok(counts) => {
                for (name, count) in counts {
                    *totals.entry(name).or_default() += count;
                }
            }
            Err(panic) => {
                eprintln!("seed {seed} failed");
                std::panic::resume_unwind(panic);
            }
        }
    }
    for name in [
        "clients lost",
        "expired",
        "gave up",
        "given back",
        "got",
        "granted",
        "put",
        "timed out",
        "told",
    ] {
        let count: u32 = totals.get(name).copied().unwrap_or(0);
        assert!(count >= 100, "{name}: met only {count} times: {totals:?}");
    }
}
