//! Ports of TCP: who may have one, how long it is kept, and what is told of it afterwards.

use guest_tests::fs::close;
use guest_tests::net::{
    LOCAL, accept, addr4, addr6, bind, connect, listen, listener, local6, mapped, name_of, poll,
    port_of, set_option, settles_at, socket, wait_for,
};
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    AF_INET, AF_INET6, POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP, SO_LINGER,
    SO_REUSEADDR, SO_REUSEPORT, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET,
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

guest_tests::cases!(
    ports_conflict,
    reuse_port_shares,
    a_reset_connection_is_not_remembered,
    port_is_kept_after_an_active_close,
    a_reset_leaves_the_port,
    names_after_the_end,
);
