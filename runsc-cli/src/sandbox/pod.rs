//! Pods: whose sandbox a container is to run in.
//!
//! Managers say so by annotations. The sandbox of a pod goes by the id of its first container, which
//! does nothing but hold it; the others name it and join.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::bail;

use crate::cgroup::cpus_of_quota;
use crate::container::{Container, Status};

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

/// Returns the sandbox that a container is to join; none where it is to have its own.
///
/// # Errors
/// Where the sandbox is not running any more.
pub(crate) fn find(
    root: &Path,
    id: &str,
    annotations: &BTreeMap<String, String>,
) -> anyhow::Result<Option<Container>> {
    let Some(sandbox) = sandbox_id(id, annotations) else { return Ok(None) };
    // One that was never made is a name only: CRI-O and podman make pods without a first container.
    let Some(container) = Container::find_if_any(root, sandbox)? else { return Ok(None) };
    if let Some(own) = &container.state.sandbox {
        bail!("annotations: {sandbox} is no sandbox: it is in the one of {own}");
    }
    match container.status() {
        Status::Created | Status::Running | Status::Paused => Ok(Some(container)),
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
