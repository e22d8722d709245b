//! `linux.namespaces` and the id mappings of config.json.

use std::path::PathBuf;

use anyhow::bail;
use libc::c_int;
use sentry::config::{IdMaps, IdRange, SharedNamespaces};
use serde::{Deserialize, Serialize};

use super::fields::Fields;
use crate::log;

/// Where the namespaces of a container come from, by `CLONE_NEW*`. A kind that is in neither list
/// is the caller's. These are those of the monitor, and so what the host can join; every
/// container has all of its own in its sentry, whatever the lists say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Namespaces {
    /// Those that are made for the container.
    pub(crate) own: c_int,
    /// Those that exist.
    pub(crate) paths: Vec<(c_int, PathBuf)>,
}

impl Namespaces {
    /// Returns those that are made for the container, out of `kinds`.
    pub(crate) fn own(&self, kinds: c_int) -> c_int {
        self.own & kinds
    }

    /// Returns the path of one that exists.
    pub(crate) fn path(&self, kind: c_int) -> Option<&PathBuf> {
        self.paths.iter().find(|(other, _)| *other == kind).map(|(_, path)| path)
    }

    /// Returns what a container that joins a sandbox shares with its first one: everything that it
    /// does not have for itself.
    pub(crate) fn shared(&self) -> SharedNamespaces {
        let is_shared = |kind| self.own(kind) == 0;
        SharedNamespaces {
            pid: is_shared(libc::CLONE_NEWPID),
            ipc: is_shared(libc::CLONE_NEWIPC),
            uts: is_shared(libc::CLONE_NEWUTS),
        }
    }

    /// Says what a sandbox of its own does not see of namespaces that exist.
    pub(crate) fn warn_of_paths(&self) {
        for (kind, name) in [(libc::CLONE_NEWIPC, "ipc"), (libc::CLONE_NEWPID, "pid")] {
            if let Some(path) = self.path(kind) {
                log::warning(&format!(
                    "config.json: linux.namespaces: {name}: {} is joined by the container's process \
                     on the host alone: the sandbox does not see what else is in it",
                    path.display()
                ));
            }
        }
    }

    /// Returns every kind of which the container does not have the caller's.
    pub(crate) fn all(&self) -> c_int {
        self.paths.iter().fold(self.own, |kinds, (kind, _)| kinds | kind)
    }
}

/// Translates the list.
pub(super) fn translate(
    list: Vec<Fields>,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Namespaces> {
    let mut namespaces = Namespaces::default();
    let mut seen: Vec<String> = Vec::new();
    for mut namespace in list {
        let kind: String = namespace.required("type")?;
        if seen.contains(&kind) {
            bail!("{}: {kind} a second time", namespace.name("type"));
        }
        seen.push(kind.clone());
        let path: String = namespace.optional("path")?.unwrap_or_default();
        let flag = match kind.as_str() {
            "network" => libc::CLONE_NEWNET,
            "pid" => libc::CLONE_NEWPID,
            "mount" => libc::CLONE_NEWNS,
            "ipc" => libc::CLONE_NEWIPC,
            "uts" => libc::CLONE_NEWUTS,
            "user" => libc::CLONE_NEWUSER,
            "cgroup" => libc::CLONE_NEWCGROUP,
            "time" => 0,
            other => bail!("{}: unknown namespace {other:?}", namespace.name("type")),
        };
        if path.is_empty() {
            namespaces.own |= flag;
        } else {
            let field = namespace.name("path");
            match kind.as_str() {
                "user" | "time" => {
                    bail!("{field}: a sandbox cannot join a {kind} namespace: remove the path");
                }
                _ => {}
            }
            if !path.starts_with('/') {
                bail!("{field}: {path:?} is not absolute");
            }
            namespaces.paths.push((flag, PathBuf::from(path)));
        }
        namespace.finish(warnings);
    }
    Ok(namespaces)
}

/// Reads `uidMappings` and `gidMappings`.
pub(super) fn id_maps(linux: &mut Fields, warnings: &mut Vec<String>) -> anyhow::Result<IdMaps> {
    let mut read = |field: &str| -> anyhow::Result<Vec<IdRange>> {
        let mut ranges: Vec<IdRange> = Vec::new();
        for mut entry in linux.objects(field)? {
            let range = IdRange {
                inside: entry.required("containerID")?,
                outside: entry.required("hostID")?,
                size: entry.required("size")?,
            };
            let name = entry.name("size");
            let end = |first: u32| first.checked_add(range.size);
            if range.size == 0 || end(range.inside).is_none() || end(range.outside).is_none() {
                bail!("{name}: {} is no number of ids", range.size);
            }
            entry.finish(warnings);
            ranges.push(range);
        }
        Ok(ranges)
    };
    let maps = IdMaps { uids: read("uidMappings")?, gids: read("gidMappings")? };
    for (field, ranges) in [("uidMappings", &maps.uids), ("gidMappings", &maps.gids)] {
        let is_root = |range: &IdRange| range.inside == 0;
        if !ranges.is_empty() && !ranges.iter().any(is_root) {
            bail!("{}: has to map id 0 of the container", linux.name(field));
        }
    }
    Ok(maps)
}
