//! `eventfd(2)`: a counter that can be waited for.
//!
//! One in lively use is lent to the processes that use it ([`crate::vfs::lending`]); whoever locks its state has
//! taken it back. Whoever has a descriptor of it may add to it and take from it, so there is nobody who has it
//! together with another process and could do more to it than on Linux.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use sentry_platform::lent::LentFile;
use sentry_platform::{HostCall, StreamKind};
use syscalls::{Errno, SysResult};

use crate::sync::{Events, Mutex, MutexGuard, Registration, WaitQueue, Waiter};
use crate::task::CurrentTask;
use crate::vfs::anon::{self, AnonMount};
use crate::vfs::file::StreamUser;
use crate::vfs::lending::{End, Lending, User};
use crate::vfs::{Attr, File, IoSink, IoSource, WriteOffset};

/// The largest value of the counter.
const MAX: u64 = u64::MAX - 1;

/// The number of the next one, by which two descriptors of one are told from those of two.
static NEXT_ID: AtomicU32 = AtomicU32::new(0);

struct State {
    count: u64,
    /// Whether it was last read, and not written.
    was_read: bool,
    lending: Lending,
}

impl State {
    fn readiness(&self) -> Events {
        let mut ready = Events::empty();
        if self.count > 0 {
            ready |= Events::READABLE;
        }
        // Only the kernel itself can let it overflow.
        if self.count == u64::MAX {
            ready |= Events::ERR;
        }
        if self.count < MAX {
            ready |= Events::WRITABLE;
        }
        ready
    }
}

/// An eventfd.
pub struct EventFd {
    attr: Attr,
    id: u32,
    state: Mutex<State>,
    is_semaphore: bool,
    queue: WaitQueue,
    /// Whether it may be worth lending.
    is_lively: AtomicBool,
}

impl EventFd {
    /// Creates an eventfd.
    pub fn new(task: &CurrentTask, initial: u32, is_semaphore: bool) -> Arc<Self> {
        Arc::new(Self {
            attr: anon::attr(task, AnonMount::Inode, 0o600),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(State {
                count: initial.into(),
                was_read: false,
                lending: Lending::new(),
            }),
            is_semaphore,
            queue: WaitQueue::new(),
            is_lively: AtomicBool::new(false),
        })
    }
}

impl EventFd {
    /// Adds one, as far as there is room: what the kernel itself does when something has happened.
    pub(crate) fn signal(&self) {
        {
            let mut state = self.lock();
            state.count = state.count.saturating_add(1);
        }
        self.queue.notify(Events::READABLE);
    }

    /// Locks the state for anything but reading or writing.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock_to_transfer();
        state.lending.note_other();
        state
    }

    /// Locks the state.
    fn lock_to_transfer(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        if let Some(back) = state.lending.take_back() {
            state.count = back.value.into();
        }
        state
    }
}

impl File for EventFd {
    fn attr(&self) -> SysResult<Attr> {
        Ok(self.attr)
    }

    fn anonymous_name(&self) -> String {
        String::from("anon_inode:[eventfd]")
    }

    fn fd_info(&self, _task: &CurrentTask) -> String {
        let (count, id, is_semaphore) = (self.lock().count, self.id, u32::from(self.is_semaphore));
        format!("eventfd-count: {count:16x}\neventfd-id: {id}\neventfd-semaphore: {is_semaphore}\n")
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _task: &CurrentTask, dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let value = {
            let mut state = self.lock_to_transfer();
            if state.count == 0 {
                return Err(Errno::EAGAIN);
            }
            let value = if self.is_semaphore { 1 } else { state.count };
            state.count -= value;
            state.was_read = true;
            state.lending.note_transfer(8, &self.is_lively);
            value
        };
        self.queue.notify(Events::WRITABLE);
        if dst.put(&value.to_ne_bytes())? < 8 { Err(Errno::EFAULT) } else { Ok(8) }
    }

    fn write(
        &self,
        _task: &CurrentTask,
        src: &mut dyn IoSource,
        _offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        // Exactly eight bytes, as Linux has it since 6.9.
        if src.remaining() != 8 {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; 8];
        if src.get(&mut bytes)? < 8 {
            return Err(Errno::EFAULT);
        }
        let value = u64::from_ne_bytes(bytes);
        if value == u64::MAX {
            return Err(Errno::EINVAL);
        }
        {
            let mut state = self.lock_to_transfer();
            if MAX.saturating_sub(state.count) < value {
                return Err(Errno::EAGAIN);
            }
            state.count += value;
            state.was_read = false;
            state.lending.note_transfer(8, &self.is_lively);
        }
        self.queue.notify(Events::READABLE);
        Ok((8, 0))
    }

    fn poll(&self) -> Events {
        self.lock().readiness()
    }

    fn vouch_for(&self, set: &Weak<dyn LentFile>) -> Option<Events> {
        let mut state = self.lock();
        state.lending.vouch_for(set);
        Some(state.readiness())
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        let registrations = vec![self.queue.register(waiter, mask, key)];
        // Who waits is to be told, which a process to which the counter is lent does not do.
        drop(self.lock_to_transfer());
        registrations
    }

    fn is_pollable(&self) -> bool {
        true
    }

    fn can_splice_from(&self) -> bool {
        false
    }

    fn can_splice_to(&self) -> bool {
        false
    }

    fn flags_changed(&self, _flags: u32) {
        // The counter may be lent as one that has the former flags.
        drop(self.lock());
    }

    fn is_lively(&self) -> bool {
        self.is_lively.load(Ordering::Relaxed)
    }

    fn lend(&self, user: &StreamUser) -> Vec<HostCall> {
        let own = User::new(user, true);
        let noted = self.state.lock().lending.note_equal_user(&own);
        let Some((side, other)) = noted else { return Vec::new() };
        let other = other.and_then(User::partner);
        let link = match &other {
            None => None,
            Some((other, _)) => match self.state.lock().lending.link(side, user, &own, other) {
                Ok(link) => Some(link),
                Err(calls) => return calls,
            },
        };
        let mut state = self.state.lock();
        let Ok(value) = u32::try_from(state.count) else { return Vec::new() };
        // Who reads what has been written is on the way to the sentry already.
        if !state.lending.is_due(self.queue.has_waiters()) || !state.was_read {
            return Vec::new();
        }
        let kind = StreamKind::Counter { value, is_semaphore: self.is_semaphore };
        let id = state.lending.lend(&user.streams, link, kind);
        drop(state);
        if let Some(id) = id {
            own.tell(&user.file, id(side), End::Both);
            if let Some((other, file)) = other {
                other.tell(&file, id(side.other()), End::Both);
            }
        }
        Vec::new()
    }
}
