//! The slots of one process: a memory file, and the sentry's mappings of parts of such files.
//!
//! # Safety
//! A mapping lives as long as its [`Mapping`]. The other side changes the memory at any time;
//! all fields are atomics, and the file is sealed, so it cannot shrink below a mapping.
#![expect(unsafe_code, reason = "mmap of shared memory")]

use std::fs::File;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use sentry_host::Rule;
use sentry_host::window::Part;
use sentry_sysmsg::{Files, Mirror, Process, Ring, Slot, layout};
use syscalls::{Errno, SysResult};

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
    let fd = open_memory_file(name, len)?;
    seal(&fd, 0)?;
    Ok(fd)
}

/// Creates a memory file of `len` bytes that starts with these and never changes. What all processes
/// map stays read-only for each, whatever it asks the host for.
pub(super) fn constant_file(name: &std::ffi::CStr, len: u64, bytes: &[u8]) -> SysResult<OwnedFd> {
    let file = File::from(open_memory_file(name, len)?);
    file.write_all_at(bytes, 0).map_err(|_| Errno::ENOMEM)?;
    let fd = OwnedFd::from(file);
    seal(&fd, libc::F_SEAL_WRITE)?;
    Ok(fd)
}

fn open_memory_file(name: &std::ffi::CStr, len: u64) -> SysResult<OwnedFd> {
    // SAFETY: the name is a C string.
    let fd =
        unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the descriptor is fresh.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let len = libc::off_t::try_from(len).map_err(|_| Errno::EINVAL)?;
    // SAFETY: no memory is passed.
    if unsafe { libc::ftruncate(fd.as_raw_fd(), len) } < 0 {
        return Err(last_errno());
    }
    Ok(fd)
}

fn seal(fd: &OwnedFd, more: libc::c_int) -> SysResult<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL | more;
    // SAFETY: no memory is passed.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(last_errno());
    }
    Ok(())
}

/// A part of shared memory as the sentry sees it.
#[derive(Debug)]
pub(super) struct Mapping<T: Shared>(NonNull<T>);

/// What shared memory can hold.
///
/// # Safety
/// All fields are atomics, for which any content is valid.
pub(super) unsafe trait Shared {}

// SAFETY: see the types.
unsafe impl Shared for Slot {}
// SAFETY: as above.
unsafe impl Shared for Process {}
// SAFETY: as above.
unsafe impl Shared for Mirror {}
// SAFETY: as above.
unsafe impl Shared for Ring {}
// SAFETY: as above.
unsafe impl Shared for Files {}

// SAFETY: all access goes through atomics.
unsafe impl<T: Shared> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Mapping<T> {}

/// One slot.
pub(super) type SlotMapping = Mapping<Slot>;

impl Mapping<Slot> {
    /// Maps slot `index` of the region `fd`.
    pub(super) fn new(fd: &OwnedFd, index: u32) -> SysResult<Self> {
        Self::map(fd, u64::from(index) * layout::SLOT_SIZE)
    }

    /// Returns the first `len` bytes of the data area, for the host's kernel.
    pub(super) fn data_part(&self, len: usize) -> Option<Part<'_>> {
        let data = self.data.as_ptr().cast_mut().cast::<u8>();
        // SAFETY: the bytes are in the mapping, which the part borrows, and are atomics' there: whoever
        // else changes them meanwhile is as the application, which may at any time.
        (len <= size_of_val(&self.data)).then(|| unsafe { Part::new(data, len) })
    }
}

impl Mapping<Process> {
    /// Maps what the region `fd` has besides slots.
    pub(super) fn of_process(fd: &OwnedFd) -> SysResult<Self> {
        Self::map(fd, layout::PROCESS_OFFSET)
    }
}

impl Mapping<Mirror> {
    /// Maps what the region `fd` says of descriptors.
    pub(super) fn of_descriptors(fd: &OwnedFd) -> SysResult<Self> {
        Self::map(fd, layout::MIRROR_OFFSET)
    }
}

impl Mapping<Files> {
    /// Maps what the region `fd` says of files.
    pub(super) fn of_files(fd: &OwnedFd) -> SysResult<Self> {
        Self::map(fd, layout::FILES_OFFSET)
    }
}

impl Mapping<Ring> {
    /// Maps the stream `index` of the region `fd`.
    pub(super) fn of_stream(fd: &OwnedFd, index: usize) -> SysResult<Self> {
        let distance = u64::try_from(index * size_of::<Ring>()).map_err(|_| Errno::EINVAL)?;
        Self::map(fd, layout::RINGS_OFFSET + distance)
    }

    /// Maps the stream that is all of the file `fd`.
    pub(super) fn of_link(fd: &OwnedFd) -> SysResult<Self> {
        Self::map(fd, 0)
    }
}

impl<T: Shared> Mapping<T> {
    fn map(fd: &OwnedFd, offset: u64) -> SysResult<Self> {
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::EINVAL)?;
        // SAFETY: a fresh mapping at an address that the kernel chooses.
        let mapped = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                prot,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(last_errno());
        }
        NonNull::new(mapped.cast::<T>()).map(Self).ok_or(Errno::ENOMEM)
    }
}

impl<T: Shared> Deref for Mapping<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping is as large and aligned as a `T` and lives as long as `self`.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Shared> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: made by `new`; no reference outlives `self`.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<T>()) };
    }
}
