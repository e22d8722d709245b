//! The ptrace platform: the portable fallback, and the reference that every test also runs on.
//!
//! Application threads run below `PTRACE_SYSEMU`, so that the host executes none of their system
//! calls; one thread of the sentry traces them all. Host calls are made by stopped threads: the
//! tracer points their registers to a `syscall` instruction in the stub's page and lets them run
//! up to the trap behind it.
//!
//! Key types: [`Ptrace`] (the platform), `Tracer` (its state and the tracer thread's loop), `Thread`
//! (a context), `Space` (an address space).
//!
//! Architecture Invariant: a traced thread runs without `SYSEMU` only from the stub's page, which no
//! call can unmap or make writable, and only up to the trap behind the call.

mod calls;
mod filter;
mod rseq;
mod space;
mod stub;
mod sys;
mod thread;
mod tracer;
mod zygote;

use std::sync::Arc;

use sentry_host::Rule;
use syscalls::{Errno, SysResult};

use self::space::Space;
use self::thread::Thread;
use self::tracer::{Job, Tracer};
use crate::vdso::{self, VdsoEntries};
use crate::{Context, ContextOwner, Event, Nursery, Platform, Work, XsaveLayout, xstate};

/// The platform.
pub struct Ptrace {
    tracer: Arc<Tracer>,
    vdso: Vec<u8>,
}

impl Ptrace {
    /// Starts the zygote. To be called before the sentry locks itself down, but with its final
    /// user and group, and with capabilities that it will not give up for others: tracing asks for
    /// equal ids. The calling thread must not end before [`Platform::serve`] has begun.
    ///
    /// # Errors
    /// Those of `fork(2)`, `memfd_create(2)` and `socketpair(2)`; `EAGAIN` where the stub does not
    /// start.
    pub fn new() -> SysResult<Self> {
        let zygote = zygote::start()?;
        let vdso = vdso::build(&VdsoEntries::of_host(zygote.host_vdso));
        Ok(Self { tracer: Arc::new(Tracer::new(zygote)), vdso })
    }
}

/// A clone of the zygote that is one itself. Its thread stays stopped.
struct Child {
    tracer: Arc<Tracer>,
    zygote: Arc<Thread>,
}

/// The owner of a context that has nothing to report.
struct Nobody;

impl ContextOwner for Nobody {
    fn on_event(self: Arc<Self>, _event: Event) {}
}

impl Nursery for Child {
    fn create(&self, owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>> {
        let context = fork(&self.tracer, Some(Arc::clone(&self.zygote)), owner)?;
        Ok(context)
    }

    fn host_pid(&self) -> Option<u32> {
        self.zygote.address_space().host_pid()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.zygote.kill_space();
    }
}

/// Clones the zygote, or a stopped clone of it; the new process is stopped.
fn fork(
    tracer: &Arc<Tracer>,
    zygote: Option<Arc<Thread>>,
    owner: Arc<dyn ContextOwner>,
) -> SysResult<Arc<Thread>> {
    let own = Arc::clone(tracer);
    tracer.call(move || {
        let flags = libc::CLONE_PARENT | libc::SIGCHLD;
        let tid = match zygote {
            Some(zygote) => zygote.clone_stopped(flags)?,
            None => {
                let pid = own.zygote.pid;
                own.with_zygote(|| own.clone_host_thread(pid, flags)).ok().flatten()
            }
        };
        let thread = Thread::new(&own, Arc::<Space>::default(), owner, true, tracer::user_regs());
        thread.attach(tid.ok_or(Errno::EAGAIN)?);
        Ok(thread)
    })
}

/// Returns the host calls that the platform makes once it serves.
pub fn rules() -> Vec<Rule> {
    sys::RULES.to_vec()
}

impl Platform for Ptrace {
    fn name(&self) -> &'static str {
        "ptrace"
    }

    /// Waits for [`Platform::serve`] where it has not been called yet, so not to be called before
    /// it on the thread that is going to call it.
    fn create(&self, owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>> {
        let context = fork(&self.tracer, None, owner)?;
        Ok(context)
    }

    /// Waits as [`Platform::create`] does.
    fn nursery(&self) -> SysResult<Arc<dyn Nursery>> {
        let zygote = fork(&self.tracer, None, Arc::new(Nobody))?;
        Ok(Arc::new(Child { tracer: Arc::clone(&self.tracer), zygote }))
    }

    fn vdso(&self) -> &[u8] {
        &self.vdso
    }

    fn xsave_layout(&self) -> XsaveLayout {
        xstate::layout()
    }

    fn serve(&self) {
        self.tracer.serve();
    }

    fn shutdown(&self) {
        self.tracer.close();
    }

    fn submit(&self, work: Arc<dyn Work>) {
        self.tracer.post(Job::Work(work));
    }
}
