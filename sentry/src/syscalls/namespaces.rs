//! Namespaces of a running task: `unshare(2)` and `setns(2)`.

use syscalls::Errno;
use syscalls::abi::clone::CloneFlags;
use syscalls::arg::Fd;

use super::lend;
use crate::fs::{nsfs, pidfd};
use crate::task::namespaces::{self, AnyNamespace};
use crate::task::{CurrentTask, HandlerResult, access};

/// Implements `unshare(2)`.
///
/// <https://man7.org/linux/man-pages/man2/unshare.2.html>
pub(super) fn sys_unshare(task: &CurrentTask, flags: u64) -> HandlerResult<()> {
    let mut flags = CloneFlags::from_bits_retain(flags);
    let shared = CloneFlags::FILES | CloneFlags::FS | CloneFlags::SYSVSEM;
    let whole_process = CloneFlags::THREAD | CloneFlags::SIGHAND | CloneFlags::VM;
    if !(shared | whole_process | CloneFlags::NAMESPACES).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    if flags.contains(CloneFlags::NEWUSER) {
        flags |= CloneFlags::THREAD | CloneFlags::FS;
    }
    let shares_memory = flags.intersects(whole_process);
    if shares_memory && task.group.live_tasks().len() > 1 {
        return Err(Errno::EINVAL.into());
    }
    if flags.contains(CloneFlags::FILES) {
        // As `sane_fdtable_size()`: descriptors may be above what has become the limit.
        let limit = task.kernel.sysctls.number("fs/nr_open", 0).unwrap_or(i64::MAX);
        let highest = task.files().descriptors().last().copied().unwrap_or(0);
        if i64::from(highest) > limit.saturating_sub(1) | 63 {
            return Err(Errno::EMFILE.into());
        }
    }
    namespaces::unshare(task, flags)?;
    lend::umask_changed(task);
    if flags.contains(CloneFlags::FILES) {
        let copy = task.files().fork();
        let old = std::mem::replace(&mut *task.files.lock(), copy);
        lend::table_changed(task);
        drop(old);
    }
    Ok(())
}

/// Implements `setns(2)`.
///
/// <https://man7.org/linux/man-pages/man2/setns.2.html>
pub(super) fn sys_setns(task: &CurrentTask, fd: Fd, nstype: CloneFlags) -> HandlerResult<()> {
    let open = task.file(fd.0)?;
    if let Some(namespace) = nsfs::of_file(&open) {
        if !nstype.is_empty() && nstype != namespace.flag() {
            return Err(Errno::EINVAL.into());
        }
        return Ok(namespaces::enter(task, &[namespace])?);
    }
    let (group, _) = pidfd::group_of(task, fd.0).map_err(|_| Errno::EINVAL)?;
    if nstype.is_empty() || !CloneFlags::NAMESPACES.contains(nstype) {
        return Err(Errno::EINVAL.into());
    }
    let target = group.live_tasks().into_iter().next().ok_or(Errno::ESRCH)?;
    if !access::may_inspect(task, &target) {
        return Err(Errno::EPERM.into());
    }
    let names = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let of_target = names.into_iter().filter_map(|name| namespaces::of_task(&target, name));
    let wanted: Vec<AnyNamespace> =
        of_target.filter(|namespace| nstype.contains(namespace.flag())).collect();
    Ok(namespaces::enter(task, &wanted)?)
}
