//! The table of cases. Each runs in a process of its own and tells facts; what is wrong on purpose is said by its name.
//!
//! Called by `main`. A new case needs an answer recorded on hardware, or `cargo test` says that it lacks one.

mod allocate;
mod blocking;
mod context;
mod copy;
mod event;
mod fault;
mod host;
mod ipc;
mod ipc_parts;
mod launch;
mod limits;
mod module;
mod pointer;
mod pool;
mod stream;
mod surroundings;
mod virtual_memory;

pub(crate) use self::ipc_parts::to_hex;
use crate::facts::Facts;

/// One question to the driver.
pub(crate) struct Case {
    /// `part/question`.
    pub(crate) name: &'static str,
    /// What is asked, in a few words.
    pub(crate) about: &'static str,
    /// Asks it.
    pub(crate) run: fn(&Facts),
}

/// Declares the table `$table` of cases: name, what is asked, what asks it.
macro_rules! cases {
    ($table:ident; $($name:literal, $about:literal, $run:expr;)*) => {
        /// The cases of this file.
        pub(crate) const $table: &[$crate::cases::Case] = &[
            $($crate::cases::Case { name: $name, about: $about, run: $run },)*
        ];
    };
}
pub(crate) use cases;

/// A part of a case that runs in another process: its name and what it does with its arguments.
pub(crate) type Helper = (&'static str, fn(&Facts, &[String]));

/// All helpers.
pub(crate) const HELPERS: &[Helper] = ipc_parts::HELPERS;

/// All cases, in the order in which they run.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [
        surroundings::CASES,
        context::CASES,
        allocate::CASES,
        pool::CASES,
        pointer::CASES,
        virtual_memory::CASES,
        host::CASES,
        copy::CASES,
        blocking::CASES,
        stream::CASES,
        event::CASES,
        module::CASES,
        launch::CASES,
        fault::CASES,
        ipc::CASES,
        limits::CASES,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::Report;

    const H100: &str = include_str!("../../recorded/h100.json");

    #[test]
    fn every_case_has_an_answer_recorded_on_hardware_and_every_answer_its_case() {
        let recorded: Report = serde_json::from_str(H100).expect("a report");
        let names: BTreeSet<&str> = all().map(|case| case.name).collect();
        let answered: BTreeSet<&str> = recorded.cases.keys().map(String::as_str).collect();
        assert_eq!(names, answered);
    }

    #[test]
    fn a_recorded_report_does_not_differ_from_itself() {
        let recorded: Report = serde_json::from_str(H100).expect("a report");
        let names: Vec<&str> = all().map(|case| case.name).collect();
        assert_eq!(
            recorded.differences(&recorded, &names),
            Vec::<String>::new()
        );
    }

    #[test]
    fn no_two_cases_share_a_name_and_each_says_what_it_asks() {
        let mut seen = BTreeSet::new();
        for case in all() {
            assert!(seen.insert(case.name), "{} twice", case.name);
            assert!(!case.about.is_empty(), "{}", case.name);
        }
    }
}
