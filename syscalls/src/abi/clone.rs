//! `clone(2)`, `unshare(2)` and `setns(2)` (`linux/sched.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flags! {
    /// Flags of `clone(2)`; the low eight bits are the exit signal.
    pub struct CloneFlags: u64 as "CLONE_" {
        NEWTIME = 0x80;
        VM = 0x100;
        FS = 0x200;
        FILES = 0x400;
        SIGHAND = 0x800;
        PIDFD = 0x1000;
        PTRACE = 0x2000;
        VFORK = 0x4000;
        PARENT = 0x8000;
        THREAD = 0x0001_0000;
        NEWNS = 0x0002_0000;
        SYSVSEM = 0x0004_0000;
        SETTLS = 0x0008_0000;
        PARENT_SETTID = 0x0010_0000;
        CHILD_CLEARTID = 0x0020_0000;
        DETACHED = 0x0040_0000;
        UNTRACED = 0x0080_0000;
        CHILD_SETTID = 0x0100_0000;
        NEWCGROUP = 0x0200_0000;
        NEWUTS = 0x0400_0000;
        NEWIPC = 0x0800_0000;
        NEWUSER = 0x1000_0000;
        NEWPID = 0x2000_0000;
        NEWNET = 0x4000_0000;
        IO = 0x8000_0000;
        CLEAR_SIGHAND = 0x0001_0000_0000;
        INTO_CGROUP = 0x0002_0000_0000;
    }
}

impl CloneFlags {
    /// The bits of the exit signal in `clone(2)`.
    pub const CSIGNAL: u64 = 0xff;
    /// The flags that make namespaces.
    pub const NAMESPACES: Self = Self::from_bits_retain(0x7e02_0080);
}

/// Corresponds to `struct clone_args`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// The size of the first version of `struct clone_args`.
pub const CLONE_ARGS_SIZE_VER0: usize = 64;
/// The size of the second version (`set_tid`).
pub const CLONE_ARGS_SIZE_VER1: usize = 80;
/// The size of the third version (`cgroup`).
pub const CLONE_ARGS_SIZE_VER2: usize = 88;
