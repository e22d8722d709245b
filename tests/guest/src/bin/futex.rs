//! Threads and futexes: wait, wake, bitsets, requeue, priority inheritance, robust lists, TLS, `arch_prctl(2)`.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use guest_tests::mem::{Map, PAGE, zeroed};
use guest_tests::proc::{End, child, sleep, tid, until, until_asleep, wait};
use guest_tests::{Outcome, check, eq, fails, ok, proc, sig, sys};
use libc::{
    FUTEX_CMP_REQUEUE, FUTEX_LOCK_PI, FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE, FUTEX_TRYLOCK_PI,
    FUTEX_UNLOCK_PI, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP,
};

const WAIT: i32 = FUTEX_WAIT | FUTEX_PRIVATE_FLAG;
const WAKE: i32 = FUTEX_WAKE | FUTEX_PRIVATE_FLAG;

fn wait_on(word: &AtomicU32, value: u32, op: i32) -> Result<usize, i32> {
    sys!(SYS_futex, word, op, value, 0)
}

fn wait_checks_value() -> Outcome {
    let word = AtomicU32::new(1);
    fails!(wait_on(&word, 2, WAIT), EAGAIN);
    fails!(wait_on(&word, 2, FUTEX_WAIT), EAGAIN);
    Ok(())
}

fn wait_times_out() -> Outcome {
    let word = AtomicU32::new(1);
    let time = libc::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let started = Instant::now();
    fails!(sys!(SYS_futex, &word, WAIT, 1, &time), ETIMEDOUT);
    check!(started.elapsed() >= Duration::from_millis(20));
    let bad = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000_000 };
    fails!(sys!(SYS_futex, &word, WAIT, 1, &bad), EINVAL);
    Ok(())
}

fn absolute_timeouts() -> Outcome {
    let word = AtomicU32::new(1);
    let past = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    fails!(
        sys!(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 1, &past, 0, u32::MAX),
        ETIMEDOUT
    );
    fails!(
        sys!(SYS_futex, &word, FUTEX_WAIT_BITSET | libc::FUTEX_CLOCK_REALTIME, 1, &past, 0, 1),
        ETIMEDOUT
    );
    fails!(sys!(SYS_futex, &word, FUTEX_WAIT_BITSET, 1, 0, 0, 0), EINVAL);
    Ok(())
}

fn bad_arguments() -> Outcome {
    let word = AtomicU32::new(1);
    fails!(sys!(SYS_futex, 0x1000, WAIT, 1, 0), EFAULT);
    fails!(sys!(SYS_futex, core::ptr::from_ref(&word) as usize + 1, WAIT, 1, 0), EINVAL);
    fails!(sys!(SYS_futex, &word, 99, 1, 0), ENOSYS);
    eq!(ok!(sys!(SYS_futex, &word, WAKE, 1)), 0);
    Ok(())
}

/// Starts `n` threads that wait on a word; returns when all sleep.
fn waiters(
    word: &'static AtomicU32,
    n: usize,
    op: i32,
    bits: u32,
) -> Vec<std::thread::JoinHandle<bool>> {
    let mut threads = Vec::new();
    for _ in 0..n {
        let (sender, receiver) = mpsc::channel();
        threads.push(std::thread::spawn(move || {
            let _ = sender.send(tid());
            sys!(SYS_futex, word, op, 0, 0, 0, bits) == Ok(0)
        }));
        until_asleep(receiver.recv().unwrap_or_default());
        // Asleep may mean in the start of the thread: a little more for the last call.
        sleep(Duration::from_millis(5));
    }
    threads
}

fn join_all(threads: Vec<std::thread::JoinHandle<bool>>) -> bool {
    threads.into_iter().all(|thread| thread.join().unwrap_or(false))
}

fn leak() -> &'static AtomicU32 {
    Box::leak(Box::new(AtomicU32::new(0)))
}

fn wake_counts() -> Outcome {
    let word = leak();
    let threads = waiters(word, 3, WAIT, 0);
    eq!(ok!(sys!(SYS_futex, word, WAKE, 2)), 2);
    eq!(ok!(sys!(SYS_futex, word, WAKE, 10)), 1);
    eq!(ok!(sys!(SYS_futex, word, WAKE, 10)), 0);
    check!(join_all(threads));
    Ok(())
}

fn bitsets_select() -> Outcome {
    let word = leak();
    let a = waiters(word, 1, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 1);
    let b = waiters(word, 1, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 2);
    let wake =
        |bits: u32| sys!(SYS_futex, word, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, 10, 0, 0, bits);
    eq!(ok!(wake(4)), 0);
    eq!(ok!(wake(2)), 1);
    check!(join_all(b));
    eq!(ok!(wake(1)), 1);
    check!(join_all(a));
    Ok(())
}

fn requeue_moves_waiters() -> Outcome {
    let (word, other) = (leak(), leak());
    let threads = waiters(word, 3, WAIT, 0);
    fails!(sys!(SYS_futex, word, FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 1, 10, other, 7), EAGAIN);
    let moved = ok!(sys!(SYS_futex, word, FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 1, 10, other, 0));
    // One woken and two moved; a kernel may wake the others instead of moving them.
    eq!(moved, 3);
    let _ = ok!(sys!(SYS_futex, other, WAKE, 10));
    check!(join_all(threads));
    let _ = FUTEX_REQUEUE;
    Ok(())
}

fn wake_op_operates() -> Outcome {
    let (word, other) = (leak(), leak());
    other.store(5, SeqCst);
    let threads = waiters(word, 1, WAIT, 0);
    // other += 3; wake the second if the old value was 5.
    let op = (1 << 28) | (3 << 12) | 5;
    eq!(ok!(sys!(SYS_futex, word, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1, 1, other, op)), 1);
    eq!(other.load(SeqCst), 8);
    check!(join_all(threads));
    Ok(())
}

fn shared_between_processes() -> Outcome {
    let map = ok!(Map::anonymous(PAGE, libc::MAP_SHARED));
    let pid = ok!(child(|| match sys!(SYS_futex, map.addr, FUTEX_WAIT, 0, 0) {
        Ok(_) | Err(libc::EAGAIN) => 0,
        Err(errno) => errno,
    }));
    check!(until_asleep(pid));
    eq!(ok!(sys!(SYS_futex, map.addr, FUTEX_WAKE, 1)), 1);
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn shared_through_a_file() -> Outcome {
    ok!(guest_tests::fs::put(c"f", &[0; 4096]));
    let fd = ok!(guest_tests::fs::open(c"f", libc::O_RDWR));
    let map = || Map::new(0, PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0);
    let mine = ok!(map());
    let pid = ok!(child(|| {
        let Ok(other) = map() else { return 1 };
        sys!(SYS_futex, other.addr + 8, FUTEX_WAIT, 0, 0).map_or_else(|errno| errno, |_| 0)
    }));
    check!(until_asleep(pid));
    sleep(Duration::from_millis(5));
    eq!(ok!(sys!(SYS_futex, mine.addr + 8, FUTEX_WAKE, 1)), 1);
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn private_does_not_cross_processes() -> Outcome {
    let map = ok!(Map::anonymous(PAGE, libc::MAP_PRIVATE));
    let pid =
        ok!(child(|| { sys!(SYS_futex, map.addr, WAIT, 0, 0).map_or_else(|errno| errno, |_| 0) }));
    check!(until_asleep(pid));
    eq!(ok!(sys!(SYS_futex, map.addr, WAKE, 10)), 0);
    eq!(proc::state(pid), Some('S'));
    ok!(sys!(SYS_kill, pid, libc::SIGKILL));
    eq!(ok!(wait(pid)), End::Signal(libc::SIGKILL));
    Ok(())
}

fn wait_is_interrupted_by_signal() -> Outcome {
    let pid = ok!(child(|| {
        let word = AtomicU32::new(0);
        let _ = sig::handle(libc::SIGUSR1, sig::record, 0);
        wait_on(&word, 0, WAIT).map_or_else(|errno| errno, |_| 0)
    }));
    check!(until_asleep(pid));
    ok!(sys!(SYS_kill, pid, libc::SIGUSR1));
    eq!(ok!(wait(pid)), End::Code(libc::EINTR));
    let pid = ok!(child(|| {
        let word = AtomicU32::new(0);
        let _ = sig::handle(libc::SIGUSR1, sig::record, libc::SA_RESTART);
        let _ = std::thread::scope(|scope| {
            scope.spawn(|| {
                until(|| sig::count() == 1);
                sleep(Duration::from_millis(10));
                word.store(1, SeqCst);
                sys!(SYS_futex, &word, WAKE, 1)
            });
            wait_on(&word, 0, WAIT)
        });
        i32::from(sig::count() != 1)
    }));
    check!(until_asleep(pid));
    ok!(sys!(SYS_kill, pid, libc::SIGUSR1));
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn kill_ends_waiters() -> Outcome {
    let pid = ok!(child(|| {
        let word = AtomicU32::new(0);
        let _ = wait_on(&word, 0, WAIT);
        1
    }));
    check!(until_asleep(pid));
    ok!(sys!(SYS_kill, pid, libc::SIGKILL));
    eq!(ok!(wait(pid)), End::Signal(libc::SIGKILL));
    Ok(())
}

fn priority_inheritance() -> Outcome {
    let word = AtomicU32::new(0);
    let lock = |op: i32| sys!(SYS_futex, &word, op | FUTEX_PRIVATE_FLAG, 0, 0);
    ok!(lock(FUTEX_LOCK_PI));
    eq!(word.load(SeqCst) & 0x3fff_ffff, tid() as u32);
    fails!(lock(FUTEX_LOCK_PI), EDEADLK);
    let tried = std::thread::scope(|scope| {
        scope.spawn(|| sys!(SYS_futex, &word, FUTEX_TRYLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0)).join()
    });
    fails!(tried.unwrap_or(Ok(0)), EAGAIN);
    let locked = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let got = sys!(SYS_futex, &word, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0);
            let owner = word.load(SeqCst) & 0x3fff_ffff == tid() as u32;
            let _ = sys!(SYS_futex, &word, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0);
            got.is_ok() && owner
        });
        until(|| word.load(SeqCst) & 0x8000_0000 != 0);
        let _ = sys!(SYS_futex, &word, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0);
        waiter.join()
    });
    check!(locked.unwrap_or(false));
    fails!(lock(FUTEX_UNLOCK_PI), EPERM);
    Ok(())
}

/// The owner that a word names.
fn owner(word: &AtomicU32) -> i32 {
    (word.load(SeqCst) & 0x3fff_ffff) as i32
}

fn priority_inheritance_errors() -> Outcome {
    let word = AtomicU32::new(0);
    let lock = |op: i32| sys!(SYS_futex, &word, op, 0, 0);
    fails!(lock(FUTEX_LOCK_PI | libc::FUTEX_CLOCK_REALTIME), ENOSYS);
    fails!(lock(FUTEX_UNLOCK_PI), EPERM);
    word.store(0x3fff_fff0, SeqCst);
    fails!(lock(FUTEX_LOCK_PI), ESRCH);
    word.store(0x4000_0000, SeqCst);
    ok!(lock(FUTEX_TRYLOCK_PI));
    eq!(word.load(SeqCst), 0x4000_0000 | tid() as u32);
    ok!(lock(FUTEX_UNLOCK_PI));
    eq!(word.load(SeqCst), 0);
    word.store(0xc000_0000, SeqCst);
    ok!(lock(FUTEX_LOCK_PI));
    eq!(word.load(SeqCst), 0x4000_0000 | tid() as u32);
    let unaligned = core::ptr::from_ref(&word) as usize + 1;
    fails!(sys!(SYS_futex, unaligned, FUTEX_LOCK_PI, 0, 0), EINVAL);
    let (from, to) = (AtomicU32::new(0), AtomicU32::new(0));
    let requeue = |n: usize, to: &AtomicU32, expected: u32| {
        sys!(SYS_futex, &from, libc::FUTEX_CMP_REQUEUE_PI, n, 1, to, expected)
    };
    fails!(requeue(1, &from, 0), EINVAL);
    fails!(requeue(2, &to, 0), EINVAL);
    fails!(requeue(1, &to, 9), EAGAIN);
    eq!(ok!(requeue(1, &to, 0)), 0);
    let past = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    let wait = |expected: u32, to: &AtomicU32| {
        sys!(SYS_futex, &from, libc::FUTEX_WAIT_REQUEUE_PI, expected, &past, to, 0)
    };
    fails!(wait(0, &to), ETIMEDOUT);
    fails!(wait(1, &to), EAGAIN);
    fails!(wait(0, &from), EINVAL);
    Ok(())
}

fn priority_inheritance_time_outs() -> Outcome {
    let word = leak();
    let past = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    ok!(sys!(SYS_futex, word, FUTEX_LOCK_PI, 0, 0));
    let others = std::thread::spawn(move || {
        [
            sys!(SYS_futex, word, FUTEX_LOCK_PI, 0, &past),
            sys!(SYS_futex, word, libc::FUTEX_LOCK_PI2, 0, &past),
            sys!(SYS_futex, word, libc::FUTEX_LOCK_PI2 | libc::FUTEX_CLOCK_REALTIME, 0, &past),
        ]
    });
    for result in ok!(others.join().map_err(|_| "panic")) {
        fails!(result, ETIMEDOUT);
    }
    ok!(sys!(SYS_futex, word, FUTEX_UNLOCK_PI));
    eq!(word.load(SeqCst), 0);
    Ok(())
}

fn dead_owners_pass_their_lock_on() -> Outcome {
    let map = ok!(Map::anonymous(PAGE, libc::MAP_SHARED));
    let (word, other) = (map.word(0), map.word(1));
    let pid = ok!(child(|| {
        if sys!(SYS_futex, word, FUTEX_LOCK_PI, 0, 0).is_err() {
            return 1;
        }
        other.store(1, SeqCst);
        i32::from(!until(|| word.load(SeqCst) & 0x8000_0000 != 0))
    }));
    check!(until(|| other.load(SeqCst) == 1));
    ok!(sys!(SYS_futex, word, FUTEX_LOCK_PI, 0, 0));
    eq!(owner(word), tid());
    check!(word.load(SeqCst) & 0x4000_0000 != 0, "{:x}", word.load(SeqCst));
    eq!(ok!(wait(pid)), End::Code(0));
    ok!(sys!(SYS_futex, word, FUTEX_UNLOCK_PI));
    eq!(word.load(SeqCst), 0);
    Ok(())
}

fn a_circle_of_owners_is_a_deadlock() -> Outcome {
    let (first, second) = (leak(), leak());
    ok!(sys!(SYS_futex, first, FUTEX_LOCK_PI, 0, 0));
    let other = std::thread::spawn(move || {
        sys!(SYS_futex, second, FUTEX_LOCK_PI, 0, 0)?;
        let locked = sys!(SYS_futex, first, FUTEX_LOCK_PI, 0, 0);
        sys!(SYS_futex, second, FUTEX_UNLOCK_PI)?;
        locked?;
        sys!(SYS_futex, first, FUTEX_UNLOCK_PI)
    });
    check!(until(|| owner(second) != 0 && first.load(SeqCst) & 0x8000_0000 != 0));
    check!(until_asleep(owner(second)));
    fails!(sys!(SYS_futex, second, FUTEX_LOCK_PI, 0, 0), EDEADLK);
    ok!(sys!(SYS_futex, first, FUTEX_UNLOCK_PI));
    ok!(other.join().unwrap_or(Err(0)));
    eq!(first.load(SeqCst), 0);
    Ok(())
}

fn many_threads_take_turns_at_a_pi_lock() -> Outcome {
    let (word, sum) = (leak(), leak());
    let work = move || {
        for _ in 0..200 {
            let own = tid() as u32;
            if word.compare_exchange(0, own, SeqCst, SeqCst).is_err() {
                sys!(SYS_futex, word, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0)?;
            }
            // Not atomic: the lock is what makes it one.
            sum.store(sum.load(SeqCst) + 1, SeqCst);
            if word.compare_exchange(own, 0, SeqCst, SeqCst).is_err() {
                sys!(SYS_futex, word, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG)?;
            }
        }
        Ok::<(), i32>(())
    };
    let threads: Vec<_> = (0..6).map(|_| std::thread::spawn(work)).collect();
    for thread in threads {
        ok!(thread.join().unwrap_or(Err(0)));
    }
    eq!(sum.load(SeqCst), 1200);
    eq!(word.load(SeqCst), 0);
    Ok(())
}

fn requeue_to_a_pi_lock() -> Outcome {
    for is_free in [true, false] {
        let (condition, word) = (leak(), leak());
        if !is_free {
            ok!(sys!(SYS_futex, word, FUTEX_LOCK_PI, 0, 0));
        }
        let (sender, receiver) = mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let _ = sender.send(tid());
            sys!(SYS_futex, condition, libc::FUTEX_WAIT_REQUEUE_PI, 0, 0, word, 0)?;
            let is_owner = owner(word) == tid();
            sys!(SYS_futex, word, FUTEX_UNLOCK_PI)?;
            Ok::<bool, i32>(is_owner)
        });
        check!(until_asleep(receiver.recv().unwrap_or_default()));
        let requeue = || sys!(SYS_futex, condition, libc::FUTEX_CMP_REQUEUE_PI, 1, 7, word, 0);
        eq!(ok!(requeue()), 1);
        eq!(ok!(requeue()), 0);
        if !is_free {
            eq!(owner(word), tid());
            ok!(sys!(SYS_futex, word, FUTEX_UNLOCK_PI));
        }
        check!(ok!(waiter.join().unwrap_or(Err(0))));
        eq!(word.load(SeqCst), 0);
    }
    Ok(())
}

fn waitv_is_woken_by_any() -> Outcome {
    let words = [leak(), leak(), leak()];
    let (sender, receiver) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let entries = words.map(|word| [0u64, core::ptr::from_ref(word) as u64, 2 | 0x80]);
        let _ = sender.send(tid());
        sys!(SYS_futex_waitv, &entries, 3, 0, 0, 0)
    });
    check!(until_asleep(receiver.recv().unwrap_or_default()));
    eq!(ok!(sys!(SYS_futex, words[1], WAKE, 9)), 1);
    eq!(waiter.join().unwrap_or(Err(0)), Ok(1));
    eq!(ok!(sys!(SYS_futex, words[2], WAKE, 9)), 0);
    let none = 0usize;
    fails!(sys!(SYS_futex_waitv, none, 1, 0, 0, 0), EINVAL);
    fails!(sys!(SYS_futex_waitv, 8, 0, 0, 0, 0), EINVAL);
    fails!(sys!(SYS_futex_waitv, 8, 1, 0, 0, 0), EFAULT);
    fails!(sys!(SYS_futex_waitv, 8, 1, 1, 0, 0), EINVAL);
    fails!(sys!(SYS_futex_waitv, 8, 129, 0, 0, 0), EINVAL);
    Ok(())
}

#[repr(C)]
struct RobustHead {
    list: usize,
    offset: isize,
    pending: usize,
}

fn robust_list_marks_dead_owner() -> Outcome {
    let map = ok!(Map::anonymous(PAGE, libc::MAP_SHARED));
    // An entry at the page's start, its lock word 16 bytes after it.
    let pid = ok!(child(|| {
        // Leaked: the kernel reads it when the process has ended.
        let head = Box::leak(Box::new(RobustHead { list: map.addr, offset: 16, pending: 0 }));
        let at = core::ptr::from_ref(head) as usize;
        // SAFETY: inside the mapping.
        unsafe { *(map.addr as *mut usize) = at };
        map.word(4).store(tid() as u32 | 0x8000_0000, SeqCst);
        i32::from(sys!(SYS_set_robust_list, at, 24).is_err())
    }));
    eq!(ok!(wait(pid)), End::Code(0));
    eq!(map.word(4).load(SeqCst) & 0xc000_0000, 0xc000_0000);
    fails!(sys!(SYS_set_robust_list, 0, 23), EINVAL);
    let (mut head, mut len) = (1usize, 0usize);
    ok!(sys!(SYS_get_robust_list, 0, &mut head, &mut len));
    eq!(len, 24);
    Ok(())
}

fn clear_child_tid_wakes() -> Outcome {
    // The C library joins by it: a hundred times.
    for i in 0..100u32 {
        let thread = std::thread::spawn(move || i);
        eq!(thread.join().unwrap_or(u32::MAX), i);
    }
    Ok(())
}

fn mutex_under_contention() -> Outcome {
    let sum = Arc::new(Mutex::new(0u64));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let sum = Arc::clone(&sum);
            std::thread::spawn(move || {
                for _ in 0..2000 {
                    *sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += 1;
                }
            })
        })
        .collect();
    for thread in threads {
        check!(thread.join().is_ok());
    }
    eq!(*sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner), 16_000);
    Ok(())
}

fn condition_ping_pong() -> Outcome {
    let pair = Arc::new((Mutex::new(0u32), Condvar::new()));
    let other = Arc::clone(&pair);
    let play = |pair: &(Mutex<u32>, Condvar), parity: u32| {
        let mut turn = pair.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while *turn < 2000 {
            if *turn % 2 == parity {
                *turn += 1;
                pair.1.notify_one();
            } else {
                turn = pair.1.wait(turn).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        }
        pair.1.notify_one();
    };
    let thread = std::thread::spawn(move || play(&other, 1));
    play(&pair, 0);
    check!(thread.join().is_ok());
    Ok(())
}

fn barrier_of_threads() -> Outcome {
    let barrier = Arc::new(Barrier::new(16));
    let leaders = Arc::new(AtomicU32::new(0));
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let (barrier, leaders) = (Arc::clone(&barrier), Arc::clone(&leaders));
            std::thread::spawn(move || {
                for _ in 0..20 {
                    if barrier.wait().is_leader() {
                        leaders.fetch_add(1, SeqCst);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        check!(thread.join().is_ok());
    }
    eq!(leaders.load(SeqCst), 20);
    Ok(())
}

fn a_thousand_threads() -> Outcome {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let started = Arc::new(AtomicU32::new(0));
    let mut threads = Vec::new();
    for _ in 0..1000 {
        let (gate, started) = (Arc::clone(&gate), Arc::clone(&started));
        let builder = std::thread::Builder::new().stack_size(64 * 1024);
        threads.push(ok!(builder.spawn(move || {
            started.fetch_add(1, SeqCst);
            let mut open = gate.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            while !*open {
                open = gate.1.wait(open).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        })));
    }
    check!(until(|| started.load(SeqCst) == 1000));
    eq!(ok!(std::fs::read_dir("/proc/self/task")).count(), 1001);
    *gate.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
    gate.1.notify_all();
    for thread in threads {
        check!(thread.join().is_ok());
    }
    check!(until(|| std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)));
    Ok(())
}

fn thread_local_storage() -> Outcome {
    thread_local!(static LOCAL: core::cell::Cell<u64> = const { core::cell::Cell::new(7) });
    LOCAL.set(1);
    let threads: Vec<_> = (0..8u64)
        .map(|i| {
            std::thread::spawn(move || {
                let fresh = LOCAL.get() == 7;
                LOCAL.set(i);
                for _ in 0..100 {
                    let _ = sys!(SYS_sched_yield);
                }
                fresh && LOCAL.get() == i
            })
        })
        .collect();
    for thread in threads {
        check!(thread.join().unwrap_or(false));
    }
    eq!(LOCAL.get(), 1);
    Ok(())
}

fn segment_bases() -> Outcome {
    let mut base = 0usize;
    ok!(sys!(SYS_arch_prctl, 0x1003, &mut base));
    check!(base != 0);
    let block = Box::leak(Box::new([0x5555_6666u64; 4]));
    ok!(sys!(SYS_arch_prctl, 0x1001, core::ptr::from_mut(block)));
    ok!(sys!(SYS_arch_prctl, 0x1004, &mut base));
    eq!(base, core::ptr::from_ref(block) as usize);
    let seen: u64;
    // SAFETY: GS points to the block.
    unsafe { core::arch::asm!("mov {}, gs:[8]", out(reg) seen) };
    eq!(seen, 0x5555_6666);
    // Calls and signals keep it.
    for _ in 0..20 {
        eq!(ok!(sys!(SYS_getppid)) > 0, true);
    }
    ok!(sig::handle(libc::SIGUSR1, sig::record, 0));
    ok!(sig::raise(libc::SIGUSR1));
    let seen: u64;
    // SAFETY: as above.
    unsafe { core::arch::asm!("mov {}, gs:[16]", out(reg) seen) };
    eq!(seen, 0x5555_6666);
    fails!(sys!(SYS_arch_prctl, 0x1001, 0xffff_8000_0000_0000usize), EPERM);
    fails!(sys!(SYS_arch_prctl, 0x9999, 0), EINVAL);
    Ok(())
}

fn segment_base_is_per_thread() -> Outcome {
    let block = Box::leak(Box::new([1u64; 4]));
    ok!(sys!(SYS_arch_prctl, 0x1001, core::ptr::from_mut(block)));
    let other = std::thread::spawn(|| {
        let block = Box::leak(Box::new([2u64; 4]));
        let _ = sys!(SYS_arch_prctl, 0x1001, core::ptr::from_mut(block));
        let mut seen = 0u64;
        for _ in 0..50 {
            let _ = sys!(SYS_sched_yield);
            // SAFETY: GS points to the block.
            unsafe { core::arch::asm!("mov {}, gs:[0]", out(reg) seen) };
        }
        seen
    });
    let mut seen = 0u64;
    for _ in 0..50 {
        let _ = sys!(SYS_sched_yield);
        // SAFETY: as above.
        unsafe { core::arch::asm!("mov {}, gs:[0]", out(reg) seen) };
    }
    eq!(seen, 1);
    eq!(other.join().unwrap_or_default(), 2);
    Ok(())
}

fn thread_names() -> Outcome {
    let (sender, receiver) = mpsc::channel();
    let (done, wait_done) = mpsc::channel::<()>();
    let builder = std::thread::Builder::new().name("worker-thread".into());
    let thread = ok!(builder.spawn(move || {
        let _ = sender.send(tid());
        let _ = wait_done.recv();
    }));
    let id = receiver.recv().unwrap_or_default();
    let name = ok!(std::fs::read_to_string(format!("/proc/self/task/{id}/comm")));
    eq!(name, "worker-thread\n");
    drop(done);
    check!(thread.join().is_ok());
    Ok(())
}

fn waitv_waits_on_many() -> Outcome {
    let words = [leak(), leak()];
    let mut entries = [[0u64; 3]; 2];
    for (entry, word) in entries.iter_mut().zip(words) {
        *entry = [0, core::ptr::from_ref(word) as u64, 2 | 0x80];
    }
    let time = zeroed::<libc::timespec>();
    fails!(sys!(SYS_futex_waitv, &entries, 2, 0, &time, libc::CLOCK_MONOTONIC), ETIMEDOUT);
    words[1].store(9, SeqCst);
    fails!(sys!(SYS_futex_waitv, &entries, 2, 0, 0, 0), EAGAIN);
    Ok(())
}

/// What the C library has no numbers for.
#[expect(non_upper_case_globals, reason = "the kernel's names")]
mod numbers {
    pub(super) const SYS_futex_wake: i64 = 454;
    pub(super) const SYS_futex_wait: i64 = 455;
    pub(super) const SYS_futex_requeue: i64 = 456;
}

macro_rules! futex2 {
    ($nr:ident $(, $arg:expr)*) => {
        guest_tests::raw(numbers::$nr, guest_tests::arg::pack(&[$(guest_tests::arg::Arg::arg($arg)),*]))
    };
}

fn futex2_calls_wait_wake_and_requeue() -> Outcome {
    const PRIVATE_U32: u32 = 2 | 0x80;
    const ANY: u32 = u32::MAX;
    let clock = libc::CLOCK_MONOTONIC;
    let words = [leak(), leak()];
    let past = zeroed::<libc::timespec>();
    fails!(futex2!(SYS_futex_wait, words[0], 1, ANY, PRIVATE_U32, 0, clock), EAGAIN);
    fails!(futex2!(SYS_futex_wait, words[0], 0, ANY, PRIVATE_U32, &past, clock), ETIMEDOUT);
    fails!(futex2!(SYS_futex_wait, words[0], 0, 0, PRIVATE_U32, 0, clock), EINVAL);
    fails!(futex2!(SYS_futex_wait, words[0], 0, ANY, 0x4000, 0, clock), EINVAL);
    fails!(futex2!(SYS_futex_wake, words[0], 0, 1, PRIVATE_U32), EINVAL);
    eq!(ok!(futex2!(SYS_futex_wake, words[0], ANY, 1, PRIVATE_U32)), 0);
    let (sender, receiver) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let _ = sender.send(tid());
        futex2!(SYS_futex_wait, words[0], 0, ANY, PRIVATE_U32, 0, clock)
    });
    check!(until_asleep(receiver.recv().unwrap_or_default()));
    let entries = words.map(|word| [0u64, core::ptr::from_ref(word) as u64, PRIVATE_U32.into()]);
    eq!(ok!(futex2!(SYS_futex_requeue, &entries, 0, 0, 1)), 1);
    eq!(ok!(futex2!(SYS_futex_wake, words[0], ANY, 1, PRIVATE_U32)), 0);
    eq!(ok!(futex2!(SYS_futex_wake, words[1], ANY, 1, PRIVATE_U32)), 1);
    eq!(waiter.join().unwrap_or(Err(-1)), Ok(0));
    Ok(())
}

fn tid_differs_from_pid_in_threads() -> Outcome {
    let ids = std::thread::spawn(|| (proc::pid(), tid()));
    let (pid, thread) = ids.join().unwrap_or_default();
    eq!(pid, proc::pid());
    check!(thread != pid && thread > 0);
    Ok(())
}

/// What a thread has registered is not touched any more when others learn that it has ended.
fn rseq_area_is_free_after_join() -> Outcome {
    for _ in 0..500 {
        let area = ok!(Map::anonymous(PAGE, libc::MAP_PRIVATE));
        let address = area.addr;
        let thread =
            std::thread::spawn(move || sys!(SYS_rseq, address, 32, 0, 0x5305_3053).is_ok());
        check!(thread.join().is_ok_and(|registered| registered));
        drop(area);
    }
    Ok(())
}

fn shared_wakes_look_at_the_memory() -> Outcome {
    let map = ok!(Map::anonymous(2 * PAGE, libc::MAP_PRIVATE));
    let (first, second) = (map.addr, map.addr + PAGE);
    ok!(sys!(SYS_mprotect, first, PAGE, libc::PROT_NONE));
    fails!(sys!(SYS_futex, first, FUTEX_WAKE, 1), EFAULT);
    eq!(ok!(sys!(SYS_futex, first, WAKE, 1)), 0);
    eq!(ok!(sys!(SYS_futex, second, FUTEX_WAKE, 1)), 0);
    fails!(sys!(SYS_futex, second, FUTEX_CMP_REQUEUE, 1, 1, first, 0), EFAULT);
    let file = ok!(guest_tests::fs::open(c"f", libc::O_RDWR | libc::O_CREAT));
    ok!(sys!(SYS_ftruncate, file, PAGE));
    let map = ok!(Map::new(0, PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file, 0));
    eq!(ok!(sys!(SYS_futex, map.addr, FUTEX_WAKE, 1)), 0);
    ok!(sys!(SYS_ftruncate, file, 0));
    fails!(sys!(SYS_futex, map.addr, FUTEX_WAKE, 1), EFAULT);
    Ok(())
}

/// Two threads that wake each other in turn, most of the time at once, sometimes after the other one sleeps.
fn threads_take_turns() -> Outcome {
    const TURNS: u32 = 4000;
    let word = leak();
    let take = move |mine: u32, op: i32| {
        for turn in (mine..TURNS).step_by(2) {
            while word.load(SeqCst) != turn {
                let _ = sys!(SYS_futex, word, op, turn.wrapping_sub(1), 0, 0, u32::MAX);
            }
            if turn % 101 == 0 {
                sleep(Duration::from_micros(300));
            }
            word.store(turn + 1, SeqCst);
            let _ = sys!(SYS_futex, word, WAKE, 1);
        }
    };
    let other = std::thread::spawn(move || take(1, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG));
    take(0, WAIT);
    check!(other.join().is_ok());
    eq!(word.load(SeqCst), TURNS);
    Ok(())
}

guest_tests::cases!(
    threads_take_turns,
    shared_wakes_look_at_the_memory,
    wait_checks_value,
    wait_times_out,
    absolute_timeouts,
    bad_arguments,
    wake_counts,
    bitsets_select,
    requeue_moves_waiters,
    wake_op_operates,
    shared_between_processes,
    shared_through_a_file,
    private_does_not_cross_processes,
    wait_is_interrupted_by_signal,
    kill_ends_waiters,
    priority_inheritance,
    priority_inheritance_errors,
    priority_inheritance_time_outs,
    dead_owners_pass_their_lock_on,
    a_circle_of_owners_is_a_deadlock,
    many_threads_take_turns_at_a_pi_lock,
    requeue_to_a_pi_lock,
    robust_list_marks_dead_owner,
    clear_child_tid_wakes,
    rseq_area_is_free_after_join,
    mutex_under_contention,
    condition_ping_pong,
    barrier_of_threads,
    a_thousand_threads,
    thread_local_storage,
    segment_bases,
    segment_base_is_per_thread,
    thread_names,
    waitv_waits_on_many,
    waitv_is_woken_by_any,
    futex2_calls_wait_wake_and_requeue,
    tid_differs_from_pid_in_threads,
);
