//! Numbers, names, flags and strings.

use core::fmt::{self, Write};

use zerocopy::FromBytes;

use crate::abi::{Name, fs, futex, ioctl, signal, socket};
use crate::arg::FromArg as _;
use crate::info::{FlagSet, Mixed, Struct};

/// A number in octal with a leading zero.
pub(super) struct Octal(pub(super) u64);

impl fmt::Display for Octal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("0") } else { write!(f, "0{:o}", self.0) }
    }
}

/// Reads a structure from the start of some bytes.
pub(super) fn read_prefix<T: FromBytes>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).ok().map(|(value, _)| value)
}

/// Returns the two words of which an `iovec` consists.
pub(super) fn two_words(bytes: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*bytes);
    let low = both & u128::from(u64::MAX);
    (u64::try_from(low).unwrap_or(0), u64::try_from(both >> 64).unwrap_or(0))
}

/// Prints a word of flags; bits without a name follow in hexadecimal.
pub(super) fn flags(set: FlagSet, word: u64, out: &mut dyn Write) -> fmt::Result {
    match some_flags(set, word, "", out)? {
        true => Ok(()),
        false => out.write_str("0"),
    }
}

/// Prints the flags in a word after `separator`; returns whether there were any.
fn some_flags(
    set: FlagSet,
    word: u64,
    mut separator: &str,
    out: &mut dyn Write,
) -> Result<bool, fmt::Error> {
    let mut left = word;
    // Names of several bits come first: `O_SYNC` holds the bit of `O_DSYNC`.
    for several in [true, false] {
        for &(name, bits) in set.names {
            let bits = bits.cast_unsigned();
            if (bits.count_ones() > 1) == several && bits != 0 && left & bits == bits {
                // An identifier cannot start with a digit: `MAP_32BIT` is `_32BIT`.
                let name =
                    name.strip_prefix('_').filter(|_| !set.prefix.is_empty()).unwrap_or(name);
                write!(out, "{separator}{}{name}", set.prefix)?;
                left &= !bits;
                separator = "|";
            }
        }
    }
    if left != 0 {
        write!(out, "{separator}{left:#x}")?;
    }
    Ok(word != 0)
}

/// Prints a word that holds a number and flags.
pub(super) fn mixed(mixed: &Mixed, word: u64, out: &mut dyn Write) -> fmt::Result {
    let number = word & mixed.mask;
    let rest = word & !mixed.mask;
    match name_of(mixed.values, number) {
        Some(name) => out.write_str(name)?,
        None if number == 0 && rest == 0 => return out.write_str("0"),
        None if number == 0 => {
            some_flags(mixed.flags, rest, "", out)?;
            return Ok(());
        }
        None => write!(out, "{number:#x}")?,
    }
    some_flags(mixed.flags, rest, "|", out)?;
    Ok(())
}

/// Returns the name of a constant, of whose value the low 32 bits count.
pub(super) fn name_of(names: &'static [Name], raw: u64) -> Option<&'static str> {
    let raw = u32::from_arg(raw);
    names
        .iter()
        .find(|(_, value)| u32::from_arg(value.cast_unsigned()) == raw)
        .map(|&(name, _)| name)
}

/// Prints one of some constants, or the number.
pub(super) fn enumeration(names: &'static [Name], raw: u64, out: &mut dyn Write) -> fmt::Result {
    match name_of(names, raw) {
        Some(name) => out.write_str(name),
        None if raw <= 0xffff => write!(out, "{raw}"),
        None => write!(out, "{:#x}", u32::from_arg(raw)),
    }
}

/// Prints a signal.
pub(super) fn signal(signo: i32, out: &mut dyn Write) -> fmt::Result {
    match name_of(signal::SIGNAL_NAMES, i64::from(signo).cast_unsigned()) {
        Some(name) => out.write_str(name),
        None if (signal::SIGRTMIN..=signal::SIGRTMAX).contains(&signo) => {
            write!(out, "SIGRT_{}", signo - signal::SIGRTMIN)
        }
        None => write!(out, "{signo}"),
    }
}

/// Prints a set of signals: `[INT CHLD]`, or what it lacks where that is less: `~[KILL]`.
pub(super) fn signal_set(set: signal::SigSet, out: &mut dyn Write) -> fmt::Result {
    let (set, mark) = if set.0.count_ones() > 32 { (set.complement(), "~[") } else { (set, "[") };
    out.write_str(mark)?;
    let mut separator = "";
    for signo in set.iter() {
        out.write_str(separator)?;
        match name_of(signal::SIGNAL_NAMES, i64::from(signo).cast_unsigned()) {
            Some(name) => out.write_str(name.strip_prefix("SIG").unwrap_or(name))?,
            None => write!(out, "RT_{}", signo - signal::SIGRTMIN)?,
        }
        separator = " ";
    }
    out.write_str("]")
}

/// Prints permission bits, after the type of the file where there is one.
pub(super) fn mode(mode: u32, out: &mut dyn Write) -> fmt::Result {
    if mode & fs::S_IFMT != 0 {
        match name_of(fs::FILE_TYPE_NAMES, (mode & fs::S_IFMT).into()) {
            Some(name) => write!(out, "{name}|")?,
            None => write!(out, "{}|", Octal((mode & fs::S_IFMT).into()))?,
        }
    }
    write!(out, "{}", Octal((mode & !fs::S_IFMT).into()))
}

/// Prints bytes as in a C string.
pub(super) fn escaped(bytes: &[u8], out: &mut dyn Write) -> fmt::Result {
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'"' => out.write_str("\\\"")?,
            b'\\' => out.write_str("\\\\")?,
            b'\n' => out.write_str("\\n")?,
            b'\r' => out.write_str("\\r")?,
            b'\t' => out.write_str("\\t")?,
            0x0b => out.write_str("\\v")?,
            0x0c => out.write_str("\\f")?,
            b' '..=b'~' => out.write_char(char::from(*byte))?,
            // A digit that follows would be taken for part of a short escape.
            _ if tail.first().is_some_and(u8::is_ascii_digit) => write!(out, "\\{byte:03o}")?,
            _ => write!(out, "\\{byte:o}")?,
        }
    }
    Ok(())
}

/// Prints a buffer in quotes up to its first NUL.
pub(super) fn c_string(bytes: &[u8], out: &mut dyn Write) -> fmt::Result {
    out.write_str("\"")?;
    escaped(bytes.split(|&byte| byte == 0).next().unwrap_or(bytes), out)?;
    out.write_str("\"")
}

/// Returns the names of the options of a level.
pub(super) fn socket_options(level: i32) -> Option<&'static [Name]> {
    match level {
        socket::SOL_SOCKET => Some(socket::SO_NAMES),
        socket::SOL_TCP => Some(socket::TCP_NAMES),
        socket::SOL_IP => Some(socket::IP_NAMES),
        socket::SOL_IPV6 => Some(socket::IPV6_NAMES),
        _ => None,
    }
}

/// Returns whether the fourth argument of a `futex(2)` operation is a time.
pub(super) fn futex_waits(op: u32) -> bool {
    matches!(
        op & futex::FUTEX_CMD_MASK,
        futex::FUTEX_WAIT
            | futex::FUTEX_LOCK_PI
            | futex::FUTEX_WAIT_BITSET
            | futex::FUTEX_WAIT_REQUEUE_PI
            | futex::FUTEX_LOCK_PI2
    )
}

/// Returns whether a `fcntl(2)` command writes through its argument.
pub(super) fn fcntl_writes(op: u32) -> bool {
    matches!(op, fs::F_GETLK | fs::F_OFD_GETLK)
}

/// Returns the structure that an `ioctl(2)` request writes.
pub(super) fn ioctl_writes(request: u32) -> Option<Struct> {
    Some(match request {
        ioctl::TIOCGWINSZ => Struct::Winsize,
        ioctl::TCGETS => Struct::Termios,
        ioctl::FIONREAD
        | ioctl::TIOCOUTQ
        | ioctl::TIOCGPGRP
        | ioctl::TIOCGSID
        | ioctl::TIOCGPTN
        | ioctl::TIOCGPTLCK
        | ioctl::SIOCATMARK
        | ioctl::FIGETBSZ => Struct::Int,
        _ => return None,
    })
}

/// Returns the structure that an `ioctl(2)` request reads.
pub(super) fn ioctl_reads(request: u32) -> Option<Struct> {
    Some(match request {
        ioctl::TIOCSWINSZ => Struct::Winsize,
        ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => Struct::Termios,
        ioctl::FIONBIO | ioctl::FIOASYNC | ioctl::TIOCSPGRP | ioctl::TIOCSPTLCK => Struct::Int,
        _ => return None,
    })
}

/// Returns the name of a result that asks for the call to be restarted; applications never see it.
pub(super) fn restart_name(errno: i32) -> Option<&'static str> {
    Some(match errno {
        512 => "ERESTARTSYS",
        513 => "ERESTARTNOINTR",
        514 => "ERESTARTNOHAND",
        516 => "ERESTART_RESTARTBLOCK",
        _ => return None,
    })
}
