//! The root and the mounts of a container, and the gofer connections behind them.

use std::path::Path;

use anyhow::Context as _;
use sentry::config::{MountConfig, MountKind, OverlayMedium, Propagation, RootConfig, TmpfsConfig};

use crate::cli::{Medium, Overlay};
use crate::sandbox::GoferMount;

/// What the container's file tree is made from.
#[derive(Debug)]
pub(crate) struct FilesystemPlan {
    pub(crate) root: RootConfig,
    pub(crate) mounts: Vec<MountConfig>,
    pub(crate) gofer_mounts: Vec<GoferMount>,
    overlay: Overlay,
}

impl FilesystemPlan {
    /// Starts with the root alone.
    pub(crate) fn new(rootfs: &Path, readonly: bool, overlay: &Overlay) -> anyhow::Result<Self> {
        let mut plan = Self {
            root: RootConfig { connection: 0, readonly, ..RootConfig::default() },
            mounts: Vec::new(),
            gofer_mounts: Vec::new(),
            overlay: overlay.clone(),
        };
        let has_overlay = overlay.medium != Medium::None;
        plan.gofer_mounts.push(gofer_mount(rootfs, has_overlay || readonly));
        if has_overlay {
            plan.root.overlay = plan.overlay_for(rootfs)?;
        }
        Ok(plan)
    }

    /// Adds what every container has that shows the host's files.
    pub(crate) fn add_default_mounts(&mut self) {
        self.mounts.push(kernel_mount("/proc", MountKind::Proc, "proc"));
        self.add_missing_mounts();
        self.mounts.push(kernel_mount("/sys", MountKind::Sysfs, "sysfs"));
        let pts = kernel_mount("/dev/pts", MountKind::Devpts, "devpts");
        self.mounts.push(MountConfig { nodev: false, ..pts });
        let shm = MountKind::Tmpfs(TmpfsConfig { mode: Some(0o1777), ..TmpfsConfig::default() });
        self.mounts.push(kernel_mount("/dev/shm", shm, "shm"));
        self.mounts.push(kernel_mount("/dev/mqueue", MountKind::Mqueue, "mqueue"));
    }

    /// Adds what a container cannot do without and its specification does not mention.
    pub(crate) fn add_missing_mounts(&mut self) {
        if !self.mounts.iter().any(|mount| mount.destination == "/dev") {
            let dev =
                MountKind::Devtmpfs(TmpfsConfig { mode: Some(0o755), ..TmpfsConfig::default() });
            // Before everything below it.
            let mount = MountConfig { nodev: false, ..kernel_mount("/dev", dev, "tmpfs") };
            let place = self.mounts.iter().position(|mount| mount.destination.starts_with("/dev/"));
            self.mounts.insert(place.unwrap_or(self.mounts.len()), mount);
        }
    }

    /// Adds a bind mount of a host path.
    pub(super) fn add_bind(&mut self, source: &Path, mount: MountConfig) -> anyhow::Result<()> {
        let directory = source.metadata().with_context(|| source.display().to_string())?.is_dir();
        let has_overlay =
            self.overlay.all && self.overlay.medium != Medium::None && directory && !mount.readonly;
        let connection = self.gofer_mounts.len();
        self.gofer_mounts.push(GoferMount {
            pseudo_filesystems: true,
            unix_sockets: true,
            ..gofer_mount(source, has_overlay || mount.readonly)
        });
        let overlay = if has_overlay { self.overlay_for(source)? } else { OverlayMedium::None };
        self.mounts.push(MountConfig {
            kind: MountKind::Gofer { connection, directory, overlay },
            ..mount
        });
        Ok(())
    }

    /// Returns the medium for an overlay above `below`, with a connection of its own for files.
    fn overlay_for(&mut self, below: &Path) -> anyhow::Result<OverlayMedium> {
        let dir = match &self.overlay.medium {
            Medium::None => return Ok(OverlayMedium::None),
            Medium::Memory => return Ok(OverlayMedium::Memory),
            Medium::Own => below.to_owned(),
            Medium::Dir(dir) => dir
                .canonicalize()
                .with_context(|| format!("--overlay2: directory {}", dir.display()))?,
        };
        let connection = self.gofer_mounts.len();
        self.gofer_mounts.push(GoferMount { tmpfiles: true, ..gofer_mount(&dir, true) });
        Ok(OverlayMedium::File { connection })
    }
}

fn gofer_mount(source: &Path, readonly: bool) -> GoferMount {
    GoferMount {
        source: source.to_owned(),
        readonly,
        tmpfiles: false,
        unix_sockets: false,
        pseudo_filesystems: false,
    }
}

/// Returns a mount that the sentry's kernel serves, with the options that suit most.
fn kernel_mount(destination: &str, kind: MountKind, source: &str) -> MountConfig {
    MountConfig {
        destination: destination.into(),
        kind,
        readonly: false,
        nosuid: true,
        nodev: true,
        noexec: true,
        source: source.into(),
        root_name: String::new(),
        propagation: Propagation::Private,
    }
}
