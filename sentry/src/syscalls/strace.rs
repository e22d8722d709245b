//! `--strace`: one line per system call, as strace prints it.
//!
//! A call is rendered when it enters, because what it reads may be gone when it ends (`execve`),
//! and completed with its result. A call that never returns is logged as it enters; one that waits
//! has a line when it begins to and another when it ends.

use sentry_platform::SyscallArgs;
use syscalls::UserAddr;
use syscalls::arch::x86_64::nr;

use crate::log;
use crate::task::{Control, CurrentTask, HandlerResult};

/// How the line begins with which a call that has waited ends.
const RESUMED: &str = "<... ";

/// Renders a call that enters.
pub(crate) fn enter(current: &CurrentTask, call: &SyscallArgs) {
    let mut text = String::new();
    let mut read = |addr: UserAddr, dst: &mut [u8]| current.context().read(addr, dst).unwrap_or(0);
    // Writing to a string does not fail.
    let _ = match syscalls::table::lookup(call.number) {
        Some(info) => syscalls::render::render_entry(info, &call.args, &mut read, &mut text),
        None => syscalls::render::render_unknown(call.number, &call.args, &mut text),
    };
    if matches!(call.number, nr::EXIT | nr::EXIT_GROUP) {
        log::strace(format_args!("[{}] {text} = ?", current.tid()));
        return;
    }
    *current.strace_entry.lock() = text;
}

/// Completes the line of a call that has ended, or begins that of one that waits.
pub(crate) fn leave(current: &CurrentTask, outcome: &HandlerResult) {
    // Its line is written already; what is there now may be the new program's.
    if matches!(outcome, Err(Control::Detached)) {
        return;
    }
    let text = std::mem::take(&mut *current.strace_entry.lock());
    // The first return of a new task.
    if text.is_empty() {
        return;
    }
    let tid = current.tid();
    let call = *current.call.lock();
    let returned = match outcome {
        Ok(value) => *value,
        Err(Control::Error(errno)) => errno.to_return(),
        Err(Control::Restart(restart)) => {
            log::strace(format_args!("[{tid}] {text} = ? ERESTART{restart:?}"));
            return;
        }
        Err(Control::RegistersSet) => {
            log::strace(format_args!("[{tid}] {text} = ?"));
            return;
        }
        Err(Control::Block) if !text.starts_with(RESUMED) => {
            log::strace(format_args!("[{tid}] {} <unfinished ...>", text.trim_end_matches(')')));
            *current.strace_entry.lock() = format!("{RESUMED}{} resumed>)", name(&call));
            return;
        }
        Err(
            Control::Block
            | Control::HostCalls
            | Control::HostCallsThen(_)
            | Control::Traced
            | Control::Detached,
        ) => {
            *current.strace_entry.lock() = text;
            return;
        }
    };
    let mut result = String::new();
    let mut read = |addr: UserAddr, dst: &mut [u8]| current.context().read(addr, dst).unwrap_or(0);
    if let Some(info) = syscalls::table::lookup(call.number) {
        let _ = syscalls::render::render_return(info, &call.args, returned, &mut read, &mut result);
    } else {
        result = format!(" = {returned:#x}");
    }
    log::strace(format_args!("[{tid}] {text}{result}"));
}

/// Completes the line of an `execve` that has replaced the program.
pub(crate) fn replaced(current: &CurrentTask) {
    let text = std::mem::take(&mut *current.strace_entry.lock());
    if !text.is_empty() {
        log::strace(format_args!("[{}] {text} = 0", current.tid()));
    }
}

fn name(call: &SyscallArgs) -> &'static str {
    syscalls::table::lookup(call.number).map_or("syscall", |info| info.name)
}
