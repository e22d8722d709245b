//! The options of `SOL_TCP`.

use std::collections::BTreeMap;

use syscalls::abi::socket::{
    IPV6_ADDRFORM, SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_TCP, TCP_CONGESTION, TCP_CORK,
    TCP_DEFER_ACCEPT, TCP_DELACK_MAX_US, TCP_FASTOPEN, TCP_FASTOPEN_CONNECT,
    TCP_FASTOPEN_NO_COOKIE, TCP_INFO, TCP_INQ, TCP_IS_MPTCP, TCP_KEEPCNT, TCP_KEEPIDLE,
    TCP_KEEPINTVL, TCP_LINGER2, TCP_MAXSEG, TCP_NODELAY, TCP_NOTSENT_LOWAT, TCP_QUICKACK,
    TCP_RTO_MAX_MS, TCP_RTO_MIN_US, TCP_SAVE_SYN, TCP_SAVED_SYN, TCP_SYNCNT, TCP_THIN_DUPACK,
    TCP_THIN_LINEAR_TIMEOUTS, TCP_TIMESTAMP, TCP_TX_DELAY, TCP_ULP, TCP_USER_TIMEOUT,
    TCP_WINDOW_CLAMP,
};
use syscalls::{Errno, SysResult};

use super::conn::Phase;
use super::{Family, Role, TcpSocket};
use crate::net::Socket as _;
use crate::net::inet::common_option;
use crate::net::inet::interface;
use crate::sync::Mutex;
use crate::task::CurrentTask;

/// The largest segment of a connection over loopback, and what a socket without one shows.
pub(super) const LOOPBACK_MSS: i32 = 65_483;
const DEFAULT_MSS: i32 = 536;

/// The size of `struct tcp_info` in Linux 6.12.
const TCP_INFO_SIZE: usize = 248;

/// The size of `TCP_CONGESTION`.
const CA_NAME_MAX: usize = 16;

/// Name, default, and the least and the largest value.
const KNOBS: &[(i32, i32, i32, i32)] = &[
    (TCP_NODELAY, 0, 0, 1),
    (TCP_CORK, 0, 0, 1),
    (TCP_KEEPIDLE, 7200, 1, 32_767),
    (TCP_KEEPINTVL, 75, 1, 32_767),
    (TCP_KEEPCNT, 9, 1, 127),
    (TCP_SYNCNT, 6, 1, 127),
    (TCP_LINGER2, FIN_TIMEOUT, i32::MIN, i32::MAX),
    (TCP_DEFER_ACCEPT, 0, i32::MIN, i32::MAX),
    (TCP_WINDOW_CLAMP, 0, i32::MIN, i32::MAX),
    (TCP_QUICKACK, 1, 0, 1),
    (TCP_USER_TIMEOUT, 0, 0, i32::MAX),
    (TCP_FASTOPEN, 0, 0, i32::MAX),
    (TCP_FASTOPEN_CONNECT, 0, 0, 1),
    (TCP_NOTSENT_LOWAT, 0, i32::MIN, i32::MAX),
    (TCP_INQ, 0, 0, 1),
    (TCP_MAXSEG, DEFAULT_MSS, 88, 32_767),
    // What follows has no effect.
    (TCP_THIN_LINEAR_TIMEOUTS, 0, 0, 1),
    (TCP_SAVE_SYN, 0, 0, 2),
    (TCP_FASTOPEN_NO_COOKIE, 0, 0, 1),
    (TCP_TX_DELAY, 0, 0, i32::MAX),
    (TCP_RTO_MAX_MS, 120_000, 1000, 120_000),
    (TCP_RTO_MIN_US, 200_000, 1, 200_000),
    (TCP_DELACK_MAX_US, 200_000, 1, 200_000),
];

/// Options whose value is zero or one, whatever was given.
const FLAGS: [i32; 3] = [TCP_NODELAY, TCP_CORK, TCP_QUICKACK];

/// The default of `TCP_LINGER2` and the most that it can be.
const FIN_TIMEOUT: i32 = 60;
const MAX_FIN_TIMEOUT: i32 = 120;

/// The most connections that `TCP_FASTOPEN` lets wait: `net.core.somaxconn`.
const MAX_FASTOPEN: i32 = 4096;

/// The least that a window is held to where it is held at all.
const MIN_WINDOW: i32 = 1152;

/// The options of a socket.
#[derive(Default)]
pub(super) struct TcpOptions {
    values: Mutex<BTreeMap<i32, i32>>,
    congestion: Mutex<Option<Vec<u8>>>,
}

impl TcpOptions {
    /// Returns a copy: what a connection inherits from the socket that listened.
    pub(super) fn inherit(&self) -> Self {
        let values = self.values.lock().clone();
        Self { values: Mutex::new(values), congestion: Mutex::new(self.congestion.lock().clone()) }
    }

    /// Returns an option that is a number.
    pub(super) fn get(&self, name: i32) -> Option<i32> {
        let (_, default, ..) = KNOBS.iter().find(|(knob, ..)| *knob == name)?;
        Some(self.values.lock().get(&name).copied().unwrap_or(*default))
    }

    fn set(&self, name: i32, value: i32) -> SysResult<()> {
        let (_, _, least, largest) =
            KNOBS.iter().find(|(knob, ..)| *knob == name).ok_or(Errno::ENOPROTOOPT)?;
        let value = if FLAGS.contains(&name) { i32::from(value != 0) } else { value };
        if !(least..=largest).contains(&&value) {
            return Err(Errno::EINVAL);
        }
        let value = match name {
            TCP_DEFER_ACCEPT => deferral(value),
            TCP_LINGER2 if value == 0 => FIN_TIMEOUT,
            TCP_LINGER2 => value.clamp(-1, MAX_FIN_TIMEOUT),
            TCP_FASTOPEN => value.min(MAX_FASTOPEN),
            TCP_WINDOW_CLAMP if value != 0 => value.max(MIN_WINDOW),
            _ => value,
        };
        self.values.lock().insert(name, value);
        Ok(())
    }
}

/// Returns how long a deferral of so many seconds is in whole retransmissions of a SYN.
fn deferral(seconds: i32) -> i32 {
    const MAX_RETRANSMISSIONS: u32 = 255;
    let (mut total, mut period, mut n) = (0, 1, 0);
    while total < seconds && n < MAX_RETRANSMISSIONS {
        total += period;
        period = (period * 2).min(120);
        n += 1;
    }
    total
}

impl TcpSocket {
    /// Returns the bytes of an option.
    pub(in crate::net) fn get_option(&self, level: i32, name: i32) -> SysResult<Vec<u8>> {
        match level {
            SOL_SOCKET => {
                interface::device_option(&self.options, name).unwrap_or_else(|| common_option(name))
            }
            SOL_IP | SOL_IPV6 => self.ip.get(self.about(), level, name),
            SOL_TCP => self.get_tcp_option(name),
            _ if self.family() == Family::V6 => Err(Errno::ENOPROTOOPT),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn get_tcp_option(&self, name: i32) -> SysResult<Vec<u8>> {
        match name {
            TCP_INFO => Ok(self.info()),
            TCP_MAXSEG if let Some(stream) = self.stream() => {
                Ok(stream.mss().to_ne_bytes().to_vec())
            }
            // No protocol lies above the stream, and no SYN is kept.
            TCP_ULP | TCP_SAVED_SYN => Ok(Vec::new()),
            TCP_THIN_DUPACK | TCP_IS_MPTCP => Ok(0_i32.to_ne_bytes().to_vec()),
            TCP_TIMESTAMP => {
                let ms = self.kernel.clock.monotonic_ns() / 1_000_000;
                // It wraps around.
                let ms = u32::try_from(ms & u64::from(u32::MAX)).unwrap_or(0);
                Ok(ms.to_ne_bytes().to_vec())
            }
            TCP_CONGESTION => {
                let set = self.tcp.congestion.lock().clone();
                let mut name = set.unwrap_or_else(|| {
                    self.kernel.sysctls.words("net/ipv4/tcp_congestion_control").into_bytes()
                });
                name.resize(CA_NAME_MAX, 0);
                Ok(name)
            }
            _ => {
                let value = self.tcp.get(name).ok_or(Errno::ENOPROTOOPT)?;
                Ok(value.to_ne_bytes().to_vec())
            }
        }
    }

    /// Sets an option.
    pub(super) fn change_option(
        &self,
        task: &CurrentTask,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> SysResult<()> {
        match level {
            SOL_SOCKET => interface::set_device_option(task, &self.options, name, value),
            SOL_IPV6 if name == IPV6_ADDRFORM && self.family() == Family::V6 => {
                let is_established = self.stream().is_some_and(|stream| {
                    let look = stream.look(false);
                    look.phase == Phase::Established && !look.is_receive_shut && !look.is_send_shut
                });
                let peer = self.state.lock().peer.filter(|_| is_established);
                self.family.change(value, peer.map(|peer| peer.ip), self.is_v6only())
            }
            SOL_IP | SOL_IPV6 => self.ip.set(task, self.about(), level, name, value),
            SOL_TCP if name == TCP_CONGESTION => {
                let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
                let name = value.get(..end.min(CA_NAME_MAX - 1)).unwrap_or_default();
                if value.is_empty() {
                    return Err(Errno::EINVAL);
                }
                let known = self.kernel.sysctls.words("net/ipv4/tcp_available_congestion_control");
                if !known.split(' ').any(|known| known.as_bytes() == name) {
                    return Err(Errno::ENOENT);
                }
                *self.tcp.congestion.lock() = Some(name.to_vec());
                Ok(())
            }
            SOL_TCP if name == TCP_ULP => {
                Err(if value.is_empty() { Errno::EINVAL } else { Errno::ENOENT })
            }
            SOL_TCP => {
                let value = value.first_chunk::<4>().ok_or(Errno::EINVAL)?;
                let value = i32::from_ne_bytes(*value);
                let is_connected = self.about().is_connected;
                match name {
                    // Only in the course of a repair.
                    TCP_TIMESTAMP => return Err(Errno::EPERM),
                    TCP_THIN_DUPACK => {
                        let is_valid = matches!(value, 0 | 1);
                        return if is_valid { Ok(()) } else { Err(Errno::EINVAL) };
                    }
                    // Zero leaves it to TCP.
                    TCP_MAXSEG if value == 0 => {
                        self.tcp.values.lock().remove(&name);
                        return Ok(());
                    }
                    TCP_FASTOPEN | TCP_FASTOPEN_CONNECT | TCP_FASTOPEN_NO_COOKIE
                        if is_connected =>
                    {
                        return Err(Errno::EINVAL);
                    }
                    TCP_WINDOW_CLAMP if value == 0 && is_connected => return Err(Errno::EINVAL),
                    _ => {}
                }
                self.tcp.set(name, value)?;
                self.be_patient(name, value);
                self.be_prompt(name, value != 0);
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    /// Tells the connection when it is to be given up.
    fn be_patient(&self, name: i32, value: i32) {
        const SECOND_NS: u64 = 1_000_000_000;
        const MILLISECOND_NS: u64 = 1_000_000;
        let number = u64::try_from(value).unwrap_or(0);
        {
            let mut patience = self.options.patience.lock();
            match name {
                TCP_KEEPIDLE => patience.idle_ns = number.saturating_mul(SECOND_NS),
                TCP_KEEPINTVL => patience.interval_ns = number.saturating_mul(SECOND_NS),
                TCP_KEEPCNT => patience.n_probes = value.unsigned_abs(),
                TCP_USER_TIMEOUT => {
                    let timeout_ns = number.saturating_mul(MILLISECOND_NS);
                    patience.user_timeout_ns = Some(timeout_ns).filter(|timeout| *timeout > 0);
                }
                _ => return,
            }
        }
        self.options_changed();
    }

    /// Implements `TCP_CORK` and `TCP_NODELAY`, which sends what is held back even under the former.
    fn be_prompt(&self, name: i32, is_on: bool) {
        match name {
            TCP_CORK => self.options.cork(is_on),
            TCP_NODELAY => self.options.be_prompt(is_on),
            _ => return,
        }
        if is_on == (name == TCP_NODELAY)
            && let Some(stream) = self.stream()
        {
            stream.push();
        }
    }

    /// Returns a `struct tcp_info`.
    pub(in crate::net) fn info(&self) -> Vec<u8> {
        let (number, mss) = match &self.state.lock().role {
            Role::Listening { .. } => (10, 0),
            Role::Connecting { .. } => (2, DEFAULT_MSS),
            Role::Idle | Role::Failed => (7, 0),
            Role::Connected { stream, .. } => {
                let look = stream.look(false);
                let mss = if look.phase == Phase::Closed { 0 } else { stream.mss() };
                (stream.number(&look), mss)
            }
        };
        let mut info = vec![0; TCP_INFO_SIZE];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(to) = info.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        };
        put(0, &[number]);
        // `tcpi_options`: timestamps, SACK, window scaling; `tcpi_snd_wscale`, `tcpi_rcv_wscale`.
        put(5, &[7, 0x77]);
        // `tcpi_rto`, `tcpi_ato` in microseconds.
        put(8, &204_000_u32.to_ne_bytes());
        put(12, &40_000_u32.to_ne_bytes());
        // `tcpi_snd_mss`, `tcpi_rcv_mss`.
        put(16, &mss.to_ne_bytes());
        put(20, &DEFAULT_MSS.to_ne_bytes());
        // `tcpi_pmtu`, `tcpi_rcv_ssthresh`, `tcpi_rtt`, `tcpi_rttvar`, `tcpi_snd_ssthresh`,
        // `tcpi_snd_cwnd`, `tcpi_advmss`, `tcpi_reordering`.
        for (index, value) in [65_535, 65_495, 50, 25, i32::MAX, 10, mss, 3].iter().enumerate() {
            put(60 + index * 4, &value.to_ne_bytes());
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use syscalls::Errno;
    use syscalls::abi::socket::{TCP_DEFER_ACCEPT, TCP_KEEPCNT, TCP_NODELAY};

    use super::TcpOptions;

    #[test]
    fn options_are_checked_and_kept() {
        let options = TcpOptions::default();
        assert_eq!(options.set(TCP_NODELAY, 7), Ok(()));
        assert_eq!(options.get(TCP_NODELAY), Some(1));
        assert_eq!(options.set(TCP_KEEPCNT, 128), Err(Errno::EINVAL));
        assert_eq!(options.set(12_345, 1), Err(Errno::ENOPROTOOPT));
        assert_eq!(options.set(TCP_DEFER_ACCEPT, 5), Ok(()));
        assert_eq!(options.get(TCP_DEFER_ACCEPT), Some(7));
    }
}
