//! As much of D-Bus as a client of systemd needs: calls with their answers, and one signal.
//!
//! Wire format: the D-Bus specification, "Message Protocol", always little-endian. A library would authenticate
//! with the user id of this process, which below another user namespace is not the one that the bus sees.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the other side may take to answer, or to finish a job.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest message that is taken. systemd's are of a few hundred bytes.
const MAX_MESSAGE: usize = 1 << 20;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Numbers of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A method, and who has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) name: &'a str,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What the other side says; `name` is for programs, `message` for people.
    #[error("{message} ({name})")]
    Answer { name: String, message: String },
}

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Str(String),
    Bytes(Vec<u8>),
    U32s(Vec<u32>),
    Strs(Vec<String>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Bool(_) => "b",
            Value::I32(_) => "i",
            Value::U32(_) => "u",
            Value::I64(_) => "x",
            Value::U64(_) => "t",
            Value::Str(_) => "s",
            Value::Bytes(_) => "ay",
            Value::U32s(_) => "au",
            Value::Strs(_) => "as",
        }
    }
}

/// The arguments of a call.
#[derive(Default)]
pub(super) struct Body {
    signature: String,
    bytes: Vec<u8>,
}

impl Body {
    pub(super) fn str(mut self, value: &str) -> Self {
        self.signature.push('s');
        put_str(&mut self.bytes, value);
        self
    }

    pub(super) fn bool(mut self, value: bool) -> Self {
        self.signature.push('b');
        put_u32(&mut self.bytes, value.into());
        self
    }

    pub(super) fn u32s(mut self, values: &[u32]) -> Self {
        self.signature.push_str("au");
        put_value(&mut self.bytes, &Value::U32s(values.to_vec()));
        self
    }

    /// Adds `a(sv)`.
    pub(super) fn properties(mut self, properties: &[(String, Value)]) -> Self {
        self.signature.push_str("a(sv)");
        put_array(&mut self.bytes, 8, |bytes| {
            for (name, value) in properties {
                pad(bytes, 8);
                put_str(bytes, name);
                put_signature(bytes, value.signature());
                put_value(bytes, value);
            }
        });
        self
    }

    /// Adds `a(sa(sv))`, which has no element.
    pub(super) fn no_units(mut self) -> Self {
        self.signature.push_str("a(sa(sv))");
        put_array(&mut self.bytes, 8, |_| ());
        self
    }
}

fn pad(bytes: &mut Vec<u8>, alignment: usize) {
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
}

/// Lengths of what is sent here fit: all of it comes from a configuration file that is in memory.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn put_u32(bytes: &mut Vec<u8>, value: u32) {
    pad(bytes, 4);
    bytes.extend(value.to_le_bytes());
}

fn put_str(bytes: &mut Vec<u8>, value: &str) {
    put_u32(bytes, length(value.len()));
    bytes.extend(value.as_bytes());
    bytes.push(0);
}

fn put_signature(bytes: &mut Vec<u8>, value: &str) {
    bytes.push(value.len().try_into().unwrap_or(u8::MAX));
    bytes.extend(value.as_bytes());
    bytes.push(0);
}

/// Adds an array: its length does not count the padding before its first element.
fn put_array(bytes: &mut Vec<u8>, alignment: usize, elements: impl FnOnce(&mut Vec<u8>)) {
    put_u32(bytes, 0);
    let length_at = bytes.len() - 4;
    pad(bytes, alignment);
    let start = bytes.len();
    elements(bytes);
    let len = length(bytes.len() - start);
    bytes[length_at..length_at + 4].copy_from_slice(&len.to_le_bytes());
}

fn put_value(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(value) => put_u32(bytes, (*value).into()),
        Value::I32(value) => put_u32(bytes, value.cast_unsigned()),
        Value::U32(value) => put_u32(bytes, *value),
        Value::I64(value) => {
            pad(bytes, 8);
            bytes.extend(value.to_le_bytes());
        }
        Value::U64(value) => {
            pad(bytes, 8);
            bytes.extend(value.to_le_bytes());
        }
        Value::Str(value) => put_str(bytes, value),
        Value::Bytes(values) => put_array(bytes, 1, |bytes| bytes.extend(values)),
        Value::U32s(values) => {
            put_array(bytes, 4, |bytes| values.iter().for_each(|value| put_u32(bytes, *value)));
        }
        Value::Strs(values) => {
            put_array(bytes, 4, |bytes| values.iter().for_each(|value| put_str(bytes, value)));
        }
    }
}

/// Reads values from a message; what is cut short or not text is an error.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> io::Result<&'a [u8]> {
        let end = self.at.checked_add(len).ok_or(ErrorKind::InvalidData)?;
        let bytes = self.bytes.get(self.at..end).ok_or(ErrorKind::InvalidData)?;
        self.at = end;
        Ok(bytes)
    }

    fn align(&mut self, alignment: usize) {
        self.at = self.at.next_multiple_of(alignment);
    }

    fn u8(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.align(4);
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes(bytes.try_into().map_err(io::Error::other)?))
    }

    fn text(&mut self, len: usize) -> io::Result<&'a str> {
        let text = std::str::from_utf8(self.take(len)?).map_err(io::Error::other)?;
        self.take(1)?;
        Ok(text)
    }

    fn str(&mut self) -> io::Result<&'a str> {
        let len = self.u32()?;
        self.text(usize::try_from(len).map_err(io::Error::other)?)
    }

    fn signature(&mut self) -> io::Result<&'a str> {
        let len = self.u8()?;
        self.text(len.into())
    }
}

/// A message of the other side.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    member: String,
    error: String,
    reply_to: u32,
    signature: String,
    body: Vec<u8>,
}

impl Message {
    fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0 }
    }

    /// Tells whether it is systemd's signal `JobRemoved`. Of others it sends many.
    fn is_end_of_job(&self) -> bool {
        self.kind == SIGNAL && self.member == "JobRemoved" && self.signature == "uoss"
    }
}

/// Connection to a bus, or to one service without a bus between.
pub(super) struct Connection {
    stream: BufReader<UnixStream>,
    serial: u32,
    /// Jobs whose end was told while an answer was waited for.
    ended_jobs: Vec<Message>,
}

impl Connection {
    /// Connects, and says hello where the other side is a bus.
    pub(super) fn open(path: &Path, is_bus: bool) -> Result<Self, CallError> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut connection =
            Self { stream: BufReader::new(stream), serial: 0, ended_jobs: Vec::new() };
        connection.authenticate()?;
        if is_bus {
            connection.call(bus("Hello"), &Body::default())?;
        }
        Ok(connection)
    }

    /// Lets the other side take the user id from the kernel's credentials of the socket. All at once, as systemd's
    /// own library does: systemd leaves a call lying that it has received together with `BEGIN`.
    fn authenticate(&mut self) -> io::Result<()> {
        self.stream.get_mut().write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        self.expect_line("DATA")?;
        self.expect_line("OK")
    }

    fn expect_line(&mut self, word: &str) -> io::Result<()> {
        let mut line = String::new();
        (&mut self.stream).take(1024).read_line(&mut line)?;
        match line.split_whitespace().next() {
            Some(first) if first == word => Ok(()),
            _ => Err(io::Error::other(format!("authentication: {:?}", line.trim_end()))),
        }
    }

    /// Asks a bus for the signals that a rule describes.
    pub(super) fn add_match(&mut self, rule: &str) -> Result<(), CallError> {
        self.call(bus("AddMatch"), &Body::default().str(rule)).map(drop)
    }

    /// Calls a method. Returns the first value of its answer where that is a string or an object path.
    pub(super) fn call(&mut self, method: Method<'_>, body: &Body) -> Result<String, CallError> {
        self.serial += 1;
        let serial = self.serial;
        self.stream.get_mut().write_all(&encode(serial, method, body))?;
        loop {
            let message = self.receive()?;
            match message.kind {
                _ if message.is_end_of_job() => self.ended_jobs.push(message),
                METHOD_RETURN if message.reply_to == serial => return first_str(&message),
                ERROR if message.reply_to == serial => {
                    let text = first_str(&message).unwrap_or_default();
                    return Err(CallError::Answer { name: message.error, message: text });
                }
                _ => {}
            }
        }
    }

    /// Waits until a job of systemd has ended and returns how.
    pub(super) fn wait_for_job(&mut self, job: &str) -> io::Result<String> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let message = match self.ended_jobs.pop() {
                Some(message) => message,
                None => self.receive()?,
            };
            if message.is_end_of_job() {
                let mut reader = message.reader();
                reader.u32()?;
                let (path, _unit, result) = (reader.str()?, reader.str()?, reader.str()?);
                if path == job {
                    return Ok(result.to_owned());
                }
            }
            if Instant::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }

    fn receive(&mut self) -> io::Result<Message> {
        let mut fixed = [0; 16];
        self.stream.read_exact(&mut fixed)?;
        if fixed[0] != b'l' {
            return Err(io::Error::other("a message in another byte order"));
        }
        let mut reader = Reader { bytes: &fixed, at: 4 };
        let body_len = usize::try_from(reader.u32()?).map_err(io::Error::other)?;
        reader.u32()?;
        let fields_len = usize::try_from(reader.u32()?).map_err(io::Error::other)?;
        if body_len > MAX_MESSAGE || fields_len > MAX_MESSAGE {
            return Err(io::Error::other("a message too long"));
        }
        // The fields follow, padded to eight bytes, and the body.
        let mut fields = vec![0; fields_len.next_multiple_of(8)];
        self.stream.read_exact(&mut fields)?;
        let mut message = Message { kind: fixed[1], body: vec![0; body_len], ..Message::default() };
        self.stream.read_exact(&mut message.body)?;
        read_fields(&fields[..fields_len], &mut message)?;
        Ok(message)
    }
}

/// A method of the bus itself.
fn bus(name: &str) -> Method<'_> {
    Method {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        name,
    }
}

fn first_str(message: &Message) -> Result<String, CallError> {
    let mut reader = message.reader();
    match message.signature.bytes().next() {
        Some(b's' | b'o') => Ok(reader.str()?.to_owned()),
        Some(b'v') if reader.signature()? == "s" => Ok(reader.str()?.to_owned()),
        _ => Ok(String::new()),
    }
}

fn read_fields(fields: &[u8], message: &mut Message) -> io::Result<()> {
    let mut reader = Reader { bytes: fields, at: 0 };
    while reader.at < fields.len() {
        reader.align(8);
        let field = reader.u8()?;
        let signature = reader.signature()?;
        match signature {
            "s" | "o" => {
                let value = reader.str()?;
                match field {
                    MEMBER => value.clone_into(&mut message.member),
                    ERROR_NAME => value.clone_into(&mut message.error),
                    _ => {}
                }
            }
            "g" => {
                let value = reader.signature()?;
                if field == SIGNATURE {
                    value.clone_into(&mut message.signature);
                }
            }
            "u" => {
                let value = reader.u32()?;
                if field == REPLY_SERIAL {
                    message.reply_to = value;
                }
            }
            _ => return Err(io::Error::other("an unknown header field")),
        }
    }
    Ok(())
}

fn encode(serial: u32, method: Method<'_>, body: &Body) -> Vec<u8> {
    let mut bytes = vec![b'l', METHOD_CALL, 0, 1];
    put_u32(&mut bytes, length(body.bytes.len()));
    put_u32(&mut bytes, serial);
    put_array(&mut bytes, 8, |bytes| {
        for (field, signature, value) in [
            (PATH, "o", method.path),
            (INTERFACE, "s", method.interface),
            (MEMBER, "s", method.name),
            (DESTINATION, "s", method.destination),
        ] {
            pad(bytes, 8);
            bytes.push(field);
            put_signature(bytes, signature);
            put_str(bytes, value);
        }
        if !body.signature.is_empty() {
            pad(bytes, 8);
            bytes.push(SIGNATURE);
            put_signature(bytes, "g");
            put_signature(bytes, &body.signature);
        }
    });
    pad(&mut bytes, 8);
    bytes.extend(&body.bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Body, Method, Value, encode};

    #[test]
    fn calls_are_laid_out_as_the_specification_says() {
        let method = Method { destination: "d.d", path: "/p", interface: "i.i", name: "M" };
        let properties = [("A".to_owned(), Value::U64(3)), ("B".to_owned(), Value::U32s(vec![7]))];
        let body = Body::default().str("unit").properties(&properties);
        assert_eq!(body.signature, "sa(sv)");
        let expected = [
            &[4, 0, 0, 0][..],
            b"unit\0\0\0\0",
            // The array: its length without the padding to its first element, which is at 16.
            &[44, 0, 0, 0],
            &[1, 0, 0, 0],
            b"A\0\x01t\0\0\0\0\0\0\0\0",
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0],
            b"B\0\x02au\0\0\0",
            &[4, 0, 0, 0, 7, 0, 0, 0],
        ]
        .concat();
        assert_eq!(body.bytes, expected);
        let message = encode(1, method, &body);
        assert_eq!(message[..4], [b'l', 1, 0, 1]);
        assert_eq!(message.len() % 8, body.bytes.len() % 8);
        assert!(message.ends_with(&body.bytes));
    }
}
