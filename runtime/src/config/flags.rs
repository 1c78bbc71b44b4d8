//! Settings as flags: `clap::Args` made from the table, to be flattened into a command.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command as ClapCommand, FromArgMatches};

use super::table::{SETTINGS, Setting};
use super::{CONFIG_FILE, CONFIG_VARIABLE, Command, Config, ConfigError, Sources};

const CONFIG_FLAG: &str = "config";
const HEADING: &str = "Configuration (also in a file and in the environment)";

/// Settings that `-h` shows; `--help` shows all.
const EVERYDAY: [&str; 7] = [
    "scheduler.host",
    "scheduler.port",
    "scheduler.file",
    "worker.slots",
    "worker.memory",
    "worker.spill_dir",
    "worker.transport",
];

/// Flags given on a command line: settings by name, and the configuration file.
#[derive(Debug, Clone, Default)]
struct Given {
    file: Option<PathBuf>,
    values: Vec<(&'static Setting, String)>,
}

impl Given {
    fn augment(command: Command, clap: ClapCommand) -> ClapCommand {
        let config = Arg::new(CONFIG_FLAG)
            .long(CONFIG_FLAG)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!("Configuration file [env: {CONFIG_VARIABLE}] [default: {CONFIG_FILE} here, if it exists]"))
            .help_heading(HEADING);
        settings_of(command).fold(clap.arg(config), |clap, setting| {
            clap.arg(
                Arg::new(setting.name)
                    .long(setting.flag)
                    .hide_short_help(!EVERYDAY.contains(&setting.name))
                    .value_name(setting.kind)
                    .value_parser(move |text: &str| check(setting, text))
                    .help(format!(
                        "{} [env: {}] [default: {}]",
                        setting.what,
                        setting.variable(),
                        setting.default_value()
                    ))
                    .long_help(format!(
                        "{} Cost: {} Change: {} [env: {}] [default: {}]",
                        setting.what,
                        setting.cost,
                        setting.change,
                        setting.variable(),
                        setting.default_value()
                    ))
                    .help_heading(HEADING),
            )
        })
    }

    fn from_matches(command: Command, matches: &ArgMatches) -> Self {
        Self {
            file: matches.get_one::<PathBuf>(CONFIG_FLAG).cloned(),
            values: settings_of(command)
                .filter_map(|setting| {
                    Some((setting, matches.get_one::<String>(setting.name)?.clone()))
                })
                .collect(),
        }
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Sources {
            file: self.file.clone(),
            flags: self.values.clone(),
            ..Sources::of_process()
        }
        .load()
    }
}

fn settings_of(command: Command) -> impl Iterator<Item = &'static Setting> {
    SETTINGS
        .iter()
        .filter(move |setting| setting.commands.contains(&command))
}

fn check(setting: &Setting, text: &str) -> Result<String, String> {
    (setting.set)(&mut Config::default(), text)
        .map(|()| text.to_owned())
        .map_err(|reason| format!("not {reason}"))
}

macro_rules! flags {
    ($(#[$doc:meta])* $name:ident, $command:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default)]
        pub struct $name(Given);

        impl $name {
            /// The configuration from defaults, file, environment and these flags.
            ///
            /// # Errors
            /// [`ConfigError`] names the source and the remedy.
            pub fn load(&self) -> Result<Config, ConfigError> {
                self.0.load()
            }
        }

        impl FromArgMatches for $name {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self(Given::from_matches($command, matches)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                self.0 = Given::from_matches($command, matches);
                Ok(())
            }
        }

        impl Args for $name {
            fn augment_args(command: ClapCommand) -> ClapCommand {
                Given::augment($command, command)
            }

            fn augment_args_for_update(command: ClapCommand) -> ClapCommand {
                Given::augment($command, command)
            }
        }
    };
}

flags!(
    /// Flags of `transload scheduler`; flatten into its command.
    SchedulerFlags,
    Command::Scheduler
);
flags!(
    /// Flags of `transload worker`; flatten into its command.
    WorkerFlags,
    Command::Worker
);
flags!(
    /// Flags of `transload sql` and other commands that are clients and may start a local cluster; flatten into them.
    SqlFlags,
    Command::Sql
);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<WorkerFlags, clap::Error> {
        let command = WorkerFlags::augment_args(ClapCommand::new("worker"));
        let matches = command.try_get_matches_from([&["worker"], arguments].concat())?;
        WorkerFlags::from_arg_matches(&matches)
    }

    #[test]
    fn a_flag_sets_its_setting() {
        let flags = parse(&["--memory", "2GiB", "--slots=3"]).expect("parses");
        let values: Vec<_> = flags
            .0
            .values
            .iter()
            .map(|(setting, value)| (setting.name, value.as_str()))
            .collect();
        assert_eq!(values, [("worker.slots", "3"), ("worker.memory", "2GiB")]);
    }

    #[test]
    fn a_bad_flag_is_refused_with_its_remedy() {
        let text = parse(&["--memory", "2G"])
            .expect_err("no such unit")
            .to_string();
        assert!(
            text.contains("--memory") && text.contains("512MiB"),
            "{text}"
        );
        assert!(
            parse(&["--port", "1"]).is_err(),
            "a worker has no such flag"
        );
    }

    #[test]
    fn the_commands_flags_are_sound() {
        SchedulerFlags::augment_args(ClapCommand::new("scheduler")).debug_assert();
        WorkerFlags::augment_args(ClapCommand::new("worker")).debug_assert();
        SqlFlags::augment_args(ClapCommand::new("sql")).debug_assert();
    }
}
