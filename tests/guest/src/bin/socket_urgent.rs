//! Urgent data (`MSG_OOB`) of unix streams, and SIGURG of streams of either kind.

use std::sync::atomic::Ordering;

use guest_tests::fs::close;
use guest_tests::mem::zeroed;
use guest_tests::net::{connection, poll, recv, send, set_option};
use guest_tests::proc::until;
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};
use libc::{
    AF_INET, AF_UNIX, ECONNRESET, EILSEQ, F_GETOWN, F_SETOWN, FIONREAD, MSG_DONTWAIT, MSG_NOSIGNAL,
    MSG_OOB, MSG_PEEK, MSG_WAITALL, POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP,
    SCM_RIGHTS, SHUT_RD, SI_KERNEL, SIGURG, SO_OOBINLINE, SO_PEEK_OFF, SOCK_DGRAM, SOCK_SEQPACKET,
    SOCK_STREAM, SOL_SOCKET,
};

const ALL: i16 = POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP | POLLPRI;
const SIOCATMARK: i32 = 0x8905;
const FIOSETOWN: i32 = 0x8901;
const SIOCSPGRP: i32 = 0x8902;
const FIOGETOWN: i32 = 0x8903;

fn pair(kind: i32) -> Result<(i32, i32), i32> {
    let mut fds = [0; 2];
    sys!(SYS_socketpair, AF_UNIX, kind, 0, &mut fds)?;
    Ok((fds[0], fds[1]))
}

/// Receives without waiting.
fn take(fd: i32, n: usize, flags: i32) -> Result<Vec<u8>, i32> {
    let mut buf = vec![0; n];
    let n = recv(fd, &mut buf, flags | MSG_DONTWAIT)?;
    buf.truncate(n);
    Ok(buf)
}

/// As `take`, after a look that must show the same.
fn look_and_take(fd: i32, n: usize, flags: i32) -> Result<Vec<u8>, i32> {
    let seen = take(fd, n, flags | MSG_PEEK);
    let taken = take(fd, n, flags);
    if seen == taken { taken } else { Err(EILSEQ) }
}

fn ask(fd: i32, request: i32) -> Result<i32, i32> {
    let mut n = -1;
    sys!(SYS_ioctl, fd, request, &mut n)?;
    Ok(n)
}

fn urgent_byte_is_beside_the_stream() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    fails!(take(other, 1, MSG_OOB), EINVAL);
    eq!(ok!(ask(other, SIOCATMARK)), 0);
    eq!(ok!(send(one, b"hello", MSG_OOB)), 5);
    eq!(ok!(poll(other, ALL)), POLLIN | POLLOUT | POLLPRI);
    eq!(ok!(ask(other, FIONREAD)), 5);
    eq!(ok!(ask(other, SIOCATMARK)), 0);
    eq!(ok!(look_and_take(other, 8, MSG_OOB)), b"o");
    eq!(ok!(poll(other, ALL)), POLLIN | POLLOUT);
    eq!(ok!(ask(other, FIONREAD)), 4);
    fails!(take(other, 1, MSG_OOB), EINVAL);
    eq!(ok!(look_and_take(other, 8, 0)), b"hell");
    // What it has left is next, and is there to be read, if only as nothing.
    eq!(ok!(ask(other, SIOCATMARK)), 1);
    eq!(ok!(ask(other, FIONREAD)), 0);
    eq!(ok!(poll(other, ALL)), POLLIN | POLLOUT);
    fails!(take(other, 1, MSG_PEEK), EAGAIN);
    eq!(ok!(poll(other, ALL)), POLLIN | POLLOUT);
    fails!(take(other, 1, 0), EAGAIN);
    eq!(ok!(poll(other, ALL)), POLLOUT);
    eq!(ok!(ask(other, SIOCATMARK)), 0);
    Ok(())
}

fn reads_stop_at_the_mark() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    eq!(ok!(send(one, b"hello", MSG_OOB)), 5);
    eq!(ok!(send(one, b"world", 0)), 5);
    eq!(ok!(look_and_take(other, 16, 0)), b"hell");
    eq!(ok!(ask(other, SIOCATMARK)), 1);
    // A look passes it, a read drops it.
    eq!(ok!(look_and_take(other, 16, 0)), b"world");
    fails!(take(other, 1, MSG_OOB), EINVAL);
    eq!(ok!(ask(other, SIOCATMARK)), 0);
    eq!(ok!(poll(other, ALL)), POLLOUT);
    // They stop there when it has been received, too.
    eq!(ok!(send(one, b"hello", MSG_OOB)), 5);
    eq!(ok!(send(one, b"world", 0)), 5);
    eq!(ok!(take(other, 1, MSG_OOB)), b"o");
    eq!(ok!(look_and_take(other, 16, 0)), b"hell");
    eq!(ok!(look_and_take(other, 16, 0)), b"world");
    // Nor does it help to ask for all.
    eq!(ok!(send(one, b"hello", MSG_OOB)), 5);
    let mut buf = [0; 16];
    eq!(ok!(recv(other, &mut buf, MSG_WAITALL)), 4);
    eq!(ok!(take(other, 1, MSG_OOB)), b"o");
    // Alone it is dropped.
    eq!(ok!(send(one, b"x", MSG_OOB)), 1);
    fails!(look_and_take(other, 1, 0), EAGAIN);
    fails!(take(other, 1, MSG_OOB), EINVAL);
    eq!(ok!(poll(other, ALL)), POLLOUT);
    Ok(())
}

fn later_urgent_byte_replaces_the_first() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    for data in [b"hello".as_slice(), b"wor"] {
        eq!(ok!(send(one, data, MSG_OOB)), data.len());
    }
    eq!(ok!(send(one, b"ld", 0)), 2);
    eq!(ok!(look_and_take(other, 16, 0)), b"hellowo");
    eq!(ok!(look_and_take(other, 1, MSG_OOB)), b"r");
    eq!(ok!(look_and_take(other, 16, 0)), b"ld");
    eq!(ok!(send(one, b"x", MSG_OOB)), 1);
    eq!(ok!(send(one, b"y", MSG_OOB)), 1);
    eq!(ok!(look_and_take(other, 1, 0)), b"x");
    eq!(ok!(look_and_take(other, 1, MSG_OOB)), b"y");
    // What the first has left does not hold a read up that can go to the second.
    fails!(take(other, 1, 0), EAGAIN);
    eq!(ok!(send(one, b"hello", MSG_OOB)), 5);
    eq!(ok!(take(other, 1, MSG_OOB)), b"o");
    eq!(ok!(send(one, b"wor", MSG_OOB)), 3);
    eq!(ok!(look_and_take(other, 16, 0)), b"hellwo");
    eq!(ok!(ask(other, SIOCATMARK)), 1);
    eq!(ok!(take(other, 1, MSG_OOB)), b"r");
    eq!(ok!(ask(other, SIOCATMARK)), 1);
    eq!(ok!(send(one, b"a", 0)), 1);
    eq!(ok!(send(one, b"b", MSG_OOB)), 1);
    eq!(ok!(take(other, 1, MSG_OOB)), b"b");
    eq!(ok!(send(one, b"c", 0)), 1);
    eq!(ok!(look_and_take(other, 16, 0)), b"a");
    eq!(ok!(look_and_take(other, 16, 0)), b"c");
    eq!(ok!(poll(other, ALL)), POLLOUT);
    // For ever, without anybody who reads what is before.
    eq!(ok!(send(one, b"a", 0)), 1);
    for _ in 0..2000 {
        eq!(ok!(send(one, b"x", MSG_OOB | MSG_DONTWAIT)), 1);
        eq!(ok!(take(other, 1, MSG_OOB)), b"x");
    }
    eq!(ok!(send(one, b"b", 0)), 1);
    eq!(ok!(take(other, 16, 0)), b"a");
    eq!(ok!(take(other, 16, 0)), b"b");
    Ok(())
}

fn in_line_it_is_part_of_the_stream() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    ok!(set_option(other, SOL_SOCKET, SO_OOBINLINE, 1));
    eq!(ok!(send(one, b"hello", MSG_OOB)), 5);
    eq!(ok!(send(one, b"world", 0)), 5);
    fails!(look_and_take(other, 1, MSG_OOB), EINVAL);
    eq!(ok!(poll(other, ALL)), POLLIN | POLLOUT | POLLPRI);
    eq!(ok!(look_and_take(other, 16, 0)), b"hell");
    eq!(ok!(ask(other, SIOCATMARK)), 1);
    eq!(ok!(look_and_take(other, 16, 0)), b"oworld");
    eq!(ok!(ask(other, SIOCATMARK)), 0);
    eq!(ok!(poll(other, ALL)), POLLOUT);
    // The option counts when it is received.
    eq!(ok!(send(one, b"x", MSG_OOB)), 1);
    ok!(set_option(other, SOL_SOCKET, SO_OOBINLINE, 0));
    eq!(ok!(look_and_take(other, 1, MSG_OOB)), b"x");
    Ok(())
}

fn ends_with_urgent_data() -> Outcome {
    // One that has been received counts as nothing, one that has not is lost.
    for (is_taken, more, wanted) in
        [(true, "", Ok(0)), (false, "", Err(ECONNRESET)), (true, "y", Err(ECONNRESET))]
    {
        let (one, other) = ok!(pair(SOCK_STREAM));
        eq!(ok!(send(one, b"x", MSG_OOB)), 1);
        if is_taken {
            eq!(ok!(take(other, 1, MSG_OOB)), b"x");
        }
        if !more.is_empty() {
            eq!(ok!(send(one, more.as_bytes(), 0)), 1);
        }
        ok!(close(other));
        eq!(recv(one, &mut [0; 4], 0), wanted);
        ok!(close(one));
    }
    let (one, other) = ok!(pair(SOCK_STREAM));
    eq!(ok!(send(one, b"x", MSG_OOB)), 1);
    ok!(close(one));
    let ended = POLLIN | POLLOUT | POLLHUP | POLLRDHUP;
    eq!(ok!(poll(other, ALL)), ended | POLLPRI);
    eq!(ok!(look_and_take(other, 1, MSG_OOB)), b"x");
    eq!(ok!(poll(other, ALL)), ended);
    eq!(ok!(look_and_take(other, 1, 0)), b"");
    let (one, other) = ok!(pair(SOCK_STREAM));
    eq!(ok!(send(one, b"x", MSG_OOB)), 1);
    ok!(sys!(SYS_shutdown, other, SHUT_RD));
    fails!(send(one, b"y", MSG_OOB | MSG_NOSIGNAL), EPIPE);
    eq!(ok!(take(other, 1, 0)), b"");
    fails!(take(other, 1, MSG_OOB), EINVAL);
    Ok(())
}

fn errors_of_urgent_data() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    fails!(send(one, b"", MSG_OOB), EOPNOTSUPP);
    eq!(ok!(send(one, b"x", MSG_OOB)), 1);
    // No room for it is no error.
    eq!(ok!(recv(other, &mut [], MSG_OOB | MSG_PEEK)), 1);
    // It is gone even where it cannot be stored.
    fails!(sys!(SYS_recvfrom, other, 8, 1, MSG_OOB, 0, 0), EFAULT);
    fails!(take(other, 1, MSG_OOB), EINVAL);
    fails!(take(other, 1, 0), EAGAIN);
    for kind in [SOCK_DGRAM, SOCK_SEQPACKET] {
        let (one, other) = ok!(pair(kind));
        fails!(send(one, b"x", MSG_OOB), EOPNOTSUPP);
        fails!(take(other, 1, MSG_OOB), EOPNOTSUPP);
    }
    let idle = ok!(sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0)) as i32;
    fails!(send(idle, b"x", MSG_OOB), ENOTCONN);
    fails!(send(idle, b"", MSG_OOB), EOPNOTSUPP);
    fails!(take(idle, 1, MSG_OOB), EINVAL);
    let idle = ok!(sys!(SYS_socket, AF_UNIX, SOCK_SEQPACKET, 0)) as i32;
    fails!(send(idle, b"x", MSG_OOB), ENOTCONN);
    fails!(take(idle, 1, MSG_OOB), ENOTCONN);
    Ok(())
}

fn looks_from_elsewhere() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    ok!(set_option(other, SOL_SOCKET, SO_PEEK_OFF, 0));
    eq!(ok!(send(one, b"hello", MSG_OOB)), 5);
    eq!(ok!(send(one, b"wor", 0)), 3);
    eq!(ok!(take(other, 2, MSG_PEEK)), b"he");
    eq!(ok!(take(other, 8, MSG_PEEK)), b"ll");
    eq!(ok!(take(other, 8, MSG_PEEK)), b"owor");
    fails!(take(other, 8, MSG_PEEK), EAGAIN);
    eq!(ok!(take(other, 8, 0)), b"hell");
    eq!(ok!(take(other, 8, 0)), b"wor");
    Ok(())
}

#[repr(C, align(8))]
struct Rights {
    len: usize,
    level: i32,
    kind: i32,
    fd: i32,
    _pad: i32,
}

/// Sends or receives with room for one descriptor; says whether one came.
fn message(
    fd: i32,
    data: &mut [u8],
    flags: i32,
    rights: Option<i32>,
) -> Result<(usize, bool, i32), i32> {
    let mut control =
        Rights { len: 20, level: SOL_SOCKET, kind: SCM_RIGHTS, fd: rights.unwrap_or(-1), _pad: 0 };
    let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    let mut header: libc::msghdr = zeroed();
    header.msg_iov = &mut iov;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of::<Rights>() as _;
    let n = match rights {
        Some(_) => sys!(SYS_sendmsg, fd, &header, flags)?,
        None => sys!(SYS_recvmsg, fd, &mut header, flags | MSG_DONTWAIT)?,
    };
    Ok((n, header.msg_controllen > 0, header.msg_flags & !MSG_DONTWAIT))
}

fn files_go_with_what_comes_first() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    let mut buf = [0; 8];
    eq!(ok!(message(one, &mut b"hx".clone(), MSG_OOB, Some(0))).0, 2);
    eq!(ok!(message(other, &mut buf, MSG_OOB, None)), (1, false, MSG_OOB));
    eq!(ok!(message(other, &mut buf, 0, None)), (1, true, 0));
    fails!(message(other, &mut buf, 0, None), EAGAIN);
    // With the urgent byte alone they are lost.
    eq!(ok!(message(one, &mut b"x".clone(), MSG_OOB, Some(0))).0, 1);
    eq!(ok!(message(other, &mut buf, MSG_OOB, None)), (1, false, MSG_OOB));
    eq!(ok!(send(one, b"y", 0)), 1);
    eq!(ok!(message(other, &mut buf, MSG_PEEK, None)), (1, false, 0));
    eq!(ok!(message(other, &mut buf, 0, None)), (1, false, 0));
    // In line they are not.
    ok!(set_option(other, SOL_SOCKET, SO_OOBINLINE, 1));
    eq!(ok!(message(one, &mut b"x".clone(), MSG_OOB, Some(0))).0, 1);
    eq!(ok!(message(other, &mut buf, 0, None)), (1, true, 0));
    Ok(())
}

fn owner_gets_sigurg() -> Outcome {
    ok!(sig::handle(SIGURG, sig::record, 0));
    let me = std::process::id() as i32;
    let (one, other) = ok!(pair(SOCK_STREAM));
    let (client, accepted) = ok!(connection(AF_INET));
    let mut n = 0;
    for (from, to) in [(one, other), (client, accepted)] {
        // Nobody is its owner at first.
        eq!(ok!(send(from, b"a", MSG_OOB)), 1);
        check!(until(|| poll(to, POLLPRI) == Ok(POLLPRI)));
        eq!(sig::COUNT.load(Ordering::SeqCst), n);
        ok!(sys!(SYS_fcntl, to, F_SETOWN, me));
        eq!(ok!(send(from, b"b", MSG_OOB)), 1);
        n += 1;
        check!(until(|| sig::COUNT.load(Ordering::SeqCst) == n));
        eq!(sig::LAST.load(Ordering::SeqCst), SIGURG);
        eq!(sig::CODE.load(Ordering::SeqCst), SI_KERNEL);
        // What is not urgent does not matter.
        eq!(ok!(send(from, b"c", 0)), 1);
        check!(until(|| poll(to, POLLIN) == Ok(POLLIN)));
        eq!(sig::COUNT.load(Ordering::SeqCst), n);
        ok!(sys!(SYS_fcntl, to, F_SETOWN, 0));
        eq!(ok!(send(from, b"d", MSG_OOB)), 1);
        eq!(sig::COUNT.load(Ordering::SeqCst), n);
    }
    Ok(())
}

fn owner_by_ioctl() -> Outcome {
    let me = std::process::id() as i32;
    for request in [FIOSETOWN, SIOCSPGRP] {
        let (_, other) = ok!(pair(SOCK_STREAM));
        eq!(ok!(ask(other, FIOGETOWN)), 0);
        ok!(sys!(SYS_ioctl, other, request, &me));
        eq!(ok!(ask(other, FIOGETOWN)), me);
        eq!(ok!(sys!(SYS_fcntl, other, F_GETOWN)), me as usize);
    }
    let (output, _) = ok!(guest_tests::fs::pipe(0));
    fails!(sys!(SYS_ioctl, output, FIOSETOWN, &me), ENOTTY);
    Ok(())
}

guest_tests::cases!(
    urgent_byte_is_beside_the_stream,
    reads_stop_at_the_mark,
    later_urgent_byte_replaces_the_first,
    in_line_it_is_part_of_the_stream,
    ends_with_urgent_data,
    errors_of_urgent_data,
    looks_from_elsewhere,
    files_go_with_what_comes_first,
    owner_gets_sigurg,
    owner_by_ioctl,
);
