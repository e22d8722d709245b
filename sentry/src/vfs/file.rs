//! Open files: the trait behind a descriptor, and the open file description.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use sentry_platform::lent::{FileSource, LentFile};
use sentry_platform::{HostCall, Streams};
use syscalls::abi::fs::OpenFlags;
use syscalls::abi::landlock::AccessFs;
use syscalls::{Errno, SysResult};

use super::attr::{Attr, FileType};
use super::fd_table::FdTable;
use super::inode::Inode;
use super::io::{IoSink, IoSource};
use super::lent::{Mark, Offset};
use super::path::Path;
use super::{lock, notify};
use crate::sync::{Events, Mutex, Registration, Waiter};
use crate::task::creds::Credentials;
use crate::task::pid_namespace::PidNamespace;
use crate::task::{CurrentTask, HandlerResult};

/// How a mapping uses a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapMode {
    /// `MAP_PRIVATE`: the donated descriptor is read-only.
    Private,
    /// `MAP_SHARED` that can never become writable: read-only too.
    SharedRead,
    /// `MAP_SHARED` of a file open for writing.
    SharedWrite,
}

/// A host descriptor to map.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// The descriptor; the same `Arc` every time for the same file and access, so that platforms
    /// can cache it.
    pub fd: Arc<OwnedFd>,
    /// What to add to the guest's file offset.
    pub delta: u64,
}

/// A file that can be mapped.
pub trait Mappable: Send + Sync {
    /// Returns what to map for the bytes from `offset` on.
    ///
    /// # Errors
    /// `ENODEV`, `EACCES`, `ENOMEM`.
    fn map(&self, mode: MapMode, offset: u64, len: u64) -> SysResult<Mapping>;

    /// Returns device and inode number: what `/proc/PID/maps` shows and shared futexes are keyed by.
    fn identity(&self) -> (u64, u64);
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOffset {
    /// To this offset.
    At(u64),
    /// To the end (`O_APPEND`, `RWF_APPEND`).
    Append,
}

/// One directory entry.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode number.
    pub ino: u64,
    /// The type.
    pub file_type: FileType,
    /// The offset from which a later `getdents64` goes on behind this entry.
    pub next_offset: u64,
}

/// A receiver of directory entries.
pub trait DirSink {
    /// Takes an entry; returns false where there is no room, in which case it was not taken.
    fn entry(&mut self, entry: &DirEntry<'_>) -> bool;
}

/// An open file. Offsets are the caller's; nothing blocks: what would have to wait says `EAGAIN`.
pub trait File: Any + Send + Sync {
    /// Returns the inode, where there is one. Pipes, sockets and anonymous files have none and
    /// implement `attr`.
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        None
    }

    /// Implements `fstat(2)`.
    ///
    /// # Errors
    /// Those of the store.
    fn attr(&self) -> SysResult<Attr> {
        match self.inode() {
            Some(inode) => inode.attr(),
            None => Err(Errno::EBADF),
        }
    }

    /// Returns the name that `/proc/PID/fd` shows for a file without a path: `pipe:[1]`,
    /// `anon_inode:[eventfd]`.
    fn anonymous_name(&self) -> String {
        String::from("anon_inode:[file]")
    }

    /// Returns whether the file has an offset (`lseek` works, `pread` works).
    fn is_seekable(&self) -> bool {
        true
    }

    /// Returns whether every `lseek(2)` leads to the beginning: the file is the same everywhere.
    fn is_same_everywhere(&self) -> bool {
        false
    }

    /// Reads. A stream ignores `offset`.
    ///
    /// # Errors
    /// `EAGAIN`, `EISDIR`, `EINVAL`, `EIO`, `EFAULT`.
    fn read(&self, task: &CurrentTask, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        let _ = (task, dst, offset);
        Err(Errno::EINVAL)
    }

    /// Writes. A stream ignores `offset`. Returns how many bytes were taken and, for a file with an
    /// offset, the offset behind them.
    ///
    /// # Errors
    /// `EAGAIN`, `EPIPE` (the caller raises SIGPIPE), `ENOSPC`, `EFBIG`, `EINVAL`, `EFAULT`.
    fn write(
        &self,
        task: &CurrentTask,
        src: &mut dyn IoSource,
        offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        let _ = (task, src, offset);
        Err(Errno::EINVAL)
    }

    /// Lists directory entries from `offset` on (0: the beginning, `.` and `..` included) until
    /// the sink is full.
    ///
    /// # Errors
    /// `ENOTDIR`.
    fn readdir(&self, task: &CurrentTask, offset: u64, sink: &mut dyn DirSink) -> SysResult<()> {
        let _ = (task, offset, sink);
        Err(Errno::ENOTDIR)
    }

    /// Returns what the file adds to its `/proc/PID/fdinfo/N`, in whole lines.
    fn fd_info(&self, task: &CurrentTask) -> String {
        let _ = task;
        String::new()
    }

    /// Implements the parts of `lseek(2)` that need the file: `SEEK_END`, `SEEK_DATA`, `SEEK_HOLE`.
    /// Returns the new offset.
    ///
    /// # Errors
    /// `EINVAL`, `ENXIO`, `ESPIPE`.
    fn seek(&self, offset: i64, whence: i32) -> SysResult<u64> {
        seek_in_size(self.attr()?.size, offset, whence)
    }

    /// Returns what the file is ready for.
    fn poll(&self) -> Events {
        Events::READABLE | Events::WRITABLE
    }

    /// Registers a waiter for changes of readiness. A file that is always ready returns nothing.
    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        let _ = (waiter, mask, key);
        Vec::new()
    }

    /// Returns whether a read that finds nothing is not to wait, but to return nothing.
    fn has_ended(&self) -> bool {
        false
    }

    /// Returns whether `poll` and `register` mean anything: epoll refuses others with `EPERM`.
    fn is_pollable(&self) -> bool {
        false
    }

    /// Returns whether `splice(2)` and `sendfile(2)` can take from the file.
    fn can_splice_from(&self) -> bool {
        true
    }

    /// Returns whether `splice(2)` and `sendfile(2)` can give to the file.
    fn can_splice_to(&self) -> bool {
        true
    }

    /// Implements `ioctl(2)` for requests that the system-call layer does not handle itself.
    ///
    /// # Errors
    /// `ENOTTY` and whatever the request says.
    fn ioctl(&self, task: &CurrentTask, open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        let _ = (task, open, request, arg);
        Err(Errno::ENOTTY.into())
    }

    /// Opens a file without an inode once more, through `/proc/PID/fd`.
    ///
    /// # Errors
    /// `ENXIO` for files that cannot be opened, as most of them.
    fn reopen(self: Arc<Self>, task: &CurrentTask, flags: u32) -> SysResult<Arc<dyn File>> {
        let _ = (task, flags);
        Err(Errno::ENXIO)
    }

    /// Returns a host descriptor, open only to be written, through which large writes can be made by the processes
    /// that make them, where nobody is told of these.
    fn write_target(&self) -> Option<Arc<OwnedFd>> {
        None
    }

    /// Returns a host descriptor, open read-only, that holds this file's content and nothing else, and
    /// the size of the content; for files whose processes may have it.
    fn read_source(&self) -> Option<(Arc<OwnedFd>, u64)> {
        None
    }

    /// Returns what is read as this file is, wherever it ends, until [`File::lend_mark`] is recalled; the same
    /// as long as that is so. For files that can be lent, and whose processes may have it: a host descriptor
    /// is open read-only. A device is as well written as lent.
    fn lend_source(&self) -> Option<FileSource> {
        None
    }

    /// Returns a host descriptor, open for reading and writing, of a file that has this file's content and
    /// nothing else, and how long both are, until [`File::lend_mark`] is recalled. For files that are written
    /// over in place, of which whoever may read and write them may have it.
    fn lend_to_write(&self) -> Option<(Arc<OwnedFd>, u64)> {
        None
    }

    /// Returns what is recalled when the file is read from elsewhere, or its times have changed; `None` where
    /// the host knows.
    fn lend_mark(&self) -> Option<&Mark> {
        None
    }

    /// Returns the object to map, for files that can be mapped.
    ///
    /// # Errors
    /// `ENODEV`.
    fn mappable(&self) -> SysResult<Arc<dyn Mappable>> {
        Err(Errno::ENODEV)
    }

    /// Implements `fsync(2)`, `fdatasync(2)`.
    ///
    /// # Errors
    /// `EINVAL` for files without storage; `EIO`.
    fn sync(&self, data_only: bool) -> SysResult<()> {
        let _ = data_only;
        Err(Errno::EINVAL)
    }

    /// Implements `fallocate(2)`; `mode` has been checked for known bits.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `ENOSPC`, `EFBIG`, `ENODEV`, `ESPIPE`.
    fn allocate(&self, mode: u32, offset: u64, len: u64) -> SysResult<()> {
        let _ = (mode, offset, len);
        Err(Errno::ENODEV)
    }

    /// Is told that `fcntl(F_SETFL)` has changed the status flags.
    fn flags_changed(&self, flags: u32) {
        let _ = flags;
    }

    /// Returns whether the open has come to its end: false for a FIFO whose other end is missing.
    /// The caller waits with `register` until it is true.
    fn is_open_complete(&self) -> bool {
        true
    }

    /// Implements `fcntl(F_GET_SEALS)`.
    ///
    /// # Errors
    /// `EINVAL` for files that cannot be sealed.
    fn seals(&self) -> SysResult<u32> {
        Err(Errno::EINVAL)
    }

    /// Implements `fcntl(F_ADD_SEALS)`.
    ///
    /// # Errors
    /// `EINVAL` for files that cannot be sealed, `EPERM` for sealed ones, `EBUSY`.
    fn add_seals(&self, seals: u32) -> SysResult<()> {
        let _ = seals;
        Err(Errno::EINVAL)
    }

    /// Implements `fcntl(F_GETPIPE_SZ)` (`None`) and `fcntl(F_SETPIPE_SZ)`.
    ///
    /// # Errors
    /// `EBADF` for anything but a pipe; `EPERM`, `EBUSY`, `EINVAL`.
    fn pipe_size(&self, task: &CurrentTask, new: Option<u32>) -> SysResult<u32> {
        let _ = (task, new);
        Err(Errno::EBADF)
    }

    /// Returns for how many nanoseconds a read or a write waits for these events; zero for as long as it takes.
    fn timeout_ns(&self, events: Events) -> u64 {
        let _ = events;
        0
    }

    /// Returns what the file is ready for, as [`File::poll`] does, and from then on takes back `set`, a lent set of
    /// files, before that may change. `None` where it cannot do so.
    fn vouch_for(&self, set: &Weak<dyn LentFile>) -> Option<Events> {
        let _ = set;
        None
    }

    /// Returns whether this is a stream whose use is so lively that it is worth lending.
    fn is_lively(&self) -> bool {
        false
    }

    /// Lends the stream to a process that has just used it, and may be lent streams. Returns what the process
    /// must do for it to be lent later.
    fn lend(&self, user: &StreamUser) -> Vec<HostCall> {
        let _ = user;
        Vec::new()
    }

    /// Is told that a descriptor of this file was closed in the process with this descriptor table
    /// (`close(2)`'s flush).
    fn descriptor_closed(&self, table: u64) {
        let _ = table;
    }
}

/// How a process uses a stream.
pub struct StreamUser {
    /// What it can be lent.
    pub streams: Arc<dyn Streams>,
    /// The descriptor.
    pub fd: i32,
    /// The table that this is in, which `streams` belong to.
    pub table: Arc<FdTable>,
    /// What it refers to.
    pub file: Arc<OpenFile>,
    /// What the process may do besides.
    pub creds: Arc<Credentials>,
    /// Which of its threads uses it now.
    pub thread: u64,
    /// Where it has its number.
    pub pids: Weak<PidNamespace>,
    /// Whether others may look into it.
    pub is_dumpable: bool,
}

/// Computes `lseek` for a file of `size` bytes without holes.
///
/// # Errors
/// `EINVAL` for a negative or overflowing result, `ENXIO` for `SEEK_DATA`/`SEEK_HOLE` past the end.
pub fn seek_in_size(size: u64, offset: i64, whence: i32) -> SysResult<u64> {
    let size = i64::try_from(size).map_err(|_| Errno::EOVERFLOW)?;
    let target = match whence {
        2 => size.checked_add(offset).ok_or(Errno::EOVERFLOW)?,
        3 | 4 if offset < 0 || offset >= size => return Err(Errno::ENXIO),
        3 => offset,
        4 => size,
        _ => return Err(Errno::EINVAL),
    };
    u64::try_from(target).map_err(|_| Errno::EINVAL)
}

/// Returns the file as a concrete type, where it is one.
pub fn downcast<T: File>(file: &Arc<dyn File>) -> Option<Arc<T>> {
    let any: Arc<dyn Any + Send + Sync> = file.clone();
    any.downcast().ok()
}

/// An open file description: what descriptors of one or more processes refer to.
pub struct OpenFile {
    /// The file.
    pub file: Arc<dyn File>,
    /// The path by which it was opened, where there is one.
    pub path: Option<Path>,
    /// Access mode and status flags (`O_*`), without creation flags.
    flags: AtomicU32,
    /// The file offset. Held while a read or write that uses it is under way.
    pub offset: Offset,
    /// `F_SETOWN`, `F_SETSIG`: who gets SIGIO.
    pub owner: Mutex<FileOwner>,
    /// Whether `flock(2)` or open-file-description locks may have to be released.
    pub(super) may_have_locks: AtomicBool,
    /// Whether the file counts in [`super::InodeExtras`] as a writer or as a running program.
    write_access: AtomicU8,
    /// Whether opening made the file.
    pub is_created: AtomicBool,
    /// What of later uses of the file has been refused to whoever opened it (`landlock(7)`).
    pub(crate) refused: AtomicU64,
    /// What watches the file for `O_ASYNC`.
    pub async_watch: Mutex<Option<Box<dyn Any + Send>>>,
    /// What watches a socket that has an owner for urgent data.
    pub urgent_watch: Mutex<Option<Box<dyn Any + Send>>>,
}

/// No claim in `OpenFile::write_access`.
const NO_CLAIM: u8 = 0;
/// The file is open for writing.
const WRITES: u8 = 1;
/// The file is a running program.
const DENIES_WRITES: u8 = 2;
/// The file is open for reading only.
const READS: u8 = 3;

/// The receiver of SIGIO.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileOwner {
    /// As `F_SETOWN` takes it: positive a process, negative a process group.
    pub pid: i32,
    /// As `F_SETSIG` takes it: zero for SIGIO.
    pub signo: i32,
    /// `F_OWNER_*` of `F_SETOWN_EX`.
    pub kind: i32,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.is_path() {
            return;
        }
        self.allow_write();
        if self.may_have_locks.load(Ordering::Relaxed) {
            lock::release_open_file(self);
        }
        if let Some(path) = &self.path {
            let mask =
                if self.is_writable() { notify::IN_CLOSE_WRITE } else { notify::IN_CLOSE_NOWRITE };
            notify::file(&path.dentry, mask);
        }
    }
}

impl OpenFile {
    /// Creates a description with offset zero.
    pub fn new(file: Arc<dyn File>, path: Option<Path>, flags: u32) -> Arc<Self> {
        Arc::new(Self {
            file,
            path,
            flags: AtomicU32::new(flags),
            offset: Offset::new(),
            owner: Mutex::new(FileOwner::default()),
            may_have_locks: AtomicBool::new(false),
            write_access: AtomicU8::new(NO_CLAIM),
            is_created: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            async_watch: Mutex::new(None),
            urgent_watch: Mutex::new(None),
        })
    }

    /// Counts the file as one that may write to its inode.
    ///
    /// # Errors
    /// `ETXTBSY` where a program runs from it.
    pub(super) fn claim_write(&self) -> SysResult<()> {
        self.claim(WRITES, |n| (n >= 0).then(|| n.saturating_add(1)))
    }

    /// Keeps everybody from opening the inode for writing as long as this open file exists: a
    /// program runs from it.
    ///
    /// # Errors
    /// `ETXTBSY` where it is open for writing.
    pub(super) fn deny_write(&self) -> SysResult<()> {
        self.claim(DENIES_WRITES, |n| (n <= 0).then(|| n.saturating_sub(1)))
    }

    /// Counts the file as one that only reads from its inode.
    pub(super) fn claim_read(&self) {
        if let Some(inode) = self.file.inode() {
            inode.extras().n_readers.fetch_add(1, Ordering::AcqRel);
            self.write_access.store(READS, Ordering::Relaxed);
        }
    }

    fn claim(&self, claim: u8, change: impl Fn(i32) -> Option<i32>) -> SysResult<()> {
        let Some(inode) = self.file.inode() else { return Ok(()) };
        let count = &inode.extras().n_writers;
        count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
            .map_err(|_| Errno::ETXTBSY)?;
        self.write_access.store(claim, Ordering::Relaxed);
        Ok(())
    }

    /// Takes back [`OpenFile::deny_write`]: the file is mapped, but it is not the program.
    pub fn allow_write(&self) {
        let step = match self.write_access.swap(NO_CLAIM, Ordering::Relaxed) {
            WRITES => -1,
            DENIES_WRITES => 1,
            READS => {
                if let Some(inode) = self.file.inode() {
                    inode.extras().n_readers.fetch_sub(1, Ordering::AcqRel);
                }
                return;
            }
            _ => return,
        };
        if let Some(inode) = self.file.inode() {
            inode.extras().n_writers.fetch_add(step, Ordering::AcqRel);
        }
    }

    /// Fails where this use of the file was refused when it was opened.
    ///
    /// # Errors
    /// `EACCES`.
    pub(crate) fn check_not_refused(&self, access: AccessFs) -> SysResult<()> {
        let refused = AccessFs::from_bits_retain(self.refused.load(Ordering::Relaxed));
        if refused.intersects(access) { Err(Errno::EACCES) } else { Ok(()) }
    }

    /// Returns access mode and status flags.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Returns access mode and status flags with their names.
    pub fn flags_set(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags())
    }

    /// Replaces the status flags; the access mode stays.
    pub fn set_flags(&self, flags: u32) {
        let access = self.flags() & 0o3;
        self.flags.store(access | (flags & !0o3), Ordering::Relaxed);
        self.offset.recall();
        self.file.flags_changed(flags);
    }

    /// Returns whether the file was opened for reading.
    pub fn is_readable(&self) -> bool {
        matches!(self.flags() & 0o3, 0 | 2) && !self.is_path()
    }

    /// Returns whether the file was opened for writing.
    pub fn is_writable(&self) -> bool {
        matches!(self.flags() & 0o3, 1 | 2) && !self.is_path()
    }

    /// Returns whether this is an `O_PATH` descriptor.
    pub fn is_path(&self) -> bool {
        self.flags() & 0o10_000_000 != 0
    }

    /// Returns whether `O_NONBLOCK` is set.
    pub fn is_nonblocking(&self) -> bool {
        self.flags() & 0o4000 != 0
    }
}
