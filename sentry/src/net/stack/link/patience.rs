//! How long a peer may be silent: keep-alive probes (`SO_KEEPALIVE`), and when a connection is given up
//! (`TCP_KEEPCNT`, `TCP_USER_TIMEOUT`).

use syscalls::Errno;
use syscalls::abi::socket::SO_KEEPALIVE;

use super::{Core, Link};
use crate::net::stack::output::Quality;
use crate::net::stack::timers::NEVER;
use crate::net::stack::wire;

/// How long data may remain without an acknowledgement: fifteen retransmissions on Linux.
const STALL_NS: u64 = 924_600_000_000;

/// The same where nobody has the connection any more: eight (`tcp_orphan_retries`).
const ORPHAN_STALL_NS: u64 = 102_200_000_000;

impl Link {
    pub(super) fn is_kept_alive(&self) -> bool {
        self.options.switch(SO_KEEPALIVE) == Some(true)
    }

    /// Returns when data that nobody acknowledges are given up.
    pub(super) fn stalls_at_ns(&self, core: &Core) -> u64 {
        let usual_ns = if core.is_orphan { ORPHAN_STALL_NS } else { STALL_NS };
        let limit_ns = self.options.patience.lock().user_timeout_ns.unwrap_or(usual_ns);
        core.heard_ns.saturating_add(limit_ns)
    }

    /// Returns when a silent peer is asked whether it is there, if it is.
    pub(super) fn probes_at_ns(&self, core: &Core) -> u64 {
        if !core.is_up || core.is_over || core.is_awaiting() || !self.is_kept_alive() {
            return NEVER;
        }
        let patience = *self.options.patience.lock();
        if core.n_probes == 0 {
            core.heard_ns.saturating_add(patience.idle_ns)
        } else {
            core.probed_ns.saturating_add(patience.interval_ns)
        }
    }

    /// Asks a silent peer whether it is there, or gives it up, where that is due. (`SO_KEEPALIVE`)
    pub(super) fn keep_alive(&self, core: &mut Core, now_ns: u64) {
        if now_ns < self.probes_at_ns(core) {
            return;
        }
        let patience = *self.options.patience.lock();
        let silent_ns = now_ns.saturating_sub(core.heard_ns);
        let is_enough = match patience.user_timeout_ns {
            Some(limit_ns) => core.n_probes > 0 && silent_ns >= limit_ns,
            None => core.n_probes >= patience.n_probes,
        };
        if is_enough {
            let error = (!core.is_orphan).then_some(Errno::ETIMEDOUT);
            core.abort(error);
            return;
        }
        core.n_probes = core.n_probes.saturating_add(1);
        core.probed_ns = now_ns;
        let Some(told) = core.told else { return };
        let pair = (self.local.ip, self.remote.ip);
        let probe = told.probe((self.local.port, self.remote.port), pair);
        let quality = Quality { ttl: 64, tos: 0, is_whole: true };
        // One that has no way is one that was lost.
        let _ = self.stack.send_segment(pair, wire::PROTOCOL_TCP, &probe, quality);
    }
}
