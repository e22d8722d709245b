//! `memfd_create(2)`: files of a tmpfs of their own, without a name.

use std::sync::Arc;

use syscalls::SysResult;
use syscalls::abi::fs::{MemfdFlags, OpenFlags, SealFlags};
use syscalls::abi::mount::MountFlags;

use super::tmpfs::{Options, TmpFs};
use crate::task::CurrentTask;
use crate::vfs::attr::SetAttr;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::{NewNode, NodeKind};
use crate::vfs::mount::{Mount, SuperBlock};
use crate::vfs::{Inode, OpenFile, Path};

/// The file system of all memfds of a kernel, and its one mount.
pub struct MemFds {
    fs: Arc<TmpFs>,
    mount: Arc<Mount>,
}

impl MemFds {
    fn new() -> SysResult<Self> {
        let fs = TmpFs::new(Options { mode: 0o755, ..Options::default() })?;
        let mount = Mount::internal(SuperBlock::new(fs.clone()), b"tmpfs", MountFlags::empty());
        Ok(Self { fs, mount })
    }
}

fn memfds(task: &CurrentTask) -> SysResult<&MemFds> {
    match task.kernel.memfds.get() {
        Some(memfds) => Ok(memfds),
        None => {
            let new = MemFds::new()?;
            Ok(task.kernel.memfds.get_or_init(|| new))
        }
    }
}

/// Creates a file of `len` bytes for memory that is known by other means than a descriptor.
///
/// # Errors
/// `ENOSPC`, `ENOMEM`, `EFBIG`.
pub fn create_segment(task: &CurrentTask, name: &[u8], len: u64) -> SysResult<Path> {
    let memfds = memfds(task)?;
    let creds = task.creds();
    let node = NewNode {
        kind: NodeKind::Regular,
        mode: 0o777,
        umask: 0,
        uid: creds.fsuid,
        gid: creds.fsgid,
    };
    let node = memfds.fs.new_node(&node, None)?;
    node.set_unnamed(false);
    node.data()?.write().seals = SealFlags::SEAL;
    node.set_attr(&SetAttr { size: Some(len), ..SetAttr::default() })?;
    let dentry = Dentry::new_unnamed(node, &memfds.mount.root, name);
    Ok(Path { mount: memfds.mount.clone(), dentry })
}

/// Creates an open memfd called `name`.
///
/// # Errors
/// `ENOSPC`, `ENOMEM`.
pub fn create(task: &CurrentTask, name: &[u8], flags: MemfdFlags) -> SysResult<Arc<OpenFile>> {
    let memfds = memfds(task)?;
    let is_noexec = flags.contains(MemfdFlags::NOEXEC_SEAL);
    let creds = task.creds();
    let node = NewNode {
        kind: NodeKind::Regular,
        mode: if is_noexec { 0o666 } else { 0o777 },
        umask: 0,
        uid: creds.fsuid,
        gid: creds.fsgid,
    };
    let node = memfds.fs.new_node(&node, None)?;
    node.set_unnamed(false);
    let mut seals = SealFlags::empty();
    if is_noexec {
        seals |= SealFlags::EXEC;
    } else if !flags.contains(MemfdFlags::ALLOW_SEALING) {
        seals |= SealFlags::SEAL;
    }
    node.data()?.write().seals = seals;
    let name = [b"memfd:", name].concat();
    let dentry = Dentry::new_unnamed(node.clone(), &memfds.mount.root, &name);
    let path = Path { mount: memfds.mount.clone(), dentry };
    let flags = OpenFlags::RDWR | OpenFlags::LARGEFILE;
    let file = node.open(task, flags.bits())?;
    Ok(OpenFile::new(file, Some(path), flags.bits()))
}
