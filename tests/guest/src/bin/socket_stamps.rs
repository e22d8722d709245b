//! When datagrams were received and sent: `SO_TIMESTAMP` and its like, `SO_TIMESTAMPING`.

use guest_tests::mem::zeroed;
use guest_tests::net::{
    LOCAL, addr4, addr6, bind, connect, listener, local6, mapped, name_of, option, poll, send,
    send_with, set_option, socket, split_control, wait_for,
};
use guest_tests::proc::until;
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    AF_INET, AF_INET6, AF_UNIX, MSG_DONTWAIT, MSG_ERRQUEUE, POLLERR, POLLIN, POLLOUT, SO_TIMESTAMP,
    SO_TIMESTAMPING, SO_TIMESTAMPNS, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET,
};

const SO_TIMESTAMP_NEW: i32 = 63;
const SO_TIMESTAMPNS_NEW: i32 = 64;
const SO_TIMESTAMPING_NEW: i32 = 65;

const TX_HARDWARE: i32 = 1;
const TX_SOFTWARE: i32 = 1 << 1;
const RX_SOFTWARE: i32 = 1 << 3;
const SOFTWARE: i32 = 1 << 4;
const OPT_ID: i32 = 1 << 7;
const TX_SCHED: i32 = 1 << 8;
const TX_ACK: i32 = 1 << 9;
const OPT_TSONLY: i32 = 1 << 11;
const OPT_STATS: i32 = 1 << 12;
const BIND_PHC: i32 = 1 << 15;
const OPT_ID_TCP: i32 = 1 << 16;

/// A connected socket, and the one that it sends to.
fn pair(ip: &str) -> Result<(i32, i32), i32> {
    let (family, addr) = match ip {
        "4" => (AF_INET, addr4(LOCAL, 0)),
        "6" => (AF_INET6, addr6(local6(), 0)),
        _ => (AF_INET6, addr6(mapped(LOCAL), 0)),
    };
    let (one, other) = (socket(family, SOCK_DGRAM)?, socket(family, SOCK_DGRAM)?);
    bind(other, &addr)?;
    connect(one, &name_of(other)?)?;
    Ok((one, other))
}

/// A control message: level, type, content.
type Control = (i32, i32, Vec<u8>);

fn receive(fd: i32, flags: i32) -> Result<(Vec<u8>, Vec<Control>, usize, i32), i32> {
    let (mut data, mut room, mut name) = ([0_u8; 256], [0_u64; 64], [0_u8; 128]);
    let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    let mut header: libc::msghdr = zeroed();
    header.msg_iov = &mut iov;
    header.msg_iovlen = 1;
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = name.len() as u32;
    header.msg_control = room.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&room) as _;
    let n = sys!(SYS_recvmsg, fd, &mut header, flags)?;
    let messages = split_control(&room, header.msg_controllen as usize);
    Ok((data[..n].to_vec(), messages, header.msg_namelen as usize, header.msg_flags))
}

/// Whether a stamp of `SO_TIMESTAMPING` has a time of software that is not long ago, and no other.
fn is_recent(data: &[u8]) -> bool {
    let mut now = [0_i64; 2];
    let asked = sys!(SYS_clock_gettime, libc::CLOCK_REALTIME, &mut now);
    let numbers: Vec<i64> =
        data.chunks(8).map(|chunk| i64::from_ne_bytes(chunk.try_into().unwrap())).collect();
    asked.is_ok()
        && numbers.len() == 6
        && (now[0] - 100..=now[0]).contains(&numbers[0])
        && (0..1_000_000_000).contains(&numbers[1])
        && numbers[2..] == [0; 4]
}

fn options_show_what_was_set() -> Outcome {
    let fd = ok!(socket(AF_INET, SOCK_DGRAM));
    let names = [SO_TIMESTAMP, SO_TIMESTAMPNS, SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW];
    let all = || names.map(|name| option(fd, SOL_SOCKET, name).unwrap_or(-1));
    for (name, value, wanted) in [
        (SO_TIMESTAMP, 1, [1, 0, 0, 0]),
        (SO_TIMESTAMPNS, 7, [0, 1, 0, 0]),
        (SO_TIMESTAMPNS_NEW, 1, [0, 0, 1, 1]),
        (SO_TIMESTAMP_NEW, 1, [0, 0, 1, 0]),
        // Any of them ends all.
        (SO_TIMESTAMPNS, 0, [0, 0, 0, 0]),
        (SO_TIMESTAMP, 1, [1, 0, 0, 0]),
        (SO_TIMESTAMPING_NEW, SOFTWARE, [0, 0, 1, 0]),
        (SO_TIMESTAMPING, SOFTWARE | TX_HARDWARE, [1, 0, 0, 0]),
    ] {
        ok!(set_option(fd, SOL_SOCKET, name, value));
        eq!(all(), wanted);
    }
    let mut value = [-1; 4];
    let mut len = 16;
    ok!(sys!(SYS_getsockopt, fd, SOL_SOCKET, SO_TIMESTAMPING, &mut value, &mut len));
    eq!((len, value), (8, [SOFTWARE | TX_HARDWARE, 0, -1, -1]));
    eq!(ok!(option(fd, SOL_SOCKET, SO_TIMESTAMPING_NEW)), 0);
    ok!(set_option(fd, SOL_SOCKET, SO_TIMESTAMPING_NEW, SOFTWARE));
    eq!(ok!(option(fd, SOL_SOCKET, SO_TIMESTAMPING_NEW)), SOFTWARE);
    eq!(ok!(option(fd, SOL_SOCKET, SO_TIMESTAMPING)), SOFTWARE);
    Ok(())
}

fn flags_go_together_or_not() -> Outcome {
    let fd = ok!(socket(AF_INET, SOCK_DGRAM));
    for flags in [1 << 24, -1, OPT_ID_TCP, OPT_STATS] {
        fails!(set_option(fd, SOL_SOCKET, SO_TIMESTAMPING, flags), EINVAL);
    }
    fails!(set_option(fd, SOL_SOCKET, SO_TIMESTAMPING, BIND_PHC), EOPNOTSUPP);
    eq!(ok!(option(fd, SOL_SOCKET, SO_TIMESTAMPING)), 0);
    ok!(set_option(fd, SOL_SOCKET, SO_TIMESTAMPING, OPT_STATS | OPT_TSONLY));
    // The bytes of a stream have numbers from when there is one.
    let fd = ok!(socket(AF_INET, SOCK_STREAM));
    fails!(set_option(fd, SOL_SOCKET, SO_TIMESTAMPING, OPT_ID), EINVAL);
    let (server, addr) = ok!(listener(AF_INET, 1));
    fails!(set_option(server, SOL_SOCKET, SO_TIMESTAMPING, OPT_ID), EINVAL);
    ok!(connect(fd, &addr));
    ok!(set_option(fd, SOL_SOCKET, SO_TIMESTAMPING, OPT_ID | OPT_ID_TCP));
    let fd = ok!(socket(AF_UNIX, SOCK_DGRAM));
    ok!(set_option(fd, SOL_SOCKET, SO_TIMESTAMPING, OPT_ID));
    Ok(())
}

fn received_datagrams_are_stamped() -> Outcome {
    for ip in ["4", "6", "4 in 6"] {
        let (one, other) = ok!(pair(ip));
        let take = || -> Result<Vec<Control>, i32> {
            send(one, b"x", 0)?;
            wait_for(other, POLLIN)?;
            Ok(receive(other, MSG_DONTWAIT)?.1)
        };
        eq!(ok!(take()), []);
        ok!(set_option(other, SOL_SOCKET, SO_TIMESTAMPING, RX_SOFTWARE));
        eq!(ok!(take()), []);
        for (name, unit) in
            [(SO_TIMESTAMPING, SO_TIMESTAMPNS), (SO_TIMESTAMPING_NEW, SO_TIMESTAMPNS_NEW)]
        {
            ok!(set_option(other, SOL_SOCKET, name, RX_SOFTWARE | SOFTWARE));
            // Linux begins to take times a little later.
            let mut last = Ok(Vec::new());
            check!(until(|| {
                last = take();
                last.as_ref().is_ok_and(|messages| !messages.is_empty())
            }));
            let messages = ok!(last);
            eq!(messages.len(), 1);
            eq!((messages[0].0, messages[0].1), (SOL_SOCKET, name));
            check!(is_recent(&messages[0].2));
            // The other options go before it.
            ok!(set_option(other, SOL_SOCKET, unit, 1));
            let messages = ok!(take());
            eq!(messages.iter().map(|message| message.1).collect::<Vec<_>>(), [unit, name]);
            eq!(messages[0].2[..], messages[1].2[..16]);
            ok!(set_option(other, SOL_SOCKET, unit, 0));
        }
    }
    Ok(())
}

/// Receives what says that something was sent: data, what happened, its number, the times.
fn stamp(fd: i32) -> Result<(Vec<u8>, u32, u32, Option<Vec<u8>>), String> {
    wait_for(fd, POLLERR).map_err(|error| format!("no error: {error}"))?;
    let (data, mut messages, n_name, flags) =
        receive(fd, MSG_ERRQUEUE).map_err(|error| format!("nothing there: {error}"))?;
    let (level, kind, about) = messages.pop().ok_or("no message")?;
    let is_known = matches!((level, kind, about.len()), (0, 11, 32) | (41, 25, 44));
    let number = |at: usize| u32::from_ne_bytes(about[at..at + 4].try_into().unwrap());
    if !is_known || n_name != 0 || flags != MSG_ERRQUEUE {
        return Err(format!("{level} {kind} {about:?} {n_name} {flags:#x}"));
    }
    if about[..8] != [42, 0, 0, 0, 4, 0, 0, 0] {
        return Err(format!("another error: {about:?}"));
    }
    let times = messages.pop().map(|message| message.2);
    Ok((data, number(8), number(12), times))
}

fn sent_datagrams_are_stamped() -> Outcome {
    for (ip, n_headers) in [("4", 14 + 20 + 8), ("6", 14 + 40 + 8), ("4 in 6", 14 + 20 + 8)] {
        let (one, _other) = ok!(pair(ip));
        let set = |flags| set_option(one, SOL_SOCKET, SO_TIMESTAMPING, flags);
        ok!(set(TX_SCHED | TX_SOFTWARE | SOFTWARE | OPT_ID));
        for number in 0..2 {
            eq!(ok!(send(one, b"hello", 0)), 5);
            for event in [1, 0] {
                let (data, what, id, times) = stamp(one)?;
                eq!((what, id), (event, number));
                eq!(data.len(), n_headers + 5);
                eq!(data[n_headers..], *b"hello");
                check!(times.is_some_and(|times| is_recent(&times)));
            }
            fails!(receive(one, MSG_ERRQUEUE), EAGAIN);
            eq!(ok!(poll(one, POLLIN | POLLOUT)), POLLOUT);
        }
        // Numbers begin anew where they have been turned off.
        ok!(set(TX_SOFTWARE | OPT_TSONLY | SOFTWARE));
        eq!(ok!(send(one, b"hello", 0)), 5);
        let (data, what, id, times) = stamp(one)?;
        eq!((data.len(), what, id, times.is_some()), (0, 0, 0, true));
        ok!(set(TX_SOFTWARE | OPT_TSONLY | OPT_ID));
        for number in 0..2 {
            eq!(ok!(send(one, b"hello", 0)), 5);
            let (data, what, id, times) = stamp(one)?;
            // Nobody has asked to see the times.
            eq!((data.len(), what, id, times), (0, 0, number, None));
        }
        // Nothing here has hardware that stamps, and nobody acknowledges a datagram.
        ok!(set(TX_HARDWARE | TX_ACK | OPT_TSONLY | SOFTWARE));
        eq!(ok!(send(one, b"hello", 0)), 5);
        fails!(receive(one, MSG_ERRQUEUE), EAGAIN);
    }
    Ok(())
}

fn one_datagram_is_stamped() -> Outcome {
    let (one, _other) = ok!(pair("4"));
    ok!(set_option(one, SOL_SOCKET, SO_TIMESTAMPING, OPT_TSONLY | SOFTWARE | OPT_ID));
    eq!(ok!(send(one, b"x", 0)), 1);
    for (number, kind) in [SO_TIMESTAMPING, SO_TIMESTAMPING_NEW].into_iter().enumerate() {
        eq!(ok!(send_with(one, b"asked", SOL_SOCKET, kind, &TX_SOFTWARE.to_ne_bytes())), 5);
        let (data, what, id, times) = stamp(one)?;
        eq!((data.len(), what, id, times.is_some()), (0, 0, number as u32, true));
        for flags in [SOFTWARE, -1, OPT_ID] {
            fails!(send_with(one, b"asked", SOL_SOCKET, kind, &flags.to_ne_bytes()), EINVAL);
        }
        fails!(send_with(one, b"asked", SOL_SOCKET, kind, &[2, 0]), EINVAL);
    }
    // It takes precedence over what the option says.
    ok!(set_option(one, SOL_SOCKET, SO_TIMESTAMPING, OPT_TSONLY | SOFTWARE | TX_SOFTWARE));
    eq!(ok!(send_with(one, b"asked", SOL_SOCKET, SO_TIMESTAMPING, &[0; 4])), 5);
    fails!(receive(one, MSG_ERRQUEUE), EAGAIN);
    let mut fds = [0; 2];
    ok!(sys!(SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, &mut fds));
    fails!(
        send_with(fds[0], b"asked", SOL_SOCKET, SO_TIMESTAMPING, &TX_SOFTWARE.to_ne_bytes()),
        EINVAL
    );
    Ok(())
}

guest_tests::cases!(
    options_show_what_was_set,
    flags_go_together_or_not,
    received_datagrams_are_stamped,
    sent_datagrams_are_stamped,
    one_datagram_is_stamped,
);
