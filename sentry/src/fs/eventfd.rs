//! `eventfd(2)`: a counter that can be waited for.

use syscalls::{Errno, SysResult};

use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::CurrentTask;
use crate::vfs::anon::{self, AnonMount};
use crate::vfs::{Attr, File, IoSink, IoSource, WriteOffset};

use std::sync::Arc;

/// The largest value of the counter.
const MAX: u64 = u64::MAX - 1;

/// An eventfd.
pub struct EventFd {
    attr: Attr,
    count: Mutex<u64>,
    is_semaphore: bool,
    queue: WaitQueue,
}

impl EventFd {
    /// Creates an eventfd.
    pub fn new(task: &CurrentTask, initial: u32, is_semaphore: bool) -> Arc<Self> {
        Arc::new(Self {
            attr: anon::attr(task, AnonMount::Inode, 0o600),
            count: Mutex::new(initial.into()),
            is_semaphore,
            queue: WaitQueue::new(),
        })
    }
}

impl EventFd {
    /// Adds one, as far as there is room: what the kernel itself does when something has happened.
    pub(crate) fn signal(&self) {
        {
            let mut count = self.count.lock();
            *count = count.saturating_add(1);
        }
        self.queue.notify(Events::READABLE);
    }
}

impl File for EventFd {
    fn attr(&self) -> SysResult<Attr> {
        Ok(self.attr)
    }

    fn anonymous_name(&self) -> String {
        String::from("anon_inode:[eventfd]")
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _task: &CurrentTask, dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let value = {
            let mut count = self.count.lock();
            if *count == 0 {
                return Err(Errno::EAGAIN);
            }
            let value = if self.is_semaphore { 1 } else { *count };
            *count -= value;
            value
        };
        self.queue.notify(Events::WRITABLE);
        dst.put(&value.to_ne_bytes())
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
            let mut count = self.count.lock();
            if MAX.saturating_sub(*count) < value {
                return Err(Errno::EAGAIN);
            }
            *count += value;
        }
        self.queue.notify(Events::READABLE);
        Ok((8, 0))
    }

    fn poll(&self) -> Events {
        let count = *self.count.lock();
        let mut ready = Events::empty();
        if count > 0 {
            ready |= Events::READABLE;
        }
        // Only the kernel itself can let it overflow.
        if count == u64::MAX {
            ready |= Events::ERR;
        }
        if count < MAX {
            ready |= Events::WRITABLE;
        }
        ready
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.queue.register(waiter, mask, key)]
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
}
