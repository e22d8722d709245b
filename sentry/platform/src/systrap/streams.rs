//! Streams that are lent to a process: the sentry's side of `sentry_sysmsg::ring`.
//!
//! Everything in the shared memory is what the application says: positions are masked, lengths checked,
//! and the bytes are copied once.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex};

use sentry_sysmsg::ring::{
    ENTRY_NONBLOCK, ENTRY_READ, ENTRY_WRITE, LEASE_SHIFT, Mirror, N_RINGS, POSITION, RING_LEN,
    Ring, TAKEN_BACK,
};
use syscalls::SysResult;

use super::lock;
use super::region::Mapping;
use crate::{LentStream, StreamEnd, Streams, TakenBack};

/// What a process is lent.
#[derive(Debug)]
pub(super) struct LentStreams {
    region: Arc<OwnedFd>,
    mirror: Mapping<Mirror>,
    places: Mutex<[Place; N_RINGS]>,
}

/// Where a stream can be.
#[derive(Debug, Default)]
struct Place {
    /// Its memory, once it was used.
    ring: Option<Arc<Mapping<Ring>>>,
    is_lent: bool,
    /// The number of the last lease.
    lease: u64,
}

/// A stream that is lent.
struct Lent {
    owner: Arc<LentStreams>,
    index: usize,
    lease: u64,
    ring: Arc<Mapping<Ring>>,
}

impl LentStreams {
    /// Creates the sentry's side for the process with this region.
    pub(super) fn new(region: &Arc<OwnedFd>) -> SysResult<Self> {
        Ok(Self {
            region: Arc::clone(region),
            mirror: Mapping::of_descriptors(region)?,
            places: Mutex::default(),
        })
    }

    fn clear(&self) {
        self.mirror.table.store(0, SeqCst);
        for entry in &self.mirror.entries {
            entry.store(0, SeqCst);
        }
    }
}

impl Streams for LentStreams {
    fn attach(&self, table: u64) -> bool {
        let before = self.mirror.table.compare_exchange(0, table, SeqCst, SeqCst);
        before.is_ok_and(|_| true) || before == Err(table)
    }

    fn detach(&self) {
        self.clear();
    }

    fn lend(self: Arc<Self>) -> Option<Box<dyn LentStream>> {
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
            // A thread that has not come to its end, or never does.
            if ring.reader.lock.load(SeqCst) != 0 || ring.writer.lock.load(SeqCst) != 0 {
                continue;
            }
            place.lease = (place.lease + 1) & (u64::MAX >> LEASE_SHIFT);
            place.lease = place.lease.max(1);
            place.is_lent = true;
            for end in [&ring.reader, &ring.writer] {
                end.n_calls.store(0, Relaxed);
                end.word.store(place.lease << LEASE_SHIFT, SeqCst);
            }
            let lease = place.lease;
            drop(places);
            return Some(Box::new(Lent { owner: self, index, lease, ring }));
        }
        None
    }

    fn tell(&self, fd: i32, end: StreamEnd) {
        let flags = [
            (end.reads, ENTRY_READ),
            (end.writes, ENTRY_WRITE),
            (end.is_nonblocking, ENTRY_NONBLOCK),
        ];
        let flags = flags.iter().filter(|(is_set, _)| *is_set).fold(0, |sum, (_, flag)| sum | flag);
        let place = usize::try_from(fd).ok().and_then(|fd| self.mirror.entries.get(fd));
        if let Some(place) = place {
            place.store(end.stream | flags, SeqCst);
        }
    }

    fn forget(&self, fd: usize) {
        if let Some(place) = self.mirror.entries.get(fd) {
            place.store(0, SeqCst);
        }
    }
}

impl LentStream for Lent {
    fn id(&self) -> u64 {
        self.lease << LEASE_SHIFT | self.index as u64
    }

    fn take_back(&self) -> TakenBack {
        // In this order: what is read until the second has been written before the first.
        let written = self.ring.writer.word.fetch_or(TAKEN_BACK, SeqCst) & POSITION;
        let read = self.ring.reader.word.fetch_or(TAKEN_BACK, SeqCst) & POSITION;
        let len = written.wrapping_sub(read) & POSITION;
        let len = usize::try_from(len).ok().filter(|len| *len <= RING_LEN).unwrap_or(0);
        let start = usize::try_from(read).unwrap_or(0);
        let n_calls = |calls: &std::sync::atomic::AtomicU32| calls.load(Relaxed);
        TakenBack {
            data: copy(&self.ring, start, len),
            n_calls: n_calls(&self.ring.reader.n_calls)
                .saturating_add(n_calls(&self.ring.writer.n_calls)),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.ring.writer.word.fetch_or(TAKEN_BACK, SeqCst);
        self.ring.reader.word.fetch_or(TAKEN_BACK, SeqCst);
        if let Some(place) = lock(&self.owner.places).get_mut(self.index) {
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
    use sentry_sysmsg::ring::{N_RINGS, RING_LEN, TAKEN_BACK};

    use super::LentStreams;
    use crate::Streams;
    use crate::systrap::region::{Mapping, memory_file};

    fn streams() -> Arc<LentStreams> {
        let region = Arc::new(memory_file(c"test", layout::REGION_LEN).unwrap());
        Arc::new(LentStreams::new(&region).unwrap())
    }

    #[test]
    fn stream_comes_back_with_what_lies_across_its_end() {
        let streams = streams();
        let lent = Arc::clone(&streams).lend().unwrap();
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
        let lent = Arc::clone(&streams).lend().unwrap();
        let ring = Mapping::of_stream(&streams.region, 0).unwrap();
        ring.reader.word.store(u64::MAX, SeqCst);
        ring.writer.word.store(RING_LEN as u64, SeqCst);
        assert!(lent.take_back().data.is_empty());
        ring.reader.word.store(0, SeqCst);
        assert_eq!(lent.take_back().data.len(), RING_LEN);
    }

    #[test]
    fn place_with_a_held_lock_is_not_lent_again() {
        let streams = streams();
        let first = Arc::clone(&streams).lend().unwrap();
        let ring = Mapping::of_stream(&streams.region, 0).unwrap();
        ring.writer.lock.store(1, SeqCst);
        drop(first);
        let others: Vec<_> = (1..N_RINGS).map(|_| Arc::clone(&streams).lend()).collect();
        assert!(others.iter().all(Option::is_some));
        assert!(Arc::clone(&streams).lend().is_none());
        ring.writer.lock.store(0, SeqCst);
        assert!(streams.lend().is_some());
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
