//! Who may depend on whom. Dependencies point downwards only.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::tree;

/// What each package may depend on within the workspace.
const EDGES: [(&str, &[&str]); 14] = [
    ("syscalls", &[]),
    ("sentry-sysmsg", &["syscalls"]),
    ("sentry-stub", &["sentry-sysmsg", "syscalls"]),
    ("sentry-host", &["syscalls"]),
    ("sentry-platform", &["sentry-host", "sentry-sysmsg", "syscalls"]),
    ("gofer-wire", &["syscalls"]),
    ("sentry", &["sentry-platform", "sentry-host", "gofer-wire", "syscalls"]),
    ("gofer", &["gofer-wire", "syscalls"]),
    ("runsc-cli", &["sentry", "gofer", "sentry-host", "sentry-platform", "syscalls"]),
    ("test-harness", &[]),
    ("guest-tests", &[]),
    ("house-rules", &[]),
    ("bench-harness", &["test-harness"]),
    ("bench-guest", &[]),
];

/// Crates from outside that the workspace may use directly. A new one needs a reason in its commit.
const EXTERNAL: [&str; 11] = [
    "anyhow",
    "bitflags",
    "clap",
    "libc",
    "rustix",
    "seccompiler",
    "serde",
    "serde_json",
    "smoltcp",
    "thiserror",
    "zerocopy",
];

/// Packages that may use `libc`: those that make host calls.
const MAY_USE_LIBC: [&str; 9] = [
    "sentry-host",
    "sentry-platform",
    "gofer",
    "runsc-cli",
    "test-harness",
    "guest-tests",
    "bench-harness",
    "bench-guest",
    "sentry-stub",
];

/// Packages that may use `anyhow`: those that talk to people.
const MAY_USE_ANYHOW: [&str; 3] = ["runsc-cli", "test-harness", "bench-harness"];

/// Returns the normal dependencies of each workspace package.
fn graph() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(tree::root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut graph = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let dependencies = package["dependencies"].as_array().unwrap();
        let normal = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
        let names = normal.map(|dependency| dependency["name"].as_str().unwrap().to_owned());
        graph.insert(package["name"].as_str().unwrap().to_owned(), names.collect());
    }
    graph
}

#[test]
fn dependencies_point_downwards() {
    let edges: BTreeMap<&str, &[&str]> = EDGES.into_iter().collect();
    for (package, dependencies) in graph() {
        let allowed = edges
            .get(package.as_str())
            .unwrap_or_else(|| panic!("{package} is not in the table of dependencies"));
        for dependency in &dependencies {
            let is_ours = edges.contains_key(dependency.as_str());
            assert!(
                !is_ours || allowed.contains(&dependency.as_str()),
                "{package} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn external_crates_are_listed() {
    let edges: BTreeMap<&str, &[&str]> = EDGES.into_iter().collect();
    for (package, dependencies) in graph() {
        for dependency in dependencies {
            if edges.contains_key(dependency.as_str()) {
                continue;
            }
            assert!(
                EXTERNAL.contains(&dependency.as_str()),
                "{package} uses {dependency}: not listed"
            );
            let may = match dependency.as_str() {
                "libc" => MAY_USE_LIBC.contains(&package.as_str()),
                "rustix" => ["gofer", "runsc-cli"].contains(&package.as_str()),
                "anyhow" => MAY_USE_ANYHOW.contains(&package.as_str()),
                _ => true,
            };
            assert!(may, "{package} must not use {dependency}");
        }
    }
}
