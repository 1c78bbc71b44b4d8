//! Names the shared library as the driver is named, and writes the functions that are not emulated.
//!
//! `src/symbols.txt` lists every function that a driver exports. Those that no source defines become functions that say so.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=src");
    // Whoever asks for `libcuda.so.1` is content once a library of this name is loaded, wherever it lies.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    if let Err(error) = write_the_rest() {
        panic_with(&error);
    }
}

fn panic_with(error: &std::io::Error) -> ! {
    eprintln!("the functions that are not emulated were not written: {error}");
    std::process::exit(1)
}

fn write_the_rest() -> std::io::Result<()> {
    let mut defined = BTreeSet::new();
    for entry in std::fs::read_dir("src")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            defined.extend(functions_of(&std::fs::read_to_string(path)?));
        }
    }
    let mut text = String::new();
    for name in std::fs::read_to_string("src/symbols.txt")?
        .lines()
        .filter(|name| !defined.contains(*name))
    {
        let _ = writeln!(
            text,
            "#[unsafe(no_mangle)]\nextern \"C\" fn {name}() -> u32 {{ not_emulated(\"{name}\") }}"
        );
    }
    let folder = std::env::var_os("OUT_DIR").unwrap_or_default();
    std::fs::write(Path::new(&folder).join("not_emulated.rs"), text)
}

/// The names behind `fn cu`, which sources write only where they define a function of the driver.
fn functions_of(source: &str) -> Vec<String> {
    let behind = source.split("fn cu").skip(1);
    let letters = |text: &str| {
        text.chars()
            .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
            .collect::<String>()
    };
    behind.map(|text| format!("cu{}", letters(text))).collect()
}
