//! Whom a datagram socket talks to.

use std::sync::{Arc, Weak};

use syscalls::{Errno, SysResult};

use super::address::Given;
use super::{Role, UnixSocket};
use crate::sync::Events;
use crate::task::CurrentTask;

impl UnixSocket {
    /// Implements `connect(2)`: as often as one likes.
    pub(super) fn connect_datagram(&self, task: &CurrentTask, given: Given) -> SysResult<()> {
        let (peer, peer_addr) = match given {
            Given::Unspecified => (None, None),
            Given::Auto => return Err(Errno::EINVAL),
            Given::Address(address) => {
                let peer = task.kernel.unix_sockets.find(task, &address, (self.net, self.kind))?;
                if peer.kind != self.kind {
                    return Err(Errno::EPROTOTYPE);
                }
                if !peer.accepts_from(self) {
                    return Err(Errno::EPERM);
                }
                let local = peer.state.lock().local.clone();
                (Some(Arc::downgrade(&peer)), Some(local))
            }
        };
        let old = {
            let mut state = self.state.lock();
            state.role = if peer.is_some() { Role::Connected } else { Role::Idle };
            let is_other = match (&state.peer, &peer) {
                (Some(old), Some(new)) => !old.ptr_eq(new),
                _ => true,
            };
            let old = std::mem::replace(&mut state.peer, peer);
            state.peer_addr = peer_addr;
            old.filter(|_| is_other)
        };
        if let Some(old) = old {
            self.leave_peer(&old);
        }
        self.queue.notify(Events::WRITABLE);
        Ok(())
    }

    /// Ends a conversation of datagrams: what has come is lost, and where something was, a peer that
    /// talks to this socket only is told.
    pub(super) fn leave_peer(&self, old: &Weak<Self>) {
        let mut unread = self.inbox.lock().take_all();
        Self::wake_senders(&unread.unblock());
        let has_lost = !unread.is_empty();
        drop(unread);
        if !has_lost {
            return;
        }
        let Some(old) = old.upgrade() else { return };
        {
            let mut state = old.state.lock();
            if !state.peer.as_ref().is_some_and(|peer| peer.ptr_eq(&self.this)) {
                return;
            }
            state.error = Some(Errno::ECONNRESET);
        }
        old.queue.notify(Events::all());
    }

    /// Returns whether a datagram socket takes messages from `sender`: one that is connected takes
    /// those of its peer only.
    pub(super) fn accepts_from(&self, sender: &Self) -> bool {
        let state = self.state.lock();
        state.peer.as_ref().is_none_or(|peer| peer.ptr_eq(&sender.this))
    }
}
