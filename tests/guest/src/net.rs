//! Sockets of the Internet families: addresses, and short forms of the calls.

use libc::{AF_INET, AF_INET6, SOCK_STREAM, SOL_SOCKET};

use crate::mem::zeroed;
use crate::{SysResult, sys};

/// 127.0.0.1
pub const LOCAL: [u8; 4] = [127, 0, 0, 1];

/// `socket(2)`.
pub fn socket(family: i32, kind: i32) -> Result<i32, i32> {
    sys!(SYS_socket, family, kind, 0).map(|fd| fd as i32)
}

/// Returns a `struct sockaddr_in`.
pub fn addr4(ip: [u8; 4], port: u16) -> Vec<u8> {
    let mut bytes = (AF_INET as u16).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&ip);
    bytes.resize(16, 0);
    bytes
}

/// Returns a `struct sockaddr_in6`.
pub fn addr6(ip: [u8; 16], port: u16) -> Vec<u8> {
    let mut bytes = (AF_INET6 as u16).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&ip);
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

/// ::1
pub fn local6() -> [u8; 16] {
    let mut ip = [0; 16];
    ip[15] = 1;
    ip
}

/// An IPv4 address as IPv6 shows it.
pub fn mapped(ip: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[10] = 0xff;
    bytes[11] = 0xff;
    bytes[12..].copy_from_slice(&ip);
    bytes
}

/// Returns the port in an address of either family.
pub fn port_of(addr: &[u8]) -> u16 {
    u16::from_be_bytes([addr[2], addr[3]])
}

/// `bind(2)`.
pub fn bind(fd: i32, addr: &[u8]) -> SysResult {
    sys!(SYS_bind, fd, addr, addr.len())
}

/// `connect(2)`.
pub fn connect(fd: i32, addr: &[u8]) -> SysResult {
    sys!(SYS_connect, fd, addr, addr.len())
}

/// `listen(2)`.
pub fn listen(fd: i32, backlog: i32) -> SysResult {
    sys!(SYS_listen, fd, backlog)
}

/// `accept4(2)`.
pub fn accept(fd: i32, flags: i32) -> Result<i32, i32> {
    sys!(SYS_accept4, fd, 0, 0, flags).map(|fd| fd as i32)
}

/// `getsockname(2)`.
pub fn name_of(fd: i32) -> Result<Vec<u8>, i32> {
    let mut addr = [0u8; 128];
    let mut len = addr.len() as i32;
    sys!(SYS_getsockname, fd, &mut addr, &mut len)?;
    Ok(addr[..len as usize].to_vec())
}

/// `getpeername(2)`.
pub fn peer_of(fd: i32) -> Result<Vec<u8>, i32> {
    let mut addr = [0u8; 128];
    let mut len = addr.len() as i32;
    sys!(SYS_getpeername, fd, &mut addr, &mut len)?;
    Ok(addr[..len as usize].to_vec())
}

/// `getsockopt(2)` of a number.
pub fn option(fd: i32, level: i32, name: i32) -> Result<i32, i32> {
    let mut value = 0i32;
    let mut len = 4i32;
    sys!(SYS_getsockopt, fd, level, name, &mut value, &mut len)?;
    Ok(value)
}

/// `setsockopt(2)` of a number.
pub fn set_option(fd: i32, level: i32, name: i32, value: i32) -> SysResult {
    sys!(SYS_setsockopt, fd, level, name, &value, 4)
}

/// Sets a timeout option to milliseconds.
pub fn set_timeout(fd: i32, name: i32, ms: i64) -> SysResult {
    let time = libc::timeval { tv_sec: ms / 1000, tv_usec: ms % 1000 * 1000 };
    sys!(SYS_setsockopt, fd, SOL_SOCKET, name, &time, size_of::<libc::timeval>())
}

/// `recv(2)`.
#[inline(never)]
pub fn recv(fd: i32, buf: &mut [u8], flags: i32) -> SysResult {
    crate::site!(SYS_recvfrom, fd, buf.as_mut_ptr().expose_provenance(), buf.len(), flags, 0, 0)
}

/// `send(2)`.
#[inline(never)]
pub fn send(fd: i32, data: &[u8], flags: i32) -> SysResult {
    crate::site!(SYS_sendto, fd, data.as_ptr().expose_provenance(), data.len(), flags, 0, 0)
}

/// `socketpair(2)` of unix streams.
pub fn stream_pair(flags: i32) -> Result<(i32, i32), i32> {
    let mut fds = [0i32; 2];
    sys!(SYS_socketpair, libc::AF_UNIX, SOCK_STREAM | flags, 0, &mut fds)?;
    Ok((fds[0], fds[1]))
}

/// `sendto(2)`.
pub fn send_to(fd: i32, data: &[u8], addr: &[u8]) -> SysResult {
    sys!(SYS_sendto, fd, data, data.len(), 0, addr, addr.len())
}

/// Sends with one control message, whose value has at most eight bytes.
pub fn send_with(fd: i32, data: &[u8], level: i32, kind: i32, value: &[u8]) -> SysResult {
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut bytes = [0; 8];
    bytes[..value.len()].copy_from_slice(value);
    let head = level as u64 | (kind as u64) << 32;
    let mut control = [16 + value.len() as u64, head, u64::from_ne_bytes(bytes)];
    let mut header: libc::msghdr = zeroed();
    header.msg_iov = &mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = 24 as _;
    sys!(SYS_sendmsg, fd, &header, 0)
}

/// A control message: level, type, value.
pub type Ancillary = (i32, i32, Vec<u8>);

/// Splits the control messages in the first `len` bytes of `room`: level, type, value.
pub fn split_control(room: &[u64], len: usize) -> Vec<Ancillary> {
    let bytes: Vec<u8> = room.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut rest = &bytes[..len];
    let mut messages = Vec::new();
    while rest.len() >= 16 {
        let number = |at: usize| i32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
        let len = number(0) as usize;
        messages.push((number(8), number(12), rest[16..len].to_vec()));
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    messages
}

/// How long a message of at most `len` bytes is, and what came with it: level, type, value.
pub fn receive_message(fd: i32, len: usize) -> Result<(usize, Vec<Ancillary>), i32> {
    let mut data = vec![0u8; len];
    let mut room = [0u64; 16];
    let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: len };
    let mut header: libc::msghdr = zeroed();
    header.msg_iov = &mut iov;
    header.msg_iovlen = 1;
    header.msg_control = room.as_mut_ptr().cast();
    header.msg_controllen = 128 as _;
    let n = sys!(SYS_recvmsg, fd, &mut header, 0)?;
    Ok((n, split_control(&room, header.msg_controllen as usize)))
}

/// Sends a descriptor with data.
pub fn send_file(fd: i32, data: &[u8], file: i32) -> SysResult {
    send_with(fd, data, SOL_SOCKET, libc::SCM_RIGHTS, &file.to_ne_bytes())
}

/// `recvfrom(2)`: the data and the address.
pub fn recv_from(fd: i32, flags: i32) -> Result<(Vec<u8>, Vec<u8>), i32> {
    let mut buf = [0u8; 2048];
    let mut addr = [0u8; 128];
    let mut len = addr.len() as i32;
    let n = sys!(SYS_recvfrom, fd, &mut buf, buf.len(), flags, &mut addr, &mut len)?;
    Ok((buf[..n].to_vec(), addr[..len as usize].to_vec()))
}

/// What a descriptor is ready for now.
pub fn poll(fd: i32, events: i16) -> Result<i16, i32> {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    sys!(SYS_poll, &mut entry, 1, 0)?;
    Ok(entry.revents)
}

/// Waits until a descriptor is ready for one of the events; returns all that it is ready for.
pub fn wait_for(fd: i32, events: i16) -> Result<i16, i32> {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    loop {
        match sys!(SYS_poll, &mut entry, 1, 50_000) {
            Err(libc::EINTR) => {}
            result => return result.map(|_| entry.revents),
        }
    }
}

/// Waits until `poll(2)` shows exactly these events of those asked for; says what it shows at last.
pub fn settles_at(fd: i32, asked: i16, wanted: i16) -> Result<(), String> {
    let mut last = Ok(0);
    let is_settled = crate::proc::until(|| {
        last = poll(fd, asked);
        last == Ok(wanted)
    });
    if is_settled { Ok(()) } else { Err(format!("events {last:?} and not {wanted:#x}")) }
}

/// A port that nobody has in either family and protocol, and that the kernel hands out to nobody:
/// other programs on the same network do not take it between two calls.
pub fn quiet_port() -> Result<u16, i32> {
    const FIRST: u16 = 10_000;
    const N_PORTS: u16 = 20_000;
    for _ in 0..100 {
        let mut bytes = [0u8; 2];
        sys!(SYS_getrandom, &mut bytes, 2, 0)?;
        let port = FIRST + u16::from_ne_bytes(bytes) % N_PORTS;
        let mut is_free = true;
        for kind in [SOCK_STREAM, libc::SOCK_DGRAM] {
            // The wildcard address of IPv6 stands for IPv4 as well.
            let fd = socket(AF_INET6, kind)?;
            is_free &= bind(fd, &addr6([0; 16], port)).is_ok();
            crate::fs::close(fd)?;
        }
        if is_free {
            return Ok(port);
        }
    }
    Err(libc::EADDRINUSE)
}

/// A listening socket on a quiet port, and its address.
pub fn listener(family: i32, backlog: i32) -> Result<(i32, Vec<u8>), i32> {
    let fd = socket(family, SOCK_STREAM)?;
    let port = quiet_port()?;
    let addr = if family == AF_INET { addr4(LOCAL, port) } else { addr6(local6(), port) };
    bind(fd, &addr)?;
    listen(fd, backlog)?;
    Ok((fd, name_of(fd)?))
}

/// A connection: the client's end and the server's.
pub fn connection(family: i32) -> Result<(i32, i32), i32> {
    let (server, addr) = listener(family, 1)?;
    let client = socket(family, SOCK_STREAM)?;
    connect(client, &addr)?;
    let accepted = accept(server, 0)?;
    crate::fs::close(server)?;
    Ok((client, accepted))
}
