//! What a unix socket has been sent and has not received: a stream of bytes, or messages.

use std::collections::VecDeque;
use std::sync::Weak;

use syscalls::{Errno, SysResult};

use super::UnixSocket;
use super::address::Name;
use super::stream::{How, Stream};
use crate::net::control::{Control, Files};
use crate::vfs::lending::Lending;
use crate::vfs::{IoSink, IoSource};

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
    Stream(Box<Stream>),
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
    pub(super) lending: Lending,
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
            Content::Stream(Box::new(Stream::new()))
        } else {
            Content::Messages(Messages::default())
        };
        let lending = Lending::new();
        Self { content, is_ended: false, is_closed: false, blocked: Vec::new(), lending }
    }

    /// Returns whether there is nothing, not even the gap that an urgent byte has left.
    pub(super) fn is_empty(&self) -> bool {
        match &self.content {
            Content::Stream(stream) => stream.is_empty(),
            Content::Messages(messages) => messages.queue.is_empty(),
        }
    }

    /// Returns whether this is an empty stream in which nothing is but bytes, and for which nobody waits.
    pub(super) fn is_plain(&self) -> bool {
        let is_plain = match &self.content {
            Content::Stream(stream) => stream.is_plain(),
            Content::Messages(_) => false,
        };
        is_plain && !self.is_ended && !self.is_closed && self.blocked.is_empty()
    }

    /// Adds what has been sent and not been received while the stream was lent.
    pub(super) fn put_back(&mut self, data: &[u8]) {
        if let Content::Stream(stream) = &mut self.content {
            stream.put_back(data);
        }
    }

    /// Returns how many bytes there are in all, and how many a receive could see.
    pub(super) fn n_bytes(&self) -> (usize, usize) {
        match &self.content {
            Content::Stream(stream) => (stream.n_bytes(), stream.n_bytes()),
            Content::Messages(messages) => {
                let first = messages.queue.front().map_or(0, |message| message.data.len());
                (messages.n_bytes, first)
            }
        }
    }

    /// Returns whether a sender with a buffer of `limit` bytes counts as able to send.
    pub(super) fn has_room(&self, limit: usize) -> bool {
        match &self.content {
            Content::Stream(stream) => stream.n_taken() <= limit / 4 * 3,
            Content::Messages(messages) => {
                messages.n_bytes <= limit / 4 * 3 && messages.queue.len() < MAX_MESSAGES
            }
        }
    }

    /// Adds data, the last byte of which may be urgent where it is a stream's.
    ///
    /// # Errors
    /// `EAGAIN` without room; `EMSGSIZE`, `EFAULT`.
    pub(super) fn send(
        &mut self,
        src: &mut dyn IoSource,
        limit: usize,
        control: &Control,
        from: Option<Name>,
        is_urgent: bool,
    ) -> SysResult<usize> {
        match &mut self.content {
            Content::Stream(stream) => stream.send(src, limit, control, is_urgent),
            Content::Messages(messages) => messages.send(src, limit, control, from),
        }
    }

    /// Takes data, or looks at it.
    ///
    /// # Errors
    /// `EAGAIN`, `EFAULT`.
    pub(super) fn recv(&mut self, dst: &mut dyn IoSink, how: How) -> SysResult<Received> {
        match &mut self.content {
            Content::Stream(stream) => stream.recv(dst, how),
            Content::Messages(messages) => messages.recv(dst, how.peek, how.skip),
        }
    }

    /// Receives the urgent byte of a stream by itself.
    ///
    /// # Errors
    /// `EINVAL` where there is none, `EFAULT`.
    pub(super) fn recv_urgent(&mut self, dst: &mut dyn IoSink, how: How) -> SysResult<usize> {
        match &mut self.content {
            Content::Stream(stream) => stream.recv_urgent(dst, how),
            Content::Messages(_) => Err(Errno::EINVAL),
        }
    }

    /// Returns whether there is an urgent byte, and whether its place is next.
    pub(super) fn urgency(&self) -> (bool, bool) {
        match &self.content {
            Content::Stream(stream) => (stream.has_urgent(), stream.is_at_mark()),
            Content::Messages(_) => (false, false),
        }
    }

    /// Returns files that came with bytes that nobody receives any more, to be dropped without the lock.
    pub(super) fn take_lost(&mut self) -> Vec<Files> {
        match &mut self.content {
            Content::Stream(stream) => stream.take_lost(),
            Content::Messages(_) => Vec::new(),
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
    /// does not count, nor what an urgent byte has left (`unix_release_sock` of Linux).
    pub(super) fn has_unread(&self) -> bool {
        match &self.content {
            Content::Stream(stream) => stream.has_unread(),
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
        let (blocked, lending) = (self.unblock(), Lending::new());
        Self { content, is_ended: true, is_closed: true, blocked, lending }
    }

    /// Calls `visit` with the files of every message.
    pub(super) fn visit_files(&self, visit: &mut dyn FnMut(&Files)) {
        match &self.content {
            Content::Stream(stream) => stream.visit_files(visit),
            Content::Messages(messages) => {
                messages.queue.iter().for_each(|message| visit(&message.control.files));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use syscalls::Errno;

    use super::{How, Inbox};
    use crate::net::control::Control;
    use crate::vfs::{SliceSource, VecSink};

    const LIMIT: usize = 65_536;

    fn send(inbox: &mut Inbox, data: &[u8]) -> Result<usize, Errno> {
        inbox.send(&mut SliceSource::new(data), LIMIT, &Control::default(), None, false)
    }

    fn how(peek: bool, skip: usize) -> How {
        How { peek, skip, tells_senders: true, is_inline: false }
    }

    fn recv(inbox: &mut Inbox, n: usize, peek: bool) -> (Vec<u8>, usize) {
        let mut sink = VecSink::new(n);
        let received = inbox.recv(&mut sink, how(peek, 0)).unwrap();
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
            assert_eq!(inbox.recv(&mut sink, how(true, 4)).unwrap().n, 2);
            assert_eq!(sink.data, b"ef");
            assert_eq!(inbox.recv(&mut sink, how(true, 6)).err(), Some(Errno::EAGAIN));
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

    #[test]
    fn urgent_bytes_leave_a_bounded_number_of_gaps() {
        let mut inbox = Inbox::new(true);
        assert_eq!(send(&mut inbox, b"a"), Ok(1));
        for _ in 0..2 * LIMIT {
            let mut byte = SliceSource::new(b"x");
            assert_eq!(inbox.send(&mut byte, LIMIT, &Control::default(), None, true), Ok(1));
            assert_eq!(inbox.recv_urgent(&mut VecSink::new(1), how(false, 0)), Ok(1));
        }
        assert_eq!(send(&mut inbox, b"b"), Ok(1));
        assert_eq!(recv(&mut inbox, 4, false).0, b"a");
        assert_eq!(recv(&mut inbox, 4, false).0, b"b");
        assert!(inbox.is_empty());
    }
}
