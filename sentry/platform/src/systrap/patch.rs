//! Replacing system call instructions by jumps.
//!
//! Most sites are `mov $nr, %eax; syscall` (five and two bytes): the `mov` becomes
//! `jmp trampoline`; the `syscall` stays, so that a thread between the two instructions, or one that
//! restarts the call, still finds it. Another `mov` of a constant before the `syscall`, or the last
//! instruction before that of `syscall(3)`, is moved to the trampoline. The trampoline jumps to the stub.
//! No processor ever sees half of a jump: see [`text`].
//!
//! `xor %eax, %eax; syscall; cmp $imm, %rax`, which is how glibc reads, has too little room: there the
//! jump covers the `syscall`, and the trampoline has a copy of both and of the `cmp`. This is done
//! only where the process has a single thread, where no jump in the text leads into the covered
//! bytes, and for sites that have trapped often. Addresses in the trampoline and in the
//! original are translated into each other whenever the sentry reads or sets registers.
//!
//! # What the application can see
//! Its own text, as bytes, and the trampoline as the place of an interrupt.

mod text;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use sentry_sysmsg::layout::{ENTRIES_MAGIC, Entry};
use sentry_sysmsg::slot::CALL_STORE;

use self::text::{Breakpoints, Change};
use super::zygote::STUB;
use crate::{PATCH_ROOM_LEN, PatchPermit, PatchWish};

/// At which trap of a site it is patched. Most sites of a short-lived program run once.
const FIRST_WISH: u16 = 8;
/// At which trap it is tried for the last time, where that has not helped.
const LAST_WISH: u16 = 11;
/// Never again.
const REFUSED: u16 = u16::MAX;
/// How many sites of a process are watched.
const MAX_SITES: usize = 16_384;
/// At which traps a site that needs a search of the text is looked at.
const SEARCHES: std::ops::RangeInclusive<u16> = 200..=202;
/// How far that search goes, and in which steps.
const SEARCH_LEN: u64 = 4 << 20;
const SEARCH_STEP: u64 = 64 << 10;
/// What two pieces of the search share: more than any displacement has.
const OVERLAP: u64 = 8;
/// How many sites are put back at once.
const MAX_UNPATCHED: usize = 8;
const TRAMPOLINE_LEN: u64 = 64;
const PAGE: u64 = 4096;
/// The common site: five bytes and the `syscall`.
const SITE_LEN: u64 = 7;
/// `xor %eax, %eax; syscall; cmp $imm32, %rax`.
const COVERED_LEN: u64 = 10;
/// How many of its bytes no jump may lead to.
const INSIDE: u32 = 9;
/// Where in it the `syscall` ends.
const COVERED_RETURN: u64 = 4;
/// How far a room may be from a site, with some distance from the limit of a jump.
const REACH: u64 = 0x7ff0_0000;

/// A host call that the platform makes for itself: number and arguments.
pub(super) type QuietCall = (u32, [u64; 6]);

/// How hard to look for a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Not now.
    Not,
    /// At the bytes of the site.
    AtSite,
    /// Through the text as well.
    Everywhere,
}

/// A range of trampolines.
#[derive(Clone, Debug)]
struct Room {
    base: u64,
    used: u64,
}

/// What is known of an address space's sites.
#[derive(Clone, Debug, Default)]
pub(super) struct Sites {
    traps: HashMap<u64, u16>,
    rooms: Vec<Room>,
    /// Covered sites: where each starts and where its trampoline continues after the call.
    covered: BTreeMap<u64, u64>,
    /// Where the text has been changed, by site: the how manieth change that was, and what it was.
    changed: BTreeMap<u64, (usize, Change)>,
    n_changes: usize,
    /// What is to be taken back of that, the last change last.
    leftover: Vec<Change>,
    breakpoints: Breakpoints,
    /// Whether no more sites are to be patched.
    is_closed: bool,
}

/// A site whose bytes have been read.
#[derive(Clone, Debug)]
pub(super) struct Site {
    addr: u64,
    shape: Shape,
    change: Change,
}

/// What a site looks like.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// `mov $number, %eax; syscall`.
    Number(u32),
    /// Another instruction of five bytes that can be anywhere; `syscall`.
    Moved([u8; 5]),
    /// `xor %eax, %eax; syscall; cmp $imm32, %rax`, the last of which is given.
    Covered([u8; 6]),
}

impl Sites {
    /// Counts a trap at the `syscall` before `rip`; returns how often to look for a site there:
    /// not at all, for one that is easily found, or for any.
    pub(super) fn count(&mut self, rip: u64) -> Look {
        if self.is_closed || self.traps.len() >= MAX_SITES && !self.traps.contains_key(&rip) {
            return Look::Not;
        }
        let traps = self.traps.entry(rip).or_insert(0);
        *traps = traps.saturating_add(1);
        if SEARCHES.contains(traps) {
            Look::Everywhere
        } else if (FIRST_WISH..=LAST_WISH).contains(traps) {
            Look::AtSite
        } else {
            Look::Not
        }
    }

    /// Leaves a site alone for good.
    pub(super) fn refuse(&mut self, rip: u64) {
        self.traps.insert(rip, REFUSED);
    }

    /// Returns what to ask the owner for.
    pub(super) fn wish(&self, site: &Site) -> PatchWish {
        PatchWish { addr: site.addr, len: site.len(), needs_room: self.room(site.addr).is_none() }
    }

    /// Forgets the sites in text that is replaced or taken away.
    pub(super) fn forget(&mut self, range: Range<u64>) {
        if self.changed.range(range.clone()).next().is_some() {
            self.changed.retain(|site, _| !range.contains(site));
        }
        self.leftover.retain(|change| !range.contains(&change.site()));
        self.breakpoints.forget(&range);
        if self.covered.range(range.clone()).next().is_some() {
            self.covered.retain(|site, _| !range.contains(site));
        }
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
        if self.is_closed {
            return calls;
        }
        let Some(room) = self.room(site.addr) else { return calls };
        let Some(room) = self.rooms.get_mut(room) else { return calls };
        let at = room.base + room.used;
        room.used += TRAMPOLINE_LEN;
        let Some((trampoline, change)) = assemble(site, at) else { return calls };
        if let Shape::Covered(_) = site.shape {
            if !alone {
                return calls;
            }
            self.covered.insert(site.addr, at + COVERED_TRAMPOLINE_RETURN);
        }
        for (i, word) in (0..).zip(trampoline) {
            calls.push((CALL_STORE, [at + 8 * i, 0, word, 0, 0, 0]));
        }
        change.calls(permit.prot, alone, &mut calls);
        if change.takes_breakpoint(alone) {
            self.breakpoints.begin(site.addr, at);
        }
        self.changed.insert(site.addr, (self.n_changes, change));
        self.n_changes += 1;
        calls
    }

    /// Returns the calls that put some patched sites back, the sites, and whether there are more. Where
    /// `prot` gives no protection, the text is not what it was. The trampolines stay, for threads that are in
    /// them.
    pub(super) fn unpatch(
        &mut self,
        alone: bool,
        prot: &dyn Fn(u64) -> Option<i32>,
    ) -> (Vec<QuietCall>, Vec<u64>, bool) {
        self.is_closed = true;
        // A word may have been changed for two sites.
        let mut changed: Vec<_> = std::mem::take(&mut self.changed).into_values().collect();
        changed.sort_unstable_by_key(|(order, _)| *order);
        self.leftover.extend(changed.into_iter().map(|(_, change)| change));
        let mut calls = Vec::new();
        let mut sites = Vec::new();
        for _ in 0..MAX_UNPATCHED {
            let Some(change) = self.leftover.pop() else { break };
            let Some(prot) = prot(change.site()) else { continue };
            change.back().calls(prot, alone, &mut calls);
            if change.takes_breakpoint(alone)
                && let Some(trampoline) = change.target()
            {
                self.breakpoints.begin(change.site(), trampoline);
                sites.push(change.site());
            }
        }
        (calls, sites, !self.leftover.is_empty())
    }

    /// Is told that the calls that change a site have been made.
    pub(super) fn done(&mut self, site: u64) {
        self.breakpoints.end(site);
    }

    /// Returns where a thread goes on that has met a breakpoint before `rip` which is none of the application's.
    pub(super) fn pass_breakpoint(
        &self,
        rip: u64,
        read: impl Fn(u64, &mut [u8]) -> usize,
    ) -> Option<u64> {
        self.breakpoints.pass(rip.checked_sub(1)?, read)
    }

    /// Returns what the application should see instead of `rip`: an address in its own text.
    pub(super) fn to_text(&self, rip: u64) -> u64 {
        for (site, back) in &self.covered {
            let start = back - COVERED_TRAMPOLINE_RETURN;
            if rip < start || rip >= start + TRAMPOLINE_LEN {
                continue;
            }
            return match rip.checked_sub(*back) {
                // Before the call.
                None if rip == back - 2 => site + COVERED_RETURN - 2,
                None => *site,
                Some(0) => site + COVERED_RETURN,
                Some(_) => site + COVERED_LEN,
            };
        }
        rip
    }

    /// Returns where execution goes on that should go on at `rip`.
    pub(super) fn to_trampoline(&self, rip: u64) -> u64 {
        if self.is_closed {
            return rip;
        }
        match self.covered.range(..rip).next_back() {
            Some((site, back)) if rip == site + COVERED_RETURN => *back,
            Some((site, back)) if rip == site + COVERED_RETURN - 2 => back - 2,
            _ => rip,
        }
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
    /// Recognises the site whose `syscall` ends at `rip`, given a way to read memory, which returns
    /// how much could be read.
    pub(super) fn find(
        rip: u64,
        number: u64,
        read: impl Fn(u64, &mut [u8]) -> usize,
    ) -> Option<Self> {
        let addr = rip.checked_sub(SITE_LEN)?;
        let mut code = [0; 9];
        // The mapping may start with the site, or a byte before.
        let is_read = [0, 1, 2].into_iter().any(|skip| {
            let start = addr.saturating_sub(2) + skip;
            let room = code.get_mut(usize::try_from(skip).unwrap_or(0)..).unwrap_or_default();
            (skip == 0 || start.is_multiple_of(PAGE)) && read(start, room) == room.len()
        });
        if !is_read {
            return None;
        }
        let shape = match code {
            // The end of a longer instruction, perhaps.
            [_, 0x40..=0x4f, ..] => return None,
            [_, _, 0xb8, n0, n1, n2, n3, 0x0f, 0x05] => {
                Shape::Number(u32::from_le_bytes([n0, n1, n2, n3]))
            }
            // What the C library's syscall() does last: `mov %r9, %r8; mov 8(%rsp), %r9; syscall`.
            [0x89, 0xc8, 0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05] => {
                Shape::Moved([0x4c, 0x8b, 0x4c, 0x24, 0x08])
            }
            [p0, p1, op @ 0xb9..=0xbf, n0, n1, n2, n3, 0x0f, 0x05] if !takes_operand(p0, p1) => {
                Shape::Moved([op, n0, n1, n2, n3])
            }
            _ => return None,
        };
        if matches!(shape, Shape::Number(found) if u64::from(found) != number) {
            return None;
        }
        Some(Self { addr, shape, change: Change::read(addr, read)? })
    }

    /// Recognises a site whose patch covers the `syscall` itself, and makes sure that no jump leads
    /// into it.
    pub(super) fn find_covered(
        rip: u64,
        number: u64,
        read: impl Fn(u64, &mut [u8]) -> usize,
    ) -> Option<Self> {
        let addr = rip.checked_sub(COVERED_RETURN)?;
        let mut code = [0; 10];
        if number != 0 || read(addr, &mut code) != code.len() {
            return None;
        }
        let [0x31, 0xc0, 0x0f, 0x05, rest @ ..] = code else { return None };
        if rest[..2] != [0x48, 0x3d] || is_entered(addr, &read) {
            return None;
        }
        Some(Self { addr, shape: Shape::Covered(rest), change: Change::read(addr, read)? })
    }

    /// Returns where the site starts.
    pub(super) fn addr(&self) -> u64 {
        self.addr
    }

    /// Returns whether other threads must not exist when the site is patched.
    pub(super) fn needs_solitude(&self) -> bool {
        matches!(self.shape, Shape::Covered(_))
    }

    fn len(&self) -> u64 {
        if self.needs_solitude() { COVERED_LEN } else { SITE_LEN }
    }

    /// Returns the address behind the `syscall`.
    pub(super) fn end(&self) -> u64 {
        self.addr + if self.needs_solitude() { COVERED_RETURN } else { SITE_LEN }
    }
}

/// Returns whether two bytes can be the opcode of an instruction without an immediate whose operands
/// follow: `mov 0x2d0(%rcx), %edi` ends like `mov $0x2d0, %ecx`. What compilers do not make before
/// a call is left out.
fn takes_operand(before: u8, opcode: u8) -> bool {
    match opcode {
        // Arithmetic, `movslq`, `test`, `xchg`, `mov`, `lea`.
        0x01..=0x3f if matches!(opcode & 7, 1 | 3) => true,
        0x63 | 0x85 | 0x87 | 0x89 | 0x8b | 0x8d => true,
        // Vectors, `imul`, `movzx`, `movsx`.
        0x10 | 0x11 | 0x28 | 0x29 | 0x6e | 0x6f | 0x7e | 0x7f | 0xd6 => before == 0x0f,
        0xaf | 0xb6 | 0xb7 | 0xbe | 0xbf => before == 0x0f,
        _ => false,
    }
}

/// Returns whether anything around that could be a relative jump leads behind the first byte of the
/// covered site at `addr`.
fn is_entered(addr: u64, read: &impl Fn(u64, &mut [u8]) -> usize) -> bool {
    // A displacement may lie across the border of two pieces.
    let mut buffer = vec![0; usize::try_from(SEARCH_STEP + OVERLAP).unwrap_or(0)];
    let page = addr & !(PAGE - 1);
    // Outwards in both directions, as far as memory goes: what is left below, page by page.
    let mut start = page;
    for step in [SEARCH_STEP, PAGE] {
        let len = usize::try_from(step + OVERLAP).unwrap_or(0);
        let Some(piece) = buffer.get_mut(..len) else { return true };
        while page - start < SEARCH_LEN && start > step {
            if read(start - step, piece) < piece.len() {
                break;
            }
            start -= step;
            if leads_into(piece, start, addr) {
                return true;
            }
        }
    }
    let mut end = page;
    while end - page < SEARCH_LEN {
        let n = read(end, &mut buffer);
        if leads_into(buffer.get(..n).unwrap_or_default(), end, addr) {
            return true;
        }
        if n < buffer.len() {
            break;
        }
        end += SEARCH_STEP;
    }
    false
}

/// Returns whether any four bytes of `text`, which starts at `start`, are the displacement of a jump
/// into the covered bytes at `addr`, or any byte near them is.
fn leads_into(text: &[u8], start: u64, addr: u64) -> bool {
    // Where a displacement of zero that lies at `start` leads, seen from the first byte inside. Modulo
    // 2^32, so that the processor compares several at once; that finds too much rather than too little.
    let low = low_half(start.wrapping_add(4).wrapping_sub(addr + 1));
    for (phase, offset) in (0..4).zip(0..) {
        let words = text.get(offset..).unwrap_or_default().chunks_exact(4);
        let mut place = low.wrapping_add(phase);
        let mut leads = false;
        for word in words {
            let &[b0, b1, b2, b3] = word else { return true };
            let target = u32::from_le_bytes([b0, b1, b2, b3]).wrapping_add(place);
            leads |= target < INSIDE;
            place = place.wrapping_add(4);
        }
        if leads {
            return true;
        }
    }
    let inside = |target: u64| target.wrapping_sub(addr + 1) < u64::from(INSIDE);
    // Short jumps: `jcc`, `loop` and `jrcxz`, `jmp`.
    let near = usize::try_from(addr.saturating_sub(start + 140)).unwrap_or(0);
    let first = start + u64::try_from(near).unwrap_or(0);
    let nearby = text.get(near..).unwrap_or_default().windows(2).take(300);
    for (at, bytes) in (first..).zip(nearby) {
        let &[op, displacement] = bytes else { return true };
        let is_jump = matches!(op, 0x70..=0x7f | 0xe0..=0xe3 | 0xeb);
        let target = at.wrapping_add(2).wrapping_add_signed(i64::from(displacement.cast_signed()));
        // The covered bytes themselves are no jumps.
        if is_jump && inside(target) && !(addr..addr + COVERED_LEN).contains(&at) {
            return true;
        }
    }
    false
}

/// Where in the trampoline of a covered site the call returns to.
const COVERED_TRAMPOLINE_RETURN: u64 = 29;

/// Returns the trampoline at `at`, and the change of the site.
fn assemble(site: &Site, at: u64) -> Option<([u64; 8], Change)> {
    let mut code = Vec::with_capacity(64);
    let here = |code: &[u8]| at + u64::try_from(code.len()).unwrap_or(0);
    let (number, back) = match site.shape {
        Shape::Number(number) => (Some(number), site.end()),
        Shape::Moved(instruction) => {
            code.extend(instruction);
            (None, site.end())
        }
        Shape::Covered(_) => (Some(0), at + COVERED_TRAMPOLINE_RETURN),
    };
    match number {
        // mov $nr, %r11d
        Some(number) => {
            code.extend([0x41, 0xbb]);
            code.extend(number.to_le_bytes());
        }
        // mov %rax, %r11
        None => code.extend([0x49, 0x89, 0xc3]),
    }
    // lea return(%rip), %rax
    code.extend([0x48, 0x8d, 0x05]);
    code.extend(displacement(here(&code) + 4, back)?);
    // jmp *(%rip), which reads the word that follows
    code.extend([0xff, 0x25, 0, 0, 0, 0]);
    code.extend(entry(number.unwrap_or(u32::MAX))?.to_le_bytes());
    if let Shape::Covered(compare) = site.shape {
        // syscall, for whoever makes the call again
        code.extend([0x0f, 0x05]);
        code.extend(compare);
        code.push(0xe9);
        code.extend(displacement(here(&code) + 4, site.addr + COVERED_LEN)?);
    }
    let words = std::array::from_fn(|i| {
        let bytes = code.iter().skip(8 * i).take(8);
        bytes.rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
    });
    let [d0, d1, d2, d3] = displacement(site.addr + text::LEN as u64, at)?;
    let mut change = site.change.clone();
    change.put([0xe9, d0, d1, d2, d3]);
    Some((words, change))
}

fn low_half(value: u64) -> u32 {
    let [b0, b1, b2, b3, ..] = value.to_le_bytes();
    u32::from_le_bytes([b0, b1, b2, b3])
}

fn displacement(from: u64, to: u64) -> Option<[u8; 4]> {
    i32::try_from(to.wrapping_sub(from).cast_signed()).ok().map(i32::to_le_bytes)
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

    /// A site in text of one byte again and again.
    fn site(addr: u64, shape: Shape, byte: u8) -> Site {
        let read = |_, bytes: &mut [u8]| {
            bytes.fill(byte);
            bytes.len()
        };
        Site { addr, shape, change: Change::read(addr, read).unwrap() }
    }

    #[test]
    fn trampolines_jump_where_they_should() {
        let site = site(0x40_1003, Shape::Number(0x1234), 1);
        let (words, change) = assemble(&site, 0x50_0000).unwrap();
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(code[..6], [0x41, 0xbb, 0x34, 0x12, 0, 0]);
        assert_eq!(code[6..9], [0x48, 0x8d, 0x05]);
        assert_eq!(i32::from_le_bytes(code[9..13].try_into().unwrap()), 0x40_100a - 0x50_000d);
        assert_eq!(code[13..19], [0xff, 0x25, 0, 0, 0, 0]);
        assert_eq!(u64::from_le_bytes(code[19..27].try_into().unwrap()), entry(0).unwrap());
        assert_eq!(change.target(), Some(0x50_0000));
        let mut calls = Vec::new();
        change.calls(5, true, &mut calls);
        let stored = calls.iter().filter(|(nr, _)| *nr == CALL_STORE);
        let [(_, [0x40_1000, old, new, ..])] = stored.collect::<Vec<_>>()[..] else { panic!() };
        assert_eq!(old.to_le_bytes(), [1; 8]);
        assert_eq!(new.to_le_bytes()[..4], [1, 1, 1, 0xe9]);
        let displacement = i32::from_le_bytes(new.to_le_bytes()[4..].try_into().unwrap());
        assert_eq!(displacement, 0x50_0000 - 0x40_1008);
    }

    #[test]
    fn covered_sites_continue_in_their_trampoline() {
        let compare = [0x48, 0x3d, 0, 0xf0, 0xff, 0xff];
        let site = site(0x40_1000, Shape::Covered(compare), 0);
        let (words, _) = assemble(&site, 0x50_0000).unwrap();
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let back = usize::try_from(COVERED_TRAMPOLINE_RETURN).unwrap();
        assert_eq!(code[back - 2..back], [0x0f, 0x05]);
        assert_eq!(code[back..back + 6], compare);
        assert_eq!(code[back + 6], 0xe9);
        let mut sites = Sites::default();
        let permit = PatchPermit { prot: 5, room: Some(0x50_0000) };
        // The room is there, and no more.
        assert_eq!(sites.patch(&site, &permit, false).len(), 1);
        assert!(!sites.patch(&site, &PatchPermit { prot: 5, room: None }, true).is_empty());
        let (&addr, &back) = sites.covered.iter().next().unwrap();
        assert_eq!(sites.to_trampoline(addr + 4), back);
        assert_eq!(sites.to_trampoline(addr + 2), back - 2);
        for rip in [addr + 2, addr + 4] {
            assert_eq!(sites.to_text(sites.to_trampoline(rip)), rip);
        }
        assert_eq!(sites.to_text(back + 6), addr + 10);
        assert_eq!(sites.to_text(0x1234), 0x1234);
        sites.forget(addr + 1..addr + 0x1000);
        assert_eq!(sites.to_trampoline(addr + 4), back);
        sites.forget(addr - 0x1000..addr + 1);
        assert_eq!(sites.to_trampoline(addr + 4), addr + 4);
    }

    #[test]
    fn operands_are_no_moves() {
        let find = |code: &[u8]| {
            let mut text = [0x90; 64];
            // The last five bytes lie in eight that every processor changes at once.
            let end = 45;
            text[end - code.len()..end].copy_from_slice(code);
            text[end..end + 2].copy_from_slice(&[0x0f, 5]);
            let read = |addr: u64, bytes: &mut [u8]| {
                let from = usize::try_from(addr - 0x40_1000).unwrap();
                bytes.copy_from_slice(&text[from..from + bytes.len()]);
                bytes.len()
            };
            Site::find(0x40_1002 + u64::try_from(end).unwrap(), 39, read).is_some()
        };
        // mov $39, %eax; mov $0x2d0, %ecx
        assert!(find(&[0xb8, 39, 0, 0, 0, 0xb9, 0xd0, 2, 0, 0]));
        // mov %rsp, %rdi; mov $0x2d0, %ecx
        assert!(find(&[0x48, 0x89, 0xe7, 0xb9, 0xd0, 2, 0, 0]));
        // mov 0x2d0(%rcx), %edi
        assert!(!find(&[0x8b, 0xb9, 0xd0, 2, 0, 0]));
        // lea 0x2d0(%rbx), %rdi
        assert!(!find(&[0x48, 0x8d, 0xbb, 0xd0, 2, 0, 0]));
        // movzbl 0x2d0(%rcx), %edi
        assert!(!find(&[0x0f, 0xb6, 0xb9, 0xd0, 2, 0, 0]));
        // mov $39, %r8d
        assert!(!find(&[0x41, 0xb8, 39, 0, 0, 0]));
    }

    #[test]
    fn a_site_may_start_its_mapping() {
        for n_before in 0..4 {
            let start = 0x40_1000;
            let text =
                [&vec![0x90; n_before][..], &[0xb8, 39, 0, 0, 0, 0x0f, 5, 0x90, 0x90]].concat();
            let read = |addr: u64, bytes: &mut [u8]| {
                let Some(from) = addr.checked_sub(start) else { return 0 };
                let from = usize::try_from(from).unwrap();
                let part = text.get(from..).unwrap_or_default();
                let n = part.len().min(bytes.len());
                bytes[..n].copy_from_slice(&part[..n]);
                n
            };
            let end = start + u64::try_from(n_before).unwrap() + 7;
            assert!(Site::find(end, 39, read).is_some(), "{n_before}");
        }
    }

    #[test]
    fn jumps_into_a_covered_site_are_found() {
        let addr = 0x10_1000;
        let start = 0x10_0000;
        let mut text = vec![0x90; 0x2000];
        text[0x1000..0x1004].copy_from_slice(&[0x31, 0xc0, 0x0f, 0x05]);
        assert!(!leads_into(&text, start, addr));
        let mut short = text.clone();
        short[0xff0..0xff2].copy_from_slice(&[0xeb, 0x10]);
        assert!(leads_into(&short, start, addr));
        let mut long = text.clone();
        long[0x100..0x104].copy_from_slice(&0xefe_u32.to_le_bytes());
        assert!(leads_into(&long, start, addr));
        // At any place.
        for at in 0x100..0x108 {
            let mut text = text.clone();
            let displacement = u32::try_from(0x1003 - (at + 4)).unwrap();
            text[at..at + 4].copy_from_slice(&displacement.to_le_bytes());
            assert!(leads_into(&text, start, addr), "{at:#x}");
        }
        // To the first byte is no harm.
        long[0x100..0x104].copy_from_slice(&0xefc_u32.to_le_bytes());
        assert!(!leads_into(&long, start, addr));
    }

    #[test]
    fn the_search_goes_through_all_of_the_text() {
        let start = 0x40_0000;
        let addr = 0x54_3010;
        let plain = vec![0x90; 0x25_8000];
        let look = |text: &[u8]| {
            is_entered(addr, &|from, bytes: &mut [u8]| {
                let Some(from) = from.checked_sub(start) else { return 0 };
                let part = text.get(usize::try_from(from).unwrap()..).unwrap_or_default();
                let n = part.len().min(bytes.len());
                bytes[..n].copy_from_slice(&part[..n]);
                n
            })
        };
        assert!(!look(&plain));
        // The edges, and places across the borders of what is read at once.
        for at in [0, 1, 0x2ffe, 0x3000, 0x12_fffd, 0x14_2ffe, 0x15_2ffd, 0x15_3000, 0x25_7ffc] {
            let mut text = plain.clone();
            let target = addr + 4;
            let displacement = target.wrapping_sub(start + at + 4);
            let at = usize::try_from(at).unwrap();
            text[at..at + 4].copy_from_slice(&low_half(displacement).to_le_bytes());
            assert!(look(&text), "{at:#x}");
        }
    }
}
