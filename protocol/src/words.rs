//! Durations and counts as people read them, in errors and explanations.
//!
//! Called wherever a sentence is put together. Rounds; nothing reads these texts back.

/// A duration, to two or three digits: `870 us`, `250 ms`, `3.2 s`, `41 s`, `5 min 20 s`, `3 h 12 min`.
pub fn duration(micros: u64) -> String {
    const SECOND: u64 = 1_000_000;
    let seconds = micros.saturating_add(SECOND / 2) / SECOND;
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ if micros < 10 * SECOND && !micros.is_multiple_of(SECOND) => {
            format!("{}.{} s", micros / SECOND, micros % SECOND / 100_000)
        }
        _ if seconds < 120 => format!("{seconds} s"),
        _ if seconds < 7_200 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// A number with its thousands set apart: `1,000,000`.
pub fn count(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_to_what_people_care_about() {
        let texts = [
            (0, "0 us"),
            (870, "870 us"),
            (250_999, "250 ms"),
            (1_000_000, "1 s"),
            (3_240_000, "3.2 s"),
            (9_990_000, "9.9 s"),
            (30_000_000, "30 s"),
            (41_499_999, "41 s"),
            (320_000_000, "5 min 20 s"),
            (11_520_000_000, "3 h 12 min"),
        ];
        for (micros, text) in texts {
            assert_eq!(duration(micros), text);
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        let texts = [
            (0, "0"),
            (812, "812"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, text) in texts {
            assert_eq!(count(number as u64), text);
        }
    }
}
