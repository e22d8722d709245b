//! Questions to the resolver that docker puts at 127.0.0.11, port 53, of the container's network
//! namespace.
//!
//! It is reached over the host's loopback, which is not the sandbox's: questions and answers go over
//! one socket of that namespace, and the number of a question says whose it is.
//! DEVIATION: over UDP only; an answer that is too long for it comes cut.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use sentry_host::nic::{self, Frames};
use syscalls::Errno;

use super::{Stack, wire};
use crate::net::inet::{Arrival, Endpoint};
use crate::sync::Mutex;

const ADDR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
const PORT: u16 = 53;

/// The most questions that have no answer; the oldest are forgotten.
const MAX_OPEN: usize = 512;

/// The size of the header of DNS.
const HEADER: usize = 12;

struct Question {
    number: u16,
    asked_as: u16,
    from: Endpoint,
}

/// The way to the resolver. The lock is a leaf.
pub(super) struct Resolver {
    socket: OwnedFd,
    open: Mutex<(u16, VecDeque<Question>)>,
}

impl Resolver {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, open: Mutex::new((0, VecDeque::new())) }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Stack {
    /// Passes a datagram on where it is a question to the resolver. Returns whether it is.
    pub(in crate::net) fn ask_resolver(&self, data: &[u8], from: Endpoint, to: Endpoint) -> bool {
        let Some(resolver) = &self.resolver else { return false };
        let (true, Some(asked_as)) =
            (to == Endpoint { ip: ADDR, port: PORT }, wire::number16(data, 0))
        else {
            return false;
        };
        if data.len() < HEADER {
            return false;
        }
        let mut question = data.to_vec();
        {
            let (last, open) = &mut *resolver.open.lock();
            *last = last.wrapping_add(1);
            wire::put(&mut question, 0, &last.to_be_bytes());
            if open.len() >= MAX_OPEN {
                open.pop_front();
            }
            open.push_back(Question { number: *last, asked_as, from });
        }
        if nic::send(resolver.as_fd(), &question) == Err(Errno::ECONNREFUSED) {
            // Said of an earlier question.
            let _ = nic::send(resolver.as_fd(), &question);
        }
        true
    }

    /// Takes the resolver's answers.
    pub(super) fn hear_resolver(&self, frames: &mut Frames) {
        let (Some(resolver), Some(kernel)) = (&self.resolver, self.kernel.upgrade()) else {
            return;
        };
        let to = Endpoint { ip: ADDR, port: PORT };
        match frames.receive(resolver.as_fd()) {
            Ok(_) => {}
            Err(Errno::ECONNREFUSED) => {
                // Nobody is there.
                let open = std::mem::take(&mut resolver.open.lock().1);
                for question in open {
                    let errno = Errno::ECONNREFUSED;
                    kernel.inet.complain(question.from, to, Vec::new(), ADDR, errno);
                }
                return;
            }
            Err(_) => return,
        }
        for answer in frames.iter_mut() {
            let number = wire::number16(answer, 0);
            let question = {
                let open = &mut resolver.open.lock().1;
                let at = open.iter().position(|question| Some(question.number) == number);
                at.and_then(|at| open.remove(at))
            };
            let Some(question) = question else { continue };
            wire::put(answer, 0, &question.asked_as.to_be_bytes());
            let arrival = Arrival { from: to, to: question.from, ttl: 64, tos: 0, interface: 1 };
            kernel.inet.deliver_datagram(&kernel, answer, arrival, false);
        }
    }
}
