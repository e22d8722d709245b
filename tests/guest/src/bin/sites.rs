//! System calls again and again from sites of their own, in the shape of the C library's wrappers: what a
//! kernel may answer without being entered must be what it answers otherwise.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use guest_tests::mem::{Map, PAGE};
use guest_tests::proc::{tid, until_asleep};
use guest_tests::{Outcome, check, eq, ok, sig, site, sys};
use libc::{
    FUTEX_CMP_REQUEUE, FUTEX_PRIVATE_FLAG, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE,
    FUTEX_WAKE_BITSET,
};

const WAIT: i32 = FUTEX_WAIT | FUTEX_PRIVATE_FLAG;
const WAKE: i32 = FUTEX_WAKE | FUTEX_PRIVATE_FLAG;
/// So often that a site is no longer a new one.
const OFTEN: usize = 20;

#[inline(never)]
fn futex(word: &AtomicU32, op: i32, value: u32, timeout: usize, bits: u32) -> Result<usize, i32> {
    site!(SYS_futex, word.as_ptr(), op, value, timeout, 0, bits)
}

fn leak() -> &'static AtomicU32 {
    Box::leak(Box::new(AtomicU32::new(0)))
}

fn nobody_is_woken() -> Outcome {
    let word = AtomicU32::new(7);
    for _ in 0..OFTEN {
        eq!(futex(&word, WAKE, 1, 0, 0), Ok(0));
        eq!(futex(&word, FUTEX_WAKE, 1, 0, 0), Ok(0));
        eq!(futex(&word, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, 1, 0, 5), Ok(0));
        eq!(futex(&word, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, 1, 0, 0), Err(libc::EINVAL));
        eq!(site!(SYS_futex, word.as_ptr() as usize + 1, WAKE, 1), Err(libc::EINVAL));
    }
    Ok(())
}

fn changed_words_are_not_waited_for() -> Outcome {
    let word = AtomicU32::new(7);
    let bad_time = [0i64, 1_000_000_000];
    let short = [0i64, 1000];
    let bitset = FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG;
    for _ in 0..OFTEN {
        eq!(futex(&word, WAIT, 6, 0, 0), Err(libc::EAGAIN));
        eq!(futex(&word, bitset, 6, 0, 1), Err(libc::EAGAIN));
        eq!(futex(&word, bitset, 6, 0, 0), Err(libc::EINVAL));
        eq!(futex(&word, WAIT, 6, bad_time.as_ptr() as usize, 0), Err(libc::EINVAL));
        eq!(futex(&word, WAIT, 6, 8, 0), Err(libc::EFAULT));
        eq!(futex(&word, WAIT, 6, short.as_ptr() as usize, 0), Err(libc::EAGAIN));
        eq!(futex(&word, WAIT, 7, short.as_ptr() as usize, 0), Err(libc::ETIMEDOUT));
        eq!(site!(SYS_futex, word.as_ptr() as usize + 2, WAIT, 6, 0), Err(libc::EINVAL));
    }
    let map = ok!(Map::anonymous(PAGE, libc::MAP_PRIVATE));
    ok!(sys!(SYS_mprotect, map.addr, PAGE, libc::PROT_NONE));
    for _ in 0..OFTEN {
        eq!(site!(SYS_futex, map.addr, WAIT, 6, 0), Err(libc::EFAULT));
        eq!(site!(SYS_futex, usize::MAX & !3, WAIT, 6, 0), Err(libc::EFAULT));
    }
    Ok(())
}

/// Threads that sleep until they are woken, each by a call from a site.
fn sleepers(word: &'static AtomicU32, n: usize) -> Vec<std::thread::JoinHandle<bool>> {
    (0..n)
        .map(|_| {
            let (sender, receiver) = mpsc::channel();
            let thread = std::thread::spawn(move || {
                let mut refused = 0;
                while refused < OFTEN && futex(word, WAIT, 9, 0, 0) == Err(libc::EAGAIN) {
                    refused += 1;
                }
                let _ = sender.send(tid());
                refused == OFTEN && futex(word, WAIT, 0, 0, 0) == Ok(0)
            });
            until_asleep(receiver.recv().unwrap_or_default());
            guest_tests::proc::sleep(Duration::from_millis(5));
            thread
        })
        .collect()
}

fn sleepers_are_counted() -> Outcome {
    let word = leak();
    for _ in 0..OFTEN {
        eq!(futex(word, WAKE, 1, 0, 0), Ok(0));
    }
    let threads = sleepers(word, 3);
    eq!(futex(word, WAKE, 2, 0, 0), Ok(2));
    eq!(futex(word, WAKE, 9, 0, 0), Ok(1));
    eq!(futex(word, WAKE, 9, 0, 0), Ok(0));
    for thread in threads {
        check!(thread.join().is_ok_and(|woken| woken));
    }
    Ok(())
}

fn moved_sleepers_are_found() -> Outcome {
    let (word, other) = (leak(), leak());
    for _ in 0..OFTEN {
        eq!(futex(other, WAKE, 1, 0, 0), Ok(0));
    }
    let threads = sleepers(word, 2);
    let requeue = FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG;
    eq!(sys!(SYS_futex, word, requeue, 0, 2, other, 0), Ok(2));
    eq!(futex(word, WAKE, 9, 0, 0), Ok(0));
    eq!(futex(other, WAKE, 9, 0, 0), Ok(2));
    for thread in threads {
        check!(thread.join().is_ok_and(|woken| woken));
    }
    Ok(())
}

fn who_gives_up_is_no_sleeper() -> Outcome {
    let word = leak();
    let short = [0i64, 1_000_000];
    for _ in 0..OFTEN {
        eq!(futex(word, WAIT, 0, short.as_ptr() as usize, 0), Err(libc::ETIMEDOUT));
        eq!(futex(word, WAKE, 9, 0, 0), Ok(0));
    }
    Ok(())
}

/// A lock with three states: free, taken, taken with others that may wait.
fn lock(word: &AtomicU32) {
    if word.compare_exchange(0, 1, SeqCst, SeqCst).is_err() {
        while word.swap(2, SeqCst) != 0 {
            let _ = futex(word, WAIT, 2, 0, 0);
        }
    }
}

fn unlock(word: &AtomicU32) {
    if word.swap(0, SeqCst) == 2 {
        let _ = futex(word, WAKE, 1, 0, 0);
    }
}

fn no_wake_up_is_lost() -> Outcome {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let word = leak();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..3000 {
                    lock(word);
                    let count = COUNT.load(SeqCst);
                    if count.is_multiple_of(16) {
                        let _ = site!(SYS_sched_yield);
                    }
                    COUNT.store(count + 1, SeqCst);
                    unlock(word);
                }
            })
        })
        .collect();
    for thread in threads {
        check!(thread.join().is_ok());
    }
    eq!(COUNT.load(SeqCst), 12_000);
    Ok(())
}

fn threads_wake_each_other() -> Outcome {
    let word = leak();
    let play = move |own: u32| {
        for _ in 0..3000 {
            while word.load(SeqCst) != own {
                let _ = futex(word, WAIT, 1 - own, 0, 0);
            }
            word.store(1 - own, SeqCst);
            let _ = futex(word, WAKE, 1, 0, 0);
        }
    };
    let thread = std::thread::spawn(move || play(1));
    play(0);
    check!(thread.join().is_ok());
    Ok(())
}

/// A thread that does nothing but such calls is interrupted all the same.
fn signals_reach_busy_callers() -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let (sender, receiver) = mpsc::channel();
    let _action = ok!(sig::plain(libc::SIGUSR1, libc::SIG_IGN));
    let _other = ok!(sig::handle(libc::SIGUSR2, count, 0));
    let thread = std::thread::spawn(move || {
        let word = AtomicU32::new(0);
        let _ = sender.send(tid());
        while !seen.load(SeqCst) {
            let _ = futex(&word, WAKE, 1, 0, 0);
            let _ = futex(&word, WAIT, 1, 0, 0);
        }
    });
    let target = receiver.recv().unwrap_or_default();
    for i in 1..=200 {
        ok!(sys!(SYS_tgkill, guest_tests::proc::pid(), target, libc::SIGUSR2));
        check!(guest_tests::proc::until(|| COUNTED.load(SeqCst) >= i));
    }
    stop.store(true, SeqCst);
    check!(thread.join().is_ok());
    eq!(COUNTED.load(SeqCst), 200);
    Ok(())
}

static COUNTED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    COUNTED.fetch_add(1, SeqCst);
}

fn yields_come_back() -> Outcome {
    for _ in 0..OFTEN {
        eq!(site!(SYS_sched_yield), Ok(0));
    }
    Ok(())
}

#[inline(never)]
fn sigprocmask(how: i32, set: Option<&u64>, old: Option<&mut u64>) -> Result<usize, i32> {
    let set = set.map_or(0, |set| core::ptr::from_ref(set) as usize);
    let old = old.map_or(0, |old| core::ptr::from_mut(old) as usize);
    site!(SYS_rt_sigprocmask, how, set, old, 8)
}

/// Returns the mask, from a site that has made the call often.
fn mask_now() -> u64 {
    let mut mask = 0;
    for _ in 0..OFTEN {
        let _ = sigprocmask(libc::SIG_BLOCK, None, Some(&mut mask));
    }
    mask
}

const USR1: u64 = 1 << (libc::SIGUSR1 - 1);
const USR2: u64 = 1 << (libc::SIGUSR2 - 1);
const UNBLOCKABLE: u64 = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);

fn masks_are_what_was_set() -> Outcome {
    let start = mask_now();
    for _ in 0..OFTEN {
        let mut old = 1;
        eq!(sigprocmask(libc::SIG_SETMASK, Some(&USR1), Some(&mut old)), Ok(0));
        eq!(old, start);
        eq!(sigprocmask(libc::SIG_BLOCK, Some(&USR2), Some(&mut old)), Ok(0));
        eq!(old, USR1);
        eq!(sigprocmask(libc::SIG_UNBLOCK, Some(&USR1), None), Ok(0));
        eq!(ok!(sig::mask(libc::SIG_BLOCK, 0)), USR2);
        eq!(sigprocmask(libc::SIG_SETMASK, Some(&u64::MAX), None), Ok(0));
        eq!(mask_now(), !UNBLOCKABLE);
        // In place.
        let mut both = start;
        let at = &raw mut both as usize;
        eq!(site!(SYS_rt_sigprocmask, libc::SIG_SETMASK, at, at, 8), Ok(0));
        eq!(both, !UNBLOCKABLE);
        eq!(mask_now(), start);
    }
    Ok(())
}

fn bad_masks_are_refused() -> Outcome {
    let start = mask_now();
    for _ in 0..OFTEN {
        eq!(sigprocmask(3, Some(&USR1), None), Err(libc::EINVAL));
        eq!(site!(SYS_rt_sigprocmask, 0, &raw const start, 0, 4), Err(libc::EINVAL));
        eq!(site!(SYS_rt_sigprocmask, 0, 8, 0, 8), Err(libc::EFAULT));
        eq!(site!(SYS_rt_sigprocmask, 0, usize::MAX, 0, 8), Err(libc::EFAULT));
        eq!(site!(SYS_rt_sigprocmask, 0, 0, 8, 8), Err(libc::EFAULT));
        eq!(sigprocmask(77, None, None), Ok(0));
        eq!(mask_now(), start);
    }
    Ok(())
}

fn unblocked_signals_come_at_once() -> Outcome {
    COUNTED.store(0, SeqCst);
    let _action = ok!(sig::handle(libc::SIGUSR1, count, 0));
    let pid = guest_tests::proc::pid();
    for i in 0..50 {
        eq!(sigprocmask(libc::SIG_BLOCK, Some(&USR1), None), Ok(0));
        // To the thread and to the process.
        if i % 2 == 0 {
            ok!(sys!(SYS_tgkill, pid, tid(), libc::SIGUSR1));
        } else {
            ok!(sys!(SYS_kill, pid, libc::SIGUSR1));
        }
        eq!(ok!(sig::pending()) & USR1, USR1);
        eq!(COUNTED.load(SeqCst), i);
        // Of another signal: no change for this one.
        eq!(sigprocmask(libc::SIG_UNBLOCK, Some(&USR2), None), Ok(0));
        eq!(COUNTED.load(SeqCst), i);
        let mut old = 0;
        eq!(sigprocmask(libc::SIG_UNBLOCK, Some(&USR1), Some(&mut old)), Ok(0));
        eq!(COUNTED.load(SeqCst), i + 1);
        eq!(old & USR1, USR1);
    }
    Ok(())
}

/// Another thread sends signals while this one blocks and unblocks them all the time: none is lost, and none
/// comes while it is blocked.
fn masks_hold_against_senders() -> Outcome {
    static IS_BLOCKED: AtomicBool = AtomicBool::new(false);
    static EARLY: AtomicU32 = AtomicU32::new(0);
    extern "C" fn note(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        if IS_BLOCKED.load(SeqCst) {
            EARLY.fetch_add(1, SeqCst);
        }
        COUNTED.fetch_add(1, SeqCst);
    }
    COUNTED.store(0, SeqCst);
    let _action = ok!(sig::handle(libc::SIGUSR1, note, 0));
    let (pid, target) = (guest_tests::proc::pid(), tid());
    let sender = std::thread::spawn(move || {
        let _ = sigprocmask(libc::SIG_BLOCK, Some(&USR1), None);
        for i in 1..=300 {
            let sent = if i % 2 == 0 {
                sys!(SYS_tgkill, pid, target, libc::SIGUSR1)
            } else {
                sys!(SYS_kill, pid, libc::SIGUSR1)
            };
            if sent.is_err() || !guest_tests::proc::until(|| COUNTED.load(SeqCst) >= i) {
                return false;
            }
        }
        true
    });
    while !sender.is_finished() {
        eq!(sigprocmask(libc::SIG_BLOCK, Some(&USR1), None), Ok(0));
        IS_BLOCKED.store(true, SeqCst);
        core::hint::spin_loop();
        IS_BLOCKED.store(false, SeqCst);
        eq!(sigprocmask(libc::SIG_UNBLOCK, Some(&USR1), None), Ok(0));
    }
    check!(sender.join().is_ok_and(|arrived| arrived));
    eq!((COUNTED.load(SeqCst), EARLY.load(SeqCst)), (300, 0));
    Ok(())
}

fn masks_are_shown_and_inherited() -> Outcome {
    let start = mask_now();
    eq!(sigprocmask(libc::SIG_SETMASK, Some(&(USR1 | 1)), None), Ok(0));
    let shown = || {
        let text = guest_tests::fs::get(c"/proc/thread-self/status").unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("SigBlk:\t").map(str::to_owned));
        line.and_then(|digits| u64::from_str_radix(&digits, 16).ok())
    };
    eq!(shown(), Some(USR1 | 1));
    let thread = std::thread::spawn(mask_now);
    eq!(thread.join().unwrap_or_default(), USR1 | 1);
    let pid = ok!(guest_tests::proc::child(|| i32::from(mask_now() != USR1 | 1)));
    eq!(ok!(guest_tests::proc::wait(pid)), guest_tests::proc::End::Code(0));
    // Of another thread, which runs.
    let (sender, receiver) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let busy = std::thread::spawn(move || {
        for _ in 0..OFTEN {
            let _ = sigprocmask(libc::SIG_SETMASK, Some(&USR2), None);
        }
        let _ = sender.send(tid());
        while !stopped.load(SeqCst) {
            core::hint::spin_loop();
        }
    });
    let other = receiver.recv().unwrap_or_default();
    let path =
        std::ffi::CString::new(format!("/proc/self/task/{other}/status")).unwrap_or_default();
    let text = guest_tests::fs::get(&path).unwrap_or_default();
    stop.store(true, SeqCst);
    check!(String::from_utf8_lossy(&text).contains(&format!("SigBlk:\t{USR2:016x}")));
    check!(busy.join().is_ok());
    eq!(sigprocmask(libc::SIG_SETMASK, Some(&start), None), Ok(0));
    Ok(())
}

guest_tests::cases!(
    masks_are_what_was_set,
    bad_masks_are_refused,
    unblocked_signals_come_at_once,
    masks_hold_against_senders,
    masks_are_shown_and_inherited,
    nobody_is_woken,
    changed_words_are_not_waited_for,
    sleepers_are_counted,
    moved_sleepers_are_found,
    who_gives_up_is_no_sleeper,
    no_wake_up_is_lost,
    threads_wake_each_other,
    signals_reach_busy_callers,
    yields_come_back,
);
