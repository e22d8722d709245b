//! Asynchronous I/O.

use std::sync::Arc;

use syscalls::abi::aio::{
    IOCB_CMD_FDSYNC, IOCB_CMD_FSYNC, IOCB_CMD_POLL, IOCB_CMD_PREAD, IOCB_CMD_PREADV,
    IOCB_CMD_PWRITE, IOCB_CMD_PWRITEV, IOCB_FLAG_RESFD, IoEvent, Iocb, KIOCB_KEY,
};
use syscalls::abi::signal::SigsetArgpack;
use syscalls::abi::time::Timespec;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::IntoBytes;

use super::poll::{read_deadline, set_mask};
use super::read_write::{self, Position, Segments};
use crate::aio::{self, Context, Receipt};
use crate::fs::eventfd::EventFd;
use crate::sync::Events;
use crate::task::block::Wait;
use crate::task::{Control, CurrentTask, HandlerResult, Restart};
use crate::vfs::file::downcast;
use crate::vfs::{FileType, OpenFile};

/// Where an [`Iocb`] has its key.
const KEY_OFFSET: u64 = 8;

/// How many events earlier runs of `io_getevents(2)` have stored.
struct Stored(usize);

/// Implements `io_setup(2)`.
///
/// <https://man7.org/linux/man-pages/man2/io_setup.2.html>
pub(super) fn sys_io_setup(
    task: &CurrentTask,
    nr_events: u32,
    ctx_idp: UserPtr<u64>,
) -> HandlerResult<()> {
    if task.read_obj(ctx_idp)? != 0 || nr_events == 0 {
        return Err(Errno::EINVAL.into());
    }
    // Before there is anything to take back.
    task.write_obj(ctx_idp, &0)?;
    let id = aio::create(task, nr_events)?;
    Ok(task.write_obj(ctx_idp, &id)?)
}

/// Implements `io_destroy(2)`.
pub(super) fn sys_io_destroy(task: &CurrentTask, ctx_id: u64) -> HandlerResult<()> {
    aio::destroy(task, ctx_id)
}

/// Implements `io_submit(2)`.
///
/// <https://man7.org/linux/man-pages/man2/io_submit.2.html>
pub(super) fn sys_io_submit(
    task: &CurrentTask,
    ctx_id: u64,
    nr: i64,
    iocbpp: UserAddr,
) -> HandlerResult<usize> {
    let nr = usize::try_from(nr).map_err(|_| Errno::EINVAL)?;
    let context = task.mm().aio.get(ctx_id)?;
    let nr = nr.min(context.capacity());
    let mut done = context.take_progress(task.tid());
    while done < nr {
        match submit_one(task, &context, iocbpp, done) {
            Ok(()) => done = done.saturating_add(1),
            Err(Control::Error(_)) if done > 0 => break,
            Err(Control::Block) => {
                context.keep_progress(task.tid(), done);
                return Err(Control::Block);
            }
            Err(control) => return Err(control),
        }
    }
    Ok(done)
}

fn submit_one(
    task: &CurrentTask,
    context: &Arc<Context>,
    iocbpp: UserAddr,
    index: usize,
) -> HandlerResult<()> {
    let offset = (index as u64).saturating_mul(8);
    let at = UserPtr::<u64>::new(iocbpp.checked_add(offset).ok_or(Errno::EFAULT)?);
    let addr = UserAddr(task.read_obj(at)?);
    let iocb = task.read_obj(UserPtr::<Iocb>::new(addr))?;
    if iocb.aio_reserved2 != 0 || i64::try_from(iocb.aio_nbytes).is_err() {
        return Err(Errno::EINVAL.into());
    }
    context.check_room()?;
    let file = task.files().get(iocb.aio_fildes.cast_signed())?;
    let eventfd = if iocb.aio_flags & IOCB_FLAG_RESFD != 0 {
        let file = task.files().get(iocb.aio_resfd.cast_signed())?;
        Some(downcast::<EventFd>(&file.file).ok_or(Errno::EINVAL)?)
    } else {
        None
    };
    let key = UserPtr::new(addr.checked_add(KEY_OFFSET).ok_or(Errno::EFAULT)?);
    task.write_obj(key, &KIOCB_KEY)?;
    let receipt = Receipt { data: iocb.aio_data, obj: addr.0, eventfd };
    match iocb.aio_lio_opcode {
        IOCB_CMD_PREAD | IOCB_CMD_PREADV | IOCB_CMD_PWRITE | IOCB_CMD_PWRITEV => {
            let result = transfer(task, &file, &iocb)?;
            // Whoever sees the event looks at what was read.
            task.context().sync_memory();
            context.complete(&receipt, result);
        }
        IOCB_CMD_FSYNC | IOCB_CMD_FDSYNC => {
            let has_more = iocb.aio_buf != 0 || iocb.aio_offset != 0 || iocb.aio_nbytes != 0;
            if has_more || iocb.aio_rw_flags != 0 {
                return Err(Errno::EINVAL.into());
            }
            let result = match file.file.sync(iocb.aio_lio_opcode == IOCB_CMD_FDSYNC) {
                Ok(()) => 0,
                // What nothing can be synchronised of.
                Err(Errno::EINVAL) => return Err(Errno::EINVAL.into()),
                Err(errno) => negative(errno),
            };
            context.complete(&receipt, result);
        }
        IOCB_CMD_POLL => {
            let wanted = u16::try_from(iocb.aio_buf).map_err(|_| Errno::EINVAL)?;
            if iocb.aio_offset != 0 || iocb.aio_nbytes != 0 || iocb.aio_rw_flags != 0 {
                return Err(Errno::EINVAL.into());
            }
            let wanted = Events::from_bits_truncate(wanted.into());
            context.poll(receipt, file, wanted | Events::ERR | Events::HUP);
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(())
}

/// Reads or writes; what has gone wrong then is in the event.
///
/// # Errors
/// What is wrong with the request itself; `Control::Block`.
fn transfer(task: &CurrentTask, file: &OpenFile, iocb: &Iocb) -> HandlerResult<i64> {
    let is_read = matches!(iocb.aio_lio_opcode, IOCB_CMD_PREAD | IOCB_CMD_PREADV);
    let is_vector = matches!(iocb.aio_lio_opcode, IOCB_CMD_PREADV | IOCB_CMD_PWRITEV);
    let flags = read_write::rw_flags(iocb.aio_rw_flags)?;
    if !(if is_read { file.is_readable() } else { file.is_writable() }) {
        return Err(Errno::EBADF.into());
    }
    if file.file.attr()?.file_type() == FileType::Directory {
        return Err(Errno::EINVAL.into());
    }
    let buf = UserAddr(iocb.aio_buf);
    let segments: Segments = if is_vector {
        task.read_iovec(buf, iocb.aio_nbytes)?
    } else {
        let len = usize::try_from(iocb.aio_nbytes).map_err(|_| Errno::EINVAL)?;
        read_write::one(buf, len)?.to_vec()
    };
    let position =
        if file.file.is_seekable() { read_write::at(iocb.aio_offset)? } else { Position::Current };
    let result = if is_read {
        read_write::do_read(task, file, &segments, position, flags)
    } else {
        read_write::do_write(task, file, &segments, position, flags)
    };
    match result {
        Ok(n) => Ok(i64::try_from(n).unwrap_or(i64::MAX)),
        Err(Control::Error(errno)) => Ok(negative(errno)),
        // Others may be under way already: this one fails and nothing is restarted.
        Err(Control::Restart(_)) => Ok(negative(Errno::EINTR)),
        Err(control) => Err(control),
    }
}

fn negative(errno: Errno) -> i64 {
    errno.to_return().cast_signed()
}

/// Implements `io_cancel(2)`. Only polls can be cancelled; their events come as all others.
pub(super) fn sys_io_cancel(
    task: &CurrentTask,
    ctx_id: u64,
    iocb: UserAddr,
    _result: UserAddr,
) -> HandlerResult<()> {
    let key = UserPtr::<u32>::new(iocb.checked_add(KEY_OFFSET).ok_or(Errno::EFAULT)?);
    if task.read_obj(key)? != KIOCB_KEY {
        return Err(Errno::EINVAL.into());
    }
    task.mm().aio.get(ctx_id)?.cancel(iocb.0)?;
    Err(Errno::EINPROGRESS.into())
}

/// Implements `io_getevents(2)`.
///
/// <https://man7.org/linux/man-pages/man2/io_getevents.2.html>
pub(super) fn sys_io_getevents(
    task: &CurrentTask,
    ctx_id: u64,
    min_nr: i64,
    nr: i64,
    events: UserAddr,
    timeout: UserPtr<Timespec>,
) -> HandlerResult<usize> {
    let deadline_ns = read_deadline(task, timeout)?;
    match get_events(task, ctx_id, min_nr, nr, events, deadline_ns) {
        // Never restarted, with a handler or without.
        Err(Control::Restart(_)) => Err(Errno::EINTR.into()),
        result => result,
    }
}

/// Implements `io_pgetevents(2)`.
pub(super) fn sys_io_pgetevents(
    task: &CurrentTask,
    ctx_id: u64,
    min_nr: i64,
    nr: i64,
    events: UserAddr,
    timeout: UserPtr<Timespec>,
    sig: UserPtr<SigsetArgpack>,
) -> HandlerResult<usize> {
    let deadline_ns = read_deadline(task, timeout)?;
    if !sig.is_null() {
        let pack = task.read_obj(sig)?;
        let size = usize::try_from(pack.size).unwrap_or(usize::MAX);
        set_mask(task, UserPtr::new(UserAddr(pack.set)), size)?;
    }
    get_events(task, ctx_id, min_nr, nr, events, deadline_ns)
}

fn get_events(
    task: &CurrentTask,
    ctx_id: u64,
    min_nr: i64,
    nr: i64,
    events: UserAddr,
    deadline_ns: Option<u64>,
) -> HandlerResult<usize> {
    let context: Arc<Context> = task.mm().aio.get(ctx_id)?;
    let (Ok(min), Ok(max)) = (usize::try_from(min_nr), usize::try_from(nr)) else {
        return Err(Errno::EINVAL.into());
    };
    if min > max {
        return Err(Errno::EINVAL.into());
    }
    let mut stored = task.recall::<Stored>().map_or(0, |stored| stored.0);
    let attempt = || {
        let taken = context.take(max.saturating_sub(stored));
        store(task, events, stored, &taken)?;
        stored = stored.saturating_add(taken.len());
        Ok((stored >= min).then_some(stored))
    };
    let register = |waiter: &_| vec![context.register(waiter)];
    let waited = task.wait_for(deadline_ns, Restart::NoHand, register, attempt);
    match waited {
        Ok(Wait::Ready(n)) => Ok(n),
        Ok(Wait::TimedOut) => Ok(stored),
        Err(Control::Restart(_)) if stored > 0 => Ok(stored),
        Err(Control::Block) => {
            task.remember(Stored(stored));
            Err(Control::Block)
        }
        Err(control) => Err(control),
    }
}

fn store(task: &CurrentTask, to: UserAddr, index: usize, taken: &[IoEvent]) -> SysResult<()> {
    let offset = (index as u64).saturating_mul(size_of::<IoEvent>() as u64);
    task.write_bytes(to.checked_add(offset).ok_or(Errno::EFAULT)?, taken.as_bytes())
}
