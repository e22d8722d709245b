//! What of a container's files is to be seen at its monitor, from the host: `podman cp` and whoever
//! else enters the mount namespace of the process that it takes for the container's first one, or
//! looks below its `/proc/PID/root`.
//!
//! Where the sandbox keeps changes of the root for itself there is nothing that would be true, and
//! the monitor's root is the gofer's, which is empty. Otherwise it is the container's root with the
//! bind mounts on it, as the gofer serves them. What only exists in the sandbox (`/proc`, `tmpfs`) is
//! not there.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sentry::config::{MountKind, OverlayMedium};

use super::Plan;
use crate::sys;

/// The trees that make up the view, cloned from the host's mounts.
pub(super) struct View {
    root: OwnedFd,
    /// Trees and where they are in the container, in the order of its mounts.
    binds: Vec<(PathBuf, OwnedFd)>,
    /// Any directory, by its path: the new root covers it for a moment.
    place: PathBuf,
}

impl View {
    /// Collects the trees, in the mount namespace of the caller of `create`. None where the sandbox
    /// keeps changes for itself.
    pub(super) fn new(plan: &Plan) -> anyhow::Result<Option<Self>> {
        let container = &plan.config.container;
        if container.root.overlay != OverlayMedium::None {
            return Ok(None);
        }
        let tree = |connection: usize| {
            let mount = plan.gofer_mounts.get(connection).context("no such connection")?;
            let options = sys::TreeOptions { follows: false, ..mount.tree_options() };
            sys::clone_mount_tree(&mount.source, options)
                .with_context(|| format!("mounting {}", mount.source.display()))
        };
        let mut binds = Vec::new();
        for mount in &container.mounts {
            if let MountKind::Gofer { connection, overlay: OverlayMedium::None, .. } = mount.kind {
                binds.push((PathBuf::from(&mount.destination), tree(connection)?));
            }
        }
        let root = tree(container.root.connection)?;
        Ok(Some(Self { root, binds, place: plan.state_dir.clone() }))
    }

    /// Makes the view all that this process's mount namespace, a new one, has.
    pub(super) fn enter(&self) -> anyhow::Result<()> {
        sys::mounts::unshare_mounts().context("making a mount namespace")?;
        let place = File::open(&self.place).context("opening the state directory")?;
        let root = self.root.as_fd();
        sys::mounts::attach(root, place.as_fd()).context("mounting the container's root")?;
        for (destination, tree) in &self.binds {
            let relative = destination.strip_prefix("/").unwrap_or(destination);
            let place = sys::mounts::find_below(root, relative_or_dot(relative));
            // What is below a mount that only the sandbox has (`/dev/shm`) has no place here.
            let _ = place.and_then(|place| sys::mounts::attach(tree.as_fd(), place.as_fd()));
        }
        sys::mounts::enter_root(root).context("entering the container's root")
    }
}

fn relative_or_dot(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}
