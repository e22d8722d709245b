//! What is mounted on the host below a bind mount of a container's, before it is there and after.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use test_harness::TempDir;

use crate::case::{Case, Runtime, compare};

/// A directory of the host that is a shared mount, with three directories: `before`, on which a `tmpfs`
/// is mounted, `after`, and `source` with a file.
struct Volume(TempDir);

impl Volume {
    fn new() -> Volume {
        let dir = TempDir::new();
        for name in ["before", "after", "source"] {
            std::fs::create_dir(dir.join(name)).unwrap();
        }
        std::fs::write(dir.join("source/file"), "").unwrap();
        let volume = Volume(dir);
        let path = volume.0.path().to_str().unwrap();
        mount(&["--bind", path, path]);
        mount(&["--make-shared", path]);
        mount(&["-t", "tmpfs", "tmpfs", volume.path("before").to_str().unwrap()]);
        volume
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn mount_after(&self) {
        let (source, after) = (self.path("source"), self.path("after"));
        mount(&["--bind", source.to_str().unwrap(), after.to_str().unwrap()]);
    }

    fn unmount_after(&self) {
        // A sandbox that has seen it keeps it from being unmounted at once.
        let after = self.path("after");
        let unmounted = Command::new("umount").arg("--lazy").arg(after).status().unwrap();
        assert!(unmounted.success());
    }

    /// Makes a case whose container has the volume as `/volume`, with these options.
    fn case(&self, runtime: Runtime, options: &[&str]) -> Case {
        Case::with(runtime, &["sleep", "1000"], |config: &mut Value| {
            config["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/volume", "type": "bind", "source": self.0.path(),
                "options": (["rbind"].iter().chain(options).collect::<Vec<_>>()),
            }));
            // Else runc makes the container's own mount private first.
            config["linux"]["rootfsPropagation"] = "rslave".into();
        })
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--recursive").arg("--lazy").arg(self.0.path()).status();
    }
}

#[track_caller]
fn mount(args: &[&str]) {
    assert!(Command::new("mount").args(args).status().unwrap().success(), "{args:?}");
}

#[test]
fn later_mounts_of_the_host_come_to_followers_only() {
    compare(|runtime| {
        let mut seen = Vec::new();
        for propagation in ["rslave", "rprivate"] {
            let volume = Volume::new();
            let case = volume.case(runtime, &[propagation]);
            case.succeed(&["create", "c"]);
            case.succeed(&["start", "c"]);
            let list = || case.succeed(&["exec", "c", "ls", "/volume/after"]);
            seen.push(list());
            volume.mount_after();
            seen.push(format!("{propagation}: {}", list()));
            volume.unmount_after();
            seen.push(list());
        }
        seen
    });
}

#[test]
fn a_read_only_mount_covers_what_is_below_it_where_that_is_asked_for() {
    compare(|runtime| {
        let volume = Volume::new();
        let mut seen = Vec::new();
        for option in ["ro", "rro", "rw"] {
            let case = volume.case(runtime, &[option, "rprivate"]);
            case.succeed(&["create", "c"]);
            case.succeed(&["start", "c"]);
            for command in
                ["touch /volume/x", "touch /volume/source/file", "touch /volume/before/x"]
            {
                let command: Vec<_> = ["exec", "c"].into_iter().chain(command.split(' ')).collect();
                seen.push(format!("{option} {}", case.fail(&command, "Read-only file system")));
            }
        }
        seen
    });
}

/// Podman gives a privileged container of an ordinary user the host's devices so.
#[test]
fn a_file_may_be_a_follower() {
    compare(|runtime| {
        let volume = Volume::new();
        std::fs::write(volume.path("source/file"), "text\n").unwrap();
        let case = Case::with(runtime, &["cat", "/file"], |config: &mut Value| {
            config["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/file", "type": "bind", "source": volume.path("source/file"),
                "options": ["bind", "rslave"],
            }));
        });
        vec![case.succeed(&["run", "c"])]
    });
}
