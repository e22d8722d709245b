//! Whose ring it is: threads by what they ring with, births, strangers, and how contexts become known
//! and are forgotten.
//!
//! # Safety
//! The host calls here pass numbers.
#![expect(unsafe_code, reason = "signals")]

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, PoisonError};

use sentry_sysmsg::layout;
use syscalls::arch::x86_64::Regs;
use syscalls::{Errno, SysResult};

use super::context::{Finish, SystrapContext};
use super::doorbell::Ring;
use super::space::{REGION_FD, Space};
use super::spare::Mother;
use super::{Inner, Job, lock};
use crate::Event;

impl Inner {
    /// Finds whose ring this is, and what it means.
    pub(super) fn route(self: &Arc<Self>, ring: &Ring) -> Option<(Arc<SystrapContext>, Event)> {
        let event = match *ring {
            Ring::Notification { id, tid, words } => self
                .caller(id, tid, words)
                .and_then(|context| context.ring(id).map(|event| (context, event))),
            Ring::Message { pid, words } => self
                .sender(pid, words)
                .and_then(|context| context.message().map(|event| (context, event))),
            Ring::Write { id, tid, args } => {
                self.judge_write(id, tid, args);
                None
            }
            Ring::Fence => {
                self.fences_seen.fetch_add(1, SeqCst);
                None
            }
        };
        if self.n_waiting.load(SeqCst) != 0 {
            *lock(&self.rings) += 1;
            self.rung.notify_all();
        }
        event
    }

    /// Returns the context of the host thread that waits for an answer to its notification, where that
    /// is for its owner.
    fn caller(&self, id: u64, tid: u32, words: [u64; 3]) -> Option<Arc<SystrapContext>> {
        let known = self.tasks.read().unwrap_or_else(PoisonError::into_inner).get(&tid).cloned();
        match (known, words) {
            // An interrupt has kept a newborn from hearing the first answer.
            (Some(context), [layout::RING_BORN, ..]) => {
                self.give_region(id, &context.space);
                None
            }
            (Some(context), _) => Some(context),
            (None, _) => self.born(id, tid, words),
        }
    }

    /// Lets a thread write to a file what it was told to write, once, and nothing else. What the host does then is
    /// what the notification has told, but for what the number of the descriptor means: that is
    /// pinned until the thread reports, and no process can make it another file by itself.
    fn judge_write(&self, id: u64, tid: u32, args: [u64; 4]) {
        let known = self.tasks.read().unwrap_or_else(PoisonError::into_inner).get(&tid).cloned();
        match known.filter(|context| context.takes_permit(args)) {
            Some(context) => context.permit_write(id),
            None => self.doorbell.answer(id, Errno::EPERM.to_return().cast_signed()),
        }
    }

    /// Takes the first notification of a host thread: it must be one that the sentry expects.
    fn born(&self, id: u64, tid: u32, words: [u64; 3]) -> Option<Arc<SystrapContext>> {
        let [what, token, index] = words;
        let space = self.space(token);
        if space.as_ref().is_some_and(|space| space.has_left(index, tid)) {
            // It was about to ring again, after an interrupt, when it was told to end.
            self.doorbell.answer(id, layout::RUNG_LOOK);
            return None;
        }
        let welcome = match (space, what) {
            (Some(space), layout::RING_BORN) if space.pid() == 0 => {
                let born = self.born_process(tid, &space, || self.give_region(id, &space));
                if born.is_none() {
                    self.kill_stranger(tid);
                }
                return None;
            }
            (Some(space), layout::RING_REQUEST) => space
                .thread(index)
                .filter(|context| context.tid() == 0 && space.signal_thread(tid, 0).is_ok()),
            _ => None,
        };
        match &welcome {
            Some(context) => self.set_tid(context, tid),
            None => self.kill_stranger(tid),
        }
        welcome
    }

    /// Returns the context for whose owner a message of the process `pid` is. The process may have
    /// ended, but its id means no other: see [`Self::hear_messages`]. A stranger is left to wait.
    fn sender(&self, pid: u32, words: [u64; 3]) -> Option<Arc<SystrapContext>> {
        let [what, token, index] = words;
        let space = self.space(token)?;
        if what == layout::RING_BORN && space.pid() == 0 {
            self.born_process(pid, &space, || space.open_channel());
            return None;
        }
        if what != layout::RING_REQUEST || space.pid() != pid.cast_signed() {
            return None;
        }
        let Some(context) = space.thread(index) else {
            // It was about to ring when it was told to end.
            space.wake_left(index);
            return None;
        };
        if context.tid() == 0 {
            self.set_tid(&context, context.told_tid()?);
        }
        Some(context)
    }

    fn space(&self, token: u64) -> Option<Arc<Space>> {
        self.spaces.read().unwrap_or_else(PoisonError::into_inner).get(&token).cloned()
    }

    /// Makes a newborn process known and lets it have its slots, unless it is one that cannot be.
    fn born_process(&self, id: u32, space: &Arc<Space>, give_region: impl FnOnce()) -> Option<()> {
        let pid = id.cast_signed();
        let context = space.threads().into_iter().next().filter(|_| is_process(pid))?;
        if lock(&self.processes).by_pid.get(&pid).is_some_and(|other| other.pid() == pid) {
            // Another one, which speaks for a child of its own.
            return None;
        }
        self.set_tid(&context, id);
        {
            let mut processes = lock(&self.processes);
            space.set_pid(pid);
            processes.by_pid.insert(pid, Arc::clone(space));
        }
        context.schedule_wanted();
        give_region();
        // Its end may have been seen before it was known.
        self.claim_orphan(space, pid);
        Some(())
    }

    /// Answers a birth with the descriptor of the process's slots.
    fn give_region(&self, id: u64, space: &Space) {
        let given = self.doorbell.add_fd(id, space.region.as_fd(), REGION_FD);
        let answer = if given.is_ok() { i64::from(REGION_FD) } else { -1 };
        self.doorbell.answer(id, answer);
    }

    /// Waits until the messages of a process that has ended, and is not known, have been received:
    /// until then its id must not be given to another one.
    pub(super) fn hear_messages(self: &Arc<Self>, pid: i32) {
        if lock(&self.processes).by_pid.contains_key(&pid) {
            return;
        }
        let wanted = self.fences_wanted.fetch_add(1, SeqCst) + 1;
        if self.doorbell.fence() {
            let is_heard = || self.fences_seen.load(SeqCst) >= wanted;
            self.wait_for(|| is_heard() || self.stopping.load(SeqCst));
        }
    }

    /// Learns the host id of a birth from the thread that made it.
    pub(super) fn announced(&self, child: &Arc<SystrapContext>, id: i32) {
        let space = &child.space;
        if space.pid() == 0 {
            lock(&self.processes).by_pid.entry(id).or_insert_with(|| Arc::clone(space));
            self.claim_orphan(space, id);
        } else if child.tid() == 0 && space.signal_thread(id.cast_unsigned(), 0).is_ok() {
            let taken = self
                .tasks
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .contains_key(&id.cast_unsigned());
            if !taken {
                self.set_tid(child, id.cast_unsigned());
            }
        }
    }

    /// Ends a space whose process `pid` has been reaped already.
    fn claim_orphan(&self, space: &Arc<Space>, pid: i32) {
        let signal = {
            let mut processes = lock(&self.processes);
            let found = processes.orphans.iter().position(|(orphan, _)| *orphan == pid);
            let Some(found) = found.filter(|_| !is_process(pid)) else { return };
            let Some((_, signal)) = processes.orphans.remove(found) else { return };
            processes.by_pid.remove(&pid);
            signal
        };
        self.ended(space, signal);
    }

    /// Ends the contexts of a process that is gone.
    pub(super) fn ended(&self, space: &Arc<Space>, signal: i32) {
        space.set_dead();
        for context in space.threads() {
            context.die(signal);
        }
        self.all_ended(space);
    }

    /// Does the same for a process that has been reaped. Where its owner has wanted that and waits for
    /// nothing, no other thread is woken to tell it.
    pub(super) fn reaped(&self, space: &Arc<Space>, signal: i32) {
        for context in space.threads() {
            match context.finish() {
                Finish::Before => {}
                Finish::AsTold => context.deliver(Event::Exited { signal }),
                Finish::ByItself => self.post(Job::Exited(context, signal)),
            }
        }
        self.all_ended(space);
    }

    fn all_ended(&self, space: &Arc<Space>) {
        space.clear_threads();
        self.forget_space(space);
        if self.n_waiting.load(SeqCst) != 0 {
            self.rung.notify_all();
        }
    }

    /// Ends a context whose clone failed.
    pub(super) fn stillborn(&self, child: &Arc<SystrapContext>) {
        if child.space.pid() == 0 {
            self.ended(&child.space, 0);
        } else {
            child.slot().in_use.store(0, Relaxed);
            child.die(0);
        }
    }

    /// Makes a space known, so that its first thread can ring.
    pub(super) fn add_space(&self, space: &Arc<Space>) {
        self.spaces
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(space.token)
            .or_insert_with(|| Arc::clone(space));
    }

    /// Ends what [`Inner::add_space`] began.
    pub(super) fn forget_space(&self, space: &Space) {
        self.spaces.write().unwrap_or_else(PoisonError::into_inner).remove(&space.token);
    }

    fn set_tid(&self, context: &Arc<SystrapContext>, tid: u32) {
        self.tasks.write().unwrap_or_else(PoisonError::into_inner).insert(tid, Arc::clone(context));
        context.set_tid(tid);
    }

    /// Kills the process of a host thread that rings without having been made by the sentry.
    fn kill_stranger(&self, tid: u32) {
        // SAFETY: passes numbers; the thread waits for its answer, so the id is still its own.
        unsafe { libc::kill(tid.cast_signed(), libc::SIGKILL) };
    }

    /// Makes the first stub a context like any other.
    pub(super) fn adopt_zygote(self: &Arc<Self>, space: Space, pid: i32) -> SysResult<()> {
        let space = Arc::new(space);
        space.set_pid(pid);
        let zygote = space.add_thread(0, |index| {
            SystrapContext::new(self, &space, index, None, Regs::default())
        })?;
        zygote.start_zygote(pid.cast_unsigned());
        self.tasks
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pid.cast_unsigned(), Arc::clone(&zygote));
        self.add_space(&space);
        lock(&self.processes).by_pid.insert(pid, space);
        *lock(&self.zygote) = Some(Mother::new(Arc::clone(&zygote)));
        super::zygote::let_go(zygote.slot());
        Ok(())
    }
}

/// Returns whether `pid` is the id of a process and not of a further thread, or of nothing.
fn is_process(pid: i32) -> bool {
    // SAFETY: passes numbers; signal zero only checks.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, 0) == 0 }
}
