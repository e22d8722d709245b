//! File handles (`name_to_handle_at(2)`): numbers by which the files of a file system are found
//! again.
//!
//! A handle names an entry of a table, which knows the file's dentry for as long as the cache has
//! it, and the way to it.
//!
//! DEVIATION: a file that has been renamed after its dentry had left the cache is not found, and
//! neither is one of which the table has no room for the entry any more.
//!
//! Locks: that of the table is a leaf.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::dentry::Dentry;
use super::mount::SuperBlock;
use crate::sync::Mutex;

/// The most entries of a file system.
const MAX_ENTRIES: usize = 1 << 16;

/// A file that has a handle.
#[derive(Clone)]
struct Entry {
    ino: u64,
    dentry: Weak<Dentry>,
    /// The names from the root on.
    names: Vec<Arc<[u8]>>,
}

/// The files of one file system that have handles.
#[derive(Default)]
pub(super) struct Handles(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_number: BTreeMap<u64, Entry>,
    by_ino: BTreeMap<u64, u64>,
}

impl Entry {
    fn of(dentry: &Arc<Dentry>, ino: u64) -> Self {
        let mut names = Vec::new();
        let mut at = dentry.clone();
        while let (Some(parent), name) = at.parent_and_name() {
            names.push(name);
            at = parent;
        }
        names.reverse();
        Self { ino, dentry: Arc::downgrade(dentry), names }
    }

    /// Finds the file again.
    fn find(&self, sb: &SuperBlock) -> Option<Arc<Dentry>> {
        if let Some(dentry) = self.dentry.upgrade()
            && !dentry.is_removed()
        {
            return Some(dentry);
        }
        let mut at = sb.root.clone();
        for name in &self.names {
            at = at.lookup(name, &sb.cache).ok()?;
        }
        let is_same = at.inode().attr().is_ok_and(|attr| attr.ino == self.ino);
        is_same.then_some(at)
    }
}

impl SuperBlock {
    /// Returns the number of a file's handle: the same one for as long as the file is there.
    pub fn handle_of(&self, dentry: &Arc<Dentry>, ino: u64) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let known = {
            let table = self.handles.0.lock();
            let number = table.by_ino.get(&ino).copied();
            number.and_then(|number| Some((number, table.by_number.get(&number)?.clone())))
        };
        let known = known.filter(|(_, entry)| entry.find(self).is_some());
        let number = match known {
            Some((number, _)) => number,
            None => NEXT.fetch_add(1, Ordering::Relaxed),
        };
        let mut table = self.handles.0.lock();
        table.by_number.insert(number, Entry::of(dentry, ino));
        table.by_ino.insert(ino, number);
        if table.by_number.len() > MAX_ENTRIES
            && let Some((oldest, entry)) = table.by_number.pop_first()
            && table.by_ino.get(&entry.ino) == Some(&oldest)
        {
            table.by_ino.remove(&entry.ino);
        }
        number
    }

    /// Returns the file of a handle, if it is there.
    pub fn by_handle(&self, number: u64, ino: u64) -> Option<Arc<Dentry>> {
        let entry = self.handles.0.lock().by_number.get(&number).cloned();
        entry.filter(|entry| entry.ino == ino)?.find(self)
    }
}
