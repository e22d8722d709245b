//! Assembly: the ways in and out, and memory accesses that may fault.
//!
//! # Safety
//! The routines are called as their comments say; each faulting instruction has its continuation
//! in [`fixup`].
#![expect(unsafe_code, reason = "assembly")]

use core::arch::global_asm;
use core::mem::offset_of;

use sentry_sysmsg::{Slot, layout};

use crate::frame::Ucontext;

global_asm!(
    // The kernel starts the zygote here.
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {start}",
    "ud2",
    // switch_stack(arg, stack, function) -> !
    ".globl stub_switch_stack",
    "stub_switch_stack:",
    "mov rsp, rsi",
    "xor ebp, ebp",
    "call rdx",
    "ud2",
    // The kernel returns from a handler through here.
    ".globl stub_restorer",
    "stub_restorer:",
    "mov eax, 15",
    "syscall",
    "ud2",
    // enter_app(frame, slot) -> !: one window from the look at `interrupt` to the entry.
    ".globl stub_enter_app",
    ".globl stub_enter_app_end",
    "stub_enter_app:",
    "cmp dword ptr [rsi + {interrupt}], 0",
    "jne 2f",
    "mov rsp, rdi",
    "mov eax, 15",
    "syscall",
    "stub_enter_app_end:",
    "ud2",
    "2:",
    "mov rsp, rdi",
    "call {interrupted}",
    "ud2",
    // clone_thread(stack, frame, in_use) -> tid: the child calls thread_main(frame); the host clears
    // the word when the child has ended.
    ".globl stub_clone_thread",
    "stub_clone_thread:",
    "push rbx",
    "mov rbx, rsi",
    "mov rsi, rdi",
    "mov edi, {thread_flags}",
    "mov r10, rdx",
    "xor edx, edx",
    "xor r8d, r8d",
    "mov eax, 56",
    "syscall",
    "test rax, rax",
    "jz 3f",
    "pop rbx",
    "ret",
    "3:",
    "mov rdi, rbx",
    "xor ebp, ebp",
    "call {thread_main}",
    "ud2",
    // exit() -> !, without a stack: another thread may have it already.
    ".globl stub_exit",
    "stub_exit:",
    "mov eax, 60",
    "xor edi, edi",
    "syscall",
    "ud2",
    // copy(dst, src, len) -> bytes not copied.
    ".globl stub_copy",
    ".globl stub_copy_at",
    ".globl stub_copy_fix",
    "stub_copy:",
    "mov rcx, rdx",
    "stub_copy_at:",
    "rep movsb",
    "stub_copy_fix:",
    "mov rax, rcx",
    "ret",
    // clear(dst, len) -> bytes that are not zero yet.
    ".globl stub_clear",
    ".globl stub_clear_at",
    ".globl stub_clear_fix",
    "stub_clear:",
    "mov rcx, rsi",
    "xor eax, eax",
    "stub_clear_at:",
    "rep stosb",
    "stub_clear_fix:",
    "mov rax, rcx",
    "ret",
    // copy_string(dst, src, max) -> length with the terminator, or zero.
    ".globl stub_copy_string",
    ".globl stub_copy_string_at",
    ".globl stub_copy_string_fix",
    "stub_copy_string:",
    "xor ecx, ecx",
    "4:",
    "cmp rcx, rdx",
    "jae stub_copy_string_fix",
    "stub_copy_string_at:",
    "movzx eax, byte ptr [rsi + rcx]",
    "mov byte ptr [rdi + rcx], al",
    "inc rcx",
    "test al, al",
    "jnz 4b",
    "mov rax, rcx",
    "ret",
    "stub_copy_string_fix:",
    "xor eax, eax",
    "ret",
    // compare_exchange(word, old, new) -> old value, or all ones where the word is not accessible.
    ".globl stub_cmpxchg",
    ".globl stub_cmpxchg_at",
    ".globl stub_word_fix",
    "stub_cmpxchg:",
    "mov eax, esi",
    "stub_cmpxchg_at:",
    "lock cmpxchg dword ptr [rdi], edx",
    "mov eax, eax",
    "ret",
    "stub_word_fix:",
    "mov rax, -1",
    "ret",
    // store(address, old, new) -> zero, minus EAGAIN where another value is there, or all ones.
    ".globl stub_store",
    ".globl stub_store_at",
    "stub_store:",
    "mov rax, rsi",
    "stub_store_at:",
    "lock cmpxchg qword ptr [rdi], rdx",
    "jne 5f",
    "xor eax, eax",
    "ret",
    "5:",
    "mov rax, -11",
    "ret",
    // load(word) -> value, or all ones.
    ".globl stub_load",
    ".globl stub_load_at",
    "stub_load:",
    "stub_load_at:",
    "mov eax, dword ptr [rdi]",
    "ret",
    start = sym crate::start::start,
    interrupted = sym crate::serve::interrupted,
    thread_main = sym crate::serve::thread_main,
    interrupt = const offset_of!(Slot, interrupt),
    thread_flags = const layout::THREAD_FLAGS,
);

unsafe extern "C" {
    pub(crate) fn stub_restorer();
    pub(crate) fn stub_switch_stack(arg: u64, stack: u64, function: extern "C" fn(u64) -> !) -> !;
    pub(crate) fn stub_enter_app(frame: *mut Ucontext, slot: *const Slot) -> !;
    fn stub_enter_app_end();
    pub(crate) fn stub_clone_thread(stack: u64, frame: *mut Ucontext, in_use: u64) -> i64;
    fn stub_exit() -> !;
    pub(crate) fn stub_copy(dst: u64, src: u64, len: u64) -> u64;
    fn stub_copy_at();
    fn stub_copy_fix();
    pub(crate) fn stub_clear(dst: u64, len: u64) -> u64;
    fn stub_clear_at();
    fn stub_clear_fix();
    pub(crate) fn stub_copy_string(dst: u64, src: u64, max: u64) -> u64;
    fn stub_copy_string_at();
    fn stub_copy_string_fix();
    pub(crate) fn stub_cmpxchg(word: u64, old: u32, new: u32) -> u64;
    fn stub_cmpxchg_at();
    fn stub_word_fix();
    pub(crate) fn stub_store(address: u64, old: u64, new: u64) -> u64;
    fn stub_store_at();
    pub(crate) fn stub_load(word: u64) -> u64;
    fn stub_load_at();
}

/// Ends the thread.
pub(crate) fn exit() -> ! {
    // SAFETY: touches no memory.
    unsafe { stub_exit() }
}

fn addr(function: unsafe extern "C" fn()) -> u64 {
    function as usize as u64
}

/// Returns where to go on after a fault at `rip`.
pub(crate) fn fixup(rip: u64) -> Option<u64> {
    if rip == addr(stub_copy_at) {
        Some(addr(stub_copy_fix))
    } else if rip == addr(stub_clear_at) {
        Some(addr(stub_clear_fix))
    } else if rip == addr(stub_copy_string_at) {
        Some(addr(stub_copy_string_fix))
    } else if [addr(stub_cmpxchg_at), addr(stub_store_at), addr(stub_load_at)].contains(&rip) {
        Some(addr(stub_word_fix))
    } else {
        None
    }
}

/// Returns where to go on after an interrupt at `rip`: the start of a window that it lies in.
pub(crate) fn window_start(rip: u64) -> Option<u64> {
    let start = stub_enter_app as *const () as usize as u64;
    (rip > start && rip < addr(stub_enter_app_end)).then_some(start)
}
