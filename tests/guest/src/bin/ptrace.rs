//! Tracing of one process: `ptrace(2)`, from both sides.

use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use guest_tests::fs::{close, pipe, read_all, write_all};
use guest_tests::proc::{End, pid, state};
use guest_tests::trace::{
    GET_SYSCALL_INFO, O_SYSGOOD, SYSCALL_STOP, code, end, go, message, peek, ptrace, regs,
    set_regs, siginfo, tracee, wait,
};
use guest_tests::{Outcome, check, eq, fails, ok, raw, sig, sys};
use libc::{
    PTRACE_ATTACH, PTRACE_CONT, PTRACE_GETFPREGS, PTRACE_GETREGS, PTRACE_GETREGSET,
    PTRACE_INTERRUPT, PTRACE_LISTEN, PTRACE_PEEKUSER, PTRACE_POKEDATA, PTRACE_POKEUSER,
    PTRACE_SEIZE, PTRACE_SETFPREGS, PTRACE_SETOPTIONS, PTRACE_SETREGSET, PTRACE_SETSIGINFO,
    PTRACE_SINGLESTEP, PTRACE_SYSCALL, PTRACE_SYSEMU, PTRACE_TRACEME, SIGSTOP, SIGTERM, SIGTRAP,
    SIGUSR1, SIGUSR2,
};

fn trace_me() -> Outcome {
    let pid = tracee(|| if ptrace(PTRACE_TRACEME, 0, 0, 0) == Err(libc::EPERM) { 7 } else { 1 })?;
    eq!(state(pid), Some('t'));
    let status = ok!(std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|_| 5));
    let tracer = format!("TracerPid:\t{}", guest_tests::proc::pid());
    check!(status.lines().any(|line| line == tracer), "{status}");
    let info = ok!(siginfo(pid));
    eq!(&info[..3], &[SIGSTOP, 0, 0]);
    eq!(info[4], pid);
    eq!(end(pid)?, code(7));
    Ok(())
}

/// Who was stopped already is stopped for its tracer when `PTRACE_ATTACH` returns.
fn attaching_to_the_stopped() -> Outcome {
    for _ in 0..20 {
        let pid = ok!(guest_tests::proc::child(|| {
            let _ = sig::raise(SIGSTOP);
            0
        }));
        eq!(ok!(guest_tests::proc::wait_options(pid, libc::WUNTRACED)), End::Stopped(SIGSTOP));
        ok!(ptrace(PTRACE_ATTACH, pid, 0, 0));
        check!(ok!(regs(pid)).rip != 0);
        ok!(sys!(SYS_kill, pid, libc::SIGKILL));
        ok!(guest_tests::proc::wait(pid));
    }
    Ok(())
}

fn errors() -> Outcome {
    fails!(ptrace(PTRACE_CONT, 0, 0, 0), ESRCH);
    fails!(ptrace(PTRACE_CONT, pid(), 0, 0), ESRCH);
    fails!(ptrace(PTRACE_ATTACH, pid(), 0, 0), EPERM);
    fails!(ptrace(PTRACE_ATTACH, 0x3f_ffff, 0, 0), ESRCH);
    let pid = tracee(|| 0)?;
    fails!(ptrace(PTRACE_ATTACH, pid, 0, 0), EPERM);
    fails!(ptrace(PTRACE_SEIZE, pid, 1, 0), EIO);
    fails!(ptrace(PTRACE_INTERRUPT, pid, 0, 0), EIO);
    fails!(ptrace(PTRACE_LISTEN, pid, 0, 0), EIO);
    fails!(ptrace(PTRACE_CONT, pid, 0, 65), EIO);
    fails!(ptrace(PTRACE_SETOPTIONS, pid, 0, 0x8000), EINVAL);
    fails!(ptrace(0x7777, pid, 0, 0), EIO);
    fails!(peek(pid, 8), EIO);
    fails!(ptrace(PTRACE_PEEKUSER, pid, 3, 0), EIO);
    fails!(ptrace(PTRACE_PEEKUSER, pid, 4096, 0), EIO);
    fails!(ptrace(PTRACE_GETREGS, pid, 0, 8), EFAULT);
    eq!(end(pid)?, 0);
    Ok(())
}

fn signals() -> Outcome {
    static SEEN: AtomicI32 = AtomicI32::new(0);
    extern "C" fn handler(signo: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        SEEN.fetch_add(signo, Ordering::SeqCst);
    }
    let pid = tracee(|| {
        let _ = sig::handle(SIGUSR1, handler, 0);
        let _ = sig::handle(SIGUSR2, handler, 0);
        for _ in 0..3 {
            let _ = sys!(SYS_kill, pid(), SIGUSR1);
        }
        SEEN.load(Ordering::SeqCst)
    })?;
    // Delivered, suppressed, replaced.
    eq!(go(pid, PTRACE_CONT, 0)?, SIGUSR1);
    let info = ok!(siginfo(pid));
    eq!(&info[..3], &[SIGUSR1, 0, 0]);
    eq!(info[4], pid);
    eq!(go(pid, PTRACE_CONT, SIGUSR1)?, SIGUSR1);
    eq!(go(pid, PTRACE_CONT, 0)?, SIGUSR1);
    ok!(ptrace(PTRACE_CONT, pid, 0, SIGUSR2 as usize));
    eq!(ok!(wait(pid)), code(SIGUSR1 + SIGUSR2));
    Ok(())
}

fn ignored_signals_are_seen() -> Outcome {
    let pid = tracee(|| {
        let _ = sys!(SYS_kill, pid(), libc::SIGURG);
        let _ = sys!(SYS_kill, pid(), SIGTERM);
        1
    })?;
    eq!(go(pid, PTRACE_CONT, 0)?, libc::SIGURG);
    eq!(go(pid, PTRACE_CONT, libc::SIGURG)?, SIGTERM);
    ok!(ptrace(PTRACE_CONT, pid, 0, SIGTERM as usize));
    eq!(ok!(wait(pid)), SIGTERM);
    Ok(())
}

fn changed_siginfo() -> Outcome {
    static CODE: AtomicI32 = AtomicI32::new(0);
    extern "C" fn handler(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel's record.
        CODE.store(unsafe { (*info).si_code }, Ordering::SeqCst);
    }
    let pid = tracee(|| {
        let _ = sig::handle(SIGUSR1, handler, 0);
        let _ = sys!(SYS_kill, pid(), SIGUSR1);
        if CODE.load(Ordering::SeqCst) == -42 { 7 } else { 1 }
    })?;
    eq!(go(pid, PTRACE_CONT, 0)?, SIGUSR1);
    let mut info = ok!(siginfo(pid));
    info[2] = -42;
    ok!(ptrace(PTRACE_SETSIGINFO, pid, 0, info.as_mut_ptr().addr()));
    ok!(ptrace(PTRACE_CONT, pid, 0, SIGUSR1 as usize));
    eq!(ok!(wait(pid)), code(7));
    Ok(())
}

fn memory() -> Outcome {
    static WORDS: [AtomicU64; 3] = [AtomicU64::new(1), AtomicU64::new(2), AtomicU64::new(3)];
    static CONSTANT: u64 = 0x1122_3344_5566_7788;
    let pid = tracee(|| {
        let sum: u64 = WORDS.iter().map(|word| word.load(Ordering::SeqCst)).sum();
        // SAFETY: a live word.
        let constant = unsafe { core::ptr::read_volatile(&raw const CONSTANT) };
        if sum == 1 + 40 + 3 && constant == 5 { 7 } else { 1 }
    })?;
    let addr = WORDS.as_ptr().addr();
    eq!(ok!(peek(pid, addr + 8)), 2);
    ok!(ptrace(PTRACE_POKEDATA, pid, addr + 8, 40));
    eq!(ok!(peek(pid, addr + 8)), 40);
    eq!(WORDS[1].load(Ordering::SeqCst), 2);
    // Memory that the tracee cannot write itself.
    let addr = (&raw const CONSTANT).addr();
    eq!(ok!(peek(pid, addr)), CONSTANT);
    ok!(ptrace(PTRACE_POKEDATA, pid, addr, 5));
    eq!(ok!(peek(pid, addr)), 5);
    eq!(end(pid)?, code(7));
    Ok(())
}

fn memory_file() -> Outcome {
    use std::os::unix::fs::FileExt;
    static CONSTANT: u64 = 0x1122_3344_5566_7788;
    let pid = tracee(|| {
        // SAFETY: a live word.
        let constant = unsafe { core::ptr::read_volatile(&raw const CONSTANT) };
        if constant == 0x1122_3344_0000_7788 { 7 } else { 1 }
    })?;
    let mut options = std::fs::OpenOptions::new();
    let path = format!("/proc/{pid}/mem");
    let file = options.read(true).write(true).open(path).map_err(|error| error.to_string())?;
    let addr = (&raw const CONSTANT).addr() as u64;
    file.write_all_at(&[0, 0], addr + 2).map_err(|error| error.to_string())?;
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, addr).map_err(|error| error.to_string())?;
    eq!(u64::from_ne_bytes(bytes), 0x1122_3344_0000_7788);
    eq!(end(pid)?, code(7));
    Ok(())
}

fn registers() -> Outcome {
    let pid = tracee(|| {
        // The tracer gives another answer.
        let answer = sys!(SYS_getpid).unwrap_or_default();
        if answer == 4242 { 7 } else { 1 }
    })?;
    eq!(go(pid, PTRACE_SYSCALL, 0)?, SIGTRAP);
    let mut at = ok!(regs(pid));
    // The way out of kill(2) has been passed before the first stop.
    eq!(at.orig_rax, libc::SYS_getpid as u64);
    eq!(at.rax.cast_signed(), i64::from(-libc::ENOSYS));
    let offset = core::mem::offset_of!(libc::user, regs) + 8 * 15;
    let mut word = 0u64;
    ok!(ptrace(PTRACE_PEEKUSER, pid, offset, (&raw mut word).addr()));
    eq!(word, at.orig_rax);
    eq!(go(pid, PTRACE_SYSCALL, 0)?, SIGTRAP);
    at = ok!(regs(pid));
    eq!(at.rax, pid as u64);
    at.rax = 4242;
    ok!(set_regs(pid, &at));
    eq!(ok!(regs(pid)).rax, 4242);
    // Register sets.
    let mut set = [0u64; 27];
    let mut iov = [set.as_mut_ptr().addr(), 1000];
    ok!(ptrace(PTRACE_GETREGSET, pid, 1, iov.as_mut_ptr().addr()));
    eq!(iov[1], 216);
    eq!(set[10], 4242);
    iov[1] = 16;
    ok!(ptrace(PTRACE_SETREGSET, pid, 1, iov.as_mut_ptr().addr()));
    iov[1] = 12;
    fails!(ptrace(PTRACE_GETREGSET, pid, 1, iov.as_mut_ptr().addr()), EINVAL);
    iov[1] = 16;
    fails!(ptrace(PTRACE_GETREGSET, pid, 0x7777, iov.as_mut_ptr().addr()), EINVAL);
    at.cs = 0;
    fails!(set_regs(pid, &at), EIO);
    let debug = core::mem::offset_of!(libc::user, u_debugreg);
    ok!(ptrace(PTRACE_PEEKUSER, pid, debug + 8 * 7, (&raw mut word).addr()));
    eq!(word, 0);
    ok!(ptrace(PTRACE_POKEUSER, pid, debug + 8 * 7, 0));
    eq!(end(pid)?, code(7));
    Ok(())
}

fn float_registers() -> Outcome {
    static VALUE: AtomicU64 = AtomicU64::new(0);
    extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    let pid = tracee(|| {
        let out: u64;
        let _ = sig::handle(SIGUSR1, handler, 0);
        let pid = pid() as i64;
        // SAFETY: kill(2) for this process, with a vector register around it.
        unsafe {
            core::arch::asm!(
                "movq xmm5, {value}",
                "syscall",
                "movq {value}, xmm5",
                value = inout(reg) 0x1234_5678u64 => out,
                inout("rax") libc::SYS_kill => _,
                in("rdi") pid,
                in("rsi") i64::from(SIGUSR1),
                lateout("rcx") _,
                lateout("r11") _,
                out("xmm5") _,
            );
        }
        VALUE.store(out, Ordering::SeqCst);
        if out == 0x8765_4321 { 7 } else { 1 }
    })?;
    eq!(go(pid, PTRACE_CONT, 0)?, SIGUSR1);
    let mut state = [0u8; 512];
    ok!(ptrace(PTRACE_GETFPREGS, pid, 0, state.as_mut_ptr().addr()));
    let at = 160 + 16 * 5;
    eq!(&state[at..at + 8], &0x1234_5678u64.to_le_bytes());
    state[at..at + 8].copy_from_slice(&0x5555u64.to_le_bytes());
    ok!(ptrace(PTRACE_SETFPREGS, pid, 0, state.as_mut_ptr().addr()));
    let mut area = [0u8; 16384];
    let mut iov = [area.as_mut_ptr().addr(), area.len()];
    ok!(ptrace(PTRACE_GETREGSET, pid, 0x202, iov.as_mut_ptr().addr()));
    check!(iov[1] >= 576, "{}", iov[1]);
    eq!(&area[at..at + 8], &0x5555u64.to_le_bytes());
    check!(area[464] & 3 == 3);
    area[at..at + 8].copy_from_slice(&0x8765_4321u64.to_le_bytes());
    ok!(ptrace(PTRACE_SETREGSET, pid, 0x202, iov.as_mut_ptr().addr()));
    eq!(end(pid)?, code(7));
    Ok(())
}

fn system_calls() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let pid = tracee(|| {
        let _ = write_all(writer, b"abc");
        0
    })?;
    ok!(close(writer));
    ok!(ptrace(PTRACE_SETOPTIONS, pid, 0, O_SYSGOOD));
    let mut info = [0u64; 11];
    eq!(go(pid, PTRACE_SYSCALL, 0)?, SYSCALL_STOP);
    eq!(ok!(message(pid)), 1);
    eq!(ok!(siginfo(pid))[2], SYSCALL_STOP);
    eq!(ok!(ptrace(GET_SYSCALL_INFO, pid, 88, info.as_mut_ptr().addr())), 80);
    eq!(info[0], 1 | 0xc000_003e << 32);
    eq!(info[3], libc::SYS_write as u64);
    eq!(info[4], writer as u64);
    eq!(info[6], 3);
    eq!(go(pid, PTRACE_SYSCALL, 0)?, SYSCALL_STOP);
    eq!(ok!(message(pid)), 2);
    eq!(ok!(ptrace(GET_SYSCALL_INFO, pid, 88, info.as_mut_ptr().addr())), 33);
    eq!(info[0] & 0xff, 2);
    eq!(info[3], 3);
    eq!(go(pid, PTRACE_SYSCALL, 0)?, SYSCALL_STOP);
    eq!(ok!(regs(pid)).orig_rax, libc::SYS_exit_group as u64);
    eq!(end(pid)?, 0);
    eq!(ok!(read_all(reader)), b"abc");
    Ok(())
}

fn signals_at_calls() -> Outcome {
    let pid = tracee(|| {
        let _ = raw(libc::SYS_getpid, [0; 6]);
        1
    })?;
    ok!(ptrace(PTRACE_SETOPTIONS, pid, 0, O_SYSGOOD));
    eq!(go(pid, PTRACE_SYSCALL, 0)?, SYSCALL_STOP);
    // What is given at the entry comes after the call, what is given at its end at once. Both look
    // like the kernel's own.
    eq!(go(pid, PTRACE_SYSCALL, SIGUSR1)?, SYSCALL_STOP);
    eq!(go(pid, PTRACE_SYSCALL, SIGUSR2)?, SIGUSR1);
    eq!(&ok!(siginfo(pid))[..6], &[SIGUSR1, 0, 0x80, 0, 0, 0]);
    eq!(go(pid, PTRACE_SYSCALL, 0)?, SIGUSR2);
    eq!(&ok!(siginfo(pid))[..3], &[SIGUSR2, 0, 0x80]);
    eq!(go(pid, PTRACE_SYSCALL, 0)?, SYSCALL_STOP);
    eq!(end(pid)?, code(1));
    Ok(())
}

fn changed_calls() -> Outcome {
    let pid = tracee(|| {
        let first = raw(libc::SYS_getpid, [0; 6]);
        let second = raw(libc::SYS_getpid, [0; 6]);
        if first == raw(libc::SYS_getppid, [0; 6]) && second == Ok(77) { 7 } else { 1 }
    })?;
    eq!(go(pid, PTRACE_SYSCALL, 0)?, SIGTRAP);
    let mut at = ok!(regs(pid));
    at.orig_rax = libc::SYS_getppid as u64;
    ok!(set_regs(pid, &at));
    eq!(go(pid, PTRACE_SYSCALL, 0)?, SIGTRAP);
    eq!(ok!(regs(pid)).rax, guest_tests::proc::pid() as u64);
    eq!(go(pid, PTRACE_SYSCALL, 0)?, SIGTRAP);
    at = ok!(regs(pid));
    at.orig_rax = u64::MAX;
    at.rax = 77;
    ok!(set_regs(pid, &at));
    eq!(go(pid, PTRACE_SYSCALL, 0)?, SIGTRAP);
    eq!(ok!(regs(pid)).rax, 77);
    eq!(end(pid)?, code(7));
    Ok(())
}

fn emulated_calls() -> Outcome {
    let pid = tracee(|| if raw(0x7777, [0; 6]) == Ok(5) { 7 } else { 1 })?;
    eq!(go(pid, PTRACE_SYSEMU, 0)?, SIGTRAP);
    let mut at = ok!(regs(pid));
    eq!(at.orig_rax, 0x7777);
    at.rax = 5;
    ok!(set_regs(pid, &at));
    // There is no way out of a call that is not made.
    eq!(go(pid, PTRACE_SYSEMU, 0)?, SIGTRAP);
    eq!(ok!(regs(pid)).orig_rax, libc::SYS_exit_group as u64);
    eq!(end(pid)?, code(7));
    Ok(())
}

/// Executes `nop; nop; getpid; nop; int3` and returns the number.
fn steps() -> i64 {
    let out: i64;
    // SAFETY: a call without effect, and a breakpoint that the tracer takes.
    unsafe {
        core::arch::asm!(
            "int3", "nop", "nop", "mov eax, 39", "syscall", "nop", "int3",
            out("rax") out, lateout("rcx") _, lateout("r11") _,
        );
    }
    out
}

fn single_steps() -> Outcome {
    let pid = tracee(|| if steps() == i64::from(pid()) { 7 } else { 1 })?;
    eq!(go(pid, PTRACE_CONT, 0)?, SIGTRAP);
    eq!(ok!(siginfo(pid))[2], 0x80);
    let start = ok!(regs(pid)).rip;
    let mut places = Vec::new();
    let mut codes = Vec::new();
    for _ in 0..5 {
        eq!(go(pid, PTRACE_SINGLESTEP, 0)?, SIGTRAP);
        places.push(ok!(regs(pid)).rip - start);
        codes.push(ok!(siginfo(pid))[2]);
        eq!(ok!(regs(pid)).eflags & 0x100, 0);
    }
    eq!(places, [1, 2, 7, 9, 10]);
    eq!(codes, [2, 2, 2, 1, 2]);
    eq!(go(pid, PTRACE_CONT, 0)?, SIGTRAP);
    eq!(end(pid)?, code(7));
    Ok(())
}

fn steps_into_handlers() -> Outcome {
    extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    let pid = tracee(|| {
        let _ = sig::handle(SIGUSR1, handler, 0);
        let _ = sys!(SYS_kill, pid(), SIGUSR1);
        7
    })?;
    eq!(go(pid, PTRACE_CONT, 0)?, SIGUSR1);
    eq!(go(pid, PTRACE_SINGLESTEP, SIGUSR1)?, SIGTRAP);
    eq!(ok!(regs(pid)).rip, (handler as *const ()).addr() as u64);
    eq!(ok!(siginfo(pid))[2], SIGTRAP);
    eq!(end(pid)?, code(7));
    Ok(())
}

#[inline(never)]
extern "C" fn victim(value: i32) -> i32 {
    core::hint::black_box(value) + 1
}

fn breakpoints() -> Outcome {
    let pid = tracee(|| {
        // SAFETY: the address of a function, as the compiler must not see.
        let call = core::hint::black_box(victim as extern "C" fn(i32) -> i32);
        call(1) + call(2)
    })?;
    let addr = (victim as *const ()).addr();
    let old = ok!(peek(pid, addr));
    ok!(ptrace(PTRACE_POKEDATA, pid, addr, (old as usize & !0xff) | 0xcc));
    for _ in 0..2 {
        eq!(go(pid, PTRACE_CONT, 0)?, SIGTRAP);
        let mut at = ok!(regs(pid));
        eq!(at.rip, addr as u64 + 1);
        at.rip = addr as u64;
        ok!(set_regs(pid, &at));
        ok!(ptrace(PTRACE_POKEDATA, pid, addr, old as usize));
        eq!(go(pid, PTRACE_SINGLESTEP, 0)?, SIGTRAP);
        ok!(ptrace(PTRACE_POKEDATA, pid, addr, (old as usize & !0xff) | 0xcc));
    }
    eq!(end(pid)?, code(5));
    Ok(())
}

fn text_is_original() -> Outcome {
    // Many calls from one place, which a sandbox may have changed for speed.
    let pid = tracee(|| {
        for _ in 0..5 {
            for _ in 0..300 {
                let _ = sys!(SYS_getpid);
                let _ = sys!(SYS_getppid);
            }
            let _ = sys!(SYS_kill, pid(), SIGUSR1);
        }
        7
    })?;
    for _ in 0..5 {
        eq!(go(pid, PTRACE_CONT, 0)?, SIGUSR1);
        let rip = ok!(regs(pid)).rip as usize;
        eq!(ok!(peek(pid, rip - 2)) & 0xffff, 0x050f);
    }
    eq!(end(pid)?, code(7));
    Ok(())
}

fn every_call_is_seen() -> Outcome {
    let pid = tracee(|| {
        for _ in 0..300 {
            let _ = raw(libc::SYS_getpid, [0; 6]);
        }
        0
    })?;
    let mut n = 0;
    loop {
        eq!(go(pid, PTRACE_SYSCALL, 0)?, SIGTRAP);
        let number = ok!(regs(pid)).orig_rax;
        if number == libc::SYS_exit_group as u64 {
            break;
        }
        n += i32::from(number == libc::SYS_getpid as u64);
    }
    eq!(n, 600);
    eq!(end(pid)?, 0);
    Ok(())
}

guest_tests::cases!(
    trace_me,
    attaching_to_the_stopped,
    errors,
    signals,
    ignored_signals_are_seen,
    changed_siginfo,
    memory,
    memory_file,
    registers,
    float_registers,
    system_calls,
    signals_at_calls,
    changed_calls,
    emulated_calls,
    single_steps,
    steps_into_handlers,
    breakpoints,
    text_is_original,
    every_call_is_seen,
);
