//! Draws the state: what goes where, the lines at the top and the bottom, and the help. Decides nothing of what is true.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Padding, Paragraph};
use transload_protocol::{ClusterInfo, words};

use super::state::State;
use super::{panels, text, workers};
use crate::show;

/// Lines of the head and the foot.
const HEAD: u16 = 2;
const FOOT: u16 = 1;
/// Fewer lines than this show no panel.
const LEAST_PANEL: u16 = 4;

const KEYS: [(&str, &str); 7] = [
    ("q  Esc  Ctrl-C", "leave"),
    ("s", "sort the workers by something else"),
    ("↑ ↓  PgUp PgDn  Home End", "scroll the workers"),
    ("p", "pause, and go on"),
    ("?", "show this, and hide it"),
    ("", ""),
    ("slots 3/8", "tasks that run, and how many can"),
];

impl State {
    /// Draws all of it, whatever room there is.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let [head, body, foot] = Layout::vertical([
            Constraint::Length(HEAD),
            Constraint::Fill(1),
            Constraint::Length(FOOT),
        ])
        .areas(area);
        frame.render_widget(head_lines(self, head.width), head);
        self.draw_body(frame, body);
        frame.render_widget(foot_line(self), foot);
        if self.is_helping {
            draw_help(frame, area);
        }
    }

    fn draw_body(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let graphs = panels::graphs(self);
        let flows = panels::flows(self);
        let slow = panels::stragglers(self);
        // Workers have what the others leave, and at least half.
        let most = area.height / 4;
        let below = panel_height(flows.len().max(slow.len()), most);
        let middle = panel_height(graphs.len(), (area.height / 2).saturating_sub(below));
        let [top, middle, below] = Layout::vertical([
            Constraint::Fill(1),
            Constraint::Length(middle),
            Constraint::Length(below),
        ])
        .areas(area);
        workers::draw(self, frame, top);
        panels::draw(frame, middle, &panels::graphs_title(self), graphs);
        let title = panels::flows_title(self);
        if slow.is_empty() {
            panels::draw(frame, below, &title, flows);
        } else {
            let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]);
            let [left, right] = halves.areas(below);
            panels::draw(frame, left, &title, flows);
            panels::draw(frame, right, " stragglers ", slow);
        }
    }
}

/// Lines of a panel with so much in it, its frame among them.
fn panel_height(lines: usize, most: u16) -> u16 {
    let wanted = u16::try_from(lines).unwrap_or(u16::MAX).saturating_add(2);
    match wanted.min(most.max(LEAST_PANEL)) {
        _ if lines == 0 || most == 0 => 0,
        height => height,
    }
}

fn head_lines(state: &State, width: u16) -> Paragraph<'static> {
    let name = text::name(state.cluster(), usize::from(width / 2));
    let mut first = vec![Span::from("transload top ").bold(), Span::from(name)];
    let warning = Style::new().reversed().add_modifier(Modifier::BOLD);
    if let Some(silence) = state.silence() {
        let silence = words::duration(u64::try_from(silence.as_micros()).unwrap_or(u64::MAX));
        first.push(Span::styled(format!("  no answer for {silence} "), warning));
    } else if state.is_paused() {
        first.push(Span::styled("  paused ", warning));
    }
    let second = state.info().map_or_else(
        || "waiting for the scheduler's answer".to_owned(),
        |info| sums(state, info),
    );
    Paragraph::new(vec![Line::from(first), Line::from(second)])
}

fn sums(state: &State, info: &ClusterInfo) -> String {
    let slots = info
        .workers
        .iter()
        .map(|it| u64::from(it.hello.resources.slots));
    let busy = info.workers.iter().map(|it| it.load.running.len() as u64);
    format!(
        "{}, {}/{} slots busy, {} ready, {}, {}",
        show::count(info.workers.len() as u64, "worker"),
        busy.sum::<u64>(),
        slots.sum::<u64>(),
        show::count(info.tasks_ready.into(), "task"),
        show::count(info.clients.into(), "client"),
        format_args!("{} tasks/s", show::grouped(state.tasks_per_s())),
    )
}

fn foot_line(state: &State) -> Paragraph<'static> {
    let key = |key: &'static str| Span::from(key).bold();
    let pause = if state.is_paused() {
        " go on  "
    } else {
        " pause  "
    };
    let line = Line::from(vec![
        key("q"),
        Span::from(" leave  "),
        key("s"),
        Span::from(format!(" sort ({})  ", state.sort.words())),
        key("↑↓"),
        Span::from(" scroll  "),
        key("p"),
        Span::from(pause),
        key("?"),
        Span::from(" help"),
    ]);
    Paragraph::new(line)
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines = KEYS.map(|(key, what)| {
        Line::from(vec![
            Span::from(format!("{key:<26}")).bold(),
            Span::from(what),
        ])
    });
    let [area] = Layout::horizontal([Constraint::Max(66)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    let [area] = Layout::vertical([Constraint::Max(lines.len() as u16 + 2)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    let block = Block::bordered()
        .title(" keys ")
        .title_alignment(Alignment::Center)
        .padding(Padding::horizontal(1));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines.to_vec()).block(block), area);
}

#[cfg(test)]
mod tests;
