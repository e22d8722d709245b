//! Random sequences of calls on sockets whose results must be the host's.
//!
//! `fuzz_sockets unix|tcp|udp SEED STEPS [1]` prints digests as `fuzz_model` does. Nothing that it prints depends on ids,
//! ports or time: every call is one that does not wait, and little is sent, so that no limit of a buffer is met.

use std::fmt::Write;

use guest_tests::fs::{self, close};
use guest_tests::net::{self, LOCAL, addr4, addr6, local6};
use guest_tests::rng::{Log, Rng};
use guest_tests::runner::exit;
use guest_tests::{SysResult, sig, sys};
use libc::{AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_SEQPACKET, SOCK_STREAM};

/// How many names or ports a run uses.
const N_NAMES: usize = 5;
const MAX_SOCKETS: usize = 10;
/// More than this is not under way in one run without everything being read first.
const MAX_SENT: usize = 6;

/// What a run works with.
struct World {
    rng: Rng,
    log: Log,
    sockets: Vec<i32>,
    names: Vec<Vec<u8>>,
    /// Whether IPv6 sockets take part.
    families: &'static [i32],
    kinds: &'static [i32],
    sent: usize,
}

impl World {
    fn pick(&mut self) -> i32 {
        if self.sockets.is_empty() { -1 } else { self.rng.pick(&self.sockets) }
    }

    fn name(&mut self) -> Vec<u8> {
        let index = self.rng.below(N_NAMES);
        self.names[index].clone()
    }

    fn add(&mut self, what: &str, fd: Result<i32, i32>) {
        self.log.result(what, fd.map(|_| 0));
        if let Ok(fd) = fd {
            if self.families != [AF_UNIX] {
                // Nothing waits for an acknowledgement.
                let _ = net::set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
            }
            self.sockets.push(fd);
        }
        if self.sockets.len() > MAX_SOCKETS {
            let at = self.rng.below(self.sockets.len());
            let old = self.sockets.remove(at);
            self.log.result("close", close(old).map(|()| 0));
        }
    }

    /// Says which of the names an address is.
    fn address(&self, addr: &[u8]) -> String {
        if let Some(index) = self.names.iter().position(|name| name == addr) {
            return format!("name{index}");
        }
        let family = addr.get(..2).map_or(-1, |bytes| i32::from(bytes[0]));
        match family {
            AF_INET | AF_INET6 => {
                let port = net::port_of(addr);
                let known = self.names.iter().position(|name| net::port_of(name) == port);
                let host = &addr[if family == AF_INET { 4..8 } else { 8..24 }];
                // Whether a socket that is nobody's still shows a port, versions of Linux differ about.
                match known {
                    Some(index) => format!("{family}:{host:?}:name{index}"),
                    None => format!("{family}:other"),
                }
            }
            _ => format!("{}:{}", family, addr.len()),
        }
    }

    fn data(&mut self) -> Vec<u8> {
        let len = self.rng.pick(&[0, 1, 2, 10, 100, 500, 1000]);
        let start = self.rng.bits() as u8;
        (0..len).map(|i| start.wrapping_add(i as u8)).collect()
    }

    /// Notes a result with data.
    fn received(&mut self, what: &str, result: SysResult, buf: &[u8]) {
        self.log.result(what, result);
        let n = result.unwrap_or(0).min(buf.len());
        self.log.bytes(&buf[..n]);
    }

    fn receive(&mut self, fd: i32) {
        let mut flags = libc::MSG_DONTWAIT;
        for (flag, often) in [
            (libc::MSG_PEEK, 5),
            (libc::MSG_TRUNC, 6),
            (libc::MSG_WAITALL, 9),
            (libc::MSG_CMSG_CLOEXEC, 9),
        ] {
            if self.rng.one_in(often) {
                flags |= flag;
            }
        }
        let is_stream_trunc = flags & libc::MSG_TRUNC != 0 && self.kinds.contains(&SOCK_STREAM);
        if is_stream_trunc {
            flags &= !libc::MSG_TRUNC;
        }
        let len = self.rng.pick(&[0, 1, 5, 100, 700, 3000]);
        let mut buf = vec![0_u8; len];
        match self.rng.below(4) {
            0 => {
                let result = fs::read(fd, &mut buf);
                self.received("read", result, &buf);
            }
            1 => {
                let mut addr = [0_u8; 128];
                let mut addr_len = addr.len() as i32;
                let result =
                    sys!(SYS_recvfrom, fd, &mut buf[..], len, flags, &mut addr, &mut addr_len);
                self.received("recvfrom", result, &buf);
                if result.is_ok() {
                    let from = self.address(&addr[..(addr_len as usize).min(addr.len())]);
                    self.log.result(&format!("from {from}"), Ok(0));
                }
            }
            _ => self.receive_message(fd, &mut buf, flags),
        }
    }

    fn receive_message(&mut self, fd: i32, buf: &mut [u8], flags: i32) {
        let half = buf.len() / 2;
        let mut parts = [
            libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: half },
            libc::iovec { iov_base: buf[half..].as_mut_ptr().cast(), iov_len: buf.len() - half },
        ];
        let mut control = [0_u64; 16];
        let room = self.rng.pick(&[0_usize, 24, 128]);
        let mut message: libc::msghdr = guest_tests::mem::zeroed();
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = 2;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = room as _;
        let result = sys!(SYS_recvmsg, fd, &mut message, flags);
        self.received("recvmsg", result, buf);
        if result.is_err() {
            return;
        }
        self.log.result(&format!("flags {:x}", message.msg_flags & !libc::MSG_CMSG_CLOEXEC), Ok(0));
        let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut rest = &bytes[..(message.msg_controllen as usize).min(bytes.len())];
        while rest.len() >= 16 {
            let word =
                |at: usize| i32::from_ne_bytes(rest[at..at + 4].try_into().unwrap_or_default());
            let (len, level, kind) = (word(0) as usize, word(8), word(12));
            self.log.result(&format!("control {level} {kind} {len}"), Ok(0));
            if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
                for at in (16..len.min(rest.len())).step_by(4) {
                    let fd = word(at);
                    let mut stat: libc::stat = guest_tests::mem::zeroed();
                    let kind =
                        sys!(SYS_fstat, fd, &mut stat).map(|_| (stat.st_mode >> 12) as usize);
                    self.log.result("right", kind);
                    let _ = close(fd);
                }
            } else if level == libc::SOL_SOCKET && kind == libc::SCM_CREDENTIALS && len >= 28 {
                let own = word(16) == std::process::id() as i32;
                self.log.result(&format!("credentials {own} {} {}", word(20), word(24)), Ok(0));
            }
            rest = &rest[len.next_multiple_of(8).clamp(16, rest.len())..];
        }
    }

    fn send(&mut self, fd: i32) {
        if self.sent >= MAX_SENT {
            self.drain();
        }
        let data = self.data();
        let mut flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        if self.rng.one_in(8) {
            flags |= libc::MSG_MORE * i32::from(self.families == [AF_UNIX]);
        }
        if self.rng.one_in(12) {
            flags |= libc::MSG_EOR * i32::from(self.families == [AF_UNIX]);
        }
        let result = match self.rng.below(4) {
            0 => fs::write(fd, &data),
            1 => {
                let to = self.name();
                sys!(SYS_sendto, fd, &data[..], data.len(), flags, &to[..], to.len())
            }
            2 => self.send_message(fd, &data, flags),
            _ => sys!(SYS_sendto, fd, &data[..], data.len(), flags, 0, 0),
        };
        self.sent += usize::from(result.is_ok());
        self.log.result("send", result);
    }

    fn send_message(&mut self, fd: i32, data: &[u8], flags: i32) -> SysResult {
        let half = data.len() / 3;
        let parts = [
            libc::iovec { iov_base: data.as_ptr() as *mut _, iov_len: half },
            libc::iovec { iov_base: data[half..].as_ptr() as *mut _, iov_len: data.len() - half },
        ];
        let mut control: Vec<u8> = Vec::new();
        let mut put = |kind: i32, words: &[i32]| {
            control.extend((16 + words.len() * 4).to_ne_bytes());
            control.extend(libc::SOL_SOCKET.to_ne_bytes());
            control.extend(kind.to_ne_bytes());
            words.iter().for_each(|word| control.extend(word.to_ne_bytes()));
            control.resize(control.len().next_multiple_of(8), 0);
        };
        if self.rng.one_in(3) {
            // Not a socket, which could make a circle, nor the output, which may be any file.
            put(libc::SCM_RIGHTS, &[0, 0][..self.rng.below(2) + 1]);
        }
        if self.rng.one_in(5) {
            put(libc::SCM_CREDENTIALS, &[std::process::id() as i32, 0, 0]);
        }
        let mut message: libc::msghdr = guest_tests::mem::zeroed();
        message.msg_iov = parts.as_ptr() as *mut _;
        message.msg_iovlen = 2;
        if !control.is_empty() {
            message.msg_control = control.as_ptr() as *mut _;
            message.msg_controllen = control.len() as _;
        }
        sys!(SYS_sendmsg, fd, &message, flags)
    }

    /// Reads everything that is under way.
    fn drain(&mut self) {
        let mut buf = vec![0_u8; 4096];
        for fd in self.sockets.clone() {
            for _ in 0..MAX_SENT + 2 {
                let result = net::recv(fd, &mut buf, libc::MSG_DONTWAIT);
                self.received("drain", result, &buf);
                if !matches!(result, Ok(n) if n > 0) {
                    break;
                }
            }
        }
        self.sent = 0;
    }

    fn poll_all(&mut self) {
        let events = libc::POLLIN | libc::POLLOUT | libc::POLLPRI | libc::POLLRDHUP;
        let mut polls: Vec<libc::pollfd> =
            self.sockets.iter().map(|fd| libc::pollfd { fd: *fd, events, revents: 0 }).collect();
        self.log.result("poll", sys!(SYS_poll, &mut polls[..], polls.len(), 0));
        let mut text = String::from("ready");
        polls.iter().for_each(|poll| write!(text, " {:x}", poll.revents).unwrap_or(()));
        self.log.result(&text, Ok(0));
    }

    fn option(&mut self, fd: i32) {
        let name = self.rng.pick(&[
            libc::SO_TYPE,
            libc::SO_ERROR,
            libc::SO_ACCEPTCONN,
            libc::SO_DOMAIN,
            libc::SO_PROTOCOL,
            libc::SO_REUSEADDR,
            libc::SO_KEEPALIVE,
            libc::SO_BROADCAST,
            libc::SO_OOBINLINE,
            libc::SO_RCVLOWAT,
            libc::SO_PRIORITY,
            libc::SO_MARK,
            libc::SO_DONTROUTE,
            libc::SO_TIMESTAMP,
            9999,
        ]);
        let is_fixed = matches!(
            name,
            libc::SO_TYPE
                | libc::SO_ERROR
                | libc::SO_ACCEPTCONN
                | libc::SO_DOMAIN
                | libc::SO_PROTOCOL
        );
        if self.rng.one_in(2) || is_fixed {
            let result = net::option(fd, libc::SOL_SOCKET, name);
            self.log.result(&format!("get {name}"), result.map(|value| value as u32 as usize));
            return;
        }
        // What would make buffers matter, or time stamps appear, is only read.
        let is_read_only = matches!(name, libc::SO_RCVLOWAT | libc::SO_TIMESTAMP);
        if !is_read_only {
            let value = self.rng.pick(&[0, 1, 2]);
            self.log
                .result(&format!("set {name}"), net::set_option(fd, libc::SOL_SOCKET, name, value));
        }
    }

    fn names_of(&mut self, fd: i32) {
        for (what, result) in [("name", net::name_of(fd)), ("peer", net::peer_of(fd))] {
            match result {
                Ok(addr) => {
                    let text = format!("{what} {}", self.address(&addr));
                    self.log.result(&text, Ok(0));
                }
                Err(errno) => self.log.result(what, Err(errno)),
            }
        }
    }

    fn step(&mut self) {
        let fd = self.pick();
        match self.rng.below(40) {
            0..4 => {
                let (family, kind) = (self.rng.pick(self.families), self.rng.pick(self.kinds));
                let result = net::socket(family, kind | SOCK_NONBLOCK);
                self.add("socket", result);
            }
            4 => self.make_pair(),
            5..8 => {
                let name = self.name();
                self.log.result("bind", net::bind(fd, &name));
            }
            8..10 => self.log.result("listen", net::listen(fd, 4)),
            10..14 => {
                let name = self.name();
                self.log.result("connect", net::connect(fd, &name));
            }
            14 => {
                let nobody = [0_u8; 16];
                self.log.result("dissolve", net::connect(fd, &nobody));
            }
            15..18 => {
                let result = net::accept(fd, SOCK_NONBLOCK);
                self.add("accept", result);
            }
            18..24 => self.send(fd),
            24..30 => self.receive(fd),
            30 | 31 => self.poll_all(),
            // What it leaves of a socket of the Internet that is not connected, versions differ about.
            32 if self.families == [AF_UNIX] || net::peer_of(fd).is_ok() => {
                let how = self.rng.below(4) as i32;
                self.log.result("shutdown", sys!(SYS_shutdown, fd, how));
            }
            33 | 34 => self.option(fd),
            35 => self.names_of(fd),
            36 => {
                let mut pending = 0_i32;
                let result = sys!(SYS_ioctl, fd, libc::FIONREAD, &mut pending);
                self.log.result("pending", result.map(|_| pending as usize));
            }
            37 => self.own_step(fd),
            _ if !self.sockets.is_empty() => {
                let at = self.rng.below(self.sockets.len());
                let fd = self.sockets.remove(at);
                self.log.result("close", close(fd).map(|()| 0));
            }
            _ => {}
        }
        self.log.step();
    }

    fn make_pair(&mut self) {
        let kind = self.rng.pick(self.kinds) | SOCK_NONBLOCK;
        let mut pair = [0_i32; 2];
        let result = sys!(SYS_socketpair, self.families[0], kind, 0, &mut pair);
        self.log.result("socketpair", result);
        if result.is_ok() {
            pair.into_iter().for_each(|fd| self.sockets.push(fd));
        }
    }

    /// What only one family has.
    fn own_step(&mut self, fd: i32) {
        if self.families == [AF_UNIX] {
            let name = self.name();
            if name.get(2).is_some_and(|byte| *byte != 0) {
                self.log.result("unlink", sys!(SYS_unlink, &name[2..]));
            }
            return;
        }
        if !self.kinds.contains(&SOCK_STREAM) {
            return;
        }
        match self.rng.below(3) {
            0 => {
                let linger = [1_i32, 0];
                let result =
                    sys!(SYS_setsockopt, fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger, 8);
                self.log.result("abort", result);
                if let Some(at) = self.sockets.iter().position(|other| *other == fd) {
                    self.sockets.remove(at);
                    self.log.result("close", close(fd).map(|()| 0));
                }
            }
            1 => {
                let name = self.rng.pick(&[libc::TCP_NODELAY, libc::TCP_CORK, libc::TCP_KEEPIDLE]);
                let result = net::option(fd, libc::IPPROTO_TCP, name);
                self.log.result(&format!("tcp {name}"), result.map(|value| value as usize));
            }
            _ => {
                let mut info = [0_u8; 8];
                let mut len = 8_i32;
                let result = sys!(
                    SYS_getsockopt,
                    fd,
                    libc::IPPROTO_TCP,
                    libc::TCP_INFO,
                    &mut info,
                    &mut len
                );
                self.log.result("state", result.map(|_| info[0].into()));
            }
        }
    }
}

fn unix_names() -> Vec<Vec<u8>> {
    let id = std::process::id();
    let name = |text: String| [&(AF_UNIX as u16).to_ne_bytes()[..], text.as_bytes()].concat();
    let paths = (0..3).map(|i| name(format!("s{i}\0")));
    let abstract_names = (3..N_NAMES).map(|i| name(format!("\0sockets-{id}-{i}")));
    paths.chain(abstract_names).collect()
}

fn inet_names(family: i32) -> Vec<Vec<u8>> {
    let mut ports: Vec<u16> = Vec::new();
    while ports.len() < N_NAMES {
        let port = net::quiet_port().unwrap_or(0);
        if port == 0 || !ports.contains(&port) {
            ports.push(port);
        }
    }
    let name = |port| if family == AF_INET { addr4(LOCAL, port) } else { addr6(local6(), port) };
    ports.into_iter().map(name).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |n: usize| arguments.get(n).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let (seed, steps) = (number(2), number(3));
    let _ = sig::plain(libc::SIGPIPE, 1);
    let dir = format!("/tmp/sockets-{seed}-{}", std::process::id());
    let _ = std::fs::create_dir_all(&dir);
    let _ = std::env::set_current_dir(&dir);
    let (names, families, kinds): (_, &'static [i32], &'static [i32]) =
        match arguments.get(1).map_or("", String::as_str) {
            "unix" => (unix_names(), &[AF_UNIX], &[SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET]),
            "tcp" if seed % 2 == 0 => (inet_names(AF_INET), &[AF_INET], &[SOCK_STREAM]),
            "tcp" => (inet_names(AF_INET6), &[AF_INET6], &[SOCK_STREAM]),
            "udp" if seed % 2 == 0 => (inet_names(AF_INET), &[AF_INET], &[SOCK_DGRAM]),
            "udp" => (inet_names(AF_INET6), &[AF_INET6], &[SOCK_DGRAM]),
            _ => {
                let _ = fs::write_all(2, b"usage: fuzz_sockets unix|tcp|udp SEED STEPS [1]\n");
                exit(2);
            }
        };
    let log = Log::new(number(4) > 0);
    let mut world =
        World { rng: Rng::new(seed), log, sockets: Vec::new(), names, families, kinds, sent: 0 };
    for _ in 0..4 {
        let kind = world.rng.pick(kinds) | SOCK_NONBLOCK;
        let first = net::socket(world.rng.pick(families), kind);
        world.add("socket", first);
    }
    for _ in 0..steps {
        world.step();
    }
    let _ = std::env::set_current_dir("/");
    let _ = std::fs::remove_dir_all(&dir);
    world.log.end();
    exit(0);
}
