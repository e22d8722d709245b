//! Sending: what leaves at once, and what `MSG_MORE` and `TCP_CORK` hold back for 200 ms at most, until
//! it makes a segment.

use std::sync::Arc;

use syscalls::abi::socket::MsgFlags;
use syscalls::{Errno, SysResult};

use super::{Core, Link};
use crate::net::stack::timers::NEVER;
use crate::vfs::IoSource;

/// How long anything is held back.
const PATIENCE_NS: u64 = 200_000_000;

/// What is held back: never as much as a segment, and there is always room for it behind what is sent.
#[derive(Default)]
pub(super) struct Held {
    data: Vec<u8>,
    /// When it leaves all the same.
    until_ns: u64,
    /// Whether it is an option that holds it: then an acknowledgement does not send it.
    is_corked: bool,
}

impl Held {
    /// Returns how many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    /// Returns when they leave.
    pub(super) fn until_ns(&self) -> u64 {
        if self.data.is_empty() { NEVER } else { self.until_ns }
    }
}

impl Core {
    /// Sends what is held back.
    pub(super) fn release(&mut self, now_ns: u64) {
        if self.held.data.is_empty() {
            return;
        }
        if self.n_unsent() == 0 {
            self.heard_ns = now_ns;
        }
        let data = std::mem::take(&mut self.held.data);
        // There is room; a connection that is over takes nothing.
        let _ = self.socket().send_slice(&data);
    }

    /// Sends what only a flag holds back: something has come from the peer.
    pub(super) fn acknowledge(&mut self, now_ns: u64) {
        if !self.held.is_corked {
            self.release(now_ns);
        }
    }

    /// Sends what has been held back for long enough.
    pub(super) fn be_patient(&mut self, now_ns: u64) {
        if now_ns >= self.held.until_ns() {
            self.release(now_ns);
        }
    }

    /// Takes up to `limit` bytes to be sent. Returns how many.
    fn take(&mut self, src: &mut dyn IoSource, limit: usize) -> SysResult<usize> {
        let mut n = 0;
        while n < limit && src.remaining() > 0 {
            let got = self.socket().send(|room| {
                let len = room.len().min(src.remaining()).min(limit - n);
                let got = src.get(room.get_mut(..len).unwrap_or_default());
                (got.unwrap_or(0), got)
            });
            match got.unwrap_or(Err(Errno::EPIPE)) {
                Ok(0) => break,
                Ok(more) => n += more,
                Err(error) if n == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(n)
    }

    /// Takes what makes whole segments of `mss` bytes, and holds back the rest.
    fn hold(&mut self, src: &mut dyn IoSource, mss: usize, now_ns: u64) -> SysResult<usize> {
        let mut n = 0;
        if self.held.len() > 0 {
            n += self.keep(src, mss.saturating_sub(self.held.len()), now_ns)?;
            if self.held.len() < mss {
                return Ok(n);
            }
            self.release(now_ns);
        }
        let whole = (src.remaining() / mss.max(1)).saturating_mul(mss).min(self.room());
        if whole > 0 {
            match self.take(src, whole) {
                Ok(more) => n += more,
                Err(error) if n == 0 => return Err(error),
                Err(_) => return Ok(n),
            }
        }
        if src.remaining() < mss {
            match self.keep(src, mss, now_ns) {
                Ok(more) => n += more,
                Err(error) if n == 0 => return Err(error),
                Err(_) => {}
            }
        }
        Ok(n)
    }

    /// Holds back up to `limit` bytes.
    fn keep(&mut self, src: &mut dyn IoSource, limit: usize, now_ns: u64) -> SysResult<usize> {
        let mut data = vec![0; src.remaining().min(limit).min(self.room())];
        let mut n = 0;
        while let Some(rest) = data.get_mut(n..).filter(|rest| !rest.is_empty()) {
            match src.get(rest) {
                Ok(0) => break,
                Ok(more) => n += more,
                Err(error) if n == 0 => return Err(error),
                Err(_) => break,
            }
        }
        if self.held.data.is_empty() {
            self.held.until_ns = now_ns.saturating_add(PATIENCE_NS);
        }
        self.held.data.extend_from_slice(data.get(..n).unwrap_or_default());
        Ok(n)
    }
}

impl Link {
    /// Returns the largest segment.
    pub(super) fn mss(&self, core: &Core) -> usize {
        core.mtu.saturating_sub(if self.local.ip.is_ipv4() { 40 } else { 60 })
    }

    /// Sends what there is room for.
    ///
    /// # Errors
    /// `EAGAIN`, `EPIPE`, the error of the connection.
    pub(in crate::net) fn send(
        self: &Arc<Self>,
        src: &mut dyn IoSource,
        flags: MsgFlags,
    ) -> SysResult<usize> {
        let now_ns = self.stack.now_ns();
        self.with_core(|core| self.send_locked(core, src, flags, now_ns))
    }

    fn send_locked(
        self: &Arc<Self>,
        core: &mut Core,
        src: &mut dyn IoSource,
        flags: MsgFlags,
        now_ns: u64,
    ) -> SysResult<usize> {
        if let Some(error) = core.error.take() {
            return Err(error);
        }
        if core.is_send_shut || !core.socket().may_send() {
            return Err(Errno::EPIPE);
        }
        let total = src.remaining();
        if total == 0 {
            return Ok(0);
        }
        if core.n_unsent() == 0 {
            core.heard_ns = now_ns;
        }
        core.socket().set_nagle_enabled(!self.options.is_prompt());
        core.held.is_corked = self.options.is_corked();
        let n = if core.held.is_corked || flags.contains(MsgFlags::MORE) {
            let mss = self.mss(core);
            core.hold(src, mss, now_ns)?
        } else {
            core.release(now_ns);
            core.take(src, usize::MAX)?
        };
        if n < total {
            // Whoever waits for room waits for what is held back as well.
            core.release(now_ns);
        }
        if n == 0 {
            core.is_blocked = true;
        }
        self.send_pending(core, now_ns);
        self.schedule(core, now_ns);
        if n == 0 { Err(Errno::EAGAIN) } else { Ok(n) }
    }

    /// Sends what is held back.
    pub(in crate::net) fn push(self: &Arc<Self>) {
        let now_ns = self.stack.now_ns();
        self.with_core(|core| {
            core.socket().set_nagle_enabled(!self.options.is_prompt());
            core.release(now_ns);
            self.send_pending(core, now_ns);
            self.schedule(core, now_ns);
        });
    }
}
