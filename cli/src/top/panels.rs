//! The panels below the workers: what runs, what moves, and what takes too long. Knows nothing of how much room there is.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Stylize;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};
use transload_protocol::{GraphInfo, LayerProgress, words};

use super::state::State;
use super::text;
use crate::show;

/// Columns of a bar.
const BAR: usize = 20;
/// Longest name that is taken along; a line ends with it, and is cut where the room does.
const NAME: usize = 200;

/// Draws lines in a frame. The last one says what is left out, if it is.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, title: &str, mut lines: Vec<Line<'static>>) {
    let block = Block::bordered().title(title.to_owned());
    let room = usize::from(block.inner(area).height);
    if lines.len() > room && room > 0 {
        let left_out = lines.len() - room + 1;
        lines.truncate(room - 1);
        lines.push(Line::from(format!("… and {left_out} more lines")).dim());
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

pub(super) fn graphs_title(state: &State) -> String {
    let running = state.info().map_or(0, |info| info.graphs_running);
    format!(" {} running ", show::count(running.into(), "graph"))
}

/// A line for each graph, and below it one for each of its layers at work.
pub(super) fn graphs(state: &State) -> Vec<Line<'static>> {
    let graphs = state.info().into_iter().flat_map(|info| &info.graphs);
    graphs.flat_map(graph).collect()
}

fn graph(graph: &GraphInfo) -> Vec<Line<'static>> {
    let sum = |of: fn(&LayerProgress) -> u32| {
        let all = graph.layers.iter().map(|it| of(&it.progress));
        all.fold(0, u32::saturating_add)
    };
    let whole = LayerProgress {
        total: sum(|it| it.total),
        done: sum(|it| it.done),
        running: sum(|it| it.running),
    };
    let name = text::name(&graph.name, NAME);
    let mut lines = vec![progress(&graph.graph.to_string(), &whole, &name).bold()];
    for layer in &graph.layers {
        let LayerProgress {
            total,
            done,
            running,
        } = layer.progress;
        if done < total && running + done > 0 {
            let name = text::name(&layer.name, NAME);
            lines.push(progress("", &layer.progress, &name));
        }
    }
    lines
}

fn progress(id: &str, progress: &LayerProgress, name: &str) -> Line<'static> {
    let LayerProgress {
        total,
        done,
        running,
    } = *progress;
    let counts = format!("{done}/{total}");
    Line::from(vec![
        Span::from(format!("{id:<6} ")),
        Span::from(text::bar(done.into(), total.into(), BAR)).cyan(),
        Span::from(format!(" {counts:>11}, {running:>4} running  {name}")),
    ])
}

pub(super) fn flows_title(state: &State) -> String {
    let flows = state.flows();
    let sum = |bytes: Vec<u64>| bytes.into_iter().fold(0, u64::saturating_add);
    let rate = sum(flows.iter().map(|it| it.bytes_per_s).collect());
    let moved = sum(flows.iter().map(|it| it.bytes).collect());
    format!(
        " moved {}/s, {} so far ",
        show::bytes(rate),
        show::bytes(moved)
    )
}

/// What moves between each two workers, the fastest first.
pub(super) fn flows(state: &State) -> Vec<Line<'static>> {
    let flows = state.flows();
    let lines = flows.iter().map(|flow| {
        let rate = match flow.bytes_per_s {
            0 => "-".to_owned(),
            rate => format!("{}/s", show::bytes(rate)),
        };
        Line::from(format!(
            "{:>6} → {:<6} {rate:>10} {:>9}  {}",
            flow.from.to_string(),
            flow.to.to_string(),
            show::bytes(flow.bytes),
            text::name(flow.transport, NAME),
        ))
    });
    lines.collect()
}

/// Tasks that take much longer than others of their layers.
pub(super) fn stragglers(state: &State) -> Vec<Line<'static>> {
    let workers = state.info().into_iter().flat_map(|info| &info.workers);
    let slow =
        workers.flat_map(|worker| worker.stragglers.iter().map(move |it| (worker.worker, it)));
    let lines = slow.map(|(worker, straggler)| {
        let time = |ms: u64| words::duration(ms.saturating_mul(1_000));
        let (runs, usual) = (time(straggler.running_ms), time(straggler.typical_ms));
        Line::from(format!(
            "{} on {worker}: {runs}, others {usual}",
            straggler.task
        ))
        .yellow()
    });
    lines.collect()
}
