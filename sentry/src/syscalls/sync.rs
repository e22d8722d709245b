//! Writing to stable storage, and advice about what will be read.

use syscalls::abi::fs::{POSIX_FADV_NOREUSE, SEEK_DATA, SEEK_HOLE, SyncFileRangeFlags};
use syscalls::abi::mm::{Cachestat, CachestatRange, PAGE_SIZE};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserPtr};

use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::{FileType, OpenFile};

/// Implements `fsync(2)`.
pub(super) fn sys_fsync(task: &CurrentTask, fd: Fd) -> HandlerResult<()> {
    Ok(task.file(fd.0)?.file.sync(false)?)
}

/// Implements `fdatasync(2)`.
pub(super) fn sys_fdatasync(task: &CurrentTask, fd: Fd) -> HandlerResult<()> {
    Ok(task.file(fd.0)?.file.sync(true)?)
}

/// Implements `sync(2)`.
pub(super) fn sys_sync(task: &CurrentTask) -> HandlerResult<()> {
    for mount in task.fs().namespace().mounts() {
        // Always successful, as the manual page says.
        let _ = mount.sb.fs.sync();
    }
    Ok(())
}

/// Implements `syncfs(2)`.
pub(super) fn sys_syncfs(task: &CurrentTask, fd: Fd) -> HandlerResult<()> {
    let file = task.file(fd.0)?;
    match &file.path {
        Some(path) => Ok(path.mount.sb.fs.sync()?),
        None => Ok(()),
    }
}

/// Implements `sync_file_range(2)`.
pub(super) fn sys_sync_file_range(
    task: &CurrentTask,
    fd: Fd,
    offset: i64,
    nbytes: i64,
    flags: u32,
) -> HandlerResult<()> {
    let file = task.file(fd.0)?;
    let flags = SyncFileRangeFlags::from_bits_retain(flags);
    let is_range_valid = offset >= 0 && nbytes >= 0 && offset.checked_add(nbytes).is_some();
    if flags.has_unknown_bits() || !is_range_valid {
        return Err(Errno::EINVAL.into());
    }
    if !has_pages(&file)? {
        return Err(Errno::ESPIPE.into());
    }
    if flags.is_empty() { Ok(()) } else { Ok(file.file.sync(true)?) }
}

/// Implements `fadvise64(2)`. Advice is taken and nothing follows from it: pages are the host's.
pub(super) fn sys_fadvise64(
    task: &CurrentTask,
    fd: Fd,
    _offset: i64,
    len: i64,
    advice: i32,
) -> HandlerResult<()> {
    let file = task.file(fd.0)?;
    if file.file.attr()?.file_type() == FileType::Fifo {
        return Err(Errno::ESPIPE.into());
    }
    if len < 0 || !(0..=POSIX_FADV_NOREUSE).contains(&advice) {
        return Err(Errno::EINVAL.into());
    }
    Ok(())
}

/// Implements `readahead(2)`.
pub(super) fn sys_readahead(
    task: &CurrentTask,
    fd: Fd,
    _offset: i64,
    _count: usize,
) -> HandlerResult<()> {
    let file = task.file(fd.0)?;
    if !file.is_readable() {
        return Err(Errno::EBADF.into());
    }
    match file.file.attr()?.file_type() {
        FileType::Regular | FileType::BlockDevice => Ok(()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// Implements `cachestat(2)`. What a file has is cached, since pages are the host's; nothing is
/// said of writing back.
///
/// <https://docs.kernel.org/admin-guide/sysctl/vm.html>
pub(super) fn sys_cachestat(
    task: &CurrentTask,
    fd: Fd,
    range: UserPtr<CachestatRange>,
    out: UserPtr<Cachestat>,
    flags: u32,
) -> HandlerResult<()> {
    let file = task.file(fd.0)?;
    let range = task.read_obj(range)?;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let last = if range.len == 0 { u64::MAX } else { range.off.saturating_add(range.len - 1) };
    let nr_cache = n_pages_with_data(&file, range.off / PAGE_SIZE, last / PAGE_SIZE)?;
    Ok(task.write_obj(out, &Cachestat { nr_cache, ..Cachestat::default() })?)
}

/// Counts the pages of a file, from the first to the last given, that have data.
fn n_pages_with_data(file: &OpenFile, first: u64, last: u64) -> SysResult<u64> {
    if file.file.attr()?.file_type() != FileType::Regular {
        return Ok(0);
    }
    let size = file.file.attr()?.size;
    let end = size.min(last.saturating_add(1).saturating_mul(PAGE_SIZE));
    let mut at = first.saturating_mul(PAGE_SIZE);
    let mut n_pages = 0;
    while at < end {
        let seek = |from: u64, whence: u32| -> Option<u64> {
            file.file.seek(i64::try_from(from).ok()?, whence.cast_signed()).ok()
        };
        let Some(data) = seek(at, SEEK_DATA).filter(|data| *data < end) else { break };
        let hole = seek(data, SEEK_HOLE).unwrap_or(size).max(data + 1).min(end);
        n_pages += hole.div_ceil(PAGE_SIZE).saturating_sub(data / PAGE_SIZE);
        at = hole;
    }
    Ok(n_pages)
}

fn has_pages(file: &OpenFile) -> SysResult<bool> {
    Ok(matches!(
        file.file.attr()?.file_type(),
        FileType::Regular | FileType::BlockDevice | FileType::Directory | FileType::Symlink
    ))
}
