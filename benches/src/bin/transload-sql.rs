//! A session of transload's SQL on a running cluster: what `benches/tpch/speed.py` measures.
//!
//! One client for all queries, as an application would have; the cluster's processes are the script's business.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use futures::TryStreamExt;
use transload_benches::{Failure, STACK_BYTES, serve, tables};
use transload_query::{FileOptions, SqlOptions, SqlSession};
use transload_runtime::{Client, ClientOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Answers queries over a folder of Parquet files; see `transload_benches::serve` for the protocol.
#[derive(Parser)]
struct Options {
    /// The folder.
    #[arg(long)]
    data: PathBuf,
    /// The cluster's scheduler, `HOST:PORT`.
    #[arg(long)]
    connect: String,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()?
        .block_on(run(options))
}

async fn run(options: Options) -> Result<(), Failure> {
    let client = Client::connect(&options.connect, ClientOptions::default()).await?;
    let session = SqlSession::new(client, SqlOptions::default())?;
    for (name, path) in tables(&options.data)? {
        let path = path.to_string_lossy();
        session
            .register_table(&name, path.as_ref(), FileOptions::default())
            .await?;
    }
    let session = Arc::new(session);
    serve(|query| {
        // On a worker thread of the runtime, not on the one that blocks on standard input.
        let session = Arc::clone(&session);
        let running = tokio::spawn(async move {
            let mut stream = session.execute(&query).await?.stream();
            let mut rows = 0;
            while let Some(batch) = stream.try_next().await? {
                rows += batch.num_rows();
            }
            Ok::<_, Failure>(rows)
        });
        async move { running.await? }
    })
    .await
}
