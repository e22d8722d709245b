//! Mounts and roots of a mount namespace.
//!
//! # Safety
//! Every call passes pointers to live values of this process only, of the sizes that the kernel
//! reads and writes.
#![expect(unsafe_code, reason = "host calls without a safe form, each with its own reason")]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use super::{c_path, check, new_fd};

/// Gives this process a mount namespace of its own, from which nothing spreads.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: one integer.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())?;
    super::make_mounts_private()
}

/// Mounts a detached tree on the directory or file behind a descriptor.
pub(crate) fn attach(tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: two C strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            place.as_raw_fd(),
            c"".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Makes a mount that is attached somewhere the root of this mount namespace, and drops everything
/// else from it.
pub(crate) fn enter_root(root: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: one integer.
    check(unsafe { libc::fchdir(root.as_raw_fd()) }.into())?;
    // SAFETY: two C strings. With "." twice the old root is stacked on the new one (pivot_root(2)).
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    // SAFETY: a C string.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into())?;
    std::env::set_current_dir("/")
}

/// Finds a file as a process with this root would, without opening it.
pub(crate) fn find_below(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: an `open_how` is valid with all bits zero.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC).unsigned_abs().into();
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: a C string, and a structure whose size is given.
    new_fd(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_fd().as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of_val(&how),
        )
    })
}
