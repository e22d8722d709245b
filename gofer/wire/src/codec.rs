//! The header of every message, and the reader and writer of bodies.

use core::fmt;

use syscalls::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::name::Name;
use crate::{MAX_MESSAGE, NAME_MAX};

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// It ends before its last field.
    Truncated,
    /// It does not end with its last field, or its length is not the one in its header.
    Length,
    /// It, or one of its fields, is longer than permitted.
    TooLong,
    /// A component of a path is empty, `.`, `..`, too long, or contains `/` or NUL.
    BadName,
    /// An undefined flag or enumeration value.
    BadFlags,
    /// An unknown opcode, or a reply to another request.
    BadOpcode,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "message ends before its last field",
            Self::Length => "message length is wrong",
            Self::TooLong => "message or field is too long",
            Self::BadName => "invalid path component",
            Self::BadFlags => "undefined flag",
            Self::BadOpcode => "unexpected opcode",
        })
    }
}

impl core::error::Error for WireError {}

impl From<WireError> for Errno {
    fn from(error: WireError) -> Self {
        match error {
            WireError::BadName | WireError::BadFlags => Self::EINVAL,
            WireError::TooLong => Self::ENAMETOOLONG,
            WireError::Truncated | WireError::Length | WireError::BadOpcode => Self::EPROTO,
        }
    }
}

macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// What a request asks for. A reply repeats it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Opcode {
            $($(#[$doc])* $name = $value,)*
        }

        impl Opcode {
            /// Converts the number in a header.
            ///
            /// # Errors
            /// `WireError::BadOpcode` for an unknown one.
            pub const fn from_raw(raw: u16) -> Result<Self, WireError> {
                match raw {
                    $($value => Ok(Self::$name),)*
                    _ => Err(WireError::BadOpcode),
                }
            }
        }
    };
}

opcodes! {
    /// Agrees on the version; returns the root's attributes and what the mount permits.
    Attach = 1,
    /// Resolves components.
    Walk = 2,
    /// Returns attributes.
    Getattr = 3,
    /// Changes attributes.
    Setattr = 4,
    /// Donates a descriptor of a regular file.
    Open = 5,
    /// Creates a regular file, and donates a descriptor of it.
    Create = 6,
    /// Creates a directory.
    Mkdir = 7,
    /// Creates a symbolic link.
    Symlink = 8,
    /// Creates a hard link.
    Link = 9,
    /// Creates a FIFO, a socket, a device node or an empty regular file.
    Mknod = 10,
    /// Removes a name.
    Unlink = 11,
    /// Moves a name.
    Rename = 12,
    /// Returns a symbolic link's target.
    Readlink = 13,
    /// Returns entries of a directory.
    Readdir = 14,
    /// Returns the state of the file system.
    Statfs = 15,
    /// Returns an extended attribute.
    GetXattr = 16,
    /// Sets an extended attribute.
    SetXattr = 17,
    /// Returns the names of the extended attributes.
    ListXattr = 18,
    /// Removes an extended attribute.
    RemoveXattr = 19,
    /// Writes a file or directory to its device.
    Fsync = 20,
    /// Donates a socket that is connected to a unix socket.
    Connect = 21,
    /// Creates a unix socket, and donates it bound.
    Bind = 22,
    /// Donates descriptors of an unlinked file.
    TmpFile = 23,
    /// Releases fids. Has no reply.
    Close = 24,
    /// Writes a whole file system to its device.
    SyncFs = 25,
    /// Resolves several names below one directory.
    Lookup = 26,
    /// Donates the descriptor from which events are read.
    Notify = 27,
    /// Watches a file.
    Watch = 28,
    /// Ends the watch of a file.
    Unwatch = 29,
}

/// The start of every message.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Header {
    /// Length of the message, this header included.
    pub size: u32,
    /// `Opcode`.
    pub opcode: u16,
    /// In a reply, the error number, or 0. A reply with an error has no body.
    pub errno: u16,
    /// Chosen by the client; repeated in the reply.
    pub tag: u32,
    /// In a reply, the number of descriptors that accompany it. In a request, the CPU on which its sender
    /// waits for the reply, plus one, or 0.
    pub n_fds: u32,
}

impl Header {
    /// Notes in a request that has been encoded on which CPU its sender waits.
    pub fn set_cpu(message: &mut [u8], cpu: u32) {
        if let Ok((header, _)) = Self::mut_from_prefix(message) {
            header.n_fds = cpu.wrapping_add(1);
        }
    }

    /// Returns the CPU on which the sender of a request waits.
    pub const fn cpu(&self) -> Option<u32> {
        self.n_fds.checked_sub(1)
    }

    /// Splits a message into header and body.
    ///
    /// # Errors
    /// `Truncated`, `TooLong`, or `Length` where the header gives another length than `message` has.
    pub fn decode(message: &[u8]) -> Result<(Self, &[u8]), WireError> {
        if message.len() > MAX_MESSAGE {
            return Err(WireError::TooLong);
        }
        let (header, body) = Self::read_from_prefix(message).map_err(|_| WireError::Truncated)?;
        if usize::try_from(header.size) == Ok(message.len()) {
            Ok((header, body))
        } else {
            Err(WireError::Length)
        }
    }
}

/// Reads the fields of a body, from the first to the last.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads a fixed-size structure or number.
    pub(crate) fn read<T: FromBytes>(&mut self) -> Result<T, WireError> {
        let (value, rest) = T::read_from_prefix(self.rest).map_err(|_| WireError::Truncated)?;
        self.rest = rest;
        Ok(value)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.read()
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.read()
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.read()
    }

    /// Reads a byte string of at most `max` bytes.
    pub(crate) fn bytes(&mut self, max: usize) -> Result<&'a [u8], WireError> {
        let length = usize::from(self.u16()?);
        if length > max {
            return Err(WireError::TooLong);
        }
        self.take(length)
    }

    pub(crate) fn name(&mut self) -> Result<Name<'a>, WireError> {
        Name::new(self.bytes(NAME_MAX)?)
    }

    /// Reads `length` bytes.
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Returns what is left, without reading it.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads what is left.
    pub(crate) const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// Ends the body.
    pub(crate) const fn finish(&self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Length) }
    }
}

/// Builds one message in a buffer that the caller keeps.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    buffer: &'a mut Vec<u8>,
    header: Header,
}

impl<'a> Writer<'a> {
    /// Empties the buffer and starts a message.
    pub(crate) fn new(buffer: &'a mut Vec<u8>, opcode: Opcode, tag: u32) -> Self {
        let header = Header { opcode: opcode as u16, tag, ..Header::default() };
        buffer.clear();
        buffer.extend_from_slice(header.as_bytes());
        Self { buffer, header }
    }

    pub(crate) const fn set_errno(&mut self, errno: u16) {
        self.header.errno = errno;
    }

    pub(crate) const fn set_n_fds(&mut self, n_fds: u32) {
        self.header.n_fds = n_fds;
    }

    pub(crate) const fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(crate) fn write<T: IntoBytes + Immutable>(&mut self, value: &T) {
        self.buffer.extend_from_slice(value.as_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let length = u16::try_from(bytes.len()).map_err(|_| WireError::TooLong)?;
        self.write(&length);
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn name(&mut self, name: Name<'_>) -> Result<(), WireError> {
        self.bytes(name.as_bytes())
    }

    /// Adds bytes without their length.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Completes the header.
    ///
    /// # Errors
    /// `TooLong`; the buffer then holds no message.
    pub(crate) fn finish(mut self) -> Result<(), WireError> {
        let length = self.buffer.len();
        if length > MAX_MESSAGE {
            self.buffer.clear();
            return Err(WireError::TooLong);
        }
        self.header.size = u32::try_from(length).map_err(|_| WireError::TooLong)?;
        if let Some(place) = self.buffer.get_mut(..size_of::<Header>()) {
            place.copy_from_slice(self.header.as_bytes());
        }
        Ok(())
    }
}
