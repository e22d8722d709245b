//! Copying between guest memory and ours: every access is bounded, can fail with `EFAULT`, and
//! copies once.

use std::borrow::Cow;

use sentry_host::window::Part;
use sentry_platform::USER_ADDRESS_LIMIT;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::task::CurrentTask;
use crate::vfs::io::{IoSink, IoSource};

/// The most that one read or write transfers: Linux's `MAX_RW_COUNT`.
pub const MAX_RW_COUNT: usize = 0x7fff_f000;

/// The most segments of an I/O vector: `UIO_MAXIOV`.
pub const UIO_MAXIOV: usize = 1024;

const PAGE: u64 = 4096;

/// More than contexts have room for between a host call and their application.
const FILL_MAX: usize = 64 << 10;

impl CurrentTask {
    /// Fills `dst` from guest memory.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read_bytes(&self, addr: UserAddr, dst: &mut [u8]) -> SysResult<()> {
        if dst.is_empty() {
            return Ok(());
        }
        if self.read_all(addr, dst)? == dst.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies `src` to guest memory.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write_bytes(&self, addr: UserAddr, src: &[u8]) -> SysResult<()> {
        if src.is_empty() {
            return Ok(());
        }
        if self.write_some(addr, src)? == src.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Reads what can be read from the start of `dst.len()` bytes at `addr`.
    ///
    /// # Errors
    /// `EFAULT` where nothing can.
    fn read_all(&self, addr: UserAddr, dst: &mut [u8]) -> SysResult<usize> {
        let mut done = self.read_some(addr, dst)?;
        while let Some(rest) = dst.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let next = addr.checked_add(done as u64).ok_or(Errno::EFAULT)?;
            match self.read_some(next, rest) {
                Ok(0) | Err(_) => break,
                Ok(more) => done += more,
            }
        }
        Ok(done)
    }

    /// Reads at least one byte: the platform may know a part of the range already, such as a
    /// string that came with the call, and gives only that.
    ///
    /// # Errors
    /// `EFAULT` where nothing can be read.
    fn read_some(&self, addr: UserAddr, dst: &mut [u8]) -> SysResult<usize> {
        let room = USER_ADDRESS_LIMIT.saturating_sub(addr.0);
        let n = usize::try_from(room).unwrap_or(usize::MAX).min(dst.len());
        match dst.get_mut(..n) {
            Some(dst) if n > 0 => self.context().read(addr, dst),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Writes what can be written of `src` at `addr`. The areas say what that is: the platform
    /// may store the bytes only when the application goes on, and then nothing may fail. Where they
    /// do not know, the bytes are stored at once.
    ///
    /// # Errors
    /// `EFAULT` where nothing can.
    fn write_some(&self, addr: UserAddr, src: &[u8]) -> SysResult<usize> {
        let room = self.mm().writable_prefix(addr.0, src.len() as u64);
        let n = usize::try_from(room.len).unwrap_or(usize::MAX).min(src.len());
        match src.get(..n) {
            Some(src) if n > 0 && room.may_fault => self.context().write_now(addr, src),
            Some(src) if n > 0 => self.context().write(addr, src),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Reads a structure.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read_obj<T: FromBytes + IntoBytes>(&self, ptr: UserPtr<T>) -> SysResult<T> {
        let mut value = T::new_zeroed();
        self.read_bytes(ptr.addr(), value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes a structure.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write_obj<T: IntoBytes + Immutable>(&self, ptr: UserPtr<T>, value: &T) -> SysResult<()> {
        self.write_bytes(ptr.addr(), value.as_bytes())
    }

    /// Reads `n` structures; the caller has bounded `n`.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read_array<T: FromBytes + IntoBytes + Clone>(
        &self,
        ptr: UserPtr<T>,
        n: usize,
    ) -> SysResult<Vec<T>> {
        let mut values = vec![T::new_zeroed(); n];
        if size_of::<T>() == 0 {
            return Ok(values);
        }
        let mut bytes = vec![0; n.checked_mul(size_of::<T>()).ok_or(Errno::EFAULT)?];
        self.read_bytes(ptr.addr(), &mut bytes)?;
        for (value, chunk) in values.iter_mut().zip(bytes.chunks_exact(size_of::<T>())) {
            value.as_mut_bytes().copy_from_slice(chunk);
        }
        Ok(values)
    }

    /// Reads a NUL-terminated string of at most `max` bytes, the terminator included.
    ///
    /// # Errors
    /// `EFAULT`; `ENAMETOOLONG` where no terminator is found in `max` bytes.
    pub fn read_cstr(&self, addr: UserAddr, max: usize) -> SysResult<Vec<u8>> {
        let mut text = Vec::new();
        let mut at = addr.0;
        while text.len() < max {
            let to_page_end = usize::try_from(PAGE - at % PAGE).unwrap_or(1);
            let n = to_page_end.min(max - text.len()).min(256);
            let start = text.len();
            text.resize(start + n, 0);
            let Some(chunk) = text.get_mut(start..) else { break };
            let got = self.read_some(UserAddr(at), chunk)?;
            let chunk = chunk.get(..got).unwrap_or_default();
            if let Some(end) = chunk.iter().position(|byte| *byte == 0) {
                text.truncate(start + end);
                return Ok(text);
            }
            // No end so far: the next read says whether there is more.
            text.truncate(start + got);
            if got == 0 {
                return Err(Errno::EFAULT);
            }
            at = at.checked_add(got as u64).ok_or(Errno::EFAULT)?;
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Reads a path: at most `PATH_MAX` bytes with the terminator.
    ///
    /// # Errors
    /// `EFAULT`, `ENAMETOOLONG`.
    pub fn read_path(&self, addr: UserAddr) -> SysResult<Vec<u8>> {
        self.read_cstr(addr, 4096)
    }

    /// Reads an I/O vector: pairs of address and length, of which the sum is cut at
    /// [`MAX_RW_COUNT`].
    ///
    /// # Errors
    /// `EINVAL` for more than [`UIO_MAXIOV`] segments or a negative length; `EFAULT`.
    pub fn read_iovec(&self, addr: UserAddr, count: u64) -> SysResult<Vec<(UserAddr, usize)>> {
        let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
        if count > UIO_MAXIOV {
            return Err(Errno::EINVAL);
        }
        let raw = self.read_array::<[u64; 2]>(UserPtr::new(addr), count)?;
        let mut left = MAX_RW_COUNT;
        let mut segments = Vec::with_capacity(count);
        for [base, len] in raw {
            let len = i64::try_from(len).map_err(|_| Errno::EINVAL)?;
            let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?.min(left);
            left -= len;
            segments.push((UserAddr(base), len));
        }
        Ok(segments)
    }
}

/// A sink or source over segments of guest memory.
pub struct UserBuf<'a> {
    task: &'a CurrentTask,
    segments: Cow<'a, [(UserAddr, usize)]>,
    current: usize,
    offset: usize,
    remaining: usize,
}

impl<'a> UserBuf<'a> {
    /// Creates a buffer over one range, whose length is cut at [`MAX_RW_COUNT`].
    pub fn new(task: &'a CurrentTask, addr: UserAddr, len: usize) -> Self {
        Self::from_segments(task, vec![(addr, len.min(MAX_RW_COUNT))])
    }

    /// Creates a buffer over the segments of an I/O vector.
    pub fn from_segments(
        task: &'a CurrentTask,
        segments: impl Into<Cow<'a, [(UserAddr, usize)]>>,
    ) -> Self {
        let segments = segments.into();
        let remaining = segments.iter().map(|(_, len)| len).sum();
        Self { task, segments, current: 0, offset: 0, remaining }
    }

    /// Skips `n` bytes that an earlier run of the same call has transferred.
    pub fn advance(&mut self, mut n: usize) {
        while n > 0 {
            let Some((_, len)) = self.segments.get(self.current) else { return };
            let step = n.min(len - self.offset);
            self.offset += step;
            self.remaining -= step;
            n -= step;
            if self.offset == *len {
                self.current += 1;
                self.offset = 0;
            }
        }
    }

    /// Returns address and length of the next contiguous piece, at most `max` bytes.
    fn piece(&mut self, max: usize) -> Option<(UserAddr, usize)> {
        loop {
            let (addr, len) = *self.segments.get(self.current)?;
            if self.offset < len {
                let n = max.min(len - self.offset);
                let addr = addr.0.wrapping_add(self.offset as u64);
                return Some((UserAddr(addr), n));
            }
            self.current += 1;
            self.offset = 0;
        }
    }

    fn transfer(
        &mut self,
        total: usize,
        mut copy: impl FnMut(&CurrentTask, UserAddr, usize, usize) -> SysResult<usize>,
    ) -> SysResult<usize> {
        let mut done = 0;
        while done < total {
            let Some((addr, n)) = self.piece(total - done) else { break };
            match copy(self.task, addr, done, n) {
                Ok(got) => {
                    self.advance(got);
                    done += got;
                    if got < n {
                        break;
                    }
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}

impl IoSink for UserBuf<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn put(&mut self, data: &[u8]) -> SysResult<usize> {
        let total = data.len().min(self.remaining);
        self.transfer(total, |task, addr, done, n| {
            let piece = data.get(done..done + n).ok_or(Errno::EFAULT)?;
            task.write_some(addr, piece)
        })
    }

    fn put_part(&mut self, src: &Part<'_>) -> Option<usize> {
        let task = self.task;
        let space = task.context().address_space();
        task.context().sync_memory();
        let total = src.len().min(self.remaining);
        let result = self.transfer(total, |task, addr, done, n| {
            let room = task.mm().writable_prefix(addr.0, n as u64);
            let n = usize::try_from(room.len).unwrap_or(usize::MAX).min(n);
            if n > 0 { space.write_from(addr, &src.cut(done, n)) } else { Err(Errno::EFAULT) }
        });
        result.ok().filter(|n| *n > 0)
    }

    fn fill(
        &mut self,
        len: usize,
        fill: &mut dyn FnMut(&Part<'_>) -> SysResult<usize>,
    ) -> Option<SysResult<usize>> {
        let (addr, n) = self.piece(len)?;
        // The rest would need a place of its own.
        if n != len.min(self.remaining) || n > FILL_MAX {
            return None;
        }
        let room = self.task.mm().writable_prefix(addr.0, n as u64);
        if room.may_fault || room.len < n as u64 {
            return None;
        }
        let result = self.task.context().fill(addr, n, fill)?;
        self.advance(result.unwrap_or(0).min(n));
        Some(result)
    }
}

impl IoSource for UserBuf<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn get(&mut self, dst: &mut [u8]) -> SysResult<usize> {
        let total = dst.len().min(self.remaining);
        self.transfer(total, |task, addr, done, n| {
            let piece = dst.get_mut(done..done + n).ok_or(Errno::EFAULT)?;
            task.read_all(addr, piece)
        })
    }

    fn get_part(&mut self, dst: &Part<'_>) -> Option<usize> {
        let task = self.task;
        let space = task.context().address_space();
        task.context().sync_memory();
        let total = dst.len().min(self.remaining);
        let result =
            self.transfer(total, |_, addr, done, n| space.read_to(addr, &dst.cut(done, n)));
        result.ok().filter(|n| *n > 0)
    }
}
