//! Between threads and processes: pipes, sockets, events, futexes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use crate::call::{call, close, fork, measure, wait};

fn pipe() -> (i32, i32) {
    let mut fds = [0i32; 2];
    call!(293, fds.as_mut_ptr(), 0);
    let fds = std::hint::black_box(fds);
    (fds[0], fds[1])
}

/// A byte into a pipe and out of it again, within one thread.
pub(crate) fn pipe_to_self() -> f64 {
    let (reader, writer) = pipe();
    let mut byte = [0u8];
    let time = measure(|| {
        call!(1, writer, byte.as_ptr(), 1);
        call!(0, reader, byte.as_mut_ptr(), 1);
    });
    close(reader);
    close(writer);
    time
}

/// A byte to another process and back.
pub(crate) fn pipe_ping_pong() -> f64 {
    let (r1, w1) = pipe();
    let (r2, w2) = pipe();
    let mut byte = [0u8];
    let pid = fork(|| {
        close(w1);
        let mut byte = [0u8];
        while call!(0, r1, byte.as_mut_ptr(), 1) == 1 {
            call!(1, w2, byte.as_ptr(), 1);
        }
    });
    let time = measure(|| {
        call!(1, w1, byte.as_ptr(), 1);
        call!(0, r2, byte.as_mut_ptr(), 1);
    });
    close(w1);
    wait(pid);
    for fd in [r1, r2, w2] {
        close(fd);
    }
    time
}

/// A number to another process and back, by two event counters.
pub(crate) fn eventfd_ping_pong() -> f64 {
    let there = call!(290, 0, 0) as i32;
    let back = call!(290, 0, 0) as i32;
    const STOP: u64 = 1 << 40;
    let pid = fork(|| {
        let mut value = 0u64;
        while call!(0, there, &raw mut value, 8) == 8 && value < STOP {
            call!(1, back, &raw const value, 8);
        }
    });
    let mut value = 1u64;
    let time = measure(|| {
        value = 1;
        call!(1, there, &raw const value, 8);
        call!(0, back, &raw mut value, 8);
    });
    value = STOP;
    call!(1, there, &raw const value, 8);
    wait(pid);
    close(there);
    close(back);
    time
}

/// A message of 64 bytes to a thread and back over two connected descriptors.
fn message_ping_pong(ours: i32, theirs: i32) -> f64 {
    let thread = std::thread::spawn(move || {
        let mut message = [0u8; 64];
        while call!(45, theirs, message.as_mut_ptr(), 64, 0, 0, 0) == 64 {
            call!(44, theirs, message.as_ptr(), 64, 0, 0, 0);
        }
    });
    let mut message = [1u8; 64];
    let time = measure(|| {
        call!(44, ours, message.as_ptr(), 64, 0, 0, 0);
        call!(45, ours, message.as_mut_ptr(), 64, 0, 0, 0);
    });
    call!(48, ours, libc::SHUT_RDWR);
    let _ = thread.join();
    time
}

pub(crate) fn unix_ping_pong() -> f64 {
    match UnixStream::pair() {
        Ok((a, b)) => message_ping_pong(a.as_raw_fd(), b.as_raw_fd()),
        Err(_) => f64::NAN,
    }
}

fn connection() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok((client, server))
}

pub(crate) fn tcp_ping_pong() -> f64 {
    match connection() {
        Ok((a, b)) => message_ping_pong(a.as_raw_fd(), b.as_raw_fd()),
        Err(_) => f64::NAN,
    }
}

/// 64 bytes into a unix socket and out of it, within one thread.
pub(crate) fn unix_to_self() -> f64 {
    let Ok((a, b)) = UnixStream::pair() else { return f64::NAN };
    let (a, b) = (a.as_raw_fd(), b.as_raw_fd());
    let mut message = [1u8; 64];
    measure(|| {
        call!(44, a, message.as_ptr(), 64, 0, 0, 0);
        call!(45, b, message.as_mut_ptr(), 64, 0, 0, 0);
    })
}

/// An event counter's number added and taken, within one thread.
pub(crate) fn eventfd_to_self() -> f64 {
    let fd = call!(290, 0, 0) as i32;
    let mut value = 1u64;
    let time = measure(|| {
        call!(1, fd, &raw const value, 8);
        call!(0, fd, &raw mut value, 8);
    });
    close(fd);
    time
}

/// `epoll_wait` on sixteen pipes of which one is ready.
pub(crate) fn epoll_wait() -> f64 {
    let epoll = call!(291, 0) as i32;
    let pipes: Vec<(i32, i32)> = (0..16).map(|_| pipe()).collect();
    for (reader, _) in &pipes {
        let event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: *reader as u64 };
        call!(233, epoll, libc::EPOLL_CTL_ADD, *reader, &raw const event);
    }
    if let Some((_, writer)) = pipes.first() {
        call!(1, *writer, b"x".as_ptr(), 1);
    }
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 16];
    let time = measure(|| {
        call!(232, epoll, events.as_mut_ptr(), 16, -1i32);
    });
    for (reader, writer) in pipes {
        close(reader);
        close(writer);
    }
    close(epoll);
    time
}

pub(crate) fn futex_wake() -> f64 {
    let word = AtomicU32::new(0);
    measure(|| {
        call!(202, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
    })
}

/// Two threads that wake each other.
pub(crate) fn futex_hand_over() -> f64 {
    static WORD: AtomicU32 = AtomicU32::new(0);
    const STOP: u32 = 9;
    fn wait_while(value: u32) -> u32 {
        loop {
            let now = WORD.load(SeqCst);
            if now != value {
                return now;
            }
            call!(202, WORD.as_ptr(), libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, value, 0);
        }
    }
    fn set(value: u32) {
        WORD.store(value, SeqCst);
        call!(202, WORD.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
    }
    WORD.store(0, SeqCst);
    let thread = std::thread::spawn(|| {
        while wait_while(0) != STOP {
            set(0);
        }
    });
    let time = measure(|| {
        set(1);
        wait_while(1);
    });
    set(STOP);
    let _ = thread.join();
    time
}

/// A mutex that four threads want all the time: the time from one taking to the next.
pub(crate) fn contended_mutex() -> f64 {
    static COUNT: Mutex<u64> = Mutex::new(0);
    static STOP: AtomicBool = AtomicBool::new(false);
    fn take() {
        if let Ok(mut count) = COUNT.lock() {
            for _ in 0..50 {
                *count = std::hint::black_box(*count + 1);
            }
        }
    }
    STOP.store(false, SeqCst);
    let others: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn(|| {
                while !STOP.load(SeqCst) {
                    take();
                }
            })
        })
        .collect();
    let before = COUNT.lock().map_or(0, |count| *count);
    let mut runs = 0u64;
    let each = measure(|| {
        take();
        runs += 1;
    });
    let after = COUNT.lock().map_or(0, |count| *count);
    STOP.store(true, SeqCst);
    for thread in others {
        let _ = thread.join();
    }
    // All that were taken while this thread took `runs`.
    let taken = (after - before) as f64 / 50.0;
    each * runs as f64 / taken.max(1.0)
}

/// Gives back every byte that comes over a connection, one connection after the other.
pub(crate) fn answer(port: &str) {
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).expect("cannot listen");
    for stream in listener.incoming() {
        let mut stream = stream.expect("cannot accept");
        stream.set_nodelay(true).expect("cannot set TCP_NODELAY");
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|n| n == 1) && stream.write(&byte).is_ok() {}
    }
}

/// Returns how long it takes until a byte has gone to who answers and come back.
pub(crate) fn ask(to: &str) -> f64 {
    let mut stream = TcpStream::connect(to).expect("cannot connect");
    stream.set_nodelay(true).expect("cannot set TCP_NODELAY");
    measure(|| {
        let mut byte = [1];
        stream.write_all(&byte).expect("cannot send");
        stream.read_exact(&mut byte).expect("cannot receive");
    })
}
