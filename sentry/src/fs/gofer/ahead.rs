//! What is looked up below a directory before it is asked for.
//!
//! A path is walked in one exchange with the gofer, and the lookups that follow take what that found ([`Ahead`]). Whoever
//! looks at the names of a listing one after the other is about to look at the next ones: they are looked up
//! together ([`Scan`]). What nobody has asked for yet ([`Results`]) is kept for the directories looked at last alone
//! ([`Ring`]): each of it holds a file of the gofer.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Instant;

use gofer_wire::Name;
use syscalls::{Errno, SysResult};

use super::directory::Listing;
use super::inode::GoferInode;
use super::names::BELIEF;
use crate::sync::Mutex;
use crate::vfs::ListEntry;

/// How many names of a listing are looked up together.
const BATCH: usize = 32;

/// How far from the last name the next one may be in the listing.
const WINDOW: usize = 64;

/// For how many directories names that were looked up are kept, and of how many listings are at least.
const MAX_KEPT: usize = 8;

/// How many entries are kept where there are more listings.
const MAX_ENTRIES: usize = 64 * 1024;

/// How many names in the order of the listing make a scan.
const ENOUGH: u32 = 2;

/// The result of a lookup that was made before it was asked for.
pub(super) struct Ahead {
    pub(super) name: Box<[u8]>,
    pub(super) result: SysResult<Arc<GoferInode>>,
    pub(super) found: Instant,
}

/// A name and what it is.
pub(super) type Found = (Box<[u8]>, SysResult<Arc<GoferInode>>);

/// What names are.
pub(super) type FoundMap = HashMap<Box<[u8]>, SysResult<Arc<GoferInode>>>;

/// Names of a directory that are looked up in the order of its listing.
pub(super) struct Scan {
    listing: Weak<[ListEntry]>,
    /// The position after the name that was looked up last.
    next: usize,
    /// How many names in a row were in order.
    n_in_order: u32,
    /// What was looked up and not yet asked for, as long as the [`Ring`] has it.
    results: Weak<Results>,
}

/// What was looked up together and not yet asked for.
pub(super) struct Results {
    found: Mutex<FoundMap>,
    /// When, and in which [`Store::round`](super::Store).
    at: Instant,
    round: u64,
}

impl Results {
    /// Makes them of what was found for the names that follow.
    pub(super) fn new(found: impl Iterator<Item = Found>, round: u64) -> Arc<Self> {
        Arc::new(Self { found: Mutex::new(found.collect()), at: Instant::now(), round })
    }

    /// Takes what was found for a name, and whether that was in this round and not long ago.
    pub(super) fn take(
        &self,
        name: &[u8],
        round: u64,
    ) -> Option<(SysResult<Arc<GoferInode>>, bool)> {
        let found = self.found.lock().remove(name)?;
        Some((found, self.round == round && self.at.elapsed() < BELIEF))
    }

    /// Forgets what was found for a name.
    pub(super) fn forget(&self, name: &[u8]) {
        let found = self.found.lock().remove(name);
        drop(found);
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        let found = std::mem::take(&mut *self.found.lock());
        drop(found);
    }
}

impl Scan {
    /// Begins with a listing that has just been read.
    pub(super) fn new(listing: &Listing) -> Self {
        Self { listing: Arc::downgrade(listing), next: 0, n_in_order: 0, results: Weak::new() }
    }

    /// Is told that the listing is read once more.
    pub(super) fn rewind(&mut self) {
        (self.next, self.n_in_order) = (0, 0);
    }

    /// Returns what was looked up last, where it is still known. It is to be dropped without a lock.
    pub(super) fn results(&self) -> Option<Arc<Results>> {
        self.results.upgrade()
    }

    /// Is told that a name is looked up; returns those to look up with it, which begin with it.
    pub(super) fn plan(&mut self, name: &[u8]) -> Option<Vec<Box<[u8]>>> {
        let listing = self.listing.upgrade()?;
        let window = listing.get(self.next..)?;
        let Some(skipped) = window.iter().take(WINDOW).position(|entry| *entry.name == *name)
        else {
            self.n_in_order = 0;
            return None;
        };
        self.next += skipped + 1;
        self.n_in_order = self.n_in_order.saturating_add(1);
        if self.n_in_order < ENOUGH {
            return None;
        }
        let names = window.iter().skip(skipped).take(BATCH).map(|entry| Box::from(&*entry.name));
        let names: Vec<Box<[u8]>> = names.collect();
        self.next += names.len().saturating_sub(1);
        (names.len() > 1).then_some(names)
    }

    /// Is told what was found for names that follow.
    pub(super) fn keep(&mut self, results: &Arc<Results>) {
        self.results = Arc::downgrade(results);
    }
}

/// What is kept for the directories that were looked at last.
#[derive(Default)]
pub(super) struct Ring {
    listings: VecDeque<Listing>,
    /// How many entries they have.
    n_entries: usize,
    results: VecDeque<Arc<Results>>,
    /// Set where the mount has gone. What is found holds the mount, which holds this.
    is_closed: bool,
}

impl Ring {
    /// Keeps a listing. Returns what is kept no longer, to be dropped without a lock.
    pub(super) fn keep_listing(&mut self, listing: &Listing) -> Vec<Listing> {
        self.listings.push_back(listing.clone());
        self.n_entries += listing.len();
        let mut gone = Vec::new();
        while self.listings.len() > MAX_KEPT && self.n_entries > MAX_ENTRIES {
            let Some(oldest) = self.listings.pop_front() else { break };
            self.n_entries = self.n_entries.saturating_sub(oldest.len());
            gone.push(oldest);
        }
        gone
    }

    /// Keeps results, in the place of others of the same directory. Returns what is kept no longer, to be dropped without
    /// a lock.
    pub(super) fn keep_results(
        &mut self,
        old: Option<Arc<Results>>,
        new: Arc<Results>,
    ) -> [Option<Arc<Results>>; 2] {
        if self.is_closed {
            return [old, Some(new)];
        }
        if let Some(old) = &old {
            self.results.retain(|known| !Arc::ptr_eq(known, old));
        }
        self.results.push_back(new);
        let oldest = (self.results.len() > MAX_KEPT).then(|| self.results.pop_front());
        [old, oldest.flatten()]
    }

    /// Keeps nothing any more. Returns what was kept, to be dropped without a lock.
    pub(super) fn close(&mut self) -> Self {
        std::mem::replace(self, Self { is_closed: true, ..Self::default() })
    }
}

/// Checks names that a gofer has listed.
///
/// # Errors
/// `EINVAL`, which no name of a listing is.
pub(super) fn names(planned: &[Box<[u8]>]) -> SysResult<Vec<Name<'_>>> {
    planned.iter().map(|name| Name::new(name).map_err(Errno::from)).collect()
}
