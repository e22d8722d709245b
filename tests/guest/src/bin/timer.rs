//! Time: clocks, sleeps, interval timers, POSIX timers, timerfd, the vDSO.

use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicI32, AtomicU32};
use std::time::{Duration, Instant};

use guest_tests::fs::{read, write};
use guest_tests::mem::{Map, zeroed};
use guest_tests::proc::{End, child, sleep, until, wait};
use guest_tests::{Outcome, check, eq, fails, ok, proc, sig, sys};
use libc::{
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME,
    CLOCK_THREAD_CPUTIME_ID, timespec,
};

fn time(sec: i64, nsec: i64) -> timespec {
    timespec { tv_sec: sec, tv_nsec: nsec }
}

fn now(clock: i32) -> Result<i128, i32> {
    let mut at = zeroed::<timespec>();
    sys!(SYS_clock_gettime, clock, &mut at)?;
    Ok(i128::from(at.tv_sec) * 1_000_000_000 + i128::from(at.tv_nsec))
}

/// The same through the C library, which asks the vDSO.
fn now_vdso(clock: i32) -> i128 {
    let mut at = zeroed::<timespec>();
    // SAFETY: the result is this function's own.
    unsafe { libc::clock_gettime(clock, &mut at) };
    i128::from(at.tv_sec) * 1_000_000_000 + i128::from(at.tv_nsec)
}

fn clocks_exist_and_advance() -> Outcome {
    for clock in [
        CLOCK_REALTIME,
        CLOCK_MONOTONIC,
        CLOCK_PROCESS_CPUTIME_ID,
        CLOCK_THREAD_CPUTIME_ID,
        4,
        5,
        6,
        CLOCK_BOOTTIME,
        11,
    ] {
        let first = ok!(now(clock));
        check!(first >= 0, "clock {clock}");
        let mut spins = 0u64;
        check!(
            until(|| {
                spins += 1;
                now(clock).is_ok_and(|later| later > first)
            }),
            "clock {clock} stands still"
        );
    }
    fails!(now(99), EINVAL);
    fails!(sys!(SYS_clock_gettime, CLOCK_MONOTONIC, 8), EFAULT);
    Ok(())
}

fn vdso_and_calls_agree() -> Outcome {
    for clock in [CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_THREAD_CPUTIME_ID] {
        for _ in 0..200 {
            let (a, b, c) = (ok!(now(clock)), now_vdso(clock), ok!(now(clock)));
            check!(a <= b && b <= c, "clock {clock}: {a} {b} {c}");
        }
    }
    Ok(())
}

fn monotonic_across_threads() -> Outcome {
    use std::sync::atomic::AtomicU64;
    static LAST: AtomicU64 = AtomicU64::new(0);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                for _ in 0..20_000 {
                    let before = LAST.load(SeqCst);
                    let at = now_vdso(CLOCK_MONOTONIC) as u64;
                    if at < before {
                        return false;
                    }
                    LAST.fetch_max(at, SeqCst);
                }
                true
            })
        })
        .collect();
    for thread in threads {
        check!(thread.join().unwrap_or(false));
    }
    Ok(())
}

fn old_time_calls() -> Outcome {
    let mut tv = zeroed::<libc::timeval>();
    ok!(sys!(SYS_gettimeofday, &mut tv, 0));
    let seconds = ok!(sys!(SYS_time, 0)) as i64;
    check!((seconds - tv.tv_sec).abs() <= 1);
    let mut at = 0i64;
    ok!(sys!(SYS_time, &mut at));
    check!((at - seconds).abs() <= 1);
    check!((i128::from(seconds) * 1_000_000_000 - ok!(now(CLOCK_REALTIME))).abs() < 3_000_000_000);
    let mut cpu = 99u32;
    ok!(sys!(SYS_getcpu, &mut cpu, 0, 0));
    check!(cpu < 4096);
    Ok(())
}

fn resolutions() -> Outcome {
    let mut res = zeroed::<timespec>();
    ok!(sys!(SYS_clock_getres, CLOCK_MONOTONIC, &mut res));
    eq!((res.tv_sec, res.tv_nsec), (0, 1));
    ok!(sys!(SYS_clock_getres, CLOCK_REALTIME, 0));
    fails!(sys!(SYS_clock_getres, 99, &mut res), EINVAL);
    Ok(())
}

fn clocks_of_processes() -> Outcome {
    let pid = ok!(child(|| {
        sleep(Duration::from_secs(20));
        0
    }));
    // The dynamic id of a process's CPU clock.
    let clock = (!pid << 3) | 2;
    check!(ok!(now(clock)) >= 0);
    ok!(sys!(SYS_kill, pid, libc::SIGKILL));
    ok!(wait(pid));
    fails!(now(clock), EINVAL);
    Ok(())
}

fn cpu_time_counts_work_only() -> Outcome {
    let before = ok!(now(CLOCK_PROCESS_CPUTIME_ID));
    sleep(Duration::from_millis(50));
    let idle = ok!(now(CLOCK_PROCESS_CPUTIME_ID)) - before;
    check!(idle < 40_000_000, "idle {idle}");
    let started = Instant::now();
    while ok!(now(CLOCK_PROCESS_CPUTIME_ID)) - before <= idle + 5_000_000 {
        check!(started.elapsed() < Duration::from_secs(50), "work is not counted");
    }
    Ok(())
}

fn setting_clocks_is_refused() -> Outcome {
    proc::in_child(|| {
        ok!(proc::drop_root());
        fails!(sys!(SYS_clock_settime, CLOCK_REALTIME, &time(1, 0)), EPERM);
        fails!(sys!(SYS_settimeofday, &libc::timeval { tv_sec: 1, tv_usec: 0 }, 0), EPERM);
        Ok(())
    })
}

fn sleeps_last() -> Outcome {
    let started = Instant::now();
    ok!(sys!(SYS_nanosleep, &time(0, 20_000_000), 0));
    check!(started.elapsed() >= Duration::from_millis(20));
    let started = Instant::now();
    ok!(sys!(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &time(0, 20_000_000), 0));
    check!(started.elapsed() >= Duration::from_millis(20));
    let mut at = zeroed::<timespec>();
    ok!(sys!(SYS_clock_gettime, CLOCK_MONOTONIC, &mut at));
    at.tv_nsec += 20_000_000;
    at.tv_sec += at.tv_nsec / 1_000_000_000;
    at.tv_nsec %= 1_000_000_000;
    let started = Instant::now();
    ok!(sys!(SYS_clock_nanosleep, CLOCK_MONOTONIC, 1, &at, 0));
    check!(started.elapsed() >= Duration::from_millis(18));
    ok!(sys!(SYS_clock_nanosleep, CLOCK_REALTIME, 1, &time(1, 0), 0));
    fails!(sys!(SYS_nanosleep, &time(0, 1_000_000_000), 0), EINVAL);
    fails!(sys!(SYS_nanosleep, &time(-1, 0), 0), EINVAL);
    fails!(sys!(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &time(0, 1), 0), EOPNOTSUPP);
    fails!(sys!(SYS_nanosleep, 8, 0), EFAULT);
    Ok(())
}

fn alarm_fires() -> Outcome {
    ok!(sig::handle(libc::SIGALRM, sig::record, 0));
    eq!(ok!(sys!(SYS_alarm, 100)), 0);
    let left = ok!(sys!(SYS_alarm, 1));
    check!(left == 100 || left == 99);
    fails!(sys!(SYS_pause), EINTR);
    eq!(sig::count(), 1);
    eq!(ok!(sys!(SYS_alarm, 0)), 0);
    Ok(())
}

fn interval_timer_repeats() -> Outcome {
    ok!(sig::handle(libc::SIGALRM, sig::record, libc::SA_RESTART));
    let every = libc::timeval { tv_sec: 0, tv_usec: 2_000 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &timer, 0));
    check!(until(|| sig::count() >= 10));
    let mut old = zeroed::<libc::itimerval>();
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &zeroed::<libc::itimerval>(), &mut old));
    eq!((old.it_interval.tv_sec, old.it_interval.tv_usec), (0, 2000));
    let at = sig::count();
    sleep(Duration::from_millis(10));
    eq!(sig::count(), at);
    ok!(sys!(SYS_getitimer, libc::ITIMER_REAL, &mut old));
    eq!((old.it_value.tv_sec, old.it_value.tv_usec), (0, 0));
    fails!(sys!(SYS_getitimer, 9, &mut old), EINVAL);
    let bad = libc::itimerval {
        it_interval: every,
        it_value: libc::timeval { tv_sec: 0, tv_usec: 1_000_000 },
    };
    fails!(sys!(SYS_setitimer, libc::ITIMER_REAL, &bad, 0), EINVAL);
    Ok(())
}

fn cpu_time_timers() -> Outcome {
    ok!(sig::handle(libc::SIGVTALRM, sig::record, 0));
    ok!(sig::handle(libc::SIGPROF, sig::record, 0));
    let once = libc::itimerval {
        it_interval: zeroed(),
        it_value: libc::timeval { tv_sec: 0, tv_usec: 20_000 },
    };
    for (which, signo) in
        [(libc::ITIMER_VIRTUAL, libc::SIGVTALRM), (libc::ITIMER_PROF, libc::SIGPROF)]
    {
        let before = sig::count();
        ok!(sys!(SYS_setitimer, which, &once, 0));
        let started = Instant::now();
        while sig::count() == before && started.elapsed() < Duration::from_secs(25) {}
        eq!(sig::last(), signo);
    }
    Ok(())
}

fn profiles_are_of_the_busy_thread() -> Outcome {
    static BUSY: AtomicI32 = AtomicI32::new(0);
    static N_BUSY: AtomicU32 = AtomicU32::new(0);
    extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        if proc::tid() == BUSY.load(SeqCst) {
            N_BUSY.fetch_add(1, SeqCst);
        }
    }
    ok!(sig::handle(libc::SIGPROF, handler, libc::SA_RESTART));
    let often = libc::timeval { tv_sec: 0, tv_usec: 10_000 };
    // The first thread waits for the other one, which gets the signals of the time that it uses.
    let worker = std::thread::spawn(move || {
        BUSY.store(proc::tid(), SeqCst);
        let timer = libc::itimerval { it_interval: often, it_value: often };
        let set = sys!(SYS_setitimer, libc::ITIMER_PROF, &timer, 0);
        until(|| {
            (0..100_000).for_each(|_| core::hint::spin_loop());
            N_BUSY.load(SeqCst) >= 5
        }) && set.is_ok()
    });
    let has_seen = worker.join().unwrap_or(false);
    let none: libc::itimerval = zeroed();
    ok!(sys!(SYS_setitimer, libc::ITIMER_PROF, &none, 0));
    check!(has_seen);
    Ok(())
}

fn cpu_limit_signals() -> Outcome {
    let pid = ok!(child(|| {
        let limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
        let _ = sys!(SYS_prlimit64, 0, libc::RLIMIT_CPU, &limit, 0);
        let _ = sys!(
            SYS_prlimit64,
            0,
            libc::RLIMIT_CORE,
            &libc::rlimit { rlim_cur: 0, rlim_max: 0 },
            0
        );
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(50) {}
        0
    }));
    let end = ok!(wait(pid));
    check!(end == End::Signal(libc::SIGKILL) || end == End::Signal(libc::SIGXCPU), "{end:?}");
    Ok(())
}

fn event(notify: i32, signo: i32, value: usize) -> [u64; 8] {
    [value as u64, signo as u64 | (notify as u64) << 32, 0, 0, 0, 0, 0, 0]
}

fn posix_timer_signals() -> Outcome {
    ok!(sig::handle(34, sig::record, 0));
    let mut id = 0i32;
    ok!(sys!(SYS_timer_create, CLOCK_MONOTONIC, &event(libc::SIGEV_SIGNAL, 34, 77), &mut id));
    let spec = libc::itimerspec { it_interval: time(0, 1_000_000), it_value: time(0, 1_000_000) };
    ok!(sys!(SYS_timer_settime, id, 0, &spec, 0));
    check!(until(|| sig::count() >= 5));
    eq!(sig::CODE.load(SeqCst), libc::SI_TIMER);
    let mut now = zeroed::<libc::itimerspec>();
    ok!(sys!(SYS_timer_gettime, id, &mut now));
    eq!(now.it_interval.tv_nsec, 1_000_000);
    ok!(sys!(SYS_timer_settime, id, 0, &zeroed::<libc::itimerspec>(), &mut now));
    ok!(sys!(SYS_timer_gettime, id, &mut now));
    eq!((now.it_value.tv_sec, now.it_value.tv_nsec), (0, 0));
    ok!(sys!(SYS_timer_delete, id));
    fails!(sys!(SYS_timer_gettime, id, &mut now), EINVAL);
    Ok(())
}

fn posix_timer_overruns() -> Outcome {
    ok!(sig::block(34));
    let mut id = 0i32;
    ok!(sys!(SYS_timer_create, CLOCK_MONOTONIC, &event(libc::SIGEV_SIGNAL, 34, 0), &mut id));
    let spec = libc::itimerspec { it_interval: time(0, 1_000_000), it_value: time(0, 1_000_000) };
    ok!(sys!(SYS_timer_settime, id, 0, &spec, 0));
    sleep(Duration::from_millis(30));
    // The signal stays blocked, so that the last one taken is this one.
    let mut info = [0i32; 32];
    eq!(ok!(sys!(SYS_rt_sigtimedwait, &sig::bit(34), &mut info, 0, 8)), 34);
    eq!(info[2], libc::SI_TIMER);
    let overrun = ok!(sys!(SYS_timer_getoverrun, id)) as i32;
    check!(overrun >= 5, "{overrun}");
    // `si_overrun`.
    eq!(info[5], overrun);
    Ok(())
}

fn posix_timer_without_signal_and_absolute() -> Outcome {
    let mut id = 0i32;
    ok!(sys!(SYS_timer_create, CLOCK_REALTIME, &event(libc::SIGEV_NONE, 0, 0), &mut id));
    let spec = libc::itimerspec { it_interval: time(0, 0), it_value: time(100, 0) };
    ok!(sys!(SYS_timer_settime, id, 0, &spec, 0));
    let mut now = zeroed::<libc::itimerspec>();
    ok!(sys!(SYS_timer_gettime, id, &mut now));
    check!(now.it_value.tv_sec >= 95 && now.it_value.tv_sec <= 100);
    ok!(sig::handle(libc::SIGALRM, sig::record, 0));
    let mut past = 0i32;
    ok!(sys!(SYS_timer_create, CLOCK_MONOTONIC, 0, &mut past));
    let spec = libc::itimerspec { it_interval: time(0, 0), it_value: time(0, 1) };
    ok!(sys!(SYS_timer_settime, past, 1, &spec, 0));
    check!(until(|| sig::count() == 1));
    eq!(sig::last(), libc::SIGALRM);
    fails!(sys!(SYS_timer_create, 99, 0, &mut id), EINVAL);
    fails!(sys!(SYS_timer_create, CLOCK_MONOTONIC, &event(99, 34, 0), &mut id), EINVAL);
    fails!(sys!(SYS_timer_settime, 9999, 0, &spec, 0), EINVAL);
    Ok(())
}

fn posix_timer_to_a_thread() -> Outcome {
    ok!(sig::handle(35, sig::record, 0));
    // sigev_notify_thread_id follows sigev_notify at once.
    let mut raw = [0u32; 16];
    raw[2] = 35;
    raw[3] = libc::SIGEV_THREAD_ID as u32;
    raw[4] = proc::tid() as u32;
    let mut id = 0i32;
    ok!(sys!(SYS_timer_create, CLOCK_MONOTONIC, &raw, &mut id));
    let spec = libc::itimerspec { it_interval: time(0, 0), it_value: time(0, 1_000_000) };
    ok!(sys!(SYS_timer_settime, id, 0, &spec, 0));
    check!(until(|| sig::count() == 1));
    Ok(())
}

fn timers_are_not_inherited() -> Outcome {
    let mut id = 0i32;
    ok!(sys!(SYS_timer_create, CLOCK_MONOTONIC, &event(libc::SIGEV_NONE, 0, 0), &mut id));
    ok!(sys!(SYS_alarm, 100));
    proc::in_child(|| {
        let mut now = zeroed::<libc::itimerspec>();
        fails!(sys!(SYS_timer_gettime, id, &mut now), EINVAL);
        eq!(ok!(sys!(SYS_alarm, 0)), 0);
        Ok(())
    })
}

fn timerfd_counts() -> Outcome {
    let fd = ok!(sys!(SYS_timerfd_create, CLOCK_MONOTONIC, libc::TFD_NONBLOCK)) as i32;
    let mut ticks = [0u8; 8];
    fails!(read(fd, &mut ticks), EAGAIN);
    let spec = libc::itimerspec { it_interval: time(0, 2_000_000), it_value: time(0, 2_000_000) };
    ok!(sys!(SYS_timerfd_settime, fd, 0, &spec, 0));
    sleep(Duration::from_millis(20));
    eq!(ok!(read(fd, &mut ticks)), 8);
    check!(u64::from_ne_bytes(ticks) >= 5);
    let mut now = zeroed::<libc::itimerspec>();
    ok!(sys!(SYS_timerfd_gettime, fd, &mut now));
    eq!(now.it_interval.tv_nsec, 2_000_000);
    ok!(sys!(SYS_timerfd_settime, fd, 0, &zeroed::<libc::itimerspec>(), 0));
    fails!(read(fd, &mut ticks), EAGAIN);
    fails!(sys!(SYS_read, fd, &mut ticks, 4), EINVAL);
    fails!(write(fd, b"12345678"), EINVAL);
    fails!(sys!(SYS_timerfd_create, 99, 0), EINVAL);
    fails!(sys!(SYS_timerfd_create, CLOCK_MONOTONIC, 1), EINVAL);
    fails!(sys!(SYS_timerfd_settime, 0, 0, &spec, 0), EINVAL);
    Ok(())
}

fn timerfd_blocks_and_polls() -> Outcome {
    let fd = ok!(sys!(SYS_timerfd_create, CLOCK_REALTIME, 0)) as i32;
    let spec = libc::itimerspec { it_interval: time(0, 0), it_value: time(0, 10_000_000) };
    ok!(sys!(SYS_timerfd_settime, fd, 0, &spec, 0));
    let mut ticks = [0u8; 8];
    eq!(ok!(read(fd, &mut ticks)), 8);
    eq!(u64::from_ne_bytes(ticks), 1);
    ok!(sys!(SYS_timerfd_settime, fd, 0, &spec, 0));
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    eq!(ok!(sys!(SYS_poll, &mut poll, 1, 0)), 0);
    eq!(ok!(sys!(SYS_poll, &mut poll, 1, 5000)), 1);
    let spec = libc::itimerspec { it_interval: time(0, 0), it_value: time(1, 0) };
    ok!(sys!(SYS_timerfd_settime, fd, libc::TFD_TIMER_ABSTIME, &spec, 0));
    eq!(ok!(read(fd, &mut ticks)), 8);
    Ok(())
}

fn times_and_usage() -> Outcome {
    let mut tms = zeroed::<libc::tms>();
    check!(ok!(sys!(SYS_times, &mut tms)) > 0);
    let mut usage = zeroed::<libc::rusage>();
    // Enough to show: Linux counts resident pages in batches for each CPU.
    std::hint::black_box(vec![1u8; 8 << 20]);
    ok!(sys!(SYS_getrusage, libc::RUSAGE_SELF, &mut usage));
    check!(usage.ru_maxrss > 0);
    ok!(sys!(SYS_getrusage, libc::RUSAGE_THREAD, &mut usage));
    fails!(sys!(SYS_getrusage, 99, &mut usage), EINVAL);
    let mut timex = [0u64; 32];
    check!(sys!(SYS_adjtimex, &mut timex).is_ok());
    Ok(())
}

/// Uses 40 ms of this thread's processor time.
fn work() -> Result<(), i32> {
    let start = now(CLOCK_THREAD_CPUTIME_ID)?;
    while now(CLOCK_THREAD_CPUTIME_ID)? < start + 40_000_000 {}
    Ok(())
}

fn cpu_ns(usage: &libc::rusage) -> i64 {
    let us = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    (us(usage.ru_utime) + us(usage.ru_stime)) * 1000
}

fn threads_have_clocks_of_their_own() -> Outcome {
    let own = ok!(now(CLOCK_THREAD_CPUTIME_ID));
    let whole = ok!(now(CLOCK_PROCESS_CPUTIME_ID));
    let worker = std::thread::spawn(|| {
        work()?;
        let mut usage = zeroed::<libc::rusage>();
        sys!(SYS_getrusage, libc::RUSAGE_THREAD, &mut usage)?;
        Ok::<i64, i32>(cpu_ns(&usage))
    });
    let used = ok!(worker.join().unwrap_or(Err(0)));
    check!(used >= 30_000_000, "used by the thread: {used}");
    let own = ok!(now(CLOCK_THREAD_CPUTIME_ID)) - own;
    check!(own < 20_000_000, "used by the one that waited: {own}");
    // What an ended thread used stays with its process.
    let whole = ok!(now(CLOCK_PROCESS_CPUTIME_ID)) - whole;
    check!(whole >= 40_000_000, "used by the process: {whole}");
    let mut usage = zeroed::<libc::rusage>();
    ok!(sys!(SYS_getrusage, libc::RUSAGE_THREAD, &mut usage));
    let thread = cpu_ns(&usage);
    ok!(sys!(SYS_getrusage, libc::RUSAGE_SELF, &mut usage));
    check!(cpu_ns(&usage) - thread >= 30_000_000, "{thread} of {}", cpu_ns(&usage));
    Ok(())
}

fn children_report_what_they_used() -> Outcome {
    const LEN: usize = 48 << 20;
    let pid = ok!(child(|| {
        let Ok(map) = Map::anonymous(LEN, libc::MAP_PRIVATE) else { return 1 };
        map.bytes().fill(1);
        i32::from(work().is_err())
    }));
    let (mut status, mut usage) = (0i32, zeroed::<libc::rusage>());
    eq!(ok!(sys!(SYS_wait4, pid, &mut status, 0, &mut usage)) as i32, pid);
    eq!(status, 0);
    let least = (LEN / 1024) as i64 * 3 / 4;
    check!(usage.ru_maxrss >= least, "resident: {}", usage.ru_maxrss);
    check!(usage.ru_minflt > 0);
    check!(cpu_ns(&usage) >= 35_000_000, "used: {}", cpu_ns(&usage));
    let mut sum = zeroed::<libc::rusage>();
    ok!(sys!(SYS_getrusage, libc::RUSAGE_CHILDREN, &mut sum));
    check!(sum.ru_maxrss >= usage.ru_maxrss && cpu_ns(&sum) >= cpu_ns(&usage));
    ok!(sys!(SYS_getrusage, libc::RUSAGE_SELF, &mut sum));
    check!(sum.ru_maxrss < usage.ru_maxrss, "own: {}", sum.ru_maxrss);
    Ok(())
}

fn a_killed_child_reports_what_it_used() -> Outcome {
    let (reader, writer) = ok!(guest_tests::fs::pipe(0));
    let pid = ok!(child(|| {
        if work().is_ok() {
            let _ = write(writer, b"x");
        }
        sleep(Duration::from_secs(20));
        0
    }));
    ok!(read(reader, &mut [0]));
    ok!(sys!(SYS_kill, pid, libc::SIGKILL));
    let (mut status, mut usage) = (0i32, zeroed::<libc::rusage>());
    ok!(sys!(SYS_wait4, pid, &mut status, 0, &mut usage));
    eq!(proc::decode(status), End::Signal(libc::SIGKILL));
    // Not its memory: Linux has been seen to report none for a child that was killed.
    check!(cpu_ns(&usage) >= 35_000_000, "used: {}", cpu_ns(&usage));
    Ok(())
}

fn absolute_times_are_those_of_their_clock() -> Outcome {
    const SOON_NS: i64 = 500_000_000;
    for clock in [libc::CLOCK_TAI, CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME] {
        let mut id = 0i32;
        ok!(sys!(SYS_timer_create, clock, 0, &mut id));
        let mut now = [0i64; 2];
        ok!(sys!(SYS_clock_gettime, clock, &mut now));
        // An hour from now, so that nothing expires.
        let setting = [0, 0, now[0] + 3600, now[1]];
        ok!(sys!(SYS_timer_settime, id, libc::TIMER_ABSTIME, &setting, 0));
        let mut left = [0i64; 4];
        ok!(sys!(SYS_timer_gettime, id, &mut left));
        let left_ns = left[2] * 1_000_000_000 + left[3];
        check!(left_ns <= 3_600_000_000_000, "more than asked for: {}", clock);
        check!(left_ns > SOON_NS, "an hour is not over: {}", clock);
        ok!(sys!(SYS_timer_delete, id));
    }
    Ok(())
}

guest_tests::cases!(
    absolute_times_are_those_of_their_clock,
    clocks_exist_and_advance,
    vdso_and_calls_agree,
    monotonic_across_threads,
    old_time_calls,
    resolutions,
    clocks_of_processes,
    cpu_time_counts_work_only,
    setting_clocks_is_refused,
    sleeps_last,
    alarm_fires,
    interval_timer_repeats,
    cpu_time_timers,
    profiles_are_of_the_busy_thread,
    cpu_limit_signals,
    posix_timer_signals,
    posix_timer_overruns,
    posix_timer_without_signal_and_absolute,
    posix_timer_to_a_thread,
    timers_are_not_inherited,
    timerfd_counts,
    timerfd_blocks_and_polls,
    times_and_usage,
    threads_have_clocks_of_their_own,
    children_report_what_they_used,
    a_killed_child_reports_what_it_used,
);
