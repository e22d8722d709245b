//! Replies: what the gofer answers. [`body`] opens one; the types here are the bodies.

use syscalls::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::attr::Attr;
use crate::codec::{Header, Opcode, Reader, WireError, Writer};
use crate::flags::MountFlags;
use crate::name::Name;
use crate::{Fid, MAX_MESSAGE, MAX_WALK, SYMLINK_MAX};

/// Opens the reply to a request: its body and the number of its descriptors, or the error that the
/// gofer reports.
///
/// # Errors
/// `BadOpcode` where it answers another request; else what `Header::decode` gives.
pub fn body(
    message: &[u8],
    opcode: Opcode,
    tag: u32,
) -> Result<Result<(&[u8], u32), Errno>, WireError> {
    let (header, body) = Header::decode(message)?;
    if header.opcode != opcode as u16 || header.tag != tag {
        return Err(WireError::BadOpcode);
    }
    Ok(match header.errno {
        0 => Ok((body, header.n_fds)),
        errno => Err(Errno::from_raw(i32::from(errno))),
    })
}

/// Decodes a body that is one fixed-size structure (`Attr`, `Statfs`, `Node`, `Attach`).
///
/// # Errors
/// `Truncated` or `Length`.
pub fn fixed<T: FromBytes>(body: &[u8]) -> Result<T, WireError> {
    let mut reader = Reader::new(body);
    let value = reader.read()?;
    reader.finish()?;
    Ok(value)
}

/// Encodes a reply without a body, or the report of an error.
///
/// # Errors
/// None in practice: the message is a header.
pub fn encode_status(
    opcode: Opcode,
    tag: u32,
    errno: Option<Errno>,
    n_fds: u32,
    buffer: &mut Vec<u8>,
) -> Result<(), WireError> {
    let mut w = Writer::new(buffer, opcode, tag);
    if let Some(errno) = errno {
        w.set_errno(u16::try_from(errno.raw()).unwrap_or(5));
    }
    w.set_n_fds(n_fds);
    w.finish()
}

/// Encodes a reply whose body is one fixed-size structure.
///
/// # Errors
/// `TooLong`, which no structure of this crate is.
pub fn encode_fixed<T: IntoBytes + Immutable>(
    opcode: Opcode,
    tag: u32,
    value: &T,
    n_fds: u32,
    buffer: &mut Vec<u8>,
) -> Result<(), WireError> {
    let mut w = Writer::new(buffer, opcode, tag);
    w.set_n_fds(n_fds);
    w.write(value);
    w.finish()
}

/// Encodes a reply whose body is a string of bytes and nothing else.
///
/// # Errors
/// `TooLong`.
pub fn encode_bytes(
    opcode: Opcode,
    tag: u32,
    bytes: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<(), WireError> {
    let mut w = Writer::new(buffer, opcode, tag);
    w.raw(bytes);
    w.finish()
}

/// The reply to `Attach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Attach {
    /// The version that the gofer speaks.
    pub version: u32,
    /// `MountFlags`; undefined ones are to be ignored.
    pub flags: u32,
    /// The root's attributes.
    pub attr: Attr,
}

impl Attach {
    /// Returns what the mount permits.
    pub const fn mount_flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags)
    }
}

/// A file with its new fid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Node {
    /// The new fid.
    pub fid: Fid,
    /// Zero.
    pub reserved: u32,
    /// The file's attributes.
    pub attr: Attr,
}

impl Node {
    /// Joins a fid and its attributes.
    pub const fn new(fid: Fid, attr: Attr) -> Self {
        Self { fid, reserved: 0, attr }
    }
}

/// The reply to `Walk`: the components that were resolved, and why it stopped.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    nodes: &'a [u8],
    /// Why the component after the last node could not be resolved. `None` where all were, or where
    /// the last node is not a directory.
    pub stopped: Option<Errno>,
    /// The target of the last node, where that is a symbolic link.
    pub target: Option<&'a [u8]>,
}

impl<'a> Walk<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    /// `WireError`.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body);
        let n_nodes = usize::from(r.u16()?);
        let stopped = match r.u16()? {
            0 => None,
            errno => Some(Errno::from_raw(i32::from(errno))),
        };
        if n_nodes > MAX_WALK {
            return Err(WireError::TooLong);
        }
        let nodes = r.take(n_nodes * size_of::<Node>())?;
        let target = if r.is_empty() { None } else { Some(r.bytes(SYMLINK_MAX)?) };
        r.finish()?;
        Ok(Self { nodes, stopped, target })
    }

    /// Returns the files that were resolved, from the first component on.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + use<'a> {
        let mut reader = Reader::new(self.nodes);
        core::iter::from_fn(move || reader.read::<Node>().ok())
    }

    /// Encodes a reply.
    ///
    /// # Errors
    /// `TooLong`.
    pub fn encode(
        tag: u32,
        nodes: &[Node],
        stopped: Option<Errno>,
        target: Option<&[u8]>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let mut w = Writer::new(buffer, Opcode::Walk, tag);
        w.write(&u16::try_from(nodes.len()).map_err(|_| WireError::TooLong)?);
        w.write(&stopped.map_or(0, |errno| u16::try_from(errno.raw()).unwrap_or(5)));
        for node in nodes {
            w.write(node);
        }
        if let Some(target) = target {
            w.bytes(target)?;
        }
        w.finish()
    }
}

/// The reply to `Lookup`: what became of each name, in their order. Fewer than were asked for where the gofer holds as
/// many files as it can.
#[derive(Clone, Debug)]
pub struct Lookups<'a> {
    reader: Reader<'a>,
}

impl<'a> Lookups<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    /// `WireError`.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let mut n_results = 0;
        while !reader.is_empty() {
            let _ = read_lookup(&mut reader)?;
            n_results += 1;
        }
        if n_results > MAX_WALK {
            return Err(WireError::TooLong);
        }
        Ok(Self { reader: Reader::new(body) })
    }

    /// Encodes a reply.
    ///
    /// # Errors
    /// `TooLong`.
    pub fn encode(
        tag: u32,
        results: &[Result<Node, Errno>],
        buffer: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let mut w = Writer::new(buffer, Opcode::Lookup, tag);
        for result in results {
            match result {
                Ok(node) => {
                    w.write(&0_u16);
                    w.write(node);
                }
                Err(errno) => w.write(&u16::try_from(errno.raw()).unwrap_or(5)),
            }
        }
        w.finish()
    }
}

impl Iterator for Lookups<'_> {
    type Item = Result<Node, Errno>;

    fn next(&mut self) -> Option<Self::Item> {
        read_lookup(&mut self.reader).ok()
    }
}

fn read_lookup(r: &mut Reader<'_>) -> Result<Result<Node, Errno>, WireError> {
    Ok(match r.u16()? {
        0 => Ok(r.read()?),
        errno => Err(Errno::from_raw(i32::from(errno))),
    })
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Inode number.
    pub ino: u64,
    /// The cookie with which the reading goes on after this entry.
    pub next: u64,
    /// `DT_*`.
    pub kind: u8,
    /// The name; `.` and `..` are not reported.
    pub name: Name<'a>,
}

/// The reply to `Readdir`: whole entries, and whether the directory ends with them.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    reader: Reader<'a>,
    is_end: bool,
}

impl<'a> Entries<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    /// `WireError`.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let (is_end, body) = body.split_last().ok_or(WireError::Truncated)?;
        let is_end = match is_end {
            0 => false,
            1 => true,
            _ => return Err(WireError::BadFlags),
        };
        let mut reader = Reader::new(body);
        while !reader.is_empty() {
            read_entry(&mut reader)?;
        }
        Ok(Self { reader: Reader::new(body), is_end })
    }

    /// Returns whether no entry follows these.
    pub const fn is_end(&self) -> bool {
        self.is_end
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        read_entry(&mut self.reader).ok()
    }
}

fn read_entry<'a>(r: &mut Reader<'a>) -> Result<Entry<'a>, WireError> {
    let ino = r.u64()?;
    let next = r.u64()?;
    let kind = r.read()?;
    Ok(Entry { ino, next, kind, name: r.name()? })
}

/// Builds the reply to `Readdir`.
#[derive(Debug)]
pub struct EntriesWriter<'a> {
    writer: Writer<'a>,
}

impl<'a> EntriesWriter<'a> {
    /// The longest encoded entry.
    const ENTRY_MAX: usize = 8 + 8 + 1 + 2 + crate::NAME_MAX;
    /// What says whether the directory ends.
    const END: usize = 1;

    /// Starts the reply.
    pub fn new(tag: u32, buffer: &'a mut Vec<u8>) -> Self {
        Self { writer: Writer::new(buffer, Opcode::Readdir, tag) }
    }

    /// Returns whether any entry fits.
    pub const fn has_room(&self) -> bool {
        self.writer.len() + Self::ENTRY_MAX + Self::END <= MAX_MESSAGE
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// `TooLong`, which no `Name` is.
    pub fn push(&mut self, entry: &Entry<'_>) -> Result<(), WireError> {
        self.writer.write(&entry.ino);
        self.writer.write(&entry.next);
        self.writer.write(&entry.kind);
        self.writer.name(entry.name)
    }

    /// Completes the reply and says whether the directory ends with it.
    ///
    /// # Errors
    /// `TooLong`, where entries were pushed without room.
    pub fn finish(mut self, is_end: bool) -> Result<(), WireError> {
        self.writer.write(&u8::from(is_end));
        self.writer.finish()
    }
}
