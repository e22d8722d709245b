//! System V semaphores (`ipc/sem.c`).
//!
//! [`set`] is one set of semaphores and who waits at it. What a process takes back when it ends
//! (`SEM_UNDO`) stands with the sets, found by the number of the process's [`UndoList`].

mod set;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syscalls::abi::ipc::{IpcPerm, Sembuf, SemidDs, Seminfo};
use syscalls::{Errno, SysResult};

use self::set::{Attempt, Operation, Set};
use super::sleep::{self, Bed, End, Place, Sleeper, ToWake};
use super::{Ipc, Lookup, Object, Table};
use crate::kernel::Kernel;
use crate::sync::Mutex;
use crate::task::namespaces::Namespace;
use crate::task::{CurrentTask, HandlerResult, Task};

/// The largest value of a semaphore.
pub(crate) const SEMVMX: i32 = 32767;
/// The size that `IPC_INFO` gives for what undoes an operation.
const SEMUSZ: i32 = 20;
/// The most semaphores that there can be whatever `kernel.sem` says: their memory is the sandbox's.
const MAX_SEMAPHORES: usize = 8 << 20;

/// All sets.
#[derive(Default)]
pub(crate) struct Semaphores {
    table: Mutex<Table<Set>>,
    last_undo: AtomicU64,
}

/// What the threads that share it take back when the last of them ends.
pub(crate) struct UndoList {
    number: u64,
    /// The sets that know the list.
    sets: Mutex<BTreeSet<i32>>,
}

/// The limits of `kernel.sem`.
struct Limits {
    per_set: usize,
    in_all: usize,
    per_call: usize,
    sets: usize,
}

impl Limits {
    fn of(kernel: &Kernel) -> Self {
        let limit = |index, default| super::limit(kernel, "kernel/sem", index, default);
        Self {
            per_set: limit(0, 32_000),
            in_all: limit(1, 1_024_000_000),
            per_call: limit(2, 500),
            sets: limit(3, 32_000),
        }
    }
}

impl UndoList {
    /// Remembers a set.
    fn know(&self, id: i32, table: &mut Table<Set>) {
        let mut sets = self.sets.lock();
        if sets.insert(id) && sets.len().is_power_of_two() {
            // Those that are gone must not gather.
            sets.retain(|id| table.by_id(*id).is_ok());
        }
    }
}

/// A set, by its id.
#[derive(Clone)]
pub(crate) struct SetId {
    ipc: Arc<Namespace<Ipc>>,
    id: i32,
}

impl Bed for SetId {
    type Wish = Operation;
    type Outcome = SysResult<()>;

    fn forget(&self, sleeper: &Arc<Sleeper<Self>>) {
        if let Ok(set) = self.ipc.sem.table.lock().by_id(self.id) {
            set.forget(sleeper);
        }
    }
}

impl Semaphores {
    /// Implements `semget(2)`.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `EACCES`, `EINVAL`, `ENOSPC`, `ENOMEM`.
    pub(crate) fn get(
        &self,
        task: &CurrentTask,
        key: i32,
        nsems: i32,
        flags: u32,
    ) -> SysResult<i32> {
        let limits = Limits::of(&task.kernel);
        let nsems = usize::try_from(nsems).map_err(|_| Errno::EINVAL)?;
        if nsems > limits.per_set {
            return Err(Errno::EINVAL);
        }
        let mut table = self.table.lock();
        let check = |set: &Set| if nsems > set.len() { Err(Errno::EINVAL) } else { Ok(()) };
        if let Lookup::Found(id) = super::look_up(task, &table, key, flags, check)? {
            return Ok(id);
        }
        if nsems == 0 {
            return Err(Errno::EINVAL);
        }
        let n_all = table.iter().map(Set::len).sum::<usize>().saturating_add(nsems);
        if n_all > limits.in_all {
            return Err(Errno::ENOSPC);
        }
        if n_all > MAX_SEMAPHORES {
            return Err(Errno::ENOMEM);
        }
        let ctime = super::now(task);
        let next = super::take_next_id(&task.kernel, "kernel/sem_next_id");
        table.add(limits.sets, next, |seq| {
            Set::new(super::new_perm(task, key, flags, seq), nsems, ctime)
        })
    }

    /// Implements `semop(2)` and `semtimedop(2)`.
    ///
    /// # Errors
    /// `E2BIG`, `EINVAL`, `EIDRM`, `EFBIG`, `EACCES`, `ERANGE`; `EAGAIN` where it would have to wait and
    /// may not or no longer, `EINTR`.
    pub(crate) fn operate(
        &self,
        task: &CurrentTask,
        id: i32,
        ops: Vec<Sembuf>,
        deadline_ns: Option<u64>,
    ) -> HandlerResult<()> {
        let undo = || self.undo_list(task).number;
        let operation = Operation::new(ops, super::own_pid(task), undo)?;
        let sleeper = {
            let mut to_wake = ToWake::default();
            let mut table = self.table.lock();
            let set = table.by_id(id)?;
            set.check(&operation)?;
            let mode = if operation.alters() { 0o222 } else { 0o444 };
            super::check_access(task, set.perm(), mode)?;
            if operation.undoes() {
                self.undo_list(task).know(id, &mut table);
            }
            let set = table.by_id(id)?;
            match set.attempt(&operation) {
                Attempt::Failed(errno) => return Err(errno.into()),
                Attempt::Done => {
                    set.after(&operation, super::now(task), &mut to_wake);
                    drop(table);
                    to_wake.wake();
                    return Ok(());
                }
                Attempt::Blocked => {
                    let sleeper = Sleeper::new(task, operation);
                    set.push(sleeper.clone());
                    sleeper
                }
            }
        };
        let set = SetId { ipc: task.ipc(), id };
        self.wait(task, Place::new(set, sleeper), deadline_ns)
    }

    /// Goes on with a call that has slept.
    ///
    /// # Errors
    /// Those of [`Self::operate`].
    pub(crate) fn wait(
        &self,
        task: &CurrentTask,
        place: Place<SetId>,
        deadline_ns: Option<u64>,
    ) -> HandlerResult<()> {
        match sleep::sleep(task, place, deadline_ns)? {
            End::Outcome(outcome) => Ok(outcome?),
            End::TimedOut => Err(Errno::EAGAIN.into()),
            // Handler or not: semop(2) is never restarted.
            End::Interrupted => Err(Errno::EINTR.into()),
        }
    }

    /// Returns the caller's list, made where there is none: what `CLONE_SYSVSEM` shares.
    pub(crate) fn undo_list(&self, task: &Task) -> Arc<UndoList> {
        let mut own = task.sem_undo.lock();
        let list = own.get_or_insert_with(|| {
            let number = self.last_undo.fetch_add(1, Ordering::Relaxed);
            Arc::new(UndoList { number, sets: Mutex::default() })
        });
        list.clone()
    }

    /// Is told that a task ends, or shares its list no longer. The last one's operations are undone.
    pub(crate) fn leave_undo_list(&self, task: &Task) {
        let list = task.sem_undo.lock().take();
        let Some(list) = list.and_then(Arc::into_inner) else { return };
        let pid = i32::try_from(task.group.pid_in(&task.pid_namespace())).unwrap_or(0);
        let now = task.kernel.clock.realtime_ns().div_euclid(1_000_000_000);
        let mut to_wake = ToWake::default();
        for id in list.sets.into_inner() {
            if let Ok(set) = self.table.lock().by_id(id) {
                set.undo(list.number, pid, now, &mut to_wake);
            }
        }
        to_wake.wake();
    }

    /// Returns how many operations one call may make.
    pub(crate) fn max_ops(task: &CurrentTask) -> usize {
        Limits::of(&task.kernel).per_call
    }

    /// Returns the status of a set: by id, or by index for the commands that list them, where `access`
    /// is the mode that the caller needs.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EACCES`.
    pub(crate) fn status(
        &self,
        task: &CurrentTask,
        id: i32,
        is_index: bool,
        access: u32,
    ) -> SysResult<(i32, SemidDs)> {
        let mut table = self.table.lock();
        let (id, set) = if is_index { table.by_index(id)? } else { (0, table.by_id(id)?) };
        super::check_access(task, set.perm(), access)?;
        Ok((id, set.status()))
    }

    /// Returns limits for `IPC_INFO`, and what there is for `SEM_INFO`; and the highest index in use.
    pub(crate) fn info(&self, task: &CurrentTask, shows_use: bool) -> (Seminfo, u64) {
        let limits = Limits::of(&task.kernel);
        let table = self.table.lock();
        let as_int = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let (used, in_sets) = (table.len(), table.iter().map(Set::len).sum::<usize>());
        let info = Seminfo {
            semmap: 1_024_000_000,
            semmni: as_int(limits.sets),
            semmns: as_int(limits.in_all),
            semmnu: 1_024_000_000,
            semmsl: as_int(limits.per_set),
            semopm: as_int(limits.per_call),
            semume: 500,
            semusz: if shows_use { as_int(used) } else { SEMUSZ },
            semvmx: SEMVMX,
            semaem: if shows_use { as_int(in_sets) } else { SEMVMX },
        };
        (info, table.max_index())
    }

    /// Runs `f` on a set that the caller may read.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EACCES`; those of `f`.
    pub(crate) fn read<T>(
        &self,
        task: &CurrentTask,
        id: i32,
        f: impl FnOnce(&Set) -> SysResult<T>,
    ) -> SysResult<T> {
        let mut table = self.table.lock();
        let set = table.by_id(id)?;
        super::check_access(task, set.perm(), 0o444)?;
        f(set)
    }

    /// Returns how many semaphores a set has that the caller may change.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EACCES`.
    pub(crate) fn len_to_change(&self, task: &CurrentTask, id: i32) -> SysResult<usize> {
        let mut table = self.table.lock();
        let set = table.by_id(id)?;
        super::check_access(task, set.perm(), 0o222)?;
        Ok(set.len())
    }

    /// Implements `SETVAL` and `SETALL`: sets the semaphores from `first` on.
    ///
    /// # Errors
    /// `ERANGE`, `EINVAL`, `EIDRM`, `EACCES`.
    pub(crate) fn set_values(
        &self,
        task: &CurrentTask,
        id: i32,
        first: i32,
        values: &[i32],
    ) -> SysResult<()> {
        if values.iter().any(|value| !(0..=SEMVMX).contains(value)) {
            return Err(Errno::ERANGE);
        }
        let mut to_wake = ToWake::default();
        let mut table = self.table.lock();
        let set = table.by_id(id)?;
        let first = usize::try_from(first).map_err(|_| Errno::EINVAL)?;
        if first.checked_add(values.len()).is_none_or(|end| end > set.len()) {
            return Err(Errno::EINVAL);
        }
        super::check_access(task, set.perm(), 0o222)?;
        set.set_values(first, values, super::own_pid(task), super::now(task), &mut to_wake);
        drop(table);
        to_wake.wake();
        Ok(())
    }

    /// Implements `IPC_SET`.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EPERM`.
    pub(crate) fn set_perm(&self, task: &CurrentTask, id: i32, new: &IpcPerm) -> SysResult<()> {
        let mut table = self.table.lock();
        let set = table.by_id(id)?;
        super::check_owner(task, set.perm())?;
        set.set_perm(new, super::now(task));
        Ok(())
    }

    /// Implements `IPC_RMID`: whoever waits is told.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EPERM`.
    pub(crate) fn remove(&self, task: &CurrentTask, id: i32) -> SysResult<()> {
        let mut to_wake = ToWake::default();
        let mut table = self.table.lock();
        super::check_owner(task, table.by_id(id)?.perm())?;
        if let Some(set) = table.remove(id) {
            set.expel(&mut to_wake);
        }
        drop(table);
        to_wake.wake();
        Ok(())
    }

    /// Returns `/proc/sysvipc/sem`.
    pub(crate) fn render(&self) -> String {
        let mut out = String::from(
            "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n",
        );
        for (id, set) in self.table.lock().iter_ids() {
            let SemidDs { sem_perm: perm, sem_otime, sem_ctime, sem_nsems, .. } = set.status();
            out.push_str(&format!(
                "{:10} {id:10}  {:4o} {sem_nsems:10} {:5} {:5} {:5} {:5} {sem_otime:10} {sem_ctime:10}\n",
                perm.key, perm.mode, perm.uid, perm.gid, perm.cuid, perm.cgid,
            ));
        }
        out
    }
}
