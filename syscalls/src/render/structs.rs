//! Structures.

use core::fmt::{self, Write};

use zerocopy::FromBytes;

use super::value::{self, Octal, read_prefix};
use crate::abi::{capability, clone, fs, ioctl, poll, resource, sched, signal, socket, time, uts};
use crate::info::{FlagSet, OPEN, Struct};

/// Prints a structure from its bytes; `addr` stands for one that has no notation.
pub(super) fn structure(
    structure: Struct,
    bytes: &[u8],
    addr: u64,
    out: &mut dyn Write,
) -> fmt::Result {
    match try_structure(structure, bytes, out) {
        Some(result) => result,
        None => write!(out, "{addr:#x}"),
    }
}

fn try_structure(structure: Struct, bytes: &[u8], out: &mut dyn Write) -> Option<fmt::Result> {
    Some(match structure {
        Struct::Int => write!(out, "[{}]", read_prefix::<i32>(bytes)?),
        Struct::UInt => write!(out, "[{}]", read_prefix::<u32>(bytes)?),
        Struct::Long => write!(out, "[{}]", read_prefix::<i64>(bytes)?),
        Struct::Pointer => write!(out, "[{:#x}]", read_prefix::<u64>(bytes)?),
        Struct::IntPair => {
            let [a, b] = read_prefix::<[i32; 2]>(bytes)?;
            write!(out, "[{a}, {b}]")
        }
        Struct::Bytes => quoted(bytes, out),
        Struct::OptVal => match <[u8; 4]>::try_from(bytes) {
            Ok(word) => write!(out, "[{}]", i32::from_le_bytes(word)),
            Err(_) => quoted(bytes, out),
        },
        Struct::WaitStatus => wait_status(read_prefix(bytes)?, out),
        Struct::Timespec => timespec(read_prefix(bytes)?, out),
        Struct::Timeval => timeval(read_prefix(bytes)?, out),
        Struct::TimespecPair => {
            let [a, b] = read_prefix::<[time::Timespec; 2]>(bytes)?;
            pair(a, b, timespec, out)
        }
        Struct::TimevalPair => {
            let [a, b] = read_prefix::<[time::Timeval; 2]>(bytes)?;
            pair(a, b, timeval, out)
        }
        Struct::Itimerspec => {
            let timer = read_prefix::<time::Itimerspec>(bytes)?;
            interval(timer.it_interval, timer.it_value, timespec, out)
        }
        Struct::Itimerval => {
            let timer = read_prefix::<time::Itimerval>(bytes)?;
            interval(timer.it_interval, timer.it_value, timeval, out)
        }
        Struct::SigSet => value::signal_set(read_prefix(bytes)?, out),
        Struct::Sigaction => sigaction(&read_prefix(bytes)?, out),
        Struct::Siginfo => siginfo(&read_prefix(bytes)?, out),
        Struct::Stackt => stack(&read_prefix(bytes)?, out),
        Struct::Sigevent => sigevent(&read_prefix(bytes)?, out),
        Struct::Stat => stat(&read_prefix(bytes)?, out),
        Struct::Statx => statx(&read_prefix(bytes)?, out),
        Struct::Statfs => statfs(&read_prefix(bytes)?, out),
        Struct::OpenHow => open_how(&read_prefix(bytes)?, out),
        Struct::Flock => flock(&read_prefix(bytes)?, out),
        Struct::Utimbuf => {
            let times = read_prefix::<fs::Utimbuf>(bytes)?;
            write!(out, "{{actime={}, modtime={}}}", times.actime, times.modtime)
        }
        Struct::Pollfd => pollfd(read_prefix(bytes)?, out),
        Struct::EpollEvent => epoll_event(read_prefix(bytes)?, out),
        Struct::Iovec => {
            let iov = read_prefix::<socket::Iovec>(bytes)?;
            write!(out, "{{iov_base={:#x}, iov_len={}}}", iov.iov_base, iov.iov_len)
        }
        Struct::Sockaddr => sockaddr(bytes, out),
        Struct::Rlimit => rlimit(read_prefix(bytes)?, out),
        Struct::Rusage => rusage(&read_prefix(bytes)?, out),
        Struct::CloneArgs => clone_args(bytes, out),
        Struct::CapUserHeader => {
            let header = read_prefix::<capability::CapUserHeader>(bytes)?;
            write!(out, "{{version={:#x}, pid={}}}", header.version, header.pid)
        }
        Struct::CapUserData => capabilities(read_prefix(bytes)?, out),
        Struct::SchedParam => {
            write!(out, "[{}]", read_prefix::<sched::SchedParam>(bytes)?.sched_priority)
        }
        Struct::Utsname => utsname(&read_prefix(bytes)?, out),
        Struct::Sysinfo => sysinfo(&read_prefix(bytes)?, out),
        Struct::Winsize => {
            let size = read_prefix::<ioctl::Winsize>(bytes)?;
            write!(
                out,
                "{{ws_row={}, ws_col={}, ws_xpixel={}, ws_ypixel={}}}",
                size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel
            )
        }
        Struct::Termios => termios(&read_prefix(bytes)?, out),
        Struct::Tms => {
            let tms = read_prefix::<time::Tms>(bytes)?;
            write!(
                out,
                "{{tms_utime={}, tms_stime={}, tms_cutime={}, tms_cstime={}}}",
                tms.tms_utime, tms.tms_stime, tms.tms_cutime, tms.tms_cstime
            )
        }
        _ => return None,
    })
}

fn quoted(bytes: &[u8], out: &mut dyn Write) -> fmt::Result {
    out.write_str("\"")?;
    value::escaped(bytes.get(..super::MAX_BYTES).unwrap_or(bytes), out)?;
    out.write_str(if bytes.len() > super::MAX_BYTES { "\"..." } else { "\"" })
}

/// Prints a member of a structure that is a word of flags.
fn field_flags(name: &str, set: FlagSet, word: u64, out: &mut dyn Write) -> fmt::Result {
    out.write_str(name)?;
    value::flags(set, word, out)
}

fn timespec(time: time::Timespec, out: &mut dyn Write) -> fmt::Result {
    match time.tv_nsec {
        fs::UTIME_NOW => out.write_str("UTIME_NOW"),
        fs::UTIME_OMIT => out.write_str("UTIME_OMIT"),
        _ => write!(out, "{{tv_sec={}, tv_nsec={}}}", time.tv_sec, time.tv_nsec),
    }
}

fn timeval(time: time::Timeval, out: &mut dyn Write) -> fmt::Result {
    write!(out, "{{tv_sec={}, tv_usec={}}}", time.tv_sec, time.tv_usec)
}

fn pair<T>(
    a: T,
    b: T,
    print: fn(T, &mut dyn Write) -> fmt::Result,
    out: &mut dyn Write,
) -> fmt::Result {
    out.write_str("[")?;
    print(a, out)?;
    out.write_str(", ")?;
    print(b, out)?;
    out.write_str("]")
}

fn interval<T>(
    interval: T,
    value: T,
    print: fn(T, &mut dyn Write) -> fmt::Result,
    out: &mut dyn Write,
) -> fmt::Result {
    out.write_str("{it_interval=")?;
    print(interval, out)?;
    out.write_str(", it_value=")?;
    print(value, out)?;
    out.write_str("}")
}

fn wait_status(status: i32, out: &mut dyn Write) -> fmt::Result {
    let signo = status & 0x7f;
    let high = (status >> 8) & 0xff;
    match (status, signo) {
        (0xffff, _) => out.write_str("[{WIFCONTINUED(s)}]"),
        (_, 0) => write!(out, "[{{WIFEXITED(s) && WEXITSTATUS(s) == {high}}}]"),
        (_, 0x7f) => {
            out.write_str("[{WIFSTOPPED(s) && WSTOPSIG(s) == ")?;
            value::signal(high, out)?;
            out.write_str("}]")
        }
        _ => {
            out.write_str("[{WIFSIGNALED(s) && WTERMSIG(s) == ")?;
            value::signal(signo, out)?;
            out.write_str(if status & 0x80 != 0 { " && WCOREDUMP(s)}]" } else { "}]" })
        }
    }
}

fn handler(addr: u64, out: &mut dyn Write) -> fmt::Result {
    match addr {
        signal::SIG_DFL => out.write_str("SIG_DFL"),
        signal::SIG_IGN => out.write_str("SIG_IGN"),
        _ => write!(out, "{addr:#x}"),
    }
}

fn sigaction(action: &signal::Sigaction, out: &mut dyn Write) -> fmt::Result {
    out.write_str("{sa_handler=")?;
    handler(action.handler, out)?;
    out.write_str(", sa_mask=")?;
    value::signal_set(action.mask, out)?;
    field_flags(", sa_flags=", FlagSet::of::<signal::SaFlags>(), action.flags, out)?;
    write!(out, ", sa_restorer={:#x}}}", action.restorer)
}

fn siginfo(info: &signal::Siginfo, out: &mut dyn Write) -> fmt::Result {
    out.write_str("{si_signo=")?;
    value::signal(info.si_signo, out)?;
    out.write_str(", si_code=")?;
    let codes = match info.si_signo {
        signal::SIGCHLD => signal::CLD_NAMES,
        signal::SIGSEGV => signal::SEGV_NAMES,
        signal::SIGBUS => signal::BUS_NAMES,
        signal::SIGFPE => signal::FPE_NAMES,
        signal::SIGILL => signal::ILL_NAMES,
        signal::SIGTRAP => signal::TRAP_NAMES,
        signal::SIGIO => signal::POLL_CODE_NAMES,
        _ => &[],
    };
    let code = i64::from(info.si_code).cast_unsigned();
    match value::name_of(signal::SI_CODE_NAMES, code).or_else(|| value::name_of(codes, code)) {
        Some(name) => out.write_str(name)?,
        None => write!(out, "{}", info.si_code)?,
    }
    match (info.si_code, info.si_signo) {
        (signal::SI_TIMER, _) => write!(
            out,
            ", si_timerid={}, si_overrun={}, si_value={:#x}}}",
            info.timer_id(),
            info.overrun(),
            info.value()
        ),
        (..=0, _) => write!(out, ", si_pid={}, si_uid={}}}", info.pid(), info.uid()),
        (_, signal::SIGCHLD) => write!(
            out,
            ", si_pid={}, si_uid={}, si_status={}}}",
            info.pid(),
            info.uid(),
            info.status()
        ),
        (_, signal::SIGSEGV | signal::SIGBUS | signal::SIGFPE | signal::SIGILL) => {
            write!(out, ", si_addr={:#x}}}", info.addr())
        }
        _ => out.write_str("}"),
    }
}

fn stack(stack: &signal::Stackt, out: &mut dyn Write) -> fmt::Result {
    write!(out, "{{ss_sp={:#x}", stack.ss_sp)?;
    field_flags(", ss_flags=", FlagSet::of::<signal::SsFlags>(), stack.ss_flags.into(), out)?;
    write!(out, ", ss_size={}}}", stack.ss_size)
}

fn sigevent(event: &signal::Sigevent, out: &mut dyn Write) -> fmt::Result {
    write!(out, "{{sigev_value={:#x}, sigev_signo=", event.sigev_value)?;
    value::signal(event.sigev_signo, out)?;
    out.write_str(", sigev_notify=")?;
    let notify = i64::from(event.sigev_notify).cast_unsigned();
    value::enumeration(signal::SIGEV_NAMES, notify, out)?;
    if event.sigev_notify == signal::SIGEV_THREAD_ID {
        write!(out, ", sigev_notify_thread_id={}", event.sigev_tid)?;
    }
    out.write_str("}")
}

/// Prints the size of a file, or the number of a device.
fn size_or_device(mode: u32, size: i128, device: u64, out: &mut dyn Write) -> fmt::Result {
    match mode & fs::S_IFMT {
        fs::S_IFCHR | fs::S_IFBLK => {
            write!(out, ", st_rdev=makedev({:#x}, {:#x})", fs::major(device), fs::minor(device))
        }
        _ => write!(out, ", st_size={size}"),
    }
}

fn stat(stat: &fs::Stat, out: &mut dyn Write) -> fmt::Result {
    out.write_str("{st_mode=")?;
    value::mode(stat.st_mode, out)?;
    size_or_device(stat.st_mode, stat.st_size.into(), stat.st_rdev, out)?;
    out.write_str(", ...}")
}

fn statx(stat: &fs::Statx, out: &mut dyn Write) -> fmt::Result {
    let device = fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
    field_flags("{stx_mask=", FlagSet::of::<fs::StatxMask>(), stat.stx_mask.into(), out)?;
    out.write_str(", stx_mode=")?;
    value::mode(stat.stx_mode.into(), out)?;
    size_or_device(stat.stx_mode.into(), stat.stx_size.into(), device, out)?;
    out.write_str(", ...}")
}

fn statfs(statfs: &fs::Statfs, out: &mut dyn Write) -> fmt::Result {
    out.write_str("{f_type=")?;
    value::enumeration(crate::abi::mount::FS_MAGIC_NAMES, statfs.f_type.cast_unsigned(), out)?;
    write!(
        out,
        ", f_bsize={}, f_blocks={}, f_bfree={}, f_bavail={}, ...}}",
        statfs.f_bsize, statfs.f_blocks, statfs.f_bfree, statfs.f_bavail
    )
}

fn open_how(how: &fs::OpenHow, out: &mut dyn Write) -> fmt::Result {
    out.write_str("{flags=")?;
    value::mixed(OPEN, how.flags, out)?;
    write!(out, ", mode={}", Octal(how.mode))?;
    field_flags(", resolve=", FlagSet::of::<fs::ResolveFlags>(), how.resolve, out)?;
    out.write_str("}")
}

fn flock(lock: &fs::Flock, out: &mut dyn Write) -> fmt::Result {
    out.write_str("{l_type=")?;
    value::enumeration(fs::LOCK_TYPE_NAMES, i64::from(lock.l_type).cast_unsigned(), out)?;
    out.write_str(", l_whence=")?;
    value::enumeration(fs::SEEK_NAMES, i64::from(lock.l_whence).cast_unsigned(), out)?;
    write!(out, ", l_start={}, l_len={}, l_pid={}}}", lock.l_start, lock.l_len, lock.l_pid)
}

fn pollfd(pollfd: poll::Pollfd, out: &mut dyn Write) -> fmt::Result {
    let names = FlagSet::of::<poll::PollEvents>();
    write!(out, "{{fd={}", pollfd.fd)?;
    field_flags(", events=", names, pollfd.events.into(), out)?;
    if pollfd.revents != 0 {
        field_flags(", revents=", names, pollfd.revents.into(), out)?;
    }
    out.write_str("}")
}

fn epoll_event(event: poll::EpollEvent, out: &mut dyn Write) -> fmt::Result {
    let (events, data) = (event.events, event.data);
    field_flags("{events=", FlagSet::of::<poll::EpollEvents>(), events.into(), out)?;
    write!(out, ", data={data:#x}}}")
}

fn sockaddr(bytes: &[u8], out: &mut dyn Write) -> fmt::Result {
    let Some(family) = read_prefix::<u16>(bytes) else {
        return out.write_str("{}");
    };
    out.write_str("{sa_family=")?;
    value::enumeration(socket::AF_NAMES, family.into(), out)?;
    match (i32::from(family), bytes.get(2..).unwrap_or(&[])) {
        (socket::AF_UNIX, []) => {}
        (socket::AF_UNIX, [0, name @ ..]) => {
            out.write_str(", sun_path=@")?;
            quoted(name, out)?;
        }
        (socket::AF_UNIX, path) => {
            out.write_str(", sun_path=")?;
            value::c_string(path, out)?;
        }
        (socket::AF_INET, _) => {
            if let Some(addr) = read_prefix::<socket::SockaddrIn>(bytes) {
                let [a, b, c, d] = addr.sin_addr;
                let port = u16::from_be_bytes(addr.sin_port);
                write!(out, ", sin_port=htons({port}), sin_addr=inet_addr(\"{a}.{b}.{c}.{d}\")")?;
            }
        }
        (socket::AF_INET6, _) => {
            if let Some(addr) = read_prefix::<socket::SockaddrIn6>(bytes) {
                let port = u16::from_be_bytes(addr.sin6_port);
                let ip = core::net::Ipv6Addr::from(addr.sin6_addr);
                write!(out, ", sin6_port=htons({port}), sin6_addr=\"{ip}\"")?;
            }
        }
        (socket::AF_NETLINK, _) => {
            if let Some(addr) = read_prefix::<socket::SockaddrNl>(bytes) {
                write!(out, ", nl_pid={}, nl_groups={:#x}", addr.nl_pid, addr.nl_groups)?;
            }
        }
        (_, data) => {
            out.write_str(", sa_data=")?;
            quoted(data, out)?;
        }
    }
    out.write_str("}")
}

fn limit(value: u64, out: &mut dyn Write) -> fmt::Result {
    match value {
        resource::RLIM_INFINITY => out.write_str("RLIM64_INFINITY"),
        _ => write!(out, "{value}"),
    }
}

fn rlimit(rlimit: resource::Rlimit, out: &mut dyn Write) -> fmt::Result {
    out.write_str("{rlim_cur=")?;
    limit(rlimit.rlim_cur, out)?;
    out.write_str(", rlim_max=")?;
    limit(rlimit.rlim_max, out)?;
    out.write_str("}")
}

fn rusage(usage: &resource::Rusage, out: &mut dyn Write) -> fmt::Result {
    out.write_str("{ru_utime=")?;
    timeval(usage.ru_utime, out)?;
    out.write_str(", ru_stime=")?;
    timeval(usage.ru_stime, out)?;
    out.write_str(", ...}")
}

fn clone_args(bytes: &[u8], out: &mut dyn Write) -> fmt::Result {
    // Older programs pass a shorter structure; what is missing counts as zero.
    let mut whole = [0; size_of::<clone::CloneArgs>()];
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    let Ok(args) = clone::CloneArgs::read_from_bytes(&whole) else { return Ok(()) };
    field_flags("{flags=", FlagSet::of::<clone::CloneFlags>(), args.flags, out)?;
    for (name, addr) in [
        ("pidfd", args.pidfd),
        ("child_tid", args.child_tid),
        ("parent_tid", args.parent_tid),
        ("stack", args.stack),
        ("stack_size", args.stack_size),
        ("tls", args.tls),
        ("set_tid", args.set_tid),
        ("cgroup", args.cgroup),
    ] {
        if addr != 0 {
            write!(out, ", {name}={addr:#x}")?;
        }
    }
    out.write_str(", exit_signal=")?;
    value::signal(i32::try_from(args.exit_signal).unwrap_or(-1), out)?;
    out.write_str("}")
}

fn capabilities(data: [capability::CapUserData; 2], out: &mut dyn Write) -> fmt::Result {
    let [low, high] = data;
    let both = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    write!(
        out,
        "{{effective={:#x}, permitted={:#x}, inheritable={:#x}}}",
        both(low.effective, high.effective),
        both(low.permitted, high.permitted),
        both(low.inheritable, high.inheritable)
    )
}

fn utsname(names: &uts::Utsname, out: &mut dyn Write) -> fmt::Result {
    out.write_str("{sysname=")?;
    value::c_string(&names.sysname, out)?;
    out.write_str(", nodename=")?;
    value::c_string(&names.nodename, out)?;
    out.write_str(", release=")?;
    value::c_string(&names.release, out)?;
    out.write_str(", ...}")
}

fn sysinfo(info: &uts::Sysinfo, out: &mut dyn Write) -> fmt::Result {
    write!(
        out,
        "{{uptime={}, totalram={}, freeram={}, procs={}, mem_unit={}, ...}}",
        info.uptime, info.totalram, info.freeram, info.procs, info.mem_unit
    )
}

fn termios(termios: &ioctl::Termios, out: &mut dyn Write) -> fmt::Result {
    let (iflag, oflag) = (termios.c_iflag.into(), termios.c_oflag.into());
    let (cflag, lflag) = (termios.c_cflag.into(), termios.c_lflag.into());
    field_flags("{c_iflag=", FlagSet::of::<ioctl::InputModes>(), iflag, out)?;
    field_flags(", c_oflag=", FlagSet::of::<ioctl::OutputModes>(), oflag, out)?;
    write!(out, ", c_cflag={}", Octal(cflag))?;
    field_flags(", c_lflag=", FlagSet::of::<ioctl::LocalModes>(), lflag, out)?;
    out.write_str(", ...}")
}
