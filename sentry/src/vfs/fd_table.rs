//! Descriptor tables.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use sentry_platform::{StreamEnd, Streams};
use syscalls::{Errno, SysResult};

use super::file::OpenFile;
use super::lock;
use crate::sync::RwLock;

/// The most descriptors that a process may have, whatever its limit: the most that `fs.nr_open`,
/// which bounds the limits, can be.
pub const MAX_NR_OPEN: usize = 1 << 22;

struct Slot {
    file: Arc<OpenFile>,
    is_cloexec: bool,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Option<Slot>>,
    /// One bit per descriptor that is in use.
    used: Vec<u64>,
    /// No free descriptor lies in a word before this one.
    first_word: usize,
    /// The streams that are lent to a process with this table. They are told of descriptors only as
    /// long as these refer to the same open files.
    streams: Option<Arc<dyn Streams>>,
}

impl Slots {
    fn get(&self, fd: i32) -> Option<&Slot> {
        self.slots.get(usize::try_from(fd).ok()?)?.as_ref()
    }

    /// Returns the lowest free descriptor from `from` on.
    fn lowest_free(&self, from: usize) -> usize {
        let mut word = (from / 64).max(self.first_word);
        let mut mask = if word == from / 64 { (1_u64 << (from % 64)) - 1 } else { 0 };
        while let Some(used) = self.used.get(word) {
            let taken = used | mask;
            if taken != u64::MAX {
                return word * 64 + taken.trailing_ones() as usize;
            }
            word += 1;
            mask = 0;
        }
        (word * 64).max(from)
    }

    fn put(&mut self, index: usize, slot: Slot) -> Option<Slot> {
        if let Some(streams) = &self.streams {
            streams.forget(index);
        }
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
            self.used.resize(self.slots.len().div_ceil(64), 0);
        }
        if let Some(word) = self.used.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
        while self.used.get(self.first_word) == Some(&u64::MAX) {
            self.first_word += 1;
        }
        self.slots.get_mut(index).and_then(|place| place.replace(slot))
    }

    fn take(&mut self, index: usize) -> Option<Slot> {
        if let Some(streams) = &self.streams {
            streams.forget(index);
        }
        let slot = self.slots.get_mut(index)?.take()?;
        if let Some(word) = self.used.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
        self.first_word = self.first_word.min(index / 64);
        Some(slot)
    }
}

/// A process's descriptor table.
pub struct FdTable {
    /// The owner of the POSIX record locks that are taken through this table.
    pub id: u64,
    slots: Arc<RwLock<Slots>>,
}

/// Tells the process of a descriptor table about its descriptors, as long as there is the table.
#[derive(Clone)]
pub struct Teller(Weak<RwLock<Slots>>);

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl FdTable {
    /// Creates an empty table.
    pub fn empty() -> Arc<Self> {
        Arc::new(Self { id: next_id(), slots: Arc::default() })
    }

    /// Returns a copy with the same open files: `fork(2)`.
    pub fn fork(&self) -> Arc<Self> {
        let slots = self.slots.read();
        let copy = slots.slots.iter().map(|slot| {
            let slot = slot.as_ref()?;
            Some(Slot { file: slot.file.clone(), is_cloexec: slot.is_cloexec })
        });
        Arc::new(Self {
            id: next_id(),
            slots: Arc::new(RwLock::new(Slots {
                slots: copy.collect(),
                used: slots.used.clone(),
                first_word: slots.first_word,
                streams: None,
            })),
        })
    }

    /// Returns an open file, which may be an `O_PATH` one.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn get_any(&self, fd: i32) -> SysResult<Arc<OpenFile>> {
        self.slots.read().get(fd).map(|slot| slot.file.clone()).ok_or(Errno::EBADF)
    }

    /// Returns an open file on which operations are possible.
    ///
    /// # Errors
    /// `EBADF`, also for an `O_PATH` descriptor.
    pub fn get(&self, fd: i32) -> SysResult<Arc<OpenFile>> {
        let file = self.get_any(fd)?;
        if file.is_path() { Err(Errno::EBADF) } else { Ok(file) }
    }

    /// Installs `file` at the lowest free descriptor from `from` on, below `limit`
    /// (`RLIMIT_NOFILE`).
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn install_from(
        &self,
        from: usize,
        file: Arc<OpenFile>,
        is_cloexec: bool,
        limit: u64,
    ) -> SysResult<i32> {
        let limit = usize::try_from(limit).unwrap_or(MAX_NR_OPEN).min(MAX_NR_OPEN);
        let mut slots = self.slots.write();
        let index = slots.lowest_free(from);
        if index >= limit {
            return Err(Errno::EMFILE);
        }
        let fd = i32::try_from(index).map_err(|_| Errno::EMFILE)?;
        slots.put(index, Slot { file, is_cloexec });
        Ok(fd)
    }

    /// Installs `file` at the lowest free descriptor.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn install(&self, file: Arc<OpenFile>, is_cloexec: bool, limit: u64) -> SysResult<i32> {
        self.install_from(0, file, is_cloexec, limit)
    }

    /// Installs `file` at exactly `fd`; returns what was there.
    ///
    /// # Errors
    /// `EBADF` where `fd` is negative or not below `limit`.
    pub fn replace(
        &self,
        fd: i32,
        file: Arc<OpenFile>,
        is_cloexec: bool,
        limit: u64,
    ) -> SysResult<Option<Arc<OpenFile>>> {
        let limit = usize::try_from(limit).unwrap_or(MAX_NR_OPEN).min(MAX_NR_OPEN);
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        if index >= limit {
            return Err(Errno::EBADF);
        }
        let old = self.slots.write().put(index, Slot { file, is_cloexec });
        Ok(old.map(|slot| slot.file))
    }

    /// Takes a descriptor out of the table.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn remove(&self, fd: i32) -> SysResult<Arc<OpenFile>> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.slots.write().take(index).map(|slot| slot.file).ok_or(Errno::EBADF)
    }

    /// Returns whether a descriptor is closed on exec.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn is_cloexec(&self, fd: i32) -> SysResult<bool> {
        self.slots.read().get(fd).map(|slot| slot.is_cloexec).ok_or(Errno::EBADF)
    }

    /// Sets whether a descriptor is closed on exec.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn set_cloexec(&self, fd: i32, is_cloexec: bool) -> SysResult<()> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let mut slots = self.slots.write();
        let slot = slots.slots.get_mut(index).and_then(Option::as_mut).ok_or(Errno::EBADF)?;
        slot.is_cloexec = is_cloexec;
        Ok(())
    }

    /// Returns the descriptors in use, in ascending order.
    pub fn descriptors(&self) -> Vec<i32> {
        let slots = self.slots.read();
        let used = slots.slots.iter().enumerate().filter(|(_, slot)| slot.is_some());
        used.filter_map(|(index, _)| i32::try_from(index).ok()).collect()
    }

    /// Sets close-on-exec on all descriptors from `first` to `last`.
    pub fn set_cloexec_range(&self, first: u32, last: u32) {
        let mut slots = self.slots.write();
        for slot in range_mut(&mut slots.slots, first, last).iter_mut().flatten() {
            slot.is_cloexec = true;
        }
    }

    /// Takes all descriptors from `first` to `last` out of the table.
    pub fn remove_range(&self, first: u32, last: u32) -> Vec<Arc<OpenFile>> {
        self.remove_where(|index, _| {
            u32::try_from(index).is_ok_and(|fd| (first..=last).contains(&fd))
        })
    }

    /// Takes out the descriptors that exec closes, which are to be closed then, and has nothing more to do with the
    /// former memory.
    pub fn remove_cloexec(&self) -> Vec<Arc<OpenFile>> {
        if let Some(streams) = self.slots.write().streams.take() {
            streams.detach();
        }
        let removed = self.remove_where(|_, slot| slot.is_cloexec);
        let slots = self.slots.read();
        let kept: Vec<_> = slots.slots.iter().flatten().map(|slot| slot.file.clone()).collect();
        drop(slots);
        for file in kept {
            file.offset.recall();
        }
        removed
    }

    /// Lets a process that has this table be lent streams; returns whether it can be.
    pub fn attach(&self, streams: &Arc<dyn Streams>) -> bool {
        let mut slots = self.slots.write();
        let before = slots.streams.as_ref();
        if before.is_some_and(|before| ptr::addr_eq(Arc::as_ptr(before), Arc::as_ptr(streams))) {
            return true;
        }
        if !streams.attach(self.id) {
            return false;
        }
        if let Some(before) = slots.streams.replace(streams.clone()) {
            before.detach();
        }
        true
    }

    /// Returns what tells the process about descriptors.
    pub fn teller(&self) -> Teller {
        Teller(Arc::downgrade(&self.slots))
    }

    /// Closes a file that has been taken out of this table: the record locks that the process has
    /// on it go, even where other descriptors refer to the same file.
    pub fn close(&self, file: &OpenFile) {
        if !file.is_path() {
            lock::release_process(file, self.id);
            file.file.descriptor_closed(self.id);
            file.offset.recall();
        }
    }

    fn remove_where(&self, is_wanted: impl Fn(usize, &Slot) -> bool) -> Vec<Arc<OpenFile>> {
        let mut slots = self.slots.write();
        let mut removed = Vec::new();
        for index in 0..slots.slots.len() {
            let slot = slots.slots.get(index).and_then(Option::as_ref);
            if slot.is_some_and(|slot| is_wanted(index, slot)) {
                removed.extend(slots.take(index).map(|slot| slot.file));
            }
        }
        removed
    }
}

impl Teller {
    /// Says which end of a lent stream of `of`, or which lent file, the descriptor `fd` is, as long as it refers to
    /// `file` and may be used so; returns whether it does.
    pub fn tell(
        &self,
        of: &Weak<dyn Streams>,
        fd: i32,
        file: &Arc<OpenFile>,
        end: StreamEnd,
    ) -> bool {
        let Some(slots) = self.0.upgrade() else { return false };
        let slots = slots.write();
        let is_same = slots.get(fd).is_some_and(|slot| Arc::ptr_eq(&slot.file, file));
        let is_its = |streams: &&Arc<dyn Streams>| ptr::addr_eq(Arc::as_ptr(streams), of.as_ptr());
        let told = slots.streams.as_ref().filter(is_its).filter(|_| is_same);
        if let Some(streams) = told {
            let end = StreamEnd {
                reads: end.reads && file.is_readable(),
                writes: end.writes && file.is_writable(),
                is_nonblocking: file.is_nonblocking(),
                ..end
            };
            streams.tell(fd, end);
        }
        told.is_some()
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        let slots = std::mem::take(&mut *self.slots.write());
        if let Some(streams) = slots.streams {
            streams.detach();
        }
        for slot in slots.slots.into_iter().flatten() {
            self.close(&slot.file);
        }
    }
}

fn range_mut(slots: &mut [Option<Slot>], first: u32, last: u32) -> &mut [Option<Slot>] {
    let first = usize::try_from(first).unwrap_or(usize::MAX).min(slots.len());
    let end = usize::try_from(last).unwrap_or(usize::MAX).saturating_add(1).min(slots.len());
    slots.get_mut(first..end.max(first)).unwrap_or_default()
}
