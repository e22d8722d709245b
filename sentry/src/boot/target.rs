//! A container as the control server sees it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::syscalls::abi::signal::{SI_USER, SIGKILL, Siginfo};
use ::syscalls::abi::wait as status;
use ::syscalls::{Errno, SysResult, UserAddr};

use super::container::Loaded;
use super::process::{self, Start};
use crate::config::ProcessConfig;
use crate::config::network::NetworkConfig;
use crate::control::{
    ContainerStatus, ContainerTarget, ExecProcess, ProcessInfo, StartError, ThreadInfo,
};
use crate::fs::host_fd::HostPoller;
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::net::stack::Stack;
use crate::task::signal::is_valid;
use crate::task::signal::post::kill_group;
use crate::task::signal::send_to_group;
use crate::task::{Task, exit, run};
use crate::vfs::mount::MountNamespace;

/// A container whose first task is loaded.
pub(super) struct Member {
    kernel: Arc<Kernel>,
    poller: Arc<HostPoller>,
    container: Arc<Container>,
    mounts: Arc<MountNamespace>,
    first: Arc<Task>,
    is_started: AtomicBool,
}

impl Member {
    pub(super) fn new(
        kernel: Arc<Kernel>,
        poller: Arc<HostPoller>,
        container: Arc<Container>,
        loaded: Loaded,
    ) -> Self {
        let Loaded { mounts, first } = loaded;
        Self { kernel, poller, container, mounts, first, is_started: AtomicBool::new(false) }
    }

    /// Returns what the kernel knows of it.
    pub(super) fn container(&self) -> &Arc<Container> {
        &self.container
    }

    /// Ends the container in a sandbox that lives on.
    pub(super) fn end(&self) {
        if !self.is_started.swap(true, Ordering::SeqCst) {
            undo(&self.first);
        }
        kill_all(&self.container);
        self.container.close();
    }

    /// Whoever sends something into the container may have put files into it before.
    fn distrust_root(&self) {
        self.mounts.root().mount.sb.fs.distrust();
    }
}

/// Gives a sandbox its network.
pub(super) fn connect_network(
    kernel: &Arc<Kernel>,
    network: &NetworkConfig,
    sockets: Vec<OwnedFd>,
) -> Result<(), StartError> {
    let failed = |message: String| StartError { message, exit_code: 1 };
    if kernel.inet.stack().is_some() {
        return Err(failed("the sandbox has a network already".to_owned()));
    }
    let stack = Stack::start(kernel, network, sockets)
        .map_err(|errno| failed(format!("starting the network: {}", errno.text())))?;
    kernel.inet.attach(stack);
    Ok(())
}

/// As [`ContainerTarget::serve_doors`].
pub(super) fn serve_doors(kernel: &Kernel, poller: &Arc<HostPoller>) {
    if let Some(notifier) = kernel.status_notifier.get() {
        kernel.inet.serve_doors(poller, notifier);
    }
}

/// As [`ContainerTarget::connect`].
pub(super) fn connect(
    kernel: &Kernel,
    poller: &Arc<HostPoller>,
    socket: OwnedFd,
    port: u16,
) -> Result<(), StartError> {
    let failed = |message: String| StartError { message, exit_code: 1 };
    if kernel.host_network.is_some() {
        let message = "the container's ports are the host's own: connect to them there";
        return Err(failed(message.to_owned()));
    }
    kernel.inet.connect_from_host(poller, socket, port).map_err(|errno| {
        failed(format!("connecting to port {port}: {}", errno.text().to_lowercase()))
    })
}

/// Kills every process of a container.
pub(super) fn kill_all(container: &Container) {
    for (_, task) in container.tasks() {
        if task.is_leader() {
            kill_group(&task.group, status::signaled(SIGKILL, false));
        }
    }
}

/// Removes a task that has its program and has never run.
fn undo(task: &Arc<Task>) {
    let context = task.context.lock().clone();
    exit::undo_clone(task);
    context.address_space().kill();
}

impl ContainerTarget for Member {
    fn connect_network(
        &self,
        network: &NetworkConfig,
        sockets: Vec<OwnedFd>,
    ) -> Result<(), StartError> {
        connect_network(&self.kernel, network, sockets)
    }

    fn serve_doors(&self) {
        serve_doors(&self.kernel, &self.poller);
    }

    fn connect(&self, socket: OwnedFd, port: u16) -> Result<(), StartError> {
        connect(&self.kernel, &self.poller, socket, port)
    }

    fn start(&self) -> Result<(), StartError> {
        if self.is_started.swap(true, Ordering::SeqCst) {
            let message = "cannot start a container that has been started".to_owned();
            return Err(StartError { message, exit_code: 1 });
        }
        self.kernel.platform().submit(Arc::new(Start(self.first.clone())));
        Ok(())
    }

    fn status(&self) -> ContainerStatus {
        match self.container.init.lock().status {
            Some(status) => ContainerStatus::Stopped { wait_status: status.cast_unsigned() },
            None if self.container.is_frozen() => ContainerStatus::Paused,
            None if self.is_started.load(Ordering::SeqCst) => ContainerStatus::Running,
            None => ContainerStatus::Created,
        }
    }

    fn signal(&self, signo: i32, all: bool) -> SysResult<()> {
        if !is_valid(signo) {
            return Err(Errno::EINVAL);
        }
        if self.container.init.lock().status.is_some() {
            return Err(Errno::ESRCH);
        }
        self.distrust_root();
        let info = Siginfo::kill(signo, SI_USER, 0, 0);
        if !all {
            return send_to_group(&self.first.group, info);
        }
        for (_, task) in self.container.tasks() {
            if task.is_leader() {
                send_to_group(&task.group, info)?;
            }
        }
        Ok(())
    }

    fn signal_foreground(&self, signo: i32) -> SysResult<()> {
        process::signal(&self.first.group, signo, true)
    }

    fn execute(
        &self,
        process: &ProcessConfig,
        stdio: Vec<OwnedFd>,
    ) -> Result<Arc<dyn ExecProcess>, StartError> {
        self.distrust_root();
        process::execute(&self.kernel, &self.container, &self.poller, &self.mounts, process, stdio)
    }

    fn pause(&self) -> bool {
        self.container.freeze();
        let tasks = self.container.tasks();
        for (_, task) in &tasks {
            run::retreat(task);
        }
        let is_started = self.is_started.load(Ordering::SeqCst);
        let has_begun = |task| is_started || !Arc::ptr_eq(task, &self.first);
        tasks.iter().all(|(_, task)| run::is_at_rest(task) || !has_begun(task))
    }

    fn resume(&self) {
        self.distrust_root();
        self.container.thaw();
        for (_, task) in self.container.tasks() {
            run::wake(&task);
        }
    }

    fn limit(&self, memory: Option<u64>, tasks: Option<u64>) {
        self.container.set_limits(memory, tasks);
    }

    fn processes(&self) -> Vec<ProcessInfo> {
        let namespace = &self.container.pid_namespace;
        let describe = |(pid, task): (u32, Arc<Task>)| {
            if !task.is_leader() || task.group.is_zombie() {
                return None;
            }
            let (user, system) = task.group.cpu_ns();
            Some(ProcessInfo {
                pid,
                ppid: task.group.parent().map_or(0, |parent| parent.pid_in(namespace)),
                uid: task.creds().uid,
                n_threads: u32::try_from(task.group.live_tasks().len()).unwrap_or(u32::MAX),
                cpu_time_ns: user.saturating_add(system),
                start_time_ns: task.group.start_ns,
                command: String::from_utf8_lossy(&task.comm.lock()).into_owned(),
                is_first: Arc::ptr_eq(&task.group, &self.first.group),
                host_pid: task.context.lock().address_space().host_pid(),
            })
        };
        self.container.tasks().into_iter().filter_map(describe).collect()
    }

    fn threads(&self) -> Vec<ThreadInfo> {
        let namespace = &self.container.pid_namespace;
        let describe = |(tid, task): (u32, Arc<Task>)| ThreadInfo {
            pid: task.group.pid_in(namespace),
            tid,
            command: String::from_utf8_lossy(&task.comm.lock()).into_owned(),
            state: run::state_of(&task).0,
            call: waiting_call(&task),
        };
        self.container.tasks().into_iter().map(describe).collect()
    }

    fn shutdown(&self) {
        kill_all(&self.container);
        let mut init = self.container.init.lock();
        if init.status.is_none() && !self.is_started.load(Ordering::SeqCst) {
            init.status = Some(status::signaled(SIGKILL, false));
        }
    }
}

/// Returns the system call in which a thread waits.
fn waiting_call(task: &Task) -> Option<String> {
    if task.run_state.load(Ordering::SeqCst) != run::BLOCKED || !task.is_in_call() {
        return None;
    }
    let call = *task.call.lock();
    let space = task.context.lock().address_space();
    let mut read = |addr: UserAddr, dst: &mut [u8]| space.read(addr, dst).unwrap_or(0);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = match ::syscalls::table::lookup(call.number) {
        Some(info) => ::syscalls::render::render_entry(info, &call.args, &mut read, &mut text),
        None => ::syscalls::render::render_unknown(call.number, &call.args, &mut text),
    };
    Some(text)
}
