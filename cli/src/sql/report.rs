//! Records what the cluster shows while statements run, and makes a page of it that stands by itself. Knows no SQL.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use transload_dashboard::report;
use transload_dashboard::view::{Frame, Message, Sample};
use transload_protocol::ClientId;
use transload_runtime::Client;

use crate::failure::{Failure, io_failure};
use crate::output::Destination;
use crate::viewer::Viewer;

/// What has been done is shown within a second. No longer than this is waited for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is longer than this is recorded anew, from what the dashboard remembers, which has bounds: browsers do not open pages of any size.
const MOST_BYTES: usize = 128 << 20;

/// A recording under way.
pub(super) struct Recorder {
    target: Destination,
    stop: oneshot::Sender<()>,
    recording: JoinHandle<Recording>,
}

impl Recorder {
    /// Looks at the client's cluster from now on, for a report that goes to `target`.
    ///
    /// # Errors
    /// Its dashboard cannot be looked at.
    pub(super) async fn start(
        target: Destination,
        client: &Client,
        token: Option<String>,
    ) -> Result<Self, Failure> {
        let mut viewer = Viewer::open(client, token.as_deref()).await?;
        let mut recording = Recording::of(client.id());
        while !recording.has_begun() {
            let Some(text) = viewer.next().await? else {
                return Err(Failure::failed(
                    "the dashboard ended before anything was recorded",
                ));
            };
            recording.take(&text)?;
        }
        recording.forget_what_was_before();
        let (stop, stopped) = oneshot::channel();
        let client = client.clone();
        let recording = tokio::spawn(async move {
            recording.follow(viewer, &client, token, stopped).await;
            recording
        });
        Ok(Self {
            target,
            stop,
            recording,
        })
    }

    /// Waits until what has been done is shown, and writes the report.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) async fn finish(self, path: &Path, quiet: bool) -> Result<(), Failure> {
        let Self {
            mut target,
            stop,
            recording,
        } = self;
        // It may have ended, as the cluster has.
        let _ = stop.send(());
        let recording = recording.await.map_err(|error| {
            Failure::failed(format!("the recording for the report broke off: {error}"))
        })?;
        tokio::task::block_in_place(|| {
            let page = report(&recording.messages);
            let written = target.write_all(page.as_bytes());
            written.map_err(|error| io_failure("cannot write the report", &error))?;
            target.commit()
        })?;
        if !quiet {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(io::stderr(), "report in {}", path.display());
        }
        Ok(())
    }
}

/// What has been shown.
struct Recording {
    messages: Vec<Message>,
    bytes: usize,
    /// What the ids of our graphs begin with.
    ours: String,
    /// Graphs of ours that were not seen to end.
    running: BTreeSet<String>,
    /// Workers have tasks of ours, as of their last reports.
    is_busy: bool,
    /// Frames since the last statement ended, and among them those that tell of workers.
    frames_after: u32,
    looks_after: u32,
}

impl Recording {
    fn of(client: ClientId) -> Self {
        Self {
            messages: Vec::new(),
            bytes: 0,
            ours: format!("{}.", client.0),
            running: BTreeSet::new(),
            is_busy: false,
            frames_after: 0,
            looks_after: 0,
        }
    }

    async fn follow(
        &mut self,
        mut viewer: Viewer,
        client: &Client,
        token: Option<String>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let mut deadline = None::<Instant>;
        loop {
            let end = deadline.unwrap_or_else(Instant::now);
            tokio::select! {
                said = viewer.next() => {
                    // What is there is shown, however the cluster has ended.
                    let Ok(Some(text)) = said else { return };
                    if let Err(error) = self.take(&text) {
                        tracing::warn!("left out of the report: {}", error.message);
                    }
                }
                _ = &mut stopped, if deadline.is_none() => {
                    deadline = Some(Instant::now() + PATIENCE);
                    (self.frames_after, self.looks_after) = (0, 0);
                }
                () = sleep_until(end), if deadline.is_some() => return,
            }
            if deadline.is_some() && self.has_all() {
                return;
            }
            if self.bytes > MOST_BYTES {
                match Viewer::open(client, token.as_deref()).await {
                    Ok(anew) => viewer = anew,
                    Err(_) => return,
                }
                self.messages.clear();
                self.bytes = 0;
            }
        }
    }

    fn take(&mut self, text: &str) -> Result<(), Failure> {
        let mut message = serde_json::from_str(text).map_err(|error| {
            Failure::failed(format!(
                "the dashboard says what nobody understands: {error}"
            ))
        })?;
        if let Message::Frame(frame) = &mut message {
            self.see(frame);
            sample(frame);
        }
        self.bytes += text.len();
        self.messages.push(message);
        Ok(())
    }

    fn see(&mut self, frame: &Frame) {
        self.frames_after += 1;
        if let Some(workers) = &frame.workers {
            self.looks_after += 1;
            let mut running = workers.iter().flat_map(|it| &it.running);
            self.is_busy = running.any(|it| it.task.starts_with(&self.ours));
        }
        for graph in frame
            .graphs
            .iter()
            .filter(|it| it.id.starts_with(&self.ours))
        {
            if graph.state == "running" {
                self.running.insert(graph.id.clone());
            } else {
                self.running.remove(&graph.id);
            }
        }
    }

    fn has_begun(&self) -> bool {
        self.messages
            .iter()
            .any(|it| matches!(it, Message::Frame(_)))
    }

    /// A report is of one run, not of what the cluster did before.
    fn forget_what_was_before(&mut self) {
        for message in &mut self.messages {
            if let Message::Frame(frame) = message {
                frame.assignments.clear();
                frame.spans.clear();
                frame.transfers.clear();
                frame.moves.clear();
                frame.notes.clear();
                frame.memory.clear();
                sample(frame);
                frame.graphs.retain(|it| it.state == "running");
                if let Some(workers) = &mut frame.workers {
                    workers.retain(|it| it.lost.is_none());
                }
            }
        }
    }

    /// Events come in order, ahead of the frame that is made next; what a frame says that was under way may be older.
    fn has_all(&self) -> bool {
        self.frames_after >= 2 && self.looks_after >= 1 && self.running.is_empty() && !self.is_busy
    }
}

/// Memory is told once a second, and workers twice: of a short run, that is more.
fn sample(frame: &mut Frame) {
    if !frame.memory.is_empty() {
        return;
    }
    let here = frame
        .workers
        .iter()
        .flatten()
        .filter(|it| it.lost.is_none());
    let samples = here.map(|worker| Sample {
        at_us: frame.now_us,
        worker: worker.id.clone(),
        used_bytes: ["host", "disk", "device", "pinned"].map(|tier| {
            let usage = worker.tiers.iter().find(|it| it.tier == tier);
            usage.map_or(0, |it| it.used_bytes)
        }),
        resident_bytes: worker.resident_bytes,
    });
    frame.memory = samples.collect();
}

#[cfg(test)]
mod tests {
    use transload_dashboard::view::{Graph, Note, NoteKind, Running, Usage, Worker};

    use super::*;

    fn graph(id: &str, state: &str) -> Graph {
        Graph {
            id: id.to_owned(),
            name: "SELECT 1".to_owned(),
            client: "a test".to_owned(),
            state: state.to_owned(),
            reason: None,
            start_us: 0,
            end_us: None,
            layers: Vec::new(),
        }
    }

    fn told(recording: &mut Recording, frame: Frame) {
        let message = Message::Frame(Box::new(frame));
        let text = serde_json::to_string(&message).expect("JSON");
        recording.take(&text).expect("a message");
    }

    #[test]
    fn all_is_shown_when_our_graphs_have_ended_and_the_workers_were_looked_at_again() {
        let mut recording = Recording::of(ClientId(1));
        let with = |graphs, workers| Frame {
            graphs,
            workers,
            ..Frame::default()
        };
        told(
            &mut recording,
            with(
                vec![graph("1.0", "running"), graph("11.0", "running")],
                None,
            ),
        );
        told(&mut recording, with(Vec::new(), Some(Vec::new())));
        assert!(!recording.has_all());
        told(&mut recording, with(vec![graph("1.0", "failed")], None));
        assert!(recording.has_all(), "that of somebody else may go on");
        (recording.frames_after, recording.looks_after) = (0, 0);
        told(&mut recording, Frame::default());
        told(&mut recording, Frame::default());
        assert!(!recording.has_all());
        told(&mut recording, with(Vec::new(), Some(Vec::new())));
        assert!(recording.has_all());
    }

    #[test]
    fn a_worker_that_still_has_one_of_our_tasks_is_waited_for() {
        let mut recording = Recording::of(ClientId(1));
        let running = |task: &str| {
            let running = vec![Running {
                task: task.to_owned(),
                layer: None,
                running_ms: 1,
            }];
            Frame {
                workers: Some(vec![Worker {
                    running,
                    ..Worker::default()
                }]),
                ..Frame::default()
            }
        };
        told(&mut recording, Frame::default());
        told(&mut recording, running("1.0.17"));
        assert!(!recording.has_all());
        told(&mut recording, running("11.0.17"));
        assert!(recording.has_all());
    }

    #[test]
    fn memory_is_told_as_often_as_workers_are() {
        let mut recording = Recording::of(ClientId(1));
        let usage = |tier: &str, used_bytes| Usage {
            tier: tier.to_owned(),
            used_bytes,
            limit_bytes: None,
        };
        let worker = Worker {
            id: "w1".to_owned(),
            tiers: vec![usage("device", 3), usage("host", 1)],
            resident_bytes: 9,
            ..Worker::default()
        };
        let frame = Frame {
            now_us: 7,
            workers: Some(vec![worker]),
            ..Frame::default()
        };
        told(&mut recording, frame);
        let Some(Message::Frame(frame)) = recording.messages.first() else {
            panic!("a frame");
        };
        let [sample] = frame.memory.as_slice() else {
            panic!("one sample");
        };
        assert_eq!((sample.at_us, sample.used_bytes), (7, [1, 0, 3, 0]));
    }

    #[test]
    fn what_was_before_is_no_part_of_a_report_but_what_runs_is() {
        let mut recording = Recording::of(ClientId(7));
        let worker = |lost: Option<&str>| Worker {
            lost: lost.map(str::to_owned),
            ..Worker::default()
        };
        let note = Note {
            at_us: 1,
            kind: NoteKind::GraphEnded,
            text: "1.0 has ended".to_owned(),
            worker: None,
            graph: None,
            task: None,
        };
        let before = Frame {
            graphs: vec![graph("1.0", "finished"), graph("2.0", "running")],
            workers: Some(vec![worker(None), worker(Some("killed"))]),
            notes: vec![note],
            ..Frame::default()
        };
        told(&mut recording, before);
        recording.forget_what_was_before();
        let [Message::Frame(left)] = recording.messages.as_slice() else {
            panic!("one frame");
        };
        let ids: Vec<_> = left.graphs.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(ids, ["2.0"]);
        assert_eq!(left.workers.as_ref().map(Vec::len), Some(1));
        assert!(left.notes.is_empty());
    }

    #[test]
    fn what_nobody_understands_is_an_error() {
        assert!(Recording::of(ClientId(1)).take("{}").is_err());
    }
}
