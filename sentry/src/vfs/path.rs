//! Paths: a place in the mount tree, and its name.

use std::sync::Arc;

use super::dentry::Dentry;
use super::inode::Inode;
use super::mount::Mount;

/// A mount and a dentry in it.
#[derive(Clone)]
pub struct Path {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The dentry.
    pub dentry: Arc<Dentry>,
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }
}

/// The name of a path as seen from a root directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathName {
    /// The absolute name.
    pub name: Vec<u8>,
    /// Whether the root was reached on the way up; otherwise the name is relative to the root of
    /// some mount that has left the tree, or lies outside the root directory.
    pub is_reachable: bool,
    /// Whether the file has been removed.
    pub is_removed: bool,
}

impl PathName {
    /// Returns the name as `/proc` shows it: with ` (deleted)` behind that of a removed file.
    pub fn for_proc(mut self) -> Vec<u8> {
        if self.is_removed {
            self.name.extend_from_slice(b" (deleted)");
        }
        self.name
    }
}

impl Path {
    /// Returns the inode.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.dentry.inode()
    }

    /// Returns whether this is the root of its mount.
    pub fn is_mount_root(&self) -> bool {
        Arc::ptr_eq(&self.dentry, &self.mount.root)
    }

    /// Goes to what is mounted here, as often as something is.
    #[must_use]
    pub fn topmost(mut self) -> Self {
        while self.dentry.is_mount_point() {
            let Some(mount) = self.mount.child_at(&self.dentry) else { break };
            let dentry = mount.root.clone();
            self = Self { mount, dentry };
        }
        self
    }

    /// Goes from the root of a mount to its mount point, as often as that is a root again.
    #[must_use]
    pub fn mount_point(mut self) -> Self {
        while self.is_mount_root() {
            let Some(point) = self.mount.point() else { break };
            self = point;
        }
        self
    }

    /// Returns whether this place is `ancestor` or lies below it in the mount tree.
    pub fn is_below(&self, ancestor: &Self) -> bool {
        let mut at = self.clone();
        loop {
            if at == *ancestor {
                return true;
            }
            if at.is_mount_root() {
                let Some(point) = at.mount.point() else { return false };
                at = point;
                continue;
            }
            let Some(parent) = at.dentry.parent() else { return false };
            at.dentry = parent;
        }
    }

    /// Returns the name of this place as seen from `root`.
    pub fn name_from(&self, root: &Self) -> PathName {
        let mut names: Vec<Arc<[u8]>> = Vec::new();
        let mut at = self.clone();
        let is_removed = self.dentry.is_removed();
        let is_reachable = loop {
            if at == *root {
                break true;
            }
            if at.is_mount_root() {
                let Some(point) = at.mount.point() else { break false };
                at = point;
                continue;
            }
            let (Some(parent), name) = at.dentry.parent_and_name() else { break false };
            names.push(name);
            at.dentry = parent;
        };
        let mut name = Vec::new();
        for component in names.iter().rev() {
            name.push(b'/');
            name.extend_from_slice(component);
        }
        if name.is_empty() {
            name.push(b'/');
        }
        PathName { name, is_reachable, is_removed }
    }
}
