//! Open regular files and directories.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use sentry_platform::lent::FileSource;
use syscalls::abi::capability::CAP_LINUX_IMMUTABLE;
use syscalls::abi::fs::{FallocFlags, SEEK_DATA, SEEK_HOLE, SealFlags};
use syscalls::abi::ioctl::{FS_IOC_GETFLAGS, FS_IOC_SETFLAGS};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use super::node::Node;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::file::seek_in_size;
use crate::vfs::lent::Mark;
use crate::vfs::{
    Attr, Content, DirEntry, DirSink, File, FileFlags, Inode, IoSink, IoSource, MapMode, Mappable,
    Mapping, OpenFile, WriteOffset, permission,
};

/// After how many writes of what is there already a file is lent for more of them.
const MIN_OVERWRITES: u32 = 8;

/// An open regular file.
pub struct RegularFile {
    node: Arc<Node>,
    /// Keeps the lower layer's file open, where the content is there.
    _source: Option<Arc<OwnedFd>>,
    /// How many large reads have found no descriptor that processes may have.
    n_large_reads: AtomicU32,
    /// How many writes in a row have changed bytes that were there already.
    n_overwrites: AtomicU32,
}

impl RegularFile {
    /// Opens a node.
    ///
    /// # Errors
    /// Those of opening the lower layer's file.
    pub(crate) fn new(node: Arc<Node>) -> SysResult<Self> {
        let source = node.data()?.read().hold_source()?;
        Ok(Self {
            node,
            _source: source,
            n_large_reads: AtomicU32::new(0),
            n_overwrites: AtomicU32::new(0),
        })
    }

    /// Writes; also what an overlay's file does once its content is its own.
    pub(crate) fn write_at(
        &self,
        src: &mut dyn IoSource,
        offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        let mut data = self.node.data()?.write();
        // What processes write at the same time happens before, or after.
        self.node.lent.recall();
        let size = data.size();
        let result = data.write(&self.node.shared, src, offset);
        drop(data);
        if let Ok((1.., end)) = result {
            self.node.content_changed();
            let n_before = self.n_overwrites.load(Ordering::Relaxed);
            let n_overwrites = if end <= size { n_before.saturating_add(1) } else { 0 };
            self.n_overwrites.store(n_overwrites, Ordering::Relaxed);
        }
        result
    }

    /// Reads.
    pub(crate) fn read_at(&self, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        self.node.data()?.read().read(dst, offset)
    }
}

impl Content for RegularFile {
    fn read_at(&self, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        Self::read_at(self, dst, offset)
    }

    fn write_at(&self, src: &mut dyn IoSource, offset: u64) -> SysResult<usize> {
        Ok(Self::write_at(self, src, WriteOffset::At(offset))?.0)
    }

    fn next_data(&self, offset: u64) -> SysResult<u64> {
        let offset = i64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        self.node.data()?.read().seek(offset, false)
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
        let data = self.node.data().ok()?;
        let found = {
            let data = data.read();
            if data.has_window() {
                return None;
            }
            data.read_source()
        };
        if found.is_some() {
            return found;
        }
        // A descriptor or a window costs more than one read gains.
        let is_worth_it =
            data.read().is_on_host() && self.n_large_reads.fetch_add(1, Ordering::Relaxed) > 0;
        if !is_worth_it {
            return None;
        }
        let mut data = data.write();
        if data.open_window(&self.node.shared) {
            return None;
        }
        let source = data.map_read(&self.node.shared).ok()?;
        Some((source, data.size()))
    }

    fn lend_source(&self) -> Option<FileSource> {
        self.node.data().ok()?.write().lend_source(&self.node.shared).map(FileSource::Host)
    }

    fn lend_to_write(&self) -> Option<(Arc<OwnedFd>, u64)> {
        if self.n_overwrites.load(Ordering::Relaxed) < MIN_OVERWRITES || self.node.has_set_id() {
            return None;
        }
        self.node.data().ok()?.write().lend_to_write(&self.node.shared)
    }

    fn lend_mark(&self) -> Option<&Mark> {
        Some(&self.node.lent)
    }

    fn mappable(&self) -> SysResult<Arc<dyn Mappable>> {
        Ok(Arc::new(NodeMap { node: self.node.clone(), is_writing: AtomicBool::new(false) }))
    }

    fn sync(&self, _data_only: bool) -> SysResult<()> {
        Ok(())
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> SysResult<()> {
        let mode = FallocFlags::from_bits_retain(mode);
        let mut data = self.node.data()?.write();
        self.node.lent.recall();
        data.allocate(&self.node.shared, mode, offset, len)?;
        drop(data);
        self.node.content_changed();
        Ok(())
    }

    fn ioctl(&self, task: &CurrentTask, open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        flags_ioctl(task, &self.node, open, request, arg)
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

/// What `chattr(1)` does (`ioctl_iflags(2)`).
fn flags_ioctl(
    task: &CurrentTask,
    node: &Node,
    open: &OpenFile,
    request: u32,
    arg: u64,
) -> HandlerResult {
    let place = UserPtr::<u32>::new(UserAddr(arg));
    match request {
        FS_IOC_GETFLAGS => task.write_obj(place, &node.attr()?.flags.bits())?,
        FS_IOC_SETFLAGS => {
            let new = FileFlags::from_bits_retain(task.read_obj(place)?);
            open.path.as_ref().map_or(Ok(()), |path| path.mount.check_writable())?;
            let attr = node.attr()?;
            let creds = task.creds();
            if !permission::is_owner(&creds, &attr) {
                return Err(Errno::EPERM.into());
            }
            if new.has_unknown_bits() {
                return Err(Errno::EOPNOTSUPP.into());
            }
            let guarded = FileFlags::IMMUTABLE | FileFlags::APPEND;
            let is_guarded = (new ^ attr.flags).intersects(guarded);
            if is_guarded && !creds.has_capability(CAP_LINUX_IMMUTABLE) {
                return Err(Errno::EPERM.into());
            }
            node.set_flags(new);
        }
        _ => return Err(Errno::ENOTTY.into()),
    }
    Ok(0)
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
                // The content may have moved.
                self.node.lent.recall();
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

    fn ioctl(&self, task: &CurrentTask, open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        flags_ioctl(task, &self.node, open, request, arg)
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
