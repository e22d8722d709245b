//! The bytes of a unix stream, and the one that is urgent (`MSG_OOB`).
//!
//! A byte that was sent as urgent lies between the others. It is urgent until the next one is sent,
//! or until it is received: by itself, or as part of the stream where it is next. Received by itself it
//! leaves a gap, and reads stop at gaps as they stop at the urgent byte.

use std::collections::VecDeque;

use syscalls::{Errno, SysResult};

use super::inbox::Received;
use crate::net::control::{Control, Files, Sender};
use crate::vfs::ring::Ring;
use crate::vfs::{IoSink, IoSource, LimitedSink, SkippingSink, SliceSource};

/// A place in a stream from which on other control data holds.
struct Mark {
    at: u64,
    sender: Option<Sender>,
    files: Files,
}

/// How a stream is to be read.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// `MSG_PEEK`
    pub(super) peek: bool,
    /// Where a look begins.
    pub(super) skip: usize,
    /// Whether what is received at once comes from one sender.
    pub(super) tells_senders: bool,
    /// `SO_OOBINLINE`
    pub(super) is_inline: bool,
}

/// A stream of bytes.
pub(super) struct Stream {
    ring: Ring,
    marks: VecDeque<Mark>,
    n_written: u64,
    n_read: u64,
    /// Who wrote last, and whether files went with it.
    last: (Option<Sender>, bool),
    /// Who wrote what is read next.
    current: Option<Sender>,
    /// The place of the urgent byte.
    urgent: Option<u64>,
    /// The places of bytes that have been received as urgent ones, ascending; they take room until they
    /// are passed.
    gaps: VecDeque<u64>,
    /// Files that nobody can receive any more, to be closed without a lock.
    lost: Vec<Files>,
}

impl Stream {
    /// Creates an empty stream.
    pub(super) fn new() -> Self {
        Self {
            ring: Ring::new(0),
            marks: VecDeque::new(),
            n_written: 0,
            n_read: 0,
            last: (None, false),
            current: None,
            urgent: None,
            gaps: VecDeque::new(),
            lost: Vec::new(),
        }
    }

    /// Returns whether there is nothing, not even a gap.
    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Returns whether there is nothing, and nobody is told who sends.
    pub(super) fn is_plain(&self) -> bool {
        let is_empty = self.ring.is_empty() && self.marks.is_empty() && self.lost.is_empty();
        is_empty
            && self.gaps.is_empty()
            && self.urgent.is_none()
            && self.current.is_none()
            && self.last == (None, false)
    }

    /// Adds what has been sent by nobody in particular.
    pub(super) fn put_back(&mut self, data: &[u8]) {
        let needed = self.ring.len() + data.len();
        self.ring.set_capacity(self.ring.capacity().max(needed));
        // From memory all of it comes.
        let n = self.ring.write(&mut SliceSource::new(data), data.len(), false).unwrap_or(0);
        self.n_written += n as u64;
    }

    /// Returns how many bytes take room.
    pub(super) fn n_taken(&self) -> usize {
        self.ring.len()
    }

    /// Returns how many bytes can be received in one way or another.
    pub(super) fn n_bytes(&self) -> usize {
        self.ring.len().saturating_sub(self.gaps.len())
    }

    /// Returns whether there is an urgent byte.
    pub(super) fn has_urgent(&self) -> bool {
        self.urgent.is_some()
    }

    /// Returns how many gaps are next.
    fn n_gaps_next(&self) -> usize {
        let next = self.gaps.iter().zip(self.n_read..).take_while(|(gap, at)| **gap == *at);
        next.count()
    }

    /// Returns whether something else than gaps is there.
    pub(super) fn has_unread(&self) -> bool {
        self.ring.len() > self.n_gaps_next()
    }

    /// Returns whether the urgent byte, or the place of the last one, is next.
    pub(super) fn is_at_mark(&self) -> bool {
        let n_gaps = self.n_gaps_next();
        match self.urgent {
            Some(at) => at == self.n_read + n_gaps as u64,
            None => n_gaps > 0,
        }
    }

    /// Calls `visit` with the files of every piece.
    pub(super) fn visit_files(&self, visit: &mut dyn FnMut(&Files)) {
        self.marks.iter().for_each(|mark| visit(&mark.files));
    }

    /// Returns the files that nobody can receive any more.
    pub(super) fn take_lost(&mut self) -> Vec<Files> {
        std::mem::take(&mut self.lost)
    }

    /// Adds data, of which the last byte may be urgent: where all of it finds room.
    pub(super) fn send(
        &mut self,
        src: &mut dyn IoSource,
        limit: usize,
        control: &Control,
        is_urgent: bool,
    ) -> SysResult<usize> {
        let total = src.remaining();
        if total == 0 {
            return Ok(0);
        }
        self.ring.set_capacity(limit.max(self.ring.len()));
        let room = self.ring.room();
        if room < total.min(limit / 4).max(1) {
            return Err(Errno::EAGAIN);
        }
        let at = self.n_written;
        let n = self.ring.write(src, room.min(total), false)?;
        if n == 0 {
            return Ok(0);
        }
        self.n_written += n as u64;
        let has_files = !control.files.is_empty();
        if has_files || self.last.1 || self.last.0 != control.sender {
            let files = control.files.clone();
            self.marks.push_back(Mark { at, sender: control.sender.clone(), files });
            self.last = (control.sender.clone(), has_files);
        }
        if is_urgent && n == total {
            self.urgent = Some(self.n_written - 1);
        }
        Ok(n)
    }

    /// Reads up to the end of the first piece that files came with; where senders are told, what one
    /// sender has written only.
    ///
    /// # Errors
    /// `EAGAIN` where nothing is there, `EFAULT`.
    pub(super) fn recv(&mut self, dst: &mut dyn IoSink, how: How) -> SysResult<Received> {
        if self.urgent.is_none() && self.gaps.is_empty() {
            return self.recv_plain(dst, how, (how.skip, usize::MAX));
        }
        self.recv_around(dst, how)
    }

    /// Receives the urgent byte by itself.
    ///
    /// # Errors
    /// `EINVAL` without one, and where it is part of the stream; `EFAULT`.
    pub(super) fn recv_urgent(&mut self, dst: &mut dyn IoSink, how: How) -> SysResult<usize> {
        let at = self.urgent.filter(|_| !how.is_inline).ok_or(Errno::EINVAL)?;
        let skip = usize::try_from(at - self.n_read).map_err(|_| Errno::EINVAL)?;
        let mut byte = [0];
        self.ring.copy_out(skip, &mut byte);
        if !how.peek {
            // It is gone even where it cannot be stored.
            self.leave_gap(at);
        }
        // Where there is no room for it, it counts as received all the same.
        if dst.remaining() > 0 && dst.put(&byte)? == 0 { Err(Errno::EFAULT) } else { Ok(1) }
    }

    /// Reads where there are gaps, or an urgent byte, at which a read ends that has found something.
    fn recv_around(&mut self, dst: &mut dyn IoSink, how: How) -> SysResult<Received> {
        let mut skip = how.skip;
        // A look that begins elsewhere than at the start goes by bytes, and these are all alike.
        let mut is_on_its_way = false;
        let mut ahead = 0;
        let mut so_far: Option<Received> = None;
        loop {
            let at = self.n_read + ahead as u64;
            let has_some = so_far.as_ref().is_some_and(|so_far| so_far.n > 0);
            if so_far.is_some() && dst.remaining() == 0 {
                break;
            }
            let is_gap = self.gaps.binary_search(&at).is_ok();
            let is_urgent = self.urgent == Some(at) && !is_on_its_way;
            if has_some && (is_urgent || (is_gap && self.urgent.is_none())) {
                break;
            }
            if is_urgent && !how.peek {
                self.urgent = None;
            }
            if is_gap || (is_urgent && !how.is_inline) {
                if how.peek {
                    ahead += 1;
                } else {
                    self.pass_byte();
                }
                continue;
            }
            let n_run = usize::try_from(self.end_of_run(at) - at).unwrap_or(usize::MAX);
            if n_run == 0 {
                break;
            }
            if skip >= n_run {
                skip -= n_run;
                ahead += n_run;
                is_on_its_way = true;
                continue;
            }
            let other_sender = |so_far: &Received| {
                how.tells_senders && self.sender_at(at) != so_far.control.sender
            };
            if so_far.as_ref().is_some_and(other_sender) {
                break;
            }
            let received = match self.recv_plain(dst, how, (ahead + skip, ahead + n_run)) {
                Ok(received) => received,
                Err(errno) if so_far.is_none() => return Err(errno),
                Err(_) => break,
            };
            let is_cut = received.n < n_run - skip || !received.control.files.is_empty();
            so_far = Some(match so_far {
                None => received,
                Some(first) => Received {
                    n: first.n + received.n,
                    full: first.n + received.n,
                    control: Control { sender: first.control.sender, ..received.control },
                    from: None,
                },
            });
            if is_cut {
                break;
            }
            if how.peek {
                ahead += n_run;
            }
            skip = 0;
            is_on_its_way = false;
        }
        so_far.ok_or(Errno::EAGAIN)
    }

    /// Returns where what begins at a place comes to a gap, the urgent byte, or its end.
    fn end_of_run(&self, at: u64) -> u64 {
        let gap = self.gaps.get(self.gaps.partition_point(|gap| *gap <= at));
        let urgent = self.urgent.filter(|urgent| *urgent > at);
        gap.into_iter().copied().chain(urgent).fold(self.n_written.max(at), u64::min)
    }

    /// Returns who has written the byte at a place.
    fn sender_at(&self, at: u64) -> Option<Sender> {
        let n_begun = self.marks.partition_point(|mark| mark.at <= at);
        let mark = n_begun.checked_sub(1).and_then(|last| self.marks.get(last));
        mark.map_or(&self.current, |mark| &mark.sender).clone()
    }

    /// Leaves a gap where the urgent byte was. The last of two gaps at the end counts for both: whoever
    /// receives nothing but urgent bytes can go on for ever.
    fn leave_gap(&mut self, at: u64) {
        self.urgent = None;
        let is_second = self.gaps.back().is_some_and(|gap| *gap + 1 == at);
        if !is_second || at + 1 != self.n_written {
            self.gaps.push_back(at);
            return;
        }
        self.ring.truncate(self.ring.len().saturating_sub(1));
        self.n_written = at;
        if let Some(mark) = self.marks.pop_back_if(|mark| mark.at == at) {
            self.lost.push(mark.files);
        }
        // What is written next may be somebody else's than what is now the end.
        self.last = (None, true);
    }

    /// Takes out the next byte, which nobody receives any more as part of the stream.
    fn pass_byte(&mut self) {
        if self.gaps.front() == Some(&self.n_read) {
            self.gaps.pop_front();
        }
        if let Some(mark) = self.marks.pop_front_if(|mark| mark.at == self.n_read) {
            self.current = mark.sender;
            self.lost.push(mark.files);
        }
        self.ring.consume(1);
        self.n_read += 1;
    }

    /// Reads what is between two places, counted from the next byte, as if all of it were alike. What is
    /// taken begins with the next byte.
    fn recv_plain(
        &mut self,
        dst: &mut dyn IoSink,
        how: How,
        (start, end): (usize, usize),
    ) -> SysResult<Received> {
        if start >= self.ring.len() {
            return Err(Errno::EAGAIN);
        }
        let place = self.n_read + start as u64;
        let n_begun = self.marks.partition_point(|mark| mark.at <= place);
        let here = n_begun.checked_sub(1).and_then(|last| self.marks.get(last));
        let sender = here.map_or(&self.current, |mark| &mark.sender).clone();
        let mut has_files = here.is_some_and(|mark| !mark.files.is_empty());
        let mut left = end;
        for mark in self.marks.range(n_begun..) {
            if has_files || (how.tells_senders && mark.sender != sender) {
                left = usize::try_from(mark.at - self.n_read).unwrap_or(usize::MAX).min(end);
                break;
            }
            has_files = !mark.files.is_empty();
        }
        let mut dst = SkippingSink::new(dst, start);
        let (n, _) = self.ring.peek(&mut LimitedSink::new(&mut dst, left))?;
        let end = self.n_read + n as u64;
        let n_passed = self.marks.partition_point(|mark| mark.at < end);
        // Who asks for no bytes gets the files that come with the next ones.
        let n_told = if n == start { n_begun } else { n_passed };
        let with_files = |mark: &&Mark| !mark.files.is_empty();
        let told = self.marks.range(n_begun.saturating_sub(1)..n_told).find(with_files);
        let files = told.map(|mark| mark.files.clone()).unwrap_or_default();
        if !how.peek {
            self.ring.consume(n);
            self.n_read = end;
            if n == 0
                && let Some(mark) = self.marks.front_mut().filter(|mark| mark.at == end)
            {
                mark.files = Default::default();
            }
            if let Some(last) = self.marks.drain(..n_passed).next_back() {
                self.current = last.sender;
            }
        }
        let n = n.saturating_sub(start);
        Ok(Received { n, full: n, control: Control { sender, files }, from: None })
    }
}
