//! [`Server`]: one loop over all connections.
//!
//! A client has one request outstanding at a time, so its socket has always room for the reply, and
//! nothing that a client does or omits makes the loop wait for it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use gofer_wire::codec::Header;
use gofer_wire::{MAX_DESCRIPTORS, MAX_MESSAGE};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::MountConfig;
use crate::place::Place;
use crate::reopen::Reopener;
use crate::session::{Answer, Session};

/// All connections of a gofer.
#[derive(Debug)]
pub(crate) struct Server {
    connections: Vec<Connection>,
    reopener: Reopener,
    place: Place,
    received: Vec<u8>,
    reply: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    session: Session,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Open,
    Closed,
}

impl Server {
    /// Prepares to serve the mounts. The clients together may hold `max_fids` fids.
    ///
    /// # Errors
    /// A root whose attributes cannot be read.
    pub(crate) fn new(
        mounts: Vec<MountConfig>,
        reopener: Reopener,
        max_fids: usize,
    ) -> io::Result<Self> {
        let connections = mounts
            .into_iter()
            .map(|mount| {
                let session = Session::new(mount.root, mount.options, max_fids)
                    .map_err(|errno| io::Error::from_raw_os_error(errno.raw()))?;
                Ok(Connection { socket: mount.socket, session })
            })
            .collect::<io::Result<Vec<_>>>()?;
        // One byte more than a message, so that a longer one is seen to be longer.
        let received = vec![0; MAX_MESSAGE + 1];
        let reply = Vec::with_capacity(MAX_MESSAGE);
        Ok(Self { connections, reopener, place: Place::default(), received, reply })
    }

    /// Serves until the last client has closed its connection.
    ///
    /// # Errors
    /// Only what makes it impossible to go on: of `poll(2)`.
    pub(crate) fn serve(&mut self) -> io::Result<()> {
        while !self.connections.is_empty() {
            // Alone, a connection is waited for by receiving from it.
            if self.connections.len() == 1 {
                self.serve_one(0, RecvFlags::empty());
                continue;
            }
            for index in self.wait()?.into_iter().rev() {
                self.serve_one(index, RecvFlags::DONTWAIT);
            }
        }
        Ok(())
    }

    /// Returns the indices of the connections that have something to say, in ascending order.
    fn wait(&self) -> io::Result<Vec<usize>> {
        let mut polled: Vec<PollFd<'_>> = self
            .connections
            .iter()
            .map(|connection| PollFd::new(&connection.socket, PollFlags::IN))
            .collect();
        match rustix::event::poll(&mut polled, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        Ok(polled
            .iter()
            .enumerate()
            .filter(|(_, polled)| !polled.revents().is_empty())
            .map(|(index, _)| index)
            .collect())
    }

    fn serve_one(&mut self, index: usize, flags: RecvFlags) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let progress = connection.serve(
            &self.reopener,
            &mut self.place,
            flags,
            &mut self.received,
            &mut self.reply,
        );
        if progress == Progress::Closed {
            self.connections.swap_remove(index);
        }
    }
}

impl Connection {
    /// Receives one request and answers it.
    fn serve(
        &mut self,
        reopener: &Reopener,
        place: &mut Place,
        flags: RecvFlags,
        received: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Progress {
        // Descriptors that a client sends are discarded by the kernel: recvfrom(2) takes none.
        let length = match rustix::net::recv(&self.socket, received.as_mut_slice(), flags) {
            Ok((0, _)) => return Progress::Closed,
            Ok((length, _)) => length,
            Err(Errno::INTR | Errno::AGAIN) => return Progress::Open,
            Err(_) => return Progress::Closed,
        };
        let message = received.get(..length).unwrap_or_default();
        if let Ok((header, _)) = Header::decode(message) {
            place.follow(header.cpu());
        }
        let descriptors = match self.session.answer(reopener, message, reply) {
            Answer::Reply(descriptors) => descriptors,
            Answer::Nothing => return Progress::Open,
            Answer::Disconnect => return Progress::Closed,
        };
        match send(self.socket.as_fd(), reply, &descriptors) {
            Ok(()) => Progress::Open,
            Err(_) => Progress::Closed,
        }
    }
}

/// Sends one packet, at once or not at all.
fn send(socket: BorrowedFd<'_>, message: &[u8], descriptors: &[OwnedFd]) -> rustix::io::Result<()> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(OwnedFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(Errno::NOBUFS);
    }
    rustix::net::sendmsg(socket, &[io::IoSlice::new(message)], &mut control, flags)?;
    Ok(())
}
