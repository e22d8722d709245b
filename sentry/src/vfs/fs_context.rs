//! Root, working directory, umask and mount namespace: what `CLONE_FS` shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use syscalls::SysResult;

use super::mount::MountNamespace;
use super::path::Path;
use crate::sync::{Mutex, RwLock};
use crate::task::user_namespace::UserNamespace;

struct Places {
    root: Path,
    cwd: Path,
}

/// Root, working directory, umask and mount namespace.
pub struct FsContext {
    places: RwLock<Places>,
    umask: AtomicU32,
    namespace: Mutex<Arc<MountNamespace>>,
}

impl FsContext {
    /// Creates a context whose root and working directory are the namespace's root.
    pub fn new(namespace: Arc<MountNamespace>) -> Arc<Self> {
        let root = namespace.root();
        Arc::new(Self {
            places: RwLock::new(Places { cwd: root.clone(), root }),
            umask: AtomicU32::new(0o022),
            namespace: Mutex::new(namespace),
        })
    }

    /// Returns a copy that is changed independently.
    pub fn fork(&self) -> Arc<Self> {
        let (root, cwd) = self.root_and_cwd();
        Arc::new(Self {
            places: RwLock::new(Places { root, cwd }),
            umask: AtomicU32::new(self.umask()),
            namespace: Mutex::new(self.namespace()),
        })
    }

    /// Returns the root directory.
    pub fn root(&self) -> Path {
        self.places.read().root.clone()
    }

    /// Returns the working directory.
    pub fn cwd(&self) -> Path {
        self.places.read().cwd.clone()
    }

    /// Returns both.
    pub fn root_and_cwd(&self) -> (Path, Path) {
        let places = self.places.read();
        (places.root.clone(), places.cwd.clone())
    }

    /// Changes the root directory.
    pub fn set_root(&self, root: Path) {
        let old = std::mem::replace(&mut self.places.write().root, root);
        drop(old);
    }

    /// Changes the working directory.
    pub fn set_cwd(&self, cwd: Path) {
        let old = std::mem::replace(&mut self.places.write().cwd, cwd);
        drop(old);
    }

    /// Goes to `to` wherever root or working directory are `from`: what `pivot_root(2)` does to
    /// every process.
    pub fn replace(&self, from: &Path, to: &Path) {
        let mut places = self.places.write();
        if places.root == *from {
            places.root = to.clone();
        }
        if places.cwd == *from {
            places.cwd = to.clone();
        }
    }

    /// Returns the file creation mask.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// Changes the file creation mask; returns the old one.
    pub fn set_umask(&self, umask: u32) -> u32 {
        self.umask.swap(umask & 0o777, Ordering::Relaxed)
    }

    /// Returns the mount namespace.
    pub fn namespace(&self) -> Arc<MountNamespace> {
        self.namespace.lock().clone()
    }

    /// Copies the mount namespace for this context: `CLONE_NEWNS`. The copy belongs to `owner`.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub fn unshare_namespace(&self, owner: &Arc<UserNamespace>) -> SysResult<()> {
        let (mut root, mut cwd) = self.root_and_cwd();
        let copy = self.namespace().copy_for(owner, &mut [&mut root, &mut cwd])?;
        let old = std::mem::replace(&mut *self.places.write(), Places { root, cwd });
        drop(old);
        let old = std::mem::replace(&mut *self.namespace.lock(), copy);
        drop(old);
        Ok(())
    }

    /// Enters another mount namespace, at its root.
    pub fn enter_namespace(&self, namespace: Arc<MountNamespace>) {
        let root = namespace.root();
        *self.places.write() = Places { cwd: root.clone(), root };
        *self.namespace.lock() = namespace;
    }
}
