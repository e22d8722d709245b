//! System calls at sites of their own, and how long something takes.

use std::time::{Duration, Instant};

/// How long one measurement runs, after as much again to warm up.
const TARGET: Duration = Duration::from_millis(60);

/// Makes a system call at a site of its own, in the shape of the C library's wrappers.
macro_rules! call {
    ($nr:expr $(, $arg:expr)*) => {{
        let given: &[usize] = &[$($arg as usize),*];
        let mut args = [0usize; 6];
        args[..given.len()].copy_from_slice(given);
        let ret: isize;
        // SAFETY: each use names a call and arguments that it keeps alive.
        unsafe {
            core::arch::asm!(
                "mov eax, {nr}",
                "syscall",
                nr = const $nr,
                lateout("rax") ret,
                in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
                in("r10") args[3], in("r8") args[4], in("r9") args[5],
                lateout("rcx") _, lateout("r11") _,
                options(nostack),
            );
        }
        ret
    }};
}
pub(crate) use call;

/// Makes a system call at the one site that all share.
#[inline(never)]
pub(crate) fn shared_site(nr: usize) -> isize {
    let ret: isize;
    // SAFETY: only used for calls without arguments.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") nr => ret, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    ret
}

/// Runs `op` until the target time has passed; returns nanoseconds per run.
pub(crate) fn measure(mut op: impl FnMut()) -> f64 {
    let mut batch = 1u64;
    loop {
        let started = Instant::now();
        for _ in 0..batch {
            op();
        }
        let took = started.elapsed();
        if took >= TARGET {
            return took.as_nanos() as f64 / batch as f64;
        }
        let each = took.as_nanos().max(1) as f64 / batch as f64;
        let wanted = TARGET.as_nanos() as f64 * 1.1 / each;
        batch = (wanted as u64 + 1).min(batch.saturating_mul(50));
    }
}

pub(crate) fn close(fd: i32) {
    call!(3, fd);
}

/// Forks a child that runs `child` and ends.
pub(crate) fn fork(child: impl FnOnce()) -> isize {
    let pid = call!(57);
    if pid == 0 {
        child();
        exit();
    }
    pid
}

pub(crate) fn wait(pid: isize) {
    call!(61, pid, 0, 0, 0);
}

pub(crate) fn exit() -> ! {
    loop {
        call!(231, 0);
    }
}
