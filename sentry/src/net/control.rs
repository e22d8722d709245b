//! What travels beside the data of a message: open files and the sender's credentials.
//!
//! Files in flight are counted, and closed one after the other: a socket in flight may hold sockets
//! in flight, to any depth, and closing them within each other would need as deep a stack.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use syscalls::abi::socket::Ucred;
use syscalls::{Errno, SysResult};

use crate::fs::pidfd;
use crate::task::pid_namespace::PidNamespace;
use crate::task::{CurrentTask, ThreadGroup};
use crate::vfs::OpenFile;

/// How many files are in flight.
static N_IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);

/// Who has sent something, in the sender's own pid namespace.
#[derive(Clone)]
pub struct Sender {
    pid: u32,
    uid: u32,
    gid: u32,
    namespace: Arc<PidNamespace>,
    group: Weak<ThreadGroup>,
}

impl PartialEq for Sender {
    fn eq(&self, other: &Self) -> bool {
        (self.pid, self.uid, self.gid) == (other.pid, other.uid, other.gid)
            && Arc::ptr_eq(&self.namespace, &other.namespace)
    }
}

impl Sender {
    /// Returns the caller: real ids in messages.
    pub fn current(task: &CurrentTask) -> Self {
        let creds = task.creds();
        Self::with(task, task.group.pid_in(&task.pid_namespace()), creds.uid, creds.gid)
    }

    /// Returns the caller with effective ids, as `SO_PEERCRED` shows them.
    pub fn peer(task: &CurrentTask) -> Self {
        let creds = task.creds();
        Self::with(task, task.group.pid_in(&task.pid_namespace()), creds.euid, creds.egid)
    }

    /// Returns ids that the caller gives for itself.
    pub fn with(task: &CurrentTask, pid: u32, uid: u32, gid: u32) -> Self {
        let namespace = task.pid_namespace();
        let group = if pid == task.group.pid_in(&namespace) {
            Arc::downgrade(&task.group)
        } else {
            let sender = namespace.task(pid);
            sender.map_or(Weak::new(), |sender| Arc::downgrade(&sender.group))
        };
        Self { pid, uid, gid, namespace, group }
    }

    /// Puts a pidfd of the sender into the caller's descriptor table.
    ///
    /// # Errors
    /// `EINVAL` where the sender is gone, `EMFILE`.
    pub fn pidfd(&self, task: &CurrentTask) -> SysResult<i32> {
        let group = self.group.upgrade().ok_or(Errno::EINVAL)?;
        if group.tree.lock().is_reaped {
            return Err(Errno::EINVAL);
        }
        pidfd::install(task, &group, true)
    }

    /// Returns the sender as `task` sees it.
    pub fn seen_by(&self, task: &CurrentTask) -> Ucred {
        let namespace = task.pid_namespace();
        let pid = if Arc::ptr_eq(&namespace, &self.namespace) {
            self.pid
        } else {
            self.namespace.task(self.pid).map_or(0, |sender| sender.group.pid_in(&namespace))
        };
        let users = &task.creds().user_ns;
        let (uid, gid) = (users.shown_uid(self.uid), users.shown_gid(self.gid));
        Ucred { pid: i32::try_from(pid).unwrap_or(0), uid, gid }
    }
}

/// Open files in flight.
#[derive(Default)]
pub struct Files(Vec<Arc<OpenFile>>);

impl Files {
    /// Sends files on their way.
    pub fn new(files: Vec<Arc<OpenFile>>) -> Self {
        N_IN_FLIGHT.fetch_add(files.len(), Ordering::Relaxed);
        Self(files)
    }

    /// Returns the files.
    pub fn as_slice(&self) -> &[Arc<OpenFile>] {
        &self.0
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many files are in flight in the whole sandbox.
    pub fn n_in_flight() -> usize {
        N_IN_FLIGHT.load(Ordering::Relaxed)
    }
}

impl Clone for Files {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

thread_local! {
    /// Files to be closed by a call further down the stack.
    static CLOSING: RefCell<Option<Vec<Arc<OpenFile>>>> = const { RefCell::new(None) };
}

/// Closes files. Where that closes further files that were in flight, they wait for their turn.
fn close_in_turn(files: Vec<Arc<OpenFile>>) {
    let is_nested = CLOSING.with_borrow_mut(|closing| match closing {
        Some(_) => true,
        None => {
            *closing = Some(Vec::new());
            false
        }
    });
    let add = |files: Vec<Arc<OpenFile>>| {
        CLOSING.with_borrow_mut(|closing| closing.get_or_insert_default().extend(files));
    };
    add(files);
    if is_nested {
        return;
    }
    while let Some(file) =
        CLOSING.with_borrow_mut(|closing| closing.as_mut().and_then(|files| files.pop()))
    {
        drop(file);
    }
    CLOSING.with_borrow_mut(|closing| *closing = None);
}

impl Drop for Files {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        N_IN_FLIGHT.fetch_sub(self.0.len(), Ordering::Relaxed);
        close_in_turn(std::mem::take(&mut self.0));
    }
}

/// What travels beside the data.
#[derive(Clone, Default)]
pub struct Control {
    /// `SCM_CREDENTIALS`
    pub sender: Option<Sender>,
    /// `SCM_RIGHTS`
    pub files: Files,
}

impl Control {
    /// Returns whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.sender.is_none() && self.files.is_empty()
    }
}
