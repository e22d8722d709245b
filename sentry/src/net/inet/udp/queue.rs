//! What a UDP socket has been sent and has not received.

use std::collections::VecDeque;
use std::net::IpAddr;

use syscalls::{Errno, SysResult};

use crate::net::inet::addr::Endpoint;
use crate::vfs::IoSink;

/// What comes with the data of a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub(super) from: Endpoint,
    pub(super) to: Endpoint,
    pub(super) ttl: i32,
    pub(super) tos: i32,
    /// When it came, on the real-time clock.
    pub(super) time_ns: i64,
    /// The number of the interface over which it came.
    pub(super) interface: i32,
    /// How much of a datagram of UDP-Lite its checksum covers, where that is not all.
    pub(super) coverage: Option<i32>,
    /// The length of the datagrams, but for the last one, that have been sent as one (`UDP_SEGMENT`).
    pub(super) segment: Option<u16>,
}

struct Datagram {
    data: Vec<u8>,
    about: About,
}

/// That a datagram has come to a place on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) time_ns: i64,
    /// `SCM_TSTAMP_*`
    pub(super) event: u32,
    pub(super) number: u32,
}

/// A datagram that nobody has taken, returned to its sender; or one that is stamped.
pub(super) struct Complaint {
    pub(super) data: Vec<u8>,
    /// Where it was sent.
    pub(super) to: Endpoint,
    /// Who says that there is nobody.
    pub(super) offender: IpAddr,
    pub(super) errno: Errno,
    pub(super) stamp: Option<Stamp>,
}

/// What is received at once.
pub(super) struct Received {
    pub(super) n: usize,
    pub(super) full: usize,
    pub(super) about: About,
}

/// The queue of a socket.
#[derive(Default)]
pub(super) struct Queue {
    datagrams: VecDeque<Datagram>,
    n_bytes: usize,
    pub(super) n_dropped: u64,
    returned: VecDeque<Complaint>,
    n_returned_bytes: usize,
}

/// Returns what a datagram counts for: Linux's buffers have a head and come in steps.
fn charge(len: usize) -> usize {
    len.next_multiple_of(256).saturating_add(512)
}

/// Stores what there is room for.
pub(super) fn put(dst: &mut dyn IoSink, data: &[u8]) -> SysResult<usize> {
    let n = data.len().min(dst.remaining());
    if n > 0 && dst.put(data.get(..n).unwrap_or_default())? < n {
        return Err(Errno::EFAULT);
    }
    Ok(n)
}

impl Queue {
    /// Returns whether there is no datagram.
    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Returns what the datagrams count for.
    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Returns the length of the first datagram.
    pub(super) fn n_first(&self) -> usize {
        self.datagrams.front().map_or(0, |datagram| datagram.data.len())
    }

    /// Adds a datagram; loses it where the buffer is full. Returns whether it was added.
    pub(super) fn add(&mut self, data: Vec<u8>, about: About, limit: usize) -> bool {
        if self.n_bytes > limit {
            self.n_dropped += 1;
            return false;
        }
        self.n_bytes += charge(data.len());
        self.datagrams.push_back(Datagram { data, about });
        true
    }

    /// Returns whether anything has come back.
    pub(super) fn has_returned(&self) -> bool {
        !self.returned.is_empty()
    }

    /// Returns a datagram to its sender; loses it where there are too many.
    pub(super) fn add_returned(&mut self, complaint: Complaint, limit: usize) {
        let n = self.n_returned_bytes.saturating_add(charge(complaint.data.len()));
        if n < limit {
            self.n_returned_bytes = n;
            self.returned.push_back(complaint);
        }
    }

    /// Takes the first datagram that has come back.
    pub(super) fn take_returned(&mut self) -> Option<Complaint> {
        let complaint = self.returned.pop_front()?;
        self.n_returned_bytes -= charge(complaint.data.len());
        Some(complaint)
    }

    /// Takes the first datagram, or looks at what follows `skip` bytes.
    ///
    /// # Errors
    /// `EAGAIN`, `EFAULT`.
    pub(super) fn recv(
        &mut self,
        dst: &mut dyn IoSink,
        peek: bool,
        skip: usize,
    ) -> SysResult<Received> {
        let (mut index, mut skip) = (0, skip);
        while let Some(datagram) = self.datagrams.get(index)
            && skip > 0
            && skip >= datagram.data.len()
        {
            skip -= datagram.data.len();
            index += 1;
        }
        let datagram = self.datagrams.get(index).ok_or(Errno::EAGAIN)?;
        let data = datagram.data.get(skip..).unwrap_or_default();
        let (full, about) = (data.len(), datagram.about);
        let result = put(dst, data);
        if !peek {
            // A datagram that could not be stored is gone, as on Linux.
            self.datagrams.pop_front();
            self.n_bytes -= charge(full);
        }
        Ok(Received { n: result?, full, about })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use syscalls::Errno;

    use super::{About, Queue};
    use crate::net::inet::addr::Endpoint;
    use crate::vfs::VecSink;

    const ADDR: Endpoint = Endpoint { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 };
    const ABOUT: About = About {
        from: ADDR,
        to: ADDR,
        ttl: 64,
        tos: 0,
        time_ns: 0,
        interface: 1,
        coverage: None,
        segment: None,
    };

    #[test]
    fn datagrams_are_received_whole_or_cut() {
        let mut queue = Queue::default();
        assert!(queue.add(b"abc".to_vec(), ABOUT, 10_000));
        assert!(queue.add(Vec::new(), ABOUT, 10_000));
        let mut sink = VecSink::new(2);
        let received = queue.recv(&mut sink, false, 0).unwrap();
        assert_eq!((received.n, received.full), (2, 3));
        assert_eq!(queue.recv(&mut VecSink::new(2), false, 0).unwrap().full, 0);
        assert_eq!(queue.recv(&mut VecSink::new(2), false, 0).err(), Some(Errno::EAGAIN));
        assert_eq!(queue.n_bytes(), 0);
    }

    #[test]
    fn full_queue_loses_datagrams() {
        let mut queue = Queue::default();
        let n_added = (0..100).filter(|_| queue.add(vec![0; 100], ABOUT, 4608)).count();
        assert!((2..20).contains(&n_added));
        assert_eq!(queue.n_dropped, 100 - u64::try_from(n_added).unwrap());
    }
}
