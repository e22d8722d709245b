//! Host calls on regular files that the gofer has donated, and on the sentry's own memfds.
//!
//! # Safety
//! Pointers and lengths come from live slices of the callers, or from structures on the stack.
#![expect(unsafe_code, reason = "host calls on descriptors and buffers")]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use syscalls::abi::fs::Stat;
use syscalls::{Errno, SysResult};

use crate::Rule;
use crate::window::Part;

pub(crate) const RULES: &[Rule] = &[
    // `read_at`
    Rule::any(libc::SYS_pread64),
    // `write_at`
    Rule::any(libc::SYS_pwrite64),
    // `append`
    Rule::any(libc::SYS_pwritev2),
    // `stat`
    Rule::any(libc::SYS_fstat),
    // `truncate`
    Rule::any(libc::SYS_ftruncate),
    // `allocate`
    Rule::any(libc::SYS_fallocate),
    // `sync`
    Rule::any(libc::SYS_fsync),
    Rule::any(libc::SYS_fdatasync),
    // `seek`
    Rule::any(libc::SYS_lseek),
];

/// Reads at an offset. Returns how many bytes, 0 at the end of the file.
///
/// # Errors
/// Those of `pread(2)`.
pub fn read_at(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> SysResult<usize> {
    let offset = file_offset(offset)?;
    retry(|| {
        // SAFETY: the buffer is live and of the given length.
        unsafe { libc::pread(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), offset) }
    })
}

/// Reads at an offset as [`read_at`] does, into memory to which nothing here refers.
///
/// # Errors
/// Those of `pread(2)`.
pub fn read_part(file: BorrowedFd<'_>, part: &Part<'_>, offset: u64) -> SysResult<usize> {
    let offset = file_offset(offset)?;
    retry(|| {
        // SAFETY: whoever made the part has promised that it is mapped.
        unsafe { libc::pread(file.as_raw_fd(), part.as_mut_ptr().cast(), part.len(), offset) }
    })
}

/// Writes at an offset. Returns how many bytes.
///
/// # Errors
/// Those of `pwrite(2)`.
pub fn write_at(file: BorrowedFd<'_>, data: &[u8], offset: u64) -> SysResult<usize> {
    let offset = file_offset(offset)?;
    retry(|| {
        // SAFETY: the data is live and of the given length.
        unsafe { libc::pwrite(file.as_raw_fd(), data.as_ptr().cast(), data.len(), offset) }
    })
}

/// Writes at the end, wherever that is. Returns how many bytes.
///
/// # Errors
/// Those of `pwritev2(2)`.
pub fn append(file: BorrowedFd<'_>, data: &[u8]) -> SysResult<usize> {
    let iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    retry(|| {
        // SAFETY: one vector over live data, which the call does not write to.
        unsafe { libc::pwritev2(file.as_raw_fd(), &raw const iov, 1, 0, libc::RWF_APPEND) }
    })
}

/// Returns a file's attributes.
///
/// # Errors
/// Those of `fstat(2)`.
pub fn stat(file: BorrowedFd<'_>) -> SysResult<Stat> {
    let mut stat = Stat::default();
    // SAFETY: `Stat` is the kernel's `struct stat`, and live.
    let result = unsafe { libc::syscall(libc::SYS_fstat, file.as_raw_fd(), &raw mut stat) };
    if result == 0 { Ok(stat) } else { Err(crate::last_errno()) }
}

/// Sets a file's length.
///
/// # Errors
/// Those of `ftruncate(2)`.
pub fn truncate(file: BorrowedFd<'_>, size: u64) -> SysResult<()> {
    let size = file_offset(size)?;
    // SAFETY: integers only.
    done(|| unsafe { libc::ftruncate(file.as_raw_fd(), size) })
}

/// Allocates or frees space.
///
/// # Errors
/// Those of `fallocate(2)`.
pub fn allocate(file: BorrowedFd<'_>, mode: u32, offset: u64, length: u64) -> SysResult<()> {
    let mode = i32::try_from(mode).map_err(|_| Errno::EOPNOTSUPP)?;
    let (offset, length) = (file_offset(offset)?, file_offset(length)?);
    // SAFETY: integers only.
    done(|| unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) })
}

/// Writes a file to its device; with `data_only` without attributes that are not needed to read
/// the data.
///
/// # Errors
/// Those of `fsync(2)`.
pub fn sync(file: BorrowedFd<'_>, data_only: bool) -> SysResult<()> {
    // SAFETY: integers only.
    done(|| unsafe {
        if data_only { libc::fdatasync(file.as_raw_fd()) } else { libc::fsync(file.as_raw_fd()) }
    })
}

/// Where to look from an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// For data: `SEEK_DATA`.
    Data,
    /// For a hole, or the end: `SEEK_HOLE`.
    Hole,
}

/// Returns the offset of the next data or hole. Moves the descriptor's own offset, which nobody
/// uses.
///
/// # Errors
/// Those of `lseek(2)`: `ENXIO` where there is none.
pub fn seek(file: BorrowedFd<'_>, offset: u64, what: Seek) -> SysResult<u64> {
    let offset = i64::try_from(offset).map_err(|_| Errno::ENXIO)?;
    let whence = match what {
        Seek::Data => libc::SEEK_DATA,
        Seek::Hole => libc::SEEK_HOLE,
    };
    // SAFETY: integers only.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    u64::try_from(found).map_err(|_| crate::last_errno())
}

fn file_offset(offset: u64) -> SysResult<i64> {
    i64::try_from(offset).map_err(|_| Errno::EINVAL)
}

/// Makes a transfer until no signal interrupts it.
fn retry(mut call: impl FnMut() -> isize) -> SysResult<usize> {
    loop {
        match usize::try_from(call()).map_err(|_| crate::last_errno()) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

fn done(mut call: impl FnMut() -> i32) -> SysResult<()> {
    loop {
        match call() {
            0 => return Ok(()),
            _ => match crate::last_errno() {
                Errno::EINTR => {}
                errno => return Err(errno),
            },
        }
    }
}
