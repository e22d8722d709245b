//! Ports of TCP: who may have one, how long it is kept, and what is told of it afterwards.

use std::time::{Duration, Instant};

use guest_tests::fs::close;
use guest_tests::net::{
    LOCAL, accept, addr4, addr6, bind, connect, listen, listener, local6, mapped, name_of, poll,
    port_of, quiet_port, set_option, settles_at, socket, wait_for,
};
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    AF_INET, AF_INET6, POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP, SO_LINGER,
    SO_REUSEADDR, SO_REUSEPORT, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET,
};

const ALL: i16 = POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP | POLLPRI;

fn reset(fd: i32) -> Result<(), i32> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &linger, 8)?;
    close(fd)
}

fn ports_conflict() -> Outcome {
    let (first, addr) = ok!(listener(AF_INET, 1));
    let port = port_of(&addr);
    fails!(bind(ok!(socket(AF_INET, SOCK_STREAM)), &addr), EADDRINUSE);
    fails!(bind(ok!(socket(AF_INET, SOCK_STREAM)), &addr4([0; 4], port)), EADDRINUSE);
    fails!(bind(ok!(socket(AF_INET6, SOCK_STREAM)), &addr6([0; 16], port)), EADDRINUSE);
    fails!(bind(ok!(socket(AF_INET6, SOCK_STREAM)), &addr6(mapped(LOCAL), port)), EADDRINUSE);
    ok!(bind(ok!(socket(AF_INET, SOCK_STREAM)), &addr4([127, 0, 0, 2], port)));
    ok!(bind(ok!(socket(AF_INET6, SOCK_STREAM)), &addr6(local6(), port)));
    // Another protocol has ports of its own.
    ok!(bind(ok!(socket(AF_INET, SOCK_DGRAM)), &addr));
    // SO_REUSEADDR on both does not help beside a socket that listens.
    let second = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(set_option(first, SOL_SOCKET, SO_REUSEADDR, 1));
    ok!(set_option(second, SOL_SOCKET, SO_REUSEADDR, 1));
    fails!(bind(second, &addr), EADDRINUSE);
    ok!(close(first));
    ok!(bind(second, &addr));
    let third = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(set_option(third, SOL_SOCKET, SO_REUSEADDR, 1));
    ok!(bind(third, &addr));
    ok!(listen(second, 1));
    fails!(listen(third, 1), EADDRINUSE);
    Ok(())
}

fn reuse_port_shares() -> Outcome {
    let (first, second) = (ok!(socket(AF_INET, SOCK_STREAM)), ok!(socket(AF_INET, SOCK_STREAM)));
    ok!(set_option(first, SOL_SOCKET, SO_REUSEPORT, 1));
    ok!(set_option(second, SOL_SOCKET, SO_REUSEPORT, 1));
    ok!(bind(first, &addr4(LOCAL, 0)));
    let addr = ok!(name_of(first));
    ok!(bind(second, &addr));
    ok!(listen(first, 64));
    ok!(listen(second, 64));
    let mut clients = Vec::new();
    for _ in 0..64 {
        let client = ok!(socket(AF_INET, SOCK_STREAM));
        ok!(connect(client, &addr));
        clients.push(client);
    }
    // Both get some.
    ok!(wait_for(first, POLLIN));
    ok!(wait_for(second, POLLIN));
    eq!(ok!(poll(first, POLLIN)), POLLIN);
    eq!(ok!(poll(second, POLLIN)), POLLIN);
    Ok(())
}

fn a_reset_connection_is_not_remembered() -> Outcome {
    let (listener, server) = ok!(listener(AF_INET, 4));
    let client = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(bind(client, &addr4(LOCAL, 0)));
    let addr = ok!(name_of(client));
    ok!(connect(client, &server));
    ok!(close(client));
    // Nobody has taken it from the queue: its end is a reset, and nothing waits for late packets.
    ok!(close(listener));
    ok!(bind(ok!(socket(AF_INET, SOCK_STREAM)), &addr));
    Ok(())
}

fn port_is_kept_after_an_active_close() -> Outcome {
    let (server, addr) = ok!(listener(AF_INET, 1));
    let client = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(connect(client, &addr));
    let accepted = ok!(accept(server, 0));
    ok!(close(accepted));
    ok!(wait_for(client, POLLIN));
    ok!(close(client));
    ok!(close(server));
    let next = ok!(socket(AF_INET, SOCK_STREAM));
    fails!(bind(next, &addr), EADDRINUSE);
    // As servers do it: both sockets have the option.
    let (server, addr) = ok!(listener(AF_INET, 1));
    ok!(set_option(server, SOL_SOCKET, SO_REUSEADDR, 1));
    let client = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(connect(client, &addr));
    let accepted = ok!(accept(server, 0));
    ok!(close(accepted));
    ok!(close(client));
    ok!(close(server));
    let next = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(set_option(next, SOL_SOCKET, SO_REUSEADDR, 1));
    ok!(bind(next, &addr));
    ok!(listen(next, 1));
    Ok(())
}

fn a_reset_leaves_the_port() -> Outcome {
    let (server, addr) = ok!(listener(AF_INET, 4));
    let client = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(connect(client, &addr));
    let accepted = ok!(accept(server, 0));
    ok!(close(server));
    let other = ok!(socket(AF_INET, SOCK_STREAM));
    fails!(bind(other, &addr), EADDRINUSE);
    ok!(reset(client));
    ok!(settles_at(accepted, ALL, POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    ok!(bind(other, &addr));
    ok!(close(accepted));
    ok!(close(other));
    Ok(())
}

fn names_after_the_end() -> Outcome {
    let dissolve = |fd: i32| sys!(SYS_connect, fd, &[0_u8; 16], 16);
    let any = [0; 4];
    let (server, addr) = ok!(listener(AF_INET, 4));
    for is_bound in [false, true] {
        let client = ok!(socket(AF_INET, SOCK_STREAM));
        if is_bound {
            ok!(bind(client, &addr4(LOCAL, 0)));
        }
        ok!(connect(client, &addr));
        let port = port_of(&ok!(name_of(client)));
        ok!(dissolve(client));
        eq!(ok!(name_of(client)), addr4(if is_bound { LOCAL } else { any }, port));
        // It gets another one.
        ok!(listen(client, 1));
        check!(port_of(&ok!(name_of(client))) != port);
        ok!(close(ok!(accept(server, 0))));
        ok!(close(client));
    }
    let client = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(connect(client, &addr));
    let accepted = ok!(accept(server, 0));
    ok!(dissolve(accepted));
    eq!(ok!(name_of(accepted)), addr);
    fails!(bind(accepted, &addr), EADDRINUSE);
    eq!(ok!(name_of(accepted)), addr4(any, port_of(&addr)));
    Ok(())
}

fn a_port_in_time_wait_is_not_listened_at() -> Outcome {
    let dissolve = |fd: i32| sys!(SYS_connect, fd, &[0_u8; 16], 16);
    for (is_bound, is_shared) in [(false, false), (true, false), (true, true)] {
        let (server, addr) = ok!(listener(AF_INET, 4));
        let client = ok!(socket(AF_INET, SOCK_STREAM));
        ok!(set_option(client, SOL_SOCKET, SO_REUSEADDR, is_shared.into()));
        ok!(bind(client, &addr4(LOCAL, if is_bound { ok!(quiet_port()) } else { 0 })));
        let own = ok!(name_of(client));
        ok!(connect(client, &addr));
        let accepted = ok!(accept(server, 0));
        ok!(sys!(SYS_shutdown, client, libc::SHUT_WR));
        ok!(sys!(SYS_shutdown, accepted, libc::SHUT_WR));
        ok!(dissolve(client));
        if is_bound && !is_shared {
            fails!(listen(client, 1), EADDRINUSE);
        } else {
            // Who has not asked for the port gets another one.
            ok!(listen(client, 1));
        }
        fails!(bind(ok!(socket(AF_INET, SOCK_STREAM)), &own), EADDRINUSE);
        ok!(close(client));
        fails!(bind(ok!(socket(AF_INET, SOCK_STREAM)), &own), EADDRINUSE);
    }
    // A connection to itself is closed from both sides at once.
    let own = ok!(socket(AF_INET, SOCK_STREAM));
    ok!(bind(own, &addr4(LOCAL, ok!(quiet_port()))));
    ok!(connect(own, &ok!(name_of(own))));
    ok!(sys!(SYS_shutdown, own, libc::SHUT_RDWR));
    ok!(dissolve(own));
    fails!(listen(own, 1), EADDRINUSE);
    Ok(())
}

/// Makes a connection whose ports others may have as well: the listener, both ends, and both addresses.
fn shared_pair() -> Result<([i32; 3], [Vec<u8>; 2]), i32> {
    let (server, client) = (socket(AF_INET, SOCK_STREAM)?, socket(AF_INET, SOCK_STREAM)?);
    for fd in [server, client] {
        set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1)?;
        bind(fd, &addr4(LOCAL, 0))?;
    }
    listen(server, 4)?;
    let addrs = [name_of(client)?, name_of(server)?];
    connect(client, &addrs[1])?;
    Ok(([server, client, accept(server, 0)?], addrs))
}

/// Returns a socket that does not wait, bound to an address that others may have as well.
fn sharing(addr: &[u8]) -> Result<i32, i32> {
    let fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK)?;
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1)?;
    bind(fd, addr)?;
    Ok(fd)
}

fn an_end_in_time_wait_delays_a_refusal() -> Outcome {
    let refused = POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP;
    for _ in 0..20 {
        let ([server, client, accepted], [from, to]) = ok!(shared_pair());
        for fd in [server, client, accepted] {
            ok!(close(fd));
        }
        let back = ok!(sharing(&to));
        let began = Instant::now();
        fails!(connect(back, &from), EINPROGRESS);
        let ready = ok!(poll(back, ALL));
        let is_late = began.elapsed() > Duration::from_millis(4);
        // The end that was there answers that it has no such connection, and the SYN is sent again.
        check!(is_late || ready == 0);
        ok!(settles_at(back, ALL, refused));
        ok!(close(back));
        let again = ok!(sharing(&to));
        fails!(connect(again, &from), EINPROGRESS);
        eq!(ok!(poll(again, ALL)), refused);
        ok!(close(again));
        if !is_late {
            return Ok(());
        }
    }
    Err("it took too long twenty times".into())
}

fn an_end_without_a_socket_keeps_the_pair() -> Outcome {
    for _ in 0..20 {
        let ([server, client, accepted], [from, to]) = ok!(shared_pair());
        ok!(close(client));
        let next = ok!(sharing(&from));
        if connect(next, &to) == Err(libc::EINPROGRESS) {
            // On a busy host it has been seen to be gone already.
            for fd in [server, accepted, next] {
                ok!(close(fd));
            }
            continue;
        }
        fails!(connect(next, &to), EADDRNOTAVAIL);
        // With the other FIN it is in TIME_WAIT, and gives way.
        ok!(close(accepted));
        fails!(connect(next, &to), EINPROGRESS);
        ok!(settles_at(next, ALL, POLLOUT));
        fails!(connect(ok!(sharing(&from)), &to), EADDRNOTAVAIL);
        ok!(close(ok!(accept(server, 0))));
        return Ok(());
    }
    Err("the pair was free twenty times".into())
}

fn an_end_that_is_shut_gives_way() -> Outcome {
    let ([server, client, accepted], [from, to]) = ok!(shared_pair());
    for fd in [client, accepted] {
        ok!(sys!(SYS_shutdown, fd, libc::SHUT_WR));
    }
    let next = ok!(sharing(&from));
    fails!(connect(next, &to), EINPROGRESS);
    ok!(settles_at(next, ALL, POLLOUT));
    // What becomes of the old sockets is nothing to the new connection.
    ok!(close(client));
    ok!(close(accepted));
    fails!(connect(ok!(sharing(&from)), &to), EADDRNOTAVAIL);
    let accepted = ok!(accept(server, 0));
    ok!(close(server));
    fails!(connect(ok!(sharing(&to)), &from), EADDRNOTAVAIL);
    eq!(ok!(sys!(SYS_write, accepted, b"x", 1)), 1);
    ok!(settles_at(next, ALL, POLLIN | POLLOUT));
    Ok(())
}

guest_tests::cases!(
    ports_conflict,
    reuse_port_shares,
    a_reset_connection_is_not_remembered,
    port_is_kept_after_an_active_close,
    a_reset_leaves_the_port,
    names_after_the_end,
    a_port_in_time_wait_is_not_listened_at,
    an_end_in_time_wait_delays_a_refusal,
    an_end_without_a_socket_keeps_the_pair,
    an_end_that_is_shut_gives_way,
);
