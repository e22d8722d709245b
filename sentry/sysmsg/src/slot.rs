//! The slot: one guest thread's shared memory.
//!
//! The stub fills the request fields, then increments `seq`; the sentry fills the reply fields,
//! then sets `done` to the sequence number that it answers. Between the two the slot belongs to
//! the sentry, before and after it to the stub. The doorbell is only an edge.
//!
//! Where both sides run at the same time on two CPUs, what a call costs is the cache lines that go
//! from one to the other. Lines therefore hold fields that one side writes, and a field that keeps
//! its value is not written ([`Renew`]): in a loop of equal calls only `seq`, `turn` and the line of
//! the arguments travel.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};

/// How many registers [`Slot::regs`] holds, in the order of `struct user_regs_struct`.
pub const N_REGS: usize = 27;
/// How many host calls one reply can hold.
pub const MAX_CALLS: usize = 96;
/// The size of the area for bulk data. The host copies less between two processes only at the price of
/// more than a microsecond, and of most of another one for each page.
pub const DATA_LEN: usize = 32 << 10;

/// How many handlers may be entered at once: one for each signal.
pub const MAX_XSAVES: usize = 64;

/// In [`Turn::watched`]: somebody watches who is about to choose a CPU.
pub const WATCHED_ANYWHERE: u32 = u32::MAX;
/// In [`Turn::watched`]: somebody watches many threads and yields to them, as they had better do.
pub const WATCHED_CROWD: u32 = u32::MAX - 1;
/// How many times longer than usual a thread watches that is one of many: others come first.
pub const CROWD_SPINS: u64 = 20;
/// A thread that gets the CPU back so many ticks after it yielded has lost it to somebody who needs it, and not
/// to an interrupt or a thread that soon sleeps again: about 0.6 ms.
pub const LOST_TICKS: u64 = 1_500_000;
/// How many times longer than usual both sides spin before their first exchange: moving a thread
/// to another CPU takes longer than a call.
pub const START_SPINS: u64 = 10;

/// The request is a system call of the application.
pub const KIND_SYSCALL: u32 = 1;
/// The request is a system call of the application from a patched site.
pub const KIND_PATCHED_SYSCALL: u32 = 6;
/// The request is an exception of the application.
pub const KIND_FAULT: u32 = 2;
/// The thread has seen its `interrupt` word.
pub const KIND_INTERRUPTED: u32 = 3;
/// The host calls have been made, as asked without [`REPLY_RESUME`].
pub const KIND_CALLS_DONE: u32 = 4;
/// A host call has failed: `n_results` counts the results, the last of which is the error.
pub const KIND_CALL_FAILED: u32 = 5;

/// Go back to the application after everything else.
pub const REPLY_RESUME: u32 = 1;
/// Load all registers from [`Slot::regs`].
pub const REPLY_REGS: u32 = 1 << 1;
/// Load `rax` from [`Slot::ret`].
pub const REPLY_RET: u32 = 1 << 2;
/// Store the extended state at [`Slot::xsave_addr`].
pub const REPLY_XSAVE: u32 = 1 << 3;
/// Load the extended state from [`Slot::xrestore_addr`] (null: the initial state).
pub const REPLY_XRESTORE: u32 = 1 << 4;
/// Fork; the child's token is [`Slot::birth_token`].
pub const REPLY_FORK: u32 = 1 << 5;
/// Make a thread with the index [`Slot::birth_index`].
pub const REPLY_THREAD: u32 = 1 << 6;
/// With [`REPLY_THREAD`]: the index has not had a thread before, its stack must be mapped.
pub const REPLY_MAP_STACK: u32 = 1 << 9;
/// Replace the extended state of the frame by what is in [`Slot::data`], whose length is
/// [`Slot::xrestore_addr`].
pub const REPLY_XLOAD: u32 = 1 << 10;
/// End this thread.
pub const REPLY_EXIT: u32 = 1 << 7;
/// End this process.
pub const REPLY_EXIT_GROUP: u32 = 1 << 8;
/// Sleep until the process ends: its first thread, by whose id the sentry reaches its memory.
pub const REPLY_SLEEP: u32 = 1 << 11;

/// A pseudo call number: `HostCall::AtomicUpdate` (address, and, xor, add).
pub const CALL_ATOMIC_UPDATE: u32 = 0x1_0000;
/// A pseudo call number: `HostCall::CompareExchange` (address, old, new).
pub const CALL_COMPARE_EXCHANGE: u32 = 0x1_0001;
/// How many identity calls there are.
pub const N_FACTS: usize = 8;
/// Set in a valid fact.
pub const FACT_VALID: u64 = 1 << 32;

/// A flag of a call: neither its error nor its result matters.
pub const CALL_QUIET: u32 = 1;
/// A flag of a call: it is left out where a call with this flag has failed before.
pub const CALL_CHAINED: u32 = 2;
/// A flag of a call: it fails where its result is not its third argument.
pub const CALL_WHOLE: u32 = 4;
/// A pseudo call number: replaces eight aligned bytes at once, where they are as expected (address, old,
/// new); else fails with `EAGAIN`.
pub const CALL_STORE: u32 = 0x1_0003;
/// A pseudo call number: fails with `EINVAL`.
pub const CALL_REFUSED: u32 = 0x1_0002;

/// A pseudo call number: copies from the slot's data (address, offset, length).
pub const CALL_COPY_OUT: u32 = 0x1_0004;

/// In [`Slot::birth_channel`]: the birth must fail.
pub const NO_CHANNEL: u32 = u32::MAX;

/// How many inputs a request can have.
pub const N_INPUTS: usize = 4;
/// The longest string, and the most bytes of another input, that the stub passes along.
pub const STRING_MAX: u64 = 2048;
/// See [`STRING_MAX`]. What is longer is often data for a window, to which the host copies it at once.
pub const INPUT_MAX: u64 = 8192;

/// Where in [`Slot::data`] a request has the process's `struct rusage`, where its call is one of
/// those that [`tells_usage`] names. None of them has inputs that reach so far. At the end of the first
/// page.
pub const USAGE_OFFSET: usize = 4096 - 144;

/// Returns whether the stub passes along with the call `number` what its process has used: the
/// calls after which there is nobody to ask (`execve`, `exit`, `exit_group`, `execveat`).
pub const fn tells_usage(number: u64) -> bool {
    matches!(number, 59 | 60 | 231 | 322)
}

/// A piece of the application's memory that a call is about.
#[repr(C)]
#[derive(Debug)]
pub struct Input {
    /// Its address.
    pub addr: AtomicU64,
    /// Its length.
    pub len: AtomicU32,
    /// Where it starts in [`Slot::data`], a multiple of eight.
    pub offset: AtomicU32,
}

/// One host call of a reply.
#[repr(C)]
#[derive(Debug)]
pub struct CallEntry {
    /// The call's number.
    pub nr: AtomicU32,
    /// `CALL_QUIET`, `CALL_CHAINED`, `CALL_WHOLE`.
    pub flags: AtomicU32,
    /// The arguments; the first one is overwritten with the result.
    pub args: [AtomicU64; 6],
    /// What the call returned.
    pub result: AtomicU64,
}

/// The shared memory of one guest thread.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Slot {
    /// The number of the last request. The sentry may spin on it, so its cache line holds nothing
    /// else.
    pub seq: Line<AtomicU32>,
    /// What the request is: `KIND_*`.
    pub kind: AtomicU32,
    /// The CPU that the thread ran on when it posted its last request, as `rdtscp` tells it, plus one;
    /// zero where it cannot tell.
    pub cpu: AtomicU32,
    /// Not zero where the thread has yielded for an answer and got the CPU back only after long: the sentry
    /// clears it.
    pub lost_cpu: AtomicU32,
    /// How many calls of the last list have a result.
    pub n_results: AtomicU32,
    /// The host id of the last thread or process that this thread made, or the negated error.
    pub birth: AtomicU32,
    /// The exception's signal.
    pub fault_signo: AtomicU32,
    /// The exception's `si_code`.
    pub fault_code: AtomicU32,
    /// The exception's `si_addr`.
    pub fault_addr: AtomicU64,
    /// The exception's number.
    pub fault_trap_no: AtomicU64,
    /// The exception's error code.
    pub fault_error_code: AtomicU64,
    /// Not zero as long as a thread may use this slot and its stack. The host clears it when the
    /// thread has ended (`CLONE_CHILD_CLEARTID`), after which no signal can find it there either.
    /// Meanwhile it is the host's id of the thread, where a thread of the process made it
    /// (`CLONE_CHILD_SETTID`).
    pub in_use: AtomicU32,
    /// In the process's first slot: a futex lock, held by a thread that takes descriptors from the
    /// channel, and how many of them the process has.
    pub fds_lock: AtomicU32,
    /// See `fds_lock`.
    pub fds_taken: AtomicU64,
    /// When the thread last rang by a message, by the time-stamp counter, and when it last woke up from
    /// the sleep on its `done` word; hints, like `cpu`.
    pub rang: AtomicU64,
    /// See `rang`.
    pub woke: AtomicU64,
    /// How many of [`Slot::inputs`] the request has.
    pub n_inputs: AtomicU32,
    /// When the thread last wanted to wait for a futex, by the time-stamp counter. This and the following
    /// six are the stub's own.
    pub wanted_wait: AtomicU64,
    /// How many waits in quick succession that was.
    pub quick_waits: AtomicU32,
    /// How often in a row the thread has then watched a futex in vain.
    pub vain_watches: AtomicU32,
    /// How many of its next waits go to the sentry at once for that.
    pub unwatched_waits: AtomicU32,
    /// When the thread was last refused to wait for a futex, by the time-stamp counter.
    pub refused: AtomicU64,
    /// How often it was before, each time soon after the time before.
    pub refusals: AtomicU32,
    /// How many calls about futexes have trapped.
    pub futex_traps: AtomicU32,
    /// What the arguments of the call point to; the bytes are in [`Slot::data`].
    pub inputs: Line<[Input; N_INPUTS]>,
    /// The registers, in the order of `struct user_regs_struct`; both ways.
    pub regs: Line<[AtomicU64; N_REGS]>,

    /// What the stub looks at while it waits.
    pub turn: Turn,
    /// Whether the thread should stop before it goes back to the application.
    pub interrupt: AtomicU32,
    /// What to do: `REPLY_*`.
    pub reply: AtomicU32,
    /// How many of [`Slot::calls`] to make.
    pub n_calls: AtomicU32,
    /// The value of `rax`.
    pub ret: AtomicU64,
    /// Where to store the extended state.
    pub xsave_addr: AtomicU64,
    /// How many of [`Slot::xsave_more`] count.
    pub n_xsave_more: AtomicU32,
    /// Where to store the extended state as well: where several handlers are entered at once, one
    /// on top of the other, each frame has the same.
    pub xsave_more: [AtomicU64; MAX_XSAVES - 1],
    /// Where to load the extended state from.
    pub xrestore_addr: AtomicU64,
    /// What a forked child says when it rings.
    pub birth_token: AtomicU64,
    /// The index of a new thread.
    pub birth_index: AtomicU32,
    /// Where there are channels: the number under which the parent holds the end of a forked child's;
    /// zero where there are none, [`NO_CHANNEL`] where it could not be handed over.
    pub birth_channel: AtomicU32,
    /// How many descriptors the process must have taken from its channel before it makes the calls.
    pub fds_sent: AtomicU64,
    /// The CPU to which the receiver of rings keeps because this thread rings there, as in
    /// [`Turn::watched`]; zero where it keeps to none. The stub clears it where that does not help.
    pub followed: AtomicU32,
    /// The thread's own index.
    pub index: AtomicU32,
    /// The token of the address space.
    pub space: AtomicU64,
    /// What the identity calls return: `getpid`, `gettid`, `getppid`, `getuid`, `geteuid`, `getgid`,
    /// `getegid`, `getpgrp`, each with [`FACT_VALID`]; zero where the sentry answers itself.
    pub facts: [AtomicU64; N_FACTS],
    /// Whether the stub may answer other calls as well without the sentry.
    pub fast: AtomicU32,
    /// The number of the thread's descriptor table, where streams may be lent to its process; else zero.
    pub table: AtomicU64,
    /// The number of the lease of the thread's mask for the permissions of new files, shifted as in
    /// [`crate::file::Files::umask`]; zero where it is not lent to it.
    pub umask: AtomicU64,
    /// Whether signals may be pending, so that the mask is not the stub's to change.
    pub signals_pending: AtomicU32,
    /// The blocked signals, while the application runs.
    pub signal_mask: AtomicU64,
    /// The zygote only: where the host has mapped its vDSO, zero for nowhere.
    pub host_vdso: AtomicU64,
    /// The zygote only: the number of the listener plus one, once there is one (or the filter, where
    /// none is wanted); all ones where the host refuses it.
    pub listener: AtomicU32,
    /// The zygote only: set when the sentry has taken the listener.
    pub listener_taken: AtomicU32,
    /// The zygote only: how many instructions the filter in `data` has.
    pub filter_len: AtomicU32,
    /// The zygote only: the flags for the installation of the filter.
    pub filter_flags: AtomicU32,

    /// Host calls.
    pub calls: Align2K<[CallEntry; MAX_CALLS]>,
    /// Bulk data: the filter (zygote), the vector of `mincore`.
    pub data: [AtomicU64; DATA_LEN / 8],
}

/// Whose turn it is.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Turn {
    /// The number of the last request that has been answered. A futex word.
    pub done: AtomicU32,
    /// Not zero while a serving thread watches `seq`, so that a request needs no ring: the CPU on
    /// which it spins, as `rdtscp` tells it, plus one.
    pub watched: AtomicU32,
}

/// Writing to memory that another CPU reads.
pub trait Renew {
    /// What the field holds.
    type Value;

    /// Stores `value` where it is not there yet, without any order.
    fn renew(&self, value: Self::Value);
}

impl Renew for AtomicU32 {
    type Value = u32;

    #[inline]
    fn renew(&self, value: u32) {
        if self.load(Relaxed) != value {
            self.store(value, Relaxed);
        }
    }
}

impl Renew for AtomicU64 {
    type Value = u64;

    #[inline]
    fn renew(&self, value: u64) {
        if self.load(Relaxed) != value {
            self.store(value, Relaxed);
        }
    }
}

/// Gives a field cache lines of its own.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Line<T>(pub T);

impl<T> core::ops::Deref for Line<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Puts a field on a boundary of two KiB.
#[repr(C, align(2048))]
#[derive(Debug)]
pub struct Align2K<T>(pub T);

const _: () = assert!(size_of::<CallEntry>() == 64);
const _: () = assert!(core::mem::offset_of!(Slot, calls) == 2048);
const _: () = assert!(size_of::<Slot>() as u64 == crate::layout::SLOT_SIZE);

/// Indices into [`Slot::regs`].
#[expect(missing_docs, reason = "the names are the registers' own")]
pub mod reg {
    pub const R15: usize = 0;
    pub const R14: usize = 1;
    pub const R13: usize = 2;
    pub const R12: usize = 3;
    pub const RBP: usize = 4;
    pub const RBX: usize = 5;
    pub const R11: usize = 6;
    pub const R10: usize = 7;
    pub const R9: usize = 8;
    pub const R8: usize = 9;
    pub const RAX: usize = 10;
    pub const RCX: usize = 11;
    pub const RDX: usize = 12;
    pub const RSI: usize = 13;
    pub const RDI: usize = 14;
    pub const ORIG_RAX: usize = 15;
    pub const RIP: usize = 16;
    pub const CS: usize = 17;
    pub const EFLAGS: usize = 18;
    pub const RSP: usize = 19;
    pub const SS: usize = 20;
    pub const FS_BASE: usize = 21;
    pub const GS_BASE: usize = 22;
}
