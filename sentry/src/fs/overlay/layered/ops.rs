//! Nodes as inodes.

use std::sync::Arc;

use syscalls::abi::fs::{OpenFlags, RenameFlags};
use syscalls::{Errno, SysResult};

use super::file::{self, LayeredDir, LayeredFile};
use super::node::LayeredNode;
use super::{is_whiteout, whiteout};
use crate::task::CurrentTask;
use crate::vfs::acl::{self, Acl, AclKind};
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::downcast;
use crate::vfs::{
    Attr, Content, File, FileType, Inode, InodeExtras, ListEntry, NewNode, SetAttr, XattrFlags,
};

impl LayeredNode {
    fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Returns the directory of the upper layer in which names are to change.
    fn upper_dir(&self) -> SysResult<&Arc<Dentry>> {
        let dir = self.copy_up(true)?;
        self.shared.check_dir(dir)?;
        Ok(dir)
    }

    /// Returns the file of the upper layer of which attributes are to change.
    fn upper_owned(&self) -> SysResult<&Arc<Dentry>> {
        let file = self.copy_up(true)?;
        self.shared.check_owned(file)?;
        Ok(file)
    }

    /// Checks that a name of a directory of the upper layer still is what this node was copied to.
    fn check_is_at(&self, there: Option<&Arc<Dentry>>) -> SysResult<()> {
        let is_same = match (self.upper_if_any(), there) {
            (Some(upper), Some(there)) => Arc::ptr_eq(upper.inode(), there.inode()),
            (None, None) => true,
            _ => false,
        };
        if is_same { Ok(()) } else { Err(Errno::ESTALE) }
    }

    fn check_empty(&self) -> SysResult<()> {
        if self.entries()?.is_empty() { Ok(()) } else { Err(Errno::ENOTEMPTY) }
    }

    fn take_child(&self, name: &[u8], is_dir: bool) -> SysResult<()> {
        let child = self.find(name)?;
        match (child.is_dir(), is_dir) {
            (true, false) => return Err(Errno::EISDIR),
            (false, true) => return Err(Errno::ENOTDIR),
            (true, true) => child.check_empty()?,
            (false, false) => {}
        }
        let dir = self.upper_dir()?;
        let layer = &self.shared.upper()?.layer;
        let _changes = self.changes.lock();
        let there = layer.lookup((dir, name))?;
        child.check_is_at(there.as_ref())?;
        if self.is_below(name)? {
            self.shared.make_whiteout()?.replace((dir, name), is_dir && there.is_some())?;
        } else {
            if let Some(there) = there.filter(|_| is_dir) {
                self.shared.clear(&there)?;
            }
            layer.remove((dir, name))?;
        }
        child.set_place(None);
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
        let is_exchange = flags.contains(RenameFlags::EXCHANGE);
        let child = self.find(name)?;
        let target = match new_dir.find(new_name) {
            Err(Errno::ENOENT) => None,
            result => Some(result?),
        };
        // Without redirects a directory that shows something of below stays where that is.
        let stays = |node: &Self| node.is_dir() && !node.lowers.is_empty();
        if stays(&child) || target.as_ref().is_some_and(|target| is_exchange && stays(target)) {
            return Err(Errno::EXDEV);
        }
        if let Some(target) = target.as_ref().filter(|target| target.is_dir() && !is_exchange) {
            target.check_empty()?;
        }
        let (from, to) = (self.upper_dir()?, new_dir.upper_dir()?);
        child.copy_up(true)?;
        if let Some(target) = target.as_ref().filter(|_| is_exchange) {
            target.copy_up(true)?;
        }
        let is_same_dir = std::ptr::eq(self, new_dir);
        let is_first = std::ptr::from_ref(self) < std::ptr::from_ref(new_dir);
        let (first, second) = if is_first { (self, new_dir) } else { (new_dir, self) };
        let _first = first.changes.lock();
        let _second = if is_same_dir { None } else { Some(second.changes.lock()) };
        let layer = &self.shared.upper()?.layer;
        child.check_is_at(layer.lookup((from, name))?.as_ref())?;
        let there = layer.lookup((to, new_name))?;
        match &target {
            Some(target) => target.check_is_at(there.as_ref())?,
            None if there.as_ref().is_some_and(|there| !is_whiteout(there)) => {
                return Err(Errno::ESTALE);
            }
            None => {}
        }
        hide_below(&child, new_dir)?;
        let places = ((from, name), (to, new_name));
        if is_exchange {
            if let Some(target) = &target {
                hide_below(target, self)?;
            }
            layer.rename(places.0, places.1, RenameFlags::EXCHANGE)?;
        } else {
            let is_hidden = self.is_below(name)?;
            let is_over_whiteout = there.as_ref().is_some_and(is_whiteout);
            if child.is_dir() && is_over_whiteout {
                // The whiteout comes to where it may be needed.
                layer.rename(places.0, places.1, RenameFlags::EXCHANGE)?;
                if !is_hidden {
                    layer.remove(places.0)?;
                }
            } else {
                if let Some(there) = there.filter(|there| there.is_dir()) {
                    self.shared.clear(&there)?;
                }
                layer.rename(places.0, places.1, RenameFlags::empty())?;
                if is_hidden {
                    layer.create(places.0, &whiteout())?;
                }
            }
        }
        child.set_place(Some(new_dir.found_here(new_name)));
        if let Some(target) = &target {
            target.set_place(is_exchange.then(|| self.found_here(name)));
        }
        Ok(())
    }

    fn create_child(&self, name: &[u8], node: &NewNode) -> SysResult<Arc<Self>> {
        let dir = self.upper_dir()?;
        let layer = &self.shared.upper()?.layer;
        let _changes = self.changes.lock();
        let there = layer.lookup((dir, name))?;
        let dentry = if there.is_some_and(|there| is_whiteout(&there)) {
            // In the work directory nothing is inherited.
            let (mode, acls) = acl::inherit(node, dir.inode().acl(AclKind::Default)?.as_ref());
            let mut made = self.shared.make(&NewNode { mode, umask: 0, ..node.clone() })?;
            for kind in [AclKind::Access, AclKind::Default] {
                if let Some(acl) = acls.get(kind) {
                    let bytes = acl.to_bytes(|id| id, |id| id);
                    made.dentry.inode().set_xattr(kind.name(), &bytes, XattrFlags::empty())?;
                }
            }
            if made.dentry.is_dir() {
                self.shared.set_opaque(&made.dentry)?;
            }
            made.place((dir, name))?;
            made.dentry.clone()
        } else {
            layer.create((dir, name), node)?
        };
        Self::get(&self.shared, Some(dentry), Vec::new(), Some(self.found_here(name)))
    }
}

/// Makes sure that a directory of the upper layer hides what is below the place that it gets.
fn hide_below(dir: &LayeredNode, place: &LayeredNode) -> SysResult<()> {
    match dir.upper_if_any() {
        Some(upper) if dir.is_dir() && !place.lowers.is_empty() => dir.shared.set_opaque(upper),
        _ => Ok(()),
    }
}

impl Inode for LayeredNode {
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
        let file = self.copy_up(change.size != Some(0))?;
        if change.uid.is_some()
            || change.gid.is_some()
            || (change.mode.is_some() && change.size.is_none())
        {
            self.shared.check_owned(file)?;
        } else if change.size.is_some() {
            self.shared.check_write(file)?;
        }
        file.inode().set_attr(change)
    }

    fn lookup(&self, name: &[u8]) -> SysResult<Arc<dyn Inode>> {
        Ok(self.find(name)?)
    }

    fn create(&self, name: &[u8], node: &NewNode) -> SysResult<Arc<dyn Inode>> {
        match self.create_child(name, node) {
            // Somebody has put something into the layer by himself. The walk knows of nothing there, and
            // would look and try again for ever.
            Err(Errno::EEXIST) => Err(Errno::ESTALE),
            result => Ok(result?),
        }
    }

    fn create_tmpfile(&self, node: &NewNode, is_linkable: bool) -> SysResult<Arc<dyn Inode>> {
        let dir = self.upper_dir()?;
        let inode = dir.inode().create_tmpfile(node, is_linkable)?;
        let dentry = Dentry::new_unnamed(inode, dir, b"#");
        Ok(Self::get(&self.shared, Some(dentry), Vec::new(), None)?)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> SysResult<()> {
        let target = downcast::<Self>(target).ok_or(Errno::EXDEV)?;
        if !Arc::ptr_eq(&target.shared, &self.shared) {
            return Err(Errno::EXDEV);
        }
        let upper = target.copy_up(true)?;
        let dir = self.upper_dir()?;
        let layer = &self.shared.upper()?.layer;
        let _changes = self.changes.lock();
        let there = layer.lookup((dir, name))?;
        let is_over_whiteout = there.is_some_and(|there| is_whiteout(&there));
        if is_over_whiteout {
            layer.remove((dir, name))?;
        }
        let result = layer.link(upper, (dir, name));
        if result.is_err() && is_over_whiteout {
            layer.create((dir, name), &whiteout())?;
        }
        result
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
        self.shown()?.inode().readlink(task)
    }

    fn accessed(&self, relatime: bool) {
        if let Some(upper) = self.upper_if_any() {
            upper.inode().accessed(relatime);
        }
    }

    fn open(self: Arc<Self>, task: &CurrentTask, flags: u32) -> SysResult<Arc<dyn File>> {
        match self.kind() {
            FileType::Regular => {
                if matches!(OpenFlags::from_bits_retain(flags).access_mode(), 1 | 2) {
                    self.shared.check_write(self.copy_up(true)?)?;
                }
                Ok(LayeredFile::open(self, task, flags)?)
            }
            FileType::Directory => Ok(Arc::new(LayeredDir::new(self))),
            FileType::Symlink => Err(Errno::ELOOP),
            FileType::CharDevice | FileType::BlockDevice if !self.shared.may_open_devices() => {
                Err(Errno::EACCES)
            }
            _ => {
                let rdev = self.do_attr()?.rdev;
                let inode: Arc<dyn Inode> = self;
                task.kernel.special_files.open(task, &inode, rdev, flags)
            }
        }
    }

    fn content(self: Arc<Self>, is_writing: bool) -> SysResult<Arc<dyn Content>> {
        file::content(&self, is_writing)
    }

    fn list(&self) -> SysResult<Vec<ListEntry>> {
        if !self.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        self.entries()
    }

    fn acl(&self, kind: AclKind) -> SysResult<Option<Arc<Acl>>> {
        self.shown()?.inode().acl(kind)
    }

    fn get_xattr(&self, name: &[u8]) -> SysResult<Vec<u8>> {
        self.shown()?.inode().get_xattr(&self.shared.name_below(name))
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> SysResult<()> {
        let name = self.shared.name_below(name);
        self.upper_owned()?.inode().set_xattr(&name, value, flags)
    }

    fn list_xattr(&self) -> SysResult<Vec<Vec<u8>>> {
        let names = self.shown()?.inode().list_xattr()?;
        Ok(names.into_iter().filter_map(|name| self.shared.name_above(name)).collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> SysResult<()> {
        let name = self.shared.name_below(name);
        // What is not there is no reason to copy, nor, of access control lists, to fail.
        match self.shown()?.inode().get_xattr(&name) {
            Err(Errno::ENODATA) if AclKind::of_name(&name).is_some() => return Ok(()),
            result => result?,
        };
        self.upper_owned()?.inode().remove_xattr(&name)
    }
}
