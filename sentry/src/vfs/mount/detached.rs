//! Mounts that are in no tree yet: those of `fsmount(2)` and `open_tree(2)`, which `move_mount(2)`
//! puts somewhere. Whoever has a descriptor holds one; it goes with the last descriptor.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use syscalls::{Errno, SysResult};

use super::{MOUNT_MAX, Mount, MountNamespace};
use crate::vfs::dentry::Dentry;
use crate::vfs::path::Path;

/// How many mounts are in detached trees.
static N_DETACHED: AtomicUsize = AtomicUsize::new(0);

/// The mounts of a detached tree, counted.
pub(super) struct Detached {
    n_mounts: usize,
}

impl Detached {
    /// Counts mounts, unless there are too many.
    fn count(n_mounts: usize) -> SysResult<Self> {
        let more = |n: usize| n.checked_add(n_mounts).filter(|n| *n <= MOUNT_MAX);
        match N_DETACHED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Self { n_mounts }),
            Err(_) => Err(Errno::ENOSPC),
        }
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        N_DETACHED.fetch_sub(self.n_mounts, Ordering::Relaxed);
    }
}

impl Mount {
    /// Marks a new mount, and what is below it, as a tree that may be put somewhere.
    ///
    /// # Errors
    /// `ENOSPC` where there are too many.
    pub fn detached(self: Arc<Self>) -> SysResult<Arc<Self>> {
        let count = Detached::count(MountNamespace::tree(&self).len())?;
        *self.detached.lock() = Some(count);
        Ok(self)
    }

    fn is_detached(&self) -> bool {
        self.detached.lock().is_some()
    }

    /// Returns a detached mount of a file that is in no tree: a namespace.
    ///
    /// # Errors
    /// As [`Mount::detached`].
    pub fn copy_of(&self, root: &Arc<Dentry>) -> SysResult<Arc<Self>> {
        self.copy(root).detached()
    }

    /// Returns the mount at the root of the tree that this one is in.
    fn top(self: &Arc<Self>) -> Arc<Self> {
        let mut at = self.clone();
        while let Some(point) = at.point() {
            at = point.mount;
        }
        at
    }
}

impl MountNamespace {
    /// Returns whether a mount is in this tree or in a detached one.
    pub(super) fn may_change(&self, mount: &Arc<Mount>) -> bool {
        self.contains(mount) || mount.top().is_detached()
    }

    /// Makes a detached copy of what lies at `source`; with `recursive` also of the mounts below it.
    ///
    /// # Errors
    /// `EINVAL` for an unbindable source and one in another namespace, `ENOSPC`.
    pub fn clone_tree(&self, source: &Path, recursive: bool) -> SysResult<Arc<Mount>> {
        let _guard = self.family.lock.lock();
        if !self.contains(&source.mount) {
            return Err(Errno::EINVAL);
        }
        Self::copy_for_bind(source, recursive)?.detached()
    }

    /// Puts the mount whose root is `source` at `at`: a detached one, or one that is in the tree.
    ///
    /// # Errors
    /// As [`MountNamespace::move_mount`]; `EINVAL` where a directory would cover a file or the reverse.
    pub fn place(&self, source: &Path, at: &Path) -> SysResult<()> {
        let mount = &source.mount;
        if source.dentry.is_dir() != at.dentry.is_dir() {
            return Err(Errno::EINVAL);
        }
        if !mount.is_detached() {
            return self.move_mount(source, at);
        }
        let _change = self.change();
        // Somebody else may have been quicker.
        if !source.is_mount_root() || !mount.is_detached() {
            return Err(Errno::EINVAL);
        }
        let is_unbindable = |mount: &Arc<Mount>| mount.propagation().is_unbindable;
        let at = at.clone().topmost();
        if at.mount.propagation().shared.is_some() && Self::tree(mount).iter().any(is_unbindable) {
            return Err(Errno::EINVAL);
        }
        self.attach(mount, &at)?;
        let count = mount.detached.lock().take();
        drop(count);
        Ok(())
    }
}
