//! Keys: `add_key(2)`, `request_key(2)`, `keyctl(2)`.
//!
//! Nobody makes keys on request: there is no `/sbin/request-key` that could be started.

use syscalls::abi::capability::CAP_SYS_ADMIN;
use syscalls::abi::keyctl::{
    KEY_REQKEY_DEFL_DEFAULT, KEY_REQKEY_DEFL_NO_CHANGE, KEY_REQKEY_DEFL_PROCESS_KEYRING,
    KEY_REQKEY_DEFL_REQUESTOR_KEYRING, KEY_REQKEY_DEFL_SESSION_KEYRING,
    KEY_REQKEY_DEFL_THREAD_KEYRING, KEY_REQKEY_DEFL_USER_KEYRING,
    KEY_REQKEY_DEFL_USER_SESSION_KEYRING, KEY_SPEC_PROCESS_KEYRING, KEY_SPEC_SESSION_KEYRING,
    KEY_SPEC_THREAD_KEYRING, KEY_SPEC_USER_KEYRING, KEY_SPEC_USER_SESSION_KEYRING,
    KEYCTL_ASSUME_AUTHORITY, KEYCTL_CAPABILITIES, KEYCTL_CHOWN, KEYCTL_CLEAR, KEYCTL_DESCRIBE,
    KEYCTL_GET_KEYRING_ID, KEYCTL_GET_SECURITY, KEYCTL_INSTANTIATE, KEYCTL_INSTANTIATE_IOV,
    KEYCTL_INVALIDATE, KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_LINK, KEYCTL_MOVE, KEYCTL_NEGATE,
    KEYCTL_READ, KEYCTL_REJECT, KEYCTL_RESTRICT_KEYRING, KEYCTL_REVOKE, KEYCTL_SEARCH,
    KEYCTL_SESSION_TO_PARENT, KEYCTL_SET_REQKEY_KEYRING, KEYCTL_SET_TIMEOUT, KEYCTL_SETPERM,
    KEYCTL_UNLINK, KEYCTL_UPDATE, KeyPerm,
};
use syscalls::abi::mm::PAGE_SIZE;
use syscalls::{Errno, FromArg, SysResult, UserAddr};

use crate::keys::search::{self, Found, Lookup, Need, Seeker, Wanted};
use crate::keys::{KeyType, MAX_PAYLOAD};
use crate::task::{CurrentTask, HandlerResult};

/// The longest name of a type, with its end.
const TYPE_LEN: usize = 32;

/// The longest description, with its end.
const DESCRIPTION_LEN: usize = 4096;

/// What this kernel has of `KEYCTL_CAPS*`: the call itself, big keys, invalidation, restriction,
/// moves.
const CAPABILITIES: [u8; 2] = [0x01 | 0x10 | 0x20 | 0x40 | 0x80, 0];

const PLAIN: Lookup = Lookup { create: false, partial: false };
const CREATE: Lookup = Lookup { create: true, partial: false };
const PARTIAL: Lookup = Lookup { create: false, partial: true };
const CREATE_PARTIAL: Lookup = Lookup { create: true, partial: true };

fn look_up(task: &CurrentTask, id: i32, how: Lookup, need: Need) -> SysResult<Found> {
    search::look_up(&task.container().keys, task, id, how, need)
}

fn read_type(task: &CurrentTask, name: UserAddr) -> SysResult<Vec<u8>> {
    match task.read_cstr(name, TYPE_LEN) {
        Err(Errno::ENAMETOOLONG) => Err(Errno::EINVAL),
        Ok(name) if name.is_empty() => Err(Errno::EINVAL),
        // Those of the kernel itself.
        Ok(name) if name.starts_with(b".") => Err(Errno::EPERM),
        result => result,
    }
}

fn read_description(task: &CurrentTask, description: UserAddr) -> SysResult<Vec<u8>> {
    match task.read_cstr(description, DESCRIPTION_LEN) {
        Err(Errno::ENAMETOOLONG) => Err(Errno::EINVAL),
        result => result,
    }
}

fn read_payload(task: &CurrentTask, payload: UserAddr, len: usize) -> SysResult<Vec<u8>> {
    let mut bytes = vec![0; len];
    task.read_bytes(payload, &mut bytes)?;
    Ok(bytes)
}

/// Implements `add_key(2)`.
///
/// <https://man7.org/linux/man-pages/man2/add_key.2.html>
pub(super) fn sys_add_key(
    task: &CurrentTask,
    kind: UserAddr,
    description: UserAddr,
    payload: UserAddr,
    plen: usize,
    keyring: i32,
) -> HandlerResult<i32> {
    if plen > MAX_PAYLOAD {
        return Err(Errno::EINVAL.into());
    }
    let kind = read_type(task, kind)?;
    let description =
        if description.is_null() { Vec::new() } else { read_description(task, description)? };
    if description.starts_with(b".") && kind == b"keyring" {
        return Err(Errno::EPERM.into());
    }
    let payload = read_payload(task, payload, plen)?;
    let ring = look_up(task, keyring, CREATE, Need::Write)?;
    let kind = KeyType::by_name(&kind).ok_or(Errno::ENODEV)?;
    Ok(task.container().keys.add(task, &ring, kind, &description, payload)?)
}

/// Implements `request_key(2)`.
///
/// <https://man7.org/linux/man-pages/man2/request_key.2.html>
pub(super) fn sys_request_key(
    task: &CurrentTask,
    kind: UserAddr,
    description: UserAddr,
    callout_info: UserAddr,
    dest_keyring: i32,
) -> HandlerResult<i32> {
    let kind = read_type(task, kind)?;
    let description = read_description(task, description)?;
    let is_asked = !callout_info.is_null();
    if is_asked {
        task.read_cstr(callout_info, usize::try_from(PAGE_SIZE).unwrap_or(0))
            .map_err(|errno| if errno == Errno::ENAMETOOLONG { Errno::EINVAL } else { errno })?;
    }
    let dest = match dest_keyring {
        0 => None,
        id => Some(look_up(task, id, CREATE, Need::Write)?),
    };
    let kind = KeyType::by_name(&kind).ok_or(Errno::ENOKEY)?;
    let keys = &task.container().keys;
    let wanted = Wanted::Named(kind, &description);
    match search::search_own(keys, task, &Seeker::of(task), wanted) {
        Ok(found) => {
            if let Some(dest) = &dest {
                keys.link(&task.kernel, &dest.key, &found.key)?;
            }
            Ok(found.key.serial)
        }
        Err(Errno::EAGAIN) if is_asked => {
            let ring = match dest {
                Some(dest) => dest,
                None => default_destination(task)?,
            };
            Ok(keys.add_negative(task, &ring.key, kind, &description)?)
        }
        Err(Errno::EAGAIN) => Err(Errno::ENOKEY.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns the keyring that gets what is made on request, where none is named.
fn default_destination(task: &CurrentTask) -> SysResult<Found> {
    let own = task.misc.lock().keyrings.clone();
    let id = match own.request_default {
        KEY_REQKEY_DEFL_THREAD_KEYRING => KEY_SPEC_THREAD_KEYRING,
        KEY_REQKEY_DEFL_PROCESS_KEYRING => KEY_SPEC_PROCESS_KEYRING,
        KEY_REQKEY_DEFL_SESSION_KEYRING => KEY_SPEC_SESSION_KEYRING,
        KEY_REQKEY_DEFL_USER_KEYRING => KEY_SPEC_USER_KEYRING,
        KEY_REQKEY_DEFL_USER_SESSION_KEYRING => KEY_SPEC_USER_SESSION_KEYRING,
        _ if own.thread.is_some() => KEY_SPEC_THREAD_KEYRING,
        _ if own.process.is_some() => KEY_SPEC_PROCESS_KEYRING,
        _ if own.session.is_some() => KEY_SPEC_SESSION_KEYRING,
        _ => KEY_SPEC_USER_SESSION_KEYRING,
    };
    look_up(task, id, CREATE, Need::Write)
}

/// Implements `keyctl(2)`.
///
/// <https://man7.org/linux/man-pages/man2/keyctl.2.html>
pub(super) fn sys_keyctl(
    task: &CurrentTask,
    operation: i32,
    arg2: u64,
    arg3: u64,
    arg4: u64,
    arg5: u64,
) -> HandlerResult<usize> {
    let id = i32::from_arg(arg2);
    let len = usize::from_arg(arg4);
    match operation {
        KEYCTL_GET_KEYRING_ID => {
            let how = Lookup { create: i32::from_arg(arg3) != 0, partial: false };
            serial(&look_up(task, id, how, Need::Search)?)
        }
        KEYCTL_JOIN_SESSION_KEYRING => join_session(task, UserAddr(arg2)),
        KEYCTL_UPDATE => update(task, id, UserAddr(arg3), len),
        KEYCTL_REVOKE => {
            let found = match look_up(task, id, PLAIN, Need::Write) {
                Err(Errno::EACCES) => look_up(task, id, PLAIN, Need::SetAttr),
                result => result,
            };
            found?.key.revoke();
            Ok(0)
        }
        KEYCTL_CHOWN => chown(task, id, u32::from_arg(arg3), u32::from_arg(arg4)),
        KEYCTL_SETPERM => set_perm(task, id, KeyPerm::from_arg(arg3)),
        KEYCTL_DESCRIBE => describe(task, id, UserAddr(arg3), len),
        KEYCTL_CLEAR => {
            look_up(task, id, CREATE, Need::Write)?.key.clear()?;
            Ok(0)
        }
        KEYCTL_LINK => {
            let ring = look_up(task, i32::from_arg(arg3), CREATE, Need::Write)?;
            let found = look_up(task, id, CREATE, Need::Link)?;
            task.container().keys.link(&task.kernel, &ring.key, &found.key)?;
            Ok(0)
        }
        KEYCTL_UNLINK => {
            let ring = look_up(task, i32::from_arg(arg3), PLAIN, Need::Write)?;
            let found = look_up(task, id, PARTIAL, Need::Unlink)?;
            ring.key.unlink(&found.key)?;
            Ok(0)
        }
        KEYCTL_MOVE => {
            let to = (i32::from_arg(arg4), u32::from_arg(arg5));
            move_link(task, id, i32::from_arg(arg3), to)
        }
        KEYCTL_SEARCH => {
            let dest = i32::from_arg(arg5);
            search_keyring(task, id, UserAddr(arg3), UserAddr(arg4), dest)
        }
        KEYCTL_READ => read(task, id, UserAddr(arg3), len),
        KEYCTL_SET_REQKEY_KEYRING => set_request_default(task, id),
        KEYCTL_SET_TIMEOUT => {
            let found = look_up(task, id, CREATE_PARTIAL, Need::SetAttr)?;
            found.key.set_timeout(task.kernel.clock.boot_ns(), u32::from_arg(arg3));
            Ok(0)
        }
        // Only whoever has been asked to make a key may.
        KEYCTL_INSTANTIATE if len > MAX_PAYLOAD => Err(Errno::EINVAL.into()),
        KEYCTL_INSTANTIATE | KEYCTL_NEGATE | KEYCTL_INSTANTIATE_IOV => Err(Errno::EPERM.into()),
        KEYCTL_REJECT if !(1..4096).contains(&arg4) => Err(Errno::EINVAL.into()),
        KEYCTL_REJECT => Err(Errno::EPERM.into()),
        KEYCTL_ASSUME_AUTHORITY => match id {
            0 => Ok(0),
            ..0 => Err(Errno::EINVAL.into()),
            _ => Err(Errno::ENOKEY.into()),
        },
        KEYCTL_GET_SECURITY => {
            // No security module has given a label.
            look_up(task, id, PARTIAL, Need::View)?;
            if arg3 != 0 && len > 0 {
                task.write_bytes(UserAddr(arg3), b"\0")?;
            }
            Ok(1)
        }
        KEYCTL_SESSION_TO_PARENT => session_to_parent(task),
        KEYCTL_INVALIDATE => {
            look_up(task, id, PLAIN, Need::Search)?.key.invalidate();
            Ok(0)
        }
        KEYCTL_RESTRICT_KEYRING => {
            let found = look_up(task, id, PLAIN, Need::SetAttr)?;
            if found.key.kind != KeyType::Keyring {
                return Err(Errno::ENOTDIR.into());
            }
            if arg3 != 0 {
                // No type that is known here restricts what is linked.
                read_type(task, UserAddr(arg3))?;
                return Err(Errno::ENOENT.into());
            }
            found.key.restrict();
            Ok(0)
        }
        KEYCTL_CAPABILITIES => capabilities(task, UserAddr(arg2), usize::from_arg(arg3)),
        _ => Err(Errno::EOPNOTSUPP.into()),
    }
}

fn serial(found: &Found) -> HandlerResult<usize> {
    Ok(usize::try_from(found.key.serial).map_err(|_| Errno::EINVAL)?)
}

fn join_session(task: &CurrentTask, name: UserAddr) -> HandlerResult<usize> {
    let name = if name.is_null() { None } else { Some(read_description(task, name)?) };
    if name.as_ref().is_some_and(|name| name.starts_with(b".")) {
        return Err(Errno::EPERM.into());
    }
    let ring = search::join_session(&task.container().keys, task, name.as_deref())?;
    Ok(usize::try_from(ring.serial).map_err(|_| Errno::EINVAL)?)
}

fn update(task: &CurrentTask, id: i32, payload: UserAddr, len: usize) -> HandlerResult<usize> {
    if len as u64 > PAGE_SIZE {
        return Err(Errno::EINVAL.into());
    }
    let payload = read_payload(task, payload, len)?;
    let found = look_up(task, id, PLAIN, Need::Write)?;
    if !found.key.kind.can_update() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    found.key.set_payload(&task.kernel, payload)?;
    Ok(0)
}

fn chown(task: &CurrentTask, id: i32, uid: u32, gid: u32) -> HandlerResult<usize> {
    let [uid, gid] = [uid, gid].map(|id| (id != u32::MAX).then_some(id));
    if uid.is_none() && gid.is_none() {
        return Ok(0);
    }
    let found = look_up(task, id, CREATE_PARTIAL, Need::SetAttr)?;
    let creds = task.creds();
    if !creds.has_capability(CAP_SYS_ADMIN) {
        let (old_uid, old_gid) = found.key.owner();
        let may_give = uid.is_none_or(|uid| uid == old_uid)
            && gid.is_none_or(|gid| gid == old_gid || creds.is_in_group(gid));
        if !may_give {
            return Err(Errno::EACCES.into());
        }
    }
    found.key.set_owner(&task.container().keys, &task.kernel, uid, gid)?;
    Ok(0)
}

fn set_perm(task: &CurrentTask, id: i32, perm: KeyPerm) -> HandlerResult<usize> {
    if perm.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    let found = look_up(task, id, CREATE_PARTIAL, Need::SetAttr)?;
    let creds = task.creds();
    if found.key.owner().0 != creds.fsuid && !creds.has_capability(CAP_SYS_ADMIN) {
        return Err(Errno::EACCES.into());
    }
    found.key.set_perm(perm);
    Ok(0)
}

fn describe(task: &CurrentTask, id: i32, buf: UserAddr, len: usize) -> HandlerResult<usize> {
    let found = look_up(task, id, PARTIAL, Need::View)?;
    let key = &found.key;
    let (uid, gid) = key.owner();
    let gid = gid.cast_signed();
    let mut text =
        format!("{};{uid};{gid};{:08x};", key.kind.name(), key.perm().bits()).into_bytes();
    text.extend_from_slice(&key.description);
    text.push(0);
    if !buf.is_null() && len >= text.len() {
        task.write_bytes(buf, &text)?;
    }
    Ok(text.len())
}

fn move_link(
    task: &CurrentTask,
    id: i32,
    from: i32,
    (to, flags): (i32, u32),
) -> HandlerResult<usize> {
    /// Nothing is to be replaced.
    const EXCL: u32 = 1;
    if flags & !EXCL != 0 {
        return Err(Errno::EINVAL.into());
    }
    let found = look_up(task, id, CREATE, Need::Link)?;
    let from = look_up(task, from, PLAIN, Need::Write)?;
    let to = look_up(task, to, CREATE, Need::Write)?;
    let (from, to) = (&from.key, &to.key);
    if from.kind != KeyType::Keyring || to.kind != KeyType::Keyring {
        return Err(Errno::ENOTDIR.into());
    }
    if std::sync::Arc::ptr_eq(from, to) {
        return Ok(0);
    }
    let is_linked =
        |key: &&std::sync::Arc<crate::keys::Key>| std::sync::Arc::ptr_eq(key, &found.key);
    if !from.links().iter().any(|key| is_linked(&key)) {
        return Err(Errno::ENOENT.into());
    }
    let has_name = |key: &std::sync::Arc<crate::keys::Key>| {
        key.kind == found.key.kind && key.description == found.key.description
    };
    if flags == EXCL && to.links().iter().any(has_name) {
        return Err(Errno::EEXIST.into());
    }
    task.container().keys.link(&task.kernel, to, &found.key)?;
    from.unlink(&found.key)?;
    Ok(0)
}

fn search_keyring(
    task: &CurrentTask,
    id: i32,
    kind: UserAddr,
    description: UserAddr,
    dest: i32,
) -> HandlerResult<usize> {
    let kind = read_type(task, kind)?;
    let description = read_description(task, description)?;
    let ring = look_up(task, id, PLAIN, Need::Search)?;
    let dest = match dest {
        0 => None,
        id => Some(look_up(task, id, CREATE, Need::Write)?),
    };
    let kind = KeyType::by_name(&kind).ok_or(Errno::ENOKEY)?;
    let seeker = Seeker::of(task);
    let key = match search::search(&seeker, &ring, Wanted::Named(kind, &description)) {
        Err(Errno::EAGAIN) => Err(Errno::ENOKEY),
        result => result,
    }?;
    let found = Found { key, is_possessed: ring.is_possessed };
    if let Some(dest) = dest {
        found.check(&seeker, Need::Link)?;
        task.container().keys.link(&task.kernel, &dest.key, &found.key)?;
    }
    serial(&found)
}

fn read(task: &CurrentTask, id: i32, buf: UserAddr, len: usize) -> HandlerResult<usize> {
    let found = look_up(task, id, PLAIN, Need::Deferred).map_err(|_| Errno::ENOKEY)?;
    let key = &found.key;
    key.check_positive()?;
    let seeker = Seeker::of(task);
    // Whoever possesses it may read it without the right to.
    if found.check(&seeker, Need::Read).is_err() && !found.is_possessed {
        return Err(Errno::EACCES.into());
    }
    if !key.kind.can_read() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    key.validate(task.kernel.clock.boot_ns())?;
    let content = key.content();
    // What does not fit is not begun.
    if !buf.is_null() && len >= content.len() {
        task.write_bytes(buf, &content)?;
    }
    Ok(content.len())
}

fn set_request_default(task: &CurrentTask, new: i32) -> HandlerResult<usize> {
    match new {
        KEY_REQKEY_DEFL_NO_CHANGE => {}
        KEY_REQKEY_DEFL_THREAD_KEYRING => {
            look_up(task, KEY_SPEC_THREAD_KEYRING, CREATE, Need::Deferred)?;
        }
        KEY_REQKEY_DEFL_PROCESS_KEYRING => {
            look_up(task, KEY_SPEC_PROCESS_KEYRING, CREATE, Need::Deferred)?;
        }
        KEY_REQKEY_DEFL_DEFAULT
        | KEY_REQKEY_DEFL_SESSION_KEYRING
        | KEY_REQKEY_DEFL_USER_KEYRING
        | KEY_REQKEY_DEFL_USER_SESSION_KEYRING
        | KEY_REQKEY_DEFL_REQUESTOR_KEYRING => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    let mut misc = task.misc.lock();
    let old = misc.keyrings.request_default;
    if new != KEY_REQKEY_DEFL_NO_CHANGE {
        misc.keyrings.request_default = new;
    }
    Ok(usize::try_from(old).unwrap_or(0))
}

/// Gives the parent the caller's session keyring, where both are the same user's.
fn session_to_parent(task: &CurrentTask) -> HandlerResult<usize> {
    let own = look_up(task, KEY_SPEC_SESSION_KEYRING, PLAIN, Need::Link)?;
    let parent = task.group.parent().ok_or(Errno::EPERM)?;
    let threads = parent.live_tasks();
    let [thread] = threads.as_slice() else { return Err(Errno::EPERM.into()) };
    let (mine, theirs) = (task.creds(), thread.creds());
    let is_same = [theirs.uid, theirs.euid, theirs.suid].iter().all(|uid| *uid == mine.euid)
        && [theirs.gid, theirs.egid, theirs.sgid].iter().all(|gid| *gid == mine.egid);
    if !is_same || parent.pid_in(&task.pid_namespace()) <= 1 {
        return Err(Errno::EPERM.into());
    }
    let old = thread.misc.lock().keyrings.session.replace(own.key);
    drop(old);
    Ok(0)
}

fn capabilities(task: &CurrentTask, buf: UserAddr, len: usize) -> HandlerResult<usize> {
    if len > 0 {
        // What there is, and zeros up to the end of the buffer.
        let n = len.min(usize::try_from(PAGE_SIZE).unwrap_or(0));
        let bytes: Vec<u8> = CAPABILITIES.into_iter().chain(std::iter::repeat(0)).take(n).collect();
        task.write_bytes(buf, &bytes)?;
    }
    Ok(CAPABILITIES.len())
}
