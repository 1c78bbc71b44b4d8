//! `transload bench`: measures, and shows what was measured as a table or as JSON. How it is measured is the runtime's business.

use std::io::{self, Write};
use std::time::Duration;

use transload_protocol::{Address, AddressError};
use transload_runtime::bench::{
    BenchError, BenchServer, Measured, MeasuredTasks, MeasuredTransfer, MeasuredTransport, PerTask,
    Program, SchedulerBench, run_part,
};
use transload_runtime::config::WorkerConfig;
use transload_runtime::transports::TransportChoice;

use crate::args::{
    BenchCommand, SchedulerBenchArgs, TasksBenchArgs, TransferBenchArgs, TransportBenchArgs,
};
use crate::cluster::{config, with_hint};
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
                BenchCommand::Tasks(args) => tasks(&args).await,
                BenchCommand::Transport(args) => transport(&args).await,
                BenchCommand::Transfer(args) => transfer(&args).await,
                BenchCommand::Part { part } => {
                    run_part(&part).await.map_err(|error| bench_failure(&error))
                }
            }
        } => done,
        _ = signals.stop() => Err(Failure::interrupted()),
    }
}

async fn scheduler(args: &SchedulerBenchArgs) -> Result<(), Failure> {
    let program = this_program(&["bench", "part"])?;
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
            bar.suspend(|| print(&as_json(serde_json::to_string(&measured))))?;
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

/// This very program, to be started again.
fn this_program(arguments: &[&str]) -> Result<Program, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::failed(format!("cannot find this program to start again: {error}"))
    })?;
    let arguments = arguments.iter().map(|argument| (*argument).to_owned());
    Ok(Program {
        program,
        arguments: arguments.collect(),
    })
}

async fn tasks(args: &TasksBenchArgs) -> Result<(), Failure> {
    let bar = progress::counting_bar("measuring", progress::is_shown(false));
    bar.enable_steady_tick(Duration::from_millis(100));
    let measured = match &args.connect {
        Some(address) => args.bench().measure_at(address).await,
        None => args.bench().measure(&this_program(&["worker"])?).await,
    };
    bar.finish_and_clear();
    let measured = measured.map_err(|error| bench_failure(&error))?;
    if args.json {
        print(&as_json(serde_json::to_string(&measured)))
    } else {
        print(&as_text(&measured))
    }
}

async fn transfer(args: &TransferBenchArgs) -> Result<(), Failure> {
    let mut config = config()?;
    config.worker.transport = args.transport.unwrap_or(config.worker.transport);
    let bar = progress::counting_bar("measuring", progress::is_shown(false));
    bar.set_length(args.runs.into());
    bar.enable_steady_tick(Duration::from_millis(100));
    let program = this_program(&["worker", "--local"])?;
    let measured = args.bench().measure(&program, config, || bar.inc(1)).await;
    bar.finish_and_clear();
    let measured = measured.map_err(|error| bench_failure(&error))?;
    if args.json {
        return print(&as_json(serde_json::to_string(&measured)));
    }
    print(&transfer_as_text(&measured))
}

fn transfer_as_text(measured: &MeasuredTransfer) -> String {
    let bench = measured.bench;
    let head = [
        "partitions",
        "of",
        "transport",
        "median",
        "best",
        "bandwidth/s",
    ];
    let row = vec![
        show::grouped(bench.partitions.into()),
        show::bytes(bench.size_bytes),
        measured.transport.clone(),
        format!("{:.3} s", measured.wall_s),
        format!("{:.3} s", measured.best_wall_s),
        show::bytes(measured.bytes_per_s as u64),
    ];
    show::columns(&[head.map(str::to_owned).to_vec(), row])
}

async fn transport(args: &TransportBenchArgs) -> Result<(), Failure> {
    let mut config = config()?.worker;
    config.transport = args.transport.unwrap_or(config.transport);
    if let Some(bind) = &args.serve {
        return serve(bind, &config).await;
    }
    let bench = args.bench();
    let bar = progress::counting_bar("measuring", progress::is_shown(false));
    bar.set_length(bench.sizes.len() as u64);
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut told = Ok(());
    let done = |measured: &MeasuredTransport| {
        bar.inc(1);
        if args.json && told.is_ok() {
            told = bar.suspend(|| print(&as_json(serde_json::to_string(measured))));
        }
    };
    let measured = match &args.peer {
        Some(peer) => {
            let peer = peer_address(peer, &mut config.transport)?;
            bench.measure_at(vec![peer], &config, done).await
        }
        None => {
            let program = this_program(&["bench", "part"])?;
            bench.measure(&program, &config, done).await
        }
    };
    bar.finish_and_clear();
    let measured = measured.map_err(|error| bench_failure(&error))?;
    told?;
    if args.json {
        Ok(())
    } else {
        print(&transport_table(&measured))
    }
}

/// `HOST:PORT` is TCP, where UCX is not asked for by name; whoever writes `ucx://` asks for it.
fn peer_address(text: &str, choice: &mut TransportChoice) -> Result<Address, Failure> {
    let is_ucx = *choice == TransportChoice::Ucx;
    let address = if text.contains("://") {
        text.parse()
            .map_err(|error: AddressError| Failure::usage(error.to_string()))?
    } else {
        Address::new(if is_ucx { "ucx" } else { "tcp" }, text)
    };
    match (address.scheme.as_str(), *choice) {
        ("tcp", TransportChoice::Auto | TransportChoice::Tcp) => *choice = TransportChoice::Tcp,
        ("ucx", TransportChoice::Auto | TransportChoice::Ucx) => *choice = TransportChoice::Ucx,
        ("tcp" | "ucx", asked) => {
            return Err(Failure::usage(format!(
                "--peer {address} is no address of --transport {asked}"
            )));
        }
        _ => {
            return Err(Failure::usage(format!(
                "--peer {address}: write HOST:PORT or ucx://HOST:PORT"
            )));
        }
    }
    Ok(address)
}

async fn serve(bind: &str, config: &WorkerConfig) -> Result<(), Failure> {
    let server = BenchServer::start(bind, config).await;
    let server = server.map_err(|error| bench_failure(&error))?;
    let places: Vec<String> = server.addresses().iter().map(place).collect();
    print(&format!(
        "serving at {}; measure with `transload bench transport --peer ADDRESS`; Ctrl-C ends it\n",
        places.join(" and ")
    ))?;
    std::future::pending().await
}

/// An address as `--peer` takes it, in its shortest form.
fn place(address: &Address) -> String {
    match address.scheme.as_str() {
        "tcp" => address.endpoint.clone(),
        _ => address.to_string(),
    }
}

fn transport_table(all: &[MeasuredTransport]) -> String {
    let head = ["size", "transport", "p50 us", "p99 us", "bandwidth/s"];
    let rows = all.iter().map(|measured| {
        vec![
            show::bytes(measured.size_bytes),
            measured.transport.clone(),
            format!("{:.1}", measured.latency_us.p50),
            format!("{:.1}", measured.latency_us.p99),
            show::bytes(measured.bandwidth_bytes_per_s as u64),
        ]
    });
    let head = std::iter::once(head.map(str::to_owned).to_vec());
    let rows: Vec<Vec<String>> = head.chain(rows).collect();
    let in_flight = all.first().map_or(0, |measured| measured.in_flight);
    format!(
        "{}bandwidth with {in_flight} fetches under way at once{}\n",
        show::columns(&rows),
        warning()
    )
}

fn as_text(measured: &MeasuredTasks) -> String {
    let mut rows = vec![
        [
            "graph",
            "us/task",
            "best",
            "workers' CPU us/task",
            "own CPU us/task",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for (name, per_task) in [("merge", measured.merge), ("chain", measured.chain)] {
        let PerTask {
            wall_us,
            best_wall_us,
            workers_cpu_us,
            own_cpu_us,
        } = per_task;
        rows.push(vec![
            name.to_owned(),
            format!("{wall_us:.2}"),
            format!("{best_wall_us:.2}"),
            workers_cpu_us.map_or("-".to_owned(), |micros| format!("{micros:.2}")),
            format!("{own_cpu_us:.2}"),
        ]);
    }
    let bench = &measured.bench;
    let single = measured.single;
    format!(
        "{}single: {:.3} ms (half of them), {:.3} ms (99 of 100), {:.3} ms (worst)\n{} x {} slots, {} tasks, medians of {} runs{}\n",
        show::columns(&rows),
        single.p50,
        single.p99,
        single.worst,
        show::grouped(bench.workers.into()),
        bench.slots,
        show::grouped(bench.tasks.into()),
        bench.repeats,
        warning(),
    )
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

fn as_json(text: serde_json::Result<String>) -> String {
    // Numbers and names only, which JSON can always say.
    format!("{}\n", text.unwrap_or_default())
}

fn notes(args: &SchedulerBenchArgs) -> String {
    let of = match args.runs {
        1 => "one run".to_owned(),
        runs => format!("medians of {runs} runs"),
    };
    let mode = transload_runtime::bench::Mode::from(args.mode).name();
    format!("mode {mode}, workers x slots, {of}{}\n", warning())
}

/// What is to be said of the numbers of a program like this.
fn warning() -> &'static str {
    if cfg!(debug_assertions) {
        "; this is a debug build, whose numbers mean nothing"
    } else {
        ""
    }
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| io_failure("cannot write to standard output", &error))
}

fn bench_failure(error: &BenchError) -> Failure {
    with_hint(Exit::Failed, error)
}
