//! `mlock(2)` and its relatives.
//!
//! DEVIATION: locked areas are made present and counted against `RLIMIT_MEMLOCK`, but the host may
//! still write them to its swap.

use syscalls::abi::mm::{MADV_POPULATE_READ, MADV_POPULATE_WRITE, ProtFlags};
use syscalls::{Errno, SysResult};

use super::{MAX_MAP_COUNT, MemoryLimits, Plan, Space};
use crate::mm::vma::{AddrRange, VmaFlags};

/// All flags that locking gives an area.
const LOCK_FLAGS: VmaFlags = VmaFlags::LOCKED.union(VmaFlags::LOCKED_ON_FAULT);

impl Space {
    /// Locks `range`; `flags` say whether only what is touched later.
    ///
    /// # Errors
    /// `ENOMEM` for holes and where the limit is exceeded, `EPERM` where nothing may be locked.
    pub(crate) fn lock(
        &mut self,
        range: &AddrRange,
        flags: VmaFlags,
        limits: &MemoryLimits,
        plan: &mut Plan<'_>,
    ) -> SysResult<()> {
        if !limits.may_lock && limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        let locked: u64 = self
            .tree
            .overlapping(range.clone())
            .filter(|(_, vma)| vma.flags.contains(VmaFlags::LOCKED))
            .map(|(start, vma)| vma.end.min(range.end).saturating_sub(start.max(range.start)))
            .sum();
        let len = range.end.saturating_sub(range.start);
        self.check_lock(len.saturating_sub(locked), limits, Errno::ENOMEM)?;
        self.set_lock_flags(range, flags)?;
        if !flags.contains(VmaFlags::LOCKED_ON_FAULT) {
            self.populate(range, plan);
        }
        Ok(())
    }

    /// Unlocks `range`.
    ///
    /// # Errors
    /// `ENOMEM` for holes.
    pub(crate) fn unlock(&mut self, range: &AddrRange) -> SysResult<()> {
        self.set_lock_flags(range, VmaFlags::empty())
    }

    /// Locks everything that is mapped.
    ///
    /// # Errors
    /// `ENOMEM` where the limit is exceeded.
    pub(crate) fn lock_all(
        &mut self,
        flags: VmaFlags,
        limits: &MemoryLimits,
        plan: &mut Plan<'_>,
    ) -> SysResult<()> {
        if !limits.may_lock && self.tree.totals().total > limits.memlock {
            return Err(Errno::ENOMEM);
        }
        let all = 0..u64::MAX;
        self.tree.update(&all, |_, vma| {
            vma.flags.remove(LOCK_FLAGS);
            vma.flags |= flags;
        });
        if !flags.contains(VmaFlags::LOCKED_ON_FAULT) {
            self.populate(&all, plan);
        }
        Ok(())
    }

    /// Unlocks everything.
    pub(crate) fn unlock_all(&mut self) {
        self.tree.update(&(0..u64::MAX), |_, vma| vma.flags.remove(LOCK_FLAGS));
    }

    fn set_lock_flags(&mut self, range: &AddrRange, flags: VmaFlags) -> SysResult<()> {
        if self.tree.len() + self.tree.cuts(range) > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let (end, verdict) = self.contiguous(range);
        self.tree.update(&(range.start..end), |_, vma| {
            vma.flags.remove(LOCK_FLAGS);
            vma.flags |= flags;
        });
        verdict
    }

    /// Returns how far `range` is mapped without a hole, and whether that is all of it.
    fn contiguous(&self, range: &AddrRange) -> (u64, SysResult<()>) {
        let mut at = range.start;
        for (start, vma) in self.tree.overlapping(range.clone()) {
            if start > at || vma.is_hidden() {
                break;
            }
            at = vma.end.min(range.end);
        }
        if at < range.end { (at, Err(Errno::ENOMEM)) } else { (at, Ok(())) }
    }

    /// Plans to make present what can be.
    fn populate(&self, range: &AddrRange, plan: &mut Plan<'_>) {
        for (start, vma) in self.tree.overlapping(range.clone()) {
            if vma.is_hidden() || vma.flags.contains(VmaFlags::GROWSDOWN) {
                continue;
            }
            let part = start.max(range.start)..vma.end.min(range.end);
            let is_writable = vma.prot.contains(ProtFlags::WRITE);
            if is_writable && (!vma.is_shared() || !vma.prot.contains(ProtFlags::READ)) {
                plan.push_advice(&part, MADV_POPULATE_WRITE);
            } else if vma.prot.contains(ProtFlags::READ) {
                plan.push_advice(&part, MADV_POPULATE_READ);
            }
        }
    }
}
