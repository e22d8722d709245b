//! Finds what the tests run: the built `runsc`, the guest programs, the cache of the set-up command.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// Builds what the tests run, once per process.
static BUILD: Once = Once::new();

/// Returns the workspace's directory.
#[must_use]
pub fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).to_path_buf()
}

/// Returns the directory in which cargo puts the binaries of the running test's profile.
fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors().nth(2).unwrap_or(Path::new(".")).to_path_buf()
}

/// Returns the `runsc` to test.
#[must_use]
pub fn runsc() -> PathBuf {
    match std::env::var_os("RUNSC") {
        Some(path) => path.into(),
        None => binary("runsc"),
    }
}

/// Returns a program of the workspace, for instance a guest program.
///
/// # Panics
///
/// If it does not exist.
#[must_use]
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    BUILD.call_once(build);
    let path = target_dir().join(name);
    assert!(path.exists(), "{} does not exist: run `tests/run`", path.display());
    path
}

/// Builds the packages whose binaries the tests run, in the profile of the running test: cargo does not
/// build another package's binaries for an integration test by itself.
fn build() {
    if std::env::var_os("TEST_NO_BUILD").is_some() {
        return;
    }
    let dir = target_dir();
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args([
            "build",
            "--quiet",
            "--profile",
            profile,
            "-p",
            "guest-tests",
            "-p",
            "bench-guest",
            "-p",
            "runsc-cli",
        ])
        .current_dir(workspace());
    // target/<triple>/<profile>: cargo adds the triple by itself.
    if let Some(target) = dir.ancestors().nth(2) {
        command.env("CARGO_TARGET_DIR", target);
    }
    let built = command.status().is_ok_and(|status| status.success());
    assert!(built, "cannot build what the tests run: {command:?}");
}

/// Returns the directory in which the set-up command keeps what it downloads.
#[must_use]
pub fn cache() -> PathBuf {
    if let Some(dir) = std::env::var_os("XDG_CACHE_HOME") {
        return Path::new(&dir).join("runsc-rs");
    }
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
    Path::new(&home).join(".cache/runsc-rs")
}

/// Returns the Debian root file system that the set-up command made.
///
/// # Panics
///
/// If it was not made.
#[must_use]
#[track_caller]
pub fn debian() -> PathBuf {
    rootfs("TEST_DEBIAN_ROOTFS", "debian")
}

/// Returns the Debian root file system with servers and tools that the set-up command made.
///
/// # Panics
///
/// If it was not made.
#[must_use]
#[track_caller]
pub fn services() -> PathBuf {
    rootfs("TEST_SERVICES_ROOTFS", "debian-apps")
}

/// Returns the root file system that a variable names, else the one in the cache.
#[track_caller]
fn rootfs(variable: &str, name: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| cache().join(name), PathBuf::from);
    assert!(
        path.join("bin/sh").exists(),
        "{} is no root file system: run `tests/run`",
        path.display()
    );
    path
}
