//! Running a program: `execve(2)`.
//!
//! Everything that can fail happens first: the file is found, a new address space is made and
//! filled ([`Ready`]). Then the other threads of the process end, which may take a while; and then
//! the task is given its new memory, context and credentials, which cannot fail.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sentry_platform::Context;
use syscalls::abi::fs::{AT_FDCWD, AtFlags};
use syscalls::abi::mount::MountFlags;
use syscalls::abi::signal::{SIGCHLD, Stackt};
use syscalls::arch::x86_64::Regs;
use syscalls::{Errno, SysResult};

use super::exec_creds::{FileCapabilities, NewCredentials, after_exec};
use super::{
    Control, Credentials, CurrentTask, HandlerResult, Restart, Task, ThreadGroup, exit, ptrace, run,
};
use crate::mm::MemoryManager;
use crate::mm::loader::{self, Entry};
use crate::sync::Mutex;
use crate::syscalls::dispatch;
use crate::vfs::OpenFile;
use crate::vfs::open::open_exec;
use crate::vfs::path::Path;
use crate::vfs::permission::{self, MAY_READ};
use crate::vfs::walk::{Walk, WalkFlags};

/// The most bytes of a thread's name.
const TASK_COMM_LEN: usize = 15;

/// Selectors of application code and data on x86-64.
const USER_CS: u64 = 0x33;
const USER_DS: u64 = 0x2b;

/// The interrupt flag, always set in application code, and the bit that is always one.
const INITIAL_EFLAGS: u64 = 0x202;

/// A program in an address space of its own, ready to replace the caller's.
struct Ready {
    mm: Arc<MemoryManager>,
    context: Arc<dyn Context>,
    owner: Arc<run::Owner>,
    entry: Entry,
    creds: NewCredentials,
    comm: Vec<u8>,
    /// Whether the caller may read the file: otherwise the process is not dumpable.
    is_readable: bool,
    is_taken: bool,
}

impl Drop for Ready {
    fn drop(&mut self) {
        if !self.is_taken {
            self.owner.make_void();
            self.context.exit();
            self.context.address_space().kill();
        }
    }
}

/// The file to be executed.
pub(crate) struct Target {
    file: Arc<OpenFile>,
    /// What the program is told that it is called.
    filename: Vec<u8>,
    /// Whether an interpreter can open `filename`.
    is_reachable: bool,
}

impl Target {
    /// Finds the file of `execveat(2)`.
    ///
    /// # Errors
    /// Those of the path walk; `EACCES` for what cannot be executed, `ELOOP` for a symbolic link
    /// under `AT_SYMLINK_NOFOLLOW`.
    pub(crate) fn find(
        current: &CurrentTask,
        dirfd: i32,
        path: &[u8],
        flags: AtFlags,
    ) -> SysResult<Self> {
        let by_descriptor = dirfd != AT_FDCWD && path.first() != Some(&b'/');
        if path.is_empty() && flags.contains(AtFlags::EMPTY_PATH) && by_descriptor {
            let open = current.files().get_any(dirfd)?;
            let path = open.path.clone().ok_or(Errno::EACCES)?;
            let is_reachable = !current.files().is_cloexec(dirfd)?;
            let filename = format!("/dev/fd/{dirfd}").into_bytes();
            return Ok(Self { file: open_exec(current, path)?, filename, is_reachable });
        }
        let nofollow = flags.contains(AtFlags::SYMLINK_NOFOLLOW);
        let mut walk_flags = WalkFlags::FOLLOW;
        walk_flags.set(WalkFlags::FOLLOW, !nofollow);
        walk_flags.set(WalkFlags::EMPTY, flags.contains(AtFlags::EMPTY_PATH));
        let (found, filename, is_reachable) = if by_descriptor {
            let open = current.files().get_any(dirfd)?;
            let start = open.path.clone().ok_or(Errno::ENOTDIR)?;
            let root = current.fs().root();
            let mut walk = Walk::new(Some(current), current.creds(), root, start, walk_flags);
            let mut filename = format!("/dev/fd/{dirfd}/").into_bytes();
            filename.extend_from_slice(path);
            (walk.resolve(path)?, filename, !current.files().is_cloexec(dirfd)?)
        } else {
            (Walk::from_cwd(current, walk_flags).resolve(path)?, path.to_vec(), true)
        };
        if nofollow && found.inode().file_type() == crate::vfs::FileType::Symlink {
            return Err(Errno::ELOOP);
        }
        Ok(Self { file: open_exec(current, found)?, filename, is_reachable })
    }
}

/// Replaces the caller's program.
///
/// # Errors
/// Those of finding and loading the program, after which the caller is as it was;
/// `Control::Block` while other threads end; `Control::Detached` when the program runs.
pub(crate) fn execute(
    current: &CurrentTask,
    target: impl FnOnce() -> SysResult<(Target, Vec<Vec<u8>>, Vec<Vec<u8>>)>,
) -> HandlerResult {
    let ready = match current.recall::<Ready>() {
        Some(ready) => ready,
        None => {
            let (target, argv, envp) = target()?;
            prepare(current, target, argv, envp)?
        }
    };
    if !end_other_threads(current)? {
        current.remember(ready);
        return Err(Control::Block);
    }
    let task = current.task().clone();
    let tracer = task.ptrace.tracer();
    let old_tid = tracer.map_or(0, |tracer| task.tid_in(&tracer.pid_namespace()));
    commit(current, ready);
    ptrace::stop::executed(&task, old_tid);
    current.set_in_call(false);
    current.end_block();
    dispatch::replaced(current);
    run::start(&task);
    // Nothing waits for the end of what ran the old program.
    current.context().exit();
    Err(Control::Detached)
}

/// Gives a new task its first program and the context that runs it; the caller then starts the
/// task.
///
/// # Errors
/// Those of finding and loading the program.
pub fn load_init(
    task: &Arc<Task>,
    path: &[u8],
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
) -> SysResult<()> {
    let current = CurrentTask::new(task.clone());
    let target = Target::find(&current, AT_FDCWD, path, AtFlags::empty())?;
    let mut ready = prepare(&current, target, argv, envp)?;
    ready.is_taken = true;
    ready.context.set_regs(&initial_regs(&ready.entry));
    *task.host_calls.lock() = std::mem::take(&mut ready.entry.calls);
    *task.mm.lock() = ready.mm.clone();
    task.set_context(ready.context.clone());
    task.reschedule_fresh();
    *task.creds.lock() = Arc::new(ready.creds.creds.clone());
    *task.comm.lock() = std::mem::take(&mut ready.comm);
    Ok(())
}

fn prepare(
    current: &CurrentTask,
    target: Target,
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
) -> SysResult<Ready> {
    let (filename, reachable) = (target.filename, target.is_reachable);
    let program = loader::find(current, target.file, &filename, argv, envp, reachable)?;
    let creds = new_creds(current, &program.file)?;
    let is_readable = may_read(&current.creds(), &program.file);
    let owner = run::Owner::next(current.task());
    let context = current.container().create_context(&current.kernel, owner.clone())?;
    let mut ready = Ready {
        mm: MemoryManager::new(),
        context,
        owner,
        entry: Entry::default(),
        creds,
        comm: comm(&filename),
        is_readable,
        is_taken: false,
    };
    let NewCredentials { creds, is_secure, .. } = &ready.creds;
    let entry = loader::load(current, &program, creds, *is_secure, &ready.mm, &ready.context)?;
    ready.entry = entry;
    Ok(ready)
}

fn comm(filename: &[u8]) -> Vec<u8> {
    let name = filename.rsplit(|byte| *byte == b'/').next().unwrap_or(filename);
    name.iter().copied().take(TASK_COMM_LEN).collect()
}

/// Computes the credentials that executing `file` gives.
fn new_creds(current: &CurrentTask, file: &OpenFile) -> SysResult<NewCredentials> {
    let old = current.creds();
    let attr = file.file.attr()?;
    let is_foreign = |path: &Path| {
        // What somebody has mounted in a user namespace counts only in there.
        path.mount.sb.owner().is_some_and(|owner| !old.user_ns.is_in(owner))
    };
    let nosuid = file
        .path
        .as_ref()
        .is_some_and(|path| path.mount.flags().contains(MountFlags::NOSUID) || is_foreign(path));
    let caps = file.file.inode().and_then(|inode| inode.get_xattr(b"security.capability").ok());
    let caps = caps.and_then(|value| FileCapabilities::parse(&value));
    after_exec(&old, &attr, caps, !nosuid && !ptrace::link::is_held_back(current))
}

fn may_read(creds: &Credentials, file: &OpenFile) -> bool {
    let inode = file.file.inode();
    file.file.attr().is_ok_and(|attr| {
        match inode {
            Some(inode) => permission::check(creds, &*inode, &attr, MAY_READ),
            None => permission::check_mode(creds, &attr, MAY_READ),
        }
        .is_ok()
    })
}

fn initial_regs(entry: &Entry) -> Regs {
    Regs {
        rip: entry.rip,
        rsp: entry.rsp,
        eflags: INITIAL_EFLAGS,
        cs: USER_CS,
        ss: USER_DS,
        orig_rax: u64::MAX,
        ..Regs::default()
    }
}

/// Makes all other threads exit. Returns whether they have.
fn end_other_threads(current: &CurrentTask) -> HandlerResult<bool> {
    let group = &current.group;
    let others = || {
        let tasks = group.tasks();
        let others = tasks.into_iter().filter(|task| {
            !Arc::ptr_eq(task, current.task()) && !task.has_left.load(Ordering::SeqCst)
        });
        others.collect::<Vec<_>>()
    };
    {
        let mut signals = group.signals.lock();
        let is_other = signals.exec_tid.is_some_and(|tid| tid != current.tid());
        if signals.exit_status.is_some() || is_other {
            // The task ends on its way back.
            return Err(Control::Restart(Restart::NoIntr));
        }
        signals.exec_tid = Some(current.tid());
    }
    let others = others();
    if others.is_empty() {
        return Ok(true);
    }
    super::signal::wake_all(&others);
    Ok(false)
}

/// Is told that a thread has left its process: another one may wait for that in exec.
pub(crate) fn thread_has_left(group: &ThreadGroup) {
    let Some(tid) = group.signals.lock().exec_tid else { return };
    if let Some(task) = group.tasks().into_iter().find(|task| task.tid() == tid) {
        run::wake(&task);
    }
}

/// Gives the task its new program. Nothing here fails.
fn commit(current: &CurrentTask, mut ready: Ready) {
    let task = current.task();
    let group = &current.group;
    crate::mm::futex::exit_robust_list(current);
    crate::mm::futex::pi::release_all(task, false);
    exit::clear_child_tid(current);
    become_leader(task);

    ready.is_taken = true;
    let old_mm = std::mem::replace(&mut *task.mm.lock(), ready.mm.clone());
    *task.host_calls.lock() = std::mem::take(&mut ready.entry.calls);
    // A tracer sees which call it was.
    let orig_rax = current.call.lock().number;
    ready.context.set_regs(&Regs { orig_rax, ..initial_regs(&ready.entry) });
    group.account.change_space(&**current.context(), || {
        task.set_context(ready.context.clone());
    });
    task.reschedule_fresh();
    old_mm.retire(task);
    drop(old_mm);
    exit::release_vfork_parent(task);

    unshare_files(task);
    reset_signals(task);
    group.timers.clear_created();
    {
        let mut misc = task.misc.lock();
        misc.rseq = None;
        misc.robust_list_len = 0;
        misc.keyrings.on_exec();
    }
    task.robust_list.store(0, Ordering::Relaxed);
    *task.comm.lock() = std::mem::take(&mut ready.comm);
    if ready.creds.is_changed || ready.creds.is_secure {
        task.parent_death_signal.store(0, Ordering::Relaxed);
    }
    let is_dumpable = !ready.creds.is_changed && !ready.creds.is_secure && ready.is_readable;
    group.is_dumpable.store(is_dumpable, Ordering::Relaxed);
    let users = &ready.creds.creds.user_ns;
    // As `would_dump()`: nobody gets at a program through its memory whom its file is closed to.
    let owner = if ready.is_readable { users.clone() } else { users.outermost() };
    let old = std::mem::replace(&mut *group.memory_owner.lock(), owner);
    drop(old);
    *task.creds.lock() = Arc::new(ready.creds.creds.clone());
    task.enter_time_for_children();
    group.has_execed.store(true, Ordering::Relaxed);
    group.signals.lock().exec_tid = None;
}

/// Gives a thread that is not the first one the first one's identity.
fn become_leader(task: &Arc<Task>) {
    let group = &task.group;
    let _guard = task.kernel.tree.lock();
    group.tree.lock().exit_signal = SIGCHLD;
    if task.is_leader() {
        return;
    }
    let Some(leader) = group.leader() else { return };
    group.tree.lock().tasks.retain(|other| !Arc::ptr_eq(other, &leader));
    let leader_pids = leader.pids.lock().clone();
    let own_pids = std::mem::replace(&mut *task.pids.lock(), leader_pids.clone());
    let own_tid = task.tid.swap(leader.tid(), Ordering::SeqCst);
    leader.tid.store(own_tid, Ordering::SeqCst);
    for (namespace, pid) in &leader_pids {
        namespace.enter(*pid, task);
    }
    for (namespace, pid) in &own_pids {
        // The leader, whose number this thread now has, is still there.
        let _ = namespace.leave(*pid);
    }
    *leader.pids.lock() = own_pids;
    for child in group.children() {
        let mut tree = child.tree.lock();
        if tree.parent_tid == own_tid {
            tree.parent_tid = task.tid();
        }
    }
    ptrace::link::unlink(&leader);
    group.signals.lock().exec_tid = Some(task.tid());
    task.container().task_gone(&task.kernel);
}

fn unshare_files(task: &Arc<Task>) {
    // What is lent of it lies in the former memory.
    let fs = task.fs.lock().clone();
    fs.recall_umask();
    let files = {
        let mut files = task.files.lock();
        if Arc::strong_count(&files) > 1 {
            let copy = files.fork();
            *files = copy;
        }
        files.clone()
    };
    for file in files.remove_cloexec() {
        files.close(&file);
    }
}

fn reset_signals(task: &Arc<Task>) {
    {
        let mut actions = task.group.actions.lock();
        let mut own = actions.lock().clone();
        own.reset_for_exec();
        *actions = Arc::new(Mutex::new(own));
    }
    let mut signals = task.signals.lock();
    signals.altstack = Stackt::default();
    signals.restart_block = None;
    if let Some(mask) = signals.saved_mask.take() {
        signals.mask = mask;
    }
    drop(signals);
    super::signal::recheck(task);
}
