//! What a sentry is booted with: a plain description of the sandbox and its first container.
//!
//! `runsc` translates command line and OCI bundle into [`Config`], which travels as JSON through a
//! sealed memfd, beside the [`Descriptors`]. Nothing here refers to a path of the host: whatever
//! the container sees of the host is a gofer connection, named by its index.

pub mod network;

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// A sandbox with its first container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// How application code runs and traps.
    pub platform: PlatformKind,
    /// How a systrap stub wakes the sentry.
    pub doorbell: Doorbell,
    /// Where the sandbox's network comes from.
    pub network: NetworkMode,
    /// The kernel version that the guest sees, `uname -r`.
    #[serde(default = "default_kernel_release")]
    pub kernel_release: String,
    /// The most processors that the guest sees.
    #[serde(default)]
    pub cpus: Option<usize>,
    /// Log every system call of the application.
    pub strace: bool,
    /// Whether the platform may answer system calls by itself.
    pub fast_path: bool,
    /// Log what helps to find a fault in the sentry itself.
    pub debug: bool,
    /// Whether a host call outside the sentry's list is logged and let pass, not fatal. Never set
    /// but by a developer: such a sandbox is not a jail.
    pub seccomp_log_only: bool,
    /// The first container.
    pub container: ContainerConfig,
    /// Whether that is none, but a name and host names for what the containers of a pod share until
    /// the sandbox is shut down.
    #[serde(default)]
    pub is_held: bool,
}

/// The version of the kernel whose calls are served.
pub const KERNEL_RELEASE: &str = "6.12.0";

fn default_kernel_release() -> String {
    KERNEL_RELEASE.to_owned()
}

/// The implementation of `sentry_platform::Platform`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformKind {
    /// Patched and trapped system calls of cloned stubs.
    #[default]
    Systrap,
    /// `PTRACE_SYSEMU`.
    Ptrace,
}

/// How a systrap stub wakes the sentry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Doorbell {
    /// Notifications where stubs can have a listener, else messages and futexes.
    #[default]
    Auto,
    /// Synchronous seccomp user notifications.
    Notify,
    /// Messages and futexes: for hosts without such notifications, and where an outer filter already
    /// has a listener.
    Futex,
}

/// Where the network comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Loopback only.
    #[default]
    None,
    /// The host's, its sockets passed through.
    Host,
    /// That of a network namespace, whose interfaces the sentry takes over.
    Sandbox,
}

/// One container: its root, its mounts, its first process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// The container's name in the state directory.
    pub id: String,
    /// The first process.
    pub process: ProcessConfig,
    /// Whether signals end the first process as they end any other; the first process of a pid
    /// namespace is otherwise spared their default actions.
    pub init_is_ordinary: bool,
    /// The root file system.
    pub root: RootConfig,
    /// Further mounts, in the order in which they are made. Destinations are absolute; missing
    /// mount points are created, on the overlay where there is one.
    pub mounts: Vec<MountConfig>,
    /// `uname -n`.
    pub hostname: String,
    /// The NIS domain name.
    pub domainname: String,
    /// Paths that read as empty. Missing ones are skipped.
    pub masked_paths: Vec<String>,
    /// Paths that are remounted read-only. Missing ones are skipped.
    pub readonly_paths: Vec<String>,
    /// Values written below `/proc/sys` before the first process starts, in dotted form.
    pub sysctl: Vec<(String, String)>,
    /// Device nodes in `/dev` besides the default ones.
    pub devices: Vec<DeviceConfig>,
    /// The host's cgroup limits as far as the guest shows them: bytes of memory.
    pub memory_limit: Option<u64>,
    /// Most processes and threads, as `pids.max` of a cgroup of the guest's own would have it.
    pub tasks_limit: Option<u64>,
    /// The ids of the container's user namespace.
    pub id_maps: IdMaps,
    /// What the guest is told about control groups.
    pub cgroup_text: CgroupText,
    /// The filter of system calls that every process of the container starts with; empty for none.
    pub seccomp: Vec<BpfInstruction>,
    /// What a further container has of the sandbox's first one.
    pub shared: SharedNamespaces,
    /// The container of the sandbox whose processes a further container shares, where it is not the
    /// first one.
    #[serde(default)]
    pub shares_pids_of: Option<String>,
}

/// The namespaces that a container of a pod shares with the first one. The network always is the
/// sandbox's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedNamespaces {
    /// That of processes.
    pub pid: bool,
    /// System V IPC.
    pub ipc: bool,
    /// The host name.
    pub uts: bool,
}

/// An instruction of a filter of system calls: `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfInstruction {
    /// What is done.
    pub code: u16,
    /// How many instructions are skipped where a comparison holds.
    pub jt: u8,
    /// How many are skipped where it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// The ids of a user namespace (`user_namespaces(7)`). Without ranges it has every id, as the
/// host's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

/// Consecutive ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first one in the container.
    pub inside: u32,
    /// The one that it is on the host.
    pub outside: u32,
    /// How many there are.
    pub size: u32,
}

impl IdMaps {
    /// Returns whether a user exists.
    pub fn has_uid(&self, uid: u32) -> bool {
        contains(&self.uids, uid)
    }

    /// Returns whether all users from `first` to `last` exist.
    pub fn has_uids(&self, first: u32, last: u32) -> bool {
        contains_all(&self.uids, first, last)
    }

    /// Returns whether all groups from `first` to `last` exist.
    pub fn has_gids(&self, first: u32, last: u32) -> bool {
        contains_all(&self.gids, first, last)
    }

    /// Returns the host's id of a user.
    pub fn host_uid(&self, uid: u32) -> u32 {
        outside(&self.uids, uid)
    }

    /// Returns the host's id of a group.
    pub fn host_gid(&self, gid: u32) -> u32 {
        outside(&self.gids, gid)
    }

    /// Returns whether a group exists.
    pub fn has_gid(&self, gid: u32) -> bool {
        contains(&self.gids, gid)
    }
}

/// Returns whether one of the ranges has all ids from `first` to `last`.
fn contains_all(ranges: &[IdRange], first: u32, last: u32) -> bool {
    let has =
        |range: &IdRange, id: u32| id.checked_sub(range.inside).is_some_and(|at| at < range.size);
    ranges.is_empty() || ranges.iter().any(|range| has(range, first) && has(range, last))
}

/// Returns the id outside; where there is none, the same.
fn outside(ranges: &[IdRange], id: u32) -> u32 {
    let translate = |range: &IdRange| {
        let at = id.checked_sub(range.inside).filter(|at| *at < range.size)?;
        range.outside.checked_add(at)
    };
    ranges.iter().find_map(translate).unwrap_or(id)
}

fn contains(ranges: &[IdRange], id: u32) -> bool {
    let holds = |range: &IdRange| id.checked_sub(range.inside).is_some_and(|at| at < range.size);
    ranges.is_empty() || ranges.iter().any(holds)
}

/// A process as the OCI runtime specification describes it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessConfig {
    /// Path or name of the program, and its arguments. A name without a slash is looked up in
    /// the `PATH` of `env`.
    #[serde(with = "byte_strings")]
    pub args: Vec<Vec<u8>>,
    /// The environment, `NAME=value`.
    #[serde(with = "byte_strings")]
    pub env: Vec<Vec<u8>>,
    /// The working directory, absolute. Created where it does not exist.
    pub cwd: String,
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// The file creation mask.
    pub umask: u32,
    /// The five capability sets.
    pub capabilities: Capabilities,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// Resource limits that differ from the sentry's defaults.
    pub rlimits: Vec<RlimitConfig>,
    /// Whether the three standard descriptors are one terminal, which becomes the controlling one.
    pub terminal: bool,
    /// `oom_score_adj` as the guest shows it.
    pub oom_score_adj: i32,
    /// How it is scheduled.
    #[serde(default)]
    pub scheduling: Scheduling,
}

/// Priorities of a process, as the guest shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// `SCHED_*`.
    pub policy: u32,
    /// Of the real-time policies, 1 to 99.
    pub priority: i32,
    /// -20 to 19.
    pub nice: i32,
    /// `SCHED_RESET_ON_FORK`.
    pub reset_on_fork: bool,
    /// As for `ioprio_set(2)`.
    pub ioprio: i32,
}

/// The capability sets, bit n for capability n of `linux/capability.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The bounding set.
    pub bounding: u64,
    /// The effective set.
    pub effective: u64,
    /// The inheritable set.
    pub inheritable: u64,
    /// The permitted set.
    pub permitted: u64,
    /// The ambient set.
    pub ambient: u64,
}

/// One resource limit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct RlimitConfig {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// The soft limit; `u64::MAX` is `RLIM_INFINITY`.
    pub soft: u64,
    /// The hard limit.
    pub hard: u64,
}

/// The root file system.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RootConfig {
    /// The gofer connection that serves it.
    pub connection: usize,
    /// Whether the mount is read-only for the application.
    pub readonly: bool,
    /// Where writes go.
    pub overlay: OverlayMedium,
    /// How mounts below it propagate.
    pub propagation: Propagation,
}

/// Where the writes to a mount served by the gofer go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverlayMedium {
    /// To the mount itself.
    #[default]
    None,
    /// To an upper layer in the sentry's memory.
    Memory,
    /// To an upper layer whose file data lies in unlinked files of the host, made by the gofer in
    /// the root directory of a connection of their own.
    File {
        /// The connection.
        connection: usize,
    },
}

/// One mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountConfig {
    /// Where, an absolute path in the container.
    pub destination: String,
    /// What.
    pub kind: MountKind,
    /// `MS_RDONLY`.
    pub readonly: bool,
    /// `MS_NOSUID`.
    pub nosuid: bool,
    /// `MS_NODEV`.
    pub nodev: bool,
    /// `MS_NOEXEC`.
    pub noexec: bool,
    /// The source as `/proc/self/mountinfo` shows it.
    pub source: String,
    /// The name of the file or directory below a bind mount, as `/proc/self/mountinfo` shows it;
    /// empty for the root of a file system.
    pub root_name: String,
    /// How mounts below it propagate.
    pub propagation: Propagation,
}

/// How the mounts below a mount propagate inside the container (`mount_namespaces(7)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// In both directions.
    Shared,
    /// Towards it.
    Slave,
    /// Not at all, and it cannot be bound to another place.
    Unbindable,
}

/// What is mounted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A file or directory of the host.
    Gofer {
        /// The gofer connection that serves it.
        connection: usize,
        /// Whether it is a directory.
        directory: bool,
        /// Where writes go.
        overlay: OverlayMedium,
    },
    /// Memory.
    Tmpfs(TmpfsConfig),
    /// `proc`.
    Proc,
    /// `sysfs`.
    Sysfs,
    /// `/dev` with the default nodes and links of the runtime specification, on a tmpfs.
    Devtmpfs(TmpfsConfig),
    /// Pseudo-terminals.
    Devpts,
    /// POSIX message queues.
    Mqueue,
    /// The container's own control groups, read-only: without hierarchies an empty directory, for
    /// version 2 the group itself, and otherwise a directory of hierarchies.
    Cgroup {
        /// The hierarchies.
        hierarchies: Vec<CgroupHierarchy>,
    },
}

/// The container's group in one hierarchy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CgroupHierarchy {
    /// The gofer connection that serves it.
    pub connection: usize,
    /// The name of the hierarchy's directory.
    pub name: String,
    /// Its controllers, separated by commas; none for version 2.
    pub controllers: Option<String>,
}

/// What files of `/proc` say about control groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupText {
    /// `/proc/PID/cgroup`.
    pub own: String,
    /// `/proc/cgroups`.
    pub all: String,
}

impl Default for CgroupText {
    fn default() -> Self {
        Self { own: "0::/\n".into(), all: "#subsys_name\thierarchy\tnum_cgroups\tenabled\n".into() }
    }
}

/// Options of a tmpfs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsConfig {
    /// Bytes; the sentry's default where `None`.
    pub size: Option<u64>,
    /// Inodes; without limit where `None`.
    pub nr_inodes: Option<u64>,
    /// Mode of the root directory; 1777 where `None`.
    pub mode: Option<u32>,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
}

/// A device node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceConfig {
    /// Where, an absolute path in the container.
    pub path: String,
    /// `S_IFCHR` or `S_IFBLK` and the permissions.
    pub mode: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The host descriptors that a sentry owns from its start.
#[derive(Debug)]
pub struct Descriptors {
    /// Standard input, output and error of the first process.
    pub stdio: [OwnedFd; 3],
    /// What the first process gets besides, from descriptor 3 on.
    pub preserved: Vec<OwnedFd>,
    /// One connected socket per gofer connection, by index.
    pub gofer: Vec<OwnedFd>,
    /// The listening socket of the control protocol.
    pub control: OwnedFd,
    /// Where the sentry writes its debug log and the system-call log.
    pub log: Option<OwnedFd>,
    /// A directory of this process's own descriptors that leads nowhere else.
    pub proc_self_fd: OwnedFd,
    /// This process's `oom_score_adj`, for the time until the first stub runs.
    pub oom_score_adj: OwnedFd,
    /// The process file system of the sentry's pid namespace, for the clerk (`sentry_host::usage`).
    pub proc: OwnedFd,
}

/// Arguments and environment are bytes on Linux: a string in JSON where they are UTF-8, an array of
/// numbers where they are not.
mod byte_strings {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form<T, B> {
        Text(T),
        Bytes(B),
    }

    pub(super) fn serialize<S: Serializer>(
        strings: &[Vec<u8>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(strings.iter().map(|bytes| match str::from_utf8(bytes) {
            Ok(text) => Form::Text(text),
            Err(_) => Form::Bytes(bytes),
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        let forms = Vec::<Form<String, Vec<u8>>>::deserialize(deserializer)?;
        let into_bytes = |form: Form<String, Vec<u8>>| match form {
            Form::Text(text) => text.into_bytes(),
            Form::Bytes(bytes) => bytes,
        };
        Ok(forms.into_iter().map(into_bytes).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        IdMaps, IdRange, MountConfig, MountKind, OverlayMedium, ProcessConfig, Propagation,
        TmpfsConfig,
    };

    #[test]
    fn id_maps_hold_their_ranges() {
        let range = |inside, size| IdRange { inside, outside: 100_000, size };
        let maps = IdMaps { uids: vec![range(0, 10), range(u32::MAX - 1, 2)], gids: Vec::new() };
        for (uid, expected) in [(0, true), (9, true), (10, false), (u32::MAX, true)] {
            assert_eq!(maps.has_uid(uid), expected, "{uid}");
        }
        assert!(maps.has_gid(77));
    }

    #[test]
    fn mount_config_survives_json() {
        for kind in [
            MountKind::Gofer {
                connection: 3,
                directory: true,
                overlay: OverlayMedium::File { connection: 4 },
            },
            MountKind::Tmpfs(TmpfsConfig {
                size: Some(4096),
                mode: Some(0o755),
                ..TmpfsConfig::default()
            }),
            MountKind::Proc,
        ] {
            let mount = MountConfig {
                destination: "/x".into(),
                kind,
                readonly: true,
                nosuid: false,
                nodev: true,
                noexec: false,
                source: "none".into(),
                root_name: "y".into(),
                propagation: Propagation::Slave,
            };
            let text = serde_json::to_string(&mount).unwrap_or_default();
            let back: MountConfig = serde_json::from_str(&text).unwrap();
            assert_eq!(format!("{mount:?}"), format!("{back:?}"));
        }
    }

    #[test]
    fn process_config_keeps_bytes_that_are_not_text() {
        let args = vec![b"caf\xe9".to_vec(), "caf\u{e9}".into(), Vec::new()];
        let text = serde_json::to_string(&ProcessConfig {
            args: args.clone(),
            ..ProcessConfig::default()
        })
        .unwrap();
        let back: ProcessConfig = serde_json::from_str(&text).unwrap();
        assert_eq!(back.args, args);
    }
}
