//! Processes that are started from outside: the container's first one, and those of `exec`.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use ::syscalls::abi::fs::makedev;
use ::syscalls::abi::sched::SCHED_RESET_ON_FORK;
use ::syscalls::abi::signal::{SI_USER, SIGKILL, SigSet, Siginfo};
use ::syscalls::abi::wait as status;
use ::syscalls::{Errno, SysResult};

use super::container::{failure, resolve, walk};
use crate::config::{ProcessConfig, Scheduling};
use crate::control::{ExecProcess, StartError};
use crate::fs::host_fd::{HostFile, HostPoller};
use crate::fs::tty;
use crate::fs::tty::host::HostTerminal;
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::mm::MemoryManager;
use crate::sync::Mutex;
use crate::task::clone::NewTask;
use crate::task::creds::ALL_CAPABILITIES;
use crate::task::job::{ProcessGroup, Session};
use crate::task::limits::Limits;
use crate::task::signal::post::kill_group;
use crate::task::signal::{
    SignalActions, TaskSignals, is_valid, send_to_group, send_to_process_group,
};
use crate::task::thread_group::NewGroup;
use crate::task::{
    Credentials, CurrentTask, Task, TaskMisc, ThreadGroup, coredump, exec, exit, pid_namespace, run,
};
use crate::vfs::fd_table::FdTable;
use crate::vfs::fs_context::FsContext;
use crate::vfs::mount::MountNamespace;
use crate::vfs::path::Path;
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{File, FileType, NodeKind, OpenFile, names};

/// A process of `exec`.
pub(super) struct Executed(Arc<ThreadGroup>);

/// The work of letting a task that has its program run.
pub(super) struct Start(pub(super) Arc<Task>);

impl sentry_platform::Work for Start {
    fn run(self: Arc<Self>) {
        run::start(&self.0);
    }
}

impl ExecProcess for Executed {
    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn wait_status(&self) -> Option<u32> {
        self.0.tree.lock().zombie.map(i32::cast_unsigned)
    }

    fn signal(&self, signo: i32, to_foreground: bool) -> SysResult<()> {
        signal(&self.0, signo, to_foreground)
    }

    fn kill(&self) {
        kill_group(&self.0, status::signaled(SIGKILL, false));
    }
}

/// Starts a further process in a container.
pub(super) fn execute(
    kernel: &Arc<Kernel>,
    container: &Arc<Container>,
    poller: &Arc<HostPoller>,
    namespace: &Arc<MountNamespace>,
    process: &ProcessConfig,
    stdio: Vec<OwnedFd>,
) -> Result<Arc<dyn ExecProcess>, StartError> {
    let fs = FsContext::new(namespace.clone());
    let (files, terminal) = streams(poller, process, &fs, stdio)?;
    enter_cwd(&fs, process)?;
    let task = create(kernel, container, process, fs, files)
        .map_err(|errno| failure("creating the process", errno))?;
    if let Err(error) = load(&task, process, terminal) {
        exit::undo_clone(&task);
        return Err(error);
    }
    let group = task.group.clone();
    kernel.platform().submit(Arc::new(Start(task)));
    Ok(Arc::new(Executed(group)))
}

/// Sends a signal from outside to a process or, with `to_foreground`, to the foreground process
/// group of its terminal, where it has one.
pub(super) fn signal(group: &Arc<ThreadGroup>, signo: i32, to_foreground: bool) -> SysResult<()> {
    if !is_valid(signo) {
        return Err(Errno::EINVAL);
    }
    let info = Siginfo::kill(signo, SI_USER, 0, 0);
    if to_foreground {
        let terminal = group.session().terminal.lock().clone();
        if let Some(foreground) = terminal.and_then(|terminal| terminal.foreground()) {
            send_to_process_group(&foreground, info);
            return Ok(());
        }
    }
    send_to_group(group, info)
}

/// Returns `/dev/console`, made where it is missing: the name of the standard streams where they
/// are a terminal.
fn console(fs: &FsContext) -> Option<Path> {
    let path = b"/dev/console";
    let kind = NodeKind::CharDevice(makedev(tty::AUX_MAJOR, 1));
    resolve(fs, path)
        .or_else(|_| names::create(&mut walk(fs, WalkFlags::empty()), path, kind, 0o620))
        .ok()
}

/// Returns a descriptor table with the standard streams, and the terminal that they are to share.
///
/// What follows the three is what `--preserve-fds` hands down.
pub(super) fn streams(
    poller: &Arc<HostPoller>,
    process: &ProcessConfig,
    fs: &FsContext,
    stdio: Vec<OwnedFd>,
) -> Result<(Arc<FdTable>, Option<Arc<HostTerminal>>), StartError> {
    let console = if process.terminal { console(fs) } else { None };
    let files = FdTable::empty();
    let mut terminal: Option<Arc<HostTerminal>> = None;
    for (number, fd) in stdio.into_iter().enumerate() {
        let failure = |errno| failure(&format!("taking descriptor {number}"), errno);
        let host = HostFile::new(poller, fd).map_err(failure)?;
        let is_terminal = process.terminal && number < 3 && host.is_terminal();
        let path = console.clone().filter(|_| is_terminal);
        let file: Arc<dyn File> = if is_terminal {
            let node = path.as_ref().map(|path| path.inode().clone());
            terminal.get_or_insert_with(|| HostTerminal::new(host.clone())).stream(host, node)
        } else {
            host
        };
        files.install(OpenFile::new(file, path, 2), false, u64::MAX).map_err(failure)?;
    }
    Ok((files, terminal))
}

/// Enters the working directory and sets the file creation mask.
pub(super) fn enter_cwd(fs: &FsContext, process: &ProcessConfig) -> Result<(), StartError> {
    let cwd = if process.cwd.is_empty() { "/" } else { process.cwd.as_str() };
    // In runc's words.
    let failure = |errno: Errno| {
        let text = errno.text().to_lowercase();
        let message = format!("chdir to cwd ({cwd:?}) set in config.json failed: {text}");
        StartError { message, exit_code: 1 }
    };
    let path = resolve(fs, cwd.as_bytes()).map_err(failure)?;
    if !path.dentry.is_dir() {
        return Err(failure(Errno::ENOTDIR));
    }
    fs.set_cwd(path);
    fs.set_umask(process.umask);
    Ok(())
}

fn credentials(container: &Container, process: &ProcessConfig) -> Credentials {
    let capabilities = &process.capabilities;
    let known = |set: u64| set & ALL_CAPABILITIES;
    // As after `setgroups(2)`.
    let mut groups = process.additional_gids.clone();
    groups.sort_unstable();
    Credentials {
        uid: process.uid,
        euid: process.uid,
        suid: process.uid,
        fsuid: process.uid,
        gid: process.gid,
        egid: process.gid,
        sgid: process.gid,
        fsgid: process.gid,
        groups: Arc::from(groups),
        permitted: known(capabilities.permitted),
        effective: known(capabilities.effective),
        inheritable: known(capabilities.inheritable),
        bounding: known(capabilities.bounding),
        ambient: known(capabilities.ambient),
        securebits: 0,
        no_new_privs: process.no_new_privs,
        user_ns: container.user_ns.clone(),
        landlock: None,
    }
}

fn misc(scheduling: &Scheduling) -> TaskMisc {
    let reset_on_fork = if scheduling.reset_on_fork { SCHED_RESET_ON_FORK } else { 0 };
    TaskMisc {
        sched_policy: scheduling.policy | reset_on_fork.unsigned_abs(),
        sched_priority: scheduling.priority,
        nice: scheduling.nice,
        ioprio: scheduling.ioprio,
        ..TaskMisc::default()
    }
}

/// Creates a process without a program, in a session of its own.
pub(super) fn create(
    kernel: &Arc<Kernel>,
    container: &Arc<Container>,
    process: &ProcessConfig,
    fs: Arc<FsContext>,
    files: Arc<FdTable>,
) -> SysResult<Arc<Task>> {
    let groups = process.additional_gids.iter().chain([&process.gid]);
    let users = &container.user_ns;
    let has_groups = groups.into_iter().all(|gid| users.kgid(*gid).is_some());
    if users.kuid(process.uid).is_none() || !has_groups {
        return Err(Errno::EINVAL);
    }
    let namespace = container.pid_namespace.clone();
    let pids = pid_namespace::allocate(&namespace, &[])?;
    let pid = pids.first().map_or(0, |(_, pid)| *pid);
    let session = Session::new(pids.clone());
    let process_group = ProcessGroup::new(pids.clone(), session);
    let mut limits = Limits::default();
    for limit in &process.rlimits {
        limits.set(limit.resource, (limit.soft, limit.hard));
    }
    let group = ThreadGroup::new(NewGroup {
        kernel: kernel.clone(),
        container: container.clone(),
        pid,
        pid_namespace: namespace,
        parent: Weak::new(),
        parent_tid: 0,
        process_group,
        exit_signal: ::syscalls::abi::signal::SIGCHLD,
        actions: Arc::new(Mutex::new(SignalActions::default())),
        limits,
        oom_score_adj: process.oom_score_adj,
        is_dumpable: true,
        memory_owner: container.user_ns.clone(),
        core_filter: coredump::DEFAULT_FILTER,
        borrows_memory: false,
    });
    let new = NewTask {
        kernel: kernel.clone(),
        group: group.clone(),
        tid: pid,
        pids,
        mm: MemoryManager::new(),
        files,
        fs,
        creds: Arc::new(credentials(container, process)),
        namespaces: container.namespaces(kernel),
        comm: Vec::new(),
        signals: TaskSignals { mask: SigSet::EMPTY, ..TaskSignals::default() },
        misc: TaskMisc { start_ns: kernel.clock.boot_ns(), ..misc(&process.scheduling) },
    };
    let task = Task::create(new, |_| Ok(Arc::new(crate::task::no_context::NoContext)))?;
    task.seccomp.set(container.seccomp.clone());
    let _guard = kernel.tree.lock();
    group.tree.lock().tasks.push(task.clone());
    for (namespace, pid) in task.pids.lock().iter() {
        namespace.enter(*pid, &task);
    }
    container.count_first_task(kernel);
    Ok(task)
}

/// Gives a process its controlling terminal and loads its program.
pub(super) fn load(
    task: &Arc<Task>,
    process: &ProcessConfig,
    terminal: Option<Arc<HostTerminal>>,
) -> Result<(), StartError> {
    if let Some(terminal) = terminal {
        tty::attach(task, &terminal);
    }
    let current = CurrentTask::new(task.clone());
    let name = process.args.first().cloned().unwrap_or_default();
    let shown = String::from_utf8_lossy(&name).into_owned();
    let path = find_program(&current, &name, process).map_err(|error| error.describe(&shown))?;
    exec::load_init(task, &path, process.args.clone(), process.env.clone())
        .map_err(|errno| NotExecutable::At(errno).describe(&shown))
}

/// Why a program cannot be run.
enum NotExecutable {
    /// A name without a slash that is in none of the directories.
    NotInPath,
    /// The error of a path.
    At(Errno),
}

impl NotExecutable {
    /// Returns runc's words.
    fn describe(&self, shown: &str) -> StartError {
        let (text, exit_code) = match self {
            Self::NotInPath => ("executable file not found in $PATH".to_owned(), 127),
            Self::At(Errno::ENOENT) => (format!("stat {shown}: no such file or directory"), 127),
            Self::At(Errno::EACCES) => ("permission denied".to_owned(), 126),
            Self::At(errno) => (errno.text().to_lowercase(), 126),
        };
        StartError { message: format!("exec: {shown:?}: {text}"), exit_code }
    }
}

/// Finds the program as `execvp(3)` and runc do.
fn find_program(
    current: &CurrentTask,
    name: &[u8],
    process: &ProcessConfig,
) -> Result<Vec<u8>, NotExecutable> {
    if name.is_empty() {
        return Err(NotExecutable::NotInPath);
    }
    if name.contains(&b'/') {
        return Ok(name.to_vec());
    }
    let prefix = b"PATH=";
    let path = process.env.iter().rev().find_map(|entry| entry.strip_prefix(prefix));
    let path = path.unwrap_or(b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut denied = false;
    for directory in path.split(|byte| *byte == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        let candidate = [directory, b"/", name].concat();
        let Ok(found) = Walk::from_cwd(current, WalkFlags::FOLLOW).resolve(&candidate) else {
            continue;
        };
        let Ok(attr) = found.inode().attr() else { continue };
        if attr.file_type() != FileType::Regular {
            continue;
        }
        if attr.mode & 0o111 == 0 {
            denied = true;
            continue;
        }
        return Ok(candidate);
    }
    Err(if denied { NotExecutable::At(Errno::EACCES) } else { NotExecutable::NotInPath })
}
