//! The content of a regular file.
//!
//! Small content is a vector in the sentry. It moves to a host file when it grows or is mapped.
//! The content of an overlay's file begins as a read-only host file of the lower layer and is
//! copied at the first change.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use sentry_host::file as host;
use sentry_host::window::Window;
use syscalls::abi::fs::{FallocFlags, SealFlags};
use syscalls::{Errno, SysResult};

use super::{PAGE, Shared, Store, StoreFile};
use crate::vfs::{Inode, IoSink, IoSource, WriteOffset, host_io};

/// The most bytes that are kept in the sentry.
const INLINE_MAX: u64 = 16 * 1024;

/// The largest file: Linux's `MAX_LFS_FILESIZE` for a page cache of 4 KiB pages.
const SIZE_MAX: u64 = i64::MAX as u64;

/// How much is copied at once when content moves.
const COPY_CHUNK: usize = 256 * 1024;

/// How much of the start of a memory file a window shows.
const WINDOW_LEN: usize = 64 << 20;

/// From which size on content is read through a window: less than this goes with its call's answer.
const WINDOW_READ_MIN: usize = (16 << 10) + 1;

/// From which size on content is written through a window: less than this comes with its call.
const WINDOW_WRITE_MIN: usize = 8193;

/// How many times content must have been written over before it gets a window.
const WINDOW_WRITES: u32 = 8;

enum Content {
    /// In the sentry; as long as the file.
    Inline(Vec<u8>),
    /// In a host file that is as long as this one.
    Host(StoreFile),
    /// In a file of the lower layer, of which the first `size` bytes count. It is opened when it is
    /// used: very many files may have changed attributes and no more.
    Source(Arc<dyn Inode>),
}

/// The content of a regular file.
pub(crate) struct Data {
    content: Content,
    size: u64,
    /// How many pages the file system counts for this file.
    charged: u64,
    /// `F_SEAL_*`
    pub(crate) seals: SealFlags,
    /// How many mappings may write.
    pub(crate) n_writable_maps: usize,
    /// Shows the content where that is a memory file which is used again and again.
    window: Option<Window>,
    /// How often bytes that were there have been written over, as long as there is no window.
    n_overwrites: u32,
    /// Whether processes may have the content mapped by themselves.
    may_be_mapped: bool,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            content: Content::Inline(Vec::new()),
            size: 0,
            charged: 0,
            // A file that was not made by `memfd_create(2)` cannot be sealed.
            seals: SealFlags::SEAL,
            n_writable_maps: 0,
            window: None,
            n_overwrites: 0,
            may_be_mapped: false,
        }
    }
}

impl Drop for Data {
    /// Frees what processes may hold a descriptor of for longer.
    fn drop(&mut self) {
        if let Content::Host(StoreFile { rw, ro }) = &self.content
            && (ro.is_some() || self.may_be_mapped)
        {
            let _ = host::truncate(rw.as_fd(), 0);
        }
    }
}

impl Data {
    /// Returns content that is read from a file of `size` bytes until it is first changed.
    pub(crate) fn from_source(source: Arc<dyn Inode>, size: u64) -> Self {
        let mut data = Self::default();
        data.content = Content::Source(source);
        data.size = size;
        data
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the number of 512-byte blocks in use; `None` where that is the lower layer's number.
    pub(crate) fn blocks(&self) -> Option<u64> {
        match &self.content {
            Content::Inline(data) => Some((data.len() as u64).div_ceil(PAGE) * (PAGE / 512)),
            Content::Host(file) => {
                let blocks = host::stat(file.rw.as_fd()).map_or(0, |stat| stat.st_blocks);
                u64::try_from(blocks).ok()
            }
            Content::Source(_) => None,
        }
    }

    /// Gives back what the file is charged for.
    pub(crate) fn uncharge(&mut self, shared: &Shared) {
        shared.recharge(&mut self.charged, 0);
    }

    fn update_charge(&mut self, shared: &Shared) {
        let pages = match &self.content {
            Content::Inline(data) => (data.len() as u64).div_ceil(PAGE),
            // Exact numbers cost a host call, and matter only where the file system may run full.
            Content::Host(_) if shared.is_limited() => {
                self.blocks().unwrap_or(0).div_ceil(PAGE / 512)
            }
            Content::Host(_) => self.size.div_ceil(PAGE),
            Content::Source(_) => 0,
        };
        shared.recharge(&mut self.charged, pages);
    }

    pub(crate) fn read(&self, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        let Some(left) = self.size.checked_sub(offset).filter(|left| *left > 0) else {
            return Ok(0);
        };
        match &self.content {
            Content::Inline(data) => {
                let start = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
                let rest = data.get(start..).unwrap_or_default();
                let n = rest.len().min(dst.remaining());
                dst.put(rest.get(..n).unwrap_or_default())
            }
            Content::Host(file) => match self.read_window(dst, offset, left) {
                Some(n) => Ok(n),
                None => host_io::read(file.rw.as_fd(), dst, offset, left),
            },
            Content::Source(file) => host_io::read(file.host_content()?.as_fd(), dst, offset, left),
        }
    }

    /// Writes; returns how many bytes and the offset behind them.
    pub(crate) fn write(
        &mut self,
        shared: &Shared,
        src: &mut dyn IoSource,
        offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        let offset = match offset {
            WriteOffset::At(offset) => offset,
            WriteOffset::Append => self.size,
        };
        let n = src.remaining() as u64;
        if n == 0 {
            return Ok((0, offset));
        }
        if self.seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        let mut max =
            SIZE_MAX.checked_sub(offset).filter(|max| *max > 0).ok_or(Errno::EFBIG)?.min(n);
        if self.seals.contains(SealFlags::GROW) {
            max =
                self.size.checked_sub(offset).filter(|max| *max > 0).ok_or(Errno::EPERM)?.min(max);
        }
        max = self.room(shared, offset, max)?;
        let end = offset + max;
        self.keep_hole(shared, offset)?;
        self.prepare(shared, end)?;
        if let Some(written) = self.write_window(shared, src, offset, max) {
            self.update_charge(shared);
            return Ok((written, offset + written as u64));
        }
        let written = match &mut self.content {
            Content::Inline(data) => write_inline(data, src, offset, max)?,
            Content::Host(file) => host_io::write(file.rw.as_fd(), src, offset, max)?,
            Content::Source(_) => return Err(Errno::EIO),
        };
        let end = offset + written as u64;
        self.size = self.size.max(end);
        self.update_charge(shared);
        Ok((written, end))
    }

    /// Reads through the window, where there is one and `dst` can take what it shows: one copy, where
    /// it is two through a buffer.
    fn read_window(&self, dst: &mut dyn IoSink, offset: u64, left: u64) -> Option<usize> {
        let window = self.window.as_ref()?;
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(dst.remaining());
        if n < WINDOW_READ_MIN {
            return None;
        }
        dst.put_part(&window.part(offset, n)?)
    }

    /// Writes over what is there through the window, where there is one or it is worth it. (A file
    /// grows faster by the host's writes, which need not make the new pages zero.)
    fn write_window(
        &mut self,
        shared: &Shared,
        src: &mut dyn IoSource,
        offset: u64,
        n: u64,
    ) -> Option<usize> {
        let n = usize::try_from(n).ok().filter(|n| *n >= WINDOW_WRITE_MIN)?;
        if offset.checked_add(n as u64)? > self.size {
            return None;
        }
        if self.window.is_none() {
            self.n_overwrites = self.n_overwrites.saturating_add(1);
            if self.n_overwrites < WINDOW_WRITES || !self.open_window(shared) {
                return None;
            }
        }
        src.get_part(&self.window.as_ref()?.part(offset, n)?)
    }

    /// Returns whether a window shows the whole content.
    pub(crate) fn has_window(&self) -> bool {
        self.window.is_some() && self.size <= WINDOW_LEN as u64
    }

    /// Opens a window on the whole content where that can be; returns whether there is one.
    pub(crate) fn open_window(&mut self, shared: &Shared) -> bool {
        if self.window.is_none()
            && self.size <= WINDOW_LEN as u64
            && shared.store.is_memory()
            && let Content::Host(file) = &self.content
        {
            self.window = Window::new(file.rw.as_fd(), WINDOW_LEN).ok();
        }
        self.has_window()
    }

    /// Returns how many of `n` bytes at `offset` the file system has room for.
    fn room(&self, shared: &Shared, offset: u64, n: u64) -> SysResult<u64> {
        if !shared.is_limited() {
            return Ok(n);
        }
        let free = shared.free_pages();
        let needed = (offset + n).div_ceil(PAGE) - offset / PAGE;
        if needed <= free {
            return Ok(n);
        }
        // Nearly full: pages that exist already cost nothing.
        let mut at = offset;
        let mut taken = 0;
        while at < offset + n {
            let page_end = (at / PAGE + 1) * PAGE;
            if !self.has_page(at / PAGE) {
                if taken == free {
                    break;
                }
                taken += 1;
            }
            at = page_end;
        }
        let n = at.min(offset + n) - offset;
        if n == 0 { Err(Errno::ENOSPC) } else { Ok(n) }
    }

    fn has_page(&self, page: u64) -> bool {
        let start = page * PAGE;
        match &self.content {
            Content::Inline(data) => start < data.len() as u64,
            Content::Host(file) => host::seek(file.rw.as_fd(), start, host::Seek::Data)
                .is_ok_and(|data| data < start + PAGE),
            Content::Source(_) => false,
        }
    }

    /// Puts the content into a host file, which knows of holes, where whole pages will be left out
    /// between the present end and `from`.
    fn keep_hole(&mut self, shared: &Shared, from: u64) -> SysResult<()> {
        let has_hole = from / PAGE > self.size.div_ceil(PAGE);
        if has_hole && matches!(self.content, Content::Inline(_)) {
            return self.prepare(shared, INLINE_MAX + 1);
        }
        Ok(())
    }

    /// Makes the content changeable, and able to hold `size` bytes.
    fn prepare(&mut self, shared: &Shared, size: u64) -> SysResult<()> {
        let size = size.max(self.size);
        match &self.content {
            Content::Host(_) => Ok(()),
            Content::Inline(_) if size <= INLINE_MAX => Ok(()),
            Content::Inline(data) => {
                let file = shared.store.create()?;
                write_all(&file, data, 0)?;
                self.content = Content::Host(file);
                Ok(())
            }
            Content::Source(source) => {
                let source = source.host_content()?;
                self.content = copy_source(shared.store.as_ref(), &source, self.size, size)?;
                Ok(())
            }
        }
    }

    pub(crate) fn truncate(&mut self, shared: &Shared, size: u64) -> SysResult<()> {
        if size > SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        let is_sealed = (size < self.size && self.seals.contains(SealFlags::SHRINK))
            || (size > self.size && self.seals.contains(SealFlags::GROW));
        if is_sealed {
            return Err(Errno::EPERM);
        }
        if let Content::Source(_) = &self.content
            && size < self.size
        {
            // What is cut off is not copied.
            self.size = size;
            if size == 0 {
                self.content = Content::Inline(Vec::new());
            }
        }
        self.keep_hole(shared, size)?;
        self.prepare(shared, size)?;
        match &mut self.content {
            Content::Inline(data) => data.resize(usize_of(size)?, 0),
            Content::Host(file) => host::truncate(file.rw.as_fd(), size)?,
            Content::Source(_) => return Err(Errno::EIO),
        }
        self.size = size;
        self.update_charge(shared);
        Ok(())
    }

    pub(crate) fn allocate(
        &mut self,
        shared: &Shared,
        mode: FallocFlags,
        offset: u64,
        len: u64,
    ) -> SysResult<()> {
        const PUNCH: FallocFlags = FallocFlags::PUNCH_HOLE.union(FallocFlags::KEEP_SIZE);
        let end = offset.checked_add(len).filter(|end| *end <= SIZE_MAX).ok_or(Errno::EFBIG)?;
        let is_punch = mode == PUNCH;
        let is_zero = mode.contains(FallocFlags::ZERO_RANGE)
            && !mode.intersects(!(FallocFlags::ZERO_RANGE | FallocFlags::KEEP_SIZE));
        if !is_punch && !is_zero && mode.intersects(!FallocFlags::KEEP_SIZE) {
            return Err(Errno::EOPNOTSUPP);
        }
        let keeps_size = mode.contains(FallocFlags::KEEP_SIZE);
        let is_erasing = is_punch || is_zero;
        if is_erasing && self.seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        if !keeps_size && end > self.size && self.seals.contains(SealFlags::GROW) {
            return Err(Errno::EPERM);
        }
        if is_erasing {
            self.erase(shared, offset, end)?;
        } else {
            self.update_charge(shared);
            let needed = end.div_ceil(PAGE) - offset / PAGE;
            let most = shared.free_pages().saturating_add(self.charged);
            let is_hopeless = shared.is_limited() && needed > most;
            if is_hopeless || self.room(shared, offset, len)? < len {
                return Err(Errno::ENOSPC);
            }
        }
        // Nothing is allocated on the host ahead of its use: the promise that a later write does
        // not run out of space is kept by the limit of the file system alone.
        if !keeps_size && end > self.size {
            self.truncate(shared, end)?;
        }
        self.update_charge(shared);
        Ok(())
    }

    /// Makes the bytes from `start` to `end` zero, as far as the file reaches.
    fn erase(&mut self, shared: &Shared, start: u64, end: u64) -> SysResult<()> {
        let end = end.min(self.size);
        if start >= end {
            return Ok(());
        }
        self.prepare(shared, self.size)?;
        match &mut self.content {
            Content::Inline(data) => {
                if let Some(range) = data.get_mut(usize_of(start)?..usize_of(end)?) {
                    range.fill(0);
                }
                Ok(())
            }
            Content::Host(file) => {
                let mode = FallocFlags::PUNCH_HOLE | FallocFlags::KEEP_SIZE;
                host::allocate(file.rw.as_fd(), mode.bits(), start, end - start)
            }
            Content::Source(_) => Err(Errno::EIO),
        }
    }

    /// Implements `SEEK_DATA` and `SEEK_HOLE`.
    pub(crate) fn seek(&self, offset: i64, is_hole: bool) -> SysResult<u64> {
        let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        if offset >= self.size {
            return Err(Errno::ENXIO);
        }
        let what = if is_hole { host::Seek::Hole } else { host::Seek::Data };
        match &self.content {
            Content::Inline(_) => Ok(if is_hole { self.size } else { offset }),
            Content::Host(file) => host::seek(file.rw.as_fd(), offset, what),
            Content::Source(file) => {
                let end = host::seek(file.host_content()?.as_fd(), offset, what)?;
                if end > self.size { Err(Errno::ENXIO) } else { Ok(end) }
            }
        }
    }

    /// Returns the descriptor of the lower layer's file, so that an open file can keep it.
    pub(crate) fn hold_source(&self) -> SysResult<Option<Arc<OwnedFd>>> {
        match &self.content {
            Content::Source(source) => source.host_content().map(Some),
            _ => Ok(None),
        }
    }

    /// Returns a read-only descriptor of the content and its size, where the content is in a host file
    /// and the descriptor known.
    pub(crate) fn read_source(&self) -> Option<(Arc<OwnedFd>, u64)> {
        let source = match &self.content {
            Content::Source(source) => source.host_content().ok()?,
            Content::Host(file) => file.ro.clone()?,
            Content::Inline(_) => return None,
        };
        Some((source, self.size))
    }

    /// Returns a read-only descriptor of a host file that has the content and ends where it does.
    pub(crate) fn lend_source(&mut self, shared: &Shared) -> Option<Arc<OwnedFd>> {
        match &self.content {
            Content::Inline(_) => None,
            Content::Host(_) => self.map_read(shared).ok(),
            Content::Source(source) => {
                let source = source.host_content().ok()?;
                let len = host::stat(source.as_fd()).ok()?.st_size;
                (u64::try_from(len) == Ok(self.size)).then_some(source)
            }
        }
    }

    /// Returns the host file of content that can be written over by those who may map it for writing, and how
    /// long it is.
    pub(crate) fn lend_to_write(&mut self, shared: &Shared) -> Option<(Arc<OwnedFd>, u64)> {
        // Only what can never be sealed: nobody would look for a seal.
        let is_sealable = self.seals != SealFlags::SEAL;
        if is_sealable || self.size == 0 || matches!(self.content, Content::Source(_)) {
            return None;
        }
        // Writing fills holes, which nobody would count.
        let blocks = self.size.div_ceil(PAGE) * (PAGE / 512);
        if shared.is_limited() && self.blocks().is_none_or(|used| used < blocks) {
            return None;
        }
        let file = self.host_file(shared).ok()?.rw.clone();
        self.may_be_mapped = true;
        Some((file, self.size))
    }

    /// Returns whether the content is in a host file of its own.
    pub(crate) fn is_on_host(&self) -> bool {
        matches!(self.content, Content::Host(_))
    }

    /// Returns the host file for a mapping that cannot write.
    pub(crate) fn map_read(&mut self, shared: &Shared) -> SysResult<Arc<OwnedFd>> {
        if let Content::Source(source) = &self.content {
            return source.host_content();
        }
        let file = self.host_file(shared)?;
        if let Some(ro) = &file.ro {
            return Ok(ro.clone());
        }
        let ro = Arc::new(shared.store.reopen(&file.rw)?);
        file.ro = Some(ro.clone());
        Ok(ro)
    }

    /// Returns the host file for a mapping that writes.
    pub(crate) fn map_write(&mut self, shared: &Shared) -> SysResult<Arc<OwnedFd>> {
        if self.seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        Ok(self.host_file(shared)?.rw.clone())
    }

    fn host_file(&mut self, shared: &Shared) -> SysResult<&mut StoreFile> {
        self.prepare(shared, INLINE_MAX + 1)?;
        match &mut self.content {
            Content::Host(file) => Ok(file),
            _ => Err(Errno::EIO),
        }
    }
}

fn usize_of(n: u64) -> SysResult<usize> {
    usize::try_from(n).map_err(|_| Errno::EFBIG)
}

/// Writes into a vector that is extended as needed; bytes that the source failed to give are not
/// kept.
fn write_inline(
    data: &mut Vec<u8>,
    src: &mut dyn IoSource,
    offset: u64,
    n: u64,
) -> SysResult<usize> {
    let (start, n) = (usize_of(offset)?, usize_of(n)?);
    let old_len = data.len();
    let end = start + n;
    if end > old_len {
        data.resize(end, 0);
    }
    let result = src.get(data.get_mut(start..end).unwrap_or_default());
    let kept = match result {
        Ok(got) => (start + got).max(old_len),
        Err(_) => old_len,
    };
    data.truncate(kept);
    result
}

fn write_all(file: &StoreFile, data: &[u8], offset: u64) -> SysResult<()> {
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        let n = host::write_at(file.rw.as_fd(), rest, offset + done as u64)?;
        if n == 0 {
            return Err(Errno::ENOSPC);
        }
        done += n;
    }
    Ok(())
}

/// Copies the first `len` bytes of a host file into content of our own that can hold `size` bytes
/// and is `len` bytes long.
fn copy_source(store: &dyn Store, source: &OwnedFd, len: u64, size: u64) -> SysResult<Content> {
    let is_inline = size <= INLINE_MAX;
    let mut buffer = vec![0; if is_inline { usize_of(len)? } else { COPY_CHUNK }];
    let file = if is_inline { None } else { Some(store.create()?) };
    let mut offset = 0;
    while offset < len {
        let want = usize_of((len - offset).min(COPY_CHUNK as u64))?;
        let start = if is_inline { usize_of(offset)? } else { 0 };
        let chunk = buffer.get_mut(start..start + want).unwrap_or_default();
        let got = host::read_at(source.as_fd(), chunk, offset)?;
        if got == 0 {
            break;
        }
        if let Some(file) = &file {
            let data = chunk.get(..got).unwrap_or_default();
            // Holes stay holes.
            if data.iter().any(|byte| *byte != 0) {
                write_all(file, data, offset)?;
            }
        }
        offset += got as u64;
    }
    match file {
        None => Ok(Content::Inline(buffer)),
        Some(file) => {
            host::truncate(file.rw.as_fd(), len)?;
            Ok(Content::Host(file))
        }
    }
}
