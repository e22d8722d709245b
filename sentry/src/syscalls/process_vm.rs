//! The memory of other processes: `process_vm_readv(2)`, `process_madvise(2)` and the like.

use std::sync::Arc;

use syscalls::abi::capability::CAP_SYS_NICE;
use syscalls::abi::mm::{MADV_COLD, MADV_COLLAPSE, MADV_PAGEOUT, MADV_WILLNEED};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr};

use super::ids::target;
use super::mmap::checked_madvise_range;
use crate::fs::pidfd;
use crate::mm::ops::Conflicts;
use crate::task::{Control, CurrentTask, HandlerResult, access};

/// How many bytes are copied at once.
const CHUNK: usize = 64 << 10;

/// Implements `process_vm_readv(2)`.
pub(super) fn sys_process_vm_readv(
    task: &CurrentTask,
    pid: i32,
    local_iov: UserAddr,
    liovcnt: u64,
    remote_iov: UserAddr,
    riovcnt: u64,
    flags: u64,
) -> HandlerResult<usize> {
    transfer(task, pid, (local_iov, liovcnt), (remote_iov, riovcnt), flags, false)
}

/// Implements `process_vm_writev(2)`.
pub(super) fn sys_process_vm_writev(
    task: &CurrentTask,
    pid: i32,
    local_iov: UserAddr,
    liovcnt: u64,
    remote_iov: UserAddr,
    riovcnt: u64,
    flags: u64,
) -> HandlerResult<usize> {
    transfer(task, pid, (local_iov, liovcnt), (remote_iov, riovcnt), flags, true)
}

/// Implements `process_madvise(2)`. What it takes are hints: those about another process's memory
/// are checked and not passed on.
///
/// <https://man7.org/linux/man-pages/man2/process_madvise.2.html>
pub(super) fn sys_process_madvise(
    task: &CurrentTask,
    pidfd: Fd,
    iovec: UserAddr,
    vlen: u64,
    advice: i32,
    flags: u32,
) -> HandlerResult<u64> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let segments = task.read_iovec(iovec, vlen)?;
    let (group, _) = pidfd::group_of(task, pidfd.0)?;
    let of = group.live_tasks().into_iter().next().ok_or(Errno::ESRCH)?;
    if !matches!(advice, MADV_COLD | MADV_PAGEOUT | MADV_WILLNEED | MADV_COLLAPSE) {
        return Err(Errno::EINVAL.into());
    }
    if !access::may_attach(task, &of) {
        return Err(Errno::EPERM.into());
    }
    let (own, mm) = (task.mm(), of.mm());
    let is_own = Arc::ptr_eq(&own, &mm);
    if !is_own && !task.creds().has_capability(CAP_SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    let mut done = 0_u64;
    for (addr, len) in segments {
        let len = len as u64;
        let advised = checked_madvise_range(addr, len).map_err(Into::into).and_then(|range| {
            if is_own {
                let conflicts = Conflicts::Ranges(std::slice::from_ref(&range));
                mm.operate(task, &conflicts, |space, _, plan| space.advise(&range, advice, plan))
            } else {
                Ok(mm.inspect(|space| space.check_mapped(&range))?)
            }
        });
        match advised {
            Ok(()) => done = done.saturating_add(len),
            Err(Control::Error(_)) if done != 0 => break,
            Err(control) => return Err(control),
        }
    }
    Ok(done)
}

/// Implements `process_mrelease(2)`. A process that ends releases its memory at once.
///
/// <https://man7.org/linux/man-pages/man2/process_mrelease.2.html>
pub(super) fn sys_process_mrelease(task: &CurrentTask, pidfd: Fd, flags: u32) -> HandlerResult<()> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (group, _) = pidfd::group_of(task, pidfd.0)?;
    if group.live_tasks().is_empty() {
        return Err(Errno::ESRCH.into());
    }
    if group.signals.lock().exit_status.is_some() { Ok(()) } else { Err(Errno::EINVAL.into()) }
}

fn transfer(
    task: &CurrentTask,
    pid: i32,
    local: (UserAddr, u64),
    remote: (UserAddr, u64),
    flags: u64,
    is_write: bool,
) -> HandlerResult<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let local = task.read_iovec(local.0, local.1)?;
    let remote = task.read_iovec(remote.0, remote.1)?;
    if pid <= 0 {
        return Err(Errno::ESRCH.into());
    }
    let of = target(task, pid)?;
    if !access::may_attach(task, &of) {
        return Err(Errno::EPERM.into());
    }
    let memory = of.mm().address_space()?;
    let mut buffer = Vec::new();
    let mut done = 0;
    let mut ours = Cursor::new(&local);
    let mut theirs = Cursor::new(&remote);
    while let (Some((here, here_len)), Some((there, there_len))) = (ours.piece(), theirs.piece()) {
        let n = here_len.min(there_len).min(CHUNK);
        buffer.resize(n, 0);
        let copied = (|| -> SysResult<usize> {
            if is_write {
                task.read_bytes(here, &mut buffer)?;
                memory.write(there, &buffer)
            } else {
                let got = memory.read(there, &mut buffer)?;
                task.write_bytes(here, buffer.get(..got).unwrap_or_default())?;
                Ok(got)
            }
        })();
        match copied {
            Ok(copied) => {
                done += copied;
                ours.advance(copied);
                theirs.advance(copied);
                if copied < n {
                    break;
                }
            }
            Err(errno) if done == 0 => return Err(errno.into()),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// A position in an I/O vector.
struct Cursor<'a> {
    segments: &'a [(UserAddr, usize)],
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn new(segments: &'a [(UserAddr, usize)]) -> Self {
        Self { segments, offset: 0 }
    }

    fn piece(&mut self) -> Option<(UserAddr, usize)> {
        while let Some((addr, len)) = self.segments.first() {
            if self.offset < *len {
                let at = addr.0.wrapping_add(self.offset as u64);
                return Some((UserAddr(at), len - self.offset));
            }
            self.segments = self.segments.get(1..).unwrap_or_default();
            self.offset = 0;
        }
        None
    }

    fn advance(&mut self, n: usize) {
        self.offset = self.offset.saturating_add(n);
    }
}
