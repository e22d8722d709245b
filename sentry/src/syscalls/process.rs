//! Processes: creation, end, waiting.

use syscalls::abi::wait as status;

use crate::task::{Control, CurrentTask, HandlerResult, exit};

/// Implements `_exit(2)`: ends the calling thread.
pub(super) fn sys_exit(task: &CurrentTask, code: i32) -> HandlerResult<()> {
    exit::exit_task(task, status::exited(code));
    Err(Control::Detached)
}

/// Implements `exit_group(2)`.
pub(super) fn sys_exit_group(task: &CurrentTask, code: i32) -> HandlerResult<()> {
    exit::exit_group(task, status::exited(code));
    Err(Control::Detached)
}
