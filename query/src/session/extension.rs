//! Settings of a session that are ours and not DataFusion's: `SET transload.gpu_exchange = on`. Called by DataFusion, and by the planner.

use std::any::Any;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::common::{Result, config_err};

/// The settings, under `transload`.
#[derive(Debug, Clone, Default)]
pub(super) struct SqlSettings {
    /// See [`SqlOptions::gpu_exchange`](super::SqlOptions::gpu_exchange).
    pub(super) gpu_exchange: bool,
}

/// Whether exchanges are to stay on GPUs.
pub(super) fn gpu_exchange(options: &ConfigOptions) -> bool {
    let settings = options.extensions.get::<SqlSettings>();
    settings.is_some_and(|settings| settings.gpu_exchange)
}

impl ConfigExtension for SqlSettings {
    const PREFIX: &'static str = "transload";
}

impl ExtensionOptions for SqlSettings {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        self.gpu_exchange = match (key, value.to_lowercase().as_str()) {
            ("gpu_exchange", "on" | "true") => true,
            ("gpu_exchange", "off" | "false") => false,
            ("gpu_exchange", _) => {
                return config_err!("transload.gpu_exchange is on or off, and not `{value}`");
            }
            _ => {
                return config_err!(
                    "there is no setting transload.{key}; there is transload.gpu_exchange"
                );
            }
        };
        Ok(())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        vec![ConfigEntry {
            key: format!("{}.gpu_exchange", Self::PREFIX),
            value: Some(if self.gpu_exchange { "on" } else { "off" }.to_owned()),
            description: "Whether hash exchanges stay on GPUs",
        }]
    }
}
