//! The calls of containerd's task service, versions 2 and 3, whose messages are the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use anyhow::Context as _;
use rustix::fs::MemfdFlags;

use super::container::{Container, Exit, Process, Status, put_exit};
use super::memory::Watch;
use super::options::Options;
use super::rootfs::{self, Mount};
use super::server::{Finished, Reply, Server};
use super::stats;
use super::stdio::{Paths, Streams};
use super::ttrpc::{Code, Failure, Request};
use super::wire::{Message, Writer, any};

const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// Where sockets for terminals are, short enough for a socket's name.
const CONSOLES: &str = "/run/containerd/s";

/// The answer to a call, where there is one at once.
type Answer = Result<Option<Writer>, Failure>;

fn done() -> Writer {
    Writer::new()
}

fn not_found(what: &str) -> Failure {
    Failure::new(Code::NotFound, format!("{what}: not found"))
}

impl Server {
    /// Begins a call and answers it, now or later.
    pub(crate) fn call(&mut self, reply: Reply, request: &Request) {
        let result = if SERVICES.contains(&request.service.as_str()) {
            Message::parse(&request.payload)
                .map_err(Failure::from)
                .and_then(|message| self.dispatch(reply, &request.method, &message))
        } else {
            Err(Failure::new(Code::Unimplemented, format!("service {}", request.service)))
        };
        match result {
            Ok(Some(answer)) => self.answer(reply, Ok(answer)),
            Ok(None) => {}
            Err(failure) => self.answer(reply, Err(failure)),
        }
    }

    fn dispatch(&mut self, reply: Reply, method: &str, message: &Message<'_>) -> Answer {
        let id = message.text(1)?;
        match method {
            "Create" => self.create(reply, &id, message),
            "Start" => self.start(reply, &id, &message.text(2)?),
            "Exec" => self.exec(&id, message),
            "Delete" => self.delete(reply, &id, &message.text(2)?),
            "Kill" => self.kill(reply, &id, message),
            "State" => self.state(&id, &message.text(2)?),
            "Wait" => self.wait_for(reply, &id, &message.text(2)?),
            "Pids" => self.pids(reply, &id),
            "Stats" => self.stats(reply, &id),
            "Pause" => self.pause(reply, &id, true),
            "Resume" => self.pause(reply, &id, false),
            "Update" => self.update(reply, &id, message),
            "ResizePty" => self.resize(&id, message),
            "CloseIO" => self.close_io(&id, message),
            "Connect" => self.connect(&id),
            "Shutdown" => {
                self.is_ending |= self.containers.is_empty();
                Ok(Some(done()))
            }
            "Checkpoint" => {
                Err(Failure::new(Code::Unimplemented, "checkpoints are not supported by runsc"))
            }
            other => Err(Failure::new(Code::Unimplemented, format!("method {other}"))),
        }
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, Failure> {
        self.containers.get_mut(id).ok_or_else(|| not_found(&format!("container {id}")))
    }

    fn process(&mut self, id: &str, exec: &str) -> Result<&mut Process, Failure> {
        let process = self.container(id)?.process(exec);
        process.ok_or_else(|| not_found(&format!("process {exec}")))
    }

    /// Runs a subcommand for a container, and answers with what `then` makes of its output.
    fn run_for(
        &mut self,
        reply: Reply,
        id: &str,
        args: &[&str],
        then: impl FnOnce(&mut Self, &str, &[u8]) -> Result<Writer, Failure> + 'static,
    ) -> Answer {
        let mut command = self.container(id)?.command();
        command.args(args).arg(id).stdin(Stdio::null());
        let id = id.to_owned();
        let finish = move |server: &mut Self, finished: Finished| {
            let result = if finished.has_succeeded {
                then(server, &id, &finished.output)
            } else {
                Err(server.failure(&id))
            };
            server.answer(reply, result);
        };
        self.run_job(command, None, false, Box::new(finish))?;
        Ok(None)
    }

    /// Returns what the runtime has logged last as the reason of a failure.
    fn failure(&mut self, id: &str) -> Failure {
        match self.container(id) {
            Ok(container) => {
                let message = container.last_error();
                let is_gone = message.contains("does not exist") || message.contains("not running");
                let code = if is_gone { Code::NotFound } else { Code::Unknown };
                Failure::new(code, message)
            }
            Err(failure) => failure,
        }
    }

    fn create(&mut self, reply: Reply, id: &str, message: &Message<'_>) -> Answer {
        if self.containers.contains_key(id) {
            return Err(Failure::new(Code::AlreadyExists, format!("container {id} exists")));
        }
        if !message.text(8)?.is_empty() {
            let text = "restoring a checkpoint is not supported by runsc";
            return Err(Failure::new(Code::Unimplemented, text));
        }
        let bundle = PathBuf::from(message.text(2)?);
        let mounts: Vec<&[u8]> = message.repeated(3).collect();
        let options = Options::read(&message.message(10)?, &self.namespace)?;
        options.save(&bundle)?;
        let paths = Paths {
            terminal: message.flag(4),
            stdin: message.text(5)?,
            stdout: message.text(6)?,
            stderr: message.text(7)?,
        };
        let io = Writer::new()
            .bytes(1, &paths.stdin)
            .bytes(2, &paths.stdout)
            .bytes(3, &paths.stderr)
            .number(4, paths.terminal);
        let event = Writer::new().bytes(1, id).bytes(2, message.bytes(2));
        let event = mounts.iter().fold(event, |event, mount| event.element(3, mount));
        let event = event.message(4, &io);

        let mounts: Vec<Mount> = mounts.into_iter().map(Mount::read).collect::<Result<_, _>>()?;
        rootfs::mount_all(&mounts, &bundle)?;
        let (streams, stdio) = Streams::open(&paths, self.console_path(id, ""))
            .inspect_err(|_| rootfs::unmount_all(&bundle))?;
        let container = Container {
            id: id.to_owned(),
            bundle: bundle.clone(),
            options,
            init: Process::new(paths, streams),
            execs: Default::default(),
            is_paused: false,
            n_signals: 0,
            memory: None,
        };
        let mut command = container.command();
        command.arg("create").arg("--bundle").arg(&bundle);
        command.arg("--pid-file").arg(bundle.join("init.pid"));
        if let Some(socket) = container.init.streams.console_path() {
            command.arg("--console-socket").arg(socket);
        }
        command.arg(id);
        self.containers.insert(id.to_owned(), container);
        let finish = {
            let id = id.to_owned();
            move |server: &mut Self, finished: Finished| {
                let result = server.created(&id, finished.has_succeeded, event);
                if result.is_err() {
                    server.discard(reply, &id, result);
                } else {
                    server.answer(reply, result);
                }
            }
        };
        if let Err(error) = self.run_job(command, Some(stdio), true, Box::new(finish)) {
            self.containers.remove(id);
            rootfs::unmount_all(&bundle);
            return Err(error.into());
        }
        Ok(None)
    }

    fn console_path(&self, id: &str, exec: &str) -> PathBuf {
        // No two that wait for one have the same.
        let name = format!("pty.{}.{}", std::process::id(), super::start::name([id, exec, ""]));
        Path::new(CONSOLES).join(name)
    }

    /// Goes on when `runsc create` has ended.
    fn created(&mut self, id: &str, has_succeeded: bool, event: Writer) -> Result<Writer, Failure> {
        if !has_succeeded {
            let text = self.container(id)?.last_error();
            return Err(Failure::new(Code::Unknown, format!("OCI runtime create failed: {text}")));
        }
        let file = self.container(id)?.bundle.join("init.pid");
        let pid = self.take_process(id, "", &file)?;
        self.container(id)?.memory = Watch::of_process(pid);
        self.publisher.publish("create", "TaskCreate", event.number(6, pid));
        Ok(Writer::new().number(1, pid))
    }

    /// Takes a process into care that the runtime has made, and its terminal.
    fn take_process(&mut self, id: &str, exec: &str, file: &Path) -> Result<u32, Failure> {
        let text =
            fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let pid: u32 = text.trim().parse().context("the runtime's pid file")?;
        let exit = self.adopt(pid);
        let process = self.process(id, exec)?;
        process.pid = pid;
        process.exit = exit;
        let paths = process.paths.clone();
        process.streams.take_terminal(&paths)?;
        Ok(pid)
    }

    /// Removes a container that could not be made, and answers with the reason.
    fn discard(&mut self, reply: Reply, id: &str, result: Result<Writer, Failure>) {
        let Some(container) = self.containers.remove(id) else { return };
        let mut command = container.command();
        command.args(["delete", "--force", id]).stdin(Stdio::null());
        let finish = {
            let result = result.clone();
            move |server: &mut Self, _: Finished| {
                rootfs::unmount_all(&container.bundle);
                server.answer(reply, result);
            }
        };
        if self.run_job(command, None, false, Box::new(finish)).is_err() {
            self.answer(reply, result);
        }
    }

    fn start(&mut self, reply: Reply, id: &str, exec: &str) -> Answer {
        let process = self.process(id, exec)?;
        if process.has_started || process.is_starting {
            let text = "the process has been started already";
            return Err(Failure::new(Code::FailedPrecondition, text));
        }
        process.is_starting = true;
        let result = if exec.is_empty() {
            self.start_init(reply, id)
        } else {
            self.start_exec(reply, id, exec)
        };
        if result.is_err()
            && let Ok(process) = self.process(id, exec)
        {
            process.is_starting = false;
        }
        result
    }

    fn start_init(&mut self, reply: Reply, id: &str) -> Answer {
        let mut command = self.container(id)?.command();
        command.args(["start", id]).stdin(Stdio::null());
        let id = id.to_owned();
        let finish = move |server: &mut Self, finished: Finished| {
            let Ok(container) = server.container(&id) else { return };
            container.init.is_starting = false;
            let result = if finished.has_succeeded {
                container.init.has_started = true;
                let pid = container.init.pid;
                let event = Writer::new().bytes(1, &id).number(2, pid);
                server.publisher.publish("start", "TaskStart", event);
                Ok(Writer::new().number(1, pid))
            } else {
                let text = container.last_error();
                Err(Failure::new(Code::Unknown, format!("OCI runtime start failed: {text}")))
            };
            server.answer(reply, result);
        };
        self.run_job(command, None, false, Box::new(finish))?;
        Ok(None)
    }

    fn start_exec(&mut self, reply: Reply, id: &str, exec: &str) -> Answer {
        let console = self.console_path(id, exec);
        let container = self.container(id)?;
        let bundle = container.bundle.clone();
        let (spec, pid_file) =
            (bundle.join(format!("{exec}.json")), bundle.join(format!("{exec}.pid")));
        let mut command = container.command();
        let process = container.process(exec).ok_or_else(|| not_found(exec))?;
        fs::write(&spec, &process.spec).with_context(|| format!("writing {}", spec.display()))?;
        let (streams, stdio) = Streams::open(&process.paths, console)?;
        process.streams = streams;
        command.arg("exec").arg("--process").arg(&spec).arg("--detach");
        if let Some(socket) = process.streams.console_path() {
            command.arg("--console-socket").arg(socket);
        }
        command.arg("--pid-file").arg(&pid_file).arg(id);
        let (id, exec) = (id.to_owned(), exec.to_owned());
        let finish = move |server: &mut Self, finished: Finished| {
            let result = server.exec_started(&id, &exec, finished.has_succeeded, &pid_file);
            for file in [&spec, &pid_file] {
                // One that stays goes with the bundle.
                drop(fs::remove_file(file));
            }
            if let Ok(process) = server.process(&id, &exec) {
                process.is_starting = false;
                process.has_started = true;
                if result.is_err() {
                    // Never to be told: its caller learns it from the answer.
                    process.exit = Some(Exit { code: 255, at: SystemTime::now() });
                }
            }
            server.answer(reply, result);
        };
        self.run_job(command, Some(stdio), true, Box::new(finish))?;
        Ok(None)
    }

    /// Goes on when `runsc exec` has ended.
    fn exec_started(
        &mut self,
        id: &str,
        exec: &str,
        has_succeeded: bool,
        pid_file: &Path,
    ) -> Result<Writer, Failure> {
        if !has_succeeded {
            let text = self.container(id)?.last_error();
            return Err(Failure::new(Code::Unknown, format!("OCI runtime exec failed: {text}")));
        }
        let pid = self.take_process(id, exec, pid_file)?;
        let event = Writer::new().bytes(1, id).bytes(2, exec).number(3, pid);
        self.publisher.publish("exec-started", "TaskExecStarted", event);
        Ok(Writer::new().number(1, pid))
    }

    fn exec(&mut self, id: &str, message: &Message<'_>) -> Answer {
        let exec = message.text(2)?;
        let paths = Paths {
            terminal: message.flag(3),
            stdin: message.text(4)?,
            stdout: message.text(5)?,
            stderr: message.text(6)?,
        };
        let spec = message.message(7)?.bytes(2).to_vec();
        let container = self.container(id)?;
        // The file names of a process are made of it.
        if exec.is_empty() || exec.contains('/') {
            return Err(Failure::new(Code::InvalidArgument, format!("{exec:?} is no id")));
        }
        if container.execs.contains_key(&exec) {
            return Err(Failure::new(Code::AlreadyExists, format!("id {exec}")));
        }
        let mut process = Process::new(paths, Streams::default());
        process.spec = spec;
        container.execs.insert(exec.clone(), process);
        let event = Writer::new().bytes(1, id).bytes(2, exec);
        self.publisher.publish("exec-added", "TaskExecAdded", event);
        Ok(Some(done()))
    }

    fn delete(&mut self, reply: Reply, id: &str, exec: &str) -> Answer {
        let process = self.process(id, exec)?;
        if process.is_starting || (process.has_started && !process.is_told) {
            let text = "cannot delete a running process";
            return Err(Failure::new(Code::FailedPrecondition, text));
        }
        if !exec.is_empty() {
            let answer = put_exit(Writer::new().number(1, process.pid), 2, 3, process.exit);
            self.container(id)?.execs.remove(exec);
            return Ok(Some(answer));
        }
        let mut command = self.container(id)?.command();
        command.args(["delete", "--force", id]).stdin(Stdio::null());
        let id = id.to_owned();
        let finish = move |server: &mut Self, finished: Finished| {
            let result = server.deleted(&id, finished.has_succeeded);
            server.answer(reply, result);
        };
        self.run_job(command, None, false, Box::new(finish))?;
        Ok(None)
    }

    /// Goes on when `runsc delete` has ended.
    fn deleted(&mut self, id: &str, has_succeeded: bool) -> Result<Writer, Failure> {
        if !has_succeeded {
            return Err(Failure::new(Code::Unknown, self.container(id)?.last_error()));
        }
        let Some(mut container) = self.containers.remove(id) else {
            return Err(not_found(id));
        };
        // One that was never started may not have been seen to end.
        let exit = container.init.exit.unwrap_or(Exit { code: 137, at: SystemTime::now() });
        for (_, process) in container.processes() {
            for waiter in std::mem::take(&mut process.waiters) {
                self.answer(waiter, Ok(put_exit(Writer::new(), 1, 2, Some(exit))));
            }
        }
        rootfs::unmount_all(&container.bundle);
        let pid = container.init.pid;
        let event = Writer::new().bytes(1, id).number(2, pid);
        self.publisher.publish("delete", "TaskDelete", put_exit(event, 3, 4, Some(exit)));
        Ok(put_exit(Writer::new().number(1, pid), 2, 3, Some(exit)))
    }

    fn kill(&mut self, reply: Reply, id: &str, message: &Message<'_>) -> Answer {
        let (exec, signal) = (message.text(2)?, message.number(3));
        let process = self.process(id, &exec)?;
        let pid = process.pid;
        if process.exit.is_some() {
            let text =
                if exec.is_empty() { "container not running" } else { "process already finished" };
            return Err(Failure::new(Code::NotFound, format!("{text}: not found")));
        }
        if exec.is_empty() {
            let signal = signal.to_string();
            let args: &[&str] = if message.flag(4) { &["kill", "--all"] } else { &["kill"] };
            let mut command = self.container(id)?.command();
            command.args(args).args([id, &signal]).stdin(Stdio::null());
            let owned = id.to_owned();
            let finish = move |server: &mut Self, finished: Finished| {
                let result =
                    if finished.has_succeeded { Ok(done()) } else { Err(server.failure(&owned)) };
                server.answer(reply, result);
                if let Ok(container) = server.container(&owned) {
                    container.n_signals = container.n_signals.saturating_sub(1);
                }
            };
            self.run_job(command, None, false, Box::new(finish))?;
            self.container(id)?.n_signals += 1;
            return Ok(None);
        }
        if pid == 0 {
            let text = "the process has not been started";
            return Err(Failure::new(Code::FailedPrecondition, text));
        }
        let signal = i32::try_from(signal).ok().and_then(rustix::process::Signal::from_named_raw);
        let Some(signal) = signal else {
            return Err(Failure::new(Code::InvalidArgument, "no such signal"));
        };
        if !self.signal(pid, signal) {
            return Err(Failure::new(Code::NotFound, "process already finished: not found"));
        }
        Ok(Some(done()))
    }

    fn state(&mut self, id: &str, exec: &str) -> Answer {
        let container = self.container(id)?;
        let is_paused = container.is_paused;
        let bundle = container.bundle.display().to_string();
        let process = container.process(exec).ok_or_else(|| not_found(exec))?;
        let status = match process.status() {
            Status::Running if is_paused => Status::Paused,
            status => status,
        };
        let exit = process.exit.filter(|_| process.is_told);
        let answer = Writer::new()
            .bytes(1, id)
            .bytes(2, bundle)
            .number(3, process.pid)
            .number(4, status as u32)
            .bytes(5, &process.paths.stdin)
            .bytes(6, &process.paths.stdout)
            .bytes(7, &process.paths.stderr)
            .number(8, process.paths.terminal);
        Ok(Some(put_exit(answer, 9, 10, exit).bytes(11, exec)))
    }

    fn wait_for(&mut self, reply: Reply, id: &str, exec: &str) -> Answer {
        let process = self.process(id, exec)?;
        if process.is_told {
            return Ok(Some(put_exit(Writer::new(), 1, 2, process.exit)));
        }
        process.waiters.push(reply);
        Ok(None)
    }

    fn pids(&mut self, reply: Reply, id: &str) -> Answer {
        self.run_for(reply, id, &["ps", "--format", "json"], |server, id, output| {
            let pids: Vec<u32> = serde_json::from_slice(output).context("the list of processes")?;
            let container = server.container(id)?;
            let answer = pids.into_iter().fold(Writer::new(), |answer, pid| {
                let exec = container.execs.iter().find(|(_, process)| process.pid == pid);
                let details = exec.map(|(exec, _)| Writer::new().bytes(1, exec).into_bytes());
                let info = details.map(|details| any("containerd.runc.v1.ProcessDetails", details));
                let process = Writer::new().number(1, pid);
                answer.message(
                    1,
                    &match info {
                        Some(info) => process.message(2, &info),
                        None => process,
                    },
                )
            });
            Ok(answer)
        })
    }

    fn stats(&mut self, reply: Reply, id: &str) -> Answer {
        self.run_for(reply, id, &["events", "--stats"], |_, _, output| {
            let metrics = stats::metrics(output).context("the runtime's statistics")?;
            Ok(Writer::new().message(1, &metrics))
        })
    }

    fn pause(&mut self, reply: Reply, id: &str, is_paused: bool) -> Answer {
        let subcommand = if is_paused { "pause" } else { "resume" };
        self.run_for(reply, id, &[subcommand], move |server, id, _| {
            server.container(id)?.is_paused = is_paused;
            let (topic, kind) =
                if is_paused { ("paused", "TaskPaused") } else { ("resumed", "TaskResumed") };
            server.publisher.publish(topic, kind, Writer::new().bytes(1, id));
            Ok(done())
        })
    }

    fn update(&mut self, reply: Reply, id: &str, message: &Message<'_>) -> Answer {
        let resources = message.message(2)?.bytes(2).to_vec();
        let mut command = self.container(id)?.command();
        let input = rustix::fs::memfd_create("resources", MemfdFlags::CLOEXEC)
            .map_err(std::io::Error::from)?;
        let mut input = fs::File::from(input);
        std::io::Write::write_all(&mut input, &resources)?;
        std::io::Seek::rewind(&mut input)?;
        command.args(["update", "--resources", "-", id]).stdin(input);
        let id = id.to_owned();
        let finish = move |server: &mut Self, finished: Finished| {
            let result = if finished.has_succeeded { Ok(done()) } else { Err(server.failure(&id)) };
            server.answer(reply, result);
        };
        self.run_job(command, None, false, Box::new(finish))?;
        Ok(None)
    }

    fn resize(&mut self, id: &str, message: &Message<'_>) -> Answer {
        let size = |field| u16::try_from(message.number(field)).unwrap_or(u16::MAX);
        let (columns, rows) = (size(3), size(4));
        let process = self.process(id, &message.text(2)?)?;
        if process.streams.resize(columns, rows)? {
            Ok(Some(done()))
        } else {
            let text = "cannot resize a process that has no terminal or has ended";
            Err(Failure::new(Code::FailedPrecondition, text))
        }
    }

    fn close_io(&mut self, id: &str, message: &Message<'_>) -> Answer {
        let process = self.process(id, &message.text(2)?)?;
        if message.flag(3) {
            process.streams.close_input();
        }
        Ok(Some(done()))
    }

    fn connect(&mut self, id: &str) -> Answer {
        let task = self.containers.get(id).map_or(0, |container| container.init.pid);
        Ok(Some(Writer::new().number(1, std::process::id()).number(2, task)))
    }
}
