//! New threads and processes: `clone(2)`, `clone3(2)`, `fork(2)`, `vfork(2)`.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use sentry_platform::{Context, ContextOwner, HostCall, SyscallArgs};
use syscalls::abi::capability::CAP_SYS_ADMIN;
use syscalls::abi::clone::CloneFlags;
use syscalls::abi::ptrace::{PTRACE_EVENT_VFORK_DONE, PtraceOptions};
use syscalls::abi::signal::{SIGKILL, SsFlags};
use syscalls::abi::wait as status;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use super::namespaces::{self, Inherited, Namespaces};
use super::pid_namespace::{self, PidNamespace};
use super::ptrace::{link, stop};
use super::signal::TaskSignals;
use super::signal::post::kill_group;
use super::thread_group::NewGroup;
use super::{
    Control, Credentials, CurrentTask, HandlerResult, Restart, Task, ThreadGroup, exit, run,
    time_namespace,
};
use crate::fs::pidfd;
use crate::kernel::Kernel;
use crate::mm::MemoryManager;
use crate::sync::{Mutex, Rare};
use crate::vfs::fd_table::FdTable;
use crate::vfs::fs_context::FsContext;

/// The arguments of the clone family after their first check.
#[derive(Clone, Debug)]
pub struct Clone {
    /// Flags without the exit signal.
    pub flags: CloneFlags,
    /// The signal that tells the parent of the exit.
    pub exit_signal: i32,
    /// The child's stack pointer; zero keeps the parent's.
    pub stack: u64,
    /// Where `CLONE_PARENT_SETTID` stores.
    pub parent_tid: UserAddr,
    /// Where `CLONE_CHILD_SETTID` and `CLONE_CHILD_CLEARTID` store.
    pub child_tid: UserAddr,
    /// Where `CLONE_PIDFD` stores.
    pub pidfd: UserAddr,
    /// The thread's TLS base.
    pub tls: u64,
    /// `set_tid`: wanted numbers, innermost namespace first.
    pub set_tid: Vec<u32>,
}

/// What a task is made of.
pub(crate) struct NewTask {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) group: Arc<ThreadGroup>,
    pub(crate) tid: u32,
    pub(crate) pids: Vec<(Arc<PidNamespace>, u32)>,
    pub(crate) mm: Arc<MemoryManager>,
    pub(crate) files: Arc<FdTable>,
    pub(crate) fs: Arc<FsContext>,
    pub(crate) creds: Arc<Credentials>,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) comm: Vec<u8>,
    pub(crate) signals: TaskSignals,
    pub(crate) misc: super::TaskMisc,
}

impl Task {
    /// Creates a task whose context `make_context` creates once the task can own it.
    ///
    /// # Errors
    /// Those of `make_context`.
    pub(crate) fn create(
        new: NewTask,
        make_context: impl FnOnce(Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>>,
    ) -> SysResult<Arc<Self>> {
        let task = Arc::new_cyclic(|this: &Weak<Self>| Self {
            this: this.clone(),
            kernel: new.kernel,
            tid: AtomicU32::new(new.tid),
            group: new.group,
            context: Mutex::new(Arc::new(super::no_context::NoContext)),
            generation: AtomicU32::new(0),
            run_state: run::initial_state(),
            call: Mutex::new(SyscallArgs::default()),
            in_call: AtomicBool::new(false),
            n_waits: AtomicU64::new(0),
            promised: AtomicBool::new(false),
            strace_entry: Mutex::new(String::new()),
            restart: Rare::default(),
            block: Rare::default(),
            host_calls: Rare::default(),
            memory: crate::mm::in_flight::TaskMemory::default(),
            mm: Mutex::new(new.mm),
            files: Mutex::new(new.files),
            fs: Mutex::new(new.fs),
            creds: Mutex::new(new.creds),
            ptrace: super::ptrace::Ptrace::default(),
            namespaces: Mutex::new(new.namespaces),
            seccomp: super::seccomp::Seccomp::default(),
            signals: Mutex::new(new.signals),
            has_saved_mask: AtomicBool::new(false),
            attention: AtomicBool::new(true),
            facts_changed: AtomicBool::new(true),
            has_fast_path: AtomicBool::new(false),
            lends_mask: AtomicBool::new(false),
            lent_mask: AtomicU64::new(0),
            comm: Mutex::new(new.comm),
            clear_child_tid: AtomicU64::new(0),
            has_left_futexes: AtomicBool::new(false),
            robust_list: AtomicU64::new(0),
            vfork_parent: Mutex::new(None),
            vfork_child: Mutex::new(None),
            pids: Mutex::new(new.pids),
            sem_undo: Mutex::new(None),
            parent_death_signal: AtomicU32::new(0),
            pending_clone: Rare::default(),
            misc: Mutex::new(new.misc),
            letting_go: Rare::default(),
            exiting: AtomicBool::new(false),
            has_left: AtomicBool::new(false),
        });
        let context = make_context(run::Owner::first(&task))?;
        *task.context.lock() = context;
        Ok(task)
    }
}

/// Checks flags as `copy_process` does, in its order.
fn check(current: &CurrentTask, clone: &Clone) -> SysResult<()> {
    let flags = clone.flags;
    let has = |bits: CloneFlags| flags.contains(bits);
    if has(CloneFlags::NEWNS | CloneFlags::FS) || has(CloneFlags::NEWUSER | CloneFlags::FS) {
        return Err(Errno::EINVAL);
    }
    if has(CloneFlags::THREAD) && !has(CloneFlags::SIGHAND) {
        return Err(Errno::EINVAL);
    }
    if has(CloneFlags::SIGHAND) && !has(CloneFlags::VM) {
        return Err(Errno::EINVAL);
    }
    if has(CloneFlags::SIGHAND | CloneFlags::CLEAR_SIGHAND) {
        return Err(Errno::EINVAL);
    }
    if has(CloneFlags::THREAD) && flags.intersects(CloneFlags::NEWUSER | CloneFlags::NEWPID) {
        return Err(Errno::EINVAL);
    }
    if has(CloneFlags::PIDFD) && flags.intersects(CloneFlags::DETACHED) {
        return Err(Errno::EINVAL);
    }
    if flags.intersects(CloneFlags::INTO_CGROUP) {
        crate::unsupported::note("clone(cgroup)", &[flags.bits(), 0, 0, 0, 0, 0]);
        return Err(Errno::EINVAL);
    }
    let for_children = current.namespaces().pid_for_children.clone();
    if has(CloneFlags::THREAD) && !Arc::ptr_eq(&for_children, &current.pid_namespace()) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Creates a thread or process and returns its id in the caller's pid namespace.
///
/// # Errors
/// `EINVAL` for contradictory flags, `EPERM` for a pid namespace without the capability, `EAGAIN`
/// and `ENOMEM` where a limit is reached.
pub fn do_clone(current: &CurrentTask, clone: &Clone) -> HandlerResult<u64> {
    if let Some(made) = current.recall::<Made>() {
        return go_on(current, made);
    }
    check(current, clone)?;
    let flags = clone.flags;
    if !current.misc.lock().may_fork() {
        return Err(Errno::EAGAIN.into());
    }
    if !flags.contains(CloneFlags::VM) {
        current.mm().before_fork(current)?;
    }
    if !current.container().may_create_task(current) {
        return Err(Errno::EAGAIN.into());
    }
    let is_thread = flags.contains(CloneFlags::THREAD);
    let shares_memory = flags.contains(CloneFlags::VM);

    let (child, pidfd) = match prepare(current, clone, shares_memory) {
        Ok(prepared) => prepared,
        Err(errno) => {
            current.container().task_gone(&current.kernel);
            return Err(errno.into());
        }
    };
    if flags.contains(CloneFlags::SYSVSEM) {
        let undo = current.ipc().sem.undo_list(current);
        *child.sem_undo.lock() = Some(undo);
    }
    publish(current, &child, clone, is_thread);

    let child_pid = child.tid_in(&current.pid_namespace());
    if flags.contains(CloneFlags::PARENT_SETTID) {
        // As Linux, a bad address does not undo the clone.
        let _ = current.write_obj(UserPtr::new(clone.parent_tid), &child_pid);
    }
    if let Some(fd) = pidfd {
        pidfd::replace(current, fd, &child.group);
    }
    if flags.contains(CloneFlags::CHILD_CLEARTID) {
        child.clear_child_tid.store(clone.child_tid.0, Ordering::Relaxed);
    }
    if flags.contains(CloneFlags::CHILD_SETTID) {
        let tid = child.tid_in(&child.pid_namespace());
        child.set_tid_on_start(clone.child_tid, tid, shares_memory, current);
    }
    *current.pending_clone.lock() = Some(Arc::downgrade(&child));
    let is_vfork = flags.contains(CloneFlags::VFORK);
    if is_vfork {
        *child.vfork_parent.lock() = Some(current.task().clone());
        *current.vfork_child.lock() = Some(Arc::downgrade(&child));
    }
    let event = link::clone_event(current, clone);
    if is_vfork || event.is_some() {
        let told_pid = told_pid(current, &child);
        run::start(&child);
        current.remember(Made { child_pid, told_pid, is_vfork, next: AfterBirth::Check(event) });
        // The host's clone must happen before this thread can wait for the child, or its tracer
        // look at it.
        return Err(Control::HostCalls);
    }
    run::start(&child);
    Ok(u64::from(child_pid))
}

/// Makes the child, and reserves the descriptor that is to refer to it: nothing that can fail comes
/// after this.
fn prepare(
    current: &CurrentTask,
    clone: &Clone,
    shares_memory: bool,
) -> SysResult<(Arc<Task>, Option<i32>)> {
    let pidfd = if clone.flags.contains(CloneFlags::PIDFD) {
        let fd = pidfd::install(current, &current.group, true)?;
        if let Err(errno) = current.write_obj(UserPtr::new(clone.pidfd), &fd) {
            let _ = current.files().remove(fd);
            return Err(errno);
        }
        Some(fd)
    } else {
        None
    };
    let child = namespaces::inherit(current, clone.flags).and_then(|mut inherited| {
        let mut vdso = None;
        if !shares_memory && let Some(new) = inherited.namespaces.in_time_for_children() {
            vdso = time_namespace::remap(current, &new.time)?;
            inherited.namespaces = new;
        }
        let pids = allocate_pids(current, clone, &inherited)?;
        let child = build(current, clone, &pids, inherited, shares_memory);
        let child = child.inspect_err(|_| pid_namespace::free(&pids))?;
        child.host_calls.lock().extend(vdso);
        Ok(child)
    });
    if let (Err(_), Some(fd)) = (&child, pidfd) {
        let _ = current.files().remove(fd);
    }
    Ok((child?, pidfd))
}

/// A child that has been made by a call that does not return at once.
#[derive(Clone, Copy)]
struct Made {
    child_pid: u32,
    /// Its number as the caller's tracer knows it.
    told_pid: u64,
    is_vfork: bool,
    next: AfterBirth,
}

#[derive(Clone, Copy)]
enum AfterBirth {
    /// Look whether the host has made it, and tell the tracer.
    Check(Option<i32>),
    /// Wait for a vfork child.
    Wait,
    /// Return.
    Return,
}

/// Returns the child's number as the caller's tracer knows it.
fn told_pid(current: &CurrentTask, child: &Task) -> u64 {
    current.ptrace.tracer().map_or(0, |tracer| child.tid_in(&tracer.pid_namespace()).into())
}

fn go_on(current: &CurrentTask, made: Made) -> HandlerResult<u64> {
    match made.next {
        AfterBirth::Check(event) => {
            let results = current.context().host_call_results();
            let failed = results.values.iter().find_map(|v| v.as_ref().err()).copied();
            if let Some(errno) = failed {
                self::failed(current, errno);
                return Err(errno.into());
            }
            *current.pending_clone.lock() = None;
            let next = if made.is_vfork { AfterBirth::Wait } else { AfterBirth::Return };
            let made = Made { next, ..made };
            match event {
                Some(event) => {
                    current.remember(made);
                    Err(stop::event(current, event, made.told_pid))
                }
                None => go_on(current, made),
            }
        }
        AfterBirth::Wait => {
            let child_pid = wait_for_vfork(current, made)?;
            if !current.ptrace.has_option(PtraceOptions::TRACEVFORKDONE) {
                return Ok(child_pid);
            }
            current.remember(Made { next: AfterBirth::Return, ..made });
            Err(stop::event(current, PTRACE_EVENT_VFORK_DONE, made.told_pid))
        }
        AfterBirth::Return => Ok(made.child_pid.into()),
    }
}

fn wait_for_vfork(current: &CurrentTask, made: Made) -> HandlerResult<u64> {
    current.remember(made);
    let waited = current.wait_for(
        None,
        Restart::NoIntr,
        |_| Vec::new(),
        || {
            let waits =
                current.vfork_child.lock().as_ref().is_some_and(|child| child.strong_count() > 0);
            Ok((!waits).then_some(()))
        },
    );
    match waited {
        Ok(_) => {
            current.recall::<Made>();
            Ok(u64::from(made.child_pid))
        }
        // vfork(2): the parent cannot be interrupted but by a fatal signal.
        Err(Control::Restart(_)) if current.group.signals.lock().exit_status.is_none() => {
            Err(Control::Block)
        }
        Err(control) => Err(control),
    }
}

fn allocate_pids(
    current: &CurrentTask,
    clone: &Clone,
    inherited: &Inherited,
) -> SysResult<Vec<(Arc<PidNamespace>, u32)>> {
    let namespace = &inherited.namespaces.pid_for_children;
    // The outermost namespace is not one that anybody in a container knows of.
    if clone.set_tid.len() >= namespace.chain().len() {
        return Err(Errno::EINVAL);
    }
    let creds = current.creds();
    let may = |namespace: &Arc<PidNamespace>| creds.is_capable_in(&namespace.owner, CAP_SYS_ADMIN);
    let named = namespace.chain().into_iter().rev().take(clone.set_tid.len());
    if !named.into_iter().all(|namespace| may(&namespace)) {
        return Err(Errno::EPERM);
    }
    pid_namespace::allocate(namespace, &clone.set_tid)
}

fn build(
    current: &CurrentTask,
    clone: &Clone,
    pids: &[(Arc<PidNamespace>, u32)],
    inherited: Inherited,
    shares_memory: bool,
) -> SysResult<Arc<Task>> {
    let flags = clone.flags;
    let is_thread = flags.contains(CloneFlags::THREAD);
    let tid = pids.first().map_or(0, |(_, pid)| *pid);
    let mm = if shares_memory { current.mm() } else { current.mm().fork()? };
    let files =
        if flags.contains(CloneFlags::FILES) { current.files() } else { current.files().fork() };
    let fs = if flags.contains(CloneFlags::FS) { current.fs() } else { current.fs().fork() };
    if flags.contains(CloneFlags::NEWNS) {
        fs.unshare_namespace(&inherited.creds.user_ns)?;
    }
    let group =
        if is_thread { current.group.clone() } else { new_group(current, clone, tid, pids) };
    if is_thread {
        group.account.add_thread();
    }
    let signals = {
        let own = current.signals.lock();
        let altstack = if shares_memory && !flags.contains(CloneFlags::VFORK) {
            syscalls::abi::signal::Stackt {
                ss_flags: SsFlags::DISABLE.bits(),
                ..Default::default()
            }
        } else {
            own.altstack
        };
        TaskSignals { mask: own.saved_mask.unwrap_or(own.mask), altstack, ..TaskSignals::default() }
    };
    let mut misc = current.misc.lock().clone();
    misc.default_timer_slack_ns = misc.timer_slack_ns;
    let inherited_schedule = misc.schedule();
    misc.reset_on_fork();
    let schedule = misc.schedule();
    misc.keyrings.on_clone(is_thread);
    misc.start_ns = current.kernel.clock.boot_ns();
    if shares_memory {
        misc.rseq = None;
    }
    let new = NewTask {
        kernel: current.kernel.clone(),
        group: group.clone(),
        tid,
        pids: pids.to_vec(),
        mm,
        files,
        fs,
        creds: inherited.creds,
        namespaces: inherited.namespaces,
        comm: current.comm.lock().clone(),
        signals,
        misc,
    };
    let child = Task::create(new, |owner| {
        if shares_memory {
            current.context().clone_thread(owner)
        } else {
            current.context().fork(owner)
        }
    });
    if child.is_err() && !is_thread {
        group.process_group().remove(&group);
    }
    let child = child?;
    let context = child.context.lock().clone();
    if !shares_memory {
        child.mm().set_address_space(context.address_space());
    }
    let mut regs = context.regs();
    regs.rax = 0;
    if clone.stack != 0 {
        regs.rsp = clone.stack;
    }
    if flags.contains(CloneFlags::SETTLS) {
        regs.fs_base = clone.tls;
    }
    context.set_regs(&regs);
    if schedule != inherited_schedule {
        context.set_schedule(&schedule);
    }
    Ok(child)
}

fn new_group(
    current: &CurrentTask,
    clone: &Clone,
    pid: u32,
    pids: &[(Arc<PidNamespace>, u32)],
) -> Arc<ThreadGroup> {
    let flags = clone.flags;
    let own = &current.group;
    let actions = own.actions.lock().clone();
    let actions = if flags.contains(CloneFlags::SIGHAND) {
        actions
    } else {
        let mut copy = actions.lock().clone();
        if flags.contains(CloneFlags::CLEAR_SIGHAND) {
            copy.clear_handlers();
        }
        Arc::new(Mutex::new(copy))
    };
    let keeps_parent = flags.contains(CloneFlags::PARENT);
    let (parent, parent_tid, exit_signal) = if keeps_parent {
        let tree = own.tree.lock();
        (tree.parent.clone(), tree.parent_tid, tree.exit_signal)
    } else {
        (Arc::downgrade(own), current.tid(), clone.exit_signal)
    };
    let pid_namespace = pids.last().map_or_else(|| own.pid_namespace.clone(), |(ns, _)| ns.clone());
    let limits = *own.limits.lock();
    ThreadGroup::new(NewGroup {
        kernel: current.kernel.clone(),
        container: own.container.clone(),
        pid,
        pid_namespace,
        parent,
        parent_tid,
        process_group: own.process_group(),
        exit_signal,
        actions,
        limits,
        oom_score_adj: own.oom_score_adj.load(Ordering::Relaxed),
        is_dumpable: own.is_dumpable.load(Ordering::Relaxed),
        memory_owner: own.memory_owner.lock().clone(),
        core_filter: own.core_filter.load(Ordering::Relaxed),
        borrows_memory: flags.contains(CloneFlags::VM),
    })
}

/// Makes the child visible to the rest of the kernel.
fn publish(current: &CurrentTask, child: &Arc<Task>, clone: &Clone, is_thread: bool) {
    let _guard = current.kernel.tree.lock();
    link::inherit(current, child, clone);
    // Under this lock: a thread may be giving all of them a filter.
    child.seccomp.set(current.seccomp.mode());
    child.group.tree.lock().tasks.push(child.clone());
    let mut is_late = false;
    for (namespace, pid) in child.pids.lock().iter() {
        is_late |= namespace.enter(*pid, child);
    }
    if is_late {
        kill_group(&child.group, status::signaled(SIGKILL, false));
    }
    if !is_thread {
        let parent = if clone.flags.contains(CloneFlags::PARENT) {
            current.group.parent()
        } else {
            Some(current.group.clone())
        };
        if let Some(parent) = parent {
            parent.tree.lock().children.push(child.group.clone());
        }
    }
}

/// Undoes a clone that the host refused. Returns whether the failed host call was one.
pub(crate) fn failed(current: &CurrentTask, errno: Errno) -> bool {
    let pending = current.pending_clone.lock().take();
    let Some(child) = pending.and_then(|child| child.upgrade()) else { return false };
    crate::log::debug(format_args!("clone refused by the host: {errno}"));
    *current.vfork_child.lock() = None;
    exit::undo_clone(&child);
    true
}

impl Task {
    /// Stores the child's thread id in its own memory: at once where parent and child share it,
    /// with the child's first host calls where the host has yet to copy it.
    fn set_tid_on_start(
        &self,
        addr: UserAddr,
        tid: u32,
        shares_memory: bool,
        parent: &CurrentTask,
    ) {
        if shares_memory {
            let _ = parent.write_obj(UserPtr::new(addr), &tid);
        } else if addr.0.is_multiple_of(4) {
            let store = HostCall::AtomicUpdate { addr: addr.0, and: 0, xor: tid, add: false };
            self.host_calls.lock().push(store);
        }
    }
}
