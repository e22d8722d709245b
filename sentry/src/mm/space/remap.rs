//! `mremap(2)`.

use std::sync::Arc;

use sentry_platform::{HostCall, USER_ADDRESS_LIMIT};
use syscalls::abi::mm::{MremapFlags, PAGE_SIZE, ProtFlags};
use syscalls::{Errno, SysResult};

use super::map::{MapRequest, Placement};
use super::{Avoid, MAX_MAP_COUNT, MMAP_MIN_ADDR, MemoryLimits, Plan, Purpose, Space};
use crate::mm::vma::{AddrRange, Backing, Vma, VmaFlags, is_page_aligned};
use crate::vfs::OpenFile;

/// The arguments of `mremap(2)`, with lengths rounded up to pages.
#[derive(Clone, Debug)]
pub(crate) struct RemapRequest {
    /// The old address.
    pub(crate) addr: u64,
    /// The old length; zero duplicates a shared mapping.
    pub(crate) old_len: u64,
    /// The new length, not zero.
    pub(crate) new_len: u64,
    /// Flags.
    pub(crate) flags: MremapFlags,
    /// The new address of `MREMAP_FIXED`.
    pub(crate) new_addr: u64,
}

impl RemapRequest {
    /// Returns the ranges that the request names itself.
    pub(crate) fn ranges(&self) -> [AddrRange; 2] {
        let len = self.old_len.max(self.new_len);
        let target = if self.flags.contains(MremapFlags::FIXED) {
            self.new_addr..self.new_addr.saturating_add(self.new_len)
        } else {
            0..0
        };
        [self.addr..self.addr.saturating_add(len), target]
    }

    fn old_range(&self) -> SysResult<AddrRange> {
        Ok(self.addr..self.addr.checked_add(self.old_len).ok_or(Errno::EFAULT)?)
    }
}

impl Space {
    /// Moves or resizes a mapping and returns its address.
    ///
    /// # Errors
    /// `EFAULT` where the old range is not one mapping, `EINVAL` for bad addresses, `ENOMEM` where
    /// there is no room or a limit is exceeded, `EAGAIN` where the memory may not be locked.
    pub(crate) fn remap(
        &mut self,
        request: &RemapRequest,
        limits: &MemoryLimits,
        avoid: &Avoid<'_>,
        plan: &mut Plan<'_>,
    ) -> SysResult<u64> {
        if request.flags.contains(MremapFlags::FIXED) {
            return self.remap_to_fixed(request, limits, avoid, plan);
        }
        if request.flags.contains(MremapFlags::DONTUNMAP) {
            let vma = self.check_remap(request, limits)?;
            return self.remap_elsewhere(request, vma, avoid, plan);
        }
        let RemapRequest { addr, old_len, new_len, .. } = *request;
        if old_len >= new_len {
            // Shrinking works on whatever is there, as `munmap(2)` does.
            self.visible(addr)?;
            if old_len > new_len {
                let end = addr.checked_add(old_len).ok_or(Errno::EINVAL)?;
                if end > USER_ADDRESS_LIMIT {
                    return Err(Errno::EINVAL);
                }
                self.unmap(&(addr + new_len..end), plan)?;
            }
            return Ok(addr);
        }
        let vma = self.check_remap(request, limits)?;
        if old_len != 0 && vma.end == addr + old_len && self.can_grow_to(addr, request, avoid) {
            self.grow_in_place(addr, request, plan);
            return Ok(addr);
        }
        if !request.flags.contains(MremapFlags::MAYMOVE) {
            return Err(Errno::ENOMEM);
        }
        self.remap_elsewhere(request, vma, avoid, plan)
    }

    /// Returns the file of which all of `range` is a shared mapping with one protection, that
    /// protection, and whether the memory is locked.
    pub(crate) fn shared_file(
        &self,
        range: &AddrRange,
    ) -> Option<(Arc<OpenFile>, ProtFlags, bool)> {
        let (_, first) = self.visible(range.start).ok()?;
        let Backing::File(backing) = &first.backing else { return None };
        let mut at = range.start;
        for (start, vma) in self.tree.overlapping(range.clone()) {
            let is_same = match &vma.backing {
                Backing::File(other) => Arc::ptr_eq(&other.file, &backing.file),
                _ => false,
            };
            if start > at || !is_same || !vma.is_shared() || vma.prot != first.prot {
                return None;
            }
            at = vma.end;
        }
        let is_locked = first.flags.contains(VmaFlags::LOCKED);
        (at >= range.end).then(|| (backing.file.clone(), first.prot, is_locked))
    }

    /// Returns the application's area at `addr`.
    fn visible(&self, addr: u64) -> SysResult<(u64, &Vma)> {
        match self.tree.find(addr) {
            Some((start, vma)) if !vma.is_hidden() => Ok((start, vma)),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Checks as Linux's `vma_to_resize()`; returns a copy of the area at the old address.
    fn check_remap(&self, request: &RemapRequest, limits: &MemoryLimits) -> SysResult<Vma> {
        let (_, vma) = self.visible(request.addr)?;
        if vma.flags.contains(VmaFlags::SEALED) {
            return Err(Errno::EPERM);
        }
        if request.old_len == 0 && !vma.is_shared() {
            return Err(Errno::EINVAL);
        }
        if request.flags.contains(MremapFlags::DONTUNMAP)
            && vma.flags.contains(VmaFlags::DONTEXPAND)
        {
            return Err(Errno::EINVAL);
        }
        if request.old_range()?.end > vma.end {
            return Err(Errno::EFAULT);
        }
        if request.new_len == request.old_len {
            return Ok(vma.clone());
        }
        if vma.flags.contains(VmaFlags::DONTEXPAND) {
            return Err(Errno::EFAULT);
        }
        let more = request.new_len.saturating_sub(request.old_len);
        if vma.flags.contains(VmaFlags::LOCKED) {
            self.check_lock(more, limits, Errno::EAGAIN)?;
        }
        self.check_expand(more, vma.is_data(), limits)?;
        Ok(vma.clone())
    }

    fn can_grow_to(&self, addr: u64, request: &RemapRequest, avoid: &Avoid<'_>) -> bool {
        let Some(end) = addr.checked_add(request.new_len) else { return false };
        let more = addr + request.old_len..end;
        end <= USER_ADDRESS_LIMIT
            && self.tree.is_free(&more)
            && avoid.overlap(&more).is_none()
            && self
                .tree
                .next_from(end)
                .is_none_or(|(start, vma)| end <= super::map::guarded(start, vma))
    }

    fn grow_in_place(&mut self, addr: u64, request: &RemapRequest, plan: &mut Plan<'_>) {
        let source = addr..addr.saturating_add(request.old_len);
        let range = addr..addr.saturating_add(request.new_len);
        let old = self.tree.remove(&source);
        if let Some((start, vma)) = old.first() {
            self.tree.insert(*start, Vma { end: range.end, ..vma.clone() });
        }
        let call = HostCall::Mremap {
            addr,
            old_len: request.old_len,
            new_len: request.new_len,
            new_addr: addr,
            flags: 0,
        };
        plan.push(call, range, Purpose::Remap(source), old);
        self.note_size();
    }

    fn remap_elsewhere(
        &mut self,
        request: &RemapRequest,
        vma: Vma,
        avoid: &Avoid<'_>,
        plan: &mut Plan<'_>,
    ) -> SysResult<u64> {
        if self.tree.len() + 3 > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let hint =
            if request.flags.contains(MremapFlags::DONTUNMAP) { request.new_addr } else { 0 };
        let wish = MapRequest::anonymous(hint, request.new_len, Placement::Hint, vma.prot);
        let new_addr = self.place(&wish, avoid)?;
        self.move_to(request, vma, new_addr, plan)?;
        Ok(new_addr)
    }

    fn remap_to_fixed(
        &mut self,
        request: &RemapRequest,
        limits: &MemoryLimits,
        avoid: &Avoid<'_>,
        plan: &mut Plan<'_>,
    ) -> SysResult<u64> {
        let RemapRequest { addr, new_addr, old_len, new_len, .. } = *request;
        if !is_page_aligned(new_addr)
            || new_len > USER_ADDRESS_LIMIT
            || new_addr > USER_ADDRESS_LIMIT - new_len
        {
            return Err(Errno::EINVAL);
        }
        let target = new_addr..new_addr + new_len;
        let source = addr..addr.checked_add(old_len).ok_or(Errno::EINVAL)?;
        if target.start < source.end && source.start < target.end {
            return Err(Errno::EINVAL);
        }
        if self.tree.len() + 6 > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        if new_addr < MMAP_MIN_ADDR {
            return Err(Errno::EPERM);
        }
        if self.tree.overlapping(target.clone()).any(|(_, vma)| vma.is_hidden()) {
            return Err(Errno::ENOMEM);
        }
        self.visible(addr)?;
        // The source is checked before anything changes.
        let mut request = request.clone();
        let mut tail = None;
        if old_len > new_len {
            tail = Some(addr + new_len..addr + old_len);
            request.old_len = new_len;
        }
        let mut vma = self.check_remap(&request, limits)?;
        // The host may still refuse: what is one area here can be several there. So where there is
        // something to lose at the target, the source first goes to a place of its own, with a gap
        // around it, so that the host does not merge it with others.
        if old_len != new_len
            && !self.tree.is_free(&target)
            && let Some(len) = new_len.checked_add(2 * PAGE_SIZE)
        {
            let wish = MapRequest::anonymous(0, len, Placement::Hint, vma.prot);
            if let Ok(between) = self.place(&wish, avoid).map(|addr| addr + PAGE_SIZE) {
                self.move_to(&request, vma, between, plan)?;
                request.addr = between;
                request.old_len = new_len;
                vma = self.visible(between)?.1.clone();
            }
        }
        if let Some(tail) = tail {
            self.unmap(&tail, plan)?;
        }
        // The host would unmap the target itself; a call of its own can be undone by itself.
        self.unmap(&target, plan)?;
        self.move_to(&request, vma, new_addr, plan)?;
        Ok(new_addr)
    }

    /// Moves the old range to the free range at `new_addr`.
    fn move_to(
        &mut self,
        request: &RemapRequest,
        mut vma: Vma,
        new_addr: u64,
        plan: &mut Plan<'_>,
    ) -> SysResult<()> {
        let RemapRequest { addr, old_len, new_len, .. } = *request;
        let source = request.old_range()?;
        let range = new_addr..new_addr.checked_add(new_len).ok_or(Errno::EINVAL)?;
        let (start, _) = self.visible(addr)?;
        if start < addr {
            vma = vma.split(start, addr);
        }
        vma.end = range.end;
        let keeps_source = request.flags.contains(MremapFlags::DONTUNMAP) || old_len == 0;
        let mut old = Vec::new();
        if keeps_source {
            if request.flags.contains(MremapFlags::DONTUNMAP) {
                self.tree.update(&source, |start, area| {
                    old.push((start, area.clone()));
                    area.flags.remove(VmaFlags::LOCKED | VmaFlags::LOCKED_ON_FAULT);
                });
            }
        } else {
            old = self.tree.remove(&source);
        }
        self.tree.insert(range.start, vma);
        let flags = i32::try_from((request.flags & MremapFlags::DONTUNMAP).bits()).unwrap_or(0);
        let call = HostCall::Mremap { addr, old_len, new_len, new_addr, flags };
        plan.push(call, range, Purpose::Remap(source), old);
        self.note_size();
        Ok(())
    }
}
