//! Moving data between descriptors: `sendfile(2)`, `splice(2)`, `tee(2)`, `vmsplice(2)`,
//! `copy_file_range(2)`.
//!
//! Between a pipe and anything else data moves without a buffer in between; between two other files
//! it goes through one of bounded size.

use std::sync::Arc;

use syscalls::abi::fs::{OpenFlags, RwFlags, SpliceFlags};
use syscalls::abi::signal::SIGPIPE;
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use super::mount_context::FsContextFile;
use super::read_write::{Position, do_read, do_write, write_held};
use crate::fs::pipe::PipeEnd;
use crate::mm::user_io::MAX_RW_COUNT;
use crate::net::MoreFollows;
use crate::sync::{Events, Waiter};
use crate::task::block::Wait;
use crate::task::{Control, CurrentTask, HandlerResult, Restart, signal};
use crate::vfs::file::downcast;
use crate::vfs::{FileType, OpenFile, SliceSink, SliceSource, WriteOffset, notify};

/// The size of the buffer between two files.
const BUFFER: usize = 64 << 10;

/// One side of a transfer.
struct Side {
    open: Arc<OpenFile>,
    /// The offset in guest memory that is used instead of the open file's.
    ptr: UserPtr<i64>,
    offset: Option<u64>,
}

/// What earlier runs of a call have transferred.
struct Progress {
    done: usize,
}

impl Side {
    fn new(open: Arc<OpenFile>, ptr: UserPtr<i64>, offset: Option<i64>) -> SysResult<Self> {
        let offset = match offset {
            Some(offset) => Some(u64::try_from(offset).map_err(|_| Errno::EINVAL)?),
            None => None,
        };
        Ok(Self { open, ptr, offset })
    }

    /// Returns where the next byte is.
    fn position(&self) -> u64 {
        match self.offset {
            Some(offset) => offset,
            None if self.open.file.is_seekable() => *self.open.offset.lock(),
            None => 0,
        }
    }

    /// Goes behind `n` bytes.
    fn advance(&mut self, n: usize) {
        match &mut self.offset {
            Some(offset) => *offset = offset.saturating_add(n as u64),
            None if self.open.file.is_seekable() => {
                let mut offset = self.open.offset.lock();
                *offset = offset.saturating_add(n as u64);
            }
            None => {}
        }
    }

    /// Stores the offset where it came from.
    fn store(&self, task: &CurrentTask) -> SysResult<()> {
        match self.offset {
            Some(offset) => {
                let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
                task.write_obj(self.ptr, &offset)
            }
            None => Ok(()),
        }
    }

    fn pipe(&self) -> Option<Arc<PipeEnd>> {
        downcast(&self.open.file)
    }

    fn announce_read(&self) {
        if let Some(path) = &self.open.path {
            crate::vfs::touch_atime(path);
            notify::file(&path.dentry, notify::IN_ACCESS);
        }
    }
}

fn read_offset(task: &CurrentTask, ptr: UserPtr<i64>) -> SysResult<Option<i64>> {
    if ptr.is_null() { Ok(None) } else { task.read_obj(ptr).map(Some) }
}

/// How far [`run`] goes.
#[derive(Clone, Copy)]
struct Extent {
    count: usize,
    may_wait: bool,
    /// Whether to wait even after something has been moved.
    waits_for_all: bool,
}

/// Runs `step` until `count` bytes have been moved, nothing more comes, or there is something to
/// wait for. Whatever has been moved before an error or a signal is a success.
fn run(
    task: &CurrentTask,
    from: &mut Side,
    to: &mut Side,
    extent: Extent,
    mut step: impl FnMut(&mut Side, &mut Side, usize) -> SysResult<usize>,
) -> HandlerResult<usize> {
    let Extent { count, may_wait, waits_for_all } = extent;
    let before = task.recall::<Progress>().map_or(0, |progress| progress.done);
    let mut done = before;
    let (from_open, to_open) = (from.open.clone(), to.open.clone());
    let register = |waiter: &Arc<dyn Waiter>| {
        let mut registrations = from_open.file.register(waiter, Events::READABLE, 0);
        registrations.extend(to_open.file.register(waiter, Events::WRITABLE, 0));
        registrations
    };
    let attempt = || {
        while done < count {
            match step(from, to, count - done) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::EAGAIN) if done > 0 && !waits_for_all => break,
                Err(Errno::EAGAIN) if may_wait => return Ok(None),
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(Some(()))
    };
    let result = task.wait_for(None, Restart::Sys, register, attempt);
    if done > before {
        from.announce_read();
        from.store(task)?;
        to.store(task)?;
    }
    match result {
        Ok(Wait::Ready(()) | Wait::TimedOut) => Ok(done),
        Err(Control::Block) => {
            task.remember(Progress { done });
            Err(Control::Block)
        }
        Err(Control::Restart(_)) if done > 0 => Ok(done),
        Err(control) => Err(control),
    }
}

/// Moves up to `count` bytes through a buffer. Bytes that the receiver does not take are not taken
/// from the sender.
fn through_buffer(
    task: &CurrentTask,
    from: &mut Side,
    to: &mut Side,
    count: usize,
    buffer: &mut Vec<u8>,
) -> SysResult<usize> {
    if !from.open.file.can_splice_from() {
        return Err(Errno::EINVAL);
    }
    if buffer.is_empty() {
        buffer.resize(count.min(BUFFER), 0);
    }
    let wanted = count.min(buffer.len());
    let mut sink = SliceSink::new(buffer.get_mut(..wanted).unwrap_or_default());
    let n = from.open.file.read(task, &mut sink, from.position())?;
    if n == 0 {
        return Ok(0);
    }
    if !to.open.file.can_splice_to() {
        return Err(Errno::EINVAL);
    }
    let mut source = SliceSource::new(buffer.get(..n).unwrap_or_default());
    let position = to.offset.map_or(Position::Current, Position::At);
    let written = write_held(task, &to.open, &mut source, position)?;
    from.advance(written);
    if to.offset.is_some() {
        to.advance(written);
    }
    Ok(written)
}

/// Moves up to `count` bytes from a pipe to a file.
fn from_pipe(
    task: &CurrentTask,
    pipe: &PipeEnd,
    to: &mut Side,
    count: usize,
    socket: Option<&MoreFollows>,
) -> SysResult<usize> {
    let at = WriteOffset::At(to.position());
    let result = match socket {
        Some(socket) => pipe.send_to(task, socket, at, count),
        None => pipe.send_to(task, to.open.file.as_ref(), at, count),
    };
    let result = result.map(|(n, _)| n);
    match &result {
        Err(Errno::EPIPE) => signal::send_to_self(task, SIGPIPE),
        Ok(n) if *n > 0 => {
            to.advance(*n);
            if let Some(path) = &to.open.path {
                notify::file(&path.dentry, notify::IN_MODIFY);
            }
        }
        _ => {}
    }
    result
}

/// Moves up to `count` bytes from a file to a pipe.
fn to_pipe(task: &CurrentTask, from: &mut Side, pipe: &PipeEnd, count: usize) -> SysResult<usize> {
    let result = match pipe.fill_from(task, from.open.file.as_ref(), from.position(), count) {
        // A directory has nothing that could be moved.
        Err(Errno::EISDIR) => Err(Errno::EINVAL),
        result => result,
    };
    match &result {
        Err(Errno::EPIPE) => signal::send_to_self(task, SIGPIPE),
        Ok(n) => from.advance(*n),
        Err(_) => {}
    }
    result
}

fn pipe_to_pipe(
    task: &CurrentTask,
    input: &PipeEnd,
    output: &PipeEnd,
    count: usize,
    keep: bool,
) -> SysResult<usize> {
    let result = input.move_to(output, count, keep);
    if result == Err(Errno::EPIPE) {
        signal::send_to_self(task, SIGPIPE);
    }
    result
}

/// Implements `sendfile(2)`.
///
/// <https://man7.org/linux/man-pages/man2/sendfile.2.html>
pub(super) fn sys_sendfile(
    task: &CurrentTask,
    out_fd: Fd,
    in_fd: Fd,
    offset: UserPtr<i64>,
    count: usize,
) -> HandlerResult<usize> {
    let given = read_offset(task, offset)?;
    let files = task.files();
    let input = files.get(in_fd.0)?;
    if !input.is_readable() {
        return Err(Errno::EBADF.into());
    }
    if given.is_some() && !input.file.is_seekable() {
        return Err(Errno::ESPIPE.into());
    }
    let mut from = Side::new(input, offset, given)?;
    let output = files.get(out_fd.0)?;
    if !output.is_writable() {
        return Err(Errno::EBADF.into());
    }
    if output.flags_set().contains(OpenFlags::APPEND) || !from.open.file.is_seekable() {
        return Err(Errno::EINVAL.into());
    }
    let may_wait = !output.is_nonblocking();
    let mut to = Side::new(output, UserPtr::new(UserAddr::NULL), None)?;
    let extent = Extent { count: count.min(MAX_RW_COUNT), may_wait, waits_for_all: true };
    let sent = if let Some(pipe) = to.pipe() {
        run(task, &mut from, &mut to, extent, |from, _, count| to_pipe(task, from, &pipe, count))
    } else {
        let mut buffer = Vec::new();
        run(task, &mut from, &mut to, extent, |from, to, count| {
            through_buffer(task, from, to, count, &mut buffer)
        })
    }?;
    if sent == 0 {
        // The offset is stored all the same, and must be writable.
        from.store(task)?;
    }
    Ok(sent)
}

/// Implements `splice(2)`.
///
/// <https://man7.org/linux/man-pages/man2/splice.2.html>
pub(super) fn sys_splice(
    task: &CurrentTask,
    fd_in: Fd,
    off_in: UserPtr<i64>,
    fd_out: Fd,
    off_out: UserPtr<i64>,
    size: usize,
    flags: SpliceFlags,
) -> HandlerResult<usize> {
    if size == 0 {
        return Ok(0);
    }
    if flags.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    let files = task.files();
    let (input, output) = (files.get(fd_in.0)?, files.get(fd_out.0)?);
    let pipes = (downcast::<PipeEnd>(&input.file), downcast::<PipeEnd>(&output.file));
    if (pipes.0.is_some() && !off_in.is_null()) || (pipes.1.is_some() && !off_out.is_null()) {
        return Err(Errno::ESPIPE.into());
    }
    let offset_in = read_offset(task, off_in)?;
    let offset_out = read_offset(task, off_out)?;
    if !input.is_readable() || !output.is_writable() {
        return Err(Errno::EBADF.into());
    }
    let is_misplaced =
        |file: &OpenFile, offset: Option<i64>| offset.is_some() && !file.file.is_seekable();
    if is_misplaced(&input, offset_in) || is_misplaced(&output, offset_out) {
        return Err(Errno::EINVAL.into());
    }
    // Only the pipes' own O_NONBLOCK counts.
    let may_wait = !(flags.contains(SpliceFlags::NONBLOCK)
        || pipes.0.is_some() && input.is_nonblocking()
        || pipes.1.is_some() && output.is_nonblocking());
    let appends = output.flags_set().contains(OpenFlags::APPEND);
    // Open for both, and spliced neither from nor to: that comes before any wait.
    let is_context = |file: &OpenFile| downcast::<FsContextFile>(&file.file).is_some();
    if is_context(&input) || is_context(&output) {
        return Err(Errno::EINVAL.into());
    }
    let mut from = Side::new(input, off_in, offset_in)?;
    let mut to = Side::new(output, off_out, offset_out)?;
    let extent = Extent { count: size.min(MAX_RW_COUNT), may_wait, waits_for_all: false };
    match pipes {
        (Some(input), Some(output)) => run(task, &mut from, &mut to, extent, |_, _, count| {
            pipe_to_pipe(task, &input, &output, count, false)
        }),
        (Some(_), None) if appends => Err(Errno::EINVAL.into()),
        (Some(input), None) => {
            let socket = downcast(&to.open.file).filter(|_| flags.contains(SpliceFlags::MORE));
            let socket = socket.map(MoreFollows);
            run(task, &mut from, &mut to, extent, |_, to, count| {
                from_pipe(task, &input, to, count, socket.as_ref())
            })
        }
        (None, Some(output)) => run(task, &mut from, &mut to, extent, |from, _, count| {
            to_pipe(task, from, &output, count)
        }),
        (None, None) => Err(Errno::EINVAL.into()),
    }
}

/// Implements `tee(2)`.
///
/// <https://man7.org/linux/man-pages/man2/tee.2.html>
pub(super) fn sys_tee(
    task: &CurrentTask,
    fd_in: Fd,
    fd_out: Fd,
    size: usize,
    flags: SpliceFlags,
) -> HandlerResult<usize> {
    if flags.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    if size == 0 {
        return Ok(0);
    }
    let files = task.files();
    let (input, output) = (files.get(fd_in.0)?, files.get(fd_out.0)?);
    if !input.is_readable() || !output.is_writable() {
        return Err(Errno::EBADF.into());
    }
    let pipes = downcast::<PipeEnd>(&input.file).zip(downcast::<PipeEnd>(&output.file));
    let (pipe_in, pipe_out) = pipes.ok_or(Errno::EINVAL)?;
    if pipe_in.is_same_pipe(&pipe_out) {
        return Err(Errno::EINVAL.into());
    }
    let may_wait = !flags.contains(SpliceFlags::NONBLOCK)
        && !input.is_nonblocking()
        && !output.is_nonblocking();
    let nowhere = UserPtr::new(UserAddr::NULL);
    let mut from = Side::new(input, nowhere, None)?;
    let mut to = Side::new(output, nowhere, None)?;
    let extent = Extent { count: size.min(MAX_RW_COUNT), may_wait, waits_for_all: false };
    let mut is_done = false;
    run(task, &mut from, &mut to, extent, |_, _, count| {
        // A second time the same bytes would be seen again.
        if is_done {
            return Ok(0);
        }
        let result = pipe_to_pipe(task, &pipe_in, &pipe_out, count, true);
        is_done = result.is_ok();
        result
    })
}

/// Implements `vmsplice(2)`: the pages are copied.
pub(super) fn sys_vmsplice(
    task: &CurrentTask,
    fd: Fd,
    iov: UserAddr,
    nr_segs: u64,
    flags: SpliceFlags,
) -> HandlerResult<usize> {
    if flags.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    let file = task.file(fd.0)?;
    downcast::<PipeEnd>(&file.file).ok_or(Errno::EBADF)?;
    let segments = task.read_iovec(iov, nr_segs)?;
    if segments.iter().all(|(_, len)| *len == 0) {
        return Ok(0);
    }
    let is_nonblocking = flags.contains(SpliceFlags::NONBLOCK);
    let how = if is_nonblocking { RwFlags::NOWAIT } else { RwFlags::empty() };
    if !file.is_writable() {
        return do_read(task, &file, &segments, Position::Current, how);
    }
    // Unlike a write, it waits for room only until something has been put there.
    let attempt = || match do_write(task, &file, &segments, Position::Current, RwFlags::NOWAIT) {
        Ok(n) => Ok(Some(n)),
        Err(Control::Error(Errno::EAGAIN)) if !is_nonblocking => Ok(None),
        Err(Control::Error(errno)) => Err(errno),
        Err(_) => Err(Errno::EAGAIN),
    };
    let register = |waiter: &Arc<dyn Waiter>| file.file.register(waiter, Events::WRITABLE, 0);
    match task.wait_for(None, Restart::Sys, register, attempt)? {
        Wait::Ready(n) => Ok(n),
        Wait::TimedOut => Err(Errno::EAGAIN.into()),
    }
}

/// Implements `copy_file_range(2)`.
///
/// <https://man7.org/linux/man-pages/man2/copy_file_range.2.html>
pub(super) fn sys_copy_file_range(
    task: &CurrentTask,
    fd_in: Fd,
    off_in: UserPtr<i64>,
    fd_out: Fd,
    off_out: UserPtr<i64>,
    size: usize,
    flags: u32,
) -> HandlerResult<usize> {
    let files = task.files();
    let (input, output) = (files.get(fd_in.0)?, files.get(fd_out.0)?);
    let offset_in = read_offset(task, off_in)?;
    let offset_out = read_offset(task, off_out)?;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (attr_in, attr_out) = (input.file.attr()?, output.file.attr()?);
    let kinds = [attr_in.file_type(), attr_out.file_type()];
    if kinds.contains(&FileType::Directory) {
        return Err(Errno::EISDIR.into());
    }
    if kinds.iter().any(|kind| *kind != FileType::Regular) {
        return Err(Errno::EINVAL.into());
    }
    let appends = output.flags_set().contains(OpenFlags::APPEND);
    if !input.is_readable() || !output.is_writable() || appends {
        return Err(Errno::EBADF.into());
    }
    let mut from = Side::new(input, off_in, offset_in)?;
    let mut to = Side::new(output, off_out, offset_out)?;
    let (start_in, start_out) = (from.position(), to.position());
    let is_too_far = |start: u64| start.checked_add(size as u64).is_none();
    if is_too_far(start_in) || is_too_far(start_out) {
        return Err(Errno::EOVERFLOW.into());
    }
    let count = size.min(MAX_RW_COUNT);
    let is_same = (attr_in.dev, attr_in.ino) == (attr_out.dev, attr_out.ino);
    if is_same && start_in.abs_diff(start_out) < count as u64 {
        return Err(Errno::EINVAL.into());
    }
    let extent = Extent { count, may_wait: false, waits_for_all: false };
    let mut buffer = Vec::new();
    run(task, &mut from, &mut to, extent, |from, to, count| {
        through_buffer(task, from, to, count, &mut buffer)
    })
}
