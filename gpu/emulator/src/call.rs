//! What every function of the driver does before and after its own work, and how it takes pointers from C.
//!
//! Used by every part that exports functions. Knows no function by name.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::code::{Answer, Code};
use crate::driver::Driver;

/// Declares functions of the driver that need `cuInit` before them; the body gives an [`Answer`] and may use `driver`, of type
/// `&'static Driver`, by the name that stands before the functions.
macro_rules! functions {
    ($driver:ident; $($(#[$doc:meta])* fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block)*) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            extern "C" fn $name($($argument: $kind),*) -> u32 {
                $crate::call::enter(stringify!($name), move |$driver| {
                    let _ = $driver;
                    $body
                })
            }
        )*
    };
}
pub(crate) use functions;

/// Where a function is to put what it gives: null, or room for one `T`.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T> Out<T> {
    /// Puts `value` there. Fails for null.
    pub(crate) fn put(self, value: T) -> Answer {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller of the driver's function passes room for a `T`, as its documentation demands.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Puts `value` there unless the caller does not want it.
    pub(crate) fn put_if_wanted(self, value: T) {
        let _ = self.put(value);
    }

    /// What is there. Fails for null.
    pub(crate) fn get(self) -> Result<T, Code>
    where
        T: Copy,
    {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: as for `put`; functions that read through such a pointer document that the caller has filled it.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// The place at an address that the caller gave as a number.
    pub(crate) fn at_address(address: u64) -> Self {
        Self(std::ptr::with_exposed_provenance_mut(address as usize))
    }

    /// Whether the caller passed null.
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The address as a number.
    pub(crate) fn address(self) -> u64 {
        self.0.expose_provenance() as u64
    }

    /// The element `index` of an array that starts there.
    pub(crate) fn at(self, index: usize) -> Self {
        Self(self.0.wrapping_add(index))
    }

    /// The same place for another type.
    pub(crate) fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }
}

/// A text of C that ends with a zero, or null.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Text(*const c_char);

impl Text {
    /// A text of our own.
    pub(crate) fn of(text: &CStr) -> Self {
        Self(text.as_ptr())
    }

    /// The text; bytes that are no UTF-8 are replaced. Fails for null.
    pub(crate) fn get(self) -> Result<String, Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller passes a text that ends with a zero, as the documentation demands.
        Ok(unsafe { CStr::from_ptr(self.0) }
            .to_string_lossy()
            .into_owned())
    }
}

/// Puts `text` and its final zero into `room` bytes, cut where there is less room. Fails for null and for no room.
pub(crate) fn put_text(out: Out<u8>, room: i64, text: &str) -> Answer {
    let room = usize::try_from(room).map_err(|_| Code::INVALID_VALUE)?;
    let kept = text
        .len()
        .min(room.checked_sub(1).ok_or(Code::INVALID_VALUE)?);
    for (index, byte) in text.bytes().take(kept).chain([0]).enumerate() {
        out.at(index).put(byte)?;
    }
    Ok(())
}

/// Runs the body of the function `name` with a driver that is ready.
///
/// Before `cuInit`, and in a child forked after it, functions answer `NOT_INITIALIZED`; inside a host function
/// `NOT_PERMITTED` (docs/gpu-facts.md, Start and Streams).
pub(crate) fn enter(name: &'static str, body: impl FnOnce(&'static Driver) -> Answer) -> u32 {
    guarded(name, || {
        if crate::stream::inside_host_function() {
            return Err(Code::NOT_PERMITTED);
        }
        let driver = Driver::get()?;
        driver
            .plan
            .at_call(name)
            .inspect_err(|code| driver.injected(*code))?;
        body(driver)
    })
}

/// Runs `body` so that no panic leaves it: C cannot be unwound, and a test must see the defect, not its consequences.
pub(crate) fn guarded(name: &'static str, body: impl FnOnce() -> Answer) -> u32 {
    let answer = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        eprintln!("cuda-emulator: {name} panicked, which is a defect of the emulator; the process ends here");
        std::process::abort()
    });
    let number = answer.map_or_else(|code| code.0, |()| 0);
    if crate::settings::traces() {
        let text = Code::name(number)
            .map(CStr::to_string_lossy)
            .unwrap_or_default();
        eprintln!("cuda-emulator: {name}: {text}");
    }
    number
}

/// Locks, also after a panic elsewhere: that one ends the process by itself.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says something to whoever reads the test's output.
macro_rules! say {
    ($($word:tt)*) => { eprintln!("cuda-emulator: {}", format_args!($($word)*)) };
}
pub(crate) use say;
