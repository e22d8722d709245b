//! The monitor: the host process that stands for a container's first process, or for one that
//! `exec` has started.
//!
//! It is a child of the caller of `create` or `exec`, in the container's network namespace and
//! cgroup. Its pid is the one that managers see; signals that it gets go to the guest process; it
//! ends as the guest process ends; and its death, even by SIGKILL, is the guest process's: the
//! sandbox of a container dies with its parent, which the monitor is, and a process of `exec` with
//! the connection over which it was started.
//!
//! A monitor begins as a copy of `runsc`, which starts the sandbox, and then executes itself
//! anew as `runsc monitor`, which holds nothing but the descriptors of [`monitor_fd`].

use std::fs::{self, File};
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use sentry::config::{NetworkMode, ProcessConfig};
use sentry::control::{ContainerStatus, Request, Response};
use serde::{Deserialize, Serialize};

use super::control_client::ControlClient;
use super::view::View;
use super::{Plan, doors, foreground, jail, member, network};
use crate::cgroup::Cgroup;
use crate::container::{Container, EXIT_STATUS, State, Status};
use crate::hooks::{self, Point};
use crate::spec::namespaces::Namespaces;
use crate::sys::terminal::{self, Pty};
use crate::sys::{self, Child, ExitStatus};
use crate::{ExitError, log, oom_score_adj};

/// How long a sentry may take to end when its container has stopped.
const SENTRY_END: Duration = Duration::from_secs(2);

/// The numbers at which a monitor finds its descriptors, after three of `/dev/null`.
mod monitor_fd {
    /// The connection on which the guest process's end is told.
    pub(super) const CONTROL: i32 = 3;
    /// The sandbox's processes and the container's state directory, for a container's monitor.
    pub(super) const SENTRY: i32 = 4;
    pub(super) const GOFER: i32 = 5;
    pub(super) const STATE_DIR: i32 = 6;
}

/// What a monitor is told that listens for its sandbox.
pub(crate) const DOORS: &str = "doors";

/// What is to be done for a container besides starting its sandbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) namespaces: Namespaces,
    /// Whether the container outlives the caller.
    pub(crate) is_detached: bool,
    /// Where the master of the container's terminal goes.
    pub(crate) console: Option<Console>,
    /// Whether the monitor listens on behalf of the sandbox; found out there.
    pub(crate) serves_doors: bool,
}

/// A process that `exec` starts.
#[derive(Debug)]
pub(crate) struct Execution {
    pub(crate) process: ProcessConfig,
    /// Whether the process outlives the caller.
    pub(crate) is_detached: bool,
    /// Where the master of the process's terminal goes.
    pub(crate) console: Option<Console>,
    /// What the process gets from descriptor 3 on.
    pub(crate) preserved: Vec<OwnedFd>,
}

/// A terminal that is made for a container.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    pub(crate) socket: PathBuf,
    /// Rows and columns.
    pub(crate) size: Option<(u16, u16)>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What a monitor that is being started says to its parent, one line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Report {
    Ready,
    Failed { message: String, exit_code: i32 },
}

/// Starts a container's monitor and, by it, the sandbox; returns when the container is created.
/// `prepare` is called with the monitor waiting, before anything of the bundle is looked at.
pub(crate) fn create(
    plan: &Plan,
    surroundings: &Surroundings,
    container: &mut Container,
    prepare: impl FnOnce(&Container) -> anyhow::Result<()>,
) -> anyhow::Result<Child> {
    let (gate, go) = io::pipe().context("creating a pipe")?;
    let namespaces = &surroundings.namespaces;
    let own = if is_privileged() { namespaces.own(libc::CLONE_NEWNET) } else { 0 };
    let (root, id) = (container.root().to_owned(), container.state.id.clone());
    let network = open_namespace(Path::new("/proc/self/ns/net"))?;
    let body = |reports: BorrowedFd<'_>| {
        sys::close_in_child(go.as_fd());
        detach_from_caller()?;
        let later = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
        for (kind, path) in namespaces.paths.iter().filter(|(kind, _)| kind & later == 0) {
            open_namespace(path)
                .and_then(|file| Ok(sys::enter_namespace(file.as_fd(), *kind)?))
                .with_context(|| format!("joining the namespace {}", path.display()))?;
        }
        jail::pass_gate(gate.as_fd())?;
        let surroundings =
            &Surroundings { serves_doors: serves_doors(&network, plan)?, ..surroundings.clone() };
        watch_over_container(plan, surroundings, &mut Container::find(&root, &id)?, reports)
    };
    let pid_namespace = namespaces.path(libc::CLONE_NEWPID);
    let cradle = container.state.cgroup.as_ref().and_then(Cgroup::cradle);
    let place = Birthplace { group: cradle.as_ref(), namespaces: own, pid_namespace };
    let child = start(&place, body, |child| {
        container.set_monitor(child.pid)?;
        prepare(container)?;
        (&go).write_all(&[1]).context("starting the monitor")
    })?;
    container.reload()?;
    container.is_created();
    Ok(child)
}

/// Starts a process in a running container, and its monitor.
pub(crate) fn execute(container: &Container, execution: Execution) -> anyhow::Result<Child> {
    let State { monitor, sentry, .. } = container.state;
    let namespaces = &container.state.namespaces;
    let keeper = monitor.or(sentry).context("container not running")?;
    let executable = keeper.open("exe").context("opening the container's executable")?;
    let place = keeper.pidfd().context("container not running")?;
    let request = Request::Execute { process: Box::new(execution.process) };
    let body = |reports: BorrowedFd<'_>| {
        detach_from_caller()?;
        if let Some(cgroup) = &container.state.cgroup {
            cgroup.enter()?;
        }
        let stdio = (io::stdin(), io::stdout(), io::stderr());
        let mut fds = vec![stdio.0.as_fd(), stdio.1.as_fd(), stdio.2.as_fd()];
        let slave = execution.console.as_ref().map(open_console).transpose()?;
        if let Some(slave) = &slave {
            fds = vec![slave.as_fd(); 3];
        }
        fds.extend(execution.preserved.iter().map(OwnedFd::as_fd));
        let mut control =
            ControlClient::connect_unbuffered(container).context("connecting to the sentry")?;
        control.send_with(&request, &fds)?;
        match control.receive()? {
            Response::Executed { .. } => {}
            other => expect_done(other)?,
        }
        let null = File::options().read(true).write(true).open("/dev/null")?;
        if is_privileged() && monitor.is_some() {
            let kinds = namespaces.all() & !(libc::CLONE_NEWPID | libc::CLONE_NEWUSER);
            sys::enter_namespaces(place.as_fd(), kinds)
                .context("joining the container's namespaces")?;
        }
        hide(execution.is_detached, false)?;
        report(reports, &Report::Ready);
        let fds = [null.as_fd(), null.as_fd(), null.as_fd(), control.as_fd()];
        let args = ["runsc-monitor", "monitor", "exec", &container.state.id].map(str::to_owned);
        jail::exec(executable.as_fd(), reports, &fds, &args)
    };
    let pid_namespace = namespaces.path(libc::CLONE_NEWPID);
    let cradle = container.state.cgroup.as_ref().and_then(Cgroup::cradle);
    let place = Birthplace { group: cradle.as_ref(), namespaces: 0, pid_namespace };
    start(&place, body, |_| Ok(()))
}

/// Where a monitor is born.
#[derive(Debug, Default)]
pub(super) struct Birthplace<'a> {
    /// The group of version 2, where it can be born there.
    group: Option<&'a File>,
    /// The namespaces that are made for it.
    namespaces: i32,
    pid_namespace: Option<&'a PathBuf>,
}

/// Starts a monitor that `body` turns a copy of this process into, calls `then`, and returns when
/// the monitor is ready.
pub(super) fn start(
    place: &Birthplace<'_>,
    body: impl FnOnce(BorrowedFd<'_>) -> anyhow::Result<std::convert::Infallible>,
    then: impl FnOnce(&Child) -> anyhow::Result<()>,
) -> anyhow::Result<Child> {
    let (reports, reports_writer) = io::pipe().context("creating a pipe")?;
    let joined = match place.pid_namespace {
        Some(path) => Some(PidNamespace::join(path)?),
        None => None,
    };
    let child = sys::spawn_in(place.group.map(AsFd::as_fd), place.namespaces, || {
        sys::close_in_child(reports.as_fd());
        let Err(error) = body(reports_writer.as_fd());
        let exit_code = error.downcast_ref::<ExitError>().map_or(1, |error| error.code);
        report(
            reports_writer.as_fd(),
            &Report::Failed { message: format!("{error:#}"), exit_code },
        );
    })
    .context("starting the monitor")?;
    if let Some(joined) = joined {
        joined.leave()?;
    }
    drop(reports_writer);
    match then(&child).and_then(|()| read_reports(reports)) {
        Ok(()) => Ok(child),
        Err(error) => {
            // It is gone already, or holds nothing that is wanted.
            let _ = child.kill(libc::SIGKILL);
            let _ = child.wait();
            Err(error)
        }
    }
}

pub(super) fn report(to: BorrowedFd<'_>, report: &Report) {
    let Ok(to) = to.try_clone_to_owned() else { return };
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    // Nobody is left to tell where this fails.
    let _ = File::from(to).write_all(&line);
}

/// Reads what a monitor has to say before its exec, which closes the pipe.
fn read_reports(mut reports: PipeReader) -> anyhow::Result<()> {
    let mut text = String::new();
    reports.read_to_string(&mut text).context("reading the monitor's reports")?;
    let mut is_ready = false;
    for line in text.lines() {
        match serde_json::from_str(line) {
            Ok(Report::Ready) => is_ready = true,
            Ok(Report::Failed { message, exit_code: exit_code @ (126 | 127) }) => {
                // In runc's words.
                let message = format!("unable to start container process: {message}");
                return Err(ExitError { message, code: exit_code }.into());
            }
            Ok(Report::Failed { message, exit_code }) => {
                return Err(ExitError { message, code: exit_code }.into());
            }
            // Of an exec that has failed.
            Err(_) => bail!("{line}"),
        }
    }
    if !is_ready {
        bail!("the monitor was killed before it was ready");
    }
    Ok(())
}

/// In the monitor: starts the sandbox, waits until the container is created, and becomes
/// `runsc monitor`.
fn watch_over_container(
    plan: &Plan,
    surroundings: &Surroundings,
    container: &mut Container,
    reports: BorrowedFd<'_>,
) -> anyhow::Result<std::convert::Infallible> {
    if let Some(cgroup) = &container.state.cgroup {
        cgroup.enter()?;
    }
    hooks::run(container, Point::CreateContainer, Status::Creating)?;
    let stdio = (io::stdin(), io::stdout(), io::stderr());
    let mut stdio = [stdio.0.as_fd(), stdio.1.as_fd(), stdio.2.as_fd()];
    let slave = surroundings.console.as_ref().map(open_console).transpose()?;
    if let Some(slave) = &slave {
        stdio = [slave.as_fd(); 3];
    }
    if container.state.sandbox.is_some() {
        return member::watch_over(plan, surroundings, container, stdio, reports);
    }
    oom_score_adj::set(plan.config.container.process.oom_score_adj)?;
    // What is started in a pod's own groups stays there.
    if let Some(cgroup) = &container.state.sentry_cgroup
        && !cgroup.is_of_systemd()
    {
        cgroup.enter()?;
    }
    let sandbox = super::launch(plan, stdio, |sandbox| {
        container.set_processes(sandbox.sentry.pid, sandbox.gofer.pid)
    })?;
    match (&container.state.sentry_cgroup, &container.state.cgroup) {
        (Some(of_sentry), _) if of_sentry.is_of_systemd() => {
            of_sentry.start_preferred(&[sandbox.sentry.pid, sandbox.gofer.pid])?;
        }
        (Some(_), Some(cgroup)) => cgroup.enter()?,
        _ => {}
    }
    let mut control =
        ControlClient::connect_unbuffered(container).context("connecting to the sentry")?;
    expect_done(control.call(&Request::Created)?)?;
    control.send(&Request::Wait)?;
    if surroundings.serves_doors {
        control.send(&Request::ServeDoors)?;
    }
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let state_dir = File::open(&container.dir).context("opening the state directory")?;
    settle(plan, surroundings, sandbox.gofer.pidfd.as_fd(), reports)?;
    let fds = [
        null.as_fd(),
        null.as_fd(),
        null.as_fd(),
        control.as_fd(),
        sandbox.sentry.pidfd.as_fd(),
        sandbox.gofer.pidfd.as_fd(),
        state_dir.as_fd(),
    ];
    let doors = if surroundings.serves_doors { DOORS } else { "" };
    let args =
        ["runsc-monitor", "monitor", "container", &container.state.id, doors].map(str::to_owned);
    jail::exec(sandbox.executable.as_fd(), reports, &fds, &args)
}

/// Does what is left to be done in a container's monitor before its exec, and says that it is ready.
pub(super) fn settle(
    plan: &Plan,
    surroundings: &Surroundings,
    gofer: BorrowedFd<'_>,
    reports: BorrowedFd<'_>,
) -> anyhow::Result<()> {
    if is_privileged() {
        enter_namespaces(plan, &surroundings.namespaces, gofer)?;
    }
    hide(surroundings.is_detached, surroundings.serves_doors)?;
    report(reports, &Report::Ready);
    Ok(())
}

/// Leaves the caller's session and signals; until the container is created the caller's death is
/// this process's.
pub(super) fn detach_from_caller() -> anyhow::Result<()> {
    sys::die_with_parent()?;
    sys::block_signals().context("blocking signals")?;
    sys::new_session().context("starting a session")
}

/// The pid namespace that this process's children are in, for a while.
struct PidNamespace(File);

impl PidNamespace {
    fn join(path: &Path) -> anyhow::Result<Self> {
        let own = open_namespace(Path::new("/proc/self/ns/pid"))?;
        open_namespace(path)
            .and_then(|file| Ok(sys::enter_namespace(file.as_fd(), libc::CLONE_NEWPID)?))
            .with_context(|| format!("joining the namespace {}", path.display()))?;
        Ok(Self(own))
    }

    fn leave(self) -> anyhow::Result<()> {
        sys::enter_namespace(self.0.as_fd(), libc::CLONE_NEWPID)
            .context("returning to the own pid namespace")
    }
}

pub(super) fn open_namespace(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("opening {}", path.display()))
}

pub(super) fn is_privileged() -> bool {
    sys::effective_ids().0 == 0
}

/// Enters what is to be seen of the container from the host: the namespaces that exist, and for the
/// others those of the gofer, but for the mounts where there is a [`View`] of them. Not that of users:
/// from inside, the death of this process could not be that of its children any more.
fn enter_namespaces(
    plan: &Plan,
    namespaces: &Namespaces,
    gofer: BorrowedFd<'_>,
) -> anyhow::Result<()> {
    let mut kinds =
        libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    let mounts = namespaces.path(libc::CLONE_NEWNS).map(|path| open_namespace(path)).transpose()?;
    if namespaces.own(libc::CLONE_NEWNS) != 0
        && let Some(view) = View::new(plan)?
    {
        view.enter()?;
        kinds &= !libc::CLONE_NEWNS;
    }
    sys::enter_namespaces(gofer, namespaces.own(kinds))
        .context("entering the gofer's namespaces")?;
    if let Some(mounts) = mounts {
        sys::enter_namespace(mounts.as_fd(), libc::CLONE_NEWNS)
            .context("joining a mount namespace")?;
    }
    Ok(())
}

/// Makes a terminal, sends its master away, and returns its slave, which controls this process's
/// session: so the keys that send signals send them here.
fn open_console(console: &Console) -> anyhow::Result<OwnedFd> {
    let Pty { master, slave } = Pty::open().context("opening a pseudo-terminal")?;
    if let Some((rows, columns)) = console.size {
        terminal::set_size(master.as_fd(), rows, columns).context("setting the console's size")?;
    }
    std::os::unix::fs::fchown(&slave, Some(console.uid), Some(console.gid))
        .context("giving the console to the container's user")?;
    terminal::control(slave.as_fd()).context("taking the console")?;
    send_descriptor(&console.socket, b"/dev/ptmx", master.as_fd()).context("--console-socket")?;
    Ok(slave)
}

/// Connects to a unix socket and sends one descriptor.
pub(crate) fn send_descriptor(
    socket: &Path,
    text: &[u8],
    descriptor: BorrowedFd<'_>,
) -> anyhow::Result<()> {
    let stream = std::os::unix::net::UnixStream::connect(socket)
        // In runc's words.
        .map_err(|error| {
            anyhow!("dial unix {}: connect: {}", socket.display(), log::cause(&error))
        })?;
    terminal::send_descriptors(stream.as_fd(), text, &[descriptor])
        .with_context(|| format!("sending a descriptor to {}", socket.display()))?;
    Ok(())
}

pub(crate) fn expect_done(response: Response) -> anyhow::Result<()> {
    match response {
        Response::Done => Ok(()),
        Response::Failed { message, exit_code } => {
            Err(ExitError { message, code: exit_code }.into())
        }
        other => bail!("unexpected answer of the sentry: {other:?}"),
    }
}

/// Returns whether this process, a monitor, listens for its sandbox: where it is in another network
/// namespace than its caller, and the sandbox has sockets of its own.
pub(super) fn serves_doors(callers_network: &File, plan: &Plan) -> anyhow::Result<bool> {
    let is_callers =
        network::is_own(callers_network).context("looking at the network namespace")?;
    Ok(!is_callers && plan.config.network != NetworkMode::Host)
}

/// Gives up what a monitor does not need: the caller's directory, every capability but the one to
/// listen at the ports that guests do, where it does that, and the tie to the caller.
pub(super) fn hide(is_detached: bool, serves_doors: bool) -> anyhow::Result<()> {
    /// `CAP_NET_BIND_SERVICE`
    const BIND_SERVICE: u32 = 10;
    std::env::set_current_dir("/")?;
    if is_privileged() {
        let dropped = if serves_doors {
            sys::drop_capabilities_but(BIND_SERVICE)
        } else {
            sys::drop_capabilities()
        };
        dropped.context("dropping capabilities")?;
    }
    sys::set_no_new_privs().context("setting no_new_privs")?;
    if is_detached {
        sys::outlive_parent()?;
    }
    Ok(())
}

fn take(number: i32) -> anyhow::Result<OwnedFd> {
    sys::take_descriptor(number).with_context(|| format!("taking descriptor {number}"))
}

/// `runsc monitor container`: passes signals on until the container has stopped, then ends as it
/// has ended.
pub(crate) fn attend_container(
    id: String,
    serves_doors: bool,
) -> anyhow::Result<std::convert::Infallible> {
    let control = ControlClient::from_descriptor(take(monitor_fd::CONTROL)?, id);
    let sentry = Child::of_descriptor(take(monitor_fd::SENTRY)?);
    let gofer = Child::of_descriptor(take(monitor_fd::GOFER)?);
    let state_dir = take(monitor_fd::STATE_DIR)?;
    let status = attend(control, serves_doors)?;
    let _ = sys::poll(&[sentry.pidfd.as_fd()], Some(SENTRY_END));
    sentry.kill(libc::SIGKILL)?;
    gofer.kill(libc::SIGKILL)?;
    sentry.wait().context("waiting for the sentry")?;
    gofer.wait().context("waiting for the gofer")?;
    end(state_dir.as_fd(), status)
}

/// `runsc monitor member`: as [`attend_container`], for a container in the sandbox of another one.
pub(crate) fn attend_member(id: String) -> anyhow::Result<std::convert::Infallible> {
    let control = ControlClient::from_descriptor(take(member::monitor_fd::CONTROL)?, id);
    let gofer = Child::of_descriptor(take(member::monitor_fd::GOFER)?);
    let state_dir = take(member::monitor_fd::STATE_DIR)?;
    let status = attend(control, false)?;
    gofer.kill(libc::SIGKILL)?;
    gofer.wait().context("waiting for the gofer")?;
    end(state_dir.as_fd(), status)
}

/// `runsc monitor sandbox`: waits until a held sandbox is shut down.
pub(crate) fn attend_sandbox(
    id: String,
    serves_doors: bool,
) -> anyhow::Result<std::convert::Infallible> {
    let control = ControlClient::from_descriptor(take(monitor_fd::CONTROL)?, id);
    let sentry = Child::of_descriptor(take(monitor_fd::SENTRY)?);
    attend(control, serves_doors)?;
    let _ = sys::poll(&[sentry.pidfd.as_fd()], Some(SENTRY_END));
    sentry.kill(libc::SIGKILL)?;
    sentry.wait().context("waiting for the sentry")?;
    sys::end_as(ExitStatus::Exited(0))
}

/// Leaves the wait status behind and ends this process with it; none is that of a container whose
/// sentry was killed.
fn end(state_dir: BorrowedFd<'_>, status: Option<u32>) -> ! {
    let status = status.unwrap_or(libc::SIGKILL.unsigned_abs());
    if let Err(error) = leave_status(state_dir, status) {
        log::warning(&format!("writing the exit status: {error}"));
    }
    sys::end_as(ExitStatus::of_wait_status(status))
}

/// `runsc monitor exec`: passes signals on until the process has ended, then ends as it has.
pub(crate) fn attend_execution(id: String) -> anyhow::Result<std::convert::Infallible> {
    let control = ControlClient::from_descriptor(take(monitor_fd::CONTROL)?, id);
    let status = attend(control, false)?;
    sys::end_as(ExitStatus::of_wait_status(status.unwrap_or(libc::SIGKILL.unsigned_abs())));
}

/// Passes signals on, and listens where it is asked to, until the sentry tells how the guest process
/// ended. Returns its wait status; none where the sentry has died.
fn attend(mut control: ControlClient, serves_doors: bool) -> anyhow::Result<Option<u32>> {
    let signals = sys::signal_descriptor().context("creating a signal descriptor")?;
    loop {
        let ready = sys::poll(&[control.as_fd(), signals.as_fd()], None)?;
        if ready.first() == Some(&true) {
            match control.receive() {
                Ok(Response::Status { status: ContainerStatus::Stopped { wait_status } }) => {
                    return Ok(Some(wait_status));
                }
                Ok(Response::Listen { port, is_v6 }) if serves_doors => {
                    // Where the sentry is gone, the connection says so next.
                    let _ = doors::answer(&mut control, port, is_v6);
                }
                // Of a signal: a guest process that is gone is told next.
                Ok(_) => {}
                Err(_) => return Ok(None),
            }
        }
        if ready.get(1) == Some(&true) {
            let signo = sys::read_signal(signals.as_fd()).context("reading a signal")?;
            if let Some(request) = foreground::forwarded(signo) {
                // Where the sentry is gone, the connection says so next.
                let _ = control.send(&request);
            }
        }
    }
}

fn leave_status(state_dir: BorrowedFd<'_>, status: u32) -> io::Result<()> {
    // Without /proc in an empty root, relative to the directory itself.
    sys::write_new_file(state_dir, EXIT_STATUS, status.to_string().as_bytes())
}

/// Waits in the foreground for a monitor that is this process's child: passes signals on to it and
/// returns the exit status that a shell would report.
pub(crate) fn attend_child(child: &Child) -> anyhow::Result<i32> {
    let signals = sys::signal_descriptor().context("creating a signal descriptor")?;
    loop {
        let ready = sys::poll(&[child.pidfd.as_fd(), signals.as_fd()], None)?;
        if ready.first() == Some(&true) {
            return Ok(match child.wait().context("waiting for the monitor")? {
                ExitStatus::Exited(code) => code,
                ExitStatus::Signaled(signo) => 128 + signo,
            });
        }
        let signo = sys::read_signal(signals.as_fd()).context("reading a signal")?;
        if foreground::forwarded(signo).is_some() {
            child.kill(signo)?;
        }
    }
}

/// Writes a process id to a file, atomically.
pub(crate) fn write_pid_file(pid: i32, path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let name = path.file_name().context("--pid-file: not a file name")?;
    let temporary = path.with_file_name(format!(".{}", name.to_string_lossy()));
    fs::write(&temporary, pid.to_string())
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("--pid-file: writing {}", path.display()))
}
