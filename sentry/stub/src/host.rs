//! Host calls of the stub.
//!
//! # Safety
//! These calls act on an address space whose contents the sentry decides; the stub itself owns
//! only its slot and its stack, which the sentry never names in a host call.
#![expect(unsafe_code, reason = "system calls")]

use core::arch::asm;

const MSG_NOSIGNAL: u64 = 0x4000;

/// Makes a system call.
///
/// # Safety
/// The call must not touch memory that the stub's own code relies on.
#[inline(always)]
pub(crate) unsafe fn syscall6(nr: u64, a: [u64; 6]) -> i64 {
    let ret: i64;
    // SAFETY: by the caller; the kernel clobbers rax, rcx and r11 only.
    unsafe {
        asm!("syscall", inlateout("rax") nr => ret, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3],
             in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    ret
}

macro_rules! call {
    ($nr:expr $(, $arg:expr)*) => {{
        let mut args = [0u64; 6];
        let mut n = 0;
        $(args[n] = $arg; n += 1;)*
        let _ = n;
        // SAFETY: the callers in this module name their own memory or what the sentry asked for.
        unsafe { syscall6($nr, args) }
    }};
}

/// `mmap`.
pub(crate) fn mmap(addr: u64, len: u64, prot: u64, flags: u64, fd: u64, offset: u64) -> i64 {
    call!(9, addr, len, prot, flags, fd, offset)
}

/// `munmap`.
pub(crate) fn munmap(addr: u64, len: u64) -> i64 {
    call!(11, addr, len)
}

/// `madvise`.
pub(crate) fn madvise(addr: u64, len: u64, advice: u64) -> i64 {
    call!(28, addr, len, advice)
}

/// `close`.
pub(crate) fn close(fd: u64) -> i64 {
    call!(3, fd)
}

/// `pread64`, to memory of the application.
#[inline(never)]
pub(crate) fn pread(fd: u64, addr: u64, len: u64, offset: u64) -> i64 {
    call!(17, fd, addr, len, offset)
}

/// `futex(FUTEX_WAIT)`, not private: the sentry wakes it through its own mapping.
pub(crate) fn futex_wait(addr: u64, value: u32) -> i64 {
    call!(202, addr, 0, u64::from(value), 0)
}

/// `futex(FUTEX_WAIT)`, not private, for less than a second.
#[inline(never)]
pub(crate) fn futex_wait_for(addr: u64, value: u32, nanoseconds: u64) -> i64 {
    let timeout = [0_u64, nanoseconds];
    let timeout = (&raw const timeout).expose_provenance() as u64;
    call!(202, addr, 0, u64::from(value), timeout)
}

/// `futex(FUTEX_WAKE)`, not private.
pub(crate) fn futex_wake(addr: u64) -> i64 {
    call!(202, addr, 1, 1)
}

/// `sigaltstack`.
pub(crate) fn sigaltstack(stack: u64) -> i64 {
    call!(131, stack, 0)
}

/// `rt_sigaction`; before the filter only.
pub(crate) fn rt_sigaction(signo: u64, action: u64) -> i64 {
    call!(13, signo, action, 0, 8)
}

/// `seccomp`; before the filter only.
pub(crate) fn seccomp(op: u64, flags: u64, arg: u64) -> i64 {
    call!(317, op, flags, arg)
}

/// `clone` with the flags that make a process; the child goes on on a copy of this stack.
#[inline(always)]
pub(crate) fn fork() -> i64 {
    call!(56, sentry_sysmsg::layout::FORK_FLAGS)
}

/// Rings the doorbell.
pub(crate) fn ring(what: u64, token: u64, index: u64) -> i64 {
    call!(sentry_sysmsg::layout::DOORBELL_NR as u64, what, token, index)
}

/// `sendto` of a ring, without an address.
pub(crate) fn send_ring(message: u64) -> i64 {
    use sentry_sysmsg::layout::{RING_FD, RING_LEN};
    call!(44, RING_FD as u64, message, RING_LEN, MSG_NOSIGNAL)
}

/// `recvmsg` from the channel.
pub(crate) fn receive(message: u64) -> i64 {
    call!(47, sentry_sysmsg::layout::CHANNEL_FD as u64, message, 0)
}

/// `dup2`.
pub(crate) fn dup2(old: u64, new: u64) -> i64 {
    call!(33, old, new)
}

/// `sched_yield`.
#[inline(never)]
pub(crate) fn sched_yield() {
    call!(24, 0);
}

/// `getrusage(RUSAGE_SELF)`.
pub(crate) fn own_usage(to: u64) {
    call!(98, 0, to);
}

/// `exit_group`.
pub(crate) fn exit_group(code: u64) -> ! {
    loop {
        call!(231, code);
    }
}
