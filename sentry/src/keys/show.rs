//! `/proc/keys` and `/proc/key-users`.

use std::fmt::Write;

use super::search::{Found, Need, Seeker, Wanted, search_own};
use super::{Key, KeyType, Limits};
use crate::task::CurrentTask;

/// Returns the keys that the caller may view (`proc_keys(5)`).
pub(crate) fn keys(task: &CurrentTask) -> String {
    let container = task.container();
    let seeker = Seeker::of(task);
    let mut out = String::new();
    for key in container.keys.all() {
        let own = search_own(&container.keys, task, &seeker, Wanted::This(&key));
        let is_possessed = own.is_ok();
        drop(own);
        let found = Found { key, is_possessed };
        if found.check(&seeker, Need::View).is_ok() {
            show(&mut out, &found.key, task.kernel.clock.boot_ns());
        }
    }
    out
}

fn show(out: &mut String, key: &std::sync::Arc<Key>, now_ns: u64) {
    let n_links = key.links().len();
    let state = key.lock();
    let flag = |is_set: bool, letter: char| if is_set { letter } else { '-' };
    let timeout = match state.expiry_ns {
        None => String::from("perm"),
        Some(expiry) if expiry <= now_ns => String::from("expd"),
        Some(expiry) => timeout(expiry.saturating_sub(now_ns) / 1_000_000_000),
    };
    let description = String::from_utf8_lossy(&key.description);
    let summary = match key.kind {
        _ if state.rejection.is_some() || state.is_revoked => String::new(),
        KeyType::Keyring if n_links == 0 => String::from(": empty"),
        KeyType::Keyring => format!(": {n_links}"),
        KeyType::User | KeyType::Logon => format!(": {}", state.payload.len()),
        KeyType::BigKey => format!(": {} [buff]", state.payload.len()),
    };
    let flags: String = [
        flag(true, 'I'),
        flag(state.is_revoked, 'R'),
        '-',
        flag(true, 'Q'),
        '-',
        flag(state.rejection.is_some(), 'N'),
        flag(state.is_invalidated, 'i'),
    ]
    .iter()
    .collect();
    let gid = state.gid.cast_signed();
    let _ = writeln!(
        out,
        "{:08x} {flags} {:5} {timeout:>4} {:08x} {:5} {gid:5} {:<9.9} {description}{summary}",
        key.serial,
        std::sync::Arc::strong_count(key).saturating_sub(1),
        state.perm.bits(),
        state.uid,
        key.kind.name(),
    );
}

/// Returns a number of seconds in the largest unit that fits.
fn timeout(seconds: u64) -> String {
    const UNITS: [(u64, char); 5] =
        [(604_800, 'w'), (86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')];
    let unit = UNITS.iter().find(|(size, _)| seconds >= *size);
    let (size, letter) = unit.unwrap_or(&(1, 's'));
    format!("{}{letter}", seconds / size)
}

/// Returns what each user has (`proc_key-users(5)`).
pub(crate) fn users(task: &CurrentTask) -> String {
    let mut out = String::new();
    let users = task.container().keys.registry.users.lock();
    for user in users.values() {
        let usage = user.usage.lock();
        let (n_keys, n_bytes) = (usage.n_keys, usage.n_bytes);
        drop(usage);
        if n_keys == 0 {
            continue;
        }
        let limits = Limits::of(&task.kernel, user.uid);
        let _ = writeln!(
            out,
            "{:5}: {:5} {n_keys}/{n_keys} {n_keys}/{} {n_bytes}/{}",
            user.uid, n_keys, limits.n_keys, limits.n_bytes
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::timeout;

    #[test]
    fn timeouts_have_the_largest_unit() {
        assert_eq!(timeout(0), "0s");
        assert_eq!(timeout(59), "59s");
        assert_eq!(timeout(7200), "2h");
        assert_eq!(timeout(700_000), "1w");
    }
}
