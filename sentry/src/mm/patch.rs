//! What the platform may change in application text: see `Context::wants_patch`.
//!
//! The ranges that it gets for trampolines are areas of their own, hidden from the application:
//! `/proc/PID/maps` does not show them, and no call of the application reaches them.

use sentry_platform::{PATCH_ROOM_LEN, PatchPermit, PatchWish, USER_ADDRESS_LIMIT};
use syscalls::abi::mm::ProtFlags;

use super::MemoryManager;
use super::ops::others_ranges;
use super::space::{Avoid, MMAP_MIN_ADDR};
use super::vma::{AddrRange, Backing, Vma, VmaFlags, host_prot, page_down};
use crate::task::CurrentTask;

/// How far from a site a trampoline may lie: the reach of a `jmp rel32`, less what a site and the
/// range itself take.
const REACH: u64 = (1 << 31) - 2 * PATCH_ROOM_LEN;

/// Answers a platform that would like to patch the site of the present call, if it would.
pub(crate) fn answer(current: &CurrentTask) {
    if let Some(wish) = current.context().wants_patch() {
        let permit = current.mm().permit_patch(current, &wish);
        current.context().patch(permit.as_ref());
    }
}

impl MemoryManager {
    fn permit_patch(&self, current: &CurrentTask, wish: &PatchWish) -> Option<PatchPermit> {
        let mut state = self.state.lock();
        let end = wish.addr.checked_add(wish.len)?;
        let (_, vma) = state.space.tree.find(wish.addr)?;
        let is_text = end <= vma.end
            && !vma.is_shared()
            && matches!(vma.backing, Backing::File(_))
            && vma.prot.contains(ProtFlags::EXEC)
            && !vma.prot.contains(ProtFlags::WRITE);
        if !is_text {
            return None;
        }
        let prot = host_prot(vma.prot);
        if !wish.needs_room {
            return Some(PatchPermit { prot, room: None });
        }
        let others = others_ranges(&state, current.task());
        let avoid = Avoid { ranges: &others };
        let low = page_down(wish.addr.saturating_sub(REACH)).max(MMAP_MIN_ADDR);
        let high = page_down(wish.addr.saturating_add(REACH)).min(USER_ADDRESS_LIMIT);
        let overlap = |range: &AddrRange| avoid.overlap(range);
        let tree = &mut state.space.tree;
        let below = tree.find_gap(PATCH_ROOM_LEN, &(low..page_down(wish.addr)), overlap);
        let room = match below {
            Some(room) => room,
            None => {
                tree.find_gap_upwards(PATCH_ROOM_LEN, &(page_down(wish.addr)..high), overlap)?
            }
        };
        let hidden = Vma {
            end: room.checked_add(PATCH_ROOM_LEN)?,
            prot: ProtFlags::empty(),
            max_prot: ProtFlags::empty(),
            flags: VmaFlags::HIDDEN,
            backing: Backing::anonymous(),
        };
        tree.insert(room, hidden);
        Some(PatchPermit { prot, room: Some(room) })
    }
}
