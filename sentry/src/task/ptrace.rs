//! Tracing of threads: `ptrace(2)`.
//!
//! A traced task (the *tracee*) stops at its own system calls, signals and events, and stays
//! [stopped](stop) until its tracer lets it go on. A stop is announced only when nobody works on the
//! tracee any more, so the tracer may then read and change its registers and memory. What has to be
//! done by the tracee's own host thread (writing to text, looking at the extended state) is an
//! [`errand`]: the tracee's serving thread does it during the stop, and the tracer waits as
//! for anything else.
//!
//! Who traces whom changes under `Kernel::tree` only ([`link`]). The state of a tracee is a leaf lock,
//! taken after those of signals.

pub(crate) mod errand;
pub(crate) mod link;
pub(crate) mod memory;
pub(crate) mod report;
pub(crate) mod stop;
pub(crate) mod xstate;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use syscalls::Errno;
use syscalls::SysResult;
use syscalls::abi::ptrace::PtraceOptions;
use syscalls::abi::signal::Siginfo;

use self::errand::Slot;
use self::stop::{Phase, Stop};
use super::{CurrentTask, Task};
use crate::sync::{Mutex, WaitQueue};

/// How a tracee goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Run {
    /// Until something happens.
    #[default]
    Cont,
    /// Until its next entry to a system call, or the way out of one.
    Syscall,
    /// For one instruction.
    Step,
    /// Until its next system call, which is not made.
    Sysemu,
    /// The same, for at most one instruction.
    SysemuStep,
}

impl Run {
    fn is_step(self) -> bool {
        matches!(self, Self::Step | Self::SysemuStep)
    }
}

/// What a task is as a tracee and as a tracer.
#[derive(Default)]
pub(crate) struct Ptrace {
    /// Whether it is traced.
    is_on: AtomicBool,
    /// Whether it ever was traced: who never was has no lock to take.
    was_on: AtomicBool,
    /// Whether it runs although its process is stopped, as its tracer wants.
    ignores_stop: AtomicBool,
    /// Whether there is a reason to stop that is no signal.
    wants_trap: AtomicBool,
    state: Mutex<State>,
    /// Those that it traces.
    tracees: Mutex<Vec<Arc<Task>>>,
    /// Woken when an errand is done, or the task ends.
    events: WaitQueue,
}

/// The state of a tracee.
#[derive(Default)]
struct State {
    tracer: Option<Weak<Task>>,
    is_seized: bool,
    options: PtraceOptions,
    /// `PTRACE_GETEVENTMSG`.
    message: u64,
    stop: Option<Stop>,
    /// What the task does when the stop ends.
    phase: Option<Phase>,
    run: Run,
    /// The signal that the tracer lets it have, and the record of the stop that has ended.
    signal: i32,
    resumed_with: Option<Siginfo>,
    /// The signal that is delivered next.
    delivery: Option<Siginfo>,
    /// `PTRACE_LISTEN`.
    is_listening: bool,
    /// From the entry to a system call to the way out of it.
    is_in_call: bool,
    /// Whether the trap flag is the tracer's.
    is_armed: bool,
    /// An event that is told on the way back from the present call, and its message.
    event: Option<(i32, u64)>,
    errand: Slot,
    /// The address space whose text is as the program has it.
    clean_mm: Option<u64>,
    /// The wait status of a thread whose end its tracer has not seen yet.
    zombie: Option<i32>,
    has_told_exit: bool,
    /// The debug registers.
    debug: [u64; 8],
}

impl Ptrace {
    /// Returns whether the task is traced.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::SeqCst)
    }

    /// Returns whether a stop of its process does not concern it.
    pub(crate) fn ignores_stop(&self) -> bool {
        self.ignores_stop.load(Ordering::SeqCst)
    }

    /// Is told that the process goes on, or stops anew.
    pub(crate) fn heed_stops(&self) {
        self.ignores_stop.store(false, Ordering::SeqCst);
    }

    /// Returns whether it is to stop for its tracer.
    pub(crate) fn wants_trap(&self) -> bool {
        self.wants_trap.load(Ordering::SeqCst)
    }

    /// Returns whether it goes on with [`stop::go_on`] when it is woken.
    pub(crate) fn has_phase(&self) -> bool {
        self.was_on.load(Ordering::Relaxed) && self.state.lock().phase.is_some()
    }

    /// Returns whether it is stopped for its tracer.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_on() && self.state.lock().stop.as_ref().is_some_and(|stop| stop.is_announced)
    }

    /// Returns the tracer.
    pub(crate) fn tracer(&self) -> Option<Arc<Task>> {
        if !self.is_on() {
            return None;
        }
        self.state.lock().tracer.as_ref()?.upgrade()
    }

    /// Returns whether the tracer has asked for something.
    pub(crate) fn has_option(&self, option: PtraceOptions) -> bool {
        self.is_on() && self.state.lock().options.contains(option)
    }
}

/// A tracee that is stopped for the caller.
pub(crate) struct Tracee(Arc<Task>);

impl std::ops::Deref for Tracee {
    type Target = Arc<Task>;

    fn deref(&self) -> &Arc<Task> {
        &self.0
    }
}

impl State {
    fn is_of(&self, tracer: &Arc<Task>) -> bool {
        self.tracer.as_ref().is_some_and(|own| std::ptr::eq(own.as_ptr(), Arc::as_ptr(tracer)))
    }

    fn is_at_rest(&self) -> bool {
        !self.is_listening && self.stop.as_ref().is_some_and(|stop| stop.is_announced)
    }
}

/// Returns `task` as a tracee of the caller, stopped or not.
///
/// # Errors
/// `ESRCH`.
pub(crate) fn own(current: &CurrentTask, task: &Arc<Task>) -> SysResult<()> {
    let is_own = task.ptrace.is_on() && task.ptrace.state.lock().is_of(current.task());
    if is_own { Ok(()) } else { Err(Errno::ESRCH) }
}

/// Returns `task` as a stopped tracee of the caller.
///
/// # Errors
/// `ESRCH`.
pub(crate) fn stopped(current: &CurrentTask, task: Arc<Task>) -> SysResult<Tracee> {
    own(current, &task)?;
    let is_at_rest = task.ptrace.state.lock().is_at_rest();
    if is_at_rest && !task.exiting.load(Ordering::SeqCst) {
        Ok(Tracee(task))
    } else {
        Err(Errno::ESRCH)
    }
}

/// What a tracer asks of a stopped tracee, save memory and extended state.
impl Tracee {
    /// Lets it go on, with a signal. The caller has checked that it is one or zero.
    pub(crate) fn resume(&self, run: Run, signal: i32) {
        let is_process_stopped = self.group.signals.lock().stop.is_some();
        {
            let mut state = self.ptrace.state.lock();
            state.resumed_with = state.stop.take().and_then(|stop| stop.info);
            state.run = run;
            state.signal = signal;
            self.ptrace.ignores_stop.store(is_process_stopped, Ordering::SeqCst);
        }
        super::run::wake(&self.0);
    }

    /// Implements `PTRACE_LISTEN`.
    ///
    /// # Errors
    /// `EIO` where it is not seized or not in a stop of its process.
    pub(crate) fn listen(&self) -> SysResult<()> {
        let mut state = self.ptrace.state.lock();
        let is_event_stop = state.stop.as_ref().is_some_and(Stop::is_event_stop);
        if !state.is_seized || !is_event_stop {
            return Err(Errno::EIO);
        }
        state.is_listening = true;
        drop(state);
        if self.ptrace.wants_trap() {
            super::run::wake(&self.0);
        }
        Ok(())
    }

    /// Sets the options.
    pub(crate) fn set_options(&self, options: PtraceOptions) {
        self.ptrace.state.lock().options = options;
    }

    /// Returns `PTRACE_GETEVENTMSG`.
    pub(crate) fn message(&self) -> u64 {
        self.ptrace.state.lock().message
    }

    /// Returns the stop.
    pub(crate) fn stop(&self) -> Option<Stop> {
        self.ptrace.state.lock().stop.clone()
    }

    /// Replaces the record of the stop's signal.
    ///
    /// # Errors
    /// `EINVAL` where there is none.
    pub(crate) fn set_info(&self, info: Siginfo) -> SysResult<()> {
        let mut state = self.ptrace.state.lock();
        match state.stop.as_mut().and_then(|stop| stop.info.as_mut()) {
            Some(place) => {
                *place = info;
                Ok(())
            }
            None => Err(Errno::EINVAL),
        }
    }

    /// Returns a debug register.
    pub(crate) fn debug(&self, index: usize) -> u64 {
        self.ptrace.state.lock().debug.get(index).copied().unwrap_or(0)
    }

    /// Sets a debug register, without effect on the processor.
    pub(crate) fn set_debug(&self, index: usize, value: u64) {
        if let Some(place) = self.ptrace.state.lock().debug.get_mut(index) {
            *place = value;
        }
    }
}
