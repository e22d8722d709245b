//! Files that are lent to a process: the sentry's side of `sentry_sysmsg::file`.
//!
//! The descriptor of a file that is only read is pinned, so that its number means nothing else as long as the file is
//! lent. A file that is written as well is mapped by the process, which keeps no descriptor; where it is lent no
//! more, the mapping goes with the next answer that any thread of the process gets. It is what the process
//! could have had as a shared mapping of its own, and it is lent nothing so that it could not map for writing.
//!
//! No thread may ever write to a file through the window on another one. So nothing is lent before the thread that
//! maps it has come back from that ([`Window::Coming`]), nothing is mapped where another mapping may be yet
//! ([`Window::Going`]), and nothing is unmapped or lent once more while a thread holds the place's lock.
//!
//! Everything in the shared memory is what the application says.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use sentry_host::clock::{self, Clock};
use sentry_sysmsg::Files;
use sentry_sysmsg::file::{CHANGES_SHIFT, N_FILES, Place, UMASK};
use sentry_sysmsg::layout;
use sentry_sysmsg::ring::{
    ENTRY_DEVICE, ENTRY_SET, ENTRY_ZEROS, LEASE_SHIFT, N_RINGS, POSITION, TAKEN_BACK,
};
use syscalls::SysResult;
use syscalls::abi::poll::EpollEvent;
use zerocopy::IntoBytes;

use super::fds::FdCache;
use super::lock;
use super::patch::QuietCall;
use super::region::Mapping;
use super::spin::{self, Rate};
use super::streams::next_lease;
use crate::HostCall;
use crate::lent::{FileSource, FileToLend, Lending, LentFile, LentMask, ToWrite, Written};

/// The first window, as `HostCall::MapStream` calls it.
pub(super) const FIRST_WINDOW: u64 = N_RINGS as u64;

/// How many answers threads of a process get until a window goes through which nothing has been lent at all.
const GRACE: u32 = 256;

/// The files of a process.
#[derive(Debug)]
pub(super) struct LentFiles {
    region: Arc<OwnedFd>,
    fds: Arc<Mutex<FdCache>>,
    /// What the process sees, once there was a file.
    shown: OnceLock<Mapping<Files>>,
    uses: Mutex<[Use; N_FILES]>,
    /// Whether there may be windows that are to go.
    has_windows_left: AtomicBool,
    rate: Rate,
    is_mask_lent: AtomicBool,
}

/// What a place is used for.
#[derive(Debug, Default)]
struct Use {
    is_lent: bool,
    window: Window,
}

/// What a window shows.
#[derive(Debug, Default)]
enum Window {
    #[default]
    Nothing,
    /// This file, as soon as this thread has had its answer; unless it has not come back after so many more.
    Coming { file: Weak<OwnedFd>, by: u64, left: u32 },
    /// This file, or nothing where the host could not map it.
    Shown(Weak<OwnedFd>),
    /// What it has shown, until the thread with this index has had its answer.
    Going { by: u32 },
}

/// A file that is lent.
struct Lent {
    lease: u64,
    place: usize,
    access: Access,
    owner: Arc<LentFiles>,
}

/// A mask for the permissions of new files that is lent.
struct Mask {
    lease: u64,
    owner: Arc<LentFiles>,
}

/// How it is used.
enum Access {
    /// By the descriptor with this number.
    Read(i32),
    /// As the device that `ENTRY_*` says, or as a set.
    Device(u64),
    /// Through the window, from this time on by the time-stamp counter.
    Window { written: Arc<Written>, began: u64 },
}

impl LentFiles {
    /// Creates the sentry's side for the process with this region, which holds these files.
    pub(super) fn new(region: &Arc<OwnedFd>, fds: &Arc<Mutex<FdCache>>) -> Self {
        Self {
            region: Arc::clone(region),
            fds: Arc::clone(fds),
            shown: OnceLock::new(),
            uses: Mutex::default(),
            has_windows_left: AtomicBool::new(false),
            rate: Rate::new(),
            is_mask_lent: AtomicBool::new(false),
        }
    }

    fn shown(&self) -> SysResult<&Mapping<Files>> {
        if let Some(shown) = self.shown.get() {
            return Ok(shown);
        }
        let shown = Mapping::of_files(&self.region)?;
        Ok(self.shown.get_or_init(|| shown))
    }

    /// Lends a file.
    pub(super) fn lend(self: &Arc<Self>, file: &FileToLend<'_>) -> Lending {
        if self.shown().is_err() || file.offset > POSITION {
            return Lending::default();
        }
        match (file.source, &file.to_write) {
            (FileSource::Host(source), Some(to_write)) => {
                self.lend_window(file, source, to_write).unwrap_or_default()
            }
            _ => self.lend_in_place(file),
        }
    }

    /// Pins the descriptor by which the process holds a file of the host's.
    ///
    /// # Errors
    /// The calls by which it comes to hold it; none where it cannot.
    fn hold(&self, file: &Arc<OwnedFd>) -> Result<i32, Vec<HostCall>> {
        let mut fds = lock(&self.fds);
        if !fds.is_prompt() {
            return Err(Vec::new());
        }
        fds.get(file).ok_or_else(|| vec![HostCall::HoldFile { file: Arc::clone(file) }])
    }

    fn lend_in_place(self: &Arc<Self>, file: &FileToLend<'_>) -> Lending {
        let mut uses = lock(&self.uses);
        // Windows may be worth something yet.
        let by_worth = |index: &usize| {
            uses.get(*index).is_some_and(|one| !matches!(one.window, Window::Nothing))
        };
        let Some(index) = self.free(&uses).min_by_key(by_worth) else { return Lending::default() };
        let access = match file.source {
            FileSource::Host(source) => match self.hold(source) {
                Ok(number) => Access::Read(number),
                Err(calls) => return Lending { lent: None, calls },
            },
            FileSource::Set(events) if events.len() > FileSource::MAX_EVENTS => {
                return Lending::default();
            }
            FileSource::Set(_) => Access::Device(ENTRY_SET),
            FileSource::Nothing => Access::Device(ENTRY_DEVICE),
            FileSource::Zeros => Access::Device(ENTRY_DEVICE | ENTRY_ZEROS),
        };
        Lending { lent: self.start(&mut uses, index, file, access), calls: Vec::new() }
    }

    fn lend_window(
        self: &Arc<Self>,
        file: &FileToLend<'_>,
        source: &Arc<OwnedFd>,
        to_write: &ToWrite,
    ) -> Option<Lending> {
        let is_possible = (1..=layout::WINDOW_LEN).contains(&to_write.size);
        if !is_possible || !lock(&self.fds).is_prompt() {
            return None;
        }
        let mut uses = lock(&self.uses);
        let place = |index: usize| FIRST_WINDOW + index as u64;
        let is_file = |shown: &Weak<OwnedFd>| shown.as_ptr() == Arc::as_ptr(source);
        let find = |uses: &[Use; N_FILES], wanted: &dyn Fn(&Window) -> bool| {
            self.free(uses).find(|index| uses.get(*index).is_some_and(|one| wanted(&one.window)))
        };
        let is_there = |window: &Window| match window {
            Window::Shown(shown) => is_file(shown),
            Window::Coming { file: coming, by, .. } => is_file(coming) && *by == to_write.thread,
            _ => false,
        };
        if let Some(index) = find(&uses, &is_there) {
            uses.get_mut(index)?.window = Window::Shown(Arc::downgrade(source));
            let written = Arc::clone(&to_write.written);
            let access = Access::Window { written, began: spin::ticks() };
            let lent = self.start(&mut uses, index, file, access);
            return Some(Lending { lent, calls: Vec::new() });
        }
        // Only where nothing is: what is mapped there by no one may still be used, or the host may refuse.
        let index = find(&uses, &|window| matches!(window, Window::Nothing))?;
        let (by, left) = (to_write.thread, GRACE);
        uses.get_mut(index)?.window = Window::Coming { file: Arc::downgrade(source), by, left };
        self.has_windows_left.store(true, SeqCst);
        let calls = vec![
            HostCall::MapStream { place: place(index), file: Arc::clone(source) },
            HostCall::KeepStream { place: place(index) },
            HostCall::CloseStream { file: Arc::clone(source) },
        ];
        Some(Lending { lent: None, calls })
    }

    /// Returns the places where nothing is lent, and nobody is still writing.
    fn free<'a>(&'a self, uses: &'a [Use; N_FILES]) -> impl Iterator<Item = usize> + 'a {
        let places = self.shown.get().map(|shown| &shown.places);
        let both = uses.iter().zip(places.into_iter().flatten()).enumerate();
        both.filter(|(_, (one, place))| !one.is_lent && place.lock.load(SeqCst) == 0)
            .map(|(index, _)| index)
    }

    fn start(
        self: &Arc<Self>,
        uses: &mut [Use; N_FILES],
        index: usize,
        file: &FileToLend<'_>,
        access: Access,
    ) -> Option<Arc<dyn LentFile>> {
        let shown = self.shown.get()?;
        let place = shown.places.get(index)?;
        uses.get_mut(index)?.is_lent = true;
        let lease = next_lease();
        place.n_calls.store(0, Relaxed);
        place.written.store(0, SeqCst);
        let number = match (&access, file.source) {
            (Access::Read(number), _) => number.cast_unsigned(),
            (_, FileSource::Set(events)) => {
                show_events(shown.events.get(index)?, events);
                u32::try_from(events.len()).ok()?
            }
            _ => u32::MAX,
        };
        place.number.store(number, SeqCst);
        place.window.store(file.to_write.as_ref().map_or(0, |to_write| to_write.size), SeqCst);
        place.word.store(lease << LEASE_SHIFT | file.offset, SeqCst);
        Some(Arc::new(Lent { lease, place: index, access, owner: Arc::clone(self) }))
    }

    /// Appends to what the thread with this index gets as an answer the calls by which windows go that show nothing
    /// that is lent. The thread has had all answers before.
    pub(super) fn unmap_windows(&self, by: u32, calls: &mut Vec<QuietCall>) {
        if !self.has_windows_left.load(Relaxed) {
            return;
        }
        let mut uses = lock(&self.uses);
        self.has_windows_left.store(false, SeqCst);
        let Some(shown) = self.shown.get() else { return };
        for ((index, one), place) in (0..).zip(&mut *uses).zip(&shown.places) {
            match &mut one.window {
                Window::Going { by: other } if *other == by => one.window = Window::Nothing,
                Window::Coming { left: left @ 1.., .. } => *left -= 1,
                Window::Shown(_) if one.is_lent => continue,
                Window::Shown(_) | Window::Coming { .. } if place.lock.load(SeqCst) == 0 => {
                    one.window = Window::Going { by };
                    let addr = layout::WINDOWS_BASE + index * layout::WINDOW_LEN;
                    let number = u32::try_from(libc::SYS_munmap).unwrap_or(u32::MAX);
                    calls.push((number, [addr, layout::WINDOW_LEN, 0, 0, 0, 0]));
                }
                Window::Nothing => continue,
                _ => {}
            }
            if !matches!(one.window, Window::Nothing) {
                self.has_windows_left.store(true, SeqCst);
            }
        }
    }
}

impl LentFiles {
    /// Lends a mask for the permissions of new files, unless one is lent.
    pub(super) fn lend_mask(self: &Arc<Self>, mask: u32) -> Option<Box<dyn LentMask>> {
        let shown = self.shown().ok()?;
        if self.is_mask_lent.swap(true, SeqCst) {
            return None;
        }
        let lease = next_lease();
        shown.umask.store(lease << LEASE_SHIFT | u64::from(mask) & UMASK, SeqCst);
        Some(Box::new(Mask { lease, owner: Arc::clone(self) }))
    }
}

/// Shows the process what there is to tell of a set of files.
fn show_events(shown: &[AtomicU32], events: &[EpollEvent]) {
    for (shown, word) in shown.iter().zip(events.as_bytes().chunks_exact(size_of::<u32>())) {
        shown.store(word.try_into().map_or(0, u32::from_ne_bytes), SeqCst);
    }
}

impl Mask {
    fn read(word: u64) -> u32 {
        u32::try_from(word & UMASK).unwrap_or(0)
    }
}

impl LentMask for Mask {
    fn id(&self) -> u64 {
        self.lease << LEASE_SHIFT
    }

    fn get(&self) -> u32 {
        self.owner.shown.get().map_or(0, |shown| Self::read(shown.umask.load(SeqCst)))
    }

    fn take_back(&self) -> (u32, u32) {
        let Some(shown) = self.owner.shown.get() else { return (0, 0) };
        let word = shown.umask.fetch_or(TAKEN_BACK, SeqCst);
        let n_changes = (word & POSITION) >> CHANGES_SHIFT;
        (Self::read(word), u32::try_from(n_changes).unwrap_or(0))
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        self.take_back();
        self.owner.is_mask_lent.store(false, SeqCst);
    }
}

impl Lent {
    fn shown(&self) -> Option<&Place> {
        self.owner.shown.get()?.places.get(self.place)
    }
}

impl LentFile for Lent {
    fn id(&self) -> u64 {
        let kind = if let Access::Device(kind) = self.access { kind } else { 0 };
        self.lease << LEASE_SHIFT | kind | self.place as u64
    }

    fn take_back(&self) -> (u64, u32) {
        let Some(place) = self.shown() else { return (0, 0) };
        let offset = place.word.fetch_or(TAKEN_BACK, SeqCst) & POSITION;
        self.note_written();
        (offset, place.n_calls.load(Relaxed))
    }

    fn note_written(&self) {
        let (Some(place), Access::Window { written, began }) = (self.shown(), &self.access) else {
            return;
        };
        let at = place.written.swap(0, SeqCst);
        if at == 0 {
            return;
        }
        // Whatever the application says, neither before the lease nor in the future.
        let now = spin::ticks();
        let ago = now.wrapping_sub(at).min(now.saturating_sub(*began));
        let ago_ns = i64::try_from(self.owner.rate.to_ns(ago)).unwrap_or(0);
        written.note(clock::now_ns(Clock::Realtime).saturating_sub(ago_ns));
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.take_back();
        // In this order: before the number can be that of something else, nobody reads by it.
        if let Access::Read(number) = self.access {
            lock(&self.owner.fds).unpin(number);
        }
        if let Some(one) = lock(&self.owner.uses).get_mut(self.place) {
            one.is_lent = false;
            self.owner.has_windows_left.store(true, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systrap::region::memory_file;

    struct Process {
        region: Arc<OwnedFd>,
        fds: Arc<Mutex<FdCache>>,
        files: Arc<LentFiles>,
    }

    fn process() -> Process {
        let region = Arc::new(memory_file(c"test", layout::REGION_LEN).unwrap());
        let fds = Arc::<Mutex<FdCache>>::default();
        let files = Arc::new(LentFiles::new(&region, &fds));
        Process { region, fds, files }
    }

    impl Process {
        fn lend(&self, offset: u64) -> Lending {
            let source = FileSource::Host(self.region.clone());
            self.files.lend(&FileToLend { source: &source, offset, to_write: None })
        }

        fn lend_window(&self, source: &Arc<OwnedFd>, size: u64, thread: u64) -> Lending {
            let to_write = Some(ToWrite { size, written: Arc::default(), thread });
            let source = FileSource::Host(source.clone());
            self.files.lend(&FileToLend { source: &source, offset: 3, to_write })
        }

        fn lend_mapped(&self, source: &Arc<OwnedFd>) -> Option<Arc<dyn LentFile>> {
            self.lend_window(source, 100, 1).lent.or_else(|| self.lend_window(source, 100, 1).lent)
        }

        fn unmaps(&self, by: u32) -> usize {
            let mut calls = Vec::new();
            self.files.unmap_windows(by, &mut calls);
            calls.len()
        }
    }

    #[test]
    fn a_file_is_lent_that_the_process_holds() {
        let process = process();
        let lending = process.lend(7);
        assert!(lending.lent.is_none());
        assert!(matches!(lending.calls[..], [HostCall::HoldFile { .. }]));
        let number = lock(&process.fds).hold_for_test(&process.region);
        let lent: Vec<_> = (0..N_FILES).map(|i| process.lend(i as u64).lent).collect();
        assert!(lent.iter().all(Option::is_some));
        let none = process.lend(0);
        assert!(none.lent.is_none() && none.calls.is_empty());
        let shown = Mapping::of_files(&process.region).unwrap();
        assert_eq!(shown.places[3].number.load(Relaxed).cast_signed(), number);
        shown.places[3].word.fetch_add(5, SeqCst);
        let third = lent[3].as_ref().unwrap();
        assert_eq!(third.take_back().0, 8);
        assert_eq!(third.take_back().0, 8);
        drop(lent);
        assert!(process.lend(POSITION + 1).lent.is_none());
        assert!(process.lend(POSITION).lent.is_some());
    }

    #[test]
    fn a_window_is_lent_to_who_has_mapped_it() {
        let process = process();
        for size in [0, layout::WINDOW_LEN + 1] {
            let refused = process.lend_window(&process.region, size, 1);
            assert!(refused.lent.is_none() && refused.calls.is_empty());
        }
        let first = process.lend_window(&process.region, 100, 1);
        assert!(first.lent.is_none() && first.calls.len() == 3);
        // Another thread does not know whether it is there.
        let other = process.lend_window(&process.region, 100, 2);
        assert!(other.lent.is_none() && other.calls.len() == 3);
        let lent = process.lend_window(&process.region, 100, 1).lent;
        let shown = Mapping::of_files(&process.region).unwrap();
        assert_eq!(shown.places[0].window.load(Relaxed), 100);
        drop(lent);
        assert!(process.lend_window(&process.region, 100, 2).lent.is_some());
    }

    #[test]
    fn a_window_goes_when_nobody_writes() {
        let process = process();
        let lent = process.lend_mapped(&process.region).unwrap();
        assert_eq!(process.unmaps(0), 0);
        let shown = Mapping::of_files(&process.region).unwrap();
        shown.places[0].lock.store(1, SeqCst);
        drop(lent);
        assert_eq!(process.unmaps(0), 0);
        // Nothing else comes there meanwhile.
        let other = Arc::new(memory_file(c"test", 4096).unwrap());
        let lent: Vec<_> = (0..N_FILES).map(|_| process.lend_mapped(&other)).collect();
        assert_eq!(lent.iter().flatten().count(), N_FILES - 1);
        drop(lent);
        shown.places[0].lock.store(0, SeqCst);
        assert_eq!(process.unmaps(0), N_FILES);
        // Until the thread comes back they may be there.
        assert_eq!(process.unmaps(1), 0);
        assert!(process.lend_mapped(&other).is_none());
        assert_eq!(process.unmaps(0), 0);
        assert!(process.lend_mapped(&other).is_some());
    }

    #[test]
    fn a_window_goes_that_was_not_used() {
        let process = process();
        assert_eq!(process.lend_window(&process.region, 100, 1).calls.len(), 3);
        let n: usize = (0..=GRACE).map(|_| process.unmaps(0)).sum();
        assert_eq!(n, 1);
        assert!(process.lend_window(&process.region, 100, 1).lent.is_none());
    }

    #[test]
    fn forged_times_lie_within_the_lease() {
        let process = process();
        let before = clock::now_ns(Clock::Realtime);
        let written = Arc::<Written>::default();
        let lend = || {
            let to_write = Some(ToWrite { size: 100, written: written.clone(), thread: 1 });
            let source = FileSource::Host(process.region.clone());
            let file = FileToLend { source: &source, offset: 3, to_write };
            process.files.lend(&file).lent
        };
        let lent = lend().or_else(lend).unwrap();
        let shown = Mapping::of_files(&process.region).unwrap();
        for forged in [1, u64::MAX, spin::ticks(), spin::ticks().wrapping_add(1 << 40)] {
            shown.places[0].written.store(forged, SeqCst);
            lent.note_written();
            let at = written.take().unwrap();
            // The two clocks are not read at the same moment.
            assert!(at > before - 100_000_000 && at <= clock::now_ns(Clock::Realtime), "{forged}");
        }
        assert_eq!(written.take(), None);
    }

    #[test]
    fn one_mask_is_lent() {
        let region = Arc::new(memory_file(c"test", layout::REGION_LEN).unwrap());
        let files = Arc::new(LentFiles::new(&region, &Arc::default()));
        let mask = files.lend_mask(0o7027).unwrap();
        assert!(files.lend_mask(0).is_none());
        assert_eq!(mask.get(), 0o027);
        let shown = Mapping::of_files(&region).unwrap();
        let word = shown.umask.load(Relaxed);
        assert_eq!(word, mask.id() | 0o027);
        shown.umask.store(mask.id() | 3 << CHANGES_SHIFT | 0o777, Relaxed);
        assert_eq!((mask.get(), mask.take_back()), (0o777, (0o777, 3)));
        shown.umask.store(u64::MAX, Relaxed);
        assert_eq!((mask.get(), mask.take_back()), (0o777, (0o777, (1 << 23) - 1)));
        drop(mask);
        assert_ne!(files.lend_mask(0).unwrap().id(), word & !UMASK);
    }

    #[test]
    fn a_device_is_lent_to_a_process_that_holds_nothing() {
        let region = Arc::new(memory_file(c"test", layout::REGION_LEN).unwrap());
        let files = Arc::new(LentFiles::new(&region, &Arc::default()));
        let lend = |source, offset| {
            files.lend(&FileToLend { source: &source, offset, to_write: None }).lent.unwrap()
        };
        let null = lend(FileSource::Nothing, 3);
        let zero = lend(FileSource::Zeros, 0);
        assert_eq!(null.id() & (ENTRY_DEVICE | ENTRY_ZEROS), ENTRY_DEVICE);
        assert_eq!(zero.id() & (ENTRY_DEVICE | ENTRY_ZEROS), ENTRY_DEVICE | ENTRY_ZEROS);
        assert_ne!(null.id() >> LEASE_SHIFT, zero.id() >> LEASE_SHIFT);
        assert_eq!(null.take_back(), (3, 0));
    }

    #[test]
    fn a_set_tells_what_is_ready() {
        let process = process();
        let lend = |events: Vec<EpollEvent>| {
            let source = FileSource::Set(events);
            process.files.lend(&FileToLend { source: &source, offset: 0, to_write: None }).lent
        };
        let events = |n: usize| -> Vec<_> {
            let event = |i: u32| EpollEvent { events: 1 + i, data: u64::from(i) << 32 | 7 };
            (0..).map(event).take(n).collect()
        };
        assert!(lend(events(FileSource::MAX_EVENTS + 1)).is_none());
        let all = lend(events(FileSource::MAX_EVENTS)).unwrap();
        let none = lend(Vec::new()).unwrap();
        assert!(all.id() & ENTRY_SET != 0 && none.id() & ENTRY_SET != 0);
        let shown = Mapping::of_files(&process.region).unwrap();
        assert_eq!(shown.places[0].number.load(Relaxed), 16);
        assert_eq!(shown.places[1].number.load(Relaxed), 0);
        let last = shown.events[0].last_chunk::<3>().unwrap();
        assert_eq!(last.each_ref().map(|word| word.load(Relaxed)), [16, 7, 15]);
        assert_eq!(shown.events[1][0].load(Relaxed), 0);
    }
}
