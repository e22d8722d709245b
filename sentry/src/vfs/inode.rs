//! Inodes and file systems: the traits that a concrete file system implements.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use bitflags::bitflags;
use syscalls::{Errno, SysResult};

use super::acl::{Acl, AclKind};
use super::attr::{Attr, FileType, SetAttr};
use super::dentry::Dentry;
use super::file::File;
use super::io::{IoSink, IoSource};
use super::lease::Told;
use super::lock::FileLocks;
use super::path::Path;
use crate::sync::{Mutex, WaitQueue};
use crate::task::CurrentTask;

/// A mounted or mountable file system.
pub trait FileSystem: Send + Sync {
    /// Returns the type as `/proc/mounts` names it.
    fn kind(&self) -> &'static str;

    /// Returns the root directory (or file, for a bind mount of a file).
    fn root(&self) -> Arc<dyn Inode>;

    /// Implements `statfs(2)`.
    ///
    /// # Errors
    /// Those of the file system's store.
    fn statfs(&self) -> SysResult<syscalls::abi::fs::Statfs>;

    /// Returns the options specific to the type as `/proc/mounts` shows them, without a comma in
    /// front.
    fn show_options(&self) -> String {
        String::new()
    }

    /// Changes the options specific to the type: `mount -o remount`.
    ///
    /// # Errors
    /// `EINVAL` for an option that is unknown or cannot be changed.
    fn remount(&self, options: &[u8]) -> SysResult<()> {
        let _ = options;
        Ok(())
    }

    /// Is told that others may just have changed files, where they can.
    fn distrust(&self) {}

    /// Returns whether nothing in the file system can ever be changed.
    fn is_always_readonly(&self) -> bool {
        false
    }

    /// Returns how many file systems lie on one another here: 0 for one that is made of no other.
    fn stack_depth(&self) -> u32 {
        0
    }

    /// Writes everything to stable storage.
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`.
    fn sync(&self) -> SysResult<()> {
        Ok(())
    }
}

/// How long the result of a lookup may be kept in the dentry cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupPolicy {
    /// As long as the dentry lives; nobody else changes the directory.
    Cache,
    /// The inode is asked with [`Inode::revalidate`] before a cached dentry is used.
    Revalidate,
    /// Every walk looks up anew (proc).
    Never,
}

/// What to create with [`Inode::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// A FIFO.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice(u64),
    /// A block device.
    BlockDevice(u64),
}

/// A new node: kind, permission bits, and owner as the caller has decided them.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// What to create.
    pub kind: NodeKind,
    /// Permission bits (07777) as they were asked for.
    pub mode: u32,
    /// Permission bits that are to be taken away, where no default access control list of the directory decides.
    pub umask: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

bitflags! {
    /// `XATTR_*` flags of `setxattr(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct XattrFlags: u32 {
        /// Fail where the attribute exists.
        const CREATE = 1;
        /// Fail where it does not.
        const REPLACE = 2;
    }
}

/// What the VFS keeps with every inode, whoever implements it: locks and watches.
#[derive(Default)]
pub struct InodeExtras {
    /// File locks, made when first needed (`vfs::lock`).
    pub locks: Mutex<Option<Box<FileLocks>>>,
    /// How many open files may write; negative, how many programs run from the file: each keeps
    /// the other out with `ETXTBSY`.
    pub(super) n_writers: AtomicI32,
    /// How many open files may only read: counted for regular files, for the sake of leases.
    pub(super) n_readers: AtomicI32,
    /// Leases and directory notification, made when first needed (`vfs::lease`).
    pub(super) told: Mutex<Option<Box<Told>>>,
    /// Woken when a lock or a lease is released.
    pub lock_waiters: WaitQueue,
    /// inotify watches, made when first needed (`fs::inotify`).
    pub watches: Mutex<Option<Arc<dyn InodeWatcher>>>,
}

impl InodeExtras {
    /// Returns how many open files may write, and how many may only read.
    pub(super) fn openers(&self) -> (i32, i32) {
        (self.n_writers.load(Ordering::Acquire), self.n_readers.load(Ordering::Acquire))
    }
}

/// A receiver of file events: the inotify marks on one inode.
pub trait InodeWatcher: Any + Send + Sync {
    /// Is told of `mask` (`IN_*`), with the child's name where a directory's child is concerned
    /// and the cookie that joins the two halves of a rename.
    fn event(&self, mask: u32, cookie: u32, name: Option<&[u8]>);
}

/// The content of a regular file, as the kernel itself reads and writes it.
pub trait Content: Send + Sync {
    /// Reads.
    ///
    /// # Errors
    /// `EIO`, those of the sink.
    fn read_at(&self, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize>;

    /// Writes; returns how much was taken.
    ///
    /// # Errors
    /// `ENOSPC`, `EFBIG`, `EIO`, those of the source.
    fn write_at(&self, src: &mut dyn IoSource, offset: u64) -> SysResult<usize>;

    /// Returns where the next data begins, at `offset` or behind it.
    ///
    /// # Errors
    /// `ENXIO` where there is none.
    fn next_data(&self, offset: u64) -> SysResult<u64>;
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// The name.
    pub name: Vec<u8>,
    /// The inode number.
    pub ino: u64,
    /// The type.
    pub file_type: FileType,
}

/// An object of a file system. Permissions have been checked by the caller, against
/// [`Inode::attr`], before any of the calls; names are single components, neither empty nor `.`
/// nor `..`, at most 255 bytes, without `/` or NUL.
///
/// Every default is what Linux answers for an object of another type.
pub trait Inode: Any + Send + Sync {
    /// Returns the VFS part of the inode.
    fn extras(&self) -> &InodeExtras;

    /// Returns the type, which never changes.
    fn file_type(&self) -> FileType;

    /// Returns the attributes.
    ///
    /// # Errors
    /// `ESTALE`, `EIO` from the store.
    fn attr(&self) -> SysResult<Attr>;

    /// Returns attributes of which type, mode and owners are right: what permissions go by. Where the others are dear, they
    /// may be old.
    ///
    /// # Errors
    /// As [`Inode::attr`].
    fn access_attr(&self) -> SysResult<Attr> {
        self.attr()
    }

    /// Changes attributes.
    ///
    /// # Errors
    /// `EPERM` where the file system does not support the change; `ENOSPC`, `EFBIG`, `EIO`.
    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        let _ = change;
        Err(Errno::EPERM)
    }

    /// Looks up a child.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`.
    fn lookup(&self, name: &[u8]) -> SysResult<Arc<dyn Inode>> {
        let _ = name;
        Err(Errno::ENOTDIR)
    }

    /// Is told which path is about to be walked from this directory, and that the lookup of its first
    /// component is not answered by the cache. A file system whose lookups are dear may look up
    /// several components at once and have the results ready. The components are not checked yet.
    fn prefetch(&self, path: &[u8]) {
        let _ = path;
    }

    /// Says how long lookups below this directory may be cached.
    fn lookup_policy(&self) -> LookupPolicy {
        LookupPolicy::Cache
    }

    /// Returns whether [`Inode::revalidate`] answers about a name without asking elsewhere. Asked
    /// only under `Revalidate`.
    fn is_sure_of(&self, name: &[u8]) -> bool {
        let _ = name;
        false
    }

    /// Returns whether a dentry of this directory that was looked up as `name` with the result
    /// `child` (`None`: nothing there) is still right. Asked only under `Revalidate`.
    fn revalidate(&self, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        let _ = (name, child);
        false
    }

    /// Creates a child that does not exist yet.
    ///
    /// # Errors
    /// `EEXIST`, `EROFS`, `ENOSPC`, `EPERM`, `ENOTDIR`.
    fn create(&self, name: &[u8], node: &NewNode) -> SysResult<Arc<dyn Inode>> {
        let _ = (name, node);
        Err(Errno::EPERM)
    }

    /// Creates a regular file without a name (`O_TMPFILE`), which `link` may give one to where
    /// `is_linkable`.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `EROFS`, `ENOSPC`.
    fn create_tmpfile(&self, node: &NewNode, is_linkable: bool) -> SysResult<Arc<dyn Inode>> {
        let _ = (node, is_linkable);
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes `target`, an inode of the same file system, available as `name`.
    ///
    /// # Errors
    /// `EEXIST`, `EMLINK`, `EPERM`, `EROFS`, `EXDEV`.
    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> SysResult<()> {
        let _ = (name, target);
        Err(Errno::EPERM)
    }

    /// Returns whether [`Inode::create`] alone says that a name exists already, so that it need not be looked up before.
    fn refuses_existing(&self) -> bool {
        false
    }

    /// Is told that the file has been renamed.
    fn renamed(&self) {}

    /// Is told that a name of this file has been removed: where it was the last, nothing should
    /// keep the file in being but whoever has it open.
    fn name_removed(&self) {}

    /// Removes a child that is not a directory.
    ///
    /// # Errors
    /// `ENOENT`, `EISDIR`, `EROFS`, `EPERM`.
    fn unlink(&self, name: &[u8]) -> SysResult<()> {
        let _ = name;
        Err(Errno::EPERM)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`, `EROFS`, `EPERM`.
    fn rmdir(&self, name: &[u8]) -> SysResult<()> {
        let _ = name;
        Err(Errno::EPERM)
    }

    /// Renames a child into `new_dir`, a directory of the same file system. `flags` are
    /// `RENAME_NOREPLACE` and `RENAME_EXCHANGE`; loops and type clashes have been checked.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `ENOTEMPTY`, `EINVAL` for unsupported flags, `EROFS`, `EXDEV`.
    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: u32,
    ) -> SysResult<()> {
        let _ = (name, new_dir, new_name, flags);
        Err(Errno::EPERM)
    }

    /// Returns the target of a symbolic link. There is no task while the sandbox boots.
    ///
    /// # Errors
    /// `EINVAL` for anything else.
    fn readlink(&self, task: Option<&CurrentTask>) -> SysResult<Vec<u8>> {
        let _ = task;
        Err(Errno::EINVAL)
    }

    /// Returns where a magic link (`/proc/PID/fd/N`, `/proc/PID/exe`) leads, or `None` where the
    /// link is an ordinary one that is followed by its text.
    ///
    /// # Errors
    /// `EACCES`, `ENOENT`.
    fn magic_link(&self, task: Option<&CurrentTask>) -> SysResult<Option<Path>> {
        let _ = task;
        Ok(None)
    }

    /// Is told that the content has been read, on a mount and through a file that keep access
    /// times; `relatime` says that a time that is newer than the other two may stay.
    fn accessed(&self, relatime: bool) {
        let _ = relatime;
    }

    /// Opens the inode. `flags` are those of `open(2)` with access mode; creation and truncation
    /// have been done by the caller. A FIFO whose other end is missing is opened all the same, and
    /// says so ([`File::is_open_complete`]).
    ///
    /// # Errors
    /// `ENXIO`, `EROFS`, `ENOMEM`.
    fn open(self: Arc<Self>, task: &CurrentTask, flags: u32) -> SysResult<Arc<dyn File>>;

    /// Is asked by `access(2)` whether the file may be written to, after the permission bits.
    ///
    /// # Errors
    /// `EACCES`.
    fn check_write_access(&self, task: &CurrentTask) -> SysResult<()> {
        let _ = task;
        Ok(())
    }

    /// Is told that somebody, who has found it by `dentry`, wants to hear of what others do to the inode: it announces that
    /// with `notify::from_host`, where there are others and as far as it can.
    fn watch(self: Arc<Self>, dentry: &Arc<Dentry>) {
        let _ = dentry;
    }

    /// Is told that one of those does not any more.
    fn unwatch(&self) {}

    /// Returns a host descriptor, open for reading only, from which the content of a regular file
    /// can be read: what an overlay builds upon. The content must not change any more.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where there is none; those of the store.
    fn host_content(&self) -> SysResult<Arc<OwnedFd>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Returns the content of a regular file for the kernel's own use: what an overlay copies.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where that is nobody's business; those of opening.
    fn content(self: Arc<Self>, is_writing: bool) -> SysResult<Arc<dyn Content>> {
        let _ = is_writing;
        Err(Errno::EOPNOTSUPP)
    }

    /// Returns all entries of a directory but `.` and `..`: what an overlay merges.
    ///
    /// # Errors
    /// `ENOTDIR`; those of the store.
    fn list(&self) -> SysResult<Vec<ListEntry>> {
        Err(Errno::ENOTDIR)
    }

    /// Returns an extended attribute.
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP`.
    fn get_xattr(&self, name: &[u8]) -> SysResult<Vec<u8>> {
        let _ = name;
        Err(Errno::EOPNOTSUPP)
    }

    /// Returns an access control list of the file, where it has one that is more than its permission bits. This is asked
    /// wherever permissions are looked at.
    ///
    /// # Errors
    /// `ESTALE`, `EIO` from the store.
    fn acl(&self, kind: AclKind) -> SysResult<Option<Arc<Acl>>> {
        let _ = kind;
        Ok(None)
    }

    /// Sets an extended attribute. That of an access control list changes the permission bits, too.
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA`, `ENOSPC`, `EOPNOTSUPP`.
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> SysResult<()> {
        let _ = (name, value, flags);
        Err(Errno::EOPNOTSUPP)
    }

    /// Returns the names of the extended attributes.
    ///
    /// # Errors
    /// `EOPNOTSUPP`.
    fn list_xattr(&self) -> SysResult<Vec<Vec<u8>>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP`.
    fn remove_xattr(&self, name: &[u8]) -> SysResult<()> {
        let _ = name;
        Err(Errno::EOPNOTSUPP)
    }
}

/// Returns the inode as a concrete type, where it is one.
pub fn downcast<T: Inode>(inode: &Arc<dyn Inode>) -> Option<Arc<T>> {
    let any: Arc<dyn Any + Send + Sync> = inode.clone();
    any.downcast().ok()
}
