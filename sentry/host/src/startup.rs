//! What the sentry does to its own process between exec and the filter. Not in any list: none of
//! these calls passes afterwards.
//!
//! # Safety
//! Integers and C strings only.
#![expect(unsafe_code, reason = "prctl and openat have no safe form in the standard library")]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use syscalls::SysResult;

/// Names this process for `ps`, which otherwise shows that of the file.
pub fn set_process_name(name: &CStr) {
    // SAFETY: a C string; longer names than 15 bytes are cut.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Keeps this process from being traced by others of the same id and from leaving core files.
///
/// # Errors
/// None in practice.
pub fn make_undumpable() -> SysResult<()> {
    // SAFETY: integers.
    let ret = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    if ret < 0 { Err(crate::last_errno()) } else { Ok(()) }
}

/// Opens a file below a directory for reading.
///
/// # Errors
/// Those of `openat(2)`.
pub fn open_below(dir: BorrowedFd<'_>, path: &CStr) -> SysResult<OwnedFd> {
    // SAFETY: a C string.
    let fd = unsafe {
        libc::openat(
            dir.as_raw_fd(),
            path.as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOCTTY,
        )
    };
    if fd < 0 {
        return Err(crate::last_errno());
    }
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
