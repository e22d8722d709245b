//! The areas of one address space in the order of their addresses, with totals and gap search.

use std::collections::BTreeMap;
use std::collections::btree_map;

use syscalls::abi::mm::{PAGE_SIZE, ProtFlags};

use super::vma::{AddrRange, Vma, VmaFlags};

/// The gap kept below an area that grows downwards: Linux's default `stack_guard_gap`.
pub(crate) const STACK_GUARD_GAP: u64 = 256 * PAGE_SIZE;

/// Sums over the areas, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// All areas: `VmSize`.
    pub(crate) total: u64,
    /// Private writable ones that are no stacks: `VmData`, `RLIMIT_DATA`.
    pub(crate) data: u64,
    /// Stacks: `VmStk`.
    pub(crate) stack: u64,
    /// Executable ones that are not writable: `VmExe` and `VmLib`.
    pub(crate) exec: u64,
    /// Locked ones: `VmLck`.
    pub(crate) locked: u64,
}

/// Where the search for a gap may skip what it knows to be full: above `top` no gap is larger
/// than `largest`.
#[derive(Clone, Copy, Debug)]
struct Hint {
    high: u64,
    top: u64,
    largest: u64,
}

/// The areas of an address space. Areas never overlap, and neighbours that are alike are one.
#[derive(Clone, Default)]
pub(crate) struct VmaTree {
    areas: BTreeMap<u64, Vma>,
    totals: Totals,
    hint: Option<Hint>,
}

impl VmaTree {
    /// Returns the sums.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Returns the number of areas.
    pub(crate) fn len(&self) -> usize {
        self.areas.len()
    }

    /// Returns all areas with their starts.
    pub(crate) fn iter(&self) -> btree_map::Iter<'_, u64, Vma> {
        self.areas.iter()
    }

    /// Returns the area that contains `addr`.
    pub(crate) fn find(&self, addr: u64) -> Option<(u64, &Vma)> {
        let (start, vma) = self.areas.range(..=addr).next_back()?;
        (addr < vma.end).then_some((*start, vma))
    }

    /// Returns the areas that overlap `range`, lowest first.
    pub(crate) fn overlapping(&self, range: AddrRange) -> impl Iterator<Item = (u64, &Vma)> {
        let first = self.find(range.start).map_or(range.start, |(start, _)| start);
        let end = range.end.max(first);
        self.areas.range(first..end).map(|(start, vma)| (*start, vma))
    }

    /// Returns whether no area overlaps `range`.
    pub(crate) fn is_free(&self, range: &AddrRange) -> bool {
        match self.areas.range(..range.end).next_back() {
            Some((_, vma)) => vma.end <= range.start,
            None => true,
        }
    }

    /// Returns the first area that starts at `addr` or above.
    pub(crate) fn next_from(&self, addr: u64) -> Option<(u64, &Vma)> {
        self.areas.range(addr..).next().map(|(start, vma)| (*start, vma))
    }

    /// Adds an area in a free range and joins it with its neighbours where they are alike.
    pub(crate) fn insert(&mut self, start: u64, mut vma: Vma) {
        debug_assert!(start < vma.end && self.is_free(&(start..vma.end)), "areas overlap");
        self.totals.add(start, &vma);
        if let Some((next_start, next)) = self.areas.range(vma.end..).next()
            && *next_start == vma.end
            && vma.can_merge(start, next)
        {
            let next_start = *next_start;
            vma.end = next.end;
            self.areas.remove(&next_start);
        }
        if let Some((before_start, before)) = self.areas.range_mut(..start).next_back()
            && before.end == start
            && before.can_merge(*before_start, &vma)
        {
            before.end = vma.end;
            return;
        }
        self.areas.insert(start, vma);
    }

    /// Takes out everything in `range`, cutting areas at its ends, and returns the pieces.
    /// Areas of the platform stay.
    pub(crate) fn remove(&mut self, range: &AddrRange) -> Vec<(u64, Vma)> {
        let removed = self.take_out(range);
        if let Some(hint) = self.hint
            && range.end > hint.top
        {
            let bottom = self.areas.range(..range.start).next_back().map_or(0, |(_, vma)| vma.end);
            let top = self.areas.range(range.start..).next().map_or(hint.high, |(start, _)| *start);
            let largest = hint.largest.max(top.saturating_sub(bottom));
            self.hint = Some(Hint { largest, ..hint });
        }
        removed
    }

    /// Applies `change` to everything in `range`, cutting areas at its ends and joining again what
    /// has become alike.
    pub(crate) fn update(&mut self, range: &AddrRange, mut change: impl FnMut(u64, &mut Vma)) {
        for (start, mut vma) in self.take_out(range) {
            change(start, &mut vma);
            self.insert(start, vma);
        }
    }

    fn take_out(&mut self, range: &AddrRange) -> Vec<(u64, Vma)> {
        let mut removed = Vec::new();
        if self.is_free(range) {
            return removed;
        }
        self.split_at(range.start);
        self.split_at(range.end);
        let mut at = range.start;
        // One of the platform's areas is not cut, and may end above the range.
        while let Some((start, vma)) = self.areas.range(at..range.end.max(at)).next() {
            let start = *start;
            at = vma.end;
            if vma.is_hidden() {
                continue;
            }
            if let Some(vma) = self.areas.remove(&start) {
                self.totals.subtract(start, &vma);
                removed.push((start, vma));
            }
        }
        removed
    }

    /// Returns how many areas there would be more after cutting at both ends of `range`.
    pub(crate) fn cuts(&self, range: &AddrRange) -> usize {
        let cut = |addr: u64| self.find(addr).is_some_and(|(start, _)| start < addr);
        usize::from(cut(range.start)) + usize::from(cut(range.end))
    }

    /// Finds the highest free range of `len` bytes in `window`, not overlapping what `avoid`
    /// reports: the start of something that overlaps the candidate. A gap stays below stacks.
    pub(crate) fn find_gap(
        &mut self,
        len: u64,
        window: &AddrRange,
        avoid: impl Fn(&AddrRange) -> Option<u64>,
    ) -> Option<u64> {
        let hint = self.hint.filter(|hint| hint.high == window.end);
        let (mut top, mut largest) = match hint {
            Some(hint) if len > hint.largest => (hint.top, hint.largest),
            _ => (window.end, 0),
        };
        let mut found = None;
        let mut avoided = false;
        for (start, vma) in self.areas.range(..top).rev() {
            let bottom = vma.end.max(window.start);
            if let Some(addr) = fit(bottom..top, len, &avoid, &mut avoided) {
                found = Some((addr, top));
                break;
            }
            largest = largest.max(top.saturating_sub(bottom));
            top = if vma.flags.contains(VmaFlags::GROWSDOWN) {
                top.min(start.saturating_sub(STACK_GUARD_GAP))
            } else {
                top.min(*start)
            };
            if top <= window.start {
                return None;
            }
        }
        if found.is_none() {
            found = fit(window.start..top, len, &avoid, &mut avoided).map(|addr| (addr, top));
        }
        let (addr, top) = found?;
        if !avoided {
            self.hint = Some(Hint { high: window.end, top, largest });
        }
        Some(addr)
    }

    /// Finds the lowest free range of `len` bytes in `window`.
    pub(crate) fn find_gap_upwards(
        &self,
        len: u64,
        window: &AddrRange,
        avoid: impl Fn(&AddrRange) -> Option<u64>,
    ) -> Option<u64> {
        let mut at = self.find(window.start).map_or(window.start, |(_, vma)| vma.end);
        for (start, vma) in self.areas.range(at..).map(|(start, vma)| (*start, vma)) {
            let limit = if vma.flags.contains(VmaFlags::GROWSDOWN) {
                start.saturating_sub(STACK_GUARD_GAP)
            } else {
                start
            };
            let candidate = at..at.checked_add(len)?;
            if candidate.end > window.end {
                return None;
            }
            if candidate.end <= limit && avoid(&candidate).is_none() {
                return Some(at);
            }
            at = vma.end;
        }
        let candidate = at..at.checked_add(len)?;
        (candidate.end <= window.end && avoid(&candidate).is_none()).then_some(at)
    }

    /// Cuts the area that contains `addr`, if one does and does not start there.
    fn split_at(&mut self, addr: u64) {
        if let Some((start, vma)) = self.areas.range_mut(..addr).next_back()
            && addr < vma.end
            && !vma.is_hidden()
        {
            let upper = vma.split(*start, addr);
            self.areas.insert(addr, upper);
        }
    }
}

impl Totals {
    fn add(&mut self, start: u64, vma: &Vma) {
        self.change(start, vma, u64::saturating_add);
    }

    fn subtract(&mut self, start: u64, vma: &Vma) {
        self.change(start, vma, u64::saturating_sub);
    }

    fn change(&mut self, start: u64, vma: &Vma, op: fn(u64, u64) -> u64) {
        if vma.is_hidden() {
            return;
        }
        let len = vma.end.saturating_sub(start);
        self.total = op(self.total, len);
        if vma.flags.contains(VmaFlags::GROWSDOWN) {
            self.stack = op(self.stack, len);
        } else if vma.is_data() {
            self.data = op(self.data, len);
        } else if vma.prot.contains(ProtFlags::EXEC) && !vma.prot.contains(ProtFlags::WRITE) {
            self.exec = op(self.exec, len);
        }
        if vma.flags.contains(VmaFlags::LOCKED) {
            self.locked = op(self.locked, len);
        }
    }
}

/// Places `len` bytes as high as possible in a free range.
fn fit(
    gap: AddrRange,
    len: u64,
    avoid: &impl Fn(&AddrRange) -> Option<u64>,
    avoided: &mut bool,
) -> Option<u64> {
    let mut top = gap.end;
    loop {
        let addr = top.checked_sub(len)?;
        if addr < gap.start || top < gap.start {
            return None;
        }
        match avoid(&(addr..top)) {
            None => return Some(addr),
            Some(start) => {
                *avoided = true;
                top = start.min(top.checked_sub(PAGE_SIZE)?);
            }
        }
    }
}
