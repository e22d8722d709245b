//! Asynchronous I/O (`fs/aio.c`): contexts, and the rings through which their events come.
//!
//! As on Linux, reading and writing happen while they are submitted; only polls last. The ring lies in
//! memory that the process has mapped, where it may take events by itself: where it has come to is read
//! there, and nothing else is.
//!
//! Locks: [`Contexts`], then the state of a context. No lock of a file is taken under them but the ring's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use sentry_platform::Work;
use syscalls::abi::aio::{AIO_RING_COMPAT_FEATURES, AIO_RING_MAGIC, AioRing, IoEvent};
use syscalls::abi::fs::OpenFlags;
use syscalls::abi::mm::{MapFlags, PAGE_SIZE, ProtFlags};
use syscalls::{Errno, SysResult};
use zerocopy::IntoBytes;

use crate::fs::eventfd::EventFd;
use crate::fs::tmpfs::file::RegularFile;
use crate::kernel::Kernel;
use crate::mm::map_file::MmapArgs;
use crate::mm::ops::Conflicts;
use crate::mm::vma::AddrRange;
use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::syscalls::sched;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::file::downcast;
use crate::vfs::io::{SliceSink, SliceSource};
use crate::vfs::{OpenFile, WriteOffset};

/// The default of `fs.aio-max-nr`.
const MAX_REQUESTS: usize = 65_536;
/// The most events that a ring can be asked for.
const MAX_EVENTS: u64 = 0x1000_0000 / EVENT_LEN;
const HEADER_LEN: u64 = size_of::<AioRing>() as u64;
const EVENT_LEN: u64 = size_of::<IoEvent>() as u64;
/// Where in the header the process and the kernel say how far they have come.
const HEAD_OFFSET: u64 = 8;
const TAIL_OFFSET: u64 = 12;

/// How many requests the contexts of a sandbox were made for.
#[derive(Default)]
pub struct Requests(AtomicUsize);

/// A part of them, given back when dropped.
struct Share {
    kernel: Arc<Kernel>,
    n: usize,
}

/// The contexts of an address space, by their addresses.
#[derive(Default)]
pub(crate) struct Contexts(Mutex<BTreeMap<u64, Arc<Context>>>);

/// A context.
pub(crate) struct Context {
    _share: Share,
    kernel: Arc<Kernel>,
    /// How many events the ring has room for.
    capacity: u32,
    ring: Arc<RegularFile>,
    range: Mutex<AddrRange>,
    state: Mutex<State>,
    /// Woken when there is an event.
    events: WaitQueue,
}

#[derive(Default)]
struct State {
    /// What is in the ring, which the process can change.
    records: Vec<IoEvent>,
    tail: u32,
    polls: BTreeMap<u64, Arc<Poll>>,
    next_poll: u64,
    /// How far the calls of threads that wait have come.
    progress: BTreeMap<u32, usize>,
}

/// What a request leaves behind when it ends.
#[derive(Clone)]
pub(crate) struct Receipt {
    pub(crate) data: u64,
    pub(crate) obj: u64,
    /// Who is told.
    pub(crate) eventfd: Option<Arc<EventFd>>,
}

/// A poll that lasts.
struct Poll {
    this: Weak<Poll>,
    number: u64,
    context: Weak<Context>,
    receipt: Receipt,
    file: Arc<OpenFile>,
    wanted: Events,
    registrations: Mutex<Vec<Registration>>,
    /// Whether it is about to be looked at.
    is_queued: AtomicBool,
}

impl Requests {
    /// Returns `fs.aio-nr`.
    pub(crate) fn n(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn take(kernel: &Arc<Kernel>, n: usize) -> SysResult<Share> {
        let max = kernel.sysctls.changed_number("fs/aio-max-nr", 0);
        let max = max.map_or(MAX_REQUESTS, |max| usize::try_from(max).unwrap_or(0));
        let add = |used: usize| used.checked_add(n).filter(|sum| *sum <= max);
        let counter = &kernel.aio_requests.0;
        counter
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .map_err(|_| Errno::EAGAIN)?;
        Ok(Share { kernel: kernel.clone(), n })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.kernel.aio_requests.0.fetch_sub(self.n, Ordering::Relaxed);
    }
}

impl Contexts {
    /// Finds a context.
    ///
    /// # Errors
    /// `EINVAL`.
    pub(crate) fn get(&self, id: u64) -> SysResult<Arc<Context>> {
        self.0.lock().get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// Ends all contexts.
    pub(crate) fn clear(&self) {
        let contexts = std::mem::take(&mut *self.0.lock());
        for context in contexts.values() {
            context.end();
        }
    }
}

/// Creates a context for `n` requests in the caller's address space; returns its id.
///
/// # Errors
/// `EINVAL`, `EAGAIN`, `ENOMEM`.
pub(crate) fn create(task: &CurrentTask, n: u32) -> HandlerResult<u64> {
    let n_cpus = u32::try_from(sched::n_cpus()).unwrap_or(1);
    let n_events = u64::from(n.max(n_cpus.saturating_mul(4))).saturating_mul(2);
    if n_events > MAX_EVENTS {
        return Err(Errno::EINVAL.into());
    }
    let share = Requests::take(&task.kernel, usize::try_from(n).unwrap_or(usize::MAX))?;
    // Two more, for the one that is always free.
    let len = n_events.saturating_add(2).saturating_mul(EVENT_LEN).saturating_add(HEADER_LEN);
    let len = len.next_multiple_of(PAGE_SIZE);
    let capacity = u32::try_from(len.saturating_sub(HEADER_LEN) / EVENT_LEN).unwrap_or(u32::MAX);
    let path = crate::fs::memfd::create_segment(task, b"[aio]", len)?;
    let flags = OpenFlags::RDWR | OpenFlags::LARGEFILE;
    let file = path.inode().clone().open(task, flags.bits())?;
    let ring = downcast::<RegularFile>(&file).ok_or(Errno::ENOMEM)?;
    let header = AioRing {
        nr: capacity,
        magic: AIO_RING_MAGIC,
        compat_features: AIO_RING_COMPAT_FEATURES,
        header_length: u32::try_from(HEADER_LEN).unwrap_or(0),
        ..AioRing::default()
    };
    ring.write_at(&mut SliceSource::new(header.as_bytes()), WriteOffset::At(0))?;
    let args = MmapArgs {
        addr: 0,
        len,
        prot: ProtFlags::READ | ProtFlags::WRITE,
        flags: MapFlags::SHARED,
        file: Some(OpenFile::new(file, Some(path), flags.bits())),
        offset: 0,
    };
    let request = args.into_request(true)?;
    let limits = task.memory_limits();
    let mm = task.mm();
    let addr = mm.operate(task, &Conflicts::Whole, |space, avoid, plan| {
        space.map(&request, &limits, avoid, plan)
    })?;
    let context = Arc::new(Context {
        _share: share,
        kernel: task.kernel.clone(),
        capacity,
        ring,
        range: Mutex::new(addr..addr.saturating_add(len)),
        state: Mutex::default(),
        events: WaitQueue::new(),
    });
    mm.aio.0.lock().insert(addr, context);
    Ok(addr)
}

/// Ends a context of the caller's address space, and takes its ring away.
///
/// # Errors
/// `EINVAL`.
pub(crate) fn destroy(task: &CurrentTask, id: u64) -> HandlerResult<()> {
    let mm = task.mm();
    let range = mm.aio.get(id)?.range.lock().clone();
    mm.operate(task, &Conflicts::Ranges(std::slice::from_ref(&range)), |space, _, plan| {
        space.unmap(&range, plan)
    })?;
    let removed = mm.aio.0.lock().remove(&id);
    removed.ok_or(Errno::EINVAL)?.end();
    Ok(())
}

impl Context {
    /// Returns how many events the ring has room for.
    pub(crate) fn capacity(&self) -> usize {
        usize::try_from(self.capacity).unwrap_or(usize::MAX)
    }

    /// Registers a waiter for events.
    pub(crate) fn register(&self, waiter: &Arc<dyn Waiter>) -> Registration {
        self.events.register(waiter, Events::READABLE, 0)
    }

    /// Returns how far the process has come in the ring.
    fn head(&self) -> u32 {
        let mut bytes = [0; 4];
        // A ring that cannot be read is one without events taken.
        let _ = self.ring.read_at(&mut SliceSink::new(&mut bytes), HEAD_OFFSET);
        u32::from_ne_bytes(bytes).checked_rem(self.capacity).unwrap_or(0)
    }

    fn write(&self, data: &[u8], offset: u64) {
        // The file has its size and is sealed against nothing: only the host's memory can end.
        let _ = self.ring.write_at(&mut SliceSource::new(data), WriteOffset::At(offset));
    }

    /// Returns how many events wait in the ring.
    fn n_waiting(&self, state: &State) -> u32 {
        let behind = state.tail.saturating_add(self.capacity).saturating_sub(self.head());
        behind.checked_rem(self.capacity).unwrap_or(0)
    }

    /// Checks that the ring has room for the event of one more request.
    ///
    /// # Errors
    /// `EAGAIN`.
    pub(crate) fn check_room(&self) -> SysResult<()> {
        let state = self.state.lock();
        let n_polls = u32::try_from(state.polls.len()).unwrap_or(u32::MAX);
        let used = self.n_waiting(&state).saturating_add(n_polls);
        if used < self.capacity.saturating_sub(1) { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    /// Puts the event of a request that has ended into the ring.
    pub(crate) fn complete(&self, receipt: &Receipt, res: i64) {
        self.put(&mut self.state.lock(), receipt, res);
        self.tell(receipt);
    }

    fn put(&self, state: &mut State, receipt: &Receipt, res: i64) {
        let event = IoEvent { data: receipt.data, obj: receipt.obj, res, res2: 0 };
        let index = usize::try_from(state.tail).unwrap_or(0);
        if state.records.len() <= index {
            state.records.resize(index.saturating_add(1), IoEvent::default());
        }
        if let Some(record) = state.records.get_mut(index) {
            *record = event;
        }
        let offset = u64::from(state.tail).saturating_mul(EVENT_LEN).saturating_add(HEADER_LEN);
        self.write(event.as_bytes(), offset);
        state.tail = state.tail.saturating_add(1).checked_rem(self.capacity).unwrap_or(0);
        self.write(&state.tail.to_ne_bytes(), TAIL_OFFSET);
    }

    fn tell(&self, receipt: &Receipt) {
        if let Some(eventfd) = &receipt.eventfd {
            eventfd.signal();
        }
        self.events.notify(Events::READABLE);
    }

    /// Takes up to `max` events out of the ring.
    pub(crate) fn take(&self, max: usize) -> Vec<IoEvent> {
        let state = self.state.lock();
        let mut head = self.head();
        let n = self.n_waiting(&state).min(u32::try_from(max).unwrap_or(u32::MAX));
        let mut taken = Vec::new();
        for _ in 0..n {
            let record = usize::try_from(head).ok().and_then(|index| state.records.get(index));
            taken.push(record.copied().unwrap_or_default());
            head = head.saturating_add(1).checked_rem(self.capacity).unwrap_or(0);
        }
        if n > 0 {
            self.write(&head.to_ne_bytes(), HEAD_OFFSET);
        }
        taken
    }

    /// Ends a request as soon as a file is ready for what is wanted.
    pub(crate) fn poll(self: &Arc<Self>, receipt: Receipt, file: Arc<OpenFile>, wanted: Events) {
        let poll = {
            let mut state = self.state.lock();
            let number = state.next_poll;
            state.next_poll = number.saturating_add(1);
            let poll = Arc::new_cyclic(|this: &Weak<Poll>| Poll {
                this: this.clone(),
                number,
                context: Arc::downgrade(self),
                receipt,
                file,
                wanted,
                registrations: Mutex::default(),
                is_queued: AtomicBool::new(false),
            });
            state.polls.insert(number, poll.clone());
            poll
        };
        let waiter: Arc<dyn Waiter> = poll.clone();
        let registrations = poll.file.file.register(&waiter, wanted, 0);
        *poll.registrations.lock() = registrations;
        poll.look();
    }

    /// Ends the poll that was submitted at the address `obj`.
    ///
    /// # Errors
    /// `EINVAL` where there is none.
    pub(crate) fn cancel(&self, obj: u64) -> SysResult<()> {
        let number = {
            let state = self.state.lock();
            let found = state.polls.iter().find(|(_, poll)| poll.receipt.obj == obj);
            *found.ok_or(Errno::EINVAL)?.0
        };
        if self.finish(number, 0) { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Ends a poll, unless it has ended. Returns whether it had not.
    fn finish(&self, number: u64, res: i64) -> bool {
        let mut state = self.state.lock();
        let Some(poll) = state.polls.remove(&number) else { return false };
        self.put(&mut state, &poll.receipt, res);
        drop(state);
        let registrations = std::mem::take(&mut *poll.registrations.lock());
        drop(registrations);
        self.tell(&poll.receipt);
        true
    }

    /// Ends everything.
    fn end(&self) {
        let polls = std::mem::take(&mut self.state.lock().polls);
        for poll in polls.values() {
            let registrations = std::mem::take(&mut *poll.registrations.lock());
            drop(registrations);
        }
        self.events.notify(Events::READABLE);
    }

    /// Returns how far the present call of a thread had come when it began to wait.
    pub(crate) fn take_progress(&self, tid: u32) -> usize {
        self.state.lock().progress.remove(&tid).unwrap_or(0)
    }

    /// Remembers how far the present call of a thread has come.
    pub(crate) fn keep_progress(&self, tid: u32, n: usize) {
        self.state.lock().progress.insert(tid, n);
    }
}

impl Poll {
    /// Ends the poll where the file is ready.
    fn look(&self) {
        let ready = self.file.file.poll() & (self.wanted | Events::ERR | Events::HUP);
        if !ready.is_empty()
            && let Some(context) = self.context.upgrade()
        {
            context.finish(self.number, i64::from(ready.bits()));
        }
    }
}

impl Waiter for Poll {
    fn notify(&self, _key: u64, _events: Events) {
        // A file may announce changes under its own locks: it is looked at later.
        let (Some(context), Some(this)) = (self.context.upgrade(), self.this.upgrade()) else {
            return;
        };
        if !self.is_queued.swap(true, Ordering::SeqCst) {
            context.kernel.platform().submit(this);
        }
    }
}

impl Work for Poll {
    fn run(self: Arc<Self>) {
        self.is_queued.store(false, Ordering::SeqCst);
        self.look();
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromBytes;

    use super::*;

    #[test]
    fn header_is_where_the_offsets_say() {
        let header = AioRing { head: 5, tail: 7, ..AioRing::default() };
        let bytes = header.as_bytes();
        let at = |offset: u64| {
            let start = usize::try_from(offset).expect("small");
            u32::read_from_bytes(&bytes[start..start + 4]).expect("four bytes")
        };
        assert_eq!((at(HEAD_OFFSET), at(TAIL_OFFSET)), (5, 7));
    }
}
