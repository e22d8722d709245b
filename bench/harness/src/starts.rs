//! The life of containers from outside: each command's time, and many at once.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use test_harness::{Bundle, Cmd, Container, Rootfs, TempDir};

use crate::runtime::Runtime;

/// How many are started side by side.
const MANY: usize = 50;

/// The measurements, in the order of the table.
pub(crate) const ALL: [&str; 6] =
    ["start_true", "life_create", "life_start", "life_exec", "life_delete", "start_50"];

/// Makes the wanted measurements; what fails is told to `fails` and left out.
pub(crate) fn measure(
    runtime: &Runtime,
    guest: &Path,
    rootfs: &Rootfs,
    wanted: &[&'static str],
    mut fails: impl FnMut(&str, &str),
) -> Vec<(&'static str, f64)> {
    let mut found = Vec::new();
    if wanted.contains(&"start_true") {
        for _ in 0..3 {
            match start_true(runtime, guest, rootfs) {
                Ok(time) => found.push(("start_true", time)),
                Err(why) => fails("start_true", &why),
            }
        }
    }
    if wanted.iter().any(|name| name.starts_with("life_")) && !runtime.is_native() {
        match life(runtime, guest, rootfs) {
            Ok(times) => found.extend(times.into_iter().filter(|(name, _)| wanted.contains(name))),
            Err(why) => fails("life", &why),
        }
    }
    if wanted.contains(&"start_50") {
        match many(runtime, guest, rootfs) {
            Ok(time) => found.push(("start_50", time)),
            Err(why) => fails("start_50", &why),
        }
    }
    found
}

fn nanoseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e9
}

/// The whole command that runs `true`.
fn start_true(runtime: &Runtime, guest: &Path, rootfs: &Rootfs) -> Result<f64, String> {
    let started = Instant::now();
    let result = runtime.run(guest, rootfs, &["true"], Duration::from_secs(60));
    result.map(|_| nanoseconds(started)).map_err(|(_, why)| why)
}

/// Each command of one container's life.
fn life(
    runtime: &Runtime,
    guest: &Path,
    rootfs: &Rootfs,
) -> Result<Vec<(&'static str, f64)>, String> {
    let program = runtime.program(guest, &["idle"]);
    let (state, bundle) = (TempDir::new(), Bundle::new(rootfs, &program));
    let mut argv = runtime.command(&state);
    argv.pop();
    let container = Container::new(argv.clone());
    let path = bundle.path().to_string_lossy().into_owned();
    let mut times = Vec::new();
    let mut step = |name: &'static str, before: &[&str], after: &[&str]| {
        let started = Instant::now();
        // To nowhere, since what is created keeps its descriptors open.
        let mut words = argv.clone();
        words.extend(before.iter().map(Into::into));
        words.push(container.id.clone().into());
        words.extend(after.iter().map(Into::into));
        let mut child = Cmd::new(words).spawn(Stdio::null(), Stdio::null());
        match child.wait() {
            Ok(status) if status.success() => times.push((name, nanoseconds(started))),
            other => return Err(format!("{before:?}: {other:?}")),
        }
        Ok(())
    };
    step("life_create", &["create", "--bundle", &path], &[])?;
    step("life_start", &["start"], &[])?;
    step("life_exec", &["exec"], &["/bin/bench-guest", "true"])?;
    step("life_exec", &["exec"], &["/bin/bench-guest", "true"])?;
    step("life_delete", &["delete", "--force"], &[])?;
    Ok(times)
}

/// Many that run `true` side by side, until the last has ended: the time of each.
fn many(runtime: &Runtime, guest: &Path, rootfs: &Rootfs) -> Result<f64, String> {
    let program = runtime.program(guest, &["true"]);
    let (state, bundle) = (TempDir::new(), Bundle::new(rootfs, &program));
    let started = Instant::now();
    let children: Vec<(Child, Option<Container>)> = (0..MANY)
        .map(|_| {
            if runtime.is_native() {
                return (program.spawn(Stdio::null(), Stdio::null()), None);
            }
            let mut argv = runtime.command(&state);
            let mut before = argv.clone();
            before.pop();
            let container = Container::new(before);
            argv.extend(["--bundle".into(), bundle.path().into(), container.id.clone().into()]);
            (program.with_argv(argv).spawn(Stdio::null(), Stdio::null()), Some(container))
        })
        .collect();
    let mut failures = 0;
    let mut left = Vec::new();
    for (mut child, container) in children {
        if !child.wait().is_ok_and(|status| status.success()) {
            failures += 1;
        }
        left.push(container);
    }
    let time = nanoseconds(started) / MANY as f64;
    drop(left);
    if failures > 0 { Err(format!("{failures} of {MANY} failed")) } else { Ok(time) }
}
