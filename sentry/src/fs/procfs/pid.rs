//! `/proc/PID` and `/proc/PID/task/TID`.
//!
//! The inodes hold their process weakly and by number: what has been opened keeps no process
//! alive, and says `ESRCH` once it has gone.

mod fd;
mod id_maps;
mod links;
mod map_query;
mod maps;
mod memory;
mod ns;
mod settings;
mod status;
mod table;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use syscalls::abi::procmap::PROCMAP_QUERY;
use syscalls::{Errno, SysResult};

use super::super::pseudo::{self, DirFile, DirSource, FIRST_OFFSET, Listed, Text, TextFile};
use super::mounts::{Format, MountsFile};
use super::{Shared, parse_number};
use crate::mm::MemoryManager;
use crate::task::pid_namespace::PidNamespace;
use crate::task::{Credentials, CurrentTask, HandlerResult, Task, ThreadGroup, access};
use crate::vfs::path::Path;
use crate::vfs::{
    Attr, File, FileType, Inode, InodeExtras, ListEntry, LookupPolicy, SetAttr, Timestamp,
};

use table::{Entry, Kind, TASK_ENTRIES, THREAD_ENTRIES};

/// Inode numbers of processes start here: above those of the fixed files. Each pid has as many.
const FIRST_INO: u64 = 1 << 32;

/// How many inode numbers a thread has for its files.
const INOS_PER_TASK: u64 = 1 << 8;

/// How many processes with the same pid are told apart, also by programs that look at 32 bits.
const N_BIRTHS: u64 = 1 << 24;

/// A task as one proc file system names it.
#[derive(Clone)]
pub(super) struct Seen {
    shared: Arc<Shared>,
    group: Weak<ThreadGroup>,
    /// The thread's number in the file system's namespace.
    number: u32,
    /// Whether this is `task/TID`, and not the process.
    is_thread: bool,
}

impl Seen {
    pub(super) fn new(
        shared: &Arc<Shared>,
        task: &Arc<Task>,
        number: u32,
        is_thread: bool,
    ) -> Self {
        Self { shared: shared.clone(), group: Arc::downgrade(&task.group), number, is_thread }
    }

    fn namespace(&self) -> &Arc<PidNamespace> {
        &self.shared.namespace
    }

    /// Returns the task while it exists.
    ///
    /// # Errors
    /// `ESRCH`.
    fn task(&self) -> SysResult<Arc<Task>> {
        let task = self.shared.namespace.task(self.number).ok_or(Errno::ESRCH)?;
        let is_same = std::ptr::eq(Arc::as_ptr(&task.group), self.group.as_ptr());
        if is_same { Ok(task) } else { Err(Errno::ESRCH) }
    }

    fn look<'a>(&'a self, current: &'a CurrentTask) -> SysResult<Look<'a>> {
        Ok(Look { current, task: self.task()?, seen: self })
    }
}

/// A look at a task by another one.
pub(super) struct Look<'a> {
    current: &'a CurrentTask,
    task: Arc<Task>,
    seen: &'a Seen,
}

impl Look<'_> {
    fn namespace(&self) -> &Arc<PidNamespace> {
        self.seen.namespace()
    }

    fn may_inspect(&self) -> bool {
        access::may_inspect(self.current, &self.task)
    }

    /// Fails where the looking task may not inspect the other.
    ///
    /// # Errors
    /// `EACCES`.
    fn check_inspect(&self) -> SysResult<()> {
        if self.may_inspect() { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Returns the address space, which a task that has exited has given up.
    fn mm(&self) -> Option<Arc<MemoryManager>> {
        mm_of(&self.task)
    }
}

fn mm_of(task: &Task) -> Option<Arc<MemoryManager>> {
    (!task.exiting.load(Ordering::SeqCst)).then(|| task.mm())
}

/// Returns the inode number of a task's directory, which tells a process from a later one that has
/// got the same number.
pub(super) fn directory_ino(group: &ThreadGroup, number: u32, is_thread: bool) -> u64 {
    let half = if is_thread { INOS_PER_TASK / 2 } else { 0 };
    let birth = group.start_ns / 1024 % N_BIRTHS * INOS_PER_TASK;
    FIRST_INO * (1 + u64::from(number)) + birth + half
}

/// Returns the directory of a task.
pub(super) fn directory(seen: Seen) -> Arc<dyn Inode> {
    let entries = if seen.is_thread { THREAD_ENTRIES } else { TASK_ENTRIES };
    let group = seen.group.upgrade();
    let ino = group.map_or(0, |group| directory_ino(&group, seen.number, seen.is_thread));
    Arc::new(TaskDir { ino, seen, entries, extras: InodeExtras::default() })
}

/// Returns the attributes of an inode that belongs to a task.
///
/// # Errors
/// `ESRCH` where the task is gone.
fn attr(seen: &Seen, ino: u64, mode: u32) -> SysResult<Attr> {
    let task = seen.task()?;
    let creds = task.creds();
    // A process whose memory nobody may look at belongs to root, but for its open directories.
    let is_open_dir = mode == FileType::Directory.mode_bits() | 0o555;
    let is_own = is_open_dir || task.group.is_dumpable.load(Ordering::Relaxed);
    let (uid, gid) = if is_own {
        (creds.euid, creds.egid)
    } else {
        let owner = task.group.memory_owner.lock().clone();
        (owner.kuid(0).unwrap_or(0), owner.kgid(0).unwrap_or(0))
    };
    let start = i64::try_from(task.group.start_ns).unwrap_or(0);
    let clock = &task.kernel.clock;
    let boot = clock.realtime_ns().saturating_sub(i64::try_from(clock.boot_ns()).unwrap_or(0));
    let time: Timestamp = pseudo::timestamp(boot.saturating_add(start) / 1_000_000 * 1_000_000);
    Ok(Attr {
        dev: seen.shared.dev,
        ino,
        mode,
        nlink: 1,
        uid,
        gid,
        blksize: 1024,
        atime: time,
        mtime: time,
        ctime: time,
        ..Attr::default()
    })
}

/// `/proc/PID` or `/proc/PID/task/TID`.
struct TaskDir {
    extras: InodeExtras,
    seen: Seen,
    ino: u64,
    entries: &'static [Entry],
}

impl Inode for TaskDir {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> SysResult<Attr> {
        let attr = attr(&self.seen, self.ino, FileType::Directory.mode_bits() | 0o555)?;
        let n_dirs = self.entries.iter().filter(|entry| entry.file_type() == FileType::Directory);
        Ok(Attr { nlink: u32::try_from(n_dirs.count()).unwrap_or(0).saturating_add(2), ..attr })
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        pseudo::set_attr(change)
    }

    fn lookup(&self, name: &[u8]) -> SysResult<Arc<dyn Inode>> {
        self.seen.task().map_err(|_| Errno::ENOENT)?;
        let mut numbered = self.entries.iter().zip(self.ino + 1..);
        let found = numbered.find(|(entry, _)| entry.name.as_bytes() == name);
        let (entry, ino) = found.ok_or(Errno::ENOENT)?;
        Ok(make(&self.seen, entry, ino))
    }

    fn lookup_policy(&self) -> LookupPolicy {
        LookupPolicy::Never
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Ok(Arc::new(DirFile::new(self)))
    }
}

impl DirSource for TaskDir {
    fn entries(&self, _current: &CurrentTask, _from: u64) -> SysResult<Vec<Listed>> {
        self.seen.task().map_err(|_| Errno::ENOENT)?;
        let list = self.entries.iter().zip(0..).map(|(entry, n)| {
            let name = entry.name.as_bytes().to_vec();
            (
                FIRST_OFFSET + n,
                ListEntry { name, ino: self.ino + 1 + n, file_type: entry.file_type() },
            )
        });
        Ok(list.collect())
    }
}

/// Returns the process whose directory an inode is; `ESRCH` where it has ended.
pub(crate) fn process_of(inode: &Arc<dyn Inode>) -> Option<SysResult<Arc<ThreadGroup>>> {
    let dir = crate::vfs::inode::downcast::<TaskDir>(inode)?;
    if dir.seen.is_thread {
        return None;
    }
    Some(dir.seen.group.upgrade().ok_or(Errno::ESRCH))
}

fn make(seen: &Seen, entry: &'static Entry, ino: u64) -> Arc<dyn Inode> {
    let seen = seen.clone();
    let extras = InodeExtras::default();
    match entry.kind {
        Kind::Link(target) => Arc::new(links::PathLink { extras, seen, ino, target }),
        Kind::Net => seen.shared.net.clone(),
        Kind::Task => Arc::new(Threads { extras, seen, ino }),
        Kind::Fd => Arc::new(fd::FdDir { extras, seen, ino, is_info: false }),
        Kind::FdInfo => Arc::new(fd::FdDir { extras, seen, ino, is_info: true }),
        Kind::Ns => Arc::new(ns::NsDir { extras, seen, ino }),
        Kind::Text { .. } | Kind::AsOpened { .. } | Kind::Mounts(_) | Kind::Mem => {
            Arc::new(Node { extras, seen, ino, entry })
        }
    }
}

/// A file of a task.
struct Node {
    extras: InodeExtras,
    seen: Seen,
    ino: u64,
    entry: &'static Entry,
}

impl Inode for Node {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn attr(&self) -> SysResult<Attr> {
        attr(&self.seen, self.ino, self.entry.mode)
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        pseudo::set_attr(change)
    }

    fn open(self: Arc<Self>, current: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        let look = self.seen.look(current)?;
        match &self.entry.kind {
            Kind::Mounts(format) => mounts_file(&look, *format, self.clone()),
            Kind::Mem => {
                look.check_inspect()?;
                let mm = look.mm().ok_or(Errno::ESRCH)?;
                Ok(Arc::new(memory::MemFile::new(self.clone(), mm)))
            }
            Kind::Text { is_private, .. } => {
                if *is_private {
                    look.check_inspect()?;
                }
                let opener = current.creds();
                let text = TaskText { seen: self.seen.clone(), entry: self.entry, opener };
                Ok(Arc::new(TextFile::new(self.clone(), Arc::new(text))))
            }
            Kind::AsOpened { .. } => {
                let opener = current.creds();
                let text = TaskText { seen: self.seen.clone(), entry: self.entry, opener };
                Ok(Arc::new(TextFile::new(self.clone(), Arc::new(text))))
            }
            _ => Err(Errno::EINVAL),
        }
    }
}

fn mounts_file(look: &Look<'_>, format: Format, node: Arc<Node>) -> SysResult<Arc<dyn File>> {
    if look.task.exiting.load(Ordering::SeqCst) {
        return Err(Errno::EINVAL);
    }
    let fs = look.task.fs();
    Ok(Arc::new(MountsFile::new(node, format, fs.namespace(), fs.root())))
}

struct TaskText {
    seen: Seen,
    entry: &'static Entry,
    opener: Arc<Credentials>,
}

impl Text for TaskText {
    fn show(&self, current: &CurrentTask) -> SysResult<Vec<u8>> {
        match &self.entry.kind {
            Kind::Text { show, .. } | Kind::AsOpened { show, .. } => {
                show(&self.seen.look(current)?)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn store(&self, current: &CurrentTask, data: &[u8]) -> SysResult<()> {
        match &self.entry.kind {
            Kind::Text { store: Some(store), .. } => store(&self.seen.look(current)?, data),
            Kind::AsOpened { store, .. } => store(&self.seen.look(current)?, data, &self.opener),
            _ => Err(Errno::EINVAL),
        }
    }

    fn ioctl(&self, current: &CurrentTask, request: u32, arg: u64) -> HandlerResult {
        if self.entry.name == "maps" && request == PROCMAP_QUERY {
            return map_query::query(&self.seen.look(current)?, arg);
        }
        Err(Errno::ENOTTY.into())
    }
}

/// `/proc/PID/task`.
struct Threads {
    extras: InodeExtras,
    seen: Seen,
    ino: u64,
}

impl Inode for Threads {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> SysResult<Attr> {
        let attr = attr(&self.seen, self.ino, FileType::Directory.mode_bits() | 0o555)?;
        let n = self.seen.task()?.group.tasks().len();
        Ok(Attr { nlink: u32::try_from(n).unwrap_or(0).saturating_add(2), ..attr })
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        pseudo::set_attr(change)
    }

    fn lookup(&self, name: &[u8]) -> SysResult<Arc<dyn Inode>> {
        let number = parse_number(name).ok_or(Errno::ENOENT)?;
        let task = self.seen.namespace().task(number).ok_or(Errno::ENOENT)?;
        if !std::ptr::eq(Arc::as_ptr(&task.group), self.seen.group.as_ptr()) {
            return Err(Errno::ENOENT);
        }
        Ok(directory(Seen::new(&self.seen.shared, &task, number, true)))
    }

    fn lookup_policy(&self) -> LookupPolicy {
        LookupPolicy::Never
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Ok(Arc::new(DirFile::new(self)))
    }
}

impl DirSource for Threads {
    fn entries(&self, _current: &CurrentTask, _from: u64) -> SysResult<Vec<Listed>> {
        let task = self.seen.task().map_err(|_| Errno::ENOENT)?;
        let namespace = self.seen.namespace();
        let mut numbers: Vec<u32> =
            task.group.tasks().iter().map(|task| task.tid_in(namespace)).collect();
        numbers.sort_unstable();
        let list = numbers.into_iter().filter(|number| *number != 0).map(|number| {
            let entry = ListEntry {
                name: number.to_string().into_bytes(),
                ino: directory_ino(&task.group, number, true),
                file_type: FileType::Directory,
            };
            (FIRST_OFFSET + u64::from(number), entry)
        });
        Ok(list.collect())
    }
}

/// Returns the name of a path as the looking task sees it.
fn shown_path(look: &CurrentTask, path: &Path) -> Vec<u8> {
    path.name_from(&look.fs().root()).for_proc()
}
