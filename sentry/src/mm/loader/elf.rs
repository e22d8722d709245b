//! ELF headers, all of them checked: the file is hostile input.

use sentry_platform::USER_ADDRESS_LIMIT;
use syscalls::abi::elf::{
    EI_CLASS, EI_DATA, EI_VERSION, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_DYN, ET_EXEC,
    EV_CURRENT, Ehdr, PT_GNU_STACK, PT_INTERP, PT_LOAD, Phdr, SegmentFlags,
};
use syscalls::abi::fs::PATH_MAX;
use syscalls::abi::mm::{PAGE_SIZE, ProtFlags};
use syscalls::{Errno, SysResult};
use zerocopy::FromBytes;

use crate::mm::vma::{AddrRange, page_down, page_up};

/// The most bytes of program headers: as Linux's `load_elf_phdrs()`.
const MAX_HEADERS_SIZE: usize = 65_536;

const PHDR_SIZE: usize = size_of::<Phdr>();

/// A checked ELF file.
#[derive(Clone, Debug)]
pub(crate) struct Elf {
    header: Ehdr,
    segments: Vec<Segment>,
    interpreter: Option<InterpreterPath>,
    executable_stack: bool,
}

/// Where a file names its program interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InterpreterPath {
    /// The offset of the path in the file.
    pub(crate) offset: u64,
    /// Its length with the terminator: 2 to `PATH_MAX`.
    pub(crate) len: usize,
}

/// A segment to be loaded. Its addresses do not wrap around, before any bias.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// The address of its first byte.
    pub(crate) vaddr: u64,
    /// The offset of its first byte in the file.
    pub(crate) offset: u64,
    /// How many bytes come from the file.
    pub(crate) file_size: u64,
    /// How many bytes there are in memory, at least as many.
    pub(crate) memory_size: u64,
    /// The protection.
    pub(crate) prot: ProtFlags,
    pub(super) align: u64,
}

impl Elf {
    /// Checks an ELF file that begins with `head`; `read` reads more of it.
    ///
    /// # Errors
    /// `ENOEXEC` for anything that is no x86-64 program, `EINVAL` and `ENOMEM` for segments that
    /// cannot be mapped, `EIO` where the file ends too early.
    pub(crate) fn read(
        head: &[u8],
        read: &mut dyn FnMut(&mut [u8], u64) -> SysResult<usize>,
    ) -> SysResult<Self> {
        let (header, _) = Ehdr::read_from_prefix(head).map_err(|_| Errno::ENOEXEC)?;
        check_header(&header)?;
        let n = usize::from(header.e_phnum);
        let size = n.checked_mul(PHDR_SIZE).ok_or(Errno::ENOEXEC)?;
        if n == 0 || size > MAX_HEADERS_SIZE {
            return Err(Errno::ENOEXEC);
        }
        let mut bytes = vec![0; size];
        if read(&mut bytes, header.e_phoff)? < size {
            return Err(Errno::EIO);
        }
        let mut elf =
            Self { header, segments: Vec::new(), interpreter: None, executable_stack: false };
        for chunk in bytes.chunks_exact(PHDR_SIZE) {
            let phdr = Phdr::read_from_bytes(chunk).map_err(|_| Errno::ENOEXEC)?;
            elf.add(&phdr)?;
        }
        if elf.segments.is_empty() {
            return Err(Errno::ENOEXEC);
        }
        Ok(elf)
    }

    fn add(&mut self, phdr: &Phdr) -> SysResult<()> {
        match phdr.p_type {
            // Linux maps no pages for a segment without size.
            PT_LOAD if phdr.p_memsz > 0 => self.segments.push(Segment::new(phdr)?),
            PT_INTERP if self.interpreter.is_none() => {
                let len = usize::try_from(phdr.p_filesz).map_err(|_| Errno::ENOEXEC)?;
                if !(2..=PATH_MAX).contains(&len) {
                    return Err(Errno::ENOEXEC);
                }
                self.interpreter = Some(InterpreterPath { offset: phdr.p_offset, len });
            }
            PT_GNU_STACK => {
                let flags = SegmentFlags::from_bits_retain(phdr.p_flags);
                self.executable_stack = flags.contains(SegmentFlags::X);
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns where the program interpreter is named.
    pub(crate) fn interpreter(&self) -> Option<InterpreterPath> {
        self.interpreter
    }

    /// Returns whether the file can be loaded anywhere.
    pub(crate) fn is_position_independent(&self) -> bool {
        self.header.e_type == ET_DYN
    }

    /// Returns whether `PT_GNU_STACK` asks for an executable stack.
    pub(crate) fn wants_executable_stack(&self) -> bool {
        self.executable_stack
    }

    /// Returns the entry point, before any bias.
    pub(crate) fn entry(&self) -> u64 {
        self.header.e_entry
    }

    /// Returns the number of program headers.
    pub(crate) fn n_headers(&self) -> u64 {
        self.header.e_phnum.into()
    }

    /// Returns the segments.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns the pages from the first to the last segment, before any bias.
    pub(crate) fn extent(&self) -> AddrRange {
        let start = self.segments.iter().map(|segment| page_down(segment.vaddr)).min();
        let end = self.segments.iter().filter_map(Segment::end_page).max();
        start.unwrap_or(0)..end.unwrap_or(0)
    }

    /// Returns the largest alignment that a segment asks for, a power of two of at least a page.
    pub(crate) fn alignment(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.align)
            .filter(|align| align.is_power_of_two() && *align <= 1 << 30)
            .fold(PAGE_SIZE, u64::max)
    }

    /// Returns the address of the program headers in memory, before any bias; `None` where no
    /// segment holds them.
    pub(crate) fn headers_address(&self) -> Option<u64> {
        let offset = self.header.e_phoff;
        let holder = self.segments.iter().find(|segment| {
            segment.offset <= offset && offset - segment.offset < segment.file_size
        })?;
        holder.vaddr.checked_add(offset - holder.offset)
    }
}

impl Segment {
    fn new(phdr: &Phdr) -> SysResult<Self> {
        let flags = SegmentFlags::from_bits_retain(phdr.p_flags);
        let mut prot = ProtFlags::empty();
        prot.set(ProtFlags::READ, flags.contains(SegmentFlags::R));
        prot.set(ProtFlags::WRITE, flags.contains(SegmentFlags::W));
        prot.set(ProtFlags::EXEC, flags.contains(SegmentFlags::X));
        let segment = Self {
            vaddr: phdr.p_vaddr,
            offset: phdr.p_offset,
            file_size: phdr.p_filesz,
            memory_size: phdr.p_memsz,
            prot,
            align: phdr.p_align,
        };
        if segment.file_size > segment.memory_size {
            return Err(Errno::EINVAL);
        }
        if segment.file_size > 0 && segment.vaddr % PAGE_SIZE != segment.offset % PAGE_SIZE {
            return Err(Errno::EINVAL);
        }
        let end = segment.end_page().ok_or(Errno::ENOMEM)?;
        let file_end = segment.offset.checked_add(segment.file_size).ok_or(Errno::EINVAL)?;
        if end > USER_ADDRESS_LIMIT || i64::try_from(file_end).is_err() {
            return Err(Errno::ENOMEM);
        }
        Ok(segment)
    }

    fn end_page(&self) -> Option<u64> {
        page_up(self.vaddr.checked_add(self.memory_size)?)
    }
}

fn check_header(header: &Ehdr) -> SysResult<()> {
    let ident = |index: usize| header.e_ident.get(index).copied();
    let good = header.e_ident.starts_with(&ELFMAG)
        && ident(EI_CLASS) == Some(ELFCLASS64)
        && ident(EI_DATA) == Some(ELFDATA2LSB)
        && ident(EI_VERSION) == Some(EV_CURRENT)
        && (header.e_type == ET_EXEC || header.e_type == ET_DYN)
        && header.e_machine == EM_X86_64
        && usize::from(header.e_phentsize) == PHDR_SIZE;
    if good { Ok(()) } else { Err(Errno::ENOEXEC) }
}

#[cfg(test)]
mod tests;
