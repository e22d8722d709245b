//! Open files of an overlay.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use sentry_platform::lent::FileSource;
use syscalls::{Errno, SysResult};

use super::dir::{FIRST_LOWER, FIRST_UPPER, Name};
use super::node::OverlayNode;
use crate::fs::tmpfs::file::RegularFile;
use crate::task::CurrentTask;
use crate::vfs::lent::Mark;
use crate::vfs::{
    Attr, DirEntry, DirSink, File, FileType, Inode, IoSink, IoSource, ListEntry, MapMode, Mappable,
    Mapping, WriteOffset,
};

/// An open regular file: the upper node's, under the overlay's identity.
pub struct OverlayFile {
    node: Arc<OverlayNode>,
    inner: RegularFile,
}

impl OverlayFile {
    pub(super) fn new(node: Arc<OverlayNode>, inner: RegularFile) -> Self {
        Self { node, inner }
    }
}

impl File for OverlayFile {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.node.clone())
    }

    fn read(&self, _task: &CurrentTask, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        self.inner.read_at(dst, offset)
    }

    fn write(
        &self,
        _task: &CurrentTask,
        src: &mut dyn IoSource,
        offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        self.inner.write_at(src, offset)
    }

    fn seek(&self, offset: i64, whence: i32) -> SysResult<u64> {
        self.inner.seek(offset, whence)
    }

    fn read_source(&self) -> Option<(Arc<OwnedFd>, u64)> {
        self.inner.read_source()
    }

    fn lend_source(&self) -> Option<FileSource> {
        self.inner.lend_source()
    }

    fn lend_to_write(&self) -> Option<(Arc<OwnedFd>, u64)> {
        self.inner.lend_to_write()
    }

    fn lend_mark(&self) -> Option<&Mark> {
        self.inner.lend_mark()
    }

    fn mappable(&self) -> SysResult<Arc<dyn Mappable>> {
        Ok(Arc::new(OverlayMap { node: self.node.clone(), inner: self.inner.mappable()? }))
    }

    fn sync(&self, data_only: bool) -> SysResult<()> {
        self.inner.sync(data_only)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> SysResult<()> {
        self.inner.allocate(mode, offset, len)
    }
}

/// A mapped regular file.
struct OverlayMap {
    node: Arc<OverlayNode>,
    inner: Arc<dyn Mappable>,
}

impl Mappable for OverlayMap {
    fn map(&self, mode: MapMode, offset: u64, len: u64) -> SysResult<Mapping> {
        self.inner.map(mode, offset, len)
    }

    fn identity(&self) -> (u64, u64) {
        (self.node.shared.upper.dev(), self.node.ino())
    }
}

/// An open directory.
pub struct OverlayDir {
    node: Arc<OverlayNode>,
    /// What the lower layer lists, read once: it does not change.
    lower: OnceLock<Vec<ListEntry>>,
}

impl OverlayDir {
    pub(super) fn new(node: Arc<OverlayNode>) -> Self {
        Self { node, lower: OnceLock::new() }
    }

    fn lower(&self) -> SysResult<&[ListEntry]> {
        if let Some(list) = self.lower.get() {
            return Ok(list);
        }
        let list = match &self.node.lower {
            Some(lower) => lower.list()?,
            None => Vec::new(),
        };
        Ok(self.lower.get_or_init(|| list))
    }

    /// Lists entries from `offset` on: those of the lower layer where it lists them, then those
    /// that only the upper layer has.
    pub(crate) fn visit(
        &self,
        offset: u64,
        mut visit: impl FnMut(&[u8], u64, FileType, u64) -> bool,
    ) -> SysResult<()> {
        let lower = self.lower()?;
        // Nodes that end while they are looked at take the lock on the names: after it is free.
        let mut held = Vec::new();
        let names = self.node.names()?.read();
        let own_ino = self.node.ino();
        let parent_ino = names.parent.upgrade().map_or(own_ino, |parent| parent.ino());
        if offset == 0 && !visit(b".", own_ino, FileType::Directory, 1) {
            return Ok(());
        }
        if offset <= 1 && !visit(b"..", parent_ino, FileType::Directory, FIRST_LOWER) {
            return Ok(());
        }
        let is_plain = names.are_only_upper();
        let first = offset.max(FIRST_LOWER);
        // Not by skipping: a large directory is read in many pieces.
        let skip = usize::try_from(first - FIRST_LOWER).unwrap_or(usize::MAX);
        let rest = lower.get(skip..).unwrap_or_default();
        for (entry, at) in rest.iter().zip(first..FIRST_UPPER - 1) {
            let known = if is_plain { None } else { names.get(&entry.name) };
            let (ino, file_type) = match known {
                Some(Name::Whiteout) => continue,
                Some(Name::Pinned { node, .. }) => (node.ino(), node.kind()),
                Some(Name::Lower(node)) => match node.upgrade() {
                    Some(node) => {
                        let answer = (node.ino(), node.kind());
                        held.push(node);
                        answer
                    }
                    None => (entry.ino, entry.file_type),
                },
                None => (entry.ino, entry.file_type),
            };
            if !visit(&entry.name, ino, file_type, at + 1) {
                return Ok(());
            }
        }
        for (at, listed) in names.upper_only(offset) {
            if !visit(&listed.name, listed.ino, listed.file_type, at + 1) {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl File for OverlayDir {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.node.clone())
    }

    fn attr(&self) -> SysResult<Attr> {
        self.node.do_attr()
    }

    fn read(&self, _task: &CurrentTask, _dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        Err(Errno::EISDIR)
    }

    fn readdir(&self, _task: &CurrentTask, offset: u64, sink: &mut dyn DirSink) -> SysResult<()> {
        self.visit(offset, |name, ino, file_type, next_offset| {
            sink.entry(&DirEntry { name, ino, file_type, next_offset })
        })
    }

    fn sync(&self, _data_only: bool) -> SysResult<()> {
        Ok(())
    }
}
