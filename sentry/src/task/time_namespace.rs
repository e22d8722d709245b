//! Time namespaces (`time_namespaces(7)`): clocks that run with those of the host, apart from them by
//! as much as somebody has said before the first process entered.
//!
//! The vDSO tells the host's time. What its processes see instead makes the system calls: so the
//! mapping is replaced where a process gets into another namespace.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use sentry_host::clock::{self, Clock};
use sentry_platform::HostCall;
use sentry_platform::vdso::{self, VdsoEntries};
use syscalls::abi::capability::CAP_SYS_TIME;
use syscalls::abi::mm::{MapFlags, ProtFlags};
use syscalls::{Errno, SysResult};

use super::namespaces::Namespace;
use super::{Credentials, Task};
use crate::kernel::Kernel;
use crate::mm::vma::host_prot;
use crate::sync::Mutex;

/// `KTIME_SEC_MAX`: the most seconds that a clock counts.
const SECONDS_MAX: i64 = i64::MAX / NS_PER_SECOND;

const NS_PER_SECOND: i64 = 1_000_000_000;

/// A namespace of clocks.
pub(crate) type TimeNamespace = Namespace<Offsets>;

/// By how much clocks are ahead of the host's.
#[derive(Debug)]
pub(crate) struct Offsets {
    is_initial: bool,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    monotonic_ns: i64,
    boottime_ns: i64,
    /// Whether a process has entered: nothing changes any more.
    is_fixed: bool,
}

/// One line of `/proc/PID/timens_offsets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewOffset {
    pub(crate) is_boottime: bool,
    pub(crate) seconds: i64,
    pub(crate) ns: i64,
}

impl Offsets {
    /// Returns those of a container: none.
    pub(crate) fn initial() -> Self {
        let state = State { is_fixed: true, ..State::default() };
        Self { is_initial: true, state: Mutex::new(state) }
    }

    /// Returns those of a new namespace, whose maker has these.
    pub(super) fn renewed(&self) -> Self {
        let state = State { is_fixed: false, ..*self.state.lock() };
        Self { is_initial: false, state: Mutex::new(state) }
    }

    /// Returns by how many nanoseconds a clock is ahead.
    pub(crate) fn of(&self, clock: Clock) -> i64 {
        if self.is_initial {
            return 0;
        }
        match clock {
            Clock::Monotonic | Clock::MonotonicRaw | Clock::MonotonicCoarse => {
                self.state.lock().monotonic_ns
            }
            Clock::Boottime => self.state.lock().boottime_ns,
            Clock::Realtime | Clock::RealtimeCoarse | Clock::Tai => 0,
        }
    }

    /// Is told that a process enters.
    pub(super) fn fix(&self) {
        if !self.is_initial {
            self.state.lock().is_fixed = true;
        }
    }
}

impl TimeNamespace {
    /// Sets offsets: `proc_timens_set_offset`.
    ///
    /// # Errors
    /// `EPERM`; `ERANGE` for a clock that would be negative or too large; `EACCES` where a process
    /// has entered.
    pub(crate) fn set_offsets(&self, new: &[NewOffset], opener: &Credentials) -> SysResult<()> {
        if !opener.is_capable_in(&self.owner, CAP_SYS_TIME) {
            return Err(Errno::EPERM);
        }
        for offset in new {
            let clock = if offset.is_boottime { Clock::Boottime } else { Clock::Monotonic };
            if !(-SECONDS_MAX..=SECONDS_MAX).contains(&offset.seconds) {
                return Err(Errno::ERANGE);
            }
            let now = clock::now_ns(clock);
            let then = now.checked_add(offset.total_ns().ok_or(Errno::ERANGE)?);
            if !then.is_some_and(|ns| (0..=i64::MAX / 2).contains(&ns)) {
                return Err(Errno::ERANGE);
            }
        }
        let mut state = self.state.lock();
        if state.is_fixed {
            return Err(Errno::EACCES);
        }
        for offset in new {
            let ns = offset.total_ns().unwrap_or(0);
            *(if offset.is_boottime { &mut state.boottime_ns } else { &mut state.monotonic_ns }) =
                ns;
        }
        Ok(())
    }
}

impl NewOffset {
    fn total_ns(&self) -> Option<i64> {
        self.seconds.checked_mul(NS_PER_SECOND)?.checked_add(self.ns)
    }
}

/// The images of the vDSO as files that processes map: that of the platform, and one that makes
/// system calls.
#[derive(Debug, Default)]
pub(crate) struct VdsoFiles([OnceLock<Arc<OwnedFd>>; 2]);

/// Returns the image of the vDSO for processes in a namespace.
pub(crate) fn vdso(kernel: &Kernel, namespace: &TimeNamespace) -> Vec<u8> {
    if namespace.is_initial {
        kernel.platform().vdso().to_vec()
    } else {
        vdso::build(&VdsoEntries::default())
    }
}

/// Returns the host call by which a process gets the vDSO of a namespace that it enters; none where it
/// has no vDSO.
///
/// # Errors
/// `EMFILE`, `ENOMEM`.
pub(super) fn remap(task: &Task, namespace: &TimeNamespace) -> SysResult<Option<HostCall>> {
    let addr = task.mm().layout().vdso;
    if addr == 0 {
        return Ok(None);
    }
    let image = vdso(&task.kernel, namespace);
    let place = task.kernel.vdso_files.0.get(usize::from(namespace.is_initial));
    let place = place.ok_or(Errno::EINVAL)?;
    let file = match place.get() {
        Some(file) => file.clone(),
        None => {
            let file = sentry_host::memfd::create()?;
            sentry_host::file::write_at(file.as_fd(), &image, 0)?;
            let file = Arc::new(sentry_host::memfd::reopen_read_only(file.as_fd())?);
            place.get_or_init(|| file).clone()
        }
    };
    Ok(Some(HostCall::Mmap {
        addr,
        len: u64::try_from(image.len()).map_err(|_| Errno::ENOMEM)?,
        prot: host_prot(ProtFlags::READ | ProtFlags::EXEC),
        flags: i32::try_from(MapFlags::PRIVATE.bits()).unwrap_or(0),
        file: Some(file),
        offset: 0,
    }))
}
