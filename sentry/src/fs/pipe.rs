//! Pipes and FIFOs.
//!
//! A [`Pipe`] is a bounded number of [`slots`]; a [`PipeEnd`] is what a descriptor refers to: the reading
//! end, the writing end, or (a FIFO opened with `O_RDWR`) both. Waiters are told only when a pipe
//! stops being empty or full; of every write, once somebody has polled it: edge-triggered epolls
//! rely on that.
//!
//! A pipe in lively use is lent to the process that uses it ([`lending`]); whoever locks the state has
//! taken it back.
//!
//! Locks: [`Pipe::state`] is held while data is copied, which may fault but never waits for the
//! guest. [`transfer`] takes it before the lock of any other file; two pipes by address.

mod lending;
mod slots;
pub mod transfer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use sentry_platform::HostCall;
use sentry_platform::lent::LentFile;
use syscalls::abi::fs::OpenFlags;
use syscalls::abi::ioctl::FIONREAD;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use self::slots::{Kind, Slots};
use crate::kernel::Kernel;
use crate::sync::{Events, Mutex, MutexGuard, Registration, WaitQueue, Waiter};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::anon::{self, AnonMount};
use crate::vfs::file::StreamUser;
use crate::vfs::lending::Lending;
use crate::vfs::ring::PIPE_BUF;
use crate::vfs::special::Opener;
use crate::vfs::{
    Attr, File, FileType, Inode, InodeExtras, IoSink, IoSource, OpenFile, SetAttr, WriteOffset,
};

/// The capacity of a new pipe.
const DEFAULT_CAPACITY: usize = 64 << 10;

/// What an end is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Both,
}

impl Access {
    fn from_flags(flags: OpenFlags) -> SysResult<Self> {
        match flags.access_mode() {
            0 => Ok(Self::Read),
            1 => Ok(Self::Write),
            2 => Ok(Self::Both),
            _ => Err(Errno::EINVAL),
        }
    }

    fn reads(self) -> bool {
        self != Self::Write
    }

    fn writes(self) -> bool {
        self != Self::Read
    }
}

struct State {
    slots: Slots,
    n_readers: usize,
    n_writers: usize,
    /// How often an end has been opened, ever: how an open learns that it has met somebody.
    n_reader_opens: u64,
    n_writer_opens: u64,
    lending: Lending,
}

/// A pipe.
pub struct Pipe {
    /// The attributes of a pipe without a name; they can be changed as those of any inode.
    attr: Mutex<Attr>,
    extras: InodeExtras,
    state: Mutex<State>,
    read_queue: WaitQueue,
    write_queue: WaitQueue,
    /// Whether readiness has been asked for, so that every write is announced.
    is_polled: AtomicBool,
    /// Whether the pipe may be worth lending.
    is_lively: AtomicBool,
}

/// One end of a pipe.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    access: Access,
    /// The FIFO's inode; none for a pipe without a name.
    node: Option<Arc<dyn Inode>>,
    /// `O_DIRECT`: each write is a packet.
    is_packet: AtomicBool,
    /// How often the other end had been opened when this one was.
    seen_opens: u64,
    /// Whether there was a writer when this one was opened.
    had_writer: bool,
    /// Whether the open has to wait for the other end.
    awaits_peer: bool,
}

impl Pipe {
    fn new(attr: Attr) -> Arc<Self> {
        Arc::new(Self {
            attr: Mutex::new(attr),
            extras: InodeExtras::default(),
            state: Mutex::new(State {
                slots: Slots::new(DEFAULT_CAPACITY),
                n_readers: 0,
                n_writers: 0,
                n_reader_opens: 0,
                n_writer_opens: 0,
                lending: Lending::new(),
            }),
            read_queue: WaitQueue::new(),
            write_queue: WaitQueue::new(),
            is_polled: AtomicBool::new(false),
            is_lively: AtomicBool::new(false),
        })
    }

    fn open_end(
        self: &Arc<Self>,
        access: Access,
        node: Option<Arc<dyn Inode>>,
        is_packet: bool,
        awaits_peer: bool,
    ) -> Arc<PipeEnd> {
        let (seen_opens, had_writer) = {
            let mut state = self.lock();
            let had_writer = state.n_writers > 0;
            let seen =
                if access == Access::Write { state.n_reader_opens } else { state.n_writer_opens };
            if access.reads() {
                state.n_readers += 1;
                state.n_reader_opens += 1;
            }
            if access.writes() {
                state.n_writers += 1;
                state.n_writer_opens += 1;
            }
            (seen, had_writer)
        };
        if access.writes() {
            self.read_queue.notify(Events::READABLE);
        }
        if access.reads() {
            self.write_queue.notify(Events::WRITABLE);
        }
        Arc::new(PipeEnd {
            pipe: self.clone(),
            access,
            node,
            is_packet: AtomicBool::new(is_packet),
            seen_opens,
            had_writer,
            awaits_peer,
        })
    }

    /// Announces what a transfer has changed: it was empty or full before and is not now.
    fn announce(&self, has_data: bool, has_room: bool) {
        if has_data {
            self.read_queue.notify(Events::READABLE);
        }
        if has_room {
            self.write_queue.notify(Events::WRITABLE);
        }
    }

    fn is_polled(&self) -> bool {
        self.is_polled.load(Ordering::Relaxed)
    }
}

/// Creates a pipe and returns its reading and its writing end.
pub fn create(task: &CurrentTask, is_packet: bool) -> (Arc<PipeEnd>, Arc<PipeEnd>) {
    let pipe = Pipe::new(anon::attr(task, AnonMount::Pipe, 0o010_600));
    let reader = pipe.open_end(Access::Read, None, is_packet, false);
    let writer = pipe.open_end(Access::Write, None, is_packet, false);
    (reader, writer)
}

impl PipeEnd {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.pipe.lock()
    }

    fn readiness(&self, state: &State) -> Events {
        let mut ready = Events::empty();
        if self.access.reads() {
            if !state.slots.is_empty() {
                ready |= Events::READABLE;
            }
            // A FIFO that no writer has opened yet is not hung up.
            if state.n_writers == 0
                && (self.node.is_none()
                    || self.had_writer
                    || state.n_writer_opens != self.seen_opens)
            {
                ready |= Events::HUP;
            }
        }
        if self.access.writes() {
            if !state.slots.is_full() {
                ready |= Events::WRITABLE;
            }
            if state.n_readers == 0 {
                ready |= Events::ERR;
            }
        }
        ready
    }

    /// Returns what a write to this end makes.
    fn kind(&self) -> Kind {
        if self.is_packet.load(Ordering::Relaxed) { Kind::Packet } else { Kind::Merging }
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let (no_readers, no_writers) = {
            let mut state = self.lock();
            if self.access.reads() {
                state.n_readers -= 1;
            }
            if self.access.writes() {
                state.n_writers -= 1;
            }
            (state.n_readers == 0, state.n_writers == 0)
        };
        if self.access.writes() && no_writers {
            self.pipe.read_queue.notify(Events::READABLE | Events::HUP);
        }
        if self.access.reads() && no_readers {
            self.pipe.write_queue.notify(Events::WRITABLE | Events::ERR);
        }
    }
}

impl File for PipeEnd {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.node.clone().unwrap_or_else(|| self.pipe.clone()))
    }

    fn anonymous_name(&self) -> String {
        format!("pipe:[{}]", self.pipe.attr.lock().ino)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _task: &CurrentTask, dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let mut state = self.pipe.lock_to_transfer();
        if state.slots.is_empty() {
            return if state.n_writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let was_full = state.slots.is_full();
        let n = state.slots.read(dst)?;
        let has_room = was_full && !state.slots.is_full();
        self.pipe.note_transfer(&mut state, n);
        drop(state);
        self.pipe.announce(false, has_room);
        Ok(n)
    }

    fn write(
        &self,
        _task: &CurrentTask,
        src: &mut dyn IoSource,
        _offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        if src.remaining() == 0 {
            return Ok((0, 0));
        }
        let mut state = self.pipe.lock_to_transfer();
        if state.n_readers == 0 {
            return Err(Errno::EPIPE);
        }
        let was_empty = state.slots.is_empty();
        let n = state.slots.write(src, self.kind())?;
        self.pipe.note_transfer(&mut state, n);
        drop(state);
        self.pipe.announce(was_empty || self.pipe.is_polled(), false);
        Ok((n, 0))
    }

    fn poll(&self) -> Events {
        self.pipe.is_polled.store(true, Ordering::Relaxed);
        self.readiness(&self.lock())
    }

    fn vouch_for(&self, set: &Weak<dyn LentFile>) -> Option<Events> {
        let mut state = self.lock();
        state.lending.vouch_for(set);
        Some(self.readiness(&state))
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        let registrations = match self.access {
            Access::Read => vec![self.pipe.read_queue.register(waiter, mask, key)],
            Access::Write => vec![self.pipe.write_queue.register(waiter, mask, key)],
            Access::Both => vec![
                self.pipe.read_queue.register(waiter, mask, key),
                self.pipe.write_queue.register(waiter, mask, key),
            ],
        };
        // Who waits is to be told, which a process to which the pipe is lent does not do.
        drop(self.pipe.lock_to_transfer());
        registrations
    }

    fn is_pollable(&self) -> bool {
        true
    }

    fn ioctl(&self, task: &CurrentTask, _open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        if request != FIONREAD {
            return Err(Errno::ENOTTY.into());
        }
        let n = i32::try_from(self.lock().slots.len()).unwrap_or(i32::MAX);
        task.write_obj(UserPtr::new(UserAddr(arg)), &n)?;
        Ok(0)
    }

    fn flags_changed(&self, flags: u32) {
        let is_packet = OpenFlags::from_bits_retain(flags).contains(OpenFlags::DIRECT);
        self.is_packet.store(is_packet, Ordering::Relaxed);
        // The pipe may be lent as one that has the former flags.
        drop(self.lock());
    }

    fn is_lively(&self) -> bool {
        self.pipe.is_lively.load(Ordering::Relaxed)
    }

    fn lend(&self, user: &StreamUser) -> Vec<HostCall> {
        self.lend_to(user)
    }

    fn is_open_complete(&self) -> bool {
        if !self.awaits_peer {
            return true;
        }
        let state = self.lock();
        if self.access == Access::Write {
            state.n_readers > 0 || state.n_reader_opens != self.seen_opens
        } else {
            state.n_writers > 0 || state.n_writer_opens != self.seen_opens
        }
    }

    fn pipe_size(&self, task: &CurrentTask, new: Option<u32>) -> SysResult<u32> {
        let mut state = self.lock();
        let Some(new) = new else {
            return u32::try_from(state.slots.capacity()).map_err(|_| Errno::EINVAL);
        };
        if new > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let new = usize::try_from(new).map_err(|_| Errno::EINVAL)?;
        let capacity = new.max(PIPE_BUF).next_power_of_two();
        // DEVIATION: CAP_SYS_RESOURCE lifts this limit on Linux; the memory is the sentry's.
        let most = task.kernel.sysctls.number("fs/pipe-max-size", 0).unwrap_or(0);
        if i64::try_from(capacity).map_err(|_| Errno::EINVAL)? > most {
            return Err(Errno::EPERM);
        }
        let was_full = state.slots.is_full();
        if !state.slots.set_capacity(capacity) {
            return Err(Errno::EBUSY);
        }
        let has_room = was_full && !state.slots.is_full();
        drop(state);
        self.pipe.announce(false, has_room);
        u32::try_from(capacity).map_err(|_| Errno::EINVAL)
    }
}

/// The inode of a pipe without a name, which `/proc/PID/fd` leads to. An open never waits.
impl Inode for Pipe {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Fifo
    }

    fn attr(&self) -> SysResult<Attr> {
        Ok(*self.attr.lock())
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        let mut attr = self.attr.lock();
        if let Some(mode) = change.mode {
            attr.mode = (attr.mode & !0o7777) | (mode & 0o7777);
        }
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        Ok(())
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, flags: u32) -> SysResult<Arc<dyn File>> {
        let flags = OpenFlags::from_bits_retain(flags);
        let is_packet = flags.contains(OpenFlags::DIRECT);
        Ok(self.open_end(Access::from_flags(flags)?, None, is_packet, false))
    }
}

/// Opens FIFOs: all opens of one inode meet in one pipe for as long as somebody has it open.
#[derive(Default)]
pub struct FifoOpener {
    pipes: Mutex<HashMap<(u64, u64), Weak<Pipe>>>,
}

/// Registers what FIFOs are opened with.
pub fn register(kernel: &Kernel) {
    kernel.special_files.register_fifo(Arc::new(FifoOpener::default()));
}

impl FifoOpener {
    fn pipe(&self, attr: &Attr) -> Arc<Pipe> {
        let mut pipes = self.pipes.lock();
        let key = (attr.dev, attr.ino);
        if let Some(pipe) = pipes.get(&key).and_then(Weak::upgrade) {
            return pipe;
        }
        if pipes.len() == pipes.capacity() {
            pipes.retain(|_, pipe| pipe.strong_count() > 0);
        }
        let pipe = Pipe::new(*attr);
        pipes.insert(key, Arc::downgrade(&pipe));
        pipe
    }
}

impl Opener for FifoOpener {
    fn open(
        &self,
        _task: &CurrentTask,
        node: &Arc<dyn Inode>,
        _rdev: u64,
        flags: u32,
    ) -> SysResult<Arc<dyn File>> {
        let flags = OpenFlags::from_bits_retain(flags);
        let is_nonblocking = flags.contains(OpenFlags::NONBLOCK);
        let access = Access::from_flags(flags)?;
        let pipe = self.pipe(&node.attr()?);
        if access == Access::Write && is_nonblocking && pipe.lock().n_readers == 0 {
            return Err(Errno::ENXIO);
        }
        let awaits_peer = !is_nonblocking && access != Access::Both;
        let is_packet = flags.contains(OpenFlags::DIRECT);
        Ok(pipe.open_end(access, Some(node.clone()), is_packet, awaits_peer))
    }
}
