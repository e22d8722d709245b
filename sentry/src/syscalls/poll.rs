//! `poll(2)` and `select(2)`.

use std::sync::Arc;

use syscalls::abi::poll::{PollEvents, Pollfd};
use syscalls::abi::resource::RLIMIT_NOFILE;
use syscalls::abi::signal::{SigSet, SigsetArgpack};
use syscalls::abi::time::{Timespec, Timeval};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::IntoBytes;

use crate::sync::{Events, Registration, Waiter};
use crate::task::block::Wait;
use crate::task::{Control, CurrentTask, HandlerResult, Restart};
use crate::vfs::OpenFile;
use crate::vfs::fd_table::MAX_NR_OPEN;

/// What counts as readable, writable and exceptional for `select(2)`: `POLLIN_SET` and so on.
const SELECT_EVENTS: [Events; 3] = [
    Events::READABLE.union(Events::RDBAND).union(Events::HUP).union(Events::ERR),
    Events::WRITABLE.union(Events::WRBAND).union(Events::ERR),
    Events::PRI,
];

/// One descriptor that is waited for.
struct Polled {
    /// `None`: nothing to wait for (a negative descriptor) or not open.
    file: Option<Arc<OpenFile>>,
    events: Events,
    /// What is reported without asking: `POLLNVAL` for a descriptor that is not open.
    revents: u16,
}

/// Implements `poll(2)`.
///
/// <https://man7.org/linux/man-pages/man2/poll.2.html>
pub(super) fn sys_poll(
    task: &CurrentTask,
    fds: UserPtr<Pollfd>,
    nfds: u32,
    timeout: i32,
) -> HandlerResult<usize> {
    let deadline_ns = deadline_after_ms(task, timeout);
    do_poll(task, fds, nfds, deadline_ns, Restart::RestartBlock)
}

/// Implements `ppoll(2)`.
pub(super) fn sys_ppoll(
    task: &CurrentTask,
    fds: UserPtr<Pollfd>,
    nfds: u32,
    tmo_p: UserPtr<Timespec>,
    sigmask: UserPtr<SigSet>,
    sigsetsize: usize,
) -> HandlerResult<usize> {
    let deadline_ns = read_deadline(task, tmo_p)?;
    set_mask(task, sigmask, sigsetsize)?;
    let result = do_poll(task, fds, nfds, deadline_ns, Restart::NoHand);
    write_back(task, result, tmo_p.addr(), |left| task.write_obj(tmo_p, &Timespec::from_ns(left)))
}

/// Implements `select(2)`.
///
/// <https://man7.org/linux/man-pages/man2/select.2.html>
pub(super) fn sys_select(
    task: &CurrentTask,
    nfds: i32,
    readfds: UserAddr,
    writefds: UserAddr,
    exceptfds: UserAddr,
    timeout: UserPtr<Timeval>,
) -> HandlerResult<usize> {
    let deadline_ns = if timeout.is_null() {
        None
    } else {
        let time = task.read_obj(timeout)?;
        // Microseconds may exceed a second.
        let ns = time
            .tv_usec
            .checked_mul(1000)
            .and_then(|ns| time.tv_sec.checked_mul(1_000_000_000)?.checked_add(ns))
            .unwrap_or(i64::MAX);
        if time.tv_sec < 0 || time.tv_usec < 0 {
            return Err(Errno::EINVAL.into());
        }
        Some(after(task, ns))
    };
    let result = do_select(task, nfds, [readfds, writefds, exceptfds], deadline_ns);
    write_back(task, result, timeout.addr(), |left| {
        task.write_obj(timeout, &Timeval::from_ns(left))
    })
}

/// Implements `pselect6(2)`.
pub(super) fn sys_pselect6(
    task: &CurrentTask,
    nfds: i32,
    readfds: UserAddr,
    writefds: UserAddr,
    exceptfds: UserAddr,
    timeout: UserPtr<Timespec>,
    sigmask: UserPtr<SigsetArgpack>,
) -> HandlerResult<usize> {
    let pack = if sigmask.is_null() { None } else { Some(task.read_obj(sigmask)?) };
    let deadline_ns = read_deadline(task, timeout)?;
    if let Some(pack) = pack {
        let size = usize::try_from(pack.size).unwrap_or(usize::MAX);
        set_mask(task, UserPtr::new(UserAddr(pack.set)), size)?;
    }
    let result = do_select(task, nfds, [readfds, writefds, exceptfds], deadline_ns);
    write_back(task, result, timeout.addr(), |left| {
        task.write_obj(timeout, &Timespec::from_ns(left))
    })
}

/// Returns the deadline that lies `ms` milliseconds ahead; none for a negative number.
pub(super) fn deadline_after_ms(task: &CurrentTask, ms: i32) -> Option<u64> {
    (ms >= 0).then(|| after(task, i64::from(ms) * 1_000_000))
}

/// Reads a relative timeout and returns the deadline.
///
/// # Errors
/// `EFAULT`, `EINVAL`.
pub(super) fn read_deadline(
    task: &CurrentTask,
    timeout: UserPtr<Timespec>,
) -> SysResult<Option<u64>> {
    if timeout.is_null() {
        return Ok(None);
    }
    let timeout = task.read_obj(timeout)?;
    if !timeout.is_valid() {
        return Err(Errno::EINVAL);
    }
    Ok(Some(after(task, timeout.to_ns())))
}

fn after(task: &CurrentTask, ns: i64) -> u64 {
    // A poll that does not wait has no use for the time.
    if ns == 0 {
        return 0;
    }
    task.kernel.clock.monotonic_ns().saturating_add(u64::try_from(ns).unwrap_or(0))
}

/// Sets the mask that counts during the call, where there is one.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub(super) fn set_mask(task: &CurrentTask, mask: UserPtr<SigSet>, size: usize) -> SysResult<()> {
    if mask.is_null() {
        return Ok(());
    }
    if size != size_of::<SigSet>() {
        return Err(Errno::EINVAL);
    }
    let mask = task.read_obj(mask)?;
    task.set_temporary_mask(mask);
    Ok(())
}

/// `STICKY_TIMEOUTS` of `personality(2)`: timeouts are only read.
const STICKY_TIMEOUTS: u32 = 0x400_0000;

/// Stores the remaining time at the end of a call. Where that fails the result counts all the same,
/// but the call is not restarted: it would wait for too long.
fn write_back(
    task: &CurrentTask,
    result: HandlerResult<usize>,
    timeout: UserAddr,
    write: impl FnOnce(i64) -> SysResult<()>,
) -> HandlerResult<usize> {
    let keeps_timeout = task.misc.lock().personality & STICKY_TIMEOUTS != 0;
    if matches!(result, Err(Control::Block)) || timeout.is_null() || keeps_timeout {
        return result;
    }
    let Some(deadline_ns) = task.block_deadline_ns() else {
        // The call came to its end before it had waited at all: the time that was given is left,
        // or nearly so.
        return result;
    };
    let left = deadline_ns.saturating_sub(task.kernel.clock.monotonic_ns());
    match (write(i64::try_from(left).unwrap_or(i64::MAX)), result) {
        (Err(_), Err(Control::Restart(_))) => Err(Errno::EINTR.into()),
        (_, result) => result,
    }
}

fn do_poll(
    task: &CurrentTask,
    fds: UserPtr<Pollfd>,
    nfds: u32,
    deadline_ns: Option<u64>,
    restart: Restart,
) -> HandlerResult<usize> {
    let limit = task.group.limits.lock().soft(RLIMIT_NOFILE);
    if u64::from(nfds) > limit.min(MAX_NR_OPEN as u64) {
        return Err(Errno::EINVAL.into());
    }
    let n = usize::try_from(nfds).map_err(|_| Errno::EINVAL)?;
    let mut entries = task.read_array(fds, n)?;
    let files = task.files();
    let mut polled: Vec<_> = entries
        .iter()
        .map(|entry| {
            if entry.fd < 0 {
                return Polled { file: None, events: Events::empty(), revents: 0 };
            }
            match files.get(entry.fd) {
                Ok(file) => {
                    let events = Events::from_bits_truncate(entry.events.into());
                    Polled { file: Some(file), events, revents: 0 }
                }
                Err(_) => {
                    let revents = PollEvents::NVAL.bits();
                    Polled { file: None, events: Events::empty(), revents }
                }
            }
        })
        .collect();
    drop(files);
    let is_any_ready = |_: &[Polled], n_ready| (n_ready > 0).then_some(n_ready);
    let n_ready = wait(task, &mut polled, deadline_ns, restart, is_any_ready)?.unwrap_or(0);
    for (entry, polled) in entries.iter_mut().zip(&polled) {
        entry.revents = polled.revents;
    }
    task.write_bytes(fds.addr(), entries.as_bytes())?;
    Ok(n_ready)
}

/// Polls the files until `look` finds something in the result. Returns `None` where the deadline
/// passes first.
fn wait<T>(
    task: &CurrentTask,
    polled: &mut [Polled],
    deadline_ns: Option<u64>,
    restart: Restart,
    look: impl Fn(&[Polled], usize) -> Option<T>,
) -> HandlerResult<Option<T>> {
    let files: Vec<_> = polled.iter().map(|polled| (polled.file.clone(), polled.events)).collect();
    let register = |waiter: &Arc<dyn Waiter>| -> Vec<Registration> {
        let one = |(file, events): &(Option<Arc<OpenFile>>, Events)| {
            file.as_ref().map(|file| file.file.register(waiter, *events, 0)).unwrap_or_default()
        };
        files.iter().flat_map(one).collect()
    };
    let attempt = || {
        let n_ready = poll_once(polled);
        Ok(look(polled, n_ready))
    };
    match task.wait_for(deadline_ns, restart, register, attempt)? {
        Wait::Ready(found) => Ok(Some(found)),
        Wait::TimedOut => Ok(None),
    }
}

fn poll_once(polled: &mut [Polled]) -> usize {
    let mut n_ready = 0;
    for polled in polled {
        if let Some(file) = &polled.file {
            let wanted = polled.events | Events::ERR | Events::HUP;
            let ready = file.file.poll() & wanted;
            polled.revents = u16::try_from(ready.bits()).unwrap_or(0);
        }
        if polled.revents != 0 {
            n_ready += 1;
        }
    }
    n_ready
}

/// A set of descriptors as `select(2)` takes it.
struct FdSet(Vec<u64>);

impl FdSet {
    fn read(task: &CurrentTask, addr: UserAddr, n_words: usize) -> SysResult<Self> {
        if addr.is_null() {
            return Ok(Self(vec![0; n_words]));
        }
        Ok(Self(task.read_array(UserPtr::new(addr), n_words)?))
    }

    fn write(&self, task: &CurrentTask, addr: UserAddr) -> SysResult<()> {
        if addr.is_null() { Ok(()) } else { task.write_bytes(addr, self.0.as_bytes()) }
    }

    fn contains(&self, fd: usize) -> bool {
        self.0.get(fd / 64).is_some_and(|word| word >> (fd % 64) & 1 != 0)
    }

    fn insert(&mut self, fd: usize) {
        if let Some(word) = self.0.get_mut(fd / 64) {
            *word |= 1 << (fd % 64);
        }
    }
}

fn do_select(
    task: &CurrentTask,
    nfds: i32,
    addrs: [UserAddr; 3],
    deadline_ns: Option<u64>,
) -> HandlerResult<usize> {
    let n = usize::try_from(nfds).map_err(|_| Errno::EINVAL)?.min(MAX_NR_OPEN);
    let n_words = n.div_ceil(64);
    let mut sets = Vec::with_capacity(3);
    for addr in addrs {
        sets.push(FdSet::read(task, addr, n_words)?);
    }
    let files = task.files();
    let mut fds = Vec::new();
    let mut polled = Vec::new();
    for fd in 0..n {
        let mut events = Events::empty();
        for (set, wanted) in sets.iter().zip(SELECT_EVENTS) {
            if set.contains(fd) {
                events |= wanted;
            }
        }
        if events.is_empty() {
            continue;
        }
        let file = files.get(i32::try_from(fd).map_err(|_| Errno::EBADF)?)?;
        fds.push(fd);
        polled.push(Polled { file: Some(file), events, revents: 0 });
    }
    drop(files);
    // A hang-up makes a file ready that was asked for exceptions only, and is not reported then: the
    // number of ready files says nothing.
    let look = |polled: &[Polled], _| Some(ready_sets(&fds, polled, &sets)).filter(|(n, _)| *n > 0);
    let found = wait(task, &mut polled, deadline_ns, Restart::NoHand, look)?;
    let (n_ready, ready) = match found {
        Some(found) => found,
        None => (0, sets.iter().map(|set| FdSet(vec![0; set.0.len()])).collect()),
    };
    for (addr, set) in addrs.iter().zip(&ready) {
        set.write(task, *addr)?;
    }
    Ok(n_ready)
}

/// Returns which members of each set are ready.
fn ready_sets(fds: &[usize], polled: &[Polled], sets: &[FdSet]) -> (usize, Vec<FdSet>) {
    let mut n_ready = 0;
    let mut result = Vec::with_capacity(sets.len());
    for (set, wanted) in sets.iter().zip(SELECT_EVENTS) {
        let mut ready = FdSet(vec![0; set.0.len()]);
        for (fd, polled) in fds.iter().zip(polled) {
            let events = Events::from_bits_truncate(polled.revents.into());
            if set.contains(*fd) && events.intersects(wanted) {
                ready.insert(*fd);
                n_ready += 1;
            }
        }
        result.push(ready);
    }
    (n_ready, result)
}
