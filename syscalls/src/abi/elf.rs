//! ELF files and the auxiliary vector (`linux/elf.h`, `linux/auxvec.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first four bytes.
pub const ELFMAG: [u8; 4] = *b"\x7fELF";
/// Where the class is in `e_ident`.
pub const EI_CLASS: usize = 4;
/// Where the byte order is in `e_ident`.
pub const EI_DATA: usize = 5;
/// Where the version is in `e_ident`.
pub const EI_VERSION: usize = 6;
/// Where the ABI is in `e_ident`.
pub const EI_OSABI: usize = 7;
pub const ELFCLASS64: u8 = 2;
pub const ELFDATA2LSB: u8 = 1;
pub const EV_CURRENT: u8 = 1;
pub const EM_X86_64: u16 = 62;
pub const EM_AARCH64: u16 = 183;

constants! {
    /// Types of files.
    ET_NAMES: u16 {
        ET_NONE = 0;
        ET_REL = 1;
        ET_EXEC = 2;
        ET_DYN = 3;
        ET_CORE = 4;
    }
}

/// Corresponds to `Elf64_Ehdr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Ehdr {
    pub e_ident: [u8; 16],
    pub e_type: u16,
    pub e_machine: u16,
    pub e_version: u32,
    pub e_entry: u64,
    pub e_phoff: u64,
    pub e_shoff: u64,
    pub e_flags: u32,
    pub e_ehsize: u16,
    pub e_phentsize: u16,
    pub e_phnum: u16,
    pub e_shentsize: u16,
    pub e_shnum: u16,
    pub e_shstrndx: u16,
}

/// Corresponds to `Elf64_Phdr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Phdr {
    pub p_type: u32,
    pub p_flags: u32,
    pub p_offset: u64,
    pub p_vaddr: u64,
    pub p_paddr: u64,
    pub p_filesz: u64,
    pub p_memsz: u64,
    pub p_align: u64,
}

/// Corresponds to `Elf64_Shdr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Shdr {
    pub sh_name: u32,
    pub sh_type: u32,
    pub sh_flags: u64,
    pub sh_addr: u64,
    pub sh_offset: u64,
    pub sh_size: u64,
    pub sh_link: u32,
    pub sh_info: u32,
    pub sh_addralign: u64,
    pub sh_entsize: u64,
}

/// Corresponds to `Elf64_Sym`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Sym {
    pub st_name: u32,
    pub st_info: u8,
    pub st_other: u8,
    pub st_shndx: u16,
    pub st_value: u64,
    pub st_size: u64,
}

/// Corresponds to `Elf64_Dyn`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Dyn {
    pub d_tag: i64,
    pub d_val: u64,
}

/// Corresponds to `Elf64_Nhdr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Nhdr {
    pub n_namesz: u32,
    pub n_descsz: u32,
    pub n_type: u32,
}

constants! {
    /// Types of segments.
    PT_NAMES: u32 {
        PT_NULL = 0;
        PT_LOAD = 1;
        PT_DYNAMIC = 2;
        PT_INTERP = 3;
        PT_NOTE = 4;
        PT_SHLIB = 5;
        PT_PHDR = 6;
        PT_TLS = 7;
        PT_GNU_EH_FRAME = 0x6474_e550;
        PT_GNU_STACK = 0x6474_e551;
        PT_GNU_RELRO = 0x6474_e552;
        PT_GNU_PROPERTY = 0x6474_e553;
    }
}

flags! {
    /// Permissions of segments.
    pub struct SegmentFlags: u32 as "PF_" {
        X = 1;
        W = 2;
        R = 4;
    }
}

constants! {
    /// Types of sections.
    SHT_NAMES: u32 {
        SHT_NULL = 0;
        SHT_PROGBITS = 1;
        SHT_SYMTAB = 2;
        SHT_STRTAB = 3;
        SHT_RELA = 4;
        SHT_HASH = 5;
        SHT_DYNAMIC = 6;
        SHT_NOTE = 7;
        SHT_NOBITS = 8;
        SHT_REL = 9;
        SHT_DYNSYM = 11;
    }
}

constants! {
    /// Tags of the dynamic section.
    DYNAMIC_NAMES: i64 {
        DT_NULL = 0;
        DT_NEEDED = 1;
        DT_PLTRELSZ = 2;
        DT_HASH = 4;
        DT_STRTAB = 5;
        DT_SYMTAB = 6;
        DT_RELA = 7;
        DT_RELASZ = 8;
        DT_RELAENT = 9;
        DT_STRSZ = 0xa;
        DT_SYMENT = 0xb;
        DT_INIT = 0xc;
        DT_FINI = 0xd;
        DT_SONAME = 0xe;
        DT_RPATH = 0xf;
        DT_SYMBOLIC = 0x10;
        DT_REL = 0x11;
        DT_RELSZ = 0x12;
        DT_RELENT = 0x13;
        DT_PLTREL = 0x14;
        DT_DEBUG = 0x15;
        DT_TEXTREL = 0x16;
        DT_JMPREL = 0x17;
        DT_GNU_HASH = 0x6fff_fef5;
        DT_VERSYM = 0x6fff_fff0;
        DT_VERDEF = 0x6fff_fffc;
        DT_VERDEFNUM = 0x6fff_fffd;
    }
}

constants! {
    /// Entries of the auxiliary vector.
    AUXV_NAMES: u64 {
        AT_NULL = 0;
        AT_IGNORE = 1;
        AT_EXECFD = 2;
        AT_PHDR = 3;
        AT_PHENT = 4;
        AT_PHNUM = 5;
        AT_PAGESZ = 6;
        AT_BASE = 7;
        AT_FLAGS = 8;
        AT_ENTRY = 9;
        AT_NOTELF = 10;
        AT_UID = 11;
        AT_EUID = 12;
        AT_GID = 13;
        AT_EGID = 14;
        AT_PLATFORM = 15;
        AT_HWCAP = 16;
        AT_CLKTCK = 17;
        AT_SECURE = 23;
        AT_BASE_PLATFORM = 24;
        AT_RANDOM = 25;
        AT_HWCAP2 = 26;
        AT_RSEQ_FEATURE_SIZE = 27;
        AT_RSEQ_ALIGN = 28;
        AT_EXECFN = 31;
        AT_SYSINFO_EHDR = 33;
        AT_MINSIGSTKSZ = 51;
    }
}
