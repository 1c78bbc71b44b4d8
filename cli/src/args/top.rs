//! The command line of `transload top`. Knows nothing of what is drawn.

use std::time::Duration;

use clap::Args;

use super::ClusterAddress;
use super::trace::parse_time;

pub(super) const HELP: &str = "\
Shows a cluster on this terminal as it works: its workers with their slots and memory, the graphs that run and how far their layers are, \
what moves between whom and how fast, and tasks that take much longer than others of their layers.

It asks the scheduler itself, and needs no dashboard.";

const TOP_EXAMPLES: &str = "\
Examples:
  transload top 10.0.0.3:8790
  transload top --scheduler-file ~/s.json --interval 250ms
Keys: q leaves, s sorts, the arrows scroll, p pauses, ? shows this.
Where there is no terminal: transload cluster info";

/// Arguments of `transload top`.
#[derive(Debug, Args)]
#[command(after_help = TOP_EXAMPLES)]
pub(crate) struct TopArgs {
    /// Which cluster.
    #[command(flatten)]
    pub(crate) cluster: ClusterAddress,
    /// Time between two looks at the cluster.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    pub(crate) interval: Duration,
}

/// Workers tell what they do twice a second; the scheduler has better to do than to answer more often than this.
const SHORTEST: Duration = Duration::from_millis(100);

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_time(text)?;
    if interval < SHORTEST {
        return Err("less than 100ms, faster than anybody looks".to_owned());
    }
    Ok(interval)
}
