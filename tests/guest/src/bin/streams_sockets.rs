//! Unix sockets in lively use, within a process and between several, and everything that can happen to them then.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use guest_tests::fs::{close, pipe, read, read_all, write};
use guest_tests::mem::{Map, PAGE, zeroed};
use guest_tests::net::{
    option, poll, receive_message, recv, recv_from, send, send_file, send_to, set_option,
    set_timeout, stream_pair,
};
use guest_tests::proc::{End, child, drop_root, in_child, sleep, start_and_sleep, wait};
use guest_tests::rng::Rng;
use guest_tests::stream::{Changer, N_RECORDS, enliven, read_records, readable, write_records};
use guest_tests::{Outcome, check, eq, fails, ok, runner, sig, sys};
use libc::{
    MSG_DONTWAIT, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_WAITALL, O_NONBLOCK, SHUT_RD, SHUT_WR,
    SO_ERROR, SO_PASSCRED, SO_PEEK_OFF, SO_RCVTIMEO, SO_SNDBUF, SOCK_NONBLOCK, SOL_SOCKET,
};

/// Both directions, by all the calls that there are for it.
fn enliven_both(one: i32, other: i32) -> Outcome {
    enliven(one, other)?;
    enliven(other, one)?;
    for i in 0..100u8 {
        let mut byte = [0u8];
        let flags = if i % 3 == 0 { MSG_NOSIGNAL } else { 0 };
        eq!(ok!(send(one, &[i], flags)), 1);
        eq!(ok!(recv(other, &mut byte, if i % 2 == 0 { MSG_DONTWAIT } else { 0 })), 1);
        eq!(byte[0], i);
    }
    Ok(())
}

fn close_all(fds: &[i32]) -> Outcome {
    for fd in fds {
        ok!(close(*fd));
    }
    Ok(())
}

/// A direction, and what must be on its way.
struct Model {
    reader: i32,
    writer: i32,
    content: VecDeque<u8>,
    next: u8,
}

impl Model {
    fn data(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|i| self.next.wrapping_add(i as u8)).collect()
    }

    fn sent(&mut self, result: Result<usize, i32>, data: &[u8]) -> Outcome {
        let n = match result {
            Ok(n) => n,
            Err(errno) => {
                eq!(errno, libc::EAGAIN);
                check!(self.content.len() > 8192, "full with {}", self.content.len());
                0
            }
        };
        self.content.extend(&data[..n]);
        self.next = self.next.wrapping_add(n as u8);
        Ok(())
    }

    fn received(&mut self, result: Result<usize, i32>, buf: &[u8]) -> Outcome {
        match result {
            Ok(n) => {
                eq!(n, buf.len().min(self.content.len()));
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

    fn write(&mut self, len: usize, by_send: bool) -> Outcome {
        let data = self.data(len);
        let result = if by_send { send(self.writer, &data, 0) } else { write(self.writer, &data) };
        self.sent(result, &data)
    }

    fn read(&mut self, len: usize, by_recv: bool) -> Outcome {
        let mut buf = vec![0u8; len];
        let result =
            if by_recv { recv(self.reader, &mut buf, 0) } else { read(self.reader, &mut buf) };
        self.received(result, &buf)
    }

    /// Does something else, after which the socket is the same.
    fn something_else(&mut self, random: &mut Rng) -> Outcome {
        let n = self.content.len();
        match random.below(12) {
            0 => eq!(ok!(readable(self.reader)) as usize, n),
            1 => eq!(ok!(poll(self.reader, libc::POLLIN)) != 0, n > 0),
            2 => self.reader = ok!(sys!(SYS_dup, self.reader)) as i32,
            3 => {
                let other = ok!(sys!(SYS_fcntl, self.writer, libc::F_DUPFD, 20)) as i32;
                ok!(close(self.writer));
                self.writer = other;
            }
            4 if n > 0 => {
                let mut buf = [0u8; 9];
                let seen = ok!(recv(self.reader, &mut buf, MSG_PEEK));
                check!(seen > 0 && self.content.iter().zip(&buf[..seen]).all(|(a, b)| a == b));
            }
            5 if n > 10 => {
                let mut buf = [0u8; 10];
                let result = recv(self.reader, &mut buf, MSG_WAITALL);
                self.received(result, &buf)?;
            }
            6 => {
                let data = self.data(5);
                let (a, b) = data.split_at(2);
                let vectors = [a, b].map(|piece| libc::iovec {
                    iov_base: piece.as_ptr().cast_mut().cast(),
                    iov_len: piece.len(),
                });
                self.sent(sys!(SYS_writev, self.writer, &vectors, 2), &data)?;
            }
            7 => self.write(5000 + random.below(4000), true)?,
            8 => self.read(1 << 16, true)?,
            9 => {
                ok!(set_option(self.reader, SOL_SOCKET, SO_SNDBUF, 100_000));
                eq!(ok!(option(self.writer, SOL_SOCKET, SO_ERROR)), 0);
            }
            10 => {
                // A file travels with the bytes, and ends a read.
                let data = self.data(3);
                let result = send_file(self.writer, &data, self.reader);
                let was_sent = result.is_ok();
                self.sent(result, &data)?;
                while was_sent && !self.content.is_empty() {
                    let mut buf = [0u8; 4096];
                    let n = ok!(read(self.reader, &mut buf));
                    check!(n > 0 && n <= self.content.len());
                    check!(self.content.drain(..n).eq(buf[..n].iter().copied()));
                }
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
        let (one, other) = ok!(stream_pair(SOCK_NONBLOCK));
        let mut models = [(one, other), (other, one)].map(|(reader, writer)| Model {
            reader,
            writer,
            content: VecDeque::new(),
            next: 0,
        });
        let sizes = [1, 8, 64, 700, 4096];
        let mut largest = 64;
        for step in 0..5000 {
            if step % 500 == 0 {
                largest = random.pick(&sizes);
            }
            let [first, second] = &mut models;
            let model = if random.one_in(3) { second } else { first };
            let (len, by_message) = (1 + random.below(largest), random.one_in(2));
            if random.one_in(2) {
                model.write(len, by_message)?;
            } else {
                model.read(len, by_message)?;
            }
            if random.one_in(400) {
                model.something_else(&mut random)?;
                // The numbers are those of both directions.
                let (reader, writer) = (model.reader, model.writer);
                let [first, second] = &mut models;
                let is_first = first.reader == reader && first.writer == writer;
                let rest = if is_first { second } else { first };
                (rest.reader, rest.writer) = (writer, reader);
            }
        }
        for fd in 3..200 {
            let _ = close(fd);
        }
    }
    Ok(())
}

fn peer_goes() -> Outcome {
    ok!(sig::handle(libc::SIGPIPE, sig::record, 0));
    let mut buf = [0u8; 10];
    // With nothing unread: the end, and nobody to write to.
    let (one, other) = ok!(stream_pair(0));
    enliven_both(one, other)?;
    ok!(write(other, b"kept"));
    ok!(close(other));
    fails!(write(one, b"x"), EPIPE);
    fails!(send(one, b"x", MSG_NOSIGNAL), EPIPE);
    eq!(sig::count(), 1);
    eq!(ok!(read(one, &mut buf[..1])), 1);
    eq!(ok!(recv(one, &mut buf, 0)), 3);
    eq!(&buf[..3], b"ept");
    eq!(ok!(read(one, &mut buf)), 0);
    eq!(ok!(recv(one, &mut buf, MSG_DONTWAIT)), 0);
    ok!(close(one));
    // With something that it has not read: a reset.
    let (one, other) = ok!(stream_pair(0));
    enliven_both(one, other)?;
    ok!(write(one, b"lost"));
    ok!(close(other));
    fails!(read(one, &mut buf), ECONNRESET);
    eq!(ok!(read(one, &mut buf)), 0);
    fails!(write(one, b"x"), EPIPE);
    eq!(sig::count(), 2);
    fails!(read(other, &mut buf), EBADF);
    close_all(&[one])
}

fn half_a_connection() -> Outcome {
    ok!(sig::handle(libc::SIGPIPE, sig::record, 0));
    let mut buf = [0u8; 10];
    let (one, other) = ok!(stream_pair(0));
    enliven_both(one, other)?;
    ok!(write(one, b"last"));
    ok!(sys!(SYS_shutdown, one, SHUT_WR));
    fails!(write(one, b"x"), EPIPE);
    eq!(sig::count(), 1);
    eq!(ok!(read(other, &mut buf)), 4);
    eq!(ok!(read(other, &mut buf)), 0);
    // The other way goes on.
    enliven(one, other)?;
    eq!(ok!(poll(other, libc::POLLIN | libc::POLLRDHUP)), libc::POLLIN | libc::POLLRDHUP);
    enliven(one, other)?;
    ok!(write(other, b"seen"));
    ok!(sys!(SYS_shutdown, one, SHUT_RD));
    eq!(ok!(read(one, &mut buf)), 4);
    eq!(ok!(read(one, &mut buf)), 0);
    fails!(write(other, b"x"), EPIPE);
    eq!(sig::count(), 2);
    close_all(&[one, other])
}

fn flags_change() -> Outcome {
    let (one, other) = ok!(stream_pair(0));
    let mut byte = [0u8];
    for fd in [one, other] {
        enliven_both(one, other)?;
        fails!(recv(fd, &mut byte, MSG_DONTWAIT), EAGAIN);
        ok!(sys!(SYS_fcntl, fd, libc::F_SETFL, O_NONBLOCK));
        fails!(read(fd, &mut byte), EAGAIN);
        enliven_both(one, other)?;
        fails!(recv(fd, &mut byte, 0), EAGAIN);
        ok!(sys!(SYS_ioctl, fd, libc::FIONBIO, &0i32));
        enliven_both(one, other)?;
        let waiting = start_and_sleep(move || read(fd, &mut [0u8; 4]));
        ok!(send(if fd == one { other } else { one }, b"wake", 0));
        eq!(waiting.join().ok(), Some(Ok(4)));
    }
    close_all(&[one, other])
}

fn not_as_sockets() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let (one, other) = ok!(stream_pair(SOCK_NONBLOCK));
    let mut buf = [0u8; 4];
    for _ in 0..3 {
        enliven(reader, writer)?;
        fails!(send(writer, b"x", 0), ENOTSOCK);
        fails!(recv(reader, &mut buf, 0), ENOTSOCK);
        enliven_both(one, other)?;
        fails!(send_to(one, b"x", &[1, 0]), EISCONN);
        ok!(send(one, b"abcd", 0));
        eq!(ok!(recv_from(other, 0)), (b"abcd".to_vec(), Vec::new()));
        eq!(ok!(send(one, b"", 0)), 0);
        fails!(recv(other, &mut buf, 0), EAGAIN);
    }
    close_all(&[reader, writer, one, other])
}

fn senders_are_told() -> Outcome {
    let (one, other) = ok!(stream_pair(0));
    for asker in [other, one] {
        enliven_both(one, other)?;
        ok!(write(one, b"nobody"));
        ok!(set_option(asker, SOL_SOCKET, SO_PASSCRED, 1));
        ok!(write(one, b"me"));
        let mut n = 0;
        if asker == other {
            // What nobody in particular has sent comes by itself.
            let (first, control) = ok!(receive_message(other, 100));
            eq!(first, 6);
            eq!(control.len(), 1);
            eq!(control[0].2[..4], 0i32.to_ne_bytes());
            let (second, control) = ok!(receive_message(other, 100));
            eq!(control[0].2[..4], guest_tests::proc::pid().to_ne_bytes());
            n += first + second;
        } else {
            n += ok!(read(other, &mut [0u8; 100]));
        }
        eq!(n, 8);
        for _ in 0..3 {
            enliven(other, one)?;
            ok!(write(one, b"me"));
            if asker == other {
                let (n, control) = ok!(receive_message(other, 100));
                eq!((n, control.len()), (2, 1));
                eq!(control[0].2[..4], guest_tests::proc::pid().to_ne_bytes());
            } else {
                eq!(ok!(read(other, &mut [0u8; 100])), 2);
            }
        }
        ok!(set_option(asker, SOL_SOCKET, SO_PASSCRED, 0));
    }
    close_all(&[one, other])
}

fn looks_begin_elsewhere() -> Outcome {
    let (one, other) = ok!(stream_pair(0));
    let mut buf = [0u8; 10];
    enliven_both(one, other)?;
    ok!(write(one, b"abcdef"));
    ok!(set_option(other, SOL_SOCKET, SO_PEEK_OFF, 4));
    eq!(ok!(recv(other, &mut buf, MSG_PEEK)), 2);
    eq!(ok!(option(other, SOL_SOCKET, SO_PEEK_OFF)), 6);
    eq!(ok!(read(other, &mut buf[..5])), 5);
    eq!(ok!(option(other, SOL_SOCKET, SO_PEEK_OFF)), 1);
    eq!(ok!(read(other, &mut buf)), 1);
    // Each read moves it: also the many of a lively socket.
    ok!(set_option(other, SOL_SOCKET, SO_PEEK_OFF, 500));
    enliven(other, one)?;
    eq!(ok!(option(other, SOL_SOCKET, SO_PEEK_OFF)), 200);
    ok!(set_option(other, SOL_SOCKET, SO_PEEK_OFF, -1));
    enliven_both(one, other)?;
    close_all(&[one, other])
}

fn urgent_bytes() -> Outcome {
    let (one, other) = ok!(stream_pair(SOCK_NONBLOCK));
    let mut buf = [0u8; 10];
    for _ in 0..3 {
        enliven_both(one, other)?;
        ok!(write(one, b"ab"));
        eq!(ok!(send(one, b"c!", MSG_OOB)), 2);
        ok!(write(one, b"de"));
        eq!(ok!(read(other, &mut buf)), 3);
        eq!(ok!(recv(other, &mut buf, MSG_OOB)), 1);
        eq!(buf[0], b'!');
        eq!(ok!(read(other, &mut buf)), 2);
        eq!(&buf[..2], b"de");
        fails!(read(other, &mut buf), EAGAIN);
    }
    close_all(&[one, other])
}

fn bad_addresses() -> Outcome {
    let (one, other) = ok!(stream_pair(SOCK_NONBLOCK));
    let map = ok!(Map::anonymous(2 * PAGE, libc::MAP_PRIVATE));
    ok!(sys!(SYS_mprotect, map.addr + PAGE, PAGE, 0));
    let mut buf = [0u8; 10];
    for bad in [0, 8, map.addr + PAGE, 0x7e90_0000_0000, 1 << 63] {
        enliven_both(one, other)?;
        fails!(sys!(SYS_write, one, bad, 4), EFAULT);
        fails!(sys!(SYS_sendto, one, bad, 4, 0, 0, 0), EFAULT);
        fails!(read(other, &mut buf), EAGAIN);
        enliven_both(one, other)?;
        ok!(write(one, b"safe"));
        fails!(sys!(SYS_recvfrom, other, bad, 4, 0, 0, 0), EFAULT);
        eq!(ok!(read(other, &mut buf)), 4);
        eq!(&buf[..4], b"safe");
    }
    close_all(&[one, other])
}

fn fills_up() -> Outcome {
    let (one, other) = ok!(stream_pair(SOCK_NONBLOCK));
    for size in [4096, 1000, 64] {
        enliven_both(one, other)?;
        let block = vec![7u8; size];
        let mut total = 0;
        loop {
            match send(one, &block, 0) {
                Ok(n) => total += n,
                Err(errno) => {
                    eq!(errno, libc::EAGAIN);
                    break;
                }
            }
        }
        // Linux counts its bookkeeping as well.
        check!(total >= 16_384, "full with {total}");
        eq!(ok!(readable(other)) as usize, total);
        eq!(ok!(poll(one, libc::POLLOUT)), 0);
        let mut n = 0;
        while n < total {
            let mut buf = [0u8; 1000];
            n += ok!(read(other, &mut buf));
        }
        eq!(n, total);
        fails!(read(other, &mut [0u8]), EAGAIN);
        eq!(ok!(poll(one, libc::POLLOUT)), libc::POLLOUT);
    }
    close_all(&[one, other])
}

fn poll_and_epoll_see() -> Outcome {
    let (one, other) = ok!(stream_pair(0));
    let epoll = ok!(sys!(SYS_epoll_create1, 0)) as i32;
    for round in 0..6 {
        enliven_both(one, other)?;
        eq!(ok!(poll(other, libc::POLLIN)), 0);
        enliven_both(one, other)?;
        ok!(write(one, b"x"));
        eq!(ok!(poll(other, libc::POLLIN)), libc::POLLIN);
        ok!(read(other, &mut [0u8]));
        enliven_both(one, other)?;
        let edge = if round % 2 == 0 { libc::EPOLLET } else { 0 };
        let wanted = libc::epoll_event { events: (libc::EPOLLIN | edge) as u32, u64: 5 };
        ok!(sys!(SYS_epoll_ctl, epoll, libc::EPOLL_CTL_ADD, other, &wanted));
        let mut event: libc::epoll_event = zeroed();
        eq!(ok!(sys!(SYS_epoll_wait, epoll, &mut event, 1, 0)), 0);
        for _ in 0..3 {
            ok!(write(one, b"y"));
            eq!(ok!(sys!(SYS_epoll_wait, epoll, &mut event, 1, 1000)), 1);
            ok!(read(other, &mut [0u8]));
            enliven_both(one, other)?;
        }
        ok!(sys!(SYS_epoll_ctl, epoll, libc::EPOLL_CTL_DEL, other, 0));
    }
    close_all(&[one, other, epoll])
}

fn sleepers_are_woken() -> Outcome {
    let (one, other) = ok!(stream_pair(0));
    for round in 0..6 {
        enliven_both(one, other)?;
        let waiting = start_and_sleep(move || {
            let mut buf = [0u8; 8];
            if round % 2 == 0 { read(other, &mut buf) } else { recv(other, &mut buf, 0) }
        });
        // The other direction is in use meanwhile.
        for _ in 0..200 {
            ok!(write(other, b"z"));
            ok!(read(one, &mut [0u8]));
        }
        ok!(write(one, b"wake"));
        eq!(waiting.join().ok(), Some(Ok(4)));
        enliven_both(one, other)?;
        let block = vec![1u8; 300_000];
        let waiting = start_and_sleep(move || write(one, &block));
        let mut n = 0;
        while n < 300_000 {
            n += ok!(read(other, &mut [0u8; 4096]));
        }
        eq!(waiting.join().ok(), Some(Ok(300_000)));
        // A time-out.
        enliven_both(one, other)?;
        ok!(set_timeout(other, SO_RCVTIMEO, 20));
        let start = Instant::now();
        fails!(read(other, &mut [0u8]), EAGAIN);
        check!(start.elapsed() >= Duration::from_millis(15));
        ok!(set_timeout(other, SO_RCVTIMEO, 0));
    }
    // One of a write that has written something.
    ok!(set_timeout(one, libc::SO_SNDTIMEO, 20));
    let n = ok!(write(one, &vec![1u8; 1 << 20]));
    check!(n > 0 && n < 1 << 20);
    fails!(write(one, b"x"), EAGAIN);
    close_all(&[one, other])
}

fn signals_interrupt() -> Outcome {
    let (one, other) = ok!(stream_pair(0));
    ok!(sig::handle(libc::SIGALRM, sig::record, 0));
    for _ in 0..5 {
        enliven_both(one, other)?;
        let before = sig::count();
        // Again and again: the first one may come before there is something to interrupt.
        let often = libc::timeval { tv_sec: 0, tv_usec: 10_000 };
        let time = libc::itimerval { it_interval: often, it_value: often };
        ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &time, 0));
        fails!(recv(one, &mut [0u8], 0), EINTR);
        ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &zeroed::<libc::itimerval>(), 0));
        check!(sig::count() > before);
    }
    close_all(&[one, other])
}

fn several_readers_and_writers() -> Outcome {
    for (n_writers, n_readers) in [(1, 1), (3, 1), (3, 3)] {
        let (one, other) = ok!(stream_pair(0));
        enliven_both(one, other)?;
        let readers: Vec<_> =
            (0..n_readers).map(|_| std::thread::spawn(move || read_records(other))).collect();
        let writers: Vec<_> =
            (0..n_writers).map(|who| std::thread::spawn(move || write_records(one, who))).collect();
        for thread in writers {
            eq!(thread.join().ok(), Some(true));
        }
        ok!(sys!(SYS_shutdown, one, SHUT_WR));
        let mut total = [0u32; 4];
        for thread in readers {
            let Some(Some(n)) = thread.join().ok() else { return Err("wrong order".to_owned()) };
            total.iter_mut().zip(n).for_each(|(sum, n)| *sum += n);
        }
        let whole = |who: u32| if who < n_writers { N_RECORDS } else { 0 };
        eq!(total, [0, 1, 2, 3].map(whole));
        close_all(&[one, other])?;
    }
    Ok(())
}

fn number_changes_hands() -> Outcome {
    // What is sent by a number goes to one of the two sockets that it is meanwhile.
    let (one, to_one) = ok!(stream_pair(SOCK_NONBLOCK));
    let (other, to_other) = ok!(stream_pair(SOCK_NONBLOCK));
    enliven_both(one, to_one)?;
    enliven_both(other, to_other)?;
    let number = ok!(sys!(SYS_fcntl, one, libc::F_DUPFD, 50)) as i32;
    let changer = Changer::start(number, [one, other], Duration::from_micros(300));
    let mut sent = 0;
    let mut received = 0;
    for _ in 0..20_000 {
        sent += send(number, b"x", 0).unwrap_or(0);
        for fd in [to_one, to_other] {
            received += recv(fd, &mut [0u8; 8], 0).unwrap_or(0);
        }
    }
    eq!(changer.stop(), Some(true));
    for fd in [to_one, to_other] {
        while let Ok(n) = recv(fd, &mut [0u8; 8], 0) {
            received += n;
        }
    }
    eq!((sent, received), (20_000, 20_000));
    close_all(&[one, to_one, other, to_other, number])
}

/// Sends numbers to who sends them back.
fn hand_over(fd: i32, n: u64) -> Outcome {
    for i in 0..n {
        let mut message = [0u8; 8];
        if i % 2 == 0 {
            eq!(ok!(write(fd, &i.to_ne_bytes())), 8);
            eq!(ok!(recv(fd, &mut message, 0)), 8);
        } else {
            eq!(ok!(send(fd, &i.to_ne_bytes(), MSG_NOSIGNAL)), 8);
            eq!(ok!(read(fd, &mut message)), 8);
        }
        eq!(u64::from_ne_bytes(message), i);
    }
    Ok(())
}

fn send_back(fd: i32, n: u64) -> bool {
    (0..n).all(|_| {
        let mut message = [0u8; 8];
        recv(fd, &mut message, 0) == Ok(8) && send(fd, &message, 0) == Ok(8)
    })
}

fn threads_hand_over() -> Outcome {
    let (one, other) = ok!(stream_pair(0));
    let thread = std::thread::spawn(move || send_back(other, u64::MAX));
    for _ in 0..3 {
        hand_over(one, 500)?;
        // Longer than anybody watches.
        sleep(Duration::from_millis(2));
    }
    ok!(sys!(SYS_shutdown, one, SHUT_WR));
    eq!(thread.join().ok(), Some(false));
    close_all(&[one, other])
}

fn processes_hand_over() -> Outcome {
    for is_lively in [false, true] {
        let (one, other) = ok!(stream_pair(0));
        if is_lively {
            enliven_both(one, other)?;
        }
        let pid = ok!(child(|| {
            let _ = close(one);
            i32::from(send_back(other, u64::MAX))
        }));
        ok!(close(other));
        hand_over(one, 1500)?;
        ok!(close(one));
        eq!(ok!(wait(pid)), End::Code(0));
    }
    Ok(())
}

fn killed_peers() -> Outcome {
    ok!(sig::handle(libc::SIGPIPE, sig::record, 0));
    for round in 0..10u64 {
        let (one, other) = ok!(stream_pair(0));
        let pid = ok!(child(|| {
            let _ = close(one);
            i32::from(send_back(other, u64::MAX))
        }));
        ok!(close(other));
        hand_over(one, 300 + 50 * round)?;
        if round % 2 == 0 {
            ok!(write(one, b"on a way"));
        }
        ok!(sys!(SYS_kill, pid, libc::SIGKILL));
        eq!(ok!(wait(pid)), End::Signal(libc::SIGKILL));
        let before = sig::count();
        fails!(write(one, b"x"), EPIPE);
        eq!(sig::count(), before + 1);
        // What it has sent back is there, or it has read nothing of it, or some.
        let mut rest = 0;
        loop {
            match read(one, &mut [0u8; 32]) {
                Ok(0) => break,
                Ok(n) => rest += n,
                Err(errno) => eq!(errno, libc::ECONNRESET),
            }
        }
        check!(rest <= 8);
        ok!(close(one));
    }
    Ok(())
}

fn partner_with_other_rights() -> Outcome {
    let (one, other) = ok!(stream_pair(0));
    let pid = ok!(child(|| {
        let first = send_back(other, 400);
        if drop_root().is_err() {
            return 2;
        }
        i32::from(!first || !send_back(other, 400))
    }));
    hand_over(one, 800)?;
    eq!(ok!(wait(pid)), End::Code(0));
    // One that nobody may look into.
    let pid = ok!(child(|| {
        if sys!(SYS_prctl, libc::PR_SET_DUMPABLE, 0).is_err() {
            return 2;
        }
        i32::from(!send_back(other, 400))
    }));
    hand_over(one, 400)?;
    eq!(ok!(wait(pid)), End::Code(0));
    close_all(&[one, other])
}

fn children_take_part() -> Outcome {
    // More of them, one after the other, than a process can have had streams with; and two at a time.
    let (one, other) = ok!(stream_pair(0));
    for _ in 0..30 {
        let pid = ok!(child(|| i32::from(!send_back(other, 120))));
        hand_over(one, 120)?;
        eq!(ok!(wait(pid)), End::Code(0));
        enliven_both(one, other)?;
    }
    let pids = [0, 1].map(|_| child(|| i32::from(!send_back(other, 400))));
    hand_over(one, 800)?;
    for pid in pids {
        eq!(ok!(wait(ok!(pid))), End::Code(0));
    }
    eq!(ok!(readable(one)), 0);
    eq!(ok!(readable(other)), 0);
    close_all(&[one, other])
}

fn descriptors_travel() -> Outcome {
    // A lively socket is sent to a process that goes on with it.
    let (one, other) = ok!(stream_pair(0));
    let (door, inside) = ok!(stream_pair(0));
    enliven_both(one, other)?;
    let pid = ok!(child(|| {
        let _ = close(one);
        let _ = close(other);
        let Ok((1, control)) = receive_message(inside, 1) else { return 1 };
        let [(SOL_SOCKET, libc::SCM_RIGHTS, fd)] = &control[..] else { return 2 };
        let fd = i32::from_ne_bytes(fd[..].try_into().unwrap_or_default());
        let mut buf = [0u8; 6];
        if read(fd, &mut buf) != Ok(6) || &buf != b"before" {
            return 3;
        }
        i32::from(!send_back(fd, 600))
    }));
    ok!(write(one, b"before"));
    eq!(ok!(send_file(door, b"d", other)), 1);
    hand_over(one, 600)?;
    eq!(ok!(wait(pid)), End::Code(0));
    enliven_both(one, other)?;
    // By way of itself.
    ok!(write(one, b"first"));
    ok!(send_file(one, b"x", other));
    ok!(write(one, b"last"));
    let mut buf = [0u8; 20];
    eq!(ok!(read(other, &mut buf)), 6);
    eq!(&buf[..6], b"firstx");
    eq!(ok!(read(other, &mut buf)), 4);
    enliven_both(one, other)?;
    close_all(&[one, other, door, inside])
}

fn program_writes_to_it() -> Outcome {
    let (one, other) = ok!(stream_pair(0));
    enliven_both(one, other)?;
    ok!(write(other, b"list: "));
    let pid = ok!(child(|| {
        let _ = sys!(SYS_dup2, other, 1);
        let _ = close(one);
        let _ = close(other);
        let arguments = [c"streams_sockets".as_ptr(), c"--list".as_ptr(), core::ptr::null()];
        let environment = [core::ptr::null::<u8>()];
        let _ = sys!(SYS_execve, c"/proc/self/exe", &arguments, &environment);
        runner::exit(9)
    }));
    ok!(close(other));
    let text = ok!(read_all(one));
    check!(text.starts_with(b"list: bytes_keep_their_order\n"));
    eq!(ok!(wait(pid)), End::Code(0));
    close_all(&[one])
}

fn connected_by_name() -> Outcome {
    let listener = ok!(guest_tests::net::socket(libc::AF_UNIX, libc::SOCK_STREAM));
    let addr = b"\x01\0\0lively";
    ok!(guest_tests::net::bind(listener, addr));
    ok!(guest_tests::net::listen(listener, 4));
    let pid = ok!(child(|| {
        let Ok(fd) = guest_tests::net::socket(libc::AF_UNIX, libc::SOCK_STREAM) else { return 1 };
        if guest_tests::net::connect(fd, addr).is_err() {
            return 2;
        }
        i32::from(!send_back(fd, 1000))
    }));
    let accepted = ok!(guest_tests::net::accept(listener, 0));
    hand_over(accepted, 1000)?;
    eq!(ok!(wait(pid)), End::Code(0));
    eq!(ok!(read(accepted, &mut [0u8])), 0);
    close_all(&[listener, accepted])
}

fn filter_refuses_some_calls() -> Outcome {
    // What is allowed makes the socket lively, what is not is refused all the same.
    let (one, other) = ok!(stream_pair(SOCK_NONBLOCK));
    in_child(|| {
        enliven_both(one, other)?;
        let load = libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
        let unless = libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: libc::SYS_recvfrom as u32 };
        let ret = |k: u32| libc::sock_filter { code: 6, jt: 0, jf: 0, k };
        let code = [load, unless, ret(0x5_004d), ret(0x7fff_0000)];
        let program = libc::sock_fprog { len: 4, filter: code.as_ptr().cast_mut() };
        ok!(sys!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        ok!(sys!(SYS_seccomp, 1, 0, &program));
        for _ in 0..4 {
            enliven(one, other)?;
            ok!(write(other, b"x"));
            eq!(recv(one, &mut [0u8], 0), Err(77));
            eq!(ok!(read(one, &mut [0u8])), 1);
        }
        Ok(())
    })?;
    close_all(&[one, other])
}

guest_tests::cases!(
    bytes_keep_their_order,
    peer_goes,
    half_a_connection,
    flags_change,
    not_as_sockets,
    senders_are_told,
    looks_begin_elsewhere,
    urgent_bytes,
    bad_addresses,
    fills_up,
    poll_and_epoll_see,
    sleepers_are_woken,
    signals_interrupt,
    several_readers_and_writers,
    number_changes_hands,
    threads_hand_over,
    processes_hand_over,
    killed_peers,
    partner_with_other_rights,
    children_take_part,
    descriptors_travel,
    program_writes_to_it,
    connected_by_name,
    filter_refuses_some_calls,
);
