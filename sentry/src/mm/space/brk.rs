//! `brk(2)`.

use sentry_platform::{HostCall, USER_ADDRESS_LIMIT};
use syscalls::abi::mm::{MapFlags, ProtFlags};

use super::{Avoid, MAX_MAP_COUNT, MemoryLimits, Plan, Purpose, Space};
use crate::mm::vma::{
    AddrRange, Backing, PROT_RWX, Vma, VmaFlags, host_anonymous_flags, host_flags, host_prot,
    page_up, unmap_call,
};

impl Space {
    /// Returns the pages between the present break and `brk`, whichever is higher.
    pub(crate) fn brk_range(&self, brk: u64) -> AddrRange {
        let old = page_up(self.layout.brk).unwrap_or(self.layout.brk);
        let new = page_up(brk).unwrap_or(old);
        old.min(new)..old.max(new)
    }

    /// Moves the program break to `brk` where that is possible; returns where it is then.
    pub(crate) fn set_brk(
        &mut self,
        brk: u64,
        limits: &MemoryLimits,
        avoid: &Avoid<'_>,
        plan: &mut Plan<'_>,
    ) -> u64 {
        let old_brk = self.layout.brk;
        if brk < self.layout.start_brk || brk >= USER_ADDRESS_LIMIT {
            return old_brk;
        }
        let data = self.layout.end_data.saturating_sub(self.layout.start_data);
        if (brk - self.layout.start_brk).saturating_add(data) > limits.data {
            return old_brk;
        }
        let range = self.brk_range(brk);
        if range.is_empty() {
            self.layout.brk = brk;
            return brk;
        }
        let done = if brk < old_brk {
            self.shrink_heap(&range, plan)
        } else {
            self.grow_heap(&range, limits, avoid, plan)
        };
        if !done {
            return old_brk;
        }
        if let Some(undo) = plan.undo.last_mut() {
            undo.old_brk = Some(old_brk);
        }
        self.layout.brk = brk;
        self.note_size();
        brk
    }

    fn shrink_heap(&mut self, range: &AddrRange, plan: &mut Plan<'_>) -> bool {
        let has_hidden = self.tree.overlapping(range.clone()).any(|(_, vma)| vma.is_hidden());
        if has_hidden || self.tree.cuts(range) == 2 && self.tree.len() >= MAX_MAP_COUNT {
            return false;
        }
        let old = self.tree.remove(range);
        plan.push(unmap_call(range), range.clone(), Purpose::Unmap, old);
        true
    }

    fn grow_heap(
        &mut self,
        range: &AddrRange,
        limits: &MemoryLimits,
        avoid: &Avoid<'_>,
        plan: &mut Plan<'_>,
    ) -> bool {
        // The next area keeps a page's distance, a stack its whole gap.
        let next = self.tree.next_from(range.start);
        let ceiling = next.map_or(USER_ADDRESS_LIMIT, |(start, vma)| {
            super::map::guarded(start, vma).min(start.saturating_sub(1))
        });
        let len = range.end.saturating_sub(range.start);
        if range.end > ceiling
            || !self.tree.is_free(range)
            || avoid.overlap(range).is_some()
            || self.tree.len() >= MAX_MAP_COUNT
            || self.check_expand(len, true, limits).is_err()
        {
            return false;
        }
        let flags = self.future_flags;
        let mut host = host_anonymous_flags(flags);
        if flags.contains(VmaFlags::LOCKED) {
            if self.check_lock(len, limits, syscalls::Errno::EAGAIN).is_err() {
                return false;
            }
            if !flags.contains(VmaFlags::LOCKED_ON_FAULT) {
                host |= MapFlags::POPULATE;
            }
        }
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let vma =
            Vma { end: range.end, prot, max_prot: PROT_RWX, flags, backing: Backing::anonymous() };
        self.tree.insert(range.start, vma);
        let call = HostCall::Mmap {
            addr: range.start,
            len,
            prot: host_prot(prot),
            flags: host_flags(host),
            file: None,
            offset: 0,
        };
        plan.push(call, range.clone(), Purpose::Map, Vec::new());
        true
    }
}
