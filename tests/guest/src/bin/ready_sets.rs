//! `epoll(7)` where a set is looked at again and again, and the same is ready each time: until something changes.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use guest_tests::fs::{close, pipe, read, write};
use guest_tests::proc::in_child;
use guest_tests::quick;
use guest_tests::rng::Rng;
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN,
    EPOLLONESHOT, EPOLLOUT,
};

/// How often a set is looked at until it is looked at again and again.
const LIVELY: usize = 100;
const MAX: usize = 20;

/// What a look has found: events and numbers.
type Found = Vec<(i32, u64)>;

fn set() -> Result<i32, i32> {
    sys!(SYS_epoll_create1, 0).map(|fd| fd as i32)
}

fn control(set: i32, op: i32, fd: i32, events: i32, number: u64) -> Result<usize, i32> {
    let event = libc::epoll_event { events: events as u32, u64: number };
    sys!(SYS_epoll_ctl, set, op, fd, &raw const event)
}

/// Waits for at most so many events.
fn wait(set: i32, max: usize, timeout: i32) -> Result<Found, i32> {
    let mut events = [libc::epoll_event { events: 7, u64: 7 }; MAX];
    let addr = events.as_mut_ptr().expose_provenance();
    let n = quick::epoll_wait([set as usize, addr, max, timeout as usize])?;
    Ok(events.iter().take(n).map(|event| (event.events as i32, event.u64)).collect())
}

fn look(set: i32) -> Result<Found, i32> {
    wait(set, MAX, 0)
}

/// Looks at a set many times, which finds this.
fn finds(set: i32, what: &[(i32, u64)]) -> Outcome {
    for i in 0..LIVELY {
        let timeout = if what.is_empty() { 0 } else { [0, -1, 1000][i % 3] };
        eq!(ok!(wait(set, MAX, timeout)), what);
    }
    Ok(())
}

/// A set with the reading end of a pipe that has a byte, under the number 5.
fn with_pipe() -> Result<(i32, i32, i32), i32> {
    let (reader, writer) = pipe(0)?;
    let set = set()?;
    control(set, EPOLL_CTL_ADD, reader, EPOLLIN, 5)?;
    write(writer, b"x")?;
    Ok((set, reader, writer))
}

const READY: [(i32, u64); 1] = [(EPOLLIN, 5)];

fn read_is_seen_at_once() -> Outcome {
    let (set, reader, writer) = ok!(with_pipe());
    for i in 0..200 {
        for _ in 0..i {
            eq!(ok!(look(set)), READY);
        }
        eq!(ok!(quick::read([reader as usize, [0_u8].as_mut_ptr().addr(), 1, 0])), 1);
        eq!(ok!(look(set)), []);
        eq!(ok!(quick::write([writer as usize, c"x".as_ptr().addr(), 1, 0])), 1);
        eq!(ok!(look(set)), READY);
    }
    finds(set, &READY)?;
    // More is ready still.
    eq!(ok!(write(writer, b"yz")), 2);
    eq!(ok!(read(reader, &mut [0; 2])), 2);
    finds(set, &READY)?;
    let other = ok!(sys!(SYS_dup, reader)) as i32;
    finds(set, &READY)?;
    eq!(ok!(read(other, &mut [0])), 1);
    finds(set, &[])?;
    eq!(ok!(write(writer, b"x")), 1);
    finds(set, &READY)?;
    ok!(close(writer));
    finds(set, &[(EPOLLIN | EPOLLHUP, 5)])?;
    eq!(ok!(read(reader, &mut [0])), 1);
    finds(set, &[(EPOLLHUP, 5)])?;
    ok!(close(reader));
    // The other descriptor keeps the file open.
    finds(set, &[(EPOLLHUP, 5)])?;
    ok!(close(other));
    finds(set, &[])?;
    ok!(close(set));
    fails!(look(set), EBADF);
    Ok(())
}

fn changes_of_the_set_are_seen() -> Outcome {
    let (set, reader, writer) = ok!(with_pipe());
    for _ in 0..5 {
        finds(set, &READY)?;
        ok!(control(set, EPOLL_CTL_MOD, reader, EPOLLIN, u64::MAX - 1));
        eq!(ok!(look(set)), [(EPOLLIN, u64::MAX - 1)]);
        finds(set, &[(EPOLLIN, u64::MAX - 1)])?;
        ok!(control(set, EPOLL_CTL_MOD, reader, EPOLLOUT, 5));
        finds(set, &[])?;
        ok!(control(set, EPOLL_CTL_MOD, reader, EPOLLIN, 5));
        finds(set, &READY)?;
        ok!(control(set, EPOLL_CTL_DEL, reader, 0, 0));
        finds(set, &[])?;
        ok!(control(set, EPOLL_CTL_ADD, reader, EPOLLIN, 5));
        finds(set, &READY)?;
        ok!(control(set, EPOLL_CTL_ADD, writer, EPOLLOUT, 6));
        finds(set, &[(EPOLLIN, 5), (EPOLLOUT, 6)])?;
        ok!(control(set, EPOLL_CTL_DEL, writer, 0, 0));
        finds(set, &READY)?;
        for flag in [EPOLLET, EPOLLONESHOT] {
            ok!(control(set, EPOLL_CTL_MOD, reader, EPOLLIN | flag, 5));
            eq!(ok!(look(set)), READY);
            finds(set, &[])?;
            ok!(control(set, EPOLL_CTL_MOD, reader, EPOLLIN, 5));
            finds(set, &READY)?;
        }
    }
    // One that is told of once beside one that is told of always.
    let (other, other_writer) = ok!(pipe(0));
    ok!(control(set, EPOLL_CTL_ADD, other, EPOLLIN | EPOLLET, 8));
    for _ in 0..5 {
        finds(set, &READY)?;
        eq!(ok!(write(other_writer, b"x")), 1);
        eq!(ok!(look(set)), [READY[0], (EPOLLIN, 8)]);
    }
    finds(set, &READY)?;
    for fd in [set, reader, writer, other, other_writer] {
        ok!(close(fd));
    }
    Ok(())
}

fn order_is_kept() -> Outcome {
    let set = ok!(set());
    let mut pipes = Vec::new();
    for number in 0..18 {
        let (reader, writer) = ok!(pipe(0));
        ok!(control(set, EPOLL_CTL_ADD, reader, EPOLLIN, number));
        pipes.push((reader, writer));
    }
    let told =
        |numbers: &[u64]| -> Found { numbers.iter().map(|number| (EPOLLIN, *number)).collect() };
    for number in [2, 0, 1] {
        eq!(ok!(write(pipes[number].1, b"x")), 1);
    }
    finds(set, &told(&[2, 0, 1]))?;
    eq!(ok!(wait(set, 1, 0)), told(&[2]));
    finds(set, &told(&[0, 1, 2]))?;
    eq!(ok!(wait(set, 2, -1)), told(&[0, 1]));
    eq!(ok!(wait(set, 2, -1)), told(&[2, 0]));
    eq!(ok!(wait(set, 3, -1)), told(&[1, 2, 0]));
    finds(set, &told(&[1, 2, 0]))?;
    // One of them falls out in the middle.
    eq!(ok!(read(pipes[2].0, &mut [0])), 1);
    finds(set, &told(&[1, 0]))?;
    eq!(ok!(write(pipes[2].1, b"x")), 1);
    finds(set, &told(&[1, 0, 2]))?;
    // A child shares the set.
    in_child(|| {
        finds(set, &told(&[1, 0, 2]))?;
        eq!(ok!(wait(set, 1, 0)), told(&[1]));
        Ok(())
    })?;
    finds(set, &told(&[0, 2, 1]))?;
    // As many as there can be, and more.
    let mut all = vec![0, 2, 1];
    for (number, (_, writer)) in (0..).zip(&pipes).skip(3) {
        eq!(ok!(write(*writer, b"x")), 1);
        all.push(number);
        finds(set, &told(&all))?;
    }
    for (i, (reader, _)) in pipes.iter().enumerate() {
        eq!(ok!(read(*reader, &mut [0])), 1);
        all.retain(|number| *number != i as u64);
        finds(set, &told(&all))?;
    }
    for (reader, writer) in pipes {
        ok!(close(reader));
        ok!(close(writer));
    }
    ok!(close(set));
    Ok(())
}

fn counters_are_seen() -> Outcome {
    let set = ok!(set());
    let counter = ok!(sys!(SYS_eventfd2, 2, libc::EFD_SEMAPHORE)) as i32;
    ok!(control(set, EPOLL_CTL_ADD, counter, EPOLLIN | EPOLLOUT, 3));
    for _ in 0..5 {
        finds(set, &[(EPOLLIN | EPOLLOUT, 3)])?;
        eq!(ok!(read(counter, &mut [0; 8])), 8);
        finds(set, &[(EPOLLIN | EPOLLOUT, 3)])?;
        eq!(ok!(read(counter, &mut [0; 8])), 8);
        eq!(ok!(look(set)), [(EPOLLOUT, 3)]);
        finds(set, &[(EPOLLOUT, 3)])?;
        eq!(ok!(write(counter, &(u64::MAX - 1).to_ne_bytes())), 8);
        finds(set, &[(EPOLLIN, 3)])?;
        // Other sets, and those who ask otherwise, see the same.
        let other = ok!(self::set());
        ok!(control(other, EPOLL_CTL_ADD, counter, EPOLLIN, 4));
        finds(other, &[(EPOLLIN, 4)])?;
        finds(set, &[(EPOLLIN, 3)])?;
        ok!(control(other, EPOLL_CTL_ADD, set, EPOLLIN, 9));
        finds(other, &[(EPOLLIN, 4), (EPOLLIN, 9)])?;
        ok!(close(other));
        finds(set, &[(EPOLLIN, 3)])?;
        ok!(control(set, EPOLL_CTL_DEL, counter, 0, 0));
        ok!(close(counter));
        let again = ok!(sys!(SYS_eventfd2, 2, libc::EFD_SEMAPHORE)) as i32;
        eq!(again, counter);
        ok!(control(set, EPOLL_CTL_ADD, counter, EPOLLIN | EPOLLOUT, 3));
    }
    ok!(close(counter));
    eq!(ok!(look(set)), []);
    ok!(close(set));
    Ok(())
}

fn what_others_do_is_seen() -> Outcome {
    let (set, reader, writer) = ok!(with_pipe());
    // Whoever has been told of a read sees it.
    let (asked, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
    const N: usize = 400;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            for i in 1..=N {
                while asked.load(SeqCst) != i {
                    std::thread::yield_now();
                }
                if read(reader, &mut [0]) != Ok(1) {
                    return false;
                }
                told.store(i, SeqCst);
            }
            true
        });
        let mut went_well = true;
        for i in 1..=N {
            for _ in 0..40 {
                went_well &= look(set).is_ok_and(|found| found == READY);
            }
            asked.store(i, SeqCst);
            while told.load(SeqCst) != i && !other.is_finished() {
                let _ = look(set);
            }
            went_well &= look(set) == Ok(Vec::new());
            went_well &= write(writer, b"x") == Ok(1);
        }
        went_well && other.join().unwrap_or(false)
    })
    .then_some(())
    .ok_or_else(|| "a look has missed a read, or seen one too soon".to_owned())?;
    for _ in 0..3 {
        finds(set, &READY)?;
        in_child(|| {
            finds(set, &READY)?;
            eq!(ok!(read(reader, &mut [0])), 1);
            eq!(ok!(look(set)), []);
            Ok(())
        })?;
        eq!(ok!(look(set)), []);
        eq!(ok!(write(writer, b"x")), 1);
    }
    // Two threads look at once. (One of them may find nothing then, before Linux 6.18.)
    let is_well = std::thread::scope(|scope| {
        let is_right = move |found: Found| found.is_empty() || found == READY;
        let look_always = move || (0..2000).all(|_| look(set).is_ok_and(is_right));
        let other = scope.spawn(look_always);
        look_always() && other.join().unwrap_or(false)
    });
    check!(is_well);
    for fd in [set, reader, writer] {
        ok!(close(fd));
    }
    Ok(())
}

fn other_transfers_are_seen() -> Outcome {
    let (set, reader, writer) = ok!(with_pipe());
    let (other_reader, other_writer) = ok!(pipe(0));
    for _ in 0..3 {
        finds(set, &READY)?;
        eq!(ok!(sys!(SYS_tee, reader, other_writer, 1, 0)), 1);
        finds(set, &READY)?;
        eq!(ok!(sys!(SYS_splice, reader, 0, other_writer, 0, 1, 0)), 1);
        eq!(ok!(look(set)), []);
        eq!(ok!(sys!(SYS_splice, other_reader, 0, writer, 0, 1, 0)), 1);
        eq!(ok!(read(other_reader, &mut [0])), 1);
        eq!(ok!(look(set)), READY);
    }
    for fd in [set, reader, writer, other_reader, other_writer] {
        ok!(close(fd));
    }
    Ok(())
}

fn full_pipe_is_seen() -> Outcome {
    let (set, reader, writer) = ok!(with_pipe());
    ok!(control(set, EPOLL_CTL_ADD, writer, EPOLLOUT, 6));
    let both = [READY[0], (EPOLLOUT, 6)];
    finds(set, &both)?;
    // Its only page has something.
    ok!(sys!(SYS_fcntl, writer, libc::F_SETPIPE_SZ, 4096));
    finds(set, &READY)?;
    ok!(sys!(SYS_fcntl, writer, libc::F_SETPIPE_SZ, 65536));
    finds(set, &both)?;
    eq!(ok!(write(writer, &[0; 65535])), 65535);
    finds(set, &READY)?;
    eq!(ok!(read(reader, &mut [0; 8192])), 8192);
    finds(set, &both)?;
    ok!(close(reader));
    finds(set, &[(EPOLLOUT | EPOLLERR, 6)])?;
    ok!(close(writer));
    ok!(close(set));
    Ok(())
}

fn as_a_model_says() -> Outcome {
    const N: usize = 6;
    let mut random = Rng::new(11);
    let set = ok!(set());
    let mut pipes = Vec::new();
    for number in 0..N {
        let (reader, writer) = ok!(pipe(libc::O_NONBLOCK));
        ok!(control(set, EPOLL_CTL_ADD, reader, EPOLLIN, number as u64));
        pipes.push((reader, writer, 0_usize));
    }
    for _ in 0..3000 {
        let number = random.below(N);
        let Some((reader, writer, n)) = pipes.get_mut(number) else { continue };
        match random.below(4) {
            0 => {
                let gone = read(*reader, &mut [0; 3]).unwrap_or(0);
                eq!(gone, (*n).min(3));
                *n -= gone;
            }
            1 if *n < 100 => *n += ok!(write(*writer, b"x")),
            2 if random.one_in(10) => {
                ok!(control(set, EPOLL_CTL_MOD, *reader, EPOLLIN, number as u64));
            }
            _ => {}
        }
        let ready = (0..).zip(&pipes).filter(|(_, (.., n))| *n != 0).map(|(i, _)| (EPOLLIN, i));
        let ready: Found = ready.collect();
        let times = if random.one_in(8) { 40 } else { 1 + random.below(3) };
        let mut before = None;
        for _ in 0..times {
            let found = ok!(look(set));
            // Nothing changes their order.
            check!(before.is_none_or(|before| before == found));
            let mut sorted = found.clone();
            sorted.sort_unstable();
            eq!(sorted, ready);
            before = Some(found);
        }
    }
    for (reader, writer, _) in pipes {
        ok!(close(reader));
        ok!(close(writer));
    }
    ok!(close(set));
    Ok(())
}

fn errors() -> Outcome {
    let (set, reader, writer) = ok!(with_pipe());
    let fd = set as usize;
    let mut event = [0_u8; 16];
    let addr = event.as_mut_ptr().expose_provenance();
    for _ in 0..3 {
        finds(set, &READY)?;
        // Nothing is lost.
        for nowhere in [0, 8, usize::MAX, usize::MAX - 11, 1 << 63] {
            fails!(quick::epoll_wait([fd, nowhere, 1, 0]), EFAULT);
            finds(set, &READY)?;
        }
        for max in [0, usize::MAX, i32::MIN as usize, i32::MAX as usize] {
            fails!(quick::epoll_wait([fd, addr, max, 0]), EINVAL);
        }
        // What it does not write to need not be there.
        eq!(ok!(quick::epoll_wait([fd, addr, 1 << 20, 0])), 1);
        finds(set, &READY)?;
        fails!(quick::read([fd, addr, 1, 0]), EINVAL);
        fails!(quick::pread([fd, addr, 1, 0]), ESPIPE);
    }
    // No event is written beyond those that there are.
    check!(event[12..] == [0; 4]);
    for fd in [set, reader, writer] {
        ok!(close(fd));
    }
    Ok(())
}

guest_tests::cases!(
    read_is_seen_at_once,
    changes_of_the_set_are_seen,
    order_is_kept,
    counters_are_seen,
    what_others_do_is_seen,
    other_transfers_are_seen,
    full_pipe_is_seen,
    as_a_model_says,
    errors,
);
