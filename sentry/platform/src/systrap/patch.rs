//! Replacing system call instructions by jumps.
//!
//! `mov $nr, %eax; syscall` (five and two bytes) becomes `jmp trampoline`; the `syscall` stays, so
//! that a thread between the two instructions, or one that restarts the call, still finds it. The
//! trampoline jumps to the stub. The five bytes change by one compare-and-exchange of eight bytes
//! within a cache line, so no processor ever sees half of a jump.

use std::collections::HashMap;
use std::sync::LazyLock;

use sentry_sysmsg::layout::{ENTRIES_MAGIC, Entry};
use sentry_sysmsg::slot::CALL_STORE;

use super::zygote::STUB;
use crate::{PATCH_ROOM_LEN, PatchPermit, PatchWish};

/// At which trap of a site it is patched. Most sites of a short-lived program run once.
const FIRST_WISH: u8 = 2;
/// After how many traps a site is left alone.
const LAST_WISH: u8 = 5;
/// Never again.
const REFUSED: u8 = u8::MAX;
/// How many sites of a process are watched.
const MAX_SITES: usize = 16_384;
const TRAMPOLINE_LEN: u64 = 32;
const CACHE_LINE: u64 = 64;
const PAGE: u64 = 4096;
/// The site: `mov $imm32, %eax; syscall`.
const SITE_LEN: u64 = 7;
const PATCH_LEN: u64 = 5;
/// How far a room may be from a site, with some distance from the limit of a jump.
const REACH: u64 = 0x7ff0_0000;
const MEMBARRIER_SYNC_CORE: u64 = 1 << 5;
const MEMBARRIER_REGISTER_SYNC_CORE: u64 = 1 << 6;

/// A host call that the platform makes for itself: number and arguments.
pub(super) type QuietCall = (u32, [u64; 6]);

/// A range of trampolines.
#[derive(Clone, Debug)]
struct Room {
    base: u64,
    used: u64,
}

/// What is known of an address space's sites.
#[derive(Clone, Debug, Default)]
pub(super) struct Sites {
    traps: HashMap<u64, u8>,
    rooms: Vec<Room>,
}

/// A site whose bytes have been read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    addr: u64,
    number: u32,
    /// Where the exchanged bytes start, and what they are now.
    window: u64,
    old: u64,
}

impl Sites {
    /// Counts a trap at the `syscall` before `rip`; returns whether it should be looked at.
    pub(super) fn count(&mut self, rip: u64) -> bool {
        if self.traps.len() >= MAX_SITES && !self.traps.contains_key(&rip) {
            return false;
        }
        let traps = self.traps.entry(rip).or_insert(0);
        if *traps == REFUSED {
            return false;
        }
        *traps += 1;
        if *traps > LAST_WISH {
            *traps = REFUSED;
        }
        (FIRST_WISH..=LAST_WISH).contains(traps)
    }

    /// Leaves a site alone for good.
    pub(super) fn refuse(&mut self, rip: u64) {
        self.traps.insert(rip, REFUSED);
    }

    /// Returns what to ask the owner for.
    pub(super) fn wish(&self, site: &Site) -> PatchWish {
        PatchWish { addr: site.addr, len: SITE_LEN, needs_room: self.room(site.addr).is_none() }
    }

    /// What a forked child knows. Where others may take room meanwhile, it gets none.
    pub(super) fn inherited(&self, alone: bool) -> Self {
        let mut copy = self.clone();
        if !alone {
            for room in &mut copy.rooms {
                room.used = PATCH_ROOM_LEN;
            }
        }
        copy
    }

    /// Returns the calls that patch a site, or none where there is no room.
    pub(super) fn patch(
        &mut self,
        site: &Site,
        permit: &PatchPermit,
        alone: bool,
    ) -> Vec<QuietCall> {
        let mut calls = Vec::new();
        if let Some(base) = permit.room {
            self.rooms.push(Room { base, used: 0 });
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            calls.push(quiet(
                libc::SYS_mmap,
                [base, PATCH_ROOM_LEN, int(prot), int(flags), u64::MAX, 0],
            ));
        }
        let Some(room) = self.room(site.addr) else { return Vec::new() };
        let Some(room) = self.rooms.get_mut(room) else { return Vec::new() };
        let at = room.base + room.used;
        room.used += TRAMPOLINE_LEN;
        let Some((trampoline, jump)) = assemble(site, at) else { return Vec::new() };
        for (i, word) in (0..).zip(trampoline) {
            calls.push((CALL_STORE, [at + 8 * i, 0, word, 0, 0, 0]));
        }
        let page = site.window & !(PAGE - 1);
        let writable = permit.prot | libc::PROT_WRITE;
        if !alone {
            calls.push(quiet(libc::SYS_membarrier, [MEMBARRIER_REGISTER_SYNC_CORE, 0, 0, 0, 0, 0]));
            calls.push(quiet(libc::SYS_membarrier, [MEMBARRIER_SYNC_CORE, 0, 0, 0, 0, 0]));
        }
        calls.push(quiet(libc::SYS_mprotect, [page, PAGE, int(writable), 0, 0, 0]));
        calls.push((CALL_STORE, [site.window, site.old, jump, 0, 0, 0]));
        calls.push(quiet(libc::SYS_mprotect, [page, PAGE, int(permit.prot), 0, 0, 0]));
        if !alone {
            calls.push(quiet(libc::SYS_membarrier, [MEMBARRIER_SYNC_CORE, 0, 0, 0, 0, 0]));
        }
        calls
    }

    fn room(&self, addr: u64) -> Option<usize> {
        let near = |room: &Room| {
            let far = room.base.abs_diff(addr).max((room.base + PATCH_ROOM_LEN).abs_diff(addr));
            far < REACH && room.used + TRAMPOLINE_LEN <= PATCH_ROOM_LEN
        };
        self.rooms.iter().position(near)
    }
}

impl Site {
    /// Recognises the site whose `syscall` ends at `rip`, given a way to read memory.
    pub(super) fn find(
        rip: u64,
        number: u64,
        read: impl Fn(u64, &mut [u8]) -> bool,
    ) -> Option<Self> {
        let addr = rip.checked_sub(SITE_LEN)?;
        let window = window(addr)?;
        let mut code = [0; 7];
        let mut old = [0; 8];
        if !read(addr, &mut code) || !read(window, &mut old) {
            return None;
        }
        let [0xb8, n0, n1, n2, n3, 0x0f, 0x05] = code else { return None };
        let found = u32::from_le_bytes([n0, n1, n2, n3]);
        (u64::from(found) == number).then_some(Self {
            addr,
            number: found,
            window,
            old: u64::from_le_bytes(old),
        })
    }

    /// Returns the address behind the `syscall`.
    pub(super) fn end(&self) -> u64 {
        self.addr + SITE_LEN
    }
}

/// Returns where an exchange of eight bytes can start that changes the site at `addr` at once.
fn window(addr: u64) -> Option<u64> {
    let aligned = addr & !7;
    if addr - aligned + PATCH_LEN <= 8 {
        return Some(aligned);
    }
    let line = addr & !(CACHE_LINE - 1);
    let end = line + CACHE_LINE;
    (*IS_INTEL && addr + PATCH_LEN <= end).then(|| addr.min(end - 8))
}

/// Whether any eight bytes within a cache line change at once. (Others promise it only for aligned
/// ones.)
static IS_INTEL: LazyLock<bool> = LazyLock::new(|| {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
});

/// Returns the trampoline at `at`, and the eight bytes for the site's window.
fn assemble(site: &Site, at: u64) -> Option<([u64; 4], u64)> {
    let displacement = |from: u64, to: u64| {
        i32::try_from(to.wrapping_sub(from).cast_signed()).ok().map(i32::to_le_bytes)
    };
    let mut code = Vec::with_capacity(32);
    // lea return(%rip), %rax
    code.extend([0x48, 0x8d, 0x05]);
    code.extend(displacement(at + 7, site.end())?);
    // mov $nr, %r11d
    code.extend([0x41, 0xbb]);
    code.extend(site.number.to_le_bytes());
    // jmp *(%rip), over three bytes of padding
    code.extend([0xff, 0x25]);
    code.extend(5_u32.to_le_bytes());
    code.extend([0xcc; 5]);
    code.extend(entry(site.number)?.to_le_bytes());
    let words = std::array::from_fn(|i| {
        let bytes = code.iter().skip(8 * i).take(8);
        bytes.rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
    });
    let mut bytes = site.old.to_le_bytes();
    let offset = usize::try_from(site.addr - site.window).ok()?;
    let jump = [&[0xe9][..], &displacement(site.addr + PATCH_LEN, at)?].concat();
    bytes.get_mut(offset..offset + jump.len())?.copy_from_slice(&jump);
    Some((words, u64::from_le_bytes(bytes)))
}

/// Returns the stub's entry point for calls with this number.
fn entry(number: u32) -> Option<u64> {
    let entry = match i64::from(number) {
        libc::SYS_getpid => Entry::Getpid,
        libc::SYS_gettid => Entry::Gettid,
        libc::SYS_getppid => Entry::Getppid,
        libc::SYS_getuid => Entry::Getuid,
        libc::SYS_geteuid => Entry::Geteuid,
        libc::SYS_getgid => Entry::Getgid,
        libc::SYS_getegid => Entry::Getegid,
        libc::SYS_getpgrp => Entry::Getpgrp,
        _ => Entry::Forward,
    };
    let table =
        STUB.chunks_exact(16).position(|chunk| chunk.starts_with(&ENTRIES_MAGIC.to_le_bytes()))?
            * 16;
    let place = table + 8 * usize::try_from(entry as u32).ok()?;
    Some(u64::from_le_bytes(STUB.get(place..place + 8)?.try_into().ok()?))
}

fn quiet(nr: libc::c_long, args: [u64; 6]) -> QuietCall {
    (u32::try_from(nr).unwrap_or(u32::MAX), args)
}

fn int(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_lies_in_the_stub() {
        for number in [39, 186, 110, 102, 107, 104, 108, 111, 0] {
            let address = entry(number).unwrap();
            assert_eq!(address >> 16, sentry_sysmsg::layout::STUB_BASE >> 16, "{number}");
        }
    }

    #[test]
    fn windows_hold_the_patch_and_stay_in_their_line() {
        for addr in 0x1000..0x1100_u64 {
            let Some(window) = window(addr) else { continue };
            assert!(window <= addr && addr + PATCH_LEN <= window + 8);
            assert_eq!(window / CACHE_LINE, (window + 7) / CACHE_LINE);
        }
    }

    #[test]
    fn trampolines_jump_where_they_should() {
        let site = Site {
            addr: 0x40_1003,
            number: 0x1234,
            window: 0x40_1000,
            old: u64::from_le_bytes([1, 2, 3, 0xb8, 0x34, 0x12, 0, 0]),
        };
        let (words, jump) = assemble(&site, 0x50_0000).unwrap();
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(code[..3], [0x48, 0x8d, 0x05]);
        assert_eq!(i32::from_le_bytes(code[3..7].try_into().unwrap()), 0x40_100a - 0x50_0007);
        assert_eq!(code[7..13], [0x41, 0xbb, 0x34, 0x12, 0, 0]);
        assert_eq!(code[13..19], [0xff, 0x25, 5, 0, 0, 0]);
        assert_eq!(u64::from_le_bytes(code[24..32].try_into().unwrap()), entry(0).unwrap());
        let jump = jump.to_le_bytes();
        assert_eq!(jump[..4], [1, 2, 3, 0xe9]);
        assert_eq!(i32::from_le_bytes(jump[4..].try_into().unwrap()), 0x50_0000 - 0x40_1008);
    }
}
