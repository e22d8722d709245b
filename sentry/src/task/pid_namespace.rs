//! Pid namespaces: numbers for tasks. A task has one in its own namespace and in each above.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use syscalls::{Errno, SysResult};

use super::user_namespace::{Counted, UserNamespace};
use super::{Task, ThreadGroup};
use crate::sync::Mutex;

/// The highest pid plus one: Linux's default `pid_max` on a machine with few processors.
pub const PID_MAX: u32 = 32_768 * 4;

/// The first pid that is given again after a wrap-around: Linux's `RESERVED_PIDS`.
const RESERVED_PIDS: u32 = 300;

/// The level of the namespaces of containers.
pub(crate) const CONTAINER_LEVEL: usize = 1;

/// A pid namespace.
pub struct PidNamespace {
    /// The namespace above, none for the root.
    pub parent: Option<Arc<PidNamespace>>,
    /// How many namespaces are above.
    pub level: usize,
    /// The inode number that `/proc/PID/ns/pid` shows.
    pub ino: u64,
    /// The user namespace that it belongs to.
    pub(crate) owner: Arc<UserNamespace>,
    state: Mutex<State>,
    _counted: Option<Counted>,
}

#[derive(Default)]
struct State {
    last: u32,
    /// Numbers in use: by threads, and by process groups and sessions that outlive their leader.
    tasks: BTreeMap<u32, Entry>,
    /// Set when the namespace's init has exited: nothing new may enter.
    is_dead: bool,
    /// Whether the first number has been given.
    has_init: bool,
    /// The init that has exited and is a zombie only when nobody else is left, and its status.
    ending: Option<(Arc<ThreadGroup>, i32)>,
}

#[derive(Default)]
struct Entry {
    task: Option<Weak<Task>>,
    /// How many process groups and sessions carry this number.
    n_holds: u32,
}

impl PidNamespace {
    /// Creates the namespace above all, or that of a container below `parent`.
    pub(crate) fn new(
        parent: Option<Arc<Self>>,
        ino: u64,
        owner: &Arc<UserNamespace>,
    ) -> Arc<Self> {
        let level = parent.as_ref().map_or(0, |parent| parent.level + 1);
        let (owner, state) = (owner.clone(), Mutex::default());
        Arc::new(Self { parent, level, ino, owner, state, _counted: None })
    }

    /// Creates a namespace below `parent` that a task has asked for.
    pub(crate) fn below(
        parent: &Arc<Self>,
        ino: u64,
        owner: &Arc<UserNamespace>,
        counted: Counted,
    ) -> Arc<Self> {
        Arc::new(Self {
            parent: Some(parent.clone()),
            level: parent.level + 1,
            ino,
            owner: owner.clone(),
            state: Mutex::default(),
            _counted: Some(counted),
        })
    }

    /// Returns whether this is `above` or below it.
    pub(crate) fn is_in(self: &Arc<Self>, above: &Arc<Self>) -> bool {
        let mut at = Some(self);
        while let Some(namespace) = at {
            if Arc::ptr_eq(namespace, above) {
                return true;
            }
            at = namespace.parent.as_ref();
        }
        false
    }

    /// Returns whether there is or was a first process.
    pub(crate) fn has_init(&self) -> bool {
        self.state.lock().has_init
    }

    /// Returns this namespace and those above, outermost first.
    pub fn chain(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let mut chain = vec![self.clone()];
        let mut above = self.parent.clone();
        while let Some(namespace) = above {
            above = namespace.parent.clone();
            chain.push(namespace);
        }
        chain.reverse();
        chain
    }

    /// Reserves a free number, or `wanted`.
    ///
    /// # Errors
    /// `EAGAIN` where all are used, `EEXIST` where `wanted` is, `ENOMEM` where the namespace's
    /// init is gone.
    pub fn allocate(&self, wanted: Option<u32>) -> SysResult<u32> {
        let mut state = self.state.lock();
        if state.is_dead {
            return Err(Errno::ENOMEM);
        }
        if !state.has_init && wanted.is_some_and(|wanted| wanted != 1) {
            return Err(Errno::EINVAL);
        }
        let pid = match wanted {
            Some(pid) if pid == 0 || pid >= PID_MAX => return Err(Errno::EINVAL),
            Some(pid) if state.tasks.contains_key(&pid) => return Err(Errno::EEXIST),
            Some(pid) => pid,
            None => {
                let mut pid = state.last;
                let mut left = PID_MAX;
                loop {
                    pid += 1;
                    if pid >= PID_MAX {
                        pid = RESERVED_PIDS;
                    }
                    if !state.tasks.contains_key(&pid) {
                        break;
                    }
                    left -= 1;
                    if left == 0 {
                        return Err(Errno::EAGAIN);
                    }
                }
                state.last = pid;
                pid
            }
        };
        state.has_init = true;
        state.tasks.insert(pid, Entry::default());
        Ok(pid)
    }

    /// Enters a task under a number that `allocate` gave. Returns whether the namespace's init has
    /// exited meanwhile, with which the task is to end.
    pub fn enter(&self, pid: u32, task: &Arc<Task>) -> bool {
        let mut state = self.state.lock();
        state.tasks.entry(pid).or_default().task = Some(Arc::downgrade(task));
        state.is_dead
    }

    /// Lets the init of the namespace, which has exited, be a zombie only when it is the last one.
    /// Returns whether there are others.
    pub(super) fn end_with_last(&self, init: &Arc<ThreadGroup>, status: i32) -> bool {
        let mut state = self.state.lock();
        let has_others = state.has_others();
        if has_others {
            state.ending = Some((init.clone(), status));
        }
        has_others
    }

    /// Frees a task's number, unless a process group or session still carries it. Returns the init
    /// and its status, where it has waited for this task to go.
    #[must_use]
    pub(super) fn leave(&self, pid: u32) -> Option<(Arc<ThreadGroup>, i32)> {
        let mut state = self.state.lock();
        // Without its init a namespace that a task has made is over.
        state.is_dead |= pid == 1 && self.level > CONTAINER_LEVEL;
        if let Some(entry) = state.tasks.get_mut(&pid) {
            entry.task = None;
            if entry.n_holds == 0 {
                state.tasks.remove(&pid);
            }
        }
        if state.ending.is_none() || state.has_others() { None } else { state.ending.take() }
    }

    /// Keeps a number in use for a process group or session.
    pub fn hold(&self, pid: u32) {
        self.state.lock().tasks.entry(pid).or_default().n_holds += 1;
    }

    /// Ends a `hold`.
    pub fn release(&self, pid: u32) {
        let mut state = self.state.lock();
        if let Some(entry) = state.tasks.get_mut(&pid) {
            entry.n_holds = entry.n_holds.saturating_sub(1);
            if entry.n_holds == 0 && entry.task.is_none() {
                state.tasks.remove(&pid);
            }
        }
    }

    /// Returns the thread with this number.
    pub fn task(&self, pid: u32) -> Option<Arc<Task>> {
        self.state.lock().tasks.get(&pid)?.task.as_ref()?.upgrade()
    }

    /// Returns whether a thread, process group or session has this number.
    pub fn has(&self, pid: u32) -> bool {
        let state = self.state.lock();
        let is_alive = |task: &Weak<Task>| task.strong_count() > 0;
        let is_in_use =
            |entry: &Entry| entry.n_holds > 0 || entry.task.as_ref().is_some_and(is_alive);
        state.tasks.get(&pid).is_some_and(is_in_use)
    }

    /// Returns the process whose leader has this number, zombies included.
    pub fn group(&self, pid: u32) -> Option<Arc<ThreadGroup>> {
        let task = self.task(pid)?;
        task.is_leader().then(|| task.group.clone())
    }

    /// Returns every thread, in the order of their numbers.
    pub fn tasks(&self) -> Vec<(u32, Arc<Task>)> {
        let state = self.state.lock();
        let upgrade = |(pid, entry): (&u32, &Entry)| Some((*pid, entry.task.as_ref()?.upgrade()?));
        state.tasks.iter().filter_map(upgrade).collect()
    }

    /// Refuses new tasks from now on.
    pub fn kill(&self) {
        self.state.lock().is_dead = true;
    }

    /// Sets the number after which the next one is looked for.
    ///
    /// # Errors
    /// `EINVAL` for one that cannot be given.
    pub fn set_last_pid(&self, pid: u32) -> SysResult<()> {
        if pid >= PID_MAX {
            return Err(Errno::EINVAL);
        }
        self.state.lock().last = pid;
        Ok(())
    }

    /// Returns whether the init has exited.
    pub(crate) fn is_dead(&self) -> bool {
        self.state.lock().is_dead
    }

    /// Returns the number last given, for `/proc/loadavg`.
    pub fn last_pid(&self) -> u32 {
        self.state.lock().last
    }
}

/// Reserves a number in a namespace and in each above, outermost first. `wanted` names those of the
/// innermost ones, innermost first.
///
/// # Errors
/// As [`PidNamespace::allocate`].
pub(crate) fn allocate(
    namespace: &Arc<PidNamespace>,
    wanted: &[u32],
) -> SysResult<Vec<(Arc<PidNamespace>, u32)>> {
    let chain = namespace.chain();
    let mut pids = Vec::with_capacity(chain.len());
    for (level, namespace) in chain.iter().enumerate() {
        let wanted = wanted.get(chain.len() - 1 - level).copied();
        match namespace.allocate(wanted) {
            Ok(pid) => pids.push((namespace.clone(), pid)),
            Err(errno) => {
                free(&pids);
                return Err(errno);
            }
        }
    }
    Ok(pids)
}

/// Frees numbers that no task has got.
pub(crate) fn free(pids: &[(Arc<PidNamespace>, u32)]) {
    for (namespace, pid) in pids {
        // Nobody has entered under it.
        let _ = namespace.leave(*pid);
    }
}

impl State {
    /// Returns whether there is a task beside the init.
    fn has_others(&self) -> bool {
        self.tasks.iter().any(|(pid, entry)| *pid != 1 && entry.task.is_some())
    }
}

impl Task {
    /// Returns the task's own pid namespace.
    pub fn pid_namespace(&self) -> Arc<PidNamespace> {
        match self.pids.lock().last() {
            Some((namespace, _)) => namespace.clone(),
            None => self.kernel.root_pid_namespace.clone(),
        }
    }

    /// Returns the thread id as `namespace` numbers it, zero where the task is not in it.
    pub fn tid_in(&self, namespace: &Arc<PidNamespace>) -> u32 {
        let pids = self.pids.lock();
        let entry = pids.get(namespace.level);
        entry.filter(|(of, _)| Arc::ptr_eq(of, namespace)).map_or(0, |(_, pid)| *pid)
    }
}
