//! What stands for the first container of a sandbox that has none: the sandbox of a pod that is held
//! for as long as there are containers in it, whichever they are.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ::syscalls::abi::signal::SIGKILL;
use ::syscalls::abi::wait as status;
use ::syscalls::{Errno, SysResult};

use super::target;
use crate::config::ProcessConfig;
use crate::config::network::NetworkConfig;
use crate::control::{
    ContainerStatus, ContainerTarget, ExecProcess, ProcessInfo, StartError, ThreadInfo,
};
use crate::fs::host_fd::HostPoller;
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::task::signal::is_valid;

/// A container without files and processes, which has what those of a pod share.
pub(super) struct Held {
    kernel: Arc<Kernel>,
    poller: Arc<HostPoller>,
    container: Arc<Container>,
}

impl Held {
    pub(super) fn new(
        kernel: Arc<Kernel>,
        poller: Arc<HostPoller>,
        container: Arc<Container>,
    ) -> Self {
        Self { kernel, poller, container }
    }
}

impl ContainerTarget for Held {
    fn connect_network(
        &self,
        network: &NetworkConfig,
        sockets: Vec<OwnedFd>,
    ) -> Result<(), StartError> {
        target::connect_network(&self.kernel, network, sockets)
    }

    fn serve_doors(&self) {
        target::serve_doors(&self.kernel, &self.poller);
    }

    fn connect(&self, socket: OwnedFd, port: u16) -> Result<(), StartError> {
        target::connect(&self.kernel, &self.poller, socket, port)
    }

    fn start(&self) -> Result<(), StartError> {
        let message = "a pod's sandbox has no program: start its containers".to_owned();
        Err(StartError { message, exit_code: 1 })
    }

    fn status(&self) -> ContainerStatus {
        match self.container.init.lock().status {
            Some(status) => ContainerStatus::Stopped { wait_status: status.cast_unsigned() },
            None => ContainerStatus::Running,
        }
    }

    /// SIGKILL is the end of the sandbox; nobody is there for any other signal.
    fn signal(&self, signo: i32, _all: bool) -> SysResult<()> {
        if !is_valid(signo) {
            return Err(Errno::EINVAL);
        }
        if signo == SIGKILL {
            self.shutdown();
        }
        Ok(())
    }

    fn signal_foreground(&self, signo: i32) -> SysResult<()> {
        self.signal(signo, false)
    }

    fn execute(
        &self,
        _process: &ProcessConfig,
        _stdio: Vec<OwnedFd>,
    ) -> Result<Arc<dyn ExecProcess>, StartError> {
        let message = "a pod's sandbox has no files: name one of its containers".to_owned();
        Err(StartError { message, exit_code: 1 })
    }

    fn pause(&self) -> bool {
        true
    }

    fn resume(&self) {}

    fn limit(&self, _memory: Option<u64>, _tasks: Option<u64>) {}

    fn processes(&self) -> Vec<ProcessInfo> {
        Vec::new()
    }

    fn threads(&self) -> Vec<ThreadInfo> {
        Vec::new()
    }

    fn shutdown(&self) {
        self.container.init.lock().status.get_or_insert(status::signaled(SIGKILL, false));
    }
}
