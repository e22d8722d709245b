//! The container: its mounts, its devices, its first process.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use ::syscalls::abi::fs::makedev;
use ::syscalls::abi::mount::MountFlags;
use ::syscalls::abi::signal::SigSet;
use ::syscalls::{Errno, SysResult};

use crate::config::{
    ContainerConfig, DeviceConfig, MountConfig, MountKind, OverlayMedium, ProcessConfig,
    TmpfsConfig,
};
use crate::control::StartError;
use crate::fs::backing::BackingStore;
use crate::fs::devpts::{self, DevPts};
use crate::fs::gofer::{Caching, GoferFs};
use crate::fs::host_fd::{HostFile, HostPoller};
use crate::fs::overlay::OverlayFs;

use crate::fs::procfs::{self, ProcFs};
use crate::fs::sysfs::SysFs;
use crate::fs::tmpfs::{self, TmpFs};
use crate::fs::tty;
use crate::fs::tty::host::HostTerminal;
use crate::kernel::Kernel;
use crate::mm::MemoryManager;
use crate::sync::Mutex;
use crate::task::clone::NewTask;
use crate::task::creds::ALL_CAPABILITIES;
use crate::task::job::{ProcessGroup, Session};
use crate::task::limits::Limits;
use crate::task::signal::{SignalActions, TaskSignals};
use crate::task::thread_group::NewGroup;
use crate::task::{Credentials, CurrentTask, Task, TaskMisc, ThreadGroup, exec};
use crate::vfs::fd_table::FdTable;
use crate::vfs::fs_context::FsContext;
use crate::vfs::mount::{Mount, MountNamespace, SuperBlock};
use crate::vfs::path::Path;
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{File, FileSystem, FileType, NodeKind, OpenFile, names};

/// The nodes that every container has in `/dev` (runtime specification, "Default Devices"): name,
/// major and minor number.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The links that every container has in `/dev`.
const DEFAULT_LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// The gofer connections that have not been taken, by index.
struct Connections(Vec<Option<OwnedFd>>);

impl Connections {
    fn attach(&mut self, index: usize, caching: Caching) -> SysResult<GoferFs> {
        let socket = self.0.get_mut(index).and_then(Option::take).ok_or(Errno::EBADF)?;
        GoferFs::attach(socket, caching)
    }
}

fn failure(what: &str, errno: Errno) -> StartError {
    StartError { message: format!("{what}: {}", errno.text()), exit_code: 1 }
}

/// Creates the container and its first task, whose program is loaded and ready to run.
pub(super) fn create(
    kernel: &Arc<Kernel>,
    poller: &Arc<HostPoller>,
    config: &ContainerConfig,
    gofers: Vec<OwnedFd>,
    stdio: [OwnedFd; 3],
) -> Result<Arc<Task>, StartError> {
    let mut connections = Connections(gofers.into_iter().map(Some).collect());
    let namespace = mount_root(config, &mut connections)
        .map_err(|errno| failure("mounting the root file system", errno))?;
    let fs = FsContext::new(namespace.clone());
    for mount in &config.mounts {
        make_mount(kernel, &fs, mount, &mut connections).map_err(|errno| {
            failure(&format!("mounting {} on {:?}", mount.source, mount.destination), errno)
        })?;
    }
    for device in &config.devices {
        make_device(&fs, device)
            .map_err(|errno| failure(&format!("creating device {:?}", device.path), errno))?;
    }
    for (name, value) in &config.sysctl {
        procfs::sysctl::set(kernel, name, value)
            .map_err(|errno| failure(&format!("setting sysctl {name:?}"), errno))?;
    }
    let console = if config.process.terminal { console(&fs) } else { None };
    let (files, terminal) = standard_streams(poller, &config.process, console.as_ref(), stdio)?;
    for path in &config.masked_paths {
        mask(&fs, path).map_err(|errno| failure(&format!("masking {path:?}"), errno))?;
    }
    for path in &config.readonly_paths {
        make_readonly(&fs, path)
            .map_err(|errno| failure(&format!("making {path:?} read-only"), errno))?;
    }
    let root_readonly = config.root.readonly;
    if root_readonly {
        let root = fs.root();
        root.mount.set_flags(root.mount.flags() | MountFlags::RDONLY);
    }
    enter_cwd(&fs, &config.process)?;
    let task = create_task(kernel, config, fs, files)
        .map_err(|errno| failure("creating the first process", errno))?;
    if let Some(terminal) = terminal {
        tty::attach(&task, &terminal);
    }
    load(&task, &config.process)?;
    Ok(task)
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
fn standard_streams(
    poller: &Arc<HostPoller>,
    process: &ProcessConfig,
    console: Option<&Path>,
    stdio: [OwnedFd; 3],
) -> Result<(Arc<FdTable>, Option<Arc<HostTerminal>>), StartError> {
    let files = FdTable::empty();
    let mut terminal: Option<Arc<HostTerminal>> = None;
    for (number, fd) in stdio.into_iter().enumerate() {
        let failure = |errno| failure(&format!("taking descriptor {number}"), errno);
        let host = HostFile::new(poller, fd).map_err(failure)?;
        let is_terminal = process.terminal && host.is_terminal();
        let path = console.filter(|_| is_terminal).cloned();
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

fn overlay(
    lower: &Arc<GoferFs>,
    medium: OverlayMedium,
    connections: &mut Connections,
) -> SysResult<Arc<dyn FileSystem>> {
    let store: Arc<dyn tmpfs::Store> = match medium {
        OverlayMedium::None => return Ok(lower.clone()),
        OverlayMedium::Memory => Arc::new(tmpfs::MemoryStore),
        OverlayMedium::File { connection } => {
            Arc::new(BackingStore::new(connections.attach(connection, Caching::Exclusive)?))
        }
    };
    let lower: Arc<dyn FileSystem> = lower.clone();
    Ok(OverlayFs::new(&lower, store)?)
}

fn mount_root(
    config: &ContainerConfig,
    connections: &mut Connections,
) -> SysResult<Arc<MountNamespace>> {
    let caching = match config.root.overlay {
        OverlayMedium::None => Caching::Shared,
        OverlayMedium::Memory | OverlayMedium::File { .. } => Caching::Exclusive,
    };
    let lower = Arc::new(connections.attach(config.root.connection, caching)?);
    let fs = overlay(&lower, config.root.overlay, connections)?;
    let mount = Mount::new(SuperBlock::new(fs), b"rootfs", MountFlags::RELATIME);
    Ok(MountNamespace::new(mount))
}

/// Creates a walk with every permission, for what the runtime itself does.
fn walk(fs: &FsContext, flags: WalkFlags) -> Walk<'static> {
    let creds = Arc::new(Credentials::root(ALL_CAPABILITIES));
    let root = fs.root();
    Walk::new(None, creds, root.clone(), root, flags)
}

fn resolve(fs: &FsContext, path: &[u8]) -> SysResult<Path> {
    walk(fs, WalkFlags::FOLLOW).resolve(path)
}

/// Creates the directories of `path` that are missing.
fn create_directories(fs: &FsContext, path: &[u8]) -> SysResult<()> {
    let mut done = Vec::new();
    for component in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        done.push(b'/');
        done.extend_from_slice(component);
        if resolve(fs, &done).is_ok() {
            continue;
        }
        match names::create(&mut walk(fs, WalkFlags::empty()), &done, NodeKind::Directory, 0o755) {
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn split_parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => path.get(..at).unwrap_or_default(),
        None => b"",
    }
}

/// Returns the place at `path`, created as a directory or an empty file where it is missing.
fn mount_point(fs: &FsContext, path: &[u8], is_directory: bool) -> SysResult<Path> {
    match resolve(fs, path) {
        Err(Errno::ENOENT) => {}
        result => return result,
    }
    if is_directory {
        create_directories(fs, path)?;
    } else {
        create_directories(fs, split_parent(path))?;
        names::create(&mut walk(fs, WalkFlags::empty()), path, NodeKind::Regular, 0o644)?;
    }
    resolve(fs, path)
}

fn tmpfs(config: &TmpfsConfig, mode: u32) -> SysResult<Arc<TmpFs>> {
    TmpFs::new(tmpfs::Options {
        max_bytes: config.size,
        max_inodes: config.nr_inodes,
        mode: config.mode.unwrap_or(mode),
        uid: config.uid,
        gid: config.gid,
        ..tmpfs::Options::default()
    })
}

fn make_mount(
    kernel: &Arc<Kernel>,
    fs: &FsContext,
    mount: &MountConfig,
    connections: &mut Connections,
) -> SysResult<()> {
    let mut flags = MountFlags::RELATIME;
    flags.set(MountFlags::RDONLY, mount.readonly);
    flags.set(MountFlags::NOSUID, mount.nosuid);
    flags.set(MountFlags::NODEV, mount.nodev);
    flags.set(MountFlags::NOEXEC, mount.noexec);
    let path = mount.destination.as_bytes();
    let mut is_directory = true;
    let file_system: Arc<dyn FileSystem> = match &mount.kind {
        MountKind::Gofer { connection, directory, overlay: medium } => {
            is_directory = *directory;
            let caching = match medium {
                OverlayMedium::None => Caching::Shared,
                OverlayMedium::Memory | OverlayMedium::File { .. } => Caching::Exclusive,
            };
            let lower = Arc::new(connections.attach(*connection, caching)?);
            overlay(&lower, *medium, connections)?
        }
        MountKind::Tmpfs(config) => tmpfs(config, 0o1777)?,
        MountKind::Devtmpfs(config) => tmpfs(config, 0o755)?,
        MountKind::Proc => ProcFs::new(kernel.root_pid_namespace.clone()),
        MountKind::Sysfs => SysFs::new(),
        MountKind::Devpts => {
            let devpts = DevPts::new(devpts::Options::CONTAINER);
            devpts.serve_ptmx(kernel);
            devpts
        }
        MountKind::Mqueue => tmpfs(&TmpfsConfig::default(), 0o1777)?,
        MountKind::Cgroup => {
            flags |= MountFlags::RDONLY;
            tmpfs(&TmpfsConfig::default(), 0o755)?
        }
    };
    let at = mount_point(fs, path, is_directory)?;
    let new = Mount::new(SuperBlock::new(file_system), mount.source.as_bytes(), flags);
    fs.namespace().mount(&new, &at)?;
    if let MountKind::Devtmpfs(_) = mount.kind {
        fill_dev(fs, path)?;
    }
    Ok(())
}

fn fill_dev(fs: &FsContext, dev: &[u8]) -> SysResult<()> {
    let join = |name: &str| [dev, b"/", name.as_bytes()].concat();
    for (name, major, minor) in DEFAULT_DEVICES {
        let kind = NodeKind::CharDevice(makedev(major, minor));
        names::create(&mut walk(fs, WalkFlags::empty()), &join(name), kind, 0o666)?;
    }
    for (name, target) in DEFAULT_LINKS {
        let kind = NodeKind::Symlink(target.as_bytes().to_vec());
        names::create(&mut walk(fs, WalkFlags::empty()), &join(name), kind, 0o777)?;
    }
    for (name, mode) in [("shm", 0o1777), ("pts", 0o755), ("mqueue", 0o1777)] {
        names::create(&mut walk(fs, WalkFlags::empty()), &join(name), NodeKind::Directory, mode)?;
    }
    Ok(())
}

fn make_device(fs: &FsContext, device: &DeviceConfig) -> SysResult<()> {
    let path = device.path.as_bytes();
    if resolve(fs, path).is_ok() {
        return Ok(());
    }
    create_directories(fs, split_parent(path))?;
    let rdev = makedev(device.major, device.minor);
    let kind = match FileType::from_mode(device.mode) {
        FileType::BlockDevice => NodeKind::BlockDevice(rdev),
        FileType::Fifo => NodeKind::Fifo,
        _ => NodeKind::CharDevice(rdev),
    };
    let mode = device.mode & 0o7777;
    let place = names::create(&mut walk(fs, WalkFlags::empty()), path, kind, mode)?;
    let owner = crate::vfs::SetAttr {
        uid: Some(device.uid),
        gid: Some(device.gid),
        ..crate::vfs::SetAttr::default()
    };
    place.inode().set_attr(&owner)
}

/// Covers a path with something empty: a directory with an empty read-only tmpfs, a file with
/// `/dev/null`.
fn mask(fs: &FsContext, path: &str) -> SysResult<()> {
    let at = match resolve(fs, path.as_bytes()) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        result => result?,
    };
    if at.dentry.is_dir() {
        let empty = tmpfs(&TmpfsConfig::default(), 0o755)?;
        let mount = Mount::new(SuperBlock::new(empty), b"tmpfs", MountFlags::RDONLY);
        fs.namespace().mount(&mount, &at)
    } else {
        let null = resolve(fs, b"/dev/null")?;
        fs.namespace().bind(&null, &at, false)
    }
}

fn make_readonly(fs: &FsContext, path: &str) -> SysResult<()> {
    let at = match resolve(fs, path.as_bytes()) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        result => result?,
    };
    fs.namespace().bind(&at, &at, true)?;
    let covered = resolve(fs, path.as_bytes())?;
    covered.mount.set_flags(covered.mount.flags() | MountFlags::RDONLY);
    Ok(())
}

fn enter_cwd(fs: &FsContext, process: &ProcessConfig) -> Result<(), StartError> {
    let cwd = if process.cwd.is_empty() { "/" } else { process.cwd.as_str() };
    let failure = |errno| failure(&format!("entering the working directory {cwd:?}"), errno);
    // A directory that is missing on a read-only root is reported by the walk that follows.
    let _ = create_directories(fs, cwd.as_bytes());
    let path = resolve(fs, cwd.as_bytes()).map_err(failure)?;
    if !path.dentry.is_dir() {
        return Err(failure(Errno::ENOTDIR));
    }
    fs.set_cwd(path);
    fs.set_umask(process.umask);
    Ok(())
}

fn credentials(process: &ProcessConfig) -> Credentials {
    let capabilities = &process.capabilities;
    let known = |set: u64| set & ALL_CAPABILITIES;
    Credentials {
        uid: process.uid,
        euid: process.uid,
        suid: process.uid,
        fsuid: process.uid,
        gid: process.gid,
        egid: process.gid,
        sgid: process.gid,
        fsgid: process.gid,
        groups: Arc::from(process.additional_gids.as_slice()),
        permitted: known(capabilities.permitted),
        effective: known(capabilities.effective),
        inheritable: known(capabilities.inheritable),
        bounding: known(capabilities.bounding),
        ambient: known(capabilities.ambient),
        securebits: 0,
        no_new_privs: process.no_new_privs,
    }
}

fn create_task(
    kernel: &Arc<Kernel>,
    config: &ContainerConfig,
    fs: Arc<FsContext>,
    files: Arc<FdTable>,
) -> SysResult<Arc<Task>> {
    let process = &config.process;
    let namespace = kernel.root_pid_namespace.clone();
    let pid = namespace.allocate(None)?;
    let pids = vec![(namespace.clone(), pid)];
    let session = Session::new(pids.clone());
    let process_group = ProcessGroup::new(pids.clone(), session);
    let mut limits = Limits::default();
    for limit in &process.rlimits {
        limits.set(limit.resource, (limit.soft, limit.hard));
    }
    let group = ThreadGroup::new(NewGroup {
        kernel: kernel.clone(),
        pid,
        pid_namespace: namespace.clone(),
        parent: Weak::new(),
        parent_tid: 0,
        process_group,
        exit_signal: ::syscalls::abi::signal::SIGCHLD,
        actions: Arc::new(Mutex::new(SignalActions::default())),
        limits,
        oom_score_adj: process.oom_score_adj,
        is_dumpable: true,
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
        creds: Arc::new(credentials(process)),
        comm: Vec::new(),
        signals: TaskSignals { mask: SigSet::EMPTY, ..TaskSignals::default() },
        misc: TaskMisc { start_ns: kernel.clock.boot_ns(), ..TaskMisc::default() },
    };
    let task = Task::create(new, |_| Ok(Arc::new(crate::task::no_context::NoContext)))?;
    let _guard = kernel.tree.lock();
    group.tree.lock().tasks.push(task.clone());
    namespace.enter(pid, &task);
    kernel.init.lock().group = Some(group);
    kernel.count_first_task();
    Ok(task)
}

/// Loads the first program.
fn load(task: &Arc<Task>, process: &ProcessConfig) -> Result<(), StartError> {
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
