//! `poll(2)`, `select(2)`, `epoll(7)` and `eventfd(2)` (`asm/poll.h`, `linux/eventpoll.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flags! {
    /// Events of `poll(2)`.
    pub struct PollEvents: u16 as "POLL" {
        IN = 1;
        PRI = 2;
        OUT = 4;
        ERR = 8;
        HUP = 0x10;
        NVAL = 0x20;
        RDNORM = 0x40;
        RDBAND = 0x80;
        WRNORM = 0x100;
        WRBAND = 0x200;
        MSG = 0x400;
        REMOVE = 0x1000;
        RDHUP = 0x2000;
    }
}

/// Corresponds to `struct pollfd`; the events are [`PollEvents`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Pollfd {
    pub fd: i32,
    pub events: u16,
    pub revents: u16,
}

flags! {
    /// Events of `epoll_ctl(2)`.
    pub struct EpollEvents: u32 as "EPOLL" {
        IN = 1;
        PRI = 2;
        OUT = 4;
        ERR = 8;
        HUP = 0x10;
        NVAL = 0x20;
        RDNORM = 0x40;
        RDBAND = 0x80;
        WRNORM = 0x100;
        WRBAND = 0x200;
        MSG = 0x400;
        RDHUP = 0x2000;
        EXCLUSIVE = 0x1000_0000;
        WAKEUP = 0x2000_0000;
        ONESHOT = 0x4000_0000;
        ET = 0x8000_0000;
    }
}

constants! {
    /// Operations of `epoll_ctl(2)`.
    EPOLL_CTL_NAMES: i32 {
        EPOLL_CTL_ADD = 1;
        EPOLL_CTL_DEL = 2;
        EPOLL_CTL_MOD = 3;
    }
}

flags! {
    /// Flags of `epoll_create1(2)`.
    pub struct EpollCreateFlags: u32 as "EPOLL_" {
        CLOEXEC = 0o2000000;
    }
}

/// How deep epoll instances may watch each other.
pub const EP_MAX_NESTS: usize = 4;

/// Corresponds to `struct epoll_event`, which is packed on x86-64.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EpollEvent {
    pub events: u32,
    pub data: u64,
}

flags! {
    /// Flags of `eventfd2(2)`.
    pub struct EventfdFlags: u32 as "EFD_" {
        SEMAPHORE = 1;
        NONBLOCK = 0o4000;
        CLOEXEC = 0o2000000;
    }
}

/// The number of descriptors in an `fd_set` of `select(2)` in libc; the kernel takes any number.
pub const FD_SETSIZE: usize = 1024;
