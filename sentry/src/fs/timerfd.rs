//! `timerfd_create(2)`: a timer whose expirations are read.
//!
//! A periodic timer that has expired is not armed again before somebody looks: its readiness
//! cannot grow, and what it has missed follows from the clock.

use std::sync::{Arc, Weak};

use syscalls::abi::time::TimerfdFlags;
use syscalls::{Errno, SysResult};

use crate::kernel::Kernel;
use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::CurrentTask;
use crate::time::TimerHandle;
use crate::time::posix_timer::Setting;
use crate::vfs::anon::{self, AnonMount};
use crate::vfs::{Attr, File, IoSink};

/// Which clock a timer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerFdClock {
    /// `CLOCK_REALTIME` and its alarm: absolute times are turned into durations when they are set.
    Realtime,
    /// `CLOCK_MONOTONIC`.
    Monotonic,
    /// `CLOCK_BOOTTIME` and its alarm.
    Boottime,
}

#[derive(Default)]
struct State {
    /// When it expires next (or has expired, not yet looked at), on the monotonic clock.
    expires_ns: Option<u64>,
    interval_ns: u64,
    /// Expirations that have been counted and not been read.
    n_expired: u64,
    handle: Option<TimerHandle>,
    /// The flags with which it was set last.
    flags: u32,
}

impl State {
    /// Counts the expirations up to now; returns whether there were any.
    fn advance(&mut self, now_ns: u64) -> bool {
        let Some(expires_ns) = self.expires_ns.filter(|at| *at <= now_ns) else { return false };
        let n_missed = (now_ns - expires_ns).checked_div(self.interval_ns);
        let n = n_missed.map_or(1, |n_missed| n_missed + 1);
        self.expires_ns =
            n_missed.map(|_| expires_ns.saturating_add(n.saturating_mul(self.interval_ns)));
        self.n_expired = self.n_expired.saturating_add(n);
        true
    }
}

/// A timerfd.
pub struct TimerFd {
    kernel: Arc<Kernel>,
    clock: TimerFdClock,
    /// `CLOCK_*`, as it was created.
    clockid: i32,
    attr: Attr,
    state: Mutex<State>,
    queue: WaitQueue,
    this: Weak<TimerFd>,
}

impl TimerFd {
    /// Creates a disarmed timer.
    pub fn new(task: &CurrentTask, clock: TimerFdClock, clockid: i32) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            kernel: task.kernel.clone(),
            clock,
            clockid,
            attr: anon::attr(task, AnonMount::Inode, 0o600),
            state: Mutex::new(State::default()),
            queue: WaitQueue::new(),
            this: this.clone(),
        })
    }

    /// Has the timer queue call when the timer expires next. Returns the previous appointment, to
    /// be dropped without the lock.
    fn arm(&self, state: &mut State) -> Option<TimerHandle> {
        let handle = state.expires_ns.and_then(|expires_ns| {
            let waiter: Arc<dyn Waiter> = self.this.upgrade()?;
            Some(self.kernel.timers.schedule(expires_ns, &waiter, 0))
        });
        std::mem::replace(&mut state.handle, handle)
    }

    /// Returns the time until the next expiration, and the interval.
    pub fn get(&self) -> Setting {
        let now_ns = self.kernel.clock.monotonic_ns();
        let mut state = self.state.lock();
        let old = if state.advance(now_ns) { self.arm(&mut state) } else { None };
        let value_ns = state.expires_ns.map_or(0, |at| at.saturating_sub(now_ns).max(1));
        let setting = Setting { value_ns, interval_ns: state.interval_ns };
        drop(state);
        drop(old);
        setting
    }

    /// Returns the clock that the timer goes by.
    pub fn clock(&self) -> TimerFdClock {
        self.clock
    }

    /// Arms or disarms the timer; with `TIMER_ABSTIME`, the value is a time of the clock. Returns the
    /// previous setting.
    pub fn set(&self, new: Setting, flags: TimerfdFlags) -> Setting {
        let previous = self.get();
        let clock = &self.kernel.clock;
        let now_ns = clock.monotonic_ns();
        let wait_ns = match self.clock {
            _ if !flags.contains(TimerfdFlags::TIMER_ABSTIME) => new.value_ns,
            TimerFdClock::Monotonic | TimerFdClock::Boottime => new.value_ns.saturating_sub(now_ns),
            TimerFdClock::Realtime => {
                new.value_ns.saturating_sub(u64::try_from(clock.realtime_ns()).unwrap_or(0))
            }
        };
        let mut state = self.state.lock();
        (state.interval_ns, state.flags) = (new.interval_ns, flags.bits());
        state.n_expired = 0;
        state.expires_ns = (new.value_ns != 0).then(|| now_ns.saturating_add(wait_ns));
        let old = self.arm(&mut state);
        drop(state);
        drop(old);
        previous
    }
}

impl Waiter for TimerFd {
    fn notify(&self, _key: u64, _events: Events) {
        self.queue.notify(Events::READABLE);
    }
}

impl File for TimerFd {
    fn attr(&self) -> SysResult<Attr> {
        Ok(self.attr)
    }

    fn anonymous_name(&self) -> String {
        String::from("anon_inode:[timerfd]")
    }

    fn fd_info(&self, _task: &CurrentTask) -> String {
        let now_ns = self.kernel.clock.monotonic_ns();
        let state = self.state.lock();
        let has_expired = state.expires_ns.is_some_and(|at| at <= now_ns);
        let ticks = state.n_expired.saturating_add(has_expired.into());
        let left_ns = state.expires_ns.map_or(0, |at| at.saturating_sub(now_ns));
        let pair = |ns: u64| (ns / 1_000_000_000, ns % 1_000_000_000);
        format!(
            "clockid: {}\nticks: {ticks}\nsettime flags: 0{:o}\nit_value: {:?}\nit_interval: {:?}\n",
            self.clockid,
            state.flags,
            pair(left_ns),
            pair(state.interval_ns),
        )
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _task: &CurrentTask, dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let now_ns = self.kernel.clock.monotonic_ns();
        let mut state = self.state.lock();
        let old = if state.advance(now_ns) { self.arm(&mut state) } else { None };
        let n_expired = std::mem::take(&mut state.n_expired);
        drop(state);
        drop(old);
        if n_expired == 0 {
            return Err(Errno::EAGAIN);
        }
        dst.put(&n_expired.to_ne_bytes())
    }

    fn poll(&self) -> Events {
        let now_ns = self.kernel.clock.monotonic_ns();
        let state = self.state.lock();
        let is_ready = state.n_expired > 0 || state.expires_ns.is_some_and(|at| at <= now_ns);
        if is_ready { Events::READABLE } else { Events::empty() }
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.queue.register(waiter, mask, key)]
    }

    fn is_pollable(&self) -> bool {
        true
    }

    fn can_splice_from(&self) -> bool {
        false
    }

    fn can_splice_to(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::State;

    #[test]
    fn periodic_timer_counts_what_it_missed() {
        let mut state = State { expires_ns: Some(100), interval_ns: 10, ..State::default() };
        assert!(!state.advance(99));
        assert!(state.advance(135));
        assert_eq!((state.n_expired, state.expires_ns), (4, Some(140)));
    }

    #[test]
    fn single_shot_expires_once() {
        let mut state = State { expires_ns: Some(100), ..State::default() };
        assert!(state.advance(500));
        assert!(!state.advance(600));
        assert_eq!((state.n_expired, state.expires_ns), (1, None));
    }
}
