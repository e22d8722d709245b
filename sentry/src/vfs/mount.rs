//! Mounts: file systems put together into one tree per mount namespace.
//!
//! A [`SuperBlock`] is a file system in use, with its dentries; a [`Mount`] shows it, from one of
//! its directories on, at a place. Which mount lies on a dentry is known to the mount in which the
//! dentry was reached, so a walk asks only where the dentry says that it is a mount point at all.
//!
//! Locks, outermost first: `Family::lock` (every change of a tree), `Mount::children`,
//! `Mount::place`.

mod detached;
mod propagate;
pub mod visible;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use syscalls::abi::fs::makedev;
use syscalls::abi::mount::MountFlags;
use syscalls::{Errno, SysResult};

use self::detached::Detached;
use self::propagate::Family;
use super::attr::FileType;
use super::dentry::{Dentry, DentryCache};
use super::inode::FileSystem;
use super::lent;
use super::path::Path;
use crate::sync::{Mutex, MutexGuard, RwLock, WaitQueue};
use crate::task::user_namespace::{Counted, Kind, UserNamespace};

/// How many mounts the namespaces of a container may hold: the default of `fs.mount-max`.
const MOUNT_MAX: usize = 100_000;

/// The flags that belong to a mount; the others belong to the file system or are commands.
pub const MOUNT_FLAGS: MountFlags = MountFlags::RDONLY
    .union(MountFlags::NOSUID)
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC)
    .union(MountFlags::NOATIME)
    .union(MountFlags::NODIRATIME)
    .union(MountFlags::RELATIME)
    .union(MountFlags::NOSYMFOLLOW);

/// The flags about access times.
const ATIME_FLAGS: MountFlags =
    MountFlags::NOATIME.union(MountFlags::NODIRATIME).union(MountFlags::RELATIME);

/// The flags that once set stay set in a namespace of others.
const LOCKABLE_FLAGS: MountFlags =
    MountFlags::RDONLY.union(MountFlags::NOSUID).union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Returns a number for a new group of peers.
fn next_group() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns a device number for a file system without a device: major 0.
pub fn next_anonymous_dev() -> u64 {
    static NEXT: AtomicU32 = AtomicU32::new(32);
    makedev(0, NEXT.fetch_add(1, Ordering::Relaxed))
}

fn next_mount_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(21);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A file system in use.
pub struct SuperBlock {
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// Its root.
    pub root: Arc<Dentry>,
    /// The name that the root has in a larger file system of which this one is a part.
    pub name: Vec<u8>,
    /// Its dentries.
    pub cache: DentryCache,
    /// Held while a directory moves, so that no two moves make a loop.
    pub(super) rename: Mutex<()>,
    is_readonly: AtomicU32,
    /// The user namespace of whoever mounted it first; none for the container's.
    owner: Option<Arc<UserNamespace>>,
    /// Its files that have handles.
    pub(super) handles: super::handle::Handles,
}

impl SuperBlock {
    /// Takes a file system into use.
    pub fn new(fs: Arc<dyn FileSystem>) -> Arc<Self> {
        Self::below(fs, b"")
    }

    /// Takes a file system into use that was made in a user namespace.
    pub fn owned(fs: Arc<dyn FileSystem>, owner: &Arc<UserNamespace>) -> Arc<Self> {
        Self::make(fs, b"", Some(owner.clone()).filter(|owner| !owner.is_initial()))
    }

    /// Takes a file system into use that is itself the part with the given name of another one.
    pub fn below(fs: Arc<dyn FileSystem>, name: &[u8]) -> Arc<Self> {
        Self::make(fs, name, None)
    }

    fn make(fs: Arc<dyn FileSystem>, name: &[u8], owner: Option<Arc<UserNamespace>>) -> Arc<Self> {
        let root = Dentry::new_root(fs.root());
        let fs_is_readonly = fs.is_always_readonly();
        Arc::new(Self {
            fs,
            root,
            name: name.to_vec(),
            cache: DentryCache::default(),
            rename: Mutex::new(()),
            is_readonly: AtomicU32::new(u32::from(fs_is_readonly)),
            owner,
            handles: super::handle::Handles::default(),
        })
    }

    /// Returns the user namespace that may change the file system; none for the container's.
    pub fn owner(&self) -> Option<&Arc<UserNamespace>> {
        self.owner.as_ref()
    }

    /// Returns whether the file system as a whole is read-only.
    pub fn is_readonly(&self) -> bool {
        self.is_readonly.load(Ordering::Relaxed) != 0
    }

    /// Makes the file system as a whole read-only or writable.
    pub fn set_readonly(&self, readonly: bool) {
        let readonly = readonly || self.fs.is_always_readonly();
        self.is_readonly.store(u32::from(readonly), Ordering::Relaxed);
    }
}

impl Drop for SuperBlock {
    fn drop(&mut self) {
        self.cache.clear(&self.root);
    }
}

/// Where a mount is mounted.
#[derive(Clone)]
struct Place {
    parent: Weak<Mount>,
    point: Arc<Dentry>,
}

/// How mounts and unmounts below a mount propagate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Propagation {
    /// The peer group of a shared mount.
    pub shared: Option<u64>,
    /// The peer group of which this mount is a slave.
    pub master: Option<u64>,
    /// Whether the mount refuses to be the source of a bind mount.
    pub is_unbindable: bool,
}

/// A file system, or a part of one, at a place.
pub struct Mount {
    /// The id in `/proc/PID/mountinfo`.
    pub id: u64,
    /// The file system.
    pub sb: Arc<SuperBlock>,
    /// The directory (or file) of the file system that the mount shows.
    pub root: Arc<Dentry>,
    /// The source as `/proc/PID/mountinfo` shows it.
    pub source: Vec<u8>,
    flags: AtomicU64,
    /// The flags that nobody takes away: those that whoever is above the namespace has set.
    locked_flags: AtomicU64,
    /// Whether the mount is the kernel's own (`MNT_INTERNAL`): what nobody gets to by a name.
    is_internal: bool,
    /// Set where the mount is the root of a tree of its own, which may be put somewhere.
    detached: Mutex<Option<Detached>>,
    /// Whether the mount stays where it is (`MNT_LOCKED`): it may hide something.
    is_locked: AtomicBool,
    propagation: Mutex<Propagation>,
    place: Mutex<Option<Place>>,
    children: RwLock<Vec<(Arc<Dentry>, Arc<Mount>)>>,
}

impl Mount {
    /// Creates a mount of a whole file system that is not attached anywhere.
    pub fn new(sb: Arc<SuperBlock>, source: &[u8], flags: MountFlags) -> Arc<Self> {
        let root = sb.root.clone();
        Arc::new(Self::of(sb, root, source, flags))
    }

    /// Creates a mount of the kernel's own, which is never attached anywhere.
    pub fn internal(sb: Arc<SuperBlock>, source: &[u8], flags: MountFlags) -> Arc<Self> {
        let root = sb.root.clone();
        let mut mount = Self::of(sb, root, source, flags);
        mount.is_internal = true;
        Arc::new(mount)
    }

    fn of(sb: Arc<SuperBlock>, root: Arc<Dentry>, source: &[u8], flags: MountFlags) -> Self {
        Self {
            id: next_mount_id(),
            sb,
            root,
            source: source.to_vec(),
            flags: AtomicU64::new((flags & MOUNT_FLAGS).bits()),
            locked_flags: AtomicU64::new(0),
            is_internal: false,
            detached: Mutex::new(None),
            is_locked: AtomicBool::new(false),
            propagation: Mutex::new(Propagation::default()),
            place: Mutex::new(None),
            children: RwLock::new(Vec::new()),
        }
    }

    /// Returns whether the mount is the kernel's own.
    pub fn is_internal(&self) -> bool {
        self.is_internal
    }

    /// Returns another mount of what this one shows from `root` on.
    fn copy(&self, root: &Arc<Dentry>) -> Arc<Self> {
        let copy = Arc::new(Self::of(self.sb.clone(), root.clone(), &self.source, self.flags()));
        *copy.propagation.lock() = *self.propagation.lock();
        copy.locked_flags.store(self.locked_flags.load(Ordering::Relaxed), Ordering::Relaxed);
        copy.set_locked(self.is_locked());
        copy
    }

    /// Returns whether the mount stays where it is.
    pub fn is_locked(&self) -> bool {
        self.is_locked.load(Ordering::Relaxed)
    }

    fn set_locked(&self, is_locked: bool) {
        self.is_locked.store(is_locked, Ordering::Relaxed);
    }

    /// Locks place and flags of a copy in a namespace of others: `lock_mnt_tree`,
    /// `CL_UNPRIVILEGED`.
    fn lock_for_others(&self) {
        let kept = self.flags() & LOCKABLE_FLAGS;
        self.locked_flags.fetch_or((kept | ATIME_FLAGS).bits(), Ordering::Relaxed);
        self.set_locked(true);
    }

    /// Returns whether the flags may become `new` (`can_change_locked_flags`).
    pub fn may_set_flags(&self, new: MountFlags) -> bool {
        let locked = MountFlags::from_bits_retain(self.locked_flags.load(Ordering::Relaxed));
        let keeps_all = new.contains(locked & LOCKABLE_FLAGS);
        let keeps_atime =
            !locked.intersects(ATIME_FLAGS) || new & ATIME_FLAGS == self.flags() & ATIME_FLAGS;
        keeps_all && keeps_atime
    }

    /// Returns the mount's flags: those of [`MOUNT_FLAGS`].
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// Replaces the mount's flags.
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store((flags & MOUNT_FLAGS).bits(), Ordering::SeqCst);
        lent::recall_all();
    }

    /// Returns whether nothing may be changed through this mount.
    pub fn is_readonly(&self) -> bool {
        self.flags().contains(MountFlags::RDONLY) || self.sb.is_readonly()
    }

    /// Fails where nothing may be changed through this mount.
    ///
    /// # Errors
    /// `EROFS`.
    pub fn check_writable(&self) -> SysResult<()> {
        if self.is_readonly() { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// Returns how changes below this mount propagate.
    pub fn propagation(&self) -> Propagation {
        *self.propagation.lock()
    }

    /// Returns mount and dentry on which this mount lies.
    pub fn point(&self) -> Option<Path> {
        let place = self.place.lock().clone()?;
        Some(Path { mount: place.parent.upgrade()?, dentry: place.point })
    }

    /// Returns the mount that lies on `dentry` of this one.
    pub fn child_at(&self, dentry: &Arc<Dentry>) -> Option<Arc<Self>> {
        let children = self.children.read();
        children
            .iter()
            .find(|(point, _)| Arc::ptr_eq(point, dentry))
            .map(|(_, mount)| mount.clone())
    }

    /// Returns the mounts that lie on this one.
    pub fn children(&self) -> Vec<Arc<Self>> {
        self.children.read().iter().map(|(_, mount)| mount.clone()).collect()
    }

    fn attach(self: &Arc<Self>, point: &Arc<Dentry>, child: &Arc<Self>) {
        point.add_mount();
        *child.place.lock() = Some(Place { parent: Arc::downgrade(self), point: point.clone() });
        self.children.write().push((point.clone(), child.clone()));
    }

    fn detach(self: &Arc<Self>) {
        let place = self.place.lock().take();
        if let Some(place) = place {
            place.point.remove_mount();
            if let Some(parent) = place.parent.upgrade() {
                parent.children.write().retain(|(_, mount)| !Arc::ptr_eq(mount, self));
            }
        }
    }
}

impl Drop for Mount {
    /// Lets go of the mounts below one by one: a stack of any height must not recurse.
    fn drop(&mut self) {
        let mut pending = std::mem::take(&mut *self.children.write());
        while let Some((point, mount)) = pending.pop() {
            point.remove_mount();
            if let Some(mount) = Arc::into_inner(mount) {
                pending.append(&mut mount.children.write());
            }
        }
    }
}

/// A tree of mounts.
pub struct MountNamespace {
    /// The inode number in `/proc/PID/ns/mnt`.
    pub id: u64,
    /// The user namespace that it belongs to.
    pub(crate) owner: Arc<UserNamespace>,
    root: Mutex<Arc<Mount>>,
    family: Arc<Family>,
    changes: AtomicU64,
    /// Notified when the tree changes: `poll` of `/proc/PID/mounts`.
    pub events: WaitQueue,
    _counted: Option<Counted>,
}

impl MountNamespace {
    /// Creates a container's namespace with `root` at its root.
    pub fn new(root: Arc<Mount>, owner: &Arc<UserNamespace>) -> Arc<Self> {
        Self::in_family(root, owner, &Arc::default(), None)
    }

    fn in_family(
        root: Arc<Mount>,
        owner: &Arc<UserNamespace>,
        family: &Arc<Family>,
        counted: Option<Counted>,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0xf100_0000);
        let namespace = Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            owner: owner.clone(),
            root: Mutex::new(root),
            family: family.clone(),
            changes: AtomicU64::new(0),
            events: WaitQueue::new(),
            _counted: counted,
        });
        family.add(&namespace);
        namespace
    }

    /// Returns the root of the tree, with what is mounted on it.
    pub fn root(&self) -> Path {
        let mount = self.root.lock().clone();
        let dentry = mount.root.clone();
        Path { mount, dentry }.topmost()
    }

    /// Returns how often the tree has changed.
    pub fn n_changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Returns all mounts, parents before children.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        Self::tree(&self.root.lock().clone())
    }

    fn tree(root: &Arc<Mount>) -> Vec<Arc<Mount>> {
        let mut all = vec![root.clone()];
        let mut next = 0;
        while let Some(mount) = all.get(next).cloned() {
            all.extend(mount.children());
            next += 1;
        }
        all
    }

    fn change(&self) -> Change<'_> {
        Change { _guard: self.family.lock.lock(), namespace: self }
    }

    /// Returns whether `mount` is part of this tree.
    pub fn contains(&self, mount: &Arc<Mount>) -> bool {
        let root = self.root.lock().clone();
        let mut at = mount.clone();
        loop {
            if Arc::ptr_eq(&at, &root) {
                return true;
            }
            let Some(point) = at.point() else { return false };
            at = point.mount;
        }
    }

    /// Mounts `mount` on `at`.
    ///
    /// # Errors
    /// `EINVAL` where `at` lies in another namespace, `ENOTDIR` where a directory would cover a
    /// file or the reverse, `ENOENT` for a removed directory, `ENOSPC` for too many mounts,
    /// `EBUSY` where the same file system is mounted there already.
    pub fn mount(&self, mount: &Arc<Mount>, at: &Path) -> SysResult<()> {
        let _change = self.change();
        self.attach(mount, at)
    }

    fn attach(&self, mount: &Arc<Mount>, at: &Path) -> SysResult<()> {
        let at = at.clone().topmost();
        if !self.contains(&at.mount) {
            return Err(Errno::EINVAL);
        }
        // The links of processes are as short-lived as these.
        let is_ephemeral =
            at.dentry.inode().file_type() == FileType::Symlink && at.mount.sb.fs.kind() == "proc";
        if at.dentry.is_removed() || is_ephemeral {
            return Err(Errno::ENOENT);
        }
        if mount.root.is_dir() != at.dentry.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        self.family.check_room(Self::tree(mount).len())?;
        self.family.mounted(&at.mount, &at.dentry, mount, &self.owner)?;
        at.mount.attach(&at.dentry, mount);
        Ok(())
    }

    /// Makes what lies at `source` visible at `at` too; with `recursive` also the mounts below it.
    ///
    /// # Errors
    /// As [`MountNamespace::mount`]; `EINVAL` for an unbindable source.
    pub fn bind(&self, source: &Path, at: &Path, recursive: bool) -> SysResult<()> {
        let _change = self.change();
        if !self.contains(&source.mount) {
            return Err(Errno::EINVAL);
        }
        let copy = Self::copy_for_bind(source, recursive)?;
        self.attach(&copy, at)
    }

    /// Makes a file visible at `at` that is in no tree: a namespace.
    ///
    /// # Errors
    /// As [`MountNamespace::mount`].
    pub fn bind_nameless(&self, source: &Path, at: &Path) -> SysResult<()> {
        let _change = self.change();
        self.attach(&source.mount.copy(&source.dentry), at)
    }

    fn copy_for_bind(source: &Path, recursive: bool) -> SysResult<Arc<Mount>> {
        let is_below = |point: &Arc<Dentry>| point.is_below(&source.dentry);
        let hides =
            |(point, child): &(Arc<Dentry>, Arc<Mount>)| child.is_locked() && is_below(point);
        if source.mount.propagation().is_unbindable
            || (!recursive && source.mount.children.read().iter().any(hides))
        {
            return Err(Errno::EINVAL);
        }
        let copy = if recursive {
            Self::copy_tree(&source.mount, &source.dentry, false).0
        } else {
            source.mount.copy(&source.dentry)
        };
        copy.set_locked(false);
        Ok(copy)
    }

    /// Copies a mount from `root` on and the mounts below; returns the copy and which mount was
    /// copied to which.
    fn copy_tree(
        mount: &Arc<Mount>,
        root: &Arc<Dentry>,
        with_unbindable: bool,
    ) -> (Arc<Mount>, Vec<(Arc<Mount>, Arc<Mount>)>) {
        let top = mount.copy(root);
        let mut copies = vec![(mount.clone(), top.clone())];
        let mut next = 0;
        while let Some((from, to)) = copies.get(next).cloned() {
            next += 1;
            let children = from.children.read().clone();
            for (point, child) in children {
                let is_hidden = !with_unbindable && child.propagation().is_unbindable;
                if is_hidden || !point.is_below(&to.root) {
                    continue;
                }
                let copy = child.copy(&child.root);
                to.attach(&point, &copy);
                copies.push((child, copy));
            }
        }
        (top, copies)
    }

    /// Copies the whole tree into a new namespace of `owner`, and translates `paths` (root and
    /// working directory of the caller) into it.
    ///
    /// # Errors
    /// `ENOSPC` for too many namespaces or mounts.
    pub fn copy_for(
        &self,
        owner: &Arc<UserNamespace>,
        paths: &mut [&mut Path],
    ) -> SysResult<Arc<Self>> {
        let counted = owner.count(Kind::Mnt)?;
        let guard = self.family.lock.lock();
        let root = self.root.lock().clone();
        self.family.check_room(Self::tree(&root).len())?;
        let (top, copies) = Self::copy_tree(&root, &root.root, true);
        if !self.owner.is(owner) {
            for (_, copy) in &copies {
                copy.lock_for_others();
                let mut propagation = copy.propagation.lock();
                if let Some(group) = propagation.shared.take() {
                    propagation.master = Some(group);
                }
            }
            top.set_locked(false);
        }
        let namespace = Self::in_family(top, owner, &self.family, Some(counted));
        drop(guard);
        for path in paths {
            if let Some((_, copy)) = copies.iter().find(|(old, _)| Arc::ptr_eq(old, &path.mount)) {
                path.mount = copy.clone();
            }
        }
        Ok(namespace)
    }

    /// Moves the mount whose root is `source` to `at`.
    ///
    /// # Errors
    /// `EINVAL` where `source` is no mount's root or is the namespace's root, `ELOOP` where `at`
    /// lies below it; otherwise as [`MountNamespace::mount`].
    pub fn move_mount(&self, source: &Path, at: &Path) -> SysResult<()> {
        let _change = self.change();
        let mount = &source.mount;
        let is_root = Arc::ptr_eq(&source.dentry, &mount.root);
        let Some(old) = mount.point().filter(|_| is_root && self.contains(mount)) else {
            return Err(Errno::EINVAL);
        };
        let is_shared = |mount: &Mount| mount.propagation().shared.is_some();
        if mount.is_locked() || is_shared(&old.mount) {
            return Err(Errno::EINVAL);
        }
        let at = at.clone().topmost();
        let mut above = Some(at.clone());
        while let Some(path) = above {
            if Arc::ptr_eq(&path.mount, mount) {
                return Err(Errno::ELOOP);
            }
            above = path.mount.point();
        }
        let is_unbindable = |mount: &Arc<Mount>| mount.propagation().is_unbindable;
        if is_shared(&at.mount) && Self::tree(mount).iter().any(is_unbindable) {
            return Err(Errno::EINVAL);
        }
        mount.detach();
        let result = self.attach(mount, &at);
        if result.is_err() {
            old.mount.attach(&old.dentry, mount);
        }
        result
    }

    /// Unmounts the mount whose root is `path`. With `detach` it only leaves the tree, together
    /// with what is mounted below, and goes when nobody uses it any more.
    ///
    /// # Errors
    /// `EINVAL` where `path` is no mount's root or is the namespace's root, `EBUSY` where
    /// something is mounted below or in use.
    pub fn umount(&self, path: Path, detach: bool) -> SysResult<()> {
        let _change = self.change();
        let Path { mount, dentry } = path;
        if !Arc::ptr_eq(&dentry, &mount.root) || !self.contains(&mount) {
            return Err(Errno::EINVAL);
        }
        if mount.is_locked() {
            return Err(Errno::EINVAL);
        }
        let Some(place) = mount.point() else {
            return Err(if detach { Errno::EINVAL } else { Errno::EBUSY });
        };
        if !detach {
            // One count is the parent mount's, one the caller's.
            if !mount.children.read().is_empty() || Arc::strong_count(&mount) > 2 {
                return Err(Errno::EBUSY);
            }
            mount.sb.fs.sync()?;
            mount.detach();
            self.family.unmounted(&place.mount, &place.dentry);
            return Ok(());
        }
        for mount in Self::tree(&mount).iter().rev() {
            let place = mount.point();
            mount.detach();
            if let Some(place) = place {
                self.family.unmounted(&place.mount, &place.dentry);
            }
        }
        Ok(())
    }

    /// Returns whether something is mounted on a dentry in this namespace.
    pub fn mounts_on(&self, dentry: &Arc<Dentry>) -> bool {
        let is_there = |point: Path| Arc::ptr_eq(&point.dentry, dentry);
        dentry.is_mount_point()
            && self.mounts().iter().any(|mount| mount.point().is_some_and(is_there))
    }

    /// Detaches what other namespaces have mounted on a dentry that has been removed. (Linux 3.18)
    pub fn removed(&self, dentry: &Arc<Dentry>) {
        if dentry.is_mount_point() {
            let _guard = self.family.lock.lock();
            self.family.detach_from(dentry);
        }
    }

    /// Sets how changes below the mount at `path` propagate: one of the four `MS_*` types.
    ///
    /// # Errors
    /// `EINVAL` where `path` is no mount's root.
    pub fn set_propagation(&self, path: &Path, kind: MountFlags, recursive: bool) -> SysResult<()> {
        let _change = self.change();
        if !Arc::ptr_eq(&path.dentry, &path.mount.root) {
            return Err(Errno::EINVAL);
        }
        let mounts = if recursive { Self::tree(&path.mount) } else { vec![path.mount.clone()] };
        for mount in mounts {
            let has_peer = |group| self.family.has_peer(group, &mount);
            let peer_is_master = match mount.propagation() {
                Propagation { shared: Some(group), master: Some(_), .. } => has_peer(group),
                _ => true,
            };
            let mut propagation = mount.propagation.lock();
            if kind.contains(MountFlags::SHARED) {
                propagation.is_unbindable = false;
                if propagation.shared.is_none() {
                    propagation.shared = Some(next_group());
                }
            } else if kind.contains(MountFlags::SLAVE) {
                if let Some(group) = propagation.shared.take().filter(|_| peer_is_master) {
                    propagation.master = Some(group);
                }
                propagation.is_unbindable = false;
            } else {
                *propagation = Propagation {
                    is_unbindable: kind.contains(MountFlags::UNBINDABLE),
                    ..Propagation::default()
                };
            }
        }
        Ok(())
    }

    /// Gives the mount at `path` other flags, with `recursive` also the mounts below it: all or none.
    ///
    /// # Errors
    /// `EINVAL` where `path` is no mount's root or lies in another namespace, `EPERM` for flags that
    /// are locked.
    pub fn change_flags(
        &self,
        path: &Path,
        recursive: bool,
        change: impl Fn(MountFlags) -> MountFlags,
    ) -> SysResult<()> {
        let _change = self.change();
        if !path.is_mount_root() || !self.may_change(&path.mount) {
            return Err(Errno::EINVAL);
        }
        let mounts = if recursive { Self::tree(&path.mount) } else { vec![path.mount.clone()] };
        if !mounts.iter().all(|mount| mount.may_set_flags(change(mount.flags()))) {
            return Err(Errno::EPERM);
        }
        for mount in mounts {
            mount.set_flags(change(mount.flags()));
        }
        Ok(())
    }

    /// Makes `new_root` the root of the tree and puts the old root at `put_old`, below it; `root`
    /// is the caller's root directory.
    ///
    /// # Errors
    /// `EINVAL` where one of them is not a mount point in this tree, `put_old` is not below
    /// `new_root`, or `new_root` is not below `root`; `EBUSY` where `new_root` or `put_old` lies on
    /// the current root mount.
    pub fn pivot_root(&self, root: &Path, new_root: &Path, put_old: &Path) -> SysResult<()> {
        let _change = self.change();
        let is_mount_root = |path: &Path| Arc::ptr_eq(&path.dentry, &path.mount.root);
        if !self.contains(&new_root.mount) || !self.contains(&root.mount) {
            return Err(Errno::EINVAL);
        }
        if Arc::ptr_eq(&new_root.mount, &root.mount) || Arc::ptr_eq(&put_old.mount, &root.mount) {
            return Err(Errno::EBUSY);
        }
        let new_point = new_root.mount.point();
        if !is_mount_root(root) || !is_mount_root(new_root) || new_point.is_none() {
            return Err(Errno::EINVAL);
        }
        if !put_old.is_below(new_root) || !new_root.is_below(root) {
            return Err(Errno::EINVAL);
        }
        let old_point = root.mount.point();
        let is_shared = |mount: &Mount| mount.propagation().shared.is_some();
        let parents = [&new_point, &old_point];
        if is_shared(&put_old.mount)
            || parents.iter().any(|point| point.as_ref().is_some_and(|at| is_shared(&at.mount)))
            || new_root.mount.is_locked()
        {
            return Err(Errno::EINVAL);
        }
        new_root.mount.set_locked(root.mount.is_locked());
        root.mount.set_locked(false);
        new_root.mount.detach();
        if let Some(point) = &old_point {
            root.mount.detach();
            point.mount.attach(&point.dentry, &new_root.mount);
        } else {
            *self.root.lock() = new_root.mount.clone();
        }
        let put_old = put_old.clone().topmost();
        put_old.mount.attach(&put_old.dentry, &root.mount);
        Ok(())
    }
}

/// A change of the tree under way; its end is announced.
struct Change<'a> {
    _guard: MutexGuard<'a, ()>,
    namespace: &'a MountNamespace,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.namespace.announce();
    }
}
