//! Descriptors of processes.

use syscalls::abi::fs::OpenFlags;
use syscalls::abi::signal::{PidfdFlags, PidfdSignalFlags, Siginfo};
use syscalls::arg::Fd;
use syscalls::{Errno, UserPtr};

use super::fd::install;
use super::signal::{PidfdScope, send_to_pidfd};
use crate::fs::{pidfd, procfs};
use crate::task::{CurrentTask, HandlerResult, access};

/// Implements `pidfd_open(2)`.
///
/// <https://man7.org/linux/man-pages/man2/pidfd_open.2.html>
pub(super) fn sys_pidfd_open(task: &CurrentTask, pid: i32, flags: PidfdFlags) -> HandlerResult<Fd> {
    let is_known = !flags.has_unknown_bits() && !flags.contains(PidfdFlags::THREAD);
    if !is_known || pid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let target = task.pid_namespace().task(pid.unsigned_abs()).ok_or(Errno::ESRCH)?;
    if !target.is_leader() {
        return Err(Errno::EINVAL.into());
    }
    let is_nonblocking = flags.contains(PidfdFlags::NONBLOCK);
    let flags = if is_nonblocking { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
    Ok(Fd(pidfd::install_with(task, &target.group, flags, true)?))
}

/// Implements `pidfd_send_signal(2)`.
///
/// <https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html>
pub(super) fn sys_pidfd_send_signal(
    task: &CurrentTask,
    pidfd: Fd,
    sig: i32,
    info: UserPtr<Siginfo>,
    flags: PidfdSignalFlags,
) -> HandlerResult<()> {
    if flags.has_unknown_bits() || flags.bits().count_ones() > 1 {
        return Err(Errno::EINVAL.into());
    }
    let group = match pidfd::group_of(task, pidfd.0) {
        Ok((group, _)) => group,
        // The directory of a process stands for it as well.
        Err(errno) => {
            let file = task.file(pidfd.0)?;
            let inode = file.file.inode().ok_or(errno)?;
            procfs::process_of(&inode).ok_or(errno)??
        }
    };
    let info = if info.is_null() { None } else { Some(task.read_obj(info)?) };
    let scope = if flags.contains(PidfdSignalFlags::PROCESS_GROUP) {
        PidfdScope::ProcessGroup
    } else if flags.contains(PidfdSignalFlags::THREAD) {
        PidfdScope::Thread
    } else {
        PidfdScope::Process
    };
    Ok(send_to_pidfd(task, &group, sig, info, scope)?)
}

/// Implements `pidfd_getfd(2)`.
///
/// <https://man7.org/linux/man-pages/man2/pidfd_getfd.2.html>
pub(super) fn sys_pidfd_getfd(
    task: &CurrentTask,
    pidfd: Fd,
    targetfd: Fd,
    flags: u32,
) -> HandlerResult<Fd> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (group, _) = pidfd::group_of(task, pidfd.0)?;
    let target = group.live_tasks().into_iter().next().ok_or(Errno::ESRCH)?;
    if !access::may_attach(task, &target) {
        return Err(Errno::EPERM.into());
    }
    let file = target.files().get_any(targetfd.0)?;
    Ok(install(task, file, true)?)
}
