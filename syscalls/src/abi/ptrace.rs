//! `ptrace(2)` (`linux/ptrace.h`, `asm/ptrace-abi.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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
