//! What is looked up below a directory before it is asked for.
//!
//! A path is walked in one exchange with the gofer, and the lookups that follow take what that found ([`Ahead`]). Whoever
//! looks at the names of a listing one after the other is about to look at the next ones: they are looked up
//! together ([`Scan`]).

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use gofer_wire::Name;
use syscalls::{Errno, SysResult};

use super::inode::GoferInode;
use super::names::BELIEF;
use crate::vfs::ListEntry;

/// How many names of a listing are looked up together.
const BATCH: usize = 32;

/// How far from the last name the next one may be in the listing.
const WINDOW: usize = 64;

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
    /// What was looked up and not yet asked for.
    found: FoundMap,
    /// When, and in which [`Store::round`](super::Store).
    at: Instant,
    round: u64,
}

impl Scan {
    /// Begins with a listing that has just been read.
    pub(super) fn new(listing: &Arc<[ListEntry]>) -> Self {
        Self {
            listing: Arc::downgrade(listing),
            next: 0,
            n_in_order: 0,
            found: HashMap::new(),
            at: Instant::now(),
            round: 0,
        }
    }

    /// Takes what was found for a name, and whether that was in this round and not long ago.
    pub(super) fn take(
        &mut self,
        name: &[u8],
        round: u64,
    ) -> Option<(SysResult<Arc<GoferInode>>, bool)> {
        let found = self.found.remove(name)?;
        Some((found, self.round == round && self.at.elapsed() < BELIEF))
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

    /// Keeps what was found for names that follow. Returns what nobody has asked for, to be dropped without a lock.
    pub(super) fn keep(&mut self, found: impl Iterator<Item = Found>, round: u64) -> FoundMap {
        (self.at, self.round) = (Instant::now(), round);
        std::mem::replace(&mut self.found, found.collect())
    }
}

/// Checks names that a gofer has listed.
///
/// # Errors
/// `EINVAL`, which no name of a listing is.
pub(super) fn names(planned: &[Box<[u8]>]) -> SysResult<Vec<Name<'_>>> {
    planned.iter().map(|name| Name::new(name).map_err(Errno::from)).collect()
}
