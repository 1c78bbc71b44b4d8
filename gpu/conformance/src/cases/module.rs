//! Cases about loading PTX: which text is refused, with which code and which words.

use super::cases;
use crate::driver::*;
use crate::facts::Facts;
use crate::kernels;
use crate::tools::ready;

cases! { CASES;
    "module/versions", "PTX versions and targets, old, new and not yet invented", versions;
    "module/errors", "each kind of bad text, and its code", errors;
    "module/log", "the buffers for what the compiler says", log;
    "module/lookup", "functions and variables by name", lookup;
}

fn load(text: &str) -> Code {
    let mut module = 0;
    // SAFETY: all texts end with a zero.
    unsafe { cuModuleLoadData(&mut module, text.as_ptr()) }
}

fn versions(facts: &Facts) {
    ready();
    for target in ["sm_20", "sm_35", "sm_50", "sm_70", "sm_80"] {
        facts.environment(
            &format!("target.{target}"),
            load(&kernels::empty_of("7.0", target)).to_string(),
        );
    }
    for (version, target) in [
        ("8.0", "sm_90"),
        ("8.0", "sm_90a"),
        ("8.7", "sm_100"),
        ("8.7", "sm_100a"),
        ("8.7", "sm_120"),
    ] {
        facts.environment(
            &format!("target.{target}"),
            load(&kernels::empty_of(version, target)).to_string(),
        );
    }
    for version in [
        "6.0", "7.0", "7.8", "8.0", "8.4", "8.7", "8.8", "9.0", "9.1", "9.2", "9.3",
    ] {
        facts.environment(
            &format!("version.{version}"),
            load(&kernels::empty_of(version, "sm_80")).to_string(),
        );
    }
    facts.code("version.99.0", load(&kernels::empty_of("99.0", "sm_80")));
    facts.code(
        "target_newer_than_its_version",
        load(&kernels::empty_of("7.0", "sm_90")),
    );
    facts.code(
        "target_not_invented",
        load(&kernels::empty_of("7.0", "sm_999")),
    );
}

fn errors(facts: &Facts) {
    ready();
    facts.code("good", load(kernels::GOOD));
    facts.code("empty_text", load("\0"));
    facts.code("words", load("these are no instructions\0"));
    facts.code("no_version", load(".target sm_80\n.address_size 64\n\0"));
    facts.code("no_target", load(".version 7.0\n.address_size 64\n\0"));
    facts.code(
        "no_kernel",
        load(".version 7.0\n.target sm_80\n.address_size 64\n\0"),
    );
    facts.code("syntax", load(&kernels::with_line("mov.u32 %r1 7")));
    facts.code(
        "unknown_opcode",
        load(&kernels::with_line("fly.u32 %r1, 7;")),
    );
    facts.code(
        "undeclared_register",
        load(&kernels::with_line("mov.u32 %r9, 7;")),
    );
    facts.code("wrong_type", load(&kernels::with_line("mov.u64 %r1, 7;")));
    facts.code(
        "undefined_function",
        load(&kernels::with_line("call nowhere;")),
    );
    facts.code(
        "opcode_of_a_newer_target",
        load(&kernels::with_line("barrier.cluster.arrive;")),
    );
    facts.code("declared_but_missing_function", load(
        ".version 7.0\n.target sm_80\n.address_size 64\n.extern .func f();\n.visible .entry empty()\n{\n    call f;\n    ret;\n}\n\0",
    ));
    facts.code(
        "too_much_static_shared",
        load(&kernels::with_line(".shared .b8 much[300000];")),
    );
    facts.code(
        "comments_first",
        load(&format!("// a comment\n{}", kernels::GOOD)),
    );
    // SAFETY: pointers are of locals; a null image is the driver's to judge.
    unsafe {
        facts.code("null_image", cuModuleLoadData(&mut 0, std::ptr::null()));
        facts.code("allocate_after_all", cuMemAlloc_v2(&mut 0, 4096));
    }
}

/// Loads with log buffers of `room` bytes and returns the code, the sizes told and the error text.
fn load_with_log(text: &str, room: usize) -> (Code, u64, u64, String) {
    let (mut info, mut error) = (vec![0_u8; room.max(1)], vec![0_u8; room.max(1)]);
    let options = [3_u32, 4, 5, 6];
    let mut values = [
        info.as_mut_ptr().expose_provenance() as u64,
        room as u64,
        error.as_mut_ptr().expose_provenance() as u64,
        room as u64,
    ];
    let mut module = 0;
    // SAFETY: the text ends with a zero; the buffers have the sizes that the options say.
    let code = unsafe {
        cuModuleLoadDataEx(
            &mut module,
            text.as_ptr(),
            4,
            options.as_ptr(),
            values.as_mut_ptr(),
        )
    };
    let [_, info_len, _, error_len] = values;
    let text = error.split(|byte| *byte == 0).next().unwrap_or_default();
    (
        code,
        info_len,
        error_len,
        String::from_utf8_lossy(text).into_owned(),
    )
}

fn log(facts: &Facts) {
    ready();
    for (name, line) in [
        ("syntax", "mov.u32 %r1 7"),
        ("opcode", "fly.u32 %r1, 7;"),
        ("register", "mov.u32 %r9, 7;"),
    ] {
        let (code, info, error, text) = load_with_log(&kernels::with_line(line), 4096);
        let facts = facts.within(name);
        facts.code("code", code);
        facts.fact("info_len_is_0", info == 0);
        facts.fact("error_len_is_that_of_the_text", error == text.len() as u64);
        facts.fact("error_len_is_one_more", error == text.len() as u64 + 1);
        facts.fact("names_the_line", text.contains("line 7"));
        facts.environment("text", text);
    }
    let (code, info, error, text) = load_with_log(kernels::GOOD, 4096);
    facts.code("good.code", code);
    facts.fact("good.lengths", vec![info, error]);
    facts.fact("good.text_is_empty", text.is_empty());
    let (code, _, error, text) = load_with_log(&kernels::with_line("fly.u32 %r1, 7;"), 20);
    facts.code("short_buffer.code", code);
    facts.environment("short_buffer.length", error);
    facts.environment("short_buffer.text", text);
}

fn lookup(facts: &Facts) {
    ready();
    let (mut module, mut found, mut bytes) = (0, 0, 0);
    // SAFETY: names end with a zero; an unloaded module is not used again.
    unsafe {
        facts.code(
            "load",
            cuModuleLoadData(&mut module, kernels::GOOD.as_ptr()),
        );
        facts.code(
            "function",
            cuModuleGetFunction(&mut found, module, c"store".as_ptr().cast()),
        );
        facts.code(
            "missing_function",
            cuModuleGetFunction(&mut found, module, c"nothing".as_ptr().cast()),
        );
        facts.code(
            "empty_name",
            cuModuleGetFunction(&mut found, module, c"".as_ptr().cast()),
        );
        facts.code(
            "variable",
            cuModuleGetGlobal_v2(&mut found, &mut bytes, module, c"numbers".as_ptr().cast()),
        );
        facts.fact("variable_bytes", bytes);
        facts.code("variable_memset", cuMemsetD8_v2(found, 1, 16));
        facts.code(
            "variable_memory_type",
            super::pointer::attribute(found, 2).0,
        );
        facts.code("variable_free", cuMemFree_v2(found));
        facts.code(
            "missing_variable",
            cuModuleGetGlobal_v2(&mut found, &mut bytes, module, c"nothing".as_ptr().cast()),
        );
        facts.code(
            "null_module",
            cuModuleGetFunction(&mut found, 0, c"store".as_ptr().cast()),
        );
        facts.code("unload", cuModuleUnload(module));
        facts.code("unload_null", cuModuleUnload(0));
    }
}
