//! `cwd`, `root` and `exe`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::{Errno, SysResult};

use super::table::TargetFn;
use super::{Seen, attr, mm_of, shown_path};
use crate::task::{CurrentTask, Task, access};
use crate::vfs::path::Path;
use crate::vfs::{Attr, File, FileType, Inode, InodeExtras};

/// A link to a place that its process knows.
pub(super) struct PathLink {
    pub(super) extras: InodeExtras,
    pub(super) seen: Seen,
    pub(super) ino: u64,
    pub(super) target: TargetFn,
}

impl PathLink {
    fn target(&self, current: Option<&CurrentTask>) -> SysResult<Path> {
        let task = self.seen.task().map_err(|_| Errno::ENOENT)?;
        let current = current.ok_or(Errno::EACCES)?;
        if !access::may_inspect(current, &task) {
            return Err(Errno::EACCES);
        }
        (self.target)(&task)
    }
}

impl Inode for PathLink {
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
        let path = self.target(task)?;
        task.map(|task| shown_path(task, &path)).ok_or(Errno::EACCES)
    }

    fn magic_link(&self, task: Option<&CurrentTask>) -> SysResult<Option<Path>> {
        self.target(task).map(Some)
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Err(Errno::ELOOP)
    }
}

fn check_alive(task: &Task) -> SysResult<()> {
    if task.exiting.load(Ordering::SeqCst) { Err(Errno::ENOENT) } else { Ok(()) }
}

pub(super) fn cwd(task: &Task) -> SysResult<Path> {
    check_alive(task)?;
    Ok(task.fs().cwd())
}

pub(super) fn root(task: &Task) -> SysResult<Path> {
    check_alive(task)?;
    Ok(task.fs().root())
}

pub(super) fn exe(task: &Task) -> SysResult<Path> {
    let mm = mm_of(task).ok_or(Errno::ENOENT)?;
    mm.exe().and_then(|exe| exe.path.clone()).ok_or(Errno::ENOENT)
}
