//! `/proc/PID/uid_map`, `gid_map` and `setgroups`: the users of a user namespace
//! (`user_namespaces(7)`).

use std::fmt::Write;

use syscalls::abi::capability::CAP_SYS_ADMIN;
use syscalls::{Errno, SysResult};

use super::Look;
use crate::task::user_namespace::IdKind;
use crate::task::{Credentials, identity};

pub(super) fn uid_map(look: &Look<'_>) -> SysResult<Vec<u8>> {
    Ok(show(look, IdKind::User))
}

pub(super) fn gid_map(look: &Look<'_>) -> SysResult<Vec<u8>> {
    Ok(show(look, IdKind::Group))
}

/// There are no project ids: each is itself.
pub(super) fn projid_map(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let is_initial = look.task.creds().user_ns.is_initial();
    Ok(if is_initial { render(&[[0, 0, u32::MAX]]) } else { Vec::new() })
}

fn show(look: &Look<'_>, kind: IdKind) -> Vec<u8> {
    let reader = look.current.creds();
    render(&look.task.creds().user_ns.rows(kind, &reader.user_ns))
}

fn render(rows: &[[u32; 3]]) -> Vec<u8> {
    let mut text = String::new();
    for [inside, outside, count] in rows {
        let _ = writeln!(text, "{inside:>10} {outside:>10} {count:>10}");
    }
    text.into_bytes()
}

pub(super) fn set_uid_map(look: &Look<'_>, data: &[u8], opener: &Credentials) -> SysResult<()> {
    set(look, IdKind::User, data, opener)
}

pub(super) fn set_gid_map(look: &Look<'_>, data: &[u8], opener: &Credentials) -> SysResult<()> {
    set(look, IdKind::Group, data, opener)
}

fn set(look: &Look<'_>, kind: IdKind, data: &[u8], opener: &Credentials) -> SysResult<()> {
    let rows = parse(data)?;
    let namespace = look.task.creds().user_ns.clone();
    namespace.set_map(kind, &rows, &look.current.creds(), opener)?;
    // What its members are answered for their ids has changed.
    let mut seen = Vec::new();
    for (_, task) in look.current.kernel.root_pid_namespace.tasks() {
        let is_new = !seen.contains(&task.group.pid());
        if is_new && task.creds().user_ns.is_in(&namespace) {
            seen.push(task.group.pid());
            identity::changed_for_all(&task.group);
        }
    }
    Ok(())
}

/// Reads lines of three numbers.
fn parse(data: &[u8]) -> SysResult<Vec<[u32; 3]>> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let row = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let mut next = || words.next()?.parse().ok();
        let row = [next()?, next()?, next()?];
        words.next().is_none().then_some(row)
    };
    let rows: Option<Vec<[u32; 3]>> = text.split('\n').map(row).collect();
    rows.ok_or(Errno::EINVAL)
}

pub(super) fn setgroups(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let is_denied = look.task.creds().user_ns.denies_setgroups();
    Ok(if is_denied { b"deny\n".to_vec() } else { b"allow\n".to_vec() })
}

pub(super) fn set_setgroups(look: &Look<'_>, data: &[u8], opener: &Credentials) -> SysResult<()> {
    let namespace = look.task.creds().user_ns.clone();
    if !opener.is_capable_in(&namespace, CAP_SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    match data.trim_ascii_end() {
        b"allow" => namespace.set_setgroups(true),
        b"deny" => namespace.set_setgroups(false),
        _ => Err(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn rows_are_three_numbers_each() {
        assert_eq!(parse(b"0 1000 1\n1 2000 5").ok(), Some(vec![[0, 1000, 1], [1, 2000, 5]]));
        for wrong in [&b""[..], b"0 1", b"0 1 2 3", b"0 1 -1", b"0 1 1\n\n", b"a b c"] {
            assert!(parse(wrong).is_err());
        }
    }
}
