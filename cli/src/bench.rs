//! `transload bench`: measures, and shows what was measured as a table or as JSON. How it is measured is the runtime's business.

use std::io::{self, Write};
use std::time::Duration;

use transload_runtime::bench::{BenchError, Measured, Program, SchedulerBench, run_part};

use crate::args::{BenchCommand, SchedulerBenchArgs};
use crate::cluster::with_hint;
use crate::failure::{Exit, Failure, io_failure};
use crate::progress;
use crate::show;
use crate::signals::Signals;

/// Runs `transload bench …`.
pub(crate) async fn run(command: BenchCommand, signals: &Signals) -> Result<(), Failure> {
    tokio::select! {
        done = async {
            match command {
                BenchCommand::Scheduler(args) => scheduler(&args).await,
                BenchCommand::Part { part } => {
                    run_part(&part).await.map_err(|error| bench_failure(&error))
                }
            }
        } => done,
        _ = signals.stop() => Err(Failure::interrupted()),
    }
}

async fn scheduler(args: &SchedulerBenchArgs) -> Result<(), Failure> {
    let program = Program {
        program: std::env::current_exe().map_err(|error| {
            Failure::failed(format!("cannot find this program to start again: {error}"))
        })?,
        arguments: vec!["bench".to_owned(), "part".to_owned()],
    };
    let shapes = args.shapes();
    let bar = progress::counting_bar("measuring", progress::is_shown(false));
    bar.set_length(shapes.len() as u64 * u64::from(args.runs));
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    for graph in shapes {
        let bench = SchedulerBench {
            graph,
            tasks: args.tasks,
            workers: args.workers,
            slots: args.slots,
            seed: args.seed,
            mode: args.mode.into(),
        };
        let mut runs = Vec::new();
        for _ in 0..args.runs {
            let run = bench.measure(&program).await;
            runs.push(run.map_err(|error| bench_failure(&error))?);
            bar.inc(1);
        }
        let Some(measured) = Measured::median(&runs) else {
            continue;
        };
        if args.json {
            // As soon as it is known: the next graph may take long.
            bar.suspend(|| print(&as_json(&measured)))?;
        } else {
            rows.push(as_row(&measured));
        }
    }
    bar.finish_and_clear();
    if args.json {
        return Ok(());
    }
    print(&format!("{}{}", show::columns(&rows), notes(args)))
}

const HEAD: [&str; 9] = [
    "graph",
    "tasks",
    "edges",
    "workers",
    "wall",
    "us/task",
    "CPU us/task",
    "bytes/task",
    "messages/task",
];

fn as_row(measured: &Measured) -> Vec<String> {
    let bench = &measured.bench;
    let tasks = f64::from(bench.tasks.max(1));
    vec![
        bench.graph.name().to_owned(),
        show::grouped(bench.tasks.into()),
        show::grouped(measured.edges),
        format!("{} x {}", show::grouped(bench.workers.into()), bench.slots),
        show::time(Duration::try_from_secs_f64(measured.wall_s).unwrap_or_default()),
        format!("{:.3}", measured.wall_s * 1e6 / tasks),
        format!("{:.3}", measured.scheduler_cpu_us_per_task),
        format!("{:.0}", measured.bytes_per_task),
        format!("{:.2}", measured.messages as f64 / tasks),
    ]
}

fn as_json(measured: &Measured) -> String {
    // Numbers and names only, which JSON can always say.
    let text = serde_json::to_string(measured).unwrap_or_default();
    format!("{text}\n")
}

fn notes(args: &SchedulerBenchArgs) -> String {
    let of = match args.runs {
        1 => "one run".to_owned(),
        runs => format!("medians of {runs} runs"),
    };
    let mode = transload_runtime::bench::Mode::from(args.mode).name();
    let debug = if cfg!(debug_assertions) {
        "; this is a debug build, whose numbers mean nothing"
    } else {
        ""
    };
    format!("mode {mode}, workers x slots, {of}{debug}\n")
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| io_failure("cannot write to standard output", &error))
}

fn bench_failure(error: &BenchError) -> Failure {
    with_hint(Exit::Failed, error)
}
