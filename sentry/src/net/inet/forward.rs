//! What reaches the sandbox's TCP ports past its own network: connections that somebody makes in
//! the container's network namespace on the host, to the loopback addresses there (Kubernetes' port
//! forwarding), and those that `runsc port-forward` brings.
//!
//! For each port on which somebody listens here, on a loopback address or on all, the monitor, which
//! is in that namespace, makes a listening socket of the host and hands it in: a [`Door`]. From then
//! on it is a further source of connections for the socket that listens here ([`super::tcp`]), and
//! nothing runs until there is one. One door at a time is asked for, so that a guest that
//! listens and stops again and again keeps the monitor no busier than itself.
//!
//! The lock is taken with that of a socket held, and takes the table of ports.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use syscalls::{Errno, SysResult};

use super::addr::Endpoint;
use super::{Inet, tcp};
use crate::control::StatusNotifier;
use crate::fs::host_fd::HostPoller;
use crate::sync::Mutex;

/// How many doors there are at a time.
const MAX_OPEN: usize = 256;

/// A port of one of the two loopback addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Door {
    /// The port.
    pub port: u16,
    /// Whether it is `::1`.
    pub is_v6: bool,
}

impl Door {
    /// Returns the address.
    pub(super) fn endpoint(self) -> Endpoint {
        let ip = if self.is_v6 {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        } else {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        };
        Endpoint { ip, port: self.port }
    }
}

/// Who watches the host's sockets, and who asks for them.
struct Wiring {
    poller: Arc<HostPoller>,
    notifier: StatusNotifier,
}

#[derive(Default)]
struct Doors {
    /// Those that are wanted, as far as is known.
    waiting: BTreeSet<Door>,
    /// The one that has been asked for.
    asked: Option<Door>,
    open: BTreeSet<Door>,
}

/// The doors of a sandbox.
#[derive(Default)]
pub(super) struct Forwards {
    wiring: OnceLock<Wiring>,
    doors: Mutex<Doors>,
}

impl Inet {
    /// From now on somebody opens the doors that are wanted.
    pub fn serve_doors(&self, poller: &Arc<HostPoller>, notifier: &StatusNotifier) {
        let wiring = Wiring { poller: poller.clone(), notifier: notifier.clone() };
        // Whoever came first goes on.
        let _ = self.forwards.wiring.set(wiring);
    }

    /// Is told that somebody has begun to listen at a port.
    pub(super) fn want_doors(&self, port: u16) {
        let Some(wiring) = self.forwards.wiring.get() else { return };
        {
            let mut doors = self.forwards.doors.lock();
            doors.waiting.extend([false, true].map(|is_v6| Door { port, is_v6 }));
        }
        wiring.notifier.notify();
    }

    /// Is told that a door is shut. `is_retried`: another socket may listen at the same port.
    pub(super) fn lose_door(&self, door: Door, is_retried: bool) {
        let Some(wiring) = self.forwards.wiring.get() else { return };
        {
            let mut doors = self.forwards.doors.lock();
            doors.open.remove(&door);
            if is_retried {
                doors.waiting.insert(door);
            }
        }
        wiring.notifier.notify();
    }

    /// Returns the next door that is wanted. Until [`Inet::open_door`] is called there is no other.
    pub fn next_door(&self) -> Option<Door> {
        self.forwards.wiring.get()?;
        let mut doors = self.forwards.doors.lock();
        while doors.asked.is_none() && doors.open.len() < MAX_OPEN {
            let door = doors.waiting.pop_first()?;
            let to = door.endpoint();
            let nobody = Endpoint { port: 0, ..to };
            if !doors.open.contains(&door) && self.find_listener(nobody, to).is_some() {
                doors.asked = Some(door);
                return Some(door);
            }
        }
        None
    }

    /// Takes the listening socket for the door that was asked for; none where there can be none.
    pub fn open_door(&self, door: Door, socket: Option<OwnedFd>) {
        let Some(wiring) = self.forwards.wiring.get() else { return };
        let to = door.endpoint();
        {
            let mut doors = self.forwards.doors.lock();
            if doors.asked != Some(door) {
                return;
            }
            doors.asked = None;
            if socket.is_none() {
                return;
            }
            doors.open.insert(door);
        }
        let listener = self.find_listener(Endpoint { port: 0, ..to }, to);
        match (listener, socket) {
            (Some(listener), Some(socket)) => listener.open_door(&wiring.poller, socket, door),
            // Nobody listens any more.
            _ => self.lose_door(door, false),
        }
    }

    /// Gives a connection of the host's to whoever listens at a port.
    ///
    /// # Errors
    /// `ECONNREFUSED` where nobody does, or has no room; `ENOMEM`.
    pub fn connect_from_host(
        &self,
        poller: &Arc<HostPoller>,
        socket: OwnedFd,
        port: u16,
    ) -> SysResult<()> {
        let found = [false, true].into_iter().find_map(|is_v6| {
            let to = Door { port, is_v6 }.endpoint();
            let from = Endpoint { port: 0, ..to };
            Some((self.find_listener(from, to)?, from, to))
        });
        let (listener, from, to) = found.ok_or(Errno::ECONNREFUSED)?;
        let connection = tcp::HostConnection { socket, from, to };
        listener.admit_from_host(poller, connection)
    }
}
