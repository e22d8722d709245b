//! Pipes in lively use, and everything that can happen to them then: thousands of short calls, and between them what
//! else there is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use guest_tests::fs::{close, pipe, read, read_all, write};
use guest_tests::mem::{Map, PAGE, zeroed};
use guest_tests::proc::{sleep, start_and_sleep};
use guest_tests::rng::Rng;
use guest_tests::stream::{Changer, N_RECORDS, enliven, read_records, readable, write_records};
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};
use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, O_DIRECT, O_NONBLOCK};

fn set_flags(fd: i32, flags: i32) -> Result<usize, i32> {
    sys!(SYS_fcntl, fd, libc::F_SETFL, flags)
}

fn poll(fd: i32, events: i16) -> Result<i16, i32> {
    let mut polled = libc::pollfd { fd, events, revents: 0 };
    sys!(SYS_poll, &mut polled, 1, 0)?;
    Ok(polled.revents)
}

/// A pipe and what must be in it.
struct Model {
    reader: i32,
    writer: i32,
    content: VecDeque<u8>,
    next: u8,
}

impl Model {
    /// Writes `len` bytes, as far as they find room: short writes wholly or not at all.
    fn write(&mut self, len: usize) -> Outcome {
        let data: Vec<u8> = (0..len).map(|i| self.next.wrapping_add(i as u8)).collect();
        let n = match write(self.writer, &data) {
            Ok(n) => n,
            Err(errno) => {
                eq!(errno, libc::EAGAIN);
                check!(self.content.len() > 32768, "full with {}", self.content.len());
                0
            }
        };
        check!(n == len || n == 0 || len > 4096, "{n} of {len} written");
        self.content.extend(&data[..n]);
        self.next = self.next.wrapping_add(n as u8);
        Ok(())
    }

    fn read(&mut self, len: usize) -> Outcome {
        let mut buf = vec![0u8; len];
        match read(self.reader, &mut buf) {
            Ok(n) => {
                eq!(n, len.min(self.content.len()));
                for byte in &buf[..n] {
                    eq!(Some(*byte), self.content.pop_front());
                }
            }
            Err(errno) => {
                eq!(errno, libc::EAGAIN);
                check!(self.content.is_empty());
            }
        }
        Ok(())
    }

    /// Does something else, after which the pipe is the same.
    fn something_else(&mut self, random: &mut Rng) -> Outcome {
        let n = self.content.len();
        match random.below(12) {
            0 => eq!(ok!(readable(self.reader)) as usize, n),
            1 => eq!(ok!(poll(self.reader, libc::POLLIN)) != 0, n > 0),
            2 => {
                // What is read through another descriptor comes in the same order.
                let other = ok!(sys!(SYS_dup, self.reader)) as i32;
                self.reader = other;
                self.read(5)?;
            }
            3 => {
                let other = ok!(sys!(SYS_fcntl, self.writer, libc::F_DUPFD, 20)) as i32;
                ok!(close(self.writer));
                self.writer = other;
            }
            4 => {
                let (reader, writer) = ok!(pipe(O_NONBLOCK));
                if n > 0 && n < 4096 {
                    eq!(ok!(sys!(SYS_tee, self.reader, writer, n, libc::SPLICE_F_NONBLOCK)), n);
                    let mut copy = vec![0u8; n];
                    eq!(ok!(read(reader, &mut copy)), n);
                    check!(self.content.iter().eq(copy.iter()));
                }
                ok!(close(reader));
                ok!(close(writer));
            }
            5 => {
                let (reader, writer) = ok!(pipe(O_NONBLOCK));
                if n > 0 && n < 4096 {
                    eq!(ok!(sys!(SYS_splice, self.reader, 0, writer, 0, n, 0)), n);
                    let mut moved = vec![0u8; n];
                    eq!(ok!(read(reader, &mut moved)), n);
                    check!(self.content.drain(..).eq(moved));
                }
                ok!(close(reader));
                ok!(close(writer));
            }
            6 => {
                ok!(set_flags(self.reader, 0));
                if n > 0 {
                    self.read(3)?;
                }
                ok!(set_flags(self.reader, O_NONBLOCK));
            }
            7 => self.write(5000 + random.below(4000))?,
            8 => self.read(1 << 16)?,
            9 => {
                let pieces = [b"ab".as_slice(), b"cde"];
                let vectors = pieces.map(|piece| libc::iovec {
                    iov_base: piece.as_ptr().cast_mut().cast(),
                    iov_len: piece.len(),
                });
                match sys!(SYS_writev, self.writer, &vectors, 2) {
                    Ok(n) => {
                        eq!(n, 5);
                        self.content.extend(b"abcde");
                    }
                    Err(errno) => eq!(errno, libc::EAGAIN),
                }
            }
            10 => {
                let file = format!("/proc/self/fd/{}\0", self.writer);
                let flags = libc::O_WRONLY | O_NONBLOCK;
                let other = ok!(sys!(SYS_open, file.as_ptr(), flags)) as i32;
                let before = std::mem::replace(&mut self.writer, other);
                self.write(7)?;
                ok!(close(before));
            }
            _ => {
                ok!(guest_tests::fs::fstat(self.reader));
            }
        }
        Ok(())
    }
}

fn bytes_keep_their_order() -> Outcome {
    for seed in 1..=4 {
        let mut random = Rng::new(seed);
        let (reader, writer) = ok!(pipe(O_NONBLOCK));
        let mut model = Model { reader, writer, content: VecDeque::new(), next: 0 };
        let sizes = [1, 8, 64, 700, 4096];
        let mut largest = 64;
        for step in 0..4000 {
            if step % 500 == 0 {
                largest = random.pick(&sizes);
            }
            let len = 1 + random.below(largest);
            if random.one_in(2) {
                model.write(len)?;
            } else {
                model.read(len)?;
            }
            if random.one_in(500) {
                model.something_else(&mut random)?;
            }
        }
        for fd in 3..200 {
            let _ = close(fd);
        }
    }
    Ok(())
}

fn reader_goes() -> Outcome {
    ok!(sig::handle(libc::SIGPIPE, sig::record, 0));
    let (reader, writer) = ok!(pipe(0));
    enliven(reader, writer)?;
    ok!(write(writer, b"lost"));
    ok!(close(reader));
    fails!(write(writer, b"x"), EPIPE);
    eq!(sig::count(), 1);
    eq!(sig::last(), libc::SIGPIPE);
    fails!(read(reader, &mut [0u8]), EBADF);
    Ok(())
}

fn writer_goes() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    enliven(reader, writer)?;
    ok!(write(writer, b"kept"));
    ok!(close(writer));
    fails!(write(writer, b"x"), EBADF);
    let mut buf = [0u8; 10];
    eq!(ok!(read(reader, &mut buf[..1])), 1);
    eq!(ok!(read(reader, &mut buf)), 3);
    eq!(&buf[..3], b"ept");
    eq!(ok!(read(reader, &mut buf)), 0);
    Ok(())
}

fn numbers_change_hands() -> Outcome {
    let (reader, writer) = ok!(pipe(O_NONBLOCK));
    let (other_reader, other_writer) = ok!(pipe(O_NONBLOCK));
    let mut buf = [0u8; 10];
    enliven(reader, writer)?;
    enliven(other_reader, other_writer)?;
    // dup2 over a descriptor in use: the number is the other pipe's at once.
    ok!(write(writer, b"first"));
    ok!(write(other_writer, b"second"));
    let kept = ok!(sys!(SYS_dup, reader)) as i32;
    ok!(sys!(SYS_dup2, other_reader, reader));
    eq!(ok!(read(reader, &mut buf)), 6);
    fails!(read(reader, &mut buf), EAGAIN);
    eq!(ok!(read(kept, &mut buf)), 5);
    enliven(kept, writer)?;
    enliven(reader, other_writer)?;
    // A number that is closed, and then a file's.
    ok!(close(kept));
    fails!(read(kept, &mut buf), EBADF);
    eq!(ok!(sys!(SYS_open, c"/dev/zero", libc::O_RDWR)) as i32, kept);
    eq!(ok!(read(kept, &mut buf)), 10);
    eq!(buf, [0; 10]);
    // By ranges, and with what comes after.
    enliven(reader, other_writer)?;
    ok!(sys!(SYS_close_range, reader, reader, 0));
    fails!(read(reader, &mut buf), EBADF);
    let (new_reader, new_writer) = ok!(pipe(0));
    eq!(new_reader, reader);
    enliven(new_reader, new_writer)?;
    // Not for reading, or not for writing.
    fails!(read(new_writer, &mut buf), EBADF);
    fails!(write(new_reader, b"x"), EBADF);
    enliven(new_reader, new_writer)
}

fn flags_change() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let mut byte = [0u8];
    enliven(reader, writer)?;
    ok!(set_flags(reader, O_NONBLOCK));
    fails!(read(reader, &mut byte), EAGAIN);
    enliven(reader, writer)?;
    fails!(read(reader, &mut byte), EAGAIN);
    ok!(sys!(SYS_ioctl, reader, libc::FIONBIO, &0i32));
    enliven(reader, writer)?;
    ok!(sys!(SYS_ioctl, reader, libc::FIONBIO, &1i32));
    fails!(read(reader, &mut byte), EAGAIN);
    // Packets: each is read by itself.
    enliven(reader, writer)?;
    ok!(set_flags(writer, O_DIRECT));
    ok!(write(writer, b"one"));
    ok!(write(writer, b"two"));
    let mut buf = [0u8; 10];
    eq!(ok!(read(reader, &mut buf)), 3);
    eq!(ok!(read(reader, &mut buf[..1])), 1);
    fails!(read(reader, &mut buf), EAGAIN);
    enliven(reader, writer)
}

fn bad_addresses() -> Outcome {
    let (reader, writer) = ok!(pipe(O_NONBLOCK));
    let map = ok!(Map::anonymous(2 * PAGE, libc::MAP_PRIVATE));
    ok!(sys!(SYS_mprotect, map.addr + PAGE, PAGE, 0));
    let mut buf = [0u8; 10];
    for bad in [0, 8, map.addr + PAGE, map.addr + PAGE - 2, 0x7e90_0000_0000, 1 << 63] {
        enliven(reader, writer)?;
        fails!(sys!(SYS_write, writer, bad, 4), EFAULT);
        fails!(read(reader, &mut buf), EAGAIN);
        enliven(reader, writer)?;
        ok!(write(writer, b"safe"));
        fails!(sys!(SYS_read, reader, bad, 4), EFAULT);
        eq!(ok!(read(reader, &mut buf)), 4);
        eq!(&buf[..4], b"safe");
    }
    // Nothing at all is no error.
    enliven(reader, writer)?;
    eq!(ok!(write(writer, b"")), 0);
    eq!(ok!(read(reader, &mut [])), 0);
    // To read-only memory.
    ok!(sys!(SYS_mprotect, map.addr, PAGE, 1));
    enliven(reader, writer)?;
    ok!(write(writer, b"more"));
    fails!(sys!(SYS_read, reader, map.addr, 4), EFAULT);
    eq!(ok!(read(reader, &mut buf)), 4);
    Ok(())
}

fn fills_up() -> Outcome {
    let (reader, writer) = ok!(pipe(O_NONBLOCK));
    for size in [4096, 1024, 64, 8] {
        enliven(reader, writer)?;
        let block = vec![7u8; size];
        let mut total = 0;
        loop {
            match write(writer, &block) {
                Ok(n) => total += n,
                Err(errno) => {
                    eq!(errno, libc::EAGAIN);
                    break;
                }
            }
        }
        eq!(total, 65536);
        eq!(ok!(readable(reader)), 65536);
        eq!(ok!(poll(writer, libc::POLLOUT)), 0);
        let mut n = 0;
        while n < total {
            let mut buf = [0u8; 1000];
            n += ok!(read(reader, &mut buf));
        }
        fails!(read(reader, &mut [0u8]), EAGAIN);
    }
    Ok(())
}

fn capacity_changes() -> Outcome {
    let (reader, writer) = ok!(pipe(O_NONBLOCK));
    for capacity in [4096usize, 65536, 8192, 1 << 20] {
        enliven(reader, writer)?;
        eq!(ok!(sys!(SYS_fcntl, writer, libc::F_SETPIPE_SZ, capacity)), capacity);
        enliven(reader, writer)?;
        eq!(ok!(sys!(SYS_fcntl, reader, libc::F_GETPIPE_SZ, 0)), capacity);
        let block = [3u8; 4096];
        let mut total = 0;
        while let Ok(n) = write(writer, &block) {
            total += n;
        }
        eq!(total, capacity);
        while let Ok(n) = read(reader, &mut [0u8; 4096]) {
            total -= n;
        }
        eq!(total, 0);
    }
    enliven(reader, writer)?;
    for _ in 0..200 {
        ok!(write(writer, &[1; 64]));
    }
    fails!(sys!(SYS_fcntl, writer, libc::F_SETPIPE_SZ, 4096), EBUSY);
    Ok(())
}

fn poll_and_epoll_see() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let epoll = ok!(sys!(SYS_epoll_create1, 0)) as i32;
    for round in 0..6 {
        enliven(reader, writer)?;
        eq!(ok!(poll(reader, libc::POLLIN)), 0);
        enliven(reader, writer)?;
        ok!(write(writer, b"x"));
        eq!(ok!(poll(reader, libc::POLLIN)), libc::POLLIN);
        ok!(read(reader, &mut [0u8]));
        enliven(reader, writer)?;
        let edge = if round % 2 == 0 { libc::EPOLLET } else { 0 };
        let wanted = libc::epoll_event { events: (libc::EPOLLIN | edge) as u32, u64: 5 };
        ok!(sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, reader, &wanted));
        let mut event: libc::epoll_event = zeroed();
        eq!(ok!(sys!(SYS_epoll_wait, epoll, &mut event, 1, 0)), 0);
        for _ in 0..3 {
            ok!(write(writer, b"y"));
            eq!(ok!(sys!(SYS_epoll_wait, epoll, &mut event, 1, 1000)), 1);
            ok!(read(reader, &mut [0u8]));
            enliven(reader, writer)?;
        }
        ok!(sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_DEL, reader, 0));
    }
    Ok(())
}

fn sleeper_is_woken() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    for _ in 0..6 {
        enliven(reader, writer)?;
        let waiting = start_and_sleep(move || {
            let mut buf = [0u8; 8];
            read(reader, &mut buf)
        });
        ok!(write(writer, b"wake"));
        eq!(waiting.join().ok(), Some(Ok(4)));
        // The same for room.
        enliven(reader, writer)?;
        ok!(write(writer, &[0; 65536]));
        let waiting = start_and_sleep(move || write(writer, b"abc"));
        let mut all = vec![0u8; 65536];
        let mut n = 0;
        while n < 65539 {
            n += ok!(read(reader, &mut all));
        }
        eq!(waiting.join().ok(), Some(Ok(3)));
    }
    Ok(())
}

fn signals_interrupt() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    ok!(sig::handle(libc::SIGALRM, sig::record, 0));
    for _ in 0..5 {
        enliven(reader, writer)?;
        let before = sig::count();
        // Again and again: the first one may come before there is something to interrupt.
        let often = libc::timeval { tv_sec: 0, tv_usec: 10_000 };
        let time = libc::itimerval { it_interval: often, it_value: often };
        ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &time, 0));
        fails!(read(reader, &mut [0u8]), EINTR);
        ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &zeroed::<libc::itimerval>(), 0));
        check!(sig::count() > before);
    }
    // One that comes while the pipe is used is handled, and nothing is lost.
    let before = sig::count();
    let time: libc::itimerval = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 500 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: 500 },
    };
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &time, 0));
    let mut rounds = 0;
    while sig::count() < before + 20 && rounds < 10_000 {
        enliven(reader, writer)?;
        rounds += 1;
    }
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &zeroed::<libc::itimerval>(), 0));
    check!(sig::count() >= before + 20);
    Ok(())
}

fn threads_hand_over() -> Outcome {
    // There and back between two threads.
    let (reader, writer) = ok!(pipe(0));
    let (back_reader, back_writer) = ok!(pipe(0));
    enliven(reader, writer)?;
    enliven(back_reader, back_writer)?;
    let other = std::thread::spawn(move || {
        let mut message = [0u8; 8];
        while read(reader, &mut message) == Ok(8) {
            if write(back_writer, &message) != Ok(8) {
                break;
            }
        }
    });
    for i in 0..1200u64 {
        eq!(ok!(write(writer, &i.to_ne_bytes())), 8);
        let mut message = [0u8; 8];
        eq!(ok!(read(back_reader, &mut message)), 8);
        eq!(u64::from_ne_bytes(message), i);
        if i % 500 == 499 {
            // Longer than anybody watches.
            sleep(Duration::from_millis(2));
        }
    }
    ok!(close(writer));
    check!(other.join().is_ok());
    Ok(())
}

fn several_readers_and_writers() -> Outcome {
    for (n_writers, n_readers) in [(1, 1), (3, 1), (1, 3), (3, 3)] {
        let (reader, writer) = ok!(pipe(0));
        enliven(reader, writer)?;
        let readers: Vec<_> =
            (0..n_readers).map(|_| std::thread::spawn(move || read_records(reader))).collect();
        let writers: Vec<_> = (0..n_writers)
            .map(|who| std::thread::spawn(move || write_records(writer, who)))
            .collect();
        for thread in writers {
            eq!(thread.join().ok(), Some(true));
        }
        ok!(close(writer));
        let mut total = [0u32; 4];
        for thread in readers {
            let Some(Some(n)) = thread.join().ok() else { return Err("wrong order".to_owned()) };
            total.iter_mut().zip(n).for_each(|(sum, n)| *sum += n);
        }
        let whole = |who: u32| if who < n_writers { N_RECORDS } else { 0 };
        eq!(total, [0, 1, 2, 3].map(whole));
        ok!(close(reader));
    }
    Ok(())
}

fn more_pipes_than_places() -> Outcome {
    let mut pipes = Vec::new();
    for _ in 0..40 {
        pipes.push(ok!(pipe(O_NONBLOCK)));
    }
    for round in 0..100u32 {
        for (i, (reader, writer)) in pipes.iter().enumerate() {
            let message = [round, i as u32].map(u32::to_ne_bytes).concat();
            for _ in 0..2 {
                eq!(ok!(write(*writer, &message)), 8);
                let mut buf = [0u8; 8];
                eq!(ok!(read(*reader, &mut buf)), 8);
                eq!(buf.as_slice(), message.as_slice());
            }
        }
    }
    for (reader, writer) in pipes {
        ok!(write(writer, b"end"));
        ok!(close(writer));
        eq!(ok!(read_all(reader)), b"end");
        ok!(close(reader));
    }
    Ok(())
}

fn thread_with_own_descriptors() -> Outcome {
    let (reader, writer) = ok!(pipe(O_NONBLOCK));
    enliven(reader, writer)?;
    let turn = std::sync::Arc::new(AtomicU32::new(0));
    let theirs = turn.clone();
    let await_turn = |turn: &AtomicU32, wanted: u32| {
        while turn.load(SeqCst) != wanted {
            std::thread::yield_now();
        }
    };
    let other = std::thread::spawn(move || {
        enliven(reader, writer)?;
        ok!(sys!(SYS_unshare, libc::CLONE_FILES));
        theirs.store(1, SeqCst);
        await_turn(&theirs, 2);
        // The numbers still mean the first pipe here.
        let mut buf = [0u8; 8];
        eq!(ok!(write(writer, b"mine")), 4);
        eq!(ok!(read(reader, &mut buf)), 4);
        enliven(reader, writer)?;
        ok!(close(reader));
        theirs.store(3, SeqCst);
        await_turn(&theirs, 4);
        Ok(())
    });
    await_turn(&turn, 1);
    enliven(reader, writer)?;
    let (new_reader, new_writer) = ok!(pipe(O_NONBLOCK));
    ok!(sys!(SYS_dup2, new_reader, reader));
    ok!(sys!(SYS_dup2, new_writer, writer));
    enliven(reader, writer)?;
    turn.store(2, SeqCst);
    await_turn(&turn, 3);
    fails!(read(reader, &mut [0u8]), EAGAIN);
    enliven(reader, writer)?;
    turn.store(4, SeqCst);
    match other.join() {
        Ok(result) => result,
        Err(_) => Err("the other thread panicked".to_owned()),
    }
}

fn descriptors_change_under_other_threads() -> Outcome {
    // A thread uses a number while another makes it that of one pipe or the other: what is written to a pipe is read
    // from it.
    let (a_reader, a_writer) = ok!(pipe(O_NONBLOCK));
    let (b_reader, b_writer) = ok!(pipe(O_NONBLOCK));
    let number = ok!(sys!(SYS_dup, a_writer)) as i32;
    let changer = Changer::start(number, [b_writer, a_writer], Duration::from_micros(300));
    let mut sums = [0u64; 2];
    let mut written = 0u64;
    let mut empty = [[0u8; 512]; 2];
    // At least until both have had their turn.
    let started = Instant::now();
    let mut i = 0u64;
    while i < 12_000 || (sums.contains(&0) && started.elapsed() < Duration::from_secs(20)) {
        written += ok!(write(number, &[1])) as u64;
        if i % 8 == 7 {
            for (k, reader) in [a_reader, b_reader].into_iter().enumerate() {
                match read(reader, &mut empty[k]) {
                    Ok(n) => sums[k] += n as u64,
                    Err(errno) => eq!(errno, libc::EAGAIN),
                }
            }
        }
        i += 1;
    }
    eq!(changer.stop(), Some(true));
    eq!(sums[0] + sums[1], written);
    check!(sums[0] > 0 && sums[1] > 0);
    Ok(())
}

guest_tests::cases!(
    bytes_keep_their_order,
    reader_goes,
    writer_goes,
    numbers_change_hands,
    flags_change,
    bad_addresses,
    fills_up,
    capacity_changes,
    poll_and_epoll_see,
    sleeper_is_woken,
    signals_interrupt,
    threads_hand_over,
    several_readers_and_writers,
    more_pipes_than_places,
    thread_with_own_descriptors,
    descriptors_change_under_other_threads,
);
