//! Files that are lent to a process: the sentry's side of `sentry_sysmsg::file`.
//!
//! The descriptor of a lent file, where it has one, is pinned, so that its number means nothing else as long as the file is lent.
//! Everything in the shared memory is what the application says.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex, OnceLock};

use sentry_sysmsg::Files;
use sentry_sysmsg::file::{CHANGES_SHIFT, N_FILES, UMASK};
use sentry_sysmsg::ring::{
    ENTRY_DEVICE, ENTRY_QUIET, ENTRY_ZEROS, LEASE_SHIFT, POSITION, TAKEN_BACK,
};
use syscalls::SysResult;

use super::fds::FdCache;
use super::lock;
use super::region::Mapping;
use super::streams::next_lease;
use crate::HostCall;
use crate::lent::{FileSource, LentFile, LentMask};

/// The files of a process.
#[derive(Debug)]
pub(super) struct LentFiles {
    region: Arc<OwnedFd>,
    fds: Arc<Mutex<FdCache>>,
    /// What the process sees, once there was a file.
    shown: OnceLock<Mapping<Files>>,
    are_lent: Mutex<[bool; N_FILES]>,
    is_mask_lent: AtomicBool,
}

/// A file that is lent.
struct Lent {
    lease: u64,
    place: usize,
    /// `ENTRY_*` of what is no file of the host's.
    kind: u64,
    /// The descriptor of the host's file.
    number: Option<i32>,
    owner: Arc<LentFiles>,
}

/// A mask for the permissions of new files that is lent.
struct Mask {
    lease: u64,
    owner: Arc<LentFiles>,
}

impl LentFiles {
    /// Creates the sentry's side for the process with this region, which holds these files.
    pub(super) fn new(region: &Arc<OwnedFd>, fds: &Arc<Mutex<FdCache>>) -> Self {
        Self {
            region: Arc::clone(region),
            fds: Arc::clone(fds),
            shown: OnceLock::new(),
            are_lent: Mutex::default(),
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

    /// Lends a file.
    pub(super) fn lend(
        self: &Arc<Self>,
        source: &FileSource,
        offset: u64,
    ) -> Result<Arc<dyn LentFile>, Vec<HostCall>> {
        let shown = self.shown().map_err(|_| Vec::new())?;
        let mut are_lent = lock(&self.are_lent);
        let mut places = are_lent.iter_mut().zip(&shown.places).enumerate();
        let free = places.find(|(_, (is_lent, _))| !**is_lent);
        let Some((index, (is_lent, place))) = free.filter(|_| offset <= POSITION) else {
            return Err(Vec::new());
        };
        let (kind, number) = match source {
            FileSource::Host(file) => (0, Some(self.hold(file)?)),
            FileSource::Quiet => (ENTRY_QUIET, None),
            FileSource::Nothing => (ENTRY_DEVICE, None),
            FileSource::Zeros => (ENTRY_DEVICE | ENTRY_ZEROS, None),
        };
        *is_lent = true;
        let lease = next_lease();
        place.n_calls.store(0, Relaxed);
        place.number.store(number.unwrap_or(-1).cast_unsigned(), SeqCst);
        place.word.store(lease << LEASE_SHIFT | offset, SeqCst);
        Ok(Arc::new(Lent { lease, place: index, kind, number, owner: Arc::clone(self) }))
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

impl LentFile for Lent {
    fn id(&self) -> u64 {
        self.lease << LEASE_SHIFT | self.kind | self.place as u64
    }

    fn take_back(&self) -> (u64, u32) {
        let shown = self.owner.shown.get();
        let Some(place) = shown.and_then(|shown| shown.places.get(self.place)) else {
            return (0, 0);
        };
        let offset = place.word.fetch_or(TAKEN_BACK, SeqCst) & POSITION;
        (offset, place.n_calls.load(Relaxed))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.take_back();
        // In this order: before the number can be that of something else, nobody reads by it.
        if let Some(number) = self.number {
            lock(&self.owner.fds).unpin(number);
        }
        if let Some(is_lent) = lock(&self.owner.are_lent).get_mut(self.place) {
            *is_lent = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systrap::region::memory_file;
    use sentry_sysmsg::layout;

    #[test]
    fn a_file_is_lent_that_the_process_holds() {
        let region = Arc::new(memory_file(c"test", layout::REGION_LEN).unwrap());
        let fds = Arc::<Mutex<FdCache>>::default();
        let files = Arc::new(LentFiles::new(&region, &fds));
        let source = FileSource::Host(Arc::clone(&region));
        let calls = files.lend(&source, 7).err().unwrap();
        assert!(matches!(calls[..], [HostCall::HoldFile { .. }]));
        let number = lock(&fds).hold_for_test(&region);
        let lent: Vec<_> = (0..N_FILES).map(|i| files.lend(&source, i as u64).ok()).collect();
        assert!(lent.iter().all(Option::is_some));
        assert!(files.lend(&source, 0).err().unwrap().is_empty());
        let shown = Mapping::of_files(&region).unwrap();
        assert_eq!(shown.places[3].number.load(Relaxed).cast_signed(), number);
        shown.places[3].word.fetch_add(5, SeqCst);
        let third = lent[3].as_ref().unwrap();
        assert_eq!(third.take_back().0, 8);
        assert_eq!(third.take_back().0, 8);
        drop(lent);
        assert!(files.lend(&source, POSITION + 1).err().unwrap().is_empty());
        assert!(files.lend(&source, POSITION).is_ok());
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
        let null = files.lend(&FileSource::Nothing, 3).ok().unwrap();
        let zero = files.lend(&FileSource::Zeros, 0).ok().unwrap();
        assert_eq!(null.id() & (ENTRY_DEVICE | ENTRY_ZEROS), ENTRY_DEVICE);
        assert_eq!(zero.id() & (ENTRY_DEVICE | ENTRY_ZEROS), ENTRY_DEVICE | ENTRY_ZEROS);
        assert_ne!(null.id() >> LEASE_SHIFT, zero.id() >> LEASE_SHIFT);
        assert_eq!(null.take_back(), (3, 0));
    }
}
