//! Access control lists of the host's files: those of the root file system, and of what is shared with the host.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use test_harness::Rootfs;

use crate::case::{self, Case, Runtime, compare};

/// Sets a list of the host: what the owner, user 1000, the group, the mask and the others may.
#[track_caller]
fn set(path: &Path, kind: &str, may: [u16; 5]) {
    let script = "import os, struct, sys
path, kind, may = sys.argv[1], sys.argv[2], map(int, sys.argv[3:])
entries = zip((1, 2, 4, 16, 32), may, (-1, 1000, -1, -1, -1))
value = struct.pack('<i', 2) + b''.join(struct.pack('<HHi', *entry) for entry in entries)
os.setxattr(path, 'system.posix_acl_' + kind, value)";
    let may = may.map(|may| may.to_string());
    let set = Command::new("python3").args(["-c", script]).arg(path).arg(kind).args(may).status();
    assert!(set.unwrap().success());
}

#[test]
fn lists_of_the_root_file_system_count() {
    compare(|runtime| {
        let rootfs = case::new_rootfs();
        for (name, may) in [("yes", [6, 4, 0, 4, 0]), ("no", [6, 0, 4, 4, 4])] {
            let path = rootfs.path().join(name);
            fs::write(&path, format!("{name}\n")).unwrap();
            set(&path, "access", may);
        }
        let dir = rootfs.path().join("dir");
        fs::create_dir(&dir).unwrap();
        set(&dir, "access", [7, 7, 5, 7, 0]);
        set(&dir, "default", [7, 7, 5, 7, 0]);
        let script = "cat /yes /no; echo x >/yes; umask 077; echo new >/dir/new; mkdir /dir/dir;
            ls -ld /dir/* | cut -c 1-10; rm /dir/new && ls /dir";
        let case = Case::with(runtime, &["sh", "-c", script], |config| {
            config["root"] = json!({"path": rootfs.path(), "readonly": false});
            config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            config["process"]["capabilities"] = json!({});
        });
        let done = case.call(&["run", "c"]);
        vec![done.stdout, done.stderr]
    });
}

#[test]
fn lists_of_a_shared_directory_are_the_hosts() {
    compare(|runtime| {
        let rootfs = Rootfs::with_programs(&["acl"]);
        fs::create_dir(rootfs.path().join("shared")).unwrap();
        let case = Case::with(runtime, &["/bin/acl"], |config| {
            config["root"] = json!({"path": rootfs.path(), "readonly": true});
            config["process"]["env"].as_array_mut().unwrap().push("TEST_DIR=/shared".into());
        });
        let done = case.call(&["run", "c"]);
        vec![done.stdout, done.stderr]
    });
}

/// What the sandbox knows of files is believed for a while there.
#[test]
fn lists_of_a_root_without_an_overlay_are_the_hosts() {
    compare(|runtime| {
        let rootfs = Rootfs::with_programs(&["acl"]);
        fs::create_dir(rootfs.path().join("place")).unwrap();
        let case = Case::with(runtime, &["/bin/acl"], |config| {
            config["root"] = json!({"path": rootfs.path(), "readonly": false});
            config["process"]["env"].as_array_mut().unwrap().push("TEST_DIR=/place".into());
        });
        let done = match runtime {
            Runtime::Runc => case.call(&["run", "c"]),
            Runtime::Runsc(_) => case.call(&["--overlay2=none", "run", "c"]),
        };
        vec![done.stdout, done.stderr]
    });
}

#[test]
fn changes_by_the_host_are_seen() {
    compare(|runtime| {
        let case = Case::new(runtime, &["sleep", "1000"]);
        let file = case.shared("file");
        fs::write(&file, "text\n").unwrap();
        set(&file, "access", [6, 0, 0, 4, 4]);
        case.succeed(&["run", "--detach", "c"]);
        let mut seen = Vec::new();
        for may in [0, 4, 0] {
            set(&file, "access", [6, may, 0, 4, 4]);
            let done = case.call(&["exec", "--user", "1000:1000", "c", "cat", "/shared/file"]);
            seen.extend([done.code.to_string(), done.stdout, done.stderr]);
        }
        seen
    });
}
