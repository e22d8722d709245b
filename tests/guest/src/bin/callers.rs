//! Many threads and processes that call again and again, more of them than there are CPUs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use guest_tests::fs::{close, pipe, read, write};
use guest_tests::proc::{End, child, sleep, wait};
use guest_tests::{Outcome, check, eq, ok, sig, sys};
use libc::{F_GETFD, F_SETFD, FD_CLOEXEC, SA_RESTART, SIGKILL, SIGUSR1};

const N_CALLERS: usize = 8;
const N_CALLS: u32 = 3000;

/// A descriptor of its own, whose flag each caller changes and looks at.
fn call_again_and_again(fd: i32, n: u32) -> bool {
    (0..n).all(|i| {
        let flag = if i % 2 == 0 { FD_CLOEXEC } else { 0 };
        sys!(SYS_fcntl, fd, F_SETFD, flag) == Ok(0)
            && sys!(SYS_fcntl, fd, F_GETFD) == Ok(flag as usize)
    })
}

fn threads(count: usize, n: u32) -> Vec<std::thread::JoinHandle<bool>> {
    let caller = |_| {
        std::thread::spawn(move || {
            let Ok((reader, writer)) = pipe(0) else { return false };
            let passed = call_again_and_again(reader, n);
            passed && close(reader).is_ok() && close(writer).is_ok()
        })
    };
    (0..count).map(caller).collect()
}

fn threads_call() -> Outcome {
    for thread in threads(N_CALLERS, N_CALLS) {
        check!(thread.join().is_ok_and(|passed| passed));
    }
    Ok(())
}

fn threads_call_beside_others_that_compute() -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    let computing: Vec<_> = (0..3)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || while !stop.load(SeqCst) {})
        })
        .collect();
    let passed = threads(3, 200).into_iter().all(|thread| thread.join().is_ok_and(|passed| passed));
    stop.store(true, SeqCst);
    for thread in computing {
        check!(thread.join().is_ok());
    }
    check!(passed);
    Ok(())
}

/// A number goes round from thread to thread; each waits for it in `read`.
fn number_goes_round() -> Outcome {
    const ROUNDS: u64 = 500;
    let pipes: Vec<_> = (0..N_CALLERS).filter_map(|_| pipe(0).ok()).collect();
    eq!(pipes.len(), N_CALLERS);
    let pass_on = |i: usize| {
        let (reader, writer) = (pipes[i].0, pipes[(i + 1) % N_CALLERS].1);
        std::thread::spawn(move || {
            for _ in 0..ROUNDS {
                let mut number = [0u8; 8];
                if read(reader, &mut number) != Ok(8) {
                    return false;
                }
                let next = u64::from_ne_bytes(number) + 1;
                if write(writer, &next.to_ne_bytes()) != Ok(8) {
                    return false;
                }
            }
            true
        })
    };
    let threads: Vec<_> = (0..N_CALLERS).map(pass_on).collect();
    ok!(write(pipes[0].1, &0u64.to_ne_bytes()));
    for thread in threads {
        check!(thread.join().is_ok_and(|passed| passed));
    }
    let mut number = [0u8; 8];
    ok!(read(pipes[0].0, &mut number));
    eq!(u64::from_ne_bytes(number), ROUNDS * N_CALLERS as u64);
    Ok(())
}

static N_SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    N_SIGNALS.fetch_add(1, SeqCst);
}

/// Each thread sends itself signals between its calls, and none is lost.
fn signals_reach_callers() -> Outcome {
    const EACH: u32 = 300;
    N_SIGNALS.store(0, SeqCst);
    ok!(sig::handle(SIGUSR1, count, SA_RESTART));
    let caller = |_| {
        std::thread::spawn(|| {
            let Ok((reader, writer)) = pipe(0) else { return false };
            let (pid, tid) = (sys!(SYS_getpid), sys!(SYS_gettid));
            let (Ok(pid), Ok(tid)) = (pid, tid) else { return false };
            let passed = (0..EACH).all(|_| {
                call_again_and_again(reader, 4) && sys!(SYS_tgkill, pid, tid, SIGUSR1).is_ok()
            });
            passed && close(reader).is_ok() && close(writer).is_ok()
        })
    };
    let threads: Vec<_> = (0..N_CALLERS).map(caller).collect();
    for thread in threads {
        check!(thread.join().is_ok_and(|passed| passed));
    }
    eq!(N_SIGNALS.load(SeqCst), EACH * N_CALLERS as u32);
    Ok(())
}

/// Some of those that call together are killed; the others get their answers.
fn callers_are_killed() -> Outcome {
    for round in 0..5u64 {
        let (reader, writer) = ok!(pipe(0));
        let mut doomed = Vec::new();
        let mut others = Vec::new();
        for i in 0..N_CALLERS {
            let pid = ok!(child(|| {
                if i % 2 == 0 {
                    loop {
                        call_again_and_again(reader, N_CALLS);
                    }
                }
                i32::from(!call_again_and_again(writer, N_CALLS))
            }));
            if i % 2 == 0 { doomed.push(pid) } else { others.push(pid) }
        }
        sleep(Duration::from_millis(3 * round));
        for pid in doomed {
            ok!(sys!(SYS_kill, pid, SIGKILL));
            eq!(ok!(wait(pid)), End::Signal(SIGKILL));
        }
        for pid in others {
            eq!(ok!(wait(pid)), End::Code(0));
        }
        ok!(close(reader));
        ok!(close(writer));
    }
    Ok(())
}

guest_tests::cases!(
    threads_call,
    threads_call_beside_others_that_compute,
    number_goes_round,
    signals_reach_callers,
    callers_are_killed,
);
