//! Unix sockets: names, connections, messages, files and credentials beside the data, options.

use guest_tests::fs::{close, fstat, pipe, read, text, write};
use guest_tests::mem::zeroed;
use guest_tests::proc::{End, child, pid, sleep, wait};
use guest_tests::{Outcome, SysResult, check, eq, fails, ok, sig, sys};
use libc::{
    AF_UNIX, MSG_CMSG_CLOEXEC, MSG_CTRUNC, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, MSG_TRUNC,
    MSG_WAITALL, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, SCM_CREDENTIALS, SCM_RIGHTS, SO_ACCEPTCONN,
    SO_DOMAIN, SO_ERROR, SO_PASSCRED, SO_PEERCRED, SO_PROTOCOL, SO_RCVTIMEO, SO_SNDBUF, SO_TYPE,
    SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET,
};

fn socket(kind: i32) -> Result<i32, i32> {
    sys!(SYS_socket, AF_UNIX, kind, 0).map(|fd| fd as i32)
}

fn pair(kind: i32) -> Result<(i32, i32), i32> {
    let mut fds = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, kind, 0, &mut fds)?;
    Ok((fds[0], fds[1]))
}

/// An address: the family and a name, whose first byte is zero in the abstract name space.
fn address(name: &[u8]) -> Vec<u8> {
    let mut bytes = (AF_UNIX as u16).to_ne_bytes().to_vec();
    bytes.extend_from_slice(name);
    bytes
}

fn bind(fd: i32, name: &[u8]) -> SysResult {
    let addr = address(name);
    sys!(SYS_bind, fd, &addr[..], addr.len())
}

fn connect(fd: i32, name: &[u8]) -> SysResult {
    let addr = address(name);
    sys!(SYS_connect, fd, &addr[..], addr.len())
}

fn accept(fd: i32) -> Result<i32, i32> {
    sys!(SYS_accept4, fd, 0, 0, 0).map(|fd| fd as i32)
}

fn name_of(fd: i32) -> Result<Vec<u8>, i32> {
    let mut addr = [0u8; 128];
    let mut len = addr.len() as i32;
    sys!(SYS_getsockname, fd, &mut addr, &mut len)?;
    Ok(addr[..len as usize].to_vec())
}

fn peer_of(fd: i32) -> Result<Vec<u8>, i32> {
    let mut addr = [0u8; 128];
    let mut len = addr.len() as i32;
    sys!(SYS_getpeername, fd, &mut addr, &mut len)?;
    Ok(addr[..len as usize].to_vec())
}

fn option(fd: i32, name: i32) -> Result<i32, i32> {
    let mut value = 0i32;
    let mut len = 4i32;
    sys!(SYS_getsockopt, fd, SOL_SOCKET, name, &mut value, &mut len)?;
    Ok(value)
}

fn set_option(fd: i32, name: i32, value: i32) -> SysResult {
    sys!(SYS_setsockopt, fd, SOL_SOCKET, name, &value, 4)
}

fn recv(fd: i32, buf: &mut [u8], flags: i32) -> SysResult {
    let len = buf.len();
    sys!(SYS_recvfrom, fd, buf, len, flags, 0, 0)
}

fn send(fd: i32, data: &[u8], flags: i32) -> SysResult {
    sys!(SYS_sendto, fd, data, data.len(), flags, 0, 0)
}

fn poll(fd: i32, events: i16) -> Result<i16, i32> {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    sys!(SYS_poll, &mut entry, 1, 0)?;
    Ok(entry.revents)
}

/// One control message.
fn control(kind: i32, data: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + data.len()).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&SOL_SOCKET.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn send_with(fd: i32, data: &[u8], control: &[u8]) -> SysResult {
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut msg: libc::msghdr = zeroed();
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.as_ptr().cast_mut().cast();
    msg.msg_controllen = control.len() as _;
    sys!(SYS_sendmsg, fd, &msg, MSG_NOSIGNAL)
}

/// What a `recvmsg(2)` gave.
struct Message {
    data: Vec<u8>,
    control: Vec<u8>,
    flags: i32,
}

fn recv_with(fd: i32, size: usize, control_size: usize, flags: i32) -> Result<Message, i32> {
    let mut data = vec![0u8; size];
    let mut control = vec![0u8; control_size];
    let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: size };
    let mut msg: libc::msghdr = zeroed();
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.as_mut_ptr().cast();
    msg.msg_controllen = control_size as _;
    let n = sys!(SYS_recvmsg, fd, &mut msg, flags)?;
    data.truncate(n);
    control.truncate(msg.msg_controllen as usize);
    Ok(Message { data, control, flags: msg.msg_flags })
}

fn number(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..at + 4).map_or(-1, |bytes| i32::from_ne_bytes(bytes.try_into().unwrap()))
}

fn arguments_are_checked() -> Outcome {
    fails!(sys!(SYS_socket, AF_UNIX, 77, 0), EINVAL);
    fails!(sys!(SYS_socket, 1000, SOCK_STREAM, 0), EAFNOSUPPORT);
    fails!(sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 7), EPROTONOSUPPORT);
    let fd = ok!(socket(SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK));
    eq!(ok!(sys!(SYS_fcntl, fd, libc::F_GETFD, 0)), 1);
    eq!(ok!(fstat(fd)).st_mode & libc::S_IFMT, libc::S_IFSOCK);
    fails!(bind(0, b"x"), ENOTSOCK);
    fails!(sys!(SYS_bind, fd, 0, 1000), EINVAL);
    fails!(sys!(SYS_bind, fd, 8, 10), EFAULT);
    fails!(sys!(SYS_listen, fd, 1), EINVAL);
    fails!(sys!(SYS_accept4, fd, 0, 0, 1), EINVAL);
    fails!(accept(fd), EINVAL);
    fails!(write(fd, b"x"), ENOTCONN);
    fails!(peer_of(fd), ENOTCONN);
    fails!(sys!(SYS_shutdown, fd, 3), EINVAL);
    fails!(connect(fd, b"/nowhere/at/all"), ENOENT);
    fails!(connect(fd, b"\0nobody"), ECONNREFUSED);
    fails!(sys!(SYS_lseek, fd, 0, 0), ESPIPE);
    eq!(ok!(name_of(fd)), address(b""));
    eq!(ok!(poll(fd, POLLIN | POLLOUT)), POLLOUT | POLLHUP);
    Ok(())
}

fn options_are_kept() -> Outcome {
    let fd = ok!(socket(SOCK_SEQPACKET));
    eq!(ok!(option(fd, SO_TYPE)), SOCK_SEQPACKET);
    eq!(ok!(option(fd, SO_DOMAIN)), AF_UNIX);
    eq!(ok!(option(fd, SO_PROTOCOL)), 0);
    eq!(ok!(option(fd, SO_ERROR)), 0);
    eq!(ok!(option(fd, SO_ACCEPTCONN)), 0);
    ok!(set_option(fd, SO_SNDBUF, 8192));
    eq!(ok!(option(fd, SO_SNDBUF)), 16384);
    ok!(set_option(fd, SO_PASSCRED, 5));
    eq!(ok!(option(fd, SO_PASSCRED)), 1);
    fails!(set_option(fd, 9999, 1), ENOPROTOOPT);
    fails!(option(fd, 9999), ENOPROTOOPT);
    fails!(sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDBUF, &1u8, 1), EINVAL);
    Ok(())
}

fn names_in_the_file_system() -> Outcome {
    let server = ok!(socket(SOCK_STREAM));
    ok!(bind(server, b"name\0"));
    fails!(bind(server, b"other\0"), EINVAL);
    let other = ok!(socket(SOCK_STREAM));
    fails!(bind(other, b"name\0"), EADDRINUSE);
    fails!(connect(other, b"name\0"), ECONNREFUSED);
    eq!(ok!(name_of(server)), address(b"name\0"));
    ok!(sys!(SYS_listen, server, 5));
    eq!(ok!(option(server, SO_ACCEPTCONN)), 1);
    eq!(ok!(poll(server, POLLIN)), 0);
    ok!(connect(other, b"name\0"));
    eq!(ok!(poll(server, POLLIN)), POLLIN);
    fails!(connect(other, b"name\0"), EISCONN);
    eq!(ok!(peer_of(other)), address(b"name\0"));
    // Sending does not wait for accept.
    eq!(ok!(write(other, b"early")), 5);
    let connection = ok!(accept(server));
    eq!(ok!(peer_of(connection)), address(b""));
    let mut buf = [0u8; 10];
    eq!(ok!(read(connection, &mut buf)), 5);
    let wrong = ok!(socket(SOCK_DGRAM));
    fails!(connect(wrong, b"name\0"), EPROTOTYPE);
    ok!(close(server));
    let late = ok!(socket(SOCK_STREAM));
    fails!(connect(late, b"name\0"), ECONNREFUSED);
    ok!(sys!(SYS_unlink, c"name"));
    Ok(())
}

fn abstract_names() -> Outcome {
    let name = format!("\0guest-test-{}", pid()).into_bytes();
    let server = ok!(socket(SOCK_STREAM));
    ok!(bind(server, &name));
    eq!(ok!(name_of(server)), address(&name));
    let other = ok!(socket(SOCK_STREAM));
    fails!(bind(other, &name), EADDRINUSE);
    ok!(sys!(SYS_listen, server, 0));
    ok!(connect(other, &name));
    // A queue of length zero holds one.
    let third = ok!(socket(SOCK_STREAM | SOCK_NONBLOCK));
    fails!(connect(third, &name), EAGAIN);
    let connection = ok!(accept(server));
    ok!(connect(third, &name));
    ok!(close(connection));
    ok!(close(server));
    // The third was never accepted.
    fails!(read(third, &mut [0u8]), ECONNRESET);
    let server = ok!(socket(SOCK_STREAM));
    ok!(bind(server, &name));
    let auto = ok!(socket(SOCK_DGRAM));
    ok!(bind(auto, b""));
    let chosen = ok!(name_of(auto));
    eq!(chosen.len(), 8);
    eq!(chosen[2], 0);
    Ok(())
}

fn accept_waits() -> Outcome {
    let name = format!("\0guest-wait-{}", pid()).into_bytes();
    let server = ok!(socket(SOCK_STREAM));
    ok!(bind(server, &name));
    ok!(sys!(SYS_listen, server, 1));
    let pid = ok!(child(|| {
        sleep(std::time::Duration::from_millis(30));
        let Ok(fd) = socket(SOCK_STREAM) else { return 1 };
        if connect(fd, &name).is_err() || write(fd, b"ping") != Ok(4) {
            return 2;
        }
        let mut buf = [0u8; 4];
        i32::from(read(fd, &mut buf) != Ok(4) || &buf != b"pong")
    }));
    let connection = ok!(accept(server));
    let mut buf = [0u8; 4];
    eq!(ok!(recv(connection, &mut buf, MSG_WAITALL)), 4);
    ok!(write(connection, b"pong"));
    let mut creds: libc::ucred = zeroed();
    let mut len = 12i32;
    ok!(sys!(SYS_getsockopt, connection, SOL_SOCKET, SO_PEERCRED, &mut creds, &mut len));
    eq!(creds.pid, pid);
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn connect_waits_for_room() -> Outcome {
    let name = format!("\0guest-room-{}", pid()).into_bytes();
    let server = ok!(socket(SOCK_STREAM));
    ok!(bind(server, &name));
    ok!(sys!(SYS_listen, server, 0));
    let first = ok!(socket(SOCK_STREAM));
    ok!(connect(first, &name));
    let pid = ok!(child(|| {
        let Ok(fd) = socket(SOCK_STREAM) else { return 1 };
        i32::from(connect(fd, &name).is_err())
    }));
    sleep(std::time::Duration::from_millis(30));
    ok!(accept(server));
    ok!(accept(server));
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn stream_ends() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    eq!(ok!(poll(one, POLLIN | POLLOUT | POLLRDHUP)), POLLOUT);
    ok!(write(other, b"bye"));
    ok!(sys!(SYS_shutdown, other, libc::SHUT_WR));
    eq!(ok!(poll(one, POLLIN | POLLRDHUP)), POLLIN | POLLRDHUP);
    fails!(send(other, b"x", MSG_NOSIGNAL), EPIPE);
    let mut buf = [0u8; 10];
    eq!(ok!(read(one, &mut buf)), 3);
    eq!(ok!(read(one, &mut buf)), 0);
    eq!(ok!(write(one, b"still")), 5);
    eq!(ok!(read(other, &mut buf)), 5);
    ok!(close(other));
    eq!(ok!(poll(one, POLLIN | POLLOUT)), POLLIN | POLLOUT | POLLHUP);
    ok!(sig::handle(libc::SIGPIPE, sig::record, 0));
    fails!(write(one, b"x"), EPIPE);
    eq!(sig::count(), 1);
    fails!(send(one, b"x", MSG_NOSIGNAL), EPIPE);
    eq!(sig::count(), 1);
    Ok(())
}

fn unread_data_resets() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    ok!(write(one, b"never read"));
    ok!(close(other));
    eq!(ok!(poll(one, POLLIN)) & libc::POLLERR, libc::POLLERR);
    fails!(read(one, &mut [0u8]), ECONNRESET);
    eq!(ok!(read(one, &mut [0u8])), 0);
    Ok(())
}

fn full_stream_waits() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    let chunk = [7u8; 4096];
    let mut total = 0;
    loop {
        match send(one, &chunk, MSG_DONTWAIT) {
            Ok(n) => total += n,
            Err(libc::EAGAIN) => break,
            Err(errno) => return Err(guest_tests::errno::name(errno)),
        }
    }
    check!(total >= 65_536, "took {total} bytes only");
    eq!(ok!(poll(one, POLLOUT)), 0);
    let pid = ok!(child(|| {
        let big = vec![1u8; 1 << 20];
        i32::from(write(one, &big) != Ok(1 << 20))
    }));
    ok!(close(one));
    let mut got = 0;
    let mut buf = vec![0u8; 50_000];
    loop {
        match ok!(read(other, &mut buf)) {
            0 => break,
            n => got += n,
        }
    }
    eq!(got, total + (1 << 20));
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn peek_truncate_and_wait_for_all() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    ok!(write(one, b"abcdef"));
    let mut buf = [0u8; 6];
    eq!(ok!(recv(other, &mut buf[..3], MSG_PEEK)), 3);
    eq!(ok!(recv(other, &mut buf, 0)), 6);
    fails!(recv(other, &mut buf, MSG_DONTWAIT), EAGAIN);
    ok!(write(one, b"ab"));
    eq!(ok!(recv(other, &mut buf, MSG_WAITALL | MSG_DONTWAIT)), 2);
    let (one, other) = ok!(pair(SOCK_DGRAM));
    ok!(write(one, b"abcdef"));
    ok!(write(one, b""));
    eq!(ok!(recv(other, &mut buf[..2], MSG_PEEK | MSG_TRUNC)), 6);
    let message = ok!(recv_with(other, 2, 0, 0));
    eq!(message.data, b"ab");
    eq!(message.flags & MSG_TRUNC, MSG_TRUNC);
    eq!(ok!(read(other, &mut buf)), 0);
    fails!(recv(other, &mut buf, MSG_DONTWAIT), EAGAIN);
    fails!(send(one, &vec![0u8; 1 << 20], 0), EMSGSIZE);
    Ok(())
}

fn datagrams_by_name() -> Outcome {
    let server = ok!(socket(SOCK_DGRAM));
    ok!(bind(server, b"server\0"));
    let client = ok!(socket(SOCK_DGRAM));
    fails!(write(client, b"x"), ENOTCONN);
    let to = address(b"server\0");
    eq!(ok!(sys!(SYS_sendto, client, b"hello", 5, 0, &to[..], to.len())), 5);
    let mut buf = [0u8; 10];
    let mut addr = [0xffu8; 128];
    let mut len = 128i32;
    eq!(ok!(sys!(SYS_recvfrom, server, &mut buf, 10, 0, &mut addr, &mut len)), 5);
    eq!(len, 0);
    ok!(bind(client, b"client\0"));
    ok!(connect(client, b"server\0"));
    ok!(write(client, b"again"));
    len = 128;
    eq!(ok!(sys!(SYS_recvfrom, server, &mut buf, 10, 0, &mut addr, &mut len)), 5);
    eq!(addr[..len as usize], address(b"client\0"));
    // A socket that is connected to somebody else takes nothing from strangers.
    ok!(connect(server, b"client\0"));
    let stranger = ok!(socket(SOCK_DGRAM));
    fails!(sys!(SYS_sendto, stranger, b"x", 1, 0, &to[..], to.len()), EPERM);
    ok!(close(server));
    fails!(write(client, b"x"), ECONNREFUSED);
    Ok(())
}

fn a_name_given_later_is_that_of_the_sender() -> Outcome {
    let server = ok!(socket(SOCK_DGRAM));
    ok!(bind(server, b"server\0"));
    let client = ok!(socket(SOCK_DGRAM));
    ok!(connect(client, b"server\0"));
    ok!(write(client, b"early"));
    ok!(bind(client, b"client\0"));
    ok!(close(client));
    let (mut addr, mut len) = ([0xffu8; 128], 128i32);
    let mut buf = [0u8; 10];
    eq!(ok!(sys!(SYS_recvfrom, server, &mut buf, 10, 0, &mut addr, &mut len)), 5);
    eq!(addr[..len as usize], address(b"client\0"));
    Ok(())
}

fn streams_tell_the_name_of_the_peer() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    ok!(bind(one, b"one\0"));
    ok!(write(one, b"x"));
    let (mut addr, mut len, mut buf) = ([0xffu8; 128], 128i32, [0u8; 10]);
    eq!(ok!(sys!(SYS_recvfrom, other, &mut buf, 10, 0, &mut addr, &mut len)), 1);
    eq!(addr[..len as usize], address(b"one\0"));
    Ok(())
}

fn files_come_to_who_asks_for_no_bytes() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    ok!(send_with(one, b"abc", &control(SCM_RIGHTS, &one.to_ne_bytes())));
    eq!(ok!(recv_with(other, 0, 64, MSG_PEEK)).control.len(), 24);
    eq!(ok!(recv_with(other, 0, 64, 0)).control.len(), 24);
    let rest = ok!(recv_with(other, 10, 64, 0));
    eq!((rest.data, rest.control.len()), (b"abc".to_vec(), 0));
    Ok(())
}

fn files_travel() -> Outcome {
    let (one, other) = ok!(pair(SOCK_STREAM));
    let (reader, writer) = ok!(pipe(0));
    let rights = control(SCM_RIGHTS, &writer.to_ne_bytes());
    eq!(ok!(send_with(one, b"x", &rights)), 1);
    ok!(send_with(one, b"y", &[]));
    ok!(close(writer));
    let message = ok!(recv_with(other, 10, 64, MSG_CMSG_CLOEXEC));
    // What follows files is received by itself.
    eq!(message.data, b"x");
    eq!(message.control.len(), 24);
    eq!(number(&message.control, 12), SCM_RIGHTS);
    let received = number(&message.control, 16);
    eq!(ok!(sys!(SYS_fcntl, received, libc::F_GETFD, 0)), 1);
    ok!(write(received, b"through"));
    let mut buf = [0u8; 10];
    eq!(ok!(read(reader, &mut buf)), 7);
    ok!(close(received));
    eq!(ok!(read(reader, &mut buf)), 0);
    eq!(ok!(recv_with(other, 10, 64, 0)).data, b"y");
    fails!(send_with(one, b"x", &control(SCM_RIGHTS, &999i32.to_ne_bytes())), EBADF);
    fails!(send_with(one, b"x", &control(99, &[])), EINVAL);
    let many: Vec<u8> = (0..254).flat_map(|_| reader.to_ne_bytes()).collect();
    fails!(send_with(one, b"x", &control(SCM_RIGHTS, &many)), EINVAL);
    Ok(())
}

fn files_without_room_are_closed() -> Outcome {
    let (one, other) = ok!(pair(SOCK_SEQPACKET));
    let (reader, writer) = ok!(pipe(0));
    let rights = control(SCM_RIGHTS, &writer.to_ne_bytes());
    ok!(send_with(one, b"a", &rights));
    ok!(send_with(one, b"b", &rights));
    ok!(close(writer));
    let message = ok!(recv_with(other, 10, 0, 0));
    eq!(message.flags & MSG_CTRUNC, MSG_CTRUNC);
    // Closing a socket closes what it has been sent.
    ok!(close(other));
    eq!(ok!(read(reader, &mut [0u8])), 0);
    Ok(())
}

fn credentials_travel() -> Outcome {
    let (one, other) = ok!(pair(SOCK_DGRAM));
    ok!(set_option(other, SO_PASSCRED, 1));
    ok!(write(one, b"x"));
    let message = ok!(recv_with(other, 10, 64, 0));
    eq!(message.control.len(), 32);
    eq!(number(&message.control, 12), SCM_CREDENTIALS);
    eq!(number(&message.control, 16), pid());
    eq!(number(&message.control, 20), ok!(sys!(SYS_getuid)) as i32);
    let mut own = pid().to_ne_bytes().to_vec();
    own.extend_from_slice(&(ok!(sys!(SYS_getuid)) as u32).to_ne_bytes());
    own.extend_from_slice(&(ok!(sys!(SYS_getgid)) as u32).to_ne_bytes());
    ok!(send_with(one, b"x", &control(SCM_CREDENTIALS, &own)));
    eq!(number(&ok!(recv_with(other, 10, 64, 0)).control, 16), pid());
    fails!(send_with(one, b"x", &control(SCM_CREDENTIALS, &own[..8])), EINVAL);
    Ok(())
}

fn credentials_at_the_end() -> Outcome {
    for kind in [SOCK_SEQPACKET, SOCK_STREAM] {
        let (one, other) = ok!(pair(kind));
        ok!(set_option(other, SO_PASSCRED, 1));
        ok!(write(one, b"x"));
        ok!(close(one));
        eq!(number(&ok!(recv_with(other, 10, 64, 0)).control, 16), pid());
        for _ in 0..2 {
            let end = ok!(recv_with(other, 10, 64, 0));
            eq!(end.data.len(), 0);
            // A message does not come; of a stream something does, and nobody has sent it.
            eq!(end.control.len(), if kind == SOCK_STREAM { 32 } else { 0 });
            check!(end.control.iter().skip(16).all(|byte| *byte == 0));
        }
    }
    Ok(())
}

fn pidfds_travel() -> Outcome {
    const SO_PASSPIDFD: i32 = 76;
    const SO_PEERPIDFD: i32 = 77;
    const SCM_PIDFD: i32 = 4;
    let names = |fd: i32, pid: i32| -> Result<bool, i32> {
        let path = std::ffi::CString::new(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        Ok(text(&path)?.contains(&format!("Pid:\t{pid}\n")))
    };
    let (one, other) = ok!(pair(SOCK_STREAM));
    let (mut peer, mut len) = (0_i32, 4_u32);
    ok!(sys!(SYS_getsockopt, one, SOL_SOCKET, SO_PEERPIDFD, &mut peer, &mut len));
    check!(ok!(names(peer, pid())), "the peer is another process");
    eq!(ok!(option(other, SO_PASSPIDFD)), 0);
    ok!(set_option(other, SO_PASSPIDFD, 1));
    eq!(ok!(option(other, SO_PASSPIDFD)), 1);
    let sender = ok!(child(|| i32::from(write(one, b"x").is_err())));
    let message = ok!(recv_with(other, 10, 64, 0));
    eq!(message.data, b"x");
    eq!((number(&message.control, 8), number(&message.control, 12)), (SOL_SOCKET, SCM_PIDFD));
    let fd = number(&message.control, 16);
    check!(ok!(names(fd, sender)), "the sender is another process");
    ok!(sys!(SYS_waitid, libc::P_PIDFD, fd, 0, libc::WEXITED | libc::WNOWAIT, 0));
    eq!(ok!(wait(sender)), End::Code(0));
    for fd in [one, other, peer, fd] {
        ok!(close(fd));
    }
    Ok(())
}

fn receive_times_out() -> Outcome {
    let (one, _other) = ok!(pair(SOCK_STREAM));
    let time = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
    ok!(sys!(SYS_setsockopt, one, SOL_SOCKET, SO_RCVTIMEO, &time, 16));
    let started = std::time::Instant::now();
    fails!(recv(one, &mut [0u8], 0), EAGAIN);
    check!(started.elapsed() >= std::time::Duration::from_millis(20));
    Ok(())
}

fn many_messages_at_once() -> Outcome {
    let (one, other) = ok!(pair(SOCK_DGRAM));
    let words: [&[u8]; 3] = [b"one", b"two", b"three"];
    let mut iovs: Vec<libc::iovec> = words
        .iter()
        .map(|word| libc::iovec { iov_base: word.as_ptr().cast_mut().cast(), iov_len: word.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = iovs
        .iter_mut()
        .map(|iov| {
            let mut message: libc::mmsghdr = zeroed();
            message.msg_hdr.msg_iov = iov;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    eq!(ok!(sys!(SYS_sendmmsg, one, &mut messages[..], 3, 0)), 3);
    eq!(messages[2].msg_len, 5);
    let mut buffers = [[0u8; 8]; 4];
    let mut iovs: Vec<libc::iovec> = buffers
        .iter_mut()
        .map(|buf| libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: 8 })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = iovs
        .iter_mut()
        .map(|iov| {
            let mut message: libc::mmsghdr = zeroed();
            message.msg_hdr.msg_iov = iov;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    eq!(ok!(sys!(SYS_recvmmsg, other, &mut messages[..], 4, MSG_DONTWAIT, 0)), 3);
    eq!(messages[0].msg_len, 3);
    eq!(&buffers[2][..5], b"three");
    Ok(())
}

fn sockets_in_flight() -> Outcome {
    // A socket in its own queue, and a long chain of them: neither may hurt.
    let (one, other) = ok!(pair(SOCK_DGRAM));
    ok!(send_with(one, b"x", &control(SCM_RIGHTS, &other.to_ne_bytes())));
    ok!(send_with(other, b"x", &control(SCM_RIGHTS, &one.to_ne_bytes())));
    ok!(close(one));
    ok!(close(other));
    let (mut last, peer) = ok!(pair(SOCK_DGRAM));
    ok!(close(peer));
    for _ in 0..2000 {
        let (sender, receiver) = ok!(pair(SOCK_DGRAM));
        ok!(send_with(sender, b"x", &control(SCM_RIGHTS, &last.to_ne_bytes())));
        ok!(close(last));
        ok!(close(sender));
        last = receiver;
    }
    ok!(close(last));
    Ok(())
}

guest_tests::cases!(
    arguments_are_checked,
    options_are_kept,
    names_in_the_file_system,
    abstract_names,
    accept_waits,
    connect_waits_for_room,
    stream_ends,
    unread_data_resets,
    full_stream_waits,
    peek_truncate_and_wait_for_all,
    datagrams_by_name,
    a_name_given_later_is_that_of_the_sender,
    streams_tell_the_name_of_the_peer,
    files_come_to_who_asks_for_no_bytes,
    files_travel,
    files_without_room_are_closed,
    credentials_travel,
    credentials_at_the_end,
    pidfds_travel,
    receive_times_out,
    many_messages_at_once,
    sockets_in_flight,
);
