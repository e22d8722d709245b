//! Asynchronous I/O (`linux/aio_abi.h`, `fs/aio.c`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

constants! {
    /// What an [`Iocb`] asks for.
    IOCB_CMD_NAMES: u16 {
        IOCB_CMD_PREAD = 0;
        IOCB_CMD_PWRITE = 1;
        IOCB_CMD_FSYNC = 2;
        IOCB_CMD_FDSYNC = 3;
        IOCB_CMD_POLL = 5;
        IOCB_CMD_NOOP = 6;
        IOCB_CMD_PREADV = 7;
        IOCB_CMD_PWRITEV = 8;
    }
}
/// A flag of [`Iocb`]: `aio_resfd` is an eventfd.
pub const IOCB_FLAG_RESFD: u32 = 1;
/// The key that the kernel gives every [`Iocb`].
pub const KIOCB_KEY: u32 = 0;

/// Corresponds to `struct iocb`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Iocb {
    pub aio_data: u64,
    pub aio_key: u32,
    pub aio_rw_flags: u32,
    pub aio_lio_opcode: u16,
    pub aio_reqprio: i16,
    pub aio_fildes: u32,
    pub aio_buf: u64,
    pub aio_nbytes: u64,
    pub aio_offset: i64,
    pub aio_reserved2: u64,
    pub aio_flags: u32,
    pub aio_resfd: u32,
}

/// Corresponds to `struct io_event`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct IoEvent {
    pub data: u64,
    pub obj: u64,
    pub res: i64,
    pub res2: i64,
}

/// Corresponds to `struct aio_ring`, without the events that follow it.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct AioRing {
    pub id: u32,
    pub nr: u32,
    pub head: u32,
    pub tail: u32,
    pub magic: u32,
    pub compat_features: u32,
    pub incompat_features: u32,
    pub header_length: u32,
}
/// The value of `magic`.
pub const AIO_RING_MAGIC: u32 = 0xa10a_10a1;
/// The value of `compat_features`.
pub const AIO_RING_COMPAT_FEATURES: u32 = 1;
