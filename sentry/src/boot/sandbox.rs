//! The sandbox as the control server sees it: its containers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sentry_platform::Nursery;

use super::container;
use super::held::Held;
use super::target::{self, Member};
use crate::config::ContainerConfig;
use crate::control::{ContainerTarget, ControlTarget, StartError};
use crate::fs::host_fd::HostPoller;
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::net::inet::forward::Door;
use crate::sync::Mutex;

/// A sandbox whose first container is loaded, or that is held without one.
pub(super) struct Sandbox {
    kernel: Arc<Kernel>,
    poller: Arc<HostPoller>,
    first: Arc<dyn ContainerTarget>,
    /// What the others share with the first one.
    namespaces: Arc<Container>,
    /// The others.
    members: Mutex<BTreeMap<String, Arc<Member>>>,
}

impl Sandbox {
    /// Creates a sandbox with its first container.
    ///
    /// # Errors
    /// As [`container::load`].
    pub(super) fn new(
        kernel: &Arc<Kernel>,
        poller: &Arc<HostPoller>,
        config: &ContainerConfig,
        gofers: Vec<OwnedFd>,
        stdio: Vec<OwnedFd>,
    ) -> Result<Self, StartError> {
        let container = Container::new(kernel, config, None, None, None);
        let loaded = container::load(kernel, &container, poller, config, gofers, stdio)?;
        let first = Member::new(kernel.clone(), poller.clone(), container.clone(), loaded);
        Ok(Self {
            kernel: kernel.clone(),
            poller: poller.clone(),
            first: Arc::new(first),
            namespaces: container,
            members: Mutex::new(BTreeMap::new()),
        })
    }

    /// Creates a sandbox that is held until it is shut down, whatever becomes of its containers.
    pub(super) fn held(
        kernel: &Arc<Kernel>,
        poller: &Arc<HostPoller>,
        config: &ContainerConfig,
    ) -> Self {
        let container = Container::new(kernel, config, None, None, None);
        Self {
            kernel: kernel.clone(),
            poller: poller.clone(),
            first: Arc::new(Held::new(kernel.clone(), poller.clone(), container.clone())),
            namespaces: container,
            members: Mutex::new(BTreeMap::new()),
        }
    }

    fn member(&self, id: &str) -> Option<Arc<dyn ContainerTarget>> {
        if self.namespaces.id == id {
            return Some(self.first.clone());
        }
        let member = self.members.lock().get(id)?.clone();
        Some(member)
    }
}

fn is_unknown(id: &str) -> StartError {
    StartError { message: format!("the sandbox has no container {id}"), exit_code: 1 }
}

fn exists(id: &str) -> StartError {
    StartError { message: format!("the sandbox has a container {id} already"), exit_code: 1 }
}

impl ControlTarget for Sandbox {
    fn first(&self) -> Arc<dyn ContainerTarget> {
        self.first.clone()
    }

    fn container(&self, id: &str) -> Option<Arc<dyn ContainerTarget>> {
        self.member(id)
    }

    fn prepare(&self) -> Result<Arc<dyn Nursery>, StartError> {
        let nursery = self.kernel.platform().nursery();
        nursery.map_err(|errno| {
            container::failure("starting a process (too low a limit of processes?)", errno)
        })
    }

    fn create(
        &self,
        config: &ContainerConfig,
        nursery: Arc<dyn Nursery>,
        gofers: Vec<OwnedFd>,
        stdio: Vec<OwnedFd>,
    ) -> Result<Arc<dyn ContainerTarget>, StartError> {
        if self.member(&config.id).is_some() {
            return Err(exists(&config.id));
        }
        let (kernel, poller) = (&self.kernel, &self.poller);
        let first = Some(&*self.namespaces);
        let holder = config.shares_pids_of.as_ref().map(|id| {
            let member = self.members.lock().get(id).cloned();
            member.map(|member| member.container().clone()).ok_or_else(|| is_unknown(id))
        });
        let holder = holder.transpose()?;
        let pid_holder = holder.as_deref().or(first);
        let container = Container::new(kernel, config, first, pid_holder, Some(nursery));
        let loaded = container::load(kernel, &container, poller, config, gofers, stdio)
            .inspect_err(|_| target::kill_all(&container))?;
        let member = Member::new(kernel.clone(), poller.clone(), container, loaded);
        let member = Arc::new(member);
        match self.members.lock().entry(config.id.clone()) {
            Entry::Vacant(place) => place.insert(member.clone()),
            // One that was created meanwhile.
            Entry::Occupied(_) => {
                member.end();
                return Err(exists(&config.id));
            }
        };
        Ok(member)
    }

    fn next_door(&self) -> Option<Door> {
        self.kernel.inet.next_door()
    }

    fn open_door(&self, door: Door, socket: Option<OwnedFd>) {
        self.kernel.inet.open_door(door, socket);
    }

    fn remove(&self, container: &Arc<dyn ContainerTarget>) {
        let member = {
            let mut members = self.members.lock();
            let id = members.iter().find_map(|(id, member)| {
                let is_it = std::ptr::addr_eq(Arc::as_ptr(member), Arc::as_ptr(container));
                is_it.then(|| id.clone())
            });
            id.and_then(|id| members.remove(&id))
        };
        if let Some(member) = member {
            member.end();
        }
    }
}
