//! The sandbox of a pod without a container of its own to hold it.
//!
//! It has a directory in the state directory as a container has, by the name that the annotations
//! give it, and a process that is the sentry's parent, as a container's monitor is. That one is in the
//! pod's network namespace, and in control groups beside those of the pod's containers: no
//! container's end is its own. The first container to be created makes it, the last one to be deleted
//! ends it ([`Container::destroy_if`]): whoever is killed on the way has left a container behind
//! whose deletion goes on with that.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sentry::control::Request;

use super::control_client::ControlClient;
use super::monitor::{self, Report};
use super::{Plan, jail, launch};
use crate::cgroup::Cgroup;
use crate::container::{Container, State, Status};
use crate::spec::namespaces::Namespaces;
use crate::sys;

/// The namespaces of a pod that its sandbox's process is in.
pub(super) const SHARED: [libc::c_int; 3] =
    [libc::CLONE_NEWNET, libc::CLONE_NEWIPC, libc::CLONE_NEWUTS];

/// How long containers of a pod may be in each other's way.
const RACE: Duration = Duration::from_secs(5);

/// Makes the sandbox `id` for a container that is to be in it, unless it runs. `plan` says what from,
/// given its state directory.
pub(crate) fn ensure(
    id: &str,
    container: &Container,
    plan: impl Fn(&Path) -> anyhow::Result<Plan>,
) -> anyhow::Result<()> {
    let (root, started) = (container.root(), Instant::now());
    loop {
        let Some(sandbox) = Container::find_if_any(root, id)? else {
            match Container::claim(root, state(id, container)) {
                Ok(sandbox) => return make(sandbox, plan),
                Err(error) if started.elapsed() > RACE => return Err(error),
                // Another container of the pod has it made, or cleared away, at the same time.
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
            }
        };
        let Some(lock) = sandbox.lock()? else { continue };
        // As it is now that nobody is at work on it.
        match Container::find_if_any(root, id)? {
            Some(sandbox) if sandbox.state.sandbox.is_some() => {
                bail!("annotations: {id} is no sandbox, but a container of one");
            }
            // A directory whose maker has not got the lock yet, unless a crash has left it.
            Some(sandbox) if sandbox.is_leftover() && started.elapsed() < RACE => {
                drop(lock);
                std::thread::sleep(Duration::from_millis(2));
            }
            // With the lock here, nobody is creating it, whatever else it looks like.
            Some(sandbox) if !matches!(sandbox.status(), Status::Stopped | Status::Creating) => {
                return Ok(());
            }
            // What was killed, or was never finished. Its containers have ended with it.
            Some(sandbox) => sandbox.clear_away()?,
            None => {}
        }
    }
}

/// Returns the state of a sandbox that is made for a container.
fn state(id: &str, container: &Container) -> State {
    let nowhere = Path::new("");
    let mut state = State::new(id, nowhere, nowhere, std::collections::BTreeMap::new());
    state.is_held = true;
    state.network = container.state.network;
    let paths = container.state.namespaces.paths.iter();
    let paths = paths.filter(|(kind, _)| SHARED.contains(kind)).cloned().collect();
    state.namespaces = Namespaces { own: 0, paths };
    let beside = |cgroup: &Cgroup| cgroup.sibling(&format!("{id}.sentry"));
    state.sentry_cgroup = container.state.cgroup.as_ref().map(beside);
    state
}

/// Starts the sandbox and its process, which outlives the caller.
fn make(
    mut sandbox: Container,
    plan: impl Fn(&Path) -> anyhow::Result<Plan>,
) -> anyhow::Result<()> {
    let made = plan(&sandbox.dir).and_then(|plan| {
        if let Some(cgroup) = &sandbox.state.sentry_cgroup {
            cgroup.create()?;
            cgroup.prefer()?;
        }
        start(&plan, &mut sandbox)
    });
    match made {
        Ok(()) => {
            sandbox.is_created();
            Ok(())
        }
        Err(error) => {
            sandbox.destroy()?;
            Err(error)
        }
    }
}

fn start(plan: &Plan, sandbox: &mut Container) -> anyhow::Result<()> {
    let (gate, go) = io::pipe().context("creating a pipe")?;
    let (root, id) = (sandbox.root().to_owned(), sandbox.state.id.clone());
    let paths = sandbox.state.namespaces.paths.clone();
    let network = monitor::open_namespace(Path::new("/proc/self/ns/net"))?;
    let body = |reports: BorrowedFd<'_>| {
        sys::close_in_child(go.as_fd());
        monitor::detach_from_caller()?;
        enter_namespaces(&paths)?;
        jail::pass_gate(gate.as_fd())?;
        let serves_doors = monitor::serves_doors(&network, plan)?;
        watch_over(plan, &mut Container::find(&root, &id)?, serves_doors, reports)
    };
    monitor::start(&monitor::Birthplace::default(), body, |child| {
        sandbox.set_monitor(child.pid)?;
        if let Some(cgroup) = &sandbox.state.sentry_cgroup {
            cgroup.start_preferred(&[child.pid])?;
        }
        (&go).write_all(&[1]).context("starting the sandbox's process")
    })?;
    sandbox.reload()
}

fn enter_namespaces(paths: &[(libc::c_int, PathBuf)]) -> anyhow::Result<()> {
    for (kind, path) in paths {
        monitor::open_namespace(path)
            .and_then(|file| Ok(sys::enter_namespace(file.as_fd(), *kind)?))
            .with_context(|| format!("joining the namespace {}", path.display()))?;
    }
    Ok(())
}

/// In the sandbox's process: starts the sentry, and becomes `runsc monitor`.
fn watch_over(
    plan: &Plan,
    sandbox: &mut Container,
    serves_doors: bool,
    reports: BorrowedFd<'_>,
) -> anyhow::Result<Infallible> {
    if let Some(cgroup) = &sandbox.state.sentry_cgroup {
        cgroup.enter()?;
    }
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let stdio = [null.as_fd(); 3];
    let processes = launch(plan, stdio, |processes| {
        sandbox.set_processes(processes.sentry.pid, processes.gofer.pid)
    })?;
    // There are no files to serve: it has ended by itself.
    processes.gofer.wait().context("waiting for the gofer")?;
    let mut control =
        ControlClient::connect_unbuffered(sandbox).context("connecting to the sentry")?;
    monitor::expect_done(control.call(&Request::Created)?)?;
    control.send(&Request::Wait)?;
    if serves_doors {
        control.send(&Request::ServeDoors)?;
    }
    if monitor::is_privileged() {
        sys::mounts::unshare_mounts().context("making a mount namespace")?;
        let place = File::open(&sandbox.dir).context("opening the state directory")?;
        sys::enter_empty_root(place.as_fd()).context("entering an empty root")?;
    }
    monitor::hide(true, serves_doors)?;
    monitor::report(reports, &Report::Ready);
    let fds =
        [null.as_fd(), null.as_fd(), null.as_fd(), control.as_fd(), processes.sentry.pidfd.as_fd()];
    let doors = if serves_doors { monitor::DOORS } else { "" };
    let args = ["runsc-monitor", "monitor", "sandbox", &sandbox.state.id, doors].map(str::to_owned);
    jail::exec(processes.executable.as_fd(), reports, &fds, &args)
}
