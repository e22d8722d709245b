//! Address spaces: one host process each.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use sentry_host::clock;
use sentry_host::usage::{self, ProcessUsage, ThreadUsage};
use syscalls::{Errno, SysResult, UserAddr};

use super::sys;
use crate::{AddressSpace, USER_ADDRESS_LIMIT};

/// A host process. Its number is valid until its end has been noticed, which happens below a
/// lock, so nothing is ever done to another process that has got the same number.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Zero until the process exists.
    pid: AtomicI32,
    /// Set before the process is reaped.
    gone: RwLock<bool>,
    /// Killed, possibly before it existed.
    killed: AtomicBool,
    /// User and system time of the process when it ended.
    last_cpu_ns: Mutex<(u64, u64)>,
    /// Contexts that exist and have not ended.
    pub(super) n_live: AtomicUsize,
}

impl Space {
    pub(super) fn pid(&self) -> i32 {
        self.pid.load(Ordering::Acquire)
    }

    /// Tells that the process exists now.
    pub(super) fn set_pid(&self, pid: i32) {
        self.pid.store(pid, Ordering::SeqCst);
        if self.killed.load(Ordering::SeqCst) {
            self.kill();
        }
    }

    /// Runs `f` with the process's number, which stays its own meanwhile.
    fn with_pid<T>(&self, f: impl FnOnce(i32) -> SysResult<T>) -> SysResult<T> {
        let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
        match self.pid() {
            pid if pid > 0 && !*gone => f(pid),
            _ => Err(Errno::ESRCH),
        }
    }

    /// Runs `reap`, after which the process's number is no longer its own.
    pub(super) fn end(&self, reap: impl FnOnce()) {
        let _ = self.with_pid(|pid| {
            let last = clock::process_time_ns(pid).unwrap_or_default();
            *self.last_cpu_ns.lock().unwrap_or_else(PoisonError::into_inner) = last;
            Ok(())
        });
        let mut gone = self.gone.write().unwrap_or_else(PoisonError::into_inner);
        *gone = true;
        reap();
    }

    /// Sends a signal to one of the process's threads, whose number the caller keeps valid.
    pub(super) fn signal_thread(&self, tid: i32, signal: i32) -> SysResult<()> {
        self.with_pid(|pid| sys::tgkill(pid, tid, signal))
    }

    /// Returns what thread `tid` of this process has used.
    pub(super) fn thread_usage(&self, tid: i32) -> Option<ThreadUsage> {
        let used = self.with_pid(|pid| usage::thread(pid, tid).ok_or(Errno::ESRCH));
        used.ok().filter(|_| tid > 0)
    }

    /// Reads what lies in the process, the stub's own pages included.
    pub(super) fn read_any(&self, addr: u64, dst: &mut [u8]) -> SysResult<usize> {
        self.with_pid(|pid| sys::read_memory(pid, addr, dst))
    }

    /// Writes what lies in the process, the stub's own pages included.
    pub(super) fn write_any(&self, addr: u64, src: &[u8]) -> SysResult<usize> {
        self.with_pid(|pid| sys::write_memory(pid, addr, src))
    }
}

/// Returns how many of `len` bytes at `addr` lie in the application's part.
fn clamp(addr: UserAddr, len: usize) -> SysResult<usize> {
    let room = USER_ADDRESS_LIMIT.checked_sub(addr.0).filter(|&room| room > 0);
    let room = room.ok_or(Errno::EFAULT)?;
    Ok(usize::try_from(room).map_or(len, |room| room.min(len)))
}

impl AddressSpace for Space {
    fn read(&self, addr: UserAddr, dst: &mut [u8]) -> SysResult<usize> {
        let len = clamp(addr, dst.len())?;
        match dst.get_mut(..len) {
            Some(dst) if len > 0 => self.read_any(addr.0, dst),
            _ => Ok(0),
        }
    }

    fn write(&self, addr: UserAddr, src: &[u8]) -> SysResult<usize> {
        let len = clamp(addr, src.len())?;
        match src.get(..len) {
            Some(src) if len > 0 => self.write_any(addr.0, src),
            _ => Ok(0),
        }
    }

    fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        // A process that is gone, or does not exist yet, needs no signal.
        let _ = self.with_pid(|pid| sys::kill(pid, libc::SIGKILL));
    }

    fn host_pid(&self) -> Option<u32> {
        self.with_pid(|pid| u32::try_from(pid).map_err(|_| Errno::ESRCH)).ok()
    }

    fn usage(&self) -> ProcessUsage {
        self.with_pid(|pid| usage::process(pid).ok_or(Errno::ESRCH)).unwrap_or_default()
    }

    fn cpu_time_ns(&self) -> (u64, u64) {
        self.with_pid(|pid| clock::process_time_ns(pid).ok_or(Errno::ESRCH))
            .unwrap_or_else(|_| *self.last_cpu_ns.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
