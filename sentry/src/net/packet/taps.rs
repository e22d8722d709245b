//! Who is shown the frames of a network namespace.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use super::{PacketEntry, PacketSocket};
use crate::sync::Mutex;

/// Which way a frame goes: the `PACKET_*` of `packet(7)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Direction {
    /// To this host.
    Host,
    /// To everybody.
    Broadcast,
    /// To a group.
    Multicast,
    /// From this host.
    Outgoing,
}

impl Direction {
    /// Returns what Linux calls it.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Host => 0,
            Self::Broadcast => 1,
            Self::Multicast => 2,
            Self::Outgoing => 4,
        }
    }
}

/// Over what a frame goes.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Wire {
    /// The number of the interface and its type.
    pub(in crate::net) interface: i32,
    pub(in crate::net) hardware: u16,
    /// Whether the checksums in the frame are there.
    pub(in crate::net) is_summed: bool,
}

/// The packet sockets of a network namespace.
#[derive(Default)]
pub(in crate::net) struct Taps {
    /// How many there are: looked at first.
    n: AtomicUsize,
    sockets: Mutex<Vec<Weak<PacketSocket>>>,
}

impl Taps {
    /// Returns whether nobody is shown anything.
    pub(in crate::net) fn is_empty(&self) -> bool {
        self.n.load(Ordering::Relaxed) == 0
    }

    pub(super) fn add(&self, socket: &Arc<PacketSocket>) {
        self.sockets.lock().push(Arc::downgrade(socket));
        self.n.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, socket: &PacketSocket) {
        let mut sockets = self.sockets.lock();
        let n_before = sockets.len();
        sockets.retain(|known| !std::ptr::eq(known.as_ptr(), socket));
        self.n.fetch_sub(n_before - sockets.len(), Ordering::Relaxed);
    }

    /// Returns the sockets as `/proc/net/packet` shows them.
    pub(in crate::net) fn entries(&self) -> Vec<PacketEntry> {
        let sockets: Vec<_> = self.sockets.lock().iter().filter_map(Weak::upgrade).collect();
        sockets.iter().map(|socket| socket.entry()).collect()
    }

    /// Shows a frame, from the header of Ethernet on, to everybody but who has sent it.
    pub(in crate::net) fn show(
        &self,
        wire: Wire,
        frame: &[u8],
        direction: Direction,
        sender: Option<&PacketSocket>,
    ) {
        if self.is_empty() {
            return;
        }
        let sockets: Vec<_> = self.sockets.lock().iter().filter_map(Weak::upgrade).collect();
        for socket in sockets {
            let is_sender = sender.is_some_and(|sender| std::ptr::eq(sender, &raw const *socket));
            if !is_sender {
                socket.take(wire, frame, direction);
            }
        }
    }
}
