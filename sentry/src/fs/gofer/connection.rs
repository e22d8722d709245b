//! [`Connection`]: one request at a time over one socket.

use std::os::fd::{AsFd as _, OwnedFd};

use gofer_wire::codec::Header;
use gofer_wire::request::Fids;
use gofer_wire::{Fid, MAX_MESSAGE, Request, WireError, reply};
use sentry_host::{cpu, packet};
use syscalls::{Errno, SysResult};
use zerocopy::FromBytes;

use crate::sync::Mutex;

/// How many fids are collected before they are released together.
const CLOSE_BATCH: usize = 128;

/// One end of the way to the gofer.
pub(super) struct Connection {
    socket: OwnedFd,
    exchange: Mutex<Exchange>,
    /// Fids that nobody uses any more. A lock of its own, because inodes go at any time.
    closing: Mutex<Vec<Fid>>,
}

/// The request that is under way.
struct Exchange {
    tag: u32,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> Self {
        let exchange = Exchange { tag: 0, request: Vec::new(), reply: vec![0; MAX_MESSAGE] };
        Self { socket, exchange: Mutex::new(exchange), closing: Mutex::new(Vec::new()) }
    }

    /// Makes a request and decodes the body of its reply.
    ///
    /// # Errors
    /// What the gofer reports; `EIO` where it has gone, or answers what is no answer.
    pub(super) fn call<T>(
        &self,
        request: &Request<'_>,
        decode: impl Fn(&[u8], Vec<OwnedFd>) -> Result<T, WireError>,
    ) -> SysResult<T> {
        match self.exchange(request, &decode) {
            // The gofer holds as many files as it can. Those that nobody uses may be enough.
            Err(Errno::EMFILE | Errno::ENFILE) => {
                self.release();
                self.exchange(request, &decode)
            }
            result => result,
        }
    }

    fn exchange<T>(
        &self,
        request: &Request<'_>,
        decode: &impl Fn(&[u8], Vec<OwnedFd>) -> Result<T, WireError>,
    ) -> SysResult<T> {
        let mut guard = self.exchange.lock();
        let exchange = &mut *guard;
        exchange.tag = exchange.tag.wrapping_add(1);
        request.encode(exchange.tag, &mut exchange.request)?;
        // The gofer comes to the same CPU: nobody has to be woken on an idle one.
        let stay = cpu::stay();
        if let Some(cpu) = stay.cpu() {
            Header::set_cpu(&mut exchange.request, cpu);
        }
        packet::send(self.socket.as_fd(), &exchange.request).map_err(|_| Errno::EIO)?;
        let (length, descriptors) =
            packet::receive(self.socket.as_fd(), &mut exchange.reply).map_err(|_| Errno::EIO)?;
        drop(stay);
        let message = exchange.reply.get(..length).ok_or(Errno::EIO)?;
        let (body, n_fds) =
            reply::body(message, request.opcode(), exchange.tag).map_err(|_| Errno::EIO)??;
        if usize::try_from(n_fds) != Ok(descriptors.len()) {
            return Err(Errno::EIO);
        }
        decode(body, descriptors).map_err(|_| Errno::EIO)
    }

    /// Makes a request whose reply is one structure.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn call_fixed<T: FromBytes>(&self, request: &Request<'_>) -> SysResult<T> {
        self.call(request, |body, _| reply::fixed(body))
    }

    /// Makes a request whose reply is one structure and a descriptor.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn call_with_descriptor<T: FromBytes>(
        &self,
        request: &Request<'_>,
    ) -> SysResult<(T, OwnedFd)> {
        self.call(request, |body, descriptors| Ok((reply::fixed(body)?, only(descriptors)?)))
    }

    /// Makes a request whose reply is a descriptor alone.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn call_descriptor(&self, request: &Request<'_>) -> SysResult<OwnedFd> {
        self.call(request, |_, descriptors| only(descriptors))
    }

    /// Makes a request whose reply is two descriptors.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn call_two_descriptors(&self, request: &Request<'_>) -> SysResult<[OwnedFd; 2]> {
        self.call(request, |_, descriptors| {
            descriptors.try_into().map_err(|_| WireError::Truncated)
        })
    }

    /// Makes a request whose reply is a string of bytes.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn call_bytes(&self, request: &Request<'_>) -> SysResult<Vec<u8>> {
        self.call(request, |body, _| Ok(body.to_vec()))
    }

    /// Makes a request whose reply is nothing but success.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn call_status(&self, request: &Request<'_>) -> SysResult<()> {
        self.call(request, |_, _| Ok(()))
    }

    /// Releases a fid, at the latest with many others.
    pub(super) fn close(&self, fid: Fid) {
        let mut closing = self.closing.lock();
        closing.push(fid);
        let is_full = closing.len() >= CLOSE_BATCH;
        drop(closing);
        if is_full {
            self.release();
        }
    }

    /// Releases all fids that nobody uses.
    pub(super) fn release(&self) {
        let fids = std::mem::take(&mut *self.closing.lock());
        for batch in fids.chunks(gofer_wire::MAX_CLOSE) {
            // Sent in order with requests, and answered by nothing. Where the gofer has gone, so
            // have the fids.
            let mut exchange = self.exchange.lock();
            let request = Request::Close { fids: Fids::new(batch) };
            if request.encode(0, &mut exchange.request).is_ok() {
                let _ = packet::send(self.socket.as_fd(), &exchange.request);
            }
        }
    }
}

/// Returns the one descriptor that came with a reply.
fn only(descriptors: Vec<OwnedFd>) -> Result<OwnedFd, WireError> {
    let [descriptor] = descriptors.try_into().map_err(|_| WireError::Truncated)?;
    Ok(descriptor)
}
