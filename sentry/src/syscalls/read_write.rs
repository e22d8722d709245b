//! Reading, writing and seeking.
//!
//! A file that would have to wait says `EAGAIN`; the loops here turn that into waiting. What a
//! blocking write has already transferred is remembered between the runs of the call.

use std::sync::Arc;

use sentry_host::window::Part;
use syscalls::abi::fs::{OpenFlags, RwFlags, SEEK_CUR, SEEK_SET};
use syscalls::abi::resource::RLIMIT_FSIZE;
use syscalls::abi::signal::{SIGPIPE, SIGXFSZ};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr};

use super::socket::deadline;
use super::{direct_read, direct_write, lend};
use crate::mm::user_io::UserBuf;
use crate::sync::Events;
use crate::task::block::Wait;
use crate::task::limits::INFINITY;
use crate::task::{Control, CurrentTask, HandlerResult, signal};
use crate::vfs::io::IoSource;
use crate::vfs::{FileType, OpenFile, SetAttr, WriteOffset, change, notify, touch_atime};

/// A piece of guest memory.
pub(super) type Segment = (UserAddr, usize);

/// The pieces of an I/O vector.
pub(super) type Segments = Vec<Segment>;

/// Which offset a transfer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// The open file's, which moves.
    Current,
    /// This one.
    At(u64),
}

/// How many bytes earlier runs of a write have transferred.
struct Progress(usize);

/// Implements `read(2)`.
///
/// <https://man7.org/linux/man-pages/man2/read.2.html>
pub(super) fn sys_read(
    task: &CurrentTask,
    fd: Fd,
    buf: UserAddr,
    count: usize,
) -> HandlerResult<usize> {
    if let Some(n) = direct_read::finish(task) {
        task.group.account.transfers.note_read(n);
        return Ok(n);
    }
    let file = task.file(fd.0)?;
    if let Err(control) = direct_read::start(task, &file, (buf, count), Position::Current) {
        lend::offer_held_file(task, fd, &file);
        return Err(control);
    }
    let n = do_read(task, &file, &one(buf, count)?, Position::Current, RwFlags::empty())?;
    lend::offer(task, fd, &file);
    lend::offer_file(task, fd, &file);
    Ok(n)
}

/// Implements `write(2)`.
///
/// <https://man7.org/linux/man-pages/man2/write.2.html>
pub(super) fn sys_write(
    task: &CurrentTask,
    fd: Fd,
    buf: UserAddr,
    count: usize,
) -> HandlerResult<usize> {
    if let Some(result) = direct_write::finish(task) {
        return result;
    }
    let file = task.file(fd.0)?;
    let segments = one(buf, count)?;
    direct_write::start(task, &file, &segments, Position::Current)?;
    let n = do_write(task, &file, &segments, Position::Current, RwFlags::empty())?;
    lend::offer(task, fd, &file);
    if file.file.is_same_everywhere() {
        lend::offer_file(task, fd, &file);
    }
    Ok(n)
}

/// Implements `pread64(2)`.
///
/// <https://man7.org/linux/man-pages/man2/pread.2.html>
pub(super) fn sys_pread64(
    task: &CurrentTask,
    fd: Fd,
    buf: UserAddr,
    count: usize,
    offset: i64,
) -> HandlerResult<usize> {
    if let Some(n) = direct_read::finish(task) {
        task.group.account.transfers.note_read(n);
        return Ok(n);
    }
    let position = at(offset)?;
    let file = seekable(task, fd)?;
    if let Err(control) = direct_read::start(task, &file, (buf, count), position) {
        lend::offer_held_file(task, fd, &file);
        return Err(control);
    }
    let n = do_read(task, &file, &one(buf, count)?, position, RwFlags::empty())?;
    lend::offer_file(task, fd, &file);
    Ok(n)
}

/// Implements `pwrite64(2)`.
pub(super) fn sys_pwrite64(
    task: &CurrentTask,
    fd: Fd,
    buf: UserAddr,
    count: usize,
    offset: i64,
) -> HandlerResult<usize> {
    if let Some(result) = direct_write::finish(task) {
        return result;
    }
    let position = at(offset)?;
    let file = seekable(task, fd)?;
    let segments = one(buf, count)?;
    direct_write::start(task, &file, &segments, position)?;
    let n = do_write(task, &file, &segments, position, RwFlags::empty())?;
    lend::offer_written_file(task, fd, &file);
    Ok(n)
}

/// Implements `readv(2)`.
pub(super) fn sys_readv(
    task: &CurrentTask,
    fd: Fd,
    iov: UserAddr,
    iovcnt: u64,
) -> HandlerResult<usize> {
    let file = task.file(fd.0)?;
    let segments = task.read_iovec(iov, iovcnt)?;
    do_read(task, &file, &segments, Position::Current, RwFlags::empty())
}

/// Implements `writev(2)`.
pub(super) fn sys_writev(
    task: &CurrentTask,
    fd: Fd,
    iov: UserAddr,
    iovcnt: u64,
) -> HandlerResult<usize> {
    let file = task.file(fd.0)?;
    let segments = task.read_iovec(iov, iovcnt)?;
    do_write(task, &file, &segments, Position::Current, RwFlags::empty())
}

/// Implements `preadv(2)`.
pub(super) fn sys_preadv(
    task: &CurrentTask,
    fd: Fd,
    iov: UserAddr,
    iovcnt: u64,
    offset: i64,
) -> HandlerResult<usize> {
    let position = at(offset)?;
    let file = seekable(task, fd)?;
    let segments = task.read_iovec(iov, iovcnt)?;
    do_read(task, &file, &segments, position, RwFlags::empty())
}

/// Implements `pwritev(2)`.
pub(super) fn sys_pwritev(
    task: &CurrentTask,
    fd: Fd,
    iov: UserAddr,
    iovcnt: u64,
    offset: i64,
) -> HandlerResult<usize> {
    let position = at(offset)?;
    let file = seekable(task, fd)?;
    let segments = task.read_iovec(iov, iovcnt)?;
    do_write(task, &file, &segments, position, RwFlags::empty())
}

/// Implements `preadv2(2)`. The sixth argument has the flags: the fifth is the upper half of the
/// offset on 32-bit machines.
pub(super) fn sys_preadv2(
    task: &CurrentTask,
    fd: Fd,
    iov: UserAddr,
    iovcnt: u64,
    offset: i64,
    _offset_high: u64,
    flags: u32,
) -> HandlerResult<usize> {
    let (file, position) = position(task, fd, offset)?;
    let segments = task.read_iovec(iov, iovcnt)?;
    do_read(task, &file, &segments, position, rw_flags(flags)?)
}

/// Implements `pwritev2(2)`.
pub(super) fn sys_pwritev2(
    task: &CurrentTask,
    fd: Fd,
    iov: UserAddr,
    iovcnt: u64,
    offset: i64,
    _offset_high: u64,
    flags: u32,
) -> HandlerResult<usize> {
    let (file, position) = position(task, fd, offset)?;
    let segments = task.read_iovec(iov, iovcnt)?;
    let flags = rw_flags(flags)?;
    if flags.contains(RwFlags::APPEND | RwFlags::NOAPPEND) {
        return Err(Errno::EINVAL.into());
    }
    do_write(task, &file, &segments, position, flags)
}

/// Implements `lseek(2)`.
///
/// <https://man7.org/linux/man-pages/man2/lseek.2.html>
pub(super) fn sys_lseek(
    task: &CurrentTask,
    fd: Fd,
    offset: i64,
    whence: u32,
) -> HandlerResult<u64> {
    let file = task.file(fd.0)?;
    if !file.file.is_seekable() {
        return Err(Errno::ESPIPE.into());
    }
    let mut current = file.offset.lock();
    let target = match whence {
        0..=4 if file.file.is_same_everywhere() => 0,
        SEEK_SET => u64::try_from(offset).map_err(|_| Errno::EINVAL)?,
        SEEK_CUR => {
            let now = i64::try_from(*current).map_err(|_| Errno::EOVERFLOW)?;
            let sum = now.checked_add(offset).ok_or(Errno::EOVERFLOW)?;
            u64::try_from(sum).map_err(|_| Errno::EINVAL)?
        }
        whence => {
            let whence = i32::try_from(whence).map_err(|_| Errno::EINVAL)?;
            file.file.seek(offset, whence)?
        }
    };
    *current = target;
    Ok(target)
}

/// The end of the addresses that a range may name: Linux's `TASK_SIZE_MAX`.
const ADDRESS_END: u64 = 0x7fff_ffff_f000;

/// Checks the range of a transfer.
///
/// # Errors
/// `EFAULT`.
pub(super) fn one(buf: UserAddr, count: usize) -> SysResult<[Segment; 1]> {
    let end = buf.0.checked_add(count as u64).filter(|end| *end <= ADDRESS_END);
    if end.is_none() {
        return Err(Errno::EFAULT);
    }
    Ok([(buf, count.min(crate::mm::user_io::MAX_RW_COUNT))])
}

/// Checks that what is read or written at an offset does not end where offsets end; one beyond, as memory has
/// them, goes on.
///
/// # Errors
/// `EINVAL`.
fn check_end(offset: u64, n: usize) -> SysResult<()> {
    let largest = i64::MAX.cast_unsigned();
    if offset <= largest && largest - offset < n as u64 { Err(Errno::EINVAL) } else { Ok(()) }
}

/// Checks an offset.
///
/// # Errors
/// `EINVAL`.
pub(super) fn at(offset: i64) -> SysResult<Position> {
    u64::try_from(offset).map(Position::At).map_err(|_| Errno::EINVAL)
}

fn seekable(task: &CurrentTask, fd: Fd) -> SysResult<Arc<OpenFile>> {
    let file = task.file(fd.0)?;
    if file.file.is_seekable() { Ok(file) } else { Err(Errno::ESPIPE) }
}

/// Returns file and position of `preadv2(2)` and `pwritev2(2)`: -1 is the current offset.
fn position(task: &CurrentTask, fd: Fd, offset: i64) -> SysResult<(Arc<OpenFile>, Position)> {
    if offset == -1 {
        return Ok((task.file(fd.0)?, Position::Current));
    }
    let position = at(offset)?;
    Ok((seekable(task, fd)?, position))
}

/// Checks the flags of one transfer.
///
/// # Errors
/// `EOPNOTSUPP`.
pub(super) fn rw_flags(flags: u32) -> SysResult<RwFlags> {
    let flags = RwFlags::from_bits_retain(flags);
    let unsupported = flags.has_unknown_bits() || flags.contains(RwFlags::ATOMIC);
    if unsupported { Err(Errno::EOPNOTSUPP) } else { Ok(flags) }
}

/// Reads into guest memory, waiting if need be.
pub(super) fn do_read(
    task: &CurrentTask,
    file: &OpenFile,
    segments: &[Segment],
    position: Position,
    flags: RwFlags,
) -> HandlerResult<usize> {
    if !file.is_readable() {
        return Err(Errno::EBADF.into());
    }
    let may_wait = !file.is_nonblocking() && !flags.contains(RwFlags::NOWAIT);
    let attempt = || match read_once(task, file, segments, position) {
        Err(Errno::EAGAIN) if may_wait && file.file.has_ended() => Ok(Some(0)),
        Err(Errno::EAGAIN) if may_wait => Ok(None),
        result => result.map(Some),
    };
    let n = wait(task, file, Events::READABLE, attempt)?;
    task.group.account.transfers.note_read(n);
    note_read(file, n);
    Ok(n)
}

/// Notes that `n` bytes have been read: the time of access, and who watches.
pub(super) fn note_read(file: &OpenFile, n: usize) {
    if n > 0
        && let Some(path) = &file.path
    {
        if !file.flags_set().contains(OpenFlags::NOATIME) {
            touch_atime(path);
        }
        notify::file(&path.dentry, notify::IN_ACCESS);
    }
}

fn read_once(
    task: &CurrentTask,
    file: &OpenFile,
    segments: &[Segment],
    position: Position,
) -> SysResult<usize> {
    let mut dst = UserBuf::from_segments(task, segments);
    match position {
        Position::At(offset) => {
            check_end(offset, dst.remaining())?;
            file.file.read(task, &mut dst, offset)
        }
        Position::Current if !file.file.is_seekable() => file.file.read(task, &mut dst, 0),
        Position::Current => {
            let mut offset = file.offset.lock();
            check_end(*offset, dst.remaining())?;
            let n = file.file.read(task, &mut dst, *offset)?;
            *offset = offset.saturating_add(n as u64);
            Ok(n)
        }
    }
}

/// Writes from guest memory, waiting until everything is written if need be.
pub(super) fn do_write(
    task: &CurrentTask,
    file: &OpenFile,
    segments: &[Segment],
    position: Position,
    flags: RwFlags,
) -> HandlerResult<usize> {
    if !file.is_writable() {
        return Err(Errno::EBADF.into());
    }
    let is_regular = file.path.as_ref().is_some_and(is_regular);
    let total: usize = segments.iter().map(|(_, len)| len).sum();
    if is_regular && total > 0 {
        drop_set_id(task, file)?;
    }
    let may_wait = !file.is_nonblocking() && !flags.contains(RwFlags::NOWAIT);
    let mut done = task.recall::<Progress>().map_or(0, |progress| progress.0);
    let result = {
        let attempt = || loop {
            let mut src = UserBuf::from_segments(task, segments);
            src.advance(done);
            let result = if is_regular {
                write_regular(task, file, &mut src, position, flags)
            } else {
                write_stream(task, file, &mut src, position)
            };
            match result {
                // A regular file takes less only where it is full; a stream takes the rest later.
                Ok(n) if is_regular => return Ok(Some(n)),
                Ok(n) => {
                    done = done.saturating_add(n);
                    if done >= total || n == 0 || !may_wait {
                        return Ok(Some(done));
                    }
                }
                Err(Errno::EAGAIN) if may_wait => return Ok(None),
                Err(Errno::EPIPE) => {
                    signal::send_to_self(task, SIGPIPE);
                    return if done > 0 { Ok(Some(done)) } else { Err(Errno::EPIPE) };
                }
                Err(_) if done > 0 => return Ok(Some(done)),
                Err(errno) => return Err(errno),
            }
        };
        wait(task, file, Events::WRITABLE, attempt)
    };
    match result {
        Ok(n) => {
            if let Some(path) = file.path.as_ref().filter(|_| n > 0) {
                notify::file(&path.dentry, notify::IN_MODIFY);
            }
            task.group.account.transfers.note_write(n);
            sync_after(file, flags)?;
            Ok(n)
        }
        Err(Control::Block) => {
            task.remember(Progress(done));
            Err(Control::Block)
        }
        Err(Control::Restart(_) | Control::Error(Errno::EAGAIN)) if done > 0 => Ok(done),
        Err(control) => Err(control),
    }
}

fn is_regular(path: &crate::vfs::Path) -> bool {
    path.inode().file_type() == FileType::Regular
}

fn wait<T>(
    task: &CurrentTask,
    file: &OpenFile,
    events: Events,
    attempt: impl FnMut() -> SysResult<Option<T>>,
) -> HandlerResult<T> {
    let register = |waiter: &_| file.file.register(waiter, events, 0);
    let (deadline_ns, restart) = deadline(task, file.file.timeout_ns(events));
    match task.wait_for(deadline_ns, restart, register, attempt)? {
        Wait::Ready(value) => Ok(value),
        Wait::TimedOut => Err(Errno::EAGAIN.into()),
    }
}

/// A source cut to a number of bytes.
struct Limited<'a> {
    source: &'a mut dyn IoSource,
    left: usize,
}

impl IoSource for Limited<'_> {
    fn remaining(&self) -> usize {
        self.source.remaining().min(self.left)
    }

    fn get(&mut self, dst: &mut [u8]) -> SysResult<usize> {
        let n = dst.len().min(self.left);
        let got = self.source.get(dst.get_mut(..n).unwrap_or_default())?;
        self.left -= got;
        Ok(got)
    }

    fn get_part(&mut self, dst: &Part<'_>) -> Option<usize> {
        let got = self.source.get_part(&dst.cut(0, self.left))?;
        self.left -= got;
        Some(got)
    }
}

fn write_regular(
    task: &CurrentTask,
    file: &OpenFile,
    src: &mut dyn IoSource,
    position: Position,
    flags: RwFlags,
) -> SysResult<usize> {
    let appends = (file.flags_set().contains(OpenFlags::APPEND)
        && !flags.contains(RwFlags::NOAPPEND))
        || flags.contains(RwFlags::APPEND);
    let limit = task.group.limits.lock().soft(RLIMIT_FSIZE);
    let n = src.remaining();
    let mut put = |offset: WriteOffset| {
        if limit == INFINITY {
            return file.file.write(task, src, offset);
        }
        let start = match offset {
            WriteOffset::At(start) => start,
            WriteOffset::Append => file.file.attr()?.size,
        };
        let wanted = src.remaining();
        if start >= limit && wanted > 0 {
            signal::send_to_self(task, SIGXFSZ);
            return Err(Errno::EFBIG);
        }
        let left = usize::try_from(limit - start.min(limit)).unwrap_or(usize::MAX);
        file.file.write(task, &mut Limited { source: src, left }, offset)
    };
    match position {
        Position::At(offset) => {
            check_end(offset, n)?;
            let offset = if appends { WriteOffset::Append } else { WriteOffset::At(offset) };
            put(offset).map(|(n, _)| n)
        }
        Position::Current => {
            let mut current = file.offset.lock();
            check_end(*current, n)?;
            let offset = if appends { WriteOffset::Append } else { WriteOffset::At(*current) };
            let (n, end) = put(offset)?;
            if n > 0 {
                *current = end;
            }
            Ok(n)
        }
    }
}

fn write_stream(
    task: &CurrentTask,
    file: &OpenFile,
    src: &mut dyn IoSource,
    position: Position,
) -> SysResult<usize> {
    match position {
        Position::At(offset) => {
            check_end(offset, src.remaining())?;
            file.file.write(task, src, WriteOffset::At(offset)).map(|(n, _)| n)
        }
        Position::Current if !file.file.is_seekable() => {
            file.file.write(task, src, WriteOffset::At(0)).map(|(n, _)| n)
        }
        Position::Current => {
            let mut current = file.offset.lock();
            check_end(*current, src.remaining())?;
            let (n, end) = file.file.write(task, src, WriteOffset::At(*current))?;
            *current = end;
            Ok(n)
        }
    }
}

/// Writes what can be written at once of data that the sentry holds: what `sendfile(2)` and its
/// relatives do.
///
/// # Errors
/// Those of the file; `EAGAIN` where it has to wait, `EPIPE` after SIGPIPE.
pub(super) fn write_held(
    task: &CurrentTask,
    file: &OpenFile,
    src: &mut dyn IoSource,
    position: Position,
) -> SysResult<usize> {
    let result = if file.path.as_ref().is_some_and(is_regular) {
        drop_set_id(task, file)?;
        write_regular(task, file, src, position, RwFlags::empty())
    } else {
        write_stream(task, file, src, position)
    };
    match result {
        Err(Errno::EPIPE) => signal::send_to_self(task, SIGPIPE),
        Ok(n) if n > 0 => {
            if let Some(path) = &file.path {
                notify::file(&path.dentry, notify::IN_MODIFY);
            }
        }
        _ => {}
    }
    result
}

/// Takes the set-id bits off a file that is written to by somebody who may not keep them.
pub(super) fn drop_set_id(task: &CurrentTask, file: &OpenFile) -> SysResult<()> {
    use syscalls::abi::capability::CAP_FSETID;
    let creds = task.creds();
    if creds.has_capability(CAP_FSETID) {
        return Ok(());
    }
    let Some(path) = &file.path else { return Ok(()) };
    match change::mode_after_write(&creds, &path.inode().attr()?) {
        Some(mode) => path.inode().set_attr(&SetAttr { mode: Some(mode), ..SetAttr::default() }),
        None => Ok(()),
    }
}

fn sync_after(file: &OpenFile, flags: RwFlags) -> SysResult<()> {
    let open = file.flags_set();
    let is_sync = open.contains(OpenFlags::SYNC) || flags.contains(RwFlags::SYNC);
    let is_dsync = open.contains(OpenFlags::DSYNC) || flags.contains(RwFlags::DSYNC);
    if !is_sync && !is_dsync {
        return Ok(());
    }
    match file.file.sync(!is_sync) {
        Err(Errno::EINVAL) => Ok(()),
        result => result,
    }
}
