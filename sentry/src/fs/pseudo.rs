//! What file systems that generate their content share: fixed directories, texts, links.
//!
//! A text is made when its file is read from the beginning and kept for the rest of the open, so
//! that a reader of several pieces sees one state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sentry_host::clock::{self, Clock};
use syscalls::abi::fs::OpenFlags;
use syscalls::{Errno, SysResult};

use super::kept::Kept;
use crate::sync::Mutex;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::{
    Attr, DirEntry, DirSink, File, FileType, Inode, InodeExtras, IoSink, IoSource, ListEntry,
    LookupPolicy, OpenFile, SetAttr, SetTime, Timestamp, WriteOffset,
};

/// The most bytes that one write to a text may have.
const MAX_WRITE: usize = 4096;

/// The offset of the first entry behind `.` and `..`.
pub(crate) const FIRST_OFFSET: u64 = 2;

/// Returns the present time.
pub(crate) fn now() -> Timestamp {
    timestamp(clock::now_ns(Clock::RealtimeCoarse))
}

/// Returns a time given in nanoseconds since the epoch.
pub(crate) fn timestamp(ns: i64) -> Timestamp {
    Timestamp {
        sec: ns.div_euclid(1_000_000_000),
        nsec: u32::try_from(ns.rem_euclid(1_000_000_000)).unwrap_or(0),
    }
}

/// What a generated inode remembers of itself.
pub(crate) struct Meta {
    pub(crate) extras: InodeExtras,
    pub(crate) attr: Attr,
}

/// Hands out inode numbers of one file system.
pub(crate) struct Numbers {
    pub(crate) dev: u64,
    next_ino: AtomicU64,
    time: Timestamp,
    /// The size that regular files show.
    size: u64,
    /// The permission bits of directories.
    dir_mode: u32,
}

impl Numbers {
    /// Creates the numbers of a file system whose regular files show `size` bytes.
    pub(crate) fn new(dev: u64, size: u64, dir_mode: u32) -> Self {
        Self { dev, next_ino: AtomicU64::new(1), time: now(), size, dir_mode }
    }

    /// Returns the attributes of a new inode; `mode` has the type.
    pub(crate) fn meta(&self, mode: u32) -> Meta {
        let ino = self.next_ino.fetch_add(1, Ordering::Relaxed);
        let is_regular = FileType::from_mode(mode) == FileType::Regular;
        let attr = Attr {
            dev: self.dev,
            ino,
            mode,
            nlink: 1,
            size: if is_regular { self.size } else { 0 },
            blksize: 4096,
            atime: self.time,
            mtime: self.time,
            ctime: self.time,
            ..Attr::default()
        };
        Meta { extras: InodeExtras::default(), attr }
    }

    /// Makes a directory.
    pub(crate) fn dir(&self, entries: Vec<Named>) -> Arc<Dir> {
        let mut meta = self.meta(FileType::Directory.mode_bits() | self.dir_mode);
        let is_dir = |(_, inode): &&Named| inode.file_type() == FileType::Directory;
        let n_dirs = entries.iter().filter(is_dir).count();
        meta.attr.nlink = u32::try_from(n_dirs).unwrap_or(0).saturating_add(2);
        Arc::new(Dir { meta, entries })
    }

    /// Makes a symbolic link with a fixed target.
    pub(crate) fn link(&self, name: &str, target: &str) -> Named {
        let mut meta = self.meta(FileType::Symlink.mode_bits() | 0o777);
        meta.attr.size = target.len() as u64;
        (name.into(), Arc::new(Link { meta, target: target.into() }))
    }

    /// Makes a file with the content that `text` gives.
    pub(crate) fn text(&self, name: &str, mode: u32, text: impl Text) -> Named {
        let meta = self.meta(FileType::Regular.mode_bits() | mode);
        (name.into(), Arc::new(TextNode { meta, text: Arc::new(text) }))
    }

    /// Makes a file whose content never changes.
    pub(crate) fn fixed(&self, name: &str, mode: u32, content: &str) -> Named {
        self.text(name, mode, Fixed(content.as_bytes().into()))
    }

    /// Makes a directory with a name.
    pub(crate) fn named_dir(&self, name: &str, entries: Vec<Named>) -> Named {
        (name.into(), self.dir(entries))
    }
}

/// An entry of a fixed directory.
pub(crate) type Named = (Box<str>, Arc<dyn Inode>);

/// The content of a generated file.
pub(crate) trait Text: Send + Sync + 'static {
    /// Returns the content.
    ///
    /// # Errors
    /// What reading the file fails with.
    fn show(&self, current: &CurrentTask) -> SysResult<Vec<u8>>;

    /// Takes what has been written.
    ///
    /// # Errors
    /// What writing the file fails with.
    fn store(&self, current: &CurrentTask, data: &[u8]) -> SysResult<()> {
        let _ = (current, data);
        Err(Errno::EIO)
    }

    /// Is asked before the file is opened; the permission bits have been checked.
    ///
    /// # Errors
    /// What opening the file fails with.
    fn check_open(&self, current: &CurrentTask, flags: u32) -> SysResult<()> {
        let _ = (current, flags);
        Ok(())
    }

    /// Implements `ioctl(2)`.
    ///
    /// # Errors
    /// `ENOTTY` and whatever the request says.
    fn ioctl(&self, current: &CurrentTask, request: u32, arg: u64) -> HandlerResult {
        let _ = (current, request, arg);
        Err(Errno::ENOTTY.into())
    }
}

impl<F: Fn(&CurrentTask) -> String + Send + Sync + 'static> Text for F {
    fn show(&self, current: &CurrentTask) -> SysResult<Vec<u8>> {
        Ok(self(current).into_bytes())
    }
}

/// A content that never changes.
pub(crate) struct Fixed(pub(crate) Box<[u8]>);

impl Text for Fixed {
    fn show(&self, _current: &CurrentTask) -> SysResult<Vec<u8>> {
        Ok(self.0.to_vec())
    }
}

/// Changes the attributes of a file that keeps some.
pub(crate) fn change_attr(attr: &Mutex<Attr>, change: &SetAttr) {
    let now = now();
    let time = |set| match set {
        SetTime::Now => now,
        SetTime::At(time) => time,
    };
    let mut attr = attr.lock();
    if let Some(mode) = change.mode {
        attr.mode = (attr.mode & !0o7777) | (mode & 0o7777);
    }
    attr.uid = change.uid.unwrap_or(attr.uid);
    attr.gid = change.gid.unwrap_or(attr.gid);
    attr.atime = change.atime.map_or(attr.atime, time);
    attr.mtime = change.mtime.map_or(attr.mtime, time);
    attr.ctime = now;
}

/// Generated inodes let their size be "changed" by `O_TRUNC`, and nothing else.
///
/// # Errors
/// `EPERM`.
pub(crate) fn set_attr(change: &SetAttr) -> SysResult<()> {
    let is_harmless = change.mode.is_none() && change.uid.is_none() && change.gid.is_none();
    if is_harmless { Ok(()) } else { Err(Errno::EPERM) }
}

/// A directory whose entries never change.
pub(crate) struct Dir {
    meta: Meta,
    entries: Vec<Named>,
}

impl Dir {
    /// Returns the entry called `name`.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&Arc<dyn Inode>> {
        let found = self.entries.iter().find(|(entry, _)| entry.as_bytes() == name);
        found.map(|(_, inode)| inode)
    }

    /// Returns the entries with their offsets.
    pub(crate) fn listing(&self) -> Vec<Listed> {
        let list = self.entries.iter().zip(FIRST_OFFSET..).map(|((name, inode), offset)| {
            let ino = inode.attr().map_or(0, |attr| attr.ino);
            let name = name.as_bytes().to_vec();
            (offset, ListEntry { name, ino, file_type: inode.file_type() })
        });
        list.collect()
    }

    /// Returns the attributes.
    pub(crate) fn own_attr(&self) -> Attr {
        self.meta.attr
    }
}

impl Inode for Dir {
    fn extras(&self) -> &InodeExtras {
        &self.meta.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> SysResult<Attr> {
        Ok(self.meta.attr)
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        set_attr(change)
    }

    fn lookup(&self, name: &[u8]) -> SysResult<Arc<dyn Inode>> {
        self.get(name).cloned().ok_or(Errno::ENOENT)
    }

    fn lookup_policy(&self) -> LookupPolicy {
        LookupPolicy::Never
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Ok(Arc::new(DirFile::new(self)))
    }

    fn list(&self) -> SysResult<Vec<ListEntry>> {
        Ok(self.listing().into_iter().map(|(_, entry)| entry).collect())
    }
}

impl DirSource for Dir {
    fn entries(&self, _current: &CurrentTask, _from: u64) -> SysResult<Vec<Listed>> {
        Ok(self.listing())
    }
}

/// An entry with its offset in the directory, from [`FIRST_OFFSET`] on.
pub(crate) type Listed = (u64, ListEntry);

/// A directory that can list its entries.
pub(crate) trait DirSource: Inode {
    /// Returns entries in ascending order of their offsets; those below `from` may be left out.
    ///
    /// # Errors
    /// `ENOENT` where what the directory stands for is gone.
    fn entries(&self, current: &CurrentTask, from: u64) -> SysResult<Vec<Listed>>;
}

/// An open directory.
pub(crate) struct DirFile<S>(Arc<S>);

impl<S: DirSource> DirFile<S> {
    pub(crate) fn new(source: Arc<S>) -> Self {
        Self(source)
    }
}

impl<S: DirSource> File for DirFile<S> {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.0.clone())
    }

    fn read(&self, _task: &CurrentTask, _dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        Err(Errno::EISDIR)
    }

    fn readdir(&self, task: &CurrentTask, offset: u64, sink: &mut dyn DirSink) -> SysResult<()> {
        let entries = self.0.entries(task, offset)?;
        let ino = self.0.attr().map_or(0, |attr| attr.ino);
        for (at, name) in [(0, b".".as_slice()), (1, b"..")] {
            let entry = DirEntry { name, ino, file_type: FileType::Directory, next_offset: at + 1 };
            if offset <= at && !sink.entry(&entry) {
                return Ok(());
            }
        }
        for (at, entry) in entries.iter().filter(|(at, _)| *at >= offset) {
            let entry = DirEntry {
                name: &entry.name,
                ino: entry.ino,
                file_type: entry.file_type,
                next_offset: at + 1,
            };
            if !sink.entry(&entry) {
                break;
            }
        }
        Ok(())
    }

    fn sync(&self, _data_only: bool) -> SysResult<()> {
        Err(Errno::EINVAL)
    }
}

/// A symbolic link with a fixed target.
struct Link {
    meta: Meta,
    target: Box<str>,
}

impl Inode for Link {
    fn extras(&self) -> &InodeExtras {
        &self.meta.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn attr(&self) -> SysResult<Attr> {
        Ok(self.meta.attr)
    }

    fn readlink(&self, _task: Option<&CurrentTask>) -> SysResult<Vec<u8>> {
        Ok(self.target.as_bytes().to_vec())
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Err(Errno::ELOOP)
    }
}

/// A file with generated content.
struct TextNode {
    meta: Meta,
    text: Arc<dyn Text>,
}

impl Inode for TextNode {
    fn extras(&self) -> &InodeExtras {
        &self.meta.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn attr(&self) -> SysResult<Attr> {
        Ok(self.meta.attr)
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        set_attr(change)
    }

    fn check_write_access(&self, task: &CurrentTask) -> SysResult<()> {
        self.text.check_open(task, OpenFlags::WRONLY.bits())
    }

    fn open(self: Arc<Self>, task: &CurrentTask, flags: u32) -> SysResult<Arc<dyn File>> {
        self.text.check_open(task, flags)?;
        let text = self.text.clone();
        Ok(Arc::new(TextFile::new(self, text)))
    }
}

/// An open file with generated content.
pub(crate) struct TextFile {
    node: Arc<dyn Inode>,
    text: Arc<dyn Text>,
    kept: Kept,
}

impl TextFile {
    pub(crate) fn new(node: Arc<dyn Inode>, text: Arc<dyn Text>) -> Self {
        Self { node, text, kept: Kept::default() }
    }
}

/// Takes what a write to a generated file has.
///
/// # Errors
/// `EINVAL` for more than a page; those of the source.
pub(crate) fn take_all(src: &mut dyn IoSource) -> SysResult<Vec<u8>> {
    if src.remaining() > MAX_WRITE {
        return Err(Errno::EINVAL);
    }
    let mut data = vec![0; src.remaining()];
    let n = src.get(&mut data)?;
    data.truncate(n);
    Ok(data)
}

impl File for TextFile {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.node.clone())
    }

    fn read(&self, task: &CurrentTask, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        self.kept.read(dst, offset, || self.text.show(task))
    }

    fn write(
        &self,
        task: &CurrentTask,
        src: &mut dyn IoSource,
        offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        let data = take_all(src)?;
        self.text.store(task, &data)?;
        let at = match offset {
            WriteOffset::At(at) => at,
            WriteOffset::Append => 0,
        };
        Ok((data.len(), at.saturating_add(data.len() as u64)))
    }

    fn ioctl(&self, task: &CurrentTask, _open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        self.text.ioctl(task, request, arg)
    }

    fn seek(&self, offset: i64, whence: i32) -> SysResult<u64> {
        // The size is not known before the content is made: as `seq_lseek()` of Linux.
        let _ = (offset, whence);
        Err(Errno::EINVAL)
    }

    fn sync(&self, _data_only: bool) -> SysResult<()> {
        Err(Errno::EINVAL)
    }
}
