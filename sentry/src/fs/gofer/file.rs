//! [`GoferFile`]: an open regular file, which is a host descriptor.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use gofer_wire::Request;
use sentry_host::file::{self as host, Seek};
use sentry_platform::lent::FileSource;
use syscalls::abi::fs::OpenFlags;
use syscalls::{Errno, SysResult};

use super::inode::GoferInode;
use super::watch::{CONTENT, Own};
use crate::task::CurrentTask;
use crate::vfs::{Content, File, Inode, IoSink, IoSource, Mappable, WriteOffset, file, host_io};

/// An open regular file.
pub(super) struct GoferFile {
    inode: Arc<GoferInode>,
    /// Read-only, or for reading and writing: the guest's access mode is the caller's to check.
    descriptor: Arc<OwnedFd>,
    /// A read-only one beside the other, made when it is first needed.
    read_only: OnceLock<Arc<OwnedFd>>,
    /// One only for writing, made with the second large write.
    write_only: OnceLock<Arc<OwnedFd>>,
    has_large_writes: AtomicBool,
    /// Begun when the file goes, and ended when the descriptor has gone.
    closing: Option<Own>,
    /// The flags of `open(2)`, for `O_SYNC` and `O_DSYNC`, which `F_SETFL` does not change.
    flags: OpenFlags,
}

impl GoferFile {
    /// Opens a regular file.
    ///
    /// # Errors
    /// Those of the gofer's open: `EROFS`, `ETXTBSY`, `ENOMEM`, `EMFILE`.
    pub(super) fn open(inode: Arc<GoferInode>, flags: u32) -> SysResult<Self> {
        let descriptor = if flags & OpenFlags::ACCMODE == 0 {
            inode.read_descriptor()?
        } else {
            inode.write_descriptor()?
        };
        let flags = OpenFlags::from_bits_retain(flags);
        Ok(Self {
            inode,
            descriptor,
            read_only: OnceLock::new(),
            write_only: OnceLock::new(),
            has_large_writes: AtomicBool::new(false),
            closing: None,
            flags,
        })
    }

    pub(super) fn read_to(&self, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        host_io::read(self.descriptor.as_fd(), dst, offset, u64::MAX)
    }

    pub(super) fn write_from(
        &self,
        src: &mut dyn IoSource,
        offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        let _own = self.inode.own_file(CONTENT);
        let descriptor = self.descriptor.as_fd();
        let result = match offset {
            WriteOffset::At(offset) => {
                let n = host_io::write(descriptor, src, offset, u64::MAX)?;
                (n, offset.saturating_add(u64::try_from(n).unwrap_or(0)))
            }
            WriteOffset::Append => {
                let _guard = self.inode.append.lock();
                let n = host_io::append(descriptor, src, u64::MAX)?;
                (n, u64::try_from(host::stat(descriptor)?.st_size).unwrap_or(0))
            }
        };
        self.sync_written()?;
        Ok(result)
    }

    fn read_only_descriptor(&self) -> Option<Arc<OwnedFd>> {
        let is_read_only = self.flags.bits() & OpenFlags::ACCMODE == 0;
        Some(match self.read_only.get() {
            _ if is_read_only => self.descriptor.clone(),
            Some(source) => source.clone(),
            None => {
                let source = self.inode.read_descriptor().ok()?;
                self.read_only.get_or_init(|| source).clone()
            }
        })
    }

    /// Makes what was written durable, where the file was opened to have it so.
    fn sync_written(&self) -> SysResult<()> {
        // O_SYNC contains O_DSYNC.
        if self.flags.contains(OpenFlags::DSYNC) {
            host::sync(self.descriptor.as_fd(), !self.flags.contains(OpenFlags::SYNC))?;
        }
        Ok(())
    }
}

impl Drop for GoferFile {
    fn drop(&mut self) {
        if self.flags.bits() & OpenFlags::ACCMODE != 0 {
            self.closing = self.inode.store().own_close(&self.inode, &self.descriptor);
        }
    }
}

impl Content for GoferFile {
    fn read_at(&self, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        self.read_to(dst, offset)
    }

    fn write_at(&self, src: &mut dyn IoSource, offset: u64) -> SysResult<usize> {
        Ok(self.write_from(src, WriteOffset::At(offset))?.0)
    }

    fn next_data(&self, offset: u64) -> SysResult<u64> {
        host::seek(self.descriptor.as_fd(), offset, Seek::Data)
    }
}

impl File for GoferFile {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.inode.clone())
    }

    fn read(&self, _task: &CurrentTask, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        self.read_to(dst, offset)
    }

    fn write(
        &self,
        _task: &CurrentTask,
        src: &mut dyn IoSource,
        offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        self.write_from(src, offset)
    }

    fn seek(&self, offset: i64, whence: i32) -> SysResult<u64> {
        const SEEK_DATA: i32 = 3;
        const SEEK_HOLE: i32 = 4;
        let what = match whence {
            SEEK_DATA => Seek::Data,
            SEEK_HOLE => Seek::Hole,
            _ => return file::seek_in_size(self.attr()?.size, offset, whence),
        };
        let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        host::seek(self.descriptor.as_fd(), offset, what)
    }

    fn write_target(&self) -> Option<Arc<OwnedFd>> {
        let is_watched = self.inode.store().watching.is_on();
        if self.flags.contains(OpenFlags::DSYNC) || is_watched {
            return None;
        }
        if let Some(target) = self.write_only.get() {
            return Some(target.clone());
        }
        // It takes an exchange with the gofer, which one write is not worth.
        if !self.has_large_writes.swap(true, Ordering::Relaxed) {
            return None;
        }
        let flags = gofer_wire::OpenFlags::WRITE;
        let request = Request::Open { fid: self.inode.fid(), flags };
        let target = self.inode.store().connection.call_descriptor(&request).ok()?;
        let target = Arc::new(target);
        Some(self.write_only.get_or_init(|| target).clone())
    }

    fn read_source(&self) -> Option<(Arc<OwnedFd>, u64)> {
        Some((self.read_only_descriptor()?, self.attr().ok()?.size))
    }

    fn lend_source(&self) -> Option<FileSource> {
        self.read_only_descriptor().map(FileSource::Host)
    }

    fn mappable(&self) -> SysResult<Arc<dyn Mappable>> {
        Ok(self.inode.clone())
    }

    fn sync(&self, data_only: bool) -> SysResult<()> {
        host::sync(self.descriptor.as_fd(), data_only)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> SysResult<()> {
        let _own = self.inode.own_file(CONTENT);
        host::allocate(self.descriptor.as_fd(), mode, offset, len)
    }
}
