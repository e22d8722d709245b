//! Virtual memory areas: ranges of pages with the same protection, flags and origin.

use std::ops::Range;
use std::sync::Arc;

use bitflags::bitflags;
use sentry_platform::HostCall;
use syscalls::abi::mm::{MapFlags, MpolFlags, PAGE_SIZE, ProtFlags};

use crate::vfs::{MapMode, Mappable, OpenFile};

/// A range of addresses.
pub(crate) type AddrRange = Range<u64>;

/// Read, write and execute.
pub(crate) const PROT_RWX: ProtFlags =
    ProtFlags::READ.union(ProtFlags::WRITE).union(ProtFlags::EXEC);

bitflags! {
    /// What an area remembers besides its protection: the `VM_*` flags that matter here.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct VmaFlags: u32 {
        /// Writes are seen by others: `VM_SHARED | VM_MAYSHARE`.
        const SHARED = 1;
        /// Grows downwards: a stack.
        const GROWSDOWN = 1 << 1;
        /// No overcommit accounting.
        const NORESERVE = 1 << 2;
        /// `mlock(2)`.
        const LOCKED = 1 << 3;
        /// `MLOCK_ONFAULT`.
        const LOCKED_ON_FAULT = 1 << 4;
        /// `MADV_DONTFORK`.
        const DONTFORK = 1 << 5;
        /// `MADV_WIPEONFORK`.
        const WIPEONFORK = 1 << 6;
        /// `MADV_DONTDUMP`.
        const DONTDUMP = 1 << 7;
        /// `MADV_SEQUENTIAL`.
        const SEQUENTIAL = 1 << 8;
        /// `MADV_RANDOM`.
        const RANDOM = 1 << 9;
        /// `MADV_HUGEPAGE`.
        const HUGEPAGE = 1 << 10;
        /// `MADV_NOHUGEPAGE`.
        const NOHUGEPAGE = 1 << 11;
        /// Cannot be remapped to another size: `VM_DONTEXPAND`.
        const DONTEXPAND = 1 << 12;
        /// Reserved for the platform's trampolines: not the application's, and not shown to it.
        const HIDDEN = 1 << 13;
        /// `mseal(2)`.
        const SEALED = 1 << 14;
        /// `mbind(2)`: one more than the mode, or 0, and the flags of the mode above it.
        const POLICY = 0xff << 16;
    }
}

/// A memory policy (`numa(7)`) of a machine with one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    /// `MPOL_*`.
    pub(crate) mode: u8,
    /// `MPOL_F_*` of the mode.
    pub(crate) flags: MpolFlags,
}

/// Where in [`VmaFlags`] the mode of a policy is.
const POLICY_SHIFT: u32 = 16;

/// How far up in [`VmaFlags`] the flags of a policy's mode are moved, which begin at bit 13.
const POLICY_FLAGS_SHIFT: u32 = 7;

impl VmaFlags {
    /// Returns the flags that stand for a policy.
    pub(crate) fn of_policy(policy: Option<MemoryPolicy>) -> Self {
        let Some(MemoryPolicy { mode, flags }) = policy else { return Self::empty() };
        let mode = u32::from(mode.saturating_add(1)) << POLICY_SHIFT;
        Self::from_bits_retain(mode | flags.bits() << POLICY_FLAGS_SHIFT) & Self::POLICY
    }

    /// Returns the policy that the flags stand for.
    pub(crate) fn policy(self) -> Option<MemoryPolicy> {
        let mode = (self.bits() >> POLICY_SHIFT) & 0xf;
        let mode = u8::try_from(mode).ok()?.checked_sub(1)?;
        let flags = (self & Self::POLICY).bits() >> POLICY_FLAGS_SHIFT;
        Some(MemoryPolicy {
            mode,
            flags: MpolFlags::from_bits_retain(flags) & MpolFlags::all_known(),
        })
    }
}

/// A file behind an area.
#[derive(Clone)]
pub(crate) struct FileBacking {
    /// The open file description: what `/proc/PID/maps` names.
    pub(crate) file: Arc<OpenFile>,
    /// What is mapped.
    pub(crate) mappable: Arc<dyn Mappable>,
    /// The file offset of the area's first byte.
    pub(crate) offset: u64,
}

/// Where an area's pages come from.
#[derive(Clone)]
pub(crate) enum Backing {
    /// Zeroed memory of this address space.
    Anonymous {
        /// `PR_SET_VMA_ANON_NAME`.
        name: Option<Arc<[u8]>>,
    },
    /// Zeroed memory that forked children share.
    SharedAnonymous {
        /// Tells one such object from another, in the whole sentry.
        object: u64,
        /// The offset of the area's first byte in it.
        offset: u64,
    },
    /// A file.
    File(FileBacking),
    /// Memory that the sentry has put there, such as `[vdso]`.
    Special(&'static str),
}

impl Backing {
    /// Returns private anonymous memory without a name.
    pub(crate) fn anonymous() -> Self {
        Self::Anonymous { name: None }
    }

    /// Returns the backing of what starts `delta` bytes further.
    fn advanced(&self, delta: u64) -> Self {
        match self {
            Self::SharedAnonymous { object, offset } => {
                Self::SharedAnonymous { object: *object, offset: offset.wrapping_add(delta) }
            }
            Self::File(file) => {
                Self::File(FileBacking { offset: file.offset.wrapping_add(delta), ..file.clone() })
            }
            other => other.clone(),
        }
    }

    /// Returns whether `next` goes on where this one ends after `len` bytes.
    fn continues_with(&self, len: u64, next: &Self) -> bool {
        match (self, next) {
            (Self::Anonymous { name: a }, Self::Anonymous { name: b }) => a == b,
            (
                Self::SharedAnonymous { object: a, offset: at },
                Self::SharedAnonymous { object: b, offset: next_at },
            ) => a == b && at.wrapping_add(len) == *next_at,
            (Self::File(a), Self::File(b)) => {
                Arc::ptr_eq(&a.file, &b.file) && a.offset.wrapping_add(len) == b.offset
            }
            _ => false,
        }
    }
}

/// An area. Its start is its key in the tree.
#[derive(Clone)]
pub(crate) struct Vma {
    /// The first address behind it.
    pub(crate) end: u64,
    /// The present protection: read, write, execute.
    pub(crate) prot: ProtFlags,
    /// The protection that `mprotect(2)` may at most give: `VM_MAY*`.
    pub(crate) max_prot: ProtFlags,
    /// Flags.
    pub(crate) flags: VmaFlags,
    /// Where the pages come from.
    pub(crate) backing: Backing,
}

impl Vma {
    /// Returns whether the area is shared with other address spaces.
    pub(crate) fn is_shared(&self) -> bool {
        self.flags.contains(VmaFlags::SHARED)
    }

    /// Returns whether the area is reserved for the platform.
    pub(crate) fn is_hidden(&self) -> bool {
        self.flags.contains(VmaFlags::HIDDEN)
    }

    /// Returns whether the area is private anonymous memory.
    pub(crate) fn is_private_anonymous(&self) -> bool {
        matches!(self.backing, Backing::Anonymous { .. })
    }

    /// Returns whether `RLIMIT_DATA` counts the area: private, writable, not a stack.
    pub(crate) fn is_data(&self) -> bool {
        self.prot.contains(ProtFlags::WRITE)
            && !self.flags.intersects(VmaFlags::SHARED | VmaFlags::GROWSDOWN)
    }

    /// Cuts the area, which starts at `start`, at `addr`, which lies inside it; returns the upper part.
    pub(crate) fn split(&mut self, start: u64, addr: u64) -> Self {
        let upper =
            Self { backing: self.backing.advanced(addr.wrapping_sub(start)), ..self.clone() };
        self.end = addr;
        upper
    }

    /// Returns whether `next`, which starts at this area's end, can be joined to it.
    pub(crate) fn can_merge(&self, start: u64, next: &Self) -> bool {
        self.prot == next.prot
            && self.max_prot == next.max_prot
            && self.flags == next.flags
            && !self.flags.contains(VmaFlags::HIDDEN)
            && self.backing.continues_with(self.end.wrapping_sub(start), &next.backing)
    }

    /// Returns in which way the file behind the area is mapped.
    pub(crate) fn map_mode(flags: VmaFlags, max_prot: ProtFlags) -> MapMode {
        if !flags.contains(VmaFlags::SHARED) {
            MapMode::Private
        } else if max_prot.contains(ProtFlags::WRITE) {
            MapMode::SharedWrite
        } else {
            MapMode::SharedRead
        }
    }
}

/// Returns a protection as host calls take it.
pub(crate) fn host_prot(prot: ProtFlags) -> i32 {
    // Write-only memory is readable on this processor; that the host thinks so as well lets the
    // sentry read what the application can read.
    let prot = if prot.contains(ProtFlags::WRITE) { prot | ProtFlags::READ } else { prot };
    i32::try_from((prot & PROT_RWX).bits()).unwrap_or(0)
}

/// Returns the flags with which the host maps private or shared memory without a file.
pub(crate) fn host_anonymous_flags(flags: VmaFlags) -> MapFlags {
    let sharing =
        if flags.contains(VmaFlags::SHARED) { MapFlags::SHARED } else { MapFlags::PRIVATE };
    let reserve =
        if flags.contains(VmaFlags::NORESERVE) { MapFlags::NORESERVE } else { MapFlags::empty() };
    sharing | reserve | MapFlags::ANONYMOUS
}

/// Returns flags as host calls take them.
pub(crate) fn host_flags(flags: MapFlags) -> i32 {
    i32::try_from(flags.bits()).unwrap_or(0)
}

/// Returns a call that unmaps `range`.
pub(crate) fn unmap_call(range: &AddrRange) -> HostCall {
    HostCall::Munmap { addr: range.start, len: range.end.saturating_sub(range.start) }
}

/// Rounds up to a page boundary, or returns `None` where that wraps around.
pub(crate) fn page_up(value: u64) -> Option<u64> {
    Some(value.checked_add(PAGE_SIZE - 1)? & !(PAGE_SIZE - 1))
}

/// Rounds down to a page boundary.
pub(crate) fn page_down(value: u64) -> u64 {
    value & !(PAGE_SIZE - 1)
}

/// Returns whether `value` is a multiple of the page size.
pub(crate) fn is_page_aligned(value: u64) -> bool {
    value.is_multiple_of(PAGE_SIZE)
}
