//! Memory: flags of `mmap(2)` and its relatives (`asm/mman.h`, `linux/mman.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The size of a page.
pub const PAGE_SIZE: u64 = 4096;

flags! {
    /// Protections of `mmap(2)` and `mprotect(2)`.
    pub struct ProtFlags: u32 as "PROT_" {
        READ = 1;
        WRITE = 2;
        EXEC = 4;
        SEM = 8;
        GROWSDOWN = 0x0100_0000;
        GROWSUP = 0x0200_0000;
    }
}

flags! {
    /// Flags of `mmap(2)`; the low four bits are the type ([`MapFlags::map_type`]).
    pub struct MapFlags: u32 as "MAP_" {
        SHARED = 1;
        PRIVATE = 2;
        FIXED = 0x10;
        ANONYMOUS = 0x20;
        _32BIT = 0x40;
        ABOVE4G = 0x80;
        GROWSDOWN = 0x100;
        DENYWRITE = 0x800;
        EXECUTABLE = 0x1000;
        LOCKED = 0x2000;
        NORESERVE = 0x4000;
        POPULATE = 0x8000;
        NONBLOCK = 0x0001_0000;
        STACK = 0x0002_0000;
        HUGETLB = 0x0004_0000;
        SYNC = 0x0008_0000;
        FIXED_NOREPLACE = 0x0010_0000;
        UNINITIALIZED = 0x0400_0000;
    }
}

impl MapFlags {
    /// The bits of the type: `MAP_TYPE`.
    pub const TYPE: u32 = 0xf;
    /// The type that refuses flags it does not know: `MAP_SHARED_VALIDATE`.
    pub const SHARED_VALIDATE: u32 = 3;

    /// Returns the type: 1 (shared), 2 (private), 3 (shared and validated), or a number that
    /// `mmap(2)` refuses.
    pub const fn map_type(self) -> u32 {
        self.bits() & Self::TYPE
    }
}

flags! {
    /// Flags of `mremap(2)`.
    pub struct MremapFlags: u32 as "MREMAP_" {
        MAYMOVE = 1;
        FIXED = 2;
        DONTUNMAP = 4;
    }
}

flags! {
    /// Flags of `msync(2)`.
    pub struct MsyncFlags: u32 as "MS_" {
        ASYNC = 1;
        INVALIDATE = 2;
        SYNC = 4;
    }
}

constants! {
    /// Advice of `madvise(2)`.
    MADVISE_NAMES: i32 {
        MADV_NORMAL = 0;
        MADV_RANDOM = 1;
        MADV_SEQUENTIAL = 2;
        MADV_WILLNEED = 3;
        MADV_DONTNEED = 4;
        MADV_FREE = 8;
        MADV_REMOVE = 9;
        MADV_DONTFORK = 10;
        MADV_DOFORK = 11;
        MADV_MERGEABLE = 12;
        MADV_UNMERGEABLE = 13;
        MADV_HUGEPAGE = 14;
        MADV_NOHUGEPAGE = 15;
        MADV_DONTDUMP = 16;
        MADV_DODUMP = 17;
        MADV_WIPEONFORK = 18;
        MADV_KEEPONFORK = 19;
        MADV_COLD = 20;
        MADV_PAGEOUT = 21;
        MADV_POPULATE_READ = 22;
        MADV_POPULATE_WRITE = 23;
        MADV_DONTNEED_LOCKED = 24;
        MADV_COLLAPSE = 25;
        MADV_HWPOISON = 100;
        MADV_SOFT_OFFLINE = 101;
    }
}

flags! {
    /// Flags of `mlockall(2)`.
    pub struct MlockallFlags: u32 as "MCL_" {
        CURRENT = 1;
        FUTURE = 2;
        ONFAULT = 4;
    }
}

flags! {
    /// Flags of `mlock2(2)`.
    pub struct Mlock2Flags: u32 as "MLOCK_" {
        ONFAULT = 1;
    }
}

constants! {
    /// Memory policies of `set_mempolicy(2)`.
    MPOL_NAMES: u32 {
        MPOL_DEFAULT = 0;
        MPOL_PREFERRED = 1;
        MPOL_BIND = 2;
        MPOL_INTERLEAVE = 3;
        MPOL_LOCAL = 4;
        MPOL_PREFERRED_MANY = 5;
        MPOL_WEIGHTED_INTERLEAVE = 6;
    }
}

/// One more than the largest number that a node can have.
pub const MAX_NUMNODES: u64 = 64;

flags! {
    /// Flags or'ed to a memory policy.
    pub struct MpolFlags: u32 as "MPOL_F_" {
        NUMA_BALANCING = 1 << 13;
        RELATIVE_NODES = 1 << 14;
        STATIC_NODES = 1 << 15;
    }
}

impl MpolFlags {
    /// Returns all of them.
    pub fn all_known() -> Self {
        Self::NUMA_BALANCING | Self::RELATIVE_NODES | Self::STATIC_NODES
    }
}

flags! {
    /// Flags of `get_mempolicy(2)`.
    pub struct MpolGetFlags: u32 as "MPOL_F_" {
        NODE = 1;
        ADDR = 2;
        MEMS_ALLOWED = 4;
    }
}

flags! {
    /// Flags of `mbind(2)`.
    pub struct MpolMoveFlags: u32 as "MPOL_MF_" {
        STRICT = 1;
        MOVE = 2;
        MOVE_ALL = 4;
    }
}

/// Corresponds to `struct cachestat_range`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CachestatRange {
    pub off: u64,
    pub len: u64,
}

/// Corresponds to `struct cachestat`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Cachestat {
    pub nr_cache: u64,
    pub nr_dirty: u64,
    pub nr_writeback: u64,
    pub nr_evicted: u64,
    pub nr_recently_evicted: u64,
}
