//! `epoll(7)`: a set of files and the list of those that may be ready.
//!
//! An [`Item`] is one descriptor of the set. It is registered with the file's wait queue for as
//! long as it is in the set; when the file announces something, the item goes to the list, and
//! waiting looks at no other items. An item refers to its open file description weakly: when the
//! last descriptor of that is closed, the item is as good as removed.
//!
//! What is found again and again without a change is lent to the process that does so, which then finds it without
//! the sentry: that nothing is listed, or the events of the listed items, where looking changes nothing of them
//! (they are level-triggered, and all are wanted) and their files take back what they have said
//! ([`File::vouch_for`]). The first item that is listed takes it back, before whoever has made it ready goes on; so
//! does a change of the set, holding the lock of the items.
//!
//! Locks: [`Epoll::items`] (held while files are polled; an instance before those that it
//! watches), `Item::state`, [`Epoll::ready`]. `NESTING` comes before all of them. A file may
//! announce changes under its own locks: the announcement takes only `ready`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use sentry_platform::lent::{FileSource, FileToLend, LentFile};
use sentry_platform::{HostCall, StreamEnd};
use syscalls::abi::poll::{EP_MAX_NESTS, EpollEvent, EpollEvents};
use syscalls::{Errno, SysResult};
use zerocopy::IntoBytes;

use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::CurrentTask;
use crate::vfs::anon::{self, AnonMount};
use crate::vfs::file::{StreamUser, downcast};
use crate::vfs::{Attr, File, OpenFile};

/// Serialises changes that nest one instance in another.
static NESTING: Mutex<()> = Mutex::new(());

/// After how many looks in a row that find the same the list is lent for the first time.
const FIRST: u32 = 32;
/// After how many where it has been worth it the last time.
const AGAIN: u32 = 8;
/// The most, where it was not several times in a row.
const MAX: u32 = 1 << 16;
/// How many looks its process must have had for it to have been worth it.
const WORTH: u32 = 16;

/// A descriptor in the set: the number under which it was added, and the description.
type Key = (i32, usize);

/// An epoll instance.
pub struct Epoll {
    attr: Attr,
    items: Mutex<Items>,
    ready: Mutex<Ready>,
    /// How many looks in a row have found the same, and how many there must be.
    n_same: AtomicU32,
    wanted: AtomicU32,
    queue: WaitQueue,
    /// The instances that watch this one.
    parents: Mutex<Vec<Weak<Epoll>>>,
    this: Weak<Epoll>,
}

#[derive(Default)]
struct Ready {
    list: VecDeque<Arc<Item>>,
    /// The list, where it is lent: only with the lock of the items, and while it stays as it is.
    lent: Option<Arc<dyn LentFile>>,
}

#[derive(Default)]
struct Items {
    map: BTreeMap<Key, Arc<Item>>,
    /// What the last look has found, where looking has changed nothing.
    last: Vec<EpollEvent>,
    /// The size at which items of closed files are looked for.
    prune_at: usize,
}

struct Item {
    this: Weak<Item>,
    epoll: Weak<Epoll>,
    open: Weak<OpenFile>,
    /// `EPOLLEXCLUSIVE`, which cannot be changed.
    is_exclusive: bool,
    state: Mutex<ItemState>,
    /// Whether the item is in the list.
    is_listed: AtomicBool,
}

struct ItemState {
    /// What is waited for, and the flags; nothing but flags once a one-shot item has fired.
    events: EpollEvents,
    data: u64,
    is_removed: bool,
    registrations: Vec<Registration>,
}

/// The flags among the events.
const FLAGS: EpollEvents = EpollEvents::EXCLUSIVE
    .union(EpollEvents::WAKEUP)
    .union(EpollEvents::ONESHOT)
    .union(EpollEvents::ET);

/// What may stand beside `EPOLLEXCLUSIVE`.
const EXCLUSIVE_OK: EpollEvents = EpollEvents::EXCLUSIVE
    .union(EpollEvents::IN)
    .union(EpollEvents::OUT)
    .union(EpollEvents::ERR)
    .union(EpollEvents::HUP)
    .union(EpollEvents::WAKEUP)
    .union(EpollEvents::ET);

/// A change of the set.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// `EPOLL_CTL_ADD`
    Add(EpollEvent),
    /// `EPOLL_CTL_MOD`
    Modify(EpollEvent),
    /// `EPOLL_CTL_DEL`
    Delete,
}

impl ItemState {
    fn new(event: EpollEvent) -> Self {
        let EpollEvent { events, data } = event;
        let events = EpollEvents::from_bits_retain(events) | EpollEvents::ERR | EpollEvents::HUP;
        Self {
            // Only a process with CAP_BLOCK_SUSPEND keeps the machine awake, and here is none.
            events: events.difference(EpollEvents::WAKEUP),
            data,
            is_removed: false,
            registrations: Vec::new(),
        }
    }

    fn wanted(&self) -> Events {
        Events::from_bits_truncate(self.events.difference(FLAGS).bits())
    }
}

impl Item {
    /// Returns what the item is ready for.
    fn poll(&self, state: &ItemState) -> Events {
        let wanted = state.wanted();
        if state.is_removed || wanted.is_empty() {
            return Events::empty();
        }
        match self.open.upgrade() {
            Some(open) => open.file.poll() & wanted,
            None => Events::empty(),
        }
    }

    /// Returns what there is to tell of an item that is ready, where that is the same each time.
    fn steady_event(&self) -> Option<EpollEvent> {
        let state = self.state.lock();
        let ready = self.poll(&state);
        let is_steady = !ready.is_empty() && !state.events.intersects(FLAGS);
        is_steady.then(|| EpollEvent { events: ready.bits(), data: state.data })
    }

    /// Returns whether the file is ready for just these events, and takes back `set` when that may change.
    fn vouches(&self, event: EpollEvent, set: &Weak<dyn LentFile>) -> bool {
        let state = self.state.lock();
        let open = self.open.upgrade().filter(|_| !state.is_removed);
        let ready = open.and_then(|open| open.file.vouch_for(set));
        ready.is_some_and(|ready| (ready & state.wanted()).bits() == event.events)
    }
}

/// Returns whether the files of these items vouch for what is told of them.
fn are_as_told(listed: &[Arc<Item>], told: &FileSource, set: &Weak<dyn LentFile>) -> bool {
    let FileSource::Set(events) = told else { return false };
    listed.iter().zip(events).all(|(item, event)| item.vouches(*event, set))
}

impl Waiter for Item {
    fn notify(&self, _key: u64, _events: Events) {
        if let Some(epoll) = self.epoll.upgrade()
            && epoll.list(self)
        {
            epoll.queue.notify_one(Events::READABLE);
        }
    }

    fn takes_turns(&self) -> bool {
        self.is_exclusive
    }

    fn notify_in_turn(&self, _key: u64, _events: Events) -> bool {
        let Some(epoll) = self.epoll.upgrade() else { return false };
        let is_news = epoll.list(self);
        let has_waiters = epoll.queue.has_waiters();
        if is_news {
            epoll.queue.notify_one(Events::READABLE);
        }
        is_news && has_waiters
    }
}

impl Epoll {
    /// Creates an empty set.
    pub fn new(task: &CurrentTask) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            attr: anon::attr(task, AnonMount::Inode, 0o600),
            items: Mutex::new(Items::default()),
            ready: Mutex::default(),
            n_same: AtomicU32::new(0),
            wanted: AtomicU32::new(FIRST),
            queue: WaitQueue::new(),
            parents: Mutex::new(Vec::new()),
            this: this.clone(),
        })
    }

    /// Puts an item into the list; returns false where it is there already.
    fn list(&self, item: &Item) -> bool {
        if item.is_listed.swap(true, Ordering::SeqCst) {
            return false;
        }
        let Some(item) = item.this.upgrade() else { return false };
        let lent = {
            let mut ready = self.ready.lock();
            ready.list.push_back(item);
            ready.lent.take()
        };
        self.has_back(lent);
        true
    }

    /// Takes the list back where it is lent.
    fn take_back(&self) {
        let lent = self.ready.lock().lent.take();
        self.has_back(lent);
    }

    fn has_back(&self, lent: Option<Arc<dyn LentFile>>) {
        let Some(lent) = lent else { return };
        let (_, n_calls) = lent.take_back();
        self.n_same.store(0, Ordering::Relaxed);
        if n_calls >= WORTH {
            self.wanted.store(AGAIN, Ordering::Relaxed);
        } else {
            self.want_more();
        }
    }

    fn want_more(&self) {
        self.n_same.store(0, Ordering::Relaxed);
        let wanted = self.wanted.load(Ordering::Relaxed).saturating_mul(2).min(MAX);
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Notes that a look that does not wait has found nothing, as before or not.
    pub fn note_idle(&self) {
        let mut items = self.items.lock();
        let is_same = items.last.is_empty();
        items.last.clear();
        self.note_look(is_same);
    }

    /// Notes that somebody is about to wait for a change.
    pub fn note_wait(&self) {
        self.note_look(false);
    }

    fn note_look(&self, is_same: bool) {
        let n_same =
            if is_same { self.n_same.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        self.n_same.store(n_same, Ordering::Relaxed);
    }

    /// Changes the set: `fd` and `open` are the descriptor and what it refers to.
    ///
    /// # Errors
    /// `EPERM` for a file that is always ready; `EINVAL` for the set itself and for wrong flags;
    /// `EEXIST`, `ENOENT`; `ELOOP` for sets that watch each other, or too deep.
    pub fn control(&self, fd: i32, open: &Arc<OpenFile>, change: Change) -> SysResult<()> {
        if !open.file.is_pollable() {
            return Err(Errno::EPERM);
        }
        let nested = downcast::<Self>(&open.file);
        if nested.as_ref().is_some_and(|nested| std::ptr::eq(Arc::as_ptr(nested), self)) {
            return Err(Errno::EINVAL);
        }
        let flags = match change {
            Change::Add(event) | Change::Modify(event) => {
                EpollEvents::from_bits_retain(event.events)
            }
            Change::Delete => EpollEvents::empty(),
        };
        if flags.contains(EpollEvents::EXCLUSIVE) {
            let is_add = matches!(change, Change::Add(_));
            if !is_add || nested.is_some() || flags.intersects(!EXCLUSIVE_OK) {
                return Err(Errno::EINVAL);
            }
        }
        let key = (fd, Arc::as_ptr(open).addr());
        match (change, nested) {
            (Change::Add(event), None) => self.add(key, open, event),
            (Change::Add(event), Some(nested)) => {
                let _nesting = NESTING.lock();
                self.check_nesting(&nested)?;
                self.add(key, open, event)?;
                let mut parents = nested.parents.lock();
                if parents.len() == parents.capacity() {
                    parents.retain(|parent| parent.strong_count() > 0);
                }
                parents.push(self.this.clone());
                Ok(())
            }
            (Change::Modify(event), _) => self.modify(key, open, event),
            (Change::Delete, nested) => {
                let mut items = self.items.lock();
                let item = items.map.remove(&key).ok_or(Errno::ENOENT)?;
                let registrations = {
                    let mut state = item.state.lock();
                    state.is_removed = true;
                    std::mem::take(&mut state.registrations)
                };
                self.take_back();
                drop(items);
                drop(registrations);
                if let Some(nested) = nested {
                    let mut parents = nested.parents.lock();
                    if let Some(at) = parents.iter().position(|parent| parent.ptr_eq(&self.this)) {
                        parents.swap_remove(at);
                    }
                }
                Ok(())
            }
        }
    }

    fn add(&self, key: Key, open: &Arc<OpenFile>, event: EpollEvent) -> SysResult<()> {
        let mut items = self.items.lock();
        if items.map.contains_key(&key) {
            return Err(Errno::EEXIST);
        }
        let closed = items.take_closed();
        let item = Arc::new_cyclic(|this| Item {
            this: this.clone(),
            epoll: self.this.clone(),
            open: Arc::downgrade(open),
            is_exclusive: EpollEvents::from_bits_retain(event.events)
                .contains(EpollEvents::EXCLUSIVE),
            state: Mutex::new(ItemState::new(event)),
            is_listed: AtomicBool::new(false),
        });
        items.map.insert(key, item.clone());
        let is_ready = self.watch(&item, open);
        let stale = self.unlist_removed(&items);
        drop(items);
        drop((closed, stale));
        if is_ready {
            self.queue.notify_one(Events::READABLE);
        }
        Ok(())
    }

    /// Takes those items out of the list that are no longer in the set, where they have become as
    /// many as the others.
    fn unlist_removed(&self, items: &Items) -> Vec<Arc<Item>> {
        if self.ready.lock().list.len() <= items.map.len().max(Items::FEW).saturating_mul(2) {
            return Vec::new();
        }
        let list = std::mem::take(&mut self.ready.lock().list);
        let is_present =
            |item: &Arc<Item>| item.open.strong_count() > 0 && !item.state.lock().is_removed;
        let (present, removed): (Vec<_>, Vec<_>) = list.into_iter().partition(is_present);
        let mut ready = self.ready.lock();
        for item in present.into_iter().rev() {
            ready.list.push_front(item);
        }
        let is_left = !ready.list.is_empty();
        drop(ready);
        // Somebody may have found the list empty meanwhile.
        if is_left {
            self.queue.notify_one(Events::READABLE);
        }
        removed
    }

    fn modify(&self, key: Key, open: &Arc<OpenFile>, event: EpollEvent) -> SysResult<()> {
        let items = self.items.lock();
        let item = items.map.get(&key).ok_or(Errno::ENOENT)?;
        let old = {
            let mut state = item.state.lock();
            if state.events.contains(EpollEvents::EXCLUSIVE) {
                return Err(Errno::EINVAL);
            }
            std::mem::replace(&mut *state, ItemState::new(event))
        };
        self.take_back();
        let is_ready = self.watch(item, open);
        drop(items);
        drop(old);
        if is_ready {
            self.queue.notify_one(Events::READABLE);
        }
        Ok(())
    }

    /// Registers an item with its file, then lists it where it is ready already. Returns whether
    /// the list has grown.
    fn watch(&self, item: &Arc<Item>, open: &OpenFile) -> bool {
        let waiter: Arc<dyn Waiter> = item.clone();
        let mut state = item.state.lock();
        state.registrations = open.file.register(&waiter, state.wanted(), 0);
        let is_ready = !item.poll(&state).is_empty();
        drop(state);
        is_ready && self.list(item)
    }

    /// Returns up to `max` events. A level-triggered item stays in the list, behind the others.
    pub fn harvest(&self, max: usize) -> Vec<EpollEvent> {
        // First, as another thread may have taken the list to put it back.
        let mut items = self.items.lock();
        let (mut list, lent) = {
            let mut ready = self.ready.lock();
            if ready.list.is_empty() {
                return Vec::new();
            }
            (std::mem::take(&mut ready.list), ready.lent.take())
        };
        // The order may be another one afterwards.
        self.has_back(lent);
        let mut events = Vec::new();
        let mut again = Vec::new();
        while events.len() < max
            && let Some(item) = list.pop_front()
        {
            // Whatever happens from here on lists the item anew.
            item.is_listed.store(false, Ordering::SeqCst);
            let mut state = item.state.lock();
            let ready = item.poll(&state);
            if ready.is_empty() {
                continue;
            }
            events.push(EpollEvent { events: ready.bits(), data: state.data });
            if state.events.contains(EpollEvents::ONESHOT) {
                state.events &= FLAGS;
            } else if !state.events.contains(EpollEvents::ET) {
                drop(state);
                again.push(item);
            }
        }
        let changes_nothing = list.is_empty() && again.len() == events.len();
        self.note_look(items.is_same(&events, changes_nothing));
        let is_left = {
            let mut ready = self.ready.lock();
            for item in list.into_iter().rev() {
                ready.list.push_front(item);
            }
            for item in again {
                if !item.is_listed.swap(true, Ordering::SeqCst) {
                    ready.list.push_back(item);
                }
            }
            !ready.list.is_empty()
        };
        drop(items);
        // Another thread may go on with what is left.
        if is_left && !events.is_empty() {
            self.queue.notify_one(Events::READABLE);
        }
        events
    }

    /// Returns the items in the list, where they are few. The caller holds the lock of the items.
    fn listed(&self) -> Option<Vec<Arc<Item>>> {
        let ready = self.ready.lock();
        let are_few = ready.list.len() <= FileSource::MAX_EVENTS;
        are_few.then(|| ready.list.iter().cloned().collect())
    }

    /// Registers a thread that waits for events; one event wakes one such thread.
    pub fn register_wait(&self, waiter: &Arc<dyn Waiter>) -> Registration {
        self.queue.register_exclusive(waiter, Events::READABLE, 0)
    }

    /// Returns the files that are watched under a descriptor, in a fixed order.
    pub fn watched(&self, fd: i32) -> Vec<Arc<OpenFile>> {
        let items = self.items.lock();
        let range = items.map.range((fd, 0)..=(fd, usize::MAX));
        range.filter_map(|(_, item)| item.open.upgrade()).collect()
    }

    /// Checks that `target` can be watched by this instance. The caller holds `NESTING`.
    fn check_nesting(&self, target: &Arc<Self>) -> SysResult<()> {
        let mut below = BTreeMap::new();
        let below = self.depth_below(target, 0, &mut below)?;
        let above = self.height_above(0, &mut BTreeMap::new());
        if below + 1 + above > EP_MAX_NESTS { Err(Errno::ELOOP) } else { Ok(()) }
    }

    /// Returns how many levels of instances are below `target`, none of which may be this one.
    fn depth_below(
        &self,
        target: &Arc<Self>,
        level: usize,
        known: &mut BTreeMap<usize, usize>,
    ) -> SysResult<usize> {
        if std::ptr::eq(Arc::as_ptr(target), self) || level > EP_MAX_NESTS {
            return Err(Errno::ELOOP);
        }
        let id = Arc::as_ptr(target).addr();
        if let Some(depth) = known.get(&id) {
            return Ok(*depth);
        }
        let files: Vec<_> =
            target.items.lock().map.values().filter_map(|item| item.open.upgrade()).collect();
        let mut depth = 0;
        for open in &files {
            if let Some(nested) = downcast::<Self>(&open.file) {
                depth = depth.max(1 + self.depth_below(&nested, level + 1, known)?);
            }
        }
        known.insert(id, depth);
        Ok(depth)
    }

    /// Returns how many levels of instances are above this one.
    fn height_above(&self, level: usize, known: &mut BTreeMap<usize, usize>) -> usize {
        let id = std::ptr::from_ref(self).addr();
        if level > EP_MAX_NESTS {
            return 0;
        }
        if let Some(height) = known.get(&id) {
            return *height;
        }
        let parents: Vec<_> = {
            let mut parents = self.parents.lock();
            parents.retain(|parent| parent.strong_count() > 0);
            parents.iter().filter_map(Weak::upgrade).collect()
        };
        let above = parents.iter().map(|parent| 1 + parent.height_above(level + 1, known));
        let height = above.max().unwrap_or(0);
        known.insert(id, height);
        height
    }
}

impl Items {
    /// A set of this size is not worth a look.
    const FEW: usize = 32;

    /// Notes what a look has found; returns whether that could have been said before. `changes_nothing` is whether the next
    /// one will find the same, as long as the files stay what they are.
    fn is_same(&mut self, events: &[EpollEvent], changes_nothing: bool) -> bool {
        if !changes_nothing || events.len() > FileSource::MAX_EVENTS {
            self.last.clear();
            return false;
        }
        let is_same = !events.is_empty() && self.last.as_bytes() == events.as_bytes();
        if !is_same {
            self.last.clear();
            self.last.extend_from_slice(events);
        }
        is_same
    }

    /// Takes out the items whose files are closed, where the set has grown enough for that to pay.
    fn take_closed(&mut self) -> Vec<Arc<Item>> {
        if self.map.len() < self.prune_at.max(Self::FEW) {
            return Vec::new();
        }
        let is_closed = |item: &Arc<Item>| item.open.strong_count() == 0;
        let keys: Vec<_> =
            self.map.iter().filter(|(_, item)| is_closed(item)).map(|(key, _)| *key).collect();
        let closed = keys.iter().filter_map(|key| self.map.remove(key)).collect();
        self.prune_at = self.map.len().saturating_mul(2);
        closed
    }
}

impl File for Epoll {
    fn attr(&self) -> SysResult<Attr> {
        Ok(self.attr)
    }

    fn anonymous_name(&self) -> String {
        String::from("anon_inode:[eventpoll]")
    }

    fn fd_info(&self, _task: &CurrentTask) -> String {
        // Without the lock: the last to hold a file closes it.
        let items: Vec<_> =
            self.items.lock().map.iter().map(|((fd, _), item)| (*fd, item.clone())).collect();
        let mut text = String::new();
        for (fd, item) in items {
            let Some(open) = item.open.upgrade() else { continue };
            let Ok(attr) = open.file.attr() else { continue };
            let (events, data) = {
                let state = item.state.lock();
                (state.events.bits(), state.data)
            };
            // A read or write under way holds the offset; its old value is as good as its new one.
            let at = open.offset.try_lock().map_or(0, |offset| *offset);
            let (ino, dev) = (attr.ino, attr.dev);
            let _ = writeln!(
                text,
                "tfd: {fd:8} events: {events:8x} data: {data:16x}  pos:{at} ino:{ino:x} sdev:{dev:x}"
            );
        }
        text
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> Events {
        let _items = self.items.lock();
        loop {
            let Some(item) = self.ready.lock().list.pop_front() else { return Events::empty() };
            item.is_listed.store(false, Ordering::SeqCst);
            let state = item.state.lock();
            let is_ready = !item.poll(&state).is_empty();
            drop(state);
            if is_ready {
                if !item.is_listed.swap(true, Ordering::SeqCst) {
                    self.ready.lock().list.push_front(item);
                }
                return Events::READABLE;
            }
        }
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

    fn descriptor_closed(&self, _owner: u64) {
        self.take_back();
    }

    fn is_lively(&self) -> bool {
        self.n_same.load(Ordering::Relaxed) >= self.wanted.load(Ordering::Relaxed)
    }

    fn lend(&self, user: &StreamUser) -> Vec<HostCall> {
        // To somebody else, or by another descriptor.
        self.take_back();
        // Whoever has taken items from the list, and may put them back, has the lock.
        let items = self.items.lock();
        let listed = self.listed();
        let events = listed.as_ref().and_then(|listed| {
            listed.iter().map(|item| item.steady_event()).collect::<Option<Vec<_>>>()
        });
        let (Some(listed), Some(events)) = (listed, events) else {
            self.want_more();
            return Vec::new();
        };
        let source = FileSource::Set(events);
        let set = FileToLend { source: &source, offset: 0, to_write: None };
        let Some(lent) = user.streams.lend_file(&set).lent else {
            self.want_more();
            return Vec::new();
        };
        // Nobody looks at it yet. From here on whatever changes takes it back.
        if !are_as_told(&listed, &source, &Arc::downgrade(&lent)) {
            self.want_more();
            return Vec::new();
        }
        let id = lent.id();
        {
            let mut ready = self.ready.lock();
            if ready.list.len() != listed.len() {
                return Vec::new();
            }
            ready.lent = Some(lent);
        }
        self.n_same.store(0, Ordering::Relaxed);
        drop(items);
        let streams = Arc::downgrade(&user.streams);
        let end = StreamEnd { stream: id, reads: true, is_file: true, ..StreamEnd::default() };
        if !user.table.teller().tell(&streams, user.fd, &user.file, end) {
            self.take_back();
        }
        Vec::new()
    }
}
