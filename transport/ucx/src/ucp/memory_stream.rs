//! A C stream into memory, for what UCX only prints.

use std::ptr;

/// An open stream and what was written to it.
pub(super) struct MemoryStream {
    file: *mut libc::FILE,
    /// Boxed: the C library writes to both until the stream is closed.
    written: Box<Written>,
}

struct Written {
    text: *mut libc::c_char,
    bytes: libc::size_t,
}

impl MemoryStream {
    pub(super) fn open() -> Option<Self> {
        let mut written = Box::new(Written {
            text: ptr::null_mut(),
            bytes: 0,
        });
        // SAFETY: both places stay where they are until the stream is closed.
        let file = unsafe { libc::open_memstream(&raw mut written.text, &raw mut written.bytes) };
        (!file.is_null()).then_some(Self { file, written })
    }

    pub(super) fn as_file(&mut self) -> *mut libc::FILE {
        self.file
    }

    pub(super) fn into_text(self) -> String {
        // SAFETY: open, and flushed so that text and length are those of what was written.
        unsafe { libc::fflush(self.file) };
        let Written { text, bytes } = *self.written;
        if text.is_null() {
            return String::new();
        }
        // SAFETY: after a flush so many bytes are there, until the stream is closed.
        let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), bytes) };
        String::from_utf8_lossy(text).into_owned()
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        // SAFETY: open, and closed here alone; then the text is ours to free.
        unsafe {
            libc::fclose(self.file);
            libc::free(self.written.text.cast());
        }
    }
}
