//! TCP over loopback: names and ports, connecting, ends and resets, urgent data, options.

use guest_tests::fs::{close, pipe, read, write, write_all};
use guest_tests::mem::zeroed;
use guest_tests::net::{
    LOCAL, accept, addr4, addr6, bind, connect, connection, listen, listener, local6, mapped,
    name_of, option, peer_of, poll, port_of, quiet_port, recv, send, set_option, set_timeout,
    settles_at, socket, wait_for,
};
use guest_tests::proc::{End, child, sleep, until_asleep, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};
use libc::{
    AF_INET, AF_INET6, AF_UNSPEC, IPPROTO_TCP, IPPROTO_UDP, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_OOB,
    MSG_PEEK, MSG_TRUNC, MSG_WAITALL, POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP,
    SHUT_RD, SHUT_RDWR, SHUT_WR, SO_ACCEPTCONN, SO_BINDTODEVICE, SO_DOMAIN, SO_ERROR, SO_KEEPALIVE,
    SO_LINGER, SO_OOBINLINE, SO_PROTOCOL, SO_RCVBUF, SO_RCVTIMEO, SO_SNDBUF, SO_SNDTIMEO, SO_TYPE,
    SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET,
    SOL_TCP,
};

const ALL: i16 = POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP | POLLPRI;

fn reset(fd: i32) -> Result<(), i32> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &linger, 8)?;
    close(fd)
}

/// Receives until the peer's data, its end or its reset is there.
fn receive(fd: i32) -> Result<Vec<u8>, i32> {
    let mut buf = [0; 4096];
    wait_for(fd, POLLIN)?;
    recv(fd, &mut buf, MSG_DONTWAIT).map(|n| buf[..n].to_vec())
}

fn kinds_are_checked() -> Outcome {
    fails!(sys!(SYS_socket, AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    fails!(sys!(SYS_socket, AF_INET, SOCK_DGRAM, IPPROTO_TCP), EPROTONOSUPPORT);
    fails!(sys!(SYS_socket, AF_INET, SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
    fails!(sys!(SYS_socket, AF_INET, SOCK_STREAM, 300), EINVAL);
    fails!(sys!(SYS_socket, AF_INET, SOCK_STREAM, -1), EINVAL);
    fails!(sys!(SYS_socket, AF_INET, 11, 0), EINVAL);
    fails!(sys!(SYS_socket, 400, SOCK_STREAM, 0), EAFNOSUPPORT);
    let fd = ok!(sys!(SYS_socket, AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP)) as i32;
    eq!(ok!(option(fd, SOL_SOCKET, SO_DOMAIN)), AF_INET6);
    eq!(ok!(option(fd, SOL_SOCKET, SO_TYPE)), SOCK_STREAM);
    eq!(ok!(option(fd, SOL_SOCKET, SO_PROTOCOL)), IPPROTO_TCP);
    guest_tests::proc::in_child(|| {
        ok!(guest_tests::proc::drop_root());
        fails!(sys!(SYS_socket, AF_INET, SOCK_RAW, libc::IPPROTO_ICMP), EPERM);
        fails!(sys!(SYS_socket, libc::AF_PACKET, SOCK_RAW, 0), EPERM);
        let fd = ok!(socket(AF_INET, SOCK_STREAM));
        fails!(bind(fd, &addr4(LOCAL, 1)), EACCES);
        Ok(())
    })
}

fn names_are_checked() -> Outcome {
    let fd = ok!(socket(AF_INET, SOCK_STREAM));
    fails!(bind(fd, &addr4(LOCAL, 0)[..8]), EINVAL);
    fails!(bind(fd, &addr6(local6(), 0)), EAFNOSUPPORT);
    fails!(bind(fd, &addr4([192, 0, 2, 77], 0)), EADDRNOTAVAIL);
    fails!(peer_of(fd), ENOTCONN);
    eq!(ok!(name_of(fd)), addr4([0; 4], 0));
    ok!(bind(fd, &addr4([127, 1, 2, 3], 0)));
    let name = ok!(name_of(fd));
    check!(port_of(&name) >= 1024);
    eq!(name, addr4([127, 1, 2, 3], port_of(&name)));
    fails!(bind(fd, &addr4(LOCAL, 0)), EINVAL);
    // The wildcard address may come without its family.
    let mut wildcard = addr4([0; 4], 0);
    wildcard[..2].copy_from_slice(&(AF_UNSPEC as u16).to_ne_bytes());
    ok!(bind(ok!(socket(AF_INET, SOCK_STREAM)), &wildcard));
    wildcard[4] = 127;
    fails!(bind(ok!(socket(AF_INET, SOCK_STREAM)), &wildcard), EAFNOSUPPORT);
    let six = ok!(socket(AF_INET6, SOCK_STREAM));
    fails!(bind(six, &addr4(LOCAL, 0)), EINVAL);
    fails!(bind(six, &addr6(local6(), 0)[..20]), EINVAL);
    ok!(bind(six, &addr6(local6(), 0)));
    eq!(ok!(name_of(six)).len(), 28);
    fails!(sys!(SYS_listen, 999, 1), EBADF);
    fails!(listen(ok!(socket(AF_INET, SOCK_DGRAM)), 1), EOPNOTSUPP);
    fails!(accept(fd, 0), EINVAL);
    fails!(connect(fd, &addr4(LOCAL, 1)[..8]), EINVAL);
    fails!(connect(fd, &[2]), EINVAL);
    fails!(connect(fd, &addr6(local6(), 1)), EAFNOSUPPORT);
    Ok(())
}

fn connections_are_made() -> Outcome {
    for family in [AF_INET, AF_INET6] {
        let (server, addr) = ok!(listener(family, 5));
        eq!(ok!(option(server, SOL_SOCKET, SO_ACCEPTCONN)), 1);
        eq!(ok!(poll(server, ALL)), 0);
        fails!(connect(server, &addr), EISCONN);
        let client = ok!(socket(family, SOCK_STREAM));
        eq!(ok!(poll(client, ALL)), POLLOUT | POLLHUP);
        ok!(connect(client, &addr));
        ok!(wait_for(server, POLLIN));
        let mut peer = [0u8; 28];
        let mut len = 28i32;
        let fd = ok!(sys!(SYS_accept4, server, &mut peer, &mut len, SOCK_CLOEXEC)) as i32;
        eq!(&peer[..len as usize], &ok!(name_of(client))[..]);
        eq!(ok!(sys!(SYS_fcntl, fd, libc::F_GETFD, 0)), libc::FD_CLOEXEC as usize);
        eq!(ok!(peer_of(client)), addr);
        eq!(ok!(name_of(fd)), addr);
        eq!(ok!(peer_of(fd)), ok!(name_of(client)));
        fails!(connect(client, &addr), EISCONN);
        fails!(listen(client, 1), EINVAL);
        eq!(ok!(write(client, b"hello")), 5);
        eq!(ok!(receive(fd)), b"hello");
        eq!(ok!(write(fd, b"there")), 5);
        eq!(ok!(receive(client)), b"there");
        eq!(ok!(poll(client, ALL)), POLLOUT);
        fails!(recv(client, &mut [0; 1], MSG_DONTWAIT), EAGAIN);
        eq!(ok!(read(client, &mut [])), 0);
        for fd in [server, client, fd] {
            ok!(close(fd));
        }
    }
    Ok(())
}

fn refused_connection() -> Outcome {
    let (server, addr) = ok!(listener(AF_INET, 1));
    ok!(close(server));
    let fd = ok!(socket(AF_INET, SOCK_STREAM));
    fails!(connect(fd, &addr), ECONNREFUSED);
    fails!(connect(fd, &addr), ECONNREFUSED);
    eq!(ok!(option(fd, SOL_SOCKET, SO_ERROR)), 0);
    eq!(ok!(poll(fd, ALL)), POLLOUT | POLLHUP);
    // Without waiting, the error comes later.
    let fd = ok!(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK));
    fails!(connect(fd, &addr), EINPROGRESS);
    ok!(settles_at(fd, ALL, POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    eq!(ok!(option(fd, SOL_SOCKET, SO_ERROR)), libc::ECONNREFUSED);
    eq!(ok!(option(fd, SOL_SOCKET, SO_ERROR)), 0);
    fails!(connect(fd, &addr), ECONNABORTED);
    // The socket is as new.
    let (_server, addr) = ok!(listener(AF_INET, 1));
    fails!(connect(fd, &addr), EINPROGRESS);
    eq!(ok!(wait_for(fd, POLLOUT)), POLLOUT);
    eq!(ok!(option(fd, SOL_SOCKET, SO_ERROR)), 0);
    ok!(connect(fd, &addr));
    fails!(connect(fd, &addr), EISCONN);
    Ok(())
}

/// Returns a listener with its address, a client in its queue, and one for which there is no room there.
fn full_listener() -> Result<(i32, Vec<u8>, i32, i32), String> {
    let (server, addr) = ok!(listener(AF_INET, 0));
    let first = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(connect(first, &addr));
    ok!(wait_for(server, POLLIN));
    // The queue is full with one more than the backlog.
    let second = ok!(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK));
    fails!(connect(second, &addr), EINPROGRESS);
    Ok((server, addr, first, second))
}

fn full_backlog_delays() -> Outcome {
    let (server, addr, _, second) = full_listener()?;
    sleep(std::time::Duration::from_millis(20));
    fails!(connect(second, &addr), EALREADY);
    eq!(ok!(poll(second, ALL)), 0);
    fails!(recv(second, &mut [0; 1], 0), EAGAIN);
    let accepted = ok!(accept(server, 0));
    eq!(ok!(wait_for(second, POLLOUT)), POLLOUT);
    let other = ok!(accept(server, 0));
    eq!(ok!(write(second, b"x")), 1);
    eq!(ok!(receive(other)), b"x");
    ok!(close(accepted));
    Ok(())
}

fn waiting_clients_outlive_the_listener() -> Outcome {
    for listens_again in [false, true] {
        let (server, addr, first, second) = full_listener()?;
        ok!(close(server));
        ok!(wait_for(first, POLLHUP));
        // Nobody has told it: it finds out when it sends its SYN again, after a second.
        eq!(ok!(poll(second, ALL)), 0);
        fails!(connect(second, &addr), EALREADY);
        if listens_again {
            let other = ok!(socket(AF_INET, SOCK_STREAM));
            ok!(set_option(other, SOL_SOCKET, libc::SO_REUSEADDR, 1));
            ok!(bind(other, &addr));
            ok!(listen(other, 1));
            eq!(ok!(wait_for(second, POLLOUT)), POLLOUT);
            let accepted = ok!(accept(other, 0));
            eq!(ok!(write(second, b"x")), 1);
            eq!(ok!(receive(accepted)), b"x");
        } else {
            eq!(ok!(wait_for(second, POLLOUT)), POLLOUT | POLLERR | POLLHUP);
            fails!(connect(second, &addr), ECONNREFUSED);
        }
    }
    Ok(())
}

fn accept_waits() -> Outcome {
    let (server, addr) = ok!(listener(AF_INET, 5));
    ok!(sys!(SYS_fcntl, server, libc::F_SETFL, libc::O_NONBLOCK));
    fails!(accept(server, 0), EAGAIN);
    ok!(sys!(SYS_fcntl, server, libc::F_SETFL, 0));
    ok!(set_timeout(server, SO_RCVTIMEO, 20));
    fails!(accept(server, 0), EAGAIN);
    ok!(set_timeout(server, SO_RCVTIMEO, 0));
    let pid = ok!(child(|| match accept(server, 0) {
        Ok(fd) => i32::from(write(fd, b"x") != Ok(1)),
        Err(_) => 2,
    }));
    check!(until_asleep(pid));
    let client = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(connect(client, &addr));
    eq!(ok!(read(client, &mut [0; 4])), 1);
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

/// The port of an accepted connection is free once that was reset, though its socket is still open.
/// A socket goes on to tell the port that it has given back, and its address where `bind(2)` had named that.
fn listener_resets_what_it_has_not_accepted() -> Outcome {
    let (server, addr) = ok!(listener(AF_INET, 5));
    let client = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(connect(client, &addr));
    ok!(wait_for(server, POLLIN));
    ok!(close(server));
    ok!(settles_at(client, ALL, POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    fails!(recv(client, &mut [0; 1], 0), ECONNRESET);
    eq!(ok!(recv(client, &mut [0; 1], 0)), 0);
    fails!(peer_of(client), ENOTCONN);
    Ok(())
}

fn ends_are_seen() -> Outcome {
    let (client, server) = ok!(connection(AF_INET));
    eq!(ok!(send(client, b"last words", 0)), 10);
    ok!(sys!(SYS_shutdown, client, SHUT_WR));
    ok!(settles_at(server, ALL, POLLIN | POLLOUT | POLLRDHUP));
    eq!(ok!(receive(server)), b"last words");
    eq!(ok!(recv(server, &mut [0; 4], 0)), 0);
    eq!(ok!(recv(server, &mut [0; 4], 0)), 0);
    fails!(send(client, b"x", MSG_NOSIGNAL), EPIPE);
    // The other direction goes on.
    eq!(ok!(send(server, b"yes", 0)), 3);
    eq!(ok!(receive(client)), b"yes");
    eq!(ok!(poll(client, ALL)), POLLOUT);
    ok!(close(server));
    ok!(settles_at(client, ALL, POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
    eq!(ok!(recv(client, &mut [0; 4], 0)), 0);
    fails!(sys!(SYS_shutdown, client, SHUT_WR), ENOTCONN);
    Ok(())
}

fn receive_side_can_be_shut() -> Outcome {
    let (client, server) = ok!(connection(AF_INET));
    ok!(sys!(SYS_shutdown, client, SHUT_RD));
    eq!(ok!(recv(client, &mut [0; 4], 0)), 0);
    eq!(ok!(poll(client, ALL)), POLLIN | POLLOUT | POLLRDHUP);
    // The peer is not told, and what it sends is there.
    eq!(ok!(poll(server, ALL)), POLLOUT);
    eq!(ok!(send(server, b"abc", 0)), 3);
    check!(guest_tests::proc::until(|| recv(client, &mut [0; 4], 0) == Ok(3)));
    fails!(sys!(SYS_shutdown, client, 3), EINVAL);
    let fresh = ok!(socket(AF_INET, SOCK_STREAM));
    fails!(sys!(SYS_shutdown, fresh, SHUT_RDWR), ENOTCONN);
    fails!(sys!(SYS_shutdown, fresh, 3), EINVAL);
    // Both sides: what the peer sends then resets the connection.
    let (client, server) = ok!(connection(AF_INET));
    ok!(sys!(SYS_shutdown, client, SHUT_RDWR));
    ok!(wait_for(server, POLLRDHUP));
    eq!(ok!(send(server, b"abc", 0)), 3);
    ok!(settles_at(server, POLLERR | POLLHUP, POLLERR | POLLHUP));
    fails!(send(server, b"abc", MSG_NOSIGNAL), EPIPE);
    Ok(())
}

fn listening_stops_with_shutdown() -> Outcome {
    let (server, addr) = ok!(listener(AF_INET, 5));
    let pid = ok!(child(|| match accept(server, 0) {
        Err(libc::EINVAL) => 0,
        _ => 1,
    }));
    check!(until_asleep(pid));
    ok!(sys!(SYS_shutdown, server, SHUT_RD));
    eq!(ok!(wait(pid)), End::Code(0));
    fails!(accept(server, 0), EINVAL);
    eq!(ok!(option(server, SOL_SOCKET, SO_ACCEPTCONN)), 0);
    fails!(connect(ok!(socket(AF_INET, SOCK_STREAM)), &addr), ECONNREFUSED);
    ok!(listen(server, 5));
    Ok(())
}

fn unread_data_resets() -> Outcome {
    let (client, server) = ok!(connection(AF_INET));
    eq!(ok!(send(client, b"unread", 0)), 6);
    ok!(wait_for(server, POLLIN));
    ok!(close(server));
    ok!(settles_at(client, ALL, POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    fails!(send(client, b"x", MSG_NOSIGNAL), ECONNRESET);
    fails!(send(client, b"x", MSG_NOSIGNAL), EPIPE);
    eq!(ok!(recv(client, &mut [0; 4], 0)), 0);
    // So does a linger of no time.
    let (client, server) = ok!(connection(AF_INET));
    ok!(reset(server));
    ok!(wait_for(client, POLLIN));
    eq!(ok!(option(client, SOL_SOCKET, SO_ERROR)), libc::ECONNRESET);
    eq!(ok!(recv(client, &mut [0; 4], 0)), 0);
    // What came before the reset can be read.
    let (client, server) = ok!(connection(AF_INET));
    eq!(ok!(send(server, b"abc", 0)), 3);
    ok!(reset(server));
    ok!(wait_for(client, POLLERR));
    eq!(ok!(receive(client)), b"abc");
    fails!(recv(client, &mut [0; 4], 0), ECONNRESET);
    Ok(())
}

fn writing_to_the_gone() -> Outcome {
    let (client, server) = ok!(connection(AF_INET));
    ok!(close(server));
    ok!(wait_for(client, POLLRDHUP));
    eq!(ok!(poll(client, ALL)), POLLIN | POLLOUT | POLLRDHUP);
    // The first write is answered with a reset, the second one sees it.
    eq!(ok!(send(client, b"x", 0)), 1);
    ok!(wait_for(client, POLLHUP));
    fails!(send(client, b"x", MSG_NOSIGNAL), EPIPE);
    eq!(ok!(recv(client, &mut [0; 4], 0)), 0);
    let pid = ok!(child(|| {
        let _ = sig::plain(libc::SIGPIPE, 0);
        let _ = write(client, b"x");
        1
    }));
    eq!(ok!(wait(pid)), End::Signal(libc::SIGPIPE));
    // A socket that never was connected.
    let fresh = ok!(socket(AF_INET, SOCK_STREAM));
    fails!(send(fresh, b"x", MSG_NOSIGNAL), EPIPE);
    fails!(recv(fresh, &mut [0; 4], 0), ENOTCONN);
    let (server, _) = ok!(listener(AF_INET, 1));
    fails!(send(server, b"x", MSG_NOSIGNAL), EPIPE);
    fails!(recv(server, &mut [0; 4], 0), ENOTCONN);
    Ok(())
}

fn much_is_not_written_to_the_gone() -> Outcome {
    let (client, server) = ok!(connection(AF_INET));
    ok!(close(server));
    let data = vec![0; 16 << 20];
    check!(send(client, &data, MSG_NOSIGNAL) != Ok(data.len()));
    fails!(send(client, b"x", MSG_NOSIGNAL), EPIPE);
    Ok(())
}

fn streams_have_no_bounds() -> Outcome {
    let (client, server) = ok!(connection(AF_INET6));
    let mut data = Vec::new();
    for index in 0..3_000_000_u32 {
        data.push((index.wrapping_mul(2_654_435_761) >> 24) as u8);
    }
    let pid = ok!(child(|| {
        let _ = close(server);
        i32::from(write_all(client, &data).is_err())
    }));
    ok!(close(client));
    let mut got = Vec::new();
    let mut buf = vec![0; 70_001];
    loop {
        let n = ok!(read(server, &mut buf));
        if n == 0 {
            break;
        }
        got.extend_from_slice(&buf[..n]);
    }
    eq!(ok!(wait(pid)), End::Code(0));
    check!(got == data);
    Ok(())
}

fn full_stream_waits() -> Outcome {
    let (client, server) = ok!(connection(AF_INET));
    let data = vec![7; 1 << 20];
    let mut total = 0;
    loop {
        match send(client, &data, MSG_DONTWAIT) {
            Ok(n) => total += n,
            Err(libc::EAGAIN) => break,
            Err(errno) => return Err(guest_tests::errno::name(errno)),
        }
        check!(total < 1 << 30, "no bound");
    }
    check!(total > 100_000, "only {total}");
    eq!(ok!(poll(client, POLLOUT)), 0);
    ok!(set_timeout(client, SO_SNDTIMEO, 20));
    fails!(send(client, b"x", 0), EAGAIN);
    let mut buf = vec![0; 1 << 20];
    let mut left = total;
    while left > 0 {
        left -= ok!(read(server, &mut buf));
    }
    eq!(ok!(wait_for(client, POLLOUT)), POLLOUT);
    Ok(())
}

fn peek_truncate_and_wait_for_all() -> Outcome {
    let (client, server) = ok!(connection(AF_INET));
    eq!(ok!(send(client, b"abcdefgh", 0)), 8);
    ok!(wait_for(server, POLLIN));
    let mut buf = [0; 16];
    eq!(ok!(recv(server, &mut buf, MSG_PEEK)), 8);
    eq!(&buf[..8], b"abcdefgh");
    let mut n = 0i32;
    ok!(sys!(SYS_ioctl, server, libc::FIONREAD, &mut n));
    eq!(n, 8);
    // MSG_TRUNC throws away.
    eq!(ok!(recv(server, &mut buf[..3], MSG_TRUNC)), 3);
    eq!(ok!(recv(server, &mut buf, 0)), 5);
    eq!(&buf[..5], b"defgh");
    let pid = ok!(child(|| {
        let mut buf = [0; 6];
        let n = recv(server, &mut buf, MSG_WAITALL);
        i32::from(n != Ok(6) || &buf != b"ABCDEF")
    }));
    check!(until_asleep(pid));
    eq!(ok!(send(client, b"ABC", 0)), 3);
    check!(until_asleep(pid));
    eq!(ok!(send(client, b"DEF", 0)), 3);
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn urgent_data() -> Outcome {
    let (client, server) = ok!(connection(AF_INET));
    fails!(recv(server, &mut [0; 1], MSG_OOB), EINVAL);
    eq!(ok!(send(client, b"abU", MSG_OOB)), 3);
    eq!(ok!(send(client, b"cd", 0)), 2);
    ok!(wait_for(server, POLLPRI));
    let mut mark = 7i32;
    const SIOCATMARK: u64 = 0x8905;
    ok!(sys!(SYS_ioctl, server, SIOCATMARK, &mut mark));
    eq!(mark, 0);
    // A read stops at the mark.
    let mut buf = [0; 16];
    eq!(ok!(recv(server, &mut buf, 0)), 2);
    eq!(&buf[..2], b"ab");
    ok!(sys!(SYS_ioctl, server, SIOCATMARK, &mut mark));
    eq!(mark, 1);
    eq!(ok!(recv(server, &mut buf, MSG_OOB)), 1);
    eq!(buf[0], b'U');
    fails!(recv(server, &mut buf, MSG_OOB), EINVAL);
    check!(guest_tests::proc::until(|| recv(server, &mut buf, MSG_DONTWAIT) == Ok(2)));
    eq!(&buf[..2], b"cd");
    eq!(ok!(poll(server, POLLPRI | POLLIN)), 0);
    // In line it is part of the stream.
    ok!(set_option(server, SOL_SOCKET, SO_OOBINLINE, 1));
    eq!(ok!(send(client, b"xV", MSG_OOB)), 2);
    eq!(ok!(send(client, b"y", 0)), 1);
    ok!(wait_for(server, POLLPRI));
    fails!(recv(server, &mut buf, MSG_OOB), EINVAL);
    eq!(ok!(recv(server, &mut buf, 0)), 1);
    check!(guest_tests::proc::until(|| recv(server, &mut buf, MSG_PEEK | MSG_DONTWAIT) == Ok(2)));
    eq!(&buf[..2], b"Vy");
    Ok(())
}

fn options_are_kept() -> Outcome {
    let fd = ok!(socket(AF_INET, SOCK_STREAM));
    for (name, default, set, got) in [
        (libc::TCP_NODELAY, 0, 5, 1),
        (libc::TCP_CORK, 0, 1, 1),
        (libc::TCP_KEEPIDLE, 7200, 60, 60),
        (libc::TCP_KEEPINTVL, 75, 10, 10),
        (libc::TCP_KEEPCNT, 9, 5, 5),
        (libc::TCP_SYNCNT, 6, 3, 3),
        (libc::TCP_USER_TIMEOUT, 0, 5000, 5000),
        (libc::TCP_DEFER_ACCEPT, 0, 5, 7),
        (libc::TCP_QUICKACK, 1, 1, 1),
        (libc::TCP_NOTSENT_LOWAT, 0, 16384, 16384),
    ] {
        eq!((name, option(fd, SOL_TCP, name)), (name, Ok(default)));
        ok!(set_option(fd, SOL_TCP, name, set));
        eq!((name, option(fd, SOL_TCP, name)), (name, Ok(got)));
    }
    fails!(set_option(fd, SOL_TCP, libc::TCP_KEEPIDLE, 0), EINVAL);
    fails!(set_option(fd, SOL_TCP, libc::TCP_KEEPCNT, 128), EINVAL);
    fails!(set_option(fd, SOL_TCP, 999, 1), ENOPROTOOPT);
    fails!(option(fd, SOL_TCP, 999), ENOPROTOOPT);
    fails!(option(fd, 999, 1), EOPNOTSUPP);
    fails!(set_option(fd, 999, 1, 1), ENOPROTOOPT);
    fails!(sys!(SYS_setsockopt, fd, SOL_TCP, libc::TCP_NODELAY, &1u8, 1), EINVAL);
    eq!(ok!(option(fd, SOL_TCP, libc::TCP_MAXSEG)), 536);
    for (name, default, set) in [
        (libc::IP_TOS, 0, 0x10),
        (libc::IP_TTL, 64, 33),
        (libc::IP_PKTINFO, 0, 1),
        (libc::IP_RECVERR, 0, 1),
        (libc::IP_FREEBIND, 0, 1),
    ] {
        eq!((name, option(fd, libc::IPPROTO_IP, name)), (name, Ok(default)));
        ok!(set_option(fd, libc::IPPROTO_IP, name, set));
        eq!((name, option(fd, libc::IPPROTO_IP, name)), (name, Ok(set)));
    }
    fails!(set_option(fd, libc::IPPROTO_IP, libc::IP_TTL, 0), EINVAL);
    fails!(set_option(fd, libc::IPPROTO_IP, libc::IP_TTL, 256), EINVAL);
    fails!(set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1), ENOPROTOOPT);
    ok!(sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_BINDTODEVICE, c"lo", 3));
    fails!(sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_BINDTODEVICE, c"nodev", 6), ENODEV);
    let (client, server) = ok!(connection(AF_INET));
    let mut info = [0u8; 104];
    let mut len = 104i32;
    ok!(sys!(SYS_getsockopt, client, SOL_TCP, libc::TCP_INFO, &mut info, &mut len));
    eq!((info[0], len), (1, 104));
    ok!(sys!(SYS_shutdown, server, SHUT_WR));
    ok!(wait_for(client, POLLRDHUP));
    ok!(sys!(SYS_getsockopt, client, SOL_TCP, libc::TCP_INFO, &mut info, &mut len));
    eq!(info[0], 8);
    let mut creds: libc::ucred = zeroed();
    let mut len = 12i32;
    ok!(sys!(SYS_getsockopt, client, SOL_SOCKET, libc::SO_PEERCRED, &mut creds, &mut len));
    eq!((creds.pid, creds.uid), (0, u32::MAX));
    Ok(())
}

fn options_are_inherited() -> Outcome {
    let (server, addr) = ok!(listener(AF_INET, 1));
    ok!(set_option(server, SOL_TCP, libc::TCP_NODELAY, 1));
    ok!(set_option(server, SOL_SOCKET, SO_KEEPALIVE, 1));
    ok!(set_option(server, SOL_SOCKET, SO_RCVBUF, 30_000));
    ok!(set_option(server, SOL_SOCKET, SO_SNDBUF, 30_000));
    let client = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(connect(client, &addr));
    let fd = ok!(accept(server, 0));
    eq!(ok!(option(fd, SOL_TCP, libc::TCP_NODELAY)), 1);
    eq!(ok!(option(fd, SOL_SOCKET, SO_KEEPALIVE)), 1);
    eq!(ok!(option(fd, SOL_SOCKET, SO_RCVBUF)), 60_000);
    eq!(ok!(option(fd, SOL_SOCKET, SO_SNDBUF)), 60_000);
    eq!(ok!(option(fd, SOL_SOCKET, SO_ACCEPTCONN)), 0);
    Ok(())
}

fn families_meet() -> Outcome {
    // A socket of IPv6 on the wildcard address takes clients of IPv4.
    let server = ok!(socket(AF_INET6, SOCK_STREAM));
    ok!(bind(server, &addr6([0; 16], 0)));
    ok!(listen(server, 5));
    let port = port_of(&ok!(name_of(server)));
    let client = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(connect(client, &addr4(LOCAL, port)));
    let fd = ok!(accept(server, 0));
    eq!(ok!(peer_of(fd)), addr6(mapped(LOCAL), port_of(&ok!(name_of(client)))));
    eq!(ok!(name_of(fd)), addr6(mapped(LOCAL), port));
    // And one of IPv6 connects to a mapped address, or to none.
    let client = ok!(socket(AF_INET6, SOCK_STREAM));
    ok!(connect(client, &addr6(mapped(LOCAL), port)));
    eq!(ok!(peer_of(client)), addr6(mapped(LOCAL), port));
    let client = ok!(socket(AF_INET6, SOCK_STREAM));
    ok!(connect(client, &addr6([0; 16], port)));
    eq!(ok!(peer_of(client)), addr6(local6(), port));
    // Not with IPV6_V6ONLY.
    let only = ok!(socket(AF_INET6, SOCK_STREAM));
    ok!(set_option(only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1));
    fails!(bind(only, &addr6(mapped(LOCAL), 0)), EINVAL);
    ok!(bind(only, &addr6([0; 16], ok!(quiet_port()))));
    fails!(set_option(only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0), EINVAL);
    ok!(listen(only, 5));
    let port = port_of(&ok!(name_of(only)));
    fails!(connect(ok!(socket(AF_INET, SOCK_STREAM)), &addr4(LOCAL, port)), ECONNREFUSED);
    ok!(bind(ok!(socket(AF_INET, SOCK_STREAM)), &addr4([0; 4], port)));
    fails!(connect(only, &addr6(mapped(LOCAL), port)), EISCONN);
    Ok(())
}

fn address_of_the_source() -> Outcome {
    let server = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(bind(server, &addr4([0; 4], 0)));
    ok!(listen(server, 5));
    let port = port_of(&ok!(name_of(server)));
    // This host's address is the destination; the source is the first of the interface.
    let client = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(connect(client, &addr4([0; 4], port)));
    eq!(ok!(peer_of(client)), addr4(LOCAL, port));
    let client = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(bind(client, &addr4([127, 0, 0, 9], 0)));
    ok!(connect(client, &addr4([127, 0, 0, 7], port)));
    eq!(&ok!(name_of(client))[4..8], &[127, 0, 0, 9]);
    eq!(ok!(peer_of(client)), addr4([127, 0, 0, 7], port));
    Ok(())
}

fn disconnect_starts_anew() -> Outcome {
    let (server, addr) = ok!(listener(AF_INET, 5));
    let client = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(connect(client, &addr));
    let accepted = ok!(accept(server, 0));
    let none = [0u8; 16];
    ok!(connect(client, &none));
    fails!(peer_of(client), ENOTCONN);
    eq!(ok!(poll(client, ALL)), POLLOUT | POLLERR | POLLHUP);
    eq!(ok!(option(client, SOL_SOCKET, SO_ERROR)), libc::ECONNRESET);
    eq!(ok!(poll(client, ALL)), POLLOUT | POLLHUP);
    ok!(wait_for(accepted, POLLIN));
    fails!(recv(accepted, &mut [0; 1], 0), ECONNRESET);
    ok!(connect(client, &addr));
    ok!(accept(server, 0));
    Ok(())
}

fn files_go_out() -> Outcome {
    // sendfile and splice to a socket, splice from one.
    let (client, server) = ok!(connection(AF_INET));
    ok!(guest_tests::fs::put(c"f", b"0123456789"));
    let file = ok!(guest_tests::fs::open(c"f", libc::O_RDONLY));
    eq!(ok!(sys!(SYS_sendfile, client, file, 0, 6)), 6);
    eq!(ok!(receive(server)), b"012345");
    let (reader, writer) = ok!(pipe(0));
    eq!(ok!(write(writer, b"piped")), 5);
    eq!(ok!(sys!(SYS_splice, reader, 0, client, 0, 5, 0)), 5);
    ok!(wait_for(server, POLLIN));
    eq!(ok!(sys!(SYS_splice, server, 0, writer, 0, 100, 0)), 5);
    let mut buf = [0; 8];
    eq!(ok!(read(reader, &mut buf)), 5);
    eq!(&buf[..5], b"piped");
    Ok(())
}

fn signals_interrupt() -> Outcome {
    let (client, server) = ok!(connection(AF_INET));
    ok!(sig::handle(libc::SIGALRM, sig::record, 0));
    let pid = guest_tests::proc::pid();
    let waker = ok!(child(|| {
        until_asleep(pid);
        i32::from(sys!(SYS_kill, pid, libc::SIGALRM).is_err())
    }));
    fails!(recv(client, &mut [0; 1], 0), EINTR);
    eq!(ok!(wait(waker)), End::Code(0));
    ok!(close(server));
    Ok(())
}

fn many_connections() -> Outcome {
    let (server, addr) = ok!(listener(AF_INET, 1000));
    let mut clients = Vec::new();
    for _ in 0..300 {
        let client = ok!(socket(AF_INET, SOCK_STREAM));
        ok!(connect(client, &addr));
        clients.push(client);
    }
    let mut servers = Vec::new();
    for _ in 0..300 {
        servers.push(ok!(accept(server, 0)));
    }
    let mut ports: Vec<u16> = Vec::new();
    for client in &clients {
        ports.push(port_of(&ok!(name_of(*client))));
    }
    ports.sort_unstable();
    ports.dedup();
    eq!(ports.len(), 300);
    for (index, fd) in servers.iter().enumerate() {
        eq!(ok!(write(*fd, &(index as u32).to_ne_bytes())), 4);
    }
    let mut seen = Vec::new();
    for fd in &clients {
        let mut buf = [0; 4];
        eq!(ok!(read(*fd, &mut buf)), 4);
        seen.push(u32::from_ne_bytes(buf));
    }
    seen.sort_unstable();
    eq!(seen, (0..300).collect::<Vec<u32>>());
    Ok(())
}

guest_tests::cases!(
    kinds_are_checked,
    names_are_checked,
    connections_are_made,
    refused_connection,
    full_backlog_delays,
    waiting_clients_outlive_the_listener,
    accept_waits,
    listener_resets_what_it_has_not_accepted,
    ends_are_seen,
    receive_side_can_be_shut,
    listening_stops_with_shutdown,
    unread_data_resets,
    writing_to_the_gone,
    much_is_not_written_to_the_gone,
    streams_have_no_bounds,
    full_stream_waits,
    peek_truncate_and_wait_for_all,
    urgent_data,
    options_are_kept,
    options_are_inherited,
    families_meet,
    address_of_the_source,
    disconnect_starts_anew,
    files_go_out,
    signals_interrupt,
    many_connections,
);
