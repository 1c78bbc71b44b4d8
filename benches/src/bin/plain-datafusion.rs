//! DataFusion alone, in one process: what transload's SQL is measured against. Driven by `benches/tpch/speed.py`.
//!
//! The same crate in the same version with the same features and allocator as the cluster's workers, so that the ratio
//! between both is the price of being distributed and nothing else.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::Parser;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use transload_benches::{Failure, STACK_BYTES, serve, tables};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Answers queries over a folder of Parquet files; see `transload_benches::serve` for the protocol.
#[derive(Parser)]
struct Options {
    /// The folder.
    #[arg(long)]
    data: PathBuf,
    /// Partitions, and so threads that compute.
    #[arg(long, default_value_t = 2)]
    partitions: usize,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.partitions)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()?
        .block_on(run(options))
}

async fn run(options: Options) -> Result<(), Failure> {
    let config = SessionConfig::new().with_target_partitions(options.partitions);
    let context = SessionContext::new_with_config(config);
    for (name, path) in tables(&options.data)? {
        let path = path.to_string_lossy();
        context
            .register_parquet(name, path.as_ref(), ParquetReadOptions::default())
            .await?;
    }
    serve(|query| {
        // On a worker thread of the runtime, not on the one that blocks on standard input.
        let context = context.clone();
        let running = tokio::spawn(async move {
            let batches = context.sql(&query).await?.collect().await?;
            Ok::<_, Failure>(batches.iter().map(|batch| batch.num_rows()).sum())
        });
        async move { running.await? }
    })
    .await
}
