//! Futexes.

use syscalls::UserAddr;

use crate::task::CurrentTask;

/// Wakes up to `n` waiters at an address.
pub(crate) fn wake_address(current: &CurrentTask, addr: UserAddr, n: u32) {
    let _ = (current, addr, n);
}

/// Marks the robust futexes that an exiting thread holds as owned by a dead thread.
pub(crate) fn exit_robust_list(current: &CurrentTask) {
    let _ = current;
}
