//! Pods: whose sandbox a container is to run in.
//!
//! Managers say so by annotations. The sandbox of a pod goes by the id of its first container, which
//! does nothing but hold it; the others name it and join.
//!
//! CRI-O makes pods without such a container: it keeps the pod's namespaces itself, and names a
//! sandbox that nobody has created. The first container to name it has it made, [held]
//! by a process of its own, and deleted it is with the last one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use sentry::config::NetworkMode;

use super::{held, network};
use crate::cgroup::cpus_of_quota;
use crate::container::{Container, Status};
use crate::spec::namespaces::Namespaces;
use crate::{log, sys};

/// Where a container is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a sandbox of its own.
    Own,
    /// In the sandbox of a container, by its id.
    Joined(String),
    /// In a sandbox that only the containers in it hold, by its id.
    Held(String),
}

impl Place {
    /// Returns the id of a sandbox that is not the container's own.
    pub(crate) fn sandbox(&self) -> Option<&String> {
        match self {
            Self::Own => None,
            Self::Joined(id) | Self::Held(id) => Some(id),
        }
    }
}

/// The annotations of containerd, and of CRI-O and podman: the kind of the container, where they
/// tell it, and the sandbox.
const ANNOTATIONS: [(&str, &str); 2] = [
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
];

/// Returns how many processors the limits of the whole pod come to, where containerd tells of them to the first
/// container.
pub(crate) fn cpus(annotations: &BTreeMap<String, String>) -> Option<usize> {
    let number = |name: &str| -> Option<i64> {
        annotations.get(&format!("io.kubernetes.cri.{name}"))?.parse().ok()
    };
    let period = number("sandbox-cpu-period").and_then(|period| u64::try_from(period).ok());
    cpus_of_quota(number("sandbox-cpu-quota")?, period)
}

/// Returns where a container is to run.
///
/// # Errors
/// Where the sandbox is not running any more.
pub(crate) fn find(
    root: &Path,
    id: &str,
    annotations: &BTreeMap<String, String>,
    namespaces: &Namespaces,
) -> anyhow::Result<Place> {
    let Some(sandbox) = sandbox_id(id, annotations) else { return Ok(Place::Own) };
    let container = Container::find_if_any(root, sandbox)?;
    let Some(container) = container.filter(|container| !container.is_leftover()) else {
        // A name only, where nothing of the pod exists that could be shared.
        let is_shared = held::SHARED.into_iter().any(|kind| namespaces.path(kind).is_some());
        return Ok(if is_shared { Place::Held(sandbox.to_owned()) } else { Place::Own });
    };
    if container.state.is_held {
        return Ok(Place::Held(sandbox.to_owned()));
    }
    if let Some(own) = &container.state.sandbox {
        bail!("annotations: {sandbox} is no sandbox: it is in the one of {own}");
    }
    match container.status() {
        Status::Created | Status::Running | Status::Paused => Ok(Place::Joined(sandbox.to_owned())),
        Status::Creating => bail!("annotations: sandbox {sandbox} is still being created"),
        Status::Stopped => {
            bail!("annotations: sandbox {sandbox} is not running: delete the pod and make another")
        }
    }
}

/// Tells whether a container is the first of a pod, which does nothing but hold it.
pub(crate) fn is_first(id: &str, annotations: &BTreeMap<String, String>) -> bool {
    let is = |name: &str, value: &str| annotations.get(name).is_some_and(|it| it == value);
    ANNOTATIONS.iter().any(|(kind, sandbox)| is(kind, "sandbox") || is(sandbox, id))
}

/// Returns where a container is to run in view of its network: all containers of a sandbox share that
/// one's.
pub(crate) fn check(
    root: &Path,
    place: Place,
    mode: NetworkMode,
    namespaces: &Namespaces,
) -> anyhow::Result<Place> {
    if let Some(sandbox) = sandbox_at(root, &place)?
        && has_other_network(&sandbox, mode, namespaces)?
    {
        log::warning(&format!(
            "config.json: linux.namespaces: network: not that of sandbox {}: the container has a \
             sandbox of its own",
            sandbox.state.id
        ));
        return Ok(Place::Own);
    }
    Ok(place)
}

/// Returns the sandbox, where there is one so far and it is not the container's own.
fn sandbox_at(root: &Path, place: &Place) -> anyhow::Result<Option<Container>> {
    Ok(place.sandbox().map(|id| Container::find_if_any(root, id)).transpose()?.flatten())
}

fn has_other_network(
    sandbox: &Container,
    mode: NetworkMode,
    namespaces: &Namespaces,
) -> anyhow::Result<bool> {
    let Some(monitor) = sandbox.state.monitor.filter(|monitor| monitor.is_alive()) else {
        return Ok(false);
    };
    // Who has no privileges has no namespace either.
    if sys::effective_ids().0 != 0 {
        return Ok(false);
    }
    if sandbox.state.network != mode {
        return Ok(true);
    }
    if namespaces.own(libc::CLONE_NEWNET) != 0 {
        return Ok(mode != NetworkMode::Host);
    }
    let Some(path) = namespaces.path(libc::CLONE_NEWNET) else { return Ok(false) };
    let id = |path: &Path| network::id_of(path).with_context(|| path.display().to_string());
    let of_monitor = Path::new("/proc").join(monitor.pid.to_string()).join("ns/net");
    // The process of one that is held may still be on its way there.
    let named = sandbox.state.namespaces.path(libc::CLONE_NEWNET).filter(|_| sandbox.state.is_held);
    let of_sandbox = id(named.unwrap_or(&of_monitor))?;
    Ok(mode != NetworkMode::Host && id(path)? != of_sandbox)
}

/// Returns the container of a sandbox whose processes another one is to share, where it is not the
/// first one. Monitors all are in one pid namespace of the host, so it is the process that the path
/// names that says which.
pub(crate) fn pid_holder(
    root: &Path,
    place: &Place,
    namespaces: &Namespaces,
) -> anyhow::Result<Option<String>> {
    let Some(path) = namespaces.path(libc::CLONE_NEWPID) else { return Ok(None) };
    let Some(sandbox) = sandbox_at(root, place)? else { return Ok(None) };
    let named = path
        .strip_prefix("/proc")
        .ok()
        .and_then(|rest| rest.components().next()?.as_os_str().to_str()?.parse::<i32>().ok());
    let is_of = |container: &Container| {
        container.state.monitor.is_some_and(|monitor| Some(monitor.pid) == named)
    };
    if is_of(&sandbox) {
        return Ok(None);
    }
    if named.is_some() {
        let is_member = |other: &Container| other.state.sandbox.as_ref() == Some(&sandbox.state.id);
        let mut others = Container::list(root)?.into_iter();
        if let Some(holder) = others.find(|other| is_member(other) && is_of(other)) {
            return Ok(Some(holder.state.id));
        }
    }
    let id = |path: &Path| -> anyhow::Result<(u64, u64)> {
        let metadata = fs::metadata(path)
            .with_context(|| format!("linux.namespaces: pid: {}", path.display()))?;
        Ok((metadata.dev(), metadata.ino()))
    };
    let monitor = sandbox.state.monitor.context("the sandbox has no process")?;
    let own = Path::new("/proc").join(monitor.pid.to_string()).join("ns/pid");
    if id(path)? != id(&own)? {
        bail!(
            "linux.namespaces: pid: {} is of no container of sandbox {}",
            path.display(),
            sandbox.state.id
        );
    }
    Ok(None)
}

/// Returns the sandbox that the annotations name, where it is not the container's own.
fn sandbox_id<'a>(id: &str, annotations: &'a BTreeMap<String, String>) -> Option<&'a str> {
    ANNOTATIONS.iter().find_map(|(kind, sandbox)| {
        let is_first = annotations.get(*kind).is_some_and(|kind| kind == "sandbox");
        let sandbox = annotations.get(*sandbox)?;
        (!is_first && sandbox != id && !sandbox.is_empty()).then_some(&**sandbox)
    })
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, sandbox_id};

    #[test]
    fn the_sandbox_is_what_managers_name() {
        let cases: &[(&[(&str, &str)], Option<&str>)] = &[
            (&[], None),
            (&[("io.kubernetes.cri.sandbox-id", "me")], None),
            (&[("io.kubernetes.cri.sandbox-id", "")], None),
            (
                &[
                    ("io.kubernetes.cri.sandbox-id", "pod"),
                    ("io.kubernetes.cri.container-type", "sandbox"),
                ],
                None,
            ),
            (
                &[
                    ("io.kubernetes.cri.sandbox-id", "pod"),
                    ("io.kubernetes.cri.container-type", "container"),
                ],
                Some("pod"),
            ),
            (&[("io.kubernetes.cri-o.SandboxID", "pod")], Some("pod")),
        ];
        for (annotations, expected) in cases {
            let annotations: BTreeMap<String, String> =
                annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(sandbox_id("me", &annotations), *expected, "{annotations:?}");
        }
    }
}
