//! `mprotect(2)`.

use sentry_platform::HostCall;
use syscalls::abi::mm::ProtFlags;
use syscalls::{Errno, SysResult};

use super::{MAX_MAP_COUNT, MemoryLimits, Plan, Purpose, Space};
use crate::mm::vma::{AddrRange, VmaFlags, host_prot};

impl Space {
    /// Gives `range` the protection `prot`. As on Linux, what lies before the first page that
    /// cannot be changed is changed nevertheless.
    ///
    /// # Errors
    /// `ENOMEM` for a hole or an exceeded limit, `EACCES` where the mapped file forbids `prot`.
    pub(crate) fn protect(
        &mut self,
        range: &AddrRange,
        prot: ProtFlags,
        limits: &MemoryLimits,
        plan: &mut Plan<'_>,
    ) -> SysResult<()> {
        let (end, verdict) = self.protectable(range, prot, limits);
        let part = range.start..end;
        if part.is_empty() {
            return verdict;
        }
        if self.tree.len() + self.tree.cuts(&part) > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let mut old = Vec::new();
        self.tree.update(&part, |start, vma| {
            if vma.prot != prot {
                old.push((start, vma.clone()));
                vma.prot = prot;
            }
        });
        if !old.is_empty() {
            let call = HostCall::Mprotect {
                addr: part.start,
                len: part.end.saturating_sub(part.start),
                prot: host_prot(prot),
            };
            plan.push(call, part, Purpose::Protect, old);
        }
        verdict
    }

    /// Returns the start of the stack that contains `addr`, where `PROT_GROWSDOWN` begins.
    ///
    /// # Errors
    /// `ENOMEM` where nothing is mapped, `EINVAL` for anything but a stack.
    pub(crate) fn growsdown_start(&self, addr: u64) -> SysResult<u64> {
        let (start, vma) = self.tree.find(addr).ok_or(Errno::ENOMEM)?;
        if vma.flags.contains(VmaFlags::GROWSDOWN) { Ok(start) } else { Err(Errno::EINVAL) }
    }

    /// Returns how far from the start of `range` on the protection can be changed, and why not
    /// further.
    fn protectable(
        &self,
        range: &AddrRange,
        prot: ProtFlags,
        limits: &MemoryLimits,
    ) -> (u64, SysResult<()>) {
        let mut at = range.start;
        let mut data = self.tree.totals().data;
        for (start, vma) in self.tree.overlapping(range.clone()) {
            if start > at || vma.is_hidden() {
                return (at, Err(Errno::ENOMEM));
            }
            if vma.flags.contains(VmaFlags::SEALED) {
                return (at, Err(Errno::EPERM));
            }
            if !vma.max_prot.contains(prot) {
                return (at, Err(Errno::EACCES));
            }
            let end = vma.end.min(range.end);
            let private = !vma.flags.intersects(VmaFlags::SHARED | VmaFlags::GROWSDOWN);
            if private && prot.contains(ProtFlags::WRITE) && !vma.is_data() {
                data = data.saturating_add(end.saturating_sub(at));
                if data > limits.data {
                    return (at, Err(Errno::ENOMEM));
                }
            }
            at = end;
        }
        if at < range.end { (at, Err(Errno::ENOMEM)) } else { (at, Ok(())) }
    }
}
