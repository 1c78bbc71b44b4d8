//! The dashboard of a scheduler: where it listens, who may look, and how it asks the scheduler's thread.

use std::fs;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use transload_dashboard::{Batch, Dashboard, Gone, Options, Source};
use transload_protocol::{ClusterInfo, Explanation, GraphId, LayerIndex, TaskId, Time};

use super::core::{Arrival, Shown};
use crate::RuntimeError;
use crate::config::{DashboardChoice, SchedulerConfig};

/// Where the dashboard listens if nobody says otherwise, and the port is free.
const USUAL_PORT: u16 = 8787;

/// The dashboard, and what the scheduler's thread is to know of it; `None` where none is wanted, or none can be had that nobody asked
/// for.
pub(super) async fn start(
    config: &SchedulerConfig,
    scheduler: String,
    arrivals: &mpsc::Sender<Arrival>,
) -> Result<Option<(Dashboard, Shown)>, RuntimeError> {
    let (host, port, any_port) = match &config.dashboard {
        DashboardChoice::Off => return Ok(None),
        DashboardChoice::Auto => ("127.0.0.1", USUAL_PORT, true),
        DashboardChoice::At { host, port } => (host.as_str(), *port, false),
    };
    let options = Options {
        host: host.to_owned(),
        port,
        any_port,
        token: token(config)?,
        scheduler,
    };
    let source = Arc::new(Questions(arrivals.clone()));
    match Dashboard::start(&options, source).await {
        Ok(dashboard) => {
            let address = dashboard.address();
            tracing::info!("dashboard at http://{address}/");
            let shown = Shown {
                feed: dashboard.feed(),
                address: super::reachable(address),
                heard: Batch::default(),
            };
            Ok(Some((dashboard, shown)))
        }
        Err(error) if config.dashboard == DashboardChoice::Auto => {
            tracing::warn!(%error, "there is no dashboard");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// What the file has, without the end of its line.
fn token(config: &SchedulerConfig) -> Result<Option<String>, RuntimeError> {
    let Some(path) = &config.dashboard_token_file else {
        return Ok(None);
    };
    let text = fs::read_to_string(path).map_err(|source| RuntimeError::File {
        what: "cannot read the dashboard's token",
        path: path.clone(),
        source,
    })?;
    Ok(Some(text.trim_end().to_owned()))
}

/// Asks the scheduler's thread.
struct Questions(mpsc::Sender<Arrival>);

impl Questions {
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Arrival,
    ) -> BoxFuture<'_, Result<T, Gone>> {
        let (sender, answer) = oneshot::channel();
        let question = question(sender);
        async move {
            self.0.send(question).await.map_err(|_| Gone)?;
            answer.await.map_err(|_| Gone)
        }
        .boxed()
    }
}

impl Source for Questions {
    fn look(&self) -> BoxFuture<'_, Result<(Time, ClusterInfo), Gone>> {
        self.ask(Arrival::Look)
    }

    fn explain(&self, task: TaskId) -> BoxFuture<'_, Result<Explanation, Gone>> {
        self.ask(|answer| Arrival::Explain(task, answer))
    }

    fn explain_layer(
        &self,
        graph: GraphId,
        layer: LayerIndex,
    ) -> BoxFuture<'_, Result<Explanation, Gone>> {
        self.ask(move |answer| Arrival::ExplainLayer(graph, layer, answer))
    }
}
