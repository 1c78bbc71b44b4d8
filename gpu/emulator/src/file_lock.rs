//! Locks on bytes of files, which the kernel drops when their holder dies.
//!
//! Used by `machine` and `folder`. They belong to the open file and not to the process (`F_OFD_SETLK`, fcntl(2)), so that opening and
//! closing the file elsewhere in the process does not drop them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Which bytes of a file.
#[derive(Clone, Copy)]
pub(crate) enum Bytes {
    One(i64),
    All,
}

/// Asks the kernel; returns the kind of the lock that it answers with.
fn ask(file: &File, bytes: Bytes, kind: i32, command: i32) -> io::Result<i32> {
    // SAFETY: all-zero bytes are a `flock` that asks for nothing.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = kind as i16;
    request.l_whence = libc::SEEK_SET as i16;
    (request.l_start, request.l_len) = match bytes {
        Bytes::One(byte) => (byte, 1),
        Bytes::All => (0, 0),
    };
    loop {
        // SAFETY: the descriptor is open and the request is a local.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, &mut request) } == 0 {
            return Ok(request.l_type.into());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Locks a byte; waits for whoever has it.
pub(crate) fn take(file: &File, byte: i64) -> io::Result<()> {
    ask(file, Bytes::One(byte), libc::F_WRLCK, libc::F_OFD_SETLKW).map(|_| ())
}

/// Unlocks a byte.
pub(crate) fn release(file: &File, byte: i64) {
    let _ = ask(file, Bytes::One(byte), libc::F_UNLCK, libc::F_OFD_SETLK);
}

/// Whether some other open file has any of the bytes locked. When that cannot be told, it is so.
pub(crate) fn is_taken(file: &File, bytes: Bytes) -> bool {
    ask(file, bytes, libc::F_WRLCK, libc::F_OFD_GETLK).map_or(true, |kind| kind != libc::F_UNLCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_seen_by_others_until_its_file_is_closed() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let other = file.reopen().expect("opened again");
        take(file.as_file(), 3).expect("locked");
        assert!(is_taken(&other, Bytes::One(3)) && is_taken(&other, Bytes::All));
        assert!(!is_taken(&other, Bytes::One(2)) && !is_taken(file.as_file(), Bytes::All));
        drop(file);
        assert!(!is_taken(&other, Bytes::All));
    }
}
