//! What a stage's layer tells its tasks: the plan and how inputs and outputs are to be understood. Made by the planner, read by
//! the operator.

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use serde::{Deserialize, Serialize};
use transload_protocol::{Blob, codec};

use crate::stages::{Given, Output, Stage};

/// The argument that all tasks of a stage share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageSpec {
    /// The plan, as [`crate::codec`] writes it.
    pub(crate) plan: Blob,
    /// How each input's partitions are to be found.
    pub(crate) given: Vec<Given>,
    /// What becomes of the rows.
    pub(crate) output: OutputSpec,
    /// Session settings that differ from DataFusion's own.
    pub(crate) settings: Vec<(String, String)>,
}

/// See [`Output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OutputSpec {
    One,
    Carried,
    Hashed,
    Each,
}

impl StageSpec {
    pub(crate) fn new(stage: &Stage, plan: Vec<u8>, settings: Vec<(String, String)>) -> Self {
        Self {
            plan: plan.into(),
            given: stage.inputs.iter().map(|input| input.given).collect(),
            output: match stage.output {
                Output::One => OutputSpec::One,
                Output::Carried => OutputSpec::Carried,
                Output::Hashed(_) => OutputSpec::Hashed,
                Output::Each(_) => OutputSpec::Each,
            },
            settings,
        }
    }

    /// # Errors
    /// When the bytes are not a stage.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, codec::CodecError> {
        codec::decode(bytes)
    }
}

/// Settings of a session that workers must share for the plan to mean the same.
pub(crate) fn settings(options: &ConfigOptions) -> Vec<(String, String)> {
    let defaults = ConfigOptions::new().entries();
    options
        .entries()
        .into_iter()
        .zip(defaults)
        .filter(|(entry, default)| entry.value != default.value)
        .filter_map(|(entry, _)| Some((entry.key, entry.value?)))
        .collect()
}

/// The options that these settings describe.
///
/// # Errors
/// When a setting is unknown here: client and worker are of different versions.
pub(crate) fn options(settings: &[(String, String)]) -> Result<ConfigOptions> {
    let mut options = ConfigOptions::new();
    for (key, value) in settings {
        options.set(key, value)?;
    }
    crate::settings::make_safe(&mut options);
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_settings_reach_the_worker() {
        let mut session = ConfigOptions::new();
        session
            .set("datafusion.execution.time_zone", "+02:00")
            .expect("known");
        session
            .set("datafusion.execution.batch_size", "1000")
            .expect("known");
        crate::settings::make_safe(&mut session);
        let worker = options(&settings(&session)).expect("known");
        let values = |options: &ConfigOptions| -> Vec<_> {
            options
                .entries()
                .into_iter()
                .map(|entry| (entry.key, entry.value))
                .collect()
        };
        assert_eq!(values(&worker), values(&session));
    }
}
