//! What a shim tells containerd of its containers, one after the other and in their order.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use super::ttrpc::Connection;
use super::wire::{Writer, any};

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// How long an event is kept that containerd does not take, and how often it is tried.
const KEPT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(1);

/// The connection to containerd's events, and what it is still to be told.
#[derive(Debug)]
pub(crate) struct Publisher {
    address: String,
    namespace: String,
    queue: VecDeque<Event>,
    connection: Option<Connection>,
    /// The call that is under way, with the first event of the queue.
    awaited: Option<u32>,
    next_stream: u32,
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Event {
    envelope: Writer,
    made_at: Instant,
}

impl Publisher {
    pub(crate) fn new(address: &str, namespace: &str) -> Self {
        Self {
            address: address.strip_prefix("unix://").unwrap_or(address).to_owned(),
            namespace: namespace.to_owned(),
            queue: VecDeque::new(),
            connection: None,
            awaited: None,
            next_stream: 1,
            retry_at: None,
        }
    }

    /// Tells containerd of an event: the topic behind `/tasks/`, the type behind
    /// `containerd.events.`.
    pub(crate) fn publish(&mut self, topic: &str, kind: &str, event: Writer) {
        if self.address.is_empty() {
            return;
        }
        let event = any(&format!("containerd.events.{kind}"), event.into_bytes());
        let envelope = Writer::new()
            .message(1, &timestamp(SystemTime::now()))
            .bytes(2, &self.namespace)
            .bytes(3, format!("/tasks/{topic}"))
            .message(4, &event);
        self.queue.push_back(Event { envelope, made_at: Instant::now() });
        self.advance();
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns the socket to wait for and whether for room in it.
    pub(crate) fn awaited(&self) -> Option<(&UnixStream, bool)> {
        self.connection.as_ref().map(|connection| (connection.socket(), connection.has_output()))
    }

    /// Returns when the publisher has to be called without an event on its socket.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Does what can be done without waiting.
    pub(crate) fn advance(&mut self) {
        if self.retry_at.is_some_and(|at| Instant::now() >= at) {
            self.retry_at = None;
        }
        if let Some(connection) = &mut self.connection {
            let mut is_alive = connection.flush() && connection.fill();
            // An answer may have come before the end.
            if let Some(stream) = self.awaited {
                match connection.next_answer(stream) {
                    // What containerd refuses it will refuse again.
                    Ok(Some(_)) => {
                        self.queue.pop_front();
                        self.awaited = None;
                    }
                    Ok(None) => {}
                    Err(_) => is_alive = false,
                }
            }
            if !is_alive {
                self.connection = None;
                self.awaited = None;
            }
        }
        while self.queue.front().is_some_and(|event| event.made_at.elapsed() > KEPT) {
            if self.awaited.is_some() {
                break;
            }
            self.queue.pop_front();
        }
        let Some(event) = self.queue.front() else { return };
        if self.awaited.is_some() || self.retry_at.is_some() {
            return;
        }
        if self.connection.is_none() {
            let connected = UnixStream::connect(&self.address).and_then(Connection::new);
            match connected {
                Ok(connection) => self.connection = Some(connection),
                Err(_) => self.retry_at = Some(Instant::now() + INTERVAL),
            }
        }
        if let Some(connection) = &mut self.connection {
            let request = Writer::new().message(1, &event.envelope).into_bytes();
            connection.call(self.next_stream, SERVICE, "Forward", &request);
            self.awaited = Some(self.next_stream);
            self.next_stream = self.next_stream.wrapping_add(2);
            // A failure shows when the socket is read.
            connection.flush();
        }
    }
}

/// Returns a message of `google.protobuf.Timestamp`.
pub(crate) fn timestamp(time: SystemTime) -> Writer {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Writer::new().number(1, since.as_secs()).number(2, since.subsec_nanos())
}
