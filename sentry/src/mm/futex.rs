//! Futexes: queues of waiters, found by what identifies the word they wait for.
//!
//! The word itself lies in guest memory and is read once, under the lock of its bucket; whoever
//! changes it from the application calls wake afterwards, which takes the same lock.

pub(crate) mod pi;
pub(crate) mod vector;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use sentry_platform::AddressSpace;
use syscalls::abi::futex::{
    FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS, ROBUST_LIST_LIMIT, RobustListHead,
};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use super::FutexKey;
use crate::sync::Mutex;
use crate::task::block::Wait;
use crate::task::{Control, CurrentTask, HandlerResult, Restart, Task, run};

const N_BUCKETS: usize = 64;

type Bucket = HashMap<FutexKey, VecDeque<Arc<FutexWaiter>>>;

/// All futex queues of a sandbox.
pub struct FutexTable {
    hasher: RandomState,
    buckets: Vec<Mutex<Bucket>>,
    /// Serialises requeues, which hold two buckets.
    requeue: Mutex<()>,
    pi: pi::PiTable,
}

/// One waiting thread.
struct FutexWaiter {
    /// What it waits for; changes when it is requeued, under both buckets' locks.
    key: Mutex<FutexKey>,
    bitset: u32,
    is_woken: AtomicBool,
    task: Weak<Task>,
    /// Where it is counted as long as it is in a queue of private futexes.
    space: Arc<dyn AddressSpace>,
}

impl FutexWaiter {
    /// Counts it as waiting for `key`, or not any more.
    fn count(&self, key: &FutexKey, more: bool) -> SysResult<()> {
        match *key {
            FutexKey::Private { addr, .. } => self.space.count_futex_waiter(UserAddr(addr), more),
            _ => Ok(()),
        }
    }

    /// Counts it as no longer waiting for `key`: it has left the queue.
    fn uncount(&self, key: &FutexKey) {
        // Fails where it has not been counted.
        let _ = self.count(key, false);
    }
}

/// A thread's place in a queue, left when dropped.
struct Place {
    task: Arc<Task>,
    waiter: Arc<FutexWaiter>,
}

impl Default for FutexTable {
    fn default() -> Self {
        let buckets = (0..N_BUCKETS).map(|_| Mutex::new(Bucket::new())).collect();
        Self {
            hasher: RandomState::new(),
            buckets,
            requeue: Mutex::new(()),
            pi: pi::PiTable::default(),
        }
    }
}

impl FutexTable {
    fn index(&self, key: &FutexKey) -> usize {
        usize::try_from(self.hasher.hash_one(key) % N_BUCKETS as u64).unwrap_or(0)
    }

    fn bucket(&self, key: &FutexKey) -> &Mutex<Bucket> {
        // The index is below the number of buckets, which is never zero.
        self.buckets.get(self.index(key)).unwrap_or(&self.buckets[0])
    }

    fn wake(&self, key: &FutexKey, n: u32, bitset: u32) -> u32 {
        let mut woken = Vec::new();
        {
            let mut bucket = self.bucket(key).lock();
            let Some(queue) = bucket.get_mut(key) else { return 0 };
            let mut index = 0;
            while woken.len() < n as usize
                && let Some(waiter) = queue.get(index)
            {
                if waiter.bitset & bitset == 0 {
                    index += 1;
                    continue;
                }
                waiter.is_woken.store(true, Ordering::SeqCst);
                waiter.uncount(key);
                woken.extend(queue.remove(index));
            }
            if queue.is_empty() {
                bucket.remove(key);
            }
        }
        let n_woken = u32::try_from(woken.len()).unwrap_or(u32::MAX);
        for waiter in woken {
            if let Some(task) = waiter.task.upgrade() {
                run::wake(&task);
            }
        }
        n_woken
    }

    fn leave(&self, waiter: &Arc<FutexWaiter>) {
        loop {
            let key = *waiter.key.lock();
            let mut bucket = self.bucket(&key).lock();
            if *waiter.key.lock() != key {
                continue;
            }
            if let Some(queue) = bucket.get_mut(&key) {
                let before = queue.len();
                queue.retain(|other| !Arc::ptr_eq(other, waiter));
                if queue.len() != before {
                    waiter.uncount(&key);
                }
                if queue.is_empty() {
                    bucket.remove(&key);
                }
            }
            return;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.waiter.is_woken.load(Ordering::SeqCst) {
            self.task.kernel.futexes.leave(&self.waiter);
        }
    }
}

fn read_word(current: &CurrentTask, addr: UserAddr) -> SysResult<u32> {
    current.read_obj::<u32>(UserPtr::new(addr))
}

fn check_aligned(addr: UserAddr) -> SysResult<()> {
    if addr.0.is_multiple_of(4) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Waits while the word at `addr` holds `expected`; `restart` says what a signal does to the call.
///
/// # Errors
/// `EAGAIN` where it does not, `ETIMEDOUT`, `EFAULT`, `EINVAL`; a signal interrupts.
pub(crate) fn wait(
    current: &CurrentTask,
    addr: UserAddr,
    private: bool,
    expected: u32,
    bitset: u32,
    deadline_ns: Option<u64>,
    restart: Restart,
) -> HandlerResult<()> {
    let place = match current.recall::<Place>() {
        Some(place) => place,
        None => enqueue(current, addr, private, expected, bitset)?,
    };
    let waiter = place.waiter.clone();
    let waited = current.wait_for(
        deadline_ns,
        restart,
        |_| Vec::new(),
        || Ok(waiter.is_woken.load(Ordering::SeqCst).then_some(())),
    );
    if let Err(Control::Block) = waited {
        current.remember(place);
        return Err(Control::Block);
    }
    drop(place);
    if waiter.is_woken.load(Ordering::SeqCst) {
        return Ok(());
    }
    match waited {
        Ok(Wait::Ready(())) => Ok(()),
        Ok(Wait::TimedOut) => Err(Errno::ETIMEDOUT.into()),
        Err(control) => Err(control),
    }
}

fn enqueue(
    current: &CurrentTask,
    addr: UserAddr,
    private: bool,
    expected: u32,
    bitset: u32,
) -> SysResult<Place> {
    check_aligned(addr)?;
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let key = current.mm().futex_key(addr.0, private)?;
    let waiter = Arc::new(FutexWaiter {
        key: Mutex::new(key),
        bitset,
        is_woken: AtomicBool::new(false),
        task: Arc::downgrade(current.task()),
        space: current.mm().address_space()?,
    });
    // What came with the call is older than the count.
    current.context().sync_memory();
    waiter.count(&key, true)?;
    let mut bucket = current.kernel.futexes.bucket(&key).lock();
    let found = read_word(current, addr);
    if found != Ok(expected) {
        waiter.uncount(&key);
        return Err(found.err().unwrap_or(Errno::EAGAIN));
    }
    bucket.entry(key).or_default().push_back(waiter.clone());
    Ok(Place { task: current.task().clone(), waiter })
}

/// Wakes up to `n` waiters at `addr` whose bitset intersects `bitset`; returns how many.
///
/// # Errors
/// `EFAULT`, `EINVAL`.
pub(crate) fn wake(
    current: &CurrentTask,
    addr: UserAddr,
    private: bool,
    n: u32,
    bitset: u32,
) -> SysResult<u32> {
    check_aligned(addr)?;
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let key = current.mm().futex_key(addr.0, private)?;
    let n_woken = current.kernel.futexes.wake(&key, n, bitset);
    if n_woken == 0 && matches!(key, FutexKey::File { .. }) {
        // The file may have become shorter: nobody waits beyond its end.
        read_word(current, addr)?;
    }
    Ok(n_woken)
}

/// Wakes up to `n_wake` waiters at `addr` and moves up to `n_requeue` others to `to`. With
/// `expected`, only where the word at `addr` holds it. Returns how many were woken and moved.
///
/// # Errors
/// `EAGAIN`, `EFAULT`, `EINVAL`.
pub(crate) fn requeue(
    current: &CurrentTask,
    (addr, private): (UserAddr, bool),
    (to, to_private): (UserAddr, bool),
    n_wake: u32,
    n_requeue: u32,
    expected: Option<u32>,
) -> SysResult<(u32, u32)> {
    check_aligned(addr)?;
    check_aligned(to)?;
    let table = &current.kernel.futexes;
    let from_key = current.mm().futex_key(addr.0, private)?;
    let to_key = current.mm().futex_key(to.0, to_private)?;
    let _guard = table.requeue.lock();
    let mut moved = VecDeque::new();
    {
        let mut bucket = table.bucket(&from_key).lock();
        if let Some(expected) = expected
            && read_word(current, addr)? != expected
        {
            return Err(Errno::EAGAIN);
        }
        if from_key != to_key
            && let Some(queue) = bucket.get_mut(&from_key)
        {
            let n = (n_requeue as usize).min(queue.len().saturating_sub(n_wake as usize));
            let keep = (n_wake as usize).min(queue.len());
            for _ in 0..n {
                // One that cannot be counted there stays here.
                if queue.get(keep).is_none_or(|waiter| waiter.count(&to_key, true).is_err()) {
                    break;
                }
                if let Some(waiter) = queue.remove(keep) {
                    waiter.uncount(&from_key);
                    *waiter.key.lock() = to_key;
                    moved.push_back(waiter);
                }
            }
        }
        // A waiter on its way from one bucket to the other may be leaving: it then finds its new
        // key, and the bucket lock below decides.
    }
    let n_moved = u32::try_from(moved.len()).unwrap_or(u32::MAX);
    if !moved.is_empty() {
        let mut bucket = table.bucket(&to_key).lock();
        bucket.entry(to_key).or_default().extend(moved);
    }
    let n_woken = table.wake(&from_key, n_wake, u32::MAX);
    Ok((n_woken, n_moved))
}

/// Wakes up to `n` waiters at an address that the kernel itself has changed.
pub(crate) fn wake_address(current: &CurrentTask, addr: UserAddr, n: u32) {
    for private in [true, false] {
        // A word that is not there has no waiters.
        let _ = wake(current, addr, private, n, u32::MAX);
    }
}

/// Marks the robust futexes that an exiting thread holds as owned by a dead thread, and wakes one
/// waiter of each (`Documentation/locking/robust-futexes.rst`). The list is the guest's: every
/// entry is an allegation, and the walk is bounded.
pub(crate) fn exit_robust_list(current: &CurrentTask) {
    let head_addr = current.robust_list.swap(0, Ordering::Relaxed);
    if head_addr == 0 {
        return;
    }
    // The words may be shared with other processes, who look at once.
    current.context().sync_memory();
    let head_ptr = UserPtr::<RobustListHead>::new(UserAddr(head_addr));
    let Ok(head) = current.read_obj(head_ptr) else { return };
    let word = |entry: u64| (entry & !PI).wrapping_add_signed(head.futex_offset);
    let mut entry = head.list;
    let pending = head.list_op_pending;
    for _ in 0..ROBUST_LIST_LIMIT {
        if entry & !PI == head_addr || entry & !PI == 0 {
            break;
        }
        let Ok(next) = pi::peek::<u64>(current, UserAddr(entry & !PI)) else { break };
        if entry & !PI != pending & !PI {
            abandon(current, word(entry), entry & PI != 0, false);
        }
        entry = next;
    }
    if pending & !PI != 0 {
        abandon(current, word(pending), pending & PI != 0, true);
    }
}

/// Set in the address of a robust list's entry that is a PI futex.
const PI: u64 = 1;

/// Marks one futex, as `handle_futex_death()` of Linux.
fn abandon(current: &CurrentTask, addr: u64, is_pi: bool, is_pending: bool) {
    let addr = UserAddr(addr);
    if check_aligned(addr).is_err() {
        return;
    }
    let Ok(word) = pi::peek::<u32>(current, addr) else { return };
    if is_pending && !is_pi && word == 0 {
        // Released, but perhaps before the wake-up.
        wake_address(current, addr, 1);
        return;
    }
    if word & FUTEX_TID_MASK != current.tid_in(&current.pid_namespace()) {
        return;
    }
    // A waiter that sets FUTEX_WAITERS at this very moment finds another value when it comes to
    // wait, so the bit may be lost but never the wake-up.
    let dead = (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
    // Now: the thread does not go on, so nothing can be left for its way back. A PI futex with
    // waiters is handed on afterwards.
    if pi::write_word(current, addr, dead).is_ok() && !is_pi {
        wake_address(current, addr, 1);
    }
}
