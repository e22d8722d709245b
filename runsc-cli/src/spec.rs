//! From an OCI bundle and the command line to what sentry and gofer are given.
//!
//! Architecture Invariant: nothing of config.json is silently dropped. Every field is taken by
//! name; what is left over, or not supported yet, is an error or a warning that names it.

pub(crate) mod capabilities;
pub(crate) mod fields;
pub(crate) mod filesystem;
mod hooks;
mod mounts;
pub(crate) mod namespaces;
mod process;
pub(crate) mod seccomp;
pub(crate) use mounts::OPTIONS as MOUNT_OPTIONS;
pub(crate) mod resources;
mod scheduling;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sentry::config::{
    CgroupHierarchy, Config, ContainerConfig, MountKind, NetworkMode, PlatformKind, ProcessConfig,
};

use crate::cgroup::Cgroup;
use crate::cli::{self, GlobalOptions, Overlay};
use crate::hooks::Hooks;
use crate::sandbox::{GoferMount, Plan};
use crate::sys;
use fields::Fields;
use filesystem::FilesystemPlan;
use namespaces::Namespaces;
use resources::Cgroups;

/// The file of a bundle.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// The longest name that `sethostname(2)` takes.
const MAX_HOST_NAME: usize = 64;

/// A bundle, translated.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) container: ContainerConfig,
    pub(crate) gofer_mounts: Vec<GoferMount>,
    pub(crate) rootfs: PathBuf,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) namespaces: Namespaces,
    /// Rows and columns of the container's terminal.
    pub(crate) console_size: Option<(u16, u16)>,
    pub(crate) hooks: Hooks,
    pub(crate) cgroups: Cgroups,
    /// What of the file is not applied, to be shown to the user.
    pub(crate) warnings: Vec<String>,
}

/// Reads and translates the bundle in `dir` for the container `id`.
pub(crate) fn load(dir: &Path, id: &str, global: &GlobalOptions) -> anyhow::Result<Bundle> {
    let path = dir.join(CONFIG_FILE);
    let text = fs::read(&path).with_context(|| {
        format!("reading {} (see --bundle; `runsc spec` writes one)", path.display())
    })?;
    translate(&text, dir, id, global).with_context(|| path.display().to_string())
}

fn translate(text: &[u8], dir: &Path, id: &str, global: &GlobalOptions) -> anyhow::Result<Bundle> {
    let value = serde_json::from_slice(text).context("not JSON")?;
    let mut top = Fields::new(value, "")?;
    let version: String = top.required("ociVersion")?;
    if !version.starts_with("1.") {
        bail!("ociVersion: {version} is not supported: 1.x is");
    }
    let mut warnings = Vec::new();

    let mut root = top.object("root")?.context("root: missing")?;
    let path: PathBuf = root.required("path")?;
    let rootfs = dir.join(&path);
    let rootfs =
        rootfs.canonicalize().with_context(|| format!("root.path: {}", rootfs.display()))?;
    if !rootfs.is_dir() {
        bail!("root.path: {} is not a directory", rootfs.display());
    }
    let readonly = root.optional("readonly")?.unwrap_or(false);
    root.finish(&mut warnings);

    let overlay = match &global.overlay2 {
        Some(overlay) => overlay.clone(),
        // Where nothing may be written, only mount points are made, and those for the container alone.
        None if readonly => Overlay::ROOT_IN_MEMORY,
        None => filesystem::default_overlay(&rootfs, dir)?,
    };
    let mut files = FilesystemPlan::new(&rootfs, readonly, &overlay)?;
    for mount in top.objects("mounts")? {
        mounts::add(&mut files, mount, dir, &mut warnings)?;
    }
    files.add_missing_mounts();

    let mut container = ContainerConfig {
        id: id.to_owned(),
        hostname: top.optional("hostname")?.unwrap_or_default(),
        domainname: top.optional("domainname")?.unwrap_or_default(),
        root: files.root,
        mounts: files.mounts,
        ..ContainerConfig::default()
    };
    for (field, name) in [("hostname", &container.hostname), ("domainname", &container.domainname)]
    {
        if name.len() > MAX_HOST_NAME {
            bail!("{field}: longer than {MAX_HOST_NAME} bytes");
        }
    }
    let console_size;
    match top.object("process")? {
        Some(process) => {
            (container.process, console_size) = process::translate(process, &mut warnings)?;
        }
        None => bail!("process: missing"),
    }
    let annotations = top.optional("annotations")?.unwrap_or_default();
    let mut namespaces = Namespaces::default();
    let mut cgroups = Cgroups::default();
    if let Some(mut linux) = top.object("linux")? {
        if let Some(profile) = linux.object("seccomp")? {
            let program = seccomp::translate(profile, &mut warnings)?;
            if global.oci_seccomp {
                container.seccomp = program;
            }
        }
        (namespaces, cgroups) = resources::translate(linux, &mut container, &mut warnings)?;
    }
    let capabilities = container.process.capabilities.bounding;
    let hooks = match top.object("hooks")? {
        Some(hooks) => hooks::translate(hooks, capabilities, &mut warnings)?,
        None => Hooks::default(),
    };
    top.finish(&mut warnings);
    Ok(Bundle {
        container,
        gofer_mounts: files.gofer_mounts,
        rootfs,
        annotations,
        namespaces,
        console_size,
        hooks,
        cgroups,
        warnings,
    })
}

impl Bundle {
    /// Finds the host name of a container with a sandbox of its own, where it is not given one: that
    /// of the namespace on the host.
    pub(crate) fn find_host_name(&mut self) -> anyhow::Result<()> {
        let (name, namespaces) = (&mut self.container.hostname, &self.namespaces);
        if name.is_empty() {
            *name = match namespaces.path(libc::CLONE_NEWUTS) {
                Some(path) => sys::host_name_in(path).with_context(|| {
                    format!("config.json: linux.namespaces: reading {}", path.display())
                })?,
                None if namespaces.own(libc::CLONE_NEWUTS) == 0 => {
                    sys::host_name().context("uname")?
                }
                None => "localhost".into(),
            };
        }
        Ok(())
    }

    /// Returns whether the container is to see its control groups.
    pub(crate) fn mounts_cgroups(&self) -> bool {
        let is_cgroup = |kind: &MountKind| matches!(kind, MountKind::Cgroup { .. });
        self.container.mounts.iter().any(|mount| is_cgroup(&mount.kind))
    }

    /// Lets the container see its own groups where its specification mounts them.
    pub(crate) fn show_cgroups(&mut self, cgroup: &Cgroup) {
        self.container.cgroup_text = cgroup.text();
        for mount in &mut self.container.mounts {
            let MountKind::Cgroup { hierarchies } = &mut mount.kind else { continue };
            for (dir, name, controllers) in cgroup.views() {
                let connection = self.gofer_mounts.len();
                self.gofer_mounts.push(GoferMount {
                    source: dir,
                    readonly: true,
                    readonly_top: false,
                    follows: false,
                    tmpfiles: false,
                    unix_sockets: false,
                    pseudo_filesystems: true,
                });
                hierarchies.push(CgroupHierarchy { connection, name, controllers });
            }
        }
    }
}

/// Reads a process in the form of config.json. Returns the size of its terminal as well.
pub(crate) fn process(
    text: &[u8],
    warnings: &mut Vec<String>,
) -> anyhow::Result<(ProcessConfig, Option<(u16, u16)>)> {
    let value = serde_json::from_slice(text).context("not JSON")?;
    process::translate(Fields::new(value, "process")?, warnings)
}

/// Reads the process of a whole config.json.
pub(crate) fn process_of_bundle(
    text: &[u8],
    warnings: &mut Vec<String>,
) -> anyhow::Result<(ProcessConfig, Option<(u16, u16)>)> {
    let value = serde_json::from_slice(text).context("not JSON")?;
    let process = Fields::new(value, "")?.object("process")?.context("process: missing")?;
    process::translate(process, warnings)
}

/// Joins a container with what the command line says about its sandbox.
pub(crate) fn plan(
    global: &GlobalOptions,
    container: ContainerConfig,
    gofer_mounts: Vec<GoferMount>,
    state_dir: &Path,
    is_attended: bool,
) -> anyhow::Result<Plan> {
    let log = open_debug_log(global, &container.id, is_attended)?;
    let config = Config {
        platform: match global.platform {
            cli::Platform::Systrap => PlatformKind::Systrap,
            cli::Platform::Ptrace => PlatformKind::Ptrace,
        },
        doorbell: match global.doorbell {
            cli::Doorbell::Auto => sentry::config::Doorbell::Auto,
            cli::Doorbell::Notify => sentry::config::Doorbell::Notify,
            cli::Doorbell::Futex => sentry::config::Doorbell::Futex,
        },
        network: match global.network {
            cli::Network::None => NetworkMode::None,
            cli::Network::Host => NetworkMode::Host,
            cli::Network::Sandbox => NetworkMode::Sandbox,
        },
        kernel_release: global.kernel_release.clone(),
        cpus: None,
        strace: global.strace,
        fast_path: global.fast_path == cli::Switch::On,
        debug: global.debug,
        seccomp_log_only: global.seccomp_log_only,
        container,
        is_held: false,
    };
    Ok(Plan {
        config,
        gofer_mounts,
        preserved: Vec::new(),
        log,
        state_dir: state_dir.to_owned(),
        is_attended,
    })
}

/// Opens what `--debug` and `--strace` write to.
fn open_debug_log(
    global: &GlobalOptions,
    id: &str,
    is_attended: bool,
) -> anyhow::Result<Option<File>> {
    let Some(path) = &global.debug_log else {
        if !(global.debug || global.strace) {
            return Ok(None);
        }
        if !is_attended {
            bail!("--debug and --strace of a detached container need --debug-log");
        }
        return Ok(Some(File::from(std::io::stderr().as_fd().try_clone_to_owned()?)));
    };
    let is_dir = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let path = if is_dir {
        fs::create_dir_all(path)
            .with_context(|| format!("--debug-log: creating {}", path.display()))?;
        path.join(format!("runsc.{id}.log"))
    } else {
        path.clone()
    };
    let file = OpenOptions::new().create(true).append(true).open(&path);
    Ok(Some(file.with_context(|| format!("--debug-log: opening {}", path.display()))?))
}

#[cfg(test)]
mod tests;
