//! UDP over loopback: names, connected and unconnected sockets, errors, groups, control messages.

use guest_tests::fs::{close, read, write};
use guest_tests::mem::zeroed;
use guest_tests::net::{
    LOCAL, addr4, addr6, bind, connect, local6, mapped, name_of, option, peer_of, poll, port_of,
    quiet_port, recv, recv_from, send, send_to, set_option, set_timeout, socket, split_control,
    wait_for,
};
use guest_tests::proc::{End, child, until_asleep, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_MORE,
    MSG_PEEK, MSG_TRUNC, POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, SHUT_RDWR, SHUT_WR,
    SO_BROADCAST, SO_ERROR, SO_PROTOCOL, SO_RCVBUF, SO_RCVTIMEO, SO_REUSEADDR, SO_REUSEPORT,
    SO_TYPE, SOCK_DGRAM, SOL_SOCKET,
};

const ALL: i16 = POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP;

/// A bound socket and its address.
fn bound(family: i32) -> Result<(i32, Vec<u8>), i32> {
    let fd = socket(family, SOCK_DGRAM)?;
    let addr = if family == AF_INET { addr4(LOCAL, 0) } else { addr6(local6(), 0) };
    bind(fd, &addr)?;
    Ok((fd, name_of(fd)?))
}

/// Receives with control messages: the data, level, type and data of each, and the flags.
type Received = (Vec<u8>, Vec<(i32, i32, Vec<u8>)>, i32);

fn receive(fd: i32, flags: i32) -> Result<Received, i32> {
    let mut data = [0u8; 2048];
    let mut control = [0u64; 64];
    let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    let mut header: libc::msghdr = zeroed();
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = 512;
    let n = sys!(SYS_recvmsg, fd, &mut header, flags)?;
    let messages = split_control(&control, header.msg_controllen as usize);
    Ok((data[..n].to_vec(), messages, header.msg_flags))
}

fn names_are_checked() -> Outcome {
    let fd = ok!(sys!(SYS_socket, AF_INET, SOCK_DGRAM, IPPROTO_UDP)) as i32;
    eq!(ok!(name_of(fd)), addr4([0; 4], 0));
    eq!(ok!(option(fd, SOL_SOCKET, SO_TYPE)), SOCK_DGRAM);
    eq!(ok!(option(fd, SOL_SOCKET, SO_PROTOCOL)), IPPROTO_UDP);
    fails!(bind(fd, &addr4([192, 0, 2, 77], 0)), EADDRNOTAVAIL);
    fails!(send(fd, b"x", 0), EDESTADDRREQ);
    fails!(send_to(fd, b"x", &addr4(LOCAL, 0)), EINVAL);
    fails!(send_to(fd, b"x", &addr4(LOCAL, 9)[..8]), EINVAL);
    fails!(send_to(fd, b"x", &addr6(local6(), 9)), EAFNOSUPPORT);
    fails!(peer_of(fd), ENOTCONN);
    eq!(ok!(poll(fd, ALL)), POLLOUT);
    let (_other, addr) = ok!(bound(AF_INET));
    eq!(ok!(send_to(fd, b"x", &addr)), 1);
    // Sending, or trying to, takes a port.
    check!(port_of(&ok!(name_of(fd))) != 0);
    fails!(bind(fd, &addr4(LOCAL, 0)), EINVAL);
    fails!(bind(ok!(socket(AF_INET, SOCK_DGRAM)), &addr), EADDRINUSE);
    fails!(sys!(SYS_accept4, fd, 0, 0, 0), EOPNOTSUPP);
    fails!(sys!(SYS_listen, fd, 1), EOPNOTSUPP);
    Ok(())
}

fn datagrams_travel() -> Outcome {
    for family in [AF_INET, AF_INET6] {
        let (one, one_addr) = ok!(bound(family));
        let (other, other_addr) = ok!(bound(family));
        fails!(recv_from(other, MSG_DONTWAIT), EAGAIN);
        eq!(ok!(send_to(one, b"first", &other_addr)), 5);
        eq!(ok!(send_to(one, b"", &other_addr)), 0);
        eq!(ok!(send_to(one, b"third", &other_addr)), 5);
        ok!(wait_for(other, POLLIN));
        let mut n = 0i32;
        ok!(sys!(SYS_ioctl, other, libc::FIONREAD, &mut n));
        eq!(n, 5);
        eq!(ok!(recv_from(other, MSG_PEEK)), (b"first".to_vec(), one_addr.clone()));
        let mut buf = [0; 2];
        eq!(ok!(recv(other, &mut buf, MSG_PEEK | MSG_TRUNC)), 5);
        let (data, _, flags) = ok!(receive(other, 0));
        eq!((data, flags & MSG_TRUNC), (b"first".to_vec(), 0));
        eq!(ok!(recv_from(other, 0)), (Vec::new(), one_addr.clone()));
        eq!(ok!(recv(other, &mut buf, 0)), 2);
        eq!(&buf, b"th");
        fails!(recv(other, &mut buf, MSG_DONTWAIT), EAGAIN);
        ok!(set_timeout(other, SO_RCVTIMEO, 10));
        fails!(recv(other, &mut buf, 0), EAGAIN);
    }
    Ok(())
}

fn sizes_are_bounded() -> Outcome {
    let (one, _) = ok!(bound(AF_INET));
    let (other, addr) = ok!(bound(AF_INET));
    let data = vec![3; 65_508];
    eq!(ok!(send_to(one, &data[..65_507], &addr)), 65_507);
    fails!(send_to(one, &data, &addr), EMSGSIZE);
    let mut buf = vec![0; 70_000];
    ok!(wait_for(other, POLLIN));
    eq!(ok!(read(other, &mut buf)), 65_507);
    // What the receiver has no room for is lost without a word.
    ok!(set_option(other, SOL_SOCKET, SO_RCVBUF, 10_000));
    for _ in 0..200 {
        eq!(ok!(send_to(one, &data[..1000], &addr)), 1000);
    }
    let mut n = 0;
    while recv(other, &mut buf, MSG_DONTWAIT).is_ok() {
        n += 1;
    }
    check!((2..100).contains(&n), "{n} datagrams");
    Ok(())
}

fn connected_sockets() -> Outcome {
    let (one, one_addr) = ok!(bound(AF_INET));
    let (other, other_addr) = ok!(bound(AF_INET));
    let (third, _) = ok!(bound(AF_INET));
    ok!(connect(one, &other_addr));
    eq!(ok!(peer_of(one)), other_addr);
    eq!(ok!(write(one, b"x")), 1);
    ok!(wait_for(other, POLLIN));
    eq!(ok!(recv_from(other, 0)).1, one_addr);
    // Only the peer is heard.
    eq!(ok!(send_to(third, b"no", &one_addr)), 2);
    eq!(ok!(send_to(other, b"yes", &one_addr)), 3);
    ok!(wait_for(one, POLLIN));
    eq!(ok!(recv_from(one, 0)).0, b"yes");
    fails!(recv(one, &mut [0; 4], MSG_DONTWAIT), EAGAIN);
    // Another address is allowed, another peer too, and none.
    let third_addr = ok!(name_of(third));
    eq!(ok!(send_to(one, b"other", &third_addr)), 5);
    ok!(wait_for(third, POLLIN));
    ok!(connect(one, &third_addr));
    eq!(ok!(peer_of(one)), third_addr);
    ok!(connect(one, &[0; 16]));
    fails!(peer_of(one), ENOTCONN);
    // The address was given to it, the port was not.
    eq!(ok!(name_of(one)), addr4(LOCAL, 0));
    fails!(write(one, b"x"), EDESTADDRREQ);
    // A socket that was not bound forgets its port.
    let fresh = ok!(socket(AF_INET, SOCK_DGRAM));
    ok!(connect(fresh, &other_addr));
    eq!(&ok!(name_of(fresh))[4..8], &LOCAL);
    ok!(connect(fresh, &[0; 16]));
    eq!(ok!(name_of(fresh)), addr4([0; 4], 0));
    Ok(())
}

fn nobody_there() -> Outcome {
    let port = ok!(quiet_port());
    // Without a connection nobody is told.
    let fd = ok!(socket(AF_INET, SOCK_DGRAM));
    eq!(ok!(send_to(fd, b"x", &addr4(LOCAL, port))), 1);
    fails!(recv(fd, &mut [0; 1], MSG_DONTWAIT), EAGAIN);
    ok!(connect(fd, &addr4(LOCAL, port)));
    eq!(ok!(send(fd, b"x", 0)), 1);
    check!(ok!(wait_for(fd, POLLERR)) & POLLERR != 0);
    fails!(recv(fd, &mut [0; 1], 0), ECONNREFUSED);
    fails!(recv(fd, &mut [0; 1], MSG_DONTWAIT), EAGAIN);
    eq!(ok!(send(fd, b"x", 0)), 1);
    ok!(wait_for(fd, POLLERR));
    fails!(send(fd, b"x", 0), ECONNREFUSED);
    eq!(ok!(send(fd, b"x", 0)), 1);
    ok!(wait_for(fd, POLLERR));
    eq!(ok!(option(fd, SOL_SOCKET, SO_ERROR)), libc::ECONNREFUSED);
    eq!(ok!(option(fd, SOL_SOCKET, SO_ERROR)), 0);
    Ok(())
}

fn errors_are_queued() -> Outcome {
    let port = ok!(quiet_port());
    let fd = ok!(socket(AF_INET, SOCK_DGRAM));
    fails!(receive(fd, MSG_ERRQUEUE), EAGAIN);
    ok!(set_option(fd, IPPROTO_IP, libc::IP_RECVERR, 1));
    eq!(ok!(send_to(fd, b"lost", &addr4(LOCAL, port))), 4);
    ok!(wait_for(fd, POLLERR));
    fails!(recv(fd, &mut [0; 1], MSG_DONTWAIT), ECONNREFUSED);
    let (data, control, flags) = ok!(receive(fd, MSG_ERRQUEUE));
    eq!(data, b"lost");
    check!(flags & MSG_ERRQUEUE != 0);
    let [(level, kind, content)] = &control[..] else { return Err(format!("{control:?}")) };
    eq!((*level, *kind), (IPPROTO_IP, libc::IP_RECVERR));
    // Errno, origin ICMP, type and code "port unreachable"; then who says so.
    eq!(&content[..8], &[libc::ECONNREFUSED as u8, 0, 0, 0, 2, 3, 3, 0]);
    eq!(&content[16..24], &addr4(LOCAL, 0)[..8]);
    fails!(receive(fd, MSG_ERRQUEUE), EAGAIN);
    eq!(ok!(poll(fd, ALL)), POLLOUT);
    Ok(())
}

fn ends_are_seen() -> Outcome {
    let (fd, addr) = ok!(bound(AF_INET));
    fails!(sys!(SYS_shutdown, fd, SHUT_WR), ENOTCONN);
    let (one, _) = ok!(bound(AF_INET));
    ok!(connect(one, &addr));
    ok!(sys!(SYS_shutdown, one, SHUT_RDWR));
    eq!(ok!(poll(one, ALL)), POLLIN | POLLOUT | POLLHUP | POLLRDHUP);
    eq!(ok!(recv(one, &mut [0; 4], 0)), 0);
    fails!(recv(one, &mut [0; 4], MSG_DONTWAIT), EAGAIN);
    fails!(send(one, b"x", 0), EPIPE);
    Ok(())
}

fn addresses_are_shared() -> Outcome {
    // With SO_REUSEADDR the last one bound is heard.
    let (one, other) = (ok!(socket(AF_INET, SOCK_DGRAM)), ok!(socket(AF_INET, SOCK_DGRAM)));
    ok!(set_option(one, SOL_SOCKET, SO_REUSEADDR, 1));
    ok!(set_option(other, SOL_SOCKET, SO_REUSEADDR, 1));
    let addr = addr4(LOCAL, ok!(quiet_port()));
    ok!(bind(one, &addr));
    ok!(bind(other, &addr));
    let sender = ok!(socket(AF_INET, SOCK_DGRAM));
    eq!(ok!(send_to(sender, b"x", &addr)), 1);
    ok!(wait_for(other, POLLIN));
    eq!(ok!(poll(one, POLLIN)), 0);
    // An exact address goes before the wildcard.
    let wildcard = ok!(socket(AF_INET, SOCK_DGRAM));
    ok!(set_option(wildcard, SOL_SOCKET, SO_REUSEADDR, 1));
    ok!(bind(wildcard, &addr4([0; 4], port_of(&addr))));
    eq!(ok!(send_to(sender, b"y", &addr4([127, 0, 0, 3], port_of(&addr)))), 1);
    ok!(wait_for(wildcard, POLLIN));
    // With SO_REUSEPORT all get some.
    let (one, other) = (ok!(socket(AF_INET, SOCK_DGRAM)), ok!(socket(AF_INET, SOCK_DGRAM)));
    ok!(set_option(one, SOL_SOCKET, SO_REUSEPORT, 1));
    ok!(set_option(other, SOL_SOCKET, SO_REUSEPORT, 1));
    ok!(bind(one, &addr4(LOCAL, 0)));
    let addr = ok!(name_of(one));
    ok!(bind(other, &addr));
    for _ in 0..64 {
        let sender = ok!(socket(AF_INET, SOCK_DGRAM));
        eq!(ok!(send_to(sender, b"x", &addr)), 1);
        ok!(close(sender));
    }
    ok!(wait_for(one, POLLIN));
    ok!(wait_for(other, POLLIN));
    Ok(())
}

fn families_meet() -> Outcome {
    let server = ok!(socket(AF_INET6, SOCK_DGRAM));
    ok!(bind(server, &addr6([0; 16], 0)));
    let port = port_of(&ok!(name_of(server)));
    let (four, four_addr) = ok!(bound(AF_INET));
    eq!(ok!(send_to(four, b"x", &addr4(LOCAL, port))), 1);
    ok!(wait_for(server, POLLIN));
    let from = addr6(mapped(LOCAL), port_of(&four_addr));
    eq!(ok!(recv_from(server, 0)), (b"x".to_vec(), from.clone()));
    eq!(ok!(send_to(server, b"back", &from)), 4);
    ok!(wait_for(four, POLLIN));
    eq!(ok!(recv_from(four, 0)), (b"back".to_vec(), addr4(LOCAL, port)));
    // A plain address of IPv4 does for sending.
    eq!(ok!(send_to(server, b"y", &four_addr)), 1);
    let only = ok!(socket(AF_INET6, SOCK_DGRAM));
    ok!(set_option(only, IPPROTO_IPV6, libc::IPV6_V6ONLY, 1));
    fails!(send_to(only, b"y", &four_addr), ENETUNREACH);
    fails!(send_to(only, b"y", &from), ENETUNREACH);
    Ok(())
}

fn control_messages() -> Outcome {
    let (one, _) = ok!(bound(AF_INET));
    let other = ok!(socket(AF_INET, SOCK_DGRAM));
    ok!(bind(other, &addr4([0; 4], 0)));
    let port = port_of(&ok!(name_of(other)));
    ok!(set_option(other, IPPROTO_IP, libc::IP_PKTINFO, 1));
    ok!(set_option(other, IPPROTO_IP, libc::IP_RECVTTL, 1));
    ok!(set_option(other, IPPROTO_IP, libc::IP_RECVTOS, 1));
    ok!(set_option(one, IPPROTO_IP, libc::IP_TTL, 33));
    ok!(set_option(one, IPPROTO_IP, libc::IP_TOS, 0x20));
    eq!(ok!(send_to(one, b"x", &addr4([127, 0, 0, 5], port))), 1);
    ok!(wait_for(other, POLLIN));
    let (_, control, _) = ok!(receive(other, 0));
    eq!(
        control,
        vec![
            (IPPROTO_IP, libc::IP_PKTINFO, vec![1, 0, 0, 0, 127, 0, 0, 5, 127, 0, 0, 5]),
            (IPPROTO_IP, libc::IP_TTL, vec![33, 0, 0, 0]),
            (IPPROTO_IP, libc::IP_TOS, vec![0x20]),
        ]
    );
    let (six, addr) = ok!(bound(AF_INET6));
    ok!(set_option(six, IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1));
    ok!(set_option(six, IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1));
    eq!(ok!(send_to(six, b"x", &addr)), 1);
    ok!(wait_for(six, POLLIN));
    let (_, control, _) = ok!(receive(six, 0));
    let mut info = local6().to_vec();
    info.extend_from_slice(&[1, 0, 0, 0]);
    eq!(
        control,
        vec![
            (IPPROTO_IPV6, libc::IPV6_PKTINFO, info),
            (IPPROTO_IPV6, libc::IPV6_HOPLIMIT, vec![64, 0, 0, 0]),
        ]
    );
    Ok(())
}

/// Sends a byte with one control message.
fn send_with(fd: i32, addr: &[u8], level: i32, kind: i32, data: &[u8]) -> Result<usize, i32> {
    let mut control = (16 + data.len() as u64).to_ne_bytes().to_vec();
    control.extend_from_slice(&level.to_ne_bytes());
    control.extend_from_slice(&kind.to_ne_bytes());
    control.extend_from_slice(data);
    control.resize(control.len().next_multiple_of(8), 0);
    let mut byte = *b"x";
    let mut iov = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut header: libc::msghdr = zeroed();
    header.msg_name = addr.as_ptr().cast_mut().cast();
    header.msg_namelen = addr.len() as u32;
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = control.len() as _;
    sys!(SYS_sendmsg, fd, &header, 0)
}

fn control_messages_are_sent() -> Outcome {
    let (six, addr) = ok!(bound(AF_INET6));
    ok!(set_option(six, IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1));
    ok!(set_option(six, IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1));
    let cases = [
        (libc::IPV6_HOPLIMIT, 2, 2, 0),
        (libc::IPV6_HOPLIMIT, -1, 64, 0),
        (libc::IPV6_TCLASS, 0x20, 64, 0x20),
    ];
    for (kind, value, hops, class) in cases {
        eq!(ok!(send_with(six, &addr, IPPROTO_IPV6, kind, &i32::to_ne_bytes(value))), 1);
        ok!(wait_for(six, POLLIN));
        let (_, control, _) = ok!(receive(six, 0));
        eq!(
            control,
            vec![
                (IPPROTO_IPV6, libc::IPV6_HOPLIMIT, i32::to_ne_bytes(hops).to_vec()),
                (IPPROTO_IPV6, libc::IPV6_TCLASS, i32::to_ne_bytes(class).to_vec()),
            ]
        );
    }
    for (kind, data) in [
        (libc::IPV6_HOPLIMIT, &[1, 0, 0, 0, 0][..]),
        (libc::IPV6_HOPLIMIT, &[1]),
        (libc::IPV6_HOPLIMIT, &[0, 1, 0, 0]),
        (libc::IPV6_TCLASS, &[0xfe, 0xff, 0xff, 0xff]),
        (libc::IPV6_PKTINFO, &[0; 8]),
        (250, &[0; 4]),
    ] {
        fails!(send_with(six, &addr, IPPROTO_IPV6, kind, data), EINVAL);
    }
    // What is meant for another protocol is not looked at.
    eq!(ok!(send_with(six, &addr, IPPROTO_IP, 250, &[0; 4])), 1);
    let (four, addr) = ok!(bound(AF_INET));
    ok!(set_option(four, IPPROTO_IP, libc::IP_RECVTTL, 1));
    ok!(set_option(four, IPPROTO_IP, libc::IP_RECVTOS, 1));
    eq!(ok!(send_with(four, &addr, IPPROTO_IP, libc::IP_TTL, &[3, 0, 0, 0])), 1);
    eq!(ok!(send_with(four, &addr, IPPROTO_IP, libc::IP_TOS, &[0x10])), 1);
    for (ttl, tos) in [(3, 0), (64, 0x10)] {
        ok!(wait_for(four, POLLIN));
        let (_, control, _) = ok!(receive(four, 0));
        eq!(
            control,
            vec![
                (IPPROTO_IP, libc::IP_TTL, i32::to_ne_bytes(ttl).to_vec()),
                (IPPROTO_IP, libc::IP_TOS, vec![tos]),
            ]
        );
    }
    for (kind, data) in
        [(libc::IP_TTL, &[0, 0, 0, 0][..]), (libc::IP_TTL, &[1]), (libc::IP_PKTINFO, &[0; 4])]
    {
        fails!(send_with(four, &addr, IPPROTO_IP, kind, data), EINVAL);
    }
    Ok(())
}

fn checksums_may_cover_a_part() -> Outcome {
    const UDPLITE_SEND_CSCOV: i32 = 10;
    const UDPLITE_RECV_CSCOV: i32 = 11;
    let lite = |addr: &[u8]| -> Result<(i32, Vec<u8>), i32> {
        let fd = sys!(SYS_socket, AF_INET, SOCK_DGRAM, libc::IPPROTO_UDPLITE)? as i32;
        bind(fd, addr)?;
        Ok((fd, name_of(fd)?))
    };
    let (one, _) = match lite(&addr4(LOCAL, 0)) {
        // A kernel may have been built without this protocol.
        Err(libc::EPROTONOSUPPORT) => return Ok(()),
        result => ok!(result),
    };
    eq!(ok!(option(one, SOL_SOCKET, SO_PROTOCOL)), libc::IPPROTO_UDPLITE);
    // The ports are its own.
    let (plain, addr) = ok!(bound(AF_INET));
    let (other, _) = ok!(lite(&addr));
    eq!(ok!(send_to(one, b"lite", &addr)), 4);
    ok!(wait_for(other, POLLIN));
    eq!(ok!(recv_from(other, 0)).0, b"lite".to_vec());
    fails!(recv_from(plain, MSG_DONTWAIT), EAGAIN);
    let level = libc::IPPROTO_UDPLITE;
    for (given, kept) in [(0, 0), (3, 8), (20, 20), (70_000, 65_535), (9, 9)] {
        ok!(set_option(one, level, UDPLITE_SEND_CSCOV, given));
        eq!(ok!(option(one, level, UDPLITE_SEND_CSCOV)), kept);
    }
    fails!(set_option(plain, level, UDPLITE_SEND_CSCOV, 8), ENOPROTOOPT);
    // Covered in part: whoever asks for more does not get it.
    ok!(set_option(other, level, UDPLITE_RECV_CSCOV, 10));
    eq!(ok!(send_to(one, b"covered in part", &addr)), 15);
    ok!(set_option(one, level, UDPLITE_SEND_CSCOV, 10));
    eq!(ok!(send_to(one, b"covered enough", &addr)), 14);
    ok!(wait_for(other, POLLIN));
    eq!(ok!(recv_from(other, 0)).0, b"covered enough".to_vec());
    Ok(())
}

fn corked_datagrams() -> Outcome {
    let (one, _) = ok!(bound(AF_INET));
    let (other, addr) = ok!(bound(AF_INET));
    ok!(connect(one, &addr));
    eq!(ok!(send(one, b"ab", MSG_MORE)), 2);
    eq!(ok!(send(one, b"cd", 0)), 2);
    ok!(wait_for(other, POLLIN));
    eq!(ok!(recv_from(other, 0)).0, b"abcd");
    ok!(set_option(one, IPPROTO_UDP, libc::UDP_CORK, 1));
    eq!(ok!(send(one, b"1", 0)), 1);
    eq!(ok!(send(one, b"2", 0)), 1);
    eq!(ok!(poll(other, POLLIN)), 0);
    ok!(set_option(one, IPPROTO_UDP, libc::UDP_CORK, 0));
    ok!(wait_for(other, POLLIN));
    eq!(ok!(recv_from(other, 0)).0, b"12");
    Ok(())
}

fn groups_and_broadcasts() -> Outcome {
    let group = [239, 1, 2, 3];
    let (one, other) = (ok!(socket(AF_INET, SOCK_DGRAM)), ok!(socket(AF_INET, SOCK_DGRAM)));
    ok!(set_option(one, SOL_SOCKET, SO_REUSEADDR, 1));
    ok!(set_option(other, SOL_SOCKET, SO_REUSEADDR, 1));
    ok!(bind(one, &addr4([0; 4], 0)));
    let port = port_of(&ok!(name_of(one)));
    ok!(bind(other, &addr4(group, port)));
    let request = [group, LOCAL].concat();
    for fd in [one, other] {
        ok!(sys!(SYS_setsockopt, fd, IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request[..], 8));
    }
    fails!(
        sys!(SYS_setsockopt, one, IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request[..], 8),
        EADDRINUSE
    );
    let wrong = [LOCAL, LOCAL].concat();
    fails!(sys!(SYS_setsockopt, one, IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &wrong[..], 8), EINVAL);
    let sender = ok!(socket(AF_INET, SOCK_DGRAM));
    ok!(sys!(SYS_setsockopt, sender, IPPROTO_IP, libc::IP_MULTICAST_IF, &LOCAL, 4));
    eq!(ok!(send_to(sender, b"all", &addr4(group, port))), 3);
    for fd in [one, other] {
        ok!(wait_for(fd, POLLIN));
        eq!(ok!(recv_from(fd, 0)).0, b"all");
    }
    ok!(sys!(SYS_setsockopt, one, IPPROTO_IP, libc::IP_DROP_MEMBERSHIP, &request[..], 8));
    fails!(
        sys!(SYS_setsockopt, one, IPPROTO_IP, libc::IP_DROP_MEMBERSHIP, &request[..], 8),
        EADDRNOTAVAIL
    );
    let everybody = addr4([127, 255, 255, 255], port);
    fails!(send_to(sender, b"x", &everybody), EACCES);
    ok!(set_option(sender, SOL_SOCKET, SO_BROADCAST, 1));
    eq!(ok!(send_to(sender, b"x", &everybody)), 1);
    ok!(wait_for(one, POLLIN));
    Ok(())
}

fn many_at_once() -> Outcome {
    let (one, _) = ok!(bound(AF_INET));
    let (other, addr) = ok!(bound(AF_INET));
    ok!(connect(one, &addr));
    let texts: [&[u8]; 3] = [b"one", b"two", b"three"];
    let mut iovs: Vec<libc::iovec> = texts
        .iter()
        .map(|text| libc::iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = iovs
        .iter_mut()
        .map(|iov| {
            let mut message: libc::mmsghdr = zeroed();
            message.msg_hdr.msg_iov = core::ptr::from_mut(iov);
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    eq!(ok!(sys!(SYS_sendmmsg, one, &mut messages[..], 3, 0)), 3);
    eq!(messages[2].msg_len, 5);
    let mut buffers = [[0u8; 16]; 4];
    let mut iovs: Vec<libc::iovec> = buffers
        .iter_mut()
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 16 })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = iovs
        .iter_mut()
        .map(|iov| {
            let mut message: libc::mmsghdr = zeroed();
            message.msg_hdr.msg_iov = core::ptr::from_mut(iov);
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    eq!(ok!(sys!(SYS_recvmmsg, other, &mut messages[..], 4, MSG_DONTWAIT, 0)), 3);
    eq!(&buffers[2][..5], b"three");
    fails!(sys!(SYS_recvmmsg, other, &mut messages[..], 4, MSG_DONTWAIT, 0), EAGAIN);
    Ok(())
}

fn receive_waits() -> Outcome {
    let (fd, addr) = ok!(bound(AF_INET));
    let pid = ok!(child(|| i32::from(recv(fd, &mut [0; 4], 0) != Ok(2))));
    check!(until_asleep(pid));
    eq!(ok!(send_to(fd, b"go", &addr)), 2);
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

guest_tests::cases!(
    names_are_checked,
    datagrams_travel,
    sizes_are_bounded,
    connected_sockets,
    nobody_there,
    errors_are_queued,
    ends_are_seen,
    addresses_are_shared,
    families_meet,
    control_messages,
    control_messages_are_sent,
    checksums_may_cover_a_part,
    corked_datagrams,
    groups_and_broadcasts,
    many_at_once,
    receive_waits,
);
