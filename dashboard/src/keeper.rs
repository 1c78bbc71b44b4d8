//! Keeps the history up to date and tells viewers what is new, about ten times a second. Called by the server; knows no sockets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::ws::Utf8Bytes;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::feed::{Batch, Shared, Watch};
use crate::history::History;
use crate::source::Source;
use crate::view::{Frame, Message};

/// Between two frames.
const FRAME: Duration = Duration::from_millis(100);
/// Between two looks at the cluster while somebody watches, and while nobody does.
const LOOK: Duration = Duration::from_millis(500);
const GLANCE: Duration = Duration::from_secs(1);
/// A viewer that is so many frames behind is sent everything anew.
const FRAMES: usize = 64;

/// The history and who hears of it.
pub(crate) struct Keeper {
    history: Mutex<History>,
    clock: Mutex<Clock>,
    pub(crate) feed: Arc<Shared>,
    pub(crate) source: Arc<dyn Source>,
    news: broadcast::Sender<Utf8Bytes>,
    /// The cluster was looked at since the last frame.
    seen: AtomicBool,
}

/// The scheduler's clock, as far as it is known here.
struct Clock {
    start: Instant,
    /// What to add to the time since then.
    base_us: u64,
}

/// A viewer: what it is told first, and then.
pub(crate) struct Viewer {
    /// All that is remembered.
    pub(crate) whole: Box<Frame>,
    /// What is new.
    pub(crate) news: broadcast::Receiver<Utf8Bytes>,
    /// As long as it is there.
    pub(crate) watch: Watch,
}

impl Keeper {
    pub(crate) fn new(feed: Arc<Shared>, source: Arc<dyn Source>) -> Self {
        Self {
            history: Mutex::default(),
            clock: Mutex::new(Clock {
                start: Instant::now(),
                base_us: 0,
            }),
            feed,
            source,
            news: broadcast::Sender::new(FRAMES),
            seen: AtomicBool::new(false),
        }
    }

    /// Until it is stopped or the feed has ended.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut batches: mpsc::Receiver<Batch>,
        stop: CancellationToken,
    ) {
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let looking = Arc::clone(&self);
        let looks = async move { looking.look_now_and_then().await };
        tokio::pin!(looks);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                batch = batches.recv() => match batch {
                    None => return,
                    Some(batch) => {
                        self.clock().hear(batch.now.micros);
                        self.history().take(batch);
                    }
                },
                _ = frames.tick() => self.tell(),
                () = &mut looks => return,
            }
        }
    }

    async fn look_now_and_then(&self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None::<Instant>;
        loop {
            looks.tick().await;
            let is_due = self.feed.is_watched() || last.is_none_or(|last| last.elapsed() >= GLANCE);
            if !is_due {
                continue;
            }
            last = Some(Instant::now());
            if self.look().await.is_err() {
                return;
            }
        }
    }

    /// Looks at the cluster.
    pub(crate) async fn look(&self) -> Result<(), crate::Gone> {
        let (now, info) = self.source.look().await?;
        self.clock().hear(now.micros);
        let dropped = self.feed.dropped_events();
        self.history().see(&info, now.micros, dropped);
        self.seen.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Tells viewers what is new.
    fn tell(&self) {
        let mut history = self.history();
        self.tell_with(&mut history);
    }

    fn tell_with(&self, history: &mut History) {
        let with_workers = self.seen.swap(false, Ordering::Relaxed);
        let frame = history.news(self.now_us(), with_workers);
        if self.news.receiver_count() > 0 {
            // Nobody may be there any more.
            let _ = self.news.send(text(&Message::Frame(Box::new(frame))));
        }
    }

    /// Somebody looks from now on.
    pub(crate) fn view(&self) -> Viewer {
        let watch = self.feed.watch();
        let mut history = self.history();
        // What is new is news for the others, and then part of the whole.
        self.tell_with(&mut history);
        Viewer {
            whole: Box::new(history.whole(self.now_us())),
            news: self.news.subscribe(),
            watch,
        }
    }

    /// All that is remembered.
    pub(crate) fn whole(&self) -> Frame {
        let mut history = self.history();
        self.tell_with(&mut history);
        history.whole(self.now_us())
    }

    /// The scheduler's clock.
    pub(crate) fn now_us(&self) -> u64 {
        self.clock().now_us()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// It was so late when this was told.
    fn hear(&mut self, theirs_us: u64) {
        let base_us = theirs_us.saturating_sub(self.elapsed_us());
        self.base_us = self.base_us.max(base_us);
    }

    fn now_us(&self) -> u64 {
        self.elapsed_us().saturating_add(self.base_us)
    }
}

/// As it is sent.
pub(crate) fn text(message: &Message) -> Utf8Bytes {
    // Our own types have no maps with other keys than texts, and nothing else can fail.
    serde_json::to_string(message).unwrap_or_default().into()
}
