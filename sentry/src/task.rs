//! Tasks: guest threads and what they are made of.
//!
//! A [`Task`] is one guest thread, a [`ThreadGroup`] a guest process; process groups and sessions
//! are in [`job`]. A task is the owner of a platform context: [`run`] receives the context's
//! events, dispatches system calls and delivers signals on the way back. A task that must wait is
//! simply not resumed ([`block`]).

pub(crate) mod access;
pub(crate) mod account;
pub mod block;
pub mod clone;
pub(crate) mod coredump;
pub mod creds;
pub mod exec;
pub(crate) mod exec_creds;
pub mod exit;
pub(crate) mod identity;
pub mod job;
pub mod limits;
pub(crate) mod namespaces;
pub(crate) mod no_context;
pub mod pid_namespace;
pub(crate) mod ptrace;
pub mod run;
pub(crate) mod seccomp;
pub mod signal;
pub mod thread_group;
pub(crate) mod time_namespace;
pub mod user_namespace;
pub mod wait;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, Weak};

use sentry_host::schedule::{Class, Schedule};
use sentry_platform::{Context, HostCall, SyscallArgs};
use syscalls::abi::sched::{
    SCHED_BATCH, SCHED_DEADLINE, SCHED_FIFO, SCHED_IDLE, SCHED_NORMAL, SCHED_RESET_ON_FORK,
    SCHED_RR,
};
use syscalls::{Errno, SysResult};

use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::mm::MemoryManager;
use crate::sync::{Mutex, Rare};
use crate::vfs::OpenFile;
use crate::vfs::fd_table::FdTable;
use crate::vfs::fs_context::FsContext;

pub use creds::Credentials;
pub use thread_group::ThreadGroup;

/// A guest thread.
pub struct Task {
    /// Itself, so that `&Task` can register as a waiter.
    pub(crate) this: Weak<Task>,
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// The thread id in the root pid namespace. Changes only when a thread that is not the leader
    /// executes a program and takes over the leader's id.
    pub(crate) tid: AtomicU32,
    /// The process.
    pub group: Arc<ThreadGroup>,
    /// The platform's side of the thread; replaced by exec.
    pub(crate) context: Mutex<Arc<dyn Context>>,
    /// How often `context` has been replaced.
    pub(crate) generation: AtomicU32,
    /// What a serving thread does with the task: see [`run`].
    pub(crate) run_state: AtomicU8,
    /// The system call being served.
    pub(crate) call: Mutex<SyscallArgs>,
    /// Whether a system call is being served (or blocked), so that a wake-up runs it again.
    pub(crate) in_call: AtomicBool,
    /// How often it has given up its processor to wait.
    pub(crate) n_waits: AtomicU64,
    /// Whether its last call has returned a value that depends on host calls.
    pub(crate) promised: AtomicBool,
    /// The beginning of the present call's line in the `--strace` log.
    pub(crate) strace_entry: Mutex<String>,
    /// How the call that has just ended was interrupted.
    pub(crate) restart: Rare<Option<Restart>>,
    /// What the task is blocked on.
    pub(crate) block: Rare<block::Block>,
    /// Host calls to be made before the task returns to the application.
    pub(crate) host_calls: Rare<Vec<HostCall>>,
    /// What memory operations of the task are under way.
    pub(crate) memory: crate::mm::in_flight::TaskMemory,
    /// The address space. Shared by threads and vfork children.
    pub(crate) mm: Mutex<Arc<MemoryManager>>,
    /// The descriptor table.
    pub(crate) files: Mutex<Arc<FdTable>>,
    /// Root, working directory and umask.
    pub(crate) fs: Mutex<Arc<FsContext>>,
    /// Credentials: replaced as a whole, never changed in place.
    pub(crate) creds: Mutex<Arc<Credentials>>,
    /// Who traces it, and whom it traces.
    pub(crate) ptrace: ptrace::Ptrace,
    /// Namespaces, but for those of users, mounts and pids.
    pub(crate) namespaces: Mutex<Arc<namespaces::Namespaces>>,
    /// The filters of its system calls.
    pub(crate) seccomp: seccomp::Seccomp,
    /// Pending signals, mask, alternate stack.
    pub(crate) signals: Mutex<signal::TaskSignals>,
    /// Whether a mask may wait in `signals` that comes back when the call has ended.
    pub(crate) has_saved_mask: AtomicBool,
    /// Whether there may be a signal, a stop or a kill to handle before returning to the
    /// application: a hint that is set after the cause and read with it.
    pub(crate) attention: AtomicBool,
    /// Whether the platform must be told anew what it answers by itself: see [`identity`].
    pub(crate) facts_changed: AtomicBool,
    /// Whether the platform may answer calls.
    pub(crate) has_fast_path: AtomicBool,
    /// Whether the platform has the mask of signals; changes under the lock of `signals`, or where the
    /// mask is the same on both sides.
    pub(crate) lends_mask: AtomicBool,
    /// The mask that it was.
    pub(crate) lent_mask: AtomicU64,
    /// `PR_SET_NAME`: up to 15 bytes.
    pub(crate) comm: Mutex<Vec<u8>>,
    /// `set_tid_address`, `CLONE_CHILD_CLEARTID`.
    pub(crate) clear_child_tid: AtomicU64,
    /// Set when the task owns no futex any more, under the lock of the PI futexes.
    pub(crate) has_left_futexes: AtomicBool,
    /// `set_robust_list`: head and length.
    pub(crate) robust_list: AtomicU64,
    /// The process whose vfork this is, until exec or exit.
    pub(crate) vfork_parent: Mutex<Option<Arc<Task>>>,
    /// Set while the task waits for its vfork child.
    pub(crate) vfork_child: Mutex<Option<Weak<Task>>>,
    /// The child whose host clone is under way, so that a refusal can be undone.
    pub(crate) pending_clone: Rare<Option<Weak<Task>>>,
    /// Ids in all pid namespaces, outermost first.
    pub(crate) pids: Mutex<Vec<(Arc<pid_namespace::PidNamespace>, u32)>>,
    /// The semaphore operations that are undone at exit; shared under `CLONE_SYSVSEM`.
    pub(crate) sem_undo: Mutex<Option<Arc<crate::ipc::sem::UndoList>>>,
    /// `PR_SET_PDEATHSIG`.
    pub(crate) parent_death_signal: AtomicU32,
    /// Miscellaneous per-thread values that calls set and get.
    pub(crate) misc: Mutex<TaskMisc>,
    /// The status with which the task exits as soon as its host thread has let go of its memory.
    pub(crate) letting_go: Rare<Option<i32>>,
    /// Set when the task has begun to exit.
    pub(crate) exiting: AtomicBool,
    /// Set under `Kernel::tree` when the task is not part of its process any more.
    pub(crate) has_left: AtomicBool,
}

/// Per-thread values that have no effect of their own in the sentry.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskMisc {
    /// `sched_setscheduler`: policy, priority, nice value.
    pub(crate) sched_policy: u32,
    pub(crate) sched_priority: i32,
    pub(crate) nice: i32,
    /// `sched_setaffinity`, little-endian bits; empty: all.
    pub(crate) affinity: Vec<u8>,
    /// `ioprio_set`.
    pub(crate) ioprio: i32,
    /// `personality`.
    pub(crate) personality: u32,
    /// `PR_SET_TIMERSLACK`.
    pub(crate) timer_slack_ns: u64,
    /// What `PR_SET_TIMERSLACK` goes back to: the slack of the thread that made this one.
    pub(crate) default_timer_slack_ns: u64,
    /// What the thread had used of the processor when a signal for that was last directed.
    pub(crate) profiled_ns: u64,
    /// rseq registration: address, length, signature.
    pub(crate) rseq: Option<(u64, u32, u32)>,
    /// `keyrings(7)`.
    pub(crate) keyrings: crate::keys::Keyrings,
    /// `set_mempolicy`.
    pub(crate) memory_policy: Option<crate::mm::vma::MemoryPolicy>,
    /// `SCHED_DEADLINE`: run time, deadline and period in nanoseconds.
    pub(crate) deadline: Option<[u64; 3]>,
    /// `set_robust_list`'s length.
    pub(crate) robust_list_len: u64,
    /// `PR_SET_KEEPCAPS` lives in the credentials; `PR_SET_THP_DISABLE` here.
    pub(crate) thp_disable: bool,
    /// Page faults and switches are the host's; start time here, in nanoseconds since boot.
    pub(crate) start_ns: u64,
}

impl TaskMisc {
    /// Returns whether the thread may have children: one that has been promised run time may not,
    /// unless they begin with the default policy.
    pub(crate) fn may_fork(&self) -> bool {
        self.deadline.is_none() || self.sched_policy & SCHED_RESET_ON_FORK.unsigned_abs() != 0
    }

    /// Returns how the host is to schedule the thread: what is real-time here is not there.
    pub(crate) fn schedule(&self) -> Schedule {
        let class = match (self.sched_policy & !SCHED_RESET_ON_FORK.unsigned_abs()).cast_signed() {
            SCHED_BATCH => Class::Batch,
            SCHED_IDLE => Class::Idle,
            _ => Class::Normal,
        };
        Schedule { class, nice: self.nice, cpus: self.affinity.clone() }
    }

    /// Gives a new thread the default policy and priority where `SCHED_RESET_ON_FORK` says so.
    fn reset_on_fork(&mut self) {
        const RESET: u32 = SCHED_RESET_ON_FORK.unsigned_abs();
        self.deadline = None;
        if self.sched_policy & RESET == 0 {
            return;
        }
        if matches!(
            (self.sched_policy & !RESET).cast_signed(),
            SCHED_DEADLINE | SCHED_FIFO | SCHED_RR
        ) {
            self.sched_policy = SCHED_NORMAL.unsigned_abs();
            self.sched_priority = 0;
            self.nice = 0;
        } else {
            self.sched_policy &= !RESET;
            self.nice = self.nice.max(0);
        }
    }
}

/// The task that the current serving thread is working for: its context is stopped, so its
/// registers and memory may be touched.
#[derive(Clone)]
pub struct CurrentTask {
    task: Arc<Task>,
    context: Arc<dyn Context>,
}

impl Deref for CurrentTask {
    type Target = Task;

    fn deref(&self) -> &Task {
        &self.task
    }
}

impl CurrentTask {
    pub(crate) fn new(task: Arc<Task>) -> Self {
        let context = task.context.lock().clone();
        Self { task, context }
    }

    /// Returns the task as a shared pointer.
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// Returns the stopped context.
    pub fn context(&self) -> &Arc<dyn Context> {
        &self.context
    }

    /// Adds a host call to those that are made before the task returns to the application.
    pub(crate) fn queue_host_call(&self, call: HostCall) {
        self.host_calls.lock().push(call);
    }
}

impl Task {
    /// Returns the thread id in the root pid namespace.
    pub fn tid(&self) -> u32 {
        self.tid.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Returns the credentials.
    pub fn creds(&self) -> Arc<Credentials> {
        self.creds.lock().clone()
    }

    /// Returns the address space.
    pub fn mm(&self) -> Arc<MemoryManager> {
        self.mm.lock().clone()
    }

    /// Returns the descriptor table.
    pub fn files(&self) -> Arc<FdTable> {
        self.files.lock().clone()
    }

    /// Returns an open file on which operations are possible.
    ///
    /// # Errors
    /// `EBADF`, as [`FdTable::get`].
    pub fn file(&self, fd: i32) -> SysResult<Arc<OpenFile>> {
        self.files.lock().get(fd)
    }

    /// Returns the container.
    pub(crate) fn container(&self) -> &Arc<Container> {
        &self.group.container
    }

    pub(crate) fn is_in_call(&self) -> bool {
        self.in_call.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn set_in_call(&self, in_call: bool) {
        self.in_call.store(in_call, std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn set_restart(&self, restart: Option<Restart>) {
        match restart {
            None => drop(self.restart.take()),
            some => *self.restart.lock() = some,
        }
    }

    /// Has the host schedule the thread as it is to be scheduled now.
    pub(crate) fn reschedule(&self) {
        // Held until it is done: of two at once the later one counts.
        let misc = self.misc.lock();
        let context = self.context.lock().clone();
        context.set_schedule(&misc.schedule());
    }

    /// Does so for a context that the host schedules as any other.
    fn reschedule_fresh(&self) {
        if self.misc.lock().schedule() != Schedule::default() {
            self.reschedule();
        }
    }

    /// Returns root, working directory and umask.
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs.lock().clone()
    }

    /// Returns whether this is the first thread of its process.
    pub fn is_leader(&self) -> bool {
        self.tid() == self.group.pid()
    }
}

/// How a handler ends other than with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The call fails.
    Error(Errno),
    /// The task has registered with what it waits for ([`block`]) and is not to be resumed; the
    /// handler runs again from its beginning when something has happened.
    Block,
    /// A signal interrupted the call before it had an effect.
    Restart(Restart),
    /// The registers have been set as a whole (`rt_sigreturn`, `execve`): `rax` stays as it is.
    RegistersSet,
    /// The queued host calls are to be made now; the handler runs again from its beginning when
    /// they are done and finds their results with the context.
    HostCalls,
    /// The queued host calls are to be made on the way back to the application, to which the call
    /// returns this value. Where one fails, the handler runs again as after `HostCalls`.
    HostCallsThen(u64),
    /// The task stops for its tracer; the handler runs again from its beginning afterwards.
    Traced,
    /// The task is gone or not in the hands of this serving thread any more.
    Detached,
}

/// What becomes of a call that a signal interrupted: Linux's `ERESTART*` codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// `ERESTARTSYS`: restarts without a handler or under `SA_RESTART`, `EINTR` otherwise.
    Sys,
    /// `ERESTARTNOINTR`: always restarts.
    NoIntr,
    /// `ERESTARTNOHAND`: restarts only where no handler ran.
    NoHand,
    /// `ERESTART_RESTARTBLOCK`: without a handler `restart_syscall` goes on with the remaining
    /// time; `EINTR` otherwise.
    RestartBlock,
}

impl From<Errno> for Control {
    fn from(errno: Errno) -> Self {
        Self::Error(errno)
    }
}

/// What a system-call handler returns.
pub type HandlerResult<T = u64> = Result<T, Control>;
