//! `inotify(7)`: watches on inodes and the queue of what happened to them.
//!
//! A watch belongs to one [`Inotify`] and one inode; the inode's [`Marks`] pass every event that
//! `vfs::notify` announces to the watches. A watch holds the dentry by which the inode was found, so
//! that the inode stays the one that others find.
//!
//! Locks: `Inotify::state`, the inode's slot for watches, `Marks::list`. An event takes a copy of the
//! list before it takes `state`.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::{Arc, Weak};

use syscalls::abi::inotify::{InotifyEvent, InotifyMask};
use syscalls::abi::ioctl::FIONREAD;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::IntoBytes;

use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::anon::{self, AnonMount};
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::InodeWatcher;
use crate::vfs::{Attr, File, IoSink, OpenFile, notify};

/// The most events in a queue: the default of `/proc/sys/fs/inotify/max_queued_events`.
const MAX_QUEUED: usize = 16_384;

/// The most watches of one instance: Linux's default `max_user_watches` on a small machine.
const MAX_WATCHES: usize = 65_536;

/// The most instances of one user: Linux's default `max_user_instances`.
const MAX_INSTANCES: usize = 128;

/// How many instances each user has.
static INSTANCES: Mutex<BTreeMap<u32, usize>> = Mutex::new(BTreeMap::new());

/// What a watch keeps of the mask that it was added with.
const KEPT: InotifyMask = InotifyMask::ALL_EVENTS
    .union(InotifyMask::ONESHOT)
    .union(InotifyMask::EXCL_UNLINK)
    .union(InotifyMask::UNMOUNT);

/// An inotify instance.
pub struct Inotify {
    attr: Attr,
    this: Weak<Inotify>,
    state: Mutex<State>,
    queue: WaitQueue,
    _counted: Counted,
}

/// An instance in the count of its user.
struct Counted(u32);

#[derive(Default)]
struct State {
    watches: BTreeMap<i32, Watch>,
    last_wd: i32,
    events: Queue,
}

struct Watch {
    dentry: Arc<Dentry>,
    mask: InotifyMask,
}

/// An event that has not been read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Queued {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

/// The events of an instance.
#[derive(Default)]
struct Queue {
    events: VecDeque<Queued>,
    n_bytes: usize,
}

/// The watches on one inode.
#[derive(Default)]
struct Marks {
    list: Mutex<Vec<Mark>>,
}

#[derive(Clone)]
struct Mark {
    inotify: Weak<Inotify>,
    wd: i32,
}

impl Counted {
    fn new(uid: u32, most: usize) -> SysResult<Self> {
        let mut instances = INSTANCES.lock();
        let n = instances.entry(uid).or_default();
        if *n >= most {
            return Err(Errno::EMFILE);
        }
        *n += 1;
        Ok(Self(uid))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut instances = INSTANCES.lock();
        if let Some(n) = instances.get_mut(&self.0) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                instances.remove(&self.0);
            }
        }
    }
}

impl Queued {
    /// Returns the size of the name as it is read: with at least one NUL, in units of the record.
    fn name_size(&self) -> usize {
        if self.name.is_empty() {
            return 0;
        }
        (self.name.len() + 1).next_multiple_of(size_of::<InotifyEvent>())
    }

    fn size(&self) -> usize {
        size_of::<InotifyEvent>() + self.name_size()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let head = InotifyEvent {
            wd: self.wd,
            mask: self.mask,
            cookie: self.cookie,
            len: u32::try_from(self.name_size()).unwrap_or(0),
        };
        let mut bytes = head.as_bytes().to_vec();
        bytes.extend_from_slice(&self.name);
        bytes.resize(self.size(), 0);
        bytes
    }
}

impl Queue {
    /// Adds an event, unless it repeats the last one; a full queue says once that it overflowed.
    /// Returns whether the queue has grown.
    fn push(&mut self, event: Queued) -> bool {
        if self.events.back() == Some(&event) {
            return false;
        }
        let event = if self.events.len() >= MAX_QUEUED {
            let overflow = overflow();
            if self.events.back() == Some(&overflow) {
                return false;
            }
            overflow
        } else {
            event
        };
        self.n_bytes += event.size();
        self.events.push_back(event);
        true
    }

    /// Takes the first event if it is no larger than `room`.
    ///
    /// # Errors
    /// `EINVAL` where it is larger.
    fn take(&mut self, room: usize) -> SysResult<Option<Queued>> {
        let Some(first) = self.events.front() else { return Ok(None) };
        if first.size() > room {
            return Err(Errno::EINVAL);
        }
        self.n_bytes -= first.size();
        Ok(self.events.pop_front())
    }
}

impl InodeWatcher for Marks {
    fn event(&self, mask: u32, cookie: u32, name: Option<&[u8]>) {
        let marks = self.list.lock().clone();
        for mark in marks {
            if let Some(inotify) = mark.inotify.upgrade() {
                inotify.happened(mark.wd, mask, cookie, name);
            }
        }
    }
}

/// What an inode keeps of its watches.
type Slot = Option<Arc<dyn InodeWatcher>>;

impl Marks {
    /// Returns the marks in an inode's slot, made where there are none.
    fn of(slot: &mut Slot) -> Arc<Self> {
        if let Some(watcher) = slot.clone() {
            let any: Arc<dyn Any + Send + Sync> = watcher;
            if let Ok(marks) = any.downcast() {
                return marks;
            }
        }
        let marks = Arc::new(Self::default());
        *slot = Some(marks.clone());
        marks
    }

    fn find(&self, inotify: &Inotify) -> Option<i32> {
        let list = self.list.lock();
        list.iter().find(|mark| mark.inotify.ptr_eq(&inotify.this)).map(|mark| mark.wd)
    }

    /// Takes a watch's mark away.
    fn remove(dentry: &Dentry, inotify: &Weak<Inotify>, wd: i32) {
        let mut slot = dentry.inode().extras().watches.lock();
        let marks = Self::of(&mut slot);
        let mut list = marks.list.lock();
        let at = list.iter().position(|mark| mark.wd == wd && mark.inotify.ptr_eq(inotify));
        if let Some(at) = at {
            list.swap_remove(at);
            notify::watch_removed();
        }
        if list.is_empty() {
            *slot = None;
        }
        drop(list);
        drop(slot);
        if at.is_some() {
            dentry.inode().unwatch();
        }
    }
}

impl Inotify {
    /// Creates an instance without watches.
    ///
    /// # Errors
    /// `EMFILE` where the user has too many.
    pub fn new(task: &CurrentTask) -> SysResult<Arc<Self>> {
        let most = task.kernel.sysctls.number("fs/inotify/max_user_instances", 0);
        let most = most.map_or(MAX_INSTANCES, |most| usize::try_from(most).unwrap_or(0));
        let counted = Counted::new(task.creds().uid, most)?;
        Ok(Arc::new_cyclic(|this| Self {
            attr: anon::attr(task, AnonMount::Inode, 0o600),
            this: this.clone(),
            state: Mutex::new(State::default()),
            queue: WaitQueue::new(),
            _counted: counted,
        }))
    }

    /// Watches the inode of `dentry`, or changes what it is watched for. Returns the watch's number.
    ///
    /// # Errors
    /// `EEXIST` under `IN_MASK_CREATE`, `ENOSPC`.
    pub fn add(&self, dentry: &Arc<Dentry>, mask: InotifyMask) -> SysResult<i32> {
        // Before anybody can end it.
        dentry.inode().clone().watch(dentry);
        let result = self.add_mark(dentry, mask);
        if !matches!(result, Ok((_, true))) {
            dentry.inode().unwatch();
        }
        result.map(|(wd, _)| wd)
    }

    /// Adds a watch, and returns its number and whether it is new.
    fn add_mark(&self, dentry: &Arc<Dentry>, mask: InotifyMask) -> SysResult<(i32, bool)> {
        let kept = (mask & KEPT) | InotifyMask::UNMOUNT;
        let mut state = self.state.lock();
        let mut slot = dentry.inode().extras().watches.lock();
        let marks = Marks::of(&mut slot);
        if let Some(wd) = marks.find(self)
            && let Some(watch) = state.watches.get_mut(&wd)
        {
            if mask.contains(InotifyMask::MASK_CREATE) {
                return Err(Errno::EEXIST);
            }
            let is_adding = mask.contains(InotifyMask::MASK_ADD);
            watch.mask = if is_adding { watch.mask | kept } else { kept };
            return Ok((wd, false));
        }
        if state.watches.len() >= MAX_WATCHES {
            return Err(Errno::ENOSPC);
        }
        let wd = state.last_wd.checked_add(1).ok_or(Errno::ENOSPC)?;
        state.last_wd = wd;
        state.watches.insert(wd, Watch { dentry: dentry.clone(), mask: kept });
        marks.list.lock().push(Mark { inotify: self.this.clone(), wd });
        notify::watch_added();
        Ok((wd, true))
    }

    /// Removes a watch.
    ///
    /// # Errors
    /// `EINVAL` for a number that is none.
    pub fn remove(&self, wd: i32) -> SysResult<()> {
        let watch = {
            let mut state = self.state.lock();
            let watch = state.watches.remove(&wd).ok_or(Errno::EINVAL)?;
            state.events.push(ignored(wd));
            watch
        };
        Marks::remove(&watch.dentry, &self.this, wd);
        self.queue.notify(Events::READABLE);
        Ok(())
    }

    /// Is told of an event on the inode of a watch.
    fn happened(&self, wd: i32, mask: u32, cookie: u32, name: Option<&[u8]>) {
        if mask & InotifyMask::Q_OVERFLOW.bits() != 0 {
            let is_new = self.state.lock().events.push(overflow());
            if is_new {
                self.queue.notify(Events::READABLE);
            }
            return;
        }
        let is_gone = mask & InotifyMask::DELETE_SELF.bits() != 0 && name.is_none();
        let (is_new, removed) = {
            let mut state = self.state.lock();
            let Some(watch) = state.watches.get(&wd) else { return };
            if mask & watch.mask.bits() & notify::IN_EXCL_UNLINK != 0 {
                return;
            }
            let mask = mask & !notify::IN_EXCL_UNLINK;
            let is_wanted = mask & watch.mask.bits() & InotifyMask::ALL_EVENTS.bits() != 0;
            let is_last = is_wanted && watch.mask.contains(InotifyMask::ONESHOT);
            if !is_wanted && !is_gone {
                return;
            }
            let mut is_new = false;
            if is_wanted {
                let name = name.unwrap_or_default().to_vec();
                is_new = state.events.push(Queued { wd, mask, cookie, name });
            }
            let removed = if is_last || is_gone { state.watches.remove(&wd) } else { None };
            if removed.is_some() {
                is_new |= state.events.push(ignored(wd));
            }
            (is_new, removed)
        };
        if let Some(watch) = removed {
            Marks::remove(&watch.dentry, &self.this, wd);
        }
        if is_new {
            self.queue.notify(Events::READABLE);
        }
    }
}

/// The event that says that others were lost.
fn overflow() -> Queued {
    Queued { wd: -1, mask: InotifyMask::Q_OVERFLOW.bits(), cookie: 0, name: Vec::new() }
}

/// The event that says that a watch is no more.
fn ignored(wd: i32) -> Queued {
    Queued { wd, mask: InotifyMask::IGNORED.bits(), cookie: 0, name: Vec::new() }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        let watches = std::mem::take(&mut self.state.lock().watches);
        for (wd, watch) in watches {
            Marks::remove(&watch.dentry, &self.this, wd);
        }
    }
}

impl File for Inotify {
    fn attr(&self) -> SysResult<Attr> {
        Ok(self.attr)
    }

    fn anonymous_name(&self) -> String {
        String::from("anon_inode:inotify")
    }

    fn fd_info(&self, _task: &CurrentTask) -> String {
        let state = self.state.lock();
        let mut text = String::new();
        for (wd, watch) in &state.watches {
            let Ok(attr) = watch.dentry.inode().attr() else { continue };
            let mask = (watch.mask & !InotifyMask::UNMOUNT).bits();
            let (ino, dev) = (attr.ino, attr.dev);
            let _ = writeln!(
                text,
                "inotify wd:{wd:x} ino:{ino:x} sdev:{dev:x} mask:{mask:x} ignored_mask:0"
            );
        }
        text
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _task: &CurrentTask, dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        let mut done = 0;
        loop {
            let taken = self.state.lock().events.take(dst.remaining());
            let event = match taken {
                Ok(Some(event)) => event,
                Ok(None) if done == 0 => return Err(Errno::EAGAIN),
                Err(errno) if done == 0 => return Err(errno),
                _ => return Ok(done),
            };
            let bytes = event.to_bytes();
            match dst.put(&bytes) {
                Ok(n) if n == bytes.len() => done += n,
                Err(errno) if done == 0 => return Err(errno),
                Ok(_) if done == 0 => return Err(Errno::EFAULT),
                _ => return Ok(done),
            }
        }
    }

    fn poll(&self) -> Events {
        let is_empty = self.state.lock().events.events.is_empty();
        if is_empty { Events::empty() } else { Events::READABLE }
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

    fn ioctl(&self, task: &CurrentTask, _open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        if request != FIONREAD {
            return Err(Errno::ENOTTY.into());
        }
        let n_bytes = self.state.lock().events.n_bytes;
        let n_bytes = i32::try_from(n_bytes).unwrap_or(i32::MAX);
        task.write_obj(UserPtr::new(UserAddr(arg)), &n_bytes)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use syscalls::Errno;

    use super::{MAX_QUEUED, Queue, Queued};

    fn event(wd: i32, name: &[u8]) -> Queued {
        Queued { wd, mask: 1, cookie: 0, name: name.to_vec() }
    }

    #[test]
    fn repeated_event_is_queued_once() {
        let mut queue = Queue::default();
        assert!(queue.push(event(1, b"a")));
        assert!(!queue.push(event(1, b"a")));
        assert!(queue.push(event(1, b"b")));
        assert_eq!(queue.events.len(), 2);
    }

    #[test]
    fn full_queue_says_so_once() {
        let mut queue = Queue::default();
        for wd in 0..20_000 {
            queue.push(event(wd, b""));
        }
        assert_eq!(queue.events.len(), MAX_QUEUED + 1);
        assert_eq!(queue.events.back().map(|last| last.wd), Some(-1));
    }

    #[test]
    fn names_are_padded_to_the_size_of_the_record() {
        assert_eq!(event(1, b"").to_bytes().len(), 16);
        assert_eq!(event(1, b"fifteen-letters").to_bytes().len(), 32);
        assert_eq!(event(1, b"sixteen-letters!").to_bytes().len(), 48);
    }

    #[test]
    fn event_that_does_not_fit_stays() {
        let mut queue = Queue::default();
        queue.push(event(1, b"name"));
        assert_eq!(queue.take(31), Err(Errno::EINVAL));
        assert_eq!(queue.take(32), Ok(Some(event(1, b"name"))));
        assert_eq!(queue.n_bytes, 0);
    }
}
