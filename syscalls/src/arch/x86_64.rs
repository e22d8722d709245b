//! x86-64: general-purpose registers and system call numbers.

pub mod nr;
pub mod sigframe;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The general-purpose registers of a thread: the layout of `struct user_regs_struct`
/// (`asm/user_64.h`), so that it can be exchanged with ptrace as it is.
///
/// For a thread that stopped at a system call, `orig_rax` is the call's number and `rip` the
/// address behind the instruction, as Linux shows them to a tracer.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[expect(missing_docs, reason = "the names are the registers' own")]
pub struct Regs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}
