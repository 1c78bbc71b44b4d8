//! Damaged texts: whatever is in them, loading ends with a module or an error, and running with counters or a fault.

use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use transload_ptx::{Launch, Module, Options, run};

use crate::conformance_kernels::GOOD;
use crate::rig::Device;

/// Texts to damage. The last is cut into its functions, so that damage hits what matters.
fn texts() -> Vec<String> {
    let hard = include_str!("data/hard.ptx");
    let head: String = hard
        .split(".visible .entry")
        .next()
        .unwrap_or_default()
        .to_owned();
    let mut texts: Vec<String> = hard
        .split(".visible .entry")
        .skip(1)
        .map(|entry| format!("{head}.visible .entry{entry}"))
        .filter(|text| text.len() < 12_000)
        .collect();
    texts.push(GOOD.to_owned());
    texts.push(include_str!("data/query.ptx").to_owned());
    texts
}

/// A place, and what happens there.
#[derive(Debug, Clone)]
enum Damage {
    Remove(usize),
    Duplicate(usize),
    Swap(usize, usize),
    /// Another word, by number.
    Replace(usize, usize),
    /// Cuts the text off.
    End(usize),
    Byte(usize, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = || 0..100_000_usize;
    prop_oneof![
        1 => place().prop_map(Damage::Remove),
        1 => place().prop_map(Damage::Duplicate),
        1 => (place(), place()).prop_map(|(a, b)| Damage::Swap(a, b)),
        4 => (place(), 0..WORDS.len()).prop_map(|(a, b)| Damage::Replace(a, b)),
        1 => place().prop_map(Damage::End),
        1 => (place(), any::<u8>()).prop_map(|(a, b)| Damage::Byte(a, b)),
    ]
}

const WORDS: &[&str] = &[
    "0",
    "1",
    "-1",
    "4294967295",
    "18446744073709551615",
    "99999999999999999999999",
    "0x",
    "0f",
    "1e400",
    ";",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "<",
    ">",
    ",",
    ":",
    "+",
    "-",
    "|",
    "!",
    "@",
    "\"",
    "/*",
    "//",
    ".version",
    ".entry",
    ".func",
    ".reg",
    ".shared",
    ".local",
    ".param",
    ".align",
    ".b8",
    ".b64",
    ".pred",
    "%r1",
    "%rd1",
    "%p1",
    "%tid.x",
    "bra",
    "ret;",
    "exit;",
    "trap;",
    "call",
    "bar.sync",
    "mov.u32",
    "ld.global.u32",
    "st.shared.v4.u32",
    "shfl.sync.idx.b32",
    "atom.global.add.u32",
    "brx.idx",
    "$L__BB0_2",
    "é",
    "\u{1f600}",
    "\0",
];

fn damaged(text: &str, damages: &[Damage]) -> String {
    // Words with the blanks behind them.
    let mut words: Vec<String> = text
        .split_inclusive([' ', '\t', '\n', ',', ';'])
        .map(str::to_owned)
        .collect();
    for damage in damages {
        let len = words.len().max(1);
        match *damage {
            Damage::Remove(at) if !words.is_empty() => {
                words.remove(at % len);
            }
            Damage::Duplicate(at) if !words.is_empty() => {
                words.insert(at % len, words[at % len].clone())
            }
            Damage::Swap(a, b) if !words.is_empty() => words.swap(a % len, b % len),
            Damage::Replace(at, word) if !words.is_empty() => {
                words[at % len] = format!("{} ", WORDS[word])
            }
            Damage::End(at) => words.truncate(at % len),
            Damage::Byte(at, byte) if !words.is_empty() => words[at % len].push(char::from(byte)),
            _ => {}
        }
    }
    words.concat()
}

/// Loads, and runs whatever loads.
fn survive(text: &str, seed: u64) {
    let Ok(module) = Module::parse(text) else {
        return;
    };
    let cancelled = AtomicBool::new(false);
    for kernel in module.kernels() {
        let device = Device::default();
        let buffer = device.of(&[1_u64; 512]);
        let mut parameters = vec![0; kernel.parameter_bytes() as usize];
        for parameter in kernel
            .parameters()
            .iter()
            .filter(|parameter| parameter.bytes == 8)
        {
            parameters[parameter.offset as usize..][..8].copy_from_slice(&buffer.to_le_bytes());
        }
        let launch = Launch {
            grid: [2, 1, 1],
            block: [40, 1, 1],
            dynamic_shared_bytes: 64,
            parameters: &parameters,
            globals: &|_| Some(buffer),
        };
        let options = Options {
            seed: Some(seed),
            most_instructions: Some(20_000),
            ..Options::new(&cancelled)
        };
        if let Err(fault) = run(kernel, &launch, &device.memory(), &options) {
            assert!(!fault.to_string().is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damaged_texts_neither_panic_nor_hang(which in any::<prop::sample::Index>(), damages in prop::collection::vec(damage(), 1..6), seed: u64) {
        let texts = texts();
        let text: &String = which.get(&texts);
        survive(&damaged(text, &damages), seed);
    }

    #[test]
    fn heaps_of_words_neither_panic_nor_hang(words in prop::collection::vec(0..WORDS.len(), 0..60)) {
        let heap: Vec<&str> = words.iter().map(|word| WORDS[*word]).collect();
        let heap = heap.join(" ");
        survive(&heap, 0);
        survive(&format!(".version 8.0 .target sm_80 .address_size 64 {heap}"), 0);
        survive(&format!(".version 8.0 .target sm_80 .address_size 64 .entry k() {{ .reg .b32 %r<4>; {heap}"), 0);
    }
}

#[test]
fn every_end_of_a_text_is_an_error_or_a_module() {
    let text = &texts()[0];
    for end in (0..text.len()).step_by(7) {
        survive(text.get(..end).unwrap_or_default(), 1);
    }
}

#[test]
fn texts_that_want_too_much_are_refused() {
    let within = |line: &str| {
        Module::parse(&crate::rig::text(line))
            .map(|_| ())
            .expect_err("too much")
            .message
    };
    assert!(within(".reg .b32 %x<4000000000>;").contains("too many registers"));
    assert!(within(".local .b8 x[1000000000];").contains("too large"));
    assert!(within(".local .b8 x[1000000000][1000000000][1000000000];").contains("too large"));
    let parameters = ".version 8.0\n.target sm_80\n.address_size 64\n.entry k(.param .b8 a[1000000000]) { ret; }";
    assert!(Module::parse(parameters).is_err());
}
