//! The `runsc` side of the control protocol (`sentry::control`).

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use sentry::control::{Addressed, Request, Response};

use crate::container::Container;
use crate::sys::terminal;

const SOCKET_NAME: &str = "control.sock";

/// How long a sentry may take to answer what it can answer at once.
const PROMPT: Duration = Duration::from_secs(10);

/// A connection to a running sentry, about one container.
#[derive(Debug)]
pub(crate) struct ControlClient {
    /// The container's id.
    container: String,
    stream: BufReader<UnixStream>,
}

/// Creates the listening socket in a container's state directory.
pub(crate) fn listen(state_dir: &Path) -> io::Result<UnixListener> {
    let (_dir, path) = short_path(state_dir)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

impl ControlClient {
    /// Connects to the sentry that a container runs in.
    pub(crate) fn connect(container: &Container) -> io::Result<Self> {
        let (_dir, path) = short_path(&container.sandbox_dir())?;
        let stream = BufReader::new(UnixStream::connect(path)?);
        Ok(Self { container: container.state.id.clone(), stream })
    }

    /// As [`ControlClient::connect`], for one who waits for further answers with `poll` or hands the
    /// connection on: nothing that has not been asked for is read.
    pub(crate) fn connect_unbuffered(container: &Container) -> io::Result<Self> {
        let (_dir, path) = short_path(&container.sandbox_dir())?;
        let id = container.state.id.clone();
        Ok(Self::from_descriptor(UnixStream::connect(path)?.into(), id))
    }

    /// Takes over a connection that another program has made, unbuffered.
    pub(crate) fn from_descriptor(socket: OwnedFd, container: String) -> Self {
        Self { container, stream: BufReader::with_capacity(1, UnixStream::from(socket)) }
    }

    /// Sends one request and waits for its answer, however long it takes.
    pub(crate) fn call(&mut self, request: &Request) -> anyhow::Result<Response> {
        self.send(request)?;
        self.receive()
    }

    /// Sends one request, whose answer is to be received.
    pub(crate) fn send(&mut self, request: &Request) -> anyhow::Result<()> {
        let line = self.line(request)?;
        self.stream.get_mut().write_all(&line).context("sending a request to the sentry")
    }

    /// As [`ControlClient::send`], with descriptors.
    pub(crate) fn send_with(
        &mut self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> anyhow::Result<()> {
        let line = self.line(request)?;
        let stream = self.stream.get_mut();
        let mut sent = 0;
        let mut chunks = descriptors.chunks(terminal::MAX_DESCRIPTORS).peekable();
        while let Some(chunk) = chunks.next() {
            let rest = line.get(sent..).unwrap_or_default();
            // A byte for each chunk of them but the last.
            let text = if chunks.peek().is_some() { rest.get(..1) } else { Some(rest) };
            sent += terminal::send_descriptors(stream.as_fd(), text.unwrap_or_default(), chunk)
                .context("sending descriptors to the sentry")?;
        }
        stream
            .write_all(line.get(sent..).unwrap_or_default())
            .context("sending a request to the sentry")
    }

    fn line(&self, request: &Request) -> anyhow::Result<Vec<u8>> {
        let container = Cow::Borrowed(&*self.container);
        let mut line =
            serde_json::to_vec(&Addressed { container, request: Cow::Borrowed(request) })?;
        line.push(b'\n');
        Ok(line)
    }

    /// Waits for the answer to the oldest request that has none.
    pub(crate) fn receive(&mut self) -> anyhow::Result<Response> {
        let mut answer = String::new();
        if self.stream.read_line(&mut answer).context("waiting for the sentry's answer")? == 0 {
            bail!("the sentry ended before it answered");
        }
        serde_json::from_str(&answer).context("reading the sentry's answer")
    }

    /// As [`ControlClient::call`], for what is answered at once.
    pub(crate) fn call_promptly(&mut self, request: &Request) -> anyhow::Result<Response> {
        self.stream.get_ref().set_read_timeout(Some(PROMPT))?;
        let response = self.call(request);
        self.stream.get_ref().set_read_timeout(None)?;
        response
    }
}

impl AsFd for ControlClient {
    /// Readable when an answer, or the end, has arrived.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.get_ref().as_fd()
    }
}

/// A socket's path may have no more than 107 bytes, a state directory's more.
fn short_path(state_dir: &Path) -> io::Result<(File, PathBuf)> {
    let dir = File::open(state_dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_NAME}", dir.as_raw_fd()));
    Ok((dir, path))
}
