//! Large writes to files that the host has: the application's own thread makes them, so that the bytes
//! are copied once.
//!
//! The platform lets it make exactly the write that is asked for, once, by a descriptor with which it can do nothing
//! else. The open file is kept until the thread reports, as by any other write that is under way. What the thread
//! says of its write concerns only itself; what it has not written is written here.
//!
//! Whatever must see offset or size at the same time as others is left to the ordinary way: appending, and the offset of
//! a file that others may use.

use std::sync::Arc;

use sentry_platform::{HostCall, USER_ADDRESS_LIMIT};
use syscalls::UserAddr;
use syscalls::abi::fs::{OpenFlags, RwFlags};
use syscalls::abi::resource::RLIMIT_FSIZE;

use super::read_write::{Position, Segment, do_write, drop_set_id};
use crate::task::limits::INFINITY;
use crate::task::{Control, CurrentTask, HandlerResult};
use crate::vfs::{OpenFile, notify};

/// From which size on a write is worth further exchanges with its thread.
const MIN: usize = 128 << 10;
/// Up to which size; one host call is not interrupted.
const MAX: usize = 16 << 20;

/// A write that has been handed over.
struct Direct {
    file: Arc<OpenFile>,
    position: Position,
    /// Where it starts.
    offset: u64,
    segment: Segment,
}

/// Hands a write over to its thread, where that pays; [`finish`] is for the next run of the call.
///
/// # Errors
/// `Control::HostCalls` where it has been handed over.
pub(super) fn start(
    task: &CurrentTask,
    file: &Arc<OpenFile>,
    &[(addr, len)]: &[Segment; 1],
    position: Position,
) -> Result<(), Control> {
    if !(MIN..=MAX).contains(&len) || !file.is_writable() || !task.kernel.platform().makes_writes()
    {
        return Ok(());
    }
    let is_application =
        addr.0.checked_add(len as u64).is_some_and(|end| end <= USER_ADDRESS_LIMIT);
    let refused = OpenFlags::APPEND | OpenFlags::DSYNC | OpenFlags::DIRECT;
    if !is_application || file.flags_set().intersects(refused) || notify::is_watched() {
        return Ok(());
    }
    let offset = match position {
        Position::At(offset) => offset,
        Position::Current if is_alone(task, file) => *file.offset.lock(),
        Position::Current => return Ok(()),
    };
    let limit = task.group.limits.lock().soft(RLIMIT_FSIZE);
    let end = offset.checked_add(len as u64).filter(|end| i64::try_from(*end).is_ok());
    if end.is_none_or(|end| limit != INFINITY && end > limit) {
        return Ok(());
    }
    let Some(target) = file.file.write_target() else { return Ok(()) };
    drop_set_id(task, file)?;
    task.queue_host_call(HostCall::Pwrite {
        addr: addr.0,
        len: len as u64,
        file: target.clone(),
        offset,
    });
    task.queue_host_call(HostCall::CloseStream { file: target });
    task.remember(Direct { file: file.clone(), position, offset, segment: (addr, len) });
    Err(Control::HostCalls)
}

/// Returns whether nobody but the thread can use the offset of `file`: a descriptor table of its own and the caller
/// hold the only references.
fn is_alone(task: &CurrentTask, file: &Arc<OpenFile>) -> bool {
    Arc::strong_count(file) == 2 && Arc::strong_count(&task.files.lock()) == 1
}

/// Ends a write that was handed over, where one was: what the thread has not written is written now.
pub(super) fn finish(task: &CurrentTask) -> Option<HandlerResult<usize>> {
    let Direct { file, position, offset, segment: (addr, len) } = task.recall::<Direct>()?;
    let results = task.context().host_call_results();
    let written = match results.values.first() {
        Some(Ok(written)) => usize::try_from(*written).unwrap_or(0).min(len),
        _ => 0,
    };
    if written > 0 {
        if position == Position::Current {
            *file.offset.lock() = offset.saturating_add(written as u64);
        }
        if let Some(path) = &file.path {
            notify::file(&path.dentry, notify::IN_MODIFY);
        }
        task.group.account.transfers.note_write(written);
    }
    if written == len {
        return Some(Ok(written));
    }
    let (addr, left) = (UserAddr(addr.0.saturating_add(written as u64)), len - written);
    let position = match position {
        Position::At(offset) => Position::At(offset.saturating_add(written as u64)),
        Position::Current => Position::Current,
    };
    Some(match do_write(task, &file, &[(addr, left)], position, RwFlags::empty()) {
        Ok(n) => Ok(written + n),
        Err(Control::Error(_)) if written > 0 => Ok(written),
        Err(control) => Err(control),
    })
}
