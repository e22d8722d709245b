//! The policy of one address space: which ranges exist and what may be done to them.
//!
//! A [`Space`] is pure: an operation changes the areas, appends the host calls that make the host
//! agree to a [`Plan`], and says with each what must be undone should the host refuse it. Neither
//! locks nor tasks are known here, so all of it can be tested against a model.

pub(crate) mod advise;
pub(crate) mod brk;
pub(crate) mod lock;
pub(crate) mod map;
pub(crate) mod policy;
mod protect;
pub(crate) mod recover;
pub(crate) mod remap;
pub(crate) mod seal;

use sentry_platform::{HostCall, USER_ADDRESS_LIMIT};
use syscalls::abi::mm::{PAGE_SIZE, ProtFlags};
use syscalls::{Errno, SysResult};

use super::layout::Layout;
use super::vma::{AddrRange, Backing, Vma, VmaFlags, is_page_aligned, page_up};
use super::vma_tree::VmaTree;

/// The lowest address that may be mapped: `vm.mmap_min_addr`.
pub(crate) const MMAP_MIN_ADDR: u64 = 0x1_0000;

/// The most areas of one address space: `vm.max_map_count` of the host's default, less what the
/// stub needs for itself.
pub(crate) const MAX_MAP_COUNT: usize = 65_000;

/// The areas of an address space and the places that the kernel remembers in it.
#[derive(Clone, Default)]
pub(crate) struct Space {
    /// The areas.
    pub(crate) tree: VmaTree,
    /// Program, heap, stack and the base of the mapping area.
    pub(crate) layout: Layout,
    /// What `mlockall(MCL_FUTURE)` gives new areas.
    pub(crate) future_flags: VmaFlags,
    /// The largest total so far: `VmPeak`.
    pub(crate) peak: u64,
}

/// The resource limits that concern memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryLimits {
    /// `RLIMIT_AS`.
    pub(crate) address_space: u64,
    /// `RLIMIT_DATA`.
    pub(crate) data: u64,
    /// `RLIMIT_MEMLOCK`.
    pub(crate) memlock: u64,
    /// `CAP_IPC_LOCK`: `memlock` does not count.
    pub(crate) may_lock: bool,
}

/// What of a range can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Writable {
    /// How many bytes from the start.
    pub(crate) len: u64,
    /// Whether only the host knows if there is memory behind them.
    pub(crate) may_fault: bool,
}

/// What stands in the way of an operation: ranges on which another task's host calls are under
/// way.
pub(crate) struct Avoid<'a> {
    /// The ranges.
    pub(crate) ranges: &'a [AddrRange],
}

impl Avoid<'_> {
    /// Returns the start of a range that overlaps `range`.
    pub(crate) fn overlap(&self, range: &AddrRange) -> Option<u64> {
        self.ranges
            .iter()
            .find(|other| other.start < range.end && range.start < other.end)
            .map(|other| other.start)
    }
}

/// The host calls of an operation, and how to undo their part of it.
pub(crate) struct Plan<'a> {
    /// The calls so far; those of earlier operations of the same system call come first.
    pub(crate) calls: &'a mut Vec<HostCall>,
    /// How to undo.
    pub(crate) undo: &'a mut Vec<Undo>,
}

/// What a host call is for, and so what is to be done where it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Maps `range`: after a failure nothing is certain there.
    Map,
    /// Unmaps `range`: after a failure all is as before.
    Unmap,
    /// Protects `range`: after a failure any part may have the new protection.
    Protect,
    /// Moves or resizes what was at this range, to `range`.
    Remap(AddrRange),
    /// Changes nothing that the areas record.
    Advise,
    /// Undoes something: a failure leaves areas and host at variance.
    Recovery,
}

/// How to undo one host call's part of an operation.
pub(crate) struct Undo {
    /// The index of the call in its list.
    pub(crate) call: usize,
    /// The range that the call concerns.
    pub(crate) range: AddrRange,
    /// What the call is for.
    pub(crate) purpose: Purpose,
    /// The areas that were in `range` (and, for a remap, at its source) before.
    pub(crate) old: Vec<(u64, Vma)>,
    /// The program break before.
    pub(crate) old_brk: Option<u64>,
}

impl Plan<'_> {
    /// Adds a call.
    pub(crate) fn push(
        &mut self,
        call: HostCall,
        range: AddrRange,
        purpose: Purpose,
        old: Vec<(u64, Vma)>,
    ) {
        let index = self.calls.len();
        self.calls.push(call);
        self.undo.push(Undo { call: index, range, purpose, old, old_brk: None });
    }

    /// Adds a call that changes no area.
    pub(crate) fn push_advice(&mut self, range: &AddrRange, advice: i32) {
        let len = range.end.saturating_sub(range.start);
        let call = HostCall::Madvise { addr: range.start, len, advice };
        self.push(call, range.clone(), Purpose::Advise, Vec::new());
    }
}

impl Space {
    /// Fails where `len` more bytes would exceed the limits. `is_data` says whether
    /// `RLIMIT_DATA` counts them.
    pub(crate) fn check_expand(
        &self,
        len: u64,
        is_data: bool,
        limits: &MemoryLimits,
    ) -> SysResult<()> {
        let totals = self.tree.totals();
        let total = totals.total.checked_add(len).ok_or(Errno::ENOMEM)?;
        if total > limits.address_space {
            return Err(Errno::ENOMEM);
        }
        if is_data && totals.data.saturating_add(len) > limits.data {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Fails with `errno` where `len` more bytes may not be locked.
    pub(crate) fn check_lock(
        &self,
        len: u64,
        limits: &MemoryLimits,
        errno: Errno,
    ) -> SysResult<()> {
        let locked = self.tree.totals().locked.saturating_add(len);
        if limits.may_lock || locked <= limits.memlock { Ok(()) } else { Err(errno) }
    }

    /// Updates what depends on the totals, after an operation.
    pub(crate) fn note_size(&mut self) {
        self.peak = self.peak.max(self.tree.totals().total);
    }

    /// Returns how many bytes from `addr` on, up to `len`, the application may write, and whether
    /// a write there could fault all the same.
    pub(crate) fn writable_prefix(&self, addr: u64, len: u64) -> Writable {
        let mut may_fault = false;
        let len = self.prefix(addr, len, |vma| {
            // A file can end before its mapping does.
            may_fault |= matches!(vma.backing, Backing::File(_) | Backing::SharedAnonymous { .. });
            vma.prot.contains(ProtFlags::WRITE)
        });
        Writable { len, may_fault }
    }

    /// Returns how many bytes from `addr` on, up to `len`, lie in areas that are
    /// `good`.
    fn prefix(&self, addr: u64, len: u64, mut good: impl FnMut(&Vma) -> bool) -> u64 {
        let Some(end) = addr.checked_add(len) else { return 0 };
        let mut at = addr;
        while at < end {
            match self.tree.find(at) {
                Some((_, vma)) if !vma.is_hidden() && good(vma) => at = vma.end,
                _ => break,
            }
        }
        at.min(end).saturating_sub(addr)
    }
}

/// Checks a range as `munmap(2)` and its relatives take it.
///
/// # Errors
/// `EINVAL` for an unaligned start; `overflow` where the range wraps around or leaves the address
/// space.
pub(crate) fn checked_range(addr: u64, len: u64, overflow: Errno) -> SysResult<AddrRange> {
    if !is_page_aligned(addr) {
        return Err(Errno::EINVAL);
    }
    let len = page_up(len).ok_or(overflow)?;
    let end = addr.checked_add(len).ok_or(overflow)?;
    if end > USER_ADDRESS_LIMIT {
        return Err(overflow);
    }
    Ok(addr..end)
}

/// Returns the number of pages of a range.
pub(crate) fn n_pages(range: &AddrRange) -> u64 {
    range.end.saturating_sub(range.start) / PAGE_SIZE
}

#[cfg(test)]
mod tests;
