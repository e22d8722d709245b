//! What a unix socket has been sent and has not received: a stream of bytes, or messages.

use std::collections::VecDeque;
use std::sync::Weak;

use syscalls::{Errno, SysResult};

use super::UnixSocket;
use super::address::Name;
use crate::net::control::{Control, Files, Sender};
use crate::vfs::ring::Ring;
use crate::vfs::{IoSink, IoSource, LimitedSink, SkippingSink};

/// The most messages that wait in one socket: `net.unix.max_dgram_qlen` as systemd sets it.
const MAX_MESSAGES: usize = 512;

/// What is received at once.
pub(super) struct Received {
    /// How many bytes were stored.
    pub(super) n: usize,
    /// How long the message was; `n` for a stream.
    pub(super) full: usize,
    /// Files and credentials.
    pub(super) control: Control,
    /// Where it came from.
    pub(super) from: Option<Name>,
}

/// A place in a stream from which on other control data holds.
struct Mark {
    at: u64,
    sender: Option<Sender>,
    files: Files,
}

/// A stream of bytes.
struct Stream {
    ring: Ring,
    marks: VecDeque<Mark>,
    n_written: u64,
    n_read: u64,
    /// Who wrote last, and whether files went with it.
    last: (Option<Sender>, bool),
    /// Who wrote what is read next.
    current: Option<Sender>,
}

/// A message.
struct Message {
    data: Vec<u8>,
    control: Control,
    from: Option<Name>,
}

/// The messages of a socket.
#[derive(Default)]
struct Messages {
    queue: VecDeque<Message>,
    n_bytes: usize,
}

enum Content {
    Stream(Stream),
    Messages(Messages),
}

/// What a socket has been sent.
pub(super) struct Inbox {
    content: Content,
    /// Nothing more comes: the sender, or this side, has shut the direction down.
    pub(super) is_ended: bool,
    /// The owner is closed.
    pub(super) is_closed: bool,
    /// Senders that have found no room.
    blocked: Vec<Weak<UnixSocket>>,
}

impl Stream {
    fn send(
        &mut self,
        src: &mut dyn IoSource,
        limit: usize,
        control: &Control,
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
        Ok(n)
    }

    /// Reads up to the end of the first piece that files came with; where `tells_senders`, what one
    /// sender has written only.
    fn recv(
        &mut self,
        dst: &mut dyn IoSink,
        peek: bool,
        skip: usize,
        tells_senders: bool,
    ) -> SysResult<Received> {
        if skip >= self.ring.len() {
            return Err(Errno::EAGAIN);
        }
        let here = self.marks.front().filter(|mark| mark.at == self.n_read);
        let sender = here.map_or(&self.current, |mark| &mark.sender).clone();
        let mut has_files = here.is_some_and(|mark| !mark.files.is_empty());
        let mut left = usize::MAX;
        for mark in self.marks.iter().skip(usize::from(here.is_some())) {
            if has_files || (tells_senders && mark.sender != sender) {
                left = usize::try_from(mark.at - self.n_read).unwrap_or(usize::MAX);
                break;
            }
            has_files = !mark.files.is_empty();
        }
        let mut dst = SkippingSink::new(dst, skip);
        let (n, _) = self.ring.peek(&mut LimitedSink::new(&mut dst, left))?;
        let end = self.n_read + n as u64;
        let n_passed = self.marks.iter().take_while(|mark| mark.at < end).count();
        // Who asks for no bytes gets the files that come with the next ones.
        let n_told = if n == 0 { usize::from(here.is_some()) } else { n_passed };
        let with_files = |mark: &&Mark| !mark.files.is_empty();
        let told = self.marks.iter().take(n_told).find(with_files);
        let files = told.map(|mark| mark.files.clone()).unwrap_or_default();
        if !peek {
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
        let n = n.saturating_sub(skip);
        Ok(Received { n, full: n, control: Control { sender, files }, from: None })
    }
}

impl Messages {
    fn send(
        &mut self,
        src: &mut dyn IoSource,
        limit: usize,
        control: &Control,
        from: Option<Name>,
    ) -> SysResult<usize> {
        let total = src.remaining();
        if total > limit.saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        let is_full = self.n_bytes + total > limit && !self.queue.is_empty();
        if is_full || self.queue.len() >= MAX_MESSAGES {
            return Err(Errno::EAGAIN);
        }
        let mut data = vec![0; total];
        let mut done = 0;
        while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match src.get(rest)? {
                0 => return Err(Errno::EFAULT),
                n => done += n,
            }
        }
        self.n_bytes += total;
        self.queue.push_back(Message { data, control: control.clone(), from });
        Ok(total)
    }

    fn recv(&mut self, dst: &mut dyn IoSink, peek: bool, skip: usize) -> SysResult<Received> {
        let (mut index, mut skip) = (0, skip);
        while let Some(message) = self.queue.get(index)
            && skip > 0
            && skip >= message.data.len()
        {
            skip -= message.data.len();
            index += 1;
        }
        let message = self.queue.get(index).ok_or(Errno::EAGAIN)?;
        let full = message.data.len();
        let data = message.data.get(skip..).unwrap_or_default();
        let n = data.len().min(dst.remaining());
        if n > 0 && dst.put(data.get(..n).unwrap_or_default())? < n {
            return Err(Errno::EFAULT);
        }
        if peek {
            let (control, from) = (message.control.clone(), message.from.clone());
            return Ok(Received { n, full: data.len(), control, from });
        }
        let message = self.queue.pop_front().ok_or(Errno::EAGAIN)?;
        self.n_bytes -= full;
        Ok(Received { n, full, control: message.control, from: message.from })
    }
}

impl Inbox {
    /// Creates an empty inbox.
    pub(super) fn new(is_stream: bool) -> Self {
        let content = if is_stream {
            Content::Stream(Stream {
                ring: Ring::new(0),
                marks: VecDeque::new(),
                n_written: 0,
                n_read: 0,
                last: (None, false),
                current: None,
            })
        } else {
            Content::Messages(Messages::default())
        };
        Self { content, is_ended: false, is_closed: false, blocked: Vec::new() }
    }

    /// Returns whether there is nothing to receive.
    pub(super) fn is_empty(&self) -> bool {
        match &self.content {
            Content::Stream(stream) => stream.ring.is_empty(),
            Content::Messages(messages) => messages.queue.is_empty(),
        }
    }

    /// Returns how many bytes there are in all, and how many a receive could see.
    pub(super) fn n_bytes(&self) -> (usize, usize) {
        match &self.content {
            Content::Stream(stream) => (stream.ring.len(), stream.ring.len()),
            Content::Messages(messages) => {
                let first = messages.queue.front().map_or(0, |message| message.data.len());
                (messages.n_bytes, first)
            }
        }
    }

    /// Returns whether a sender with a buffer of `limit` bytes counts as able to send.
    pub(super) fn has_room(&self, limit: usize) -> bool {
        match &self.content {
            Content::Stream(stream) => stream.ring.len() <= limit / 4 * 3,
            Content::Messages(messages) => {
                messages.n_bytes <= limit / 4 * 3 && messages.queue.len() < MAX_MESSAGES
            }
        }
    }

    /// Adds data.
    ///
    /// # Errors
    /// `EAGAIN` without room; `EMSGSIZE`, `EFAULT`.
    pub(super) fn send(
        &mut self,
        src: &mut dyn IoSource,
        limit: usize,
        control: &Control,
        from: Option<Name>,
    ) -> SysResult<usize> {
        match &mut self.content {
            Content::Stream(stream) => stream.send(src, limit, control),
            Content::Messages(messages) => messages.send(src, limit, control, from),
        }
    }

    /// Takes data, or looks at what follows the first `skip` bytes.
    ///
    /// # Errors
    /// `EAGAIN`, `EFAULT`.
    pub(super) fn recv(
        &mut self,
        dst: &mut dyn IoSink,
        peek: bool,
        skip: usize,
        tells_senders: bool,
    ) -> SysResult<Received> {
        if self.is_empty() {
            return Err(Errno::EAGAIN);
        }
        match &mut self.content {
            Content::Stream(stream) => stream.recv(dst, peek, skip, tells_senders),
            Content::Messages(messages) => messages.recv(dst, peek, skip),
        }
    }

    /// Remembers a sender that waits for room.
    pub(super) fn block(&mut self, sender: &Weak<UnixSocket>) {
        if !self.blocked.iter().any(|known| known.ptr_eq(sender)) {
            self.blocked.retain(|known| known.strong_count() > 0);
            self.blocked.push(sender.clone());
        }
    }

    /// Returns the senders that can go on now.
    pub(super) fn unblock(&mut self) -> Vec<Weak<UnixSocket>> {
        std::mem::take(&mut self.blocked)
    }

    /// Returns whether some sender waits.
    pub(super) fn is_blocking(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Returns whether closing with what is here resets the connection: an empty message that is next
    /// does not count (`unix_release_sock` of Linux).
    pub(super) fn has_unread(&self) -> bool {
        match &self.content {
            Content::Stream(_) => !self.is_empty(),
            Content::Messages(messages) => match messages.queue.front() {
                Some(first) => !first.data.is_empty() || messages.queue.len() > 1,
                None => false,
            },
        }
    }

    /// Takes out everything, to be dropped without the lock.
    pub(super) fn take_all(&mut self) -> Self {
        let is_stream = matches!(self.content, Content::Stream(_));
        let content = std::mem::replace(&mut self.content, Self::new(is_stream).content);
        Self { content, is_ended: true, is_closed: true, blocked: self.unblock() }
    }

    /// Calls `visit` with the files of every message.
    pub(super) fn visit_files(&self, visit: &mut dyn FnMut(&Files)) {
        match &self.content {
            Content::Stream(stream) => stream.marks.iter().for_each(|mark| visit(&mark.files)),
            Content::Messages(messages) => {
                messages.queue.iter().for_each(|message| visit(&message.control.files));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use syscalls::Errno;

    use super::Inbox;
    use crate::net::control::Control;
    use crate::vfs::{SliceSource, VecSink};

    const LIMIT: usize = 65_536;

    fn send(inbox: &mut Inbox, data: &[u8]) -> Result<usize, Errno> {
        inbox.send(&mut SliceSource::new(data), LIMIT, &Control::default(), None)
    }

    fn recv(inbox: &mut Inbox, n: usize, peek: bool) -> (Vec<u8>, usize) {
        let mut sink = VecSink::new(n);
        let received = inbox.recv(&mut sink, peek, 0, true).unwrap();
        (sink.data, received.full)
    }

    #[test]
    fn stream_joins_what_was_sent() {
        let mut inbox = Inbox::new(true);
        assert_eq!(send(&mut inbox, b"abc"), Ok(3));
        assert_eq!(send(&mut inbox, b"def"), Ok(3));
        assert_eq!(recv(&mut inbox, 4, true).0, b"abcd");
        assert_eq!(recv(&mut inbox, 10, false).0, b"abcdef");
        assert!(inbox.is_empty());
    }

    #[test]
    fn message_is_received_whole_or_cut() {
        let mut inbox = Inbox::new(false);
        assert_eq!(send(&mut inbox, b"abc"), Ok(3));
        assert_eq!(send(&mut inbox, b""), Ok(0));
        assert_eq!(send(&mut inbox, b"def"), Ok(3));
        assert_eq!(recv(&mut inbox, 2, false), (b"ab".to_vec(), 3));
        assert_eq!(recv(&mut inbox, 2, false), (Vec::new(), 0));
        assert_eq!(recv(&mut inbox, 10, false), (b"def".to_vec(), 3));
    }

    #[test]
    fn look_begins_where_it_is_asked_to() {
        for is_stream in [true, false] {
            let mut inbox = Inbox::new(is_stream);
            assert_eq!(send(&mut inbox, b"abc"), Ok(3));
            assert_eq!(send(&mut inbox, b"def"), Ok(3));
            let mut sink = VecSink::new(2);
            assert_eq!(inbox.recv(&mut sink, true, 4, true).unwrap().n, 2);
            assert_eq!(sink.data, b"ef");
            assert_eq!(inbox.recv(&mut sink, true, 6, true).err(), Some(Errno::EAGAIN));
        }
    }

    #[test]
    fn full_stream_takes_no_more_until_much_is_read() {
        let mut inbox = Inbox::new(true);
        assert_eq!(send(&mut inbox, &[0; LIMIT + 1]), Ok(LIMIT));
        assert_eq!(send(&mut inbox, b"x"), Err(Errno::EAGAIN));
        assert!(!inbox.has_room(LIMIT));
        recv(&mut inbox, LIMIT / 2, false);
        assert!(inbox.has_room(LIMIT));
        assert_eq!(send(&mut inbox, b"x"), Ok(1));
    }

    #[test]
    fn message_larger_than_the_buffer_is_refused() {
        let mut inbox = Inbox::new(false);
        assert_eq!(send(&mut inbox, &[0; LIMIT]), Err(Errno::EMSGSIZE));
    }
}
