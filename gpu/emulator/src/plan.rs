//! The fault plan: which calls and which operations fail, and with which code.
//!
//! `CUDA_EMULATOR_FAULTS` holds entries between commas: `cuMemAlloc_v2@3=CUDA_ERROR_OUT_OF_MEMORY` fails the third call of that
//! function, `cuMemAlloc_v2%10=...` ten calls of a hundred, by the seed of `seed=7` or of chaos. `launch` and `copy` name what a
//! stream runs instead of a call: the nth kernel or copy then ends with that code when its turn comes.

use std::sync::Mutex;

use crate::call::{lock, say};
use crate::code::{Answer, Code};

/// The plan and how far it is.
#[derive(Debug)]
pub(crate) struct Plan {
    entries: Vec<Mutex<Entry>>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    when: When,
    code: Code,
    seen: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum When {
    /// At the nth time, counted from 1.
    Nth(u64),
    /// So many times in a hundred; the state of its random numbers.
    Percent { percent: u64, random: Random },
}

/// Random numbers of a seed (xorshift64*).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).max(1))
    }

    /// The next number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit
    }
}

impl Plan {
    /// Reads a plan. A bad entry is a sentence that names it.
    pub(crate) fn read(text: &str, chaos: u64) -> Result<Self, String> {
        let parts = || {
            text.split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
        };
        let bad = |part: &str, why: &str| {
            format!(
                "the fault {part:?} of {} {why}, as in cuMemAlloc_v2@3=CUDA_ERROR_OUT_OF_MEMORY",
                crate::settings::FAULTS
            )
        };
        let mut seed = chaos;
        for part in parts() {
            if let Some(number) = part.strip_prefix("seed=") {
                seed = number
                    .parse()
                    .map_err(|_| bad(part, "needs a number as its seed"))?;
            }
        }
        let mut entries = Vec::new();
        for (index, part) in parts()
            .filter(|part| !part.starts_with("seed="))
            .enumerate()
        {
            let (what, code) = part
                .split_once('=')
                .ok_or_else(|| bad(part, "needs a code"))?;
            let code =
                Code::named(code.trim()).ok_or_else(|| bad(part, "names no code of the driver"))?;
            let number = |text: &str| text.trim().parse::<u64>().ok().filter(|number| *number > 0);
            let (name, when) = if let Some((name, nth)) = what.split_once('@') {
                (
                    name,
                    When::Nth(
                        number(nth)
                            .ok_or_else(|| bad(part, "needs a number from 1 on behind @"))?,
                    ),
                )
            } else if let Some((name, percent)) = what.split_once('%') {
                let percent = number(percent)
                    .filter(|percent| *percent <= 100)
                    .ok_or_else(|| bad(part, "needs 1 to 100 behind %"))?;
                (
                    name,
                    When::Percent {
                        percent,
                        random: Random::new(seed.wrapping_add(index as u64 * 7919)),
                    },
                )
            } else {
                return Err(bad(part, "does not say when"));
            };
            let name = name.trim().to_owned();
            let is_known = matches!(name.as_str(), "launch" | "copy")
                || crate::symbols::exists(&name)
                || crate::cufile::FUNCTIONS.contains(&name.as_str());
            if !is_known {
                return Err(bad(
                    part,
                    "names no function of the driver or of cuFile, nor launch or copy",
                ));
            }
            entries.push(Mutex::new(Entry {
                name,
                when,
                code,
                seen: 0,
            }));
        }
        Ok(Self { entries })
    }

    /// What the plan has for this call of `name`; a stream asks for `launch` and `copy` when it runs one.
    pub(crate) fn at_call(&self, name: &str) -> Answer {
        self.entries.iter().try_for_each(|entry| {
            let mut entry = lock(entry);
            if entry.name == name && entry.is_due() {
                say!(
                    "{name} fails as planned, the {} time it was called",
                    entry.seen
                );
                return Err(entry.code);
            }
            Ok(())
        })
    }
}

impl Entry {
    fn is_due(&mut self) -> bool {
        self.seen += 1;
        match &mut self.when {
            When::Nth(nth) => self.seen == *nth,
            When::Percent { percent, random } => random.below(100) < *percent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_call_fails_and_no_other() {
        let plan = Plan::read(
            "cuMemAlloc_v2@2=CUDA_ERROR_OUT_OF_MEMORY, launch@1=ECC_UNCORRECTABLE",
            0,
        )
        .expect("a plan");
        let calls: Vec<Answer> = (0..3).map(|_| plan.at_call("cuMemAlloc_v2")).collect();
        assert_eq!(calls, [Ok(()), Err(Code::OUT_OF_MEMORY), Ok(())]);
        assert_eq!(plan.at_call("cuMemFree_v2"), Ok(()));
        assert_eq!(plan.at_call("launch"), Err(Code::ECC_UNCORRECTABLE));
    }

    #[test]
    fn the_same_seed_fails_the_same_calls() {
        let fails = |plan: &str| {
            let plan = Plan::read(plan, 0).expect("a plan");
            (0..200)
                .map(|_| plan.at_call("cuMemAlloc_v2").is_err())
                .collect::<Vec<_>>()
        };
        let first = fails("seed=7,cuMemAlloc_v2%10=OUT_OF_MEMORY");
        assert_eq!(first, fails("seed=7,cuMemAlloc_v2%10=OUT_OF_MEMORY"));
        assert_ne!(first, fails("seed=8,cuMemAlloc_v2%10=OUT_OF_MEMORY"));
        assert!((5..40).contains(&first.iter().filter(|fails| **fails).count()));
    }

    #[test]
    fn a_bad_plan_is_told_with_its_remedy() {
        for bad in [
            "cuMemAlloc_v2@3",
            "cuMemAlloc_v2@0=OUT_OF_MEMORY",
            "cuNothing@1=OUT_OF_MEMORY",
            "cuInit@1=BAD_LUCK",
            "cuInit=UNKNOWN",
            "cuInit%101=UNKNOWN",
            "seed=x",
        ] {
            let sentence = Plan::read(bad, 0).expect_err(bad);
            assert!(sentence.contains("as in cuMemAlloc_v2@3"), "{sentence}");
        }
    }
}
