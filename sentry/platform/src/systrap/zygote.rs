//! The zygote: the first stub, started while the sentry may still fork and exec.
//!
//! # Safety
//! Between fork and exec the child makes only raw host calls on memory prepared before.
#![expect(unsafe_code, reason = "fork, exec, pidfd_getfd")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use sentry_sysmsg::{Slot, layout};
use syscalls::{Errno, SysResult};

use super::doorbell::{Doorbell, Kind};
use super::region::{self, SlotMapping};
use super::space::Space;
use super::{DoorbellChoice, filter, last_errno, messages};

/// The image that the build script made.
pub(super) const STUB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub.elf"));

const HWCAP2_FSGSBASE: u64 = 1 << 1;
const FILTER_FLAG_NEW_LISTENER: u32 = 1 << 3;
const FILTER_FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;
/// Where descriptors wait in the child for their final numbers.
const HIGH_FD: i32 = 20;

/// A zygote that waits to be let go.
pub(super) struct Zygote {
    pub(super) space: Space,
    pub(super) pid: i32,
    pub(super) doorbell: Doorbell,
    /// Where all stubs have the host's vDSO.
    pub(super) host_vdso: u64,
}

/// Checks that processor and kernel have what the stub needs.
pub(super) fn check_host() -> SysResult<()> {
    // SAFETY: no memory is involved.
    let hwcap2 = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    let fsgsbase = hwcap2 & HWCAP2_FSGSBASE != 0;
    let xsave = std::arch::is_x86_feature_detected!("xsave");
    if fsgsbase && xsave { Ok(()) } else { Err(Errno::ENOSYS) }
}

impl Zygote {
    /// Starts the stub, which knows how to save this extended state, with a doorbell of the kind that
    /// is wanted, or of the one that the host allows.
    pub(super) fn start(wanted: DoorbellChoice, xsave: [u64; 2]) -> SysResult<Self> {
        let notify = || {
            Self::start_with(FILTER_FLAG_NEW_LISTENER | FILTER_FLAG_WAIT_KILLABLE_RECV, xsave, None)
                .or_else(|_| Self::start_with(FILTER_FLAG_NEW_LISTENER, xsave, None))
        };
        let futex = || Self::start_with(0, xsave, Some(Doorbell::futex()?));
        match wanted {
            DoorbellChoice::Auto => notify().or_else(|_| futex()),
            DoorbellChoice::Notify => notify(),
            DoorbellChoice::Futex => futex(),
        }
    }

    /// Starts the stub with these flags of its filter; where no doorbell is given, it is the listener.
    fn start_with(flags: u32, xsave: [u64; 2], doorbell: Option<Doorbell>) -> SysResult<Self> {
        let kind = doorbell.as_ref().map_or(Kind::Notify, Doorbell::kind);
        let [features, size] = xsave;
        let mut config_bytes = [features, size, super::spin::stub_ticks(), kind.number()]
            .map(u64::to_ne_bytes)
            .concat();
        config_bytes.extend(messages::configuration());
        let space = Space::new(random()?, kind)?;
        let slot = SlotMapping::new(&space.region, 0)?;
        fill_filter(&slot, kind, flags)?;
        let config = region::constant_file(c"config", layout::CONFIG_LEN, &config_bytes)?;
        // Whoever gets hold of it finds what all processes execute, and cannot change it.
        let stub = region::constant_file(c"stub", STUB.len() as u64, STUB)?;
        let far_end = space.far_end().take();
        let channels = doorbell.as_ref().and_then(Doorbell::far_end).zip(far_end.as_deref());
        let pid = spawn(&stub, &space.region, &config, channels)?;
        let filtered = wait_for_filter(&slot, pid).and_then(|listener| match doorbell {
            Some(doorbell) => Ok(doorbell),
            None => take_listener(pid, listener).map(Doorbell::notify),
        });
        let doorbell = filtered.inspect_err(|_| {
            // SAFETY: kills and reaps our own child.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
        })?;
        let host_vdso = slot.host_vdso.load(Relaxed);
        space.open_channel_of_zygote();
        Ok(Self { space, pid, doorbell, host_vdso })
    }
}

/// Lets the zygote go on to its first request.
pub(super) fn let_go(slot: &Slot) {
    slot.listener_taken.store(1, Release);
    futex_wake(&slot.listener_taken);
}

/// Returns a random number.
pub(super) fn random() -> SysResult<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the buffer is that long.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if n == 8 { Ok(u64::from_ne_bytes(bytes)) } else { Err(Errno::EIO) }
}

/// Puts the filter where the stub will look for it.
fn fill_filter(slot: &Slot, doorbell: Kind, flags: u32) -> SysResult<()> {
    let program = filter::program(doorbell);
    if program.len() > slot.data.len() {
        return Err(Errno::E2BIG);
    }
    for (place, instruction) in slot.data.iter().zip(&program) {
        place.store(instruction.to_word(), Relaxed);
    }
    slot.filter_len.store(u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?, Relaxed);
    slot.filter_flags.store(flags, Relaxed);
    Ok(())
}

/// Forks and executes the stub with its two descriptors, those of a doorbell that is made of sockets,
/// and nothing else.
fn spawn(
    stub: &OwnedFd,
    region: &OwnedFd,
    config: &OwnedFd,
    channels: Option<(BorrowedFd<'_>, &OwnedFd)>,
) -> SysResult<i32> {
    let channels = channels.map(|(ring, channel)| (ring.as_raw_fd(), channel.as_raw_fd()));
    let argv = [c"stub".as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null::<libc::c_char>()];
    // SAFETY: the child only makes host calls on the arrays above, then executes or exits.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(last_errno());
    }
    if pid > 0 {
        return Ok(pid);
    }
    // SAFETY: as above.
    unsafe {
        let high = |fd: &OwnedFd, offset: i32| {
            libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, HIGH_FD + offset)
        };
        let (stub, region, config) = (high(stub, 0), high(region, 1), high(config, 2));
        let channels = channels.map(|(ring, channel)| {
            let high = |fd, offset: i32| libc::fcntl(fd, libc::F_DUPFD, HIGH_FD + offset);
            (high(ring, 3), high(channel, 4))
        });
        libc::dup2(region, layout::ZYGOTE_REGION_FD);
        libc::dup2(config, layout::ZYGOTE_CONFIG_FD);
        let keep = 5;
        libc::dup2(stub, keep);
        libc::fcntl(keep, libc::F_SETFD, libc::FD_CLOEXEC);
        for fd in 0..layout::ZYGOTE_REGION_FD {
            libc::close(fd);
        }
        if let Some((ring, channel)) = channels {
            libc::dup2(ring, layout::RING_FD);
            libc::dup2(channel, layout::CHANNEL_FD);
        }
        libc::syscall(libc::SYS_close_range, keep + 1, u32::MAX, 0);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        let few = libc::rlimit { rlim_cur: layout::MAX_FDS, rlim_max: layout::MAX_FDS };
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few);
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut mask);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(
            libc::SYS_execveat,
            keep,
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
        libc::_exit(117)
    }
}

/// Waits for the zygote to install its filter; returns the number of its listener, if it has one.
fn wait_for_filter(slot: &Slot, pid: i32) -> SysResult<u32> {
    loop {
        match slot.listener.load(Acquire) {
            0 => {}
            u32::MAX => return Err(Errno::ENOSYS),
            number => return Ok(number - 1),
        }
        let wait = libc::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        // SAFETY: the word lives in the mapping; the time-out is a local.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                slot.listener.as_ptr(),
                libc::FUTEX_WAIT,
                0,
                &raw const wait,
            );
        }
        let mut status = 0;
        // SAFETY: the status is a local.
        if unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } == pid {
            return Err(Errno::ENOSYS);
        }
    }
}

/// Takes the listener `number` out of the zygote.
fn take_listener(pid: i32, number: u32) -> SysResult<OwnedFd> {
    // SAFETY: passes numbers.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let pidfd = i32::try_from(pidfd).ok().filter(|fd| *fd >= 0).ok_or_else(last_errno)?;
    // SAFETY: the descriptor is fresh.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // SAFETY: passes numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(last_errno)?;
    // SAFETY: the descriptor is fresh.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn futex_wake(word: &std::sync::atomic::AtomicU32) {
    // SAFETY: the word lives in a mapping.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}
