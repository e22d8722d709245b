//! The sentry's end of the control protocol: one thread, one poll loop; what may take its time is done
//! on threads beside it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use sentry_host::control as host;
use sentry_platform::Nursery;
use syscalls::abi::signal::SIGKILL;
use syscalls::{Errno, SysResult};

use super::job::{Job, Outcome};
use super::message::{
    Addressed, ContainerStatus, ProcessInfo, Request, Response, StartError, ThreadInfo,
};
use crate::config::network::NetworkConfig;
use crate::config::{ContainerConfig, ProcessConfig};
use crate::kernel::spawn_thread;
use crate::net::inet::forward::Door;
use crate::unsupported;

/// The longest request, in bytes: room for the longest arguments and environment that Linux takes.
const MAX_REQUEST: usize = 16 << 20;

/// How much of a request is read at a time.
const CHUNK: usize = 16 << 10;

/// How many clients are served at a time; further ones wait in the socket's backlog.
const MAX_CLIENTS: usize = 4096;

/// What the control protocol acts on: the sandbox. No call may block.
pub trait ControlTarget: Send + Sync {
    /// Returns the container with which the sandbox ends.
    fn first(&self) -> Arc<dyn ContainerTarget>;

    /// Returns a container.
    fn container(&self, id: &str) -> Option<Arc<dyn ContainerTarget>>;

    /// Makes what the processes of a further container are made of.
    ///
    /// # Errors
    /// Where the host permits no further process.
    fn prepare(&self) -> Result<Arc<dyn Nursery>, StartError>;

    /// Creates a further container.
    ///
    /// # Errors
    /// Where there is one of that name, or it cannot be created.
    fn create(
        &self,
        config: &ContainerConfig,
        nursery: Arc<dyn Nursery>,
        gofers: Vec<OwnedFd>,
        stdio: Vec<OwnedFd>,
    ) -> Result<Arc<dyn ContainerTarget>, StartError>;

    /// Returns the next listening socket of the host that is wanted.
    fn next_door(&self) -> Option<Door>;

    /// Takes the socket that was wanted; none where it could not be made.
    fn open_door(&self, door: Door, socket: Option<OwnedFd>);

    /// Kills what is left of a container that `create` has created, and forgets it.
    fn remove(&self, container: &Arc<dyn ContainerTarget>);
}

/// A container of the sandbox. No call may block.
pub trait ContainerTarget: Send + Sync {
    /// Takes over the interfaces of a network; `sockets` are theirs, in order.
    ///
    /// # Errors
    /// Where there is a network already, or no thread for it.
    fn connect_network(
        &self,
        network: &NetworkConfig,
        sockets: Vec<OwnedFd>,
    ) -> Result<(), StartError>;

    /// Has listening sockets of the host asked for from now on, where somebody listens in the sandbox.
    fn serve_doors(&self);

    /// Connects a stream socket of the host to a port.
    ///
    /// # Errors
    /// Where nobody listens there, or the network is the host's.
    fn connect(&self, socket: OwnedFd, port: u16) -> Result<(), StartError>;

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
    /// As [`ContainerTarget::signal`].
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
    /// As [`ContainerTarget::signal`].
    fn signal(&self, signo: i32, to_foreground: bool) -> SysResult<()>;

    /// Kills it.
    fn kill(&self);
}

/// The kernel's way to tell the server that [`ContainerTarget::status`] has changed.
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
    notifier: StatusNotifier,
    /// The beginning of a request whose end has not arrived, and what has come with it.
    pending: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// The container for whose end this client waits.
    waits_for: Option<Arc<dyn ContainerTarget>>,
    told_failure: bool,
    /// What has been made for a container that this client is about to create.
    nursery: Option<Arc<dyn Nursery>>,
    /// The container that this client has created.
    container: Option<Arc<dyn ContainerTarget>>,
    /// The process that this client has started and whose end it has not been told.
    process: Option<Arc<dyn ExecProcess>>,
    /// Whether it has started one: its signals are never for others.
    has_started_process: bool,
    /// What is being done for it; its further requests wait.
    job: Option<Arc<Job>>,
    /// Whether it makes listening sockets.
    serves_doors: bool,
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            process.kill();
        }
        if let Some(job) = &self.job {
            job.abandon();
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

    /// Serves until the first container has stopped and whoever waits for it knows; returns the exit
    /// status for the sentry process.
    ///
    /// A sandbox whose container could not be created is served until the first client that asks
    /// for it has got the reason.
    pub fn run(mut self, target: &Result<Arc<dyn ControlTarget>, StartError>) -> i32 {
        loop {
            match target {
                Ok(target) => {
                    self.finish_jobs(target);
                    self.tell_ends();
                    self.ask_for_door(target.as_ref());
                    if let Some(code) = target.first().status().exit_code() {
                        self.answer_all();
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
        self.clients.retain_mut(|client| {
            let is_served = ready.next() != Some(true) || client.serve(target).is_ok();
            if !is_served && let (Ok(target), Some(container)) = (target, client.container.take()) {
                target.remove(&container);
            }
            is_served
        });
        if ready.next() == Some(true) {
            let socket = host::accept(self.listener.as_fd())?;
            self.clients.push(Client {
                socket,
                notifier: StatusNotifier(Arc::clone(&self.event)),
                pending: Vec::new(),
                descriptors: Vec::new(),
                process: None,
                has_started_process: false,
                job: None,
                serves_doors: false,
                waits_for: None,
                told_failure: false,
                nursery: None,
                container: None,
            });
        }
        Ok(())
    }

    /// Answers the clients whose jobs are done, and goes on with their requests.
    fn finish_jobs(&mut self, target: &Arc<dyn ControlTarget>) {
        for client in &mut self.clients {
            let Some(outcome) = client.job.as_ref().and_then(|job| job.take()) else { continue };
            client.job = None;
            let response = client.accept(outcome);
            // A client that is gone, or talks nonsense, is noticed when it is next read from.
            let _ = client.answer(&response).and_then(|()| client.answer_requests(0, Ok(target)));
        }
    }

    /// Tells clients how the processes that they have started, and the containers that they wait for,
    /// have ended.
    fn tell_ends(&mut self) {
        // A client that is gone is noticed when it is read from.
        for client in &mut self.clients {
            let ended = client.process.as_ref().and_then(|process| process.wait_status());
            if let Some(wait_status) = ended {
                client.process = None;
                let status = ContainerStatus::Stopped { wait_status };
                let _ = client.answer(&Response::Status { status });
            }
            let status = client.waits_for.as_ref().map(|container| container.status());
            if let Some(status @ ContainerStatus::Stopped { .. }) = status {
                client.waits_for = None;
                let _ = client.answer(&Response::Status { status });
            }
        }
    }

    /// Asks whoever makes them for the next listening socket.
    fn ask_for_door(&self, target: &dyn ControlTarget) {
        let Some(client) = self.clients.iter().find(|client| client.serves_doors) else { return };
        while let Some(door) = target.next_door() {
            let Door { port, is_v6 } = door;
            if client.answer(&Response::Listen { port, is_v6 }).is_ok() {
                return;
            }
            target.open_door(door, None);
        }
    }

    /// Tells everybody who waits that what they wait for ends with the sandbox.
    fn answer_all(&mut self) {
        let killed = ContainerStatus::Stopped { wait_status: SIGKILL.cast_unsigned() };
        for client in &mut self.clients {
            if client.process.take().is_some() {
                let _ = client.answer(&Response::Status { status: killed });
            }
            if let Some(container) = client.waits_for.take() {
                let own = container.status();
                let status = if own.exit_code().is_some() { own } else { killed };
                let _ = client.answer(&Response::Status { status });
            }
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
        let searched = self.pending.len();
        self.pending.extend_from_slice(received);
        self.descriptors.extend(descriptors);
        self.answer_requests(searched, target.as_ref())?;
        if self.pending.len() >= MAX_REQUEST { Err(Errno::EMSGSIZE) } else { Ok(()) }
    }

    /// Answers every complete request that no job keeps waiting. Up to `searched` there is no end of
    /// one.
    fn answer_requests(
        &mut self,
        mut searched: usize,
        target: Result<&Arc<dyn ControlTarget>, &StartError>,
    ) -> SysResult<()> {
        while self.job.is_none()
            && let Some(end) = self.next_end(searched)
        {
            searched = 0;
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line: Addressed<'_> = serde_json::from_slice(&line).map_err(|_| Errno::EINVAL)?;
            let response = match target {
                Ok(target) => self.handle(line, target),
                Err(error) => {
                    self.told_failure = true;
                    Some(Response::from(error.clone()))
                }
            };
            if let Some(response) = response {
                self.answer(&response)?;
            }
        }
        Ok(())
    }

    /// Returns where the first line ends whose beginning, up to `searched`, has no end.
    fn next_end(&self, searched: usize) -> Option<usize> {
        let rest = self.pending.get(searched..)?;
        rest.iter().position(|&byte| byte == b'\n').map(|at| at + searched)
    }

    /// Returns the answer, unless it comes later.
    fn handle(&mut self, line: Addressed<'_>, target: &Arc<dyn ControlTarget>) -> Option<Response> {
        let request = line.request.into_owned();
        match request {
            Request::Prepare => return Some(self.prepare(target.as_ref())),
            Request::Create { config, n_gofers } => {
                return self.create(target, config, n_gofers).err().map(Response::from);
            }
            Request::Signal { signo, .. } if self.has_started_process => {
                return Some(self.signal_process(signo, false).into());
            }
            Request::ForegroundSignal { signo } if self.has_started_process => {
                return Some(self.signal_process(signo, true).into());
            }
            _ => {}
        }
        match target.container(&line.container) {
            Some(container) => self.handle_for(request, container, target),
            None => {
                let message = format!("container not running: {}", line.container);
                Some(Response::Failed { message, exit_code: 1 })
            }
        }
    }

    fn handle_for(
        &mut self,
        request: Request,
        container: Arc<dyn ContainerTarget>,
        target: &Arc<dyn ControlTarget>,
    ) -> Option<Response> {
        Some(match request {
            Request::Created | Request::Prepare | Request::Create { .. } => Response::Done,
            Request::Network { network } => {
                let sockets = std::mem::take(&mut self.descriptors);
                container.connect_network(&network, sockets).into()
            }
            Request::ServeDoors => {
                self.serves_doors = true;
                container.serve_doors();
                Response::Done
            }
            Request::Door { port, is_v6 } => {
                let socket = std::mem::take(&mut self.descriptors).pop();
                if self.serves_doors {
                    target.open_door(Door { port, is_v6 }, socket);
                }
                // There may be another one for the answer.
                return None;
            }
            Request::Connect { port } => match std::mem::take(&mut self.descriptors).pop() {
                Some(socket) => container.connect(socket, port).into(),
                None => Err(Errno::EBADF).into(),
            },
            Request::Start => container.start().into(),
            Request::Status => Response::Status { status: container.status() },
            Request::Wait => {
                self.waits_for = Some(container);
                return None;
            }
            Request::Signal { signo, all } => container.signal(signo, all).into(),
            Request::ForegroundSignal { signo } => container.signal_foreground(signo).into(),
            Request::Threads => Response::Threads { threads: container.threads() },
            Request::Unsupported => Response::Unsupported { counts: unsupported::counts() },
            Request::Processes => Response::Processes { processes: container.processes() },
            Request::Execute { process } => {
                let descriptors = std::mem::take(&mut self.descriptors);
                let work = move || Outcome::Process(container.execute(&process, descriptors));
                return self.start_job(target, work).err().map(Response::from);
            }
            Request::Pause => {
                let status =
                    if container.pause() { container.status() } else { ContainerStatus::Running };
                Response::Status { status }
            }
            Request::Resume => {
                container.resume();
                Response::Done
            }
            Request::Limit { memory, tasks } => {
                container.limit(memory, tasks);
                Response::Done
            }
            Request::Shutdown => {
                container.shutdown();
                Response::Done
            }
        })
    }

    fn prepare(&mut self, target: &dyn ControlTarget) -> Response {
        let prepared = target.prepare();
        let host_pid = prepared.as_ref().ok().and_then(|nursery| nursery.host_pid());
        match (prepared, host_pid) {
            (Ok(nursery), Some(host_pid)) => {
                self.nursery = Some(nursery);
                Response::Prepared { host_pid }
            }
            (Err(error), _) => error.into(),
            (Ok(_), None) => StartError {
                message: "the container's first host process was killed".into(),
                exit_code: 1,
            }
            .into(),
        }
    }

    fn create(
        &mut self,
        target: &Arc<dyn ControlTarget>,
        config: Box<ContainerConfig>,
        n_gofers: usize,
    ) -> Result<(), StartError> {
        let mut gofers = std::mem::take(&mut self.descriptors);
        let stdio = gofers.split_off(n_gofers.min(gofers.len()));
        let nursery = self.nursery.take().filter(|_| self.container.is_none());
        let nursery = nursery.ok_or_else(|| StartError {
            message: "this connection has not prepared for a container".into(),
            exit_code: 1,
        })?;
        let own = Arc::clone(target);
        self.start_job(target, move || {
            Outcome::Container(own.create(&config, nursery, gofers, stdio))
        })
    }

    /// Has `work` done on a thread of its own.
    fn start_job(
        &mut self,
        target: &Arc<dyn ControlTarget>,
        work: impl FnOnce() -> Outcome + Send + 'static,
    ) -> Result<(), StartError> {
        let job = Arc::new(Job::new(Arc::clone(target), self.notifier.clone()));
        let own = Arc::clone(&job);
        spawn_thread("control", move || own.finish(work())).map_err(|errno| StartError {
            message: format!("starting a thread: {}", errno.text()),
            exit_code: 1,
        })?;
        self.job = Some(job);
        Ok(())
    }

    /// Takes what a job has made; returns the answer.
    fn accept(&mut self, outcome: Outcome) -> Response {
        match outcome {
            Outcome::Container(Ok(container)) => {
                self.container = Some(container);
                Response::Done
            }
            Outcome::Process(Ok(process)) => {
                let pid = process.pid();
                self.process = Some(process);
                self.has_started_process = true;
                Response::Executed { pid }
            }
            Outcome::Container(Err(error)) | Outcome::Process(Err(error)) => error.into(),
        }
    }

    fn signal_process(&self, signo: i32, to_foreground: bool) -> SysResult<()> {
        let process = self.process.as_ref().ok_or(Errno::ESRCH)?;
        process.signal(signo, to_foreground)
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
