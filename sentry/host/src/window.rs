//! Windows: what the sentry sees of the content of a memory file.
//!
//! Processes may have the content mapped and change it at any time, so nothing here refers to it: a
//! [`Part`] is a pair of numbers, and only the host kernel copies, between it and the memory of a
//! process or a file. Where a window reaches beyond the end of its file, the kernel copies less.
//!
//! # Safety
//! A window is a mapping that nobody else knows, at an address that the kernel has chosen.
#![expect(unsafe_code, reason = "mmap of shared memory")]

use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use syscalls::{Errno, SysResult};

/// How many windows there are at most: each is an area of the sentry, and has page tables.
const MAX_WINDOWS: usize = 64;

static N_WINDOWS: AtomicUsize = AtomicUsize::new(0);

/// The start of a memory file, as the sentry sees it.
#[derive(Debug)]
pub struct Window {
    addr: usize,
    len: usize,
}

/// A part of a window.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    addr: usize,
    len: usize,
    window: PhantomData<&'a Window>,
}

impl Window {
    /// Opens a window of `len` bytes on the start of a file that is open for reading and writing.
    ///
    /// # Errors
    /// `ENOMEM`, also where there are many already; those of `mmap(2)`.
    pub fn new(file: BorrowedFd<'_>, len: usize) -> SysResult<Self> {
        if N_WINDOWS.fetch_add(1, Ordering::Relaxed) >= MAX_WINDOWS {
            N_WINDOWS.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::ENOMEM);
        }
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address that the kernel chooses.
        let mapped =
            unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, file.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED {
            let errno = crate::last_errno();
            N_WINDOWS.fetch_sub(1, Ordering::Relaxed);
            return Err(errno);
        }
        Ok(Self { addr: mapped.expose_provenance(), len })
    }

    /// Returns `len` bytes of the file from `start` on, where they lie within the window.
    pub fn part(&self, start: u64, len: usize) -> Option<Part<'_>> {
        let start = usize::try_from(start).ok()?;
        start.checked_add(len).filter(|end| *end <= self.len)?;
        Some(Part { addr: self.addr.checked_add(start)?, len, window: PhantomData })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let start = std::ptr::with_exposed_provenance_mut(self.addr);
        // SAFETY: made by `new`; the parts have borrowed the window.
        unsafe { libc::munmap(start, self.len) };
        N_WINDOWS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Part<'_> {
    /// Returns `len` bytes of other memory.
    ///
    /// # Safety
    /// They are mapped for reading and writing as long as the part lives, and nothing refers to them but
    /// as to memory that anybody changes at any time.
    pub unsafe fn new(start: *mut u8, len: usize) -> Self {
        Self { addr: start.expose_provenance(), len, window: PhantomData }
    }

    /// Returns where it starts, for the host kernel.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.addr)
    }

    /// Returns its length.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns at most `len` bytes of it from `start` on.
    #[must_use]
    pub fn cut(&self, start: usize, len: usize) -> Self {
        let start = start.min(self.len);
        Self { addr: self.addr.saturating_add(start), len: len.min(self.len - start), ..*self }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn parts_lie_within_their_window() {
        let file = crate::memfd::create().unwrap();
        let window = Window::new(file.as_fd(), 8192).unwrap();
        let part = window.part(4096, 4096).unwrap();
        assert_eq!(part.len(), 4096);
        assert!(window.part(4096, 4097).is_none());
        assert!(window.part(u64::MAX, 1).is_none());
        let tail = part.cut(4000, 4096);
        assert_eq!(tail.len(), 96);
        assert_eq!(tail.as_mut_ptr().addr(), part.as_mut_ptr().addr() + 4000);
        assert!(part.cut(5000, 1).is_empty());
    }
}
