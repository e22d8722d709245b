//! Streams that the sandbox was started with: its standard input and outputs.
#![expect(unsafe_code, reason = "host calls")]

use std::os::fd::{AsRawFd, BorrowedFd};

use syscalls::SysResult;

use crate::{Rule, last_errno};

pub(crate) const RULES: &[Rule] = &[
    Rule::any(libc::SYS_read),
    // `read_now`; `write_now` is in the list of files.
    Rule::any(libc::SYS_preadv2),
    // Terminal requests only: get and set attributes and window size, pending input.
    Rule::when(libc::SYS_ioctl, &[(1, !0, TCGETS)]),
    Rule::when(libc::SYS_ioctl, &[(1, !0, TCSETS)]),
    Rule::when(libc::SYS_ioctl, &[(1, !0, TCSETSW)]),
    Rule::when(libc::SYS_ioctl, &[(1, !0, TCSETSF)]),
    Rule::when(libc::SYS_ioctl, &[(1, !0, TIOCGWINSZ)]),
    Rule::when(libc::SYS_ioctl, &[(1, !0, TIOCSWINSZ)]),
    Rule::when(libc::SYS_ioctl, &[(1, !0, FIONREAD)]),
];

const TCGETS: u64 = 0x5401;
const TCSETS: u64 = 0x5402;
const TCSETSW: u64 = 0x5403;
const TCSETSF: u64 = 0x5404;
const TIOCGWINSZ: u64 = 0x5413;
const TIOCSWINSZ: u64 = 0x5414;
pub(crate) const FIONREAD: u64 = 0x541b;

/// Implements `read(2)` on the host.
///
/// # Errors
/// The host's.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> SysResult<usize> {
    // SAFETY: the buffer is writable for its whole length.
    let n = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(n).map_err(|_| last_errno())
}

/// Implements `write(2)` on the host.
///
/// # Errors
/// The host's.
pub fn write(fd: BorrowedFd<'_>, data: &[u8]) -> SysResult<usize> {
    // SAFETY: the data are readable for their whole length.
    let n = unsafe { libc::write(fd.as_raw_fd(), data.as_ptr().cast(), data.len()) };
    usize::try_from(n).map_err(|_| last_errno())
}

/// Reads what is there, without waiting for more.
///
/// # Errors
/// `EAGAIN` where nothing is, `EOPNOTSUPP` for what cannot be read like this (terminals); else the
/// host's.
pub fn read_now(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> SysResult<usize> {
    let iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: one buffer, writable for its whole length.
    let n = unsafe {
        libc::syscall(
            libc::SYS_preadv2,
            fd.as_raw_fd(),
            &raw const iov,
            1_u64,
            -1_i64,
            -1_i64,
            libc::RWF_NOWAIT,
        )
    };
    usize::try_from(n).map_err(|_| last_errno())
}

/// Writes what there is room for, without waiting for more.
///
/// # Errors
/// `EAGAIN` where there is none, `EOPNOTSUPP` for what cannot be written like this (terminals);
/// else the host's.
pub fn write_now(fd: BorrowedFd<'_>, data: &[u8]) -> SysResult<usize> {
    let iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: one buffer, readable for its whole length.
    let n = unsafe {
        libc::syscall(
            libc::SYS_pwritev2,
            fd.as_raw_fd(),
            &raw const iov,
            1_u64,
            -1_i64,
            -1_i64,
            libc::RWF_NOWAIT,
        )
    };
    usize::try_from(n).map_err(|_| last_errno())
}

/// A terminal request whose argument is a structure that the host fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetRequest {
    /// `TCGETS`: 36 bytes.
    Attributes,
    /// `TIOCGWINSZ`: 8 bytes.
    WindowSize,
    /// `FIONREAD`: 4 bytes.
    Pending,
}

/// Makes a terminal request that fills `out`.
///
/// # Errors
/// `ENOTTY` and the host's others.
pub fn terminal_get(fd: BorrowedFd<'_>, request: GetRequest, out: &mut [u8; 36]) -> SysResult<()> {
    let number = match request {
        GetRequest::Attributes => TCGETS,
        GetRequest::WindowSize => TIOCGWINSZ,
        GetRequest::Pending => FIONREAD,
    };
    // SAFETY: each request writes at most the 36 bytes of `struct termios`.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request_number(number), out.as_mut_ptr()) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// A terminal request whose argument is a structure that the host reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetRequest {
    /// `TCSETS`
    Attributes,
    /// `TCSETSW`
    AttributesDrain,
    /// `TCSETSF`
    AttributesFlush,
    /// `TIOCSWINSZ`
    WindowSize,
}

/// Makes a terminal request that reads `data`.
///
/// # Errors
/// `ENOTTY` and the host's others.
pub fn terminal_set(fd: BorrowedFd<'_>, request: SetRequest, data: &[u8; 36]) -> SysResult<()> {
    let number = match request {
        SetRequest::Attributes => TCSETS,
        SetRequest::AttributesDrain => TCSETSW,
        SetRequest::AttributesFlush => TCSETSF,
        SetRequest::WindowSize => TIOCSWINSZ,
    };
    // SAFETY: each request reads at most the 36 bytes of `struct termios`.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request_number(number), data.as_ptr()) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

fn request_number(number: u64) -> libc::c_int {
    // All of the numbers above are below 0x10000.
    libc::c_int::try_from(number).unwrap_or(0)
}
