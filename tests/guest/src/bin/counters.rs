//! Event counters (`eventfd(2)`) in lively use, and everything that can happen to them then.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use guest_tests::fs::{close, pipe, read, write};
use guest_tests::mem::{Map, PAGE, zeroed};
use guest_tests::proc::{End, child, sleep, start_and_sleep, until_asleep, wait};
use guest_tests::rng::Rng;
use guest_tests::stream::Changer;
use guest_tests::{Outcome, check, eq, fails, ok, runner, sig, sys};
use libc::{EFD_NONBLOCK, EFD_SEMAPHORE, EPOLL_CTL_ADD, EPOLL_CTL_DEL, O_NONBLOCK};

/// The largest number that a counter holds.
const MOST: u64 = u64::MAX - 1;

fn counter(initial: u32, flags: i32) -> Result<i32, i32> {
    sys!(SYS_eventfd2, initial, flags).map(|fd| fd as i32)
}

fn add(fd: i32, number: u64) -> Result<usize, i32> {
    write(fd, &number.to_ne_bytes())
}

fn take(fd: i32) -> Result<u64, i32> {
    let mut number = [0u8; 8];
    read(fd, &mut number)?;
    Ok(u64::from_ne_bytes(number))
}

fn poll(fd: i32, events: i16) -> Result<i16, i32> {
    let mut polled = libc::pollfd { fd, events, revents: 0 };
    sys!(SYS_poll, &mut polled, 1, 0)?;
    Ok(polled.revents)
}

/// Adds a number and takes it again, many times; the counter must be zero.
fn enliven(fd: i32) -> Outcome {
    for _ in 0..300 {
        eq!(ok!(add(fd, 1)), 8);
        eq!(ok!(take(fd)), 1);
    }
    Ok(())
}

/// A counter and what it must be.
struct Model {
    fd: i32,
    value: u64,
    is_semaphore: bool,
}

impl Model {
    fn add(&mut self, number: u64) -> Outcome {
        match add(self.fd, number) {
            Ok(n) => {
                eq!(n, 8);
                check!(number <= MOST - self.value, "{number} added to {}", self.value);
                self.value += number;
            }
            Err(libc::EINVAL) => eq!(number, u64::MAX),
            Err(errno) => {
                eq!(errno, libc::EAGAIN);
                check!(number > MOST - self.value, "{number} not added to {}", self.value);
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Outcome {
        match take(self.fd) {
            Ok(number) => {
                eq!(number, if self.is_semaphore { 1 } else { self.value });
                self.value -= number;
            }
            Err(errno) => {
                eq!(errno, libc::EAGAIN);
                eq!(self.value, 0);
            }
        }
        Ok(())
    }

    /// Does something else, after which the counter goes on as before.
    fn something_else(&mut self, random: &mut Rng) -> Outcome {
        match random.below(10) {
            0 => {
                let ready = ok!(poll(self.fd, libc::POLLIN | libc::POLLOUT));
                eq!(ready & libc::POLLIN != 0, self.value > 0);
                eq!(ready & libc::POLLOUT != 0, self.value < MOST);
            }
            1 => self.fd = ok!(sys!(SYS_dup, self.fd)) as i32,
            2 => {
                let other = ok!(sys!(SYS_fcntl, self.fd, libc::F_DUPFD, 20)) as i32;
                ok!(close(self.fd));
                self.fd = other;
            }
            3 => fails!(sys!(SYS_read, self.fd, &mut [0u8; 8], 7), EINVAL),
            4 => fails!(write(self.fd, &[1, 0, 0, 0]), EINVAL),
            5 if self.value > 0 => {
                let mut long = [7u8; 100];
                eq!(ok!(read(self.fd, &mut long)), 8);
                check!(long[8..].iter().all(|byte| *byte == 7));
                self.value -= u64::from_ne_bytes(long[..8].try_into().unwrap_or_default());
            }
            6 => {
                let large = random.pick(&[u64::MAX, MOST, MOST - self.value, 1 << 32, 1 << 31]);
                self.add(large)?;
            }
            7 => {
                ok!(sys!(SYS_fcntl, self.fd, libc::F_SETFL, 0));
                self.add(1 & MOST.saturating_sub(self.value))?;
                ok!(sys!(SYS_fcntl, self.fd, libc::F_SETFL, O_NONBLOCK));
            }
            8 => {
                let pid = ok!(child(|| i32::from(add(self.fd, 3).is_err())));
                let was_added = ok!(wait(pid)) == End::Code(0);
                eq!(was_added, self.value <= MOST - 3);
                self.value += if was_added { 3 } else { 0 };
            }
            _ => {
                ok!(guest_tests::fs::fstat(self.fd));
            }
        }
        // One that is almost full is soon small again.
        if self.value > 1 << 33 && self.is_semaphore {
            ok!(close(self.fd));
            self.fd = ok!(counter(0, EFD_NONBLOCK | EFD_SEMAPHORE));
            self.value = 0;
        }
        Ok(())
    }
}

fn numbers_add_up() -> Outcome {
    for seed in 1..=4 {
        let mut random = Rng::new(seed);
        let is_semaphore = seed % 2 == 0;
        let flags = EFD_NONBLOCK | if is_semaphore { EFD_SEMAPHORE } else { 0 };
        let mut model = Model { fd: ok!(counter(3, flags)), value: 3, is_semaphore };
        for _ in 0..4000 {
            if random.one_in(2) {
                let number = random.below(if is_semaphore { 3 } else { 1000 }) as u64;
                model.add(number)?;
            } else {
                model.take()?;
            }
            if random.one_in(400) {
                model.something_else(&mut random)?;
            }
        }
        for fd in 3..200 {
            let _ = close(fd);
        }
    }
    Ok(())
}

fn limits_are_kept() -> Outcome {
    let fd = ok!(counter(0, EFD_NONBLOCK));
    for large in [u64::from(u32::MAX), 1 << 32, 1 << 40, MOST] {
        enliven(fd)?;
        ok!(add(fd, large));
        if large == MOST {
            fails!(add(fd, 1), EAGAIN);
            eq!(ok!(poll(fd, libc::POLLOUT)), 0);
        } else {
            ok!(add(fd, 1));
            ok!(add(fd, 0));
        }
        fails!(add(fd, u64::MAX), EINVAL);
        eq!(ok!(take(fd)), if large == MOST { MOST } else { large + 1 });
        fails!(take(fd), EAGAIN);
    }
    enliven(fd)?;
    // What is within bounds each time, and together is not.
    for _ in 0..5 {
        ok!(add(fd, 1 << 31));
    }
    eq!(ok!(take(fd)), 5 << 31);
    enliven(fd)
}

fn bad_addresses() -> Outcome {
    let fd = ok!(counter(0, EFD_NONBLOCK));
    let map = ok!(Map::anonymous(2 * PAGE, libc::MAP_PRIVATE));
    ok!(sys!(SYS_mprotect, map.addr + PAGE, PAGE, 0));
    for bad in [0, 8, map.addr + PAGE, map.addr + PAGE - 2] {
        enliven(fd)?;
        fails!(sys!(SYS_write, fd, bad, 8), EFAULT);
        fails!(take(fd), EAGAIN);
        enliven(fd)?;
        ok!(add(fd, 5));
        fails!(sys!(SYS_read, fd, bad, 8), EFAULT);
        // Linux takes the number before it finds no place for it.
        fails!(take(fd), EAGAIN);
    }
    enliven(fd)?;
    fails!(sys!(SYS_write, fd, 1usize << 63, 8), EFAULT);
    fails!(sys!(SYS_read, fd, 1usize << 63, 8), EFAULT);
    fails!(sys!(SYS_read, fd, 0, 0), EINVAL);
    fails!(sys!(SYS_write, fd, 0, 0), EINVAL);
    Ok(())
}

fn numbers_of_descriptors_change_hands() -> Outcome {
    let (one, other) = (ok!(counter(0, EFD_NONBLOCK)), ok!(counter(0, EFD_NONBLOCK)));
    enliven(one)?;
    enliven(other)?;
    ok!(add(one, 1));
    ok!(add(other, 2));
    let kept = ok!(sys!(SYS_dup, one)) as i32;
    ok!(sys!(SYS_dup2, other, one));
    eq!(ok!(take(one)), 2);
    fails!(take(other), EAGAIN);
    eq!(ok!(take(kept)), 1);
    enliven(kept)?;
    ok!(close(kept));
    fails!(add(kept, 1), EBADF);
    fails!(take(kept), EBADF);
    // The number is a pipe's, and then a counter's again.
    let (reader, writer) = ok!(pipe(O_NONBLOCK));
    eq!(reader, kept);
    fails!(take(reader), EAGAIN);
    fails!(add(reader, 1), EBADF);
    guest_tests::stream::enliven(reader, writer)?;
    ok!(sys!(SYS_dup2, other, reader));
    enliven(reader)?;
    ok!(sys!(SYS_close_range, reader, reader, 0));
    fails!(take(reader), EBADF);
    enliven(other)
}

fn flags_change() -> Outcome {
    let fd = ok!(counter(0, 0));
    for _ in 0..3 {
        enliven(fd)?;
        ok!(sys!(SYS_fcntl, fd, libc::F_SETFL, O_NONBLOCK));
        fails!(take(fd), EAGAIN);
        enliven(fd)?;
        fails!(take(fd), EAGAIN);
        ok!(sys!(SYS_ioctl, fd, libc::FIONBIO, &0i32));
        enliven(fd)?;
        let pid = ok!(child(|| i32::from(take(fd) != Ok(9))));
        check!(until_asleep(pid));
        ok!(add(fd, 9));
        eq!(ok!(wait(pid)), End::Code(0));
    }
    Ok(())
}

fn poll_and_epoll_see() -> Outcome {
    let fd = ok!(counter(0, 0));
    let epoll = ok!(sys!(SYS_epoll_create1, 0)) as i32;
    for round in 0..6 {
        enliven(fd)?;
        eq!(ok!(poll(fd, libc::POLLIN)), 0);
        enliven(fd)?;
        ok!(add(fd, 1));
        eq!(ok!(poll(fd, libc::POLLIN)), libc::POLLIN);
        ok!(take(fd));
        enliven(fd)?;
        let edge = if round % 2 == 0 { libc::EPOLLET } else { 0 };
        let wanted = libc::epoll_event { events: (libc::EPOLLIN | edge) as u32, u64: 5 };
        ok!(sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &wanted));
        let mut event: libc::epoll_event = zeroed();
        eq!(ok!(sys!(SYS_epoll_wait, epoll, &mut event, 1, 0)), 0);
        for _ in 0..3 {
            ok!(add(fd, 1));
            eq!(ok!(sys!(SYS_epoll_wait, epoll, &mut event, 1, 1000)), 1);
            // Each number that is added is news.
            ok!(add(fd, 1));
            eq!(ok!(sys!(SYS_epoll_wait, epoll, &mut event, 1, 0)), 1);
            eq!(ok!(take(fd)), 2);
            enliven(fd)?;
        }
        ok!(sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_DEL, fd, 0));
    }
    Ok(())
}

fn sleeper_is_woken() -> Outcome {
    let fd = ok!(counter(0, 0));
    for i in 0..6u64 {
        enliven(fd)?;
        let waiting = start_and_sleep(move || take(fd));
        ok!(add(fd, 4 + i));
        eq!(waiting.join().ok(), Some(Ok(4 + i)));
        // Who waits in poll.
        enliven(fd)?;
        let waiting = start_and_sleep(move || {
            let mut polled = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            sys!(SYS_poll, &mut polled, 1, 10_000)
        });
        ok!(add(fd, 1));
        eq!(waiting.join().ok(), Some(Ok(1)));
        eq!(ok!(take(fd)), 1);
        // Who waits for room.
        enliven(fd)?;
        ok!(add(fd, MOST));
        let waiting = start_and_sleep(move || add(fd, 5));
        eq!(ok!(take(fd)), MOST);
        eq!(waiting.join().ok(), Some(Ok(8)));
        eq!(ok!(take(fd)), 5);
    }
    Ok(())
}

fn signals_interrupt() -> Outcome {
    let fd = ok!(counter(0, 0));
    ok!(sig::handle(libc::SIGALRM, sig::record, 0));
    for i in 1..=5 {
        enliven(fd)?;
        let time = libc::itimerval {
            it_interval: zeroed(),
            it_value: libc::timeval { tv_sec: 0, tv_usec: 10_000 },
        };
        ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &time, 0));
        fails!(take(fd), EINTR);
        eq!(sig::count(), i);
    }
    // One that comes while the counter is used is handled, and nothing is lost.
    let before = sig::count();
    let often = libc::timeval { tv_sec: 0, tv_usec: 500 };
    let time = libc::itimerval { it_interval: often, it_value: often };
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &time, 0));
    let mut rounds = 0;
    while sig::count() < before + 20 && rounds < 10_000 {
        enliven(fd)?;
        rounds += 1;
    }
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &zeroed::<libc::itimerval>(), 0));
    check!(sig::count() >= before + 20);
    Ok(())
}

/// How many numbers each thread or process adds.
const N_ADDED: u64 = 1000;

/// Adds to a counter, together with others; those who take it must know when it is over.
fn add_all(fd: i32) -> bool {
    (0..N_ADDED).all(|_| add(fd, 1) == Ok(8))
}

fn threads_add_and_take() -> Outcome {
    for flags in [0, EFD_SEMAPHORE, EFD_NONBLOCK, EFD_NONBLOCK | EFD_SEMAPHORE] {
        for (n_adding, n_taking) in [(1, 1), (3, 1), (1, 3), (2, 2)] {
            let fd = ok!(counter(0, flags));
            enliven(fd)?;
            let sum = std::sync::Arc::new(AtomicU64::new(0));
            let total = N_ADDED * n_adding;
            let taking: Vec<_> = (0..n_taking)
                .map(|_| {
                    let sum = sum.clone();
                    std::thread::spawn(move || {
                        while sum.load(SeqCst) < total {
                            match take(fd) {
                                // The last one says so to the others.
                                Ok(n) if sum.fetch_add(n, SeqCst) + n >= total => {
                                    let _ = add(fd, n_taking);
                                    return true;
                                }
                                Ok(n) if flags & EFD_SEMAPHORE != 0 && n != 1 => return false,
                                Ok(_) => {}
                                Err(libc::EAGAIN) => std::thread::yield_now(),
                                Err(_) => return false,
                            }
                        }
                        // One took for all.
                        let _ = add(fd, n_taking);
                        true
                    })
                })
                .collect();
            let adding: Vec<_> =
                (0..n_adding).map(|_| std::thread::spawn(move || add_all(fd))).collect();
            for thread in adding.into_iter().chain(taking) {
                eq!(thread.join().ok(), Some(true));
            }
            check!(sum.load(SeqCst) >= total);
            ok!(close(fd));
        }
    }
    Ok(())
}

/// Sends numbers to somebody who sends them back.
fn hand_over(there: i32, back: i32, n: u64) -> Outcome {
    for i in 1..=n {
        ok!(add(there, i));
        eq!(ok!(take(back)), i);
    }
    Ok(())
}

fn send_back(there: i32, back: i32, n: u64) -> bool {
    (0..n).all(|_| take(there).is_ok_and(|number| add(back, number) == Ok(8)))
}

fn threads_hand_over() -> Outcome {
    let (there, back) = (ok!(counter(0, 0)), ok!(counter(0, 0)));
    enliven(there)?;
    let other = std::thread::spawn(move || send_back(there, back, 1500));
    hand_over(there, back, 700)?;
    // Longer than anybody watches.
    sleep(Duration::from_millis(3));
    hand_over(there, back, 800)?;
    eq!(other.join().ok(), Some(true));
    Ok(())
}

fn processes_hand_over() -> Outcome {
    let (there, back) = (ok!(counter(0, 0)), ok!(counter(0, 0)));
    enliven(there)?;
    for round in 0..6 {
        let pid = ok!(child(|| i32::from(!send_back(there, back, 600))));
        hand_over(there, back, 600)?;
        eq!(ok!(wait(pid)), End::Code(0));
        if round % 2 == 0 {
            enliven(there)?;
            enliven(back)?;
        }
    }
    // Two at a time.
    let pids = [0, 1].map(|_| child(|| i32::from(!send_back(there, back, 400))));
    hand_over(there, back, 800)?;
    for pid in pids {
        eq!(ok!(wait(ok!(pid))), End::Code(0));
    }
    Ok(())
}

fn processes_add_and_one_takes() -> Outcome {
    for flags in [0, EFD_SEMAPHORE] {
        for n_adding in 1..=3 {
            let fd = ok!(counter(0, flags));
            enliven(fd)?;
            let pids: Vec<_> = (0..n_adding).map(|_| child(|| i32::from(!add_all(fd)))).collect();
            let mut sum = 0;
            while sum < n_adding * N_ADDED {
                sum += ok!(take(fd));
            }
            for pid in pids {
                eq!(ok!(wait(ok!(pid))), End::Code(0));
            }
            eq!(sum, n_adding * N_ADDED);
            eq!(ok!(poll(fd, libc::POLLIN)), 0);
            ok!(close(fd));
        }
    }
    Ok(())
}

fn child_goes_on_alone() -> Outcome {
    let fd = ok!(counter(0, EFD_NONBLOCK));
    for _ in 0..8 {
        enliven(fd)?;
        ok!(add(fd, 2));
        let pid = ok!(child(|| {
            if take(fd) != Ok(2) || enliven(fd).is_err() || add(fd, 3).is_err() {
                return 1;
            }
            0
        }));
        eq!(ok!(wait(pid)), End::Code(0));
        eq!(ok!(take(fd)), 3);
    }
    Ok(())
}

fn killed_partner_leaves_the_rest() -> Outcome {
    for round in 0..8 {
        let (fd, taken) = (ok!(counter(0, 0)), ok!(counter(0, EFD_NONBLOCK)));
        let pid = ok!(child(|| {
            while add(fd, 1).is_ok() && add(taken, 1).is_ok() {}
            0
        }));
        let mut sum = 0;
        while sum < 500 + 100 * round {
            sum += ok!(take(fd));
        }
        ok!(sys!(SYS_kill, pid, libc::SIGKILL));
        eq!(ok!(wait(pid)), End::Signal(libc::SIGKILL));
        ok!(sys!(SYS_fcntl, fd, libc::F_SETFL, O_NONBLOCK));
        sum += take(fd).unwrap_or(0);
        let noted = take(taken).unwrap_or(0);
        check!(sum == noted || sum == noted + 1, "{sum} taken, {noted} noted");
        enliven(fd)?;
        ok!(close(fd));
        ok!(close(taken));
    }
    Ok(())
}

fn more_counters_than_places() -> Outcome {
    let mut counters = Vec::new();
    for _ in 0..40 {
        counters.push(ok!(counter(0, EFD_NONBLOCK)));
    }
    for round in 1..=100 {
        for fd in &counters {
            for _ in 0..2 {
                ok!(add(*fd, round));
                eq!(ok!(take(*fd)), round);
            }
        }
    }
    for fd in counters {
        ok!(add(fd, 1));
        let other = ok!(sys!(SYS_dup, fd)) as i32;
        ok!(close(fd));
        eq!(ok!(take(other)), 1);
        ok!(close(other));
    }
    Ok(())
}

static FD: AtomicI32 = AtomicI32::new(0);

/// A child that shares memory but not descriptors: its numbers are its own.
extern "C" fn with_own_descriptors(_: *mut libc::c_void) -> i32 {
    let fd = FD.load(SeqCst);
    let Ok(other) = counter(0, EFD_NONBLOCK) else { return 1 };
    if enliven(fd).is_err() || sys!(SYS_dup2, other, fd).is_err() {
        return 2;
    }
    if enliven(fd).is_err() || add(fd, 6) != Ok(8) {
        return 3;
    }
    0
}

fn child_in_the_same_memory() -> Outcome {
    let fd = ok!(counter(0, EFD_NONBLOCK));
    FD.store(fd, SeqCst);
    let stack = ok!(Map::anonymous(16 * PAGE, libc::MAP_PRIVATE));
    for flags in [libc::CLONE_VM | libc::CLONE_VFORK, libc::CLONE_VM] {
        enliven(fd)?;
        // SAFETY: the child has a stack of its own and only makes calls.
        let pid = unsafe {
            libc::clone(
                with_own_descriptors,
                (stack.addr + stack.len) as *mut _,
                flags | libc::SIGCHLD,
                core::ptr::null_mut(),
            )
        };
        eq!(ok!(wait(pid)), End::Code(0));
        fails!(take(fd), EAGAIN);
        enliven(fd)?;
    }
    Ok(())
}

fn program_takes_the_place_of_a_user() -> Outcome {
    let fd = ok!(counter(0, EFD_NONBLOCK));
    enliven(fd)?;
    let pid = ok!(child(|| {
        if enliven(fd).is_err() || add(fd, 1).is_err() {
            return 8;
        }
        let arguments = [c"counters".as_ptr(), c"--list".as_ptr(), core::ptr::null()];
        let environment = [core::ptr::null::<u8>()];
        let _ = sys!(SYS_dup3, fd, 1, libc::O_CLOEXEC);
        let _ = sys!(SYS_execve, c"/proc/self/exe", &arguments, &environment);
        runner::exit(9)
    }));
    eq!(ok!(wait(pid)), End::Code(0));
    eq!(ok!(take(fd)), 1);
    enliven(fd)
}

fn descriptors_change_under_other_threads() -> Outcome {
    // A thread uses a number while another makes it that of one counter or the other.
    let (one, other) = (ok!(counter(0, EFD_NONBLOCK)), ok!(counter(0, EFD_NONBLOCK)));
    let number = ok!(sys!(SYS_dup, one)) as i32;
    let changer = Changer::start(number, [other, one], Duration::from_micros(300));
    let mut sums = [0u64; 2];
    let mut added = 0u64;
    // At least until both have had their turn.
    let started = Instant::now();
    let mut i = 0u64;
    while i < 12_000 || (sums.contains(&0) && started.elapsed() < Duration::from_secs(20)) {
        ok!(add(number, 1));
        added += 1;
        if i % 8 == 7 {
            for (sum, fd) in sums.iter_mut().zip([one, other]) {
                match take(fd) {
                    Ok(n) => *sum += n,
                    Err(errno) => eq!(errno, libc::EAGAIN),
                }
            }
        }
        i += 1;
    }
    eq!(changer.stop(), Some(true));
    eq!(sums[0] + sums[1], added);
    check!(sums[0] > 0 && sums[1] > 0);
    Ok(())
}

guest_tests::cases!(
    numbers_add_up,
    limits_are_kept,
    bad_addresses,
    numbers_of_descriptors_change_hands,
    flags_change,
    poll_and_epoll_see,
    sleeper_is_woken,
    signals_interrupt,
    threads_add_and_take,
    threads_hand_over,
    processes_hand_over,
    processes_add_and_one_takes,
    child_goes_on_alone,
    killed_partner_leaves_the_rest,
    more_counters_than_places,
    child_in_the_same_memory,
    program_takes_the_place_of_a_user,
    descriptors_change_under_other_threads,
);
