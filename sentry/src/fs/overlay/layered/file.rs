//! Open files: those of a layer, under the identity of what is seen.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use syscalls::abi::ioctl::FS_IOC_SETFLAGS;
use syscalls::{Errno, SysResult};

use super::node::LayeredNode;
use crate::sync::Mutex;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::{
    Attr, Content, DirEntry, DirSink, File, FileType, Inode, IoSink, IoSource, ListEntry, MapMode,
    Mappable, Mapping, OpenFile, WriteOffset, file, permission,
};

/// An open regular file.
pub struct LayeredFile {
    node: Arc<LayeredNode>,
    flags: u32,
    inner: Mutex<Inner>,
}

struct Inner {
    file: Arc<dyn File>,
    is_lower: bool,
}

impl LayeredFile {
    /// Opens a node; one to be written to has been copied.
    ///
    /// # Errors
    /// Those of the layer's open.
    pub(super) fn open(
        node: Arc<LayeredNode>,
        task: &CurrentTask,
        flags: u32,
    ) -> SysResult<Arc<Self>> {
        let is_lower = node.upper_if_any().is_none();
        let file = node.shown()?.inode().clone().open(task, flags)?;
        Ok(Arc::new(Self { node, flags, inner: Mutex::new(Inner { file, is_lower }) }))
    }

    /// Returns the layer's file as it was last used.
    fn last(&self) -> Arc<dyn File> {
        self.inner.lock().file.clone()
    }

    /// Returns the layer's file: the upper one as soon as there is one.
    fn present(&self, task: &CurrentTask) -> SysResult<Arc<dyn File>> {
        let mut inner = self.inner.lock();
        if inner.is_lower
            && let Some(upper) = self.node.upper_if_any()
        {
            inner.file = upper.inode().clone().open(task, self.flags)?;
            inner.is_lower = false;
        }
        Ok(inner.file.clone())
    }
}

impl File for LayeredFile {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.node.clone())
    }

    fn read(&self, task: &CurrentTask, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        self.present(task)?.read(task, dst, offset)
    }

    fn write(
        &self,
        task: &CurrentTask,
        src: &mut dyn IoSource,
        offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        self.present(task)?.write(task, src, offset)
    }

    fn seek(&self, offset: i64, whence: i32) -> SysResult<u64> {
        let inner = self.inner.lock();
        if inner.is_lower && self.node.upper_if_any().is_some() {
            return file::seek_in_size(self.node.do_attr()?.size, offset, whence);
        }
        inner.file.seek(offset, whence)
    }

    fn read_source(&self) -> Option<(Arc<OwnedFd>, u64)> {
        let inner = self.inner.lock();
        if inner.is_lower && self.node.upper_if_any().is_some() {
            return None;
        }
        inner.file.read_source()
    }

    fn mappable(&self) -> SysResult<Arc<dyn Mappable>> {
        Ok(Arc::new(LayeredMap { node: self.node.clone(), inner: self.last().mappable()? }))
    }

    fn sync(&self, data_only: bool) -> SysResult<()> {
        self.last().sync(data_only)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> SysResult<()> {
        self.last().allocate(mode, offset, len)
    }

    fn ioctl(&self, task: &CurrentTask, open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        if request == FS_IOC_SETFLAGS {
            open.path.as_ref().map_or(Ok(()), |path| path.mount.check_writable())?;
            if !permission::is_owner(&task.creds(), &self.node.do_attr()?) {
                return Err(Errno::EPERM.into());
            }
            self.node.copy_up(true)?;
        }
        self.present(task)?.ioctl(task, open, request, arg)
    }
}

/// A mapped regular file.
struct LayeredMap {
    node: Arc<LayeredNode>,
    inner: Arc<dyn Mappable>,
}

impl Mappable for LayeredMap {
    fn map(&self, mode: MapMode, offset: u64, len: u64) -> SysResult<Mapping> {
        self.inner.map(mode, offset, len)
    }

    fn identity(&self) -> (u64, u64) {
        (self.node.dev(), self.node.ino())
    }
}

/// The content of a regular file for another overlay.
pub(super) fn content(node: &LayeredNode, is_writing: bool) -> SysResult<Arc<dyn Content>> {
    let file = if is_writing { node.copy_up(true)? } else { node.shown()? };
    file.inode().clone().content(is_writing)
}

/// An open directory. What it lists is looked at when it is read from the beginning.
pub struct LayeredDir {
    node: Arc<LayeredNode>,
    entries: Mutex<Option<Arc<[ListEntry]>>>,
}

impl LayeredDir {
    pub(super) fn new(node: Arc<LayeredNode>) -> Self {
        Self { node, entries: Mutex::new(None) }
    }

    fn entries(&self, is_beginning: bool) -> SysResult<Arc<[ListEntry]>> {
        let mut entries = self.entries.lock();
        match &*entries {
            Some(known) if !is_beginning => Ok(known.clone()),
            _ => {
                let new: Arc<[ListEntry]> = self.node.entries()?.into();
                *entries = Some(new.clone());
                Ok(new)
            }
        }
    }
}

impl File for LayeredDir {
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
        let entries = self.entries(offset == 0)?;
        let own = self.node.ino();
        let parent = self.node.place().map_or(own, |(parent, _)| parent.ino());
        let dot = |name: &'static [u8], ino| (name, ino, FileType::Directory);
        let rest = entries.iter().map(|entry| (&*entry.name, entry.ino, entry.file_type));
        let all = [dot(b".", own), dot(b"..", parent)].into_iter().chain(rest);
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for ((name, ino, file_type), next_offset) in all.zip(1..).skip(skip) {
            if !sink.entry(&DirEntry { name, ino, file_type, next_offset }) {
                break;
            }
        }
        Ok(())
    }

    fn sync(&self, _data_only: bool) -> SysResult<()> {
        Ok(())
    }
}
