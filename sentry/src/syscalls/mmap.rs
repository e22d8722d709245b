//! Memory: mapping, protection, advice, locking.

use std::sync::Arc;

use sentry_platform::HostCall;
use syscalls::abi::mm::{
    MapFlags, Mlock2Flags, MlockallFlags, MremapFlags, MsyncFlags, PAGE_SIZE, ProtFlags,
};
use syscalls::abi::prctl::MembarrierCmd;
use syscalls::{Errno, Fd, SysResult, UserAddr};

use crate::mm::MemoryManager;
use crate::mm::map_file::MmapArgs;
use crate::mm::ops::Conflicts;
use crate::mm::space::advise::check_advice;
use crate::mm::space::remap::RemapRequest;
use crate::mm::space::{checked_range, n_pages};
use crate::mm::vma::{AddrRange, VmaFlags, page_down, page_up};
use crate::task::{Control, CurrentTask, HandlerResult};
use crate::vfs::OpenFile;

/// Implements `mmap(2)`.
pub(super) fn sys_mmap(
    task: &CurrentTask,
    addr: UserAddr,
    len: u64,
    prot: ProtFlags,
    flags: MapFlags,
    fd: Fd,
    offset: u64,
) -> HandlerResult<u64> {
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    let file =
        if flags.contains(MapFlags::ANONYMOUS) { None } else { Some(mapped_file(task, fd)?) };
    let limits = task.memory_limits();
    let args = MmapArgs { addr: addr.0, len, prot, flags, file, offset };
    let request = args.into_request(limits.may_lock || limits.memlock > 0)?;
    let fixed = request.fixed_range();
    let conflicts = match &fixed {
        Some(range) => Conflicts::Ranges(std::slice::from_ref(range)),
        None => Conflicts::Whole,
    };
    task.mm()
        .operate(task, &conflicts, |space, avoid, plan| space.map(&request, &limits, avoid, plan))
}

/// Implements `munmap(2)`.
pub(super) fn sys_munmap(task: &CurrentTask, addr: UserAddr, len: u64) -> HandlerResult<()> {
    let range = checked_range(addr.0, len, Errno::EINVAL)?;
    if range.is_empty() {
        return Err(Errno::EINVAL.into());
    }
    on_range(task, &range, |mm, conflicts| {
        mm.operate(task, conflicts, |space, _, plan| space.unmap(&range, plan))
    })
}

/// Implements `mprotect(2)`.
pub(super) fn sys_mprotect(
    task: &CurrentTask,
    addr: UserAddr,
    len: u64,
    prot: ProtFlags,
) -> HandlerResult<()> {
    let grows = ProtFlags::GROWSDOWN | ProtFlags::GROWSUP;
    if prot.contains(grows) {
        return Err(Errno::EINVAL.into());
    }
    if !addr.0.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(());
    }
    let mut range = checked_range(addr.0, len, Errno::ENOMEM)?;
    if prot.difference(grows).has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    if prot.contains(ProtFlags::GROWSDOWN) {
        range.start = task.mm().inspect(|space| space.growsdown_start(range.start))?;
    } else if prot.contains(ProtFlags::GROWSUP) {
        return Err(Errno::EINVAL.into());
    }
    let prot = prot & crate::mm::vma::PROT_RWX;
    let limits = task.memory_limits();
    on_range(task, &range, |mm, conflicts| {
        mm.operate(task, conflicts, |space, _, plan| space.protect(&range, prot, &limits, plan))
    })
}

/// Implements `pkey_mprotect(2)` on a machine without protection keys: only key -1 exists.
pub(super) fn sys_pkey_mprotect(
    task: &CurrentTask,
    addr: UserAddr,
    len: u64,
    prot: ProtFlags,
    pkey: i32,
) -> HandlerResult<()> {
    if pkey != -1 {
        return Err(Errno::EINVAL.into());
    }
    sys_mprotect(task, addr, len, prot)
}

/// Implements `pkey_alloc(2)` on a machine without protection keys.
pub(super) fn sys_pkey_alloc(_task: &CurrentTask, flags: u64, rights: u64) -> HandlerResult<()> {
    /// `PKEY_DISABLE_ACCESS | PKEY_DISABLE_WRITE`
    const RIGHTS: u64 = 3;
    let is_wrong = flags != 0 || rights & !RIGHTS != 0;
    Err(if is_wrong { Errno::EINVAL } else { Errno::ENOSPC }.into())
}

/// Implements `pkey_free(2)` on a machine without protection keys.
pub(super) fn sys_pkey_free(_task: &CurrentTask) -> HandlerResult<()> {
    Err(Errno::EINVAL.into())
}

/// Implements `mremap(2)`.
pub(super) fn sys_mremap(
    task: &CurrentTask,
    addr: UserAddr,
    old_len: u64,
    new_len: u64,
    flags: MremapFlags,
    new_addr: UserAddr,
) -> HandlerResult<u64> {
    let moves = flags.contains(MremapFlags::MAYMOVE);
    let dontunmap = flags.contains(MremapFlags::DONTUNMAP);
    if flags.has_unknown_bits()
        || (flags.contains(MremapFlags::FIXED) && !moves)
        || (dontunmap && (!moves || old_len != new_len))
        || !addr.0.is_multiple_of(PAGE_SIZE)
    {
        return Err(Errno::EINVAL.into());
    }
    let old_len = page_up(old_len).ok_or(Errno::EINVAL)?;
    let new_len = page_up(new_len).ok_or(Errno::EINVAL)?;
    if new_len == 0 {
        return Err(Errno::EINVAL.into());
    }
    let request = RemapRequest { addr: addr.0, old_len, new_len, flags, new_addr: new_addr.0 };
    let limits = task.memory_limits();
    let ranges = request.ranges();
    task.mm().operate(task, &Conflicts::Ranges(&ranges), |space, avoid, plan| {
        space.remap(&request, &limits, avoid, plan)
    })
}

/// Implements `brk(2)`.
pub(super) fn sys_brk(task: &CurrentTask, brk: UserAddr) -> HandlerResult<u64> {
    let limits = task.memory_limits();
    let mm = task.mm();
    let range = mm.inspect(|space| space.brk_range(brk.0));
    mm.operate(task, &Conflicts::Ranges(&[range]), |space, avoid, plan| {
        Ok(space.set_brk(brk.0, &limits, avoid, plan))
    })
}

/// Implements `madvise(2)`.
pub(super) fn sys_madvise(
    task: &CurrentTask,
    addr: UserAddr,
    len: u64,
    advice: i32,
) -> HandlerResult<()> {
    check_advice(advice)?;
    let range = checked_madvise_range(addr, len)?;
    if range.is_empty() {
        return Ok(());
    }
    on_range(task, &range, |mm, conflicts| {
        mm.operate(task, conflicts, |space, _, plan| space.advise(&range, advice, plan))
    })
}

/// Implements `msync(2)`.
pub(super) fn sys_msync(
    task: &CurrentTask,
    addr: UserAddr,
    len: u64,
    flags: MsyncFlags,
) -> HandlerResult<()> {
    if flags.has_unknown_bits()
        || flags.contains(MsyncFlags::ASYNC | MsyncFlags::SYNC)
        || !addr.0.is_multiple_of(PAGE_SIZE)
    {
        return Err(Errno::EINVAL.into());
    }
    let len = page_up(len).ok_or(Errno::ENOMEM)?;
    let end = addr.0.checked_add(len).ok_or(Errno::ENOMEM)?;
    let range = addr.0..end;
    if range.is_empty() {
        return Ok(());
    }
    on_range(task, &range, |mm, conflicts| {
        mm.operate(task, conflicts, |space, _, plan| space.sync(&range, flags, plan))
    })
}

/// Implements `mincore(2)`.
pub(super) fn sys_mincore(
    task: &CurrentTask,
    addr: UserAddr,
    len: u64,
    vec: UserAddr,
) -> HandlerResult<()> {
    let state = match task.recall::<Mincore>() {
        Some(mut state) => {
            let results = task.context().host_call_results();
            if let Some(Err(errno)) = results.values.iter().find(|value| value.is_err()) {
                return Err((*errno).into());
            }
            state.take_host_answer(&results.data);
            state
        }
        None => {
            let range = checked_range(addr.0, len, Errno::ENOMEM)?;
            Mincore { range: range.clone(), at: range.start, asked: 0, pages: Vec::new() }
        }
    };
    mincore_chunks(task, state, vec)
}

/// How far a `mincore` has come.
struct Mincore {
    range: AddrRange,
    at: u64,
    /// How many pages the host has been asked about.
    asked: u64,
    /// One byte for each page of the present chunk.
    pages: Vec<u8>,
}

/// The most pages that the host is asked about at once.
const MINCORE_CHUNK: u64 = 4096;

impl Mincore {
    fn take_host_answer(&mut self, data: &[u8]) {
        let n = usize::try_from(self.asked).unwrap_or(0);
        self.pages = data.iter().map(|page| page & 1).chain(std::iter::repeat(0)).take(n).collect();
    }
}

/// Answers page by page, asking the host where private memory is concerned. Files count as
/// present: what the host has cached of them is none of the application's business.
fn mincore_chunks(task: &CurrentTask, mut state: Mincore, vec: UserAddr) -> HandlerResult<()> {
    let mm = task.mm();
    loop {
        if !state.pages.is_empty() {
            let done = state.at.saturating_sub(state.range.start) / PAGE_SIZE;
            let dst = vec.checked_add(done).ok_or(Errno::EFAULT)?;
            task.write_bytes(dst, &state.pages)?;
            state.at += state.pages.len() as u64 * PAGE_SIZE;
            state.pages.clear();
        }
        if state.at >= state.range.end {
            return Ok(());
        }
        let (part, is_private) = mm
            .inspect(|space| space.residency_part(&(state.at..state.range.end)))
            .ok_or(Errno::ENOMEM)?;
        let n = n_pages(&part).min(MINCORE_CHUNK);
        if is_private {
            let call = HostCall::Mincore { addr: state.at, len: n * PAGE_SIZE };
            task.queue_host_call(call);
            state.asked = n;
            task.remember(state);
            return Err(Control::HostCalls);
        }
        state.pages = vec![1; usize::try_from(n).unwrap_or(0)];
    }
}

/// Implements `remap_file_pages(2)` as Linux does: by mapping anew. Shared memory without a file
/// is refused.
///
/// <https://man7.org/linux/man-pages/man2/remap_file_pages.2.html>
pub(super) fn sys_remap_file_pages(
    task: &CurrentTask,
    addr: UserAddr,
    size: u64,
    prot: u64,
    pgoff: u64,
    _flags: u64,
) -> HandlerResult<()> {
    let start = page_down(addr.0);
    let len = page_down(size);
    let end = start.checked_add(len).filter(|end| *end > start).ok_or(Errno::EINVAL)?;
    pgoff.checked_add(len / PAGE_SIZE).ok_or(Errno::EINVAL)?;
    let offset = pgoff.checked_mul(PAGE_SIZE).ok_or(Errno::EOVERFLOW)?;
    if prot != 0 {
        return Err(Errno::EINVAL.into());
    }
    let found = task.mm().inspect(|space| space.shared_file(&(start..end)));
    let (file, prot, is_locked) = found.ok_or(Errno::EINVAL)?;
    let mut flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::POPULATE;
    flags.set(MapFlags::LOCKED, is_locked);
    let limits = task.memory_limits();
    let args = MmapArgs { addr: start, len, prot, flags, file: Some(file), offset };
    let request = args.into_request(true)?;
    on_range(task, &(start..end), |mm, conflicts| {
        mm.operate(task, conflicts, |space, avoid, plan| space.map(&request, &limits, avoid, plan))
    })?;
    Ok(())
}

/// Implements `mseal(2)`.
///
/// <https://docs.kernel.org/userspace-api/mseal.html>
pub(super) fn sys_mseal(
    task: &CurrentTask,
    addr: UserAddr,
    len: u64,
    flags: u64,
) -> HandlerResult<()> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let range = checked_madvise_range(addr, len)?;
    if range.is_empty() {
        return Ok(());
    }
    on_range(task, &range, |mm, conflicts| {
        mm.operate(task, conflicts, |space, _, _| space.seal(&range))
    })
}

/// Implements `mlock(2)`.
pub(super) fn sys_mlock(task: &CurrentTask, addr: UserAddr, len: u64) -> HandlerResult<()> {
    do_mlock(task, addr, len, VmaFlags::LOCKED)
}

/// Implements `mlock2(2)`.
pub(super) fn sys_mlock2(
    task: &CurrentTask,
    addr: UserAddr,
    len: u64,
    flags: Mlock2Flags,
) -> HandlerResult<()> {
    if flags.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    let mut lock = VmaFlags::LOCKED;
    lock.set(VmaFlags::LOCKED_ON_FAULT, flags.contains(Mlock2Flags::ONFAULT));
    do_mlock(task, addr, len, lock)
}

fn do_mlock(task: &CurrentTask, addr: UserAddr, len: u64, flags: VmaFlags) -> HandlerResult<()> {
    let limits = task.memory_limits();
    if !limits.may_lock && limits.memlock == 0 {
        return Err(Errno::EPERM.into());
    }
    let range = lock_range(addr, len)?;
    on_range(task, &range, |mm, conflicts| {
        mm.operate(task, conflicts, |space, _, plan| space.lock(&range, flags, &limits, plan))
    })
}

/// Implements `munlock(2)`.
pub(super) fn sys_munlock(task: &CurrentTask, addr: UserAddr, len: u64) -> HandlerResult<()> {
    let range = lock_range(addr, len)?;
    task.mm().operate(task, &Conflicts::Whole, |space, _, _| space.unlock(&range))
}

/// Implements `mlockall(2)`.
pub(super) fn sys_mlockall(task: &CurrentTask, flags: MlockallFlags) -> HandlerResult<()> {
    if flags.is_empty() || flags.has_unknown_bits() || flags == MlockallFlags::ONFAULT {
        return Err(Errno::EINVAL.into());
    }
    let limits = task.memory_limits();
    if !limits.may_lock && limits.memlock == 0 {
        return Err(Errno::EPERM.into());
    }
    let mut lock = VmaFlags::LOCKED;
    lock.set(VmaFlags::LOCKED_ON_FAULT, flags.contains(MlockallFlags::ONFAULT));
    task.mm().operate(task, &Conflicts::Everything, |space, _, plan| {
        if flags.contains(MlockallFlags::CURRENT) {
            space.lock_all(lock, &limits, plan)?;
        }
        space.future_flags =
            if flags.contains(MlockallFlags::FUTURE) { lock } else { VmaFlags::empty() };
        Ok(())
    })
}

/// Implements `munlockall(2)`.
pub(super) fn sys_munlockall(task: &CurrentTask) -> HandlerResult<()> {
    task.mm().operate(task, &Conflicts::Whole, |space, _, _| {
        space.future_flags = VmaFlags::empty();
        space.unlock_all();
        Ok(())
    })
}

/// The commands of `membarrier(2)` that are served.
const MEMBARRIER_COMMANDS: MembarrierCmd = MembarrierCmd::GLOBAL
    .union(MembarrierCmd::PRIVATE_EXPEDITED)
    .union(MembarrierCmd::REGISTER_PRIVATE_EXPEDITED)
    .union(MembarrierCmd::PRIVATE_EXPEDITED_SYNC_CORE)
    .union(MembarrierCmd::REGISTER_PRIVATE_EXPEDITED_SYNC_CORE);

/// The private commands, and the registrations without which they are refused.
const MEMBARRIER_REGISTRATIONS: [(MembarrierCmd, MembarrierCmd); 2] = [
    (MembarrierCmd::PRIVATE_EXPEDITED, MembarrierCmd::REGISTER_PRIVATE_EXPEDITED),
    (
        MembarrierCmd::PRIVATE_EXPEDITED_SYNC_CORE,
        MembarrierCmd::REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
    ),
];

/// Marks a `membarrier` whose host call is under way.
struct MembarrierCalled;

/// Implements `membarrier(2)`.
pub(super) fn sys_membarrier(task: &CurrentTask, command: u32, flags: u32) -> HandlerResult<u64> {
    if task.recall::<MembarrierCalled>().is_some() {
        let results = task.context().host_call_results();
        return Ok(results.values.last().copied().unwrap_or(Err(Errno::EINVAL))?);
    }
    let wanted = MembarrierCmd::from_bits_retain(command);
    let known = MEMBARRIER_COMMANDS.contains(wanted);
    if flags != 0 || !known || command.count_ones() > 1 {
        return Err(Errno::EINVAL.into());
    }
    if command == 0 {
        return Ok(MEMBARRIER_COMMANDS.bits().into());
    }
    if command == MembarrierCmd::GLOBAL.bits() {
        sentry_host::membarrier::global()?;
        return Ok(0);
    }
    for (barrier, registration) in MEMBARRIER_REGISTRATIONS {
        if wanted == registration {
            task.mm().register_barriers(registration);
        } else if wanted == barrier && !task.mm().has_barriers(registration) {
            return Err(Errno::EPERM.into());
        }
    }
    task.queue_host_call(HostCall::Membarrier { command });
    task.remember(MembarrierCalled);
    Err(Control::HostCalls)
}

/// Returns the file behind a descriptor that is to be mapped.
fn mapped_file(task: &CurrentTask, fd: Fd) -> SysResult<Arc<OpenFile>> {
    task.file(fd.0)
}

/// Runs an operation that names one range.
pub(super) fn on_range<T>(
    task: &CurrentTask,
    range: &AddrRange,
    operate: impl FnOnce(&Arc<MemoryManager>, &Conflicts<'_>) -> HandlerResult<T>,
) -> HandlerResult<T> {
    operate(&task.mm(), &Conflicts::Ranges(std::slice::from_ref(range)))
}

/// Checks a range as `madvise(2)` takes it.
pub(super) fn checked_madvise_range(addr: UserAddr, len: u64) -> SysResult<AddrRange> {
    if !addr.0.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let len = page_up(len).ok_or(Errno::EINVAL)?;
    Ok(addr.0..addr.0.checked_add(len).ok_or(Errno::EINVAL)?)
}

/// Rounds a range outwards to pages, as `mlock(2)` takes it.
fn lock_range(addr: UserAddr, len: u64) -> SysResult<AddrRange> {
    let start = page_down(addr.0);
    let len =
        page_up(len.checked_add(addr.0 - start).ok_or(Errno::EINVAL)?).ok_or(Errno::EINVAL)?;
    Ok(start..start.checked_add(len).ok_or(Errno::EINVAL)?)
}
