//! Identity: process, thread, group and session ids; user and group ids; capabilities.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::capability::{
    CAP_SETGID, CAP_SETPCAP, CAP_SETUID, CapUserData, CapUserHeader, LINUX_CAPABILITY_VERSION_1,
    LINUX_CAPABILITY_VERSION_2, LINUX_CAPABILITY_VERSION_3,
};
use syscalls::abi::prctl::Securebits;
use syscalls::{Errno, SysResult, UserPtr};

use crate::task::creds::ALL_CAPABILITIES;
use crate::task::job::{ProcessGroup, Session};
use crate::task::{Credentials, CurrentTask, HandlerResult, Task, identity};

/// "Leave this id as it is."
const KEEP: u32 = u32::MAX;

/// The most supplementary groups: `NGROUPS_MAX`.
const NGROUPS_MAX: i32 = 65_536;

/// Implements `getpid(2)`.
pub(super) fn sys_getpid(task: &CurrentTask) -> HandlerResult<u32> {
    Ok(task.group.pid_in(&task.pid_namespace()))
}

/// Implements `gettid(2)`.
pub(super) fn sys_gettid(task: &CurrentTask) -> HandlerResult<u32> {
    Ok(task.tid_in(&task.pid_namespace()))
}

/// Implements `getppid(2)`.
pub(super) fn sys_getppid(task: &CurrentTask) -> HandlerResult<u32> {
    let parent = task.group.parent();
    Ok(parent.map_or(0, |parent| parent.pid_in(&task.pid_namespace())))
}

/// Returns the thread that a pid argument names: the caller for zero.
pub(super) fn target(task: &CurrentTask, pid: i32) -> SysResult<Arc<Task>> {
    if pid == 0 {
        return Ok(task.task().clone());
    }
    let pid = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    task.pid_namespace().task(pid).ok_or(Errno::ESRCH)
}

/// Implements `getpgid(2)`.
pub(super) fn sys_getpgid(task: &CurrentTask, pid: i32) -> HandlerResult<u32> {
    Ok(target(task, pid)?.group.process_group().id_in(&task.pid_namespace()))
}

/// Implements `getpgrp(2)`.
pub(super) fn sys_getpgrp(task: &CurrentTask) -> HandlerResult<u32> {
    sys_getpgid(task, 0)
}

/// Implements `getsid(2)`.
pub(super) fn sys_getsid(task: &CurrentTask, pid: i32) -> HandlerResult<u32> {
    Ok(target(task, pid)?.group.session().id_in(&task.pid_namespace()))
}

/// Implements `setsid(2)`.
pub(super) fn sys_setsid(task: &CurrentTask) -> HandlerResult<u32> {
    let _guard = task.kernel.tree.lock();
    let namespace = task.pid_namespace();
    let group = &task.group;
    let leader = group.leader().ok_or(Errno::ESRCH)?;
    let pid = group.pid();
    let taken = namespace
        .tasks()
        .iter()
        .any(|(_, other)| other.is_leader() && other.group.process_group().id == pid);
    if taken {
        return Err(Errno::EPERM.into());
    }
    let ids = leader.pids.lock().clone();
    let session = Session::new(ids.clone());
    group.set_process_group(&ProcessGroup::new(ids, session));
    Ok(group.pid_in(&namespace))
}

/// Implements `setpgid(2)`.
pub(super) fn sys_setpgid(task: &CurrentTask, pid: i32, pgid: i32) -> HandlerResult<()> {
    if pgid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let _guard = task.kernel.tree.lock();
    let namespace = task.pid_namespace();
    let target =
        if pid == 0 { task.group.leader().ok_or(Errno::ESRCH)? } else { target(task, pid)? };
    if !target.is_leader() {
        return Err(Errno::EINVAL.into());
    }
    let group = target.group.clone();
    let session = group.session();
    if !Arc::ptr_eq(&group, &task.group) {
        let is_child = group.parent().is_some_and(|parent| Arc::ptr_eq(&parent, &task.group));
        if !is_child {
            return Err(Errno::ESRCH.into());
        }
        if session.id != task.group.session().id {
            return Err(Errno::EPERM.into());
        }
        if group.has_execed.load(Ordering::Relaxed) {
            return Err(Errno::EACCES.into());
        }
    }
    if session.id == group.pid() {
        return Err(Errno::EPERM.into());
    }
    let own = group.pid_in(&namespace);
    let wanted = if pgid == 0 { own } else { pgid.unsigned_abs() };
    let found = namespace
        .tasks()
        .into_iter()
        .filter(|(_, other)| other.is_leader())
        .map(|(_, other)| other.group.process_group())
        .find(|candidate| candidate.id_in(&namespace) == wanted);
    let process_group = match found {
        Some(found) if found.session.id == session.id => found,
        None if wanted == own => ProcessGroup::new(target.pids.lock().clone(), session),
        _ => return Err(Errno::EPERM.into()),
    };
    group.set_process_group(&process_group);
    Ok(())
}

/// Implements `getuid(2)`.
pub(super) fn sys_getuid(task: &CurrentTask) -> HandlerResult<u32> {
    let creds = task.creds();
    Ok(creds.user_ns.shown_uid(creds.uid))
}

/// Implements `geteuid(2)`.
pub(super) fn sys_geteuid(task: &CurrentTask) -> HandlerResult<u32> {
    let creds = task.creds();
    Ok(creds.user_ns.shown_uid(creds.euid))
}

/// Implements `getgid(2)`.
pub(super) fn sys_getgid(task: &CurrentTask) -> HandlerResult<u32> {
    let creds = task.creds();
    Ok(creds.user_ns.shown_gid(creds.gid))
}

/// Implements `getegid(2)`.
pub(super) fn sys_getegid(task: &CurrentTask) -> HandlerResult<u32> {
    let creds = task.creds();
    Ok(creds.user_ns.shown_gid(creds.egid))
}

/// Implements `getresuid(2)`.
pub(super) fn sys_getresuid(
    task: &CurrentTask,
    ruid: UserPtr<u32>,
    euid: UserPtr<u32>,
    suid: UserPtr<u32>,
) -> HandlerResult<()> {
    let creds = task.creds();
    task.write_obj(ruid, &creds.user_ns.shown_uid(creds.uid))?;
    task.write_obj(euid, &creds.user_ns.shown_uid(creds.euid))?;
    Ok(task.write_obj(suid, &creds.user_ns.shown_uid(creds.suid))?)
}

/// Implements `getresgid(2)`.
pub(super) fn sys_getresgid(
    task: &CurrentTask,
    rgid: UserPtr<u32>,
    egid: UserPtr<u32>,
    sgid: UserPtr<u32>,
) -> HandlerResult<()> {
    let creds = task.creds();
    task.write_obj(rgid, &creds.user_ns.shown_gid(creds.gid))?;
    task.write_obj(egid, &creds.user_ns.shown_gid(creds.egid))?;
    Ok(task.write_obj(sgid, &creds.user_ns.shown_gid(creds.sgid))?)
}

/// Returns the users that the caller's numbers stand for; "leave it" stays as it is.
///
/// # Errors
/// `EINVAL` for one that there is none for in its user namespace.
fn kuids<const N: usize>(task: &CurrentTask, uids: [u32; N]) -> SysResult<[u32; N]> {
    let namespace = task.creds().user_ns.clone();
    translate(uids, |uid| namespace.kuid(uid))
}

/// Returns the groups that the caller's numbers stand for, as [`kuids`].
fn kgids<const N: usize>(task: &CurrentTask, gids: [u32; N]) -> SysResult<[u32; N]> {
    let namespace = task.creds().user_ns.clone();
    translate(gids, |gid| namespace.kgid(gid))
}

fn translate<const N: usize>(
    mut ids: [u32; N],
    kernel_id: impl Fn(u32) -> Option<u32>,
) -> SysResult<[u32; N]> {
    for id in ids.iter_mut().filter(|id| **id != KEEP) {
        *id = kernel_id(*id).ok_or(Errno::EINVAL)?;
    }
    Ok(ids)
}

fn replace(task: &CurrentTask, creds: Credentials) {
    *task.creds.lock() = Arc::new(creds);
    identity::changed(task);
}

/// Changes user ids and what follows from that (`capabilities(7)`, "Effect of user ID changes").
fn commit_uids(task: &CurrentTask, old: &Credentials, mut new: Credentials) {
    let securebits = Securebits::from_bits_retain(new.securebits);
    if !securebits.contains(Securebits::NO_SETUID_FIXUP) {
        let is_root = |uid| new.user_ns.is_root_user(uid);
        let had_root = is_root(old.uid) || is_root(old.euid) || is_root(old.suid);
        let has_root = is_root(new.uid) || is_root(new.euid) || is_root(new.suid);
        let (was_root, is_root, was_fs_root, is_fs_root) =
            (is_root(old.euid), is_root(new.euid), is_root(old.fsuid), is_root(new.fsuid));
        if had_root && !has_root {
            if !securebits.contains(Securebits::KEEP_CAPS) {
                new.permitted = 0;
                new.effective = 0;
            }
            new.ambient = 0;
        }
        if was_root && !is_root {
            new.effective = 0;
        }
        if !was_root && is_root {
            new.effective = new.permitted;
        }
        if was_fs_root && !is_fs_root {
            new.effective &= !FS_CAPABILITIES;
        }
        if !was_fs_root && is_fs_root {
            new.effective |= new.permitted & FS_CAPABILITIES;
        }
    }
    if old.euid != new.euid || old.fsuid != new.fsuid {
        task.group.is_dumpable.store(false, Ordering::Relaxed);
    }
    replace(task, new);
}

/// The capabilities that follow the file-system user id: `CAP_FS_MASK`.
const FS_CAPABILITIES: u64 = 0b1_1111 | 1 << 9 | 1 << 27 | 1 << 32;

/// Implements `setuid(2)`.
pub(super) fn sys_setuid(task: &CurrentTask, uid: u32) -> HandlerResult<()> {
    if uid == KEEP {
        return Err(Errno::EINVAL.into());
    }
    let [uid] = kuids(task, [uid])?;
    let old = task.creds();
    let mut new = (*old).clone();
    if old.has_own_capability(CAP_SETUID) {
        new.uid = uid;
        new.suid = uid;
    } else if uid != old.uid && uid != old.suid {
        return Err(Errno::EPERM.into());
    }
    new.euid = uid;
    new.fsuid = uid;
    commit_uids(task, &old, new);
    Ok(())
}

/// Implements `setgid(2)`.
pub(super) fn sys_setgid(task: &CurrentTask, gid: u32) -> HandlerResult<()> {
    if gid == KEEP {
        return Err(Errno::EINVAL.into());
    }
    let [gid] = kgids(task, [gid])?;
    let old = task.creds();
    let mut new = (*old).clone();
    if old.has_own_capability(CAP_SETGID) {
        new.gid = gid;
        new.sgid = gid;
    } else if gid != old.gid && gid != old.sgid {
        return Err(Errno::EPERM.into());
    }
    new.egid = gid;
    new.fsgid = gid;
    replace(task, new);
    Ok(())
}

/// Implements `setreuid(2)`.
pub(super) fn sys_setreuid(task: &CurrentTask, ruid: u32, euid: u32) -> HandlerResult<()> {
    let [ruid, euid] = kuids(task, [ruid, euid])?;
    let old = task.creds();
    let privileged = old.has_own_capability(CAP_SETUID);
    let mut new = (*old).clone();
    if ruid != KEEP {
        if !privileged && ruid != old.uid && ruid != old.euid {
            return Err(Errno::EPERM.into());
        }
        new.uid = ruid;
    }
    if euid != KEEP {
        if !privileged && euid != old.uid && euid != old.euid && euid != old.suid {
            return Err(Errno::EPERM.into());
        }
        new.euid = euid;
    }
    if ruid != KEEP || (euid != KEEP && euid != old.uid) {
        new.suid = new.euid;
    }
    new.fsuid = new.euid;
    commit_uids(task, &old, new);
    Ok(())
}

/// Implements `setregid(2)`.
pub(super) fn sys_setregid(task: &CurrentTask, rgid: u32, egid: u32) -> HandlerResult<()> {
    let [rgid, egid] = kgids(task, [rgid, egid])?;
    let old = task.creds();
    let privileged = old.has_own_capability(CAP_SETGID);
    let mut new = (*old).clone();
    if rgid != KEEP {
        if !privileged && rgid != old.gid && rgid != old.egid {
            return Err(Errno::EPERM.into());
        }
        new.gid = rgid;
    }
    if egid != KEEP {
        if !privileged && egid != old.gid && egid != old.egid && egid != old.sgid {
            return Err(Errno::EPERM.into());
        }
        new.egid = egid;
    }
    if rgid != KEEP || (egid != KEEP && egid != old.gid) {
        new.sgid = new.egid;
    }
    new.fsgid = new.egid;
    replace(task, new);
    Ok(())
}

/// Implements `setresuid(2)`.
pub(super) fn sys_setresuid(
    task: &CurrentTask,
    ruid: u32,
    euid: u32,
    suid: u32,
) -> HandlerResult<()> {
    let [ruid, euid, suid] = kuids(task, [ruid, euid, suid])?;
    let old = task.creds();
    let privileged = old.has_own_capability(CAP_SETUID);
    let allowed = |id: u32| id == KEEP || privileged || [old.uid, old.euid, old.suid].contains(&id);
    if !allowed(ruid) || !allowed(euid) || !allowed(suid) {
        return Err(Errno::EPERM.into());
    }
    let mut new = (*old).clone();
    if ruid != KEEP {
        new.uid = ruid;
    }
    if euid != KEEP {
        new.euid = euid;
    }
    if suid != KEEP {
        new.suid = suid;
    }
    new.fsuid = new.euid;
    commit_uids(task, &old, new);
    Ok(())
}

/// Implements `setresgid(2)`.
pub(super) fn sys_setresgid(
    task: &CurrentTask,
    rgid: u32,
    egid: u32,
    sgid: u32,
) -> HandlerResult<()> {
    let [rgid, egid, sgid] = kgids(task, [rgid, egid, sgid])?;
    let old = task.creds();
    let privileged = old.has_own_capability(CAP_SETGID);
    let allowed = |id: u32| id == KEEP || privileged || [old.gid, old.egid, old.sgid].contains(&id);
    if !allowed(rgid) || !allowed(egid) || !allowed(sgid) {
        return Err(Errno::EPERM.into());
    }
    let mut new = (*old).clone();
    if rgid != KEEP {
        new.gid = rgid;
    }
    if egid != KEEP {
        new.egid = egid;
    }
    if sgid != KEEP {
        new.sgid = sgid;
    }
    new.fsgid = new.egid;
    replace(task, new);
    Ok(())
}

/// Implements `setfsuid(2)`: returns the previous id, also where nothing changed.
pub(super) fn sys_setfsuid(task: &CurrentTask, fsuid: u32) -> HandlerResult<u32> {
    let old = task.creds();
    let may = |fsuid: u32| {
        [old.uid, old.euid, old.suid, old.fsuid].contains(&fsuid)
            || old.has_own_capability(CAP_SETUID)
    };
    let fsuid = Some(fsuid).filter(|fsuid| *fsuid != KEEP);
    if let Some(fsuid) = fsuid.and_then(|fsuid| old.user_ns.kuid(fsuid)).filter(|fsuid| may(*fsuid))
    {
        let mut new = (*old).clone();
        new.fsuid = fsuid;
        commit_uids(task, &old, new);
    }
    Ok(old.user_ns.shown_uid(old.fsuid))
}

/// Implements `setfsgid(2)`: returns the previous id, also where nothing changed.
pub(super) fn sys_setfsgid(task: &CurrentTask, fsgid: u32) -> HandlerResult<u32> {
    let old = task.creds();
    let may = |fsgid: u32| {
        [old.gid, old.egid, old.sgid, old.fsgid].contains(&fsgid)
            || old.has_own_capability(CAP_SETGID)
    };
    let fsgid = Some(fsgid).filter(|fsgid| *fsgid != KEEP);
    if let Some(fsgid) = fsgid.and_then(|fsgid| old.user_ns.kgid(fsgid)).filter(|fsgid| may(*fsgid))
    {
        let mut new = (*old).clone();
        new.fsgid = fsgid;
        replace(task, new);
    }
    Ok(old.user_ns.shown_gid(old.fsgid))
}

/// Implements `getgroups(2)`.
pub(super) fn sys_getgroups(
    task: &CurrentTask,
    size: i32,
    list: UserPtr<u32>,
) -> HandlerResult<usize> {
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    let creds = task.creds();
    if size != 0 {
        if size < creds.groups.len() {
            return Err(Errno::EINVAL.into());
        }
        let bytes: Vec<u8> = {
            let shown = creds.groups.iter().map(|gid| creds.user_ns.shown_gid(*gid));
            shown.flat_map(u32::to_ne_bytes).collect()
        };
        task.write_bytes(list.addr(), &bytes)?;
    }
    Ok(creds.groups.len())
}

/// Implements `setgroups(2)`.
pub(super) fn sys_setgroups(
    task: &CurrentTask,
    size: i32,
    list: UserPtr<u32>,
) -> HandlerResult<()> {
    let old = task.creds();
    if !old.has_own_capability(CAP_SETGID) || !old.user_ns.may_setgroups() {
        return Err(Errno::EPERM.into());
    }
    if !(0..=NGROUPS_MAX).contains(&size) {
        return Err(Errno::EINVAL.into());
    }
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    let given: Vec<u32> = task.read_array(list, size)?;
    let groups: Option<Vec<u32>> = given.iter().map(|gid| old.user_ns.kgid(*gid)).collect();
    let mut groups = groups.ok_or(Errno::EINVAL)?;
    groups.sort_unstable();
    let mut new = (*old).clone();
    new.groups = Arc::from(groups);
    replace(task, new);
    Ok(())
}

/// Reads the header of `capget` and `capset`; returns how many data records follow. An unknown
/// version is answered with the preferred one.
fn read_header(
    task: &CurrentTask,
    header: UserPtr<CapUserHeader>,
) -> SysResult<(CapUserHeader, usize)> {
    let mut given = task.read_obj(header)?;
    match given.version {
        LINUX_CAPABILITY_VERSION_1 => Ok((given, 1)),
        LINUX_CAPABILITY_VERSION_2 | LINUX_CAPABILITY_VERSION_3 => Ok((given, 2)),
        _ => {
            given.version = LINUX_CAPABILITY_VERSION_3;
            task.write_obj(header, &given)?;
            Err(Errno::EINVAL)
        }
    }
}

/// Returns the `word`-th 32 bits of a capability set.
fn half(set: u64, word: usize) -> u32 {
    let shifted = if word == 0 { set } else { set >> 32 };
    u32::try_from(shifted & 0xffff_ffff).unwrap_or(0)
}

/// Implements `capget(2)`.
pub(super) fn sys_capget(
    task: &CurrentTask,
    header: UserPtr<CapUserHeader>,
    data: UserPtr<CapUserData>,
) -> HandlerResult<()> {
    let (given, n) = match read_header(task, header) {
        Err(Errno::EINVAL) if data.is_null() => return Ok(()),
        result => result?,
    };
    if given.pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let creds = target(task, given.pid)?.creds();
    for word in 0..n {
        let record = CapUserData {
            effective: half(creds.effective, word),
            permitted: half(creds.permitted, word),
            inheritable: half(creds.inheritable, word),
        };
        let at = data.checked_index(word as u64).ok_or(Errno::EFAULT)?;
        task.write_obj(at, &record)?;
    }
    Ok(())
}

/// Implements `capset(2)`.
pub(super) fn sys_capset(
    task: &CurrentTask,
    header: UserPtr<CapUserHeader>,
    data: UserPtr<CapUserData>,
) -> HandlerResult<()> {
    let (given, n) = read_header(task, header)?;
    if given.pid != 0 && given.pid.unsigned_abs() != task.tid_in(&task.pid_namespace()) {
        return Err(Errno::EPERM.into());
    }
    let records = task.read_array(data, n)?;
    let join = |field: fn(&CapUserData) -> u32| {
        let low = records.first().map_or(0, field);
        let high = records.get(1).map_or(0, field);
        (u64::from(high) << 32 | u64::from(low)) & ALL_CAPABILITIES
    };
    let effective = join(|record| record.effective);
    let permitted = join(|record| record.permitted);
    let inheritable = join(|record| record.inheritable);
    let old = task.creds();
    let within = |set: u64, of: u64| set & !of == 0;
    let may_raise = old.has_own_capability(CAP_SETPCAP);
    if !within(permitted, old.permitted)
        || !within(effective, permitted)
        || !within(inheritable, old.inheritable | old.bounding)
        || (!may_raise && !within(inheritable, old.inheritable | old.permitted))
    {
        return Err(Errno::EPERM.into());
    }
    let mut new = (*old).clone();
    new.effective = effective;
    new.permitted = permitted;
    new.inheritable = inheritable;
    new.ambient &= permitted & inheritable;
    replace(task, new);
    Ok(())
}
