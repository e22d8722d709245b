//! Streams that are lent to a process: the sentry's side of `sentry_sysmsg::ring`.
//!
//! Everything in the shared memory is what the application says: positions are masked, lengths checked,
//! and the bytes are copied once.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};

use sentry_sysmsg::ring::{
    ENTRY_COUNTER, ENTRY_FILE, ENTRY_NONBLOCK, ENTRY_SEMAPHORE, ENTRY_SOCKET, LEASE_SHIFT, Mirror,
    N_LINKED, N_OWN, POSITION, RING_LEN, Ring, TAKEN_BACK,
};
use syscalls::{Errno, SysResult};

use super::fds::FdCache;
use super::lent_files::LentFiles;
use super::lock;
use super::region::{self, Mapping};
use crate::lent::{FileToLend, Lending, LentMask};
use crate::{HostCall, LentStream, LinkedStream, StreamEnd, StreamKind, Streams, TakenBack};

/// How many streams between two processes there may be. Each has a descriptor until both have it.
const MAX_LINKS: usize = 512;

/// The number of the last lease of any stream or file.
static LAST_LEASE: AtomicU64 = AtomicU64::new(0);
/// How many streams between two processes there are.
static N_LINKS: AtomicUsize = AtomicUsize::new(0);

/// What a process is lent.
#[derive(Debug)]
pub(super) struct LentStreams {
    region: Arc<OwnedFd>,
    mirror: Mapping<Mirror>,
    places: Mutex<[Place; N_OWN]>,
    pub(super) files: Arc<LentFiles>,
    /// How many places have been given to streams between two processes. Each is used once: what somebody
    /// else may have mapped is never taken for another stream.
    n_linked: AtomicUsize,
}

/// Where a stream can be.
#[derive(Debug, Default)]
struct Place {
    /// Its memory, once it was used.
    ring: Option<Arc<Mapping<Ring>>>,
    is_lent: bool,
}

/// A stream between two processes.
struct Link {
    ring: Arc<Mapping<Ring>>,
    /// Its memory, until both have it.
    file: Mutex<Option<Arc<OwnedFd>>>,
    /// Where the reading and the writing process have it.
    places: Mutex<[Option<u64>; 2]>,
}

/// A stream that is lent.
struct Lent {
    lease: u64,
    kind: StreamKind,
    ring: Arc<Mapping<Ring>>,
    /// Where the reading and the writing process have it.
    places: [u64; 2],
    /// To whom the place is given back.
    owner: Option<Arc<LentStreams>>,
}

/// Returns the number of a lease, which is never that of another one.
pub(super) fn next_lease() -> u64 {
    let lease = LAST_LEASE.fetch_add(1, Relaxed) & (u64::MAX >> LEASE_SHIFT);
    let lease = (lease + 1) & (u64::MAX >> LEASE_SHIFT);
    lease.max(1)
}

/// Prepares a stream for a lease, unless a thread has not come to the end of its call; returns the number
/// of the lease.
fn start(ring: &Ring, kind: StreamKind) -> Option<u64> {
    if ring.reader.lock.load(SeqCst) != 0 || ring.writer.lock.load(SeqCst) != 0 {
        return None;
    }
    let lease = next_lease();
    let written = match kind {
        StreamKind::Bytes => 0,
        StreamKind::Counter { value, .. } => u64::from(value),
    };
    for (end, position) in [(&ring.reader, 0), (&ring.writer, written)] {
        end.n_calls.store(0, Relaxed);
        end.word.store(lease << LEASE_SHIFT | position, SeqCst);
    }
    Some(lease)
}

impl LentStreams {
    /// Creates the sentry's side for the process with this region, which holds these files.
    pub(super) fn new(region: &Arc<OwnedFd>, fds: &Arc<Mutex<FdCache>>) -> SysResult<Self> {
        Ok(Self {
            region: Arc::clone(region),
            mirror: Mapping::of_descriptors(region)?,
            places: Mutex::default(),
            files: Arc::new(LentFiles::new(region, fds)),
            n_linked: AtomicUsize::new(0),
        })
    }
}

impl Streams for LentStreams {
    fn attach(&self, table: u64) -> bool {
        let before = self.mirror.table.compare_exchange(0, table, SeqCst, SeqCst);
        before.is_ok() || before == Err(table)
    }

    fn detach(&self) {
        self.mirror.table.store(0, SeqCst);
        (0..self.mirror.entries.len()).for_each(|fd| self.forget(fd));
    }

    fn lend(self: Arc<Self>, kind: StreamKind) -> Option<Box<dyn LentStream>> {
        let mut places = lock(&self.places);
        let free = places.iter_mut().enumerate().filter(|(_, place)| !place.is_lent);
        for (index, place) in free {
            let ring = match &place.ring {
                Some(ring) => Arc::clone(ring),
                None => {
                    let mapping = Mapping::of_stream(&self.region, index).ok()?;
                    Arc::clone(place.ring.insert(Arc::new(mapping)))
                }
            };
            let Some(lease) = start(&ring, kind) else { continue };
            place.is_lent = true;
            drop(places);
            let place = index as u64;
            let places = [place; 2];
            return Some(Box::new(Lent { lease, kind, ring, places, owner: Some(self) }));
        }
        None
    }

    fn link(&self) -> SysResult<Arc<dyn LinkedStream>> {
        if N_LINKS.fetch_add(1, Relaxed) >= MAX_LINKS {
            N_LINKS.fetch_sub(1, Relaxed);
            return Err(Errno::EAGAIN);
        }
        let made = region::memory_file(c"stream", size_of::<Ring>() as u64)
            .and_then(|file| Ok((Mapping::of_link(&file)?, file)));
        match made {
            Ok((ring, file)) => Ok(Arc::new(Link {
                ring: Arc::new(ring),
                file: Mutex::new(Some(Arc::new(file))),
                places: Mutex::default(),
            })),
            Err(errno) => {
                N_LINKS.fetch_sub(1, Relaxed);
                Err(errno)
            }
        }
    }

    fn join(&self, link: &Arc<dyn LinkedStream>, reads: bool) -> Vec<HostCall> {
        let next = |n: usize| (n < N_LINKED).then_some(n + 1);
        match self.n_linked.fetch_update(Relaxed, Relaxed, next) {
            Ok(n) => link.joined(reads, (N_OWN + n) as u64),
            Err(_) => Vec::new(),
        }
    }

    fn lend_file(&self, file: &FileToLend<'_>) -> Lending {
        self.files.lend(file)
    }

    fn lend_mask(&self, mask: u32) -> Option<Box<dyn LentMask>> {
        self.files.lend_mask(mask)
    }

    fn tell(&self, fd: i32, end: StreamEnd) {
        let flags = [
            (end.is_file, ENTRY_FILE),
            (end.is_socket, ENTRY_SOCKET),
            (end.is_nonblocking, ENTRY_NONBLOCK),
        ];
        let flags = flags.iter().filter(|(is_set, _)| *is_set).fold(0, |sum, (_, flag)| sum | flag);
        let place = usize::try_from(fd).ok().and_then(|fd| self.mirror.entries.get(fd));
        let Some(place) = place else { return };
        for (is_meant, entry) in [(end.reads, &place.reads), (end.writes, &place.writes)] {
            if is_meant {
                entry.store(end.stream | flags, SeqCst);
            }
        }
    }

    fn forget(&self, fd: usize) {
        if let Some(place) = self.mirror.entries.get(fd) {
            place.reads.store(0, SeqCst);
            place.writes.store(0, SeqCst);
        }
    }
}

impl LinkedStream for Link {
    fn joined(&self, reads: bool, place: u64) -> Vec<HostCall> {
        let mut places = lock(&self.places);
        let [reader, writer] = &mut *places;
        *(if reads { reader } else { writer }) = Some(place);
        let is_complete = places.iter().all(Option::is_some);
        drop(places);
        let mut file = lock(&self.file);
        let file = if is_complete { file.take() } else { file.clone() };
        let Some(file) = file else { return Vec::new() };
        vec![
            HostCall::MapStream { place, file: Arc::clone(&file) },
            HostCall::KeepStream { place },
            HostCall::CloseStream { file },
        ]
    }

    fn has_joined(&self, reads: bool) -> bool {
        let [reader, writer] = *lock(&self.places);
        (if reads { reader } else { writer }).is_some()
    }

    fn lend(self: Arc<Self>, kind: StreamKind) -> Option<Box<dyn LentStream>> {
        let [reader, writer] = *lock(&self.places);
        let places = [reader?, writer?];
        let ring = Arc::clone(&self.ring);
        Some(Box::new(Lent { lease: start(&ring, kind)?, kind, ring, places, owner: None }))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        N_LINKS.fetch_sub(1, Relaxed);
    }
}

impl LentStream for Lent {
    fn id(&self, reads: bool) -> u64 {
        let [reader, writer] = self.places;
        let kind = match self.kind {
            StreamKind::Bytes => 0,
            StreamKind::Counter { is_semaphore: false, .. } => ENTRY_COUNTER,
            StreamKind::Counter { is_semaphore: true, .. } => ENTRY_COUNTER | ENTRY_SEMAPHORE,
        };
        self.lease << LEASE_SHIFT | kind | if reads { reader } else { writer }
    }

    fn take_back(&self) -> TakenBack {
        // In this order: what is read until the second has been written before the first.
        let written = self.ring.writer.word.fetch_or(TAKEN_BACK, SeqCst) & POSITION;
        let read = self.ring.reader.word.fetch_or(TAKEN_BACK, SeqCst) & POSITION;
        let n_calls = |calls: &std::sync::atomic::AtomicU32| calls.load(Relaxed);
        let n_calls =
            n_calls(&self.ring.reader.n_calls).saturating_add(n_calls(&self.ring.writer.n_calls));
        if let StreamKind::Counter { .. } = self.kind {
            let value = u32::try_from(written).unwrap_or(0);
            return TakenBack { data: Vec::new(), value, n_calls };
        }
        let len = written.wrapping_sub(read) & POSITION;
        let len = usize::try_from(len).ok().filter(|len| *len <= RING_LEN).unwrap_or(0);
        let start = usize::try_from(read).unwrap_or(0);
        TakenBack { data: copy(&self.ring, start, len), value: 0, n_calls }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.ring.writer.word.fetch_or(TAKEN_BACK, SeqCst);
        self.ring.reader.word.fetch_or(TAKEN_BACK, SeqCst);
        let [index, _] = self.places.map(|place| usize::try_from(place).unwrap_or(usize::MAX));
        if let Some(owner) = &self.owner
            && let Some(place) = lock(&owner.places).get_mut(index)
        {
            place.is_lent = false;
        }
    }
}

/// Copies `len` bytes from position `start` on, word by word.
fn copy(ring: &Ring, start: usize, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    let mut at = start % RING_LEN;
    while bytes.len() < len {
        let word = ring.data.get(at / 8).map_or(0, |word| word.load(Relaxed)).to_le_bytes();
        let rest = word.get(at % 8..).unwrap_or_default();
        let n = rest.len().min(len - bytes.len());
        bytes.extend_from_slice(rest.get(..n).unwrap_or_default());
        at = (at + n) % RING_LEN;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::{Relaxed, SeqCst};

    use sentry_sysmsg::layout;
    use sentry_sysmsg::ring::{LEASE_SHIFT, N_OWN, POSITION, RING_LEN, TAKEN_BACK};

    use super::LentStreams;
    use crate::systrap::region::{Mapping, memory_file};
    use crate::{StreamKind, Streams};

    fn streams() -> Arc<LentStreams> {
        let region = Arc::new(memory_file(c"test", layout::REGION_LEN).unwrap());
        Arc::new(LentStreams::new(&region, &Arc::default()).unwrap())
    }

    #[test]
    fn stream_comes_back_with_what_lies_across_its_end() {
        let streams = streams();
        let lent = Arc::clone(&streams).lend(StreamKind::Bytes).unwrap();
        let ring = Mapping::of_stream(&streams.region, 0).unwrap();
        for (i, word) in ring.data.iter().enumerate() {
            word.store(i as u64, Relaxed);
        }
        ring.reader.word.fetch_add(RING_LEN as u64 - 3, SeqCst);
        ring.writer.word.fetch_add(RING_LEN as u64 + 2, SeqCst);
        assert_eq!(lent.take_back().data, [0, 0, 0, 0, 0]);
        assert_ne!(ring.reader.word.load(SeqCst) & TAKEN_BACK, 0);
    }

    #[test]
    fn forged_positions_bring_nothing() {
        let streams = streams();
        let lent = Arc::clone(&streams).lend(StreamKind::Bytes).unwrap();
        let ring = Mapping::of_stream(&streams.region, 0).unwrap();
        ring.reader.word.store(u64::MAX, SeqCst);
        ring.writer.word.store(RING_LEN as u64, SeqCst);
        assert!(lent.take_back().data.is_empty());
        ring.reader.word.store(0, SeqCst);
        assert_eq!(lent.take_back().data.len(), RING_LEN);
    }

    #[test]
    fn counter_comes_back_with_its_value() {
        let streams = streams();
        let kind = StreamKind::Counter { value: 7, is_semaphore: true };
        let lent = Arc::clone(&streams).lend(kind).unwrap();
        let ring = Mapping::of_stream(&streams.region, 0).unwrap();
        assert_eq!(ring.writer.word.fetch_add(5, SeqCst) & POSITION, 7);
        ring.writer.n_calls.store(3, Relaxed);
        let back = lent.take_back();
        assert_eq!((back.value, back.n_calls, back.data.len()), (12, 3, 0));
        assert_ne!(ring.writer.word.load(SeqCst) & TAKEN_BACK, 0);
        ring.writer.word.store(u64::MAX, SeqCst);
        assert_eq!(lent.take_back().value, u32::MAX);
    }

    #[test]
    fn place_with_a_held_lock_is_not_lent_again() {
        let streams = streams();
        let first = Arc::clone(&streams).lend(StreamKind::Bytes).unwrap();
        let ring = Mapping::of_stream(&streams.region, 0).unwrap();
        ring.writer.lock.store(1, SeqCst);
        drop(first);
        let others: Vec<_> =
            (1..N_OWN).map(|_| Arc::clone(&streams).lend(StreamKind::Bytes)).collect();
        assert!(others.iter().all(Option::is_some));
        assert!(Arc::clone(&streams).lend(StreamKind::Bytes).is_none());
        ring.writer.lock.store(0, SeqCst);
        assert!(streams.lend(StreamKind::Bytes).is_some());
    }

    #[test]
    fn linked_stream_is_lent_when_both_have_it() {
        let (one, other) = (streams(), streams());
        let link = one.link().unwrap();
        assert_eq!(one.join(&link, true).len(), 3);
        assert!(Arc::clone(&link).lend(StreamKind::Bytes).is_none());
        assert_eq!(other.join(&one.link().unwrap(), true).len(), 3);
        assert_eq!(other.join(&link, false).len(), 3);
        let lent = link.lend(StreamKind::Bytes).unwrap();
        let own = Arc::clone(&one).lend(StreamKind::Bytes).unwrap();
        assert_eq!(lent.id(false), lent.id(true) + 1);
        assert_ne!(lent.id(true) >> LEASE_SHIFT, own.id(true) >> LEASE_SHIFT);
    }

    #[test]
    fn descriptors_belong_to_one_table_at_a_time() {
        let streams = streams();
        assert!(streams.attach(7) && streams.attach(7));
        assert!(!streams.attach(8));
        streams.detach();
        assert!(streams.attach(8));
    }
}
