//! Netlink sockets: names, dumps of links, addresses and routes, errors; requests about interfaces.

use guest_tests::mem::zeroed;
use guest_tests::net::{
    LOCAL, addr4, bind, connect, local6, name_of, option, recv, recv_from, set_option, socket,
};
use guest_tests::proc::{drop_root, in_child};
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    AF_INET, AF_INET6, AF_NETLINK, MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC, NETLINK_ROUTE, SO_PROTOCOL,
    SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, SOL_SOCKET,
};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

fn open() -> Result<i32, i32> {
    socket(AF_NETLINK, SOCK_RAW)
}

fn request(fd: i32, kind: u16, flags: u16, payload: &[u8]) -> Result<(), i32> {
    let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&77_u32.to_ne_bytes());
    bytes.extend_from_slice(&0_u32.to_ne_bytes());
    bytes.extend_from_slice(payload);
    let kernel = address(0, 0);
    sys!(SYS_sendto, fd, &bytes[..], bytes.len(), 0, &kernel[..], 12).map(|_| ())
}

fn address(pid: u32, groups: u32) -> Vec<u8> {
    let mut bytes = (AF_NETLINK as u16).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&pid.to_ne_bytes());
    bytes.extend_from_slice(&groups.to_ne_bytes());
    bytes
}

/// One message: type, and what follows its header.
type Message = (u16, Vec<u8>);

/// Receives one datagram of messages.
fn messages(fd: i32) -> Result<Vec<Message>, i32> {
    let mut buf = vec![0; 65536];
    let n = recv(fd, &mut buf, 0)?;
    let mut rest = &buf[..n];
    let mut found = Vec::new();
    while rest.len() >= 16 {
        let len = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
        let kind = u16::from_ne_bytes(rest[4..6].try_into().unwrap());
        found.push((kind, rest[16..len].to_vec()));
        rest = &rest[len.next_multiple_of(4).min(rest.len())..];
    }
    Ok(found)
}

/// Receives a whole dump, or the error that ends it.
fn dump(fd: i32, kind: u16, payload: &[u8]) -> Result<Vec<Message>, i32> {
    request(fd, kind, NLM_F_REQUEST | NLM_F_DUMP, payload)?;
    let mut found = Vec::new();
    loop {
        for message in messages(fd)? {
            if message.0 == NLMSG_DONE {
                return Ok(found);
            }
            if message.0 == NLMSG_ERROR {
                return Err(-i32::from_ne_bytes(message.1[..4].try_into().unwrap()));
            }
            found.push(message);
        }
    }
}

fn error(fd: i32) -> Result<i32, i32> {
    let all = messages(fd)?;
    let (kind, payload) = &all[0];
    assert_eq!(*kind, NLMSG_ERROR);
    Ok(-i32::from_ne_bytes(payload[..4].try_into().unwrap()))
}

fn attribute(payload: &[u8], skip: usize, wanted: u16) -> Option<Vec<u8>> {
    let mut rest = &payload[skip..];
    while rest.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        if u16::from_ne_bytes([rest[2], rest[3]]) == wanted {
            return Some(rest[4..len].to_vec());
        }
        rest = &rest[len.next_multiple_of(4).min(rest.len())..];
    }
    None
}

fn sockets_have_names() -> Outcome {
    fails!(sys!(SYS_socket, AF_NETLINK, SOCK_STREAM, 0), ESOCKTNOSUPPORT);
    fails!(sys!(SYS_socket, AF_NETLINK, SOCK_RAW, 77), EPROTONOSUPPORT);
    let fd = ok!(sys!(SYS_socket, AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE)) as i32;
    eq!(ok!(option(fd, SOL_SOCKET, SO_PROTOCOL)), NETLINK_ROUTE);
    eq!(ok!(name_of(fd)), address(0, 0));
    ok!(bind(fd, &address(0, 1)));
    let own = guest_tests::proc::pid() as u32;
    eq!(ok!(name_of(fd)), address(own, 1));
    // The number is taken: the next socket gets another one.
    let other = ok!(open());
    fails!(bind(other, &address(own, 0)), EADDRINUSE);
    ok!(bind(other, &address(0, 0)));
    check!(ok!(name_of(other)) != address(own, 0));
    fails!(bind(fd, &address(own + 1, 0)), EINVAL);
    fails!(bind(fd, &addr4(LOCAL, 0)), EINVAL);
    fails!(sys!(SYS_listen, fd, 1), EOPNOTSUPP);
    fails!(recv(fd, &mut [0; 4], MSG_DONTWAIT), EAGAIN);
    Ok(())
}

fn links_are_listed() -> Outcome {
    let fd = ok!(open());
    let links = ok!(dump(fd, RTM_GETLINK, &[0; 16]));
    let lo = links
        .iter()
        .find(|(_, payload)| attribute(payload, 16, 3).is_some_and(|name| name == b"lo\0"));
    let Some((kind, lo)) = lo else { return Err("no lo".to_owned()) };
    eq!(*kind, RTM_NEWLINK);
    eq!(&lo[2..8], &[4, 3, 1, 0, 0, 0]);
    check!(lo[8] & 0x49 == 0x49);
    eq!(attribute(lo, 16, 4), Some(65_536_u32.to_ne_bytes().to_vec()));
    eq!(attribute(lo, 16, 1), Some(vec![0; 6]));
    // One by its number, by its name, and one that is not there.
    let mut head = [0u8; 16];
    head[4] = 1;
    ok!(request(fd, RTM_GETLINK, NLM_F_REQUEST, &head));
    let one = ok!(messages(fd));
    eq!((one.len(), one[0].0), (1, RTM_NEWLINK));
    let by_name = [&[0u8; 16][..], &[7, 0, 3, 0, b'l', b'o', 0, 0]].concat();
    ok!(request(fd, RTM_GETLINK, NLM_F_REQUEST, &by_name));
    eq!(ok!(messages(fd))[0].0, RTM_NEWLINK);
    head[4..8].copy_from_slice(&12_345_i32.to_ne_bytes());
    ok!(request(fd, RTM_GETLINK, NLM_F_REQUEST, &head));
    eq!(ok!(error(fd)), libc::ENODEV);
    Ok(())
}

fn addresses_are_listed() -> Outcome {
    let fd = ok!(open());
    let mut head = [0u8; 8];
    let all = ok!(dump(fd, RTM_GETADDR, &head));
    let has = |ip: &[u8]| {
        all.iter().any(|(kind, payload)| {
            *kind == RTM_NEWADDR && attribute(payload, 8, 1).is_some_and(|found| found == ip)
        })
    };
    check!(has(&LOCAL));
    check!(has(&local6()));
    head[0] = AF_INET6 as u8;
    let six = ok!(dump(fd, RTM_GETADDR, &head));
    check!(six.iter().all(|(_, payload)| payload[0] == AF_INET6 as u8));
    head[0] = AF_INET as u8;
    let four = ok!(dump(fd, RTM_GETADDR, &head));
    let lo = four
        .iter()
        .find(|(_, payload)| attribute(payload, 8, 3).is_some_and(|name| name == b"lo\0"));
    let Some((_, lo)) = lo else { return Err("no lo".to_owned()) };
    eq!(&lo[..8], &[AF_INET as u8, 8, 0x80, 254, 1, 0, 0, 0]);
    Ok(())
}

fn routes_are_listed() -> Outcome {
    let fd = ok!(open());
    let mut head = [0u8; 12];
    head[0] = AF_INET as u8;
    let routes = ok!(dump(fd, RTM_GETROUTE, &head));
    check!(routes.iter().any(|(kind, payload)| {
        *kind == RTM_NEWROUTE
            && payload[1] == 8
            && attribute(payload, 12, 1).is_some_and(|to| to == [127, 0, 0, 0])
    }));
    let mut question = head.to_vec();
    question[1] = 32;
    question.extend_from_slice(&[8, 0, 1, 0, 127, 0, 0, 9]);
    ok!(request(fd, RTM_GETROUTE, NLM_F_REQUEST, &question));
    let answer = ok!(messages(fd));
    eq!(answer[0].0, RTM_NEWROUTE);
    eq!(attribute(&answer[0].1, 12, 7), Some(LOCAL.to_vec()));
    eq!(attribute(&answer[0].1, 12, 4), Some(vec![1, 0, 0, 0]));
    Ok(())
}

fn errors_and_acknowledgements() -> Outcome {
    let fd = ok!(open());
    ok!(request(fd, 3333, NLM_F_REQUEST, &[0; 16]));
    eq!(ok!(error(fd)), libc::EOPNOTSUPP);
    // No request: nothing to answer, unless asked to.
    ok!(request(fd, RTM_GETLINK, NLM_F_ACK, &[0; 16]));
    eq!(ok!(error(fd)), 0);
    ok!(request(fd, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, &[0; 16]));
    let n = ok!(recv(fd, &mut [0; 1], MSG_PEEK | MSG_TRUNC));
    check!(n > 100);
    in_child(|| {
        ok!(drop_root());
        let fd = ok!(open());
        let mut head = [0u8; 16];
        head[4] = 1;
        ok!(request(fd, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &head));
        eq!(ok!(error(fd)), libc::EPERM);
        Ok(())
    })
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// Asks for the sockets of a family: what follows the header of each answer.
fn sockets(family: i32, protocol: i32, rest: &[u8]) -> Result<Vec<Vec<u8>>, i32> {
    let fd = sys!(SYS_socket, AF_NETLINK, SOCK_RAW, libc::NETLINK_SOCK_DIAG)? as i32;
    let mut payload = vec![family as u8, protocol as u8, 0, 0, 0xff, 0xff, 0xff, 0xff];
    payload.extend_from_slice(rest);
    let found = dump(fd, SOCK_DIAG_BY_FAMILY, &payload)?;
    Ok(found.into_iter().map(|(_, payload)| payload).collect())
}

fn inode_of(fd: i32) -> Result<u32, i32> {
    let mut stat: libc::stat = zeroed();
    sys!(SYS_fstat, fd, &mut stat)?;
    Ok(stat.st_ino as u32)
}

fn sockets_are_listed() -> Outcome {
    const LISTENING: u8 = 10;
    let (listener, addr) = ok!(guest_tests::net::listener(AF_INET, 3));
    let inode = ok!(inode_of(listener));
    let all = ok!(sockets(AF_INET, libc::IPPROTO_TCP, &[0; 48]));
    let number =
        |entry: &[u8], at: usize| u32::from_ne_bytes(entry[at..at + 4].try_into().unwrap());
    let own = all.iter().find(|entry| number(entry, 68) == inode).ok_or("not listed")?;
    eq!((own[0], own[1]), (AF_INET as u8, LISTENING));
    eq!(own[4..6], addr[2..4]);
    eq!(own[8..12], LOCAL);
    // Neither another family nor another protocol has it.
    for (family, protocol) in [(AF_INET6, libc::IPPROTO_TCP), (AF_INET, libc::IPPROTO_UDP)] {
        let all = ok!(sockets(family, protocol, &[0; 48]));
        check!(all.iter().all(|entry| number(entry, 68) != inode));
    }
    let mut pair = [0i32; 2];
    ok!(sys!(SYS_socketpair, libc::AF_UNIX, SOCK_STREAM, 0, &mut pair));
    let inodes = [ok!(inode_of(pair[0])), ok!(inode_of(pair[1]))];
    // Names and peers.
    let show = [&0_u32.to_ne_bytes()[..], &5_u32.to_ne_bytes(), &[0; 8]].concat();
    let all = ok!(sockets(libc::AF_UNIX, 0, &show));
    let own = all.iter().find(|entry| number(entry, 4) == inodes[0]).ok_or("no pair")?;
    eq!((own[0], own[1], own[2]), (libc::AF_UNIX as u8, SOCK_STREAM as u8, 1));
    let peer = [&8_u16.to_ne_bytes()[..], &2_u16.to_ne_bytes(), &inodes[1].to_ne_bytes()].concat();
    check!(own.windows(8).any(|attribute| attribute == peer));
    // An error ends a dump.
    let fd = ok!(sys!(SYS_socket, AF_NETLINK, SOCK_RAW, libc::NETLINK_SOCK_DIAG)) as i32;
    for (family, expected) in [(99, libc::EINVAL), (libc::AF_APPLETALK, libc::ENOENT)] {
        let payload = [&[family as u8][..], &[0; 55]].concat();
        ok!(request(fd, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, &payload));
        eq!(ok!(error(fd)), expected);
    }
    Ok(())
}

fn interfaces_by_request() -> Outcome {
    const SIOCGIFNAME: u64 = 0x8910;
    const SIOCGIFFLAGS: u64 = 0x8913;
    const SIOCGIFADDR: u64 = 0x8915;
    const SIOCGIFNETMASK: u64 = 0x891b;
    const SIOCGIFMTU: u64 = 0x8921;
    const SIOCGIFHWADDR: u64 = 0x8927;
    const SIOCGIFINDEX: u64 = 0x8933;
    const SIOCGIFCONF: u64 = 0x8912;
    let fd = ok!(socket(AF_INET, SOCK_DGRAM));
    let ask = |what: u64, name: &[u8]| -> Result<[u8; 24], i32> {
        let mut request = [0u8; 40];
        request[..name.len()].copy_from_slice(name);
        sys!(SYS_ioctl, fd, what, &mut request)?;
        Ok(request[16..].try_into().unwrap())
    };
    eq!(&ok!(ask(SIOCGIFINDEX, b"lo"))[..4], &[1, 0, 0, 0]);
    eq!(&ok!(ask(SIOCGIFADDR, b"lo"))[..8], &addr4(LOCAL, 0)[..8]);
    eq!(&ok!(ask(SIOCGIFNETMASK, b"lo"))[4..8], &[255, 0, 0, 0]);
    eq!(&ok!(ask(SIOCGIFFLAGS, b"lo"))[..2], &[0x49, 0]);
    eq!(&ok!(ask(SIOCGIFMTU, b"lo"))[..4], &[0, 0, 1, 0]);
    eq!(&ok!(ask(SIOCGIFHWADDR, b"lo"))[..2], &[4, 3]);
    fails!(ask(SIOCGIFADDR, b"nodev"), ENODEV);
    let mut request = [0u8; 40];
    request[16] = 1;
    ok!(sys!(SYS_ioctl, fd, SIOCGIFNAME, &mut request));
    eq!(&request[..3], b"lo\0");
    // Any socket will do.
    let unix = ok!(socket(libc::AF_UNIX, SOCK_DGRAM));
    ok!(sys!(SYS_ioctl, unix, SIOCGIFNAME, &mut request));
    let mut list = [0u8; 400];
    let mut config: libc::ifconf = zeroed();
    config.ifc_len = 400;
    config.ifc_ifcu.ifcu_buf = list.as_mut_ptr().cast();
    ok!(sys!(SYS_ioctl, fd, SIOCGIFCONF, &mut config));
    check!(config.ifc_len >= 40);
    check!(list.chunks(40).any(|entry| entry.starts_with(b"lo\0") && entry[20..24] == LOCAL));
    Ok(())
}

/// Asks for a change of the loopback interface's addresses: family, length of the network's part, addresses.
fn change_addr(fd: i32, kind: u16, flags: u16, prefix: u8, ip: &[u8]) -> Result<i32, i32> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let family = if ip.len() == 4 { AF_INET } else { AF_INET6 };
    let mut payload = vec![family as u8, prefix, 0, 0, 1, 0, 0, 0];
    for attribute in [IFA_LOCAL, IFA_ADDRESS] {
        payload.extend_from_slice(&(ip.len() as u16 + 4).to_ne_bytes());
        payload.extend_from_slice(&attribute.to_ne_bytes());
        payload.extend_from_slice(ip);
    }
    request(fd, kind, NLM_F_REQUEST | NLM_F_ACK | flags, &payload)?;
    error(fd)
}

fn loopback_has_addresses() -> Outcome {
    const CREATE: u16 = 0x400 | 0x200;
    const REPLACE: u16 = 0x400 | 0x100;
    const ONE: [u8; 4] = [10, 9, 0, 1];
    const SIX: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    in_child(|| {
        ok!(sys!(SYS_unshare, libc::CLONE_NEWUSER | libc::CLONE_NEWNET));
        let fd = ok!(open());
        let addrs = |family: i32| -> Result<Vec<(u8, Vec<u8>)>, i32> {
            let all = dump(fd, RTM_GETADDR, &[family as u8; 1].repeat(16))?;
            Ok(all.iter().map(|(_, addr)| (addr[1], attribute(addr, 8, 1).unwrap())).collect())
        };
        let link = ok!(dump(fd, RTM_GETLINK, &[0; 16]));
        eq!(attribute(&link[0].1, 16, 16), Some(vec![2]));
        eq!(ok!(addrs(AF_INET)), []);
        // Up: it gets its own.
        let head =
            [&[0_u8; 4][..], &1_u32.to_ne_bytes(), &1_u32.to_ne_bytes(), &1_u32.to_ne_bytes()];
        ok!(request(fd, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &head.concat()));
        eq!(ok!(error(fd)), 0);
        let link = ok!(dump(fd, RTM_GETLINK, &[0; 16]));
        eq!(attribute(&link[0].1, 16, 16), Some(vec![0]));
        eq!(ok!(addrs(AF_INET)), [(8, LOCAL.to_vec())]);
        eq!(ok!(addrs(AF_INET6)), [(128, local6().to_vec())]);
        // What is wrong with an address.
        eq!(ok!(change_addr(fd, RTM_NEWADDR, CREATE, 33, &ONE)), libc::EINVAL);
        eq!(ok!(change_addr(fd, RTM_DELADDR, 0, 24, &ONE)), libc::EADDRNOTAVAIL);
        let udp = |ip: [u8; 4]| -> Result<i32, i32> {
            let socket = socket(AF_INET, SOCK_DGRAM)?;
            bind(socket, &addr4(ip, 0))?;
            Ok(socket)
        };
        fails!(udp(ONE), EADDRNOTAVAIL);
        let stranger = ok!(socket(AF_INET, SOCK_DGRAM));
        fails!(connect(stranger, &addr4(ONE, 5)), ENETUNREACH);
        // With an address, its whole network is here.
        eq!(ok!(change_addr(fd, RTM_NEWADDR, CREATE, 24, &ONE)), 0);
        eq!(ok!(change_addr(fd, RTM_NEWADDR, CREATE, 24, &ONE)), libc::EEXIST);
        eq!(ok!(change_addr(fd, RTM_NEWADDR, REPLACE, 24, &ONE)), 0);
        eq!(ok!(change_addr(fd, RTM_NEWADDR, CREATE, 24, &[10, 9, 0, 2])), 0);
        let there = ok!(udp([10, 9, 0, 77]));
        fails!(udp([10, 9, 1, 1]), EADDRNOTAVAIL);
        ok!(connect(stranger, &ok!(name_of(there))));
        eq!(&ok!(name_of(stranger))[4..8], &ONE);
        ok!(guest_tests::net::send(stranger, b"hello", 0));
        eq!(ok!(recv(there, &mut [0; 8], 0)), 5);
        let server = ok!(socket(AF_INET, SOCK_STREAM));
        ok!(bind(server, &addr4([10, 9, 0, 2], 0)));
        ok!(guest_tests::net::listen(server, 1));
        let client = ok!(socket(AF_INET, SOCK_STREAM));
        ok!(connect(client, &ok!(name_of(server))));
        eq!(&ok!(name_of(client))[4..8], &ONE);
        // IPv6: the address alone, before the one of the host itself.
        eq!(ok!(change_addr(fd, RTM_NEWADDR, CREATE, 64, &SIX)), 0);
        eq!(ok!(change_addr(fd, RTM_NEWADDR, CREATE, 64, &SIX)), libc::EEXIST);
        eq!(ok!(addrs(AF_INET6)), [(64, SIX.to_vec()), (128, local6().to_vec())]);
        let all = [(8, LOCAL.to_vec()), (24, ONE.to_vec()), (24, vec![10, 9, 0, 2])];
        eq!(ok!(addrs(AF_INET)), all);
        // The second address goes with the first of its network.
        eq!(ok!(change_addr(fd, RTM_DELADDR, 0, 24, &ONE)), 0);
        eq!(ok!(addrs(AF_INET)), [(8, LOCAL.to_vec())]);
        fails!(udp(ONE), EADDRNOTAVAIL);
        // Down: those of IPv6 go.
        let head = [&[0_u8; 4][..], &1_u32.to_ne_bytes(), &[0; 4], &1_u32.to_ne_bytes()];
        ok!(request(fd, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &head.concat()));
        eq!(ok!(error(fd)), 0);
        eq!(ok!(addrs(AF_INET6)), []);
        eq!(ok!(addrs(AF_INET)), [(8, LOCAL.to_vec())]);
        Ok(())
    })
}

/// An address of IPv6 makes a socket one of IPv6 alone.
fn bound_to_ipv6_alone() -> Outcome {
    for kind in [SOCK_STREAM, SOCK_DGRAM] {
        let fd = ok!(socket(AF_INET6, kind));
        eq!(ok!(option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)), 0);
        ok!(bind(fd, &guest_tests::net::addr6(local6(), 0)));
        eq!(ok!(option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)), 1);
    }
    Ok(())
}

fn listeners_tell_their_backlog() -> Outcome {
    const INET_DIAG_SKV6ONLY: u16 = 11;
    let (listener, _) = ok!(guest_tests::net::listener(AF_INET6, 7));
    let inode = ok!(inode_of(listener)).to_ne_bytes();
    let all = ok!(sockets(AF_INET6, libc::IPPROTO_TCP, &[0; 48]));
    let own = all.iter().find(|entry| entry[68..72] == inode).ok_or("not listed")?;
    eq!(attribute(own, 72, INET_DIAG_SKV6ONLY), Some(vec![1]));
    // How many connections wait, and how many may.
    eq!(&own[56..64], &[0, 0, 0, 0, 7, 0, 0, 0]);
    Ok(())
}

fn programs_tell_each_other_of_devices() -> Outcome {
    const NETLINK_KOBJECT_UEVENT: i32 = 15;
    const NETLINK_ADD_MEMBERSHIP: i32 = 1;
    const NETLINK_PKTINFO: i32 = 3;
    const SOL_NETLINK: i32 = 270;
    in_child(|| {
        ok!(sys!(SYS_unshare, libc::CLONE_NEWUSER | libc::CLONE_NEWNET));
        let hear = |groups: u32| -> Result<(i32, u32), i32> {
            let fd = sys!(SYS_socket, AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT)? as i32;
            bind(fd, &address(0, groups))?;
            let name = name_of(fd)?;
            Ok((fd, u32::from_ne_bytes(name[4..8].try_into().unwrap())))
        };
        let (one, one_port) = ok!(hear(1));
        let (other, other_port) = ok!(hear(3));
        check!(one_port != other_port);
        let send = |data: &[u8], port: u32, groups: u32| {
            sys!(SYS_sendto, one, data, data.len(), 0, &address(port, groups)[..], 12)
        };
        let take = |fd: i32| recv_from(fd, MSG_DONTWAIT);
        fails!(take(one), EAGAIN);
        // To a group: all but the sender hear it.
        eq!(ok!(send(b"second", 0, 2)), 6);
        eq!(ok!(take(other)), (b"second".to_vec(), address(one_port, 2)));
        eq!(ok!(send(b"first", 0, 1)), 5);
        eq!(ok!(take(other)), (b"first".to_vec(), address(one_port, 1)));
        fails!(take(one), EAGAIN);
        // To one.
        eq!(ok!(send(b"direct", other_port, 0)), 6);
        eq!(ok!(take(other)), (b"direct".to_vec(), address(one_port, 0)));
        eq!(ok!(send(b"self", one_port, 0)), 4);
        eq!(ok!(take(one)), (b"self".to_vec(), address(one_port, 0)));
        fails!(send(b"nobody", 0x7fff_fff0, 0), ECONNREFUSED);
        // Of the groups the first counts.
        ok!(set_option(other, SOL_NETLINK, NETLINK_PKTINFO, 1));
        eq!(ok!(send(b"both", 0, 3)), 4);
        eq!(ok!(take(other)), (b"both".to_vec(), address(one_port, 1)));
        fails!(take(other), EAGAIN);
        ok!(set_option(one, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, 2));
        eq!(ok!(send(b"more", 0, 2)), 4);
        eq!(ok!(take(other)), (b"more".to_vec(), address(one_port, 2)));
        fails!(take(one), EAGAIN);
        // Without capabilities.
        let mut header = [0u8; 8];
        header[..4].copy_from_slice(&0x2008_0522_u32.to_ne_bytes());
        ok!(sys!(SYS_capset, &mut header, &[0u8; 24][..]));
        fails!(send(b"user", 0, 2), EPERM);
        fails!(send(b"user", other_port, 0), EPERM);
        Ok(())
    })
}

fn groups_hear_of_changes() -> Outcome {
    const CREATE: u16 = 0x400 | 0x200;
    in_child(|| {
        ok!(sys!(SYS_unshare, libc::CLONE_NEWUSER | libc::CLONE_NEWNET));
        let hear = |group: u32| -> Result<i32, i32> {
            let fd = open()?;
            bind(fd, &address(0, 1 << (group - 1)))?;
            Ok(fd)
        };
        let (links, four, six) = (ok!(hear(1)), ok!(hear(5)), ok!(hear(9)));
        // Waits for a message about an address.
        let addr = |fd: i32| -> Result<(u16, Vec<u8>), i32> {
            let all = messages(fd)?;
            Ok((all[0].0, attribute(&all[0].1, 8, 1).ok_or(libc::EBADMSG)?))
        };
        // Waits until the interface is said to be up or down.
        let flags = |up: bool| -> Result<(), i32> {
            loop {
                let all = messages(links)?;
                let (kind, link) = all.last().ok_or(libc::EBADMSG)?;
                if *kind != RTM_NEWLINK {
                    return Err(libc::EBADMSG);
                }
                if (link[8] & 1 != 0) == up {
                    return Ok(());
                }
            }
        };
        let fd = ok!(open());
        let set_up = |up: u32| -> Result<i32, i32> {
            let numbers = [0_u32, 1, up, 1];
            let head: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
            request(fd, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &head)?;
            error(fd)
        };
        eq!(ok!(set_up(1)), 0);
        ok!(flags(true));
        eq!(ok!(addr(four)), (RTM_NEWADDR, LOCAL.to_vec()));
        eq!(ok!(addr(six)), (RTM_NEWADDR, local6().to_vec()));
        let ip = [10, 9, 0, 1];
        eq!(ok!(change_addr(fd, RTM_NEWADDR, CREATE, 24, &ip)), 0);
        eq!(ok!(addr(four)), (RTM_NEWADDR, ip.to_vec()));
        // What fails changes nothing.
        eq!(ok!(change_addr(fd, RTM_NEWADDR, CREATE, 24, &ip)), libc::EEXIST);
        eq!(ok!(change_addr(fd, RTM_DELADDR, 0, 24, &ip)), 0);
        // Who has sent it, and to which group.
        let (_, from) = ok!(recv_from(four, MSG_PEEK));
        eq!(from, address(0, 1 << 4));
        eq!(ok!(addr(four)), (RTM_DELADDR, ip.to_vec()));
        // By ioctl(2).
        let mut ifreq = [0_u8; 40];
        ifreq[..2].copy_from_slice(b"lo");
        let inet = ok!(socket(AF_INET, SOCK_DGRAM));
        ok!(sys!(SYS_ioctl, inet, 0x8914, &ifreq));
        ok!(flags(false));
        eq!(ok!(addr(six)), (RTM_DELADDR, local6().to_vec()));
        for fd in [four, six] {
            fails!(recv(fd, &mut [0; 64], MSG_DONTWAIT), EAGAIN);
        }
        Ok(())
    })
}

guest_tests::cases!(
    groups_hear_of_changes,
    sockets_have_names,
    links_are_listed,
    addresses_are_listed,
    routes_are_listed,
    errors_and_acknowledgements,
    sockets_are_listed,
    loopback_has_addresses,
    bound_to_ipv6_alone,
    listeners_tell_their_backlog,
    interfaces_by_request,
    programs_tell_each_other_of_devices,
);
