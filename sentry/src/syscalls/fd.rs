//! Descriptors: `dup(2)` and its relatives.

use std::sync::Arc;

use syscalls::abi::fs::OpenFlags;
use syscalls::abi::resource::RLIMIT_NOFILE;
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult};

use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::OpenFile;

/// Returns the limit below which descriptors are.
pub(super) fn limit(task: &CurrentTask) -> u64 {
    task.group.limits.lock().soft(RLIMIT_NOFILE)
}

/// Gives an open file the lowest free descriptor.
///
/// # Errors
/// `EMFILE`.
pub(crate) fn install(task: &CurrentTask, file: Arc<OpenFile>, is_cloexec: bool) -> SysResult<Fd> {
    task.files().install(file, is_cloexec, limit(task)).map(Fd)
}

/// Implements `dup(2)`.
pub(super) fn sys_dup(task: &CurrentTask, oldfd: Fd) -> HandlerResult<Fd> {
    let file = task.files().get_any(oldfd.0)?;
    Ok(install(task, file, false)?)
}

/// Implements `dup2(2)`.
pub(super) fn sys_dup2(task: &CurrentTask, oldfd: Fd, newfd: Fd) -> HandlerResult<Fd> {
    if oldfd == newfd {
        task.files().get_any(oldfd.0)?;
        return Ok(newfd);
    }
    do_dup(task, oldfd, newfd, false)
}

/// Implements `dup3(2)`.
pub(super) fn sys_dup3(task: &CurrentTask, oldfd: Fd, newfd: Fd, flags: u32) -> HandlerResult<Fd> {
    if flags & !OpenFlags::CLOEXEC.bits() != 0 || oldfd == newfd {
        return Err(Errno::EINVAL.into());
    }
    do_dup(task, oldfd, newfd, flags != 0)
}

fn do_dup(task: &CurrentTask, oldfd: Fd, newfd: Fd, is_cloexec: bool) -> HandlerResult<Fd> {
    let files = task.files();
    let file = files.get_any(oldfd.0)?;
    if let Some(old) = files.replace(newfd.0, file, is_cloexec, limit(task))? {
        files.close(&old);
    }
    Ok(newfd)
}
