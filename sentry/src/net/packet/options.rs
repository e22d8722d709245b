//! The options of `SOL_PACKET`.

use std::collections::BTreeMap;

use syscalls::abi::socket::{
    PACKET_ADD_MEMBERSHIP, PACKET_AUXDATA, PACKET_COPY_THRESH, PACKET_DROP_MEMBERSHIP,
    PACKET_IGNORE_OUTGOING, PACKET_LOSS, PACKET_ORIGDEV, PACKET_QDISC_BYPASS, PACKET_RESERVE,
    PACKET_RX_RING, PACKET_STATISTICS, PACKET_TIMESTAMP, PACKET_TX_HAS_OFF, PACKET_VERSION,
};
use syscalls::{Errno, SysResult};

use super::PacketSocket;
use super::ring::{self, Ring};

/// The most memberships of a socket.
const MAX_MEMBERSHIPS: usize = 256;

/// Options that are on or off.
const SWITCHES: [i32; 6] = [
    PACKET_AUXDATA,
    PACKET_IGNORE_OUTGOING,
    PACKET_LOSS,
    PACKET_ORIGDEV,
    PACKET_QDISC_BYPASS,
    PACKET_TX_HAS_OFF,
];

/// The interface, the type and the address of a `struct packet_mreq`.
type Membership = (i32, u16, Vec<u8>);

/// What has been set.
#[derive(Default)]
pub(super) struct Settings {
    numbers: BTreeMap<i32, i32>,
    /// How often each has been asked for.
    memberships: BTreeMap<Membership, u32>,
}

impl Settings {
    fn number(&self, name: i32) -> i32 {
        self.numbers.get(&name).copied().unwrap_or(0)
    }

    fn is_on(&self, name: i32) -> bool {
        self.number(name) != 0
    }

    pub(super) fn ignores_outgoing(&self) -> bool {
        self.is_on(PACKET_IGNORE_OUTGOING)
    }

    pub(super) fn wants_auxdata(&self) -> bool {
        self.is_on(PACKET_AUXDATA)
    }
}

fn number(value: &[u8]) -> SysResult<i32> {
    value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or(Errno::EINVAL)
}

impl PacketSocket {
    /// Returns the bytes of an option.
    pub(super) fn get_option(&self, name: i32) -> SysResult<Vec<u8>> {
        let mut state = self.state.lock();
        match name {
            PACKET_STATISTICS => {
                // Those that were dropped count as well; both begin anew.
                let dropped = std::mem::take(&mut state.n_dropped);
                let all = std::mem::take(&mut state.n_taken).saturating_add(dropped);
                let mut numbers = [all.to_ne_bytes(), dropped.to_ne_bytes()].concat();
                // The third version counts as well how often all blocks were full.
                if state.settings.number(PACKET_VERSION) == ring::V3 {
                    numbers.extend_from_slice(&[0; 4]);
                }
                Ok(numbers)
            }
            PACKET_TIMESTAMP | PACKET_VERSION | PACKET_RESERVE => {
                Ok(state.settings.number(name).to_ne_bytes().to_vec())
            }
            _ if SWITCHES.contains(&name) => {
                let value = state.settings.number(name);
                Ok(value.to_ne_bytes().to_vec())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    /// Sets an option.
    pub(super) fn change_option(&self, name: i32, value: &[u8]) -> SysResult<()> {
        match name {
            PACKET_ADD_MEMBERSHIP | PACKET_DROP_MEMBERSHIP => {
                self.change_membership(value, name == PACKET_ADD_MEMBERSHIP)
            }
            PACKET_COPY_THRESH | PACKET_TIMESTAMP => {
                let value = number(value)?;
                self.state.lock().settings.numbers.insert(name, value);
                Ok(())
            }
            PACKET_VERSION | PACKET_RESERVE => {
                let value = number(value)?;
                let is_known = name == PACKET_RESERVE || ring::header_len(value).is_some();
                if value < 0 || !is_known {
                    return Err(Errno::EINVAL);
                }
                let mut state = self.state.lock();
                if state.ring.is_some() {
                    return Err(Errno::EBUSY);
                }
                state.settings.numbers.insert(name, value);
                Ok(())
            }
            PACKET_RX_RING => {
                let mut state = self.state.lock();
                let version = state.settings.number(PACKET_VERSION);
                let reserve = state.settings.number(PACKET_RESERVE).cast_unsigned();
                let ring = Ring::new(value, version, reserve)?;
                if ring.is_some() && state.ring.is_some() {
                    return Err(Errno::EBUSY);
                }
                let old = std::mem::replace(&mut state.ring, ring);
                drop(state);
                drop(old);
                Ok(())
            }
            PACKET_IGNORE_OUTGOING => {
                let value = number(value)?;
                if !(0..=1).contains(&value) {
                    return Err(Errno::EINVAL);
                }
                self.state.lock().settings.numbers.insert(name, value);
                Ok(())
            }
            _ if SWITCHES.contains(&name) => {
                let value = i32::from(number(value)? != 0);
                self.state.lock().settings.numbers.insert(name, value);
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn change_membership(&self, value: &[u8], joins: bool) -> SysResult<()> {
        // `struct packet_mreq`: the interface, the type, the length of the address, the address.
        const SIZE: usize = 16;
        let interface = number(value)?;
        let field = |at: usize| {
            let bytes = value.get(at..).and_then(<[u8]>::first_chunk).ok_or(Errno::EINVAL)?;
            Ok::<_, Errno>(u16::from_ne_bytes(*bytes))
        };
        let (kind, len) = (field(4)?, usize::from(field(6)?));
        if value.len() < SIZE || value.len() < 8 + len {
            return Err(Errno::EINVAL);
        }
        let addr = value.get(8..8 + len).unwrap_or_default().to_vec();
        if joins {
            self.face(interface).ok_or(Errno::ENODEV)?;
            // One of Ethernet has six bytes.
            const ETH_ALEN: usize = 6;
            if len > ETH_ALEN {
                return Err(Errno::EINVAL);
            }
        }
        let mut state = self.state.lock();
        let memberships = &mut state.settings.memberships;
        let key = (interface, kind, addr);
        let is_full = memberships.len() >= MAX_MEMBERSHIPS;
        match memberships.get_mut(&key) {
            Some(count) if joins => *count = count.saturating_add(1),
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => drop(memberships.remove(&key)),
            None if !joins => {}
            None if is_full => return Err(Errno::ENOBUFS),
            None => drop(memberships.insert(key, 1)),
        }
        Ok(())
    }
}
