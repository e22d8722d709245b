//! `ptrace(2)` (`linux/ptrace.h`, `asm/ptrace-abi.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `PTRACE_GETEVENTMSG` at a stop at a system call.
pub const PTRACE_EVENTMSG_SYSCALL_ENTRY: u64 = 1;
pub const PTRACE_EVENTMSG_SYSCALL_EXIT: u64 = 2;
/// `op` of [`PtraceSyscallInfo`].
pub const PTRACE_SYSCALL_INFO_NONE: u8 = 0;
pub const PTRACE_SYSCALL_INFO_ENTRY: u8 = 1;
pub const PTRACE_SYSCALL_INFO_EXIT: u8 = 2;
pub const PTRACE_SYSCALL_INFO_SECCOMP: u8 = 3;
/// A flag of `PTRACE_PEEKSIGINFO`.
pub const PTRACE_PEEKSIGINFO_SHARED: u32 = 1;
/// Register sets (`linux/elf.h`).
pub const NT_PRSTATUS: u64 = 1;
pub const NT_PRFPREG: u64 = 2;
pub const NT_X86_XSTATE: u64 = 0x202;
/// The size of `struct user`, and where it has the debug registers.
pub const USER_LEN: u64 = 912;
pub const USER_DEBUGREG: u64 = 848;

/// Corresponds to `struct ptrace_syscall_info`, with the longest of its variants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PtraceSyscallInfo {
    pub op: u8,
    pub pad: [u8; 3],
    pub arch: u32,
    pub instruction_pointer: u64,
    pub stack_pointer: u64,
    /// Entry, filter: the number; exit: the value.
    pub nr_or_rval: u64,
    /// Entry, filter: the arguments; exit: `is_error` in the first byte.
    pub args: [u64; 6],
    /// Filter: its data.
    pub ret_data: u32,
    pub end: u32,
}

/// Corresponds to `struct ptrace_peeksiginfo_args`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PtracePeeksiginfoArgs {
    pub off: u64,
    pub flags: u32,
    pub nr: i32,
}

/// Corresponds to `struct ptrace_rseq_configuration`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PtraceRseqConfiguration {
    pub rseq_abi_pointer: u64,
    pub rseq_abi_size: u32,
    pub signature: u32,
    pub flags: u32,
    pub pad: u32,
}

constants! {
    /// Requests.
    PTRACE_NAMES: i32 {
        PTRACE_TRACEME = 0;
        PTRACE_PEEKTEXT = 1;
        PTRACE_PEEKDATA = 2;
        PTRACE_PEEKUSER = 3;
        PTRACE_POKETEXT = 4;
        PTRACE_POKEDATA = 5;
        PTRACE_POKEUSER = 6;
        PTRACE_CONT = 7;
        PTRACE_KILL = 8;
        PTRACE_SINGLESTEP = 9;
        PTRACE_GETREGS = 0xc;
        PTRACE_SETREGS = 0xd;
        PTRACE_GETFPREGS = 0xe;
        PTRACE_SETFPREGS = 0xf;
        PTRACE_ATTACH = 0x10;
        PTRACE_DETACH = 0x11;
        PTRACE_SYSCALL = 0x18;
        PTRACE_ARCH_PRCTL = 0x1e;
        PTRACE_SYSEMU = 0x1f;
        PTRACE_SYSEMU_SINGLESTEP = 0x20;
        PTRACE_SETOPTIONS = 0x4200;
        PTRACE_GETEVENTMSG = 0x4201;
        PTRACE_GETSIGINFO = 0x4202;
        PTRACE_SETSIGINFO = 0x4203;
        PTRACE_GETREGSET = 0x4204;
        PTRACE_SETREGSET = 0x4205;
        PTRACE_SEIZE = 0x4206;
        PTRACE_INTERRUPT = 0x4207;
        PTRACE_LISTEN = 0x4208;
        PTRACE_PEEKSIGINFO = 0x4209;
        PTRACE_GETSIGMASK = 0x420a;
        PTRACE_SETSIGMASK = 0x420b;
        PTRACE_SECCOMP_GET_FILTER = 0x420c;
        PTRACE_SECCOMP_GET_METADATA = 0x420d;
        PTRACE_GET_SYSCALL_INFO = 0x420e;
        PTRACE_GET_RSEQ_CONFIGURATION = 0x420f;
    }
}

flags! {
    /// Options of a tracer.
    pub struct PtraceOptions: u32 as "PTRACE_O_" {
        TRACESYSGOOD = 1;
        TRACEFORK = 2;
        TRACEVFORK = 4;
        TRACECLONE = 8;
        TRACEEXEC = 0x10;
        TRACEVFORKDONE = 0x20;
        TRACEEXIT = 0x40;
        TRACESECCOMP = 0x80;
        EXITKILL = 0x0010_0000;
        SUSPEND_SECCOMP = 0x0020_0000;
    }
}

constants! {
    /// Events of a tracer.
    PTRACE_EVENT_NAMES: i32 {
        PTRACE_EVENT_FORK = 1;
        PTRACE_EVENT_VFORK = 2;
        PTRACE_EVENT_CLONE = 3;
        PTRACE_EVENT_EXEC = 4;
        PTRACE_EVENT_VFORK_DONE = 5;
        PTRACE_EVENT_EXIT = 6;
        PTRACE_EVENT_SECCOMP = 7;
        PTRACE_EVENT_STOP = 128;
    }
}
