//! The slots of one process: a memory file, and the sentry's mappings of single slots.
//!
//! # Safety
//! A mapping lives as long as its [`SlotMapping`]. The other side changes the memory at any time;
//! all fields are atomics, and the file is sealed, so it cannot shrink below a mapping.
#![expect(unsafe_code, reason = "mmap of shared memory")]

use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use sentry_host::Rule;
use sentry_sysmsg::{Slot, layout};
use syscalls::SysResult;

use super::last_errno;

/// The host calls of this module.
pub(super) const RULES: &[Rule] = &[
    Rule::any(libc::SYS_memfd_create),
    Rule::any(libc::SYS_ftruncate),
    Rule::when(libc::SYS_fcntl, &[(1, 0xffff_ffff, libc::F_ADD_SEALS as u64)]),
    Rule::any(libc::SYS_munmap),
    Rule::any(libc::SYS_close),
];

/// Creates a sealed memory file of `len` bytes.
pub(super) fn memory_file(name: &std::ffi::CStr, len: u64) -> SysResult<OwnedFd> {
    // SAFETY: the name is a C string.
    let fd =
        unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the descriptor is fresh.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let len = libc::off_t::try_from(len).map_err(|_| syscalls::Errno::EINVAL)?;
    // SAFETY: no memory is passed.
    if unsafe { libc::ftruncate(fd.as_raw_fd(), len) } < 0 {
        return Err(last_errno());
    }
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: no memory is passed.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(last_errno());
    }
    Ok(fd)
}

/// One slot as the sentry sees it.
#[derive(Debug)]
pub(super) struct SlotMapping(NonNull<Slot>);

// SAFETY: all access goes through atomics.
unsafe impl Send for SlotMapping {}
// SAFETY: as above.
unsafe impl Sync for SlotMapping {}

impl SlotMapping {
    /// Maps slot `index` of the region `fd`.
    pub(super) fn new(fd: &OwnedFd, index: u32) -> SysResult<Self> {
        let offset = u64::from(index) * layout::SLOT_SIZE;
        let offset = libc::off_t::try_from(offset).map_err(|_| syscalls::Errno::EINVAL)?;
        // SAFETY: a fresh mapping at an address that the kernel chooses.
        let mapped = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Slot>(),
                prot,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(last_errno());
        }
        NonNull::new(mapped.cast::<Slot>()).map(Self).ok_or(syscalls::Errno::ENOMEM)
    }
}

impl Deref for SlotMapping {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        // SAFETY: the mapping is as large and aligned as a slot and lives as long as `self`.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SlotMapping {
    fn drop(&mut self) {
        // SAFETY: made by `new`; no reference outlives `self`.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Slot>()) };
    }
}
