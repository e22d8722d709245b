//! Lending a pipe to the process that uses both of its ends, whose threads then read and write it without
//! the sentry.
//!
//! The pipe is the sentry's: only an empty one is lent, when it has been read and written for a while in
//! small pieces and nothing else has happened to it, and whoever locks its state has taken it back, with
//! what has been written meanwhile. Nobody waits for a pipe that is lent, because who is about to wait
//! takes it back, and it is not lent as long as somebody waits. So a process that could have gone on, but
//! has asked the sentry, finds the pipe as if the calls of others had come before.
//!
//! DEVIATION: a pipe that comes back holds its bytes side by side, so there may be more room in it than on
//! Linux. What is transferred while it is lent is not counted in `/proc/PID/io`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use sentry_platform::{LENT_MAX, LentStream};
use syscalls::abi::fs::OpenFlags;

use super::slots::Kind;
use super::{Access, Pipe, PipeEnd, State};
use crate::sync::MutexGuard;
use crate::vfs::file::StreamUser;
use crate::vfs::{OpenFile, SliceSource};

/// After how many transfers in a row a pipe is lent for the first time.
const FIRST: u32 = 64;
/// After how many where it has been worth it the last time.
const AGAIN: u32 = 16;
/// The most, where it was not several times in a row.
const MAX: u32 = 1 << 16;
/// How many calls its process must have answered for it to have been worth it.
const WORTH: u32 = 32;
/// Larger transfers are as quickly made by the sentry.
const SMALL: usize = 4096;

/// How a pipe is lent, or may be.
pub(super) struct Lending {
    lent: Option<Box<dyn LentStream>>,
    /// How many small transfers there were in a row.
    n_small: u32,
    /// How many there must be.
    wanted: u32,
    /// Who has last used the ends.
    reader: Option<User>,
    writer: Option<User>,
}

/// Who uses an end of a pipe.
#[derive(Clone)]
struct User {
    table: u64,
    fd: i32,
    file: Weak<OpenFile>,
}

impl Lending {
    pub(super) fn new() -> Self {
        Self { lent: None, n_small: 0, wanted: FIRST, reader: None, writer: None }
    }

    /// Takes the pipe back; returns what it holds.
    fn take_back(&mut self) -> Option<Vec<u8>> {
        let back = self.lent.take()?.take_back();
        let was_worth_it = back.n_calls >= WORTH;
        self.wanted = if was_worth_it { AGAIN } else { self.wanted.saturating_mul(2).min(MAX) };
        self.n_small = 0;
        Some(back.data)
    }
}

impl State {
    /// Makes the pipe the sentry's where it is lent.
    fn take_back(&mut self) {
        let Some(data) = self.lending.take_back() else { return };
        if !data.is_empty() {
            // It was empty, and has room for everything that can be lent.
            let _ = self.slots.write(&mut SliceSource::new(&data), Kind::Merging);
        }
    }
}

impl Pipe {
    /// Locks the state for anything but reading or writing.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock_to_transfer();
        state.lending.n_small = 0;
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
        let lending = &mut state.lending;
        lending.n_small = if n <= SMALL { lending.n_small.saturating_add(1) } else { 0 };
        let is_lively = lending.n_small >= lending.wanted;
        if is_lively != self.is_lively.load(Ordering::Relaxed) {
            self.is_lively.store(is_lively, Ordering::Relaxed);
        }
    }

    /// Returns whether the pipe can be lent now.
    fn can_be_lent(&self, state: &State) -> bool {
        state.lending.lent.is_none()
            && state.lending.n_small >= state.lending.wanted
            && state.slots.is_empty()
            && state.slots.capacity() >= LENT_MAX
            && state.n_readers > 0
            && state.n_writers > 0
            && !self.read_queue.has_waiters()
            && !self.write_queue.has_waiters()
    }
}

impl PipeEnd {
    /// Lends the pipe to `user`, who has just used this end, where it uses the other one as well.
    pub(super) fn lend_to(&self, user: &StreamUser) {
        if self.node.is_some() || self.access == Access::Both || user.file.path.is_some() {
            return;
        }
        let this = User { table: user.table.id, fd: user.fd, file: Arc::downgrade(&user.file) };
        let other = {
            let mut state = self.pipe.state.lock();
            let Lending { reader, writer, .. } = &mut state.lending;
            let (own, other) =
                if self.access == Access::Read { (reader, writer) } else { (writer, reader) };
            *own = Some(this);
            other.clone()
        };
        let Some(other) = other.filter(|other| other.table == user.table.id) else { return };
        // Given up only when the lock is: it may be the last one.
        let Some(other_file) = other.file.upgrade() else { return };
        let is_packet = |file: &OpenFile| file.flags_set().contains(OpenFlags::DIRECT);
        let mut state = self.pipe.state.lock();
        if !self.pipe.can_be_lent(&state) || is_packet(&user.file) || is_packet(&other_file) {
            return;
        }
        let Some(lent) = user.streams.clone().lend() else { return };
        let id = lent.id();
        state.lending.lent = Some(lent);
        drop(state);
        // What is said of a stream that has come back already means nothing.
        user.table.tell(user.fd, &user.file, id);
        user.table.tell(other.fd, &other_file, id);
    }
}
