//! A trace is valid, names everything, and ties its arrows to slices, whatever a recording has.

use serde_json::Value;

use super::*;
use crate::fakes;
use crate::view::{NoteKind, Way};

fn frame() -> Box<Frame> {
    Box::new(Frame {
        memory: vec![Sample {
            at_us: 70,
            worker: "w1".to_owned(),
            used_bytes: [1, 2, 3, 4],
            resident_bytes: 5,
        }],
        moves: vec![Move {
            worker: "w1".to_owned(),
            from: "host".to_owned(),
            to: "disk".to_owned(),
            start_us: 20,
            end_us: 26,
            bytes: 7,
            count: 1,
        }],
        ..fakes::frame()
    })
}

fn traced(messages: &[Message]) -> Vec<Value> {
    let trace: Value = serde_json::from_str(&chrome(messages)).expect("JSON");
    trace["traceEvents"].as_array().expect("events").clone()
}

fn only(events: &[Value], is_wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    events.iter().filter(|it| is_wanted(it)).cloned().collect()
}

/// What a track is called.
fn track(events: &[Value], of: &Value) -> String {
    let named = events
        .iter()
        .find(|it| it["name"] == "thread_name" && it["pid"] == of["pid"] && it["tid"] == of["tid"]);
    named.expect("a named track")["args"]["name"]
        .as_str()
        .expect("a name")
        .to_owned()
}

#[test]
fn every_worker_is_a_process_with_tracks_for_what_it_does() {
    let events = traced(&[fakes::about(), Message::Frame(frame())]);
    let processes = only(&events, |it| it["name"] == "process_name");
    let names: Vec<_> = processes
        .iter()
        .map(|it| it["args"]["name"].as_str())
        .collect();
    // w2 was never described.
    assert_eq!(names, [Some("w1 one on host"), Some("queries"), Some("w2")]);
    let slices = only(&events, |it| it["ph"] == "X");
    let shown: Vec<_> = slices
        .iter()
        .map(|it| {
            (
                it["name"].as_str().expect("a name"),
                track(&events, it),
                it["pid"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("SELECT 1", "queries 0".to_owned(), Some(QUERIES)),
            ("scan", "slot 1".to_owned(), Some(2)),
            ("tcp", "serves 0".to_owned(), Some(2)),
            ("tcp", "fetches 0".to_owned(), Some(3)),
            ("host to disk", "moves 0".to_owned(), Some(2)),
        ]
    );
    assert_eq!(slices[1]["ts"], 10);
    assert_eq!(slices[1]["dur"], 20);
    assert_eq!(slices[1]["args"]["operator"], "op-scan");
    let counters = only(&events, |it| it["ph"] == "C");
    assert_eq!(counters[0]["args"]["device"], 3);
    assert_eq!(
        only(&events, |it| it["ph"] == "i")[0]["name"],
        "w1 has joined"
    );
}

#[test]
fn the_trace_says_whose_it_is_and_when_its_clock_began() {
    let trace: Value = serde_json::from_str(&chrome(&[fakes::about()])).expect("JSON");
    assert_eq!(trace["otherData"]["unix_ms_at_0"], 995);
    assert_eq!(trace["traceEvents"], serde_json::json!([]));
    let nothing: Value = serde_json::from_str(&chrome(&[])).expect("JSON");
    assert_eq!(nothing["otherData"], Value::Null);
}

/// Of each flow, the slices that its two ends lie in.
fn assert_flows_are_tied(events: &[Value], count: u64) {
    for id in 1..=count {
        let ends = only(events, |it| it["id"] == id);
        let phases: Vec<_> = ends.iter().map(|it| it["ph"].as_str()).collect();
        assert_eq!(phases, [Some("s"), Some("f")]);
        assert!(ends[0]["ts"].as_u64() <= ends[1]["ts"].as_u64());
        for end in ends {
            let at = end["ts"].as_u64().expect("a time");
            let around = only(events, |it| {
                let start = it["ts"].as_u64().unwrap_or(u64::MAX);
                let is_here = it["ph"] == "X" && it["pid"] == end["pid"] && it["tid"] == end["tid"];
                is_here && start <= at && at < start + it["dur"].as_u64().unwrap_or(0)
            });
            assert_eq!(around.len(), 1, "{end}");
        }
    }
}

#[test]
fn an_arrow_goes_from_inside_what_served_to_inside_what_fetched() {
    let mut frame = frame();
    let one = frame.transfers[0].clone();
    let at = |start_us, end_us, partition: &str| Transfer {
        partition: partition.to_owned(),
        start_us,
        end_us,
        way: Way::Tcp,
        ..one.clone()
    };
    // At the same moment, in no time, at once, and with clocks that disagree.
    frame.transfers = vec![
        at(40, 40, "a"),
        at(40, 41, "b"),
        at(45, 9_000, "c"),
        at(8_500, 12_000, "d"),
        at(90, 80, "e"),
    ];
    let events = traced(&[Message::Frame(frame)]);
    assert_flows_are_tied(&events, 5);
}

#[test]
fn slices_of_one_track_are_apart_or_within_each_other() {
    let mut frame = frame();
    let one = frame.spans[0].clone();
    let ran = [
        (0, 10_000),
        (9_000, 20_000),
        (20_000, 20_000),
        (19_500, 30_000),
        (21_000, 22_000),
        (15_000, 21_500),
    ];
    frame.spans = ran
        .iter()
        .map(|&(start_us, end_us)| Span {
            start_us,
            end_us,
            ..one.clone()
        })
        .collect();
    let events = traced(&[Message::Frame(frame)]);
    let slices: Vec<_> = only(&events, |it| it["cat"] == "task")
        .iter()
        .map(|it| {
            let start = it["ts"].as_u64().expect("a time");
            (start, start + it["dur"].as_u64().expect("a time"))
        })
        .collect();
    for pair in slices.windows(2) {
        let [(from, to), (start, end)] = [pair[0], pair[1]];
        let is_apart = to <= start || end <= from;
        let is_within = (from <= start && end <= to) || (start <= from && to <= end);
        assert!(is_apart || is_within, "{pair:?}");
        assert!(start < end);
    }
}

#[test]
fn a_failed_task_says_why() {
    let mut frame = frame();
    frame.spans[0].failed = Some("no \"space\"\nleft".to_owned());
    let events = traced(&[Message::Frame(frame)]);
    let failed = only(&events, |it| it["cat"] == "failed");
    assert_eq!(failed[0]["args"]["failed"], "no \"space\"\nleft");
}

#[test]
fn tasks_are_named_by_layers_that_become_known_later() {
    let mut first = frame();
    let graphs = std::mem::take(&mut first.graphs);
    let later = Frame {
        graphs,
        ..Frame::default()
    };
    let unknown = traced(&[Message::Frame(first.clone())]);
    assert_eq!(
        only(&unknown, |it| it["cat"] == "task")[0]["name"],
        "layer 0"
    );
    let events = traced(&[Message::Frame(first), Message::Frame(Box::new(later))]);
    assert_eq!(only(&events, |it| it["cat"] == "task")[0]["name"], "scan");
}

#[test]
fn what_a_later_whole_frame_repeats_is_shown_once_and_what_is_new_added() {
    let first = frame();
    let mut again = frame();
    again.spans.push(Span {
        task: "1.0.3".to_owned(),
        start_us: 100,
        end_us: 120,
        ..again.spans[0].clone()
    });
    again.notes.push(Note {
        at_us: 99,
        kind: NoteKind::TaskFailed,
        text: "1.0.3 has failed".to_owned(),
        worker: None,
        graph: None,
        task: None,
    });
    let once = traced(&[Message::Frame(first.clone()), Message::Frame(first.clone())]);
    assert_eq!(once, traced(&[Message::Frame(first.clone())]));
    let events = traced(&[Message::Frame(first), Message::Frame(again)]);
    assert_eq!(only(&events, |it| it["cat"] == "task").len(), 2);
    assert_eq!(only(&events, |it| it["ph"] == "i").len(), 2);
    assert_eq!(only(&events, |it| it["ph"] == "C").len(), 1);
}
