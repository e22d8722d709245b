//! What is mounted read-only, and yet filled before the program runs.

use std::fs;

use serde_json::json;

use crate::case::{self, Case, compare};

/// Podman 5 makes the root and `/dev` of its pause container so.
#[test]
fn what_is_read_only_is_filled_first() {
    compare(|runtime| {
        let rootfs = case::new_rootfs();
        let script = "cat /new/place/file /dev/file; test -c /dev/null && echo null
            touch /dev/x /x /new/x 2>&1";
        let case = Case::with(runtime, &["sh", "-c", script], |config| {
            config["root"] = json!({"path": rootfs.path(), "readonly": true});
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/dev");
            mounts.insert(
                0,
                json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "strictatime", "mode=755", "size=65536k", "ro"]}),
            );
        });
        // The directory is known only now.
        fs::write(case.dir.join("file"), "file\n").unwrap();
        let bind = |source, destination| json!({"destination": destination, "type": "bind", "source": source, "options": ["bind", "ro"]});
        let mut config: serde_json::Value =
            serde_json::from_slice(&fs::read(case.bundle.path().join("config.json")).unwrap())
                .unwrap();
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(bind(case.dir.path().to_owned(), "/new/place"));
        mounts.push(bind(case.dir.join("file"), "/dev/file"));
        fs::write(case.bundle.path().join("config.json"), config.to_string()).unwrap();
        let done = case.call(&["run", "c"]);
        assert_eq!(done.stderr, "", "{runtime:?}");
        vec![done.stdout]
    });
}
