//! Memory policies of areas (`mbind(2)`).

use syscalls::{Errno, SysResult};

use super::{MAX_MAP_COUNT, Space};
use crate::mm::vma::{AddrRange, MemoryPolicy, VmaFlags};

impl Space {
    /// Gives the areas in `range` a policy, or none.
    ///
    /// # Errors
    /// `EFAULT` for holes, `ENOMEM` where cutting areas would make too many.
    pub(crate) fn set_policy(
        &mut self,
        range: &AddrRange,
        policy: Option<MemoryPolicy>,
    ) -> SysResult<()> {
        self.check_mapped(range).map_err(|_| Errno::EFAULT)?;
        if self.tree.len() + self.tree.cuts(range) > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let new = VmaFlags::of_policy(policy);
        self.tree.update(range, |_, vma| {
            vma.flags.remove(VmaFlags::POLICY);
            vma.flags |= new;
        });
        Ok(())
    }

    /// Returns the policy of the area at `addr`.
    ///
    /// # Errors
    /// `EFAULT` where nothing is mapped.
    pub(crate) fn policy_at(&self, addr: u64) -> SysResult<Option<MemoryPolicy>> {
        let (_, vma) =
            self.tree.find(addr).filter(|(_, vma)| !vma.is_hidden()).ok_or(Errno::EFAULT)?;
        Ok(vma.flags.policy())
    }

    /// Returns the policies of the areas in `range`.
    pub(crate) fn policies(&self, range: &AddrRange) -> Vec<Option<MemoryPolicy>> {
        self.tree.overlapping(range.clone()).map(|(_, vma)| vma.flags.policy()).collect()
    }
}
