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
use crate::{Context, ContextOwner, Platform, Work, XsaveLayout, xstate};

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
        let tracer = Arc::clone(&self.tracer);
        self.tracer.call(move || {
            let flags = libc::CLONE_PARENT | libc::SIGCHLD;
            let pid = tracer.zygote.pid;
            let tid = tracer.with_zygote(|| tracer.clone_host_thread(pid, flags));
            let tid = tid.ok().flatten().ok_or(Errno::EAGAIN)?;
            let regs = tracer::user_regs();
            let thread = Thread::new(&tracer, Arc::<Space>::default(), owner, true, regs);
            thread.attach(tid);
            Ok(thread as Arc<dyn Context>)
        })
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
