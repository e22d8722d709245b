//! Nothing that a program does may panic, hang or bloat the sandbox: fuzzers and scale, on each platform.
//!
//! A fuzzer's seeds are fixed, so a failure repeats; `FUZZ_SEEDS=100..200` tries others.

#[cfg(test)]
mod programs {
    use std::ops::Range;
    use std::path::PathBuf;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use test_harness::mode::runsc_argv;
    use test_harness::{Cmd, End, Platform, TempDir, cmd, locate};

    /// How much memory of its own a sentry may ever have had, in KiB.
    const MEMORY_LIMIT: u64 = 192 << 10;

    /// How long one program may take; far above what it needs on a loaded machine.
    const DEADLINE: Duration = Duration::from_secs(120);

    /// Returns the seeds to run: the first `count`, or the developer's.
    fn seeds(count: u64) -> Range<u64> {
        let wanted = std::env::var("FUZZ_SEEDS").unwrap_or_default();
        let numbers: Vec<u64> = wanted.split("..").filter_map(|part| part.parse().ok()).collect();
        match numbers[..] {
            [from, to] => from..to,
            _ => 1..count + 1,
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

    /// What a program in a sandbox did.
    struct Run {
        end: End,
        stdout: String,
        log: String,
        peak: u64,
    }

    /// Runs a guest program in `runsc do` and watches the memory of the sandbox.
    fn run(platform: Platform, program: &str, arguments: &[String]) -> Run {
        let dir = TempDir::new();
        let out = dir.join("out");
        let log = dir.join("log");
        let file = |path: &PathBuf| {
            Stdio::from(std::fs::File::create(path).unwrap_or_else(|error| panic!("{error}")))
        };
        let mut argv = runsc_argv(platform, &dir);
        argv.extend(["--debug".into(), "do".into(), locate::binary(program).into()]);
        argv.extend(arguments.iter().map(Into::into));
        let mut child = Cmd::new(argv).spawn(file(&out), file(&log));
        let started = Instant::now();
        let mut peak = 0;
        while matches!(child.try_wait(), Ok(None)) && started.elapsed() < DEADLINE {
            peak = peak.max(children_peak(child.id()));
            std::thread::sleep(Duration::from_millis(20));
        }
        let end = cmd::wait(&mut child, Duration::from_secs(1));
        let text =
            |path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        let run = Run { end, stdout: text(out), log: text(log), peak };
        let context = format!("{program} {arguments:?} on {}", platform.name());
        assert!(!run.log.contains("panicked"), "{context}: {}", panic_of(&run.log));
        assert!(run.peak < MEMORY_LIMIT, "{context}: {} KiB of memory", run.peak);
        run
    }

    /// Random calls or programs: the sandbox survives them.
    fn survives(platform: Platform, program: &str, how_many: &[&str], said_at_the_end: &str) {
        if !platform.is_wanted() {
            return;
        }
        for seed in seeds(3) {
            let mut arguments = vec![seed.to_string()];
            arguments.extend(how_many.iter().map(ToString::to_string));
            let run = run(platform, program, &arguments);
            let said: Vec<_> =
                run.stdout.lines().filter(|line| line.starts_with("fuzz:")).collect();
            assert_eq!(said, [said_at_the_end], "seed {seed}: {:?}", run.end);
            assert_eq!(run.end, End::Code(0), "seed {seed}");
        }
    }

    fn random_calls(platform: Platform) {
        survives(platform, "fuzz_calls", &["8", "400"], "fuzz: survived, enough calls");
    }

    fn damaged_programs(platform: Platform) {
        survives(platform, "fuzz_exec", &["300"], "fuzz: survived, enough executed");
    }

    /// A program that prints the same wherever it runs: a digest of what it saw, or its cases.
    fn agrees(platform: Platform, program: &str, arguments: &[String]) {
        if !platform.is_wanted() {
            return;
        }
        let mut argv = vec![locate::binary(program).into_os_string()];
        argv.extend(arguments.iter().map(Into::into));
        let native = Cmd::new(argv).deadline(DEADLINE).run().success();
        let run = run(platform, program, arguments);
        let context = format!("{program} {arguments:?} on {}", platform.name());
        for (line, (expected, seen)) in native.lines().zip(run.stdout.lines()).enumerate() {
            assert_eq!(expected, seen, "{context}, line {line}: native and sandbox");
        }
        assert_eq!((native, End::Code(0)), (run.stdout, run.end), "{context}");
    }

    /// Returns the lines of a log around a panic.
    fn panic_of(log: &str) -> String {
        let lines: Vec<&str> = log.lines().collect();
        let at = lines.iter().position(|line| line.contains("panicked")).unwrap_or(0);
        lines.iter().skip(at).take(5).copied().collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn random_calls_systrap() {
        random_calls(Platform::Systrap);
    }

    #[test]
    fn random_calls_ptrace() {
        random_calls(Platform::Ptrace);
    }

    #[test]
    fn damaged_programs_systrap() {
        damaged_programs(Platform::Systrap);
    }

    #[test]
    fn damaged_programs_ptrace() {
        damaged_programs(Platform::Ptrace);
    }

    #[test]
    fn scale_systrap() {
        agrees(Platform::Systrap, "scale", &[]);
    }

    #[test]
    fn scale_ptrace() {
        agrees(Platform::Ptrace, "scale", &[]);
    }

    /// Random sequences of ordinary calls: every result is the host's.
    fn same_results(platform: Platform, subject: &str) {
        // A step on memory looks at all of it.
        let (count, steps) = if subject == "memory" { (6, "400") } else { (12, "2000") };
        for seed in seeds(count) {
            let arguments = [subject.into(), seed.to_string(), steps.into()];
            agrees(platform, "fuzz_model", &arguments);
        }
    }

    #[test]
    fn files_systrap() {
        same_results(Platform::Systrap, "files");
    }

    #[test]
    fn files_ptrace() {
        same_results(Platform::Ptrace, "files");
    }

    #[test]
    fn memory_systrap() {
        same_results(Platform::Systrap, "memory");
    }

    #[test]
    fn memory_ptrace() {
        same_results(Platform::Ptrace, "memory");
    }

    #[test]
    fn signals_systrap() {
        same_results(Platform::Systrap, "signals");
    }

    #[test]
    fn signals_ptrace() {
        same_results(Platform::Ptrace, "signals");
    }

    /// Random sequences of calls on sockets: every result is the host's.
    fn same_sockets(platform: Platform) {
        for subject in ["unix", "tcp", "udp"] {
            for seed in seeds(12) {
                agrees(platform, "fuzz_sockets", &[subject.into(), seed.to_string(), "400".into()]);
            }
        }
    }

    #[test]
    fn sockets_systrap() {
        same_sockets(Platform::Systrap);
    }

    #[test]
    fn sockets_ptrace() {
        same_sockets(Platform::Ptrace);
    }

    /// Random things that processes do to each other: every result is the host's.
    fn same_teams(platform: Platform, subject: &str, steps: &str) {
        for seed in seeds(8) {
            agrees(platform, "fuzz_team", &[subject.into(), seed.to_string(), steps.into()]);
        }
    }

    #[test]
    fn processes_systrap() {
        same_teams(Platform::Systrap, "processes", "300");
    }

    #[test]
    fn processes_ptrace() {
        same_teams(Platform::Ptrace, "processes", "300");
    }

    #[test]
    fn locks_systrap() {
        same_teams(Platform::Systrap, "locks", "600");
    }

    #[test]
    fn locks_ptrace() {
        same_teams(Platform::Ptrace, "locks", "600");
    }

    #[test]
    fn pipes_systrap() {
        same_results(Platform::Systrap, "pipes");
    }

    #[test]
    fn pipes_ptrace() {
        same_results(Platform::Ptrace, "pipes");
    }
}
