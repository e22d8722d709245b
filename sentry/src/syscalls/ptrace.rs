//! `ptrace(2)`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sentry_platform::HostCallResults;
use syscalls::abi::capability::CAP_SYS_ADMIN;
use syscalls::abi::prctl::AUDIT_ARCH_X86_64;
use syscalls::abi::ptrace::{
    NT_PRFPREG, NT_PRSTATUS, NT_X86_XSTATE, PTRACE_ARCH_PRCTL, PTRACE_ATTACH, PTRACE_CONT,
    PTRACE_DETACH, PTRACE_GET_RSEQ_CONFIGURATION, PTRACE_GET_SYSCALL_INFO, PTRACE_GETEVENTMSG,
    PTRACE_GETFPREGS, PTRACE_GETREGS, PTRACE_GETREGSET, PTRACE_GETSIGINFO, PTRACE_GETSIGMASK,
    PTRACE_INTERRUPT, PTRACE_KILL, PTRACE_LISTEN, PTRACE_PEEKDATA, PTRACE_PEEKSIGINFO,
    PTRACE_PEEKSIGINFO_SHARED, PTRACE_PEEKTEXT, PTRACE_PEEKUSER, PTRACE_POKEDATA, PTRACE_POKETEXT,
    PTRACE_POKEUSER, PTRACE_SEIZE, PTRACE_SETFPREGS, PTRACE_SETOPTIONS, PTRACE_SETREGS,
    PTRACE_SETREGSET, PTRACE_SETSIGINFO, PTRACE_SETSIGMASK, PTRACE_SINGLESTEP, PTRACE_SYSCALL,
    PTRACE_SYSCALL_INFO_ENTRY, PTRACE_SYSCALL_INFO_EXIT, PTRACE_SYSCALL_INFO_SECCOMP,
    PTRACE_SYSEMU, PTRACE_SYSEMU_SINGLESTEP, PTRACE_TRACEME, PtraceOptions, PtracePeeksiginfoArgs,
    PtraceRseqConfiguration, PtraceSyscallInfo, USER_DEBUGREG, USER_LEN,
};
use syscalls::abi::signal::{SIGKILL, SigSet, Siginfo};
use syscalls::abi::wait as status;
use syscalls::arch::x86_64::Regs;
use syscalls::arg::FromArg;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::IntoBytes as _;

use super::ids::target;
use crate::sync::Events;
use crate::task::ptrace::errand::{self, Errand};
use crate::task::ptrace::link::{self, How};
use crate::task::ptrace::stop::CallStop;
use crate::task::ptrace::xstate::{self, MAGIC_LEN, SOFTWARE};
use crate::task::ptrace::{Run, Tracee, memory, own, stopped};
use crate::task::{Control, CurrentTask, HandlerResult, Restart, Task, access, signal};

/// The end of the application's part of the address space.
const USER_ADDRESS_END: u64 = 0x7fff_ffff_f000;
const REGS_LEN: u64 = size_of::<Regs>() as u64;
/// `struct user_fpregs_struct`: the legacy area.
const FPREGS_LEN: usize = 512;
const MXCSR: usize = 24;
const MXCSR_MASK: u32 = 0xffff;
/// `arch_prctl(2)`.
const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;
/// `DR7`: the bits that switch a breakpoint on.
const DR7_ENABLE: u64 = 0xff;

/// Implements `ptrace(2)`.
///
/// <https://man7.org/linux/man-pages/man2/ptrace.2.html>
pub(super) fn sys_ptrace(
    task: &CurrentTask,
    request: i32,
    pid: i32,
    addr: u64,
    data: u64,
) -> HandlerResult {
    if request == PTRACE_TRACEME {
        link::trace_me(task)?;
        return Ok(0);
    }
    if pid <= 0 {
        return Err(Errno::ESRCH.into());
    }
    let other = target(task, pid)?;
    match request {
        PTRACE_ATTACH | PTRACE_SEIZE if task.recall::<Attached>().is_some() => {
            await_stop(task, &other)
        }
        PTRACE_ATTACH | PTRACE_SEIZE => {
            let mut how = How::Attach;
            if request == PTRACE_SEIZE {
                if addr != 0 {
                    return Err(Errno::EIO.into());
                }
                how = How::Seize(options(task, data).map_err(|errno| match errno {
                    Errno::EINVAL => Errno::EIO,
                    other => other,
                })?);
            }
            if !access::may_attach(task, &other) {
                return Err(Errno::EPERM.into());
            }
            let was_stopped = link::attach(task, &other, how)?;
            if was_stopped { await_stop(task, &other) } else { Ok(0) }
        }
        PTRACE_KILL => {
            own(task, &other)?;
            signal::post::kill_group(&other.group, status::signaled(SIGKILL, false));
            Ok(0)
        }
        PTRACE_INTERRUPT => {
            own(task, &other)?;
            link::interrupt(&other)?;
            Ok(0)
        }
        _ => ask(task, stopped(task, other)?, request, addr, data),
    }
}

/// Marks a call that has attached its tracee already.
struct Attached;

/// Waits until a tracee that was stopped when it became one is stopped for its tracer: as on Linux, other requests
/// find it so.
fn await_stop(task: &CurrentTask, tracee: &Arc<Task>) -> HandlerResult {
    let waited = task.wait_for(
        None,
        Restart::NoIntr,
        |waiter| vec![task.group.child_events.register(waiter, Events::READABLE, 0)],
        || {
            let is_over = tracee.exiting.load(Ordering::SeqCst) || !tracee.ptrace.wants_trap();
            Ok((is_over || tracee.ptrace.is_stopped()).then_some(()))
        },
    );
    match waited {
        Err(Control::Block) => {
            task.remember(Attached);
            Err(Control::Block)
        }
        // It is attached, whatever comes.
        _ => Ok(0),
    }
}

/// Serves the requests about a stopped tracee.
fn ask(task: &CurrentTask, tracee: Tracee, request: i32, addr: u64, data: u64) -> HandlerResult {
    let user = UserAddr(data);
    match request {
        PTRACE_CONT => resume(&tracee, Run::Cont, data)?,
        PTRACE_SYSCALL => resume(&tracee, Run::Syscall, data)?,
        PTRACE_SINGLESTEP => resume(&tracee, Run::Step, data)?,
        PTRACE_SYSEMU => resume(&tracee, Run::Sysemu, data)?,
        PTRACE_SYSEMU_SINGLESTEP => resume(&tracee, Run::SysemuStep, data)?,
        PTRACE_DETACH => tracee.detach(task, signal_of(data)?),
        PTRACE_LISTEN => tracee.listen()?,
        PTRACE_PEEKTEXT | PTRACE_PEEKDATA => {
            task.write_obj(UserPtr::new(user), &memory::peek(&tracee, addr)?)?;
        }
        PTRACE_POKETEXT | PTRACE_POKEDATA => memory::poke(task, &tracee, addr, data)?,
        PTRACE_PEEKUSER => task.write_obj(UserPtr::new(user), &peek_user(&tracee, addr)?)?,
        PTRACE_POKEUSER => poke_user(&tracee, addr, data)?,
        PTRACE_GETREGS => task.write_obj(UserPtr::new(user), &regs(&tracee))?,
        PTRACE_SETREGS => {
            let new: Regs = task.read_obj(UserPtr::new(user))?;
            set_regs(&tracee, new)?;
        }
        PTRACE_GETFPREGS => {
            let state = extended_state(task, &tracee)?;
            task.write_bytes(user, state.get(..FPREGS_LEN).ok_or(Errno::EIO)?)?;
        }
        PTRACE_SETFPREGS => {
            let mut new = [0; FPREGS_LEN];
            task.read_bytes(user, &mut new)?;
            set_xstate(task, &tracee, &new)?;
        }
        PTRACE_GETREGSET | PTRACE_SETREGSET => {
            return regset(task, &tracee, addr, user, request == PTRACE_SETREGSET);
        }
        PTRACE_SETOPTIONS => tracee.set_options(options(task, data)?),
        PTRACE_GETEVENTMSG => task.write_obj(UserPtr::new(user), &tracee.message())?,
        PTRACE_GETSIGINFO => {
            let info = tracee.stop().and_then(|stop| stop.info).ok_or(Errno::EINVAL)?;
            task.write_obj(UserPtr::new(user), &info)?;
        }
        PTRACE_SETSIGINFO => {
            let info = task.read_obj::<Siginfo>(UserPtr::new(user))?;
            // What is in the padding would be taken for the kernel's.
            tracee.set_info(Siginfo { pad0: 0, ..info })?;
        }
        PTRACE_PEEKSIGINFO => return peek_siginfo(task, &tracee, addr, user),
        PTRACE_GETSIGMASK | PTRACE_SETSIGMASK => {
            if addr != size_of::<SigSet>() as u64 {
                return Err(Errno::EINVAL.into());
            }
            if request == PTRACE_GETSIGMASK {
                let signals = tracee.signals.lock();
                let mask = signals.saved_mask.unwrap_or(signals.mask);
                drop(signals);
                task.write_obj(UserPtr::new(user), &mask)?;
            } else {
                let mask: SigSet = task.read_obj(UserPtr::new(user))?;
                tracee.signals.lock().mask = mask.difference(SigSet::UNBLOCKABLE);
                signal::recheck(&tracee);
            }
        }
        PTRACE_GET_SYSCALL_INFO => return syscall_info(task, &tracee, addr, user),
        PTRACE_GET_RSEQ_CONFIGURATION => return rseq_configuration(task, &tracee, addr, user),
        PTRACE_ARCH_PRCTL => arch_prctl(task, &tracee, data, addr)?,
        // Filters and their metadata are for checkpoints, which is compiled out.
        _ => return Err(Errno::EIO.into()),
    }
    Ok(0)
}

fn signal_of(data: u64) -> SysResult<i32> {
    let signo = i32::try_from(data).map_err(|_| Errno::EIO)?;
    if signo == 0 || signal::is_valid(signo) { Ok(signo) } else { Err(Errno::EIO) }
}

fn resume(tracee: &Tracee, run: Run, data: u64) -> SysResult<()> {
    tracee.resume(run, signal_of(data)?);
    Ok(())
}

fn options(task: &CurrentTask, data: u64) -> SysResult<PtraceOptions> {
    let options = u32::try_from(data).ok().and_then(PtraceOptions::from_bits);
    let options = options.ok_or(Errno::EINVAL)?;
    let suspends = options.contains(PtraceOptions::SUSPEND_SECCOMP);
    if suspends && !task.creds().has_capability(CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    Ok(options)
}

fn regs(tracee: &Tracee) -> Regs {
    let context = tracee.context.lock().clone();
    context.regs()
}

/// Sets the registers as `putreg` does.
fn set_regs(tracee: &Tracee, new: Regs) -> SysResult<()> {
    let is_selector = |value: u64| {
        let value = value & 0xffff;
        value == 0 || value & 3 == 3
    };
    let has_code = new.cs & 0xffff != 0 && new.ss & 0xffff != 0;
    let selectors = [new.cs, new.ss, new.ds, new.es, new.fs, new.gs];
    let bases = [new.fs_base, new.gs_base];
    if !has_code
        || !selectors.into_iter().all(is_selector)
        || bases.into_iter().any(|base| base >= USER_ADDRESS_END)
    {
        return Err(Errno::EIO);
    }
    let context = tracee.context.lock().clone();
    context.set_regs(&new);
    Ok(())
}

fn is_word(addr: u64) -> SysResult<u64> {
    if addr.is_multiple_of(8) && addr < USER_LEN { Ok(addr) } else { Err(Errno::EIO) }
}

/// Returns which debug register is at an offset of `struct user`.
fn debug_index(addr: u64) -> Option<usize> {
    usize::try_from(addr.checked_sub(USER_DEBUGREG)? / 8).ok()
}

fn peek_user(tracee: &Tracee, addr: u64) -> SysResult<u64> {
    let addr = is_word(addr)?;
    if addr < REGS_LEN {
        let regs = regs(tracee);
        let start = usize::try_from(addr).map_err(|_| Errno::EIO)?;
        let word = regs.as_bytes().get(start..).and_then(|rest| rest.first_chunk());
        return word.map(|word| u64::from_ne_bytes(*word)).ok_or(Errno::EIO);
    }
    Ok(debug_index(addr).map_or(0, |index| tracee.debug(index)))
}

fn poke_user(tracee: &Tracee, addr: u64, value: u64) -> SysResult<()> {
    let addr = is_word(addr)?;
    if addr < REGS_LEN {
        let mut regs = regs(tracee);
        let start = usize::try_from(addr).map_err(|_| Errno::EIO)?;
        let end = start.checked_add(8).ok_or(Errno::EIO)?;
        let place = regs.as_mut_bytes().get_mut(start..end).ok_or(Errno::EIO)?;
        place.copy_from_slice(&value.to_ne_bytes());
        return set_regs(tracee, regs);
    }
    match debug_index(addr) {
        Some(index @ (0..=3 | 6)) if index == 6 || value < USER_ADDRESS_END => {
            tracee.set_debug(index, value);
            Ok(())
        }
        Some(0..=3) => Err(Errno::EINVAL),
        // There are no breakpoints of the hardware.
        Some(7) if value & DR7_ENABLE != 0 => Err(Errno::ENOSPC),
        Some(7) => {
            tracee.set_debug(7, value);
            Ok(())
        }
        _ => Err(Errno::EIO),
    }
}

/// Returns the extended state as a signal frame holds it.
fn fetch(task: &CurrentTask, tracee: &Tracee) -> HandlerResult<Vec<u8>> {
    let HostCallResults { data, .. } =
        errand::run(task, tracee, (NT_X86_XSTATE, 0, 0), || Errand::FetchXstate)?;
    if data.len() < FPREGS_LEN + 64 {
        return Err(Errno::EIO.into());
    }
    Ok(data)
}

/// Returns the extended state as `NT_X86_XSTATE` shows it.
fn extended_state(task: &CurrentTask, tracee: &Tracee) -> HandlerResult<Vec<u8>> {
    let features = task.kernel.platform().xsave_layout().features;
    Ok(xstate::shown(fetch(task, tracee)?, features).ok_or(Errno::EIO)?)
}

/// Replaces the extended state: all of it, or the legacy area alone.
fn set_xstate(task: &CurrentTask, tracee: &Tracee, new: &[u8]) -> HandlerResult<()> {
    let mut mxcsr = [0; 4];
    mxcsr.copy_from_slice(new.get(MXCSR..MXCSR + 4).ok_or(Errno::EINVAL)?);
    if u32::from_ne_bytes(mxcsr) & !MXCSR_MASK != 0 {
        return Err(Errno::EINVAL.into());
    }
    let is_loading = matches!(&tracee.stop(), Some(stop) if stop.is_announced);
    if !is_loading {
        return Err(Errno::ESRCH.into());
    }
    // What the call found at its first run, should it run again.
    let old = match task.recall::<Vec<u8>>() {
        Some(old) => old,
        None => fetch(task, tracee)?,
    };
    let mut frame = old.clone();
    let features = task.kernel.platform().xsave_layout().features;
    let body = frame.len() - MAGIC_LEN;
    let is_whole = new.len() > FPREGS_LEN;
    for (i, byte) in new.iter().enumerate().take(body) {
        if !SOFTWARE.contains(&i)
            && let Some(place) = frame.get_mut(i)
        {
            *place = *byte;
        }
    }
    let header = frame.get_mut(FPREGS_LEN..FPREGS_LEN + 64).ok_or(Errno::EIO)?;
    if is_whole {
        let present = header.first_chunk().copied().map_or(0, u64::from_ne_bytes);
        if present & !features != 0 || header.iter().skip(8).any(|byte| *byte != 0) {
            return Err(Errno::EINVAL.into());
        }
    } else if let Some(present) = header.first_mut() {
        // x87 and SSE are not in their initial state any more.
        *present |= 3;
    }
    let hash = frame
        .iter()
        .fold(0u64, |hash, byte| hash.rotate_left(5).wrapping_mul(0x100_0193) ^ u64::from(*byte));
    let key = (NT_X86_XSTATE, 1, hash);
    let loaded = errand::run(task, tracee, key, || Errand::LoadXstate(frame.clone()));
    if loaded.is_err() {
        task.remember(old);
    }
    loaded.map(drop)
}

/// Implements `PTRACE_GETREGSET` and `PTRACE_SETREGSET`.
fn regset(
    task: &CurrentTask,
    tracee: &Tracee,
    kind: u64,
    iov: UserAddr,
    is_set: bool,
) -> HandlerResult {
    let [base, len]: [u64; 2] = task.read_obj(UserPtr::new(iov))?;
    let whole = match kind {
        NT_PRSTATUS => REGS_LEN,
        NT_PRFPREG => FPREGS_LEN as u64,
        NT_X86_XSTATE => task.kernel.platform().xsave_layout().size.into(),
        _ => return Err(Errno::EINVAL.into()),
    };
    if !len.is_multiple_of(8) {
        return Err(Errno::EINVAL.into());
    }
    let len = len.min(whole);
    let n = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if is_set {
        let mut bytes = vec![0; n];
        task.read_bytes(UserAddr(base), &mut bytes)?;
        match kind {
            NT_PRSTATUS => {
                let mut new = regs(tracee);
                let place = new.as_mut_bytes().get_mut(..n).ok_or(Errno::EINVAL)?;
                place.copy_from_slice(&bytes);
                set_regs(tracee, new)?;
            }
            // Linux wants all of it.
            NT_X86_XSTATE if len != whole => return Err(Errno::EFAULT.into()),
            NT_PRFPREG if len != whole => return Err(Errno::EINVAL.into()),
            _ => set_xstate(task, tracee, &bytes)?,
        }
    } else {
        let state = match kind {
            NT_PRSTATUS => regs(tracee).as_bytes().to_vec(),
            _ => extended_state(task, tracee)?,
        };
        task.write_bytes(UserAddr(base), state.get(..n).ok_or(Errno::EIO)?)?;
    }
    let len_at = UserAddr(iov.0.wrapping_add(8));
    task.write_obj(UserPtr::new(len_at), &len)?;
    Ok(0)
}

/// Implements `PTRACE_PEEKSIGINFO`.
fn peek_siginfo(task: &CurrentTask, tracee: &Tracee, addr: u64, to: UserAddr) -> HandlerResult {
    let args: PtracePeeksiginfoArgs = task.read_obj(UserPtr::new(UserAddr(addr)))?;
    if args.flags & !PTRACE_PEEKSIGINFO_SHARED != 0 || args.nr < 0 {
        return Err(Errno::EINVAL.into());
    }
    let records = if args.flags & PTRACE_PEEKSIGINFO_SHARED != 0 {
        tracee.group.signals.lock().pending.records()
    } else {
        tracee.signals.lock().pending.records()
    };
    let first = usize::try_from(args.off).unwrap_or(usize::MAX);
    let wanted = usize::try_from(args.nr).unwrap_or(0);
    let mut at = to.0;
    let mut n = 0;
    for info in records.iter().skip(first).take(wanted) {
        let info = Siginfo { pad0: 0, ..*info };
        match task.write_obj(UserPtr::new(UserAddr(at)), &info) {
            Ok(()) => n += 1,
            Err(errno) if n == 0 => return Err(errno.into()),
            Err(_) => break,
        }
        at = at.wrapping_add(size_of::<Siginfo>() as u64);
    }
    Ok(n)
}

/// Implements `PTRACE_GET_SYSCALL_INFO`.
fn syscall_info(task: &CurrentTask, tracee: &Tracee, user_len: u64, to: UserAddr) -> HandlerResult {
    let regs = regs(tracee);
    let mut info = PtraceSyscallInfo {
        arch: AUDIT_ARCH_X86_64,
        instruction_pointer: regs.rip,
        stack_pointer: regs.rsp,
        ..PtraceSyscallInfo::default()
    };
    let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
    let len: usize = match tracee.stop().and_then(|stop| stop.call) {
        // Without the option Linux cannot tell these stops from signals.
        Some(CallStop::Entry | CallStop::Exit)
            if !tracee.ptrace.has_option(PtraceOptions::TRACESYSGOOD) =>
        {
            24
        }
        Some(CallStop::Entry) => {
            info.op = PTRACE_SYSCALL_INFO_ENTRY;
            info.nr_or_rval = regs.orig_rax;
            info.args = args;
            80
        }
        Some(CallStop::Exit) => {
            info.op = PTRACE_SYSCALL_INFO_EXIT;
            info.nr_or_rval = regs.rax;
            info.args[0] = u64::from((-4095..0).contains(&regs.rax.cast_signed()));
            33
        }
        Some(CallStop::Seccomp(data)) => {
            info.op = PTRACE_SYSCALL_INFO_SECCOMP;
            info.nr_or_rval = regs.orig_rax;
            info.args = args;
            info.ret_data = data;
            84
        }
        None => 24,
    };
    let n = usize::try_from(user_len).unwrap_or(usize::MAX).min(len);
    task.write_bytes(to, info.as_bytes().get(..n).unwrap_or_default())?;
    Ok(u64::from_arg(len as u64))
}

/// Implements `PTRACE_GET_RSEQ_CONFIGURATION`.
fn rseq_configuration(
    task: &CurrentTask,
    tracee: &Tracee,
    size: u64,
    to: UserAddr,
) -> HandlerResult {
    let whole = size_of::<PtraceRseqConfiguration>() as u64;
    if size < whole {
        return Err(Errno::EINVAL.into());
    }
    let (addr, len, signature) = tracee.misc.lock().rseq.unwrap_or_default();
    let configuration = PtraceRseqConfiguration {
        rseq_abi_pointer: addr,
        rseq_abi_size: len,
        signature,
        flags: 0,
        pad: 0,
    };
    task.write_obj(UserPtr::new(to), &configuration)?;
    Ok(whole)
}

/// Implements `PTRACE_ARCH_PRCTL`.
fn arch_prctl(task: &CurrentTask, tracee: &Tracee, code: u64, addr: u64) -> HandlerResult<()> {
    let mut regs = regs(tracee);
    match code {
        ARCH_GET_FS => task.write_obj(UserPtr::new(UserAddr(addr)), &regs.fs_base)?,
        ARCH_GET_GS => task.write_obj(UserPtr::new(UserAddr(addr)), &regs.gs_base)?,
        ARCH_SET_FS | ARCH_SET_GS if addr >= USER_ADDRESS_END => {
            return Err(Errno::EPERM.into());
        }
        ARCH_SET_FS | ARCH_SET_GS => {
            let place = if code == ARCH_SET_FS { &mut regs.fs_base } else { &mut regs.gs_base };
            *place = addr;
            set_regs(tracee, regs)?;
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(())
}
