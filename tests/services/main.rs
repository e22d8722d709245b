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

    use test_harness::{Cmd, End, Expectations, Mode, Output, Rootfs, locate};

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
        go,
        java,
        mariadb,
        memcached,
        nginx,
        node,
        php,
        postgres,
        python_asyncio,
        python_multiprocessing,
        redis,
        rsync,
        ruby,
        sqlite_writers,
        ssh,
        tini,
        tmux,
    );
}
