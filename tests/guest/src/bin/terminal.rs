//! Sessions, process groups and pseudo-terminals: line discipline, job control, window size.

use core::ffi::CStr;
use std::ffi::CString;
use std::time::Duration;

use guest_tests::fs::{close, open, read, write};
use guest_tests::mem::zeroed;
use guest_tests::proc::{End, child, in_child, pid, sleep, until_asleep, wait, wait_options};
use guest_tests::{Outcome, check, eq, fails, ok, proc, sig, sys};
use libc::{
    O_NOCTTY, O_NONBLOCK, O_RDWR, TIOCGPGRP, TIOCGPTN, TIOCGSID, TIOCGWINSZ, TIOCNOTTY, TIOCSCTTY,
    TIOCSPGRP, TIOCSPTLCK, TIOCSWINSZ,
};

/// The kernel's `struct termios`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct Termios {
    iflag: u32,
    oflag: u32,
    cflag: u32,
    lflag: u32,
    line: u8,
    cc: [u8; 19],
}

fn session_and_group_ids() -> Outcome {
    in_child(|| {
        // The child of a case is no group leader.
        let parent_group = ok!(sys!(SYS_getpgid, 0));
        check!(parent_group as i32 != pid());
        eq!(ok!(sys!(SYS_setsid)) as i32, pid());
        eq!(ok!(sys!(SYS_getsid, 0)) as i32, pid());
        eq!(ok!(sys!(SYS_getpgid, 0)) as i32, pid());
        fails!(sys!(SYS_setsid), EPERM);
        fails!(sys!(SYS_setpgid, 0, 0), EPERM);
        fails!(sys!(SYS_setpgid, 0, -1), EINVAL);
        fails!(sys!(SYS_getsid, 0x3fff_ffff), ESRCH);
        fails!(sys!(SYS_getpgid, 0x3fff_ffff), ESRCH);
        Ok(())
    })
}

fn group_changes_of_children() -> Outcome {
    in_child(|| {
        ok!(sys!(SYS_setsid));
        let a = ok!(child(|| {
            sleep(Duration::from_secs(20));
            0
        }));
        let b = ok!(child(|| {
            sleep(Duration::from_secs(20));
            0
        }));
        ok!(sys!(SYS_setpgid, a, a));
        ok!(sys!(SYS_setpgid, b, a));
        eq!(ok!(sys!(SYS_getpgid, b)) as i32, a);
        fails!(sys!(SYS_setpgid, b, 0x3fff_ffff), EPERM);
        ok!(sys!(SYS_kill, -a, libc::SIGTERM));
        eq!(ok!(wait(a)), End::Signal(libc::SIGTERM));
        eq!(ok!(wait(b)), End::Signal(libc::SIGTERM));
        fails!(sys!(SYS_kill, -a, 0), ESRCH);
        Ok(())
    })
}

fn newborn_children_can_be_moved_and_signalled() -> Outcome {
    ok!(sig::handle(libc::SIGUSR1, sig::record, 0));
    for _ in 0..50 {
        let child = ok!(child(|| 0));
        let _ = sys!(SYS_setpgid, child, child);
        ok!(sys!(SYS_kill, child, libc::SIGUSR1));
        eq!(ok!(wait(child)), End::Code(0));
    }
    Ok(())
}

/// Opens a pair: master, and the slave's path.
fn pair() -> Result<(i32, CString), i32> {
    let master = open(c"/dev/ptmx", O_RDWR | O_NOCTTY)?;
    let unlock = 0i32;
    sys!(SYS_ioctl, master, TIOCSPTLCK, &unlock)?;
    let mut number = 0u32;
    sys!(SYS_ioctl, master, TIOCGPTN, &mut number)?;
    Ok((master, CString::new(format!("/dev/pts/{number}")).unwrap_or_default()))
}

fn attributes(fd: i32) -> Result<Termios, i32> {
    let mut termios = Termios::default();
    sys!(SYS_ioctl, fd, libc::TCGETS, &mut termios)?;
    Ok(termios)
}

fn set(fd: i32, termios: &Termios) -> Result<usize, i32> {
    sys!(SYS_ioctl, fd, libc::TCSETS, termios)
}

fn raw_mode(fd: i32) -> Result<(), i32> {
    let mut termios = attributes(fd)?;
    termios.iflag = 0;
    termios.oflag = 0;
    termios.lflag = 0;
    termios.cc[libc::VMIN] = 1;
    termios.cc[libc::VTIME] = 0;
    set(fd, &termios).map(drop)
}

fn take(fd: i32) -> Result<String, i32> {
    let mut buf = [0u8; 256];
    read(fd, &mut buf).map(|n| String::from_utf8_lossy(&buf[..n]).into_owned())
}

/// Expects to read this: what one side writes reaches the other a moment later, and not always at once.
fn brings(fd: i32, expected: &str) -> Outcome {
    let mut all = String::new();
    while all.len() < expected.len() {
        match ok!(take(fd)).as_str() {
            "" => break,
            more => all.push_str(more),
        }
    }
    eq!(all, expected);
    Ok(())
}

fn locked_until_unlocked() -> Outcome {
    let master = ok!(open(c"/dev/ptmx", O_RDWR | O_NOCTTY));
    let mut number = 0u32;
    ok!(sys!(SYS_ioctl, master, TIOCGPTN, &mut number));
    let path = CString::new(format!("/dev/pts/{number}")).unwrap_or_default();
    fails!(open(&path, O_RDWR | O_NOCTTY), EIO);
    let unlock = 0i32;
    ok!(sys!(SYS_ioctl, master, TIOCSPTLCK, &unlock));
    let slave = ok!(open(&path, O_RDWR | O_NOCTTY));
    let stat = ok!(guest_tests::fs::fstat(slave));
    eq!((stat.st_mode & libc::S_IFMT, libc::major(stat.st_rdev)), (libc::S_IFCHR, 136));
    ok!(close(master));
    check!(guest_tests::fs::stat(&path).is_err());
    Ok(())
}

fn default_attributes() -> Outcome {
    let (_master, path) = ok!(pair());
    let slave = ok!(open(&path, O_RDWR | O_NOCTTY));
    let termios = ok!(attributes(slave));
    eq!(termios.iflag, libc::ICRNL | libc::IXON);
    eq!(termios.oflag, libc::OPOST | libc::ONLCR);
    eq!(termios.cflag, libc::B38400 | libc::CS8 | libc::CREAD);
    eq!(termios.lflag, 0o105_073);
    eq!((termios.cc[libc::VINTR], termios.cc[libc::VEOF], termios.cc[libc::VERASE]), (3, 4, 127));
    ok!(sys!(SYS_ioctl, slave, libc::TCSETSW, &termios));
    ok!(sys!(SYS_ioctl, slave, libc::TCSETSF, &termios));
    fails!(sys!(SYS_ioctl, slave, 0x1234, 0), ENOTTY);
    Ok(())
}

fn lines_are_edited_and_echoed() -> Outcome {
    let (master, path) = ok!(pair());
    let slave = ok!(open(&path, O_RDWR | O_NOCTTY));
    ok!(write(master, b"helpo\x7f\x7flo\r"));
    eq!(ok!(take(slave)), "hello\n");
    brings(master, "helpo\x08 \x08\x08 \x08lo\r\n")?;
    ok!(write(master, b"word two\x17three\n"));
    eq!(ok!(take(slave)), "word three\n");
    ok!(take(master));
    ok!(write(master, b"gone\x15kept\n"));
    eq!(ok!(take(slave)), "kept\n");
    Ok(())
}

fn end_of_input_character() -> Outcome {
    let (master, path) = ok!(pair());
    let slave = ok!(open(&path, O_RDWR | O_NOCTTY));
    ok!(write(master, b"part\x04\x04"));
    eq!(ok!(take(slave)), "part");
    eq!(ok!(take(slave)), "");
    Ok(())
}

fn external_processing_has_no_lines() -> Outcome {
    const EXTPROC: u32 = 0o200_000;
    let (master, name) = ok!(pair());
    let slave = ok!(open(&name, O_RDWR | O_NOCTTY));
    let mut termios = ok!(attributes(slave));
    termios.lflag = EXTPROC | libc::ICANON;
    ok!(set(slave, &termios));
    ok!(write(master, b"Ab"));
    brings(slave, "Ab")?;
    Ok(())
}

fn output_processing() -> Outcome {
    let (master, path) = ok!(pair());
    let slave = ok!(open(&path, O_RDWR | O_NOCTTY));
    ok!(write(slave, b"a\nb\n"));
    brings(master, "a\r\nb\r\n")?;
    ok!(raw_mode(slave));
    ok!(write(slave, b"a\nb\n"));
    brings(master, "a\nb\n")?;
    Ok(())
}

fn raw_mode_passes_everything() -> Outcome {
    let (master, path) = ok!(pair());
    let slave = ok!(open(&path, O_RDWR | O_NOCTTY));
    ok!(raw_mode(slave));
    ok!(write(master, b"x\x03\r\x7f"));
    brings(slave, "x\x03\r\x7f")?;
    let mut n = 0i32;
    ok!(write(master, b"abc"));
    // What the master writes reaches the slave a moment later.
    check!(proc::until(|| sys!(SYS_ioctl, slave, libc::FIONREAD, &mut n).is_ok() && n == 3));
    ok!(sys!(SYS_ioctl, slave, libc::TCFLSH, libc::TCIFLUSH));
    ok!(sys!(SYS_ioctl, slave, libc::FIONREAD, &mut n));
    eq!(n, 0);
    Ok(())
}

fn minimum_and_time() -> Outcome {
    let (master, path) = ok!(pair());
    let slave = ok!(open(&path, O_RDWR | O_NOCTTY));
    ok!(raw_mode(slave));
    let mut termios = ok!(attributes(slave));
    termios.cc[libc::VMIN] = 0;
    termios.cc[libc::VTIME] = 1;
    ok!(set(slave, &termios));
    let started = std::time::Instant::now();
    eq!(ok!(take(slave)), "");
    check!(started.elapsed() >= Duration::from_millis(90));
    termios.cc[libc::VTIME] = 0;
    ok!(set(slave, &termios));
    eq!(ok!(take(slave)), "");
    ok!(write(master, b"y"));
    eq!(ok!(take(slave)), "y");
    Ok(())
}

fn window_size_and_signal() -> Outcome {
    let (master, path) = ok!(pair());
    in_child(|| {
        ok!(sys!(SYS_setsid));
        ok!(sig::handle(libc::SIGWINCH, sig::record, 0));
        let slave = ok!(open(&path, O_RDWR));
        let size = libc::winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
        ok!(sys!(SYS_ioctl, master, TIOCSWINSZ, &size));
        let mut now = zeroed::<libc::winsize>();
        ok!(sys!(SYS_ioctl, slave, TIOCGWINSZ, &mut now));
        eq!((now.ws_row, now.ws_col), (50, 132));
        check!(proc::until(|| sig::count() == 1));
        ok!(sys!(SYS_ioctl, master, TIOCSWINSZ, &size));
        sleep(Duration::from_millis(10));
        eq!(sig::count(), 1);
        Ok(())
    })
}

fn controlling_terminal() -> Outcome {
    let (_master, path) = ok!(pair());
    in_child(|| {
        ok!(sys!(SYS_setsid));
        fails!(open(c"/dev/tty", O_RDWR), ENXIO);
        let slave = ok!(open(&path, O_RDWR | O_NOCTTY));
        fails!(open(c"/dev/tty", O_RDWR), ENXIO);
        ok!(sys!(SYS_ioctl, slave, TIOCSCTTY, 0));
        ok!(close(ok!(open(c"/dev/tty", O_RDWR))));
        let mut id = 0i32;
        ok!(sys!(SYS_ioctl, slave, TIOCGPGRP, &mut id));
        eq!(id, pid());
        ok!(sys!(SYS_ioctl, slave, TIOCGSID, &mut id));
        eq!(id, pid());
        let none = 0x3fff_ffffi32;
        fails!(sys!(SYS_ioctl, slave, TIOCSPGRP, &none), ESRCH);
        ok!(sig::plain(libc::SIGHUP, 1));
        ok!(sys!(SYS_ioctl, slave, TIOCNOTTY, 0));
        fails!(open(c"/dev/tty", O_RDWR), ENXIO);
        Ok(())
    })
}

fn interrupt_characters_signal() -> Outcome {
    let (master, path) = ok!(pair());
    in_child(|| {
        ok!(sys!(SYS_setsid));
        let slave = ok!(open(&path, O_RDWR));
        for (byte, signo) in [(3u8, libc::SIGINT), (28, libc::SIGQUIT), (26, libc::SIGTSTP)] {
            ok!(sig::handle(signo, sig::record, 0));
            ok!(write(master, &[b'x', byte]));
            check!(proc::until(|| sig::last() == signo));
        }
        ok!(write(master, b"fresh\n"));
        eq!(ok!(take(slave)), "fresh\n");
        Ok(())
    })
}

fn background_read_stops() -> Outcome {
    let (_master, path) = ok!(pair());
    in_child(|| {
        ok!(sys!(SYS_setsid));
        let slave = ok!(open(&path, O_RDWR));
        let background = ok!(child(|| {
            let _ = sys!(SYS_setpgid, 0, 0);
            i32::from(take(slave).is_err())
        }));
        eq!(ok!(wait_options(background, libc::WUNTRACED)), End::Stopped(libc::SIGTTIN));
        ok!(sys!(SYS_kill, background, libc::SIGKILL));
        eq!(ok!(wait(background)), End::Signal(libc::SIGKILL));
        let ignoring = ok!(child(|| {
            let _ = sys!(SYS_setpgid, 0, 0);
            let _ = sig::plain(libc::SIGTTIN, 1);
            take(slave).err().unwrap_or_default()
        }));
        eq!(ok!(wait(ignoring)), End::Code(libc::EIO));
        Ok(())
    })
}

fn foreground_group_can_change() -> Outcome {
    let (master, path) = ok!(pair());
    in_child(|| {
        ok!(sys!(SYS_setsid));
        let slave = ok!(open(&path, O_RDWR));
        let job = ok!(child(|| {
            let _ = sys!(SYS_setpgid, 0, 0);
            sleep(Duration::from_secs(20));
            0
        }));
        let _ = sys!(SYS_setpgid, job, job);
        ok!(sys!(SYS_ioctl, slave, TIOCSPGRP, &job));
        check!(until_asleep(job));
        ok!(write(master, b"\x03"));
        eq!(ok!(wait(job)), End::Signal(libc::SIGINT));
        Ok(())
    })
}

fn hangup_when_master_closes() -> Outcome {
    let (master, path) = ok!(pair());
    let job = ok!(child(|| {
        let _ = sys!(SYS_setsid);
        let slave = open(&path, O_RDWR).unwrap_or(-1);
        let _ = close(master);
        let _ = sig::handle(libc::SIGHUP, sig::record, 0);
        let first = take(slave);
        // Interrupted by SIGHUP, or already the end; afterwards always the end.
        let last = take(slave);
        let output = write(slave, b"x");
        i32::from(
            !(first.is_err() || first == Ok(String::new()))
                || last != Ok(String::new())
                || output != Err(libc::EIO)
                || !proc::until(|| sig::count() == 1),
        )
    }));
    check!(until_asleep(job));
    ok!(close(master));
    eq!(ok!(wait(job)), End::Code(0));
    Ok(())
}

fn master_sees_hangup_of_slave() -> Outcome {
    let (master, path) = ok!(pair());
    let slave = ok!(open(&path, O_RDWR | O_NOCTTY));
    ok!(write(slave, b"last words"));
    ok!(close(slave));
    brings(master, "last words")?;
    fails!(take(master), EIO);
    let mut poll = libc::pollfd { fd: master, events: libc::POLLIN, revents: 0 };
    eq!(ok!(sys!(SYS_poll, &mut poll, 1, 1000)), 1);
    check!(poll.revents & libc::POLLHUP != 0);
    Ok(())
}

fn end_of_a_session_hangs_no_other_slave_up() -> Outcome {
    let (master, name) = ok!(pair());
    let slave = ok!(open(&name, O_RDWR | O_NOCTTY));
    ok!(in_child(|| {
        ok!(sys!(SYS_setsid));
        ok!(open(&name, O_RDWR));
        Ok(())
    }));
    let mut poll = libc::pollfd { fd: master, events: libc::POLLIN, revents: 0 };
    eq!(ok!(sys!(SYS_poll, &mut poll, 1, 0)), 0);
    ok!(write(master, b"line\n"));
    eq!(ok!(take(slave)), "line\n");
    brings(master, "line\r\n")?;
    // Hung up, and still open: the master learns of the last close.
    ok!(sys!(SYS_ioctl, slave, 0x5437));
    eq!(ok!(take(slave)), "");
    fails!(write(slave, b"x"), EIO);
    eq!(ok!(sys!(SYS_poll, &mut poll, 1, 0)), 0);
    ok!(close(slave));
    eq!(ok!(sys!(SYS_poll, &mut poll, 1, 0)), 1);
    eq!(poll.revents, libc::POLLHUP);
    fails!(take(master), EIO);
    Ok(())
}

fn readiness_and_nonblocking() -> Outcome {
    let (master, path) = ok!(pair());
    let slave = ok!(open(&path, O_RDWR | O_NOCTTY | O_NONBLOCK));
    fails!(take(slave), EAGAIN);
    let poll = |fd: i32| {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        sys!(SYS_poll, &mut poll, 1, 0)
    };
    ok!(write(master, b"no line yet"));
    eq!(ok!(poll(slave)), 0);
    ok!(write(master, b"\n"));
    eq!(ok!(poll(slave)), 1);
    eq!(ok!(take(slave)), "no line yet\n");
    eq!(ok!(poll(master)), 1);
    Ok(())
}

fn settings_can_be_fixed() -> Outcome {
    const TIOCGLCKTRMIOS: u32 = 0x5456;
    const TIOCSLCKTRMIOS: u32 = 0x5457;
    let (_master, path) = ok!(pair());
    let slave = ok!(open(&path, O_RDWR | O_NOCTTY));
    let before = ok!(attributes(slave));
    let mut fixed = ok!(attributes(slave));
    ok!(sys!(SYS_ioctl, slave, TIOCGLCKTRMIOS, &mut fixed));
    eq!((fixed.iflag, fixed.oflag, fixed.cflag, fixed.lflag), (0, 0, 0, 0));
    in_child(|| {
        ok!(proc::drop_root());
        fails!(sys!(SYS_ioctl, slave, TIOCSLCKTRMIOS, &fixed), EPERM);
        Ok(())
    })?;
    fixed.lflag = libc::ECHO;
    // It takes a capability that root of a container may not have.
    if sys!(SYS_ioctl, slave, TIOCSLCKTRMIOS, &fixed).is_err() {
        return Ok(());
    }
    let mut changed = ok!(attributes(slave));
    changed.lflag &= !(libc::ECHO | libc::ICANON);
    ok!(sys!(SYS_ioctl, slave, libc::TCSETS, &changed));
    eq!(ok!(attributes(slave)).lflag, before.lflag & !libc::ICANON);
    Ok(())
}

fn is_it_a_terminal() -> Outcome {
    let (master, path) = ok!(pair());
    let slave = ok!(open(&path, O_RDWR | O_NOCTTY));
    ok!(attributes(master));
    let (reader, _writer) = ok!(guest_tests::fs::pipe(0));
    fails!(attributes(reader), ENOTTY);
    let null = ok!(open(c"/dev/null", O_RDWR));
    fails!(attributes(null), ENOTTY);
    let link = ok!(std::fs::read_link(format!("/proc/self/fd/{slave}")));
    eq!(link.display().to_string(), path.to_string_lossy());
    let name: &CStr = &path;
    check!(name.to_bytes().starts_with(b"/dev/pts/"));
    Ok(())
}

guest_tests::cases!(
    session_and_group_ids,
    group_changes_of_children,
    newborn_children_can_be_moved_and_signalled,
    locked_until_unlocked,
    default_attributes,
    lines_are_edited_and_echoed,
    end_of_input_character,
    external_processing_has_no_lines,
    output_processing,
    raw_mode_passes_everything,
    minimum_and_time,
    window_size_and_signal,
    controlling_terminal,
    interrupt_characters_signal,
    background_read_stops,
    foreground_group_can_change,
    hangup_when_master_closes,
    master_sees_hangup_of_slave,
    end_of_a_session_hangs_no_other_slave_up,
    readiness_and_nonblocking,
    settings_can_be_fixed,
    is_it_a_terminal,
);
