//! `ioctl_tty(2)` of both sides of a pseudo-terminal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::capability::CAP_SYS_ADMIN;
use syscalls::abi::fs::OpenFlags;
use syscalls::abi::ioctl::{
    FIONREAD, TCFLSH, TCGETA, TCGETS, TCGETS2, TCIFLUSH, TCIOFF, TCIOFLUSH, TCION, TCOFLUSH,
    TCOOFF, TCOON, TCSBRK, TCSBRKP, TCSETA, TCSETAF, TCSETAW, TCSETS, TCSETS2, TCSETSF, TCSETSF2,
    TCSETSW, TCSETSW2, TCXONC, TIOCCONS, TIOCEXCL, TIOCGDEV, TIOCGETD, TIOCGEXCL, TIOCGLCKTRMIOS,
    TIOCGPKT, TIOCGPTLCK, TIOCGPTN, TIOCGPTPEER, TIOCGWINSZ, TIOCNXCL, TIOCOUTQ, TIOCPKT, TIOCSETD,
    TIOCSIG, TIOCSLCKTRMIOS, TIOCSPGRP, TIOCSPTLCK, TIOCSTI, TIOCSWINSZ, TIOCVHANGUP, Termio,
    Termios, Termios2, VSTART, VSTOP, Winsize,
};
use syscalls::abi::resource::RLIMIT_NOFILE;
use syscalls::abi::signal::{SIGINT, SIGQUIT, SIGTSTP, SIGTTOU, SIGWINCH};
use syscalls::{Errno, UserAddr, UserPtr};

use super::job::Side;
use super::line::Effects;
use super::pty::{Master, Pty, Slave};
use crate::fs::nameless;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::OpenFile;
use crate::vfs::path::Path;

/// The speed that `termios2` shows for `B38400`.
const SPEED: u32 = 38_400;

/// Serves a request on the programs' side.
pub(super) fn slave(
    task: &CurrentTask,
    slave: &Slave,
    is_hung_up: bool,
    open: &OpenFile,
    request: u32,
    arg: u64,
) -> HandlerResult {
    if is_hung_up {
        let errno = if request == TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO };
        return Err(errno.into());
    }
    let pty = &slave.pty;
    if let Some(result) = job(task, pty, Side::Terminal, open, request, arg) {
        return result;
    }
    match request {
        FIONREAD => {
            let n = pty.state.lock().line.readable();
            write_int(task, arg, i32::try_from(n).unwrap_or(i32::MAX))
        }
        _ => common(task, pty, Side::Terminal, request, arg),
    }
}

/// Serves a request on the user's side.
pub(super) fn master(
    task: &CurrentTask,
    master: &Master,
    open: &OpenFile,
    request: u32,
    arg: u64,
) -> HandlerResult {
    let pty = &master.pty;
    if let Some(result) = job(task, pty, Side::Master, open, request, arg) {
        return result;
    }
    match request {
        FIONREAD => {
            let n = pty.state.lock().line.output_len();
            write_int(task, arg, i32::try_from(n).unwrap_or(i32::MAX))
        }
        TIOCGPTN => Ok(task.write_obj(UserPtr::new(UserAddr(arg)), &pty.index).map(|()| 0)?),
        TIOCSPTLCK => {
            let value = read_int(task, arg)?;
            pty.is_locked.store(value != 0, Ordering::Relaxed);
            Ok(0)
        }
        TIOCGPTLCK => write_int(task, arg, i32::from(pty.is_locked.load(Ordering::Relaxed))),
        TIOCPKT => {
            let value = read_int(task, arg)?;
            let mut state = pty.state.lock();
            state.is_packet = value != 0;
            state.packet = 0;
            Ok(0)
        }
        TIOCGPKT => write_int(task, arg, i32::from(pty.state.lock().is_packet)),
        TIOCGPTPEER => open_peer(task, pty, open, arg),
        TIOCSIG => {
            let signo = i32::try_from(arg).unwrap_or(0);
            if !matches!(signo, SIGINT | SIGQUIT | SIGTSTP) {
                return Err(Errno::EINVAL.into());
            }
            pty.job.signal_foreground(signo);
            Ok(0)
        }
        _ => common(task, pty, Side::Master, request, arg),
    }
}

fn job(
    task: &CurrentTask,
    pty: &Arc<Pty>,
    side: Side,
    open: &OpenFile,
    request: u32,
    arg: u64,
) -> Option<HandlerResult> {
    let terminal = pty.terminal()?;
    pty.job.ioctl(task, side, open.is_readable(), &terminal, request, arg)
}

fn read_int(task: &CurrentTask, arg: u64) -> HandlerResult<i32> {
    Ok(task.read_obj(UserPtr::new(UserAddr(arg)))?)
}

fn write_int(task: &CurrentTask, arg: u64, value: i32) -> HandlerResult {
    task.write_obj(UserPtr::new(UserAddr(arg)), &value)?;
    Ok(0)
}

/// Opens the slave without its path: `TIOCGPTPEER`.
fn open_peer(task: &CurrentTask, pty: &Arc<Pty>, open: &OpenFile, arg: u64) -> HandlerResult {
    let flags = u32::try_from(arg).map_err(|_| Errno::EINVAL)?;
    let flags = OpenFlags::from_bits_retain(flags);
    let node = pty.node().ok_or(Errno::EIO)?;
    let may_control = !flags.contains(OpenFlags::NOCTTY);
    let slave = pty.open_slave(task, node.clone(), may_control)?;
    // The slave's name is found where the master's device is, if that is its file system.
    let name = pty.index.to_string();
    let named = open.path.as_ref().and_then(|path| {
        let dir = path.dentry.parent()?;
        let dentry = dir.lookup(name.as_bytes(), &path.mount.sb.cache).ok()?;
        Some(Path { mount: path.mount.clone(), dentry })
    });
    let is_same = |path: &Path| Arc::ptr_eq(path.inode(), &node);
    let path = named.filter(is_same).unwrap_or_else(|| nameless::path_of(node.clone()));
    let kept = flags & !(OpenFlags::NOCTTY | OpenFlags::CLOEXEC);
    let file = OpenFile::new(slave, Some(path), kept.bits());
    let limit = task.group.limits.lock().soft(RLIMIT_NOFILE);
    let fd = task.files().install(file, flags.contains(OpenFlags::CLOEXEC), limit)?;
    Ok(u64::try_from(fd).unwrap_or(0))
}

/// Serves the requests that are about the terminal whichever side asks.
fn common(task: &CurrentTask, pty: &Arc<Pty>, side: Side, request: u32, arg: u64) -> HandlerResult {
    let addr = UserAddr(arg);
    let is_change = matches!(
        request,
        TCSETS
            | TCSETSW
            | TCSETSF
            | TCSETS2
            | TCSETSW2
            | TCSETSF2
            | TCSETA
            | TCSETAW
            | TCSETAF
            | TCSBRK
            | TCSBRKP
            | TCFLSH
            | TCXONC
    );
    if is_change && side == Side::Terminal {
        pty.job.check(task, SIGTTOU)?;
    }
    match request {
        TCGETS => {
            let termios = pty.state.lock().line.termios();
            task.write_obj(UserPtr::new(addr), &termios)?;
        }
        TCGETS2 => {
            let termios = wide(&pty.state.lock().line.termios());
            task.write_obj(UserPtr::new(addr), &termios)?;
        }
        TCGETA => {
            let termios = short(&pty.state.lock().line.termios());
            task.write_obj(UserPtr::new(addr), &termios)?;
        }
        TCSETS | TCSETSW | TCSETSF => {
            let new = task.read_obj(UserPtr::<Termios>::new(addr))?;
            set_termios(pty, new, request == TCSETSF);
        }
        TCSETS2 | TCSETSW2 | TCSETSF2 => {
            let new = task.read_obj(UserPtr::<Termios2>::new(addr))?;
            set_termios(pty, narrow(&new), request == TCSETSF2);
        }
        TCSETA | TCSETAW | TCSETAF => {
            let new = task.read_obj(UserPtr::<Termio>::new(addr))?;
            let old = pty.state.lock().line.termios();
            set_termios(pty, lengthen(&new, &old), request == TCSETAF);
        }
        TIOCGLCKTRMIOS => {
            let fixed = pty.state.lock().fixed;
            task.write_obj(UserPtr::new(addr), &fixed)?;
        }
        TIOCSLCKTRMIOS => {
            if !task.creds().has_capability(CAP_SYS_ADMIN) {
                return Err(Errno::EPERM.into());
            }
            let fixed = task.read_obj(UserPtr::<Termios>::new(addr))?;
            pty.state.lock().fixed = fixed;
        }
        TIOCGWINSZ => {
            let size = pty.state.lock().size;
            task.write_obj(UserPtr::new(addr), &size)?;
        }
        TIOCSWINSZ => {
            let size = task.read_obj(UserPtr::<Winsize>::new(addr))?;
            let old = std::mem::replace(&mut pty.state.lock().size, size);
            if old != size {
                pty.job.signal_foreground(SIGWINCH);
            }
        }
        TCSBRK | TCSBRKP => {}
        TCXONC => control_flow(pty, side, arg)?,
        TCFLSH => flush(pty, side, arg)?,
        TIOCOUTQ => {
            write_int(task, arg, 0)?;
        }
        TIOCGETD => {
            write_int(task, arg, 0)?;
        }
        TIOCSETD => {
            if read_int(task, arg)? != 0 {
                return Err(Errno::EINVAL.into());
            }
        }
        TIOCEXCL => pty.is_exclusive.store(true, Ordering::Relaxed),
        TIOCNXCL => pty.is_exclusive.store(false, Ordering::Relaxed),
        TIOCGEXCL => {
            write_int(task, arg, i32::from(pty.is_exclusive.load(Ordering::Relaxed)))?;
        }
        TIOCGDEV => {
            let dev = u32::try_from(pty.slave_device()).unwrap_or(0);
            task.write_obj(UserPtr::new(addr), &dev)?;
        }
        // Feeding a terminal with input that nobody typed is off, as `dev.tty.legacy_tiocsti` is.
        TIOCSTI => return Err(Errno::EIO.into()),
        TIOCCONS => return Err(Errno::EPERM.into()),
        TIOCVHANGUP => {
            if !task.creds().has_capability(CAP_SYS_ADMIN) {
                return Err(Errno::EPERM.into());
            }
            pty.hang_up();
        }
        _ => return Err(Errno::ENOTTY.into()),
    }
    Ok(0)
}

/// Returns new settings with what is fixed as it was.
fn keep_fixed(new: Termios, old: &Termios, fixed: &Termios) -> Termios {
    let keep = |new: u32, old: u32, fixed: u32| (new & !fixed) | (old & fixed);
    let mut c_cc = new.c_cc;
    for ((new, old), fixed) in c_cc.iter_mut().zip(old.c_cc).zip(fixed.c_cc) {
        if fixed != 0 {
            *new = old;
        }
    }
    Termios {
        c_iflag: keep(new.c_iflag, old.c_iflag, fixed.c_iflag),
        c_oflag: keep(new.c_oflag, old.c_oflag, fixed.c_oflag),
        c_cflag: keep(new.c_cflag, old.c_cflag, fixed.c_cflag),
        c_lflag: keep(new.c_lflag, old.c_lflag, fixed.c_lflag),
        c_line: if fixed.c_line != 0 { old.c_line } else { new.c_line },
        c_cc,
    }
}

fn set_termios(pty: &Pty, new: Termios, flushes: bool) {
    let mut effects = Effects::default();
    {
        let mut state = pty.state.lock();
        if flushes {
            state.line.flush_input(&mut effects);
        }
        let old = state.line.termios();
        let new = keep_fixed(new, &old, &state.fixed);
        state.line.set_termios(new, &mut effects);
    }
    pty.apply(&effects);
}

fn control_flow(pty: &Pty, side: Side, arg: u64) -> HandlerResult<()> {
    let mut effects = Effects::default();
    {
        let mut state = pty.state.lock();
        let termios = state.line.termios();
        let character = |index: usize| termios.c_cc.get(index).copied().unwrap_or(0);
        match arg {
            TCOOFF => state.line.set_stopped(true, &mut effects),
            TCOON => state.line.set_stopped(false, &mut effects),
            TCIOFF | TCION => {
                let byte = character(if arg == TCIOFF { VSTOP } else { VSTART });
                match side {
                    Side::Terminal if byte != 0 => state.line.write(&[byte], &mut effects),
                    Side::Master if byte != 0 => state.line.receive(byte, &mut effects),
                    _ => {}
                }
            }
            _ => return Err(Errno::EINVAL.into()),
        }
    }
    pty.apply(&effects);
    Ok(())
}

fn flush(pty: &Pty, side: Side, arg: u64) -> HandlerResult<()> {
    let (input, output) = match arg {
        TCIFLUSH => (true, false),
        TCOFLUSH => (false, true),
        TCIOFLUSH => (true, true),
        _ => return Err(Errno::EINVAL.into()),
    };
    // What is output for one side is input for the other.
    let (input, output) = if side == Side::Master { (output, input) } else { (input, output) };
    let mut effects = Effects::default();
    {
        let mut state = pty.state.lock();
        if input {
            state.line.flush_input(&mut effects);
        }
        if output {
            state.line.flush_output(&mut effects);
        }
    }
    pty.apply(&effects);
    Ok(())
}

fn wide(termios: &Termios) -> Termios2 {
    Termios2 {
        c_iflag: termios.c_iflag,
        c_oflag: termios.c_oflag,
        c_cflag: termios.c_cflag,
        c_lflag: termios.c_lflag,
        c_line: termios.c_line,
        c_cc: termios.c_cc,
        c_ispeed: SPEED,
        c_ospeed: SPEED,
    }
}

fn narrow(termios: &Termios2) -> Termios {
    Termios {
        c_iflag: termios.c_iflag,
        c_oflag: termios.c_oflag,
        c_cflag: termios.c_cflag,
        c_lflag: termios.c_lflag,
        c_line: termios.c_line,
        c_cc: termios.c_cc,
    }
}

fn low(flags: u32) -> u16 {
    u16::try_from(flags & 0xffff).unwrap_or(0)
}

fn short(termios: &Termios) -> Termio {
    let mut characters = [0; 8];
    for (to, from) in characters.iter_mut().zip(termios.c_cc) {
        *to = from;
    }
    Termio {
        c_iflag: low(termios.c_iflag),
        c_oflag: low(termios.c_oflag),
        c_cflag: low(termios.c_cflag),
        c_lflag: low(termios.c_lflag),
        c_line: termios.c_line,
        c_cc: characters,
        pad0: 0,
    }
}

fn lengthen(termio: &Termio, old: &Termios) -> Termios {
    let merge = |new: u16, old: u32| (old & 0xffff_0000) | u32::from(new);
    let mut characters = old.c_cc;
    for (to, from) in characters.iter_mut().zip(termio.c_cc) {
        *to = from;
    }
    Termios {
        c_iflag: merge(termio.c_iflag, old.c_iflag),
        c_oflag: merge(termio.c_oflag, old.c_oflag),
        c_cflag: merge(termio.c_cflag, old.c_cflag),
        c_lflag: merge(termio.c_lflag, old.c_lflag),
        c_line: termio.c_line,
        c_cc: characters,
    }
}
