//! The sentry's end of the control protocol: one thread, one poll loop.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use sentry_host::control as host;
use syscalls::abi::signal::SIGKILL;
use syscalls::{Errno, SysResult};

use super::message::{ContainerStatus, ProcessInfo, Request, Response, StartError, ThreadInfo};
use crate::config::ProcessConfig;

/// The longest request, in bytes: room for the longest arguments and environment that Linux takes.
const MAX_REQUEST: usize = 16 << 20;

/// How much of a request is read at a time.
const CHUNK: usize = 16 << 10;

/// How many clients are served at a time; further ones wait in the socket's backlog.
const MAX_CLIENTS: usize = 64;

/// What the control protocol acts on: the kernel. No call may block.
pub trait ControlTarget: Send + Sync {
    /// Lets the first process run.
    ///
    /// # Errors
    /// Where it runs already or has ended.
    fn start(&self) -> Result<(), StartError>;

    /// Returns how far the container is.
    fn status(&self) -> ContainerStatus;

    /// Sends a signal to the first process or, with `all`, to every process of the container. Comes
    /// from outside the container's pid namespace: SIGKILL and SIGSTOP are never ignored.
    ///
    /// # Errors
    /// `EINVAL` for a bad number, `ESRCH` where nothing is left to signal.
    fn signal(&self, signo: i32, all: bool) -> SysResult<()>;

    /// Sends a signal to the foreground process group of the container's terminal, or to the first
    /// process where there is none.
    ///
    /// # Errors
    /// As [`ControlTarget::signal`].
    fn signal_foreground(&self, signo: i32) -> SysResult<()>;

    /// Starts a further process with these descriptors.
    ///
    /// # Errors
    /// Where the program cannot be run.
    fn execute(
        &self,
        process: &ProcessConfig,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Arc<dyn ExecProcess>, StartError>;

    /// Keeps every process from running application code; returns whether none does any more.
    fn pause(&self) -> bool;

    /// Ends a pause.
    fn resume(&self);

    /// Changes the limits of memory and tasks that there are.
    fn limit(&self, memory: Option<u64>, tasks: Option<u64>);

    /// Lists the container's processes.
    fn processes(&self) -> Vec<ProcessInfo>;

    /// Lists the container's threads.
    fn threads(&self) -> Vec<ThreadInfo>;

    /// Kills every process. The status becomes `Stopped` soon.
    fn shutdown(&self);
}

/// A process that a client has started.
pub trait ExecProcess: Send + Sync {
    /// Returns its id in the container's pid namespace.
    fn pid(&self) -> u32;

    /// Returns the wait status, once the process has ended.
    fn wait_status(&self) -> Option<u32>;

    /// Sends a signal to it or, with `to_foreground`, to the foreground process group of its
    /// terminal.
    ///
    /// # Errors
    /// As [`ControlTarget::signal`].
    fn signal(&self, signo: i32, to_foreground: bool) -> SysResult<()>;

    /// Kills it.
    fn kill(&self);
}

/// The kernel's way to tell the server that [`ControlTarget::status`] has changed.
#[derive(Clone, Debug)]
pub struct StatusNotifier(Arc<OwnedFd>);

impl StatusNotifier {
    /// Makes the server look at the status. Callable from any thread, never blocks.
    pub fn notify(&self) {
        host::event_notify(self.0.as_fd());
    }
}

/// The server of a sandbox.
pub struct ControlServer {
    listener: OwnedFd,
    event: Arc<OwnedFd>,
    clients: Vec<Client>,
}

struct Client {
    socket: OwnedFd,
    /// The beginning of a request whose end has not arrived, and what has come with it.
    pending: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    waiting: bool,
    told_failure: bool,
    /// The process that this client has started and whose end it has not been told.
    process: Option<Arc<dyn ExecProcess>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            process.kill();
        }
    }
}

impl ControlServer {
    /// Creates a server and the kernel's handle to it.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn new(listener: OwnedFd) -> SysResult<(Self, StatusNotifier)> {
        let event = Arc::new(host::event()?);
        let notifier = StatusNotifier(Arc::clone(&event));
        Ok((Self { listener, event, clients: Vec::new() }, notifier))
    }

    /// Serves until the container has stopped and whoever waits for it knows; returns the exit
    /// status for the sentry process.
    ///
    /// A sandbox whose container could not be created is served until the first client that asks
    /// for it has got the reason.
    pub fn run(mut self, target: &Result<Arc<dyn ControlTarget>, StartError>) -> i32 {
        loop {
            match target {
                Ok(target) => {
                    self.tell_ends();
                    if let Some(code) = target.status().exit_code() {
                        self.answer_waiters(target.status());
                        return code;
                    }
                }
                Err(error) if self.clients.iter().any(|client| client.told_failure) => {
                    return error.exit_code;
                }
                Err(_) => {}
            }
            match self.serve_once(target) {
                Ok(()) | Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(_) => return 1,
            }
        }
    }

    /// Waits for input, then serves whoever has sent some.
    fn serve_once(&mut self, target: &Result<Arc<dyn ControlTarget>, StartError>) -> SysResult<()> {
        let mut fds = vec![self.event.as_fd()];
        fds.extend(self.clients.iter().map(|client| client.socket.as_fd()));
        if self.clients.len() < MAX_CLIENTS {
            fds.push(self.listener.as_fd());
        }
        let ready = host::wait_readable(&fds)?;
        let mut ready = ready.into_iter();
        if ready.next() == Some(true) {
            host::event_clear(self.event.as_fd());
        }
        self.clients
            .retain_mut(|client| ready.next() != Some(true) || client.serve(target).is_ok());
        if ready.next() == Some(true) {
            let socket = host::accept(self.listener.as_fd())?;
            self.clients.push(Client {
                socket,
                pending: Vec::new(),
                descriptors: Vec::new(),
                process: None,
                waiting: false,
                told_failure: false,
            });
        }
        Ok(())
    }

    /// Tells clients how the processes that they have started have ended.
    fn tell_ends(&mut self) {
        for client in &mut self.clients {
            let ended = client.process.as_ref().and_then(|process| process.wait_status());
            if let Some(wait_status) = ended {
                client.process = None;
                // A client that is gone is noticed when it is read from.
                let status = ContainerStatus::Stopped { wait_status };
                let _ = client.answer(&Response::Status { status });
            }
        }
    }

    /// Tells everybody who waits that the container has stopped, and every process with it.
    fn answer_waiters(&mut self, status: ContainerStatus) {
        let killed = ContainerStatus::Stopped { wait_status: SIGKILL.cast_unsigned() };
        for client in &mut self.clients {
            if client.process.take().is_some() {
                let _ = client.answer(&Response::Status { status: killed });
            }
        }
        for client in self.clients.iter().filter(|client| client.waiting) {
            // A client that is gone no longer waits.
            let _ = client.answer(&Response::Status { status });
        }
    }
}

impl Client {
    /// Reads what has arrived and answers every complete request.
    ///
    /// # Errors
    /// Any, where the client is to be dropped.
    fn serve(&mut self, target: &Result<Arc<dyn ControlTarget>, StartError>) -> SysResult<()> {
        let mut buffer = [0; CHUNK];
        let (received, descriptors) = host::receive(self.socket.as_fd(), &mut buffer)?;
        if received.is_empty() {
            return Err(Errno::EPIPE);
        }
        let mut searched = self.pending.len();
        self.pending.extend_from_slice(received);
        self.descriptors.extend(descriptors);
        while let Some(end) = self.next_end(searched) {
            searched = 0;
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let request: Request = serde_json::from_slice(&line).map_err(|_| Errno::EINVAL)?;
            let response = match target {
                Ok(target) => self.handle(request, target.as_ref()),
                Err(error) => {
                    self.told_failure = true;
                    Some(Response::from(error.clone()))
                }
            };
            if let Some(response) = response {
                self.answer(&response)?;
            }
        }
        if self.pending.len() >= MAX_REQUEST { Err(Errno::EMSGSIZE) } else { Ok(()) }
    }

    /// Returns where the first line ends whose beginning, up to `searched`, has no end.
    fn next_end(&self, searched: usize) -> Option<usize> {
        let rest = self.pending.get(searched..)?;
        rest.iter().position(|&byte| byte == b'\n').map(|at| at + searched)
    }

    fn handle(&mut self, request: Request, target: &dyn ControlTarget) -> Option<Response> {
        if let Some(process) = &self.process {
            match request {
                Request::Signal { signo, .. } => return Some(process.signal(signo, false).into()),
                Request::ForegroundSignal { signo } => {
                    return Some(process.signal(signo, true).into());
                }
                _ => {}
            }
        }
        Some(match request {
            Request::Created => Response::Done,
            Request::Start => target.start().into(),
            Request::Status => Response::Status { status: target.status() },
            Request::Wait => {
                self.waiting = true;
                return None;
            }
            Request::Signal { signo, all } => target.signal(signo, all).into(),
            Request::ForegroundSignal { signo } => target.signal_foreground(signo).into(),
            Request::Threads => Response::Threads { threads: target.threads() },
            Request::Processes => Response::Processes { processes: target.processes() },
            Request::Execute { process } => {
                let descriptors = std::mem::take(&mut self.descriptors);
                match target.execute(&process, descriptors) {
                    Ok(process) => {
                        let pid = process.pid();
                        self.process = Some(process);
                        Response::Executed { pid }
                    }
                    Err(error) => error.into(),
                }
            }
            Request::Pause => {
                let status =
                    if target.pause() { target.status() } else { ContainerStatus::Running };
                Response::Status { status }
            }
            Request::Resume => {
                target.resume();
                Response::Done
            }
            Request::Limit { memory, tasks } => {
                target.limit(memory, tasks);
                Response::Done
            }
            Request::Shutdown => {
                target.shutdown();
                Response::Done
            }
        })
    }

    fn answer(&self, response: &Response) -> SysResult<()> {
        let mut line = serde_json::to_vec(response).map_err(|_| Errno::EIO)?;
        line.push(b'\n');
        host::send(self.socket.as_fd(), &line)
    }
}

impl From<StartError> for Response {
    fn from(error: StartError) -> Self {
        Self::Failed { message: error.message, exit_code: error.exit_code }
    }
}

impl From<Result<(), StartError>> for Response {
    fn from(result: Result<(), StartError>) -> Self {
        result.map_or_else(Self::from, |()| Self::Done)
    }
}

impl From<SysResult<()>> for Response {
    fn from(result: SysResult<()>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(errno) => Self::Failed { message: errno.text().to_lowercase(), exit_code: 1 },
        }
    }
}
