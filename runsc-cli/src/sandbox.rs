//! The processes of a sandbox: starting gofer and sentry, each in its jail, and talking to them.

pub(crate) mod control_client;
mod doors;
mod executable;
pub(crate) mod foreground;
pub(crate) mod held;
mod jail;
mod member;
pub(crate) mod monitor;
pub(crate) mod network;
pub(crate) mod pod;
pub(crate) mod stubs;
mod view;

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use sentry::config::{Config, IdMaps, NetworkMode};

use crate::sys::network::EmptyNetwork;
use crate::sys::{self, Child, ExitStatus};
use executable::Executable;
use jail::{GoferPlan, SentryPlan};

/// Everything that a sandbox is made from.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What the sentry is told.
    pub(crate) config: Config,
    /// What the gofer serves, by connection.
    pub(crate) gofer_mounts: Vec<GoferMount>,
    /// What the container's program gets from descriptor 3 on.
    pub(crate) preserved: Vec<OwnedFd>,
    /// Where the debug and system-call logs go.
    pub(crate) log: Option<File>,
    /// The container's state directory: the control socket is made there.
    pub(crate) state_dir: PathBuf,
    /// Whether somebody reads this process's standard error for as long as the sandbox lives.
    pub(crate) is_attended: bool,
}

/// A file or directory of the host that the gofer serves over one connection.
#[derive(Clone, Debug)]
pub(crate) struct GoferMount {
    /// The host path.
    pub(crate) source: PathBuf,
    /// Whether nothing of it may be changed.
    pub(crate) readonly: bool,
    /// Whether nothing may be changed but what is mounted below it.
    pub(crate) readonly_top: bool,
    /// Whether what the host mounts below it later is to be seen.
    // DEVIATION: the gofer holds directories that the sandbox has seen, not only those that are open: until
    // the sandbox forgets them the host can unmount them only lazily (`umount -l`).
    pub(crate) follows: bool,
    /// Whether the connection is only there for unlinked overlay files.
    pub(crate) tmpfiles: bool,
    /// Whether unix sockets below it may be connected to and bound.
    pub(crate) unix_sockets: bool,
    /// Whether pseudo file systems below the root may be entered.
    pub(crate) pseudo_filesystems: bool,
}

/// The running processes of a sandbox that this process has started.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) sentry: Child,
    pub(crate) gofer: Child,
    /// What both execute.
    executable: Executable,
}

/// Starts gofer and sentry of a sandbox, which die with this process. `stdio` is what the container gets.
/// `before_exec` is called with their processes while both wait: what it
/// writes down is on disk before anything can outlive this process.
pub(crate) fn launch(
    plan: &Plan,
    stdio: [BorrowedFd<'_>; 3],
    before_exec: impl FnOnce(&Sandbox) -> anyhow::Result<()>,
) -> anyhow::Result<Sandbox> {
    sys::raise_file_limit().context("raising the limit of open files")?;
    let executable = Executable::new().context("opening the runsc executable")?;
    let config = config_file(&plan.config).context("writing the sentry's configuration")?;
    let control = control_client::listen(&plan.state_dir).context("creating the control socket")?;
    let pairs = gofer_sockets(plan)?;
    let (errors, errors_writer) = io::pipe().context("creating a pipe")?;
    let (gofer_sync, gofer_go) = io::pipe().context("creating a pipe")?;
    let (sentry_sync, sentry_go) = io::pipe().context("creating a pipe")?;
    let null =
        File::options().read(true).write(true).open("/dev/null").context("opening /dev/null")?;
    let privileged = sys::effective_ids().0 == 0;
    let stderr = io::stderr();
    let gofer_log = gofer_log(plan, &stderr, &null);

    let maps = &plan.config.container.id_maps;
    let user_namespace = user_namespace(privileged, maps)?;
    let gofer_plan = GoferPlan {
        id: &plan.config.container.id,
        executable: executable.as_fd(),
        errors: errors_writer.as_fd(),
        sync: gofer_sync.as_fd(),
        place: &plan.state_dir,
        null: null.as_fd(),
        log: gofer_log,
        mounts: &plan.gofer_mounts,
        user_namespace: user_namespace.as_ref().map(AsFd::as_fd),
        sockets: pairs.iter().map(|(gofer, _)| gofer.as_fd()).collect(),
    };
    // The sentry makes no socket, and the gofer's are found by paths, which no network namespace holds: one
    // is as good as two, and quicker made.
    let network = match plan.config.network {
        NetworkMode::Host => None,
        NetworkMode::None | NetworkMode::Sandbox => EmptyNetwork::enter(),
    };
    let shared = if network.is_some() { libc::CLONE_NEWNET } else { 0 };
    let gofer = sys::spawn(jail::gofer_namespaces(privileged) & !shared, || {
        drop_in_child([&gofer_go, &sentry_go]);
        jail::become_gofer(&gofer_plan);
    })
    .context("starting the gofer: cloning into new namespaces")?;

    let sentry_plan = SentryPlan {
        id: &plan.config.container.id,
        executable: executable.as_fd(),
        errors: errors_writer.as_fd(),
        sync: sentry_sync.as_fd(),
        place: &plan.state_dir,
        stdio,
        config: config.as_fd(),
        control: control.as_fd(),
        log: plan.log.as_ref().map(AsFd::as_fd),
        sockets: pairs.iter().map(|(_, sentry)| sentry.as_fd()).collect(),
        preserved: plan.preserved.iter().map(AsFd::as_fd).collect(),
        drop_groups: privileged,
    };
    let sentry = sys::spawn(jail::sentry_namespaces(plan.config.network) & !shared, || {
        drop_in_child([&gofer_go, &sentry_go]);
        jail::become_sentry(&sentry_plan);
    });
    let sentry = match sentry {
        Ok(sentry) => sentry,
        Err(error) => {
            gofer.kill(libc::SIGKILL)?;
            gofer.wait()?;
            return Err(error).context(
                "starting the sentry: cloning into new namespaces (it needs user namespaces: see \
                 /proc/sys/user/max_user_namespaces)",
            );
        }
    };
    let mut sandbox = Sandbox { sentry, gofer, executable };
    if let Err(error) = network.map_or(Ok(()), EmptyNetwork::leave) {
        sandbox.kill();
        return Err(error).context("going back to the container's network namespace");
    }
    drop((errors_writer, gofer_sync, sentry_sync, pairs));
    let started = release(&mut sandbox, privileged, maps, &gofer_go, &sentry_go, |sandbox| {
        sandbox.executable.complete().context("copying the runsc executable")?;
        before_exec(sandbox)
    });
    let is_released = started.is_ok();
    let Err(error) = started.and_then(|()| collect_errors(&errors)) else { return Ok(sandbox) };
    // With the gates still held: a child that waits at one would say that runsc has died.
    sandbox.kill();
    // A child that gave up at once has closed its gate: what it says is the cause.
    let cause = if is_released { None } else { collect_errors(&errors).err() };
    Err(cause.unwrap_or(error))
}

/// Starts the gofer of a container that joins a sandbox, which dies with this process. Returns it and
/// the sentry's sockets. `before_exec` is as for [`launch`].
fn launch_gofer(
    plan: &Plan,
    executable: BorrowedFd<'_>,
    before_exec: impl FnOnce(&Child) -> anyhow::Result<()>,
) -> anyhow::Result<(Child, Vec<OwnedFd>)> {
    sys::raise_file_limit().context("raising the limit of open files")?;
    let pairs = gofer_sockets(plan)?;
    let (errors, errors_writer) = io::pipe().context("creating a pipe")?;
    let (sync, mut go) = io::pipe().context("creating a pipe")?;
    let null =
        File::options().read(true).write(true).open("/dev/null").context("opening /dev/null")?;
    let privileged = sys::effective_ids().0 == 0;
    let stderr = io::stderr();
    let maps = &plan.config.container.id_maps;
    let user_namespace = user_namespace(privileged, maps)?;
    let gofer_plan = GoferPlan {
        id: &plan.config.container.id,
        executable,
        errors: errors_writer.as_fd(),
        sync: sync.as_fd(),
        place: &plan.state_dir,
        null: null.as_fd(),
        log: gofer_log(plan, &stderr, &null),
        mounts: &plan.gofer_mounts,
        user_namespace: user_namespace.as_ref().map(AsFd::as_fd),
        sockets: pairs.iter().map(|(gofer, _)| gofer.as_fd()).collect(),
    };
    let gofer = sys::spawn(jail::gofer_namespaces(privileged), || {
        drop_in_child([&go]);
        jail::become_gofer(&gofer_plan);
    })
    .context("starting the gofer: cloning into new namespaces")?;
    drop((errors_writer, sync));
    let release = || {
        if !privileged {
            jail::map_gofer_ids(gofer.pid, maps)?;
        }
        go.write_all(&[1]).context("starting the gofer")?;
        before_exec(&gofer)?;
        go.write_all(&[1]).context("starting the gofer")
    };
    let started = release();
    let is_released = started.is_ok();
    let Err(error) = started.and_then(|()| collect_errors(&errors)) else {
        return Ok((gofer, pairs.into_iter().map(|(_, sentry)| sentry).collect()));
    };
    gofer.kill(libc::SIGKILL)?;
    gofer.wait()?;
    let cause = if is_released { None } else { collect_errors(&errors).err() };
    Err(cause.unwrap_or(error))
}

/// Makes a pair of sockets for each connection: the gofer's end and the sentry's.
fn gofer_sockets(plan: &Plan) -> anyhow::Result<Vec<(OwnedFd, OwnedFd)>> {
    let pairs = plan.gofer_mounts.iter().map(|_| sys::seqpacket_pair());
    pairs.collect::<io::Result<_>>().context("creating the gofer's sockets")
}

/// Makes the container's user namespace, where it has one.
fn user_namespace(privileged: bool, maps: &IdMaps) -> anyhow::Result<Option<OwnedFd>> {
    if !privileged || *maps == IdMaps::default() {
        return Ok(None);
    }
    jail::make_user_namespace(maps).map(Some).context("making a user namespace")
}

/// Returns where the gofer writes what it has to say.
fn gofer_log<'a>(plan: &'a Plan, stderr: &'a io::Stderr, null: &'a File) -> BorrowedFd<'a> {
    match &plan.log {
        Some(log) => log.as_fd(),
        None if plan.is_attended => stderr.as_fd(),
        None => null.as_fd(),
    }
}

impl GoferMount {
    /// Returns what the clone of the host's mounts is like that the gofer gets.
    pub(crate) fn tree_options(&self) -> sys::TreeOptions {
        sys::TreeOptions {
            readonly: self.readonly && !self.tmpfiles,
            readonly_top: self.readonly_top,
            follows: self.follows,
        }
    }

    /// Returns the form in which the options travel on the gofer's command line.
    pub(crate) fn to_argument(&self) -> String {
        let letters = [
            (self.readonly, 'r'),
            (self.tmpfiles, 't'),
            (self.unix_sockets, 'u'),
            (self.pseudo_filesystems, 'p'),
        ];
        std::iter::once('-')
            .chain(letters.into_iter().filter(|(set, _)| *set).map(|(_, letter)| letter))
            .collect()
    }
}

impl Sandbox {
    /// Waits for the sentry, then ends the gofer.
    pub(crate) fn wait(&self) -> anyhow::Result<ExitStatus> {
        let status = self.sentry.wait().context("waiting for the sentry")?;
        self.gofer.kill(libc::SIGKILL).context("ending the gofer")?;
        self.gofer.wait().context("waiting for the gofer")?;
        Ok(status)
    }

    /// Kills both processes and reaps them. Returns how the sentry has ended: by this, if it lived.
    pub(crate) fn kill(&self) -> Option<ExitStatus> {
        let [sentry, _] = [&self.sentry, &self.gofer].map(|child| {
            // A child that is gone already is what is wanted.
            let _ = child.kill(libc::SIGKILL);
            child.wait().ok()
        });
        sentry
    }
}

/// Lets both children go on, one gate at a time: first with their id maps, then, when
/// `before_exec` is done, into the program.
fn release(
    sandbox: &mut Sandbox,
    privileged: bool,
    maps: &IdMaps,
    mut gofer_go: &PipeWriter,
    mut sentry_go: &PipeWriter,
    before_exec: impl FnOnce(&mut Sandbox) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if !privileged {
        jail::map_gofer_ids(sandbox.gofer.pid, maps)?;
    }
    gofer_go.write_all(&[1]).context("starting the gofer")?;
    jail::map_sentry_ids(sandbox.sentry.pid, privileged)?;
    // Without it, what has had a lower priority once keeps it.
    let _ = sys::permit_own_nice(sandbox.sentry.pid);
    sentry_go.write_all(&[1]).context("starting the sentry")?;
    before_exec(sandbox)?;
    gofer_go.write_all(&[1]).context("starting the gofer")?;
    sentry_go.write_all(&[1]).context("starting the sentry")
}

/// Reads what the children have to say before their exec, which closes the pipe.
fn collect_errors(mut errors: &PipeReader) -> anyhow::Result<()> {
    let mut text = String::new();
    errors.read_to_string(&mut text).context("reading the errors of gofer and sentry")?;
    // A failure of the gofer may make the sentry fail as well: the first one counts.
    match text.lines().next() {
        Some(line) => bail!("{line}"),
        None => Ok(()),
    }
}

/// Closes the child's copies of the parent's ends, so that the child notices the parent's death.
fn drop_in_child<const N: usize>(ends: [&PipeWriter; N]) {
    for end in ends {
        sys::close_in_child(end.as_fd());
    }
}

fn config_file(config: &Config) -> anyhow::Result<OwnedFd> {
    let mut file = File::from(sys::memfd(c"runsc-config", false)?);
    file.write_all(&serde_json::to_vec(config)?)?;
    sys::seal(file.as_fd())?;
    Ok(file.into())
}

/// The numbers at which a sentry finds its descriptors, after its three standard ones.
pub(crate) mod sentry_fd {
    pub(crate) const CONFIG: i32 = 3;
    pub(crate) const CONTROL: i32 = 4;
    /// The log, or `/dev/null`'s place taken by the configuration again where there is none.
    pub(crate) const LOG: i32 = 5;
    /// This process's own descriptors, as a directory.
    pub(crate) const PROC_SELF_FD: i32 = 6;
    /// This process's `oom_score_adj`, closed before the sentry locks itself down.
    pub(crate) const OOM_SCORE_ADJ: i32 = 7;
    /// The processes of this pid namespace, as a directory: for the clerk only.
    pub(crate) const PROC: i32 = 8;
    pub(crate) const FIRST_GOFER: i32 = 9;
}

/// The numbers at which a gofer finds its descriptors.
pub(crate) mod gofer_fd {
    pub(crate) const PROC_SELF_FD: i32 = 3;
    /// Socket and root of each connection in turn.
    pub(crate) const FIRST_MOUNT: i32 = 4;
}

/// A borrowed list that a jail places.
type Descriptors<'a> = Vec<BorrowedFd<'a>>;
