//! The kernels that `gpu-conformance` asks drivers about, and what `recorded/h100.json` says of them.

use transload_ptx::{FaultKind, Module, PtxErrorKind};

use crate::conformance_kernels::{GOOD, empty_of, with_line};
use crate::rig::{BASE, Device, launch, start};

fn good() -> Module {
    Module::parse(GOOD).unwrap_or_else(|error| panic!("{error}"))
}

fn kind(text: &str) -> Option<PtxErrorKind> {
    Module::parse(text).err().map(|error| error.kind)
}

#[test]
fn good_kernels_load_with_their_properties() {
    let module = good();
    let numbers = &module.globals()[0];
    assert_eq!(
        (numbers.name.as_str(), numbers.bytes, numbers.align),
        ("numbers", 16, 4)
    );
    let store = module.kernel("store").expect("it is there");
    let parameters: Vec<_> = store
        .parameters()
        .iter()
        .map(|p| (p.name.as_str(), p.offset, p.bytes))
        .collect();
    assert_eq!(parameters, [("address", 0, 8), ("value", 8, 4)]);
    assert_eq!(store.parameter_bytes(), 12);
    assert_eq!(
        module.kernel("few").expect("it is there").max_threads(),
        Some(64)
    );
    assert_eq!(
        module
            .kernel("shared")
            .expect("it is there")
            .static_shared_bytes(),
        0
    );
    assert!(module.kernel("nothing").is_none());
}

#[test]
fn good_kernels_do_what_they_say() {
    let module = good();
    let device = Device::default();
    let (from, to) = (device.of(&[5_u32]), device.of(&[0_u32]));
    let mut plain = start(1, 1);
    plain.shared = 64;
    plain.globals.insert("numbers".to_owned(), BASE);
    let go = |name: &str, parameters: &[u64]| {
        launch(
            module.kernel(name).expect("it is there"),
            &plain,
            &device,
            parameters,
        )
        .map(|_| device.read::<u32>(to)[0])
    };
    assert_eq!(go("empty", &[]), Ok(0));
    assert_eq!(go("store", &[to, 3]), Ok(3));
    assert_eq!(go("load", &[from, to]), Ok(5));
    assert_eq!(go("shared", &[to]), Ok(7));
    assert_eq!(go("gate", &[from]), Ok(7));
    assert_eq!(go("shared_store", &[4]), Ok(7));
    let kind = |name: &str, parameters: &[u64]| {
        go(name, parameters).map_err(|fault| (fault.kind, fault.text))
    };
    let store = || "st.global.u32 [%rd1], %r1;".to_owned();
    assert_eq!(
        kind("store", &[0, 1]),
        Err((FaultKind::IllegalAddress, store()))
    );
    assert_eq!(
        kind("store", &[0x7000_0000_0000, 1]),
        Err((FaultKind::IllegalAddress, store()))
    );
    assert_eq!(
        kind("store", &[to + 4, 1]),
        Err((FaultKind::IllegalAddress, store()))
    );
    assert_eq!(
        kind("store", &[to + 1, 1]),
        Err((FaultKind::Misaligned, store()))
    );
    let store = || "st.shared.u32 [%r3], %r1;".to_owned();
    assert_eq!(
        kind("shared_store", &[1 << 20]),
        Err((FaultKind::IllegalAddress, store()))
    );
    assert_eq!(
        kind("shared_store", &[1]),
        Err((FaultKind::Misaligned, store()))
    );
    assert_eq!(
        kind("trap", &[]),
        Err((FaultKind::Trap, "trap;".to_owned()))
    );
}

#[test]
fn versions_and_targets_are_judged_as_driver_580_does() {
    let version = |version: &str| kind(&empty_of(version, "sm_80"));
    for good in ["7.0", "7.8", "8.0", "8.4", "8.7", "8.8", "9.0"] {
        assert_eq!(version(good), None, "{good}");
    }
    for bad in ["9.1", "9.2", "9.3", "99.0"] {
        assert_eq!(
            version(bad),
            Some(PtxErrorKind::UnsupportedVersion),
            "{bad}"
        );
    }
    assert_eq!(version("6.0"), Some(PtxErrorKind::UnsupportedTarget));
    for target in ["sm_20", "sm_35", "sm_50", "sm_70", "sm_80"] {
        assert_eq!(kind(&empty_of("7.0", target)), None, "{target}");
    }
    for (version, target) in [
        ("7.0", "sm_90"),
        ("7.0", "sm_999"),
        ("8.7", "sm_100"),
        ("8.7", "sm_100a"),
        ("8.7", "sm_120"),
    ] {
        assert_eq!(
            kind(&empty_of(version, target)),
            Some(PtxErrorKind::UnsupportedTarget),
            "{target}"
        );
    }
    for target in ["sm_90", "sm_90a"] {
        assert_eq!(kind(&empty_of("8.0", target)), None, "{target}");
    }
}

#[test]
fn bad_texts_have_the_kind_that_the_driver_gives_them() {
    for not_ptx in [
        "\0",
        "these are no instructions\0",
        ".target sm_80\n.address_size 64\n\0",
        "\u{0}ELF",
    ] {
        assert_eq!(kind(not_ptx), Some(PtxErrorKind::NotPtx), "{not_ptx}");
    }
    assert_eq!(
        kind(".version 7.0\n.address_size 64\n\0"),
        Some(PtxErrorKind::Syntax)
    );
    assert_eq!(
        kind(".version 7.0\n.target sm_80\n.address_size 64\n\0"),
        None
    );
    assert_eq!(kind(&format!("// a comment\n{GOOD}")), None);
    let missing = ".version 7.0\n.target sm_80\n.address_size 64\n.extern .func f();\n.visible .entry empty()\n{\n    call f;\n    ret;\n}\n\0";
    assert_eq!(kind(missing), Some(PtxErrorKind::Syntax));
    for syntax in [
        "mov.u32 %r1 7",
        "mov.u32 %r9, 7;",
        "mov.u64 %r1, 7;",
        "call nowhere;",
        ".shared .b8 much[300000];",
    ] {
        assert_eq!(
            kind(&with_line(syntax)),
            Some(PtxErrorKind::Syntax),
            "{syntax}"
        );
    }
    for unknown in ["fly.u32 %r1, 7;", "barrier.cluster.arrive;"] {
        assert_eq!(
            kind(&with_line(unknown)),
            Some(PtxErrorKind::NotEmulated),
            "{unknown}"
        );
    }
}

#[test]
fn errors_name_their_line_in_the_words_of_ptxas() {
    let text = |line: &str| {
        Module::parse(&with_line(line))
            .map(|_| ())
            .expect_err("bad")
            .to_string()
    };
    assert_eq!(
        text("mov.u32 %r1 7"),
        "line 7: Parsing error near '7': syntax error"
    );
    assert_eq!(
        text("fly.u32 %r1, 7;"),
        "line 7: Not a name of any known instruction: 'fly'"
    );
    assert_eq!(text("mov.u32 %r9, 7;"), "line 7: Unknown symbol '%r9'");
}
