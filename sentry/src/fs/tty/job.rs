//! Whose terminal it is: the session that a terminal controls, its foreground process group, and
//! what background processes may not do (`credentials(7)`, `tty_jobctrl.c`).

use std::sync::{Arc, Weak};

use syscalls::abi::capability::CAP_SYS_ADMIN;
use syscalls::abi::ioctl::{TIOCGPGRP, TIOCGSID, TIOCNOTTY, TIOCSCTTY, TIOCSPGRP};
use syscalls::abi::signal::{SI_KERNEL, SIG_IGN, SIGCONT, SIGHUP, SIGTTIN, SIGTTOU, Siginfo};
use syscalls::{Errno, UserAddr, UserPtr};

use crate::sync::Mutex;
use crate::task::job::{ProcessGroup, Session, Terminal};
use crate::task::{Control, CurrentTask, HandlerResult, Restart, signal};

/// The job-control side of a terminal.
#[derive(Default)]
pub(crate) struct JobControl(Mutex<State>);

#[derive(Default)]
struct State {
    session: Weak<Session>,
    foreground: Option<Arc<ProcessGroup>>,
}

/// Which side of a terminal a descriptor is: the master of a pty is in nobody's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Terminal,
    Master,
}

impl JobControl {
    /// Returns the session that the terminal controls.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        self.0.lock().session.upgrade()
    }

    /// Returns the foreground process group.
    pub(crate) fn foreground(&self) -> Option<Arc<ProcessGroup>> {
        self.0.lock().foreground.clone()
    }

    /// Sends a signal to the foreground process group.
    pub(crate) fn signal_foreground(&self, signo: i32) {
        if let Some(foreground) = self.foreground() {
            signal::send_to_process_group(&foreground, Siginfo::new(signo, SI_KERNEL));
        }
    }

    /// Gives the session up; returns it with its foreground process group.
    pub(crate) fn release(&self) -> (Option<Arc<Session>>, Option<Arc<ProcessGroup>>) {
        let old = std::mem::take(&mut *self.0.lock());
        (old.session.upgrade(), old.foreground)
    }

    /// Returns whether this is the controlling terminal of the task's session.
    pub(crate) fn controls(&self, task: &CurrentTask) -> bool {
        self.session().is_some_and(|session| Arc::ptr_eq(&session, &task.group.session()))
    }

    /// Makes the terminal the controlling one of the task's session.
    pub(crate) fn acquire(&self, task: &CurrentTask, terminal: Arc<dyn Terminal>) {
        self.acquire_for(&task.group.process_group(), terminal);
    }

    /// As [`JobControl::acquire`], for the session of a process group that comes to the foreground.
    pub(crate) fn acquire_for(&self, group: &Arc<ProcessGroup>, terminal: Arc<dyn Terminal>) {
        *self.0.lock() =
            State { session: Arc::downgrade(&group.session), foreground: Some(group.clone()) };
        *group.session.terminal.lock() = Some(terminal);
    }

    /// Makes the terminal the controlling one where opening it does so.
    pub(crate) fn acquire_on_open(
        &self,
        task: &CurrentTask,
        terminal: impl FnOnce() -> Arc<dyn Terminal>,
    ) {
        let session = task.group.session();
        let is_leader = session.id == task.group.pid();
        let has_terminal = session.terminal.lock().is_some();
        if is_leader && !has_terminal && self.session().is_none() {
            self.acquire(task, terminal());
        }
    }

    /// Fails, after a signal to the process group, where a background process does what only
    /// the foreground may: `__tty_check_change()`.
    ///
    /// # Errors
    /// `EIO` where the signal would not stop the process; a restart where it may.
    pub(crate) fn check(&self, task: &CurrentTask, signo: i32) -> Result<(), Control> {
        if !self.controls(task) {
            return Ok(());
        }
        let own = task.group.process_group();
        let Some(foreground) = self.foreground() else { return Ok(()) };
        if Arc::ptr_eq(&foreground, &own) {
            return Ok(());
        }
        let is_blocked = task.signal_mask().contains(signo);
        let actions = task.group.actions.lock().clone();
        let is_ignored = actions.lock().get(signo).handler == SIG_IGN;
        if is_blocked || is_ignored {
            return if signo == SIGTTIN { Err(Errno::EIO.into()) } else { Ok(()) };
        }
        let is_orphaned = {
            let _tree = task.kernel.tree.lock();
            own.is_orphaned(None)
        };
        if is_orphaned {
            return Err(Errno::EIO.into());
        }
        signal::send_to_process_group(&own, Siginfo::new(signo, SI_KERNEL));
        signal::recheck(task);
        Err(Control::Restart(Restart::Sys))
    }

    /// Serves the requests of job control; `None` for any other. `is_readable` says whether the
    /// descriptor is open for reading.
    pub(crate) fn ioctl(
        &self,
        task: &CurrentTask,
        side: Side,
        is_readable: bool,
        terminal: &Arc<dyn Terminal>,
        request: u32,
        arg: u64,
    ) -> Option<HandlerResult> {
        let ptr = UserPtr::<u32>::new(UserAddr(arg));
        let is_stranger = side == Side::Terminal && !self.controls(task);
        Some(match request {
            TIOCSCTTY => self.take_over(task, is_readable, terminal, arg),
            TIOCNOTTY if side == Side::Master || is_stranger => Err(Errno::ENOTTY.into()),
            TIOCNOTTY => {
                self.give_up(task);
                Ok(0)
            }
            TIOCGPGRP | TIOCGSID if is_stranger => Err(Errno::ENOTTY.into()),
            TIOCGPGRP => {
                let namespace = task.pid_namespace();
                let id = self.foreground().map_or(0, |group| group.id_in(&namespace));
                task.write_obj(ptr, &id).map(|()| 0).map_err(Control::from)
            }
            TIOCGSID => match self.session() {
                None => Err(Errno::ENOTTY.into()),
                Some(session) => {
                    let id = session.id_in(&task.pid_namespace());
                    task.write_obj(ptr, &id).map(|()| 0).map_err(Control::from)
                }
            },
            TIOCSPGRP => self.set_foreground(task, UserPtr::new(UserAddr(arg))),
            _ => return None,
        })
    }

    fn take_over(
        &self,
        task: &CurrentTask,
        is_readable: bool,
        terminal: &Arc<dyn Terminal>,
        arg: u64,
    ) -> HandlerResult {
        let session = task.group.session();
        let is_leader = session.id == task.group.pid();
        if is_leader && self.controls(task) {
            return Ok(0);
        }
        if !is_leader || session.terminal.lock().is_some() {
            return Err(Errno::EPERM.into());
        }
        let is_privileged = task.creds().has_capability(CAP_SYS_ADMIN);
        if let Some(old) = self.session() {
            if arg != 1 || !is_privileged {
                return Err(Errno::EPERM.into());
            }
            *old.terminal.lock() = None;
        }
        if !is_readable && !is_privileged {
            return Err(Errno::EPERM.into());
        }
        self.acquire(task, terminal.clone());
        Ok(0)
    }

    /// `TIOCNOTTY`. A session leader gives the terminal up for its whole session.
    ///
    /// DEVIATION: Linux notes the terminal per process, so any other process gives it up for
    /// itself only; here that has no effect.
    fn give_up(&self, task: &CurrentTask) {
        let session = task.group.session();
        if session.id != task.group.pid() {
            return;
        }
        let (_, foreground) = self.release();
        *session.terminal.lock() = None;
        if let Some(foreground) = foreground {
            for signo in [SIGHUP, SIGCONT] {
                signal::send_to_process_group(&foreground, Siginfo::new(signo, SI_KERNEL));
            }
        }
    }

    fn set_foreground(&self, task: &CurrentTask, ptr: UserPtr<i32>) -> HandlerResult {
        match self.check(task, SIGTTOU) {
            Err(Control::Error(Errno::EIO)) => return Err(Errno::ENOTTY.into()),
            result => result?,
        }
        if !self.controls(task) {
            return Err(Errno::ENOTTY.into());
        }
        let wanted = u32::try_from(task.read_obj(ptr)?).map_err(|_| Errno::EINVAL)?;
        let namespace = task.pid_namespace();
        let found = namespace
            .tasks()
            .into_iter()
            .filter(|(_, other)| other.is_leader())
            .map(|(_, other)| other.group.process_group())
            .find(|group| group.id_in(&namespace) == wanted)
            .ok_or(Errno::ESRCH)?;
        if !Arc::ptr_eq(&found.session, &task.group.session()) {
            return Err(Errno::EPERM.into());
        }
        let old = self.0.lock().foreground.replace(found);
        drop(old);
        Ok(0)
    }
}
