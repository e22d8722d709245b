//! The options of `SOL_SOCKET` that every family has.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use syscalls::abi::socket::{
    SO_BROADCAST, SO_BUF_LOCK, SO_BUSY_POLL, SO_DEBUG, SO_DONTROUTE, SO_INCOMING_CPU, SO_KEEPALIVE,
    SO_MARK, SO_NO_CHECK, SO_NOFCS, SO_OOBINLINE, SO_PASSSEC, SO_PREFER_BUSY_POLL, SO_RCVBUF,
    SO_RCVMARK, SO_RCVPRIORITY, SO_REUSEADDR, SO_REUSEPORT, SO_RXQ_OVFL, SO_SELECT_ERR_QUEUE,
    SO_TXREHASH, SO_WIFI_STATUS,
};

use super::filter::Attached;
use super::timestamp::Stamping;
use crate::sync::Mutex;

/// The size of a buffer unless set: `net.core.wmem_default`.
pub const DEFAULT_BUFFER: u32 = 212_992;

/// The most that `SO_SNDBUF` and `SO_RCVBUF` take, before Linux's doubling: `net.core.wmem_max`.
const MAX_BUFFER: u32 = 212_992;

/// The least that a buffer can have: `SOCK_MIN_SNDBUF`, `SOCK_MIN_RCVBUF`.
const MIN_SEND: u32 = 4608;
const MIN_RECEIVE: u32 = 2304;

/// Options that are on or off and have no effect of their own here.
const SWITCHES: [i32; 16] = [
    SO_DEBUG,
    SO_REUSEADDR,
    SO_DONTROUTE,
    SO_BROADCAST,
    SO_KEEPALIVE,
    SO_OOBINLINE,
    SO_NO_CHECK,
    SO_REUSEPORT,
    SO_RXQ_OVFL,
    SO_WIFI_STATUS,
    SO_SELECT_ERR_QUEUE,
    SO_PREFER_BUSY_POLL,
    SO_NOFCS,
    SO_PASSSEC,
    SO_RCVMARK,
    SO_RCVPRIORITY,
];

/// Options that are numbers without an effect here, with what they are unless set.
const NUMBERS: [(i32, i32); 5] =
    [(SO_MARK, 0), (SO_BUSY_POLL, 0), (SO_INCOMING_CPU, -1), (SO_TXREHASH, 1), (SO_BUF_LOCK, 0)];

/// The numbers of sockets that have been handed out.
static COOKIES: AtomicU64 = AtomicU64::new(0);

/// When a connection over packets is given up: what `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT` and
/// `TCP_USER_TIMEOUT` say.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long a peer may be silent before it is asked whether it is there, and between two such questions.
    pub idle_ns: u64,
    pub interval_ns: u64,
    /// How many questions remain without an answer.
    pub n_probes: u32,
    /// How long anything may remain without an answer, where that has been set.
    pub user_timeout_ns: Option<u64>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            idle_ns: 7200 * 1_000_000_000,
            interval_ns: 75 * 1_000_000_000,
            n_probes: 9,
            user_timeout_ns: None,
        }
    }
}

/// The options of a socket.
pub struct Options {
    /// `SO_SNDBUF` as `getsockopt(2)` shows it.
    pub send_buffer: AtomicU32,
    /// `SO_RCVBUF` likewise.
    pub receive_buffer: AtomicU32,
    /// `SO_PASSCRED`
    pub passes_credentials: AtomicBool,
    /// `SO_PASSPIDFD`
    pub passes_pidfd: AtomicBool,
    /// `SO_PEEK_OFF`: where `MSG_PEEK` begins, negative for what is next.
    pub peek_offset: AtomicI32,
    /// `SO_ATTACH_FILTER`
    pub filter: Attached,
    /// `SO_TIMESTAMP` and its like.
    pub stamping: Stamping,
    /// `SO_SNDTIMEO` in nanoseconds, zero for none.
    pub send_timeout_ns: AtomicU64,
    /// `SO_RCVTIMEO` in nanoseconds, zero for none.
    pub receive_timeout_ns: AtomicU64,
    /// `SO_RCVLOWAT`
    pub receive_low_water: AtomicI32,
    /// `SO_PRIORITY`
    pub priority: AtomicI32,
    /// `SO_MAX_PACING_RATE`, which has no effect.
    pub pacing_rate: AtomicU64,
    /// `SO_COOKIE`, once somebody has asked for it.
    cookie: OnceLock<u64>,
    /// `SO_LINGER`: on, seconds.
    pub linger: Mutex<(i32, i32)>,
    /// For TCP.
    pub patience: Mutex<Patience>,
    /// For TCP: `TCP_CORK`, `TCP_NODELAY`.
    is_corked: AtomicBool,
    is_prompt: AtomicBool,
    /// One bit per entry of `SWITCHES`.
    switches: AtomicU32,
    /// The entries of `NUMBERS` that have been set.
    numbers: Mutex<BTreeMap<i32, i32>>,
    /// Whether somebody has set `SO_SNDBUF`, `SO_RCVBUF`.
    is_send_buffer_set: AtomicBool,
    is_receive_buffer_set: AtomicBool,
    /// `SO_BINDTODEVICE` with the one interface there is.
    is_bound_to_device: AtomicBool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            send_buffer: AtomicU32::new(DEFAULT_BUFFER),
            receive_buffer: AtomicU32::new(DEFAULT_BUFFER),
            passes_credentials: AtomicBool::new(false),
            passes_pidfd: AtomicBool::new(false),
            peek_offset: AtomicI32::new(-1),
            filter: Attached::default(),
            stamping: Stamping::default(),
            send_timeout_ns: AtomicU64::new(0),
            receive_timeout_ns: AtomicU64::new(0),
            receive_low_water: AtomicI32::new(1),
            priority: AtomicI32::new(0),
            pacing_rate: AtomicU64::new(u64::MAX),
            cookie: OnceLock::new(),
            linger: Mutex::new((0, 0)),
            patience: Mutex::new(Patience::default()),
            is_corked: AtomicBool::new(false),
            is_prompt: AtomicBool::new(false),
            switches: AtomicU32::new(0),
            numbers: Mutex::new(BTreeMap::new()),
            is_send_buffer_set: AtomicBool::new(false),
            is_receive_buffer_set: AtomicBool::new(false),
            is_bound_to_device: AtomicBool::new(false),
        }
    }
}

impl Options {
    /// Creates options with buffers of other sizes than the usual ones.
    pub fn with_buffers(send: u32, receive: u32) -> Self {
        Self {
            send_buffer: AtomicU32::new(send),
            receive_buffer: AtomicU32::new(receive),
            ..Self::default()
        }
    }

    /// Returns a copy: what a connection inherits from the socket that listened.
    pub fn inherit(&self) -> Self {
        let number = |of: &AtomicU32| AtomicU32::new(of.load(Ordering::Relaxed));
        let time = |of: &AtomicU64| AtomicU64::new(of.load(Ordering::Relaxed));
        let signed = |of: &AtomicI32| AtomicI32::new(of.load(Ordering::Relaxed));
        let switch = |of: &AtomicBool| AtomicBool::new(of.load(Ordering::Relaxed));
        Self {
            send_buffer: number(&self.send_buffer),
            receive_buffer: number(&self.receive_buffer),
            passes_credentials: switch(&self.passes_credentials),
            passes_pidfd: switch(&self.passes_pidfd),
            peek_offset: signed(&self.peek_offset),
            filter: self.filter.inherit(),
            stamping: self.stamping.inherit(),
            send_timeout_ns: time(&self.send_timeout_ns),
            receive_timeout_ns: time(&self.receive_timeout_ns),
            receive_low_water: signed(&self.receive_low_water),
            priority: signed(&self.priority),
            pacing_rate: time(&self.pacing_rate),
            cookie: OnceLock::new(),
            linger: Mutex::new(*self.linger.lock()),
            patience: Mutex::new(*self.patience.lock()),
            is_corked: switch(&self.is_corked),
            is_prompt: switch(&self.is_prompt),
            switches: number(&self.switches),
            numbers: Mutex::new(self.numbers.lock().clone()),
            is_send_buffer_set: switch(&self.is_send_buffer_set),
            is_receive_buffer_set: switch(&self.is_receive_buffer_set),
            is_bound_to_device: switch(&self.is_bound_to_device),
        }
    }

    /// Returns whether nothing smaller than a segment is to be sent.
    pub fn is_corked(&self) -> bool {
        self.is_corked.load(Ordering::Relaxed)
    }

    /// Sets that.
    pub fn cork(&self, is_corked: bool) {
        self.is_corked.store(is_corked, Ordering::Relaxed);
    }

    /// Returns whether small segments do not wait for acknowledgements of others.
    pub fn is_prompt(&self) -> bool {
        self.is_prompt.load(Ordering::Relaxed)
    }

    /// Sets that.
    pub fn be_prompt(&self, is_prompt: bool) {
        self.is_prompt.store(is_prompt, Ordering::Relaxed);
    }

    /// Returns whether the socket is bound to the loopback interface.
    pub fn is_bound_to_device(&self) -> bool {
        self.is_bound_to_device.load(Ordering::Relaxed)
    }

    /// Binds the socket to the loopback interface, or to none.
    pub fn bind_to_device(&self, is_bound: bool) {
        self.is_bound_to_device.store(is_bound, Ordering::Relaxed);
    }

    /// Returns `SO_SNDBUF` where somebody has set it.
    pub fn set_send_buffer(&self) -> Option<u32> {
        let is_set = self.is_send_buffer_set.load(Ordering::Relaxed);
        is_set.then(|| self.send_buffer.load(Ordering::Relaxed))
    }

    /// Returns `SO_RCVBUF` where somebody has set it.
    pub fn set_receive_buffer(&self) -> Option<u32> {
        let is_set = self.is_receive_buffer_set.load(Ordering::Relaxed);
        is_set.then(|| self.receive_buffer.load(Ordering::Relaxed))
    }

    /// Returns an option that is a number without an effect; `None` for others.
    pub fn number(&self, name: i32) -> Option<i32> {
        let (_, default) = NUMBERS.iter().find(|(number, _)| *number == name)?;
        Some(self.numbers.lock().get(&name).copied().unwrap_or(*default))
    }

    /// Sets such an option; returns false for others.
    pub fn set_number(&self, name: i32, value: i32) -> bool {
        let is_one = NUMBERS.iter().any(|(number, _)| *number == name);
        if is_one {
            self.numbers.lock().insert(name, value);
        }
        is_one
    }

    /// Sets the size of a buffer as `SO_SNDBUF` and `SO_RCVBUF` do.
    pub fn set_buffer(&self, name: i32, size: i32) {
        let (buffer, is_set, min) = if name == SO_RCVBUF {
            (&self.receive_buffer, &self.is_receive_buffer_set, MIN_RECEIVE)
        } else {
            (&self.send_buffer, &self.is_send_buffer_set, MIN_SEND)
        };
        is_set.store(true, Ordering::Relaxed);
        // A negative size is a very large one.
        let size = size.cast_unsigned().min(MAX_BUFFER);
        buffer.store(size.saturating_mul(2).max(min), Ordering::Relaxed);
    }

    /// Returns the number that no other socket has.
    pub fn cookie(&self) -> u64 {
        *self.cookie.get_or_init(|| COOKIES.fetch_add(1, Ordering::Relaxed) + 1)
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

    /// Returns where a look under `MSG_PEEK` begins, where that has been set.
    pub fn peek_at(&self) -> Option<usize> {
        usize::try_from(self.peek_offset.load(Ordering::Relaxed)).ok()
    }

    /// Moves that on by what has been looked at, and back by what has been received.
    pub fn has_received(&self, n: usize, is_peek: bool) {
        let Some(at) = self.peek_at() else { return };
        let at = if is_peek { at.saturating_add(n) } else { at.saturating_sub(n) };
        self.peek_offset.store(i32::try_from(at).unwrap_or(i32::MAX), Ordering::Relaxed);
    }

    /// Returns whether pidfds are passed.
    pub fn passes_pidfd(&self) -> bool {
        self.passes_pidfd.load(Ordering::Relaxed)
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
