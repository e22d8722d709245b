//! System V IPC: objects that are found by key and named by number (`ipc/util.c`).
//!
//! [`Table`] holds the objects of one kind: segments of shared memory ([`shm`]), sets of semaphores
//! ([`sem`]), message queues ([`msg`]). [`mqueue`] are the message queues of POSIX, which have names in a
//! file system of their own; [`sleep`] is how one waits at any of them.
//! An [`Ipc`] is one IPC namespace: containers have one each, or share one. Locks: the table of a kind
//! is a leaf but for the outcomes of sleepers.

pub(crate) mod mqueue;
pub(crate) mod msg;
pub(crate) mod sem;
pub(crate) mod shm;
pub(crate) mod sleep;

use std::sync::OnceLock;

use syscalls::abi::capability::{CAP_IPC_OWNER, CAP_SYS_ADMIN};
use syscalls::abi::ipc::{IPC_PRIVATE, IpcFlags, IpcPerm};
use syscalls::{Errno, SysResult};

use crate::kernel::Kernel;
use crate::task::CurrentTask;

/// How many bits of an id are the index; the rest tells one user of the index from the next.
const INDEX_BITS: u32 = 15;
/// The largest part of an id above the index.
const MAX_SEQ: u16 = u16::MAX;

/// The objects of a namespace.
#[derive(Default)]
pub struct Ipc {
    /// Shared memory segments.
    pub(crate) shm: shm::Segments,
    /// Sets of semaphores.
    pub(crate) sem: sem::Semaphores,
    /// Message queues.
    pub(crate) msg: msg::Queues,
    /// POSIX message queues, once there is one.
    pub(crate) mqueues: OnceLock<crate::fs::mqueue::Mqueues>,
}

/// What every object has.
pub(crate) trait Object {
    /// Returns owner and mode.
    fn perm(&self) -> &IpcPerm;
}

/// The objects of one kind.
pub(crate) struct Table<T> {
    slots: Vec<Option<T>>,
    seq: u16,
    last_index: Option<usize>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), seq: 0, last_index: None }
    }
}

impl<T: Object> Table<T> {
    /// Returns how many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Returns the highest index in use, or 0.
    pub(crate) fn max_index(&self) -> u64 {
        self.slots.iter().rposition(Option::is_some).map_or(0, |index| index as u64)
    }

    /// Returns the objects.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }

    /// Returns the objects with their ids.
    pub(crate) fn iter_ids(&self) -> impl Iterator<Item = (i32, &T)> {
        let with_id = |(index, slot): (usize, &'_ Option<T>)| {
            slot.as_ref().map(|object| id(index, object.perm().seq))
        };
        let ids = self.slots.iter().enumerate().filter_map(with_id);
        ids.zip(self.iter())
    }

    /// Returns the objects, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().flatten()
    }

    /// Finds the object with a key.
    pub(crate) fn by_key(&self, key: i32) -> Option<(i32, &T)> {
        let matches = |object: &T| object.perm().key == key && key != IPC_PRIVATE;
        let index = self.slots.iter().position(|slot| slot.as_ref().is_some_and(matches))?;
        let object = self.slots.get(index)?.as_ref()?;
        Some((id(index, object.perm().seq), object))
    }

    /// Finds the object with an id.
    ///
    /// # Errors
    /// `EINVAL` where the id's index is free, `EIDRM` where it is another object's by now.
    pub(crate) fn by_id(&mut self, id: i32) -> SysResult<&mut T> {
        let (index, seq) = parts(id).ok_or(Errno::EINVAL)?;
        let object = self.slots.get_mut(index).and_then(Option::as_mut).ok_or(Errno::EINVAL)?;
        if object.perm().seq == seq { Ok(object) } else { Err(Errno::EIDRM) }
    }

    /// Finds the object at the index of an id, and its id: for the commands that list objects.
    ///
    /// # Errors
    /// `EINVAL` where there is none.
    pub(crate) fn by_index(&mut self, number: i32) -> SysResult<(i32, &mut T)> {
        let (index, _) = parts(number).ok_or(Errno::EINVAL)?;
        let object = self.slots.get_mut(index).and_then(Option::as_mut).ok_or(Errno::EINVAL)?;
        Ok((id(index, object.perm().seq), object))
    }

    /// Adds the object that `make` makes with its sequence number, and returns its id: `wanted`, or
    /// with the next free index, where a sysctl has set it.
    ///
    /// # Errors
    /// `ENOSPC` where there are `max` objects.
    pub(crate) fn add(
        &mut self,
        max: usize,
        wanted: Option<i32>,
        make: impl FnOnce(u16) -> T,
    ) -> SysResult<i32> {
        if self.len() >= max {
            return Err(Errno::ENOSPC);
        }
        let (first, seq) = wanted.and_then(parts).map_or((0, None), |(at, seq)| (at, Some(seq)));
        let is_free = |index: &usize| self.slots.get(*index).is_none_or(Option::is_none);
        let index = (first..1 << INDEX_BITS).find(is_free).ok_or(Errno::ENOSPC)?;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        if let Some(seq) = seq {
            if let Some(slot) = self.slots.get_mut(index) {
                *slot = Some(make(seq));
            }
            return Ok(id(index, seq));
        }
        if self.last_index.is_some_and(|last| index <= last) {
            self.seq = if self.seq == MAX_SEQ { 0 } else { self.seq.saturating_add(1) };
        }
        self.last_index = Some(index);
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(make(self.seq));
        }
        Ok(id(index, self.seq))
    }

    /// Takes away the object with an id that has been found.
    pub(crate) fn remove(&mut self, id: i32) -> Option<T> {
        let (index, _) = parts(id)?;
        self.slots.get_mut(index)?.take()
    }

    /// Takes away the objects that are not wanted any more.
    pub(crate) fn retain(&mut self, mut is_wanted: impl FnMut(&T) -> bool) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|object| !is_wanted(object)) {
                *slot = None;
            }
        }
    }
}

fn id(index: usize, seq: u16) -> i32 {
    let index = i32::try_from(index).unwrap_or(0);
    ((i32::from(seq) << INDEX_BITS) & i32::MAX) | index
}

fn parts(id: i32) -> Option<(usize, u16)> {
    let id = u32::try_from(id).ok()?;
    Some((
        usize::try_from(id & ((1 << INDEX_BITS) - 1)).ok()?,
        u16::try_from(id >> INDEX_BITS).ok()?,
    ))
}

/// Returns the permissions of a new object of the caller.
pub(crate) fn new_perm(task: &CurrentTask, key: i32, flags: u32, seq: u16) -> IpcPerm {
    let creds = task.creds();
    let (uid, gid) = (creds.euid, creds.egid);
    IpcPerm { key, uid, gid, cuid: uid, cgid: gid, mode: flags & 0o777, seq, ..IpcPerm::default() }
}

/// Checks the right to an object; `mode` asks for it as the mode of a file, in any of its three places.
///
/// # Errors
/// `EACCES`.
pub(crate) fn check_access(task: &CurrentTask, perm: &IpcPerm, mode: u32) -> SysResult<()> {
    let creds = task.creds();
    let wanted = (mode >> 6 | mode >> 3 | mode) & 7;
    let is_in_group = |gid| creds.egid == gid || creds.groups.contains(&gid);
    let granted = if creds.euid == perm.uid || creds.euid == perm.cuid {
        perm.mode >> 6
    } else if is_in_group(perm.gid) || is_in_group(perm.cgid) {
        perm.mode >> 3
    } else {
        perm.mode
    };
    if wanted & !granted != 0 && !creds.is_capable_in(&task.ipc().owner, CAP_IPC_OWNER) {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// Checks the right to change or remove an object.
///
/// # Errors
/// `EPERM`.
pub(crate) fn check_owner(task: &CurrentTask, perm: &IpcPerm) -> SysResult<()> {
    let creds = task.creds();
    let is_owner = creds.euid == perm.uid || creds.euid == perm.cuid;
    if is_owner || creds.is_capable_in(&task.ipc().owner, CAP_SYS_ADMIN) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// Changes what `IPC_SET` may change.
pub(crate) fn set_perm(perm: &mut IpcPerm, new: &IpcPerm) {
    perm.uid = new.uid;
    perm.gid = new.gid;
    perm.mode = perm.mode & !0o777 | new.mode & 0o777;
}

/// What `shmget(2)` and its relatives make of a key.
pub(crate) enum Lookup {
    /// The object exists and may be used.
    Found(i32),
    /// A new one is to be made.
    Make,
}

/// Finds an object by key.
///
/// # Errors
/// `ENOENT`, `EEXIST`, `EACCES`, those of `check`.
pub(crate) fn look_up<T: Object>(
    task: &CurrentTask,
    table: &Table<T>,
    key: i32,
    flags: u32,
    check: impl FnOnce(&T) -> SysResult<()>,
) -> SysResult<Lookup> {
    let ipc = IpcFlags::from_bits_retain(flags);
    match table.by_key(key) {
        None if key == IPC_PRIVATE || ipc.contains(IpcFlags::CREAT) => Ok(Lookup::Make),
        None => Err(Errno::ENOENT),
        Some(_) if ipc.contains(IpcFlags::CREAT | IpcFlags::EXCL) => Err(Errno::EEXIST),
        Some((id, object)) => {
            check(object)?;
            check_access(task, object.perm(), flags)?;
            Ok(Lookup::Found(id))
        }
    }
}

/// Returns a limit that a sysctl sets.
pub(crate) fn limit(kernel: &Kernel, path: &str, index: usize, default: usize) -> usize {
    let changed = kernel.sysctls.changed_number(path, index);
    changed.map_or(default, |limit| usize::try_from(limit).unwrap_or(default))
}

/// Takes the id that a sysctl has set for the next object (`CONFIG_CHECKPOINT_RESTORE`).
pub(crate) fn take_next_id(kernel: &Kernel, path: &str) -> Option<i32> {
    i32::try_from(kernel.sysctls.take_number(path)?).ok()
}

/// Returns the time for the fields of objects.
pub(crate) fn now(task: &CurrentTask) -> i64 {
    task.kernel.clock.realtime_ns().div_euclid(1_000_000_000)
}

/// Returns the caller's process id.
pub(crate) fn own_pid(task: &CurrentTask) -> i32 {
    i32::try_from(task.group.pid_in(&task.pid_namespace())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(IpcPerm);

    impl Object for Thing {
        fn perm(&self) -> &IpcPerm {
            &self.0
        }
    }

    fn add(table: &mut Table<Thing>, key: i32) -> i32 {
        table
            .add(3, None, |seq| Thing(IpcPerm { key, seq, ..IpcPerm::default() }))
            .expect("there is room")
    }

    #[test]
    fn ids_of_removed_objects_are_known_as_such() {
        let mut table = Table::default();
        let first = add(&mut table, 5);
        let second = add(&mut table, 6);
        assert_eq!((first, second), (0, 1));
        table.remove(first);
        assert_eq!(table.by_id(first).err(), Some(Errno::EINVAL));
        let third = add(&mut table, 5);
        assert_eq!(third, 1 << 15);
        assert_eq!(table.by_id(first).err(), Some(Errno::EIDRM));
        assert_eq!(table.by_key(5).map(|(id, _)| id), Some(third));
        assert_eq!(table.by_id(-1).err(), Some(Errno::EINVAL));
        add(&mut table, 7);
        assert_eq!(table.add(3, None, |_| unreachable!("full")).err(), Some(Errno::ENOSPC));
    }

    #[test]
    fn wanted_ids_are_given_unless_taken() {
        let mut table = Table::default();
        let thing = |seq| Thing(IpcPerm { seq, ..IpcPerm::default() });
        assert_eq!(table.add(3, Some((7 << 15) | 5), thing), Ok((7 << 15) | 5));
        assert_eq!(table.add(3, Some((9 << 15) | 5), thing), Ok((9 << 15) | 6));
        assert_eq!(table.add(3, None, thing), Ok(0));
        assert_eq!(table.add(3, Some(1), thing), Err(Errno::ENOSPC));
    }

    #[test]
    fn private_objects_have_no_key() {
        let mut table = Table::default();
        add(&mut table, IPC_PRIVATE);
        assert!(table.by_key(IPC_PRIVATE).is_none());
    }
}
