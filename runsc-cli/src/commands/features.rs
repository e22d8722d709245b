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
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true },
            "seccomp": {
                "enabled": true,
                "actions": spec::seccomp::ACTIONS,
                "operators": spec::seccomp::OPERATORS,
                "archs": ["SCMP_ARCH_X86_64"],
                "knownFlags": spec::seccomp::FLAGS,
                "supportedFlags": spec::seccomp::FLAGS,
            },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
        },
        "annotations": {},
    });
    super::print(&format!("{features:#}\n"))?;
    Ok(0)
}
