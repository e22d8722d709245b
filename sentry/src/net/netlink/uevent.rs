//! `NETLINK_KOBJECT_UEVENT`: the kernel tells of no device, but programs tell each other, as udev does.

use std::sync::{Arc, Weak};

use syscalls::abi::netlink::{NETLINK_KOBJECT_UEVENT, NETLINK_ROUTE};
use syscalls::abi::socket::SockaddrNl;
use syscalls::{Errno, SysResult};

use super::{NetlinkSocket, Received};
use crate::net::control::Sender;
use crate::net::filter::Seen;
use crate::sync::Events;
use crate::task::CurrentTask;

impl NetlinkSocket {
    /// Makes the socket known to those that send.
    pub(super) fn hear(self: &Arc<Self>) {
        if !matches!(self.protocol, NETLINK_KOBJECT_UEVENT | NETLINK_ROUTE) {
            return;
        }
        let mut hearers = self.registry().hearers.lock();
        hearers.retain(|socket| socket.strong_count() > 0);
        hearers.push(Arc::downgrade(self));
    }

    /// Sends a message to everybody in a group, and to one socket or the kernel.
    ///
    /// # Errors
    /// `ECONNREFUSED` where nobody has the number.
    pub(super) fn tell(&self, task: &CurrentTask, data: &[u8], to: &SockaddrNl) -> SysResult<()> {
        let hearers: Vec<Arc<Self>> = {
            let hearers = self.registry().hearers.lock();
            hearers.iter().filter_map(Weak::upgrade).collect()
        };
        let from = self.state.lock().port;
        // Of several groups the first one counts.
        let group = Some(to.nl_groups.trailing_zeros() + 1).filter(|_| to.nl_groups != 0);
        let mut is_heard = to.nl_pid == 0;
        let is_near = |hearer: &&Arc<Self>| {
            hearer.protocol == self.protocol && Arc::ptr_eq(&hearer.inet, &self.inet)
        };
        for hearer in hearers.iter().filter(is_near) {
            let n_groups = {
                let state = hearer.state.lock();
                if state.port != 0 && state.port == to.nl_pid {
                    is_heard = true;
                    0
                } else {
                    match group {
                        Some(group) if state.port != from && state.groups.contains(&group) => group,
                        _ => continue,
                    }
                }
            };
            let Some(n) = hearer.options.filter.admits(&Seen::plain(data), 1) else { continue };
            let received = Received {
                data: data.get(..n).unwrap_or(data).to_vec(),
                from: (from, if n_groups == 0 { 0 } else { 1 << (n_groups - 1) }),
                sender: Some(Sender::current(task)),
            };
            hearer.answer(&mut hearer.state.lock(), received);
            hearer.queue.notify(Events::READABLE);
        }
        if is_heard { Ok(()) } else { Err(Errno::ECONNREFUSED) }
    }
}
