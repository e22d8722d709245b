//! Calls from patched sites.
//!
//! A trampoline jumps here with the return address in `rax` and the number of the call in `r11`;
//! besides these only `rcx` is free, as after a system call. GS points to the thread's private page:
//! that is checked without touching the flags, and where the application has changed it, the call
//! goes the slow way through the `syscall` instruction that the patch has left in place.
//!
//! The answers from the slot's facts change nothing, so an interrupt there starts the call again.
//! A forwarded call ends in one window, from the look at `interrupt` to the jump.
//!
//! # Safety
//! The private page and the slot are this thread's own.
#![expect(unsafe_code, reason = "assembly, and the registers of the application")]

use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::sync::atomic::Ordering::Relaxed;

use sentry_sysmsg::layout::{self, ENTRIES_MAGIC, Private, XSAVE_MAX};
use sentry_sysmsg::slot::{
    KIND_CALLS_DONE, KIND_INTERRUPTED, KIND_PATCHED_SYSCALL, REPLY_RESUME, REPLY_RET, Slot,
};

use crate::frame::{self, G_EFLAGS, G_RAX, G_RCX, G_RIP, Ucontext};
use crate::serve::{self, Next};
use crate::{fast, marshal};

const GREGS: usize = offset_of!(Private, gregs);
const G_R11: usize = 3;
/// Makes zero of the byte-swapped upper half of an address on the stacks.
const GS_CHECK: u32 = ((layout::STACK_BASE >> 32) as u32).swap_bytes().wrapping_neg();

global_asm!(
    ".section .header, \"a\", @progbits",
    ".balign 16",
    ".quad {magic}",
    ".quad stub_forward",
    ".quad stub_getpid, stub_gettid, stub_getppid, stub_getuid, stub_geteuid, stub_getgid, stub_getegid, stub_getpgrp",
    ".text",
    // Leaves rcx at the private page, or goes to stub_foreign_gs. No flag changes.
    ".macro find_private",
    "rdgsbase rcx",
    "bswap rcx",
    "mov ecx, ecx",
    "lea ecx, [rcx + {gs_check}]",
    "jrcxz 77f",
    "jmp stub_foreign_gs",
    "77:",
    "rdgsbase rcx",
    ".endm",
    ".macro answer_fact name, index",
    ".balign 16",
    "\\name:",
    "find_private",
    "mov rcx, [rcx + {slot}]",
    "mov rcx, [rcx + {facts} + 8 * \\index]",
    "jrcxz 78f",
    "mov ecx, ecx",
    "xchg rax, rcx",
    "jmp rcx",
    "78:",
    "jmp stub_forward",
    ".endm",
    ".globl stub_fast",
    ".globl stub_fast_end",
    "stub_fast:",
    "answer_fact stub_getpid, 0",
    "answer_fact stub_gettid, 1",
    "answer_fact stub_getppid, 2",
    "answer_fact stub_getuid, 3",
    "answer_fact stub_geteuid, 4",
    "answer_fact stub_getgid, 5",
    "answer_fact stub_getegid, 6",
    "answer_fact stub_getpgrp, 7",
    "stub_foreign_gs:",
    "lea rcx, [rax - 2]",
    "mov eax, r11d",
    "jmp rcx",
    "stub_fast_end:",
    ".balign 16",
    "stub_forward:",
    "find_private",
    "mov [rcx + {number}], r11",
    "mov [rcx + {gregs} + 8 * 16], rax",
    "mov [rcx + {gregs} + 8 * 0], r8",
    "mov [rcx + {gregs} + 8 * 1], r9",
    "mov [rcx + {gregs} + 8 * 2], r10",
    "mov [rcx + {gregs} + 8 * 4], r12",
    "mov [rcx + {gregs} + 8 * 5], r13",
    "mov [rcx + {gregs} + 8 * 6], r14",
    "mov [rcx + {gregs} + 8 * 7], r15",
    "mov [rcx + {gregs} + 8 * 8], rdi",
    "mov [rcx + {gregs} + 8 * 9], rsi",
    "mov [rcx + {gregs} + 8 * 10], rbp",
    "mov [rcx + {gregs} + 8 * 11], rbx",
    "mov [rcx + {gregs} + 8 * 12], rdx",
    "mov [rcx + {gregs} + 8 * 15], rsp",
    "mov rsp, rcx",
    "pushfq",
    "pop qword ptr [rcx + {gregs} + 8 * 17]",
    "cld",
    "mov rbx, rcx",
    "mov rdi, rcx",
    "call {patched}",
    "mov rcx, rbx",
    ".globl stub_leave",
    ".globl stub_leave_end",
    "stub_leave:",
    "mov r11, [rcx + {slot}]",
    "cmp dword ptr [r11 + {interrupt}], 0",
    "jne 3f",
    "lea rsp, [rcx + {gregs} + 8 * 17]",
    "popfq",
    "mov r8, [rcx + {gregs} + 8 * 0]",
    "mov r9, [rcx + {gregs} + 8 * 1]",
    "mov r10, [rcx + {gregs} + 8 * 2]",
    "mov r12, [rcx + {gregs} + 8 * 4]",
    "mov r13, [rcx + {gregs} + 8 * 5]",
    "mov r14, [rcx + {gregs} + 8 * 6]",
    "mov r15, [rcx + {gregs} + 8 * 7]",
    "mov rdi, [rcx + {gregs} + 8 * 8]",
    "mov rsi, [rcx + {gregs} + 8 * 9]",
    "mov rbp, [rcx + {gregs} + 8 * 10]",
    "mov rbx, [rcx + {gregs} + 8 * 11]",
    "mov rdx, [rcx + {gregs} + 8 * 12]",
    "mov rax, [rcx + {gregs} + 8 * 13]",
    "mov rsp, [rcx + {gregs} + 8 * 15]",
    "mov r11, [rcx + {gregs} + 8 * 17]",
    "mov rcx, [rcx + {gregs} + 8 * 16]",
    "jmp rcx",
    "stub_leave_end:",
    "3:",
    "mov rsp, rcx",
    "mov rdi, rcx",
    "call {interrupted}",
    "ud2",
    magic = const ENTRIES_MAGIC,
    gs_check = const GS_CHECK.cast_signed(),
    slot = const offset_of!(Private, slot),
    number = const offset_of!(Private, number),
    gregs = const GREGS,
    facts = const offset_of!(Slot, facts),
    interrupt = const offset_of!(Slot, interrupt),
    patched = sym patched,
    interrupted = sym interrupted,
);

unsafe extern "C" {
    fn stub_fast();
    fn stub_fast_end();
    fn stub_leave();
    fn stub_leave_end();
}

fn addr(function: unsafe extern "C" fn()) -> u64 {
    function as usize as u64
}

/// Serves a call from a patched site: the application's registers are on the private page.
unsafe extern "C" fn patched(private: *mut Private) {
    // SAFETY: the page is this thread's, and the assembly does not look at it meanwhile.
    let private = unsafe { &mut *private };
    let gregs = &mut private.gregs;
    frame::clear_alignment_check(gregs[G_EFLAGS]);
    gregs[G_RAX] = private.number;
    gregs[G_RCX] = gregs[G_RIP];
    gregs[G_R11] = gregs[G_EFLAGS];
    // SAFETY: the sentry's address for this thread's slot; any content is valid.
    let slot = unsafe { &*core::ptr::with_exposed_provenance::<Slot>(private.slot as usize) };
    let arguments = frame::arguments(gregs);
    if let Some(result) = fast::answer(slot, private.number, arguments) {
        gregs[G_RAX] = result.cast_unsigned();
        return;
    }
    frame::store(gregs, slot, private.number);
    marshal::inputs(slot, private.number, arguments);
    serve::post(slot, KIND_PATCHED_SYSCALL);
    let reply = loop {
        serve::wait(slot);
        let reply = slot.reply.load(Relaxed);
        if reply & !(REPLY_RESUME | REPLY_RET) != 0 {
            with_frame(private, slot, Next::Act(reply));
        }
        if let Err(kind) = serve::make_calls(slot) {
            with_frame(private, slot, Next::Post(kind));
        }
        if reply & REPLY_RESUME != 0 {
            break reply;
        }
        serve::post(slot, KIND_CALLS_DONE);
    };
    if reply & REPLY_RET != 0 {
        gregs[G_RAX] = slot.ret.load(Relaxed);
    }
}

/// Goes on with a thread that found its `interrupt` word set when it was about to leave.
unsafe extern "C" fn interrupted(private: *mut Private) -> ! {
    // SAFETY: the page is this thread's.
    let private = unsafe { &*private };
    // SAFETY: as in `patched`.
    let slot = unsafe { &*core::ptr::with_exposed_provenance::<Slot>(private.slot as usize) };
    with_frame(private, slot, Next::Report(KIND_INTERRUPTED))
}

/// The extended state of a frame.
#[repr(C, align(64))]
struct State([u8; XSAVE_MAX as usize]);

/// A frame that the stub makes itself. The state lies above the context, so that what is below the
/// context is free.
#[repr(C)]
struct Built {
    context: Ucontext,
    state: State,
}

/// Makes a signal frame of a patched call, and goes on as if the call had trapped.
#[inline(never)]
fn with_frame(private: &Private, slot: &'static Slot, next: Next) -> ! {
    let index = slot.index.load(Relaxed);
    let mut built =
        Built { context: Ucontext::empty(index), state: State([0; XSAVE_MAX as usize]) };
    built.context.gregs = private.gregs;
    built.context.fpstate = save_state(&mut built.state);
    serve::go_on(&raw mut built.context, slot, next)
}

/// Saves the extended state in the form of a signal frame; returns its address.
fn save_state(state: &mut State) -> u64 {
    let config = serve::config();
    let features = config.xsave_features.load(Relaxed);
    let size = config.xsave_size.load(Relaxed);
    let at = core::ptr::from_mut(state).addr() as u64;
    // SAFETY: the area is aligned, its header is zero, and the sentry lets no site be patched where
    // the state is larger than it.
    unsafe {
        asm!("xsave64 [{}]", in(reg) at, in("eax") features as u32, in("edx") (features >> 32) as u32, options(nostack));
    }
    let mut put = |offset: u64, bytes: &[u8]| {
        for (i, byte) in bytes.iter().enumerate() {
            if let Some(place) = state.0.get_mut(offset as usize + i) {
                *place = *byte;
            }
        }
    };
    put(464, &frame::FP_XSTATE_MAGIC1.to_le_bytes());
    put(468, &(size as u32 + 4).to_le_bytes());
    put(472, &features.to_le_bytes());
    put(480, &(size as u32).to_le_bytes());
    put(size, &frame::FP_XSTATE_MAGIC2.to_le_bytes());
    at
}

/// Returns whether [`rewind`] has something to do at `rip`.
pub(crate) fn can_rewind(rip: u64) -> bool {
    (rip > addr(stub_leave) && rip < addr(stub_leave_end))
        || (rip >= addr(stub_fast) && rip < addr(stub_fast_end))
}

/// Prepares an interrupted thread in stub text for an event: returns whether it is (again) in a
/// state that the application could be in.
pub(crate) fn rewind(context: &mut Ucontext, index: u32) -> bool {
    let rip = context.gregs[G_RIP];
    if rip > addr(stub_leave) && rip < addr(stub_leave_end) {
        context.gregs[G_RCX] = layout::private_addr(index);
        context.gregs[G_RIP] = addr(stub_leave);
        return false;
    }
    if rip < addr(stub_fast) || rip >= addr(stub_fast_end) {
        return false;
    }
    // SAFETY: the address lies in stub text.
    let code = unsafe { core::ptr::with_exposed_provenance::<[u8; 2]>(rip as usize).read() };
    if code == JMP_RCX {
        context.gregs[G_RIP] = context.gregs[G_RCX];
    } else {
        // The call has had no effect yet: as if the thread were at its `syscall` instruction.
        context.gregs[G_RIP] = context.gregs[G_RAX].wrapping_sub(2);
        context.gregs[G_RAX] = context.gregs[G_R11];
    }
    true
}

const JMP_RCX: [u8; 2] = [0xff, 0xe1];
