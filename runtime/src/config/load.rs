//! Reading a [`Config`] from its sources: defaults, then file, then environment, then flags.

use std::path::{Path, PathBuf};

use super::table::{SETTINGS, Setting};
use super::{Command, Config, ConfigError};

/// The file that is read from the current folder, if it is there, when no other is named.
pub const CONFIG_FILE: &str = "transload.toml";
/// The environment variable that names another file.
pub const CONFIG_VARIABLE: &str = "TRANSLOAD_CONFIG";
const VARIABLE_PREFIX: &str = "TRANSLOAD_";

/// Where a configuration comes from, later ones winning.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file that a flag named.
    pub file: Option<PathBuf>,
    /// The process's environment, or a part of it.
    pub environment: Vec<(String, String)>,
    /// Settings given as flags, with their values.
    pub flags: Vec<(&'static Setting, String)>,
    /// The folder in which [`CONFIG_FILE`] is looked for; `None` to look nowhere.
    pub folder: Option<PathBuf>,
}

impl Sources {
    /// Environment and current folder of this process, and no flags.
    pub fn of_process() -> Self {
        Self {
            file: None,
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
                .collect(),
            flags: Vec::new(),
            folder: Some(PathBuf::new()),
        }
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] names the source and, for an unknown key, the nearest known one.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        if let Some(path) = self.named_file() {
            config.read_file(&path)?;
        }
        self.read_environment(&mut config)?;
        for (setting, value) in &self.flags {
            config.set(setting, value, || format!("flag --{}", setting.flag))?;
        }
        Ok(config)
    }

    fn named_file(&self) -> Option<PathBuf> {
        let from_environment = || {
            self.environment
                .iter()
                .find(|(name, value)| name == CONFIG_VARIABLE && !value.is_empty())
                .map(|(_, value)| PathBuf::from(value))
        };
        let in_folder = || {
            self.folder
                .as_ref()
                .map(|folder| folder.join(CONFIG_FILE))
                .filter(|path| path.is_file())
        };
        self.file
            .clone()
            .or_else(from_environment)
            .or_else(in_folder)
    }

    fn read_environment(&self, config: &mut Config) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            let variable = setting.variable();
            let given = self.environment.iter().find(|(name, _)| *name == variable);
            if let Some((_, value)) = given {
                config.set(setting, value, || {
                    format!("environment variable {variable}")
                })?;
            }
        }
        match self.environment.iter().find(|(name, _)| is_unknown(name)) {
            None => Ok(()),
            Some((name, _)) => Err(ConfigError::UnknownKey {
                key: name.clone(),
                origin: "the environment".to_owned(),
                nearest: nearest(&key_of(name)).map(Setting::variable),
            }),
        }
    }
}

impl Config {
    /// The configuration as the flags that give `command` exactly these settings, whatever file and environment it finds.
    pub fn to_flags(&self, command: Command) -> Vec<String> {
        SETTINGS
            .iter()
            .filter(|setting| setting.commands.contains(&command))
            .map(|setting| format!("--{}={}", setting.flag, setting.value(self)))
            .collect()
    }

    /// Sets one setting by name from text, as a file would.
    ///
    /// # Errors
    /// [`ConfigError`] for an unknown name or a value that cannot be used.
    pub fn set_by_name(
        &mut self,
        name: &str,
        value: &str,
        origin: &str,
    ) -> Result<(), ConfigError> {
        match SETTINGS.iter().find(|setting| setting.name == name) {
            Some(setting) => self.set(setting, value, || origin.to_owned()),
            None => Err(ConfigError::UnknownKey {
                key: name.to_owned(),
                origin: origin.to_owned(),
                nearest: nearest(name).map(|setting| setting.name.to_owned()),
            }),
        }
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
            path: path.to_owned(),
            source,
        })?;
        let table: toml::Table =
            text.parse()
                .map_err(|error: toml::de::Error| ConfigError::Syntax {
                    path: path.to_owned(),
                    reason: error.to_string(),
                })?;
        let origin = path.display().to_string();
        for (section, values) in table {
            match values {
                toml::Value::Table(values) => {
                    for (key, value) in values {
                        let text = match value {
                            toml::Value::String(text) => text,
                            other => other.to_string(),
                        };
                        self.set_by_name(&format!("{section}.{key}"), &text, &origin)?;
                    }
                }
                _ => {
                    return Err(ConfigError::UnknownKey {
                        nearest: nearest(&section).map(|setting| setting.name.to_owned()),
                        key: section,
                        origin,
                    });
                }
            }
        }
        Ok(())
    }

    fn set(
        &mut self,
        setting: &'static Setting,
        value: &str,
        origin: impl FnOnce() -> String,
    ) -> Result<(), ConfigError> {
        (setting.set)(self, value).map_err(|reason| ConfigError::BadValue {
            name: setting.name,
            value: value.to_owned(),
            origin: origin(),
            reason,
        })
    }
}

/// Whether a variable names a section of ours and no setting in it. Other `TRANSLOAD_` variables are other people's.
fn is_unknown(variable: &str) -> bool {
    let key = key_of(variable);
    let in_section = SETTINGS
        .iter()
        .filter_map(|setting| setting.name.split_once('.'))
        .any(|(section, _)| {
            key.split_once('.')
                .is_some_and(|(found, _)| found == section)
        });
    in_section
        && variable.starts_with(VARIABLE_PREFIX)
        && !SETTINGS
            .iter()
            .any(|setting| setting.variable() == variable)
}

/// `section.key` of a variable `TRANSLOAD_SECTION_KEY`.
fn key_of(variable: &str) -> String {
    variable
        .trim_start_matches(VARIABLE_PREFIX)
        .to_lowercase()
        .replacen('_', ".", 1)
}

/// The setting whose name looks most like `key`, if any looks alike at all. A key without a section is compared with keys.
fn nearest(key: &str) -> Option<&'static Setting> {
    let distance_to = |name: &'static str| {
        let bare = name.split_once('.').map_or(name, |(_, key)| key);
        if key.contains('.') {
            distance(key, name)
        } else {
            distance(key, bare)
        }
    };
    SETTINGS
        .iter()
        .map(|setting| (distance_to(setting.name), setting))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= (key.len() / 3).max(2))
        .map(|(_, setting)| setting)
}

/// Letters to insert, delete or replace to make one text of the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        for (above, other) in row.iter_mut().skip(1).zip(&to) {
            let here = (diagonal + usize::from(letter != *other))
                .min(left + 1)
                .min(*above + 1);
            diagonal = *above;
            *above = here;
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Sources {
        let folder = tempfile::tempdir().expect("a folder").keep();
        std::fs::write(folder.join(CONFIG_FILE), text).expect("written");
        Sources {
            folder: Some(folder),
            ..Sources::default()
        }
    }

    fn setting(name: &str) -> &'static Setting {
        SETTINGS
            .iter()
            .find(|setting| setting.name == name)
            .expect("a known name")
    }

    #[test]
    fn flags_win_over_the_environment_and_the_environment_over_the_file() {
        let mut sources =
            file("[worker]\nmemory = \"1GiB\"\nslots = 3\nspill_above_percent = 60\n");
        sources.environment = vec![
            ("TRANSLOAD_WORKER_SLOTS".to_owned(), "4".to_owned()),
            (
                "TRANSLOAD_WORKER_SPILL_ABOVE_PERCENT".to_owned(),
                "50".to_owned(),
            ),
        ];
        sources.flags = vec![(setting("worker.slots"), "5".to_owned())];
        let config = sources.load().expect("loads");
        assert_eq!(config.worker.memory_bytes, Some(1 << 30));
        assert_eq!(config.worker.spill_above_percent, 50);
        assert_eq!(config.worker.slots, Some(5));
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        for (text, expected) in [
            (
                "[worker]\nmemmory = \"1GiB\"\n",
                "did you mean `worker.memory`?",
            ),
            (
                "[wroker]\nmemory = \"1GiB\"\n",
                "did you mean `worker.memory`?",
            ),
            ("memory = \"1GiB\"\n", "did you mean `worker.memory`?"),
            ("[worker.memory]\nx = 1\n", "worker.memory"),
            ("[zzz]\nqqqqqqqqqqqqq = 1\n", "the README lists all options"),
        ] {
            let error = file(text).load().expect_err(text).to_string();
            assert!(
                error.contains(expected) && error.contains(CONFIG_FILE),
                "{error}"
            );
        }
    }

    #[test]
    fn an_unknown_variable_of_our_sections_is_an_error_and_any_other_is_not() {
        let sources = |name: &str| Sources {
            environment: vec![(name.to_owned(), "1GiB".to_owned())],
            ..Sources::default()
        };
        let error = sources("TRANSLOAD_WORKER_MEMROY")
            .load()
            .expect_err("unknown")
            .to_string();
        assert!(
            error.contains("did you mean `TRANSLOAD_WORKER_MEMORY`?"),
            "{error}"
        );
        sources("TRANSLOAD_LOG").load().expect("not ours");
        sources("WORKER_MEMROY").load().expect("not ours");
    }

    #[test]
    fn a_bad_value_is_named_with_its_place_and_its_remedy() {
        let error = file("[worker]\nmemory = \"2G\"\n")
            .load()
            .expect_err("no unit")
            .to_string();
        assert!(
            error.contains("`worker.memory`")
                && error.contains("`2G` is not")
                && error.contains("512MiB")
                && error.contains(CONFIG_FILE),
            "{error}"
        );
        let sources = Sources {
            environment: vec![("TRANSLOAD_SCHEDULER_PORT".to_owned(), "70000".to_owned())],
            ..Sources::default()
        };
        let error = sources.load().expect_err("too large").to_string();
        assert!(error.contains("TRANSLOAD_SCHEDULER_PORT"), "{error}");
    }

    #[test]
    fn a_file_that_is_missing_or_no_toml_is_an_error() {
        let sources = Sources {
            file: Some("/nowhere/at/all.toml".into()),
            ..Sources::default()
        };
        let error = sources.load().expect_err("missing").to_string();
        assert!(error.contains("/nowhere/at/all.toml"), "{error}");
        let error = file("[worker\n").load().expect_err("broken").to_string();
        assert!(error.contains("not valid TOML"), "{error}");
        assert_eq!(
            Sources::default().load().expect("no file"),
            Config::default()
        );
    }

    #[test]
    fn every_default_reads_back_and_no_two_settings_share_a_name() {
        let mut flags: Vec<&str> = SETTINGS.iter().map(|setting| setting.flag).collect();
        let mut names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        for list in [&mut flags, &mut names] {
            list.sort_unstable();
            let all = list.len();
            list.dedup();
            assert_eq!(list.len(), all);
        }
        let mut config = Config::default();
        for setting in SETTINGS {
            (setting.set)(&mut config, &setting.default_value()).expect(setting.name);
        }
        assert_eq!(config, Config::default());
    }

    #[test]
    fn a_configuration_travels_as_flags() {
        let mut config = Config::default();
        config.worker.memory_bytes = Some(123 << 20);
        config.worker.spill_dir = Some("/fast disk".into());
        let flags = config.to_flags(Command::Worker);
        assert!(flags.contains(&"--memory=123MiB".to_owned()), "{flags:?}");
        assert!(
            flags.contains(&"--spill-dir=/fast disk".to_owned()),
            "{flags:?}"
        );
    }

    #[test]
    fn distances_count_changed_letters() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
