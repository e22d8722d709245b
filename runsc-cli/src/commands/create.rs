//! `runsc create`.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use sentry::config::{ContainerConfig, NetworkMode};
use sentry::control::{Request, Response};

use super::delete;
use crate::cgroup::{Cgroup, Limits};
use crate::cli::{CreateArgs, GlobalOptions, Network, Rootless};
use crate::container::{Container, State, Status};
use crate::hooks::{self, Point};
use crate::sandbox::Plan;
use crate::sandbox::control_client::ControlClient;
use crate::sandbox::monitor::{self, Console, Surroundings};
use crate::sandbox::pod::{self, Place};
use crate::sandbox::{held, network};
use crate::spec::namespaces::Namespaces;
use crate::sys::{self, Child};
use crate::{ExitError, log, spec};

/// A container whose id is claimed and of which nothing runs yet.
pub(super) struct Prepared {
    plan: Plan,
    surroundings: Surroundings,
    container: Container,
    limits: Limits,
}

/// Creates a container whose program waits for `start`.
pub(crate) fn run(global: &GlobalOptions, args: &CreateArgs) -> anyhow::Result<i32> {
    prepare(global, args, true)?.create(args)?;
    Ok(0)
}

/// Reads the bundle and claims the id.
pub(super) fn prepare(
    global: &GlobalOptions,
    args: &CreateArgs,
    is_detached: bool,
) -> anyhow::Result<Prepared> {
    let dir = args
        .bundle
        .canonicalize()
        .with_context(|| format!("--bundle: {}", args.bundle.display()))?;
    let mut bundle = spec::load(&dir, &args.id, global)?;
    for warning in &bundle.warnings {
        log::warning(&format!("config.json: {warning}"));
    }
    let root = super::state_root(global);
    let place = pod::find(&root, &args.id, &bundle.annotations, &bundle.namespaces)?;
    let network = network_mode(global, &bundle.namespaces)?;
    let place = pod::check(&root, place, network, &bundle.namespaces)?;
    bundle.container.shares_pids_of = pod::pid_holder(&root, &place, &bundle.namespaces)?;
    if let Place::Own = place {
        bundle.namespaces.warn_of_paths();
    }
    if !matches!(place, Place::Joined(_)) {
        bundle.find_host_name()?;
    }
    bundle.container.shared = bundle.namespaces.shared();
    let process = &bundle.container.process;
    let console = check_terminal(process.terminal, is_detached, args.console_socket.as_deref())?;
    let surroundings = Surroundings {
        namespaces: bundle.namespaces.clone(),
        is_detached,
        serves_doors: false,
        console: console.map(|socket| Console {
            socket: socket.to_owned(),
            size: bundle.console_size,
            uid: bundle.container.id_maps.host_uid(process.uid),
            gid: bundle.container.id_maps.host_gid(process.gid),
        }),
    };
    let preserved = sys::inherited_descriptors(args.preserve_fds)
        .context("--preserve-fds: not that many descriptors")?;
    let annotations = std::mem::take(&mut bundle.annotations);
    let cpus = if global.cpu_num_from_quota {
        bundle.cgroups.limits.cpus.or_else(|| pod::cpus(&annotations))
    } else {
        None
    };
    let mut state = State::new(&args.id, &dir, &bundle.rootfs, annotations);
    state.hooks = std::mem::take(&mut bundle.hooks);
    state.network = network;
    state.namespaces = std::mem::take(&mut bundle.namespaces);
    state.sandbox = place.sandbox().cloned();
    let limits = std::mem::take(&mut bundle.cgroups.limits);
    if !global.ignore_cgroups {
        let is_privileged = sys::effective_ids().0 == 0;
        if is_privileged || global.systemd_cgroup {
            let path = bundle.cgroups.path.as_deref();
            let cgroup = if global.systemd_cgroup {
                Cgroup::of_systemd(path, &args.id, &state.annotations)?
            } else {
                Cgroup::new(path, &args.id)?
            };
            if state.sandbox.is_none() && pod::is_first(&args.id, &state.annotations) {
                state.sentry_cgroup = Some(cgroup.beside(".sentry"));
            }
            state.cgroup = Some(cgroup);
        } else if !limits.is_empty() {
            log::warning("config.json: linux.resources: not applied without privileges");
        }
    }
    let mut container = Container::claim(&root, state)?;
    make_cgroups(global, &mut container)?;
    match &container.state.cgroup {
        Some(cgroup) => bundle.show_cgroups(cgroup),
        None if bundle.mounts_cgroups() => log::warning(
            "config.json: mounts: without cgroups of its own (--ignore-cgroups, or no privileges), \
             the container sees none",
        ),
        None => {}
    }
    if let Place::Held(sandbox) = &place
        && let Err(error) = hold(global, sandbox, &container, &bundle.container)
    {
        container.destroy()?;
        return Err(error);
    }
    let state_dir = &container.dir;
    match spec::plan(global, bundle.container, bundle.gofer_mounts, state_dir, !is_detached) {
        Ok(mut plan) => {
            plan.config.network = container.state.network;
            plan.config.cpus = cpus;
            Ok(Prepared { plan: Plan { preserved, ..plan }, surroundings, container, limits })
        }
        Err(error) => {
            container.destroy()?;
            Err(error)
        }
    }
}

/// Makes the sandbox of a pod for a container that is in it, where there is none.
fn hold(
    global: &GlobalOptions,
    sandbox: &str,
    container: &Container,
    config: &ContainerConfig,
) -> anyhow::Result<()> {
    let held = |state_dir: &Path| {
        let shared = ContainerConfig {
            id: sandbox.to_owned(),
            hostname: config.hostname.clone(),
            domainname: config.domainname.clone(),
            ..ContainerConfig::default()
        };
        let mut plan = spec::plan(global, shared, Vec::new(), state_dir, false)?;
        plan.config.network = container.state.network;
        plan.config.is_held = true;
        Ok(plan)
    };
    held::ensure(sandbox, container, held).with_context(|| format!("starting sandbox {sandbox}"))
}

/// Returns where the container's network comes from. One that shares the caller's network gets the
/// host's sockets: there is nothing that a sandbox could take over.
fn network_mode(global: &GlobalOptions, namespaces: &Namespaces) -> anyhow::Result<NetworkMode> {
    let is_shared = match namespaces.path(libc::CLONE_NEWNET) {
        Some(path) => {
            let namespace = File::open(path)
                .with_context(|| format!("opening the namespace {}", path.display()))?;
            network::is_own(&namespace)
                .with_context(|| format!("looking at the namespace {}", path.display()))?
        }
        None => namespaces.own(libc::CLONE_NEWNET) == 0,
    };
    Ok(match global.network {
        Network::None => NetworkMode::None,
        Network::Host => NetworkMode::Host,
        Network::Sandbox if is_shared => NetworkMode::Host,
        Network::Sandbox => NetworkMode::Sandbox,
    })
}

/// Makes the container's groups; where the host does not let a caller who is not its root, the
/// container goes without.
fn make_cgroups(global: &GlobalOptions, container: &mut Container) -> anyhow::Result<()> {
    let State { cgroup: Some(cgroup), sentry_cgroup, .. } = &container.state else { return Ok(()) };
    let made = cgroup.create().and_then(|()| match sentry_cgroup {
        Some(cgroup) => cgroup.create().and_then(|()| cgroup.prefer()),
        None => Ok(()),
    });
    let Err(error) = made else { return Ok(()) };
    let is_rootless = match global.rootless {
        Rootless::True => true,
        Rootless::False => false,
        Rootless::Auto => !sys::is_initial_user_namespace(),
    };
    let is_forbidden =
        error.chain().filter_map(|cause| cause.downcast_ref()).any(|cause: &io::Error| {
            matches!(cause.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
        });
    let result = if is_rootless && is_forbidden {
        log::warning(&format!("{error:#}: the container has no cgroups of its own"));
        cgroup.remove().and_then(|()| container.forget_cgroup())
    } else {
        Err(error)
    };
    if result.is_err() {
        container.destroy()?;
    }
    result
}

/// Checks that a process gets a terminal from exactly one place. Returns the console socket.
pub(super) fn check_terminal(
    has_terminal: bool,
    is_detached: bool,
    socket: Option<&Path>,
) -> anyhow::Result<Option<&Path>> {
    // In runc's words.
    if is_detached && has_terminal && socket.is_none() {
        bail!("cannot allocate tty if runsc will detach without setting console socket");
    }
    if socket.is_some() && !(is_detached && has_terminal) {
        bail!("cannot use console socket if runsc will not detach or allocate tty");
    }
    if has_terminal && !is_detached && !io::stdin().is_terminal() {
        // As runc, which looks for a terminal there next.
        if let Err(error) = File::open("/dev/tty") {
            bail!("open /dev/tty: {}: standard input is no terminal", log::cause(&error));
        }
        bail!("standard input is no terminal: set process.terminal to false, or do not use --tty");
    }
    Ok(socket)
}

impl Prepared {
    /// Starts the sandbox and waits until its container is created. Leaves nothing behind where it
    /// fails.
    pub(super) fn create(mut self, args: &CreateArgs) -> anyhow::Result<(Container, Child)> {
        let limits = &self.limits;
        let prepare = |container: &Container| {
            if let Some(cgroup) = &container.state.cgroup {
                let monitor = container.state.monitor.map(|monitor| monitor.pid);
                cgroup.start(monitor.as_slice(), limits)?;
                limits.apply(cgroup)?;
            }
            hooks::run(container, Point::Prestart, Status::Creating)?;
            hooks::run(container, Point::CreateRuntime, Status::Creating)
        };
        let result = monitor::create(&self.plan, &self.surroundings, &mut self.container, prepare);
        let result = result.and_then(|child| {
            monitor::write_pid_file(child.pid, args.pid_file.as_deref())?;
            if let Some(socket) = &args.pidfd_socket {
                monitor::send_descriptor(socket, b"pidfd", child.pidfd.as_fd())
                    .context("--pidfd-socket")?;
            }
            Ok(child)
        });
        match result {
            Ok(child) => Ok((self.container, child)),
            Err(error) => {
                delete::destroy(&self.container)?;
                // Whatever the program's own failure to start would be to a shell.
                bail!("{error:#}")
            }
        }
    }
}

/// Sends a request whose only good answer is `Done`.
pub(super) fn expect_done(container: &Container, request: &Request) -> anyhow::Result<()> {
    let mut control = ControlClient::connect(container).context("connecting to the sentry")?;
    match control.call(request)? {
        Response::Done => Ok(()),
        Response::Failed { message, .. } => Err(ExitError { message, code: 1 }.into()),
        other => bail!("unexpected answer of the sentry: {other:?}"),
    }
}
