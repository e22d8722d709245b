//! The options of `SOL_SOCKET` that every family has.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use syscalls::abi::socket::{
    SO_BROADCAST, SO_DEBUG, SO_DONTROUTE, SO_KEEPALIVE, SO_NO_CHECK, SO_OOBINLINE, SO_RCVBUF,
    SO_REUSEADDR, SO_REUSEPORT, SO_TIMESTAMP, SO_TIMESTAMPNS,
};

use crate::sync::Mutex;

/// The size of a buffer unless set: `net.core.wmem_default`.
pub const DEFAULT_BUFFER: u32 = 212_992;

/// The most that `SO_SNDBUF` and `SO_RCVBUF` take, before Linux's doubling: `net.core.wmem_max`.
const MAX_BUFFER: u32 = 212_992;

/// The least that a buffer can have: `SOCK_MIN_SNDBUF`, `SOCK_MIN_RCVBUF`.
const MIN_SEND: u32 = 4608;
const MIN_RECEIVE: u32 = 2304;

/// Options that are on or off and have no effect of their own here.
const SWITCHES: [i32; 10] = [
    SO_DEBUG,
    SO_REUSEADDR,
    SO_DONTROUTE,
    SO_BROADCAST,
    SO_KEEPALIVE,
    SO_OOBINLINE,
    SO_NO_CHECK,
    SO_REUSEPORT,
    SO_TIMESTAMP,
    SO_TIMESTAMPNS,
];

/// The options of a socket.
pub struct Options {
    /// `SO_SNDBUF` as `getsockopt(2)` shows it.
    pub send_buffer: AtomicU32,
    /// `SO_RCVBUF` likewise.
    pub receive_buffer: AtomicU32,
    /// `SO_PASSCRED`
    pub passes_credentials: AtomicBool,
    /// `SO_SNDTIMEO` in nanoseconds, zero for none.
    pub send_timeout_ns: AtomicU64,
    /// `SO_RCVTIMEO` in nanoseconds, zero for none.
    pub receive_timeout_ns: AtomicU64,
    /// `SO_RCVLOWAT`
    pub receive_low_water: AtomicI32,
    /// `SO_PRIORITY`
    pub priority: AtomicI32,
    /// `SO_LINGER`: on, seconds.
    pub linger: Mutex<(i32, i32)>,
    /// One bit per entry of `SWITCHES`.
    switches: AtomicU32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            send_buffer: AtomicU32::new(DEFAULT_BUFFER),
            receive_buffer: AtomicU32::new(DEFAULT_BUFFER),
            passes_credentials: AtomicBool::new(false),
            send_timeout_ns: AtomicU64::new(0),
            receive_timeout_ns: AtomicU64::new(0),
            receive_low_water: AtomicI32::new(1),
            priority: AtomicI32::new(0),
            linger: Mutex::new((0, 0)),
            switches: AtomicU32::new(0),
        }
    }
}

impl Options {
    /// Sets the size of a buffer as `SO_SNDBUF` and `SO_RCVBUF` do.
    pub fn set_buffer(&self, name: i32, size: i32) {
        let (buffer, min) = if name == SO_RCVBUF {
            (&self.receive_buffer, MIN_RECEIVE)
        } else {
            (&self.send_buffer, MIN_SEND)
        };
        // A negative size is a very large one.
        let size = size.cast_unsigned().min(MAX_BUFFER);
        buffer.store(size.saturating_mul(2).max(min), Ordering::Relaxed);
    }

    /// Returns whether a switch is on; `None` for an option that is no switch.
    pub fn switch(&self, name: i32) -> Option<bool> {
        let bit = SWITCHES.iter().position(|switch| *switch == name)?;
        Some(self.switches.load(Ordering::Relaxed) >> bit & 1 != 0)
    }

    /// Sets a switch; returns false for an option that is no switch.
    pub fn set_switch(&self, name: i32, on: bool) -> bool {
        let Some(bit) = SWITCHES.iter().position(|switch| *switch == name) else { return false };
        if on {
            self.switches.fetch_or(1 << bit, Ordering::Relaxed);
        } else {
            self.switches.fetch_and(!(1 << bit), Ordering::Relaxed);
        }
        true
    }

    /// Returns whether credentials are passed.
    pub fn passes_credentials(&self) -> bool {
        self.passes_credentials.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use syscalls::abi::socket::{SO_KEEPALIVE, SO_RCVBUF, SO_SNDBUF, SO_TYPE};

    use super::Options;

    #[test]
    fn buffer_sizes_are_doubled_and_bounded() {
        let options = Options::default();
        options.set_buffer(SO_SNDBUF, 8192);
        assert_eq!(options.send_buffer.load(Ordering::Relaxed), 16_384);
        options.set_buffer(SO_SNDBUF, 0);
        assert_eq!(options.send_buffer.load(Ordering::Relaxed), 4608);
        options.set_buffer(SO_RCVBUF, -1);
        assert_eq!(options.receive_buffer.load(Ordering::Relaxed), 425_984);
    }

    #[test]
    fn switches_are_independent() {
        let options = Options::default();
        assert!(options.set_switch(SO_KEEPALIVE, true));
        assert_eq!(options.switch(SO_KEEPALIVE), Some(true));
        assert_eq!(options.switch(SO_TYPE), None);
    }
}
