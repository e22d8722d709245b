//! The control protocol between `runsc` and a running sentry: one JSON object per line over a unix
//! stream socket, an answer for each request, in order.
//!
//! [`ControlServer::run`] is what the sentry's first thread does for as long as its first container
//! lives. The client is trusted (only the sandbox's owner can reach the socket) but may vanish at
//! any moment; a line has a bound, and a client that does not read is dropped.

mod job;
mod message;
mod server;

pub use message::{
    Addressed, ContainerStatus, ProcessInfo, Request, Response, StartError, ThreadInfo,
};
pub use server::{ContainerTarget, ControlServer, ControlTarget, ExecProcess, StatusNotifier};
