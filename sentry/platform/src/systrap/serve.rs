//! Receiving rings, handing events to their owners, and reaping processes.
//!
//! One thread at a time has the *lead*: it alone receives from the doorbell. It gives the lead back
//! before it serves what it has received, but wakes nobody for it: it will mostly be the next to
//! take it. Workers that find the lead taken *park*. A watchdog notices when the lead has been free for
//! too long, because an event takes its time or blocks, and wakes a parked worker or makes a new
//! one; it sleeps while a leader waits for rings. Who must wait for a particular ring (`create`,
//! `call_now`) takes the lead where it is free and leaves other threads' events in the queue of
//! jobs.
//!
//! # Safety
//! The host calls here pass numbers and local structures.
#![expect(unsafe_code, reason = "waitid and signals")]

use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use sentry_host::Rule;
use syscalls::{Errno, SysResult};

use super::context::SystrapContext;
use super::doorbell::{self, Ring};
use super::follow::Follower;
use super::space::Space;
use super::spin::{Found, Spinner, Taken};
use super::{Inner, Job, lock};
use crate::{AddressSpace, Event};

/// The host calls of this module.
pub(super) const RULES: &[Rule] = &[
    Rule::any(libc::SYS_waitid),
    Rule::any(libc::SYS_futex),
    Rule::any(libc::SYS_gettid),
    Rule::any(libc::SYS_getrandom),
    Rule::any(libc::SYS_rt_sigaction),
    Rule::any(libc::SYS_rt_sigreturn),
];

/// How many ended strangers are remembered.
const MAX_ORPHANS: usize = 1024;
/// The signal that takes the leader out of its wait at the end.
const STOP_SIGNAL: i32 = libc::SIGURG;
const STACK_LEN: usize = 512 * 1024;
const SMALL_STACK_LEN: usize = 64 * 1024;
/// How many workers there are at most.
const MAX_WORKERS: usize = 16;
/// How often the watchdog looks, and after how many looks at an idle leader it sleeps.
const WATCH_PERIOD: Duration = Duration::from_millis(1);
const WATCH_IDLE: u32 = 20;
/// How often at most a sandbox that comes to rest gives its text back.
const RELEASE_PERIOD: Duration = Duration::from_secs(60);

thread_local! {
    /// The host id of this thread, zero before it was needed.
    static TID: Cell<u32> = const { Cell::new(0) };
    /// The context whose event this thread serves, or has just served, and whether that still goes on.
    static SERVED: RefCell<Option<Arc<SystrapContext>>> = const { RefCell::new(None) };
    static IS_SERVING: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread serves and looks at the queue after what it does now.
    static SERVES: Cell<bool> = const { Cell::new(false) };
}

impl Inner {
    /// Starts the threads that there must be, where they do not run yet.
    pub(super) fn start_threads(self: &Arc<Self>) -> SysResult<()> {
        let mut threads = lock(&self.threads);
        if threads.is_empty() {
            let (reaper, watchdog) = (Arc::clone(self), Arc::clone(self));
            let no_thread = |_| Errno::EAGAIN;
            let watchdog = spawn("watchdog", SMALL_STACK_LEN, move || watchdog.watch());
            threads.push(watchdog.map_err(no_thread)?);
            let reaper = spawn("reaper", STACK_LEN, move || reaper.reap());
            threads.push(reaper.map_err(no_thread)?);
        }
        Ok(())
    }

    /// Serves until `shut_down`.
    pub(super) fn serve(self: &Arc<Self>) {
        install_stop_handler();
        if self.start_threads().is_err() {
            return;
        }
        self.add_worker();
        lock(&self.jobs).n_workers += 1;
        self.work();
        // Its end is also that of the others.
        self.stopping.store(true, SeqCst);
        self.jobs_ready.notify_all();
        self.wake_watchdog();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            let _ = thread.join();
        }
        let mut jobs = lock(&self.jobs);
        while jobs.n_workers > 0 {
            jobs = self.jobs_ready.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
        let left = std::mem::take(&mut jobs.queue);
        drop(jobs);
        for job in left {
            run(job);
        }
        *lock(&self.zygote) = None;
    }

    /// Starts a further worker, where there are not too many.
    fn add_worker(self: &Arc<Self>) {
        {
            let mut jobs = lock(&self.jobs);
            if jobs.n_workers >= MAX_WORKERS {
                return;
            }
            jobs.n_workers += 1;
        }
        let worker = Arc::clone(self);
        if spawn("worker", STACK_LEN, move || worker.work()).is_err() {
            lock(&self.jobs).n_workers -= 1;
        }
    }

    /// The life of a worker: jobs first, then rings, and parking where another one has the lead.
    fn work(self: &Arc<Self>) {
        SERVES.set(true);
        self.run_jobs();
        let mut spinner = Spinner::new();
        let mut follower = Follower::new();
        while !self.is_done() {
            let Some(lead) = self.take_lead() else {
                follower.stop(self);
                match spinner.stop(self) {
                    Some(event) => self.serve_event(event, &mut spinner),
                    None => self.park(),
                }
                self.run_jobs();
                continue;
            };
            // Told apart before the lead goes: who then takes it can rely on every ring so far.
            if spinner.is_watching() {
                follower.stop(self);
            }
            let mut by_ring = false;
            let received = match spinner.spin(self) {
                Found::Event(event) => Ok(Some(event)),
                Found::Other if !self.doorbell.has_ring() => Ok(None),
                // What is left over of a crowd.
                Found::Nothing if self.has_jobs() => Ok(None),
                Found::Other | Found::Nothing => {
                    by_ring = true;
                    self.receive().map(|ring| self.route(&ring))
                }
            };
            drop(lead);
            if let Ok(Some((context, _))) = &received
                && by_ring
            {
                spinner.rang(self, context);
                if !spinner.is_watching() {
                    follower.rang(self, context);
                }
            }
            match received {
                Ok(Some(event)) => self.serve_event(event, &mut spinner),
                Ok(None) => {}
                Err(doorbell::GONE) if lock(&self.processes).by_pid.is_empty() => break,
                Err(_) => {}
            }
            self.run_jobs();
            SERVED.take();
        }
        if let Some(event) = spinner.stop(self) {
            self.serve_event(event, &mut spinner);
        }
        SERVES.set(false);
        self.stopping.store(true, SeqCst);
        lock(&self.jobs).n_workers -= 1;
        self.jobs_ready.notify_all();
    }

    fn run_jobs(&self) {
        while let Some(job) = self.next_job() {
            run(job);
        }
    }

    /// Hands an event to its owner, and those that come of the end of watching a thread.
    fn serve_event(&self, event: Taken, spinner: &mut Spinner) {
        let mut next = Some(event);
        while let Some((context, event)) = next {
            SERVED.replace(Some(Arc::clone(&context)));
            IS_SERVING.set(true);
            context.deliver(event);
            IS_SERVING.set(false);
            if !context.is_conversing() {
                context.note_blocked();
            }
            next = spinner.served(self, &context);
        }
    }

    /// Returns whether jobs wait.
    pub(super) fn has_jobs(&self) -> bool {
        self.n_jobs.load(Relaxed) != 0
    }

    /// Returns whether workers should end.
    fn is_done(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Waits for a job or for the lead to be offered.
    fn park(&self) {
        let mut jobs = lock(&self.jobs);
        jobs.n_parked += 1;
        while jobs.queue.is_empty() && !jobs.lead_offered && !self.is_done() {
            jobs = self.jobs_ready.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
        jobs.n_parked -= 1;
        jobs.lead_offered = false;
        drop(jobs);
        if self.watchdog_sleeps.load(SeqCst) {
            self.wake_watchdog();
        }
    }

    /// Takes the lead where it is free.
    fn take_lead(&self) -> Option<Lead<'_>> {
        let guard = self.lead.try_lock().ok()?;
        self.lead_taken.store(self.lead_taken.load(Relaxed).wrapping_add(1), Relaxed);
        // The watchdog may see that later; what it must not miss is the end.
        self.lead_held.store(true, Release);
        Some(Lead { inner: self, _guard: guard })
    }

    /// Looks after the lead: see the module.
    fn watch(self: &Arc<Self>) {
        let mut seen = 0;
        let mut idle = 0;
        let mut released: Option<Instant> = None;
        while !self.is_done() {
            std::thread::sleep(WATCH_PERIOD);
            let taken = self.lead_taken.load(Relaxed);
            let held = self.lead_held.load(SeqCst);
            if taken != seen {
                (seen, idle) = (taken, 0);
            } else if !held {
                idle = 0;
                let mut jobs = lock(&self.jobs);
                let parked = jobs.n_parked > 0;
                jobs.lead_offered = parked;
                drop(jobs);
                if parked {
                    self.jobs_ready.notify_one();
                } else {
                    self.add_worker();
                }
            } else {
                // The leader waits for rings. Jobs that all others leave lying need another worker.
                let jobs = lock(&self.jobs);
                let lying = !jobs.queue.is_empty() && jobs.n_parked == 0;
                let at_rest = jobs.n_workers <= jobs.n_parked + 1;
                drop(jobs);
                if lying {
                    self.add_worker();
                }
                idle = if at_rest { idle + 1 } else { 0 };
            }
            if idle > WATCH_IDLE {
                if released.is_none_or(|at| at.elapsed() > RELEASE_PERIOD) {
                    sentry_host::text::release();
                    released = Some(Instant::now());
                }
                let mut asleep = lock(&self.watchdog_asleep);
                self.watchdog_sleeps.store(true, SeqCst);
                // A leader that has just gone has seen no sleeper: look once more.
                while self.watchdog_sleeps.load(SeqCst)
                    && self.lead_held.load(SeqCst)
                    && !self.is_done()
                {
                    asleep =
                        self.watchdog_wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
                }
                self.watchdog_sleeps.store(false, SeqCst);
                idle = 0;
            }
        }
    }

    fn wake_watchdog(&self) {
        let guard = lock(&self.watchdog_asleep);
        self.watchdog_sleeps.store(false, SeqCst);
        drop(guard);
        self.watchdog_wake.notify_one();
    }

    /// Kills every process and ends `serve`.
    pub(super) fn shut_down(&self) {
        self.stopping.store(true, SeqCst);
        let spaces: Vec<Arc<Space>> = lock(&self.processes).by_pid.values().cloned().collect();
        for space in spaces {
            space.kill();
        }
        drop(lock(&self.jobs));
        self.jobs_ready.notify_all();
        self.wake_watchdog();
        loop {
            let receiver = self.receiver.load(SeqCst);
            if receiver == 0 || receiver == own_tid() {
                return;
            }
            // SAFETY: passes numbers; the signal has a handler.
            unsafe { libc::syscall(libc::SYS_tgkill, self.own_pid, receiver, STOP_SIGNAL) };
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until `done`, receiving rings where nobody else does.
    pub(super) fn wait_for(self: &Arc<Self>, done: impl Fn() -> bool) {
        loop {
            if done() {
                return;
            }
            if let Some(lead) = self.take_lead() {
                if !done() {
                    self.receive_for_later();
                }
                drop(lead);
                continue;
            }
            self.n_waiting.fetch_add(1, SeqCst);
            let rings = lock(&self.rings);
            if !done() {
                // The time-out covers a leader that gave up the lead without a ring.
                drop(self.rung.wait_timeout(rings, Duration::from_millis(20)));
            }
            self.n_waiting.fetch_sub(1, SeqCst);
        }
    }

    /// Receives one ring and leaves its event in the queue.
    fn receive_for_later(self: &Arc<Self>) {
        if let Ok(ring) = self.receive()
            && let Some((context, event)) = self.route(&ring)
        {
            self.queue(Job::Event(context, event));
            self.jobs_ready.notify_one();
        }
    }

    /// Receives one ring; the caller has the lead.
    fn receive(&self) -> SysResult<Ring> {
        self.receiver.store(own_tid(), SeqCst);
        let received =
            if self.stopping.load(SeqCst) { Err(Errno::EINTR) } else { self.doorbell.receive() };
        self.receiver.store(0, SeqCst);
        received
    }

    /// Removes a context that has ended from all tables.
    pub(super) fn forget(&self, context: &Arc<SystrapContext>) {
        let tid = context.tid();
        if tid != 0 {
            let mut tasks = self.tasks.write().unwrap_or_else(PoisonError::into_inner);
            if tasks.get(&tid).is_some_and(|known| Arc::ptr_eq(known, context)) {
                tasks.remove(&tid);
            }
        }
        context.space.remove_thread(context);
    }

    /// Ends the host thread of a stopped context.
    pub(super) fn exit(&self, context: &SystrapContext) {
        let own = context.space.thread(u64::from(context.index));
        let Some(own) = own.filter(|own| std::ptr::eq(Arc::as_ptr(own), context)) else { return };
        let last = !context.space.leave(&own);
        if last && SERVES.get() && self.has_jobs() {
            // Whoever waits for the end of the application's process comes before the host's.
            self.queue(Job::Exit(own));
            return;
        }
        if context.send_exit(last).is_ok() && !last {
            own.die(0);
        }
    }

    /// Leaves a job for a serving thread.
    pub(super) fn post(&self, job: Job) {
        self.queue(job);
        if !SERVES.get() || self.stopping.load(SeqCst) {
            self.jobs_ready.notify_one();
        }
    }

    pub(super) fn queue(&self, job: Job) {
        let mut jobs = lock(&self.jobs);
        jobs.queue.push_back(job);
        self.n_jobs.store(jobs.queue.len(), Relaxed);
    }

    fn next_job(&self) -> Option<Job> {
        if !self.has_jobs() {
            return None;
        }
        let mut jobs = lock(&self.jobs);
        let job = jobs.queue.pop_front();
        self.n_jobs.store(jobs.queue.len(), Relaxed);
        job
    }

    /// Waits for the end of processes.
    fn reap(self: &Arc<Self>) {
        loop {
            let Some((pid, signal)) = wait_for_child() else {
                return;
            };
            self.hear_messages(pid);
            let space = {
                let mut processes = lock(&self.processes);
                let space = processes.by_pid.remove(&pid);
                if space.is_none() {
                    processes.orphans.push_back((pid, signal));
                    if processes.orphans.len() > MAX_ORPHANS {
                        processes.orphans.pop_front();
                    }
                }
                space
            };
            if let Some(space) = &space {
                // From here on nobody signals the pid; then it can be given back.
                space.set_dead();
            }
            reap_child(pid);
            if let Some(space) = space {
                self.reaped(&space, signal);
                if lock(&self.processes).by_pid.is_empty() {
                    self.doorbell.close();
                }
            }
            if self.stopping.load(SeqCst) && lock(&self.processes).by_pid.is_empty() {
                self.jobs_ready.notify_all();
                return;
            }
        }
    }
}

/// The lead, given back when dropped.
struct Lead<'a> {
    inner: &'a Inner,
    _guard: std::sync::MutexGuard<'a, ()>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.inner.lead_held.store(false, SeqCst);
        if self.inner.watchdog_sleeps.load(SeqCst) {
            self.inner.wake_watchdog();
        }
    }
}

fn spawn(
    name: &str,
    stack: usize,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).stack_size(stack).spawn(body)
}

/// Returns whether this thread serves an event of this context.
pub(super) fn is_serving(context: &SystrapContext) -> bool {
    let is_own = |served: &Option<Arc<SystrapContext>>| {
        served.as_ref().is_some_and(|served| std::ptr::eq(Arc::as_ptr(served), context))
    };
    IS_SERVING.get() && SERVED.with_borrow(is_own)
}

/// Looks at the context because of whose call others go on now, where there is one.
pub(super) fn with_waker<T>(look: impl FnOnce(Option<&SystrapContext>) -> T) -> T {
    SERVED.with_borrow(|served| look(served.as_deref()))
}

/// Returns the host id of this thread.
pub(super) fn own_tid() -> u32 {
    if TID.get() == 0 {
        // SAFETY: no arguments.
        TID.set(unsafe { libc::gettid() }.cast_unsigned());
    }
    TID.get()
}

fn run(job: Job) {
    match job {
        Job::Work(work) => work.run(),
        Job::Event(context, event) => context.deliver(event),
        Job::Exited(context, signal) => context.deliver(Event::Exited { signal }),
        Job::Exit(context) => {
            let _ = context.send_exit(true);
        }
    }
}

/// Waits for a child to end without reaping it: its pid and the signal that ended it, or `None`
/// where there are no children.
fn wait_for_child() -> Option<(i32, i32)> {
    loop {
        // SAFETY: all zeroes are a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` lives.
        let done =
            unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOWAIT) };
        if done == 0 {
            // SAFETY: waitid fills these fields.
            let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
            let signal = if info.si_code == libc::CLD_EXITED { 0 } else { status };
            return Some((pid, signal));
        }
        if super::last_errno() != Errno::EINTR {
            return None;
        }
    }
}

fn reap_child(pid: i32) {
    // SAFETY: all zeroes are a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` lives.
    unsafe { libc::waitid(libc::P_PID, pid.cast_unsigned(), &raw mut info, libc::WEXITED) };
}

/// Gives the stop signal a handler that does nothing, so that it interrupts a host call.
fn install_stop_handler() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: all zeroes are a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as usize;
    // SAFETY: the handler does nothing, hence is safe at any time.
    unsafe { libc::sigaction(STOP_SIGNAL, &raw const action, std::ptr::null_mut()) };
}
