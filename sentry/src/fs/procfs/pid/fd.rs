//! `/proc/PID/fd` and `/proc/PID/fdinfo`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::{Errno, SysResult};

use super::super::super::{nameless, pseudo};
use super::{Seen, attr, parse_number, shown_path};
use crate::fs::pseudo::{DirFile, DirSource, FIRST_OFFSET, Listed, Text, TextFile};
use crate::task::{CurrentTask, Task, access};
use crate::vfs::fd_table::FdTable;
use crate::vfs::path::Path;
use crate::vfs::{
    Attr, File, FileType, Inode, InodeExtras, ListEntry, LookupPolicy, OpenFile, SetAttr,
};

/// Inode numbers of descriptors: apart from those of other files.
const FIRST_FD_INO: u64 = 1 << 48;

fn ino_of(seen: &Seen, fd: u32, is_info: bool) -> u64 {
    let half = if is_info { 1 << 47 } else { 0 };
    FIRST_FD_INO + half + (u64::from(seen.number) << 21) + u64::from(fd)
}

fn table(task: &Task) -> SysResult<Arc<FdTable>> {
    if task.exiting.load(Ordering::SeqCst) { Err(Errno::ENOENT) } else { Ok(task.files()) }
}

fn file(seen: &Seen, fd: u32) -> SysResult<Arc<OpenFile>> {
    let task = seen.task().map_err(|_| Errno::ENOENT)?;
    let fd = i32::try_from(fd).map_err(|_| Errno::ENOENT)?;
    table(&task)?.get_any(fd).map_err(|_| Errno::ENOENT)
}

/// One of the two directories.
pub(super) struct FdDir {
    pub(super) extras: InodeExtras,
    pub(super) seen: Seen,
    pub(super) ino: u64,
    pub(super) is_info: bool,
}

impl FdDir {
    fn mode(&self) -> u32 {
        FileType::Directory.mode_bits() | if self.is_info { 0o555 } else { 0o500 }
    }
}

impl Inode for FdDir {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> SysResult<Attr> {
        let attr = attr(&self.seen, self.ino, self.mode())?;
        let size = if self.is_info {
            0
        } else {
            let task = self.seen.task()?;
            table(&task).map_or(0, |table| table.descriptors().len() as u64)
        };
        Ok(Attr { nlink: 2, size, ..attr })
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        pseudo::set_attr(change)
    }

    fn lookup(&self, name: &[u8]) -> SysResult<Arc<dyn Inode>> {
        let fd = parse_number(name).ok_or(Errno::ENOENT)?;
        file(&self.seen, fd)?;
        let seen = self.seen.clone();
        let extras = InodeExtras::default();
        Ok(if self.is_info {
            Arc::new(FdInfo { extras, seen, fd })
        } else {
            Arc::new(FdLink { extras, seen, fd })
        })
    }

    fn lookup_policy(&self) -> LookupPolicy {
        LookupPolicy::Never
    }

    fn open(self: Arc<Self>, task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        let target = self.seen.task()?;
        if self.is_info && !access::may_inspect(task, &target) {
            return Err(Errno::EACCES);
        }
        Ok(Arc::new(DirFile::new(self)))
    }
}

impl DirSource for FdDir {
    fn entries(&self, _current: &CurrentTask, _from: u64) -> SysResult<Vec<Listed>> {
        let task = self.seen.task().map_err(|_| Errno::ENOENT)?;
        let descriptors = table(&task).map(|table| table.descriptors()).unwrap_or_default();
        let file_type = if self.is_info { FileType::Regular } else { FileType::Symlink };
        let list = descriptors.into_iter().filter_map(|fd| u32::try_from(fd).ok()).map(|fd| {
            let entry = ListEntry {
                name: fd.to_string().into_bytes(),
                ino: ino_of(&self.seen, fd, self.is_info),
                file_type,
            };
            (FIRST_OFFSET + u64::from(fd), entry)
        });
        Ok(list.collect())
    }
}

/// `/proc/PID/fd/N`.
struct FdLink {
    extras: InodeExtras,
    seen: Seen,
    fd: u32,
}

impl FdLink {
    fn file(&self, current: Option<&CurrentTask>) -> SysResult<Arc<OpenFile>> {
        let task = self.seen.task().map_err(|_| Errno::ENOENT)?;
        let current = current.ok_or(Errno::EACCES)?;
        if !access::may_inspect(current, &task) {
            return Err(Errno::EACCES);
        }
        file(&self.seen, self.fd)
    }
}

impl Inode for FdLink {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn attr(&self) -> SysResult<Attr> {
        // The permission bits say how the file was opened.
        let file = file(&self.seen, self.fd)?;
        let mut mode = FileType::Symlink.mode_bits();
        if file.is_readable() || file.is_path() {
            mode |= 0o500;
        }
        if file.is_writable() {
            mode |= 0o300;
        }
        let ino = ino_of(&self.seen, self.fd, false);
        Ok(Attr { size: 64, ..attr(&self.seen, ino, mode)? })
    }

    fn readlink(&self, task: Option<&CurrentTask>) -> SysResult<Vec<u8>> {
        let file = self.file(task)?;
        let task = task.ok_or(Errno::EACCES)?;
        Ok(match &file.path {
            Some(path) if !nameless::is_nameless(path) => shown_path(task, path),
            _ => file.file.anonymous_name().into_bytes(),
        })
    }

    fn magic_link(&self, task: Option<&CurrentTask>) -> SysResult<Option<Path>> {
        let file = self.file(task)?;
        Ok(Some(match &file.path {
            Some(path) => path.clone(),
            None => nameless::path(&file),
        }))
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Err(Errno::ELOOP)
    }
}

/// `/proc/PID/fdinfo/N`.
struct FdInfo {
    extras: InodeExtras,
    seen: Seen,
    fd: u32,
}

impl Inode for FdInfo {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn attr(&self) -> SysResult<Attr> {
        let mode = FileType::Regular.mode_bits() | 0o444;
        attr(&self.seen, ino_of(&self.seen, self.fd, true), mode)
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        pseudo::set_attr(change)
    }

    fn open(self: Arc<Self>, current: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        let task = self.seen.task()?;
        if !access::may_inspect(current, &task) {
            return Err(Errno::EACCES);
        }
        let text = InfoText { seen: self.seen.clone(), fd: self.fd };
        Ok(Arc::new(TextFile::new(self, Arc::new(text))))
    }
}

struct InfoText {
    seen: Seen,
    fd: u32,
}

impl Text for InfoText {
    fn show(&self, current: &CurrentTask) -> SysResult<Vec<u8>> {
        let file = file(&self.seen, self.fd)?;
        let task = self.seen.task()?;
        let fd = i32::try_from(self.fd).map_err(|_| Errno::ENOENT)?;
        let is_cloexec = table(&task)?.is_cloexec(fd).unwrap_or(false);
        let flags = file.flags() | if is_cloexec { 0o2_000_000 } else { 0 };
        let (mount, ino) = match &file.path {
            Some(path) => (path.mount.id, path.inode().attr()?.ino),
            None => (nameless::MOUNT_ID, file.file.attr().map_or(0, |attr| attr.ino)),
        };
        // A read or write under way holds the offset; its old value is as good as its new one.
        let offset = file.offset.try_lock().map_or(0, |offset| *offset);
        let mut text =
            format!("pos:\t{offset}\nflags:\t0{flags:o}\nmnt_id:\t{mount}\nino:\t{ino}\n");
        text.push_str(&file.file.fd_info(current));
        Ok(text.into_bytes())
    }
}
