//! `/proc`: what programs read there, in Linux's format.

use guest_tests::fs::{open, text};
use guest_tests::mem::{Map, PAGE};
use guest_tests::proc::{self, child, pid, sleep, until, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sys};

fn file(path: &str) -> Result<String, std::io::Error> {
    std::fs::read_to_string(path)
}

fn listing_has_processes() -> Outcome {
    let child = ok!(child(|| {
        sleep(std::time::Duration::from_secs(20));
        0
    }));
    let names: Vec<String> = ok!(std::fs::read_dir("/proc"))
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    for name in [
        pid().to_string(),
        child.to_string(),
        "self".into(),
        "meminfo".into(),
        "mounts".into(),
        "stat".into(),
    ] {
        check!(names.contains(&name), "no {name}");
    }
    ok!(sys!(SYS_kill, child, libc::SIGKILL));
    ok!(wait(child));
    check!(file(&format!("/proc/{child}/stat")).is_err());
    Ok(())
}

fn stat_fields() -> Outcome {
    let line = ok!(file("/proc/self/stat"));
    let (head, tail) = ok!(line.split_once(" (").ok_or("no name"));
    eq!(head, pid().to_string());
    let (name, rest) = ok!(tail.rsplit_once(") ").ok_or("no end of name"));
    eq!(name, "procfs");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    eq!(fields.len(), 50);
    eq!(fields[0], "R");
    eq!(fields[1], ok!(sys!(SYS_getppid)).to_string());
    eq!(fields[2], ok!(sys!(SYS_getpgrp)).to_string());
    eq!(fields[17], "1");
    for field in &fields[1..] {
        check!(field.parse::<i128>().is_ok(), "not a number: {field}");
    }
    Ok(())
}

fn status_fields() -> Outcome {
    let status = ok!(file("/proc/self/status"));
    for start in [
        "Name:\tprocfs\n",
        "State:\tR (running)\n",
        "Umask:\t",
        "Tgid:\t",
        "Pid:\t",
        "PPid:\t",
        "TracerPid:\t0\n",
        "Uid:\t0\t0\t0\t0\n",
        "Gid:\t0\t0\t0\t0\n",
        "FDSize:\t",
        "VmPeak:\t",
        "VmSize:\t",
        "VmRSS:\t",
        "VmData:\t",
        "Threads:\t1\n",
        "SigQ:\t",
        "SigPnd:\t0000000000000000\n",
        "SigBlk:\t0000000000000000\n",
        "SigIgn:\t",
        "SigCgt:\t",
        "CapInh:\t",
        "CapPrm:\t",
        "CapEff:\t",
        "CapBnd:\t",
        "CapAmb:\t",
        "NoNewPrivs:\t0\n",
        "Seccomp:\t",
        "Cpus_allowed:\t",
        "Cpus_allowed_list:\t",
        "voluntary_ctxt_switches:\t",
        "nonvoluntary_ctxt_switches:\t",
    ] {
        check!(status.contains(start), "no {start:?}");
    }
    Ok(())
}

fn statm_has_seven_numbers() -> Outcome {
    let line = ok!(file("/proc/self/statm"));
    let numbers: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
    eq!(numbers.len(), 7);
    check!(numbers[0] > 0 && numbers[0] >= numbers[1]);
    Ok(())
}

fn descriptors_and_their_info() -> Outcome {
    let fd = ok!(open(c"file-here", libc::O_CREAT | libc::O_RDWR | libc::O_APPEND));
    ok!(guest_tests::fs::write(fd, b"12345"));
    let link = ok!(std::fs::read_link(format!("/proc/self/fd/{fd}")));
    check!(link.ends_with("procfs_case/file-here") || link.ends_with("file-here"));
    let info = ok!(file(&format!("/proc/self/fdinfo/{fd}")));
    check!(info.starts_with("pos:\t5\nflags:\t0102002\nmnt_id:\t"), "{info}");
    let (reader, _writer) = ok!(guest_tests::fs::pipe(0));
    let link = ok!(std::fs::read_link(format!("/proc/self/fd/{reader}")));
    let link = link.display().to_string();
    check!(link.starts_with("pipe:[") && link.ends_with(']'));
    let listed = ok!(std::fs::read_dir("/proc/self/fd")).count();
    check!(listed >= 5);
    let stat = ok!(guest_tests::fs::stat_at(
        libc::AT_FDCWD,
        c"/proc/self/fd/0",
        libc::AT_SYMLINK_NOFOLLOW
    ));
    eq!(stat.st_mode & libc::S_IFMT, libc::S_IFLNK);
    fails!(open(c"/proc/self/fd/999", 0), ENOENT);
    Ok(())
}

fn events_and_their_info() -> Outcome {
    let info = |fd: usize| -> Result<String, std::io::Error> {
        let text = file(&format!("/proc/self/fdinfo/{fd}"))?;
        let own = |line: &&str| {
            !["pos:", "flags:", "mnt_id:", "ino:"].iter().any(|s| line.starts_with(s))
        };
        Ok(text.lines().filter(own).fold(String::new(), |all, line| all + line + "\n"))
    };
    let counter = ok!(sys!(SYS_eventfd2, 0x1f, libc::EFD_SEMAPHORE));
    let text = ok!(info(counter));
    let (start, rest) = text.split_once("eventfd-id: ").unwrap_or_default();
    eq!(start, "eventfd-count:               1f\n");
    check!(rest.ends_with("\neventfd-semaphore: 1\n"), "{text}");
    let timer = ok!(sys!(SYS_timerfd_create, libc::CLOCK_BOOTTIME, 0));
    let unset = "clockid: 7\nticks: 0\nsettime flags: 00\nit_value: (0, 0)\nit_interval: (0, 0)\n";
    eq!(ok!(info(timer)), unset);
    // Its first time is over, and then there is none before somebody has read.
    ok!(sys!(SYS_timerfd_settime, timer, 1, &[1_000_000u64, 5, 0, 1], 0));
    eq!(
        ok!(info(timer)),
        "clockid: 7\nticks: 1\nsettime flags: 01\nit_value: (0, 0)\nit_interval: (1000000, 5)\n"
    );
    let signals = ok!(sys!(SYS_signalfd4, -1, &[0x2_0000_0200u64], 8, 0));
    eq!(ok!(info(signals)), "sigmask:\t0000000200000200\n");
    let set = ok!(sys!(SYS_epoll_create1, 0));
    let event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0xabcd };
    ok!(sys!(SYS_epoll_ctl, set, libc::EPOLL_CTL_ADD, counter, &event));
    let text = ok!(info(set));
    let (start, _) = text.split_once(" ino:").unwrap_or_default();
    eq!(start, format!("tfd: {counter:8} events:       19 data:             abcd  pos:0"));
    Ok(())
}

fn command_line_and_environment() -> Outcome {
    let line = ok!(std::fs::read("/proc/self/cmdline"));
    check!(line.ends_with(b"\0"));
    let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
    check!(first.ends_with(b"procfs"));
    let env = ok!(std::fs::read("/proc/self/environ"));
    check!(env.split(|byte| *byte == 0).any(|var| var.starts_with(b"PATH=")));
    let exe = ok!(std::fs::read_link("/proc/self/exe"));
    check!(exe.ends_with("procfs"));
    Ok(())
}

fn name_can_be_written() -> Outcome {
    ok!(std::fs::write("/proc/self/comm", "new-name"));
    eq!(ok!(text(c"/proc/self/comm")), "new-name\n");
    let mut name = [0u8; 16];
    ok!(sys!(SYS_prctl, libc::PR_GET_NAME, &mut name, 0, 0, 0));
    check!(name.starts_with(b"new-name\0"));
    Ok(())
}

fn threads_are_listed() -> Outcome {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || receiver.recv().is_err());
    let tasks = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    check!(until(|| tasks() == 2));
    drop(sender);
    check!(thread.join().unwrap_or(false));
    check!(until(|| tasks() == 1));
    Ok(())
}

fn memory_maps_of_another_process() -> Outcome {
    let map = ok!(Map::anonymous(3 * PAGE, libc::MAP_PRIVATE));
    let pid = ok!(child(|| {
        sleep(std::time::Duration::from_secs(20));
        0
    }));
    let maps = ok!(file(&format!("/proc/{pid}/maps")));
    check!(maps.lines().any(|line| {
        let mut ends = line.split([' ', '-']);
        let start = usize::from_str_radix(ends.next().unwrap_or_default(), 16).unwrap_or_default();
        let end = usize::from_str_radix(ends.next().unwrap_or_default(), 16).unwrap_or_default();
        start <= map.addr && map.addr + map.len <= end
    }));
    let smaps = ok!(file(&format!("/proc/{pid}/smaps")));
    check!(smaps.contains("\nSize:") && smaps.contains("\nRss:") && smaps.contains("\nVmFlags:"));
    ok!(sys!(SYS_kill, pid, libc::SIGKILL));
    ok!(wait(pid));
    Ok(())
}

fn memory_file_reads() -> Outcome {
    use std::os::unix::fs::FileExt;
    let map = ok!(Map::anonymous(PAGE, libc::MAP_PRIVATE));
    map.bytes()[..5].copy_from_slice(b"found");
    let mem = ok!(std::fs::File::open("/proc/self/mem"));
    let mut buf = [0u8; 5];
    ok!(mem.read_exact_at(&mut buf, map.addr as u64));
    eq!(&buf, b"found");
    check!(mem.read_exact_at(&mut buf, 0x1000).is_err());
    Ok(())
}

fn system_files() -> Outcome {
    let meminfo = ok!(file("/proc/meminfo"));
    for start in ["MemTotal:", "MemFree:", "MemAvailable:", "Buffers:", "Cached:", "SwapTotal:"] {
        check!(meminfo.contains(start), "no {start}");
    }
    let cpuinfo = ok!(file("/proc/cpuinfo"));
    check!(cpuinfo.contains("processor\t: 0\n") && cpuinfo.contains("flags\t"));
    let stat = ok!(file("/proc/stat"));
    for start in ["cpu  ", "cpu0 ", "\nbtime ", "\nprocesses "] {
        check!(stat.contains(start), "no {start}");
    }
    let uptime = ok!(file("/proc/uptime"));
    check!(uptime.split_whitespace().filter_map(|word| word.parse::<f64>().ok()).count() == 2);
    check!(ok!(file("/proc/loadavg")).split_whitespace().count() == 5);
    check!(ok!(file("/proc/version")).starts_with("Linux version "));
    let systems = ok!(file("/proc/filesystems"));
    check!(systems.contains("nodev\tproc\n") && systems.contains("nodev\ttmpfs\n"));
    check!(ok!(file("/proc/mounts")).lines().any(|line| line.contains(" / ")));
    check!(ok!(file("/proc/self/mountinfo")).lines().any(|line| line.contains(" - proc ")));
    check!(ok!(file("/proc/cmdline")).ends_with('\n'));
    Ok(())
}

fn caches_of_processors() -> Outcome {
    let first = "/sys/devices/system/cpu/cpu0/cache/index0";
    let number = |name: &str| -> Result<u64, String> {
        let text = ok!(file(&format!("{first}/{name}")));
        text.trim_end().trim_end_matches('K').parse().map_err(|_| format!("{name}: {text:?}"))
    };
    match sys!(SYS_access, c"/sys/devices/system/cpu/cpu0/cache/index0", 0) {
        // The machine says nothing of its caches, or there is no such file system.
        Err(libc::ENOENT) => return Ok(()),
        result => ok!(result),
    };
    eq!(number("level")?, 1);
    let line = number("coherency_line_size")?;
    check!(line.is_power_of_two() && (16..=1024).contains(&line));
    let partitions = number("physical_line_partition")?;
    let bytes = line * partitions * number("ways_of_associativity")? * number("number_of_sets")?;
    eq!(number("size")? * 1024, bytes);
    check!(["Data\n", "Unified\n"].contains(&ok!(file(&format!("{first}/type"))).as_str()));
    check!(ok!(file(&format!("{first}/shared_cpu_list"))).starts_with('0'));
    Ok(())
}

fn sysctls() -> Outcome {
    for (path, least) in [
        ("/proc/sys/kernel/pid_max", 1000u64),
        ("/proc/sys/fs/pipe-max-size", 4096),
        ("/proc/sys/fs/nr_open", 1024),
        ("/proc/sys/kernel/cap_last_cap", 30),
        ("/proc/sys/kernel/ngroups_max", 1000),
        ("/proc/sys/vm/max_map_count", 1000),
    ] {
        let value = ok!(file(path));
        check!(value.trim().parse::<u64>().is_ok_and(|value| value >= least), "{path}: {value}");
    }
    eq!(ok!(file("/proc/sys/kernel/ostype")), "Linux\n");
    check!(ok!(file("/proc/sys/kernel/osrelease")).contains('.'));
    eq!(ok!(file("/proc/sys/kernel/random/uuid")).len(), 37);
    check!(ok!(file("/proc/sys/kernel/random/uuid")) != ok!(file("/proc/sys/kernel/random/uuid")));
    ok!(file("/proc/sys/vm/overcommit_memory"));
    ok!(file("/proc/sys/kernel/randomize_va_space"));
    Ok(())
}

fn limits_file() -> Outcome {
    let limits = ok!(file("/proc/self/limits"));
    check!(limits.starts_with(
        "Limit                     Soft Limit           Hard Limit           Units     \n"
    ));
    check!(limits.contains("\nMax open files            "));
    eq!(limits.lines().count(), 17);
    Ok(())
}

fn oom_score_can_be_set() -> Outcome {
    let before = ok!(file("/proc/self/oom_score_adj"));
    check!(before.trim().parse::<i32>().is_ok());
    ok!(std::fs::write("/proc/self/oom_score_adj", "500"));
    eq!(ok!(file("/proc/self/oom_score_adj")), "500\n");
    check!(std::fs::write("/proc/self/oom_score_adj", "5000").is_err());
    Ok(())
}

fn most_files_are_read_only() -> Outcome {
    proc::in_child(|| {
        ok!(proc::drop_root());
        fails!(open(c"/proc/meminfo", libc::O_WRONLY), EACCES);
        fails!(open(c"/proc/sys/kernel/pid_max", libc::O_WRONLY), EACCES);
        fails!(sys!(SYS_mkdir, c"/proc/new", 0o755), ENOENT);
        fails!(open(c"/proc/1/environ", libc::O_RDONLY), EACCES);
        Ok(())
    })
}

fn cgroup_and_namespaces() -> Outcome {
    check!(!ok!(file("/proc/self/cgroup")).is_empty());
    for (name, start) in [
        ("pid", "pid:["),
        ("mnt", "mnt:["),
        ("net", "net:["),
        ("user", "user:["),
        ("uts", "uts:["),
        ("ipc", "ipc:["),
    ] {
        let link = ok!(std::fs::read_link(format!("/proc/self/ns/{name}")));
        check!(link.display().to_string().starts_with(start));
    }
    check!(ok!(file("/proc/self/uid_map")).split_whitespace().count() == 3);
    Ok(())
}

fn partial_and_positioned_reads() -> Outcome {
    let fd = ok!(open(c"/proc/self/status", 0));
    let whole = ok!(guest_tests::fs::read_all(fd));
    let mut middle = [0u8; 10];
    eq!(ok!(sys!(SYS_pread64, fd, &mut middle, 10, 3)), 10);
    eq!(&middle[..], &whole[3..13]);
    ok!(guest_tests::fs::seek(fd, 0, libc::SEEK_SET));
    let mut first = [0u8; 4];
    ok!(guest_tests::fs::read(fd, &mut first));
    eq!(&first, b"Name");
    eq!(ok!(guest_tests::fs::fstat(fd)).st_size, 0);
    Ok(())
}

/// Returns a number of kibibytes from `/proc/self/status`.
fn kib(name: &str) -> Result<u64, String> {
    let status = file("/proc/self/status").map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":"));
    let number = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
    number.ok_or_else(|| format!("{name} in {status}"))
}

fn resident_sizes_follow_use() -> Outcome {
    const KIB: u64 = 32 << 10;
    const MOST: u64 = KIB * 3 / 4;
    // Linux counts in batches for each CPU.
    const SLACK: u64 = 2 << 10;
    let pages = || -> u64 {
        let statm = file("/proc/self/statm").unwrap_or_default();
        statm.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or(0)
    };
    let before = kib("VmRSS")?;
    check!(before > 0 && kib("RssFile")? + kib("RssAnon")? <= before + SLACK);
    let map = ok!(Map::anonymous(KIB as usize * 1024, libc::MAP_PRIVATE));
    check!(kib("VmRSS")? < before + MOST, "untouched memory is not resident");
    map.bytes().fill(1);
    let during = kib("VmRSS")?;
    check!(during >= before + MOST, "{before} {during}");
    check!(kib("RssAnon")? >= MOST && kib("VmHWM")? + SLACK >= during);
    check!(pages() * 4 >= MOST);
    let rollup = ok!(file("/proc/self/smaps_rollup"));
    let rss = rollup.lines().find_map(|line| line.strip_prefix("Rss:")?.strip_suffix("kB"));
    check!(rss.and_then(|kib| kib.trim().parse().ok()).unwrap_or(0) >= MOST, "{rollup}");
    drop(map);
    let after = kib("VmRSS")?;
    check!(after + MOST <= during, "{during} {after}");
    check!(kib("VmHWM")? + SLACK >= during);
    Ok(())
}

fn transfers_and_waits_are_counted() -> Outcome {
    let number = |path: &str, name: &str| -> Result<u64, String> {
        let text = file(path).map_err(|error| error.to_string())?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.trim().parse().ok()).ok_or(format!("no {name}"))
    };
    let io = |name| number("/proc/self/io", name);
    let before = (io("rchar")?, io("syscr")?, io("wchar")?, io("syscw")?);
    let (zero, null) = (ok!(open(c"/dev/zero", 0)), ok!(open(c"/dev/null", libc::O_WRONLY)));
    let mut buf = [0u8; 5000];
    eq!(ok!(sys!(SYS_read, zero, &mut buf, 5000)), 5000);
    eq!(ok!(sys!(SYS_write, null, &buf, 3000)), 3000);
    check!(io("rchar")? >= before.0 + 5000);
    check!(io("syscr")? > before.1);
    check!(io("wchar")? >= before.2 + 3000);
    check!(io("syscw")? > before.3);
    let waits = || number("/proc/thread-self/status", "voluntary_ctxt_switches");
    let before = waits()?;
    sleep(std::time::Duration::from_millis(2));
    check!(waits()? > before);
    Ok(())
}

/// `struct procmap_query` as words; the last but two is the sizes of name and build id.
fn map_query(words: &mut [u64; 13]) -> Result<usize, i32> {
    let fd = open(c"/proc/self/maps", libc::O_RDONLY)?;
    let result = sys!(SYS_ioctl, fd, 0xc068_6611u32, words.as_mut_ptr());
    guest_tests::fs::close(fd)?;
    result
}

fn maps_can_be_queried() -> Outcome {
    let map = ok!(Map::anonymous(3 * PAGE, libc::MAP_PRIVATE));
    let start = map.bytes().as_ptr().addr() as u64;
    ok!(sys!(SYS_mprotect, start + PAGE as u64, PAGE, libc::PROT_NONE));
    let query = |flags: u64, addr: u64| {
        let mut words = [0; 13];
        [words[0], words[1], words[2]] = [104, flags, addr];
        map_query(&mut words).map(|_| words)
    };
    let middle = start + PAGE as u64;
    let found = match query(0, middle + 5) {
        // Linux has it from 6.11 on.
        Err(libc::ENOTTY) if old_kernel() => return Ok(()),
        other => ok!(other),
    };
    eq!(found[3..9], [middle, middle + PAGE as u64, 0, 4096, 0, 0]);
    let next = ok!(query(0x10 | 2, middle));
    eq!(next[3], middle + PAGE as u64);
    eq!(next[5] & 0xf, 3);
    fails!(query(2, middle), ENOENT);
    fails!(query(0, 4096), ENOENT);
    fails!(query(0x40, middle), EINVAL);
    check!(ok!(query(0x10, 0))[3] > 0);
    // The program's text, with its name.
    let text = maps_can_be_queried as *const () as u64;
    let mut name = [0u8; 4096];
    let mut words = [0; 13];
    [words[0], words[1], words[2]] = [104, 0x20, text];
    [words[10], words[11]] = [name.len() as u64, name.as_mut_ptr().addr() as u64];
    ok!(map_query(&mut words));
    eq!(words[5] & 0xf, 5);
    let len = (words[10] & 0xffff_ffff) as usize;
    check!(name[..len].ends_with(b"/procfs\0"), "{:?}", String::from_utf8_lossy(&name[..len]));
    words[10] = 3;
    fails!(map_query(&mut words), ENAMETOOLONG);
    let mut short = [0; 13];
    short[0] = 8;
    fails!(map_query(&mut short), EINVAL);
    short[0] = 8192;
    fails!(map_query(&mut short), E2BIG);
    Ok(())
}

/// Returns whether this is a Linux before 6.11.
fn old_kernel() -> bool {
    let release = text(c"/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) < (Some(6), Some(11))
}

guest_tests::cases!(
    listing_has_processes,
    stat_fields,
    status_fields,
    statm_has_seven_numbers,
    descriptors_and_their_info,
    events_and_their_info,
    command_line_and_environment,
    name_can_be_written,
    threads_are_listed,
    memory_maps_of_another_process,
    memory_file_reads,
    system_files,
    caches_of_processors,
    sysctls,
    limits_file,
    oom_score_can_be_set,
    most_files_are_read_only,
    cgroup_and_namespaces,
    partial_and_positioned_reads,
    resident_sizes_follow_use,
    transfers_and_waits_are_counted,
    maps_can_be_queried,
);
