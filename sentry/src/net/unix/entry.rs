//! What is shown of a unix socket to others than its owner.

use std::sync::atomic::Ordering;

use super::address::Address;
use super::{Role, UnixSocket};
use crate::net::Socket;

/// A line of `/proc/net/unix`, or what `sock_diag(7)` says of a socket.
#[derive(Clone, Debug)]
pub struct UnixEntry {
    /// The path, the abstract name behind a NUL, or nothing.
    pub name: Vec<u8>,
    /// `SOCK_*`
    pub kind: i32,
    /// Whether it listens.
    pub is_listening: bool,
    /// Whether it is connected.
    pub is_connected: bool,
    /// The inode number of the socket's file.
    pub ino: u64,
    /// That of the peer's.
    pub peer: Option<u64>,
    /// Bytes (or connections) that wait to be received, and that the peer has not received (or how many
    /// connections may wait).
    pub queues: (usize, usize),
    /// What `shutdown(2)` has ended: receiving, sending.
    pub shutdown: u8,
}

impl UnixSocket {
    /// Returns the socket as `/proc/net/unix` shows it.
    pub(super) fn entry(&self) -> UnixEntry {
        let (unread, unsent) = self.n_pending();
        let is_ended = self.inbox.lock().is_ended;
        let (mut entry, peer) = {
            let state = self.state.lock();
            let name = state.local.get().map(|name| Address::encode(Some(name)));
            // Without the family, and without the NUL that ends a path.
            let name = name.as_ref().and_then(|name| name.get(2..)).unwrap_or_default();
            let is_abstract = name.first() == Some(&0);
            let name = if is_abstract { name } else { name.strip_suffix(b"\0").unwrap_or(name) };
            let n_waiting = match &state.role {
                Role::Listening { pending, backlog } => Some((pending.len(), *backlog)),
                _ => None,
            };
            let entry = UnixEntry {
                name: name.to_vec(),
                kind: self.identity().1,
                is_listening: n_waiting.is_some(),
                is_connected: matches!(state.role, Role::Connected),
                ino: self.ino.load(Ordering::Relaxed),
                peer: None,
                queues: n_waiting.unwrap_or((unread, unsent)),
                shutdown: u8::from(is_ended) | u8::from(state.is_send_shut) << 1,
            };
            (entry, state.peer.clone())
        };
        let peer = peer.and_then(|peer| peer.upgrade());
        entry.peer = peer.map(|peer| peer.ino.load(Ordering::Relaxed)).filter(|ino| *ino != 0);
        entry
    }
}
