//! `/proc/PID/ns`.

use std::sync::Arc;

use syscalls::{Errno, SysResult};

use super::super::super::{nsfs, pseudo};
use super::{Seen, attr};
use crate::fs::pseudo::{DirFile, DirSource, FIRST_OFFSET, Listed};
use crate::task::namespaces::{self, AnyNamespace};
use crate::task::{CurrentTask, access};
use crate::vfs::path::Path;
use crate::vfs::{Attr, File, FileType, Inode, InodeExtras, ListEntry, LookupPolicy, SetAttr};

/// The links, in Linux's order.
const LINKS: [&str; 10] = [
    "net",
    "uts",
    "ipc",
    "pid",
    "pid_for_children",
    "user",
    "mnt",
    "cgroup",
    "time",
    "time_for_children",
];

pub(super) struct NsDir {
    pub(super) extras: InodeExtras,
    pub(super) seen: Seen,
    pub(super) ino: u64,
}

impl Inode for NsDir {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> SysResult<Attr> {
        let attr = attr(&self.seen, self.ino, FileType::Directory.mode_bits() | 0o511)?;
        Ok(Attr { nlink: 2, ..attr })
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        pseudo::set_attr(change)
    }

    fn lookup(&self, name: &[u8]) -> SysResult<Arc<dyn Inode>> {
        let mut numbered = LINKS.iter().zip(self.ino + 64..);
        let found = numbered.find(|(link, _)| link.as_bytes() == name);
        let (name, ino) = found.ok_or(Errno::ENOENT)?;
        Ok(Arc::new(NsLink { extras: InodeExtras::default(), seen: self.seen.clone(), ino, name }))
    }

    fn lookup_policy(&self) -> LookupPolicy {
        LookupPolicy::Never
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Ok(Arc::new(DirFile::new(self)))
    }
}

impl DirSource for NsDir {
    fn entries(&self, _current: &CurrentTask, _from: u64) -> SysResult<Vec<Listed>> {
        let list = LINKS.iter().zip(0..).map(|(name, n)| {
            let name = name.as_bytes().to_vec();
            let entry = ListEntry { name, ino: self.ino + 64 + n, file_type: FileType::Symlink };
            (FIRST_OFFSET + n, entry)
        });
        Ok(list.collect())
    }
}

struct NsLink {
    extras: InodeExtras,
    seen: Seen,
    ino: u64,
    name: &'static str,
}

impl NsLink {
    fn namespace(&self, current: Option<&CurrentTask>) -> SysResult<AnyNamespace> {
        let task = self.seen.task().map_err(|_| Errno::ENOENT)?;
        let current = current.ok_or(Errno::EACCES)?;
        if !access::may_inspect(current, &task) {
            return Err(Errno::EACCES);
        }
        namespaces::of_task(&task, self.name).ok_or(Errno::ENOENT)
    }
}

impl Inode for NsLink {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn attr(&self) -> SysResult<Attr> {
        attr(&self.seen, self.ino, FileType::Symlink.mode_bits() | 0o777)
    }

    fn readlink(&self, task: Option<&CurrentTask>) -> SysResult<Vec<u8>> {
        let namespace = self.namespace(task)?;
        Ok(format!("{}:[{}]", namespace.word(), namespace.ino()).into_bytes())
    }

    fn magic_link(&self, task: Option<&CurrentTask>) -> SysResult<Option<Path>> {
        Ok(Some(nsfs::path(self.namespace(task)?)))
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Err(Errno::ELOOP)
    }
}
