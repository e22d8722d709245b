//! Mounts: flags of `mount(2)`, `umount2(2)`, the mount API of descriptors, `f_flags`, and the magic
//! numbers of file systems (`linux/mount.h`, `linux/magic.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flags! {
    /// Flags of `mount(2)`.
    pub struct MountFlags: u64 as "MS_" {
        RDONLY = 1;
        NOSUID = 2;
        NODEV = 4;
        NOEXEC = 8;
        SYNCHRONOUS = 0x10;
        REMOUNT = 0x20;
        MANDLOCK = 0x40;
        DIRSYNC = 0x80;
        NOSYMFOLLOW = 0x100;
        NOATIME = 0x400;
        NODIRATIME = 0x800;
        BIND = 0x1000;
        MOVE = 0x2000;
        REC = 0x4000;
        SILENT = 0x8000;
        POSIXACL = 0x0001_0000;
        UNBINDABLE = 0x0002_0000;
        PRIVATE = 0x0004_0000;
        SLAVE = 0x0008_0000;
        SHARED = 0x0010_0000;
        RELATIME = 0x0020_0000;
        I_VERSION = 0x0080_0000;
        STRICTATIME = 0x0100_0000;
        LAZYTIME = 0x0200_0000;
    }
}
/// The upper half that very old programs set.
pub const MS_MGC_VAL: u64 = 0xc0ed_0000;
/// The mask of [`MS_MGC_VAL`].
pub const MS_MGC_MSK: u64 = 0xffff_0000;

flags! {
    /// Flags of `umount2(2)`.
    pub struct UmountFlags: u32 as "" {
        MNT_FORCE = 1;
        MNT_DETACH = 2;
        MNT_EXPIRE = 4;
        UMOUNT_NOFOLLOW = 8;
    }
}

flags! {
    /// Flags in `f_flags` of `struct statfs`.
    pub struct StFlags: u64 as "ST_" {
        RDONLY = 1;
        NOSUID = 2;
        NODEV = 4;
        NOEXEC = 8;
        SYNCHRONOUS = 0x10;
        VALID = 0x20;
        MANDLOCK = 0x40;
        NOATIME = 0x400;
        NODIRATIME = 0x800;
        RELATIME = 0x1000;
        NOSYMFOLLOW = 0x2000;
    }
}

flags! {
    /// Flags of `open_tree(2)` beyond those of `AtFlags`.
    pub struct OpenTreeFlags: u32 as "" {
        OPEN_TREE_CLONE = 1;
        OPEN_TREE_CLOEXEC = 0x0008_0000;
    }
}

flags! {
    /// Flags of `move_mount(2)`.
    pub struct MoveMountFlags: u32 as "MOVE_MOUNT_" {
        F_SYMLINKS = 1;
        F_AUTOMOUNTS = 2;
        F_EMPTY_PATH = 4;
        T_SYMLINKS = 0x10;
        T_AUTOMOUNTS = 0x20;
        T_EMPTY_PATH = 0x40;
        SET_GROUP = 0x100;
        BENEATH = 0x200;
    }
}

flags! {
    /// Bits of `struct mount_attr` and of `fsmount(2)`.
    pub struct MountAttrFlags: u64 as "MOUNT_ATTR_" {
        RDONLY = 1;
        NOSUID = 2;
        NODEV = 4;
        NOEXEC = 8;
        NOATIME = 0x10;
        STRICTATIME = 0x20;
        NODIRATIME = 0x80;
        IDMAP = 0x0010_0000;
        NOSYMFOLLOW = 0x0020_0000;
    }
}

constants! {
    /// Commands of `fsconfig(2)`.
    FSCONFIG_NAMES: u32 {
        FSCONFIG_SET_FLAG = 0;
        FSCONFIG_SET_STRING = 1;
        FSCONFIG_SET_BINARY = 2;
        FSCONFIG_SET_PATH = 3;
        FSCONFIG_SET_PATH_EMPTY = 4;
        FSCONFIG_SET_FD = 5;
        FSCONFIG_CMD_CREATE = 6;
        FSCONFIG_CMD_RECONFIGURE = 7;
        FSCONFIG_CMD_CREATE_EXCL = 8;
    }
}
pub const FSOPEN_CLOEXEC: u32 = 1;
pub const FSMOUNT_CLOEXEC: u32 = 1;
pub const FSPICK_CLOEXEC: u32 = 1;

/// Corresponds to `struct mount_attr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct MountAttr {
    pub attr_set: u64,
    pub attr_clr: u64,
    pub propagation: u64,
    pub userns_fd: u64,
}

/// The smallest `struct mnt_id_req`.
pub const MNT_ID_REQ_SIZE_VER0: usize = 24;

/// What the unique ids of mounts are greater than.
pub const MNT_UNIQUE_ID_OFFSET: u64 = 1 << 31;

/// The mount of the caller's root, for `listmount(2)`.
pub const LSMT_ROOT: u64 = u64::MAX;

/// Newer mounts come first.
pub const LISTMOUNT_REVERSE: u32 = 1;

/// Corresponds to `struct mnt_id_req`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct MntIdReq {
    pub size: u32,
    pub spare: u32,
    pub mnt_id: u64,
    pub param: u64,
    pub mnt_ns_id: u64,
}

flags! {
    /// What `statmount(2)` is asked for, and tells.
    pub struct StatmountMask: u64 as "STATMOUNT_" {
        SB_BASIC = 1;
        MNT_BASIC = 2;
        PROPAGATE_FROM = 4;
        MNT_ROOT = 8;
        MNT_POINT = 0x10;
        FS_TYPE = 0x20;
        MNT_NS_ID = 0x40;
        MNT_OPTS = 0x80;
    }
}

/// Corresponds to `struct statmount`, without the texts at its end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Statmount {
    pub size: u32,
    pub mnt_opts: u32,
    pub mask: u64,
    pub sb_dev_major: u32,
    pub sb_dev_minor: u32,
    pub sb_magic: u64,
    pub sb_flags: u32,
    pub fs_type: u32,
    pub mnt_id: u64,
    pub mnt_parent_id: u64,
    pub mnt_id_old: u32,
    pub mnt_parent_id_old: u32,
    pub mnt_attr: u64,
    pub mnt_propagation: u64,
    pub mnt_peer_group: u64,
    pub mnt_master: u64,
    pub propagate_from: u64,
    pub mnt_root: u32,
    pub mnt_point: u32,
    pub mnt_ns_id: u64,
    pub spare: [u64; 49],
}

impl Default for Statmount {
    fn default() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
}

constants! {
    /// Values of `f_type`.
    FS_MAGIC_NAMES: i64 {
        TMPFS_MAGIC = 0x0102_1994;
        PROC_SUPER_MAGIC = 0x9fa0;
        SYSFS_MAGIC = 0x6265_6572;
        DEVPTS_SUPER_MAGIC = 0x1cd1;
        OVERLAYFS_SUPER_MAGIC = 0x794c_7630;
        EXT4_SUPER_MAGIC = 0xef53;
        RAMFS_MAGIC = 0x8584_58f6;
        PIPEFS_MAGIC = 0x5049_5045;
        SOCKFS_MAGIC = 0x534f_434b;
        ANON_INODE_FS_MAGIC = 0x0904_1934;
        CGROUP_SUPER_MAGIC = 0x0027_e0eb;
        CGROUP2_SUPER_MAGIC = 0x6367_7270;
        NSFS_MAGIC = 0x6e73_6673;
        XFS_SUPER_MAGIC = 0x5846_5342;
        BTRFS_SUPER_MAGIC = 0x9123_683e;
        V9FS_MAGIC = 0x0102_1997;
        FUSE_SUPER_MAGIC = 0x6573_5546;
        MQUEUE_MAGIC = 0x1980_0202;
        HUGETLBFS_MAGIC = 0x9584_58f6;
        SECURITYFS_MAGIC = 0x7363_6673;
        DEBUGFS_MAGIC = 0x6462_6720;
        TRACEFS_MAGIC = 0x7472_6163;
        PID_FS_MAGIC = 0x5049_4446;
    }
}
