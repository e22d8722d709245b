//! Where the stub's pages lie in an application's address space, and how it rings.
//!
//! Everything here is above the addresses that the sentry gives to applications and below what the
//! host kernel uses for its own stack and vDSO.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU64};

use crate::file::Files;
use crate::ring::{Mirror, N_RINGS, Ring};

/// Where the stub's image is linked and loaded.
pub const STUB_BASE: u64 = 0x7e80_0000_0000;
/// The size of the window behind [`STUB_BASE`] whose `syscall` instructions the filter lets through
/// to its list. The whole image fits into it.
pub const STUB_LEN: u64 = 0x2_0000;

/// Where a process maps its slots.
pub const SLOT_BASE: u64 = 0x7e90_0000_0000;
/// The distance between two slots.
pub const SLOT_SIZE: u64 = 0xa000;
/// How many threads a process may have.
pub const MAX_THREADS: u32 = 8192;
/// Where a process maps what it shares with the sentry as a whole: `Process`.
pub const PROCESS_BASE: u64 = SLOT_BASE + PROCESS_OFFSET;
/// Where that lies behind the slots.
pub const PROCESS_OFFSET: u64 = SLOT_SIZE * MAX_THREADS as u64;
/// Its size.
pub const PROCESS_LEN: u64 = 4096;
/// Where the descriptors of streams that are lent to the process lie behind the slots: `ring::Mirror`.
pub const MIRROR_OFFSET: u64 = PROCESS_OFFSET + PROCESS_LEN;
/// Where a process maps that.
pub const MIRROR_BASE: u64 = SLOT_BASE + MIRROR_OFFSET;
/// Where the streams themselves lie: `ring::Ring`.
pub const RINGS_OFFSET: u64 = MIRROR_OFFSET + size_of::<Mirror>() as u64;
/// Where a process maps those.
pub const RINGS_BASE: u64 = SLOT_BASE + RINGS_OFFSET;
/// Where the files that are lent to the process lie behind the slots: `file::Files`.
pub const FILES_OFFSET: u64 = RINGS_OFFSET + (N_RINGS * size_of::<Ring>()) as u64;
/// Where a process maps those.
pub const FILES_BASE: u64 = SLOT_BASE + FILES_OFFSET;
/// The size of all that a process shares with the sentry. The memory is sparse: only used slots take
/// pages.
pub const REGION_LEN: u64 = FILES_OFFSET + size_of::<Files>() as u64;

/// Where the stub's stacks lie; the stack of thread `i` is at `STACK_BASE + i * STACK_STRIDE`.
pub const STACK_BASE: u64 = 0x7ea0_0000_0000;
/// The distance between two stacks.
pub const STACK_STRIDE: u64 = 0x2_0000;
/// What lies unmapped below each stack.
pub const STACK_GUARD: u64 = 0x8000;
/// The end of the part that signal handlers use as their alternate stack. It leaves room for the
/// frames of at least three nested signals with AMX state.
pub const STACK_TOP: u64 = 0x1_f000;
/// The thread's private page, where a patched call keeps the registers: outside of the alternate
/// stack, because a signal that arrives on the application's stack starts at the stack's top.
pub const PRIVATE_PAGE: u64 = STACK_TOP;

/// Where the windows on files that are lent to the process lie, one for each place of [`Files`].
pub const WINDOWS_BASE: u64 = 0x7eb0_0000_0000;
/// The size of a window: the most that a file may have.
pub const WINDOW_LEN: u64 = 1 << 30;

/// A page that the zygote maps for all its descendants, read-only: [`Config`].
pub const CONFIG_BASE: u64 = 0x7e84_0000_0000;
/// The size of the configuration.
pub const CONFIG_LEN: u64 = 0x4000;

/// What all stubs know from the start.
#[repr(C)]
#[derive(Debug)]
pub struct Config {
    /// The features that the stub saves where a signal frame is wanted at a patched call.
    pub xsave_features: AtomicU64,
    /// The size of that state without the trailing magic; zero where it is too large for the stub.
    pub xsave_size: AtomicU64,
    /// For how many ticks of the time-stamp counter a stub waits for an answer without a ring, where a
    /// serving thread watches it; zero where the processor cannot tell the CPU with the time.
    pub spin_ticks: AtomicU64,
    /// How the stub rings: [`DOORBELL_NOTIFY`] or [`DOORBELL_FUTEX`].
    pub doorbell: AtomicU64,
    /// For each system call, which arguments point to something that the stub passes along.
    pub masks: [AtomicU8; N_CALLS],
    /// For each system call and argument, what that is: [`INPUT_STRING`], [`INPUT_FIXED`] or
    /// [`INPUT_COUNTED`] with their parameters.
    pub inputs: [[AtomicU16; 6]; N_CALLS],
}

/// How many system calls the configuration describes.
pub const N_CALLS: usize = 512;
/// A string that ends with a zero byte.
pub const INPUT_STRING: u16 = 1;
/// So many bytes: the number in the upper bits.
pub const INPUT_FIXED: u16 = 2;
/// Bytes or structures: an argument's index in three bits, the size of one in the rest.
pub const INPUT_COUNTED: u16 = 3;
/// How far the parameter of an input is shifted.
pub const INPUT_SHIFT: u32 = 2;

const _: () = assert!(size_of::<Config>() as u64 <= CONFIG_LEN);

/// What a thread keeps on its private page, to which its GS base points: the registers of a patched
/// call. The sentry never sees it.
#[repr(C)]
#[derive(Debug)]
pub struct Private {
    /// The address of the thread's slot.
    pub slot: u64,
    /// The number of the present call.
    pub number: u64,
    /// The registers in the order of a signal frame: r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx,
    /// rsp, rip, eflags.
    pub gregs: [u64; 18],
}

/// The largest extended state, trailing magic included, that the stub can save itself.
pub const XSAVE_MAX: u64 = 4096;

/// Marks the table of entry points in the stub's image, which consists of this word and one address
/// per [`Entry`].
pub const ENTRIES_MAGIC: u64 = 0x7375_6274_7972_746e;

/// The entry points for patched calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Entry {
    /// Any call.
    Forward = 1,
    /// `getpid`.
    Getpid,
    /// `gettid`.
    Gettid,
    /// `getppid`.
    Getppid,
    /// `getuid`.
    Getuid,
    /// `geteuid`.
    Geteuid,
    /// `getgid`.
    Getgid,
    /// `getegid`.
    Getegid,
    /// `getpgrp`.
    Getpgrp,
}

/// Returns the address of the private page of thread `index`.
pub const fn private_addr(index: u32) -> u64 {
    stack_addr(index) + PRIVATE_PAGE
}

/// A doorbell: a call that the filter answers with a notification, and which returns when the sentry
/// says so. Descriptors are installed meanwhile.
pub const DOORBELL_NOTIFY: u64 = 0;
/// A doorbell: a message to [`RING_FD`], after which the thread sleeps on the futex of its slot's
/// `done` word. Descriptors come as messages to [`CHANNEL_FD`].
pub const DOORBELL_FUTEX: u64 = 1;

/// With [`DOORBELL_FUTEX`]: the descriptor by which all stubs ring. The kernel tells the sentry which
/// process a message comes from.
pub const RING_FD: i32 = 0;
/// The size of a ring: what would be the arguments of the doorbell call.
pub const RING_LEN: u64 = 24;
/// With [`DOORBELL_FUTEX`]: the descriptor from which a process takes what the sentry sends: messages
/// of one descriptor, and the number that it is to have.
pub const CHANNEL_FD: i32 = 1;
/// How many descriptors a stub may have.
pub const MAX_FDS: u64 = 64;

/// The number of the doorbell call: one that Linux has dropped (`nfsservctl`), and which the
/// filter answers with a notification, so that it never reaches the table.
pub const DOORBELL_NR: u32 = 180;
/// First argument of the doorbell: the thread's slot has (or may have) a new request.
/// The second argument is the space's token, the third the index of the thread.
pub const RING_REQUEST: u64 = 0;
/// First argument of the doorbell: a process was born and has no slot yet; the second argument is
/// the token of the birth. The answer is the descriptor of the child's slots.
pub const RING_BORN: u64 = 1;
/// A doorbell's answer: look at the slot again.
pub const RUNG_LOOK: i64 = 0;
/// A doorbell's answer: sleep on the futex of the slot's `done` word.
pub const RUNG_PARK: i64 = 1;

/// The host signal that makes a thread look at its slot's `interrupt` word.
pub const INTERRUPT_SIGNAL: i32 = 10;

/// The flags with which a stub clones itself: a new process that is the sentry's child.
pub const FORK_FLAGS: u64 = 0x8000 | 17;
/// The flags with which a stub makes a thread: `CLONE_VM | CLONE_FS | CLONE_FILES |
/// CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID`.
pub const THREAD_FLAGS: u64 =
    0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000 | 0x20_0000 | 0x100_0000;

/// The descriptor at which the zygote finds its slots when it starts.
pub const ZYGOTE_REGION_FD: i32 = 3;
/// The descriptor at which the zygote finds the configuration when it starts.
pub const ZYGOTE_CONFIG_FD: i32 = 4;

/// Returns the address of slot `index`.
pub const fn slot_addr(index: u32) -> u64 {
    SLOT_BASE + index as u64 * SLOT_SIZE
}

/// Returns the lowest address of the stack of thread `index`, its guard included.
pub const fn stack_addr(index: u32) -> u64 {
    STACK_BASE + index as u64 * STACK_STRIDE
}
