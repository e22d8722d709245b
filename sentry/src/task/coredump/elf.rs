//! The layout of a core file: headers and notes (`linux/elfcore.h`).

use syscalls::abi::mm::{PAGE_SIZE, ProtFlags};
use syscalls::abi::signal::Siginfo;
use syscalls::arch::x86_64::Regs;
use zerocopy::{Immutable, IntoBytes};

const EHDR_LEN: u64 = 64;
const PHDR_LEN: u64 = 56;
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
pub(super) const NT_PRSTATUS: u32 = 1;
pub(super) const NT_FPREGSET: u32 = 2;
pub(super) const NT_PRPSINFO: u32 = 3;
pub(super) const NT_AUXV: u32 = 6;
pub(super) const NT_X86_XSTATE: u32 = 0x202;
pub(super) const NT_SIGINFO: u32 = 0x5349_4749;
pub(super) const NT_FILE: u32 = 0x4649_4c45;
const NS_PER_US: u64 = 1_000;
const US_PER_S: u64 = 1_000_000;

/// Corresponds to `struct elf_prstatus`.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
pub(super) struct Prstatus {
    /// `struct elf_siginfo`.
    pub(super) si_signo: i32,
    pub(super) si_code: i32,
    pub(super) si_errno: i32,
    pub(super) pr_cursig: i16,
    pub(super) pad0: u16,
    pub(super) pr_sigpend: u64,
    pub(super) pr_sighold: u64,
    pub(super) pr_pid: u32,
    pub(super) pr_ppid: u32,
    pub(super) pr_pgrp: u32,
    pub(super) pr_sid: u32,
    /// Seconds and microseconds.
    pub(super) pr_utime: [u64; 2],
    pub(super) pr_stime: [u64; 2],
    pub(super) pr_cutime: [u64; 2],
    pub(super) pr_cstime: [u64; 2],
    pub(super) pr_reg: Regs,
    pub(super) pr_fpvalid: i32,
    pub(super) pad1: u32,
}

/// Corresponds to `struct elf_prpsinfo`.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
pub(super) struct Prpsinfo {
    pub(super) pr_state: u8,
    pub(super) pr_sname: u8,
    pub(super) pr_zomb: u8,
    pub(super) pr_nice: i8,
    pub(super) pad0: u32,
    pub(super) pr_flag: u64,
    pub(super) pr_uid: u32,
    pub(super) pr_gid: u32,
    pub(super) pr_pid: u32,
    pub(super) pr_ppid: u32,
    pub(super) pr_pgrp: u32,
    pub(super) pr_sid: u32,
    pub(super) pr_fname: [u8; 16],
    pub(super) pr_psargs: [u8; 80],
}

/// A part of memory as the file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) len: u64,
    /// How much of it is in the file.
    pub(super) dumped: u64,
    pub(super) prot: ProtFlags,
}

/// Returns seconds and microseconds.
pub(super) fn timeval(ns: u64) -> [u64; 2] {
    let us = ns / NS_PER_US;
    [us / US_PER_S, us % US_PER_S]
}

/// Returns the beginning of `text` with zeros behind it.
pub(super) fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().take(N.saturating_sub(1)).zip(text) {
        *to = *from;
    }
    out
}

/// Appends a note.
pub(super) fn push_note(out: &mut Vec<u8>, owner: &str, kind: u32, data: &[u8]) {
    let lens = [owner.len() + 1, data.len()].map(|len| u32::try_from(len).unwrap_or(u32::MAX));
    for word in [lens[0], lens[1], kind] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(owner.as_bytes());
    out.push(0);
    align(out, 4);
    out.extend_from_slice(data);
    align(out, 4);
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// Returns the contents of `NT_SIGINFO`.
pub(super) fn siginfo(info: &Siginfo) -> &[u8] {
    info.as_bytes()
}

/// Returns the contents of `NT_FILE`: for each mapping of a file start, end, offset in bytes, name.
pub(super) fn files(mappings: &[(u64, u64, u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [mappings.len() as u64, PAGE_SIZE] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for (start, end, offset, _) in mappings {
        for word in [*start, *end, offset / PAGE_SIZE] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
    for (.., name) in mappings {
        out.extend_from_slice(name);
        out.push(0);
    }
    out
}

/// Returns everything that comes before the memory, which begins on a page of its own.
pub(super) fn head(notes: &[u8], segments: &[Segment]) -> Vec<u8> {
    let n_headers = segments.len() as u64 + 1;
    let notes_at = EHDR_LEN + n_headers * PHDR_LEN;
    let mut out = Vec::new();
    out.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [ET_CORE, EM_X86_64] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    out.extend_from_slice(&1u32.to_le_bytes());
    for word in [0, EHDR_LEN, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&0u32.to_le_bytes());
    // There are never more areas than fit (`vm.max_map_count`).
    let n_headers = u16::try_from(n_headers).unwrap_or(u16::MAX);
    for half in [64, 56, n_headers, 0, 0, 0u16] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    let notes_len = notes.len() as u64;
    push_header(&mut out, PT_NOTE, 0, [notes_at, 0, notes_len, 0, 4]);
    let mut at = notes_at.saturating_add(notes_len).next_multiple_of(PAGE_SIZE);
    for segment in segments {
        let fields = [at, segment.start, segment.dumped, segment.len, PAGE_SIZE];
        push_header(&mut out, PT_LOAD, flags(segment.prot), fields);
        at = at.saturating_add(segment.dumped);
    }
    out.extend_from_slice(notes);
    align(&mut out, 4096);
    out
}

/// Appends a program header: offset, address, both lengths, alignment.
fn push_header(out: &mut Vec<u8>, kind: u32, flags: u32, fields: [u64; 5]) {
    let [offset, addr, in_file, in_memory, alignment] = fields;
    for half in [kind, flags] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    for word in [offset, addr, 0, in_file, in_memory, alignment] {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

fn flags(prot: ProtFlags) -> u32 {
    [(ProtFlags::READ, 4), (ProtFlags::WRITE, 2), (ProtFlags::EXEC, 1)]
        .into_iter()
        .filter(|(flag, _)| prot.contains(*flag))
        .fold(0, |flags, (_, bit)| flags | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_abi() {
        assert_eq!(size_of::<Prstatus>(), 336);
        assert_eq!(std::mem::offset_of!(Prstatus, pr_reg), 112);
        assert_eq!(size_of::<Prpsinfo>(), 136);
    }

    #[test]
    fn notes_are_aligned() {
        let mut out = Vec::new();
        push_note(&mut out, "CORE", NT_AUXV, &[1, 2, 3]);
        assert_eq!(out.len(), 12 + 8 + 4);
        assert_eq!(out.get(..20), Some(&b"\x05\0\0\0\x03\0\0\0\x06\0\0\0CORE\0\0\0\0"[..]));
    }

    #[test]
    fn memory_begins_on_a_page() {
        let segment = Segment { start: 0x1000, len: 0x3000, dumped: 0x2000, prot: ProtFlags::READ };
        let head = head(&[0; 100], &[segment, segment]);
        assert_eq!(head.len(), 4096);
        let word = |at: usize| u64::from_le_bytes(*head[at..].first_chunk().unwrap());
        let second = 64 + 2 * 56;
        assert_eq!(word(64 + 8), 64 + 3 * 56);
        assert_eq!(word(second + 8), 4096 + 0x2000);
        assert_eq!([word(second + 32), word(second + 40)], [0x2000, 0x3000]);
    }
}
