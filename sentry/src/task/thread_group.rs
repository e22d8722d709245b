//! Thread groups: guest processes.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use syscalls::abi::resource;

use super::account::Account;
use super::job::ProcessGroup;
use super::limits::INFINITY;
use super::signal::{GroupSignals, SignalActions};
use super::{Task, identity, job};
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::sync::{Mutex, WaitQueue, Waiter};
use crate::task::pid_namespace::PidNamespace;
use crate::task::user_namespace::UserNamespace;
use crate::time::TimerHandle;
use crate::time::posix_timer::ProcessTimers;

/// A guest process.
pub struct ThreadGroup {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// The container.
    pub(crate) container: Arc<Container>,
    /// The pid in the root pid namespace.
    pid: u32,
    /// The pid namespace that its threads live in.
    pub pid_namespace: Arc<PidNamespace>,
    /// Relations to other processes and to its threads. Changed only under `Kernel::tree`.
    pub(crate) tree: Mutex<Tree>,
    /// Pending signals of the process, stop and exit state.
    pub(crate) signals: Mutex<GroupSignals>,
    /// Signal actions, shared under `CLONE_SIGHAND`.
    pub(crate) actions: Mutex<Arc<Mutex<SignalActions>>>,
    /// Woken when a child changes state: what `wait4(2)` waits on.
    pub(crate) child_events: WaitQueue,
    /// Woken when a signal becomes pending: what signalfd and `rt_sigtimedwait(2)` wait on.
    pub(crate) signal_events: WaitQueue,
    /// Woken when the process exits: pidfds.
    pub(crate) exit_events: WaitQueue,
    /// Woken when a thread has gone: what exec and the last thread's exit wait on.
    pub(crate) thread_events: WaitQueue,
    /// Kills the host's side of a process that is to end and does not.
    pub(crate) kill_watch: Mutex<Option<(Arc<dyn Waiter>, TimerHandle)>>,
    /// The core dump that is being made.
    pub(crate) core_dump: Mutex<Option<super::coredump::Dump>>,
    /// Resource limits.
    pub(crate) limits: Mutex<crate::task::limits::Limits>,
    /// `setitimer(2)`, `timer_create(2)`.
    pub(crate) timers: ProcessTimers,
    /// `oom_score_adj` as the guest sees it.
    pub(crate) oom_score_adj: AtomicI32,
    /// `PR_SET_DUMPABLE`.
    pub(crate) is_dumpable: AtomicBool,
    /// The user namespace to which the memory belongs: that in which the program was started.
    pub(crate) memory_owner: Mutex<Arc<UserNamespace>>,
    /// `/proc/PID/coredump_filter`.
    pub(crate) core_filter: AtomicU32,
    /// `PR_SET_CHILD_SUBREAPER`.
    pub(crate) is_subreaper: AtomicBool,
    /// Whether `execve` has been called since the fork: `setpgid` by the parent then fails.
    pub(crate) has_execed: AtomicBool,
    /// What the process and its children have used.
    pub(crate) account: Account,
    /// When the process was started, in nanoseconds since the sandbox booted.
    pub(crate) start_ns: u64,
}

/// Relations of a process.
pub(crate) struct Tree {
    pub(crate) parent: Weak<ThreadGroup>,
    /// The thread that made the process, for `PR_SET_PDEATHSIG` and `__WNOTHREAD`.
    pub(crate) parent_tid: u32,
    pub(crate) children: Vec<Arc<ThreadGroup>>,
    /// Threads that have not exited, and the leader until the process is reaped.
    pub(crate) tasks: Vec<Arc<Task>>,
    pub(crate) process_group: Arc<ProcessGroup>,
    /// The signal that tells the parent of the exit; zero for none.
    pub(crate) exit_signal: i32,
    /// The wait status, once every thread has exited.
    pub(crate) zombie: Option<i32>,
    /// Set when nobody will wait for the process any more.
    pub(crate) is_reaped: bool,
    /// A stop that `wait4(WUNTRACED)` has not seen yet: the signal.
    pub(crate) unseen_stop: Option<i32>,
    /// A continuation that `wait4(WCONTINUED)` has not seen yet.
    pub(crate) has_unseen_continue: bool,
}

/// What a new thread group is made of.
pub(crate) struct NewGroup {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) container: Arc<Container>,
    pub(crate) pid: u32,
    pub(crate) pid_namespace: Arc<PidNamespace>,
    pub(crate) parent: Weak<ThreadGroup>,
    pub(crate) parent_tid: u32,
    pub(crate) process_group: Arc<ProcessGroup>,
    pub(crate) exit_signal: i32,
    pub(crate) actions: Arc<Mutex<SignalActions>>,
    pub(crate) limits: crate::task::limits::Limits,
    pub(crate) oom_score_adj: i32,
    pub(crate) is_dumpable: bool,
    pub(crate) memory_owner: Arc<UserNamespace>,
    pub(crate) core_filter: u32,
    /// Whether it starts in its parent's address space.
    pub(crate) borrows_memory: bool,
}

impl ThreadGroup {
    /// Creates a process without threads.
    pub(crate) fn new(new: NewGroup) -> Arc<Self> {
        let start_ns = new.kernel.clock.boot_ns();
        let process_group = new.process_group.clone();
        let group = Arc::new(Self {
            kernel: new.kernel,
            container: new.container,
            pid: new.pid,
            pid_namespace: new.pid_namespace,
            tree: Mutex::new(Tree {
                parent: new.parent,
                parent_tid: new.parent_tid,
                children: Vec::new(),
                tasks: Vec::new(),
                process_group: new.process_group,
                exit_signal: new.exit_signal,
                zombie: None,
                is_reaped: false,
                unseen_stop: None,
                has_unseen_continue: false,
            }),
            signals: Mutex::new(GroupSignals::default()),
            actions: Mutex::new(new.actions),
            child_events: WaitQueue::new(),
            signal_events: WaitQueue::new(),
            exit_events: WaitQueue::new(),
            thread_events: WaitQueue::new(),
            kill_watch: Mutex::new(None),
            core_dump: Mutex::new(None),
            limits: Mutex::new(new.limits),
            timers: ProcessTimers::default(),
            oom_score_adj: AtomicI32::new(new.oom_score_adj),
            is_dumpable: AtomicBool::new(new.is_dumpable),
            memory_owner: Mutex::new(new.memory_owner),
            core_filter: AtomicU32::new(new.core_filter),
            is_subreaper: AtomicBool::new(false),
            has_execed: AtomicBool::new(false),
            account: Account::new(new.borrows_memory),
            start_ns,
        });
        process_group.add(&group);
        let limits = *group.limits.lock();
        if let Some(limit) = limits.get(resource::RLIMIT_CPU)
            && limit != (INFINITY, INFINITY)
        {
            group.timers.set_cpu_limit(&group, limit);
        }
        group
    }

    /// Returns the pid in the root pid namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the pid as `namespace` numbers it, zero where it does not see the process.
    pub fn pid_in(&self, namespace: &Arc<PidNamespace>) -> u32 {
        self.leader().map_or(0, |leader| leader.tid_in(namespace))
    }

    /// Returns the first thread, until the process has been reaped.
    pub fn leader(&self) -> Option<Arc<Task>> {
        self.tree.lock().tasks.iter().find(|task| task.tid() == self.pid).cloned()
    }

    /// Returns the threads: those that live, and the leader until the process has been reaped.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.tree.lock().tasks.clone()
    }

    /// Returns the threads that have not begun to exit.
    pub fn live_tasks(&self) -> Vec<Arc<Task>> {
        let tree = self.tree.lock();
        tree.tasks.iter().filter(|task| !task.exiting.load(Ordering::SeqCst)).cloned().collect()
    }

    /// Returns the parent process.
    pub fn parent(&self) -> Option<Arc<ThreadGroup>> {
        self.tree.lock().parent.upgrade()
    }

    /// Returns the children, zombies included.
    pub fn children(&self) -> Vec<Arc<ThreadGroup>> {
        self.tree.lock().children.clone()
    }

    /// Returns the process group.
    pub fn process_group(&self) -> Arc<ProcessGroup> {
        self.tree.lock().process_group.clone()
    }

    /// Returns the session.
    pub fn session(&self) -> Arc<job::Session> {
        self.tree.lock().process_group.session.clone()
    }

    /// Returns whether every thread has exited.
    pub fn is_zombie(&self) -> bool {
        self.tree.lock().zombie.is_some()
    }

    /// Returns whether the process is the init of its pid namespace.
    pub fn is_namespace_init(&self) -> bool {
        self.pid_in(&self.pid_namespace) == 1
    }

    /// Returns whether the process is the container's first and was promised to be like any other.
    pub(crate) fn is_ordinary_init(&self) -> bool {
        self.container.init_is_ordinary
            && Arc::ptr_eq(&self.pid_namespace, &self.container.pid_namespace)
    }

    /// Moves the process to another process group. The caller holds `Kernel::tree`.
    pub(crate) fn set_process_group(self: &Arc<Self>, process_group: &Arc<ProcessGroup>) {
        let old = {
            let mut tree = self.tree.lock();
            std::mem::replace(&mut tree.process_group, Arc::clone(process_group))
        };
        old.remove(self);
        process_group.add(self);
        identity::changed_for_all(self);
    }
}
