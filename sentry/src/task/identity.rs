//! What the platform answers without the sentry: process, user and group ids.
//!
//! The facts are given to a task's context whenever one of them has changed, before the task goes
//! back to the application; a task that is running application code is interrupted for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sentry_platform::FastPathFacts;

use super::{CurrentTask, Task, ThreadGroup, run};

/// Marks a task's facts as changed by itself: they are given anew when it goes back.
pub(crate) fn changed(task: &Task) {
    task.facts_changed.store(true, Ordering::SeqCst);
}

/// Marks the facts of all threads of a process as changed by somebody else.
pub(crate) fn changed_for_all(group: &Arc<ThreadGroup>) {
    for task in group.live_tasks() {
        changed(&task);
        run::interrupt(&task);
    }
}

/// Gives the platform the facts, if they have changed.
pub(crate) fn update(current: &CurrentTask) {
    if !current.facts_changed.load(Ordering::SeqCst)
        || !current.facts_changed.swap(false, Ordering::SeqCst)
    {
        return;
    }
    if !current.kernel.fast_path || current.ptrace.is_on() || !current.seccomp.allows_fast_path() {
        current.has_fast_path.store(false, Ordering::Relaxed);
        current.context().set_fast_path(None);
        return;
    }
    let namespace = current.pid_namespace();
    let creds = current.creds();
    let process_group = current.group.process_group();
    let facts = FastPathFacts {
        pid: current.group.pid_in(&namespace),
        tid: current.tid_in(&namespace),
        ppid: current.group.parent().map_or(0, |parent| parent.pid_in(&namespace)),
        uid: creds.user_ns.shown_uid(creds.uid),
        euid: creds.user_ns.shown_uid(creds.euid),
        gid: creds.user_ns.shown_gid(creds.gid),
        egid: creds.user_ns.shown_gid(creds.egid),
        pgid: process_group.id_in(&namespace),
        sid: process_group.session.id_in(&namespace),
    };
    // What it is lent may be no longer its own to use.
    current.context().set_table(0);
    current.context().set_umask(0);
    current.has_fast_path.store(true, Ordering::Relaxed);
    current.context().set_fast_path(Some(facts));
}
