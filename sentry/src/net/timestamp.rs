//! When something was received and sent: `SO_TIMESTAMP`, `SO_TIMESTAMPNS`, `SO_TIMESTAMPING`, and the options
//! of the same names that show times the way every architecture does.
//!
//! DEVIATION: connections are not stamped, and there is no hardware that stamps.

use std::sync::atomic::{AtomicU32, Ordering};

use syscalls::abi::socket::{
    SO_TIMESTAMP, SO_TIMESTAMP_NEW, SO_TIMESTAMPING, SO_TIMESTAMPING_NEW, SO_TIMESTAMPNS,
    SO_TIMESTAMPNS_NEW, SOL_SOCKET, StampFlags,
};
use syscalls::abi::time::{Timespec, Timeval};
use syscalls::{Errno, SysResult};
use zerocopy::IntoBytes;

use super::Ancillary;

/// Whether what is received comes with its time; whether that is in nanoseconds; whether the options say `_NEW`.
const RECEIVES: u32 = 1 << 31;
const IN_NANOSECONDS: u32 = 1 << 30;
const IS_NEW: u32 = 1 << 29;

/// Whom the flags of a send may ask for a time.
const RECORDS: StampFlags = StampFlags::TX_HARDWARE
    .union(StampFlags::TX_SOFTWARE)
    .union(StampFlags::TX_SCHED)
    .union(StampFlags::TX_ACK)
    .union(StampFlags::TX_COMPLETION);

/// What a socket's options say of times.
#[derive(Debug, Default)]
pub struct Stamping {
    /// The flags of `SO_TIMESTAMPING`, and the bits above.
    bits: AtomicU32,
    /// The number of the next datagram whose sending is stamped.
    next: AtomicU32,
}

/// Returns whether an option is one of these.
pub fn is_option(name: i32) -> bool {
    matches!(
        name,
        SO_TIMESTAMP
            | SO_TIMESTAMPNS
            | SO_TIMESTAMPING
            | SO_TIMESTAMP_NEW
            | SO_TIMESTAMPNS_NEW
            | SO_TIMESTAMPING_NEW
    )
}

/// Reads what a control message asks for one datagram.
///
/// # Errors
/// `EINVAL`.
pub fn read_record(data: &[u8]) -> SysResult<StampFlags> {
    let bits = data.try_into().map(u32::from_ne_bytes).map_err(|_| Errno::EINVAL)?;
    let flags = StampFlags::from_bits_retain(bits);
    if RECORDS.contains(flags) { Ok(flags) } else { Err(Errno::EINVAL) }
}

impl Stamping {
    /// Returns a copy.
    pub fn inherit(&self) -> Self {
        let bits = AtomicU32::new(self.bits.load(Ordering::Relaxed));
        Self { bits, next: AtomicU32::new(0) }
    }

    fn bits(&self) -> u32 {
        self.bits.load(Ordering::Relaxed)
    }

    fn has(&self, bits: u32) -> bool {
        self.bits() & bits == bits
    }

    /// Returns the flags of `SO_TIMESTAMPING`.
    pub fn flags(&self) -> StampFlags {
        StampFlags::from_bits_retain(self.bits() & !(RECEIVES | IN_NANOSECONDS | IS_NEW))
    }

    /// Returns the bytes of an option; `None` for others.
    pub fn get(&self, name: i32) -> Option<Vec<u8>> {
        let is_new = self.has(IS_NEW);
        let shows = |is_in_ns: bool, shows_new: bool| {
            let is_on = self.has(RECEIVES);
            let is_it = self.has(IN_NANOSECONDS) == is_in_ns && is_new == shows_new;
            i32::from(is_on && is_it).to_ne_bytes().to_vec()
        };
        Some(match name {
            SO_TIMESTAMP => shows(false, false),
            SO_TIMESTAMPNS => shows(true, false),
            // As on Linux, this one does not mind the unit.
            SO_TIMESTAMP_NEW => shows(self.has(IN_NANOSECONDS), true),
            SO_TIMESTAMPNS_NEW => shows(true, true),
            SO_TIMESTAMPING | SO_TIMESTAMPING_NEW => {
                let is_shown = name == SO_TIMESTAMPING || is_new;
                let flags = if is_shown { self.flags().bits() } else { 0 };
                // `struct so_timestamping`: behind the flags is the number of a clock.
                [flags, 0].as_bytes().to_vec()
            }
            _ => return None,
        })
    }

    /// Sets an option; `is_unconnected` says that the socket is for a connection that it does not have.
    ///
    /// # Errors
    /// `EINVAL` for flags that are none or do not go together, `EOPNOTSUPP` for clocks of hardware.
    pub fn set(&self, name: i32, value: i32, is_unconnected: bool) -> SysResult<()> {
        let is_new = matches!(name, SO_TIMESTAMP_NEW | SO_TIMESTAMPNS_NEW | SO_TIMESTAMPING_NEW);
        let new = if is_new { IS_NEW } else { 0 };
        let old = self.bits();
        if !matches!(name, SO_TIMESTAMPING | SO_TIMESTAMPING_NEW) {
            let is_in_ns = matches!(name, SO_TIMESTAMPNS | SO_TIMESTAMPNS_NEW);
            let kept = old & !(RECEIVES | IN_NANOSECONDS);
            let bits = match (value != 0, is_in_ns) {
                (false, _) => kept,
                (true, true) => kept & !IS_NEW | RECEIVES | IN_NANOSECONDS | new,
                (true, false) => kept & !IS_NEW | RECEIVES | new,
            };
            self.bits.store(bits, Ordering::Relaxed);
            return Ok(());
        }
        let flags = StampFlags::from_bits_retain(value.cast_unsigned());
        let has = |flag: StampFlags| flags.contains(flag);
        let begins_numbers = has(StampFlags::OPT_ID) && !self.flags().contains(StampFlags::OPT_ID);
        if flags.has_unknown_bits()
            || (has(StampFlags::OPT_ID_TCP) && !has(StampFlags::OPT_ID))
            || (begins_numbers && is_unconnected)
            || (has(StampFlags::OPT_STATS) && !has(StampFlags::OPT_TSONLY))
        {
            return Err(Errno::EINVAL);
        }
        if begins_numbers {
            self.next.store(0, Ordering::Relaxed);
        }
        if has(StampFlags::BIND_PHC) {
            return Err(Errno::EOPNOTSUPP);
        }
        let kept = old & (RECEIVES | IN_NANOSECONDS);
        self.bits.store(flags.bits() | kept | new, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the control messages about a time: of what was received, or of what `is_sent`.
    pub fn messages(&self, time_ns: i64, is_sent: bool) -> Vec<Ancillary> {
        let bits = self.bits();
        if bits == 0 {
            return Vec::new();
        }
        let mut messages = Vec::new();
        let is_new = self.has(IS_NEW);
        let mut add = |old, new, data: &[u8]| {
            let kind = if is_new { new } else { old };
            messages.push(Ancillary { level: SOL_SOCKET, kind, data: data.to_vec() });
        };
        let time = Timespec::from_ns(time_ns);
        if self.has(RECEIVES | IN_NANOSECONDS) {
            add(SO_TIMESTAMPNS, SO_TIMESTAMPNS_NEW, time.as_bytes());
        } else if self.has(RECEIVES) {
            add(SO_TIMESTAMP, SO_TIMESTAMP_NEW, Timeval::from_ns(time_ns).as_bytes());
        }
        let flags = self.flags();
        // Somebody has to ask for times to be taken at all, and perhaps for no others than such.
        let is_taken = flags.contains(StampFlags::RX_SOFTWARE)
            || (bits & RECEIVES != 0 && !flags.contains(StampFlags::OPT_RX_FILTER));
        if flags.contains(StampFlags::SOFTWARE) && (is_sent || is_taken) {
            // `struct scm_timestamping`: of software, of nothing any more, and of hardware.
            let none = [0; 2 * size_of::<Timespec>()];
            let data = [time.as_bytes(), none.as_slice()].concat();
            add(SO_TIMESTAMPING, SO_TIMESTAMPING_NEW, &data);
        }
        messages
    }

    /// Returns when the sending of a datagram is to be stamped, and the number that it has: `record` is what
    /// its own control message asks for.
    pub fn sends(&self, record: Option<StampFlags>) -> (StampFlags, u32) {
        let flags = self.flags();
        let record = record.unwrap_or(flags & RECORDS);
        let is_numbered =
            flags.contains(StampFlags::OPT_ID) && record.intersects(RECORDS & !StampFlags::TX_ACK);
        let number = if is_numbered { self.next.fetch_add(1, Ordering::Relaxed) } else { 0 };
        (record, number)
    }
}
