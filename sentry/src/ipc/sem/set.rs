//! One set of semaphores, without regard to who may do what.
//!
//! Operations wait in two lists, as in Linux: those that wait for zero only, and those that change
//! something, in the order in which they came. After each change the first list is looked at, then the
//! second one from its beginning: an operation that can go on does, even where an older one cannot.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use syscalls::abi::ipc::{IpcFlags, IpcPerm, SEM_UNDO, Sembuf, SemidDs};
use syscalls::{Errno, SysResult};

use super::super::Object;
use super::super::sleep::{Sleeper, ToWake};
use super::{SEMVMX, SetId};

/// What one call asks for.
pub(crate) struct Operation {
    ops: Vec<Sembuf>,
    /// The list of what is taken back, where some of it is.
    undo: Option<u64>,
    pid: i32,
    /// Which of them could not be done in the last attempt.
    blocking: AtomicUsize,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// All is done.
    Done,
    /// Nothing is done; it must wait.
    Blocked,
    /// Nothing is done, and waiting does not help.
    Failed(Errno),
}

/// A semaphore.
#[derive(Clone, Copy, Default)]
struct Sem {
    value: i32,
    /// Who changed it last.
    pid: i32,
}

/// A set.
pub(crate) struct Set {
    perm: IpcPerm,
    sems: Vec<Sem>,
    otime: i64,
    ctime: i64,
    zero: VecDeque<Arc<Sleeper<SetId>>>,
    alter: VecDeque<Arc<Sleeper<SetId>>>,
    /// What is added to the values when the threads of a list have ended.
    undos: BTreeMap<u64, Vec<i32>>,
}

impl Object for Set {
    fn perm(&self) -> &IpcPerm {
        &self.perm
    }
}

impl Operation {
    /// Creates an operation; `undo` gives the list of what is taken back.
    ///
    /// # Errors
    /// `EINVAL` where there is nothing to do.
    pub(super) fn new(ops: Vec<Sembuf>, pid: i32, undo: impl FnOnce() -> u64) -> SysResult<Self> {
        if ops.is_empty() {
            return Err(Errno::EINVAL);
        }
        let undoes = ops.iter().any(|op| op.sem_flg & SEM_UNDO != 0);
        Ok(Self { undo: undoes.then(undo), ops, pid, blocking: AtomicUsize::new(0) })
    }

    /// Returns whether it changes anything.
    pub(super) fn alters(&self) -> bool {
        self.ops.iter().any(|op| op.sem_op != 0)
    }

    /// Returns whether something is to be taken back.
    pub(super) fn undoes(&self) -> bool {
        self.undo.is_some()
    }

    fn blocking(&self) -> Option<&Sembuf> {
        self.ops.get(self.blocking.load(Ordering::Relaxed))
    }
}

fn may_wait(op: &Sembuf) -> bool {
    let flags = u32::from(op.sem_flg.cast_unsigned());
    !IpcFlags::from_bits_retain(flags).contains(IpcFlags::NOWAIT)
}

impl Set {
    /// Creates a set whose semaphores are zero.
    pub(super) fn new(perm: IpcPerm, nsems: usize, ctime: i64) -> Self {
        Self {
            perm,
            sems: vec![Sem::default(); nsems],
            otime: 0,
            ctime,
            zero: VecDeque::new(),
            alter: VecDeque::new(),
            undos: BTreeMap::new(),
        }
    }

    /// Returns how many semaphores there are.
    pub(crate) fn len(&self) -> usize {
        self.sems.len()
    }

    /// Returns the values.
    pub(crate) fn values(&self) -> Vec<u16> {
        self.sems.iter().map(|sem| u16::try_from(sem.value).unwrap_or(0)).collect()
    }

    /// Returns value and last process of one semaphore.
    ///
    /// # Errors
    /// `EINVAL` where there is none with that number.
    pub(crate) fn sem(&self, number: i32) -> SysResult<(i32, i32)> {
        let index = usize::try_from(number).map_err(|_| Errno::EINVAL)?;
        let sem = self.sems.get(index).ok_or(Errno::EINVAL)?;
        Ok((sem.value, sem.pid))
    }

    /// Returns how many operations wait for one semaphore to become zero, or to grow.
    ///
    /// # Errors
    /// `EINVAL` where there is none with that number.
    pub(crate) fn n_waiting(&self, number: i32, for_zero: bool) -> SysResult<i32> {
        self.sem(number)?;
        let waits = |sleeper: &&Arc<Sleeper<SetId>>| {
            sleeper.wish.blocking().is_some_and(|op| {
                i32::from(op.sem_num) == number
                    && if for_zero { op.sem_op == 0 } else { op.sem_op < 0 }
            })
        };
        let n = self.zero.iter().chain(&self.alter).filter(waits).count();
        Ok(i32::try_from(n).unwrap_or(i32::MAX))
    }

    /// Returns the status.
    pub(super) fn status(&self) -> SemidDs {
        SemidDs {
            sem_perm: self.perm,
            sem_otime: self.otime,
            sem_ctime: self.ctime,
            sem_nsems: self.sems.len() as u64,
            ..SemidDs::default()
        }
    }

    /// Implements `IPC_SET`.
    pub(super) fn set_perm(&mut self, new: &IpcPerm, now: i64) {
        super::super::set_perm(&mut self.perm, new);
        self.ctime = now;
    }

    /// Checks the numbers of an operation.
    ///
    /// # Errors
    /// `EFBIG`.
    pub(super) fn check(&self, operation: &Operation) -> SysResult<()> {
        let is_there = |op: &Sembuf| usize::from(op.sem_num) < self.sems.len();
        if operation.ops.iter().all(is_there) { Ok(()) } else { Err(Errno::EFBIG) }
    }

    /// Does all of an operation, or nothing.
    pub(super) fn attempt(&mut self, operation: &Operation) -> Attempt {
        let mut n_done = 0;
        let mut end = Attempt::Done;
        for (index, op) in operation.ops.iter().enumerate() {
            end = self.attempt_one(op, operation.undo);
            if end != Attempt::Done {
                operation.blocking.store(index, Ordering::Relaxed);
                break;
            }
            n_done += 1;
        }
        if end == Attempt::Done {
            for op in &operation.ops {
                if let Some(sem) = self.sems.get_mut(usize::from(op.sem_num)) {
                    sem.pid = operation.pid;
                }
            }
            return end;
        }
        for op in operation.ops.iter().take(n_done) {
            self.change(op, operation.undo, i32::from(op.sem_op).saturating_neg());
        }
        end
    }

    fn attempt_one(&mut self, op: &Sembuf, undo: Option<u64>) -> Attempt {
        let value = self.sems.get(usize::from(op.sem_num)).map_or(0, |sem| sem.value);
        let change = i32::from(op.sem_op);
        let result = value.saturating_add(change);
        if (change == 0 && value != 0) || result < 0 {
            return if may_wait(op) { Attempt::Blocked } else { Attempt::Failed(Errno::EAGAIN) };
        }
        if result > SEMVMX {
            return Attempt::Failed(Errno::ERANGE);
        }
        if op.sem_flg & SEM_UNDO != 0 {
            let own = undo.and_then(|number| self.undos.get(&number));
            let adjustment = own.and_then(|undo| undo.get(usize::from(op.sem_num)));
            let adjustment = adjustment.copied().unwrap_or(0).saturating_sub(change);
            if !(-SEMVMX - 1..=SEMVMX).contains(&adjustment) {
                return Attempt::Failed(Errno::ERANGE);
            }
        }
        self.change(op, undo, change);
        Attempt::Done
    }

    /// Adds to a value, and takes it from what is added at the end.
    fn change(&mut self, op: &Sembuf, undo: Option<u64>, change: i32) {
        let index = usize::from(op.sem_num);
        if let Some(sem) = self.sems.get_mut(index) {
            sem.value = sem.value.saturating_add(change);
        }
        if let Some(number) = undo
            && op.sem_flg & SEM_UNDO != 0
        {
            let n = self.sems.len();
            let undo = self.undos.entry(number).or_insert_with(|| vec![0; n]);
            if let Some(adjustment) = undo.get_mut(index) {
                *adjustment = adjustment.saturating_sub(change);
            }
        }
    }

    /// Is told that an operation has been done: lets others go on.
    pub(super) fn after(&mut self, operation: &Operation, now: i64, to_wake: &mut ToWake) {
        self.otime = now;
        if operation.alters() {
            self.update(now, to_wake);
        }
    }

    /// Adds an operation that must wait.
    pub(super) fn push(&mut self, sleeper: Arc<Sleeper<SetId>>) {
        let list = if sleeper.wish.alters() { &mut self.alter } else { &mut self.zero };
        list.push_back(sleeper);
    }

    /// Takes away an operation that waits no longer.
    pub(super) fn forget(&mut self, sleeper: &Arc<Sleeper<SetId>>) {
        for list in [&mut self.zero, &mut self.alter] {
            list.retain(|other| !Arc::ptr_eq(other, sleeper));
        }
    }

    /// Lets everybody who can go on do so.
    fn update(&mut self, now: i64, to_wake: &mut ToWake) {
        self.update_zero(now, to_wake);
        let mut index = 0;
        while let Some(sleeper) = self.alter.get(index).cloned() {
            let end =
                if sleeper.is_dead(to_wake) { None } else { Some(self.attempt(&sleeper.wish)) };
            if end == Some(Attempt::Blocked) {
                index += 1;
                continue;
            }
            self.alter.remove(index);
            match end {
                Some(Attempt::Done) => {
                    self.otime = now;
                    sleeper.finish(Ok(()), to_wake);
                    self.update_zero(now, to_wake);
                    // The older ones may be able to go on now.
                    index = 0;
                }
                Some(Attempt::Failed(errno)) => sleeper.finish(Err(errno), to_wake),
                Some(Attempt::Blocked) | None => {}
            }
        }
    }

    fn update_zero(&mut self, now: i64, to_wake: &mut ToWake) {
        for sleeper in std::mem::take(&mut self.zero) {
            match self.attempt(&sleeper.wish) {
                Attempt::Blocked => self.zero.push_back(sleeper),
                Attempt::Done => {
                    self.otime = now;
                    sleeper.finish(Ok(()), to_wake);
                }
                Attempt::Failed(errno) => sleeper.finish(Err(errno), to_wake),
            }
        }
    }

    /// Sets the values from `first` on, which nobody takes back any more.
    pub(super) fn set_values(
        &mut self,
        first: usize,
        values: &[i32],
        pid: i32,
        now: i64,
        to_wake: &mut ToWake,
    ) {
        for (sem, value) in self.sems.iter_mut().skip(first).zip(values) {
            *sem = Sem { value: *value, pid };
        }
        for undo in self.undos.values_mut() {
            undo.iter_mut().skip(first).take(values.len()).for_each(|adjustment| *adjustment = 0);
        }
        self.ctime = now;
        self.update(now, to_wake);
    }

    /// Takes back what the threads of a list have done.
    pub(super) fn undo(&mut self, number: u64, pid: i32, now: i64, to_wake: &mut ToWake) {
        let Some(undo) = self.undos.remove(&number) else { return };
        for (sem, adjustment) in self.sems.iter_mut().zip(undo) {
            if adjustment != 0 {
                *sem = Sem { value: sem.value.saturating_add(adjustment).clamp(0, SEMVMX), pid };
            }
        }
        self.otime = now;
        self.update(now, to_wake);
    }

    /// Tells everybody who waits that the set is gone.
    pub(super) fn expel(self, to_wake: &mut ToWake) {
        for sleeper in self.zero.iter().chain(&self.alter) {
            sleeper.finish(Err(Errno::EIDRM), to_wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[i32]) -> Set {
        let mut set = Set::new(IpcPerm::default(), values.len(), 0);
        set.set_values(0, values, 0, 0, &mut ToWake::default());
        set
    }

    fn operation(ops: &[(u16, i16, i16)]) -> Operation {
        let ops = ops.iter();
        let ops = ops.map(|(sem_num, sem_op, sem_flg)| Sembuf {
            sem_num: *sem_num,
            sem_op: *sem_op,
            sem_flg: *sem_flg,
        });
        Operation::new(ops.collect(), 7, || 1).expect("there are some")
    }

    #[test]
    fn operations_are_done_as_a_whole() {
        let mut set = set(&[1, 0]);
        assert_eq!(set.attempt(&operation(&[(0, -1, SEM_UNDO), (1, -1, 0)])), Attempt::Blocked);
        assert_eq!(set.values(), [1, 0]);
        assert_eq!(set.undos.get(&1), Some(&vec![0, 0]));
        assert_eq!(set.attempt(&operation(&[(1, 2, 0), (1, -1, SEM_UNDO)])), Attempt::Done);
        assert_eq!(set.values(), [1, 1]);
        assert_eq!(set.undos.get(&1), Some(&vec![0, 1]));
        assert_eq!(set.sem(1), Ok((1, 7)));
    }

    #[test]
    fn values_and_adjustments_have_limits() {
        let mut set = set(&[SEMVMX]);
        assert_eq!(set.attempt(&operation(&[(0, 1, 0)])), Attempt::Failed(Errno::ERANGE));
        assert_eq!(set.attempt(&operation(&[(0, -32768, 0)])), Attempt::Blocked);
        assert_eq!(set.attempt(&operation(&[(0, -32767, SEM_UNDO)])), Attempt::Done);
        assert_eq!(set.attempt(&operation(&[(0, 32767, 0)])), Attempt::Done);
        let again = operation(&[(0, -1, SEM_UNDO)]);
        assert_eq!(set.attempt(&again), Attempt::Failed(Errno::ERANGE));
        assert_eq!(set.attempt(&operation(&[(0, 0, 0o4000)])), Attempt::Failed(Errno::EAGAIN));
        set.undo(1, 3, 5, &mut ToWake::default());
        assert_eq!(set.sem(0), Ok((SEMVMX, 3)));
    }
}
