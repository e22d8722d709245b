//! Two stacks with a wire between them, and what a hostile one can do to the other.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Weak};

use smoltcp::socket::tcp::State;
use syscalls::Errno;
use syscalls::abi::socket::MsgFlags;

use super::link::{Link, Owner};
use super::wire::{self, FRAME_HEAD, Manner, VNET_HEADER};
use super::{Endpoint, Stack};
use crate::config::network::{AddrConfig, InterfaceConfig, NetworkConfig};
use crate::net::options::Options;
use crate::sync::WaitQueue;
use crate::vfs::{SliceSource, VecSink};

const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

fn addr(side: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, if side == 0 { 1 } else { 2 }))
}

fn end(side: usize) -> Endpoint {
    Endpoint { ip: addr(side), port: if side == 0 { 1000 } else { 2000 } }
}

/// A stack and the other end of its wire.
struct Host {
    stack: Arc<Stack>,
    wire: UnixDatagram,
}

impl Host {
    fn new(side: usize) -> Self {
        let (own, wire) = UnixDatagram::pair().unwrap();
        wire.set_nonblocking(true).unwrap();
        let interface = InterfaceConfig {
            name: "eth0".into(),
            index: 2,
            mac: MACS[side],
            mtu: 1500,
            addrs: vec![AddrConfig { ip: addr(side), prefix: 24 }],
        };
        let config = NetworkConfig { interfaces: vec![interface], ..NetworkConfig::default() };
        let stack = Stack::new(&Weak::new(), &config, vec![own.into()]).unwrap();
        Self { stack, wire }
    }

    fn sent(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 70_000];
        let n = self.wire.recv(&mut frame).ok()?;
        frame.truncate(n);
        Some(frame)
    }

    fn receive(&self, frame: &[u8]) {
        let mut touched = Vec::new();
        self.stack.input(0, frame, &mut touched);
        for link in touched {
            link.answer();
        }
    }
}

/// Two hosts with a connection that each has begun.
struct Pair {
    hosts: [Host; 2],
    links: [Arc<Link>; 2],
}

impl Pair {
    fn new() -> Self {
        let hosts = [Host::new(0), Host::new(1)];
        let links = [0, 1].map(|side| {
            let options = Arc::new(Options::with_buffers(16_384, 131_072));
            let owner = Owner { socket: Weak::new(), queue: WaitQueue::new(), options: &options };
            Link::connect(&hosts[side].stack, end(side), end(1 - side), owner).unwrap()
        });
        let pair = Self { hosts, links };
        pair.pump();
        assert_eq!(
            pair.links.each_ref().map(|link| link.look(false).state),
            [State::Established; 2]
        );
        pair
    }

    /// Moves frames, and lets what is due be done, until a condition holds.
    fn until(&self, condition: impl Fn() -> bool) {
        let started = std::time::Instant::now();
        loop {
            self.pump();
            if condition() {
                return;
            }
            assert!(started.elapsed().as_secs() < 60, "never");
            std::thread::yield_now();
            for link in &self.links {
                link.tick();
            }
        }
    }

    /// Moves frames until there are none.
    fn pump(&self) {
        for _ in 0..10_000 {
            let mut is_idle = true;
            for side in [0, 1] {
                while let Some(frame) = self.hosts[side].sent() {
                    is_idle = false;
                    self.hosts[1 - side].receive(&frame);
                }
            }
            if is_idle {
                return;
            }
        }
        panic!("the two never stop");
    }
}

/// Numbers that look random and are always the same.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below.max(1)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.next(256)).unwrap()
    }
}

fn receive_all(link: &Arc<Link>) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let mut sink = VecSink::new(100_000);
        match link.recv(&mut sink, MsgFlags::empty()) {
            Ok(0) | Err(Errno::EAGAIN) => return all,
            Ok(_) => all.extend_from_slice(&sink.data),
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[test]
fn what_is_sent_arrives_in_order() {
    let pair = Pair::new();
    let data: Vec<u8> = (0..300_000_u32).flat_map(u32::to_ne_bytes).collect();
    let mut received = Vec::new();
    let mut sent = 0;
    while received.len() < data.len() {
        if sent < data.len() {
            match pair.links[0].send(&mut SliceSource::new(&data[sent..]), MsgFlags::empty()) {
                Ok(n) => sent += n,
                Err(error) => assert_eq!(error, Errno::EAGAIN),
            }
        }
        pair.until(|| pair.links[1].look(false).n_readable > 0);
        received.extend_from_slice(&receive_all(&pair.links[1]));
    }
    assert_eq!(received, data);
}

#[test]
fn both_ends_close_one_after_the_other() {
    let pair = Pair::new();
    let [one, other] = &pair.links;
    one.shutdown(false, true).unwrap();
    pair.until(|| other.look(false).state == State::CloseWait);
    assert_eq!(other.recv(&mut VecSink::new(1), MsgFlags::empty()), Ok(0));
    assert_eq!(other.send(&mut SliceSource::new(b"late"), MsgFlags::empty()), Ok(4));
    pair.until(|| one.look(false).n_readable == 4);
    assert_eq!(receive_all(one), b"late");
    other.close(false);
    pair.until(|| other.look(false).state == State::Closed);
    assert_eq!(one.look(false).state, State::TimeWait);
}

#[test]
fn data_that_nobody_reads_reset_the_connection() {
    let pair = Pair::new();
    let [one, other] = &pair.links;
    assert_eq!(one.send(&mut SliceSource::new(b"unread"), MsgFlags::empty()), Ok(6));
    pair.until(|| other.look(false).n_readable == 6);
    other.close(false);
    pair.until(|| one.look(false).has_error);
    assert_eq!(one.recv(&mut VecSink::new(1), MsgFlags::empty()), Err(Errno::ECONNRESET));
    assert_eq!(one.recv(&mut VecSink::new(1), MsgFlags::empty()), Ok(0));
    assert_eq!(one.send(&mut SliceSource::new(b"x"), MsgFlags::empty()), Err(Errno::EPIPE));
}

/// Returns a frame with a packet of IPv4 from the other host.
fn frame(protocol: u8, segment: &[u8]) -> Vec<u8> {
    let head = wire::header(addr(1), addr(0), protocol, segment.len(), Manner::DEFAULT);
    let mut frame = wire::frame(&head, segment);
    wire::address_frame(&mut frame, MACS[0], MACS[1], wire::ETHERTYPE_IPV4);
    // The checksum is not looked at.
    wire::put(&mut frame, 0, &[1]);
    frame
}

fn segment(numbers: &mut Numbers, seq: u32, ack: u32) -> Vec<u8> {
    let near = |numbers: &mut Numbers, base: u32| match numbers.next(5) {
        0 => base,
        1 => base.wrapping_add(u32::try_from(numbers.next(200_000)).unwrap()),
        2 => base.wrapping_sub(u32::try_from(numbers.next(200_000)).unwrap()),
        3 => base.wrapping_add(u32::try_from(numbers.next(3_000_000)).unwrap()),
        _ => u32::try_from(numbers.next(1 << 31)).unwrap(),
    };
    let n_options = if numbers.next(3) == 0 { numbers.next(11) * 4 } else { 0 };
    let n_data = [0, 1, 1460, 30_000, 60_000][numbers.next(5)];
    let mut bytes = vec![0; 20 + n_options + n_data];
    wire::put(&mut bytes, 0, &2000_u16.to_be_bytes());
    wire::put(&mut bytes, 2, &1000_u16.to_be_bytes());
    wire::put(&mut bytes, 4, &near(numbers, seq).to_be_bytes());
    wire::put(&mut bytes, 8, &near(numbers, ack).to_be_bytes());
    let flags = match numbers.next(8) {
        0 => numbers.byte() & 0x3f,
        1 => wire::ACK | wire::FIN,
        2 if numbers.next(20) == 0 => wire::RST,
        3 => wire::SYN | wire::ACK,
        4 => wire::SYN,
        _ => wire::ACK,
    };
    wire::put(&mut bytes, 12, &[u8::try_from((5 + n_options / 4) << 4).unwrap(), flags]);
    wire::put(&mut bytes, 14, &[numbers.byte(), numbers.byte()]);
    for option in bytes.iter_mut().skip(20).take(n_options) {
        *option = if numbers.next(2) == 0 { numbers.byte() % 10 } else { numbers.byte() };
    }
    bytes
}

/// No sequence of segments may make a connection panic, whatever its state.
#[test]
fn hostile_segments_do_no_harm() {
    let mut numbers = Numbers(1);
    for _ in 0..150 {
        let pair = Pair::new();
        let link = &pair.links[0];
        let (mut seq, mut ack) = (0, 0);
        for _ in 0..60 {
            match numbers.next(12) {
                0 => drop(link.send(&mut SliceSource::new(&[7; 5000]), MsgFlags::empty())),
                1 => drop(link.recv(&mut VecSink::new(10_000), MsgFlags::empty())),
                2 if numbers.next(10) == 0 => drop(link.shutdown(false, true)),
                3 if numbers.next(30) == 0 => drop(link.close(false)),
                4 => link.tick(),
                _ => {
                    let bytes = segment(&mut numbers, seq, ack);
                    pair.hosts[0].receive(&frame(wire::PROTOCOL_TCP, &bytes));
                }
            }
            while let Some(sent) = pair.hosts[0].sent() {
                let segment = sent.get(FRAME_HEAD + 20..).and_then(wire::Segment::parse);
                if let Some(segment) = segment {
                    (seq, ack) = (segment.ack, segment.seq.wrapping_add(1));
                }
            }
        }
    }
}

/// The same before there is a connection.
#[test]
fn hostile_answers_to_an_attempt_do_no_harm() {
    let mut numbers = Numbers(2);
    for _ in 0..300 {
        let host = Host::new(0);
        let options = Arc::new(Options::with_buffers(16_384, 131_072));
        let owner = Owner { socket: Weak::new(), queue: WaitQueue::new(), options: &options };
        let link = Link::connect(&host.stack, end(0), end(1), owner).unwrap();
        // The answer to the question who the other host is.
        let arp =
            [&[0, 1, 8, 0, 6, 4, 0, 2][..], &MACS[1], &[10, 0, 0, 2], &MACS[0], &[10, 0, 0, 1]];
        let mut reply = wire::frame(&[], &arp.concat());
        wire::address_frame(&mut reply, MACS[0], MACS[1], wire::ETHERTYPE_ARP);
        host.receive(&reply);
        let (mut seq, mut ack) = (77, 0);
        for _ in 0..30 {
            while let Some(sent) = host.sent() {
                if let Some(sent) = sent.get(FRAME_HEAD + 20..).and_then(wire::Segment::parse) {
                    ack = sent.seq.wrapping_add(1);
                    seq = if sent.has(wire::ACK) { sent.ack } else { seq };
                }
            }
            let bytes = segment(&mut numbers, seq, ack);
            host.receive(&frame(wire::PROTOCOL_TCP, &bytes));
        }
        let _ = link.recv(&mut VecSink::new(10_000_000), MsgFlags::empty());
    }
}

/// No frame may make the stack panic: changed bytes, missing ends, wrong lengths.
#[test]
fn mutated_frames_do_no_harm() {
    let mut numbers = Numbers(3);
    let pair = Pair::new();
    let host = &pair.hosts[0];
    let udp = [&[0, 1, 0, 2, 0, 12, 0, 0][..], b"data"].concat();
    let quoted = wire::header(addr(0), addr(1), wire::PROTOCOL_UDP, 8, Manner::DEFAULT);
    let unreachable = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted, &[0, 1, 0, 2, 0, 8, 0, 0]].concat();
    let mut v6 = wire::frame(
        &wire::header(
            "fd00::2".parse().unwrap(),
            "fd00::1".parse().unwrap(),
            wire::PROTOCOL_ICMPV6,
            32,
            Manner { ttl: 255, ..Manner::DEFAULT },
        ),
        &[&[135, 0, 0, 0, 0, 0, 0, 0][..], &[0xfd; 16], &[1, 1, 2, 0, 0, 0, 0, 2]].concat(),
    );
    wire::address_frame(&mut v6, MACS[0], MACS[1], wire::ETHERTYPE_IPV6);
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &MACS[1], &[10, 0, 0, 2], &[0; 6], &[10, 0, 0, 1]];
    let mut who_has = wire::frame(&[], &arp.concat());
    wire::address_frame(&mut who_has, MACS[0], MACS[1], wire::ETHERTYPE_ARP);
    let templates = [
        frame(wire::PROTOCOL_UDP, &udp),
        frame(wire::PROTOCOL_ICMP, &[&[8, 0, 0, 0][..], &[5; 60]].concat()),
        frame(wire::PROTOCOL_ICMP, &unreachable),
        frame(wire::PROTOCOL_TCP, &segment(&mut numbers, 0, 0)),
        v6,
        who_has,
    ];
    for _ in 0..60_000 {
        let mut frame = templates[numbers.next(templates.len())].clone();
        for _ in 0..numbers.next(6) {
            let at = VNET_HEADER + numbers.next(frame.len() - VNET_HEADER);
            frame[at] = numbers.byte();
        }
        if numbers.next(3) == 0 {
            frame.truncate(numbers.next(frame.len() + 1));
        }
        // Mostly with the right checksum of the header, so that there is more to be seen.
        if numbers.next(4) > 0 && frame.len() > FRAME_HEAD + 20 {
            let (_, packet) = frame.split_at_mut(FRAME_HEAD);
            wire::put(packet, 10, &[0, 0]);
            let len = (usize::from(packet[0] & 0xf) * 4).min(packet.len());
            let sum = !wire::fold(wire::add_to_sum(0, &packet[..len]));
            wire::put(packet, 10, &sum.to_be_bytes());
        }
        host.receive(&frame);
        while host.sent().is_some() {}
    }
}
