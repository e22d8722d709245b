//! Signals: handlers, masks, and a record of what arrived.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};

use crate::sys;

/// How often a handler of [`record`] ran.
pub static COUNT: AtomicU32 = AtomicU32::new(0);
/// The last signal that [`record`] saw.
pub static LAST: AtomicI32 = AtomicI32::new(0);
/// `si_code` of the last signal.
pub static CODE: AtomicI32 = AtomicI32::new(0);
/// `si_addr` of the last signal.
pub static ADDR: AtomicUsize = AtomicUsize::new(0);

/// The kernel's `struct sigaction`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Action {
    /// Handler, `SIG_DFL` or `SIG_IGN`.
    pub handler: usize,
    /// `SA_*`.
    pub flags: u64,
    /// Where a handler returns to.
    pub restorer: usize,
    /// Blocked while the handler runs.
    pub mask: u64,
}

/// What a handler of [`record`] counts.
#[expect(clippy::not_unsafe_ptr_arg_deref, reason = "only the kernel calls it")]
pub extern "C" fn record(signo: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    LAST.store(signo, Ordering::SeqCst);
    // SAFETY: the kernel passed this siginfo (SA_SIGINFO) or none.
    if let Some(info) = unsafe { info.as_ref() } {
        CODE.store(info.si_code, Ordering::SeqCst);
        // SAFETY: any siginfo holds the bytes of an address, if perhaps not an address.
        ADDR.store(unsafe { info.si_addr() } as usize, Ordering::SeqCst);
    }
    COUNT.fetch_add(1, Ordering::SeqCst);
}

core::arch::global_asm!(
    ".globl guest_tests_restorer",
    "guest_tests_restorer:",
    "mov $15, %eax",
    "syscall",
    "ud2",
    options(att_syntax)
);
unsafe extern "C" {
    fn guest_tests_restorer();
}

/// A handler of three arguments.
pub type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Installs a handler with `SA_SIGINFO` and more flags; returns the action before.
pub fn handle(signo: i32, handler: Handler, flags: i32) -> Result<Action, i32> {
    handle_masked(signo, handler, flags, 0)
}

/// Installs a handler that runs with more signals blocked.
pub fn handle_masked(signo: i32, handler: Handler, flags: i32, mask: u64) -> Result<Action, i32> {
    set(
        signo,
        &Action {
            handler: handler as usize,
            flags: (flags | libc::SA_SIGINFO) as u32 as u64 | 0x0400_0000,
            restorer: guest_tests_restorer as *const () as usize,
            mask,
        },
    )
}

/// Installs an action.
pub fn set(signo: i32, action: &Action) -> Result<Action, i32> {
    let mut old = Action::default();
    sys!(SYS_rt_sigaction, signo, action, &mut old, 8)?;
    Ok(old)
}

/// Returns the action of a signal.
pub fn action(signo: i32) -> Result<Action, i32> {
    let mut old = Action::default();
    sys!(SYS_rt_sigaction, signo, 0, &mut old, 8)?;
    Ok(old)
}

/// Installs `SIG_IGN` (1) or `SIG_DFL` (0).
pub fn plain(signo: i32, handler: usize) -> Result<Action, i32> {
    set(signo, &Action { handler, ..Action::default() })
}

/// The bit of a signal in a mask.
pub fn bit(signo: i32) -> u64 {
    1 << (signo - 1)
}

/// Changes the signal mask; returns the one before.
pub fn mask(how: i32, set: u64) -> Result<u64, i32> {
    let mut old = 0u64;
    sys!(SYS_rt_sigprocmask, how, &set, &mut old, 8)?;
    Ok(old)
}

/// Blocks one signal.
pub fn block(signo: i32) -> Result<u64, i32> {
    mask(libc::SIG_BLOCK, bit(signo))
}

/// Unblocks one signal.
pub fn unblock(signo: i32) -> Result<u64, i32> {
    mask(libc::SIG_UNBLOCK, bit(signo))
}

/// The pending signals.
pub fn pending() -> Result<u64, i32> {
    let mut set = 0u64;
    sys!(SYS_rt_sigpending, &mut set, 8)?;
    Ok(set)
}

/// How often [`record`] ran.
pub fn count() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

/// The last recorded signal.
pub fn last() -> i32 {
    LAST.load(Ordering::SeqCst)
}

/// Sends a signal to this thread.
pub fn raise(signo: i32) -> Result<(), i32> {
    sys!(SYS_tgkill, crate::proc::pid(), crate::proc::tid(), signo).map(drop)
}
