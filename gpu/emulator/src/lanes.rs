//! The streams of one context, and who waits for whom among them.
//!
//! Used by `context` and by whoever gives work to a stream. Rules: CUDA Driver API, 5 Stream synchronization behavior: blocking
//! streams wait for the legacy default stream, and it for them (docs/gpu-facts.md, Streams).

use std::sync::{Arc, Mutex};

use crate::call::lock;
use crate::device::Device;
use crate::stream::{Job, Stream, Work};

/// All streams of one context.
#[derive(Debug)]
pub(crate) struct Lanes {
    device: Arc<Device>,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    legacy: Option<Arc<Stream>>,
    /// All others, the per-thread ones too, until their work is done.
    others: Vec<Arc<Stream>>,
}

impl Lanes {
    pub(crate) fn new(device: Arc<Device>) -> Self {
        Self {
            device,
            streams: Mutex::default(),
        }
    }

    /// The legacy default stream.
    pub(crate) fn legacy(&self) -> Arc<Stream> {
        let mut streams = lock(&self.streams);
        Arc::clone(
            streams
                .legacy
                .get_or_insert_with(|| Stream::new(Arc::clone(&self.device), 0, 0, 0)),
        )
    }

    /// A stream of a program joins.
    pub(crate) fn add(&self, stream: &Arc<Stream>) {
        lock(&self.streams).others.push(Arc::clone(stream));
    }

    /// Gives `work` to a stream, behind what the rules of default streams put before it. Returns its ticket.
    pub(crate) fn submit(&self, stream: &Arc<Stream>, work: Work) -> u64 {
        let mut streams = lock(&self.streams);
        streams
            .others
            .retain(|other| !other.is_closed() || !other.is_done(other.submitted()));
        let after = streams.before(stream);
        stream.push(Job { after, work });
        stream.submitted()
    }

    /// Waits for the work that a stream has now, and for what it waits for.
    pub(crate) fn drain_stream(&self, stream: &Arc<Stream>) {
        let before = lock(&self.streams).before(stream);
        stream.wait(stream.submitted());
        if lock(&self.streams).is_legacy(stream) {
            before
                .iter()
                .for_each(|(other, ticket)| other.wait(*ticket));
        }
    }

    /// Whether a stream has nothing to do. The legacy stream is busy while a blocking one is.
    pub(crate) fn is_idle(&self, stream: &Arc<Stream>) -> bool {
        let streams = lock(&self.streams);
        let others_too = !streams.is_legacy(stream) || streams.before(stream).is_empty();
        others_too && stream.is_done(stream.submitted())
    }

    /// Waits for all streams.
    pub(crate) fn drain(&self) {
        let all: Vec<_> = {
            let streams = lock(&self.streams);
            streams
                .legacy
                .iter()
                .chain(&streams.others)
                .map(|stream| (Arc::clone(stream), stream.submitted()))
                .collect()
        };
        all.iter().for_each(|(stream, ticket)| stream.wait(*ticket));
    }

    /// A stream takes no more work; what it has is still done.
    pub(crate) fn close(&self, stream: &Stream) {
        stream.close();
    }

    /// Forgets all streams, when their context ends.
    pub(crate) fn clear(&self) {
        let mut streams = lock(&self.streams);
        streams
            .legacy
            .take()
            .iter()
            .for_each(|stream| stream.close());
        streams.others.drain(..).for_each(|stream| stream.close());
    }
}

impl Streams {
    fn is_legacy(&self, stream: &Arc<Stream>) -> bool {
        self.legacy
            .as_ref()
            .is_some_and(|legacy| Arc::ptr_eq(legacy, stream))
    }

    /// The unfinished work that the next work of `stream` must wait for: a blocking stream waits for the legacy one, and that for
    /// all blocking ones.
    fn before(&self, stream: &Arc<Stream>) -> Vec<(Arc<Stream>, u64)> {
        let unfinished = |other: &Arc<Stream>| {
            let ticket = other.submitted();
            (!other.is_done(ticket)).then(|| (Arc::clone(other), ticket))
        };
        if self.is_legacy(stream) {
            self.others
                .iter()
                .filter(|other| other.is_blocking())
                .filter_map(unfinished)
                .collect()
        } else if stream.is_blocking() {
            self.legacy.iter().filter_map(unfinished).collect()
        } else {
            Vec::new()
        }
    }
}
