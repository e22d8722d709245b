//! Random operations on a [`Space`] against a host that is a map from pages to what is there.

use std::collections::BTreeMap;

use sentry_platform::{HostCall, USER_ADDRESS_LIMIT};
use syscalls::abi::mm::{MapFlags, MremapFlags, PAGE_SIZE, ProtFlags};

use super::map::{MapRequest, Placement};
use super::recover::Recovered;
use super::remap::RemapRequest;
use super::{Avoid, MemoryLimits, Plan, Space, Undo};
use crate::mm::vma::{AddrRange, Backing, VmaFlags, host_prot};

/// A page as the host sees it: protection, and whether it is shared.
type Page = (i32, bool);

#[derive(Default)]
struct Host {
    pages: BTreeMap<u64, Page>,
}

fn pages(addr: u64, len: u64) -> impl Iterator<Item = u64> {
    (0..len / PAGE_SIZE).map(move |n| addr + n * PAGE_SIZE)
}

impl Host {
    fn call(&mut self, call: &HostCall) {
        match *call {
            HostCall::Mmap { addr, len, prot, flags, .. } => {
                let shared = flags & i32::try_from(MapFlags::SHARED.bits()).unwrap() != 0;
                self.pages.extend(pages(addr, len).map(|page| (page, (prot, shared))));
            }
            HostCall::Munmap { addr, len } => {
                self.pages.retain(|page, _| !(addr..addr + len).contains(page));
            }
            HostCall::Mprotect { addr, len, prot } => {
                for page in pages(addr, len) {
                    self.pages.get_mut(&page).expect("mprotect of a hole").0 = prot;
                }
            }
            HostCall::Mremap { addr, old_len, new_len, new_addr, flags } => {
                let page = *self.pages.get(&addr).expect("mremap of a hole");
                if flags == 0 {
                    self.pages.retain(|page, _| !(addr..addr + old_len).contains(page));
                }
                self.pages.extend(pages(new_addr, new_len).map(|at| (at, page)));
            }
            _ => {}
        }
    }
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn prot(&mut self) -> ProtFlags {
        ProtFlags::from_bits_retain(u32::try_from(self.below(8)).unwrap())
    }
}

const LIMITS: MemoryLimits =
    MemoryLimits { address_space: 1 << 40, data: 1 << 40, memlock: 1 << 40, may_lock: true };

const BASE: u64 = 0x1000_0000;

fn space() -> Space {
    let mut space = Space::default();
    space.layout.mmap_base = BASE + 200 * PAGE_SIZE;
    space.layout.start_brk = 0x80_0000;
    space.layout.brk = 0x80_0000;
    space
}

fn assert_agree(space: &Space, host: &Host) {
    let mut expected = BTreeMap::new();
    let mut before: Option<(u64, &crate::mm::vma::Vma)> = None;
    let mut total = 0;
    for (start, vma) in space.tree.iter() {
        if let Some((before_start, before)) = before {
            assert!(before.end <= *start, "areas overlap");
            let joined = before.end == *start && before.can_merge(before_start, vma);
            assert!(!joined, "neighbours at {start:x} are not merged");
        }
        total += vma.end - start;
        for page in pages(*start, vma.end - start) {
            expected.insert(page, (host_prot(vma.prot), vma.is_shared()));
        }
        before = Some((*start, vma));
    }
    assert_eq!(space.tree.totals().total, total);
    assert!(expected == host.pages, "areas and host differ");
}

/// Runs one random operation; returns the address of a mapping that it made where it found the
/// place itself.
fn random_operation(space: &mut Space, rng: &mut Rng, plan: &mut Plan<'_>) -> Option<AddrRange> {
    let no = Avoid { ranges: &[] };
    let addr = BASE + rng.below(220) * PAGE_SIZE;
    let len = (1 + rng.below(12)) * PAGE_SIZE;
    match rng.below(8) {
        0..=2 => {
            let placement = match rng.below(4) {
                0 => Placement::Fixed,
                1 => Placement::FixedNoReplace,
                _ => Placement::Hint,
            };
            let hint = if rng.below(2) == 0 { 0 } else { addr };
            let at = if placement == Placement::Hint { hint } else { addr };
            let mut request = MapRequest::anonymous(at, len, placement, rng.prot());
            if rng.below(3) == 0 {
                request.flags |= VmaFlags::SHARED;
                request.backing = Backing::SharedAnonymous { object: rng.below(3), offset: 0 };
            }
            let found = space.map(&request, &LIMITS, &no, plan).ok()?;
            (placement == Placement::Hint && hint == 0).then_some(found..found + len)
        }
        3 => {
            let _ = space.unmap(&(addr..addr + len), plan);
            None
        }
        4 => {
            let _ = space.protect(&(addr..addr + len), rng.prot(), &LIMITS, plan);
            None
        }
        5 => {
            let brk = space.layout.start_brk + rng.below(40 * PAGE_SIZE);
            space.set_brk(brk, &LIMITS, &no, plan);
            None
        }
        _ => {
            let flags = match rng.below(4) {
                0 => MremapFlags::empty(),
                1 => MremapFlags::MAYMOVE,
                2 => MremapFlags::MAYMOVE | MremapFlags::FIXED,
                _ => MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP,
            };
            let old_len = (1 + rng.below(6)) * PAGE_SIZE;
            let new_len = if flags.contains(MremapFlags::DONTUNMAP) { old_len } else { len };
            let new_addr = BASE + rng.below(220) * PAGE_SIZE;
            let request = RemapRequest { addr, old_len, new_len, flags, new_addr };
            let _ = space.remap(&request, &LIMITS, &no, plan);
            None
        }
    }
}

#[test]
fn areas_and_host_agree_after_random_operations() {
    for seed in 1..5 {
        let (mut space, mut host, mut rng) = (space(), Host::default(), Rng(seed * 0x9e37_79b9));
        for _ in 0..600 {
            let before: Vec<u64> = host.pages.keys().copied().collect();
            let (mut calls, mut undo) = (Vec::new(), Vec::new());
            let mut plan = Plan { calls: &mut calls, undo: &mut undo };
            let found = random_operation(&mut space, &mut rng, &mut plan);
            if let Some(range) = found {
                let expected = highest_gap(&before, range.end - range.start, &space);
                if let Some(expected) = expected {
                    assert_eq!(range.start, expected, "not the highest gap");
                }
            }
            calls.iter().for_each(|call| host.call(call));
            assert_agree(&space, &host);
        }
    }
}

/// Finds the highest gap below the mapping base the slow way.
fn highest_gap(pages_in_use: &[u64], len: u64, space: &Space) -> Option<u64> {
    let mut at = space.layout.mmap_base - len;
    while at >= BASE {
        let range = at..at + len;
        match pages_in_use.iter().find(|page| range.contains(page)) {
            None => return Some(at),
            Some(_) => at -= PAGE_SIZE,
        }
    }
    None
}

#[test]
fn areas_and_host_agree_after_refused_calls() {
    for seed in 1..8 {
        let (mut space, mut host, mut rng) = (space(), Host::default(), Rng(seed * 0x51ed_270b));
        for _ in 0..400 {
            let (mut calls, mut undo): (Vec<HostCall>, Vec<Undo>) = (Vec::new(), Vec::new());
            let brk = space.layout.brk;
            let mut plan = Plan { calls: &mut calls, undo: &mut undo };
            random_operation(&mut space, &mut rng, &mut plan);
            let refused = rng.below(3) == 0 && !calls.is_empty();
            let n = if refused { rng.below(calls.len() as u64) } else { calls.len() as u64 };
            let n = usize::try_from(n).unwrap();
            for call in calls.iter().take(n) {
                host.call(call);
            }
            if refused {
                // A refused mapping leaves anything at its place.
                if let HostCall::Mmap { addr, len, .. } = calls[n] {
                    host.call(&HostCall::Munmap { addr, len });
                }
                let mut recovery = Vec::new();
                let mut recovery_undo = Vec::new();
                let mut plan = Plan { calls: &mut recovery, undo: &mut recovery_undo };
                assert_eq!(space.recover(n, true, undo, &mut plan), Recovered::Yes);
                recovery.iter().for_each(|call| host.call(call));
                if n == 0 {
                    assert_eq!(space.layout.brk, brk);
                }
            }
            assert_agree(&space, &host);
        }
    }
}

#[test]
fn hidden_areas_survive_what_the_application_does() {
    let mut space = space();
    let hidden = BASE + 10 * PAGE_SIZE;
    let mut request = MapRequest::anonymous(hidden, PAGE_SIZE, Placement::Fixed, ProtFlags::READ);
    request.flags = VmaFlags::HIDDEN;
    let (mut calls, mut undo) = (Vec::new(), Vec::new());
    let mut plan = Plan { calls: &mut calls, undo: &mut undo };
    let no = Avoid { ranges: &[] };
    space.map(&request, &LIMITS, &no, &mut plan).expect("free");
    let around = BASE..BASE + 20 * PAGE_SIZE;
    let over = MapRequest::anonymous(BASE, 20 * PAGE_SIZE, Placement::Fixed, ProtFlags::READ);

    assert!(space.map(&over, &LIMITS, &no, &mut plan).is_err());
    assert!(space.unmap(&around, &mut plan).is_ok());
    assert!(space.protect(&around, ProtFlags::WRITE, &LIMITS, &mut plan).is_err());
    assert!(space.tree.find(hidden).is_some_and(|(_, vma)| vma.prot == ProtFlags::READ));
    assert_eq!(space.tree.totals().total, 0);
}

#[test]
fn a_range_may_end_within_a_hidden_area() {
    let mut space = space();
    let at = |page: u64| BASE + page * PAGE_SIZE;
    let (mut calls, mut undo) = (Vec::new(), Vec::new());
    let mut plan = Plan { calls: &mut calls, undo: &mut undo };
    let no = Avoid { ranges: &[] };
    for (page, n_pages, flags) in [(0, 2, VmaFlags::empty()), (2, 4, VmaFlags::HIDDEN)] {
        let len = n_pages * PAGE_SIZE;
        let mut request = MapRequest::anonymous(at(page), len, Placement::Fixed, ProtFlags::READ);
        request.flags = flags;
        space.map(&request, &LIMITS, &no, &mut plan).expect("free");
    }

    let name: std::sync::Arc<[u8]> = b"name".as_slice().into();
    assert!(space.set_name(&(at(1)..at(3)), Some(&name)).is_ok());
    assert!(space.set_name(&(at(3)..at(4)), Some(&name)).is_ok());
    assert!(space.unmap(&(at(0)..at(4)), &mut plan).is_ok());
    let left = space.tree.find(at(4)).map(|(start, vma)| (start, vma.end));
    assert_eq!(left, Some((at(2), at(6))));
}

#[test]
fn ranges_in_flight_are_avoided() {
    let mut space = space();
    let top = space.layout.mmap_base;
    let range = top - 3 * PAGE_SIZE..top - PAGE_SIZE;
    let (mut calls, mut undo) = (Vec::new(), Vec::new());
    let mut plan = Plan { calls: &mut calls, undo: &mut undo };
    let request = MapRequest::anonymous(0, 2 * PAGE_SIZE, Placement::Hint, ProtFlags::READ);
    let addr =
        space.map(&request, &LIMITS, &Avoid { ranges: std::slice::from_ref(&range) }, &mut plan);
    assert_eq!(addr, Ok(top - 5 * PAGE_SIZE));
}

#[test]
fn limits_are_obeyed() {
    let mut space = space();
    let limits = MemoryLimits {
        address_space: 8 * PAGE_SIZE,
        data: 4 * PAGE_SIZE,
        memlock: 0,
        may_lock: false,
    };
    let (mut calls, mut undo) = (Vec::new(), Vec::new());
    let mut plan = Plan { calls: &mut calls, undo: &mut undo };
    let no = Avoid { ranges: &[] };
    let mut map = |pages: u64, prot: ProtFlags| {
        let request = MapRequest::anonymous(0, pages * PAGE_SIZE, Placement::Hint, prot);
        space.map(&request, &limits, &no, &mut plan)
    };
    assert_eq!(map(5, ProtFlags::WRITE), Err(syscalls::Errno::ENOMEM));
    assert!(map(5, ProtFlags::READ).is_ok());
    assert_eq!(map(4, ProtFlags::READ), Err(syscalls::Errno::ENOMEM));
    assert!(map(3, ProtFlags::WRITE).is_ok());
    let huge = MapRequest::anonymous(0, USER_ADDRESS_LIMIT, Placement::Hint, ProtFlags::READ);
    assert_eq!(space.map(&huge, &LIMITS, &no, &mut plan), Err(syscalls::Errno::ENOMEM));
}
