//! `runsc do`: runs a command on the host's own files below an overlay.

use std::io::IsTerminal as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use anyhow::Context as _;
use sentry::config::{Capabilities, ContainerConfig, NetworkMode, ProcessConfig, RlimitConfig};

use crate::cli::{DoArgs, GlobalOptions, Overlay};
use crate::container::{Container, State, Status};
use crate::sandbox::foreground;
use crate::spec::filesystem::FilesystemPlan;
use crate::{spec, sys};

/// Ids of sandboxes made here, which nobody deletes by hand.
const ID_PREFIX: &str = "do-";

/// Runs the command and returns its exit status.
pub(crate) fn run(global: &GlobalOptions, args: &DoArgs) -> anyhow::Result<i32> {
    let root = super::state_root(global);
    remove_leftovers(&root);
    let id = format!("{ID_PREFIX}{}", std::process::id());
    let rootfs =
        args.root.canonicalize().with_context(|| format!("--root: {}", args.root.display()))?;
    let overlay = global.overlay2.as_ref().unwrap_or(&Overlay::ROOT_IN_MEMORY);
    let mut files = FilesystemPlan::new(&rootfs, false, overlay)?;
    files.add_default_mounts();
    let container = ContainerConfig {
        id: id.clone(),
        process: process(args)?,
        root: files.root,
        mounts: files.mounts,
        hostname: sys::host_name().context("uname")?,
        // The command is the first process only because there is no other.
        init_is_ordinary: true,
        ..ContainerConfig::default()
    };
    let state = State::new(&id, Path::new("/"), &rootfs, std::collections::BTreeMap::new());
    let container_state = Container::claim(&root, state)?;
    let mut plan = spec::plan(global, container, files.gofer_mounts, &container_state.dir, true)?;
    if plan.config.network == NetworkMode::Sandbox {
        // There is no namespace but the caller's.
        plan.config.network = NetworkMode::None;
    }
    foreground::run(&plan, container_state)
}

fn process(args: &DoArgs) -> anyhow::Result<ProcessConfig> {
    let (uid, gid) = sys::effective_ids();
    let capabilities = if uid == 0 { spec::capabilities::ALL } else { 0 };
    let mut env: Vec<Vec<u8>> = Vec::new();
    for (name, value) in std::env::vars_os() {
        env.push([name.as_bytes(), b"=", value.as_bytes()].concat());
    }
    for variable in &args.env {
        let name = variable.as_bytes().split(|&byte| byte == b'=').next().unwrap_or_default();
        env.retain(|old| !(old.starts_with(name) && old.get(name.len()) == Some(&b'=')));
        env.push(variable.clone().into_vec());
    }
    let cwd = match &args.cwd {
        Some(cwd) => cwd.clone(),
        None if args.root != Path::new("/") => "/".into(),
        None => {
            let cwd =
                std::env::current_dir().context("finding the working directory (see --cwd)")?;
            cwd.into_os_string()
                .into_string()
                .ok()
                .context("the working directory is not UTF-8: use --cwd")?
        }
    };
    let rlimits = sys::resource_limits();
    Ok(ProcessConfig {
        args: args.command.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env,
        cwd,
        uid,
        gid,
        // An unprivileged caller's user namespace has one group.
        additional_gids: if uid == 0 { sys::groups().context("getgroups")? } else { Vec::new() },
        umask: sys::umask(),
        capabilities: Capabilities {
            bounding: capabilities,
            effective: capabilities,
            permitted: capabilities,
            ..Capabilities::default()
        },
        rlimits: rlimits
            .into_iter()
            .map(|(resource, soft, hard)| RlimitConfig { resource, soft, hard })
            .collect(),
        terminal: std::io::stdin().is_terminal(),
        ..ProcessConfig::default()
    })
}

/// Removes what earlier calls have left that were killed before they could.
fn remove_leftovers(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else { return };
    for id in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let Some(creator) = id.strip_prefix(ID_PREFIX) else { continue };
        // Whoever still runs removes its own, and does so without being helped.
        let is_running =
            Path::new("/proc").join(creator).exists() && creator != std::process::id().to_string();
        if !is_running
            && let Ok(Some(container)) = Container::find_if_any(root, &id)
            && container.status() == Status::Stopped
        {
            // The next call tries again.
            let _ = container.destroy();
        }
    }
}
