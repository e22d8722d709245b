//! Signals: masks, queues, alternate stacks, `SA_*` flags, restarts, real-time signals, `signalfd(2)`.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use guest_tests::fs::{close, pipe, read, write};
use guest_tests::mem::{Map, PAGE, zeroed};
use guest_tests::proc::{End, child, pid, until, until_asleep, wait};
use guest_tests::sig::{
    self, Action, bit, block, count, handle, handle_masked, pending, raise, record, unblock,
};
use guest_tests::{Outcome, check, eq, fails, ok, proc, sys};
use libc::{
    SA_NODEFER, SA_ONSTACK, SA_RESETHAND, SA_RESTART, SIG_BLOCK, SIG_SETMASK, SIGHUP, SIGKILL,
    SIGSTOP, SIGTERM, SIGUSR1, SIGUSR2,
};

fn handler_runs_and_returns() -> Outcome {
    ok!(handle(SIGUSR1, record, 0));
    for i in 1..=100 {
        ok!(raise(SIGUSR1));
        eq!(count(), i);
    }
    eq!(sig::last(), SIGUSR1);
    eq!(sig::CODE.load(SeqCst), libc::SI_TKILL);
    Ok(())
}

fn kill_tells_sender() -> Outcome {
    static SENDER: AtomicU32 = AtomicU32::new(0);
    extern "C" fn handler(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel passed it.
        SENDER.store(unsafe { (*info).si_pid() } as u32, SeqCst);
        record(0, info, core::ptr::null_mut());
    }
    ok!(handle(SIGUSR1, handler, 0));
    ok!(sys!(SYS_kill, pid(), SIGUSR1));
    eq!((count(), sig::CODE.load(SeqCst), SENDER.load(SeqCst)), (1, libc::SI_USER, pid() as u32));
    Ok(())
}

fn blocked_signal_waits() -> Outcome {
    ok!(handle(SIGUSR1, record, 0));
    ok!(block(SIGUSR1));
    ok!(raise(SIGUSR1));
    ok!(raise(SIGUSR1));
    eq!(count(), 0);
    eq!(ok!(pending()), bit(SIGUSR1));
    ok!(unblock(SIGUSR1));
    eq!(count(), 1);
    eq!(ok!(pending()), 0);
    Ok(())
}

fn mask_operations() -> Outcome {
    eq!(ok!(sig::mask(SIG_SETMASK, bit(SIGUSR1) | bit(SIGKILL) | bit(SIGSTOP))), 0);
    eq!(ok!(sig::mask(SIG_BLOCK, bit(SIGUSR2))), bit(SIGUSR1));
    eq!(ok!(sig::mask(libc::SIG_UNBLOCK, bit(SIGUSR1))), bit(SIGUSR1) | bit(SIGUSR2));
    eq!(ok!(sig::mask(SIG_SETMASK, 0)), bit(SIGUSR2));
    let set = 0u64;
    fails!(sys!(SYS_rt_sigprocmask, 9, &set, 0, 8), EINVAL);
    fails!(sys!(SYS_rt_sigprocmask, SIG_BLOCK, &set, 0, 4), EINVAL);
    fails!(sys!(SYS_rt_sigprocmask, SIG_BLOCK, 8, 0, 8), EFAULT);
    ok!(sys!(SYS_rt_sigprocmask, 9, 0, 0, 8));
    Ok(())
}

fn action_errors() -> Outcome {
    fails!(sig::plain(SIGKILL, 1), EINVAL);
    fails!(sig::plain(SIGSTOP, 1), EINVAL);
    fails!(sig::plain(0, 1), EINVAL);
    fails!(sig::plain(65, 1), EINVAL);
    ok!(sig::action(SIGKILL));
    fails!(sys!(SYS_rt_sigaction, SIGUSR1, 0, 0, 4), EINVAL);
    fails!(sys!(SYS_rt_sigaction, SIGUSR1, 8, 0, 8), EFAULT);
    Ok(())
}

fn action_reads_back() -> Outcome {
    let flags = SA_RESTART | SA_NODEFER | SA_ONSTACK;
    ok!(handle_masked(SIGUSR1, record, flags, bit(SIGHUP) | bit(SIGKILL)));
    let got = ok!(sig::action(SIGUSR1));
    eq!(got.handler, record as *const () as usize);
    eq!(got.flags, (flags | libc::SA_SIGINFO) as u32 as u64 | 0x0400_0000);
    eq!(got.mask, bit(SIGHUP));
    Ok(())
}

fn kill_errors() -> Outcome {
    fails!(sys!(SYS_kill, pid(), 65), EINVAL);
    fails!(sys!(SYS_kill, 0x3fff_ffff, 0), ESRCH);
    fails!(sys!(SYS_tgkill, pid(), 0x3fff_ffff, 0), ESRCH);
    fails!(sys!(SYS_tgkill, -1, 1, 0), EINVAL);
    fails!(sys!(SYS_tkill, 0, 0), EINVAL);
    ok!(sys!(SYS_kill, pid(), 0));
    ok!(sys!(SYS_tkill, proc::tid(), 0));
    Ok(())
}

fn kill_permission() -> Outcome {
    let parent = pid();
    proc::in_child(|| {
        ok!(proc::drop_root());
        fails!(sys!(SYS_kill, parent, SIGTERM), EPERM);
        fails!(sys!(SYS_kill, parent, 0), EPERM);
        ok!(sys!(SYS_kill, pid(), 0));
        Ok(())
    })
}

fn ignored_signals_vanish() -> Outcome {
    ok!(sig::plain(SIGTERM, 1));
    ok!(raise(SIGTERM));
    ok!(block(SIGTERM));
    ok!(raise(SIGTERM));
    // A blocked one is kept even if ignored; setting SIG_IGN again discards it.
    eq!(ok!(pending()), bit(SIGTERM));
    ok!(sig::plain(SIGTERM, 1));
    eq!(ok!(pending()), 0);
    ok!(raise(libc::SIGCHLD));
    ok!(raise(libc::SIGWINCH));
    Ok(())
}

static DEPTH: AtomicU32 = AtomicU32::new(0);
static DEEPEST: AtomicU32 = AtomicU32::new(0);

extern "C" fn nesting(signo: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let depth = DEPTH.fetch_add(1, SeqCst) + 1;
    DEEPEST.fetch_max(depth, SeqCst);
    if depth < 5 {
        let _ = raise(signo);
    }
    DEPTH.fetch_sub(1, SeqCst);
    sig::COUNT.fetch_add(1, SeqCst);
}

fn signal_is_blocked_in_its_handler() -> Outcome {
    extern "C" fn again(signo: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        let depth = DEPTH.fetch_add(1, SeqCst) + 1;
        DEEPEST.fetch_max(depth, SeqCst);
        if sig::COUNT.fetch_add(1, SeqCst) < 4 {
            let _ = raise(signo);
        }
        DEPTH.fetch_sub(1, SeqCst);
    }
    ok!(handle(SIGUSR1, again, 0));
    ok!(raise(SIGUSR1));
    eq!((DEEPEST.load(SeqCst), count()), (1, 5));
    Ok(())
}

fn nodefer_nests() -> Outcome {
    ok!(handle(SIGUSR1, nesting, SA_NODEFER));
    ok!(raise(SIGUSR1));
    eq!((DEEPEST.load(SeqCst), count()), (5, 5));
    Ok(())
}

/// Each frame must have the whole state of the processor, also where no instruction of the handler
/// below has been run.
fn several_handlers_are_entered_at_once() -> Outcome {
    let signals = [SIGUSR1, SIGUSR2, libc::SIGALRM, libc::SIGVTALRM];
    for signo in signals {
        ok!(handle(signo, record, 0));
    }
    let set = signals.iter().fold(0, |set, signo| set | bit(*signo));
    for round in 1..=20 {
        ok!(sig::mask(SIG_BLOCK, set));
        for signo in signals {
            ok!(raise(signo));
        }
        let value = std::hint::black_box(f64::from(round) + 0.5);
        ok!(sig::mask(libc::SIG_UNBLOCK, set));
        eq!(value, f64::from(round) + 0.5);
        eq!(count(), 4 * round);
        // The one on top runs first, and the one below last.
        eq!(sig::last(), SIGUSR1);
    }
    Ok(())
}

fn handler_mask_applies() -> Outcome {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        SEEN.store(sig::mask(SIG_BLOCK, 0).unwrap_or_default(), SeqCst);
    }
    ok!(handle_masked(SIGUSR1, handler, 0, bit(SIGHUP)));
    ok!(raise(SIGUSR1));
    eq!(SEEN.load(SeqCst), bit(SIGHUP) | bit(SIGUSR1));
    eq!(ok!(sig::mask(SIG_BLOCK, 0)), 0);
    Ok(())
}

fn resethand_resets() -> Outcome {
    ok!(handle(SIGUSR1, record, SA_RESETHAND));
    ok!(raise(SIGUSR1));
    eq!(count(), 1);
    eq!(ok!(sig::action(SIGUSR1)).handler, 0);
    Ok(())
}

static STACK_AT: AtomicUsize = AtomicUsize::new(0);
static STACK_FLAGS: AtomicU32 = AtomicU32::new(0);

extern "C" fn where_am_i(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let local = 0u8;
    STACK_AT.store(core::ptr::from_ref(&local) as usize, SeqCst);
    let mut now = zeroed::<libc::stack_t>();
    let _ = sys!(SYS_sigaltstack, 0, &mut now);
    STACK_FLAGS.store(now.ss_flags as u32, SeqCst);
    sig::COUNT.fetch_add(1, SeqCst);
}

fn alternate_stack() -> Outcome {
    let map = ok!(Map::anonymous(16 * PAGE, libc::MAP_PRIVATE));
    let stack = libc::stack_t { ss_sp: map.addr as *mut _, ss_flags: 0, ss_size: map.len };
    ok!(sys!(SYS_sigaltstack, &stack, 0));
    let mut old = zeroed::<libc::stack_t>();
    ok!(sys!(SYS_sigaltstack, 0, &mut old));
    eq!((old.ss_sp as usize, old.ss_size, old.ss_flags), (map.addr, map.len, 0));
    ok!(handle(SIGUSR1, where_am_i, SA_ONSTACK));
    ok!(raise(SIGUSR1));
    let at = STACK_AT.load(SeqCst);
    check!(at > map.addr && at < map.addr + map.len);
    eq!(STACK_FLAGS.load(SeqCst), libc::SS_ONSTACK as u32);
    ok!(handle(SIGUSR1, where_am_i, 0));
    ok!(raise(SIGUSR1));
    let at = STACK_AT.load(SeqCst);
    check!(!(map.addr..map.addr + map.len).contains(&at));
    Ok(())
}

fn alternate_stack_errors() -> Outcome {
    let map = ok!(Map::anonymous(16 * PAGE, libc::MAP_PRIVATE));
    let small = libc::stack_t { ss_sp: map.addr as *mut _, ss_flags: 0, ss_size: 100 };
    fails!(sys!(SYS_sigaltstack, &small, 0), ENOMEM);
    let odd = libc::stack_t { ss_sp: map.addr as *mut _, ss_flags: 77, ss_size: map.len };
    fails!(sys!(SYS_sigaltstack, &odd, 0), EINVAL);
    fails!(sys!(SYS_sigaltstack, 8, 0), EFAULT);
    Ok(())
}

fn real_time_signals_queue() -> Outcome {
    static ORDER: AtomicU64 = AtomicU64::new(0);
    extern "C" fn handler(signo: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel passed it; the value was queued.
        let value = unsafe { (*info).si_value().sival_ptr } as u64;
        ORDER.store(ORDER.load(SeqCst) * 1000 + (signo as u64 - 34) * 100 + value, SeqCst);
    }
    for signo in [34, 35] {
        ok!(handle_masked(signo, handler, 0, u64::MAX));
        ok!(block(signo));
    }
    let queue = |signo: i32, value: usize| {
        let mut info = [0u64; 16];
        info[0] = signo as u64;
        info[1] = u64::from(libc::SI_QUEUE as u32);
        info[3] = value as u64;
        sys!(SYS_rt_sigqueueinfo, pid(), signo, &info)
    };
    for (signo, value) in [(35, 1), (34, 2), (35, 3), (34, 4)] {
        ok!(queue(signo, value));
    }
    ok!(sig::mask(SIG_SETMASK, 0));
    eq!(ORDER.load(SeqCst), 2_004_101_103);
    Ok(())
}

fn queue_limit() -> Outcome {
    let limit = libc::rlimit { rlim_cur: 10, rlim_max: 10 };
    proc::in_child(|| {
        ok!(proc::drop_root());
        ok!(sys!(SYS_prlimit64, 0, libc::RLIMIT_SIGPENDING, &limit, 0));
        ok!(block(40));
        let mut info = [0u64; 16];
        info[0] = 40;
        info[1] = u64::from(libc::SI_QUEUE as u32);
        let mut sent = 0;
        while sys!(SYS_rt_sigqueueinfo, pid(), 40, &info).is_ok() {
            sent += 1;
            check!(sent < 1000, "no limit");
        }
        fails!(sys!(SYS_rt_sigqueueinfo, pid(), 40, &info), EAGAIN);
        Ok(())
    })
}

fn queueing_checks_codes() -> Outcome {
    let mut info = [0u64; 16];
    info[0] = 34;
    info[1] = 0;
    let other = ok!(child(|| {
        proc::sleep(Duration::from_secs(20));
        0
    }));
    fails!(sys!(SYS_rt_sigqueueinfo, other, 34, &info), EPERM);
    ok!(sys!(SYS_kill, other, SIGKILL));
    ok!(wait(other));
    Ok(())
}

/// Tells whether SIGUSR1 waits for somebody else.
fn is_pending(pid: i32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let set = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_none_or(|set| set & bit(SIGUSR1) != 0)
}

fn read_with(flags: i32) -> Result<(Result<usize, i32>, u32), i32> {
    let (reader, writer) = pipe(0)?;
    handle(SIGUSR1, record, flags)?;
    let me = pid();
    let helper = child(|| {
        until_asleep(me);
        let _ = sys!(SYS_kill, me, SIGUSR1);
        // What is there before the call has been left would end it as well.
        until(|| !is_pending(me));
        let _ = write(writer, b"x");
        0
    })?;
    let mut byte = [0u8];
    let got = read(reader, &mut byte);
    wait(helper)?;
    close(reader)?;
    close(writer)?;
    Ok((got, count()))
}

fn blocked_read_is_interrupted() -> Outcome {
    eq!(ok!(read_with(0)), (Err(libc::EINTR), 1));
    Ok(())
}

fn blocked_read_is_restarted() -> Outcome {
    eq!(ok!(read_with(SA_RESTART)), (Ok(1), 1));
    Ok(())
}

/// Runs `call` in a child that blocks in it; sends the signal; returns the child's exit code.
fn interrupted(flags: i32, call: impl FnOnce() -> Result<usize, i32>) -> Result<End, i32> {
    let pid = child(|| {
        let _ = handle(SIGUSR1, record, flags);
        match call() {
            Ok(_) => 200,
            Err(errno) => errno,
        }
    })?;
    until_asleep(pid);
    sys!(SYS_kill, pid, SIGUSR1)?;
    wait(pid)
}

fn calls_that_never_restart() -> Outcome {
    let interrupted_call = End::Code(libc::EINTR);
    eq!(ok!(interrupted(SA_RESTART, || sys!(SYS_pause))), interrupted_call);
    let time = libc::timespec { tv_sec: 20, tv_nsec: 0 };
    eq!(ok!(interrupted(SA_RESTART, || sys!(SYS_nanosleep, &time, 0))), interrupted_call);
    eq!(ok!(interrupted(SA_RESTART, || sys!(SYS_poll, 0, 0, 20_000))), interrupted_call);
    let epoll = ok!(sys!(SYS_epoll_create1, 0));
    let mut event = [0u32; 3];
    eq!(
        ok!(interrupted(SA_RESTART, || sys!(SYS_epoll_wait, epoll, &mut event, 1, 20_000))),
        interrupted_call
    );
    let set = bit(SIGUSR2);
    eq!(
        ok!(interrupted(SA_RESTART, || sys!(SYS_rt_sigtimedwait, &set, 0, &time, 8))),
        interrupted_call
    );
    eq!(ok!(interrupted(SA_RESTART, || sys!(SYS_select, 0, 0, 0, 0, 0))), interrupted_call);
    Ok(())
}

fn sleep_resumes_after_stop() -> Outcome {
    // Stop and continue without a handler: the sleep goes on, with what was left of it.
    let pid = ok!(child(|| {
        let started = std::time::Instant::now();
        let time = libc::timespec { tv_sec: 1, tv_nsec: 0 };
        let result = sys!(SYS_nanosleep, &time, 0);
        let slept = started.elapsed();
        i32::from(result != Ok(0)) + 2 * i32::from(slept < Duration::from_secs(1))
    }));
    check!(until_asleep(pid));
    ok!(sys!(SYS_kill, pid, SIGSTOP));
    ok!(proc::wait_options(pid, libc::WUNTRACED));
    ok!(sys!(SYS_kill, pid, libc::SIGCONT));
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn remaining_sleep_is_told() -> Outcome {
    let pid = ok!(child(|| {
        let _ = handle(SIGUSR1, record, 0);
        let time = libc::timespec { tv_sec: 100, tv_nsec: 0 };
        let mut left = zeroed::<libc::timespec>();
        let result = sys!(SYS_nanosleep, &time, &mut left);
        i32::from(!(result == Err(libc::EINTR) && left.tv_sec > 80 && left.tv_sec < 100))
    }));
    check!(until_asleep(pid));
    ok!(sys!(SYS_kill, pid, SIGUSR1));
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn sigsuspend_swaps_masks() -> Outcome {
    ok!(handle(SIGUSR1, record, 0));
    ok!(block(SIGUSR1));
    ok!(raise(SIGUSR1));
    eq!(count(), 0);
    let none = 0u64;
    fails!(sys!(SYS_rt_sigsuspend, &none, 8), EINTR);
    eq!(count(), 1);
    eq!(ok!(sig::mask(SIG_BLOCK, 0)), bit(SIGUSR1));
    Ok(())
}

fn sigtimedwait_takes_pending() -> Outcome {
    ok!(sig::mask(SIG_BLOCK, bit(SIGUSR1) | bit(SIGUSR2)));
    let set = bit(SIGUSR1) | bit(SIGUSR2);
    let none = zeroed::<libc::timespec>();
    fails!(sys!(SYS_rt_sigtimedwait, &set, 0, &none, 8), EAGAIN);
    ok!(raise(SIGUSR2));
    let mut info = zeroed::<libc::siginfo_t>();
    eq!(ok!(sys!(SYS_rt_sigtimedwait, &set, &mut info, 0, 8)) as i32, SIGUSR2);
    eq!((info.si_signo, info.si_code), (SIGUSR2, libc::SI_TKILL));
    let me = pid();
    let helper = ok!(child(|| {
        until_asleep(me);
        i32::from(sys!(SYS_kill, me, SIGUSR1).is_err())
    }));
    eq!(ok!(sys!(SYS_rt_sigtimedwait, &set, &mut info, 0, 8)) as i32, SIGUSR1);
    ok!(wait(helper));
    let short = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    fails!(sys!(SYS_rt_sigtimedwait, &set, 0, &short, 8), EAGAIN);
    let bad = libc::timespec { tv_sec: 0, tv_nsec: -1 };
    fails!(sys!(SYS_rt_sigtimedwait, &set, 0, &bad, 8), EINVAL);
    Ok(())
}

fn signalfd_reads() -> Outcome {
    ok!(sig::mask(SIG_BLOCK, bit(SIGUSR1) | bit(34)));
    let set = bit(SIGUSR1) | bit(34);
    let fd = ok!(sys!(SYS_signalfd4, -1, &set, 8, libc::SFD_NONBLOCK)) as i32;
    let mut info = [0u8; 256];
    fails!(read(fd, &mut info), EAGAIN);
    fails!(sys!(SYS_read, fd, &mut info, 100), EINVAL);
    ok!(raise(SIGUSR1));
    ok!(raise(34));
    ok!(raise(34));
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    eq!(ok!(sys!(SYS_poll, &mut poll, 1, 0)), 1);
    eq!(ok!(read(fd, &mut info)), 256);
    eq!((info[0], info[128]), (10, 34));
    eq!(ok!(read(fd, &mut info)), 128);
    fails!(read(fd, &mut info), EAGAIN);
    let set = bit(SIGUSR2);
    eq!(ok!(sys!(SYS_signalfd4, fd, &set, 8, 0)) as i32, fd);
    fails!(sys!(SYS_signalfd4, 0, &set, 8, 0), EINVAL);
    Ok(())
}

fn siglongjmp_style_exit_from_handler() -> Outcome {
    // A handler that changes the context's mask: sigreturn applies it.
    extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let context = context.cast::<libc::ucontext_t>();
        // SAFETY: the kernel's own ucontext; the mask is its first 64 bits.
        unsafe { core::ptr::from_mut(&mut (*context).uc_sigmask).cast::<u64>().write(bit(SIGHUP)) };
    }
    ok!(handle(SIGUSR1, handler, 0));
    ok!(raise(SIGUSR1));
    eq!(ok!(sig::mask(SIG_BLOCK, 0)), bit(SIGHUP));
    Ok(())
}

fn process_signal_reaches_a_thread_that_takes_it() -> Outcome {
    static TAKER: AtomicU32 = AtomicU32::new(0);
    extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        TAKER.store(proc::tid() as u32, SeqCst);
    }
    ok!(handle(SIGUSR1, handler, 0));
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(proc::tid() as u32);
        until(|| TAKER.load(SeqCst) != 0)
    });
    let taker = ok!(receiver.recv().map_err(|_| "no thread"));
    ok!(block(SIGUSR1));
    ok!(sys!(SYS_kill, pid(), SIGUSR1));
    check!(thread.join().unwrap_or(false));
    eq!(TAKER.load(SeqCst), taker);
    Ok(())
}

fn signal_ping_pong() -> Outcome {
    ok!(handle(SIGUSR1, record, 0));
    ok!(block(SIGUSR1));
    let parent = pid();
    let set = bit(SIGUSR1);
    let helper = ok!(child(|| {
        for _ in 0..500 {
            if sys!(SYS_rt_sigtimedwait, &set, 0, 0, 8).is_err() {
                return 1;
            }
            let _ = sys!(SYS_kill, parent, SIGUSR1);
        }
        0
    }));
    for _ in 0..500 {
        ok!(sys!(SYS_kill, helper, SIGUSR1));
        ok!(sys!(SYS_rt_sigtimedwait, &set, 0, 0, 8));
    }
    eq!(ok!(wait(helper)), End::Code(0));
    Ok(())
}

fn mask_is_per_thread() -> Outcome {
    ok!(block(SIGUSR1));
    let inherited = std::thread::spawn(|| {
        let inherited = sig::mask(SIG_SETMASK, 0).unwrap_or_default();
        inherited & bit(SIGUSR1) != 0
    });
    check!(inherited.join().unwrap_or(false));
    eq!(ok!(sig::mask(SIG_BLOCK, 0)), bit(SIGUSR1));
    Ok(())
}

fn default_actions_of_stop_signals() -> Outcome {
    for signo in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        let pid = ok!(child(|| {
            let _ = raise(signo);
            7
        }));
        let end = ok!(proc::wait_options(pid, libc::WUNTRACED));
        // The group is an orphan: its members do not stop by these. Its parent is in another group of the
        // same session, so it is not.
        check!(end == End::Stopped(signo) || end == End::Code(7));
        let _ = sys!(SYS_kill, pid, SIGKILL);
        let _ = wait(pid);
    }
    Ok(())
}

fn continue_discards_stop_and_vice_versa() -> Outcome {
    ok!(handle(libc::SIGCONT, record, 0));
    ok!(block(libc::SIGTSTP));
    ok!(raise(libc::SIGTSTP));
    eq!(ok!(pending()), bit(libc::SIGTSTP));
    ok!(raise(libc::SIGCONT));
    eq!((ok!(pending()), count()), (0, 1));
    Ok(())
}

fn action_type_is_kept_for_one_argument_handlers() -> Outcome {
    extern "C" fn simple(signo: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        sig::LAST.store(signo, SeqCst);
    }
    ok!(handle(SIGUSR2, simple, 0));
    let mut action: Action = ok!(sig::action(SIGUSR2));
    action.flags &= !(libc::SA_SIGINFO as u64);
    ok!(sig::set(SIGUSR2, &action));
    ok!(raise(SIGUSR2));
    eq!(sig::last(), SIGUSR2);
    Ok(())
}

guest_tests::cases!(
    handler_runs_and_returns,
    kill_tells_sender,
    blocked_signal_waits,
    mask_operations,
    action_errors,
    action_reads_back,
    kill_errors,
    kill_permission,
    ignored_signals_vanish,
    signal_is_blocked_in_its_handler,
    nodefer_nests,
    several_handlers_are_entered_at_once,
    handler_mask_applies,
    resethand_resets,
    alternate_stack,
    alternate_stack_errors,
    real_time_signals_queue,
    queue_limit,
    queueing_checks_codes,
    blocked_read_is_interrupted,
    blocked_read_is_restarted,
    calls_that_never_restart,
    sleep_resumes_after_stop,
    remaining_sleep_is_told,
    sigsuspend_swaps_masks,
    sigtimedwait_takes_pending,
    signalfd_reads,
    siglongjmp_style_exit_from_handler,
    process_signal_reaches_a_thread_that_takes_it,
    signal_ping_pong,
    mask_is_per_thread,
    default_actions_of_stop_signals,
    continue_discards_stop_and_vice_versa,
    action_type_is_kept_for_one_argument_handlers,
);
