//! Memory, processes, threads and signals.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::call::{call, exit, fork, measure, wait};

fn map(len: usize) -> usize {
    call!(9, 0, len, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1i32, 0) as usize
}

/// Maps four pages, writes to each, unmaps.
pub(crate) fn map_touch_unmap() -> f64 {
    measure(|| {
        let addr = map(4 * 4096);
        for page in 0..4 {
            // SAFETY: mapped above.
            unsafe { core::ptr::write_volatile((addr + page * 4096) as *mut u8, 1) };
        }
        call!(11, addr, 4 * 4096);
    })
}

/// One fault: the first write to a page of a large mapping.
pub(crate) fn page_fault() -> f64 {
    const PAGES: usize = 4096;
    let addr = map(PAGES * 4096);
    call!(28, addr, PAGES * 4096, libc::MADV_NOHUGEPAGE);
    let time = measure(|| {
        for page in 0..PAGES {
            // SAFETY: mapped above.
            unsafe { core::ptr::write_volatile((addr + page * 4096) as *mut u8, 1) };
        }
        call!(28, addr, PAGES * 4096, libc::MADV_DONTNEED);
    });
    call!(11, addr, PAGES * 4096);
    time / PAGES as f64
}

/// Takes the right to write from a page and gives it back, as collectors of garbage do.
pub(crate) fn mprotect() -> f64 {
    let addr = map(16 * 4096);
    let time = measure(|| {
        call!(10, addr + 4 * 4096, 4096, libc::PROT_READ);
        call!(10, addr + 4 * 4096, 4096, libc::PROT_READ | libc::PROT_WRITE);
    });
    call!(11, addr, 16 * 4096);
    time
}

pub(crate) fn fork_and_wait() -> f64 {
    measure(|| wait(fork(|| ())))
}

pub(crate) fn fork_exec_and_wait() -> f64 {
    let path = c"/proc/self/exe";
    let argv = [path.as_ptr(), c"true".as_ptr(), core::ptr::null()];
    measure(|| {
        wait(fork(|| {
            call!(59, path.as_ptr(), argv.as_ptr(), 0);
        }));
    })
}

/// `posix_spawn(3)` of this program: a child that shares the memory until it is another program.
pub(crate) fn spawn_and_wait() -> f64 {
    let path = c"/proc/self/exe";
    let argv = [path.as_ptr().cast_mut(), c"true".as_ptr().cast_mut(), core::ptr::null_mut()];
    let env = [core::ptr::null_mut()];
    measure(|| {
        let mut pid = 0;
        // SAFETY: the path and both lists live as long as the call.
        let error = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                path.as_ptr(),
                core::ptr::null(),
                core::ptr::null(),
                argv.as_ptr(),
                env.as_ptr(),
            )
        };
        if error == 0 {
            wait(pid as isize);
        }
    })
}

pub(crate) fn thread_and_join() -> f64 {
    measure(|| {
        let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(|| ());
        let _ = thread.map(std::thread::JoinHandle::join);
    })
}

/// Blocks and unblocks a signal.
pub(crate) fn sigprocmask() -> f64 {
    let set = 1u64 << (libc::SIGUSR2 - 1);
    measure(|| {
        call!(14, libc::SIG_BLOCK, &raw const set, 0, 8);
        call!(14, libc::SIG_UNBLOCK, &raw const set, 0, 8);
    })
}

/// A signal to oneself, its handler and the way back.
pub(crate) fn signal_to_self() -> f64 {
    extern "C" fn handler(_: i32) {}
    // SAFETY: the handler does nothing.
    unsafe { libc::signal(libc::SIGUSR1, handler as *const () as libc::sighandler_t) };
    let pid = call!(39);
    let tid = call!(186);
    measure(|| {
        call!(234, pid, tid, libc::SIGUSR1);
    })
}

/// So many threads that compute and call in turn: the time of one turn, over all of them.
pub(crate) fn busy_threads(count: usize) -> f64 {
    let (stop, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let start = Arc::new(Barrier::new(count + 1));
    let threads: Vec<_> = (0..count)
        .filter_map(|_| {
            let (stop, turns, start) = (stop.clone(), turns.clone(), start.clone());
            let busy = move || {
                start.wait();
                let mut own = 0u64;
                while !stop.load(Relaxed) {
                    for step in 0..3000u64 {
                        std::hint::black_box(step);
                    }
                    call!(95, 0o22);
                    own += 1;
                }
                turns.fetch_add(own, Relaxed);
            };
            std::thread::Builder::new().stack_size(64 * 1024).spawn(busy).ok()
        })
        .collect();
    if threads.len() < count {
        // Who has started waits for ever for the others.
        exit();
    }
    start.wait();
    let started = Instant::now();
    std::thread::sleep(Duration::from_millis(200));
    stop.store(true, Relaxed);
    let took = started.elapsed();
    for thread in threads {
        let _ = thread.join();
    }
    took.as_nanos() as f64 / turns.load(Relaxed).max(1) as f64
}
