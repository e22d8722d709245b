//! The entries of a directory.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::node::Node;
use crate::vfs::dentry::NameMap;

/// The offset of the first entry behind `.` and `..`.
const FIRST: u64 = 2;

/// The entries of a directory. Each has an offset that no other one ever gets, so that reading a
/// directory goes on at the right place whatever has been added and removed.
pub(crate) struct Entries {
    by_name: NameMap<u64>,
    by_offset: BTreeMap<u64, (Arc<[u8]>, Arc<Node>)>,
    next_offset: u64,
    /// What `..` is; nothing for the root.
    pub(crate) parent: Weak<Node>,
    /// Set when the directory has been removed: nothing may be added any more.
    pub(crate) is_dead: bool,
}

impl Default for Entries {
    fn default() -> Self {
        Self {
            by_name: NameMap::default(),
            by_offset: BTreeMap::new(),
            next_offset: FIRST,
            parent: Weak::new(),
            is_dead: false,
        }
    }
}

impl Entries {
    pub(crate) fn len(&self) -> usize {
        self.by_offset.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_offset.is_empty()
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Arc<Node>> {
        let offset = self.by_name.get(name)?;
        self.by_offset.get(offset).map(|(_, node)| node)
    }

    /// Adds an entry; the name is free.
    pub(crate) fn insert(&mut self, name: &[u8], node: Arc<Node>) {
        let name: Arc<[u8]> = Arc::from(name);
        self.by_name.insert(name.clone(), self.next_offset);
        self.by_offset.insert(self.next_offset, (name, node));
        self.next_offset += 1;
    }

    /// Puts another node behind a name that exists; returns the old one.
    pub(crate) fn replace(&mut self, name: &[u8], node: Arc<Node>) -> Option<Arc<Node>> {
        let offset = self.by_name.get(name)?;
        let (_, place) = self.by_offset.get_mut(offset)?;
        Some(std::mem::replace(place, node))
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Arc<Node>> {
        let offset = self.by_name.remove(name)?;
        self.by_offset.remove(&offset).map(|(_, node)| node)
    }

    /// Returns the entries from an offset on: offset, name, node.
    pub(crate) fn from(&self, offset: u64) -> impl Iterator<Item = (u64, &Arc<[u8]>, &Arc<Node>)> {
        self.by_offset.range(offset.max(FIRST)..).map(|(at, (name, node))| (*at, name, node))
    }

    /// Takes all nodes out.
    pub(crate) fn take(&mut self) -> Vec<Arc<Node>> {
        self.by_name.clear();
        std::mem::take(&mut self.by_offset).into_values().map(|(_, node)| node).collect()
    }
}
