//! The stack frame of a signal handler on x86-64 (`arch/x86/kernel/signal_64.c`).

use sentry_platform::XsaveLayout;
use syscalls::abi::signal::{SaFlags, Sigaction, Siginfo, SsFlags, Stackt};
use syscalls::arch::x86_64::Regs;
use syscalls::arch::x86_64::sigframe::{RtSigframe, Sigcontext, Ucontext};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::FromZeros;

use super::deliver;
use crate::task::{Control, CurrentTask, HandlerResult};

/// `UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`
const UC_FLAGS: u64 = 7;

/// The bytes below the stack pointer that leaf functions may use.
const RED_ZONE: u64 = 128;

/// Bits of `eflags` that `rt_sigreturn` restores (`FIX_EFLAGS`).
const FIX_EFLAGS: u64 = 0x0005_0dd5;

/// The direction, resume and trap flags, which a handler starts without.
const HANDLER_CLEARED: u64 = 0x400 | 0x1_0000 | 0x100;

const FRAME_SIZE: u64 = size_of::<RtSigframe>() as u64;

fn xstate_bytes(layout: XsaveLayout) -> u64 {
    u64::from(layout.size) + 4
}

fn is_on(stack: &Stackt, sp: u64) -> bool {
    sp > stack.ss_sp && sp - stack.ss_sp <= stack.ss_size
}

/// Returns the `ss_flags` that describe `stack` for a thread whose stack pointer is `sp`.
pub(crate) fn altstack_flags(stack: &Stackt, sp: u64) -> u32 {
    if stack.ss_size == 0 {
        SsFlags::DISABLE.bits()
    } else if !SsFlags::from_bits_retain(stack.ss_flags).contains(SsFlags::AUTODISARM)
        && is_on(stack, sp)
    {
        SsFlags::ONSTACK.bits()
    } else {
        0
    }
}

/// Writes the frame of a handler and sets the registers to enter it.
///
/// # Errors
/// `EFAULT` where the stack cannot hold it.
pub(crate) fn push(current: &CurrentTask, action: &Sigaction, info: &Siginfo) -> SysResult<()> {
    let flags = SaFlags::from_bits_retain(action.flags);
    if !flags.contains(SaFlags::RESTORER) {
        return Err(Errno::EFAULT);
    }
    let regs = current.context().regs();
    let altstack = current.signals.lock().altstack;
    let was_on = is_on(&altstack, regs.rsp)
        && !SsFlags::from_bits_retain(altstack.ss_flags).contains(SsFlags::AUTODISARM);
    let mut sp = regs.rsp.wrapping_sub(RED_ZONE);
    let mut entering = false;
    if flags.contains(SaFlags::ONSTACK) && altstack.ss_size != 0 && !was_on {
        sp = altstack.ss_sp.wrapping_add(altstack.ss_size);
        entering = true;
    }
    let layout = current.kernel.platform().xsave_layout();
    let xstate = sp.checked_sub(xstate_bytes(layout)).ok_or(Errno::EFAULT)? & !63;
    let frame = (xstate.checked_sub(FRAME_SIZE).ok_or(Errno::EFAULT)? & !15)
        .checked_sub(8)
        .ok_or(Errno::EFAULT)?;
    if (was_on || entering) && !is_on(&altstack, frame) {
        return Err(Errno::EFAULT);
    }

    let mask = {
        let signals = current.signals.lock();
        signals.saved_mask.unwrap_or(signals.mask)
    };
    let fault = current.signals.lock().fault;
    let mut out = RtSigframe::new_zeroed();
    out.pretcode = action.restorer;
    out.uc.uc_flags = UC_FLAGS;
    out.uc.uc_stack =
        Stackt { ss_flags: altstack.ss_flags | altstack_flags(&altstack, regs.rsp), ..altstack };
    out.uc.uc_sigmask = mask;
    save_regs(&mut out.uc.uc_mcontext, &regs);
    out.uc.uc_mcontext.fpstate = xstate;
    out.uc.uc_mcontext.err = fault.error_code;
    out.uc.uc_mcontext.trapno = fault.trap_no;
    out.uc.uc_mcontext.cr2 = fault.addr;
    out.uc.uc_mcontext.oldmask = mask.0;
    out.info = *info;
    current.write_obj(UserPtr::new(UserAddr(frame)), &out)?;
    current.context().save_xstate(UserAddr(xstate))?;

    deliver::frame_mask(current, action, info.si_signo);
    if SsFlags::from_bits_retain(altstack.ss_flags).contains(SsFlags::AUTODISARM) {
        current.signals.lock().altstack = Stackt::default();
    }
    let mut entered = regs;
    entered.rsp = frame;
    entered.rip = action.handler;
    entered.rdi = u64::from(info.si_signo.unsigned_abs());
    entered.rsi = frame + std::mem::offset_of!(RtSigframe, info) as u64;
    entered.rdx = frame + std::mem::offset_of!(RtSigframe, uc) as u64;
    entered.rax = 0;
    entered.orig_rax = u64::MAX;
    entered.eflags &= !HANDLER_CLEARED;
    current.context().set_regs(&entered);
    Ok(())
}

/// Implements `rt_sigreturn(2)`.
pub(crate) fn pop(current: &CurrentTask) -> HandlerResult {
    let mut regs = current.context().regs();
    let frame = regs.rsp.wrapping_sub(8);
    let restored = (|| {
        let uc_addr = frame.wrapping_add(std::mem::offset_of!(RtSigframe, uc) as u64);
        let uc: Ucontext = current.read_obj(UserPtr::new(UserAddr(uc_addr)))?;
        restore_regs(&mut regs, &uc.uc_mcontext);
        regs.orig_rax = u64::MAX;
        current.context().restore_xstate(UserAddr(uc.uc_mcontext.fpstate))?;
        current.context().set_regs(&regs);
        current.set_signal_mask(uc.uc_sigmask);
        // As Linux, an unusable stack in the frame is no error.
        let _ = set_altstack(current, &uc.uc_stack, regs.rsp);
        Ok::<(), Errno>(())
    })();
    if restored.is_err() {
        deliver::force_sigsegv(current, 0);
    }
    Err(Control::RegistersSet)
}

/// Sets the alternate stack as `sigaltstack(2)` does.
///
/// # Errors
/// `EPERM` on the present one, `EINVAL` for unknown flags, `ENOMEM` where it is too small.
pub(crate) fn set_altstack(current: &CurrentTask, new: &Stackt, sp: u64) -> SysResult<()> {
    let mut signals = current.signals.lock();
    if altstack_flags(&signals.altstack, sp) & SsFlags::ONSTACK.bits() != 0 {
        return Err(Errno::EPERM);
    }
    let mode = new.ss_flags & !SsFlags::AUTODISARM.bits();
    if mode != 0 && mode != SsFlags::ONSTACK.bits() && mode != SsFlags::DISABLE.bits() {
        return Err(Errno::EINVAL);
    }
    if mode == SsFlags::DISABLE.bits() {
        signals.altstack =
            Stackt { ss_flags: new.ss_flags & SsFlags::AUTODISARM.bits(), ..Stackt::default() };
        return Ok(());
    }
    // Linux compares with MINSIGSTKSZ alone unless dynamic features are in use.
    if new.ss_size < syscalls::abi::signal::MINSIGSTKSZ {
        return Err(Errno::ENOMEM);
    }
    signals.altstack = Stackt { ss_flags: new.ss_flags & SsFlags::AUTODISARM.bits(), ..*new };
    Ok(())
}

fn save_regs(sc: &mut Sigcontext, regs: &Regs) {
    sc.r8 = regs.r8;
    sc.r9 = regs.r9;
    sc.r10 = regs.r10;
    sc.r11 = regs.r11;
    sc.r12 = regs.r12;
    sc.r13 = regs.r13;
    sc.r14 = regs.r14;
    sc.r15 = regs.r15;
    sc.rdi = regs.rdi;
    sc.rsi = regs.rsi;
    sc.rbp = regs.rbp;
    sc.rbx = regs.rbx;
    sc.rdx = regs.rdx;
    sc.rax = regs.rax;
    sc.rcx = regs.rcx;
    sc.rsp = regs.rsp;
    sc.rip = regs.rip;
    sc.eflags = regs.eflags;
    sc.cs = 0x33;
    sc.ss = 0x2b;
}

fn restore_regs(regs: &mut Regs, sc: &Sigcontext) {
    regs.r8 = sc.r8;
    regs.r9 = sc.r9;
    regs.r10 = sc.r10;
    regs.r11 = sc.r11;
    regs.r12 = sc.r12;
    regs.r13 = sc.r13;
    regs.r14 = sc.r14;
    regs.r15 = sc.r15;
    regs.rdi = sc.rdi;
    regs.rsi = sc.rsi;
    regs.rbp = sc.rbp;
    regs.rbx = sc.rbx;
    regs.rdx = sc.rdx;
    regs.rax = sc.rax;
    regs.rcx = sc.rcx;
    regs.rsp = sc.rsp;
    regs.rip = sc.rip;
    regs.eflags = (regs.eflags & !FIX_EFLAGS) | (sc.eflags & FIX_EFLAGS);
}
