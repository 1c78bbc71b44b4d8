//! Asks a CUDA driver what it does, case by case, and compares its answers with those of another.
//!
//! The emulator and the `gpu` crate are built against what this recorded on hardware (`docs/gpu-facts.md`). Knows CUDA and
//! nothing else of ours. `unsafe` is what it is made of: it calls a C library, often wrongly and on purpose.
//!
//!     gpu-conformance [--json FILE] [--expect FILE] [--only PREFIX] [--measure] [--list]
//!
//! Ends with 0, with 1 where an answer differs from the expected one, with 2 for bad arguments, with 77 without a driver.

#[allow(
    clippy::wildcard_imports,
    reason = "a case reads like the C programs of the driver's documentation"
)]
mod cases;
mod child;
mod facts;
mod kernels;
#[allow(clippy::wildcard_imports, reason = "as for the cases")]
mod measures;
mod other_libraries;
mod report;
mod tools;

use std::process::ExitCode;
use std::time::Duration;

use transload_cuda_driver as driver;

use crate::cases::{Case, HELPERS};
use crate::child::Process;
use crate::facts::Facts;
use crate::report::Report;

/// How long one case may take before it is killed.
const CASE_LIMIT: Duration = Duration::from_secs(30);

/// What the command line asks for.
#[derive(Debug, Default)]
struct Arguments {
    json: Option<String>,
    expect: Option<String>,
    only: Option<String>,
    measure: bool,
    list: bool,
    case: Option<String>,
    helper: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(sentence) => return fail(2, &sentence),
    };
    if arguments.list {
        for case in cases::all().chain(measures::ALL) {
            println!("{:<28} {}", case.name, case.about);
        }
        return ExitCode::SUCCESS;
    }
    if !driver::is_present() {
        return fail(
            77,
            "there is no CUDA driver here: libcuda.so.1 was not found",
        );
    }
    if let Some((name, rest)) = arguments.helper.split_first() {
        return run_helper(name, rest);
    }
    if let Some(name) = &arguments.case {
        return run_one(name);
    }
    run_all(&arguments)
}

fn fail(code: u8, sentence: &str) -> ExitCode {
    eprintln!("gpu-conformance: {sentence}");
    ExitCode::from(code)
}

fn parse(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    while let Some(word) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--json" => arguments.json = Some(value()?),
            "--expect" => arguments.expect = Some(value()?),
            "--only" => arguments.only = Some(value()?),
            "--case" => arguments.case = Some(value()?),
            "--measure" => arguments.measure = true,
            "--list" => arguments.list = true,
            "--helper" => {
                arguments.helper = given.collect();
                return Ok(arguments);
            }
            _ => {
                return Err(format!(
                    "what is {word}? See the first lines of gpu/conformance/src/main.rs"
                ));
            }
        }
    }
    Ok(arguments)
}

fn run_helper(name: &str, arguments: &[String]) -> ExitCode {
    match HELPERS.iter().find(|(known, _)| *known == name) {
        Some((_, run)) => {
            run(&Facts::default(), arguments);
            ExitCode::SUCCESS
        }
        None => fail(2, &format!("there is no helper {name}")),
    }
}

fn run_one(name: &str) -> ExitCode {
    match cases::all()
        .chain(measures::ALL)
        .find(|case| case.name == name)
    {
        Some(case) => {
            (case.run)(&Facts::default());
            ExitCode::SUCCESS
        }
        None => fail(2, &format!("there is no case {name}")),
    }
}

fn run_all(arguments: &Arguments) -> ExitCode {
    let wanted = |case: &&Case| {
        arguments
            .only
            .as_ref()
            .is_none_or(|only| case.name.starts_with(only))
    };
    let measures = measures::ALL.iter().filter(|_| arguments.measure);
    let mut report = Report::default();
    for case in cases::all().chain(measures).filter(wanted) {
        eprintln!("{}", case.name);
        if let Err(error) = run_case(case, &mut report) {
            return fail(1, &format!("{} did not start: {error}", case.name));
        }
        // After each, so that a machine that is taken away keeps what was asked.
        if let Some(file) = &arguments.json
            && let Err(error) = write(file, &report)
        {
            return fail(1, &format!("{file} was not written: {error}"));
        }
    }
    print!("{}", report.table());
    let ran: Vec<&str> = cases::all().filter(wanted).map(|case| case.name).collect();
    arguments
        .expect
        .as_ref()
        .map_or(ExitCode::SUCCESS, |file| compare(&report, file, &ran))
}

fn run_case(case: &Case, report: &mut Report) -> std::io::Result<()> {
    let mut process = Process::start(&["--case", case.name], CASE_LIMIT)?;
    while let Some(line) = process.next() {
        report.note(case.name, line);
    }
    let end = facts::Line::Fact("process".to_owned(), process.end().into());
    if !case.name.starts_with("measure/") {
        report.note(case.name, end);
    }
    Ok(())
}

fn write(file: &str, report: &Report) -> Result<(), String> {
    let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    std::fs::write(file, text + "\n").map_err(|error| error.to_string())
}

fn compare(report: &Report, file: &str, ran: &[&str]) -> ExitCode {
    let expected = std::fs::read_to_string(file)
        .map_err(|error| error.to_string())
        .and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
    let differences = match expected {
        Ok(expected) => report.differences(&expected, ran),
        Err(error) => return fail(2, &format!("{file} holds no report: {error}")),
    };
    for difference in &differences {
        println!("differs: {difference}");
    }
    println!(
        "{} cases, {} differences from {file}",
        ran.len(),
        differences.len()
    );
    ExitCode::from(u8::from(!differences.is_empty()))
}
