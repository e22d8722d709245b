//! The handler of all host signals.
//!
//! # Safety
//! The kernel calls [`handler`] on the thread's alternate stack with pointers into the frame that
//! it has just made there.
#![expect(unsafe_code, reason = "dereferences what the kernel passes to a signal handler")]

use core::sync::atomic::Ordering::Relaxed;

use sentry_sysmsg::layout;
use sentry_sysmsg::slot::{KIND_FAULT, KIND_SYSCALL, Slot};

use crate::frame::{G_EFLAGS, G_RAX, G_RIP, Ucontext};
use crate::{entry, fast, frame, host, patched, serve};

const SIGSYS: i32 = 31;
const SIGSEGV: i32 = 11;
const SIGTRAP: i32 = 5;
const EFLAGS_TRAP: u64 = 0x100;
const SYS_SECCOMP: i32 = 1;
const SI_KERNEL: i32 = 0x80;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// What the processor reports for `int 0x80` without a gate: a general protection fault.
const TRAP_GP: u64 = 13;
const INT80_ERROR_CODE: u64 = 0x80 << 3 | 2;

/// `siginfo_t` as SIGSYS and the faults fill it.
#[repr(C)]
pub(crate) struct SigInfo {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    addr: u64,
    syscall: i32,
    arch: u32,
}

/// Returns the slot of the thread on whose stub stack `sp` lies.
pub(crate) fn slot_of(sp: u64) -> &'static Slot {
    let index = sp.wrapping_sub(layout::STACK_BASE) / layout::STACK_STRIDE;
    if index >= u64::from(layout::MAX_THREADS) {
        host::exit_group(126);
    }
    let addr = layout::SLOT_BASE + index * layout::SLOT_SIZE;
    // SAFETY: the address lies in the region of slots, which is mapped as long as the process runs
    // stub code that asks for it; all fields are atomics, valid for any content.
    unsafe { &*core::ptr::with_exposed_provenance::<Slot>(addr as usize) }
}

/// Handles a signal: returns where the stub itself was interrupted, serves the event otherwise.
pub(crate) extern "C" fn handler(signo: i32, info: *mut SigInfo, uc: *mut Ucontext) {
    // SAFETY: see the module; nothing else refers to the frame now.
    let (info, context) = unsafe { (&*info, &mut *uc) };
    frame::clear_alignment_check(context.gregs[G_EFLAGS]);
    let rip = context.gregs[G_RIP];
    let in_stub = rip.wrapping_sub(layout::STUB_BASE) < layout::STUB_LEN;
    let slot = slot_of(uc.addr() as u64);
    match signo {
        SIGSYS if info.code == SYS_SECCOMP => {
            // The kernel may have taken a large call number for an error that asks it to restart a
            // call, and have changed both registers: the numbers of the trap are the true ones.
            context.gregs[G_RIP] = info.addr;
            if info.arch == AUDIT_ARCH_X86_64 {
                let number = i64::from(info.syscall).cast_unsigned();
                let arguments = frame::arguments(&context.gregs);
                if let Some(result) = fast::answer_trapped(slot, number, arguments) {
                    context.gregs[G_RAX] = result.cast_unsigned();
                    // SAFETY: the frame is complete, and nothing here must survive.
                    unsafe { entry::stub_enter_app(uc, slot) }
                }
                serve::serve(uc, slot, KIND_SYSCALL, number)
            }
            // As on a kernel without the 32-bit entries: a fault at the instruction.
            context.gregs[G_RIP] = info.addr.wrapping_sub(2);
            slot.fault_signo.store(SIGSEGV.cast_unsigned(), Relaxed);
            slot.fault_code.store(SI_KERNEL.cast_unsigned(), Relaxed);
            slot.fault_addr.store(0, Relaxed);
            slot.fault_trap_no.store(TRAP_GP, Relaxed);
            slot.fault_error_code.store(INT80_ERROR_CODE, Relaxed);
            serve::serve(uc, slot, KIND_FAULT, u64::MAX)
        }
        // Sent by a process, not by an exception.
        _ if info.code <= 0 => come_back(uc, slot, in_stub),
        _ => {
            if in_stub && signo == SIGTRAP && context.gregs[G_EFLAGS] & EFLAGS_TRAP != 0 {
                // DEVIATION: single-stepping ends at a patched call.
                context.gregs[G_EFLAGS] &= !EFLAGS_TRAP;
                return;
            }
            if in_stub {
                match entry::fixup(rip) {
                    Some(target) => context.gregs[G_RIP] = target,
                    None => host::exit_group(125),
                }
                return;
            }
            slot.fault_signo.store(signo.cast_unsigned(), Relaxed);
            slot.fault_code.store(info.code.cast_unsigned(), Relaxed);
            slot.fault_addr.store(info.addr, Relaxed);
            slot.fault_trap_no.store(context.trapno, Relaxed);
            slot.fault_error_code.store(context.err, Relaxed);
            serve::serve(uc, slot, KIND_FAULT, u64::MAX)
        }
    }
}

/// Goes on where a signal came that is the sentry's interrupt, or somebody's whom nobody has asked. The
/// interrupt may have nested in the handler of the other, which is stub code, and be put off; so either
/// leads back to the application only by a look at the `interrupt` word.
fn come_back(uc: *mut Ucontext, slot: &'static Slot, in_stub: bool) {
    // SAFETY: the frame is this handler's.
    let context = unsafe { &mut *uc };
    let rip = context.gregs[G_RIP];
    if in_stub {
        if let Some(start) = entry::window_start(rip) {
            context.gregs[G_RIP] = start;
            return;
        }
        // Elsewhere in the stub the word is looked at later; and a process that has just been born has
        // no slot yet.
        if !patched::can_rewind(rip) || !patched::rewind(context, slot.index.load(Relaxed)) {
            return;
        }
    }
    let word = (&raw const slot.interrupt).addr() as u64;
    // SAFETY: an address that cannot be read gives all ones.
    if unsafe { entry::stub_load(word) } != u64::MAX {
        // SAFETY: the frame is complete, and nothing here must survive.
        unsafe { entry::stub_enter_app(uc, slot) }
    }
}
