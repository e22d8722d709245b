//! The loop of a shim: connections of containerd, calls of `runsc` that are under way, processes that
//! end, and streams.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus};

use super::container::{Container, Exit, Process, put_exit};
use super::events::Publisher;
use super::stdio::Pump;
use super::ttrpc::{Connection, Failure};
use super::wire::Writer;

/// How long a shim that is to end goes on telling events.
const FAREWELL: Duration = Duration::from_secs(3);

/// To whom a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) connection: u64,
    pub(crate) stream: u32,
}

/// What goes on when a call of `runsc` has ended.
pub(crate) type Then = Box<dyn FnOnce(&mut Server, Finished)>;

/// A call of `runsc` that has ended.
pub(crate) struct Finished {
    pub(crate) has_succeeded: bool,
    pub(crate) output: Vec<u8>,
}

/// A call of `runsc` that is under way.
struct Job {
    pid: u32,
    /// Readable when it has ended.
    pidfd: OwnedFd,
    output: Option<File>,
    /// Whether it makes a process whose id is not known yet.
    makes_process: bool,
    status: Option<WaitStatus>,
    then: Then,
}

/// The shim.
pub(crate) struct Server {
    pub(crate) namespace: String,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) publisher: Publisher,
    pub(crate) is_ending: bool,
    listener: UnixListener,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    jobs: Vec<Job>,
    /// Children that have ended before it was known whose they are.
    unclaimed: BTreeMap<u32, Exit>,
    /// Output of processes that are gone, which its reader has not taken yet.
    lingering: Vec<Pump>,
    pidfds: BTreeMap<u32, OwnedFd>,
}

/// What a descriptor that is waited for belongs to.
#[derive(Clone, Copy)]
enum Source {
    Listener,
    Connection(u64),
    /// Looked at after each wait, whatever has happened.
    Other,
}

impl Server {
    pub(crate) fn new(
        listener: UnixListener,
        publisher: Publisher,
        namespace: &str,
    ) -> anyhow::Result<Self> {
        listener.set_nonblocking(true).context("the shim's socket")?;
        Ok(Self {
            namespace: namespace.to_owned(),
            containers: BTreeMap::new(),
            publisher,
            is_ending: false,
            listener,
            connections: BTreeMap::new(),
            next_connection: 0,
            jobs: Vec::new(),
            unclaimed: BTreeMap::new(),
            lingering: Vec::new(),
            pidfds: BTreeMap::new(),
        })
    }

    /// Serves until containerd has it end.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        let mut end = None;
        loop {
            if self.is_ending {
                let end = *end.get_or_insert_with(|| Instant::now() + FAREWELL);
                let is_idle = self.publisher.is_idle() && self.lingering.is_empty();
                let is_told = self.connections.values().all(|connection| !connection.has_output());
                if (is_idle && is_told) || Instant::now() >= end {
                    return Ok(());
                }
            }
            for source in self.wait(end)? {
                match source {
                    Source::Listener => self.accept(),
                    Source::Connection(id) => self.serve(id),
                    Source::Other => {}
                }
            }
            self.publisher.advance();
            self.reap();
            self.finish_jobs();
            self.watch_memory();
            self.settle_all();
            self.pump();
        }
    }

    /// Waits until something can be done, and returns what.
    fn wait(&self, end: Option<Instant>) -> anyhow::Result<Vec<Source>> {
        let mut sources = vec![Source::Listener];
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        let mut add = |source, fd, is_output| {
            let flags = if is_output { PollFlags::OUT } else { PollFlags::IN };
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            sources.push(source);
        };
        for (id, connection) in &self.connections {
            add(Source::Connection(*id), connection.socket().as_fd(), connection.has_output());
        }
        if let Some((socket, is_output)) = self.publisher.awaited() {
            add(Source::Other, socket.as_fd(), is_output);
        }
        let children = self.jobs.iter().map(|job| job.pidfd.as_fd());
        for pidfd in children.chain(self.pidfds.values().map(OwnedFd::as_fd)) {
            add(Source::Other, pidfd, false);
        }
        for container in self.containers.values() {
            if let Some(memory) = &container.memory {
                add(Source::Other, memory.as_fd(), false);
            }
            for process in std::iter::once(&container.init).chain(container.execs.values()) {
                process.streams.awaited().for_each(|(fd, is_output)| {
                    add(Source::Other, fd, is_output);
                });
            }
        }
        for pump in &self.lingering {
            let (fd, is_output) = pump.awaited();
            add(Source::Other, fd, is_output);
        }
        let of_memory = |container: &Container| container.memory.as_ref()?.deadline();
        let looks = self.containers.values().filter_map(of_memory);
        let deadline = [end, self.publisher.deadline()].into_iter().flatten().chain(looks).min();
        let timeout = deadline.map(|at| {
            // A little later than early, which would be a loop until then.
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting"),
        }
        let ready = sources.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(source, _)| source).collect())
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if let Ok(connection) = Connection::new(socket) {
                self.connections.insert(self.next_connection, connection);
                self.next_connection += 1;
            }
        }
    }

    /// Reads calls from a connection and begins what they ask for.
    fn serve(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut is_alive = connection.flush() && connection.fill();
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            match connection.next_request() {
                Ok(Some(request)) => {
                    let reply = Reply { connection: id, stream: request.stream };
                    self.call(reply, &request);
                }
                Ok(None) => break,
                Err(_) => {
                    is_alive = false;
                    break;
                }
            }
        }
        if !is_alive {
            self.connections.remove(&id);
        }
    }

    /// Answers a call. Who has asked may be gone.
    pub(crate) fn answer(&mut self, reply: Reply, result: Result<Writer, Failure>) {
        if let Some(connection) = self.connections.get_mut(&reply.connection) {
            connection.answer(reply.stream, result);
            if !connection.flush() {
                self.connections.remove(&reply.connection);
            }
        }
    }

    /// Runs `runsc` and goes on when it has ended; with its output, where it has no streams yet.
    pub(crate) fn run_job(
        &mut self,
        mut command: Command,
        streams: Option<[Stdio; 3]>,
        makes_process: bool,
        then: Then,
    ) -> anyhow::Result<()> {
        let output = match streams {
            Some([stdin, stdout, stderr]) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
                None
            }
            None => {
                let output: File = rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC)?.into();
                command.stdout(Stdio::from(output.try_clone()?)).stderr(Stdio::null());
                Some(output)
            }
        };
        let program = command.get_program().to_owned();
        let child =
            command.spawn().with_context(|| format!("running {}", program.to_string_lossy()))?;
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let pid = child.id();
        self.jobs.push(Job { pid, pidfd, output, makes_process, status: None, then });
        Ok(())
    }

    /// Takes note of every child that has ended.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Ok(pid) = u32::try_from(pid.as_raw_nonzero().get()) else { continue };
            if let Some(job) = self.jobs.iter_mut().find(|job| job.pid == pid) {
                job.status = Some(status);
                continue;
            }
            self.pidfds.remove(&pid);
            let exit = Exit { code: exit_code(status), at: SystemTime::now() };
            if let Some(process) = self.processes().find(|process| process.pid == pid) {
                process.exit = Some(exit);
            } else if self.jobs.iter().any(|job| job.makes_process) {
                // Perhaps the process that is being made; else what is left of a sandbox.
                self.unclaimed.insert(pid, exit);
            }
        }
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let of = |container| Container::processes(container).map(|(_, process)| process);
        self.containers.values_mut().flat_map(of)
    }

    /// Takes a process into care whose id has become known. Returns how it has ended already.
    pub(crate) fn adopt(&mut self, pid: u32) -> Option<Exit> {
        if let Some(exit) = self.unclaimed.remove(&pid) {
            return Some(exit);
        }
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        if let Ok(pidfd) = rustix::process::pidfd_open(number, PidfdFlags::empty()) {
            self.pidfds.insert(pid, pidfd);
        }
        None
    }

    /// Sends a signal to a process in care.
    pub(crate) fn signal(&self, pid: u32, signal: rustix::process::Signal) -> bool {
        self.pidfds
            .get(&pid)
            .is_some_and(|fd| rustix::process::pidfd_send_signal(fd, signal).is_ok())
    }

    fn finish_jobs(&mut self) {
        while let Some(index) = self.jobs.iter().position(|job| job.status.is_some()) {
            let job = self.jobs.remove(index);
            let mut output = Vec::new();
            if let Some(mut file) = job.output {
                // Without output there is nothing to parse, which is told then.
                drop(file.rewind().and_then(|()| file.read_to_end(&mut output)));
            }
            let has_succeeded = job.status.and_then(|status| status.exit_status()) == Some(0);
            (job.then)(self, Finished { has_succeeded, output });
            if !self.jobs.iter().any(|job| job.makes_process) {
                self.unclaimed.clear();
            }
        }
    }

    fn watch_memory(&mut self) {
        let mut killed = Vec::new();
        for container in self.containers.values_mut() {
            if container.memory.as_mut().is_some_and(|memory| memory.has_killed()) {
                killed.push(container.id.clone());
            }
        }
        for id in killed {
            self.publisher.publish("oom", "TaskOOM", Writer::new().bytes(1, id));
        }
    }

    fn settle_all(&mut self) {
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            self.settle(&id);
        }
    }

    /// Tells the ends of processes that may be told: not before their start, and that of a
    /// container's first process after all others' and after the answers to its signals. For
    /// containerd deletes a container when it learns of its end, and with it the connection on
    /// which it waits for these answers.
    pub(crate) fn settle(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let mut ended = Vec::new();
        let mut is_alone = container.n_signals == 0;
        for (exec, process) in &mut container.execs {
            if process.exit.is_some() && !process.is_told && !process.is_starting {
                ended.push(exec.clone());
            } else {
                is_alone &= !process.is_starting && !process.is_running();
            }
        }
        let init = &container.init;
        if init.exit.is_some() && !init.is_told && !init.is_starting && is_alone {
            ended.push(String::new());
        }
        for exec in ended {
            self.tell_exit(id, &exec);
        }
    }

    fn tell_exit(&mut self, id: &str, exec: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(process) = container.process(exec) else { return };
        process.is_told = true;
        let exit = process.exit;
        self.lingering.extend(process.streams.end());
        let name = if exec.is_empty() { id } else { exec };
        let event = Writer::new().bytes(1, id).bytes(2, name).number(3, process.pid);
        let waiters = std::mem::take(&mut process.waiters);
        if process.pid != 0 {
            self.publisher.publish("exit", "TaskExit", put_exit(event, 4, 5, exit));
        }
        for reply in waiters {
            self.answer(reply, Ok(put_exit(Writer::new(), 1, 2, exit)));
        }
    }

    /// Copies what can be copied.
    fn pump(&mut self) {
        for process in self.processes() {
            process.streams.pumps().for_each(Pump::move_all);
            process.streams.drop_done();
        }
        self.lingering.iter_mut().for_each(Pump::move_all);
        self.lingering.retain(|pump| !pump.is_done());
    }
}

/// Returns the exit code of a process as shells do.
fn exit_code(status: WaitStatus) -> u32 {
    let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u32::try_from(code).ok()).unwrap_or(255)
}
