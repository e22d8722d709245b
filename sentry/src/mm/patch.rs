//! Where the platform may replace system call instructions by jumps.
//!
//! A site is patched only in a private mapping of a file that is executable and not writable:
//! what changes is then this address space's own copy of the page, and no application that writes
//! code is surprised. The trampolines lie in hidden areas near the site: never shown, never given
//! to the application, copied by fork like everything else.

use std::sync::Arc;

use sentry_platform::{PATCH_ROOM_LEN, PatchPermit, PatchWish, SyscallArgs, USER_ADDRESS_LIMIT};
use syscalls::abi::mm::ProtFlags;
use syscalls::arch::x86_64::nr;

use super::MemoryManager;
use super::in_flight::InFlight;
use super::ops::others_ranges;
use super::space::{Avoid, MAX_MAP_COUNT, MMAP_MIN_ADDR, Space};
use super::vma::{AddrRange, Backing, Vma, VmaFlags, host_prot, page_down, page_up};
use crate::task::CurrentTask;

/// How far a trampoline may be from the site that jumps to it: 2 GiB, less some pages.
const REACH: u64 = (2 << 30) - (1 << 21);

/// The answer to a wish.
enum Decision {
    Permit(PatchPermit),
    /// Never.
    Refuse,
    /// Perhaps at a later call.
    Later,
}

/// Answers the platform where it would like to patch the site of the call that comes to its end: the
/// site is in flight until the task's next event, which may not come for a long time once a call blocks.
pub(crate) fn answer(current: &CurrentTask) {
    let Some(wish) = current.context().wants_patch() else { return };
    // The platform makes its calls before a birth, and a copy is to know of them.
    if !is_clone(current.call.lock().number) {
        settle(current, &wish);
    }
}

/// As [`answer`], for the calls that must have their answer before they begin.
pub(crate) fn answer_clone(current: &CurrentTask, call: &SyscallArgs) {
    if !is_clone(call.number) {
        return;
    }
    let Some(wish) = current.context().wants_patch() else { return };
    // A copy waits for all that is under way, and two of them must not wait for each other.
    let mm = current.mm();
    let is_quiet = others_ranges(&mm.state.lock(), current.task()).is_empty();
    if is_quiet {
        settle(current, &wish);
    }
}

fn is_clone(number: u64) -> bool {
    matches!(number, nr::CLONE | nr::CLONE3 | nr::FORK | nr::VFORK)
}

fn settle(current: &CurrentTask, wish: &PatchWish) {
    match current.mm().permit_patch(current, wish) {
        Decision::Permit(permit) => current.context().patch(Some(&permit)),
        Decision::Refuse => current.context().patch(None),
        Decision::Later => {}
    }
}

impl MemoryManager {
    /// Returns the host protection of the text at `addr` where the platform may have patched it.
    pub(crate) fn text_prot(&self, addr: u64) -> Option<i32> {
        let end = addr.checked_add(8)?;
        self.state.lock().space.patchable_prot(&(addr..end)).map(host_prot)
    }

    /// Returns the protection of private memory at `addr`, which a tracer may write whatever that is.
    pub(crate) fn private_prot(&self, addr: u64) -> Option<ProtFlags> {
        let state = self.state.lock();
        let (_, vma) = state.space.tree.find(addr)?;
        (!vma.is_shared() && !vma.is_hidden()).then_some(vma.prot)
    }

    fn permit_patch(self: &Arc<Self>, current: &CurrentTask, wish: &PatchWish) -> Decision {
        let me = current.task();
        let Some(end) = wish.addr.checked_add(wish.len) else { return Decision::Refuse };
        let Some(end_page) = page_up(end) else { return Decision::Refuse };
        let site_pages = page_down(wish.addr)..end_page;
        let mut state = self.state.lock();
        let others = others_ranges(&state, me);
        let avoid = Avoid { ranges: &others };
        if avoid.overlap(&site_pages).is_some() {
            return Decision::Later;
        }
        let Some(prot) = state.space.patchable_prot(&(wish.addr..end)) else {
            return Decision::Refuse;
        };
        let mut room = None;
        if wish.needs_room {
            room = state.space.reserve_room(wish.addr, &avoid);
            if room.is_none() {
                return Decision::Refuse;
            }
        }
        // The platform's calls on these pages are made when the task goes on.
        me.memory.mark();
        if Arc::strong_count(self) > 2 {
            let task = Arc::downgrade(me);
            state.in_flight.push(InFlight { task, range: site_pages });
        }
        Decision::Permit(PatchPermit { prot: host_prot(prot), room })
    }
}

impl Space {
    /// Returns the protection of `site` where it may be patched.
    fn patchable_prot(&self, site: &AddrRange) -> Option<ProtFlags> {
        let (_, vma) = self.tree.find(site.start)?;
        let is_text = matches!(vma.backing, Backing::File(_))
            && !vma.is_shared()
            && vma.prot.contains(ProtFlags::EXEC)
            && !vma.prot.contains(ProtFlags::WRITE);
        (is_text && site.end <= vma.end).then_some(vma.prot)
    }

    /// Reserves room for trampolines near `site`: below its mapping where there is some, so that
    /// it is not in the way of the heap.
    fn reserve_room(&mut self, site: u64, avoid: &Avoid<'_>) -> Option<u64> {
        if self.tree.len() >= MAX_MAP_COUNT {
            return None;
        }
        let (start, vma) = self.tree.find(site)?;
        let lowest = page_up(site.saturating_sub(REACH).max(MMAP_MIN_ADDR))?;
        let highest = page_down(site.saturating_add(REACH).min(USER_ADDRESS_LIMIT));
        let windows = [lowest..start, vma.end..highest];
        let addr = windows.into_iter().find_map(|window| {
            self.tree.find_gap(PATCH_ROOM_LEN, &window, |range| avoid.overlap(range))
        })?;
        let room = Vma {
            end: addr.checked_add(PATCH_ROOM_LEN)?,
            prot: ProtFlags::READ | ProtFlags::EXEC,
            max_prot: ProtFlags::empty(),
            flags: VmaFlags::HIDDEN | VmaFlags::DONTEXPAND,
            backing: Backing::anonymous(),
        };
        self.tree.insert(addr, room);
        Some(addr)
    }
}

#[cfg(test)]
mod tests {
    use syscalls::abi::mm::PAGE_SIZE;

    use super::*;
    use crate::mm::space::map::{MapRequest, Placement};
    use crate::mm::space::{MemoryLimits, Plan};

    #[test]
    fn rooms_lie_near_the_site_and_are_nobodys() {
        const TEXT: u64 = 0x7000_0000_0000;
        let mut space = Space::default();
        let limits =
            MemoryLimits { address_space: u64::MAX, data: u64::MAX, memlock: 0, may_lock: false };
        let none = Avoid { ranges: &[] };
        let text = MapRequest::anonymous(TEXT, PAGE_SIZE, Placement::Fixed, ProtFlags::EXEC);
        let mut plan = Plan { calls: &mut Vec::new(), undo: &mut Vec::new() };
        space.map(&text, &limits, &none, &mut plan).expect("free");

        let first = space.reserve_room(TEXT + 8, &none).expect("there is room");
        let second = space.reserve_room(TEXT + 8, &none).expect("there is room");

        assert_eq!(first, TEXT - PATCH_ROOM_LEN);
        assert_eq!(second, first - PATCH_ROOM_LEN);
        assert_eq!(space.tree.totals().total, PAGE_SIZE);
        // Anonymous memory is no text of a file.
        assert!(space.patchable_prot(&(TEXT..TEXT + 7)).is_none());
    }

    #[test]
    fn room_above_is_taken_where_none_is_below() {
        let mut space = Space::default();
        let limits =
            MemoryLimits { address_space: u64::MAX, data: u64::MAX, memlock: 0, may_lock: false };
        let none = Avoid { ranges: &[] };
        let text =
            MapRequest::anonymous(MMAP_MIN_ADDR, PAGE_SIZE, Placement::Fixed, ProtFlags::EXEC);
        let mut plan = Plan { calls: &mut Vec::new(), undo: &mut Vec::new() };
        space.map(&text, &limits, &none, &mut plan).expect("free");
        let room = space.reserve_room(MMAP_MIN_ADDR, &none).expect("there is room");
        assert!(room > MMAP_MIN_ADDR && room - MMAP_MIN_ADDR < 2 << 30);
    }
}
