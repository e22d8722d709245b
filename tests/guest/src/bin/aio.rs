//! Asynchronous I/O: `io_setup(2)`, `io_submit(2)`, `io_getevents(2)`, `io_cancel(2)`, and the ring.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use guest_tests::fs::{close, pipe, read, write};
use guest_tests::proc::{End, child, in_child, sleep, until, until_asleep, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};
use libc::{O_CREAT, O_NONBLOCK, O_RDONLY, O_RDWR, POLLIN, POLLOUT, iovec, timespec};

const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const FSYNC: u16 = 2;
const FDSYNC: u16 = 3;
const POLL: u16 = 5;
const PREADV: u16 = 7;
const PWRITEV: u16 = 8;
const RESFD: u32 = 1;

/// The kernel's `struct iocb`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    reqprio: i16,
    fd: u32,
    buf: u64,
    nbytes: u64,
    offset: i64,
    reserved2: u64,
    flags: u32,
    resfd: u32,
}

/// The kernel's `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Event {
    data: u64,
    obj: u64,
    res: i64,
    res2: i64,
}

/// The kernel's `struct aio_ring`.
#[repr(C)]
struct Ring {
    id: u32,
    nr: u32,
    head: AtomicU32,
    tail: AtomicU32,
    magic: u32,
    compat: u32,
    incompat: u32,
    header_length: u32,
}

fn request(data: u64, opcode: u16, fd: i32, buf: &[u8], offset: i64) -> Iocb {
    let (buf, nbytes) = (buf.as_ptr() as u64, buf.len() as u64);
    Iocb { data, opcode, fd: fd as u32, buf, nbytes, offset, ..Iocb::default() }
}

fn setup(n: u32) -> Result<u64, i32> {
    let mut context = 0u64;
    sys!(SYS_io_setup, n, &mut context)?;
    Ok(context)
}

fn submit(context: u64, iocbs: &[&Iocb]) -> Result<usize, i32> {
    sys!(SYS_io_submit, context, iocbs.len(), iocbs)
}

fn events(context: u64, min: i64, max: i64, wait: Option<timespec>) -> Result<Vec<Event>, i32> {
    let mut events = vec![Event::default(); max.max(0) as usize];
    let timeout = wait.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    let n = sys!(SYS_io_getevents, context, min, max, events.as_mut_slice(), timeout)?;
    events.truncate(n);
    Ok(events)
}

const NO_WAIT: Option<timespec> = Some(timespec { tv_sec: 0, tv_nsec: 0 });

fn event(iocb: &Iocb, res: i64) -> Event {
    Event { data: iocb.data, obj: core::ptr::from_ref(iocb) as u64, res, res2: 0 }
}

fn file() -> Result<i32, i32> {
    sys!(SYS_open, c"file", O_CREAT | O_RDWR, 0o600).map(|fd| fd as i32)
}

fn reading_and_writing() -> Outcome {
    let fd = ok!(file());
    let context = ok!(setup(8));
    let (a, b) = (request(1, PWRITE, fd, b"hello", 0), request(2, PWRITE, fd, b"world", 5));
    eq!(ok!(submit(context, &[&a, &b])), 2);
    eq!(ok!(events(context, 2, 8, None)), [event(&a, 5), event(&b, 5)]);
    let buf = [0u8; 20];
    let c = request(3, PREAD, fd, &buf, 3);
    let parts = [[0u8; 4], [0u8; 4]];
    let vector = parts
        .each_ref()
        .map(|part| iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    let mut d = request(4, PREADV, fd, b"", 1);
    (d.buf, d.nbytes) = (vector.as_ptr() as u64, 2);
    let past = request(5, PREAD, fd, &buf, 100);
    eq!(ok!(submit(context, &[&c, &d, &past])), 3);
    eq!(ok!(events(context, 3, 3, None)), [event(&c, 7), event(&d, 8), event(&past, 0)]);
    eq!(buf[..7], *b"loworld");
    // SAFETY: the kernel wrote here behind the compiler's back.
    let read_back = unsafe { core::ptr::read_volatile(&raw const parts) };
    eq!(read_back, [*b"ello", *b"worl"]);
    let mut e = request(6, PWRITEV, fd, b"", 0);
    (e.buf, e.nbytes) = (vector.as_ptr() as u64, 2);
    let mut fsync = request(7, FSYNC, fd, b"", 0);
    fsync.buf = 0;
    let mut fdsync = fsync;
    fdsync.opcode = FDSYNC;
    eq!(ok!(submit(context, &[&e, &fsync, &fdsync])), 3);
    // The latter two may change places.
    let mut got = ok!(events(context, 3, 8, None));
    got.sort_by_key(|event| event.obj);
    let mut expected = [event(&e, 8), event(&fsync, 0), event(&fdsync, 0)];
    expected.sort_by_key(|event| event.obj);
    eq!(got, expected);
    eq!(ok!(std::fs::read("file")), b"elloworlld");
    ok!(sys!(SYS_io_destroy, context));
    fails!(sys!(SYS_io_destroy, context), EINVAL);
    fails!(submit(context, &[&a]), EINVAL);
    fails!(events(context, 0, 1, NO_WAIT), EINVAL);
    Ok(())
}

fn errors_of_submission() -> Outcome {
    let fd = ok!(file());
    let mut set = 5u64;
    fails!(sys!(SYS_io_setup, 5, &mut set), EINVAL);
    set = 0;
    fails!(sys!(SYS_io_setup, 0, &mut set), EINVAL);
    fails!(sys!(SYS_io_setup, 5, 8), EFAULT);
    fails!(sys!(SYS_io_setup, u32::MAX, &mut set), EINVAL);
    let context = ok!(setup(4));
    let good = request(1, PWRITE, fd, b"x", 0);
    fails!(sys!(SYS_io_submit, context, -1, &[&good]), EINVAL);
    fails!(sys!(SYS_io_submit, context, 1, 8), EFAULT);
    fails!(sys!(SYS_io_submit, context, 1, &[8usize]), EFAULT);
    fails!(sys!(SYS_io_submit, 4096, 1, &[&good]), EINVAL);
    eq!(ok!(submit(context, &[])), 0);
    let bad = |change: fn(&mut Iocb)| {
        let mut bad = good;
        change(&mut bad);
        submit(context, &[&bad])
    };
    fails!(bad(|iocb| iocb.fd = 9999), EBADF);
    fails!(bad(|iocb| iocb.opcode = 6), EINVAL);
    fails!(bad(|iocb| iocb.opcode = 99), EINVAL);
    fails!(bad(|iocb| iocb.reserved2 = 1), EINVAL);
    fails!(bad(|iocb| iocb.nbytes = 1 << 63), EINVAL);
    fails!(bad(|iocb| iocb.offset = -1), EINVAL);
    fails!(bad(|iocb| iocb.rw_flags = 0x8000_0000), EOPNOTSUPP);
    fails!(bad(|iocb| (iocb.flags, iocb.resfd) = (RESFD, 9999)), EBADF);
    fails!(bad(|iocb| (iocb.flags, iocb.resfd) = (RESFD, iocb.fd)), EINVAL);
    fails!(bad(|iocb| (iocb.opcode, iocb.buf) = (POLL, 0x1_0001)), EINVAL);
    fails!(bad(|iocb| iocb.opcode = FSYNC), EINVAL);
    let reader = ok!(sys!(SYS_open, c"file", O_RDONLY)) as i32;
    fails!(submit(context, &[&request(1, PWRITE, reader, b"x", 0)]), EBADF);
    let dir = ok!(sys!(SYS_open, c".", O_RDONLY)) as i32;
    fails!(submit(context, &[&request(1, PREAD, dir, b"x", 0)]), EINVAL);
    // What comes before the first wrong one is done.
    let wrong = request(1, PWRITE, -1, b"x", 0);
    eq!(ok!(submit(context, &[&good, &wrong, &good])), 1);
    eq!(ok!(events(context, 1, 4, None)), [event(&good, 1)]);
    // What goes wrong later is in the event.
    let (pipe_reader, pipe_writer) = ok!(pipe(O_NONBLOCK));
    let empty = request(7, PREAD, pipe_reader, b"x", 0);
    let mut fault = request(8, PWRITE, fd, b"x", 0);
    fault.buf = 8;
    eq!(ok!(submit(context, &[&empty, &fault])), 2);
    eq!(
        ok!(events(context, 2, 4, None)),
        [event(&empty, -i64::from(libc::EAGAIN)), event(&fault, -i64::from(libc::EFAULT))]
    );
    ok!(sig::plain(libc::SIGPIPE, 1));
    ok!(close(pipe_reader));
    let broken = request(9, PWRITE, pipe_writer, b"x", 0);
    eq!(ok!(submit(context, &[&broken])), 1);
    eq!(ok!(events(context, 1, 4, None)), [event(&broken, -i64::from(libc::EPIPE))]);
    Ok(())
}

fn waiting_for_events() -> Outcome {
    let fd = ok!(file());
    let context = ok!(setup(4));
    eq!(ok!(events(context, 0, 4, None)), []);
    eq!(ok!(events(context, 1, 4, NO_WAIT)), []);
    eq!(ok!(events(context, 1, 4, Some(timespec { tv_sec: 0, tv_nsec: 1_000_000 }))), []);
    fails!(events(context, 2, 1, None), EINVAL);
    fails!(events(context, -1, 1, None), EINVAL);
    fails!(sys!(SYS_io_getevents, context, 0, 1, 0, 8), EFAULT);
    let one = request(1, PWRITE, fd, b"x", 0);
    ok!(submit(context, &[&one, &one, &one]));
    eq!(ok!(events(context, 1, 2, None)).len(), 2);
    eq!(ok!(events(context, 2, 2, Some(timespec { tv_sec: 0, tv_nsec: 1_000_000 }))).len(), 1);
    // Another thread's request ends the wait.
    let found = std::thread::scope(|scope| {
        let waiter = scope.spawn(move || events(context, 2, 4, None));
        sleep(std::time::Duration::from_millis(2));
        let _ = submit(context, &[&one]);
        let _ = submit(context, &[&one]);
        waiter.join().unwrap_or(Err(0))
    });
    eq!(ok!(found), [event(&one, 1), event(&one, 1)]);
    ok!(in_child(|| {
        // A child has none of its parent's contexts.
        fails!(events(context, 0, 1, NO_WAIT), EINVAL);
        Ok(())
    }));
    let interrupted = ok!(child(|| {
        let _ = sig::handle(libc::SIGUSR1, sig::record, libc::SA_RESTART);
        let Ok(context) = setup(1) else { return 99 };
        events(context, 1, 1, None).err().unwrap_or(0)
    }));
    check!(until_asleep(interrupted));
    ok!(sys!(SYS_kill, interrupted, libc::SIGUSR1));
    eq!(ok!(wait(interrupted)), End::Code(libc::EINTR));
    Ok(())
}

fn eventfds() -> Outcome {
    let fd = ok!(file());
    let context = ok!(setup(4));
    let eventfd = ok!(sys!(SYS_eventfd2, 0, O_NONBLOCK)) as i32;
    let mut one = request(1, PWRITE, fd, b"x", 0);
    (one.flags, one.resfd) = (RESFD, eventfd as u32);
    ok!(submit(context, &[&one, &one]));
    let mut count = 0u64;
    eq!(ok!(sys!(SYS_read, eventfd, &mut count, 8)), 8);
    eq!(count, 2);
    eq!(ok!(events(context, 2, 2, None)), [event(&one, 1), event(&one, 1)]);
    Ok(())
}

fn polls() -> Outcome {
    let context = ok!(setup(8));
    let (reader, writer) = ok!(pipe(0));
    let poll = |data, fd, wanted: i16| {
        let mut iocb = request(data, POLL, fd, b"", 0);
        iocb.buf = wanted as u64;
        iocb
    };
    let ready = poll(1, writer, POLLOUT);
    let waits = poll(2, reader, POLLIN);
    let also = poll(3, reader, POLLIN);
    eq!(ok!(submit(context, &[&waits, &ready, &also])), 3);
    eq!(ok!(events(context, 1, 8, None)), [event(&ready, POLLOUT.into())]);
    eq!(ok!(events(context, 1, 8, NO_WAIT)), []);
    // A cancelled one ends with nothing.
    let mut result = Event::default();
    fails!(sys!(SYS_io_cancel, context, &also, &mut result), EINPROGRESS);
    eq!(ok!(events(context, 1, 8, None)), [event(&also, 0)]);
    fails!(sys!(SYS_io_cancel, context, &also, &mut result), EINVAL);
    fails!(sys!(SYS_io_cancel, 4096, &waits, &mut result), EINVAL);
    fails!(sys!(SYS_io_cancel, context, 8, &mut result), EFAULT);
    // By another process, while this one waits.
    let writing = ok!(child(|| i32::from(write(writer, b"x").is_err())));
    // Linux says what has been announced, wanted or not.
    let readable = |events: Vec<Event>| {
        events.iter().map(|event| (event.data, event.res & i64::from(POLLIN))).collect::<Vec<_>>()
    };
    eq!(readable(ok!(events(context, 1, 8, None))), [(2, POLLIN.into())]);
    eq!(ok!(wait(writing)), End::Code(0));
    // By itself, and told by an eventfd.
    let mut byte = [0u8];
    ok!(read(reader, &mut byte));
    let eventfd = ok!(sys!(SYS_eventfd2, 0, 0)) as i32;
    let mut told = poll(4, reader, POLLIN);
    (told.flags, told.resfd) = (RESFD, eventfd as u32);
    ok!(submit(context, &[&told]));
    ok!(write(writer, b"x"));
    let mut count = 0u64;
    eq!(ok!(sys!(SYS_read, eventfd, &mut count, 8)), 8);
    eq!(count, 1);
    eq!(readable(ok!(events(context, 1, 8, NO_WAIT))), [(4, POLLIN.into())]);
    // The end of the context ends them.
    ok!(read(reader, &mut byte));
    ok!(submit(context, &[&told]));
    ok!(sys!(SYS_io_destroy, context));
    ok!(write(writer, b"x"));
    Ok(())
}

fn pipes() -> Outcome {
    // On Linux, who submits waits.
    let context = ok!(setup(8));
    let fd = ok!(file());
    let (reader, writer) = ok!(pipe(0));
    let buf = [0u8; 8];
    let before = request(1, PWRITE, fd, b"abc", 0);
    let blocks = request(2, PREAD, reader, &buf, 0);
    let after = request(3, PWRITE, fd, b"def", 3);
    let writing = ok!(child(|| {
        sleep(std::time::Duration::from_millis(2));
        i32::from(write(writer, b"12345").is_err())
    }));
    eq!(ok!(submit(context, &[&before, &blocks, &after])), 3);
    eq!(ok!(events(context, 3, 8, None)), [event(&before, 3), event(&blocks, 5), event(&after, 3)]);
    eq!(ok!(wait(writing)), End::Code(0));
    eq!(ok!(std::fs::read("file")), b"abcdef");
    Ok(())
}

/// Who waits for events in another thread may look at the data as soon as there is one.
fn data_precedes_the_event() -> Outcome {
    const ROUNDS: usize = 400;
    let context = ok!(setup(4));
    let fd = ok!(file());
    ok!(std::fs::write("file", vec![7u8; 1 << 20]));
    for len in [100, 4096, 16 << 10] {
        let buf: Vec<AtomicU8> = (0..len).map(|_| AtomicU8::new(0)).collect();
        let seen = AtomicU32::new(0);
        // SAFETY: the bytes of atomics, which only the kernel writes while they are borrowed here.
        let bytes = unsafe { core::slice::from_raw_parts(buf.as_ptr().cast::<u8>(), len) };
        let one = request(1, PREAD, fd, bytes, 0);
        let late = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut late = 0;
                for round in 0..ROUNDS {
                    // By the call, and as libaio by a look at the ring.
                    while round % 2 == 1
                        && ring(context).tail.load(Ordering::SeqCst)
                            == ring(context).head.load(Ordering::SeqCst)
                    {
                        core::hint::spin_loop();
                    }
                    let found = events(context, 1, 1, None);
                    let ends = [0, len / 2, len - 1].map(|at| buf[at].load(Ordering::SeqCst));
                    late +=
                        usize::from(ends != [7; 3] || found != Ok(vec![event(&one, len as i64)]));
                    buf.iter().for_each(|byte| byte.store(0, Ordering::Relaxed));
                    seen.store(round as u32 + 1, Ordering::SeqCst);
                }
                late
            });
            for round in 0..ROUNDS {
                if submit(context, &[&one]) != Ok(1) {
                    return Err(());
                }
                while seen.load(Ordering::SeqCst) as usize <= round {
                    std::thread::yield_now();
                }
            }
            watcher.join().map_err(|_| ())
        });
        eq!(late, Ok(0));
    }
    Ok(())
}

/// Returns the ring of a context.
fn ring(context: u64) -> &'static Ring {
    // SAFETY: the id of a context is the address of its ring (libaio's io_getevents).
    unsafe { &*(context as *const Ring) }
}

fn ring_is_mapped() -> Outcome {
    let fd = ok!(file());
    let context = ok!(setup(4));
    let ring = ring(context);
    eq!((ring.magic, ring.compat, ring.incompat, ring.header_length), (0xa10a_10a1, 1, 0, 32));
    check!(ring.nr >= 10);
    let heads = || (ring.head.load(Ordering::SeqCst), ring.tail.load(Ordering::SeqCst));
    eq!(heads(), (0, 0));
    let one = request(1, PWRITE, fd, b"x", 0);
    let two = request(2, PWRITE, fd, b"xy", 0);
    ok!(submit(context, &[&one, &two]));
    eq!(heads(), (0, 2));
    let at = |index: usize| {
        // SAFETY: the events follow the header, and there are at least two.
        unsafe { core::ptr::read_volatile((context as *const Event).add(1 + index)) }
    };
    eq!((at(0), at(1)), (event(&one, 1), event(&two, 2)));
    // The process takes one by itself, the kernel gives the other.
    ring.head.store(1, Ordering::SeqCst);
    eq!(ok!(events(context, 1, 4, None)), [event(&two, 2)]);
    eq!(heads(), (2, 2));
    // Round and round; one place stays free.
    for _ in 0..ring.nr {
        ok!(submit(context, &[&one]));
        eq!(ok!(events(context, 1, 1, None)), [event(&one, 1)]);
    }
    let mut n = 0;
    while submit(context, &[&one]).is_ok() {
        n += 1;
        check!(n < ring.nr);
    }
    check!(n >= 4);
    fails!(submit(context, &[&one]), EAGAIN);
    eq!(ok!(events(context, n.into(), n.into(), None)).len(), n as usize);
    ok!(submit(context, &[&one]));
    Ok(())
}

fn limits() -> Outcome {
    let max = ok!(std::fs::read_to_string("/proc/sys/fs/aio-max-nr"));
    let max: u32 = ok!(max.trim().parse());
    let used = || std::fs::read_to_string("/proc/sys/fs/aio-nr").ok()?.trim().parse::<u32>().ok();
    fails!(setup(max + 1), EAGAIN);
    let before = used().unwrap_or(u32::MAX);
    let holder = ok!(child(|| {
        let context = setup(100);
        let _ = close(2);
        loop {
            let _ = events(context.unwrap_or(0), 1, 1, None);
            let _ = sys!(SYS_pause);
        }
    }));
    check!(until_asleep(holder));
    check!(used().is_some_and(|used| used >= 100));
    ok!(sys!(SYS_kill, holder, libc::SIGKILL));
    eq!(ok!(wait(holder)), End::Signal(libc::SIGKILL));
    check!(until(|| used().is_some_and(|used| used < before + 100)));
    Ok(())
}

fn pgetevents_lets_signals_in() -> Outcome {
    /// The kernel's `struct __aio_sigset`.
    #[repr(C)]
    struct Mask {
        set: *const u64,
        size: usize,
    }
    ok!(sig::handle(libc::SIGUSR1, sig::record, 0));
    ok!(sig::block(libc::SIGUSR1));
    let context = ok!(setup(4));
    let mut got = [Event::default(); 4];
    let none = 0u64;
    let mask = Mask { set: &raw const none, size: 8 };
    let long = timespec { tv_sec: 20, tv_nsec: 0 };
    ok!(sig::raise(libc::SIGUSR1));
    fails!(sys!(SYS_io_pgetevents, context, 1, 4, &mut got, &long, &mask), EINTR);
    eq!(sig::count(), 1);
    check!(ok!(sig::mask(libc::SIG_BLOCK, 0)) == sig::bit(libc::SIGUSR1));
    // Without a mask the signal waits.
    ok!(sig::raise(libc::SIGUSR1));
    let unchanged = Mask { set: core::ptr::null(), size: 8 };
    let short = timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    eq!(ok!(sys!(SYS_io_pgetevents, context, 1, 4, &mut got, &short, &unchanged)), 0);
    eq!(ok!(sys!(SYS_io_pgetevents, context, 1, 4, &mut got, &short, 0)), 0);
    eq!(sig::count(), 1);
    let odd = Mask { set: &raw const none, size: 7 };
    fails!(sys!(SYS_io_pgetevents, context, 1, 4, &mut got, &short, &odd), EINVAL);
    let fd = ok!(file());
    let one = request(1, PWRITE, fd, b"x", 0);
    ok!(submit(context, &[&one]));
    eq!(ok!(sys!(SYS_io_pgetevents, context, 1, 4, &mut got, &long, &unchanged)), 1);
    eq!(got[0], event(&one, 1));
    Ok(())
}

guest_tests::cases!(
    reading_and_writing,
    pgetevents_lets_signals_in,
    errors_of_submission,
    waiting_for_events,
    eventfds,
    polls,
    pipes,
    data_precedes_the_event,
    ring_is_mapped,
    limits,
);
