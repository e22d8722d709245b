//! Guests that attack the sandbox, and what must hold then: seen from inside (the cases pass) and from outside (no
//! file appeared, the canary lives, no process is left, the mounts are as they were).

#[cfg(test)]
mod hostile {
    use std::fs::File;
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use serde_json::json;
    use test_harness::{
        Bundle, Cmd, End, Expectations, Group, Member, Mode, Output, Platform, Rootfs, TempDir,
        bundle, cmd, locate, mode,
    };

    /// Checks that every case passed, or is known to fail (`expectations/<platform>.toml`).
    #[track_caller]
    fn all_passed(name: &str, platform: Option<Platform>, output: &Output) {
        let text = output.text();
        let mut results = Vec::new();
        for line in text.lines() {
            let (case, result) = match line.strip_prefix("ok ") {
                Some(case) => (case, Ok(())),
                None => {
                    let line = line.strip_prefix("FAIL ").unwrap_or(line);
                    let (case, why) = line.split_once(": ").unwrap_or((line, "no result"));
                    (case, Err(why.to_owned()))
                }
            };
            results.push((format!("{name}/{case}"), result));
        }
        let platform = platform.map_or("runc", Platform::name);
        let file = format!("tests/hostile/expectations/{platform}.toml");
        let known = Expectations::read(&[locate::workspace().join(file)]);
        let problems = known.check(&results);
        let any_failed = results.iter().any(|(_, result)| result.is_err());
        let wanted = End::Code(i32::from(any_failed));
        assert!(
            problems.is_empty() && !results.is_empty() && output.end == wanted,
            "{problems:#?} {output:?}"
        );
    }

    /// Runs an attacker by `runsc do` and looks at the host afterwards.
    fn attack(name: &str, platform: Platform) {
        if !platform.is_wanted() {
            return;
        }
        let (outside, group) = (TempDir::new(), Group::new());
        let mut canary = Cmd::new(["sleep", "600"]).spawn(Stdio::null(), Stdio::null());
        let program = locate::binary(name);
        let state = TempDir::new();
        let mut argv = mode::runsc_argv(platform, &state);
        argv.push("do".into());
        argv.push(program.into());
        let command = Cmd::new(argv)
            .env("OUTSIDE", outside.path())
            .env("CANARY", canary.id().to_string())
            .deadline(Duration::from_secs(280));
        let output = group.enclose(&command).run();
        let left = group.left();
        let files: Vec<_> =
            std::fs::read_dir(outside.path()).into_iter().flatten().flatten().collect();
        let canary_lives = matches!(canary.try_wait(), Ok(None));
        let _ = canary.kill();
        let _ = cmd::wait(&mut canary, Duration::from_secs(5));
        assert!(files.is_empty(), "the host's directory was written: {files:?}");
        assert!(canary_lives, "a process of the host was ended");
        assert!(left.is_empty(), "processes are left: {left:?}");
        all_passed(name, Some(platform), &output);
    }

    /// Runs the search for leaks in a bundle with two mounts, a secret beside them.
    fn leaks(mode: Mode) {
        if mode.platform().is_some_and(|platform| !platform.is_wanted()) {
            return;
        }
        let (host, group) = (TempDir::new(), Group::new());
        let secret = "9f2b7c-second-half";
        for (name, content) in [("secret", secret), ("fixed/file", "fixed")] {
            let path = host.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        std::fs::create_dir(host.join("shared")).unwrap();
        let rootfs = Rootfs::with_programs(&["hostile_leaks"]);
        for dir in ["mnt", "mnt/shared", "mnt/fixed"] {
            std::fs::create_dir(rootfs.path().join(dir)).unwrap();
        }
        let program = Cmd::new(["/bin/hostile_leaks"])
            .env("SECRET", "9f2b7c")
            .env("SHARED", "1")
            .deadline(Duration::from_secs(200));
        let mut config = bundle::config(&rootfs, &program);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/mnt/shared", "type": "bind", "source": host.join("shared"), "options": ["rbind", "rw"]}));
        mounts.push(json!({"destination": "/mnt/fixed", "type": "bind", "source": host.join("fixed"), "options": ["rbind", "ro"]}));
        let state = TempDir::new();
        let mut argv = match mode.platform() {
            Some(platform) => mode::runsc_argv(platform, &state),
            None => vec!["runc".into(), "--root".into(), state.path().into()],
        };
        argv.push("run".into());
        let bundle = Bundle::with_config(&config);
        let command = program.env("HOST_SECRET", secret);
        let enclosed = group.enclose(&command.with_argv(argv.clone()));
        let output = bundle.run(enclosed.argv().to_vec(), &command);
        let left = group.left();
        let read = |name: &str| std::fs::read_to_string(host.join(name)).unwrap_or_default();
        assert_eq!((read("secret").as_str(), read("fixed/file").as_str()), (secret, "fixed"));
        let names = |name: &str| std::fs::read_dir(host.join(name)).map_or(0, Iterator::count);
        assert_eq!((names(""), names("fixed")), (3, 1), "files appeared beside the mounts");
        assert!(left.is_empty(), "processes are left: {left:?}");
        all_passed("hostile_leaks", mode.platform(), &output);
    }

    /// Keeps hold of what gofer and sentry execute until they have ended and nothing protects it as running any
    /// more: even root finds no way to write there.
    fn executable_cannot_be_written(platform: Platform) {
        const O_PATH: i32 = 0o10_000_000;
        const EPERM: i32 = 1;
        const EROFS: i32 = 30;

        if !platform.is_wanted() {
            return;
        }
        let (state, group) = (TempDir::new(), Group::new());
        let mut argv = mode::runsc_argv(platform, &state);
        // A file of its own: nobody can write to one that others execute.
        let copy = TempDir::new();
        std::fs::copy(&argv[0], copy.join("runsc")).unwrap();
        argv[0] = copy.join("runsc").into();
        argv.extend(["do", "sleep", "600"].map(Into::into));
        let mut runsc = group.enclose(&Cmd::new(argv)).spawn(Stdio::null(), Stdio::null());
        let started = Instant::now();
        let mut held = Vec::new();
        while held.len() < 2 && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(20));
            let jailed =
                |member: &Member| matches!(member.name.as_str(), "runsc-gofer" | "runsc-sandbox");
            let open = |member: Member| {
                let path = format!("/proc/{}/exe", member.pid);
                File::options().read(true).custom_flags(O_PATH).open(path).ok()
            };
            held = group.members().into_iter().filter(jailed).filter_map(open).collect();
        }
        drop(group);
        let _ = cmd::wait(&mut runsc, Duration::from_secs(30));
        assert!(held.len() >= 2, "gofer and sentry do not run");
        for file in held {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let written =
                File::options().append(true).open(path).and_then(|mut file| file.write(b"x"));
            let errno = written.unwrap_err().raw_os_error().unwrap();
            assert!([EPERM, EROFS].contains(&errno), "{errno}");
        }
    }

    macro_rules! attacks {
        ($($module:ident $platform:ident),*) => {$(
            mod $module {
                use test_harness::{Mode, Platform};

                #[test]
                fn calls() {
                    super::attack("hostile_calls", Platform::$platform);
                }

                #[test]
                fn jumps() {
                    super::attack("hostile_jumps", Platform::$platform);
                }

                #[test]
                fn memory() {
                    super::attack("hostile_memory", Platform::$platform);
                }

                #[test]
                fn executable() {
                    super::executable_cannot_be_written(Platform::$platform);
                }

                #[test]
                fn leaks() {
                    super::leaks(Mode::Bundle(Platform::$platform));
                }
            }
        )*};
    }

    attacks!(systrap Systrap, systrap_futex SystrapFutex, ptrace Ptrace);
}
