//! `<linux/landlock.h>` and `<linux/lsm.h>`.
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flags! {
    /// What a Landlock ruleset handles and its rules allow of files.
    pub struct AccessFs: u64 as "LANDLOCK_ACCESS_FS_" {
        EXECUTE = 1;
        WRITE_FILE = 2;
        READ_FILE = 4;
        READ_DIR = 8;
        REMOVE_DIR = 0x10;
        REMOVE_FILE = 0x20;
        MAKE_CHAR = 0x40;
        MAKE_DIR = 0x80;
        MAKE_REG = 0x100;
        MAKE_SOCK = 0x200;
        MAKE_FIFO = 0x400;
        MAKE_BLOCK = 0x800;
        MAKE_SYM = 0x1000;
        REFER = 0x2000;
        TRUNCATE = 0x4000;
        IOCTL_DEV = 0x8000;
    }
}

flags! {
    /// What a Landlock ruleset handles and its rules allow of ports.
    pub struct AccessNet: u64 as "LANDLOCK_ACCESS_NET_" {
        BIND_TCP = 1;
        CONNECT_TCP = 2;
    }
}

flags! {
    /// What a Landlock domain keeps its processes from reaching outside.
    pub struct Scopes: u64 as "LANDLOCK_SCOPE_" {
        ABSTRACT_UNIX_SOCKET = 1;
        SIGNAL = 2;
    }
}

constants! {
    /// The flag of `landlock_create_ruleset(2)`.
    LANDLOCK_FLAG_NAMES: u32 {
        LANDLOCK_CREATE_RULESET_VERSION = 1;
    }
}

constants! {
    /// Kinds of rules.
    LANDLOCK_RULE_NAMES: i32 {
        LANDLOCK_RULE_PATH_BENEATH = 1;
        LANDLOCK_RULE_NET_PORT = 2;
    }
}

constants! {
    /// Security modules.
    LSM_ID_NAMES: u64 {
        LSM_ID_CAPABILITY = 100;
        LSM_ID_LANDLOCK = 110;
    }
}

/// The interface of Linux 6.12.
pub const LANDLOCK_ABI: u64 = 6;

/// The size of the first version of [`RulesetAttr`].
pub const RULESET_ATTR_SIZE_VER0: usize = 8;

/// Corresponds to `struct landlock_ruleset_attr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct RulesetAttr {
    pub handled_access_fs: u64,
    pub handled_access_net: u64,
    pub scoped: u64,
}

/// Corresponds to `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PathBeneathAttr {
    pub allowed_access: u64,
    pub parent_fd: i32,
}

/// Corresponds to `struct landlock_net_port_attr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct NetPortAttr {
    pub allowed_access: u64,
    pub port: u64,
}
