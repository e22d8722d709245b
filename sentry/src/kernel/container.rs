//! Containers: what the processes of one share with each other and not, or only where that is
//! asked for, with those of another one in the sandbox.
//!
//! Lock order: every lock here is a leaf.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use sentry_platform::{Context, ContextOwner, Nursery};
use syscalls::{Errno, SysResult, abi};

use super::{Kernel, MAX_TASKS};
use crate::config::{CgroupText, ContainerConfig, SharedNamespaces};
use crate::ipc::Ipc;
use crate::keys::Keys;
use crate::sync::Mutex;
use crate::task::namespaces::{HostNames, Namespace, Namespaces, Uts};
use crate::task::pid_namespace::PidNamespace;
use crate::task::time_namespace::{Offsets, TimeNamespace};
use crate::task::user_namespace::UserNamespace;
use crate::task::{CurrentTask, Task, ThreadGroup, seccomp};

/// The inode number of the first namespace of control groups on Linux.
const CGROUP_INO: u64 = 4_026_531_835;

/// The inode number of the first namespace of clocks on Linux.
const TIME_INO: u64 = 4_026_531_834;

/// A container of the sandbox. Every process belongs to one for as long as it lives.
pub struct Container {
    /// Its name in the state directory.
    pub id: String,
    /// The namespace of its first process.
    pub pid_namespace: Arc<PidNamespace>,
    /// `uname -n`.
    pub(crate) uts: Arc<Uts>,
    /// System V IPC.
    pub(crate) ipc: Arc<Namespace<Ipc>>,
    /// The control groups.
    cgroup: Arc<Namespace<()>>,
    /// The clocks.
    time: Arc<TimeNamespace>,
    /// What its processes leave with the kernel: `keyrings(7)`.
    pub(crate) keys: Keys,
    /// The users and groups that there are.
    pub(crate) user_ns: Arc<UserNamespace>,
    /// What is told about control groups.
    pub(crate) cgroup_text: CgroupText,
    /// The filter of system calls that every process of it starts with.
    pub(crate) seccomp: seccomp::Mode,
    /// Whether signals end the first process as they end any other.
    pub(crate) init_is_ordinary: bool,
    /// The first process and its wait status, once it has exited.
    pub(crate) init: Mutex<Init>,
    /// Whether nobody runs application code: `pause`.
    is_frozen: AtomicBool,
    /// Bytes of memory that the guest is told it has.
    memory_limit: AtomicU64,
    /// Most tasks.
    tasks_limit: AtomicUsize,
    n_tasks: AtomicUsize,
    /// What fresh address spaces are made of.
    origin: Mutex<Origin>,
}

/// What the address spaces of a container are made of.
enum Origin {
    /// What the platform has for the first container.
    Platform,
    /// A process of the container's own.
    Own(Arc<dyn Nursery>),
    /// Nothing any more.
    None,
}

/// A container's first process.
#[derive(Default)]
pub(crate) struct Init {
    pub(crate) group: Option<Arc<ThreadGroup>>,
    pub(crate) status: Option<i32>,
}

impl Container {
    /// Creates a container without processes. It has the namespaces of `first`, where there is one,
    /// that the configuration does not give it for itself.
    pub(crate) fn new(
        kernel: &Arc<Kernel>,
        config: &ContainerConfig,
        first: Option<&Self>,
        pid_holder: Option<&Self>,
        nursery: Option<Arc<dyn Nursery>>,
    ) -> Arc<Self> {
        let SharedNamespaces { pid, ipc, uts } = config.shared;
        let names = HostNames {
            host: config.hostname.clone().into_bytes(),
            domain: config.domainname.clone().into_bytes(),
        };
        let user_ns = UserNamespace::of_container(config.id_maps.clone());
        Arc::new(Self {
            id: config.id.clone(),
            pid_namespace: match pid_holder.filter(|_| pid) {
                Some(holder) => holder.pid_namespace.clone(),
                None => PidNamespace::new(
                    Some(kernel.root_pid_namespace.clone()),
                    kernel.next_namespace_ino(),
                    &user_ns,
                ),
            },
            uts: match first.filter(|_| uts) {
                Some(first) => first.uts.clone(),
                None => Namespace::new(kernel, &user_ns, Mutex::new(names)),
            },
            ipc: match first.filter(|_| ipc) {
                Some(first) => first.ipc.clone(),
                None => Namespace::new(kernel, &user_ns, Ipc::default()),
            },
            cgroup: Namespace::with_ino(CGROUP_INO, &user_ns, ()),
            time: Namespace::with_ino(TIME_INO, &user_ns, Offsets::initial()),
            user_ns,
            keys: Keys::default(),
            cgroup_text: config.cgroup_text.clone(),
            seccomp: seccomp::Mode::of_container(&config.seccomp),
            init_is_ordinary: config.init_is_ordinary,
            init: Mutex::new(Init::default()),
            is_frozen: AtomicBool::new(false),
            memory_limit: AtomicU64::new(config.memory_limit.unwrap_or(u64::MAX)),
            tasks_limit: AtomicUsize::new(as_tasks(config.tasks_limit)),
            n_tasks: AtomicUsize::new(0),
            origin: Mutex::new(nursery.map_or(Origin::Platform, Origin::Own)),
        })
    }

    /// Returns the namespaces that its processes start with.
    pub(crate) fn namespaces(&self, kernel: &Kernel) -> Arc<Namespaces> {
        Arc::new(Namespaces {
            uts: self.uts.clone(),
            ipc: self.ipc.clone(),
            net: kernel.net.clone(),
            cgroup: self.cgroup.clone(),
            time: self.time.clone(),
            time_for_children: self.time.clone(),
            pid_for_children: self.pid_namespace.clone(),
        })
    }

    /// Creates an empty address space, as [`sentry_platform::Platform::create`].
    ///
    /// # Errors
    /// `EAGAIN` or `ENOMEM` where the host gives no further process.
    pub(crate) fn create_context(
        &self,
        kernel: &Kernel,
        owner: Arc<dyn ContextOwner>,
    ) -> SysResult<Arc<dyn Context>> {
        let nursery = match &*self.origin.lock() {
            Origin::Platform => None,
            Origin::Own(nursery) => Some(nursery.clone()),
            Origin::None => return Err(Errno::EAGAIN),
        };
        match nursery {
            Some(nursery) => nursery.create(owner),
            None => kernel.platform().create(owner),
        }
    }

    /// Lets nobody run a program any more: the container is over, though zombies may be left of it.
    pub(crate) fn close(&self) {
        let origin = std::mem::replace(&mut *self.origin.lock(), Origin::None);
        drop(origin);
        self.thaw();
        // The circle of references.
        let mut init = self.init.lock();
        init.status.get_or_insert(abi::wait::signaled(abi::signal::SIGKILL, false));
        init.group = None;
    }

    /// Counts a new task, unless the container, the sandbox or the user has reached the limit.
    pub(crate) fn may_create_task(&self, current: &CurrentTask) -> bool {
        let limit = current.group.limits.lock().soft(abi::resource::RLIMIT_NPROC);
        let limit = usize::try_from(limit).unwrap_or(MAX_TASKS);
        let creds = current.creds();
        let privileged = (creds.uid == 0 && creds.user_ns.is_initial())
            || creds.has_capability(abi::capability::CAP_SYS_RESOURCE)
            || creds.has_capability(abi::capability::CAP_SYS_ADMIN);
        let most = self.tasks_limit.load(Ordering::Relaxed);
        let limit = if privileged { most } else { limit.min(most) };
        if !try_count(&self.n_tasks, limit) {
            return false;
        }
        let counted = current.kernel.count_task(MAX_TASKS);
        if !counted {
            uncount(&self.n_tasks);
        }
        counted
    }

    /// Counts a task that is started from outside, which no limit of the container's concerns.
    pub(crate) fn count_first_task(&self, kernel: &Kernel) {
        try_count(&self.n_tasks, usize::MAX);
        kernel.count_task(usize::MAX);
    }

    /// Is told that a task's number has been freed.
    pub(crate) fn task_gone(&self, kernel: &Kernel) {
        uncount(&self.n_tasks);
        kernel.uncount_task();
    }

    /// Returns the container's threads and their numbers in its pid namespace.
    pub(crate) fn tasks(&self) -> Vec<(u32, Arc<Task>)> {
        let mut tasks = self.pid_namespace.tasks();
        tasks.retain(|(_, task)| std::ptr::eq(Arc::as_ptr(task.container()), self));
        tasks
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
        for (_, task) in self.tasks() {
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

    /// Records the end of a process where it is the first one; returns whether it is.
    pub(super) fn process_exited(&self, group: &Arc<ThreadGroup>, status: i32) -> bool {
        let mut init = self.init.lock();
        let is_init = init.group.as_ref().is_some_and(|init| Arc::ptr_eq(init, group));
        if is_init {
            init.status = Some(status);
        }
        is_init
    }
}

/// Counts one more, up to a limit; returns whether there was room.
pub(super) fn try_count(count: &AtomicUsize, limit: usize) -> bool {
    let more = |n| (n < limit).then_some(n + 1);
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
}

/// Counts one less.
pub(super) fn uncount(count: &AtomicUsize) {
    let _ = count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n: usize| n.checked_sub(1));
}

/// Returns a limit of tasks as this kernel can hold to it.
fn as_tasks(limit: Option<u64>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).map_or(MAX_TASKS, |it| it.min(MAX_TASKS))
}
