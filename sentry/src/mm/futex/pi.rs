//! Priority-inheritance futexes: the word holds its owner's thread id, and the sentry hands it on.
//!
//! An application takes and releases such a lock by itself while nobody waits. [`FUTEX_WAITERS`] in
//! the word sends both ways into the kernel, so from then on only the kernel changes the word:
//! setting that bit is the one step that must be atomic with the application's own, hence a host
//! call of the application's thread; everything else is a plain store under the table's lock. Who
//! has set the bit looks again under that lock before relying on it.
//!
//! DEVIATION: nobody's priority is raised; the host schedules application threads as it likes.
//! Waiters are served by real-time priority, then in the order of arrival.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use sentry_platform::HostCall;
use syscalls::abi::futex::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};
use syscalls::abi::sched::{SCHED_FIFO, SCHED_RR};
use syscalls::{Errno, SysResult, UserAddr};
use zerocopy::{FromBytes, IntoBytes};

use super::{check_aligned, read_word};
use crate::mm::FutexKey;
use crate::sync::Mutex;
use crate::task::block::Wait;
use crate::task::{Control, CurrentTask, HandlerResult, Restart, Task, run};

/// How many owners a search for a deadlock follows.
const MAX_CHAIN: usize = 1024;

/// All PI futexes that somebody waits for.
#[derive(Default)]
pub(super) struct PiTable {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    locks: HashMap<FutexKey, Lock>,
    /// Who waits in `FUTEX_WAIT_REQUEUE_PI`, by the futex that is waited on.
    sources: HashMap<FutexKey, Vec<Arc<Waiter>>>,
}

struct Lock {
    owner: Weak<Task>,
    waiters: Vec<Arc<Waiter>>,
}

/// A waiting thread.
struct Waiter {
    task: Weak<Task>,
    /// Its id as the word shows it.
    tid: u32,
    priority: i32,
    /// What identifies the lock, and where it lies in the waiter's memory.
    key: FutexKey,
    addr: UserAddr,
    /// Where it waits to be moved to the lock from.
    source: Option<FutexKey>,
    /// Whether it has been.
    is_moved: AtomicBool,
    /// Whether the lock has been handed to it.
    has_lock: AtomicBool,
}

/// A thread's place in a queue, left when dropped.
struct Place {
    task: Arc<Task>,
    waiter: Arc<Waiter>,
}

/// What the host call before this run was to put into the word.
struct Exchange {
    old: u32,
    /// Whether success takes the lock.
    takes_lock: bool,
}

/// What an attempt found.
enum Attempt {
    /// The caller has the lock.
    Taken,
    /// The word must be changed first.
    Exchange(Exchange, u32),
    /// The caller waits.
    Waits(Place),
}

impl Waiter {
    fn new(current: &CurrentTask, key: FutexKey, addr: UserAddr) -> Self {
        let misc = current.misc.lock();
        let policy = i32::try_from(misc.sched_policy).unwrap_or(0);
        let is_real_time = matches!(policy, SCHED_FIFO | SCHED_RR);
        Self {
            task: Arc::downgrade(current.task()),
            tid: own_tid(current),
            priority: if is_real_time { misc.sched_priority } else { 0 },
            key,
            addr,
            source: None,
            is_moved: AtomicBool::new(false),
            has_lock: AtomicBool::new(false),
        }
    }

    fn has_lock(&self) -> bool {
        self.has_lock.load(Ordering::SeqCst)
    }

    /// Gives the waiter the lock and returns whom to wake.
    fn take_lock(&self) -> Option<Arc<Task>> {
        self.has_lock.store(true, Ordering::SeqCst);
        self.task.upgrade()
    }
}

impl State {
    /// Returns whether somebody waits for the lock.
    fn is_wanted(&self, key: &FutexKey) -> bool {
        self.locks.contains_key(key)
    }

    /// Adds a waiter for a lock of `owner`.
    fn enqueue(&mut self, waiter: Arc<Waiter>, owner: &Arc<Task>) {
        let owner = Arc::downgrade(owner);
        let lock = self
            .locks
            .entry(waiter.key)
            .or_insert_with(|| Lock { owner: owner.clone(), waiters: Vec::new() });
        lock.owner = owner;
        let behind = |other: &Arc<Waiter>| other.priority >= waiter.priority;
        let place = lock.waiters.iter().rposition(behind).map_or(0, |last| last + 1);
        lock.waiters.insert(place, waiter);
    }

    fn remove(&mut self, waiter: &Arc<Waiter>) {
        let is_other = |other: &Arc<Waiter>| !Arc::ptr_eq(other, waiter);
        if let Some(lock) = self.locks.get_mut(&waiter.key) {
            lock.waiters.retain(is_other);
            if lock.waiters.is_empty() {
                self.locks.remove(&waiter.key);
            }
        }
        let Some(source) = &waiter.source else { return };
        if let Some(waiters) = self.sources.get_mut(source) {
            waiters.retain(is_other);
            if waiters.is_empty() {
                self.sources.remove(source);
            }
        }
    }

    /// Removes every waiter that is `task`.
    fn forget(&mut self, task: &Weak<Task>) {
        let is_other = |waiter: &Arc<Waiter>| !waiter.task.ptr_eq(task);
        self.locks.retain(|_, lock| {
            lock.waiters.retain(is_other);
            !lock.waiters.is_empty()
        });
        self.sources.retain(|_, waiters| {
            waiters.retain(is_other);
            !waiters.is_empty()
        });
    }

    /// Removes the first waiter for a lock, who is to get it.
    fn pop(&mut self, key: &FutexKey) -> Option<Arc<Waiter>> {
        let lock = self.locks.get_mut(key)?;
        let mut first = None;
        while first.is_none() && !lock.waiters.is_empty() {
            let waiter = lock.waiters.remove(0);
            first = (waiter.task.strong_count() > 0).then_some(waiter);
        }
        if let Some(waiter) = &first {
            lock.owner = waiter.task.clone();
        }
        if lock.waiters.is_empty() {
            self.locks.remove(key);
        }
        first
    }

    /// Returns whether waiting for a lock of `owner` would make `task` wait for itself.
    fn is_deadlock(&self, task: &Arc<Task>, owner: &Arc<Task>) -> bool {
        let task = Arc::downgrade(task);
        let mut owner = Arc::downgrade(owner);
        for _ in 0..MAX_CHAIN {
            if owner.ptr_eq(&task) {
                return true;
            }
            let waits = |lock: &&Lock| lock.waiters.iter().any(|other| other.task.ptr_eq(&owner));
            let Some(next) = self.locks.values().find(waits) else { return false };
            owner = next.owner.clone();
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.waiter.has_lock() {
            self.task.kernel.futexes.pi.state.lock().remove(&self.waiter);
        }
    }
}

fn own_tid(current: &CurrentTask) -> u32 {
    current.tid_in(&current.pid_namespace())
}

/// Stores a word now, and not on the task's way back.
pub(super) fn write_word(task: &Task, addr: UserAddr, value: u32) -> SysResult<()> {
    let n = task.mm().address_space()?.write(addr, value.as_bytes())?;
    if n == size_of::<u32>() { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Asks for an atomic change of the word; the handler runs again afterwards.
fn exchange(current: &CurrentTask, addr: UserAddr, what: Exchange, new: u32) -> Control {
    current.queue_host_call(HostCall::CompareExchange { addr: addr.0, old: what.old, new });
    current.remember(what);
    Control::HostCalls
}

/// Returns what became of the change that an earlier run asked for: whether it took the lock.
fn exchanged(current: &CurrentTask) -> SysResult<bool> {
    let Some(what) = current.recall::<Exchange>() else { return Ok(false) };
    match current.context().host_call_results().values.last() {
        Some(Ok(old)) => Ok(*old == u64::from(what.old) && what.takes_lock),
        Some(Err(errno)) => Err(*errno),
        None => Err(Errno::EFAULT),
    }
}

/// Returns the change that lets others know of a waiter, if it is still to be made.
fn set_waiters(word: u32) -> Option<Attempt> {
    let what = Exchange { old: word, takes_lock: false };
    (word & FUTEX_WAITERS == 0).then(|| Attempt::Exchange(what, word | FUTEX_WAITERS))
}

/// Returns the thread that a word names.
fn find_owner(current: &CurrentTask, word: u32) -> SysResult<Arc<Task>> {
    let owner = current.pid_namespace().task(word & FUTEX_TID_MASK).ok_or(Errno::ESRCH)?;
    if owner.has_left_futexes.load(Ordering::SeqCst) { Err(Errno::ESRCH) } else { Ok(owner) }
}

/// Takes the lock whose word is at `addr`, waiting for it unless `is_try`.
///
/// # Errors
/// `EDEADLK` where the caller has it or its owner waits for the caller, `EAGAIN` where another one
/// has it and `is_try`, `ESRCH` for an owner that does not exist, `ETIMEDOUT`, `EFAULT`, `EINVAL`.
pub(crate) fn lock(
    current: &CurrentTask,
    addr: UserAddr,
    private: bool,
    deadline_ns: Option<u64>,
    is_try: bool,
) -> HandlerResult<()> {
    if let Some(place) = current.recall::<Place>() {
        return wait(current, place, deadline_ns);
    }
    if exchanged(current)? {
        return Ok(());
    }
    check_aligned(addr)?;
    let key = current.mm().futex_key(addr.0, private)?;
    let attempt = try_lock(current, &key, addr, is_try)?;
    match attempt {
        Attempt::Taken => Ok(()),
        Attempt::Exchange(what, new) => Err(exchange(current, addr, what, new)),
        Attempt::Waits(place) => wait(current, place, deadline_ns),
    }
}

fn try_lock(
    current: &CurrentTask,
    key: &FutexKey,
    addr: UserAddr,
    is_try: bool,
) -> SysResult<Attempt> {
    let mut state = current.kernel.futexes.pi.state.lock();
    let word = read_word(current, addr)?;
    let tid = own_tid(current);
    if word & FUTEX_TID_MASK == tid {
        return Err(Errno::EDEADLK);
    }
    if word & (FUTEX_TID_MASK | FUTEX_WAITERS) == 0 {
        let what = Exchange { old: word, takes_lock: true };
        return Ok(Attempt::Exchange(what, word | tid));
    }
    if let Some(attempt) = set_waiters(word) {
        return Ok(attempt);
    }
    if word & FUTEX_TID_MASK == 0 {
        let waiters = if state.is_wanted(key) { FUTEX_WAITERS } else { 0 };
        write_word(current, addr, word & FUTEX_OWNER_DIED | waiters | tid)?;
        if let Some(lock) = state.locks.get_mut(key) {
            lock.owner = Arc::downgrade(current.task());
        }
        return Ok(Attempt::Taken);
    }
    let owner = find_owner(current, word)?;
    if is_try {
        return Err(Errno::EAGAIN);
    }
    if state.is_deadlock(current.task(), &owner) {
        return Err(Errno::EDEADLK);
    }
    let waiter = Arc::new(Waiter::new(current, *key, addr));
    state.enqueue(waiter.clone(), &owner);
    Ok(Attempt::Waits(Place { task: current.task().clone(), waiter }))
}

/// Waits until the lock is handed over.
fn wait(current: &CurrentTask, place: Place, deadline_ns: Option<u64>) -> HandlerResult<()> {
    let waiter = place.waiter.clone();
    let waited = current.wait_for(
        deadline_ns,
        Restart::NoIntr,
        |_| Vec::new(),
        || Ok(waiter.has_lock().then_some(())),
    );
    if let Err(Control::Block) = waited {
        current.remember(place);
        return Err(Control::Block);
    }
    drop(place);
    if waiter.has_lock() {
        return Ok(());
    }
    match waited {
        Ok(Wait::Ready(())) => Ok(()),
        Ok(Wait::TimedOut) => Err(Errno::ETIMEDOUT.into()),
        // A call that is run again would find that its futex has changed.
        Err(Control::Restart(_)) if waiter.is_moved.load(Ordering::SeqCst) => {
            Err(Errno::EAGAIN.into())
        }
        Err(control) => Err(control),
    }
}

/// Releases the lock whose word is at `addr`, or hands it to the first waiter.
///
/// # Errors
/// `EPERM` where the caller does not have it; `EFAULT`, `EINVAL`.
pub(crate) fn unlock(current: &CurrentTask, addr: UserAddr, private: bool) -> SysResult<()> {
    check_aligned(addr)?;
    let key = current.mm().futex_key(addr.0, private)?;
    let mut state = current.kernel.futexes.pi.state.lock();
    if read_word(current, addr)? & FUTEX_TID_MASK != own_tid(current) {
        return Err(Errno::EPERM);
    }
    let is_owner = |lock: &Lock| lock.owner.ptr_eq(&Arc::downgrade(current.task()));
    if state.locks.get(&key).is_some_and(|lock| !is_owner(lock)) {
        return Err(Errno::EINVAL);
    }
    // Checks that the word can be written before anybody is taken out of the queue.
    write_word(current, addr, FUTEX_WAITERS)?;
    let next = state.pop(&key);
    write_word(current, addr, next.as_ref().map_or(0, |next| next.tid | FUTEX_WAITERS))?;
    let woken = next.and_then(|next| next.take_lock());
    drop(state);
    if let Some(task) = woken {
        run::wake(&task);
    }
    Ok(())
}

/// Waits on the word at `addr` while it holds `expected`, to be given the lock at `lock_addr` by
/// [`requeue`].
///
/// # Errors
/// `EAGAIN` where it holds something else, `ETIMEDOUT`, `EFAULT`, `EINVAL`.
pub(crate) fn wait_requeue(
    current: &CurrentTask,
    addr: UserAddr,
    private: bool,
    expected: u32,
    deadline_ns: Option<u64>,
    lock_addr: UserAddr,
) -> HandlerResult<()> {
    if let Some(place) = current.recall::<Place>() {
        return wait(current, place, deadline_ns);
    }
    check_aligned(addr)?;
    check_aligned(lock_addr)?;
    let source = current.mm().futex_key(addr.0, private)?;
    let key = current.mm().futex_key(lock_addr.0, private)?;
    if source == key {
        return Err(Errno::EINVAL.into());
    }
    let waiter = Waiter::new(current, key, lock_addr);
    let waiter = Arc::new(Waiter { source: Some(source), ..waiter });
    let mut state = current.kernel.futexes.pi.state.lock();
    if read_word(current, addr)? != expected {
        return Err(Errno::EAGAIN.into());
    }
    state.sources.entry(source).or_default().push(waiter.clone());
    drop(state);
    wait(current, Place { task: current.task().clone(), waiter }, deadline_ns)
}

/// Gives the lock at `lock_addr` to the first of those that wait for it on `addr`, where it is
/// free, and lets up to `n` more wait for the lock itself. Returns how many that were.
///
/// # Errors
/// `EAGAIN` where the word at `addr` does not hold `expected`, `EINVAL` where somebody there wants
/// another lock, `ESRCH`, `EDEADLK`, `EFAULT`.
pub(crate) fn requeue(
    current: &CurrentTask,
    addr: UserAddr,
    lock_addr: UserAddr,
    private: bool,
    n: u32,
    expected: u32,
) -> HandlerResult<u32> {
    exchanged(current)?;
    check_aligned(addr)?;
    check_aligned(lock_addr)?;
    let source = current.mm().futex_key(addr.0, private)?;
    let key = current.mm().futex_key(lock_addr.0, private)?;
    if source == key {
        return Err(Errno::EINVAL.into());
    }
    let mut state = current.kernel.futexes.pi.state.lock();
    if read_word(current, addr)? != expected {
        return Err(Errno::EAGAIN.into());
    }
    let Some(waiters) = state.sources.get(&source) else { return Ok(0) };
    let limit = usize::try_from(n).unwrap_or(usize::MAX).saturating_add(1);
    let mut chosen: Vec<_> = waiters.iter().take(limit).cloned().collect();
    if chosen.iter().any(|waiter| waiter.key != key) {
        return Err(Errno::EINVAL.into());
    }
    let word = read_word(current, lock_addr)?;
    if let Some(Attempt::Exchange(what, new)) = set_waiters(word) {
        drop(state);
        return Err(exchange(current, lock_addr, what, new));
    }
    let mut n_done = 0u32;
    let mut woken = None;
    let owner = if word & FUTEX_TID_MASK == 0 {
        let first = chosen.remove(0);
        let word = word & FUTEX_OWNER_DIED | FUTEX_WAITERS | first.tid;
        write_word(current, lock_addr, word)?;
        state.remove(&first);
        woken = first.take_lock();
        n_done += 1;
        woken.clone().ok_or(Errno::ESRCH)?
    } else {
        find_owner(current, word)?
    };
    for waiter in chosen {
        let Some(task) = waiter.task.upgrade() else { continue };
        if state.is_deadlock(&task, &owner) {
            if n_done == 0 {
                return Err(Errno::EDEADLK.into());
            }
            break;
        }
        state.remove(&waiter);
        waiter.is_moved.store(true, Ordering::SeqCst);
        state.enqueue(waiter, &owner);
        n_done = n_done.saturating_add(1);
    }
    drop(state);
    if let Some(task) = woken {
        run::wake(&task);
    }
    Ok(n_done)
}

/// Hands on what an ending (`is_final`) thread, or one that gives up its memory, still has.
pub(crate) fn release_all(task: &Arc<Task>, is_final: bool) {
    let own = Arc::downgrade(task);
    let mut state = task.kernel.futexes.pi.state.lock();
    if is_final {
        task.has_left_futexes.store(true, Ordering::SeqCst);
        state.forget(&own);
    }
    let is_own = |(_, lock): &(&FutexKey, &Lock)| lock.owner.ptr_eq(&own);
    let keys: Vec<FutexKey> = state.locks.iter().filter(is_own).map(|(key, _)| *key).collect();
    let mut woken = Vec::new();
    for key in keys {
        let Some(next) = state.pop(&key) else { continue };
        if let Some(heir) = next.take_lock() {
            // The word as the heir sees it: the memory of the dead one may be gone.
            let word = next.tid | FUTEX_OWNER_DIED | FUTEX_WAITERS;
            let _ = write_word(&heir, next.addr, word);
            woken.push(heir);
        }
    }
    drop(state);
    for task in woken {
        run::wake(&task);
    }
}

/// Reads a word of the memory of `task`, whatever its thread has yet to do.
///
/// # Errors
/// `EFAULT`, `ESRCH`.
pub(super) fn peek<T: FromBytes + IntoBytes>(task: &Task, addr: UserAddr) -> SysResult<T> {
    let mut value = T::new_zeroed();
    let n = task.mm().address_space()?.read(addr, value.as_mut_bytes())?;
    if n == size_of::<T>() { Ok(value) } else { Err(Errno::EFAULT) }
}
