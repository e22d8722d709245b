//! Mounts of the container's control groups: what the gofer serves of the host's, read-only.

use std::sync::Arc;

use ::syscalls::SysResult;
use ::syscalls::abi::fs::Statfs;
use ::syscalls::abi::mount::MountFlags;

use super::container::{Connections, resolve, tmpfs, walk};
use crate::config::{CgroupHierarchy, TmpfsConfig};
use crate::fs::gofer::{Caching, GoferFs};
use crate::vfs::fs_context::FsContext;
use crate::vfs::mount::{Mount, SuperBlock};
use crate::vfs::path::Path;
use crate::vfs::walk::WalkFlags;
use crate::vfs::{FileSystem, Inode, NodeKind, names};

/// The container's group in one hierarchy.
struct CgroupFs {
    files: GoferFs,
    /// None for version 2.
    controllers: Option<String>,
}

impl FileSystem for CgroupFs {
    fn kind(&self) -> &'static str {
        if self.controllers.is_some() { "cgroup" } else { "cgroup2" }
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.files.root()
    }

    fn statfs(&self) -> SysResult<Statfs> {
        self.files.statfs()
    }

    fn show_options(&self) -> String {
        self.controllers.clone().unwrap_or_default()
    }
}

/// Mounts the hierarchies at a directory in the form in which the host has them.
pub(super) fn mount(
    fs: &FsContext,
    at: &Path,
    path: &[u8],
    flags: MountFlags,
    hierarchies: &[CgroupHierarchy],
    connections: &mut Connections,
) -> SysResult<()> {
    let flags = flags | MountFlags::RDONLY;
    if let [only] = hierarchies
        && only.controllers.is_none()
    {
        return mount_one(fs, at, flags, only, connections);
    }
    let directory = tmpfs(&TmpfsConfig::default(), 0o755)?;
    let top = Mount::new(SuperBlock::new(directory), b"cgroup", flags - MountFlags::RDONLY);
    fs.namespace().mount(&top, at)?;
    let create = |name: &str, kind: NodeKind, mode: u32| {
        let path = [path, b"/", name.as_bytes()].concat();
        names::create(&mut walk(fs, WalkFlags::empty()), &path, kind, mode).map(|_| path)
    };
    for hierarchy in hierarchies {
        let path = create(&hierarchy.name, NodeKind::Directory, 0o755)?;
        mount_one(fs, &resolve(fs, &path)?, flags, hierarchy, connections)?;
        // Those that share a hierarchy are found by their own names as well.
        let controllers = hierarchy.controllers.as_deref().unwrap_or_default();
        for name in controllers.split(',').filter(|name| controllers.len() > name.len()) {
            create(name, NodeKind::Symlink(hierarchy.name.clone().into_bytes()), 0o777)?;
        }
    }
    top.set_flags(flags);
    Ok(())
}

fn mount_one(
    fs: &FsContext,
    at: &Path,
    flags: MountFlags,
    hierarchy: &CgroupHierarchy,
    connections: &mut Connections,
) -> SysResult<()> {
    let files = connections.attach(hierarchy.connection, Caching::Shared)?;
    let cgroup = CgroupFs { files, controllers: hierarchy.controllers.clone() };
    let mount = Mount::new(SuperBlock::new(Arc::new(cgroup)), b"cgroup", flags);
    fs.namespace().mount(&mount, at)
}
