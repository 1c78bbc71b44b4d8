//! Measures how fast partitions come from another process, over the path by which workers fetch them: the same fetcher, transport, headers,
//! budgets and buffers. Called by `transload bench transport`.
//!
//! The other process makes whatever size it is asked for, so that it can be left running on another machine. Deliberately knows nothing of
//! tasks, and nothing of how a transport does its part.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use transload_gpu::{Budget, Partition};
use transload_protocol::{Address, ClientId, GraphId, PartitionId, TaskId};
use transload_transport::{Destination, PartitionSource};

use super::part::{Part, Playing, Serving};
use super::{BenchError, Program, Spread};
use crate::RuntimeError;
use crate::config::WorkerConfig;
use crate::fetcher::{FetchError, Fetcher};
use crate::transports::{CannotListen, Listeners, Places, TransportChoice, Transports, UcxConfig};

/// The largest partition that a serving process makes, in bytes.
pub const LARGEST_PARTITION_BYTES: u64 = 4 << 30;
/// Fetches of one size that are not counted, in which connections and buffers grow to their size.
const WARM_UP: u64 = 3;
/// However large a size is, so many fetches of it are measured.
const LEAST_FETCHES: u64 = 3;
/// What every byte of a served partition is.
const CONTENT: u8 = 0x5a;

/// What is to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportBench {
    /// Sizes of partitions, in bytes, each up to [`LARGEST_PARTITION_BYTES`].
    pub sizes: Vec<u64>,
    /// At most so many fetches of each size, one after another, for its latency; ten times as many for its bandwidth.
    pub fetches: u32,
    /// But no more than so many bytes, with three fetches at least.
    pub bytes: u64,
    /// Fetches under way at once, for the bandwidth.
    pub in_flight: u32,
}

/// What was measured of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredTransport {
    /// Which transport moved the partitions.
    pub transport: String,
    /// Of each partition.
    pub size_bytes: u64,
    /// From asking to having one partition alone, in microseconds.
    pub latency_us: Spread,
    /// Fetches of which that is told.
    pub latency_fetches: u64,
    /// With [`TransportBench::in_flight`] fetches under way at once, in bytes per second of payload.
    pub bandwidth_bytes_per_s: f64,
    /// As asked for.
    pub in_flight: u32,
    /// Fetches of which the bandwidth is told.
    pub bandwidth_fetches: u64,
}

/// A process that others can fetch from, as long as this lives.
pub struct BenchServer {
    listeners: Listeners,
}

/// Makes partitions of the size that is asked for. Sizes are measured one after another, so the last one is kept.
#[derive(Default)]
struct Maker {
    last: Mutex<Option<Partition>>,
}

impl PartitionSource for Maker {
    fn open(&self, partition: PartitionId) -> BoxFuture<'_, Result<Option<Partition>, String>> {
        let made = self.make(size_of(partition));
        async move { made.map(Some) }.boxed()
    }
}

impl Maker {
    fn make(&self, bytes: u64) -> Result<Partition, String> {
        if bytes > LARGEST_PARTITION_BYTES {
            return Err(format!(
                "{bytes} bytes are more than the {LARGEST_PARTITION_BYTES} that are served for measuring"
            ));
        }
        // Nothing that holds this lock can leave it half-changed.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = last.as_ref().filter(|made| made.bytes() == bytes) {
            return Ok(made.clone());
        }
        // Before the next one is made.
        *last = None;
        let size = usize::try_from(bytes).map_err(|error| error.to_string())?;
        let made = Partition::new(Default::default(), vec![vec![CONTENT; size].into()]);
        *last = Some(made.clone());
        Ok(made)
    }
}

/// Names a partition of so many bytes.
fn partition_of(bytes: u64) -> PartitionId {
    let graph = GraphId {
        client: ClientId(0),
        sequence: (bytes >> 32) as u32,
    };
    PartitionId {
        task: TaskId {
            graph,
            index: bytes as u32,
        },
        output: 0,
    }
}

fn size_of(partition: PartitionId) -> u64 {
    u64::from(partition.task.graph.sequence) << 32 | u64::from(partition.task.index)
}

impl BenchServer {
    /// Serves at `bind`, as `host:port`; port 0 takes any. `0.0.0.0` is all interfaces. Over the transports that a worker of this
    /// configuration has, each at a port of its own; over UCX alone where that is chosen by name. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BenchError::Serve`].
    pub async fn start(bind: &str, config: &WorkerConfig) -> Result<Self, BenchError> {
        let failed = |reason: String| BenchError::Serve { reason };
        let place = bind.rsplit_once(':').and_then(|(host, port)| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Some((host, port.parse().ok()?))
        });
        let (host, port) = place
            .ok_or_else(|| failed(format!("`{bind}` is not HOST:PORT, as in 0.0.0.0:8475")))?;
        let places = Places {
            host,
            tcp_port: port,
            ucx_port: match config.transport {
                TransportChoice::Ucx => port,
                TransportChoice::Auto | TransportChoice::Tcp => config.ucx.port,
            },
        };
        let source: Arc<dyn PartitionSource> = Arc::new(Maker::default());
        let listening = transports(config)?;
        let listening = listening.listen(&places, &source).await;
        let listeners =
            listening.map_err(|CannotListen { source, .. }| failed(source.to_string()))?;
        Ok(Self { listeners })
    }

    /// Where, best first, for [`TransportBench::measure_at`].
    pub fn addresses(&self) -> Vec<Address> {
        let listeners = self.listeners.iter();
        listeners.map(|it| it.address().clone()).collect()
    }
}

/// The transports of a worker, or the one that is named: what is measured must be what was asked for.
fn transports(config: &WorkerConfig) -> Result<Transports, BenchError> {
    let transports = Transports::start(config, None);
    let transports = transports.map_err(|reason| RuntimeError::NoUcx { reason })?;
    Ok(transports.named_by(config.transport))
}

/// What both processes of a measurement on one machine must agree in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Holder {
    transport: TransportChoice,
    ucx: UcxConfig,
}

/// Serves until standard input ends, as a part of a measurement.
pub(super) async fn serve(
    holder: Holder,
    say: impl FnOnce(&Serving) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    let config = WorkerConfig {
        transport: holder.transport,
        ucx: holder.ucx,
        ..WorkerConfig::default()
    };
    let server = BenchServer::start("127.0.0.1:0", &config).await?;
    say(&Serving {
        addresses: server.addresses(),
    })?;
    super::part::orphaned().await;
    Ok(())
}

impl TransportBench {
    /// Measures between this process and one of `program` on this machine, over what workers of this configuration would use. Calls
    /// `done` with each size as it is known. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BenchError`].
    pub async fn measure(
        &self,
        program: &Program,
        config: &WorkerConfig,
        done: impl FnMut(&MeasuredTransport),
    ) -> Result<Vec<MeasuredTransport>, BenchError> {
        let part = Part::Holder(Holder {
            transport: config.transport,
            ucx: UcxConfig {
                port: 0,
                ..config.ucx.clone()
            },
        });
        let mut holder = Playing::start(program, &part)?;
        let Serving { addresses } = holder.next().await?;
        self.measure_at(addresses, config, done).await
    }

    /// Measures between this process and a [`BenchServer`] at `peer`.
    ///
    /// # Errors
    /// [`BenchError::Fetch`].
    pub async fn measure_at(
        &self,
        peer: Vec<Address>,
        config: &WorkerConfig,
        mut done: impl FnMut(&MeasuredTransport),
    ) -> Result<Vec<MeasuredTransport>, BenchError> {
        let link = Arc::new(Link {
            peer,
            fetcher: Fetcher::new(transports(config)?.all())
                .retrying_links_after(config.link_retry),
            memory: Arc::new(Budget::new("partitions of a measurement", u64::MAX)),
        });
        let mut all = Vec::new();
        for size in self.sizes.iter().copied() {
            let measured = self.measure_as_a_worker(&link, size).await?;
            done(&measured);
            all.push(measured);
        }
        Ok(all)
    }

    /// On the runtime's threads, where a worker fetches, and not on the one that waits for the measurement: each answer would have to
    /// wake it.
    async fn measure_as_a_worker(
        &self,
        link: &Arc<Link>,
        size: u64,
    ) -> Result<MeasuredTransport, BenchError> {
        let (bench, link) = (self.clone(), Arc::clone(link));
        let failed = |reason: String| BenchError::Fetch {
            peer: link.name(),
            reason,
        };
        let mut task = JoinSet::new();
        task.spawn({
            let link = Arc::clone(&link);
            async move { bench.measure_size(&link, size).await }
        });
        match task.join_next().await {
            Some(measured) => measured.map_err(|error| failed(error.to_string()))?,
            None => Err(failed("the measurement has not been started".to_owned())),
        }
    }

    async fn measure_size(&self, link: &Link, size: u64) -> Result<MeasuredTransport, BenchError> {
        let within = |most: u64| {
            let fitting = self.bytes / size.max(1);
            fitting.min(most).max(LEAST_FETCHES)
        };
        let in_flight = self.in_flight.max(1);
        let mut transport = String::new();
        for _ in 0..WARM_UP {
            transport = link.fetch(size).await?;
        }
        let latency_fetches = within(self.fetches.into());
        let mut micros = Vec::new();
        for _ in 0..latency_fetches {
            let started = Instant::now();
            link.fetch(size).await?;
            micros.push(started.elapsed().as_secs_f64() * 1e6);
        }
        let bandwidth_fetches = within(u64::from(self.fetches) * 10).max(in_flight.into());
        // So many buffers have not been there at once yet.
        link.fetch_many(size, WARM_UP.max(in_flight.into()), in_flight)
            .await?;
        let started = Instant::now();
        link.fetch_many(size, bandwidth_fetches, in_flight).await?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(MeasuredTransport {
            transport,
            size_bytes: size,
            latency_us: Spread::of(micros),
            latency_fetches,
            bandwidth_bytes_per_s: (size * bandwidth_fetches) as f64 / seconds,
            in_flight,
            bandwidth_fetches,
        })
    }
}

/// What is between the two processes.
struct Link {
    peer: Vec<Address>,
    fetcher: Fetcher,
    memory: Arc<dyn Destination>,
}

impl Link {
    fn name(&self) -> String {
        let addresses: Vec<String> = self.peer.iter().map(ToString::to_string).collect();
        addresses.join(" or ")
    }

    async fn fetch_many(&self, size: u64, fetches: u64, in_flight: u32) -> Result<(), BenchError> {
        let fetches = stream::iter(0..fetches).map(|_| self.fetch(size));
        let mut arriving = fetches.buffer_unordered(in_flight as usize);
        while arriving.try_next().await?.is_some() {}
        Ok(())
    }

    /// Fetches one partition of this size, drops it, and says what moved it.
    async fn fetch(&self, size: u64) -> Result<String, BenchError> {
        let failed = |reason: String| BenchError::Fetch {
            peer: self.name(),
            reason,
        };
        let fetched = self
            .fetcher
            .fetch(&self.peer, partition_of(size), &self.memory);
        let fetched = fetched
            .await
            .map_err(|error: FetchError| failed(error.to_string()))?;
        let transport = fetched.transport.clone();
        let partition = fetched.into_host();
        let partition = partition.map_err(|error| failed(error.to_string()))?;
        let buffers = partition.buffers();
        let is_whole = partition.bytes() == size
            && buffers
                .iter()
                .all(|it| it.first().is_none_or(|byte| *byte == CONTENT))
            && buffers
                .iter()
                .all(|it| it.last().is_none_or(|byte| *byte == CONTENT));
        if is_whole {
            Ok(transport)
        } else {
            Err(failed(format!(
                "what came is not the partition of {size} bytes that was asked for"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_named_by_its_size() {
        for bytes in [0, 8, u64::from(u32::MAX), 1 << 32, LARGEST_PARTITION_BYTES] {
            assert_eq!(size_of(partition_of(bytes)), bytes);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_size_is_measured_over_the_transport_and_what_is_not_served_is_an_error() {
        let config = WorkerConfig {
            transport: TransportChoice::Tcp,
            ..WorkerConfig::default()
        };
        let server = BenchServer::start("127.0.0.1:0", &config).await;
        let server = server.expect("a port");
        let bench = TransportBench {
            sizes: vec![0, 8, 3 << 20],
            fetches: 20,
            bytes: 20 << 20,
            in_flight: 4,
        };
        let at = server.addresses();
        let mut seen = Vec::new();
        let done = |measured: &MeasuredTransport| seen.push(measured.size_bytes);
        let all = bench.measure_at(at.clone(), &config, done).await;
        let all = all.expect("measured");
        assert_eq!(seen, bench.sizes);
        for measured in &all {
            assert_eq!(measured.transport, "tcp");
            assert!(measured.latency_us.p50 > 0.0, "{measured:?}");
        }
        let counts = |at: usize| (all[at].latency_fetches, all[at].bandwidth_fetches);
        assert_eq!((counts(1), counts(2)), ((20, 200), (6, 6)));
        assert!(all[2].bandwidth_bytes_per_s > 0.0);
        let too_large = TransportBench {
            sizes: vec![LARGEST_PARTITION_BYTES + 1],
            ..bench
        };
        let refused = too_large.measure_at(at, &config, |_| {}).await;
        let error = refused.expect_err("too large").to_string();
        assert!(error.contains("more than"), "{error}");
    }
}
