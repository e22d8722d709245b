//! The default platform: application code runs in stub processes, whose system calls a seccomp
//! filter turns into traps that the stub reports through shared memory.
//!
//! - [`zygote`]: the first stub; all others are its descendants and share its filter and listener.
//! - [`space`], [`context`]: a stub process and its threads.
//! - [`spare`]: a stub that is made before it is asked for.
//! - [`doorbell`]: how they ring.
//! - [`spin`]: sees requests without rings, where a CPU is free.
//! - [`crowd`]: sees those of many threads in turn.
//! - [`follow`]: answers rings on their own CPU.
//! - [`streams`], [`lent_files`]: pipes, counters and files that are lent to the processes that use them.
//! - [`serve`]: receives rings of the doorbell, hands events to their owners, reaps processes.
//! - [`filter`]: what a stub may ask of the host.
//!
//! Architecture Invariant: nothing here depends on the stub being intact. A ring says which thread
//! rings (the kernel vouches for that), and a slot belongs to one process; everything else that
//! they claim is checked, and a process that breaks the protocol is killed.

mod calls;
mod context;
mod crowd;
mod doorbell;
mod fds;
mod filter;
mod follow;
mod lent_files;
mod messages;
mod patch;
mod region;
mod route;
mod serve;
mod space;
mod spare;
mod spin;
mod streams;
mod xstate;
mod zygote;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use sentry_host::Rule;
use sentry_sysmsg::layout;
use syscalls::{Errno, SysResult};

use self::context::SystrapContext;
use self::doorbell::Doorbell;
use self::space::Space;
use self::spare::Mother;
use crate::vdso::{self, VdsoEntries};
use crate::{AddressSpace, Context, ContextOwner, Event, Nursery, Platform, Work, XsaveLayout};

/// What can be chosen about the platform.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How stubs wake the sentry.
    pub doorbell: DoorbellChoice,
}

/// How stubs wake the sentry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DoorbellChoice {
    /// By notifications where the host lets stubs have a listener, else by messages and futexes.
    #[default]
    Auto,
    /// By notifications of the stubs' filter.
    Notify,
    /// By messages and futexes.
    Futex,
}

/// The platform.
#[derive(Debug)]
pub struct Systrap {
    inner: Arc<Inner>,
}

/// What waits for a serving thread.
enum Job {
    Work(Arc<dyn Work>),
    Event(Arc<SystrapContext>, Event),
    Exited(Arc<SystrapContext>, i32),
    /// The last thread of a process is to end.
    Exit(Arc<SystrapContext>),
}

/// The state that contexts share.
struct Inner {
    doorbell: Doorbell,
    xsave: XsaveLayout,
    /// Whether the stub can save the extended state itself, as signals at patched calls need.
    can_patch: bool,
    vdso: Vec<u8>,
    zygote: Mutex<Option<Arc<Mother>>>,
    /// Held while the zygote forks.
    forking: Mutex<()>,
    next_token: AtomicU64,
    /// Threads by host id.
    tasks: RwLock<HashMap<u32, Arc<SystrapContext>>>,
    spaces: RwLock<HashMap<u64, Arc<Space>>>,
    processes: Mutex<Processes>,
    jobs: Mutex<Jobs>,
    /// How many jobs wait.
    n_jobs: AtomicUsize,
    jobs_ready: Condvar,
    /// Held by the thread that receives rings.
    lead: Mutex<()>,
    lead_held: AtomicBool,
    /// How many fences have been asked for, and how many have come.
    fences_wanted: AtomicU64,
    fences_seen: AtomicU64,
    /// How often the lead has been taken.
    lead_taken: AtomicU64,
    /// Guards the watchdog's decision to sleep.
    watchdog_asleep: Mutex<()>,
    watchdog_sleeps: AtomicBool,
    watchdog_wake: Condvar,
    /// Counts rings that have been taken, for those who wait for one without the lead.
    rings: Mutex<u64>,
    rung: Condvar,
    n_waiting: AtomicUsize,
    /// How many contexts have a ring to answer.
    n_rings: AtomicUsize,
    /// How many contexts run application code.
    n_running: AtomicU32,
    cpus: spin::Cpus,
    stopping: AtomicBool,
    /// Those that [`Inner::serve`] waits for at its end.
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    /// This process: later it may not ask.
    own_pid: u32,
    /// The thread that is receiving a ring, zero where none is.
    receiver: AtomicU32,
}

/// What waits for workers, and how many there are.
#[derive(Default)]
struct Jobs {
    queue: VecDeque<Job>,
    n_workers: usize,
    n_parked: usize,
    /// The watchdog wants a parked worker to take the lead.
    lead_offered: bool,
}

/// Host processes.
#[derive(Default)]
struct Processes {
    by_pid: HashMap<i32, Arc<Space>>,
    /// Processes that have ended before the sentry knew them.
    orphans: VecDeque<(i32, i32)>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl Systrap {
    /// Starts the zygote. To be called before the sentry gives up what that takes: fork, exec and
    /// `pidfd_getfd`.
    ///
    /// # Errors
    /// `ENOSYS` where the processor or the kernel lacks what the stub needs (FSGSBASE, XSAVE, a
    /// listener where notifications are asked for), else the error of the call that failed.
    pub fn new(options: Options) -> SysResult<Self> {
        zygote::check_host()?;
        let xsave = xstate::layout();
        let xsave_size =
            if u64::from(xsave.size) + 4 <= layout::XSAVE_MAX { u64::from(xsave.size) } else { 0 };
        let zygote = zygote::Zygote::start(options.doorbell, [xsave.features, xsave_size])?;
        let inner = Arc::new(Inner {
            doorbell: zygote.doorbell,
            xsave,
            can_patch: xsave_size != 0,
            vdso: vdso::build(&VdsoEntries::of_host(zygote.host_vdso)),
            zygote: Mutex::new(None),
            forking: Mutex::new(()),
            next_token: AtomicU64::new(1),
            tasks: RwLock::new(HashMap::new()),
            spaces: RwLock::new(HashMap::new()),
            processes: Mutex::new(Processes::default()),
            jobs: Mutex::new(Jobs::default()),
            n_jobs: AtomicUsize::new(0),
            jobs_ready: Condvar::new(),
            lead: Mutex::new(()),
            lead_held: AtomicBool::new(false),
            fences_wanted: AtomicU64::new(0),
            fences_seen: AtomicU64::new(0),
            lead_taken: AtomicU64::new(0),
            watchdog_asleep: Mutex::new(()),
            watchdog_sleeps: AtomicBool::new(false),
            watchdog_wake: Condvar::new(),
            rings: Mutex::new(0),
            rung: Condvar::new(),
            n_waiting: AtomicUsize::new(0),
            n_rings: AtomicUsize::new(0),
            n_running: AtomicU32::new(0),
            cpus: spin::Cpus::of_this_process(),
            stopping: AtomicBool::new(false),
            threads: Mutex::new(Vec::new()),
            own_pid: std::process::id(),
            receiver: AtomicU32::new(0),
        });
        inner.adopt_zygote(zygote.space, zygote.pid)?;
        Ok(Self { inner })
    }

    /// Returns the host calls that the platform makes at run time.
    pub fn rules(&self) -> Vec<Rule> {
        let doorbell = self.inner.doorbell.rules();
        [doorbell, region::RULES, space::RULES, serve::RULES].concat()
    }
}

impl Platform for Systrap {
    fn name(&self) -> &'static str {
        "systrap"
    }

    fn create(&self, owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>> {
        let zygote = lock(&self.inner.zygote).clone().ok_or(Errno::EAGAIN)?;
        Ok(zygote.create(owner)?)
    }

    fn nursery(&self) -> SysResult<Arc<dyn Nursery>> {
        let zygote = lock(&self.inner.zygote).clone().ok_or(Errno::EAGAIN)?;
        let child = self.inner.fork(zygote.context(), None)?;
        // It may wait for long: only the first one keeps a ring for that.
        child.park();
        Ok(Arc::new(Child(Mother::new(child))))
    }

    fn vdso(&self) -> &[u8] {
        &self.inner.vdso
    }

    fn xsave_layout(&self) -> XsaveLayout {
        self.inner.xsave
    }

    fn start(&self) -> SysResult<()> {
        self.inner.start_threads()
    }

    fn makes_reads(&self) -> bool {
        true
    }

    fn makes_writes(&self) -> bool {
        // Only a notification can be permitted.
        self.inner.doorbell.kind() == doorbell::Kind::Notify
    }

    fn serve(&self) {
        self.inner.serve();
    }

    fn shutdown(&self) {
        self.inner.shut_down();
    }

    fn submit(&self, work: Arc<dyn Work>) {
        self.inner.post(Job::Work(work));
    }
}

/// A clone of the zygote that is one itself.
struct Child(Arc<Mother>);

impl Nursery for Child {
    fn create(&self, owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>> {
        let child = self.0.create(owner);
        self.0.context().park();
        Ok(child?)
    }

    fn host_pid(&self) -> Option<u32> {
        self.0.context().space.host_pid()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Inner {
    /// Returns an unguessable name for a new address space.
    fn new_token(&self) -> SysResult<u64> {
        let random = zygote::random()?;
        // The lower bits make it unique, the upper ones secret.
        let serial = self.next_token.fetch_add(1, Ordering::Relaxed);
        Ok(random << 24 | serial & 0xff_ffff)
    }

    /// Creates the sentry's side of a new address space.
    fn new_space(&self) -> SysResult<Space> {
        Space::new(self.new_token()?, self.doorbell.kind())
    }
}

/// Locks a mutex; a panic elsewhere aborts the process, so poison does not exist.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the error of the last host call.
fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
