//! The root and the mounts of a container, and the gofer connections behind them.

use std::fs;
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

    /// Adds a bind mount of a host path. Where it is read-only, what is mounted below it is as well only
    /// if that is asked for (`is_recursive`).
    pub(super) fn add_bind(
        &mut self,
        source: &Path,
        mut mount: MountConfig,
        is_recursive: bool,
    ) -> anyhow::Result<()> {
        let directory = source.metadata().with_context(|| source.display().to_string())?.is_dir();
        let has_overlay =
            self.overlay.all && self.overlay.medium != Medium::None && directory && !mount.readonly;
        // Of several mounts the host's kernel tells which ones may be written to; the guest has one.
        let readonly_top = mount.readonly && !is_recursive && has_mounts_below(source)?;
        mount.readonly &= !readonly_top;
        let connection = self.gofer_mounts.len();
        self.gofer_mounts.push(GoferMount {
            pseudo_filesystems: true,
            unix_sockets: true,
            readonly_top,
            // Nothing is mounted below a file.
            follows: directory
                && matches!(mount.propagation, Propagation::Slave | Propagation::Shared),
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

/// Returns what is done with changes of the root where the command line does not say.
///
/// A root that somebody has mounted for this container takes its changes: that is where `podman
/// commit` and `diff`, `docker cp` and the layers of a build look for them. Any other directory may
/// be an image that more than one container is to find as it was.
pub(super) fn default_overlay(rootfs: &Path, bundle: &Path) -> anyhow::Result<Overlay> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    let is_made = is_made_for_container(&mounts, rootfs, bundle);
    Ok(if is_made { Overlay::NONE } else { Overlay::ROOT_IN_MEMORY })
}

/// Tells whether anything is mounted below a directory.
fn has_mounts_below(dir: &Path) -> anyhow::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    let is_below = |line: &str| {
        let mount = line.split(' ').nth(4).map(unescape).unwrap_or_default();
        Path::new(&mount) != dir && Path::new(&mount).starts_with(dir)
    };
    Ok(mounts.lines().any(is_below))
}

/// Tells whether a root is a mount of its own, and either an overlay or in the bundle.
fn is_made_for_container(mounts: &str, rootfs: &Path, bundle: &Path) -> bool {
    let Some(wanted) = rootfs.to_str() else { return false };
    // The last one lies on top. The root of the host is nobody's.
    let kind = mounts.lines().rev().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mount = before.split(' ').nth(4)?;
        if unescape(mount) == wanted { after.split(' ').next() } else { None }
    });
    let in_bundle = rootfs != bundle && rootfs.starts_with(bundle) && bundle != Path::new("/");
    wanted != "/"
        && kind.is_some_and(|kind| in_bundle || matches!(kind, "overlay" | "fuse.fuse-overlayfs"))
}

/// Turns the octal escapes of mountinfo back.
fn unescape(path: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(path.to_owned(), |path, (escape, plain)| path.replace(escape, plain))
}

fn gofer_mount(source: &Path, readonly: bool) -> GoferMount {
    GoferMount {
        source: source.to_owned(),
        readonly,
        readonly_top: false,
        follows: false,
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_made_for_container;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime - overlay overlay rw
30 22 254:0 / /data rw,relatime - ext4 /dev/vda rw
31 22 0:40 / /var/lib/merged\\040one rw,relatime - overlay overlay rw,lowerdir=/x
32 22 254:0 /snapshot /run/bundle/rootfs rw,relatime - ext4 /dev/vda rw
";

    #[test]
    fn roots_that_were_mounted_for_a_container_are_told_from_images() {
        let is_made =
            |rootfs, bundle| is_made_for_container(MOUNTS, Path::new(rootfs), Path::new(bundle));
        assert!(is_made("/var/lib/merged one", "/run/a"));
        assert!(is_made("/run/bundle/rootfs", "/run/bundle"));
        assert!(!is_made("/run/bundle/rootfs", "/run/other"));
        assert!(!is_made("/data", "/run/bundle") && !is_made("/data", "/"));
        assert!(!is_made("/", "/run/bundle") && !is_made("/", "/"));
        assert!(!is_made("/run/bundle/image", "/run/bundle"));
    }
}
