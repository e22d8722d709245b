//! Inodes.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use syscalls::abi::fs::{RenameFlags, SealFlags};
use syscalls::{Errno, SysResult};

use super::Shared;
use super::data::Data;
use super::dir::Entries;
use super::file::{DirFile, RegularFile};
use crate::sync::{Mutex, MutexGuard, RwLock};
use crate::task::CurrentTask;
use crate::vfs::acl::{self, Acl, AclKind, Acls};
use crate::vfs::inode::downcast;
use crate::vfs::lent::Mark;
use crate::vfs::{
    Attr, Content, File, FileFlags, FileType, Inode, InodeExtras, ListEntry, NewNode, NodeKind,
    SetAttr, SetTime, Timestamp, XattrFlags,
};

/// How long an access time stands under `relatime`.
const RELATIME_SECONDS: i64 = 24 * 60 * 60;

/// The most bytes of extended attributes, names included, that one node may have: a guard for the
/// sentry's memory.
const XATTR_BYTES_MAX: usize = 128 * 1024;

/// What a node is.
pub(crate) enum Body {
    Regular(RwLock<Data>),
    Directory(RwLock<Entries>),
    Symlink(Vec<u8>),
    Fifo,
    Socket,
    CharDevice(u64),
    BlockDevice(u64),
}

/// The attributes that do not follow from the body.
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) atime: Timestamp,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    pub(crate) btime: Timestamp,
    /// Blocks of the lower layer's file, while that has the content.
    source_blocks: u64,
    flags: FileFlags,
    /// Whether a node without links may get one: `O_TMPFILE` without `O_EXCL`.
    is_linkable: bool,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Access control lists, where there are any.
    acls: Option<Box<Acls>>,
}

/// An inode.
pub struct Node {
    pub(crate) shared: Arc<Shared>,
    this: Weak<Node>,
    ino: u64,
    extras: InodeExtras,
    meta: Mutex<Meta>,
    /// Recalled after each change of content and times.
    pub(crate) lent: Mark,
    body: Body,
}

/// Returns the current time.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        sec: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
        nsec: since_epoch.subsec_nanos(),
    }
}

fn from_ns(at_ns: i64) -> Timestamp {
    const SECOND: i64 = 1_000_000_000;
    let nsec = u32::try_from(at_ns.rem_euclid(SECOND)).unwrap_or(0);
    Timestamp { sec: at_ns.div_euclid(SECOND), nsec }
}

impl Node {
    /// Creates a node that has no name yet, in a directory with this default access control list.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        node: &NewNode,
        default: Option<&Arc<Acl>>,
    ) -> SysResult<Arc<Self>> {
        let (mode, acls) = acl::inherit(node, default);
        let body = match &node.kind {
            NodeKind::Regular => Body::Regular(RwLock::default()),
            NodeKind::Directory => Body::Directory(RwLock::default()),
            NodeKind::Symlink(target) => Body::Symlink(target.clone()),
            NodeKind::Fifo => Body::Fifo,
            NodeKind::Socket => Body::Socket,
            NodeKind::CharDevice(dev) => Body::CharDevice(*dev),
            NodeKind::BlockDevice(dev) => Body::BlockDevice(*dev),
        };
        let time = now();
        let meta = Meta {
            mode,
            nlink: if node.kind == NodeKind::Directory { 2 } else { 1 },
            uid: node.uid,
            gid: node.gid,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            source_blocks: 0,
            flags: FileFlags::empty(),
            is_linkable: false,
            xattrs: BTreeMap::new(),
            acls: (!acls.is_empty()).then(|| Box::new(acls)),
        };
        Self::with(shared, body, meta)
    }

    fn with(shared: &Arc<Shared>, body: Body, meta: Meta) -> SysResult<Arc<Self>> {
        let ino = shared.take_inode()?;
        Ok(Arc::new_cyclic(|this| Self {
            shared: shared.clone(),
            this: this.clone(),
            ino,
            extras: InodeExtras::default(),
            meta: Mutex::new(meta),
            lent: Mark::default(),
            body,
        }))
    }

    /// Creates a node that looks like `source`, an inode of another file system with these
    /// attributes. The content of a regular file is read from there until it is first changed.
    pub(super) fn copy_of(
        shared: &Arc<Shared>,
        attr: &Attr,
        source: &Arc<dyn Inode>,
    ) -> SysResult<Arc<Self>> {
        let body = match attr.file_type() {
            FileType::Regular => {
                Body::Regular(RwLock::new(Data::from_source(source.clone(), attr.size)))
            }
            FileType::Directory => Body::Directory(RwLock::default()),
            FileType::Symlink => Body::Symlink(source.readlink(None)?),
            FileType::Fifo => Body::Fifo,
            FileType::Socket => Body::Socket,
            FileType::CharDevice => Body::CharDevice(attr.rdev),
            FileType::BlockDevice => Body::BlockDevice(attr.rdev),
            FileType::Anonymous => return Err(Errno::EINVAL),
        };
        let meta = Meta {
            mode: attr.mode & 0o7777,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            btime: attr.btime.unwrap_or(attr.ctime),
            source_blocks: attr.blocks,
            flags: FileFlags::empty(),
            is_linkable: false,
            xattrs: BTreeMap::new(),
            acls: None,
        };
        Self::with(shared, body, meta)
    }

    /// Locks the attributes.
    fn meta(&self) -> MutexGuard<'_, Meta> {
        let mut meta = self.meta.lock();
        if let Some(at_ns) = self.lent.written() {
            let time = from_ns(at_ns);
            meta.mtime = time;
            meta.ctime = time;
        }
        meta
    }

    /// Returns whether who runs this file becomes somebody else.
    pub(crate) fn has_set_id(&self) -> bool {
        self.meta().mode & 0o6000 != 0
    }

    fn known_acl(&self, kind: AclKind) -> Option<Arc<Acl>> {
        self.meta().acls.as_ref()?.get(kind).clone()
    }

    /// Returns what new files in this directory begin with.
    pub(crate) fn default_acl(&self) -> Option<Arc<Acl>> {
        self.known_acl(AclKind::Default)
    }

    /// Puts an access control list in the place of another, or of none.
    fn set_acl(&self, kind: AclKind, acl: Option<Acl>) -> SysResult<()> {
        match self.body {
            Body::Symlink(_) => return Err(Errno::EOPNOTSUPP),
            Body::Directory(_) => {}
            _ if kind == AclKind::Default && acl.is_some() => return Err(Errno::EACCES),
            _ => {}
        }
        if acl.as_ref().is_some_and(Acl::is_too_long) {
            return Err(Errno::ENOSPC);
        }
        let mut meta = self.meta();
        let acl = match (kind, acl) {
            (AclKind::Access, Some(acl)) => {
                meta.mode = meta.mode & !0o777 | acl.mode();
                (!acl.is_minimal()).then_some(acl)
            }
            (_, acl) => acl,
        };
        let mut acls = meta.acls.take().unwrap_or_default();
        *acls.get_mut(kind) = acl.map(Arc::new);
        meta.acls = (!acls.is_empty()).then_some(acls);
        meta.ctime = now();
        self.lent.recall();
        Ok(())
    }

    fn entries(&self) -> SysResult<&RwLock<Entries>> {
        match &self.body {
            Body::Directory(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Returns the content of a regular file.
    pub(crate) fn data(&self) -> SysResult<&RwLock<Data>> {
        match &self.body {
            Body::Regular(data) => Ok(data),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Returns the inode number.
    pub(crate) fn ino(&self) -> u64 {
        self.ino
    }

    /// Marks content and attributes as changed now.
    pub(crate) fn content_changed(&self) {
        let time = now();
        let mut meta = self.meta();
        meta.mtime = time;
        meta.ctime = time;
        self.lent.recall();
    }

    /// Changes the number of links.
    pub(crate) fn change_links(&self, change: impl FnOnce(u32) -> u32) {
        let mut meta = self.meta();
        meta.nlink = change(meta.nlink);
        meta.ctime = now();
        self.lent.recall();
    }

    /// Makes this the node of an `O_TMPFILE` or a memfd: without a link.
    pub(crate) fn set_unnamed(&self, is_linkable: bool) {
        let mut meta = self.meta();
        meta.nlink = 0;
        meta.is_linkable = is_linkable;
    }

    /// Changes what `chattr(1)` shows.
    pub(super) fn set_flags(&self, flags: FileFlags) {
        let mut meta = self.meta();
        meta.flags = flags;
        meta.ctime = now();
        self.lent.recall();
    }

    /// Counts a further link to this node.
    ///
    /// # Errors
    /// `ENOENT` where the last link is gone, `EMLINK`.
    pub(crate) fn add_link(&self) -> SysResult<()> {
        let mut meta = self.meta();
        if meta.nlink == 0 && !meta.is_linkable {
            return Err(Errno::ENOENT);
        }
        meta.nlink = meta.nlink.checked_add(1).ok_or(Errno::EMLINK)?;
        meta.ctime = now();
        self.lent.recall();
        Ok(())
    }

    /// Adds a new child to a directory.
    fn add_child(&self, name: &[u8], node: &NewNode) -> SysResult<Arc<Self>> {
        let mut entries = self.entries()?.write();
        if entries.is_dead {
            return Err(Errno::ENOENT);
        }
        if entries.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        let child = Self::new(&self.shared, node, self.default_acl().as_ref())?;
        if let Ok(own) = child.entries() {
            own.write().parent = self.this.clone();
            self.change_links(|n| n.saturating_add(1));
        }
        entries.insert(name, child.clone());
        drop(entries);
        self.content_changed();
        Ok(child)
    }

    fn take_child(&self, name: &[u8], is_dir: bool) -> SysResult<()> {
        let mut entries = self.entries()?.write();
        let child = entries.get(name).cloned().ok_or(Errno::ENOENT)?;
        match (&child.body, is_dir) {
            (Body::Directory(own), true) => {
                let mut own = own.write();
                if !own.is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                own.is_dead = true;
            }
            (Body::Directory(_), false) => return Err(Errno::EISDIR),
            (_, true) => return Err(Errno::ENOTDIR),
            (_, false) => {}
        }
        entries.remove(name);
        drop(entries);
        child.dropped_from(self);
        self.content_changed();
        Ok(())
    }

    /// Counts the links that go when this node's name in `dir` does.
    fn dropped_from(&self, dir: &Self) {
        if matches!(self.body, Body::Directory(_)) {
            self.change_links(|_| 0);
            dir.change_links(|n| n.saturating_sub(1));
        } else {
            self.change_links(|n| n.saturating_sub(1));
        }
    }

    fn rename_child(
        &self,
        name: &[u8],
        new_dir: &Self,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> SysResult<()> {
        if flags.intersects(!(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE)) {
            return Err(Errno::EINVAL);
        }
        let is_same = std::ptr::eq(self, new_dir);
        let (mut from, mut to);
        if is_same {
            from = self.entries()?.write();
            to = None;
        } else if std::ptr::from_ref(self) < std::ptr::from_ref(new_dir) {
            from = self.entries()?.write();
            to = Some(new_dir.entries()?.write());
        } else {
            to = Some(new_dir.entries()?.write());
            from = self.entries()?.write();
        }
        let child = from.get(name).cloned().ok_or(Errno::ENOENT)?;
        let there: &mut Entries = to.as_deref_mut().unwrap_or(&mut from);
        if there.is_dead {
            return Err(Errno::ENOENT);
        }
        let target = there.get(new_name).cloned();
        if flags.contains(RenameFlags::EXCHANGE) {
            let target = target.ok_or(Errno::ENOENT)?;
            there.replace(new_name, child.clone());
            from.replace(name, target.clone());
            drop((from, to));
            target.moved(new_dir, self);
            child.moved(self, new_dir);
            return Ok(());
        }
        if let Some(target) = &target {
            if flags.contains(RenameFlags::NOREPLACE) {
                return Err(Errno::EEXIST);
            }
            check_replace(&child, target)?;
            there.replace(new_name, child.clone());
        } else {
            there.insert(new_name, child.clone());
        }
        from.remove(name);
        drop((from, to));
        if let Some(target) = target {
            target.dropped_from(new_dir);
        }
        child.moved(self, new_dir);
        Ok(())
    }

    /// Notes that this node has moved from one directory to another.
    fn moved(&self, from: &Self, to: &Self) {
        if let Body::Directory(entries) = &self.body
            && !std::ptr::eq(from, to)
        {
            entries.write().parent = to.this.clone();
            from.change_links(|n| n.saturating_sub(1));
            to.change_links(|n| n.saturating_add(1));
        }
        from.content_changed();
        to.content_changed();
        self.change_links(|n| n);
    }

    /// Lists entries from `offset` on with `visit`, which gets name, inode number, type and the
    /// next offset and returns false to stop.
    pub(crate) fn visit(
        &self,
        offset: u64,
        mut visit: impl FnMut(&[u8], u64, FileType, u64) -> bool,
    ) -> SysResult<()> {
        let entries = self.entries()?.read();
        let parent_ino = entries.parent.upgrade().map_or(self.ino, |parent| parent.ino);
        if offset == 0 && !visit(b".", self.ino, FileType::Directory, 1) {
            return Ok(());
        }
        if offset <= 1 && !visit(b"..", parent_ino, FileType::Directory, 2) {
            return Ok(());
        }
        for (at, name, node) in entries.from(offset) {
            if !visit(name, node.ino, node.file_type(), at + 1) {
                break;
            }
        }
        Ok(())
    }
}

fn check_replace(child: &Node, target: &Node) -> SysResult<()> {
    match (&child.body, &target.body) {
        (Body::Directory(_), Body::Directory(entries)) => {
            let mut entries = entries.write();
            if !entries.is_empty() {
                return Err(Errno::ENOTEMPTY);
            }
            entries.is_dead = true;
            Ok(())
        }
        (Body::Directory(_), _) => Err(Errno::ENOTDIR),
        (_, Body::Directory(_)) => Err(Errno::EISDIR),
        _ => Ok(()),
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        match &self.body {
            Body::Regular(data) => data.write().uncharge(&self.shared),
            Body::Directory(entries) => {
                // One by one: a tree of any depth must not recurse.
                let mut pending = entries.write().take();
                while let Some(node) = pending.pop() {
                    if let Some(node) = Arc::into_inner(node)
                        && let Body::Directory(entries) = &node.body
                    {
                        pending.append(&mut entries.write().take());
                    }
                }
            }
            _ => {}
        }
        self.shared.give_back_inode();
    }
}

impl Inode for Node {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        match &self.body {
            Body::Regular(_) => FileType::Regular,
            Body::Directory(_) => FileType::Directory,
            Body::Symlink(_) => FileType::Symlink,
            Body::Fifo => FileType::Fifo,
            Body::Socket => FileType::Socket,
            Body::CharDevice(_) => FileType::CharDevice,
            Body::BlockDevice(_) => FileType::BlockDevice,
        }
    }

    fn attr(&self) -> SysResult<Attr> {
        let (size, blocks, rdev) = match &self.body {
            Body::Regular(data) => {
                let data = data.read();
                (data.size(), data.blocks(), 0)
            }
            Body::Directory(entries) => (entries.read().len() as u64 * 20, Some(0), 0),
            Body::Symlink(target) => (target.len() as u64, Some(0), 0),
            Body::CharDevice(dev) | Body::BlockDevice(dev) => (0, Some(0), *dev),
            Body::Fifo | Body::Socket => (0, Some(0), 0),
        };
        let meta = self.meta();
        Ok(Attr {
            dev: self.shared.dev,
            ino: self.ino,
            mode: meta.mode | self.file_type().mode_bits(),
            nlink: meta.nlink,
            uid: meta.uid,
            gid: meta.gid,
            rdev,
            size,
            blksize: 4096,
            blocks: blocks.unwrap_or(meta.source_blocks),
            atime: meta.atime,
            mtime: meta.mtime,
            ctime: meta.ctime,
            btime: Some(meta.btime),
            flags: meta.flags,
        })
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        if let Some(size) = change.size {
            let mut data = self.data()?.write();
            // What processes write at the same time happens before, or after.
            self.lent.recall();
            data.truncate(&self.shared, size)?;
        }
        if let (Some(mode), Body::Regular(data)) = (change.mode, &self.body)
            && data.read().seals.contains(SealFlags::EXEC)
            && (mode ^ self.meta().mode) & 0o111 != 0
        {
            return Err(Errno::EPERM);
        }
        let time = now();
        let at = |set: SetTime| match set {
            SetTime::Now => time,
            SetTime::At(time) => time,
        };
        let mut meta = self.meta();
        if let Some(mode) = change.mode {
            meta.mode = mode & 0o7777;
            if let Some(access) = meta.acls.as_mut().and_then(|acls| acls.access.as_mut()) {
                *access = Arc::new(access.with_mode(mode));
            }
        }
        meta.uid = change.uid.unwrap_or(meta.uid);
        meta.gid = change.gid.unwrap_or(meta.gid);
        if change.size.is_some() {
            meta.mtime = time;
        }
        meta.atime = change.atime.map_or(meta.atime, at);
        meta.mtime = change.mtime.map_or(meta.mtime, at);
        meta.ctime = time;
        self.lent.recall();
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> SysResult<Arc<dyn Inode>> {
        let found = self.entries()?.read().get(name).cloned();
        found.map(|node| node as Arc<dyn Inode>).ok_or(Errno::ENOENT)
    }

    fn create(&self, name: &[u8], node: &NewNode) -> SysResult<Arc<dyn Inode>> {
        Ok(self.add_child(name, node)?)
    }

    fn create_tmpfile(&self, node: &NewNode, is_linkable: bool) -> SysResult<Arc<dyn Inode>> {
        let node = Self::new(&self.shared, node, self.default_acl().as_ref())?;
        node.set_unnamed(is_linkable);
        Ok(node)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> SysResult<()> {
        let target = downcast::<Self>(target).ok_or(Errno::EXDEV)?;
        if !Arc::ptr_eq(&target.shared, &self.shared) {
            return Err(Errno::EXDEV);
        }
        let mut entries = self.entries()?.write();
        if entries.is_dead {
            return Err(Errno::ENOENT);
        }
        if entries.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        target.add_link()?;
        entries.insert(name, target);
        drop(entries);
        self.content_changed();
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> SysResult<()> {
        self.take_child(name, false)
    }

    fn rmdir(&self, name: &[u8]) -> SysResult<()> {
        self.take_child(name, true)
    }

    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: u32,
    ) -> SysResult<()> {
        let new_dir = downcast::<Self>(new_dir).ok_or(Errno::EXDEV)?;
        self.rename_child(name, &new_dir, new_name, RenameFlags::from_bits_retain(flags))
    }

    fn readlink(&self, _task: Option<&CurrentTask>) -> SysResult<Vec<u8>> {
        match &self.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn accessed(&self, relatime: bool) {
        let mut meta = self.meta();
        let time = now();
        let is_stale = meta.atime <= meta.mtime
            || meta.atime <= meta.ctime
            || time.sec.saturating_sub(meta.atime.sec) >= RELATIME_SECONDS;
        if !relatime || is_stale {
            meta.atime = time;
        }
    }

    fn open(self: Arc<Self>, task: &CurrentTask, flags: u32) -> SysResult<Arc<dyn File>> {
        let rdev = match &self.body {
            Body::Regular(_) => return Ok(Arc::new(RegularFile::new(self)?)),
            Body::Directory(_) => return Ok(Arc::new(DirFile::new(self))),
            Body::Symlink(_) => return Err(Errno::ELOOP),
            Body::CharDevice(dev) | Body::BlockDevice(dev) => *dev,
            Body::Fifo | Body::Socket => 0,
        };
        let inode: Arc<dyn Inode> = self;
        task.kernel.special_files.open(task, &inode, rdev, flags)
    }

    fn content(self: Arc<Self>, _is_writing: bool) -> SysResult<Arc<dyn Content>> {
        Ok(Arc::new(RegularFile::new(self)?))
    }

    fn host_content(&self) -> SysResult<Arc<OwnedFd>> {
        self.data()?.write().map_read(&self.shared)
    }

    fn list(&self) -> SysResult<Vec<ListEntry>> {
        let mut list = Vec::new();
        self.visit(2, |name, ino, file_type, _| {
            list.push(ListEntry { name: name.to_vec(), ino, file_type });
            true
        })?;
        Ok(list)
    }

    fn acl(&self, kind: AclKind) -> SysResult<Option<Arc<Acl>>> {
        Ok(self.known_acl(kind))
    }

    fn get_xattr(&self, name: &[u8]) -> SysResult<Vec<u8>> {
        if let Some(kind) = AclKind::of_name(name) {
            let acl = self.known_acl(kind).ok_or(Errno::ENODATA)?;
            return Ok(acl.to_bytes(|id| id, |id| id));
        }
        self.meta().xattrs.get(name).cloned().ok_or(Errno::ENODATA)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> SysResult<()> {
        if let Some(kind) = AclKind::of_name(name) {
            return self.set_acl(kind, Acl::from_bytes(value)?);
        }
        let mut meta = self.meta();
        let exists = meta.xattrs.contains_key(name);
        if exists && flags.contains(XattrFlags::CREATE) {
            return Err(Errno::EEXIST);
        }
        if !exists && flags.contains(XattrFlags::REPLACE) {
            return Err(Errno::ENODATA);
        }
        let used: usize = meta.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if used.saturating_add(name.len() + value.len()) > XATTR_BYTES_MAX {
            return Err(Errno::ENOSPC);
        }
        meta.xattrs.insert(name.to_vec(), value.to_vec());
        meta.ctime = now();
        self.lent.recall();
        Ok(())
    }

    fn list_xattr(&self) -> SysResult<Vec<Vec<u8>>> {
        let meta = self.meta();
        let kinds = [AclKind::Access, AclKind::Default];
        let acls = meta.acls.iter().flat_map(|acls| {
            kinds
                .into_iter()
                .filter(|kind| acls.get(*kind).is_some())
                .map(|kind| kind.name().to_vec())
        });
        Ok(acls.chain(meta.xattrs.keys().cloned()).collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> SysResult<()> {
        if let Some(kind) = AclKind::of_name(name) {
            return self.set_acl(kind, None);
        }
        let mut meta = self.meta();
        meta.xattrs.remove(name).ok_or(Errno::ENODATA)?;
        meta.ctime = now();
        self.lent.recall();
        Ok(())
    }
}
