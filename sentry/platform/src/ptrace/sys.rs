//! The host calls of the tracer, one safe function each, and the list of them ([`RULES`]).
//!
//! # Safety
//! Every block here hands the host kernel pointers to live local variables or slices together with
//! their exact sizes; addresses of the traced process are plain numbers to this process.
#![expect(
    unsafe_code,
    reason = "system calls of the tracer; no other module of the platform makes any"
)]

use std::ffi::{c_int, c_long, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};

use sentry_host::Rule;
use syscalls::arch::x86_64::Regs;
use syscalls::{Errno, SysResult};
use zerocopy::{FromZeros, IntoBytes};

/// The calls that this module makes while the platform runs.
pub(super) const RULES: &[Rule] = &[
    Rule::any(libc::SYS_ptrace),
    Rule::any(libc::SYS_waitid),
    Rule::any(libc::SYS_tgkill),
    Rule::any(libc::SYS_kill),
    Rule::any(libc::SYS_process_vm_readv),
    Rule::any(libc::SYS_process_vm_writev),
    Rule::any(libc::SYS_sendmsg),
    Rule::any(libc::SYS_recvfrom),
    Rule::any(libc::SYS_gettid),
];

/// The signal that stops a running thread: nothing else sends it to a stub.
pub(super) const KICK_SIGNAL: i32 = libc::SIGUSR1;

/// The note type of the extended state.
const NT_X86_XSTATE: u64 = 0x202;
const PTRACE_GET_SYSCALL_INFO: c_int = 0x420e;
const PTRACE_SYSEMU: c_int = 31;
const PTRACE_SEIZE: c_int = 0x4206;
const PTRACE_INTERRUPT: c_int = 0x4207;
const PTRACE_GETREGSET: c_int = 0x4204;
const PTRACE_SETREGSET: c_int = 0x4205;
const PTRACE_GETREGS: c_int = 12;
const PTRACE_SETREGS: c_int = 13;
const PTRACE_CONT: c_int = 7;
const PTRACE_GETSIGINFO: c_int = 0x4202;
const PTRACE_O_TRACESYSGOOD: u64 = 1;
const PTRACE_O_EXITKILL: u64 = 1 << 20;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// The system call function takes words; a narrower argument would leave half of one undefined.
const ONE: c_long = 1;

/// What a traced thread or process did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// It stopped; the status is `signal | event << 8`.
    Stopped { tid: i32, status: i32 },
    /// It ended, by this signal or, with zero, by itself. It has not been reaped.
    Ended { tid: i32, signal: i32 },
}

/// What `PTRACE_GETSIGINFO` tells of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SigInfo {
    pub(super) signo: i32,
    pub(super) code: i32,
    pub(super) addr: u64,
}

fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

fn check(result: c_long) -> SysResult<u64> {
    u64::try_from(result).map_err(|_| last_errno())
}

fn len(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Makes a `ptrace` call whose `addr` and `data` are numbers to this process.
fn ptrace(request: c_int, tid: i32, addr: u64, data: u64) -> SysResult<u64> {
    // SAFETY: the requests made through this function take numbers only.
    check(unsafe {
        libc::syscall(libc::SYS_ptrace, c_long::from(request), c_long::from(tid), addr, data)
    })
}

/// Makes a `ptrace` call whose `data` points to `T`.
fn ptrace_with<T>(request: c_int, tid: i32, addr: u64, data: *mut T) -> SysResult<u64> {
    // SAFETY: the callers pass a pointer to a live variable of the type that the request reads
    // or writes.
    check(unsafe {
        libc::syscall(libc::SYS_ptrace, c_long::from(request), c_long::from(tid), addr, data)
    })
}

/// Attaches to a thread; it and all that it clones with `CLONE_PTRACE` die with the tracer.
pub(super) fn seize(tid: i32) -> SysResult<()> {
    ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL).map(drop)
}

/// Stops a seized thread.
pub(super) fn interrupt(tid: i32) -> SysResult<()> {
    ptrace(PTRACE_INTERRUPT, tid, 0, 0).map(drop)
}

/// Lets a stopped thread go on with its system calls executed by the host.
pub(super) fn cont(tid: i32) -> SysResult<()> {
    ptrace(PTRACE_CONT, tid, 0, 0).map(drop)
}

/// Lets a stopped thread go on until its next system call, which the host will not execute.
pub(super) fn sysemu(tid: i32) -> SysResult<()> {
    ptrace(PTRACE_SYSEMU, tid, 0, 0).map(drop)
}

/// Returns the registers of a stopped thread.
pub(super) fn regs(tid: i32) -> SysResult<Regs> {
    let mut regs = Regs::new_zeroed();
    ptrace_with(PTRACE_GETREGS, tid, 0, &raw mut regs)?;
    Ok(regs)
}

/// Replaces the registers of a stopped thread.
pub(super) fn set_regs(tid: i32, regs: &Regs) -> SysResult<()> {
    let mut regs = *regs;
    ptrace_with(PTRACE_SETREGS, tid, 0, &raw mut regs).map(drop)
}

/// Returns what the host says of the signal that a thread stopped for.
pub(super) fn siginfo(tid: i32) -> SysResult<SigInfo> {
    // SAFETY: all zeroes is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    ptrace_with(PTRACE_GETSIGINFO, tid, 0, &raw mut info)?;
    // SAFETY: `si_addr` reads a union member; every bit pattern is a valid pointer value.
    let addr = unsafe { info.si_addr() };
    Ok(SigInfo { signo: info.si_signo, code: info.si_code, addr: len(addr.addr()) })
}

/// Returns whether the system call that a thread stopped for was made by the 64-bit entry.
pub(super) fn is_64_bit_syscall(tid: i32) -> SysResult<bool> {
    // `struct ptrace_syscall_info`: op, padding, arch, instruction pointer, stack pointer.
    let mut info = [0u32; 6];
    ptrace_with(PTRACE_GET_SYSCALL_INFO, tid, len(info.as_bytes().len()), &raw mut info)?;
    Ok(info[1] == AUDIT_ARCH_X86_64)
}

/// Reads the extended state of a stopped thread into `buf`; returns its length.
pub(super) fn xstate(tid: i32, buf: &mut [u8]) -> SysResult<usize> {
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    ptrace_with(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &raw mut iov)?;
    Ok(iov.iov_len)
}

/// Replaces the extended state of a stopped thread, in the layout of [`xstate`].
pub(super) fn set_xstate(tid: i32, buf: &[u8]) -> SysResult<()> {
    let mut iov = libc::iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() };
    ptrace_with(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &raw mut iov).map(drop)
}

fn waitid(id: Option<i32>, options: c_int) -> SysResult<Option<Wait>> {
    // SAFETY: all zeroes is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let (kind, id) = id.map_or((libc::P_ALL, 0), |id| (libc::P_PID, id));
    let options = options | libc::__WALL | libc::__WNOTHREAD;
    // SAFETY: `info` is a live `siginfo_t`; the last argument may be null.
    let result = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            c_long::from(kind),
            c_long::from(id),
            &raw mut info,
            c_long::from(options),
            std::ptr::null_mut::<c_void>(),
        )
    };
    check(result)?;
    // SAFETY: `waitid` fills in the SIGCHLD members, or leaves zeroes.
    let (tid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if tid == 0 {
        return Ok(None);
    }
    Ok(Some(match info.si_code {
        libc::CLD_EXITED => Wait::Ended { tid, signal: 0 },
        libc::CLD_KILLED | libc::CLD_DUMPED => Wait::Ended { tid, signal: status },
        _ => Wait::Stopped { tid, status },
    }))
}

/// Returns one stop that has not been returned before, or `None` where there is none now.
pub(super) fn take_stop() -> SysResult<Option<Wait>> {
    waitid(None, libc::WSTOPPED | libc::WNOHANG)
}

/// Returns one ended thread that has not been reaped, or `None` where there is none now.
pub(super) fn peek_end() -> SysResult<Option<Wait>> {
    waitid(None, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)
}

/// Waits until [`take_stop`] or [`peek_end`] has something to return or a signal arrives.
pub(super) fn wait_any() -> SysResult<()> {
    waitid(None, libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT).map(drop)
}

/// Reaps an ended thread.
pub(super) fn reap(tid: i32) -> SysResult<()> {
    waitid(Some(tid), libc::WEXITED | libc::WNOHANG).map(drop)
}

/// Sends a signal to a thread.
pub(super) fn tgkill(pid: i32, tid: i32, signal: i32) -> SysResult<()> {
    let [pid, tid, signal] = [pid, tid, signal].map(c_long::from);
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) }).map(drop)
}

/// Sends a signal to a process.
pub(super) fn kill(pid: i32, signal: i32) -> SysResult<()> {
    let [pid, signal] = [pid, signal].map(c_long::from);
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_kill, pid, signal) }).map(drop)
}

/// Reads memory of a process; returns how many bytes were readable from the start.
pub(super) fn read_memory(pid: i32, addr: u64, dst: &mut [u8]) -> SysResult<usize> {
    let local = libc::iovec { iov_base: dst.as_mut_ptr().cast(), iov_len: dst.len() };
    transfer(libc::SYS_process_vm_readv, pid, addr, &local)
}

/// Writes memory of a process; returns how many bytes were writable from the start.
pub(super) fn write_memory(pid: i32, addr: u64, src: &[u8]) -> SysResult<usize> {
    let local = libc::iovec { iov_base: src.as_ptr().cast_mut().cast(), iov_len: src.len() };
    transfer(libc::SYS_process_vm_writev, pid, addr, &local)
}

fn transfer(number: c_long, pid: i32, addr: u64, local: &libc::iovec) -> SysResult<usize> {
    let addr = usize::try_from(addr).map_err(|_| Errno::EFAULT)?;
    let remote =
        libc::iovec { iov_base: std::ptr::without_provenance_mut(addr), iov_len: local.iov_len };
    // SAFETY: `local` describes a live slice of the caller's (a mutable one where it is written);
    // `remote` is an address of another process.
    let done = check(unsafe {
        libc::syscall(
            number,
            c_long::from(pid),
            &raw const *local,
            ONE,
            &raw const remote,
            ONE,
            c_long::from(0),
        )
    })?;
    usize::try_from(done).map_err(|_| Errno::EFAULT)
}

/// Sends a descriptor with one byte of data.
pub(super) fn send_fd(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> SysResult<()> {
    let mut byte = 1u8;
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // A `cmsghdr` (length, level, type) and one descriptor, padded to eight bytes.
    let mut control = [0u64; 3];
    control[0] = 20;
    let level_type: [i32; 2] = [libc::SOL_SOCKET, libc::SCM_RIGHTS];
    control[1].as_mut_bytes().copy_from_slice(level_type.as_bytes());
    control[2].as_mut_bytes()[..4].copy_from_slice(fd.as_raw_fd().as_bytes());
    // SAFETY: all zeroes is a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = 24;
    // SAFETY: `message` points to live variables of the sizes that it names.
    check(unsafe {
        libc::syscall(
            libc::SYS_sendmsg,
            c_long::from(socket.as_raw_fd()),
            &raw const message,
            c_long::from(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT),
        )
    })
    .map(drop)
}

/// Throws away whatever lies in a socket's queue.
pub(super) fn drain(socket: BorrowedFd<'_>) {
    let mut byte = 0u8;
    loop {
        // SAFETY: `byte` is a live buffer of one byte; a truncated message is discarded, and its
        // descriptors with it.
        let result = unsafe {
            libc::syscall(
                libc::SYS_recvfrom,
                c_long::from(socket.as_raw_fd()),
                &raw mut byte,
                ONE,
                c_long::from(libc::MSG_DONTWAIT),
                std::ptr::null_mut::<c_void>(),
                std::ptr::null_mut::<c_void>(),
            )
        };
        if result <= 0 {
            return;
        }
    }
}
