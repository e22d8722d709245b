//! Leases: who is told before others open a file, and directory notification, who is told when
//! something in a directory has changed. Both are kept with the inode and belong to open files.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use syscalls::abi::fs::DnFlags;
use syscalls::{Errno, SysResult};

use super::file::OpenFile;
use super::inode::InodeExtras;
use super::notify;
use crate::sync::Events;

/// How many leases there are: with none, opening a file costs one load.
static N_LEASES: AtomicUsize = AtomicUsize::new(0);

/// Who is told by a signal.
pub trait Messenger: Send + Sync {
    /// Tells the owner of the open file.
    fn tell(&self);
}

/// What a lease will be because somebody wants to open the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Breaking {
    No,
    /// A write lease will be a read lease.
    ToRead,
    /// The lease will be gone.
    ToNothing,
}

/// A lease on an inode.
struct Lease {
    file: Weak<OpenFile>,
    is_write: bool,
    breaking: Breaking,
    messenger: Arc<dyn Messenger>,
}

/// A notification asked for by `F_NOTIFY`.
struct DirNotify {
    file: Weak<OpenFile>,
    events: DnFlags,
    messenger: Arc<dyn Messenger>,
}

/// What an inode keeps here.
#[derive(Default)]
pub struct Told {
    leases: Vec<Lease>,
    notifies: Vec<DirNotify>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        N_LEASES.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for DirNotify {
    fn drop(&mut self) {
        notify::watch_removed();
    }
}

impl Lease {
    fn is_of(&self, file: &OpenFile) -> bool {
        std::ptr::eq(self.file.as_ptr(), file)
    }

    /// Tells whether somebody who opens the file for reading, or writing, has to wait.
    fn conflicts(&self, is_write: bool) -> bool {
        self.is_write || is_write
    }
}

/// Tells whether there may be a lease somewhere.
pub fn is_any() -> bool {
    N_LEASES.load(Ordering::Relaxed) != 0
}

/// Gives `file` a lease on its inode, or changes the one it has.
///
/// # Errors
/// `EAGAIN` where others have the file open in a way that the lease would have been told of, or
/// have a lease that keeps this one out.
pub fn set(
    extras: &InodeExtras,
    file: &Arc<OpenFile>,
    is_write: bool,
    messenger: Arc<dyn Messenger>,
) -> SysResult<()> {
    let (writers, readers) = extras.openers();
    let (own_writer, own_reader) =
        if file.is_writable() { (1, 0) } else { (0, i32::from(file.is_readable())) };
    let is_in_use =
        if is_write { (writers, readers) != (own_writer, own_reader) } else { writers > 0 };
    if is_in_use {
        return Err(Errno::EAGAIN);
    }
    {
        let mut told = extras.told.lock();
        let told = told.get_or_insert_default();
        let others = told.leases.iter().filter(|lease| !lease.is_of(file));
        for other in others {
            if is_write || other.breaking == Breaking::ToNothing {
                return Err(Errno::EAGAIN);
            }
        }
        if let Some(own) = told.leases.iter_mut().find(|lease| lease.is_of(file)) {
            own.is_write = is_write;
            own.breaking = Breaking::No;
        } else {
            N_LEASES.fetch_add(1, Ordering::Relaxed);
            let file = Arc::downgrade(file);
            told.leases.push(Lease { file, is_write, breaking: Breaking::No, messenger });
        }
    }
    super::lock::mark(file);
    extras.lock_waiters.notify(Events::IN);
    Ok(())
}

/// Gives up the lease of `file`.
///
/// # Errors
/// `EAGAIN` where it has none.
pub fn unset(extras: &InodeExtras, file: &OpenFile) -> SysResult<()> {
    let gone: Vec<Lease> = match extras.told.lock().as_mut() {
        Some(told) => told.leases.extract_if(.., |lease| lease.is_of(file)).collect(),
        None => Vec::new(),
    };
    if gone.is_empty() {
        return Err(Errno::EAGAIN);
    }
    extras.lock_waiters.notify(Events::IN);
    Ok(())
}

/// Returns whether the lease of `file` is a write lease, or will be one once it has been broken;
/// `None` where there is none.
pub fn get(extras: &InodeExtras, file: &OpenFile) -> Option<bool> {
    let told = extras.told.lock();
    let lease = told.as_ref()?.leases.iter().find(|lease| lease.is_of(file))?;
    match lease.breaking {
        Breaking::No => Some(lease.is_write),
        Breaking::ToRead => Some(false),
        Breaking::ToNothing => None,
    }
}

/// Tells the holders of leases that somebody opens the file, for writing if `is_write`; returns
/// whether all leases that had to be given up have been.
pub fn is_broken(extras: &InodeExtras, is_write: bool) -> bool {
    let mut messengers = Vec::new();
    let is_broken = match extras.told.lock().as_mut() {
        Some(told) => {
            let aim = if is_write { Breaking::ToNothing } else { Breaking::ToRead };
            let conflicting = |lease: &&mut Lease| lease.conflicts(is_write);
            let mut is_broken = true;
            for lease in told.leases.iter_mut().filter(conflicting) {
                is_broken = false;
                if lease.breaking < aim {
                    lease.breaking = aim;
                    messengers.push(lease.messenger.clone());
                }
            }
            is_broken
        }
        None => true,
    };
    for messenger in messengers {
        messenger.tell();
    }
    is_broken
}

/// Breaks the leases that have not been given up in time.
pub fn force(extras: &InodeExtras, is_write: bool) {
    let mut gone = Vec::new();
    if let Some(told) = extras.told.lock().as_mut() {
        let is_due =
            |lease: &Lease| lease.conflicts(is_write) && lease.breaking == Breaking::ToNothing;
        gone.extend(told.leases.extract_if(.., |lease| is_due(lease)));
        for lease in &mut told.leases {
            if lease.breaking == Breaking::ToRead {
                lease.is_write = false;
                lease.breaking = Breaking::No;
            }
        }
    }
    drop(gone);
    extras.lock_waiters.notify(Events::IN);
}

/// Asks for a signal when something in a directory changes; no events end that.
pub fn set_notify(
    extras: &InodeExtras,
    file: &Arc<OpenFile>,
    events: DnFlags,
    messenger: Arc<dyn Messenger>,
) {
    let mut gone = Vec::new();
    {
        let mut told = extras.told.lock();
        let told = told.get_or_insert_default();
        let is_own = |entry: &DirNotify| std::ptr::eq(entry.file.as_ptr(), Arc::as_ptr(file));
        if (events & !DnFlags::MULTISHOT).is_empty() {
            gone.extend(told.notifies.extract_if(.., |entry| is_own(entry)));
        } else if let Some(own) = told.notifies.iter_mut().find(|entry| is_own(entry)) {
            own.events |= events;
        } else {
            notify::watch_added();
            told.notifies.push(DirNotify { file: Arc::downgrade(file), events, messenger });
        }
    }
    drop(gone);
    super::lock::mark(file);
}

/// Is told of an event (`IN_*`) in a directory.
pub(super) fn happened(extras: &InodeExtras, mask: u32) {
    send(extras, dn_events(mask));
}

/// Is told that something has got another name within a directory.
pub(super) fn renamed(extras: &InodeExtras) {
    send(extras, DnFlags::RENAME);
}

fn send(extras: &InodeExtras, events: DnFlags) {
    let mut messengers = Vec::new();
    let mut gone = Vec::new();
    match extras.told.lock().as_mut() {
        Some(told) if !told.notifies.is_empty() => {
            for entry in told.notifies.iter().filter(|entry| entry.events.intersects(events)) {
                messengers.push(entry.messenger.clone());
            }
            let is_done = |entry: &DirNotify| {
                entry.events.intersects(events) && !entry.events.contains(DnFlags::MULTISHOT)
            };
            gone.extend(told.notifies.extract_if(.., |entry| is_done(entry)));
        }
        _ => return,
    }
    drop(gone);
    for messenger in messengers {
        messenger.tell();
    }
}

fn dn_events(mask: u32) -> DnFlags {
    let mut events = DnFlags::empty();
    events.set(DnFlags::ACCESS, mask & notify::IN_ACCESS != 0);
    events.set(DnFlags::MODIFY, mask & notify::IN_MODIFY != 0);
    events.set(DnFlags::CREATE, mask & (notify::IN_CREATE | notify::IN_MOVED_TO) != 0);
    events.set(DnFlags::DELETE, mask & (notify::IN_DELETE | notify::IN_MOVED_FROM) != 0);
    events.set(DnFlags::ATTRIB, mask & notify::IN_ATTRIB != 0);
    events
}

/// Gives up what an open file that goes away still has.
pub(super) fn release_open_file(extras: &InodeExtras, file: &OpenFile) {
    let _ = unset(extras, file);
    let gone: Vec<DirNotify> = match extras.told.lock().as_mut() {
        Some(told) => {
            let is_own = |entry: &DirNotify| std::ptr::eq(entry.file.as_ptr(), file);
            told.notifies.extract_if(.., |entry| is_own(entry)).collect()
        }
        None => Vec::new(),
    };
    drop(gone);
}
