//! File attributes: what `stat(2)` shows and what `chmod(2)`, `chown(2)`, `truncate(2)` and
//! `utimensat(2)` change.

pub use syscalls::abi::fs::FileFlags;

/// A time stamp with nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since the epoch.
    pub sec: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nsec: u32,
}

/// The type of a file: the `S_IFMT` bits of its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// `S_IFIFO`
    Fifo,
    /// `S_IFCHR`
    CharDevice,
    /// `S_IFDIR`
    Directory,
    /// `S_IFBLK`
    BlockDevice,
    /// `S_IFREG`
    Regular,
    /// `S_IFLNK`
    Symlink,
    /// `S_IFSOCK`
    Socket,
    /// No type bits: eventfd, epoll and other anonymous inodes.
    Anonymous,
}

impl FileType {
    /// Returns the type that a mode's `S_IFMT` bits name.
    pub fn from_mode(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o010_000 => Self::Fifo,
            0o020_000 => Self::CharDevice,
            0o040_000 => Self::Directory,
            0o060_000 => Self::BlockDevice,
            0o100_000 => Self::Regular,
            0o120_000 => Self::Symlink,
            0o140_000 => Self::Socket,
            _ => Self::Anonymous,
        }
    }

    /// Returns the `S_IFMT` bits.
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice => 0o020_000,
            Self::Directory => 0o040_000,
            Self::BlockDevice => 0o060_000,
            Self::Regular => 0o100_000,
            Self::Symlink => 0o120_000,
            Self::Socket => 0o140_000,
            Self::Anonymous => 0,
        }
    }

    /// Returns the `DT_*` value of `getdents64(2)`.
    pub fn dirent_type(self) -> u8 {
        match self {
            Self::Fifo => 1,
            Self::CharDevice => 2,
            Self::Directory => 4,
            Self::BlockDevice => 6,
            Self::Regular => 8,
            Self::Symlink => 10,
            Self::Socket => 12,
            Self::Anonymous => 0,
        }
    }
}

/// The attributes of an inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    /// The device number of the file system, as `makedev(3)` encodes it.
    pub dev: u64,
    /// The inode number.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// The number of hard links.
    pub nlink: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The device that a device node stands for.
    pub rdev: u64,
    /// The size in bytes.
    pub size: u64,
    /// The preferred block size.
    pub blksize: u32,
    /// Blocks of 512 bytes allocated.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation, where the file system knows it.
    pub btime: Option<Timestamp>,
    /// What `chattr(1)` has set.
    pub flags: FileFlags,
}

impl Attr {
    /// Returns the file type.
    pub fn file_type(&self) -> FileType {
        FileType::from_mode(self.mode)
    }
}

/// How to set a time stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// To the current time.
    Now,
    /// To this time.
    At(Timestamp),
}

/// Changes to attributes; what is `None` stays. Permissions have been checked by the caller, and
/// set-id bits are dropped by the caller where Linux drops them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// The permission bits (07777).
    pub mode: Option<u32>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// The size: truncate or extend with a hole.
    pub size: Option<u64>,
    /// The access time.
    pub atime: Option<SetTime>,
    /// The modification time.
    pub mtime: Option<SetTime>,
}
