//! An idle sandbox: what it holds (proportional set size) and how often it runs, summed over every process that the
//! runtime has started.
//!
//! The runtime runs in a pid namespace of its own (`unshare`), so that whatever it leaves in the background is
//! still a descendant of a process that is known here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use test_harness::{Bundle, Cmd, Rootfs, TempDir, cmd};

use crate::runtime::Runtime;

/// How long a sandbox has to become idle.
const SETTLE: Duration = Duration::from_secs(1);

/// The measurements of memory, in the order of the table.
pub(crate) const MEMORY: [&str; 4] =
    ["idle_memory", "idle_shell_memory", "idle_python_memory", "idle_node_memory"];

/// Returns what a sandbox holds whose program waits; `None` if it does not run.
pub(crate) fn memory(runtime: &Runtime, guest: &Path, rootfs: &Rootfs, name: &str) -> Option<f64> {
    let argv: &[&str] = match name {
        "idle_shell_memory" => &["/bin/busybox", "sh", "-c", "while :; do sleep 3600; done"],
        "idle_python_memory" => &["/usr/bin/python3", "-c", "import time; time.sleep(1e6)"],
        "idle_node_memory" => &["/usr/bin/node", "-e", "setInterval(() => {}, 1e8)"],
        _ => return Idle::start(runtime, guest, rootfs).memory(),
    };
    let services = Rootfs::services();
    let mut words: Vec<OsString> = argv.iter().map(OsString::from).collect();
    if runtime.is_native() {
        words.splice(0..0, ["chroot".into(), services.path().into()]);
    }
    Idle::of(runtime, &services, &Cmd::new(words)).memory()
}

/// A sandbox whose program sleeps.
pub(crate) struct Idle {
    child: Child,
    _state: TempDir,
    _bundle: Bundle,
}

impl Idle {
    /// Starts one and waits until it is idle: the number of its processes has not changed for a while.
    pub(crate) fn start(runtime: &Runtime, guest: &Path, rootfs: &Rootfs) -> Idle {
        Idle::of(runtime, rootfs, &runtime.program(guest, &["idle"]))
    }

    /// Starts one that runs a program.
    fn of(runtime: &Runtime, rootfs: &Rootfs, program: &Cmd) -> Idle {
        let (state, bundle) = (TempDir::new(), Bundle::new(rootfs, program));
        let mut argv: Vec<OsString> =
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
                .map(OsString::from)
                .to_vec();
        if runtime.is_native() {
            argv.extend_from_slice(program.argv());
        } else {
            argv.extend(runtime.command(&state));
            argv.extend(["--bundle".into(), bundle.path().into(), "idle".into()]);
        }
        let child = program.with_argv(argv).spawn(Stdio::null(), Stdio::null());
        let idle = Idle { child, _state: state, _bundle: bundle };
        let started = Instant::now();
        let mut count = 0;
        let mut since = started;
        while started.elapsed() < Duration::from_secs(20) && since.elapsed() < SETTLE {
            std::thread::sleep(Duration::from_millis(50));
            let now = idle.processes().len();
            if now != count {
                (count, since) = (now, Instant::now());
            }
        }
        idle
    }

    /// Returns the bytes that it holds, or `None` if it does not run.
    pub(crate) fn memory(&mut self) -> Option<f64> {
        let total = self.processes().into_iter().filter_map(pss).sum();
        self.is_running().then_some(total)
    }

    /// Returns how often each of its threads has been switched away from since its start: once for every time that
    /// it was woken or preempted. `None` if it does not run.
    pub(crate) fn switches(&mut self) -> Option<Switches> {
        let mut all = Switches::new();
        for pid in self.processes() {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
            for task in tasks.into_iter().flatten().flatten() {
                let status = std::fs::read_to_string(task.path().join("status"));
                let lines = status.iter().flat_map(|text| text.lines());
                let counts = lines.filter_map(|line| line.split_once("_ctxt_switches:"));
                let count = counts.filter_map(|(_, count)| count.trim().parse::<u32>().ok()).sum();
                all.insert(task.file_name(), count);
            }
        }
        self.is_running().then_some(all)
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns its processes. The first is `unshare`, which is not the runtime's.
    fn processes(&self) -> Vec<u32> {
        descendants(self.child.id()).into_iter().skip(1).collect()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = cmd::wait(&mut self.child, Duration::from_secs(10));
    }
}

/// A count for each thread.
pub(crate) type Switches = BTreeMap<OsString, u32>;

/// Returns how often threads have run between two counts.
pub(crate) fn wakeups(before: &Switches, after: &Switches) -> f64 {
    let since = |(thread, count): (&OsString, &u32)| {
        f64::from(count.saturating_sub(before.get(thread).copied().unwrap_or(0)))
    };
    after.iter().map(since).sum()
}

/// Returns a process and all of its descendants.
fn descendants(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
        if let Some(parent) = fields.split(' ').nth(1).and_then(|parent| parent.parse::<u32>().ok())
        {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// Returns a process's proportional set size in bytes.
fn pss(pid: u32) -> Option<f64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024.0)
}
