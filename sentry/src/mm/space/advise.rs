//! `madvise(2)`, `msync(2)`, `mincore(2)`.

use sentry_platform::HostCall;
use syscalls::abi::mm::{
    MADV_COLD, MADV_COLLAPSE, MADV_DODUMP, MADV_DOFORK, MADV_DONTDUMP, MADV_DONTFORK,
    MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_FREE, MADV_HUGEPAGE, MADV_HWPOISON, MADV_KEEPONFORK,
    MADV_MERGEABLE, MADV_NOHUGEPAGE, MADV_NORMAL, MADV_PAGEOUT, MADV_POPULATE_READ,
    MADV_POPULATE_WRITE, MADV_RANDOM, MADV_REMOVE, MADV_SEQUENTIAL, MADV_SOFT_OFFLINE,
    MADV_UNMERGEABLE, MADV_WILLNEED, MADV_WIPEONFORK, MsyncFlags, ProtFlags,
};
use syscalls::{Errno, SysResult};

use super::{MAX_MAP_COUNT, Plan, Purpose, Space};
use crate::mm::vma::{AddrRange, Backing, Vma, VmaFlags};

/// What an advice does to one area.
struct Effect {
    set: VmaFlags,
    clear: VmaFlags,
    /// Whether the host is told.
    tell_host: bool,
}

impl Effect {
    const fn host() -> Self {
        Self { set: VmaFlags::empty(), clear: VmaFlags::empty(), tell_host: true }
    }

    const fn none() -> Self {
        Self { set: VmaFlags::empty(), clear: VmaFlags::empty(), tell_host: false }
    }

    const fn flags(set: VmaFlags, clear: VmaFlags, tell_host: bool) -> Self {
        Self { set, clear, tell_host }
    }
}

/// Checks the number of an advice.
///
/// # Errors
/// `EINVAL` for an unknown one, `EPERM` for those that take memory out of service.
pub(crate) fn check_advice(advice: i32) -> SysResult<()> {
    match advice {
        // Pages are not merged here.
        MADV_MERGEABLE | MADV_UNMERGEABLE => Err(Errno::EINVAL),
        MADV_NORMAL..=MADV_DONTNEED | MADV_FREE..=MADV_COLLAPSE => Ok(()),
        MADV_HWPOISON | MADV_SOFT_OFFLINE => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

impl Space {
    /// Applies an advice to `range`. Holes are skipped and reported in the end, as on Linux.
    ///
    /// # Errors
    /// `ENOMEM` for holes, `EINVAL` where an area cannot follow the advice.
    pub(crate) fn advise(
        &mut self,
        range: &AddrRange,
        advice: i32,
        plan: &mut Plan<'_>,
    ) -> SysResult<()> {
        if self.tree.len() + self.tree.cuts(range) > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let mut at = range.start;
        let mut verdict = Ok(());
        let mut changes = Vec::new();
        for (start, vma) in self.tree.overlapping(range.clone()) {
            if vma.is_hidden() {
                continue;
            }
            if start > at {
                verdict = Err(Errno::ENOMEM);
            }
            let part = start.max(range.start)..vma.end.min(range.end);
            at = part.end;
            if super::seal::forbids(vma, advice) {
                return Err(Errno::EPERM);
            }
            match effect(vma, advice) {
                Ok(effect) => {
                    if effect.tell_host {
                        push_joined(&part, advice, plan);
                    }
                    if !(effect.set | effect.clear).is_empty() {
                        changes.push((part, effect));
                    }
                }
                Err(errno) => {
                    verdict = Err(errno);
                    at = range.end;
                    break;
                }
            }
        }
        for (part, effect) in changes {
            self.tree.update(&part, |_, vma| {
                vma.flags.remove(effect.clear);
                vma.flags |= effect.set;
            });
        }
        if at < range.end { Err(Errno::ENOMEM) } else { verdict }
    }
}

impl Space {
    /// Writes back shared file mappings in `range` (`msync(2)`).
    ///
    /// # Errors
    /// `ENOMEM` for holes, `EBUSY` where `MS_INVALIDATE` meets locked memory.
    pub(crate) fn sync(
        &mut self,
        range: &AddrRange,
        flags: MsyncFlags,
        plan: &mut Plan<'_>,
    ) -> SysResult<()> {
        let mut at = range.start;
        let mut has_hole = false;
        let host = i32::try_from(flags.bits()).map_err(|_| Errno::EINVAL)?;
        for (start, vma) in self.tree.overlapping(range.clone()) {
            if vma.is_hidden() {
                continue;
            }
            has_hole |= start > at;
            let part = start.max(range.start)..vma.end.min(range.end);
            at = part.end;
            if flags.contains(MsyncFlags::INVALIDATE) && vma.flags.contains(VmaFlags::LOCKED) {
                return Err(Errno::EBUSY);
            }
            let is_written = vma.is_shared() && matches!(vma.backing, Backing::File(_));
            if is_written && flags.contains(MsyncFlags::SYNC) {
                let len = part.end.saturating_sub(part.start);
                let call = HostCall::Msync { addr: part.start, len, flags: host };
                plan.push(call, part, Purpose::Advise, Vec::new());
            }
        }
        if has_hole || at < range.end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Returns the part at the start of `range` that is one area, and whether only the host knows
    /// which of its pages are present; `None` where nothing is mapped.
    pub(crate) fn residency_part(&self, range: &AddrRange) -> Option<(AddrRange, bool)> {
        let (_, vma) = self.tree.find(range.start)?;
        if vma.is_hidden() {
            return None;
        }
        let is_private = !matches!(vma.backing, Backing::File(_));
        Some((range.start..vma.end.min(range.end), is_private))
    }
}

/// Plans an advice, as one call with the one before where the ranges touch.
fn push_joined(part: &AddrRange, advice: i32, plan: &mut Plan<'_>) {
    if let (Some(HostCall::Madvise { addr, len, advice: before }), Some(undo)) =
        (plan.calls.last_mut(), plan.undo.last_mut())
        && *before == advice
        && addr.saturating_add(*len) == part.start
        && undo.range.end == part.start
    {
        *len = part.end.saturating_sub(*addr);
        undo.range.end = part.end;
        return;
    }
    plan.push_advice(part, advice);
}

/// Returns what an advice, whose number has been checked, does to an area.
fn effect(vma: &Vma, advice: i32) -> SysResult<Effect> {
    let none = VmaFlags::empty();
    let access = VmaFlags::SEQUENTIAL | VmaFlags::RANDOM;
    let is_locked = vma.flags.contains(VmaFlags::LOCKED);
    let is_special = matches!(vma.backing, Backing::Special(_));
    Ok(match advice {
        MADV_NORMAL => Effect::flags(none, access, true),
        MADV_RANDOM => Effect::flags(VmaFlags::RANDOM, VmaFlags::SEQUENTIAL, true),
        MADV_SEQUENTIAL => Effect::flags(VmaFlags::SEQUENTIAL, VmaFlags::RANDOM, true),
        MADV_WILLNEED => Effect::host(),
        MADV_DONTNEED if is_locked || is_special => return Err(Errno::EINVAL),
        MADV_DONTNEED | MADV_DONTNEED_LOCKED => Effect::host(),
        MADV_FREE if is_locked || !vma.is_private_anonymous() => return Err(Errno::EINVAL),
        MADV_FREE => Effect::host(),
        MADV_REMOVE => {
            if is_locked || vma.is_private_anonymous() || is_special {
                return Err(Errno::EINVAL);
            }
            if !vma.is_shared() || !vma.max_prot.contains(ProtFlags::WRITE) {
                return Err(Errno::EACCES);
            }
            Effect::host()
        }
        MADV_DONTFORK => Effect::flags(VmaFlags::DONTFORK, none, true),
        MADV_DOFORK if is_special => return Err(Errno::EINVAL),
        MADV_DOFORK => Effect::flags(none, VmaFlags::DONTFORK, true),
        MADV_DONTDUMP => Effect::flags(VmaFlags::DONTDUMP, none, false),
        MADV_DODUMP if vma.flags.contains(VmaFlags::DONTEXPAND) => return Err(Errno::EINVAL),
        MADV_DODUMP => Effect::flags(none, VmaFlags::DONTDUMP, false),
        MADV_WIPEONFORK if !vma.is_private_anonymous() => return Err(Errno::EINVAL),
        MADV_WIPEONFORK => Effect::flags(VmaFlags::WIPEONFORK, none, true),
        MADV_KEEPONFORK => Effect::flags(none, VmaFlags::WIPEONFORK, true),
        MADV_HUGEPAGE => Effect::flags(VmaFlags::HUGEPAGE, VmaFlags::NOHUGEPAGE, true),
        MADV_NOHUGEPAGE => Effect::flags(VmaFlags::NOHUGEPAGE, VmaFlags::HUGEPAGE, true),
        // Same-page merging would let one sandbox learn what another has in memory.
        MADV_MERGEABLE | MADV_UNMERGEABLE => Effect::none(),
        MADV_COLD | MADV_PAGEOUT if is_locked || is_special => return Err(Errno::EINVAL),
        MADV_COLD | MADV_PAGEOUT | MADV_COLLAPSE => Effect::host(),
        MADV_POPULATE_READ | MADV_POPULATE_WRITE => Effect::host(),
        _ => return Err(Errno::EINVAL),
    })
}
