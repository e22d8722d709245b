//! Core dumps: `core(5)`.
//!
//! A process that a signal such as SIGSEGV ends leaves a file with its memory and the registers of
//! its threads, where its limits and `/proc/sys/kernel/core_pattern` allow that. All threads exit
//! as they always do, and each [leaves](holds) its registers first. The one with the signal, the
//! *dumper*, waits until the others have gone, writes the file and exits as the last one.
//!
//! DEVIATION: there are no pipes to programs (`|` in the pattern): nobody is there to run them.
//!
//! The dump of a process is a leaf lock.

mod elf;
mod file;
mod name;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::mm::PAGE_SIZE;
use syscalls::abi::resource::RLIMIT_CORE;
use syscalls::abi::signal::{SigSet, Siginfo};
use syscalls::abi::wait as status;
use syscalls::arch::x86_64::Regs;

use super::{CurrentTask, ThreadGroup, exit, ptrace, run};

/// What is dumped where nobody has said anything else: private memory, shared memory without a name,
/// the headers of programs and libraries.
pub(crate) const DEFAULT_FILTER: u32 = 0x33;

/// The status bit of `WCOREDUMP`.
const DUMPED: i32 = 0x80;

/// The dump of a process that is being made.
pub(crate) struct Dump {
    /// The thread that makes it, by its number in the root namespace.
    dumper: u32,
    info: Siginfo,
    threads: Vec<ThreadRecord>,
    is_over: bool,
}

/// What a thread leaves.
#[derive(Clone)]
struct ThreadRecord {
    id: u32,
    /// Its number as the dumper's namespace has it.
    tid: u32,
    regs: Regs,
    /// Pending and blocked signals.
    pending: SigSet,
    blocked: SigSet,
    /// User and system time in nanoseconds.
    cpu_ns: (u64, u64),
    /// The extended state as a signal frame has it, once it has come.
    xstate: Option<Vec<u8>>,
}

/// Ends the calling process by a signal whose default action is a core dump.
pub(crate) fn end_process(current: &CurrentTask, info: &Siginfo) {
    if is_wanted(current) {
        let dump = Dump { dumper: current.tid(), info: *info, threads: Vec::new(), is_over: false };
        let signals = current.group.signals.lock();
        // Where the process ends already, nothing of this matters.
        if signals.exit_status.is_none() && signals.exec_tid.is_none() {
            *current.group.core_dump.lock() = Some(dump);
        }
    }
    exit::exit_group(current, status::signaled(info.si_signo, false));
}

fn is_wanted(current: &CurrentTask) -> bool {
    let limit = current.group.limits.lock().soft(RLIMIT_CORE);
    current.group.is_dumpable.load(Ordering::Relaxed) && limit >= PAGE_SIZE
}

/// Is told that a thread is about to exit. Returns whether it has to do with a dump first: it comes
/// back here later.
pub(crate) fn holds(current: &CurrentTask, status: i32) -> bool {
    let (is_asked, is_dumper) = {
        let mut dump = current.group.core_dump.lock();
        let Some(dump) = dump.as_mut().filter(|dump| !dump.is_over) else { return false };
        let id = current.tid();
        let known = dump.threads.iter_mut().find(|thread| thread.id == id);
        let is_asked = match known {
            Some(thread) => {
                if thread.xstate.is_none() {
                    thread.xstate = Some(current.context().host_call_results().data);
                }
                true
            }
            None => false,
        };
        (is_asked, dump.dumper == id)
    };
    if !is_asked {
        leave_record(current, status);
        return true;
    }
    is_dumper && !finish(current)
}

/// Leaves the registers, and asks for the extended state.
fn leave_record(current: &CurrentTask, status: i32) {
    current.context().sync_memory();
    let mut regs = current.context().regs();
    if let Some(restart) = *current.restart.lock() {
        regs.rax = restart.to_return();
    }
    let (pending, blocked) = {
        let signals = current.signals.lock();
        (signals.pending.set(), signals.mask)
    };
    let record = ThreadRecord {
        id: current.tid(),
        tid: current.tid_in(&current.pid_namespace()),
        regs,
        pending,
        blocked,
        cpu_ns: current.cpu_ns(),
        xstate: None,
    };
    if let Some(dump) = current.group.core_dump.lock().as_mut() {
        dump.threads.push(record);
    }
    current.set_in_call(false);
    current.end_block();
    *current.letting_go.lock() = Some(status);
    current.run_state.store(run::GUEST, Ordering::SeqCst);
    current.context().start_fetch_xstate();
}

/// Makes the dump, unless others have to go first. Returns whether it is over.
fn finish(current: &CurrentTask) -> bool {
    let is_killed = || current.group.signals.lock().is_killed;
    while !is_killed() && !is_last(current) {
        if run::park(current) {
            return false;
        }
    }
    let dump = match current.group.core_dump.lock().as_mut() {
        Some(dump) => {
            dump.is_over = true;
            (dump.info, std::mem::take(&mut dump.threads))
        }
        None => return true,
    };
    if !is_killed() && file::write(current, &dump.0, &dump.1).is_ok() {
        let mut signals = current.group.signals.lock();
        signals.exit_status = signals.exit_status.map(|status| status | DUMPED);
    }
    true
}

fn is_last(current: &CurrentTask) -> bool {
    let tasks = current.group.tasks();
    tasks.iter().all(|task| Arc::ptr_eq(task, current.task()) || ptrace::link::has_ended(task))
}

/// Is told that a thread has left its process: the dumper may wait for that.
pub(crate) fn thread_has_left(group: &ThreadGroup) {
    let dumper = match &*group.core_dump.lock() {
        Some(dump) if !dump.is_over => dump.dumper,
        _ => return,
    };
    if let Some(task) = group.tasks().into_iter().find(|task| task.tid() == dumper) {
        run::wake(&task);
    }
}
