//! `mseal(2)`: areas that stay as they are until the program ends.

use syscalls::abi::mm::{
    MADV_DONTFORK, MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_FREE, MADV_REMOVE, MADV_WIPEONFORK,
    ProtFlags,
};
use syscalls::{Errno, SysResult};

use super::{MAX_MAP_COUNT, Space};
use crate::mm::vma::{AddrRange, Vma, VmaFlags};

impl Space {
    /// Seals `range`.
    ///
    /// # Errors
    /// `ENOMEM` for holes.
    pub(crate) fn seal(&mut self, range: &AddrRange) -> SysResult<()> {
        self.check_mapped(range)?;
        if self.tree.len() + self.tree.cuts(range) > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        self.tree.update(range, |_, vma| vma.flags |= VmaFlags::SEALED);
        Ok(())
    }

    /// Checks that all of `range` is mapped.
    ///
    /// # Errors
    /// `ENOMEM` for holes.
    pub(crate) fn check_mapped(&self, range: &AddrRange) -> SysResult<()> {
        let mut at = range.start;
        for (start, vma) in self.tree.overlapping(range.clone()) {
            if start > at || vma.is_hidden() {
                return Err(Errno::ENOMEM);
            }
            at = vma.end;
        }
        if at < range.end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Checks that nothing in `range` is sealed.
    ///
    /// # Errors
    /// `EPERM` where something is.
    pub(crate) fn check_unsealed(&self, range: &AddrRange) -> SysResult<()> {
        let is_sealed = |vma: &Vma| vma.flags.contains(VmaFlags::SEALED);
        let found = self.tree.overlapping(range.clone()).any(|(_, vma)| is_sealed(vma));
        if found { Err(Errno::EPERM) } else { Ok(()) }
    }
}

/// Tells whether an advice would discard what a sealed area keeps from being written.
pub(super) fn forbids(vma: &Vma, advice: i32) -> bool {
    vma.flags.contains(VmaFlags::SEALED)
        && vma.is_private_anonymous()
        && !vma.prot.contains(ProtFlags::WRITE)
        && matches!(
            advice,
            MADV_DONTNEED
                | MADV_DONTNEED_LOCKED
                | MADV_FREE
                | MADV_REMOVE
                | MADV_DONTFORK
                | MADV_WIPEONFORK
        )
}
