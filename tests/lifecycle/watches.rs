//! What the host does to files that a container watches with `inotify(7)`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use test_harness::Rootfs;

use crate::case::{self, Case, Runtime, compare, is_alive};

/// A container that watches a directory and all below it.
struct Watched {
    case: Case,
    dir: PathBuf,
    n_marks: AtomicU32,
    _rootfs: Rootfs,
}

impl Watched {
    fn start(runtime: Runtime) -> Watched {
        let rootfs = case::new_rootfs();
        let program = test_harness::locate::binary("watcher");
        fs::copy(program, rootfs.path().join("bin/watcher")).unwrap();
        let args = ["/bin/watcher", "/shared/dir", "/shared/log"];
        let case = Case::with(runtime, &args, |config| {
            config["root"] = serde_json::json!({"path": rootfs.path(), "readonly": true});
        });
        let dir = case.shared("dir");
        fs::create_dir(&dir).unwrap();
        case.succeed(&["run", "--detach", "c"]);
        let watched = Watched { case, dir, n_marks: AtomicU32::new(0), _rootfs: rootfs };
        watched.wait_for("watching");
        watched
    }

    fn log(&self) -> String {
        fs::read_to_string(self.case.shared("log")).unwrap_or_default()
    }

    fn wait_for(&self, line: &str) {
        self.case.wait_until(line, || self.log().lines().any(|known| known == line));
    }

    /// Does something on the host, and waits until the container has been told of it and of all before. A process of its
    /// own does it: what the tests beside this one start would for a moment hold files open that this process writes.
    #[track_caller]
    fn step(&self, script: &str) {
        let mark = format!("mark{}", self.n_marks.fetch_add(1, Ordering::Relaxed));
        self.run(&format!("{script}; >{mark}"));
        self.wait_for(&format!("close_write {mark}"));
    }

    #[track_caller]
    fn run(&self, script: &str) {
        let status = Command::new("sh").args(["-ec", script]).current_dir(&self.dir).status();
        assert!(status.unwrap().success(), "{script}");
    }

    fn end(self) -> Vec<String> {
        self.run(">end");
        self.case.wait_for_status("c", "stopped");
        self.log().lines().map(str::to_owned).collect()
    }
}

#[test]
fn changes_of_names_by_the_host_are_told() {
    compare(|runtime| {
        let watched = Watched::start(runtime);
        for script in [
            "printf text >f",
            "mv f g",
            "mv g ../outside",
            "mv ../outside h",
            "ln -s h l",
            "ln h k",
            "rm k",
            "rm l",
            "printf new >new",
            "mv new h",
            "rm h",
        ] {
            watched.step(script);
        }
        watched.end()
    });
}

#[test]
fn changes_of_files_by_the_host_are_told() {
    compare(|runtime| {
        let watched = Watched::start(runtime);
        // For itself, and as a name of the directory.
        for script in [
            "printf text >../outside; mv ../outside watched",
            "printf more >>watched",
            "chmod 600 watched",
            "truncate -s 2 watched",
            "touch -d @0 watched",
            "mv watched watched2",
            "ln watched2 ../outside",
            "rm ../outside",
            "printf other >../outside; mv ../outside watched2",
            "rm watched2",
        ] {
            watched.step(script);
        }
        watched.end()
    });
}

#[test]
fn changes_of_directories_by_the_host_are_told() {
    compare(|runtime| {
        let watched = Watched::start(runtime);
        for script in [
            "mkdir a",
            "mkdir a/b",
            "printf text >a/b/f",
            "chmod 700 a/b",
            "mv a/b/f a/g",
            "rm a/g; rmdir a/b a",
            "mkdir c",
            "mv c d",
            ">d/f",
            // Many at once, in the order in which they were made.
            "for i in $(seq 300); do printf x >d/$i; done",
        ] {
            watched.step(script);
        }
        watched.end()
    });
}

/// The container's own changes, on the same directory: everything but the host's is as on any file system.
#[test]
fn changes_by_the_container_are_told_once() {
    compare(|runtime| {
        let rootfs = Rootfs::with_programs(&["notify"]);
        fs::create_dir(rootfs.path().join("shared")).unwrap();
        let case = Case::with(runtime, &["/bin/notify"], |config| {
            config["root"] = serde_json::json!({"path": rootfs.path(), "readonly": true});
            config["process"]["env"].as_array_mut().unwrap().push("TEST_DIR=/shared".into());
        });
        let done = case.call(&["run", "c"]);
        vec![done.stdout, done.stderr]
    });
}

/// Both change the directory at the same time: each change is told once.
#[test]
fn changes_by_both_are_told_once() {
    const N_FILES: usize = 60;
    compare(|runtime| {
        let watched = Watched::start(runtime);
        let script = format!(
            "PATH=/bin; cd /shared/dir; i=0; while [ $i -lt {N_FILES} ]; do
                echo x >own$i; busybox mv own$i own$i.new; busybox rm own$i.new; i=$((i+1)); done"
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                watched.run(&format!(
                    "for i in $(seq 0 {}); do
                        printf x >host$i; mv host$i host$i.new; rm host$i.new; done",
                    N_FILES - 1
                ));
            });
            watched.case.succeed(&["exec", "c", "/bin/busybox", "sh", "-c", &script]);
        });
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in watched.end() {
            let (what, name) = line.split_once(' ').unwrap_or(("", &line));
            let what = what.replace("+cookie", "");
            told.entry(name.trim_end_matches(".new").to_owned()).or_default().push(what);
        }
        let told = told.into_iter().map(|(name, told)| format!("{name}: {}", told.join(" ")));
        let told: Vec<String> = told.collect();
        for name in ["own", "host"] {
            let all = format!("{name}0: create modify close_write moved_from moved_to delete");
            assert!(told.contains(&all), "{told:?}");
        }
        told
    });
}

/// The descriptor of the events outlives the gofer: what is left is told, and nothing hangs.
#[test]
fn the_end_of_the_gofer_leaves_watches_alone() {
    compare(|runtime| {
        let watched = Watched::start(runtime);
        watched.step("printf text >f");
        if let Runtime::Runsc(_) = runtime {
            let state = fs::read(watched.case.state.join("c").join("state.json")).unwrap();
            let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
            let gofer = state["gofer"]["pid"].to_string();
            watched.case.kill(&gofer, "KILL");
            watched.case.wait_until("the gofer ends", || !is_alive(&gofer));
        }
        watched.step("printf text >g");
        watched.end()
    });
}
