//! Spans are tied to their graphs, told once, and named as soon as their names are known.

use super::*;
use crate::fakes;
use crate::view::NoteKind;

fn frame(change: impl FnOnce(&mut Frame)) -> Message {
    let mut frame = fakes::frame();
    change(&mut frame);
    Message::Frame(Box::new(frame))
}

/// The graph of the fakes has ended so.
fn ended(state: &'static str, reason: Option<&'static str>) -> Message {
    frame(|frame| {
        frame.graphs[0].state = state.to_owned();
        frame.graphs[0].reason = reason.map(str::to_owned);
        frame.graphs[0].end_us = Some(8_000);
    })
}

fn requests(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Each with the attributes of what it is of.
fn spans(request: &Value) -> Vec<(Value, Value)> {
    let resources = request["resourceSpans"].as_array().expect("a list").iter();
    let each = resources.flat_map(|it| {
        let of = it["resource"]["attributes"].clone();
        let spans = it["scopeSpans"][0]["spans"].as_array().expect("a list");
        spans.iter().map(move |span| (of.clone(), span.clone()))
    });
    each.collect()
}

fn named(request: &Value, name: &str) -> (Value, Value) {
    let all = spans(request);
    let found = all.iter().find(|(_, span)| span["name"] == name);
    found
        .unwrap_or_else(|| panic!("no {name} in {all:?}"))
        .clone()
}

fn attribute(attributes: &Value, key: &str) -> Value {
    let mut all = attributes.as_array().expect("a list").iter();
    let found = all.find(|it| it["key"] == key);
    found.map_or(Value::Null, |it| it["value"].clone())
}

#[test]
fn tasks_and_fetches_are_below_their_graph_and_of_their_workers() {
    let text = otlp(&[fakes::about(), ended("finished", None)]);
    let requests = requests(&text);
    let [request] = requests.as_slice() else {
        panic!("{text}");
    };
    let (of, graph) = named(request, "SELECT 1");
    assert_eq!(attribute(&of, "service.name")["stringValue"], "transload");
    assert_eq!(
        attribute(&of, "service.instance.id")["stringValue"],
        "scheduler"
    );
    assert_eq!(graph["parentSpanId"], Value::Null);
    assert_eq!(graph["status"]["code"], 1);
    // The scheduler's clock stood at 5 ms when it was 1 s after 1970.
    assert_eq!(graph["startTimeUnixNano"], "995000000");
    assert_eq!(graph["endTimeUnixNano"], "1003000000");

    let (of, task) = named(request, "scan");
    assert_eq!(attribute(&of, "host.name")["stringValue"], "host");
    assert_eq!(task["parentSpanId"], graph["spanId"]);
    assert_eq!(task["traceId"], graph["traceId"]);
    assert_eq!(task["startTimeUnixNano"], "995010000");
    assert_eq!(task["endTimeUnixNano"], "995030000");
    let bytes = attribute(&task["attributes"], "transload.output.bytes");
    assert_eq!(bytes["intValue"], "7");

    let (of, fetch) = named(request, "fetch from w1");
    assert_eq!(attribute(&of, "service.instance.id")["stringValue"], "w2");
    assert_eq!(fetch["parentSpanId"], graph["spanId"]);
    for (key, length) in [("traceId", 32), ("spanId", 16)] {
        let id = task[key].as_str().expect("a text");
        assert_eq!(id.len(), length);
        assert!(id.chars().all(|it| it.is_ascii_hexdigit()) && id.contains(|it| it != '0'));
    }
}

#[test]
fn what_failed_says_why_and_what_somebody_should_know_is_a_mark() {
    let failed = |frame: &mut Frame| {
        frame.spans[0].failed = Some("boom".to_owned());
        frame.notes[0].kind = NoteKind::TaskFailed;
        frame.notes[0].text = "task 1.0.2 failed".to_owned();
        frame.notes[0].graph = Some("1.0".to_owned());
    };
    let text = otlp(&[fakes::about(), frame(failed), ended("failed", Some("boom"))]);
    let requests = requests(&text);
    let (_, task) = named(&requests[0], "scan");
    assert_eq!(task["status"], json!({"code": 2, "message": "boom"}));
    let (_, graph) = named(&requests[1], "SELECT 1");
    assert_eq!(graph["status"], json!({"code": 2, "message": "boom"}));
    let [mark] = graph["events"].as_array().expect("a list").as_slice() else {
        panic!("{graph}");
    };
    assert_eq!(mark["name"], "task 1.0.2 failed");
    assert_eq!(mark["timeUnixNano"], "995060000");
}

#[test]
fn everything_is_told_once_though_it_is_heard_twice() {
    let mut spans = OtlpSpans::default();
    spans.take(&fakes::about());
    for _ in 0..3 {
        spans.take(&ended("finished", None));
    }
    assert_eq!(spans.len(), 3);
    assert!(spans.request().is_some());
    spans.take(&ended("finished", None));
    spans.end();
    assert_eq!(spans.request(), None);
}

#[test]
fn what_is_told_before_its_graph_is_described_waits_for_that_and_not_for_ever() {
    let mut spans = OtlpSpans::default();
    spans.take(&fakes::about());
    spans.take(&frame(|frame| frame.graphs.clear()));
    assert!(spans.is_empty());
    spans.take(&ended("finished", None));
    let request = spans.request().expect("spans");
    let (_, graph) = named(&request, "SELECT 1");
    assert_eq!(named(&request, "scan").1["traceId"], graph["traceId"]);

    let mut spans = OtlpSpans::default();
    spans.take(&fakes::about());
    for _ in 0..=PATIENCE + 1 {
        spans.take(&frame(|frame| {
            frame.graphs.clear();
            frame.spans.truncate(usize::from(frame.now_us == 9_000));
        }));
    }
    let request = spans.request().expect("spans");
    assert!(!named(&request, "layer 0").1["traceId"].is_null());
}

#[test]
fn a_graph_that_still_runs_is_told_as_far_as_it_is() {
    let text = otlp(&[fakes::about(), frame(|_| ())]);
    let requests = requests(&text);
    let (_, graph) = named(&requests[1], "SELECT 1");
    assert_eq!(graph["endTimeUnixNano"], "1004000000");
    assert_eq!(graph["status"], json!({}));
}

#[test]
fn a_recording_of_very_many_graphs_names_all_that_ran() {
    let submitted = frame(|frame| {
        let graph = frame.graphs.remove(0);
        frame.graphs = (0..=MOST_GRAPHS)
            .map(|number| Graph {
                id: format!("1.{number}"),
                ..graph.clone()
            })
            .collect();
        frame.spans.clear();
        frame.transfers.clear();
    });
    let ran = frame(|frame| {
        frame.whole = false;
        frame.graphs.clear();
        let span = frame.spans.remove(0);
        frame.spans = (0..=MOST_GRAPHS)
            .map(|number| Span {
                graph: format!("1.{number}"),
                task: format!("1.{number}.2"),
                ..span.clone()
            })
            .collect();
    });
    let text = otlp(&[fakes::about(), submitted, ran]);
    let names = requests(&text).iter().flat_map(spans).collect::<Vec<_>>();
    let tasks = names.iter().filter(|(_, span)| span["name"] == "scan");
    assert_eq!(tasks.count(), MOST_GRAPHS + 1);
}

#[test]
fn no_request_has_more_than_a_collector_takes() {
    let mut spans = OtlpSpans::default();
    spans.take(&fakes::about());
    let all = MOST_PER_REQUEST * 2 + 1;
    spans.take(&frame(|frame| {
        frame.transfers.clear();
        let one = frame.spans[0].clone();
        frame.spans = (0..all)
            .map(|number| Span {
                task: format!("1.0.{number}"),
                worker: format!("w{}", number % 3),
                ..one.clone()
            })
            .collect();
    }));
    let mut had = 0;
    while let Some(request) = spans.request() {
        let some = self::spans(&request).len();
        assert!((1..=MOST_PER_REQUEST).contains(&some));
        had += some;
    }
    assert_eq!((had, spans.len()), (all, 0));
}

#[test]
fn graphs_that_ended_while_nobody_listened_are_told_when_all_is_told_anew() {
    let mut spans = OtlpSpans::default();
    spans.take(&fakes::about());
    spans.take(&frame(|_| ()));
    let first = spans.request().expect("tasks of it");
    spans.take(&frame(|frame| {
        frame.now_us = 20_000;
        frame.graphs[0].id = "1.1".to_owned();
        frame.spans.clear();
        frame.transfers.clear();
    }));
    let request = spans.request().expect("a span");
    let (_, graph) = named(&request, "SELECT 1");
    let trace = &named(&first, "scan").1["traceId"];
    assert_eq!(&graph["traceId"], trace);
    assert_eq!(graph["status"], json!({}));
    // When it was heard of last.
    assert_eq!(graph["endTimeUnixNano"], "1004000000");
    assert_eq!(spans.graphs.len(), 1);
}

#[test]
fn how_a_graph_ended_that_nobody_heard_of_is_not_made_up() {
    let text = otlp(&[fakes::about(), ended("ended", None)]);
    let (_, graph) = named(&requests(&text)[0], "SELECT 1");
    assert_eq!(graph["status"], json!({}));
}

#[test]
fn memory_is_bounded_however_long_somebody_looks() {
    let mut spans = OtlpSpans::default();
    spans.take(&fakes::about());
    for number in 0..2_000_u64 {
        spans.take(&frame(|frame| {
            frame.graphs[0].id = format!("1.{number}");
            frame.graphs[0].end_us = Some(number);
            frame.graphs[0].name = "long ".repeat(100);
            frame.spans[0].graph = format!("1.{number}");
            frame.spans[0].task = format!("1.{number}.0");
        }));
        let request = spans.request().expect("spans").to_string();
        assert!(request.len() < 10_000);
    }
    assert!(spans.graphs.len() <= MOST_ENDED && spans.waiting.len() <= PATIENCE as usize + 1);
    // Those of which the end was not heard.
    for number in 0..2_000_u64 {
        spans.take(&frame(|frame| {
            frame.graphs[0].id = format!("2.{number}");
            frame.spans.clear();
            frame.transfers.clear();
        }));
    }
    assert!(spans.graphs.len() <= MOST_ENDED + 1);
}
