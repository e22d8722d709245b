//! Nothing that a program does may panic, hang or bloat the sandbox: fuzzers and scale, on each platform.
//!
//! A fuzzer's seeds are fixed, so a failure repeats; `FUZZ_SEEDS=100..200` tries others.

#[cfg(test)]
mod calls {
    use std::ops::Range;
    use std::path::PathBuf;
    use std::process::Stdio;
    use std::time::Duration;

    use test_harness::mode::runsc_argv;
    use test_harness::{Cmd, End, Platform, TempDir, cmd, locate};

    /// How much memory of its own a sentry may ever have had, in KiB.
    const MEMORY_LIMIT: u64 = 192 << 10;

    /// Returns the seeds to run: those of every run, or the developer's.
    fn seeds() -> Range<u64> {
        let wanted = std::env::var("FUZZ_SEEDS").unwrap_or_default();
        let numbers: Vec<u64> = wanted.split("..").filter_map(|part| part.parse().ok()).collect();
        match numbers[..] {
            [from, to] => from..to,
            _ => 1..4,
        }
    }

    /// Returns the largest resident memory that any of a process's children has had so far, in KiB.
    fn children_peak(parent: u32) -> u64 {
        let tasks = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(tasks).unwrap_or_default();
        let peak = |pid: &str| -> Option<u64> {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.split_whitespace().next()?.parse().ok()
        };
        children.split_whitespace().filter_map(peak).max().unwrap_or(0)
    }

    fn check(platform: Platform) {
        if !platform.is_wanted() {
            return;
        }
        for seed in seeds() {
            let dir = TempDir::new();
            let out = dir.join("out");
            let log = dir.join("log");
            let file = |path: &PathBuf| {
                Stdio::from(std::fs::File::create(path).unwrap_or_else(|error| panic!("{error}")))
            };
            let mut argv = runsc_argv(platform, &dir);
            argv.push("--debug".into());
            argv.push("do".into());
            argv.push(locate::binary("fuzz_calls").into());
            argv.extend([seed.to_string(), "8".into(), "400".into()].map(Into::into));
            let mut child = Cmd::new(argv).spawn(file(&out), file(&log));
            let started = std::time::Instant::now();
            let mut peak = 0;
            while matches!(child.try_wait(), Ok(None))
                && started.elapsed() < Duration::from_secs(100)
            {
                peak = peak.max(children_peak(child.id()));
                std::thread::sleep(Duration::from_millis(20));
            }
            let end = cmd::wait(&mut child, Duration::from_secs(1));
            let text = |path| {
                String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
            };
            let (out, log) = (text(out), text(log));
            let context = format!("seed {seed} on {}", platform.name());
            assert!(!log.contains("panicked"), "{context}: {}", panic_of(&log));
            let said = out.lines().filter(|line| line.starts_with("fuzz:")).collect::<Vec<_>>();
            assert!(end == End::Code(0), "{context}: {end:?} {said:?}");
            assert_eq!(said, ["fuzz: survived, enough calls"], "{context}");
            assert!(peak < MEMORY_LIMIT, "{context}: {peak} KiB of memory");
        }
    }

    /// Returns the lines of a log around a panic.
    fn panic_of(log: &str) -> String {
        let lines: Vec<&str> = log.lines().collect();
        let at = lines.iter().position(|line| line.contains("panicked")).unwrap_or(0);
        lines.iter().skip(at).take(5).copied().collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn random_calls_systrap() {
        check(Platform::Systrap);
    }

    #[test]
    fn random_calls_ptrace() {
        check(Platform::Ptrace);
    }
}
