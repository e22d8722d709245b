//! `--strace`: one line per system call, as strace prints it.
//!
//! A call is rendered when it enters, because what it reads may be gone when it ends (`execve`),
//! and completed with its result. A call that never returns is logged as it enters.

use sentry_platform::SyscallArgs;
use syscalls::UserAddr;
use syscalls::arch::x86_64::nr;

use crate::log;
use crate::task::{Control, CurrentTask, HandlerResult};

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

/// Completes the line of a call that has ended.
pub(crate) fn leave(current: &CurrentTask, outcome: &HandlerResult) {
    let text = std::mem::take(&mut *current.strace_entry.lock());
    let tid = current.tid();
    let returned = match outcome {
        Ok(value) => *value,
        Err(Control::Error(errno)) => errno.to_return(),
        Err(Control::Restart(restart)) => {
            log::strace(format_args!("[{tid}] {text} = ? ERESTART{restart:?}"));
            return;
        }
        Err(Control::RegistersSet | Control::Detached) => {
            log::strace(format_args!("[{tid}] {text} = ?"));
            return;
        }
        Err(Control::Block | Control::HostCalls | Control::HostCallsThen(_)) => return,
    };
    let call = *current.call.lock();
    let mut result = String::new();
    let mut read = |addr: UserAddr, dst: &mut [u8]| current.context().read(addr, dst).unwrap_or(0);
    if let Some(info) = syscalls::table::lookup(call.number) {
        let _ = syscalls::render::render_return(info, &call.args, returned, &mut read, &mut result);
    } else {
        result = format!(" = {returned:#x}");
    }
    log::strace(format_args!("[{tid}] {text}{result}"));
}
