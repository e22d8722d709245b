//! `kcmp(2)`: whether two processes share something.

use std::cmp::Ordering;
use std::sync::Arc;

use syscalls::abi::prctl::{
    KCMP_EPOLL_TFD, KCMP_FILE, KCMP_FILES, KCMP_FS, KCMP_IO, KCMP_SIGHAND, KCMP_SYSVSEM, KCMP_VM,
};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use crate::fs::epoll::Epoll;
use crate::task::{CurrentTask, HandlerResult, Task, access};
use crate::vfs::OpenFile;
use crate::vfs::file::downcast;

/// Mixed into addresses before they are compared, so that the order says nothing of them.
const COOKIE: usize = 0x9E37_79B9_7F4A_7C15;

/// Implements `kcmp(2)`.
///
/// <https://man7.org/linux/man-pages/man2/kcmp.2.html>
pub(super) fn sys_kcmp(
    task: &CurrentTask,
    pid1: i32,
    pid2: i32,
    kind: i32,
    idx1: u64,
    idx2: u64,
) -> HandlerResult<u32> {
    let find = |pid: i32| {
        let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0).ok_or(Errno::ESRCH)?;
        task.pid_namespace().task(pid).ok_or(Errno::ESRCH)
    };
    let (one, two) = (find(pid1)?, find(pid2)?);
    if !access::may_attach(task, &one) || !access::may_attach(task, &two) {
        return Err(Errno::EPERM.into());
    }
    let (first, second) = match kind {
        KCMP_FILE => (address(&open_file(&one, idx1)?), address(&open_file(&two, idx2)?)),
        KCMP_VM => (address(&one.mm()), address(&two.mm())),
        KCMP_FILES => (address(&one.files()), address(&two.files())),
        KCMP_FS => (address(&one.fs()), address(&two.fs())),
        KCMP_SIGHAND => {
            let actions = |of: &Arc<Task>| address(&of.group.actions.lock());
            (actions(&one), actions(&two))
        }
        // Nobody has a context of block I/O.
        KCMP_IO => (0, 0),
        KCMP_SYSVSEM => {
            let undo = |of: &Arc<Task>| of.sem_undo.lock().as_ref().map_or(0, address);
            (undo(&one), undo(&two))
        }
        KCMP_EPOLL_TFD => {
            let wanted = open_file(&one, idx1)?;
            (address(&wanted), address(&watched(task, &two, idx2)?))
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok(match mix(first).cmp(&mix(second)) {
        Ordering::Equal => 0,
        Ordering::Less => 1,
        Ordering::Greater => 2,
    })
}

fn address<T>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).addr()
}

fn mix(address: usize) -> usize {
    (address ^ COOKIE).wrapping_mul(COOKIE)
}

fn open_file(of: &Arc<Task>, fd: u64) -> SysResult<Arc<OpenFile>> {
    of.files().get_any(i32::try_from(fd).map_err(|_| Errno::EBADF)?)
}

/// Returns the file that an epoll instance watches under a descriptor: `struct kcmp_epoll_slot`.
fn watched(task: &CurrentTask, of: &Arc<Task>, slot: u64) -> SysResult<Arc<OpenFile>> {
    let [instance, fd, nth] = task.read_obj::<[u32; 3]>(UserPtr::new(UserAddr(slot)))?;
    let instance = open_file(of, instance.into())?;
    let epoll = downcast::<Epoll>(&instance.file).ok_or(Errno::EINVAL)?;
    let nth = usize::try_from(nth).unwrap_or(usize::MAX);
    epoll.watched(fd.cast_signed()).into_iter().nth(nth).ok_or(Errno::ENOENT)
}
