//! The framing of ttrpc, the protocol between containerd and its shims: a header of ten bytes and a
//! protocol buffer, in both directions of one socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use super::wire::{Malformed, Message, Writer};

/// The longest message that either side sends.
const MAX_LENGTH: usize = 4 << 20;

const HEADER: usize = 10;

/// What a frame is.
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// The codes of gRPC that a call may fail with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    FailedPrecondition = 9,
    Unimplemented = 12,
}

/// Why a call has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Self {
        Self::new(Code::InvalidArgument, "malformed message")
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Code::Unknown, error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Code::Unknown, format!("{error:#}"))
    }
}

/// A call that has been received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) stream: u32,
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) payload: Vec<u8>,
}

/// One end of a connection, which never blocks.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, input: Vec::new(), output: Vec::new() })
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Reads what has arrived. `false` stands for the end of the connection.
    pub(crate) fn fill(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.input.extend_from_slice(buffer.get(..count).unwrap_or(&[])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Writes what is to be written, as far as there is room. `false` stands for the end of the connection.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(0) => return false,
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.output = Vec::new();
        true
    }

    /// Takes the next whole frame from what has been read: its kind, stream and content.
    fn next_frame(&mut self) -> Result<Option<(u8, u32, Vec<u8>)>, Malformed> {
        let Some(header) = self.input.first_chunk::<HEADER>() else { return Ok(None) };
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _] = *header;
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if length > MAX_LENGTH {
            return Err(Malformed);
        }
        let Some(content) = self.input.get(HEADER..HEADER + length) else { return Ok(None) };
        let content = content.to_vec();
        self.input.drain(..HEADER + length);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        Ok(Some((kind, u32::from_be_bytes([s0, s1, s2, s3]), content)))
    }

    /// Takes the next call from what has been read.
    pub(crate) fn next_request(&mut self) -> Result<Option<Request>, Malformed> {
        while let Some((kind, stream, content)) = self.next_frame()? {
            if kind == REQUEST {
                let message = Message::parse(&content)?;
                let (service, method) = (message.text(1)?, message.text(2)?);
                let payload = message.bytes(3).to_vec();
                return Ok(Some(Request { stream, service, method, payload }));
            }
        }
        Ok(None)
    }

    /// Tells whether the answer to a call has arrived, and the message where it has failed.
    pub(crate) fn next_answer(
        &mut self,
        awaited: u32,
    ) -> Result<Option<Result<(), String>>, Malformed> {
        while let Some((kind, stream, content)) = self.next_frame()? {
            if kind == RESPONSE && stream == awaited {
                let status = Message::parse(&content)?.message(1)?;
                return Ok(Some(match status.number(1) {
                    0 => Ok(()),
                    _ => Err(status.text(2)?),
                }));
            }
        }
        Ok(None)
    }

    pub(crate) fn answer(&mut self, stream: u32, result: Result<Writer, Failure>) {
        let response = match result {
            Ok(payload) => Writer::new().bytes(2, payload.into_bytes()),
            Err(Failure { code, message }) => {
                let status = Writer::new().number(1, code as u32).bytes(2, message);
                Writer::new().message(1, &status)
            }
        };
        self.put_frame(RESPONSE, stream, &response.into_bytes());
    }

    pub(crate) fn call(&mut self, stream: u32, service: &str, method: &str, payload: &[u8]) {
        let request = Writer::new().bytes(1, service).bytes(2, method).bytes(3, payload);
        self.put_frame(REQUEST, stream, &request.into_bytes());
    }

    fn put_frame(&mut self, kind: u8, stream: u32, content: &[u8]) {
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        self.output.extend(length.to_be_bytes());
        self.output.extend(stream.to_be_bytes());
        self.output.extend([kind, 0]);
        self.output.extend_from_slice(content);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::{Code, Connection, Failure};
    use crate::wire::Writer;

    #[test]
    fn call_and_answer_arrive_whole_however_they_are_cut() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut server = Connection::new(ours).unwrap();
        let mut client = Connection::new(UnixStream::pair().unwrap().0).unwrap();
        client.call(3, "service", "Method", b"payload");

        let mut request = None;
        for byte in std::mem::take(&mut client.output) {
            assert!(request.is_none());
            theirs.write_all(&[byte]).unwrap();
            assert!(server.fill());
            request = server.next_request().unwrap();
        }

        let request = request.unwrap();
        assert_eq!((request.stream, request.method.as_str()), (3, "Method"));
        assert_eq!(
            (request.service.as_str(), request.payload.as_slice()),
            ("service", &b"payload"[..])
        );
        let mut client = Connection::new(theirs).unwrap();
        server.answer(5, Ok(Writer::new()));
        server.answer(3, Err(Failure::new(Code::NotFound, "gone")));
        assert!(server.flush() && client.fill());
        assert_eq!(client.next_answer(3), Ok(Some(Err("gone".into()))));
    }

    #[test]
    fn frame_longer_than_any_message_ends_the_connection() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut server = Connection::new(ours).unwrap();
        theirs.write_all(&[0xff; 10]).unwrap();
        assert!(server.fill());
        assert!(server.next_request().is_err());
    }
}
