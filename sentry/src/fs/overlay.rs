//! Overlay: a read-only file system below, and everything that is changed in the sentry. What a guest
//! mounts itself, with directories of its own as layers, is [`layered`].
//!
//! A [`node::OverlayNode`] stands for one file, whichever layer has it. What was looked at and
//! never changed is only a reference to the lower layer's inode. The first open or change gives it
//! an *upper* node, a node of a tmpfs that begins with the lower one's attributes and reads its
//! content from there until that is changed ([`super::tmpfs`]); so changing the owner of a million
//! files copies no data. Directories keep their changed names ([`dir`]): new and changed nodes, and
//! whiteouts, which nobody outside sees.
//!
//! A node that differs from the lower layer is *pinned*: its directory holds it, and is pinned
//! itself. Any other node goes when its dentry does, and is made again by the next lookup.
//!
//! Unlike Linux's, this overlay keeps hard links of the lower layer together when one is changed,
//! and renames directories of the lower layer.
//!
//! Locks, outermost first: the entries of directories (two by address), `OverlayNode::place`,
//! `Shared::linked`; then tmpfs's.

pub mod dir;
pub mod file;
pub mod layered;
pub mod node;
mod ops;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use syscalls::SysResult;
use syscalls::abi::fs::Statfs;
use syscalls::abi::mount::OVERLAYFS_SUPER_MAGIC;

use self::node::OverlayNode;
use super::tmpfs::{Options, Store, TmpFs};
use crate::sync::Mutex;
use crate::vfs::{FileSystem, Inode};

/// Where inode numbers of new files begin: above those that file systems of the host are likely to
/// use.
const FIRST_INO: u64 = 1 << 40;

/// A file of the lower layer with several names, which are all the same node.
pub(crate) enum Linked {
    /// Not changed so far.
    Same(Weak<OverlayNode>),
    /// Changed: kept as long as it has names.
    Changed(Arc<OverlayNode>),
}

/// What all nodes share.
pub(crate) struct Shared {
    pub(crate) upper: Arc<TmpFs>,
    /// The lower layer's device number.
    pub(crate) lower_dev: u64,
    /// Files of the lower layer with several names, by device and inode number.
    pub(crate) linked: Mutex<HashMap<(u64, u64), Linked>>,
}

/// A read-only file system with changes above it.
pub struct OverlayFs {
    shared: Arc<Shared>,
    root: Arc<OverlayNode>,
}

impl OverlayFs {
    /// Creates an overlay on `lower`, whose content never changes; `store` keeps large content of
    /// changed files.
    ///
    /// # Errors
    /// Those of the lower layer.
    pub fn new(lower: &Arc<dyn FileSystem>, store: Arc<dyn Store>) -> SysResult<Arc<Self>> {
        let upper = TmpFs::new(Options {
            kind: "overlay",
            first_ino: FIRST_INO,
            store,
            ..Options::default()
        })?;
        let root = lower.root();
        let shared = Arc::new(Shared {
            upper,
            lower_dev: root.attr()?.dev,
            linked: Mutex::new(HashMap::new()),
        });
        let root = OverlayNode::root(&shared, root)?;
        Ok(Arc::new(Self { shared, root }))
    }
}

impl FileSystem for OverlayFs {
    fn kind(&self) -> &'static str {
        "overlay"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> SysResult<Statfs> {
        Ok(self.shared.upper.statfs_as(OVERLAYFS_SUPER_MAGIC))
    }
}

impl Drop for OverlayFs {
    /// Takes the tree apart: pinned nodes and their directories hold each other.
    fn drop(&mut self) {
        let linked = std::mem::take(&mut *self.shared.linked.lock());
        drop(linked);
        let mut pending = vec![self.root.clone()];
        while let Some(node) = pending.pop() {
            pending.extend(node.take_apart());
        }
    }
}
