//! Raw and packet sockets, and the filters of sockets, each in a network namespace of its own, so that nobody
//! else's packets are seen.

use guest_tests::fs::close;
use guest_tests::mem::zeroed;
use guest_tests::net::{
    LOCAL, addr4, addr6, bind, connect, local6, name_of, option, peer_of, poll, port_of, recv,
    recv_from, send, send_to, set_option, socket, wait_for,
};
use guest_tests::proc::in_child;
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    AF_INET, AF_INET6, AF_PACKET, AF_UNIX, CLONE_NEWNET, CLONE_NEWUSER, IP_HDRINCL, IPPROTO_ICMP,
    IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_RAW, IPPROTO_UDP, MSG_DONTWAIT, MSG_PEEK,
    MSG_TRUNC, POLLIN, SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_LOCK_FILTER, SO_PEEK_OFF,
    SO_PROTOCOL, SO_TYPE, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, SOL_PACKET, SOL_SOCKET,
};

const ETH_P_ALL: u16 = 3;
const ETH_P_IP: u16 = 0x0800;
const PACKET_HOST: u8 = 0;
const PACKET_OUTGOING: u8 = 4;
const ICMP_FILTER: i32 = 1;
const SOL_RAW: i32 = 255;

/// Protocols for experiments (RFC 3692).
const EXPERIMENT: i32 = 253;
const OTHER_EXPERIMENT: i32 = 254;

/// Runs checks in a network namespace whose loopback interface is up.
fn in_network(body: impl FnOnce() -> Outcome) -> Outcome {
    const SIOCSIFFLAGS: u32 = 0x8914;
    in_child(|| {
        ok!(sys!(SYS_unshare, CLONE_NEWUSER | CLONE_NEWNET));
        let fd = ok!(socket(AF_INET, SOCK_DGRAM));
        let mut request = [0_u8; 40];
        request[..2].copy_from_slice(b"lo");
        request[16] = 1;
        ok!(sys!(SYS_ioctl, fd, SIOCSIFFLAGS, &request));
        ok!(close(fd));
        body()
    })
}

fn raw(family: i32, protocol: i32) -> Result<i32, i32> {
    sys!(SYS_socket, family, SOCK_RAW, protocol).map(|fd| fd as i32)
}

fn packet(kind: i32, protocol: u16) -> Result<i32, i32> {
    sys!(SYS_socket, AF_PACKET, kind, protocol.to_be()).map(|fd| fd as i32)
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// Receives, waiting: data and address.
fn take(fd: i32) -> Result<(Vec<u8>, Vec<u8>), i32> {
    wait_for(fd, POLLIN)?;
    recv_from(fd, MSG_DONTWAIT)
}

/// A `struct sockaddr_ll`.
fn link_addr(protocol: u16, index: i32) -> Vec<u8> {
    let family = (AF_PACKET as u16).to_ne_bytes();
    [&family[..], &protocol.to_be_bytes(), &index.to_ne_bytes(), &[0, 0, 0, 6], &[0; 8]].concat()
}

fn kinds_are_checked() -> Outcome {
    in_network(|| {
        fails!(raw(AF_INET, 0), EPROTONOSUPPORT);
        ok!(raw(AF_INET, 256));
        fails!(raw(AF_INET, 300), EINVAL);
        fails!(sys!(SYS_socket, AF_PACKET, SOCK_STREAM, 0), ESOCKTNOSUPPORT);
        let fd = ok!(raw(AF_INET, EXPERIMENT));
        eq!(ok!(option(fd, SOL_SOCKET, SO_TYPE)), SOCK_RAW);
        eq!(ok!(option(fd, SOL_SOCKET, SO_PROTOCOL)), EXPERIMENT);
        fails!(bind(fd, &addr4([192, 0, 2, 7], 0)), EADDRNOTAVAIL);
        fails!(send(fd, b"x", 0), EDESTADDRREQ);
        fails!(send_to(fd, b"x", &addr6(local6(), 0)), EAFNOSUPPORT);
        fails!(sys!(SYS_listen, fd, 1), EOPNOTSUPP);
        fails!(peer_of(fd), ENOTCONN);
        ok!(bind(fd, &addr4(LOCAL, 77)));
        // Instead of a port there is the protocol.
        eq!(ok!(name_of(fd)), addr4(LOCAL, EXPERIMENT as u16));
        ok!(connect(fd, &addr4(LOCAL, 78)));
        eq!(ok!(peer_of(fd)), addr4(LOCAL, 78));
        let fd = ok!(packet(SOCK_RAW, ETH_P_ALL));
        eq!(ok!(option(fd, SOL_SOCKET, SO_PROTOCOL)), 0);
        fails!(connect(fd, &link_addr(ETH_P_ALL, 1)), EOPNOTSUPP);
        fails!(sys!(SYS_listen, fd, 1), EOPNOTSUPP);
        fails!(bind(fd, &addr4(LOCAL, 0)), EINVAL);
        fails!(bind(fd, &link_addr(ETH_P_ALL, 99)), ENODEV);
        Ok(())
    })
}

fn packets_of_a_protocol_travel() -> Outcome {
    in_network(|| {
        let one = ok!(raw(AF_INET, EXPERIMENT));
        let other = ok!(raw(AF_INET, EXPERIMENT));
        let deaf = ok!(raw(AF_INET, OTHER_EXPERIMENT));
        ok!(send_to(one, b"hello", &addr4(LOCAL, 0)));
        for fd in [one, other] {
            let (data, from) = ok!(take(fd));
            eq!(from, addr4(LOCAL, 0));
            eq!(data.len(), 25);
            eq!((data[0], data[8], data[9]), (0x45, 64, EXPERIMENT as u8));
            eq!(sum(&data[..20]), 0);
            eq!((&data[12..16], &data[16..20]), (&LOCAL[..], &LOCAL[..]));
            eq!(&data[20..], b"hello");
        }
        eq!(ok!(poll(deaf, POLLIN)), 0);
        // One that is bound, or connected, hears what is for it and from there.
        ok!(bind(other, &addr4([127, 0, 0, 2], 0)));
        ok!(send_to(one, b"a", &addr4(LOCAL, 0)));
        eq!(ok!(take(one)).0.len(), 21);
        eq!(ok!(poll(other, POLLIN)), 0);
        ok!(send_to(one, b"b", &addr4([127, 0, 0, 2], 0)));
        let mut short = [0; 4];
        ok!(wait_for(other, POLLIN));
        eq!(ok!(recv(other, &mut short, MSG_PEEK | MSG_TRUNC)), 21);
        eq!(ok!(recv(other, &mut short, 0)), 4);
        fails!(recv(other, &mut short, MSG_DONTWAIT), EAGAIN);
        Ok(())
    })
}

fn headers_can_be_given() -> Outcome {
    in_network(|| {
        let fd = ok!(raw(AF_INET, EXPERIMENT));
        eq!(ok!(option(fd, IPPROTO_IP, IP_HDRINCL)), 0);
        ok!(set_option(fd, IPPROTO_IP, IP_HDRINCL, 1));
        eq!(ok!(option(fd, IPPROTO_IP, IP_HDRINCL)), 1);
        let listener = ok!(raw(AF_INET, EXPERIMENT));
        let to = addr4(LOCAL, 0);
        fails!(send_to(fd, b"too short", &to), EINVAL);
        let mut bytes = [0; 24];
        bytes[0] = 0x4f;
        fails!(send_to(fd, &bytes, &to), EINVAL);
        // Length, checksum and what is zero of the identification and the source is filled in.
        bytes[0] = 0x45;
        bytes[8] = 7;
        bytes[9] = EXPERIMENT as u8;
        bytes[16..20].copy_from_slice(&LOCAL);
        bytes[20..].copy_from_slice(b"data");
        eq!(ok!(send_to(fd, &bytes, &to)), 24);
        let (data, _) = ok!(take(listener));
        eq!((data.len(), data[3], data[8]), (24, 24, 7));
        eq!(&data[12..16], &LOCAL[..]);
        eq!(sum(&data[..20]), 0);
        check!(data[4..6] != [0, 0]);
        // Whatever protocol the header names.
        let general = ok!(raw(AF_INET, IPPROTO_RAW));
        eq!(ok!(option(general, IPPROTO_IP, IP_HDRINCL)), 1);
        ok!(send_to(general, &bytes, &to));
        eq!(ok!(take(listener)).0.len(), 24);
        let datagrams = ok!(socket(AF_INET, SOCK_DGRAM));
        fails!(set_option(datagrams, IPPROTO_IP, IP_HDRINCL, 1), ENOPROTOOPT);
        Ok(())
    })
}

fn datagrams_can_be_made_by_hand() -> Outcome {
    in_network(|| {
        let receiver = ok!(socket(AF_INET, SOCK_DGRAM));
        ok!(bind(receiver, &addr4(LOCAL, 0)));
        let port = port_of(&ok!(name_of(receiver)));
        let fd = ok!(raw(AF_INET, IPPROTO_UDP));
        let mut datagram =
            [&1234_u16.to_be_bytes()[..], &port.to_be_bytes(), &[0, 11, 0, 0], b"abc"];
        ok!(send_to(fd, &datagram.concat(), &addr4(LOCAL, 0)));
        let (data, from) = ok!(take(receiver));
        eq!((data.as_slice(), from), (&b"abc"[..], addr4(LOCAL, 1234)));
        eq!(ok!(take(fd)).0.len(), 31);
        // What others send is seen as well, and what nobody takes is reported.
        let errors = ok!(raw(AF_INET, IPPROTO_ICMP));
        let sender = ok!(socket(AF_INET, SOCK_DGRAM));
        ok!(send_to(sender, b"seen", &addr4(LOCAL, port)));
        let (data, _) = ok!(take(fd));
        eq!(&data[28..], b"seen");
        eq!(data[22..24], port.to_be_bytes());
        ok!(close(receiver));
        datagram[3] = b"xyz";
        ok!(send_to(fd, &datagram.concat(), &addr4(LOCAL, 0)));
        let (data, _) = ok!(take(errors));
        eq!((data[20], data[21]), (3, 3));
        eq!(&data[28 + 28..], b"xyz");
        Ok(())
    })
}

fn echoes_are_answered_and_filtered() -> Outcome {
    in_network(|| {
        let fd = ok!(raw(AF_INET, IPPROTO_ICMP));
        let mut echo = [8, 0, 0, 0, 1, 2, 0, 1, b'p', b'i', b'n', b'g'];
        let total = sum(&echo);
        echo[2..4].copy_from_slice(&total.to_be_bytes());
        ok!(send_to(fd, &echo, &addr4(LOCAL, 0)));
        // The request is seen, and the answer.
        eq!(ok!(take(fd)).0[20], 8);
        let (data, _) = ok!(take(fd));
        eq!((data[20], &data[24..]), (0, &echo[4..]));
        ok!(set_option(fd, SOL_RAW, ICMP_FILTER, 1 << 8));
        eq!(ok!(option(fd, SOL_RAW, ICMP_FILTER)), 1 << 8);
        ok!(send_to(fd, &echo, &addr4(LOCAL, 0)));
        eq!(ok!(take(fd)).0[20], 0);
        fails!(recv(fd, &mut [0; 8], MSG_DONTWAIT), EAGAIN);
        let other = ok!(raw(AF_INET, EXPERIMENT));
        fails!(set_option(other, SOL_RAW, ICMP_FILTER, 0), EOPNOTSUPP);
        // Of IPv6 the kernel sees to the checksum.
        const ICMP6_FILTER: i32 = 1;
        let fd = ok!(raw(AF_INET6, IPPROTO_ICMPV6));
        let mut only_answers = [u32::MAX; 8];
        only_answers[4] = !(1 << 1);
        let len = size_of_val(&only_answers);
        ok!(sys!(SYS_setsockopt, fd, IPPROTO_ICMPV6, ICMP6_FILTER, &only_answers, len));
        ok!(send_to(fd, &[128, 0, 0, 0, 0, 9, 0, 1, b'x'], &addr6(local6(), 0)));
        let (data, from) = ok!(take(fd));
        eq!((data[0], &data[4..]), (129, &[0, 9, 0, 1, b'x'][..]));
        eq!(from, addr6(local6(), 0));
        Ok(())
    })
}

fn checksum_of_ipv6_has_a_place() -> Outcome {
    const IPV6_CHECKSUM: i32 = 7;
    in_network(|| {
        let fd = ok!(raw(AF_INET6, EXPERIMENT));
        eq!(ok!(option(fd, IPPROTO_IPV6, IPV6_CHECKSUM)), -1);
        fails!(set_option(fd, IPPROTO_IPV6, IPV6_CHECKSUM, 3), EINVAL);
        ok!(set_option(fd, IPPROTO_IPV6, IPV6_CHECKSUM, 2));
        let to = addr6(local6(), 0);
        fails!(send_to(fd, b"abc", &to), EINVAL);
        ok!(send_to(fd, b"ab\0\0cd", &to));
        let (data, _) = ok!(take(fd));
        eq!((&data[..2], &data[4..]), (&b"ab"[..], &b"cd"[..]));
        let pseudo = [&local6()[..], &local6(), &[0, 0, 0, 6, 0, 0, 0, EXPERIMENT as u8], &data];
        eq!(sum(&pseudo.concat()), 0);
        let icmp = ok!(raw(AF_INET6, IPPROTO_ICMPV6));
        eq!(ok!(option(icmp, IPPROTO_IPV6, IPV6_CHECKSUM)), 2);
        fails!(set_option(icmp, IPPROTO_IPV6, IPV6_CHECKSUM, 2), EINVAL);
        Ok(())
    })
}

fn frames_are_seen_twice_on_loopback() -> Outcome {
    in_network(|| {
        let all = ok!(packet(SOCK_RAW, ETH_P_ALL));
        let some = ok!(packet(SOCK_DGRAM, ETH_P_IP));
        let none = ok!(packet(SOCK_RAW, 0));
        let sender = ok!(socket(AF_INET, SOCK_DGRAM));
        ok!(send_to(sender, b"frame", &addr4(LOCAL, 9)));
        let (data, from) = ok!(take(all));
        eq!(data.len(), 14 + 28 + 5);
        eq!(data[..14], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0]);
        eq!(&data[42..], b"frame");
        // Family, protocol, interface, type of hardware, direction, address.
        let mut wanted = link_addr(ETH_P_IP, 1);
        wanted[8..10].copy_from_slice(&772_u16.to_ne_bytes());
        wanted[10] = PACKET_OUTGOING;
        eq!(from, wanted);
        wanted[10] = PACKET_HOST;
        eq!(ok!(take(all)).1, wanted);
        let (data, from) = ok!(take(some));
        eq!((data.len(), data[0]), (33, 0x45));
        eq!(from, wanted);
        eq!(ok!(poll(none, POLLIN)), 0);
        Ok(())
    })
}

fn frames_can_be_sent() -> Outcome {
    in_network(|| {
        let fd = ok!(packet(SOCK_RAW, 0));
        fails!(send(fd, &[0; 60], 0), ENXIO);
        let to = link_addr(0x88b5, 1);
        fails!(send_to(fd, &[0; 13], &to), EINVAL);
        fails!(send_to(fd, &[0; 70_000], &to), EMSGSIZE);
        fails!(send_to(fd, &[0; 60], &link_addr(0x88b5, 99)), ENXIO);
        fails!(send_to(fd, &[0; 60], &to[..12]), EINVAL);
        let listener = ok!(packet(SOCK_DGRAM, 0x88b5));
        let frame = [&[0; 12][..], &0x88b5_u16.to_be_bytes(), b"local experiment"].concat();
        eq!(ok!(send_to(fd, &frame, &to)), 30);
        eq!(ok!(take(listener)).0, b"local experiment");
        let cooked = ok!(packet(SOCK_DGRAM, 0));
        ok!(send_to(cooked, b"again", &to));
        eq!(ok!(take(listener)).0, b"again");
        // A packet of IPv6 comes to its socket.
        let receiver = ok!(raw(AF_INET6, EXPERIMENT));
        let mut bytes = [0_u8; 43];
        bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 3, EXPERIMENT as u8, 64]);
        bytes[8..24].copy_from_slice(&local6());
        bytes[24..40].copy_from_slice(&local6());
        bytes[40..].copy_from_slice(b"raw");
        ok!(send_to(cooked, &bytes, &link_addr(0x86dd, 1)));
        let (data, from) = ok!(take(receiver));
        eq!((data.as_slice(), from), (&b"raw"[..], addr6(local6(), 0)));
        Ok(())
    })
}

fn options_of_packet_sockets() -> Outcome {
    const PACKET_ADD_MEMBERSHIP: i32 = 1;
    const PACKET_DROP_MEMBERSHIP: i32 = 2;
    const PACKET_AUXDATA: i32 = 8;
    const PACKET_IGNORE_OUTGOING: i32 = 23;
    in_network(|| {
        let fd = ok!(packet(SOCK_RAW, ETH_P_ALL));
        let member = |index: i32| [&index.to_ne_bytes()[..], &[1, 0, 0, 0], &[0; 8]].concat();
        let change =
            |name, index| sys!(SYS_setsockopt, fd, SOL_PACKET, name, &member(index)[..], 16);
        ok!(change(PACKET_DROP_MEMBERSHIP, 1));
        ok!(change(PACKET_ADD_MEMBERSHIP, 1));
        ok!(change(PACKET_DROP_MEMBERSHIP, 1));
        fails!(change(PACKET_ADD_MEMBERSHIP, 99), ENODEV);
        fails!(set_option(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 2), EINVAL);
        ok!(set_option(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1));
        ok!(set_option(fd, SOL_PACKET, PACKET_AUXDATA, 5));
        eq!(ok!(option(fd, SOL_PACKET, PACKET_AUXDATA)), 1);
        let sender = ok!(socket(AF_INET, SOCK_DGRAM));
        ok!(send_to(sender, b"counted", &addr4(LOCAL, 9)));
        ok!(wait_for(fd, POLLIN));
        let mut data = [0_u8; 8];
        let mut control = [0_u64; 16];
        let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
        let mut header: libc::msghdr = zeroed();
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = 128;
        eq!(ok!(sys!(SYS_recvmsg, fd, &mut header, 0)), 8);
        eq!(header.msg_flags & MSG_TRUNC, MSG_TRUNC);
        let control: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let number = |at: usize| u32::from_ne_bytes(control[at..at + 4].try_into().unwrap());
        eq!((number(0), number(8), number(12)), (36, SOL_PACKET as u32, PACKET_AUXDATA as u32));
        // Both lengths, and where link and network begin.
        eq!((number(20), number(24), number(28)), (49, 49, 14 << 16));
        // The answer that nobody has the port is the second; asking for the numbers sets them back.
        ok!(take(fd));
        let mut numbers = [0_u32; 2];
        let mut len = 8_i32;
        ok!(sys!(SYS_getsockopt, fd, SOL_PACKET, PACKET_STATISTICS, &mut numbers, &mut len));
        eq!(numbers, [2, 0]);
        ok!(sys!(SYS_getsockopt, fd, SOL_PACKET, PACKET_STATISTICS, &mut numbers, &mut len));
        eq!(numbers, [0, 0]);
        Ok(())
    })
}

const PACKET_RX_RING: i32 = 5;
const PACKET_STATISTICS: i32 = 6;
const PACKET_VERSION: i32 = 10;
const PACKET_HDRLEN: i32 = 11;
const PACKET_RESERVE: i32 = 12;

/// Asks for a ring: sizes and numbers of blocks and frames, and what the third version has beyond.
fn set_ring(fd: i32, fields: &[u32]) -> Result<usize, i32> {
    sys!(SYS_setsockopt, fd, SOL_PACKET, PACKET_RX_RING, fields, size_of_val(fields))
}

/// Maps a ring.
fn map_ring(fd: i32, len: usize) -> Result<&'static mut [u8], i32> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let at = sys!(SYS_mmap, 0, len, prot, libc::MAP_SHARED, fd, 0)?;
    // SAFETY: a mapping of this length that stays; the other end writes to it only while nobody looks.
    Ok(unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(at), len) })
}

fn number_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn rings_are_checked() -> Outcome {
    in_network(|| {
        let fd = ok!(packet(SOCK_RAW, ETH_P_ALL));
        for (version, len) in [(0, 32), (1, 32), (2, 48)] {
            let mut value = version;
            let mut room = 4;
            ok!(sys!(SYS_getsockopt, fd, SOL_PACKET, PACKET_HDRLEN, &mut value, &mut room));
            eq!(value, len);
        }
        let mut unknown = 3;
        fails!(sys!(SYS_getsockopt, fd, SOL_PACKET, PACKET_HDRLEN, &mut unknown, &mut 4), EINVAL);
        fails!(set_option(fd, SOL_PACKET, PACKET_VERSION, 3), EINVAL);
        fails!(set_option(fd, SOL_PACKET, PACKET_RESERVE, -1), EINVAL);
        ok!(set_option(fd, SOL_PACKET, PACKET_VERSION, 1));
        for bad in [
            [4096, 1, 2048, 3],
            [4097, 1, 2048, 2],
            [4096, 1, 40, 102],
            [4096, 1, 2050, 1],
            [0, 1, 2048, 2],
            [4096, 0, 2048, 2],
            [4096, 1, 8192, 1],
        ] {
            fails!(set_ring(fd, &bad), EINVAL);
        }
        fails!(map_ring(fd, 4096), EINVAL);
        ok!(set_ring(fd, &[4096, 2, 2048, 4]));
        fails!(set_ring(fd, &[4096, 2, 2048, 4]), EBUSY);
        fails!(set_option(fd, SOL_PACKET, PACKET_VERSION, 2), EBUSY);
        ok!(set_ring(fd, &[0; 4]));
        ok!(set_option(fd, SOL_PACKET, PACKET_VERSION, 2));
        fails!(set_ring(fd, &[4096, 1, 4096, 1]), EINVAL);
        // What the application keeps in each block leaves no room for a frame.
        fails!(set_ring(fd, &[4096, 1, 4096, 1, 100, 4090, 0]), EINVAL);
        fails!(set_ring(fd, &[4096, 1, 4096, 1, 100, u32::MAX, 0]), EINVAL);
        ok!(set_ring(fd, &[4096, 1, 4096, 1, 100, 512, 0]));
        Ok(())
    })
}

fn frames_come_into_a_ring() -> Outcome {
    in_network(|| {
        let fd = ok!(packet(SOCK_RAW, ETH_P_IP));
        ok!(set_option(fd, SOL_PACKET, PACKET_VERSION, 1));
        ok!(set_ring(fd, &[4096, 1, 2048, 2]));
        let ring = ok!(map_ring(fd, 4096));
        eq!(ok!(poll(fd, POLLIN)), 0);
        let sender = ok!(raw(AF_INET, EXPERIMENT));
        for text in [&b"first"[..], b"second", b"lost"] {
            ok!(send_to(sender, text, &addr4(LOCAL, 0)));
        }
        ok!(wait_for(fd, POLLIN));
        for (place, text) in [&b"first"[..], b"second"].into_iter().enumerate() {
            let frame = &ring[place * 2048..][..2048];
            let wanted = 34 + text.len() as u32;
            eq!(number_at(frame, 0) & 1, 1);
            eq!((number_at(frame, 4), number_at(frame, 8)), (wanted, wanted));
            let network = usize::from(u16::from_ne_bytes(frame[14..16].try_into().unwrap()));
            let link = usize::from(u16::from_ne_bytes(frame[12..14].try_into().unwrap()));
            eq!((link, network), (66, 80));
            eq!(&frame[32..34], &(AF_PACKET as u16).to_ne_bytes());
            eq!(&frame[network + 20..][..text.len()], text);
        }
        let mut numbers = [0_u32; 2];
        ok!(sys!(SYS_getsockopt, fd, SOL_PACKET, PACKET_STATISTICS, &mut numbers, &mut 8));
        eq!(numbers, [3, 1]);
        // Given back, a frame is used again.
        ring[0..4].fill(0);
        ring[2048..2052].fill(0);
        eq!(ok!(poll(fd, POLLIN)), 0);
        ok!(send_to(sender, b"third", &addr4(LOCAL, 0)));
        ok!(wait_for(fd, POLLIN));
        eq!(&ring[100..105], b"third");
        Ok(())
    })
}

fn frames_come_into_blocks() -> Outcome {
    in_network(|| {
        let fd = ok!(packet(SOCK_DGRAM, ETH_P_IP));
        ok!(set_option(fd, SOL_PACKET, PACKET_VERSION, 2));
        ok!(set_ring(fd, &[4096, 2, 2048, 4, 20, 0, 0]));
        let ring = ok!(map_ring(fd, 8192));
        let sender = ok!(raw(AF_INET, EXPERIMENT));
        ok!(send_to(sender, b"hello", &addr4(LOCAL, 0)));
        ok!(wait_for(fd, POLLIN));
        let block = &ring[..4096];
        eq!(number_at(block, 8) & 1, 1);
        eq!((number_at(block, 12), number_at(block, 16)), (1, 48));
        let frame = &block[48..];
        // No further frame, both lengths, and where the packet is.
        eq!((number_at(frame, 0), number_at(frame, 12), number_at(frame, 16)), (0, 25, 25));
        let network = usize::from(u16::from_ne_bytes(frame[26..28].try_into().unwrap()));
        eq!(network, 96);
        eq!(&frame[network + 20..][..5], b"hello");
        ring[8..12].fill(0);
        eq!(ok!(poll(fd, POLLIN)), 0);
        ok!(send_to(sender, b"again", &addr4(LOCAL, 0)));
        ok!(wait_for(fd, POLLIN));
        eq!(number_at(ring, 4096 + 8) & 1, 1);
        eq!(&ring[4096 + 48 + network + 20..][..5], b"again");
        Ok(())
    })
}

fn sockets_are_listed() -> Outcome {
    in_network(|| {
        let lines = |name: &str| -> Result<Vec<Vec<String>>, String> {
            let path = std::ffi::CString::new(format!("/proc/self/net/{name}")).unwrap();
            let text = ok!(guest_tests::fs::text(&path));
            let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
            Ok(text.lines().skip(1).map(words).collect())
        };
        let fd = ok!(raw(AF_INET, EXPERIMENT));
        let inode = ok!(guest_tests::fs::fstat(fd)).st_ino.to_string();
        let listed = lines("raw")?;
        eq!(listed.len(), 1);
        eq!(listed[0][1..4], ["00000000:00FD", "00000000:0000", "07"]);
        eq!(listed[0][9], inode);
        let fd = ok!(packet(SOCK_DGRAM, ETH_P_IP));
        let inode = ok!(guest_tests::fs::fstat(fd)).st_ino.to_string();
        ok!(bind(fd, &link_addr(0, 1)));
        let listed = lines("packet")?;
        eq!(listed.len(), 1);
        eq!(listed[0][2..6], ["2", "0800", "1", "1"]);
        eq!(listed[0][8], inode);
        // Names are any bytes.
        let unix = ok!(socket(AF_UNIX, SOCK_STREAM));
        let name = [&(AF_UNIX as u16).to_ne_bytes()[..], b"\0odd\xff"].concat();
        ok!(bind(unix, &name));
        let listed = ok!(guest_tests::fs::get(c"/proc/self/net/unix"));
        check!(listed.ends_with(b" @odd\xff\n"));
        Ok(())
    })
}

/// An instruction of classic BPF.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

const fn i(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

const LOAD_BYTE: u16 = 0x30;
const LOAD_LEN: u16 = 0x80;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

fn attach(fd: i32, program: &[Instruction]) -> Result<usize, i32> {
    let given = (program.len() as u64, program.as_ptr().addr() as u64);
    let bytes = [given.0.to_ne_bytes(), given.1.to_ne_bytes()].concat();
    sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &bytes[..], 16)
}

fn filters_choose_and_cut() -> Outcome {
    in_network(|| {
        let receiver = ok!(socket(AF_INET, SOCK_DGRAM));
        ok!(bind(receiver, &addr4(LOCAL, 0)));
        let to = ok!(name_of(receiver));
        // Behind the header of UDP: 'a' is received up to the tenth byte, the rest not at all.
        let program = [
            i(LOAD_BYTE, 0, 0, 8),
            i(JUMP_IF_EQUAL, 0, 1, u32::from(b'a')),
            i(RETURN, 0, 0, 10),
            i(RETURN, 0, 0, 0),
        ];
        ok!(attach(receiver, &program));
        let sender = ok!(socket(AF_INET, SOCK_DGRAM));
        for text in [&b"bcd"[..], b"abcdef", b"", b"a"] {
            ok!(send_to(sender, text, &to));
        }
        eq!(ok!(take(receiver)).0, b"ab");
        eq!(ok!(take(receiver)).0, b"a");
        fails!(recv(receiver, &mut [0; 8], MSG_DONTWAIT), EAGAIN);
        ok!(set_option(receiver, SOL_SOCKET, SO_DETACH_FILTER, 0));
        fails!(set_option(receiver, SOL_SOCKET, SO_DETACH_FILTER, 0), ENOENT);
        ok!(send_to(sender, b"bcd", &to));
        eq!(ok!(take(receiver)).0, b"bcd");
        // Messages of unix sockets have no header; the sender is not told.
        let mut pair = [0_i32; 2];
        ok!(sys!(SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, &mut pair));
        let program = [
            i(LOAD_LEN, 0, 0, 0),
            i(JUMP_IF_EQUAL, 0, 1, 3),
            i(RETURN, 0, 0, 2),
            i(RETURN, 0, 0, 0),
        ];
        ok!(attach(pair[1], &program));
        eq!(ok!(send(pair[0], b"four", 0)), 4);
        eq!(ok!(send(pair[0], b"two", 0)), 3);
        eq!(ok!(take(pair[1])).0, b"tw");
        fails!(recv(pair[1], &mut [0; 8], MSG_DONTWAIT), EAGAIN);
        // Frames: the number of what is in them, which is no part of the packet.
        let frames = ok!(packet(SOCK_DGRAM, ETH_P_ALL));
        const PROTOCOL: u32 = 0xffff_f000;
        const LOAD_HALF: u16 = 0x28;
        let program = [
            i(LOAD_HALF, 0, 0, PROTOCOL),
            i(JUMP_IF_EQUAL, 0, 1, 0x88b5),
            i(RETURN, 0, 0, 4),
            i(RETURN, 0, 0, 0),
        ];
        ok!(attach(frames, &program));
        ok!(send_to(sender, b"x", &to));
        ok!(send_to(ok!(packet(SOCK_DGRAM, 0)), b"chosen", &link_addr(0x88b5, 1)));
        eq!(ok!(take(frames)).0, b"chos");
        Ok(())
    })
}

fn filters_are_checked_and_locked() -> Outcome {
    in_network(|| {
        let fd = ok!(socket(AF_INET, SOCK_DGRAM));
        fails!(attach(fd, &[]), EINVAL);
        fails!(attach(fd, &[i(LOAD_LEN, 0, 0, 0)]), EINVAL);
        fails!(attach(fd, &[i(0xffff, 0, 0, 0), i(RETURN, 0, 0, 0)]), EINVAL);
        fails!(sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &[0_u64; 1], 8), EINVAL);
        let mut len = 0_i32;
        ok!(sys!(SYS_getsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, 0, &mut len));
        eq!(len, 0);
        let program = [i(LOAD_LEN, 0, 0, 0), i(RETURN, 0, 0, 7)];
        ok!(attach(fd, &program));
        // The length counts instructions.
        ok!(sys!(SYS_getsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, 0, &mut len));
        eq!(len, 2);
        let mut got = [0_u64; 2];
        ok!(sys!(SYS_getsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &mut got, &mut len));
        eq!(got[1], 6 | 7 << 32);
        eq!(ok!(option(fd, SOL_SOCKET, SO_LOCK_FILTER)), 0);
        ok!(set_option(fd, SOL_SOCKET, SO_LOCK_FILTER, 1));
        fails!(set_option(fd, SOL_SOCKET, SO_LOCK_FILTER, 0), EPERM);
        fails!(set_option(fd, SOL_SOCKET, SO_DETACH_FILTER, 0), EPERM);
        fails!(attach(fd, &program), EPERM);
        Ok(())
    })
}

fn look_can_begin_later() -> Outcome {
    for kind in [SOCK_STREAM, SOCK_DGRAM] {
        let mut pair = [0_i32; 2];
        ok!(sys!(SYS_socketpair, AF_UNIX, kind, 0, &mut pair));
        let [one, other] = pair;
        eq!(ok!(option(other, SOL_SOCKET, SO_PEEK_OFF)), -1);
        ok!(set_option(other, SOL_SOCKET, SO_PEEK_OFF, 2));
        ok!(send(one, b"abcd", 0));
        ok!(send(one, b"efgh", 0));
        let mut buf = [0; 2];
        // Each look moves the place on.
        for (text, at) in [(b"cd", 4), (b"ef", 6), (b"gh", 8)] {
            eq!(ok!(recv(other, &mut buf, MSG_PEEK)), 2);
            eq!(&buf, text);
            eq!(ok!(option(other, SOL_SOCKET, SO_PEEK_OFF)), at);
        }
        fails!(recv(other, &mut buf, MSG_PEEK | MSG_DONTWAIT), EAGAIN);
        // What is received moves it back.
        let mut buf = [0; 4];
        eq!(ok!(recv(other, &mut buf, 0)), 4);
        eq!(ok!(option(other, SOL_SOCKET, SO_PEEK_OFF)), 4);
        fails!(recv(other, &mut buf, MSG_PEEK | MSG_DONTWAIT), EAGAIN);
        ok!(set_option(other, SOL_SOCKET, SO_PEEK_OFF, 0));
        eq!(ok!(recv(other, &mut buf, MSG_PEEK)), 4);
        eq!(&buf, b"efgh");
    }
    fails!(option(ok!(socket(libc::AF_NETLINK, SOCK_RAW)), SOL_SOCKET, SO_PEEK_OFF), EOPNOTSUPP);
    Ok(())
}

guest_tests::cases!(
    kinds_are_checked,
    packets_of_a_protocol_travel,
    headers_can_be_given,
    datagrams_can_be_made_by_hand,
    echoes_are_answered_and_filtered,
    checksum_of_ipv6_has_a_place,
    frames_are_seen_twice_on_loopback,
    frames_can_be_sent,
    options_of_packet_sockets,
    rings_are_checked,
    frames_come_into_a_ring,
    frames_come_into_blocks,
    sockets_are_listed,
    filters_choose_and_cut,
    filters_are_checked_and_locked,
    look_can_begin_later,
);
