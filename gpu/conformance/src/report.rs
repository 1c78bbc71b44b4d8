//! A report: what all cases found, as JSON and as a table, and how one differs from a recorded one.
//!
//! Called by `main`. Pure: knows neither processes nor CUDA.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::facts::Line;

/// The answers of one driver on one machine.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// By case and name: what every driver must answer alike.
    pub(crate) cases: BTreeMap<String, BTreeMap<String, Value>>,
    /// By case and name: what is true of this device, machine or driver version.
    pub(crate) environment: BTreeMap<String, BTreeMap<String, Value>>,
    /// By measurement and name. Never compared.
    pub(crate) measured: BTreeMap<String, BTreeMap<String, Measured>>,
}

/// A number with its unit.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// The median.
    pub(crate) value: f64,
    /// "us", "GB/s" and the like.
    pub(crate) unit: String,
}

impl Report {
    /// Notes what `case` told.
    pub(crate) fn note(&mut self, case: &str, line: Line) {
        match line {
            Line::Fact(name, value) => {
                self.cases
                    .entry(case.to_owned())
                    .or_default()
                    .insert(name, value);
            }
            Line::Environment(name, value) => {
                self.environment
                    .entry(case.to_owned())
                    .or_default()
                    .insert(name, value);
            }
            Line::Measured(name, value, unit) => {
                let of_case = self.measured.entry(case.to_owned()).or_default();
                of_case.insert(name, Measured { value, unit });
            }
            Line::Waits => {}
        }
    }

    /// One sentence for each fact of a case in `of` that is not as `expected` has it. `of`: the cases that ran.
    pub(crate) fn differences(&self, expected: &Self, of: &[&str]) -> Vec<String> {
        let nothing = BTreeMap::new();
        let mut differences = Vec::new();
        for case in of {
            let Some(recorded) = expected.cases.get(*case) else {
                differences.push(format!("{case}: no answer is recorded"));
                continue;
            };
            let found = self.cases.get(*case).unwrap_or(&nothing);
            for (name, value) in recorded {
                match found.get(name) {
                    None => {
                        differences.push(format!("{case}: {name}: no answer, recorded is {value}"))
                    }
                    Some(other) if other != value => {
                        differences.push(format!("{case}: {name}: {other}, recorded is {value}"));
                    }
                    Some(_) => {}
                }
            }
            for (name, value) in found
                .iter()
                .filter(|(name, _)| !recorded.contains_key(*name))
            {
                differences.push(format!("{case}: {name}: {value}, nothing is recorded"));
            }
        }
        differences
    }

    /// All of it for people, one line for each answer.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let plain = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        for (title, part) in [("facts", &self.cases), ("environment", &self.environment)] {
            for (case, answers) in part {
                let _ = writeln!(text, "{case} ({title})");
                for (name, value) in answers {
                    let _ = writeln!(text, "    {name:<56} {}", plain(value));
                }
            }
        }
        for (case, numbers) in &self.measured {
            let _ = writeln!(text, "{case} (measured)");
            for (name, Measured { value, unit }) in numbers {
                let _ = writeln!(text, "    {name:<56} {value:.2} {unit}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(facts: &[(&str, &str, i32)]) -> Report {
        let mut report = Report::default();
        for (case, name, value) in facts {
            report.note(case, Line::Fact((*name).to_owned(), Value::from(*value)));
        }
        report
    }

    #[test]
    fn equal_facts_are_no_difference_whatever_was_measured() {
        let mut found = report(&[("a", "x", 1)]);
        found.note(
            "a",
            Line::Measured("speed".to_owned(), 2.5, "us".to_owned()),
        );
        found.note("a", Line::Environment("memory".to_owned(), Value::from(80)));
        assert_eq!(
            found.differences(&report(&[("a", "x", 1)]), &["a"]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_different_a_missing_and_an_unrecorded_fact_are_each_named() {
        let found = report(&[("a", "x", 1), ("a", "z", 3)]);
        let differences = found.differences(&report(&[("a", "x", 2), ("a", "y", 5)]), &["a"]);
        assert_eq!(
            differences,
            [
                "a: x: 1, recorded is 2",
                "a: y: no answer, recorded is 5",
                "a: z: 3, nothing is recorded"
            ]
        );
    }

    #[test]
    fn a_case_without_a_recorded_answer_is_named_and_one_that_did_not_run_is_not() {
        let found = report(&[("a", "x", 1)]);
        let expected = report(&[("b", "x", 1)]);
        assert_eq!(
            found.differences(&expected, &["a"]),
            ["a: no answer is recorded"]
        );
        assert_eq!(found.differences(&expected, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_report_survives_being_written_and_read() {
        let mut report = report(&[("a", "x", 1)]);
        report.note(
            "m",
            Line::Measured("speed".to_owned(), 2.5, "us".to_owned()),
        );
        let text = serde_json::to_string(&report).expect("written");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("read"), report);
        assert!(report.table().contains("speed"));
    }
}
