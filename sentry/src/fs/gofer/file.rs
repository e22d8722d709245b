//! [`GoferFile`]: an open regular file, which is a host descriptor.

use std::cell::Cell;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sentry_host::file::{self as host, Seek};
use syscalls::abi::fs::OpenFlags;
use syscalls::{Errno, SysResult};

use super::inode::GoferInode;
use crate::task::CurrentTask;
use crate::vfs::{File, Inode, IoSink, IoSource, Mappable, WriteOffset, file};

/// How much is copied at a time.
const CHUNK: usize = 256 * 1024;

thread_local! {
    /// The buffer of this thread, between transfers.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer, with at least `length` bytes.
fn with_buffer<T>(length: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = BUFFER.take();
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    let result = work(&mut buffer);
    BUFFER.set(buffer);
    result
}

/// An open regular file.
pub(super) struct GoferFile {
    inode: Arc<GoferInode>,
    /// Read-only, or for reading and writing: the guest's access mode is the caller's to check.
    descriptor: Arc<OwnedFd>,
    /// Status flags, for `O_SYNC` and `O_DSYNC`.
    flags: AtomicU32,
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
        Ok(Self { inode, descriptor, flags: AtomicU32::new(flags) })
    }

    pub(super) fn read_to(&self, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        let mut done = 0;
        while dst.remaining() > 0 {
            let length = dst.remaining().min(CHUNK);
            let at = u64::try_from(done)
                .ok()
                .and_then(|done| offset.checked_add(done))
                .ok_or(Errno::EINVAL)?;
            let moved = with_buffer(length, |buffer| {
                let buffer = buffer.get_mut(..length).ok_or(Errno::EIO)?;
                let n_read = host::read_at(self.descriptor.as_fd(), buffer, at)?;
                let n_put = match buffer.get(..n_read) {
                    Some([]) | None => 0,
                    Some(data) => dst.put(data)?,
                };
                Ok((n_read, n_put))
            });
            match moved {
                Ok((n_read, n_put)) => {
                    done += n_put;
                    if n_put < length || n_read < length {
                        break;
                    }
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    pub(super) fn write_from(
        &self,
        src: &mut dyn IoSource,
        mut offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        let is_append = offset == WriteOffset::Append;
        let mut done = 0;
        let mut end = match offset {
            WriteOffset::At(offset) => offset,
            WriteOffset::Append => 0,
        };
        while src.remaining() > 0 {
            let length = src.remaining().min(CHUNK);
            let moved = with_buffer(length, |buffer| {
                let buffer = buffer.get_mut(..length).ok_or(Errno::EIO)?;
                let n_got = src.get(buffer)?;
                let data = buffer.get(..n_got).ok_or(Errno::EIO)?;
                let (n_written, end) = self.write_chunk(data, offset)?;
                Ok((n_written, end))
            });
            match moved {
                Ok((n_written, new_end)) => {
                    done += n_written;
                    end = new_end;
                    if !is_append {
                        offset = WriteOffset::At(end);
                    }
                    if n_written < length {
                        break;
                    }
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        self.sync_written()?;
        Ok((done, end))
    }

    fn write_chunk(&self, data: &[u8], offset: WriteOffset) -> SysResult<(usize, u64)> {
        let descriptor = self.descriptor.as_fd();
        let advanced = |offset: u64, n: usize| offset.saturating_add(u64::try_from(n).unwrap_or(0));
        match offset {
            WriteOffset::At(offset) => {
                let n = host::write_at(descriptor, data, offset)?;
                Ok((n, advanced(offset, n)))
            }
            WriteOffset::Append => {
                let _guard = self.inode.append.lock();
                let n = host::append(descriptor, data)?;
                let end = u64::try_from(host::stat(descriptor)?.st_size).unwrap_or(0);
                Ok((n, end))
            }
        }
    }

    /// Makes what was written durable, where the file was opened to have it so.
    fn sync_written(&self) -> SysResult<()> {
        let flags = OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed));
        // O_SYNC contains O_DSYNC.
        if flags.contains(OpenFlags::DSYNC) {
            host::sync(self.descriptor.as_fd(), !flags.contains(OpenFlags::SYNC))?;
        }
        Ok(())
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

    fn mappable(&self) -> SysResult<Arc<dyn Mappable>> {
        Ok(self.inode.clone())
    }

    fn sync(&self, data_only: bool) -> SysResult<()> {
        host::sync(self.descriptor.as_fd(), data_only)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> SysResult<()> {
        host::allocate(self.descriptor.as_fd(), mode, offset, len)
    }

    fn flags_changed(&self, flags: u32) {
        self.flags.store(flags, Ordering::Relaxed);
    }
}
