//! The kernel: the object that owns the subsystems.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use sentry_platform::Platform;
use syscalls::abi::resource;
use syscalls::{Errno, SysResult};

use crate::config::{CgroupText, IdMaps};
use crate::control::StatusNotifier;
use crate::fs::host_fd::HostPoller;
use crate::net::netlink::Snapshot;
use crate::sync::Mutex;
use crate::task::pid_namespace::PidNamespace;
use crate::task::{CurrentTask, Task, ThreadGroup};
use crate::time::{Clock, TimerQueue};
use crate::vfs::fs_types::FileSystemTypes;
use crate::vfs::special::SpecialFiles;

/// The most tasks in a sandbox: Linux's `threads-max` on a machine of some gigabytes.
pub(crate) const MAX_TASKS: usize = 63_000;

/// The guest kernel.
pub struct Kernel {
    platform: OnceLock<Arc<dyn Platform>>,
    /// The clocks.
    pub clock: Clock,
    /// Deadlines.
    pub timers: Arc<TimerQueue>,
    /// Guards every change to parents, children, threads, process groups and sessions.
    pub(crate) tree: Mutex<()>,
    /// The namespace of the container's first process.
    pub root_pid_namespace: Arc<PidNamespace>,
    /// Who waits for which futex.
    pub(crate) futexes: crate::mm::futex::FutexTable,
    n_tasks: AtomicUsize,
    next_ino: AtomicU64,
    /// Processes started since boot, for `/proc/stat`.
    pub(crate) n_forks: AtomicU64,
    /// Whether `--strace` logs calls.
    pub(crate) strace: bool,
    /// Whether nobody runs application code: `pause`.
    is_frozen: AtomicBool,
    /// Whether signals end the first process as they end any other.
    pub(crate) init_is_ordinary: bool,
    /// The host's network, where sockets are passed through to it.
    pub(crate) host_network: Option<HostNetwork>,
    /// `uname -n` and the NIS domain name.
    pub(crate) host_name: Mutex<(Vec<u8>, Vec<u8>)>,
    /// The first process and its wait status, once it has exited.
    pub(crate) init: Mutex<Init>,
    /// How the control server learns that the container's state has changed.
    pub(crate) status_notifier: OnceLock<StatusNotifier>,
    /// Bytes of memory that the guest is told it has.
    memory_limit: AtomicU64,
    /// Most tasks of the container.
    tasks_limit: AtomicUsize,
    /// What device nodes and FIFOs are opened with.
    pub special_files: SpecialFiles,
    /// The names that unix sockets are bound to.
    pub unix_sockets: crate::net::unix::Registry,
    /// The sockets of the Internet families.
    pub inet: crate::net::inet::Inet,
    /// The numbers of netlink sockets.
    pub netlink: crate::net::netlink::Registry,
    /// What has been changed below `/proc/sys`.
    pub sysctls: crate::fs::procfs::Sysctls,
    /// The file systems that `mount(2)` makes.
    pub file_system_types: FileSystemTypes,
    /// The users and groups that there are.
    pub(crate) id_maps: IdMaps,
    /// What is told about control groups.
    pub(crate) cgroup_text: CgroupText,
    /// System V IPC.
    pub ipc: crate::ipc::Ipc,
    /// Where memfds live, once there is one.
    pub(crate) memfds: OnceLock<crate::fs::memfd::MemFds>,
}

/// The container's first process.
#[derive(Default)]
pub(crate) struct Init {
    pub(crate) group: Option<Arc<ThreadGroup>>,
    pub(crate) status: Option<i32>,
}

/// The host's network, passed through.
pub struct HostNetwork {
    /// Who watches the host's sockets.
    pub poller: Arc<HostPoller>,
    /// The host's interfaces, addresses and routes when the sandbox booted.
    pub routes: Snapshot,
}

/// What a kernel is made with.
pub struct KernelOptions {
    /// Whether calls are logged.
    pub strace: bool,
    /// Whether signals end the first process as they end any other.
    pub init_is_ordinary: bool,
    /// `uname -n`.
    pub hostname: Vec<u8>,
    /// The NIS domain name.
    pub domainname: Vec<u8>,
    /// Bytes of memory that the guest is told it has.
    pub memory_limit: Option<u64>,
    /// Most tasks of the container.
    pub tasks_limit: Option<u64>,
    /// The host's network, where sockets are passed through to it.
    pub host_network: Option<HostNetwork>,
    /// The users and groups that there are.
    pub id_maps: IdMaps,
    /// What is told about control groups.
    pub cgroup_text: CgroupText,
}

impl Kernel {
    /// Creates a kernel without tasks. The platform is given later, because it is started while
    /// the process may still fork.
    pub fn new(options: KernelOptions) -> Arc<Self> {
        Arc::new(Self {
            platform: OnceLock::new(),
            clock: Clock::default(),
            timers: TimerQueue::new(),
            tree: Mutex::new(()),
            root_pid_namespace: PidNamespace::new(None, FIRST_NAMESPACE_INO),
            futexes: Default::default(),
            n_tasks: AtomicUsize::new(0),
            next_ino: AtomicU64::new(FIRST_NAMESPACE_INO + 16),
            n_forks: AtomicU64::new(0),
            strace: options.strace,
            is_frozen: AtomicBool::new(false),
            init_is_ordinary: options.init_is_ordinary,
            host_network: options.host_network,
            host_name: Mutex::new((options.hostname, options.domainname)),
            init: Mutex::new(Init::default()),
            status_notifier: OnceLock::new(),
            memory_limit: AtomicU64::new(options.memory_limit.unwrap_or(u64::MAX)),
            tasks_limit: AtomicUsize::new(as_tasks(options.tasks_limit)),
            special_files: SpecialFiles::default(),
            unix_sockets: Default::default(),
            inet: Default::default(),
            netlink: Default::default(),
            sysctls: Default::default(),
            file_system_types: FileSystemTypes::default(),
            id_maps: options.id_maps,
            cgroup_text: options.cgroup_text,
            ipc: Default::default(),
            memfds: OnceLock::new(),
        })
    }

    /// Gives the kernel its platform; once.
    pub fn set_platform(&self, platform: Arc<dyn Platform>) {
        let _ = self.platform.set(platform);
    }

    /// Returns the platform.
    ///
    /// # Panics
    /// Before `set_platform`, which is a bug in the boot sequence that no guest can reach.
    pub fn platform(&self) -> &Arc<dyn Platform> {
        match self.platform.get() {
            Some(platform) => platform,
            None => unreachable!("the platform is set before the first task exists"),
        }
    }

    /// Counts a new task, unless the sandbox or the user has reached the limit.
    pub(crate) fn may_create_task(&self, current: &CurrentTask) -> bool {
        let limit = current.group.limits.lock().soft(resource::RLIMIT_NPROC);
        let limit = usize::try_from(limit).unwrap_or(MAX_TASKS);
        let creds = current.creds();
        let privileged = creds.uid == 0
            || creds.has_capability(syscalls::abi::capability::CAP_SYS_RESOURCE)
            || creds.has_capability(syscalls::abi::capability::CAP_SYS_ADMIN);
        let most = self.tasks_limit.load(Ordering::Relaxed);
        let limit = if privileged { most } else { limit.min(most) };
        let counted = self
            .n_tasks
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < limit).then_some(n + 1));
        if counted.is_ok() {
            self.n_forks.fetch_add(1, Ordering::Relaxed);
        }
        counted.is_ok()
    }

    /// Changes the container's limits where there is a new one.
    pub(crate) fn set_limits(&self, memory: Option<u64>, tasks: Option<u64>) {
        if let Some(memory) = memory {
            self.memory_limit.store(memory, Ordering::Relaxed);
        }
        if tasks.is_some() {
            self.tasks_limit.store(as_tasks(tasks), Ordering::Relaxed);
        }
    }

    /// Counts the first task, which no limit concerns.
    pub(crate) fn count_first_task(&self) {
        self.n_tasks.fetch_add(1, Ordering::SeqCst);
    }

    /// Is told that a task's number has been freed.
    pub(crate) fn task_gone(&self) {
        let _ = self.n_tasks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    }

    /// Returns how many tasks there are, zombies included.
    pub fn n_tasks(&self) -> usize {
        self.n_tasks.load(Ordering::Relaxed)
    }

    /// Returns how many bytes of memory the guest is told it has.
    pub fn total_memory(&self) -> u64 {
        let total = sentry_host::memory_info::memory_info().total;
        self.memory_limit.load(Ordering::Relaxed).min(total)
    }

    /// Returns how many bytes of memory the guest is told are free: what the host has free, at
    /// most the guest's own share less what its processes hold.
    pub fn free_memory(&self) -> u64 {
        let free = sentry_host::memory_info::memory_info().free;
        let limit = self.memory_limit.load(Ordering::Relaxed);
        if limit == u64::MAX {
            return free;
        }
        let mut seen = Vec::new();
        let mut resident = 0u64;
        for (_, task) in self.root_pid_namespace.tasks() {
            let mm = task.mm();
            if task.exiting.load(Ordering::Relaxed)
                || seen.iter().any(|known| Arc::ptr_eq(known, &mm))
            {
                continue;
            }
            seen.push(mm);
            let context = task.context.lock().clone();
            resident = resident.saturating_add(context.address_space().usage().resident());
        }
        limit.saturating_sub(resident).min(free)
    }

    /// Returns a new inode number for a namespace.
    pub(crate) fn next_namespace_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the namespace that children of `task` are made in.
    pub(crate) fn pid_namespace_for_children(&self, task: &Task) -> Arc<PidNamespace> {
        task.pid_namespace()
    }

    /// Keeps tasks from going back to the application from now on.
    pub(crate) fn freeze(&self) {
        self.is_frozen.store(true, Ordering::SeqCst);
    }

    /// Ends a freeze.
    pub(crate) fn thaw(&self) {
        self.is_frozen.store(false, Ordering::SeqCst);
    }

    /// Returns whether the container is paused.
    pub(crate) fn is_frozen(&self) -> bool {
        self.is_frozen.load(Ordering::SeqCst)
    }

    /// Is told that a process has become a zombie.
    pub(crate) fn process_exited(&self, group: &Arc<ThreadGroup>, status: i32) {
        let mut init = self.init.lock();
        let is_init = init.group.as_ref().is_some_and(|init| Arc::ptr_eq(init, group));
        if is_init {
            init.status = Some(status);
        }
        drop(init);
        // A process without a parent was started from outside, where somebody waits for it.
        if (is_init || group.parent().is_none())
            && let Some(notifier) = self.status_notifier.get()
        {
            notifier.notify();
        }
    }
}

/// Returns a limit of tasks as this kernel can hold to it.
fn as_tasks(limit: Option<u64>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).map_or(MAX_TASKS, |it| it.min(MAX_TASKS))
}

/// The inode number of the first namespace: Linux's `PROC_DYNAMIC_FIRST` and what follows.
const FIRST_NAMESPACE_INO: u64 = 0xf000_0000;

/// The stack of a sentry thread in bytes.
const THREAD_STACK: usize = 256 << 10;

/// Starts a thread of the sentry with a small stack.
///
/// # Errors
/// `EAGAIN` where the host gives none.
pub fn spawn_thread(name: &str, body: impl FnOnce() + Send + 'static) -> SysResult<()> {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(THREAD_STACK);
    match builder.spawn(body) {
        Ok(_) => Ok(()),
        Err(error) => {
            crate::log::warn(format_args!("no host thread for `{name}`: {error}"));
            Err(Errno::EAGAIN)
        }
    }
}
