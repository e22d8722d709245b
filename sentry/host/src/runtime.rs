//! What the Rust runtime and the C library do on the sentry's behalf without being asked: memory,
//! threads, locks, time, the way out. No functions; the list and who makes each call.

use crate::Rule;

/// The flags with which the C library makes threads, and nobody else anything: `CLONE_VM`, `_FS`,
/// `_FILES`, `_SIGHAND`, `_THREAD`, `_SYSVSEM`, `_SETTLS`, `_PARENT_SETTID`, `_CHILD_CLEARTID`,
/// `_DETACHED`.
const CLONE_FLAGS: u64 = 0x007d_0f00;

/// Memory of the sentry is never executable but for its text.
const PROT_EXEC: u64 = 4;

/// The one operation of `prctl(2)` that naming a thread takes.
const PR_SET_NAME: u64 = 15;

pub(crate) const RULES: &[Rule] = &[
    // The allocator and thread stacks.
    Rule::when(libc::SYS_mmap, &[(2, PROT_EXEC, 0)]),
    Rule::any(libc::SYS_munmap),
    Rule::any(libc::SYS_mremap),
    Rule::when(libc::SYS_mprotect, &[(2, PROT_EXEC, 0)]),
    Rule::any(libc::SYS_madvise),
    Rule::any(libc::SYS_brk),
    // Locks, condition variables, thread joins.
    Rule::any(libc::SYS_futex),
    Rule::any(libc::SYS_sched_yield),
    // Threads: creation, the guard page's signal stack, the name, the end.
    Rule::when(libc::SYS_clone, &[(0, !0, CLONE_FLAGS)]),
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
    // Unoptimised builds of the standard library look whether what they close is open.
    #[cfg(debug_assertions)]
    Rule::when(libc::SYS_fcntl, &[(1, 0xffff_ffff, 1)]),
];
