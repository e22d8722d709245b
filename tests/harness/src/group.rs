//! A control group around the programs under test: who belongs to a run is known whatever it does to
//! its parents, sessions and names.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cmd::Cmd;
use crate::temp_dir::unique;

/// A control group; its processes are killed and it is removed when dropped.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
}

/// A process of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Process id on the host.
    pub pid: u32,
    /// Its `comm`; empty if it has just ended.
    pub name: String,
}

impl Group {
    /// Makes a group.
    ///
    /// # Panics
    ///
    /// If this user may not.
    #[must_use]
    #[track_caller]
    pub fn new() -> Group {
        Group::of("pids")
    }

    /// Makes a group with the given controller.
    ///
    /// # Panics
    ///
    /// If this user may not.
    #[must_use]
    #[track_caller]
    pub fn of(controller: &str) -> Group {
        let root = Path::new("/sys/fs/cgroup");
        let root =
            if root.join("cgroup.procs").exists() { root.into() } else { root.join(controller) };
        let dir = root.join(unique("runsc-test"));
        std::fs::create_dir(&dir).expect("cannot make a control group: are the tests run by root?");
        Group { dir }
    }

    /// Returns the group's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Makes a command start inside the group.
    #[must_use]
    pub fn enclose(&self, program: &Cmd) -> Cmd {
        let script = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", self.dir.display());
        let mut argv = ["sh", "-c", &script, "sh"].map(Into::into).to_vec();
        argv.extend_from_slice(program.argv());
        program.with_argv(argv)
    }

    /// Returns the processes that are left, once those that are just ending have had their time on a loaded machine.
    #[must_use]
    pub fn left(&self) -> Vec<Member> {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            let members = self.members();
            if members.is_empty() || Instant::now() > limit {
                return members;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the processes of the group and of the groups below it.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let mut members = Vec::new();
        let mut dirs = vec![self.dir.clone()];
        while let Some(dir) = dirs.pop() {
            let pids = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            members.extend(pids.lines().filter_map(|pid| pid.parse().ok()).map(Member::of));
            dirs.extend(groups_in(&dir));
        }
        members
    }

    /// Returns the groups that somebody has made below this one.
    #[must_use]
    pub fn below(&self) -> Vec<PathBuf> {
        groups_in(&self.dir)
    }
}

impl Default for Group {
    fn default() -> Group {
        Group::new()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for member in self.members() {
            member.kill();
        }
        let _ = self.left();
        for dir in self.below() {
            let _ = std::fs::remove_dir(dir);
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}

impl Member {
    fn of(pid: u32) -> Member {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Member { pid, name: name.trim().to_owned() }
    }

    /// Sends SIGKILL. By the program, since this package has no `unsafe`.
    pub fn kill(&self) {
        let _ = Cmd::new(["/bin/sh", "-c", &format!("kill -KILL {} 2>/dev/null", self.pid)]).run();
    }
}

fn groups_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
