//! The namespaces of a task, and how it gets others (`namespaces(7)`): `clone(2)`, `unshare(2)`,
//! `setns(2)`.
//!
//! [`Namespaces`] is what Linux has in `struct nsproxy`. The mount namespace belongs to the
//! [`FsContext`](crate::vfs::fs_context::FsContext), the user namespace to the credentials, the pid
//! namespace that a task is in to its numbers.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sentry_host::clock::Clock;
use syscalls::abi::capability::{CAP_SYS_ADMIN, CAP_SYS_CHROOT};
use syscalls::abi::clone::CloneFlags;
use syscalls::{Errno, SysResult};

use super::time_namespace::TimeNamespace;
use super::user_namespace::{Counted, Kind, UserNamespace};
use super::{Credentials, CurrentTask, Task, identity, time_namespace};
use crate::ipc::Ipc;
use crate::kernel::Kernel;
use crate::net::inet::Inet;
use crate::sync::Mutex;
use crate::task::pid_namespace::PidNamespace;
use crate::vfs::mount::MountNamespace;

/// How deep pid namespaces can be nested: Linux's limit below that of the container.
const MAX_PID_NS_LEVEL: usize = 33;

/// A namespace that has no other members than its contents.
pub(crate) struct Namespace<T> {
    /// The inode number that `/proc/PID/ns` shows.
    pub(crate) ino: u64,
    /// The user namespace that it belongs to.
    pub(crate) owner: Arc<UserNamespace>,
    contents: T,
    _counted: Option<Counted>,
}

/// The names of a UTS namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostNames {
    /// `uname -n`.
    pub(crate) host: Vec<u8>,
    /// The NIS domain name.
    pub(crate) domain: Vec<u8>,
}

/// A namespace of names.
pub(crate) type Uts = Namespace<Mutex<HostNames>>;

impl<T> Namespace<T> {
    /// Creates a namespace that belongs to a container.
    pub(crate) fn new(kernel: &Kernel, owner: &Arc<UserNamespace>, contents: T) -> Arc<Self> {
        Self::with_ino(kernel.next_namespace_ino(), owner, contents)
    }

    /// Creates the first namespace of its kind, which has a number of its own on Linux.
    pub(crate) fn with_ino(ino: u64, owner: &Arc<UserNamespace>, contents: T) -> Arc<Self> {
        Arc::new(Self { ino, owner: owner.clone(), contents, _counted: None })
    }

    /// Creates a namespace for a task.
    ///
    /// # Errors
    /// `ENOSPC`.
    fn counted(
        kernel: &Kernel,
        owner: &Arc<UserNamespace>,
        kind: Kind,
        contents: T,
    ) -> SysResult<Arc<Self>> {
        let counted = Some(owner.count(kind)?);
        let ino = kernel.next_namespace_ino();
        Ok(Arc::new(Self { ino, owner: owner.clone(), contents, _counted: counted }))
    }
}

impl<T> Deref for Namespace<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.contents
    }
}

/// The namespaces that tasks share or not, one by one. Replaced as a whole.
#[derive(Clone)]
pub(crate) struct Namespaces {
    pub(crate) uts: Arc<Uts>,
    pub(crate) ipc: Arc<Namespace<Ipc>>,
    pub(crate) net: Arc<Namespace<Arc<Inet>>>,
    /// The container's control groups are all that it sees: a further namespace shows no less.
    pub(crate) cgroup: Arc<Namespace<()>>,
    /// The clocks.
    pub(crate) time: Arc<TimeNamespace>,
    /// The clocks of the task's children, and of the next program that it executes.
    pub(crate) time_for_children: Arc<TimeNamespace>,
    /// Where the task's children are numbered.
    pub(crate) pid_for_children: Arc<PidNamespace>,
}

/// The namespaces that `Namespaces` is made of, as flags.
const IN_PROXY: CloneFlags = CloneFlags::NEWUTS
    .union(CloneFlags::NEWIPC)
    .union(CloneFlags::NEWNET)
    .union(CloneFlags::NEWCGROUP)
    .union(CloneFlags::NEWPID)
    .union(CloneFlags::NEWTIME);

impl Namespaces {
    /// Returns these namespaces with fresh ones where `flags` asks for them, which belong to
    /// `owner`.
    fn renewed(
        &self,
        current: &CurrentTask,
        flags: CloneFlags,
        owner: &Arc<UserNamespace>,
    ) -> SysResult<Self> {
        let kernel = &current.kernel;
        let mut new = self.clone();
        if flags.contains(CloneFlags::NEWUTS) {
            let names = Mutex::new(self.uts.lock().clone());
            new.uts = Namespace::counted(kernel, owner, Kind::Uts, names)?;
        }
        if flags.contains(CloneFlags::NEWIPC) {
            new.ipc = Namespace::counted(kernel, owner, Kind::Ipc, Ipc::default())?;
        }
        if flags.contains(CloneFlags::NEWPID) {
            let own = current.pid_namespace();
            if !Arc::ptr_eq(&own, &self.pid_for_children) {
                return Err(Errno::EINVAL);
            }
            if own.level >= MAX_PID_NS_LEVEL {
                return Err(Errno::ENOSPC);
            }
            let counted = owner.count(Kind::Pid)?;
            let ino = kernel.next_namespace_ino();
            new.pid_for_children = PidNamespace::below(&own, ino, owner, counted);
        }
        if flags.contains(CloneFlags::NEWCGROUP) {
            new.cgroup = Namespace::counted(kernel, owner, Kind::Cgroup, ())?;
        }
        if flags.contains(CloneFlags::NEWTIME) {
            let offsets = self.time_for_children.renewed();
            new.time_for_children = Namespace::counted(kernel, owner, Kind::Time, offsets)?;
        }
        if flags.contains(CloneFlags::NEWNET) {
            let inet = Arc::new(Inet::isolated());
            new.net = Namespace::counted(kernel, owner, Kind::Net, inet)?;
        }
        Ok(new)
    }
}

/// Returns the credentials of the caller in a new user namespace.
fn in_new_user_namespace(current: &CurrentTask) -> SysResult<Credentials> {
    let old = current.creds();
    let (root, _) = current.fs().root_and_cwd();
    if root != current.fs().namespace().root() {
        return Err(Errno::EPERM);
    }
    let namespace = UserNamespace::new_below(&old, current.kernel.next_namespace_ino())?;
    let mut new = (*old).clone();
    new.enter_user_ns(namespace);
    Ok(new)
}

/// The credentials and namespaces that a new process starts with.
pub(crate) struct Inherited {
    pub(crate) creds: Arc<Credentials>,
    pub(crate) namespaces: Arc<Namespaces>,
}

/// Prepares those of a clone: `copy_creds` and `copy_namespaces`, but for the mounts.
///
/// # Errors
/// `EINVAL`, `EPERM`, `ENOSPC`.
pub(crate) fn inherit(current: &CurrentTask, flags: CloneFlags) -> SysResult<Inherited> {
    let mut creds = current.creds();
    if flags.contains(CloneFlags::NEWUSER) {
        creds = Arc::new(in_new_user_namespace(current)?);
    }
    let mut namespaces = current.namespaces();
    if flags.intersects(IN_PROXY | CloneFlags::NEWNS) {
        if !creds.has_own_capability(CAP_SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        if flags.contains(CloneFlags::NEWIPC | CloneFlags::SYSVSEM) {
            return Err(Errno::EINVAL);
        }
        namespaces = Arc::new(namespaces.renewed(current, flags, &creds.user_ns)?);
    }
    Ok(Inherited { creds, namespaces })
}

/// Gives the caller namespaces of its own: what `unshare(2)` does after its first checks.
///
/// # Errors
/// As [`inherit`].
pub(crate) fn unshare(current: &CurrentTask, flags: CloneFlags) -> SysResult<()> {
    let Inherited { creds, namespaces } = inherit(current, flags)?;
    let new_fs = if flags.contains(CloneFlags::NEWNS) {
        let fs = current.fs().fork();
        fs.unshare_namespace(&creds.user_ns)?;
        Some(fs)
    } else if flags.intersects(CloneFlags::FS | CloneFlags::NEWUSER) {
        Some(current.fs().fork())
    } else {
        None
    };
    if flags.intersects(CloneFlags::SYSVSEM | CloneFlags::NEWIPC) {
        current.ipc().sem.leave_undo_list(current);
    }
    if let Some(fs) = new_fs {
        let old = std::mem::replace(&mut *current.fs.lock(), fs);
        drop(old);
    }
    set(current, namespaces);
    if flags.contains(CloneFlags::NEWUSER) {
        set_creds(current, creds);
    }
    Ok(())
}

fn set(current: &CurrentTask, namespaces: Arc<Namespaces>) {
    let old = std::mem::replace(&mut *current.namespaces.lock(), namespaces);
    drop(old);
}

fn set_creds(current: &CurrentTask, creds: Arc<Credentials>) {
    let old = std::mem::replace(&mut *current.creds.lock(), creds);
    drop(old);
    identity::changed(current);
}

/// A namespace of any kind.
#[derive(Clone)]
pub(crate) enum AnyNamespace {
    Cgroup(Arc<Namespace<()>>),
    Ipc(Arc<Namespace<Ipc>>),
    Mnt(Arc<MountNamespace>),
    Net(Arc<Namespace<Arc<Inet>>>),
    Pid(Arc<PidNamespace>),
    Time(Arc<TimeNamespace>),
    User(Arc<UserNamespace>),
    Uts(Arc<Uts>),
}

impl AnyNamespace {
    /// Returns the number in `/proc/PID/ns`.
    pub(crate) fn ino(&self) -> u64 {
        match self {
            Self::Cgroup(namespace) => namespace.ino,
            Self::Time(namespace) => namespace.ino,
            Self::Ipc(namespace) => namespace.ino,
            Self::Mnt(namespace) => namespace.id,
            Self::Net(namespace) => namespace.ino,
            Self::Pid(namespace) => namespace.ino,
            Self::User(namespace) => namespace.ino,
            Self::Uts(namespace) => namespace.ino,
        }
    }

    /// Returns the name of its kind.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Cgroup(_) => "cgroup",
            Self::Ipc(_) => "ipc",
            Self::Mnt(_) => "mnt",
            Self::Net(_) => "net",
            Self::Pid(_) => "pid",
            Self::Time(_) => "time",
            Self::User(_) => "user",
            Self::Uts(_) => "uts",
        }
    }

    /// Returns the flag of `clone(2)` that makes one.
    pub(crate) fn flag(&self) -> CloneFlags {
        match self {
            Self::Cgroup(_) => CloneFlags::NEWCGROUP,
            Self::Ipc(_) => CloneFlags::NEWIPC,
            Self::Mnt(_) => CloneFlags::NEWNS,
            Self::Net(_) => CloneFlags::NEWNET,
            Self::Pid(_) => CloneFlags::NEWPID,
            Self::Time(_) => CloneFlags::NEWTIME,
            Self::User(_) => CloneFlags::NEWUSER,
            Self::Uts(_) => CloneFlags::NEWUTS,
        }
    }

    /// Returns the user namespace that it belongs to; `None` for that of a container, which nobody
    /// inside sees anything above of.
    pub(crate) fn owner(&self) -> Option<Arc<UserNamespace>> {
        Some(match self {
            Self::Cgroup(namespace) => namespace.owner.clone(),
            Self::Time(namespace) => namespace.owner.clone(),
            Self::Ipc(namespace) => namespace.owner.clone(),
            Self::Mnt(namespace) => namespace.owner.clone(),
            Self::Net(namespace) => namespace.owner.clone(),
            Self::Pid(namespace) => namespace.owner.clone(),
            Self::User(namespace) => return namespace.parent.clone(),
            Self::Uts(namespace) => namespace.owner.clone(),
        })
    }
}

/// Enters namespaces of any kinds together, or none of them: `setns(2)`.
///
/// # Errors
/// `EINVAL` for one that cannot be entered, `EPERM`.
pub(crate) fn enter(current: &CurrentTask, wanted: &[AnyNamespace]) -> SysResult<()> {
    let mut creds = current.creds();
    let mut namespaces = (*current.namespaces()).clone();
    let mut mounts = None;
    // The capabilities of the user namespace count for the others.
    let users = wanted.iter().filter(|namespace| matches!(namespace, AnyNamespace::User(_)));
    let others = wanted.iter().filter(|namespace| !matches!(namespace, AnyNamespace::User(_)));
    for namespace in users.chain(others) {
        let is_admin_of = |owner: &UserNamespace| {
            creds.is_capable_in(owner, CAP_SYS_ADMIN) && creds.has_own_capability(CAP_SYS_ADMIN)
        };
        let may = match namespace {
            AnyNamespace::User(namespace) => {
                creds = Arc::new(in_user_namespace(current, namespace)?);
                continue;
            }
            AnyNamespace::Mnt(namespace) => {
                is_admin_of(&namespace.owner) && creds.has_own_capability(CAP_SYS_CHROOT)
            }
            other => other.owner().is_some_and(|owner| is_admin_of(&owner)),
        };
        if !may {
            return Err(Errno::EPERM);
        }
        match namespace {
            AnyNamespace::Mnt(namespace) => {
                if Arc::strong_count(&current.fs()) > 2 {
                    return Err(Errno::EINVAL);
                }
                mounts = Some(namespace.clone());
            }
            AnyNamespace::Pid(namespace) => {
                let own = current.pid_namespace();
                if !namespace.is_in(&own) {
                    return Err(Errno::EINVAL);
                }
                namespaces.pid_for_children = namespace.clone();
            }
            AnyNamespace::Cgroup(namespace) => namespaces.cgroup = namespace.clone(),
            AnyNamespace::Ipc(namespace) => namespaces.ipc = namespace.clone(),
            AnyNamespace::Net(namespace) => namespaces.net = namespace.clone(),
            AnyNamespace::Uts(namespace) => namespaces.uts = namespace.clone(),
            AnyNamespace::Time(namespace) => {
                if current.group.live_tasks().len() > 1 {
                    return Err(Errno::EUSERS);
                }
                namespaces.time = namespace.clone();
                namespaces.time_for_children = namespace.clone();
            }
            AnyNamespace::User(_) => {}
        }
    }
    if !Arc::ptr_eq(&namespaces.time, &current.namespaces().time) {
        let vdso = time_namespace::remap(current, &namespaces.time)?;
        namespaces.time.fix();
        current.host_calls.lock().extend(vdso);
    }
    if !Arc::ptr_eq(&namespaces.ipc, &current.ipc()) {
        current.ipc().sem.leave_undo_list(current);
    }
    if let Some(mounts) = mounts {
        current.fs().enter_namespace(mounts);
    }
    set(current, Arc::new(namespaces));
    let old = current.creds();
    if !is_own_creation(&creds.user_ns, &old) {
        current.group.is_dumpable.store(false, Ordering::Relaxed);
    }
    set_creds(current, creds);
    Ok(())
}

/// Returns whether a user namespace is the caller's, or one of its user's below it: who enters another
/// one does not show its members what it has in its memory (`cred_cap_issubset`).
fn is_own_creation(namespace: &Arc<UserNamespace>, old: &Credentials) -> bool {
    let mut at = namespace;
    loop {
        let Some(parent) = &at.parent else { return namespace.is(&old.user_ns) };
        if namespace.is(&old.user_ns) || (parent.is(&old.user_ns) && at.owner == old.euid) {
            return true;
        }
        at = parent;
    }
}

/// `userns_install`.
fn in_user_namespace(
    current: &CurrentTask,
    namespace: &Arc<UserNamespace>,
) -> SysResult<Credentials> {
    let old = current.creds();
    if Arc::ptr_eq(&old.user_ns, namespace)
        || current.group.live_tasks().len() > 1
        || Arc::strong_count(&current.fs()) > 2
    {
        return Err(Errno::EINVAL);
    }
    if !old.is_capable_in(namespace, CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let mut new = (*old).clone();
    new.enter_user_ns(namespace.clone());
    Ok(new)
}

/// Returns a task's namespace of the kind that a link in `/proc/PID/ns` is named for.
pub(crate) fn of_task(task: &Task, name: &str) -> Option<AnyNamespace> {
    let namespaces = task.namespaces();
    Some(match name {
        "cgroup" => AnyNamespace::Cgroup(namespaces.cgroup.clone()),
        "ipc" => AnyNamespace::Ipc(namespaces.ipc.clone()),
        "mnt" => AnyNamespace::Mnt(task.fs().namespace()),
        "net" => AnyNamespace::Net(namespaces.net.clone()),
        "pid" => AnyNamespace::Pid(task.pid_namespace()),
        // Before the first process is there, it is not shown.
        "pid_for_children" => AnyNamespace::Pid(
            Some(namespaces.pid_for_children.clone()).filter(|namespace| namespace.has_init())?,
        ),
        "time" => AnyNamespace::Time(namespaces.time.clone()),
        "time_for_children" => AnyNamespace::Time(namespaces.time_for_children.clone()),
        "user" => AnyNamespace::User(task.creds().user_ns.clone()),
        "uts" => AnyNamespace::Uts(namespaces.uts.clone()),
        _ => return None,
    })
}

impl Namespaces {
    /// Returns these for a process that enters the time namespace of its maker's children; `None` where
    /// it is there already.
    pub(super) fn in_time_for_children(&self) -> Option<Arc<Self>> {
        if Arc::ptr_eq(&self.time, &self.time_for_children) {
            return None;
        }
        self.time_for_children.fix();
        Some(Arc::new(Self { time: self.time_for_children.clone(), ..self.clone() }))
    }
}

impl Task {
    /// Returns by how many nanoseconds a clock of the task's is ahead of the host's.
    pub(crate) fn clock_offset_ns(&self, clock: Clock) -> i64 {
        self.namespaces.lock().time.of(clock)
    }

    /// Enters the time namespace of its children, where that is another one: exec.
    pub(super) fn enter_time_for_children(&self) {
        let mut namespaces = self.namespaces.lock();
        if let Some(new) = namespaces.in_time_for_children() {
            *namespaces = new;
        }
    }

    /// Returns the namespaces.
    pub(crate) fn namespaces(&self) -> Arc<Namespaces> {
        self.namespaces.lock().clone()
    }

    /// Returns the namespace of System V IPC.
    pub(crate) fn ipc(&self) -> Arc<Namespace<Ipc>> {
        self.namespaces.lock().ipc.clone()
    }

    /// Returns whether a capability is effective for the network namespace.
    pub(crate) fn is_net_capable(&self, capability: u32) -> bool {
        self.creds().is_capable_in(&self.namespaces().net.owner, capability)
    }

    /// Returns the sockets of the network namespace.
    pub(crate) fn inet(&self) -> Arc<Inet> {
        self.namespaces.lock().net.contents.clone()
    }
}
