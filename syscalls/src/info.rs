//! What the table says about a system call: [`SyscallInfo`] and the kinds of its arguments.
//!
//! Plain constant data: dispatch, the stub's marshalling, the strace log and the documentation
//! read it; nothing here acts.

use core::fmt;

use crate::abi::{
    Name, NamedFlags, capability, clone, fs, futex, ioctl, ipc, mm, mount, poll, resource, sched,
    signal, socket, time, uts,
};

/// How far a call is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// As Linux does it.
    Full,
    /// With the limits that the note names.
    Partial,
    /// Not at all: the call fails, with `ENOSYS` unless Linux has another error for a kernel
    /// that was built without it.
    Unsupported,
}

impl Support {
    /// Returns the word for the documentation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct SyscallInfo {
    /// The number on this architecture.
    pub number: u64,
    /// The name of the kernel's entry point.
    pub name: &'static str,
    /// The arguments, in order.
    pub args: &'static [Arg],
    /// What a successful call returns.
    pub returns: Returns,
    /// How far the call is served.
    pub support: Support,
    /// The family that the documentation lists it under.
    pub family: &'static str,
    /// What is missing, or why the call is not served; often empty.
    pub note: &'static str,
}

/// One argument of a call.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// The name that the man page gives it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
}

/// What a successful call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// A number, printed in decimal.
    Int,
    /// An address.
    Addr,
    /// Permission bits.
    Mode,
}

/// What an argument is. A `u8` is the index of the argument that holds a length or a count.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A file descriptor.
    Fd,
    /// A descriptor of a directory, or `AT_FDCWD`.
    DirFd,
    /// A signed 32-bit number.
    Int,
    /// An unsigned 32-bit number.
    UInt,
    /// A signed 64-bit number.
    Long,
    /// An unsigned 64-bit number.
    ULong,
    /// A number of bytes.
    Size,
    /// A 64-bit word best read in hexadecimal.
    Hex,
    /// A 32-bit word best read in hexadecimal.
    Hex32,
    /// Permission bits, with a file type for `mknod(2)`.
    Mode,
    /// The mode of `access(2)`.
    Access,
    /// A signal number.
    Signal,
    /// An address whose target the table does not describe.
    Ptr,
    /// The address of a string that the call reads.
    InStr,
    /// The address of a string that the call writes.
    OutStr,
    /// The address of an array of addresses of strings, ended by a null address.
    StrArray,
    /// The address of bytes that the call reads.
    InBuf(u8),
    /// The address of bytes that the call writes; its return value says how many.
    OutBuf(u8),
    /// The address of a structure that the call reads.
    InStruct(Struct),
    /// The address of a structure that the call writes.
    OutStruct(Struct),
    /// The address of a structure that the call reads and writes.
    InOutStruct(Struct),
    /// The address of structures that the call reads.
    InArray(Struct, u8),
    /// The address of structures that the call writes; its return value says how many.
    OutArray(Struct, u8),
    /// The address of structures that the call reads and writes.
    InOutArray(Struct, u8),
    /// The address of a structure that the call reads; its size in bytes is an argument.
    InSized(Struct, u8),
    /// The address of a structure that the call writes; an argument points to its size.
    OutSized(Struct, u8),
    /// The address of an I/O vector over data that the call reads.
    InIovec(u8),
    /// The address of an I/O vector over data that the call writes.
    OutIovec(u8),
    /// The address of an `fd_set`, read and written; an argument says how many bits.
    FdSet(u8),
    /// A word of flags.
    Flags(FlagSet),
    /// A word of flags that also holds a number.
    Mixed(&'static Mixed),
    /// One of some constants.
    Enum(&'static [Name]),
    /// The name of a socket option; its level is the argument before.
    SockOpt,
    /// The argument of the `fcntl(2)` command at an index.
    Fcntl(u8),
    /// The argument of the `ioctl(2)` request at an index.
    Ioctl(u8),
    /// The second argument of the `prctl(2)` option at an index.
    Prctl(u8),
    /// The fourth argument of the `futex(2)` command at an index: a time or a number.
    FutexTimeout(u8),
}

/// The names of the flags of a word.
#[derive(Clone, Copy, Debug)]
pub struct FlagSet {
    /// What comes before each name.
    pub prefix: &'static str,
    /// The names.
    pub names: &'static [Name],
}

impl FlagSet {
    /// Returns the names of a type of flags.
    pub const fn of<F: NamedFlags>() -> Self {
        Self { prefix: F::PREFIX, names: F::NAMES }
    }
}

/// The names of a word that holds a number and flags.
#[derive(Clone, Copy, Debug)]
pub struct Mixed {
    /// The bits of the number.
    pub mask: u64,
    /// The names of the number's values.
    pub values: &'static [Name],
    /// The flags in the other bits.
    pub flags: FlagSet,
}

/// `open(2)`: the access mode and flags.
pub const OPEN: &Mixed = &Mixed {
    mask: 3,
    values: &[("O_RDONLY", 0), ("O_WRONLY", 1), ("O_RDWR", 2)],
    flags: FlagSet::of::<fs::OpenFlags>(),
};

/// `mmap(2)`: the type and flags.
pub const MAP: &Mixed = &Mixed {
    mask: 0xf,
    values: &[("MAP_SHARED", 1), ("MAP_PRIVATE", 2), ("MAP_SHARED_VALIDATE", 3)],
    flags: FlagSet::of::<mm::MapFlags>(),
};

/// `clone(2)`: the exit signal and flags.
pub const CLONE: &Mixed =
    &Mixed { mask: 0xff, values: signal::SIGNAL_NAMES, flags: FlagSet::of::<clone::CloneFlags>() };

/// `futex(2)`: the command and flags.
pub const FUTEX: &Mixed =
    &Mixed { mask: 0x7f, values: futex::FUTEX_OP_NAMES, flags: FlagSet::of::<futex::FutexFlags>() };

/// `socket(2)`: the type and flags.
pub const SOCKET: &Mixed = &Mixed {
    mask: 0xf,
    values: socket::SOCK_TYPE_NAMES,
    flags: FlagSet::of::<socket::SockFlags>(),
};

macro_rules! structs {
    ($($name:ident = $ty:ty, $doc:literal;)*) => {
        /// A structure or a number in guest memory.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Struct {
            $(#[doc = $doc] $name,)*
        }

        impl Struct {
            /// Returns the size in bytes.
            pub const fn size(self) -> usize {
                match self { $(Self::$name => size_of::<$ty>(),)* }
            }
        }
    };
}

structs! {
    Bytes = u8, "Bytes without a structure.";
    Cachestat = mm::Cachestat, "`struct cachestat`";
    CachestatRange = mm::CachestatRange, "`struct cachestat_range`";
    CapUserData = [capability::CapUserData; 2], "Two `struct __user_cap_data_struct`";
    CapUserHeader = capability::CapUserHeader, "`struct __user_cap_header_struct`";
    CloneArgs = clone::CloneArgs, "`struct clone_args`";
    EpollEvent = poll::EpollEvent, "`struct epoll_event`";
    Flock = fs::Flock, "`struct flock`";
    FileHandle = fs::FileHandle, "`struct file_handle`";
    FutexWaitv = futex::FutexWaitv, "`struct futex_waitv`";
    FutexWaitvPair = [futex::FutexWaitv; 2], "Two `struct futex_waitv`";
    Int = i32, "`int`";
    IntPair = [i32; 2], "`int[2]`";
    Iovec = socket::Iovec, "`struct iovec`";
    Itimerspec = time::Itimerspec, "`struct itimerspec`";
    Itimerval = time::Itimerval, "`struct itimerval`";
    Long = i64, "`long`";
    Mmsghdr = socket::Mmsghdr, "`struct mmsghdr`";
    MountAttr = mount::MountAttr, "`struct mount_attr`";
    MqAttr = ipc::MqAttr, "`struct mq_attr`";
    Msghdr = socket::Msghdr, "`struct msghdr`";
    OptVal = u8, "The value of a socket option, of any length.";
    OpenHow = fs::OpenHow, "`struct open_how`";
    Pointer = u64, "An address.";
    Pollfd = poll::Pollfd, "`struct pollfd`";
    Rlimit = resource::Rlimit, "`struct rlimit`";
    Rusage = resource::Rusage, "`struct rusage`";
    SchedAttr = sched::SchedAttr, "`struct sched_attr`";
    SchedParam = sched::SchedParam, "`struct sched_param`";
    Sembuf = ipc::Sembuf, "`struct sembuf`";
    Sigaction = signal::Sigaction, "`struct sigaction`";
    Sigevent = signal::Sigevent, "`struct sigevent`";
    Siginfo = signal::Siginfo, "`siginfo_t`";
    SigSet = signal::SigSet, "`sigset_t`";
    SigsetArgpack = signal::SigsetArgpack, "The sixth argument of `pselect6(2)`.";
    Sockaddr = u8, "`struct sockaddr`, of any length.";
    Stackt = signal::Stackt, "`stack_t`";
    Stat = fs::Stat, "`struct stat`";
    Statfs = fs::Statfs, "`struct statfs`";
    Statx = fs::Statx, "`struct statx`";
    Sysinfo = uts::Sysinfo, "`struct sysinfo`";
    Timespec = time::Timespec, "`struct timespec`";
    Termios = ioctl::Termios, "`struct termios`";
    TimespecPair = [time::Timespec; 2], "`struct timespec[2]`";
    Timeval = time::Timeval, "`struct timeval`";
    TimevalPair = [time::Timeval; 2], "`struct timeval[2]`";
    Timex = time::Timex, "`struct timex`";
    Timezone = time::Timezone, "`struct timezone`";
    Tms = time::Tms, "`struct tms`";
    UInt = u32, "`unsigned int`";
    Utimbuf = fs::Utimbuf, "`struct utimbuf`";
    Utsname = uts::Utsname, "`struct utsname`";
    Winsize = ioctl::Winsize, "`struct winsize`";
    WaitStatus = i32, "The status of `wait4(2)`.";
}
