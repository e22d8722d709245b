//! Open regular files and directories.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use syscalls::abi::fs::{FallocFlags, SEEK_DATA, SEEK_HOLE, SealFlags};
use syscalls::{Errno, SysResult};

use super::node::Node;
use crate::task::CurrentTask;
use crate::vfs::file::seek_in_size;
use crate::vfs::{
    Attr, DirEntry, DirSink, File, Inode, IoSink, IoSource, MapMode, Mappable, Mapping, WriteOffset,
};

/// An open regular file.
pub struct RegularFile {
    node: Arc<Node>,
    /// Keeps the lower layer's file open, where the content is there.
    _source: Option<Arc<OwnedFd>>,
}

impl RegularFile {
    /// Opens a node.
    ///
    /// # Errors
    /// Those of opening the lower layer's file.
    pub(crate) fn new(node: Arc<Node>) -> SysResult<Self> {
        let source = node.data()?.read().hold_source()?;
        Ok(Self { node, _source: source })
    }

    /// Writes; also what an overlay's file does once its content is its own.
    pub(crate) fn write_at(
        &self,
        src: &mut dyn IoSource,
        offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        let result = self.node.data()?.write().write(&self.node.shared, src, offset);
        if matches!(result, Ok((1.., _))) {
            self.node.content_changed();
        }
        result
    }

    /// Reads.
    pub(crate) fn read_at(&self, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        self.node.data()?.read().read(dst, offset)
    }
}

impl File for RegularFile {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.node.clone())
    }

    fn attr(&self) -> SysResult<Attr> {
        self.node.attr()
    }

    fn read(&self, _task: &CurrentTask, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        self.read_at(dst, offset)
    }

    fn write(
        &self,
        _task: &CurrentTask,
        src: &mut dyn IoSource,
        offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        self.write_at(src, offset)
    }

    fn seek(&self, offset: i64, whence: i32) -> SysResult<u64> {
        let data = self.node.data()?.read();
        match u32::try_from(whence) {
            Ok(SEEK_DATA) => data.seek(offset, false),
            Ok(SEEK_HOLE) => data.seek(offset, true),
            _ => seek_in_size(data.size(), offset, whence),
        }
    }

    fn read_source(&self) -> Option<(Arc<OwnedFd>, u64)> {
        self.node.data().ok()?.read().read_source()
    }

    fn mappable(&self) -> SysResult<Arc<dyn Mappable>> {
        Ok(Arc::new(NodeMap { node: self.node.clone(), is_writing: AtomicBool::new(false) }))
    }

    fn sync(&self, _data_only: bool) -> SysResult<()> {
        Ok(())
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> SysResult<()> {
        let mode = FallocFlags::from_bits_retain(mode);
        self.node.data()?.write().allocate(&self.node.shared, mode, offset, len)?;
        self.node.content_changed();
        Ok(())
    }

    fn seals(&self) -> SysResult<u32> {
        Ok(self.node.data()?.read().seals.bits())
    }

    fn add_seals(&self, seals: u32) -> SysResult<()> {
        let seals = SealFlags::from_bits_retain(seals);
        let mut data = self.node.data()?.write();
        if data.seals.contains(SealFlags::SEAL) {
            return Err(Errno::EPERM);
        }
        if seals.contains(SealFlags::WRITE)
            && !data.seals.contains(SealFlags::WRITE)
            && data.n_writable_maps > 0
        {
            return Err(Errno::EBUSY);
        }
        data.seals |= seals;
        Ok(())
    }
}

/// One mapping of a node, or several that came from one.
struct NodeMap {
    node: Arc<Node>,
    is_writing: AtomicBool,
}

impl Mappable for NodeMap {
    fn map(&self, mode: MapMode, _offset: u64, _len: u64) -> SysResult<Mapping> {
        let mut data = self.node.data()?.write();
        let fd = match mode {
            MapMode::Private | MapMode::SharedRead => data.map_read(&self.node.shared)?,
            MapMode::SharedWrite => {
                let fd = data.map_write(&self.node.shared)?;
                if !self.is_writing.swap(true, Ordering::Relaxed) {
                    data.n_writable_maps = data.n_writable_maps.saturating_add(1);
                }
                fd
            }
        };
        Ok(Mapping { fd, delta: 0 })
    }

    fn identity(&self) -> (u64, u64) {
        (self.node.shared.dev, self.node.ino())
    }
}

impl Drop for NodeMap {
    fn drop(&mut self) {
        if self.is_writing.load(Ordering::Relaxed)
            && let Ok(data) = self.node.data()
        {
            let mut data = data.write();
            data.n_writable_maps = data.n_writable_maps.saturating_sub(1);
        }
    }
}

/// An open directory.
pub struct DirFile {
    node: Arc<Node>,
}

impl DirFile {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

impl File for DirFile {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.node.clone())
    }

    fn attr(&self) -> SysResult<Attr> {
        self.node.attr()
    }

    fn read(&self, _task: &CurrentTask, _dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        Err(Errno::EISDIR)
    }

    fn readdir(&self, _task: &CurrentTask, offset: u64, sink: &mut dyn DirSink) -> SysResult<()> {
        self.node.visit(offset, |name, ino, file_type, next_offset| {
            sink.entry(&DirEntry { name, ino, file_type, next_offset })
        })
    }

    fn seek(&self, offset: i64, whence: i32) -> SysResult<u64> {
        // There is no end to seek to; Linux gives what the last entry's offset would allow.
        match whence {
            2 => u64::try_from(i64::MAX.checked_add(offset).ok_or(Errno::EOVERFLOW)?)
                .map_err(|_| Errno::EINVAL),
            _ => Err(Errno::EINVAL),
        }
    }

    fn sync(&self, _data_only: bool) -> SysResult<()> {
        Ok(())
    }
}
