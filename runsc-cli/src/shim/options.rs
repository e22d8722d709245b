//! What the manager's configuration says: the options of a runtime, as containerd hands them over
//! with each container or as the file that they name.
//!
//! The file is the one of gVisor's shim: `binary_name`, `root`, `log_path`, `log_level`, and a table
//! `runsc_config` with flags of `runsc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::wire::Message;

/// Where `runsc` keeps the state of containers, with a folder for each namespace of containerd.
const ROOT: &str = "/run/containerd/runsc";

const BINARY: &str = "runsc";

/// Beside the bundle's config.json, for who has to delete what a dead shim has left.
const FILE: &str = "runsc-options.json";

/// How `runsc` is called for a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Options {
    pub(crate) binary: PathBuf,
    pub(crate) root: PathBuf,
    /// Further flags before the subcommand.
    pub(crate) flags: Vec<String>,
}

impl Options {
    /// Reads `google.protobuf.Any`. An empty one stands for the defaults.
    pub(crate) fn read(any: &Message<'_>, namespace: &str) -> anyhow::Result<Self> {
        let malformed = |_| anyhow::anyhow!("malformed options");
        let value = Message::parse(any.bytes(2)).map_err(malformed)?;
        let text = |field| value.text(field).map_err(malformed);
        let mut options = Self::new();
        match any.text(1).map_err(malformed)?.rsplit('/').next().unwrap_or_default() {
            "" => {}
            // Those of the shim for runc, which managers pass that know no other.
            "containerd.runc.v1.Options" => {
                options.set_binary(&text(6)?);
                options.set_root(&text(7)?);
                if value.flag(9) {
                    options.flags.push("--systemd-cgroup".into());
                }
            }
            "runtimeoptions.v1.Options" => {
                let path = text(2)?;
                let body = if path.is_empty() {
                    text(3)?
                } else {
                    fs::read_to_string(&path).with_context(|| format!("reading {path}"))?
                };
                let source = if path.is_empty() { "the runtime's options" } else { &path };
                options.read_toml(&body).with_context(|| source.to_owned())?;
            }
            other => bail!("options of the type {other} are not supported"),
        }
        options.root.push(namespace);
        Ok(options)
    }

    fn new() -> Self {
        let mut options = Self { binary: PathBuf::new(), root: ROOT.into(), flags: Vec::new() };
        options.set_binary(BINARY);
        options
    }

    /// Sets the runtime: the one in the shim's own folder, where there is one, unless a path is given.
    fn set_binary(&mut self, name: &str) {
        if name.is_empty() {
            return;
        }
        let own = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
        self.binary = match own {
            Some(own) if !name.contains('/') && own.exists() => own,
            _ => name.into(),
        };
    }

    fn set_root(&mut self, root: &str) {
        if !root.is_empty() {
            self.root = root.into();
        }
    }

    fn read_toml(&mut self, text: &str) -> anyhow::Result<()> {
        for (table, values) in toml(text)? {
            for (key, value) in values {
                match (table.as_str(), key.as_str()) {
                    ("", "binary_name") => self.set_binary(&value),
                    ("", "root") => self.set_root(&value),
                    ("", "log_path") => self.flags.push(format!("--debug-log={value}")),
                    ("", "log_level") if value == "debug" => self.flags.push("--debug".into()),
                    ("", "log_level") => {}
                    // Whose the pipes are is nothing that a container sees. Containers of one pod
                    // always share a shim.
                    ("", "io_uid" | "io_gid" | "grouping") => {}
                    ("runsc_config", flag) => self.flags.push(format!("--{flag}={value}")),
                    ("", key) => bail!("{key}: no such option"),
                    (table, _) => bail!("[{table}]: no such table"),
                }
            }
        }
        Ok(())
    }

    pub(crate) fn save(&self, bundle: &Path) -> anyhow::Result<()> {
        let path = bundle.join(FILE);
        fs::write(&path, serde_json::to_vec(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Returns what was saved in a bundle; without it, the defaults.
    pub(crate) fn load(bundle: &Path, namespace: &str) -> Self {
        let saved = fs::read(bundle.join(FILE)).ok();
        saved.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_else(|| {
            let mut options = Self::new();
            options.root.push(namespace);
            options
        })
    }
}

/// The values of a file by table and key, as text.
type Toml = BTreeMap<String, BTreeMap<String, String>>;

/// Reads TOML with text, numbers and truth values in tables, which is all that options need.
fn toml(text: &str) -> anyhow::Result<Toml> {
    let mut tables = Toml::new();
    let mut table = String::new();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
        } else if let Some(rest) = line.strip_prefix('[') {
            let name = rest.split_once(']').filter(|(name, rest)| {
                !name.starts_with('[') && (rest.trim().is_empty() || rest.trim().starts_with('#'))
            });
            let Some((name, _)) = name else { bail!("line {number}: not a table") };
            table = name.trim().trim_matches('"').to_owned();
        } else {
            let Some((key, rest)) = line.split_once('=') else {
                bail!("line {number}: not `key = value`");
            };
            let value = value(rest.trim()).with_context(|| format!("line {number}"))?;
            let key = key.trim().trim_matches(['"', '\'']);
            tables.entry(table.clone()).or_default().insert(key.to_owned(), value);
        }
    }
    Ok(tables)
}

/// Reads one value and the comment behind it.
fn value(text: &str) -> anyhow::Result<String> {
    let (value, rest) = if let Some(literal) = text.strip_prefix('\'') {
        let (value, rest) = literal.split_once('\'').context("text without its end")?;
        (value.to_owned(), rest)
    } else if let Some(quoted) = text.strip_prefix('"') {
        let mut value = String::new();
        let mut chars = quoted.chars();
        loop {
            match chars.next().context("text without its end")? {
                '"' => break,
                '\\' => value.push(match chars.next().context("text without its end")? {
                    'n' => '\n',
                    't' => '\t',
                    same @ ('"' | '\\') => same,
                    other => bail!("\\{other} is not supported"),
                }),
                other => value.push(other),
            }
        }
        (value, chars.as_str())
    } else {
        let end = text.find('#').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        let value = value.trim();
        if value != "true" && value != "false" && value.replace('_', "").parse::<i64>().is_err() {
            bail!("{value:?} is no text, number or truth value");
        }
        (value.to_owned(), rest)
    };
    let rest = rest.trim();
    if !rest.is_empty() && !rest.starts_with('#') {
        bail!("{rest:?} behind a value");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::Options;
    use crate::wire::{Message, Writer, any};

    fn read(type_url: &str, value: Writer) -> anyhow::Result<Options> {
        let bytes = any(type_url, value.into_bytes()).into_bytes();
        Options::read(&Message::parse(&bytes).unwrap_or_default(), "k8s.io")
    }

    fn of_body(body: &str) -> anyhow::Result<Options> {
        read("runtimeoptions.v1.Options", Writer::new().bytes(3, body))
    }

    #[test]
    fn nothing_said_gives_the_defaults() {
        let options = read("", Writer::new()).unwrap();
        assert!(options.binary.ends_with("runsc"));
        assert_eq!(options.root.to_str(), Some("/run/containerd/runsc/k8s.io"));
        assert!(options.flags.is_empty());
    }

    #[test]
    fn body_sets_binary_root_and_flags() {
        let options = of_body(
            "# comment\nbinary_name = \"/opt/runsc\" # here\nroot='/run/r'\nlog_level = \"debug\"\n\
             [runsc_config]\n  platform = \"ptrace\"\n  debug = true\n",
        )
        .unwrap();
        assert_eq!(options.binary.to_str(), Some("/opt/runsc"));
        assert_eq!(options.root.to_str(), Some("/run/r/k8s.io"));
        assert_eq!(options.flags, ["--debug", "--debug=true", "--platform=ptrace"]);
    }

    #[test]
    fn options_of_runc_are_understood() {
        let value = Writer::new().bytes(6, "/usr/bin/x").bytes(7, "/run/x").number(9, 1_u64);
        let options = read("containerd.runc.v1.Options", value).unwrap();
        assert_eq!(options.binary.to_str(), Some("/usr/bin/x"));
        assert_eq!(options.root.to_str(), Some("/run/x/k8s.io"));
        assert_eq!(options.flags, ["--systemd-cgroup"]);
    }

    #[test]
    fn unknown_options_are_refused_by_name() {
        let message = |body| format!("{:#}", of_body(body).unwrap_err());
        assert!(message("binary = \"x\"").contains("binary: no such option"));
        assert!(message("[other]\na = 1").contains("[other]"));
        assert!(message("root = x").contains("line 1"));
        assert!(message("root = \"x").contains("without its end"));
        assert!(message("root").contains("line 1"));
        assert!(read("other.Options", Writer::new()).is_err());
    }
}
