//! The bytes in a pipe or a stream: a ring that is allocated as far as it has been needed.

use std::collections::VecDeque;

use syscalls::SysResult;

use super::io::{IoSink, IoSource};

/// Writes of at most this many bytes are not mixed with others: `PIPE_BUF`. Also the unit of a
/// pipe's capacity.
pub const PIPE_BUF: usize = 4096;

/// A run of bytes that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    len: usize,
    is_packet: bool,
}

/// Bytes on their way.
pub struct Ring {
    /// As many bytes as have been needed at once so far.
    bytes: Vec<u8>,
    head: usize,
    len: usize,
    capacity: usize,
    /// What the bytes consist of. Empty: of no packets at all.
    runs: VecDeque<Run>,
}

impl Ring {
    /// Creates an empty ring for up to `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self { bytes: Vec::new(), head: 0, len: 0, capacity, runs: VecDeque::new() }
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns how many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns how many bytes there can be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns how many bytes can be written. Each packet takes a multiple of [`PIPE_BUF`].
    pub fn room(&self) -> usize {
        let used = if self.runs.is_empty() {
            self.len
        } else {
            self.runs.iter().map(|run| run.len.next_multiple_of(PIPE_BUF)).sum()
        };
        self.capacity.saturating_sub(used)
    }

    /// Returns whether the pipe counts as writable: a write of [`PIPE_BUF`] bytes would not wait.
    pub fn is_writable(&self) -> bool {
        self.room() >= PIPE_BUF
    }

    /// Changes the capacity; returns false where the content does not fit.
    pub fn set_capacity(&mut self, capacity: usize) -> bool {
        let used = self.capacity - self.room();
        if used > capacity {
            return false;
        }
        if capacity < self.bytes.len() {
            self.reallocate(capacity);
        }
        self.capacity = capacity;
        true
    }

    fn reallocate(&mut self, size: usize) {
        let mut bytes = vec![0; size];
        let (first, second) = self.filled(0, self.len);
        let n = first.len();
        if let Some(to) = bytes.get_mut(..n) {
            to.copy_from_slice(first);
        }
        if let Some(to) = bytes.get_mut(n..n + second.len()) {
            to.copy_from_slice(second);
        }
        self.bytes = bytes;
        self.head = 0;
    }

    /// Returns the `n` bytes from the `skip`th on, in two pieces.
    fn filled(&self, skip: usize, n: usize) -> (&[u8], &[u8]) {
        let size = self.bytes.len();
        let mut start = self.head + skip;
        if start >= size {
            start -= size;
        }
        let first = n.min(size - start);
        let tail = self.bytes.get(start..start + first).unwrap_or_default();
        let wrapped = self.bytes.get(..n - first).unwrap_or_default();
        (tail, wrapped)
    }

    /// Copies bytes out without taking them: up to what `dst` takes, to the end of a packet.
    /// Returns how many were copied and how many of the ring's they stand for, which is more where
    /// the rest of a packet is lost.
    ///
    /// # Errors
    /// `EFAULT` where nothing could be copied.
    pub fn peek(&self, dst: &mut dyn IoSink) -> SysResult<(usize, usize)> {
        let mut copied = 0;
        let mut runs = self.runs.iter().copied();
        while copied < self.len && dst.remaining() > 0 {
            let run = runs.next().unwrap_or(Run { len: self.len - copied, is_packet: false });
            let wanted = run.len.min(dst.remaining());
            let (first, second) = self.filled(copied, wanted);
            let mut n = 0;
            for piece in [first, second] {
                if piece.is_empty() {
                    continue;
                }
                match dst.put(piece) {
                    Ok(taken) => {
                        n += taken;
                        if taken < piece.len() {
                            break;
                        }
                    }
                    Err(errno) if copied + n == 0 => return Err(errno),
                    Err(_) => break,
                }
            }
            copied += n;
            if run.is_packet {
                return Ok((copied, copied - n + run.len));
            }
            if n < run.len {
                break;
            }
        }
        Ok((copied, copied))
    }

    /// Copies bytes from the `skip`th on without taking them; returns how many.
    pub fn copy_out(&self, skip: usize, dst: &mut [u8]) -> usize {
        let n = dst.len().min(self.len.saturating_sub(skip));
        if n == 0 {
            return 0;
        }
        let (first, second) = self.filled(skip, n);
        if let Some(to) = dst.get_mut(..first.len()) {
            to.copy_from_slice(first);
        }
        if let Some(to) = dst.get_mut(first.len()..n) {
            to.copy_from_slice(second);
        }
        n
    }

    /// Forgets all but the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Takes the first `n` bytes.
    pub fn consume(&mut self, n: usize) {
        let n = n.min(self.len);
        self.len -= n;
        if self.len == 0 {
            self.head = 0;
            self.runs.clear();
            return;
        }
        self.head += n;
        if self.head >= self.bytes.len() {
            self.head -= self.bytes.len();
        }
        let mut left = n;
        while left > 0
            && let Some(run) = self.runs.front_mut()
        {
            let step = left.min(run.len);
            run.len -= step;
            left -= step;
            if run.len == 0 {
                self.runs.pop_front();
            }
        }
    }

    /// Takes bytes out.
    ///
    /// # Errors
    /// `EFAULT` where nothing could be copied.
    pub fn read(&mut self, dst: &mut dyn IoSink) -> SysResult<usize> {
        let (copied, taken) = self.peek(dst)?;
        self.consume(taken);
        Ok(copied)
    }

    /// Adds `n` bytes, for which there is room; fewer where the source ends or faults.
    ///
    /// # Errors
    /// `EFAULT` where nothing could be copied.
    pub fn write(&mut self, src: &mut dyn IoSource, n: usize, is_packet: bool) -> SysResult<usize> {
        self.reserve(n);
        let size = self.bytes.len();
        let mut at = self.head + self.len;
        if at >= size {
            at -= size;
        }
        let first = n.min(size - at);
        let mut done = 0;
        for range in [at..at + first, 0..n - first] {
            let Some(piece) = self.bytes.get_mut(range).filter(|piece| !piece.is_empty()) else {
                continue;
            };
            let wanted = piece.len();
            match src.get(piece) {
                Ok(got) => {
                    done += got;
                    if got < wanted {
                        break;
                    }
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        self.count(done, is_packet);
        Ok(done)
    }

    /// Counts `n` bytes that have been added.
    fn count(&mut self, n: usize, is_packet: bool) {
        if n == 0 {
            return;
        }
        if is_packet || !self.runs.is_empty() {
            if self.runs.is_empty() && self.len > 0 {
                self.runs.push_back(Run { len: self.len, is_packet: false });
            }
            match self.runs.back_mut() {
                Some(last) if !is_packet && !last.is_packet => last.len += n,
                _ => self.runs.push_back(Run { len: n, is_packet }),
            }
        }
        self.len += n;
    }

    /// Makes sure that `n` more bytes have a place.
    fn reserve(&mut self, n: usize) {
        let needed = self.len + n;
        if needed > self.bytes.len() {
            self.reallocate(
                needed.max(PIPE_BUF).next_power_of_two().min(self.capacity.max(needed)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PIPE_BUF, Ring};
    use crate::vfs::{SliceSource, VecSink};

    fn write(ring: &mut Ring, data: &[u8], is_packet: bool) -> usize {
        ring.write(&mut SliceSource::new(data), data.len(), is_packet).unwrap()
    }

    fn read(ring: &mut Ring, n: usize) -> Vec<u8> {
        let mut sink = VecSink::new(n);
        ring.read(&mut sink).unwrap();
        sink.data
    }

    #[test]
    fn bytes_come_out_in_order_across_the_end_of_the_ring() {
        let mut ring = Ring::new(64 << 10);
        let mut next_in = 0u32;
        let mut next_out = 0u32;
        for round in 0..200_usize {
            let n = (round * 37) % 3000 + 1;
            let data: Vec<u8> = (0..n)
                .map(|_| {
                    next_in += 1;
                    next_in.to_le_bytes()[0]
                })
                .collect();
            if ring.room() >= n {
                write(&mut ring, &data, false);
            } else {
                next_in -= u32::try_from(n).unwrap();
            }
            for byte in read(&mut ring, (round * 53) % 2500) {
                next_out += 1;
                assert_eq!(byte, next_out.to_le_bytes()[0]);
            }
        }
    }

    #[test]
    fn read_of_packet_loses_its_rest() {
        let mut ring = Ring::new(64 << 10);
        write(&mut ring, b"stream", false);
        write(&mut ring, b"first", true);
        write(&mut ring, b"second", true);
        assert_eq!(read(&mut ring, 3), b"str");
        assert_eq!(read(&mut ring, 100), b"eamfirst");
        assert_eq!(read(&mut ring, 2), b"se");
        assert!(ring.is_empty());
    }

    #[test]
    fn packet_takes_a_whole_unit_of_the_capacity() {
        let mut ring = Ring::new(64 << 10);
        let n_before = ring.room();
        write(&mut ring, b"x", true);
        assert_eq!(ring.room(), n_before - PIPE_BUF);
    }

    #[test]
    fn capacity_cannot_fall_below_the_content() {
        let mut ring = Ring::new(64 << 10);
        write(&mut ring, &[1; 5000], false);
        assert!(!ring.set_capacity(4096));
        assert!(ring.set_capacity(8192));
        assert!(!ring.is_writable());
        assert_eq!(read(&mut ring, 5000), [1; 5000]);
        assert!(ring.is_writable());
    }

    #[test]
    fn peek_leaves_the_content() {
        let mut ring = Ring::new(64 << 10);
        write(&mut ring, b"abc", false);
        let mut sink = VecSink::new(2);
        assert_eq!(ring.peek(&mut sink).unwrap(), (2, 2));
        assert_eq!(read(&mut ring, 10), b"abc");
    }
}
