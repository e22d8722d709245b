//! What a sandbox has taken from a network namespace, in a file of the container's directory: the
//! host's own messages about addresses and routes, which put them back as they were.
//!
//! `delete` does that, and so does the next sandbox in the namespace where nobody has deleted the
//! first one so far.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{
    ADD, RTA_GATEWAY, RTM_NEWADDR, RTM_NEWROUTE, attribute, change, dump, interface, messages,
};
use crate::container::Container;
use crate::log;

/// The name of the file.
pub(crate) const FILE: &str = "network.json";

/// `IFA_FLAGS` and `IFA_F_NODAD`: nobody else can have got the address meanwhile.
const IFA_FLAGS: u16 = 8;
const NODAD: u8 = 2;

/// Who has made a route (`rtm_protocol`): redirects, the kernel, router advertisements. These come
/// again by themselves.
const RTPROT_OF_ITSELF: [u8; 3] = [1, 2, 9];

/// `RTNH_F_ONLINK`
const ONLINK: u8 = 4;

/// What was taken, and where.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Taken {
    /// The device and the inode of the network namespace.
    pub(super) namespace: (u64, u64),
    /// The number and the address of each interface.
    pub(super) interfaces: Vec<(i32, [u8; 6])>,
    /// The bodies of messages `RTM_NEWADDR`.
    addrs: Vec<Vec<u8>>,
    /// Those of messages `RTM_NEWROUTE`.
    routes: Vec<Vec<u8>>,
}

impl Taken {
    /// Adds an address, as the host tells it.
    pub(super) fn add_addr(&mut self, message: &[u8]) {
        self.addrs.push(without_conflict_detection(message));
    }

    /// Adds a route, as the host tells it.
    pub(super) fn add_route(&mut self, message: &[u8]) {
        if message.get(5).is_none_or(|protocol| RTPROT_OF_ITSELF.contains(protocol)) {
            return;
        }
        let mut message = message.to_vec();
        // The others are what the host has found out about it.
        if let Some([flags, rest @ ..]) = message.get_mut(8..12) {
            *flags &= ONLINK;
            rest.fill(0);
        }
        self.routes.push(message);
    }

    /// Reads the file of a container, where there is one.
    pub(super) fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result
                .map_err(anyhow::Error::from)
                .and_then(|text| Ok(Some(serde_json::from_slice(&text)?)))
                .with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Writes the file of a container, where anything is taken.
    pub(super) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        if self.addrs.is_empty() {
            return Ok(());
        }
        let (path, temporary) = (dir.join(FILE), dir.join(".network.json"));
        let text = serde_json::to_vec(self)?;
        File::create(&temporary)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Removes the file of a container.
    pub(super) fn forget(dir: &Path) -> anyhow::Result<()> {
        match fs::remove_file(dir.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(format!("removing {FILE}"))
            }
            _ => Ok(()),
        }
    }

    /// Puts back what was taken, in the namespace that this thread is in, as far as its interfaces
    /// are still there.
    pub(super) fn give_back(&self) -> anyhow::Result<()> {
        let links = dump(super::RTM_GETLINK, &[0; 16])?;
        let there: Vec<_> = messages(&links, super::RTM_NEWLINK)
            .into_iter()
            .filter_map(interface)
            .map(|known| (known.index, known.mac))
            .collect();
        let mut result = Ok(());
        let has_gateway = |message: &Vec<u8>| {
            attribute(message.get(12..).unwrap_or_default(), RTA_GATEWAY).is_some()
        };
        let is_there = |message: &&Vec<u8>| {
            let index = super::number32(message, 4).map(u32::cast_signed);
            there.iter().any(|known| Some(known.0) == index && self.interfaces.contains(known))
        };
        let addrs = self.addrs.iter().filter(is_there).map(|message| (RTM_NEWADDR, message));
        // The way to a router comes before the ways over it.
        let (over, direct): (Vec<_>, Vec<_>) = self.routes.iter().partition(|it| has_gateway(it));
        let routes = direct.into_iter().chain(over).map(|message| (RTM_NEWROUTE, message));
        for (kind, message) in addrs.chain(routes) {
            match change(kind, ADD, message) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                Err(error) if result.is_ok() => {
                    result = Err(error).context("putting addresses and routes back");
                }
                _ => {}
            }
        }
        result
    }
}

/// Returns an address that is taken for granted.
fn without_conflict_detection(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    // `ifa_flags`, and their longer form behind the structure.
    if let Some(flags) = message.get_mut(2) {
        *flags |= NODAD;
    }
    let mut at = 8;
    while let Some(len) = super::number16(&message, at).map(usize::from).filter(|len| *len >= 4) {
        if super::number16(&message, at + 2) == Some(IFA_FLAGS)
            && let Some(flags) = message.get_mut(at + 4)
        {
            *flags |= NODAD;
        }
        at += len.next_multiple_of(4);
    }
    message
}

/// Puts back what dead sandboxes have taken from the namespace that this thread is in. Returns whether
/// there was any.
pub(super) fn give_back_leftovers(
    container: &Container,
    namespace: (u64, u64),
) -> anyhow::Result<bool> {
    let mut has_any = false;
    for other in Container::list(container.root())? {
        let taken = match Taken::read(&other.dir) {
            Ok(Some(taken)) if taken.namespace == namespace => taken,
            Ok(_) => continue,
            Err(error) => {
                log::warning(&format!("{error:#}"));
                continue;
            }
        };
        if other.state.monitor.is_some_and(|monitor| monitor.is_alive()) {
            continue;
        }
        if let Some(sentry) = other.state.sentry {
            // It dies with its monitor, if not at once.
            sentry.kill_and_wait()?;
        }
        taken.give_back()?;
        Taken::forget(&other.dir)?;
        has_any = true;
    }
    Ok(has_any)
}

#[cfg(test)]
mod tests {
    use super::{Taken, without_conflict_detection};

    #[test]
    fn flags_of_an_address_are_set_in_both_places() {
        // IFA_LOCAL, then IFA_FLAGS with what the first byte has.
        let mut message = vec![2, 24, 0x80, 0, 5, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 1];
        message.extend([8, 0, 8, 0, 0x80, 0, 0, 0]);
        let changed = without_conflict_detection(&message);
        assert_eq!((changed[2], changed[20]), (0x82, 0x82));
        // One that is cut is left as it is.
        assert_eq!(without_conflict_detection(&[10, 64]), [10, 64]);
        assert_eq!(without_conflict_detection(&[0; 12])[2], 2);
    }

    #[test]
    fn routes_that_come_by_themselves_are_not_kept() {
        let mut taken = Taken::default();
        for protocol in [1, 2, 3, 4, 9, 16] {
            taken.add_route(&[2, 0, 0, 0, 254, protocol, 0, 1, 0x15, 1, 0, 0]);
        }
        taken.add_route(&[2]);
        let protocols: Vec<_> = taken.routes.iter().map(|route| (route[5], route[8])).collect();
        assert_eq!(protocols, [(3, 4), (4, 4), (16, 4)]);
    }
}
