//! Translation of whole files.

mod every_field;

use std::path::Path;

use clap::Parser as _;
use sentry::config::{MountKind, OverlayMedium};

use super::{Bundle, translate};
use crate::cli::Cli;
use crate::commands;

/// A file and the command line before the subcommand.
struct Request {
    text: String,
    cli: Cli,
}

impl Request {
    /// Returns what `runsc spec` writes after `change`, with `/` for the root file system.
    fn new(flags: &[&str], change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let cli = Cli::try_parse_from([&["runsc"], flags, &["list"]].concat()).unwrap();
        let mut value: serde_json::Value =
            serde_json::from_str(&commands::spec::text(&[])).unwrap();
        value["root"]["path"] = "/".into();
        change(&mut value);
        Self { text: value.to_string(), cli }
    }

    fn translate(&self) -> anyhow::Result<Bundle> {
        translate(self.text.as_bytes(), Path::new("/"), "c", &self.cli.global)
    }
}

fn error_of(change: impl FnOnce(&mut serde_json::Value)) -> String {
    format!("{:#}", Request::new(&[], change).translate().unwrap_err())
}

#[test]
fn priorities_that_cannot_be_honoured_are_refused() {
    let scheduler =
        |value: serde_json::Value| error_of(|spec| spec["process"]["scheduler"] = value);
    assert_eq!(
        scheduler(serde_json::json!({ "policy": "SCHED_DEADLINE" })),
        "process.scheduler.policy: SCHED_DEADLINE is not supported"
    );
    assert_eq!(
        scheduler(serde_json::json!({ "policy": "SCHED_FIFO" })),
        "process.scheduler.priority: 0 is not between 1 and 99 as SCHED_FIFO has it"
    );
    assert_eq!(
        error_of(|spec| {
            spec["process"]["ioPriority"] =
                serde_json::json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 });
        }),
        "process.ioPriority.priority: 8 is not between 0 and 7"
    );
    assert_eq!(
        error_of(|spec| spec["linux"]["personality"] = serde_json::json!({ "domain": "LINUX32" })),
        "linux.personality.domain: \"LINUX32\" is not supported"
    );
}

#[test]
fn default_spec_translates_without_unknown_fields() {
    let bundle = Request::new(&["--ignore-cgroups"], |_| ()).translate().unwrap();
    assert_eq!(bundle.container.process.args, [b"sh"]);
    assert_eq!(bundle.container.root.overlay, OverlayMedium::Memory);
    assert_eq!(bundle.warnings, [""; 0]);
    assert!(
        bundle.container.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Devtmpfs(_)))
    );
}

#[test]
fn errors_name_the_field() {
    assert_eq!(
        error_of(|spec| spec["process"]["cwd"] = 5.into()),
        "process.cwd: invalid type: integer `5`, expected a string"
    );
    assert_eq!(
        error_of(|spec| spec["process"]["rlimits"][0]["type"] = "X".into()),
        "process.rlimits[0].type: unknown limit X"
    );
    assert_eq!(
        error_of(|spec| spec["mounts"][1]["type"] = "nfs".into()),
        "mounts[1]: type \"nfs\" is not supported"
    );
    assert_eq!(
        error_of(|spec| spec["ociVersion"] = "2.0".into()),
        "ociVersion: 2.0 is not supported: 1.x is"
    );
    assert_eq!(
        error_of(|spec| spec["process"]["args"][0] = "a\0b".into()),
        "process.args: contains a NUL byte"
    );
}

#[test]
fn unknown_fields_are_warned_about_by_name() {
    let request = Request::new(&[], |spec| {
        spec["process"]["selinuxLabel"] = "x".into();
        spec["linux"]["intelRdt"] = serde_json::json!({ "l3CacheSchema": "x" });
    });
    let warnings = request.translate().unwrap().warnings;
    assert!(
        warnings.contains(&"process.selinuxLabel: not supported, ignored".to_owned()),
        "{warnings:?}"
    );
    assert!(
        warnings.contains(&"linux.intelRdt: not supported, ignored".to_owned()),
        "{warnings:?}"
    );
}

#[test]
fn unknown_capabilities_are_warned_about() {
    let request = Request::new(&[], |spec| {
        spec["process"]["capabilities"]["bounding"][0] = "CAP_X".into();
    });
    let warning = r#"process.capabilities.bounding: unknown capabilities, ignored: ["CAP_X"]"#;
    assert!(request.translate().unwrap().warnings.contains(&warning.to_owned()));
}

#[test]
fn values_that_linux_would_refuse_are_refused() {
    for (pointer, value, field) in [
        ("/process/args", serde_json::json!([]), "process.args"),
        ("/process/env", serde_json::json!(["A"]), "process.env"),
        ("/process/env", serde_json::json!(["=x"]), "process.env"),
        ("/process/cwd", "tmp".into(), "process.cwd"),
        ("/process/user/uid", u32::MAX.into(), "process.user.uid"),
        ("/process/user/additionalGids", serde_json::json!([1, u32::MAX]), "additionalGids"),
        ("/process/oomScoreAdj", 1001.into(), "process.oomScoreAdj"),
        (
            "/process/rlimits",
            serde_json::json!([{ "type": "RLIMIT_CPU", "soft": 2, "hard": 1 }]),
            "process.rlimits[0].soft",
        ),
        (
            "/process/rlimits",
            serde_json::json!([
                { "type": "RLIMIT_CPU", "soft": 1, "hard": 1 },
                { "type": "RLIMIT_CPU", "soft": 1, "hard": 1 }
            ]),
            "process.rlimits[1].type",
        ),
        ("/hostname", "h".repeat(65).into(), "hostname"),
        ("/domainname", "d".repeat(65).into(), "domainname"),
        ("/mounts/1/destination", "/..".into(), "mounts[1]"),
        ("/mounts/1/options", serde_json::json!(["size=x"]), "mounts[1].options"),
        ("/mounts/1/options", serde_json::json!(["mode=9"]), "mounts[1].options"),
        (
            "/linux/namespaces",
            serde_json::json!([{ "type": "pid" }, { "type": "pid" }]),
            "linux.namespaces[1].type",
        ),
        ("/linux/namespaces", serde_json::json!([{ "type": "x" }]), "linux.namespaces[0].type"),
        ("/linux/rootfsPropagation", "x".into(), "linux.rootfsPropagation"),
        ("/linux/resources", serde_json::json!({ "memory": { "limit": -2 } }), "memory.limit"),
        (
            "/linux/devices",
            serde_json::json!([{ "path": "/dev/x", "type": "z" }]),
            "linux.devices[0].type",
        ),
    ] {
        let error = error_of(|spec| {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[name] = value.clone();
        });
        assert!(error.contains(field) && error.lines().count() == 1, "{pointer} {value}: {error}");
    }
}

#[test]
fn bind_mounts_get_connections_and_overlays() {
    let bind = serde_json::json!({ "destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["rbind", "nosuid"] });
    let with_bind = |flags: &[&str]| {
        Request::new(flags, |spec| spec["mounts"].as_array_mut().unwrap().push(bind.clone()))
            .translate()
            .unwrap()
    };
    let bundle = with_bind(&[]);
    let last = bundle.container.mounts.last().unwrap();
    assert!(matches!(
        last.kind,
        MountKind::Gofer { connection: 1, directory: true, overlay: OverlayMedium::None }
    ));
    assert!(last.nosuid && !bundle.gofer_mounts[1].readonly);

    let bundle = with_bind(&["--overlay2=all:self"]);
    let last = bundle.container.mounts.last().unwrap();
    assert_eq!(bundle.container.root.overlay, OverlayMedium::File { connection: 1 });
    let own = OverlayMedium::File { connection: 3 };
    assert!(matches!(last.kind, MountKind::Gofer { connection: 2, overlay, .. } if overlay == own));
    let readonly: Vec<_> =
        bundle.gofer_mounts.iter().map(|mount| (mount.readonly, mount.tmpfiles)).collect();
    assert_eq!(readonly, [(true, false), (true, true), (true, false), (true, true)]);
}
