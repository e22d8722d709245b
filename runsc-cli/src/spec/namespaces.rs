//! `linux.namespaces` of config.json.

use anyhow::bail;

use super::fields::Fields;

/// Checks the list: every container has namespaces of its own in its sentry whatever it says, so
/// only joining another one has no meaning yet.
pub(super) fn check(namespaces: Vec<Fields>, warnings: &mut Vec<String>) -> anyhow::Result<()> {
    let mut seen = Vec::new();
    for mut namespace in namespaces {
        let kind: String = namespace.required("type")?;
        if seen.contains(&kind) {
            bail!("{}: {kind} a second time", namespace.name("type"));
        }
        seen.push(kind.clone());
        let path: Option<String> = namespace.optional("path")?;
        match kind.as_str() {
            "pid" | "network" | "mount" | "ipc" | "uts" | "user" | "cgroup" | "time" => {}
            other => bail!("{}: unknown namespace {other:?}", namespace.name("type")),
        }
        if path.is_some_and(|path| !path.is_empty()) {
            warnings.push(format!(
                "{}: joining a {kind} namespace is not supported yet",
                namespace.name("path")
            ));
        }
        namespace.finish(warnings);
    }
    Ok(())
}
