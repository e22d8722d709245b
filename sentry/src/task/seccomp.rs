//! Filters of system calls (`seccomp(2)`, `kernel/seccomp.c`).
//!
//! A task's filters are asked before its call is served. For each of them it is found out beforehand which
//! calls are allowed whatever their arguments are: those cost no run of a program, and the platform may
//! answer them by itself.

pub(crate) mod listener;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sentry_platform::SyscallArgs;
use syscalls::abi::prctl::{
    AUDIT_ARCH_X86_64, SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT,
    SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW, SECCOMP_RET_DATA, SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG, SECCOMP_RET_TRACE,
    SECCOMP_RET_TRAP, SECCOMP_RET_USER_NOTIF, SeccompData, SockFilter,
};
use syscalls::abi::ptrace::PtraceOptions;
use syscalls::abi::signal::{SIGKILL, SIGSYS, Siginfo};
use syscalls::abi::wait as status;
use syscalls::arch::x86_64::nr;
use syscalls::arg::FromArg;
use syscalls::{Errno, SysResult};
use zerocopy::IntoBytes;

use self::listener::{Listener, Notice};
use super::{Control, CurrentTask, HandlerResult, Task, coredump, exit, identity, ptrace, signal};
use crate::bpf::{Input, Program};
use crate::config::BpfInstruction;
use crate::sync::Mutex;

/// The most instructions on the way through all filters of a task, and what a filter costs beside its own.
const MAX_PATH: usize = 32_768;
const FILTER_COST: usize = 4;
/// The highest error that a filter can give.
const MAX_ERRNO: u32 = 4095;
/// The calls that the platform answers by itself.
const FAST: [u64; 13] = [
    nr::GETPID,
    nr::GETTID,
    nr::GETPPID,
    nr::GETUID,
    nr::GETEUID,
    nr::GETGID,
    nr::GETEGID,
    nr::GETPGRP,
    nr::GETPGID,
    nr::GETSID,
    nr::SCHED_YIELD,
    nr::FUTEX,
    nr::RT_SIGPROCMASK,
];
/// Those that it answers by itself about what is lent.
const LENT: [u64; 10] = [
    nr::READ,
    nr::WRITE,
    nr::PREAD64,
    nr::PWRITE64,
    nr::LSEEK,
    nr::SENDTO,
    nr::RECVFROM,
    nr::UMASK,
    nr::EPOLL_WAIT,
    nr::EPOLL_PWAIT,
];
/// What a task in strict mode may do.
const STRICT: [u64; 4] = [nr::READ, nr::WRITE, nr::EXIT, nr::RT_SIGRETURN];
const N_WORDS: usize = nr::COUNT.div_ceil(64);

/// The filters of a task.
#[derive(Default)]
pub(crate) struct Seccomp {
    /// Whether there is anything to ask.
    is_on: AtomicBool,
    mode: Mutex<Mode>,
    /// The present call, while a listener is asked about it.
    notice: Mutex<Option<(Arc<Listener>, Arc<Notice>)>>,
}

/// What a task may call.
#[derive(Clone, Default)]
pub(crate) enum Mode {
    /// Everything.
    #[default]
    Disabled,
    /// Reading, writing and ending.
    Strict,
    /// What all its filters allow.
    Filter(Arc<Filters>),
}

/// A filter, and who is asked about what it does not decide.
struct Filter {
    program: Program,
    listener: Option<Arc<Listener>>,
}

impl Drop for Filter {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.be_alone();
        }
    }
}

/// The filters of one task or several, oldest first.
pub(crate) struct Filters {
    programs: Vec<Arc<Filter>>,
    /// The calls that all of them allow whatever the arguments are.
    allowed: [u64; N_WORDS],
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is served.
    Serve,
    /// It is not served: what the task is to see instead has been arranged.
    Answered,
    /// The task stops for its tracer, which decides.
    Traced,
    /// The task has ended.
    Ended,
}

impl Seccomp {
    /// Returns the mode.
    pub(crate) fn mode(&self) -> Mode {
        self.mode.lock().clone()
    }

    /// Sets the mode.
    pub(crate) fn set(&self, mode: Mode) {
        let is_on = !matches!(mode, Mode::Disabled);
        // The last of its filters tells who listens, without a lock.
        let old = std::mem::replace(&mut *self.mode.lock(), mode);
        self.is_on.store(is_on, Ordering::SeqCst);
        drop(old);
    }

    /// Gives up what a task that has ended needs no more.
    pub(crate) fn release(&self) {
        if self.is_on.load(Ordering::SeqCst) {
            self.withdraw();
            self.set(Mode::Disabled);
        }
    }

    /// Asks nobody about the present call any more.
    fn withdraw(&self) {
        let asked = self.notice.lock().take();
        if let Some((listener, notice)) = asked {
            listener.forget(&notice);
        }
    }

    /// Returns whether the platform may answer calls by itself.
    pub(crate) fn allows_fast_path(&self) -> bool {
        self.allows_all(&FAST)
    }

    /// Returns whether the platform may answer calls about streams, files and masks by itself.
    pub(crate) fn allows_lending(&self) -> bool {
        self.allows_all(&LENT)
    }

    /// Returns whether these calls are allowed whatever their arguments.
    fn allows_all(&self, numbers: &[u64]) -> bool {
        if !self.is_on.load(Ordering::SeqCst) {
            return true;
        }
        match &*self.mode.lock() {
            Mode::Disabled => true,
            Mode::Strict => false,
            Mode::Filter(filters) => numbers.iter().all(|number| filters.allows(*number)),
        }
    }
}

impl Mode {
    /// Returns the number of the mode, and how many filters there are.
    pub(crate) fn describe(&self) -> (i32, usize) {
        match self {
            Self::Disabled => (SECCOMP_MODE_DISABLED, 0),
            Self::Strict => (SECCOMP_MODE_STRICT, 0),
            Self::Filter(filters) => (SECCOMP_MODE_FILTER, filters.programs.len()),
        }
    }

    /// Returns the mode in which the processes of a container start. Whoever gives a program that is
    /// none gets processes that may do nothing.
    pub(crate) fn of_container(instructions: &[BpfInstruction]) -> Self {
        if instructions.is_empty() {
            return Self::Disabled;
        }
        let decode = |BpfInstruction { code, jt, jf, k }: &BpfInstruction| SockFilter {
            code: *code,
            jt: *jt,
            jf: *jf,
            k: *k,
        };
        let program = program(instructions.iter().map(decode).collect());
        program.and_then(|program| Self::Disabled.with(program, None)).unwrap_or(Self::Strict)
    }

    /// Returns the mode with one more filter.
    ///
    /// # Errors
    /// `EINVAL` in strict mode, `EBUSY` for a second listener, `ENOMEM` where there are too many.
    fn with(&self, program: Program, listener: Option<Arc<Listener>>) -> SysResult<Self> {
        let mut programs = match self {
            Self::Disabled => Vec::new(),
            Self::Strict => return Err(Errno::EINVAL),
            Self::Filter(filters) => filters.programs.clone(),
        };
        let is_heard =
            |filter: &Arc<Filter>| filter.listener.as_ref().is_some_and(|it| !it.is_closed());
        if listener.is_some() && programs.iter().any(is_heard) {
            return Err(Errno::EBUSY);
        }
        let own = allowed(&program);
        programs.push(Arc::new(Filter { program, listener }));
        let cost = |filter: &Arc<Filter>| filter.program.len().saturating_add(FILTER_COST);
        if programs.iter().map(cost).sum::<usize>() > MAX_PATH.saturating_add(FILTER_COST) {
            return Err(Errno::ENOMEM);
        }
        let mut allowed = match self {
            Self::Filter(filters) => filters.allowed,
            _ => [u64::MAX; N_WORDS],
        };
        allowed.iter_mut().zip(own).for_each(|(word, own)| *word &= own);
        Ok(Self::Filter(Arc::new(Filters { programs, allowed })))
    }

    /// Returns whether this is what `other` was, or became by further filters.
    pub(crate) fn descends_from(&self, other: &Self) -> bool {
        match (other, self) {
            (Self::Disabled, _) => true,
            (Self::Filter(other), Self::Filter(own)) => {
                other.programs.len() <= own.programs.len()
                    && other.programs.iter().zip(&own.programs).all(|(a, b)| Arc::ptr_eq(a, b))
            }
            _ => false,
        }
    }
}

impl Filters {
    fn allows(&self, number: u64) -> bool {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        self.allowed.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 != 0)
    }

    /// Returns what the filters say, and which of them: the action that comes first in order of weight,
    /// the newest filter's where several say the same.
    fn ask(&self, data: &SeccompData) -> (u32, Option<&Filter>) {
        let bytes = data.as_bytes();
        let load = |offset: u32| {
            let start = usize::try_from(offset).ok()?;
            let word = bytes.get(start..start.checked_add(4)?)?;
            Some(u32::from_ne_bytes(word.try_into().ok()?))
        };
        let weight = |result: u32| (result & SECCOMP_RET_ACTION_FULL).cast_signed();
        let mut result = (SECCOMP_RET_ALLOW, None);
        for filter in self.programs.iter().rev() {
            let own = filter.program.run(DATA_LEN, |_, offset| load(offset));
            let own = own.unwrap_or(SECCOMP_RET_KILL_PROCESS);
            if weight(own) < weight(result.0) {
                result = (own, Some(&**filter));
            }
        }
        result
    }
}

/// The size of `struct seccomp_data`.
const DATA_LEN: u32 = 64;
const _: () = assert!(size_of::<SeccompData>() == 64);
const NUMBER_OFFSET: u32 = 0;
const ARCH_OFFSET: u32 = 4;

/// Checks a program.
///
/// # Errors
/// `EINVAL`.
pub(crate) fn program(instructions: Vec<SockFilter>) -> SysResult<Program> {
    Program::new(instructions, Input::Call(DATA_LEN))
}

/// Returns the calls that a program allows without a look at anything but their numbers.
fn allowed(program: &Program) -> [u64; N_WORDS] {
    let mut allowed = [0; N_WORDS];
    for (word, first) in allowed.iter_mut().zip((0u32..).step_by(64)) {
        for bit in 0..64 {
            let number = first.saturating_add(bit);
            let result = program.run(DATA_LEN, |_, offset| match offset {
                NUMBER_OFFSET => Some(number),
                ARCH_OFFSET => Some(AUDIT_ARCH_X86_64),
                _ => None,
            });
            if result.is_some_and(|result| result & SECCOMP_RET_ACTION_FULL == SECCOMP_RET_ALLOW) {
                *word |= 1u64.wrapping_shl(bit);
            }
        }
    }
    allowed
}

/// Asks the task's filters about a call.
pub(crate) fn check(current: &CurrentTask, call: &SyscallArgs) -> Verdict {
    if !current.seccomp.is_on.load(Ordering::Relaxed) {
        return Verdict::Serve;
    }
    if current.ptrace.has_option(PtraceOptions::SUSPEND_SECCOMP) {
        return Verdict::Serve;
    }
    let number = u32::from_arg(call.number);
    match current.seccomp.mode() {
        Mode::Disabled => Verdict::Serve,
        Mode::Strict if STRICT.contains(&number.into()) => Verdict::Serve,
        Mode::Strict => {
            exit::exit_task(current, status::signaled(SIGKILL, false));
            Verdict::Ended
        }
        Mode::Filter(filters) if filters.allows(number.into()) => Verdict::Serve,
        Mode::Filter(filters) => {
            let data = SeccompData {
                nr: number.cast_signed(),
                arch: AUDIT_ARCH_X86_64,
                instruction_pointer: current.context().regs().rip,
                args: call.args,
            };
            let (result, filter) = filters.ask(&data);
            let listener = filter.and_then(|filter| filter.listener.as_ref());
            act(current, &data, result, listener)
        }
    }
}

/// Returns what the present call of the task gives where a listener is asked about it; nothing where it
/// is served.
pub(crate) fn hear(current: &CurrentTask) -> Option<HandlerResult> {
    if !current.seccomp.is_on.load(Ordering::Relaxed) {
        return None;
    }
    let (listener, notice) = current.seccomp.notice.lock().clone()?;
    let heard = listener.wait(current, &notice);
    if !matches!(heard, Some(Err(Control::Block))) {
        current.seccomp.withdraw();
    }
    heard
}

fn act(
    current: &CurrentTask,
    data: &SeccompData,
    result: u32,
    listener: Option<&Arc<Listener>>,
) -> Verdict {
    let datum = result & SECCOMP_RET_DATA;
    match result & SECCOMP_RET_ACTION_FULL {
        SECCOMP_RET_ALLOW | SECCOMP_RET_LOG => Verdict::Serve,
        SECCOMP_RET_ERRNO => {
            let errno = u64::from(datum.min(MAX_ERRNO));
            current.context().set_return(errno.wrapping_neg());
            Verdict::Answered
        }
        SECCOMP_RET_USER_NOTIF => {
            if let Some(listener) = listener
                && let Some(notice) = listener.ask(current, data)
            {
                *current.seccomp.notice.lock() = Some((listener.clone(), notice));
                return Verdict::Serve;
            }
            current.context().set_return(Errno::ENOSYS.to_return());
            Verdict::Answered
        }
        SECCOMP_RET_TRACE if ptrace::stop::ask(current, datum) => Verdict::Traced,
        SECCOMP_RET_TRACE => {
            current.context().set_return(Errno::ENOSYS.to_return());
            Verdict::Answered
        }
        SECCOMP_RET_TRAP => {
            let mut regs = current.context().regs();
            regs.rax = regs.orig_rax;
            current.context().set_regs(&regs);
            let errno = datum.cast_signed();
            signal::force(current, Siginfo::seccomp(errno, regs.rip, data.nr, data.arch));
            Verdict::Answered
        }
        SECCOMP_RET_KILL_THREAD if current.group.live_tasks().len() > 1 => {
            exit::exit_task(current, status::signaled(SIGSYS, false));
            Verdict::Ended
        }
        _ => {
            let mut regs = current.context().regs();
            regs.rax = regs.orig_rax;
            current.context().set_regs(&regs);
            let errno = datum.cast_signed();
            let info = Siginfo::seccomp(errno, regs.rip, data.nr, data.arch);
            coredump::end_process(current, &info);
            Verdict::Ended
        }
    }
}

/// Gives the caller a further filter; with `for_all`, its whole process.
///
/// # Errors
/// `EINVAL`, `EBUSY`, `ENOMEM`; with `for_all`, the thread that stands in the way.
pub(crate) fn add(
    current: &CurrentTask,
    program: Program,
    listener: Option<Arc<Listener>>,
    for_all: bool,
) -> SysResult<Result<(), Arc<Task>>> {
    // No thread comes into being meanwhile.
    let guard = current.kernel.tree.lock();
    let old = current.seccomp.mode();
    let new = old.with(program, listener)?;
    let others: Vec<Arc<Task>> = if for_all { current.group.live_tasks() } else { Vec::new() };
    if let Some(other) = others.iter().find(|task| !old.descends_from(&task.seccomp.mode())) {
        return Ok(Err(other.clone()));
    }
    for other in others.iter().filter(|task| !Arc::ptr_eq(task, current.task())) {
        other.seccomp.set(new.clone());
        if current.creds().no_new_privs {
            let mut slot = other.creds.lock();
            *slot = Arc::new(super::Credentials { no_new_privs: true, ..(**slot).clone() });
        }
    }
    current.seccomp.set(new);
    drop(guard);
    identity::changed(current);
    if for_all {
        identity::changed_for_all(&current.group);
    }
    Ok(Ok(()))
}

/// Puts the caller into strict mode.
///
/// # Errors
/// `EINVAL` where it has filters.
pub(crate) fn be_strict(current: &CurrentTask) -> SysResult<()> {
    if matches!(current.seccomp.mode(), Mode::Filter(_)) {
        return Err(Errno::EINVAL);
    }
    current.seccomp.set(Mode::Strict);
    identity::changed(current);
    Ok(())
}

/// Returns whether filters may have an action.
pub(crate) fn is_action(action: u32) -> bool {
    matches!(
        action,
        SECCOMP_RET_KILL_PROCESS
            | SECCOMP_RET_KILL_THREAD
            | SECCOMP_RET_TRAP
            | SECCOMP_RET_ERRNO
            | SECCOMP_RET_USER_NOTIF
            | SECCOMP_RET_TRACE
            | SECCOMP_RET_LOG
            | SECCOMP_RET_ALLOW
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn returning(result: u32) -> Program {
        program(vec![SockFilter { code: 6, jt: 0, jf: 0, k: result }]).expect("a good program")
    }

    fn ask(mode: &Mode) -> u32 {
        let Mode::Filter(filters) = mode else { panic!("no filters") };
        filters.ask(&SeccompData::default()).0
    }

    #[test]
    fn the_gravest_action_counts() {
        let mode = Mode::Disabled.with(returning(SECCOMP_RET_ERRNO | 5), None).expect("room");
        assert_eq!(ask(&mode), SECCOMP_RET_ERRNO | 5);
        let mode = mode.with(returning(SECCOMP_RET_ERRNO | 7), None).expect("room");
        assert_eq!(ask(&mode), SECCOMP_RET_ERRNO | 7);
        let mode = mode.with(returning(SECCOMP_RET_ALLOW), None).expect("room");
        assert_eq!(ask(&mode), SECCOMP_RET_ERRNO | 7);
        let mode = mode.with(returning(SECCOMP_RET_KILL_PROCESS), None).expect("room");
        let mode = mode.with(returning(SECCOMP_RET_KILL_THREAD), None).expect("room");
        assert_eq!(ask(&mode), SECCOMP_RET_KILL_PROCESS);
        assert_eq!(mode.describe(), (SECCOMP_MODE_FILTER, 5));
    }

    #[test]
    fn what_depends_on_arguments_is_not_allowed_outright() {
        let load = |k| SockFilter { code: 0x20, jt: 0, jf: 0, k };
        let equal = |k, jt, jf| SockFilter { code: 0x15, jt, jf, k };
        let ret = |k| SockFilter { code: 6, jt: 0, jf: 0, k };
        let instructions = vec![
            load(0),
            equal(39, 0, 1),
            ret(SECCOMP_RET_ALLOW),
            equal(40, 0, 2),
            load(16),
            ret(SECCOMP_RET_ALLOW),
            ret(SECCOMP_RET_TRAP),
        ];
        let mode = Mode::Disabled.with(program(instructions).expect("a good program"), None);
        let Ok(Mode::Filter(filters)) = mode else { panic!("no filters") };
        let allowed: Vec<u64> = (0..500).filter(|number| filters.allows(*number)).collect();
        assert_eq!(allowed, [39]);
    }

    #[test]
    fn descent() {
        let old = Mode::Disabled.with(returning(0), None).expect("room");
        let new = old.with(returning(0), None).expect("room");
        assert!(new.descends_from(&old) && new.descends_from(&new));
        assert!(!old.descends_from(&new) && !new.descends_from(&Mode::Strict));
        assert!(old.descends_from(&Mode::Disabled));
        let other = Mode::Disabled.with(returning(0), None).expect("room");
        assert!(!new.descends_from(&other));
    }
}
