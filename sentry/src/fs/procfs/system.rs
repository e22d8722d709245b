//! The files about the system as a whole.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use sentry_host::clock::Clock;

use super::super::pseudo::{Fixed, Named, Numbers};
use super::{config, cpuinfo};
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::keys;
use crate::syscalls::info::VERSION;
use crate::syscalls::sched;
use crate::task::{CurrentTask, Task, run};

/// `USER_HZ`: the unit of times.
const NS_PER_TICK: u64 = 10_000_000;

const DEVICES: &str = "\
Character devices:
  1 mem
  5 /dev/tty
  5 /dev/console
  5 /dev/ptmx
 10 misc
128 ptm
136 pts

Block devices:
";

const TTY_DRIVERS: &str = "\
/dev/tty             /dev/tty        5       0 system:/dev/tty
/dev/console         /dev/console    5       1 system:console
/dev/ptmx            /dev/ptmx       5       2 system
pty_slave            /dev/pts      136 0-1048575 pty:slave
pty_master           /dev/ptm      128 0-1048575 pty:master
";

/// The file systems of the sandbox, whether or not `mount(2)` can make them.
const FILE_SYSTEMS: [&str; 6] = ["sysfs", "tmpfs", "proc", "devtmpfs", "devpts", "overlay"];

/// Returns the entries.
pub(super) fn entries(numbers: &Numbers) -> Vec<Named> {
    vec![
        numbers.text("cpuinfo", 0o444, |current: &CurrentTask| {
            cpuinfo::render(sched::n_cpus(), current.kernel.clock.cpu_khz())
        }),
        numbers.text("meminfo", 0o444, |current: &CurrentTask| meminfo(current.container())),
        numbers.text("stat", 0o444, |current: &CurrentTask| stat(&current.kernel)),
        numbers.text("uptime", 0o444, uptime),
        numbers.text("loadavg", 0o444, |current: &CurrentTask| loadavg(current)),
        numbers.text("vmstat", 0o444, |current: &CurrentTask| vmstat(current.container())),
        numbers.text("filesystems", 0o444, |current: &CurrentTask| filesystems(&current.kernel)),
        numbers.text("interrupts", 0o444, |_: &CurrentTask| per_cpu_header(11)),
        numbers.text("softirqs", 0o444, |_: &CurrentTask| per_cpu_header(20)),
        numbers.text("version", 0o444, |current: &CurrentTask| {
            let release = &current.kernel.release;
            format!("Linux version {release} (runsc-rs) (rustc) {VERSION}\n")
        }),
        numbers.fixed("cmdline", 0o444, "BOOT_IMAGE=/vmlinuz quiet\n"),
        numbers.text("cgroups", 0o444, |current: &CurrentTask| {
            current.container().cgroup_text.all.clone()
        }),
        numbers.text("config.gz", 0o444, Fixed(config::compressed().into())),
        numbers.fixed("devices", 0o444, DEVICES),
        numbers.fixed("diskstats", 0o444, ""),
        numbers.fixed("partitions", 0o444, "major minor  #blocks  name\n\n"),
        numbers.fixed("swaps", 0o444, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"),
        numbers.fixed("misc", 0o444, ""),
        numbers.fixed("modules", 0o444, ""),
        numbers.fixed("locks", 0o444, ""),
        numbers.text("keys", 0o444, |current: &CurrentTask| keys::show::keys(current)),
        numbers.text("key-users", 0o444, |current: &CurrentTask| keys::show::users(current)),
        numbers.named_dir(
            "sysvipc",
            vec![
                numbers.text("shm", 0o444, |current: &CurrentTask| current.ipc().shm.render()),
                numbers.text("sem", 0o444, |current: &CurrentTask| current.ipc().sem.render()),
                numbers.text("msg", 0o444, |current: &CurrentTask| current.ipc().msg.render()),
            ],
        ),
        numbers.named_dir(
            "tty",
            vec![
                numbers.fixed("drivers", 0o444, TTY_DRIVERS),
                numbers.fixed("ldiscs", 0o444, "n_tty       0\n"),
            ],
        ),
        numbers.link("mounts", "self/mounts"),
        numbers.link("net", "self/net"),
    ]
}

fn per_cpu_header(width: usize) -> String {
    let mut out = " ".repeat(width);
    for cpu in 0..sched::n_cpus() {
        let _ = write!(out, "{:<11}", format!("CPU{cpu}"));
    }
    out.push('\n');
    out
}

fn meminfo(container: &Container) -> String {
    let total = container.total_memory() / 1024;
    let free = container.free_memory() / 1024;
    let used = total.saturating_sub(free);
    let mut out = String::new();
    for (name, value) in [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", used),
        ("Inactive", 0),
        ("Active(anon)", used),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", used),
        ("Mapped", 0),
        ("Shmem", 0),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", total / 2),
        ("Committed_AS", used),
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("Percpu", 0),
        ("AnonHugePages", 0),
        ("ShmemHugePages", 0),
        ("ShmemPmdMapped", 0),
    ] {
        let _ = writeln!(out, "{:<15} {value:>8} kB", format!("{name}:"));
    }
    for name in ["HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp"] {
        let _ = writeln!(out, "{:<16} {:>7}", format!("{name}:"), 0);
    }
    for (name, value) in [("Hugepagesize", 2048), ("Hugetlb", 0)] {
        let _ = writeln!(out, "{:<15} {value:>8} kB", format!("{name}:"));
    }
    out
}

/// Returns the user and system time that all processes have used.
fn cpu_ns(kernel: &Kernel) -> (u64, u64) {
    let mut sum = (0u64, 0u64);
    for (_, task) in kernel.root_pid_namespace.tasks() {
        if !task.is_leader() {
            continue;
        }
        let (user, system) = task.group.cpu_ns();
        // The children that have been waited for are nowhere else any more.
        let dead = task.group.account.children().cpu_ns;
        sum.0 = sum.0.saturating_add(user).saturating_add(dead.0);
        sum.1 = sum.1.saturating_add(system).saturating_add(dead.1);
    }
    sum
}

fn n_cpus() -> u64 {
    u64::try_from(sched::n_cpus()).unwrap_or(1).max(1)
}

fn idle_ns(kernel: &Kernel) -> u64 {
    let (user, system) = cpu_ns(kernel);
    let all = kernel.clock.boot_ns().saturating_mul(n_cpus());
    all.saturating_sub(user.saturating_add(system))
}

/// Returns how many tasks run or are ready to.
fn n_running(kernel: &Kernel) -> usize {
    let runs = |task: &Task| {
        !matches!(task.run_state.load(Ordering::Relaxed), run::BLOCKED | run::DEAD)
            && !task.exiting.load(Ordering::Relaxed)
    };
    kernel.root_pid_namespace.tasks().iter().filter(|(_, task)| runs(task)).count()
}

fn stat(kernel: &Kernel) -> String {
    let n_cpus = n_cpus();
    let (user, system) = cpu_ns(kernel);
    let idle = idle_ns(kernel);
    let line = |share: u64| {
        let ticks = |ns: u64| ns / share / NS_PER_TICK;
        format!("{} 0 {} {} 0 0 0 0 0 0\n", ticks(user), ticks(system), ticks(idle))
    };
    let mut out = format!("cpu  {}", line(1));
    for cpu in 0..n_cpus {
        let _ = write!(out, "cpu{cpu} {}", line(n_cpus));
    }
    let boot_ns = i64::try_from(kernel.clock.boot_ns()).unwrap_or(0);
    let boot = kernel.clock.realtime_ns().saturating_sub(boot_ns) / 1_000_000_000;
    let forks = kernel.n_forks.load(Ordering::Relaxed).saturating_add(1);
    let running = n_running(kernel);
    // Every wait ends by an interruption of some processor.
    let waits = kernel.n_waits.load(Ordering::Relaxed);
    let _ = writeln!(out, "intr {waits}\nctxt {waits}\nbtime {boot}\nprocesses {forks}");
    let _ = writeln!(out, "procs_running {running}\nprocs_blocked 0");
    out.push_str("softirq 0 0 0 0 0 0 0 0 0 0 0\n");
    out
}

fn centiseconds(ns: u64) -> String {
    format!("{}.{:02}", ns / 1_000_000_000, ns / NS_PER_TICK % 100)
}

fn uptime(current: &CurrentTask) -> String {
    let kernel = &current.kernel;
    let booted_ns = i64::try_from(kernel.clock.boot_ns()).unwrap_or(i64::MAX);
    let up_ns = booted_ns.saturating_add(current.clock_offset_ns(Clock::Boottime));
    let (seconds, rest) = (up_ns.div_euclid(1_000_000_000), up_ns.rem_euclid(1_000_000_000));
    format!("{seconds}.{:02} {}\n", rest / 10_000_000, centiseconds(idle_ns(kernel)))
}

/// The averages are not kept: nobody in the sandbox waits for a processor that we could see.
fn loadavg(current: &CurrentTask) -> String {
    let kernel = &current.kernel;
    let running = n_running(kernel);
    let last = current.pid_namespace().last_pid();
    format!("0.00 0.00 0.00 {running}/{} {last}\n", kernel.n_tasks())
}

fn vmstat(container: &Container) -> String {
    let free = container.free_memory() / 4096;
    let used = (container.total_memory() / 4096).saturating_sub(free);
    let mut out = format!("nr_free_pages {free}\nnr_anon_pages {used}\n");
    for name in [
        "nr_mapped",
        "nr_file_pages",
        "nr_dirty",
        "nr_writeback",
        "nr_shmem",
        "pgpgin",
        "pgpgout",
        "pswpin",
        "pswpout",
        "pgfault",
        "pgmajfault",
        "oom_kill",
    ] {
        let _ = writeln!(out, "{name} 0");
    }
    out
}

/// Returns the types of file systems in the order of `/proc/filesystems`.
pub(crate) fn file_system_names(kernel: &Kernel) -> Vec<&'static str> {
    let mut names = FILE_SYSTEMS.to_vec();
    for name in kernel.file_system_types.names() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn filesystems(kernel: &Kernel) -> String {
    file_system_names(kernel).iter().map(|name| format!("nodev\t{name}\n")).collect()
}
