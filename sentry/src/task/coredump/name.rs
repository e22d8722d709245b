//! The name of a core file: `/proc/sys/kernel/core_pattern`.

use std::sync::atomic::Ordering;

use syscalls::abi::resource::RLIMIT_CORE;
use syscalls::abi::signal::Siginfo;

use crate::task::CurrentTask;

const NS_PER_S: u64 = 1_000_000_000;

/// Returns the path of the calling process's core file.
pub(super) fn of(current: &CurrentTask, info: &Siginfo) -> Vec<u8> {
    let sysctls = &current.kernel.sysctls;
    let adds_pid = sysctls.number("kernel/core_uses_pid", 0).unwrap_or(0) != 0;
    let pid = || current.group.pid_in(&current.pid_namespace()).to_string();
    let pattern = sysctls.words("kernel/core_pattern");
    expand(&pattern, adds_pid, pid, |letter| value(current, info, letter))
}

/// Returns what a letter of the pattern stands for.
fn value(current: &CurrentTask, info: &Siginfo, letter: u8) -> Option<Vec<u8>> {
    let group = &current.group;
    let creds = current.creds();
    let number = |value: u64| Some(value.to_string().into_bytes());
    let exe = || {
        let path = current.mm().exe().and_then(|exe| exe.path.clone());
        path.map(|path| path.name_from(&current.fs().root()).for_proc())
    };
    match letter {
        b'p' => number(group.pid_in(&current.pid_namespace()).into()),
        b'P' => number(group.pid().into()),
        b'i' => number(current.tid_in(&current.pid_namespace()).into()),
        b'I' => number(current.tid().into()),
        b'u' => number(creds.uid.into()),
        b'g' => number(creds.gid.into()),
        b'd' => number(group.is_dumpable.load(Ordering::Relaxed).into()),
        b's' => number(u64::try_from(info.si_signo).unwrap_or(0)),
        b't' => number(u64::try_from(current.kernel.clock.realtime_ns()).unwrap_or(0) / NS_PER_S),
        b'h' => Some(current.namespaces().uts.lock().host.clone()),
        b'e' => Some(current.comm.lock().clone()),
        b'f' => {
            let path = exe()?;
            let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
            path.get(start..).map(<[u8]>::to_vec)
        }
        b'E' => exe(),
        b'c' => number(group.limits.lock().soft(RLIMIT_CORE)),
        b'C' => number(0),
        _ => None,
    }
}

/// Fills a pattern in. What a letter stands for never adds a component to the path.
fn expand(
    pattern: &str,
    adds_pid: bool,
    pid: impl Fn() -> String,
    value: impl Fn(u8) -> Option<Vec<u8>>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut has_pid = false;
    let mut bytes = pattern.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            None => break,
            Some(b'%') => out.push(b'%'),
            Some(letter) => {
                has_pid |= letter == b'p';
                if let Some(text) = value(letter) {
                    out.extend_from_slice(&plain(text));
                }
            }
        }
    }
    if adds_pid && !has_pid {
        out.push(b'.');
        out.extend_from_slice(pid().as_bytes());
    }
    out
}

fn plain(mut text: Vec<u8>) -> Vec<u8> {
    for byte in &mut text {
        if *byte == b'/' {
            *byte = b'!';
        }
    }
    match text.as_mut_slice() {
        [] => text.push(b'!'),
        [first @ b'.'] | [first @ b'.', b'.'] => *first = b'!',
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pattern: &str, adds_pid: bool) -> String {
        let value = |letter| match letter {
            b'p' => Some(b"7".to_vec()),
            b'e' => Some(b"a/b".to_vec()),
            b'h' => Some(b"..".to_vec()),
            b'f' => Some(Vec::new()),
            _ => None,
        };
        let bytes = expand(pattern, adds_pid, || "7".to_owned(), value);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn letters_are_filled_in() {
        assert_eq!(filled("/x/core.%e.%p", false), "/x/core.a!b.7");
        assert_eq!(filled("%h/%f", false), "!./!");
        assert_eq!(filled("100%%%z%", false), "100%");
    }

    #[test]
    fn pid_is_added_once() {
        assert_eq!(filled("core", true), "core.7");
        assert_eq!(filled("core-%p", true), "core-7");
        assert_eq!(filled("core", false), "core");
    }
}
