//! The standard streams of containers: named pipes that containerd has made, and terminals.
//!
//! A container without a terminal gets the pipes for its output themselves. Only its input is
//! copied, because the shim has to be able to end it; a terminal's output and input both are.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::Winsize;

/// How long containerd may take to open the other end of a pipe.
const READER: Duration = Duration::from_secs(1);

/// Where the streams of a process go, as containerd names them; what is empty is /dev/null.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// What the shim holds of a process's streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    input: Option<Pump>,
    output: Option<Pump>,
    /// Reading ends, so that a container outlives the reader of its output.
    readers: Vec<File>,
    terminal: Option<OwnedFd>,
    console: Option<Console>,
}

/// A socket over which a terminal is to arrive.
#[derive(Debug)]
struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Console {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

/// The three streams of the program that makes a process.
pub(crate) type ChildStreams = [Stdio; 3];

impl Streams {
    /// Opens the streams of a process. `console` is where a socket for its terminal may be.
    pub(crate) fn open(paths: &Paths, console: PathBuf) -> anyhow::Result<(Self, ChildStreams)> {
        let mut streams = Self::default();
        if paths.terminal {
            let listener = UnixListener::bind(&console)
                .with_context(|| format!("binding {}", console.display()))?;
            listener.set_nonblocking(true)?;
            streams.console = Some(Console { listener, path: console });
            return Ok((streams, [Stdio::null(), Stdio::null(), Stdio::null()]));
        }
        let stdin = if paths.stdin.is_empty() {
            Stdio::null()
        } else {
            let (ours, theirs) = (open_input(&paths.stdin)?, io::pipe().context("a pipe")?);
            rustix::fs::fcntl_setfl(&theirs.1, OFlags::NONBLOCK)?;
            streams.input = Some(Pump::of_named_pipe(ours, theirs.1.into()));
            theirs.0.into()
        };
        let mut output = |path: &str| -> anyhow::Result<Stdio> {
            if path.is_empty() {
                return Ok(Stdio::null());
            }
            let (writer, reader) = open_output(path)?;
            rustix::fs::fcntl_setfl(&writer, OFlags::empty())?;
            streams.readers.extend(reader);
            Ok(writer.into())
        };
        let stdio = [stdin, output(&paths.stdout)?, output(&paths.stderr)?];
        Ok((streams, stdio))
    }

    /// The socket for the terminal of a process that gets one.
    pub(crate) fn console_path(&self) -> Option<&Path> {
        self.console.as_ref().map(|console| console.path.as_path())
    }

    /// Takes the terminal that has been sent, where there is to be one, and connects it.
    pub(crate) fn take_terminal(&mut self, paths: &Paths) -> anyhow::Result<()> {
        let Some(console) = self.console.take() else { return Ok(()) };
        let (stream, _) = console.listener.accept().context("no terminal was sent")?;
        let terminal = receive_descriptor(stream.as_fd())?;
        rustix::fs::fcntl_setfl(&terminal, OFlags::RDWR | OFlags::NONBLOCK)?;
        if !paths.stdin.is_empty() {
            let input = open_input(&paths.stdin)?;
            self.input = Some(Pump::of_named_pipe(input, terminal.try_clone()?));
        }
        if !paths.stdout.is_empty() {
            let (writer, reader) = open_output(&paths.stdout)?;
            self.readers.extend(reader);
            self.output = Some(Pump::new(terminal.try_clone()?, writer.into()));
        }
        self.terminal = Some(terminal);
        Ok(())
    }

    /// Ends the input of a process behind what has been written.
    pub(crate) fn close_input(&mut self) {
        if let Some(input) = &mut self.input {
            input.is_closing = true;
        }
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) -> io::Result<bool> {
        let Some(terminal) = &self.terminal else { return Ok(false) };
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal, size)?;
        Ok(true)
    }

    /// Lets go what belongs to a process that has ended. Returns what is still to be copied of its
    /// terminal's output.
    pub(crate) fn end(&mut self) -> Option<Pump> {
        let streams = std::mem::take(self);
        let mut output = streams.output?;
        output.move_all();
        (!output.is_done).then_some(output)
    }

    /// Returns the descriptors to wait for, and whether each is to be written.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.input.iter().chain(&self.output).map(Pump::awaited)
    }

    pub(crate) fn pumps(&mut self) -> impl Iterator<Item = &mut Pump> {
        self.input.iter_mut().chain(&mut self.output)
    }

    /// Drops what has been copied to its end, which is the end of a container's input.
    pub(crate) fn drop_done(&mut self) {
        for pump in [&mut self.input, &mut self.output] {
            drop(pump.take_if(|pump| pump.is_done));
        }
    }
}

/// Opens the reading end of a pipe that may have no writer yet. Not before one has come and gone
/// does it come to its end.
fn open_input(path: &str) -> anyhow::Result<File> {
    let flags = OFlags::NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path);
    file.with_context(|| format!("opening {path}"))
}

/// Opens the writing end of a pipe, and of a named one a reading end as well.
fn open_output(path: &str) -> anyhow::Result<(File, Option<File>)> {
    let context = || format!("opening {path}");
    if let Some(path) = path.strip_prefix("file://") {
        let path = path.split('?').next().unwrap_or(path);
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        return Ok((file.with_context(context)?, None));
    }
    if path.contains("://") {
        bail!("{path}: only pipes and file:// are supported");
    }
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    // Without a reader what is written might be lost: it comes a little later than the call.
    let deadline = Instant::now() + READER;
    let writer = loop {
        match OpenOptions::new().write(true).custom_flags(flags).open(path) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                if Instant::now() > deadline {
                    break OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            other => break other,
        }
    };
    let reader = OpenOptions::new().read(true).custom_flags(flags).open(path);
    Ok((writer.with_context(context)?, Some(reader.with_context(context)?)))
}

fn receive_descriptor(socket: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 256];
    let mut buffers = [io::IoSliceMut::new(&mut name)];
    rustix::net::recvmsg(socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .context("receiving a terminal")?;
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.context("no terminal came with the message")
}

/// Copies from one descriptor to another; neither blocks.
#[derive(Debug)]
pub(crate) struct Pump {
    from: OwnedFd,
    to: OwnedFd,
    /// What has been read and did not fit.
    rest: Vec<u8>,
    /// Whether it reads a named pipe, which seems to be at its end before it has a writer.
    is_named_pipe: bool,
    /// Whether it ends as soon as there is nothing to read.
    is_closing: bool,
    is_done: bool,
}

impl Pump {
    fn new(from: OwnedFd, to: OwnedFd) -> Self {
        let (is_named_pipe, is_closing, is_done) = (false, false, false);
        Self { from, to, rest: Vec::new(), is_named_pipe, is_closing, is_done }
    }

    fn of_named_pipe(from: File, to: OwnedFd) -> Self {
        Self { is_named_pipe: true, ..Self::new(from.into(), to) }
    }

    /// Tells whether what a read gives would be true: data, or the end.
    fn is_readable(&self) -> bool {
        if !self.is_named_pipe {
            return true;
        }
        let mut fds = [PollFd::new(&self.from, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Returns the descriptor that is waited for, and whether it is to be written.
    pub(crate) fn awaited(&self) -> (BorrowedFd<'_>, bool) {
        if self.rest.is_empty() { (self.from.as_fd(), false) } else { (self.to.as_fd(), true) }
    }

    /// Copies as much as there is and fits.
    pub(crate) fn move_all(&mut self) {
        let mut buffer = [0; 4096];
        while !self.is_done {
            while !self.rest.is_empty() {
                match rustix::io::write(&self.to, &self.rest) {
                    Ok(count) => drop(self.rest.drain(..count.min(self.rest.len()))),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::AGAIN) => return,
                    Err(_) => {
                        self.is_done = true;
                        return;
                    }
                }
            }
            self.rest = Vec::new();
            if !self.is_readable() {
                self.is_done = self.is_closing;
                return;
            }
            match rustix::io::read(&self.from, &mut buffer) {
                // Of a terminal EIO, when its last user is gone.
                Ok(0) => self.is_done = true,
                Ok(count) => self.rest.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    self.is_done = self.is_closing;
                    return;
                }
                Err(_) => self.is_done = true,
            }
        }
    }
}
