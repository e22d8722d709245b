//! Root, working directory, umask and mount namespace: what `CLONE_FS` shares.
//!
//! A umask that is changed again and again is lent to the process whose threads do so; everybody else may still see
//! it. Whoever changes it here takes it back.

use sentry_platform::Streams;
use sentry_platform::lent::LentMask;
use std::sync::Arc;
use syscalls::SysResult;

use super::mount::MountNamespace;
use super::path::Path;
use crate::sync::{Mutex, RwLock};
use crate::task::user_namespace::UserNamespace;

struct Places {
    root: Path,
    cwd: Path,
}

/// After how many changes a umask is lent for the first time, and how many its process must have made for it to have
/// been worth it.
const FIRST: u32 = 16;
/// After how many it is, at the latest.
const MAX: u32 = 1 << 16;

struct Umask {
    /// The mask, where it is not lent.
    value: u32,
    lent: Option<Box<dyn LentMask>>,
    /// How many changes there were since it was lent, and must be.
    n_changes: u32,
    wanted: u32,
}

impl Umask {
    fn new(value: u32) -> Mutex<Self> {
        Mutex::new(Self { value, lent: None, n_changes: 0, wanted: FIRST })
    }

    fn take_back(&mut self) {
        if let Some(lent) = self.lent.take() {
            let (value, n_changes) = lent.take_back();
            self.value = value & 0o777;
            self.n_changes = 0;
            self.wanted =
                if n_changes >= FIRST { FIRST } else { self.wanted.saturating_mul(2).min(MAX) };
        }
    }
}

/// Root, working directory, umask and mount namespace.
pub struct FsContext {
    places: RwLock<Places>,
    umask: Mutex<Umask>,
    namespace: Mutex<Arc<MountNamespace>>,
}

impl FsContext {
    /// Creates a context whose root and working directory are the namespace's root.
    pub fn new(namespace: Arc<MountNamespace>) -> Arc<Self> {
        let root = namespace.root();
        Arc::new(Self {
            places: RwLock::new(Places { cwd: root.clone(), root }),
            umask: Umask::new(0o022),
            namespace: Mutex::new(namespace),
        })
    }

    /// Returns a copy that is changed independently.
    pub fn fork(&self) -> Arc<Self> {
        let (root, cwd) = self.root_and_cwd();
        Arc::new(Self {
            places: RwLock::new(Places { root, cwd }),
            umask: Umask::new(self.umask()),
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
        let umask = self.umask.lock();
        umask.lent.as_ref().map_or(umask.value, |lent| lent.get() & 0o777)
    }

    /// Changes the file creation mask; returns the old one.
    pub fn set_umask(&self, umask: u32) -> u32 {
        let mut own = self.umask.lock();
        own.take_back();
        own.n_changes = own.n_changes.saturating_add(1);
        std::mem::replace(&mut own.value, umask & 0o777)
    }

    /// Returns whether the mask is changed so often that it may be worth lending.
    pub fn is_umask_lively(&self) -> bool {
        let umask = self.umask.lock();
        umask.n_changes >= umask.wanted
    }

    /// Lends the mask to the process with these streams, unless it is lent or the process has another; returns what
    /// it is called there.
    pub fn lend_umask(&self, streams: &dyn Streams) -> Option<u64> {
        let mut umask = self.umask.lock();
        umask.n_changes = 0;
        if umask.lent.is_none() {
            umask.lent = streams.lend_mask(umask.value);
            return umask.lent.as_ref().map(|lent| lent.id());
        }
        None
    }

    /// Takes the mask back, for a process that uses its memory no more.
    pub fn recall_umask(&self) {
        self.umask.lock().take_back();
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
