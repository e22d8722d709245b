//! `PROCMAP_QUERY`, an `ioctl(2)` of `/proc/PID/maps` (`linux/fs.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub const PROCMAP_QUERY: u32 = 0xc068_6611;
/// What a query has at least.
pub const PROCMAP_QUERY_MIN_LEN: u64 = 16;
pub const VMA_READABLE: u64 = 1;
pub const VMA_WRITABLE: u64 = 2;
pub const VMA_EXECUTABLE: u64 = 4;
pub const VMA_SHARED: u64 = 8;
pub const COVERING_OR_NEXT_VMA: u64 = 0x10;
pub const FILE_BACKED_VMA: u64 = 0x20;
pub const KNOWN_FLAGS: u64 = 0x3f;

/// Corresponds to `struct procmap_query`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ProcmapQuery {
    pub size: u64,
    pub query_flags: u64,
    pub query_addr: u64,
    pub vma_start: u64,
    pub vma_end: u64,
    pub vma_flags: u64,
    pub vma_page_size: u64,
    pub vma_offset: u64,
    pub inode: u64,
    pub dev_major: u32,
    pub dev_minor: u32,
    pub vma_name_size: u32,
    pub build_id_size: u32,
    pub vma_name_addr: u64,
    pub build_id_addr: u64,
}
