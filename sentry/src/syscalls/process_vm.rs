//! The memory of other processes: `process_vm_readv(2)` and `process_vm_writev(2)`.

use std::sync::Arc;

use syscalls::abi::capability::CAP_SYS_PTRACE;
use syscalls::{Errno, SysResult, UserAddr};

use super::ids::target;
use crate::task::{CurrentTask, HandlerResult, Task};

/// How many bytes are copied at once.
const CHUNK: usize = 64 << 10;

/// Returns whether the caller may look into `of`: `PTRACE_MODE_ATTACH_REALCREDS`.
fn may_access(task: &CurrentTask, of: &Task) -> bool {
    if Arc::ptr_eq(&of.group, &task.group) {
        return true;
    }
    let own = task.creds();
    let theirs = of.creds();
    let same_ids = [theirs.uid, theirs.euid, theirs.suid].iter().all(|uid| *uid == own.uid)
        && [theirs.gid, theirs.egid, theirs.sgid].iter().all(|gid| *gid == own.gid);
    let dumpable = of.group.is_dumpable.load(std::sync::atomic::Ordering::Relaxed);
    let covers = theirs.permitted & !own.permitted == 0;
    (same_ids && dumpable && covers) || own.has_capability(CAP_SYS_PTRACE)
}

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
    if !may_access(task, &of) {
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
