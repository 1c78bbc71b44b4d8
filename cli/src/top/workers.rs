//! The table of workers: as many columns as there is room for, the most telling first. Knows nothing of what else is drawn.

use std::collections::BTreeSet;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table};
use transload_protocol::{Tier, TierUsage, WorkerInfo};

use super::state::{Sort, State};
use super::text;
use crate::show;

/// Columns of a bar.
const BAR: usize = 8;
/// Columns of the numbers behind it, as in `1023 MiB/1023 GiB`.
const NUMBERS: usize = 17;
/// From here on a tier is nearly full, and from here on it spills, or will soon.
const HIGH_PERCENT: u64 = 70;
const FULL_PERCENT: u64 = 90;

/// A column.
struct Column {
    head: String,
    width: usize,
    /// Those with the highest go first where there is no room.
    rank: u8,
    right: bool,
    cell: Box<dyn Fn(&WorkerInfo) -> Line<'static>>,
}

pub(super) fn draw(state: &mut State, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::bordered();
    let inner = block.inner(area);
    // One line is the head.
    state.page = usize::from(inner.height.saturating_sub(1)).max(1);
    state.scroll = state.scroll.min(state.most_scrolled());
    let workers = state.workers();
    let last = (state.scroll + state.page).min(workers.len());
    let title = match workers.len() {
        0 => " workers ".to_owned(),
        all if all <= state.page => format!(" workers by {} ", state.sort.words()),
        all => format!(
            " workers {}-{last} of {all} by {} ",
            state.scroll + 1,
            state.sort.words()
        ),
    };
    let block = block.title(title);
    if workers.is_empty() {
        let text = match state.info() {
            Some(_) => format!(
                "none yet; start one: transload worker {}",
                show::plain(state.cluster())
            ),
            None => String::new(),
        };
        frame.render_widget(Paragraph::new(text).block(block), area);
        return;
    }
    let columns = fitting(columns(&workers, state.sort), usize::from(inner.width));
    let shown = workers.get(state.scroll..last).unwrap_or_default();
    let rows = shown.iter().map(|worker| {
        let cells = columns.iter().map(|column| {
            let line = (column.cell)(worker);
            if column.right {
                line.alignment(Alignment::Right)
            } else {
                line
            }
        });
        Row::new(cells.collect::<Vec<_>>())
    });
    let head = columns.iter().map(|column| {
        let line = Line::from(column.head.clone());
        if column.right {
            line.alignment(Alignment::Right)
        } else {
            line
        }
    });
    let widths = columns.iter().map(|it| Constraint::Length(it.width as u16));
    let table = Table::new(rows.collect::<Vec<_>>(), widths.collect::<Vec<_>>())
        .header(Row::new(head.collect::<Vec<_>>()).bold())
        .column_spacing(1)
        .block(block);
    frame.render_widget(table, area);
}

/// As many of the columns as there is room for, in their order.
fn fitting(mut columns: Vec<Column>, room: usize) -> Vec<Column> {
    loop {
        let needed: usize = columns.iter().map(|it| it.width + 1).sum();
        let least = columns.iter().map(|it| it.rank).max();
        if needed <= room + 1 || columns.len() == 1 {
            return columns;
        }
        columns.retain(|it| Some(it.rank) != least);
    }
}

fn columns(workers: &[&WorkerInfo], sort: Sort) -> Vec<Column> {
    let longest = |of: &dyn Fn(&WorkerInfo) -> String, head: &str, most: usize| {
        let longest = workers.iter().map(|it| Line::from(of(it)).width()).max();
        longest.unwrap_or(0).clamp(head.len(), most)
    };
    let column = |head: &str, width, rank, cell: fn(&WorkerInfo) -> String| Column {
        head: head.to_owned(),
        width,
        rank,
        right: false,
        cell: Box::new(move |worker| Line::from(text::name(&cell(worker), width))),
    };
    let number = |head, width, rank, cell| Column {
        right: true,
        ..column(head, width, rank, cell)
    };
    let name = |it: &WorkerInfo| show::plain(&it.hello.name);
    let host = |it: &WorkerInfo| show::plain(&it.hello.host);
    let mut columns = vec![
        column(
            "id",
            longest(&|it| it.worker.to_string(), "id", 8),
            0,
            |it| it.worker.to_string(),
        ),
        column("name", longest(&name, "name", 20), 1, name),
        column("machine", longest(&host, "machine", 20), 6, host),
        number("slots", longest(&slots, "slots", 9), 0, slots),
        number("queued", 6, 3, |it| show::grouped(it.load.queued.into())),
        number("finished", 9, 4, |it| show::grouped(it.finished)),
    ];
    let used: BTreeSet<Tier> = workers
        .iter()
        .flat_map(|it| &it.load.tiers)
        .map(|it| it.tier)
        .collect();
    let tiers = [
        (Tier::Host, 2),
        (Tier::Device, 5),
        (Tier::Disk, 7),
        (Tier::PinnedHost, 9),
    ];
    columns.extend(
        tiers
            .into_iter()
            .filter(|(tier, _)| used.contains(tier))
            .map(|(tier, rank)| Column {
                head: match tier {
                    Tier::Disk => tier.to_string(),
                    Tier::Host | Tier::Device | Tier::PinnedHost => format!("{tier} memory"),
                },
                width: BAR + 1 + NUMBERS,
                rank: if sort == Sort::Memory {
                    rank.min(2)
                } else {
                    rank
                },
                right: false,
                cell: Box::new(move |worker| {
                    let usage = worker.load.tiers.iter().find(|it| it.tier == tier);
                    usage.map_or_else(Line::default, memory)
                }),
            }),
    );
    columns.push(number("process", 8, 6, |it| match it.load.resident_bytes {
        0 => String::new(),
        bytes => show::bytes(bytes),
    }));
    if workers.iter().any(|it| it.hello.gpu.is_some()) {
        columns.push(column("gpu", longest(&gpu, "gpu", 28), 8, gpu));
    }
    columns
}

fn slots(worker: &WorkerInfo) -> String {
    format!(
        "{}/{}",
        worker.load.running.len(),
        worker.hello.resources.slots
    )
}

fn gpu(worker: &WorkerInfo) -> String {
    let gpu = worker.hello.gpu.as_ref();
    gpu.map_or_else(String::new, |it| {
        format!("{} {}", it.ordinal, show::plain(&it.name))
    })
}

fn memory(usage: &TierUsage) -> Line<'static> {
    let used = show::bytes(usage.used_bytes);
    if usage.limit_bytes == u64::MAX {
        return Line::from(format!("{:BAR$} {used}", ""));
    }
    let percent = u128::from(usage.used_bytes) * 100 / u128::from(usage.limit_bytes.max(1));
    let style = match u64::try_from(percent).unwrap_or(u64::MAX) {
        FULL_PERCENT.. => Style::new().red(),
        HIGH_PERCENT.. => Style::new().yellow(),
        _ => Style::new().green(),
    };
    let bar = text::bar(usage.used_bytes, usage.limit_bytes, BAR);
    let limit = show::bytes(usage.limit_bytes);
    Line::from(vec![
        Span::styled(bar, style),
        Span::from(format!(" {used}/{limit}")),
    ])
}
