//! `runsc port-forward`.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, bail};
use sentry::control::Request;

use crate::cli::{GlobalOptions, PortForwardArgs};
use crate::container::Container;
use crate::log;
use crate::sandbox::control_client::ControlClient;
use crate::sandbox::monitor;

/// How much of a stream is moved at a time.
const CHUNK: usize = 64 << 10;

/// Connects ports of this host's loopback address, or one unix socket, to ports of a container. As
/// gVisor's, but for the address: that one listens at all of the host's.
pub(crate) fn run(global: &GlobalOptions, args: &PortForwardArgs) -> anyhow::Result<i32> {
    let container = Container::find(&super::state_root(global), &args.id)?;
    let (local, remote) = ports(&args.ports)?;
    if let Some(path) = &args.stream {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("--stream: connecting to {}", path.display()))?;
        connect(&container, &stream, remote)?;
        return Ok(0);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, local))
        .with_context(|| format!("listening at port {local}"))?;
    // Before anything is said: whoever waits for it may take it for a promise.
    let mut control = ControlClient::connect(&container)
        .with_context(|| format!("container {} is not running", args.id))?;
    let local = listener.local_addr()?.port();
    super::print(&format!("Forwarding local port {local} to {remote}...\n"))?;
    std::thread::spawn(move || accept(&listener, &container, remote));
    // Where the sandbox is killed there is no answer, and the container has stopped as well.
    let _ = control.call(&Request::Wait);
    super::print(&format!("Container {:?} stopped. Exiting...\n", args.id))?;
    Ok(0)
}

/// Reads `LOCAL:REMOTE`, or one number for both.
fn ports(text: &str) -> anyhow::Result<(u16, u16)> {
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| text.parse().with_context(|| format!("{text:?} is no port"));
    let (local, remote) = (number(local)?, number(remote)?);
    if remote == 0 {
        bail!("port 0 of a container is nobody's");
    }
    Ok((local, remote))
}

fn connect(container: &Container, stream: &UnixStream, port: u16) -> anyhow::Result<()> {
    let mut control = ControlClient::connect(container)
        .with_context(|| format!("container {} is not running", container.state.id))?;
    control.send_with(&Request::Connect { port }, &[stream.as_fd()])?;
    monitor::expect_done(control.receive()?)
}

/// Takes connections until the process ends.
fn accept(listener: &TcpListener, container: &Container, port: u16) {
    std::thread::scope(|scope| {
        for client in listener.incoming() {
            let result = client.map_err(anyhow::Error::from).and_then(|client| {
                // Not the client itself: it is a socket of this host's network, which no sandbox is
                // to have.
                let (own, theirs) = UnixStream::pair()?;
                connect(container, &theirs, port)?;
                let back = (own.try_clone()?, client.try_clone()?);
                let spawn = |body: Box<dyn FnOnce() + Send>| {
                    std::thread::Builder::new().spawn_scoped(scope, body).map(drop)
                };
                spawn(Box::new(move || {
                    let (mut from, mut to) = (&client, &own);
                    finish(&client, &own, &copy(&mut from, &mut to));
                }))?;
                spawn(Box::new(move || {
                    let (own, client) = back;
                    let (mut from, mut to) = (&own, &client);
                    finish(&client, &own, &copy(&mut from, &mut to));
                }))?;
                Ok(())
            });
            if let Err(error) = result {
                log::warning(&format!("port forwarding: {error:#}"));
            }
        }
    });
}

/// Copies a stream to its end, and that as well.
fn copy(from: &mut (impl io::Read + End), to: &mut (impl io::Write + End)) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if n == 0 {
            return to.end(Shutdown::Write);
        }
        to.write_all(buffer.get(..n).unwrap_or_default())?;
    }
}

/// Ends both connections where one has ended in any other way than by its end.
fn finish(client: &TcpStream, own: &UnixStream, result: &io::Result<()>) {
    if result.is_err() {
        // Whichever is over already.
        let _ = own.shutdown(Shutdown::Both);
        let _ = client.shutdown(Shutdown::Both);
    }
}

/// A stream of which a direction can be ended.
trait End {
    fn end(&self, how: Shutdown) -> io::Result<()>;
}

impl End for &TcpStream {
    fn end(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
}

impl End for &UnixStream {
    fn end(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
}

#[cfg(test)]
mod tests {
    use super::ports;

    #[test]
    fn ports_are_read_as_given() {
        assert_eq!(ports("8080:80").unwrap(), (8080, 80));
        assert_eq!(ports("80").unwrap(), (80, 80));
        assert_eq!(ports("0:80").unwrap(), (0, 80));
        for wrong in ["", ":", "80:", "80:0", "0", "65536", "1:2:3", "-1:80", "http:80"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }
}
