//! Signals: numbers, actions, `siginfo_t` (`asm/signal.h`, `asm-generic/siginfo.h`). The frame that
//! a handler runs on is in [`crate::arch::x86_64::sigframe`].
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

constants! {
    /// Signal numbers.
    SIGNAL_NAMES: i32 {
        SIGHUP = 1;
        SIGINT = 2;
        SIGQUIT = 3;
        SIGILL = 4;
        SIGTRAP = 5;
        SIGABRT = 6;
        SIGBUS = 7;
        SIGFPE = 8;
        SIGKILL = 9;
        SIGUSR1 = 10;
        SIGSEGV = 11;
        SIGUSR2 = 12;
        SIGPIPE = 13;
        SIGALRM = 14;
        SIGTERM = 15;
        SIGSTKFLT = 16;
        SIGCHLD = 17;
        SIGCONT = 18;
        SIGSTOP = 19;
        SIGTSTP = 20;
        SIGTTIN = 21;
        SIGTTOU = 22;
        SIGURG = 23;
        SIGXCPU = 24;
        SIGXFSZ = 25;
        SIGVTALRM = 26;
        SIGPROF = 27;
        SIGWINCH = 28;
        SIGIO = 29;
        SIGPWR = 30;
        SIGSYS = 31;
    }
}
/// The first real-time signal, as the kernel counts (libc keeps a few for itself).
pub const SIGRTMIN: i32 = 32;
/// The last signal.
pub const SIGRTMAX: i32 = 64;
/// How many signals there are; numbers start at one.
pub const NSIG: usize = 64;

flags! {
    /// Flags of `rt_sigaction(2)`.
    pub struct SaFlags: u64 as "SA_" {
        NOCLDSTOP = 1;
        NOCLDWAIT = 2;
        SIGINFO = 4;
        UNSUPPORTED = 0x400;
        EXPOSE_TAGBITS = 0x800;
        RESTORER = 0x0400_0000;
        ONSTACK = 0x0800_0000;
        RESTART = 0x1000_0000;
        NODEFER = 0x4000_0000;
        RESETHAND = 0x8000_0000;
    }
}

/// The default action as a handler address.
pub const SIG_DFL: u64 = 0;
/// Ignoring as a handler address.
pub const SIG_IGN: u64 = 1;

constants! {
    /// How `rt_sigprocmask(2)` changes the mask.
    SIGPROCMASK_NAMES: i32 {
        SIG_BLOCK = 0;
        SIG_UNBLOCK = 1;
        SIG_SETMASK = 2;
    }
}

flags! {
    /// Flags of `sigaltstack(2)`.
    pub struct SsFlags: u32 as "SS_" {
        ONSTACK = 1;
        DISABLE = 2;
        AUTODISARM = 0x8000_0000;
    }
}
/// The smallest alternate stack that `sigaltstack(2)` has always accepted.
pub const MINSIGSTKSZ: u64 = 2048;

flags! {
    /// Flags of `signalfd4(2)`.
    pub struct SignalfdFlags: u32 as "SFD_" {
        NONBLOCK = 0o4000;
        CLOEXEC = 0o2000000;
    }
}

flags! {
    /// Flags of `pidfd_open(2)`.
    pub struct PidfdFlags: u32 as "PIDFD_" {
        NONBLOCK = 0x800;
        THREAD = 0x80;
    }
}

/// The request `PIDFD_GET_INFO` without the size of its structure.
pub const PIDFD_GET_INFO: u32 = 0xc000_ff0b;

/// The bits of a request that are not the size of its structure.
pub const IOC_WITHOUT_SIZE: u32 = 0xc000_ffff;

flags! {
    /// What `PIDFD_GET_INFO` is asked for, and tells.
    pub struct PidfdInfoMask: u64 as "PIDFD_INFO_" {
        PID = 1;
        CREDS = 2;
        CGROUPID = 4;
        EXIT = 8;
    }
}

/// Corresponds to the first version of `struct pidfd_info`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct PidfdInfo {
    pub mask: u64,
    pub cgroupid: u64,
    pub pid: u32,
    pub tgid: u32,
    pub ppid: u32,
    pub ruid: u32,
    pub rgid: u32,
    pub euid: u32,
    pub egid: u32,
    pub suid: u32,
    pub sgid: u32,
    pub fsuid: u32,
    pub fsgid: u32,
    pub exit_code: i32,
}

flags! {
    /// Flags of `pidfd_send_signal(2)`.
    pub struct PidfdSignalFlags: u32 as "PIDFD_SIGNAL_" {
        THREAD = 1;
        THREAD_GROUP = 2;
        PROCESS_GROUP = 4;
    }
}

/// A set of signals: bit n-1 stands for signal n.
#[repr(transparent)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Every signal.
    pub const FULL: Self = Self(u64::MAX);
    /// The signals that can be neither blocked, ignored nor caught.
    pub const UNBLOCKABLE: Self = Self::of(SIGKILL).union(Self::of(SIGSTOP));

    /// Returns the set of one signal; empty for a number that is none.
    pub const fn of(signo: i32) -> Self {
        if signo >= 1 && signo <= SIGRTMAX { Self(1 << (signo - 1)) } else { Self(0) }
    }

    /// Returns whether the set holds a signal.
    pub const fn contains(self, signo: i32) -> bool {
        self.0 & Self::of(signo).0 != 0
    }

    /// Returns what is in either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns what is in both sets.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns what is in this set and not in the other.
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns the signals that are not in the set.
    pub const fn complement(self) -> Self {
        Self(!self.0)
    }

    /// Returns whether the set holds no signal.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds a signal.
    pub const fn insert(&mut self, signo: i32) {
        self.0 |= Self::of(signo).0;
    }

    /// Removes a signal.
    pub const fn remove(&mut self, signo: i32) {
        self.0 &= !Self::of(signo).0;
    }

    /// Returns the lowest signal of the set.
    pub const fn first(self) -> Option<i32> {
        if self.0 == 0 { None } else { Some(self.0.trailing_zeros().cast_signed() + 1) }
    }

    /// Iterates over the signals of the set, lowest first.
    pub fn iter(self) -> impl Iterator<Item = i32> {
        (1..=SIGRTMAX).filter(move |&signo| self.contains(signo))
    }
}

/// Corresponds to the kernel's `struct sigaction`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Sigaction {
    pub handler: u64,
    pub flags: u64,
    pub restorer: u64,
    pub mask: SigSet,
}

/// Corresponds to `stack_t`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Stackt {
    pub ss_sp: u64,
    pub ss_flags: u32,
    pub pad0: u32,
    pub ss_size: u64,
}

constants! {
    /// Values of `si_code` that any signal can have.
    SI_CODE_NAMES: i32 {
        SI_USER = 0;
        SI_KERNEL = 128;
        SI_QUEUE = -1;
        SI_TIMER = -2;
        SI_MESGQ = -3;
        SI_ASYNCIO = -4;
        SI_SIGIO = -5;
        SI_TKILL = -6;
        SI_DETHREAD = -7;
        SI_ASYNCNL = -60;
    }
}
constants! {
    /// Values of `si_code` of SIGCHLD.
    CLD_NAMES: i32 {
        CLD_EXITED = 1;
        CLD_KILLED = 2;
        CLD_DUMPED = 3;
        CLD_TRAPPED = 4;
        CLD_STOPPED = 5;
        CLD_CONTINUED = 6;
    }
}
constants! {
    /// Values of `si_code` of SIGSEGV.
    SEGV_NAMES: i32 {
        SEGV_MAPERR = 1;
        SEGV_ACCERR = 2;
        SEGV_BNDERR = 3;
        SEGV_PKUERR = 4;
        SEGV_CPERR = 10;
    }
}
constants! {
    /// Values of `si_code` of SIGBUS.
    BUS_NAMES: i32 {
        BUS_ADRALN = 1;
        BUS_ADRERR = 2;
        BUS_OBJERR = 3;
        BUS_MCEERR_AR = 4;
        BUS_MCEERR_AO = 5;
    }
}
constants! {
    /// Values of `si_code` of SIGFPE.
    FPE_NAMES: i32 {
        FPE_INTDIV = 1;
        FPE_INTOVF = 2;
        FPE_FLTDIV = 3;
        FPE_FLTOVF = 4;
        FPE_FLTUND = 5;
        FPE_FLTRES = 6;
        FPE_FLTINV = 7;
        FPE_FLTSUB = 8;
    }
}
constants! {
    /// Values of `si_code` of SIGILL.
    ILL_NAMES: i32 {
        ILL_ILLOPC = 1;
        ILL_ILLOPN = 2;
        ILL_ILLADR = 3;
        ILL_ILLTRP = 4;
        ILL_PRVOPC = 5;
        ILL_PRVREG = 6;
        ILL_COPROC = 7;
        ILL_BADSTK = 8;
    }
}
constants! {
    /// Values of `si_code` of SIGTRAP.
    TRAP_NAMES: i32 {
        TRAP_BRKPT = 1;
        TRAP_TRACE = 2;
        TRAP_BRANCH = 3;
        TRAP_HWBKPT = 4;
        TRAP_UNK = 5;
        TRAP_PERF = 6;
    }
}
constants! {
    /// Values of `si_code` of SIGIO.
    POLL_CODE_NAMES: i32 {
        POLL_IN = 1;
        POLL_OUT = 2;
        POLL_MSG = 3;
        POLL_ERR = 4;
        POLL_PRI = 5;
        POLL_HUP = 6;
    }
}
/// `si_code` of SIGSYS from a seccomp filter.
pub const SYS_SECCOMP: i32 = 1;

/// Corresponds to `siginfo_t`: 128 bytes, of which the fields after the code form a union.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Siginfo {
    pub si_signo: i32,
    pub si_errno: i32,
    pub si_code: i32,
    pub pad0: u32,
    /// The union, as 64-bit words.
    pub fields: [u64; 14],
}

impl Default for Siginfo {
    fn default() -> Self {
        Self::new(0, 0)
    }
}

/// Packs two 32-bit fields that follow each other.
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

impl Siginfo {
    /// Creates a record whose union is zero.
    pub const fn new(signo: i32, code: i32) -> Self {
        Self { si_signo: signo, si_errno: 0, si_code: code, pad0: 0, fields: [0; 14] }
    }

    /// Creates the record of `kill(2)` (`SI_USER`) or `tgkill(2)` (`SI_TKILL`).
    pub const fn kill(signo: i32, code: i32, pid: i32, uid: u32) -> Self {
        let mut info = Self::new(signo, code);
        info.fields[0] = pair(pid.cast_unsigned(), uid);
        info
    }

    /// Creates the record of `sigqueue(3)` and of message queues.
    pub const fn queue(signo: i32, code: i32, pid: i32, uid: u32, value: u64) -> Self {
        let mut info = Self::kill(signo, code, pid, uid);
        info.fields[1] = value;
        info
    }

    /// Creates the record of a child's change of state; `status` is the exit code or the signal,
    /// times are in units of [`super::time::CLK_TCK`].
    pub const fn child(code: i32, pid: i32, uid: u32, status: i32, utime: i64, stime: i64) -> Self {
        let mut info = Self::kill(SIGCHLD, code, pid, uid);
        info.fields[1] = pair(status.cast_unsigned(), 0);
        info.fields[2] = utime.cast_unsigned();
        info.fields[3] = stime.cast_unsigned();
        info
    }

    /// Creates the record of a synchronous exception at an address.
    pub const fn fault(signo: i32, code: i32, addr: u64) -> Self {
        let mut info = Self::new(signo, code);
        info.fields[0] = addr;
        info
    }

    /// Creates the record of an expired POSIX timer.
    pub const fn timer(signo: i32, timer_id: i32, overrun: i32, value: u64) -> Self {
        let mut info = Self::new(signo, SI_TIMER);
        info.fields[0] = pair(timer_id.cast_unsigned(), overrun.cast_unsigned());
        info.fields[1] = value;
        info
    }

    /// Creates the record of readiness of a descriptor (SIGIO).
    pub const fn poll(signo: i32, code: i32, band: i64, fd: i32) -> Self {
        let mut info = Self::new(signo, code);
        info.fields[0] = band.cast_unsigned();
        info.fields[1] = pair(fd.cast_unsigned(), 0);
        info
    }

    /// Creates the record of a call that a seccomp filter trapped.
    pub const fn seccomp(errno: i32, call_addr: u64, nr: i32, arch: u32) -> Self {
        let mut info = Self::new(SIGSYS, SYS_SECCOMP);
        info.si_errno = errno;
        info.fields[0] = call_addr;
        info.fields[1] = pair(nr.cast_unsigned(), arch);
        info
    }

    /// Returns `si_pid`.
    pub fn pid(&self) -> i32 {
        low(self.fields[0])
    }

    /// Returns `si_uid`.
    pub fn uid(&self) -> u32 {
        high(self.fields[0]).cast_unsigned()
    }

    /// Replaces `si_pid` and `si_uid`.
    pub fn set_sender(&mut self, pid: i32, uid: u32) {
        self.fields[0] = pair(pid.cast_unsigned(), uid);
    }

    /// Returns `si_value` of a queued signal or a timer.
    pub fn value(&self) -> u64 {
        self.fields[1]
    }

    /// Returns `si_status` of a child.
    pub fn status(&self) -> i32 {
        low(self.fields[1])
    }

    /// Returns `si_addr`.
    pub fn addr(&self) -> u64 {
        self.fields[0]
    }

    /// Returns `si_tid` of a timer.
    pub fn timer_id(&self) -> i32 {
        low(self.fields[0])
    }

    /// Returns `si_overrun` of a timer.
    pub fn overrun(&self) -> i32 {
        high(self.fields[0])
    }

    /// Replaces `si_overrun` of a timer.
    pub fn set_overrun(&mut self, overrun: i32) {
        self.fields[0] = pair(self.timer_id().cast_unsigned(), overrun.cast_unsigned());
    }

    /// Returns `si_fd` of SIGIO.
    pub fn fd(&self) -> i32 {
        low(self.fields[1])
    }
}

/// Returns the low half as a signed number.
fn low(word: u64) -> i32 {
    crate::arg::FromArg::from_arg(word)
}

/// Returns the high half as a signed number.
fn high(word: u64) -> i32 {
    crate::arg::FromArg::from_arg(word >> 32)
}

constants! {
    /// Values of `sigev_notify`.
    SIGEV_NAMES: i32 {
        SIGEV_SIGNAL = 0;
        SIGEV_NONE = 1;
        SIGEV_THREAD = 2;
        SIGEV_THREAD_ID = 4;
    }
}

/// Corresponds to `struct sigevent`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Sigevent {
    pub sigev_value: u64,
    pub sigev_signo: i32,
    pub sigev_notify: i32,
    /// The thread of `SIGEV_THREAD_ID`.
    pub sigev_tid: i32,
    pub pad0: [u32; 11],
}

/// Corresponds to `struct signalfd_siginfo`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SignalfdSiginfo {
    pub ssi_signo: u32,
    pub ssi_errno: i32,
    pub ssi_code: i32,
    pub ssi_pid: u32,
    pub ssi_uid: u32,
    pub ssi_fd: i32,
    pub ssi_tid: u32,
    pub ssi_band: u32,
    pub ssi_overrun: u32,
    pub ssi_trapno: u32,
    pub ssi_status: i32,
    pub ssi_int: i32,
    pub ssi_ptr: u64,
    pub ssi_utime: u64,
    pub ssi_stime: u64,
    pub ssi_addr: u64,
    pub ssi_addr_lsb: u16,
    pub pad0: u16,
    pub ssi_syscall: i32,
    pub ssi_call_addr: u64,
    pub ssi_arch: u32,
    pub pad1: [u8; 28],
}

/// The argument of `pselect6(2)` that carries the mask, and of `io_pgetevents(2)`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SigsetArgpack {
    pub set: u64,
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::{SIGKILL, SIGRTMAX, SigSet, Siginfo};

    #[test]
    fn set_holds_what_was_inserted() {
        let mut set = SigSet::EMPTY;
        set.insert(1);
        set.insert(SIGRTMAX);
        set.insert(0);
        set.insert(65);
        assert!(set.iter().eq([1, 64]));
        set.remove(1);
        assert_eq!(set.first(), Some(64));
        assert!(SigSet::UNBLOCKABLE.contains(SIGKILL));
    }

    #[test]
    fn child_record_gives_back_its_fields() {
        let info = Siginfo::child(1, -5, 7, -3, 11, 12);
        assert_eq!((info.pid(), info.uid(), info.status()), (-5, 7, -3));
    }
}
