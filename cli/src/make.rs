//! `transload data`: makes data files, shows how far it is, and says what there is now.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::args::TpchArgs;
use crate::data::{MadeTable, MakeProgress, Table, TpchRequest, make_tpch};
use crate::failure::{Failure, io_failure};
use crate::progress;
use crate::show;
use crate::signals::Signals;

const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Runs `transload data tpch`.
pub(crate) async fn tpch(args: TpchArgs, signals: &Signals) -> Result<(), Failure> {
    let started = Instant::now();
    let request = TpchRequest {
        scale: args.scale,
        out: args.out.clone(),
        format: args.format,
        parts: args.parts,
        row_group_rows: args.row_group_rows,
        tables: if args.tables.is_empty() {
            Table::ALL.to_vec()
        } else {
            args.tables.clone()
        },
        force: args.force,
    };
    let made = with_progress(request, progress::is_shown(args.quiet), signals).await?;
    if args.quiet {
        return Ok(());
    }
    let mut rows = vec![
        ["table", "rows", "size", "path"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(made.iter().map(|table| {
        vec![
            table.table.name().to_owned(),
            show::grouped(table.rows),
            show::bytes(table.bytes),
            table.path.display().to_string(),
        ]
    }));
    let text = format!(
        "{}made in {}; try: transload sql --tables {}\n",
        show::columns(&rows),
        show::time(started.elapsed()),
        args.out.display()
    );
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| io_failure("cannot write to standard output", &error))
}

/// Makes the files on threads of their own and shows how far they are. A signal stops them; unfinished files are removed.
pub(crate) async fn with_progress(
    mut request: TpchRequest,
    shown: bool,
    signals: &Signals,
) -> Result<Vec<MadeTable>, Failure> {
    let mut seen = Vec::new();
    request.tables.retain(|table| {
        let fresh = !seen.contains(table);
        seen.push(*table);
        fresh
    });
    let bar = progress::counting_bar("making data", shown);
    let state = Arc::new(MakeProgress::default());
    let making = {
        let state = state.clone();
        tokio::task::spawn_blocking(move || make_tpch(&request, &state))
    };
    tokio::pin!(making);
    let mut tick = tokio::time::interval(REDRAW_INTERVAL);
    let ended = loop {
        tokio::select! {
            ended = &mut making => break ended,
            _ = tick.tick() => {
                bar.set_length(state.chunks.load(Ordering::Relaxed));
                bar.set_position(state.done.load(Ordering::Relaxed));
            }
            _ = signals.stop(), if !state.stop.load(Ordering::Relaxed) => {
                state.stop.store(true, Ordering::Relaxed);
            }
        }
    };
    bar.finish_and_clear();
    ended.unwrap_or_else(|error| Err(Failure::failed(format!("making data broke off: {error}"))))
}
