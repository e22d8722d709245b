//! Opening and closing.

use std::sync::Arc;

use syscalls::abi::fs::{
    AT_FDCWD, CloseRangeFlags, OPEN_HOW_SIZE_VER0, OpenFlags, OpenHow, ResolveFlags,
};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr};
use zerocopy::IntoBytes;

use super::{at, fd, lease, lend};
use crate::net::SocketFile;
use crate::sync::Events;
use crate::task::block::Wait;
use crate::task::{Control, CurrentTask, HandlerResult, Restart};
use crate::vfs::file::downcast;
use crate::vfs::walk::WalkFlags;
use crate::vfs::{OpenFile, open};

/// The bit of `O_TMPFILE` that is not `O_DIRECTORY`.
const TMPFILE_BIT: OpenFlags = OpenFlags::from_bits_retain(0o20_000_000);

/// What `O_PATH` leaves of the other flags.
const PATH_FLAGS: OpenFlags = OpenFlags::PATH
    .union(OpenFlags::DIRECTORY)
    .union(OpenFlags::NOFOLLOW)
    .union(OpenFlags::CLOEXEC);

/// All flags of `open(2)`, with both bits of the access mode.
const KNOWN: u32 = OpenFlags::all().bits() | OpenFlags::ACCMODE;

/// A FIFO that is open, but whose other end is missing.
struct HalfOpen(Arc<OpenFile>);

/// Implements `open(2)`.
///
/// <https://man7.org/linux/man-pages/man2/open.2.html>
pub(super) fn sys_open(
    task: &CurrentTask,
    pathname: UserAddr,
    flags: u32,
    mode: u32,
) -> HandlerResult<Fd> {
    sys_openat(task, Fd(AT_FDCWD), pathname, flags, mode)
}

/// Implements `creat(2)`.
pub(super) fn sys_creat(task: &CurrentTask, pathname: UserAddr, mode: u32) -> HandlerResult<Fd> {
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    sys_openat(task, Fd(AT_FDCWD), pathname, flags.bits(), mode)
}

/// Implements `openat(2)`.
pub(super) fn sys_openat(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    flags: u32,
    mode: u32,
) -> HandlerResult<Fd> {
    let mut flags = OpenFlags::from_bits_retain(flags & KNOWN);
    if flags.contains(OpenFlags::PATH) {
        flags &= PATH_FLAGS;
    }
    check(flags)?;
    do_open(task, dirfd, pathname, flags, mode & 0o7777, WalkFlags::empty())
}

/// Implements `openat2(2)`.
///
/// <https://man7.org/linux/man-pages/man2/openat2.2.html>
pub(super) fn sys_openat2(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    how: UserAddr,
    size: usize,
) -> HandlerResult<Fd> {
    let how = read_how(task, how, size)?;
    let resolve = ResolveFlags::from_bits_retain(how.resolve);
    let flags = u32::try_from(how.flags).map_err(|_| Errno::EINVAL)?;
    let mode = u32::try_from(how.mode).map_err(|_| Errno::EINVAL)?;
    if flags & !KNOWN != 0 || mode & !0o7777 != 0 || resolve.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    let flags = OpenFlags::from_bits_retain(flags);
    let creates = flags.contains(OpenFlags::CREAT) || flags.contains(TMPFILE_BIT);
    let is_path_with_more = flags.contains(OpenFlags::PATH) && flags.intersects(!PATH_FLAGS);
    let is_doubly_scoped = resolve.contains(ResolveFlags::BENEATH | ResolveFlags::IN_ROOT);
    if (mode != 0 && !creates) || is_path_with_more || is_doubly_scoped {
        return Err(Errno::EINVAL.into());
    }
    check(flags)?;
    if resolve.contains(ResolveFlags::CACHED) && (creates || flags.contains(OpenFlags::TRUNC)) {
        return Err(Errno::EAGAIN.into());
    }
    do_open(task, dirfd, pathname, flags, mode, resolve.into())
}

fn read_how(task: &CurrentTask, addr: UserAddr, size: usize) -> SysResult<OpenHow> {
    if size < OPEN_HOW_SIZE_VER0 {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0; size];
    task.read_bytes(addr, &mut bytes)?;
    let (known, rest) = bytes.split_at(OPEN_HOW_SIZE_VER0);
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let mut how = OpenHow::default();
    how.as_mut_bytes().copy_from_slice(known);
    Ok(how)
}

fn check(flags: OpenFlags) -> SysResult<()> {
    if flags.contains(OpenFlags::PATH) {
        return Ok(());
    }
    let is_tmpfile = flags.contains(TMPFILE_BIT);
    let is_writing = matches!(flags.access_mode(), 1 | 2);
    if is_tmpfile && (!flags.contains(OpenFlags::TMPFILE) || !is_writing) {
        return Err(Errno::EINVAL);
    }
    if flags.contains(OpenFlags::DIRECTORY | OpenFlags::CREAT) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn do_open(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    flags: OpenFlags,
    mode: u32,
    walk_flags: WalkFlags,
) -> HandlerResult<Fd> {
    let is_cloexec = flags.contains(OpenFlags::CLOEXEC);
    let file = match task.recall::<HalfOpen>() {
        Some(HalfOpen(file)) => file,
        None => {
            let path = task.read_path(pathname)?;
            lease::before_open(task, dirfd, &path, flags, walk_flags)?;
            let mut walk = at::walk(task, dirfd, &path, walk_flags)?;
            open::open(task, &mut walk, &path, flags, mode)?
        }
    };
    if !file.file.is_open_complete() {
        let events = Events::READABLE | Events::WRITABLE;
        let waited = task.wait_for(
            None,
            Restart::Sys,
            |waiter| file.file.register(waiter, events, 0),
            || Ok(file.file.is_open_complete().then_some(())),
        );
        match waited {
            Ok(Wait::Ready(()) | Wait::TimedOut) => {}
            Err(control) => {
                if control == Control::Block {
                    task.remember(HalfOpen(file));
                }
                return Err(control);
            }
        }
    }
    Ok(fd::install(task, file, is_cloexec)?)
}

/// Implements `close(2)`.
///
/// <https://man7.org/linux/man-pages/man2/close.2.html>
pub(super) fn sys_close(task: &CurrentTask, fd: Fd) -> HandlerResult<()> {
    if let Some(Lingering(file)) = task.recall() {
        return linger(task, file);
    }
    let files = task.files();
    let file = files.remove(fd.0)?;
    files.close(&file);
    linger(task, file)
}

/// A file whose close waits.
struct Lingering(Arc<OpenFile>);

/// Waits as `SO_LINGER` says where `file` is the last of its socket; a signal ends the wait, and not the
/// close.
fn linger(task: &CurrentTask, file: Arc<OpenFile>) -> HandlerResult<()> {
    let Some(socket) = downcast::<SocketFile>(&file.file) else { return Ok(()) };
    let socket = &socket.socket;
    if Arc::strong_count(&file) > 1 {
        return Ok(());
    }
    let Some(for_ns) = socket.linger() else { return Ok(()) };
    let deadline_ns = task.kernel.clock.monotonic_ns().saturating_add(for_ns);
    let waited = task.wait_for(
        Some(deadline_ns),
        Restart::NoIntr,
        |waiter| socket.register(waiter, Events::all(), 0),
        || Ok(socket.has_arrived().then_some(())),
    );
    if matches!(waited, Err(Control::Block)) {
        task.remember(Lingering(file));
        return Err(Control::Block);
    }
    Ok(())
}

/// Implements `close_range(2)`.
///
/// <https://man7.org/linux/man-pages/man2/close_range.2.html>
pub(super) fn sys_close_range(
    task: &CurrentTask,
    first: u32,
    last: u32,
    flags: u32,
) -> HandlerResult<()> {
    let flags = CloseRangeFlags::from_bits_retain(flags);
    if flags.has_unknown_bits() || first > last {
        return Err(Errno::EINVAL.into());
    }
    if flags.contains(CloseRangeFlags::UNSHARE) {
        let shared = task.files();
        // The task's own and this one: anything beyond is another user of the table.
        if Arc::strong_count(&shared) > 2 {
            let old = std::mem::replace(&mut *task.files.lock(), shared.fork());
            lend::table_changed(task);
            drop(old);
        }
    }
    let files = task.files();
    if flags.contains(CloseRangeFlags::CLOEXEC) {
        files.set_cloexec_range(first, last);
        return Ok(());
    }
    for file in files.remove_range(first, last) {
        files.close(&file);
    }
    Ok(())
}

/// Implements `memfd_create(2)`.
///
/// <https://man7.org/linux/man-pages/man2/memfd_create.2.html>
pub(super) fn sys_memfd_create(
    task: &CurrentTask,
    name: UserAddr,
    flags: u32,
) -> HandlerResult<Fd> {
    use syscalls::abi::fs::MemfdFlags;
    const NAME_MAX: usize = 249;
    // The size of huge pages, as the logarithm of its base 2.
    const HUGE_SIZE: u32 = 0x3f << 26;
    let mut flags = MemfdFlags::from_bits_retain(flags);
    let is_huge = flags.contains(MemfdFlags::HUGETLB);
    if is_huge {
        flags = MemfdFlags::from_bits_retain(flags.bits() & !HUGE_SIZE);
    }
    let exclusive = MemfdFlags::EXEC | MemfdFlags::NOEXEC_SEAL;
    if flags.has_unknown_bits() || flags.contains(exclusive) {
        return Err(Errno::EINVAL.into());
    }
    if is_huge {
        // As of a size of pages that there is no pool of.
        return Err(Errno::ENODEV.into());
    }
    let name = match task.read_cstr(name, NAME_MAX + 1) {
        Err(Errno::ENAMETOOLONG) => return Err(Errno::EINVAL.into()),
        result => result?,
    };
    let file = crate::fs::memfd::create(task, &name, flags)?;
    Ok(fd::install(task, file, flags.contains(MemfdFlags::CLOEXEC))?)
}
