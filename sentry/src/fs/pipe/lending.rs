//! Lending a pipe to the process that uses both of its ends, or to the two that use one each
//! ([`crate::vfs::lending`]).
//!
//! Only an empty pipe is lent. Two processes have one together only where each may open the end that it does
//! not use, as `/proc/PID/fd` lets it on Linux.
//!
//! DEVIATION: a pipe that comes back holds its bytes side by side, so there may be more room in it than on
//! Linux. What is transferred while it is lent is not counted in `/proc/PID/io`.

use sentry_platform::{HostCall, LENT_MAX};
use syscalls::abi::fs::OpenFlags;

use super::slots::Kind;
use super::{Access, Pipe, PipeEnd, State};
use crate::sync::MutexGuard;
use crate::vfs::file::StreamUser;
use crate::vfs::lending::{self, End, Lending, OneWay, Side, User};
use crate::vfs::{OpenFile, SliceSource, permission};

impl State {
    /// Makes the pipe the sentry's where it is lent.
    fn take_back(&mut self) {
        let Some(back) = self.lending.take_back() else { return };
        if !back.data.is_empty() {
            // It was empty, and has room for everything that can be lent.
            let _ = self.slots.write(&mut SliceSource::new(&back.data), Kind::Merging);
        }
    }
}

impl Pipe {
    /// Locks the state for anything but reading or writing.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock_to_transfer();
        state.lending.note_other();
        state
    }

    /// Locks the state.
    pub(super) fn lock_to_transfer(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.take_back();
        state
    }

    /// Notes that `n` bytes have been read or written.
    pub(super) fn note_transfer(&self, state: &mut State, n: usize) {
        state.lending.note_transfer(n, &self.is_lively);
    }

    /// Returns whether the pipe can be lent now.
    fn can_be_lent(&self, state: &mut State) -> bool {
        let is_awaited = self.read_queue.has_waiters() || self.write_queue.has_waiters();
        state.lending.is_due(is_awaited)
            && state.slots.is_empty()
            && state.slots.capacity() >= LENT_MAX
            && state.n_readers > 0
            && state.n_writers > 0
    }
}

impl OneWay for Pipe {
    fn end(_side: Side) -> End {
        End::Both
    }

    fn with<T>(&self, act: impl FnOnce(&mut Lending) -> T) -> T {
        act(&mut self.state.lock().lending)
    }

    fn where_possible<T>(
        &self,
        files: [&OpenFile; 2],
        act: impl FnOnce(&mut Lending) -> T,
    ) -> Option<T> {
        let is_packet = |file: &OpenFile| file.flags_set().contains(OpenFlags::DIRECT);
        let mut state = self.state.lock();
        let is_possible = self.can_be_lent(&mut state) && !files.into_iter().any(is_packet);
        is_possible.then(|| act(&mut state.lending))
    }
}

impl PipeEnd {
    /// Lends the pipe to `user`, who has just used this end, and to who uses the other one. Returns what the
    /// process of `user` must do for that to be possible later.
    pub(super) fn lend_to(&self, user: &StreamUser) -> Vec<HostCall> {
        let side = match self.access {
            Access::Read => Side::First,
            Access::Write => Side::Second,
            Access::Both => return Vec::new(),
        };
        if self.node.is_some() || user.file.path.is_some() {
            return Vec::new();
        }
        let wanted = permission::MAY_READ | permission::MAY_WRITE;
        let may_open = user.creds.landlock.is_none()
            && permission::check_mode(&user.creds, &self.pipe.attr.lock(), wanted).is_ok();
        lending::lend_bytes(&*self.pipe, side, user, &User::new(user, may_open))
    }
}
