//! Requests: what the sentry asks.

use crate::attr::SetAttr;
use crate::codec::{Header, Opcode, Reader, WireError, Writer};
use crate::flags::{BindKind, OpenFlags, RenameFlags, SetAttrMask, UnlinkFlags, XattrFlags};
use crate::name::Name;
use crate::{Fid, MAX_CLOSE, MAX_WALK, SYMLINK_MAX, XATTR_MAX};

/// Who owns a new file, and its permission bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Permission bits; for `Mknod` the file type as well.
    pub mode: u32,
    /// Permission bits that the file does not get where no default access control list of the directory decides.
    pub umask: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Agrees on the version. Reply: `reply::Attach`.
    Attach {
        /// The version that the client speaks.
        version: u32,
    },
    /// Resolves components. Reply: `reply::Walk`.
    Walk {
        /// Where it starts: a directory.
        fid: Fid,
        /// The components.
        names: Names<'a>,
    },
    /// Resolves names below one directory, each by itself. Reply: `reply::Lookups`.
    Lookup {
        /// The directory.
        dir: Fid,
        /// The names.
        names: Names<'a>,
    },
    /// Reply: `Attr`.
    Getattr {
        /// The file.
        fid: Fid,
    },
    /// Reply: the new `Attr`.
    Setattr {
        /// The file.
        fid: Fid,
        /// The changes; its mask has only defined bits.
        attr: SetAttr,
    },
    /// Reply: a descriptor.
    Open {
        /// A regular file.
        fid: Fid,
        /// How it is opened.
        flags: OpenFlags,
    },
    /// Fails where the name exists. Reply: `reply::Node` and a descriptor.
    Create {
        /// The directory.
        dir: Fid,
        /// The new name.
        name: Name<'a>,
        /// How it is opened.
        flags: OpenFlags,
        /// Mode and owner.
        ownership: Ownership,
    },
    /// Reply: `reply::Node`.
    Mkdir {
        /// The directory.
        dir: Fid,
        /// The new name.
        name: Name<'a>,
        /// Mode and owner.
        ownership: Ownership,
    },
    /// Reply: `reply::Node`.
    Symlink {
        /// The directory.
        dir: Fid,
        /// The new name.
        name: Name<'a>,
        /// What it points to.
        target: &'a [u8],
        /// Owner; the mode is ignored.
        ownership: Ownership,
    },
    /// Reply: `Attr` of the file.
    Link {
        /// The file.
        fid: Fid,
        /// The directory.
        dir: Fid,
        /// The new name.
        name: Name<'a>,
    },
    /// Reply: `reply::Node`.
    Mknod {
        /// The directory.
        dir: Fid,
        /// The new name.
        name: Name<'a>,
        /// Mode with file type, and owner.
        ownership: Ownership,
        /// Major number of a device.
        major: u32,
        /// Minor number of a device.
        minor: u32,
    },
    /// Reply: nothing.
    Unlink {
        /// The directory.
        dir: Fid,
        /// The name.
        name: Name<'a>,
        /// What may be removed.
        flags: UnlinkFlags,
    },
    /// Reply: nothing.
    Rename {
        /// The old directory.
        old_dir: Fid,
        /// The old name.
        old_name: Name<'a>,
        /// The new directory.
        new_dir: Fid,
        /// The new name.
        new_name: Name<'a>,
        /// Flags of `renameat2(2)`.
        flags: RenameFlags,
    },
    /// Reply: the target's bytes.
    Readlink {
        /// A symbolic link.
        fid: Fid,
    },
    /// Reply: `reply::Entries`.
    Readdir {
        /// A directory.
        fid: Fid,
        /// The `next` of the last entry that was read, or 0.
        cookie: u64,
    },
    /// Reply: `Statfs`.
    Statfs {
        /// Any file.
        fid: Fid,
    },
    /// Reply: the value's bytes.
    GetXattr {
        /// The file.
        fid: Fid,
        /// The attribute's name.
        name: Name<'a>,
    },
    /// Reply: nothing.
    SetXattr {
        /// The file.
        fid: Fid,
        /// The attribute's name.
        name: Name<'a>,
        /// The new value.
        value: &'a [u8],
        /// Whether it must or must not exist.
        flags: XattrFlags,
    },
    /// Reply: the names, each with a NUL.
    ListXattr {
        /// The file.
        fid: Fid,
    },
    /// Reply: nothing.
    RemoveXattr {
        /// The file.
        fid: Fid,
        /// The attribute's name.
        name: Name<'a>,
    },
    /// Reply: nothing.
    Fsync {
        /// A regular file or directory.
        fid: Fid,
        /// Whether attributes that are not needed to read the data may stay behind.
        data_only: bool,
    },
    /// Reply: a descriptor.
    Connect {
        /// A unix socket.
        fid: Fid,
        /// Its type.
        kind: BindKind,
    },
    /// Reply: `reply::Node` and a descriptor.
    Bind {
        /// The directory.
        dir: Fid,
        /// The new name.
        name: Name<'a>,
        /// Mode and owner.
        ownership: Ownership,
        /// Type of the socket.
        kind: BindKind,
    },
    /// Reply: two descriptors, one for reading and writing and one for reading.
    TmpFile {
        /// A directory on the file system that is to hold it.
        dir: Fid,
    },
    /// Reply: nothing.
    SyncFs {
        /// A regular file or directory on the file system.
        fid: Fid,
    },
    /// Reply: a descriptor, of `inotify(7)`: what happens to the files that are watched on this connection.
    Notify,
    /// Watches a file for changes. Reply: the watch's number (`u32`), as the events have it; the same for a file that
    /// is watched already.
    Watch {
        /// Any file.
        fid: Fid,
    },
    /// Reply: nothing.
    Unwatch {
        /// The watch's number.
        watch: u32,
    },
    /// No reply.
    Close {
        /// The fids. Unknown ones and the root's are ignored.
        fids: Fids<'a>,
    },
}

/// The components of a `Walk` or the names of a `Lookup`, each one checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names<'a>(NamesForm<'a>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum NamesForm<'a> {
    List(&'a [Name<'a>]),
    /// The encoded form; decode has checked every component.
    Wire {
        n_names: usize,
        bytes: &'a [u8],
    },
}

impl<'a> Names<'a> {
    /// Wraps components for encoding.
    pub const fn new(names: &'a [Name<'a>]) -> Self {
        Self(NamesForm::List(names))
    }

    /// Returns the number of components.
    pub const fn len(&self) -> usize {
        match self.0 {
            NamesForm::List(names) => names.len(),
            NamesForm::Wire { n_names, .. } => n_names,
        }
    }

    /// Returns whether there is no component.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the components from the first to the last.
    pub fn iter(&self) -> impl Iterator<Item = Name<'a>> + use<'a> {
        let (list, mut reader): (&'a [Name<'a>], _) = match self.0 {
            NamesForm::List(names) => (names, Reader::new(&[])),
            NamesForm::Wire { bytes, .. } => (&[], Reader::new(bytes)),
        };
        list.iter().copied().chain(core::iter::from_fn(move || reader.name().ok()))
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let n_names = usize::from(reader.u16()?);
        if n_names > MAX_WALK {
            return Err(WireError::TooLong);
        }
        let bytes = reader.rest();
        for _ in 0..n_names {
            reader.name()?;
        }
        reader.finish()?;
        Ok(Self(NamesForm::Wire { n_names, bytes }))
    }
}

/// The fids of a `Close`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fids<'a>(FidsForm<'a>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum FidsForm<'a> {
    List(&'a [Fid]),
    Wire(&'a [u8]),
}

impl<'a> Fids<'a> {
    /// Wraps fids for encoding.
    pub const fn new(fids: &'a [Fid]) -> Self {
        Self(FidsForm::List(fids))
    }

    /// Returns the fids.
    pub fn iter(&self) -> impl Iterator<Item = Fid> + use<'a> {
        let (list, mut reader): (&'a [Fid], _) = match self.0 {
            FidsForm::List(fids) => (fids, Reader::new(&[])),
            FidsForm::Wire(bytes) => (&[], Reader::new(bytes)),
        };
        list.iter().copied().chain(core::iter::from_fn(move || reader.u32().ok()))
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let bytes = reader.take_rest();
        if bytes.len() > MAX_CLOSE * size_of::<Fid>() {
            return Err(WireError::TooLong);
        }
        if bytes.len().is_multiple_of(size_of::<Fid>()) {
            Ok(Self(FidsForm::Wire(bytes)))
        } else {
            Err(WireError::Truncated)
        }
    }
}

impl<'a> Request<'a> {
    /// Returns the request's opcode.
    pub const fn opcode(&self) -> Opcode {
        match self {
            Self::Attach { .. } => Opcode::Attach,
            Self::Walk { .. } => Opcode::Walk,
            Self::Lookup { .. } => Opcode::Lookup,
            Self::Getattr { .. } => Opcode::Getattr,
            Self::Setattr { .. } => Opcode::Setattr,
            Self::Open { .. } => Opcode::Open,
            Self::Create { .. } => Opcode::Create,
            Self::Mkdir { .. } => Opcode::Mkdir,
            Self::Symlink { .. } => Opcode::Symlink,
            Self::Link { .. } => Opcode::Link,
            Self::Mknod { .. } => Opcode::Mknod,
            Self::Unlink { .. } => Opcode::Unlink,
            Self::Rename { .. } => Opcode::Rename,
            Self::Readlink { .. } => Opcode::Readlink,
            Self::Readdir { .. } => Opcode::Readdir,
            Self::Statfs { .. } => Opcode::Statfs,
            Self::GetXattr { .. } => Opcode::GetXattr,
            Self::SetXattr { .. } => Opcode::SetXattr,
            Self::ListXattr { .. } => Opcode::ListXattr,
            Self::RemoveXattr { .. } => Opcode::RemoveXattr,
            Self::Fsync { .. } => Opcode::Fsync,
            Self::Connect { .. } => Opcode::Connect,
            Self::Bind { .. } => Opcode::Bind,
            Self::TmpFile { .. } => Opcode::TmpFile,
            Self::SyncFs { .. } => Opcode::SyncFs,
            Self::Notify => Opcode::Notify,
            Self::Watch { .. } => Opcode::Watch,
            Self::Unwatch { .. } => Opcode::Unwatch,
            Self::Close { .. } => Opcode::Close,
        }
    }

    /// Decodes a message.
    ///
    /// # Errors
    /// Any `WireError`. A request that announces descriptors is `BadFlags`.
    pub fn decode(message: &'a [u8]) -> Result<(Header, Self), WireError> {
        let (header, body) = Header::decode(message)?;
        let opcode = Opcode::from_raw(header.opcode)?;
        if header.errno != 0 {
            return Err(WireError::BadFlags);
        }
        let mut reader = Reader::new(body);
        let request = Self::decode_body(opcode, &mut reader)?;
        reader.finish()?;
        Ok((header, request))
    }

    fn decode_body(opcode: Opcode, r: &mut Reader<'a>) -> Result<Self, WireError> {
        // Fields of a structure expression are evaluated in the order in which they are written.
        Ok(match opcode {
            Opcode::Attach => Self::Attach { version: r.u32()? },
            Opcode::Walk => Self::Walk { fid: r.u32()?, names: Names::decode(r)? },
            Opcode::Lookup => Self::Lookup { dir: r.u32()?, names: Names::decode(r)? },
            Opcode::Getattr => Self::Getattr { fid: r.u32()? },
            Opcode::Setattr => {
                let fid = r.u32()?;
                let attr: SetAttr = r.read()?;
                SetAttrMask::from_bits(attr.mask).ok_or(WireError::BadFlags)?;
                Self::Setattr { fid, attr }
            }
            Opcode::Open => Self::Open { fid: r.u32()?, flags: open_flags(r)? },
            Opcode::Create => Self::Create {
                dir: r.u32()?,
                flags: open_flags(r)?,
                ownership: ownership(r)?,
                name: r.name()?,
            },
            Opcode::Mkdir => {
                Self::Mkdir { dir: r.u32()?, ownership: ownership(r)?, name: r.name()? }
            }
            Opcode::Symlink => Self::Symlink {
                dir: r.u32()?,
                ownership: ownership(r)?,
                name: r.name()?,
                target: target(r)?,
            },
            Opcode::Link => Self::Link { fid: r.u32()?, dir: r.u32()?, name: r.name()? },
            Opcode::Mknod => Self::Mknod {
                dir: r.u32()?,
                ownership: ownership(r)?,
                major: r.u32()?,
                minor: r.u32()?,
                name: r.name()?,
            },
            Opcode::Unlink => Self::Unlink {
                dir: r.u32()?,
                flags: UnlinkFlags::from_bits(r.u32()?).ok_or(WireError::BadFlags)?,
                name: r.name()?,
            },
            Opcode::Rename => Self::Rename {
                old_dir: r.u32()?,
                new_dir: r.u32()?,
                flags: RenameFlags::from_bits(r.u32()?).ok_or(WireError::BadFlags)?,
                old_name: r.name()?,
                new_name: r.name()?,
            },
            Opcode::Readlink => Self::Readlink { fid: r.u32()? },
            Opcode::Readdir => Self::Readdir { fid: r.u32()?, cookie: r.u64()? },
            Opcode::Statfs => Self::Statfs { fid: r.u32()? },
            Opcode::GetXattr => Self::GetXattr { fid: r.u32()?, name: r.name()? },
            Opcode::SetXattr => Self::SetXattr {
                fid: r.u32()?,
                flags: XattrFlags::from_bits(r.u32()?).ok_or(WireError::BadFlags)?,
                name: r.name()?,
                value: r.bytes(XATTR_MAX)?,
            },
            Opcode::ListXattr => Self::ListXattr { fid: r.u32()? },
            Opcode::RemoveXattr => Self::RemoveXattr { fid: r.u32()?, name: r.name()? },
            Opcode::Fsync => Self::Fsync {
                fid: r.u32()?,
                data_only: match r.u32()? {
                    0 => false,
                    1 => true,
                    _ => return Err(WireError::BadFlags),
                },
            },
            Opcode::Connect => Self::Connect { fid: r.u32()?, kind: bind_kind(r)? },
            Opcode::Bind => Self::Bind {
                dir: r.u32()?,
                kind: bind_kind(r)?,
                ownership: ownership(r)?,
                name: r.name()?,
            },
            Opcode::TmpFile => Self::TmpFile { dir: r.u32()? },
            Opcode::SyncFs => Self::SyncFs { fid: r.u32()? },
            Opcode::Notify => Self::Notify,
            Opcode::Watch => Self::Watch { fid: r.u32()? },
            Opcode::Unwatch => Self::Unwatch { watch: r.u32()? },
            Opcode::Close => Self::Close { fids: Fids::decode(r)? },
        })
    }

    /// Encodes the request as one message into `buffer`, which is emptied first.
    ///
    /// # Errors
    /// `TooLong` where a field or the message is.
    pub fn encode(&self, tag: u32, buffer: &mut Vec<u8>) -> Result<(), WireError> {
        let mut w = Writer::new(buffer, self.opcode(), tag);
        match self {
            Self::Attach { version } => w.write(version),
            Self::Walk { fid, names } | Self::Lookup { dir: fid, names } => {
                w.write(fid);
                let n_names = u16::try_from(names.len()).map_err(|_| WireError::TooLong)?;
                w.write(&n_names);
                for name in names.iter() {
                    w.name(name)?;
                }
            }
            Self::Getattr { fid }
            | Self::Readlink { fid }
            | Self::Statfs { fid }
            | Self::ListXattr { fid }
            | Self::SyncFs { fid }
            | Self::Watch { fid }
            | Self::Unwatch { watch: fid }
            | Self::TmpFile { dir: fid } => w.write(fid),
            Self::Notify => {}
            Self::Setattr { fid, attr } => {
                w.write(fid);
                w.write(attr);
            }
            Self::Open { fid, flags } => w.write(&[*fid, flags.bits()]),
            Self::Create { dir, name, flags, ownership } => {
                w.write(&[*dir, flags.bits()]);
                write_ownership(&mut w, ownership);
                w.name(*name)?;
            }
            Self::Mkdir { dir, name, ownership } => {
                w.write(dir);
                write_ownership(&mut w, ownership);
                w.name(*name)?;
            }
            Self::Symlink { dir, name, target, ownership } => {
                w.write(dir);
                write_ownership(&mut w, ownership);
                w.name(*name)?;
                w.bytes(target)?;
            }
            Self::Link { fid, dir, name } => {
                w.write(&[*fid, *dir]);
                w.name(*name)?;
            }
            Self::Mknod { dir, name, ownership, major, minor } => {
                w.write(dir);
                write_ownership(&mut w, ownership);
                w.write(&[*major, *minor]);
                w.name(*name)?;
            }
            Self::Unlink { dir, name, flags } => {
                w.write(&[*dir, flags.bits()]);
                w.name(*name)?;
            }
            Self::Rename { old_dir, old_name, new_dir, new_name, flags } => {
                w.write(&[*old_dir, *new_dir, flags.bits()]);
                w.name(*old_name)?;
                w.name(*new_name)?;
            }
            Self::Readdir { fid, cookie } => {
                w.write(fid);
                w.write(cookie);
            }
            Self::GetXattr { fid, name } | Self::RemoveXattr { fid, name } => {
                w.write(fid);
                w.name(*name)?;
            }
            Self::SetXattr { fid, name, value, flags } => {
                w.write(&[*fid, flags.bits()]);
                w.name(*name)?;
                w.bytes(value)?;
            }
            Self::Fsync { fid, data_only } => w.write(&[*fid, u32::from(*data_only)]),
            Self::Connect { fid, kind } => w.write(&[*fid, *kind as u32]),
            Self::Bind { dir, name, ownership, kind } => {
                w.write(&[*dir, *kind as u32]);
                write_ownership(&mut w, ownership);
                w.name(*name)?;
            }
            Self::Close { fids } => {
                for fid in fids.iter() {
                    w.write(&fid);
                }
            }
        }
        w.finish()
    }
}

fn open_flags(r: &mut Reader<'_>) -> Result<OpenFlags, WireError> {
    OpenFlags::from_bits(r.u32()?).ok_or(WireError::BadFlags)
}

fn bind_kind(r: &mut Reader<'_>) -> Result<BindKind, WireError> {
    BindKind::from_raw(r.u32()?).ok_or(WireError::BadFlags)
}

fn ownership(r: &mut Reader<'_>) -> Result<Ownership, WireError> {
    let ownership = Ownership { mode: r.u32()?, umask: r.u32()?, uid: r.u32()?, gid: r.u32()? };
    // Neither chown(2) nor any user has the number that means "leave unchanged".
    let is_defined = ownership.mode & !0o177_777 == 0
        && ownership.umask & !0o777 == 0
        && ownership.uid != u32::MAX
        && ownership.gid != u32::MAX;
    if is_defined { Ok(ownership) } else { Err(WireError::BadFlags) }
}

fn write_ownership(w: &mut Writer<'_>, ownership: &Ownership) {
    w.write(&[ownership.mode, ownership.umask, ownership.uid, ownership.gid]);
}

/// Reads the target of a symbolic link: not empty, without NUL.
fn target<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let target = r.bytes(SYMLINK_MAX)?;
    if target.is_empty() || target.contains(&0) { Err(WireError::BadName) } else { Ok(target) }
}

#[cfg(test)]
mod tests;
