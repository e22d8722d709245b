//! The sentry's end of the control protocol: one thread, one poll loop.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use sentry_host::control as host;
use syscalls::{Errno, SysResult};

use super::message::{ContainerStatus, ProcessInfo, Request, Response, StartError};

/// The longest request, in bytes.
const MAX_REQUEST: usize = 4096;

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

    /// Lists the container's processes.
    fn processes(&self) -> Vec<ProcessInfo>;

    /// Kills every process. The status becomes `Stopped` soon.
    fn shutdown(&self);
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
#[derive(Debug)]
pub struct ControlServer {
    listener: OwnedFd,
    event: Arc<OwnedFd>,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    /// The beginning of a request whose end has not arrived.
    pending: Vec<u8>,
    waiting: bool,
    told_failure: bool,
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
                waiting: false,
                told_failure: false,
            });
        }
        Ok(())
    }

    fn answer_waiters(&self, status: ContainerStatus) {
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
        let mut buffer = [0; MAX_REQUEST];
        let received = host::receive(self.socket.as_fd(), &mut buffer)?;
        if received.is_empty() {
            return Err(Errno::EPIPE);
        }
        self.pending.extend_from_slice(received);
        while let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let request = serde_json::from_slice(&line).map_err(|_| Errno::EINVAL)?;
            let response = match target {
                Ok(target) => self.handle(&request, target.as_ref()),
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

    fn handle(&mut self, request: &Request, target: &dyn ControlTarget) -> Option<Response> {
        Some(match *request {
            Request::Created => Response::Done,
            Request::Start => target.start().into(),
            Request::Status => Response::Status { status: target.status() },
            Request::Wait => {
                self.waiting = true;
                return None;
            }
            Request::Signal { signo, all } => target.signal(signo, all).into(),
            Request::ForegroundSignal { signo } => target.signal_foreground(signo).into(),
            Request::Processes => Response::Processes { processes: target.processes() },
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
