//! Where a thread's calls come from: sites that are worth a patch, and those that are being patched.

use syscalls::UserAddr;

use super::super::patch::{Look, Site};
use super::{State, SystrapContext};
use crate::{AddressSpace as _, USER_ADDRESS_LIMIT};

impl SystrapContext {
    /// Notes that a call has trapped, and whether its site is worth a patch.
    pub(super) fn find_site(&self, state: &mut State) {
        let rip = state.regs.rip;
        if rip >= USER_ADDRESS_LIMIT {
            return;
        }
        let look = self.space.sites().count(rip);
        if look == Look::Not {
            return;
        }
        let read = |addr, bytes: &mut [u8]| self.space.read(UserAddr(addr), bytes).unwrap_or(0);
        let number = state.regs.orig_rax;
        state.site = Site::find(rip, number, read);
        if state.site.is_none() && look == Look::Everywhere && self.space.is_alone() {
            state.site = Site::find_covered(rip, number, read);
        }
    }

    /// Moves a thread that has met a breakpoint to where a jump is to lead that is being written there.
    /// Returns whether it is one of those.
    pub(super) fn pass_breakpoint(&self, state: &mut State) -> bool {
        let read = |addr, bytes: &mut [u8]| self.space.read(UserAddr(addr), bytes).unwrap_or(0);
        let Some(rip) = self.space.sites().pass_breakpoint(state.regs.rip, read) else {
            return false;
        };
        state.regs.rip = rip;
        state.regs_dirty = true;
        true
    }
}
