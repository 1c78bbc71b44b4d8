//! What is drawn of made-up clusters, on terminals of many sizes, whatever names they have.

use std::collections::BTreeSet;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use transload_protocol::{
    ClientId, Gpu, GraphId, GraphInfo, LayerInfo, LayerProgress, Resources, RunningTask, Straggler,
    TaskId, Tier, TierUsage, Transfer, WorkerHello, WorkerId, WorkerInfo, WorkerLoad,
};

use super::super::state::{Command, Sort};
use super::*;

const GRAPH: GraphId = GraphId {
    client: ClientId(1),
    sequence: 0,
};

fn task(index: u32) -> TaskId {
    TaskId {
        graph: GRAPH,
        index,
    }
}

fn worker(number: u32) -> WorkerInfo {
    let tier = |tier, used_bytes, limit_bytes| TierUsage {
        tier,
        used_bytes,
        limit_bytes,
    };
    WorkerInfo {
        worker: WorkerId(number),
        hello: WorkerHello {
            name: format!("worker-{number}"),
            host: "node7".to_owned(),
            process: 100 + number,
            resources: Resources::slots(8),
            memory_bytes: 4 << 30,
            addresses: Vec::new(),
            labels: BTreeSet::new(),
            shared: BTreeSet::new(),
            gpu: Some(Gpu {
                ordinal: 0,
                name: "NVIDIA H100 80GB HBM3".to_owned(),
                memory_bytes: 80 << 30,
            }),
        },
        load: WorkerLoad {
            running: vec![
                RunningTask {
                    task: task(number),
                    running_ms: 5
                };
                (number % 8) as usize
            ],
            queued: 3,
            tiers: vec![
                tier(Tier::Host, u64::from(number) << 20, 4 << 30),
                tier(Tier::Disk, 0, u64::MAX),
                tier(Tier::Device, 40 << 30, 60 << 30),
            ],
            resident_bytes: 300 << 20,
        },
        assigned: 1,
        finished: 1_000 * u64::from(number),
        spilled_bytes: 0,
        stragglers: Vec::new(),
        apart_from: Vec::new(),
        aside: false,
    }
}

fn graph(name: &str) -> GraphInfo {
    let layer = |name: &str, done, running| LayerInfo {
        name: name.to_owned(),
        operator: "op".to_owned(),
        first_task: 0,
        reads: Vec::new(),
        progress: LayerProgress {
            total: 10,
            done,
            running,
        },
    };
    GraphInfo {
        graph: GRAPH,
        name: name.to_owned(),
        description: String::new(),
        client: "a test".to_owned(),
        layers: vec![
            layer("scan lineitem", 10, 0),
            layer("join", 5, 2),
            layer("sort", 0, 0),
        ],
    }
}

fn moved(from: u32, to: u32, bytes: u64) -> Transfer {
    Transfer {
        from: WorkerId(from),
        to: WorkerId(to),
        partitions: 1,
        bytes,
        transport: "tcp".to_owned(),
        bytes_per_s: 0,
        demotion: None,
    }
}

fn cluster(workers: u32) -> ClusterInfo {
    ClusterInfo {
        workers: (0..workers).map(worker).collect(),
        clients: 1,
        graphs_running: 1,
        tasks_ready: 12,
        transfers: vec![moved(0, 1, 1 << 20), moved(1, 0, 5 << 20)],
        graphs: vec![graph("SELECT\n  count(*) FROM lineitem")],
        dashboard: String::new(),
    }
}

fn seen(info: ClusterInfo) -> State {
    let mut state = State::new("10.0.0.3:8790".to_owned(), Duration::from_secs(1));
    state.see(info, Duration::from_secs(10));
    state
}

/// The lines of a terminal of this size. Wide characters take their second column along.
fn drawn(state: &mut State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| state.draw(frame)).expect("draws");
    let buffer = terminal.backend().buffer();
    let cells = buffer.content();
    let lines = cells.chunks(usize::from(width)).map(|line| {
        let symbols = line.iter().map(ratatui::buffer::Cell::symbol);
        symbols.collect::<String>().trim_end().to_owned()
    });
    lines.collect()
}

#[test]
fn a_wide_terminal_shows_all_of_it() {
    let mut state = seen(cluster(3));
    let mut later = cluster(3);
    later.transfers[0].bytes += 4 << 20;
    later.workers[1].finished += 500;
    state.see(later, Duration::from_secs(12));
    let lines = drawn(&mut state, 200, 30);
    let text = lines.join("\n");
    assert_eq!(lines[0], "transload top 10.0.0.3:8790");
    assert_eq!(
        lines[1],
        "3 workers, 3/24 slots busy, 12 tasks ready, 1 client, 250 tasks/s"
    );
    for word in [
        "workers by id",
        "worker-2",
        "node7",
        "2/8",
        "2.0 MiB/4.0 GiB",
        "█████░░░ 40 GiB/60 GiB",
        "300 MiB",
        "0 NVIDIA H100 80GB HBM3",
        "1 graph running",
        "15/30,    2 running  SELECT count(*) FROM lineitem",
        "5/10,    2 running  join",
        "moved 2.0 MiB/s, 10 MiB so far",
        "w0 → w1      2.0 MiB/s   5.0 MiB  tcp",
        "w1 → w0              -   5.0 MiB  tcp",
        "q leave  s sort (id)",
    ] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    // Layers that have ended or have not begun say nothing.
    assert!(
        !text.contains("scan lineitem") && !text.contains("sort\n"),
        "{text}"
    );
}

#[test]
fn an_old_terminal_shows_what_matters_most() {
    let mut slow = cluster(2);
    slow.workers[1].stragglers = vec![Straggler {
        task: task(17),
        running_ms: 41_000,
        typical_ms: 3_000,
    }];
    let lines = drawn(&mut seen(slow), 80, 24);
    let text = lines.join("\n");
    for word in [
        "worker-1",
        "1/8",
        "1.0 MiB/4.0 GiB",
        "finished",
        "15/30",
        "w1 → w0",
        "stragglers",
        "1.0.17 on w1: 41 s, others 3 s",
        "? help",
    ] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    assert!(!text.contains("H100"), "{text}");
    assert_eq!(lines.len(), 24);
}

#[test]
fn a_cluster_without_workers_says_how_to_start_one() {
    let text = drawn(&mut seen(ClusterInfo::default()), 80, 24).join("\n");
    assert!(
        text.contains("none yet; start one: transload worker 10.0.0.3:8790"),
        "{text}"
    );
    assert!(text.contains("0 workers, 0/0 slots busy"), "{text}");
    let mut state = State::new("a:1".to_owned(), Duration::from_secs(1));
    assert!(
        drawn(&mut state, 80, 24)
            .join("\n")
            .contains("waiting for the scheduler")
    );
}

#[test]
fn a_hundred_workers_are_scrolled_and_never_out_of_sight() {
    let mut state = seen(cluster(100));
    let first = drawn(&mut state, 80, 24).join("\n");
    assert!(
        first.contains("workers 1-") && first.contains("of 100 by id"),
        "{first}"
    );
    for command in [
        Command::Down(usize::MAX),
        Command::Down(1),
        Command::PageDown,
    ] {
        assert!(state.obey(command).is_continue());
    }
    let last = drawn(&mut state, 80, 24).join("\n");
    assert!(
        last.contains("worker-99") && !last.contains("worker-0 "),
        "{last}"
    );
    // What was too far already does not have to be taken back.
    assert!(state.obey(Command::Up(1)).is_continue());
    let above = drawn(&mut state, 80, 24).join("\n");
    assert!(
        above.contains("worker-98") && !above.contains("worker-99"),
        "{above}"
    );
    state.see(cluster(2), Duration::from_secs(11));
    let few = drawn(&mut state, 80, 24).join("\n");
    assert!(
        few.contains("worker-0 ") && few.contains("worker-1 "),
        "{few}"
    );
}

#[test]
fn workers_are_sorted_by_what_was_asked_for() {
    let mut state = seen(cluster(10));
    let mut order = Vec::new();
    loop {
        order.push((state.sort, state.workers()[0].worker.0));
        assert!(state.obey(Command::Sort).is_continue());
        if state.sort == Sort::Id {
            break;
        }
    }
    assert_eq!(
        order,
        [
            (Sort::Id, 0),
            (Sort::Running, 7),
            (Sort::Memory, 9),
            (Sort::Finished, 9),
            (Sort::Name, 0)
        ]
    );
}

#[test]
fn while_it_is_paused_nothing_changes_and_the_rate_of_the_next_look_is_over_all_that_time() {
    let mut state = seen(cluster(1));
    assert!(state.obey(Command::Pause).is_continue());
    state.see(cluster(5), Duration::from_secs(11));
    let paused = drawn(&mut state, 80, 24).join("\n");
    assert!(
        paused.contains("paused") && paused.contains("1 worker,"),
        "{paused}"
    );
    assert!(state.obey(Command::Pause).is_continue());
    let mut later = cluster(5);
    later.transfers[0].bytes += 10 << 20;
    state.see(later, Duration::from_secs(20));
    assert_eq!(state.flows()[0].bytes_per_s, 1 << 20);
}

#[test]
fn one_look_alone_has_no_rates_and_a_scheduler_that_began_anew_none_below_nothing() {
    let mut state = seen(cluster(2));
    assert!(state.flows().iter().all(|it| it.bytes_per_s == 0));
    let mut anew = cluster(2);
    anew.transfers[0].bytes = 0;
    anew.workers[1].finished = 0;
    state.see(anew, Duration::from_secs(10));
    assert!(state.flows().iter().all(|it| it.bytes_per_s == 0));
    assert_eq!(state.tasks_per_s(), 0);
}

#[test]
fn a_scheduler_that_does_not_answer_is_said_to_be_silent_until_it_does() {
    let mut state = seen(cluster(1));
    state.wait(Duration::from_secs(1));
    assert!(!drawn(&mut state, 80, 24)[0].contains("no answer"));
    state.wait(Duration::from_secs(5));
    assert!(drawn(&mut state, 80, 24)[0].contains("no answer for 5 s"));
    state.see(cluster(1), Duration::from_secs(20));
    assert!(!drawn(&mut state, 80, 24)[0].contains("no answer"));
}

#[test]
fn help_opens_and_closes_and_only_then_does_escape_leave() {
    let mut state = seen(cluster(1));
    assert!(state.obey(Command::Help).is_continue());
    assert!(
        drawn(&mut state, 80, 24)
            .join("\n")
            .contains("sort the workers")
    );
    assert!(state.obey(Command::Back).is_continue());
    assert!(
        !drawn(&mut state, 80, 24)
            .join("\n")
            .contains("sort the workers")
    );
    assert!(state.obey(Command::Back).is_break());
    assert!(state.obey(Command::Leave).is_break());
}

#[test]
fn no_size_is_too_small_or_too_large() {
    let mut state = seen(cluster(20));
    assert!(state.obey(Command::Help).is_continue());
    for width in [1, 2, 3, 10, 40, 79, 300] {
        for height in [1, 2, 3, 4, 5, 8, 12, 100] {
            assert_eq!(drawn(&mut state, width, height).len(), usize::from(height));
        }
    }
}

#[test]
fn nothing_that_others_have_written_is_obeyed_by_the_terminal() {
    const EVIL: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\n\u{9b}31m\u{202e}\u{200b}\tx";
    let mut info = cluster(2);
    info.workers[0].hello.name = EVIL.to_owned();
    info.workers[0].hello.host = EVIL.to_owned();
    if let Some(gpu) = &mut info.workers[0].hello.gpu {
        gpu.name = EVIL.to_owned();
    }
    info.graphs[0].name = EVIL.to_owned();
    info.graphs[0].layers[1].name = EVIL.to_owned();
    info.transfers[0].transport = EVIL.to_owned();
    let mut state = State::new(EVIL.to_owned(), Duration::from_secs(1));
    state.see(info, Duration::ZERO);
    for width in [80, 220] {
        let text = drawn(&mut state, width, 40).concat();
        let is_obeyed = |it: char| it.is_control() || "\u{202e}\u{200b}".contains(it);
        assert!(!text.contains(is_obeyed), "{text:?}");
        assert!(text.contains("\u{fffd}[2J"), "{text}");
    }
}

#[test]
fn long_and_wide_names_stay_in_their_columns() {
    let mut info = cluster(3);
    info.workers[0].hello.name = "ワーカー".repeat(40);
    info.workers[1].hello.name = "a-very-long-name-indeed".repeat(20);
    info.graphs[0].name = "SELECT ".repeat(5_000);
    let mut state = seen(info);
    let lines = drawn(&mut state, 80, 24);
    let at = |line: &str| {
        line.find("/8").map(|at| {
            line[..at]
                .chars()
                .map(|it| if it > '\u{3000}' { 2 } else { 1 })
                .sum::<i32>()
        })
    };
    let places: Vec<_> = lines
        .iter()
        .filter(|it| it.contains("/8 "))
        .map(|it| at(it))
        .collect();
    assert_eq!(places.len(), 3, "{lines:#?}");
    let text = lines.join("\n");
    assert!(text.contains('…'), "{text}");
}
