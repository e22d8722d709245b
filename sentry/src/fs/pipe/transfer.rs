//! Moving data between a pipe and another file without a buffer in between: what `splice(2)`,
//! `tee(2)` and `sendfile(2)` are made of.

use std::sync::Arc;

use syscalls::{Errno, SysResult};

use super::slots::Slots;
use super::{PipeEnd, State};
use crate::task::CurrentTask;
use crate::vfs::{File, IoSink, IoSource, WriteOffset};

/// A source that shows a pipe's bytes without taking them.
struct PipeSource<'a> {
    state: &'a State,
    shown: usize,
    limit: usize,
}

impl IoSource for PipeSource<'_> {
    fn remaining(&self) -> usize {
        self.limit - self.shown
    }

    fn get(&mut self, dst: &mut [u8]) -> SysResult<usize> {
        let n = dst.len().min(self.limit - self.shown);
        let dst = dst.get_mut(..n).unwrap_or_default();
        let n = self.state.slots.copy_out(self.shown, dst);
        self.shown += n;
        Ok(n)
    }
}

/// A sink that appends to a pipe.
struct PipeSink<'a> {
    slots: &'a mut Slots,
    left: usize,
}

impl IoSink for PipeSink<'_> {
    fn remaining(&self) -> usize {
        self.left
    }

    fn put(&mut self, data: &[u8]) -> SysResult<usize> {
        let n = self.slots.append(data.get(..self.left).unwrap_or(data));
        self.left -= n;
        Ok(n)
    }
}

impl PipeEnd {
    /// Writes up to `len` bytes of the pipe to `out` and takes what it accepted. Returns how many,
    /// and the offset behind them; zero at the end of the pipe.
    ///
    /// # Errors
    /// `EINVAL` where `out` cannot be spliced to; `EAGAIN` where the pipe is empty or `out` has to
    /// wait; those of `out`.
    pub fn send_to(
        &self,
        task: &CurrentTask,
        out: &dyn File,
        offset: WriteOffset,
        len: usize,
    ) -> SysResult<(usize, u64)> {
        if !out.can_splice_to() {
            return Err(Errno::EINVAL);
        }
        let mut state = self.lock();
        if state.slots.is_empty() {
            return if state.n_writers == 0 { Ok((0, 0)) } else { Err(Errno::EAGAIN) };
        }
        let was_full = state.slots.is_full();
        let limit = len.min(state.slots.len());
        let mut source = PipeSource { state: &state, shown: 0, limit };
        let (n, end) = out.write(task, &mut source, offset)?;
        state.slots.consume(n);
        let has_room = was_full && !state.slots.is_full();
        drop(state);
        self.pipe.announce(false, has_room);
        Ok((n, end))
    }

    /// Fills the pipe with up to `len` bytes of `input`. Returns how many; zero at the end of
    /// `input`.
    ///
    /// # Errors
    /// `EPIPE`; `EAGAIN` where the pipe is full or `input` has to wait; `EINVAL` where `input`
    /// cannot be spliced from; those of `input`.
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
        if state.slots.is_full() {
            return Err(Errno::EAGAIN);
        }
        if !input.can_splice_from() {
            return Err(Errno::EINVAL);
        }
        let was_empty = state.slots.is_empty();
        let left = len.min(state.slots.room_for_pages(offset));
        let result = input.read(task, &mut PipeSink { slots: &mut state.slots, left }, offset);
        let n = state.slots.add_pages(offset);
        result?;
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
        if from.slots.is_empty() && from.n_writers > 0 {
            return Err(Errno::EAGAIN);
        }
        if to.n_readers == 0 {
            return Err(Errno::EPIPE);
        }
        if to.slots.is_full() {
            return Err(Errno::EAGAIN);
        }
        if from.slots.is_empty() {
            return Ok(0);
        }
        let was_full = from.slots.is_full();
        let was_empty = to.slots.is_empty();
        let n = from.slots.move_to(&mut to.slots, len, keep);
        let has_room = was_full && !from.slots.is_full();
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
