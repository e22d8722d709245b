//! Lending a pipe to the process that uses both of its ends, or to the two that use one each, whose threads
//! then read and write it without the sentry.
//!
//! The pipe is the sentry's: only an empty one is lent, when it has been read and written for a while in
//! small pieces and nothing else has happened to it, and whoever locks its state has taken it back, with
//! what has been written meanwhile. Nobody waits for a pipe that is lent, because who is about to wait
//! takes it back, and it is not lent as long as somebody waits. So a process that could have gone on, but
//! has asked the sentry, finds the pipe as if the calls of others had come before.
//!
//! Two processes that have a stream together can change everything that is in it, so they have it only where
//! each may open the end that it does not use, as `/proc/PID/fd` lets it on Linux, and where nobody else has
//! the same memory: other two processes get another one.
//!
//! DEVIATION: a pipe that comes back holds its bytes side by side, so there may be more room in it than on
//! Linux. What is transferred while it is lent is not counted in `/proc/PID/io`.

use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use sentry_platform::{HostCall, LENT_MAX, LentStream, LinkedStream, Streams};
use syscalls::abi::fs::OpenFlags;

use super::slots::Kind;
use super::{Access, Pipe, PipeEnd, State};
use crate::sync::MutexGuard;
use crate::vfs::fd_table::Teller;
use crate::vfs::file::StreamUser;
use crate::vfs::{OpenFile, SliceSource, permission};

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
    /// What two processes have together.
    link: Option<Link>,
}

/// Who uses an end of a pipe.
#[derive(Clone)]
struct User {
    streams: Weak<dyn Streams>,
    table: u64,
    teller: Teller,
    fd: i32,
    file: Weak<OpenFile>,
    /// Whether it may open the other end as well.
    may_open: bool,
}

/// A stream that two processes have together.
struct Link {
    stream: Arc<dyn LinkedStream>,
    reader: Weak<dyn Streams>,
    writer: Weak<dyn Streams>,
}

fn is_same(one: &Weak<dyn Streams>, other: &Weak<dyn Streams>) -> bool {
    ptr::addr_eq(one.as_ptr(), other.as_ptr())
}

impl Lending {
    pub(super) fn new() -> Self {
        Self { lent: None, n_small: 0, wanted: FIRST, reader: None, writer: None, link: None }
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
    /// Lends the pipe to `user`, who has just used this end, and to who uses the other one. Returns what the
    /// process of `user` must do for that to be possible later.
    pub(super) fn lend_to(&self, user: &StreamUser) -> Vec<HostCall> {
        if self.node.is_some() || self.access == Access::Both || user.file.path.is_some() {
            return Vec::new();
        }
        let reads = self.access == Access::Read;
        let own = self.user(user);
        let other = {
            let mut state = self.pipe.state.lock();
            let Lending { reader, writer, .. } = &mut state.lending;
            let (this, other) = if reads { (reader, writer) } else { (writer, reader) };
            *this = Some(own.clone());
            other.clone()
        };
        // Given up only when the lock is: it may be the last one.
        let other = other.and_then(|other| Some((other.file.upgrade()?, other)));
        let Some((other_file, other)) = other else { return Vec::new() };
        let link = if other.table == own.table && is_same(&own.streams, &other.streams) {
            None
        } else {
            match self.link(user, &own, &other) {
                Ok(link) => Some(link),
                Err(calls) => return calls,
            }
        };
        let is_packet = |file: &OpenFile| file.flags_set().contains(OpenFlags::DIRECT);
        let mut state = self.pipe.state.lock();
        if !self.pipe.can_be_lent(&state) || is_packet(&user.file) || is_packet(&other_file) {
            return Vec::new();
        }
        let lent = match link {
            None => user.streams.clone().lend(),
            Some(link) => link.lend(),
        };
        let Some(lent) = lent else { return Vec::new() };
        let (own_id, other_id) = (lent.id(reads), lent.id(!reads));
        state.lending.lent = Some(lent);
        drop(state);
        // What is said of a stream that has come back already means nothing.
        own.teller.tell(&own.streams, own.fd, &user.file, own_id);
        other.teller.tell(&other.streams, other.fd, &other_file, other_id);
        Vec::new()
    }

    fn user(&self, user: &StreamUser) -> User {
        let wanted = permission::MAY_READ | permission::MAY_WRITE;
        let may_open = user.creds.landlock.is_none()
            && permission::check_mode(&user.creds, &self.pipe.attr.lock(), wanted).is_ok();
        User {
            streams: Arc::downgrade(&user.streams),
            table: user.table.id,
            teller: user.table.teller(),
            fd: user.fd,
            file: Arc::downgrade(&user.file),
            may_open,
        }
    }

    /// Returns the stream that the users of the two ends have together, or what the process of the one who
    /// uses this end must do to have it.
    fn link(
        &self,
        user: &StreamUser,
        own: &User,
        other: &User,
    ) -> Result<Arc<dyn LinkedStream>, Vec<HostCall>> {
        // Those who share memory, but not descriptors, have no way to it.
        let is_possible = own.may_open
            && other.may_open
            && other.streams.strong_count() > 0
            && !is_same(&own.streams, &other.streams);
        if !is_possible {
            return Err(Vec::new());
        }
        let reads = self.access == Access::Read;
        let (reader, writer) = if reads { (own, other) } else { (other, own) };
        let mut state = self.pipe.state.lock();
        let lending = &mut state.lending;
        let is_theirs = |link: &&Link| {
            is_same(&link.reader, &reader.streams) && is_same(&link.writer, &writer.streams)
        };
        let stream = match lending.link.as_ref().filter(is_theirs) {
            Some(link) => link.stream.clone(),
            None => {
                // Those who take turns are not worth much.
                lending.wanted = lending.wanted.saturating_mul(2).min(MAX);
                let stream = user.streams.link().map_err(|_| Vec::new())?;
                lending.link = Some(Link {
                    stream: stream.clone(),
                    reader: reader.streams.clone(),
                    writer: writer.streams.clone(),
                });
                stream
            }
        };
        if !stream.has_joined(reads) {
            let calls = user.streams.join(&stream, reads);
            if calls.is_empty() {
                (lending.wanted, lending.n_small) = (MAX, 0);
            }
            return Err(calls);
        }
        if stream.has_joined(!reads) { Ok(stream) } else { Err(Vec::new()) }
    }
}
