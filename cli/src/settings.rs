//! `transload config`: the configuration in effect, as a file that can be edited and used.

use std::io::{self, Write};

use transload_runtime::config::{SETTINGS, Sources, markdown_table};

use crate::args::ConfigArgs;
use crate::cluster::config_failure;
use crate::failure::{Failure, io_failure};

/// Prints every option with its value.
pub(crate) fn run(args: ConfigArgs) -> Result<(), Failure> {
    let text = if args.markdown {
        markdown_table()
    } else {
        as_toml(args)?
    };
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| io_failure("cannot write to standard output", &error))
}

fn as_toml(args: ConfigArgs) -> Result<String, Failure> {
    let sources = Sources {
        file: args.config,
        ..Sources::of_process()
    };
    let config = sources.load().map_err(|error| config_failure(&error))?;
    let mut text = String::from(
        "# The configuration in effect: defaults, then the file, then the environment; flags win over all of them.\n",
    );
    let mut section = "";
    for setting in SETTINGS {
        let (in_section, key) = setting.name.split_once('.').unwrap_or(("", setting.name));
        if in_section != section {
            section = in_section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.push_str(&format!(
            "# {}\n#   default {}, environment {}, flag --{}\n{key} = {}\n",
            setting.what,
            setting.default_value(),
            setting.variable(),
            setting.flag,
            quoted(&setting.value(&config)),
        ));
    }
    Ok(text)
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control.is_control() => {
                quoted.push_str(&format!("\\u{:04X}", u32::from(control)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_printed_and_reads_back() {
        let text = as_toml(ConfigArgs {
            config: None,
            markdown: false,
        })
        .expect("prints");
        for setting in SETTINGS {
            assert!(text.contains(setting.what), "{}", setting.name);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("copy.toml");
        std::fs::write(&path, &text).expect("writes");
        let args = ConfigArgs {
            config: Some(path),
            markdown: false,
        };
        assert_eq!(as_toml(args).expect("reads back"), text);
    }

    #[test]
    fn a_value_is_quoted_as_toml_wants_it() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000A\"");
    }
}
