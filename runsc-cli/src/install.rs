//! The configuration files of container managers, with and without a runtime of ours.
//!
//! Everything here is a function from the text of a file to its new text, so that installing twice
//! changes nothing and uninstalling gives back what was there.
//!
//! | manager | file | how |
//! |---|---|---|
//! | docker | `docker/daemon.json` | an entry of `runtimes` |
//! | containerd | `containerd/config.toml` | tables at the end, between two comments |
//! | CRI-O, podman | `crio/crio.conf.d/`, `containers/containers.conf.d/` | a file of our own |

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

/// The first line of a file that is ours, and of our part of another one.
const MARK: &str = "# Added by `runsc install`, to be removed by `runsc uninstall`";

/// A container manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Manager {
    Docker,
    Containerd,
    Crio,
    Podman,
}

/// What a manager is to know of a runtime.
#[derive(Debug)]
pub(crate) struct Runtime {
    /// The name by which the manager's users ask for it.
    pub(crate) name: String,
    /// The `runsc` to call, an absolute path.
    pub(crate) binary: PathBuf,
    /// Flags for every call.
    pub(crate) flags: Vec<String>,
}

impl Manager {
    /// Returns the program by which it is known that the manager is installed.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Docker => "dockerd",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Podman => "podman",
        }
    }

    /// Returns its configuration file, below `/etc`.
    pub(crate) fn file(self, name: &str) -> PathBuf {
        match self {
            Self::Docker => "docker/daemon.json".into(),
            Self::Containerd => "containerd/config.toml".into(),
            Self::Crio => format!("crio/crio.conf.d/10-{name}.conf").into(),
            Self::Podman => format!("containers/containers.conf.d/{name}.conf").into(),
        }
    }

    /// Returns what has to be done for the manager to read it.
    pub(crate) const fn next_step(self) -> Option<&'static str> {
        match self {
            Self::Docker => Some("systemctl reload docker"),
            Self::Containerd => Some("systemctl restart containerd"),
            Self::Crio => Some("systemctl restart crio"),
            Self::Podman => None,
        }
    }

    /// Returns the text of the file with the runtime.
    ///
    /// # Errors
    /// If the file is not what it should be, or has such a runtime that is not ours.
    pub(crate) fn with(self, runtime: &Runtime, old: &str) -> anyhow::Result<String> {
        let binary = runtime.binary.to_str().context("the path of runsc is not UTF-8")?;
        if !runtime.flags.is_empty() && self != Self::Docker {
            bail!("takes no flags for a runtime");
        }
        match self {
            Self::Docker => docker(old, &runtime.name, |runtimes| {
                let mut entry = json!({ "path": binary });
                if !runtime.flags.is_empty() {
                    entry["runtimeArgs"] = json!(runtime.flags);
                }
                runtimes.insert(runtime.name.clone(), entry);
                Ok(())
            }),
            Self::Containerd => containerd(runtime, binary, old),
            Self::Crio => own_file(
                old,
                &format!(
                    "[crio.runtime.runtimes.{}]\nruntime_path = {}\nruntime_type = \"oci\"\n\
                     runtime_root = \"/run/{}\"\n",
                    runtime.name,
                    json!(binary),
                    runtime.name
                ),
            ),
            Self::Podman => own_file(
                old,
                &format!("[engine.runtimes]\n{} = [{}]\n", runtime.name, json!(binary)),
            ),
        }
    }

    /// Returns the text of the file without the runtime; an empty one where nothing is left.
    ///
    /// # Errors
    /// If the file is not what it should be, or needs the runtime.
    pub(crate) fn without(self, name: &str, old: &str) -> anyhow::Result<String> {
        match self {
            Self::Docker if old.trim().is_empty() => Ok(String::new()),
            Self::Docker => docker(old, name, |runtimes| {
                runtimes.remove(name);
                Ok(())
            }),
            Self::Containerd => Ok(without_part(old, name)),
            Self::Crio | Self::Podman if old.is_empty() || old.starts_with(MARK) => {
                Ok(String::new())
            }
            Self::Crio | Self::Podman => bail!("is not ours: its first line is not {MARK:?}"),
        }
    }
}

/// Changes the runtimes of daemon.json.
fn docker(
    old: &str,
    name: &str,
    change: impl FnOnce(&mut Map<String, Value>) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let mut top: Map<String, Value> = match old.trim() {
        "" => Map::new(),
        text => serde_json::from_str(text).context("is not a JSON object")?,
    };
    let before = top.clone();
    let mut runtimes = match top.remove("runtimes") {
        None => Map::new(),
        Some(Value::Object(runtimes)) => runtimes,
        Some(_) => bail!("runtimes: is not an object"),
    };
    change(&mut runtimes)?;
    let is_default = top.get("default-runtime").is_some_and(|default| default == name);
    if is_default && !runtimes.contains_key(name) {
        bail!("default-runtime is {name}: choose another one first");
    }
    if !runtimes.is_empty() {
        top.insert("runtimes".into(), runtimes.into());
    }
    if top == before {
        return Ok(old.to_owned());
    }
    if top.is_empty() {
        return Ok(String::new());
    }
    Ok(serde_json::to_string_pretty(&top)? + "\n")
}

/// Adds the tables of a runtime to containerd's configuration.
fn containerd(runtime: &Runtime, binary: &str, old: &str) -> anyhow::Result<String> {
    let name = &runtime.name;
    let rest = without_part(old, name);
    let (plugin, version) = match version(&rest) {
        None if rest.trim().is_empty() => ("io.containerd.grpc.v1.cri", "version = 2\n"),
        Some(2) => ("io.containerd.grpc.v1.cri", ""),
        Some(3) => ("io.containerd.cri.v1.runtime", ""),
        None | Some(1) => bail!(
            "is of version 1, which containerd is about to drop: `containerd config migrate` makes \
             one of today's"
        ),
        Some(other) => bail!("is of version {other}, which is not known"),
    };
    let table = format!("[plugins.\"{plugin}\".containerd.runtimes.{name}");
    if rest.lines().any(|line| line.trim_start().starts_with(&table)) {
        bail!("has a runtime {name} already, which is not ours");
    }
    let shim = runtime.binary.with_file_name("containerd-shim-runsc-v1");
    let kind = if shim.exists() {
        // By its path: containerd need not have our folder in its search path.
        format!("{table}]\nruntime_type = {}\n", json!(shim.to_str().unwrap_or_default()))
    } else {
        format!(
            "{table}]\nruntime_type = \"io.containerd.runc.v2\"\n{table}.options]\nBinaryName = {}\n",
            json!(binary)
        )
    };
    let gap = if rest.is_empty() { "" } else { "\n" };
    Ok(format!("{rest}{gap}{MARK}: {name}\n{version}{kind}{}\n", end_mark(name)))
}

fn end_mark(name: &str) -> String {
    format!("# End of what `runsc install` has added: {name}")
}

/// Returns a text without our part of it, and the empty line in front.
fn without_part(text: &str, name: &str) -> String {
    let (start, end) = (format!("{MARK}: {name}\n"), format!("{}\n", end_mark(name)));
    let Some((before, rest)) = text.split_once(&start) else { return text.to_owned() };
    let Some((_, after)) = rest.split_once(&end) else { return text.to_owned() };
    format!(
        "{}{after}",
        before.strip_suffix("\n\n").map_or(before.to_owned(), |it| format!("{it}\n"))
    )
}

/// Returns the version that a configuration of containerd says it is of.
fn version(text: &str) -> Option<u32> {
    let top = text.lines().map(str::trim).take_while(|line| !line.starts_with('['));
    top.filter_map(|line| line.strip_prefix("version")?.trim_start().strip_prefix('='))
        .find_map(|value| value.split('#').next()?.trim().parse().ok())
}

/// Returns the text of a file that is all ours.
fn own_file(old: &str, content: &str) -> anyhow::Result<String> {
    if !old.is_empty() && !old.starts_with(MARK) {
        bail!("is not ours: its first line is not {MARK:?}");
    }
    Ok(format!("{MARK}\n{content}"))
}

/// Returns whether a program is in one of the usual folders.
pub(crate) fn is_installed(program: &str) -> bool {
    let usual = ["/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    usual.iter().any(|folder| Path::new(folder).join(program).exists())
}

#[cfg(test)]
mod tests {
    use super::{Manager, Runtime};

    fn runtime(flags: &[&str]) -> Runtime {
        Runtime {
            name: "runsc".into(),
            binary: "/opt/none/runsc".into(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        }
    }

    /// Installs twice and uninstalls; returns what was installed.
    #[track_caller]
    fn there_and_back(manager: Manager, old: &str) -> String {
        let new = manager.with(&runtime(&[]), old).unwrap();
        assert_eq!(manager.with(&runtime(&[]), &new).unwrap(), new, "not the same twice");
        assert_eq!(manager.without("runsc", &new).unwrap(), old, "not what it was");
        assert_eq!(manager.without("runsc", old).unwrap(), old, "changed without need");
        new
    }

    #[test]
    fn every_manager_gets_back_what_it_had() {
        for manager in [Manager::Docker, Manager::Containerd, Manager::Crio, Manager::Podman] {
            let new = there_and_back(manager, "");
            assert!(new.contains("/opt/none/runsc"), "{new}");
        }
        there_and_back(Manager::Containerd, "version = 3\n\n[debug]\n  level = \"warn\"\n");
        let json = "{\n  \"debug\": true,\n  \"runtimes\": {\n    \"a\": {\n      \"path\": \"/a\"\n    }\n  }\n}\n";
        there_and_back(Manager::Docker, json);
    }

    #[test]
    fn docker_keeps_its_other_settings_and_gets_flags() {
        let new =
            Manager::Docker.with(&runtime(&["--network=host"]), r#"{"debug": true}"#).unwrap();
        let new: serde_json::Value = serde_json::from_str(&new).unwrap();
        assert_eq!(new["debug"], true);
        assert_eq!(new["runtimes"]["runsc"]["runtimeArgs"][0], "--network=host");
    }

    #[test]
    fn containerd_gets_the_tables_of_its_version() {
        let of = |old: &str| Manager::Containerd.with(&runtime(&[]), old);
        assert!(of("version = 2 # today\n").unwrap().contains("io.containerd.grpc.v1.cri"));
        assert!(of("version=3\n").unwrap().contains("io.containerd.cri.v1.runtime"));
        assert!(of("[grpc]\nversion = 2\n").is_err());
        let foreign =
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runsc]\n";
        assert!(of(foreign).is_err());
    }

    #[test]
    fn what_is_not_ours_or_still_needed_stays() {
        let default = r#"{"default-runtime": "runsc", "runtimes": {"runsc": {"path": "/x"}}}"#;
        assert!(Manager::Docker.without("runsc", default).is_err());
        assert!(Manager::Docker.with(&runtime(&[]), "[1]").is_err());
        assert!(Manager::Podman.with(&runtime(&[]), "[engine]\n").is_err());
        assert!(Manager::Podman.without("runsc", "[engine]\n").is_err());
        assert!(Manager::Crio.with(&runtime(&["--debug"]), "").is_err());
    }
}
