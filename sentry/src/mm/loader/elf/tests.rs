//! Tests of the reader of ELF files.

use syscalls::abi::elf::PT_NOTE;
use zerocopy::{FromZeros, IntoBytes};

use super::*;

fn header() -> Ehdr {
    let mut header = Ehdr::new_zeroed();
    header.e_ident[..4].copy_from_slice(&ELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_DYN;
    header.e_machine = EM_X86_64;
    header.e_phentsize = 56;
    header.e_phoff = 64;
    header
}

fn file(mut header: Ehdr, phdrs: &[Phdr]) -> Vec<u8> {
    header.e_phnum = u16::try_from(phdrs.len()).unwrap();
    let mut bytes = header.as_bytes().to_vec();
    phdrs.iter().for_each(|phdr| bytes.extend_from_slice(phdr.as_bytes()));
    bytes
}

fn parse(bytes: &[u8]) -> SysResult<Elf> {
    let head = &bytes[..bytes.len().min(256)];
    Elf::read(head, &mut |dst, offset| {
        let at = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let n = dst.len().min(bytes.len() - at);
        dst[..n].copy_from_slice(&bytes[at..at + n]);
        Ok(n)
    })
}

fn load(vaddr: u64, offset: u64, file_size: u64, memory_size: u64) -> Phdr {
    Phdr {
        p_type: PT_LOAD,
        p_flags: 5,
        p_offset: offset,
        p_vaddr: vaddr,
        p_paddr: vaddr,
        p_filesz: file_size,
        p_memsz: memory_size,
        p_align: 0x1000,
    }
}

#[test]
fn good_file_is_described() {
    let note = Phdr { p_type: PT_NOTE, ..load(0, 0, 1, 1) };
    let interp = Phdr { p_type: PT_INTERP, ..load(0x200, 0x200, 28, 28) };
    let stack = Phdr { p_type: PT_GNU_STACK, p_flags: 7, ..load(0, 0, 0, 0) };
    let text = load(0, 0, 0x1234, 0x1234);
    let data = Phdr { p_flags: 6, ..load(0x3f00, 0x2f00, 0x200, 0x2000) };
    let elf = parse(&file(header(), &[note, interp, text, data, stack])).unwrap();
    assert_eq!(elf.extent(), 0..0x6000);
    assert_eq!(elf.interpreter(), Some(InterpreterPath { offset: 0x200, len: 28 }));
    assert!(elf.wants_executable_stack());
    assert_eq!(elf.headers_address(), Some(64));
}

#[test]
fn foreign_files_are_refused() {
    let good = [load(0, 0, 1, 1)];
    let refused = |change: fn(&mut Ehdr)| {
        let mut header = header();
        change(&mut header);
        assert_eq!(parse(&file(header, &good)).unwrap_err(), Errno::ENOEXEC);
    };
    refused(|header| header.e_ident[0] = 0);
    refused(|header| header.e_ident[EI_CLASS] = 1);
    refused(|header| header.e_ident[EI_DATA] = 2);
    refused(|header| header.e_machine = 3);
    refused(|header| header.e_type = 1);
    refused(|header| header.e_phentsize = 32);
    assert!(parse(b"\x7fELF").is_err());
    assert!(parse(&file(header(), &[])).is_err());
}

#[test]
fn segments_that_cannot_be_are_refused() {
    for bad in [
        load(0, 0, 2, 1),
        load(0x1000, 0x10, 1, 1),
        load(u64::MAX - 0x1000, u64::MAX - 0x1000, 1, 0x2000),
        load(USER_ADDRESS_LIMIT, 0, 0, 0x1000),
        load(0, i64::MAX.unsigned_abs() & !0xfff, 0x1000, 0x1000),
    ] {
        assert!(parse(&file(header(), &[bad])).is_err(), "{bad:?}");
    }
}

/// No bytes make the parser panic, and whatever it accepts is within bounds.
#[test]
fn random_files_never_panic() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let good = file(header(), &[load(0, 0, 0x1000, 0x1000), load(0x2000, 0x1000, 0x10, 0x4000)]);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random() % 6 {
            let at = usize::try_from(random()).unwrap() % bytes.len();
            let value = [0, 0xff, 0x80, 0x7f, random().to_le_bytes()[0]];
            bytes[at] = value[usize::try_from(random()).unwrap() % value.len()];
        }
        bytes.truncate(bytes.len() - usize::try_from(random() % 20).unwrap());
        if let Ok(elf) = parse(&bytes) {
            let extent = elf.extent();
            assert!(extent.start <= extent.end && extent.end <= USER_ADDRESS_LIMIT);
            assert!(elf.alignment().is_power_of_two());
            let _ = elf.headers_address();
        }
    }
}
