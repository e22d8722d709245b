//! Restartable sequences: what the host cannot do for a thread whose registers the tracer moves.
//!
//! The host aborts a critical section when it sees the thread's `rip` inside one after preemption.
//! While the tracer makes a thread execute calls in the stub, the host sees `rip` there, takes the
//! critical section for finished and forgets it. So it is aborted here at each stop that is not a
//! system call, which is always allowed: it looks like a preemption at that point.

use syscalls::arch::x86_64::Regs;
use syscalls::{SysResult, UserAddr};

use super::space::Space;
use crate::AddressSpace;

/// `RSEQ_FLAG_UNREGISTER`.
pub(super) const UNREGISTER: i32 = 1;

/// What a thread has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    /// The address of its `struct rseq`.
    pub(super) addr: u64,
    /// The word that must stand before an abort handler.
    pub(super) signature: u32,
}

fn read_words<const N: usize>(space: &Space, addr: u64) -> SysResult<[u64; N]> {
    let mut words = [0u64; N];
    let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut words);
    let len = bytes.len();
    if space.read(UserAddr(addr), bytes)? == len { Ok(words) } else { Err(syscalls::Errno::EFAULT) }
}

/// Moves `rip` to the abort handler where it lies in the critical section that the thread has
/// announced. Malformed descriptors are left to the host, which raises SIGSEGV for them.
pub(super) fn abort_critical_section(space: &Space, area: Area, regs: &mut Regs) {
    // `rseq_cs` of `struct rseq` stands at +8.
    let Some(field) = area.addr.checked_add(8) else { return };
    let Ok([section]) = read_words(space, field) else { return };
    if section == 0 {
        return;
    }
    // `struct rseq_cs`: version and flags, start, length, abort handler.
    let Ok([_, start, len, abort]) = read_words(space, section) else { return };
    if regs.rip.wrapping_sub(start) >= len {
        return;
    }
    let mut signature = [0u8; 4];
    let before = UserAddr(abort.wrapping_sub(4));
    if space.read(before, &mut signature) != Ok(4)
        || u32::from_le_bytes(signature) != area.signature
        || space.write(UserAddr(field), &[0; 8]) != Ok(8)
    {
        return;
    }
    regs.rip = abort;
}
