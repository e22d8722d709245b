//! The client of a gofer: files of the host, by way of a process that alone can open them.
//!
//! A [`GoferFs`] is one connection, and so one mount. A [`GoferInode`] is a file on it that the
//! gofer knows by a fid; inodes are unique by the host's device and inode number, so hard links
//! share one. An opened regular file is a host descriptor that the gofer has donated: reading,
//! writing, `fstat` and mapping go to the host kernel without it.
//!
//! What may be remembered is decided by [`Caching`]. Lock order: `Store::inodes`, then
//! `GoferInode::state`, then the connection's and `Store::ring`; none is held across a call of the gofer but the
//! connection's own and those of [`watch`].
//!
//! Architecture Invariant: no path is composed here. The gofer is asked for single names below
//! files that it has named itself.

mod acl;
mod ahead;
mod attr;
mod connection;
mod directory;
mod file;
mod inode;
mod names;
mod watch;

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use gofer_wire::flags::MountFlags;
use gofer_wire::{Fid, ROOT_FID, Request, VERSION, reply};
use syscalls::SysResult;
use syscalls::abi::fs::Statfs;

use crate::sync::{HostReadiness, Mutex};
use crate::vfs::{FileSystem, Inode};
use ahead::{Results, Ring};
use connection::Connection;
use directory::Listing;
use watch::Watching;

pub use inode::GoferInode;

/// How many donated descriptors are kept beyond their last use.
const MAX_RECENT: usize = 512;

/// A directory that was changed less long ago may change again without having other times.
const SETTLED: Duration = Duration::from_millis(100);

/// How long what a walk has fetched serves the rest of the same system call, on a mount that others
/// may change.
const FRESH: Duration = Duration::from_micros(200);

/// Who else may change the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Nobody: names, attributes and missing names are remembered until we change them. For the
    /// image below an overlay.
    Exclusive,
    /// Hardly anybody: what is remembered is believed for a moment, and not beyond a message from
    /// outside. For a root that was made for this container, in which managers copy files.
    Own,
    /// Anybody on the host: every use asks again. For bind mounts.
    Shared,
}

/// A mount that a gofer serves.
pub struct GoferFs {
    store: Arc<Store>,
    root: Arc<GoferInode>,
    kind: &'static str,
}

/// What all inodes of a mount share.
pub(crate) struct Store {
    connection: Connection,
    caching: Caching,
    flags: MountFlags,
    /// [`FRESH`], but in tests.
    fresh: Duration,
    /// Every inode that is in use, by the host's device and inode number. The fid keeps the host's
    /// inode in being, so the numbers are not used for another file meanwhile.
    inodes: Mutex<HashMap<Identity, Weak<GoferInode>>>,
    /// Descriptors used last, to keep them from being closed and asked for again.
    recent: Mutex<VecDeque<Arc<OwnedFd>>>,
    /// Listings read last, and what was found of their names.
    ring: Mutex<Ring>,
    watching: Watching,
    /// Counts the occasions after which all attributes are fetched again.
    epoch: AtomicU64,
    /// Counts changes of names.
    n_changes: AtomicU64,
    /// Counts the occasions on which others may have changed files, under [`Caching::Own`].
    round: AtomicU64,
}

/// The host's device (major, minor) and inode number.
type Identity = (u32, u32, u64);

impl GoferFs {
    /// Takes over one end of a connection.
    ///
    /// # Errors
    /// `EIO` where nobody answers, `EPROTO` where somebody answers who speaks another version.
    pub fn attach(socket: OwnedFd, caching: Caching) -> SysResult<Self> {
        Self::attach_with(socket, caching, FRESH)
    }

    fn attach_with(socket: OwnedFd, caching: Caching, fresh: Duration) -> SysResult<Self> {
        let connection = Connection::new(socket);
        let attach: reply::Attach = connection.call_fixed(&Request::Attach { version: VERSION })?;
        let store = Arc::new(Store {
            connection,
            caching,
            flags: attach.mount_flags(),
            fresh,
            inodes: Mutex::new(HashMap::new()),
            recent: Mutex::new(VecDeque::new()),
            ring: Mutex::new(Ring::default()),
            watching: Watching::default(),
            epoch: AtomicU64::new(0),
            n_changes: AtomicU64::new(0),
            round: AtomicU64::new(0),
        });
        let root = store.adopt(reply::Node::new(ROOT_FID, attach.attr), None);
        let statfs: gofer_wire::Statfs =
            store.connection.call_fixed(&Request::Statfs { fid: ROOT_FID })?;
        Ok(Self { store, root, kind: attr::file_system_name(statfs.kind) })
    }

    /// Lets whoever watches files hear of what others do to them. Without, they hear of the sandbox's own doings alone.
    pub fn hear(&self, readiness: Arc<dyn HostReadiness>) {
        self.store.watching.set_readiness(readiness);
    }

    /// Returns whether the gofer refuses changes.
    pub fn is_readonly(&self) -> bool {
        self.store.flags.contains(MountFlags::READONLY)
    }

    /// Makes a host file that has no name and never gets one, where an overlay keeps a file's data
    /// outside of memory. Returns it open for reading and writing, and open for reading.
    ///
    /// # Errors
    /// `EROFS` where the gofer does not permit it, `EOPNOTSUPP` where the host's file system has no
    /// such files, `ENOSPC`.
    pub fn backing_file(&self) -> SysResult<[OwnedFd; 2]> {
        self.store.connection.call_two_descriptors(&Request::TmpFile { dir: ROOT_FID })
    }
}

impl FileSystem for GoferFs {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> SysResult<Statfs> {
        let statfs = self.store.connection.call_fixed(&Request::Statfs { fid: ROOT_FID })?;
        Ok(attr::from_statfs(&statfs))
    }

    fn distrust(&self) {
        if self.store.caching == Caching::Own {
            self.store.round.fetch_add(1, Ordering::Relaxed);
            self.store.advance_epoch();
        }
    }

    fn sync(&self) -> SysResult<()> {
        if self.is_readonly() {
            return Ok(());
        }
        self.store.connection.call_status(&Request::SyncFs { fid: ROOT_FID })
    }
}

impl Store {
    /// Returns the inode for what the gofer has named: the one in use, or a new one.
    fn adopt(self: &Arc<Self>, node: reply::Node, target: Option<Vec<u8>>) -> Arc<GoferInode> {
        let identity = (node.attr.dev_major, node.attr.dev_minor, node.attr.ino);
        let mut inodes = self.inodes.lock();
        let known = inodes.get(&identity).and_then(Weak::upgrade);
        if let Some(known) = known {
            drop(inodes);
            if known.fid() != node.fid {
                self.connection.close(node.fid);
            }
            known.update(&node.attr);
            return known;
        }
        let inode = GoferInode::new(self.clone(), node, target);
        inodes.insert(identity, Arc::downgrade(&inode));
        inode
    }

    /// Is told that an inode has gone, and whether its file may go with it.
    fn retire(&self, identity: Identity, fid: Fid, is_unnamed: bool) {
        let mut inodes = self.inodes.lock();
        // Another one may have taken its place already.
        if inodes.get(&identity).is_some_and(|inode| inode.strong_count() == 0) {
            inodes.remove(&identity);
        }
        drop(inodes);
        if fid != ROOT_FID {
            self.connection.close(fid);
        } else {
            let kept = self.ring.lock().close();
            drop(kept);
        }
        if is_unnamed {
            self.connection.release();
        }
    }

    /// Keeps a descriptor for a while.
    fn remember(&self, descriptor: &Arc<OwnedFd>) {
        let mut recent = self.recent.lock();
        if recent.iter().any(|known| Arc::ptr_eq(known, descriptor)) {
            return;
        }
        recent.push_back(descriptor.clone());
        let oldest = if recent.len() > MAX_RECENT { recent.pop_front() } else { None };
        drop(recent);
        drop(oldest);
    }

    /// Keeps a listing for a while.
    fn remember_listing(&self, listing: &Listing) {
        let gone = self.ring.lock().keep_listing(listing);
        drop(gone);
    }

    /// Keeps for a while what was found below a directory, in the place of what was found there before.
    fn remember_results(&self, old: Option<Arc<Results>>, new: Arc<Results>) {
        let gone = self.ring.lock().keep_results(old, new);
        drop(gone);
    }

    /// Keeps a descriptor no longer.
    fn forget(&self, descriptor: &Arc<OwnedFd>) {
        self.recent.lock().retain(|known| !Arc::ptr_eq(known, descriptor));
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    fn round(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }

    /// Makes all attributes that are remembered old.
    fn advance_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns two numbers, one of which is another one after any change of names.
    fn changes(&self) -> (u64, u64) {
        (self.epoch(), self.n_changes.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;
