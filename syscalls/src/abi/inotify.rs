//! `inotify(7)` and `fanotify(7)` (`linux/inotify.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flags! {
    /// Events of `inotify(7)` and the flags of `inotify_add_watch(2)`.
    pub struct InotifyMask: u32 as "IN_" {
        ACCESS = 1;
        MODIFY = 2;
        ATTRIB = 4;
        CLOSE_WRITE = 8;
        CLOSE_NOWRITE = 0x10;
        OPEN = 0x20;
        MOVED_FROM = 0x40;
        MOVED_TO = 0x80;
        CREATE = 0x100;
        DELETE = 0x200;
        DELETE_SELF = 0x400;
        MOVE_SELF = 0x800;
        UNMOUNT = 0x2000;
        Q_OVERFLOW = 0x4000;
        IGNORED = 0x8000;
        ONLYDIR = 0x0100_0000;
        DONT_FOLLOW = 0x0200_0000;
        EXCL_UNLINK = 0x0400_0000;
        MASK_CREATE = 0x1000_0000;
        MASK_ADD = 0x2000_0000;
        ISDIR = 0x4000_0000;
        ONESHOT = 0x8000_0000;
    }
}

impl InotifyMask {
    /// Every event that a watch can ask for.
    pub const ALL_EVENTS: Self = Self::from_bits_retain(0xfff);
}

flags! {
    /// Flags of `inotify_init1(2)`.
    pub struct InotifyInitFlags: u32 as "IN_" {
        NONBLOCK = 0o4000;
        CLOEXEC = 0o2000000;
    }
}

/// Corresponds to `struct inotify_event` without its name.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct InotifyEvent {
    pub wd: i32,
    pub mask: u32,
    pub cookie: u32,
    pub len: u32,
}
