//! [`GoferInode`]: a file that the gofer knows by a fid.

mod socket;

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use gofer_wire::request::{self, Ownership};
use gofer_wire::{Fid, Name, OpenFlags, Request, UnlinkFlags, reply};
use syscalls::{Errno, SysResult};

use super::acl::KnownAcls;
use super::ahead::{self, Ahead, Results, Scan};
use super::directory::{GoferDirectory, Listing};
use super::file::GoferFile;
use super::names::{BELIEF, Names};
use super::watch::{CONTENT, Change};
use super::{Caching, Identity, SETTLED, Store, attr};
use crate::sync::Mutex;
use crate::task::CurrentTask;
use crate::vfs::acl::{Acl, AclKind};
use crate::vfs::dentry::Dentry;
use crate::vfs::inode;
use crate::vfs::{
    Attr, Content, File, FileType, Inode, InodeExtras, ListEntry, LookupPolicy, MapMode, Mappable,
    Mapping, NewNode, NodeKind, SetAttr, XattrFlags,
};

/// How many components are looked up together.
const MAX_AHEAD: usize = 16;

/// A file that the gofer knows by a fid.
pub struct GoferInode {
    store: Arc<Store>,
    fid: Fid,
    identity: Identity,
    file_type: FileType,
    extras: InodeExtras,
    pub(super) state: Mutex<State>,
    /// The target of a symbolic link, which never changes.
    target: OnceLock<Vec<u8>>,
    /// Makes `O_APPEND` writes of this sandbox follow one another.
    pub(super) append: Mutex<()>,
}

pub(super) struct State {
    pub(super) attr: Attr,
    /// When `attr` was fetched: `Store::epoch` and time.
    pub(super) epoch: u64,
    fetched: Instant,
    /// Set where `attr` is known to be old.
    is_stale: bool,
    /// Set where the file may have no name any more: the host frees its space with the last
    /// descriptor, so none is kept for later.
    pub(super) is_unnamed: bool,
    /// Donated descriptors: for reading, and for reading and writing. Held by open files, mappings
    /// and `Store::recent`.
    read: Weak<OwnedFd>,
    write: Weak<OwnedFd>,
    /// What a walk ahead has found below this directory, until it is asked for.
    ahead: Option<Ahead>,
    /// Who looks at the names of this directory one after the other, where others hardly change them.
    scan: Option<Box<Scan>>,
    /// The entries of a directory, as long as [`ahead::Ring`] has them.
    listing: Option<KnownListing>,
    /// How good the names below a directory are, under [`Caching::Own`].
    pub(super) names: Option<Names>,
    /// Access control lists that were asked for.
    pub(super) acls: KnownAcls,
}

/// What the entries of a directory were.
struct KnownListing {
    listing: Weak<[ListEntry]>,
    /// `Store::epoch`, and [`Names::n_changes`] under [`Caching::Own`].
    epoch: u64,
    n_changes: Option<u64>,
}

impl State {
    /// Returns the entries of the directory, where they are known and right, and how often it has changed.
    fn known_listing(&self, epoch: u64, round: u64) -> (Option<Listing>, Option<u64>) {
        let n_changes = self.names.as_ref().map(Names::n_changes);
        let known = self.listing.as_ref().filter(|known| match &self.names {
            Some(names) => names.is_fresh(round) && known.n_changes == n_changes,
            None => known.epoch == epoch,
        });
        (known.and_then(|known| known.listing.upgrade()), n_changes)
    }
}

impl GoferInode {
    pub(super) fn new(store: Arc<Store>, node: reply::Node, target: Option<Vec<u8>>) -> Arc<Self> {
        let attr = attr::from_wire(&node.attr);
        let is_directory = FileType::from_mode(node.attr.mode) == FileType::Directory;
        let mut acls = KnownAcls::default();
        acls.update(&node.attr, &attr, store.caching);
        let state = State {
            attr,
            epoch: store.epoch(),
            fetched: Instant::now(),
            is_stale: false,
            is_unnamed: false,
            read: Weak::new(),
            write: Weak::new(),
            ahead: None,
            scan: None,
            listing: None,
            names: (store.caching == Caching::Own && is_directory)
                .then(|| Names::new(&attr, store.round())),
            acls,
        };
        Arc::new(Self {
            store,
            fid: node.fid,
            identity: (node.attr.dev_major, node.attr.dev_minor, node.attr.ino),
            file_type: FileType::from_mode(node.attr.mode),
            extras: InodeExtras::default(),
            state: Mutex::new(state),
            target: target.map_or_else(OnceLock::new, OnceLock::from),
            append: Mutex::new(()),
        })
    }

    pub(super) const fn fid(&self) -> Fid {
        self.fid
    }

    pub(super) const fn host_identity(&self) -> Identity {
        self.identity
    }

    pub(super) const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Takes over attributes that the gofer has just sent.
    pub(super) fn update(&self, new: &gofer_wire::Attr) {
        let mut state = self.state.lock();
        let attr = attr::from_wire(new);
        state.attr = attr;
        state.acls.update(new, &attr, self.store.caching);
        state.epoch = self.store.epoch();
        state.fetched = Instant::now();
        state.is_stale = false;
    }

    /// Is told that this sandbox has changed the file.
    pub(super) fn set_stale(&self) {
        let mut state = self.state.lock();
        state.is_stale = true;
        state.listing = None;
        state.acls.clear();
        let (ahead, scan) = (state.ahead.take(), state.scan.take());
        drop(state);
        drop(ahead);
        if let Some(results) = scan.and_then(|scan| scan.results()) {
            results.clear();
        }
    }

    /// Keeps the result of a lookup for the moment that follows.
    fn set_ahead(&self, name: Name<'_>, result: SysResult<Arc<Self>>) {
        let ahead = Ahead { name: Box::from(name.as_bytes()), result, found: Instant::now() };
        let old = self.state.lock().ahead.replace(ahead);
        drop(old);
    }

    /// Takes the result of a lookup that was made a moment before.
    fn take_ahead(&self, name: &[u8]) -> Option<SysResult<Arc<Self>>> {
        let round = self.store.round();
        let mut state = self.state.lock();
        if let Some(results) = state.scan.as_ref().and_then(|scan| scan.results()) {
            drop(state);
            if let Some((found, is_good)) = results.take(name, round) {
                return is_good.then_some(found);
            }
            state = self.state.lock();
        }
        let ahead = state.ahead.take()?;
        drop(state);
        let is_good = *ahead.name == *name && ahead.found.elapsed() < self.store.fresh;
        is_good.then_some(ahead.result)
    }

    /// Returns a descriptor for reading, read-only.
    ///
    /// # Errors
    /// Those of the gofer's open.
    pub(super) fn read_descriptor(&self) -> SysResult<Arc<OwnedFd>> {
        self.descriptor(OpenFlags::READ, |state| &mut state.read)
    }

    /// Returns a descriptor for reading and writing.
    ///
    /// # Errors
    /// Those of the gofer's open.
    pub(super) fn write_descriptor(&self) -> SysResult<Arc<OwnedFd>> {
        self.descriptor(OpenFlags::READ | OpenFlags::WRITE, |state| &mut state.write)
    }

    fn descriptor(
        &self,
        flags: OpenFlags,
        place: impl Fn(&mut State) -> &mut Weak<OwnedFd>,
    ) -> SysResult<Arc<OwnedFd>> {
        let known = place(&mut self.state.lock()).upgrade();
        if let Some(known) = known {
            return Ok(known);
        }
        let opened =
            self.store.connection.call_descriptor(&Request::Open { fid: self.fid, flags })?;
        let opened = Arc::new(opened);
        let mut state = self.state.lock();
        // Somebody else may have been quicker; mappings want to see the same one.
        let descriptor = match place(&mut state).upgrade() {
            Some(known) => known,
            None => {
                *place(&mut state) = Arc::downgrade(&opened);
                opened
            }
        };
        let is_unnamed = state.is_unnamed;
        drop(state);
        if !is_unnamed {
            self.store.remember(&descriptor);
        }
        Ok(descriptor)
    }

    /// Returns whether the first name is known from a walk ahead.
    fn is_ahead(&self, names: &[Name<'_>]) -> bool {
        let state = self.state.lock();
        state.ahead.as_ref().is_some_and(|ahead| {
            names.first().is_some_and(|name| *ahead.name == *name.as_bytes())
                && ahead.found.elapsed() < self.store.fresh
        })
    }

    /// Resolves one name below this directory.
    ///
    /// # Errors
    /// `ENOENT` and others of the gofer's walk.
    pub(super) fn walk(&self, name: &[u8]) -> SysResult<Arc<Self>> {
        if let Some(result) = self.take_ahead(name) {
            return result;
        }
        let planned = self.state.lock().scan.as_mut().and_then(|scan| scan.plan(name));
        if let Some(result) = planned.and_then(|names| self.look_up_all(names)) {
            return result;
        }
        let names = [Name::new(name)?];
        let request = Request::Walk { fid: self.fid, names: request::Names::new(&names) };
        let (node, stopped, target) = self.store.connection.call(&request, |body, _| {
            let walk = reply::Walk::decode(body)?;
            Ok((walk.nodes().next(), walk.stopped, walk.target.map(<[u8]>::to_vec)))
        })?;
        match node {
            Some(node) => Ok(self.store.adopt(node, target)),
            None => Err(stopped.unwrap_or(Errno::ENOENT)),
        }
    }

    /// Looks up names that stand one after the other in the listing. Returns what the first one is, and keeps the others for
    /// the lookups that follow.
    fn look_up_all(&self, planned: Vec<Box<[u8]>>) -> Option<SysResult<Arc<Self>>> {
        let (changes, round) = (self.store.changes(), self.store.round());
        let names = ahead::names(&planned).ok()?;
        let request = Request::Lookup { dir: self.fid, names: request::Names::new(&names) };
        // Where that is impossible, the single lookup says why.
        let results = self
            .store
            .connection
            .call(&request, |body, _| Ok(reply::Lookups::decode(body)?.collect::<Vec<_>>()))
            .ok()?;
        let adopted = results.into_iter().map(|node| Ok(self.store.adopt(node?, None)));
        let mut found = planned.into_iter().zip(adopted).collect::<Vec<_>>().into_iter();
        let (_, first) = found.next()?;
        let results = Results::new(found, round);
        let mut state = self.state.lock();
        // What this sandbox has changed meanwhile may not be what was found.
        if let Some(scan) = state.scan.as_mut().filter(|_| changes == self.store.changes()) {
            let old = scan.results();
            scan.keep(&results);
            drop(state);
            self.store.remember_results(old, results);
        }
        Some(first)
    }

    /// Returns the entries of this directory.
    ///
    /// # Errors
    /// Those of the gofer.
    pub(super) fn listing(&self) -> SysResult<Listing> {
        let epoch = self.store.epoch();
        let own = self.store.caching == Caching::Own;
        if own {
            // Where it cannot be looked at, reading it says why.
            self.check_names();
        }
        let mut state = self.state.lock();
        let (listing, n_changes) = state.known_listing(epoch, self.store.round());
        if let Some(listing) = listing {
            if let Some(scan) = &mut state.scan {
                scan.rewind();
            }
            return Ok(listing);
        }
        let is_settled = !own || (!state.is_stale && attr::is_settled(&state.attr, SETTLED));
        drop(state);
        self.fetch_listing(epoch, n_changes, is_settled)
    }

    /// Reads the whole directory, of which the caller knows how often it had changed before.
    fn fetch_listing(
        &self,
        epoch: u64,
        n_changes: Option<u64>,
        is_settled: bool,
    ) -> SysResult<Listing> {
        let changes = self.store.changes();
        let listing = super::directory::fetch(&self.store.connection, self.fid)?;
        if self.store.caching != Caching::Shared {
            let known = KnownListing { listing: Arc::downgrade(&listing), epoch, n_changes };
            let mut state = self.state.lock();
            // What this sandbox has changed meanwhile may be listed or not.
            if is_settled && changes == self.store.changes() {
                state.listing = Some(known);
            }
            let old = state.scan.replace(Box::new(Scan::new(&listing)));
            drop(state);
            drop(old);
            self.store.remember_listing(&listing);
        }
        Ok(listing)
    }

    /// Returns the target of a symbolic link.
    ///
    /// # Errors
    /// `EINVAL` for anything else.
    pub(super) fn link_target(&self) -> SysResult<Vec<u8>> {
        if self.file_type != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        if let Some(target) = self.target.get() {
            return Ok(target.clone());
        }
        let target = self.store.connection.call_bytes(&Request::Readlink { fid: self.fid })?;
        Ok(self.target.get_or_init(|| target).clone())
    }

    /// Is told that a name below this directory has changed.
    fn changed(&self, name: &[u8]) {
        self.store.n_changes.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.is_stale = true;
        state.listing = None;
        let ahead = state.ahead.take_if(|ahead| *ahead.name == *name);
        let results = state.scan.as_ref().and_then(|scan| scan.results());
        drop(state);
        drop(ahead);
        if let Some(results) = results {
            results.forget(name);
        }
    }

    fn remove(&self, name: &[u8], flags: UnlinkFlags) -> SysResult<()> {
        let _own = self.own_name(name);
        let request = Request::Unlink { dir: self.fid, name: Name::new(name)?, flags };
        self.store.connection.call_status(&request)?;
        self.changed(name);
        Ok(())
    }

    /// Returns the attributes that are known, where they are good.
    fn known_attr(&self) -> Option<Attr> {
        let mut state = self.state.lock();
        // A file that is open for writing changes without our being told: mappings write to it. On
        // a shared mount, any open file is asked itself.
        let open = match (state.write.upgrade(), self.store.caching) {
            (Some(write), _) => Some(write),
            (None, Caching::Shared) => state.read.upgrade(),
            (None, Caching::Exclusive | Caching::Own) => None,
        };
        if let Some(open) = open {
            let stat = sentry_host::file::stat(open.as_fd()).ok()?;
            if attr::refresh(&mut state.attr, &stat) && self.store.caching == Caching::Shared {
                return None;
            }
            // When the last writer has gone, the attributes are fetched once more.
            state.is_stale = true;
            return Some(state.attr);
        }
        if state.is_stale || state.epoch != self.store.epoch() {
            return None;
        }
        self.is_believed(&state).then_some(state.attr)
    }

    /// Returns whether attributes were fetched so lately that nobody else will have changed them.
    fn is_believed(&self, state: &State) -> bool {
        match self.store.caching {
            Caching::Exclusive => true,
            Caching::Own => state.fetched.elapsed() < BELIEF,
            Caching::Shared => state.fetched.elapsed() < self.store.fresh,
        }
    }
}

impl Drop for GoferInode {
    fn drop(&mut self) {
        let is_unnamed = self.state.lock().is_unnamed;
        self.store.retire(self.identity, self.fid, is_unnamed);
    }
}

impl Inode for GoferInode {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        self.file_type
    }

    fn attr(&self) -> SysResult<Attr> {
        if let Some(attr) = self.known_attr() {
            return Ok(attr);
        }
        let new: gofer_wire::Attr =
            self.store.connection.call_fixed(&Request::Getattr { fid: self.fid })?;
        self.update(&new);
        Ok(attr::from_wire(&new))
    }

    fn access_attr(&self) -> SysResult<Attr> {
        let state = self.state.lock();
        // What this sandbox does to names and content leaves mode and owners alone.
        let is_good = state.epoch == self.store.epoch() && self.is_believed(&state);
        let attr = state.attr;
        drop(state);
        if is_good { Ok(attr) } else { self.attr() }
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        let _own = self.own_file(CONTENT);
        let only_size = SetAttr { size: change.size, ..SetAttr::default() };
        let open = self.state.lock().write.upgrade();
        if let (Some(size), Some(open)) = (change.size, open)
            && *change == only_size
        {
            sentry_host::file::truncate(open.as_fd(), size)?;
            self.set_stale();
            return Ok(());
        }
        let request = Request::Setattr { fid: self.fid, attr: attr::change(change) };
        let new = self.store.connection.call_fixed(&request)?;
        self.update(&new);
        self.state.lock().acls.clear();
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> SysResult<Arc<dyn Inode>> {
        let child = self.verify(name)?;
        Ok(child)
    }

    fn prefetch(&self, path: &[u8]) {
        // What is not a plain name ends the walk ahead, and so does what is more than usual.
        let names: Vec<Name<'_>> = path
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
            .take(MAX_AHEAD)
            .map_while(|name| Name::new(name).ok())
            .collect();
        if names.len() < 2 || self.is_ahead(&names) {
            return;
        }
        let request = Request::Walk { fid: self.fid, names: request::Names::new(&names) };
        let found = self.store.connection.call(&request, |body, _| {
            let walk = reply::Walk::decode(body)?;
            let nodes: Vec<_> = walk.nodes().collect();
            Ok((nodes, walk.stopped, walk.target.map(<[u8]>::to_vec)))
        });
        // Where even that is impossible, the single lookups say why.
        let Ok((nodes, stopped, mut target)) = found else { return };
        let n_nodes = nodes.len();
        let mut above: Option<Arc<Self>> = None;
        for (index, (node, name)) in nodes.into_iter().zip(&names).enumerate() {
            let target = if index + 1 == n_nodes { target.take() } else { None };
            let inode = self.store.adopt(node, target);
            above.as_deref().unwrap_or(self).set_ahead(*name, Ok(inode.clone()));
            above = Some(inode);
        }
        if let (Some(errno), Some(name)) = (stopped, names.get(n_nodes)) {
            above.as_deref().unwrap_or(self).set_ahead(*name, Err(errno));
        }
    }

    fn lookup_policy(&self) -> LookupPolicy {
        match self.store.caching {
            Caching::Exclusive => LookupPolicy::Cache,
            Caching::Shared => LookupPolicy::Revalidate,
            Caching::Own => match &self.state.lock().names {
                Some(names) if names.are_all_good() && names.is_fresh(self.store.round()) => {
                    LookupPolicy::Cache
                }
                _ => LookupPolicy::Revalidate,
            },
        }
    }

    fn is_sure_of(&self, name: &[u8]) -> bool {
        let state = self.state.lock();
        let Some(names) = &state.names else { return false };
        names.is_good(name) && names.is_fresh(self.store.round())
    }

    fn revalidate(&self, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        if self.store.caching == Caching::Own && self.check_names() && self.is_sure_of(name) {
            return true;
        }
        let n_changes = self.n_changes();
        let is_right = match (self.walk(name), child) {
            (Ok(found), Some(child)) => {
                let found: Arc<dyn Inode> = found;
                Arc::ptr_eq(&found, child)
            }
            (Err(Errno::ENOENT), None) => true,
            _ => false,
        };
        // What is remembered is good from then on only where it was right.
        if is_right {
            self.verified_since(n_changes, name);
        }
        is_right
    }

    fn create(&self, name: &[u8], node: &NewNode) -> SysResult<Arc<dyn Inode>> {
        let (dir, name, ownership) = (self.fid, Name::new(name)?, ownership(node));
        let connection = &self.store.connection;
        let _own = self.own_name(name.as_bytes());
        let special = |type_bits: FileType, device| {
            let (major, minor) = attr::split_device(device);
            let mode = ownership.mode | type_bits.mode_bits();
            let ownership = Ownership { mode, ..ownership };
            connection.call_fixed(&Request::Mknod { dir, name, ownership, major, minor })
        };
        let new: reply::Node = match &node.kind {
            NodeKind::Regular => {
                let flags = OpenFlags::READ | OpenFlags::WRITE;
                let request = Request::Create { dir, name, flags, ownership };
                let (new, file) = connection.call_with_descriptor(&request)?;
                self.changed(name.as_bytes());
                self.verified(name.as_bytes());
                let inode = self.store.adopt(new, None);
                let file = Arc::new(file);
                inode.state.lock().write = Arc::downgrade(&file);
                self.store.remember(&file);
                return Ok(inode);
            }
            NodeKind::Directory => connection.call_fixed(&Request::Mkdir { dir, name, ownership }),
            NodeKind::Symlink(target) => {
                connection.call_fixed(&Request::Symlink { dir, name, target, ownership })
            }
            NodeKind::Fifo => special(FileType::Fifo, 0),
            NodeKind::Socket => special(FileType::Socket, 0),
            NodeKind::CharDevice(device) => special(FileType::CharDevice, *device),
            NodeKind::BlockDevice(device) => special(FileType::BlockDevice, *device),
        }?;
        self.changed(name.as_bytes());
        self.verified(name.as_bytes());
        Ok(self.store.adopt(new, None))
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> SysResult<()> {
        let target = self.sibling(target)?;
        let _own = self
            .store
            .own(|| vec![Change::Name(self.identity, Box::from(name)), target.as_changed(CONTENT)]);
        let request = Request::Link { fid: target.fid, dir: self.fid, name: Name::new(name)? };
        let new = self.store.connection.call_fixed(&request)?;
        self.changed(name);
        target.update(&new);
        Ok(())
    }

    fn refuses_existing(&self) -> bool {
        true
    }

    fn renamed(&self) {
        self.state.lock().is_stale = true;
    }

    fn name_removed(&self) {
        let mut state = self.state.lock();
        state.is_stale = true;
        if self.file_type == FileType::Directory {
            return;
        }
        state.is_unnamed = true;
        let open = [state.read.upgrade(), state.write.upgrade()];
        drop(state);
        for descriptor in open.into_iter().flatten() {
            self.store.forget(&descriptor);
        }
    }

    fn unlink(&self, name: &[u8]) -> SysResult<()> {
        self.remove(name, UnlinkFlags::empty())
    }

    fn rmdir(&self, name: &[u8]) -> SysResult<()> {
        self.remove(name, UnlinkFlags::DIRECTORY)
    }

    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: u32,
    ) -> SysResult<()> {
        let new_dir = self.sibling(new_dir)?;
        let _own = self.store.own(|| {
            let names = [(self.identity, name), (new_dir.identity, new_name)];
            names.map(|(dir, name)| Change::Name(dir, Box::from(name))).into()
        });
        let request = Request::Rename {
            old_dir: self.fid,
            old_name: Name::new(name)?,
            new_dir: new_dir.fid,
            new_name: Name::new(new_name)?,
            flags: gofer_wire::RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?,
        };
        self.store.connection.call_status(&request)?;
        self.changed(name);
        new_dir.changed(new_name);
        new_dir.verified(new_name);
        Ok(())
    }

    fn readlink(&self, _task: Option<&CurrentTask>) -> SysResult<Vec<u8>> {
        self.link_target()
    }

    fn open(self: Arc<Self>, task: &CurrentTask, flags: u32) -> SysResult<Arc<dyn File>> {
        match self.file_type {
            FileType::Regular => Ok(Arc::new(GoferFile::open(self, flags)?)),
            FileType::Directory => Ok(Arc::new(GoferDirectory::new(self))),
            FileType::Symlink => Err(Errno::ELOOP),
            // Devices and FIFOs of the host are never opened: a node stands for the guest's own.
            _ => {
                let rdev = self.attr()?.rdev;
                let inode: Arc<dyn Inode> = self;
                task.kernel.special_files.open(task, &inode, rdev, flags)
            }
        }
    }

    fn watch(self: Arc<Self>, dentry: &Arc<Dentry>) {
        self.store.watch(&self, dentry);
    }

    fn unwatch(&self) {
        self.store.unwatch(self.identity);
    }

    fn host_content(&self) -> SysResult<Arc<OwnedFd>> {
        if self.file_type == FileType::Regular {
            self.read_descriptor()
        } else {
            Err(Errno::EOPNOTSUPP)
        }
    }

    fn content(self: Arc<Self>, is_writing: bool) -> SysResult<Arc<dyn Content>> {
        let flags = if is_writing { syscalls::abi::fs::OpenFlags::RDWR.bits() } else { 0 };
        Ok(Arc::new(GoferFile::open(self, flags)?))
    }

    fn list(&self) -> SysResult<Vec<ListEntry>> {
        if self.file_type != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        Ok(self.listing()?.to_vec())
    }

    fn acl(&self, kind: AclKind) -> SysResult<Option<Arc<Acl>>> {
        self.fetch_acl(kind)
    }

    fn get_xattr(&self, name: &[u8]) -> SysResult<Vec<u8>> {
        self.fetch_xattr(name)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> SysResult<()> {
        if value.len() > gofer_wire::XATTR_MAX {
            return Err(Errno::ENOSPC);
        }
        let flags = gofer_wire::XattrFlags::from_bits(flags.bits()).ok_or(Errno::EINVAL)?;
        let name = xattr_name(name)?;
        let _own = self.own_file(CONTENT);
        let request = Request::SetXattr { fid: self.fid, name, value, flags };
        self.store.connection.call_status(&request)?;
        self.xattr_changed(name);
        Ok(())
    }

    fn list_xattr(&self) -> SysResult<Vec<Vec<u8>>> {
        let names = self.store.connection.call_bytes(&Request::ListXattr { fid: self.fid })?;
        Ok(names
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> SysResult<()> {
        let name = xattr_name(name)?;
        let _own = self.own_file(CONTENT);
        self.store.connection.call_status(&Request::RemoveXattr { fid: self.fid, name })?;
        self.xattr_changed(name);
        Ok(())
    }
}

impl GoferInode {
    /// Returns another inode of the same mount as what it is.
    ///
    /// # Errors
    /// `EXDEV` for an inode of another.
    fn sibling(&self, other: &Arc<dyn Inode>) -> SysResult<Arc<Self>> {
        inode::downcast::<Self>(other)
            .filter(|other| Arc::ptr_eq(&other.store, &self.store))
            .ok_or(Errno::EXDEV)
    }
}

impl Mappable for GoferInode {
    fn map(&self, mode: MapMode, _offset: u64, _len: u64) -> SysResult<Mapping> {
        let fd = match mode {
            MapMode::Private | MapMode::SharedRead => self.read_descriptor()?,
            MapMode::SharedWrite => self.write_descriptor()?,
        };
        Ok(Mapping { fd, delta: 0 })
    }

    fn identity(&self) -> (u64, u64) {
        (attr::device(self.identity.0, self.identity.1), self.identity.2)
    }
}

fn ownership(node: &NewNode) -> Ownership {
    Ownership { mode: node.mode & 0o7777, umask: node.umask & 0o777, uid: node.uid, gid: node.gid }
}

/// Checks an attribute's name. Linux lets it hold any byte; the gofer serves none with a slash.
pub(super) fn xattr_name(name: &[u8]) -> SysResult<Name<'_>> {
    Name::new(name).map_err(|_| Errno::EOPNOTSUPP)
}
