//! Mapping the segments of ELF files.

use std::sync::Arc;

use sentry_platform::{HostCall, USER_ADDRESS_LIMIT};
use syscalls::abi::mm::{PAGE_SIZE, ProtFlags};
use syscalls::{Errno, SysResult};

use super::elf::{Elf, Segment};
use crate::mm::MemoryManager;
use crate::mm::layout::Chance;
use crate::mm::space::MemoryLimits;
use crate::mm::space::map::{MapRequest, Placement};
use crate::mm::vma::{
    Backing, FileBacking, PROT_RWX, Vma, VmaFlags, is_page_aligned, page_down, page_up,
};
use crate::vfs::OpenFile;

/// Where an ELF file has been put.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Placed {
    /// What has been added to the file's addresses.
    pub(super) bias: u64,
    /// The entry point.
    pub(super) entry: u64,
    /// The program headers, or zero.
    pub(super) phdr: u64,
    /// The end of the last segment.
    pub(super) end: u64,
    pub(super) start_code: u64,
    pub(super) end_code: u64,
    pub(super) start_data: u64,
    pub(super) end_data: u64,
}

/// Maps files into an address space that nobody uses yet.
pub(super) struct Mapper<'a> {
    pub(super) mm: &'a MemoryManager,
    pub(super) limits: &'a MemoryLimits,
    pub(super) calls: &'a mut Vec<HostCall>,
    /// What is to be zeroed once the calls have been made: addresses and lengths below a page.
    pub(super) zeros: Vec<(u64, usize)>,
}

impl Mapper<'_> {
    /// Maps the program itself.
    pub(super) fn map_program(
        &mut self,
        file: &Arc<OpenFile>,
        elf: &Elf,
        chance: &Chance,
        has_interpreter: bool,
    ) -> SysResult<Placed> {
        let hint = if has_interpreter { chance.program_base() } else { 0 };
        let base = self.choose_base(elf, hint)?;
        self.map_at(file, elf, base)
    }

    /// Maps the program interpreter.
    pub(super) fn map_interpreter(&mut self, file: &Arc<OpenFile>, elf: &Elf) -> SysResult<Placed> {
        let base = self.choose_base(elf, 0)?;
        self.map_at(file, elf, base)
    }

    /// Returns what is to be added to the file's addresses.
    fn choose_base(&self, elf: &Elf, hint: u64) -> SysResult<u64> {
        let extent = elf.extent();
        let len = extent.end.saturating_sub(extent.start);
        if !elf.is_position_independent() {
            let free = self.mm.inspect(|space| space.tree.is_free(&extent));
            return if free { Ok(0) } else { Err(Errno::EEXIST) };
        }
        let align = elf.alignment();
        let hint = hint & !(align - 1);
        // Room for the alignment is found with the rest and left free again.
        let room = len.checked_add(align - PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        let wish = MapRequest::anonymous(hint, room, Placement::Hint, ProtFlags::empty());
        let mut no_calls = Vec::new();
        let addr = self.mm.prepare(&mut no_calls, |space, avoid, _| space.place(&wish, avoid))?;
        let start = addr.checked_add(align - 1).ok_or(Errno::ENOMEM)? & !(align - 1);
        Ok(start.wrapping_sub(extent.start))
    }

    fn map_at(&mut self, file: &Arc<OpenFile>, elf: &Elf, bias: u64) -> SysResult<Placed> {
        let mut placed = Placed {
            bias,
            entry: bias.wrapping_add(elf.entry()),
            phdr: elf.headers_address().map_or(0, |addr| bias.wrapping_add(addr)),
            start_code: u64::MAX,
            ..Placed::default()
        };
        for segment in elf.segments() {
            let segment = Segment { vaddr: bias.wrapping_add(segment.vaddr), ..*segment };
            self.map_segment(file, &segment)?;
            placed.note(&segment);
        }
        if placed.entry >= USER_ADDRESS_LIMIT {
            return Err(Errno::EINVAL);
        }
        Ok(placed)
    }

    fn map_segment(&mut self, file: &Arc<OpenFile>, segment: &Segment) -> SysResult<()> {
        let start = page_down(segment.vaddr);
        let within = segment.vaddr - start;
        let file_end = segment.vaddr.checked_add(segment.file_size).ok_or(Errno::ENOMEM)?;
        let end = segment.vaddr.checked_add(segment.memory_size).ok_or(Errno::ENOMEM)?;
        let file_end_page = page_up(file_end).ok_or(Errno::ENOMEM)?;
        let end_page = page_up(end).ok_or(Errno::ENOMEM)?;
        let mut memory_start = start;
        if segment.file_size > 0 {
            let offset = segment.offset.checked_sub(within).ok_or(Errno::EINVAL)?;
            self.map_file(file, start, file_end_page - start, segment.prot, offset)?;
            memory_start = file_end_page;
            if segment.memory_size > segment.file_size && !is_page_aligned(file_end) {
                let len = file_end_page.min(end_page) - file_end;
                self.zeros.push((file_end, usize::try_from(len).unwrap_or(0)));
            }
        }
        if memory_start < end_page {
            let len = end_page - memory_start;
            let request = MapRequest::anonymous(memory_start, len, Placement::Fixed, segment.prot);
            self.map(&request)?;
        }
        Ok(())
    }

    fn map_file(
        &mut self,
        file: &Arc<OpenFile>,
        addr: u64,
        len: u64,
        prot: ProtFlags,
        offset: u64,
    ) -> SysResult<()> {
        let mappable = file.file.mappable()?;
        let mode = Vma::map_mode(VmaFlags::empty(), PROT_RWX);
        let mut request = MapRequest::anonymous(addr, len, Placement::Fixed, prot);
        request.mapping = Some(mappable.map(mode, offset, len)?);
        request.backing = Backing::File(FileBacking { file: file.clone(), mappable, offset });
        self.map(&request)
    }

    fn map(&mut self, request: &MapRequest) -> SysResult<()> {
        let limits = self.limits;
        self.mm
            .prepare(self.calls, |space, avoid, plan| space.map(request, limits, avoid, plan))
            .map(drop)
    }
}

impl Placed {
    fn note(&mut self, segment: &Segment) {
        let file_end = segment.vaddr.saturating_add(segment.file_size);
        self.end = self.end.max(segment.vaddr.saturating_add(segment.memory_size));
        if segment.prot.contains(ProtFlags::EXEC) {
            self.start_code = self.start_code.min(segment.vaddr);
            self.end_code = self.end_code.max(file_end);
        } else if self.start_code == u64::MAX {
            self.start_code = segment.vaddr;
        }
        self.start_data = self.start_data.max(segment.vaddr);
        self.end_data = self.end_data.max(file_end);
    }
}
