//! [`Watching`]: what others do to files of a mount that they may change, for whoever watches them in the sandbox.
//!
//! The gofer asks the host's kernel, and donates the descriptor from which events are read; one thread of the sentry waits for
//! it with all other descriptors of the host. What this sandbox does itself is announced where it is done, as on every
//! file system, and is told by the host once more: so whoever changes files says so before ([`Own`]), and takes the
//! host's events of it away after. The host queues them before its call returns, so they are all there then.
//!
//! Opening, reading and closing what was only read are not told: the gofer does these for its own ends.
//!
//! DEVIATION: a descriptor for writing that only a mapping held goes when the host wants, and a close by
//! others is told then. A directory that others have moved is not told to be removed.
//!
//! On a mount of which anything is watched, a change costs two reads of the descriptor more, and closing what was open for
//! writing an exchange with the gofer. Where nothing is, either costs one load.
//!
//! Locks: `Watching::buffer` is held while events are read and passed on, `Watching::changes` while the gofer is
//! asked to watch. Whoever hears of an event may end a watch, so `changes` comes after `buffer`; `table` is a leaf.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use gofer_wire::{Request, reply};
use sentry_host::stream;
use syscalls::SysResult;
use syscalls::abi::inotify::{InotifyEvent, InotifyMask};
use zerocopy::FromBytes as _;

use super::inode::GoferInode;
use super::{Caching, Identity, Store};
use crate::log;
use crate::sync::{Events, HostReadiness, Mutex, Registration, WaitQueue, Waiter};
use crate::vfs::dentry::Dentry;
use crate::vfs::{FileType, Inode as _, inode, notify};

/// How much is read at once.
const BUFFER: usize = 16 * 1024;

/// How often it is read in a row: more than the host keeps (`fs.inotify.max_queued_events`), so that only who changes files
/// faster than they can be told of comes to it.
const MAX_READS: usize = 512;

/// How many halves of moves wait for the other one.
const MAX_COOKIES: usize = 64;

/// What a change of a file's content or attributes is told as.
pub(super) const CONTENT: u32 = notify::IN_MODIFY | notify::IN_ATTRIB | notify::IN_CLOSE_WRITE;

/// What is watched on a mount.
#[derive(Default)]
pub(super) struct Watching {
    /// How many files are watched: with none, a change costs one load.
    n_watched: AtomicUsize,
    /// Who waits for descriptors; without one, nothing is watched.
    readiness: OnceLock<Arc<dyn HostReadiness>>,
    source: OnceLock<Source>,
    buffer: Mutex<Vec<u8>>,
    changes: Mutex<HashMap<Identity, Users>>,
    table: Mutex<Table>,
}

/// Where events come from.
struct Source {
    descriptor: OwnedFd,
    key: AtomicU64,
    readiness: Arc<dyn HostReadiness>,
    queue: WaitQueue,
    _registration: Registration,
    _waiter: Arc<dyn Waiter>,
}

/// Who has a file watched.
#[derive(Default)]
struct Users {
    /// How many in the sandbox.
    n_guests: usize,
    /// How many directories below, whose removal is told nowhere else: the gofer holds them.
    n_below: usize,
    /// The watch's number; none where the host refused.
    number: Option<u32>,
    /// Where this directory was when it was first watched.
    above: Option<(Arc<GoferInode>, Arc<[u8]>)>,
}

/// What events are judged by.
#[derive(Default)]
struct Table {
    watched: HashMap<u32, Watched>,
    /// The directories of `Users::above`.
    below: HashMap<(Identity, Arc<[u8]>), Weak<GoferInode>>,
    /// What this sandbox is doing at the moment.
    own: Vec<(u64, Vec<Change>)>,
    next_own: u64,
    /// The host's cookies of moves, and those that were told for them.
    cookies: VecDeque<(u32, u32)>,
}

#[derive(Clone)]
struct Watched {
    inode: Weak<GoferInode>,
    dentry: Weak<Dentry>,
}

/// Something that this sandbox does.
pub(super) enum Change {
    /// A name comes, goes or means another file.
    Name(Identity, Box<[u8]>),
    /// A file itself changes, as these events tell.
    File { identity: Identity, is_unnamed: bool, mask: u32 },
}

/// Something that this sandbox does, from before it is done until the host's events of it are taken away.
pub(super) struct Own {
    store: Arc<Store>,
    id: u64,
    /// The file that is closed, where it is.
    closes: Option<gofer_wire::Fid>,
}

/// Passes on what the host has told.
struct Reader(Weak<Store>);

/// What is known of the file of an event.
struct Subject {
    identity: Identity,
    /// What the event's name is, as far as that is known.
    child: Option<Identity>,
    /// What the file itself is called.
    link: Option<(Identity, Arc<[u8]>)>,
}

impl Waiter for Reader {
    fn notify(&self, _key: u64, _events: Events) {
        if let Some(store) = self.0.upgrade() {
            let is_empty = store.take_events();
            if let Some(source) = store.watching.source.get().filter(|_| !is_empty) {
                source.ask_again();
            }
        }
    }
}

impl Source {
    /// Asks to be told of what there is still to read, after all others who wait.
    fn ask_again(&self) {
        let fd = self.descriptor.as_fd();
        self.readiness.forget(self.key.load(Ordering::Relaxed), fd);
        if let Ok(key) = self.readiness.clone().follow(fd, &self.queue) {
            self.key.store(key, Ordering::Relaxed);
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.readiness.forget(self.key.load(Ordering::Relaxed), self.descriptor.as_fd());
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(fid) = self.closes {
            // The gofer closes its own copy of a descriptor after it has answered, and before it answers again.
            let _ = self.store.connection.call_fixed::<gofer_wire::Attr>(&Request::Getattr { fid });
        }
        self.store.take_events();
        let mut table = self.store.watching.table.lock();
        table.own.retain(|(id, _)| *id != self.id);
    }
}

impl Change {
    fn is_told_by(&self, event: &InotifyEvent, name: &[u8], subject: &Subject) -> bool {
        match self {
            Self::Name(dir, own) if name.is_empty() => {
                subject.link.as_ref().is_some_and(|link| link.0 == *dir && *link.1 == **own)
            }
            Self::Name(dir, own) => subject.identity == *dir && *name == **own,
            Self::File { mask, .. } if event.mask & mask == 0 => false,
            Self::File { identity, .. } if name.is_empty() => subject.identity == *identity,
            Self::File { identity, is_unnamed, .. } => {
                subject.child.map_or(*is_unnamed, |child| child == *identity)
            }
        }
    }
}

impl Table {
    /// Translates a cookie of the host: this sandbox has its own.
    fn cookie(&mut self, host: u32) -> u32 {
        if host == 0 {
            return 0;
        }
        if let Some((_, known)) = self.cookies.iter().find(|(cookie, _)| *cookie == host) {
            return *known;
        }
        let new = notify::next_cookie();
        if self.cookies.len() >= MAX_COOKIES {
            self.cookies.pop_front();
        }
        self.cookies.push_back((host, new));
        new
    }
}

impl Watching {
    /// Gives it somebody who waits for descriptors of the host.
    pub(super) fn set_readiness(&self, readiness: Arc<dyn HostReadiness>) {
        let _ = self.readiness.set(readiness);
    }

    /// Returns whether anything is watched.
    pub(super) fn is_on(&self) -> bool {
        self.n_watched.load(Ordering::Relaxed) != 0
    }
}

impl GoferInode {
    /// What a change of this file is told as.
    pub(super) fn as_changed(&self, mask: u32) -> Change {
        let is_unnamed = self.state.lock().is_unnamed;
        Change::File { identity: self.host_identity(), is_unnamed, mask }
    }

    /// As [`Store::own`] for a name below this directory.
    pub(super) fn own_name(&self, name: &[u8]) -> Option<Own> {
        self.store().own(|| vec![Change::Name(self.host_identity(), Box::from(name))])
    }

    /// As [`Store::own`] for the file itself.
    pub(super) fn own_file(&self, mask: u32) -> Option<Own> {
        self.store().own(|| vec![self.as_changed(mask)])
    }
}

impl Store {
    /// Is told that this sandbox is about to change something. The change has been announced to the host's events as
    /// long as what is returned is held.
    pub(super) fn own(self: &Arc<Self>, changes: impl FnOnce() -> Vec<Change>) -> Option<Own> {
        if !self.watching.is_on() {
            return None;
        }
        // What others have done before is told first.
        self.take_events();
        let changes = changes();
        let mut table = self.watching.table.lock();
        let id = table.next_own;
        table.next_own = id.wrapping_add(1);
        table.own.push((id, changes));
        drop(table);
        Some(Own { store: self.clone(), id, closes: None })
    }

    /// Is told that this sandbox is about to close a descriptor for writing.
    pub(super) fn own_close(
        self: &Arc<Self>,
        file: &GoferInode,
        descriptor: &Arc<OwnedFd>,
    ) -> Option<Own> {
        let change = || vec![file.as_changed(notify::IN_CLOSE_WRITE)];
        let mut own = self.own(change)?;
        own.closes = Some(file.fid());
        self.forget(descriptor);
        Some(own)
    }

    /// Watches a file, for somebody who has found it by `dentry`.
    pub(super) fn watch(self: &Arc<Self>, inode: &Arc<GoferInode>, dentry: &Arc<Dentry>) {
        if self.caching != Caching::Shared || self.watching.readiness.get().is_none() {
            return;
        }
        let mut changes = self.watching.changes.lock();
        let users = self.ensure(&mut changes, inode, dentry);
        users.n_guests += 1;
        if users.n_guests > 1 || inode.file_type() != FileType::Directory {
            return;
        }
        let (Some(parent), name) = dentry.parent_and_name() else { return };
        let Some(above) = inode::downcast::<GoferInode>(parent.inode()) else { return };
        users.above = Some((above.clone(), name.clone()));
        self.ensure(&mut changes, &above, &parent).n_below += 1;
        drop(changes);
        let place = (above.host_identity(), name);
        self.watching.table.lock().below.insert(place, Arc::downgrade(inode));
    }

    /// Ends what [`Store::watch`] began.
    pub(super) fn unwatch(&self, identity: Identity) {
        if self.caching != Caching::Shared {
            return;
        }
        let mut changes = self.watching.changes.lock();
        let Some(users) = changes.get_mut(&identity) else { return };
        users.n_guests = users.n_guests.saturating_sub(1);
        if users.n_guests > 0 {
            return;
        }
        let above = users.above.take();
        self.release(&mut changes, identity);
        let Some((above, name)) = above else { return };
        let above_identity = above.host_identity();
        if let Some(users) = changes.get_mut(&above_identity) {
            users.n_below = users.n_below.saturating_sub(1);
            self.release(&mut changes, above_identity);
        }
        drop(changes);
        self.watching.table.lock().below.remove(&(above_identity, name));
    }

    /// Returns the users of a file that is watched from now on at the latest.
    fn ensure<'a>(
        self: &Arc<Self>,
        changes: &'a mut HashMap<Identity, Users>,
        inode: &Arc<GoferInode>,
        dentry: &Arc<Dentry>,
    ) -> &'a mut Users {
        changes.entry(inode.host_identity()).or_insert_with(|| {
            let number = self.begin(inode).inspect_err(|errno| {
                static IS_SAID: AtomicBool = AtomicBool::new(false);
                if !IS_SAID.swap(true, Ordering::Relaxed) {
                    let what = "inotify does not tell of all changes by others";
                    log::warn(format_args!("{what}: {}", errno.text()));
                }
            });
            if let Ok(number) = number {
                let watched =
                    Watched { inode: Arc::downgrade(inode), dentry: Arc::downgrade(dentry) };
                self.watching.table.lock().watched.insert(number, watched);
                self.watching.n_watched.fetch_add(1, Ordering::Relaxed);
            }
            Users { number: number.ok(), ..Users::default() }
        })
    }

    /// Has the gofer watch a file.
    fn begin(self: &Arc<Self>, inode: &GoferInode) -> SysResult<u32> {
        if self.watching.source.get().is_none() {
            let source = self.open_source()?;
            let _ = self.watching.source.set(source);
        }
        if !self.watching.is_on() {
            // What is kept open for writing would be closed at any time. From now on, it goes with its last user.
            let kept = std::mem::take(&mut *self.recent.lock());
            drop(kept);
        }
        self.connection
            .call(&Request::Watch { fid: inode.fid() }, |body, _| reply::fixed::<u32>(body))
    }

    fn open_source(self: &Arc<Self>) -> SysResult<Source> {
        let readiness = self.watching.readiness.get().ok_or(syscalls::Errno::EOPNOTSUPP)?.clone();
        let descriptor = self.connection.call_descriptor(&Request::Notify)?;
        *self.watching.buffer.lock() = vec![0; BUFFER];
        let waiter: Arc<dyn Waiter> = Arc::new(Reader(Arc::downgrade(self)));
        let queue = WaitQueue::new();
        let registration = queue.register(&waiter, Events::READABLE, 0);
        let key = readiness.clone().follow(descriptor.as_fd(), &queue)?;
        Ok(Source {
            descriptor,
            key: AtomicU64::new(key),
            readiness,
            queue,
            _registration: registration,
            _waiter: waiter,
        })
    }

    /// Ends the watch of a file that nobody has watched any more.
    fn release(&self, changes: &mut HashMap<Identity, Users>, identity: Identity) {
        if changes.get(&identity).is_none_or(|users| users.n_guests + users.n_below > 0) {
            return;
        }
        let number = changes.remove(&identity).and_then(|users| users.number);
        if let Some(number) = number {
            self.watching.table.lock().watched.remove(&number);
            self.watching.n_watched.fetch_sub(1, Ordering::Relaxed);
            // Where the gofer has gone, nobody makes sense of the events either.
            let _ = self.connection.call_status(&Request::Unwatch { watch: number });
        }
    }

    /// Reads the events that there are, and passes those on that others have made. Returns whether there are no more.
    fn take_events(&self) -> bool {
        let Some(source) = self.watching.source.get() else { return true };
        let mut buffer = self.watching.buffer.lock();
        for _ in 0..MAX_READS {
            let n = match stream::read(source.descriptor.as_fd(), &mut buffer) {
                Ok(n) if n > 0 => n,
                _ => return true,
            };
            let mut rest = buffer.get(..n).unwrap_or_default();
            while let Ok((event, after)) = InotifyEvent::read_from_prefix(rest) {
                let length = usize::try_from(event.len).unwrap_or(usize::MAX);
                let Some((name, after)) = after.split_at_checked(length) else { break };
                rest = after;
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                self.judge(&event, name);
            }
        }
        false
    }

    /// Passes an event on, where others have made it.
    fn judge(&self, event: &InotifyEvent, name: &[u8]) {
        if event.mask & InotifyMask::Q_OVERFLOW.bits() != 0 {
            return self.overflowed();
        }
        if event.mask & InotifyMask::IGNORED.bits() != 0 {
            return;
        }
        let Ok(number) = u32::try_from(event.wd) else { return };
        let watched = self.watching.table.lock().watched.get(&number).cloned();
        let Some(watched) = watched else { return };
        let Some(inode) = watched.inode.upgrade() else { return };
        let dentry = watched.dentry.upgrade();
        let child = dentry
            .as_ref()
            .filter(|_| !name.is_empty())
            .and_then(|dentry| inode::downcast::<GoferInode>(dentry.known_child(name)?.inode()));
        let link = dentry.as_ref().filter(|_| name.is_empty()).and_then(|dentry| {
            let (parent, name) = dentry.parent_and_name();
            Some((inode::downcast::<GoferInode>(parent?.inode())?.host_identity(), name))
        });
        let subject = Subject {
            identity: inode.host_identity(),
            child: child.as_ref().map(|child| child.host_identity()),
            link,
        };
        let mut table = self.watching.table.lock();
        let mut own = table.own.iter().flat_map(|(_, changes)| changes);
        if own.any(|change| change.is_told_by(event, name, &subject)) {
            return;
        }
        let cookie = table.cookie(event.cookie);
        drop(table);
        // What is known of the files is old.
        inode.set_stale();
        if let Some(child) = &child {
            child.set_stale();
        }
        if event.mask & notify::IN_DELETE != 0 && event.mask & notify::IN_ISDIR != 0 {
            let place = (inode.host_identity(), Arc::from(name));
            let below = self.watching.table.lock().below.get(&place).cloned();
            if let Some(below) = below.and_then(|below| below.upgrade()) {
                tell_gone(below);
            }
        }
        let told = (!name.is_empty()).then_some(name);
        let as_inode: Arc<dyn crate::vfs::Inode> = inode.clone();
        notify::from_host(&as_inode, event.mask, cookie, told);
        let is_file = inode.file_type() != FileType::Directory;
        if is_file && name.is_empty() && event.mask & notify::IN_ATTRIB != 0 {
            tell_gone(inode);
        }
    }

    /// Tells everybody that events were lost.
    fn overflowed(&self) {
        let all: Vec<_> = self.watching.table.lock().watched.values().cloned().collect();
        for inode in all.iter().filter_map(|watched| watched.inode.upgrade()) {
            inode.set_stale();
            let inode: Arc<dyn crate::vfs::Inode> = inode;
            notify::from_host(&inode, InotifyMask::Q_OVERFLOW.bits(), 0, None);
        }
    }
}

/// Tells of the removal of a file itself, where it has no name any more: the host does not as long as the gofer has it.
fn tell_gone(inode: Arc<GoferInode>) {
    inode.set_stale();
    if inode.attr().is_ok_and(|attr| attr.nlink == 0) {
        let inode: Arc<dyn crate::vfs::Inode> = inode;
        notify::from_host(&inode, notify::IN_DELETE_SELF, 0, None);
    }
}
