//! `/proc/PID/ns`.

use std::sync::Arc;

use syscalls::{Errno, SysResult};

use super::super::super::{nameless, pseudo};
use super::{Seen, attr};
use crate::fs::pseudo::{DirFile, DirSource, FIRST_OFFSET, Listed};
use crate::task::{CurrentTask, Task, access};
use crate::vfs::path::Path;
use crate::vfs::{Attr, File, FileType, Inode, InodeExtras, ListEntry, LookupPolicy, SetAttr};

/// The device number of Linux's `nsfs` on a freshly booted machine.
const NSFS_DEV: u64 = 4;

/// The kinds of namespaces, by the name of the link and the name in its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cgroup,
    Ipc,
    Mnt,
    Net,
    Pid,
    Time,
    User,
    Uts,
}

const LINKS: [(&str, &str, Kind); 10] = [
    ("net", "net", Kind::Net),
    ("uts", "uts", Kind::Uts),
    ("ipc", "ipc", Kind::Ipc),
    ("pid", "pid", Kind::Pid),
    ("pid_for_children", "pid", Kind::Pid),
    ("user", "user", Kind::User),
    ("mnt", "mnt", Kind::Mnt),
    ("cgroup", "cgroup", Kind::Cgroup),
    ("time", "time", Kind::Time),
    ("time_for_children", "time", Kind::Time),
];

/// Returns the inode number of a task's namespace: Linux's numbers of the first ones where there
/// is only one in a sandbox.
fn number(task: &Task, kind: Kind) -> u64 {
    match kind {
        Kind::Mnt => task.fs().namespace().id,
        Kind::Pid => task.pid_namespace().ino,
        Kind::Net => 4_026_531_833,
        Kind::Time => 4_026_531_834,
        Kind::Cgroup => 4_026_531_835,
        Kind::User => 4_026_531_837,
        Kind::Uts => task.container().uts.ino,
        Kind::Ipc => task.container().ipc.ino,
    }
}

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
        let found = numbered.find(|((link, ..), _)| link.as_bytes() == name);
        let ((_, word, kind), ino) = found.ok_or(Errno::ENOENT)?;
        Ok(Arc::new(NsLink {
            extras: InodeExtras::default(),
            seen: self.seen.clone(),
            ino,
            word,
            kind: *kind,
        }))
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
        let list = LINKS.iter().zip(0..).map(|((name, ..), n)| {
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
    word: &'static str,
    kind: Kind,
}

impl NsLink {
    fn number(&self, current: Option<&CurrentTask>) -> SysResult<u64> {
        let task = self.seen.task().map_err(|_| Errno::ENOENT)?;
        let current = current.ok_or(Errno::EACCES)?;
        if !access::may_inspect(current, &task) {
            return Err(Errno::EACCES);
        }
        Ok(number(&task, self.kind))
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
        let number = self.number(task)?;
        Ok(format!("{}:[{number}]", self.word).into_bytes())
    }

    fn magic_link(&self, task: Option<&CurrentTask>) -> SysResult<Option<Path>> {
        let number = self.number(task)?;
        let inode = Arc::new(NsInode { extras: InodeExtras::default(), number, word: self.word });
        Ok(Some(nameless::path_of(inode)))
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Err(Errno::ELOOP)
    }
}

/// A namespace as a file.
struct NsInode {
    extras: InodeExtras,
    number: u64,
    word: &'static str,
}

impl Inode for NsInode {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn attr(&self) -> SysResult<Attr> {
        Ok(Attr {
            dev: NSFS_DEV,
            ino: self.number,
            mode: FileType::Regular.mode_bits() | 0o444,
            nlink: 1,
            blksize: 4096,
            ..Attr::default()
        })
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Ok(Arc::new(NsFile(self)))
    }
}

/// An open namespace.
struct NsFile(Arc<NsInode>);

impl File for NsFile {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.0.clone())
    }

    fn anonymous_name(&self) -> String {
        format!("{}:[{}]", self.0.word, self.0.number)
    }

    fn is_seekable(&self) -> bool {
        false
    }
}
