//! Who may look into whom: the check behind `PTRACE_MODE_READ` and `PTRACE_MODE_ATTACH`
//! (`ptrace(2)`, "Ptrace access mode checking").

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::capability::CAP_SYS_PTRACE;

use super::{Credentials, CurrentTask, Task};
use crate::landlock;

/// Returns whether `current` may inspect `target`, judged by its file-system ids
/// (`PTRACE_MODE_FSCREDS`).
pub(crate) fn may_inspect(current: &CurrentTask, target: &Task) -> bool {
    let own = current.creds();
    may_access(current, target, &own, (own.fsuid, own.fsgid), own.effective)
}

/// Returns whether `current` may change `target` as a debugger does, judged by its real ids
/// (`PTRACE_MODE_ATTACH_REALCREDS`).
pub(crate) fn may_attach(current: &CurrentTask, target: &Task) -> bool {
    let own = current.creds();
    may_access(current, target, &own, (own.uid, own.gid), own.permitted)
}

/// `__ptrace_may_access` and `cap_ptrace_access_check`.
fn may_access(
    current: &CurrentTask,
    target: &Task,
    own: &Credentials,
    (uid, gid): (u32, u32),
    capabilities: u64,
) -> bool {
    if Arc::ptr_eq(&current.group, &target.group) {
        return true;
    }
    let theirs = target.creds();
    if !landlock::may_trace(own.landlock.as_ref(), theirs.landlock.as_ref()) {
        return false;
    }
    let is_master = own.is_capable_in(&theirs.user_ns, CAP_SYS_PTRACE);
    let has_same_ids = [theirs.euid, theirs.suid, theirs.uid].iter().all(|id| *id == uid)
        && [theirs.egid, theirs.sgid, theirs.gid].iter().all(|id| *id == gid);
    if !has_same_ids && !is_master {
        return false;
    }
    // Who has entered a namespace has brought memory from outside.
    let memory_owner = target.group.memory_owner.lock().clone();
    if !target.group.is_dumpable.load(Ordering::Relaxed)
        && !own.is_capable_in(&memory_owner, CAP_SYS_PTRACE)
    {
        return false;
    }
    let is_no_stronger = theirs.user_ns.is(&own.user_ns) && theirs.permitted & !capabilities == 0;
    is_no_stronger || is_master
}
