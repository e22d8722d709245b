//! Flags of the requests. A bit that is not defined here is refused at decode.

use bitflags::bitflags;

bitflags! {
    /// How a file is opened.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OpenFlags: u32 {
        /// For reading.
        const READ = 1;
        /// For writing.
        const WRITE = 1 << 1;
        /// Cut to length 0.
        const TRUNCATE = 1 << 2;
        /// `O_DIRECT`.
        const DIRECT = 1 << 3;
        /// `O_DSYNC`.
        const DSYNC = 1 << 4;
        /// `O_SYNC`.
        const SYNC = 1 << 5;
    }

    /// The fields of `SetAttr` that are to be applied.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SetAttrMask: u32 {
        /// The permission bits.
        const MODE = 1;
        /// The owner.
        const UID = 1 << 1;
        /// The group.
        const GID = 1 << 2;
        /// The length.
        const SIZE = 1 << 3;
        /// The time of last access.
        const ATIME = 1 << 4;
        /// The time of last modification.
        const MTIME = 1 << 5;
        /// The time of last access becomes the host's present (`UTIME_NOW`).
        const ATIME_NOW = 1 << 6;
        /// The time of last modification becomes the host's present (`UTIME_NOW`).
        const MTIME_NOW = 1 << 7;
    }

    /// What `Unlink` removes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct UnlinkFlags: u32 {
        /// An empty directory (`AT_REMOVEDIR`); otherwise anything else.
        const DIRECTORY = 1;
    }

    /// The flags of `renameat2(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        /// `RENAME_NOREPLACE`.
        const NOREPLACE = 1;
        /// `RENAME_EXCHANGE`.
        const EXCHANGE = 1 << 1;
        /// `RENAME_WHITEOUT`.
        const WHITEOUT = 1 << 2;
    }

    /// The flags of `setxattr(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct XattrFlags: u32 {
        /// `XATTR_CREATE`.
        const CREATE = 1;
        /// `XATTR_REPLACE`.
        const REPLACE = 1 << 1;
    }

    /// What a mount permits, as `Attach` reports it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MountFlags: u32 {
        /// Whatever would change the host's files fails with `EROFS`.
        const READONLY = 1;
        /// `Connect` is permitted.
        const CONNECT = 1 << 1;
        /// `Bind` is permitted.
        const BIND = 1 << 2;
        /// `TmpFile` is permitted.
        const TMPFILE = 1 << 3;
    }
}

/// The type of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum BindKind {
    /// `SOCK_STREAM`.
    Stream = 1,
    /// `SOCK_DGRAM`.
    Datagram = 2,
    /// `SOCK_SEQPACKET`.
    SeqPacket = 5,
}

impl BindKind {
    /// Converts the number that `socket(2)` takes.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Stream),
            2 => Some(Self::Datagram),
            5 => Some(Self::SeqPacket),
            _ => None,
        }
    }
}
