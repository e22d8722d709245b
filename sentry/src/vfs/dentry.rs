//! Dentries: names of inodes, and the cache that a path walk goes through.
//!
//! A [`Dentry`] is a name in a directory and the inode behind it. A directory's dentry holds the
//! dentries of its children that have been looked up, among them negative ones ("nothing there"),
//! so a walk over cached names takes one shared lock per component and no global one. Each file
//! system's [`DentryCache`] bounds how many are kept that nobody uses.
//!
//! Locks, outermost first: `Dentry::ops` (serialises changes of one directory with lookups that
//! miss), the file system's own, `Dentry::children`, `Dentry::link`, `DentryCache::queue`.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use syscalls::{Errno, SysResult};

use super::inode::{Inode, LookupPolicy};
use crate::sync::{Mutex, RwLock};

/// How many dentries one file system keeps that nobody uses.
const CACHE_LIMIT: usize = 32 * 1024;

/// A hasher for file names: quick for short keys. Collisions cost a guest only its own time in its
/// own directories.
#[derive(Default)]
pub struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        const K: u64 = 0x517c_c1b7_2722_0a95;
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let word = chunk.try_into().map_or(0, u64::from_le_bytes);
            self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(K);
        }
        let mut tail = [0; 8];
        let rest = chunks.remainder();
        if let Some(head) = tail.get_mut(..rest.len()) {
            head.copy_from_slice(rest);
        }
        self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(tail)).wrapping_mul(K);
    }

    fn write_usize(&mut self, n: usize) {
        self.0 ^= n as u64;
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}

/// A map from file names.
pub type NameMap<V> = HashMap<Arc<[u8]>, V, BuildHasherDefault<NameHasher>>;

/// What a directory's dentry knows about a name.
enum Child {
    Positive(Arc<Dentry>),
    Negative,
}

/// Where a dentry hangs. Changed by rename and removal.
struct Link {
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
    is_removed: bool,
}

/// A name of an inode.
pub struct Dentry {
    inode: Arc<dyn Inode>,
    is_dir: bool,
    link: Mutex<Link>,
    children: RwLock<NameMap<Child>>,
    /// Serialises changes of this directory, and lookups that miss the cache.
    ops: Mutex<()>,
    /// How many mounts, in whatever namespace, have this dentry as their mount point.
    n_mounts: AtomicU32,
    /// Whether a walk has come by since the cache looked last.
    is_referenced: AtomicBool,
}

impl Dentry {
    /// Creates the root dentry of a file system.
    pub fn new_root(inode: Arc<dyn Inode>) -> Arc<Self> {
        Self::new(inode, None, Arc::from([]))
    }

    fn new(inode: Arc<dyn Inode>, parent: Option<Arc<Self>>, name: Arc<[u8]>) -> Arc<Self> {
        let is_dir = inode.file_type() == super::FileType::Directory;
        Arc::new(Self {
            inode,
            is_dir,
            link: Mutex::new(Link { parent, name, is_removed: false }),
            children: RwLock::new(NameMap::default()),
            ops: Mutex::new(()),
            n_mounts: AtomicU32::new(0),
            is_referenced: AtomicBool::new(true),
        })
    }

    /// Creates a dentry for an inode without a name (`O_TMPFILE`), which looks like a removed one.
    pub fn new_unnamed(inode: Arc<dyn Inode>, dir: &Arc<Self>, name: &[u8]) -> Arc<Self> {
        let dentry = Self::new(inode, Some(dir.clone()), Arc::from(name));
        dentry.link.lock().is_removed = true;
        dentry
    }

    /// Returns the inode.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    /// Returns whether the inode is a directory.
    pub fn is_dir(&self) -> bool {
        self.is_dir
    }

    /// Returns the parent; `None` for the root of a file system.
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.link.lock().parent.clone()
    }

    /// Returns the name in the parent; empty for the root of a file system.
    pub fn name(&self) -> Arc<[u8]> {
        self.link.lock().name.clone()
    }

    /// Returns parent and name together.
    pub fn parent_and_name(&self) -> (Option<Arc<Self>>, Arc<[u8]>) {
        let link = self.link.lock();
        (link.parent.clone(), link.name.clone())
    }

    /// Returns whether the name has been removed from its directory.
    pub fn is_removed(&self) -> bool {
        self.link.lock().is_removed
    }

    /// Returns whether something is mounted here in some namespace.
    pub fn is_mount_point(&self) -> bool {
        self.n_mounts.load(Ordering::Acquire) != 0
    }

    /// Counts a mount on this dentry, and keeps the way to it in the cache, so that later walks
    /// find this very dentry even where the file system wants every lookup made anew.
    pub(super) fn add_mount(self: &Arc<Self>) {
        self.n_mounts.fetch_add(1, Ordering::AcqRel);
        let mut at = self.clone();
        while let (Some(parent), name) = at.parent_and_name() {
            if !at.is_removed() {
                parent.children.write().entry(name).or_insert(Child::Positive(at));
            }
            at = parent;
        }
    }

    /// Takes back [`Dentry::add_mount`].
    pub(super) fn remove_mount(&self) {
        self.n_mounts.fetch_sub(1, Ordering::AcqRel);
    }

    /// Returns whether `self` is `ancestor` or lies below it.
    pub fn is_below(self: &Arc<Self>, ancestor: &Arc<Self>) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at, ancestor) {
                return true;
            }
            let Some(parent) = at.parent() else { return false };
            at = parent;
        }
    }

    /// Returns the cached answer for `name`, if there is one that may be used.
    fn cached(&self, name: &[u8]) -> Option<SysResult<Arc<Self>>> {
        let found = match self.children.read().get(name) {
            None => return None,
            Some(Child::Negative) => None,
            Some(Child::Positive(child)) => Some(child.clone()),
        };
        let is_good = match self.inode.lookup_policy() {
            LookupPolicy::Cache => true,
            LookupPolicy::Revalidate => {
                found.as_ref().is_some_and(|child| child.is_mount_point())
                    || self.inode.revalidate(name, found.as_ref().map(|child| &child.inode))
            }
            // Only the way to mount points is kept.
            LookupPolicy::Never => found.as_ref().is_some_and(|child| child.leads_to_mount()),
        };
        if !is_good {
            return None;
        }
        match found {
            None => Some(Err(Errno::ENOENT)),
            Some(child) => {
                if !child.is_referenced.load(Ordering::Relaxed) {
                    child.is_referenced.store(true, Ordering::Relaxed);
                }
                Some(Ok(child))
            }
        }
    }

    fn leads_to_mount(&self) -> bool {
        self.is_mount_point() || !self.children.read().is_empty()
    }

    /// Returns what the cache alone says about `name`: for `RESOLVE_CACHED`.
    pub fn lookup_cached(&self, name: &[u8]) -> Option<SysResult<Arc<Self>>> {
        self.cached(name)
    }

    /// Returns whether the cache has an answer for `name`, right or not.
    pub(super) fn knows(&self, name: &[u8]) -> bool {
        self.children.read().contains_key(name)
    }

    /// Returns what was last known as `name`, right or not.
    pub fn known_child(&self, name: &[u8]) -> Option<Arc<Self>> {
        match self.children.read().get(name) {
            Some(Child::Positive(child)) => Some(child.clone()),
            _ => None,
        }
    }

    /// Returns whether the file system will be asked about `name`.
    pub(super) fn is_asked_about(&self, name: &[u8]) -> bool {
        let is_covered = match self.children.read().get(name) {
            None => return self.inode.lookup_policy() != LookupPolicy::Never,
            Some(Child::Positive(child)) => child.is_mount_point(),
            Some(Child::Negative) => false,
        };
        self.inode.lookup_policy() == LookupPolicy::Revalidate
            && !is_covered
            && !self.inode.is_sure_of(name)
    }

    /// Looks up a child, in the cache first.
    ///
    /// # Errors
    /// `ENOENT`; what the file system's lookup fails with.
    pub fn lookup(self: &Arc<Self>, name: &[u8], cache: &DentryCache) -> SysResult<Arc<Self>> {
        if let Some(found) = self.cached(name) {
            return found;
        }
        let _ops = self.ops.lock();
        self.lookup_locked(name, cache)
    }

    /// As [`Dentry::lookup`], with the directory's lock held by the caller.
    fn lookup_locked(self: &Arc<Self>, name: &[u8], cache: &DentryCache) -> SysResult<Arc<Self>> {
        if let Some(found) = self.cached(name) {
            return found;
        }
        let policy = self.inode.lookup_policy();
        let result = self.inode.lookup(name);
        if policy == LookupPolicy::Never {
            return Ok(Self::new(result?, Some(self.clone()), Arc::from(name)));
        }
        match result {
            Ok(inode) => {
                // A revalidation that failed may have found the same object again: users of the
                // old dentry and of the new one then still mean the same file.
                let old = self.children.read().get(name).and_then(|child| match child {
                    Child::Positive(child) => Some(child.clone()),
                    Child::Negative => None,
                });
                if let Some(old) = old
                    && Arc::ptr_eq(&old.inode, &inode)
                {
                    return Ok(old);
                }
                Ok(self.insert(name, inode, cache))
            }
            Err(Errno::ENOENT) => {
                self.insert_negative(name, cache);
                Err(Errno::ENOENT)
            }
            Err(errno) => Err(errno),
        }
    }

    fn insert(
        self: &Arc<Self>,
        name: &[u8],
        inode: Arc<dyn Inode>,
        cache: &DentryCache,
    ) -> Arc<Self> {
        let name: Arc<[u8]> = Arc::from(name);
        let child = Self::new(inode, Some(self.clone()), name.clone());
        let old = self.children.write().insert(name, Child::Positive(child.clone()));
        if let Some(Child::Positive(old)) = old {
            old.link.lock().is_removed = true;
        }
        cache.add(Arc::downgrade(&child));
        child
    }

    fn insert_negative(&self, name: &[u8], cache: &DentryCache) {
        // Negative entries live and die with their directory's dentry; a directory with very many
        // of them forgets them all.
        let mut children = self.children.write();
        if children.len() > cache.limit {
            children.retain(|_, child| matches!(child, Child::Positive(_)));
        }
        let old = children.insert(Arc::from(name), Child::Negative);
        drop(children);
        if let Some(Child::Positive(old)) = old {
            old.link.lock().is_removed = true;
        }
    }

    /// Creates a child with `make`, which is called with the directory locked and nothing of that
    /// name there, as far as it does not find out itself, and returns its dentry.
    ///
    /// # Errors
    /// `EEXIST`; `ENOENT` in a removed directory; what `make` fails with.
    pub fn create_child(
        self: &Arc<Self>,
        name: &[u8],
        cache: &DentryCache,
        make: impl FnOnce(&Arc<dyn Inode>) -> SysResult<Arc<dyn Inode>>,
    ) -> SysResult<Arc<Self>> {
        let _ops = self.ops.lock();
        if self.knows(name) || !self.inode.refuses_existing() {
            match self.lookup_locked(name, cache) {
                Ok(_) => return Err(Errno::EEXIST),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        if self.is_removed() {
            return Err(Errno::ENOENT);
        }
        let inode = make(&self.inode)?;
        if self.inode.lookup_policy() == LookupPolicy::Never {
            return Ok(Self::new(inode, Some(self.clone()), Arc::from(name)));
        }
        Ok(self.insert(name, inode, cache))
    }

    /// Removes a child with `remove`, which is called with the directory locked.
    ///
    /// # Errors
    /// `ENOENT`, what `remove` fails with.
    pub fn remove_child(
        self: &Arc<Self>,
        name: &[u8],
        cache: &DentryCache,
        remove: impl FnOnce(&Arc<Self>) -> SysResult<()>,
    ) -> SysResult<Arc<Self>> {
        let _ops = self.ops.lock();
        let child = self.lookup_locked(name, cache)?;
        remove(&child)?;
        child.link.lock().is_removed = true;
        if self.inode.lookup_policy() == LookupPolicy::Cache {
            self.insert_negative(name, cache);
        } else {
            self.children.write().remove(name);
        }
        Ok(child)
    }

    /// Renames `name` of `self` to `new_name` of `new_dir` with `rename`, which is called with both
    /// directories locked and gets the two dentries (the second where the new name exists).
    ///
    /// # Errors
    /// `ENOENT`, what `rename` fails with.
    pub fn rename_child(
        self: &Arc<Self>,
        name: &[u8],
        new_dir: &Arc<Self>,
        new_name: &[u8],
        is_exchange: bool,
        cache: &DentryCache,
        rename: impl FnOnce(&Arc<Self>, Option<&Arc<Self>>) -> SysResult<bool>,
    ) -> SysResult<()> {
        let is_same = Arc::ptr_eq(self, new_dir);
        let swap = Arc::as_ptr(self) > Arc::as_ptr(new_dir);
        let (first, second) = if swap { (new_dir, self) } else { (self, new_dir) };
        let _first = first.ops.lock();
        let _second = if is_same { None } else { Some(second.ops.lock()) };
        let child = self.lookup_locked(name, cache)?;
        let target = match new_dir.lookup_locked(new_name, cache) {
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        if new_dir.is_removed() {
            return Err(Errno::ENOENT);
        }
        // Nothing moves where both names are the same file already.
        if !rename(&child, target.as_ref())? {
            return Ok(());
        }
        let keeps = |dir: &Arc<Self>| dir.inode.lookup_policy() != LookupPolicy::Never;
        let new_name: Arc<[u8]> = Arc::from(new_name);
        if is_exchange && let Some(target) = target {
            let name: Arc<[u8]> = Arc::from(name);
            if keeps(self) {
                self.children.write().insert(name.clone(), Child::Positive(target.clone()));
            }
            target.move_to(self, name);
        } else {
            if let Some(target) = target {
                target.link.lock().is_removed = true;
            }
            let taken = self.children.write().remove(name);
            drop(taken);
            if self.inode.lookup_policy() == LookupPolicy::Cache {
                self.insert_negative(name, cache);
            }
        }
        if keeps(new_dir) {
            let old =
                new_dir.children.write().insert(new_name.clone(), Child::Positive(child.clone()));
            drop(old);
        }
        child.move_to(new_dir, new_name);
        Ok(())
    }

    fn move_to(&self, parent: &Arc<Self>, name: Arc<[u8]>) {
        let mut link = self.link.lock();
        let old = link.parent.replace(parent.clone());
        link.name = name;
        link.is_removed = false;
        drop(link);
        drop(old);
    }

    /// Forgets `name`, whose object has gone without the VFS having been asked.
    pub fn forget_child(&self, name: &[u8]) {
        let old = self.children.write().remove(name);
        if let Some(Child::Positive(old)) = old {
            old.link.lock().is_removed = true;
        }
    }

    /// Forgets everything that is cached below, without recursion.
    fn forget_all(self: &Arc<Self>) {
        let mut pending = vec![self.clone()];
        while let Some(dentry) = pending.pop() {
            let children = std::mem::take(&mut *dentry.children.write());
            pending.extend(children.into_values().filter_map(|child| match child {
                Child::Positive(child) => Some(child),
                Child::Negative => None,
            }));
        }
    }

    /// Gives up a child that nobody but the cache holds. Returns whether it is gone.
    fn try_evict(self: &Arc<Self>, child: &Arc<Self>) -> bool {
        let name = child.name();
        let mut children = self.children.write();
        match children.get(&name) {
            Some(Child::Positive(found)) if Arc::ptr_eq(found, child) => {
                // One count is the map's, one the caller's; under the write lock no walk adds one.
                // A child's children hold it, so a directory goes after what is below it.
                if Arc::strong_count(child) > 2 || child.is_mount_point() {
                    return false;
                }
                let taken = children.remove(&name);
                drop(children);
                drop(taken);
                true
            }
            _ => true,
        }
    }
}

impl Drop for Dentry {
    /// Lets go of the ancestors one by one: a chain of any length must not recurse.
    fn drop(&mut self) {
        let mut next = self.link.lock().parent.take();
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|parent| parent.link.lock().parent.take());
        }
    }
}

/// Bounds how many unused dentries of one file system are kept: a clock over all of them.
pub struct DentryCache {
    queue: Mutex<VecDeque<Weak<Dentry>>>,
    limit: usize,
}

impl Default for DentryCache {
    fn default() -> Self {
        Self::with_limit(CACHE_LIMIT)
    }
}

impl DentryCache {
    /// Creates a cache that keeps about `limit` unused dentries.
    pub fn with_limit(limit: usize) -> Self {
        Self { queue: Mutex::new(VecDeque::new()), limit }
    }

    /// Takes up a new dentry, and gives up old ones where there are too many.
    fn add(&self, dentry: Weak<Dentry>) {
        let mut queue = self.queue.lock();
        queue.push_back(dentry);
        if queue.len() <= self.limit {
            return;
        }
        // A few steps each time, so that no walk pays for everybody.
        let mut candidates = Vec::new();
        for _ in 0..8 {
            let Some(oldest) = queue.pop_front() else { break };
            let Some(dentry) = oldest.upgrade() else { continue };
            if dentry.is_referenced.swap(false, Ordering::Relaxed) {
                queue.push_back(oldest);
            } else {
                candidates.push((oldest, dentry));
            }
        }
        drop(queue);
        for (weak, dentry) in candidates {
            let is_gone = dentry.parent().is_some_and(|parent| parent.try_evict(&dentry));
            drop(dentry);
            if !is_gone {
                self.queue.lock().push_back(weak);
            }
        }
    }

    /// Forgets everything below `root`.
    pub(crate) fn clear(&self, root: &Arc<Dentry>) {
        root.forget_all();
        self.queue.lock().clear();
    }
}
