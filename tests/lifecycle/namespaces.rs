//! Namespaces of the container's process as the host sees it, and what the container sees of them.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use test_harness::TempDir;

use crate::case::{Case, compare};

/// A user without privileges.
const NOBODY: u32 = 65_534;

/// Maps the ids from 0 on.
fn map_ids(config: &mut Value) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    for (field, first) in [("uidMappings", 200_000), ("gidMappings", 300_000)] {
        config["linux"][field] = json!([{"containerID": 0, "hostID": first, "size": 1000}]);
    }
}

/// A process that holds namespaces of its own.
struct Holder(Child);

impl Holder {
    fn new(flags: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        // The host keeps its name where the holder has none of its own.
        let name = if flags.contains(&"--uts") { "hostname held" } else { "true" };
        command.args(flags).args(["sh", "-c", &format!("{name}; echo; exec sleep 1000")]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        // Its line says that the namespaces stand.
        let mut line = [0];
        let stdout = OwnedFd::from(child.stdout.take().unwrap());
        std::io::Read::read_exact(&mut File::from(stdout), &mut line).unwrap();
        Self(child)
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn link(path: &str) -> String {
    fs::read_link(path).unwrap().to_string_lossy().into_owned()
}

#[test]
fn a_user_namespace_has_the_mapped_ids_only() {
    compare(|runtime| {
        let script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g; \
             busybox stat -c '%u:%g' /shared/root /shared/own; touch /shared/new; \
             busybox chown 5:6 /shared/own; echo $?; busybox chown 5000:0 /shared/own; echo $?; \
             busybox chown 0:0 /shared/root; echo $?; touch /shared/root; echo $?; true";
        let case = Case::with(runtime, &["sh", "-c", script], map_ids);
        // What the container's root is on the host has to get there.
        for dir in [case.dir.path(), case.bundle.path()] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
        }
        fs::write(case.shared("root"), "").unwrap();
        fs::write(case.shared("own"), "").unwrap();
        std::os::unix::fs::chown(case.shared("own"), Some(200_003), Some(300_004)).unwrap();
        let done = case.call(&["run", "c"]);
        let mut seen =
            vec![format!("{} {}", done.code, done.stdout), done.stderr.lines().count().to_string()];
        for name in ["new", "own", "root"] {
            let metadata = fs::metadata(case.shared(name)).unwrap();
            seen.push(format!("{name} {}:{}", metadata.uid(), metadata.gid()));
        }
        seen
    });
}

#[test]
fn the_process_on_the_host_is_in_the_namespaces_that_are_asked_for() {
    let own = |name: &str| link(&format!("/proc/self/ns/{name}"));
    compare(|runtime| {
        let of_container = |change: &dyn Fn(&mut Value)| {
            let case = Case::with(runtime, &["sleep", "1000"], change);
            fs::set_permissions(case.bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
            case.succeed(&["run", "--detach", "c"]);
            let pid = case.state("c")["pid"].to_string();
            case.succeed(&["exec", "--detach", "--pid-file", "exec", "c", "sleep", "1000"]);
            let exec = fs::read_to_string(case.bundle.path().join("exec")).unwrap();
            let kinds = ["cgroup", "ipc", "mnt", "net", "uts"];
            let links = kinds.map(|kind| (kind, link(&format!("/proc/{pid}/ns/{kind}"))));
            for (kind, name) in &links {
                assert_eq!(link(&format!("/proc/{exec}/ns/{kind}")), *name, "{runtime:?}");
            }
            links
        };
        // Those of its own.
        let links = of_container(&|config| {
            for kind in ["cgroup", "network"] {
                config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": kind}));
            }
            let list = config["linux"]["namespaces"].as_array_mut().unwrap();
            let mut seen = Vec::new();
            list.retain(|entry| {
                let kind = entry["type"].clone();
                !seen.contains(&kind) && {
                    seen.push(kind);
                    true
                }
            });
        });
        let mut seen = vec![format!("{:?}", links.map(|(kind, name)| (kind, name != own(kind))))];
        // Those that exist.
        let holder = Holder::new(&["--net", "--ipc", "--uts"]);
        let links = of_container(&|config| {
            config["hostname"] = "".into();
            config["linux"]["namespaces"] = json!([
                {"type": "network", "path": holder.path("net")},
                {"type": "ipc", "path": holder.path("ipc")},
                {"type": "uts", "path": holder.path("uts")},
                {"type": "mount"},
                {"type": "pid"},
            ]);
        });
        for (kind, name) in links.iter().filter(|(kind, _)| ["net", "ipc", "uts"].contains(kind)) {
            seen.push(format!("{kind} {}", *name == link(&holder.path(kind))));
        }
        // The caller's.
        let links = of_container(&|config| {
            config["hostname"] = "".into();
            config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}]);
        });
        seen.push(format!("{:?}", links.map(|(kind, name)| (kind, name == own(kind)))));
        seen
    });
}

#[test]
fn a_container_has_the_host_name_of_its_namespace() {
    compare(|runtime| {
        let holder = Holder::new(&["--uts"]);
        let case = Case::with(runtime, &["busybox", "hostname"], |config| {
            config["hostname"] = "".into();
            for entry in config["linux"]["namespaces"].as_array_mut().unwrap() {
                if entry["type"] == "uts" {
                    entry["path"] = holder.path("uts").into();
                }
            }
        });
        vec![case.call(&["run", "c"]).stdout]
    });
}

#[test]
fn a_pid_namespace_that_ends_takes_the_container_along() {
    compare(|runtime| {
        let holder = Holder::new(&["--pid", "--fork", "--kill-child"]);
        let path = format!("/proc/{}/ns/pid_for_children", holder.0.id());
        let case = Case::with(runtime, &["sleep", "1000"], |config| {
            for entry in config["linux"]["namespaces"].as_array_mut().unwrap() {
                if entry["type"] == "pid" {
                    entry["path"] = path.clone().into();
                }
            }
        });
        case.succeed(&["run", "--detach", "c"]);
        let pid = case.state("c")["pid"].to_string();
        let is_in = link(&format!("/proc/{pid}/ns/pid")) == link(&path);
        let code = case.call(&["exec", "c", "sh", "-c", "exit 3"]).code;
        drop(holder);
        case.wait_for_status("c", "stopped");
        case.succeed(&["delete", "c"]);
        vec![format!("{is_in} {code}")]
    });
}

#[test]
fn mappings_and_a_user_namespace_need_each_other() {
    compare(|runtime| {
        let case = Case::with(runtime, &["true"], |config| {
            let list = config["linux"]["namespaces"].as_array_mut().unwrap();
            list.push(json!({"type": "user"}));
        });
        let words = "User namespaces enabled, but no uid mappings found.";
        let mut seen = vec![case.fail(&["create", "c"], words)];
        let case = Case::with(runtime, &["cat", "/proc/self/uid_map"], |config| {
            map_ids(config);
            let list = config["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|entry| entry["type"] != "user");
        });
        seen.push(case.call(&["run", "c"]).stdout);
        seen
    });
}

#[test]
fn a_container_of_other_ids_ends_with_its_process() {
    compare(|runtime| {
        let script = "while :; do echo up >/shared/up; sleep 0.02; done";
        let case = Case::with(runtime, &["sh", "-c", script], map_ids);
        for dir in [case.dir.path(), case.bundle.path()] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
        }
        case.succeed(&["run", "--detach", "c"]);
        case.line_of("up");
        let code = case.call(&["exec", "c", "sh", "-c", "exit 3"]).code;
        case.kill(&case.state("c")["pid"].to_string(), "KILL");
        case.wait_for_status("c", "stopped");
        case.wait_until("the end of the writer", || {
            let _ = fs::remove_file(case.shared("up"));
            std::thread::sleep(std::time::Duration::from_millis(100));
            !case.shared("up").exists()
        });
        case.succeed(&["delete", "c"]);
        vec![code.to_string()]
    });
}

#[test]
fn an_ordinary_user_can_be_root_of_a_container() {
    // Once with an own user namespace only, and once as root of another one, where the host's files
    // belong to ids that it has.
    for around in [&["setpriv"][..], &["setpriv", "unshare"]] {
        compare(|runtime| {
            let script = "id -u; cat /proc/self/uid_map; busybox stat -c %u:%g /shared; \
                 touch /shared/new; busybox chown 1:1 /shared/new; echo $?";
            let is_nested = around.len() > 1;
            let case = Case::with(runtime, &["sh", "-c", script], |config| {
                config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
                let list = config["linux"]["namespaces"].as_array_mut().unwrap();
                list.push(json!({"type": "user"}));
                for field in ["uidMappings", "gidMappings"] {
                    let host = if is_nested { 0 } else { NOBODY };
                    config["linux"][field] = json!([{"containerID": 0, "hostID": host, "size": 1}]);
                }
                config["process"].as_object_mut().unwrap().remove("rlimits");
                // What runc's own specification for such users does not have either.
                for mount in config["mounts"].as_array_mut().unwrap() {
                    if let Some(options) = mount["options"].as_array_mut() {
                        options.retain(|option| option != "gid=5");
                    }
                }
            });
            // The build directory may be hidden from others.
            let place = TempDir::new();
            let own = test_harness::locate::runsc();
            fs::copy(&own, place.join("runsc")).unwrap();
            for dir in [case.dir.path(), case.bundle.path(), case.state.path()] {
                std::os::unix::fs::chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            let argv = case.command(&["--rootless=true", "run", "c"]);
            let ids = format!("--reuid={NOBODY}");
            let mut words = vec!["setpriv".into(), ids, format!("--regid={NOBODY}")];
            words.push("--clear-groups".into());
            if is_nested {
                words.extend(["unshare", "-Urm"].map(str::to_owned));
            }
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).arg(argv.get_program());
            for word in argv.get_args() {
                command.arg(if word == own { place.join("runsc").into() } else { word.to_owned() });
            }
            let output = command.current_dir(case.bundle.path()).output().unwrap();
            let new = fs::metadata(case.shared("new")).map(|it| (it.uid(), it.gid()));
            let stdout = String::from_utf8_lossy(&output.stdout);
            vec![format!("{:?} {stdout} {new:?}", output.status.code())]
        });
    }
}
