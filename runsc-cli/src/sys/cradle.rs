//! Clones that begin in another control group.
//!
//! # Safety
//! As the module above.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use libc::{c_int, c_long};

/// `CLONE_INTO_CGROUP`, since Linux 5.7.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Clones this process, as `clone(2)` without a stack and without `CLONE_VM`, into a group of version 2.
/// Returns what the call returns: -1 where the host refuses, because it is too old or the group may
/// not have a process.
pub(super) fn clone_into(group: BorrowedFd<'_>, flags: c_int, pidfd: &mut c_int) -> c_long {
    // SAFETY: all zeroes are no flags, no pointers and no stack.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(flags.cast_unsigned()) | INTO_CGROUP;
    args.pidfd = std::ptr::from_mut(pidfd).expose_provenance() as u64;
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    args.cgroup = u64::from(group.as_raw_fd().cast_unsigned());
    // SAFETY: as for `clone`: the child gets a copy of this address space and goes on on a copy of this
    // stack, in a process with one thread; `args` and `pidfd` are live during the call.
    unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) }
}
