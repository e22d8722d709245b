//! System V IPC.

use syscalls::abi::ipc;
use syscalls::abi::ipc::{IpcPerm, MsqidDs, Sembuf, SemidDs, ShmFlags, ShmInfo, ShmidDs, Shminfo};
use syscalls::abi::time::Timespec;
use syscalls::arg::FromArg;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use super::poll::read_deadline;
use crate::ipc::msg::{Message, Queues, Receive};
use crate::ipc::sem::{Semaphores, SetId};
use crate::ipc::shm;
use crate::ipc::sleep::Place;
use crate::task::{CurrentTask, HandlerResult};

/// Implements `shmget(2)`.
///
/// <https://man7.org/linux/man-pages/man2/shmget.2.html>
pub(super) fn sys_shmget(
    task: &CurrentTask,
    key: i32,
    size: u64,
    shmflg: u32,
) -> HandlerResult<i32> {
    Ok(task.ipc().shm.get(task, key, size, shmflg)?)
}

/// Implements `shmat(2)`.
///
/// <https://man7.org/linux/man-pages/man2/shmat.2.html>
pub(super) fn sys_shmat(
    task: &CurrentTask,
    shmid: i32,
    shmaddr: UserAddr,
    shmflg: u32,
) -> HandlerResult<u64> {
    task.ipc().shm.attach(task, shmid, shmaddr, ShmFlags::from_bits_retain(shmflg))
}

/// Implements `shmdt(2)`.
pub(super) fn sys_shmdt(task: &CurrentTask, shmaddr: UserAddr) -> HandlerResult<()> {
    task.ipc().shm.detach(task, shmaddr)
}

/// Implements `shmctl(2)`.
///
/// <https://man7.org/linux/man-pages/man2/shmctl.2.html>
pub(super) fn sys_shmctl(
    task: &CurrentTask,
    shmid: i32,
    op: i32,
    buf: UserAddr,
) -> HandlerResult<u64> {
    let ipc = task.ipc();
    let segments = &ipc.shm;
    if shmid < 0 || op < 0 {
        return Err(Errno::EINVAL.into());
    }
    match op {
        ipc::IPC_INFO => {
            let limits = shm::Limits::of(task);
            let info = Shminfo {
                shmmax: limits.size,
                shmmin: 1,
                shmmni: limits.segments as u64,
                shmseg: limits.segments as u64,
                shmall: limits.pages,
                unused: [0; 4],
            };
            task.write_obj(UserPtr::new(buf), &info)?;
            Ok(segments.totals().max_index)
        }
        ipc::SHM_INFO => {
            let totals = segments.totals();
            let info = ShmInfo {
                used_ids: i32::try_from(totals.n_segments).unwrap_or(i32::MAX),
                shm_tot: totals.n_pages,
                shm_rss: totals.n_pages,
                ..ShmInfo::default()
            };
            task.write_obj(UserPtr::new(buf), &info)?;
            Ok(totals.max_index)
        }
        ipc::IPC_STAT | ipc::SHM_STAT | ipc::SHM_STAT_ANY => {
            let access = if op == ipc::SHM_STAT_ANY { 0 } else { 0o444 };
            let (id, mut status) = segments.status(task, shmid, op != ipc::IPC_STAT, access)?;
            show_owner(task, &mut status.shm_perm);
            task.write_obj(UserPtr::new(buf), &status)?;
            Ok(u64::try_from(id).unwrap_or(0))
        }
        ipc::IPC_SET => {
            let mut new: ShmidDs = task.read_obj(UserPtr::new(buf))?;
            take_owner(task, &mut new.shm_perm)?;
            segments.set(task, shmid, &new.shm_perm)?;
            Ok(0)
        }
        ipc::IPC_RMID => {
            segments.remove(task, shmid)?;
            Ok(0)
        }
        ipc::SHM_LOCK | ipc::SHM_UNLOCK => {
            segments.lock(task, shmid, op == ipc::SHM_LOCK)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// Implements `semget(2)`.
///
/// <https://man7.org/linux/man-pages/man2/semget.2.html>
pub(super) fn sys_semget(
    task: &CurrentTask,
    key: i32,
    nsems: i32,
    semflg: u32,
) -> HandlerResult<i32> {
    Ok(task.ipc().sem.get(task, key, nsems, semflg)?)
}

/// Implements `semop(2)`.
///
/// <https://man7.org/linux/man-pages/man2/semop.2.html>
pub(super) fn sys_semop(
    task: &CurrentTask,
    semid: i32,
    sops: UserPtr<Sembuf>,
    nsops: u32,
) -> HandlerResult<()> {
    sys_semtimedop(task, semid, sops, nsops, UserPtr::new(UserAddr::NULL))
}

/// Implements `semtimedop(2)`.
pub(super) fn sys_semtimedop(
    task: &CurrentTask,
    semid: i32,
    sops: UserPtr<Sembuf>,
    nsops: u32,
    timeout: UserPtr<Timespec>,
) -> HandlerResult<()> {
    let ipc = task.ipc();
    let semaphores = &ipc.sem;
    if let Some(place) = task.recall::<Place<SetId>>() {
        return semaphores.wait(task, place, None);
    }
    let deadline_ns = read_deadline(task, timeout)?;
    if nsops == 0 || semid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let nsops = usize::try_from(nsops).unwrap_or(usize::MAX);
    if nsops > Semaphores::max_ops(task) {
        return Err(Errno::E2BIG.into());
    }
    let ops = task.read_array(sops, nsops)?;
    semaphores.operate(task, semid, ops, deadline_ns)
}

/// Implements `semctl(2)`.
///
/// <https://man7.org/linux/man-pages/man2/semctl.2.html>
pub(super) fn sys_semctl(
    task: &CurrentTask,
    semid: i32,
    semnum: i32,
    op: i32,
    arg: u64,
) -> HandlerResult<u64> {
    let ipc = task.ipc();
    let semaphores = &ipc.sem;
    let buf = UserAddr(arg);
    if semid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let as_value = |value: i32| u64::try_from(value).unwrap_or(0);
    match op {
        ipc::IPC_INFO | ipc::SEM_INFO => {
            let (info, max_index) = semaphores.info(task, op == ipc::SEM_INFO);
            task.write_obj(UserPtr::new(buf), &info)?;
            Ok(max_index)
        }
        ipc::IPC_STAT | ipc::SEM_STAT | ipc::SEM_STAT_ANY => {
            let access = if op == ipc::SEM_STAT_ANY { 0 } else { 0o444 };
            let (id, mut status) = semaphores.status(task, semid, op != ipc::IPC_STAT, access)?;
            show_owner(task, &mut status.sem_perm);
            task.write_obj(UserPtr::new(buf), &status)?;
            Ok(as_value(id))
        }
        ipc::GETALL => {
            let values = semaphores.read(task, semid, |set| Ok(set.values()))?;
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
            task.write_bytes(buf, &bytes)?;
            Ok(0)
        }
        ipc::GETVAL => Ok(as_value(semaphores.read(task, semid, |set| set.sem(semnum))?.0)),
        ipc::GETPID => Ok(as_value(semaphores.read(task, semid, |set| set.sem(semnum))?.1)),
        ipc::GETNCNT | ipc::GETZCNT => {
            let for_zero = op == ipc::GETZCNT;
            Ok(as_value(semaphores.read(task, semid, |set| set.n_waiting(semnum, for_zero))?))
        }
        ipc::SETVAL => {
            semaphores.set_values(task, semid, semnum, &[i32::from_arg(arg)])?;
            Ok(0)
        }
        ipc::SETALL => {
            let n = semaphores.len_to_change(task, semid)?;
            let values = task.read_array::<u16>(UserPtr::new(buf), n)?;
            let values: Vec<i32> = values.into_iter().map(i32::from).collect();
            semaphores.set_values(task, semid, 0, &values)?;
            Ok(0)
        }
        ipc::IPC_SET => {
            let mut new: SemidDs = task.read_obj(UserPtr::new(buf))?;
            take_owner(task, &mut new.sem_perm)?;
            semaphores.set_perm(task, semid, &new.sem_perm)?;
            Ok(0)
        }
        ipc::IPC_RMID => {
            semaphores.remove(task, semid)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// Implements `msgget(2)`.
///
/// <https://man7.org/linux/man-pages/man2/msgget.2.html>
pub(super) fn sys_msgget(task: &CurrentTask, key: i32, msgflg: u32) -> HandlerResult<i32> {
    Ok(task.ipc().msg.get(task, key, msgflg)?)
}

/// Implements `msgsnd(2)`.
///
/// <https://man7.org/linux/man-pages/man2/msgop.2.html>
pub(super) fn sys_msgsnd(
    task: &CurrentTask,
    msqid: i32,
    msgp: UserAddr,
    msgsz: usize,
    msgflg: u32,
) -> HandlerResult<()> {
    let read = || {
        let kind = task.read_obj::<i64>(UserPtr::new(msgp))?;
        if msgsz > Queues::max_len(task) || msqid < 0 || kind < 1 {
            return Err(Errno::EINVAL);
        }
        let mut text = vec![0; msgsz];
        task.read_bytes(msgp.checked_add(8).ok_or(Errno::EFAULT)?, &mut text)?;
        Ok(Message { kind, text })
    };
    task.ipc().msg.send(task, msqid, msgflg, read)
}

/// Implements `msgrcv(2)`.
///
/// <https://man7.org/linux/man-pages/man2/msgop.2.html>
pub(super) fn sys_msgrcv(
    task: &CurrentTask,
    msqid: i32,
    msgp: UserAddr,
    msgsz: usize,
    msgtyp: i64,
    msgflg: u32,
) -> HandlerResult<usize> {
    if msqid < 0 || i64::try_from(msgsz).is_err() {
        return Err(Errno::EINVAL.into());
    }
    let call = Receive { id: msqid, max_len: msgsz, kind: msgtyp, flags: msgflg };
    let message = task.ipc().msg.receive(task, call)?;
    task.write_obj(UserPtr::new(msgp), &message.kind)?;
    let text = message.text.get(..msgsz).unwrap_or(&message.text);
    task.write_bytes(msgp.checked_add(8).ok_or(Errno::EFAULT)?, text)?;
    Ok(text.len())
}

/// Implements `msgctl(2)`.
///
/// <https://man7.org/linux/man-pages/man2/msgctl.2.html>
pub(super) fn sys_msgctl(
    task: &CurrentTask,
    msqid: i32,
    op: i32,
    buf: UserAddr,
) -> HandlerResult<u64> {
    let ipc = task.ipc();
    let queues = &ipc.msg;
    if msqid < 0 || op < 0 {
        return Err(Errno::EINVAL.into());
    }
    match op {
        ipc::IPC_INFO | ipc::MSG_INFO => {
            let (info, max_index) = queues.info(task, op == ipc::MSG_INFO);
            task.write_obj(UserPtr::new(buf), &info)?;
            Ok(max_index)
        }
        ipc::IPC_STAT | ipc::MSG_STAT | ipc::MSG_STAT_ANY => {
            let access = if op == ipc::MSG_STAT_ANY { 0 } else { 0o444 };
            let (id, mut status) = queues.status(task, msqid, op != ipc::IPC_STAT, access)?;
            show_owner(task, &mut status.msg_perm);
            task.write_obj(UserPtr::new(buf), &status)?;
            Ok(u64::try_from(id).unwrap_or(0))
        }
        ipc::IPC_SET => {
            let mut new: MsqidDs = task.read_obj(UserPtr::new(buf))?;
            take_owner(task, &mut new.msg_perm)?;
            queues.set(task, msqid, &new)?;
            Ok(0)
        }
        ipc::IPC_RMID => {
            queues.remove(task, msqid)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// Translates the users and groups of an object for the caller's user namespace.
fn show_owner(task: &CurrentTask, perm: &mut IpcPerm) {
    let users = task.creds().user_ns.clone();
    (perm.uid, perm.gid) = (users.shown_uid(perm.uid), users.shown_gid(perm.gid));
    (perm.cuid, perm.cgid) = (users.shown_uid(perm.cuid), users.shown_gid(perm.cgid));
}

/// Translates a new owner from the caller's user namespace.
///
/// # Errors
/// `EINVAL` for one that it does not have.
fn take_owner(task: &CurrentTask, perm: &mut IpcPerm) -> SysResult<()> {
    let users = task.creds().user_ns.clone();
    perm.uid = users.kuid(perm.uid).ok_or(Errno::EINVAL)?;
    perm.gid = users.kgid(perm.gid).ok_or(Errno::EINVAL)?;
    Ok(())
}
