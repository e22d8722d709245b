//! `mmap(2)` and `munmap(2)`.

use sentry_platform::{HostCall, USER_ADDRESS_LIMIT};
use syscalls::abi::mm::{MapFlags, ProtFlags};
use syscalls::{Errno, SysResult};

use super::{Avoid, MAX_MAP_COUNT, MMAP_MIN_ADDR, MemoryLimits, Plan, Purpose, Space};
use crate::mm::vma::{
    AddrRange, Backing, Vma, VmaFlags, host_anonymous_flags, host_flags, host_prot,
    is_page_aligned, page_up, unmap_call,
};
use crate::vfs::Mapping;

/// Where a new mapping goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// At the address where that is free, somewhere else otherwise.
    Hint,
    /// `MAP_32BIT`.
    Low,
    /// `MAP_FIXED`: at the address, replacing what is there.
    Fixed,
    /// `MAP_FIXED_NOREPLACE`: at the address, or not at all.
    FixedNoReplace,
}

/// A mapping to be made.
pub(crate) struct MapRequest {
    /// Where, together with `placement`.
    pub(crate) addr: u64,
    /// How many bytes: a multiple of the page size, not zero.
    pub(crate) len: u64,
    /// How `addr` is meant.
    pub(crate) placement: Placement,
    /// The protection.
    pub(crate) prot: ProtFlags,
    /// The protection that it may get later.
    pub(crate) max_prot: ProtFlags,
    /// Flags of the area.
    pub(crate) flags: VmaFlags,
    /// Where the pages come from.
    pub(crate) backing: Backing,
    /// The host's file behind `backing`, where there is one.
    pub(crate) mapping: Option<Mapping>,
    /// `MAP_POPULATE`, without `MAP_NONBLOCK`.
    pub(crate) populate: bool,
}

impl MapRequest {
    /// Returns a request for private anonymous memory.
    pub(crate) fn anonymous(addr: u64, len: u64, placement: Placement, prot: ProtFlags) -> Self {
        Self {
            addr,
            len,
            placement,
            prot,
            max_prot: crate::mm::vma::PROT_RWX,
            flags: VmaFlags::empty(),
            backing: Backing::anonymous(),
            mapping: None,
            populate: false,
        }
    }

    /// Returns the range that a fixed request names.
    pub(crate) fn fixed_range(&self) -> Option<AddrRange> {
        match self.placement {
            Placement::Fixed => Some(self.addr..self.addr.checked_add(self.len)?),
            _ => None,
        }
    }

    fn vma(&self, end: u64) -> Vma {
        Vma {
            end,
            prot: self.prot,
            max_prot: self.max_prot,
            flags: self.flags,
            backing: self.backing.clone(),
        }
    }
}

impl Space {
    /// Makes a mapping and returns its address.
    ///
    /// # Errors
    /// `EINVAL` for an unaligned fixed address, `ENOMEM` where there is no room or a limit is
    /// exceeded, `EEXIST` for an occupied `MAP_FIXED_NOREPLACE`, `EPERM` for an address below
    /// `vm.mmap_min_addr`, `EAGAIN` where the memory may not be locked.
    pub(crate) fn map(
        &mut self,
        request: &MapRequest,
        limits: &MemoryLimits,
        avoid: &Avoid<'_>,
        plan: &mut Plan<'_>,
    ) -> SysResult<u64> {
        let start = self.place(request, avoid)?;
        let end = start.checked_add(request.len).ok_or(Errno::ENOMEM)?;
        let range = start..end;
        if self.tree.len() + self.tree.cuts(&range) >= MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let mut vma = request.vma(end);
        vma.flags |= self.future_flags;
        let mut populate = request.populate;
        if vma.flags.contains(VmaFlags::LOCKED) {
            self.check_lock(request.len, limits, Errno::EAGAIN)?;
            populate |= !vma.flags.contains(VmaFlags::LOCKED_ON_FAULT);
        }
        if matches!(request.placement, Placement::Fixed) {
            self.check_unsealed(&range)?;
        }
        let replaced: u64 = match request.placement {
            Placement::Fixed => self.bytes_in(&range),
            _ => 0,
        };
        self.check_expand(request.len.saturating_sub(replaced), vma.is_data(), limits)?;
        let old = match request.placement {
            Placement::Fixed => self.tree.remove(&range),
            _ => Vec::new(),
        };
        let call = map_call(start, request, populate);
        self.tree.insert(start, vma);
        plan.push(call, range, Purpose::Map, old);
        self.note_size();
        Ok(start)
    }

    /// Unmaps `range`.
    ///
    /// # Errors
    /// `ENOMEM` where cutting areas would make too many.
    pub(crate) fn unmap(&mut self, range: &AddrRange, plan: &mut Plan<'_>) -> SysResult<()> {
        if self.tree.is_free(range) {
            return Ok(());
        }
        self.check_unsealed(range)?;
        if self.tree.cuts(range) == 2 && self.tree.len() >= MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        for part in self.without_hidden(range) {
            let old = self.tree.remove(&part);
            if !old.is_empty() {
                plan.push(unmap_call(&part), part, Purpose::Unmap, old);
            }
        }
        Ok(())
    }

    /// Finds the address of a new mapping.
    pub(crate) fn place(&mut self, request: &MapRequest, avoid: &Avoid<'_>) -> SysResult<u64> {
        let len = request.len;
        if len > USER_ADDRESS_LIMIT {
            return Err(Errno::ENOMEM);
        }
        match request.placement {
            Placement::Fixed | Placement::FixedNoReplace => {
                let addr = request.addr;
                if addr > USER_ADDRESS_LIMIT - len {
                    return Err(Errno::ENOMEM);
                }
                if !is_page_aligned(addr) {
                    return Err(Errno::EINVAL);
                }
                if addr < MMAP_MIN_ADDR {
                    return Err(Errno::EPERM);
                }
                let range = addr..addr + len;
                if request.placement == Placement::FixedNoReplace {
                    if !self.tree.is_free(&range) {
                        return Err(Errno::EEXIST);
                    }
                } else if self.tree.overlapping(range).any(|(_, vma)| vma.is_hidden()) {
                    return Err(Errno::ENOMEM);
                }
                Ok(addr)
            }
            Placement::Low => self
                .tree
                .find_gap_upwards(len, &(0x4000_0000..0x8000_0000), |range| avoid.overlap(range))
                .ok_or(Errno::ENOMEM),
            Placement::Hint => self.place_near(request.addr, len, avoid),
        }
    }

    fn place_near(&mut self, hint: u64, len: u64, avoid: &Avoid<'_>) -> SysResult<u64> {
        if hint != 0
            && let Some(addr) = page_up(hint.max(MMAP_MIN_ADDR))
            && let Some(end) = addr.checked_add(len)
            && end <= USER_ADDRESS_LIMIT
            && self.tree.is_free(&(addr..end))
            && avoid.overlap(&(addr..end)).is_none()
            && self.tree.next_from(end).is_none_or(|(start, vma)| end <= guarded(start, vma))
        {
            return Ok(addr);
        }
        let window = MMAP_MIN_ADDR..self.layout.mmap_base;
        let overlap = |range: &AddrRange| avoid.overlap(range);
        if let Some(addr) = self.tree.find_gap(len, &window, overlap) {
            return Ok(addr);
        }
        // The lower part is full: Linux falls back to searching upwards from a third of the
        // address space.
        let window = USER_ADDRESS_LIMIT / 3..USER_ADDRESS_LIMIT;
        self.tree.find_gap_upwards(len, &window, overlap).ok_or(Errno::ENOMEM)
    }

    /// Returns how many bytes of `range` are mapped.
    pub(crate) fn bytes_in(&self, range: &AddrRange) -> u64 {
        self.tree
            .overlapping(range.clone())
            .map(|(start, vma)| vma.end.min(range.end).saturating_sub(start.max(range.start)))
            .sum()
    }

    /// Returns the parts of `range` that are not the platform's.
    fn without_hidden(&self, range: &AddrRange) -> Vec<AddrRange> {
        let mut parts = Vec::new();
        let mut at = range.start;
        for (start, vma) in self.tree.overlapping(range.clone()) {
            if vma.is_hidden() {
                if at < start {
                    parts.push(at..start);
                }
                at = vma.end;
            }
        }
        if at < range.end {
            parts.push(at..range.end);
        }
        parts
    }
}

/// Returns the lowest address that something above may not come near.
pub(super) fn guarded(start: u64, vma: &Vma) -> u64 {
    if vma.flags.contains(VmaFlags::GROWSDOWN) {
        start.saturating_sub(crate::mm::vma_tree::STACK_GUARD_GAP)
    } else {
        start
    }
}

/// Returns the host call that makes a mapping.
fn map_call(addr: u64, request: &MapRequest, populate: bool) -> HostCall {
    let populate = if populate { MapFlags::POPULATE } else { MapFlags::empty() };
    let stack = if request.flags.contains(VmaFlags::GROWSDOWN) {
        MapFlags::STACK
    } else {
        MapFlags::empty()
    };
    let (flags, file, offset) = match (&request.backing, &request.mapping) {
        (Backing::File(backing), Some(mapping)) => {
            let sharing = if request.flags.contains(VmaFlags::SHARED) {
                MapFlags::SHARED
            } else {
                MapFlags::PRIVATE
            };
            let offset = backing.offset.wrapping_add(mapping.delta);
            (sharing, Some(mapping.fd.clone()), offset)
        }
        _ => (host_anonymous_flags(request.flags), None, 0),
    };
    HostCall::Mmap {
        addr,
        len: request.len,
        prot: host_prot(request.prot),
        flags: host_flags(flags | populate | stack),
        file,
        offset,
    }
}
