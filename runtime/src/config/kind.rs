//! Kinds of values: how each reads and prints.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use transload_protocol::Amount;

use super::{DashboardChoice, Fsync};
use crate::gpu::GpuChoice;
use crate::transports::TransportChoice;

/// How values of one kind read and print. A printed value reads back as the same.
pub(super) struct Kind<T: 'static> {
    /// Shown in help and in the README.
    pub(super) name: &'static str,
    /// The error completes the sentence "`VALUE` is not ...".
    pub(super) parse: fn(&str) -> Result<T, String>,
    pub(super) print: fn(&T) -> String,
}

pub(super) const TEXT: Kind<String> = Kind {
    name: "text",
    parse: non_empty,
    print: String::clone,
};

pub(super) const OPTIONAL_TEXT: Kind<Option<String>> = Kind {
    name: "text",
    parse: |text| optional(text, non_empty),
    print: |value| print_optional(value, String::clone),
};

pub(super) const OPTIONAL_PATH: Kind<Option<PathBuf>> = Kind {
    name: "path",
    parse: |text| optional(text, |text| non_empty(text).map(PathBuf::from)),
    print: |value| print_optional(value, |path| path.display().to_string()),
};

pub(super) const COUNT: Kind<u32> = Kind {
    name: "count",
    parse: parse_count,
    print: u32::to_string,
};

pub(super) const OPTIONAL_COUNT: Kind<Option<u32>> = Kind {
    name: "count",
    parse: |text| optional(text, parse_count),
    print: |value| print_optional(value, u32::to_string),
};

/// 0 is allowed.
pub(super) const NUMBER: Kind<u32> = Kind {
    name: "number",
    parse: |text| {
        text.parse()
            .map_err(|_| "a whole number from 0 to 4294967295".to_owned())
    },
    print: u32::to_string,
};

pub(super) const PORT: Kind<u16> = Kind {
    name: "port",
    parse: |text| {
        text.parse()
            .map_err(|_| "a port; write a number from 0 (a free one) to 65535".to_owned())
    },
    print: u16::to_string,
};

pub(super) const DASHBOARD: Kind<DashboardChoice> = Kind {
    name: "dashboard",
    parse: |text| match text {
        "auto" => Ok(DashboardChoice::Auto),
        "off" => Ok(DashboardChoice::Off),
        _ => text
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty())
            .and_then(|(host, port)| {
                let host = host
                    .trim_start_matches('[')
                    .trim_end_matches(']')
                    .to_owned();
                let port = port.parse().ok()?;
                Some(DashboardChoice::At { host, port })
            })
            .ok_or_else(|| {
                "a place for a dashboard; write `auto`, `off`, or HOST:PORT as in 127.0.0.1:8787"
                    .to_owned()
            }),
    },
    print: |choice| match choice {
        DashboardChoice::Auto => "auto".to_owned(),
        DashboardChoice::Off => "off".to_owned(),
        DashboardChoice::At { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        DashboardChoice::At { host, port } => format!("{host}:{port}"),
    },
};

pub(super) const PERCENT: Kind<u8> = Kind {
    name: "percent",
    parse: |text| match text.trim_end_matches('%').parse() {
        Ok(percent @ 1..=100) => Ok(percent),
        _ => Err("a percentage; write a number from 1 to 100".to_owned()),
    },
    print: u8::to_string,
};

/// Something is left for the rest.
pub(super) const SHARE: Kind<u8> = Kind {
    name: "percent",
    parse: |text| match text.trim_end_matches('%').parse() {
        Ok(percent @ 1..=99) => Ok(percent),
        _ => Err("a share; write a number of percent from 1 to 99".to_owned()),
    },
    print: u8::to_string,
};

pub(super) const BYTES: Kind<u64> = Kind {
    name: "bytes",
    parse: parse_bytes,
    print: |bytes| format_bytes(*bytes),
};

/// The size of a piece, which has its limits.
pub(super) const CHUNK_BYTES: Kind<u32> = Kind {
    name: "bytes",
    parse: |text| match parse_bytes(text).map(u32::try_from) {
        Ok(Ok(bytes @ 0x1000..=0x0100_0000)) => Ok(bytes),
        _ => Err("a size from 4KiB to 16MiB; write it as in 256KiB or 1MiB".to_owned()),
    },
    print: |bytes| format_bytes((*bytes).into()),
};

pub(super) const OPTIONAL_BYTES: Kind<Option<u64>> = Kind {
    name: "bytes",
    parse: |text| optional(text, parse_bytes),
    print: |value| print_optional(value, |bytes| format_bytes(*bytes)),
};

/// `u64::MAX` is written `unlimited`.
pub(super) const LIMIT_BYTES: Kind<u64> = Kind {
    name: "bytes",
    parse: |text| match text {
        "unlimited" => Ok(u64::MAX),
        _ => parse_bytes(text),
    },
    print: |bytes| match *bytes {
        u64::MAX => "unlimited".to_owned(),
        bytes => format_bytes(bytes),
    },
};

pub(super) const DURATION: Kind<Duration> = Kind {
    name: "duration",
    parse: parse_duration,
    print: |duration| format_duration(*duration),
};

/// Zero is allowed.
pub(super) const GRACE: Kind<Duration> = Kind {
    name: "duration",
    parse: |text| match text.trim() {
        "0" | "0ms" | "0s" => Ok(Duration::ZERO),
        text => parse_duration(text),
    },
    print: |duration| format_duration(*duration),
};

/// Zero is allowed, and microseconds count.
pub(super) const OPTIONAL_SPIN: Kind<Option<Duration>> = Kind {
    name: "duration",
    parse: |text| optional(text, parse_spin),
    print: |value| print_optional(value, |spin| format!("{}us", spin.as_micros())),
};

pub(super) const TRANSPORT: Kind<TransportChoice> = Kind {
    name: "auto, tcp, ucx",
    parse: TransportChoice::from_str,
    print: TransportChoice::to_string,
};

pub(super) const GPU: Kind<GpuChoice> = Kind {
    name: "auto, none, number",
    parse: GpuChoice::from_str,
    print: GpuChoice::to_string,
};

pub(super) const FSYNC: Kind<Fsync> = Kind {
    name: "fsync",
    parse: |text| match text {
        "always" => Ok(Fsync::Always),
        "never" => Ok(Fsync::Never),
        _ => parse_duration(text)
            .map(Fsync::Within)
            .map_err(|_| "`always`, `never`, or a time as in 100ms".to_owned()),
    },
    print: |fsync| match fsync {
        Fsync::Always => "always".to_owned(),
        Fsync::Within(delay) => format_duration(*delay),
        Fsync::Never => "never".to_owned(),
    },
};

pub(super) const NAMES: Kind<BTreeSet<String>> = Kind {
    name: "names",
    parse: parse_names,
    print: |names| {
        if names.is_empty() {
            return NONE.to_owned();
        }
        names.iter().cloned().collect::<Vec<_>>().join(",")
    },
};

pub(super) const AMOUNTS: Kind<BTreeMap<String, Amount>> = Kind {
    name: "amounts",
    parse: parse_amounts,
    print: |amounts| {
        if amounts.is_empty() {
            return NONE.to_owned();
        }
        let parts: Vec<String> = amounts
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect();
        parts.join(",")
    },
};

const AUTO: &str = "auto";
const NONE: &str = "none";

const UNITS: [(&str, u64); 10] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// Bytes from a text such as `2GiB`, `1.5 GiB`, `500MB` or `4096`.
///
/// # Errors
/// What it should be, completing the sentence "`TEXT` is not ...".
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || "a number of bytes; write it as in 512MiB, 2GiB, 10GB or 4096".to_owned();
    let text = text.trim();
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
        .unwrap_or((text, 1));
    let (whole, fraction) = match number.trim().split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number.trim(), None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || fraction.is_some_and(|fraction| !digits(fraction) || fraction.len() > 9) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part = match fraction {
        None => 0,
        Some(fraction) => {
            let numerator: u128 = fraction.parse().map_err(|_| wrong())?;
            let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
            u64::try_from(u128::from(unit) * numerator / scale).map_err(|_| wrong())?
        }
    };
    whole
        .checked_mul(unit)
        .and_then(|bytes| bytes.checked_add(part))
        .ok_or_else(|| "a number of bytes below 16 EiB".to_owned())
}

/// Bytes as [`parse_bytes`] reads them, in the largest binary unit that loses nothing.
pub fn format_bytes(bytes: u64) -> String {
    let unit = UNITS
        .iter()
        .take(4)
        .rev()
        .find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit));
    match unit {
        Some((suffix, unit)) => format!("{}{suffix}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// A duration as options have it, as in `500ms`, `10s` or `2min`.
///
/// # Errors
/// What it should be, to be put behind "is not".
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a duration; write it as in 500ms, 10s or 2min".to_owned();
    let text = text.trim();
    let split = text
        .find(|character: char| !character.is_ascii_digit())
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "min" | "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    match number.checked_mul(millis) {
        // Machines count milliseconds in 32 bits.
        Some(millis) if millis > 0 && u32::try_from(millis).is_ok() => {
            Ok(Duration::from_millis(millis))
        }
        _ => Err("a duration between 1ms and 49 days".to_owned()),
    }
}

fn parse_spin(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(1);
    let wrong = || "a time up to 1s; write it as in 0us, 100us or 2ms".to_owned();
    let micros = text.trim().strip_suffix("us").map(str::trim);
    let spin = match micros.map(str::parse) {
        Some(micros) => Duration::from_micros(micros.map_err(|_| wrong())?),
        None => (GRACE.parse)(text).map_err(|_| wrong())?,
    };
    if spin <= MOST { Ok(spin) } else { Err(wrong()) }
}

fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1_000) {
        format!("{}s", millis / 1_000)
    } else {
        format!("{millis}ms")
    }
}

fn parse_count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("a whole number above 0".to_owned()),
    }
}

fn non_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("a text; it is empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn parse_names(text: &str) -> Result<BTreeSet<String>, String> {
    if text.is_empty() || text == NONE {
        return Ok(BTreeSet::new());
    }
    text.split(',')
        .map(str::trim)
        .map(|name| (!name.is_empty()).then(|| name.to_owned()))
        .collect::<Option<_>>()
        .ok_or_else(|| "a list of names; write it as in ssd,rack7".to_owned())
}

fn parse_amounts(text: &str) -> Result<BTreeMap<String, Amount>, String> {
    if text.is_empty() || text == NONE {
        return Ok(BTreeMap::new());
    }
    text.split(',')
        .map(|part| {
            let (name, amount) = part.split_once('=')?;
            let name = name.trim();
            let amount = amount.trim().parse::<Amount>().ok()?;
            (!name.is_empty()).then(|| (name.to_owned(), amount))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| "a list of amounts; write it as in gpu=1,licence=2".to_owned())
}

fn optional<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text == AUTO {
        Ok(None)
    } else {
        parse(text)
            .map(Some)
            .map_err(|reason| format!("`{AUTO}` or {reason}"))
    }
}

fn print_optional<T>(value: &Option<T>, print: impl FnOnce(&T) -> String) -> String {
    value.as_ref().map_or_else(|| AUTO.to_owned(), print)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_sizes_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("12B", 12),
            ("2GiB", 2 << 30),
            ("1.5 GiB", 3 << 29),
            ("10GB", 10_000_000_000),
            ("0.25KiB", 256),
            ("3kB", 3_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "GiB",
            "2G",
            "-1",
            "1e9",
            "2 gib",
            "1..5GiB",
            "1.GiB",
            "99999999TiB",
            "0x10",
            "+5",
        ] {
            let reason = parse_bytes(text).expect_err(text);
            assert!(reason.starts_with("a number of bytes"), "{text}: {reason}");
        }
    }

    #[test]
    fn a_printed_byte_size_reads_back() {
        for bytes in [0, 1, 1023, 1024, 1 << 20, (1 << 30) + 1, 3 << 40, u64::MAX] {
            assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("250 ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2min"), Ok(Duration::from_secs(120)));
        for text in ["10", "", "s", "0s", "1.5s", "99999999h", "-1s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(format_duration(Duration::from_millis(1_500)), "1500ms");
    }

    #[test]
    fn amounts_are_a_list_of_names_and_numbers() {
        assert_eq!(
            parse_amounts("gpu=1, licence=2.5"),
            Ok([
                ("gpu".to_owned(), Amount::whole(1)),
                ("licence".to_owned(), Amount::ten_thousandths(25_000))
            ]
            .into())
        );
        for text in ["gpu", "=1", "gpu=x", "gpu=1,,", "gpu=-1"] {
            assert!(parse_amounts(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_a_list() {
        let names = Ok(["ssd".to_owned(), "rack7".to_owned()].into());
        assert_eq!(parse_names("ssd, rack7"), names);
        assert_eq!(parse_names("none"), Ok(BTreeSet::new()));
        assert!(parse_names("ssd,,rack7").is_err());
    }

    #[test]
    fn a_spin_is_told_in_microseconds() {
        for (text, micros) in [
            ("0us", 0),
            ("0", 0),
            ("100 us", 100),
            ("2ms", 2_000),
            ("1s", 1_000_000),
        ] {
            let spin = (OPTIONAL_SPIN.parse)(text).expect(text);
            assert_eq!(spin, Some(Duration::from_micros(micros)));
            let printed = (OPTIONAL_SPIN.print)(&spin);
            assert_eq!((OPTIONAL_SPIN.parse)(&printed), Ok(spin));
        }
        for text in ["", "us", "-1us", "100", "2s", "1000001us"] {
            assert!((OPTIONAL_SPIN.parse)(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_grace_may_be_none_at_all() {
        assert_eq!((GRACE.parse)("0ms"), Ok(Duration::ZERO));
        assert_eq!(
            (GRACE.parse)(&(GRACE.print)(&Duration::ZERO)),
            Ok(Duration::ZERO)
        );
        assert_eq!((GRACE.parse)("3s"), Ok(Duration::from_secs(3)));
    }
}
