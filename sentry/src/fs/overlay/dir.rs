//! The names in a directory that differ from the lower layer's, and those in use.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::node::OverlayNode;
use crate::vfs::FileType;
use crate::vfs::dentry::NameMap;

/// The offset of the lower layer's first entry, behind `.` and `..`.
pub(crate) const FIRST_LOWER: u64 = 2;

/// The offset of the first entry that the lower layer does not have.
pub(crate) const FIRST_UPPER: u64 = 1 << 32;

/// What is known of a name.
pub(crate) enum Name {
    /// A node that differs from what the lower layer has there.
    Pinned {
        node: Arc<OverlayNode>,
        /// Where it is listed, unless that is where the lower layer lists the name.
        offset: Option<u64>,
    },
    /// A node of the lower layer that somebody uses.
    Lower(Weak<OverlayNode>),
    /// The lower layer has the name, and it has been removed.
    Whiteout,
}

/// A name that only the upper layer has, with all that a listing says of it: a large directory is
/// listed without a look at each node.
pub(crate) struct Listed {
    pub(crate) name: Arc<[u8]>,
    pub(crate) ino: u64,
    pub(crate) file_type: FileType,
}

impl Listed {
    fn new(name: Arc<[u8]>, node: &OverlayNode) -> Self {
        Self { name, ino: node.ino(), file_type: node.kind() }
    }
}

/// The names of a directory. What is not here is as in the lower layer.
pub(crate) struct Names {
    names: NameMap<Name>,
    /// Names that only the upper layer has, by their offset in the listing.
    upper_only: BTreeMap<u64, Listed>,
    next_offset: u64,
    /// What `..` is; nothing for the root.
    pub(crate) parent: Weak<OverlayNode>,
    /// Set when the directory has been removed: nothing may be added any more.
    pub(crate) is_dead: bool,
}

impl Names {
    pub(crate) fn new(parent: Weak<OverlayNode>) -> Self {
        Self {
            names: NameMap::default(),
            upper_only: BTreeMap::new(),
            next_offset: FIRST_UPPER,
            parent,
            is_dead: false,
        }
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Name> {
        self.names.get(name)
    }

    /// Returns whether the lower layer has the name, of which something is known.
    pub(crate) fn is_in_lower(&self, name: &[u8]) -> bool {
        match self.names.get(name) {
            None => false,
            Some(Name::Pinned { offset, .. }) => offset.is_none(),
            Some(Name::Lower(_) | Name::Whiteout) => true,
        }
    }

    /// Remembers a node of the lower layer that is in use.
    pub(crate) fn note(&mut self, name: &[u8], node: &Arc<OverlayNode>) {
        self.names.insert(Arc::from(name), Name::Lower(Arc::downgrade(node)));
    }

    /// Puts a node behind a name; returns what was pinned there.
    pub(crate) fn pin(&mut self, name: &[u8], node: Arc<OverlayNode>) -> Option<Arc<OverlayNode>> {
        let is_in_lower = self.is_in_lower(name);
        if let Some(Name::Pinned { node: place, offset }) = self.names.get_mut(name) {
            if let Some(listed) = offset.and_then(|offset| self.upper_only.get_mut(&offset)) {
                *listed = Listed::new(listed.name.clone(), &node);
            }
            return Some(std::mem::replace(place, node));
        }
        let name: Arc<[u8]> = Arc::from(name);
        let offset = if is_in_lower {
            None
        } else {
            let offset = self.next_offset;
            self.next_offset += 1;
            self.upper_only.insert(offset, Listed::new(name.clone(), &node));
            Some(offset)
        };
        self.names.insert(name, Name::Pinned { node, offset });
        None
    }

    /// Takes a name away; returns what was pinned there.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Arc<OverlayNode>> {
        let is_in_lower = self.is_in_lower(name);
        let old = if is_in_lower {
            self.names.insert(Arc::from(name), Name::Whiteout)
        } else {
            self.names.remove(name)
        };
        match old {
            Some(Name::Pinned { node, offset }) => {
                if let Some(offset) = offset {
                    self.upper_only.remove(&offset);
                }
                Some(node)
            }
            _ => None,
        }
    }

    /// Forgets a node of the lower layer that nobody uses any more.
    pub(crate) fn forget_unused(&mut self, name: &[u8]) {
        if let Some(Name::Lower(node)) = self.names.get(name)
            && node.strong_count() == 0
        {
            self.names.remove(name);
        }
    }

    /// Returns the names that only the upper layer has, from an offset on.
    pub(crate) fn upper_only(&self, offset: u64) -> impl Iterator<Item = (u64, &Listed)> {
        self.upper_only.range(offset..).map(|(at, listed)| (*at, listed))
    }

    /// Returns whether nothing is known of any name that the lower layer has.
    pub(crate) fn are_only_upper(&self) -> bool {
        self.names.len() == self.upper_only.len()
    }

    /// Returns how many names are listed, of which the lower layer has `n_lower`.
    pub(crate) fn count(&self, n_lower: usize) -> usize {
        let n_gone = self.names.values().filter(|name| matches!(name, Name::Whiteout)).count();
        n_lower.saturating_sub(n_gone) + self.upper_only.len()
    }

    /// Takes all pinned nodes out.
    pub(crate) fn take(&mut self) -> Vec<Arc<OverlayNode>> {
        self.upper_only.clear();
        std::mem::take(&mut self.names)
            .into_values()
            .filter_map(|name| match name {
                Name::Pinned { node, .. } => Some(node),
                Name::Lower(_) | Name::Whiteout => None,
            })
            .collect()
    }
}
