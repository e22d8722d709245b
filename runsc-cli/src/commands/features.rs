//! `runsc features`.

use serde_json::json;

use crate::hooks::Point;
use crate::spec;

/// Prints what this runtime supports (runtime specification, "features.md").
pub(crate) fn run() -> anyhow::Result<i32> {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": super::state::OCI_VERSION,
        "hooks": Point::ALL.map(Point::name),
        "mountOptions": spec::MOUNT_OPTIONS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": spec::capabilities::names(),
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false },
            "seccomp": { "enabled": false },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
        },
        "annotations": {},
    });
    super::print(&format!("{features:#}\n"))?;
    Ok(0)
}
