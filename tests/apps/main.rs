//! Real programs: what they print and how they end in a sandbox is what they print natively.
//!
//! In `runsc do` a script runs on the host's own programs and is compared with the host; in a bundle it runs in
//! the Debian root file system that the set-up command made and is compared with the same bundle under runc.

#[cfg(test)]
mod apps {
    use std::time::Duration;

    use test_harness::{Cmd, Expectations, Mode, Rootfs, TempDir, locate};

    /// The command that runs a script.
    fn command(name: &str) -> Vec<&'static str> {
        macro_rules! script {
            ($file:literal) => {
                include_str!(concat!("scripts/", $file))
            };
        }
        match name {
            "busybox" => vec!["busybox", "sh", "-c", script!("busybox.sh")],
            "bash" => vec!["bash", "-c", script!("bash.sh")],
            "coreutils" => vec!["bash", "-c", script!("coreutils.sh")],
            "find" => vec!["bash", "-c", script!("find.sh")],
            "archive" => vec!["bash", "-c", script!("archive.sh")],
            "text" => vec!["bash", "-c", script!("text.sh")],
            "python_threads" => vec!["/usr/bin/python3", "-c", script!("python_threads.py")],
            "python_processes" => vec!["/usr/bin/python3", "python_processes.py"],
            "python_system" => vec!["/usr/bin/python3", "-c", script!("python_system.py")],
            "perl" => vec!["perl", "-e", script!("perl.pl")],
            "compile" => vec!["bash", "-c", script!("compile.sh")],
            "make" => vec!["bash", "-c", script!("make.sh")],
            "git" => vec!["bash", "-c", script!("git.sh")],
            "sqlite" => vec!["bash", "-c", script!("sqlite.sh")],
            "processes" => vec!["bash", "-c", script!("processes.sh")],
            other => panic!("no script {other}"),
        }
    }

    /// Describes a run in a directory.
    fn program(name: &str, dir: &std::path::Path) -> Cmd {
        let argv = command(name);
        let program = Cmd::new(&argv).cwd(dir).deadline(Duration::from_secs(150));
        if name == "python_processes" {
            // `spawn` imports the main module again: it must be a file.
            let script = concat!(
                "cat >python_processes.py; grep -q '^main()' python_processes.py && ",
                "sed -i 's/^main()/if __name__ == \"__main__\": main()/' python_processes.py; ",
                "exec /usr/bin/python3 python_processes.py"
            );
            return program
                .with_argv(["sh", "-c", script].map(Into::into).to_vec())
                .stdin(include_str!("scripts/python_processes.py"));
        }
        program
    }

    #[track_caller]
    fn check(name: &str, mode: Mode) {
        if mode.platform().is_some_and(|platform| !platform.is_wanted()) {
            return;
        }
        let (expected, output) = match mode {
            Mode::Bundle(_) | Mode::BundleOnHost(_) | Mode::Runc => {
                let rootfs = Rootfs::debian();
                let program = program(name, "/tmp".as_ref());
                (Mode::Runc.run(&program, &rootfs), mode.run(&program, &rootfs))
            }
            Mode::Native | Mode::Do(_) | Mode::DoHost(_) => {
                let native = TempDir::new();
                let expected = Mode::Native.run(&program(name, native.path()), &Rootfs::Host);
                let dir = TempDir::new();
                let output = mode.run(&program(name, dir.path()), &Rootfs::Host);
                if mode != Mode::Native {
                    let left = std::fs::read_dir(dir.path()).map_or(0, Iterator::count);
                    assert_eq!(left, 0, "{name} wrote to the host's {}", dir.path().display());
                }
                (expected, output)
            }
        };
        let folder = locate::workspace().join("tests/apps/expectations");
        let known =
            Expectations::read(&[folder.join("all.toml"), folder.join(format!("{mode}.toml"))]);
        let result = if output == expected {
            Ok(())
        } else {
            Err(format!("\n{}", difference(&expected, &output)))
        };
        let problems = known.check(&[(name.to_owned(), result)]);
        assert!(problems.is_empty(), "{mode}: {}", problems.join("\n"));
    }

    /// Shows where two outputs part.
    fn difference(expected: &test_harness::Output, output: &test_harness::Output) -> String {
        let mut text = format!("expected {:?}, ended {:?}\n", expected.end, output.end);
        for (stream, wanted, got) in [
            ("stdout", &expected.stdout, &output.stdout),
            ("stderr", &expected.stderr, &output.stderr),
        ] {
            let (wanted, got) = (String::from_utf8_lossy(wanted), String::from_utf8_lossy(got));
            if wanted == got {
                continue;
            }
            let same = wanted.lines().zip(got.lines()).take_while(|(a, b)| a == b).count();
            let part = |of: &str| of.lines().skip(same).take(8).collect::<Vec<_>>().join("\n    ");
            text += &format!(
                "  {stream} from line {}:\n  expected:\n    {}\n  got:\n    {}\n",
                same + 1,
                part(&wanted),
                part(&got)
            );
        }
        text
    }

    macro_rules! apps {
        ($($app:ident),* $(,)?) => {
            apps!(@mode native, test_harness::Mode::Native, $($app)*);
            apps!(@mode runc, test_harness::Mode::Runc, $($app)*);
            apps!(@mode do_systrap, test_harness::Mode::Do(test_harness::Platform::Systrap), $($app)*);
            apps!(@mode do_ptrace, test_harness::Mode::Do(test_harness::Platform::Ptrace), $($app)*);
            apps!(@mode bundle_systrap, test_harness::Mode::Bundle(test_harness::Platform::Systrap), $($app)*);
            apps!(@mode bundle_ptrace, test_harness::Mode::Bundle(test_harness::Platform::Ptrace), $($app)*);
        };
        (@mode $module:ident, $mode:expr, $($app:ident)*) => {
            mod $module {
                $(#[test] fn $app() { super::check(stringify!($app), $mode); })*
            }
        };
    }

    apps!(
        archive,
        bash,
        busybox,
        compile,
        coreutils,
        find,
        git,
        make,
        perl,
        processes,
        python_processes,
        python_system,
        python_threads,
        sqlite,
        text,
    );
}
