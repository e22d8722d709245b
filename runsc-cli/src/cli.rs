//! The command line: types for clap, nothing else. Flags are those of runc and of gVisor's `runsc`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::install::Manager;

/// An OCI container runtime whose containers run on a kernel of their own, in user space.
#[derive(Debug, Parser)]
#[command(name = "runsc", version, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options before the subcommand.
#[derive(Clone, Debug, Args)]
pub(crate) struct GlobalOptions {
    /// Directory for the state of containers [default: /run/runsc, or $XDG_RUNTIME_DIR/runsc]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,

    /// File to which errors and warnings are appended, besides standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    /// Format of the log
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,

    /// Log what helps to find a fault in runsc itself
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set)]
    pub(crate) debug: bool,

    /// File, or directory with a trailing slash, for the logs of --debug and --strace; the default is
    /// standard error
    #[arg(long, value_name = "PATH")]
    pub(crate) debug_log: Option<PathBuf>,

    /// Log every system call of the container
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set)]
    pub(crate) strace: bool,

    /// How the container's code runs and traps
    #[arg(long, value_enum, default_value_t)]
    pub(crate) platform: Platform,

    /// Where the container's network comes from
    #[arg(long, value_enum, default_value_t)]
    pub(crate) network: Network,

    /// Where writes to the root (root:) or to the root and bind mounts (all:) go: none, root:self,
    /// root:memory, root:dir=PATH, all:self, all:memory, all:dir=PATH [default: none for a root that
    /// was mounted for the container, else root:memory]
    #[arg(long, value_name = "SPEC")]
    pub(crate) overlay2: Option<Overlay>,

    /// Do not touch cgroups
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set)]
    pub(crate) ignore_cgroups: bool,

    /// Let the container see as many processors as its quota of processor time comes to, but not
    /// less than two
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set)]
    pub(crate) cpu_num_from_quota: bool,

    /// Kernel version that containers see
    #[arg(long, value_name = "RELEASE", default_value = sentry::config::KERNEL_RELEASE, value_parser = kernel_release)]
    pub(crate) kernel_release: String,

    /// Whether to go on where cgroups may not be written; auto is for whoever is not root of the host
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub(crate) rootless: Rootless,

    /// Let systemd manage cgroups
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set)]
    pub(crate) systemd_cgroup: bool,

    /// Whether linux.seccomp of config.json is applied
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    pub(crate) oci_seccomp: bool,

    /// How systrap wakes the sentry
    #[arg(long, value_enum, default_value_t, hide = true)]
    pub(crate) doorbell: Doorbell,

    /// Whether system calls that concern one process alone are answered there
    #[arg(long, value_enum, default_value_t, hide = true)]
    pub(crate) fast_path: Switch,

    /// Log host calls outside the sentry's list instead of dying of them: not a jail
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide = true)]
    pub(crate) seccomp_log_only: bool,
}

/// The longest name that uname(2) can tell, without its end, in bytes.
const RELEASE_LEN: usize = 64;

/// Checks that programs can parse a kernel version: numbers, and what a distribution adds to them.
fn kernel_release(text: &str) -> Result<String, String> {
    let mut numbers = text.split(['.', '-', '+']).take(2);
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u16>().is_ok());
    let is_version = is_number(numbers.next()) && is_number(numbers.next());
    if !is_version || text.len() > RELEASE_LEN || !text.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err("expected a version such as 6.12.0 or 6.1.0-18-amd64".into());
    }
    Ok(text.to_owned())
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    #[default]
    On,
    Off,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rootless {
    #[default]
    Auto,
    True,
    False,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Platform {
    #[default]
    Systrap,
    Ptrace,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Doorbell {
    #[default]
    Auto,
    Notify,
    Futex,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Network {
    /// The container's network namespace: the sandbox takes over its interfaces. A container without
    /// one, which shares the caller's, has the host's sockets passed through. `do` has loopback only.
    #[default]
    Sandbox,
    /// Loopback only
    None,
    /// The host's: TCP and UDP sockets are passed through to it
    Host,
}

/// The value of `--overlay2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overlay {
    pub(crate) medium: Medium,
    /// Whether bind mounts get one as well.
    pub(crate) all: bool,
}

/// Where an overlay keeps its upper files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    None,
    Memory,
    /// In the file system below.
    Own,
    Dir(PathBuf),
}

impl Overlay {
    /// The root is left as it is: changes are gone with the container.
    pub(crate) const ROOT_IN_MEMORY: Self = Self { medium: Medium::Memory, all: false };
    /// Changes are those of the host's files.
    pub(crate) const NONE: Self = Self { medium: Medium::None, all: false };
}

impl std::str::FromStr for Overlay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::NONE);
        }
        let (scope, medium) = text.split_once(':').unwrap_or((text, ""));
        let all = match scope {
            "root" => false,
            "all" => true,
            _ => return Err("expected none, root:MEDIUM or all:MEDIUM".into()),
        };
        let medium = match medium.split_once('=') {
            None if medium == "memory" => Medium::Memory,
            None if medium == "self" => Medium::Own,
            Some(("dir", path)) if path.starts_with('/') => Medium::Dir(path.into()),
            _ => return Err("expected the medium memory, self or dir=/ABSOLUTE/PATH".into()),
        };
        Ok(Self { medium, all })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a container, without running its program
    Create(CreateArgs),
    /// Print what a sandbox is doing
    Debug(DebugArgs),
    /// Delete a stopped container
    Delete(DeleteArgs),
    /// Run a command on the host's own files below an overlay
    Do(DoArgs),
    /// Print statistics of a container
    Events(EventsArgs),
    /// Run a further process in a container
    Exec(ExecArgs),
    /// Print what this runtime supports, as the runtime specification has it
    Features,
    /// Print help
    Help(HelpArgs),
    /// Make this runtime known to docker, containerd, CRI-O and podman
    Install(InstallArgs),
    /// Send a signal to a container
    Kill(KillArgs),
    /// List containers
    List(ListArgs),
    /// Keep every process of a container from running
    Pause(IdArgs),
    /// Connect a port of this host to one of a container
    PortForward(PortForwardArgs),
    /// List the processes of a container
    Ps(PsArgs),
    /// Let the processes of a paused container run again
    Resume(IdArgs),
    /// Create and start a container
    Run(RunArgs),
    /// Write a specification file to start from
    Spec(SpecArgs),
    /// Start the program of a created container
    Start(IdArgs),
    /// Print the state of a container
    State(IdArgs),
    /// Take back what install has done
    Uninstall(InstallArgs),
    /// Change the limits of a container
    Update(UpdateArgs),
    /// Wait for a container to stop and print its exit status
    Wait(IdArgs),
}

/// Options of `install` and `uninstall`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Manager whose configuration is changed; may be given more than once [default: all that are
    /// installed]
    #[arg(long, value_enum, value_name = "MANAGER")]
    pub(crate) manager: Vec<Manager>,
    /// Name of the runtime
    #[arg(long, value_name = "NAME", default_value = "runsc")]
    pub(crate) runtime: String,
    /// Directory of the managers' configuration
    #[arg(long, value_name = "DIR", default_value = "/etc")]
    pub(crate) etc: PathBuf,
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Flags for every call of the runtime, after --; docker takes them
    #[arg(last = true, value_name = "FLAGS")]
    pub(crate) flags: Vec<String>,
}

/// Options of `create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// File to which the container's process id is written
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Unix socket that receives the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the container's process
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Without meaning: the sandbox's root is never one of the host's
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Without meaning: the container has a session keyring of its own kernel
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Hand down this many descriptors besides the standard ones
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u16,
    /// Name of the container
    pub(crate) id: String,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) create: CreateArgs,
    /// Do not wait for the container
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep the container's state when it has ended
    #[arg(long)]
    pub(crate) keep: bool,
    /// Without meaning: processes of the container never become children of runsc
    #[arg(long)]
    pub(crate) no_subreaper: bool,
}

/// Options of `port-forward`.
#[derive(Debug, Args)]
pub(crate) struct PortForwardArgs {
    /// Connect this unix socket, once, instead of a port of the host
    #[arg(long, value_name = "SOCKET")]
    pub(crate) stream: Option<PathBuf>,
    /// Name of the container
    pub(crate) id: String,
    /// Port of the host, where it is another one, and port of the container
    #[arg(value_name = "[LOCAL:]REMOTE")]
    pub(crate) ports: String,
}

/// Options of `debug`.
#[derive(Debug, Args)]
pub(crate) struct DebugArgs {
    /// Print the threads of the container with the calls in which they wait, and those of the sentry
    #[arg(long)]
    pub(crate) stacks: bool,
    /// Print the processes of the container
    #[arg(long)]
    pub(crate) ps: bool,
    /// Print which calls and flags the sandbox has met that it does not serve, and how often
    #[arg(long)]
    pub(crate) unsupported: bool,
    /// Name of the container
    pub(crate) id: String,
}

/// Options of `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Kill the container where it still runs; do not mind where it does not exist
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names of the containers
    #[arg(required = true)]
    pub(crate) ids: Vec<String>,
}

/// Options of `do`.
#[derive(Debug, Args)]
pub(crate) struct DoArgs {
    /// Directory that becomes the root
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Working directory inside [default: the caller's, or / with --root]
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// Further environment variable, NAME=VALUE
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<OsString>,
    /// Command and arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub(crate) command: Vec<OsString>,
}

/// Options of `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Time between two prints, such as 5s or 500ms
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(crate) interval: Duration,
    /// Print once
    #[arg(long)]
    pub(crate) stats: bool,
    /// Name of the container
    pub(crate) id: String,
}

/// Parses a duration in the form of Go's.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let failure = || format!("{text:?} is no time: give a number and ms, s, m or h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(failure)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| failure())?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(failure()),
    };
    let ms = number.checked_mul(ms).filter(|ms| *ms > 0).ok_or_else(failure)?;
    Ok(Duration::from_millis(ms))
}

/// Options of `update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// File with linux.resources of config.json, - for standard input; the other flags are ignored
    #[arg(short, long, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    /// Weight of block I/O, from 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) blkio_weight: Option<u64>,
    /// Period of the CPU limit in microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_period: Option<u64>,
    /// CPU time for each period in microseconds
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Weight of CPU time
    #[arg(long, value_name = "SHARES")]
    pub(crate) cpu_share: Option<u64>,
    /// Period of the real-time CPU limit in microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_rt_period: Option<u64>,
    /// Real-time CPU time for each period in microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// Processors to use
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Limit of memory in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory: Option<i64>,
    /// Soft limit of memory in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<i64>,
    /// Limit of memory and swap in bytes, -1 for none
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<i64>,
    /// Most processes and threads
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Name of the container
    pub(crate) id: String,
}

/// Options of `exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// File with the process in the form of config.json
    #[arg(short, long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Do not wait for the process
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// File to which the process id is written
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Unix socket that receives the process's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// User, and group where given
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Supplementary group
    #[arg(short = 'g', long, value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// Further environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Further capability
    #[arg(short, long, value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    /// Forbid the process to gain privileges
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Hand down this many descriptors besides the standard ones
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u16,
    /// Without meaning: every process of a sandbox is in the container's own control group
    #[arg(long, value_name = "CGROUP")]
    pub(crate) cgroup: Vec<String>,
    /// Without meaning: a sandbox has no security modules
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// Without meaning: a sandbox has no security modules
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// Execute in a paused container: the process runs when the container is resumed
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// Name of the container
    pub(crate) id: String,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// Options of `help`.
#[derive(Debug, Args)]
pub(crate) struct HelpArgs {
    /// A subcommand, or `syscalls`
    pub(crate) topic: Option<String>,
    /// How to print the system calls
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TableFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum TableFormat {
    #[default]
    Table,
    Json,
    Csv,
    Markdown,
}

/// Options of `kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Signal every process of the container
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Name of the container
    pub(crate) id: String,
    /// Name or number
    #[arg(default_value = "TERM", allow_hyphen_values = true)]
    pub(crate) signal: String,
}

/// Options of `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) format: ListFormat,
    /// Print names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum ListFormat {
    #[default]
    Table,
    Json,
}

/// Options of `ps`.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) format: ListFormat,
    /// Name of the container
    pub(crate) id: String,
}

/// Options of `spec`.
#[derive(Debug, Args)]
pub(crate) struct SpecArgs {
    /// Directory for config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Command and arguments [default: sh]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// The name of one container.
#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    /// Name of the container
    pub(crate) id: String,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::{Cli, Command, Medium, Overlay, kernel_release};

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kernel_releases_are_versions() {
        for good in ["6.12.0", "5.4", "6.1.0-18-amd64"] {
            assert_eq!(kernel_release(good).as_deref(), Ok(good));
        }
        for bad in ["", "6", "linux", "6.x", "6.12.0 x", &format!("6.1.{}", "0".repeat(61))] {
            assert!(kernel_release(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_take_both_forms_of_values() {
        for args in [
            ["--root=/x", "--log-format=json"].to_vec(),
            ["--root", "/x", "--log-format", "json"].to_vec(),
        ] {
            let cli =
                Cli::try_parse_from([&["runsc"], &args[..], &["state", "c"]].concat()).unwrap();
            assert_eq!(cli.global.root.as_deref(), Some("/x".as_ref()));
        }
        let cli = Cli::try_parse_from([
            "runsc",
            "--debug",
            "--ignore-cgroups=false",
            "--strace=true",
            "list",
        ])
        .unwrap();
        assert!(cli.global.debug && cli.global.strace && !cli.global.ignore_cgroups);
    }

    #[test]
    fn do_leaves_the_flags_of_its_command_alone() {
        let cli = Cli::try_parse_from(["runsc", "do", "--cwd=/", "ls", "--root", "-la", "--", "x"])
            .unwrap();
        let Command::Do(args) = cli.command else { panic!("not do") };
        assert_eq!(args.command, ["ls", "--root", "-la", "--", "x"]);
    }

    #[test]
    fn overlay_reads_scope_and_medium() {
        let parse = |text: &str| text.parse::<Overlay>();
        assert_eq!(parse("none"), Ok(Overlay { medium: Medium::None, all: false }));
        assert_eq!(parse("root:self"), Ok(Overlay { medium: Medium::Own, all: false }));
        assert_eq!(
            parse("all:dir=/x"),
            Ok(Overlay { medium: Medium::Dir("/x".into()), all: true })
        );
        assert!(
            parse("root:dir=x").is_err() && parse("root").is_err() && parse("some:memory").is_err()
        );
    }
}
