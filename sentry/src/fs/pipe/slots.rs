//! The content of a pipe as Linux divides it.
//!
//! A pipe of Linux is a number of slots, each of which refers to a part of a page. Whether a write
//! finds room, and how much, depends on the slots and not on the bytes: a slot that holds one byte
//! is taken. Here the bytes lie side by side in a [`Ring`], and a [`Slot`] says how many of them
//! share a page.

use std::collections::VecDeque;

use syscalls::{Errno, SysResult};

use crate::vfs::ring::{PIPE_BUF, Ring};
use crate::vfs::{IoSink, IoSource, SliceSource};

/// How a slot came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// By a write: the next one may go on in its page.
    Merging,
    /// By a write to an end with `O_DIRECT`: it is read by itself, and its rest is lost.
    Packet,
    /// By `splice(2)` and its relatives.
    Fixed,
}

/// What one slot holds.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Where in its page the bytes begin.
    offset: usize,
    len: usize,
    kind: Kind,
}

impl Slot {
    /// Returns how many more bytes its page takes.
    fn room(&self) -> usize {
        if self.kind == Kind::Merging { PIPE_BUF - self.offset - self.len } else { 0 }
    }
}

/// Bytes on their way.
pub(super) struct Slots {
    /// The bytes of all slots.
    ring: Ring,
    used: VecDeque<Slot>,
    /// How many bytes at the end of the ring belong to no slot yet.
    n_loose: usize,
    n_slots: usize,
}

/// Passes on at most so many bytes.
struct Limited<'a> {
    dst: &'a mut dyn IoSink,
    left: usize,
}

impl IoSink for Limited<'_> {
    fn remaining(&self) -> usize {
        self.left
    }

    fn put(&mut self, data: &[u8]) -> SysResult<usize> {
        let n = self.dst.put(data.get(..self.left).unwrap_or(data))?;
        self.left -= n;
        Ok(n)
    }
}

impl Slots {
    /// Creates an empty pipe for up to `capacity` bytes.
    pub(super) fn new(capacity: usize) -> Self {
        let n_slots = capacity / PIPE_BUF;
        Self { ring: Ring::new(capacity), used: VecDeque::new(), n_loose: 0, n_slots }
    }

    /// Returns whether there are no bytes.
    pub(super) fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    /// Returns whether no slot is free, which is when the pipe does not count as writable.
    pub(super) fn is_full(&self) -> bool {
        self.used.len() >= self.n_slots
    }

    /// Returns how many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Returns how many bytes there can be.
    pub(super) fn capacity(&self) -> usize {
        self.n_slots * PIPE_BUF
    }

    /// Changes the capacity; returns false where it has fewer slots than are taken.
    pub(super) fn set_capacity(&mut self, capacity: usize) -> bool {
        let n_slots = capacity / PIPE_BUF;
        if self.used.len() > n_slots || !self.ring.set_capacity(capacity) {
            return false;
        }
        self.n_slots = n_slots;
        true
    }

    /// Returns how many bytes fit into the free slots.
    fn room(&self) -> usize {
        self.n_slots.saturating_sub(self.used.len()) * PIPE_BUF
    }

    /// Adds what there is room for of what a source has. The part of it that fills no page goes
    /// first, into the page of the last slot if it fits there: so up to [`PIPE_BUF`] bytes stay
    /// together.
    ///
    /// # Errors
    /// `EAGAIN` where nothing finds room, `EFAULT` where nothing could be copied.
    pub(super) fn write(&mut self, src: &mut dyn IoSource, kind: Kind) -> SysResult<usize> {
        let total = src.remaining();
        let odd = total % PIPE_BUF;
        let mut done = 0;
        if odd > 0
            && let Some(last) = self.used.back_mut().filter(|last| odd <= last.room())
        {
            let before = self.ring.len();
            if self.ring.write(src, odd, false) != Ok(odd) {
                self.ring.truncate(before);
                return Err(Errno::EFAULT);
            }
            last.len += odd;
            done = odd;
        }
        let wanted = (total - done).min(self.room());
        if wanted == 0 {
            return if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) };
        }
        let before = self.ring.len();
        let mut got = self.ring.write(src, wanted, false).unwrap_or(0);
        if got < wanted {
            // Linux takes whole pages.
            got -= got % PIPE_BUF;
            self.ring.truncate(before + got);
        }
        self.add(got, 0, kind);
        done += got;
        if done == 0 { Err(Errno::EFAULT) } else { Ok(done) }
    }

    /// Divides `n` bytes that are in the ring already; the first page's begin at `offset`.
    fn add(&mut self, n: usize, offset: usize, kind: Kind) {
        let mut left = n;
        let mut offset = offset;
        while left > 0 {
            let len = left.min(PIPE_BUF - offset);
            self.used.push_back(Slot { offset, len, kind });
            left -= len;
            offset = 0;
        }
    }

    /// Takes bytes out: what `dst` takes, up to the end of a packet. Bytes of one page are taken
    /// together or not at all.
    ///
    /// # Errors
    /// `EFAULT` where nothing could be copied.
    pub(super) fn read(&mut self, dst: &mut dyn IoSink) -> SysResult<usize> {
        let mut left = dst.remaining();
        let mut wanted = 0;
        for slot in &self.used {
            let step = slot.len.min(left);
            wanted += step;
            left -= step;
            if left == 0 || slot.kind == Kind::Packet {
                break;
            }
        }
        let copied = self.ring.peek(&mut Limited { dst, left: wanted }).map_or(0, |(n, _)| n);
        let mut done = 0;
        while done < wanted
            && let Some(slot) = self.used.front_mut()
        {
            let step = slot.len.min(wanted - done);
            if done + step > copied {
                return if done == 0 { Err(Errno::EFAULT) } else { Ok(done) };
            }
            done += step;
            let taken = if slot.kind == Kind::Packet { slot.len } else { step };
            self.consume(taken);
        }
        Ok(done)
    }

    /// Takes the first `n` bytes, whatever they belong to.
    pub(super) fn consume(&mut self, n: usize) {
        self.ring.consume(n);
        let mut left = n;
        while left > 0
            && let Some(slot) = self.used.front_mut()
        {
            let step = left.min(slot.len);
            slot.offset += step;
            slot.len -= step;
            left -= step;
            if slot.len == 0 {
                self.used.pop_front();
            }
        }
    }

    /// Copies bytes from the `skip`th on without taking them; returns how many.
    pub(super) fn copy_out(&self, skip: usize, dst: &mut [u8]) -> usize {
        self.ring.copy_out(skip, dst)
    }

    /// Returns how many bytes of a file, from `offset` on, find room where each of its pages
    /// takes a slot.
    pub(super) fn room_for_pages(&self, offset: u64) -> usize {
        self.room().saturating_sub(in_page(offset))
    }

    /// Appends bytes for which there is room, to be divided by [`Slots::add_pages`].
    pub(super) fn append(&mut self, data: &[u8]) -> usize {
        let n = self.ring.write(&mut SliceSource::new(data), data.len(), false).unwrap_or(0);
        self.n_loose += n;
        n
    }

    /// Gives the bytes that have been appended to slots, one for each page of the file whose
    /// bytes from `offset` on they are; returns how many there are.
    pub(super) fn add_pages(&mut self, offset: u64) -> usize {
        let n = std::mem::take(&mut self.n_loose);
        self.add(n, in_page(offset), Kind::Fixed);
        n
    }

    /// Moves (or, with `keep`, copies) up to `len` bytes slot by slot; returns how many.
    pub(super) fn move_to(&mut self, out: &mut Self, len: usize, keep: bool) -> usize {
        let mut done = 0;
        let mut index = 0;
        while done < len
            && !out.is_full()
            && let Some(slot) = self.used.get(index).copied()
        {
            let n = slot.len.min(len - done);
            let mut page = [0; PIPE_BUF];
            let data = page.get_mut(..n).unwrap_or_default();
            self.copy_out(if keep { done } else { 0 }, data);
            out.append(data);
            out.n_loose = 0;
            // A page that two slots share takes no more bytes.
            let is_moved = n == slot.len && !keep;
            let kind =
                if slot.kind == Kind::Merging && !is_moved { Kind::Fixed } else { slot.kind };
            out.used.push_back(Slot { len: n, kind, ..slot });
            done += n;
            if keep {
                index += 1;
            } else {
                self.consume(n);
            }
        }
        done
    }
}

/// Returns where in its page an offset lies.
fn in_page(offset: u64) -> usize {
    usize::try_from(offset % PIPE_BUF as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Kind, Slots};
    use crate::vfs::ring::PIPE_BUF;
    use crate::vfs::{SliceSource, VecSink};
    use syscalls::{Errno, SysResult};

    fn write(slots: &mut Slots, data: &[u8], kind: Kind) -> SysResult<usize> {
        slots.write(&mut SliceSource::new(data), kind)
    }

    fn read(slots: &mut Slots, n: usize) -> Vec<u8> {
        let mut sink = VecSink::new(n);
        slots.read(&mut sink).unwrap();
        sink.data
    }

    #[test]
    fn short_write_goes_on_in_the_last_page() {
        let mut slots = Slots::new(PIPE_BUF);
        assert_eq!(write(&mut slots, &[1; 4000], Kind::Merging), Ok(4000));
        assert!(slots.is_full());
        assert_eq!(write(&mut slots, &[2; 96], Kind::Merging), Ok(96));
        assert_eq!(write(&mut slots, &[3; 1], Kind::Merging), Err(Errno::EAGAIN));
        assert_eq!(read(&mut slots, 5000).len(), PIPE_BUF);
    }

    #[test]
    fn room_at_the_start_of_a_page_is_lost() {
        let mut slots = Slots::new(PIPE_BUF);
        write(&mut slots, &[1; PIPE_BUF], Kind::Merging).unwrap();
        assert_eq!(read(&mut slots, 4000).len(), 4000);
        assert!(slots.is_full());
        assert_eq!(write(&mut slots, &[2; 10], Kind::Merging), Err(Errno::EAGAIN));
        assert_eq!(slots.len(), 96);
    }

    #[test]
    fn odd_part_of_a_long_write_fills_the_last_page_first() {
        let mut slots = Slots::new(2 * PIPE_BUF);
        write(&mut slots, b"a", Kind::Merging).unwrap();
        assert_eq!(write(&mut slots, &[7; PIPE_BUF + 2], Kind::Merging), Ok(PIPE_BUF + 2));
        assert!(slots.is_full());
        assert_eq!(slots.len(), PIPE_BUF + 3);
    }

    #[test]
    fn read_of_packet_loses_its_rest() {
        let mut slots = Slots::new(64 << 10);
        write(&mut slots, b"stream", Kind::Merging).unwrap();
        write(&mut slots, &[1; PIPE_BUF], Kind::Packet).unwrap();
        write(&mut slots, &[2; PIPE_BUF], Kind::Packet).unwrap();
        assert_eq!(read(&mut slots, 3), b"str");
        assert_eq!(read(&mut slots, 10), b"eam\x01\x01\x01\x01\x01\x01\x01");
        assert_eq!(read(&mut slots, 2), [2; 2]);
        assert!(slots.is_empty());
    }

    #[test]
    fn capacity_cannot_fall_below_the_slots_in_use() {
        let mut slots = Slots::new(64 << 10);
        write(&mut slots, &[1; 5000], Kind::Merging).unwrap();
        assert!(!slots.set_capacity(4096));
        assert!(slots.set_capacity(8192));
        assert_eq!(read(&mut slots, 5000), [1; 5000]);
    }

    #[test]
    fn moved_slot_still_takes_bytes_and_a_part_does_not() {
        let (mut from, mut to) = (Slots::new(64 << 10), Slots::new(PIPE_BUF));
        write(&mut from, b"abc", Kind::Merging).unwrap();
        assert_eq!(from.move_to(&mut to, 3, true), 3);
        assert_eq!(write(&mut to, b"x", Kind::Merging), Err(Errno::EAGAIN));
        assert_eq!(read(&mut to, 10), b"abc");
        assert_eq!(from.move_to(&mut to, 10, false), 3);
        assert_eq!(write(&mut to, b"x", Kind::Merging), Ok(1));
        assert_eq!(read(&mut to, 10), b"abcx");
        assert!(from.is_empty());
    }
}
