//! `runsc` where little is as it should be: standard descriptors closed, full or without a reader, no room on the
//! disk, small limits, odd parents, other users. Every command then either does what it was asked for or says in
//! one line what is wrong, and leaves nothing behind.

#[cfg(test)]
mod conditions {
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};
    use std::process::Stdio;
    use std::time::Duration;

    use serde_json::json;
    use test_harness::{
        Bundle, Cmd, End, Group, Output, Platform, Rootfs, TempDir, bundle, cmd, locate, mode,
    };

    const SIGPIPE: i32 = 13;
    /// An id that owns nothing.
    const NOBODY: &str = "65534";

    /// Returns `runsc` with its global flags and the words after them.
    fn runsc(state: &TempDir, words: &[&str]) -> Vec<OsString> {
        let mut argv = mode::runsc_argv(Platform::Systrap, state);
        argv.extend(words.iter().map(OsString::from));
        argv
    }

    /// Returns a command that runs `script`, in which `"$@"` is the given command.
    fn around(script: &str, argv: Vec<OsString>) -> Cmd {
        let mut all: Vec<OsString> = ["/bin/sh", "-c", script, "sh"].map(OsString::from).to_vec();
        all.extend(argv);
        Cmd::new(all)
    }

    /// Checks that a command failed with one line on standard error that holds `part`.
    #[track_caller]
    fn failed_with(output: &Output, part: &str) {
        let text = String::from_utf8_lossy(&output.stderr);
        let is_one_line = text.lines().count() == 1 && text.ends_with('\n');
        assert!(output.end == End::Code(1) && is_one_line && text.contains(part), "{output:?}");
    }

    #[track_caller]
    fn is_empty(dir: &Path) {
        let left: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    /// A small file system of its own.
    struct Tmpfs {
        dir: TempDir,
    }

    impl Tmpfs {
        fn new(options: &str) -> Tmpfs {
            let dir = TempDir::new();
            let mut argv: Vec<OsString> =
                ["mount", "-t", "tmpfs", "-o", options, "tmpfs"].map(OsString::from).to_vec();
            argv.push(dir.path().into());
            let _ = Cmd::new(argv).run().success();
            Tmpfs { dir }
        }
    }

    impl Drop for Tmpfs {
        fn drop(&mut self) {
            let argv = [OsString::from("umount"), self.dir.path().into()];
            let _ = Cmd::new(argv).run();
        }
    }

    #[test]
    fn closed_standard_descriptors_change_nothing_else() {
        let state = TempDir::new();
        for closed in ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
            let script = "[ -e /proc/self/fd/0 ] && [ -e /proc/self/fd/1 ] && exit 5";
            let argv = runsc(&state, &["do", "/bin/sh", "-c", script]);
            let output = around(&format!("exec \"$@\" {closed}"), argv).run();
            assert_eq!(output.end, End::Code(5), "{closed}: {output:?}");
            let output =
                around(&format!("exec \"$@\" {closed}"), runsc(&state, &["do", "/does/not/exist"]))
                    .run();
            assert_eq!(output.end, End::Code(127), "{closed}: {output:?}");
        }
        is_empty(state.path());
    }

    #[test]
    fn files_below_are_read_as_they_are_changed() {
        let (state, files) = (TempDir::new(), TempDir::new());
        let content: Vec<u8> = (0..50_000_u32).map(|i| (i % 251) as u8).collect();
        let mut words = vec![String::from("do"), String::from("/usr/bin/env")];
        for name in ["LENT_FILE", "LENT_FILE_TO_MAP", "LENT_FILE_TO_CUT"] {
            let file = files.join(name);
            std::fs::write(&file, &content).unwrap();
            words.push(format!("{name}={}", file.display()));
        }
        words.push(locate::binary("lent_files").display().to_string());
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let output = Cmd::new(runsc(&state, &words)).run();
        assert_eq!(output.end, End::Code(0), "{output:?}");
        assert!(output.text().contains("ok below_is_copied"), "{output:?}");
        assert_eq!(std::fs::read(files.join("LENT_FILE")).unwrap(), content);
    }

    #[test]
    fn strace_tells_of_every_call_and_of_those_that_wait() {
        let (state, logs) = (TempDir::new(), TempDir::new());
        let log = logs.join("strace");
        let mut argv = mode::runsc_argv(Platform::Systrap, &state);
        argv.extend(["--strace".into(), "--debug-log".into(), log.clone().into_os_string()]);
        argv.extend(["do", "/bin/sh", "-c", "/bin/sleep 0.1; exit 3"].map(OsString::from));
        assert_eq!(Cmd::new(argv).run().end, End::Code(3));
        let text = std::fs::read_to_string(log).unwrap();
        let calls: Vec<_> = text.lines().filter_map(|line| line.split_once("] ")).collect();
        let has = |start: &str, end: &str| {
            calls.iter().any(|(_, call)| call.starts_with(start) && call.ends_with(end))
        };
        assert!(has("execve(\"/bin/sleep\", [\"/bin/sleep\", \"0.1\"], ", " = 0"), "{text}");
        assert!(has("clock_nanosleep(", " <unfinished ...>"), "{text}");
        assert!(
            calls.iter().any(|(_, call)| call.contains("clock_nanosleep resumed>) = 0")),
            "{text}"
        );
        assert!(has("exit_group(3", " = ?"), "{text}");
        assert!(calls.iter().all(|(_, call)| !call.starts_with(' ')), "{text}");
    }

    #[test]
    fn a_full_output_is_the_writers_affair() {
        let state = TempDir::new();
        let to_full = "exec \"$@\" >/dev/full";
        let output = around(to_full, runsc(&state, &["do", "/bin/echo", "x"])).run();
        failed_with(&output, "No space left on device");
        let output = around(to_full, runsc(&state, &["list"])).run();
        failed_with(&output, "writing to standard output: No space left on device");
        // Nowhere to complain.
        let argv = runsc(&state, &["do", "/does/not/exist"]);
        let output = around("exec \"$@\" 2>/dev/full", argv).run();
        assert_eq!(output.end, End::Code(127), "{output:?}");
    }

    #[test]
    fn output_without_a_reader_ends_a_listing_by_sigpipe() {
        let state = TempDir::new();
        for words in [&["list"][..], &["help", "syscalls"], &["list", "--format", "json"]] {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut child = Cmd::new(runsc(&state, words)).spawn(writer.into(), Stdio::null());
            let end = cmd::wait(&mut child, Duration::from_secs(60));
            assert_eq!(end, End::Signal(SIGPIPE), "{words:?}");
        }
        // Of a container's output it is the container's affair.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let script = "echo x; exit 3";
        let argv = runsc(&state, &["do", "/bin/sh", "-c", &format!("trap '' PIPE; {script}")]);
        let mut child = Cmd::new(argv).spawn(writer.into(), Stdio::null());
        assert_eq!(cmd::wait(&mut child, Duration::from_secs(60)), End::Code(3));
        is_empty(state.path());
    }

    #[test]
    fn a_state_directory_that_cannot_be_written_is_named() {
        let fixed = Tmpfs::new("ro");
        failed_with(&Cmd::new(runsc(&fixed.dir, &["do", "/bin/true"])).run(), "--root");
        let full = Tmpfs::new("size=4k");
        let content = vec![0; 1 << 20];
        let _ = std::fs::write(full.dir.join("fill"), content);
        failed_with(&Cmd::new(runsc(&full.dir, &["do", "/bin/true"])).run(), "--root");
        std::fs::remove_file(full.dir.join("fill")).unwrap();
        is_empty(full.dir.path());
        for inodes in 2..5 {
            let small = Tmpfs::new(&format!("nr_inodes={inodes}"));
            let output = Cmd::new(runsc(&small.dir, &["do", "/bin/true"])).run();
            if output.end != End::Code(0) {
                failed_with(&output, "No space left on device");
            }
            is_empty(small.dir.path());
        }
    }

    #[test]
    fn a_state_directory_may_have_a_long_name() {
        let outer = TempDir::new();
        let part = "d".repeat(200);
        let deep: PathBuf = [outer.path(), Path::new(&part), Path::new(&part)].iter().collect();
        let mut argv = mode::runsc_argv(Platform::Systrap, &outer);
        let place = argv.iter().position(|word| word == "--root").unwrap() + 1;
        argv[place] = deep.clone().into();
        argv.extend(["do", "/bin/sh", "-c", "exit 4"].map(OsString::from));
        assert_eq!(Cmd::new(argv).run().end, End::Code(4));
        is_empty(&deep);
    }

    /// Runs the command after it below a filter with a listener, as a tracer of containers does; it must not hear
    /// of anything.
    const BELOW_A_LISTENER: &str = "
import ctypes, subprocess, sys
allow = ctypes.create_string_buffer(b'\\x06\\0\\0\\0\\0\\0\\xff\\x7f')
class Program(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
program = Program(1, ctypes.addressof(allow))
listener = ctypes.CDLL(None).syscall(317, 1, 8, ctypes.byref(program))
assert listener >= 0
sys.exit(subprocess.run(sys.argv[1:]).returncode)
";

    #[test]
    fn an_outer_filter_may_have_the_only_listener() {
        let state = TempDir::new();
        let below = |flag: Option<&str>| {
            let mut argv = ["python3", "-c", BELOW_A_LISTENER].map(OsString::from).to_vec();
            argv.extend(mode::runsc_argv(Platform::Systrap, &state));
            argv.extend(flag.map(OsString::from));
            argv.extend(["do", "/bin/sh", "-c", "echo $(uname -r); exit 3"].map(OsString::from));
            Cmd::new(argv).run()
        };
        let output = below(None);
        assert_eq!((output.end, output.text()), (End::Code(3), "6.12.0\n".into()), "{output:?}");
        failed_with(&below(Some("--doorbell=notify")), "starting systrap");
        is_empty(state.path());
    }

    #[test]
    fn the_kernel_release_is_what_the_flag_says() {
        let state = TempDir::new();
        let told = |release: &str| {
            let mut argv = mode::runsc_argv(Platform::Systrap, &state);
            argv.push(format!("--kernel-release={release}").into());
            let script = "uname -r; cut -d' ' -f3 /proc/version; cat /proc/sys/kernel/osrelease";
            argv.extend(["do", "/bin/sh", "-c", script].map(OsString::from));
            Cmd::new(argv).run()
        };
        assert_eq!(told("5.15.0-91-generic").text(), "5.15.0-91-generic\n".repeat(3));
        assert_eq!(told("6").end, End::Code(2));
    }

    #[test]
    fn a_full_disk_is_an_error_of_the_program() {
        let (state, small) = (TempDir::new(), Tmpfs::new("size=256k"));
        let mut argv = mode::runsc_argv(Platform::Systrap, &state);
        argv.push(format!("--overlay2=root:dir={}", small.dir.path().display()).into());
        let script =
            "cd $(mktemp -d); head -c 1000000 /dev/zero >x; echo $?; stat -c %s x; echo alive";
        argv.extend(["do", "/bin/sh", "-c", script].map(OsString::from));
        let output = Cmd::new(argv).run();
        assert_eq!(output.text(), "1\n262144\nalive\n", "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("No space left on device"));
        is_empty(small.dir.path());
    }

    #[test]
    fn a_full_volume_is_an_error_of_the_program() {
        let (state, small) = (TempDir::new(), Tmpfs::new("size=256k,mode=1777"));
        let script =
            "head -c 1000000 /dev/zero >/data/x; echo $?; stat -c '%s %u' /data/x; rm /data/x
            exec 3>/data/y; stat -c '%s %u' /data/y; echo ok >/data/y; cat /data/y";
        let program = Cmd::new(["/bin/sh", "-c", script]);
        let rootfs = Rootfs::debian();
        let mut config = bundle::config(&rootfs, &program);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({ "destination": "/data", "type": "bind", "source": small.dir.path(), "options": ["rbind", "rw"] }));
        // No right to overlook an owner: a file must be its creator's even while it is open.
        config["process"]["capabilities"] = json!({});
        let bundle = Bundle::with_config(&config);
        let output = bundle.run(runsc(&state, &["run"]), &program);
        assert_eq!(output.text(), "1\n262144 0\n0 0\nok\n", "{output:?}");
        is_empty(state.path());
    }

    #[test]
    fn small_limits_of_open_files_are_named() {
        let state = TempDir::new();
        for limit in [4, 5, 6, 8, 12, 16, 20, 24, 28, 32, 48, 64, 256, 1024] {
            let argv = runsc(&state, &["do", "/bin/sh", "-c", "exit 6"]);
            let output = around(&format!("ulimit -n {limit}; exec \"$@\""), argv).run();
            if output.end != End::Code(6) {
                assert!(limit < 256, "{limit}: {output:?}");
                let text = String::from_utf8_lossy(&output.stderr);
                let is_named = text.contains("descriptors") || text.contains("open files");
                assert!(text.lines().count() == 1 && is_named, "{limit}: {output:?}");
            }
            is_empty(state.path());
        }
    }

    #[test]
    fn small_limits_of_processes_are_survived() {
        let state = TempDir::new();
        for limit in [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 32] {
            let group = Group::new();
            if std::fs::write(group.path().join("pids.max"), limit.to_string()).is_err() {
                return;
            }
            let argv = runsc(&state, &["do", "/bin/sh", "-c", "exit 6"]);
            let output = group.enclose(&Cmd::new(argv)).run();
            let text = String::from_utf8_lossy(&output.stderr);
            if output.end != End::Code(6) {
                let is_named = text.to_lowercase().contains("resource temporarily unavailable");
                let is_one = text.lines().count() == 1;
                assert!(limit < 32 && is_named && is_one, "{limit}: {output:?}");
            }
            assert!(group.left().is_empty(), "{limit}");
            is_empty(state.path());
        }
    }

    #[test]
    fn the_program_is_killed_for_memory_and_not_the_sandbox() {
        let state = TempDir::new();
        let group = Group::of("memory");
        let limit = (48 << 20).to_string();
        let is_limited = ["memory.max", "memory.limit_in_bytes"]
            .iter()
            .any(|name| std::fs::write(group.path().join(name), &limit).is_ok());
        if !is_limited {
            return;
        }
        // Where there is swap, it is not to help.
        let _ = std::fs::write(group.path().join("memory.swap.max"), "0");
        let _ = std::fs::write(group.path().join("memory.memsw.limit_in_bytes"), &limit);
        // Keeps its one line in memory.
        let script = "head -c 200000000 /dev/zero | sed -n '$='; echo alive; exit 6";
        let argv = runsc(&state, &["do", "/bin/sh", "-c", script]);
        let output = group.enclose(&Cmd::new(argv)).run();
        assert_eq!((output.end, output.text().as_str()), (End::Code(6), "alive\n"), "{output:?}");
        assert!(group.left().is_empty());
    }

    #[test]
    fn ignored_and_blocked_signals_of_the_parent_are_not_passed_on() {
        let state = TempDir::new();
        let script = "grep -E '^Sig(Ign|Blk)' /proc/self/status; true | true; exit 7";
        for option in ["--ignore-signal", "--block-signal", "--ignore-signal=CHLD"] {
            let argv = runsc(&state, &["do", "/bin/sh", "-c", script]);
            let output = around(&format!("exec env {option} \"$@\""), argv).run();
            let zero = "0000000000000000";
            let wanted = format!("SigBlk:\t{zero}\nSigIgn:\t{zero}\n");
            assert_eq!((output.end, output.text()), (End::Code(7), wanted), "{option}: {output:?}");
        }
        is_empty(state.path());
    }

    #[test]
    fn signals_without_effect_do_not_disturb_a_start() {
        let state = TempDir::new();
        let script =
            "\"$@\" & for i in $(seq 300); do kill -WINCH $!; kill -CHLD $!; done; wait $!";
        let argv = runsc(&state, &["do", "/bin/sh", "-c", "ls / >/dev/null; exit 8"]);
        // The shell's `wait` itself is interrupted by nothing that it does not trap.
        assert_eq!(around(script, argv).run().end, End::Code(8));
        is_empty(state.path());
    }

    #[test]
    fn many_start_at_once() {
        let state = TempDir::new();
        let mut running = Vec::new();
        for number in 0..20 {
            let out = state.join(&format!("../{}-{number}", name(&state)));
            let script = format!("echo {number}; exit {number}");
            let command = Cmd::new(runsc(&state, &["do", "/bin/sh", "-c", &script]));
            let file = std::fs::File::create(&out).unwrap();
            let log = file.try_clone().unwrap();
            running.push((number, command.spawn(file.into(), log.into()), out));
        }
        for (number, mut child, out) in running {
            let end = cmd::wait(&mut child, Duration::from_secs(120));
            let text = std::fs::read_to_string(&out).unwrap();
            let _ = std::fs::remove_file(&out);
            assert_eq!((end, text), (End::Code(number), format!("{number}\n")));
        }
        is_empty(state.path());
    }

    fn name(dir: &TempDir) -> String {
        dir.path().file_name().unwrap().to_string_lossy().into_owned()
    }

    /// Where an ordinary user can get at `runsc` and a state directory.
    fn of_nobody() -> (TempDir, TempDir, Vec<OsString>) {
        let (place, state) = (TempDir::new(), TempDir::new());
        let copy = place.join("runsc");
        std::fs::copy(locate::runsc(), &copy).unwrap();
        let argv = [OsString::from("chown"), NOBODY.into(), state.path().into()];
        let _ = Cmd::new(argv).run().success();
        let mut argv = mode::runsc_argv(Platform::Systrap, &state);
        argv[0] = copy.into();
        (place, state, argv)
    }

    fn as_nobody(program: &[&str], argv: Vec<OsString>) -> Output {
        let mut all: Vec<OsString> =
            ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]
                .map(OsString::from)
                .to_vec();
        all.extend(program.iter().map(OsString::from));
        all.extend(argv);
        Cmd::new(all).cwd("/").run()
    }

    #[test]
    fn an_ordinary_user_can_run_sandboxes() {
        if as_nobody(&["unshare", "-r", "true"], Vec::new()).end != End::Code(0) {
            return;
        }
        let (_place, state, argv) = of_nobody();
        let script = "id -u; cd $(mktemp -d); echo x >x && cat x; exit 3";
        let words = ["do", "/bin/sh", "-c", script].map(OsString::from);
        for (around, uid) in [(&[][..], NOBODY), (&["unshare", "-r"], "0")] {
            let output = as_nobody(around, [&argv[..], &words].concat());
            let wanted = format!("{uid}\nx\n");
            assert_eq!((output.end, output.text()), (End::Code(3), wanted), "{output:?}");
            is_empty(state.path());
        }
    }

    #[test]
    fn a_user_without_user_namespaces_is_told_so() {
        let (_place, state, argv) = of_nobody();
        // In a user namespace of its own, the number of further ones can be limited by anybody.
        let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
        let shell = ["unshare", "-rm", "sh", "-c", script, "sh"];
        let words = ["do", "/bin/true"].map(OsString::from);
        let output = as_nobody(&shell, [&argv[..], &words].concat());
        if String::from_utf8_lossy(&output.stderr).contains("unshare") {
            return;
        }
        failed_with(&output, "max_user_namespaces");
        is_empty(state.path());
    }
}
