//! What a fresh child does on its way to becoming a gofer or a sentry: the namespaces, the roots,
//! the ids, the descriptors. Everything here runs in the child unless said otherwise.
//!
//! Architecture Invariant: an exec'd sentry has no capability, no file system but an empty
//! read-only one, an id that no other sandbox has (where the caller may choose one), no
//! environment, and exactly the descriptors of `sentry_fd`.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, bail};
use sentry::config::{IdMaps, IdRange, NetworkMode};

use super::{Descriptors, GoferMount};
use crate::sys;

/// The id that every process of a sentry has inside its user namespace.
const SENTRY_ID: u32 = 65534;

/// Where the host ids of sentries begin: a range that no distribution gives to anybody. The pid
/// is added, so that no two living sandboxes share an id.
const SENTRY_HOST_ID_BASE: u32 = 1_900_000_000;

/// Returns the namespaces of a sentry. Where it passes sockets through it stays in the network that it
/// passes them to, without a capability over it.
pub(super) fn sentry_namespaces(network: NetworkMode) -> i32 {
    let common = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    match network {
        NetworkMode::None | NetworkMode::Sandbox => common | libc::CLONE_NEWNET,
        NetworkMode::Host => common,
    }
}

/// Returns the namespaces of a gofer. That of a privileged caller keeps the host's ids, because it
/// creates files for all of them.
pub(super) fn gofer_namespaces(privileged: bool) -> i32 {
    let common = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWCGROUP;
    if privileged { common } else { common | libc::CLONE_NEWUSER }
}

/// A gofer in the making.
pub(super) struct GoferPlan<'a> {
    pub(super) id: &'a str,
    pub(super) executable: BorrowedFd<'a>,
    pub(super) errors: BorrowedFd<'a>,
    pub(super) sync: BorrowedFd<'a>,
    /// Any directory: opened here, because a descriptor of the parent's belongs to its mounts.
    pub(super) place: &'a Path,
    pub(super) null: BorrowedFd<'a>,
    pub(super) log: BorrowedFd<'a>,
    pub(super) mounts: &'a [GoferMount],
    /// The container's user namespace, where it has one.
    pub(super) user_namespace: Option<BorrowedFd<'a>>,
    pub(super) sockets: Descriptors<'a>,
}

/// A sentry in the making.
pub(super) struct SentryPlan<'a> {
    pub(super) id: &'a str,
    pub(super) executable: BorrowedFd<'a>,
    pub(super) errors: BorrowedFd<'a>,
    pub(super) sync: BorrowedFd<'a>,
    /// Any directory: opened here, because a descriptor of the parent's belongs to its mounts.
    pub(super) place: &'a Path,
    pub(super) stdio: [BorrowedFd<'a>; 3],
    pub(super) config: BorrowedFd<'a>,
    pub(super) control: BorrowedFd<'a>,
    pub(super) log: Option<BorrowedFd<'a>>,
    pub(super) sockets: Descriptors<'a>,
    pub(super) preserved: Descriptors<'a>,
    pub(super) drop_groups: bool,
}

/// Turns this child into a gofer.
pub(super) fn become_gofer(plan: &GoferPlan<'_>) {
    let Err(error) = exec_gofer(plan);
    give_up(plan.errors, &error.context("starting the gofer"))
}

/// Turns this child into a sentry.
pub(super) fn become_sentry(plan: &SentryPlan<'_>) {
    let Err(error) = exec_sentry(plan);
    give_up(plan.errors, &error.context("starting the sentry"))
}

/// In the parent: maps the caller's own ids into the user namespace of an unprivileged gofer, to
/// themselves or to what they are in the container.
pub(super) fn map_gofer_ids(pid: i32, maps: &IdMaps) -> anyhow::Result<()> {
    let (uid, gid) = sys::effective_ids();
    let inside = |field: &str, own: u32, ranges: &[IdRange]| match ranges {
        [] => Ok(own),
        [range] if range.outside == own && range.size == 1 => Ok(range.inside),
        _ => bail!("linux.{field}: without privileges only the own id, {own}, can be mapped"),
    };
    let uid = (inside("uidMappings", uid, &maps.uids)?, uid);
    let gid = (inside("gidMappings", gid, &maps.gids)?, gid);
    map_ids(pid, uid, gid, false).context("mapping the gofer's ids")
}

/// In the parent: maps the sentry's one id to a host id that nobody else has, or to the caller's
/// own where the caller may not choose.
pub(super) fn map_sentry_ids(pid: i32, privileged: bool) -> anyhow::Result<()> {
    let (uid, gid) = sys::effective_ids();
    let mut candidates = Vec::new();
    if privileged {
        candidates.push((SENTRY_HOST_ID_BASE.saturating_add(pid.unsigned_abs()), true));
        // Inside a container's user namespace such ids may not exist.
        candidates.push((SENTRY_ID, true));
    }
    // One's own is all that there is for an ordinary user, and for the only user of a namespace.
    if !(privileged && sys::is_initial_user_namespace()) {
        candidates.push((uid, false));
    }
    let mut result = Ok(());
    // The last one's failure is the one to report.
    for (host_id, allow_setgroups) in candidates {
        let host_gid = if allow_setgroups { host_id } else { gid };
        result = map_ids(pid, (SENTRY_ID, host_id), (SENTRY_ID, host_gid), allow_setgroups);
        if result.is_ok() {
            return Ok(());
        }
    }
    result.context("mapping the sentry's ids")
}

/// Makes a user namespace with the given ids.
pub(super) fn make_user_namespace(maps: &IdMaps) -> anyhow::Result<OwnedFd> {
    let (gate, go) = io::pipe().context("creating a pipe")?;
    let holder = sys::spawn(libc::CLONE_NEWUSER, || {
        sys::close_in_child(go.as_fd());
        // Nothing is written: the end is what is waited for.
        let _ = pass_gate(gate.as_fd());
    })
    .context("cloning (see /proc/sys/user/max_user_namespaces)")?;
    let made = open_user_namespace(holder.pid, maps);
    drop(go);
    holder.wait()?;
    made
}

fn open_user_namespace(pid: i32, maps: &IdMaps) -> anyhow::Result<OwnedFd> {
    let dir = Path::new("/proc").join(pid.to_string());
    for (name, ranges) in [("uid_map", &maps.uids), ("gid_map", &maps.gids)] {
        let line = |range: &IdRange| format!("{} {} {}\n", range.inside, range.outside, range.size);
        let text: String = ranges.iter().map(line).collect();
        fs::write(dir.join(name), &text)
            .with_context(|| format!("writing {:?} to {name}", text.trim_end()))?;
    }
    Ok(fs::File::open(dir.join("ns/user")).context("opening it")?.into())
}

fn map_ids(pid: i32, uid: (u32, u32), gid: (u32, u32), allow_setgroups: bool) -> io::Result<()> {
    let dir = Path::new("/proc").join(pid.to_string());
    if !allow_setgroups {
        fs::write(dir.join("setgroups"), "deny")?;
    }
    fs::write(dir.join("gid_map"), format!("{} {} 1", gid.0, gid.1))?;
    fs::write(dir.join("uid_map"), format!("{} {} 1", uid.0, uid.1))
}

fn exec_gofer(plan: &GoferPlan<'_>) -> anyhow::Result<Infallible> {
    sys::reset_signals()?;
    sys::new_session()?;
    sys::die_with_parent()?;
    pass_gate(plan.sync)?;
    sys::set_limits().context("setting resource limits")?;
    if plan.mounts.iter().any(|mount| mount.follows) {
        sys::make_mounts_follow().context("making mounts followers")?;
    } else {
        sys::make_mounts_private().context("making mounts private")?;
    }
    let place = fs::File::open(plan.place).context("opening the state directory")?;
    let mut roots = Vec::new();
    for mount in plan.mounts {
        let tree = sys::clone_mount_tree(&mount.source, mount.tree_options())
            .with_context(|| format!("mounting {} (needs Linux 5.12)", mount.source.display()))?;
        roots.push(tree);
    }
    let proc_self_fd = sys::descriptor_directory().context("opening /proc/self/fd")?;
    sys::enter_empty_root(place.as_fd()).context("entering an empty root")?;
    let root = fs::File::open("/").context("opening the empty root")?;
    for (_, tree) in plan.mounts.iter().zip(&roots).filter(|(mount, _)| mount.follows) {
        // New mounts come to attached trees only. There, below the root, no name leads to it.
        sys::mounts::attach(tree.as_fd(), root.as_fd()).context("attaching a mount")?;
    }
    drop(root);
    if let Some(namespace) = plan.user_namespace {
        // Everything above needed the host's privileges. From here on the host's kernel translates
        // the owners of files, and refuses what belongs to nobody in the container.
        sys::enter_namespace(namespace, libc::CLONE_NEWUSER)
            .context("entering the container's user namespace")?;
        sys::set_ids(0, true).context("becoming root of the container's user namespace")?;
        sys::die_with_parent()?;
    }
    pass_gate(plan.sync)?;

    let mut fds = vec![plan.null, plan.null, plan.log, proc_self_fd.as_fd()];
    for (socket, root) in plan.sockets.iter().zip(&roots) {
        fds.extend([*socket, root.as_fd()]);
    }
    let mut args = vec!["runsc-gofer".to_owned(), "gofer".to_owned(), plan.id.to_owned()];
    args.extend(plan.mounts.iter().map(GoferMount::to_argument));
    exec(plan.executable, plan.errors, &fds, &args)
}

fn exec_sentry(plan: &SentryPlan<'_>) -> anyhow::Result<Infallible> {
    sys::reset_signals()?;
    sys::new_session()?;
    sys::set_limits().context("setting resource limits")?;
    // While the id still is the caller's: the directory is for nobody else.
    let place = fs::File::open(plan.place).context("opening the state directory")?;
    let oom_score_adj = fs::File::options()
        .read(true)
        .write(true)
        .open("/proc/self/oom_score_adj")
        .context("opening /proc/self/oom_score_adj")?;
    pass_gate(plan.sync)?;
    sys::set_ids(SENTRY_ID, plan.drop_groups).context("changing to an unprivileged id")?;
    sys::make_mounts_private().context("making mounts private")?;
    let proc_self_fd = sys::descriptor_directory().context("opening /proc/self/fd")?;
    // Below a container runtime that hides parts of `/proc` the host refuses this one. Then nothing
    // is known of what processes use: the other directory has none.
    let proc = sys::process_directory().ok();
    sys::enter_empty_root(place.as_fd()).context("entering an empty root")?;
    sys::drop_capabilities().context("dropping capabilities")?;
    sys::set_no_new_privs().context("setting no_new_privs")?;
    // After the change of ids, which clears it; before the gate, which fails where the parent died
    // earlier.
    sys::die_with_parent()?;
    pass_gate(plan.sync)?;

    let mut fds = plan.stdio.to_vec();
    fds.extend([plan.config, plan.control, plan.log.unwrap_or(plan.config)]);
    fds.extend([proc_self_fd.as_fd(), oom_score_adj.as_fd()]);
    fds.push(proc.as_ref().unwrap_or(&proc_self_fd).as_fd());
    fds.extend(&plan.sockets);
    fds.extend(&plan.preserved);
    let log = if plan.log.is_some() { "log" } else { "no-log" };
    let gofers = plan.sockets.len().to_string();
    let preserved = plan.preserved.len().to_string();
    let args = ["runsc-sandbox", "boot", plan.id, &gofers, log, &preserved].map(str::to_owned);
    exec(plan.executable, plan.errors, &fds, &args)
}

/// Waits for the parent's leave to go on.
pub(super) fn pass_gate(sync: BorrowedFd<'_>) -> anyhow::Result<()> {
    let mut file = fs::File::from(sync.try_clone_to_owned()?);
    let mut byte = [0];
    match file.read(&mut byte) {
        Ok(1) => Ok(()),
        Ok(_) => bail!("runsc has died"),
        Err(error) => Err(error).context("waiting for runsc"),
    }
}

/// Replaces this process by runsc itself, in the form of `executable`, with exactly these descriptors.
pub(super) fn exec(
    executable: BorrowedFd<'_>,
    errors: BorrowedFd<'_>,
    fds: &[BorrowedFd<'_>],
    args: &[String],
) -> anyhow::Result<Infallible> {
    let args = args.iter().map(|arg| CString::new(arg.as_str())).collect::<Result<Vec<_>, _>>()?;
    let kept = sys::place_descriptors(fds, &[executable, errors]).context("placing descriptors")?;
    let [executable, errors] = &kept[..] else { bail!("placing descriptors: wrong number") };
    let error = sys::exec_descriptor(executable.as_fd(), &args, &[]);
    // The caller's descriptors are void by now.
    give_up(errors.as_fd(), &anyhow::Error::from(error).context("executing runsc"));
}

fn give_up(errors: BorrowedFd<'_>, error: &anyhow::Error) -> ! {
    if let Ok(errors) = errors.try_clone_to_owned() {
        // Nobody is left to tell where this fails.
        let _ = fs::File::from(errors).write_all(format!("{error:#}\n").as_bytes());
    }
    sys::exit_now(126)
}
