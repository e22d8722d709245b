//! The subcommands with which containerd starts a shim and clears up behind one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::Arguments;
use super::events::{Publisher, timestamp};
use super::options::Options;
use super::rootfs;
use super::server::Server;
use super::wire::{Message, Writer, any};

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the sockets of shims are, with those of the other shims.
const SOCKETS: &str = "/run/containerd/s";

/// Annotations that name what containers have in common that share a shim.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// The highest version of the protocol's start, where containerd names it.
const MAX_VERSION: &str = "MAX_SHIM_VERSION";

/// `start`: starts a shim, or finds that of the container's pod, and prints its address.
pub(crate) fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let bundle = std::env::current_dir().context("the bundle")?;
    let group = group(&bundle)?.unwrap_or_else(|| arguments.id.clone());
    let name = name([&arguments.address, &arguments.namespace, &group]);
    fs::create_dir_all(SOCKETS).with_context(|| format!("creating {SOCKETS}"))?;
    let path = Path::new(SOCKETS).join(name);
    if UnixStream::connect(&path).is_err() {
        // What a dead one has left.
        drop(fs::remove_file(&path));
        let listener =
            UnixListener::bind(&path).with_context(|| format!("binding {}", path.display()))?;
        spawn(arguments, listener, &path)?;
    }
    let address = format!("unix://{}", path.display());
    fs::write("address", &address).context("writing the address")?;
    let newest = std::env::var(MAX_VERSION).ok().and_then(|text| text.parse::<u32>().ok());
    match newest {
        Some(newest) if newest >= 2 => {
            let version = newest.min(3);
            let start = serde_json::json!({
                "version": version, "address": address, "protocol": "ttrpc",
            });
            print(&start.to_string())
        }
        _ => print(&address),
    }
}

/// Starts the shim itself, which outlives this process.
fn spawn(arguments: &Arguments, listener: UnixListener, path: &Path) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("the shim's own file")?;
    let mut command = Command::new(&program);
    command.arg0("containerd-shim-runsc-v1");
    for (flag, value) in [
        ("-namespace", &arguments.namespace),
        ("-id", &arguments.id),
        ("-address", &arguments.address),
        ("-bundle", &path.display().to_string()),
    ] {
        command.args([flag, value]);
    }
    let child = command
        .arg("serve")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    // A shim is to be killed for memory rather than containerd. Of no matter where that fails.
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    if let Ok(score) = own.trim().parse::<i32>() {
        let score = (score + 1).min(1000).to_string();
        drop(fs::write(format!("/proc/{}/oom_score_adj", child.id()), score));
    }
    Ok(())
}

/// What of config.json says which shim a container gets.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

fn group(bundle: &Path) -> anyhow::Result<Option<String>> {
    let path = bundle.join("config.json");
    let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let config: Config =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
    Ok(GROUPS.iter().find_map(|group| config.annotations.get(*group).cloned()))
}

/// Returns a file name for a group of containers: the same in each call, and another for another
/// group (FNV-1a with 128 bits).
pub(crate) fn name(parts: [&str; 3]) -> String {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in parts.join("\0").bytes() {
        hash = (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
    }
    format!("{hash:032x}")
}

/// `serve`: the shim. Its standard input is the socket that it listens on.
pub(crate) fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    use std::os::fd::AsFd as _;

    let listener: UnixListener = io::stdin().as_fd().try_clone_to_owned()?.into();
    let events = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
    let publisher = Publisher::new(&events, &arguments.namespace);
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Bundles, this process's first one as well, are to be removable.
    std::env::set_current_dir("/")?;
    let server = Server::new(listener, publisher, &arguments.namespace)?;
    let result = server.run();
    drop(fs::remove_file(&arguments.bundle));
    result
}

/// `delete`: removes what a shim that is gone has left of a container.
pub(crate) fn delete(arguments: &Arguments) -> anyhow::Result<()> {
    let bundle = match arguments.bundle.as_str() {
        "" => std::env::current_dir().context("the bundle")?,
        path => PathBuf::from(path),
    };
    let options = Options::load(&bundle, &arguments.namespace);
    let output = Command::new(&options.binary)
        .arg("--root")
        .arg(&options.root)
        .args(&options.flags)
        .args(["delete", "--force", &arguments.id])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", options.binary.display()))?;
    rootfs::unmount_all(&bundle);
    if !output.status.success() {
        bail!("deleting the container: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let pid = fs::read_to_string(bundle.join("init.pid")).ok();
    let pid: u32 = pid.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let response =
        Writer::new().number(1, pid).number(2, 137_u32).message(3, &timestamp(SystemTime::now()));
    io::stdout().write_all(&response.into_bytes()).context("writing the answer")
}

/// `-info`: says what the runtime can do.
pub(crate) fn info() -> anyhow::Result<()> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input).context("reading the options")?;
    let any_options = Message::parse(&input).unwrap_or_default();
    let options = Options::read(&any_options, "")?;
    let version = Writer::new().bytes(1, VERSION);
    let mut answer = Writer::new().bytes(1, "io.containerd.runsc.v1").message(2, &version);
    let features = Command::new(&options.binary).arg("features").stdin(Stdio::null()).output();
    if let Ok(output) = features
        && output.status.success()
    {
        let url = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
        answer = answer.message(4, &any(url, output.stdout));
    }
    io::stdout().write_all(&answer.into_bytes()).context("writing the answer")
}

pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("writing the answer")
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names_of_groups_stay_and_differ() {
        assert_eq!(name(["", "", ""]).len(), 32);
        assert_eq!(name(["/a", "default", "x"]), name(["/a", "default", "x"]));
        assert_ne!(name(["/a", "default", "x"]), name(["/a", "default", "y"]));
        assert_ne!(name(["/a", "b", ""]), name(["/a", "", "b"]));
    }
}
