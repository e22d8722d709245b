//! Process groups and sessions: job control.

use std::sync::{Arc, Weak};

use super::ThreadGroup;
use super::pid_namespace::PidNamespace;
use crate::sync::Mutex;

/// A session: process groups that share a controlling terminal.
pub struct Session {
    /// The leader's pid in the root pid namespace.
    pub id: u32,
    /// Ids in all pid namespaces of the leader, outermost first.
    ids: Vec<(Arc<PidNamespace>, u32)>,
    /// The controlling terminal, an object of the terminal file system.
    pub terminal: Mutex<Option<Arc<dyn Terminal>>>,
}

/// What job control needs of a controlling terminal.
pub trait Terminal: std::any::Any + Send + Sync {
    /// Returns the device number.
    fn device(&self) -> u64;

    /// Is told that the session's leader has exited or given the terminal up; returns the
    /// foreground process group.
    fn disassociate(&self) -> Option<Arc<ProcessGroup>>;

    /// Returns the foreground process group.
    fn foreground(&self) -> Option<Arc<ProcessGroup>>;
}

/// A process group.
pub struct ProcessGroup {
    /// The id in the root pid namespace.
    pub id: u32,
    ids: Vec<(Arc<PidNamespace>, u32)>,
    /// The session.
    pub session: Arc<Session>,
    members: Mutex<Vec<Weak<ThreadGroup>>>,
}

fn id_in(ids: &[(Arc<PidNamespace>, u32)], namespace: &Arc<PidNamespace>) -> u32 {
    let entry = ids.get(namespace.level);
    entry.filter(|(of, _)| Arc::ptr_eq(of, namespace)).map_or(0, |(_, id)| *id)
}

impl Session {
    /// Creates a session whose id is the leader's.
    pub fn new(ids: Vec<(Arc<PidNamespace>, u32)>) -> Arc<Self> {
        for (namespace, id) in &ids {
            namespace.hold(*id);
        }
        let id = ids.first().map_or(0, |(_, id)| *id);
        Arc::new(Self { id, ids, terminal: Mutex::new(None) })
    }

    /// Returns the id as `namespace` numbers it, zero where it does not see the session.
    pub fn id_in(&self, namespace: &Arc<PidNamespace>) -> u32 {
        id_in(&self.ids, namespace)
    }
}

impl Session {
    /// Returns the namespace that the leader was made in.
    pub(crate) fn namespace(&self) -> Option<Arc<PidNamespace>> {
        self.ids.first().map(|(namespace, _)| namespace.clone())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for (namespace, id) in &self.ids {
            namespace.release(*id);
        }
    }
}

impl ProcessGroup {
    /// Creates an empty process group whose id is the leader's.
    pub fn new(ids: Vec<(Arc<PidNamespace>, u32)>, session: Arc<Session>) -> Arc<Self> {
        for (namespace, id) in &ids {
            namespace.hold(*id);
        }
        let id = ids.first().map_or(0, |(_, id)| *id);
        Arc::new(Self { id, ids, session, members: Mutex::new(Vec::new()) })
    }

    /// Returns the id as `namespace` numbers it, zero where it does not see the group.
    pub fn id_in(&self, namespace: &Arc<PidNamespace>) -> u32 {
        id_in(&self.ids, namespace)
    }

    /// Returns the member processes, zombies included.
    pub fn members(&self) -> Vec<Arc<ThreadGroup>> {
        self.members.lock().iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn add(&self, group: &Arc<ThreadGroup>) {
        self.members.lock().push(Arc::downgrade(group));
    }

    pub(crate) fn remove(&self, group: &ThreadGroup) {
        self.members.lock().retain(|member| !std::ptr::eq(member.as_ptr(), group));
    }

    /// Returns whether no member has a parent in another process group of the same session.
    /// The first process of a container counts as any other parent: only the host's init does not.
    /// `except` is a process that is just exiting. The caller holds the kernel's task-tree lock.
    pub(crate) fn is_orphaned(&self, except: Option<&ThreadGroup>) -> bool {
        !self.members().iter().any(|member| {
            if except.is_some_and(|except| std::ptr::eq(except, &raw const **member))
                || member.is_zombie()
            {
                return false;
            }
            member.parent().is_some_and(|parent| {
                let theirs = parent.process_group();
                theirs.id != self.id && theirs.session.id == self.session.id
            })
        })
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        for (namespace, id) in &self.ids {
            namespace.release(*id);
        }
    }
}
