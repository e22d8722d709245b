//! `linux.namespaces` of config.json.

use std::path::PathBuf;

use anyhow::bail;

use super::fields::Fields;
use crate::sandbox::monitor::NetworkNamespace;

/// Checks the list and returns where the network is. Every container has all other namespaces of
/// its own in its sentry, whatever the list says.
pub(super) fn translate(
    namespaces: Vec<Fields>,
    warnings: &mut Vec<String>,
) -> anyhow::Result<NetworkNamespace> {
    let mut network = NetworkNamespace::Host;
    let mut seen: Vec<String> = Vec::new();
    for mut namespace in namespaces {
        let kind: String = namespace.required("type")?;
        if seen.contains(&kind) {
            bail!("{}: {kind} a second time", namespace.name("type"));
        }
        seen.push(kind.clone());
        let path: String = namespace.optional("path")?.unwrap_or_default();
        match kind.as_str() {
            "network" if path.is_empty() => network = NetworkNamespace::New,
            "network" => network = NetworkNamespace::Path(PathBuf::from(&path)),
            "pid" | "mount" | "ipc" | "uts" | "user" | "cgroup" | "time" => {
                if !path.is_empty() {
                    bail!(
                        "{}: a sandbox cannot join a {kind} namespace of the host: remove the path",
                        namespace.name("path")
                    );
                }
            }
            other => bail!("{}: unknown namespace {other:?}", namespace.name("type")),
        }
        namespace.finish(warnings);
    }
    Ok(network)
}
