//! A stub that is made before somebody asks for it.
//!
//! To have the zygote fork takes two wake-ups of it and three of the child, for which exec would wait.
//! So where programs are run, the next one's process is made while this one's runs: one for each zygote,
//! and not for a container that only runs its first program. It has never run application code and has no
//! owner; it dies with its zygote, and where it has died before, another one is made as it is needed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use syscalls::arch::x86_64::Regs;
use syscalls::{Errno, SysResult};

use super::context::SystrapContext;
use super::{Inner, Job, lock};
use crate::{AddressSpace as _, ContextOwner, Work};

/// A zygote, and the process that it has made in advance.
pub(super) struct Mother {
    context: Arc<SystrapContext>,
    spare: Mutex<Option<Arc<SystrapContext>>>,
    /// Whether a process has been asked for.
    was_asked: AtomicBool,
    is_closed: AtomicBool,
}

impl Mother {
    /// A zygote that has not made anything yet.
    pub(super) fn new(context: Arc<SystrapContext>) -> Arc<Self> {
        let (was_asked, is_closed) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { context, spare: Mutex::new(None), was_asked, is_closed })
    }

    /// Returns the zygote itself.
    pub(super) fn context(&self) -> &Arc<SystrapContext> {
        &self.context
    }

    /// Returns a process that has not run yet, for this owner.
    pub(super) fn create(
        self: &Arc<Self>,
        owner: Arc<dyn ContextOwner>,
    ) -> SysResult<Arc<SystrapContext>> {
        let inner = self.context.inner();
        let spare = lock(&self.spare).take();
        let ready = spare.filter(|spare| claim(inner, spare, &owner));
        let child = match ready {
            Some(ready) => ready,
            None => inner.fork(&self.context, Some(owner))?,
        };
        if self.was_asked.swap(true, Ordering::Relaxed) {
            // When the caller has done with this one.
            inner.post(Job::Work(Arc::clone(self) as Arc<dyn Work>));
        }
        Ok(child)
    }

    /// Ends the zygote and what it has made in advance.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.context.space.kill();
        if let Some(spare) = lock(&self.spare).take() {
            spare.space.kill();
        }
    }
}

/// Waits until `spare` is born and gives it this owner; returns whether it lives.
fn claim(inner: &Arc<Inner>, spare: &Arc<SystrapContext>, owner: &Arc<dyn ContextOwner>) -> bool {
    inner.wait_for(|| spare.is_dead() || spare.is_waiting());
    spare.set_owner(Arc::clone(owner));
    if spare.is_dead() {
        spare.abandon();
    }
    !spare.is_dead()
}

/// Making the next one, which is nothing to wait for.
impl Work for Mother {
    fn run(self: Arc<Self>) {
        let inner = self.context.inner();
        let Ok(forking) = inner.forking.try_lock() else { return };
        let mut spare = lock(&self.spare);
        let is_wanted = spare.is_none() && !self.is_closed.load(Ordering::SeqCst);
        if is_wanted && self.context.is_waiting() {
            *spare = inner.fork_spare(&self.context).ok();
        }
        drop(spare);
        drop(forking);
    }
}

impl Inner {
    /// Clones a process that has never run application code; the new one is stopped.
    pub(super) fn fork(
        self: &Arc<Self>,
        zygote: &Arc<SystrapContext>,
        owner: Option<Arc<dyn ContextOwner>>,
    ) -> SysResult<Arc<SystrapContext>> {
        let child = self.unborn(owner)?;
        let forking = lock(&self.forking);
        self.wait_for(|| zygote.is_dead() || zygote.is_waiting());
        let asked = zygote.fork_from_zygote(&child);
        let mut born = 0;
        if asked.is_ok() {
            self.wait_for(|| zygote.is_dead() || zygote.is_waiting());
            born = if zygote.is_dead() { 0 } else { zygote.last_birth() };
        }
        drop(forking);
        if born <= 0 {
            self.give_up(&child);
            return Err(asked.err().unwrap_or(Errno::EAGAIN));
        }
        self.announced(&child, born);
        self.wait_for(|| child.is_dead() || child.is_waiting());
        if child.is_dead() { Err(Errno::EAGAIN) } else { Ok(child) }
    }

    /// Has the zygote begin to make a process without an owner.
    fn fork_spare(
        self: &Arc<Self>,
        zygote: &Arc<SystrapContext>,
    ) -> SysResult<Arc<SystrapContext>> {
        let child = self.unborn(None)?;
        zygote.fork_spare_from_zygote(&child).inspect_err(|_| self.give_up(&child))?;
        Ok(child)
    }

    /// Creates the sentry's side of a process that is to be made.
    fn unborn(
        self: &Arc<Self>,
        owner: Option<Arc<dyn ContextOwner>>,
    ) -> SysResult<Arc<SystrapContext>> {
        let space = Arc::new(self.new_space()?);
        let regs = Regs { orig_rax: u64::MAX, eflags: 0x202, ..Regs::default() };
        let child =
            space.add_thread(0, |index| SystrapContext::new(self, &space, index, owner, regs))?;
        self.add_space(&space);
        Ok(child)
    }

    /// Forgets a process that was not made.
    fn give_up(&self, child: &Arc<SystrapContext>) {
        child.abandon();
        self.forget(child);
        self.forget_space(&child.space);
    }
}
