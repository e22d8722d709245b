//! Guest memory: the host kernel owns the pages, the sentry owns the policy.

pub mod futex;
pub mod user_io;

use std::sync::Arc;

use syscalls::{Errno, SysResult};

use crate::task::CurrentTask;

/// One guest address space.
pub struct MemoryManager {}

impl MemoryManager {
    /// Returns a copy for a forked child.
    pub(crate) fn fork(&self) -> SysResult<Arc<Self>> {
        Err(Errno::ENOMEM)
    }

    /// Undoes what the failed host call of the present system call was for.
    pub(crate) fn host_call_failed(&self, current: &CurrentTask, index: usize, errno: Errno) {
        let _ = (current, index, errno);
    }
}
