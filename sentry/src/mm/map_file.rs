//! From the arguments of `mmap(2)` to a request: the checks of Linux's `do_mmap()`, in its order.

use std::sync::Arc;

use syscalls::abi::fs::{OpenFlags, SealFlags, makedev};
use syscalls::abi::mm::{MapFlags, ProtFlags};
use syscalls::{Errno, SysResult};

use super::space::map::{MapRequest, Placement};
use super::vma::{Backing, FileBacking, PROT_RWX, Vma, VmaFlags, is_page_aligned, page_up};
use crate::vfs::{FileType, OpenFile};

/// The arguments of `mmap(2)`.
pub(crate) struct MmapArgs {
    /// The address or a hint.
    pub(crate) addr: u64,
    /// The length.
    pub(crate) len: u64,
    /// The protection; unknown bits count for nothing.
    pub(crate) prot: ProtFlags,
    /// The flags.
    pub(crate) flags: MapFlags,
    /// The file, unless `MAP_ANONYMOUS` is given.
    pub(crate) file: Option<Arc<OpenFile>>,
    /// The offset into the file.
    pub(crate) offset: u64,
}

impl MmapArgs {
    /// Checks the arguments and asks the file, where there is one, what to map.
    ///
    /// # Errors
    /// `EINVAL`, `ENOMEM`, `EOVERFLOW`, `EACCES`, `EPERM`, `ENODEV`, `EOPNOTSUPP` as `mmap(2)`
    /// gives them.
    pub(crate) fn into_request(self, may_lock: bool) -> SysResult<MapRequest> {
        if !is_page_aligned(self.offset) || self.len == 0 {
            return Err(Errno::EINVAL);
        }
        // A kernel without huge-page file systems: no such mappings.
        if self.flags.contains(MapFlags::HUGETLB) {
            return Err(Errno::EINVAL);
        }
        let len = page_up(self.len).ok_or(Errno::ENOMEM)?;
        self.offset.checked_add(len).ok_or(Errno::EOVERFLOW)?;
        if self.flags.contains(MapFlags::LOCKED) && !may_lock {
            return Err(Errno::EPERM);
        }
        let prot = self.prot & PROT_RWX;
        let mut request = MapRequest::anonymous(self.addr, len, self.placement(), prot);
        request.flags = self.area_flags();
        request.populate =
            self.flags.contains(MapFlags::POPULATE) && !self.flags.contains(MapFlags::NONBLOCK);
        match self.file {
            Some(file) => for_file(&mut request, self.flags, &file, self.offset)?,
            None => for_memory(&mut request, self.flags)?,
        }
        Ok(request)
    }

    fn placement(&self) -> Placement {
        if self.flags.contains(MapFlags::FIXED_NOREPLACE) {
            Placement::FixedNoReplace
        } else if self.flags.contains(MapFlags::FIXED) {
            Placement::Fixed
        } else if self.flags.contains(MapFlags::_32BIT) {
            Placement::Low
        } else {
            Placement::Hint
        }
    }

    fn area_flags(&self) -> VmaFlags {
        let mut flags = VmaFlags::empty();
        flags.set(VmaFlags::LOCKED, self.flags.contains(MapFlags::LOCKED));
        flags.set(VmaFlags::NORESERVE, self.flags.contains(MapFlags::NORESERVE));
        flags.set(VmaFlags::NOHUGEPAGE, self.flags.contains(MapFlags::STACK));
        flags
    }
}

fn for_memory(request: &mut MapRequest, flags: MapFlags) -> SysResult<()> {
    match flags.map_type() {
        1 => {
            if flags.contains(MapFlags::GROWSDOWN) {
                return Err(Errno::EINVAL);
            }
            request.flags |= VmaFlags::SHARED;
            request.backing = Backing::SharedAnonymous { object: super::next_id(), offset: 0 };
        }
        2 => request.flags.set(VmaFlags::GROWSDOWN, flags.contains(MapFlags::GROWSDOWN)),
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

fn for_file(
    request: &mut MapRequest,
    flags: MapFlags,
    file: &Arc<OpenFile>,
    offset: u64,
) -> SysResult<()> {
    let mut max_prot = PROT_RWX;
    let is_shared = match flags.map_type() {
        1 => true,
        MapFlags::SHARED_VALIDATE => {
            if flags.has_unknown_bits() || flags.contains(MapFlags::SYNC) {
                return Err(Errno::EOPNOTSUPP);
            }
            true
        }
        2 => false,
        _ => return Err(Errno::EINVAL),
    };
    if is_shared {
        request.flags |= VmaFlags::SHARED;
        let is_append = file.flags() & OpenFlags::APPEND.bits() != 0;
        if request.prot.contains(ProtFlags::WRITE) && (!file.is_writable() || is_append) {
            return Err(Errno::EACCES);
        }
        let is_sealed = file.file.seals().is_ok_and(|seals| {
            SealFlags::from_bits_retain(seals)
                .intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE)
        });
        if is_sealed && request.prot.contains(ProtFlags::WRITE) {
            return Err(Errno::EPERM);
        }
        if !file.is_writable() || is_append || is_sealed {
            max_prot.remove(ProtFlags::WRITE);
        }
    }
    if !file.is_readable() {
        return Err(Errno::EACCES);
    }
    if super::is_noexec(file) {
        if request.prot.contains(ProtFlags::EXEC) {
            return Err(Errno::EPERM);
        }
        max_prot.remove(ProtFlags::EXEC);
    }
    let mappable = match file.file.mappable() {
        Ok(mappable) => mappable,
        Err(Errno::ENODEV) if is_dev_zero(file) => {
            request.max_prot = max_prot;
            return for_memory(request, flags);
        }
        Err(errno) => return Err(errno),
    };
    if flags.contains(MapFlags::GROWSDOWN) {
        return Err(Errno::EINVAL);
    }
    let mode = Vma::map_mode(request.flags, max_prot);
    request.mapping = Some(mappable.map(mode, offset, request.len)?);
    request.max_prot = max_prot;
    request.backing = Backing::File(FileBacking { file: file.clone(), mappable, offset });
    Ok(())
}

/// Returns whether mapping `file` is another way to get zeroed memory.
fn is_dev_zero(file: &OpenFile) -> bool {
    file.file
        .attr()
        .is_ok_and(|attr| attr.file_type() == FileType::CharDevice && attr.rdev == makedev(1, 5))
}
