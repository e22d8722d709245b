//! Guest programs, natively and in every sandbox: one test per subject and mode.
//!
//! Natively each case must pass, or the case is wrong. In a sandbox each must pass unless
//! `expectations/<mode>.toml` or `expectations/all.toml` names it.

#[cfg(test)]
mod subjects {
    use std::path::Path;
    use std::time::Duration;

    use test_harness::{Cmd, End, Expectations, Mode, Output, Rootfs, locate};

    /// The result of a case without a line.
    const MISSING: &str = "did not run";

    /// Runs a guest program in a mode.
    fn run(subject: &str, mode: Mode) -> Output {
        let rootfs = match mode {
            Mode::Bundle(_) | Mode::BundleOnHost(_) | Mode::Runc => {
                Rootfs::with_programs(&[subject])
            }
            Mode::Native | Mode::Do(_) | Mode::DoHost(_) => Rootfs::Host,
        };
        let program = match mode {
            Mode::Bundle(_) | Mode::BundleOnHost(_) | Mode::Runc => Path::new("/bin").join(subject),
            Mode::Native | Mode::Do(_) | Mode::DoHost(_) => locate::binary(subject),
        };
        mode.run(&Cmd::new([program]).deadline(Duration::from_secs(240)), &rootfs)
    }

    /// Returns the cases of a subject, in order.
    fn list(subject: &str) -> Vec<String> {
        let program = locate::binary(subject);
        let output = Cmd::new([program.as_os_str(), "--list".as_ref()]).run();
        output.success().lines().map(str::to_owned).collect()
    }

    /// Turns a program's output into one result per case.
    fn results(subject: &str, output: &Output) -> Vec<(String, Result<(), String>)> {
        let text = output.text();
        list(subject)
            .into_iter()
            .map(|case| {
                let result = text.lines().find_map(|line| {
                    if line.strip_prefix("ok ") == Some(case.as_str()) {
                        return Some(Ok(()));
                    }
                    let why = line
                        .strip_prefix("FAIL ")?
                        .strip_prefix(case.as_str())?
                        .strip_prefix(": ")?;
                    Some(Err(why.to_owned()))
                });
                (format!("{subject}/{case}"), result.unwrap_or_else(|| Err(MISSING.to_owned())))
            })
            .collect()
    }

    #[track_caller]
    fn check(subject: &str, mode: Mode) {
        if mode.platform().is_some_and(|platform| !platform.is_wanted()) {
            return;
        }
        let output = run(subject, mode);
        let folder = locate::workspace().join("tests/syscalls/expectations");
        let results = results(subject, &output);
        let expectations = match mode {
            Mode::Native => Expectations::default(),
            _ => {
                Expectations::read(&[folder.join("all.toml"), folder.join(format!("{mode}.toml"))])
            }
        };
        let any_ran =
            results.iter().any(|(_, result)| !matches!(result, Err(why) if why == MISSING));
        assert!(any_ran, "\n{mode}: no case of {subject} ran: {output:?}\n");
        let mut problems = expectations.check(&results);
        let all_passed = results.iter().all(|(_, result)| result.is_ok());
        if all_passed && output.end != End::Code(0) {
            problems.push(format!("{subject}: ended with {:?}", output.end));
        }
        if !output.stderr.is_empty() {
            problems
                .push(format!("{subject}: stderr: {}", String::from_utf8_lossy(&output.stderr)));
        }
        assert!(problems.is_empty(), "\n{mode}:\n  {}\n", problems.join("\n  "));
    }

    macro_rules! subjects {
        ($($subject:ident),* $(,)?) => {
            subjects!(@mode native, test_harness::Mode::Native, $($subject)*);
            subjects!(@mode runc, test_harness::Mode::Runc, $($subject)*);
            subjects!(@mode do_systrap, test_harness::Mode::Do(test_harness::Platform::Systrap), $($subject)*);
            subjects!(@mode do_ptrace, test_harness::Mode::Do(test_harness::Platform::Ptrace), $($subject)*);
            subjects!(@mode bundle_systrap, test_harness::Mode::Bundle(test_harness::Platform::Systrap), $($subject)*);
            subjects!(@mode bundle_ptrace, test_harness::Mode::Bundle(test_harness::Platform::Ptrace), $($subject)*);
        };
        (@mode $module:ident, $mode:expr, $($subject:ident)*) => {
            mod $module {
                $(#[test] fn $subject() { super::check(stringify!($subject), $mode); })*
            }
        };
    }

    /// The subjects that are mostly about tasks and their memory, with the other doorbell of systrap.
    mod do_systrap_futex {
        macro_rules! subjects {
            ($($subject:ident),* $(,)?) => {
                $(#[test] fn $subject() {
                    super::check(stringify!($subject), test_harness::Mode::Do(test_harness::Platform::SystrapFutex));
                })*
            };
        }

        subjects!(
            callers,
            coredump,
            counters,
            creds,
            exec,
            fault,
            futex,
            idle_sets,
            lent_devices,
            lent_files,
            lent_writes,
            memfd,
            mmap,
            notify,
            pipe,
            poll,
            process,
            procfs,
            ptrace,
            read_write,
            ready_sets,
            signal,
            sites,
            streams,
            streams_shared,
            streams_sockets,
            system,
            terminal,
            text,
            timer,
            tracing,
            umask,
        );
    }

    /// Those of calls that systrap may answer by itself, where it may not.
    mod do_systrap_slow {
        macro_rules! subjects {
            ($($subject:ident),* $(,)?) => {
                $(#[test] fn $subject() {
                    super::check(stringify!($subject), test_harness::Mode::Do(test_harness::Platform::SystrapSlow));
                })*
            };
        }

        subjects!(
            counters,
            creds,
            futex,
            idle_sets,
            lent_devices,
            lent_files,
            lent_writes,
            pipe,
            process,
            ready_sets,
            signal,
            sites,
            streams,
            streams_shared,
            streams_sockets,
            text,
            umask
        );
    }

    /// The subjects that are about the content of files, with the host's own.
    mod on_host_files {
        macro_rules! subjects {
            ($($subject:ident),* $(,)?) => {
                mod systrap { $(#[test] fn $subject() {
                    crate::subjects::check(stringify!($subject), test_harness::Mode::BundleOnHost(test_harness::Platform::Systrap));
                })* }
                mod systrap_futex { $(#[test] fn $subject() {
                    crate::subjects::check(stringify!($subject), test_harness::Mode::BundleOnHost(test_harness::Platform::SystrapFutex));
                })* }
                mod ptrace { $(#[test] fn $subject() {
                    crate::subjects::check(stringify!($subject), test_harness::Mode::BundleOnHost(test_harness::Platform::Ptrace));
                })* }
            };
        }
        subjects!(large_writes, lent_files, lent_writes, read_write);
    }

    /// The subjects that concern the network, with the host's network passed through.
    mod host_network {
        use test_harness::{Mode, Platform};

        #[test]
        fn socket_tcp() {
            super::check("socket_tcp", Mode::DoHost(Platform::Systrap));
        }

        #[test]
        fn socket_more() {
            super::check("socket_more", Mode::DoHost(Platform::Systrap));
        }

        #[test]
        fn socket_udp() {
            super::check("socket_udp", Mode::DoHost(Platform::Systrap));
        }

        #[test]
        fn netlink() {
            super::check("netlink", Mode::DoHost(Platform::Systrap));
        }
    }

    subjects!(
        acl,
        aio,
        callers,
        coredump,
        counters,
        creds,
        dir,
        exec,
        fault,
        fcntl,
        futex,
        idle_sets,
        keys,
        landlock,
        large_writes,
        late_calls,
        lease,
        lent_devices,
        lent_files,
        lent_writes,
        memfd,
        mmap,
        mount_api,
        mqueue,
        namespaces,
        netlink,
        notify,
        open,
        overlay,
        path,
        pipe,
        poll,
        process,
        procfs,
        ptrace,
        read_write,
        ready_sets,
        seccomp,
        signal,
        sites,
        socket,
        socket_more,
        socket_options,
        socket_raw,
        socket_ports,
        socket_stamps,
        socket_tcp,
        socket_udp,
        socket_urgent,
        stat,
        streams,
        streams_shared,
        streams_sockets,
        system,
        sysv_ipc,
        sysv_msg,
        sysv_sem,
        terminal,
        text,
        timer,
        tracing,
        umask,
        unotify,
        variants,
        xattr,
    );
}
