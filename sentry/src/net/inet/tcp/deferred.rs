//! `TCP_DEFER_ACCEPT`: connections that nobody may take before the client has sent something, or some
//! time has passed.

use std::sync::{Arc, Weak};

use syscalls::abi::socket::TCP_DEFER_ACCEPT;

use super::conn::Phase;
use super::remote::Stream;
use super::{Role, TcpSocket};
use crate::net::Socket as _;
use crate::sync::{Events, Registration, Waiter};
use crate::time::TimerHandle;

/// A connection that has come about, and is not in the queue yet.
pub(super) struct Deferred {
    pub(super) server: Arc<TcpSocket>,
    stream: Stream,
    until_ns: u64,
    _watch: Arc<dyn Waiter>,
    _registration: Registration,
    _timer: TimerHandle,
}

/// Looks after the connections of a listening socket when one of them has got something.
struct Watch(Weak<TcpSocket>);

impl Waiter for Watch {
    fn notify(&self, _key: u64, _events: Events) {
        if let Some(listener) = self.0.upgrade() {
            listener.admit_deferred();
        }
    }
}

impl TcpSocket {
    /// Returns how a connection that has come about waits, where it has to. [`Self::admit_deferred`] is
    /// to be called once it is known.
    pub(super) fn defer(&self, server: &Arc<Self>, stream: &Stream) -> Option<Deferred> {
        let seconds = self.tcp.get(TCP_DEFER_ACCEPT)?;
        let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0)?;
        let now_ns = self.kernel.clock.monotonic_ns();
        let until_ns = now_ns.saturating_add(seconds.saturating_mul(1_000_000_000));
        let watch: Arc<dyn Waiter> = Arc::new(Watch(self.this.clone()));
        Some(Deferred {
            server: server.clone(),
            stream: stream.clone(),
            until_ns,
            _registration: server.queue.register(&watch, Events::all(), 0),
            _timer: self.kernel.timers.schedule(until_ns, &watch, 0),
            _watch: watch,
        })
    }

    /// Puts connections into the queue for which it is time, and forgets those that are over.
    pub(super) fn admit_deferred(&self) {
        let mut admitted = Vec::new();
        let mut lost = Vec::new();
        {
            let mut state = self.state.lock();
            let Role::Listening { pending, deferred, .. } = &mut state.role else { return };
            let now_ns = self.kernel.clock.monotonic_ns();
            for entry in std::mem::take(deferred) {
                let look = entry.stream.look(false);
                if look.n_readable > 0 || look.is_receive_shut && look.phase != Phase::Closed {
                    pending.push_back(entry.server.clone());
                    admitted.push(entry);
                } else if look.phase == Phase::Closed {
                    lost.push(entry);
                } else if now_ns >= entry.until_ns {
                    pending.push_back(entry.server.clone());
                    admitted.push(entry);
                } else {
                    deferred.push(entry);
                }
            }
        }
        if !admitted.is_empty() {
            self.queue.notify(Events::READABLE);
        }
        if !lost.is_empty() {
            for entry in &lost {
                entry.server.close();
            }
            self.admit_waiting();
        }
    }
}
