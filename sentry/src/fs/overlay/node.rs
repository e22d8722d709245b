//! Nodes: how one stands for a file of either layer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use syscalls::{Errno, SysResult};

use super::dir::{Name, Names};
use super::{Linked, Shared};
use crate::fs::tmpfs::node::Node;
use crate::sync::{Mutex, RwLock};
use crate::vfs::acl::AclKind;
use crate::vfs::{Attr, FileType, Inode, InodeExtras, NewNode};

/// Where a node was found.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) parent: Arc<OverlayNode>,
    pub(crate) name: Arc<[u8]>,
}

/// A file of an overlay.
pub struct OverlayNode {
    pub(crate) shared: Arc<Shared>,
    pub(crate) this: Weak<OverlayNode>,
    pub(crate) extras: InodeExtras,
    ino: u64,
    file_type: FileType,
    /// The lower layer's inode.
    pub(crate) lower: Option<Arc<dyn Inode>>,
    /// The upper layer's node, from the first open or change on.
    upper: OnceLock<Arc<Node>>,
    /// Whether the upper node's extended attributes count, and not the lower one's.
    pub(crate) has_own_xattrs: Mutex<bool>,
    place: Mutex<Option<Place>>,
    /// Set when the node differs from the lower layer, and its directory holds it.
    is_pinned: AtomicBool,
    /// The key in `Shared::linked`, for a file with several names in the lower layer.
    linked: Option<(u64, u64)>,
    /// The names of a directory.
    names: Option<RwLock<Names>>,
}

impl OverlayNode {
    /// Creates the root.
    pub(super) fn root(shared: &Arc<Shared>, lower: Arc<dyn Inode>) -> SysResult<Arc<Self>> {
        let ino = lower.attr()?.ino;
        let root = Self::build(shared, ino, Some(lower), None, FileType::Directory, None, None);
        root.is_pinned.store(true, Ordering::Release);
        Ok(root)
    }

    fn build(
        shared: &Arc<Shared>,
        ino: u64,
        lower: Option<Arc<dyn Inode>>,
        upper: Option<Arc<Node>>,
        file_type: FileType,
        place: Option<Place>,
        linked: Option<(u64, u64)>,
    ) -> Arc<Self> {
        let parent = place.as_ref().map_or_else(Weak::new, |place| Arc::downgrade(&place.parent));
        let is_dir = file_type == FileType::Directory;
        let is_new = upper.is_some();
        Arc::new_cyclic(|this| Self {
            shared: shared.clone(),
            this: this.clone(),
            extras: InodeExtras::default(),
            ino,
            file_type,
            lower,
            upper: upper.map_or_else(OnceLock::new, OnceLock::from),
            has_own_xattrs: Mutex::new(is_new),
            place: Mutex::new(place),
            is_pinned: AtomicBool::new(is_new),
            linked,
            names: is_dir.then(|| RwLock::new(Names::new(parent))),
        })
    }

    /// Creates the node of a new file of this directory; the caller gives it a name.
    pub(super) fn new_upper(&self, node: &NewNode, place: Option<Place>) -> SysResult<Arc<Self>> {
        let default = self.acl(AclKind::Default)?;
        let upper = self.shared.upper.new_node(node, default.as_ref())?;
        let (ino, file_type) = (upper.ino(), upper.file_type());
        Ok(Self::build(&self.shared, ino, None, Some(upper), file_type, place, None))
    }

    /// Creates the node of a file of the lower layer, found as `name` in this directory, or returns
    /// the one that another name of the same file has.
    fn new_lower(&self, name: &[u8], lower: Arc<dyn Inode>) -> SysResult<Arc<Self>> {
        let attr = lower.attr()?;
        let file_type = lower.file_type();
        let is_foreign = attr.dev != self.shared.lower_dev;
        let ino = if is_foreign { self.shared.upper.next_ino() } else { attr.ino };
        let parent = self.this.upgrade().ok_or(Errno::ESTALE)?;
        let place = Some(Place { parent, name: Arc::from(name) });
        let has_many_names = attr.nlink > 1 && file_type != FileType::Directory;
        if !has_many_names {
            return Ok(Self::build(&self.shared, ino, Some(lower), None, file_type, place, None));
        }
        let key = (attr.dev, attr.ino);
        let mut linked = self.shared.linked.lock();
        let known = match linked.get(&key) {
            Some(Linked::Changed(node)) => Some(node.clone()),
            Some(Linked::Same(node)) => node.upgrade(),
            None => None,
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let node = Self::build(&self.shared, ino, Some(lower), None, file_type, place, Some(key));
        linked.insert(key, Linked::Same(Arc::downgrade(&node)));
        Ok(node)
    }

    pub(crate) fn names(&self) -> SysResult<&RwLock<Names>> {
        self.names.as_ref().ok_or(Errno::ENOTDIR)
    }

    /// Returns the number that `stat(2)` shows.
    pub(crate) fn ino(&self) -> u64 {
        self.ino
    }

    /// Returns the type.
    pub(crate) fn kind(&self) -> FileType {
        self.file_type
    }

    /// Returns the upper node, if there is one.
    pub(crate) fn upper_if_any(&self) -> Option<&Arc<Node>> {
        self.upper.get()
    }

    /// Returns the upper node, made from the lower one where there is none yet.
    ///
    /// # Errors
    /// `ENOSPC`, those of the lower layer.
    pub(crate) fn upper(&self) -> SysResult<&Arc<Node>> {
        if let Some(upper) = self.upper.get() {
            return Ok(upper);
        }
        let lower = self.lower.as_ref().ok_or(Errno::EIO)?;
        let node = self.shared.upper.copy_node(&lower.attr()?, lower)?;
        Ok(self.upper.get_or_init(|| node))
    }

    /// Makes sure that what is changed now is kept.
    pub(crate) fn pin(self: &Arc<Self>) {
        let mut at = self.clone();
        while !at.is_pinned.swap(true, Ordering::AcqRel) {
            if let Some(key) = at.linked {
                at.shared.linked.lock().insert(key, Linked::Changed(at.clone()));
                return;
            }
            let Some(place) = at.place.lock().clone() else { return };
            if let Ok(names) = place.parent.names() {
                let mut names = names.write();
                let is_there = matches!(
                    names.get(&place.name),
                    Some(Name::Lower(node)) if node.ptr_eq(&at.this)
                );
                if is_there {
                    let old = names.pin(&place.name, at.clone());
                    drop(names);
                    drop(old);
                }
            }
            at = place.parent;
        }
    }

    /// Notes where the node is now; `None` when its name is gone.
    pub(super) fn set_place(&self, place: Option<Place>) {
        if self.linked.is_some() {
            return;
        }
        if let (Some(names), Some(place)) = (&self.names, &place) {
            names.write().parent = Arc::downgrade(&place.parent);
        }
        let old = std::mem::replace(&mut *self.place.lock(), place);
        drop(old);
    }

    /// Is told that a name of the node has been removed.
    pub(super) fn lost_name(&self) -> SysResult<()> {
        let upper = self.upper()?;
        if self.file_type == FileType::Directory {
            upper.change_links(|_| 0);
            return Ok(());
        }
        let mut n_left = 0;
        upper.change_links(|n| {
            n_left = n.saturating_sub(1);
            n_left
        });
        if let (Some(key), Some(this)) = (self.linked, self.this.upgrade()) {
            let state = if n_left == 0 { None } else { Some(Linked::Changed(this)) };
            let mut linked = self.shared.linked.lock();
            let old = match state {
                Some(state) => linked.insert(key, state),
                None => linked.remove(&key),
            };
            drop(linked);
            drop(old);
        }
        Ok(())
    }

    /// Finds the node behind a name of this directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, those of the lower layer.
    pub(crate) fn find(&self, name: &[u8]) -> SysResult<Arc<Self>> {
        let names = self.names()?;
        if let Some(known) = known(&names.read(), name) {
            return known;
        }
        let lower = self.lower.as_ref().ok_or(Errno::ENOENT)?;
        let found = lower.lookup(name)?;
        let node = self.new_lower(name, found)?;
        let mut names = names.write();
        // Somebody else may have been quicker. `node` is dropped after the lock, which its end
        // takes too.
        let result = known(&names, name);
        if result.is_none() {
            names.note(name, &node);
        }
        drop(names);
        result.unwrap_or(Ok(node))
    }

    /// Returns the attributes.
    pub(crate) fn do_attr(&self) -> SysResult<Attr> {
        let mut attr = match (self.upper.get(), &self.lower) {
            (Some(upper), _) => upper.attr()?,
            (None, Some(lower)) => lower.attr()?,
            (None, None) => return Err(Errno::EIO),
        };
        attr.dev = self.shared.upper.dev();
        attr.ino = self.ino;
        if self.file_type == FileType::Directory {
            attr.size = 4096;
            // As on Linux: a merged directory does not count its subdirectories.
            if self.lower.is_some() && attr.nlink > 0 {
                attr.nlink = 1;
            }
        }
        Ok(attr)
    }

    /// Lets go of everything below, for the end of the file system.
    pub(super) fn take_apart(&self) -> Vec<Arc<Self>> {
        let place = self.place.lock().take();
        drop(place);
        match &self.names {
            Some(names) => names.write().take(),
            None => Vec::new(),
        }
    }
}

/// Returns what is known of a name: the node, or that there is none.
fn known(names: &Names, name: &[u8]) -> Option<SysResult<Arc<OverlayNode>>> {
    match names.get(name)? {
        Name::Pinned { node, .. } => Some(Ok(node.clone())),
        Name::Whiteout => Some(Err(Errno::ENOENT)),
        Name::Lower(node) => node.upgrade().map(Ok),
    }
}

impl Drop for OverlayNode {
    fn drop(&mut self) {
        if let Some(key) = self.linked {
            let mut linked = self.shared.linked.lock();
            if let Some(Linked::Same(node)) = linked.get(&key)
                && node.strong_count() == 0
            {
                linked.remove(&key);
            }
        }
        let place = self.place.lock().take();
        if let Some(place) = place
            && let Ok(names) = place.parent.names()
        {
            names.write().forget_unused(&place.name);
        }
    }
}
