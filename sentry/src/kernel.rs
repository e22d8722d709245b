//! The kernel: the object that owns the subsystems.

pub mod container;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use sentry_platform::Platform;
use syscalls::{Errno, SysResult};

use crate::config::IdMaps;
use crate::control::StatusNotifier;
use crate::fs::host_fd::HostPoller;
use crate::fs::procfs::NetworkTables;
use crate::net::inet::Inet;
use crate::net::netlink::Snapshot;
use crate::sync::Mutex;
use crate::task::ThreadGroup;
use crate::task::namespaces::Namespace;
use crate::task::pid_namespace::PidNamespace;
use crate::task::time_namespace::VdsoFiles;
use crate::task::user_namespace::UserNamespace;
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
    /// The namespace above those of the containers: it has all processes, and nobody sees it.
    pub root_pid_namespace: Arc<PidNamespace>,
    /// Who waits for which futex.
    pub(crate) futexes: crate::mm::futex::FutexTable,
    n_tasks: AtomicUsize,
    next_ino: AtomicU64,
    /// Processes started since boot, for `/proc/stat`.
    pub(crate) n_forks: AtomicU64,
    /// How often a thread has given up its processor to wait.
    pub(crate) n_waits: AtomicU64,
    /// The kernel version that the guest sees.
    pub(crate) release: String,
    /// Whether `--strace` logs calls.
    pub(crate) strace: bool,
    /// Whether the platform may answer calls by itself.
    pub(crate) fast_path: bool,
    /// The host's network, where sockets are passed through to it.
    pub(crate) host_network: Option<HostNetwork>,
    /// How the control server learns that the container's state has changed.
    pub(crate) status_notifier: OnceLock<StatusNotifier>,
    /// What device nodes and FIFOs are opened with.
    pub special_files: SpecialFiles,
    /// The names that unix sockets are bound to.
    pub unix_sockets: crate::net::unix::Registry,
    /// The sockets of the Internet families.
    pub inet: Arc<Inet>,
    /// The network namespace of the containers, which has them.
    pub(crate) net: Arc<Namespace<Arc<Inet>>>,
    /// The numbers of netlink sockets.
    pub netlink: crate::net::netlink::Registry,
    /// What has been changed below `/proc/sys`.
    pub sysctls: crate::fs::procfs::Sysctls,
    /// The file systems that `mount(2)` makes.
    pub file_system_types: FileSystemTypes,
    /// The images of the vDSO that processes map which change their time namespace.
    pub(crate) vdso_files: VdsoFiles,
    /// Where memfds live, once there is one.
    pub(crate) memfds: OnceLock<crate::fs::memfd::MemFds>,
    /// How many requests of asynchronous I/O there can be.
    pub(crate) aio_requests: crate::aio::Requests,
}

/// The host's network, passed through.
pub struct HostNetwork {
    /// Who watches the host's sockets.
    pub poller: Arc<HostPoller>,
    /// The host's interfaces, addresses and routes when the sandbox booted.
    pub routes: Snapshot,
    /// What the host shows of it below `/proc/net`.
    pub tables: NetworkTables,
}

/// What a kernel is made with.
pub struct KernelOptions {
    /// The kernel version that the guest sees.
    pub release: String,
    /// Whether calls are logged.
    pub strace: bool,
    /// Whether the platform may answer calls by itself, where it can.
    pub fast_path: bool,
    /// The host's network, where sockets are passed through to it.
    pub host_network: Option<HostNetwork>,
}

impl Kernel {
    /// Creates a kernel without tasks. The platform is given later, because it is started while
    /// the process may still fork.
    pub fn new(options: KernelOptions) -> Arc<Self> {
        let user_ns = UserNamespace::of_container(IdMaps::default());
        let inet = Arc::new(Inet::default());
        Arc::new(Self {
            platform: OnceLock::new(),
            clock: Clock::default(),
            timers: TimerQueue::new(),
            tree: Mutex::new(()),
            root_pid_namespace: PidNamespace::new(None, FIRST_NAMESPACE_INO, &user_ns),
            futexes: Default::default(),
            n_tasks: AtomicUsize::new(0),
            next_ino: AtomicU64::new(FIRST_NAMESPACE_INO + 16),
            n_forks: AtomicU64::new(0),
            n_waits: AtomicU64::new(0),
            release: options.release,
            strace: options.strace,
            fast_path: options.fast_path && !options.strace,
            host_network: options.host_network,
            status_notifier: OnceLock::new(),
            special_files: SpecialFiles::default(),
            unix_sockets: Default::default(),
            net: Namespace::with_ino(NET_INO, &user_ns, inet.clone()),
            inet,
            netlink: Default::default(),
            sysctls: Default::default(),
            file_system_types: FileSystemTypes::default(),
            vdso_files: VdsoFiles::default(),
            memfds: OnceLock::new(),
            aio_requests: Default::default(),
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

    /// Counts a new task, up to a limit; returns whether there was room.
    fn count_task(&self, limit: usize) -> bool {
        let counted = container::try_count(&self.n_tasks, limit);
        if counted {
            self.n_forks.fetch_add(1, Ordering::Relaxed);
        }
        counted
    }

    fn uncount_task(&self) {
        container::uncount(&self.n_tasks);
    }

    /// Returns how many tasks there are, zombies included.
    pub fn n_tasks(&self) -> usize {
        self.n_tasks.load(Ordering::Relaxed)
    }

    /// Returns a new inode number for a namespace.
    pub(crate) fn next_namespace_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// Is told that a process has become a zombie.
    pub(crate) fn process_exited(&self, group: &Arc<ThreadGroup>, status: i32) {
        let is_init = group.container.process_exited(group, status);
        // A process without a parent was started from outside, where somebody waits for it.
        if (is_init || group.parent().is_none())
            && let Some(notifier) = self.status_notifier.get()
        {
            notifier.notify();
        }
    }
}

/// The inode number of the first namespace: Linux's `PROC_DYNAMIC_FIRST` and what follows.
const FIRST_NAMESPACE_INO: u64 = 0xf000_0000;

/// The inode number of the first network namespace on Linux.
const NET_INO: u64 = 4_026_531_833;

/// The stack of a sentry thread in bytes.
const THREAD_STACK: usize = 512 << 10;

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
