//! System V shared memory (`ipc/shm.c`).
//!
//! A segment is a file of memory without a name; each attachment is an open file of its own. Areas hold the open
//! file, so the references to it are the attachments that Linux counts, through `fork(2)`, `munmap(2)` and the
//! end of a process. A segment that is removed keeps its memory only in its attachments.
//!
//! DEVIATION: time and process of the last detachment are those of the last `shmdt(2)`.

use std::sync::{Arc, Weak};

use syscalls::abi::capability::CAP_IPC_LOCK;
use syscalls::abi::fs::OpenFlags;
use syscalls::abi::ipc::{IPC_PRIVATE, IpcPerm, SHM_DEST, SHM_LOCKED, ShmFlags, ShmidDs};
use syscalls::abi::mm::{MapFlags, PAGE_SIZE, ProtFlags};
use syscalls::{Errno, SysResult, UserAddr};

use super::{Lookup, Object, Table};
use crate::mm::map_file::MmapArgs;
use crate::mm::ops::Conflicts;
use crate::mm::vma::{AddrRange, Backing, page_up};
use crate::sync::Mutex;
use crate::task::{Control, CurrentTask, HandlerResult};
use crate::vfs::{OpenFile, Path};

/// The default of `kernel.shmmax` and `kernel.shmall`.
const MAX_SIZE: usize = usize::MAX - (1 << 24);

/// The limits that sysctls set.
pub(crate) struct Limits {
    /// `kernel.shmmni`.
    pub(crate) segments: usize,
    /// `kernel.shmmax`.
    pub(crate) size: u64,
    /// `kernel.shmall`.
    pub(crate) pages: u64,
}

impl Limits {
    /// Returns the limits.
    pub(crate) fn of(task: &CurrentTask) -> Self {
        let limit = |path, default| super::limit(&task.kernel, path, 0, default);
        Self {
            segments: limit("kernel/shmmni", 4096),
            size: limit("kernel/shmmax", MAX_SIZE) as u64,
            pages: limit("kernel/shmall", MAX_SIZE) as u64,
        }
    }
}

/// All segments.
#[derive(Default)]
pub(crate) struct Segments {
    table: Mutex<Table<Segment>>,
}

/// A segment.
pub(crate) struct Segment {
    perm: IpcPerm,
    size: u64,
    /// The memory; none once it has been removed.
    path: Option<Path>,
    attachments: Vec<Weak<OpenFile>>,
    atime: i64,
    dtime: i64,
    ctime: i64,
    cpid: i32,
    lpid: i32,
}

impl Object for Segment {
    fn perm(&self) -> &IpcPerm {
        &self.perm
    }
}

impl Segment {
    fn n_attached(&self) -> u64 {
        self.attachments.iter().map(|file| file.strong_count() as u64).sum()
    }

    fn n_pages(&self) -> u64 {
        self.size.div_ceil(PAGE_SIZE)
    }

    fn is_removed(&self) -> bool {
        self.perm.mode & SHM_DEST != 0
    }

    fn is_attachment(&self, file: &Arc<OpenFile>) -> bool {
        self.attachments.iter().any(|attachment| attachment.as_ptr() == Arc::as_ptr(file))
    }

    fn path(&self) -> Option<Path> {
        let attached = || self.attachments.iter().find_map(Weak::upgrade)?.path.clone();
        self.path.clone().or_else(attached)
    }

    fn status(&self) -> ShmidDs {
        ShmidDs {
            shm_perm: self.perm,
            shm_segsz: self.size,
            shm_atime: self.atime,
            shm_dtime: self.dtime,
            shm_ctime: self.ctime,
            shm_cpid: self.cpid,
            shm_lpid: self.lpid,
            shm_nattch: self.n_attached(),
            unused: [0; 2],
        }
    }
}

/// Totals for `SHM_INFO`.
pub(crate) struct Totals {
    /// How many segments there are.
    pub(crate) n_segments: usize,
    /// How many pages they have.
    pub(crate) n_pages: u64,
    /// The highest index in use.
    pub(crate) max_index: u64,
}

impl Segments {
    /// Runs `f` on the segments, without those that have been removed and that nobody has attached.
    fn with<T>(&self, f: impl FnOnce(&mut Table<Segment>) -> T) -> T {
        let mut table = self.table.lock();
        table.retain(|segment| !segment.is_removed() || segment.n_attached() > 0);
        f(&mut table)
    }

    /// Implements `shmget(2)`.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `EACCES`, `EINVAL`, `ENOSPC`, `ENOMEM`.
    pub(crate) fn get(
        &self,
        task: &CurrentTask,
        key: i32,
        size: u64,
        flags: u32,
    ) -> SysResult<i32> {
        let check = |segment: &Segment| {
            if segment.size < size { Err(Errno::EINVAL) } else { Ok(()) }
        };
        if let Lookup::Found(id) =
            self.with(|table| super::look_up(task, table, key, flags, check))?
        {
            return Ok(id);
        }
        // As where no huge pages are compiled in.
        let is_huge = ShmFlags::from_bits_retain(flags).contains(ShmFlags::HUGETLB);
        let limits = Limits::of(task);
        if size == 0 || size > limits.size || is_huge {
            return Err(Errno::EINVAL);
        }
        let len = page_up(size).filter(|len| i64::try_from(*len).is_ok()).ok_or(Errno::EINVAL)?;
        let name = format!("SYSV{key:08x}");
        let path = crate::fs::memfd::create_segment(task, name.as_bytes(), len)?;
        let ctime = super::now(task);
        let cpid = super::own_pid(task);
        self.with(|table| {
            // Somebody else may have been quicker.
            if let Lookup::Found(id) = super::look_up(task, table, key, flags, check)? {
                return Ok(id);
            }
            let n_pages =
                table.iter().map(Segment::n_pages).fold(len / PAGE_SIZE, u64::saturating_add);
            if n_pages > limits.pages {
                return Err(Errno::ENOSPC);
            }
            let next = super::take_next_id(&task.kernel, "kernel/shm_next_id");
            table.add(limits.segments, next, |seq| Segment {
                perm: super::new_perm(task, key, flags, seq),
                size,
                path: Some(path),
                attachments: Vec::new(),
                atime: 0,
                dtime: 0,
                ctime,
                cpid,
                lpid: 0,
            })
        })
    }

    /// Implements `shmat(2)`.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EACCES`, `ENOMEM`.
    pub(crate) fn attach(
        &self,
        task: &CurrentTask,
        id: i32,
        addr: UserAddr,
        flags: ShmFlags,
    ) -> HandlerResult<u64> {
        let mut start = addr.0;
        let mut map_flags = MapFlags::SHARED;
        if start != 0 {
            if !start.is_multiple_of(PAGE_SIZE) {
                if !flags.contains(ShmFlags::RND) {
                    return Err(Errno::EINVAL.into());
                }
                start -= start % PAGE_SIZE;
                if start == 0 && flags.contains(ShmFlags::REMAP) {
                    return Err(Errno::EINVAL.into());
                }
            }
            let replaces = flags.contains(ShmFlags::REMAP);
            map_flags |= if replaces { MapFlags::FIXED } else { MapFlags::FIXED_NOREPLACE };
        } else if flags.contains(ShmFlags::REMAP) {
            return Err(Errno::EINVAL.into());
        }
        let (mut prot, mut access, open) = if flags.contains(ShmFlags::RDONLY) {
            (ProtFlags::READ, 0o444, OpenFlags::empty())
        } else {
            (ProtFlags::READ | ProtFlags::WRITE, 0o666, OpenFlags::RDWR)
        };
        if flags.contains(ShmFlags::EXEC) {
            prot |= ProtFlags::EXEC;
            access |= 0o111;
        }
        let (path, size) = self.with(|table| {
            let segment = table.by_id(id)?;
            super::check_access(task, &segment.perm, access)?;
            Ok::<_, Errno>((segment.path().ok_or(Errno::EIDRM)?, segment.size))
        })?;
        let open = open | OpenFlags::LARGEFILE;
        let file = path.inode().clone().open(task, open.bits())?;
        let file = OpenFile::new(file, Some(path), open.bits());
        self.with(|table| {
            let segment = table.by_id(id)?;
            segment.attachments.retain(|file| file.strong_count() > 0);
            segment.attachments.push(Arc::downgrade(&file));
            Ok::<_, Errno>(())
        })?;
        let limits = task.memory_limits();
        let args = MmapArgs {
            addr: start,
            len: size,
            prot,
            flags: map_flags,
            file: Some(file),
            offset: 0,
        };
        let request = args.into_request(true)?;
        let fixed = request.fixed_range();
        let conflicts = match &fixed {
            Some(range) => Conflicts::Ranges(std::slice::from_ref(range)),
            None => Conflicts::Whole,
        };
        let mapped = task.mm().operate(task, &conflicts, |space, avoid, plan| {
            space.map(&request, &limits, avoid, plan)
        });
        let addr = match mapped {
            Err(Control::Error(Errno::EEXIST)) => return Err(Errno::EINVAL.into()),
            result => result?,
        };
        self.with(|table| {
            if let Ok(segment) = table.by_id(id) {
                segment.atime = super::now(task);
                segment.lpid = super::own_pid(task);
            }
        });
        Ok(addr)
    }

    /// Implements `shmdt(2)`.
    ///
    /// # Errors
    /// `EINVAL` where no attachment starts there.
    pub(crate) fn detach(&self, task: &CurrentTask, addr: UserAddr) -> HandlerResult<()> {
        if !addr.0.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL.into());
        }
        let mm = task.mm();
        let parts = mm.inspect(|space| self.parts(space, addr.0));
        if parts.is_empty() {
            return Err(Errno::EINVAL.into());
        }
        let mut file = None;
        mm.operate(task, &Conflicts::Ranges(&parts), |space, _, plan| {
            for part in &parts {
                let backing = space.tree.find(part.start).map(|(_, vma)| vma.backing.clone());
                if let Some(Backing::File(backing)) = backing {
                    file.get_or_insert(backing.file);
                }
                space.unmap(part, plan)?;
            }
            Ok(())
        })?;
        let (now, pid) = (super::now(task), super::own_pid(task));
        self.with(|table| {
            for segment in table.iter_mut() {
                if file.as_ref().is_some_and(|file| segment.is_attachment(file)) {
                    segment.dtime = now;
                    segment.lpid = pid;
                }
            }
        });
        Ok(())
    }

    /// Returns the areas of the attachment that starts at `addr`, or that did before it was cut.
    fn parts(&self, space: &crate::mm::space::Space, addr: u64) -> Vec<AddrRange> {
        let mut parts = Vec::new();
        let mut found: Option<(Arc<OpenFile>, u64)> = None;
        let table = self.table.lock();
        for (start, vma) in space.tree.overlapping(addr..u64::MAX) {
            let Backing::File(backing) = &vma.backing else { continue };
            if start < addr || backing.offset != start - addr {
                continue;
            }
            let end = match &found {
                Some((file, end)) if Arc::ptr_eq(file, &backing.file) => *end,
                Some(_) => continue,
                None => {
                    let Some(segment) = table.iter().find(|s| s.is_attachment(&backing.file))
                    else {
                        continue;
                    };
                    let end = addr.saturating_add(page_up(segment.size).unwrap_or(u64::MAX));
                    found = Some((backing.file.clone(), end));
                    end
                }
            };
            if start < end {
                parts.push(start..vma.end);
            }
        }
        parts
    }

    /// Returns the status of a segment: by id, or by index for the commands that list them, where `access`
    /// is the mode that the caller needs.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EACCES`.
    pub(crate) fn status(
        &self,
        task: &CurrentTask,
        id: i32,
        is_index: bool,
        access: u32,
    ) -> SysResult<(i32, ShmidDs)> {
        self.with(|table| {
            let (id, segment) = if is_index { table.by_index(id)? } else { (0, table.by_id(id)?) };
            super::check_access(task, &segment.perm, access)?;
            Ok((id, segment.status()))
        })
    }

    /// Implements `IPC_SET`.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EPERM`.
    pub(crate) fn set(&self, task: &CurrentTask, id: i32, new: &IpcPerm) -> SysResult<()> {
        self.with(|table| {
            let segment = table.by_id(id)?;
            super::check_owner(task, &segment.perm)?;
            super::set_perm(&mut segment.perm, new);
            segment.ctime = super::now(task);
            Ok(())
        })
    }

    /// Implements `IPC_RMID`: the segment goes with its last attachment.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EPERM`.
    pub(crate) fn remove(&self, task: &CurrentTask, id: i32) -> SysResult<()> {
        // Its memory is given back without the lock.
        let _gone = self.with(|table| {
            let segment = table.by_id(id)?;
            super::check_owner(task, &segment.perm)?;
            segment.perm.mode |= SHM_DEST;
            segment.perm.key = IPC_PRIVATE;
            let path = segment.path.take();
            let removed = if segment.n_attached() == 0 { table.remove(id) } else { None };
            Ok::<_, Errno>((path, removed))
        })?;
        Ok(())
    }

    /// Implements `SHM_LOCK` and `SHM_UNLOCK`.
    ///
    /// # Errors
    /// `EINVAL`, `EIDRM`, `EPERM`.
    pub(crate) fn lock(&self, task: &CurrentTask, id: i32, locks: bool) -> SysResult<()> {
        let creds = task.creds();
        self.with(|table| {
            let perm = &mut table.by_id(id)?.perm;
            if !creds.is_capable_in(&task.ipc().owner, CAP_IPC_LOCK) {
                let is_owner = creds.euid == perm.uid || creds.euid == perm.cuid;
                if !is_owner || (locks && task.memory_limits().memlock == 0) {
                    return Err(Errno::EPERM);
                }
            }
            perm.mode = if locks { perm.mode | SHM_LOCKED } else { perm.mode & !SHM_LOCKED };
            Ok(())
        })
    }

    /// Returns the totals.
    pub(crate) fn totals(&self) -> Totals {
        self.with(|table| Totals {
            n_segments: table.len(),
            n_pages: table.iter().map(Segment::n_pages).fold(0, u64::saturating_add),
            max_index: table.max_index(),
        })
    }

    /// Returns `/proc/sysvipc/shm`. What is resident is not known here: all of it is said to be.
    pub(crate) fn render(&self) -> String {
        let mut out = String::from(
            "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n",
        );
        self.with(|table| {
            for (id, segment) in table.iter_ids() {
                let perm = &segment.perm;
                out.push_str(&format!(
                    "{:10} {id:10}  {:4o} {:21} {:5} {:5}  {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10} {:21} {:21}\n",
                    perm.key,
                    perm.mode,
                    segment.size,
                    segment.cpid,
                    segment.lpid,
                    segment.n_attached(),
                    perm.uid,
                    perm.gid,
                    perm.cuid,
                    perm.cgid,
                    segment.atime,
                    segment.dtime,
                    segment.ctime,
                    segment.n_pages().saturating_mul(PAGE_SIZE),
                    0,
                ));
            }
        });
        out
    }
}
