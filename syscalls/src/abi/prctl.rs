//! `prctl(2)`, `arch_prctl(2)`, `seccomp(2)` and `reboot(2)` (`linux/prctl.h`, `asm/prctl.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

constants! {
    /// Options of `prctl(2)`.
    PRCTL_NAMES: i32 {
        PR_SET_PDEATHSIG = 1;
        PR_GET_PDEATHSIG = 2;
        PR_GET_DUMPABLE = 3;
        PR_SET_DUMPABLE = 4;
        PR_GET_UNALIGN = 5;
        PR_SET_UNALIGN = 6;
        PR_GET_KEEPCAPS = 7;
        PR_SET_KEEPCAPS = 8;
        PR_GET_FPEMU = 9;
        PR_SET_FPEMU = 10;
        PR_GET_FPEXC = 11;
        PR_SET_FPEXC = 12;
        PR_GET_TIMING = 13;
        PR_SET_TIMING = 14;
        PR_SET_NAME = 15;
        PR_GET_NAME = 16;
        PR_GET_ENDIAN = 19;
        PR_SET_ENDIAN = 20;
        PR_GET_SECCOMP = 21;
        PR_SET_SECCOMP = 22;
        PR_CAPBSET_READ = 23;
        PR_CAPBSET_DROP = 24;
        PR_GET_TSC = 25;
        PR_SET_TSC = 26;
        PR_GET_SECUREBITS = 27;
        PR_SET_SECUREBITS = 28;
        PR_SET_TIMERSLACK = 29;
        PR_GET_TIMERSLACK = 30;
        PR_TASK_PERF_EVENTS_DISABLE = 31;
        PR_TASK_PERF_EVENTS_ENABLE = 32;
        PR_MCE_KILL = 33;
        PR_MCE_KILL_GET = 34;
        PR_SET_MM = 35;
        PR_SET_CHILD_SUBREAPER = 36;
        PR_GET_CHILD_SUBREAPER = 37;
        PR_SET_NO_NEW_PRIVS = 38;
        PR_GET_NO_NEW_PRIVS = 39;
        PR_GET_TID_ADDRESS = 40;
        PR_SET_THP_DISABLE = 41;
        PR_GET_THP_DISABLE = 42;
        PR_MPX_ENABLE_MANAGEMENT = 43;
        PR_MPX_DISABLE_MANAGEMENT = 44;
        PR_SET_FP_MODE = 45;
        PR_GET_FP_MODE = 46;
        PR_CAP_AMBIENT = 47;
        PR_SVE_SET_VL = 50;
        PR_SVE_GET_VL = 51;
        PR_GET_SPECULATION_CTRL = 52;
        PR_SET_SPECULATION_CTRL = 53;
        PR_PAC_RESET_KEYS = 54;
        PR_SET_TAGGED_ADDR_CTRL = 55;
        PR_GET_TAGGED_ADDR_CTRL = 56;
        PR_SET_IO_FLUSHER = 57;
        PR_GET_IO_FLUSHER = 58;
        PR_SET_SYSCALL_USER_DISPATCH = 59;
        PR_PAC_SET_ENABLED_KEYS = 60;
        PR_PAC_GET_ENABLED_KEYS = 61;
        PR_SCHED_CORE = 62;
        PR_SET_MDWE = 65;
        PR_GET_MDWE = 66;
        PR_SET_MEMORY_MERGE = 67;
        PR_GET_MEMORY_MERGE = 68;
        PR_SET_VMA = 1398164801;
        PR_SET_PTRACER = 1499557217;
    }
}
/// Lets any process trace this one: the argument of [`PR_SET_PTRACER`].
pub const PR_SET_PTRACER_ANY: u64 = u64::MAX;
/// The only sub-command of [`PR_SET_VMA`].
pub const PR_SET_VMA_ANON_NAME: u64 = 0;
/// The size of a thread's name with its NUL.
pub const TASK_COMM_LEN: usize = 16;

constants! {
    /// Sub-commands of [`PR_CAP_AMBIENT`].
    PR_CAP_AMBIENT_NAMES: u64 {
        PR_CAP_AMBIENT_IS_SET = 1;
        PR_CAP_AMBIENT_RAISE = 2;
        PR_CAP_AMBIENT_LOWER = 3;
        PR_CAP_AMBIENT_CLEAR_ALL = 4;
    }
}

constants! {
    /// Sub-commands of [`PR_SET_MM`].
    PR_SET_MM_NAMES: u64 {
        PR_SET_MM_START_CODE = 1;
        PR_SET_MM_END_CODE = 2;
        PR_SET_MM_START_DATA = 3;
        PR_SET_MM_END_DATA = 4;
        PR_SET_MM_START_STACK = 5;
        PR_SET_MM_START_BRK = 6;
        PR_SET_MM_BRK = 7;
        PR_SET_MM_ARG_START = 8;
        PR_SET_MM_ARG_END = 9;
        PR_SET_MM_ENV_START = 10;
        PR_SET_MM_ENV_END = 11;
        PR_SET_MM_AUXV = 12;
        PR_SET_MM_EXE_FILE = 13;
        PR_SET_MM_MAP = 14;
        PR_SET_MM_MAP_SIZE = 15;
    }
}

/// Not dumpable.
pub const SUID_DUMP_DISABLE: u64 = 0;
/// Dumpable by the user.
pub const SUID_DUMP_USER: u64 = 1;
pub const PR_TSC_ENABLE: u64 = 1;
pub const PR_TSC_SIGSEGV: u64 = 2;
pub const PR_MCE_KILL_CLEAR: u64 = 0;
pub const PR_MCE_KILL_SET: u64 = 1;
pub const PR_MCE_KILL_LATE: u64 = 0;
pub const PR_MCE_KILL_EARLY: u64 = 1;
pub const PR_MCE_KILL_DEFAULT: u64 = 2;
pub const PR_SPEC_STORE_BYPASS: u64 = 0;
pub const PR_SPEC_INDIRECT_BRANCH: u64 = 1;
pub const PR_SPEC_L1D_FLUSH: u64 = 2;

flags! {
    /// Bits of `PR_SET_SECUREBITS`.
    pub struct Securebits: u32 as "SECBIT_" {
        NOROOT = 1;
        NOROOT_LOCKED = 2;
        NO_SETUID_FIXUP = 4;
        NO_SETUID_FIXUP_LOCKED = 8;
        KEEP_CAPS = 0x10;
        KEEP_CAPS_LOCKED = 0x20;
        NO_CAP_AMBIENT_RAISE = 0x40;
        NO_CAP_AMBIENT_RAISE_LOCKED = 0x80;
    }
}

constants! {
    /// Options of `arch_prctl(2)`.
    ARCH_PRCTL_NAMES: i32 {
        ARCH_SET_GS = 0x1001;
        ARCH_SET_FS = 0x1002;
        ARCH_GET_FS = 0x1003;
        ARCH_GET_GS = 0x1004;
        ARCH_GET_CPUID = 0x1011;
        ARCH_SET_CPUID = 0x1012;
        ARCH_GET_XCOMP_SUPP = 0x1021;
        ARCH_GET_XCOMP_PERM = 0x1022;
        ARCH_REQ_XCOMP_PERM = 0x1023;
        ARCH_MAP_VDSO_64 = 0x2003;
        ARCH_SHSTK_ENABLE = 0x5001;
        ARCH_SHSTK_DISABLE = 0x5002;
        ARCH_SHSTK_LOCK = 0x5003;
        ARCH_SHSTK_STATUS = 0x5005;
    }
}

constants! {
    /// Operations of `seccomp(2)`.
    SECCOMP_NAMES: u32 {
        SECCOMP_SET_MODE_STRICT = 0;
        SECCOMP_SET_MODE_FILTER = 1;
        SECCOMP_GET_ACTION_AVAIL = 2;
        SECCOMP_GET_NOTIF_SIZES = 3;
    }
}
pub const SECCOMP_MODE_DISABLED: i32 = 0;
pub const SECCOMP_MODE_STRICT: i32 = 1;
pub const SECCOMP_MODE_FILTER: i32 = 2;

flags! {
    /// Flags of `SECCOMP_SET_MODE_FILTER`.
    pub struct SeccompFlags: u32 as "SECCOMP_FILTER_FLAG_" {
        TSYNC = 1;
        LOG = 2;
        SPEC_ALLOW = 4;
        NEW_LISTENER = 8;
        TSYNC_ESRCH = 0x10;
        WAIT_KILLABLE_RECV = 0x20;
    }
}

constants! {
    /// Actions of a filter.
    SECCOMP_RET_NAMES: u32 {
        SECCOMP_RET_KILL_PROCESS = 0x8000_0000;
        SECCOMP_RET_KILL_THREAD = 0;
        SECCOMP_RET_TRAP = 0x0003_0000;
        SECCOMP_RET_ERRNO = 0x0005_0000;
        SECCOMP_RET_USER_NOTIF = 0x7fc0_0000;
        SECCOMP_RET_TRACE = 0x7ff0_0000;
        SECCOMP_RET_LOG = 0x7ffc_0000;
        SECCOMP_RET_ALLOW = 0x7fff_0000;
    }
}
/// The bits of the action.
pub const SECCOMP_RET_ACTION_FULL: u32 = 0xffff_0000;
/// The bits of the action's datum.
pub const SECCOMP_RET_DATA: u32 = 0xffff;
/// `AUDIT_ARCH_X86_64`, the architecture in `struct seccomp_data`.
pub const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// Corresponds to `struct seccomp_data`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SeccompData {
    pub nr: i32,
    pub arch: u32,
    pub instruction_pointer: u64,
    pub args: [u64; 6],
}

/// Corresponds to `struct sock_fprog`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SockFprog {
    pub len: u16,
    pub pad0: [u16; 3],
    pub filter: u64,
}

/// Corresponds to `struct sock_filter`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SockFilter {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

constants! {
    /// Commands of `reboot(2)`.
    REBOOT_NAMES: u32 {
        LINUX_REBOOT_CMD_RESTART = 0x0123_4567;
        LINUX_REBOOT_CMD_HALT = 0xcdef_0123;
        LINUX_REBOOT_CMD_CAD_ON = 0x89ab_cdef;
        LINUX_REBOOT_CMD_CAD_OFF = 0;
        LINUX_REBOOT_CMD_POWER_OFF = 0x4321_fedc;
        LINUX_REBOOT_CMD_RESTART2 = 0xa1b2_c3d4;
        LINUX_REBOOT_CMD_SW_SUSPEND = 0xd000_fce2;
        LINUX_REBOOT_CMD_KEXEC = 0x4558_4543;
    }
}
pub const LINUX_REBOOT_MAGIC1: u32 = 0xfee1_dead;
pub const LINUX_REBOOT_MAGIC2: u32 = 0x2812_1969;
pub const LINUX_REBOOT_MAGIC2A: u32 = 0x0512_1996;
pub const LINUX_REBOOT_MAGIC2B: u32 = 0x1604_1998;
pub const LINUX_REBOOT_MAGIC2C: u32 = 0x2011_2000;

/// The first argument of `membarrier(2)`.
pub const MEMBARRIER_CMD_QUERY: i32 = 0;
flags! {
    /// Commands of `membarrier(2)`, of which one is given.
    pub struct MembarrierCmd: u32 as "MEMBARRIER_CMD_" {
        GLOBAL = 1;
        GLOBAL_EXPEDITED = 2;
        REGISTER_GLOBAL_EXPEDITED = 4;
        PRIVATE_EXPEDITED = 8;
        REGISTER_PRIVATE_EXPEDITED = 0x10;
        PRIVATE_EXPEDITED_SYNC_CORE = 0x20;
        REGISTER_PRIVATE_EXPEDITED_SYNC_CORE = 0x40;
        PRIVATE_EXPEDITED_RSEQ = 0x80;
        REGISTER_PRIVATE_EXPEDITED_RSEQ = 0x100;
        GET_REGISTRATIONS = 0x200;
    }
}

constants! {
    /// What `kcmp(2)` compares.
    KCMP_NAMES: i32 {
        KCMP_FILE = 0;
        KCMP_VM = 1;
        KCMP_FILES = 2;
        KCMP_FS = 3;
        KCMP_SIGHAND = 4;
        KCMP_IO = 5;
        KCMP_SYSVSEM = 6;
        KCMP_EPOLL_TFD = 7;
    }
}

/// Corresponds to `struct seccomp_notif`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SeccompNotif {
    pub id: u64,
    pub pid: u32,
    pub flags: u32,
    pub data: SeccompData,
}

/// Corresponds to `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SeccompNotifResp {
    pub id: u64,
    pub val: i64,
    pub error: i32,
    pub flags: u32,
}

/// Corresponds to `struct seccomp_notif_sizes`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SeccompNotifSizes {
    pub seccomp_notif: u16,
    pub seccomp_notif_resp: u16,
    pub seccomp_data: u16,
}

/// Corresponds to `struct seccomp_notif_addfd`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SeccompNotifAddfd {
    pub id: u64,
    pub flags: u32,
    pub srcfd: u32,
    pub newfd: u32,
    pub newfd_flags: u32,
}

/// A flag of `seccomp_notif_resp`: the call is served.
pub const SECCOMP_USER_NOTIF_FLAG_CONTINUE: u32 = 1;
/// A flag of a listener: whoever waits is woken on the sender's CPU.
pub const SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: u64 = 1;

flags! {
    /// Flags of `seccomp_notif_addfd`.
    pub struct SeccompAddfdFlags: u32 as "SECCOMP_ADDFD_FLAG_" {
        SETFD = 1;
        SEND = 2;
    }
}
