//! Which transports a process has, and where it serves partitions over them.
//!
//! Called by workers and by the measurement of transports, which so measures what workers use. Which of them carries a partition is
//! the [`crate::fetcher`]'s business.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use transload_protocol::Address;
use transload_transport::{Listener, PartitionSource, Transport, TransportError};
use transload_transport_tcp::{TcpOptions, TcpTransport};
use transload_transport_ucx::{UcxOptions, UcxTransport};

pub use transload_transport_ucx::prepare_environment;

use crate::config::WorkerConfig;

/// Which transports between workers are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportChoice {
    /// UCX where it can be started, and TCP.
    #[default]
    Auto,
    /// TCP alone.
    Tcp,
    /// UCX, without which nothing starts; TCP for clients, and for workers to which UCX does not lead.
    Ucx,
}

/// What UCX is told. See [`UcxOptions`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UcxConfig {
    /// The folder of the library; `None` for where the system finds libraries.
    pub library_dir: Option<PathBuf>,
    /// Port on which peers are greeted before UCX carries anything; 0 for a free one.
    pub port: u16,
    /// How long its thread looks for more before it sleeps; `None` for what suits the machine.
    pub spin: Option<Duration>,
    /// Time in which a peer must have answered the greeting and a first message over UCX.
    pub connect_timeout: Duration,
    /// Silence after which a peer counts as dead.
    pub stall_timeout: Duration,
}

/// The transports of this process.
pub(crate) struct Transports {
    /// Best first.
    all: Vec<Arc<dyn Transport>>,
}

/// Where to listen: one port for each transport.
pub(crate) struct Places<'a> {
    pub(crate) host: &'a str,
    pub(crate) tcp_port: u16,
    pub(crate) ucx_port: u16,
}

/// What listens, best first.
pub(crate) type Listeners = Vec<Box<dyn Listener>>;

/// One transport cannot listen.
#[derive(Debug)]
pub(crate) struct CannotListen {
    /// Where, as transport and bind address.
    pub(crate) address: Address,
    pub(crate) source: TransportError,
}

impl Transports {
    /// Starts what the configuration wants. Listeners say that they are reached at `advertised`, where that is given.
    ///
    /// # Errors
    /// Why UCX cannot be started, where it is wanted by name. Where it is not, that is logged.
    pub(crate) fn start(config: &WorkerConfig, advertised: Option<String>) -> Result<Self, String> {
        Self::start_with(config, advertised, |options| {
            let ucx = UcxTransport::start(options).map_err(|error| error.to_string())?;
            Ok(Arc::new(ucx))
        })
    }

    fn start_with(
        config: &WorkerConfig,
        advertised: Option<String>,
        start_ucx: impl FnOnce(UcxOptions) -> Result<Arc<dyn Transport>, String>,
    ) -> Result<Self, String> {
        let mut all = Vec::new();
        let ucx = || start_ucx(config.ucx.options(config.transport, advertised.clone()));
        match config.transport {
            TransportChoice::Tcp => {}
            TransportChoice::Ucx => all.push(ucx()?),
            TransportChoice::Auto => match ucx() {
                Ok(ucx) => all.push(ucx),
                Err(reason) => tracing::info!(%reason, "no UCX; partitions move over TCP"),
            },
        }
        let advertised_host = advertised.or_else(|| config.tcp.advertised_host.clone());
        all.push(Arc::new(TcpTransport::new(TcpOptions {
            advertised_host,
            ..config.tcp.clone()
        })));
        Ok(Self { all })
    }

    /// Those that carry partitions where the choice is to be measured: what was chosen by name and nothing else.
    pub(crate) fn named_by(mut self, choice: TransportChoice) -> Self {
        if choice == TransportChoice::Ucx {
            self.all
                .retain(|it| it.scheme() == transload_transport_ucx::SCHEME);
        }
        self
    }

    /// All of them, best first.
    pub(crate) fn all(&self) -> Vec<Arc<dyn Transport>> {
        self.all.clone()
    }

    /// Serves over each, best first. Must be called within a tokio runtime.
    pub(crate) async fn listen(
        &self,
        places: &Places<'_>,
        source: &Arc<dyn PartitionSource>,
    ) -> Result<Listeners, CannotListen> {
        let mut listeners = Vec::new();
        for transport in &self.all {
            let bind = places.of(transport.scheme());
            let listener = transport.listen(&bind, Arc::clone(source)).await;
            listeners.push(listener.map_err(|source| CannotListen {
                address: Address::new(transport.scheme(), bind),
                source,
            })?);
        }
        Ok(listeners)
    }
}

impl Places<'_> {
    /// `HOST:PORT` for this transport.
    pub(crate) fn of(&self, scheme: &str) -> String {
        let port = if scheme == transload_transport_ucx::SCHEME {
            self.ucx_port
        } else {
            self.tcp_port
        };
        match self.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port).to_string(),
            Err(_) => format!("{}:{port}", self.host),
        }
    }
}

impl UcxConfig {
    fn options(&self, choice: TransportChoice, advertised_host: Option<String>) -> UcxOptions {
        let options = UcxOptions::default();
        UcxOptions {
            library_dir: self.library_dir.clone(),
            spin: self.spin.unwrap_or(options.spin),
            connect_timeout: self.connect_timeout,
            stall_timeout: self.stall_timeout,
            advertised_host,
            // Our own TCP does without what UCX adds to it; whoever names UCX gets it nevertheless.
            accept_tcp_lanes: choice == TransportChoice::Ucx,
            ..options
        }
    }
}

impl Default for UcxConfig {
    fn default() -> Self {
        let options = UcxOptions::default();
        Self {
            library_dir: None,
            port: 0,
            spin: None,
            connect_timeout: options.connect_timeout,
            stall_timeout: options.stall_timeout,
        }
    }
}

impl fmt::Display for TransportChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Tcp => "tcp",
            Self::Ucx => "ucx",
        })
    }
}

impl FromStr for TransportChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Auto, Self::Tcp, Self::Ucx];
        let found = all.into_iter().find(|choice| choice.to_string() == text);
        found.ok_or_else(|| "a transport; write auto, tcp or ucx".to_owned())
    }
}

impl fmt::Debug for Transports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.all.iter().map(|transport| transport.scheme());
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use transload_transport::memory::MemoryTransport;

    use super::*;

    /// The names of what is started where UCX can be started or not; memory stands for UCX.
    fn started(choice: &str, is_there: bool) -> Result<Vec<&'static str>, String> {
        let config = WorkerConfig {
            transport: choice.parse()?,
            ..WorkerConfig::default()
        };
        let transports = Transports::start_with(&config, None, |_| {
            if is_there {
                Ok(Arc::new(MemoryTransport::new()))
            } else {
                Err("no library".to_owned())
            }
        })?;
        Ok(transports.all.iter().map(|it| it.scheme()).collect())
    }

    #[test]
    fn the_choice_says_what_is_started_and_what_must_be() {
        let [tcp, both] = [vec!["tcp"], vec!["memory", "tcp"]];
        assert_eq!(started("auto", true), Ok(both.clone()));
        assert_eq!(started("auto", false), Ok(tcp.clone()));
        assert_eq!(started("tcp", true), Ok(tcp));
        assert_eq!(started("ucx", true), Ok(both));
        assert_eq!(started("ucx", false), Err("no library".to_owned()));
        assert!(started("pigeon", true).is_err());
    }

    #[test]
    fn each_transport_has_its_port_and_addresses_of_any_kind_are_written_right() {
        let places = |host| Places {
            host,
            tcp_port: 1,
            ucx_port: 2,
        };
        assert_eq!(places("node1").of("tcp"), "node1:1");
        assert_eq!(places("10.0.0.3").of("ucx"), "10.0.0.3:2");
        assert_eq!(places("::1").of("tcp"), "[::1]:1");
    }

    #[test]
    fn where_ucx_would_only_take_tcp_it_is_used_by_name_alone() {
        let config = UcxConfig::default();
        let lanes = |choice| config.options(choice, None).accept_tcp_lanes;
        assert!(lanes(TransportChoice::Ucx) && !lanes(TransportChoice::Auto));
    }
}
