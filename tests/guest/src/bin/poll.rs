//! Readiness: `poll(2)`, `ppoll(2)`, `select(2)`, `pselect6(2)`, epoll, `eventfd(2)`.

use std::time::{Duration, Instant};

use guest_tests::fs::{close, open, pipe, put, read, write};
use guest_tests::proc::{End, child, sleep, until_asleep, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};
use libc::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN,
    EPOLLONESHOT, EPOLLOUT, O_NONBLOCK, POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, pollfd,
    timespec,
};

fn poll(fds: &mut [(i32, i16, i16)], timeout: i32) -> Result<usize, i32> {
    let mut raw: Vec<pollfd> = fds
        .iter()
        .map(|(fd, events, _)| pollfd { fd: *fd, events: *events, revents: 77 })
        .collect();
    let n = sys!(SYS_poll, raw.as_mut_slice(), fds.len(), timeout)?;
    for (entry, raw) in fds.iter_mut().zip(raw) {
        entry.2 = raw.revents;
    }
    Ok(n)
}

fn poll_pipe_states() -> Outcome {
    let (reader, writer) = ok!(pipe(O_NONBLOCK));
    let mut fds = [(reader, POLLIN, 0), (writer, POLLOUT, 0)];
    eq!(ok!(poll(&mut fds, 0)), 1);
    eq!((fds[0].2, fds[1].2), (0, POLLOUT));
    ok!(write(writer, b"x"));
    eq!(ok!(poll(&mut fds, 0)), 2);
    eq!(fds[0].2, POLLIN);
    ok!(close(writer));
    eq!(ok!(poll(&mut fds, 0)), 2);
    eq!((fds[0].2, fds[1].2), (POLLIN | POLLHUP, POLLNVAL));
    let (reader, writer) = ok!(pipe(O_NONBLOCK));
    ok!(close(reader));
    let mut fds = [(writer, POLLOUT, 0)];
    ok!(poll(&mut fds, 0));
    eq!(fds[0].2, POLLOUT | POLLERR);
    Ok(())
}

fn poll_waits_and_wakes() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let started = Instant::now();
    eq!(ok!(poll(&mut [(reader, POLLIN, 0)], 20)), 0);
    check!(started.elapsed() >= Duration::from_millis(20));
    let pid = ok!(child(|| {
        let mut fds = [(reader, POLLIN, 0)];
        i32::from(!(poll(&mut fds, -1) == Ok(1) && fds[0].2 == POLLIN))
    }));
    check!(until_asleep(pid));
    ok!(write(writer, b"x"));
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn poll_special_entries() -> Outcome {
    let mut fds = [(-1, POLLIN, 0), (999, POLLIN, 0)];
    eq!(ok!(poll(&mut fds, 0)), 1);
    eq!((fds[0].2, fds[1].2), (0, POLLNVAL));
    ok!(put(c"f", b""));
    let fd = ok!(open(c"f", libc::O_RDWR));
    let mut fds = [(fd, POLLIN | POLLOUT, 0)];
    eq!(ok!(poll(&mut fds, 0)), 1);
    eq!(fds[0].2, POLLIN | POLLOUT);
    eq!(ok!(sys!(SYS_poll, 0, 0, 0)), 0);
    fails!(sys!(SYS_poll, 8, 1, 0), EFAULT);
    fails!(sys!(SYS_poll, 0, 1_000_000_000, 0), EINVAL);
    Ok(())
}

fn ppoll_mask_and_time() -> Outcome {
    ok!(sig::handle(libc::SIGUSR1, sig::record, 0));
    ok!(sig::block(libc::SIGUSR1));
    ok!(sig::raise(libc::SIGUSR1));
    let mut time = timespec { tv_sec: 20, tv_nsec: 0 };
    let none = 0u64;
    fails!(sys!(SYS_ppoll, 0, 0, &mut time, &none, 8), EINTR);
    eq!(sig::count(), 1);
    check!(ok!(sig::mask(libc::SIG_BLOCK, 0)) == sig::bit(libc::SIGUSR1));
    let mut time = timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    eq!(ok!(sys!(SYS_ppoll, 0, 0, &mut time, 0, 8)), 0);
    eq!((time.tv_sec, time.tv_nsec), (0, 0));
    let bad = timespec { tv_sec: 0, tv_nsec: -1 };
    fails!(sys!(SYS_ppoll, 0, 0, &bad, 0, 8), EINVAL);
    Ok(())
}

fn select_sets() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let mut readers = [0u64; 16];
    let mut writers = [0u64; 16];
    readers[0] = 1 << reader;
    writers[0] = 1 << writer;
    let mut zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
    eq!(ok!(sys!(SYS_select, 64, &mut readers, &mut writers, 0, &mut zero)), 1);
    eq!((readers[0], writers[0]), (0, 1 << writer));
    ok!(write(writer, b"x"));
    readers[0] = 1 << reader;
    eq!(ok!(sys!(SYS_select, 64, &mut readers, &mut writers, 0, &mut zero)), 2);
    eq!(readers[0], 1 << reader);
    readers[0] = 1 << 40;
    fails!(sys!(SYS_select, 64, &mut readers, 0, 0, &mut zero), EBADF);
    fails!(sys!(SYS_select, -1, 0, 0, 0, &mut zero), EINVAL);
    Ok(())
}

fn pselect_mask_and_time() -> Outcome {
    ok!(sig::handle(libc::SIGUSR1, sig::record, 0));
    ok!(sig::block(libc::SIGUSR1));
    ok!(sig::raise(libc::SIGUSR1));
    let mask = 0u64;
    let packed = [core::ptr::from_ref(&mask) as usize, 8];
    let time = timespec { tv_sec: 20, tv_nsec: 0 };
    fails!(sys!(SYS_pselect6, 0, 0, 0, 0, &time, &packed), EINTR);
    eq!(sig::count(), 1);
    let started = Instant::now();
    let time = timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    eq!(ok!(sys!(SYS_pselect6, 0, 0, 0, 0, &time, 0)), 0);
    check!(started.elapsed() >= Duration::from_millis(10));
    Ok(())
}

#[repr(C, packed)]
#[derive(Clone, Copy, Default)]
struct Event {
    events: u32,
    data: u64,
}

fn epoll() -> Result<i32, i32> {
    sys!(SYS_epoll_create1, libc::EPOLL_CLOEXEC).map(|fd| fd as i32)
}

fn ctl(epoll: i32, op: i32, fd: i32, events: i32, data: u64) -> Result<usize, i32> {
    let event = Event { events: events as u32, data };
    sys!(SYS_epoll_ctl, epoll, op, fd, &event)
}

/// Waits; returns (events, data) of all that are ready, sorted by data.
fn ready(epoll: i32, timeout: i32) -> Result<Vec<(i32, u64)>, i32> {
    let mut events = [Event::default(); 16];
    let n = sys!(SYS_epoll_wait, epoll, &mut events, 16, timeout)?;
    let mut all: Vec<(i32, u64)> =
        events[..n].iter().map(|event| (event.events as i32, event.data)).collect();
    all.sort_by_key(|(_, data)| *data);
    Ok(all)
}

fn epoll_level_triggered() -> Outcome {
    let ep = ok!(epoll());
    let (reader, writer) = ok!(pipe(0));
    ok!(ctl(ep, EPOLL_CTL_ADD, reader, EPOLLIN, 1));
    ok!(ctl(ep, EPOLL_CTL_ADD, writer, EPOLLOUT, 2));
    eq!(ok!(ready(ep, 0)), [(EPOLLOUT, 2)]);
    ok!(write(writer, b"ab"));
    eq!(ok!(ready(ep, 0)), [(EPOLLIN, 1), (EPOLLOUT, 2)]);
    eq!(ok!(ready(ep, 0)), [(EPOLLIN, 1), (EPOLLOUT, 2)]);
    ok!(ctl(ep, EPOLL_CTL_DEL, writer, 0, 0));
    let mut byte = [0u8; 2];
    ok!(read(reader, &mut byte));
    eq!(ok!(ready(ep, 0)), []);
    ok!(close(writer));
    eq!(ok!(ready(ep, 0)), [(EPOLLHUP, 1)]);
    Ok(())
}

fn epoll_edge_triggered() -> Outcome {
    let ep = ok!(epoll());
    let (reader, writer) = ok!(pipe(0));
    ok!(ctl(ep, EPOLL_CTL_ADD, reader, EPOLLIN | EPOLLET, 1));
    ok!(write(writer, b"a"));
    eq!(ok!(ready(ep, 0)), [(EPOLLIN, 1)]);
    eq!(ok!(ready(ep, 0)), []);
    ok!(write(writer, b"b"));
    eq!(ok!(ready(ep, 0)), [(EPOLLIN, 1)]);
    eq!(ok!(ready(ep, 0)), []);
    ok!(ctl(ep, EPOLL_CTL_MOD, reader, EPOLLIN | EPOLLET, 5));
    eq!(ok!(ready(ep, 0)), [(EPOLLIN, 5)]);
    Ok(())
}

/// Of two sets that wait for one file with `EPOLLEXCLUSIVE`, one is told.
fn epoll_exclusive_wakes_one() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let start = || {
        child(|| {
            let waited = epoll().and_then(|ep| {
                ctl(ep, EPOLL_CTL_ADD, reader, EPOLLIN | libc::EPOLLEXCLUSIVE, 1)?;
                ready(ep, 60_000)
            });
            i32::from(waited != Ok(vec![(EPOLLIN, 1)]))
        })
    };
    let children = [ok!(start()), ok!(start())];
    for pid in children {
        check!(until_asleep(pid));
    }
    ok!(write(writer, b"x"));
    let mut status = 0i32;
    let first = ok!(sys!(SYS_wait4, -1, &mut status, 0, 0)) as i32;
    eq!(status, 0);
    let other = if first == children[0] { children[1] } else { children[0] };
    eq!(ok!(sys!(SYS_wait4, other, &mut status, libc::WNOHANG, 0)), 0);
    check!(until_asleep(other));
    // It hears of the next event.
    ok!(write(writer, b"y"));
    eq!(ok!(wait(other)), End::Code(0));
    let ep = ok!(epoll());
    ok!(ctl(ep, EPOLL_CTL_ADD, reader, EPOLLIN | libc::EPOLLEXCLUSIVE, 1));
    fails!(ctl(ep, EPOLL_CTL_MOD, reader, EPOLLIN, 1), EINVAL);
    fails!(ctl(ep, EPOLL_CTL_ADD, writer, libc::EPOLLEXCLUSIVE | EPOLLONESHOT, 1), EINVAL);
    Ok(())
}

fn epoll_one_shot() -> Outcome {
    let ep = ok!(epoll());
    let (reader, writer) = ok!(pipe(0));
    ok!(ctl(ep, EPOLL_CTL_ADD, reader, EPOLLIN | EPOLLONESHOT, 1));
    ok!(write(writer, b"a"));
    eq!(ok!(ready(ep, 0)), [(EPOLLIN, 1)]);
    ok!(write(writer, b"a"));
    eq!(ok!(ready(ep, 0)), []);
    ok!(ctl(ep, EPOLL_CTL_MOD, reader, EPOLLIN | EPOLLONESHOT, 2));
    eq!(ok!(ready(ep, 0)), [(EPOLLIN, 2)]);
    Ok(())
}

fn epoll_errors() -> Outcome {
    let ep = ok!(epoll());
    let (reader, _writer) = ok!(pipe(0));
    ok!(ctl(ep, EPOLL_CTL_ADD, reader, EPOLLIN, 1));
    fails!(ctl(ep, EPOLL_CTL_ADD, reader, EPOLLIN, 1), EEXIST);
    fails!(ctl(ep, EPOLL_CTL_MOD, 0x3fff, EPOLLIN, 1), EBADF);
    let (other, _w) = ok!(pipe(0));
    fails!(ctl(ep, EPOLL_CTL_MOD, other, EPOLLIN, 1), ENOENT);
    fails!(ctl(ep, EPOLL_CTL_DEL, other, EPOLLIN, 1), ENOENT);
    fails!(ctl(ep, 9, other, EPOLLIN, 1), EINVAL);
    fails!(ctl(ep, EPOLL_CTL_ADD, ep, EPOLLIN, 1), EINVAL);
    fails!(ctl(reader, EPOLL_CTL_ADD, other, EPOLLIN, 1), EINVAL);
    ok!(put(c"f", b""));
    let file = ok!(open(c"f", libc::O_RDONLY));
    fails!(ctl(ep, EPOLL_CTL_ADD, file, EPOLLIN, 1), EPERM);
    let mut events = [Event::default(); 2];
    fails!(sys!(SYS_epoll_wait, ep, &mut events, 0, 0), EINVAL);
    fails!(sys!(SYS_epoll_wait, ep, &mut events, -1, 0), EINVAL);
    fails!(sys!(SYS_epoll_wait, reader, &mut events, 1, 0), EINVAL);
    fails!(sys!(SYS_epoll_create1, 1), EINVAL);
    fails!(sys!(SYS_epoll_create, 0), EINVAL);
    ok!(sys!(SYS_epoll_create, 1));
    Ok(())
}

fn epoll_nested_and_polled() -> Outcome {
    let (inner, outer) = (ok!(epoll()), ok!(epoll()));
    let (reader, writer) = ok!(pipe(0));
    ok!(ctl(inner, EPOLL_CTL_ADD, reader, EPOLLIN, 1));
    ok!(ctl(outer, EPOLL_CTL_ADD, inner, EPOLLIN, 2));
    fails!(ctl(inner, EPOLL_CTL_ADD, outer, EPOLLIN, 3), ELOOP);
    eq!(ok!(ready(outer, 0)), []);
    ok!(write(writer, b"x"));
    eq!(ok!(ready(outer, 0)), [(EPOLLIN, 2)]);
    let mut fds = [(outer, POLLIN, 0)];
    eq!(ok!(poll(&mut fds, 0)), 1);
    Ok(())
}

fn epoll_forgets_closed_files() -> Outcome {
    let ep = ok!(epoll());
    let (reader, writer) = ok!(pipe(0));
    let copy = ok!(sys!(SYS_dup, reader)) as i32;
    ok!(ctl(ep, EPOLL_CTL_ADD, reader, EPOLLIN, 1));
    ok!(write(writer, b"x"));
    ok!(close(reader));
    // The description lives on through the copy.
    eq!(ok!(ready(ep, 0)), [(EPOLLIN, 1)]);
    ok!(close(copy));
    eq!(ok!(ready(ep, 0)), []);
    Ok(())
}

fn epoll_wakes_waiter() -> Outcome {
    let ep = ok!(epoll());
    let (reader, writer) = ok!(pipe(0));
    ok!(ctl(ep, EPOLL_CTL_ADD, reader, EPOLLIN, 9));
    let pid = ok!(child(|| i32::from(ready(ep, -1) != Ok(vec![(EPOLLIN, 9)]))));
    check!(until_asleep(pid));
    ok!(write(writer, b"x"));
    eq!(ok!(wait(pid)), End::Code(0));
    let mut byte = [0u8];
    ok!(read(reader, &mut byte));
    // A descriptor added while somebody waits counts too.
    let (late_reader, late_writer) = ok!(pipe(0));
    let waiter = std::thread::spawn(move || ready(ep, 10_000));
    sleep(Duration::from_millis(10));
    ok!(ctl(ep, EPOLL_CTL_ADD, late_reader, EPOLLIN, 10));
    ok!(write(late_writer, b"x"));
    eq!(ok!(waiter.join().unwrap_or(Err(0))), [(EPOLLIN, 10)]);
    Ok(())
}

fn epoll_pwait_mask() -> Outcome {
    let ep = ok!(epoll());
    ok!(sig::handle(libc::SIGUSR1, sig::record, 0));
    ok!(sig::block(libc::SIGUSR1));
    ok!(sig::raise(libc::SIGUSR1));
    let mut events = [Event::default(); 2];
    let mask = 0u64;
    fails!(sys!(SYS_epoll_pwait, ep, &mut events, 2, 10_000, &mask, 8), EINTR);
    eq!(sig::count(), 1);
    let time = timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    eq!(ok!(sys!(SYS_epoll_pwait2, ep, &mut events, 2, &time, 0, 8)), 0);
    Ok(())
}

fn epoll_fairness_with_small_buffer() -> Outcome {
    let ep = ok!(epoll());
    for i in 0..10u64 {
        let (reader, writer) = ok!(pipe(0));
        ok!(write(writer, b"x"));
        ok!(ctl(ep, EPOLL_CTL_ADD, reader, EPOLLIN, i));
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let mut events = [Event::default(); 2];
        let n = ok!(sys!(SYS_epoll_wait, ep, &mut events, 2, 0));
        eq!(n, 2);
        seen.extend(events.iter().map(|event| event.data));
    }
    eq!(seen.len(), 10);
    Ok(())
}

fn eventfd_counter() -> Outcome {
    let fd = ok!(sys!(SYS_eventfd2, 3, O_NONBLOCK)) as i32;
    let mut value = [0u8; 8];
    eq!(ok!(read(fd, &mut value)), 8);
    eq!(u64::from_ne_bytes(value), 3);
    fails!(read(fd, &mut value), EAGAIN);
    eq!(ok!(write(fd, &5u64.to_ne_bytes())), 8);
    eq!(ok!(write(fd, &6u64.to_ne_bytes())), 8);
    ok!(read(fd, &mut value));
    eq!(u64::from_ne_bytes(value), 11);
    fails!(write(fd, &u64::MAX.to_ne_bytes()), EINVAL);
    ok!(write(fd, &(u64::MAX - 1).to_ne_bytes()));
    fails!(write(fd, &1u64.to_ne_bytes()), EAGAIN);
    fails!(write(fd, b"123"), EINVAL);
    fails!(sys!(SYS_read, fd, &mut value, 4), EINVAL);
    fails!(sys!(SYS_eventfd2, 0, 2), EINVAL);
    Ok(())
}

fn eventfd_semaphore_and_poll() -> Outcome {
    let fd = ok!(sys!(SYS_eventfd2, 2, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK)) as i32;
    let mut value = [0u8; 8];
    for _ in 0..2 {
        let mut fds = [(fd, POLLIN | POLLOUT, 0)];
        ok!(poll(&mut fds, 0));
        eq!(fds[0].2, POLLIN | POLLOUT);
        ok!(read(fd, &mut value));
        eq!(u64::from_ne_bytes(value), 1);
    }
    fails!(read(fd, &mut value), EAGAIN);
    let mut fds = [(fd, POLLIN | POLLOUT, 0)];
    ok!(poll(&mut fds, 0));
    eq!(fds[0].2, POLLOUT);
    Ok(())
}

fn eventfd_blocks_and_wakes() -> Outcome {
    let fd = ok!(sys!(SYS_eventfd, 0)) as i32;
    let pid = ok!(child(|| {
        let mut value = [0u8; 8];
        i32::from(read(fd, &mut value) != Ok(8) || u64::from_ne_bytes(value) != 4)
    }));
    check!(until_asleep(pid));
    ok!(write(fd, &4u64.to_ne_bytes()));
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn terminal_errors_in_epoll() -> Outcome {
    let ep = ok!(epoll());
    let (reader, writer) = ok!(pipe(0));
    ok!(ctl(ep, EPOLL_CTL_ADD, writer, EPOLLOUT, 1));
    ok!(close(reader));
    eq!(ok!(ready(ep, 0)), [(EPOLLOUT | EPOLLERR, 1)]);
    Ok(())
}

guest_tests::cases!(
    poll_pipe_states,
    poll_waits_and_wakes,
    poll_special_entries,
    ppoll_mask_and_time,
    select_sets,
    pselect_mask_and_time,
    epoll_level_triggered,
    epoll_edge_triggered,
    epoll_exclusive_wakes_one,
    epoll_one_shot,
    epoll_errors,
    epoll_nested_and_polled,
    epoll_forgets_closed_files,
    epoll_wakes_waiter,
    epoll_pwait_mask,
    epoll_fairness_with_small_buffer,
    eventfd_counter,
    eventfd_semaphore_and_poll,
    eventfd_blocks_and_wakes,
    terminal_errors_in_epoll,
);
