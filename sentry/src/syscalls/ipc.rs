//! System V IPC.

use syscalls::abi::ipc;
use syscalls::abi::ipc::{ShmFlags, ShmInfo, ShmidDs, Shminfo};
use syscalls::{Errno, UserAddr, UserPtr};

use crate::ipc::shm;
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
    Ok(task.kernel.ipc.shm.get(task, key, size, shmflg)?)
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
    task.kernel.ipc.shm.attach(task, shmid, shmaddr, ShmFlags::from_bits_retain(shmflg))
}

/// Implements `shmdt(2)`.
pub(super) fn sys_shmdt(task: &CurrentTask, shmaddr: UserAddr) -> HandlerResult<()> {
    task.kernel.ipc.shm.detach(task, shmaddr)
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
    let segments = &task.kernel.ipc.shm;
    if shmid < 0 || op < 0 {
        return Err(Errno::EINVAL.into());
    }
    match op {
        ipc::IPC_INFO => {
            let info = Shminfo {
                shmmax: shm::MAX_SIZE,
                shmmin: 1,
                shmmni: shm::MAX_SEGMENTS as u64,
                shmseg: shm::MAX_SEGMENTS as u64,
                shmall: shm::MAX_SIZE,
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
            let (id, status) = segments.status(task, shmid, op != ipc::IPC_STAT, access)?;
            task.write_obj(UserPtr::new(buf), &status)?;
            Ok(u64::try_from(id).unwrap_or(0))
        }
        ipc::IPC_SET => {
            let new: ShmidDs = task.read_obj(UserPtr::new(buf))?;
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
