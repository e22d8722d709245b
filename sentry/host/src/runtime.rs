//! What the Rust runtime and the C library do on the sentry's behalf without being asked: memory,
//! threads, locks, time, the way out. No functions; the list and who makes each call.

use crate::Rule;

/// The flag of `clone(2)` without which a clone would be a process.
const CLONE_THREAD: u64 = 0x0001_0000;

/// The one operation of `prctl(2)` that naming a thread takes.
const PR_SET_NAME: u64 = 15;

pub(crate) const RULES: &[Rule] = &[
    // The allocator and thread stacks.
    Rule::any(libc::SYS_mmap),
    Rule::any(libc::SYS_munmap),
    Rule::any(libc::SYS_mremap),
    Rule::any(libc::SYS_mprotect),
    Rule::any(libc::SYS_madvise),
    Rule::any(libc::SYS_brk),
    // Locks, condition variables, thread joins.
    Rule::any(libc::SYS_futex),
    Rule::any(libc::SYS_sched_yield),
    // Threads: creation, the guard page's signal stack, the name, the end.
    Rule::when(libc::SYS_clone, &[(0, CLONE_THREAD, CLONE_THREAD)]),
    Rule::any(libc::SYS_rt_sigprocmask),
    Rule::any(libc::SYS_sigaltstack),
    Rule::when(libc::SYS_prctl, &[(0, !0, PR_SET_NAME)]),
    Rule::any(libc::SYS_gettid),
    Rule::any(libc::SYS_exit),
    // Clocks that the vDSO does not serve, and sleeps.
    Rule::any(libc::SYS_clock_gettime),
    Rule::any(libc::SYS_clock_nanosleep),
    Rule::any(libc::SYS_nanosleep),
    // Keys of hash maps.
    Rule::any(libc::SYS_getrandom),
    // Panic: the message, then abort.
    Rule::any(libc::SYS_write),
    Rule::any(libc::SYS_writev),
    Rule::any(libc::SYS_tkill),
    Rule::any(libc::SYS_rt_sigaction),
    Rule::any(libc::SYS_rt_sigreturn),
    // Calls that the host interrupts and restarts by itself.
    Rule::any(libc::SYS_restart_syscall),
    // The end of the process; of a descriptor's owner.
    Rule::any(libc::SYS_exit_group),
    Rule::any(libc::SYS_close),
];
