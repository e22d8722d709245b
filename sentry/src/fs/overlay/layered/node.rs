//! Nodes: which files of the layers one stands for.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock, Weak};

use syscalls::{Errno, SysResult};

use super::{Shared, is_whiteout};
use crate::sync::Mutex;
use crate::vfs::dentry::Dentry;
use crate::vfs::layer::Layer;
use crate::vfs::{Attr, FileType, InodeExtras, ListEntry};

/// Where a node was found.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) parent: Weak<LayeredNode>,
    pub(super) name: Arc<[u8]>,
}

/// A file as it is seen.
pub struct LayeredNode {
    pub(super) shared: Arc<Shared>,
    pub(super) this: Weak<LayeredNode>,
    pub(super) extras: InodeExtras,
    ino: u64,
    kind: FileType,
    /// What lies in lower layers, uppermost first, with the layer's number: at most one file, or
    /// the directories that are merged.
    pub(super) lowers: Vec<(usize, Arc<Dentry>)>,
    /// What lies in the upper layer, there from the beginning or from the first change on.
    upper: OnceLock<Arc<Dentry>>,
    /// Held while the file is copied.
    pub(super) copying: Mutex<()>,
    /// Held while the names in this directory change.
    pub(super) changes: Mutex<()>,
    place: Mutex<Option<Found>>,
}

/// Returns what a dentry of the upper layer is known by: the file, whichever its name.
fn upper_key(dentry: &Arc<Dentry>) -> usize {
    Arc::as_ptr(dentry.inode()).cast::<()>().addr()
}

/// Returns what a dentry of a lower layer is known by: as on Linux without an index, each name is a
/// file of its own.
fn lower_key(dentry: &Arc<Dentry>) -> usize {
    Arc::as_ptr(dentry).addr()
}

impl LayeredNode {
    /// Creates the root.
    pub(super) fn root(shared: &Arc<Shared>) -> SysResult<Arc<Self>> {
        let upper = shared.upper.as_ref().map(|upper| upper.layer.root.clone());
        let mut lowers = Vec::new();
        let mut is_opaque = upper.as_ref().is_some_and(|upper| shared.is_opaque(upper));
        for (layer, number) in shared.lowers.iter().zip(1..) {
            if !is_opaque {
                lowers.push((number, layer.root.clone()));
                is_opaque = shared.is_opaque(&layer.root);
            }
        }
        Self::get(shared, upper, lowers, None)
    }

    /// Returns the node for what was found: one that is in use, or a new one.
    pub(super) fn get(
        shared: &Arc<Shared>,
        upper: Option<Arc<Dentry>>,
        lowers: Vec<(usize, Arc<Dentry>)>,
        place: Option<Found>,
    ) -> SysResult<Arc<Self>> {
        let (layer, shown) = match (&upper, lowers.first()) {
            (Some(upper), _) => (0, upper),
            (None, Some((layer, lower))) => (*layer, lower),
            (None, None) => return Err(Errno::EIO),
        };
        let key = if layer == 0 { upper_key(shown) } else { lower_key(shown) };
        let attr = shown.inode().attr()?;
        let kind = shown.inode().file_type();
        // What was in use may end here: after the lock, which its end takes too.
        let mut nodes = shared.nodes.lock();
        if let Some(known) = nodes.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let node = Arc::new_cyclic(|this| Self {
            shared: shared.clone(),
            this: this.clone(),
            extras: InodeExtras::default(),
            ino: shared.ino(layer, attr.ino),
            kind,
            lowers,
            upper: upper.map_or_else(OnceLock::new, OnceLock::from),
            copying: Mutex::new(()),
            changes: Mutex::new(()),
            place: Mutex::new(place),
        });
        nodes.insert(key, node.this.clone());
        Ok(node)
    }

    /// Returns the type.
    pub(super) fn kind(&self) -> FileType {
        self.kind
    }

    /// Returns the number that `stat(2)` shows.
    pub(super) fn ino(&self) -> u64 {
        self.ino
    }

    /// Returns the device number that `stat(2)` shows.
    pub(super) fn dev(&self) -> u64 {
        self.shared.dev
    }

    /// Returns what lies in the upper layer, if anything does.
    pub(super) fn upper_if_any(&self) -> Option<&Arc<Dentry>> {
        self.upper.get()
    }

    /// Notes that the file has been copied to the upper layer.
    pub(super) fn set_upper(&self, upper: Arc<Dentry>) -> &Arc<Dentry> {
        self.shared.nodes.lock().insert(upper_key(&upper), self.this.clone());
        self.upper.get_or_init(|| upper)
    }

    /// Returns the file that is shown.
    pub(super) fn shown(&self) -> SysResult<&Arc<Dentry>> {
        match (self.upper.get(), self.lowers.first()) {
            (Some(upper), _) => Ok(upper),
            (None, Some((_, lower))) => Ok(lower),
            (None, None) => Err(Errno::EIO),
        }
    }

    /// Returns where the node is.
    ///
    /// # Errors
    /// `ESTALE` for a removed one.
    pub(super) fn place(&self) -> SysResult<(Arc<Self>, Arc<[u8]>)> {
        let found = self.place.lock().clone().ok_or(Errno::ESTALE)?;
        Ok((found.parent.upgrade().ok_or(Errno::ESTALE)?, found.name))
    }

    /// Notes where the node is now; `None` when its name is gone.
    pub(super) fn set_place(&self, place: Option<Found>) {
        *self.place.lock() = place;
    }

    pub(super) fn found_here(&self, name: &[u8]) -> Found {
        Found { parent: self.this.clone(), name: Arc::from(name) }
    }

    /// Returns the directories that are merged, uppermost first, with their layers.
    fn merged(&self) -> impl Iterator<Item = SysResult<(usize, &Layer, &Arc<Dentry>)>> {
        let upper = self.upper.get().map(|upper| (0, upper));
        let lowers = self.lowers.iter().map(|(number, lower)| (*number, lower));
        upper
            .into_iter()
            .chain(lowers)
            .map(|(number, dir)| Ok((number, self.shared.layer(number)?, dir)))
    }

    /// Finds the node behind a name of this directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ELOOP` where a layer leads to another, those of the layers.
    pub(super) fn find(&self, name: &[u8]) -> SysResult<Arc<Self>> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let mut upper = None;
        let mut lowers: Vec<(usize, Arc<Dentry>)> = Vec::new();
        for part in self.merged() {
            let (number, layer, dir) = part?;
            let Some(found) = layer.lookup((dir, name))? else { continue };
            let is_first = upper.is_none() && lowers.is_empty();
            if is_whiteout(&found) || (!is_first && !found.is_dir()) {
                break;
            }
            if self.shared.is_trap(&found) {
                return Err(Errno::ELOOP);
            }
            let is_last = !found.is_dir() || self.shared.is_opaque(&found);
            if number == 0 {
                upper = Some(found);
            } else {
                lowers.push((number, found));
            }
            if is_last {
                break;
            }
        }
        if upper.is_none() && lowers.is_empty() {
            return Err(Errno::ENOENT);
        }
        Self::get(&self.shared, upper, lowers, Some(self.found_here(name)))
    }

    /// Returns whether a lower layer shows something under a name, so that its removal needs a
    /// whiteout.
    pub(super) fn is_below(&self, name: &[u8]) -> SysResult<bool> {
        for (number, dir) in &self.lowers {
            if let Some(found) = self.shared.layer(*number)?.lookup((dir, name))? {
                return Ok(!is_whiteout(&found));
            }
        }
        Ok(false)
    }

    /// Returns the entries of this directory.
    ///
    /// # Errors
    /// `ENOTDIR`, those of the layers.
    pub(super) fn entries(&self) -> SysResult<Vec<ListEntry>> {
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        for part in self.merged() {
            let (number, layer, dir) = part?;
            for mut entry in dir.inode().list()? {
                if !seen.insert(entry.name.clone()) {
                    continue;
                }
                if entry.file_type == FileType::CharDevice
                    && layer.lookup((dir, &entry.name))?.is_none_or(|found| is_whiteout(&found))
                {
                    continue;
                }
                entry.ino = self.shared.ino(number, entry.ino);
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// Returns the attributes.
    pub(super) fn do_attr(&self) -> SysResult<Attr> {
        let mut attr = self.shown()?.inode().attr()?;
        (attr.dev, attr.ino) = (self.shared.dev, self.ino);
        // As on Linux: a merged directory does not count its subdirectories.
        if self.kind == FileType::Directory && !self.lowers.is_empty() && attr.nlink > 0 {
            attr.nlink = 1;
        }
        Ok(attr)
    }
}

impl Drop for LayeredNode {
    fn drop(&mut self) {
        let keys = [
            self.upper.get().map(upper_key),
            self.lowers.first().map(|(_, lower)| lower_key(lower)),
        ];
        let mut nodes = self.shared.nodes.lock();
        for key in keys.into_iter().flatten() {
            if nodes.get(&key).is_some_and(|node| node.strong_count() == 0) {
                nodes.remove(&key);
            }
        }
    }
}
