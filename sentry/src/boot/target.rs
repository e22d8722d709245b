//! The sandbox as the control server sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::syscalls::abi::signal::{SI_USER, SIGKILL, Siginfo};
use ::syscalls::abi::wait as status;
use ::syscalls::{Errno, SysResult};

use crate::control::{ContainerStatus, ControlTarget, ProcessInfo, StartError};
use crate::kernel::Kernel;
use crate::task::signal::post::kill_group;
use crate::task::signal::{is_valid, send_to_group, send_to_process_group};
use crate::task::{Task, run};

/// A sandbox whose first task is loaded.
pub(super) struct Sandbox {
    kernel: Arc<Kernel>,
    first: Arc<Task>,
    is_started: AtomicBool,
}

struct Start(Arc<Task>);

impl sentry_platform::Work for Start {
    fn run(self: Arc<Self>) {
        run::start(&self.0);
    }
}

impl Sandbox {
    pub(super) fn new(kernel: Arc<Kernel>, first: Arc<Task>) -> Self {
        Self { kernel, first, is_started: AtomicBool::new(false) }
    }
}

impl ControlTarget for Sandbox {
    fn start(&self) -> Result<(), StartError> {
        if self.is_started.swap(true, Ordering::SeqCst) {
            let message = "cannot start a container that has been started".to_owned();
            return Err(StartError { message, exit_code: 1 });
        }
        self.kernel.platform().submit(Arc::new(Start(self.first.clone())));
        Ok(())
    }

    fn status(&self) -> ContainerStatus {
        match self.kernel.init.lock().status {
            Some(status) => ContainerStatus::Stopped { wait_status: status.cast_unsigned() },
            None if self.is_started.load(Ordering::SeqCst) => ContainerStatus::Running,
            None => ContainerStatus::Created,
        }
    }

    fn signal(&self, signo: i32, all: bool) -> SysResult<()> {
        if !is_valid(signo) {
            return Err(Errno::EINVAL);
        }
        if self.kernel.init.lock().status.is_some() {
            return Err(Errno::ESRCH);
        }
        let info = Siginfo::kill(signo, SI_USER, 0, 0);
        if !all {
            return send_to_group(&self.first.group, info);
        }
        for (_, task) in self.kernel.root_pid_namespace.tasks() {
            if task.is_leader() {
                send_to_group(&task.group, info)?;
            }
        }
        Ok(())
    }

    fn signal_foreground(&self, signo: i32) -> SysResult<()> {
        let terminal = self.first.group.session().terminal.lock().clone();
        match terminal.and_then(|terminal| terminal.foreground()) {
            Some(foreground) if is_valid(signo) => {
                send_to_process_group(&foreground, Siginfo::kill(signo, SI_USER, 0, 0));
                Ok(())
            }
            _ => self.signal(signo, false),
        }
    }

    fn processes(&self) -> Vec<ProcessInfo> {
        let namespace = &self.kernel.root_pid_namespace;
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
            })
        };
        namespace.tasks().into_iter().filter_map(describe).collect()
    }

    fn shutdown(&self) {
        kill_group(&self.first.group, status::signaled(SIGKILL, false));
        let mut init = self.kernel.init.lock();
        if init.status.is_none() && !self.is_started.load(Ordering::SeqCst) {
            init.status = Some(status::signaled(SIGKILL, false));
        }
    }
}
