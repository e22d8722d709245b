//! [`Names`]: how long what was looked up below a directory may be believed, under
//! [`Caching::Own`](super::Caching::Own).
//!
//! A directory of Linux has new times whenever one of its names comes, goes or means another file.
//! So one look at the directory itself says whether any name that is remembered is still right; only
//! where its times are other ones is each name asked about once more, when it is used. NFS clients
//! do the same, and believe for longer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gofer_wire::Request;
use syscalls::{Errno, SysResult};

use super::attr;
use super::inode::GoferInode;
use crate::vfs::{Attr, Timestamp};

/// How long names and attributes are believed without a look.
pub(super) const BELIEF: Duration = Duration::from_secs(1);

/// What is known of the names below one directory.
pub(super) struct Names {
    /// When the directory was looked at, and in which [`Store::round`](super::Store).
    checked: Instant,
    round: u64,
    /// Its times then.
    stamp: Stamp,
    /// The names that were looked up since they changed; none stands for all.
    verified: Option<HashSet<Box<[u8]>>>,
    /// How often they have changed.
    n_changes: u64,
}

/// The times that change with the names of a directory.
type Stamp = (Timestamp, Timestamp);

fn stamp(attr: &Attr) -> Stamp {
    (attr.mtime, attr.ctime)
}

impl Names {
    /// Begins with a directory that has just been found, of which no name is known.
    pub(super) fn new(attr: &Attr, round: u64) -> Self {
        Self { checked: Instant::now(), round, stamp: stamp(attr), verified: None, n_changes: 0 }
    }

    /// Returns whether the directory need not be looked at.
    pub(super) fn is_fresh(&self, round: u64) -> bool {
        self.round == round && self.checked.elapsed() < BELIEF
    }

    /// Returns whether everything that is remembered is right.
    pub(super) const fn are_all_good(&self) -> bool {
        self.verified.is_none()
    }

    /// Returns whether what is remembered of one name is right.
    pub(super) fn is_good(&self, name: &[u8]) -> bool {
        self.verified.as_ref().is_none_or(|verified| verified.contains(name))
    }

    /// Is told the attributes that the directory had when `round` was current.
    pub(super) fn check(&mut self, attr: &Attr, round: u64) {
        let stamp = stamp(attr);
        if stamp != self.stamp {
            self.verified = Some(HashSet::new());
            self.stamp = stamp;
            self.n_changes += 1;
        }
        self.round = round;
        self.checked = Instant::now();
    }

    /// How often the directory was found to have other times.
    pub(super) const fn n_changes(&self) -> u64 {
        self.n_changes
    }

    /// Is told that a name has been looked up, which began when [`Names::n_changes`] was this.
    pub(super) fn verify(&mut self, name: &[u8], n_changes: u64) {
        if let Some(verified) = &mut self.verified
            && n_changes == self.n_changes
        {
            verified.insert(Box::from(name));
        }
    }
}

impl GoferInode {
    /// Looks at this directory where that is due, under [`Own`](super::Caching::Own). Returns whether it could.
    pub(super) fn check_names(&self) -> bool {
        // Before the look, so that what happens meanwhile is not missed.
        let round = self.store().round();
        if self.state.lock().names.as_ref().is_none_or(|names| names.is_fresh(round)) {
            return true;
        }
        let request = Request::Getattr { fid: self.fid() };
        let Ok(new) = self.store().connection.call_fixed(&request) else { return false };
        self.update(&new);
        if let Some(names) = &mut self.state.lock().names {
            names.check(&attr::from_wire(&new), round);
        }
        true
    }

    /// Is told that the caller, who holds this directory's lock, has made a name what it is.
    pub(super) fn verified(&self, name: &[u8]) {
        if let Some(names) = &mut self.state.lock().names {
            names.verify(name, names.n_changes());
        }
    }

    /// Looks up a name, which is right from then on.
    pub(super) fn verify(&self, name: &[u8]) -> SysResult<Arc<Self>> {
        let n_changes = self.n_changes();
        let found = self.walk(name);
        if let Ok(_) | Err(Errno::ENOENT) = &found {
            self.verified_since(n_changes, name);
        }
        found
    }

    /// How often this directory was found to have changed, under [`Own`](super::Caching::Own).
    pub(super) fn n_changes(&self) -> Option<u64> {
        self.state.lock().names.as_ref().map(Names::n_changes)
    }

    /// Is told what a name is, which was found out after [`Self::n_changes`] was this.
    pub(super) fn verified_since(&self, n_changes: Option<u64>, name: &[u8]) {
        if let Some(n_changes) = n_changes
            && let Some(names) = &mut self.state.lock().names
        {
            names.verify(name, n_changes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Names;
    use crate::vfs::{Attr, Timestamp};

    fn at(nsec: u32) -> Attr {
        Attr { mtime: Timestamp { sec: 1, nsec }, ..Attr::default() }
    }

    #[test]
    fn names_are_good_until_the_directory_has_other_times() {
        let mut names = Names::new(&at(1), 0);
        assert!(names.is_fresh(0) && names.are_all_good());
        assert!(!names.is_fresh(1));
        names.check(&at(1), 1);
        assert!(names.is_fresh(1) && names.is_good(b"a"));
        names.check(&at(2), 1);
        assert!(!names.are_all_good() && !names.is_good(b"a"));
        names.verify(b"b", 0);
        names.verify(b"a", names.n_changes());
        assert!(names.is_good(b"a") && !names.is_good(b"b"));
        names.check(&at(2), 2);
        assert!(names.is_good(b"a"));
        names.check(&at(3), 2);
        assert!(!names.is_good(b"a"));
    }
}
