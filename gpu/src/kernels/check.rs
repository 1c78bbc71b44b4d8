//! The PTX that the program carries, and whether it takes what the program gives. Called when modules are loaded into a device.

use thiserror::Error;

use super::arguments::{SIGNATURES, Signature};
use super::launch::THREADS;
use super::ptx::{Entry, entries};

/// The PTX of one of gpu/kernels/*.cu, of which `ci/kernels` makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelModule {
    /// The file, without its ending.
    pub name: &'static str,
    /// What the driver loads; it wants a zero behind it.
    pub ptx: &'static str,
    /// The kernels in it.
    pub kernels: Vec<&'static str>,
}

/// The program and its PTX do not belong together. The remedy is always to make the PTX anew, and to build.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The text is not as NVRTC writes it.
    #[error("gpu/kernels/{module}.ptx, {reason}; make it anew with ci/kernels")]
    Unreadable {
        /// The file.
        module: &'static str,
        /// Begins with the line.
        reason: String,
    },
    /// A kernel takes other parameters than it would be given.
    #[error(
        "kernel `{kernel}` of gpu/kernels/{module}.ptx takes {declared}, and would be given {given}; make the PTX anew with \
         ci/kernels, and change gpu/src/kernels/arguments.rs where the source changed"
    )]
    Parameters {
        /// The file.
        module: &'static str,
        /// The kernel.
        kernel: String,
        /// What the PTX says, as "8 bytes at 0, 4 bytes at 8".
        declared: String,
        /// The same of the program.
        given: String,
    },
    /// A kernel is for other blocks than it would be launched with.
    #[error(
        "kernel `{kernel}` of gpu/kernels/{module}.ptx is for {declared:?} threads and would be launched with {THREADS}; its source must \
         say `__launch_bounds__({THREADS})`"
    )]
    Threads {
        /// The file.
        module: &'static str,
        /// The kernel.
        kernel: String,
        /// What the PTX says.
        declared: Option<u32>,
    },
    /// The PTX has a kernel that the program does not know.
    #[error(
        "kernel `{kernel}` of gpu/kernels/{module}.ptx is not in gpu/src/kernels/arguments.rs; name its parameters there"
    )]
    Unknown {
        /// The file.
        module: &'static str,
        /// The kernel.
        kernel: String,
    },
    /// The program launches a kernel that no PTX has.
    #[error("no file in gpu/kernels has the kernel `{kernel}`; make the PTX anew with ci/kernels")]
    Missing {
        /// The kernel.
        kernel: &'static str,
    },
}

const TEXTS: [(&str, &str); 8] = [
    ("append", include_str!("../../kernels/append.ptx")),
    ("bits", include_str!("../../kernels/bits.ptx")),
    ("check", include_str!("../../kernels/check.ptx")),
    ("checksum", include_str!("../../kernels/checksum.ptx")),
    ("gather", include_str!("../../kernels/gather.ptx")),
    ("hash", include_str!("../../kernels/hash.ptx")),
    ("partition", include_str!("../../kernels/partition.ptx")),
    ("scan", include_str!("../../kernels/scan.ptx")),
];

/// All modules, after their kernels have been compared with what the program gives them.
///
/// # Errors
/// [`SignatureError`] for the first kernel that takes something else.
pub fn modules() -> Result<Vec<KernelModule>, SignatureError> {
    let modules: Vec<KernelModule> = TEXTS
        .into_iter()
        .map(|(name, ptx)| module(name, ptx))
        .collect::<Result<_, _>>()?;
    let has = |kernel: &&str| modules.iter().any(|module| module.kernels.contains(kernel));
    let launched = SIGNATURES.iter().flat_map(|signature| signature.kernels);
    match launched.copied().find(|kernel| !has(kernel)) {
        Some(kernel) => Err(SignatureError::Missing { kernel }),
        None => Ok(modules),
    }
}

fn module(name: &'static str, ptx: &'static str) -> Result<KernelModule, SignatureError> {
    let entries = entries(ptx).map_err(|reason| SignatureError::Unreadable {
        module: name,
        reason,
    })?;
    let kernels = entries.iter().map(|entry| checked(name, entry));
    Ok(KernelModule {
        name,
        ptx,
        kernels: kernels.collect::<Result<_, _>>()?,
    })
}

/// The kernel's name, if it takes what it is given.
fn checked(module: &'static str, entry: &Entry) -> Result<&'static str, SignatureError> {
    let kernel = entry.name.clone();
    let known = SIGNATURES.iter().find_map(|signature| {
        let mut names = signature.kernels.iter();
        names
            .find(|name| **name == kernel)
            .map(|name| (*name, signature))
    });
    let Some((name, signature)) = known else {
        return Err(SignatureError::Unknown { module, kernel });
    };
    let given = layout(signature);
    if given != entry.parameters {
        return Err(SignatureError::Parameters {
            module,
            kernel,
            declared: told(&entry.parameters),
            given: told(&given),
        });
    }
    if entry.most_threads != Some(THREADS) {
        return Err(SignatureError::Threads {
            module,
            kernel,
            declared: entry.most_threads,
        });
    }
    Ok(name)
}

/// Where the program puts each parameter, and its bytes.
fn layout(signature: &Signature) -> Vec<(u32, u32)> {
    let mut end = 0u32;
    let place = |bytes: &u32| {
        let offset = end.next_multiple_of(*bytes);
        end = offset + bytes;
        (offset, *bytes)
    };
    signature.bytes.iter().map(place).collect()
}

fn told(parameters: &[(u32, u32)]) -> String {
    if parameters.is_empty() {
        return "nothing".to_owned();
    }
    let each = |(offset, bytes): &(u32, u32)| format!("{bytes} bytes at {offset}");
    parameters.iter().map(each).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_takes_what_it_is_given() {
        let kernels: usize = modules()
            .expect("ours")
            .iter()
            .map(|m| m.kernels.len())
            .sum();
        let launched: usize = SIGNATURES.iter().map(|s| s.kernels.len()).sum();
        assert_eq!(kernels, launched);
    }

    #[test]
    fn a_kernel_that_takes_something_else_is_named_with_both_lists() {
        let text = ".entry offsets_32(.param .u64 a, .param .u32 b, .param .u64 c) .maxntid 256 {}";
        let error = module("gather", text).expect_err("u32 is not u64");
        assert_eq!(
            error.to_string(),
            "kernel `offsets_32` of gpu/kernels/gather.ptx takes 8 bytes at 0, 4 bytes at 8, 8 bytes at 16, and would be \
             given 8 bytes at 0, 8 bytes at 8, 8 bytes at 16; make the PTX anew with ci/kernels, and change \
             gpu/src/kernels/arguments.rs where the source changed"
        );
    }

    #[test]
    fn other_threads_and_other_kernels_are_errors() {
        let parameters = "(.param .u64 a, .param .u64 b, .param .u64 c)";
        let few = format!(".entry bits_sum{parameters} .maxntid 128, 1, 1 {{}}");
        let declared = Some(128);
        assert!(matches!(
            module("bits", few.leak()),
            Err(SignatureError::Threads { declared: d, .. }) if d == declared
        ));
        assert!(matches!(
            module("bits", ".entry other() {}"),
            Err(SignatureError::Unknown { .. })
        ));
        assert!(matches!(
            module("bits", ".entry other("),
            Err(SignatureError::Unreadable { .. })
        ));
    }
}
