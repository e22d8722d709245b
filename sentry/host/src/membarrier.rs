//! The barrier of all processors.
#![expect(unsafe_code, reason = "host calls")]

use syscalls::SysResult;

use crate::{Rule, last_errno};

/// `MEMBARRIER_CMD_GLOBAL`
const GLOBAL: libc::c_int = 1;

pub(crate) const RULES: &[Rule] = &[Rule::when(libc::SYS_membarrier, &[(0, !0, 1)])];

/// Makes every running thread of the host, those of the stubs included, pass a full barrier.
///
/// # Errors
/// `EINVAL` on a host with `nohz_full` processors.
pub fn global() -> SysResult<()> {
    // SAFETY: three integers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
