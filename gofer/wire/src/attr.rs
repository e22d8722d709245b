//! Attributes of files and file systems as they cross the wire.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A point in time.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Timespec {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds, below 1e9 in what a gofer sends.
    pub nanoseconds: u32,
    /// Zero.
    pub reserved: u32,
}

/// The attributes of a file, as `statx(2)` gives them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Attr {
    /// File type and permission bits.
    pub mode: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Number of 512-byte blocks.
    pub blocks: u64,
    /// Preferred block size for I/O.
    pub blksize: u32,
    /// Device that a special file is, major part.
    pub rdev_major: u32,
    /// Device that a special file is, minor part.
    pub rdev_minor: u32,
    /// Device that holds the file, major part.
    pub dev_major: u32,
    /// Device that holds the file, minor part.
    pub dev_minor: u32,
    /// What is known of the access control list: one of the constants below.
    pub acl: u32,
    /// `STATX_ATTR_*`.
    pub attributes: u64,
    /// Time of last access.
    pub atime: Timespec,
    /// Time of last modification.
    pub mtime: Timespec,
    /// Time of last status change.
    pub ctime: Timespec,
    /// Time of creation; zero where the file system does not know it.
    pub btime: Timespec,
}

impl Attr {
    /// Whether the file has an access control list is not known.
    pub const ACL_UNKNOWN: u32 = 0;
    /// The file has no access control list.
    pub const ACL_NONE: u32 = 1;
    /// The bits of `mode` that are the file type.
    pub const TYPE_MASK: u32 = 0o170_000;
    /// A directory.
    pub const DIRECTORY: u32 = 0o040_000;
    /// A regular file.
    pub const REGULAR: u32 = 0o100_000;
    /// A symbolic link.
    pub const SYMLINK: u32 = 0o120_000;
    /// A socket.
    pub const SOCKET: u32 = 0o140_000;
    /// A FIFO.
    pub const FIFO: u32 = 0o010_000;
    /// A character device.
    pub const CHARACTER: u32 = 0o020_000;
    /// A block device.
    pub const BLOCK: u32 = 0o060_000;

    /// Returns the file type, one of the constants above in whatever a gofer sends.
    pub const fn file_type(&self) -> u32 {
        self.mode & Self::TYPE_MASK
    }
}

/// New attributes of a file. Only the fields that the mask names are applied.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SetAttr {
    /// `SetAttrMask`; checked at decode.
    pub mask: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length.
    pub size: u64,
    /// Time of last access.
    pub atime: Timespec,
    /// Time of last modification.
    pub mtime: Timespec,
}

/// The state of a file system, as `statfs(2)` gives it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Statfs {
    /// Magic number of the file system's type.
    pub kind: u64,
    /// Block size.
    pub block_size: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Number of free blocks.
    pub blocks_free: u64,
    /// Number of free blocks for unprivileged users.
    pub blocks_available: u64,
    /// Number of inodes.
    pub files: u64,
    /// Number of free inodes.
    pub files_free: u64,
    /// Length of the longest name.
    pub name_length: u64,
    /// Fragment size.
    pub fragment_size: u64,
}
