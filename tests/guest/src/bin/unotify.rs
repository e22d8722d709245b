//! Filters whose calls somebody else decides about: `seccomp_unotify(2)`.

use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use guest_tests::fs::{close, pipe, read, write};
use guest_tests::proc::{End, child, state, tid, until, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};

const ALLOW: u32 = 0x7fff_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;

const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
const GET_NOTIF_SIZES: u32 = 3;
const TSYNC: u32 = 1;
const NEW_LISTENER: u32 = 8;
const TSYNC_ESRCH: u32 = 16;
const WAIT_KILLABLE_RECV: u32 = 32;

const RECV: u32 = 0xc050_2100;
const SEND: u32 = 0xc018_2101;
const ID_VALID: u32 = 0x4008_2102;
const ID_VALID_OLD: u32 = 0x8008_2102;
const ADDFD: u32 = 0x4018_2103;
const SET_FLAGS: u32 = 0x4008_2104;

const CONTINUE: u32 = 1;
const SETFD: u32 = 1;
const ADDFD_SEND: u32 = 2;

/// The kernel's `struct sock_filter`.
#[repr(C)]
struct Insn(u16, u8, u8, u32);

/// The kernel's `struct sock_fprog`.
#[repr(C)]
struct Program {
    len: u16,
    insns: *const Insn,
}

/// The kernel's `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Notice {
    id: u64,
    pid: u32,
    flags: u32,
    nr: i32,
    arch: u32,
    at: u64,
    args: [u64; 6],
}

/// The kernel's `struct seccomp_notif_resp`.
#[repr(C)]
struct Response(u64, i64, i32, u32);

/// The kernel's `struct seccomp_notif_addfd`, with room for a longer one.
#[repr(C)]
struct Addition(u64, u32, u32, u32, u32, u64);

/// Gives this thread a filter for `getppid`.
fn listen(flags: u32) -> Result<usize, i32> {
    let insns = [
        Insn(0x20, 0, 0, 0),
        Insn(0x15, 0, 1, libc::SYS_getppid as u32),
        Insn(6, 0, 0, USER_NOTIF),
        Insn(6, 0, 0, ALLOW),
    ];
    let program = Program { len: 4, insns: insns.as_ptr() };
    sys!(SYS_seccomp, SET_MODE_FILTER, flags, &program)
}

#[inline(never)]
fn ppid() -> Result<usize, i32> {
    sys!(SYS_getppid, 1, 2, 3, 4, 5, 6)
}

fn receive(fd: i32) -> Result<Notice, i32> {
    let mut notice = Notice::default();
    sys!(SYS_ioctl, fd, RECV, &mut notice)?;
    Ok(notice)
}

fn send(fd: i32, id: u64, val: i64, error: i32, flags: u32) -> Result<usize, i32> {
    sys!(SYS_ioctl, fd, SEND, &mut Response(id, val, error, flags))
}

fn is_valid(fd: i32, id: u64) -> Result<usize, i32> {
    sys!(SYS_ioctl, fd, ID_VALID, &id)
}

/// Returns what `poll(2)` says of the descriptor within a time.
fn ready(fd: i32, timeout_ms: i32) -> i16 {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN | libc::POLLOUT, revents: 0 };
    let _ = sys!(SYS_poll, &mut entry, 1, timeout_ms);
    entry.revents
}

/// Runs `calls` in a thread with a filter, and `judge` with its listener and its id.
fn judged<R: Send>(
    flags: u32,
    calls: impl FnOnce() -> R + Send,
    judge: impl FnOnce(i32, i32) -> Outcome,
) -> Result<R, String> {
    let (listener, thread) = (AtomicI32::new(0), AtomicI32::new(0));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            thread.store(tid(), Ordering::SeqCst);
            match listen(NEW_LISTENER | flags) {
                Ok(fd) => listener.store(fd as i32, Ordering::SeqCst),
                Err(errno) => listener.store(-errno, Ordering::SeqCst),
            }
            calls()
        });
        check!(until(|| listener.load(Ordering::SeqCst) != 0));
        let fd = listener.load(Ordering::SeqCst);
        check!(fd > 0, "no listener: {fd}");
        let outcome = judge(fd, thread.load(Ordering::SeqCst));
        // Whoever still waits is let go.
        let _ = close(fd);
        let result = other.join().map_err(|_| "the thread has died".to_owned())?;
        outcome.map(|()| result)
    })
}

fn answers() -> Outcome {
    let calls = || [ppid(), ppid(), ppid(), ppid(), ppid(), ppid()];
    let results = judged(0, calls, |fd, thread| {
        eq!(ok!(sys!(SYS_fcntl, fd, libc::F_GETFD)), 1);
        let replies =
            [(4321, 0, 0), (0, -1, 0), (0, 0, CONTINUE), (-9, 0, 0), (0, 77, 0), (5, -2, 0)];
        let mut last = None;
        for (val, error, flags) in replies {
            let notice = ok!(receive(fd));
            eq!((notice.pid as i32, notice.flags), (thread, 0));
            eq!((i64::from(notice.nr), notice.arch), (libc::SYS_getppid, 0xc000_003e));
            eq!(notice.args, [1, 2, 3, 4, 5, 6]);
            check!(notice.at != 0);
            check!(last.is_none_or(|last: u64| last.wrapping_add(1) == notice.id));
            last = Some(notice.id);
            ok!(is_valid(fd, notice.id));
            ok!(sys!(SYS_ioctl, fd, ID_VALID_OLD, &notice.id));
            fails!(is_valid(fd, notice.id.wrapping_add(9)), ENOENT);
            fails!(send(fd, notice.id.wrapping_add(9), 0, 0, 0), ENOENT);
            fails!(send(fd, notice.id, 0, 0, 2), EINVAL);
            fails!(send(fd, notice.id, 1, 0, CONTINUE), EINVAL);
            fails!(send(fd, notice.id, 0, -1, CONTINUE), EINVAL);
            ok!(send(fd, notice.id, val, error, flags));
            fails!(is_valid(fd, notice.id), ENOENT);
        }
        Ok(())
    })?;
    let own = ok!(sys!(SYS_getppid));
    eq!(results, [Ok(4321), Err(1), Ok(own), Err(9), Ok(77), Err(2)]);
    Ok(())
}

fn errors() -> Outcome {
    let mut sizes = [0u16; 3];
    ok!(sys!(SYS_seccomp, GET_NOTIF_SIZES, 0, &mut sizes));
    eq!(sizes, [80, 24, 64]);
    fails!(sys!(SYS_seccomp, GET_NOTIF_SIZES, 1, &mut sizes), EINVAL);
    fails!(sys!(SYS_seccomp, GET_NOTIF_SIZES, 0, 8), EFAULT);
    ok!(sys!(SYS_seccomp, GET_ACTION_AVAIL, 0, &USER_NOTIF));
    fails!(listen(NEW_LISTENER | TSYNC), EINVAL);
    fails!(listen(WAIT_KILLABLE_RECV), EINVAL);
    let is_done = AtomicI32::new(0);
    let again = || {
        let results = (listen(NEW_LISTENER), listen(0), ppid());
        is_done.store(1, Ordering::SeqCst);
        results
    };
    let (again, plain, call) = judged(TSYNC | TSYNC_ESRCH, again, |fd, _| {
        let mut dirty = Notice { flags: 1, ..Notice::default() };
        fails!(sys!(SYS_ioctl, fd, RECV, &mut dirty), EINVAL);
        fails!(sys!(SYS_ioctl, fd, RECV, 8), EFAULT);
        fails!(sys!(SYS_ioctl, fd, SEND, 8), EFAULT);
        fails!(sys!(SYS_ioctl, fd, ID_VALID, 8), EFAULT);
        fails!(sys!(SYS_ioctl, fd, SET_FLAGS, 2), EINVAL);
        fails!(sys!(SYS_ioctl, fd, 0x2109, 0), EINVAL);
        fails!(sys!(SYS_ioctl, fd, 0xc010_2103u32, 8), EINVAL);
        let mut byte = 0u8;
        fails!(sys!(SYS_read, fd, &mut byte, 1), EINVAL);
        fails!(sys!(SYS_write, fd, &byte, 1), EINVAL);
        let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        eq!(name.to_string_lossy(), "anon_inode:seccomp notify");
        // One that is closed would not stand in the way of another.
        check!(until(|| is_done.load(Ordering::SeqCst) == 1));
        Ok(())
    })?;
    // The newest filter counts, and it has no listener.
    eq!((again, plain, call), (Err(libc::EBUSY), Ok(0), Err(libc::ENOSYS)));
    Ok(())
}

fn polling() -> Outcome {
    let go = AtomicI32::new(0);
    let reach = |stage| until(|| go.load(Ordering::SeqCst) >= stage);
    let calls = || reach(1).then(ppid).filter(|_| reach(2));
    let result = judged(0, calls, |fd, _| {
        eq!(ready(fd, 0), 0);
        go.store(1, Ordering::SeqCst);
        eq!(ready(fd, 10_000), libc::POLLIN);
        let notice = ok!(receive(fd));
        eq!(ready(fd, 0), libc::POLLOUT);
        ok!(send(fd, notice.id, 8, 0, 0));
        check!(until(|| ready(fd, 0) == 0));
        go.store(2, Ordering::SeqCst);
        // Nobody has the filter any more.
        check!(until(|| ready(fd, 10_000) == libc::POLLHUP));
        fails!(receive(fd), ENOENT);
        Ok(())
    })?;
    eq!(result, Some(Ok(8)));
    Ok(())
}

fn closing() -> Outcome {
    let calls = || (ppid(), ppid(), listen(NEW_LISTENER).is_ok());
    let results = judged(0, calls, |fd, _| {
        ok!(receive(fd));
        Ok(())
    })?;
    eq!(results, (Err(libc::ENOSYS), Err(libc::ENOSYS), true));
    Ok(())
}

/// Starts a process with a filter, which runs `calls`; returns it and its listener.
fn process(flags: u32, calls: impl FnOnce() -> i32) -> Result<(i32, i32), i32> {
    let (reader, writer) = pipe(0)?;
    let pid = child(|| {
        let fd = listen(NEW_LISTENER | flags).map_or(-1, |fd| fd as i32);
        let _ = write(writer, &fd.to_ne_bytes());
        calls()
    })?;
    let mut fd = [0; 4];
    read(reader, &mut fd)?;
    let pidfd = sys!(SYS_pidfd_open, pid, 0)?;
    let listener = sys!(SYS_pidfd_getfd, pidfd, i32::from_ne_bytes(fd), 0)?;
    for fd in [reader, writer, pidfd as i32] {
        close(fd)?;
    }
    Ok((pid, listener as i32))
}

fn descriptors() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let (pid, fd) = ok!(process(0, || {
        // What it writes to has been given to it meanwhile.
        for (n, byte) in [b"a", b"b", b"c"].into_iter().enumerate() {
            match ppid() {
                Ok(fd) if write(fd as i32, byte) == Ok(1) => {}
                _ => return 10 + n as i32,
            }
        }
        let Ok(flags) = sys!(SYS_fcntl, 150, libc::F_GETFD) else { return 20 };
        flags as i32
    }));
    let add = |id, flags, source: i32, newfd, newfd_flags| {
        let addition = Addition(id, flags, source as u32, newfd, newfd_flags, 0);
        sys!(SYS_ioctl, fd, ADDFD, &addition)
    };
    let notice = ok!(receive(fd));
    fails!(add(notice.id, 4, writer, 0, 0), EINVAL);
    fails!(add(notice.id, 0, writer, 7, 0), EINVAL);
    fails!(add(notice.id, 0, writer, 0, 1), EINVAL);
    fails!(add(notice.id, 0, 999, 0, 0), EBADF);
    fails!(add(notice.id.wrapping_add(5), 0, writer, 0, 0), ENOENT);
    fails!(add(notice.id, SETFD, writer, 1 << 30, 0), EBADF);
    let long = Addition(notice.id, 0, writer as u32, 0, 0, 1);
    fails!(sys!(SYS_ioctl, fd, 0x4020_2103u32, &long), E2BIG);
    let given = ok!(add(notice.id, 0, writer, 0, 0));
    ok!(send(fd, notice.id, given as i64, 0, 0));
    let notice = ok!(receive(fd));
    eq!(ok!(add(notice.id, SETFD, writer, 150, libc::O_CLOEXEC as u32)), 150);
    ok!(send(fd, notice.id, 150, 0, 0));
    let notice = ok!(receive(fd));
    let given = ok!(add(notice.id, ADDFD_SEND, writer, 0, 0));
    check!(given > 0);
    fails!(is_valid(fd, notice.id), ENOENT);
    eq!(ok!(wait(pid)), End::Code(1));
    let mut bytes = [0; 3];
    eq!(ok!(read(reader, &mut bytes)), 3);
    eq!(&bytes, b"abc");
    Ok(())
}

static CAUGHT: AtomicU32 = AtomicU32::new(0);

extern "C" fn catch(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CAUGHT.fetch_add(1, Ordering::SeqCst);
}

fn signals() -> Outcome {
    // A handler interrupts the call, or it begins again: whoever listens sees another one.
    for (flags, result) in [(0, Err(libc::EINTR)), (libc::SA_RESTART, Ok(3))] {
        ok!(sig::handle(libc::SIGUSR1, catch, flags));
        let interrupted = judged(0, ppid, |fd, thread| {
            let notice = ok!(receive(fd));
            ok!(sys!(SYS_tgkill, guest_tests::proc::pid(), thread, libc::SIGUSR1));
            check!(until(|| is_valid(fd, notice.id) == Err(libc::ENOENT)));
            fails!(send(fd, notice.id, 0, 0, 0), ENOENT);
            if result.is_ok() {
                let again = ok!(receive(fd));
                check!(again.id != notice.id);
                ok!(send(fd, again.id, 3, 0, 0));
            }
            Ok(())
        })?;
        eq!(interrupted, result);
    }
    Ok(())
}

fn killable() -> Outcome {
    ok!(sig::handle(libc::SIGUSR1, catch, 0));
    let (pid, fd) = ok!(process(WAIT_KILLABLE_RECV, || {
        let first = ppid();
        let caught = CAUGHT.load(Ordering::SeqCst);
        if first != Ok(6) || caught != 1 {
            return 1;
        }
        let _ = ppid();
        2
    }));
    let notice = ok!(receive(fd));
    ok!(sys!(SYS_kill, pid, libc::SIGUSR1));
    // There is nothing to wait for: the call is not interrupted however long it takes.
    for _ in 0..20 {
        guest_tests::proc::sleep(core::time::Duration::from_millis(1));
        ok!(is_valid(fd, notice.id));
    }
    ok!(send(fd, notice.id, 6, 0, 0));
    let notice = ok!(receive(fd));
    ok!(sys!(SYS_kill, pid, libc::SIGKILL));
    eq!(ok!(wait(pid)), End::Signal(libc::SIGKILL));
    check!(until(|| is_valid(fd, notice.id) == Err(libc::ENOENT)));
    check!(until(|| ready(fd, 10_000) == libc::POLLHUP));
    Ok(())
}

fn receiving_is_interrupted() -> Outcome {
    let (pid, fd) = ok!(process(0, || {
        let _ = sys!(SYS_pause);
        0
    }));
    ok!(sig::handle(libc::SIGUSR1, catch, 0));
    let waiting = ok!(child(|| match receive(fd) {
        Err(libc::EINTR) => 7,
        _ => 1,
    }));
    // One that comes before it waits does nothing.
    check!(until(|| sys!(SYS_kill, waiting, libc::SIGUSR1).is_ok() && state(waiting) == Some('Z')));
    eq!(ok!(wait(waiting)), End::Code(7));
    ok!(sys!(SYS_kill, pid, libc::SIGKILL));
    eq!(ok!(wait(pid)), End::Signal(libc::SIGKILL));
    fails!(receive(fd), ENOENT);
    Ok(())
}

guest_tests::cases!(
    answers,
    errors,
    polling,
    closing,
    descriptors,
    signals,
    killable,
    receiving_is_interrupted,
);
