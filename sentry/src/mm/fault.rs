//! Faults that the memory manager repairs: stacks that grow.

use sentry_platform::{Fault, HostCall};
use syscalls::abi::resource;
use syscalls::abi::signal::{SEGV_MAPERR, SIGSEGV};
use syscalls::{Errno, SysResult};

use super::ops::Conflicts;
use super::space::{Avoid, MAX_MAP_COUNT, MemoryLimits, Plan, Purpose, Space};
use super::vma::{
    AddrRange, Backing, Vma, VmaFlags, host_anonymous_flags, host_flags, host_prot, page_down,
};
use super::vma_tree::STACK_GUARD_GAP;
use crate::task::CurrentTask;

/// Repairs a fault just below an area that grows downwards. Returns whether the application may
/// try again; otherwise it gets its signal.
pub(crate) fn grow_stack(current: &CurrentTask, fault: &Fault) -> bool {
    if fault.signo != SIGSEGV || fault.code != SEGV_MAPERR {
        return false;
    }
    let mm = current.mm();
    let Some(range) = mm.inspect(|space| space.growth_to(fault.addr)) else { return false };
    let limits = current.memory_limits();
    let stack_limit = current.group.limits.lock().soft(resource::RLIMIT_STACK);
    let conflicts = Conflicts::Ranges(std::slice::from_ref(&range));
    // Where another thread is in the way, the application faults again until it is not.
    mm.try_operate(current, &conflicts, &mut |space, avoid, plan| {
        space.grow_stack(&range, stack_limit, &limits, avoid, plan)
    })
    .is_ok()
}

impl Space {
    /// Returns what would have to be added to an area that grows downwards to reach `addr`.
    fn growth_to(&self, addr: u64) -> Option<AddrRange> {
        if self.tree.find(addr).is_some() {
            return None;
        }
        let (start, vma) = self.tree.next_from(addr)?;
        let grows = vma.flags.contains(VmaFlags::GROWSDOWN) && vma.is_private_anonymous();
        grows.then(|| page_down(addr)..start)
    }

    /// Adds `range` to the stack that starts at its end.
    ///
    /// # Errors
    /// `ENOMEM` where a limit is exceeded or another area is too near.
    fn grow_stack(
        &mut self,
        range: &AddrRange,
        stack_limit: u64,
        limits: &MemoryLimits,
        avoid: &Avoid<'_>,
        plan: &mut Plan<'_>,
    ) -> SysResult<()> {
        if self.growth_to(range.start).as_ref() != Some(range) {
            // Another thread has made the stack grow in the meantime.
            return Ok(());
        }
        let (_, vma) = self.tree.find(range.end).ok_or(Errno::ENOMEM)?;
        let gap = range.start.saturating_sub(STACK_GUARD_GAP)..range.end;
        let is_near = self.tree.overlapping(gap).any(|(_, near)| {
            near.is_hidden()
                || !(near.prot & super::vma::PROT_RWX).is_empty()
                    && !near.flags.contains(VmaFlags::GROWSDOWN)
        });
        let len = range.end.saturating_sub(range.start);
        if is_near
            || vma.end.saturating_sub(range.start) > stack_limit
            || range.start < super::space::MMAP_MIN_ADDR
            || avoid.overlap(range).is_some()
            || self.tree.len() >= MAX_MAP_COUNT
        {
            return Err(Errno::ENOMEM);
        }
        let vma = Vma { end: range.end, ..vma.clone() };
        if vma.flags.contains(VmaFlags::LOCKED) {
            self.check_lock(len, limits, Errno::ENOMEM)?;
        }
        self.check_expand(len, false, limits)?;
        let call = HostCall::Mmap {
            addr: range.start,
            len,
            prot: host_prot(vma.prot),
            flags: host_flags(host_anonymous_flags(vma.flags)),
            file: None,
            offset: 0,
        };
        self.tree.insert(range.start, vma);
        plan.push(call, range.clone(), Purpose::Map, Vec::new());
        self.note_size();
        Ok(())
    }

    /// Names anonymous memory (`PR_SET_VMA_ANON_NAME`).
    ///
    /// # Errors
    /// `EBADF` for the memory of a file, `ENOMEM` for holes.
    pub(crate) fn set_name(
        &mut self,
        range: &AddrRange,
        name: Option<&std::sync::Arc<[u8]>>,
    ) -> SysResult<()> {
        if self.tree.len() + self.tree.cuts(range) > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let mut verdict = Ok(());
        if self.bytes_in(range) < range.end.saturating_sub(range.start) {
            verdict = Err(Errno::ENOMEM);
        }
        self.tree.update(range, |_, vma| match &mut vma.backing {
            Backing::Anonymous { name: old } => *old = name.cloned(),
            _ => verdict = Err(Errno::EBADF),
        });
        verdict
    }

    /// Returns whether something is mapped at `addr`.
    pub(crate) fn is_mapped(&self, addr: u64) -> bool {
        self.tree.find(addr).is_some_and(|(_, vma)| !vma.is_hidden())
    }
}

#[cfg(test)]
mod tests {
    use syscalls::abi::mm::{PAGE_SIZE, ProtFlags};

    use super::*;
    use crate::mm::space::map::{MapRequest, Placement};

    const TOP: u64 = 0x7000_0000_0000;
    const LIMITS: MemoryLimits =
        MemoryLimits { address_space: u64::MAX, data: u64::MAX, memlock: 0, may_lock: false };

    fn map(space: &mut Space, addr: u64, prot: ProtFlags, flags: VmaFlags) {
        let mut request = MapRequest::anonymous(addr, PAGE_SIZE, Placement::Fixed, prot);
        request.flags = flags;
        let mut plan = Plan { calls: &mut Vec::new(), undo: &mut Vec::new() };
        space.map(&request, &LIMITS, &Avoid { ranges: &[] }, &mut plan).expect("free");
    }

    fn grow(space: &mut Space, addr: u64, limit: u64) -> bool {
        let mut plan = Plan { calls: &mut Vec::new(), undo: &mut Vec::new() };
        let none = Avoid { ranges: &[] };
        space
            .growth_to(addr)
            .is_some_and(|range| space.grow_stack(&range, limit, &LIMITS, &none, &mut plan).is_ok())
    }

    #[test]
    fn stacks_grow_to_their_limit_and_not_into_others() {
        let mut space = Space::default();
        let rw = ProtFlags::READ | ProtFlags::WRITE;
        map(&mut space, TOP, rw, VmaFlags::GROWSDOWN);
        assert!(grow(&mut space, TOP - 10 * PAGE_SIZE + 5, 64 * PAGE_SIZE));
        assert_eq!(space.tree.totals().stack, 11 * PAGE_SIZE);
        assert_eq!(space.tree.len(), 1);
        assert!(!grow(&mut space, TOP - 64 * PAGE_SIZE, 64 * PAGE_SIZE));
        let near = TOP - 10 * PAGE_SIZE - STACK_GUARD_GAP;
        map(&mut space, near, rw, VmaFlags::empty());
        assert!(!grow(&mut space, TOP - 11 * PAGE_SIZE, 64 * PAGE_SIZE));
        // An ordinary area does not grow.
        assert!(!grow(&mut space, near - 1, 64 * PAGE_SIZE));
    }
}
