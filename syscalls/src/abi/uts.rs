//! `uname(2)`, `sysinfo(2)`, `syslog(2)`, `ustat(2)` (`linux/utsname.h`, `linux/sysinfo.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The length of a field of [`Utsname`] without its NUL: `__NEW_UTS_LEN`.
pub const UTS_LEN: usize = 64;

/// Corresponds to `struct new_utsname`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Utsname {
    pub sysname: [u8; 65],
    pub nodename: [u8; 65],
    pub release: [u8; 65],
    pub version: [u8; 65],
    pub machine: [u8; 65],
    pub domainname: [u8; 65],
}

impl Default for Utsname {
    fn default() -> Self {
        let empty = [0; 65];
        Self {
            sysname: empty,
            nodename: empty,
            release: empty,
            version: empty,
            machine: empty,
            domainname: empty,
        }
    }
}

/// Returns a string as a field of [`Utsname`], cut to its length.
pub fn utsname_field(text: &str) -> [u8; 65] {
    let mut field = [0; 65];
    for (to, from) in field.iter_mut().zip(text.bytes().take(UTS_LEN)) {
        *to = from;
    }
    field
}

/// Corresponds to `struct sysinfo`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Sysinfo {
    pub uptime: i64,
    pub loads: [u64; 3],
    pub totalram: u64,
    pub freeram: u64,
    pub sharedram: u64,
    pub bufferram: u64,
    pub totalswap: u64,
    pub freeswap: u64,
    pub procs: u16,
    pub pad0: u16,
    pub pad1: u32,
    pub totalhigh: u64,
    pub freehigh: u64,
    pub mem_unit: u32,
    pub pad2: u32,
}

/// Corresponds to `struct getcpu_cache`, which the kernel ignores.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct GetcpuCache {
    pub blob: [u64; 16],
}

constants! {
    /// Actions of `syslog(2)`.
    SYSLOG_NAMES: i32 {
        SYSLOG_ACTION_CLOSE = 0;
        SYSLOG_ACTION_OPEN = 1;
        SYSLOG_ACTION_READ = 2;
        SYSLOG_ACTION_READ_ALL = 3;
        SYSLOG_ACTION_READ_CLEAR = 4;
        SYSLOG_ACTION_CLEAR = 5;
        SYSLOG_ACTION_CONSOLE_OFF = 6;
        SYSLOG_ACTION_CONSOLE_ON = 7;
        SYSLOG_ACTION_CONSOLE_LEVEL = 8;
        SYSLOG_ACTION_SIZE_UNREAD = 9;
        SYSLOG_ACTION_SIZE_BUFFER = 10;
    }
}

constants! {
    /// Personalities and their flags.
    PERSONALITY_NAMES: u32 {
        PER_LINUX = 0;
        PER_LINUX32 = 8;
        UNAME26 = 0x0002_0000;
        ADDR_NO_RANDOMIZE = 0x0004_0000;
        FDPIC_FUNCPTRS = 0x0008_0000;
        MMAP_PAGE_ZERO = 0x0010_0000;
        ADDR_COMPAT_LAYOUT = 0x0020_0000;
        READ_IMPLIES_EXEC = 0x0040_0000;
        ADDR_LIMIT_32BIT = 0x0080_0000;
        SHORT_INODE = 0x0100_0000;
        WHOLE_SECONDS = 0x0200_0000;
        STICKY_TIMEOUTS = 0x0400_0000;
        ADDR_LIMIT_3GB = 0x0800_0000;
    }
}
