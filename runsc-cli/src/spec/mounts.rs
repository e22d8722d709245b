//! `mounts` of config.json.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sentry::config::{MountConfig, MountKind, Propagation, TmpfsConfig};

use super::fields::Fields;
use super::filesystem::FilesystemPlan;

/// The options that a mount may have besides those of its file system.
pub(crate) const OPTIONS: [&str; 29] = [
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "exec",
    "newinstance",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "rbind",
    "relatime",
    "ro",
    "rprivate",
    "rro",
    "rshared",
    "rslave",
    "runbindable",
    "rw",
    "shared",
    "slave",
    "strictatime",
    "suid",
    "unbindable",
];

/// Adds one entry to the plan.
pub(super) fn add(
    plan: &mut FilesystemPlan,
    mut entry: Fields,
    bundle: &Path,
    warnings: &mut Vec<String>,
) -> anyhow::Result<()> {
    let destination: String = entry.required("destination")?;
    let kind: String = entry.optional("type")?.unwrap_or_default();
    let source: String = entry.optional("source")?.unwrap_or_default();
    let options: Vec<String> = entry.optional("options")?.unwrap_or_default();
    let name = entry.name("options");
    entry.finish(warnings);
    // OCI 1.0 allowed relative destinations, taken from the root.
    let destination = clean(&destination).with_context(|| entry_name(&name))?;

    let mut mount = MountConfig {
        destination,
        kind: MountKind::Proc,
        readonly: false,
        nosuid: false,
        nodev: false,
        noexec: false,
        source: if source.is_empty() { kind.clone() } else { source.clone() },
        root_name: String::new(),
        propagation: Propagation::Private,
    };
    let mut bind = kind == "bind";
    let mut is_recursive = false;
    let mut tmpfs = TmpfsConfig::default();
    for option in &options {
        match option.as_str() {
            "bind" | "rbind" => bind = true,
            "ro" => mount.readonly = true,
            "rro" => (mount.readonly, is_recursive) = (true, true),
            "rw" => mount.readonly = false,
            "nosuid" => mount.nosuid = true,
            "suid" => mount.nosuid = false,
            "nodev" => mount.nodev = true,
            "dev" => mount.nodev = false,
            "noexec" => mount.noexec = true,
            "exec" => mount.noexec = false,
            // No times of access are kept.
            "relatime" | "norelatime" | "strictatime" | "nostrictatime" | "noatime" | "atime"
            | "nodiratime" | "diratime" | "defaults" => {}
            _ if propagation(option).is_some() => {
                mount.propagation = propagation(option).unwrap_or_default();
            }
            // The guest's devpts and cgroup have no such options: one instance, of the container.
            "newinstance" => {}
            _ => match option.split_once('=') {
                Some(("size", value)) => {
                    tmpfs.size = Some(parse_size(value).with_context(|| name.clone())?);
                }
                Some(("nr_inodes", value)) => {
                    tmpfs.nr_inodes = Some(parse_size(value).with_context(|| name.clone())?);
                }
                Some(("mode", value)) => {
                    let mode = u32::from_str_radix(value, 8)
                        .with_context(|| format!("{name}: mode={value}"))?;
                    tmpfs.mode = Some(mode & 0o7777);
                }
                Some(("uid", value)) => {
                    tmpfs.uid = value.parse().with_context(|| format!("{name}: uid={value}"))?;
                }
                Some(("gid", value)) => {
                    tmpfs.gid = value.parse().with_context(|| format!("{name}: gid={value}"))?;
                }
                // Of devpts; the guest's terminals have mode 620 and group 5.
                Some(("ptmxmode", _)) => {}
                _ => warnings.push(format!("{name}: {option} is not supported, ignored")),
            },
        }
    }
    if bind {
        if source.is_empty() {
            bail!("{}: a bind mount without a source", entry_name(&name));
        }
        let source = bundle.join(&source);
        let source: PathBuf = source
            .canonicalize()
            .with_context(|| format!("{}: source {}", entry_name(&name), source.display()))?;
        // Where it lies on the host is nothing that the container should see; its name is in the
        // specification.
        if let Some(name) = source.file_name() {
            mount.root_name = name.to_string_lossy().into_owned();
        }
        return plan.add_bind(&source, mount, is_recursive);
    }
    mount.kind = match (kind.as_str(), mount.destination.as_str()) {
        ("tmpfs" | "devtmpfs", "/dev") | ("devtmpfs", _) => MountKind::Devtmpfs(tmpfs),
        ("tmpfs", _) => MountKind::Tmpfs(tmpfs),
        ("proc", _) => MountKind::Proc,
        ("sysfs", _) => MountKind::Sysfs,
        ("devpts", _) => MountKind::Devpts,
        ("mqueue", _) => MountKind::Mqueue,
        // Filled in when it is known which they are.
        ("cgroup" | "cgroup2", _) => MountKind::Cgroup { hierarchies: Vec::new() },
        (other, _) => bail!("{}: type {other:?} is not supported", entry_name(&name)),
    };
    plan.mounts.push(mount);
    Ok(())
}

/// Returns what the name of a propagation means, with or without an `r` before it: a mount that is
/// being made has no others below it.
pub(super) fn propagation(name: &str) -> Option<Propagation> {
    match name {
        "private" | "rprivate" => Some(Propagation::Private),
        "shared" | "rshared" => Some(Propagation::Shared),
        "slave" | "rslave" => Some(Propagation::Slave),
        "unbindable" | "runbindable" => Some(Propagation::Unbindable),
        _ => None,
    }
}

/// Returns the name of the entry whose options have the given name.
fn entry_name(options: &str) -> String {
    options.trim_end_matches(".options").to_owned()
}

/// Returns an absolute path without `.`, `..` and repeated slashes.
fn clean(path: &str) -> anyhow::Result<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            // By the text, as runc: a link before it has no say.
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    if parts.is_empty() {
        bail!("destination {path:?}: a container has one root, of root.path");
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Parses a number of bytes with a unit, as tmpfs does.
fn parse_size(text: &str) -> anyhow::Result<u64> {
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
        Some(b'k') => (text.get(..text.len() - 1), 10),
        Some(b'm') => (text.get(..text.len() - 1), 20),
        Some(b'g') => (text.get(..text.len() - 1), 30),
        Some(b't') => (text.get(..text.len() - 1), 40),
        _ => (Some(text), 0),
    };
    let number: u64 =
        digits.unwrap_or_default().parse().with_context(|| format!("size {text:?}"))?;
    number
        .checked_shl(shift)
        .filter(|bytes| bytes >> shift == number)
        .with_context(|| format!("size {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::{clean, parse_size};

    #[test]
    fn clean_makes_one_form_of_a_path() {
        assert_eq!(clean("//a/./b/").unwrap(), "/a/b");
        assert_eq!(clean("proc").unwrap(), "/proc");
        assert_eq!(clean("/a/../../b").unwrap(), "/b");
        assert!(clean("/a/..").is_err() && clean("/").is_err());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("65536k").unwrap(), 65536 << 10);
        assert_eq!(parse_size("1G").unwrap(), 1 << 30);
        assert_eq!(parse_size("7").unwrap(), 7);
        assert!(
            parse_size("99999999999t").is_err()
                && parse_size("k").is_err()
                && parse_size("5%").is_err()
        );
    }
}
