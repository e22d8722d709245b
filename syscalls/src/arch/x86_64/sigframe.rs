//! The stack frame of a signal handler on x86-64 (`asm/sigcontext.h`, `asm/ucontext.h`,
//! `asm/sigframe.h`).
//!
//! From the stack pointer up: [`RtSigframe`], then, at the address in `uc_mcontext.fpstate` that is a
//! multiple of 64, the extended state: 512 bytes of legacy area whose last 48 are [`FpxSwBytes`],
//! the rest of the XSAVE area, and [`FP_XSTATE_MAGIC2`].
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::abi::signal::{SigSet, Siginfo, Stackt};

/// Corresponds to `struct sigcontext`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Sigcontext {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub eflags: u64,
    pub cs: u16,
    pub gs: u16,
    pub fs: u16,
    pub ss: u16,
    pub err: u64,
    pub trapno: u64,
    pub oldmask: u64,
    pub cr2: u64,
    pub fpstate: u64,
    pub reserved: [u64; 8],
}

/// Corresponds to the kernel's `struct ucontext`, whose mask is 64 bits.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Ucontext {
    pub uc_flags: u64,
    pub uc_link: u64,
    pub uc_stack: Stackt,
    pub uc_mcontext: Sigcontext,
    pub uc_sigmask: SigSet,
}

/// Corresponds to `struct rt_sigframe`: what the stack pointer points to when a handler starts.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct RtSigframe {
    /// The return address: the restorer.
    pub pretcode: u64,
    pub uc: Ucontext,
    pub info: Siginfo,
}

/// The extended state lies behind the frame in XSAVE format.
pub const UC_FP_XSTATE: u64 = 1;
/// `ss` of the saved context is meaningful.
pub const UC_SIGCONTEXT_SS: u64 = 2;
/// `rt_sigreturn(2)` restores `ss` as it is.
pub const UC_STRICT_RESTORE_SS: u64 = 4;

/// Marks valid [`FpxSwBytes`].
pub const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
/// Follows the XSAVE area.
pub const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
/// The size of the legacy area.
pub const FXSAVE_SIZE: usize = 512;
/// Where [`FpxSwBytes`] lies in the legacy area.
pub const FPX_SW_OFFSET: usize = 464;
/// The alignment of the extended state.
pub const XSTATE_ALIGN: u64 = 64;
/// Bytes below the stack pointer that leaf functions use and a frame must skip.
pub const RED_ZONE: u64 = 128;

/// Corresponds to `struct _fpx_sw_bytes`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct FpxSwBytes {
    pub magic1: u32,
    /// The size of the XSAVE area with the trailing magic.
    pub extended_size: u32,
    pub xfeatures: u64,
    /// The size of the XSAVE area.
    pub xstate_size: u32,
    pub padding: [u32; 7],
}

/// Code segment of 64-bit user code.
pub const USER_CS: u16 = 0x33;
/// Stack segment of user code.
pub const USER_SS: u16 = 0x2b;

/// The bits of `eflags` that `rt_sigreturn(2)` takes from the frame (`FIX_EFLAGS`).
pub const SIGRETURN_EFLAGS_MASK: u64 = 0x0005_0dd5;
/// The direction flag, cleared at the entry of a handler.
pub const EFLAGS_DF: u64 = 1 << 10;
/// The resume flag, cleared at the entry of a handler.
pub const EFLAGS_RF: u64 = 1 << 16;
/// The trap flag, cleared at the entry of a handler.
pub const EFLAGS_TF: u64 = 1 << 8;
