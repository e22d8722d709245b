//! The life of a task between its platform's events: serve, deliver signals, go back.
//!
//! [`Task::run_state`] says who may touch the task's context:
//!
//! ```text
//! GUEST    the application runs; the next event belongs to whoever receives it
//! SERVING  one serving thread works on the task
//! WOKEN    the same, and something that the task may be about to wait for has happened
//! BLOCKED  nobody; a wake-up makes it READY
//! READY    queued with the platform as work
//! DEAD     the context has ended
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use sentry_platform::{Context, ContextOwner, Event, SyscallArgs, Work};
use syscalls::Errno;

use super::ptrace::stop::GoOn;
use super::seccomp::{self, Verdict};
use super::signal::deliver;
use super::{Control, CurrentTask, Restart, Task, exit, identity, ptrace, signal};
use crate::mm::{in_flight, patch};
use crate::syscalls::dispatch;

pub(crate) const GUEST: u8 = 0;
pub(crate) const SERVING: u8 = 1;
pub(crate) const WOKEN: u8 = 2;
pub(crate) const BLOCKED: u8 = 3;
pub(crate) const READY: u8 = 4;
pub(crate) const DEAD: u8 = 5;

/// How often in a row a task that is woken while it goes to sleep keeps its serving thread.
const MAX_WAKES: u32 = 3;

/// Returns the state in which a task is created: its context is stopped and nobody serves it.
pub(crate) fn initial_state() -> AtomicU8 {
    AtomicU8::new(SERVING)
}

/// What a blocked task does when it is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Runs the present system call (again).
    Call,
    /// Looks for signals and goes back to the application.
    Return,
    /// Looks whether its tracer lets it go on.
    Traced,
}

/// The owner of one context of a task. Exec gives a task a new context; what the old one still
/// reports is told apart by its generation and ignored.
pub(crate) struct Owner {
    task: Arc<Task>,
    generation: u32,
    /// Set where the context has been given up before it became the task's.
    is_void: AtomicBool,
}

impl Owner {
    /// Returns an owner for the task's next context, whose generation becomes current with
    /// [`Task::set_context`].
    pub(crate) fn next(task: &Arc<Task>) -> Arc<Self> {
        let generation = task.generation.load(Ordering::SeqCst).wrapping_add(1);
        Arc::new(Self { task: task.clone(), generation, is_void: AtomicBool::new(false) })
    }

    /// Returns the owner of a new task's first context.
    pub(crate) fn first(task: &Arc<Task>) -> Arc<Self> {
        Arc::new(Self { task: task.clone(), generation: 0, is_void: AtomicBool::new(false) })
    }

    /// Ignores whatever the context still reports.
    pub(crate) fn make_void(&self) {
        self.is_void.store(true, Ordering::SeqCst);
    }
}

impl ContextOwner for Owner {
    fn on_event(self: Arc<Self>, event: Event) {
        let task = &self.task;
        if task.generation.load(Ordering::SeqCst) != self.generation
            || self.is_void.load(Ordering::SeqCst)
        {
            return;
        }
        if let Event::Exited { signal } = event {
            task.run_state.store(DEAD, Ordering::SeqCst);
            in_flight::retire(task);
            exit::context_ended(task, signal);
            return;
        }
        // A context has one event at a time; where a hostile stub makes up another one, the task
        // is not GUEST and the event is dropped.
        if !cas(task, GUEST, SERVING) {
            return;
        }
        let current = CurrentTask::new(task.clone());
        signal::lent::take_back(&current);
        // What its last call has planned has not been made.
        if exit::go_on_exiting(&current) {
            return;
        }
        if current.ptrace.has_phase() && ptrace::stop::end_errand(&current, &event) {
            return step(&current, Step::Traced);
        }
        if current.ptrace.is_on() {
            ptrace::stop::disarm(&current);
        }
        let promised = current.promised.load(Ordering::Relaxed);
        if promised {
            current.promised.store(false, Ordering::Relaxed);
        }
        if !matches!(event, Event::HostCallFailed { .. }) {
            drop(current.pending_clone.take());
            in_flight::retire(task);
            if promised {
                current.end_block();
            }
        }
        match event {
            Event::Syscall => {
                let call = current.context().syscall();
                *current.call.lock() = call;
                dispatch::enter(&current, &call);
                if current.ptrace.is_on() && ptrace::stop::enter_call(&current) {
                    return step(&current, Step::Traced);
                }
                if let Some(next) = admit(&current, &call) {
                    step(&current, next);
                }
            }
            Event::Fault(fault) => {
                if !crate::mm::fault::grow_stack(&current, &fault) {
                    signal::raise_fault(&current, &fault);
                }
                step(&current, Step::Return);
            }
            Event::Interrupted => step(&current, Step::Return),
            Event::HostCallsDone => step(&current, Step::Call),
            Event::HostCallFailed { .. } if promised => step(&current, Step::Call),
            Event::HostCallFailed { index, errno } => {
                host_call_failed(&current, index, errno);
                step(&current, Step::Return);
            }
            Event::Exited { .. } => {}
        }
    }
}

impl Work for Task {
    fn run(self: Arc<Self>) {
        if self
            .run_state
            .compare_exchange(READY, SERVING, Ordering::SeqCst, Ordering::SeqCst)
            .is_err()
        {
            return;
        }
        let current = CurrentTask::new(self);
        if current.container().is_frozen() && !deliver::is_leaving(&current) {
            // What it waits for has come, and stays for when it is thawed, which wakes it.
            if cas(&current, SERVING, BLOCKED) {
                return;
            }
            current.run_state.store(SERVING, Ordering::SeqCst);
        }
        let next = if current.ptrace.has_phase() {
            Step::Traced
        } else if current.is_in_call() {
            Step::Call
        } else {
            Step::Return
        };
        step(&current, next);
    }
}

/// Makes a blocked task ready; has no effect on a task that runs application code.
pub(crate) fn wake(task: &Arc<Task>) {
    loop {
        match task.run_state.load(Ordering::SeqCst) {
            BLOCKED => {
                if cas(task, BLOCKED, READY) {
                    task.kernel.platform().submit(task.clone());
                    return;
                }
            }
            SERVING => {
                if cas(task, SERVING, WOKEN) {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// Makes a task look at its signals soon, wherever it is. The cause has been stored before.
pub(crate) fn interrupt(task: &Arc<Task>) {
    task.attention.store(true, Ordering::SeqCst);
    if task.run_state.load(Ordering::SeqCst) == GUEST {
        let context = task.context.lock().clone();
        context.interrupt();
    } else {
        wake(task);
    }
}

/// Makes a task that runs application code, or is about to, report an event soon.
pub(crate) fn hurry(task: &Arc<Task>) {
    if task.run_state.load(Ordering::SeqCst) == GUEST {
        let context = task.context.lock().clone();
        context.interrupt();
    }
}

/// Makes a task that runs application code come back from it, where [`deliver::before_return`]
/// finds the reason; has no effect on one that is blocked.
pub(crate) fn retreat(task: &Arc<Task>) {
    // Seen by a task that is about to go to the application.
    task.facts_changed.store(true, Ordering::SeqCst);
    hurry(task);
}

/// Returns whether nobody works on a task, and no application code of it runs.
pub(crate) fn is_at_rest(task: &Task) -> bool {
    matches!(task.run_state.load(Ordering::SeqCst), BLOCKED | DEAD)
}

impl Task {
    /// Makes `context`, created with [`Owner::next`], the task's context.
    pub(crate) fn set_context(&self, context: Arc<dyn Context>) {
        *self.context.lock() = context;
        self.facts_changed.store(true, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

/// Starts a new task: its context has its registers, and goes to the application.
pub(crate) fn start(task: &Arc<Task>) {
    step(&CurrentTask::new(task.clone()), Step::Return);
}

fn cas(task: &Task, from: u8, to: u8) -> bool {
    task.run_state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// Leaves a task alone until it is woken. Returns false where it has been already: the caller looks
/// again.
pub(crate) fn park(current: &CurrentTask) -> bool {
    if cas(current, SERVING, BLOCKED) {
        return true;
    }
    current.run_state.store(SERVING, Ordering::SeqCst);
    false
}

/// Asks the filters about a call. Returns what the task does next, unless it has ended.
fn admit(current: &CurrentTask, call: &SyscallArgs) -> Option<Step> {
    match seccomp::check(current, call) {
        Verdict::Serve => {
            patch::answer_clone(current, call);
            Some(Step::Call)
        }
        Verdict::Answered => Some(Step::Return),
        Verdict::Traced => Some(Step::Traced),
        Verdict::Ended => None,
    }
}

/// Keeps a task stopped for its tracer, whose serving thread then leaves it alone. Returns what the
/// task does next where it is not to stay.
pub(crate) fn stay(current: &CurrentTask) -> Option<Step> {
    loop {
        match ptrace::stop::go_on(current) {
            GoOn::Stay => {
                if park(current) {
                    ptrace::stop::announce(current.task());
                    return None;
                }
            }
            GoOn::Errand(errand) => {
                current.run_state.store(GUEST, Ordering::SeqCst);
                errand.start(&**current.context());
                return None;
            }
            GoOn::Next(next) => return Some(next),
            GoOn::Admit => {
                let call = *current.call.lock();
                return admit(current, &call);
            }
            GoOn::Leave(status) => {
                exit::exit_task(current, status);
                return None;
            }
        }
    }
}

/// Works on the task until it blocks, goes back to the application, or ends.
fn step(current: &CurrentTask, mut next: Step) {
    let mut n_wakes = 0;
    loop {
        if next == Step::Traced {
            match stay(current) {
                Some(after) => next = after,
                None => return,
            }
            continue;
        }
        if next == Step::Call {
            current.set_in_call(true);
            let outcome = dispatch::call(current);
            dispatch::leave(current, &outcome);
            match outcome {
                Err(Control::Block) => {
                    if cas(current, SERVING, BLOCKED) {
                        return;
                    }
                    // Woken before it blocked. Where that goes on, the others get their turn first:
                    // a serving thread belongs to all tasks.
                    n_wakes += 1;
                    if n_wakes > MAX_WAKES {
                        current.run_state.store(READY, Ordering::SeqCst);
                        current.kernel.platform().submit(current.task().clone());
                        return;
                    }
                    current.run_state.store(SERVING, Ordering::SeqCst);
                    continue;
                }
                Err(Control::HostCallsThen(value)) if resume_with(current, value) => return,
                Err(Control::HostCalls | Control::HostCallsThen(_)) => {
                    let calls = current.host_calls.take();
                    current.run_state.store(GUEST, Ordering::SeqCst);
                    current.context().start_host_calls(&calls);
                    return;
                }
                Err(Control::Traced) => {
                    next = Step::Traced;
                    continue;
                }
                Err(Control::Detached) => return,
                Err(Control::RegistersSet) => {}
                Ok(value) => current.context().set_return(value),
                Err(Control::Error(errno)) => current.context().set_return(errno.to_return()),
                Err(Control::Restart(restart)) => {
                    if restart == Restart::RestartBlock {
                        let saved = (*current.call.lock(), current.block_deadline_ns());
                        current.signals.lock().restart_block = Some(saved);
                    }
                    current.set_restart(Some(restart));
                }
            }
            current.set_in_call(false);
            current.end_block();
        }
        next = Step::Return;
        current.set_in_call(false);
        if current.ptrace.is_on() && ptrace::stop::leave_call(current) {
            next = Step::Traced;
            continue;
        }
        match deliver::before_return(current) {
            deliver::Next::Application => {
                current.set_restart(None);
                if resume(current) {
                    return;
                }
            }
            deliver::Next::Stopped => {
                if park(current) {
                    return;
                }
            }
            deliver::Next::Traced => next = Step::Traced,
            deliver::Next::Exited => return,
        }
    }
}

/// Lets the context go on, unless something wants attention after all.
fn resume(current: &CurrentTask) -> bool {
    identity::update(current);
    patch::answer(current);
    let is_traced = current.ptrace.is_on();
    if is_traced {
        ptrace::stop::arm(current);
    }
    let calls = current.host_calls.take();
    signal::lent::lend(current);
    current.run_state.store(GUEST, Ordering::SeqCst);
    // Whoever posts a signal stores it first and looks at the state then, so one side sees the
    // other; a spurious interrupt is harmless.
    let wants_attention = current.has_attention() || current.facts_changed.load(Ordering::SeqCst);
    if wants_attention && cas(current, GUEST, SERVING) {
        signal::lent::take_back(current);
        if !calls.is_empty() {
            *current.host_calls.lock() = calls;
        }
        if is_traced {
            ptrace::stop::disarm(current);
        }
        return false;
    }
    current.context().resume(&calls);
    true
}

/// Lets the context go on, with what its call returns where its host calls succeed, unless something
/// wants attention: that is served with what the calls bring.
fn resume_with(current: &CurrentTask, value: u64) -> bool {
    if deliver::is_due(current) {
        return false;
    }
    current.set_in_call(false);
    current.context().set_return(value);
    current.promised.store(true, Ordering::Relaxed);
    if resume(current) {
        return true;
    }
    current.promised.store(false, Ordering::Relaxed);
    current.set_in_call(true);
    false
}

/// A host call failed although the sentry had found the request good: the host is out of memory
/// or of mappings. The present call fails with its error.
pub(crate) fn host_call_failed(current: &CurrentTask, index: usize, errno: Errno) {
    crate::log::debug(format_args!("task {}: host call {index} failed: {errno}", current.tid()));
    let answer = if super::clone::failed(current, errno) {
        None
    } else {
        current.mm().host_call_failed(current, index, errno)
    };
    current.context().set_return(answer.unwrap_or(errno.to_return()));
}

/// Returns the letter of a task's state and its name, as `/proc/PID/status` has them.
pub(crate) fn state_of(task: &Task) -> (char, &'static str) {
    if task.exiting.load(Ordering::SeqCst) || task.group.is_zombie() {
        return ('Z', "zombie");
    }
    if task.ptrace.is_stopped() {
        return ('t', "tracing stop");
    }
    if task.group.signals.lock().stop.is_some() && !task.ptrace.ignores_stop() {
        return ('T', "stopped");
    }
    match task.run_state.load(Ordering::Relaxed) {
        DEAD => ('Z', "zombie"),
        BLOCKED if task.vfork_child.lock().is_some() => ('D', "disk sleep"),
        BLOCKED => ('S', "sleeping"),
        _ => ('R', "running"),
    }
}
