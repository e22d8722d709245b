//! The cheap part of what `bench/SPEC.md` promises, with generous margins: ratios to the host and to runc alone.

#[cfg(test)]
mod promised {
    use std::ffi::OsString;
    use std::path::Path;
    use std::time::Duration;

    use test_harness::{Cmd, End, locate};

    /// What takes a second or so, and is far from its limit.
    const CHEAP: &str = "getpid,getppid,clock_gettime,start_true,idle_memory";

    /// By how much a promise may be exceeded: others may use the machine.
    const MARGIN: &str = "3";

    #[test]
    fn cheap_ratios_hold() {
        let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../SPEC.md");
        let runsc = locate::runsc();
        let guest = locate::binary("bench-guest");
        let bench = || {
            let mut argv: Vec<OsString> = vec![env!("CARGO_BIN_EXE_bench").into()];
            for (flag, path) in [("--runsc", &runsc), ("--guest", &guest), ("--check", &spec)] {
                argv.extend([OsString::from(flag), path.into()]);
            }
            let words = ["--rounds", "3", "--only", CHEAP, "--margin", MARGIN];
            argv.extend(words.map(OsString::from));
            argv.extend(["--runtimes", "native,runc,ours-systrap"].map(OsString::from));
            Cmd::new(argv).deadline(Duration::from_secs(300)).run()
        };
        let first = bench();
        if first.end == End::Code(0) {
            return;
        }
        // What is not just noise is so twice.
        let second = bench();
        assert!(
            second.end == End::Code(0),
            "{}\n{}\n{}",
            String::from_utf8_lossy(&first.stderr),
            second.text(),
            String::from_utf8_lossy(&second.stderr)
        );
    }
}
