//! The zygote's start: from `execveat` to the first wait for the sentry.
//!
//! # Safety
//! Runs once, alone in its process, before any application code.
#![expect(unsafe_code, reason = "sets up the process")]

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use sentry_sysmsg::layout;
use sentry_sysmsg::slot::{KIND_CALLS_DONE, Slot};

use crate::frame::Ucontext;
use crate::{doorbell, entry, frame, host, serve, signal};

const AT_EXECFN: u64 = 31;
const AT_SYSINFO_EHDR: u64 = 33;
const PAGE: u64 = 4096;
/// How far below its pointer the initial stack may be mapped.
const INITIAL_STACK: u64 = 0x10_0000;
const SIGNALS: [u64; 7] = [31, 11, 7, 8, 4, 5, layout::INTERRUPT_SIGNAL as u64];
/// `SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESTORER`.
const ACTION_FLAGS: u64 = 4 | 0x0800_0000 | 0x1000_0000 | 0x4000_0000 | 0x0400_0000;
const SIG_IGN: u64 = 1;
const LAST_SIGNAL: u64 = 64;
const SECCOMP_SET_MODE_FILTER: u64 = 1;
const READ: u64 = 1;
const SHARED_FIXED: u64 = 0x11;

/// The kernel's form of `struct sigaction`.
#[repr(C)]
struct SigAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    len: u64,
    filter: u64,
}

/// Starts the zygote on the kernel's stack.
pub(crate) extern "C" fn start(initial_stack: u64) -> ! {
    serve::map_region(layout::ZYGOTE_REGION_FD as u64);
    let config = host::mmap(
        layout::CONFIG_BASE,
        layout::CONFIG_LEN,
        READ,
        SHARED_FIXED,
        layout::ZYGOTE_CONFIG_FD as u64,
        0,
    );
    if config < 0 {
        host::exit_group(120);
    }
    host::close(layout::ZYGOTE_CONFIG_FD as u64);
    if serve::map_stack(0) < 0 {
        host::exit_group(121);
    }
    // SAFETY: the stack has just been mapped; `main` does not return.
    unsafe {
        entry::stub_switch_stack(initial_stack, layout::stack_addr(0) + layout::STACK_TOP, main)
    }
}

/// Goes on on the stub's own stack.
extern "C" fn main(initial_stack: u64) -> ! {
    let end = read_vectors(initial_stack);
    let start = (initial_stack & !(PAGE - 1)) - INITIAL_STACK;
    if end > start {
        host::munmap(start, end - start);
    }
    let stack = frame::alternate_stack(0);
    host::sigaltstack(core::ptr::from_ref(&stack).addr() as u64);
    let action = SigAction {
        handler: signal::handler as *const () as usize as u64,
        flags: ACTION_FLAGS,
        restorer: entry::stub_restorer as *const () as usize as u64,
        mask: 0,
    };
    // Signals from outside are not the application's.
    let ignore = SigAction { handler: SIG_IGN, flags: ACTION_FLAGS, ..action };
    for signo in 1..=LAST_SIGNAL {
        // Fails for SIGKILL and SIGSTOP.
        host::rt_sigaction(signo, core::ptr::from_ref(&ignore).addr() as u64);
    }
    for signo in SIGNALS {
        if host::rt_sigaction(signo, core::ptr::from_ref(&action).addr() as u64) < 0 {
            host::exit_group(119);
        }
    }
    let slot = signal::slot_of(core::ptr::from_ref(&stack).addr() as u64);
    let program = Program {
        len: u64::from(slot.filter_len.load(Relaxed)),
        filter: slot.data.as_ptr().addr() as u64,
    };
    let program = core::ptr::from_ref(&program).addr() as u64;
    let listener =
        host::seccomp(SECCOMP_SET_MODE_FILTER, u64::from(slot.filter_flags.load(Relaxed)), program);
    slot.listener.store(if listener < 0 { u32::MAX } else { listener as u32 + 1 }, Release);
    host::futex_wake(core::ptr::from_ref(&slot.listener).addr() as u64);
    if listener < 0 {
        host::exit_group(118);
    }
    while slot.listener_taken.load(Acquire) == 0 {
        host::futex_wait(core::ptr::from_ref(&slot.listener_taken).addr() as u64, 0);
    }
    if !doorbell::is_futex() {
        host::close(listener as u64);
    }
    let mut context = Ucontext::empty(0);
    serve::serve(&raw mut context, slot, KIND_CALLS_DONE, u64::MAX)
}

/// Reads the auxiliary vector: returns where the kernel's stack ends, which is with the page of the
/// executable's name, and notes where the vDSO is.
fn read_vectors(initial_stack: u64) -> u64 {
    let word = |i: u64| {
        // SAFETY: walks the argument, environment and auxiliary vectors that the kernel has put
        // there, up to their terminators.
        unsafe {
            core::ptr::with_exposed_provenance::<u64>((initial_stack + i * 8) as usize).read()
        }
    };
    let mut i = 1 + word(0) + 1;
    while word(i) != 0 {
        i += 1;
    }
    i += 1;
    let mut end = 0;
    while word(i) != 0 {
        match word(i) {
            AT_EXECFN => end = (word(i + 1) & !(PAGE - 1)) + PAGE,
            AT_SYSINFO_EHDR => slot_zero().host_vdso.store(word(i + 1), Relaxed),
            _ => {}
        }
        i += 2;
    }
    end
}

fn slot_zero() -> &'static Slot {
    signal::slot_of(layout::stack_addr(0))
}
