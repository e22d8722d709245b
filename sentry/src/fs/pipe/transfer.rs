//! Moving data between a pipe and another file without a buffer in between: what `splice(2)`,
//! `tee(2)` and `sendfile(2)` are made of.

use std::sync::Arc;

use syscalls::{Errno, SysResult};

use super::{PipeEnd, State};
use crate::task::CurrentTask;
use crate::vfs::{File, IoSink, IoSource, WriteOffset};

/// A source that shows a pipe's bytes without taking them.
struct PipeSource<'a> {
    state: &'a State,
    shown: usize,
    limit: usize,
}

/// Skips the first bytes of what is put, passes on the rest.
struct Window<'a> {
    skip: usize,
    dst: &'a mut [u8],
    done: usize,
}

impl IoSink for Window<'_> {
    fn remaining(&self) -> usize {
        self.skip + (self.dst.len() - self.done)
    }

    fn put(&mut self, data: &[u8]) -> SysResult<usize> {
        let skipped = self.skip.min(data.len());
        self.skip -= skipped;
        let rest = data.get(skipped..).unwrap_or_default();
        let n = rest.len().min(self.dst.len() - self.done);
        if let (Some(to), Some(from)) = (self.dst.get_mut(self.done..self.done + n), rest.get(..n))
        {
            to.copy_from_slice(from);
        }
        self.done += n;
        Ok(skipped + n)
    }
}

impl IoSource for PipeSource<'_> {
    fn remaining(&self) -> usize {
        self.limit - self.shown
    }

    fn get(&mut self, dst: &mut [u8]) -> SysResult<usize> {
        let n = dst.len().min(self.limit - self.shown);
        let dst = dst.get_mut(..n).unwrap_or_default();
        let mut window = Window { skip: self.shown, dst, done: 0 };
        self.state.ring.peek(&mut window)?;
        let n = window.done;
        self.shown += n;
        Ok(n)
    }
}

/// A sink that appends to a pipe.
struct PipeSink<'a> {
    end: &'a PipeEnd,
    state: &'a mut State,
    left: usize,
}

impl IoSink for PipeSink<'_> {
    fn remaining(&self) -> usize {
        self.left
    }

    fn put(&mut self, data: &[u8]) -> SysResult<usize> {
        let n = data.len().min(self.left);
        let mut src = crate::vfs::SliceSource::new(data.get(..n).unwrap_or_default());
        let n = self.end.write_locked(self.state, &mut src, n)?;
        self.left -= n;
        Ok(n)
    }
}

impl PipeEnd {
    /// Writes up to `len` bytes of the pipe to `out` and takes what it accepted. Returns how many,
    /// and the offset behind them; zero at the end of the pipe.
    ///
    /// # Errors
    /// `EAGAIN` where the pipe is empty or `out` has to wait; those of `out`.
    pub fn send_to(
        &self,
        task: &CurrentTask,
        out: &dyn File,
        offset: WriteOffset,
        len: usize,
    ) -> SysResult<(usize, u64)> {
        let mut state = self.lock();
        if state.ring.is_empty() {
            return if state.n_writers == 0 { Ok((0, 0)) } else { Err(Errno::EAGAIN) };
        }
        let was_writable = state.ring.is_writable();
        let limit = len.min(state.ring.len());
        let mut source = PipeSource { state: &state, shown: 0, limit };
        let (n, end) = out.write(task, &mut source, offset)?;
        state.ring.consume(n);
        let has_room = state.ring.is_writable() && (!was_writable || self.pipe.is_polled());
        drop(state);
        self.pipe.announce(false, has_room);
        Ok((n, end))
    }

    /// Fills the pipe with up to `len` bytes of `input`. Returns how many; zero at the end of
    /// `input`.
    ///
    /// # Errors
    /// `EAGAIN` where the pipe is full or `input` has to wait; `EPIPE`; those of `input`.
    pub fn fill_from(
        &self,
        task: &CurrentTask,
        input: &dyn File,
        offset: u64,
        len: usize,
    ) -> SysResult<usize> {
        let mut state = self.lock();
        if state.n_readers == 0 {
            return Err(Errno::EPIPE);
        }
        if !state.ring.is_writable() {
            return Err(Errno::EAGAIN);
        }
        let was_empty = state.ring.is_empty();
        let left = len.min(state.ring.room());
        let mut sink = PipeSink { end: self, state: &mut state, left };
        let n = input.read(task, &mut sink, offset)?;
        drop(state);
        self.pipe.announce(n > 0 && (was_empty || self.pipe.is_polled()), false);
        Ok(n)
    }

    /// Moves (or, with `keep`, copies) up to `len` bytes to another pipe. Returns how many; zero
    /// where this pipe has ended.
    ///
    /// # Errors
    /// `EINVAL` where both are ends of one pipe; `EAGAIN` where this one is empty or the other is
    /// full; `EPIPE`.
    pub fn move_to(&self, out: &Self, len: usize, keep: bool) -> SysResult<usize> {
        if Arc::ptr_eq(&self.pipe, &out.pipe) {
            return Err(Errno::EINVAL);
        }
        let is_first = Arc::as_ptr(&self.pipe) < Arc::as_ptr(&out.pipe);
        let (mut from, mut to);
        if is_first {
            from = self.lock();
            to = out.lock();
        } else {
            to = out.lock();
            from = self.lock();
        }
        // In Linux's order (`ipipe_prep()`, `opipe_prep()`, then the move itself).
        if from.ring.is_empty() && from.n_writers > 0 {
            return Err(Errno::EAGAIN);
        }
        if to.n_readers == 0 {
            return Err(Errno::EPIPE);
        }
        if !to.ring.is_writable() {
            return Err(Errno::EAGAIN);
        }
        if from.ring.is_empty() {
            return Ok(0);
        }
        let was_writable = from.ring.is_writable();
        let was_empty = to.ring.is_empty();
        let left = len.min(to.ring.room());
        let (n, taken) = from.ring.peek(&mut PipeSink { end: out, state: &mut to, left })?;
        if !keep {
            from.ring.consume(taken);
        }
        let has_room = from.ring.is_writable() && (!was_writable || self.pipe.is_polled());
        drop(from);
        drop(to);
        self.pipe.announce(false, has_room);
        out.pipe.announce(n > 0 && (was_empty || out.pipe.is_polled()), false);
        Ok(n)
    }

    /// Returns whether both are ends of one pipe.
    pub fn is_same_pipe(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pipe, &other.pipe)
    }

    /// Returns whether the end can be read from.
    pub fn can_read(&self) -> bool {
        self.access.reads()
    }

    /// Returns whether the end can be written to.
    pub fn can_write(&self) -> bool {
        self.access.writes()
    }
}
