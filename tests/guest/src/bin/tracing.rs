//! Tracing: who traces whom, and the events of processes and threads (`ptrace(2)`).

use guest_tests::fs::{pipe, write_all};
use guest_tests::proc::{child, drop_root, pid, state, tid, until};
use guest_tests::runner::exit;
use guest_tests::trace::{
    GET_SYSCALL_INFO, O_SYSGOOD, SYSCALL_STOP, code, end, event, go, message, peek, ptrace, regs,
    set_regs, siginfo, stop, tracee, wait,
};
use guest_tests::{Outcome, check, eq, fails, ok, raw, sig, sys};
use libc::{
    PTRACE_ATTACH, PTRACE_CONT, PTRACE_DETACH, PTRACE_INTERRUPT, PTRACE_KILL, PTRACE_LISTEN,
    PTRACE_SEIZE, PTRACE_SETOPTIONS, PTRACE_SYSCALL, SIGCHLD, SIGCONT, SIGKILL, SIGSEGV, SIGSTOP,
    SIGTRAP, SIGUSR1, SIGUSR2,
};

const GETSIGMASK: i32 = 0x420a;
const SETSIGMASK: i32 = 0x420b;
const PEEKSIGINFO: i32 = 0x4209;
const O_FORK: usize = 2;
const O_VFORK: usize = 4;
const O_CLONE: usize = 8;
const O_EXEC: usize = 0x10;
const O_VFORKDONE: usize = 0x20;
const O_EXIT: usize = 0x40;
const O_SECCOMP: usize = 0x80;
const O_EXITKILL: usize = 0x10_0000;
const EVENT_FORK: i32 = 1;
const EVENT_VFORK: i32 = 2;
const EVENT_CLONE: i32 = 3;
const EVENT_EXEC: i32 = 4;
const EVENT_VFORK_DONE: i32 = 5;
const EVENT_EXIT: i32 = 6;
const EVENT_SECCOMP: i32 = 7;
const EVENT_STOP: i32 = 128;

fn attach_and_detach() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let mut byte = 0u8;
        // A call that an attach interrupts and a detach lets go on.
        match sys!(SYS_read, reader, &mut byte, 1) {
            Ok(1) => i32::from(byte),
            _ => 1,
        }
    }));
    check!(until(|| state(pid) == Some('S')));
    ok!(ptrace(PTRACE_ATTACH, pid, 0, 0));
    eq!(stop(pid)?, SIGSTOP);
    let at = ok!(regs(pid));
    eq!(at.orig_rax, libc::SYS_read as u64);
    eq!(at.rax.cast_signed(), -512);
    ok!(ptrace(PTRACE_DETACH, pid, 0, 0));
    fails!(ptrace(PTRACE_CONT, pid, 0, 0), ESRCH);
    ok!(write_all(writer, &[7]));
    eq!(ok!(wait(pid)), code(7));
    Ok(())
}

fn seize_and_interrupt() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let mut byte = 0u8;
        match sys!(SYS_read, reader, &mut byte, 1) {
            Ok(1) => i32::from(byte),
            _ => 1,
        }
    }));
    ok!(ptrace(PTRACE_SEIZE, pid, 0, O_SYSGOOD));
    fails!(ptrace(PTRACE_CONT, pid, 0, 0), ESRCH);
    check!(until(|| state(pid) == Some('S')));
    ok!(ptrace(PTRACE_INTERRUPT, pid, 0, 0));
    eq!(stop(pid)?, event(EVENT_STOP));
    eq!(ok!(siginfo(pid))[2], event(EVENT_STOP));
    // Stops of the process.
    ok!(ptrace(PTRACE_CONT, pid, 0, 0));
    ok!(sys!(SYS_kill, pid, SIGSTOP));
    eq!(stop(pid)?, SIGSTOP);
    eq!(go(pid, PTRACE_CONT, SIGSTOP)?, SIGSTOP | EVENT_STOP << 8);
    ok!(ptrace(PTRACE_LISTEN, pid, 0, 0));
    fails!(regs(pid), ESRCH);
    ok!(sys!(SYS_kill, pid, SIGCONT));
    eq!(stop(pid)?, event(EVENT_STOP));
    eq!(go(pid, PTRACE_CONT, 0)?, SIGCONT);
    ok!(ptrace(PTRACE_CONT, pid, 0, SIGCONT as usize));
    ok!(write_all(writer, &[7]));
    eq!(ok!(wait(pid)), code(7));
    Ok(())
}

fn stops_of_the_process() -> Outcome {
    let pid = tracee(|| {
        let _ = sys!(SYS_kill, pid(), libc::SIGTSTP);
        7
    })?;
    ok!(sys!(SYS_setpgid, pid, pid));
    eq!(go(pid, PTRACE_CONT, 0)?, libc::SIGTSTP);
    ok!(siginfo(pid));
    ok!(ptrace(PTRACE_CONT, pid, 0, SIGSTOP as usize));
    eq!(stop(pid)?, SIGSTOP);
    // This is no stop by a signal.
    fails!(siginfo(pid), EINVAL);
    eq!(end(pid)?, code(7));
    Ok(())
}

fn forks() -> Outcome {
    let pid = tracee(|| {
        let made = child(|| 3);
        match made.map(guest_tests::proc::wait) {
            Ok(Ok(guest_tests::proc::End::Code(3))) => 7,
            _ => 1,
        }
    })?;
    ok!(ptrace(PTRACE_SETOPTIONS, pid, 0, O_FORK));
    eq!(go(pid, PTRACE_CONT, 0)?, event(EVENT_FORK));
    let born = ok!(message(pid)) as i32;
    eq!(stop(born)?, SIGSTOP);
    // It exists while its maker is still stopped.
    let at = ok!(regs(born));
    eq!(at.rax, 0);
    ok!(peek(born, at.rsp as usize));
    fails!(ptrace(PTRACE_ATTACH, born, 0, 0), EPERM);
    eq!(end(born)?, code(3));
    eq!(go(pid, PTRACE_CONT, 0)?, SIGCHLD);
    eq!(end(pid)?, code(7));
    Ok(())
}

fn vforks() -> Outcome {
    let pid = tracee(|| {
        // The parent waits for the child, which has a copy of its memory.
        let made = sys!(SYS_clone, libc::CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
        if made == Ok(0) {
            exit(3);
        }
        7
    })?;
    ok!(ptrace(PTRACE_SETOPTIONS, pid, 0, O_VFORK | O_VFORKDONE));
    eq!(go(pid, PTRACE_CONT, 0)?, event(EVENT_VFORK));
    let born = ok!(message(pid)) as i32;
    eq!(stop(born)?, SIGSTOP);
    ok!(ptrace(PTRACE_CONT, pid, 0, 0));
    eq!(end(born)?, code(3));
    let mut stops = vec![stop(pid)?];
    stops.push(go(pid, PTRACE_CONT, 0)?);
    stops.sort_unstable();
    eq!(stops, [SIGCHLD, event(EVENT_VFORK_DONE)]);
    eq!(end(pid)?, code(7));
    Ok(())
}

fn threads() -> Outcome {
    let pid = tracee(|| {
        let thread = std::thread::spawn(tid);
        let is_other = thread.join().is_ok_and(|tid| tid != pid());
        // Once the process exits, its status is what is told of each thread.
        let _ = sys!(SYS_tgkill, pid(), tid(), SIGSTOP);
        if is_other { 7 } else { 1 }
    })?;
    ok!(ptrace(PTRACE_SETOPTIONS, pid, 0, O_CLONE | O_EXIT));
    eq!(go(pid, PTRACE_CONT, 0)?, event(EVENT_CLONE));
    let born = ok!(message(pid)) as i32;
    check!(born != pid);
    eq!(stop(born)?, SIGSTOP);
    ok!(ptrace(PTRACE_CONT, pid, 0, 0));
    eq!(go(born, PTRACE_CONT, 0)?, event(EVENT_EXIT));
    eq!(ok!(message(born)), 0);
    // The end of a thread is told as well.
    eq!(end(born)?, 0);
    fails!(wait(born), ECHILD);
    eq!(stop(pid)?, SIGSTOP);
    eq!(go(pid, PTRACE_CONT, 0)?, event(EVENT_EXIT));
    eq!(ok!(message(pid)), 0x700);
    eq!(end(pid)?, code(7));
    Ok(())
}

fn executes() -> Outcome {
    let body = || {
        let path = c"/proc/self/exe";
        let args = [path.as_ptr(), c"--list".as_ptr(), core::ptr::null()];
        let envs = [core::ptr::null::<i8>()];
        let null = ok_or_exit(sys!(SYS_openat, libc::AT_FDCWD, c"/dev/null".as_ptr(), 1, 0));
        let _ = sys!(SYS_dup2, null, 1);
        let _ = sys!(SYS_execve, path.as_ptr(), args.as_ptr(), envs.as_ptr());
        1
    };
    let pid = tracee(body)?;
    eq!(go(pid, PTRACE_CONT, 0)?, SIGTRAP);
    eq!(ok!(siginfo(pid))[2], 0);
    eq!(end(pid)?, 0);
    let pid = tracee(body)?;
    ok!(ptrace(PTRACE_SETOPTIONS, pid, 0, O_EXEC | O_SYSGOOD));
    let mut next = go(pid, PTRACE_CONT, 0)?;
    eq!(next, event(EVENT_EXEC));
    eq!(ok!(message(pid)), pid as u64);
    next = go(pid, PTRACE_SYSCALL, 0)?;
    eq!(next, SYSCALL_STOP);
    eq!(ok!(regs(pid)).orig_rax, libc::SYS_execve as u64);
    eq!(ok!(regs(pid)).rax, 0);
    eq!(end(pid)?, 0);
    Ok(())
}

fn ok_or_exit(value: Result<usize, i32>) -> usize {
    value.unwrap_or_else(|_| exit(98))
}

fn filters() -> Outcome {
    #[repr(C)]
    struct Insn(u16, u8, u8, u32);
    #[repr(C)]
    struct Program(u16, *const Insn);
    let pid = tracee(|| {
        let insns = [
            Insn(0x20, 0, 0, 0),
            Insn(0x15, 0, 1, libc::SYS_getpid as u32),
            Insn(6, 0, 0, 0x7ff0_0000 | 321),
            Insn(6, 0, 0, 0x7fff_0000),
        ];
        let program = Program(4, insns.as_ptr());
        let _ = sys!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        let _ = sys!(SYS_seccomp, 1, 0, &program);
        let first = raw(libc::SYS_getpid, [0; 6]);
        let second = raw(libc::SYS_getpid, [0; 6]);
        if first.is_ok_and(|pid| pid > 1) && second == Ok(77) { 7 } else { 1 }
    })?;
    ok!(ptrace(PTRACE_SETOPTIONS, pid, 0, O_SECCOMP));
    eq!(go(pid, PTRACE_CONT, 0)?, event(EVENT_SECCOMP));
    eq!(ok!(message(pid)), 321);
    let mut info = [0u64; 11];
    eq!(ok!(ptrace(GET_SYSCALL_INFO, pid, 88, info.as_mut_ptr().addr())), 84);
    eq!(info[0] & 0xff, 3);
    eq!(info[3], libc::SYS_getpid as u64);
    eq!(info[10] as u32, 321);
    eq!(go(pid, PTRACE_CONT, 0)?, event(EVENT_SECCOMP));
    let mut at = ok!(regs(pid));
    at.orig_rax = u64::MAX;
    at.rax = 77;
    ok!(set_regs(pid, &at));
    eq!(end(pid)?, code(7));
    Ok(())
}

fn masks() -> Outcome {
    let pid = tracee(|| {
        let mask = 1u64 << (SIGUSR1 - 1);
        let _ = sys!(SYS_rt_sigprocmask, libc::SIG_BLOCK, &mask, 0, 8);
        let _ = sys!(SYS_kill, pid(), SIGUSR1);
        let _ = sys!(SYS_kill, pid(), SIGUSR2);
        7
    })?;
    eq!(go(pid, PTRACE_CONT, 0)?, SIGUSR2);
    let mut mask = 0u64;
    ok!(ptrace(GETSIGMASK, pid, 8, (&raw mut mask).addr()));
    eq!(mask, 1 << (SIGUSR1 - 1));
    fails!(ptrace(GETSIGMASK, pid, 4, (&raw mut mask).addr()), EINVAL);
    // What is pending can be seen.
    let args = [0u64, 1 | 5 << 32];
    let mut infos = [0i32; 32 * 5];
    eq!(ok!(ptrace(PEEKSIGINFO, pid, args.as_ptr().addr(), infos.as_mut_ptr().addr())), 1);
    eq!(infos[0], SIGUSR1);
    mask = 0;
    ok!(ptrace(SETSIGMASK, pid, 8, (&raw mut mask).addr()));
    eq!(go(pid, PTRACE_CONT, 0)?, SIGUSR1);
    eq!(end(pid)?, code(7));
    Ok(())
}

fn kills() -> Outcome {
    let pid = tracee(|| 1)?;
    ok!(ptrace(PTRACE_KILL, pid, 0, 0));
    eq!(ok!(wait(pid)), SIGKILL);
    // A stopped tracee dies at once.
    let pid = tracee(|| 1)?;
    ok!(sys!(SYS_kill, pid, SIGKILL));
    eq!(ok!(wait(pid)), SIGKILL);
    fails!(ptrace(PTRACE_CONT, pid, 0, 0), ESRCH);
    Ok(())
}

/// Runs a tracer in a process of its own, which ends while `target` is stopped.
fn tracer_that_ends(target: i32, options: usize) -> Outcome {
    let tracer = ok!(child(|| {
        let traced = ptrace(PTRACE_SEIZE, target, 0, options)
            .and_then(|_| ptrace(PTRACE_INTERRUPT, target, 0, 0))
            .and_then(|_| wait(target));
        i32::from(traced.is_err())
    }));
    eq!(ok!(wait(tracer)), 0);
    Ok(())
}

fn tracer_ends() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let body = || {
        let mut byte = 0u8;
        match sys!(SYS_read, reader, &mut byte, 1) {
            Ok(1) => i32::from(byte),
            _ => 1,
        }
    };
    let pid = ok!(child(body));
    tracer_that_ends(pid, 0)?;
    ok!(write_all(writer, &[7]));
    eq!(ok!(wait(pid)), code(7));
    let pid = ok!(child(body));
    tracer_that_ends(pid, O_EXITKILL)?;
    eq!(ok!(wait(pid)), SIGKILL);
    Ok(())
}

fn tracer_is_not_the_parent() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let (told, tell) = ok!(pipe(0));
    let target = ok!(child(|| {
        let mut byte = 0u8;
        let _ = sys!(SYS_read, reader, &mut byte, 1);
        5
    }));
    let tracer = ok!(child(|| {
        if ptrace(PTRACE_SEIZE, target, 0, 0).is_err() {
            return 1;
        }
        let _ = write_all(tell, b"x");
        // The tracer learns of the end first.
        if wait(target) == Ok(code(5)) { 0 } else { 2 }
    }));
    let mut byte = 0u8;
    eq!(ok!(sys!(SYS_read, told, &mut byte, 1)), 1);
    ok!(write_all(writer, &[7]));
    eq!(ok!(wait(target)), code(5));
    eq!(ok!(wait(tracer)), 0);
    Ok(())
}

fn permissions() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let target = ok!(child(|| {
        let mut byte = 0u8;
        let _ = sys!(SYS_read, reader, &mut byte, 1);
        5
    }));
    let stranger = ok!(child(|| {
        if drop_root().is_err() {
            return 1;
        }
        let attached = ptrace(PTRACE_ATTACH, target, 0, 0);
        if attached == Err(libc::EPERM) { 0 } else { 2 }
    }));
    eq!(ok!(wait(stranger)), 0);
    ok!(write_all(writer, &[7]));
    eq!(ok!(wait(target)), code(5));
    Ok(())
}

fn faults() -> Outcome {
    let pid = tracee(|| {
        let _ = sig::plain(SIGSEGV, 0);
        // SAFETY: the fault is the point.
        unsafe { core::ptr::with_exposed_provenance::<u8>(64).read_volatile().into() }
    })?;
    eq!(go(pid, PTRACE_CONT, 0)?, SIGSEGV);
    let info = ok!(siginfo(pid));
    eq!(&info[..3], &[SIGSEGV, 0, 1]);
    eq!(info[4], 64);
    ok!(ptrace(PTRACE_CONT, pid, 0, SIGSEGV as usize));
    eq!(ok!(wait(pid)) & 0x7f, SIGSEGV);
    Ok(())
}

fn waits() -> Outcome {
    let pid = tracee(|| 7)?;
    eq!(go(pid, PTRACE_SYSCALL, 0)?, SIGTRAP);
    ok!(ptrace(PTRACE_SYSCALL, pid, 0, 0));
    let mut info = [0i32; 32];
    let options = libc::WEXITED | libc::WSTOPPED | libc::__WALL;
    ok!(sys!(SYS_waitid, libc::P_PID, pid, info.as_mut_ptr(), options, 0));
    eq!(info[2], libc::CLD_EXITED);
    eq!(info[6], 7);
    let pid = tracee(|| 7)?;
    ok!(ptrace(PTRACE_SETOPTIONS, pid, 0, O_SYSGOOD));
    ok!(ptrace(PTRACE_SYSCALL, pid, 0, 0));
    let peek = libc::WNOWAIT | options;
    for options in [peek, options] {
        info = [0; 32];
        ok!(sys!(SYS_waitid, libc::P_PID, pid, info.as_mut_ptr(), options, 0));
        eq!(info[2], libc::CLD_TRAPPED);
        eq!(info[6], SYSCALL_STOP);
    }
    let mut status = 0i32;
    eq!(ok!(sys!(SYS_wait4, pid, &mut status, libc::WNOHANG, 0)), 0);
    eq!(end(pid)?, code(7));
    Ok(())
}

guest_tests::cases!(
    attach_and_detach,
    seize_and_interrupt,
    stops_of_the_process,
    forks,
    vforks,
    threads,
    executes,
    filters,
    masks,
    kills,
    tracer_ends,
    tracer_is_not_the_parent,
    permissions,
    faults,
    waits,
);
