//! Restartable sequences (`linux/rseq.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flags! {
    /// Flags of `rseq(2)`.
    pub struct RseqFlags: u32 as "RSEQ_FLAG_" {
        UNREGISTER = 1;
    }
}

/// Corresponds to the first version of `struct rseq`, which is aligned to its size.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Rseq {
    pub cpu_id_start: u32,
    pub cpu_id: u32,
    pub rseq_cs: u64,
    pub flags: u32,
    pub node_id: u32,
    pub mm_cid: u32,
    pub end: u32,
}

/// The size of the first version of `struct rseq`.
pub const ORIG_RSEQ_SIZE: u32 = 32;

/// Corresponds to `struct rseq_cs`.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RseqCs {
    pub version: u32,
    pub flags: u32,
    pub start_ip: u64,
    pub post_commit_offset: u64,
    pub abort_ip: u64,
}
