//! Layers: directories of file systems in use, of which another file system is made.
//!
//! What is changed in a layer goes through its dentries, so that whoever walks there by himself
//! sees it, and is told of it.

use std::sync::Arc;

use syscalls::abi::fs::RenameFlags;
use syscalls::{Errno, SysResult};

use super::dentry::Dentry;
use super::inode::NewNode;
use super::mount::SuperBlock;
use super::notify;
use super::path::Path;

/// A directory of a file system, kept in use.
#[derive(Clone)]
pub struct Layer {
    /// The file system.
    pub sb: Arc<SuperBlock>,
    /// The directory.
    pub root: Arc<Dentry>,
}

/// A name in a directory.
pub type Place<'a> = (&'a Arc<Dentry>, &'a [u8]);

impl Layer {
    /// Takes the directory at a path; whether it stays mounted there does not matter.
    pub fn at(path: &Path) -> Self {
        Self { sb: path.mount.sb.clone(), root: path.dentry.clone() }
    }

    /// Looks a name up; `None` where there is nothing.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn lookup(&self, (dir, name): Place<'_>) -> SysResult<Option<Arc<Dentry>>> {
        match dir.lookup(name, &self.sb.cache) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Creates a node.
    ///
    /// # Errors
    /// `EEXIST`, `EROFS`, those of the file system.
    pub fn create(&self, (dir, name): Place<'_>, node: &NewNode) -> SysResult<Arc<Dentry>> {
        self.check_writable()?;
        let made = dir.create_child(name, &self.sb.cache, |inode| inode.create(name, node))?;
        notify::created(dir, name, made.is_dir());
        Ok(made)
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// `EEXIST`, `EROFS`, those of the file system.
    pub fn link(&self, target: &Arc<Dentry>, (dir, name): Place<'_>) -> SysResult<()> {
        self.check_writable()?;
        let inode = target.inode();
        dir.create_child(name, &self.sb.cache, |dir| {
            dir.link(name, inode)?;
            Ok(inode.clone())
        })?;
        notify::linked(target);
        notify::created(dir, name, false);
        Ok(())
    }

    /// Removes a file or an empty directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTEMPTY`, `EBUSY`, `EROFS`, those of the file system.
    pub fn remove(&self, (dir, name): Place<'_>) -> SysResult<()> {
        self.check_writable()?;
        let child = dir.remove_child(name, &self.sb.cache, |child| {
            check_not_mounted(child)?;
            if child.is_dir() { dir.inode().rmdir(name) } else { dir.inode().unlink(name) }
        })?;
        child.inode().name_removed();
        notify::removed(dir, name, &child);
        Ok(())
    }

    /// Renames; what `to` is must suit what `from` is, or be nothing.
    ///
    /// # Errors
    /// `ENOENT`, `EINVAL` where a directory would come to lie below itself, `ENOTDIR`, `EISDIR`,
    /// `EBUSY`, `EROFS`, those of the file system.
    pub fn rename(&self, from: Place<'_>, to: Place<'_>, flags: RenameFlags) -> SysResult<()> {
        self.check_writable()?;
        let ((dir, name), (new_dir, new_name)) = (from, to);
        let is_exchange = flags.contains(RenameFlags::EXCHANGE);
        let _moves = self.sb.rename.lock();
        let mut moved = None;
        let cache = &self.sb.cache;
        dir.rename_child(name, new_dir, new_name, is_exchange, cache, |child, target| {
            check_rename((dir, child), (new_dir, target), is_exchange)?;
            dir.inode().rename(name, new_dir.inode(), new_name, flags.bits())?;
            moved = Some((child.clone(), target.cloned()));
            Ok(true)
        })?;
        let Some((child, target)) = moved else { return Ok(()) };
        child.inode().renamed();
        let replaced = target.as_ref().filter(|_| !is_exchange);
        if let Some(replaced) = replaced {
            replaced.inode().name_removed();
        }
        notify::moved((dir, name), (new_dir, new_name), &child, replaced);
        if let Some(target) = target.filter(|_| is_exchange) {
            target.inode().renamed();
            notify::moved((new_dir, new_name), (dir, name), &target, None);
        }
        Ok(())
    }

    fn check_writable(&self) -> SysResult<()> {
        if self.sb.is_readonly() { Err(Errno::EROFS) } else { Ok(()) }
    }
}

/// Checks a rename in a tree that others may have changed since it was looked at.
fn check_rename(
    (dir, child): (&Arc<Dentry>, &Arc<Dentry>),
    (new_dir, target): (&Arc<Dentry>, Option<&Arc<Dentry>>),
    is_exchange: bool,
) -> SysResult<()> {
    if child.is_dir() && new_dir.is_below(child) {
        return Err(Errno::EINVAL);
    }
    check_not_mounted(child)?;
    let Some(target) = target else {
        return if is_exchange { Err(Errno::ENOENT) } else { Ok(()) };
    };
    check_not_mounted(target)?;
    if target.is_dir() && dir.is_below(target) {
        return Err(if is_exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    match (child.is_dir(), target.is_dir()) {
        _ if is_exchange => Ok(()),
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        _ => Ok(()),
    }
}

fn check_not_mounted(dentry: &Dentry) -> SysResult<()> {
    if dentry.is_mount_point() { Err(Errno::EBUSY) } else { Ok(()) }
}
