//! Per-process timers: `setitimer(2)` and `timer_create(2)`.
//!
//! A timer of a wall or monotonic clock is one deadline in the timer queue. A timer of a CPU clock
//! looks again when the process could at the earliest have used the time.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use sentry_host::clock::{self, Clock as HostClock};
use syscalls::abi::signal::{SI_KERNEL, SIGALRM, SIGKILL, SIGPROF, SIGVTALRM, SIGXCPU, Siginfo};
use syscalls::{Errno, SysResult};

use super::TimerHandle;
use crate::kernel::Kernel;
use crate::sync::{Events, Mutex, Waiter};
use crate::task::limits::INFINITY;
use crate::task::signal::queue::{OF_TIMER, SignalQueue};
use crate::task::{Task, ThreadGroup, signal};

/// The most timers of a process: what `RLIMIT_SIGPENDING` allows on Linux, bounded.
const MAX_TIMERS: usize = 4096;

/// The shortest time after which a CPU clock is looked at again.
const CPU_TICK_NS: u64 = 1_000_000;

/// How often an interval timer is looked at, at the most. What expires in between is counted by the
/// clock when the signal is delivered.
const REPEAT_NS: u64 = 20_000;

/// What a timer measures.
#[derive(Clone, Debug)]
pub enum TimerClock {
    /// `CLOCK_REALTIME`: an absolute time follows changes of the host's clock only when it is set.
    Realtime,
    /// `CLOCK_MONOTONIC`.
    Monotonic,
    /// Another one of the host's.
    Host(HostClock),
    /// User time of the process.
    ProcessUser,
    /// User and system time of the process.
    ProcessCpu,
    /// User and system time of one thread.
    ThreadCpu(Weak<Task>),
}

/// What a timer does when it expires.
#[derive(Clone, Debug)]
pub enum Notify {
    /// Nothing.
    None,
    /// Sends this signal to the process.
    Process(Siginfo),
    /// Sends this signal to one thread.
    Thread(Weak<Task>, Siginfo),
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Task({})", self.tid())
    }
}

/// The timers of one process.
#[derive(Default)]
pub struct ProcessTimers {
    state: Mutex<Timers>,
}

#[derive(Default)]
struct Timers {
    /// `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF`.
    interval: [Option<Arc<Timer>>; 3],
    created: BTreeMap<i32, Arc<Timer>>,
    next_id: i32,
    /// `RLIMIT_CPU`: SIGXCPU at the soft limit and each second after it, SIGKILL at the hard one.
    cpu_limit: [Option<Arc<Timer>>; 2],
}

/// One timer.
pub struct Timer {
    kernel: Arc<Kernel>,
    group: Weak<ThreadGroup>,
    clock: TimerClock,
    notify: Notify,
    state: Mutex<TimerState>,
    this: Weak<Timer>,
}

#[derive(Default)]
struct TimerState {
    /// When it expires next, in nanoseconds of its clock.
    expires_ns: Option<u64>,
    interval_ns: u64,
    handle: Option<TimerHandle>,
    /// Expirations since the signal that is pending was sent.
    overrun: u64,
    /// What `timer_getoverrun(2)` returns.
    last_overrun: u64,
}

impl TimerState {
    /// Goes behind all expirations up to `now_ns`; returns how many there were.
    fn advance(&mut self, now_ns: u64) -> u64 {
        let Some(expires_ns) = self.expires_ns else { return 0 };
        let Some(late_ns) = now_ns.checked_sub(expires_ns) else { return 0 };
        let Some(n_intervals) = late_ns.checked_div(self.interval_ns) else {
            self.expires_ns = None;
            return 1;
        };
        let n = n_intervals.saturating_add(1);
        self.expires_ns = Some(expires_ns.saturating_add(n.saturating_mul(self.interval_ns)));
        n
    }
}

/// Remaining time and interval in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Until the next expiration; zero for a disarmed timer.
    pub value_ns: u64,
    /// Between later ones; zero for a single shot.
    pub interval_ns: u64,
}

impl Timer {
    fn new(group: &Arc<ThreadGroup>, clock: TimerClock, notify: Notify) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            kernel: group.kernel.clone(),
            group: Arc::downgrade(group),
            clock,
            notify,
            state: Mutex::new(TimerState::default()),
            this: this.clone(),
        })
    }

    fn now_ns(&self) -> u64 {
        let clock = &self.kernel.clock;
        let group = || self.group.upgrade();
        match &self.clock {
            TimerClock::Realtime => u64::try_from(clock.realtime_ns()).unwrap_or(0),
            TimerClock::Monotonic => clock.monotonic_ns(),
            TimerClock::Host(of) => u64::try_from(clock::now_ns(*of)).unwrap_or(0),
            TimerClock::ProcessUser => group().map_or(0, |group| group.cpu_ns().0),
            TimerClock::ProcessCpu => group().map_or(0, |group| {
                let (user, system) = group.cpu_ns();
                user.saturating_add(system)
            }),
            TimerClock::ThreadCpu(task) => task.upgrade().map_or(0, |task| {
                let (user, system) = task.cpu_ns();
                user.saturating_add(system)
            }),
        }
    }

    /// Returns when to look at the timer, on the monotonic clock.
    fn host_deadline_ns(&self, expires_ns: u64, now_ns: u64) -> u64 {
        let left = expires_ns.saturating_sub(now_ns);
        let monotonic = self.kernel.clock.monotonic_ns();
        let wait = match &self.clock {
            TimerClock::Realtime | TimerClock::Monotonic | TimerClock::Host(_) => left,
            TimerClock::ThreadCpu(_) => left.max(CPU_TICK_NS),
            TimerClock::ProcessUser | TimerClock::ProcessCpu => {
                let n = self.group.upgrade().map_or(1, |group| group.live_tasks().len().max(1));
                (left / u64::try_from(n).unwrap_or(1)).max(CPU_TICK_NS)
            }
        };
        monotonic.saturating_add(wait)
    }

    fn arm(&self, state: &mut TimerState, now_ns: u64) {
        state.handle = state.expires_ns.and_then(|expires_ns| {
            let waiter: Arc<dyn Waiter> = self.this.upgrade()?;
            let deadline_ns = self.host_deadline_ns(expires_ns, now_ns);
            Some(self.kernel.timers.schedule(deadline_ns, &waiter, 0))
        });
    }

    /// Returns the clock of the host that the timer goes by, where it is one.
    pub(crate) fn host_clock(&self) -> Option<HostClock> {
        match &self.clock {
            TimerClock::Realtime => Some(HostClock::Realtime),
            TimerClock::Monotonic => Some(HostClock::Monotonic),
            TimerClock::Host(of) => Some(*of),
            TimerClock::ProcessUser | TimerClock::ProcessCpu | TimerClock::ThreadCpu(_) => None,
        }
    }

    /// Returns the present setting.
    pub fn get(&self) -> Setting {
        let now_ns = self.now_ns();
        let state = self.state.lock();
        let value_ns = state.expires_ns.map_or(0, |at| at.saturating_sub(now_ns).max(1));
        Setting { value_ns, interval_ns: state.interval_ns }
    }

    /// Arms or disarms the timer; `absolute` takes `value_ns` as a time of the clock. Returns the
    /// previous setting.
    pub fn set(&self, new: Setting, absolute: bool) -> Setting {
        let old = self.get();
        let now_ns = self.now_ns();
        let mut state = self.state.lock();
        let previous = state.handle.take();
        state.interval_ns = new.interval_ns;
        state.overrun = 0;
        state.last_overrun = 0;
        self.withdraw();
        state.expires_ns = (new.value_ns != 0)
            .then(|| if absolute { new.value_ns } else { now_ns.saturating_add(new.value_ns) });
        self.arm(&mut state, now_ns);
        drop(state);
        drop(previous);
        old
    }

    /// Returns what `timer_getoverrun(2)` returns.
    pub fn overrun(&self) -> i32 {
        i32::try_from(self.state.lock().last_overrun).unwrap_or(i32::MAX)
    }

    fn expire(&self) {
        let now_ns = self.now_ns();
        let mut state = self.state.lock();
        let old = state.handle.take();
        let Some(expires_ns) = state.expires_ns else { return };
        if now_ns < expires_ns {
            self.arm(&mut state, now_ns);
            drop(state);
            drop(old);
            return;
        }
        let n = state.advance(now_ns);
        let left_ns = state.expires_ns.map_or(u64::MAX, |at| at.saturating_sub(now_ns));
        let early_ns = REPEAT_NS.saturating_sub(left_ns);
        self.arm(&mut state, now_ns.saturating_sub(early_ns));
        let is_pending = self.is_pending();
        state.overrun = if is_pending { state.overrun.saturating_add(n) } else { n - 1 };
        drop(state);
        drop(old);
        if !is_pending {
            self.send();
        }
    }

    /// Returns whether its signal waits for delivery. The signals of `setitimer(2)` are not
    /// counted: each expiration sends one.
    fn is_pending(&self) -> bool {
        self.with_queue(|queue, id| queue.has_timer(id)).unwrap_or(false)
    }

    /// Takes back a signal that has not been delivered.
    fn withdraw(&self) {
        self.with_queue(SignalQueue::discard_timer);
    }

    /// Runs `f` on the queue that its signal goes to, with its id.
    fn with_queue<T>(&self, f: impl FnOnce(&mut SignalQueue, i32) -> T) -> Option<T> {
        match &self.notify {
            Notify::Process(info) if info.pad0 == OF_TIMER => {
                let group = self.group.upgrade()?;
                let mut signals = group.signals.lock();
                Some(f(&mut signals.pending, info.timer_id()))
            }
            Notify::Thread(task, info) if info.pad0 == OF_TIMER => {
                let task = task.upgrade()?;
                let mut signals = task.signals.lock();
                Some(f(&mut signals.pending, info.timer_id()))
            }
            _ => None,
        }
    }

    fn send(&self) {
        match &self.notify {
            Notify::None => {}
            Notify::Process(info) => {
                if let Some(group) = self.group.upgrade() {
                    let _ = signal::send_to_group(&group, *info);
                }
            }
            Notify::Thread(task, info) => {
                if let Some(task) = task.upgrade() {
                    let _ = signal::send_to_task(&task, *info);
                }
            }
        }
    }
}

impl Waiter for Timer {
    fn notify(&self, _key: u64, _events: Events) {
        self.expire();
    }
}

impl ProcessTimers {
    /// Returns the interval timer `which` (0 to 2), made when first used.
    pub fn interval(&self, group: &Arc<ThreadGroup>, which: usize) -> SysResult<Arc<Timer>> {
        let mut timers = self.state.lock();
        let slot = timers.interval.get_mut(which).ok_or(Errno::EINVAL)?;
        let timer = slot.get_or_insert_with(|| {
            let (clock, signo) = match which {
                0 => (TimerClock::Monotonic, SIGALRM),
                1 => (TimerClock::ProcessUser, SIGVTALRM),
                _ => (TimerClock::ProcessCpu, SIGPROF),
            };
            Timer::new(group, clock, Notify::Process(Siginfo::new(signo, SI_KERNEL)))
        });
        Ok(timer.clone())
    }

    /// Creates a timer; `notify` is told its id.
    ///
    /// # Errors
    /// `EAGAIN` where the process has too many.
    pub fn create(
        &self,
        group: &Arc<ThreadGroup>,
        clock: TimerClock,
        notify: impl FnOnce(i32) -> Notify,
    ) -> SysResult<i32> {
        let mut timers = self.state.lock();
        if timers.created.len() >= MAX_TIMERS {
            return Err(Errno::EAGAIN);
        }
        let id = timers.next_id;
        timers.next_id = timers.next_id.checked_add(1).unwrap_or(0);
        if timers.created.contains_key(&id) {
            return Err(Errno::EAGAIN);
        }
        timers.created.insert(id, Timer::new(group, clock, notify(id)));
        Ok(id)
    }

    /// Returns a created timer.
    ///
    /// # Errors
    /// `EINVAL` for an id that is none.
    pub fn get(&self, id: i32) -> SysResult<Arc<Timer>> {
        self.state.lock().created.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// Deletes a created timer.
    ///
    /// # Errors
    /// `EINVAL` for an id that is none.
    pub fn delete(&self, id: i32) -> SysResult<()> {
        let timer = self.state.lock().created.remove(&id).ok_or(Errno::EINVAL)?;
        timer.set(Setting::default(), false);
        Ok(())
    }

    /// Is told that a signal has been taken for delivery: a timer's overrun count goes into its
    /// record and starts anew. The clock says how often it has expired by now, not how often the
    /// timer queue has come to look at it.
    pub(crate) fn signal_delivered(&self, info: &mut Siginfo) {
        if std::mem::take(&mut info.pad0) != OF_TIMER {
            return;
        }
        let Ok(timer) = self.get(info.timer_id()) else { return };
        let now_ns = timer.now_ns();
        let mut state = timer.state.lock();
        let n_missed = if state.interval_ns > 0 { state.advance(now_ns) } else { 0 };
        state.last_overrun = state.overrun.saturating_add(n_missed);
        state.overrun = 0;
        info.set_overrun(i32::try_from(state.last_overrun).unwrap_or(i32::MAX));
    }

    /// Arms what enforces `RLIMIT_CPU`, given in seconds.
    pub(crate) fn set_cpu_limit(&self, group: &Arc<ThreadGroup>, limit: (u64, u64)) {
        const SECOND_NS: u64 = 1_000_000_000;
        let wanted = [(limit.0, SIGXCPU, SECOND_NS), (limit.1, SIGKILL, 0)];
        let new = wanted.map(|(seconds, signo, interval_ns)| {
            (seconds != INFINITY).then(|| {
                let notify = Notify::Process(Siginfo::new(signo, SI_KERNEL));
                let timer = Timer::new(group, TimerClock::ProcessCpu, notify);
                let value_ns = seconds.saturating_mul(SECOND_NS).max(1);
                timer.set(Setting { value_ns, interval_ns }, true);
                timer
            })
        });
        let old = std::mem::replace(&mut self.state.lock().cpu_limit, new);
        for timer in old.iter().flatten() {
            timer.set(Setting::default(), false);
        }
    }

    /// Deletes the timers of `timer_create(2)`: exec. Interval timers stay.
    pub(crate) fn clear_created(&self) {
        let created = std::mem::take(&mut self.state.lock().created);
        for timer in created.values() {
            timer.set(Setting::default(), false);
        }
    }

    /// Deletes all timers: exit.
    pub(crate) fn clear(&self) {
        let old = std::mem::take(&mut *self.state.lock());
        let limits = old.cpu_limit.iter().flatten();
        for timer in old.created.values().chain(old.interval.iter().flatten()).chain(limits) {
            timer.set(Setting::default(), false);
        }
    }
}
