//! Listening sockets in the container's network namespace, for what the host connects to on its
//! loopback addresses: port forwarding of containerd and CRI-O. The sentry, which may neither make
//! nor bind a socket, asks the monitor for each and takes the connections itself.
//!
//! Architecture Invariant: what the sentry can ask for is a port of a loopback address in a network
//! namespace that is the container's own, never the caller's.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use sentry::control::Request;

use super::control_client::ControlClient;

/// How many connections wait at most: the host has a limit of its own.
const BACKLOG: i32 = 4096;

/// Answers a `Listen` of the sentry.
pub(super) fn answer(control: &mut ControlClient, port: u16, is_v6: bool) -> anyhow::Result<()> {
    let socket = listen(port, is_v6);
    // A port that somebody else has, or a host without IPv6, is one without a door.
    let descriptors: Vec<_> = socket.iter().map(OwnedFd::as_fd).collect();
    control.send_with(&Request::Door { port, is_v6 }, &descriptors)
}

fn listen(port: u16, is_v6: bool) -> io::Result<OwnedFd> {
    let family = if is_v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of an earlier one may not have ended.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // The loopback interface may be down so far.
    if is_v6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
        sockopt::set_ipv6_freebind(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0))?;
    } else {
        sockopt::set_ip_freebind(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}
