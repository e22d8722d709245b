//! Changing five bytes of text that other threads may be executing.
//!
//! Processors promise to see a store all at once only within eight aligned bytes. Where the five bytes lie in
//! two such words and the process has several threads, the first byte becomes a breakpoint, then the rest
//! changes, then the first byte; in between every processor of the process serialises. Whoever meets the
//! breakpoint meanwhile goes on in the trampoline, where the jump is to lead (AMD64 Architecture Programmer's
//! Manual, volume 2, 7.6.1; Intel SDM, volume 3A, 9.1.3).

use std::collections::BTreeMap;

use sentry_sysmsg::slot::CALL_STORE;

use super::{PAGE, QuietCall, int, quiet};

/// How many bytes change.
pub(super) const LEN: usize = 5;
const WORD: u64 = 8;
const BREAKPOINT: u8 = 0xcc;
const MEMBARRIER_SYNC_CORE: u64 = 1 << 5;
const MEMBARRIER_REGISTER_SYNC_CORE: u64 = 1 << 6;

/// An aligned word of text before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    addr: u64,
    old: u64,
    new: u64,
}

/// What becomes of the five bytes at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    site: u64,
    first: Word,
    /// The word behind, where some of the bytes lie in it.
    second: Option<Word>,
}

impl Change {
    /// Reads the words around the bytes at `site`, which must lie in one page.
    pub(super) fn read(site: u64, read: impl Fn(u64, &mut [u8]) -> usize) -> Option<Self> {
        let end = site.checked_add(LEN as u64)?;
        if site / PAGE != (end - 1) / PAGE {
            return None;
        }
        let word = |addr: u64| {
            let mut bytes = [0; 8];
            let is_read = read(addr, &mut bytes) == bytes.len();
            is_read.then(|| u64::from_le_bytes(bytes)).map(|old| Word { addr, old, new: old })
        };
        let first = word(site & !(WORD - 1))?;
        let next = first.addr + WORD;
        let second = if end > next { Some(word(next)?) } else { None };
        Some(Self { site, first, second })
    }

    /// Says what the bytes are to be.
    pub(super) fn put(&mut self, bytes: [u8; LEN]) {
        for (addr, byte) in (self.site..).zip(bytes) {
            let second = self.second.as_mut().filter(|word| addr >= word.addr);
            let word = second.unwrap_or(&mut self.first);
            word.new = with_byte(word.new, addr - word.addr, byte);
        }
    }

    /// Returns where the bytes are.
    pub(super) fn site(&self) -> u64 {
        self.site
    }

    /// Returns where the jump leads that the bytes become.
    pub(super) fn target(&self) -> Option<u64> {
        let end = self.site + LEN as u64;
        let at = |addr: u64| {
            let word = self.second.filter(|word| addr >= word.addr).unwrap_or(self.first);
            word.new.to_le_bytes().get(usize::try_from(addr - word.addr).ok()?).copied()
        };
        let mut displacement = [0; 4];
        for (addr, byte) in (self.site + 1..).zip(&mut displacement) {
            *byte = at(addr)?;
        }
        Some(end.wrapping_add_signed(i32::from_le_bytes(displacement).into()))
    }

    /// Returns the change that takes this one back.
    pub(super) fn back(&self) -> Self {
        let back = |word: Word| Word { old: word.new, new: word.old, ..word };
        Self { site: self.site, first: back(self.first), second: self.second.map(back) }
    }

    /// Returns whether a thread may meet a breakpoint while this is done.
    pub(super) fn takes_breakpoint(&self, alone: bool) -> bool {
        !alone && self.second.is_some()
    }

    /// Returns the calls that make the change where the text has the protection `prot`. Where the text is
    /// not what it was, nothing changes.
    pub(super) fn calls(&self, prot: i32, alone: bool, calls: &mut Vec<QuietCall>) {
        let page = self.site & !(PAGE - 1);
        let protect = |prot| quiet(libc::SYS_mprotect, [page, PAGE, int(prot), 0, 0, 0]);
        let sync = || quiet(libc::SYS_membarrier, [MEMBARRIER_SYNC_CORE, 0, 0, 0, 0, 0]);
        if !alone {
            calls.push(quiet(libc::SYS_membarrier, [MEMBARRIER_REGISTER_SYNC_CORE, 0, 0, 0, 0, 0]));
            calls.push(sync());
        }
        calls.push(protect(prot | libc::PROT_WRITE));
        let first = self.first;
        match self.second {
            None => calls.push(store(first, first.old, first.new)),
            Some(second) if alone => {
                calls.push(store(first, first.old, first.old));
                calls.push(store(second, second.old, second.new));
                calls.push(store(first, first.old, first.new));
            }
            Some(second) => {
                let broken = |word| with_byte(word, self.site - first.addr, BREAKPOINT);
                calls.push(store(second, second.old, second.old));
                calls.push(store(first, first.old, broken(first.old)));
                calls.push(sync());
                calls.push(store(second, second.old, second.new));
                calls.push(store(first, broken(first.old), broken(first.new)));
                calls.push(sync());
                calls.push(store(first, broken(first.new), first.new));
            }
        }
        calls.push(protect(prot));
        if !alone {
            calls.push(sync());
        }
    }
}

fn store(word: Word, old: u64, new: u64) -> QuietCall {
    (CALL_STORE, [word.addr, old, new, 0, 0, 0])
}

fn with_byte(word: u64, at: u64, byte: u8) -> u64 {
    let shift = 8 * at;
    word & !(0xff << shift) | u64::from(byte) << shift
}

/// The breakpoints that are, or have been, in the text for a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Breakpoints {
    by_site: BTreeMap<u64, Breakpoint>,
}

#[derive(Clone, Debug)]
struct Breakpoint {
    trampoline: u64,
    /// Whether the change is under way.
    is_pending: bool,
}

impl Breakpoints {
    /// Notes that a change is under way.
    pub(super) fn begin(&mut self, site: u64, trampoline: u64) {
        self.by_site.insert(site, Breakpoint { trampoline, is_pending: true });
    }

    /// Notes that no change is under way any more.
    pub(super) fn end(&mut self, site: u64) {
        if let Some(breakpoint) = self.by_site.get_mut(&site) {
            breakpoint.is_pending = false;
        }
    }

    /// Forgets those in a range.
    pub(super) fn forget(&mut self, range: &std::ops::Range<u64>) {
        if self.by_site.range(range.clone()).next().is_some() {
            self.by_site.retain(|site, _| !range.contains(site));
        }
    }

    /// Returns where a thread goes on that has met a breakpoint at `site`, where that was not the application's
    /// own: there is none any more, or it is under way.
    pub(super) fn pass(&self, site: u64, read: impl Fn(u64, &mut [u8]) -> usize) -> Option<u64> {
        let breakpoint = self.by_site.get(&site)?;
        let mut byte = [0];
        let is_own = !breakpoint.is_pending && read(site, &mut byte) == 1 && byte == [BREAKPOINT];
        (!is_own).then_some(breakpoint.trampoline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x40_1000;

    fn text() -> Vec<u8> {
        (0..64).map(|i| 0x40 + i).collect()
    }

    fn reader(text: &[u8]) -> impl Fn(u64, &mut [u8]) -> usize {
        |addr, bytes| {
            let from = usize::try_from(addr - START).unwrap();
            let Some(part) = text.get(from..from + bytes.len()) else { return 0 };
            bytes.copy_from_slice(part);
            bytes.len()
        }
    }

    /// Makes the stores of a list, up to the first that finds something else; returns the text after each.
    fn run(text: &mut [u8], calls: &[QuietCall]) -> Vec<Vec<u8>> {
        let mut steps = Vec::new();
        for (nr, [addr, old, new, ..]) in calls {
            if *nr != CALL_STORE {
                continue;
            }
            assert!(addr.is_multiple_of(8));
            let at = usize::try_from(addr - START).unwrap();
            let place = &mut text[at..at + 8];
            if place != old.to_le_bytes() {
                break;
            }
            place.copy_from_slice(&new.to_le_bytes());
            steps.push(text.to_vec());
        }
        steps
    }

    #[test]
    fn nobody_sees_half_of_a_change() {
        let jump = [0xe9, 1, 2, 3, 4];
        for at in 0..32 {
            let before = text();
            let mut change = Change::read(START + at, reader(&before)).unwrap();
            change.put(jump);
            let at = usize::try_from(at).unwrap();
            let mut after = before.clone();
            after[at..at + LEN].copy_from_slice(&jump);
            for (change, from, to) in
                [(change.clone(), &before, &after), (change.back(), &after, &before)]
            {
                for alone in [false, true] {
                    let mut calls = Vec::new();
                    change.calls(5, alone, &mut calls);
                    let mut now = from.clone();
                    let steps = run(&mut now, &calls);
                    assert_eq!(&now, to, "{at}");
                    for step in steps.iter().filter(|_| !alone) {
                        let seen = &step[at..at + LEN];
                        let is_whole = seen == &from[at..at + LEN] || seen == &to[at..at + LEN];
                        assert!(is_whole || seen[0] == BREAKPOINT, "{at} {seen:x?}");
                    }
                }
            }
            assert_eq!(change.takes_breakpoint(false), at % 8 > 3);
            assert!(!change.takes_breakpoint(true));
        }
    }

    #[test]
    fn text_that_has_changed_is_left_alone() {
        for alone in [false, true] {
            for other in [4, 12] {
                let mut now = text();
                let mut change = Change::read(START + 5, reader(&now)).unwrap();
                change.put([0xe9, 1, 2, 3, 4]);
                now[other] = 0;
                let before = now.clone();
                let mut calls = Vec::new();
                change.calls(5, alone, &mut calls);
                run(&mut now, &calls);
                assert_eq!(now, before);
            }
        }
    }

    #[test]
    fn changes_stay_within_their_page() {
        let read = |_, bytes: &mut [u8]| bytes.len();
        assert!(Change::read(0x40_1ffb, read).is_some());
        assert!(Change::read(0x40_1ffc, read).is_none());
        assert!(Change::read(u64::MAX, read).is_none());
    }

    #[test]
    fn only_own_breakpoints_are_passed() {
        let mut breakpoints = Breakpoints::default();
        let with = |byte: u8| {
            move |_, bytes: &mut [u8]| {
                bytes.fill(byte);
                bytes.len()
            }
        };
        assert_eq!(breakpoints.pass(START, with(0xcc)), None);
        breakpoints.begin(START, 7);
        assert_eq!(breakpoints.pass(START, with(0xcc)), Some(7));
        assert_eq!(breakpoints.pass(START, with(0xe9)), Some(7));
        breakpoints.end(START);
        assert_eq!(breakpoints.pass(START, with(0xcc)), None);
        // A thread that met it before, and comes only now.
        assert_eq!(breakpoints.pass(START, with(0xe9)), Some(7));
        breakpoints.forget(&(START..START + 1));
        assert_eq!(breakpoints.pass(START, with(0xe9)), None);
    }
}
