//! What sockets hold back until more is sent: `MSG_MORE`, `TCP_CORK`, `UDP_CORK`, `SPLICE_F_MORE`.

use std::time::{Duration, Instant};

use guest_tests::fs::{close, pipe, write};
use guest_tests::net::{
    LOCAL, accept, addr4, addr6, bind, connect, connection, listener, local6, mapped, name_of,
    option, poll, recv, recv_from, send, set_option, socket, wait_for,
};
use guest_tests::proc::{End, child, in_child, until, until_asleep, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    AF_INET, AF_INET6, CLONE_NEWNET, CLONE_NEWUSER, FIONREAD, IPPROTO_IP, IPPROTO_UDP,
    MSG_DONTWAIT, MSG_MORE, MSG_OOB, POLLIN, SHUT_WR, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, SOL_TCP,
    SPLICE_F_MORE, TCP_CORK, TCP_NODELAY, TIOCOUTQ, UDP_CORK,
};

/// Runs a body again that has taken so long that what is held back may have left meanwhile.
fn promptly(body: impl Fn() -> Outcome) -> Outcome {
    for _ in 0..100 {
        let started = Instant::now();
        let outcome = body();
        if started.elapsed() < Duration::from_millis(120) {
            return outcome;
        }
    }
    Err(String::from("the machine is too slow"))
}

/// Asks for a number: bytes that can be read, or that the peer does not have.
fn ask(fd: i32, request: i32) -> Result<i32, i32> {
    let mut n = 0i32;
    sys!(SYS_ioctl, fd, request, &mut n)?;
    Ok(n)
}

/// Checks that a socket gets to have this many bytes to read, and has no more.
fn gets(fd: i32, n: i32) -> Outcome {
    check!(until(|| ask(fd, FIONREAD) == Ok(n)));
    Ok(())
}

fn more_is_held_back() -> Outcome {
    for family in [AF_INET, AF_INET6] {
        promptly(|| {
            let (one, other) = ok!(connection(family));
            eq!(ok!(send(one, b"ab", MSG_MORE)), 2);
            eq!(ok!(send(one, b"c", MSG_MORE)), 1);
            eq!(ok!(ask(other, FIONREAD)), 0);
            eq!(ok!(poll(other, POLLIN)), 0);
            fails!(recv(other, &mut [0; 8], MSG_DONTWAIT), EAGAIN);
            eq!(ok!(ask(one, TIOCOUTQ)), 3);
            eq!(ok!(send(one, b"d", 0)), 1);
            gets(other, 4)?;
            let mut buf = [0; 8];
            eq!(ok!(recv(other, &mut buf, 0)), 4);
            eq!(&buf[..4], b"abcd");
            ok!(close(one));
            ok!(close(other));
            Ok(())
        })?;
    }
    Ok(())
}

fn it_leaves_in_the_end() -> Outcome {
    let (one, other) = ok!(connection(AF_INET));
    let pid = ok!(child(|| i32::from(recv(other, &mut [0; 8], 0) != Ok(2))));
    check!(until_asleep(pid));
    let started = Instant::now();
    eq!(ok!(send(one, b"ab", MSG_MORE)), 2);
    eq!(ok!(wait(pid)), End::Code(0));
    check!(started.elapsed() > Duration::from_millis(100));
    let (one, other) = ok!(connection(AF_INET));
    ok!(set_option(one, SOL_TCP, TCP_CORK, 1));
    let started = Instant::now();
    eq!(ok!(send(one, b"ab", 0)), 2);
    ok!(wait_for(other, POLLIN));
    check!(started.elapsed() > Duration::from_millis(100));
    // The end of the stream takes all that comes before it along.
    promptly(|| {
        let (one, other) = ok!(connection(AF_INET));
        eq!(ok!(send(one, b"ab", MSG_MORE)), 2);
        ok!(sys!(SYS_shutdown, one, SHUT_WR));
        gets(other, 2)?;
        let mut buf = [0; 8];
        eq!(ok!(recv(other, &mut buf, 0)), 2);
        eq!(ok!(recv(other, &mut buf, 0)), 0);
        let (one, other) = ok!(connection(AF_INET));
        eq!(ok!(send(one, b"ab", MSG_MORE)), 2);
        ok!(close(one));
        gets(other, 2)
    })
}

fn segments_are_not_held_back() -> Outcome {
    let data = vec![7; 70_000];
    for n in [40_000, 70_000] {
        promptly(|| {
            let (one, other) = ok!(connection(AF_INET));
            eq!(ok!(send(one, &data[..n], MSG_MORE)), n);
            gets(other, n as i32)?;
            ok!(close(one));
            ok!(close(other));
            Ok(())
        })?;
    }
    // Whoever has to wait for room does not wait for ever.
    let (one, other) = ok!(connection(AF_INET));
    let pid = ok!(child(|| {
        let mut buf = vec![0; 1 << 16];
        let mut left = 100 * 70_001;
        while left > 0 {
            match recv(other, &mut buf, 0) {
                Ok(n) if n > 0 => left -= n,
                _ => return 1,
            }
        }
        0
    }));
    for _ in 0..100 {
        let mut done = 0;
        while done < data.len() {
            done += ok!(send(one, &data[done..], MSG_MORE));
        }
        eq!(ok!(send(one, b"x", MSG_MORE)), 1);
    }
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn corked_streams() -> Outcome {
    promptly(|| {
        let (one, other) = ok!(connection(AF_INET));
        eq!(ok!(option(one, SOL_TCP, TCP_CORK)), 0);
        ok!(set_option(one, SOL_TCP, TCP_CORK, 7));
        eq!(ok!(option(one, SOL_TCP, TCP_CORK)), 1);
        eq!(ok!(send(one, b"a", 0)), 1);
        eq!(ok!(write(one, b"b")), 1);
        eq!(ok!(ask(other, FIONREAD)), 0);
        // An acknowledgement changes nothing.
        eq!(ok!(send(other, b"hello", 0)), 5);
        gets(one, 5)?;
        eq!(ok!(ask(other, FIONREAD)), 0);
        // This lets go what there is, and nothing later.
        ok!(set_option(one, SOL_TCP, TCP_NODELAY, 1));
        gets(other, 2)?;
        eq!(ok!(send(one, b"c", 0)), 1);
        eq!(ok!(ask(other, FIONREAD)), 2);
        ok!(set_option(one, SOL_TCP, TCP_CORK, 0));
        gets(other, 3)?;
        eq!(ok!(send(one, b"d", 0)), 1);
        gets(other, 4)?;
        ok!(close(one));
        ok!(close(other));
        Ok(())
    })
}

fn others_let_go() -> Outcome {
    promptly(|| {
        // The option counts for what is sent later.
        let (one, other) = ok!(connection(AF_INET));
        ok!(set_option(one, SOL_TCP, TCP_NODELAY, 1));
        eq!(ok!(send(one, b"a", MSG_MORE)), 1);
        eq!(ok!(ask(other, FIONREAD)), 0);
        ok!(set_option(one, SOL_TCP, TCP_NODELAY, 0));
        eq!(ok!(ask(other, FIONREAD)), 0);
        ok!(set_option(one, SOL_TCP, TCP_CORK, 0));
        gets(other, 1)?;
        let (one, other) = ok!(connection(AF_INET));
        eq!(ok!(send(one, b"a", MSG_MORE)), 1);
        eq!(ok!(send(one, b"", 0)), 0);
        eq!(ok!(ask(other, FIONREAD)), 0);
        // An acknowledgement comes with what the peer sends.
        eq!(ok!(send(other, b"hello", 0)), 5);
        gets(other, 1)?;
        let (one, other) = ok!(connection(AF_INET));
        eq!(ok!(send(one, b"a", MSG_MORE)), 1);
        eq!(ok!(send(one, b"!", MSG_OOB)), 1);
        gets(other, 1)
    })
}

fn offspring_is_corked() -> Outcome {
    promptly(|| {
        let (server, addr) = ok!(listener(AF_INET, 1));
        ok!(set_option(server, SOL_TCP, TCP_CORK, 1));
        let client = ok!(socket(AF_INET, SOCK_STREAM));
        ok!(connect(client, &addr));
        let accepted = ok!(accept(server, 0));
        eq!(ok!(option(accepted, SOL_TCP, TCP_CORK)), 1);
        eq!(ok!(send(accepted, b"a", 0)), 1);
        eq!(ok!(ask(client, FIONREAD)), 0);
        ok!(set_option(accepted, SOL_TCP, TCP_CORK, 0));
        gets(client, 1)
    })
}

fn splice(from: i32, to: i32, n: usize, flags: u32) -> Result<usize, i32> {
    sys!(SYS_splice, from, 0, to, 0, n, flags)
}

fn spliced_streams() -> Outcome {
    promptly(|| {
        let (one, other) = ok!(connection(AF_INET));
        let (output, input) = ok!(pipe(0));
        eq!(ok!(write(input, b"abcd")), 4);
        eq!(ok!(splice(output, one, 2, SPLICE_F_MORE)), 2);
        eq!(ok!(ask(other, FIONREAD)), 0);
        eq!(ok!(splice(output, one, 2, 0)), 2);
        gets(other, 4)?;
        for fd in [one, other, output, input] {
            ok!(close(fd));
        }
        Ok(())
    })
}

/// A bound socket for datagrams, and its address.
fn bound(family: i32) -> Result<(i32, Vec<u8>), i32> {
    let fd = socket(family, SOCK_DGRAM)?;
    let addr = if family == AF_INET { addr4(LOCAL, 0) } else { addr6(local6(), 0) };
    bind(fd, &addr)?;
    Ok((fd, name_of(fd)?))
}

fn send_part(fd: i32, data: &[u8], flags: i32, addr: &[u8]) -> Result<usize, i32> {
    sys!(SYS_sendto, fd, data, data.len(), flags, addr, addr.len())
}

/// Receives a datagram, waiting.
fn take(fd: i32) -> Result<Vec<u8>, i32> {
    wait_for(fd, POLLIN)?;
    recv_from(fd, MSG_DONTWAIT).map(|(data, _)| data)
}

fn first_part_says_where() -> Outcome {
    for family in [AF_INET, AF_INET6] {
        let (one, _) = ok!(bound(family));
        let (other, addr) = ok!(bound(family));
        let (third, other_addr) = ok!(bound(family));
        fails!(send(one, b"x", MSG_MORE), EDESTADDRREQ);
        eq!(ok!(send_part(one, b"ab", MSG_MORE, &addr)), 2);
        eq!(ok!(send(one, b"", MSG_MORE)), 0);
        eq!(ok!(send_part(one, b"cd", 0, &other_addr)), 2);
        eq!(ok!(take(other)), b"abcd");
        eq!(ok!(poll(third, POLLIN)), 0);
        eq!(ok!(send_part(one, b"3", 0, &other_addr)), 1);
        eq!(ok!(take(third)), b"3");
        // An empty part is a part.
        eq!(ok!(send_part(one, b"", MSG_MORE, &addr)), 0);
        eq!(ok!(send(one, b"4", 0)), 1);
        eq!(ok!(take(other)), b"4");
        // An address without a port is none, but nobody looks at that of a later part.
        if family == AF_INET {
            fails!(send_part(one, b"x", MSG_MORE, &addr4(LOCAL, 0)), EINVAL);
            eq!(ok!(send_part(one, b"5", MSG_MORE, &addr)), 1);
            eq!(ok!(send_part(one, b"6", 0, &addr4([240, 0, 0, 1], 0))), 1);
            eq!(ok!(take(other)), b"56");
        } else {
            fails!(send_part(one, b"x", MSG_MORE, &addr4(LOCAL, 1)), ENETUNREACH);
            eq!(ok!(send_part(one, b"5", MSG_MORE, &addr)), 1);
            fails!(send_part(one, b"x", 0, &addr[..8]), EINVAL);
            fails!(send_part(one, b"x", 0, &addr6(mapped(LOCAL), 1)), ENETUNREACH);
            eq!(ok!(send_part(one, b"6", 0, &addr6([0x20; 16], 0))), 1);
            eq!(ok!(take(other)), b"56");
        }
        eq!(ok!(poll(other, POLLIN)), 0);
        eq!(ok!(poll(third, POLLIN)), 0);
    }
    Ok(())
}

fn too_much_is_lost() -> Outcome {
    let (one, _) = ok!(bound(AF_INET));
    let (other, addr) = ok!(bound(AF_INET));
    ok!(connect(one, &addr));
    let large = vec![1; 40_000];
    eq!(ok!(send(one, &large, MSG_MORE)), 40_000);
    fails!(send(one, &large, 0), EMSGSIZE);
    eq!(ok!(send(one, b"next", 0)), 4);
    eq!(ok!(take(other)), b"next");
    ok!(set_option(one, IPPROTO_UDP, UDP_CORK, 1));
    eq!(ok!(send(one, &large, 0)), 40_000);
    // What is too long by itself is never looked at.
    fails!(send(one, &vec![0; 70_000], 0), EMSGSIZE);
    eq!(ok!(send(one, &large[..25_507], 0)), 25_507);
    ok!(set_option(one, IPPROTO_UDP, UDP_CORK, 0));
    ok!(wait_for(other, POLLIN));
    eq!(ok!(recv(other, &mut vec![0; 66_000], MSG_DONTWAIT)), 65_507);
    // What has not been sent is gone with the socket.
    eq!(ok!(send(one, b"lost", MSG_MORE)), 4);
    ok!(close(one));
    let (one, _) = ok!(bound(AF_INET));
    eq!(ok!(send_part(one, b"kept", 0, &addr)), 4);
    eq!(ok!(take(other)), b"kept");
    Ok(())
}

fn spliced_datagrams() -> Outcome {
    let (one, _) = ok!(bound(AF_INET));
    let (other, addr) = ok!(bound(AF_INET));
    ok!(connect(one, &addr));
    let (output, input) = ok!(pipe(0));
    eq!(ok!(write(input, b"abcd")), 4);
    eq!(ok!(splice(output, one, 2, SPLICE_F_MORE)), 2);
    eq!(ok!(splice(output, one, 2, 0)), 2);
    eq!(ok!(take(other)), b"abcd");
    eq!(ok!(poll(other, POLLIN)), 0);
    Ok(())
}

fn raw_packets() -> Outcome {
    /// A protocol for experiments (RFC 3692).
    const EXPERIMENT: i32 = 253;
    const SIOCSIFFLAGS: u32 = 0x8914;
    const IP_HDRINCL: i32 = 3;
    in_child(|| {
        ok!(sys!(SYS_unshare, CLONE_NEWUSER | CLONE_NEWNET));
        let fd = ok!(socket(AF_INET, SOCK_DGRAM));
        let mut request = [0_u8; 40];
        request[..2].copy_from_slice(b"lo");
        request[16] = 1;
        ok!(sys!(SYS_ioctl, fd, SIOCSIFFLAGS, &request));
        for (family, addr, n_head) in
            [(AF_INET, addr4(LOCAL, 0), 20), (AF_INET6, addr6(local6(), 0), 0)]
        {
            let raw = || sys!(SYS_socket, family, SOCK_RAW, EXPERIMENT).map(|fd| fd as i32);
            let (one, other) = (ok!(raw()), ok!(raw()));
            eq!(ok!(send_part(one, b"ab", MSG_MORE, &addr)), 2);
            fails!(send(one, b"x", MSG_MORE), EDESTADDRREQ);
            eq!(ok!(poll(other, POLLIN)), 0);
            eq!(ok!(send_part(one, b"cd", 0, &addr)), 2);
            eq!(&ok!(take(other))[n_head..], b"abcd");
            let large = vec![1; 40_000];
            eq!(ok!(send_part(one, &large, MSG_MORE, &addr)), 40_000);
            fails!(send_part(one, &large, MSG_MORE, &addr), EMSGSIZE);
            eq!(ok!(send_part(one, b"ef", 0, &addr)), 2);
            eq!(&ok!(take(other))[n_head..], b"ef");
            if family == AF_INET {
                fails!(send_part(one, &vec![0; 65_516], 0, &addr), EMSGSIZE);
                // Whole packets are not put together.
                ok!(set_option(one, IPPROTO_IP, IP_HDRINCL, 1));
                let mut packet = [0; 24];
                packet[0] = 0x45;
                packet[8] = 64;
                packet[9] = EXPERIMENT as u8;
                packet[16..20].copy_from_slice(&LOCAL);
                eq!(ok!(send_part(one, &packet, MSG_MORE, &addr)), 24);
                eq!(ok!(take(other)).len(), 24);
            }
        }
        Ok(())
    })
}

guest_tests::cases!(
    more_is_held_back,
    it_leaves_in_the_end,
    segments_are_not_held_back,
    corked_streams,
    others_let_go,
    offspring_is_corked,
    spliced_streams,
    first_part_says_where,
    too_much_is_lost,
    spliced_datagrams,
    raw_packets,
);
