//! `epoll(7)` where a set is looked at again and again without waiting, and nothing is ready: until something is.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use guest_tests::fs::{close, pipe, read, write};
use guest_tests::mem::zeroed;
use guest_tests::proc::{in_child, until};
use guest_tests::quick;
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};
use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLIN, EPOLLOUT};

/// How often a set is looked at until it is looked at again and again.
const LIVELY: usize = 100;

fn set() -> Result<i32, i32> {
    sys!(SYS_epoll_create1, 0).map(|fd| fd as i32)
}

fn control(set: i32, op: i32, fd: i32, events: i32) -> Result<usize, i32> {
    let event = libc::epoll_event { events: events as u32, u64: fd as u64 };
    sys!(SYS_epoll_ctl, set, op, fd, &raw const event)
}

/// Returns how many files are ready, of at most four.
fn look(set: i32) -> Result<usize, i32> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 4];
    quick::epoll_wait([set as usize, events.as_mut_ptr().expose_provenance(), 4, 0])
}

/// Looks at a set in which nothing is ready, many times.
fn enliven(set: i32) -> Outcome {
    for _ in 0..LIVELY {
        eq!(ok!(look(set)), 0);
    }
    Ok(())
}

/// A set with the reading end of a pipe.
fn with_pipe() -> Result<(i32, i32, i32), i32> {
    let (reader, writer) = pipe(0)?;
    let set = set()?;
    control(set, EPOLL_CTL_ADD, reader, EPOLLIN)?;
    Ok((set, reader, writer))
}

fn write_is_seen_at_once() -> Outcome {
    let (set, reader, writer) = ok!(with_pipe());
    for i in 0..300 {
        for _ in 0..i {
            eq!(ok!(look(set)), 0);
        }
        eq!(ok!(quick::write([writer as usize, c"x".as_ptr().addr(), 1, 0])), 1);
        eq!(ok!(look(set)), 1);
        eq!(ok!(look(set)), 1);
        eq!(ok!(read(reader, &mut [0])), 1);
        eq!(ok!(look(set)), 0);
    }
    enliven(set)?;
    ok!(close(writer));
    eq!(ok!(look(set)), 1);
    ok!(close(reader));
    enliven(set)?;
    ok!(close(set));
    fails!(look(set), EBADF);
    Ok(())
}

fn every_kind_is_seen() -> Outcome {
    let set = ok!(set());
    let watch = |fd: i32| -> Outcome {
        ok!(control(set, EPOLL_CTL_ADD, fd, EPOLLIN));
        enliven(set)
    };
    let forget = |fd: i32| -> Outcome {
        eq!(ok!(look(set)), 1);
        ok!(control(set, EPOLL_CTL_DEL, fd, 0));
        enliven(set)?;
        ok!(close(fd));
        Ok(())
    };
    for _ in 0..3 {
        let counter = ok!(sys!(SYS_eventfd2, 0, 0)) as i32;
        watch(counter)?;
        eq!(ok!(write(counter, &1_u64.to_ne_bytes())), 8);
        forget(counter)?;

        let timer = ok!(sys!(SYS_timerfd_create, libc::CLOCK_MONOTONIC, 0)) as i32;
        watch(timer)?;
        let mut times: libc::itimerspec = zeroed();
        times.it_value.tv_nsec = 3_000_000;
        ok!(sys!(SYS_timerfd_settime, timer, 0, &raw const times, 0));
        check!(until(|| look(set) == Ok(1)));
        forget(timer)?;

        let mut pair = [0_i32; 2];
        ok!(sys!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, &mut pair));
        watch(pair[0])?;
        eq!(ok!(write(pair[1], b"x")), 1);
        forget(pair[0])?;
        ok!(close(pair[1]));

        let bit = sig::bit(libc::SIGUSR1);
        ok!(sig::mask(libc::SIG_BLOCK, bit));
        let signals = ok!(sys!(SYS_signalfd4, -1, &bit, 8, 0)) as i32;
        watch(signals)?;
        ok!(sig::raise(libc::SIGUSR1));
        eq!(ok!(look(set)), 1);
        eq!(ok!(read(signals, &mut [0; 128])), 128);
        enliven(set)?;
        ok!(control(set, EPOLL_CTL_DEL, signals, 0));
        ok!(close(signals));

        let (inner, reader, writer) = ok!(with_pipe());
        watch(inner)?;
        enliven(inner)?;
        eq!(ok!(write(writer, b"x")), 1);
        eq!(ok!(look(inner)), 1);
        forget(inner)?;
        ok!(close(reader));
        ok!(close(writer));
    }
    ok!(close(set));
    Ok(())
}

fn lively_streams_are_seen() -> Outcome {
    let set = ok!(set());
    let mut pair = [0_i32; 2];
    ok!(sys!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, &mut pair));
    let pipe = ok!(pipe(0));
    let byte = c"x".as_ptr().addr();
    for (reader, writer) in [pipe, (pair[0], pair[1])] {
        for _ in 0..4 {
            for _ in 0..300 {
                eq!(ok!(quick::write([writer as usize, byte, 1, 0])), 1);
                eq!(ok!(read(reader, &mut [0])), 1);
            }
            ok!(control(set, EPOLL_CTL_ADD, reader, EPOLLIN));
            for i in 0..200 {
                for _ in 0..i % 20 {
                    eq!(ok!(look(set)), 0);
                }
                eq!(ok!(quick::write([writer as usize, byte, 1, 0])), 1);
                eq!(ok!(look(set)), 1);
                eq!(ok!(read(reader, &mut [0])), 1);
            }
            enliven(set)?;
            ok!(control(set, EPOLL_CTL_DEL, reader, 0));
        }
    }
    for fd in [set, pipe.0, pipe.1, pair[0], pair[1]] {
        ok!(close(fd));
    }
    Ok(())
}

fn changes_of_the_set_are_seen() -> Outcome {
    let (set, reader, writer) = ok!(with_pipe());
    for _ in 0..5 {
        enliven(set)?;
        ok!(control(set, EPOLL_CTL_ADD, writer, EPOLLOUT));
        eq!(ok!(look(set)), 1);
        ok!(control(set, EPOLL_CTL_MOD, writer, 0));
        enliven(set)?;
        ok!(control(set, EPOLL_CTL_MOD, writer, EPOLLOUT));
        eq!(ok!(look(set)), 1);
        ok!(control(set, EPOLL_CTL_DEL, writer, 0));
        enliven(set)?;
        ok!(control(set, EPOLL_CTL_MOD, reader, EPOLLIN | libc::EPOLLONESHOT));
        enliven(set)?;
        eq!(ok!(write(writer, b"x")), 1);
        eq!(ok!(look(set)), 1);
        enliven(set)?;
        eq!(ok!(read(reader, &mut [0])), 1);
        ok!(control(set, EPOLL_CTL_MOD, reader, EPOLLIN | libc::EPOLLET));
        enliven(set)?;
        eq!(ok!(write(writer, b"x")), 1);
        eq!(ok!(look(set)), 1);
        enliven(set)?;
        eq!(ok!(write(writer, b"x")), 1);
        eq!(ok!(look(set)), 1);
        eq!(ok!(read(reader, &mut [0; 2])), 2);
        ok!(control(set, EPOLL_CTL_MOD, reader, EPOLLIN));
    }
    for fd in [set, reader, writer] {
        ok!(close(fd));
    }
    Ok(())
}

fn what_others_do_is_seen() -> Outcome {
    let (set, reader, writer) = ok!(with_pipe());
    // Whoever has been told of a write sees it.
    let (asked, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
    const N: usize = 400;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            for i in 1..=N {
                while asked.load(SeqCst) != i {
                    std::thread::yield_now();
                }
                if write(writer, b"x") != Ok(1) {
                    return false;
                }
                told.store(i, SeqCst);
            }
            true
        });
        let mut went_well = true;
        for i in 1..=N {
            for _ in 0..40 {
                went_well &= look(set) == Ok(0);
            }
            asked.store(i, SeqCst);
            while told.load(SeqCst) != i && !other.is_finished() {
                let _ = look(set);
            }
            went_well &= look(set) == Ok(1);
            went_well &= read(reader, &mut [0]) == Ok(1);
        }
        went_well && other.join().unwrap_or(false)
    })
    .then_some(())
    .ok_or_else(|| "a look has missed a write, or seen one too soon".to_owned())?;
    let (news, teller) = ok!(pipe(0));
    for _ in 0..3 {
        enliven(set)?;
        in_child(|| {
            enliven(set)?;
            eq!(ok!(write(writer, b"x")), 1);
            eq!(ok!(look(set)), 1);
            eq!(ok!(write(teller, b"x")), 1);
            Ok(())
        })?;
        eq!(ok!(read(news, &mut [0])), 1);
        eq!(ok!(look(set)), 1);
        eq!(ok!(read(reader, &mut [0])), 1);
        enliven(set)?;
    }
    for fd in [set, reader, writer, news, teller] {
        ok!(close(fd));
    }
    Ok(())
}

fn numbers_change_hands() -> Outcome {
    let (set, reader, writer) = ok!(with_pipe());
    for _ in 0..3 {
        enliven(set)?;
        let other = ok!(sys!(SYS_dup, set)) as i32;
        enliven(other)?;
        enliven(set)?;
        eq!(ok!(write(writer, b"x")), 1);
        eq!(ok!(look(other)), 1);
        eq!(ok!(look(set)), 1);
        eq!(ok!(read(reader, &mut [0])), 1);
        enliven(other)?;
        ok!(sys!(SYS_dup2, reader, other));
        fails!(look(other), EINVAL);
        ok!(close(other));
        fails!(look(other), EBADF);
    }
    for fd in [set, reader, writer] {
        ok!(close(fd));
    }
    Ok(())
}

fn errors() -> Outcome {
    let (set, reader, writer) = ok!(with_pipe());
    let mut buf = [0u8; 16];
    let addr = buf.as_mut_ptr().expose_provenance();
    let fd = set as usize;
    for _ in 0..3 {
        enliven(set)?;
        for max in [0, usize::MAX, i32::MIN as usize, i32::MAX as usize] {
            fails!(quick::epoll_wait([fd, addr, max, 0]), EINVAL);
        }
        eq!(ok!(quick::epoll_wait([fd, 0, 1, 0])), 0);
        for nowhere in [usize::MAX, usize::MAX - 11, 1 << 63] {
            fails!(quick::epoll_wait([fd, nowhere, 1, 0]), EFAULT);
            fails!(sys!(SYS_epoll_wait, fd, nowhere, 1, 0), EFAULT);
        }
        // Only the lower half counts.
        eq!(ok!(quick::epoll_wait([fd, addr, 1 | 1 << 32, 1 << 32])), 0);
        eq!(ok!(quick::epoll_wait([fd, addr, 1, 1])), 0);
        enliven(set)?;
        fails!(quick::read([fd, addr, 1, 0]), EINVAL);
        fails!(quick::write([fd, addr, 1, 0]), EINVAL);
        enliven(set)?;
        fails!(quick::pread([fd, addr, 1, 0]), ESPIPE);
    }
    for fd in [set, reader, writer] {
        ok!(close(fd));
    }
    Ok(())
}

guest_tests::cases!(
    write_is_seen_at_once,
    every_kind_is_seen,
    lively_streams_are_seen,
    changes_of_the_set_are_seen,
    what_others_do_is_seen,
    numbers_change_hands,
    errors,
);
