//! Shows a cluster: keeps what happened within bounds, and serves the page, metrics and recorded traces over HTTP.
//!
//! Called by the server of the scheduler, which feeds it ([`Feed`]) and answers its questions ([`Source`]), and by the command line, which
//! records and exports what is shown. Knows neither the scheduler's machine nor how processes speak to each other.
#![forbid(unsafe_code)]

mod feed;
mod guard;
mod history;
mod keeper;
mod lanes;
mod metrics;
mod otlp;
mod page;
mod server;
mod socket;
mod source;
mod trace;
pub mod view;
mod words;

#[cfg(test)]
mod fakes;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use feed::{AssignedTasks, Batch, Feed, RanTask};
pub use otlp::{OtlpSpans, otlp};
pub use page::report;
pub use source::{Gone, Source};
pub use trace::chrome;

use guard::Guard;
use keeper::Keeper;
use server::Site;

/// Where a dashboard listens, and who may look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A host name or address.
    pub host: String,
    /// 0 for a free port.
    pub port: u16,
    /// Where that port is taken, a free one does, too.
    pub any_port: bool,
    /// What viewers have to show. Needed where others than this machine can reach it.
    pub token: Option<String>,
    /// `HOST:PORT` of the scheduler, for people.
    pub scheduler: String,
}

/// Why there is no dashboard.
#[derive(Debug, thiserror::Error)]
pub enum DashboardError {
    /// Nothing can listen there.
    #[error(
        "the dashboard cannot listen on {address}: {source}; choose another address or port, or `off`"
    )]
    Listen {
        /// What was asked for.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Everybody who reaches it could look.
    #[error(
        "the dashboard on {address} can be reached from other machines and wants a token; give it a file with one, or listen on 127.0.0.1"
    )]
    Open {
        /// Where it would listen.
        address: SocketAddr,
    },
    /// The token cannot be shown in an address.
    #[error("the token has to be 8 or more letters, digits, or any of - _ . ~")]
    Token,
}

/// A dashboard that is served as long as this lives.
#[derive(Debug)]
pub struct Dashboard {
    address: SocketAddr,
    feed: Feed,
    _stop: DropGuard,
}

impl Dashboard {
    /// Listens, and shows what `source` answers and the feed tells. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`DashboardError`].
    pub async fn start(options: &Options, source: Arc<dyn Source>) -> Result<Self, DashboardError> {
        let token = options.token.as_deref();
        if token.is_some_and(|token| !guard::is_sendable(token)) {
            return Err(DashboardError::Token);
        }
        let (listener, address) = listen(options).await?;
        if token.is_none() && !address.ip().is_loopback() {
            return Err(DashboardError::Open { address });
        }
        let (feed, batches, shared) = Feed::new();
        let keeper = Arc::new(Keeper::new(shared, source));
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&keeper).run(batches, stop.clone()));
        let site = Site {
            keeper,
            scheduler: options.scheduler.as_str().into(),
            started_unix_ms: server::unix_ms(),
            stop: stop.clone(),
        };
        let routes = server::routes(site, Guard::new(token));
        let stopped = stop.clone();
        tokio::spawn(async move {
            let served = axum::serve(listener, routes);
            tokio::select! {
                () = stopped.cancelled() => {}
                // It goes on after errors of single connections.
                _ = served => {}
            }
        });
        Ok(Self {
            address,
            feed,
            _stop: stop.drop_guard(),
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes what happens.
    pub fn feed(&self) -> Feed {
        self.feed.clone()
    }
}

async fn listen(options: &Options) -> Result<(TcpListener, SocketAddr), DashboardError> {
    let failed = |source| DashboardError::Listen {
        address: format!("{}:{}", options.host, options.port),
        source,
    };
    let bound = TcpListener::bind((options.host.as_str(), options.port)).await;
    let listener = match bound {
        Err(error) if options.any_port && error.kind() == io::ErrorKind::AddrInUse => {
            TcpListener::bind((options.host.as_str(), 0)).await
        }
        bound => bound,
    };
    let listener = listener.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
