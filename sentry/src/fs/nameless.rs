//! Files that no path leads to, reached through `/proc/PID/fd`: pipes, standard streams of the
//! sandbox, eventfds and their like.

use std::sync::{Arc, OnceLock};

use syscalls::abi::fs::Statfs;
use syscalls::abi::mount::{ANON_INODE_FS_MAGIC, MountFlags};
use syscalls::{Errno, SysResult};

use super::host_fd::HostFile;
use crate::task::CurrentTask;
use crate::vfs::dentry::Dentry;
use crate::vfs::mount::{Mount, SuperBlock};
use crate::vfs::path::Path;
use crate::vfs::{Attr, File, FileSystem, FileType, Inode, InodeExtras, OpenFile, SetAttr, file};

/// The number of the mount that such files are shown to be on.
pub(crate) const MOUNT_ID: u64 = 15;

/// The file system behind such paths.
struct NamelessFs;

impl FileSystem for NamelessFs {
    fn kind(&self) -> &'static str {
        "anon_inodefs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(Root(InodeExtras::default()))
    }

    fn statfs(&self) -> SysResult<Statfs> {
        Ok(Statfs {
            f_type: ANON_INODE_FS_MAGIC,
            f_bsize: 4096,
            f_namelen: 255,
            f_frsize: 4096,
            ..Statfs::default()
        })
    }
}

struct Root(InodeExtras);

impl Inode for Root {
    fn extras(&self) -> &InodeExtras {
        &self.0
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> SysResult<Attr> {
        Ok(Attr { mode: 0o040_000, ino: 1, nlink: 1, ..Attr::default() })
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Err(Errno::ENXIO)
    }
}

fn mount() -> &'static Arc<Mount> {
    static MOUNT: OnceLock<Arc<Mount>> = OnceLock::new();
    MOUNT.get_or_init(|| {
        Mount::internal(
            SuperBlock::new(Arc::new(NamelessFs)),
            b"anon_inodefs",
            MountFlags::NODIRATIME,
        )
    })
}

/// Returns whether a path was made by [`path`].
pub(crate) fn is_nameless(path: &Path) -> bool {
    Arc::ptr_eq(&path.mount, mount())
}

/// Returns a path that leads to an open file without one.
pub(crate) fn path(open: &Arc<OpenFile>) -> Path {
    let inode = open.file.inode().unwrap_or_else(|| {
        Arc::new(Nameless { extras: InodeExtras::default(), open: open.clone() })
    });
    path_of(inode)
}

/// Returns a path that leads to an inode without a name.
pub(crate) fn path_of(inode: Arc<dyn Inode>) -> Path {
    let mount = mount().clone();
    let dentry = Dentry::new_unnamed(inode, &mount.root, b"");
    Path { mount, dentry }
}

/// The inode of a file that has none.
struct Nameless {
    extras: InodeExtras,
    open: Arc<OpenFile>,
}

impl Inode for Nameless {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        self.open.file.attr().map_or(FileType::Anonymous, |attr| attr.file_type())
    }

    fn attr(&self) -> SysResult<Attr> {
        self.open.file.attr()
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        super::pseudo::set_attr(change)
    }

    /// The standard streams are opened again as what they are; Linux opens nothing else without a
    /// path but pipes.
    fn open(self: Arc<Self>, task: &CurrentTask, flags: u32) -> SysResult<Arc<dyn File>> {
        if file::downcast::<HostFile>(&self.open.file).is_some()
            && self.file_type() != FileType::Socket
        {
            return Ok(self.open.file.clone());
        }
        self.open.file.clone().reopen(task, flags)
    }
}
