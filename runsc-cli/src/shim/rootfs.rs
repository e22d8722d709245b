//! The mounts that make a container's root, which a shim makes before `runsc` looks at the bundle.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::mount::{MountFlags, UnmountFlags};

use super::wire::{Malformed, Message};

/// How many bytes of options `mount(2)` takes.
const MAX_DATA: usize = 4095;

/// A mount, in containerd's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    kind: String,
    source: String,
    target: String,
    options: Vec<String>,
}

impl Mount {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let message = Message::parse(bytes)?;
        let option = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Malformed);
        Ok(Self {
            kind: message.text(1)?,
            source: message.text(2)?,
            target: message.text(3)?,
            options: message.repeated(4).map(option).collect::<Result<_, _>>()?,
        })
    }

    fn mount(&self, root: &Path) -> anyhow::Result<()> {
        let target = root.join(self.target.trim_start_matches('/'));
        let (flags, data) = split_options(&self.options);
        let (flags, is_bind) = if self.kind == "bind" || flags.contains(MountFlags::BIND) {
            (flags | MountFlags::BIND, true)
        } else {
            (flags, false)
        };
        // A bind mount takes no other flag at first.
        let first = if is_bind { flags & (MountFlags::BIND | MountFlags::REC) } else { flags };
        // Many layers have longer options than a page: then their names begin where they differ.
        let data = match shorten(&data) {
            Some((folder, data)) if data.len() <= MAX_DATA => {
                std::env::set_current_dir(folder)?;
                data
            }
            _ => data,
        };
        let data = std::ffi::CString::new(data)?;
        let result =
            rustix::mount::mount(&self.source, &target, &self.kind, first, Some(data.as_c_str()));
        std::env::set_current_dir("/")?;
        result.with_context(|| format!("mounting {} on {}", self.kind, target.display()))?;
        if is_bind && !(flags & !(MountFlags::BIND | MountFlags::REC)).is_empty() {
            rustix::mount::mount_remount(&target, flags, c"")
                .with_context(|| format!("remounting {}", target.display()))?;
        }
        Ok(())
    }
}

/// Mounts a container's root in its bundle. Leaves nothing mounted where it fails.
pub(crate) fn mount_all(mounts: &[Mount], bundle: &Path) -> anyhow::Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    let root = bundle.join("rootfs");
    fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
    mounts.iter().try_for_each(|mount| mount.mount(&root)).inspect_err(|_| unmount_all(bundle))
}

/// Unmounts whatever is mounted as a container's root.
pub(crate) fn unmount_all(bundle: &Path) {
    let root = bundle.join("rootfs");
    // Fails where nothing is left. Each mount that lay below another comes to light with it.
    while rustix::mount::unmount(&root, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
}

fn split_options(options: &[String]) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options {
        let (flag, is_set) = match option.as_str() {
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "nodev" => (MountFlags::NODEV, true),
            "noexec" => (MountFlags::NOEXEC, true),
            "noatime" => (MountFlags::NOATIME, true),
            "relatime" => (MountFlags::RELATIME, true),
            "bind" => (MountFlags::BIND, true),
            "rbind" => (MountFlags::BIND.union(MountFlags::REC), true),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "defaults" => (MountFlags::empty(), true),
            other => {
                data.push(other);
                continue;
            }
        };
        flags.set(flag, is_set);
    }
    (flags, data.join(","))
}

/// Returns options of an overlay whose layers have names relative to a folder, and the folder, where
/// they are too long and all are below one.
fn shorten(data: &str) -> Option<(PathBuf, String)> {
    if data.len() <= MAX_DATA {
        return None;
    }
    let lower = data.split(',').find_map(|option| option.strip_prefix("lowerdir="))?;
    let layers: Vec<&Path> = lower.split(':').map(Path::new).collect();
    let mut folder = layers.first()?.parent()?;
    while !layers.iter().all(|layer| layer.starts_with(folder)) {
        folder = folder.parent()?;
    }
    let names = layers.iter().map(|layer| layer.strip_prefix(folder).ok()?.to_str());
    let names: Vec<&str> = names.collect::<Option<_>>()?;
    let options = data.split(',').map(|option| match option.strip_prefix("lowerdir=") {
        Some(_) => format!("lowerdir={}", names.join(":")),
        None => option.to_owned(),
    });
    Some((folder.to_owned(), options.collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::mount::MountFlags;

    use super::{shorten, split_options};

    #[test]
    fn options_are_flags_or_data() {
        let options = ["ro", "rbind", "index=off"].map(str::to_owned);
        let (flags, data) = split_options(&options);
        assert_eq!(flags, MountFlags::RDONLY | MountFlags::BIND | MountFlags::REC);
        assert_eq!(data, "index=off");
    }

    #[test]
    fn only_long_options_are_shortened() {
        assert_eq!(shorten("lowerdir=/a/1:/a/2"), None);
        let layers: Vec<String> =
            (0..200).map(|n| format!("/var/lib/containerd/snapshots/{n}/fs")).collect();
        let data = format!("index=off,lowerdir={},upperdir=/u,workdir=/w", layers.join(":"));
        let (folder, short) = shorten(&data).unwrap();
        assert_eq!(folder, Path::new("/var/lib/containerd/snapshots"));
        assert!(short.starts_with("index=off,lowerdir=0/fs:1/fs:"));
        assert!(short.ends_with(":199/fs,upperdir=/u,workdir=/w"));
    }
}
