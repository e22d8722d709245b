//! From the configuration to a running sandbox: start the platform's first process, lock down,
//! create the container, serve.
//!
//! Architecture Invariant: nothing of the container (its files, its program) is looked at before
//! the seccomp filter stands.

mod cgroups;
mod container;
mod held;
mod oom_score;
mod process;
mod sandbox;
mod target;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ::syscalls::Errno;
use sentry_host::Rule;
use sentry_host::filter::{self, Violation};
use sentry_host::{memfd, schedule, startup, usage};
use sentry_platform::Platform;
use sentry_platform::ptrace::{self, Ptrace};
use sentry_platform::systrap::{self, DoorbellChoice, Systrap};

use crate::config::{Config, Descriptors, Doorbell, NetworkMode, PlatformKind};
use crate::control::{ControlServer, ControlTarget, StartError, StatusNotifier};
use crate::fs::host_fd::HostPoller;
use crate::fs::procfs::NetworkTables;
use crate::kernel::{HostNetwork, Kernel, KernelOptions, spawn_thread};
use crate::net::netlink::Snapshot;

use self::oom_score::OomScore;
use self::sandbox::Sandbox;

/// Runs a sandbox to its end and returns the exit status for the process.
#[expect(clippy::needless_pass_by_value, reason = "a sandbox is booted once")]
pub fn boot(config: Config, descriptors: Descriptors) -> i32 {
    startup::set_process_name(c"runsc-sandbox");
    let Descriptors { stdio, preserved, gofer, control, log, proc_self_fd, oom_score_adj, proc } =
        descriptors;
    // First, while there is one thread and nothing in its memory. Without it nothing is known of
    // what processes use.
    let _ = usage::start(proc.as_fd());
    memfd::set_descriptor_directory(proc_self_fd);
    schedule::prepare();
    crate::syscalls::sched::limit_cpus(config.cpus.unwrap_or(usize::MAX));
    crate::log::init(log, config.debug);
    let Ok((server, notifier)) = ControlServer::new(control) else { return 1 };
    let oom_score = OomScore::raise(oom_score_adj, config.container.process.oom_score_adj);
    let started = start_platform(&config);
    oom_score.restore();
    let target = started.and_then(|(platform, rules)| {
        let poller =
            HostPoller::new().map_err(|errno| failure("waiting for descriptors", errno))?;
        let host_network = match config.network {
            NetworkMode::None | NetworkMode::Sandbox => None,
            NetworkMode::Host => {
                let routes = Snapshot::take()
                    .map_err(|errno| failure("reading the host's interfaces", errno))?;
                let tables = NetworkTables::open(proc.as_fd());
                Some(HostNetwork { poller: poller.clone(), routes, tables })
            }
        };
        drop(proc);
        lock_down(&config, &rules)?;
        let stdio = stdio.into_iter().chain(preserved).collect();
        create(&config, &platform, &poller, host_network, notifier, gofer, stdio)
    });
    server.run(&target)
}

/// Creates the kernel with its container.
fn create(
    config: &Config,
    platform: &Arc<dyn Platform>,
    poller: &Arc<HostPoller>,
    host_network: Option<HostNetwork>,
    notifier: StatusNotifier,
    gofers: Vec<OwnedFd>,
    stdio: Vec<OwnedFd>,
) -> Result<Arc<dyn ControlTarget>, StartError> {
    let kernel = Kernel::new(KernelOptions {
        release: config.kernel_release.clone(),
        strace: config.strace,
        fast_path: config.fast_path,
        host_network,
    });
    kernel.set_platform(platform.clone());
    let _ = kernel.status_notifier.set(notifier);
    crate::fs::mem_devices::register(&kernel);
    crate::fs::tmpfs::register(&kernel);
    crate::fs::overlay::layered::register(&kernel);
    crate::fs::pipe::register(&kernel);
    crate::fs::procfs::register(&kernel);
    crate::fs::devpts::register(&kernel);
    crate::fs::mqueue::register(&kernel);
    crate::fs::sysfs::register(&kernel);
    crate::fs::tty::register(&kernel);
    let timers = kernel.clone();
    let no_thread = |errno| failure("starting threads (too low a limit of processes?)", errno);
    spawn_thread("timers", move || timers.timers.serve(&timers.clock)).map_err(no_thread)?;
    platform.start().map_err(no_thread)?;
    let serving = platform.clone();
    spawn_thread("serve", move || serving.serve()).map_err(no_thread)?;
    if config.is_held {
        return Ok(Arc::new(Sandbox::held(&kernel, poller, &config.container)));
    }
    Ok(Arc::new(Sandbox::new(&kernel, poller, &config.container, gofers, stdio)?))
}

/// Starts the platform, which takes fork and exec, and returns it with the host calls that it
/// makes from then on.
fn start_platform(config: &Config) -> Result<(Arc<dyn Platform>, Vec<Rule>), StartError> {
    match config.platform {
        PlatformKind::Systrap => {
            let doorbell = match config.doorbell {
                Doorbell::Auto => DoorbellChoice::Auto,
                Doorbell::Notify => DoorbellChoice::Notify,
                Doorbell::Futex => DoorbellChoice::Futex,
            };
            let platform = Systrap::new(systrap::Options { doorbell })
                .map_err(|errno| failure("starting systrap (see --platform)", errno))?;
            let rules = platform.rules();
            Ok((Arc::new(platform), rules))
        }
        PlatformKind::Ptrace => {
            let platform = Ptrace::new().map_err(|errno| failure("starting ptrace", errno))?;
            Ok((Arc::new(platform), ptrace::rules()))
        }
    }
}

/// Gives up, for good, every host call that the sentry does not need from here on.
fn lock_down(config: &Config, platform_rules: &[Rule]) -> Result<(), StartError> {
    startup::make_undumpable().map_err(|errno| failure("locking down the sentry: prctl", errno))?;
    let violation = if config.seccomp_log_only { Violation::Log } else { Violation::Kill };
    let mut rules = [&sentry_host::rules(), platform_rules].concat();
    match config.network {
        NetworkMode::None => rules.extend(sentry_host::forward::rules()),
        NetworkMode::Host => rules.extend(sentry_host::inet::rules()),
        NetworkMode::Sandbox => {
            rules.extend(sentry_host::nic::rules());
            rules.extend(sentry_host::forward::rules());
        }
    }
    filter::install(&rules, violation)
        .map_err(|errno| failure("locking down the sentry: seccomp", errno))
}

fn failure(step: &str, errno: Errno) -> StartError {
    StartError { message: format!("{step}: {}", errno.text()), exit_code: 1 }
}
