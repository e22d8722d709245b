//! Memory files: shared memory of guests and the content of files that live in the sentry.
//!
//! # Safety
//! Integers, constant strings and strings on the stack.
#![expect(unsafe_code, reason = "host calls that have no safe form in the standard library")]

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::OnceLock;

use syscalls::{Errno, SysResult};

use crate::Rule;

const OPEN_FLAGS: u64 = (libc::O_RDONLY | libc::O_CLOEXEC) as u64;

pub(crate) const RULES: &[Rule] = &[
    // `create`
    Rule::any(libc::SYS_memfd_create),
    // `reopen_read_only`: never for writing, never creating.
    Rule::when(libc::SYS_openat, &[(2, !0, OPEN_FLAGS)]),
];

/// The directory `/proc/self/fd` of a process file system that nothing else can be reached from.
static DESCRIPTORS: OnceLock<OwnedFd> = OnceLock::new();

/// Gives this module the directory of this process's descriptors, before the process is locked
/// down. Later calls do nothing.
pub fn set_descriptor_directory(dir: OwnedFd) {
    let _ = DESCRIPTORS.set(dir);
}

/// Creates an empty memory file.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn create() -> SysResult<OwnedFd> {
    // Nobody executes it: what the application runs is mapped, not executed.
    match create_with(libc::MFD_CLOEXEC | libc::MFD_NOEXEC_SEAL) {
        // Before Linux 6.3 there is no such flag.
        Err(Errno::EINVAL) => create_with(libc::MFD_CLOEXEC),
        result => result,
    }
}

fn create_with(flags: libc::c_uint) -> SysResult<OwnedFd> {
    // SAFETY: a constant C string and flags.
    let fd = unsafe { libc::memfd_create(c"guest".as_ptr(), flags) };
    if fd < 0 {
        return Err(crate::last_errno());
    }
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens the file behind a descriptor again, for reading only: what a stub is given for a mapping
/// that must never become a writable shared one.
///
/// # Errors
/// `EACCES` where the sentry was started without its descriptor directory; those of `openat(2)`.
pub fn reopen_read_only(file: BorrowedFd<'_>) -> SysResult<OwnedFd> {
    let dir = DESCRIPTORS.get().ok_or(Errno::EACCES)?;
    let name = CString::new(file.as_raw_fd().to_string()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: a live descriptor, a C string and flags; the raw call, because the C library's
    // function adds a flag.
    let fd =
        unsafe { libc::syscall(libc::SYS_openat, dir.as_raw_fd(), name.as_ptr(), OPEN_FLAGS, 0) };
    let Ok(fd @ 0..) = i32::try_from(fd) else { return Err(crate::last_errno()) };
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
