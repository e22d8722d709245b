//! SIGIO: telling a process that a file with `O_ASYNC` has become ready. SIGURG: telling it that a
//! socket has urgent data.

use std::sync::{Arc, Weak};

use syscalls::abi::fs::{F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID, OpenFlags};
use syscalls::abi::signal::{
    POLL_ERR, POLL_HUP, POLL_IN, POLL_MSG, POLL_OUT, POLL_PRI, SI_KERNEL, SIGIO, SIGURG, Siginfo,
};
use syscalls::arg::Fd;

use crate::net::SocketFile;
use crate::sync::{Events, Registration, Waiter};
use crate::task::pid_namespace::PidNamespace;
use crate::task::{CurrentTask, Task, signal};
use crate::vfs::OpenFile;
use crate::vfs::file::downcast;
use crate::vfs::lease::Messenger;

/// Who waits on behalf of the owner of a file with `O_ASYNC`.
struct Notifier {
    file: Weak<OpenFile>,
    fd: i32,
    namespace: Arc<PidNamespace>,
}

/// The registration, kept with the open file.
struct Watch {
    _registrations: Vec<Registration>,
    _waiter: Arc<dyn Waiter>,
}

impl Waiter for Notifier {
    fn notify(&self, _key: u64, events: Events) {
        let (code, events) = [
            (Events::IN, POLL_IN),
            (Events::OUT, POLL_OUT),
            (Events::PRI, POLL_PRI),
            (Events::ERR, POLL_ERR),
            (Events::HUP, POLL_HUP),
        ]
        .into_iter()
        .find(|(event, _)| events.contains(*event))
        .map_or((POLL_IN, events), |(_, code)| (code, events));
        self.send(code, events.bits().into());
    }
}

/// Who waits for urgent data on behalf of the owner of a socket.
struct UrgentNotifier(Notifier);

impl Waiter for UrgentNotifier {
    fn notify(&self, _key: u64, events: Events) {
        // The end of a connection is told of with all events there are.
        if !events.contains(Events::PRI) || events.contains(Events::HUP) {
            return;
        }
        let Some(file) = self.0.file.upgrade() else { return };
        let owner = *file.owner.lock();
        let info = Siginfo::new(SIGURG, SI_KERNEL);
        for task in self.0.targets(owner.pid.unsigned_abs(), owner.kind) {
            // A signal that is not queued a second time is not lost.
            let _ = if owner.kind == F_OWNER_TID {
                signal::send_to_task(&task, info)
            } else {
                signal::send_to_group(&task.group, info)
            };
        }
    }
}

impl Messenger for Notifier {
    fn tell(&self) {
        // What Linux says of `POLL_MSG`: POLLIN | POLLRDNORM | POLLMSG.
        self.send(POLL_MSG, 0x441);
    }
}

impl Notifier {
    fn send(&self, code: i32, band: i64) {
        let Some(file) = self.file.upgrade() else { return };
        let owner = *file.owner.lock();
        let info = match owner.signo {
            0 => Siginfo::new(SIGIO, SI_KERNEL),
            signo => Siginfo::poll(signo, code, band, self.fd),
        };
        for task in self.targets(owner.pid.unsigned_abs(), owner.kind) {
            // Where the queue of real-time signals is full, Linux sends a plain SIGIO.
            let sent = if owner.kind == F_OWNER_TID {
                signal::send_to_task(&task, info)
            } else {
                signal::send_to_group(&task.group, info)
            };
            if sent.is_err() {
                let _ = signal::send_to_group(&task.group, Siginfo::new(SIGIO, SI_KERNEL));
            }
        }
    }

    fn targets(&self, pid: u32, kind: i32) -> Vec<Arc<Task>> {
        if pid == 0 {
            return Vec::new();
        }
        if kind != F_OWNER_PGRP {
            return self.namespace.task(pid).into_iter().collect();
        }
        let is_member = |task: &Task| {
            task.is_leader() && task.group.process_group().id_in(&self.namespace) == pid
        };
        self.namespace
            .tasks()
            .into_iter()
            .map(|(_, task)| task)
            .filter(|task| is_member(task))
            .collect()
    }
}

/// Returns what tells the owner of a file of leases and of changes in directories.
pub(super) fn messenger(task: &CurrentTask, fd: Fd, file: &Arc<OpenFile>) -> Arc<dyn Messenger> {
    Arc::new(Notifier { file: Arc::downgrade(file), fd: fd.0, namespace: task.pid_namespace() })
}

/// Makes the caller's process the owner of a file that has none.
pub(super) fn own(task: &CurrentTask, file: &OpenFile) {
    let mut owner = file.owner.lock();
    if owner.pid == 0 {
        let pid = task.group.pid_in(&task.pid_namespace());
        owner.pid = i32::try_from(pid).unwrap_or(0);
        owner.kind = F_OWNER_PID;
    }
}

/// Starts or stops watching a file whose flags have changed.
pub(super) fn update(task: &CurrentTask, fd: Fd, file: &Arc<OpenFile>) {
    let is_wanted = file.flags_set().contains(OpenFlags::ASYNC);
    let is_watched = file.async_watch.lock().is_some();
    if is_wanted == is_watched {
        return;
    }
    let new: Option<Box<dyn std::any::Any + Send>> = if is_wanted {
        let waiter: Arc<dyn Waiter> = Arc::new(Notifier {
            file: Arc::downgrade(file),
            fd: fd.0,
            namespace: task.pid_namespace(),
        });
        let events = Events::READABLE | Events::WRITABLE | Events::PRI;
        let registrations = file.file.register(&waiter, events, 0);
        Some(Box::new(Watch { _registrations: registrations, _waiter: waiter }))
    } else {
        None
    };
    let old = std::mem::replace(&mut *file.async_watch.lock(), new);
    drop(old);
}

/// Starts or stops watching a socket whose owner has changed for urgent data.
pub(super) fn owner_changed(task: &CurrentTask, fd: Fd, file: &Arc<OpenFile>) {
    // DEVIATION: of the host's sockets nobody learns when urgent data has come.
    let is_ours =
        downcast::<SocketFile>(&file.file).is_some_and(|socket| !socket.socket.passes_options());
    let is_wanted = is_ours && file.owner.lock().pid != 0;
    let new: Option<Box<dyn std::any::Any + Send>> = is_wanted.then(|| {
        let waiter: Arc<dyn Waiter> = Arc::new(UrgentNotifier(Notifier {
            file: Arc::downgrade(file),
            fd: fd.0,
            namespace: task.pid_namespace(),
        }));
        let registrations = file.file.register(&waiter, Events::PRI, 0);
        let watch: Box<dyn std::any::Any + Send> =
            Box::new(Watch { _registrations: registrations, _waiter: waiter });
        watch
    });
    let old = std::mem::replace(&mut *file.urgent_watch.lock(), new);
    drop(old);
}
