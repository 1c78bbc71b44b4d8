//! Progress on a terminal: one line for the whole and one per stage at work. Draws nothing where standard error is no
//! terminal. Knows layers and counts, not what they compute.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use transload_protocol::LayerProgress;

/// Most stages shown at once; further ones only count in the first line.
const STAGES_SHOWN: usize = 6;
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Whether progress is drawn at all.
pub(crate) fn is_shown(quiet: bool) -> bool {
    !quiet && io::stderr().is_terminal()
}

/// The progress of one query on the terminal, until it is dropped.
pub(crate) struct QueryProgress {
    bars: MultiProgress,
    follower: Option<JoinHandle<()>>,
}

impl QueryProgress {
    /// Shows what `layers` says. `names` has a name per layer, number first; missing ones get a number.
    pub(crate) fn follow(
        names: Vec<String>,
        layers: Option<watch::Receiver<Vec<LayerProgress>>>,
        shown: bool,
    ) -> Self {
        let bars = MultiProgress::with_draw_target(if shown {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        });
        let follower = layers
            .filter(|_| shown)
            .map(|layers| tokio::spawn(draw(bars.clone(), names, layers)));
        Self { bars, follower }
    }

    /// Runs `print` while nothing is drawn, so that what it prints stays whole.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bars.suspend(print)
    }
}

impl Drop for QueryProgress {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
        // Nobody is left to tell when the terminal is gone.
        let _ = self.bars.clear();
    }
}

async fn draw(
    bars: MultiProgress,
    names: Vec<String>,
    mut layers: watch::Receiver<Vec<LayerProgress>>,
) {
    let total = bars.add(ProgressBar::new(0).with_style(style(
        "{spinner} {elapsed:>4} [{bar:30}] {pos}/{len} tasks{msg}",
    )));
    total.enable_steady_tick(REDRAW_INTERVAL);
    let mut stages: Vec<Option<ProgressBar>> = Vec::new();
    loop {
        let now = layers.borrow_and_update().clone();
        let sum = |count: fn(&LayerProgress) -> u32| -> u64 {
            now.iter().map(|layer| u64::from(count(layer))).sum()
        };
        let finished = now.iter().filter(|layer| layer.done == layer.total).count();
        total.set_length(sum(|layer| layer.total));
        total.set_position(sum(|layer| layer.done));
        total.set_message(format!(
            ", {finished}/{} stages, {} running",
            now.len(),
            sum(|layer| layer.running)
        ));
        stages.resize(now.len(), None);
        let mut shown = stages.iter().flatten().count();
        for (index, (layer, bar)) in now.iter().zip(&mut stages).enumerate() {
            let at_work = layer.done < layer.total && layer.running + layer.done > 0;
            if at_work && bar.is_none() && shown < STAGES_SHOWN {
                let number = format!("{}.", index + 1);
                let name = names.get(index).cloned().unwrap_or(number);
                let line = style("         [{bar:30}] {pos}/{len} {prefix}{msg}");
                *bar = Some(
                    bars.add(
                        ProgressBar::new(layer.total.into())
                            .with_style(line)
                            .with_prefix(name),
                    ),
                );
                shown += 1;
            }
            match bar {
                Some(_) if !at_work => {
                    if let Some(bar) = bar.take() {
                        bar.finish_and_clear();
                        bars.remove(&bar);
                    }
                    shown -= 1;
                }
                Some(bar) => {
                    bar.set_position(layer.done.into());
                    bar.set_message(format!(", {} running", layer.running));
                }
                None => {}
            }
        }
        if layers.changed().await.is_err() {
            return;
        }
    }
}

/// A bar for work that is counted in chunks.
pub(crate) fn counting_bar(what: &'static str, shown: bool) -> ProgressBar {
    let target = if shown {
        ProgressDrawTarget::stderr_with_hz(10)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(style("{prefix} {elapsed:>4} [{bar:30}] {percent}%"));
    bar.set_prefix(what);
    bar
}

/// A line for work of which nobody knows how much there is.
pub(crate) fn waiting_line(shown: bool) -> ProgressBar {
    let target = if shown {
        ProgressDrawTarget::stderr_with_hz(10)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(style("{spinner} {msg}"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound() {
        for template in [
            "{spinner} {elapsed:>4} [{bar:30}] {pos}/{len} tasks{msg}",
            "         [{bar:30}] {pos}/{len} {prefix}{msg}",
            "{prefix} {elapsed:>4} [{bar:30}] {percent}%",
            "{spinner} {msg}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
