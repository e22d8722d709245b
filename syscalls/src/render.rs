//! System calls in the notation of strace(1), from the table.
//!
//! [`render_entry`] and [`render_return`] print a call in two parts, as a log needs it that shows a
//! call before it blocks; [`render_call`] prints it as a whole once it is done. Guest memory is read
//! through a function that says how many bytes, from the start, it could read; what cannot be
//! read is shown as its address. No input makes them panic.

mod structs;
mod value;

use core::fmt::{self, Write};

use crate::abi::{capability, fs, prctl, socket};
use crate::arg::FromArg as _;
use crate::errno::Errno;
use crate::info::{Arg, FlagSet, Kind, Returns, Struct, SyscallInfo};
use crate::user_addr::UserAddr;

/// Reads guest memory; returns how many bytes from the start could be read.
pub type ReadMemory<'a> = dyn FnMut(UserAddr, &mut [u8]) -> usize + 'a;

/// How many bytes of a buffer are shown.
const MAX_BYTES: usize = 32;
/// How many elements of an array are shown.
const MAX_ELEMENTS: usize = 16;
/// The largest structure that is read.
const MAX_STRUCT: usize = 512;

/// Prints a call as it starts, with what it reads: `openat(AT_FDCWD, "/etc/passwd", O_RDONLY, 0)`.
/// What it will write is shown as addresses.
///
/// # Errors
/// Those of `out`.
pub fn render_entry(
    info: &SyscallInfo,
    args: &[u64; 6],
    mem: &mut ReadMemory<'_>,
    out: &mut dyn Write,
) -> fmt::Result {
    Renderer { info, args, mem, out, done: None }.call()
}

/// Prints what came of a call: ` = 3`, ` = -1 ENOENT (No such file or directory)`, and what a
/// successful one wrote: ` = 0 {statbuf={st_mode=S_IFREG|0644, …}}`. `returned` is the register.
///
/// # Errors
/// Those of `out`.
pub fn render_return(
    info: &SyscallInfo,
    args: &[u64; 6],
    returned: u64,
    mem: &mut ReadMemory<'_>,
    out: &mut dyn Write,
) -> fmt::Result {
    let mut renderer = Renderer { info, args, mem, out, done: Errno::from_return(returned).ok() };
    renderer.result(returned)?;
    renderer.outputs()
}

/// Prints a call and what came of it in one line, as strace does.
///
/// # Errors
/// Those of `out`.
pub fn render_call(
    info: &SyscallInfo,
    args: &[u64; 6],
    returned: u64,
    mem: &mut ReadMemory<'_>,
    out: &mut dyn Write,
) -> fmt::Result {
    let mut renderer = Renderer { info, args, mem, out, done: Errno::from_return(returned).ok() };
    renderer.call()?;
    renderer.result(returned)
}

/// Prints a call with a number that the table does not have.
///
/// # Errors
/// Those of `out`.
pub fn render_unknown(number: u64, args: &[u64; 6], out: &mut dyn Write) -> fmt::Result {
    let [a, b, c, d, e, f] = args;
    write!(out, "syscall_{number:#x}({a:#x}, {b:#x}, {c:#x}, {d:#x}, {e:#x}, {f:#x})")
}

/// A call being printed.
struct Renderer<'a, 'm> {
    info: &'a SyscallInfo,
    args: &'a [u64; 6],
    mem: &'a mut ReadMemory<'m>,
    out: &'a mut dyn Write,
    /// What the call returned, where it has succeeded; its outputs are then valid.
    done: Option<u64>,
}

impl Renderer<'_, '_> {
    fn call(&mut self) -> fmt::Result {
        write!(self.out, "{}(", self.info.name)?;
        for (i, (arg, &raw)) in self.info.args.iter().zip(self.args).enumerate() {
            if i > 0 {
                self.out.write_str(", ")?;
            }
            self.arg(arg.kind, raw, i)?;
        }
        self.out.write_str(")")
    }

    fn result(&mut self, returned: u64) -> fmt::Result {
        match Errno::from_return(returned) {
            Ok(value) => match self.info.returns {
                Returns::Int => {
                    write!(self.out, " = {}", value.cast_signed())?;
                    self.explain(value)
                }
                Returns::Addr => write!(self.out, " = {value:#x}"),
                Returns::Mode => write!(self.out, " = {}", value::Octal(value)),
            },
            Err(errno) => match value::restart_name(errno.raw()) {
                Some(name) => write!(self.out, " = ? {name}"),
                None => write!(self.out, " = -1 {errno}"),
            },
        }
    }

    /// Explains the few results that are words of flags.
    fn explain(&mut self, value: u64) -> fmt::Result {
        if self.info.name != "fcntl" {
            return Ok(());
        }
        match u32::from_arg(self.args[1]) {
            fs::F_GETFL => {
                self.out.write_str(" (flags ")?;
                value::mixed(crate::info::OPEN, value, self.out)?;
                self.out.write_str(")")
            }
            fs::F_GETFD if value == 1 => self.out.write_str(" (flags FD_CLOEXEC)"),
            fs::F_GET_SEALS if value != 0 => {
                self.out.write_str(" (seals ")?;
                value::flags(FlagSet::of::<fs::SealFlags>(), value, self.out)?;
                self.out.write_str(")")
            }
            _ => Ok(()),
        }
    }

    /// Prints the outputs of a call that has succeeded, by name.
    fn outputs(&mut self) -> fmt::Result {
        if self.done.is_none() {
            return Ok(());
        }
        let mut separator = " {";
        for (i, (&Arg { name, kind }, &raw)) in self.info.args.iter().zip(self.args).enumerate() {
            let is_output = match kind {
                Kind::OutStr
                | Kind::OutBuf(_)
                | Kind::OutStruct(_)
                | Kind::InOutStruct(_)
                | Kind::OutArray(..)
                | Kind::InOutArray(..)
                | Kind::OutSized(..)
                | Kind::OutIovec(_)
                | Kind::FdSet(_) => true,
                Kind::Fcntl(_) => value::fcntl_writes(u32::from_arg(self.args[1])),
                Kind::Ioctl(_) => value::ioctl_writes(u32::from_arg(self.args[1])).is_some(),
                _ => false,
            };
            if is_output && raw != 0 {
                write!(self.out, "{separator}{name}=")?;
                self.arg(kind, raw, i)?;
                separator = ", ";
            }
        }
        if separator == ", " { self.out.write_str("}") } else { Ok(()) }
    }

    fn arg(&mut self, kind: Kind, raw: u64, index: usize) -> fmt::Result {
        match kind {
            Kind::Fd | Kind::Int => write!(self.out, "{}", i32::from_arg(raw)),
            Kind::DirFd if i32::from_arg(raw) == fs::AT_FDCWD => self.out.write_str("AT_FDCWD"),
            Kind::DirFd => write!(self.out, "{}", i32::from_arg(raw)),
            Kind::UInt => write!(self.out, "{}", u32::from_arg(raw)),
            Kind::Long => write!(self.out, "{}", raw.cast_signed()),
            Kind::ULong | Kind::Size => write!(self.out, "{raw}"),
            Kind::Hex => write!(self.out, "{raw:#x}"),
            Kind::Hex32 => write!(self.out, "{:#x}", u32::from_arg(raw)),
            Kind::Mode => value::mode(u32::from_arg(raw), self.out),
            Kind::Access if u32::from_arg(raw) == fs::F_OK => self.out.write_str("F_OK"),
            Kind::Access => {
                value::flags(FlagSet { prefix: "", names: fs::ACCESS_NAMES }, raw, self.out)
            }
            Kind::Signal => value::signal(i32::from_arg(raw), self.out),
            Kind::Ptr => self.address(raw),
            Kind::InStr => self.string(raw, fs::PATH_MAX),
            Kind::OutStr if self.done.is_some() => self.string(raw, fs::PATH_MAX),
            Kind::StrArray => self.string_array(raw),
            Kind::InBuf(n) => self.buffer(raw, self.other(n)),
            Kind::OutBuf(n) => match self.done {
                Some(returned) => self.buffer(raw, returned.min(self.other(n))),
                None => self.address(raw),
            },
            Kind::InStruct(s) | Kind::InOutStruct(s) => self.structure(s, raw),
            Kind::OutStruct(s) if self.done.is_some() => self.structure(s, raw),
            Kind::InArray(s, n) | Kind::InOutArray(s, n) => self.array(s, raw, self.other(n)),
            Kind::OutArray(s, n) => match self.done {
                Some(returned) => self.array(s, raw, returned.min(self.other(n))),
                None => self.address(raw),
            },
            Kind::InSized(s, n) => self.sized(s, raw, self.other(n)),
            Kind::OutSized(s, n) => self.out_sized(s, raw, self.other(n)),
            Kind::InIovec(n) => self.iovec(raw, self.other(n), u64::MAX),
            Kind::OutIovec(n) => match self.done {
                Some(returned) => self.iovec(raw, self.other(n), returned),
                None => self.array(Struct::Iovec, raw, self.other(n)),
            },
            Kind::FdSet(n) => self.fd_set(raw, i32::from_arg(self.other(n))),
            Kind::Flags(set) => value::flags(set, raw, self.out),
            Kind::Mixed(mixed) => value::mixed(mixed, raw, self.out),
            Kind::Enum(names) => value::enumeration(names, raw, self.out),
            Kind::SockOpt => {
                let level = index.checked_sub(1).and_then(|i| self.args.get(i)).copied();
                match value::socket_options(i32::from_arg(level.unwrap_or(0))) {
                    Some(names) => value::enumeration(names, raw, self.out),
                    None => write!(self.out, "{}", i32::from_arg(raw)),
                }
            }
            Kind::Fcntl(n) => self.fcntl(u32::from_arg(self.other(n)), raw),
            Kind::Ioctl(n) => self.ioctl(u32::from_arg(self.other(n)), raw),
            Kind::Prctl(n) => self.prctl(i32::from_arg(self.other(n)), raw),
            Kind::FutexTimeout(n) if value::futex_waits(u32::from_arg(self.other(n))) => {
                self.structure(Struct::Timespec, raw)
            }
            Kind::FutexTimeout(_) => write!(self.out, "{raw}"),
            Kind::OutStr | Kind::OutStruct(_) => self.address(raw),
        }
    }

    /// Returns the argument that another one refers to.
    fn other(&self, index: u8) -> u64 {
        self.args.get(usize::from(index)).copied().unwrap_or(0)
    }

    fn address(&mut self, addr: u64) -> fmt::Result {
        if addr == 0 { self.out.write_str("NULL") } else { write!(self.out, "{addr:#x}") }
    }

    /// Reads as much of `dst` as can be read.
    fn read<'b>(&mut self, addr: u64, dst: &'b mut [u8]) -> &'b [u8] {
        let read = (self.mem)(UserAddr(addr), dst).min(dst.len());
        dst.get(..read).unwrap_or(&[])
    }

    /// Prints a string, or its address where its start cannot be read.
    fn string(&mut self, addr: u64, max: usize) -> fmt::Result {
        if addr == 0 {
            return self.out.write_str("NULL");
        }
        let mut chunk = [0; 64];
        let mut shown = 0;
        loop {
            let Some(at) = u64::try_from(shown).ok().and_then(|shown| addr.checked_add(shown))
            else {
                return self.out.write_str("\"...");
            };
            let part = self.read(at, &mut chunk);
            if part.is_empty() {
                return if shown == 0 {
                    write!(self.out, "{addr:#x}")
                } else {
                    self.out.write_str("\"...")
                };
            }
            if shown == 0 {
                self.out.write_str("\"")?;
            }
            let text = part.split(|&byte| byte == 0).next().unwrap_or(part);
            let text = text.get(..max - shown).unwrap_or(text);
            value::escaped(text, self.out)?;
            shown += text.len();
            if text.len() < part.len() && shown < max {
                return self.out.write_str("\"");
            }
            if shown >= max {
                return self.out.write_str("\"...");
            }
        }
    }

    fn string_array(&mut self, addr: u64) -> fmt::Result {
        if addr == 0 {
            return self.out.write_str("NULL");
        }
        for i in 0..=MAX_ELEMENTS {
            let mut word = [0; 8];
            let at = u64::try_from(i).ok().and_then(|i| addr.checked_add(i * 8));
            let complete = at.is_some_and(|at| self.read(at, &mut word).len() == word.len());
            match (i, complete) {
                (0, false) => return write!(self.out, "{addr:#x}"),
                (_, false) => return self.out.write_str(", ...]"),
                (0, true) => self.out.write_str("[")?,
                (_, true) => {}
            }
            let string = u64::from_le_bytes(word);
            if string == 0 {
                break;
            }
            if i > 0 {
                self.out.write_str(", ")?;
            }
            if i == MAX_ELEMENTS {
                self.out.write_str("...")?;
                break;
            }
            self.string(string, MAX_BYTES)?;
        }
        self.out.write_str("]")
    }

    /// Prints the first bytes of a buffer.
    fn buffer(&mut self, addr: u64, len: u64) -> fmt::Result {
        if addr == 0 {
            return self.out.write_str("NULL");
        }
        let mut bytes = [0; MAX_BYTES];
        let shown = usize::try_from(len).unwrap_or(MAX_BYTES).min(MAX_BYTES);
        let part = self.read(addr, bytes.get_mut(..shown).unwrap_or(&mut []));
        if part.is_empty() && shown > 0 {
            return write!(self.out, "{addr:#x}");
        }
        let cut = u64::try_from(part.len()).is_ok_and(|part| part < len);
        self.out.write_str("\"")?;
        value::escaped(part, self.out)?;
        self.out.write_str(if cut { "\"..." } else { "\"" })
    }

    fn structure(&mut self, structure: Struct, addr: u64) -> fmt::Result {
        self.sized_at_most(structure, addr, structure.size())
    }

    fn sized(&mut self, structure: Struct, addr: u64, len: u64) -> fmt::Result {
        self.sized_at_most(structure, addr, usize::try_from(len).unwrap_or(MAX_STRUCT))
    }

    fn sized_at_most(&mut self, structure: Struct, addr: u64, len: usize) -> fmt::Result {
        if addr == 0 {
            return self.out.write_str("NULL");
        }
        let mut bytes = [0; MAX_STRUCT];
        let len = len.min(MAX_STRUCT);
        let part = self.read(addr, bytes.get_mut(..len).unwrap_or(&mut []));
        if part.len() < len {
            return write!(self.out, "{addr:#x}");
        }
        match structure {
            Struct::Msghdr | Struct::Mmsghdr => self.message(part, addr),
            Struct::SigsetArgpack => self.sigset_argpack(part, addr),
            _ => structs::structure(structure, part, addr, self.out),
        }
    }

    /// Prints a structure whose size an `int` in memory holds.
    fn out_sized(&mut self, structure: Struct, addr: u64, len_addr: u64) -> fmt::Result {
        let mut len = [0; 4];
        if self.done.is_none() || self.read(len_addr, &mut len).len() < len.len() {
            return self.address(addr);
        }
        let len = usize::try_from(i32::from_le_bytes(len)).unwrap_or(0);
        self.sized_at_most(structure, addr, len)
    }

    fn array(&mut self, structure: Struct, addr: u64, count: u64) -> fmt::Result {
        if addr == 0 {
            return self.out.write_str("NULL");
        }
        let mut at = addr;
        let shown = usize::try_from(count).unwrap_or(MAX_ELEMENTS).min(MAX_ELEMENTS);
        self.out.write_str("[")?;
        for i in 0..shown {
            if i > 0 {
                self.out.write_str(", ")?;
            }
            self.structure(structure, at)?;
            let Some(next) = u64::try_from(structure.size()).ok().and_then(|s| at.checked_add(s))
            else {
                break;
            };
            at = next;
        }
        let cut = u64::try_from(shown).is_ok_and(|shown| shown < count);
        self.out.write_str(if cut { ", ...]" } else { "]" })
    }

    /// Prints an I/O vector with the data in it, at most `data` bytes in all.
    fn iovec(&mut self, addr: u64, count: u64, data: u64) -> fmt::Result {
        if addr == 0 {
            return self.out.write_str("NULL");
        }
        let (mut at, mut left) = (addr, data);
        let shown = usize::try_from(count).unwrap_or(MAX_ELEMENTS).min(MAX_ELEMENTS);
        self.out.write_str("[")?;
        for i in 0..shown {
            let mut words = [0; 16];
            if self.read(at, &mut words).len() < words.len() {
                write!(self.out, "{at:#x}")?;
                break;
            }
            let (base, len) = value::two_words(&words);
            self.out.write_str(if i > 0 { ", {iov_base=" } else { "{iov_base=" })?;
            self.buffer(base, len.min(left))?;
            write!(self.out, ", iov_len={len}}}")?;
            left = left.saturating_sub(len);
            let Some(next) = at.checked_add(16) else { break };
            at = next;
        }
        let cut = u64::try_from(shown).is_ok_and(|shown| shown < count);
        self.out.write_str(if cut { ", ...]" } else { "]" })
    }

    fn message(&mut self, bytes: &[u8], addr: u64) -> fmt::Result {
        let Some(header) = value::read_prefix::<socket::Msghdr>(bytes) else {
            return write!(self.out, "{addr:#x}");
        };
        let transferred = self.done.unwrap_or(u64::MAX);
        self.out.write_str("{msg_name=")?;
        let name_len = u64::try_from(header.msg_namelen).unwrap_or(0);
        self.sized(Struct::Sockaddr, header.msg_name, name_len)?;
        write!(self.out, ", msg_namelen={}, msg_iov=", header.msg_namelen)?;
        if self.info.name.starts_with("recv") && self.done.is_none() {
            self.array(Struct::Iovec, header.msg_iov, header.msg_iovlen)?;
        } else {
            self.iovec(header.msg_iov, header.msg_iovlen, transferred)?;
        }
        write!(self.out, ", msg_iovlen={}, msg_control=", header.msg_iovlen)?;
        self.address(header.msg_control)?;
        write!(self.out, ", msg_controllen={}, msg_flags=", header.msg_controllen)?;
        value::flags(FlagSet::of::<socket::MsgFlags>(), header.msg_flags.into(), self.out)?;
        self.out.write_str("}")
    }

    fn sigset_argpack(&mut self, bytes: &[u8], addr: u64) -> fmt::Result {
        let mut words = [0; 16];
        let Some(source) = bytes.get(..words.len()) else {
            return write!(self.out, "{addr:#x}");
        };
        words.copy_from_slice(source);
        let (set, size) = value::two_words(&words);
        self.out.write_str("{sigmask=")?;
        self.structure(Struct::SigSet, set)?;
        write!(self.out, ", sigsetsize={size}}}")
    }

    fn fd_set(&mut self, addr: u64, bits: i32) -> fmt::Result {
        if addr == 0 {
            return self.out.write_str("NULL");
        }
        let mut bytes = [0; 128];
        let len = usize::try_from(bits).unwrap_or(0).div_ceil(8).min(bytes.len());
        let part = self.read(addr, bytes.get_mut(..len).unwrap_or(&mut []));
        if part.len() < len {
            return write!(self.out, "{addr:#x}");
        }
        self.out.write_str("[")?;
        let mut separator = "";
        let limit = usize::try_from(bits).unwrap_or(0);
        for (i, byte) in part.iter().enumerate() {
            for bit in 0..8 {
                let fd = i * 8 + bit;
                if byte & (1 << bit) != 0 && fd < limit {
                    write!(self.out, "{separator}{fd}")?;
                    separator = " ";
                }
            }
        }
        self.out.write_str("]")
    }

    fn fcntl(&mut self, op: u32, raw: u64) -> fmt::Result {
        match op {
            fs::F_SETFL => value::mixed(crate::info::OPEN, raw, self.out),
            fs::F_SETFD if raw == 1 => self.out.write_str("FD_CLOEXEC"),
            fs::F_ADD_SEALS => value::flags(FlagSet::of::<fs::SealFlags>(), raw, self.out),
            fs::F_GETLK
            | fs::F_SETLK
            | fs::F_SETLKW
            | fs::F_OFD_GETLK
            | fs::F_OFD_SETLK
            | fs::F_OFD_SETLKW => self.structure(Struct::Flock, raw),
            fs::F_GETFL
            | fs::F_GETFD
            | fs::F_GETOWN
            | fs::F_GETSIG
            | fs::F_GETPIPE_SZ
            | fs::F_GET_SEALS => write!(self.out, "{raw:#x}"),
            _ => write!(self.out, "{}", raw.cast_signed()),
        }
    }

    fn ioctl(&mut self, request: u32, raw: u64) -> fmt::Result {
        let structure = match value::ioctl_writes(request) {
            Some(structure) if self.done.is_some() => Some(structure),
            Some(_) => None,
            None => value::ioctl_reads(request),
        };
        match structure {
            Some(structure) => self.structure(structure, raw),
            None => write!(self.out, "{raw:#x}"),
        }
    }

    fn prctl(&mut self, op: i32, raw: u64) -> fmt::Result {
        match op {
            prctl::PR_SET_NAME => self.string(raw, prctl::TASK_COMM_LEN),
            prctl::PR_GET_NAME if self.done.is_some() => self.string(raw, prctl::TASK_COMM_LEN),
            prctl::PR_SET_PDEATHSIG => value::signal(i32::from_arg(raw), self.out),
            prctl::PR_CAPBSET_READ | prctl::PR_CAPBSET_DROP => {
                value::enumeration(capability::CAP_NAMES, raw, self.out)
            }
            prctl::PR_CAP_AMBIENT => value::enumeration(prctl::PR_CAP_AMBIENT_NAMES, raw, self.out),
            _ => write!(self.out, "{raw:#x}"),
        }
    }
}

#[cfg(test)]
mod tests;
