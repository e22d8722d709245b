//! Large reads of files that the host has: the application's own thread makes them, so that the bytes
//! are copied once.

use std::sync::{Arc, Weak};

use sentry_platform::{HostCall, USER_ADDRESS_LIMIT};
use syscalls::UserAddr;

use super::read_write::{Position, Segment, note_read};
use crate::task::{Control, CurrentTask};
use crate::vfs::OpenFile;

/// From which size on a read is worth a further exchange with its thread.
const MIN: usize = 16 << 10;
/// Up to which size; one host call is not interrupted.
const MAX: usize = 16 << 20;

/// A read that has been handed over.
struct Direct {
    /// Not kept open: its last descriptor may be closed while the application runs.
    file: Weak<OpenFile>,
    /// Where it starts.
    offset: u64,
    /// How much it can bring, by which the file's own offset has moved already.
    promised: u64,
    position: Position,
    /// Whether it has been told as if it had brought all that it can.
    is_noted: bool,
}

/// Hands a read over to its thread, where that pays; [`finish`] is for the next run of the call.
///
/// # Errors
/// `Control::HostCallsThen` (or `HostCalls`, where its end is to be seen) where it has been handed over.
pub(super) fn start(
    task: &CurrentTask,
    file: &Arc<OpenFile>,
    (addr, len): Segment,
    position: Position,
) -> Result<(), Control> {
    if !(MIN..=MAX).contains(&len) || !file.is_readable() || !task.kernel.platform().makes_reads() {
        return Ok(());
    }
    if task.recall::<Refused>().is_some() || !is_application(addr, len) {
        return Ok(());
    }
    let Some((source, size)) = file.file.read_source() else { return Ok(()) };
    let promise = |offset: u64| {
        Some(size.saturating_sub(offset).min(len as u64)).filter(|promised| *promised >= MIN as u64)
    };
    let (offset, promised) = match position {
        Position::At(offset) => (offset, promise(offset)),
        Position::Current => {
            let mut current = file.offset.lock();
            let (offset, promised) = (*current, promise(*current));
            *current = offset.saturating_add(promised.unwrap_or(0));
            (offset, promised)
        }
    };
    let Some(promised) = promised else { return Ok(()) };
    // A file that says how long it is can be taken at its word; where it brings less, `finish` sees.
    let whole = !task.kernel.strace;
    task.queue_host_call(HostCall::Pread {
        addr: addr.0,
        len: promised,
        file: source,
        offset,
        whole,
    });
    task.remember(Direct {
        file: Arc::downgrade(file),
        offset,
        promised,
        position,
        is_noted: whole,
    });
    if !whole {
        return Err(Control::HostCalls);
    }
    note_read(file, usize::try_from(promised).unwrap_or(0));
    Err(Control::HostCallsThen(promised))
}

fn is_application(addr: UserAddr, len: usize) -> bool {
    addr.0.checked_add(len as u64).is_some_and(|end| end <= USER_ADDRESS_LIMIT)
}

/// Returns how much a read has brought that was handed over, or `None` where there was none or it
/// failed, and the call is to be served in the ordinary way.
pub(super) fn finish(task: &CurrentTask) -> Option<usize> {
    let direct = task.recall::<Direct>()?;
    let results = task.context().host_call_results();
    let read = match results.values.first() {
        Some(Ok(read)) => (*read).min(direct.promised),
        _ => 0,
    };
    let file = direct.file.upgrade();
    if let Some(file) = &file
        && direct.position == Position::Current
        && read < direct.promised
    {
        let mut current = file.offset.lock();
        // Unless somebody has moved it since.
        if *current == direct.offset.saturating_add(direct.promised) {
            *current = direct.offset.saturating_add(read);
        }
    }
    if read == 0 {
        task.remember(Refused);
        return None;
    }
    let n = usize::try_from(read).unwrap_or(0);
    if let Some(file) = file.filter(|_| !direct.is_noted) {
        note_read(&file, n);
    }
    Some(n)
}

/// A read that brought nothing, and is not to be handed over again.
struct Refused;
