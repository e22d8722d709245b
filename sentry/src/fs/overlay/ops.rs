//! Nodes as inodes.

use std::sync::Arc;

use syscalls::abi::fs::{OpenFlags, RenameFlags};
use syscalls::{Errno, SysResult};

use super::dir::Names;
use super::file::{OverlayDir, OverlayFile};
use super::node::{OverlayNode, Place};
use crate::fs::tmpfs::file::RegularFile;
use crate::task::CurrentTask;
use crate::vfs::acl::{Acl, AclKind};
use crate::vfs::inode::downcast;
use crate::vfs::{
    Attr, Content, File, FileType, Inode, InodeExtras, ListEntry, NewNode, SetAttr, XattrFlags,
};

impl OverlayNode {
    fn arc(&self) -> SysResult<Arc<Self>> {
        self.this.upgrade().ok_or(Errno::ESTALE)
    }

    fn place(&self, name: &[u8]) -> SysResult<Place> {
        Ok(Place { parent: self.arc()?, name: Arc::from(name) })
    }

    /// Marks this directory as changed now, and keeps it.
    fn touch(&self) -> SysResult<()> {
        self.upper()?.content_changed();
        self.arc()?.pin();
        Ok(())
    }

    /// Counts subdirectories in the link count of a directory that only the upper layer has.
    fn count_subdirectory(&self, change: i32) -> SysResult<()> {
        self.upper()?.change_links(|n| n.saturating_add_signed(change));
        Ok(())
    }

    /// Returns whether this directory has no entries. The caller holds the lock on its names.
    fn is_empty(&self, names: &Names) -> SysResult<bool> {
        let n_lower = match &self.lower {
            Some(lower) => lower.list()?.len(),
            None => 0,
        };
        Ok(names.count(n_lower) == 0)
    }

    /// Marks this directory as removed, if it is empty.
    fn kill(&self) -> SysResult<()> {
        let mut names = self.names()?.write();
        if !self.is_empty(&names)? {
            return Err(Errno::ENOTEMPTY);
        }
        names.is_dead = true;
        Ok(())
    }

    fn take_child(&self, name: &[u8], is_dir: bool) -> SysResult<()> {
        let child = self.find(name)?;
        match (child.kind() == FileType::Directory, is_dir) {
            (true, false) => return Err(Errno::EISDIR),
            (false, true) => return Err(Errno::ENOTDIR),
            _ => {}
        }
        // What may fail comes first.
        child.upper()?;
        self.touch()?;
        if is_dir {
            child.kill()?;
        }
        let old = self.names()?.write().remove(name);
        drop(old);
        child.lost_name()?;
        child.set_place(None);
        if is_dir {
            self.count_subdirectory(-1)?;
        }
        Ok(())
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
        let child = self.find(name)?;
        let target = match new_dir.find(new_name) {
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        child.upper()?;
        self.touch()?;
        new_dir.touch()?;
        child.pin();
        let is_exchange = flags.contains(RenameFlags::EXCHANGE);
        match &target {
            Some(target) if is_exchange => {
                target.upper()?;
                target.pin();
            }
            None if is_exchange => return Err(Errno::ENOENT),
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EEXIST),
            Some(target) => {
                check_replace(&child, target)?;
                target.upper()?;
                if target.kind() == FileType::Directory {
                    target.kill()?;
                }
            }
            None => {}
        }
        let old = self.exchange(name, new_dir, new_name, &child, target.as_ref(), is_exchange)?;
        drop(old);
        child.set_place(Some(new_dir.place(new_name)?));
        child.upper()?.change_links(|n| n);
        self.moved(new_dir, &child)?;
        match target {
            Some(target) if is_exchange => {
                target.set_place(Some(self.place(name)?));
                target.upper()?.change_links(|n| n);
                new_dir.moved(self, &target)?;
            }
            Some(target) => {
                target.lost_name()?;
                target.set_place(None);
                if target.kind() == FileType::Directory {
                    new_dir.count_subdirectory(-1)?;
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Changes the names of the two directories of a rename under both locks; returns what is to be
    /// dropped outside them.
    fn exchange(
        &self,
        name: &[u8],
        new_dir: &Self,
        new_name: &[u8],
        child: &Arc<Self>,
        target: Option<&Arc<Self>>,
        is_exchange: bool,
    ) -> SysResult<Vec<Arc<Self>>> {
        let (mut from, mut to);
        if std::ptr::eq(self, new_dir) {
            from = self.names()?.write();
            to = None;
        } else if std::ptr::from_ref(self) < std::ptr::from_ref(new_dir) {
            from = self.names()?.write();
            to = Some(new_dir.names()?.write());
        } else {
            to = Some(new_dir.names()?.write());
            from = self.names()?.write();
        }
        let there: &mut Names = to.as_deref_mut().unwrap_or(&mut from);
        if there.is_dead {
            return Err(Errno::ENOENT);
        }
        let replaced = there.pin(new_name, child.clone());
        let removed = match target {
            Some(target) if is_exchange => from.pin(name, target.clone()),
            _ => from.remove(name),
        };
        drop((from, to));
        Ok(replaced.into_iter().chain(removed).collect())
    }

    /// Counts a subdirectory that has moved from this directory to another.
    fn moved(&self, to: &Self, child: &Self) -> SysResult<()> {
        if child.kind() == FileType::Directory && !std::ptr::eq(self, to) {
            self.count_subdirectory(-1)?;
            to.count_subdirectory(1)?;
        }
        Ok(())
    }

    /// Copies the lower layer's extended attributes, before the first change.
    fn own_xattrs(&self) -> SysResult<()> {
        let upper = self.upper()?;
        let mut is_own = self.has_own_xattrs.lock();
        if *is_own {
            return Ok(());
        }
        if let Some(lower) = &self.lower {
            let names = match lower.list_xattr() {
                Err(Errno::EOPNOTSUPP) => Vec::new(),
                result => result?,
            };
            for name in names {
                upper.set_xattr(&name, &lower.get_xattr(&name)?, XattrFlags::empty())?;
            }
        }
        *is_own = true;
        Ok(())
    }

    /// Returns the inode whose extended attributes count.
    fn xattr_layer(&self) -> SysResult<Arc<dyn Inode>> {
        match &self.lower {
            Some(lower) if !*self.has_own_xattrs.lock() => Ok(lower.clone()),
            _ => Ok(self.upper()?.clone()),
        }
    }
}

fn check_replace(child: &OverlayNode, target: &OverlayNode) -> SysResult<()> {
    match (child.kind() == FileType::Directory, target.kind() == FileType::Directory) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        _ => Ok(()),
    }
}

impl Inode for OverlayNode {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        self.kind()
    }

    fn attr(&self) -> SysResult<Attr> {
        self.do_attr()
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        if change.mode.is_some() && self.acl(AclKind::Access)?.is_some() {
            // The list changes, too.
            self.own_xattrs()?;
        }
        self.arc()?.pin();
        self.upper()?.set_attr(change)
    }

    fn lookup(&self, name: &[u8]) -> SysResult<Arc<dyn Inode>> {
        Ok(self.find(name)?)
    }

    fn create(&self, name: &[u8], node: &NewNode) -> SysResult<Arc<dyn Inode>> {
        self.touch()?;
        let child = self.new_upper(node, Some(self.place(name)?))?;
        let mut names = self.names()?.write();
        if names.is_dead {
            drop(names);
            return Err(Errno::ENOENT);
        }
        let old = names.pin(name, child.clone());
        drop(names);
        drop(old);
        if child.kind() == FileType::Directory {
            self.count_subdirectory(1)?;
        }
        Ok(child)
    }

    fn create_tmpfile(&self, node: &NewNode, is_linkable: bool) -> SysResult<Arc<dyn Inode>> {
        let node = self.new_upper(node, None)?;
        node.upper()?.set_unnamed(is_linkable);
        Ok(node)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> SysResult<()> {
        let target = downcast::<Self>(target).ok_or(Errno::EXDEV)?;
        if !Arc::ptr_eq(&target.shared, &self.shared) {
            return Err(Errno::EXDEV);
        }
        target.upper()?.add_link()?;
        target.pin();
        self.touch()?;
        let mut names = self.names()?.write();
        if names.is_dead {
            drop(names);
            target.upper()?.change_links(|n| n.saturating_sub(1));
            return Err(Errno::ENOENT);
        }
        let old = names.pin(name, target);
        drop(names);
        drop(old);
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

    fn readlink(&self, task: Option<&CurrentTask>) -> SysResult<Vec<u8>> {
        match (self.upper_if_any(), &self.lower) {
            (Some(upper), _) => upper.readlink(task),
            (None, Some(lower)) => lower.readlink(task),
            (None, None) => Err(Errno::EIO),
        }
    }

    fn accessed(&self, relatime: bool) {
        if let Some(upper) = self.upper_if_any() {
            upper.accessed(relatime);
        }
    }

    fn open(self: Arc<Self>, task: &CurrentTask, flags: u32) -> SysResult<Arc<dyn File>> {
        match self.kind() {
            FileType::Regular => {
                let inner = RegularFile::new(self.upper()?.clone())?;
                if matches!(OpenFlags::from_bits_retain(flags).access_mode(), 1 | 2) {
                    self.pin();
                }
                Ok(Arc::new(OverlayFile::new(self, inner)))
            }
            FileType::Directory => Ok(Arc::new(OverlayDir::new(self))),
            FileType::Symlink => Err(Errno::ELOOP),
            _ => {
                let rdev = self.do_attr()?.rdev;
                let inode: Arc<dyn Inode> = self;
                task.kernel.special_files.open(task, &inode, rdev, flags)
            }
        }
    }

    fn content(self: Arc<Self>, is_writing: bool) -> SysResult<Arc<dyn Content>> {
        if is_writing {
            self.pin();
        }
        Ok(Arc::new(RegularFile::new(self.upper()?.clone())?))
    }

    fn list(&self) -> SysResult<Vec<ListEntry>> {
        let mut list = Vec::new();
        OverlayDir::new(self.arc()?).visit(0, |name, ino, file_type, _| {
            if !matches!(name, b"." | b"..") {
                list.push(ListEntry { name: name.to_vec(), ino, file_type });
            }
            true
        })?;
        Ok(list)
    }

    fn acl(&self, kind: AclKind) -> SysResult<Option<Arc<Acl>>> {
        self.xattr_layer()?.acl(kind)
    }

    fn get_xattr(&self, name: &[u8]) -> SysResult<Vec<u8>> {
        self.xattr_layer()?.get_xattr(name)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> SysResult<()> {
        self.own_xattrs()?;
        self.arc()?.pin();
        self.upper()?.set_xattr(name, value, flags)
    }

    fn list_xattr(&self) -> SysResult<Vec<Vec<u8>>> {
        self.xattr_layer()?.list_xattr()
    }

    fn remove_xattr(&self, name: &[u8]) -> SysResult<()> {
        self.own_xattrs()?;
        self.arc()?.pin();
        self.upper()?.remove_xattr(name)
    }
}
