//! POSIX message queues: `mq_open(2)` and its relatives, and the `mqueue` file system.

use core::ffi::CStr;

use guest_tests::fs::{close, pipe, read, write};
use guest_tests::proc::{End, child, drop_root, in_child, pid, sleep, until_asleep, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};
use libc::{
    EPOLL_CTL_ADD, O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, POLLIN, POLLOUT,
    pollfd, timespec,
};

/// A name that no other test of the machine uses; unlinked at the end of the case.
struct Name(std::ffi::CString);

impl Drop for Name {
    fn drop(&mut self) {
        let _ = sys!(SYS_mq_unlink, &*self.0);
    }
}

fn name(suffix: &str) -> Name {
    Name(std::ffi::CString::new(format!("guest-{}-{suffix}", pid())).unwrap_or_default())
}

#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Attr {
    flags: i64,
    maxmsg: i64,
    msgsize: i64,
    curmsgs: i64,
    reserved: [i64; 4],
}

fn open(name: &CStr, flags: i32, maxmsg: i64, msgsize: i64) -> Result<i32, i32> {
    let attr = Attr { maxmsg, msgsize, ..Attr::default() };
    sys!(SYS_mq_open, name, flags, 0o600, &attr).map(|fd| fd as i32)
}

fn attr(queue: i32) -> Result<Attr, i32> {
    let mut attr = Attr::default();
    sys!(SYS_mq_getsetattr, queue, 0, &mut attr)?;
    Ok(attr)
}

fn send(queue: i32, text: &[u8], priority: u32) -> Result<usize, i32> {
    sys!(SYS_mq_timedsend, queue, text, text.len(), priority, 0)
}

fn receive(queue: i32, len: usize) -> Result<(Vec<u8>, u32), i32> {
    let mut text = vec![0u8; len];
    let mut priority = 0u32;
    let n = sys!(SYS_mq_timedreceive, queue, text.as_mut_slice(), len, &mut priority, 0)?;
    text.truncate(n);
    Ok((text, priority))
}

fn text(bytes: &[u8], priority: u32) -> (Vec<u8>, u32) {
    (bytes.to_vec(), priority)
}

fn priorities() -> Outcome {
    let name = name("a");
    let queue = ok!(open(&name.0, O_CREAT | O_RDWR, 5, 20));
    for (bytes, priority) in [(b"low", 0), (b"mid", 7), (b"top", 32767), (b"two", 7)] {
        ok!(send(queue, bytes, priority));
    }
    eq!(ok!(attr(queue)), Attr { maxmsg: 5, msgsize: 20, curmsgs: 4, ..Attr::default() });
    for expected in [text(b"top", 32767), text(b"mid", 7), text(b"two", 7), text(b"low", 0)] {
        eq!(ok!(receive(queue, 20)), expected);
    }
    fails!(send(queue, b"x", 32768), EINVAL);
    fails!(send(queue, &[0; 21], 0), EMSGSIZE);
    fails!(receive(queue, 19), EMSGSIZE);
    ok!(send(queue, b"", 1));
    eq!(ok!(receive(queue, 100)), text(b"", 1));
    fails!(sys!(SYS_mq_timedsend, queue, 8, 3, 0, 0), EFAULT);
    Ok(())
}

fn opening() -> Outcome {
    let name = name("a");
    fails!(open(&name.0, O_RDWR, 5, 20), ENOENT);
    for (maxmsg, msgsize) in [(0, 20), (5, 0), (-1, 20), (65537, 20), (5, 16 * 1024 * 1024 + 1)] {
        fails!(open(&name.0, O_CREAT | O_RDWR, maxmsg, msgsize), EINVAL);
    }
    let queue = ok!(open(&name.0, O_CREAT | O_EXCL | O_RDWR, 5, 20));
    fails!(open(&name.0, O_CREAT | O_EXCL | O_RDWR, 5, 20), EEXIST);
    // The attributes of one that exists do not matter.
    let reader = ok!(open(&name.0, O_CREAT | O_RDONLY, -1, -1));
    let writer = ok!(open(&name.0, O_WRONLY | O_NONBLOCK, -1, -1));
    fails!(receive(writer, 20), EBADF);
    fails!(send(reader, b"x", 0), EBADF);
    fails!(send(-1, b"x", 0), EBADF);
    fails!(receive(0, 20), EBADF);
    ok!(send(writer, b"x", 3));
    eq!(ok!(receive(reader, 20)), text(b"x", 3));
    eq!(ok!(sys!(SYS_fcntl, queue, libc::F_GETFD)), libc::FD_CLOEXEC as usize);
    eq!(ok!(attr(writer)).flags, i64::from(O_NONBLOCK));
    let default = ok!(sys!(SYS_mq_open, c"guest-default", O_CREAT | O_RDWR, 0o600, 0)) as i32;
    eq!(ok!(attr(default)), Attr { maxmsg: 10, msgsize: 8192, ..Attr::default() });
    ok!(sys!(SYS_mq_unlink, c"guest-default"));
    for bad in [c"a/b", c".", c"..", c"/a"] {
        fails!(open(bad, O_CREAT | O_RDWR, 5, 20), EACCES);
    }
    fails!(open(c"", O_CREAT | O_RDWR, 5, 20), ENOENT);
    let long = std::ffi::CString::new(vec![b'x'; 256]).unwrap_or_default();
    fails!(open(&long, O_CREAT | O_RDWR, 5, 20), ENAMETOOLONG);
    // It lives as long as somebody has it open.
    ok!(sys!(SYS_mq_unlink, &*name.0));
    fails!(sys!(SYS_mq_unlink, &*name.0), ENOENT);
    fails!(open(&name.0, O_RDWR, 5, 20), ENOENT);
    ok!(send(queue, b"y", 0));
    eq!(ok!(receive(reader, 20)), text(b"y", 0));
    Ok(())
}

fn nonblocking_and_attributes() -> Outcome {
    let name = name("a");
    let queue = ok!(open(&name.0, O_CREAT | O_RDWR | O_NONBLOCK, 2, 10));
    fails!(receive(queue, 10), EAGAIN);
    ok!(send(queue, b"1", 0));
    ok!(send(queue, b"2", 0));
    fails!(send(queue, b"3", 0), EAGAIN);
    let mut old = Attr::default();
    let blocking = Attr { maxmsg: 77, ..Attr::default() };
    ok!(sys!(SYS_mq_getsetattr, queue, &blocking, &mut old));
    eq!(
        old,
        Attr {
            flags: i64::from(O_NONBLOCK),
            maxmsg: 2,
            msgsize: 10,
            curmsgs: 2,
            ..Attr::default()
        }
    );
    eq!(ok!(attr(queue)).flags, 0);
    eq!(ok!(attr(queue)).maxmsg, 2);
    let wrong = Attr { flags: 1, ..Attr::default() };
    fails!(sys!(SYS_mq_getsetattr, queue, &wrong, 0), EINVAL);
    fails!(sys!(SYS_mq_getsetattr, 0, 0, &mut old), EBADF);
    Ok(())
}

fn blocking() -> Outcome {
    let name = name("a");
    let queue = ok!(open(&name.0, O_CREAT | O_RDWR, 2, 10));
    let (reader, writer) = ok!(pipe(0));
    // Receivers in the order of their coming.
    let mut children = Vec::new();
    for index in 0..3u8 {
        let pid = ok!(child(|| {
            let Ok((text, priority)) = receive(queue, 10) else { return 1 };
            let _ = write(writer, &[index, text[0], priority as u8]);
            0
        }));
        check!(until_asleep(pid));
        children.push(pid);
    }
    for index in 0..3u8 {
        ok!(send(queue, &[b'a' + index], index.into()));
        let mut got = [0u8; 3];
        eq!(ok!(read(reader, &mut got)), 3);
        eq!(got, [index, b'a' + index, index]);
    }
    for child in children {
        eq!(ok!(wait(child)), End::Code(0));
    }
    // Senders as well; their messages are in the queue before they return.
    ok!(send(queue, b"x", 5));
    ok!(send(queue, b"y", 5));
    let first = ok!(child(|| send(queue, b"z", 1).err().unwrap_or(0)));
    check!(until_asleep(first));
    let second = ok!(child(|| send(queue, b"w", 9).err().unwrap_or(0)));
    check!(until_asleep(second));
    eq!(ok!(receive(queue, 10)), text(b"x", 5));
    eq!(ok!(wait(first)), End::Code(0));
    eq!(ok!(attr(queue)).curmsgs, 2);
    eq!(ok!(receive(queue, 10)), text(b"y", 5));
    eq!(ok!(wait(second)), End::Code(0));
    eq!(ok!(receive(queue, 10)), text(b"w", 9));
    eq!(ok!(receive(queue, 10)), text(b"z", 1));
    Ok(())
}

fn timeouts_and_signals() -> Outcome {
    let name = name("a");
    let queue = ok!(open(&name.0, O_CREAT | O_RDWR, 1, 10));
    let mut buf = [0u8; 10];
    let past = timespec { tv_sec: 1, tv_nsec: 0 };
    let wrong = timespec { tv_sec: 1, tv_nsec: 1_000_000_000 };
    fails!(sys!(SYS_mq_timedreceive, queue, &mut buf, 10, 0, &past), ETIMEDOUT);
    fails!(sys!(SYS_mq_timedreceive, queue, &mut buf, 10, 0, &wrong), EINVAL);
    let mut soon: timespec = guest_tests::mem::zeroed();
    ok!(sys!(SYS_clock_gettime, libc::CLOCK_REALTIME, &mut soon));
    soon.tv_nsec += 2_000_000;
    if soon.tv_nsec >= 1_000_000_000 {
        soon.tv_sec += 1;
        soon.tv_nsec -= 1_000_000_000;
    }
    fails!(sys!(SYS_mq_timedreceive, queue, &mut buf, 10, 0, &soon), ETIMEDOUT);
    // There is one: the time does not matter.
    ok!(send(queue, b"x", 0));
    fails!(sys!(SYS_mq_timedsend, queue, b"y", 1, 0, &past), ETIMEDOUT);
    eq!(ok!(sys!(SYS_mq_timedreceive, queue, &mut buf, 10, 0, &past)), 1);
    let interrupted = ok!(child(|| {
        let _ = sig::handle(libc::SIGUSR1, sig::record, 0);
        receive(queue, 10).err().unwrap_or(0)
    }));
    check!(until_asleep(interrupted));
    ok!(sys!(SYS_kill, interrupted, libc::SIGUSR1));
    eq!(ok!(wait(interrupted)), End::Code(libc::EINTR));
    let restarted = ok!(child(|| {
        let _ = sig::handle(libc::SIGUSR1, sig::record, libc::SA_RESTART);
        receive(queue, 10).err().unwrap_or(0)
    }));
    check!(until_asleep(restarted));
    ok!(sys!(SYS_kill, restarted, libc::SIGUSR1));
    ok!(send(queue, b"x", 0));
    eq!(ok!(wait(restarted)), End::Code(0));
    Ok(())
}

fn notification_by_signal() -> Outcome {
    let name = name("a");
    let queue = ok!(open(&name.0, O_CREAT | O_RDWR, 5, 10));
    ok!(sig::block(libc::SIGUSR1));
    let event = |signo: i32, notify: i32| {
        let mut event = [0u32; 16];
        event[0] = 0x1234;
        event[2] = signo as u32;
        event[3] = notify as u32;
        event
    };
    let register = |signo, notify| sys!(SYS_mq_notify, queue, &event(signo, notify));
    fails!(register(65, 0), EINVAL);
    fails!(register(10, 3), EINVAL);
    fails!(sys!(SYS_mq_notify, 0, &event(10, 0)), EBADF);
    ok!(register(libc::SIGUSR1, 0));
    fails!(register(libc::SIGUSR1, 0), EBUSY);
    eq!(
        ok!(wait(ok!(child(|| register(libc::SIGUSR1, 0).err().unwrap_or(0))))),
        End::Code(libc::EBUSY)
    );
    let sender = ok!(child(|| send(queue, b"x", 0).err().unwrap_or(0)));
    eq!(ok!(wait(sender)), End::Code(0));
    let mut info: libc::siginfo_t = guest_tests::mem::zeroed();
    let set = sig::bit(libc::SIGUSR1);
    let long = timespec { tv_sec: 30, tv_nsec: 0 };
    eq!(ok!(sys!(SYS_rt_sigtimedwait, &set, &mut info, &long, 8)) as i32, libc::SIGUSR1);
    // SAFETY: a message queue's siginfo has these fields.
    let (from, value) = unsafe { (info.si_pid(), info.si_value().sival_ptr as usize) };
    eq!((info.si_code, from, value), (-3, sender, 0x1234));
    // Once only, and only where the queue was empty.
    ok!(send(queue, b"y", 0));
    eq!(ok!(sig::pending()), 0);
    ok!(register(libc::SIGUSR1, 0));
    ok!(send(queue, b"z", 0));
    eq!(ok!(sig::pending()), 0);
    for _ in 0..3 {
        ok!(receive(queue, 10));
    }
    // A receiver that waits goes first.
    let receiver = ok!(child(|| receive(queue, 10).err().unwrap_or(0)));
    check!(until_asleep(receiver));
    ok!(send(queue, b"x", 0));
    eq!(ok!(wait(receiver)), End::Code(0));
    eq!(ok!(sig::pending()), 0);
    // Taken back: by the caller, with another descriptor, or when one is closed.
    ok!(sys!(SYS_mq_notify, queue, 0));
    ok!(register(0, 1));
    let again = ok!(sys!(SYS_dup, queue)) as i32;
    ok!(close(again));
    ok!(register(libc::SIGUSR1, 0));
    ok!(sys!(SYS_mq_notify, queue, 0));
    ok!(send(queue, b"x", 0));
    eq!(ok!(sig::pending()), 0);
    // Or with the end of the process.
    ok!(receive(queue, 10));
    eq!(ok!(wait(ok!(child(|| register(0, 1).err().unwrap_or(0))))), End::Code(0));
    ok!(register(0, 1));
    Ok(())
}

fn notification_by_socket() -> Outcome {
    // What the C library does for SIGEV_THREAD.
    let name = name("a");
    let queue = ok!(open(&name.0, O_CREAT | O_RDWR, 5, 10));
    let socket = ok!(sys!(SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0)) as i32;
    let mut cookie = [7u8; 32];
    let at = core::ptr::from_ref(&cookie) as u64;
    let mut event = [0u64; 8];
    event[0] = at;
    event[1] = socket as u64 | 2 << 32;
    ok!(sys!(SYS_mq_notify, queue, &event));
    ok!(send(queue, b"x", 0));
    let mut got = [0u8; 40];
    eq!(ok!(sys!(SYS_recvfrom, socket, &mut got, 40, 0, 0, 0)), 32);
    cookie[31] = 1;
    eq!(got[..32], cookie);
    ok!(receive(queue, 10));

    ok!(sys!(SYS_mq_notify, queue, &event));
    ok!(sys!(SYS_mq_notify, queue, 0));
    eq!(ok!(sys!(SYS_recvfrom, socket, &mut got, 40, 0, 0, 0)), 32);
    eq!(got[31], 2);
    let (reader, _) = ok!(pipe(0));
    event[1] = reader as u64 | 2 << 32;
    fails!(sys!(SYS_mq_notify, queue, &event), ENOTSOCK);
    Ok(())
}

fn polling() -> Outcome {
    let name = name("a");
    let queue = ok!(open(&name.0, O_CREAT | O_RDWR, 1, 10));
    let ready = || {
        let mut fds = [pollfd { fd: queue, events: POLLIN | POLLOUT, revents: 0 }];
        sys!(SYS_poll, &mut fds, 1, 0).map(|_| fds[0].revents)
    };
    eq!(ok!(ready()), POLLOUT);
    let epoll = ok!(sys!(SYS_epoll_create1, 0)) as i32;
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 5 };
    ok!(sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, queue, &mut event));
    let waiting = ok!(child(|| {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        match sys!(SYS_epoll_wait, epoll, &mut event, 1, -1) {
            Ok(1) if { event.u64 } == 5 => 0,
            _ => 1,
        }
    }));
    check!(until_asleep(waiting));
    ok!(send(queue, b"x", 0));
    eq!(ok!(wait(waiting)), End::Code(0));
    eq!(ok!(ready()), POLLIN);
    ok!(receive(queue, 10));
    eq!(ok!(ready()), POLLOUT);
    Ok(())
}

fn permissions() -> Outcome {
    let name = name("a");
    let queue = ok!(open(&name.0, O_CREAT | O_RDWR, 5, 10));
    ok!(in_child(|| {
        ok!(drop_root());
        fails!(open(&name.0, O_RDONLY, 5, 10), EACCES);
        check!(matches!(sys!(SYS_mq_unlink, &*name.0), Err(libc::EACCES | libc::EPERM)));
        let own = self::name("own");
        // The limits of those without privileges.
        fails!(open(&own.0, O_CREAT | O_RDWR, 11, 10), EINVAL);
        fails!(open(&own.0, O_CREAT | O_RDWR, 10, 8193), EINVAL);
        ok!(open(&own.0, O_CREAT | O_RDWR, 10, 8192));
        fails!(sys!(SYS_mq_open, c"guest-x", O_CREAT | O_RDWR, 0o600, 8), EFAULT);
        Ok(())
    }));
    ok!(sys!(SYS_fchmod, queue, 0o622));
    ok!(in_child(|| {
        ok!(drop_root());
        fails!(open(&name.0, O_RDWR, 5, 10), EACCES);
        let queue = ok!(open(&name.0, O_WRONLY, 5, 10));
        ok!(send(queue, b"x", 0));
        Ok(())
    }));
    Ok(())
}

fn limit_of_bytes() -> Outcome {
    ok!(in_child(|| {
        // 5 messages of 1000 bytes cost 5000 and 2 * 5 * 48.
        let limit = [5480u64, 5480];
        ok!(sys!(SYS_setresuid, 4711, 4711, 4711));
        ok!(sys!(SYS_prlimit64, 0, libc::RLIMIT_MSGQUEUE, &limit, 0));
        let (a, b) = (name("a"), name("b"));
        fails!(open(&a.0, O_CREAT | O_RDWR, 5, 1001), EMFILE);
        let queue = ok!(open(&a.0, O_CREAT | O_RDWR, 5, 1000));
        fails!(open(&b.0, O_CREAT | O_RDWR, 1, 1), EMFILE);
        ok!(sys!(SYS_mq_unlink, &*a.0));
        fails!(open(&b.0, O_CREAT | O_RDWR, 1, 1), EMFILE);
        ok!(close(queue));
        ok!(open(&b.0, O_CREAT | O_RDWR, 1, 1));
        Ok(())
    }));
    Ok(())
}

fn files() -> Outcome {
    ok!(std::fs::create_dir("mnt"));
    ok!(sys!(SYS_unshare, libc::CLONE_NEWNS));
    ok!(sys!(SYS_mount, c"none", c"/", 0, libc::MS_REC | libc::MS_PRIVATE, 0));
    ok!(sys!(SYS_mount, c"mqueue", c"mnt", c"mqueue", 0, 0));
    let mut statfs = [0u64; 15];
    ok!(sys!(SYS_statfs, c"mnt", &mut statfs));
    eq!(statfs[0], 0x1980_0202);
    let name = name("a");
    let file = format!("mnt/{}", name.0.to_string_lossy());
    let queue = ok!(open(&name.0, O_CREAT | O_RDWR, 5, 10));
    let listed = ok!(std::fs::read_dir("mnt")).filter_map(Result::ok);
    eq!(
        listed.filter(|entry| name.0.as_bytes() == entry.file_name().as_encoded_bytes()).count(),
        1
    );
    let status = |qsize: usize, notify, signo, pid| {
        format!("QSIZE:{qsize:<10} NOTIFY:{notify:<5} SIGNO:{signo:<5} NOTIFY_PID:{pid:<6}\n")
    };
    eq!(ok!(std::fs::read_to_string(&file)), status(0, 0, 0, 0));
    ok!(send(queue, b"four", 0));
    ok!(send(queue, b"sixsix", 0));
    let event: [u32; 16] = core::array::from_fn(|index| if index == 2 { 10 } else { 0 });
    ok!(sys!(SYS_mq_notify, queue, &event));
    eq!(ok!(std::fs::read_to_string(&file)), status(10, 0, 10, pid()));
    let path = std::ffi::CString::new(file.clone()).unwrap_or_default();
    let same = ok!(sys!(SYS_open, &*path, O_RDWR)) as i32;
    eq!(ok!(receive(same, 10)), text(b"four", 0));
    fails!(write(same, b"x"), EINVAL);
    let meta = ok!(std::fs::metadata(&file));
    eq!((meta.len(), meta.is_file()), (80, true));
    ok!(std::fs::write("mnt/guest-made", ""));
    let made = ok!(open(c"guest-made", O_RDWR, 0, 0));
    eq!(ok!(attr(made)), Attr { maxmsg: 10, msgsize: 8192, ..Attr::default() });
    ok!(sys!(SYS_mq_unlink, c"guest-made"));
    check!(std::fs::metadata("mnt/guest-made").is_err());
    fails!(sys!(SYS_mkdir, c"mnt/dir", 0o700), EPERM);
    ok!(std::fs::remove_file(&file));
    fails!(open(&name.0, O_RDWR, 5, 10), ENOENT);
    eq!(ok!(receive(queue, 10)), text(b"sixsix", 0));
    Ok(())
}

fn traffic() -> Outcome {
    let name = name("a");
    let queue = ok!(open(&name.0, O_CREAT | O_RDWR, 3, 10));
    let mut senders = Vec::new();
    for index in 0..8u8 {
        senders.push(ok!(child(|| {
            for _ in 0..50 {
                if send(queue, &[index], u32::from(index)).is_err() {
                    return 1;
                }
            }
            0
        })));
    }
    let mut counts = [0; 8];
    for count in 0..400 {
        if count == 200 {
            sleep(std::time::Duration::from_millis(1));
        }
        let (text, _) = ok!(receive(queue, 10));
        counts[usize::from(text[0])] += 1;
    }
    eq!(counts, [50; 8]);
    for sender in senders {
        eq!(ok!(wait(sender)), End::Code(0));
    }
    eq!(ok!(attr(queue)).curmsgs, 0);
    Ok(())
}

guest_tests::cases!(
    priorities,
    opening,
    nonblocking_and_attributes,
    blocking,
    timeouts_and_signals,
    notification_by_signal,
    notification_by_socket,
    polling,
    permissions,
    limit_of_bytes,
    files,
    traffic,
);
