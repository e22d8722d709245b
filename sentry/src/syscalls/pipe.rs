//! Pipes.

use syscalls::abi::fs::OpenFlags;
use syscalls::{Errno, SysResult, UserPtr};

use super::fd::install;
use crate::fs::pipe;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::OpenFile;

/// Implements `pipe(2)`.
pub(super) fn sys_pipe(task: &CurrentTask, pipefd: UserPtr<[i32; 2]>) -> HandlerResult<()> {
    Ok(do_pipe(task, pipefd, OpenFlags::empty())?)
}

/// Implements `pipe2(2)`.
///
/// <https://man7.org/linux/man-pages/man2/pipe.2.html>
pub(super) fn sys_pipe2(
    task: &CurrentTask,
    pipefd: UserPtr<[i32; 2]>,
    flags: OpenFlags,
) -> HandlerResult<()> {
    let known = OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT;
    if flags.intersects(!known) {
        return Err(Errno::EINVAL.into());
    }
    Ok(do_pipe(task, pipefd, flags)?)
}

fn do_pipe(task: &CurrentTask, pipefd: UserPtr<[i32; 2]>, flags: OpenFlags) -> SysResult<()> {
    let (reader, writer) = pipe::create(task, flags.contains(OpenFlags::DIRECT));
    let is_cloexec = flags.contains(OpenFlags::CLOEXEC);
    let kept = (flags & !OpenFlags::CLOEXEC).bits();
    let files = task.files();
    let read_fd = install(task, OpenFile::new(reader, None, kept), is_cloexec)?;
    let writer = OpenFile::new(writer, None, kept | OpenFlags::WRONLY.bits());
    let write_fd = match install(task, writer, is_cloexec) {
        Ok(fd) => fd,
        Err(errno) => {
            drop(files.remove(read_fd.0));
            return Err(errno);
        }
    };
    if let Err(errno) = task.write_obj(pipefd, &[read_fd.0, write_fd.0]) {
        drop(files.remove(read_fd.0));
        drop(files.remove(write_fd.0));
        return Err(errno);
    }
    Ok(())
}
