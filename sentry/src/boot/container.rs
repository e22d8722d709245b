//! The container: its mounts, its devices, its first process.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ::syscalls::abi::fs::makedev;
use ::syscalls::abi::mount::MountFlags;
use ::syscalls::{Errno, SysResult};

use super::{cgroups, process};
use crate::config::{
    ContainerConfig, DeviceConfig, MountConfig, MountKind, OverlayMedium, Propagation, TmpfsConfig,
};
use crate::control::StartError;
use crate::fs::backing::BackingStore;
use crate::fs::devpts::{self, DevPts};
use crate::fs::gofer::{Caching, GoferFs};
use crate::fs::host_fd::HostPoller;
use crate::fs::mqueue;
use crate::fs::overlay::OverlayFs;

use crate::fs::procfs::{self, ProcFs};
use crate::fs::sysfs::SysFs;
use crate::fs::tmpfs::{self, TmpFs};
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::task::creds::ALL_CAPABILITIES;
use crate::task::user_namespace::UserNamespace;
use crate::task::{Credentials, Task, exit};
use crate::vfs::fs_context::FsContext;
use crate::vfs::mount::{Mount, MountNamespace, SuperBlock};
use crate::vfs::path::Path;
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{FileSystem, FileType, NodeKind, names};

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
pub(super) struct Connections {
    sockets: Vec<Option<OwnedFd>>,
    poller: Arc<HostPoller>,
}

impl Connections {
    pub(super) fn attach(&mut self, index: usize, caching: Caching) -> SysResult<GoferFs> {
        let socket = self.sockets.get_mut(index).and_then(Option::take).ok_or(Errno::EBADF)?;
        let fs = GoferFs::attach(socket, caching)?;
        fs.hear(self.poller.clone());
        Ok(fs)
    }
}

pub(super) fn failure(what: &str, errno: Errno) -> StartError {
    StartError { message: format!("{what}: {}", errno.text()), exit_code: 1 }
}

/// A container whose first program is loaded and ready to run.
pub(super) struct Loaded {
    pub(super) mounts: Arc<MountNamespace>,
    pub(super) first: Arc<Task>,
}

/// Fills a container: its mounts, its devices, its first task.
pub(super) fn load(
    kernel: &Arc<Kernel>,
    container: &Arc<Container>,
    poller: &Arc<HostPoller>,
    config: &ContainerConfig,
    gofers: Vec<OwnedFd>,
    stdio: Vec<OwnedFd>,
) -> Result<Loaded, StartError> {
    let mut connections =
        Connections { sockets: gofers.into_iter().map(Some).collect(), poller: poller.clone() };
    let namespace = mount_root(config, &container.user_ns, &mut connections)
        .map_err(|errno| failure("mounting the root file system", errno))?;
    let fs = FsContext::new(namespace.clone());
    for mount in &config.mounts {
        make_mount(kernel, container, &fs, mount, &mut connections).map_err(|errno| {
            failure(&format!("mounting {} on {:?}", mount.source, mount.destination), errno)
        })?;
    }
    for device in &config.devices {
        make_device(&fs, device)
            .map_err(|errno| failure(&format!("creating device {:?}", device.path), errno))?;
    }
    for (name, value) in &config.sysctl {
        procfs::sysctl::set(kernel, container, name, value)
            .map_err(|errno| failure(&format!("setting sysctl {name:?}"), errno))?;
    }
    let (files, terminal) = process::streams(poller, &config.process, &fs, stdio)?;
    for path in &config.masked_paths {
        mask(&fs, path).map_err(|errno| failure(&format!("masking {path:?}"), errno))?;
    }
    for path in &config.readonly_paths {
        make_readonly(&fs, path)
            .map_err(|errno| failure(&format!("making {path:?} read-only"), errno))?;
    }
    // Not before everything that belongs there is in them.
    for mount in config.mounts.iter().filter(|mount| mount.readonly && is_filled(mount)) {
        make_mount_readonly(&fs, mount.destination.as_bytes()).map_err(|errno| {
            failure(&format!("making {:?} read-only", mount.destination), errno)
        })?;
    }
    if config.root.readonly {
        let root = fs.root();
        root.mount.set_flags(root.mount.flags() | MountFlags::RDONLY);
    }
    set_propagation(&fs, b"/", config.root.propagation)
        .map_err(|errno| failure("setting the propagation of the root", errno))?;
    // A directory that is missing on a read-only root is reported by the walk that follows.
    let _ = create_directories(&fs, config.process.cwd.as_bytes());
    process::enter_cwd(&fs, &config.process)?;
    let first = process::create(kernel, container, &config.process, fs, files)
        .map_err(|errno| failure("creating the first process", errno))?;
    container.init.lock().group = Some(first.group.clone());
    process::load(&first, &config.process, terminal).inspect_err(|_| {
        container.init.lock().group = None;
        exit::undo_clone(&first);
    })?;
    Ok(Loaded { mounts: namespace, first })
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
    owner: &Arc<UserNamespace>,
    connections: &mut Connections,
) -> SysResult<Arc<MountNamespace>> {
    let caching = match config.root.overlay {
        OverlayMedium::None => Caching::Own,
        OverlayMedium::Memory | OverlayMedium::File { .. } => Caching::Exclusive,
    };
    let lower = Arc::new(connections.attach(config.root.connection, caching)?);
    let namespace = |fs: Arc<dyn FileSystem>| {
        let mount = Mount::new(SuperBlock::new(fs), b"rootfs", MountFlags::RELATIME);
        MountNamespace::new(mount, owner)
    };
    let root = namespace(overlay(&lower, config.root.overlay, connections)?);
    let is_fixed = config.root.readonly && matches!(config.root.overlay, OverlayMedium::None);
    if is_fixed && lacks_mount_points(&FsContext::new(root.clone()), &config.mounts) {
        // They cannot be made below, where the gofer's mount is read-only too.
        return Ok(namespace(overlay(&lower, OverlayMedium::Memory, connections)?));
    }
    Ok(root)
}

/// Returns whether something is to be mounted where the root has nothing, as with the empty root of podman's pause
/// container.
fn lacks_mount_points(root: &FsContext, mounts: &[MountConfig]) -> bool {
    let is_below = |path: &str, parent: &str| {
        let rest = path.strip_prefix(parent.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    mounts.iter().enumerate().any(|(index, mount)| {
        let path = mount.destination.as_str();
        let is_in_another = mounts.iter().take(index).any(|m| is_below(path, &m.destination));
        !is_in_another && resolve(root, path.as_bytes()) == Err(Errno::ENOENT)
    })
}

/// Creates a walk with every permission, for what the runtime itself does.
pub(super) fn walk(fs: &FsContext, flags: WalkFlags) -> Walk<'static> {
    let creds = Arc::new(Credentials::root(ALL_CAPABILITIES));
    let root = fs.root();
    Walk::new(None, creds, root.clone(), root, flags)
}

pub(super) fn resolve(fs: &FsContext, path: &[u8]) -> SysResult<Path> {
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

pub(super) fn tmpfs(config: &TmpfsConfig, mode: u32) -> SysResult<Arc<TmpFs>> {
    TmpFs::new(tmpfs::Options {
        max_bytes: config.size,
        max_inodes: config.nr_inodes,
        mode: config.mode.unwrap_or(mode),
        uid: config.uid,
        gid: config.gid,
        ..tmpfs::Options::default()
    })
}

/// Returns whether the runtime or further mounts may put files into what is mounted: an empty file system.
fn is_filled(mount: &MountConfig) -> bool {
    matches!(mount.kind, MountKind::Tmpfs(_) | MountKind::Devtmpfs(_))
}

fn make_mount_readonly(fs: &FsContext, path: &[u8]) -> SysResult<()> {
    let at = resolve(fs, path)?;
    at.mount.set_flags(at.mount.flags() | MountFlags::RDONLY);
    Ok(())
}

fn make_mount(
    kernel: &Arc<Kernel>,
    container: &Container,
    fs: &FsContext,
    mount: &MountConfig,
    connections: &mut Connections,
) -> SysResult<()> {
    let mut flags = MountFlags::RELATIME;
    flags.set(MountFlags::RDONLY, mount.readonly && !is_filled(mount));
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
        MountKind::Proc => ProcFs::new(container.pid_namespace.clone()),
        MountKind::Sysfs => SysFs::new(),
        MountKind::Devpts => {
            let devpts = DevPts::new(devpts::Options::CONTAINER);
            devpts.serve_ptmx(kernel);
            devpts
        }
        MountKind::Mqueue => mqueue::file_system(&container.ipc),
        MountKind::Cgroup { hierarchies } => {
            let at = mount_point(fs, path, true)?;
            return cgroups::mount(fs, &at, path, flags, hierarchies, connections);
        }
    };
    let at = mount_point(fs, path, is_directory)?;
    // Where a directory lies on the host is nothing that the container should see.
    let source = match mount.kind {
        MountKind::Gofer { .. } => "none",
        _ => &mount.source,
    };
    let sb = SuperBlock::below(file_system, mount.root_name.as_bytes());
    let new = Mount::new(sb, source.as_bytes(), flags);
    fs.namespace().mount(&new, &at)?;
    set_propagation(fs, path, mount.propagation)?;
    if let MountKind::Devtmpfs(_) = mount.kind {
        fill_dev(fs, path)?;
    }
    Ok(())
}

fn set_propagation(fs: &FsContext, path: &[u8], propagation: Propagation) -> SysResult<()> {
    let (kinds, recursive): (&[MountFlags], bool) = match propagation {
        Propagation::Private => return Ok(()),
        Propagation::Shared => (&[MountFlags::SHARED], true),
        // A slave needs a master: what the host would be to a container.
        Propagation::Slave => (&[MountFlags::SHARED, MountFlags::SLAVE], true),
        Propagation::Unbindable => (&[MountFlags::UNBINDABLE], false),
    };
    let at = resolve(fs, path)?;
    kinds.iter().try_for_each(|kind| fs.namespace().set_propagation(&at, *kind, recursive))
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
