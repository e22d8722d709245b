//! Options of sockets: what they are, what they can be, and what some of them do.

use std::time::{Duration, Instant};

use guest_tests::fs::close;
use guest_tests::mem::zeroed;
use guest_tests::net::{
    LOCAL, accept, addr4, addr6, bind, connect, connection, listen, listener, local6, mapped,
    name_of, option, peer_of, poll, port_of, quiet_port, recv, recv_from, send, send_to, send_with,
    set_option, socket, wait_for,
};
use guest_tests::proc::{End, child, sleep, until_asleep, wait};
use guest_tests::{Outcome, SysResult, check, eq, fails, ok, sys};
use libc::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, EADDRNOTAVAIL, EINVAL, ENOENT, ENOPROTOOPT, ENOTCONN,
    EOPNOTSUPP, EPERM, IP_TTL, IPPROTO_IP, IPPROTO_IPV6, MSG_DONTWAIT, MSG_MORE, MSG_PEEK,
    MSG_WAITALL, MSG_WAITFORONE, POLLIN, SHUT_WR, SO_DOMAIN, SO_NO_CHECK, SO_PEEK_OFF, SOCK_DGRAM,
    SOCK_RAW, SOCK_STREAM, SOL_SOCKET, SOL_TCP, SOL_UDP, UDP_GRO, UDP_SEGMENT,
};

const SO_BSDCOMPAT: i32 = 14;
const SO_REUSEPORT: i32 = 15;
const SO_PASSCRED: i32 = 16;
const SO_PEERNAME: i32 = 28;
const SO_PASSSEC: i32 = 34;
const SO_BUSY_POLL: i32 = 46;
const SO_MAX_PACING_RATE: i32 = 47;
const SO_MEMINFO: i32 = 55;
const SO_COOKIE: i32 = 57;
const SO_BUF_LOCK: i32 = 72;
const SO_TXREHASH: i32 = 74;

const IP_HDRINCL: i32 = 3;
const IP_ROUTER_ALERT: i32 = 5;
const IP_PASSSEC: i32 = 18;
const IP_NODEFRAG: i32 = 22;
const IP_CHECKSUM: i32 = 23;
const IP_RECVERR_RFC4884: i32 = 26;
const IP_UNICAST_IF: i32 = 50;

const IPV6_ADDRFORM: i32 = 1;
const IPV6_2292HOPLIMIT: i32 = 8;
const IPV6_MULTICAST_ALL: i32 = 29;
const IPV6_MINHOPCOUNT: i32 = 73;
const IPV6_UNICAST_IF: i32 = 76;
const IPV6_RECVFRAGSIZE: i32 = 77;

const TCP_MAXSEG: i32 = 2;
const TCP_LINGER2: i32 = 8;
const TCP_DEFER_ACCEPT: i32 = 9;
const TCP_WINDOW_CLAMP: i32 = 10;
const TCP_THIN_LINEAR_TIMEOUTS: i32 = 16;
const TCP_THIN_DUPACK: i32 = 17;
const TCP_TIMESTAMP: i32 = 24;
const TCP_SAVE_SYN: i32 = 27;
const TCP_ULP: i32 = 31;
const TCP_FASTOPEN_NO_COOKIE: i32 = 34;
const TCP_TX_DELAY: i32 = 37;

const TCP4: (i32, i32) = (AF_INET, SOCK_STREAM);
const UDP4: (i32, i32) = (AF_INET, SOCK_DGRAM);
const UDP6: (i32, i32) = (AF_INET6, SOCK_DGRAM);
const UNIX: (i32, i32) = (AF_UNIX, SOCK_STREAM);

/// What is set, and what is to be had then, or why it cannot be set.
type Step = (i32, Result<i32, i32>);

/// The socket, the level and the name, what the option is at first, and what it can be.
type Row = ((i32, i32), i32, i32, Result<i32, i32>, &'static [Step]);

const FLAG: &[Step] = &[(1, Ok(1)), (0, Ok(0)), (300, Ok(1)), (-1, Ok(1))];

const ROWS: &[Row] = &[
    (TCP4, SOL_SOCKET, SO_BSDCOMPAT, Ok(0), &[(1, Ok(0))]),
    (TCP4, SOL_SOCKET, SO_REUSEPORT, Ok(0), FLAG),
    (UNIX, SOL_SOCKET, SO_REUSEPORT, Ok(0), &[(0, Ok(0)), (1, Err(EOPNOTSUPP))]),
    (UNIX, SOL_SOCKET, SO_PASSCRED, Ok(0), FLAG),
    (TCP4, SOL_SOCKET, SO_PASSCRED, Err(EOPNOTSUPP), &[(1, Err(EOPNOTSUPP))]),
    (UDP6, SOL_SOCKET, SO_PASSCRED, Err(EOPNOTSUPP), &[(1, Err(EOPNOTSUPP))]),
    (UNIX, SOL_SOCKET, SO_PASSSEC, Ok(0), FLAG),
    (UDP4, SOL_SOCKET, SO_PASSSEC, Err(EOPNOTSUPP), &[(0, Err(EOPNOTSUPP))]),
    (TCP4, SOL_SOCKET, SO_BUSY_POLL, Ok(0), &[(7, Ok(7)), (-1, Err(EINVAL))]),
    (TCP4, SOL_SOCKET, SO_BUF_LOCK, Ok(0), &[(3, Ok(3)), (4, Err(EINVAL)), (-1, Err(EINVAL))]),
    (TCP4, SOL_SOCKET, SO_TXREHASH, Ok(1), &[(0, Ok(0)), (-1, Ok(1)), (2, Err(EINVAL))]),
    (TCP4, IPPROTO_IP, libc::IP_TOS, Ok(0), &[(0xff, Ok(0xfc)), (0x1a0, Ok(0xa0))]),
    (UDP4, IPPROTO_IP, libc::IP_TOS, Ok(0), &[(0xff, Ok(0xff)), (0x1a0, Ok(0xa0))]),
    (TCP4, IPPROTO_IP, IP_HDRINCL, Ok(0), &[(1, Err(ENOPROTOOPT))]),
    (UDP4, IPPROTO_IP, IP_ROUTER_ALERT, Ok(0), &[(1, Err(EINVAL))]),
    (UDP4, IPPROTO_IP, IP_PASSSEC, Ok(0), FLAG),
    (UDP4, IPPROTO_IP, IP_NODEFRAG, Ok(0), &[(1, Err(ENOPROTOOPT))]),
    (UDP4, IPPROTO_IP, IP_CHECKSUM, Ok(0), FLAG),
    (UDP4, IPPROTO_IP, IP_RECVERR_RFC4884, Ok(0), &[(1, Ok(1)), (2, Err(EINVAL))]),
    (UDP4, IPPROTO_IP, IP_UNICAST_IF, Ok(0), &[(0, Ok(0)), (0x7fff, Err(EADDRNOTAVAIL))]),
    (UDP6, IPPROTO_IPV6, IPV6_2292HOPLIMIT, Ok(0), FLAG),
    (UDP6, IPPROTO_IPV6, IPV6_MULTICAST_ALL, Ok(1), FLAG),
    (UDP6, IPPROTO_IPV6, IPV6_MINHOPCOUNT, Ok(0), &[(255, Ok(255)), (256, Err(EINVAL))]),
    (UDP6, IPPROTO_IPV6, IPV6_UNICAST_IF, Ok(0), &[(0, Ok(0)), (0x7fff, Err(EADDRNOTAVAIL))]),
    (UDP6, IPPROTO_IPV6, IPV6_RECVFRAGSIZE, Ok(0), FLAG),
    (TCP4, SOL_TCP, TCP_MAXSEG, Ok(536), &[(300, Ok(300)), (87, Err(EINVAL)), (0, Ok(536))]),
    (TCP4, SOL_TCP, TCP_LINGER2, Ok(60), &[(5, Ok(5)), (0, Ok(60)), (300, Ok(120)), (-7, Ok(-1))]),
    (
        TCP4,
        SOL_TCP,
        TCP_DEFER_ACCEPT,
        Ok(0),
        &[(1, Ok(1)), (2, Ok(3)), (5, Ok(7)), (-1, Ok(0)), (100_000, Ok(29_887))],
    ),
    (TCP4, SOL_TCP, TCP_WINDOW_CLAMP, Ok(0), &[(1, Ok(1152)), (5000, Ok(5000)), (0, Ok(0))]),
    (TCP4, SOL_TCP, TCP_THIN_LINEAR_TIMEOUTS, Ok(0), &[(1, Ok(1)), (2, Err(EINVAL))]),
    (TCP4, SOL_TCP, TCP_THIN_DUPACK, Ok(0), &[(1, Ok(0)), (2, Err(EINVAL))]),
    (TCP4, SOL_TCP, TCP_SAVE_SYN, Ok(0), &[(2, Ok(2)), (3, Err(EINVAL))]),
    (TCP4, SOL_TCP, TCP_ULP, Ok(0), &[(1, Err(ENOENT))]),
    (TCP4, SOL_TCP, TCP_FASTOPEN_NO_COOKIE, Ok(0), &[(1, Ok(1)), (2, Err(EINVAL))]),
    (TCP4, SOL_TCP, TCP_TX_DELAY, Ok(0), &[(300, Ok(300)), (-1, Err(EINVAL))]),
];

fn numbers_are_checked() -> Outcome {
    for ((family, kind), level, name, default, steps) in ROWS {
        let fd = ok!(socket(*family, *kind));
        let say = |what: &str, got: Result<i32, i32>| {
            Err(format!("family {family} level {level} option {name}: {what} gave {got:?}"))
        };
        let got = option(fd, *level, *name);
        if got != *default {
            return say("the default", got);
        }
        for (value, wanted) in *steps {
            let got = match set_option(fd, *level, *name, *value) {
                Ok(_) => option(fd, *level, *name),
                Err(error) => Err(error),
            };
            if got != *wanted {
                return say(&format!("{value}"), got);
            }
        }
        ok!(close(fd));
    }
    // Of IPv4 alone nothing is a number as well.
    let fd = ok!(socket(AF_INET, SOCK_DGRAM));
    ok!(set_option(fd, IPPROTO_IP, libc::IP_RECVTTL, 1));
    ok!(sys!(SYS_setsockopt, fd, IPPROTO_IP, libc::IP_RECVTTL, 0, 0));
    eq!(ok!(option(fd, IPPROTO_IP, libc::IP_RECVTTL)), 0);
    let fd = ok!(socket(AF_INET6, SOCK_DGRAM));
    fails!(sys!(SYS_setsockopt, fd, IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 0, 0), EINVAL);
    // The clock of the time stamps runs, and is not to be set.
    let fd = ok!(socket(AF_INET, SOCK_STREAM));
    let before = ok!(option(fd, SOL_TCP, TCP_TIMESTAMP));
    sleep(Duration::from_millis(20));
    check!(ok!(option(fd, SOL_TCP, TCP_TIMESTAMP)).wrapping_sub(before) >= 10);
    eq!(set_option(fd, SOL_TCP, TCP_TIMESTAMP, 1), Err(EPERM));
    Ok(())
}

fn get(fd: i32, name: i32, len: usize) -> Result<Vec<u8>, i32> {
    let mut value = [0xaa_u8; 128];
    let mut room = len as i32;
    sys!(SYS_getsockopt, fd, SOL_SOCKET, name, &mut value, &mut room)?;
    Ok(value[..room as usize].to_vec())
}

fn sockets_have_numbers() -> Outcome {
    let mut known = Vec::new();
    for (family, kind) in [TCP4, UDP4, UDP6, UNIX, (AF_NETLINK, SOCK_RAW), TCP4] {
        let fd = ok!(socket(family, kind));
        let cookie = ok!(get(fd, SO_COOKIE, 8));
        eq!(cookie.len(), 8);
        eq!(ok!(get(fd, SO_COOKIE, 16)), cookie);
        check!(!known.contains(&cookie));
        known.push(cookie);
        fails!(get(fd, SO_COOKIE, 7), EINVAL);
        eq!(ok!(get(fd, SO_MEMINFO, 64)).len(), 36);
        eq!(ok!(get(fd, SO_MEMINFO, 4)).len(), 4);
    }
    Ok(())
}

fn peers_have_names() -> Outcome {
    let (one, other) = ok!(connection(AF_INET));
    eq!(ok!(get(one, SO_PEERNAME, 16)), ok!(peer_of(one)));
    eq!(ok!(get(other, SO_PEERNAME, 6)), ok!(name_of(one))[..6].to_vec());
    fails!(get(one, SO_PEERNAME, 17), EINVAL);
    fails!(get(ok!(socket(AF_INET, SOCK_STREAM)), SO_PEERNAME, 16), ENOTCONN);
    fails!(get(ok!(socket(AF_UNIX, SOCK_STREAM)), SO_PEERNAME, 16), ENOTCONN);
    Ok(())
}

fn pace_has_two_sizes() -> Outcome {
    let fd = ok!(socket(AF_INET, SOCK_STREAM));
    eq!(ok!(get(fd, SO_MAX_PACING_RATE, 16)), vec![0xff; 8]);
    eq!(ok!(get(fd, SO_MAX_PACING_RATE, 4)), vec![0xff; 4]);
    ok!(set_option(fd, SOL_SOCKET, SO_MAX_PACING_RATE, 300));
    eq!(ok!(get(fd, SO_MAX_PACING_RATE, 8)), 300u64.to_ne_bytes().to_vec());
    let rate = 1u64 << 40;
    ok!(sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, 8));
    eq!(ok!(get(fd, SO_MAX_PACING_RATE, 8)), rate.to_ne_bytes().to_vec());
    eq!(ok!(get(fd, SO_MAX_PACING_RATE, 4)), vec![0xff; 4]);
    Ok(())
}

fn look_begins_where_it_is_asked_to() -> Outcome {
    let (one, other) = ok!(connection(AF_INET));
    eq!(ok!(option(other, SOL_SOCKET, SO_PEEK_OFF)), -1);
    eq!(ok!(send(one, b"abcdef", 0)), 6);
    let mut buf = [0; 16];
    eq!(ok!(recv(other, &mut buf[..6], MSG_PEEK | MSG_WAITALL)), 6);
    ok!(set_option(other, SOL_SOCKET, SO_PEEK_OFF, 2));
    eq!(ok!(recv(other, &mut buf[..2], MSG_PEEK)), 2);
    eq!(&buf[..2], b"cd");
    // It moves on with what has been looked at, and back with what is received.
    eq!(ok!(option(other, SOL_SOCKET, SO_PEEK_OFF)), 4);
    eq!(ok!(recv(other, &mut buf[..3], 0)), 3);
    eq!(&buf[..3], b"abc");
    eq!(ok!(option(other, SOL_SOCKET, SO_PEEK_OFF)), 1);
    eq!(ok!(recv(other, &mut buf, MSG_PEEK)), 2);
    eq!(&buf[..2], b"ef");
    eq!(ok!(option(other, SOL_SOCKET, SO_PEEK_OFF)), 3);
    fails!(recv(other, &mut buf, MSG_PEEK | MSG_DONTWAIT), EAGAIN);
    let pid = ok!(child(|| {
        let mut buf = [0; 4];
        i32::from(recv(other, &mut buf, MSG_PEEK) != Ok(1) || buf[0] != b'g')
    }));
    check!(until_asleep(pid));
    eq!(ok!(send(one, b"g", 0)), 1);
    eq!(ok!(wait(pid)), End::Code(0));
    eq!(ok!(option(other, SOL_SOCKET, SO_PEEK_OFF)), 4);
    eq!(ok!(recv(other, &mut buf, 0)), 4);
    eq!(ok!(option(other, SOL_SOCKET, SO_PEEK_OFF)), 0);
    ok!(set_option(other, SOL_SOCKET, SO_PEEK_OFF, 1));
    ok!(sys!(SYS_shutdown, one, SHUT_WR));
    eq!(ok!(recv(other, &mut buf, MSG_PEEK)), 0);
    ok!(set_option(other, SOL_SOCKET, SO_PEEK_OFF, -1));
    eq!(ok!(recv(other, &mut buf, 0)), 0);
    Ok(())
}

fn silent_clients_wait() -> Outcome {
    let (server, addr) = ok!(listener(AF_INET, 5));
    ok!(set_option(server, SOL_TCP, TCP_DEFER_ACCEPT, 1));
    let client = || {
        let fd = socket(AF_INET, SOCK_STREAM)?;
        connect(fd, &addr).map(|_| fd)
    };
    let mut is_seen = false;
    for _ in 0..100 {
        let started = Instant::now();
        let fd = ok!(client());
        sleep(Duration::from_millis(10));
        let ready = ok!(poll(server, POLLIN));
        eq!(ok!(send(fd, b"hello", 0)), 5);
        ok!(wait_for(server, POLLIN));
        let elapsed = started.elapsed();
        let accepted = ok!(accept(server, 0));
        let mut buf = [0; 8];
        eq!(ok!(recv(accepted, &mut buf, MSG_DONTWAIT)), 5);
        ok!(close(fd));
        ok!(close(accepted));
        // Later it would have come without a word.
        if elapsed < Duration::from_millis(500) {
            eq!(ready, 0);
            is_seen = true;
            break;
        }
    }
    check!(is_seen);
    // The end of the stream is a word as well.
    let fd = ok!(client());
    ok!(sys!(SYS_shutdown, fd, SHUT_WR));
    let accepted = ok!(accept(server, 0));
    eq!(ok!(recv(accepted, &mut [0; 8], 0)), 0);
    eq!(ok!(send(accepted, b"hello", 0)), 5);
    eq!(ok!(recv(fd, &mut [0; 8], 0)), 5);
    // Those who say nothing are let in in the end.
    let started = Instant::now();
    let fd = ok!(client());
    let accepted = ok!(accept(server, 0));
    check!(started.elapsed() > Duration::from_millis(500));
    eq!(ok!(send(fd, b"late", 0)), 4);
    eq!(ok!(recv(accepted, &mut [0; 8], 0)), 4);
    // They are lost with the listening socket.
    let fd = ok!(client());
    eq!(ok!(poll(fd, POLLIN)), 0);
    ok!(close(server));
    Ok(())
}

/// Room for messages of eight bytes each.
fn messages(buffers: &mut [[u8; 8]]) -> (Vec<libc::mmsghdr>, Vec<libc::iovec>) {
    let mut iovs: Vec<libc::iovec> = buffers
        .iter_mut()
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 8 })
        .collect();
    let headers = iovs
        .iter_mut()
        .map(|iov| {
            let mut message: libc::mmsghdr = zeroed();
            message.msg_hdr.msg_iov = core::ptr::from_mut(iov);
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    (headers, iovs)
}

fn all_messages_are_waited_for() -> Outcome {
    let fd = ok!(socket(AF_INET, SOCK_DGRAM));
    ok!(bind(fd, &addr4(LOCAL, 0)));
    let addr = ok!(name_of(fd));
    let other = ok!(socket(AF_INET, SOCK_DGRAM));
    let pid = ok!(child(|| {
        let mut buffers = [[0; 8]; 3];
        let (mut headers, _iovs) = messages(&mut buffers);
        let n = sys!(SYS_recvmmsg, fd, &mut headers[..], 3, 0, 0);
        i32::from(n != Ok(3) || headers[2].msg_len != 5 || &buffers[2][..5] != b"three")
    }));
    for word in [&b"one"[..], b"two", b"three"] {
        check!(until_asleep(pid));
        eq!(ok!(send_to(other, word, &addr)), word.len());
    }
    eq!(ok!(wait(pid)), End::Code(0));
    // One is enough where that is asked for, and so it is after the time.
    let mut buffers = [[0; 8]; 3];
    let (mut headers, _iovs) = messages(&mut buffers);
    ok!(send_to(other, b"four", &addr));
    eq!(ok!(sys!(SYS_recvmmsg, fd, &mut headers[..], 3, MSG_WAITFORONE, 0)), 1);
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 1000 };
    ok!(send_to(other, b"five", &addr));
    ok!(send_to(other, b"six", &addr));
    sleep(Duration::from_millis(1));
    eq!(ok!(sys!(SYS_recvmmsg, fd, &mut headers[..], 3, MSG_DONTWAIT, 0)), 2);
    ok!(send_to(other, b"seven", &addr));
    time.tv_nsec = 0;
    eq!(ok!(sys!(SYS_recvmmsg, fd, &mut headers[..], 3, 0, &mut time)), 1);
    eq!((time.tv_sec, time.tv_nsec), (0, 0));
    time.tv_sec = 1000;
    ok!(send_to(other, b"eight", &addr));
    eq!(ok!(sys!(SYS_recvmmsg, fd, &mut headers[..], 1, 0, &mut time)), 1);
    check!(time.tv_sec > 900 && time.tv_sec < 1000);
    time.tv_nsec = -1;
    fails!(sys!(SYS_recvmmsg, -1, &mut headers[..], 1, 0, &mut time), EINVAL);
    // Each has the whole time of the socket.
    ok!(guest_tests::net::set_timeout(fd, libc::SO_RCVTIMEO, 50));
    ok!(send_to(other, b"nine", &addr));
    eq!(ok!(sys!(SYS_recvmmsg, fd, &mut headers[..], 3, 0, 0)), 1);
    fails!(sys!(SYS_recvmmsg, fd, &mut headers[..], 3, 0, 0), EAGAIN);
    Ok(())
}

fn all_messages_are_sent() -> Outcome {
    const N: usize = 600;
    let mut pair = [0i32; 2];
    ok!(sys!(SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, &mut pair));
    let pid = ok!(child(|| {
        let mut buffers = [[7; 8]; N];
        let (mut headers, _iovs) = messages(&mut buffers);
        i32::from(sys!(SYS_sendmmsg, pair[0], &mut headers[..], N, 0) != Ok(N))
    }));
    check!(until_asleep(pid));
    for _ in 0..N {
        eq!(ok!(recv(pair[1], &mut [0; 9], 0)), 8);
    }
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

/// Makes a socket of IPv6 one of IPv4.
fn reform(fd: i32) -> SysResult {
    set_option(fd, IPPROTO_IPV6, IPV6_ADDRFORM, AF_INET)
}

fn connection_becomes_one_of_ipv4() -> Outcome {
    let server = ok!(socket(AF_INET6, SOCK_STREAM));
    let port = ok!(quiet_port());
    ok!(bind(server, &addr6([0; 16], port)));
    ok!(listen(server, 2));
    eq!(reform(server), Err(ENOTCONN));
    let client = ok!(socket(AF_INET6, SOCK_STREAM));
    eq!(reform(client), Err(ENOTCONN));
    ok!(connect(client, &addr6(mapped(LOCAL), port)));
    let own = port_of(&ok!(name_of(client)));
    for family in [AF_INET6, AF_UNIX, -1] {
        eq!(set_option(client, IPPROTO_IPV6, IPV6_ADDRFORM, family), Err(EINVAL));
    }
    eq!(sys!(SYS_setsockopt, client, IPPROTO_IPV6, IPV6_ADDRFORM, &AF_INET, 2), Err(EINVAL));
    eq!(ok!(option(client, IPPROTO_IPV6, IPV6_ADDRFORM)), AF_INET6);
    let accepted = ok!(accept(server, 0));
    for (fd, name, peer) in [(client, own, port), (accepted, port, own)] {
        ok!(reform(fd));
        eq!(ok!(option(fd, SOL_SOCKET, SO_DOMAIN)), AF_INET);
        eq!(ok!(name_of(fd)), addr4(LOCAL, name));
        eq!(ok!(peer_of(fd)), addr4(LOCAL, peer));
        eq!(reform(fd), Err(ENOPROTOOPT));
        eq!(ok!(option(fd, IPPROTO_IP, IP_TTL)), 64);
    }
    eq!(ok!(send(client, b"hello", 0)), 5);
    eq!(ok!(recv(accepted, &mut [0; 8], 0)), 5);
    // The one that listens is still one of IPv6.
    let other = ok!(socket(AF_INET6, SOCK_STREAM));
    ok!(connect(other, &addr6(local6(), port)));
    eq!(reform(other), Err(EADDRNOTAVAIL));
    eq!(reform(ok!(accept(server, 0))), Err(EADDRNOTAVAIL));
    ok!(shut(client));
    let ended = ok!(connection(AF_INET6));
    ok!(shut(ended.0));
    eq!(reform(ended.0), Err(ENOTCONN));
    Ok(())
}

fn datagrams_become_those_of_ipv4() -> Outcome {
    let peer = ok!(socket(AF_INET6, SOCK_DGRAM));
    ok!(bind(peer, &addr6(mapped(LOCAL), 0)));
    let to = ok!(name_of(peer));
    let fd = ok!(socket(AF_INET6, SOCK_DGRAM));
    eq!(reform(fd), Err(ENOTCONN));
    ok!(connect(fd, &to));
    ok!(reform(fd));
    eq!(ok!(option(fd, SOL_SOCKET, SO_DOMAIN)), AF_INET);
    let name = ok!(name_of(fd));
    eq!(name, addr4(LOCAL, port_of(&name)));
    eq!(ok!(peer_of(fd)), addr4(LOCAL, port_of(&to)));
    eq!(ok!(send(fd, b"x", 0)), 1);
    let (data, from) = ok!(recv_from(peer, 0));
    eq!(data, b"x");
    eq!(from, addr6(mapped(LOCAL), port_of(&name)));
    eq!(ok!(send_to(peer, b"y", &from)), 1);
    eq!(ok!(recv_from(fd, 0)).1, addr4(LOCAL, port_of(&to)));
    // With no peer it is what a socket of IPv4 is then.
    ok!(connect(fd, &[0; 16]));
    eq!(ok!(name_of(fd))[..2], (AF_INET as u16).to_ne_bytes());
    let fd = ok!(socket(AF_INET6, SOCK_DGRAM));
    ok!(connect(fd, &addr6(local6(), 9)));
    eq!(reform(fd), Err(EADDRNOTAVAIL));
    eq!(reform(ok!(socket(AF_INET, SOCK_DGRAM))), Err(ENOPROTOOPT));
    Ok(())
}

fn shut(fd: i32) -> SysResult {
    sys!(SYS_shutdown, fd, SHUT_WR)
}

/// Receives all datagrams that are there: the length of each, and into what length it was to be cut.
fn lengths(fd: i32) -> Result<Vec<(usize, Option<i32>)>, i32> {
    let mut all = Vec::new();
    let mut data = vec![0_u8; 70_000];
    loop {
        let mut control = [0_u64; 8];
        let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
        let mut header: libc::msghdr = zeroed();
        header.msg_iov = &mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = 64 as _;
        match sys!(SYS_recvmsg, fd, &mut header, MSG_DONTWAIT) {
            Ok(n) => {
                let is_cut = control[1] == SOL_UDP as u64 | (UDP_GRO as u64) << 32;
                all.push((n, is_cut.then_some(control[2] as i32)));
            }
            Err(libc::EAGAIN) => return Ok(all),
            Err(error) => return Err(error),
        }
    }
}

/// A socket that is connected to the other one.
fn datagram_pair(family: i32) -> Result<(i32, i32), i32> {
    let (one, other) = (socket(family, SOCK_DGRAM)?, socket(family, SOCK_DGRAM)?);
    bind(other, &if family == AF_INET { addr4(LOCAL, 0) } else { addr6(local6(), 0) })?;
    connect(one, &name_of(other)?)?;
    Ok((one, other))
}

/// Returns that many datagrams of a length, and one of another.
fn of(n: usize, len: usize, last: usize) -> Vec<(usize, Option<i32>)> {
    [vec![(len, None); n], vec![(last, None)]].concat()
}

fn datagrams_are_cut() -> Outcome {
    for family in [AF_INET, AF_INET6] {
        let (one, other) = ok!(datagram_pair(family));
        eq!(ok!(option(one, SOL_UDP, UDP_SEGMENT)), 0);
        for size in [-1, 65_536, i32::MIN] {
            eq!(set_option(one, SOL_UDP, UDP_SEGMENT, size), Err(EINVAL));
        }
        ok!(set_option(one, SOL_UDP, UDP_SEGMENT, 1000));
        eq!(ok!(option(one, SOL_UDP, UDP_SEGMENT)), 1000);
        let data = [7; 65_000];
        for (len, wanted) in [
            (0, of(0, 0, 0)),
            (999, of(0, 0, 999)),
            (1000, of(0, 0, 1000)),
            (1001, of(1, 1000, 1)),
            (2500, of(2, 1000, 500)),
            (9000, of(8, 1000, 1000)),
        ] {
            eq!(ok!(send(one, &data[..len], 0)), len);
            eq!(ok!(lengths(other)), wanted);
        }
        // There are at most 128.
        ok!(set_option(one, SOL_UDP, UDP_SEGMENT, 1));
        eq!(ok!(send(one, &data[..128], 0)), 128);
        eq!(ok!(lengths(other)).len(), 128);
        eq!(send(one, &data[..129], 0), Err(EINVAL));
        ok!(set_option(one, SOL_UDP, UDP_SEGMENT, 60_000));
        eq!(ok!(send(one, &data, 0)), data.len());
        eq!(ok!(lengths(other)), of(1, 60_000, 5000));
        // A message has precedence.
        let data = &data[..2500];
        eq!(ok!(send_with(one, data, SOL_UDP, UDP_SEGMENT, &1000_u16.to_ne_bytes())), 2500);
        eq!(ok!(lengths(other)), of(2, 1000, 500));
        ok!(set_option(one, SOL_UDP, UDP_SEGMENT, 100));
        eq!(ok!(send_with(one, data, SOL_UDP, UDP_SEGMENT, &[0; 2])), 2500);
        eq!(ok!(lengths(other)), of(0, 0, 2500));
        eq!(send_with(one, data, SOL_UDP, UDP_SEGMENT, &1000_u32.to_ne_bytes()), Err(EINVAL));
        eq!(send_with(one, data, SOL_UDP, UDP_GRO, &1000_u16.to_ne_bytes()), Err(EINVAL));
        // What is collected is cut as its first part says.
        ok!(set_option(one, SOL_UDP, UDP_SEGMENT, 500));
        eq!(ok!(send(one, &data[..700], MSG_MORE)), 700);
        ok!(set_option(one, SOL_UDP, UDP_SEGMENT, 300));
        eq!(ok!(send(one, &data[..700], 0)), 700);
        eq!(ok!(lengths(other)), of(2, 500, 400));
    }
    let (one, _other) = ok!(datagram_pair(AF_INET));
    ok!(set_option(one, SOL_SOCKET, SO_NO_CHECK, 1));
    eq!(ok!(send(one, b"abcdef", 0)), 6);
    ok!(set_option(one, SOL_UDP, UDP_SEGMENT, 4));
    eq!(send(one, b"abcdef", 0), Err(EINVAL));
    Ok(())
}

fn datagrams_stay_together() -> Outcome {
    for family in [AF_INET, AF_INET6] {
        let (one, other) = ok!(datagram_pair(family));
        eq!(ok!(option(other, SOL_UDP, UDP_GRO)), 0);
        ok!(set_option(other, SOL_UDP, UDP_GRO, 5));
        eq!(ok!(option(other, SOL_UDP, UDP_GRO)), 1);
        ok!(set_option(one, SOL_UDP, UDP_SEGMENT, 1000));
        let data = [7; 2500];
        for _ in 0..2 {
            eq!(ok!(send(one, &data, 0)), 2500);
        }
        eq!(ok!(send(one, &data[..1000], 0)), 1000);
        eq!(ok!(lengths(other)), [(2500, Some(1000)), (2500, Some(1000)), (1000, None)]);
        // Whoever does not want that gets them one by one.
        ok!(set_option(other, SOL_UDP, UDP_GRO, 0));
        eq!(ok!(send(one, &data, 0)), 2500);
        eq!(ok!(lengths(other)), of(2, 1000, 500));
    }
    Ok(())
}

guest_tests::cases!(
    datagrams_are_cut,
    datagrams_stay_together,
    connection_becomes_one_of_ipv4,
    datagrams_become_those_of_ipv4,
    numbers_are_checked,
    sockets_have_numbers,
    peers_have_names,
    pace_has_two_sizes,
    look_begins_where_it_is_asked_to,
    silent_clients_wait,
    all_messages_are_waited_for,
    all_messages_are_sent,
);
