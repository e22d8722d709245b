//! Container managers as people run them: podman, docker, containerd, CRI-O, Kubernetes, each in a machine of its own.
//!
//! `NAME RUNTIME` is a script that starts a manager with a runtime, and says in a line of TAP for each feature
//! whether it works. It runs with runc first, where every line must be `ok`: that is the proof of the script. Then it
//! runs with runsc on systrap, where the same lines must be. `docker_sid` is the script `docker` with another suite of
//! Debian: SUITE=sid; `critest_crio` the script `critest` with SUITE=crio.

#[cfg(test)]
mod managers {
    use std::time::Duration;

    use test_harness::{Cmd, Expectations, Output, TempDir, locate};

    /// How long a script may take on a loaded machine.
    const DEADLINE: Duration = Duration::from_secs(1200);

    /// One line of TAP and what the script said about it.
    type Row = (String, Result<(), String>);

    #[track_caller]
    fn check(name: &str) {
        let folder = locate::workspace().join("tests/managers");
        let (script, suite) = name.split_once('_').unwrap_or((name, "bookworm"));
        let run = |runtime: &str| {
            let work = TempDir::new();
            let mut program = Cmd::new([folder.join(script).as_os_str(), runtime.as_ref()])
                .env("TMPDIR", work.path())
                .env("SUITE", suite)
                .env("SHIM", locate::runsc().with_file_name("containerd-shim-runsc-v1"))
                .deadline(DEADLINE);
            if let Some(cache) = locate::cache().parent() {
                program = program.env("XDG_CACHE_HOME", cache);
            }
            let output = program.run();
            (rows(name, &output), output)
        };

        let (expected, output) = run("/usr/sbin/runc");
        let problems = Expectations::default().check(&expected);
        assert!(problems.is_empty(), "runc: {}", problems.join("\n"));
        assert!(is_complete(&expected, &output), "runc: {output:?}");

        let runsc = locate::runsc();
        let (results, output) = run(runsc.to_str().unwrap_or_default());
        let known = Expectations::read(&[folder.join("expectations.toml")]);
        let problems = known.check(&results);
        assert!(problems.is_empty(), "runsc: {}", problems.join("\n"));
        assert!(is_complete(&results, &output), "runsc: {output:?}");
        let names = |rows: &[Row]| rows.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&results), names(&expected), "the runtimes have other lines");
    }

    /// Reads the lines of TAP.
    fn rows(script: &str, output: &Output) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for line in output.text().lines() {
            let is_ok = line.starts_with("ok ");
            if is_ok || line.starts_with("not ok ") {
                let name = line.split_once(" - ").map_or(line, |(_, name)| name);
                let result = if is_ok { Ok(()) } else { Err(String::new()) };
                rows.push((format!("{script}/{name}"), result));
            } else if let (Some(detail), Some((_, Err(why)))) =
                (line.strip_prefix("#  "), rows.last_mut())
            {
                why.push('\n');
                why.push_str(detail);
            }
        }
        rows
    }

    /// Tells whether the script came to its end: its plan has as many lines as there are.
    fn is_complete(rows: &[Row], output: &Output) -> bool {
        !rows.is_empty() && output.text().lines().any(|line| line == format!("1..{}", rows.len()))
    }

    /// Makes the tests: each is a script of that name in this folder.
    macro_rules! managers {
        ($($name:ident),* $(,)?) => {
            $(#[test] fn $name() {
                check(stringify!($name));
            })*
        };
    }

    managers!(
        podman,
        rootless,
        docker,
        docker_sid,
        containerd,
        cri,
        crio,
        critest_theirs,
        critest_path,
        critest_crio,
        kubernetes,
    );
}
