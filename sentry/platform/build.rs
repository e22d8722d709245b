//! Builds the stub: two crates without dependencies for a target without an operating system. It
//! calls the compiler itself, because a nested cargo would share locks and flags with this one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-none";

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let sentry = manifest.parent().expect("the package lies in `sentry`");
    for input in ["sysmsg/src", "sysmsg/README.md", "stub/src", "stub/README.md", "stub/stub.ld"] {
        println!("cargo::rerun-if-changed={}", sentry.join(input).display());
    }
    let sysmsg = out.join("libsentry_sysmsg.rlib");
    rustc(&sentry.join("sysmsg/src/lib.rs"), "sentry_sysmsg", "lib", &sysmsg, &[]);
    let externs = format!("--extern=sentry_sysmsg={}", sysmsg.display());
    let script = format!("-Clink-arg=-T{}", sentry.join("stub/stub.ld").display());
    let link = [
        &externs,
        &script,
        "-Clink-arg=--no-pie",
        "-Clink-arg=--build-id=none",
        "-Clink-arg=-zmax-page-size=4096",
    ];
    rustc(&sentry.join("stub/src/main.rs"), "sentry_stub", "bin", &out.join("stub.elf"), &link);
}

fn rustc(source: &Path, name: &str, kind: &str, output: &Path, extra: &[&str]) {
    let mut command = Command::new(env::var_os("RUSTC").expect("cargo sets it"));
    command
        .args([
            "--edition=2024",
            "--target",
            TARGET,
            "--crate-name",
            name,
            "--crate-type",
            kind,
            "--cap-lints=allow",
        ])
        .args([
            "-Copt-level=2",
            "-Cpanic=abort",
            "-Ccodegen-units=1",
            "-Crelocation-model=pic",
            "-Cstrip=debuginfo",
        ])
        .args(["-Coverflow-checks=off", "-Cdebuginfo=0"])
        .args(extra)
        .arg("-o")
        .arg(output)
        .arg(source);
    let status = command.status().expect("rustc runs");
    assert!(status.success(), "building {name} for {TARGET} failed");
}
