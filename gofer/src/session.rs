//! [`Session`]: the state of one connection, and the way from a message to its answer.

use std::os::fd::OwnedFd;

use gofer_wire::codec::{Header, Opcode};
use gofer_wire::reply;
use gofer_wire::{Attr, Request, Statfs};
use syscalls::{Errno, SysResult};

use crate::attr;
use crate::fid_table::{FidTable, Node};
use crate::ops::watch::Watches;
use crate::reopen::Reopener;
use crate::{MountOptions, ops};

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) fids: FidTable,
    pub(crate) options: MountOptions,
    /// Whether walks look for access control lists, too: from the first time on that the client has asked for one.
    pub(crate) looks_for_acls: bool,
    /// What is watched for changes.
    pub(crate) watches: Watches,
    /// Room for the entries of directories, empty between requests.
    pub(crate) entries: Vec<u8>,
}

/// What follows from a message.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The reply is in the buffer; the descriptors go with it.
    Reply(Vec<OwnedFd>),
    /// No reply.
    Nothing,
    /// The client does not speak the protocol.
    Disconnect,
}

/// What an operation returns, to be encoded.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing but success.
    Done,
    /// Descriptors, at most [`gofer_wire::MAX_DESCRIPTORS`].
    Descriptors(Vec<OwnedFd>),
    /// The root and what the mount permits.
    Attach(reply::Attach),
    /// Attributes.
    Attr(Attr),
    /// The state of a file system.
    Statfs(Statfs),
    /// A new file and, where it was opened, a descriptor.
    Node(reply::Node, Option<OwnedFd>),
    /// The number of a watch.
    Watch(u32),
    /// A string of bytes.
    Bytes(Vec<u8>),
    /// The operation has encoded its reply.
    Encoded,
    /// The request has no reply.
    Silent,
}

impl Session {
    /// Opens a session of which `root` is all.
    ///
    /// # Errors
    /// Those of `statx(2)`.
    pub(crate) fn new(root: OwnedFd, options: MountOptions, max_fids: usize) -> SysResult<Self> {
        let attr = attr::get(&root)?;
        let fids = FidTable::new(Node::new(root, &attr), max_fids);
        Ok(Self {
            fids,
            options,
            looks_for_acls: false,
            watches: Watches::default(),
            entries: Vec::new(),
        })
    }

    /// Serves one message; the reply is encoded into `buffer`.
    pub(crate) fn answer(
        &mut self,
        reopener: &Reopener,
        message: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Answer {
        let Ok((header, _)) = Header::decode(message) else { return Answer::Disconnect };
        let Ok(opcode) = Opcode::from_raw(header.opcode) else { return Answer::Disconnect };
        let tag = header.tag;
        let outcome = match Request::decode(message) {
            Ok((_, request)) => self.dispatch(reopener, tag, &request, buffer),
            Err(_) if opcode == Opcode::Close => return Answer::Disconnect,
            Err(error) => Err(Errno::from(error)),
        };
        encode(opcode, tag, outcome, buffer)
    }

    fn dispatch(
        &mut self,
        reopener: &Reopener,
        tag: u32,
        request: &Request<'_>,
        buffer: &mut Vec<u8>,
    ) -> SysResult<Outcome> {
        match *request {
            Request::Attach { version } => ops::attr::attach(self, version),
            Request::Walk { fid, ref names } => ops::walk::walk(self, tag, fid, names, buffer),
            Request::Lookup { dir, ref names } => ops::walk::lookup(self, tag, dir, names, buffer),
            Request::Getattr { fid } => ops::attr::getattr(self, fid),
            Request::Setattr { fid, ref attr } => {
                self.check_writable()?;
                ops::attr::setattr(self, reopener, fid, attr)
            }
            Request::Statfs { fid } => ops::attr::statfs(self, fid),
            Request::Open { fid, flags } => ops::open::open(self, reopener, fid, flags),
            Request::Create { dir, name, flags, ref ownership } => {
                self.check_writable()?;
                ops::open::create(self, reopener, dir, name, flags, ownership)
            }
            Request::TmpFile { dir } => ops::open::tmpfile(self, reopener, dir),
            Request::Fsync { fid, data_only } => ops::open::fsync(self, reopener, fid, data_only),
            Request::SyncFs { fid } => ops::open::sync_fs(self, reopener, fid),
            Request::Mkdir { dir, name, ref ownership } => {
                self.check_writable()?;
                ops::name::mkdir(self, reopener, dir, name, ownership)
            }
            Request::Symlink { dir, name, target, ref ownership } => {
                self.check_writable()?;
                ops::name::symlink(self, reopener, dir, name, target, ownership)
            }
            Request::Link { fid, dir, name } => {
                self.check_writable()?;
                ops::name::link(self, reopener, fid, dir, name)
            }
            Request::Mknod { dir, name, ref ownership, major, minor } => {
                self.check_writable()?;
                ops::name::mknod(self, reopener, dir, name, ownership, (major, minor))
            }
            Request::Unlink { dir, name, flags } => {
                self.check_writable()?;
                ops::name::unlink(self, dir, name, flags)
            }
            Request::Rename { old_dir, old_name, new_dir, new_name, flags } => {
                self.check_writable()?;
                ops::name::rename(self, old_dir, old_name, new_dir, new_name, flags)
            }
            Request::Readlink { fid } => ops::walk::readlink(self, fid),
            Request::Readdir { fid, cookie } => ops::dir::readdir(self, tag, fid, cookie, buffer),
            Request::GetXattr { fid, name } => ops::xattr::get(self, fid, name),
            Request::ListXattr { fid } => ops::xattr::list(self, fid),
            Request::SetXattr { fid, name, value, flags } => {
                self.check_writable()?;
                ops::xattr::set(self, fid, name, value, flags)
            }
            Request::RemoveXattr { fid, name } => {
                self.check_writable()?;
                ops::xattr::remove(self, fid, name)
            }
            Request::Connect { fid, kind } => ops::socket::connect(self, fid, kind),
            Request::Bind { dir, name, ref ownership, kind } => {
                self.check_writable()?;
                ops::socket::bind(self, reopener, dir, name, ownership, kind)
            }
            Request::Notify => ops::watch::notify(self),
            Request::Watch { fid } => ops::watch::watch(self, fid),
            Request::Unwatch { watch } => ops::watch::unwatch(self, watch),
            Request::Close { ref fids } => {
                fids.iter().for_each(|fid| self.fids.remove(fid));
                Ok(Outcome::Silent)
            }
        }
    }

    fn check_writable(&self) -> SysResult<()> {
        if self.options.readonly { Err(Errno::EROFS) } else { Ok(()) }
    }
}

fn encode(opcode: Opcode, tag: u32, outcome: SysResult<Outcome>, buffer: &mut Vec<u8>) -> Answer {
    let mut descriptors = Vec::new();
    let encoded = match outcome {
        Ok(Outcome::Silent) => return Answer::Nothing,
        Ok(Outcome::Encoded) => Ok(()),
        Ok(Outcome::Done) => reply::encode_status(opcode, tag, None, 0, buffer),
        Ok(Outcome::Descriptors(fds)) => {
            let n_fds = u32::try_from(fds.len()).unwrap_or(0);
            descriptors = fds;
            reply::encode_status(opcode, tag, None, n_fds, buffer)
        }
        Ok(Outcome::Attach(attach)) => reply::encode_fixed(opcode, tag, &attach, 0, buffer),
        Ok(Outcome::Attr(attr)) => reply::encode_fixed(opcode, tag, &attr, 0, buffer),
        Ok(Outcome::Statfs(statfs)) => reply::encode_fixed(opcode, tag, &statfs, 0, buffer),
        Ok(Outcome::Node(node, fd)) => {
            let n_fds = u32::from(fd.is_some());
            descriptors.extend(fd);
            reply::encode_fixed(opcode, tag, &node, n_fds, buffer)
        }
        Ok(Outcome::Watch(number)) => reply::encode_fixed(opcode, tag, &number, 0, buffer),
        Ok(Outcome::Bytes(bytes)) => reply::encode_bytes(opcode, tag, &bytes, buffer),
        Err(errno) => reply::encode_status(opcode, tag, Some(errno), 0, buffer),
    };
    match encoded {
        Ok(()) => Answer::Reply(descriptors),
        Err(_) => Answer::Disconnect,
    }
}
