//! Tracing: what the programs about `ptrace(2)` share. The calls are raw and the wait statuses too.

use libc::{
    PTRACE_CONT, PTRACE_GETEVENTMSG, PTRACE_GETREGS, PTRACE_GETSIGINFO, PTRACE_PEEKDATA,
    PTRACE_SETREGS, PTRACE_TRACEME, SIGSTOP, SIGTRAP,
};

use crate::proc::{child, pid};
use crate::{errno, sys};

/// `PTRACE_GET_SYSCALL_INFO`.
pub const GET_SYSCALL_INFO: i32 = 0x420e;
/// A stop at a system call with `PTRACE_O_TRACESYSGOOD`.
pub const SYSCALL_STOP: i32 = SIGTRAP | 0x80;
/// `PTRACE_O_TRACESYSGOOD`.
pub const O_SYSGOOD: usize = 1;

/// The raw call.
pub fn ptrace(request: i32, pid: i32, addr: usize, data: usize) -> Result<usize, i32> {
    sys!(SYS_ptrace, request, pid, addr, data)
}

/// Waits for a tracee; returns the raw status.
pub fn wait(pid: i32) -> Result<i32, i32> {
    let mut status = 0i32;
    loop {
        match sys!(SYS_wait4, pid, &mut status, libc::__WALL, 0) {
            Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => return Ok(status),
        }
    }
}

/// Waits for a stop; returns its signal and event.
pub fn stop(pid: i32) -> Result<i32, String> {
    let status = wait(pid).map_err(errno::name)?;
    if status & 0xff != 0x7f { Err(format!("no stop: {status:#x}")) } else { Ok(status >> 8) }
}

/// Returns the stop of an event.
pub fn event(number: i32) -> i32 {
    SIGTRAP | number << 8
}

/// Returns the registers of a tracee.
pub fn regs(pid: i32) -> Result<libc::user_regs_struct, i32> {
    // SAFETY: a structure of integers.
    let mut regs: libc::user_regs_struct = unsafe { core::mem::zeroed() };
    ptrace(PTRACE_GETREGS, pid, 0, (&raw mut regs).addr())?;
    Ok(regs)
}

/// Sets the registers of a tracee.
pub fn set_regs(pid: i32, regs: &libc::user_regs_struct) -> Result<usize, i32> {
    ptrace(PTRACE_SETREGS, pid, 0, core::ptr::from_ref(regs).addr())
}

/// Returns the record of a stop.
pub fn siginfo(pid: i32) -> Result<[i32; 32], i32> {
    let mut info = [0i32; 32];
    ptrace(PTRACE_GETSIGINFO, pid, 0, info.as_mut_ptr().addr())?;
    Ok(info)
}

/// Returns the message of an event.
pub fn message(pid: i32) -> Result<u64, i32> {
    let mut message = 0u64;
    ptrace(PTRACE_GETEVENTMSG, pid, 0, (&raw mut message).addr())?;
    Ok(message)
}

/// Reads a word of a tracee.
pub fn peek(pid: i32, addr: usize) -> Result<u64, i32> {
    let mut word = 0u64;
    ptrace(PTRACE_PEEKDATA, pid, addr, (&raw mut word).addr())?;
    Ok(word)
}

/// Forks a tracee that stops at once and then runs `body`.
pub fn tracee(body: impl FnOnce() -> i32) -> Result<i32, String> {
    let pid = child(|| {
        if ptrace(PTRACE_TRACEME, 0, 0, 0).is_err() {
            return 99;
        }
        let _ = sys!(SYS_kill, pid(), SIGSTOP);
        body()
    });
    let pid = pid.map_err(errno::name)?;
    match stop(pid)? {
        SIGSTOP => Ok(pid),
        other => Err(format!("first stop {other:#x}")),
    }
}

/// Lets a tracee go on and returns its next stop.
pub fn go(pid: i32, request: i32, signal: i32) -> Result<i32, String> {
    ptrace(request, pid, 0, signal as usize).map_err(errno::name)?;
    stop(pid)
}

/// Lets a tracee go on and returns how it ended: the raw status.
pub fn end(pid: i32) -> Result<i32, String> {
    ptrace(PTRACE_CONT, pid, 0, 0).map_err(errno::name)?;
    let status = wait(pid).map_err(errno::name)?;
    if status & 0xff == 0x7f { Err(format!("a stop: {status:#x}")) } else { Ok(status) }
}

/// Returns the raw status of an exit.
pub fn code(code: i32) -> i32 {
    code << 8
}
