//! Who may look into whom: the check behind `PTRACE_MODE_READ` and `PTRACE_MODE_ATTACH`
//! (`ptrace(2)`, "Ptrace access mode checking").

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::capability::CAP_SYS_PTRACE;

use super::{CurrentTask, Task};

/// Returns whether `current` may inspect `target`, judged by its file-system ids
/// (`PTRACE_MODE_FSCREDS`).
pub(crate) fn may_inspect(current: &CurrentTask, target: &Task) -> bool {
    if Arc::ptr_eq(&current.group, &target.group) {
        return true;
    }
    let own = current.creds();
    if own.has_capability(CAP_SYS_PTRACE) {
        return true;
    }
    let theirs = target.creds();
    let has_same_ids = [theirs.euid, theirs.suid, theirs.uid].iter().all(|id| *id == own.fsuid)
        && [theirs.egid, theirs.sgid, theirs.gid].iter().all(|id| *id == own.fsgid);
    has_same_ids
        && target.group.is_dumpable.load(Ordering::Relaxed)
        && theirs.permitted & !own.effective == 0
}
