//! SIGKILL for any process of ours at any time: after `runsc delete --force` nothing of the container is left.
//!
//! Each round starts a container in one of several ways, with or without control groups and a network of its own,
//! kills one or more processes of it at a moment that its seed chooses, deletes it, and looks for processes,
//! mounts, control groups, files and namespaces. The campaigns of the two platforms run at the same time on one
//! state directory, so they also prove that containers are left alone by what happens to others.
//! `CRASH_ROUNDS=1000` runs that many rounds on each platform, `CRASH_SEEDS=100..200` other ones.

#[cfg(test)]
mod netns;

#[cfg(test)]
mod crash {
    use std::ffi::OsString;
    use std::ops::Range;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Stdio};
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    use serde_json::Value;
    use test_harness::{
        Bundle, Cmd, End, Group, Platform, Rootfs, TempDir, cmd, mode, temp_dir::unique,
    };

    use crate::netns::Netns;

    /// How long a campaign goes on starting rounds.
    const CAMPAIGN: Duration = Duration::from_secs(12);

    /// How long everything that has been killed may take to be gone, on a loaded machine.
    const DEADLINE: Duration = Duration::from_secs(60);

    /// The state directory that all campaigns share.
    static STATE: OnceLock<TempDir> = OnceLock::new();

    /// A small generator of numbers: the same on every run.
    struct Random(u64);

    impl Random {
        fn new(seed: u64) -> Random {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            for _ in 0..8 {
                random.below(2);
            }
            random
        }

        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % limit
        }

        /// Returns one of the given values.
        fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
            &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
        }

        /// Sleeps for a time below `limit`, more often a short one.
        fn pause(&mut self, limit: Duration) {
            let most = self.below(u64::try_from(limit.as_micros()).unwrap()) + 1;
            std::thread::sleep(Duration::from_micros(self.below(most)));
        }
    }

    /// How a round's container is started.
    #[derive(Debug, Clone, Copy)]
    enum Start {
        Do,
        Run,
        Create,
        Exec,
        Pod,
    }

    struct Round<'a> {
        seed: u64,
        random: Random,
        group: &'a Group,
        runsc: Vec<OsString>,
        /// Where `--overlay2=root:dir=` keeps files, in the rounds that have it.
        overlay: TempDir,
        log: TempDir,
        /// What the sandbox takes over, in the rounds that have it.
        netns: Option<Netns>,
        has_cgroups: bool,
    }

    impl Round<'_> {
        /// Starts a command of runsc inside the group. Standard error goes to a file.
        fn spawn(&self, name: &str, args: &[OsString]) -> Child {
            let argv = [&self.runsc[..], args].concat();
            let log = std::fs::File::create(self.log.join(name)).unwrap();
            self.group.enclose(&Cmd::new(argv)).spawn(Stdio::null(), log.into())
        }

        fn log(&self, name: &str) -> String {
            std::fs::read_to_string(self.log.join(name)).unwrap_or_default()
        }

        /// Starts a command line of the shell inside the group, as a manager does.
        fn spawn_script(&self, script: &str) -> Child {
            let log = std::fs::File::create(self.log.join("start")).unwrap();
            self.group.enclose(&Cmd::new(["sh", "-c", script])).spawn(Stdio::null(), log.into())
        }

        /// Returns the runtime with its flags as the shell takes it.
        fn runsc_word(&self) -> String {
            self.runsc.iter().map(|word| format!("'{}' ", word.to_string_lossy())).collect()
        }

        /// Returns a bundle of the container.
        fn bundle(&self, id: &str, mut config: Value) -> Bundle {
            if let Some(netns) = &self.netns {
                let list = config["linux"]["namespaces"].as_array_mut().unwrap();
                let network = list.iter_mut().find(|namespace| namespace["type"] == "network");
                network.unwrap()["path"] = netns.path().into();
            }
            if self.has_cgroups {
                let path = format!("/{}/{id}", self.group_name());
                config["linux"]["cgroupsPath"] = path.into();
            }
            Bundle::with_config(&config)
        }

        fn group_name(&self) -> String {
            self.group.path().file_name().unwrap().to_string_lossy().into_owned()
        }

        /// Starts a pod with two containers besides the first one, of which one comes twice.
        fn start_pod(&mut self, program: &Cmd) -> (Child, Vec<String>, Vec<Bundle>) {
            let ids: Vec<String> = (0..3).map(|_| unique("crash")).collect();
            let shares_pids = self.random.below(2) == 0;
            let bundles: Vec<Bundle> = ids
                .iter()
                .map(|id| {
                    let mut config = test_harness::bundle::config(&Rootfs::Host, program);
                    let kind = if *id == ids[0] { "sandbox" } else { "container" };
                    config["annotations"] = serde_json::json!({
                        "io.kubernetes.cri.container-type": kind,
                        "io.kubernetes.cri.sandbox-id": ids[0],
                    });
                    if shares_pids && *id != ids[0] {
                        let list = config["linux"]["namespaces"].as_array_mut().unwrap();
                        list.retain(|namespace| namespace["type"] != "pid");
                    }
                    self.bundle(id, config)
                })
                .collect();
            let runsc = self.runsc_word();
            let start = |n: usize| {
                let (path, id) = (bundles[n].path().display(), &ids[n]);
                format!("{runsc} create --bundle '{path}' {id} && {runsc} start {id}")
            };
            let script = format!(
                "{} && {} && {} && {runsc} exec --detach {id} sleep 60 && \
                 {runsc} delete --force {id} && {}",
                start(0),
                start(1),
                start(2),
                start(1),
                id = ids[1],
            );
            (self.spawn_script(&script), ids, bundles)
        }

        /// Starts a container, or several; returns the running command and the containers' ids.
        fn start(&mut self) -> (Child, Vec<String>, Vec<Bundle>) {
            let script = "(sleep 60 & sleep 60; :) & sleep 60; :";
            let program = Cmd::new(["/bin/sh", "-c", script]);
            let ways = [Start::Do, Start::Run, Start::Create, Start::Exec, Start::Pod];
            let how = *self.random.pick(&ways);
            let id = unique("crash");
            if !matches!(how, Start::Do) {
                if self.random.below(2) == 0 {
                    self.runsc.retain(|word| word != "--network=none");
                    self.netns = Some(Netns::new());
                }
                self.has_cgroups = self.random.below(2) == 0;
                if self.has_cgroups {
                    self.runsc.retain(|word| word != "--ignore-cgroups");
                }
            }
            let bundle = self.bundle(&id, test_harness::bundle::config(&Rootfs::Host, &program));
            let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
            let path = bundle.path().to_string_lossy().into_owned();
            let child = match how {
                Start::Do => {
                    let mut args = words(&["do"]);
                    args.extend_from_slice(program.argv());
                    self.spawn("start", &args)
                }
                Start::Run => self.spawn("start", &words(&["run", "--bundle", &path, &id])),
                Start::Create | Start::Exec => {
                    let runsc = self.runsc_word();
                    let mut script =
                        format!("{runsc} create --bundle '{path}' {id} && {runsc} start {id}");
                    if matches!(how, Start::Exec) {
                        script += &format!(" && {runsc} exec --detach {id} sleep 60");
                        script += &format!(" && {runsc} exec {id} sh -c 'sleep 60 & sleep 60'");
                    }
                    self.spawn_script(&script)
                }
                Start::Pod => return self.start_pod(&program),
            };
            let id = if matches!(how, Start::Do) { format!("do-{}", child.id()) } else { id };
            (child, vec![id], vec![bundle])
        }

        /// Returns whether a command of the runtime runs, or is about to.
        fn is_starting(&self) -> bool {
            let members = self.group.members();
            members.iter().any(|member| matches!(member.name.as_str(), "runsc" | "sh"))
        }

        /// Kills a member of the group, if there is one.
        fn kill_one(&mut self) -> String {
            let members = self.group.members();
            if members.is_empty() {
                return "nobody".to_owned();
            }
            let victim = self.random.pick(&members);
            victim.kill();
            format!("{} {}", victim.pid, victim.name)
        }

        fn run(mut self) {
            let (mut starting, mut ids, bundles) = self.start();
            // The sandbox first, or its members.
            if self.random.below(2) == 0 {
                ids.reverse();
            }
            let all = if ids.len() > 1 { 500 } else { 120 };
            self.random.pause(Duration::from_millis(all));
            let mut killed = vec![self.kill_one()];
            while self.random.below(3) == 0 {
                self.random.pause(Duration::from_millis(10));
                killed.push(self.kill_one());
            }
            let delete = ["delete", "--force"].map(OsString::from).into_iter();
            let delete: Vec<OsString> = delete.chain(ids.iter().map(OsString::from)).collect();
            // A delete that does not live to its end.
            if self.random.below(3) == 0 {
                let mut dying = self.spawn("dying", &delete);
                self.random.pause(Duration::from_millis(10));
                killed.push(self.kill_one());
                let end = cmd::wait(&mut dying, DEADLINE);
                assert_ne!(end, End::Deadline, "seed {}: delete hangs", self.seed);
            }
            // Whoever starts the container may come to it later than the first of these.
            let started = Instant::now();
            loop {
                // A shell that was killed may have left a command behind.
                let over = !matches!(starting.try_wait(), Ok(None)) && !self.is_starting();
                let mut last = self.spawn("delete", &delete);
                let end = cmd::wait(&mut last, DEADLINE);
                let what = format!(
                    "seed {}, {ids:?}, killed {killed:?}, start said {:?}",
                    self.seed,
                    self.log("start")
                );
                let said = self.log("delete");
                assert!(end == End::Code(0) && said.is_empty(), "{what}: {end:?} {said}");
                if over {
                    ids.iter().for_each(|id| self.check(id, &what));
                    if let Some(netns) = self.netns.take() {
                        assert!(netns.remove(DEADLINE), "{what}: the network namespace is left");
                    }
                    break;
                }
                assert!(started.elapsed() < DEADLINE, "{what}: the start does not end");
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(bundles);
        }

        /// Checks that nothing is left.
        fn check(&self, id: &str, what: &str) {
            let left = self.group.left();
            assert!(left.is_empty(), "{what}: processes are left: {left:?}");
            let below = self.group.below();
            assert!(below.is_empty(), "{what}: control groups are left: {below:?}");
            for dir in self.groups_of_other_controllers() {
                assert!(!dir.join(id).exists(), "{what}: {} is left", dir.join(id).display());
            }
            // What the container has, and locks beside it.
            let files = names(state().path()).into_iter();
            let files: Vec<_> = files.filter(|name| name.to_string_lossy().contains(id)).collect();
            assert!(files.is_empty(), "{what}: files are left: {files:?}");
            let upper = names(self.overlay.path());
            assert!(upper.is_empty(), "{what}: files of the overlay are left: {upper:?}");
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            assert!(!mounts.contains(id), "{what}: mounts are left: {mounts}");
        }
    }

    impl Round<'_> {
        /// Returns where the runtime makes groups of its own beside the one that the processes are in.
        fn groups_of_other_controllers(&self) -> Vec<PathBuf> {
            let controllers = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
            let dirs = controllers.map(|entry| entry.path().join(self.group_name()));
            dirs.filter(|dir| dir != self.group.path() && dir.is_dir()).collect()
        }
    }

    impl Drop for Round<'_> {
        fn drop(&mut self) {
            for dir in self.groups_of_other_controllers() {
                let _ = std::fs::remove_dir(dir);
            }
        }
    }

    fn state() -> &'static TempDir {
        STATE.get_or_init(TempDir::new)
    }

    fn names(dir: &Path) -> Vec<OsString> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect()
    }

    /// Returns the developer's seeds, if any.
    fn wanted_seeds() -> Option<Range<u64>> {
        if let Ok(rounds) = std::env::var("CRASH_ROUNDS") {
            return Some(0..rounds.parse().ok()?);
        }
        let wanted = std::env::var("CRASH_SEEDS").ok()?;
        let (from, to) = wanted.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    }

    fn campaign(platform: Platform) {
        if !platform.is_wanted() {
            return;
        }
        let group = Group::new();
        let (seeds, limit) = match wanted_seeds() {
            Some(seeds) => (seeds, Duration::MAX),
            None => (0..1000, CAMPAIGN),
        };
        let started = Instant::now();
        for seed in seeds {
            if started.elapsed() > limit {
                break;
            }
            let mut random = Random::new(seed);
            let mut runsc = mode::runsc_argv(platform, state());
            let overlay = TempDir::new();
            if random.below(2) == 0 {
                runsc.push(format!("--overlay2=root:dir={}", overlay.path().display()).into());
            }
            let log = TempDir::new();
            let group = &group;
            let (netns, has_cgroups) = (None, false);
            Round { seed, random, group, runsc, overlay, log, netns, has_cgroups }.run();
        }
    }

    #[test]
    fn systrap() {
        campaign(Platform::Systrap);
    }

    #[test]
    fn ptrace() {
        campaign(Platform::Ptrace);
    }
}
