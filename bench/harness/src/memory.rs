//! The memory of an idle sandbox: proportional set size of every process that the runtime has started.
//!
//! The runtime runs in a pid namespace of its own (`unshare`), so that whatever it leaves in the background is
//! still a descendant of a process that is known here.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use test_harness::{Bundle, Rootfs, TempDir, cmd};

use crate::runtime::Runtime;

/// How long a sandbox has to become idle.
const SETTLE: Duration = Duration::from_secs(1);

/// Returns the bytes that an idle sandbox holds, or `None` if it did not start.
pub(crate) fn idle(runtime: &Runtime, guest: &Path, rootfs: &Rootfs) -> Option<f64> {
    let program = runtime.program(guest, &["idle"]);
    let (state, bundle) = (TempDir::new(), Bundle::new(rootfs, &program));
    let mut argv: Vec<OsString> =
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"].map(OsString::from).to_vec();
    if runtime.is_native() {
        argv.extend_from_slice(program.argv());
    } else {
        argv.extend(runtime.command(&state));
        argv.extend(["--bundle".into(), bundle.path().into(), "idle".into()]);
    }
    let mut child = program.with_argv(argv).spawn(Stdio::null(), Stdio::null());
    let started = Instant::now();
    let mut count = 0;
    let mut since = started;
    // Idle: the number of processes has not changed for a while.
    while started.elapsed() < Duration::from_secs(20) && since.elapsed() < SETTLE {
        std::thread::sleep(Duration::from_millis(50));
        let now = descendants(child.id()).len();
        if now != count {
            (count, since) = (now, Instant::now());
        }
    }
    let is_running = matches!(child.try_wait(), Ok(None));
    // The first is `unshare`, which is not the runtime's.
    let total = descendants(child.id()).into_iter().skip(1).filter_map(pss).sum();
    let _ = child.kill();
    let _ = cmd::wait(&mut child, Duration::from_secs(10));
    is_running.then_some(total)
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
