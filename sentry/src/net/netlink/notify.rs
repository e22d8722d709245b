//! What the members of groups are told when the loopback interface or its addresses change.
//!
//! DEVIATION: the messages do not say whose request it was, and changes of routes are not told.

use std::sync::{Arc, Weak};

use syscalls::abi::netlink::{NETLINK_ROUTE, RTM_DELADDR};

use super::message::{self, Part};
use super::{NetlinkSocket, Received, route};
use crate::kernel::Kernel;
use crate::net::filter::Seen;
use crate::net::inet::{Inet, LoopbackAddr};
use crate::sync::Events;

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`
const GROUP_LINK: u32 = 1;
const GROUP_IPV4: u32 = 5;
const GROUP_IPV6: u32 = 9;

/// What there is to be told of.
struct Shown {
    link: Part,
    addrs: Vec<LoopbackAddr>,
}

impl Shown {
    fn of(inet: &Inet) -> Self {
        Self { link: route::link(inet), addrs: inet.loopback().addrs() }
    }

    /// Returns what has changed since, and which groups that concerns.
    fn changes(&self, since: &Self) -> Vec<(u32, Part)> {
        let mut changes = Vec::new();
        if self.link.payload() != since.link.payload() {
            changes.push((GROUP_LINK, self.link.clone()));
        }
        let group = |addr: &LoopbackAddr| if addr.ip.is_ipv4() { GROUP_IPV4 } else { GROUP_IPV6 };
        for gone in since.addrs.iter().filter(|addr| !self.is_there(addr)) {
            changes.push((group(gone), route::addr(gone).1.with_kind(RTM_DELADDR)));
        }
        for new in self.addrs.iter().filter(|addr| !since.addrs.contains(addr)) {
            changes.push((group(new), route::addr(new).1));
        }
        changes
    }

    /// Returns whether an address is there, if perhaps with something else about it.
    fn is_there(&self, addr: &LoopbackAddr) -> bool {
        self.addrs.iter().any(|own| (own.ip, own.prefix) == (addr.ip, addr.prefix))
    }
}

/// Makes a change and tells whoever wants to hear of it.
pub(crate) fn announcing<T>(kernel: &Kernel, inet: &Arc<Inet>, change: impl FnOnce() -> T) -> T {
    let hearers: Vec<Arc<NetlinkSocket>> = {
        let hearers = kernel.netlink.hearers.lock();
        hearers.iter().filter_map(Weak::upgrade).collect()
    };
    let is_concerned = |hearer: &&Arc<NetlinkSocket>| {
        hearer.protocol == NETLINK_ROUTE
            && Arc::ptr_eq(&hearer.inet, inet)
            && !hearer.state.lock().groups.is_empty()
    };
    let hearers: Vec<_> = hearers.iter().filter(is_concerned).collect();
    if hearers.is_empty() {
        return change();
    }
    let before = Shown::of(inet);
    let result = change();
    for (group, part) in Shown::of(inet).changes(&before) {
        let data = message::notification(&part);
        for hearer in &hearers {
            hearer.hear_of(group, &data);
        }
    }
    result
}

impl NetlinkSocket {
    /// Is told something as a member of a group, if it is one.
    fn hear_of(&self, group: u32, data: &[u8]) {
        if !self.state.lock().groups.contains(&group) {
            return;
        }
        let Some(n) = self.options.filter.admits(&Seen::plain(data), 1) else { return };
        let data = data.get(..n).unwrap_or(data).to_vec();
        let received = Received { data, from: (0, 1 << (group - 1)), sender: None };
        self.answer(&mut self.state.lock(), received);
        self.queue.notify(Events::READABLE);
    }
}
