//! A guest address space: one host process with its slots.
//!
//! # Safety
//! Host calls that take another process's addresses get local buffers of the length they are told.
#![expect(unsafe_code, reason = "process_vm_readv and signals")]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};

use sentry_host::usage::{self, ProcessUsage, ThreadUsage};
use sentry_host::window::Part;
use sentry_host::{Rule, clock};
use sentry_sysmsg::{Process, layout, process};
use syscalls::{Errno, SysResult, UserAddr};

use super::context::SystrapContext;
use super::doorbell::{self, Channel};
use super::fds::FdCache;
use super::patch::{QuietCall, Sites};
use super::region::{self, Mapping};
use super::spin::{self, Rate};
use super::streams::LentStreams;
use super::{last_errno, lock};
use crate::{AddressSpace, Streams, USER_ADDRESS_LIMIT};

/// The host calls of this module.
pub(super) const RULES: &[Rule] = &[
    Rule::any(libc::SYS_process_vm_readv),
    Rule::any(libc::SYS_process_vm_writev),
    Rule::any(libc::SYS_kill),
    Rule::any(libc::SYS_tgkill),
];

/// The number under which a newborn process finds its slots.
pub(super) const REGION_FD: i32 = 2;

/// What is at one thread index.
#[derive(Debug)]
enum Place {
    Free,
    Used(Arc<SystrapContext>),
    /// Ended as far as the sentry is concerned, but its host thread may still use slot and stack
    /// until the host says otherwise. A process's first thread is never replaced.
    Left(Arc<SystrapContext>),
}

impl Place {
    fn is_free(&self) -> bool {
        match self {
            Self::Free => true,
            Self::Used(_) => false,
            Self::Left(context) => context.slot().in_use.load(Ordering::Acquire) == 0,
        }
    }
}

/// A guest address space.
#[derive(Debug)]
pub(super) struct Space {
    /// What its threads say when they ring; also the key in the platform's table.
    pub(super) token: u64,
    /// The file of its slots.
    pub(super) region: Arc<OwnedFd>,
    /// The host process, zero before the birth. Fixed afterwards.
    pid: AtomicI32,
    /// Whether the process exists; held for reading while its pid is used.
    alive: RwLock<bool>,
    threads: Mutex<Vec<Place>>,
    /// Whether there has been more than one place for a thread; changes under the lock of `threads`.
    was_threaded: AtomicBool,
    /// Whether the process shall die as soon as it is born.
    killed: AtomicBool,
    /// How many indices have a mapped stack.
    stacks: AtomicU32,
    /// User and system time of the process when it ended.
    last_cpu_ns: Mutex<(u64, u64)>,
    /// For how many ticks its threads have watched for answers.
    spun: AtomicU64,
    rate: Rate,
    sites: Mutex<Sites>,
    fds: Arc<Mutex<FdCache>>,
    /// What the process shares besides slots, once that is needed.
    shared: OnceLock<Mapping<Process>>,
    /// The streams that are lent to the process, once there was one.
    streams: OnceLock<Arc<LentStreams>>,
    /// Until the birth: the channel, where there are channels, and until its parent has it, the
    /// process's end.
    channel: Mutex<Option<Channel>>,
    far_end: Mutex<Option<Arc<OwnedFd>>>,
    /// What is to be written to the process's memory as soon as it is born; `None` from then on.
    at_birth: Mutex<Option<Vec<(UserAddr, Vec<u8>)>>>,
}

impl Space {
    /// Creates the sentry's side of an address space.
    pub(super) fn new(token: u64, doorbell: doorbell::Kind) -> SysResult<Self> {
        let (channel, far_end) = doorbell.channel()?.unzip();
        Ok(Self {
            token,
            region: Arc::new(region::memory_file(c"slots", layout::REGION_LEN)?),
            pid: AtomicI32::new(0),
            alive: RwLock::new(true),
            threads: Mutex::new(Vec::new()),
            was_threaded: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            stacks: AtomicU32::new(1),
            last_cpu_ns: Mutex::new((0, 0)),
            spun: AtomicU64::new(0),
            rate: Rate::new(),
            sites: Mutex::new(Sites::default()),
            fds: Arc::default(),
            shared: OnceLock::new(),
            streams: OnceLock::new(),
            channel: Mutex::new(channel),
            far_end: Mutex::new(far_end.map(Arc::new)),
            at_birth: Mutex::new(Some(Vec::new())),
        })
    }

    /// Returns the host process, zero before the birth.
    pub(super) fn pid(&self) -> i32 {
        self.pid.load(Ordering::Acquire)
    }

    /// Returns whether thread `index` finds its stack mapped.
    pub(super) fn has_stack(&self, index: u32) -> bool {
        index < self.stacks.load(Ordering::Acquire)
    }

    /// Records that the stack of thread `index` is mapped, where all below are.
    pub(super) fn set_stack(&self, index: u32) {
        let next = index.saturating_add(1);
        let _ = self.stacks.compare_exchange(index, next, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Takes over what a copy of `parent` has.
    pub(super) fn inherit(&self, parent: &Self) {
        self.stacks.store(parent.stacks.load(Ordering::Acquire), Ordering::Release);
        *self.sites() = parent.sites().inherited(parent.is_alone());
    }

    /// Keeps a write for the birth; returns whether the process is not born yet.
    pub(super) fn write_at_birth(&self, addr: UserAddr, src: &[u8]) -> bool {
        if self.pid() != 0 {
            return false;
        }
        let mut writes = lock(&self.at_birth);
        writes.as_mut().map(|writes| writes.push((addr, src.to_vec()))).is_some()
    }

    /// Records the birth.
    pub(super) fn set_pid(&self, pid: i32) {
        let mut writes = lock(&self.at_birth);
        self.pid.store(pid, Ordering::SeqCst);
        for (addr, bytes) in writes.take().unwrap_or_default() {
            // As on Linux, where the address is the application's own mistake.
            let _ = self.write(addr, &bytes);
        }
        drop(writes);
        if self.killed.load(Ordering::SeqCst) {
            self.kill();
        }
    }

    /// Records that the process has ended, while it is not reaped yet; its pid is not used from now
    /// on.
    pub(super) fn set_dead(&self) {
        let _ = self.with_pid(|pid| {
            *lock(&self.last_cpu_ns) = clock::process_time_ns(pid).unwrap_or_default();
            Ok(())
        });
        *self.alive.write().unwrap_or_else(std::sync::PoisonError::into_inner) = false;
    }

    /// Runs `f` with the pid of the living process.
    pub(super) fn with_pid<T>(&self, f: impl FnOnce(i32) -> SysResult<T>) -> SysResult<T> {
        let alive = self.alive.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let pid = self.pid();
        if *alive && pid > 0 { f(pid) } else { Err(Errno::ESRCH) }
    }

    /// Sends `signo` to thread `tid` of this process; zero only checks that it is one.
    pub(super) fn signal_thread(&self, tid: u32, signo: i32) -> SysResult<()> {
        self.with_pid(|pid| {
            // SAFETY: passes numbers only.
            let done = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signo) };
            if done < 0 { Err(last_errno()) } else { Ok(()) }
        })
    }

    /// Claims the lowest free index at or above `wanted` for a thread made by `make`.
    pub(super) fn add_thread(
        &self,
        wanted: u32,
        make: impl FnOnce(u32) -> SysResult<Arc<SystrapContext>>,
    ) -> SysResult<Arc<SystrapContext>> {
        let mut threads = lock(&self.threads);
        let start = usize::try_from(wanted).map_err(|_| Errno::EAGAIN)?;
        while threads.len() < start {
            threads.push(Place::Free);
        }
        let free = threads.iter().skip(start).position(Place::is_free);
        let free = free.map_or(threads.len(), |i| i + start);
        let index = u32::try_from(free).map_err(|_| Errno::EAGAIN)?;
        if index >= layout::MAX_THREADS {
            return Err(Errno::EAGAIN);
        }
        let context = make(index)?;
        if free == threads.len() {
            threads.push(Place::Free);
            self.was_threaded.store(free > 0, Ordering::SeqCst);
        }
        if let Some(place) = threads.get_mut(free) {
            *place = Place::Used(Arc::clone(&context));
        }
        Ok(context)
    }

    /// Frees the place of a thread as soon as its host thread has left it.
    pub(super) fn remove_thread(&self, context: &Arc<SystrapContext>) {
        let mut threads = lock(&self.threads);
        if let Some(place) = Self::place_of(&mut threads, context) {
            *place = Place::Left(Arc::clone(context));
        }
    }

    /// Does the same, unless this is the last thread; returns whether it was not.
    pub(super) fn leave(&self, context: &Arc<SystrapContext>) -> bool {
        let mut threads = lock(&self.threads);
        if threads.iter().filter(|place| matches!(place, Place::Used(_))).count() <= 1 {
            return false;
        }
        if let Some(place) = Self::place_of(&mut threads, context) {
            *place = Place::Left(Arc::clone(context));
        }
        true
    }

    /// Returns the place that `context` has, if it has not left it.
    fn place_of<'a>(
        threads: &'a mut [Place],
        context: &Arc<SystrapContext>,
    ) -> Option<&'a mut Place> {
        let place = threads.get_mut(usize::try_from(context.index).ok()?)?;
        matches!(place, Place::Used(used) if Arc::ptr_eq(used, context)).then_some(place)
    }

    /// Forgets all threads, which breaks the circle of references.
    pub(super) fn clear_threads(&self) {
        lock(&self.threads).clear();
    }

    /// Returns the thread with this index.
    pub(super) fn thread(&self, index: u64) -> Option<Arc<SystrapContext>> {
        match lock(&self.threads).get(usize::try_from(index).ok()?)? {
            Place::Used(context) => Some(Arc::clone(context)),
            _ => None,
        }
    }

    /// Returns whether `tid` was the host thread of a context at `index` that has ended.
    pub(super) fn has_left(&self, index: u64, tid: u32) -> bool {
        let Ok(index) = usize::try_from(index) else { return false };
        matches!(lock(&self.threads).get(index), Some(Place::Left(context)) if context.tid() == tid)
    }

    /// Returns all threads.
    pub(super) fn threads(&self) -> Vec<Arc<SystrapContext>> {
        let threads = lock(&self.threads);
        let used = threads.iter().filter_map(|place| match place {
            Place::Used(context) => Some(Arc::clone(context)),
            _ => None,
        });
        used.collect()
    }

    /// Returns whether the process has one thread only.
    pub(super) fn is_alone(&self) -> bool {
        !self.was_threaded.load(Ordering::SeqCst)
            || lock(&self.threads).iter().filter(|place| !place.is_free()).count() == 1
    }

    /// Returns what is known of system call sites.
    pub(super) fn sites(&self) -> MutexGuard<'_, Sites> {
        lock(&self.sites)
    }

    /// Returns the cache of descriptors.
    pub(super) fn fds(&self) -> MutexGuard<'_, FdCache> {
        lock(&self.fds)
    }

    /// Appends the calls by which the process loses its windows on files that it is lent no more, for an answer to the thread
    /// with this index.
    pub(super) fn unmap_windows(&self, index: u32, calls: &mut Vec<QuietCall>) {
        if let Some(streams) = self.streams.get() {
            streams.files.unmap_windows(index, calls);
        }
    }

    /// Returns the process's end of the channel, for whoever makes it.
    pub(super) fn far_end(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        lock(&self.far_end)
    }

    /// Sends a newborn process its slots through its channel, which is open from then on.
    pub(super) fn open_channel(&self) {
        let mut fds = self.fds();
        if let Some(channel) = lock(&self.channel).take() {
            // A process that does not get them has ended, or will.
            let _ = channel.send(self.region.as_fd(), REGION_FD);
            fds.open(channel);
        }
    }

    /// Opens the channel of the zygote, which has its slots.
    pub(super) fn open_channel_of_zygote(&self) {
        if let Some(channel) = lock(&self.channel).take() {
            self.fds().open(channel);
        }
    }

    /// Lets the host thread of a context at `index` that has ended look at its slot once more.
    pub(super) fn wake_left(&self, index: u64) {
        let Ok(index) = usize::try_from(index) else { return };
        if let Some(Place::Left(context)) = lock(&self.threads).get(index) {
            super::zygote::futex_wake(&context.slot().turn.done);
        }
    }

    /// Returns what thread `tid` of this process has used, which has watched for answers for `spun`
    /// ticks.
    pub(super) fn thread_usage(&self, tid: u32, spun: u64) -> Option<ThreadUsage> {
        let tid = tid.cast_signed();
        let used = self.with_pid(|pid| usage::thread(pid, tid).ok_or(Errno::ESRCH));
        let used = used.ok().filter(|_| tid > 0)?;
        Some(ThreadUsage { cpu_ns: spin::as_system(used.cpu_ns, self.rate.to_ns(spun)), ..used })
    }

    /// Counts for how many ticks a thread has watched for an answer.
    pub(super) fn note_spun(&self, ticks: u64) {
        self.spun.fetch_add(ticks, Ordering::Relaxed);
    }

    /// Copies between `local` and the process.
    fn transfer(
        &self,
        nr: libc::c_long,
        addr: UserAddr,
        local: *mut u8,
        len: usize,
    ) -> SysResult<usize> {
        let room = USER_ADDRESS_LIMIT.saturating_sub(addr.0);
        let len = len.min(usize::try_from(room).unwrap_or(usize::MAX));
        if len == 0 {
            return if room == 0 { Err(Errno::EFAULT) } else { Ok(0) };
        }
        self.with_pid(|pid| {
            let local = libc::iovec { iov_base: local.cast(), iov_len: len };
            let remote = libc::iovec { iov_base: addr.0 as *mut libc::c_void, iov_len: len };
            // SAFETY: the callers pass a buffer of at least `len` bytes, exclusive where it is
            // written, or a part of a window, to which nothing refers; the kernel checks the
            // remote side.
            let n = unsafe {
                libc::syscall(nr, pid, &raw const local, 1_u64, &raw const remote, 1_u64, 0_u64)
            };
            usize::try_from(n).map_err(|_| last_errno())
        })
    }
}

impl AddressSpace for Space {
    fn read(&self, addr: UserAddr, dst: &mut [u8]) -> SysResult<usize> {
        self.transfer(libc::SYS_process_vm_readv, addr, dst.as_mut_ptr(), dst.len())
    }

    fn write(&self, addr: UserAddr, src: &[u8]) -> SysResult<usize> {
        self.transfer(libc::SYS_process_vm_writev, addr, src.as_ptr().cast_mut(), src.len())
    }

    fn read_to(&self, addr: UserAddr, dst: &Part<'_>) -> SysResult<usize> {
        self.transfer(libc::SYS_process_vm_readv, addr, dst.as_mut_ptr(), dst.len())
    }

    fn write_from(&self, addr: UserAddr, src: &Part<'_>) -> SysResult<usize> {
        self.transfer(libc::SYS_process_vm_writev, addr, src.as_mut_ptr(), src.len())
    }

    fn count_futex_waiter(&self, addr: UserAddr, more: bool) -> SysResult<()> {
        let shared = match self.shared.get() {
            Some(shared) => shared,
            None => {
                let mapping = Mapping::of_process(&self.region)?;
                self.shared.get_or_init(|| mapping)
            }
        };
        if let Some(count) = shared.futex_waiters.get(process::futex_count(addr.0)) {
            // Before the caller looks at the word.
            count.fetch_add(if more { 1 } else { u32::MAX }, Ordering::SeqCst);
        }
        Ok(())
    }

    fn streams(&self) -> Option<Arc<dyn Streams>> {
        let streams = match self.streams.get() {
            Some(streams) => streams,
            None => {
                let streams = LentStreams::new(&self.region, &self.fds).ok()?;
                self.streams.get_or_init(|| Arc::new(streams))
            }
        };
        Some(Arc::<LentStreams>::clone(streams))
    }

    fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        let _ = self.with_pid(|pid| {
            // SAFETY: passes numbers only; the pid is not reaped while the closure runs.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            Ok(())
        });
    }

    fn host_pid(&self) -> Option<u32> {
        self.with_pid(|pid| u32::try_from(pid).map_err(|_| Errno::ESRCH)).ok()
    }

    fn usage(&self) -> ProcessUsage {
        self.with_pid(|pid| usage::process(pid).ok_or(Errno::ESRCH)).unwrap_or_default()
    }

    fn cpu_time_ns(&self) -> (u64, u64) {
        let told = self.with_pid(|pid| clock::process_time_ns(pid).ok_or(Errno::ESRCH));
        let told = told.unwrap_or_else(|_| *lock(&self.last_cpu_ns));
        spin::as_system(told, self.rate.to_ns(self.spun.load(Ordering::Relaxed)))
    }
}
