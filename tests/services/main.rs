//! Servers and tools as people run them: a script starts one, drives it with its own clients, breaks it and looks.
//!
//! The programs are those of a second Debian root file system, which the set-up command makes; the host need have none
//! of them. What a script prints under runc it prints in a bundle and in `runsc do --root`, on each platform. A script
//! prints what is the same every time: counts and checks, never a time or a process id.

#[cfg(test)]
mod services {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex, OnceLock};
    use std::time::Duration;

    use serde_json::json;
    use test_harness::{
        Bundle, Cmd, End, Expectations, Mode, Output, Platform, Rootfs, TempDir, bundle, locate,
        mode,
    };

    /// Functions that the scripts share.
    const PRELUDE: &str = include_str!("scripts/prelude.sh");

    /// How long a script may take on a loaded machine, on the slower platform.
    const DEADLINE: Duration = Duration::from_secs(240);

    /// What each script printed under runc, which is asked once.
    static EXPECTED: Mutex<Option<HashMap<&str, Arc<OnceLock<Output>>>>> = Mutex::new(None);

    #[track_caller]
    fn check(name: &'static str, script: &str, mode: Mode) {
        if mode.platform().is_some_and(|platform| !platform.is_wanted()) {
            return;
        }
        let rootfs = Rootfs::services();
        let text = format!("{PRELUDE}\n{script}");
        let program = Cmd::new(["bash", "-c", &text, name]).cwd("/tmp").deadline(DEADLINE);
        let slot = {
            let mut all = EXPECTED.lock().unwrap();
            all.get_or_insert_default().entry(name).or_default().clone()
        };
        let expected = slot.get_or_init(|| Mode::Runc.run(&program, &rootfs));
        assert!(expected.end == End::Code(0), "{name} fails under runc: {expected:?}");
        let result = match mode {
            Mode::Runc => Ok(()),
            _ => match mode.run(&program, &rootfs) {
                output if output == *expected => Ok(()),
                output => Err(format!("\n--- runc: {expected:?}\n--- {mode}: {output:?}")),
            },
        };
        let folder = locate::workspace().join("tests/services/expectations");
        let known =
            Expectations::read(&[folder.join("all.toml"), folder.join(format!("{mode}.toml"))]);
        let problems = known.check(&[(name.to_owned(), result)]);
        assert!(problems.is_empty(), "{mode}: {}", problems.join("\n"));
    }

    /// Installs a package in a bundle with the host's network, where a registry can be reached.
    #[track_caller]
    fn check_apt(platform: Platform) {
        if !platform.is_wanted() {
            return;
        }
        let rootfs = Rootfs::services();
        let text = format!("{PRELUDE}\n{}", include_str!("scripts/apt.sh"));
        let mut program = Cmd::new(["bash", "-c", &text, "apt"]).cwd("/tmp").deadline(DEADLINE);
        for name in ["http_proxy", "https_proxy", "no_proxy"] {
            if let Ok(value) = std::env::var(name) {
                program = program.env(name, value);
            }
        }
        let mut config = bundle::config(&rootfs, &program);
        // What it writes stays in the sandbox's overlay.
        config["root"]["readonly"] = json!(false);
        config["linux"]["namespaces"] =
            json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]);
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.push(json!({"destination": "/etc/resolv.conf", "type": "bind",
                "source": "/etc/resolv.conf", "options": ["bind", "ro"]}));
        }
        let state = TempDir::new();
        let mut argv = mode::runsc_argv(platform, &state);
        argv.retain(|word| word != "--network=none");
        argv.extend(["--network=host".into(), "run".into()]);
        let output = Bundle::with_config(&config).run(argv, &program);
        let is_unreachable = output.text().starts_with("failed: unreachable");
        if is_unreachable && !is_registry_reachable(&rootfs, &program) {
            eprintln!("skipped: no package registry is reachable\n{}", output.text());
            return;
        }
        let text = output.success();
        assert!(text.starts_with("Hello, world!\n"), "{text}");
        let end = "figlet install ok installed\nhello install ok installed\n\
                   dpkg-query: no packages found matching figlet\n\
                   hello install ok installed\n/usr/bin/hello\n";
        assert!(text.ends_with(end), "{text}");
    }

    /// Tells whether the host itself can read from the registry that the root file system names.
    fn is_registry_reachable(rootfs: &Rootfs, program: &Cmd) -> bool {
        let script = "import sys, urllib.request as u\n\
                      words = open(sys.argv[1]).read().split()\n\
                      u.urlopen(f'{words[1]}/dists/{words[2]}/InRelease', timeout=60).read(100)";
        let list = rootfs.path().join("etc/apt/sources.list");
        let argv = ["/usr/bin/python3".into(), "-c".into(), script.into(), list.into()];
        program.with_argv(argv.to_vec()).run().end == End::Code(0)
    }

    #[test]
    fn apt_systrap() {
        check_apt(Platform::Systrap);
    }

    #[test]
    fn apt_ptrace() {
        check_apt(Platform::Ptrace);
    }

    /// Makes the tests of each script, which is `scripts/NAME.sh`.
    macro_rules! services {
        ($($name:ident),* $(,)?) => {
            services!(@mode runc, test_harness::Mode::Runc, $($name)*);
            services!(@mode do_systrap, test_harness::Mode::Do(test_harness::Platform::Systrap), $($name)*);
            services!(@mode do_ptrace, test_harness::Mode::Do(test_harness::Platform::Ptrace), $($name)*);
            services!(@mode bundle_systrap, test_harness::Mode::Bundle(test_harness::Platform::Systrap), $($name)*);
            services!(@mode bundle_ptrace, test_harness::Mode::Bundle(test_harness::Platform::Ptrace), $($name)*);
        };
        (@mode $module:ident, $mode:expr, $($name:ident)*) => {
            mod $module {
                $(#[test] fn $name() {
                    let script = include_str!(concat!("scripts/", stringify!($name), ".sh"));
                    super::check(stringify!($name), script, $mode);
                })*
            }
        };
    }

    services!(
        cargo,
        chromium,
        gdb,
        go,
        java,
        mariadb,
        memcached,
        nginx,
        node,
        observers,
        php,
        postgres,
        python_asyncio,
        python_multiprocessing,
        redis,
        rsync,
        ruby,
        sqlite_writers,
        ssh,
        strace,
        tini,
        tmux,
        unshare,
    );
}
