//! Pods: whose sandbox a container is to run in.
//!
//! Managers say so by annotations. The sandbox of a pod goes by the id of its first container, which
//! does nothing but hold it; the others name it and join.
//!
//! CRI-O makes pods without such a container: it keeps the pod's namespaces itself, and names a
//! sandbox that nobody has created. The first container to name it has it made, [held]
//! by a process of its own, and deleted it is with the last one.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::bail;

use super::held;
use crate::cgroup::cpus_of_quota;
use crate::container::{Container, Status};
use crate::spec::namespaces::Namespaces;

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
