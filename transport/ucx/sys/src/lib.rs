//! UCX's UCP functions and types, found at run time: nothing of UCX is needed to build, and where it is absent loading says so.
//!
//! Made for `transport/ucx`, which calls them and upholds their rules. The bindings are generated from the headers of UCX 1.13 by
//! `ci/ucx-bindings`; structures only grow at their ends, behind masks that say which fields are set, so one binary runs on every
//! later 1.x. This crate knows how to find the library, and nothing of what is sent with it.

#[allow(
    missing_docs,
    non_camel_case_types,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::missing_safety_doc,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented by UCX"
)]
mod bindings;

use std::ffi::CStr;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

pub use bindings::*;

/// The library's file. It brings the other libraries of UCX along; none of them is to be loaded before it.
pub const LIBRARY: &str = "libucp.so.0";

/// The oldest version that has all that is bound.
pub const OLDEST: Version = Version {
    major: 1,
    minor: 13,
    patch: 0,
};

/// UCX, loaded into this process for good: it starts threads and patches functions, and could not be unloaded safely.
///
/// Dereferences to its functions.
pub struct Ucx {
    functions: Ucp,
    version: Version,
    file: PathBuf,
}

/// A version of UCX. Two processes understand each other for sure only where all three numbers are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Where it differs, everything may.
    pub major: u32,
    /// More functions, and larger structures.
    pub minor: u32,
    /// Repairs.
    pub patch: u32,
}

/// Why there is no UCX.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such library, or the system cannot load it.
    #[error(
        "UCX cannot be loaded: {reason}; install it (Debian: libucx0, PyPI: libucx-cu12) or name the folder that has {LIBRARY}"
    )]
    NotLoaded {
        /// In the words of the system, which names the file.
        reason: String,
    },
    /// A library of this name lacks a function.
    #[error("{} is not a UCX that can be used: {reason}; at least version {OLDEST} is needed", file.display())]
    Incomplete {
        /// Which file.
        file: PathBuf,
        /// In the words of the system, which names the function.
        reason: String,
    },
    /// UCX of another age.
    #[error("{} is UCX {version}; version {OLDEST} or a later 1.x is needed", file.display())]
    WrongVersion {
        /// Which file.
        file: PathBuf,
        /// Its version.
        version: Version,
    },
}

/// What became of an operation that was posted, as UCX tells it in one pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// It is over already, and well; its callback is not called.
    Done,
    /// It goes on; its callback will be called, and the request is to be freed afterwards.
    Pending(NonNull<std::ffi::c_void>),
    /// It could not begin; its callback is not called.
    Failed(ucs_status_t),
}

impl Ucx {
    /// Loads UCX from this folder, or from where the system finds libraries.
    ///
    /// # Errors
    /// [`LoadError`]: it is absent, broken, or too old.
    pub fn load(folder: Option<&Path>) -> Result<&'static Self, LoadError> {
        let file = folder.map_or_else(|| PathBuf::from(LIBRARY), |folder| folder.join(LIBRARY));
        // SAFETY: loading runs the initialisers of UCX and what it needs. They are made to be run so, at any time, and touch nothing of
        // ours. Local, so that its symbols do not stand in for those of other libraries.
        let library = unsafe { Library::open(Some(&file), RTLD_NOW | RTLD_LOCAL) };
        let library = library.map_err(|error| LoadError::NotLoaded {
            reason: error.to_string(),
        })?;
        // SAFETY: a library of this name that has all of these functions has those that UCX's headers declare.
        let functions = unsafe { Ucp::from_library(library) };
        let functions = functions.map_err(|error| LoadError::Incomplete {
            file: file.clone(),
            reason: error.to_string(),
        })?;
        let version = functions.version();
        if version.major != OLDEST.major || version < OLDEST {
            return Err(LoadError::WrongVersion { file, version });
        }
        Ok(Box::leak(Box::new(Self {
            functions,
            version,
            file,
        })))
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What was loaded: a path, or a name that the system looked for.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// A status in UCX's words.
    pub fn describe(&self, status: ucs_status_t) -> String {
        // SAFETY: takes any number, and returns a text that ends with a zero and stays.
        let text = unsafe { CStr::from_ptr(self.functions.ucs_status_string(status)) };
        text.to_string_lossy().into_owned()
    }
}

impl Ucp {
    fn version(&self) -> Version {
        let (mut major, mut minor, mut patch) = (0, 0, 0);
        // SAFETY: writes one number through each of these.
        unsafe { self.ucp_get_version(&raw mut major, &raw mut minor, &raw mut patch) };
        Version {
            major,
            minor,
            patch,
        }
    }
}

impl Deref for Ucx {
    type Target = Ucp;

    fn deref(&self) -> &Ucp {
        &self.functions
    }
}

impl fmt::Debug for Ucx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UCX {} ({})", self.version, self.file.display())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl From<ucs_status_ptr_t> for Posted {
    /// What the headers' macros `UCS_PTR_IS_ERR` and `UCS_PTR_STATUS` do: the last hundred addresses are statuses.
    fn from(pointer: ucs_status_ptr_t) -> Self {
        let number = pointer as isize;
        match i8::try_from(number) {
            Ok(status) if (UCS_ERR_LAST..0).contains(&status) => Self::Failed(status),
            Ok(_) | Err(_) => NonNull::new(pointer).map_or(Self::Done, Self::Pending),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_a_status_or_a_request() {
        let posted = |number: isize| Posted::from(number as ucs_status_ptr_t);
        assert_eq!(posted(0), Posted::Done);
        assert_eq!(posted(-1), Posted::Failed(UCS_ERR_NO_MESSAGE));
        assert_eq!(
            posted(isize::from(UCS_ERR_LAST)),
            Posted::Failed(UCS_ERR_LAST)
        );
        assert!(matches!(posted(0x1000), Posted::Pending(_)));
        assert!(matches!(
            posted(isize::from(UCS_ERR_LAST) - 1),
            Posted::Pending(_)
        ));
    }

    #[test]
    fn versions_are_ordered_and_written_as_usual() {
        let newer = Version {
            major: 1,
            minor: 22,
            patch: 0,
        };
        assert!(newer > OLDEST);
        assert_eq!(
            (OLDEST.to_string(), newer.to_string()),
            ("1.13.0".to_owned(), "1.22.0".to_owned())
        );
    }
}
